//! What a record says about revocations: one id of the principal (its `sub`, or else its `oid`), and no token.

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
    /// By the issuer's name; `service` for service accounts, whose ids are their names.
    ids: HashMap<String, HashSet<String>>,
    tokens: HashSet<Sha256>,
}

impl Revoked {
    fn by(snapshot: &Snapshot) -> Self {
        let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
        let users = snapshot.revoked.principals();
        let users = users.filter_map(|(issuer, id)| Some((&**snapshot.issuer_names.get(issuer)?, id)));
        let accounts = snapshot.service_accounts.iter().filter(|account| account.revoked);
        for (issuer, id) in users.chain(accounts.map(|account| (SERVICE, &*account.name))) {
            ids.entry_ref(issuer).or_default().insert(id.into());
        }
        Self { ids, tokens: snapshot.revoked.tokens().clone() }
    }

    fn of_issuer(&self, issuer: &str) -> impl Iterator<Item = &str> {
        self.ids.get(issuer).into_iter().flatten().map(String::as_str)
    }

    fn has(&self, issuer: &str, id: &str) -> bool {
        self.ids.get(issuer).is_some_and(|ids| ids.contains(id))
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
    pub(super) fn is_revoked(
        &self,
        revision: &str,
        issuer: &str,
        subject: &str,
        was_revoked: bool,
    ) -> IsRevoked {
        if self.now.has(issuer, subject) {
            return IsRevoked::Yes;
        }
        if !was_revoked {
            return IsRevoked::No;
        }
        if let Some(then) = self.recorded.get(revision) {
            // By whichever of these it was: where all are revoked still, so is this one.
            let by_id = match issuer {
                SERVICE => !then.has(SERVICE, subject),
                _ => then.of_issuer(issuer).all(|id| self.now.has(issuer, id)),
            };
            if by_id && then.tokens.is_subset(&self.now.tokens) {
                return IsRevoked::Yes;
            }
        }
        let by_other_id = issuer != SERVICE && self.now.of_issuer(issuer).next().is_some();
        if by_other_id || !self.now.tokens.is_empty() { IsRevoked::Perhaps } else { IsRevoked::No }
    }
}

/// Revocations that match no record of a log, though some records may be of those whom they revoke.
#[derive(Default)]
pub(super) struct Unrecorded {
    /// By revision, the issuers whose principals were let in.
    let_in: HashMap<String, HashSet<String>>,
    /// Revoked subjects that a record has, by issuer.
    met: HashSet<(String, String)>,
}

impl Unrecorded {
    /// Takes note of a record that a verified token came with.
    ///
    /// `was_revoked`: it was refused.
    pub(super) fn note(
        &mut self,
        of: &History,
        revision: &str,
        issuer: &str,
        subject: &str,
        was_revoked: bool,
    ) {
        if of.now.ids.is_empty() && of.now.tokens.is_empty() {
            return;
        }
        if of.now.has(issuer, subject) {
            self.met.insert((issuer.into(), subject.into()));
            return;
        }
        if was_revoked {
            return;
        }
        let issuers = self.let_in.entry_ref(revision).or_default();
        if !issuers.contains(issuer) {
            issuers.insert(issuer.into());
        }
    }

    /// What the policy revokes and no record has.
    pub(super) fn gaps(&self, of: &History) -> Gaps {
        let (mut ids, mut tokens) = (BTreeSet::new(), HashSet::<Sha256>::new());
        for (revision, issuers) in &self.let_in {
            let then = of.recorded.get(revision);
            // Whoever was let in was none of those who were revoked then.
            tokens.extend(
                of.now.tokens.iter().filter(|sum| !then.is_some_and(|then| then.tokens.contains(*sum))),
            );
            for issuer in issuers.iter().filter(|issuer| ***issuer != *SERVICE) {
                let new =
                    of.now.of_issuer(issuer).filter(|id| !then.is_some_and(|then| then.has(issuer, id)));
                ids.extend(new.map(|id| (issuer.clone(), id.to_owned())));
            }
        }
        ids.retain(|id| !self.met.contains(id));
        Gaps { ids, tokens: tokens.len() }
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
}
