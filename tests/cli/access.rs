//! `tenantauth access`.

use super::{POLICY, Room};
use serde_json::json;

/// The rows of a table without the blanks between its columns.
fn rows(out: &str) -> Vec<String> {
    let table = out.rsplit("\n\n").next().unwrap();
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

const OFFICE: &str = "office (203.0.113.0/24 2001:db8::/32), 192.0.2.9";

#[test]
fn who_reaches_a_tenant() {
    let room = Room::new();
    let run = room.run(&["access", "--policy", "policy.yaml", "--tenant", "team-a"]);
    run.says(0, &["policy  policy.yaml, revision ", "\ntenant  team-a\n"]);
    let shadow = "[shadow: vpn (198.51.100.7)]";
    assert_eq!(
        rows(&run.out),
        [
            "WHO SCOPES FROM UNTIL BY".to_owned(),
            format!("sre (0f3c9a1e) *:read anywhere {shadow} always grants[2] (line 27)"),
            format!("team-a rules:read (mimir, pyroscope) anywhere {shadow} always team-a-writers (line 19)"),
            format!(
                "team-a logs:read logs:write rules:read (loki) {OFFICE} {shadow} always team-a-writers (line 19)"
            ),
        ]
    );
    // An expired grant gives nobody anything; the pattern `*` does.
    let run = room.run(&["access", "--policy", "policy.yaml", "--tenant", "archive"]);
    assert_eq!(rows(&run.out)[1..], ["sre (0f3c9a1e) *:read anywhere always grants[2] (line 27)"]);

    let until = POLICY
        .replace("2020-01-31", "2999-01-31")
        .replace("groups: [sre]\n    tenants: [\"*\"]", "groups: [\"*\"]\n    tenants: [all]");
    room.write("until.yaml", &until);
    let run = room.run(&["access", "--policy", "until.yaml", "--tenant", "archive", "--format", "json"]);
    assert_eq!((run.status, &*run.err), (0, ""));
    let office = json!({"restriction": "logs-from-office", "owner": null, "networks": ["office (203.0.113.0/24 2001:db8::/32)", "192.0.2.9"]});
    assert_eq!(
        run.json()["access"][1],
        json!({
            "group": "team-a", "raw_groups": [], "tenants": ["archive"], "except_tenants": [],
            "scopes": ["logs:read", "rules:read (loki)"], "from": [office], "shadow": [],
            "until": "2999-01-31T00:00:00Z", "grants": [{"name": "migration", "owner": null, "line": 23}],
        })
    );
    room.run(&["access", "--policy", "until.yaml", "--tenant", "all"]).says(0, &["\neveryone "]);
    room.run(&["access", "--policy", "until.yaml", "--tenant", "nothing"])
        .says(0, &["\nnobody may reach it\n"]);
}

#[test]
fn what_a_group_reaches() {
    let room = Room::new();
    let run = room.run(&["access", "--policy", "policy.yaml", "--group", "sre"]);
    assert_eq!(
        rows(&run.out),
        [
            "TENANT SCOPES FROM UNTIL BY",
            "* except team-a *:read anywhere always grants[2] (line 27)",
            "team-a *:read anywhere [shadow: vpn (198.51.100.7)] always grants[2] (line 27)",
        ]
    );
    // The same by the group that the issuer gives.
    let raw = room.run(&["access", "--policy", "policy.yaml", "--group", "0f3c9a1e"]);
    assert_eq!(rows(&raw.out), rows(&run.out));
    let run = room.run(&["access", "--policy", "policy.yaml", "--group", "team-a"]);
    assert_eq!(
        rows(&run.out)[3..],
        [
            "team-a-* rules:read (mimir, pyroscope) anywhere always team-a-writers (line 19)".to_owned(),
            format!(
                "team-a-* logs:read logs:write rules:read (loki) {OFFICE} always team-a-writers (line 19)"
            ),
        ]
    );
    let run = room.run(&["access", "--policy", "policy.yaml", "--group", "stranger"]);
    run.says(0, &["\nit may reach nothing\n"]);
    assert_eq!(run.err, "note: nothing in the policy names the group `stranger`\n");
    let run = room.run(&["access", "--policy", "policy.yaml", "--group", "*"]);
    assert_eq!((run.status, &*run.err), (0, ""));
}

#[test]
fn wrong_policies_are_told() {
    let room = Room::new();
    room.run(&["access", "--policy", "broken.yaml", "--group", "a"]).complains(3, "broken.yaml:10:14: ");
    room.run(&["access", "--policy", "nowhere.yaml", "--group", "a"]).complains(1, "cannot read the policy");
}

#[test]
fn long_lists_make_no_wide_table() {
    let room = Room::new();
    let guids: Vec<String> =
        (0..2000).map(|number| format!("00000000-0000-4000-8000-{number:012}")).collect();
    let head = POLICY.split("\ngroup_names").next().unwrap();
    let mut policy = format!("{head}\ngroup_names: {{ all-staff: {guids:?} }}\ngrants:\n");
    for _ in 0..4999 {
        policy += "- { groups: [all-staff], tenants: ['t*'] }\n";
    }
    policy += "- { groups: [all-staff], tenants: [t, u] }\n- { groups: [g], tenants: [t] }\n";
    room.write("long.yaml", &policy);
    for args in [["--tenant", "t"], ["--group", "all-staff"]] {
        let run = room.run(&[&["access", "--policy", "long.yaml"], &args[..]].concat());
        run.says(0, &[" and 499"]);
        assert!(run.out.lines().all(|line| line.len() < 1000), "{}", run.out);
    }
    let run = room.run(&["access", "--policy", "long.yaml", "--tenant", "t"]);
    run.says(
        0,
        &["\nall-staff (00000000-0000-4000-8000-000000000000, ", " and 1992 more)", "\ng    *:read "],
    );
    let run = room.run(&["access", "--policy", "long.yaml", "--tenant", "t", "--format", "json"]).json();
    let row = &run["access"][0];
    assert_eq!(
        (row["raw_groups"].as_array().unwrap().len(), row["grants"].as_array().unwrap().len()),
        (2000, 5000)
    );
}
