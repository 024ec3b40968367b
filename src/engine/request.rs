//! One request: from what nginx knows about it to a verdict. Runs on the event loop.

use super::headers::{HeaderNames, Headers};
use super::reload::Task;
use super::rewrite::{Rewrite, Upgrade, hop_by_hop};
use super::{Engine, Live, Resolved, ResolvedService, Worker, lock, since_epoch};
use crate::audit::{self, Clock, GrafanaContext, PrincipalMembers, Record, Text};
use crate::client_ip::cache::VerifiedCookieCache;
use crate::client_ip::{self, ClientIp, Evidence, Source, cookie};
use crate::decision::{AccessRequest, Caller, Decision, decide};
use crate::metrics::{CacheUse, IpSource, Tally};
use crate::reason::Reason;
use crate::route::{self, Route};
use crate::scope::{Backend, BackendSet, Scope};
use crate::tenant::TenantList;
use crate::token::cache::TokenCache;
use crate::token::digest::keyed_hash;
use crate::token::service::ServiceTokenCache;
use crate::token::{self, VerifiedClaims};
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

/// What the configuration of one `enforce` says, the same for all its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The route tables to consult.
    pub backends: BackendSet,
    /// External prefix of every path, without trailing slash; empty for none.
    pub path_prefix: String,
    /// The clients of this server connect directly: their address is the connection's.
    pub client_is_remote_addr: bool,
    /// Lower-case names of headers that are otherwise removed and go on here.
    pub forward_headers: Vec<Box<[u8]>>,
}

/// What nginx knows of one request, as it came. `H` gives the header lines in their order, names in lower case.
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct Incoming<'a, H> {
    pub method: &'a [u8],
    /// `$request_uri`: undecoded, with the query.
    pub request_uri: &'a [u8],
    /// `$uri`: decoded, perhaps rewritten.
    pub uri: &'a [u8],
    /// `$remote_addr`; `None` where it was not asked for.
    pub remote_addr: Option<&'a [u8]>,
    /// The TCP peer: `$realip_remote_addr`.
    pub peer: &'a [u8],
    /// `None` where nginx's Lua interface did not show all.
    pub headers: Option<H>,
    /// There was an `Upgrade` header, and nginx still has a copy of it, or may have one.
    pub upgrade_is_kept: bool,
}

/// What the caller has to do before it comes again with the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Give `$remote_addr`: the policy in force looks at it.
    RemoteAddr,
    /// Have nginx take something out of the request.
    Rewrite(Rewrite),
}

/// What a decision asks of one request. Header values are those of the only line; where there were several, the flag
/// says so.
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct Request<'a> {
    pub method: &'a [u8],
    /// `$request_uri`: undecoded, with the query.
    pub request_uri: &'a [u8],
    /// `$uri`: decoded, perhaps rewritten.
    pub uri: &'a [u8],
    pub tenant: Option<&'a [u8]>,
    /// The first present of the policy's token headers; or `Authorization`, where it carries a service token.
    pub token: Option<&'a [u8]>,
    /// Of the token headers the first present one is `Authorization`.
    pub token_is_authorization: bool,
    /// `token` is the value of `Authorization`, and carries a service token, or is `Basic` and may carry one.
    pub token_is_service: bool,
    /// Beside it there is a token header (be it empty), or `X-Grafana-User`.
    pub token_is_attended: bool,
    /// There is an `X-Forwarded-For`, be it empty.
    pub is_forwarded: bool,
    /// All Cookie lines, joined by `\n`.
    pub cookies: Option<&'a [u8]>,
    /// The header of the client's address, where the policy names one.
    pub ip_header: Option<&'a [u8]>,
    /// `$remote_addr`.
    pub remote_addr: &'a [u8],
    /// The TCP peer: `$realip_remote_addr`.
    pub peer: &'a [u8],
    pub upgrade: Upgrade,
    pub grafana: GrafanaContext<'a>,
    /// nginx's Lua interface did not show all headers, or cannot remove one that must go no further.
    pub headers_truncated: bool,
    pub tenant_repeated: bool,
    pub token_repeated: bool,
    pub ip_header_repeated: bool,
}

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

/// What is read of a request that no policy decides: the record tells its context all the same.
static WITHOUT_POLICY: LazyLock<HeaderNames> = LazyLock::new(|| HeaderNames::new(&[], None));

