//! What became of a request: what has to be done about it, recorded and counted.

use super::checks::Parsed;
use super::headers::Headers;
use super::rewrite::Upgrade;
use super::{Engine, Request, Server, since_epoch};
use crate::audit::{self, Clock, PrincipalMembers, Record, Text};
use crate::client_ip::{ClientIp, cookie};
use crate::decision::Decision;
use crate::metrics::{CacheUse, IpSource, Tally};
use crate::policy::snapshot::Snapshot;
use crate::reason::Reason;
use crate::route::{self, Route};
use crate::scope::{Backend, BackendSet, Scope};
use crate::tenant::{TenantList, is_tenant};

/// The decision on one request and what has to be done about it.
#[derive(Debug)]
pub struct Verdict<'v> {
    /// The decision.
    pub decision: Decision,
    /// What it adds to the counters.
    pub tally: Tally,
    /// The members of the audit record. What is left in its place is the room of the next one.
    pub record: &'v mut Text,
    /// The tenants, where the request named any that are grammatical.
    pub tenants: Option<&'v TenantList<'v>>,
    /// The header that came is not their canonical form.
    pub tenants_rewritten: bool,
    /// What is left of the cookies without the client's address; of a request that is denied, or that the gateway only
    /// watches, they are not looked at.
    pub cookies: cookie::Remaining,
    /// Header lines that go no further, by their number, each standing for all lines of its name.
    pub removed: &'v [u16],
    /// The whole gateway only records: the request goes on as it came, whatever `decision` says.
    pub shadow_mode: bool,
}

impl Verdict<'_> {
    /// Whether the request goes on.
    pub fn passes(&self) -> bool {
        self.shadow_mode || self.decision.is_allow()
    }
}

/// What is learned on the way to a decision, as far as it came.
#[derive(Default)]
pub(super) struct Facts<'a> {
    pub(super) tenants: Option<TenantList<'a>>,
    pub(super) route: Option<Route>,
    pub(super) members: Option<&'a PrincipalMembers>,
    /// Those of a token that was refused though its signature held.
    pub(super) refused: Option<Box<PrincipalMembers>>,
    pub(super) client_ip: Option<(IpSource, Result<ClientIp, Reason>)>,
    pub(super) cache: CacheUse,
}

impl Facts<'_> {
    /// The audit record of the decision. `snapshot`: of the policy that decided it.
    #[inline]
    pub(super) fn record<'r>(
        &'r self,
        parsed: &Parsed<'r, '_>,
        decision: &'r Decision,
        snapshot: Option<&'r Snapshot>,
        shadow_mode: bool,
    ) -> Record<'r> {
        let (path, query) = split_query(parsed.request.request_uri);
        Record {
            decision,
            shadow_mode,
            snapshot,
            principal: self.members.or(self.refused.as_deref()),
            tenants: self.tenants.as_ref(),
            scope: self.route.map(|route| route.scope),
            backends: self.route.map_or(parsed.server.backends, |route| route.backends),
            method: parsed.request.method,
            path,
            query,
            client_ip: self.client_ip.and_then(|(_, found)| found.ok()),
            client_ip_source: self.client_ip.map(|(source, _)| source.name()),
            peer: parsed.request.peer,
            upgrade: parsed.upgrade == Upgrade::WebSocket,
            grafana: parsed.headers.grafana,
        }
    }

    /// What the decision adds to the counters. `backends`: those of the server.
    #[inline]
    pub(super) fn tally(&self, backends: BackendSet, decision: &Decision, shadow_mode: bool) -> Tally {
        Tally {
            backends: self.route.map_or(backends, |route| route.backends),
            scope: self.route.map(|route| route.scope),
            cache: self.cache,
            client_ip: self.client_ip.map(|(source, found)| (source, found.err())),
            ..Tally::of(decision, shadow_mode)
        }
    }
}

impl Engine {
    /// The address that denials name, by the policy in force.
    pub fn denial_help(&self) -> Option<String> {
        self.live().as_deref()?.compiled.snapshot.denial_help.as_deref().map(str::to_owned)
    }

