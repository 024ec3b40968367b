//! What the commands say of owners and of service accounts.

use super::{NOW, POLICY, Room};
use serde_json::{Value, json};
use std::fs;

const OWNERS: &str = "owners:\n  team-b: { tenants: [team-b, \"team-b-*\"], scopes: [\"*:read\", \"logs:write\"], contact: \"#b\" }\n  team-c: { tenants: [team-c] }\n";
const ACCOUNTS: &str = "service_accounts:\n  - { name: agent, token_sha256: [\"60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752\"], networks: [10.20.0.0/16] }\n";
const TEAM_B: &str = "grants:\n  - { name: readers, groups: [team-b], tenants: [team-b] }\nrestrictions:\n  - { name: lab, networks: [198.51.100.0/28], scopes: [\"logs:*\"] }\n";

/// A directory `name` with an owner that writes rules, and one whose document is `{}`.
fn directory(room: &Room, name: &str, platform: &str, team_b: &str) {
    fs::create_dir_all(room.path(&format!("{name}/owners.d"))).unwrap();
    for mode in [name, &format!("{name}/owners.d")] {
        room.set_mode(mode, 0o755);
    }
    for file in ["jwks.json", "client-ip.keys"] {
        fs::copy(room.path(file), room.path(&format!("{name}/{file}"))).unwrap();
    }
    room.write(&format!("{name}/policy.yaml"), platform);
    room.write(&format!("{name}/owners.d/team-b.yaml"), team_b);
    room.write(&format!("{name}/owners.d/team-c.yaml"), "{}\n");
}

fn platform() -> String {
    format!("{POLICY}{OWNERS}")
}

/// `POLICY` with a service account that writes logs of `team-a`.
fn with_account(accounts: &str) -> String {
    let grant = "grants:\n  - { name: agents, groups: [\"service:agent\"], tenants: [team-a], scopes: [\"logs:write\"] }\n";
    POLICY.replace("grants:\n", grant) + accounts
}

fn rows(out: &str) -> Vec<String> {
    out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn explain_and_access_name_the_owner_of_a_rule() {
    let room = Room::new();
    directory(&room, "dir", &platform(), TEAM_B);
    let asked = [
        "explain",
        "--policy",
        "dir",
        "--now",
        NOW,
        "--tenant",
        "team-b",
        "--scope",
        "logs:read",
        "--groups",
        "team-b",
    ];
    let run = room.run(&[&asked[..], &["--client-ip", "203.0.113.5"]].concat());
    run.says(
        2,
        &[
            "    readers (owner team-b, dir/owners.d/team-b.yaml:2): allows\n",
            "    lab (owner team-b, dir/owners.d/team-b.yaml:4): VIOLATED",
            "    logs-from-office (dir/policy.yaml:37): satisfied",
            "  by restriction lab (owner team-b, dir/owners.d/team-b.yaml:4)\n",
        ],
    );
    let run = room.run(&[&asked[..], &["--client-ip", "203.0.113.5", "--format", "json"]].concat()).json();
    assert_eq!(
        run["restriction"],
        json!({"name": "lab", "owner": "team-b", "file": "dir/owners.d/team-b.yaml", "line": 4})
    );
    let rules = &run["tenants"]["rules"][0];
    let owners = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|rule| rule["owner"].clone()).collect()
    };
    assert_eq!(owners(&rules["grants"]), [Value::Null, json!("team-b")]);
    assert_eq!(owners(&rules["restrictions"]), [Value::Null, json!("team-b")]);

    let run = room.run(&["access", "--policy", "dir", "--tenant", "team-b"]);
    run.says(0, &["readers (owner team-b, dir/owners.d/team-b.yaml:2)", "grants[2] (dir/policy.yaml:27)"]);
    let run = room.run(&["access", "--policy", "dir", "--tenant", "team-b", "--format", "json"]).json();
    let mine: Vec<&Value> =
        run["access"].as_array().unwrap().iter().filter(|row| row["group"] == "team-b").collect();
    assert_eq!(
        mine[0]["grants"],
        json!([{"name": "readers", "owner": "team-b", "file": "dir/owners.d/team-b.yaml", "line": 2}])
    );
    let demands: Vec<&Value> = mine.iter().flat_map(|row| row["from"].as_array().unwrap()).collect();
    assert!(demands.iter().any(|demand| demand["restriction"] == "lab" && demand["owner"] == "team-b"));
}

