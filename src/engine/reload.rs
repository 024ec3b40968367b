//! The engine's thread: reads the policy, notices changes, compiles, swaps, releases. Touches no Lua.

use super::{Engine, Level, Live, Readiness, lock, unix_now};
use crate::policy::diagnostic::Diagnostic;
use crate::policy::store::{self, Bundle, Fingerprint};
use crate::policy::{Compiled, Outcome};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

/// A change is used after two equal readings this far apart, so that a file is not read while it is written.
const SETTLING: Duration = Duration::from_millis(500);
/// The same for a worker's first policy, for which requests wait.
const FIRST_SETTLING: Duration = Duration::from_millis(50);

pub(super) fn spawn(engine: &Arc<Engine>, retired: mpsc::Receiver<Box<dyn Send>>) -> std::io::Result<()> {
    let engine = Arc::downgrade(engine);
    thread::Builder::new().name("tenantauth".into()).spawn(move || run(&engine, &retired))?;
    Ok(())
}

fn run(engine: &Weak<Engine>, retired: &mpsc::Receiver<Box<dyn Send>>) {
    let mut reloader = Reloader::default();
    let mut settling = FIRST_SETTLING;
    loop {
        let Some(strong) = engine.upgrade() else { return };
        if !reloader.look(&strong, settling) {
            // Still changing: look again soon, but let a stream of changes not keep the thread busy.
            thread::sleep(settling);
            continue;
        }
        settling = SETTLING;
        let interval = strong.options.reload_interval;
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

#[derive(Default)]
pub(super) struct Reloader {
    /// What the policy last taken or refused was made of.
    judged: Option<Fingerprint>,
    serial: u32,
    keys_generation: u64,
    /// Policies no longer in force, until no request holds them.
    former: Vec<Arc<Live>>,
}

impl Reloader {
    /// Looks at the files once. False where they are changing right now.
    pub(super) fn look(&mut self, engine: &Engine, settling: Duration) -> bool {
        if self.judged.as_ref().is_some_and(|judged| judged.read_again() == *judged) {
            return true;
        }
        let (outcome, fingerprint, bundle) = store::load(&engine.options.policy, unix_now());
        thread::sleep(settling);
        if fingerprint.read_again() != fingerprint {
            return false;
        }
        self.judged = Some(fingerprint);
        self.judge(engine, outcome, &bundle);
        true
    }

    /// Takes a policy, or keeps the one in force and says why.
    fn judge(&mut self, engine: &Engine, outcome: Outcome, bundle: &Bundle) {
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
            if in_force.is_none() {
                engine.set_readiness(Readiness::NoPolicy);
            }
            return;
        };
        for warning in &diagnostics {
            engine.tell(Level::Warn, warning.one_line());
        }
        self.take(engine, compiled, diagnostics);
        *lock(&engine.last_good) = Some(bundle.to_bytes());
        let mut last = lock(&engine.last_reload);
        last.successful = true;
        last.success = Some(unix_now());
        last.accepted += 1;
    }

    /// A worker that starts while what is on disk is unusable goes on with what its predecessor decided by.
    fn fall_back(&mut self, engine: &Engine) {
        let Some(bytes) = lock(&engine.fallback).take() else { return };
        let outcome = Bundle::from_bytes(&bytes).map(|bundle| bundle.compile(unix_now()));
        if let Some(Outcome { compiled: Some(compiled), diagnostics }) = outcome {
            self.take(engine, compiled, diagnostics);
        }
    }

    fn take(&mut self, engine: &Engine, compiled: Compiled, warnings: Vec<Diagnostic>) {
        let before = engine.live.load_full();
        let same_keys = before.as_ref().is_some_and(|before| {
            before.compiled.keys == compiled.keys
                && before.compiled.snapshot.issuers == compiled.snapshot.issuers
        });
        if !same_keys {
            self.keys_generation += 1;
        }
        self.serial += 1;
        let now = unix_now();
        let revision = compiled.snapshot.revision.clone();
        let live = Live {
            compiled,
            serial: self.serial,
            keys_generation: self.keys_generation,
            loaded_at: now,
            warnings,
        };
        self.former.extend(engine.live.swap(Some(Arc::new(live))));
        drop(before);
        engine.set_readiness(Readiness::Ready);
        engine.tell(Level::Notice, format!("policy revision `{revision}` is in force"));
    }

    /// Releases what no request holds any more.
    fn release(&mut self) {
        self.former.retain(|live| Arc::strong_count(live) > 1);
    }
}
