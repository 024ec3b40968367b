//! `tenantauth explain`.

use super::{KEY, NOW, NOW_UNIX, POLICY, Room};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tenantauth::token::digest::sha256_hex;

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
        "    migration (policy.yaml:23): expired 2020-01-31T00:00:00Z\n",
        "\ntenant team-a\n",
        "    team-a-writers (policy.yaml:19): allows\n",
        "    grants[2] (policy.yaml:27): is for other groups: sre\n",
        "    logs-from-office (policy.yaml:37): VIOLATED, 198.18.0.5 is in none of office (203.0.113.0/24 2001:db8::/32), 192.0.2.9\n",
        "  the client is told: 403 Forbidden: not allowed to access this tenant\n",
    ]);
    room.explain("--groups team-a --tenant team-a --scope logs:read --client-ip 203.0.113.7").says(0, &[
        "logs-from-office (policy.yaml:37): satisfied, 203.0.113.7 is in office (",
        "trial (policy.yaml:41): VIOLATED, 203.0.113.7 is in none of vpn (198.51.100.7) [shadow: recorded, denies nothing]\n",
        "  by grant team-a-writers (policy.yaml:19)\n",
        "  shadow: would deny (ip_forbidden) by restriction trial (policy.yaml:41)\n",
    ]);
    room.explain("--groups team-a,sre --tenant team-a --scope logs:write").says(
        0,
        &[
            "not for members of sre\n",
            "grants[2] (policy.yaml:27): does not cover logs:write, only metrics:read, ",
        ],
    );

    let found = room
        .explain("--groups team-a --tenant team-a-x --scope logs:read --client-ip 198.18.0.5 --format json")
        .json();
    assert_eq!(
        found["restriction"],
        json!({"name": "logs-from-office", "owner": null, "file": "policy.yaml", "line": 37})
    );
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
        json!({"decision": "deny", "reason": "ip_forbidden", "restriction": {"name": "trial", "owner": null, "file": "policy.yaml", "line": 41}})
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
        (r#"{"groups": {"team-a": true}}"#, "groups_malformed"),
    ] {
        let run = room.explain_with(&format!("--claims - {request}"), claims);
        run.says(2, &["claims, NOT VERIFIED: refused (", &format!("decision: deny ({reason})\n")]);
    }
    room.explain_with(&format!("--claims - {request}"), &token(&claims()))
        .complains(1, "the claims are no JSON object");
}

#[test]
fn explain_tells_what_a_gateway_in_shadow_mode_applies() {
    let room = Room::new();
    room.write("shadow.yaml", &format!("{POLICY}mode: shadow\nshadow_until: 2026-06-20T00:00:00Z\n"));
    let ask = |now: &str, args: &str| {
        let fixed = ["explain", "--policy", "shadow.yaml", "--now", now];
        room.run(&[&fixed[..], &args.split_whitespace().collect::<Vec<_>>()].concat())
    };
    let outside = "--groups team-a --tenant team-a-x --scope logs:read --client-ip 198.18.0.5";
    ask(NOW, outside).says(
        0,
        &[
            // Every rule that took part is still shown.
            "    team-a-writers (shadow.yaml:19): allows\n",
            "    logs-from-office (shadow.yaml:37): VIOLATED, 198.18.0.5 is in none of ",
            "\ndecision: allow (granted)\n",
            "  mode shadow: denials are recorded and not applied until 2026-06-20T00:00:00Z\n",
            "  shadow: would deny (ip_forbidden) by restriction logs-from-office (shadow.yaml:37)\n",
            "  the client would be told: 403 Forbidden: ip not allowed\n",
        ],
    );
    let found = ask(NOW, &format!("{outside} --format json")).json();
    let rule = json!({"name": "logs-from-office", "owner": null, "file": "shadow.yaml", "line": 37});
    for (key, expected) in [
        ("decision", json!("allow")),
        ("reason", json!("granted")),
        ("mode", json!("shadow")),
        ("shadow_until", json!("2026-06-20T00:00:00Z")),
        ("answer", Value::Null),
        ("restriction", Value::Null),
        ("shadow", json!({"decision": "deny", "reason": "ip_forbidden", "restriction": rule})),
    ] {
        assert_eq!(found[key], expected, "{key}");
    }
    // Whatever check it is that would deny; and what would be allowed.
    ask(NOW, "--groups team-a --tenant team:a --scope logs:read")
        .says(0, &["\ndecision: allow (granted)\n", "  shadow: would deny (tenant_malformed)\n"]);
    let allowed = "--groups group1 --tenant tenant1 --scope metrics:read";
    ask(NOW, allowed).says(0, &["  by grant authorizations.group1 ", "  shadow: would allow (granted)\n"]);
    // It ends.
    let late = ask("2026-06-20T00:00:00Z", outside);
    late.says(
        2,
        &["\ndecision: deny (ip_forbidden)\n", "  the client is told: 403 Forbidden: ip not allowed\n"],
    );
    assert!(!late.out.contains("shadow: would"), "{}", late.out);
    assert_eq!(room.explain(&format!("{allowed} --format json")).json()["mode"], "enforce");
}

