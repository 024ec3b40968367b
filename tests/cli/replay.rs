//! `tenantauth replay`.

use super::{POLICY, Room};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A record as `http.conf` writes it, of a policy that nobody has.
fn record(changes: &Value) -> String {
    let record = json!({
        "schema": 1, "request_id": "0123", "time": "2026-06-01T12:00:00.000Z", "decision": "allow", "reason": "granted",
        "mode": "enforce", "shadow": null, "issuer": "entra", "subject": "s", "user": "ada@example.org", "token_id": null,
        "groups": ["team-a"], "tenants": ["team-a"], "scope": "logs:read", "grant": "team-a-writers", "restriction": null,
        "owner": null, "backend": "loki", "method": "GET", "path": "/loki/api/v1/labels", "query": null,
        "client_ip": "203.0.113.9", "client_ip_source": "cookie", "peer": "127.0.0.1", "upgrade": false,
        "policy_revision": "0000000000000000", "grafana": {"dashboard": null, "panel": null, "rule": null, "org": null},
        "truncated": null, "status": 200, "upstream_status": [200], "bytes_sent": 10, "duration_ms": 1,
    });
    with(record, changes.clone()).to_string()
}

fn denied(reason: &str) -> Value {
    json!({"decision": "deny", "reason": reason, "grant": null})
}

fn with(mut one: Value, other: Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

fn log() -> String {
    let lines = [
        record(&json!({"groups": ["sre", "team-a"]})),
        // From now on from the office only.
        record(&json!({"client_ip": "198.18.0.5", "owner": "team-a"})),
        // Denied for want of a grant that the new policy has; the same person, of a group that is recorded elsewhere.
        record(&with(denied("tenant_forbidden"), json!({"tenants": ["tenant1"], "groups": ["group1"]}))),
        // Perhaps a member of `sre`, whom no record of that policy names.
        record(&with(
            denied("tenant_forbidden"),
            json!({"tenants": ["team-b"], "policy_revision": "1111111111111111"}),
        )),
        record(&with(denied("token_expired"), json!({"groups": null, "tenants": null, "scope": null}))),
        json!({"schema": 1, "decision": null, "status": 400}).to_string(),
        "{\"decision\":\"al".to_owned(),
        String::new(),
        record(&with(
            denied("scope_forbidden"),
            json!({"scope": "traces:read", "backend": "tempo", "policy_revision": "1111111111111111"}),
        )),
    ];
    lines.join("\n") + "\n"
}

#[test]
fn what_changes_is_printed_and_counted() {
    let room = Room::new();
    room.write("audit.jsonl", &log());
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl"]);
    assert_eq!(run.status, 2, "{}{}", run.out, run.err);
    assert!(run.err.starts_with("line 7: no record: EOF while parsing a string"), "{}", run.err);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "lost     line 2  2026-06-01T12:00:00.000Z  ada@example.org  team-a  logs:read  198.18.0.5: allow (granted) -> \
             deny (ip_forbidden) by the restriction logs-from-office",
            "gained   line 3  2026-06-01T12:00:00.000Z  ada@example.org  tenant1  logs:read  203.0.113.9: deny \
             (tenant_forbidden) -> allow (granted) by the grant authorizations.group1",
            "unknown  line 4  2026-06-01T12:00:00.000Z  ada@example.org  team-b  logs:read  203.0.113.9: deny \
             (tenant_forbidden) -> depends on groups that were not recorded",
            "unknown  line 9  2026-06-01T12:00:00.000Z  ada@example.org  team-a  traces:read  203.0.113.9: deny \
             (scope_forbidden) -> depends on groups that were not recorded",
        ]
    );
    run.says(
        2,
        &[
            "\n7 records: 2 changed, 2 unknown, 1 the same, 0 denied for another reason, 1 denied before the rules, 1 not \
             decided; 1 corrupt line\n",
            "\nTENANT   GAINED  LOST  UNKNOWN\n",
            "\nteam-a   0       1     1\n",
            "\nscope_forbidden -> unknown",
            "\ngranted -> ip_forbidden",
        ],
    );

    let report = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"]).json();
    assert_eq!(report["changes"].as_array().unwrap().len(), 4);
    assert_eq!(report["summary"]["by_owner"]["team-a"], json!({"gained": 0, "lost": 1, "unknown": 0}));
    assert_eq!(
        report["changes"][1],
        json!({
            "change": "gained", "line": 3, "time": "2026-06-01T12:00:00.000Z", "request_id": "0123", "issuer": "entra",
            "subject": "s", "user": "ada@example.org", "groups": ["group1"], "tenants": ["tenant1"], "scope": "logs:read",
            "backend": "loki", "client_ip": "203.0.113.9",
            "old": {"decision": "deny", "reason": "tenant_forbidden", "grant": null, "restriction": null, "owner": null},
            "new": {"decision": "allow", "reason": "granted", "grant": "authorizations.group1", "restriction": null, "owner": null},
        })
    );
}

