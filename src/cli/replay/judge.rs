//! A recorded request, decided again.
//!
//! A record lists those of a person's groups that the policy of its time named. What the new policy names besides may
//! have been held or not: where that decides, the outcome is not known.

use super::record::Record;
use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller, Decision, decide};
use crate::policy::sample::{Action, Sample};
use crate::policy::snapshot::{EVERYONE, GroupId, Restriction, SERVICE, Snapshot};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};
use crate::tenant::TenantList;
use hashbrown::{HashMap, HashSet};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Decided alike.
    Same,
    /// Denied as before, or allowed as before, for another reason.
    OtherReason(Decision),
    /// Allowed instead of denied, or the other way round.
    Changed(Decision),
    /// It depends on groups that were not recorded.
    Unknown(Decision),
    /// It was denied before any rule of the policy was asked: headers, path, token.
    BeforeRules,
    /// It was not decided: nginx refused it, or there was no policy.
    Undecided,
}

/// The record says something that no record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Corrupt(pub(super) String);

/// Which groups each policy named, as far as that is known.
#[derive(Default)]
struct Named(HashMap<Box<str>, HashSet<Box<str>>>);

impl Named {
    /// A record of this revision may name these groups, so all that do not have told that they were not held. Returns
    /// whether that is news.
    fn learn<'g>(&mut self, revision: &str, groups: impl Iterator<Item = &'g str>) -> bool {
        let mut news = false;
        if !self.0.contains_key(revision) {
            self.0.insert(revision.into(), HashSet::new());
            news = true;
        }
        let Some(known) = self.0.get_mut(revision) else { return news };
        for group in groups {
            if !known.contains(group) {
                known.insert(group.into());
                news = true;
            }
        }
        news
    }

    /// Everything that a policy names.
    fn learn_policy(&mut self, snapshot: &Snapshot) {
        let groups = &snapshot.groups;
        self.learn(&snapshot.revision, groups.ids().map(|id| groups.name(id)));
    }
}

/// Decides records by one policy.
pub(super) struct Judge<'s> {
    pub(super) snapshot: &'s Snapshot,
    named: Named,
    /// By revision: the groups of which its records do not tell whether they were held.
    untold: HashMap<Box<str>, HashSet<GroupId>>,
    /// The same where nothing is known of the policy.
    all_untold: HashSet<GroupId>,
    /// The raw groups that stand for each group.
    raw_of: HashMap<GroupId, Vec<&'s str>>,
    /// Unix seconds; without it each request is decided at its own time.
    pub(super) now: Option<u64>,
}

impl<'s> Judge<'s> {
    pub(super) fn of(snapshot: &'s Snapshot, now: Option<u64>) -> Self {
        let mut raw_of: HashMap<GroupId, Vec<&str>> = HashMap::new();
        for (raw, ids) in snapshot.groups.raw_groups() {
            for id in ids {
                raw_of.entry(*id).or_default().push(raw);
            }
        }
        let all_untold = snapshot.groups.ids().filter(|id| *id != EVERYONE).collect();
        let (named, untold) = (Named::default(), HashMap::new());
        let mut judge = Self { snapshot, named, untold, all_untold, raw_of, now };
        judge.learn_policy(snapshot);
        judge
    }

    /// Takes note of everything that a policy names under which records were made.
    pub(super) fn learn_policy(&mut self, snapshot: &Snapshot) {
        self.named.learn_policy(snapshot);
        self.note(&snapshot.revision);
    }

