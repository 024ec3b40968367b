//! What a rule says about a request that names one of its tenants, for those who look at all rules: `explain` and
//! `access`. A decision asks in another order, the indexed groups first.

use super::{Grant, GroupId, Restriction};
use crate::client_ip::ClientIp;
use crate::scope::{BackendSet, Scope};

/// How one grant stood to one tenant of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantOutcome {
    /// It allows the tenant and scope.
    Allows,
    /// It names the tenant and a group of the principal, but not the scope.
    OtherScope,
    /// It names the tenant and a group of the principal, but has run out, and so says nothing about scopes either.
    Expired,
    /// It names the tenant, but none of the principal's groups.
    OtherGroups,
}

/// How one restriction stood to one tenant of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestrictionOutcome {
    /// The client is inside.
    Satisfied,
    /// The client is outside, or not known.
    Violated,
    /// The principal holds one of its excepted groups.
    Excepted,
}

impl Grant {
    /// Whether it is for one of these groups. `groups`: sorted.
    pub fn is_for(&self, groups: &[GroupId]) -> bool {
        meet(&self.groups, groups)
    }

    /// What it says of a request that names a tenant which it covers.
    ///
    /// `groups`: what counts for grants, sorted. `now`: Unix seconds.
    pub fn outcome(&self, groups: &[GroupId], scope: Scope, now: u64) -> GrantOutcome {
        if !self.is_for(groups) {
            GrantOutcome::OtherGroups
        } else if self.has_expired(now) {
            GrantOutcome::Expired
        } else if !self.scopes.contains(scope) {
            GrantOutcome::OtherScope
        } else {
            GrantOutcome::Allows
        }
    }
}

impl Restriction {
    /// Whether it is on one of these groups. `bound_by`: sorted.
    pub fn is_on(&self, bound_by: &[GroupId]) -> bool {
        meet(&self.groups, bound_by)
    }

    /// What it says of a request that names a tenant which it covers; `None` where it is on other groups or scopes.
    ///
    /// `groups`: what excepts, sorted. `bound_by`: what restrictions bind by, sorted. `client`: where the user is; who
    /// is nowhere violates every restriction that binds.
    pub fn outcome(
        &self,
        groups: &[GroupId],
        bound_by: &[GroupId],
        scope: Scope,
        backends: BackendSet,
        client: Option<ClientIp>,
    ) -> Option<RestrictionOutcome> {
        if !self.is_on(bound_by) || !self.scopes.cover(scope, backends) {
            return None;
        }
        Some(if self.excepts_groups(groups) {
            RestrictionOutcome::Excepted
        } else if client.is_some_and(|client| self.networks.contains(client.addr())) {
            RestrictionOutcome::Satisfied
        } else {
            RestrictionOutcome::Violated
        })
    }
}

fn meet(rule: &[GroupId], held: &[GroupId]) -> bool {
    rule.iter().any(|group| held.binary_search(group).is_ok())
}
