//! Fetched keys on the engine's thread: fetching, judging, putting in force, keeping for a restart.

use super::keys::{Document, state};
use super::reload::Task;
use super::state::StateError;
use super::{Engine, Level, Live, lock};
use crate::fetch::{Endpoint, FetchError};
use crate::policy::Compiled;
use crate::text::one_line_of;
use crate::token::algorithm::AlgorithmSet;
use crate::token::jwks::{InvalidJwks, KeyReport, MAX_SHOWN};
use crate::token::keys::KeySet;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use thiserror::Error;

/// Kids that a message names; it says that there are more.
const MAX_NAMED: usize = 10;

/// The key sets that were fetched, of this worker's issuers and of those of policies before.
#[derive(Default)]
pub(super) struct Fetched {
    documents: HashMap<String, Arc<Document>>,
    /// What former workers left, not yet asked for.
    inherited: Vec<Document>,
    /// The last problem with the state directory, told once.
    told: Option<StateError>,
}

/// Starts the fetch on a thread of its own: it may take as long as it is allowed to, and policies go on changing.
pub(super) fn fetch(engine: &Engine, id: String, endpoint: Endpoint) {
    let inbox = engine.inbox.clone();
    let (failed_id, failed_endpoint) = (id.clone(), endpoint.clone());
    let started = thread::Builder::new().name("tenantauth-jwks".into()).spawn(move || {
        let answer = panic::catch_unwind(AssertUnwindSafe(|| endpoint.fetch())).unwrap_or_else(|_| {
            Err(FetchError::Internal("internal error: a panic while keys were fetched".to_owned()))
        });
        // Nobody waits for it where the engine is gone.
        _ = inbox.send(Task::Fetched { id, endpoint, answer });
    });
    if let Err(error) = started {
        let answer = Err(FetchError::Internal(format!("cannot start a thread: {error}")));
        engine.send(Task::Fetched { id: failed_id, endpoint: failed_endpoint, answer });
    }
}

impl Fetched {
    pub(super) fn inherit(published: &[Vec<u8>]) -> Self {
        let inherited = published.iter().filter_map(|json| Document::from_bytes(json)).collect();
        Self { inherited, ..Self::default() }
    }

    /// Fills in the keys that are at hand for a policy that is about to be in force: those of this worker, of the
    /// workers before it, or of the state directory. Returns the flag that each issuer's unknown keys raise.
    pub(super) fn supply(
        &mut self,
        engine: &Engine,
        compiled: &Compiled,
        keys: &mut [Option<Arc<KeySet>>],
        now: u64,
    ) -> Vec<Option<Arc<AtomicBool>>> {
        let snapshot = &compiled.snapshot;
        let mut issuers = Vec::new();
        let mut documents = HashMap::new();
        for (((set, endpoint), rules), name) in
            keys.iter_mut().zip(&compiled.endpoints).zip(&snapshot.issuers).zip(&snapshot.issuer_names)
        {
            let Some(endpoint) = endpoint else { continue };
            let id = super::keys::id_of(endpoint);
            let document = self.find(engine, &id, endpoint, now);
            *set = document.as_ref().and_then(|document| key_set(document, rules.algorithms));
            let document = document.filter(|_| set.is_some());
            if let Some(document) = &document {
                documents.insert(id, Arc::clone(document));
            }
            issuers.push((name.clone(), endpoint.clone(), document));
        }
        self.documents = documents;
        let mut flags = lock(&engine.exchange).set_issuers(issuers).into_iter();
        compiled.endpoints.iter().map(|endpoint| endpoint.as_ref().and_then(|_| flags.next())).collect()
    }

    fn find(&mut self, engine: &Engine, id: &str, endpoint: &Endpoint, now: u64) -> Option<Arc<Document>> {
        if let Some(document) = self.documents.get(id) {
            return Some(Arc::clone(document));
        }
        let usable = |document: &Document| document.is_of(endpoint) && document.is_usable(now);
        if let Some(at) = self.inherited.iter().position(usable) {
            return Some(Arc::new(self.inherited.swap_remove(at)));
        }
        let directory = engine.options.state_dir.as_deref()?;
        match state::recall(directory, endpoint, now) {
            Ok(document) => document.map(Arc::new),
            Err(problem) => {
                engine.tell(Level::Warn, problem.to_string());
                None
            }
        }
    }

