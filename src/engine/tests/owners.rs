//! Owners' documents on disk: whatever one team does to its file, the others go on.

use super::*;
use crate::policy::OwnerState;
use std::os::unix::fs::symlink;

const OWNERS: &str = "grants: [{ groups: [a], tenants: [t] }]\n\
    owners:\n  team-a: { tenants: [u], contact: '#team-a' }\n  team-b: { tenants: [v] }\n";

/// A grant to group `a` on a tenant.
fn grant(tenant: &str) -> String {
    format!("grants: [{{ groups: [a], tenants: [{tenant}] }}]\n")
}

/// A directory with two owners whose documents are good.
fn directory() -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("policy/owners.d")).unwrap();
    scratch.write("policy/policy.yaml", &policy(OWNERS));
    scratch.write("policy/jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
    scratch.write("policy/owners.d/team-a.yaml", &grant("u"));
    scratch.write("policy/owners.d/team-b.yaml", &grant("v"));
    scratch
}

fn start(scratch: Scratch, inherited: Inherited) -> Site {
    let engine =
        Engine::start_settling(scratch.options("policy"), inherited, Duration::from_millis(100)).unwrap();
    let site = Site { engine, scratch };
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    site
}

impl Site {
    fn reason_of(&self, token: &str, tenant: &str) -> Reason {
        self.reason(&Query { tenant: Some(tenant.as_bytes()), ..query(token) })
    }

    fn owner_state(&self, owner: usize) -> Value {
        self.engine.status()["owners"][owner]["state"].clone()
    }

    fn wait_for_state(&self, owner: usize, state: OwnerState) {
        let took = self.wait_for(state.name(), |site| site.owner_state(owner) == state.name());
        assert!(took < PROMISED, "{took:?}");
    }
}

#[test]
fn one_teams_mistake_is_its_own() {
    let site = start(directory(), Inherited::default());
    let good = signed("r", &claims());
    let file = site.scratch.path("policy/owners.d/team-a.yaml");
    let bomb = format!("grants: &a [{}]\n", "*a, ".repeat(1000));
    let large = format!("# {}\n{}", "x".repeat(10 << 20), grant("u"));
    let many =
        format!("tests:\n{}", "- { groups: [], tenant: u, scope: logs:read, expect: deny }\n".repeat(10_001));
    let mistakes: [(&str, &dyn Fn(), &str); 10] = [
        ("broken", &|| fs::write(&file, "grants: [").unwrap(), "not valid YAML"),
        ("truncated", &|| fs::write(&file, grant("u").trim_end()).unwrap(), "newline"),
        ("too large", &|| fs::write(&file, &large).unwrap(), "larger than 1 MiB"),
        ("a bomb", &|| fs::write(&file, &bomb).unwrap(), "anchors are not supported"),
        ("too many entries", &|| fs::write(&file, &many).unwrap(), "10001 entries are more than 10000"),
        ("no UTF-8", &|| fs::write(&file, b"grants: [\xff]\n").unwrap(), "UTF-8"),
        (
            "beyond its bounds",
            &|| fs::write(&file, grant("v")).unwrap(),
            "`v` is not within the owner's tenants",
        ),
        (
            "a directory",
            &|| {
                fs::remove_file(&file).unwrap();
                fs::create_dir(&file).unwrap();
            },
            "not a regular file",
        ),
        (
            "a link out of the directory",
            &|| {
                fs::remove_dir(&file).unwrap();
                symlink(site.scratch.path("policy.yaml"), &file).unwrap();
            },
            "it leads out of the directory",
        ),
        (
            "a link to another owner's document",
            &|| {
                fs::remove_file(&file).unwrap();
                symlink("team-b.yaml", &file).unwrap();
            },
            "it leads to `team-b.yaml`",
        ),
    ];
    site.scratch.write("policy.yaml", &grant("u"));
    for (number, (what, make, complaint)) in mistakes.into_iter().enumerate() {
        let before = site.engine.revision();
        make();
        // Somebody else's change comes at the same time, and is taken.
        let other = format!("{}# {what}\nnetworks: {{ n{number}: [10.0.0.1] }}\n", grant("v"));
        site.scratch.write("policy/owners.d/team-b.yaml", &other);
        site.wait_for_state(0, OwnerState::LastGood);
        site.wait_for("the other's change", |site| site.engine.revision() != before);
        site.wait_for(complaint, |site| {
            site.engine.status()["owners"][0]["problems"].to_string().contains(complaint)
        });
        for tenant in ["t", "u", "v"] {
            assert_eq!(site.reason_of(&good, tenant), Reason::Granted, "{what}: {tenant}");
        }
        assert_eq!(site.owner_state(1), "current", "{what}");
    }
    let errors = site.errors();
    assert!(errors.iter().any(|text| text.starts_with("owner `team-a` (#team-a): ")), "{errors:?}");
    let owners = site.engine.gauges().owners;
    assert_eq!(owners, [("team-a".to_owned(), false), ("team-b".to_owned(), true)]);
    fs::remove_file(&file).unwrap();
    site.wait_for("the complaint", |site| {
        site.engine.status()["owners"][0]["problems"].to_string().contains("no such file")
    });
    assert_eq!(site.reason_of(&good, "u"), Reason::Granted, "a missing file is a broken one");
    // Empty, it withdraws; repaired, it grants.
    site.scratch.write("policy/owners.d/team-a.yaml", "{}\n");
    site.wait_for_state(0, OwnerState::Current);
    assert_eq!(site.reason_of(&good, "u"), Reason::TenantForbidden);
    site.scratch.write("policy/owners.d/team-a.yaml", &grant("u"));
    site.wait_for("the grant", |site| site.reason_of(&good, "u") == Reason::Granted);
    site.wait_for("the word", |site| {
        site.messages().iter().any(|(_, text)| text == "owner `team-a`: its document is in force again")
    });
}

