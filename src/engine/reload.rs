//! The engine's thread: reads the policy, notices changes, compiles, swaps, releases. Touches no Lua.

use super::{Engine, Level, Live, Readiness, lock, unix_now};
use crate::policy::diagnostic::Diagnostic;
use crate::policy::store::{self, Bundle, Fingerprint};
use crate::policy::{Compiled, Outcome};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

/// A change is used after two equal readings this far apart, so that a file is not read while it is written.
pub(super) const SETTLING: Duration = Duration::from_millis(500);
/// The same for a worker's first policy, for which requests wait.
const FIRST_SETTLING: Duration = Duration::from_millis(50);
/// Files are not looked at more often, whatever is configured.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

pub(super) fn spawn(
    engine: &Arc<Engine>,
    retired: mpsc::Receiver<Box<dyn Send>>,
    settling: Duration,
) -> std::io::Result<()> {
    let engine = Arc::downgrade(engine);
    thread::Builder::new().name("tenantauth".into()).spawn(move || run(&engine, &retired, settling))?;
    Ok(())
}

fn run(engine: &Weak<Engine>, retired: &mpsc::Receiver<Box<dyn Send>>, later: Duration) {
    let mut reloader = Reloader::default();
    let mut settling = FIRST_SETTLING;
    loop {
        let Some(strong) = engine.upgrade() else { return };
        if !guarded(&strong, || reloader.look(&strong, settling)) {
            // Still changing: look again soon, but let a stream of changes not keep the thread busy.
            thread::sleep(settling);
            continue;
        }
        settling = later;
        let interval = strong.options.reload_interval.max(LEAST_INTERVAL);
        drop(strong);
        // Released here and not on the event loop; the wait for the next look is the wait for things to release.
        let mut left = interval;
        while !left.is_zero() {
            let started = std::time::Instant::now();
            match retired.recv_timeout(left) {
                Ok(thing) => drop(thing),
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            left = left.saturating_sub(started.elapsed());
        }
        reloader.release();
    }
}

/// Without this a panic would end the thread, and with it every further change of the policy, in silence. What was
/// half done is left as it was: a policy is put in force by its last step.
pub(super) fn guarded(engine: &Engine, look: impl FnOnce() -> bool) -> bool {
    panic::catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| {
        engine.tell(Level::Error, "internal error: a panic while the policy was read".to_owned());
        if engine.live().is_none() {
            engine.set_readiness(Readiness::NoPolicy);
        }
        true
    })
}

#[derive(Default)]
pub(super) struct Reloader {
    /// What the policy last taken or refused was made of.
    judged: Option<Fingerprint>,
    /// It was refused, and another one is in force.
    refused: bool,
    /// The keys of that other one, which follow their files all the same: what a policy's author did wrong must not
    /// keep a withdrawn key alive.
    keys: Option<Fingerprint>,
    /// What the policy in force was made of, with the keys of today.
    bundle: Bundle,
    serial: u32,
    keys_generation: u64,
    /// Policies no longer in force, until no request holds them.
    former: Vec<Arc<Live>>,
}

impl Reloader {
    /// Looks at the files once. False where they are changing right now.
    pub(super) fn look(&mut self, engine: &Engine, settling: Duration) -> bool {
        let is_same = |seen: &Fingerprint| seen.read_again() == *seen;
        if !self.judged.as_ref().is_some_and(is_same) {
            let (outcome, fingerprint, bundle) = store::load(&engine.options.policy, unix_now());
            thread::sleep(settling);
            if !is_same(&fingerprint) {
                return false;
            }
            self.judged = Some(fingerprint);
            self.refused = outcome.compiled.is_none();
            self.keys = None;
            self.judge(engine, outcome, bundle);
        }
        if !self.refused || self.keys.as_ref().is_some_and(is_same) {
            return true;
        }
        let Some(live) = engine.live.load_full() else { return true };
        let (mut keys, mut client_ip) = (live.keys.clone(), live.client_ip.clone());
        let path = &engine.options.policy;
        let mut bundle = self.bundle.clone();
        let (fingerprint, wrong) =
            store::refresh_keys(path, &live.compiled, &mut keys, &mut client_ip, &mut bundle);
        thread::sleep(settling);
        if !is_same(&fingerprint) {
            return false;
        }
        self.keys = Some(fingerprint);
        self.remember(engine, bundle);
        // A file that could not be used leaves its keys as old as they are.
        let keys_read_at = if wrong.is_empty() { unix_now() } else { live.keys_read_at };
        for problem in wrong {
            engine.tell(Level::Error, format!("the keys in force are kept: {problem}"));
        }
        if live.keys != keys {
            engine.tell(Level::Notice, "the keys of the policy in force were replaced".to_owned());
        }
        self.put_in_force(
            engine,
            Live {
                compiled: Arc::clone(&live.compiled),
                keys,
                client_ip,
                keys_read_at,
                warnings: live.warnings.clone(),
                ..*live
            },
        );
        true
    }

