//! A policy with several owners in a real nginx: what one of them does wrong concerns nobody else, and is seen.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::metrics::samples;
use crate::support::client::{Answer, Request};
use crate::support::nginx::Launch;
use crate::support::site::{PLATFORM_FILE, POLICY, Site, directory_module, owner_file};
use crate::support::tokens::token;
use crate::support::wait_for;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a change may take to be in force everywhere.
const IN_FORCE: Duration = Duration::from_secs(5);
const FAST: &str = ", reload_interval = 0.1";

/// Two teams, beside whom the platform gives `tenant1` to `group1` itself.
fn platform() -> String {
    let head = POLICY.replace("@DIR@/jwks.json", "../jwks.json");
    let head = head.split("grants:").next().unwrap().replace(", team-a]", "]");
    format!(
        "{head}networks: {{ office: [127.0.0.0/8] }}\nclient_ip: {{ source: remote_addr }}\nowners:\n  \
         team-a: {{ tenants: [team-a, 'team-a-*'], scopes: ['*:read', 'logs:write'], contact: '#team-a-oncall' }}\n  \
         team-b: {{ tenants: [team-b, 'team-b-*'] }}\n"
    )
}

/// An owner's document that gives one of its tenants to its group.
fn grants(owner: &str, tenant: &str) -> String {
    format!("grants:\n  - {{ name: {owner}-{tenant}, groups: [{owner}], tenants: [{owner}-{tenant}] }}\n")
}

/// Somebody of this group asks for this tenant.
fn ask(site: &Site, group: &str, tenant: &str) -> Answer {
    site.send(query(&[group], tenant))
}

/// What `status()` says of an owner.
fn owner(site: &Site, name: &str) -> Value {
    let status = site.status().json();
    let owners = status["owners"].as_array().unwrap();
    owners
        .iter()
        .find(|owner| owner["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {status}"))
        .clone()
}

/// What the metrics say of an owner.
fn successful(site: &Site, name: &str) -> Option<f64> {
    let series = format!("tenantauth_owner_policy_last_reload_successful{{owner=\"{name}\"}}");
    samples(&site.metrics()).get(&series).copied()
}

/// Waits until these many workers, all there are, decide by one revision other than `before`; returns it.
fn wait_for_other(site: &Site, workers: usize, before: &str) -> String {
    wait_for("other revision in every worker", 10, || {
        let revisions = site.revisions();
        let other = revisions.len() == workers && revisions.iter().all(|one| *one == revisions[0]);
        (other && !revisions[0].is_empty() && revisions[0] != before).then(|| revisions[0].clone())
    })
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What may stand where an owner's document was, how it gets there, and the words for it.
type Ruin = (&'static str, fn(&Path), &'static str);

const RUINS: [Ruin; 15] = [
    ("10 MB", |file| fs::write(file, "# filler\n".repeat(10_000_000 / 9)).unwrap(), "larger than 1 MiB"),
    (
        "more entries than anybody needs",
        |file| fs::write(file, format!("grants:\n{}", "- {}\n".repeat(100_000))).unwrap(),
        "100000 entries are more than 10000",
    ),
    (
        "YAML bomb",
        |file| {
            let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
            for level in 1..12 {
                let below = format!("*a{}, ", level - 1).repeat(9);
                text += &format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", "));
            }
            fs::write(file, text).unwrap();
        },
        "anchors are not supported",
    ),
    ("deep nesting", |file| fs::write(file, "[".repeat(500_000)).unwrap(), "1:"),
    ("invalid UTF-8", |file| fs::write(file, b"grants: [] # \xc3\x28\n").unwrap(), "UTF-8"),
    ("nothing", |file| fs::write(file, "").unwrap(), "the document is empty"),
    (
        "directory",
        |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
        "not a regular file",
    ),
    (
        "no permission",
        |file| fs::set_permissions(file, Permissions::from_mode(0o000)).unwrap(),
        "permission denied",
    ),
    ("no file", |file| fs::remove_file(file).unwrap(), "no such file"),
    (
        "link out of the directory",
        |file| {
            fs::remove_file(file).unwrap();
            symlink("../../client-ip.keys", file).unwrap();
        },
        "it leads out of the directory",
    ),
    (
        "link to another owner's document",
        |file| {
            fs::remove_file(file).unwrap();
            symlink("team-b.yaml", file).unwrap();
        },
        "it leads to `team-b.yaml`, and may lead only to a file of its own name",
    ),
    (
        "link to the platform's document",
        |file| {
            fs::remove_file(file).unwrap();
            symlink("../policy.yaml", file).unwrap();
        },
        "it leads to `policy.yaml`, and may lead only to a file of its own name",
    ),
    (
        "link to itself",
        |file| {
            fs::remove_file(file).unwrap();
            symlink(file, file).unwrap();
        },
        "symbolic links",
    ),
    (
        "FIFO that nobody writes to",
        |file| {
            fs::remove_file(file).unwrap();
            make_fifo(file);
        },
        "not a regular file",
    ),
    (
        "tenant of somebody else",
        |file| fs::write(file, "grants: [{ groups: [team-a], tenants: [team-b] }]\n").unwrap(),
        "`team-b` is not within the owner's tenants",
    ),
];