/// Neither another owner's document nor the platform's is ever read as this owner's, and nothing in it is reported to it.
#[test]
fn a_link_elsewhere_reports_nothing_of_what_is_there() {
    let site = start(directory(), Inherited::default());
    let file = site.scratch.path("policy/owners.d/team-a.yaml");
    for target in ["team-b.yaml", "../policy.yaml", "../jwks.json"] {
        fs::remove_file(&file).unwrap();
        symlink(target, &file).unwrap();
        let name = target.trim_start_matches("../");
        let complaint = format!("it leads to `{name}`, and may lead only to a file of its own name");
        site.wait_for(target, |site| {
            site.engine.status()["owners"][0]["problems"].to_string().contains(&complaint)
        });
        let problems = site.engine.status()["owners"][0]["problems"].clone();
        assert_eq!(problems.as_array().unwrap().len(), 1, "{problems}");
        assert_eq!(
            site.reason_of(&signed("r", &claims()), "u"),
            Reason::Granted,
            "its last good version stays"
        );
    }
}

#[test]
fn a_file_that_is_never_finished_keeps_nobody_waiting() {
    let site = start(directory(), Inherited::default());
    let good = signed("r", &claims());
    let file = site.scratch.path("policy/owners.d/team-a.yaml");
    let stop = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) == 1 {
                    return;
                }
                fs::write(&file, format!("{}# {number}\n", grant("u"))).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        site.scratch.write("policy/owners.d/team-b.yaml", "{}\n");
        let took =
            site.wait_for("the other's change", |site| site.reason_of(&good, "v") == Reason::TenantForbidden);
        let platform = policy(OWNERS).replace("tenants: [t]", "tenants: [t2]");
        site.scratch.write("policy/policy.yaml", &platform);
        let later = site
            .wait_for("the platform's change", |site| site.reason_of(&good, "t") == Reason::TenantForbidden);
        assert_eq!(site.reason_of(&good, "u"), Reason::Granted);
        stop.store(1, Ordering::Relaxed);
        assert!(took < PROMISED && later < PROMISED, "{took:?} {later:?}");
    });
}

