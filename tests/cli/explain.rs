//! `tenantauth explain`.

use super::{KEY, NOW, NOW_UNIX, Room};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

fn claims() -> Value {
    json!({
        "iss": "https://login.example/v2.0",
        "aud": "grafana",
        "sub": "subject-1",
        "preferred_username": "ada@example.org",
        "exp": NOW_UNIX + 600,
        "groups": ["team-a", "0f3c9a1e", "canteen\u{1b}[2J"],
    })
}

fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "k1"})), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(KEY.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[test]
fn explain_decides_like_nginx() {
    let room = Room::new();
    for (args, status, decision) in [
        ("--groups group1 --tenant tenant1 --scope metrics:read", 0, "allow (granted)"),
        ("--groups group1 --tenant tenant1 --scope metrics:write", 2, "deny (scope_forbidden)"),
        ("--groups= --tenant tenant1 --scope metrics:read", 2, "deny (tenant_forbidden)"),
        ("--groups team-a --tenant archive --scope traces:read", 2, "deny (tenant_forbidden)"),
        ("--groups 0f3c9a1e --tenant any --scope traces:read", 0, "allow (granted)"),
        (
            "--groups other,team-a --tenant team-a-x|team-a --scope logs:read --client-ip 203.0.113.7",
            0,
            "allow (granted)",
        ),
        ("--groups team-a --tenant team-a-x --scope logs:read", 2, "deny (ip_missing)"),
        (
            "--groups team-a --tenant team-a-x --scope logs:read --client-ip 198.18.0.5",
            2,
            "deny (ip_forbidden)",
        ),
        ("--groups team-a --groups sre --tenant team-a-x --scope logs:read", 0, "allow (granted)"),
        ("--groups team-a --tenant team-a|team-a-x --scope logs:write", 2, "deny (tenant_malformed)"),
        ("--groups team-a --tenant team:a --scope logs:read", 2, "deny (tenant_malformed)"),
        ("--groups team-a --tenant= --path /nowhere", 2, "deny (tenant_missing)"),
        ("--groups team-a --tenant team:a --path /nowhere", 2, "deny (route_unknown)"),
        ("--groups team-a --tenant a|b --path /loki/api/v1/push --method POST", 2, "deny (tenant_malformed)"),
        ("--groups team-a --tenant team-a --path /loki//api/v1/query", 2, "deny (path_ambiguous)"),
        // Rules of an unknown backend: the restriction on Loki's counts; Mimir's are not bound.
        ("--groups team-a --tenant team-a-x --scope rules:read", 2, "deny (ip_missing)"),
        ("--groups team-a --tenant team-a-x --scope rules:read --backend loki", 2, "deny (ip_missing)"),
        ("--groups team-a --tenant team-a-x --scope rules:read --backend mimir", 0, "allow (granted)"),
        (
            "--groups team-a --tenant team-a-x --path /prometheus/api/v1/rules --backend mimir,tempo",
            0,
            "allow (granted)",
        ),
        (
            "--groups team-a --tenant team-a-x --path /loki/api/v1/query?query=1 --backend tempo",
            2,
            "deny (route_unknown)",
        ),
    ] {
        let run = room.explain(args);
        run.says(status, &[&format!("\ndecision: {decision}\n")]);
        assert_eq!(run.err, "");
        let found = room.explain(&format!("{args} --format json")).json();
        assert_eq!(
            format!("{} ({})", found["decision"].as_str().unwrap(), found["reason"].as_str().unwrap()),
            decision,
            "{args}"
        );
    }
}

#[test]
fn explain_shows_every_rule_that_took_part() {
    let room = Room::new();
    let args = "--groups team-a,unheard --tenant team-a|archive --path /loki/api/v1/query?query=1 --client-ip 198.18.0.5";
    room.explain(args).says(2, &[
        "policy   policy.yaml, revision ",
        "time     2026-06-01T12:00:00Z\n",
        "groups known to the policy: team-a\n",
        "groups the policy does not know: unheard\n",
        "what     GET /loki/api/v1/query?query=1: logs:read on loki\n",
        "where    198.18.0.5\n",
        "\ntenant archive\n",
        "    migration (line 23): expired 2020-01-31T00:00:00Z\n",
        "\ntenant team-a\n",
        "    team-a-writers (line 19): allows\n",
        "    grants[2] (line 27): is for other groups: sre\n",
        "    logs-from-office (line 37): VIOLATED, 198.18.0.5 is in none of office (203.0.113.0/24 2001:db8::/32), 192.0.2.9\n",
        "  the client is told: 403 Forbidden: not allowed to access this tenant\n",
    ]);
    room.explain("--groups team-a --tenant team-a --scope logs:read --client-ip 203.0.113.7").says(0, &[
        "logs-from-office (line 37): satisfied, 203.0.113.7 is in office (",
        "trial (line 41): VIOLATED, 203.0.113.7 is in none of vpn (198.51.100.7) [shadow: recorded, denies nothing]\n",
        "  by grant team-a-writers (line 19)\n",
        "  shadow: would deny (ip_forbidden) by restriction trial (line 41)\n",
    ]);
    room.explain("--groups team-a,sre --tenant team-a --scope logs:write").says(
        0,
        &["not for members of sre\n", "grants[2] (line 27): does not cover logs:write, only metrics:read, "],
    );

    let found = room
        .explain("--groups team-a --tenant team-a-x --scope logs:read --client-ip 198.18.0.5 --format json")
        .json();
    assert_eq!(found["restriction"], json!({"name": "logs-from-office", "line": 37}));
    assert_eq!((&found["grant"], &found["shadow"]), (&Value::Null, &Value::Null));
    assert_eq!(found["time"], NOW);
    assert_eq!(found["request"]["backends"], json!(["loki"]));
    let rules = &found["tenants"]["rules"][0];
    assert_eq!(rules["tenant"], "team-a-x");
    assert_eq!(rules["grants"][0]["outcome"], "allows");
    assert_eq!(rules["grants"][1]["outcome"], "other_groups");
    assert_eq!(rules["restrictions"][0]["outcome"], "violated");
    assert_eq!(
        rules["restrictions"][0]["networks"][0],
        json!({"name": "office", "networks": ["203.0.113.0/24", "2001:db8::/32"], "contains_client": false})
    );
    let found = room
        .explain("--groups team-a --tenant team-a --scope logs:read --client-ip 203.0.113.7 --format json")
        .json();
    assert_eq!(
        found["shadow"],
        json!({"decision": "deny", "reason": "ip_forbidden", "restriction": {"name": "trial", "line": 41}})
    );
}

#[test]
fn explain_verifies_tokens() {
    let room = Room::new();
    let signed = token(&claims());
    let request = "--tenant team-a-x --scope logs:read";
    let run = room.explain_with(&format!("--token - {request}"), &format!("\n {signed}\r\n"));
    run.says(
        0,
        &[
            "who      a verified token\n",
            "issuer: entra\n",
            "subject: subject-1\n",
            "user: ada@example.org\n",
            "groups known to the policy: sre, ",
            "groups the policy does not know: canteen\\u{1b}[2J\n",
        ],
    );
    assert!(!run.out.contains(&signed));
    room.write("token", &format!("Bearer {signed}\n"));
    let found = room.explain(&format!("--token token {request} --format json"));
    assert_eq!(found.status, 0);
    let who = &found.json()["principal"];
    assert_eq!(
        (&who["source"], &who["verified"], &who["refused"]),
        (&json!("token"), &json!(true), &Value::Null)
    );
    assert_eq!(who["known"]["subject"], "subject-1");
    assert_eq!(who["unknown_groups"], json!(["canteen\u{1b}[2J"]));

    let mut other = claims();
    other["groups"] = json!(["group1"]);
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let forged = format!("{}.{signature}", token(&other).rsplit_once('.').unwrap().0);
    for (token, reason) in [(&*forged, "token_signature"), (head, "token_malformed"), ("", "token_malformed")]
    {
        room.explain_with(&format!("--token - {request}"), token).says(
            2,
            &[&format!("who      a token: refused ({reason})\n"), &format!("decision: deny ({reason})\n")],
        );
    }
    // Another clock.
    let late = [
        "explain",
        "--policy",
        "policy.yaml",
        "--token",
        "token",
        "--tenant",
        "team-a-x",
        "--scope",
        "logs:read",
    ];
    room.run(&[&late[..], &["--now", "2026-06-01T13:00:00Z"]].concat()).says(2, &["deny (token_expired)"]);
    // A stage before the token has the last word, and the token's own state is still shown.
    room.explain_with("--token - --tenant team-a --path /nowhere", &forged)
        .says(2, &["a token: refused (token_signature)\n", "decision: deny (route_unknown)\n"]);
    room.explain(&format!("--token nowhere {request}")).complains(1, "cannot read `nowhere`: no such file");
}

#[test]
fn explain_takes_claims_and_says_that_they_are_not_verified() {
    let room = Room::new();
    let request = "--tenant team-a-x --scope logs:read";
    room.write("claims.json", r#"{"groups": ["0f3c9a1e"]}"#);
    room.explain(&format!("--claims claims.json {request}"))
        .says(0, &["who      claims, NOT VERIFIED\n", "issuer: entra\n"]);
    let found = room.explain(&format!("--claims claims.json {request} --format json")).json();
    assert_eq!(
        (&found["principal"]["verified"], &found["principal"]["source"]),
        (&json!(false), &json!("claims"))
    );
    for (claims, reason) in [
        (r#"{"groups": [], "iss": "https://elsewhere.example"}"#, "token_issuer"),
        (r#"{"groups": [], "aud": "other"}"#, "token_audience"),
        (r#"{"groups": [], "exp": 1}"#, "token_expired"),
        (r#"{"sub": "x"}"#, "groups_missing"),
        (r#"{"groups": "team-a"}"#, "groups_malformed"),
    ] {
        let run = room.explain_with(&format!("--claims - {request}"), claims);
        run.says(2, &["claims, NOT VERIFIED: refused (", &format!("decision: deny ({reason})\n")]);
    }
    room.explain_with(&format!("--claims - {request}"), &token(&claims()))
        .complains(1, "the claims are no JSON object");
}

#[test]
fn explain_needs_a_valid_policy() {
    let room = Room::new();
    let rest = ["--groups", "a", "--tenant", "b", "--scope", "logs:read"];
    let explain = |policy| room.run(&[&["explain", "--policy", policy][..], &rest].concat());
    explain("broken.yaml").complains(3, "broken.yaml:10:14: grants[0].scopes[0]: unknown scope");
    explain("nowhere.yaml").complains(1, "nowhere.yaml:1:1: cannot read the policy");
    explain(".").says(2, &["deny (tenant_forbidden)"]);
}
