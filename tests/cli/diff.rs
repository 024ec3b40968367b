//! `tenantauth diff`.

use super::{POLICY, Room};
use serde_json::json;

fn rows(out: &str) -> Vec<String> {
    let table = out.split("\n\n").nth(1).unwrap();
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_same_meaning_is_0() {
    let room = Room::new();
    // Other text, other names, superfluous grants.
    let same = POLICY
        .replace("name: team-a-writers", "name: other")
        .replace("tenants: [team-a, \"team-a-*\"]", "tenants: [\"team-a-*\", team-a, team-a-x]")
        + "# a comment\n";
    room.write("same.yaml", &same);
    let run = room.run(&["diff", "policy.yaml", "same.yaml"]);
    run.says(
        0,
        &[
            "old  policy.yaml, revision ",
            "new  same.yaml, revision ",
            "\nno difference: both allow the same\n",
        ],
    );
    let report = room.run(&["diff", "policy.yaml", "same.yaml", "--format", "json"]).json();
    assert_eq!(
        [&report["equal"], &report["changes"], &report["settings"]],
        [&json!(true), &json!([]), &json!([])]
    );
    assert_ne!(report["old"]["revision"], report["new"]["revision"]);
}

#[test]
fn gained_and_lost_access_is_2() {
    let room = Room::new();
    let new = POLICY
        .replace("group1: [tenant1]", "group1: [tenant1, tenant2]")
        .replace("[team-a, \"team-a-*\"]", "[\"team-a-*\"]")
        .replace("sre: [0f3c9a1e]", "sre: [0f3c9a1e, 7d00]")
        .replace(
            "tenants: [team-a]\n    networks: [vpn]\n    mode: shadow",
            "tenants: [archive]\n    networks: [vpn]\n    mode: shadow",
        )
        .replace("algorithms: [EdDSA]", "algorithms: [EdDSA, RS256]");
    room.write("new.yaml", &new);
    let run = room.run(&["diff", "policy.yaml", "new.yaml"]);
    let office = "office (203.0.113.0/24 2001:db8::/32), 192.0.2.9";
    let shadow = "[shadow: vpn (198.51.100.7)]";
    run.says(2, &["\nalso different: issuers\n"]);
    assert_eq!(
        rows(&run.out),
        [
            "CHANGE WHO TENANT SCOPES FROM UNTIL".to_owned(),
            "gained 7d00 (of sre) * except archive *:read anywhere always".to_owned(),
            format!("gained 7d00 (of sre) archive *:read anywhere {shadow} always"),
            format!("recorded everyone archive metrics:read traces:read profiles:read rules:read (mimir, pyroscope) alerts:read anywhere -> anywhere {shadow} as granted"),
            format!("recorded everyone archive logs:read rules:read (loki) {office} -> {office} {shadow} as granted"),
            format!("recorded 0f3c9a1e (of sre) archive logs:read rules:read (loki) anywhere -> anywhere {shadow} always"),
            format!("lost team-a team-a rules:read (mimir, pyroscope) anywhere {shadow} always"),
            format!("lost team-a team-a logs:read logs:write rules:read (loki) {office} {shadow} always"),
            format!("recorded everyone team-a metrics:read traces:read profiles:read rules:read (mimir, pyroscope) alerts:read anywhere {shadow} -> anywhere as granted"),
            format!("recorded everyone team-a logs:read rules:read (loki) {office} {shadow} -> {office} as granted"),
            format!("recorded 0f3c9a1e (of sre) team-a logs:read rules:read (loki) anywhere {shadow} -> anywhere always"),
            format!("wider 7d00 (of sre) team-a-* logs:write {office} -> anywhere as granted"),
            "gained group1 tenant2 metrics:read traces:read profiles:read rules:read (mimir, pyroscope) alerts:read anywhere always".to_owned(),
            format!("gained group1 tenant2 logs:read rules:read (loki) {office} always"),
        ],
        "{}", run.out
    );
    let report = room.run(&["diff", "policy.yaml", "new.yaml", "--format", "json"]);
    assert_eq!((report.status, &*report.err), (2, ""));
    let bound = json!([{"restriction": "logs-from-office", "owner": null, "networks": [{"name": "office", "networks": ["203.0.113.0/24", "2001:db8::/32"]}, {"name": "192.0.2.9", "networks": ["192.0.2.9"]}]}]);
    let changes = report.json()["changes"].as_array().unwrap().clone();
    assert_eq!(
        changes.last().unwrap(),
        &json!({
            "change": "gained", "direction": null, "who": "groups",
            "groups": [[{"group": "group1", "names": []}]], "service_account": null,
            "tenants": ["tenant2"], "except_tenants": [],
            "scopes": [{"scope": "logs:read", "backends": null}, {"scope": "rules:read", "backends": ["loki"]}],
            "old": {"granted": false, "until": null, "from": [], "shadow": []},
            "new": {"granted": true, "until": null, "from": bound, "shadow": []},
        })
    );
    // The other way round.
    let back = room.run(&["diff", "new.yaml", "policy.yaml"]);
    back.says(2, &["lost      7d00 (of sre)", "lost      group1 ", "gained    team-a "]);
}

#[test]
fn an_end_is_a_difference_and_the_past_is_none() {
    let room = Room::new();
    room.write("new.yaml", &POLICY.replace("2020-01-31", "2021-01-31"));
    room.run(&["diff", "policy.yaml", "new.yaml"]).says(0, &["no difference"]);
    room.write(
        "new.yaml",
        &POLICY.replace(
            "scopes: [\"logs:*\", \"rules:read\"]",
            "scopes: [\"logs:*\", \"rules:read\"]\n    expires: 2999-01-31T00:00:00Z",
        ),
    );
    room.run(&["diff", "policy.yaml", "new.yaml"])
        .says(2, &["ends earlier  team-a  team-a  ", "always -> 2999-01-31T00:00:00Z\n"]);
}

#[test]
fn wrong_policies_are_told() {
    let room = Room::new();
    room.run(&["diff", "policy.yaml", "broken.yaml"]).complains(3, "broken.yaml:10:14: ");
    room.run(&["diff", "nowhere.yaml", "policy.yaml"]).complains(1, "cannot read the policy");
}

#[test]
fn long_lists_of_networks_make_no_wide_table() {
    let room = Room::new();
    let networks: Vec<String> =
        (0..5000).map(|number| format!("10.{}.{}.0/24", number / 250, number % 250)).collect();
    let sum = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
    let account = format!(
        "service_accounts: [{{ name: agent, token_sha256: ['{sum}'], networks: {networks:?} }}]\nauthorizations:\n  'service:agent': [tenant1]\n"
    );
    room.write("new.yaml", &POLICY.replace("authorizations:\n", &account));
    let run = room.run(&["diff", "policy.yaml", "new.yaml"]);
    run.says(
        2,
        &["\nCHANGE  WHO            TENANT   SCOPES  FROM  UNTIL\n", "added   service_accounts agent  - -> "],
    );
}

#[test]
fn settings_are_compared_by_what_they_mean() {
    let room = Room::new();
    let sum = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
    let policy = |headers: &str, audiences: &str, networks: &str, header: &str| {
        POLICY
            .replace("token_headers: [X-Id-Token, Authorization]", &format!("token_headers: [{headers}]"))
            .replace("audiences: [grafana]", &format!("audiences: [{audiences}]"))
            .replace(
                "client_ip: { source: cookie, keys_file: client-ip.keys }",
                &format!("client_ip: {{ source: 'header:{header}', trusted_peers: [127.0.0.1] }}"),
            )
            + &format!(
                "service_accounts: [{{ name: agent, token_sha256: ['{sum}'], networks: [{networks}] }}]\n"
            )
    };
    room.write("old.yaml", &policy("X-Id-Token", "a, b", "10.0.0.0/8", "X-Real-IP"));
    room.write("new.yaml", &policy("x-id-token", "b, a", "10.128.0.0/9, 10.0.0.0/9", "x-real-ip"));
    room.run(&["diff", "old.yaml", "new.yaml"]).says(0, &["no difference"]);
    // What differs is shown as it is written.
    room.write("new.yaml", &policy("x-id-token, X-Other", "a, b", "10.128.0.0/9", "x-real-ip"));
    room.run(&["diff", "old.yaml", "new.yaml"]).says(
        2,
        &[
            "\nalso different: token_headers, service_accounts\n",
            "X-Id-Token -> x-id-token, X-Other\n",
            "10.0.0.0/8 -> 10.128.0.0/9\n",
        ],
    );
    let old = policy("X-Id-Token", "a", "10.0.0.0/8", "X-Real-IP");
    room.write("old.yaml", &old);
    room.write("new.yaml", &old.replace("[10.0.0.0/8] }]", "[10.0.0.0/8], behind_proxy: true }]"));
    room.run(&["diff", "old.yaml", "new.yaml"])
        .says(2, &["\nalso different: service_accounts\n", "behind_proxy", "false -> true\n"]);
}

/// What holders of a revoked group are bound to is compared as well.
#[test]
fn restrictions_on_a_revoked_group_are_compared() {
    let room = Room::new();
    let with = |networks: &str| {
        let tail = format!("  - {{ tenants: [tenant1], groups: [sre], networks: [{networks}] }}\n");
        let everyone = POLICY.replace("group1: [tenant1]", "'*': [tenant1]");
        format!("{everyone}{tail}revoked: {{ groups: [sre] }}\n")
    };
    room.write("old.yaml", &with("vpn"));
    room.write("new.yaml", &with("office"));
    let run = room.run(&["diff", "old.yaml", "new.yaml"]);
    run.says(2, &["moved   sre  tenant1  "]);
}

/// Combinations that are too many to be looked at: which rules differ is told all the same.
#[test]
fn where_too_much_overlaps_the_rules_are_compared() {
    let room = Room::new();
    let names: Vec<String> = (0..12).map(|number| format!("g{number}")).collect();
    let excepting = |one: &str| {
        format!("  - {{ name: {one}, tenants: [tenant1], except_groups: [{one}], networks: [vpn] }}\n")
    };
    let policy = |count: usize| {
        let aliases: String = names.iter().map(|name| format!("  {name}: raw-{name}\n")).collect();
        let rules: String = names[..count].iter().map(|name| excepting(name)).collect();
        POLICY.replace("group_names:\n", &format!("group_names:\n{aliases}")) + &rules
    };
    room.write("old.yaml", &policy(11));
    room.write("new.yaml", &policy(12).replace("group1: [tenant1]", "group1: [tenant1, tenant2]"));
    let run = room.run(&["diff", "old.yaml", "new.yaml"]);
    run.says(2, &["\npatterns of tenants, or excepted groups, overlap in too many ways to say what changes"]);
    assert_eq!(
        rows(&run.out)[2..],
        [
            "CHANGE RULE WHO TENANT SCOPES FROM UNTIL",
            "lost grant authorizations.group1 (old.yaml:28) group1 tenant1 *:read as restricted always",
            "gained grant authorizations.group1 (new.yaml:28) group1 tenant1, tenant2 *:read as restricted always",
            "gained restriction g11 (new.yaml:68) everyone except g11 tenant1 *:read metrics:write logs:write logs:delete traces:write profiles:write rules:write alerts:write vpn (198.51.100.7) always",
        ]
    );
    let report = room.run(&["diff", "old.yaml", "new.yaml", "--format", "json"]).json();
    assert_eq!(
        [&report["equal"], &report["overlapping"], &report["changes"]],
        [&json!(false), &json!(true), &json!([])]
    );
    let rule = &report["rules"][2];
    assert_eq!([&rule["change"], &rule["rule"], &rule["file"]], ["gained", "restriction", "new.yaml"]);
    assert_eq!([&rule["groups"], &rule["except_groups"]], [&json!(["*"]), &json!(["raw-g11"])]);
}