#[test]
fn an_owner_without_rules_is_told_before_a_bad_token() {
    let room = Room::new();
    directory(&room, "dir", &platform(), "broken\n");
    room.write("token", "x");
    let ask = |tenant: &str| {
        room.run(&[
            "explain",
            "--policy",
            "dir",
            "--token",
            "token",
            "--tenant",
            tenant,
            "--scope",
            "logs:read",
        ])
    };
    // Something is wrong with the policy, whatever the tenant.
    ask("team-b").says(3, &["decision: deny (policy_unavailable)"]);
    ask("team-a|team-b-x").says(3, &["decision: deny (policy_unavailable)"]);
    // In the order of nginx: path and tenants before the owner, the token afterwards.
    ask("team b").says(3, &["decision: deny (tenant_malformed)"]);
    ask("team-a").says(3, &["decision: deny (token_malformed)"]);
    assert!(ask("team-a").err.starts_with("dir/owners.d/team-b.yaml:1:1: expected a mapping"));
}

/// What the engineer is told at night, and that it is not all well.
#[test]
fn access_leaves_out_what_an_owner_without_rules_closes() {
    let room = Room::new();
    directory(&room, "dir", &platform(), "broken\n");
    let ask = |args: &[&str]| room.run(&[&["access", "--policy", "dir"], args].concat());
    let told = "without a last good version nobody reaches team-b, team-b-* (policy_unavailable)\n";
    let run = ask(&["--tenant", "team-b-x"]);
    run.says(3, &["\nowner   team-b: its document is refused; ", told, "\nnobody may reach it\n"]);
    assert!(run.err.starts_with("dir/owners.d/team-b.yaml:1:1: expected a mapping"), "{}", run.err);
    let run = ask(&["--tenant", "team-a"]);
    run.says(3, &["\nsre (0f3c9a1e) "]);
    assert!(!run.out.contains("owner   "), "{}", run.out);
    let run = ask(&["--group", "sre"]);
    run.says(3, &[told, "\n* except team-b-*, team-a, team-b "]);
    let report = ask(&["--group", "sre", "--format", "json"]).json();
    assert_eq!(report["unavailable"], json!([{"owner": "team-b", "tenants": ["team-b", "team-b-*"]}]));
    let found = &report["diagnostics"][0];
    assert_eq!([&found["file"], &found["line"]], [&json!("dir/owners.d/team-b.yaml"), &json!(1)]);
    let asked = ["explain", "--policy", "dir", "--groups", "sre", "--tenant", "x", "--scope", "logs:read"];
    let run = room.run(&[&asked[..], &["--format", "json"]].concat());
    assert_eq!((run.status, &run.json()["decision"]), (3, &json!("allow")));
    assert_eq!(&run.json()["diagnostics"][0], found);
}

