//! Requests of an audit log, decided again by another policy.
//!
//! What a record does not say about a person's groups may have been held or not, and whoever was revoked may be still:
//! where that decides, the outcome is not known.

mod groups;
pub(crate) mod log;
pub(crate) mod record;
mod review;
mod revoked;
mod summary;
pub(crate) mod usage;

use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller, Decision, decide};
use crate::policy::sample::{Action, Sample};
use crate::policy::snapshot::{GroupId, SERVICE, ServiceAccount, Snapshot};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};
use groups::{Groups, Holdings};
use log::{Log, LogError};
use record::{Names, Next, Record, SCHEMA};
pub(crate) use review::{Recorded, Review};
pub(crate) use revoked::Gaps;
use revoked::{History, IsRevoked, Unrecorded};
pub(crate) use summary::{Change, Counts, Summary};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Decided alike.
    Same,
    /// Denied as before, or allowed as before, for another reason.
    OtherReason(Decision),
    /// Allowed instead of denied, or the other way round.
    Changed(Decision),
    /// It depends on groups that were not recorded.
    Unknown(Decision),
    /// It was denied as revoked, and whether it still is was not recorded. If not, this is the decision, as far as that
    /// is known.
    PerhapsRevoked(Decision),
    /// What decides was cut when it was recorded.
    Cut,
    /// It was denied before any rule of the policy was asked: headers, path, token.
    BeforeRules,
    /// It was not decided: nginx refused it, or there was no policy.
    Undecided,
}

/// What a record leads to: the end of it, or a request to decide.
enum Known<'a> {
    Fate(Fate),
    Case(Box<Case<'a>>),
}

impl From<Fate> for Known<'_> {
    fn from(fate: Fate) -> Self {
        Self::Fate(fate)
    }
}

/// A recorded request that the rules are asked about.
pub(crate) struct Case<'a> {
    /// Whether it was allowed, and why.
    allowed: bool,
    reason: Reason,
    /// The policy that decides is the one that decided.
    is_own: bool,
    tenants: String,
    action: Action,
    /// Of a service account, its TCP peer.
    client_ip: Result<ClientIp, Reason>,
    now: u64,
    pub(crate) account: Option<&'a ServiceAccount>,
    /// Of a user, where the policy knows the issuer.
    held: Option<Holdings<'a>>,
}

impl Case<'_> {
    fn groups(&self) -> &[GroupId] {
        match (self.account, &self.held) {
            (Some(account), _) => &account.groups,
            (None, Some(held)) => &held.groups,
            (None, None) => &[],
        }
    }

    fn caller(&self) -> Caller<'_> {
        match (self.account, &self.held) {
            (Some(account), _) => Caller::Service { networks: account.networks.as_ref() },
            (None, held) => Caller::User { bound_by: held.as_ref().map_or(&[], |held| &held.bound_by) },
        }
    }

    /// The request.
    pub(crate) fn sample(&self) -> Sample<'_> {
        Sample {
            tenants: &self.tenants,
            action: Ok(self.action),
            groups: Ok(self.groups()),
            caller: self.caller(),
            client_ip: self.client_ip,
            now: self.now,
        }
    }
}

/// What became of a record, and of what request.
struct Judged<'a> {
    fate: Fate,
    /// As far as it is known; `None` where the rules were not asked.
    decision: Option<Decision>,
    case: Option<Box<Case<'a>>>,
}

/// The record says something that no record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt(pub(crate) String);

/// What was found in a log so far.
#[derive(Default)]
pub(crate) struct Findings {
    /// What became of its records.
    pub(crate) summary: Summary,
    unrecorded: Unrecorded,
}

/// Decides records by one policy.
pub(crate) struct Replayer<'s> {
    snapshot: &'s Snapshot,
    groups: Groups<'s>,
    revocations: History,
    /// Unix seconds; without it each request is decided at its own time.
    now: Option<u64>,
}

impl<'s> Replayer<'s> {
    /// Decides by this policy.
    ///
    /// `now`: Unix seconds; without it each request is decided at its own time.
    pub(crate) fn of(snapshot: &'s Snapshot, now: Option<u64>) -> Self {
        let (groups, revocations) = (Groups::of(snapshot), History::of(snapshot));
        let mut replayer = Self { snapshot, groups, revocations, now };
        replayer.learn_policy(snapshot);
        replayer
    }

    /// Takes note of everything that a policy names and revokes under which records were made.
    pub(crate) fn learn_policy(&mut self, snapshot: &Snapshot) {
        self.groups.learn_policy(snapshot);
        self.revocations.learn_policy(snapshot);
    }

