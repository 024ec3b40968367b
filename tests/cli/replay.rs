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
        "status": 200, "upstream_status": [200], "bytes_sent": 10, "duration_ms": 1,
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
        json!({"decision": null, "status": 400}).to_string(),
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
    room.write("audit.jsonl", "");
    room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--recorded", "broken.yaml"])
        .complains(3, "broken.yaml:10:14: ");
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl", "--format", "json"]);
    assert_eq!((run.status, &run.json()["changes"]), (0, &json!([])));
    // Corrupt lines are counted to the end and shown no further than the fifth.
    room.write("audit.jsonl", &"x\n".repeat(1000));
    let run = room.run(&["replay", "--policy", "policy.yaml", "audit.jsonl"]);
    run.says(0, &["0 records: ", "; 1000 corrupt lines\n"]);
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