#[test]
fn access_lists_service_accounts_where_they_must_be() {
    let room = Room::new();
    room.write("accounts.yaml", &with_account(ACCOUNTS));
    let run = room.run(&["access", "--policy", "accounts.yaml", "--tenant", "team-a"]);
    // No restriction on people binds it.
    let row = "service:agent logs:write 10.20.0.0/16 always agents (accounts.yaml:19)".to_owned();
    assert!(run.status == 0 && rows(&run.out).contains(&row), "{}", run.out);
    let run =
        room.run(&["access", "--policy", "accounts.yaml", "--tenant", "team-a", "--format", "json"]).json();
    let found = run["access"].as_array().unwrap().iter().find(|row| row["group"] == "service:agent").unwrap();
    assert_eq!(
        [&found["from"], &found["scopes"]],
        [
            &json!([{"restriction": null, "owner": null, "networks": [{"name": "10.20.0.0/16", "networks": ["10.20.0.0/16"]}]}]),
            &json!([{"scope": "logs:write", "backends": null}])
        ]
    );
    let run = room.run(&["access", "--policy", "accounts.yaml", "--group", "service:agent"]);
    assert!(
        rows(&run.out)
            .contains(&"team-a logs:write 10.20.0.0/16 always agents (accounts.yaml:19)".to_owned()),
        "{}",
        run.out
    );
    for revoked in ["principals: [{ issuer: service, id: agent }]", "groups: [\"service:agent\"]"] {
        room.write("revoked.yaml", &format!("{}revoked: {{ {revoked} }}\n", with_account(ACCOUNTS)));
        let run = room.run(&["access", "--policy", "revoked.yaml", "--tenant", "team-a"]);
        assert!(run.status == 0 && !run.out.contains("service:"), "{}", run.out);
        room.run(&["access", "--policy", "revoked.yaml", "--group", "service:agent"])
            .says(0, &["it may reach nothing"]);
    }
}

#[test]
fn diff_tells_what_service_accounts_gain_and_lose() {
    let room = Room::new();
    room.write("old.yaml", &with_account(ACCOUNTS));
    let changed = |name: &str, new: &str, expected: &[&str]| {
        room.write("new.yaml", new);
        let run = room.run(&["diff", "old.yaml", "new.yaml"]);
        assert_eq!(run.status, 2, "{name}: {}{}", run.out, run.err);
        let found = rows(&run.out);
        for row in expected {
            assert!(found.contains(&(*row).to_owned()), "{name}: {row}\n{}", run.out);
        }
        assert!(!run.out.contains("60303ae2"), "no hash is told");
        room.run(&["diff", "old.yaml", "new.yaml", "--format", "json"]).json()
    };
    let old = with_account(ACCOUNTS);
    changed(
        "wider networks",
        &old.replace("networks: [10.20.0.0/16]", "networks: [10.0.0.0/8]"),
        &[
            "wider service:agent team-a logs:write 10.20.0.0/16 -> 10.0.0.0/8 always",
            "also different: service_accounts",
            "changed service_accounts agent networks 10.20.0.0/16 -> 10.0.0.0/8",
        ],
    );
    let found = changed(
        "gone",
        POLICY,
        &[
            "lost service:agent team-a logs:write 10.20.0.0/16 always",
            "removed service_accounts agent tokens: 1; networks: 10.20.0.0/16; behind_proxy: false -> -",
        ],
    );
    let line = &found["changes"][0];
    assert_eq!(
        [&line["who"], &line["service_account"], &line["old"]["granted"], &line["new"]["granted"]],
        [&json!("service_account"), &json!("agent"), &json!(true), &json!(false)]
    );
    assert_eq!(
        found["details"],
        json!([{
            "section": "service_accounts", "issuer": null, "name": "agent", "what": null,
            "old": {
                "tokens": {"count": 1}, "behind_proxy": false,
                "networks": [{"name": "10.20.0.0/16", "networks": ["10.20.0.0/16"]}],
            },
            "new": null,
        }])
    );
    changed(
        "revoked",
        &format!("{old}revoked: {{ principals: [{{ issuer: service, id: agent }}] }}\n"),
        &[
            "lost service:agent team-a logs:write 10.20.0.0/16 always",
            "revoked service account agent loses all access",
        ],
    );
    changed(
        "revoked for a while",
        &format!(
            "{old}revoked: {{ principals: [{{ issuer: service, id: agent, until: 2037-01-01T00:00:00Z }}] }}\n"
        ),
        &[
            "lost service:agent team-a logs:write 10.20.0.0/16 always",
            "revoked service account agent loses all access until 2037-01-01T00:00:00Z",
        ],
    );
    changed(
        "another token",
        &old.replace("60303ae2", "70303ae2"),
        &["changed service_accounts agent tokens 1 that are gone -> 1 new"],
    );
    changed(
        "another grant",
        &old.replace("tenants: [team-a], scopes", "tenants: [team-a, archive], scopes"),
        &["gained service:agent archive logs:write 10.20.0.0/16 always"],
    );
    // The other way round.
    room.write("old.yaml", POLICY);
    changed("new", &old, &["gained service:agent team-a logs:write 10.20.0.0/16 always"]);
}

