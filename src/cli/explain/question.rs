//! One request, however it was described, and what is to be shown of its decision.

use super::super::check::Entry;
use super::super::policy::Policy;
use super::super::timestamp;
use super::report::{AccountSeen, Applied, Asked, Explanation, RuleName, Shadow, TenantRules, Tenants, Who};
use crate::client_ip::ClientIp;
use crate::decision::{Caller, Decision, Trace, explain};
use crate::policy::sample::{Action, Sample, tenants};
use crate::policy::snapshot::{GroupId, ServiceAccount, Snapshot};
use crate::reason::Reason;
use crate::scope::Backend;
use std::path::Path;

/// A request, each part as far as it is good.
pub(super) struct Question<'q> {
    /// The value of `X-Scope-OrgID`.
    pub(super) tenants: &'q str,
    pub(super) method: Option<String>,
    /// Raw.
    pub(super) path: Option<String>,
    /// What it does, or why no route serves it.
    pub(super) action: Result<Action, Reason>,
    pub(super) who: Who,
    /// The principal's groups, or why there is no principal.
    pub(super) groups: Result<&'q [GroupId], Reason>,
    pub(super) caller: Caller<'q>,
    pub(super) account: Option<&'q ServiceAccount>,
    /// The client's address, a service account's TCP peer.
    pub(super) client_ip: Result<ClientIp, Reason>,
    /// Unix seconds.
    pub(super) now: u64,
}

impl Question<'_> {
    /// Every stage is looked at, so that each can be shown; the first that denies is the reason, as in nginx.
    ///
    /// `path`: what the policy was asked for by. `known`: the decision, where more than the rules made it.
    pub(super) fn explain(&self, path: &Path, policy: &Policy, known: Option<Decision>) -> Explanation {
        let snapshot = &policy.compiled.snapshot;
        let (action, now) = (self.action, self.now);
        let tenants = tenants(self.tenants, action.ok().map(|action| action.scope));
        let sample = Sample {
            tenants: self.tenants,
            action,
            groups: self.groups,
            caller: self.caller,
            client_ip: self.client_ip,
            now,
        };
        let trace = sample
            .reach(snapshot, |request| explain(snapshot, request))
            .unwrap_or_else(|reason| Trace { decision: Decision::denied(reason), tenants: Vec::new() });
        let client = self.client_ip.ok();
        Explanation {
            applied: applied(snapshot, known.unwrap_or(trace.decision), now),
            recorded: None,
            diagnostics: policy.refused().map(Entry::of).collect(),
            owners: policy.owners_behind(),
            policy_source: policy.source(),
            policy: path.display().to_string(),
            revision: snapshot.revision.to_string(),
            time: timestamp(now),
            principal: self.who.clone(),
            service_account: self.account.map(|account| AccountSeen::of(account, snapshot, client)),
            request: Asked {
                method: self.method.clone(),
                path: self.path.clone(),
                scope: action.ok().map(|action| action.scope.name()),
                backends: action.ok().map(|action| action.backends.iter().map(Backend::name).collect()),
                refused: action.err().map(Reason::name),
                client_ip: client.map(|address| address.to_string()),
            },
            tenants: Tenants {
                header: self.tenants.to_owned(),
                refused: tenants.as_ref().err().map(|reason| reason.name()),
                rules: trace
                    .tenants
                    .iter()
                    .map(|found| TenantRules::of(found, snapshot, client, now))
                    .collect(),
            },
        }
    }
}

/// What is applied, and what would have been, in the terms of an audit record.
fn applied(snapshot: &Snapshot, found: Decision, now: u64) -> Applied {
    let shadow_until = snapshot.shadow_until.filter(|_| snapshot.is_shadow(now));
    let restriction = found.restriction.and_then(|rule| restriction_name(snapshot, rule));
    let answer = (!found.is_allow()).then(|| found.reason().sentence());
    let grant = found.grant.and_then(|grant| grant_name(snapshot, grant));
    match shadow_until {
        Some(until) => Applied {
            decision: "allow",
            reason: Some(Reason::Granted.name()),
            mode: "shadow",
            shadow_until: Some(timestamp(until)),
            answer: None,
            grant,
            restriction: None,
            shadow: Some(Shadow {
                decision: found.effect(),
                reason: found.reason().name(),
                restriction,
                answer,
            }),
        },
        None => Applied {
            decision: found.effect(),
            reason: Some(found.reason().name()),
            mode: "enforce",
            shadow_until: None,
            answer,
            grant,
            restriction,
            shadow: found.shadow.map(|shadow| Shadow {
                decision: "deny",
                reason: shadow.reason.name(),
                restriction: restriction_name(snapshot, shadow.restriction),
                answer: None,
            }),
        },
    }
}

fn grant_name(snapshot: &Snapshot, number: u32) -> Option<RuleName> {
    let grant = snapshot.grants.get(usize::try_from(number).ok()?)?;
    Some(RuleName::of(&grant.name, grant.owner, grant.line, snapshot))
}

fn restriction_name(snapshot: &Snapshot, number: u32) -> Option<RuleName> {
    let restriction = snapshot.restrictions.get(usize::try_from(number).ok()?)?;
    Some(RuleName::of(&restriction.name, restriction.owner, restriction.line, snapshot))
}