/// What was cut may have decided: nothing is concluded from what is left of it.
#[test]
fn what_was_cut_is_unknown() {
    let room = Room::new();
    let revision =
        room.run(&["check", "policy.yaml", "--format", "json"]).json()["policies"][0]["revision"].clone();
    // Each would change for whoever takes it for the whole: a tenant left out of a list, a group that binds or grants.
    let lost = json!({"client_ip": "198.18.0.5"});
    let gained = with(denied("tenant_forbidden"), json!({"tenants": ["tenant1"], "groups": ["group1"]}));
    let kinds = [
        (json!(["tenants"]), with(lost.clone(), json!({"tenants": []}))),
        (
            json!(["query", "path", "groups", "tenants"]),
            with(lost.clone(), json!({"groups": [], "tenants": []})),
        ),
        (json!(["groups"]), gained.clone()),
        (json!(["tenants"]), gained.clone()),
        (json!(["path"]), gained.clone()),
        (json!(["subject"]), gained.clone()),
    ];
    for (truncated, changes) in kinds {
        let cut = with(changes.clone(), json!({"truncated": truncated}));
        room.write("audit.jsonl", &record(&cut));
        let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"]);
        assert_eq!((run.status, counts(&run.json()), &*run.err), (0, [0, 1, 0], ""), "{truncated}");
        let shown = &run.json()["changes"][0];
        assert_eq!([&shown["change"], &shown["depends_on"]], ["unknown", "truncated"]);
        assert_eq!(shown["new"]["reason"], shown["old"]["reason"], "nothing is known");
        let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl"]);
        run.says(0, &["-> depends on what was cut from the record\n", " -> unknown "]);
        // The policy that decided it decides it alike.
        room.write("audit.jsonl", &record(&with(cut, json!({"policy_revision": revision}))));
        let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"]);
        assert_eq!(counts(&run.json()), [0, 0, 1], "{truncated}");
    }
    // What is not judged again may be cut.
    let truncated = json!({"truncated": ["query", "grafana.panel", "user", "token_id"]});
    room.write("audit.jsonl", &record(&with(gained, truncated)));
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"]);
    assert_eq!((run.status, counts(&run.json())), (2, [1, 0, 0]), "{}", run.out);
}

#[test]
fn a_policy_of_the_records_tells_what_they_could_name() {
    let room = Room::new();
    let revision =
        room.run(&["check", "policy.yaml", "--format", "json"]).json()["policies"][0]["revision"].clone();
    let log = log().replace("1111111111111111", "0000000000000000");
    let of_policy = log.replace("0000000000000000", revision.as_str().unwrap());
    // The policy of the log names `sre`, so whoever has no `sre` in the record is none.
    room.write("audit.jsonl", &of_policy);
    room.write(
        "new.yaml",
        &POLICY.replace("office: [", "office: [198.18.0.0/15, ").replace("group1: [tenant1]", "group1: []"),
    );
    for arguments in [&["audit.jsonl", "--recorded", "policy.yaml"][..], &["-", "--recorded", "policy.yaml"]]
    {
        let all = [&["replay", "--policy", "new.yaml", "--format", "json"][..], arguments].concat();
        let run = room.run_with(&all, &of_policy);
        assert_eq!(run.status, 0, "{}{}", run.out, run.err);
        let summary = &run.json()["summary"];
        assert_eq!(
            [&summary["unknown"], &summary["changed"], &summary["other_reason"]],
            [&json!(0), &json!(0), &json!(0)]
        );
        assert_eq!(run.json()["changes"], json!([]));
    }
    // From a pipe nothing can be learnt beforehand.
    let run = room.run_with(&["replay", "--policy", "new.yaml", "-"], &log);
    run.says(0, &["\nTENANT   GAINED  LOST  UNKNOWN\n"]);
    assert!(run.out.contains("unknown  line 3"), "{}", run.out);
}

