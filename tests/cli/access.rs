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
            format!("sre (0f3c9a1e) *:read anywhere {shadow} always grants[2] (policy.yaml:27)"),
            format!(
                "team-a rules:read (mimir, pyroscope) anywhere {shadow} always team-a-writers (policy.yaml:19)"
            ),
            format!(
                "team-a logs:read logs:write rules:read (loki) {OFFICE} {shadow} always team-a-writers (policy.yaml:19)"
            ),
        ]
    );
    // An expired grant gives nobody anything; the pattern `*` does.
    let run = room.run(&["access", "--policy", "policy.yaml", "--tenant", "archive"]);
    assert_eq!(rows(&run.out)[1..], ["sre (0f3c9a1e) *:read anywhere always grants[2] (policy.yaml:27)"]);

    let until = POLICY
        .replace("2020-01-31", "2999-01-31")
        .replace("groups: [sre]\n    tenants: [\"*\"]", "groups: [\"*\"]\n    tenants: [all]");
    room.write("until.yaml", &until);
    let run = room.run(&["access", "--policy", "until.yaml", "--tenant", "archive", "--format", "json"]);
    assert_eq!((run.status, &*run.err), (0, ""));
    let office = json!({"restriction": "logs-from-office", "owner": null, "networks": [{"name": "office", "networks": ["203.0.113.0/24", "2001:db8::/32"]}, {"name": "192.0.2.9", "networks": ["192.0.2.9"]}]});
    assert_eq!(
        run.json()["access"][1],
        json!({
            "group": "team-a", "raw_groups": [], "tenants": ["archive"], "except_tenants": [],
            "scopes": [{"scope": "logs:read", "backends": null}, {"scope": "rules:read", "backends": ["loki"]}], "from": [office], "shadow": [],
            "until": "2999-01-31T00:00:00Z", "grants": [{"name": "migration", "owner": null, "file": "until.yaml", "line": 23}],
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
            "* except team-a *:read anywhere always grants[2] (policy.yaml:27)",
            "team-a *:read anywhere [shadow: vpn (198.51.100.7)] always grants[2] (policy.yaml:27)",
        ]
    );
    // The same by the group that the issuer gives.
    let raw = room.run(&["access", "--policy", "policy.yaml", "--group", "0f3c9a1e"]);
    assert_eq!(rows(&raw.out), rows(&run.out));
    let run = room.run(&["access", "--policy", "policy.yaml", "--group", "team-a"]);
    assert_eq!(
        rows(&run.out)[3..],
        [
            "team-a-* rules:read (mimir, pyroscope) anywhere always team-a-writers (policy.yaml:19)"
                .to_owned(),
            format!(
                "team-a-* logs:read logs:write rules:read (loki) {OFFICE} always team-a-writers (policy.yaml:19)"
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

/// Two rules that hold for everyone, and groups that only restrictions name.
fn restricted(restriction: &str, more: &str) -> String {
    let head = POLICY.split("\ngroup_names").next().unwrap();
    format!(
        "{head}\ngroup_names: {{ sre: [0f3c9a1e], leads: [7d00] }}\n\
         grants:\n- {{ name: all, groups: ['*'], tenants: [t3] }}\n- {{ name: lead, groups: [leads], tenants: [t4] }}\n\
         networks: {{ office: [203.0.113.0/24] }}\nclient_ip: {{ source: remote_addr }}\n\
         restrictions:\n- {{ networks: [office], {restriction} }}\n{more}"
    )
}

#[test]
fn a_group_for_which_a_restriction_makes_a_difference_has_a_row() {
    let room = Room::new();
    let ask = |policy: &str, args: &[&str]| {
        room.write("r.yaml", policy);
        let run = room.run(&[&["access", "--policy", "r.yaml"], args].concat());
        assert_eq!(run.status, 0, "{}{}", run.out, run.err);
        rows(&run.out)[1..].to_vec()
    };
    let row = |who: &str, from: &str| format!("{who} *:read {from} always all (r.yaml:14)");
    let (sre, office) = ("sre (0f3c9a1e)", "office (203.0.113.0/24)");
    assert_eq!(
        ask(&restricted("except_groups: [sre]", ""), &["--tenant", "t3"]),
        [row("everyone", office), row(sre, "anywhere")]
    );
    assert_eq!(
        ask(&restricted("groups: [sre]", ""), &["--tenant", "t3"]),
        [row("everyone", "anywhere"), row(sre, office)]
    );
    assert_eq!(
        ask(&restricted("groups: [sre], mode: shadow", ""), &["--tenant", "t3"]),
        [row("everyone", "anywhere"), row(sre, &format!("anywhere [shadow: {office}]"))]
    );
    // What a restriction says of everyone alike, or of another scope, makes none.
    let twice = restricted("groups: ['*']", "- { groups: [sre], networks: [office], tenants: [t9] }\n");
    assert_eq!(ask(&twice, &["--tenant", "t3"]), [row("everyone", office)]);
    assert_eq!(
        ask(&restricted("groups: [sre], scopes: ['logs:write']", ""), &["--tenant", "t3"]),
        [row("everyone", "anywhere")]
    );
    // Nor does it where the group reaches nothing.
    let reached = ask(&restricted("groups: [sre]", ""), &["--tenant", "t4"]);
    assert_eq!(reached, ["leads (7d00) *:read anywhere always lead (r.yaml:15)"]);
    // A grant for something else says nothing of what everyone may do.
    let own = "authorizations: { leads: [t5] }\n";
    let policy = restricted("except_groups: [sre]", own)
        .replace("tenants: [t4]", "tenants: [t3], scopes: ['logs:write']")
        .replace("groups: [leads]", "groups: [sre]");
    assert_eq!(
        ask(&policy, &["--tenant", "t3"]),
        [
            row("everyone", office),
            row(sre, "anywhere"),
            format!("{sre} logs:write anywhere always lead (r.yaml:15)"),
        ]
    );
}

/// A revocation takes what a group grants, and what it excepts from; what binds goes on to bind.
#[test]
fn a_revoked_group_is_bound_all_the_same() {
    let room = Room::new();
    let office = "office (203.0.113.0/24)";
    for revoked in ["sre", "0f3c9a1e"] {
        let ask = |restriction: &str, args: &[&str]| {
            room.write(
                "r.yaml",
                &restricted(restriction, &format!("revoked: {{ groups: ['{revoked}'] }}\n")),
            );
            room.run(&[&["access", "--policy", "r.yaml"], args].concat())
        };
        let run = ask("groups: [sre]", &["--group", "sre"]);
        assert_eq!(rows(&run.out)[1..], [format!("t3 *:read {office} always all (r.yaml:14)")]);
        assert!(
            run.err.starts_with("note: the policy revokes the group `sre`: it grants nothing"),
            "{}",
            run.err
        );
        let run = ask("groups: [sre]", &["--tenant", "t3"]);
        assert_eq!(rows(&run.out)[2], format!("sre (0f3c9a1e) *:read {office} always all (r.yaml:14)"));
        let run = ask("except_groups: [sre]", &["--group", "sre"]);
        assert_eq!(rows(&run.out)[1..], [format!("t3 *:read {office} always all (r.yaml:14)")]);
    }
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

/// Too many combinations to be listed: each grant by itself, and never less bound than it is.
#[test]
fn entangled_patterns_are_told_grant_by_grant() {
    let room = Room::new();
    let head = POLICY.split("\ngroup_names").next().unwrap();
    let grants: String = ('a'..='t')
        .map(|letter| {
            format!("- {{ groups: [g], tenants: ['x-*{letter}*'], except_tenants: ['x-b*', 'y*'] }}\n")
        })
        .collect();
    let rest = "- { groups: [h], tenants: ['*'] }\nnetworks: { office: [203.0.113.0/24], vpn: [198.51.100.7] }\n\
                client_ip: { source: remote_addr }\nrestrictions:\n\
                - { tenants: ['x-*'], networks: [office] }\n- { tenants: [x-cad, x-bad], networks: [vpn] }\n\
                - { groups: [h], networks: [192.0.2.1] }\n";
    room.write("many.yaml", &format!("{head}\ngrants:\n{grants}{rest}"));
    let run = room.run(&["access", "--policy", "many.yaml", "--group", "g"]);
    run.says(0, &["\nthe patterns of tenants overlap in too many ways: each line is one grant by itself"]);
    let found = rows(&run.out);
    assert_eq!(found.len(), 21);
    let office = "office (203.0.113.0/24)";
    assert_eq!(
        [&*found[1], &*found[5]],
        [
            &*format!(
                "x-*a* except x-b* *:read {office} [for some of them also vpn (198.51.100.7)] always grants[0] (many.yaml:13)"
            ),
            &*format!("x-*e* except x-b* *:read {office} always grants[4] (many.yaml:17)"),
        ]
    );
    let report = room.run(&["access", "--policy", "many.yaml", "--group", "g", "--format", "json"]).json();
    assert_eq!(report["overlapping"], true);
    let some = &report["access"][0]["from_in_parts"];
    assert_eq!(
        *some,
        json!([{"restriction": "restrictions[1]", "owner": null, "networks": [{"name": "vpn", "networks": ["198.51.100.7"]}]}])
    );
    assert_eq!(report["access"][4].get("from_in_parts"), None);
}

/// Every tenant and everybody who reaches it, for people, for programs and for spreadsheets.
#[test]
fn everything_that_anybody_reaches() {
    let room = Room::new();
    let run = room.run(&["access", "--policy", "policy.yaml", "--all"]);
    run.says(0, &["policy  policy.yaml, revision "]);
    let shadow = "[shadow: vpn (198.51.100.7)]";
    assert_eq!(
        rows(&run.out),
        [
            "TENANT WHO SCOPES FROM UNTIL BY".to_owned(),
            "* except team-a sre (0f3c9a1e) *:read anywhere always grants[2] (policy.yaml:27)".to_owned(),
            format!("team-a sre (0f3c9a1e) *:read anywhere {shadow} always grants[2] (policy.yaml:27)"),
            format!("team-a team-a rules:read (mimir, pyroscope) anywhere {shadow} always team-a-writers (policy.yaml:19)"),
            format!("team-a team-a logs:read logs:write rules:read (loki) {OFFICE} {shadow} always team-a-writers (policy.yaml:19)"),
            "team-a-* team-a rules:read (mimir, pyroscope) anywhere always team-a-writers (policy.yaml:19)".to_owned(),
            format!("team-a-* team-a logs:read logs:write rules:read (loki) {OFFICE} always team-a-writers (policy.yaml:19)"),
            "tenant1 group1 metrics:read traces:read profiles:read rules:read (mimir, pyroscope) alerts:read anywhere always authorizations.group1 (policy.yaml:16)".to_owned(),
            format!("tenant1 group1 logs:read rules:read (loki) {OFFICE} always authorizations.group1 (policy.yaml:16)"),
        ]
    );
    // What is said of one tenant or group is said of all.
    let all = room.run(&["access", "--policy", "policy.yaml", "--all", "--format", "json"]).json();
    let of = |args: &[&str]| {
        room.run(&[&["access", "--policy", "policy.yaml", "--format", "json"], args].concat()).json()
    };
    let group = of(&["--group", "team-a"]);
    let mine = |row: &&serde_json::Value| row["group"] == "team-a";
    let found: Vec<_> = all["access"].as_array().unwrap().iter().filter(mine).collect();
    assert_eq!(found, group["access"].as_array().unwrap().iter().collect::<Vec<_>>());
    let tenant = of(&["--tenant", "team-a"]);
    let mine = |row: &&serde_json::Value| row["tenants"] == json!(["team-a"]);
    let found: Vec<_> = all["access"].as_array().unwrap().iter().filter(mine).collect();
    assert_eq!(found, tenant["access"].as_array().unwrap().iter().collect::<Vec<_>>());

    room.write("nothing.yaml", POLICY.split("\ngroup_names").next().unwrap());
    room.run(&["access", "--policy", "nothing.yaml", "--all"]).says(0, &["\nnobody may reach anything\n"]);
}

#[test]
fn rows_for_a_spreadsheet_are_no_formulas() {
    let room = Room::new();
    let head = POLICY.split("\ngroup_names").next().unwrap();
    room.write(
        "odd.yaml",
        &format!("{head}\ngroup_names: {{ '@sum': ['=cmd|x', 'a, \"b\"'] }}\ngrants: [{{ groups: ['@sum'], tenants: ['-t'] }}]\n"),
    );
    for args in [&["--all"][..], &["--tenant=-t"], &["--group", "@sum"]] {
        let run = room.run(&[&["access", "--policy", "odd.yaml", "--format", "csv"], args].concat());
        assert_eq!((run.status, &*run.err), (0, ""));
        let scopes = "metrics:read; logs:read; traces:read; profiles:read; rules:read; alerts:read";
        assert_eq!(
            run.out,
            format!(
                "tenants,except_tenants,group,raw_groups,scopes,from,from_in_parts,shadow,until,grants\r\n\
                 '-t,,'@sum,\"'=cmd|x; a, \"\"b\"\"\",{scopes},anywhere,,,,grants[0] (odd.yaml:13)\r\n"
            )
        );
    }
    let run = room.run(&["check", "odd.yaml", "--format", "csv"]);
    run.complains(1, "`--format csv` is a form of `access` alone");
    room.run(&["access", "--policy", "policy.yaml", "--unused", "x", "--tenant", "a"])
        .complains(1, "--unused");
}

/// Grants that no request used, and since when the log would know.
#[test]
fn unused_grants_are_those_that_no_request_used() {
    let room = Room::new();
    let record = |changes: serde_json::Value| {
        let mut record = json!({
            "schema": 1, "request_id": "0123", "time": "2026-06-01T12:00:00.000Z", "decision": "allow",
            "reason": "granted", "mode": "enforce", "shadow": null, "issuer": "entra", "subject": "s", "user": "ada",
            "groups": ["team-a"], "tenants": ["team-a"], "scope": "logs:read", "grant": "other", "restriction": null,
            "owner": null, "backend": "loki", "client_ip": "203.0.113.9", "peer": "127.0.0.1",
            "policy_revision": "0000000000000000", "truncated": null,
        });
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        record.to_string()
    };
    let ask = |lines: &[String], args: &[&str]| {
        room.write("audit.jsonl", &(lines.join("\n") + "\n"));
        room.run(&[&["access", "--policy", "policy.yaml", "--all", "--unused", "audit.jsonl"], args].concat())
    };
    // A denied request uses nothing; the group that has the other grant could be held but is not recorded.
    let denied = record(json!({
        "decision": "deny", "reason": "tenant_forbidden", "groups": ["group1"], "time": "2026-05-01T00:00:00.000Z",
    }));
    let lines = [record(json!({})), record(json!({"time": "2026-06-02T00:00:00.000Z"})), denied];
    let run = ask(&lines, &[]);
    run.says(
        0,
        &[
            "log     audit.jsonl, 3 records from 2026-05-01T00:00:00Z to 2026-06-02T00:00:00Z\n",
            "\n2 of 3 grants not used since 2026-05-01T00:00:00Z:\n",
        ],
    );
    let table: Vec<String> =
        run.out.lines().skip(4).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        table,
        [
            "USE WHO TENANT SCOPES UNTIL GRANT",
            "unused group1 tenant1 *:read always authorizations.group1 (policy.yaml:16)",
            "unknown sre * *:read always grants[2] (policy.yaml:27)",
        ]
    );
    let report = ask(&lines, &["--format", "json"]).json();
    assert_eq!(
        report["log"],
        json!({"file": "audit.jsonl", "records": 3, "from": "2026-05-01T00:00:00Z", "to": "2026-06-02T00:00:00Z", "undetermined": 0})
    );
    let uses: Vec<_> =
        report["unused"].as_array().unwrap().iter().map(|one| (&one["name"], &one["use"])).collect();
    assert_eq!(
        uses,
        [(&json!("authorizations.group1"), &json!("unused")), (&json!("grants[2]"), &json!("unknown"))]
    );
    let csv = ask(&lines, &["--format", "csv"]).out;
    assert!(
        csv.starts_with("use,groups,tenants,scopes,until,grant,log_from,log_to\r\nunused,group1,tenant1,"),
        "{csv}"
    );

    // Somebody of each group: by whichever grant, in a request to several tenants too.
    let used = [
        record(json!({"groups": ["group1"], "tenants": ["tenant1"]})),
        record(json!({"groups": ["sre", "team-a"], "tenants": ["team-a", "x"]})),
        record(json!({"truncated": ["groups"]})),
    ];
    ask(&used, &[])
        .says(0, &["        1 of them say too little: a part was cut\n", "\nevery grant was used (3)\n"]);
    ask(&["x".to_owned()], &[]).complains(1, "error: `audit.jsonl` holds no audit record\n  help: ");
}