#[test]
fn whatever_an_owner_does_to_its_document_the_others_go_on() {
    const WORKERS: usize = 2;
    let start = [("team-a", grants("team-a", "x")), ("team-b", grants("team-b", "0"))];
    let start: Vec<(&str, &str)> = start.iter().map(|(owner, text)| (*owner, &**text)).collect();
    let builder = Site::builder().policy_directory(&platform(), &start).workers(WORKERS);
    // No permission stops root.
    let launch = Launch { unprivileged: true, ..Launch::default() };
    let site = builder.launch(launch).module(&directory_module(FAST)).start();
    site.expect_errors();
    let file = site.workspace.path(&owner_file("team-a"));
    let workers = site.nginx().workers();
    let mut revision = wait_for_other(&site, WORKERS, "");
    for (number, (what, ruin, words)) in RUINS.iter().enumerate() {
        ruin(&file);
        // The other one's change is in force all the same, and a change of the platform's would be too.
        let tenant = format!("{}", number + 1);
        site.write_owner("team-b", &grants("team-b", &tenant));
        revision = wait_for_other(&site, WORKERS, &revision);
        for _ in 0..4 {
            assert_allowed(&ask(&site, "team-b", &format!("team-b-{tenant}")));
            assert_denied(&ask(&site, "team-b", &format!("team-b-{number}")), "tenant_forbidden");
            // Its own last good version stays, whatever it has done.
            assert_allowed(&ask(&site, "team-a", "team-a-x"));
            assert_denied(&ask(&site, "team-a", "team-b"), "tenant_forbidden");
            assert_allowed(&ask(&site, "group1", "tenant1"));
        }
        let state = owner(&site, "team-a");
        assert_eq!(
            (&state["state"], &state["contact"]),
            (&json!("last_good"), &json!("#team-a-oncall")),
            "{what}"
        );
        let told: Vec<&str> =
            state["problems"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        let line = told.iter().find(|line| line.contains("owners.d/team-a.yaml") && line.contains(words));
        let line = line.unwrap_or_else(|| panic!("{what}: {told:?}"));
        assert_eq!(
            (successful(&site, "team-a"), successful(&site, "team-b")),
            (Some(0.0), Some(1.0)),
            "{what}"
        );
        assert_eq!(owner(&site, "team-b")["state"], "current");
        // The line of the log has the name, whom to tell, and the place.
        site.wait_for_log(&format!("owner `team-a` (#team-a-oncall): {line}"));
        assert_eq!(site.status().json()["last_reload_successful"], true, "{what}");

        // Repaired, it counts again.
        if file.is_dir() {
            fs::remove_dir(&file).unwrap();
        }
        site.write_owner("team-a", &grants("team-a", "x"));
        wait_for("repaired document", 10, || {
            let repaired =
                owner(&site, "team-a")["state"] == "current" && successful(&site, "team-a") == Some(1.0);
            repaired.then_some(())
        });
    }
    assert_eq!(site.nginx().workers(), workers, "a worker died");
}

#[test]
fn each_owner_is_named_where_somebody_looks() {
    let narrowed = "version: 1\nnetworks: { home: [192.0.2.0/24] }\ngrants:\n  \
        - { name: readers, groups: [team-a], tenants: [team-a, 'team-a-*'], scopes: ['*:read', 'logs:write'] }\n\
        restrictions:\n  - { name: hr-at-home, tenants: [team-a-hr], networks: [home] }\n";
    let site = Site::builder()
        .policy_directory(&platform(), &[("team-a", narrowed)])
        .module(&directory_module(FAST));
    let site = site.workers(2).start();
    site.expect_errors();
    // Documents that nobody is waiting for; what begins with a dot is the file system's.
    site.write_owner("team-c", &grants("team-c", "x"));
    site.write("policy/owners.d/.team-d.yaml", "junk");
    wait_for("word of the undeclared document", 10, || {
        let warnings = site.status().json()["warnings"].to_string();
        warnings.contains("owners.d/team-c.yaml").then_some(warnings)
    });
    let warnings = site.status().json()["warnings"].to_string();
    assert!(!warnings.contains(".team-d"), "{warnings}");
    site.wait_for_log("owners.d/team-c.yaml:1:1: warning: it belongs to no owner of the platform's document");
    // Whichever worker is asked: the other one may take the change a moment later.
    wait_for("the warning in the metrics", 6, || {
        (samples(&site.metrics())["tenantauth_policy_warnings{kind=\"owner_undeclared\"}"] == 1.0)
            .then_some(())
    });
    assert_denied(&ask(&site, "team-c", "team-c-x"), "tenant_forbidden");

    // Who never had a usable version is answered 503, in its bounds alone, whoever asks and before the token counts.
    let state = owner(&site, "team-b");
    assert_eq!((&state["state"], &state["revision"]), (&json!("unavailable"), &Value::Null));
    assert!(state["problems"][0].as_str().unwrap().contains("no such file"), "{state}");
    assert_eq!((successful(&site, "team-a"), successful(&site, "team-b")), (Some(1.0), Some(0.0)));
    site.wait_for_log("owner `team-b`: there is no usable version of its document");
    assert_eq!(site.status().status, 200);
    assert_eq!(Request::get("/status?ready").send(site.port("admin")).status, 200);

    let push =
        Request::new("POST", "/loki/api/v1/push").tenant("team-a").token(&token(&["team-a"])).body("{}");
    let restricted = "ip_forbidden";
    let both = site.send(query(&["team-a", "group1"], "team-a|tenant1"));
    let asked: Vec<(Answer, &str, Value, Value, Value)> = vec![
        (ask(&site, "team-a", "team-a"), "", json!("team-a"), json!("readers"), Value::Null),
        (site.send(push), "", json!("team-a"), json!("readers"), Value::Null),
        (ask(&site, "team-a", "team-a-hr"), restricted, json!("team-a"), Value::Null, json!("hr-at-home")),
        (ask(&site, "group1", "tenant1"), "", Value::Null, json!("authorizations.group1"), Value::Null),
        (ask(&site, "group1", "team-a"), "tenant_forbidden", Value::Null, Value::Null, Value::Null),
        (ask(&site, "group1", "team-b-1"), "policy_unavailable", json!("team-b"), Value::Null, Value::Null),
        (
            site.send(Request::get("/loki/api/v1/labels").tenant("tenant1|team-b")),
            "policy_unavailable",
            json!("team-b"),
            Value::Null,
            Value::Null,
        ),
    ];
    assert_allowed(&both);
    for (answer, reason, ..) in &asked {
        if reason.is_empty() {
            assert_allowed(answer);
        } else {
            assert_denied(answer, reason);
        }
    }
    let records = site.audit(asked.len() + 2);
    for (answer, reason, owner, grant, restriction) in &asked {
        let reason = if reason.is_empty() { "granted" } else { reason };
        let fits = |record: &&Value| {
            record["reason"] == *reason
                && record["owner"] == *owner
                && record["grant"] == *grant
                && record["restriction"] == *restriction
        };
        assert!(
            records.iter().any(|record| fits(&record)),
            "{answer:?}: {owner} {grant} {restriction}\n{records:#?}"
        );
    }
}

#[test]
fn a_restart_with_broken_documents_goes_on_with_the_last_good_ones() {
    const WORKERS: usize = 2;
    let directory = directory_module(&format!("{FAST}, state_dir = \"@DIR@/state\""));
    let (a, b) = (grants("team-a", "x"), grants("team-b", "x"));
    let builder =
        Site::builder().policy_directory(&platform(), &[("team-a", &a), ("team-b", &b)]).workers(WORKERS);
    let launch = Launch { unprivileged: true, ..Launch::default() };
    let mut site = builder.launch(launch).directory("state").module(&directory).start();
    site.expect_errors();
    let first = wait_for_other(&site, WORKERS, "");
    let serves = |site: &Site, tenant_of_b: &str| {
        for _ in 0..8 {
            assert_allowed(&ask(site, "team-a", "team-a-x"));
            assert_allowed(&ask(site, "team-b", tenant_of_b));
            assert_allowed(&ask(site, "group1", "tenant1"));
            assert_denied(&ask(site, "group1", "team-a-x"), "tenant_forbidden");
        }
    };
    serves(&site, "team-b-x");
    // An owner's document that is broken is not the platform's business: not after a crash, a reload or a restart.
    site.write_owner("team-a", "grants: [{ groups: [team-a], tenants: [tenant1] }]\n");
    site.write_owner("team-b", &grants("team-b", "y"));
    let second = wait_for_other(&site, WORKERS, &first);
    let again: [fn(&mut Site); 3] =
        [|site| site.nginx().kill_worker(), |site| site.nginx().reload(), |site| site.restart()];
    for start in again {
        start(&mut site);
        serves(&site, "team-b-y");
        assert_eq!(owner(&site, "team-a")["state"], "last_good");
        assert_eq!((successful(&site, "team-a"), successful(&site, "team-b")), (Some(0.0), Some(1.0)));
        let status = site.status().json();
        assert_eq!(
            (&status["policy_source"], &status["last_reload_successful"]),
            (&json!("policy"), &json!(true))
        );
        assert_eq!(wait_for_other(&site, WORKERS, ""), second);
    }
    // Now the platform's as well.
    site.write(PLATFORM_FILE, "version: 1\ngrants: [");
    site.restart();
    serves(&site, "team-b-y");
    assert_eq!(wait_for_other(&site, WORKERS, ""), second);
    let status = site.status();
    assert_eq!(status.status, 200);
    let status = status.json();
    assert_eq!(
        (&status["policy_source"], &status["last_reload_successful"]),
        (&json!("state_dir"), &json!(false))
    );
    assert!(status["problems"][0].as_str().unwrap().contains("policy.yaml:3:1: "), "{status}");
    assert_eq!(samples(&site.metrics())["tenantauth_policy_last_reload_successful"], 0.0);
    site.wait_for_log(&format!("the policy was refused, the last good revision `{second}` stays in force"));
    // Withdrawn is withdrawn: an empty document is no broken one.
    site.write(PLATFORM_FILE, &platform());
    site.write_owner("team-a", "{}\n");
    wait_for_other(&site, WORKERS, &second);
    assert_denied(&ask(&site, "team-a", "team-a-x"), "tenant_forbidden");
    assert_allowed(&ask(&site, "team-b", "team-b-y"));
    assert_eq!(owner(&site, "team-a")["state"], "current");
}

#[test]
fn a_change_is_in_force_in_every_worker_five_seconds_after_the_last_write() {
    const WORKERS: usize = 4;
    let documents = [("team-a", grants("team-a", "0")), ("team-b", grants("team-b", "0"))];
    let documents: Vec<(&str, &str)> = documents.iter().map(|(owner, text)| (*owner, &**text)).collect();
    // With the interval that everybody has.
    let builder = Site::builder().policy_directory(&platform(), &documents).workers(WORKERS);
    let site = builder.module(&directory_module("")).start();
    let mut revision = wait_for_other(&site, WORKERS, "");
    let mut slowest = Duration::ZERO;
    for round in 1..=6 {
        // One team saves again and again, which must not keep the other waiting.
        let busy = site.workspace.path(&owner_file("team-a"));
        let changed = grants("team-b", &round.to_string());
        site.write_owner("team-b", &changed);
        let written = Instant::now();
        let mut saves = 0;
        let reached = loop {
            if round % 2 == 0 {
                saves += 1;
                fs::write(&busy, format!("{}# {saves}\n", grants("team-a", &saves.to_string()))).unwrap();
            }
            sleep(Duration::from_millis(50));
            if (0..3 * WORKERS).all(|_| ask(&site, "team-b", &format!("team-b-{round}")).status == 200) {
                break written.elapsed();
            }
            assert!(written.elapsed() < IN_FORCE, "not in force after {:?}", written.elapsed());
        };
        let last_write = Instant::now();
        slowest = slowest.max(reached);
        // All of them, and all on the same revision, counted by the metric.
        let label = wait_for("one revision in the metrics", 10, || {
            let samples = samples(&site.metrics());
            let ours: Vec<_> =
                samples.iter().filter(|(series, _)| series.starts_with("tenantauth_workers{")).collect();
            let (series, count) = ours.first().map(|(series, count)| ((*series).clone(), **count)).unwrap();
            let all = f64::from(u8::try_from(WORKERS).unwrap());
            (ours.len() == 1
                && count == all
                && !series.contains(&revision)
                && saves_are_in_force(&site, saves))
            .then_some(series)
        });
        assert!(last_write.elapsed() < IN_FORCE, "{:?} after the last write", last_write.elapsed());
        slowest = slowest.max(last_write.elapsed());
        revision = label.split('"').nth(1).unwrap().to_owned();
    }
    println!("a change was in force in {WORKERS} workers within {slowest:?}");
}

/// The last of so many saved documents decides, if there were any.
fn saves_are_in_force(site: &Site, saves: u32) -> bool {
    saves == 0 || (0..12).all(|_| ask(site, "team-a", &format!("team-a-{saves}")).status == 200)
}

/// All workers read the same document: its author reads the problem once. What comes again later is new.
#[test]
fn a_rejection_is_logged_once_for_all_workers() {
    const REJECTED: &str = "owner `team-a`: its document was refused, the last good version stays in force";
    const PROBLEM: &str = "expected a list, found a number";
    let platform = format!("{POLICY}owners: {{ team-a: {{ tenants: [\"a-*\"] }} }}\n");
    let site = Site::builder()
        .workers(4)
        .module(&directory_module(""))
        .policy_directory(&platform, &[("team-a", "grants: []\n")])
        .start();
    site.expect_errors();
    wait_for("all workers", 10, || (site.revisions().len() == 4).then_some(()));
    let said = |text: &str| site.log().matches(text).count();
    let settled = || sleep(Duration::from_secs(4));
    assert_eq!(said("is in force,"), 1, "{}", site.log());
    for round in 1..=2 {
        site.write_owner("team-a", "grants: 5\n");
        wait_for("the rejection", 8, || (said(REJECTED) == round).then_some(()));
        settled();
        assert_eq!((said(REJECTED), said(PROBLEM)), (round, round), "{}", site.log());
        assert_eq!(owner(&site, "team-a")["state"], "last_good");
        site.write_owner("team-a", "grants: []\n");
        let again = "its document is in force again";
        wait_for("its end", 8, || (said(again) == round).then_some(()));
        settled();
        assert_eq!(said(again), round, "{}", site.log());
    }
    // New workers say what they find, once.
    site.write_owner("team-a", "grants: 5\n");
    wait_for("the rejection", 8, || (said(REJECTED) == 3).then_some(()));
    settled();
    site.nginx().reload();
    wait_for("what new workers say", 8, || (said(PROBLEM) > 3).then_some(()));
    settled();
    assert_eq!(said(PROBLEM), 4, "{}", site.log());
}

/// Without a shared dictionary each speaks for itself.
#[test]
fn without_a_shared_dictionary_each_worker_logs_for_itself() {
    let module = crate::support::site::MODULE.replace("lua_shared_dict tenantauth 10m;", "");
    let site = Site::builder().workers(2).module(&module).start();
    wait_for("both", 10, || (site.log().matches("is in force,").count() == 2).then_some(()));
}
