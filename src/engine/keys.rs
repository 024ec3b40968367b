//! Fetched keys: when they are fetched, by which worker, and how they come to the others.
//!
//! [`Exchange::poll`] finds out what there is to do, several times a second, on the event loop; it reads no file and no key
//! set, waits for nobody and looks at no clock. What it finds is done by the engine's thread. Workers meet in a memory that
//! they share:
//!
//! | entry | holds |
//! |---|---|
//! | `jwks:<id>` | the last good key set, with its issuer and its times |
//! | `jwks_version:<id>` | a number that every published set makes larger |
//! | `jwks_lock:<id>` | present while one worker fetches, and for a while after it failed |
//! | `jwks_unknown:<id>` | present for five minutes after an unknown `kid` has led to a fetch |
//! | `jwks_failure:<id>` | what went wrong since the last success |
//!
//! Nothing in it was ever supplied by a request.

mod document;
mod shared;
pub(super) mod state;

pub(super) use document::{Document, id_of};
pub(super) use shared::Local;
pub use shared::Shared;

use crate::fetch::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Keys are fetched again at least this often, in seconds, whatever the answer's headers say.
const REFRESH: u64 = 3600;
/// They may be fetched so much earlier, so that a fleet does not ask at once.
const JITTER: u64 = 600;
/// Keys that could not be fetched again verify nothing after so many seconds.
const KEEP: u64 = 24 * 3600;
/// A `kid` that nobody knows leads to one fetch in this time (the interval that Microsoft advises).
const UNKNOWN_KID: Duration = Duration::from_secs(300);
/// Longer than any fetch takes: a worker that was killed while it fetched keeps the others waiting for so long.
const LOCK: Duration = Duration::from_secs(60);

/// The issuers whose keys are fetched, as one worker sees them.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    remotes: Vec<Remote>,
    /// What this worker writes into locks.
    owner: String,
    /// Samples of metrics, and by how much they grew.
    counters: BTreeMap<String, u64>,
}

/// One issuer whose keys are fetched.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) id: String,
    /// What records and metrics call the issuer.
    pub(super) name: Box<str>,
    pub(super) endpoint: Endpoint,
    /// What is in force.
    pub(super) held: Option<Arc<Document>>,
    /// The version of `jwks:<id>` that this worker has taken over, or has published.
    version: Option<u64>,
    /// The thread is about to take a published set over.
    adopting: bool,
    fetching: bool,
    /// How the fetch ended, for the other workers.
    ended: Option<Ended>,
    pub(super) failure: Option<Failure>,
    /// A token named a key that is not in the set.
    asked: Arc<AtomicBool>,
    /// That the set cannot be shared has been told.
    unshared: bool,
    /// There is a newer set, which could not be shared: it has to be fetched, and is nothing new to the others.
    missed: bool,
}

/// How a fetch ended.
#[derive(Debug)]
enum Ended {
    Well,
    /// What went wrong, on one short line.
    Badly(String),
}

/// Fetches that failed since the last one that did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// Unix seconds of the last.
    pub(super) at: u64,
    count: u32,
    pub(super) error: String,
}

/// Work that has been found for the thread.
pub(super) enum Work {
    /// Fetch an issuer's keys.
    Fetch {
        /// What the issuer's keys are filed under.
        id: String,
        /// Where they are.
        endpoint: Endpoint,
    },
    /// Use what another worker fetched.
    Adopt {
        /// What the issuer's keys are filed under.
        id: String,
        /// What was fetched.
        document: Arc<Document>,
    },
    /// Use keys no longer: they have become too old.
    Forget {
        /// What the issuer's keys are filed under.
        id: String,
    },
}

/// What a look at the shared memory leads to.
#[derive(Default)]
pub(super) struct Found {
    pub(super) work: Vec<Work>,
    /// Warnings.
    pub(super) problems: Vec<String>,
}

impl Exchange {
    pub(super) fn new(owner: String) -> Self {
        Self { owner, ..Self::default() }
    }

