//! The policy decision point of one worker: where snapshot, keys, caches, decision and record meet.
//!
//! An engine lives as long as its worker. Requests are decided on the worker's event loop, by
//! [`Engine::enforce`], which reads no file and waits for nobody; policies are read, compiled, replaced and
//! released by the engine's own thread (`thread`, `reload`).

mod checks;
mod credential;
mod fetched;
pub(crate) mod headers;
mod keys;
mod last_good;
mod messages;
mod reload;
mod request;
mod rewrite;
mod sharing;
mod state;
mod status;
mod task;
mod thread;
mod verdict;

pub use keys::Shared;
pub use request::{Needs, Request, Server, Upgradable};
pub use rewrite::{Rewrite, Upgrade};
pub use sharing::LAST_GOOD;
pub use verdict::{Verdict, denied_tenant, is_allowed_again, undecided};

use crate::audit::{Clock, Text};
use crate::client_ip::Source;
use crate::client_ip::cache::VerifiedCookieCache;
use crate::client_ip::signature::KeyRing;
use crate::metrics::Gauges;
use crate::policy::diagnostic::{Diagnostic, Severity, WarningKind};
use crate::policy::store::InForce;
use crate::policy::{Compiled, OwnerOutcome, OwnerState};
use crate::token::cache::TokenCache;
use crate::token::keys::KeySet;
use crate::token::service::ServiceTokenCache;
use arc_swap::{ArcSwapOption, Guard};
use credential::{Resolved, ResolvedService};
use headers::HeaderNames;
use keys::Exchange;
use last_good::Predecessor;
pub use messages::Level;
use messages::{Change, Messages, Topic};
pub(crate) use state::last_good_bundle;
pub use state::{StateError, last_good};
pub use status::{of_no_engine, of_stamping};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use task::Task;

/// Tokens that one worker remembers, and the bytes they may take.
const MAX_TOKENS: usize = 4096;
const MAX_TOKEN_BYTES: usize = 24 << 20;

/// What an engine is created with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The policy document, or the directory that holds it.
    pub policy: PathBuf,
    /// How often files are looked at.
    pub reload_interval: Duration,
    /// Where the last good policy and fetched keys are kept over a restart.
    pub state_dir: Option<PathBuf>,
}

/// What an engine takes over from those before it. Holds secrets.
#[derive(Clone, Default)]
pub struct Inherited {
    /// What [`Engine::share_policy`] put under [`LAST_GOOD`], to go on with where the policy on disk is unusable.
    pub policy: Option<Vec<u8>>,
    /// Fetched keys, as [`Engine::exchange`] published them under `jwks:`.
    pub keys: Vec<Vec<u8>>,
}

/// Whether requests can be decided yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Readiness {
    /// The first policy is being read: worth waiting for.
    Loading,
    /// There is none that could be used.
    NoPolicy,
    /// A policy is in force.
    Ready,
}

/// The policy in force, with what a worker derives from it once.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) compiled: Arc<Compiled>,
    /// The keys of each issuer: the policy's, or newer ones where its files have changed and the document that names
    /// them has become unusable.
    keys: Vec<Option<Arc<KeySet>>>,
    /// For each issuer whose keys are fetched: raised where a token named a key that is not among them. Parallel to
    /// `keys`.
    asked: Vec<Option<Arc<AtomicBool>>>,
    /// The source of client addresses, likewise with its newest keys.
    client_ip: Option<Source>,
    /// Which headers it makes the worker look for.
    header_names: Arc<HeaderNames>,
    /// Different for every policy that was ever in force in this worker.
    pub(crate) serial: u32,
    /// Different whenever issuers or keys are: what was verified before has to be verified again.
    keys_generation: u64,
    /// Unix seconds.
    loaded_at: u64,
    /// Unix seconds: when the files of the keys were last read and could be used.
    keys_read_at: u64,
    warnings: Vec<Diagnostic>,
    /// What became of the documents of owners.
    owners: Arc<[OwnerOutcome]>,
}

impl Live {
    fn in_force(&self) -> InForce<'_> {
        let Self { compiled, keys, client_ip, owners, .. } = self;
        InForce { compiled, keys, client_ip: client_ip.as_ref(), owners }
    }

    /// What is odd about the documents in force, those of owners included. A time that has passed since they were read
    /// is told as passed.
    fn warnings(&self, now: u64) -> impl Iterator<Item = Diagnostic> {
        let of_owners = self.owners.iter().flat_map(|owner| &owner.diagnostics);
        let over = self.compiled.snapshot.shadow_until.is_some_and(|until| until <= now);
        self.warnings.iter().chain(of_owners.filter(|problem| !problem.is_error())).cloned().map(
            move |mut warning| {
                if over && warning.severity == Severity::Warning(WarningKind::ShadowMode) {
                    warning.shadow_is_over();
                }
                warning
            },
        )
    }

    /// The id of each key of a signed cookie, and what it is used for.
    fn client_ip_keys(&self) -> Vec<(String, &'static str)> {
        let ring = self.client_ip.as_ref().and_then(Source::signed_cookie);
        ring.into_iter().flat_map(|(_, ring)| ring.uses()).map(|(id, usage)| (id.to_owned(), usage)).collect()
    }

    /// The same policy with other keys of its issuers.
    fn with_keys(&self, keys: Vec<Option<Arc<KeySet>>>) -> Self {
        Self {
            compiled: Arc::clone(&self.compiled),
            keys,
            asked: self.asked.clone(),
            client_ip: self.client_ip.clone(),
            header_names: Arc::clone(&self.header_names),
            warnings: self.warnings.clone(),
            owners: Arc::clone(&self.owners),
            ..*self
        }
    }
}

