//! What the engine's thread is given to do between its looks at the policy.

use super::Engine;
use super::keys::Work;
use crate::fetch::{Endpoint, FetchError};
use std::panic::{self, AssertUnwindSafe};
use std::thread;

/// What the thread is given to do between its looks at the policy.
pub(super) enum Task {
    /// Release something, which may take a while.
    Release(Box<dyn Send>),
    /// What a look at fetched keys has found.
    Keys(Work),
    /// Use what was fetched.
    Fetched { id: String, endpoint: Endpoint, answer: Result<Vec<u8>, FetchError> },
    /// Look at what another worker's policy was made of.
    Consider(Vec<u8>),
}

/// Starts a fetch on a thread of its own: it may take as long as it is allowed to, and policies go on changing.
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