#[test]
fn owners_keep_their_last_good_version_through_successors() {
    let site = start(directory(), Inherited::default());
    let good = signed("r", &claims());
    assert_eq!(site.reason_of(&good, "u"), Reason::Granted);
    let bundle = site.last_good();
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy/owners.d/team-a.yaml", "broken\n");
    let site = start(scratch, Inherited { policy: Some(bundle.clone()), ..Inherited::default() });
    assert_eq!([site.owner_state(0), site.owner_state(1)], ["last_good", "current"]);
    assert_eq!(site.reason_of(&good, "u"), Reason::Granted);
    // A broken platform keeps everything as it was.
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy/policy.yaml", "broken\n");
    scratch.write("policy/owners.d/team-b.yaml", "{}\n");
    let site = start(scratch, Inherited { policy: Some(bundle), ..Inherited::default() });
    for tenant in ["t", "u", "v"] {
        assert_eq!(site.reason_of(&good, tenant), Reason::Granted, "{tenant}");
    }
    assert_eq!(site.engine.status()["policy_source"], "shared_dict");
    // Theirs is kept. A complaint is about the one that is broken itself, as in a worker that knew it before.
    assert_eq!([site.owner_state(0), site.owner_state(1)], ["last_good", "last_good"]);
    let told = |owner: usize| site.engine.status()["owners"][owner]["problems"].as_array().unwrap().len();
    assert_eq!([told(0), told(1)], [1, 0]);
    let good_owners = site.engine.gauges().owners.into_iter().map(|(_, is_good)| is_good);
    assert_eq!(good_owners.collect::<Vec<_>>(), [false, true]);
    // Without anything kept, only the broken owner's tenants are closed, for everybody, before any token is read.
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy/policy.yaml", &policy(OWNERS));
    scratch.write("policy/owners.d/team-b.yaml", &grant("v"));
    let site = start(scratch, Inherited::default());
    assert_eq!(site.owner_state(0), "unavailable");
    assert_eq!([site.reason_of(&good, "t"), site.reason_of(&good, "v")], [Reason::Granted; 2]);
    assert_eq!(site.reason_of(&good, "u"), Reason::PolicyUnavailable);
    assert_eq!(site.reason_of("x", "t|u"), Reason::PolicyUnavailable);
    assert_eq!(site.reason_of("x", "t"), Reason::TokenMalformed);
    let errors = site.errors();
    assert!(
        errors.iter().any(|text| text.contains("there is no usable version of its document")),
        "{errors:?}"
    );
}

#[test]
fn files_of_nobody_are_told_and_have_no_effect() {
    let scratch = directory();
    scratch.write("policy/owners.d/team-c.yaml", &grant("w"));
    let site = start(scratch, Inherited::default());
    let good = signed("r", &claims());
    assert_eq!(site.reason_of(&good, "w"), Reason::TenantForbidden);
    let warnings = site.engine.status()["warnings"].to_string();
    assert!(warnings.contains("team-c.yaml") && warnings.contains("belongs to no owner"), "{warnings}");
    assert_eq!(site.engine.gauges().warnings.get("owner_undeclared"), Some(&1));
    // Declared, it counts; an owner that is removed loses its grants at once.
    let declared = OWNERS.replace("  team-b: { tenants: [v] }\n", "  team-c: { tenants: [w] }\n");
    site.scratch.write("policy/policy.yaml", &policy(&declared));
    let took = site.wait_for("the new owner", |site| site.reason_of(&good, "w") == Reason::Granted);
    assert!(took < PROMISED, "{took:?}");
    assert_eq!(site.reason_of(&good, "v"), Reason::TenantForbidden);
}

