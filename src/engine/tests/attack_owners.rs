//! Documents of owners under attack: what a worker learns from others, and what it reports.

use super::super::keys::Local;
use super::super::state::KeptPolicy;
use super::*;

const SELDOM: Duration = Duration::from_millis(2500);
const NETWORK: &str = "networks: { office: [10.0.0.0/8] }\n";
const OWNERS: &str = "client_ip: { source: remote_addr }\ngrants: [{ groups: [a], tenants: [t] }]\n\
    owners: { team-a: { tenants: [u] }, team-b: { tenants: [v] } }\n";

fn grant(group: &str, tenant: &str) -> String {
    format!("grants: [{{ groups: [{group}], tenants: [{tenant}] }}]\n")
}

fn directory(owners: &str) -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("policy/owners.d")).unwrap();
    scratch.write("policy/policy.yaml", &policy(owners));
    scratch.write("policy/jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
    scratch.write("policy/owners.d/team-a.yaml", "{}\n");
    scratch.write("policy/owners.d/team-b.yaml", &grant("a", "v"));
    scratch
}

fn start(scratch: Scratch, inherited: Inherited) -> Site {
    let engine =
        Engine::start_settling(scratch.options("policy"), inherited, Duration::from_millis(100)).unwrap();
    let site = Site { engine, scratch };
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    site
}