    /// Code and record of a request that could not be decided because something failed, and whether it goes on all the
    /// same: while the whole gateway only records, it does.
    pub fn internal_error(&self, backends: BackendSet, request: &Request<'_>) -> (i64, Text, bool) {
        let now = since_epoch().as_secs();
        let shadow_mode = self.live().as_deref().is_some_and(|live| live.compiled.snapshot.is_shadow(now));
        let (code, record) = undecided(Reason::InternalError, shadow_mode, backends, request);
        (code, record, shadow_mode)
    }
}

/// Code and record of a request that nothing could decide.
///
/// `shadow_mode`: it goes on all the same.
pub fn undecided(
    reason: Reason,
    shadow_mode: bool,
    backends: BackendSet,
    request: &Request<'_>,
) -> (i64, Text) {
    let server = Server {
        backends,
        path_prefix: String::new(),
        client_is_remote_addr: false,
        forward_headers: Vec::new(),
    };
    let headers = Headers::default();
    let parsed =
        Parsed { server: &server, request, headers: &headers, cookies: None, upgrade: Upgrade::None };
    let (decision, facts) = (Decision::denied(reason), Facts::default());
    let mut record = Text::default();
    let mut clock = Clock::default();
    clock.set(since_epoch());
    let known = facts.record(&parsed, &decision, None, shadow_mode);
    audit::render(&mut record, &known, &mut clock, |_| String::new());
    (facts.tally(backends, &decision, shadow_mode).to_code_or_internal_error(), record)
}

/// The tenant that a request was denied for, by its record; `None` where the denial is about no tenant, or the record
/// does not hold all of it.
///
/// `record`: the members of its audit record.
#[cold]
pub fn denied_tenant(record: &[u8]) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(&[b"{", record, b"}"].concat()).ok()?;
    let cut = record.get("truncated").and_then(serde_json::Value::as_array);
    let is_whole = cut.is_none_or(|cut| cut.iter().all(|key| key != "denied_tenant"));
    let tenant = record.get("denied_tenant").filter(|_| is_whole)?.as_str()?;
    is_tenant(tenant.as_bytes()).then(|| tenant.to_owned())
}

/// Whether a request that nginx redirected after its decision still is what was allowed: by its record, this method was,
/// and the path that came, or one of the same scope for the same backend.
///
/// - `may_go_to`: the backends to which the location that asks may send it.
/// - `record`: the members of its audit record.
/// - `method`, `request_uri`, `uri`: as they are now.
#[cold]
pub fn is_allowed_again(
    may_go_to: BackendSet,
    record: &[u8],
    method: &[u8],
    request_uri: &[u8],
    uri: &[u8],
) -> bool {
    let text = [b"{", record, b"}"].concat();
    let Ok(record) = serde_json::from_slice::<serde_json::Value>(&text) else { return false };
    let member = |key| record.get(key).and_then(serde_json::Value::as_str);
    let granted = member("decision") == Some("allow") && member("reason") == Some(Reason::Granted.name());
    let (Some(scope), Some(backend)) = (member("scope").and_then(Scope::from_name), member("backend")) else {
        return false;
    };
    // Where several know the path, the restrictions for each of them were looked at.
    let of_several = || route::knowing(scope, method, request_uri, uri);
    let backends = Backend::from_name(backend).map_or_else(of_several, BackendSet::of);
    let is_upgraded = record.get("upgrade") == Some(&serde_json::Value::Bool(true));
    granted
        && backends.intersects(may_go_to)
        && member("method").is_some_and(|decided| decided.as_bytes() == method)
        && route::is_same(backends, may_go_to.without(backends), scope, is_upgraded, method, request_uri, uri)
}

fn split_query(request_uri: &[u8]) -> (&[u8], Option<&[u8]>) {
    match request_uri.iter().position(|byte| *byte == b'?') {
        Some(at) => (request_uri.get(..at).unwrap_or_default(), request_uri.get(at + 1..)),
        None => (request_uri, None),
    }
}