#[test]
fn kubernetes_flips_all_documents_at_once() {
    let scratch = Scratch::new();
    for (version, b) in [("1", grant("v")), ("2", "{}\n".to_owned())] {
        fs::create_dir_all(scratch.path(&format!("policy/owners.d/..{version}"))).unwrap();
        scratch.write(&format!("policy/owners.d/..{version}/team-a.yaml"), &grant("u"));
        scratch.write(&format!("policy/owners.d/..{version}/team-b.yaml"), &b);
    }
    scratch.write("policy/policy.yaml", &policy(OWNERS));
    scratch.write("policy/jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
    let data = scratch.path("policy/owners.d/..data");
    symlink("..1", &data).unwrap();
    for name in ["team-a.yaml", "team-b.yaml"] {
        symlink(format!("..data/{name}"), scratch.path(&format!("policy/owners.d/{name}"))).unwrap();
    }
    let site = start(scratch, Inherited::default());
    let good = signed("r", &claims());
    assert_eq!([site.reason_of(&good, "u"), site.reason_of(&good, "v")], [Reason::Granted; 2]);
    let next = site.scratch.path("policy/owners.d/..next");
    symlink("..2", &next).unwrap();
    fs::rename(&next, &data).unwrap();
    let took = site.wait_for("the flip", |site| site.reason_of(&good, "v") == Reason::TenantForbidden);
    assert!(took < PROMISED, "{took:?}");
    assert_eq!(site.reason_of(&good, "u"), Reason::Granted);
}

#[test]
fn a_directory_that_is_swapped_does_not_bring_withdrawn_keys_of_its_parent() {
    let site = start(directory(), Inherited::default());
    let (r, e) = (signed("r", &claims()), signed("e", &claims()));
    assert_eq!(site.reason_of(&r, "t"), Reason::Granted);
    assert_eq!(site.reason_of(&e, "t"), Reason::TokenKeyUnknown);
    // A leftover of the time when the policy was one file: a key that was withdrawn long ago.
    site.scratch.write("jwks.json", &key_set(&[("e", Algorithm::Es256)]));
    fs::rename(site.scratch.path("policy"), site.scratch.path("policy.old")).unwrap();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(site.reason_of(&e, "t"), Reason::TokenKeyUnknown, "{:?}", site.messages());
    assert_eq!(site.reason_of(&r, "t"), Reason::Granted);
}

#[test]
fn a_successor_survives_a_directory_that_is_missing() {
    let site = start(directory(), Inherited::default());
    let bundle = site.last_good();
    let Site { scratch, engine } = site;
    drop(engine);
    fs::rename(scratch.path("policy"), scratch.path("policy.old")).unwrap();
    let inherited = Inherited { policy: Some(bundle), ..Inherited::default() };
    let engine =
        Engine::start_settling(scratch.options("policy"), inherited, Duration::from_millis(100)).unwrap();
    while engine.readiness() == Readiness::Loading {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(engine.readiness(), Readiness::Ready);
}

#[test]
fn files_that_come_and_go_keep_nobody_waiting() {
    let site = start(directory(), Inherited::default());
    let good = signed("r", &claims());
    let dir = site.scratch.path("policy/owners.d");
    let file = dir.join("upload.tmp");
    let stop = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            fs::write(&file, "x").unwrap();
            let mut last = file.clone();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) == 1 {
                    return;
                }
                let next = dir.join(format!("upload-{number}.tmp"));
                fs::rename(&last, &next).unwrap();
                last = next;
                thread::sleep(Duration::from_millis(50));
            }
        });
        let platform = policy(OWNERS).replace("tenants: [t]", "tenants: [t2]");
        site.scratch.write("policy/policy.yaml", &platform);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(8)
            && site.reason_of(&good, "t") != Reason::TenantForbidden
        {
            thread::sleep(Duration::from_millis(20));
        }
        let took = started.elapsed();
        stop.store(1, Ordering::Relaxed);
        assert!(took < PROMISED, "{took:?}");
    });
}

#[test]
fn a_fifo_that_takes_a_files_place_hangs_nobody() {
    let site = start(directory(), Inherited::default());
    let good = signed("r", &claims());
    let dir = site.scratch.path("policy/owners.d");
    let (file, fifo, plain) = (dir.join("team-a.yaml"), dir.join(".fifo"), dir.join(".plain"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fs::write(&plain, grant("u")).unwrap();
    let stop = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while stop.load(Ordering::Relaxed) == 0 {
                for kind in [&fifo, &plain] {
                    let draft = dir.join(".draft");
                    _ = fs::remove_file(&draft);
                    _ = fs::hard_link(kind, &draft);
                    _ = fs::rename(&draft, &file);
                }
            }
        });
        thread::sleep(Duration::from_secs(6));
        stop.store(1, Ordering::Relaxed);
    });
    _ = fs::remove_file(&file);
    fs::write(&file, grant("u")).unwrap();
    let platform = policy(OWNERS).replace("tenants: [t]", "tenants: [t2]");
    site.scratch.write("policy/policy.yaml", &platform);
    thread::sleep(PROMISED);
    assert_eq!(site.reason_of(&good, "t"), Reason::TenantForbidden, "the thread hangs");
}