    /// Says which issuers the policy in force has. Those that stay keep what is known of them. Returns the flag of
    /// each, raised where a token names an unknown key.
    ///
    /// `fetched`: the issuer's name, where its keys are fetched, and the set in force.
    pub(super) fn set_issuers(
        &mut self,
        issuers: Vec<(Box<str>, Endpoint, Option<Arc<Document>>)>,
    ) -> Vec<Arc<AtomicBool>> {
        let mut former = std::mem::take(&mut self.remotes);
        for (name, endpoint, held) in issuers {
            let id = id_of(&endpoint);
            let known = former.iter().position(|remote| remote.id == id).map(|at| former.swap_remove(at));
            self.remotes.push(match known {
                Some(known) => Remote { name, endpoint, held, ..known },
                None => Remote {
                    id,
                    name,
                    endpoint,
                    held,
                    version: None,
                    adopting: false,
                    fetching: false,
                    ended: None,
                    failure: None,
                    asked: Arc::default(),
                    unshared: false,
                    missed: false,
                },
            });
        }
        self.remotes.iter().map(|remote| Arc::clone(&remote.asked)).collect()
    }

    pub(super) fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.remotes.iter()
    }

    fn remote(&mut self, id: &str) -> Option<&mut Remote> {
        self.remotes.iter_mut().find(|remote| remote.id == id)
    }

    /// Takes note of the set that the thread has fetched.
    pub(super) fn note_fetched(&mut self, id: &str, document: Arc<Document>) {
        if let Some(remote) = self.finish(id, Ended::Well, "success") {
            remote.held = Some(document);
        }
    }

    /// Takes note of a fetch of the thread that failed, for a reason of one short line. Returns whether the one before it
    /// had failed for the same, which needs no further word.
    pub(super) fn note_failed(&mut self, id: &str, error: &str) -> bool {
        let remote = self.finish(id, Ended::Badly(error.to_owned()), "failure");
        remote.and_then(|remote| remote.failure.as_ref()).is_some_and(|before| before.error == error)
    }

    fn finish(&mut self, id: &str, ended: Ended, result: &str) -> Option<&mut Remote> {
        let remote = self.remotes.iter_mut().find(|remote| remote.id == id)?;
        *self.counters.entry(crate::metrics::jwks_refreshes(&remote.name, result)).or_default() += 1;
        remote.ended = Some(ended);
        Some(remote)
    }

    /// Takes note of a published set, which the thread has taken over or cannot use.
    pub(super) fn note_adopted(&mut self, id: &str, document: Option<Arc<Document>>) {
        let Some(remote) = self.remote(id) else { return };
        remote.adopting = false;
        if document.is_some() {
            remote.held = document;
        }
    }

    /// One of the samples of metrics that grew, and by how much.
    pub(super) fn take_counter(&mut self) -> Option<(String, u64)> {
        self.counters.pop_first()
    }

    /// Finds out which keys have to be fetched, and exchanges what was fetched with the other workers.
    ///
    /// `shared`: what all workers see. `now`: Unix seconds.
    pub(super) fn poll(&mut self, shared: &mut dyn Shared, now: u64) -> Found {
        let Self { remotes, owner, .. } = self;
        let mut found = Found::default();
        for remote in remotes {
            found.problems.extend(remote.publish_outcome(shared, owner, now));
            if remote.held.as_ref().is_some_and(|held| held.keep_until() <= now) {
                remote.held = None;
                found.work.push(Work::Forget { id: remote.id.clone() });
            }
            let newest = shared.number(&remote.key("_version"));
            match newest {
                Some(version) if remote.version != newest && !remote.fetching => {
                    found.work.extend(remote.take_version(version, shared, now));
                }
                // The memory has forgotten, or has never known.
                None if !remote.fetching && !remote.adopting => found.problems.extend(remote.publish(shared)),
                _ => {}
            }
            if !remote.fetching {
                remote.failure =
                    shared.get(&remote.key("_failure")).and_then(|json| serde_json::from_slice(&json).ok());
            }
            found.work.extend(remote.fetch_if_due(owner, shared, now));
        }
        found
    }
}

impl Remote {
    fn key(&self, kind: &str) -> String {
        format!("jwks{kind}:{}", self.id)
    }

