//! From files to the policy in force: notices changes, has them compiled, swaps, keeps what was good.

use super::fetched::{Fetched, Update};
use super::headers::HeaderNames;
use super::keys::{self, Document, Work};
use super::last_good::{Considered, LastGood, Next, Predecessor};
use super::messages::{Change, Topic};
use super::state::KeptPolicy;
use super::task::{Task, fetch};
use super::{Engine, Inherited, Level, Live, Readiness, lock, since_epoch, unix_now};
use crate::fetch::Endpoint;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::store::{self, Bundle, Fingerprint};
use crate::policy::{Compiled, Outcome, OwnerOutcome, OwnerState};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Looks at the files after which a failed write into the state directory is tried again: 20 s with the defaults.
const LOOKS_BETWEEN_WRITES: u32 = 10;

/// Problems of one owner's document that are logged.
const MAX_LINES: usize = 20;

/// Whether this is what became of the owners' documents in force.
fn has_owners(engine: &Engine, owners: &[OwnerOutcome]) -> bool {
    let is_known = |live: &Live| {
        live.owners.len() == owners.len()
            && live.owners.iter().zip(owners).all(|(own, other)| own.is_as_before(other))
    };
    engine.live().as_deref().is_some_and(is_known)
}

#[derive(Default)]
pub(super) struct Reloader {
    /// What the policy last taken or refused was made of.
    judged: Option<Fingerprint>,
    /// The files are to be looked at without waiting.
    pub(super) is_overdue: bool,
    /// Documents of owners wait until others were judged.
    pub(super) documents_wait: bool,
    /// It was refused, and another one is in force.
    refused: bool,
    /// The keys of that other one, which follow their files all the same: what a policy's author did wrong must not
    /// keep a withdrawn key alive.
    keys: Option<Fingerprint>,
    last_good: LastGood,
    serial: u32,
    keys_generation: u64,
    /// Policies no longer in force, until no request holds them.
    former: Vec<Arc<Live>>,
    fetched: Fetched,
    /// The whole gateway only records, or did so when it was last looked at.
    shadow: bool,
    /// When a write into the state directory failed last.
    not_kept: Option<Instant>,
}

impl Reloader {
    pub(super) fn new(inherited: Inherited) -> Self {
        Self {
            fetched: Fetched::inherit(&inherited.keys),
            last_good: LastGood::inherit(inherited.policy),
            ..Self::default()
        }
    }

