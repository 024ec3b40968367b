//! The engine's thread: reads the policy, notices changes, compiles, swaps, releases. Touches no Lua.

use super::fetched::Fetched;
use super::headers::HeaderNames;
use super::keys::Document;
use super::state::{KeptPolicy, PREFIXES, StateError};
use super::{Engine, Inherited, Legacy, Level, Live, Readiness, lock, since_epoch, unix_now};
use crate::fetch::{Endpoint, FetchError};
use crate::file::{FIRST_SETTLING, remove_drafts};
use crate::policy::diagnostic::Diagnostic;
use crate::policy::store::{self, Bundle, Fingerprint};
use crate::policy::{Compiled, Outcome, OwnerOutcome, OwnerState};
use std::collections::{BTreeSet, HashMap};
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

/// Looks at the files after which a failed write into the state directory is tried again: 20 s with the defaults.
const LOOKS_BETWEEN_WRITES: u32 = 10;

/// What the thread is given to do between its looks at the policy.
pub(super) enum Task {
    /// Release something, which may take a while.
    Release(Box<dyn Send>),
    /// Fetch an issuer's keys.
    Fetch { id: String, endpoint: Endpoint },
    /// Use what was fetched.
    Fetched { id: String, endpoint: Endpoint, answer: Result<Vec<u8>, FetchError> },
    /// Use what another worker fetched.
    Adopt { id: String, document: Arc<Document> },
    /// Use keys no longer: they have become too old.
    Forget { id: String },
    /// Look at what another worker's policy was made of.
    Consider(Vec<u8>),
}

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
        // A panic is not looked at again at once: it would be told twice a second.
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
            reloader.tell_end_of_shadow(&strong, unix_now());
        }
    }
}

/// Whether this is what became of the owners' documents in force.
fn has_owners(engine: &Engine, owners: &[OwnerOutcome]) -> bool {
    let alike = |(own, other): (&OwnerOutcome, &OwnerOutcome)| {
        own.state == other.state && own.diagnostics == other.diagnostics
    };
    engine.live().as_deref().is_some_and(|live| live.owners.iter().zip(owners).all(alike))
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
        engine.tell(Level::Error, format!("internal error: a panic while {what}"));
        if engine.live().is_none() {
            engine.set_readiness(Readiness::NoPolicy);
        }
    }
}

#[derive(Default)]
pub(super) struct Reloader {
    /// What the policy last taken or refused was made of.
    judged: Option<Fingerprint>,
    /// The files are to be looked at without waiting.
    is_overdue: bool,
    /// Documents of owners wait until others were judged.
    documents_wait: bool,
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
    fetched: Fetched,
    /// What a former worker left.
    inherited: Option<Vec<u8>>,
    /// What another worker's policy was made of, where that is newer than what this one knows.
    kept: Option<Bundle>,
    /// Where `bundle` came from, until this worker has a policy of its own.
    legacy: Option<Legacy>,
    /// What was said about files of keys that cannot be used.
    wrong_keys: Vec<String>,
    /// What was said about each owner whose document is not as it should be, and whether it was refused.
    told: HashMap<Box<str>, (bool, Vec<String>)>,
    /// The whole gateway only records, or did so when it was last looked at.
    shadow: bool,
    /// Why the policy could not be kept in the state directory, told once, and when that was tried last.
    not_kept: Option<(StateError, Instant)>,
}

impl Reloader {
    pub(super) fn new(inherited: Inherited) -> Self {
        Self { fetched: Fetched::inherit(&inherited.keys), inherited: inherited.policy, ..Self::default() }
    }

