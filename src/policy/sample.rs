//! A request that nobody sent: what `explain`, the tests of a policy and `replay` decide, by the same checks in the
//! same order as a request that came.

use super::snapshot::{GroupId, Snapshot};
use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller};
use crate::reason::Reason;
use crate::route::{route_raw, table};
use crate::scope::{Backend, BackendSet, Scope};
use crate::tenant::TenantList;
use crate::token::claims::{Claims, Identity, Origin, read_claims};

/// What a request does, to which backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// The scope it needs.
    pub scope: Scope,
    /// The backends that it may be for; restrictions for any of them apply.
    pub backends: BackendSet,
}

impl Action {
    /// A request of this scope. None where none of the named backends has a route for it.
    ///
    /// `named`: the backends that the nginx server is for; empty: the backend of the scope's signal, and for rules and
    /// alerts any.
    pub fn of_scope(scope: Scope, named: BackendSet) -> Option<Self> {
        if named.is_empty() {
            return Some(Self { scope, backends: backends_of(scope) });
        }
        let backends = table()
            .filter(|row| row.scope == Some(scope) && named.contains(row.backend))
            .fold(BackendSet::EMPTY, |set, row| set.union(BackendSet::of(row.backend)));
        (!backends.is_empty()).then_some(Self { scope, backends })
    }

    /// A request by its method and raw path, which a query may follow.
    ///
    /// `named`: the backends that the nginx server is for; empty: all, as in nginx.
    ///
    /// # Errors
    /// The reason for which no route serves it.
    pub fn of_request(named: BackendSet, method: &str, path: &str) -> Result<Self, Reason> {
        let consulted = if named.is_empty() { BackendSet::ALL } else { named };
        let route = route_raw(consulted, "", method.as_bytes(), path.as_bytes(), None)?;
        Ok(Self { scope: route.scope, backends: route.backends })
    }
}

/// Where requests of a scope go: a signal has one backend, rules and alerts have several.
fn backends_of(scope: Scope) -> BackendSet {
    match scope {
        Scope::MetricsRead | Scope::MetricsWrite => BackendSet::of(Backend::Mimir),
        Scope::LogsRead | Scope::LogsWrite | Scope::LogsDelete => BackendSet::of(Backend::Loki),
        Scope::TracesRead | Scope::TracesWrite => BackendSet::of(Backend::Tempo),
        Scope::ProfilesRead | Scope::ProfilesWrite => BackendSet::of(Backend::Pyroscope),
        Scope::RulesRead | Scope::RulesWrite | Scope::AlertsRead | Scope::AlertsWrite => BackendSet::ALL,
    }
}

/// Whether nginx would let a request of this method through: it answers 400 to others, before tenantauth sees them.
pub fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte))
}

/// The tenants of a header. Several on a write are refused, where it is known that it is one.
///
/// # Errors
/// [`Reason::TenantMissing`], [`Reason::TenantMalformed`].
pub fn tenants(header: &str, scope: Option<Scope>) -> Result<TenantList<'_>, Reason> {
    if header.is_empty() {
        return Err(Reason::TenantMissing);
    }
    let tenants = TenantList::parse(header.as_bytes()).map_err(|_| Reason::TenantMalformed)?;
    if tenants.len() > 1 && scope.is_some_and(Scope::takes_one_tenant) {
        return Err(Reason::TenantMalformed);
    }
    Ok(tenants)
}

/// Whom claims speak for that nobody signed: the position of their issuer, and what they say.
///
/// `json`: the claims; without `iss` they are those of the only issuer. `now`: Unix seconds.
///
/// # Errors
/// The reason for which a token of these claims would be refused.
pub fn identity(snapshot: &Snapshot, json: &[u8], now: u64) -> Result<(usize, Identity), Reason> {
    let claims = Claims::parse(json)?;
    let issuer = match claims.issuer()? {
        Some(issuer) => snapshot.issuers.iter().position(|rules| *rules.issuer == *issuer),
        None => (snapshot.issuers.len() == 1).then_some(0),
    };
    let issuer = issuer.ok_or(Reason::TokenIssuer)?;
    let rules = snapshot.issuers.get(issuer).ok_or(Reason::TokenIssuer)?;
    Ok((issuer, read_claims(&claims, rules, Origin::Sample, now)?))
}

/// A request, each part as far as it is good.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The value of `X-Scope-OrgID`.
    pub tenants: &'a str,
    /// What it does, or why no route serves it.
    pub action: Result<Action, Reason>,
    /// The principal's groups in the snapshot that decides, or why there is no principal.
    pub groups: Result<&'a [GroupId], Reason>,
    /// Whether it is a user or a service account.
    pub caller: Caller<'a>,
    /// Where the user is, or why that is not known.
    pub client_ip: Result<ClientIp, Reason>,
    /// Unix seconds.
    pub now: u64,
}

impl Sample<'_> {
    /// Hands the request to `decide`, if it comes that far: header, path, tenants and token are looked at before, in
    /// the promised order. Of an owner whose rules are not known that is said before anything of a token.
    ///
    /// # Errors
    /// The reason of the first of these checks that denies.
    pub fn reach<T>(
        &self,
        snapshot: &Snapshot,
        decide: impl FnOnce(&AccessRequest<'_>) -> T,
    ) -> Result<T, Reason> {
        if self.tenants.is_empty() {
            return Err(Reason::TenantMissing);
        }
        let action = self.action?;
        let tenants = tenants(self.tenants, Some(action.scope))?;
        let is_known = || snapshot.unavailable_owner(&tenants).is_none();
        let groups =
            self.groups.map_err(|reason| if is_known() { reason } else { Reason::PolicyUnavailable })?;
        Ok(decide(&AccessRequest {
            groups,
            caller: self.caller,
            tenants: &tenants,
            scope: action.scope,
            backends: action.backends,
            client_ip: self.client_ip,
            now: self.now,
        }))
    }
}