#[test]
fn a_closed_pipe_stops_it_and_wrong_files_are_told() {
    let room = Room::new();
    room.run(&["replay", "--policy", "policy.yaml", "nowhere.jsonl"])
        .complains(1, "cannot read `nowhere.jsonl`: no such file");
    room.run(&["replay", "--policy", "policy.yaml", "."]).complains(1, "cannot read `.`: is a directory");
    room.run(&["replay", "--policy", "broken.yaml", "audit.jsonl"]).complains(3, "broken.yaml:10:14: ");
    let nothing = "{\"schema\":1,\"decision\":null}\n";
    room.write("audit.jsonl", nothing);
    room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--recorded", "broken.yaml"])
        .complains(3, "broken.yaml:10:14: ");
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"]);
    assert_eq!((run.status, &run.json()["changes"]), (0, &json!([])));
    // Corrupt lines are counted to the end and shown no further than the fifth.
    room.write("audit.jsonl", &(nothing.to_owned() + &"x\n".repeat(1000)));
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl"]);
    run.says(0, &["1 record: ", "; 1000 corrupt lines\n"]);
    assert_eq!(run.err.lines().count(), 6);
    assert!(run.err.ends_with("and 995 more that are no records\n"));
}

/// The resident set at its largest does not grow with the log.
#[test]
fn memory_is_flat() {
    let room = Room::new();
    let mut text = String::new();
    for number in 0..40_000 {
        writeln!(
            text,
            "{}",
            record(&json!({"request_id": format!("{number:032}"), "client_ip": "198.18.0.5"}))
        )
        .unwrap();
    }
    room.write("audit.jsonl", &text);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tenantauth"))
        .args(["replay", "--policy", "policy.yaml", "audit.jsonl"])
        .current_dir(&room.0)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut peak = 0_u64;
    let mut lines = 0;
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0 {
        lines += 1;
        if lines % 5_000 == 0 {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            // Once it has ended there is no such line.
            let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = high.map_or(peak, |high| high.split_whitespace().next().unwrap().parse().unwrap());
        }
        line.clear();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines > 40_000);
    assert!(text.len() > 24 << 20, "{}", text.len());
    assert!((1..20 << 10).contains(&peak), "{peak} KiB for {} bytes", text.len());
}

/// `POLICY` with `revoked`, and the revision of a policy.
fn revoking(revoked: &str) -> String {
    format!("{POLICY}revoked: {revoked}\n")
}

fn revision(room: &Room, policy: &str) -> Value {
    room.run(&["check", policy, "--format", "json"]).json()["policies"][0]["revision"].clone()
}

/// How many changed, are unknown and are the same.
fn counts(report: &Value) -> [u64; 3] {
    ["changed", "unknown", "same"].map(|count| report["summary"][count].as_u64().unwrap())
}