#[test]
fn explain_lists_groups_that_the_policy_does_not_know() {
    let room = Room::new();
    let request = "--token - --tenant tenant1 --scope logs:read";
    let of = |count: usize| {
        let groups: Vec<String> = (1..=count).map(|number| format!("unheard-{number}")).collect();
        let mut claims = claims();
        claims["groups"] = json!(groups);
        token(&claims)
    };
    room.explain_with(request, &of(2)).says(
        2,
        &["groups known to the policy: none\n", "groups the policy does not know: unheard-1, unheard-2\n"],
    );
    room.explain_with(request, &of(200)).says(2, &[", unheard-20 and 180 more\n"]);
    let found = room.explain_with(&format!("{request} --format json"), &of(200)).json();
    assert_eq!(found["principal"]["unknown_groups"].as_array().unwrap().len(), 200);
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

/// Two issuers, service accounts and revocations.
fn several(room: &Room) {
    let token = |letter: char| format!("tas_{}", letter.to_string().repeat(43));
    let sum = |letter| sha256_hex(token(letter).as_bytes());
    let head = POLICY.split("\ntoken_headers").next().unwrap();
    room.write("several.yaml", &format!(
        "{head}  - name: keycloak\n    issuer: https://sso.example\n    audiences: [grafana]\n    jwks_file: jwks.json\n    \
         algorithms: [EdDSA]\n\
         networks: {{ pods: [10.20.0.0/16] }}\n\
         service_accounts:\n\
         - {{ name: agent, token_sha256: ['{}', '{}'], networks: [pods, 192.0.2.9] }}\n\
         - {{ name: open, token_sha256: ['{}'] }}\n\
         - {{ name: gone, token_sha256: ['{}'] }}\n\
         group_names: {{ sre: ['entra:0f3c9a1e', 'keycloak:sre'], leads: 'keycloak:leads' }}\n\
         grants:\n\
         - {{ groups: ['service:agent', 'service:open', 'service:gone', sre, 'entra:team-a'], tenants: [t], scopes: ['logs:*'] }}\n\
         - {{ groups: ['keycloak:*'], tenants: [k] }}\n\
         - {{ groups: [leads, 'entra:left'], tenants: [l] }}\n\
         client_ip: {{ source: remote_addr }}\n\
         restrictions: [{{ tenants: [l], networks: [192.0.2.1] }}, {{ groups: ['entra:left'], networks: [192.0.2.1] }}]\n\
         revoked:\n  \
           principals: [{{ issuer: service, id: gone }}, {{ issuer: entra, id: subject-2 }}]\n  \
           groups: ['entra:left', leads]\n  \
           tokens_sha256: ['{}']\n",
        sum('a'),
        sum('b'),
        sum('o'),
        sum('g'),
        sum('b'),
    ));
}

fn explain_several(room: &Room, args: &str, stdin: &str) -> super::Run {
    let fixed = ["explain", "--policy", "several.yaml", "--now", NOW];
    room.run_with(&[&fixed[..], &args.split_whitespace().collect::<Vec<_>>()].concat(), stdin)
}

#[test]
fn explain_judges_service_accounts() {
    let room = Room::new();
    several(&room);
    let token = |letter: char| format!("tas_{}", letter.to_string().repeat(43));
    let basic =
        |name: &str, letter| format!("Basic {}", STANDARD.encode(format!("{name}:{}", token(letter))));
    let request = "--tenant t --scope logs:write";
    let inside = format!("--token - {request} --client-ip 10.20.1.1");
    for header in [token('a'), format!("Bearer {}\n", token('a')), basic("agent", 'a')] {
        let run = explain_several(&room, &inside, &header);
        run.says(
            0,
            &[
                "who      a service token\n",
                "issuer: service\n",
                "subject: agent\n",
                "groups known to the policy: service:agent\n",
                "the service account must connect from pods (10.20.0.0/16), 192.0.2.9: satisfied by 10.20.1.1\n",
                "decision: allow (granted)\n",
            ],
        );
        assert!(!run.out.contains("tas_"));
    }
    for (header, reason) in [
        (token('z'), "token_unknown"),
        ("tas_".to_owned(), "token_unknown"),
        (basic("open", 'a'), "token_unknown"),
        (token('b'), "token_revoked"),
        (token('g'), "token_revoked"),
    ] {
        explain_several(&room, &inside, &header).says(2, &[&format!("decision: deny ({reason})\n")]);
    }

    for (args, status, decision) in [
        ("--groups service:agent --client-ip 10.20.1.1", 0, "allow (granted)"),
        ("--groups service:agent --client-ip 192.0.2.9", 0, "allow (granted)"),
        ("--groups service:agent --client-ip 192.0.2.1", 2, "deny (ip_forbidden)"),
        ("--groups service:agent", 2, "deny (ip_forbidden)"),
        ("--groups service:open", 0, "allow (granted)"),
        ("--groups service:gone", 2, "deny (token_revoked)"),
    ] {
        let args = format!("{args} {request}");
        explain_several(&room, &args, "")
            .says(status, &["who      a service account, without its token", decision]);
    }
    let found = explain_several(&room, &format!("--groups service:agent {request} --format json"), "").json();
    assert_eq!(
        found["service_account"],
        json!({"name": "agent", "file": "several.yaml", "line": 16, "outcome": "violated", "networks": [
            {"name": "pods", "networks": ["10.20.0.0/16"], "contains_client": false},
            {"name": "192.0.2.9", "networks": ["192.0.2.9"], "contains_client": false},
        ]})
    );
    assert_eq!((&found["principal"]["verified"], &found["restriction"]), (&json!(false), &Value::Null));
    explain_several(&room, &format!("--groups service:agent,entra:team-a {request}"), "")
        .complains(1, "`service:agent` is a service account, which has no other group");
    explain_several(&room, &format!("--groups service:nobody {request}"), "")
        .complains(1, "the policy has no service account `nobody`");
}

#[test]
fn explain_knows_whose_groups_they_are() {
    let room = Room::new();
    several(&room);
    let (read_t, read_k, read_l) = (
        "--tenant t --scope logs:read",
        "--tenant k --scope logs:read",
        "--tenant l --scope logs:read --client-ip 192.0.2.1",
    );
    for (args, status, parts) in [
        ("--groups entra:team-a", 0, ["groups known to the policy: entra:team-a\n", "allow (granted)"]),
        ("--groups entra:0f3c9a1e", 0, ["groups known to the policy: sre\n", "allow (granted)"]),
        ("--groups sre", 0, ["groups known to the policy: sre\n", "allow (granted)"]),
        ("--groups team-a", 2, ["groups the policy does not know: team-a\n", "deny (tenant_forbidden)"]),
        (
            "--groups keycloak:team-a",
            2,
            ["groups the policy does not know: keycloak:team-a\n", "deny (tenant_forbidden)"],
        ),
        (
            "--groups keycloak:sre,keycloak:x",
            0,
            ["groups known to the policy: sre, keycloak:*\n", "allow (granted)"],
        ),
        ("--groups entra:left", 2, ["groups the policy revokes: entra:left\n", "deny (tenant_forbidden)"]),
        ("--groups leads", 2, ["groups the policy revokes: leads\n", "deny (tenant_forbidden)"]),
        // A revoked group binds still.
        (
            "--groups entra:left,entra:team-a",
            2,
            ["groups the policy revokes: entra:left\n", "deny (ip_missing)"],
        ),
    ] {
        explain_several(&room, &format!("{args} {read_t}"), "").says(status, &parts);
    }
    explain_several(&room, &format!("--groups keycloak:any {read_k}"), "").says(0, &["keycloak:*"]);
    explain_several(&room, &format!("--groups entra:any {read_k}"), "").says(2, &["deny (tenant_forbidden)"]);
    explain_several(&room, &format!("--groups entra:x,keycloak:y {read_k}"), "").complains(
        1,
        "`entra:x` and `keycloak:y` are given by different issuers, and nobody is a user of two",
    );

    for (claims, status, parts) in [
        (
            r#"{"iss": "https://sso.example", "groups": ["leads", "x"]}"#,
            2,
            ["issuer: keycloak\n", "groups the policy revokes: leads\n"],
        ),
        (
            r#"{"iss": "https://sso.example", "groups": ["entra:left"]}"#,
            2,
            ["issuer: keycloak\n", "deny (tenant_forbidden)"],
        ),
        (
            r#"{"iss": "https://login.example/v2.0", "sub": "subject-2", "groups": []}"#,
            2,
            ["subject: subject-2\n", "deny (token_revoked)"],
        ),
        (r#"{"groups": []}"#, 2, ["refused (token_issuer)", "deny (token_issuer)"]),
    ] {
        explain_several(&room, &format!("--claims - {read_l}"), claims).says(status, &parts);
    }
    let signed = token(&claims());
    explain_several(&room, &format!("--token - {read_t}"), &signed)
        .says(0, &["issuer: entra\n", "groups known to the policy: sre, entra:team-a\n"]);
}

#[test]
fn explain_takes_the_token_that_keygen_makes() {
    let room = Room::new();
    let made = room.run(&["keygen", "--service-account", "--format", "json"]).json();
    let policy = POLICY.replace("grants:", "grants:\n  - { groups: ['service:new'], tenants: [n] }")
        + &format!("service_accounts: [{{ name: new, token_sha256: [{}] }}]\n", made["sha256"]);
    room.write("policy.yaml", &policy);
    room.explain_with("--token - --tenant n --scope logs:read", made["token"].as_str().unwrap())
        .says(0, &["subject: new\n", "the service account may come from anywhere\n", "allow (granted)"]);
    let checked = room.run(&["check", "policy.yaml"]);
    assert_eq!(checked.status, 0);
    assert!(
        checked.err.contains("warning: service_accounts[0].networks: `new` may come from anywhere"),
        "{}",
        checked.err
    );
}

#[test]
fn a_revoked_key_and_a_revocation_that_ends_are_seen() {
    let room = Room::new();
    let signed = token(&claims());
    let subject = claims()["sub"].as_str().unwrap().to_owned();
    let explained = |revoked: &str| {
        room.write("revoking.yaml", &format!("{POLICY}revoked: {{ {revoked} }}\n"));
        let request = ["--token", "-", "--tenant", "tenant1", "--scope", "metrics:read", "--now", NOW];
        room.run_with(&[&["explain", "--policy", "revoking.yaml"][..], &request].concat(), &signed)
    };
    explained("keys: [{ issuer: entra, kid: k1 }]")
        .says(2, &[&format!("subject: {subject}\n"), "deny (token_revoked)"]);
    let others = explained("keys: [{ issuer: entra, kid: k2 }]").out;
    assert!(!others.contains("token_revoked"), "{others}");
    // `--now` is the time at which the entry ends, or not yet.
    let entry = |until: &str| format!("principals: [{{ issuer: entra, id: {subject}, until: {until} }}]");
    explained(&entry("2037-01-01T00:00:00Z")).says(2, &["deny (token_revoked)"]);
    let ended = explained(&entry(NOW)).out;
    assert!(!ended.contains("token_revoked"), "{ended}");
}

/// A token of these claims under this header, signed by the policy's key.
fn token_with(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(KEY.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// What a refused token says beside what the policy expects: claimed where the signature is not verified.
#[test]
fn explain_says_what_was_found_in_a_refused_token_and_what_was_expected() {
    let room = Room::new();
    let request = "--token - --tenant team-a-x --scope logs:read";
    let good = json!({"alg": "EdDSA", "kid": "k1"});
    let changed = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        claims
    };
    // header, claims, verified, reason, the line for people, and the same as data
    let cases = [
        (
            good.clone(),
            changed("aud", json!(["other", "more\u{1b}[2J\u{202e}"])),
            true,
            "token_audience",
            "aud: found [\"other\", \"more\\u001b[2J\\u{202e}\"], expected \"grafana\"\n",
            json!({"name": "aud", "found": ["other", "more\u{1b}[2J\u{202e}"], "expected": {"one_of": ["grafana"]}}),
        ),
        (
            good.clone(),
            changed("iss", json!("https://login.example/v1.0")),
            false,
            "token_issuer",
            "iss: found \"https://login.example/v1.0\", expected \"https://login.example/v2.0\"\n",
            json!({"name": "iss", "found": "https://login.example/v1.0",
                "expected": {"one_of": ["https://login.example/v2.0"]}}),
        ),
        (
            json!({"alg": "EdDSA", "kid": "k9"}),
            claims(),
            false,
            "token_key_unknown",
            "kid: found \"k9\", expected \"k1\"\n",
            json!({"name": "kid", "found": "k9", "expected": {"one_of": ["k1"]}}),
        ),
        (
            json!({"alg": "HS256", "kid": "k1"}),
            claims(),
            false,
            "token_unsupported",
            "alg: found \"HS256\", expected \"EdDSA\"\n",
            json!({"name": "alg", "found": "HS256", "expected": {"one_of": ["EdDSA"]}}),
        ),
        (
            json!({"alg": "EdDSA", "kid": "k1", "crit": ["exp"]}),
            claims(),
            false,
            "token_unsupported",
            "crit: found [\"exp\"], expected none\n",
            json!({"name": "crit", "found": ["exp"], "expected": {"absent": true}}),
        ),
        (
            json!({"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"}),
            claims(),
            false,
            "token_unsupported",
            "typ: found \"at+jwt\", expected \"JWT\"\n",
            json!({"name": "typ", "found": "at+jwt", "expected": {"one_of": ["JWT"]}}),
        ),
        (
            good.clone(),
            changed("groups", json!(5)),
            true,
            "groups_malformed",
            "groups: found number, expected list of strings (at most 2000)\n",
            json!({"name": "groups", "found": {"type": "number"},
                "expected": {"type": "list of strings", "at_most": 2000}}),
        ),
        (
            good.clone(),
            changed("groups", json!(["a", {"secret": "x"}])),
            true,
            "groups_malformed",
            "groups: found list (item 1, item type object, length 2), expected list of strings (at most 2000)\n",
            json!({"name": "groups", "found": {"type": "list", "length": 2, "item": 1, "item_type": "object"},
                "expected": {"type": "list of strings", "at_most": 2000}}),
        ),
        (
            good.clone(),
            changed("exp", json!(NOW_UNIX - 3600)),
            true,
            "token_expired",
            "exp: found \"2026-06-01T11:00:00Z\", expected later than 2026-06-01T11:59:00Z\n",
            json!({"name": "exp", "found": "2026-06-01T11:00:00Z", "expected": {"after": "2026-06-01T11:59:00Z"}}),
        ),
        (
            good.clone(),
            changed("nbf", json!(NOW_UNIX + 3600)),
            true,
            "token_not_yet_valid",
            "nbf: found \"2026-06-01T13:00:00Z\", expected not later than 2026-06-01T12:01:00Z\n",
            json!({"name": "nbf", "found": "2026-06-01T13:00:00Z", "expected": {"not_after": "2026-06-01T12:01:00Z"}}),
        ),
        (
            good.clone(),
            changed("sub", Value::Null),
            true,
            "token_malformed",
            "sub: found null, expected a string without control characters\n",
            json!({"name": "sub", "found": {"type": "null"},
                "expected": {"type": "a string without control characters"}}),
        ),
    ];
    for (header, claims, verified, reason, line, finding) in cases {
        let token = token_with(&header, &claims);
        let run = room.explain_with(request, &token);
        run.says(
            2,
            &[&format!("refused ({reason})\n"), &format!("\n         {line}"), &format!("deny ({reason})\n")],
        );
        assert_eq!(run.out.contains("         NOT VERIFIED; what it claims:\n"), !verified, "{}", run.out);
        assert!(!run.out.contains("secret"), "{}", run.out);
        let json = room.explain_with(&format!("{request} --format json"), &token);
        let who = &json.json()["principal"];
        assert_eq!((&who["verified"], &who["findings"]), (&json!(verified), &json!([finding])), "{reason}");
        for part in token.split('.') {
            assert!(!run.out.contains(part) && !json.out.contains(part), "{}", run.out);
        }
    }
    // Whatever is wrong is said at once, in the order of the checks.
    let mut all = changed("aud", json!("other"));
    all["groups"] = json!({"a": 1});
    all["exp"] = json!(1);
    let found = room.explain_with(&format!("{request} --format json"), &token_with(&good, &all)).json();
    let names: Vec<_> = found["principal"]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!((names, &found["reason"]), (vec!["exp", "aud", "groups"], &json!("token_expired")));

    // What is no token at all; a forged one; one of another key.
    let signed = token(&claims());
    let forged = format!("{}AAAA", &signed[..signed.len() - 4]);
    for (text, line) in [
        ("x.y", "parts: found 2, expected 3\n"),
        ("a.b.c.d.e", "parts: found 5, expected 3\n"),
        ("a=.b.c", "header: found other characters, expected base64url without padding\n"),
        (
            &*forged,
            "signature: found a signature by another key, or of other content, expected a signature by the issuer's key (kid k1)\n",
        ),
    ] {
        let run = room.explain_with(request, text);
        run.says(2, &["NOT VERIFIED; what it claims:\n", line]);
    }
    let long = "x".repeat(40_000);
    room.explain_with(request, &long).says(2, &["length: found 40000, expected at most 32768\n"]);
}

#[test]
fn explain_says_it_of_claims_and_of_service_tokens_too() {
    let room = Room::new();
    let request = "--claims - --tenant team-a-x --scope logs:read";
    for (claims, line) in [
        (
            r#"{"groups": [], "iss": "https://elsewhere.example"}"#,
            "iss: found \"https://elsewhere.example\", expected ",
        ),
        (r#"{"groups": [], "aud": "other"}"#, "aud: found \"other\", expected \"grafana\"\n"),
        (r#"{"sub": "x"}"#, "groups: found none, expected list of strings (at most 2000)\n"),
        (
            r#"{"hasgroups": true}"#,
            "groups: found a reference to groups that are not in the token, expected ",
        ),
    ] {
        let run = room.explain_with(request, claims);
        run.says(2, &["claims, NOT VERIFIED: refused (", line]);
        let found = room.explain_with(&format!("{request} --format json"), claims).json();
        assert_eq!(found["principal"]["findings"].as_array().unwrap().len(), 1, "{claims}");
    }
    several(&room);
    let token = |letter: char| format!("tas_{}", letter.to_string().repeat(43));
    let request = "--token - --tenant t --scope logs:write --client-ip 10.20.1.1";
    let first = |letter| sha256_hex(token(letter).as_bytes())[..8].to_owned();
    let basic = format!("Basic {}", STANDARD.encode(format!("open:{}", token('a'))));
    for (header, line) in [
        (token('z'), format!("token_sha256: found \"{}\", expected one of \"{}\", ", first('z'), first('a'))),
        ("tas_x".to_owned(), "token: found another text (length 5), expected `tas_` and 43 ".to_owned()),
        (basic, "user: found \"open\", expected \"agent\"\n".to_owned()),
        (token('b'), "revoked: found \"token\", expected none\n".to_owned()),
        (token('g'), "revoked: found \"principal\", expected none\n".to_owned()),
    ] {
        let run = explain_several(&room, request, &header);
        run.says(2, &[&format!("\n         {line}")]);
        assert!(!run.out.contains(&token('z')[4..]) && !run.out.contains(&token('a')[4..]), "{}", run.out);
    }
}

/// A record as nginx writes it, with these changes.
fn record(id: &str, changes: &Value) -> String {
    let mut record = json!({
        "schema": 1, "request_id": id, "time": "2026-06-01T12:00:00.250Z", "decision": "allow", "reason": "granted",
        "mode": "enforce", "shadow": null, "issuer": "entra", "subject": "s", "user": "ada@example.org", "token_id": null,
        "groups": ["team-a"], "tenants": ["team-a-x"], "scope": "logs:read", "grant": "team-a-writers",
        "restriction": null, "owner": null, "backend": "loki", "method": "GET", "path": "/loki/api/v1/labels",
        "query": null, "client_ip": "203.0.113.9", "client_ip_source": "cookie", "peer": "127.0.0.1",
        "policy_revision": "0000000000000000", "truncated": null, "status": 200,
    });
    record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    record.to_string()
}

#[test]
fn explain_takes_a_request_from_the_audit_log() {
    let room = Room::new();
    let denied = |reason: &str| json!({"decision": "deny", "reason": reason, "grant": null});
    let and = |mut one: Value, other: Value| {
        one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        one
    };
    let lines = [
        record("same", &json!({})),
        // What would be known of a policy of this revision: it could list `sre`, which the person has not.
        record("sre", &json!({"groups": ["sre"]})),
        record("lost", &json!({"client_ip": "198.18.0.5", "user": "e\u{1b}[2J\u{202e}"})),
        record("gained", &denied("tenant_forbidden")),
        record(
            "unknown",
            &and(
                denied("tenant_forbidden"),
                json!({"tenants": ["any"], "policy_revision": "1111111111111111"}),
            ),
        ),
        record("cut", &json!({"truncated": ["groups"]})),
        record(
            "token",
            &and(denied("token_expired"), json!({"groups": null, "tenants": null, "scope": null})),
        ),
        record("refused", &json!({"decision": null, "reason": null, "issuer": null, "groups": null})),
        record("corrupt", &json!({"scope": "logs:raed"})),
        "no record".to_owned(),
    ];
    room.write("audit.jsonl", &(lines.join("\n") + "\n"));
    let log = |id: &str| {
        room.run(&["explain", "--policy", "policy.yaml", "--audit", "audit.jsonl", "--request", id])
    };
    log("same").says(
        0,
        &[
            "time     2026-06-01T12:00:00Z\n",
            "who      as the audit log recorded, of a verified token\n",
            "         user: ada@example.org\n",
            "what     GET /loki/api/v1/labels: logs:read on loki\n",
            "    team-a-writers (policy.yaml:19): allows\n",
            "    logs-from-office (policy.yaml:37): satisfied, 203.0.113.9 is in office (",
            "\ndecision: allow (granted)\n  by grant team-a-writers (policy.yaml:19)\n",
            "\nrecorded: allow (granted) by the grant team-a-writers\n  line 1, 2026-06-01T12:00:00.250Z, by the policy \
             revision 0000000000000000\n  the policy of today decides alike\n",
        ],
    );
    let lost = log("lost");
    lost.says(
        2,
        &[
            "user: e\\u{1b}[2J\\u{202e}\n",
            "decision: deny (ip_forbidden)\n",
            "  the policy of today denies what was allowed\n",
        ],
    );
    log("gained").says(0, &["decision: allow (granted)\n", "  the policy of today allows what was denied\n"]);
    let unknown = log("unknown");
    unknown.says(2, &["\ndecision: unknown\n", "  not known: a group decides that was not recorded"]);
    log("cut").says(2, &["\ndecision: unknown\n", "  not known: what decides was cut from the record\n"]);
    log("token").says(
        2,
        &["\ndecision: not decided\n", "it was denied before any rule was asked: headers, path or token"],
    );
    log("refused").says(2, &["\ndecision: not decided\n", "nginx refused it, or there was no policy\n"]);

    let json = |id: &str| {
        let args = [
            "explain",
            "--policy",
            "policy.yaml",
            "--audit",
            "audit.jsonl",
            "--format",
            "json",
            "--request",
            id,
        ];
        room.run(&args).json()
    };
    for (id, decision, reason, outcome, depends_on) in [
        ("same", "allow", json!("granted"), "same", Value::Null),
        ("lost", "deny", json!("ip_forbidden"), "lost", Value::Null),
        ("gained", "allow", json!("granted"), "gained", Value::Null),
        ("unknown", "unknown", Value::Null, "unknown", json!("groups")),
        ("cut", "unknown", Value::Null, "unknown", json!("truncated")),
        ("token", "not_decided", Value::Null, "before_rules", Value::Null),
        ("refused", "not_decided", Value::Null, "undecided", Value::Null),
    ] {
        let found = json(id);
        let past = &found["recorded"];
        assert_eq!(
            [&found["decision"], &found["reason"], &past["outcome"], &past["depends_on"]],
            [&json!(decision), &reason, &json!(outcome), &depends_on],
            "{id}"
        );
    }
    let found = json("lost");
    assert_eq!(
        [&found["recorded"]["record"]["decision"], &found["recorded"]["line"]],
        [&json!("allow"), &json!(3)]
    );
    assert_eq!(found["tenants"]["rules"][0]["restrictions"][0]["outcome"], "violated");
    assert_eq!(found["principal"]["source"], "audit");

    log("nowhere").complains(
        1,
        "error: `audit.jsonl` holds no record of the request `nowhere`\n  help: the id stands in ",
    );
    log("corrupt").complains(
        1,
        "error: line 9 of `audit.jsonl` is no record that can be decided: unknown scope\n  help: ",
    );
    let of =
        |file: &str| room.run(&["explain", "--policy", "policy.yaml", "--audit", file, "--request", "same"]);
    of("gone.jsonl")
        .complains(1, "error: cannot read `gone.jsonl`: no such file or directory (os error 2)\n  help: ");
    of("policy.yaml").complains(1, "error: `policy.yaml` holds no audit record\n  help: ");
    let piped = ["explain", "--policy", "policy.yaml", "--audit", "-", "--request", "same"];
    room.run_with(&piped, &(lines.join("\n") + "\n")).says(0, &["decision: allow (granted)\n"]);
}

/// Everything but whether the secret is good is judged, with the same result: there, missing or broken.
#[test]
fn what_is_asked_without_secrets_is_answered_as_with_them() {
    let room = Room::new();
    room.write(
        "cases.yaml",
        "tests: [{ groups: [group1], tenant: tenant1, scope: metrics:read, expect: allow }]\n",
    );
    room.write("audit.jsonl", &(record("a", &json!({})) + "\n"));
    let commands = [
        "check policy.yaml",
        "explain --policy policy.yaml --groups group1 --tenant tenant1 --scope metrics:read",
        "explain --policy policy.yaml --audit audit.jsonl --request a",
        "access --policy policy.yaml --tenant team-a",
        "test policy.yaml cases.yaml",
        "diff policy.yaml policy.yaml",
        "replay --policy policy.yaml --recorded policy.yaml audit.jsonl",
        "keys --policy policy.yaml",
    ];
    let run = |command: &str, without: bool| {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.extend(without.then_some("--no-secrets"));
        let run = room.run(&args);
        let out = run
            .out
            .lines()
            .filter(|line| !line.starts_with("time  ") && !line.contains(", changed "))
            .collect::<Vec<_>>();
        (run.status, out.join("\n"), run.err)
    };
    let with: Vec<_> = commands.iter().map(|command| run(command, false)).collect();
    assert!(with.iter().all(|(status, ..)| *status == 0), "{with:?}");
    for content in [Some("k1:tooshort\n"), None] {
        match content {
            Some(text) => room.write("client-ip.keys", text),
            None => std::fs::remove_file(room.path("client-ip.keys")).unwrap(),
        }
        for (command, with) in commands.iter().zip(&with) {
            assert_eq!(&run(command, true), with, "{command}");
            let (status, _, err) = run(command, false);
            assert!(status == 3 && err.contains("client_ip.keys_file: "), "{command} {status} {err}");
        }
    }
    // What is wrong besides is still found, the public keys included.
    std::fs::remove_file(room.path("jwks.json")).unwrap();
    let (status, _, err) = run("check policy.yaml", true);
    assert!(status == 3 && err.contains("issuers[0].jwks_file: cannot read `jwks.json`"), "{err}");
}
