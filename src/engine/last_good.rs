//! What the policy in force was made of, and what former and other workers made theirs of: for when what is on disk cannot be
//! used. Touches no file: what lies in the state directory is handed in.

use crate::policy::store::{Bundle, Fingerprint, Gone};
use crate::policy::{OwnerOutcome, OwnerState};
use std::path::Path;

/// Where a worker finds what those before it decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Predecessor {
    /// In the memory that workers share.
    SharedDict,
    /// In the state directory.
    StateDir,
}

/// The last good policy, as this worker knows it.
#[derive(Default)]
pub(super) struct LastGood {
    /// What the policy in force was made of, with the keys of today.
    bundle: Bundle,
    /// What was in it and is no longer.
    gone: Gone,
    /// What a former worker left, as bytes.
    inherited: Option<Vec<u8>>,
    /// What another worker's policy was made of, where that is newer than what this one knows.
    newer: Option<Bundle>,
    /// Where `bundle` came from, until this worker has a policy of its own.
    predecessor: Option<Predecessor>,
}

/// What another worker's policy leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// What is on disk is to be judged once more and at once, with what is newer at hand.
    JudgeAgain,
    /// What is on disk cannot be used, and what another worker took before it broke is newer than what is in force.
    Adopt,
}

/// What a look at another worker's policy has found.
pub(super) struct Considered {
    pub(super) next: Next,
    /// It is newer in some part than what this worker has.
    pub(super) is_newer: bool,
    /// It is older: others are to have this worker's.
    pub(super) is_older: bool,
}

impl LastGood {
    /// `left`: what a former worker left in the shared memory.
    pub(super) fn inherit(left: Option<Vec<u8>>) -> Self {
        Self { inherited: left, ..Self::default() }
    }

    pub(super) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Something else is in force.
    pub(super) fn replace(&mut self, bundle: Bundle) {
        self.gone.note(&self.bundle, &bundle);
        self.bundle = bundle;
    }

    /// What was newer in another worker has been taken, or passed over for what is on disk.
    pub(super) fn forget_newer(&mut self) {
        self.newer = None;
    }

    /// What is in force was read once more, as far as it is on disk.
    ///
    /// `at`: when that began, by the clock of bundles.
    pub(super) fn confirm(&mut self, seen: &Fingerprint, at: u64) {
        self.bundle.confirm(seen, at);
    }

    /// Where what is known came from, as long as this worker has put nothing in force itself.
    pub(super) const fn predecessor(&self) -> Option<Predecessor> {
        self.predecessor
    }

    /// What a new policy is held against: what is in force here or was in workers before, and documents of owners that
    /// another worker has taken since.
    ///
    /// `policy`: its path. `recall`: reads what the state directory keeps; asked where nothing else is known.
    pub(super) fn before(&mut self, policy: &Path, recall: impl FnOnce() -> Option<Vec<u8>>) -> Bundle {
        if self.bundle == Bundle::default() && self.predecessor.is_none() {
            let read = |bytes: Vec<u8>| Bundle::from_bytes(&bytes).filter(|bundle| bundle.is_of(policy));
            let of_dict =
                self.inherited.take().and_then(read).map(|bundle| (Predecessor::SharedDict, bundle));
            let found = of_dict.or_else(|| {
                // By the clock of another start of the machine, perhaps.
                recall().and_then(read).map(|bundle| (Predecessor::StateDir, bundle.of_before()))
            });
            if let Some((predecessor, bundle)) = found {
                self.predecessor = Some(predecessor);
                self.bundle = bundle;
            }
        }
        let mut before = self.bundle.clone();
        if let Some(newer) = &self.newer {
            before.take_newer_owners(newer, &self.gone);
        }
        before
    }

    /// Looks at what another worker's policy was made of.
    ///
    /// `theirs`: that of the same policy; `None` where it could not be read. `owners`: what became of owners' documents in the
    /// policy in force; `None` without one. `is_refused`: what is on disk cannot be used.
    pub(super) fn consider(
        &mut self,
        theirs: Option<Bundle>,
        owners: Option<&[OwnerOutcome]>,
        is_refused: bool,
    ) -> Considered {
        let any_newer = |theirs: &Bundle, is_meant: fn(&OwnerOutcome) -> bool| {
            let mut owners = owners.into_iter().flatten().filter(|owner| is_meant(owner));
            owners.any(|owner| theirs.has_newer_owner(&owner.name, &self.bundle, &self.gone))
        };
        let lacks_owner = |theirs: &Bundle| any_newer(theirs, |owner| owner.state != OwnerState::Current);
        let lacks_owner = theirs.as_ref().is_some_and(lacks_owner);
        let is_newer = |theirs: &Bundle| theirs.is_newer_than(&self.bundle) || any_newer(theirs, |_| true);
        let is_newer = theirs.as_ref().is_some_and(is_newer);
        // Workers of another policy may still be there while nginx is reloaded: theirs is left alone.
        let is_older = |theirs: &Bundle| {
            let mut names = owners.into_iter().flatten().map(|owner| &*owner.name);
            owners.is_some()
                && (self.bundle.is_newer_than(theirs)
                    || names.any(|owner| self.bundle.has_newer_version(owner, theirs)))
        };
        let is_older = theirs.as_ref().is_some_and(is_older);
        if is_newer {
            self.newer = theirs;
        }
        let next = if is_refused {
            Next::Adopt
        } else if lacks_owner {
            Next::JudgeAgain
        } else {
            Next::Nothing
        };
        Considered { next, is_newer, is_older }
    }

    /// What another worker took before what is on disk broke, if that is newer than what this worker has: all of it, or
    /// documents of owners.
    pub(super) fn take_newer(&mut self) -> Option<Bundle> {
        let mut newer = self.newer.take()?;
        if newer.is_newer_than(&self.bundle) {
            newer.take_newer_files(&self.bundle);
            return Some(newer);
        }
        let mut own = self.bundle.clone();
        own.take_newer_owners(&newer, &self.gone);
        (own != self.bundle).then_some(own)
    }
}