    /// Takes note of the groups that one line names: what one record of a policy lists, all do that may. What is no
    /// record is reported when it is decided.
    pub(crate) fn learn(&mut self, line: &[u8]) {
        if let Ok(Names { schema: SCHEMA, policy_revision: Some(revision), groups: Some(groups) }) =
            serde_json::from_slice(line)
        {
            self.groups.learn(&revision, groups.iter().map(|group| &*group.0));
        }
    }

    /// Decides a record and counts what becomes of it.
    ///
    /// `line`: its number in the log. Returns what is worth showing.
    ///
    /// # Errors
    /// The record says something that no record says.
    pub(crate) fn replay<'a>(
        &'a self,
        record: &'a Record<'_>,
        line: u64,
        found: &mut Findings,
    ) -> Result<Option<Change<'a>>, Corrupt> {
        let fate = self.judge(record)?.fate;
        // A part of a subject is another's; and without groups the token was refused, whoever it names.
        if !record.is_cut()
            && record.groups.is_some()
            && let (Some(issuer), Ok(Some((_, reason)))) = (&record.issuer, recorded(record))
        {
            let subject = record.subject.as_deref().unwrap_or_default();
            let was_revoked = reason == Reason::TokenRevoked;
            let at = self.now.map_or_else(|| time(record), Ok)?;
            found.unrecorded.note(&self.revocations, revision(record), issuer, subject, was_revoked, at);
        }
        Ok(found.summary.count(record, fate, self.snapshot, line))
    }

    /// What the policy revokes and no record has that was replayed.
    pub(crate) fn gaps(&self, found: &Findings) -> Gaps {
        found.unrecorded.gaps(&self.revocations)
    }

    /// Takes note of the groups that the records of a log name.
    ///
    /// `read`: is called with the bytes that were read of each line.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn learn_log(&mut self, log: &mut Log, mut read: impl FnMut(u64)) -> Result<(), LogError> {
        let mut line = Vec::new();
        loop {
            let (found, bytes) = log.next(&mut line)?;
            read(bytes);
            match found {
                Next::End => return Ok(()),
                Next::TooLong => {}
                Next::Read => self.learn(&line),
            }
        }
    }

    /// What becomes of a record.
    fn judge(&self, record: &Record<'_>) -> Result<Judged<'_>, Corrupt> {
        let case = match self.case(record)? {
            Known::Fate(fate) => return Ok(Judged { fate, decision: None, case: None }),
            Known::Case(case) => case,
        };
        let (mut decision, mut open) = case
            .sample()
            .reach(self.snapshot, |request| {
                let decision = decide(self.snapshot, request);
                let could_differ = |held| self.could_differ(request, decision, held);
                (decision, case.account.is_none() && case.held.as_ref().is_none_or(could_differ))
            })
            .map_err(|reason| corrupt(&format!("its tenants are refused ({reason})")))?;
        let (issuer, subject) = (record.issuer.as_deref().unwrap_or_default(), record.subject.as_deref());
        let was_revoked = case.reason == Reason::TokenRevoked;
        let is_revoked = self.revocations.is_revoked(
            revision(record),
            issuer,
            subject.unwrap_or_default(),
            was_revoked,
            case.now,
        );
        if is_revoked == IsRevoked::Yes {
            (decision, open) = (Decision::denied(Reason::TokenRevoked), false);
        }
        // One that denies in any case denies whoever is revoked, too.
        let perhaps_revoked = is_revoked == IsRevoked::Perhaps && (open || decision.is_allow());
        let fate = if case.is_own && (open || perhaps_revoked || decision.is_allow() == case.allowed) {
            Fate::Same
        } else if perhaps_revoked {
            Fate::PerhapsRevoked(decision)
        } else if open {
            Fate::Unknown(decision)
        } else if decision.is_allow() != case.allowed {
            Fate::Changed(decision)
        } else if decision.reason() != case.reason {
            Fate::OtherReason(decision)
        } else {
            Fate::Same
        };
        Ok(Judged { fate, decision: Some(decision), case: Some(case) })
    }

    /// The request of a record, where the rules are to be asked about it.
    fn case(&self, record: &Record<'_>) -> Result<Known<'_>, Corrupt> {
        if record.schema != SCHEMA {
            return Err(corrupt("unknown schema"));
        }
        let Some((allowed, reason)) = recorded(record)? else { return Ok(Fate::Undecided.into()) };
        if matches!(reason, Reason::PolicyUnavailable | Reason::InternalError | Reason::KeysUnavailable) {
            return Ok(Fate::Undecided.into());
        }
        // Somebody was behind a service token: headers say so, which are not checked again.
        if reason == Reason::ServiceAttended {
            return Ok(Fate::BeforeRules.into());
        }
        let (Some(groups), Some(tenants), Some(scope)) = (&record.groups, &record.tenants, &record.scope)
        else {
            return if allowed {
                Err(corrupt("an allowed request without tenants"))
            } else {
                Ok(Fate::BeforeRules.into())
            };
        };
        // The policy that decided it decides it alike, also by what was not recorded.
        let is_own = self.now.is_none() && *revision(record) == *self.snapshot.revision;
        if record.is_cut() {
            return Ok(if is_own { Fate::Same } else { Fate::Cut }.into());
        }
        let scope = Scope::from_name(scope).ok_or_else(|| corrupt("unknown scope"))?;
        let action = Action { scope, backends: backends(record, scope)? };
        let tenants = tenants.iter().map(|tenant| &*tenant.0).collect::<Vec<_>>().join("|");
        let client_ip = match &record.client_ip {
            Some(text) => {
                ClientIp::parse(text.as_bytes()).map_err(|_| corrupt("no client address")).map(Ok)?
            }
            // Allowed without an address: why there was none was not recorded.
            None if reason.name().starts_with("ip_") && reason != Reason::IpForbidden => Err(reason),
            None => Err(Reason::IpMissing),
        };
        let now = match self.now {
            Some(now) => now,
            None => time(record)?,
        };
        let (issuer, subject) = (record.issuer.as_deref().unwrap_or_default(), record.subject.as_deref());
        let subject = subject.unwrap_or_default();
        let is_user = issuer != SERVICE;
        let account = self.snapshot.service_accounts.iter().find(|account| *account.name == *subject);
        if !is_user && account.is_none() {
            let decision = Decision::denied(Reason::TokenUnknown);
            return Ok(if allowed { Fate::Changed(decision) } else { Fate::OtherReason(decision) }.into());
        }
        // Without an issuer that the policy knows it is a question of what it would say to another.
        let held =
            self.snapshot.issuer_names.iter().position(|known| **known == *issuer).and_then(|issuer| {
                self.groups.held(issuer, revision(record), groups.iter().map(|group| &*group.0))
            });
        let account = account.filter(|_| !is_user);
        let client_ip = match account {
            Some(_) => ClientIp::parse(record.peer.as_deref().unwrap_or_default().as_bytes()),
            None => client_ip,
        };
        Ok(Known::Case(Box::new(Case {
            allowed,
            reason,
            is_own,
            tenants,
            action,
            client_ip,
            now,
            account,
            held,
        })))
    }

    /// Whether groups that were not recorded could turn the decision. Rather yes than no: one may grant without binding.
    fn could_differ(&self, request: &AccessRequest<'_>, decision: Decision, held: &Holdings<'_>) -> bool {
        let at_most;
        let other = if decision.is_allow() {
            at_most = held.bound_at_most();
            AccessRequest { caller: Caller::User { bound_by: &at_most }, ..request.clone() }
        } else {
            at_most = held.groups_at_most();
            AccessRequest { groups: &at_most, ..request.clone() }
        };
        decide(self.snapshot, &other).is_allow() != decision.is_allow()
    }
}

/// Whether it was allowed and why; of a gateway in shadow mode, what it would have been. `None` where nothing was
/// decided.
fn recorded(record: &Record<'_>) -> Result<Option<(bool, Reason)>, Corrupt> {
    let Some(decision) = &record.decision else { return Ok(None) };
    let (decision, reason) = match (&record.shadow, record.mode.as_deref()) {
        (Some(shadow), Some("shadow")) => (&shadow.decision, Some(&shadow.reason)),
        _ => (decision, record.reason.as_ref()),
    };
    let reason =
        reason.and_then(|reason| Reason::from_name(reason)).ok_or_else(|| corrupt("unknown reason"))?;
    match &**decision {
        "allow" => Ok(Some((true, reason))),
        "deny" => Ok(Some((false, reason))),
        _ => Err(corrupt("unknown decision")),
    }
}

fn backends(record: &Record<'_>, scope: Scope) -> Result<BackendSet, Corrupt> {
    match record.backend.as_deref() {
        None | Some("any") => {
            let action = Action::of_scope(scope, BackendSet::EMPTY);
            Ok(action.map_or(BackendSet::ALL, |action| action.backends))
        }
        Some(name) => Backend::from_name(name).map(BackendSet::of).ok_or_else(|| corrupt("unknown backend")),
    }
}

fn time(record: &Record<'_>) -> Result<u64, Corrupt> {
    let time: Option<jiff::Timestamp> = record.time.as_deref().and_then(|text| text.parse().ok());
    time.and_then(|time| u64::try_from(time.as_second()).ok()).ok_or_else(|| corrupt("no time"))
}

fn revision<'r>(record: &'r Record<'_>) -> &'r str {
    record.policy_revision.as_deref().unwrap_or_default()
}

fn corrupt(what: &str) -> Corrupt {
    Corrupt(what.to_owned())
}

#[cfg(test)]
mod tests;
