//! The checks of a request in their promised order: headers, path, tenant grammar, token, grant, client address.

use super::credential::{self, Credential, Resolved, ResolvedService};
use super::headers::Headers;
use super::rewrite::Upgrade;
use super::verdict::Facts;
use super::{Live, Request, Server};
use crate::client_ip::cache::VerifiedCookieCache;
use crate::client_ip::{self, ClientIp, Evidence, Source, cookie};
use crate::decision::{AccessRequest, Decision, decide};
use crate::lines::Lines;
use crate::metrics::IpSource;
use crate::reason::Reason;
use crate::route;
use crate::tenant::TenantList;
use crate::token::cache::TokenCache;
use crate::token::service::{Credentials, ServiceTokenCache};

/// A request whose header lines have been read, and out of which nothing has to be taken before it is decided.
///
/// `'h`: of the lines, `'a`: of what was made of them.
pub(super) struct Parsed<'a, 'h> {
    pub(super) server: &'a Server,
    pub(super) request: &'a Request<'h>,
    pub(super) headers: &'a Headers<'h>,
    /// All Cookie lines, joined by `\n`.
    pub(super) cookies: Option<&'a [u8]>,
    pub(super) upgrade: Upgrade,
}

/// What a worker remembers between requests.
pub(super) struct Caches<'a> {
    pub(super) tokens: &'a mut TokenCache<Resolved>,
    pub(super) services: &'a mut ServiceTokenCache<ResolvedService>,
    pub(super) cookies: &'a mut VerifiedCookieCache,
}

/// Checks a request and decides it.
///
/// `now`: Unix seconds. `facts`: what is learned on the way, also to a denial.
///
/// # Errors
/// The first check that denies it.
pub(super) fn check<'a>(
    live: &'a Live,
    caches: Caches<'a>,
    parsed: &Parsed<'a, '_>,
    now: u64,
    facts: &mut Facts<'a>,
) -> Result<Decision, Reason> {
    let Parsed { server, request, headers, .. } = *parsed;
    if !headers.are_whole {
        return Err(Reason::HeadersTruncated);
    }
    let tenant = headers.tenant.at_most_one(Reason::TenantDuplicate)?;
    let tenant = tenant.filter(|header| !header.is_empty());
    if tenant.is_none() && !has_service_token(headers) {
        return Err(Reason::TenantMissing);
    }
    // nginx takes such a line for the same header, and one that it has evaluated before cannot be undone.
    if headers.is_tenant_misspelled {
        return Err(Reason::TenantDuplicate);
    }
    let credential = headers.credential.at_most_one(Reason::TokenDuplicate)?;
    let is_service = matches!(credential, Some(Credential::Service { .. }));
    // Found before anything is decided, so that a bad value is recorded always; it denies where a restriction applies.
    // Behind a service token there is nobody to look for.
    if !is_service {
        facts.client_ip = find_client_ip(live, parsed, now, caches.cookies);
    }
    // Whatever the source is: two such cookies are never innocent.
    let (repeated, has_cookie) = match facts.client_ip {
        Some((IpSource::Cookie, found)) => (found == Err(Reason::IpDuplicate), true),
        _ => {
            let find = |lines| cookie::find(lines, cookie_name(live.client_ip.as_ref()));
            let found = parsed.cookies.map_or(cookie::Found::None, find);
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
        parsed.upgrade.value(),
    )?;
    facts.route = Some(route);

    let snapshot = &live.compiled.snapshot;
    if let Some(tenant) = tenant {
        let tenants = TenantList::parse(tenant).map_err(|_| Reason::TenantMalformed)?;
        if tenants.len() > 1 && route.scope.takes_one_tenant() {
            return Err(Reason::TenantMalformed);
        }
        let tenants = facts.tenants.insert(tenants);
        // Before the token is looked at, as promised.
        if snapshot.unavailable_owner(tenants).is_some() {
            return Err(Reason::PolicyUnavailable);
        }
    }

    let principal = match credential.ok_or(Reason::TokenMissing)? {
        Credential::User { token, bearer } => {
            let client_ip = facts.client_ip.map_or(Err(Reason::IpMissing), |(_, found)| found);
            credential::user(live, caches.tokens, token, bearer, client_ip, now, facts)?
        }
        Credential::Service { header, attended } => {
            credential::service(live, caches.services, parsed, header, attended || has_cookie, now, facts)?
        }
    };
    // Absent only beside a service token, whose account may have one.
    let tenants = facts.tenants.as_ref().ok_or(Reason::TenantMissing)?;
    Ok(decide(
        snapshot,
        &AccessRequest {
            groups: principal.groups,
            caller: principal.caller,
            tenants,
            scope: route.scope,
            backends: route.backends,
            client_ip: principal.client_ip,
            now,
        },
    ))
}

/// Whether the request brings a service token, known or not: what tenant it asks for may then be its account's to say.
#[cold]
fn has_service_token(headers: &Headers<'_>) -> bool {
    match headers.credential {
        Lines::One(Credential::Service { header, .. }) => Credentials::read(header).is_some(),
        _ => false,
    }
}

/// Where the person behind a request is, and by which source; `None` where there is no source.
fn find_client_ip(
    live: &Live,
    parsed: &Parsed<'_, '_>,
    now: u64,
    cache: &mut VerifiedCookieCache,
) -> Option<(IpSource, Result<ClientIp, Reason>)> {
    let is_direct = parsed.server.client_is_remote_addr;
    let source = if is_direct { Some(&Source::RemoteAddr) } else { live.client_ip.as_ref() }?;
    let name = match source {
        Source::Cookie { .. } => IpSource::Cookie,
        Source::RemoteAddr => IpSource::RemoteAddr,
        Source::Header { .. } => IpSource::Header,
    };
    let evidence = Evidence {
        cookies: parsed.cookies,
        remote_addr: parsed.request.remote_addr.unwrap_or_default(),
        peer: parsed.request.peer,
        header: parsed.headers.client_ip,
    };
    Some((name, client_ip::resolve(source, &evidence, now, cache)))
}

/// The cookie that may carry the client's address. It never goes upstream, whatever the source is.
pub(super) fn cookie_name(source: Option<&Source>) -> &str {
    match source {
        Some(Source::Cookie { name, .. }) => name,
        _ => client_ip::DEFAULT_COOKIE,
    }
}
