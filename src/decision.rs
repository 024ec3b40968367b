//! The decision: pure, total, and denying wherever nothing allows.
//!
//! Nothing here looks at a clock, a file or a header; what it needs is in the request and the snapshot.

mod memory;

use crate::client_ip::ClientIp;
use crate::network::NetworkSet;
use crate::policy::snapshot::{Grant, GrantOutcome, GroupId, Restriction, RestrictionOutcome, Snapshot};
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use crate::tenant::{TenantList, TenantPattern};
use memory::Memory;

/// Everything a decision depends on besides the policy. Each part is proven by its type.
#[derive(Clone, Debug)]
pub struct AccessRequest<'a> {
    /// The principal's groups in the snapshot that decides: sorted, without duplicates.
    pub groups: &'a [GroupId],
    /// Whether it is a user or a service account, with what only that kind has.
    pub caller: Caller<'a>,
    /// The tenants the request names.
    pub tenants: &'a TenantList<'a>,
    /// What it does.
    pub scope: Scope,
    /// The backends that know its path.
    pub backends: BackendSet,
    /// Where the user is, or why that is not known; of a service account, its TCP peer.
    pub client_ip: Result<ClientIp, Reason>,
    /// Unix seconds.
    pub now: u64,
}

/// Who asks: restrictions bind users, and a service account has networks of its own.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// A user.
    User {
        /// The groups by which restrictions bind: the principal's, and those of them that were revoked, so that no
        /// revocation lifts a restriction. Sorted, without duplicates.
        bound_by: &'a [GroupId],
    },
    /// A service account.
    Service {
        /// Where its requests must come from; `None`: anywhere.
        networks: Option<&'a NetworkSet>,
    },
}

/// What is done with a request, why, and which rules had the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    reason: Reason,
    /// The grant that allowed it; for several tenants that of the first.
    pub grant: Option<u32>,
    /// The restriction that denied it.
    pub restriction: Option<u32>,
    /// What a restriction in shadow mode would have denied.
    pub shadow: Option<ShadowDenial>,
    /// Of a denial that is about a tenant: the first such one, by its place in canonical order.
    denied_tenant: Option<usize>,
}

/// A denial that was recorded and not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowDenial {
    /// The reason it would have had.
    pub reason: Reason,
    /// The restriction.
    pub restriction: u32,
}

impl Decision {
    /// A denial by a stage before the grants: headers, path, token.
    ///
    /// [`Reason::Granted`] is no reason to deny and becomes [`Reason::InternalError`].
    pub const fn denied(reason: Reason) -> Self {
        let reason = if matches!(reason, Reason::Granted) { Reason::InternalError } else { reason };
        Self { reason, grant: None, restriction: None, shadow: None, denied_tenant: None }
    }

    /// The same, about the tenant at this place.
    pub(crate) const fn about(self, place: usize) -> Self {
        Self { denied_tenant: Some(place), ..self }
    }

    /// An allowance by this grant.
    const fn granted(grant: u32, shadow: Option<ShadowDenial>) -> Self {
        Self { reason: Reason::Granted, grant: Some(grant), restriction: None, shadow, denied_tenant: None }
    }

    /// The first of the request's tenants that it was denied for; `None` where it was allowed, or the denial is about
    /// no tenant.
    pub fn denied_tenant<'t>(&self, tenants: &TenantList<'t>) -> Option<&'t str> {
        tenants.iter().nth(self.denied_tenant?)
    }

    /// Whether the request may go on.
    pub fn is_allow(&self) -> bool {
        self.reason == Reason::Granted
    }

    /// `allow` or `deny`.
    pub fn effect(&self) -> &'static str {
        if self.is_allow() { "allow" } else { "deny" }
    }

    /// The one reason.
    pub const fn reason(&self) -> Reason {
        self.reason
    }
}

