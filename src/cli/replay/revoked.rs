//! What a record tells of revocations: one id of the principal (its `sub`, or else its `oid`), and no token.

use crate::cli::{counted, plain};
use crate::policy::snapshot::{SERVICE, Snapshot};
use crate::token::digest::Sha256;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Ids are named up to this many.
const MAX_IDS_SHOWN: usize = 5;

/// Whether the policy refuses whom a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    No,
    /// The record does not tell.
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
pub(super) struct Revocations {
    now: Revoked,
    /// By revision.
    recorded: HashMap<String, Revoked>,
}

impl Revocations {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self { now: Revoked::by(snapshot), recorded: HashMap::new() }
    }

    /// Takes note of whom a policy revokes under which records were made.
    pub(super) fn learn_policy(&mut self, snapshot: &Snapshot) {
        self.recorded.insert(snapshot.revision.to_string(), Revoked::by(snapshot));
    }

    /// Whether the policy refuses whom a record of this revision is of.
    ///
    /// `was_revoked`: it was refused then. Whoever was not is taken for somebody else than those whose id no record tells:
    /// else one `oid` in the policy would leave nothing known of a log. [`Untold`] tells of them.
    pub(super) fn verdict(&self, revision: &str, issuer: &str, subject: &str, was_revoked: bool) -> Verdict {
        if self.now.has(issuer, subject) {
            return Verdict::Yes;
        }
        if !was_revoked {
            return Verdict::No;
        }
        if let Some(then) = self.recorded.get(revision) {
            // By whichever of these it was: where all are revoked still, so is this one.
            let by_id = match issuer {
                SERVICE => !then.has(SERVICE, subject),
                _ => then.of_issuer(issuer).all(|id| self.now.has(issuer, id)),
            };
            if by_id && then.tokens.is_subset(&self.now.tokens) {
                return Verdict::Yes;
            }
        }
        let by_other_id = issuer != SERVICE && self.now.of_issuer(issuer).next().is_some();
        if by_other_id || !self.now.tokens.is_empty() { Verdict::Perhaps } else { Verdict::No }
    }
}

/// Revocations that no record of a log tells of, though some of them may be of those that they revoke.
#[derive(Default)]
pub(super) struct Untold {
    /// By revision, the issuers whose principals were let in.
    let_in: HashMap<String, HashSet<String>>,
    /// Revoked subjects that a record has, by issuer.
    met: HashSet<(String, String)>,
}

impl Untold {
    /// Takes note of a record that a verified token came with.
    ///
    /// `was_revoked`: it was refused.
    pub(super) fn note(
        &mut self,
        of: &Revocations,
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

    /// In words, for stderr; nothing where there is nothing to tell.
    pub(super) fn warning(&self, of: &Revocations) -> String {
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
                ids.extend(new.map(|id| (&**issuer, id)));
            }
        }
        ids.retain(|(issuer, id)| !self.met.contains(&((*issuer).to_owned(), (*id).to_owned())));
        let mut out = String::new();
        if !ids.is_empty() {
            let shown: Vec<_> = ids
                .iter()
                .take(MAX_IDS_SHOWN)
                .map(|(issuer, id)| format!("`{}` of `{issuer}`", plain(id)))
                .collect();
            let more = ids.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            // Writing to a string does not fail.
            _ = writeln!(
                out,
                "warning: the policy revokes {} whose id is the subject of no record: {}{more}\n  help: where that is an \
                 `oid`, no record tells it, and their requests are decided as if it were not revoked",
                counted(ids.len(), "principal"),
                shown.join(", "),
            );
        }
        if !tokens.is_empty() {
            _ = writeln!(
                out,
                "warning: the policy revokes {}, and records do not tell with which they came\n  help: requests are \
                 decided as if it were not revoked",
                counted(tokens.len(), "token"),
            );
        }
        out
    }
}
