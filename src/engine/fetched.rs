//! Fetched keys on the engine's thread: which are in force, and what an answer makes of them. No file is touched here: the
//! thread recalls and keeps what it is asked to.

use super::keys::{Document, Exchange};
use super::{Level, Live};
use crate::fetch::{Endpoint, FetchError};
use crate::policy::Compiled;
use crate::text::one_line_of;
use crate::token::algorithm::AlgorithmSet;
use crate::token::jwks::{InvalidJwks, KeyReport, MAX_SHOWN};
use crate::token::keys::KeySet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;

/// Kids that a message names; it says that there are more.
const MAX_NAMED: usize = 10;

/// The keys of each issuer.
type Keys = Vec<Option<Arc<KeySet>>>;

/// The key sets that were fetched, of this worker's issuers and of those of policies before.
#[derive(Default)]
pub(super) struct Fetched {
    documents: HashMap<String, Arc<Document>>,
    /// What former workers left, not yet asked for.
    inherited: Vec<Document>,
}

/// What an answer leads to.
#[derive(Default)]
pub(super) struct Update {
    /// The keys of all issuers, where they have changed.
    pub(super) keys: Option<Keys>,
    pub(super) messages: Vec<(Level, String)>,
    /// To be kept for a restart.
    pub(super) keep: Option<Arc<Document>>,
}

impl Fetched {
    pub(super) fn inherit(published: &[Vec<u8>]) -> Self {
        let inherited = published.iter().filter_map(|json| Document::from_bytes(json)).collect();
        Self { inherited, ..Self::default() }
    }

    /// Fills in the keys that are at hand for a policy that is about to be in force: those of this worker, of the
    /// workers before it, or of the state directory. Returns the flag that each issuer's unknown keys raise.
    ///
    /// `recall`: what was kept for an endpoint. `now`: Unix seconds.
    pub(super) fn supply(
        &mut self,
        exchange: &mut Exchange,
        compiled: &Compiled,
        keys: &mut [Option<Arc<KeySet>>],
        mut recall: impl FnMut(&Endpoint) -> Option<Document>,
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
            let document = self.find(&id, endpoint, now).or_else(|| recall(endpoint).map(Arc::new));
            *set = document.as_ref().and_then(|document| key_set(document, rules.algorithms));
            let document = document.filter(|_| set.is_some());
            if let Some(document) = &document {
                documents.insert(id, Arc::clone(document));
            }
            issuers.push((name.clone(), endpoint.clone(), document));
        }
        self.documents = documents;
        let mut flags = exchange.set_issuers(issuers).into_iter();
        compiled.endpoints.iter().map(|endpoint| endpoint.as_ref().and_then(|_| flags.next())).collect()
    }

    fn find(&mut self, id: &str, endpoint: &Endpoint, now: u64) -> Option<Arc<Document>> {
        if let Some(document) = self.documents.get(id) {
            return Some(Arc::clone(document));
        }
        let usable = |document: &Document| document.is_of(endpoint) && document.is_usable(now);
        let at = self.inherited.iter().position(usable)?;
        Some(Arc::new(self.inherited.swap_remove(at)))
    }

    /// What a fetch has brought.
    ///
    /// `now`: Unix seconds.
    pub(super) fn take_answer(
        &mut self,
        exchange: &mut Exchange,
        live: &Live,
        (id, endpoint): (&str, &Endpoint),
        answer: Result<Vec<u8>, FetchError>,
        now: u64,
    ) -> Update {
        let mut update = Update::default();
        // A policy that came meanwhile may not know the issuer any more.
        let Some((at, rules, name)) = position(live, id).and_then(|at| {
            let snapshot = &live.compiled.snapshot;
            Some((at, snapshot.issuers.get(at)?, snapshot.issuer_names.get(at)?))
        }) else {
            return update;
        };
        let validated = answer
            .map_err(UnusableAnswer::Fetch)
            .and_then(|bytes| validate(bytes, endpoint, rules.algorithms, now));
        let (document, set, reports) = match validated {
            Ok(validated) => validated,
            Err(error) => {
                let error = one_line_of(&error.to_string(), MAX_SHOWN);
                let kept = self.documents.get(id).map(|document| document.keep_until());
                if !exchange.note_failed(id, &error) {
                    update.messages.push((Level::Error, failure_message(name, &error, kept)));
                }
                return update;
            }
        };
        let document = Arc::new(document);
        let had_failed = exchange.remotes().any(|remote| remote.id == id && remote.failure.is_some());
        let before = self.documents.insert(id.to_owned(), Arc::clone(&document));
        let changed = live.keys.get(at).is_none_or(|old| old.as_ref() != Some(&set));
        let mut log = |level, text| update.messages.push((level, text));
        if changed {
            log(Level::Notice, format!("issuer `{name}`: keys fetched: {}", kids(&set)));
        } else if had_failed {
            log(Level::Notice, format!("issuer `{name}`: the keys could be fetched again"));
        }
        if before.is_none_or(|before| before.jwks != document.jwks) {
            for report in &reports {
                if let Some(why) = &report.refused {
                    let kid = report.kid.as_deref().unwrap_or_default().escape_debug();
                    log(Level::Warn, format!("issuer `{name}`: the key `{kid}` is not used: {why}"));
                }
            }
        }
        update.keys = changed.then(|| replaced(live, at, Some(set)));
        update.keep = Some(Arc::clone(&document));
        exchange.note_fetched(id, document);
        update
    }

    /// Uses what another worker has fetched and validated.
    pub(super) fn adopt(
        &mut self,
        exchange: &mut Exchange,
        live: &Live,
        id: &str,
        document: Arc<Document>,
    ) -> Update {
        let found = position(live, id).and_then(|at| {
            let rules = live.compiled.snapshot.issuers.get(at)?;
            Some((at, key_set(&document, rules.algorithms)?))
        });
        let Some((at, set)) = found else {
            exchange.note_adopted(id, None);
            return Update::default();
        };
        self.documents.insert(id.to_owned(), Arc::clone(&document));
        exchange.note_adopted(id, Some(document));
        let changed = live.keys.get(at).is_none_or(|old| old.as_ref() != Some(&set));
        Update { keys: changed.then(|| replaced(live, at, Some(set))), ..Update::default() }
    }

    /// Uses an issuer's keys no longer: they could not be fetched again for too long.
    ///
    /// `now`: Unix seconds.
    pub(super) fn forget(&mut self, live: &Live, id: &str, now: u64) -> Update {
        let mut update = Update::default();
        // One that was fetched while this was on its way.
        if self.documents.get(id).is_none_or(|document| document.is_usable(now)) {
            return update;
        }
        self.documents.remove(id);
        let Some(at) = position(live, id) else { return update };
        let Some(name) = live.compiled.snapshot.issuer_names.get(at) else { return update };
        update.messages.push((
            Level::Error,
            format!("issuer `{name}`: the keys could not be fetched for 24 hours and are used no longer"),
        ));
        update.keys = Some(replaced(live, at, None));
        update
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

/// The keys of a set by their ids; one may have several.
fn kids(set: &KeySet) -> String {
    let name = |ids: &[Box<str>]| match ids {
        [] => "one without kid".to_owned(),
        ids => ids.iter().map(|kid| format!("`{}`", kid.escape_debug())).collect::<Vec<_>>().join(" = "),
    };
    let mut names: Vec<String> = set.ids().take(MAX_NAMED).map(name).collect();
    if set.len() > MAX_NAMED {
        names.push(format!("{} more", set.len() - MAX_NAMED));
    }
    names.join(", ")
}