/// What is learned on the way to a decision, as far as it came.
struct Facts<'a> {
    tenants: Option<TenantList<'a>>,
    route: Option<Route>,
    members: Option<&'a PrincipalMembers>,
    client_ip: Option<(IpSource, Result<ClientIp, Reason>)>,
    cache: CacheUse,
}

impl Engine {
    /// Reads the header lines of a request as the policy in force says, and decides it. Total: whatever goes wrong is
    /// a denial.
    ///
    /// `apply` is called once with the verdict, and what it returns is returned.
    ///
    /// # Errors
    /// Where the caller has to come again: with `$remote_addr`, which few policies look at, or without headers that few
    /// requests have.
    pub fn enforce<'a, T>(
        &self,
        server: &Server,
        incoming: Incoming<'a, impl Iterator<Item = (&'a [u8], &'a [u8])>>,
        apply: impl FnOnce(Verdict<'_>) -> T,
    ) -> Result<T, Needs> {
        let guard = self.live();
        let live = guard.as_deref();
        let names = live.map_or(&*WITHOUT_POLICY, |live| &*live.header_names);
        let looks_at_peer = server.client_is_remote_addr || names.needs_remote_addr;
        if looks_at_peer && incoming.remote_addr.is_none() {
            return Err(Needs::RemoteAddr);
        }
        let headers_truncated = incoming.headers.is_none();
        let read = incoming
            .headers
            .map_or_else(Headers::default, |lines| Headers::read(names, &server.forward_headers, lines));
        let upgrade = if incoming.upgrade_is_kept {
            Upgrade::Kept
        } else if read.upgrade.is_some() || read.connection.is_unusual() {
            let request = [incoming.method, incoming.request_uri, incoming.uri];
            hop_by_hop(live, server, request, &read).map_err(Needs::Rewrite)?
        } else {
            Upgrade::None
        };
        let joined;
        let cookies = match &*read.cookies {
            [] => None,
            [line] => Some(*line),
            lines => {
                joined = lines.join(&b'\n');
                Some(&*joined)
            }
        };
        let request = Request {
            method: incoming.method,
            request_uri: incoming.request_uri,
            uri: incoming.uri,
            tenant: read.tenant,
            token: read.token,
            token_is_authorization: read.token_is_authorization,
            token_is_service: read.token_is_service,
            token_is_attended: read.token_is_attended,
            is_forwarded: read.is_forwarded,
            cookies,
            ip_header: read.client_ip,
            remote_addr: incoming.remote_addr.unwrap_or_default(),
            peer: incoming.peer,
            upgrade,
            grafana: read.grafana,
            headers_truncated: headers_truncated || read.unremovable,
            tenant_repeated: read.tenant_repeated,
            token_repeated: read.token_repeated,
            ip_header_repeated: read.client_ip_repeated,
        };
        Ok(self.decide(live, server, &request, &read.removed, apply))
    }