#[test]
fn a_change_of_issuers_does_not_lift_an_owners_restriction() {
    let scratch = directory();
    let platform = policy(&format!("client_ip: {{ source: remote_addr }}\n{OWNERS}"));
    scratch.write("policy/policy.yaml", &platform);
    scratch.write(
        "policy/owners.d/team-a.yaml",
        "grants: [{ groups: ['*'], tenants: [u] }, { groups: [a], tenants: [u] }]\n\
         restrictions: [{ groups: [a], networks: [198.51.100.0/24] }]\n",
    );
    let site = start(scratch, Inherited::default());
    let good = signed("r", &claims());
    assert_eq!(site.reason_of(&good, "u"), Reason::IpForbidden);
    let before = site.engine.revision();
    // The platform adds an issuer: with two, `a` is nobody's group.
    let second = "issuers:\n- name: kc\n  issuer: https://kc.example\n  audiences: [grafana]\n  jwks_file: jwks.json\n";
    site.scratch.write("policy/policy.yaml", &platform.replace("issuers:\n", second));
    site.wait_for("the change", |site| site.engine.revision() != before);
    let state = site.owner_state(0);
    assert_ne!(site.reason_of(&good, "u"), Reason::Granted, "{state} {:?}", site.messages());
}

#[test]
fn what_is_odd_about_an_owners_document_is_a_warning_everywhere() {
    let scratch = directory();
    let platform = policy(&format!("client_ip: {{ source: remote_addr }}\n{OWNERS}"));
    scratch.write("policy/policy.yaml", &platform);
    let shadow = format!("{}restrictions: [{{ networks: [192.0.2.1], mode: shadow }}]\n", grant("u"));
    scratch.write("policy/owners.d/team-a.yaml", &shadow);
    let site = start(scratch, Inherited::default());
    assert_eq!(site.engine.gauges().warnings.get("shadow_restriction"), Some(&1));
    let warnings = site.engine.status()["warnings"].to_string();
    assert!(warnings.contains("team-a.yaml") && warnings.contains("recorded only"), "{warnings}");
}

