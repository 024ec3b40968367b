//! `tenantauth check`.

use super::{Room, account};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

#[test]
fn check_accepts_a_policy_with_warnings() {
    let room = Room::new();
    let run = room.run(&["check", "policy.yaml"]);
    run.says(0, &["policy.yaml: valid, revision ", ", 2 warnings\n"]);
    assert!(
        run.err.starts_with("policy.yaml:26:14: warning: grants[1]: the grant has expired\n  help: "),
        "{}",
        run.err
    );

    let report = room.run(&["--format", "json", "check", "policy.yaml"]);
    assert_eq!((report.status, &*report.err), (0, ""));
    let report = report.json();
    let policy = &report["policies"][0];
    assert_eq!(policy["file"], "policy.yaml");
    assert_eq!(policy["valid"], true);
    let revision = policy["revision"].as_str().unwrap();
    assert_eq!(revision.len(), 16);
    assert!(run.out.contains(revision));
    assert_eq!(
        policy["diagnostics"][0],
        json!({
            "severity": "warning", "kind": "expired_grant", "file": "policy.yaml", "line": 26, "column": 14,
            "path": "grants[1]", "message": "the grant has expired", "help": "remove it",
        })
    );
    assert!(policy["diagnostics"][1]["help"].as_str().unwrap().starts_with("remove `mode: shadow`"));

    let directory = room.run(&["check", room.0.to_str().unwrap()]);
    directory.says(0, &[revision]);
}

#[test]
fn check_tells_every_problem_with_its_place() {
    let room = Room::new();
    let run = room.run(&["check", "broken.yaml"]);
    run.says(3, &["broken.yaml: invalid, "]);
    assert!(run.err.contains("broken.yaml:10:14: grants[0].scopes[0]: unknown scope `logs:raed`\n  help: "));
    assert!(run.err.contains("broken.yaml:11:5: "), "{}", run.err);

    let run = room.run(&["check", "broken.yaml", "--format", "json"]);
    assert_eq!((run.status, &*run.err), (3, ""));
    let policy = &run.json()["policies"][0];
    assert_eq!((&policy["valid"], &policy["revision"]), (&json!(false), &Value::Null));
    let scope = policy["diagnostics"].as_array().unwrap().iter().find(|found| found["line"] == 10).unwrap();
    assert_eq!((&scope["severity"], &scope["kind"]), (&json!("error"), &Value::Null));
}

#[test]
fn check_looks_at_all_policies_and_the_highest_status_counts() {
    let room = Room::new();
    let run = room.run(&["check", "nowhere.yaml", "policy.yaml"]);
    run.says(1, &["nowhere.yaml: not checked\n", "policy.yaml: valid"]);
    assert!(run.err.starts_with("nowhere.yaml:1:1: cannot read the policy: no such file"), "{}", run.err);
    let run = room.run(&["check", "broken.yaml", "nowhere.yaml", "policy.yaml"]);
    run.says(3, &["broken.yaml: invalid", "nowhere.yaml: not checked", "policy.yaml: valid"]);
    let report = room.run(&["check", "nowhere.yaml", "policy.yaml", "--format", "json"]);
    assert_eq!(report.status, 1);
    assert_eq!(report.json()["policies"].as_array().unwrap().len(), 2);

    // The policy could be read, and says something that cannot be followed: that is a problem of the policy.
    fs::remove_file(room.path("client-ip.keys")).unwrap();
    let run = room.run(&["check", "policy.yaml"]);
    run.says(3, &["policy.yaml: invalid, 1 error, 2 warnings"]);
    assert!(run.err.contains("client_ip.keys_file: cannot read `client-ip.keys`"), "{}", run.err);
}

#[test]
fn check_as_another_user_looks_at_files_directories_and_links() {
    let room = Room::new();
    let mine = fs::metadata(room.path("policy.yaml")).unwrap().uid();
    let named = |uid: u32| account("/etc/passwd", move |fields| fields.get(2) == Some(&&*uid.to_string()));
    let me = named(mine).unwrap().remove(0);
    room.run(&["check", "policy.yaml", "--as-user", &me]).says(0, &["valid"]);
    room.run(&["check", "policy.yaml", "--as-user", "nobody-of-this-name"])
        .complains(1, "no user `nobody-of-this-name`");

    let is_other = |fields: &[&str]| fields.get(2).is_some_and(|uid| *uid != "0" && *uid != mine.to_string());
    let other = account("/etc/passwd", is_other).unwrap().remove(0);
    room.run(&["check", "policy.yaml", "--as-user", &other]).says(0, &["valid"]);

    room.set_mode("client-ip.keys", 0o600);
    let run = room.run(&["check", "policy.yaml", "--as-user", &other]);
    run.says(3, &["policy.yaml: invalid, "]);
    let keys = room.path("client-ip.keys").canonicalize().unwrap().display().to_string();
    let problem =
        format!("policy.yaml:1:1: user `{other}` cannot read `{keys}`: its mode is 0600, owner {mine}, ");
    assert!(run.err.contains(&problem), "{}", run.err);
    assert!(run.err.contains("  help: "));
    let report = room.run(&["check", "policy.yaml", "--as-user", &other, "--format", "json"]);
    assert_eq!(report.status, 3);
    assert_eq!(
        (&report.json()["policies"][0]["valid"], &report.json()["policies"][0]["revision"]),
        (&json!(false), &Value::Null)
    );

    fs::create_dir(room.path("secrets")).unwrap();
    fs::rename(room.path("client-ip.keys"), room.path("secrets/keys")).unwrap();
    symlink("secrets/keys", room.path("client-ip.keys")).unwrap();
    room.set_mode("secrets/keys", 0o644);
    room.set_mode("secrets", 0o700);
    let run = room.run(&["check", "policy.yaml", "--as-user", &other]);
    let directory = room.path("secrets").canonicalize().unwrap().display().to_string();
    assert!(run.err.contains(&format!("cannot search `{directory}`: its mode is 0700")), "{}", run.err);
    assert_eq!(run.status, 3);
}