    /// Judges what a fetch brought. Returns the keys of all issuers, where they have changed.
    pub(super) fn take_answer(
        &mut self,
        engine: &Engine,
        live: &Live,
        id: &str,
        endpoint: &Endpoint,
        answer: Result<Vec<u8>, FetchError>,
        now: u64,
    ) -> Option<Vec<Option<Arc<KeySet>>>> {
        // A policy that came meanwhile may not know the issuer any more.
        let at = position(live, id)?;
        let rules = live.compiled.snapshot.issuers.get(at)?;
        let name = live.compiled.snapshot.issuer_names.get(at)?;
        let judged = answer
            .map_err(UnusableAnswer::Fetch)
            .and_then(|bytes| validate(bytes, endpoint, rules.algorithms, now));
        let (document, set, reports) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                let error = one_line_of(&error.to_string(), MAX_SHOWN);
                let kept = self.documents.get(id).map(|document| document.keep_until());
                let again = lock(&engine.exchange).note_failed(id, &error);
                if !again {
                    engine.tell(Level::Error, failure_message(name, &error, kept));
                }
                return None;
            }
        };
        let document = Arc::new(document);
        let had_failed =
            lock(&engine.exchange).remotes().any(|remote| remote.id == id && remote.failure.is_some());
        let before = self.documents.insert(id.to_owned(), Arc::clone(&document));
        let changed = live.keys.get(at).is_none_or(|old| old.as_ref() != Some(&set));
        if changed {
            engine.tell(Level::Notice, format!("issuer `{name}`: keys fetched: {}", kids(&reports)));
        } else if had_failed {
            engine.tell(Level::Notice, format!("issuer `{name}`: the keys could be fetched again"));
        }
        if before.is_none_or(|before| before.jwks != document.jwks) {
            for report in &reports {
                if let Some(why) = &report.refused {
                    let kid = report.kid.as_deref().unwrap_or_default().escape_debug();
                    engine.tell(Level::Warn, format!("issuer `{name}`: the key `{kid}` is not used: {why}"));
                }
            }
        }
        self.keep(engine, endpoint, &document);
        let keys = changed.then(|| replaced(live, at, Some(set)));
        lock(&engine.exchange).note_fetched(id, document);
        keys
    }

    /// Uses what another worker has fetched and judged.
    pub(super) fn adopt(
        &mut self,
        engine: &Engine,
        live: &Live,
        id: &str,
        document: Arc<Document>,
    ) -> Option<Vec<Option<Arc<KeySet>>>> {
        let found = position(live, id).and_then(|at| {
            let rules = live.compiled.snapshot.issuers.get(at)?;
            Some((at, key_set(&document, rules.algorithms)?))
        });
        let Some((at, set)) = found else {
            lock(&engine.exchange).note_adopted(id, None);
            return None;
        };
        self.documents.insert(id.to_owned(), Arc::clone(&document));
        lock(&engine.exchange).note_adopted(id, Some(document));
        let changed = live.keys.get(at).is_none_or(|old| old.as_ref() != Some(&set));
        changed.then(|| replaced(live, at, Some(set)))
    }

    /// Uses an issuer's keys no longer: they could not be fetched again for too long.
    pub(super) fn forget(
        &mut self,
        engine: &Engine,
        live: &Live,
        id: &str,
    ) -> Option<Vec<Option<Arc<KeySet>>>> {
        // One that was fetched while this was on its way.
        if self.documents.get(id).is_some_and(|document| document.is_usable(super::unix_now())) {
            return None;
        }
        self.documents.remove(id)?;
        let at = position(live, id)?;
        let name = live.compiled.snapshot.issuer_names.get(at)?;
        engine.tell(
            Level::Error,
            format!("issuer `{name}`: the keys could not be fetched for 24 hours and are used no longer"),
        );
        Some(replaced(live, at, None))
    }

    fn keep(&mut self, engine: &Engine, endpoint: &Endpoint, document: &Document) {
        let Some(directory) = engine.options.state_dir.as_deref() else { return };
        let problem = state::keep(directory, endpoint, document).err();
        if let Some(problem) = &problem
            && self.told.as_ref() != Some(problem)
        {
            engine.tell(Level::Error, format!("the keys are not kept for a restart: {problem}"));
        }
        self.told = problem;
    }
}