#[test]
fn a_directory_that_is_missing_at_a_start_is_made_up_for_by_what_was_kept() {
    let scratch = directory();
    fs::create_dir_all(scratch.path("state")).unwrap();
    let options =
        |scratch: &Scratch| Options { state_dir: Some(scratch.path("state")), ..scratch.options("policy") };
    let settling = Duration::from_millis(100);
    let engine = Engine::start_settling(options(&scratch), Inherited::default(), settling).unwrap();
    while engine.readiness() == Readiness::Loading {
        thread::sleep(Duration::from_millis(1));
    }
    let revision = engine.revision();
    assert!(revision.is_some());
    drop(engine);
    fs::remove_dir_all(scratch.path("policy")).unwrap();
    let engine = Engine::start_settling(options(&scratch), Inherited::default(), settling).unwrap();
    while engine.readiness() == Readiness::Loading {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(engine.revision(), revision);
}

#[test]
fn a_document_cannot_fill_the_memory() {
    let site = start(directory(), Inherited::default());
    let good = signed("r", &claims());
    let many =
        |prefix: &str| (0..400).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>().join(", ");
    let product = format!("grants: [{{ groups: [{}], tenants: [{}] }}]\n", many("g"), many("u"));
    site.scratch.write("policy/owners.d/team-a.yaml", &product.replace("u0,", "u,"));
    site.wait_for_state(0, OwnerState::LastGood);
    let problems = site.engine.status()["owners"][0]["problems"].clone();
    assert!(problems.to_string().contains("160000 pairs of group and tenant"), "{problems}");
    // Nor can what is said about it.
    let unknown: String = (0..5000).map(|number| format!("k{number}: 1\n")).collect();
    site.scratch.write("policy/owners.d/team-a.yaml", &unknown);
    site.wait_for("the other complaints", |site| {
        site.engine.status()["owners"][0]["problems"].to_string().contains("unknown key `k1`")
    });
    let told = site.engine.status()["owners"][0]["problems"].as_array().unwrap().len();
    // The last one says how many there are besides.
    assert_eq!(told, 1001);
    assert_eq!(site.reason_of(&good, "u"), Reason::Granted);
}

/// What an owner wrote goes on as far as the platform still gives it; but whoever starts anew refuses it as a whole, and
/// that must not be learnt from an outage.
#[test]
fn an_owner_whose_bounds_became_narrower_is_told_of() {
    let scratch = directory();
    let wide = "team-a: { tenants: [u, w], contact: '#team-a' }";
    scratch.write(
        "policy/policy.yaml",
        &policy(&OWNERS.replace("team-a: { tenants: [u], contact: '#team-a' }", wide)),
    );
    scratch.write("policy/owners.d/team-a.yaml", "grants: [{ groups: [a], tenants: [u, w] }]\n");
    let site = start(scratch, Inherited::default());
    let good = signed("r", &claims());
    assert_eq!([site.reason_of(&good, "u"), site.reason_of(&good, "w")], [Reason::Granted; 2]);
    site.scratch.write("policy/policy.yaml", &policy(OWNERS));
    site.wait_for_state(0, OwnerState::LastGood);
    assert_eq!(
        [site.reason_of(&good, "u"), site.reason_of(&good, "w")],
        [Reason::Granted, Reason::TenantForbidden]
    );
    let problems = site.engine.status()["owners"][0]["problems"].to_string();
    assert!(problems.contains("`w` is not within the owner's tenants"), "{problems}");
    assert!(site.engine.gauges().owners.contains(&("team-a".to_owned(), false)));
    let errors = site.errors().join("\n");
    assert!(errors.contains("owner `team-a` (#team-a): ") && errors.contains("is not within"), "{errors}");
    // Once it says no more than it may, all is well.
    site.scratch.write("policy/owners.d/team-a.yaml", &grant("u"));
    site.wait_for_state(0, OwnerState::Current);
    assert_eq!(site.reason_of(&good, "u"), Reason::Granted);
}

/// Prometheus takes one sample of a name and forgets the other.
#[test]
fn grants_of_one_name_have_one_expiry() {
    let scratch = directory();
    let at = |day: u8| format!("2031-01-{day:02}T00:00:00Z");
    scratch.write(
        "policy/owners.d/team-a.yaml",
        &format!(
            "grants:\n\
             - {{ name: 'grants[1]', groups: [a], tenants: [u], expires: {} }}\n\
             - {{ groups: [a], tenants: [u], scopes: ['logs:read'], expires: {} }}\n",
            at(9),
            at(3)
        ),
    );
    let site = start(scratch, Inherited::default());
    let expiries = site.engine.gauges().grant_expiries;
    let third: jiff::Timestamp = at(3).parse().unwrap();
    assert_eq!(
        expiries.into_iter().collect::<Vec<_>>(),
        [("team-a/grants[1]".to_owned(), third.as_second().unsigned_abs())]
    );
}

/// Keys are the platform's: one file of them that is broken keeps no owner waiting.
#[test]
fn a_broken_file_of_keys_holds_up_no_owner() {
    let site = start(directory(), Inherited::default());
    let good = signed("r", &claims());
    site.scratch.write("policy/jwks.json", "{");
    site.wait_for("the complaint", |site| site.engine.status()["problems"].to_string().contains("jwks.json"));
    // What is on disk is in force, but for the keys.
    assert_eq!([site.owner_state(0), site.owner_state(1)], ["current", "current"]);
    site.scratch.write("policy/owners.d/team-a.yaml", "{}\n");
    let took = site.wait_for("the withdrawal", |site| site.reason_of(&good, "u") == Reason::TenantForbidden);
    assert!(took < PROMISED, "{took:?}");
    site.scratch.write("policy/owners.d/team-b.yaml", "broken\n");
    site.wait_for_state(1, OwnerState::LastGood);
    assert_eq!(site.reason_of(&good, "v"), Reason::Granted);
    assert_eq!(site.owner_state(0), "current");
    assert!(!site.engine.gauges().last_reload_successful);
    site.scratch.write("policy/jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
    site.wait_for("the repair", |site| site.engine.gauges().last_reload_successful);
}

#[test]
fn what_a_policy_says_neither_ends_nor_reorders_a_log_line() {
    let scratch = directory();
    let contact = r##"contact: "#a\n2027 [emerg] forged\u202E""##;
    scratch.write("policy/policy.yaml", &policy(&OWNERS.replace("contact: '#team-a'", contact)));
    scratch.write("policy/owners.d/team-a.yaml", "grants: 1\n");
    let site = start(scratch, Inherited::default());
    let errors = site.errors();
    let expected = r"owner `team-a` (#a\n2027 [emerg] forged\u{202e}): ";
    assert!(errors.iter().any(|text| text.starts_with(expected)), "{errors:?}");
}

/// What was found of a document while the platform's was broken is not what is found of another version later.
#[test]
fn an_owner_who_takes_back_a_mistake_is_current_once_the_platform_is_repaired() {
    let site = start(directory(), Inherited::default());
    let bundle = site.last_good();
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy/policy.yaml", "broken\n");
    scratch.write("policy/owners.d/team-a.yaml", "broken\n");
    let site = start(scratch, Inherited { policy: Some(bundle), ..Inherited::default() });
    let problems = |site: &Site| site.engine.status()["owners"][0]["problems"].as_array().unwrap().len();
    assert_eq!((site.owner_state(0), problems(&site)), (json!("last_good"), 1));
    site.scratch.write("policy/owners.d/team-a.yaml", &grant("u"));
    site.scratch.write("policy/policy.yaml", &policy(OWNERS));
    site.wait_for("the repair", |site| site.engine.gauges().last_reload_successful);
    site.wait_for_state(0, OwnerState::Current);
    assert_eq!(problems(&site), 0);
}

/// What many owners bring at once is judged one after the other, and whoever changes something else does not wait for it.
#[test]
fn large_documents_keep_nobody_waiting() {
    const LARGE: usize = 10;
    // So that there is one of them in a turn.
    let filling = "x".repeat(600_000);
    let scratch = directory();
    let bounds: String =
        (0..LARGE).map(|n| format!("  large-{n}: {{ tenants: ['large-{n}-*'] }}\n")).collect();
    let platform = |revoked: &str| policy(&format!("{OWNERS}{bounds}{revoked}"));
    scratch.write("policy/policy.yaml", &platform(""));
    for n in 0..LARGE {
        scratch.write(&format!("policy/owners.d/large-{n}.yaml"), "{}\n");
    }
    let site = start(scratch, Inherited::default());
    let good = signed("r", &claims());
    let owners = || site.engine.live().as_deref().unwrap().owners.to_vec();
    let empty = owners()[2].revision.clone();
    let left = || owners().iter().skip(2).filter(|owner| owner.revision == empty).count();
    assert_eq!(left(), LARGE);
    for n in 0..LARGE {
        let tenants: Vec<String> = (0..100).map(|tenant| format!("large-{n}-{tenant}")).collect();
        let tests: String = (0..100)
            .map(|test| {
                let tenants = tenants.join("|");
                format!("- {{ name: n{test}, groups: [a], tenant: '{tenants}', scope: logs:read, expect: allow }}\n")
            })
            .collect();
        let grants = format!("grants: [{{ groups: [a], tenants: ['large-{n}-*'] }}]\n");
        site.scratch.write(
            &format!("policy/owners.d/large-{n}.yaml"),
            &format!("{grants}tests:\n{tests}# {filling}\n"),
        );
    }
    // In the middle of it somebody else changes something, somebody is revoked, and a key is withdrawn.
    site.wait_for("the first of them", |_| left() < LARGE);
    site.scratch.write("policy/owners.d/team-b.yaml", &grant("v").replace("[a]", "[a, b]"));
    let before = owners()[1].revision.clone();
    site.wait_for("another owner's change", |_| owners()[1].revision != before);
    let after_change = left();
    site.scratch.write("policy/policy.yaml", &platform("revoked: { groups: [a] }\n"));
    site.wait_for("a revocation", |site| site.reason_of(&good, "v") == Reason::TenantForbidden);
    let after_revocation = left();
    site.scratch.write("policy/jwks.json", &key_set(&[("e", Algorithm::Es256)]));
    site.wait_for("a withdrawn key", |site| site.reason_of(&good, "v") == Reason::TokenKeyUnknown);
    let after_keys = left();
    assert!(
        after_change > 1 && after_revocation > 1 && after_keys > 0,
        "{after_change} {after_revocation} {after_keys} documents were left"
    );
    // Nothing of what waits is forgotten; their tests are of a group that is revoked now.
    site.wait_for("the others", |_| owners().iter().all(|owner| owner.turns_waited == 0));
    assert!(owners().iter().skip(2).all(|owner| owner.state != OwnerState::Unavailable));
}
