//! `tenantauth check --start`: whether a start or a reload of nginx would have a policy.

use super::{BROKEN, POLICY, Room};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tenantauth::engine::{Engine, Inherited, Options, Readiness};

const OWNERS: &str = "owners: { team-a: { tenants: [team-a] } }\n";
const NO_OWNER: &str = "grants: [{ groups: [team-a], tenants: [team-b] }]\n";

/// A room whose policy is the directory `policy`, with one owner.
fn room() -> Room {
    let room = Room::new();
    fs::create_dir_all(room.path("policy/owners.d")).unwrap();
    for file in ["jwks.json", "client-ip.keys"] {
        fs::rename(room.path(file), room.path("policy").join(file)).unwrap();
    }
    room.write("policy/policy.yaml", &format!("{POLICY}{OWNERS}"));
    room.write("policy/owners.d/team-a.yaml", "{}\n");
    room
}

/// Lets an engine keep the policy as a worker does, and returns its revision.
fn keep(room: &Room, state: &Path) -> String {
    fs::create_dir_all(state).unwrap();
    let options = Options {
        policy: room.path("policy"),
        reload_interval: Duration::from_millis(100),
        state_dir: Some(state.to_owned()),
    };
    let engine = Engine::start(options, Inherited::default()).unwrap();
    while engine.readiness() == Readiness::Loading {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(engine.readiness(), Readiness::Ready);
    engine.revision().expect("a revision")
}

#[test]
fn an_owners_broken_document_does_not_keep_nginx_from_starting() {
    let room = room();
    let policy = room.path("policy").display().to_string();
    room.run(&["check", "--start", &policy])
        .says(0, &[": valid, revision ", "\n  start: with this policy\n"]);
    room.write("policy/owners.d/team-a.yaml", NO_OWNER);
    room.run(&["check", &policy]).says(3, &[": invalid, 1 error"]);
    let run = room.run(&["check", "--start", &policy]);
    run.says(0, &[": invalid, 1 error", "  start: with this policy\n", "  owner team-a: invalid\n"]);
    assert!(run.err.contains("policy/owners.d/team-a.yaml:1:"), "{}", run.err);

    let report = room.run(&["check", "--start", &policy, "--format", "json"]);
    assert_eq!(report.status, 0);
    let checked = &report.json()["policies"][0];
    assert_eq!([&checked["valid"], &checked["revision"]], [&json!(false), &Value::Null]);
    assert_eq!(checked["start"]["policy_source"], "policy");
    assert!(checked["start"]["revision"].is_string());
    // Who does not ask for it, sees what there always was.
    assert_eq!(room.run(&["check", &policy, "--format", "json"]).json()["policies"][0].get("start"), None);
}

#[test]
fn a_broken_platform_document_is_refused_unless_a_last_good_version_is_kept() {
    let room = room();
    let (policy, state) = (room.path("policy").display().to_string(), room.path("state"));
    let check = || room.run(&["check", "--start", "--state-dir", state.to_str().unwrap(), &policy]);
    let good = keep(&room, &state);
    check().says(0, &["  start: with this policy\n"]);

    let went_on = format!("  start: with the last good version of the state directory, revision {good}\n");
    room.write("policy/policy.yaml", BROKEN);
    let run = check();
    run.says(0, &[": invalid, ", &went_on]);
    assert!(run.err.contains("policy/policy.yaml:10:14: grants[0].scopes[0]: "), "{}", run.err);
    let report = room.run(&["check", "--start", "--state-dir", "state", &policy, "--format", "json"]).json();
    assert_eq!(report["policies"][0]["start"], json!({"policy_source": "state_dir", "revision": good}));
    let none = json!({"policy_source": null, "revision": null});
    for arguments in [&["--start"][..], &["--start", "--state-dir", "nowhere"]] {
        let run = room.run(&[&["check", &policy], arguments].concat());
        run.says(3, &["  start: refused, there is no last good version\n"]);
        let run = room.run(&[&["check", "--format", "json", &policy], arguments].concat());
        assert_eq!((run.status, &run.json()["policies"][0]["start"]), (3, &none));
    }
    // From within its directory.
    room.run(&["check", "--start", "--state-dir", "state", "policy"]).says(0, &[&went_on]);
    // A missing document is no reason not to go on, either.
    fs::remove_file(room.path("policy/policy.yaml")).unwrap();
    check().says(0, &[": not checked\n", &went_on]);

    // It is kept of this policy, and not of another one.
    let other = room.run(&["check", "--start", "--state-dir", "state", "broken.yaml"]);
    other.says(3, &["  start: refused, there is no last good version\n"]);
    let kept = fs::read_dir(&state).unwrap().next().unwrap().unwrap();
    let name = format!("state/{}", kept.file_name().display());
    room.set_mode(&name, 0o622);
    check().says(1, &["  start: refused, `", "is not used: others than its owner may write it\n"]);
    room.set_mode(&name, 0o600);
    fs::write(kept.path(), "tenantauth policy 2\n").unwrap();
    let run = check();
    run.says(1, &["is not used: it is damaged\n"]);
    fs::write(kept.path(), "tenantauth policy 1\n").unwrap();
    check().says(1, &["is not used: another version of tenantauth wrote it\n"]);
    fs::write(kept.path(), "tenantauth policy 2\n").unwrap();
    let report = room.run(&["check", "--start", "--state-dir", "state", &policy, "--format", "json"]).json();
    assert!(report["policies"][0]["start"]["problem"].as_str().unwrap().ends_with("it is damaged"));
}

#[test]
fn a_file_that_the_worker_cannot_read_counts_unless_it_is_an_owners() {
    let room = room();
    let policy = room.path("policy").display().to_string();
    let other = super::account("/etc/passwd", |fields| fields.first() == Some(&"nobody")).unwrap().remove(0);
    let check = || room.run(&["check", "--start", "--as-user", &other, &policy]);
    room.set_mode("policy/owners.d/team-a.yaml", 0o600);
    let run = check();
    run.says(0, &[": invalid, 1 error, 2 warnings\n", "  start: with this policy\n"]);
    assert!(run.err.contains("user `nobody` cannot read "), "{}", run.err);
    room.set_mode("policy/client-ip.keys", 0o600);
    check().says(3, &["  start: refused, there is no last good version\n"]);
}

/// What nginx goes on with is shown where it is known, and named where it is not.
#[test]
fn the_last_good_versions_are_shown_with_the_state_directory() {
    let room = room();
    let policy = room.path("policy").display().to_string();
    let good = "grants: [{ name: team, groups: [team-a], tenants: [team-a], scopes: ['metrics:read'] }]\n";
    room.write("policy/owners.d/team-a.yaml", good);
    let revision = keep(&room, &room.path("state"));
    room.write("policy/owners.d/team-a.yaml", NO_OWNER);
    room.write("audit.jsonl", "{\"schema\":1,\"decision\":null}\n");
    let asked = "--tenant team-a --scope metrics:read --groups team-a";
    let run = |command: &str| room.run(&command.split_whitespace().collect::<Vec<_>>());

    let explain = format!("explain --policy {policy} {asked}");
    let without = run(&explain);
    without.says(3, &["decision: deny (policy_unavailable)"]);
    let note = "note: nginx goes on with the last good version of the owner `team-a`, where it has one\n  help: `--state-dir DIR`, ";
    assert!(without.err.contains(note), "{}", without.err);
    let with = run(&format!("{explain} --state-dir state"));
    with.says(0, &["    team (owner team-a, ", "decision: allow (granted)\n"]);
    assert!(
        with.err.ends_with(
            "note: nginx goes on with the last good version of the owner `team-a`, which is shown\n"
        )
    );
    assert!(with.err.contains("owners.d/team-a.yaml:1:"), "{}", with.err);
    let report = run(&format!("{explain} --state-dir state --format json")).json();
    assert_eq!([&report["owners"][0]["state"], &report["policy_source"]], ["last_good", "policy"]);
    assert!(report["owners"][0]["revision"].is_string());
    assert_eq!(run(&format!("{explain} --format json")).json()["owners"][0]["state"], "unavailable");

    let access = format!("access --policy {policy} --group team-a");
    run(&access).says(3, &["owner   team-a: its document is refused; "]);
    let with = run(&format!("{access} --state-dir state"));
    with.says(0, &["team-a    metrics:read ", "  team (owner team-a, "]);
    assert!(!with.out.contains("owner   team-a: its document"), "{}", with.out);

    // What a new policy would change is compared with what nginx decides by.
    room.write(
        "new.yaml",
        &POLICY.replace("jwks.json", "policy/jwks.json").replace("client-ip", "policy/client-ip"),
    );
    let diff = format!("diff {policy} new.yaml");
    assert_eq!(run(&diff).status, 3);
    run(&format!("{diff} --state-dir state")).says(2, &["lost    team-a  team-a  metrics:read  anywhere "]);
    let replay = format!("replay --policy {policy} audit.jsonl");
    assert_eq!(run(&replay).status, 3);
    run(&format!("{replay} --state-dir state")).says(0, &["1 record: "]);

    // The whole policy.
    room.write("policy/policy.yaml", BROKEN);
    assert_eq!(run(&explain).status, 3);
    let with = run(&format!("{explain} --state-dir state"));
    with.says(0, &[&format!(", revision {revision}\n"), "decision: allow (granted)\n"]);
    let note = "note: the policy is refused, and nginx goes on with the last good version, which is shown\n";
    assert!(with.err.contains("policy/policy.yaml:10:14: ") && with.err.contains(note), "{}", with.err);
    assert_eq!(
        run(&format!("{explain} --state-dir state --format json")).json()["policy_source"],
        "state_dir"
    );

    // A directory that is not there, that holds nothing of this policy, or something unusable.
    run(&format!("{explain} --state-dir nowhere")).complains(
        1,
        "error: cannot read the state directory `nowhere`: no such file or directory (os error 2)\n  help: name the `state_dir` of ",
    );
    fs::create_dir(room.path("empty")).unwrap();
    run(&format!("{explain} --state-dir empty"))
        .complains(1, "error: `empty` holds no last good version of `");
    let kept = fs::read_dir(room.path("state")).unwrap().next().unwrap().unwrap();
    fs::write(kept.path(), "tenantauth policy 2\n").unwrap();
    run(&format!("{explain} --state-dir state"))
        .complains(1, "is not used: it is damaged\n  help: run this as ");
}