    /// Looks at the files once. False where they are changing right now.
    pub(super) fn look(&mut self, engine: &Engine, settling: Duration) -> bool {
        let waited = std::mem::take(&mut self.documents_wait);
        if waited || !self.judged.as_ref().is_some_and(Fingerprint::is_current) {
            let mut former = self.former_bundle(engine).clone();
            if let Some(kept) = &self.kept {
                former.take_newer_owners(kept);
            }
            let path = &engine.options.policy;
            let live = engine.live.load_full();
            let in_force = live.as_deref().map(Live::in_force);
            let mut loaded = store::load_after(path, unix_now(), &former, in_force, &BTreeSet::new());
            // What is as it was judged before has rested long enough.
            let goes_on = waited && self.judged.as_ref() == Some(&loaded.1);
            if !goes_on {
                thread::sleep(settling);
            }
            let changes = loaded.1.changes();
            if changes.platform {
                self.documents_wait = waited;
                return false;
            }
            if !changes.owners.is_empty() {
                // One team's unfinished file does not keep the others waiting.
                let again = store::load_after(path, unix_now(), &former, in_force, &changes.owners);
                if !again.1.differs_only_in(&loaded.1, &changes.owners) {
                    self.documents_wait = waited;
                    return false;
                }
                loaded = again;
            }
            let (outcome, fingerprint, bundle, wrong_keys) = loaded;
            self.judged = Some(fingerprint);
            self.documents_wait = outcome.owners.iter().any(|owner| owner.turns_waited > 0);
            self.refused = outcome.compiled.is_none();
            self.keys = None;
            self.judge(engine, outcome, bundle, &wrong_keys);
            // The keys of what a worker fell back on may stand in for the file for which it had to.
            if self.refused
                && live.is_none()
                && let Some(live) = engine.live.load_full()
            {
                let in_force = Some(live.in_force());
                let (again, ..) = store::load_after(path, unix_now(), &former, in_force, &changes.owners);
                if again.compiled.is_some() {
                    self.judged = None;
                    return false;
                }
            }
        }
        self.look_at_keys(engine, settling)
    }

