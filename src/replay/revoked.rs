//! What a record says about revocations: one id of the principal (its `sub`, or else its `oid`), and neither a token nor
//! the key that signed it.

use crate::policy::snapshot::{SERVICE, Snapshot};
use crate::token::digest::Sha256;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeSet;

/// Whether the policy refuses whom a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsRevoked {
    No,
    /// The record does not say.
    Perhaps,
    Yes,
}

/// Whom one policy revokes.
#[derive(Default)]
struct Revoked {
    /// By the issuer's name; `service` for service accounts, whose ids are their names. Until when (Unix seconds).
    ids: HashMap<String, HashMap<String, u64>>,
    tokens: HashSet<Sha256>,
    /// The ids of keys by the issuer's name.
    keys: HashMap<String, HashSet<String>>,
}

impl Revoked {
    fn by(snapshot: &Snapshot) -> Self {
        let name = |issuer: usize| snapshot.issuer_names.get(issuer).map(|name| &**name);
        let mut ids: HashMap<String, HashMap<String, u64>> = HashMap::new();
        let users = snapshot.revoked.principals();
        let users = users.filter_map(|(issuer, id, until)| Some((name(issuer)?, id, until)));
        let accounts = snapshot.service_accounts.iter().filter(|account| account.revoked_until > 0);
        let accounts = accounts.map(|account| (SERVICE, &*account.name, account.revoked_until));
        for (issuer, id, until) in users.chain(accounts) {
            ids.entry_ref(issuer).or_default().insert(id.into(), until);
        }
        let mut keys: HashMap<String, HashSet<String>> = HashMap::new();
        for (issuer, kid) in snapshot.revoked.keys() {
            keys.entry_ref(name(issuer).unwrap_or_default()).or_default().insert(kid.into());
        }
        Self { ids, tokens: snapshot.revoked.tokens().clone(), keys }
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.tokens.is_empty() && self.keys.is_empty()
    }

    /// Ids and until when each is revoked, also those that have ended.
    fn of_issuer(&self, issuer: &str) -> impl Iterator<Item = (&str, u64)> {
        self.ids.get(issuer).into_iter().flatten().map(|(id, until)| (&**id, *until))
    }

    /// Whether an id is named, be it that its entry has ended.
    fn names(&self, issuer: &str, id: &str) -> bool {
        self.ids.get(issuer).is_some_and(|ids| ids.contains_key(id))
    }

    /// Whether an id is revoked at a time (Unix seconds).
    fn has(&self, issuer: &str, id: &str, at: u64) -> bool {
        self.ids.get(issuer).and_then(|ids| ids.get(id)).is_some_and(|until| at < *until)
    }

    fn keys_of(&self, issuer: &str) -> impl Iterator<Item = &String> {
        self.keys.get(issuer).into_iter().flatten()
    }

    fn has_key(&self, issuer: &str, kid: &String) -> bool {
        self.keys.get(issuer).is_some_and(|keys| keys.contains(kid))
    }
}

/// Whom the policy that decides revokes, and whom those did that decided.
pub(super) struct History {
    now: Revoked,
    /// By revision.
    recorded: HashMap<String, Revoked>,
}