#[test]
fn diff_tells_what_else_differs_and_from_what_to_what() {
    let room = Room::new();
    let new = POLICY
        .replace("algorithms: [EdDSA]", "algorithms: [EdDSA, RS256]\n    leeway: 2m")
        .replace("token_headers: [X-Id-Token, Authorization]", "token_headers: [X-Id-Token]")
        .replace("source: cookie, keys_file: client-ip.keys", "source: remote_addr")
        + "audit: { query: none }\nmode: shadow\nshadow_until: 2026-11-30T00:00:00Z\nrevoked: { principals: [{ issuer: entra, id: s-1 }], keys: [{ issuer: entra, kid: k1 }], tokens_sha256: [\"60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752\"] }\n";
    room.write("new.yaml", &new);
    let run = room.run(&["diff", "policy.yaml", "new.yaml"]);
    let found = rows(&run.out);
    for row in [
        "also different: issuers, token_headers, client_ip, audit, mode, revoked",
        "changed issuers entra algorithms EdDSA -> RS256, EdDSA",
        "changed issuers entra leeway 60s -> 120s",
        "changed token_headers X-Id-Token, Authorization -> X-Id-Token",
        "changed client_ip cookie Client_Ip, keys_file client-ip.keys -> remote_addr",
        "changed audit query: full, max_bytes: 16384 -> query: none, max_bytes: 16384",
        "changed mode enforce -> shadow until 2026-11-30T00:00:00Z",
        "revoked s-1 of entra loses all access",
        "revoked key k1 of entra verifies no token any more",
        "changed revoked tokens 1 more, 0 fewer",
    ] {
        assert!(run.status == 2 && found.contains(&row.to_owned()), "{row}\n{}{}", run.out, run.err);
    }
    // As data nothing is joined.
    let report = room.run(&["diff", "policy.yaml", "new.yaml", "--format", "json"]).json();
    let details = |section: &str, what: Value| -> Value {
        let all = report["details"].as_array().unwrap().iter();
        let mut mine = all.filter(|detail| detail["section"] == section && detail["what"] == what);
        let detail = mine.next().unwrap();
        json!([detail["issuer"], detail["name"], detail["old"], detail["new"]])
    };
    for (section, what, expected) in [
        ("issuers", json!("algorithms"), json!([null, "entra", ["EdDSA"], ["RS256", "EdDSA"]])),
        ("issuers", json!("leeway"), json!([null, "entra", {"seconds": 60}, {"seconds": 120}])),
        ("token_headers", Value::Null, json!([null, null, ["X-Id-Token", "Authorization"], ["X-Id-Token"]])),
        (
            "client_ip",
            Value::Null,
            json!([
                null, null, {"source": "cookie", "cookie": "Client_Ip", "keys_file": "client-ip.keys"},
                {"source": "remote_addr"},
            ]),
        ),
        (
            "audit",
            Value::Null,
            json!([null, null, {"query": "full", "max_bytes": 16384}, {"query": "none", "max_bytes": 16384}]),
        ),
        (
            "mode",
            Value::Null,
            json!([
                null, null, {"mode": "enforce", "shadow_until": null},
                {"mode": "shadow", "shadow_until": "2026-11-30T00:00:00Z"},
            ]),
        ),
        ("revoked", json!("principals"), json!(["entra", "s-1", null, true])),
        ("revoked", json!("keys"), json!(["entra", "k1", null, true])),
        ("revoked", json!("tokens_sha256"), json!([null, null, null, {"added": 1}])),
    ] {
        assert_eq!(details(section, what), expected, "{section}");
    }
    // The other way round, and a group.
    room.write(
        "new.yaml",
        &format!("{POLICY}revoked: {{ groups: [sre], principals: [{{ issuer: entra, id: bob }}] }}\n"),
    );
    let run = room.run(&["diff", "policy.yaml", "new.yaml"]);
    let found = rows(&run.out);
    for row in [
        "revoked bob of entra loses all access",
        "revoked group sre grants and excepts nothing more; restrictions on it still bind",
    ] {
        assert!(found.contains(&row.to_owned()), "{row}\n{}", run.out);
    }
    let run = room.run(&["diff", "new.yaml", "policy.yaml"]);
    let found = rows(&run.out);
    for row in [
        "no longer revoked bob of entra is let in again",
        "no longer revoked group sre grants and excepts again",
    ] {
        assert!(found.contains(&row.to_owned()), "{row}\n{}", run.out);
    }
}