    /// Decides one request that has been read, with this policy.
    pub(super) fn decide<T>(
        &self,
        live: Option<&Live>,
        server: &Server,
        request: &Request<'_>,
        removed: &[u16],
        apply: impl FnOnce(Verdict<'_>) -> T,
    ) -> T {
        let mut worker = lock(&self.worker);
        let Worker { tokens, services, cookies, record, clock } = &mut *worker;
        let now = since_epoch();
        clock.set(now);
        let mut facts =
            Facts { tenants: None, route: None, members: None, client_ip: None, cache: CacheUse::Unused };
        let decision = match live {
            None => Decision::denied(Reason::PolicyUnavailable),
            Some(live) => {
                if let Some(retired) = tokens.set_generation(live.keys_generation) {
                    self.send(Task::Release(Box::new(retired)));
                }
                let caches = Caches { tokens, services, cookies };
                judge(live, caches, server, request, now.as_secs(), &mut facts)
                    .unwrap_or_else(Decision::denied)
            }
        };

        let snapshot = live.map(|live| &live.compiled.snapshot);
        let shadow_mode = snapshot.is_some_and(|snapshot| snapshot.is_shadow(now.as_secs()));
        let backends = facts.route.map_or(server.backends, |route| route.backends);
        let scope = facts.route.map(|route| route.scope);
        let (path, query) = split_query(request.request_uri);
        record.clear();
        audit::render(
            record,
            &Record {
                decision: &decision,
                shadow_mode,
                snapshot,
                principal: facts.members,
                tenants: facts.tenants.as_ref(),
                scope,
                backends,
                method: request.method,
                path,
                query,
                client_ip: facts.client_ip.and_then(|(_, found)| found.ok()),
                client_ip_source: facts.client_ip.map(|(source, _)| source.name()),
                peer: request.peer,
                upgrade: request.upgrade == Upgrade::WebSocket,
                grafana: request.grafana,
            },
            clock,
            |query| keyed_hash(&lock(&self.hash_key), query),
        );
        let cookies = match request.cookies.filter(|_| decision.is_allow() && !shadow_mode) {
            Some(lines) => cookie::remove(lines, cookie_name(live.and_then(|live| live.client_ip.as_ref()))),
            None => cookie::Remaining::Unchanged,
        };
        let header = request.tenant.unwrap_or_default();
        apply(Verdict {
            decision,
            tally: Tally {
                backends,
                scope,
                cache: facts.cache,
                client_ip: facts.client_ip.map(|(source, found)| (source, found.err())),
                ..Tally::of(&decision, shadow_mode)
            },
            record,
            tenants: facts.tenants.as_ref(),
            tenants_rewritten: facts
                .tenants
                .as_ref()
                .is_some_and(|tenants| !tenants.is_canonical_form_of(header)),
            cookies,
            removed,
            shadow_mode,
        })
    }

    /// Code and record of a request that could not be decided because something failed, and whether it goes on all the
    /// same: while the whole gateway only records, it does.
    ///
    /// `peer`: the TCP peer.
    pub fn internal_error(
        &self,
        backends: BackendSet,
        method: &[u8],
        request_uri: &[u8],
        peer: &[u8],
    ) -> (i64, Text, bool) {
        let now = since_epoch().as_secs();
        let shadow_mode = self.live().as_deref().is_some_and(|live| live.compiled.snapshot.is_shadow(now));
        let (code, record) =
            undecided(Reason::InternalError, shadow_mode, backends, method, request_uri, peer);
        (code, record, shadow_mode)
    }
}

/// Code and record of a request that nothing could decide.
///
/// `shadow_mode`: it goes on all the same. `peer`: the TCP peer.
pub fn undecided(
    reason: Reason,
    shadow_mode: bool,
    backends: BackendSet,
    method: &[u8],
    request_uri: &[u8],
    peer: &[u8],
) -> (i64, Text) {
    let decision = Decision::denied(reason);
    let (path, _) = split_query(request_uri);
    let mut record = Text::default();
    let mut clock = Clock::default();
    clock.set(since_epoch());
    audit::render(
        &mut record,
        &Record {
            decision: &decision,
            shadow_mode,
            snapshot: None,
            principal: None,
            tenants: None,
            scope: None,
            backends,
            method,
            path,
            query: None,
            client_ip: None,
            client_ip_source: None,
            peer,
            upgrade: false,
            grafana: GrafanaContext::default(),
        },
        &mut clock,
        |_| String::new(),
    );
    let tally = Tally { backends, ..Tally::of(&decision, shadow_mode) };
    (tally.to_code_or_internal_error(), record)
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
    let backends = Backend::from_name(backend).map_or(BackendSet::ALL, BackendSet::of);
    granted
        && backends.intersects(may_go_to)
        && member("method").is_some_and(|decided| decided.as_bytes() == method)
        && route::is_same(backends, may_go_to.without(backends), scope, method, request_uri, uri)
}

/// The cookie that may carry the client's address. It never goes upstream, whatever the source is.
fn cookie_name(source: Option<&Source>) -> &str {
    match source {
        Some(Source::Cookie { name, .. }) => name,
        _ => client_ip::DEFAULT_COOKIE,
    }
}

fn split_query(request_uri: &[u8]) -> (&[u8], Option<&[u8]>) {
    match request_uri.iter().position(|byte| *byte == b'?') {
        Some(at) => (request_uri.get(..at).unwrap_or_default(), request_uri.get(at + 1..)),
        None => (request_uri, None),
    }
}

/// What a worker remembers between requests.
struct Caches<'a> {
    tokens: &'a mut TokenCache<Resolved>,
    services: &'a mut ServiceTokenCache<ResolvedService>,
    cookies: &'a mut VerifiedCookieCache,
}