impl History {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self { now: Revoked::by(snapshot), recorded: HashMap::new() }
    }

    /// Takes note of whom a policy revokes under which records were made.
    pub(super) fn learn_policy(&mut self, snapshot: &Snapshot) {
        self.recorded.insert(snapshot.revision.to_string(), Revoked::by(snapshot));
    }

    /// Whether the policy refuses whom a record of this revision is of.
    ///
    /// `was_revoked`: it was refused then. Whoever was not is taken for somebody else than those whose id no record has:
    /// else one `oid` in the policy would leave nothing known of a log. [`Unrecorded`] counts them.
    ///
    /// `at`: when the policy decides, in Unix seconds.
    pub(super) fn is_revoked(
        &self,
        revision: &str,
        issuer: &str,
        subject: &str,
        was_revoked: bool,
        at: u64,
    ) -> IsRevoked {
        if self.now.has(issuer, subject, at) {
            return IsRevoked::Yes;
        }
        if !was_revoked {
            return IsRevoked::No;
        }
        if let Some(then) = self.recorded.get(revision) {
            // By whichever of these it was: where all are revoked still, so is this one.
            let by_id = match issuer {
                SERVICE => !then.names(SERVICE, subject),
                _ => then.of_issuer(issuer).all(|(id, _)| self.now.has(issuer, id, at)),
            };
            let by_key = then.keys_of(issuer).all(|kid| self.now.has_key(issuer, kid));
            if by_id && by_key && then.tokens.is_subset(&self.now.tokens) {
                return IsRevoked::Yes;
            }
        }
        let by_other_id = issuer != SERVICE && self.now.of_issuer(issuer).any(|(_, until)| at < until);
        let by_key = self.now.keys_of(issuer).next().is_some();
        if by_other_id || by_key || !self.now.tokens.is_empty() { IsRevoked::Perhaps } else { IsRevoked::No }
    }
}

/// Revocations that match no record of a log, though some records may be of those whom they revoke.
#[derive(Default)]
pub(super) struct Unrecorded {
    /// By revision, the issuers whose principals were let in, and when first (Unix seconds).
    let_in: HashMap<String, HashMap<String, u64>>,
    /// Revoked subjects that a record has, by issuer.
    met: HashSet<(String, String)>,
}

impl Unrecorded {
    /// Takes note of a record that a verified token came with.
    ///
    /// `was_revoked`: it was refused. `at`: when the policy decides, in Unix seconds.
    pub(super) fn note(
        &mut self,
        of: &History,
        revision: &str,
        issuer: &str,
        subject: &str,
        was_revoked: bool,
        at: u64,
    ) {
        if of.now.is_empty() {
            return;
        }
        if of.now.names(issuer, subject) {
            self.met.insert((issuer.into(), subject.into()));
            return;
        }
        if was_revoked {
            return;
        }
        let first = self.let_in.entry_ref(revision).or_default().entry_ref(issuer).or_insert(at);
        *first = at.min(*first);
    }

    /// What the policy revokes and no record has.
    pub(super) fn gaps(&self, of: &History) -> Gaps {
        let (mut ids, mut tokens) = (BTreeSet::new(), HashSet::<Sha256>::new());
        let mut keys = BTreeSet::new();
        for (revision, issuers) in &self.let_in {
            let then = of.recorded.get(revision);
            // Whoever was let in was none of those who were revoked then.
            tokens.extend(
                of.now.tokens.iter().filter(|sum| !then.is_some_and(|then| then.tokens.contains(*sum))),
            );
            for (issuer, first) in issuers.iter().filter(|(issuer, _)| ***issuer != *SERVICE) {
                let in_force = of.now.of_issuer(issuer).filter(|(_, until)| first < until);
                let new = in_force.filter(|(id, _)| !then.is_some_and(|then| then.names(issuer, id)));
                ids.extend(new.map(|(id, _)| (issuer.clone(), id.to_owned())));
                let new = of.now.keys_of(issuer);
                let new = new.filter(|kid| !then.is_some_and(|then| then.has_key(issuer, kid)));
                keys.extend(new.map(|kid| (issuer.clone(), kid.clone())));
            }
        }
        ids.retain(|id| !self.met.contains(id));
        Gaps { ids, tokens: tokens.len(), keys }
    }
}

/// What a policy revokes and no record of a log has: whoever it revokes may have made requests that are decided as if
/// they were not revoked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// Names of issuers with the ids of principals.
    pub(crate) ids: BTreeSet<(String, String)>,
    /// How many tokens.
    pub(crate) tokens: usize,
    /// Names of issuers with the ids of keys.
    pub(crate) keys: BTreeSet<(String, String)>,
}