    /// Where what is on disk was refused: looks at the keys of the policy in force. False where they are changing.
    fn look_at_keys(&mut self, engine: &Engine, settling: Duration) -> bool {
        if !self.refused || self.keys.as_ref().is_some_and(Fingerprint::is_current) {
            return true;
        }
        let Some(live) = engine.live.load_full() else { return true };
        let (mut keys, mut client_ip) = (live.keys.clone(), live.client_ip.clone());
        let path = &engine.options.policy;
        let mut bundle = self.bundle.clone();
        let (fingerprint, wrong) =
            store::refresh_keys(path, &live.compiled, &mut keys, &mut client_ip, &mut bundle);
        thread::sleep(settling);
        if !fingerprint.is_current() {
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
        self.put_in_force(engine, Live { client_ip, keys_read_at, ..live.with_keys(keys) });
        true
    }

    /// Takes a policy, or keeps the one in force and says why.
    ///
    /// `wrong_keys`: what is wrong with files of keys of a policy that is good but for them.
    fn judge(&mut self, engine: &Engine, outcome: Outcome, bundle: Bundle, wrong_keys: &[Diagnostic]) {
        let Outcome { compiled, diagnostics, owners } = outcome;
        let Some(compiled) = compiled else {
            self.wrong_keys.clear();
            for problem in diagnostics.iter().filter(|problem| problem.is_error()) {
                engine.tell(Level::Error, problem.one_line());
            }
            self.catch_up(engine);
            if engine.live().is_none()
                && let Some(legacy) = self.legacy
            {
                self.fall_back(engine, self.bundle.clone(), legacy);
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
            lock(&engine.last_reload).failed(&diagnostics, false);
            if in_force.is_none() {
                engine.set_readiness(Readiness::NoPolicy);
            }
            return;
        };
        // One file of keys that cannot be used must not hold up what else was changed, a revocation perhaps.
        let told: Vec<String> = wrong_keys.iter().map(Diagnostic::one_line).collect();
        let is_known = told == self.wrong_keys;
        if !told.is_empty() && !is_known {
            for problem in &told {
                engine.tell(Level::Error, problem.clone());
            }
            engine.tell(Level::Error, "the keys in force are kept in place of that file".to_owned());
        }
        self.wrong_keys = told;
        {
            let mut last = lock(&engine.last_reload);
            if wrong_keys.is_empty() {
                last.successful = true;
                last.success = Some(unix_now());
                last.problems.clear();
            } else if !is_known {
                last.failed(wrong_keys, true);
            }
            last.only_keys = !wrong_keys.is_empty();
            last.fallen_back = None;
        }
        let nothing_else_changed =
            !wrong_keys.is_empty() && bundle == self.bundle && has_owners(engine, &owners);
        self.remember(engine, bundle);
        if nothing_else_changed {
            return;
        }
        lock(&engine.last_reload).accepted += 1;
        for warning in &diagnostics {
            engine.tell(Level::Warn, warning.one_line());
        }
        self.tell_of_owners(engine, &owners);
        // A file that could not be used leaves its keys as old as they are.
        let kept_since =
            engine.live().as_deref().filter(|_| !wrong_keys.is_empty()).map(|live| live.keys_read_at);
        // Last, so that whoever sees the new revision sees the rest as well.
        self.take(engine, compiled, diagnostics, owners, kept_since.unwrap_or_else(unix_now));
    }

    /// Keeps what the policy in force was made of, for this worker and for those that come after it.
    fn remember(&mut self, engine: &Engine, bundle: Bundle) {
        if self.bundle != bundle {
            self.keep(engine, &bundle);
        }
        engine.offer(&bundle);
        self.bundle = bundle;
    }

    /// Writes what the policy in force was made of into the state directory.
    fn keep(&mut self, engine: &Engine, bundle: &Bundle) {
        let Some(directory) = engine.options.state_dir.as_deref() else { return };
        let taken_at = u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX);
        let kept = KeptPolicy::new(directory, &engine.options.policy).keep(&bundle.to_bytes(), taken_at);
        match (kept, self.not_kept.take()) {
            (Ok(()), Some(_)) => {
                engine.tell(Level::Notice, "the policy is kept for a restart again".to_owned());
            }
            (Ok(()), None) => {}
            (Err(problem), before) => {
                if before.is_none_or(|(told, _)| told != problem) {
                    engine.tell(Level::Error, format!("the policy is not kept for a restart: {problem}"));
                }
                self.not_kept = Some((problem, Instant::now()));
            }
        }
    }

    /// Tries again what failed a while ago: a disk that was full is not full for ever.
    fn keep_again(&mut self, engine: &Engine) {
        let pause = engine.options.reload_interval.saturating_mul(LOOKS_BETWEEN_WRITES);
        if self.not_kept.as_ref().is_some_and(|(_, tried)| tried.elapsed() >= pause) {
            let bundle = self.bundle.clone();
            self.keep(engine, &bundle);
        }
    }

    /// Looks at what another worker's policy was made of. Where it is newer than this worker's, and what is on disk
    /// cannot be used, it takes the place of this worker's.
    fn consider(&mut self, engine: &Engine, bytes: &[u8]) {
        let kept = Bundle::from_bytes(bytes).filter(|bundle| bundle.is_of(&engine.options.policy));
        let live = engine.live.load_full();
        let any_newer = |kept: &Bundle, is_meant: fn(&OwnerOutcome) -> bool| {
            let mut owners = live.iter().flat_map(|live| live.owners.iter()).filter(|owner| is_meant(owner));
            owners.any(|owner| kept.has_newer_owner(&owner.name, &self.bundle))
        };
        let owner_waits =
            kept.as_ref().is_some_and(|kept| any_newer(kept, |owner| owner.state != OwnerState::Current));
        let is_newer =
            kept.as_ref().is_some_and(|kept| kept.is_newer_than(&self.bundle) || any_newer(kept, |_| true));
        // Workers of another policy may still be there while nginx is reloaded: theirs is left alone.
        let is_older = |kept: &Bundle| live.is_some() && self.bundle.is_newer_than(kept);
        let own = kept.as_ref().is_some_and(is_older).then_some(&self.bundle);
        lock(&engine.sharing).considered(is_newer, own);
        self.kept = kept.filter(|_| is_newer);
        if self.refused {
            self.catch_up(engine);
        } else if owner_waits {
            // Judged once more and at once, with what is newer at hand.
            self.judged = None;
            self.is_overdue = true;
        }
    }

    /// What is on disk cannot be used: takes what another worker took before it broke, if that is newer than what this
    /// worker has.
    fn catch_up(&mut self, engine: &Engine) {
        let Some(mut kept) = self.kept.take_if(|kept| kept.is_newer_than(&self.bundle)) else { return };
        kept.take_newer_files(&self.bundle);
        if self.fall_back(engine, kept, Legacy::SharedDict) {
            engine.tell(
                Level::Warn,
                "another worker had taken a newer policy before it broke: this worker follows".to_owned(),
            );
        }
    }

    /// What the policy before was made of: this worker's, or its predecessors'.
    fn former_bundle(&mut self, engine: &Engine) -> &Bundle {
        if self.bundle == Bundle::default()
            && self.legacy.is_none()
            && let Some((legacy, bundle)) = self.find_legacy(engine)
        {
            self.legacy = Some(legacy);
            self.bundle = bundle;
        }
        &self.bundle
    }

    /// What workers before this one decided by: in the shared dict, or else in the state directory.
    fn find_legacy(&mut self, engine: &Engine) -> Option<(Legacy, Bundle)> {
        let path = &engine.options.policy;
        let read = |bytes: Vec<u8>| Bundle::from_bytes(&bytes).filter(|bundle| bundle.is_of(path));
        if let Some(bundle) = self.inherited.take().and_then(read) {
            return Some((Legacy::SharedDict, bundle));
        }
        let directory = engine.options.state_dir.as_deref()?;
        match KeptPolicy::new(directory, path).recall() {
            // By the clock of another start of the machine, perhaps.
            Ok(kept) => Some((Legacy::StateDir, read(kept?)?.of_before())),
            Err(problem) => {
                engine.tell(Level::Error, problem.to_string());
                None
            }
        }
    }

    /// A worker that has nothing of its own while what is on disk is unusable goes on with what others decided by, and
    /// with the keys of today: one that was withdrawn meanwhile must not come back, not for a moment.
    ///
    /// `bundle`: what that was made of. Returns whether it could be used.
    fn fall_back(&mut self, engine: &Engine, mut bundle: Bundle, legacy: Legacy) -> bool {
        let path = &engine.options.policy;
        let Outcome { compiled: Some(mut compiled), diagnostics, mut owners } = bundle.compile(unix_now())
        else {
            return false;
        };
        // As in a worker that had looked at them before the platform's document broke.
        for found in store::owners_on_disk(path, &bundle, unix_now()) {
            let refused = found.diagnostics.iter().any(Diagnostic::is_error);
            if let Some(owner) = owners.iter_mut().find(|owner| refused && owner.name == found.name) {
                owner.refuse_newest(found.diagnostics);
            }
        }
        let (mut keys, mut client_ip) = (compiled.keys.clone(), compiled.client_ip.clone());
        let (_, wrong) = store::refresh_keys(path, &compiled, &mut keys, &mut client_ip, &mut bundle);
        for problem in wrong {
            engine.tell(Level::Error, format!("the keys in force are kept: {problem}"));
        }
        (compiled.keys, compiled.client_ip) = (keys, client_ip);
        self.remember(engine, bundle);
        lock(&engine.last_reload).fallen_back = Some(legacy);
        // Its keys are looked at again like those of the policy before it.
        self.keys = None;
        self.take(engine, compiled, diagnostics, owners, unix_now());
        true
    }

    /// Says once what is wrong with an owner's document, and what follows from it.
    fn tell_of_owners(&mut self, engine: &Engine, owners: &[OwnerOutcome]) {
        let mut told = HashMap::new();
        for OwnerOutcome { name, contact, state, diagnostics, .. } in owners {
            let problems: Vec<String> = diagnostics.iter().map(Diagnostic::one_line).collect();
            let (was_refused, known) = self.told.remove(name).unzip();
            let was_refused = was_refused.unwrap_or(false);
            if known.as_ref() != Some(&problems) {
                let contact = contact.as_deref().map(|contact| format!(" ({contact})")).unwrap_or_default();
                for problem in diagnostics {
                    let level = if problem.is_error() { Level::Error } else { Level::Warn };
                    engine.tell(level, format!("owner `{name}`{contact}: {}", problem.one_line()));
                }
                match state {
                    OwnerState::Current if was_refused => {
                        engine.tell(Level::Notice, format!("owner `{name}`: its document is in force again"));
                    }
                    OwnerState::Current => {}
                    OwnerState::LastGood => engine.tell(
                        Level::Error,
                        format!("owner `{name}`: its document was refused, the last good version stays in force"),
                    ),
                    OwnerState::Unavailable => engine.tell(
                        Level::Error,
                        format!(
                            "owner `{name}`: there is no usable version of its document: requests for its tenants are \
                             answered 503"
                        ),
                    ),
                }
            }
            if *state != OwnerState::Current || !problems.is_empty() {
                told.insert(name.clone(), (*state != OwnerState::Current, problems));
            }
        }
        self.told = told;
    }

    fn take(
        &mut self,
        engine: &Engine,
        compiled: Compiled,
        warnings: Vec<Diagnostic>,
        owners: Vec<OwnerOutcome>,
        keys_read_at: u64,
    ) {
        let revision = compiled.snapshot.revision.clone();
        let now = unix_now();
        let (mut keys, client_ip) = (compiled.keys.clone(), compiled.client_ip.clone());
        let asked = self.fetched.supply(engine, &compiled, &mut keys, now);
        let header_names = Arc::new(HeaderNames::new(&compiled.snapshot.token_headers, client_ip.as_ref()));
        let compiled = Arc::new(compiled);
        self.put_in_force(
            engine,
            Live {
                compiled,
                keys,
                asked,
                client_ip,
                header_names,
                serial: 0,
                keys_generation: 0,
                loaded_at: now,
                keys_read_at,
                warnings,
                owners: owners.into(),
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

    /// Does one task that has to do with fetched keys.
    fn work(&mut self, engine: &Engine, task: Task) {
        if let Task::Consider(bytes) = task {
            return self.consider(engine, &bytes);
        }
        let Some(live) = engine.live.load_full() else { return };
        let keys = match task {
            Task::Release(thing) => return drop(thing),
            Task::Consider(_) => return,
            Task::Fetch { id, endpoint } => return super::fetched::fetch(engine, id, endpoint),
            Task::Fetched { id, endpoint, answer } => {
                self.fetched.take_answer(engine, &live, &id, &endpoint, answer, unix_now())
            }
            Task::Adopt { id, document } => self.fetched.adopt(engine, &live, &id, document),
            Task::Forget { id } => self.fetched.forget(engine, &live, &id),
        };
        if let Some(keys) = keys {
            self.put_in_force(engine, live.with_keys(keys));
        }
    }

    /// Says when the time has come from which on denials are applied.
    fn tell_end_of_shadow(&mut self, engine: &Engine, now: u64) {
        let live = engine.live();
        let Some(live) = live.as_deref() else { return };
        let is_shadow = live.compiled.snapshot.is_shadow(now);
        if self.shadow && !is_shadow {
            engine.tell(Level::Warn, "shadow mode is over: from now on denials are applied".to_owned());
        }
        self.shadow = is_shadow;
    }

    /// Releases what no request holds any more. Returns whether there was something.
    fn release(&mut self) -> bool {
        let before = self.former.len();
        self.former.retain(|live| Arc::strong_count(live) > 1);
        self.former.len() < before
    }
}