    /// Publishes what became of a fetch of ours. Returns a problem that was not reported before.
    fn publish_outcome(&mut self, shared: &mut dyn Shared, owner: &str, now: u64) -> Option<String> {
        let ended = self.ended.take()?;
        self.fetching = false;
        // What tokens asked for meanwhile has been asked.
        self.asked.store(false, Ordering::Relaxed);
        let lock = self.key("_lock");
        if shared.get(&lock).as_deref() != Some(owner.as_bytes()) {
            // It took so long that somebody else may have fetched since: theirs counts.
            self.version = None;
            return None;
        }
        match ended {
            Ended::Well => {
                self.failure = None;
                shared.delete(&self.key("_failure"));
                let problem = if std::mem::take(&mut self.missed) { None } else { self.publish(shared) };
                shared.delete(&lock);
                problem
            }
            Ended::Badly(error) => {
                let before = self.failure.take().map_or(0, |failure| failure.count);
                let failure = Failure { at: now, count: before.saturating_add(1), error };
                let wait = wait_after(failure.count, self.held.is_some());
                // The lock stays for as long as nobody shall try again.
                shared.set(&lock, owner.as_bytes(), Some(wait));
                if let Ok(json) = serde_json::to_vec(&failure) {
                    shared.set(&self.key("_failure"), &json, None);
                }
                self.failure = Some(failure);
                None
            }
        }
    }

    /// Publishes the set in force: the document first, so that whoever sees the new version finds it. Returns a problem
    /// that was not told before.
    fn publish(&mut self, shared: &mut dyn Shared) -> Option<String> {
        let held = self.held.as_deref()?;
        let key = self.key("");
        let stored = shared.set(&key, &held.to_bytes(), None);
        if !stored {
            // No set is better than one that is older: the others fetch their own when they see the version.
            shared.delete(&key);
        }
        self.version = shared.increment(&self.key("_version"));
        if stored {
            self.unshared = false;
            return None;
        }
        (!std::mem::replace(&mut self.unshared, true)).then(|| {
            format!(
                "the keys of issuer `{}` do not fit into the shared dict: each worker fetches its own; help: make \
                 `lua_shared_dict tenantauth` larger",
                self.name
            )
        })
    }

    /// Looks at a set that another worker has published.
    fn take_version(&mut self, version: u64, shared: &mut dyn Shared, now: u64) -> Option<Work> {
        self.version = Some(version);
        let published = shared.get(&self.key("")).and_then(|json| Document::from_bytes(&json));
        match published.filter(|document| document.is_of(&self.endpoint)) {
            Some(document) if document.is_usable(now) => {
                self.adopting = true;
                self.missed = false;
                self.asked.store(false, Ordering::Relaxed);
                return Some(Work::Adopt { id: self.id.clone(), document: Arc::new(document) });
            }
            // Too old for anybody.
            Some(_) => {}
            None => self.missed = true,
        }
        None
    }

    fn fetch_if_due(&mut self, owner: &str, shared: &mut dyn Shared, now: u64) -> Option<Work> {
        if self.fetching || self.adopting {
            return None;
        }
        // A clock that was set back makes nothing younger.
        let is_fresh = |held: &Arc<Document>| (held.fetched_at..held.refresh_at).contains(&now);
        let due = self.missed || !self.held.as_ref().is_some_and(is_fresh);
        let unknown = self.key("_unknown");
        if !due {
            if !self.asked.load(Ordering::Relaxed) {
                return None;
            }
            if shared.get(&unknown).is_some() {
                self.asked.store(false, Ordering::Relaxed);
                return None;
            }
        }
        let lock = self.key("_lock");
        if !shared.add(&lock, owner.as_bytes(), LOCK) {
            return None;
        }
        // Whoever had the lock may have published between our look at the version and now: that is taken over first.
        if shared.number(&self.key("_version")).is_some_and(|newest| self.version != Some(newest)) {
            shared.delete(&lock);
            return None;
        }
        if !due && !shared.add(&unknown, b"1", UNKNOWN_KID) {
            shared.delete(&lock);
            return None;
        }
        self.asked.store(false, Ordering::Relaxed);
        self.fetching = true;
        Some(Work::Fetch { id: self.id.clone(), endpoint: self.endpoint.clone() })
    }
}

/// How long nobody tries after so many failures in a row. Without keys nobody gets in, so that it is tried often.
fn wait_after(failures: u32, have_keys: bool) -> Duration {
    let doubled =
        |first: u64, most: u64| first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
    Duration::from_secs(if have_keys { doubled(30, 300) } else { doubled(1, 5) })
}

#[cfg(test)]
mod tests;