/// The checks in their promised order: headers, path, tenant grammar, token, grant, client address.
fn judge<'a>(
    live: &'a Live,
    caches: Caches<'a>,
    server: &Server,
    request: &Request<'a>,
    now: u64,
    facts: &mut Facts<'a>,
) -> Result<Decision, Reason> {
    let source = live.client_ip.as_ref();

    if request.headers_truncated {
        return Err(Reason::HeadersTruncated);
    }
    if request.tenant_repeated {
        return Err(Reason::TenantDuplicate);
    }
    let header = request.tenant.filter(|header| !header.is_empty()).ok_or(Reason::TenantMissing)?;
    if request.token_repeated {
        return Err(Reason::TokenDuplicate);
    }
    // Found before anything is decided, so that a bad value is recorded always; it denies where a restriction applies.
    // Behind a service token there is nobody to look for.
    if !request.token_is_service {
        facts.client_ip = find_client_ip(source, server, request, now, caches.cookies);
    }
    let client_ip = facts.client_ip.map_or(Err(Reason::IpMissing), |(_, found)| found);
    // Whatever the source is: two such cookies are never innocent.
    let (repeated, has_cookie) = match facts.client_ip {
        Some((IpSource::Cookie, found)) => (found == Err(Reason::IpDuplicate), true),
        _ => {
            let find = |lines| cookie::find(lines, cookie_name(source));
            let found = request.cookies.map_or(cookie::Found::None, find);
            // In any letter case: what a backend or Grafana would take for the cookie is enough to tell a person.
            (found == cookie::Found::Many, found != cookie::Found::None)
        }
    };
    if repeated {
        return Err(Reason::IpDuplicate);
    }

    let route = route::route(
        server.backends,
        &server.path_prefix,
        request.method,
        request.request_uri,
        request.uri,
        request.upgrade.value(),
    )?;
    facts.route = Some(route);

    let tenants = TenantList::parse(header).map_err(|_| Reason::TenantMalformed)?;
    if tenants.len() > 1 && route.scope.takes_one_tenant() {
        return Err(Reason::TenantMalformed);
    }
    facts.tenants = Some(tenants.clone());
    // Before the token is looked at, as promised.
    if live.compiled.snapshot.unavailable_owner(&tenants).is_some() {
        return Err(Reason::PolicyUnavailable);
    }

    let token = request.token.ok_or(Reason::TokenMissing)?;
    let access = AccessRequest {
        groups: &[],
        caller: Caller::Service { networks: None },
        tenants: &tenants,
        scope: route.scope,
        backends: route.backends,
        client_ip,
        now,
    };
    if request.token_is_service {
        return judge_service(live, caches.services, request, has_cookie, token, access, facts);
    }
    let token = if request.token_is_authorization { bearer(token)? } else { token };
    let (cache, resolved) = match resolve(live, caches.tokens, token, now) {
        Ok(found) => found,
        Err(reason) => {
            facts.cache = CacheUse::Refused;
            return Err(reason);
        }
    };
    facts.cache = cache;
    // Known even of one who is revoked: the record says who tried.
    facts.members = Some(&resolved.members);
    if resolved.revoked {
        return Err(Reason::TokenRevoked);
    }
    let caller = Caller::User { bound_by: resolved.held.binding() };
    Ok(decide(&live.compiled.snapshot, &AccessRequest { groups: &resolved.held.groups, caller, ..access }))
}

/// The last checks of a request with a service token: whose it is, whether a person is behind it, grant, peer.
///
/// `has_cookie`: a cookie has the name of the client's address, in any letter case.
#[inline(never)]
fn judge_service<'a>(
    live: &'a Live,
    services: &'a mut ServiceTokenCache<ResolvedService>,
    request: &Request<'_>,
    has_cookie: bool,
    header: &[u8],
    access: AccessRequest<'_>,
    facts: &mut Facts<'a>,
) -> Result<Decision, Reason> {
    let snapshot = &live.compiled.snapshot;
    let not_service =
        if request.token_is_authorization { Reason::TokenMalformed } else { Reason::TokenMissing };
    let known = services.get_or_insert_with(live.serial, header, not_service, |credentials| {
        let number = snapshot.account_of(credentials)?;
        let account = snapshot.service_accounts.get(number).ok_or(Reason::TokenUnknown)?;
        let groups = account.groups.iter().map(|group| snapshot.groups.name(*group));
        Ok(ResolvedService {
            account: number,
            revoked: snapshot.is_revoked_account(number, credentials),
            members: PrincipalMembers::of_service(&account.name, groups),
        })
    })?;
    facts.members = Some(&known.members);
    if known.revoked {
        return Err(Reason::TokenRevoked);
    }
    let account = snapshot.service_accounts.get(known.account).ok_or(Reason::TokenUnknown)?;
    if request.token_is_attended || has_cookie || (request.is_forwarded && !account.behind_proxy) {
        return Err(Reason::ServiceAttended);
    }
    Ok(decide(
        snapshot,
        &AccessRequest {
            groups: &account.groups,
            caller: Caller::Service { networks: account.networks.as_ref() },
            client_ip: ClientIp::parse(request.peer),
            ..access
        },
    ))
}