/// Decides one request: every tenant must be granted for the scope; then, for a user, every restriction that applies
/// must contain the client, and for a service account its own networks.
pub fn decide(snapshot: &Snapshot, request: &AccessRequest<'_>) -> Decision {
    if snapshot.unavailable_owner(request.tenants).is_some() {
        return Decision::denied(Reason::PolicyUnavailable);
    }
    let mut first_grant = None;
    let mut scope_missing = None;
    for (place, tenant) in request.tenants.iter().enumerate() {
        match best_grant(snapshot, request, tenant) {
            Found::Grant(grant) => first_grant = first_grant.or(Some(grant)),
            Found::OtherScope => scope_missing = scope_missing.or(Some(place)),
            // A tenant that is not granted at all is told before a scope that is missing on another.
            Found::Nothing => return Decision::denied(Reason::TenantForbidden).about(place),
        }
    }
    if let Some(place) = scope_missing {
        return Decision::denied(Reason::ScopeForbidden).about(place);
    }
    let Some(grant) = first_grant else { return Decision::denied(Reason::TenantForbidden) };
    let bound_by = match request.caller {
        Caller::User { bound_by } => bound_by,
        Caller::Service { networks } => {
            return match networks {
                Some(networks) if !is_in(networks, request) => Decision::denied(Reason::IpForbidden),
                _ => Decision::granted(grant, None),
            };
        }
    };
    match first_violations(snapshot, request, bound_by) {
        Violations::Denial { reason, restriction, place } => {
            Decision { restriction: Some(restriction), ..Decision::denied(reason).about(place) }
        }
        Violations::Shadow(shadow) => Decision::granted(grant, shadow),
    }
}

enum Found {
    Grant(u32),
    OtherScope,
    Nothing,
}

/// The first grant of the document that allows this tenant.
fn best_grant(snapshot: &Snapshot, request: &AccessRequest<'_>, tenant: &str) -> Found {
    let mut best = None;
    let mut other_scope = false;
    // A rule is found by each of its groups and patterns: one that has exceptions is held against the tenant once.
    let mut excepting = Memory::new();
    let mut bounds = Bounds::of(tenant);
    snapshot.grant_index.each_rule(tenant, request.groups, &mut |rule| {
        // Only a rule that would change the answer is looked at.
        if best.is_some_and(|best: u32| best <= rule) {
            return;
        }
        let Some(grant) = rule_at(&snapshot.grants, rule) else { return };
        let allows = grant.scopes.contains(request.scope);
        if (!allows && (other_scope || best.is_some())) || grant.has_expired(request.now) {
            return;
        }
        let is_plain = grant.within_bounds && grant.except_tenants.is_empty();
        if !is_plain {
            if excepting.get(rule).is_some() {
                return;
            }
            let in_bounds = grant.within_bounds || bounds.hold(snapshot, grant.owner);
            if !in_bounds || grant.excepts(tenant) {
                return excepting.set(rule, ());
            }
        }
        if allows {
            best = Some(rule);
        } else {
            other_scope = true;
        }
    });
    match best {
        Some(rule) => Found::Grant(rule),
        None if other_scope => Found::OtherScope,
        None => Found::Nothing,
    }
}

/// Whether a tenant lies within owners' bounds: the rules of one owner come one after the other, and ask for the same.
struct Bounds<'t> {
    tenant: &'t str,
    last: Option<(Option<u32>, bool)>,
}

impl<'t> Bounds<'t> {
    const fn of(tenant: &'t str) -> Self {
        Self { tenant, last: None }
    }

    #[cold]
    fn hold(&mut self, snapshot: &Snapshot, owner: Option<u32>) -> bool {
        match self.last {
            // The platform has none.
            _ if owner.is_none() => true,
            Some((last, hold)) if last == owner => hold,
            _ => {
                let hold = snapshot.is_in_bounds(owner, self.tenant);
                self.last = Some((owner, hold));
                hold
            }
        }
    }
}

/// What is known of a restriction that a request meets.
#[derive(Clone, Copy)]
enum Stand {
    /// It denies no tenant: it is for other scopes or groups, or the client is inside.
    Satisfied,
    /// It denies every tenant that it binds. This one, by its position, it does not.
    Violated(usize),
}

/// The restrictions that a request violates.
enum Violations {
    /// One that is enforced, on the tenant at this place.
    Denial { reason: Reason, restriction: u32, place: usize },
    /// None but in shadow mode, if any.
    Shadow(Option<ShadowDenial>),
}