    /// Looks at the files once. False where they are changing right now.
    pub(super) fn look(&mut self, engine: &Engine, settling: Duration) -> bool {
        let waited = std::mem::take(&mut self.documents_wait);
        let began = store::uptime();
        let is_current = !waited && self.judged.as_ref().is_some_and(Fingerprint::is_current);
        if let Some(seen) = self.judged.as_ref().filter(|_| is_current) {
            self.last_good.confirm(seen, began);
        } else {
            let former = self.last_good.before(&engine.options.policy, || recall(engine));
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
                let mut again = store::load_after(path, unix_now(), &former, in_force, &changes.owners);
                again.2.keep_times(&loaded.2);
                if !again.1.differs_only_in(&loaded.1, &changes.owners) {
                    self.documents_wait = waited;
                    return false;
                }
                loaded = again;
            }
            let (outcome, fingerprint, bundle, wrong_keys) = loaded;
            self.judged = Some(fingerprint);
            // What is changing has no turn until it rests.
            let waits = |owner: &OwnerOutcome| {
                owner.turns_waited > 0 && !changes.owners.contains(Path::new(&owner.file))
            };
            self.documents_wait = outcome.owners.iter().any(waits);
            self.refused = outcome.compiled.is_none();
            self.keys = None;
            self.accept(engine, outcome, bundle, &wrong_keys);
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
        let mut bundle = self.last_good.bundle().clone();
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
            engine.log(Level::Error, format!("the keys in force are kept: {problem}"));
        }
        if live.keys != keys {
            engine.log(Level::Notice, "the keys of the policy in force were replaced".to_owned());
        }
        self.put_in_force(engine, Live { client_ip, keys_read_at, ..live.with_keys(keys) });
        true
    }

    /// Takes a policy, or keeps the one in force and says why.
    ///
    /// `wrong_keys`: what is wrong with files of keys of a policy that is good but for them.
    fn accept(&mut self, engine: &Engine, outcome: Outcome, bundle: Bundle, wrong_keys: &[Diagnostic]) {
        let Outcome { compiled, diagnostics, owners } = outcome;
        let Some(compiled) = compiled else {
            lock(&engine.messages).retain(|topic| *topic != Topic::KeyFiles);
            for problem in diagnostics.iter().filter(|problem| problem.is_error()) {
                engine.log(Level::Error, problem.one_line());
            }
            self.catch_up(engine);
            if engine.live().is_none()
                && let Some(predecessor) = self.last_good.predecessor()
            {
                self.fall_back(engine, self.last_good.bundle().clone(), predecessor);
            }
            let in_force = engine.revision();
            engine.log(
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
        let mut lines: Vec<_> = wrong_keys.iter().map(|problem| (Level::Error, problem.one_line())).collect();
        if !lines.is_empty() {
            lines.push((Level::Error, "the keys in force are kept in place of that file".to_owned()));
        }
        let is_known = engine.log_state(Topic::KeyFiles, lines) == Change::None;
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
            !wrong_keys.is_empty() && bundle == *self.last_good.bundle() && has_owners(engine, &owners);
        self.remember(engine, bundle);
        self.last_good.forget_newer();
        if nothing_else_changed {
            return;
        }
        lock(&engine.last_reload).accepted += 1;
        for warning in &diagnostics {
            engine.log(Level::Warn, warning.one_line());
        }
        log_owners(engine, &owners);
        // A file that could not be used leaves its keys as old as they are.
        let kept_since =
            engine.live().as_deref().filter(|_| !wrong_keys.is_empty()).map(|live| live.keys_read_at);
        // Last, so that whoever sees the new revision sees the rest as well.
        self.take(engine, compiled, diagnostics, owners, kept_since.unwrap_or_else(unix_now));
    }

    /// Keeps what the policy in force was made of, for this worker and for those that come after it.
    fn remember(&mut self, engine: &Engine, bundle: Bundle) {
        if *self.last_good.bundle() != bundle {
            self.keep(engine, &bundle);
        }
        let id = bundle.id();
        let is_known = lock(&engine.sharing).is_known(&id);
        let bytes = (!is_known).then(|| bundle.to_bytes());
        lock(&engine.sharing).offer(id, bytes);
        self.last_good.replace(bundle);
    }

    /// Writes what the policy in force was made of into the state directory.
    fn keep(&mut self, engine: &Engine, bundle: &Bundle) {
        let Some(directory) = engine.options.state_dir.as_deref() else { return };
        let taken_at = u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX);
        let kept = KeptPolicy::new(directory, &engine.options.policy).keep(&bundle.to_bytes(), taken_at);
        self.not_kept = kept.is_err().then(Instant::now);
        let problem = |problem| (Level::Error, format!("the policy is not kept for a restart: {problem}"));
        let lines = kept.err().map(problem).into_iter().collect();
        if matches!(engine.log_state(Topic::KeptPolicy, lines), Change::Over { .. }) {
            engine.log(Level::Notice, "the policy is kept for a restart again".to_owned());
        }
    }

    /// Tries again what failed a while ago: a disk that was full is not full for ever.
    pub(super) fn keep_again(&mut self, engine: &Engine) {
        let pause = engine.options.reload_interval.saturating_mul(LOOKS_BETWEEN_WRITES);
        if self.not_kept.is_some_and(|tried| tried.elapsed() >= pause) {
            let bundle = self.last_good.bundle().clone();
            self.keep(engine, &bundle);
        }
    }

    /// Looks at what another worker's policy was made of. Where it is newer than this worker's, and what is on disk
    /// cannot be used, it takes the place of this worker's.
    fn consider(&mut self, engine: &Engine, bytes: &[u8]) {
        let theirs = Bundle::from_bytes(bytes).filter(|bundle| bundle.is_of(&engine.options.policy));
        let live = engine.live.load_full();
        let owners = live.as_deref().map(|live| &*live.owners);
        let Considered { next, is_newer, is_older } = self.last_good.consider(theirs, owners, self.refused);
        let own = is_older.then_some(self.last_good.bundle());
        lock(&engine.sharing).considered(is_newer, own);
        match next {
            Next::Nothing => {}
            Next::Adopt => self.catch_up(engine),
            Next::JudgeAgain => {
                self.judged = None;
                self.is_overdue = true;
            }
        }
    }

    /// What is on disk cannot be used: takes what another worker took before it broke.
    fn catch_up(&mut self, engine: &Engine) {
        let Some(newer) = self.last_good.take_newer() else { return };
        if self.fall_back(engine, newer, Predecessor::SharedDict) {
            engine.log(
                Level::Warn,
                "another worker had taken a newer policy before it broke: this worker follows".to_owned(),
            );
        }
    }

    /// A worker that has nothing of its own while what is on disk is unusable goes on with what others decided by, and
    /// with the keys of today: one that was withdrawn meanwhile must not come back, not for a moment.
    ///
    /// `bundle`: what that was made of. Returns whether it could be used.
    fn fall_back(&mut self, engine: &Engine, mut bundle: Bundle, predecessor: Predecessor) -> bool {
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
        log_owners(engine, &owners);
        let (mut keys, mut client_ip) = (compiled.keys.clone(), compiled.client_ip.clone());
        let (_, wrong) = store::refresh_keys(path, &compiled, &mut keys, &mut client_ip, &mut bundle);
        for problem in wrong {
            engine.log(Level::Error, format!("the keys in force are kept: {problem}"));
        }
        (compiled.keys, compiled.client_ip) = (keys, client_ip);
        self.remember(engine, bundle);
        self.last_good.forget_newer();
        lock(&engine.last_reload).fallen_back = Some(predecessor);
        // Its keys are looked at again like those of the policy before it.
        self.keys = None;
        self.take(engine, compiled, diagnostics, owners, unix_now());
        true
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
        let asked = {
            let recall = |endpoint: &Endpoint| recall_keys(engine, endpoint, now);
            self.fetched.supply(&mut lock(&engine.exchange), &compiled, &mut keys, recall, now)
        };
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
        engine.log(Level::Notice, format!("policy revision `{revision}` is in force"));
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

    /// Does one task.
    pub(super) fn work(&mut self, engine: &Engine, task: Task) {
        let task = match task {
            Task::Release(thing) => return drop(thing),
            Task::Consider(bytes) => return self.consider(engine, &bytes),
            Task::Keys(Work::Fetch { id, endpoint }) => return fetch(engine, id, endpoint),
            task => task,
        };
        let Some(live) = engine.live.load_full() else { return };
        let now = unix_now();
        let mut exchange = lock(&engine.exchange);
        let (update, endpoint) = match task {
            Task::Fetched { id, endpoint, answer } => {
                let from = (&*id, &endpoint);
                (self.fetched.take_answer(&mut exchange, &live, from, answer, now), Some(endpoint))
            }
            Task::Keys(Work::Adopt { id, document }) => {
                (self.fetched.adopt(&mut exchange, &live, &id, document), None)
            }
            Task::Keys(Work::Forget { id }) => (self.fetched.forget(&live, &id, now), None),
            Task::Release(_) | Task::Consider(_) | Task::Keys(Work::Fetch { .. }) => return,
        };
        drop(exchange);
        let Update { keys, messages, keep } = update;
        messages.into_iter().for_each(|(level, text)| engine.log(level, text));
        if let (Some(document), Some(endpoint)) = (keep, endpoint) {
            keep_keys(engine, &endpoint, &document);
        }
        if let Some(keys) = keys {
            self.put_in_force(engine, live.with_keys(keys));
        }
    }

    /// Says when the time has come from which on denials are applied.
    pub(super) fn log_end_of_shadow(&mut self, engine: &Engine, now: u64) {
        let live = engine.live();
        let Some(live) = live.as_deref() else { return };
        let is_shadow = live.compiled.snapshot.is_shadow(now);
        if self.shadow && !is_shadow {
            engine.log(Level::Warn, "shadow mode is over: from now on denials are applied".to_owned());
        }
        self.shadow = is_shadow;
    }

    /// Releases what no request holds any more. Returns whether there was something.
    pub(super) fn release(&mut self) -> bool {
        let before = self.former.len();
        self.former.retain(|live| Arc::strong_count(live) > 1);
        self.former.len() < before
    }
}

/// The policy that the state directory keeps.
fn recall(engine: &Engine) -> Option<Vec<u8>> {
    let directory = engine.options.state_dir.as_deref()?;
    KeptPolicy::new(directory, &engine.options.policy).recall().unwrap_or_else(|problem| {
        engine.log(Level::Error, problem.to_string());
        None
    })
}

/// The keys that the state directory keeps of an endpoint.
fn recall_keys(engine: &Engine, endpoint: &Endpoint, now: u64) -> Option<Document> {
    let directory = engine.options.state_dir.as_deref()?;
    keys::state::recall(directory, endpoint, now).unwrap_or_else(|problem| {
        engine.log(Level::Warn, problem.to_string());
        None
    })
}

/// Keeps fetched keys in the state directory.
fn keep_keys(engine: &Engine, endpoint: &Endpoint, document: &Document) {
    let Some(directory) = engine.options.state_dir.as_deref() else { return };
    let problem = |problem| (Level::Error, format!("the keys are not kept for a restart: {problem}"));
    let kept = keys::state::keep(directory, endpoint, document);
    engine.log_state(Topic::KeptKeys, kept.err().map(problem).into_iter().collect());
}

/// Logs what is wrong with owners' documents, and what follows from it.
fn log_owners(engine: &Engine, owners: &[OwnerOutcome]) {
    let names: HashSet<&str> = owners.iter().map(|owner| &*owner.name).collect();
    lock(&engine.messages).retain(|topic| match topic {
        Topic::Owner(name) => names.contains(&**name),
        _ => true,
    });
    for OwnerOutcome { name, contact, state, diagnostics, .. } in owners {
        let contact = contact.as_deref().map(|contact| format!(" ({contact})")).unwrap_or_default();
        let line = |problem: &Diagnostic| {
            let level = if problem.is_error() { Level::Error } else { Level::Warn };
            (level, format!("owner `{name}`{contact}: {}", problem.one_line()))
        };
        // The others are in the status: one owner's lines leave room for those of others. Errors say why.
        let (errors, warnings): (Vec<_>, Vec<_>) = diagnostics.iter().partition(|problem| problem.is_error());
        let more = diagnostics.len().saturating_sub(MAX_LINES);
        let level = if errors.len() > MAX_LINES { Level::Error } else { Level::Warn };
        let mut lines: Vec<_> = errors.into_iter().chain(warnings).take(MAX_LINES).map(line).collect();
        if more > 0 {
            lines.push((level, format!("owner `{name}`{contact}: and {more} more problems")));
        }
        let consequence = match state {
            OwnerState::Current => None,
            OwnerState::LastGood => Some("its document was refused, the last good version stays in force"),
            OwnerState::Unavailable => {
                Some("there is no usable version of its document: requests for its tenants are answered 503")
            }
        };
        lines.extend(consequence.map(|text| (Level::Error, format!("owner `{name}`: {text}"))));
        let is_good = *state == OwnerState::Current;
        if engine.log_state(Topic::Owner(name.clone()), lines).was_error() && is_good {
            engine.log(Level::Notice, format!("owner `{name}`: its document is in force again"));
        }
    }
}