/// What only the event loop uses. The lock is never contended; it is what makes an engine shareable.
struct Worker {
    tokens: TokenCache<Resolved>,
    services: ServiceTokenCache<ResolvedService>,
    cookies: VerifiedCookieCache,
    record: Text,
    clock: Clock,
}

#[derive(Debug, Default)]
struct LastReload {
    successful: bool,
    /// Unix seconds of the last success.
    success: Option<u64>,
    accepted: u64,
    rejected: u64,
    /// Why the policy on disk is not the one in force, a line each.
    problems: Vec<String>,
    /// What is in force was taken from what a former worker left.
    fallen_back: Option<Predecessor>,
    /// Only a file of keys was refused: the documents on disk are those in force.
    only_keys: bool,
}

impl LastReload {
    /// What is on disk was refused, or only a file of keys in it.
    fn failed(&mut self, problems: &[Diagnostic], only_keys: bool) {
        self.successful = false;
        self.rejected += 1;
        self.problems =
            problems.iter().filter(|problem| problem.is_error()).map(Diagnostic::one_line).collect();
        self.only_keys = only_keys;
    }
}

/// The policy decision point of one worker.
pub struct Engine {
    options: Options,
    live: ArcSwapOption<Live>,
    readiness: AtomicU8,
    worker: Mutex<Worker>,
    messages: Mutex<Messages>,
    /// The keys of the client's address in force when messages were last asked for.
    cookie_keys: Mutex<Option<Arc<KeyRing>>>,
    last_reload: Mutex<LastReload>,
    hash_key: Mutex<Box<[u8]>>,
    /// What the policy in force was made of, on its way to other workers and to those that come after this one.
    sharing: Mutex<sharing::Sharing>,
    /// Issuers whose keys are fetched.
    exchange: Mutex<Exchange>,
    /// What stands in for the shared dict where there is none.
    alone: Mutex<keys::Local>,
    /// Work for the thread.
    inbox: mpsc::Sender<Task>,
}

/// A panic while a lock was held is a denial for its request and nothing more: what the locks guard is whole at
/// every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock, in Unix seconds.
pub fn unix_now() -> u64 {
    since_epoch().as_secs()
}

