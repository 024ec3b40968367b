//! The engine's thread: looks at files again and again, and does what comes between. Touches no Lua.

use super::reload::Reloader;
use super::state::PREFIXES;
use super::task::Task;
use super::{Engine, Inherited, Level, Readiness, unix_now};
use crate::file::{FIRST_SETTLING, remove_drafts};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Files are not looked at more often, whatever is configured.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);
/// A look at the files that takes longer has read or compiled something large.
const QUICK: Duration = Duration::from_millis(20);
/// How long afterwards what it took in memory is given back. mimalloc keeps a second what was freed.
const TIDY: Duration = Duration::from_millis(1100);

pub(super) fn spawn(
    engine: &Arc<Engine>,
    inbox: mpsc::Receiver<Task>,
    inherited: Inherited,
    settling: Duration,
) -> std::io::Result<()> {
    let engine = Arc::downgrade(engine);
    thread::Builder::new()
        .name("tenantauth".into())
        .spawn(move || run(&engine, &inbox, inherited, settling))?;
    Ok(())
}

fn run(engine: &Weak<Engine>, inbox: &mpsc::Receiver<Task>, inherited: Inherited, later: Duration) {
    let mut reloader = Reloader::new(inherited);
    if let Some(directory) = engine.upgrade().and_then(|engine| engine.options.state_dir.clone()) {
        remove_drafts(&directory, &PREFIXES);
    }
    let mut settling = FIRST_SETTLING;
    // When to give memory back, where some is to be expected.
    let mut tidy: Option<Instant> = None;
    loop {
        let Some(strong) = engine.upgrade() else { return };
        let began = Instant::now();
        // What panicked is not looked at again at once: it would be logged twice a second.
        let mut settled = true;
        guarded(&strong, "the policy was read", || settled = reloader.look(&strong, settling));
        let wait = if reloader.documents_wait {
            // What others ask for meanwhile is done first: keys, and what has changed on disk.
            settling = later;
            Duration::ZERO
        } else if settled {
            settling = later;
            strong.options.reload_interval.max(LEAST_INTERVAL)
        } else {
            // Still changing: look again soon, but let a stream of changes not keep the thread busy.
            settling
        };
        drop(strong);
        if began.elapsed() > QUICK {
            tidy = Some(Instant::now() + TIDY);
        }
        // The wait for the next look is the wait for other work.
        let until = Instant::now() + wait;
        loop {
            let next = tidy.map_or(until, |tidy| tidy.min(until));
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                // Released here and not on the event loop.
                Ok(Task::Release(thing)) => drop(thing),
                Ok(task) => {
                    let Some(strong) = engine.upgrade() else { return };
                    guarded(&strong, "keys were taken over", || reloader.work(&strong, task));
                    if std::mem::take(&mut reloader.is_overdue) {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if tidy.is_some_and(|tidy| tidy <= Instant::now()) {
                        give_back();
                        tidy = None;
                    }
                    if until <= Instant::now() {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
        if reloader.release() {
            tidy = Some(Instant::now() + TIDY);
        }
        if let Some(strong) = engine.upgrade() {
            reloader.keep_again(&strong);
        }
        if let Some(strong) = engine.upgrade() {
            reloader.log_end_of_shadow(&strong, unix_now());
        }
    }
}

/// Makes mimalloc give back to the system what was freed a while ago: it looks for that when a large block is freed, and
/// after a policy was compiled that can be long. The block itself is never touched, and may be refused.
fn give_back() {
    #[cfg(feature = "allocator")]
    {
        let mut block = Vec::<u8>::new();
        _ = std::hint::black_box(block.try_reserve_exact(4 << 20));
        drop(std::hint::black_box(block));
    }
}

/// Without this a panic would end the thread, and with it every further change of the policy, in silence. What was
/// half done is left as it was: a policy is put in force by its last step.
pub(super) fn guarded(engine: &Engine, what: &str, work: impl FnOnce()) {
    if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
        engine.log(Level::Error, format!("internal error: a panic while {what}"));
        if engine.live().is_none() {
            engine.set_readiness(Readiness::NoPolicy);
        }
    }
}