fn worker(scratch: &Scratch, reload_interval: Duration) -> Arc<Engine> {
    let options = Options { reload_interval, ..scratch.options("policy") };
    let engine = Engine::start_settling(options, Inherited::default(), Duration::from_millis(100)).unwrap();
    wait("the policy", || engine.readiness() == Readiness::Ready);
    engine
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < 2 * PROMISED, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn reason_in(engine: &Engine, tenant: &str) -> Reason {
    let good = signed("r", &claims());
    decided(engine, &loki(), &Query { tenant: Some(tenant.as_bytes()), ..query(&good) }, |verdict| {
        verdict.decision.reason()
    })
}

/// A grant that was withdrawn long ago does not come back because the version that withdrew it becomes unusable.
#[test]
fn an_older_version_of_another_worker_does_not_stand_in_for_a_newer_one_that_is_lost() {
    let scratch = directory(&format!("{NETWORK}{OWNERS}"));
    let memory = Mutex::new(Local::default());
    let tick = |worker: &Engine| worker.share_policy(Some(&mut *lock(&memory)));
    let (quick, slow) = (worker(&scratch, Duration::from_millis(100)), worker(&scratch, SELDOM));
    for _ in 0..5 {
        [&slow, &quick].into_iter().for_each(|worker| tick(worker));
        thread::sleep(Duration::from_millis(20));
    }
    // One worker is a moment earlier, as always, and the other one looks at what it took.
    scratch.write("policy/owners.d/team-a.yaml", &grant("a", "u"));
    wait("the first", || reason_in(&quick, "u") == Reason::Granted);
    assert_eq!(reason_in(&slow, "u"), Reason::TenantForbidden);
    for _ in 0..10 {
        [&quick, &slow].into_iter().for_each(|worker| tick(worker));
        thread::sleep(Duration::from_millis(20));
    }
    wait("both", || reason_in(&slow, "u") == Reason::Granted);
    // The grant is withdrawn in both.
    let bound = "restrictions: [{ networks: [office] }]\n";
    scratch.write("policy/owners.d/team-a.yaml", bound);
    wait("the withdrawal", || {
        [&quick, &slow].iter().all(|worker| reason_in(worker, "u") == Reason::TenantForbidden)
    });
    for _ in 0..5 {
        [&quick, &slow].into_iter().for_each(|worker| tick(worker));
        thread::sleep(Duration::from_millis(20));
    }
    // The platform removes a network that the document names, by mistake: it cannot be used any more.
    scratch.write("policy/policy.yaml", &policy(OWNERS));
    let closed = || [&quick, &slow].map(|worker| reason_in(worker, "u")) == [Reason::PolicyUnavailable; 2];
    wait("the mistake", closed);
    // Anything at all changes.
    scratch.write("policy/owners.d/team-b.yaml", "{}\n");
    wait("the other change", || {
        [&quick, &slow].iter().all(|worker| reason_in(worker, "v") == Reason::TenantForbidden)
    });
    assert_eq!(
        [&quick, &slow].map(|worker| reason_in(worker, "u")),
        [Reason::PolicyUnavailable; 2],
        "quick, slow"
    );
}

/// A worker whose version is on disk again is not behind one that has not looked since.
#[test]
fn a_version_that_was_taken_back_is_not_newer_than_what_took_its_place() {
    let scratch = directory(OWNERS);
    let memory = Mutex::new(Local::default());
    let tick = |worker: &Engine| worker.share_policy(Some(&mut *lock(&memory)));
    let own = worker(&scratch, SELDOM);
    assert_eq!(reason_in(&own, "u"), Reason::TenantForbidden);
    // Between two looks a grant is made by mistake; another worker takes it, and is busy from then on.
    scratch.write("policy/owners.d/team-a.yaml", &grant("a", "u"));
    let busy = worker(&scratch, Duration::from_secs(600));
    assert_eq!(reason_in(&busy, "u"), Reason::Granted);
    tick(&busy);
    tick(&busy);
    scratch.write("policy/owners.d/team-a.yaml", "{}\n");
    // This one looks at least once at what is on disk, which is what it has in force.
    thread::sleep(SELDOM + Duration::from_millis(500));
    assert_eq!(reason_in(&own, "u"), Reason::TenantForbidden);
    scratch.write("policy/owners.d/team-a.yaml", "broken\n");
    wait("the refusal", || {
        tick(&own);
        own.status()["owners"][0]["state"] == "last_good"
    });
    for _ in 0..50 {
        tick(&own);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(reason_in(&own, "u"), Reason::TenantForbidden, "it never had the grant in force");
}

/// While a file of keys cannot be used, turns pass all the same.
#[test]
fn a_broken_file_of_keys_lets_no_document_wait_for_ever() {
    let site = start(directory(OWNERS), Inherited::default());
    let of = |engine: &Engine| reason_in(engine, "v");
    assert_eq!(of(&site.engine), Reason::Granted);
    site.scratch.write("policy/jwks.json", "{");
    site.wait_for("the complaint", |site| site.engine.status()["problems"].to_string().contains("jwks.json"));
    // A large document that is refused, and another version of it that is refused for the same reason.
    let filling = "x".repeat(700_000);
    let refused = |n: u32| format!("{}# {n} {filling}\n", grant("a", "elsewhere"));
    site.scratch.write("policy/owners.d/team-a.yaml", &refused(1));
    site.wait_for("the refusal", |site| site.engine.status()["owners"][0]["state"] == "last_good");
    site.scratch.write("policy/owners.d/team-a.yaml", &refused(2));
    thread::sleep(Duration::from_millis(1500));
    // Somebody else withdraws something in a large document.
    site.scratch.write("policy/owners.d/team-b.yaml", &format!("{{}}\n# {filling}\n"));
    thread::sleep(2 * PROMISED);
    assert_eq!(of(&site.engine), Reason::TenantForbidden);
}

/// A document that was refused, and is written again and again, is not in force for that.
#[test]
fn a_refused_document_that_is_written_again_is_not_in_force_again() {
    let site = start(directory(OWNERS), Inherited::default());
    let file = site.scratch.path("policy/owners.d/team-a.yaml");
    site.scratch.write("policy/owners.d/team-a.yaml", &grant("a", "elsewhere"));
    site.wait_for("the refusal", |site| site.engine.status()["owners"][0]["state"] == "last_good");
    site.messages();
    let mut states = Vec::new();
    for number in 0..60 {
        fs::write(&file, format!("{}# {number}\n", grant("a", "elsewhere"))).unwrap();
        thread::sleep(Duration::from_millis(30));
        states.push(site.engine.status()["owners"][0]["state"].clone());
    }
    let again: Vec<_> =
        site.messages().into_iter().map(|(_, text)| text).filter(|text| text.contains("team-a")).collect();
    assert!(again.iter().all(|text| !text.contains("in force again")), "{again:#?}");
    assert!(states.iter().all(|state| state == "last_good"), "{states:?}");
}

/// What one owner's document is complained about does not take the place of what is reported to others.
#[test]
fn one_owners_complaints_displace_no_others() {
    let site = start(directory(OWNERS), Inherited::default());
    site.messages();
    let unknown: String = (0..500).map(|number| format!("k{number}: 1\n")).collect();
    site.scratch.write("policy/owners.d/team-a.yaml", &grant("a", "elsewhere"));
    site.scratch.write("policy/owners.d/team-b.yaml", &unknown);
    site.wait_for("the refusals", |site| {
        [0, 1].iter().all(|owner| site.engine.status()["owners"][owner]["state"] == "last_good")
    });
    thread::sleep(Duration::from_millis(300));
    let errors = site.errors();
    assert!(errors.iter().any(|text| text.contains("`elsewhere` is not within")), "{:#?}", &errors[..3]);
}

/// A worker that starts while the platform's document is broken says what is wrong with owners' documents as well.
#[test]
fn a_refused_document_is_logged_by_a_worker_that_falls_back() {
    let site = start(directory(OWNERS), Inherited::default());
    let bundle = site.last_good();
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy/policy.yaml", "broken\n");
    scratch.write("policy/owners.d/team-a.yaml", "broken\n");
    let site = start(scratch, Inherited { policy: Some(bundle), ..Inherited::default() });
    assert_eq!(site.engine.status()["owners"][0]["state"], "last_good");
    let errors = site.errors();
    assert!(errors.iter().any(|text| text.contains("owner `team-a`")), "{errors:#?}");
}

/// The same with good keys, which holds.
#[test]
fn with_good_keys_no_document_waits_for_one_that_is_refused_again() {
    let site = start(directory(OWNERS), Inherited::default());
    let filling = "x".repeat(700_000);
    let refused = |n: u32| format!("{}# {n} {filling}\n", grant("a", "elsewhere"));
    site.scratch.write("policy/owners.d/team-a.yaml", &refused(1));
    site.wait_for("the refusal", |site| site.engine.status()["owners"][0]["state"] == "last_good");
    site.scratch.write("policy/owners.d/team-a.yaml", &refused(2));
    thread::sleep(Duration::from_millis(1500));
    site.scratch.write("policy/owners.d/team-b.yaml", &format!("{{}}\n# {filling}\n"));
    let took =
        site.wait_for("the withdrawal", |site| reason_in(&site.engine, "v") == Reason::TenantForbidden);
    assert!(took < PROMISED, "{took:?}");
}

/// The same for the platform's document: what it revokes on disk stays revoked.
#[test]
fn a_platforms_document_that_was_taken_back_is_not_newer_than_what_took_its_place() {
    let scratch = directory(OWNERS);
    let revoking = policy(&format!("{OWNERS}revoked: {{ groups: [a] }}\n"));
    scratch.write("policy/policy.yaml", &revoking);
    let memory = Mutex::new(Local::default());
    let tick = |worker: &Engine| worker.share_policy(Some(&mut *lock(&memory)));
    let own = worker(&scratch, SELDOM);
    assert_eq!(reason_in(&own, "t"), Reason::TenantForbidden);
    scratch.write("policy/policy.yaml", &policy(OWNERS));
    let busy = worker(&scratch, Duration::from_secs(600));
    assert_eq!(reason_in(&busy, "t"), Reason::Granted);
    tick(&busy);
    tick(&busy);
    scratch.write("policy/policy.yaml", &revoking);
    thread::sleep(SELDOM + Duration::from_millis(500));
    assert_eq!(reason_in(&own, "t"), Reason::TenantForbidden);
    scratch.write("policy/policy.yaml", "broken\n");
    wait("the refusal", || {
        tick(&own);
        !own.gauges().last_reload_successful
    });
    for _ in 0..50 {
        tick(&own);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(reason_in(&own, "t"), Reason::TenantForbidden, "it never had the revocation lifted");
}

/// An owner that was removed and is named again begins anew in every worker.
#[test]
fn an_owner_that_was_removed_does_not_return_with_its_old_rules() {
    let scratch = directory(OWNERS);
    let memory = Mutex::new(Local::default());
    let tick = |worker: &Engine| worker.share_policy(Some(&mut *lock(&memory)));
    let (quick, slow) = (worker(&scratch, Duration::from_millis(100)), worker(&scratch, SELDOM));
    let both = |tenant: &str| [&quick, &slow].map(|worker| reason_in(worker, tenant));
    let ticks = || {
        for _ in 0..10 {
            [&quick, &slow].into_iter().for_each(|worker| tick(worker));
            thread::sleep(Duration::from_millis(20));
        }
    };
    ticks();
    scratch.write("policy/owners.d/team-a.yaml", &grant("a", "u"));
    wait("the first", || reason_in(&quick, "u") == Reason::Granted);
    ticks();
    wait("both", || both("u") == [Reason::Granted; 2]);
    ticks();
    scratch.write("policy/policy.yaml", &policy(&OWNERS.replace("team-a: { tenants: [u] }, ", "")));
    wait("the removal", || both("u") == [Reason::TenantForbidden; 2]);
    ticks();
    fs::remove_file(scratch.path("policy/owners.d/team-a.yaml")).unwrap();
    scratch.write("policy/policy.yaml", &policy(&OWNERS.replace("[t]", "[t2]")));
    wait("the return", || both("t2") == [Reason::Granted; 2]);
    assert_eq!(both("u"), [Reason::PolicyUnavailable; 2], "quick, slow");
}

/// A clock that was ahead for a moment does not keep an old policy in the state directory.
#[test]
fn what_was_kept_in_the_future_gives_way_to_what_is_kept_now() {
    let scratch = Scratch::new();
    let kept = KeptPolicy::new(&scratch.0, &scratch.path("policy"));
    let now = u64::try_from(since_epoch().as_millis()).unwrap();
    kept.keep(b"before the revocation", now + 365 * 86_400_000).unwrap();
    kept.keep(b"with the revocation", now).unwrap();
    assert_eq!(kept.recall().unwrap().as_deref(), Some(&b"with the revocation"[..]));
}

/// A withdrawal that one worker took reaches the other one also where the platform's document broke before that one looked,
/// and stays where later workers find it.
#[test]
fn a_withdrawal_is_followed_while_the_platforms_document_is_broken() {
    let scratch = directory(OWNERS);
    let memory = Mutex::new(Local::default());
    let tick = |worker: &Engine| worker.share_policy(Some(&mut *lock(&memory)));
    let (quick, slow) = (worker(&scratch, Duration::from_millis(100)), worker(&scratch, SELDOM));
    let both = [&slow, &quick];
    for _ in 0..5 {
        both.iter().for_each(|worker| tick(worker));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(both.map(|worker| reason_in(worker, "v")), [Reason::Granted; 2]);
    scratch.write("policy/owners.d/team-b.yaml", "{}\n");
    wait("the first", || reason_in(&quick, "v") == Reason::TenantForbidden);
    scratch.write("policy/policy.yaml", "broken\n");
    wait("the other one", || {
        both.iter().for_each(|worker| tick(worker));
        reason_in(&slow, "v") == Reason::TenantForbidden
    });
    // A file of keys changes meanwhile.
    scratch.write("policy/jwks.json", &key_set(&[("r", Algorithm::Rs256), ("e", Algorithm::Es256)]));
    for _ in 0..(2 * SELDOM.as_millis() / 50) {
        both.iter().for_each(|worker| tick(worker));
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(both.map(|worker| reason_in(worker, "v")), [Reason::TenantForbidden; 2]);
    let left = lock(&memory).get(LAST_GOOD).unwrap();
    let inherited = Inherited { policy: Some(left), ..Inherited::default() };
    let options = scratch.options("policy");
    let later = Engine::start_settling(options, inherited, Duration::from_millis(100)).unwrap();
    wait("a later worker", || later.readiness() == Readiness::Ready);
    assert_eq!(reason_in(&later, "v"), Reason::TenantForbidden);
}

/// What refuses a document is logged, however much is odd about it.
#[test]
fn errors_are_logged_before_what_is_odd() {
    let site = start(directory(OWNERS), Inherited::default());
    let odd = "- { groups: [a], tenants: [v], expires: 2020-01-01T00:00:00Z }\n".repeat(40);
    site.scratch
        .write("policy/owners.d/team-b.yaml", &format!("grants:\n{odd}- {{ groups: [a], tenants: [x] }}\n"));
    site.wait_for("the refusal", |site| site.engine.status()["owners"][1]["state"] == "last_good");
    let errors = site.errors();
    let named = |part: &str| errors.iter().filter(|line| line.contains(part)).count();
    assert_eq!(named("`x` is not within the owner's tenants"), 1, "{errors:?}");
}
