//! Two workers over one shared memory, of which one is slow and misses what came and broke.

use super::super::keys::Local;
use super::*;
use crate::policy::store::Bundle;

/// A worker that looks at the files seldom: what comes and goes between two looks it never sees.
const SELDOM: Duration = Duration::from_millis(2500);
const OWNERS: &str = "grants: [{ groups: [a], tenants: [t] }]\nowners: { team-a: { tenants: [u] } }\n";
const NOTHING: &str = "grants: []\n";

fn grant(tenant: &str) -> String {
    format!("grants: [{{ groups: [a], tenants: [{tenant}] }}]\n")
}

struct Pair {
    scratch: Scratch,
    workers: [Arc<Engine>; 2],
    memory: Mutex<Local>,
}

fn worker(scratch: &Scratch, reload_interval: Duration, inherited: Inherited) -> Arc<Engine> {
    let options = Options { reload_interval, ..scratch.options("policy") };
    Engine::start_settling(options, inherited, Duration::from_millis(100)).unwrap()
}

impl Pair {
    fn start() -> Self {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path("policy/owners.d")).unwrap();
        scratch.write("policy/policy.yaml", &policy(OWNERS));
        scratch.write("policy/jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
        scratch.write("policy/owners.d/team-a.yaml", &grant("u"));
        let quick = worker(&scratch, Duration::from_millis(100), Inherited::default());
        let slow = worker(&scratch, SELDOM, Inherited::default());
        let pair = Self { scratch, workers: [quick, slow], memory: Mutex::default() };
        pair.wait_for("both", &[], |pair| {
            pair.workers.iter().all(|worker| worker.readiness() == Readiness::Ready)
        });
        pair
    }

    fn tick(&self, worker: usize) {
        self.workers[worker].share_policy(Some(&mut *lock(&self.memory)));
    }

    /// `ticking`: the workers whose timers run meanwhile.
    fn wait_for(&self, what: &str, ticking: &[usize], is_so: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < 2 * PROMISED, "{what}");
            ticking.iter().for_each(|worker| self.tick(*worker));
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn reason(&self, worker: usize, tenant: &str) -> Reason {
        let good = signed("r", &claims());
        let request = Query { tenant: Some(tenant.as_bytes()), ..query(&good) };
        decided(&self.workers[worker], &loki(), &request, |verdict| verdict.decision.reason())
    }

    fn has_refused(&self, worker: usize) -> bool {
        let engine = &self.workers[worker];
        !engine.gauges().last_reload_successful || engine.status()["owners"][0]["state"] == "last_good"
    }

    /// Withdraws a grant in a version that only the quick worker sees before it breaks.
    fn withdraw_and_break(&self, file: &str, withdrawn: &str, tenant: &str) {
        assert_eq!([self.reason(0, tenant), self.reason(1, tenant)], [Reason::Granted; 2]);
        self.scratch.write(file, withdrawn);
        self.wait_for("the withdrawal", &[], |pair| pair.reason(0, tenant) == Reason::TenantForbidden);
        self.scratch.write(file, "broken\n");
        assert_eq!(self.reason(1, tenant), Reason::Granted, "the slow one was too quick");
    }
}

#[test]
fn a_worker_that_missed_a_version_follows_the_one_that_took_it() {
    let withdrawn = policy(OWNERS).replace("tenants: [t]", "tenants: [t2]");
    let cases: [(&str, &str, &str); 2] =
        [("policy/policy.yaml", &withdrawn, "t"), ("policy/owners.d/team-a.yaml", NOTHING, "u")];
    // Whether the slow one learns of the newer version before it sees the broken one, or afterwards.
    for (file, withdrawn, tenant) in cases {
        for early in [true, false] {
            let pair = Pair::start();
            // What both hold is there first, as it is while nothing happens.
            pair.tick(1);
            pair.tick(0);
            pair.withdraw_and_break(file, withdrawn, tenant);
            let ticking: &[usize] = if early { &[0, 1] } else { &[0] };
            pair.wait_for("the refusal", ticking, |pair| pair.has_refused(1));
            pair.wait_for("the other's policy", &[0, 1], |pair| {
                pair.reason(1, tenant) == Reason::TenantForbidden
            });
            assert_eq!(pair.workers[0].revision(), pair.workers[1].revision(), "{file} {early}");
            // And nothing older takes its place in the memory: a successor goes on with it.
            for _ in 0..3 {
                pair.tick(1);
                pair.tick(0);
                thread::sleep(Duration::from_millis(50));
            }
            let kept = lock(&pair.memory).get(LAST_GOOD);
            let successor = worker(&pair.scratch, SELDOM, Inherited { policy: kept, ..Inherited::default() });
            pair.wait_for("the successor", &[], |_| successor.readiness() == Readiness::Ready);
            assert_eq!(successor.revision(), pair.workers[0].revision(), "{file} {early}");
        }
    }
}

#[test]
fn a_worker_that_has_nothing_takes_what_another_one_has() {
    let pair = Pair::start();
    pair.scratch.write("policy/policy.yaml", "broken\n");
    let late = worker(&pair.scratch, SELDOM, Inherited::default());
    pair.wait_for("the end of loading", &[0], |_| late.readiness() == Readiness::NoPolicy);
    pair.wait_for("the other's policy", &[0], |pair| {
        late.share_policy(Some(&mut *lock(&pair.memory)));
        late.readiness() == Readiness::Ready
    });
    assert_eq!(late.revision(), pair.workers[0].revision());
    assert_eq!(late.status()["policy_source"], "shared_dict");
    let told: Vec<_> = std::iter::from_fn(|| late.next_message()).collect();
    assert!(told.iter().any(|(_, text)| text.contains("this worker follows")), "{told:?}");
}

#[test]
fn what_another_policy_left_is_left_alone() {
    let pair = Pair::start();
    let other = Pair::start();
    pair.tick(0);
    let left = lock(&pair.memory).get(LAST_GOOD);
    for _ in 0..10 {
        other.workers[0].share_policy(Some(&mut *lock(&pair.memory)));
        thread::sleep(Duration::from_millis(30));
    }
    // Theirs is there now, once and for all.
    assert_ne!(lock(&pair.memory).get(LAST_GOOD), left);
    let theirs = lock(&pair.memory).get(LAST_GOOD);
    for _ in 0..10 {
        pair.tick(0);
        thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(lock(&pair.memory).get(LAST_GOOD), theirs);
    assert_eq!([pair.reason(0, "t"), pair.reason(1, "u")], [Reason::Granted; 2]);
}

#[test]
fn what_another_version_left_is_written_anew() {
    let pair = Pair::start();
    {
        let mut memory = lock(&pair.memory);
        memory.set("last_good_id", &[b'0'; 64], None);
        memory.set("last_good", b"in a format of its own", None);
    }
    let kept = |pair: &Pair| lock(&pair.memory).get("last_good").and_then(|bytes| Bundle::from_bytes(&bytes));
    pair.wait_for("a last good policy that can be read", &[0, 1], |pair| kept(pair).is_some());
    assert!(kept(&pair).unwrap().compile(unix_now()).compiled.is_some());
}