/// The clock, since the Unix epoch; zero where it stands before that.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Engine {
    /// Creates an engine and starts its thread, which reads the policy at once.
    ///
    /// # Errors
    /// The system's, where no thread can be started.
    pub fn start(options: Options, inherited: Inherited) -> std::io::Result<Arc<Self>> {
        Self::start_settling(options, inherited, crate::file::SETTLING)
    }

    /// `settling`: how long a changed file must rest before it is used.
    fn start_settling(
        options: Options,
        inherited: Inherited,
        settling: Duration,
    ) -> std::io::Result<Arc<Self>> {
        let (engine, inbox) = Self::new(options);
        thread::spawn(&engine, inbox, inherited, settling)?;
        Ok(engine)
    }

    fn new(options: Options) -> (Arc<Self>, mpsc::Receiver<Task>) {
        let (sender, receiver) = mpsc::channel();
        let random = || crate::token::digest::random_key().unwrap_or_default();
        let engine = Arc::new(Self {
            options,
            live: ArcSwapOption::empty(),
            readiness: AtomicU8::new(Readiness::Loading as u8),
            worker: Mutex::new(Worker {
                tokens: TokenCache::new(MAX_TOKENS, MAX_TOKEN_BYTES),
                services: ServiceTokenCache::default(),
                cookies: VerifiedCookieCache::default(),
                record: Text::default(),
                clock: Clock::default(),
            }),
            messages: Mutex::default(),
            cookie_keys: Mutex::default(),
            last_reload: Mutex::default(),
            // Until the workers have agreed on one.
            hash_key: Mutex::new(random().into()),
            sharing: Mutex::default(),
            exchange: Mutex::new(Exchange::new(crate::token::digest::sha256_hex(&random()))),
            alone: Mutex::default(),
            inbox: sender,
        });
        (engine, receiver)
    }

    /// The options it was created with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether requests can be decided yet.
    pub fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Acquire) {
            0 => Readiness::Loading,
            1 => Readiness::NoPolicy,
            _ => Readiness::Ready,
        }
    }

    fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Release);
    }

    /// Sets the key of hashed queries, so that all workers hash alike.
    pub fn set_hash_key(&self, key: &[u8]) {
        *lock(&self.hash_key) = key.into();
    }

    pub(crate) fn live(&self) -> Guard<Option<Arc<Live>>> {
        self.live.load()
    }

    /// Keeps a message until the worker logs it, on one line.
    fn log(&self, level: Level, message: String) {
        lock(&self.messages).log(level, &message);
    }

    /// Something holds from now on, which is logged where it did not hold before.
    fn log_state(&self, topic: Topic, lines: Vec<(Level, String)>) -> Change {
        lock(&self.messages).state(topic, lines)
    }

    /// The oldest message that has not been logged.
    pub fn next_message(&self) -> Option<(Level, String)> {
        self.report_cookie_keys();
        lock(&self.messages).next()
    }

    /// Finds out which keys have to be fetched, and exchanges what was fetched with the other workers. To be called
    /// several times a second, on the event loop.
    ///
    /// `shared`: what all workers see; `None` where there is no such thing, and each worker is on its own. `now`: Unix
    /// seconds.
    pub fn exchange(&self, shared: Option<&mut dyn Shared>, now: u64) {
        let keys::Found { work, problems } = match shared {
            Some(shared) => lock(&self.exchange).poll(shared, now),
            None => lock(&self.exchange).poll(&mut *lock(&self.alone), now),
        };
        problems.into_iter().for_each(|problem| self.log(Level::Warn, problem));
        work.into_iter().for_each(|work| self.send(Task::Keys(work)));
    }

    /// Leaves what the policy in force was made of for other workers, and has the thread look at what they left. To be
    /// called again and again; reads no file.
    ///
    /// `shared`: the memory of all workers, where there is one.
    pub fn share_policy(&self, shared: Option<&mut dyn Shared>) {
        let found = lock(&self.sharing).poll(shared);
        match found {
            sharing::Found::Nothing => {}
            sharing::Found::Theirs(bytes) => self.send(Task::Consider(bytes)),
            sharing::Found::NotKept(problem) => self.log(
                Level::Warn,
                format!("the last good policy cannot be kept for other and later workers: {problem}"),
            ),
        }
    }

    /// Gives the thread something to do. Where it is gone, so is the worker.
    fn send(&self, task: Task) {
        _ = self.inbox.send(task);
    }

    /// One of the samples of metrics that grew since the last call, and by how much.
    pub fn take_counter(&self) -> Option<(String, u64)> {
        lock(&self.exchange).take_counter()
    }

    /// Reports keys of the client's address that took the place of others, whatever brought them.
    fn report_cookie_keys(&self) {
        let live = self.live();
        let found = live.as_deref().and_then(|live| live.client_ip.as_ref()?.signed_cookie());
        let Some((cookie, ring)) = found else { return };
        let before = lock(&self.cookie_keys).replace(Arc::clone(ring));
        let before = before.filter(|before| !Arc::ptr_eq(before, ring));
        if let Some(message) = before.and_then(|before| ring.replacement_of(&before, cookie)) {
            self.log(Level::Notice, message);
        }
    }

    /// The revision of the policy in force.
    pub fn revision(&self) -> Option<String> {
        self.live().as_deref().map(|live| live.compiled.snapshot.revision.to_string())
    }

    /// How many changed policies were taken and how many refused since the last call.
    pub fn take_reload_counts(&self) -> (u64, u64) {
        let mut last = lock(&self.last_reload);
        (std::mem::take(&mut last.accepted), std::mem::take(&mut last.rejected))
    }

    /// How many verified tokens this worker remembers.
    pub fn cache_entries(&self) -> usize {
        lock(&self.worker).tokens.len()
    }

    /// What this worker knows about itself, for metrics.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges { cache_entries: lock(&self.worker).tokens.len(), ..Gauges::default() };
        {
            let last = lock(&self.last_reload);
            gauges.last_reload_successful = last.successful;
            gauges.last_reload_success = last.success;
        }
        if let Some(live) = self.live().as_deref() {
            gauges.client_ip_keys = live.client_ip_keys();
            for warning in live.warnings(unix_now()) {
                if let Severity::Warning(kind) = warning.severity {
                    *gauges.warnings.entry(kind.name()).or_default() += 1;
                }
            }
            let snapshot = &live.compiled.snapshot;
            for issuer in self.issuers(live) {
                gauges.jwks_keys.push((issuer.name.to_string(), issuer.keys));
                if issuer.is_fetched {
                    gauges.fetched_issuers.push(issuer.name.to_string());
                }
                gauges
                    .jwks_last_success
                    .extend(issuer.last_success.map(|time| (issuer.name.to_string(), time)));
            }
            // Two grants may be called the same, an owner's and the platform's: the name stands for the first to expire.
            for grant in &snapshot.grants {
                let Some(expires) = grant.expires else { continue };
                let owner = snapshot.owner_name(grant.owner);
                let name =
                    owner.map_or_else(|| grant.name.to_string(), |owner| format!("{owner}/{}", grant.name));
                let first = gauges.grant_expiries.entry(name).or_insert(expires);
                *first = expires.min(*first);
            }
            gauges.owners = live
                .owners
                .iter()
                .map(|owner| (owner.name.to_string(), owner.state == OwnerState::Current))
                .collect();
        }
        gauges
    }
}

/// Unix seconds in RFC 3339.
fn timestamp(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests;