/// The token of `Authorization: Bearer`. The scheme's letter case does not count (RFC 9110 section 11.1).
fn bearer(header: &[u8]) -> Result<&[u8], Reason> {
    match header.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(token.trim_ascii_start()),
        _ => Err(Reason::TokenMalformed),
    }
}

fn find_client_ip(
    source: Option<&Source>,
    server: &Server,
    request: &Request<'_>,
    now: u64,
    cache: &mut VerifiedCookieCache,
) -> Option<(IpSource, Result<ClientIp, Reason>)> {
    let source = if server.client_is_remote_addr { Some(&Source::RemoteAddr) } else { source }?;
    let name = match source {
        Source::Cookie { .. } => IpSource::Cookie,
        Source::RemoteAddr => IpSource::RemoteAddr,
        Source::Header { .. } => IpSource::Header,
    };
    let evidence = Evidence {
        cookies: request.cookies,
        remote_addr: request.remote_addr,
        peer: request.peer,
        header: request.ip_header,
        header_lines: match (request.ip_header, request.ip_header_repeated) {
            (None, _) => 0,
            (Some(_), false) => 1,
            (Some(_), true) => 2,
        },
    };
    Some((name, client_ip::resolve(source, &evidence, now, cache)))
}

/// Whom a token speaks for in this snapshot: verified once, its groups resolved once a snapshot, its times
/// compared at every request.
fn resolve<'c>(
    live: &Live,
    tokens: &'c mut TokenCache<Resolved>,
    token: &[u8],
    now: u64,
) -> Result<(CacheUse, &'c Resolved), Reason> {
    let snapshot = &live.compiled.snapshot;
    let mut cache = CacheUse::Hit;
    let entry = tokens.get_or_insert_with(token, now, || {
        cache = CacheUse::Miss;
        see_first(live, token, now)
    })?;
    if entry.resolved.serial != live.serial {
        entry.resolved = resolve_in_snapshot(live, token, &entry.claims);
    }
    let rules = snapshot.issuers.get(entry.claims.issuer()).ok_or(Reason::TokenIssuer)?;
    entry.claims.check_times(rules.leeway, now)?;
    Ok((cache, &entry.resolved))
}

/// Verifies a token that this worker does not know.
#[cold]
fn see_first(live: &Live, token: &[u8], now: u64) -> Result<(VerifiedClaims, Resolved), Reason> {
    let claims = token::verify(token, &live.compiled.snapshot.issuers, &live.keys, now)
        .inspect_err(|reason| ask_for_keys(live, token, *reason))?;
    let resolved = resolve_in_snapshot(live, token, &claims);
    Ok((claims, resolved))
}

/// Keys may have been replaced at the issuer: a token that names an unknown one is a hint to look. Whether that is
/// done is decided elsewhere, for all workers together.
fn ask_for_keys(live: &Live, token: &[u8], reason: Reason) {
    let flags = || live.asked.iter().flatten();
    if reason != Reason::TokenKeyUnknown || flags().all(|asked| asked.load(Ordering::Relaxed)) {
        return;
    }
    let issuer = token::claimed_issuer(token, &live.compiled.snapshot.issuers);
    if let Some(Some(asked)) = issuer.and_then(|issuer| live.asked.get(issuer)) {
        asked.store(true, Ordering::Relaxed);
    }
}

#[cold]
fn resolve_in_snapshot(live: &Live, token: &[u8], claims: &VerifiedClaims) -> Resolved {
    let snapshot = &live.compiled.snapshot;
    let (issuer, identity) = (claims.issuer(), claims.identity());
    let held = snapshot.groups.held_by_user(issuer, identity.groups.iter().map(|group| &**group));
    let revoked = snapshot.revoked.has_principal(issuer, identity) || snapshot.revoked.has_token(token);
    let name = snapshot.issuer_names.get(issuer).map_or("", |name| name);
    let names = held.groups.iter().skip(1).map(|group| snapshot.groups.name(*group));
    let members = PrincipalMembers::of_user(name, identity, names);
    Resolved { serial: live.serial, held, revoked, members }
}
