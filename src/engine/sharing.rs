//! The policy in force on its way to other workers, and to those that start later, through the memory that they share.
//!
//! It is there for when what is on disk cannot be used. A worker may then hold an older policy than another one: it was
//! busy while a good version came and broke. Grants that were withdrawn in that version must not live on in it, so it
//! takes the newest version that any worker took.

use super::reload::Task;
use super::{Engine, Level, Shared, lock};
use crate::policy::store::Bundle;
use std::time::Duration;

/// Where the bytes are in the memory that workers share. They hold secrets.
pub const LAST_GOOD: &str = "last_good";
/// What tells contents apart, beside them, so that workers need not read what they hold themselves.
const LAST_GOOD_ID: &str = "last_good_id";
/// One worker writes at a time. A worker that died meanwhile stops nobody for longer.
const LAST_GOOD_LOCK: &str = "last_good_lock";
const LOCK_LIFETIME: Duration = Duration::from_secs(1);

/// What this worker has for others, and what it knows of theirs.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// The id of what the policy in force was made of.
    id: Option<String>,
    /// The same as bytes, until they are where others find them.
    pending: Option<Vec<u8>>,
    /// The id of what another worker left, which the thread was given.
    considered: Option<Vec<u8>>,
    /// The thread has it still: it may be newer than what is pending.
    considering: bool,
}

impl Sharing {
    /// What another worker left was looked at. Unless it is newer, others are to have what this worker holds.
    ///
    /// `own`: what this worker holds, where that is newer.
    pub(super) fn considered(&mut self, is_newer: bool, own: Option<&Bundle>) {
        self.considering = false;
        if is_newer {
            self.pending = None;
        } else if let Some(own) = own {
            self.pending = Some(own.to_bytes());
        }
    }
}

impl Engine {
    /// Something else is in force. Large policies take a while to be written down, during which the event loop must not
    /// wait for the lock.
    pub(super) fn offer(&self, bundle: &Bundle) {
        let id = bundle.id();
        let is_known = {
            let sharing = lock(&self.sharing);
            sharing.id.as_ref() == Some(&id) && sharing.pending.is_none()
        };
        let bytes = (!is_known).then(|| bundle.to_bytes());
        let mut sharing = lock(&self.sharing);
        sharing.id = Some(id);
        if bytes.is_some() {
            sharing.pending = bytes;
        }
    }

    /// Leaves what the policy in force was made of for other workers, and has the thread look at what they left. To be
    /// called again and again; reads no file. Whatever this worker has not looked at is not replaced, so that the
    /// newest stays.
    ///
    /// `shared`: the memory of all workers, where there is one.
    pub fn share_policy(&self, shared: Option<&mut dyn Shared>) {
        let mut sharing = lock(&self.sharing);
        let Some(shared) = shared else {
            sharing.pending = None;
            return;
        };
        let there = shared.get(LAST_GOOD_ID);
        if there.is_some() && there.as_deref() == sharing.id.as_deref().map(str::as_bytes) {
            sharing.pending = None;
            return;
        }
        if there.is_some() && sharing.considered != there {
            sharing.considered = there;
            if let Some(bytes) = shared.get(LAST_GOOD) {
                sharing.considering = true;
                self.send(Task::Consider(bytes));
            }
            return;
        }
        if sharing.considering || sharing.pending.is_none() {
            return;
        }
        if !shared.add(LAST_GOOD_LOCK, b"1", LOCK_LIFETIME) {
            return;
        }
        if shared.get(LAST_GOOD_ID) == there
            && let (Some(bytes), Some(id)) = (sharing.pending.take(), &sharing.id)
        {
            // Never at the price of counters, which have the other half: what does not fit is not kept. A policy of 100 000
            // grants of their own is some 4.5 MB, and the dict of the examples has 10.
            let kept = if shared.capacity().is_some_and(|capacity| bytes.len().saturating_mul(2) > capacity) {
                Err("it is larger than half of the shared dict")
            } else if shared.set(LAST_GOOD, &bytes, None) && shared.set(LAST_GOOD_ID, id.as_bytes(), None) {
                Ok(())
            } else {
                Err("no memory")
            };
            if let Err(problem) = kept {
                // Better none than one that is older than what was in force: its grants may have been withdrawn since.
                shared.delete(LAST_GOOD_ID);
                shared.delete(LAST_GOOD);
                self.tell(
                    Level::Warn,
                    format!("the last good policy cannot be kept for other and later workers: {problem}"),
                );
            }
        }
        shared.delete(LAST_GOOD_LOCK);
    }
}
