//! `tenantauth test`.

use super::{POLICY, Room};
use serde_json::{Value, json};
use std::fs;

const OWN: &str = "
tests:
  - name: team-a from home
    groups: [team-a]
    tenant: team-a
    scope: logs:read
    client_ip: 198.18.0.5
    expect: ip_forbidden
  - { groups: [team-a], tenant: archive, scope: metrics:read, expect: allow }
";

const CASES: &str = "\
version: 1
tests:
  - { name: incident response, groups: [sre], tenant: anything, scope: logs:read, expect: granted }
  - { name: rules of team-a, groups: [team-a], tenant: team-a, backend: mimir, request: \"GET /prometheus/config/v1/rules\", expect: allow }
  - { name: ada, claims: { sub: ada, groups: [group1] }, tenant: tenant1, scope: metrics:read, expect: allow }
";

#[test]
fn tests_of_the_policy_and_of_further_documents_are_run() {
    let room = Room::new();
    room.write("policy.yaml", &format!("{POLICY}{OWN}"));
    room.write("cases.yaml", CASES);
    let run = room.run(&["test", "policy.yaml", "cases.yaml"]);
    run.says(
        0,
        &[
            "policy.yaml: 2 tests, 1 passed, 0 failed, 1 outdated\n",
            "cases.yaml: 3 tests, 3 passed, 0 failed\n",
        ],
    );
    assert!(
        run.err.starts_with(
            "policy.yaml:53:5: warning: tests[1]: the test `tests[1]` passes no more: what it relies on has expired\n  help: "
        ),
        "{}",
        run.err
    );
    // nginx would take it as well.
    room.run(&["check", "policy.yaml"]).says(0, &["valid", "3 warnings"]);

    let report = room.run(&["test", "policy.yaml", "cases.yaml", "--format", "json"]);
    assert_eq!((report.status, &*report.err), (0, ""));
    let report = report.json();
    assert_eq!(
        [&report["passed"], &report["failed"], &report["outdated"]],
        [&json!(4), &json!(0), &json!(1)]
    );
    assert_eq!(report["revision"].as_str().unwrap().len(), 16);
    assert_eq!(
        report["documents"][0]["tests"][0],
        json!({
            "name": "team-a from home", "line": 47, "outcome": "passed", "expected": "ip_forbidden",
            "decision": "deny", "reason": "ip_forbidden",
        })
    );
    assert_eq!(report["documents"][0]["diagnostics"][0]["kind"], "outdated_test");
}

#[test]
fn a_failing_test_is_2_and_refuses_the_policy() {
    let room = Room::new();
    room.write("cases.yaml", &CASES.replace("expect: granted", "expect: deny"));
    let run = room.run(&["test", "policy.yaml", "cases.yaml"]);
    run.says(2, &["policy.yaml: no tests\n", "cases.yaml: 3 tests, 2 passed, 1 failed\n"]);
    assert_eq!(
        run.err,
        "cases.yaml:3:5: tests[0]: the test `incident response` expects deny, but the decision is allow (granted) by \
         the grant `grants[2]` in policy.yaml:27\n  \
         help: correct the rules or the test; `tenantauth explain` shows every rule that took part\n"
    );
    let report = room.run(&["test", "policy.yaml", "cases.yaml", "--format", "json"]);
    assert_eq!(report.status, 2);
    assert_eq!(report.json()["documents"][1]["tests"][0]["outcome"], "failed");

    // Of its own tests, the policy is refused by whatever reads it, and further documents are run all the same.
    room.write("cases.yaml", CASES);
    room.write("policy.yaml", &format!("{POLICY}{}", OWN.replace("ip_forbidden", "granted")));
    room.run(&["test", "policy.yaml", "cases.yaml"])
        .says(2, &["policy.yaml: 2 tests, 0 passed, 1 failed, 1 outdated", "cases.yaml: 3 tests, 3 passed"]);
    let run = room.run(&["check", "policy.yaml"]);
    run.says(3, &["policy.yaml: invalid, 1 error, 3 warnings"]);
    assert!(run.err.contains("policy.yaml:47:5: tests[0]: the test `team-a from home` expects granted"));
}

#[test]
fn broken_documents_are_3_and_missing_ones_1() {
    let room = Room::new();
    room.write("cases.yaml", &CASES.replace("scope: logs:read", "scope: logs:raed"));
    let run = room.run(&["test", "policy.yaml", "cases.yaml"]);
    assert_eq!((run.status, &*run.out), (3, "policy.yaml: no tests\n"));
    assert!(
        run.err.starts_with("cases.yaml:3:72: tests[0].scope: unknown value `logs:raed`\n  help: "),
        "{}",
        run.err
    );
    let run = room.run(&["test", "policy.yaml", "nowhere.yaml"]);
    assert_eq!((run.status, &*run.out), (1, "policy.yaml: no tests\n"));
    assert!(run.err.starts_with("nowhere.yaml:1:1: cannot read the tests: no such file"), "{}", run.err);
    // Without a policy nothing is run.
    room.write("cases.yaml", CASES);
    room.run(&["test", "broken.yaml", "cases.yaml"]).complains(3, "broken.yaml:10:14: grants[0].scopes[0]");
    room.run(&["test", "nowhere.yaml", "cases.yaml"]).complains(1, "cannot read the policy");
    let report = room.run(&["test", "broken.yaml", "--format", "json"]);
    assert_eq!((report.status, &report.json()["revision"]), (3, &Value::Null));
    // A directory stands for the policy in it.
    fs::create_dir(room.path("directory")).unwrap();
    for name in ["policy.yaml", "jwks.json", "client-ip.keys"] {
        fs::copy(room.path(name), room.path("directory").join(name)).unwrap();
    }
    room.run(&["test", "directory", "cases.yaml"]).says(0, &["directory/policy.yaml: no tests\n"]);
}