    /// Takes note of the groups of one record.
    pub(super) fn learn<'g>(&mut self, revision: &str, groups: impl Iterator<Item = &'g str>) {
        if self.named.learn(revision, groups) {
            self.note(revision);
        }
    }

    fn note(&mut self, revision: &str) {
        let Some(known) = self.named.0.get(revision) else { return };
        let is_told = |id: &GroupId| {
            known.contains(self.snapshot.groups.name(*id))
                || self.raw_of.get(id).is_some_and(|raw| raw.iter().all(|raw| known.contains(*raw)))
        };
        let untold = self.all_untold.iter().copied().filter(|id| !is_told(id)).collect();
        self.untold.insert(revision.into(), untold);
    }

    pub(super) fn fate(&self, record: &Record<'_>) -> Result<Fate, Corrupt> {
        let Some((allowed, reason)) = recorded(record)? else { return Ok(Fate::Undecided) };
        if matches!(reason, Reason::PolicyUnavailable | Reason::InternalError | Reason::KeysUnavailable) {
            return Ok(Fate::Undecided);
        }
        let (Some(groups), Some(tenants), Some(scope)) = (&record.groups, &record.tenants, &record.scope)
        else {
            return if allowed {
                Err(corrupt("an allowed request without tenants"))
            } else {
                Ok(Fate::BeforeRules)
            };
        };
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
        let issuer = match &record.issuer {
            Some(name) => self.snapshot.issuer_names.iter().position(|known| **known == **name),
            None => None,
        };
        let names: Vec<&str> = groups.iter().map(|group| &*group.0).collect();
        if record.issuer.as_deref() == Some(SERVICE)
            && names.first().is_none_or(|name| self.snapshot.service_account(name).is_none())
        {
            let decision = Decision::denied(Reason::TokenUnknown);
            return Ok(if allowed { Fate::Changed(decision) } else { Fate::OtherReason(decision) });
        }
        let account = names.first().and_then(|name| self.snapshot.service_account(name));
        // Without a principal that the policy knows it is a question of what it would say to another.
        let (held, known) = match self.snapshot.groups.of_names(&names) {
            Ok((found, held)) => (Some(held), issuer.is_some() && found == issuer),
            Err(_) => (None, false),
        };
        let user = held.as_ref().map_or(&[][..], |held| &held.groups);
        let bound_by = held.as_ref().map_or(&[][..], |held| held.binding());
        let (groups, caller, client_ip) = match account {
            Some(account) => {
                let peer = record.peer.as_deref().unwrap_or_default();
                let networks = account.networks.as_ref();
                (&*account.groups, Caller::Service { networks }, ClientIp::parse(peer.as_bytes()))
            }
            None => (user, Caller::User { bound_by }, client_ip),
        };
        let sample =
            Sample { tenants: &tenants, action: Ok(action), groups: Ok(groups), caller, client_ip, now };
        let (decision, open) = sample
            .reach(self.snapshot, |request| {
                let decision = decide(self.snapshot, request);
                let open = account.is_none() && (!known || self.could_differ(record, request, decision));
                (decision, open)
            })
            .map_err(|reason| corrupt(&format!("its tenants are refused ({reason})")))?;
        Ok(if open {
            Fate::Unknown(decision)
        } else if decision.is_allow() != allowed {
            Fate::Changed(decision)
        } else if decision.reason() != reason {
            Fate::OtherReason(decision)
        } else {
            Fate::Same
        })
    }

    /// Whether groups that were not recorded could turn the decision. Rather yes than no.
    fn could_differ(&self, record: &Record<'_>, request: &AccessRequest<'_>, decision: Decision) -> bool {
        let revision = record.policy_revision.as_deref().unwrap_or_default();
        let untold = self.untold.get(revision).unwrap_or(&self.all_untold);
        if untold.is_empty() {
            return false;
        }
        let untold = |id: &GroupId| untold.contains(id) && request.groups.binary_search(id).is_err();
        let violated = |rule: &&Restriction| {
            !rule.shadow
                && rule.scopes.cover(request.scope, request.backends)
                && !request.client_ip.is_ok_and(|client| rule.networks.contains(client.addr()))
        };
        let names = |rule: &Restriction, tenant: &str| {
            rule.tenants.iter().any(|pattern| pattern.matches(tenant)) && !rule.excepts_tenant(tenant)
        };
        let touching = || {
            let restrictions = self.snapshot.restrictions.iter().filter(violated);
            restrictions.filter(|rule| request.tenants.iter().any(|tenant| names(rule, tenant)))
        };
        if decision.is_allow() {
            return touching()
                .any(|rule| !rule.excepts_groups(request.groups) && rule.groups.iter().any(untold));
        }
        let holds =
            |groups: &[GroupId]| groups.iter().any(|group| request.groups.binary_search(group).is_ok());
        // Each restriction that denies would have to except a group that was not recorded,
        let bound = |rule: &&Restriction| holds(&rule.groups) && !rule.excepts_groups(request.groups);
        let kept_out = touching().filter(bound).any(|rule| !rule.except_groups.iter().any(untold));
        // and each tenant be granted to one that is held or was not recorded.
        !kept_out && self.could_be_granted(request.tenants, request, untold)
    }

    fn could_be_granted(
        &self,
        tenants: &TenantList<'_>,
        request: &AccessRequest<'_>,
        untold: impl Fn(&GroupId) -> bool,
    ) -> bool {
        tenants.iter().all(|tenant| {
            self.snapshot.grants.iter().any(|grant| {
                grant.scopes.contains(request.scope)
                    && !grant.has_expired(request.now)
                    && grant.tenants.iter().any(|pattern| pattern.matches(tenant))
                    && !grant.excepts(tenant)
                    && grant.groups.iter().any(|group| {
                        request.groups.binary_search(group).is_ok() || *group == EVERYONE || untold(group)
                    })
            })
        })
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

fn corrupt(what: &str) -> Corrupt {
    Corrupt(what.to_owned())
}

#[cfg(test)]
mod tests;