#[test]
fn revoked_principals_are_denied_again() {
    let room = Room::new();
    room.write("old.yaml", &revoking("{ principals: [{ issuer: entra, id: s }] }"));
    room.write("bob.yaml", &revoking("{ principals: [{ issuer: entra, id: bob }] }"));
    let of_old = json!({"policy_revision": revision(&room, "old.yaml")});
    room.write("denied.jsonl", &record(&with(denied("token_revoked"), of_old)));
    room.write("allowed.jsonl", &record(&json!({})));
    for (policy, log, status, expected) in [
        ("old.yaml", "denied.jsonl", 0, [0, 0, 1]),
        ("policy.yaml", "denied.jsonl", 2, [1, 0, 0]),
        ("bob.yaml", "denied.jsonl", 0, [0, 1, 0]),
        ("old.yaml", "allowed.jsonl", 2, [1, 0, 0]),
        ("bob.yaml", "allowed.jsonl", 0, [0, 0, 1]),
    ] {
        let run = room.run(&["replay", "--policy", policy, log, "--format", "json"]);
        assert_eq!((run.status, counts(&run.json())), (status, expected), "{policy} {log} {}", run.out);
        // Nobody knows whose `oid` that is.
        let is_told = run.err.starts_with(
            "warning: the policy revokes 1 principal whose id is the subject of no record: `bob` of `entra`\n  help: ",
        );
        assert_eq!(is_told, (policy, log) == ("bob.yaml", "allowed.jsonl"), "{policy} {log} {}", run.err);
    }
    let run = room.run(&["replay", "--policy", "old.yaml", "allowed.jsonl"]);
    run.says(2, &["allow (granted) -> deny (token_revoked)\n"]);
    let run = room.run(&["replay", "--policy", "bob.yaml", "denied.jsonl"]);
    run.says(0, &["deny (token_revoked) -> depends on a revoked id or token that was not recorded\n"]);
    let report = room.run(&["replay", "--policy", "bob.yaml", "denied.jsonl", "--format", "json"]).json();
    assert_eq!(report["changes"][0]["depends_on"], "revocation");
    // One who was denied has the id, so that it is nobody's `oid`.
    room.write(
        "both.jsonl",
        &(record(&with(denied("token_revoked"), json!({"subject": "bob"}))) + "\n" + &record(&json!({}))),
    );
    let both = room.run(&["replay", "--policy", "bob.yaml", "both.jsonl", "--format", "json"]);
    assert_eq!((both.status, counts(&both.json()), &*both.err), (0, [0, 0, 2], ""));
    // Whoever was let in by a policy that revoked the same is not told of again.
    let again = room.run(&["replay", "--policy", "bob.yaml", "--recorded", "bob.yaml", "allowed.jsonl"]);
    assert!(again.err.contains("`bob`"), "another policy decided: {}", again.err);
    room.write("allowed.jsonl", &record(&json!({"policy_revision": revision(&room, "bob.yaml")})));
    let again = room.run(&["replay", "--policy", "bob.yaml", "allowed.jsonl"]);
    assert_eq!((again.status, &*again.err), (0, ""));
}