    /// Takes a policy, or keeps the one in force and says why.
    fn judge(&mut self, engine: &Engine, outcome: Outcome, bundle: Bundle) {
        let Outcome { compiled, diagnostics } = outcome;
        let Some(compiled) = compiled else {
            for problem in diagnostics.iter().filter(|problem| problem.is_error()) {
                engine.tell(Level::Error, problem.one_line());
            }
            if engine.live().is_none() {
                self.fall_back(engine);
            }
            let in_force = engine.revision();
            engine.tell(
                Level::Error,
                match &in_force {
                    Some(revision) => {
                        format!("the policy was refused, the last good revision `{revision}` stays in force")
                    }
                    None => "the policy was refused and none is in force: every request is denied".to_owned(),
                },
            );
            let mut last = lock(&engine.last_reload);
            last.successful = false;
            last.rejected += 1;
            last.problems =
                diagnostics.iter().filter(|problem| problem.is_error()).map(Diagnostic::one_line).collect();
            if in_force.is_none() {
                engine.set_readiness(Readiness::NoPolicy);
            }
            return;
        };
        for warning in &diagnostics {
            engine.tell(Level::Warn, warning.one_line());
        }
        self.remember(engine, bundle);
        {
            let mut last = lock(&engine.last_reload);
            last.successful = true;
            last.success = Some(unix_now());
            last.accepted += 1;
            last.problems.clear();
        }
        // Last, so that whoever sees the new revision sees the rest as well.
        self.take(engine, compiled, diagnostics);
    }

    /// Keeps what the policy in force was made of, for this worker and for those that come after it.
    fn remember(&mut self, engine: &Engine, bundle: Bundle) {
        *lock(&engine.last_good) = Some(bundle.to_bytes());
        self.bundle = bundle;
    }

    /// A worker that starts while what is on disk is unusable goes on with what its predecessor decided by, and with
    /// the keys of today: one that was withdrawn meanwhile must not come back, not for a moment.
    fn fall_back(&mut self, engine: &Engine) {
        let path = &engine.options.policy;
        let bundle = lock(&engine.fallback).take().and_then(|bytes| Bundle::from_bytes(&bytes));
        let Some(mut bundle) = bundle.filter(|bundle| bundle.is_of(path)) else { return };
        let Outcome { compiled: Some(mut compiled), diagnostics } = bundle.clone().compile(unix_now()) else {
            return;
        };
        let (mut keys, mut client_ip) = (compiled.keys.clone(), compiled.client_ip.clone());
        let (_, wrong) = store::refresh_keys(path, &compiled, &mut keys, &mut client_ip, &mut bundle);
        for problem in wrong {
            engine.tell(Level::Error, format!("the keys in force are kept: {problem}"));
        }
        (compiled.keys, compiled.client_ip) = (keys, client_ip);
        self.remember(engine, bundle);
        self.take(engine, compiled, diagnostics);
    }

    fn take(&mut self, engine: &Engine, compiled: Compiled, warnings: Vec<Diagnostic>) {
        let revision = compiled.snapshot.revision.clone();
        let now = unix_now();
        let (keys, client_ip) = (compiled.keys.clone(), compiled.client_ip.clone());
        let compiled = Arc::new(compiled);
        self.put_in_force(
            engine,
            Live {
                compiled,
                keys,
                client_ip,
                serial: 0,
                keys_generation: 0,
                loaded_at: now,
                keys_read_at: now,
                warnings,
            },
        );
        engine.set_readiness(Readiness::Ready);
        engine.tell(Level::Notice, format!("policy revision `{revision}` is in force"));
    }

    /// Swaps `live` in, under the next serial and the generation that its keys belong to.
    fn put_in_force(&mut self, engine: &Engine, mut live: Live) {
        let before = engine.live.load_full();
        let same_keys = before.as_ref().is_some_and(|before| {
            before.keys == live.keys && before.compiled.snapshot.issuers == live.compiled.snapshot.issuers
        });
        if !same_keys {
            self.keys_generation += 1;
        }
        self.serial += 1;
        live.serial = self.serial;
        live.keys_generation = self.keys_generation;
        self.former.extend(engine.live.swap(Some(Arc::new(live))));
    }

    /// Releases what no request holds any more.
    fn release(&mut self) {
        self.former.retain(|live| Arc::strong_count(live) > 1);
    }
}