/// A group of an issuer whose name becomes one of `group_names` matches nothing any more.
#[test]
fn diff_sees_that_a_group_has_become_a_name() {
    let room = Room::new();
    room.write("old.yaml", POLICY);
    room.write("new.yaml", &POLICY.replace("sre: [0f3c9a1e]", "sre: [0f3c9a1e]\n  group1: [7d00]"));
    let run = room.run(&["diff", "old.yaml", "new.yaml"]);
    let found = rows(&run.out);
    assert_eq!(run.status, 2, "{}", run.out);
    let is_of = |row: &str| found.iter().any(|line| line.starts_with(row));
    // Whoever holds the group of that name loses, the members of the name gain.
    let both = is_of("lost group1 (the issuer's) tenant1 ") && is_of("gained group1 tenant1 ");
    assert!(both, "{}", run.out);
    let report = room.run(&["diff", "old.yaml", "new.yaml", "--format", "json"]).json();
    let groups = |change: &str| -> Vec<&Value> {
        let lines = report["changes"].as_array().unwrap().iter().filter(|line| line["change"] == change);
        lines.map(|line| &line["groups"]).collect()
    };
    assert!(!groups("lost").is_empty() && !groups("gained").is_empty());
    assert!(groups("lost").iter().all(|groups| **groups == json!([[{"group": "group1", "names": []}]])));
    assert!(
        groups("gained").iter().all(|groups| **groups == json!([[{"group": "7d00", "names": ["group1"]}]]))
    );
}

/// What is gained by an owner's rule counts for that owner.
#[test]
fn replay_names_the_owner_of_what_decides_now() {
    let room = Room::new();
    directory(&room, "dir", &platform(), TEAM_B);
    let record = json!({
        "schema": 1, "time": "2026-06-01T12:00:00.000Z", "request_id": "r", "decision": "deny",
        "reason": "tenant_forbidden", "mode": "enforce", "shadow": null, "issuer": "entra", "subject": "s", "user": "ada",
        "token_id": null, "groups": ["team-b"], "tenants": ["team-b"], "scope": "metrics:read", "grant": null,
        "restriction": null, "owner": null, "backend": "mimir", "client_ip": "203.0.113.5", "peer": "127.0.0.1",
        "policy_revision": "0123456789abcdef",
    });
    let denied = json!({
        "decision": "allow", "reason": "granted", "scope": "logs:read", "backend": "loki", "owner": "team-z",
    });
    let mut lost = record.clone();
    for (key, value) in denied.as_object().unwrap() {
        lost[key] = value.clone();
    }
    room.write("audit.jsonl", &format!("{record}\n{lost}\n"));
    let run = room.run(&["replay", "--policy", "dir", "--recorded", "dir", "audit.jsonl"]);
    assert!(run.out.contains(" by the grant readers of team-b\n"), "{}{}", run.out, run.err);
    assert!(run.out.contains(" by the restriction lab of team-b\n"), "{}{}", run.out, run.err);
    let report = room.run(&["replay", "--policy", "dir", "audit.jsonl", "--format", "json"]).json();
    let counts = json!({"team-b": {"gained": 1, "lost": 1, "unknown": 0}});
    assert_eq!(report["summary"]["by_owner"], counts);
    assert_eq!(
        [&report["changes"][0]["new"]["owner"], &report["changes"][1]["old"]["owner"]],
        ["team-b", "team-z"]
    );
}

