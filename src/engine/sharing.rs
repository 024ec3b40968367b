//! The policy in force on its way to other workers, and to those that start later, through the memory that they share.
//!
//! It is there for when what is on disk cannot be used. A worker may then hold an older policy than another one: it was
//! busy while a good version came and broke. Grants that were withdrawn in that version must not live on in it, so it
//! takes the newest version that any worker took.

use super::keys::Shared;
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

/// What a look at the shared memory leads to.
pub(super) enum Found {
    Nothing,
    /// What another worker left is to be considered.
    Theirs(Vec<u8>),
    /// Why the policy in force is not where others find it.
    NotKept(&'static str),
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

    /// Whether others have it, or are about to.
    pub(super) fn is_known(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id) && self.pending.is_none()
    }

    /// Something else is in force. Large policies take a while to be written down, during which the event loop must not
    /// wait: `bytes` are made before, where others do not have them.
    pub(super) fn offer(&mut self, id: String, bytes: Option<Vec<u8>>) {
        self.id = Some(id);
        if bytes.is_some() {
            self.pending = bytes;
        }
    }

    /// Leaves what is in force where others find it, and finds what they left. Whatever this worker has not looked at is
    /// not replaced, so that the newest stays.
    pub(super) fn poll(&mut self, shared: Option<&mut dyn Shared>) -> Found {
        let Some(shared) = shared else {
            self.pending = None;
            return Found::Nothing;
        };
        let there = shared.get(LAST_GOOD_ID);
        if there.is_some() && there.as_deref() == self.id.as_deref().map(str::as_bytes) {
            self.pending = None;
            return Found::Nothing;
        }
        if there.is_some() && self.considered != there {
            self.considered = there;
            return shared.get(LAST_GOOD).map_or(Found::Nothing, |bytes| {
                self.considering = true;
                Found::Theirs(bytes)
            });
        }
        if self.considering || self.pending.is_none() || !shared.add(LAST_GOOD_LOCK, b"1", LOCK_LIFETIME) {
            return Found::Nothing;
        }
        let mut found = Found::Nothing;
        if shared.get(LAST_GOOD_ID) == there
            && let (Some(bytes), Some(id)) = (self.pending.take(), &self.id)
            && let Err(problem) = keep(shared, &bytes, id)
        {
            // Better none than one that is older than what was in force: its grants may have been withdrawn since.
            shared.delete(LAST_GOOD_ID);
            shared.delete(LAST_GOOD);
            found = Found::NotKept(problem);
        }
        shared.delete(LAST_GOOD_LOCK);
        found
    }
}

/// Never at the price of counters, which have the other half: what does not fit is not kept. A policy of 100 000 grants of
/// their own is some 4.5 MB, and the dict of the examples has 10.
fn keep(shared: &mut dyn Shared, bytes: &[u8], id: &str) -> Result<(), &'static str> {
    if shared.capacity().is_some_and(|capacity| bytes.len().saturating_mul(2) > capacity) {
        Err("it is larger than half of the shared dict")
    } else if shared.set(LAST_GOOD, bytes, None) && shared.set(LAST_GOOD_ID, id.as_bytes(), None) {
        Ok(())
    } else {
        Err("no memory")
    }
}
