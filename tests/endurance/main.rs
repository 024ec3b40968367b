//! Endurance: good and hostile requests for as long as `MINUTES` says, while policies flip, keys rotate, nginx reloads,
//! logs rotate and workers die. No decision may be wrong, memory must stay flat, no descriptor may leak.
//!
//! Without `MINUTES` it takes twenty seconds, as in `make test`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "everything here is a test"
)]

mod callers;
mod cases;
#[path = "../support/mod.rs"]
mod support;
mod watch;

use callers::{Callers, Truth};
use cases::policy;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::site::{Site, module_with};
use support::tokens::{jwks, key, other_key};
use support::wait_for;
use watch::Watch;

const WORKERS: usize = 2;
/// A change of keys is in force everywhere this long after it was written: the contract's promise.
const PROMISED: Duration = Duration::from_secs(5);

/// `keepalive_requests` stays at nginx's 1000: until a connection ends, nginx keeps 87 bytes of every request with a large
/// header, without us too.
const SERVER: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
access_log @DIR@/audit.jsonl tenantauth_audit buffer=64k flush=1s;
client_header_timeout 5s;
client_body_timeout 5s;
location / { content_by_lua_block { ngx.print("{}") } }
"#;

/// What one run did, for its last line.
#[derive(Debug, Default)]
struct Done {
    flips: u32,
    broken: u32,
    rotations: u32,
    hups: u32,
    kills: u32,
    records: usize,
    /// What nginx said of workers that died, and we of what must not happen.
    alarms: Vec<String>,
}

struct Run {
    site: Site,
    truth: Arc<Truth>,
    known: BTreeSet<String>,
    letter: char,
    keys: usize,
    done: Done,
}

/// The key sets in their turns: one key, both, the other one, both.
const TURNS: [u8; 4] = [1, 3, 2, 3];

impl Run {
    fn wait_for_new_revision(&mut self) {
        let revision = wait_for("new revision in every worker", 20, || {
            let revisions = self.site.revisions();
            let first = revisions.first()?;
            let same = revisions.len() == WORKERS && revisions.iter().all(|one| one == first);
            (same && !first.is_empty() && !self.known.contains(first)).then(|| first.clone())
        });
        self.known.insert(revision);
    }

    fn now_certain(&self) {
        self.truth.set(Some((self.letter, TURNS[self.keys % 4])));
    }

    fn flip(&mut self) {
        self.truth.set(None);
        self.letter = if self.letter == 'a' { 'b' } else { 'a' };
        self.done.flips += 1;
        self.site.write_policy(&policy(self.letter, self.done.flips));
        self.wait_for_new_revision();
        self.now_certain();
    }

    /// A policy that is refused changes nothing, and nothing is uncertain meanwhile.
    fn spoil(&mut self) {
        let good = policy(self.letter, self.done.flips);
        self.site.write_policy(&good.replace("grants:", "grant:"));
        sleep(Duration::from_millis(1500));
        self.site.write_policy(&good);
        self.done.broken += 1;
    }

    fn rotate_keys(&mut self) {
        self.truth.set(None);
        self.keys += 1;
        let set = TURNS[self.keys % 4];
        let keys: Vec<_> = [(1, key()), (2, other_key())]
            .into_iter()
            .filter(|(bit, _)| set & bit != 0)
            .map(|(_, key)| key)
            .collect();
        self.site.write("jwks.json", &jwks(&keys));
        sleep(PROMISED);
        self.done.rotations += 1;
        self.now_certain();
    }

    fn kill(&mut self) {
        self.site.nginx().kill_one_worker(usize::try_from(self.done.kills).unwrap() % WORKERS);
        self.done.kills += 1;
        self.site.nginx().wait_for_workers();
    }

    fn hup(&mut self) {
        self.site.nginx().reload();
        self.done.hups += 1;
    }

    /// Rotates the logs as logrotate does, and reads what was written: records are JSON throughout.
    fn rotate_logs(&mut self) {
        let [audit, errors] = ["audit.jsonl", "error.log"].map(|name| self.site.workspace.path(name));
        let [old_audit, old_errors] = ["audit.1", "error.1"].map(|name| self.site.workspace.path(name));
        fs::rename(&audit, &old_audit).unwrap();
        fs::rename(&errors, &old_errors).unwrap();
        self.site.nginx().signal("USR1");
        wait_for("logs that were opened again", 10, || (audit.exists() && errors.exists()).then_some(()));
        // What the workers had buffered comes with the reopening.
        sleep(Duration::from_millis(500));
        let text = fs::read_to_string(&old_audit).unwrap();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_ne!(record["reason"], "internal_error", "{line}");
            self.done.records += 1;
        }
        // The noise is in it as it came.
        let text = String::from_utf8_lossy(&fs::read(&old_errors).unwrap()).into_owned();
        let alarming = |line: &&str| line.contains("exited on signal") || line.contains("internal error");
        self.done.alarms.extend(text.lines().filter(alarming).map(str::to_owned));
        fs::remove_file(&old_audit).unwrap();
        fs::remove_file(&old_errors).unwrap();
    }
}

#[test]
fn nothing_grows_and_nothing_is_wrong() {
    let minutes: Option<u64> =
        std::env::var("MINUTES").ok().map(|text| text.parse().expect("a number of minutes"));
    let total = minutes.map_or(Duration::from_secs(20), |minutes| Duration::from_secs(minutes * 60));
    // Each ends with a reload of nginx; in its middle one worker is killed, so the other lives through all of it.
    let generations = if minutes.is_some() { 3 } else { 2 };
    let builder = Site::builder().policy(&policy('a', 0)).workers(WORKERS);
    let site = builder.module(&module_with(", reload_interval = 0.1")).server(SERVER).start();
    site.expect_errors();
    let truth = Arc::new(Truth::default());
    let mut run = Run { site, truth, known: BTreeSet::new(), letter: 'a', keys: 0, done: Done::default() };
    run.wait_for_new_revision();
    run.now_certain();
    let callers = Callers::start(run.site.port(""), &run.truth);
    let watch = Watch::start(run.site.nginx());
    let started = Instant::now();
    for generation in 1..=generations {
        let end = total * generation / generations;
        let middle = end - total / generations / 2;
        let mut killed = false;
        for step in 0.. {
            if started.elapsed() >= end {
                break;
            }
            if !killed && started.elapsed() >= middle {
                killed = true;
                run.kill();
            }
            match step % 4 {
                0 => run.flip(),
                1 => run.spoil(),
                2 if minutes.is_some() || generation == 1 => run.rotate_keys(),
                _ => run.rotate_logs(),
            }
            sleep(Duration::from_millis(200));
        }
        watch.end_of_generation();
        if generation < generations {
            run.hup();
        }
    }
    let summary = callers.stop();
    let report = watch.stop();
    run.rotate_logs();
    println!("{:?}\n{summary}\n{report}", run.done);
    assert!(summary.wrong.is_empty(), "{:#?}", summary.wrong);
    // A connection is lost where its worker was killed or ended, and nowhere else.
    let ended = u64::from(run.done.kills * 2 + run.done.hups * 4) * callers::CONNECTIONS;
    assert!(summary.lost <= ended, "{} requests without an answer", summary.lost);
    report.assert_flat(minutes.is_none());
    for alarm in &run.done.alarms {
        assert!(alarm.contains("exited on signal 9"), "{alarm}");
    }
    assert_eq!(run.done.alarms.len(), usize::try_from(run.done.kills).unwrap());
}