/// It only teaches what records could name: an owner's document that was broken then is told, and does not fail.
#[test]
fn replay_learns_from_a_policy_with_a_broken_owner() {
    let room = Room::new();
    directory(&room, "dir", &platform(), TEAM_B);
    directory(&room, "old", &platform(), "grants: [{ colour: red }]\n");
    room.write("audit.jsonl", "{\"schema\":1,\"decision\":null,\"status\":400}\n");
    let run = room.run(&["replay", "--policy", "dir", "--recorded", "old", "audit.jsonl"]);
    run.says(0, &["1 record: "]);
    for told in [
        "old/owners.d/team-b.yaml:1:12: ",
        "\nwarning: `old` is read without the document of the owner `team-b`\n  help: of records that were made with ",
    ] {
        assert!(run.err.contains(told), "{}", run.err);
    }
    assert!(!run.err.contains("`team-c`"), "{}", run.err);
    room.run(&["replay", "--policy", "old", "audit.jsonl"]).complains(3, "old/owners.d/team-b.yaml:1:12: ");
}

/// Everything that is wrong is told at once, whoever wrote it.
#[test]
fn check_looks_at_owners_behind_a_broken_platform() {
    let room = Room::new();
    let broken = platform().replace("logs:*", "logs:raed");
    directory(&room, "dir", &broken, "grants:\n  - { groups: [team-b], colour: red, tenants: [team-b] }\n");
    let run = room.run(&["check", "dir"]);
    assert_eq!(run.status, 3, "{}{}", run.out, run.err);
    for part in [
        "dir/policy.yaml:22:14: grants[0].scopes[0]",
        "unknown scope `logs:raed`",
        "dir/owners.d/team-b.yaml:2:25: grants[0].colour: unknown key `colour`",
    ] {
        assert!(run.err.contains(part), "{part}\n{}", run.err);
    }
    let found = rows(&run.out);
    assert!(found.contains(&"owner team-b: invalid".to_owned()), "{}", run.out);
    assert!(run.out.contains("owner team-c: nothing wrong in itself, not judged further"), "{}", run.out);
    // Missing altogether: not checked, and the owners' documents all the same.
    fs::remove_file(room.path("dir/policy.yaml")).unwrap();
    fs::create_dir(room.path("dir/owners.d/team-d.yaml")).unwrap();
    let run = room.run(&["check", "dir", "--format", "json"]);
    assert_eq!(run.status, 1, "{}", run.out);
    let owners = &run.json()["policies"][0]["owners"];
    let valid: Vec<_> =
        owners.as_array().unwrap().iter().map(|owner| (&owner["name"], &owner["valid"])).collect();
    assert_eq!(
        valid,
        [
            (&json!("team-b"), &json!(false)),
            (&json!("team-c"), &Value::Null),
            (&json!("team-d"), &json!(false))
        ]
    );
    assert!(run.out.contains("not a regular file"), "{}", run.out);
}

#[test]
fn check_warns_of_owners_rules_in_their_files() {
    let room = Room::new();
    directory(
        &room,
        "dir",
        &platform(),
        "grants:\n  - { groups: [team-b], tenants: [team-b], except_tenants: [\"team-*\"] }\n",
    );
    let run = room.run(&["check", "dir"]);
    run.says(0, &["dir: valid, revision ", "owner team-b: valid"]);
    let told =
        "dir/owners.d/team-b.yaml:2:5: warning: grants[0]: every tenant that it names is excepted as well";
    assert!(run.err.contains(told), "{}", run.err);
}