type Validated = (Document, Arc<KeySet>, Vec<KeyReport>);

/// Why a fetch replaces nothing. `place` is the key set's address in backticks, or its name.
#[derive(Debug, Error)]
enum UnusableAnswer {
    #[error("{0}")]
    Fetch(FetchError),
    #[error("{place} is not UTF-8")]
    NotUtf8 { place: String },
    #[error("{place} {why}")]
    NotKeySet { place: String, why: InvalidJwks },
    #[error("{place} holds no usable key; of the first, {why}")]
    NoUsableKey { place: String, why: String },
    #[error("{place} holds no key")]
    NoKey { place: String },
}

/// An answer without one usable key is a failed fetch: it replaces nothing.
fn validate(
    bytes: Vec<u8>,
    endpoint: &Endpoint,
    algorithms: AlgorithmSet,
    now: u64,
) -> Result<Validated, UnusableAnswer> {
    let place = endpoint.jwks_url.as_deref().map_or("the key set".to_owned(), |url| format!("`{url}`"));
    let Ok(text) = String::from_utf8(bytes) else { return Err(UnusableAnswer::NotUtf8 { place }) };
    let (set, reports) = match KeySet::from_jwks(text.as_bytes(), algorithms) {
        Ok(read) => read,
        Err(why) => return Err(UnusableAnswer::NotKeySet { place, why }),
    };
    if set.is_empty() {
        let why = reports.iter().find_map(|report| report.refused.clone());
        return Err(match why {
            Some(why) => UnusableAnswer::NoUsableKey { place, why },
            None => UnusableAnswer::NoKey { place },
        });
    }
    Ok((Document::new(endpoint, text, now), Arc::new(set), reports))
}

fn key_set(document: &Document, algorithms: AlgorithmSet) -> Option<Arc<KeySet>> {
    let (set, _) = KeySet::from_jwks(document.jwks.as_bytes(), algorithms).ok()?;
    (!set.is_empty()).then(|| Arc::new(set))
}

/// The place of the issuer whose keys are filed under this id.
fn position(live: &Live, id: &str) -> Option<usize> {
    let is_it =
        |endpoint: &Option<Endpoint>| endpoint.as_ref().is_some_and(|it| super::keys::id_of(it) == id);
    live.compiled.endpoints.iter().position(is_it)
}

fn replaced(live: &Live, at: usize, set: Option<Arc<KeySet>>) -> Vec<Option<Arc<KeySet>>> {
    let mut keys = live.keys.clone();
    if let Some(old) = keys.get_mut(at) {
        *old = set;
    }
    keys
}

fn failure_message(issuer: &str, error: &str, kept_until: Option<u64>) -> String {
    let consequence = match kept_until.and_then(super::timestamp) {
        Some(until) => format!("the ones in force stay until {until}"),
        None => "there are none, and its users are answered 503".to_owned(),
    };
    format!("issuer `{issuer}`: the keys could not be fetched: {error}; {consequence}")
}

fn kids(reports: &[KeyReport]) -> String {
    let usable: Vec<_> = reports.iter().filter(|report| report.refused.is_none()).collect();
    let mut names: Vec<String> = usable
        .iter()
        .take(MAX_NAMED)
        .map(|report| {
            report
                .kid
                .as_deref()
                .map_or("one without kid".to_owned(), |kid| format!("`{}`", kid.escape_debug()))
        })
        .collect();
    if usable.len() > MAX_NAMED {
        names.push(format!("{} more", usable.len() - MAX_NAMED));
    }
    names.join(", ")
}