/// The first enforced, or else the first shadowed restriction that the request violates, in the order of tenants and
/// then of the document.
fn first_violations(snapshot: &Snapshot, request: &AccessRequest<'_>, bound_by: &[GroupId]) -> Violations {
    let mut shadow: Option<ShadowDenial> = None;
    // A rule is found by each of its groups, patterns and tenants: what does not depend on the tenant is looked at once, and
    // each tenant once.
    let mut known = Memory::new();
    for (place, tenant) in request.tenants.iter().enumerate() {
        let mut denied: Option<u32> = None;
        let mut shadowed: Option<u32> = None;
        let mut bounds = Bounds::of(tenant);
        snapshot.restriction_index.each_rule(tenant, bound_by, &mut |rule| {
            let Some(restriction) = rule_at(&snapshot.restrictions, rule) else { return };
            let first = if restriction.shadow { &mut shadowed } else { &mut denied };
            // Nothing comes of a second denial in shadow mode.
            if first.is_some_and(|first| first <= rule) || (restriction.shadow && shadow.is_some()) {
                return;
            }
            if !restriction.scopes.cover(request.scope, request.backends) {
                return;
            }
            match known.get(rule) {
                Some(Stand::Satisfied) => return,
                Some(Stand::Violated(other)) if other == place => return,
                Some(Stand::Violated(_)) => {}
                None => {
                    if is_inside(restriction, request) || restriction.excepts_groups(request.groups) {
                        return known.set(rule, Stand::Satisfied);
                    }
                }
            }
            let in_bounds = restriction.within_bounds || bounds.hold(snapshot, restriction.owner);
            if in_bounds && !restriction.excepts_tenant(tenant) {
                *first = Some(rule);
            } else {
                known.set(rule, Stand::Violated(place));
            }
        });
        let reason = request.client_ip.err().unwrap_or(Reason::IpForbidden);
        if let Some(restriction) = denied {
            return Violations::Denial { reason, restriction, place };
        }
        if let (None, Some(restriction)) = (shadow, shadowed) {
            shadow = Some(ShadowDenial { reason, restriction });
        }
    }
    Violations::Shadow(shadow)
}

fn rule_at<T>(rules: &[T], number: u32) -> Option<&T> {
    usize::try_from(number).ok().and_then(|number| rules.get(number))
}

fn is_inside(restriction: &Restriction, request: &AccessRequest<'_>) -> bool {
    is_in(&restriction.networks, request)
}

fn is_in(networks: &NetworkSet, request: &AccessRequest<'_>) -> bool {
    request.client_ip.is_ok_and(|client| networks.contains(client.addr()))
}

/// Every rule that took part in a decision, for people.
#[derive(Debug)]
pub struct Trace<'s> {
    /// The decision itself, made by [`decide`].
    pub decision: Decision,
    /// Tenant by tenant, in canonical order.
    pub tenants: Vec<TenantTrace<'s>>,
}

/// The rules that name one tenant.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct TenantTrace<'s> {
    pub tenant: String,
    pub grants: Vec<(&'s Grant, GrantOutcome)>,
    pub restrictions: Vec<(&'s Restriction, RestrictionOutcome)>,
}

/// Decides a request and lists every rule that names one of its tenants. Looks at all rules, one by one.
pub fn explain<'s>(snapshot: &'s Snapshot, request: &AccessRequest<'_>) -> Trace<'s> {
    // No restriction binds a service account.
    let bound_by = match request.caller {
        Caller::User { bound_by } => bound_by,
        Caller::Service { .. } => &[],
    };
    let names =
        |patterns: &[TenantPattern], tenant: &str| patterns.iter().any(|pattern| pattern.matches(tenant));
    let tenants = request
        .tenants
        .iter()
        .map(|tenant| TenantTrace {
            tenant: tenant.to_owned(),
            grants: snapshot
                .grants
                .iter()
                .filter(|grant| names(&grant.tenants, tenant) && !grant.excepts(tenant))
                .filter(|grant| snapshot.is_in_bounds(grant.owner, tenant))
                .map(|grant| (grant, grant.outcome(request.groups, request.scope, request.now)))
                .collect(),
            restrictions: snapshot
                .restrictions
                .iter()
                .filter(|rule| names(&rule.tenants, tenant) && !rule.excepts_tenant(tenant))
                .filter(|rule| snapshot.is_in_bounds(rule.owner, tenant))
                .filter_map(|rule| {
                    let (scope, backends) = (request.scope, request.backends);
                    let client = request.client_ip.ok();
                    Some((rule, rule.outcome(request.groups, bound_by, scope, backends, client)?))
                })
                .collect(),
        })
        .collect();
    Trace { decision: decide(snapshot, request), tenants }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