#[test]
fn a_revocation_that_ends_counts_until_then() {
    let room = Room::new();
    let time: jiff::Timestamp = serde_json::from_str::<Value>(&record(&json!({}))).unwrap()["time"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    room.write("allowed.jsonl", &record(&json!({})));
    let until = |seconds: i64| jiff::Timestamp::from_second(time.as_second() + seconds).unwrap();
    for (seconds, expected) in [(-1, [0, 0, 1]), (0, [0, 0, 1]), (1, [1, 0, 0]), (3600, [1, 0, 0])] {
        let entry = format!("{{ principals: [{{ issuer: entra, id: s, until: {} }}] }}", until(seconds));
        room.write("until.yaml", &revoking(&entry));
        let run = room.run(&["replay", "--policy", "until.yaml", "allowed.jsonl", "--format", "json"]);
        assert_eq!(counts(&run.json()), expected, "{seconds} {}", run.out);
    }
    // At another time than its own.
    let entry = format!("{{ principals: [{{ issuer: entra, id: s, until: {} }}] }}", until(60));
    room.write("until.yaml", &revoking(&entry));
    let late = until(120).to_string();
    let args = ["replay", "--policy", "until.yaml", "allowed.jsonl", "--format", "json", "--now", &late];
    let report = room.run(&args).json();
    assert_eq!(report["changes"].as_array().map_or(0, Vec::len), 0, "{report}");
    // One that had ended for every record is none that nobody knows of.
    let entry = format!("{{ principals: [{{ issuer: entra, id: bob, until: {} }}] }}", until(-60));
    room.write("until.yaml", &revoking(&entry));
    assert_eq!(room.run(&["replay", "--policy", "until.yaml", "allowed.jsonl"]).err, "");
}

#[test]
fn what_a_revoked_key_decides_is_unknown() {
    let room = Room::new();
    room.write("keys.yaml", &revoking("{ keys: [{ issuer: entra, kid: k1 }] }"));
    let of_keys = json!({"policy_revision": revision(&room, "keys.yaml")});
    room.write("denied.jsonl", &record(&with(denied("token_revoked"), of_keys.clone())));
    room.write("allowed.jsonl", &record(&json!({})));
    for (policy, log, expected) in [
        ("keys.yaml", "denied.jsonl", [0, 0, 1]),
        // It was revoked by the key, and is no longer.
        ("policy.yaml", "denied.jsonl", [1, 0, 0]),
        ("keys.yaml", "allowed.jsonl", [0, 0, 1]),
    ] {
        let run = room.run(&["replay", "--policy", policy, log, "--format", "json"]);
        assert_eq!(counts(&run.json()), expected, "{policy} {log} {}", run.out);
        let is_told = run.err.starts_with("warning: the policy revokes 1 key, and records do not say which");
        assert_eq!(is_told, (policy, log) == ("keys.yaml", "allowed.jsonl"), "{policy} {log} {}", run.err);
    }
    // Denied by another policy: perhaps by what this one revokes.
    room.write("other.jsonl", &record(&denied("token_revoked")));
    let run = room.run(&["replay", "--policy", "keys.yaml", "other.jsonl", "--format", "json"]);
    assert_eq!(counts(&run.json()), [0, 1, 0], "{}", run.out);
    // Whose token was refused although its signature held is nobody who was let in.
    let refused = with(denied("token_expired"), json!({"groups": null}));
    room.write("expired.jsonl", &record(&refused));
    let run = room.run(&["replay", "--policy", "keys.yaml", "expired.jsonl", "--format", "json"]);
    assert_eq!((counts(&run.json()), &*run.err), ([0, 0, 0], ""), "{}", run.out);
    assert_eq!(run.json()["summary"]["before_rules"], 1);
}

#[test]
fn what_a_revoked_group_decides_is_unknown() {
    let room = Room::new();
    room.write("old.yaml", &revoking("{ groups: [sre] }"));
    let revoked = revision(&room, "old.yaml");
    let of_sre = json!({"groups": [], "tenants": ["team-b"], "policy_revision": revoked});
    room.write("audit.jsonl", &record(&with(denied("tenant_forbidden"), of_sre)));
    for recorded in [&[][..], &["--recorded", "old.yaml"]] {
        let all = [&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"][..], recorded]
            .concat();
        let run = room.run(&all);
        assert_eq!((run.status, counts(&run.json())), (0, [0, 1, 0]), "{}", run.out);
        assert_eq!(run.json()["changes"][0]["depends_on"], "groups");
    }
    // The restriction binds who holds a group that grants nothing any more; the record does not say who that is.
    let bound = POLICY.replace("authorizations:\n", "authorizations:\n  \"*\": [team-x]\n")
        + "  - { name: sre-from-office, tenants: [team-x], groups: [sre], networks: [office] }\n";
    room.write("bound.yaml", &format!("{bound}revoked: {{ groups: [sre] }}\n"));
    room.write("other.yaml", &format!("{bound}revoked: {{ groups: [sre] }}\naudit: {{ query: none }}\n"));
    let log = record(&with(
        denied("ip_forbidden"),
        json!({"groups": [], "tenants": ["team-x"], "client_ip": "198.18.0.5", "restriction": "sre-from-office", "scope": "metrics:read",
               "backend": "mimir",
               "policy_revision": revision(&room, "bound.yaml")}),
    ));
    room.write("audit.jsonl", &log);
    for (policy, expected) in [("bound.yaml", [0, 0, 1]), ("other.yaml", [0, 1, 0])] {
        let all =
            ["replay", "--policy", policy, "--recorded", "bound.yaml", "audit.jsonl", "--format", "json"];
        let run = room.run(&all);
        assert_eq!((run.status, counts(&run.json())), (0, expected), "{policy} {}{}", run.out, run.err);
    }
}

#[test]
fn with_several_issuers_who_has_no_group_is_known() {
    let room = Room::new();
    let two = "version: 1\nissuers:\n  - { name: entra, issuer: https://a.example, audiences: [g] }\n  \
               - { name: kc, issuer: https://b.example, audiences: [g] }\n\
               group_names: { ops: ['entra:o', 'kc:o'] }\nauthorizations: { '*': [team-a], ops: [team-b], 'kc:x': [team-c] }\n";
    room.write("two.yaml", two);
    room.write("more.yaml", &two.replace("ops: [team-b]", "ops: [team-b, team-c]"));
    let of_two =
        |changes: Value| record(&with(changes, json!({"policy_revision": revision(&room, "two.yaml")})));
    let log = [
        of_two(json!({"groups": []})),
        of_two(json!({"groups": ["ops"], "tenants": ["team-b"], "issuer": "kc"})),
        of_two(with(denied("tenant_forbidden"), json!({"groups": [], "tenants": ["team-c"]}))),
        of_two(with(
            denied("tenant_forbidden"),
            json!({"groups": ["ops"], "tenants": ["team-c"], "issuer": "kc"}),
        )),
    ];
    room.write("audit.jsonl", &log.join("\n"));
    for (policy, expected) in [("two.yaml", [0, 0, 4]), ("more.yaml", [1, 0, 3])] {
        let all = ["replay", "--policy", policy, "--recorded", "two.yaml", "audit.jsonl", "--format", "json"];
        assert_eq!(counts(&room.run(&all).json()), expected, "{policy}");
    }
}

#[test]
fn records_are_told_from_other_objects_and_shown_with_their_rules() {
    let room = Room::new();
    let lost = json!({"client_ip": "198.18.0.5"});
    let gained = with(denied("ip_forbidden"), json!({"restriction": "old-office"}));
    let log = [
        record(&lost),
        record(&gained),
        r#"{"a":1}"#.to_owned(),
        record(&json!({"schema": 2})),
        "[]".to_owned(),
    ];
    room.write("audit.jsonl", &log.join("\n"));
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"]);
    let report = run.json();
    assert_eq!([&report["summary"]["records"], &report["summary"]["corrupt"]], [&json!(2), &json!(3)]);
    assert_eq!(report["summary"]["undecided"], 0);
    for told in [
        "line 3: no record: missing field `schema`",
        "line 4: no record: unknown schema\n",
        "line 5: no record: ",
    ] {
        assert!(run.err.contains(told), "{}", run.err);
    }
    let rules =
        |at: usize| [&report["changes"][at]["old"]["grant"], &report["changes"][at]["old"]["restriction"]];
    assert_eq!(rules(0), [&json!("team-a-writers"), &Value::Null]);
    assert_eq!(rules(1), [&Value::Null, &json!("old-office")]);
}

/// A record is not ours: whoever wrote it may have put anything into it.
#[test]
fn a_long_owner_makes_no_wide_table() {
    let room = Room::new();
    let long = "x".repeat(70_000);
    let owned = |owner: &str| record(&json!({"client_ip": "198.18.0.5", "owner": owner}));
    room.write("audit.jsonl", &format!("{}\n{}\n", owned(&long), owned("team-a")));
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl"]);
    run.says(
        0,
        &["\nOWNER   GAINED  LOST  UNKNOWN\n", "\nteam-a  0       0     1\n", &format!("\n{long}  0 ")],
    );
}

/// Every line would change: what is wanted is the sum.
#[test]
fn the_summary_alone_a_limit_and_a_time_from_which_on() {
    let room = Room::new();
    let lost = |hour: u8, tenant: &str| {
        record(&json!({
            "client_ip": "198.18.0.5", "tenants": [tenant], "time": format!("2026-06-01T{hour:02}:00:00.500Z"),
            "groups": ["team-a", "x\u{1b}[2J"],
        }))
    };
    let tenant = |hour| if hour < 5 { "team-a" } else { "team-a-x" };
    let mut lines: Vec<String> = (0..20).map(|hour| lost(hour, tenant(hour))).collect();
    // A record of that policy may name `sre`: whoever has it not there has it not.
    lines.push(record(&json!({"groups": ["sre"], "time": "2026-05-01T00:00:00.000Z"})));
    room.write("audit.jsonl", &(lines.join("\n") + "\n"));
    let ask =
        |args: &[&str]| room.run(&[&["replay", "--policy", "policy.yaml", "audit.jsonl"], args].concat());

    let run = ask(&["--summary"]);
    run.says(
        2,
        &["21 records: 20 changed, ", "\nteam-a-x  0       15    0\n", "\ngranted -> ip_forbidden  0 "],
    );
    run.says(
        2,
        &["\nGROUP       GAINED  LOST  UNKNOWN\nteam-a      0       20    0\nx\\u{1b}[2J  0       20    0\n"],
    );
    assert!(!run.out.contains("line 1") && !run.out.contains(" more"), "{}", run.out);
    let report = ask(&["--summary", "--format", "json"]).json();
    assert_eq!((&report["changes"], &report["not_shown"]), (&json!([]), &json!(20)));
    let counts = json!({"gained": 0, "lost": 20, "unknown": 0});
    assert_eq!(report["summary"]["by_group"], json!({"team-a": counts, "x\u{1b}[2J": counts}));
    assert_eq!(
        report["summary"]["by_reason"],
        json!([{"old": "granted", "new": "ip_forbidden", "gained": 0, "lost": 20, "unknown": 0}])
    );

    let run = ask(&["--limit", "3"]);
    run.says(2, &["\nand 17 more\n\n21 records: 20 changed"]);
    assert_eq!(run.out.lines().filter(|line| line.starts_with("lost")).count(), 3);
    let report = ask(&["--limit", "3", "--format", "json"]).json();
    assert_eq!((report["changes"].as_array().unwrap().len(), &report["not_shown"]), (3, &json!(17)));
    assert!(!ask(&["--limit", "20"]).out.contains(" more"));

    let run = ask(&["--since", "2026-06-01T18:00:00Z"]);
    run.says(2, &["\n2 records: 2 changed, ", "\n19 records of earlier requests left out\n"]);
    assert!(run.out.starts_with("lost     line 19  2026-06-01T18:00:00.500Z "), "{}", run.out);
    let run = ask(&["--since", "2026-07-01T00:00:00Z", "--format", "json"]);
    assert_eq!((run.status, &run.json()["summary"]["earlier"]), (0, &json!(21)));
}

/// Whoever gives it the wrong file is told so, and a pipeline does not take it for a good result.
#[test]
fn what_is_no_audit_log_is_an_error() {
    let room = Room::new();
    room.write("empty", "");
    room.write("access.log", "127.0.0.1 - - [01/Jun/2026] \"GET / HTTP/1.1\" 200 5\n{\"schema\": 2}\n");
    for (file, lines) in [("empty", 0), ("access.log", 2)] {
        let run = room.run(&["replay", "--policy", "policy.yaml", file]);
        run.complains(
            1,
            &format!("error: `{file}` holds no audit record\n  help: it must hold the JSON lines "),
        );
        assert_eq!(run.err.matches(": no record: ").count(), lines, "{}", run.err);
    }
    for (magic, format, unpack) in [
        (&b"\x1f\x8b\x08"[..], "gzip", "zcat"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
        (b"\xfd7zXZ\0", "xz", "xzcat"),
        (b"BZh9", "bzip2", "bzcat"),
    ] {
        std::fs::write(room.path("packed"), [magic, &[0xff; 50]].concat()).unwrap();
        for args in [
            &["replay", "--policy", "policy.yaml", "packed"][..],
            &["explain", "--policy", "policy.yaml", "--audit", "packed", "--request", "12"],
        ] {
            room.run(args).complains(
                1,
                &format!(
                    "error: `packed` is compressed ({format})\n  help: unpack it, and give `-` for the file: `{unpack} packed "
                ),
            );
        }
    }
}
