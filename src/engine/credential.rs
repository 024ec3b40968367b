//! A request's credential -> whom it speaks for in the policy in force.

use super::Live;
use super::checks::Parsed;
use super::verdict::Facts;
use crate::audit::PrincipalMembers;
use crate::client_ip::ClientIp;
use crate::decision::Caller;
use crate::lines::Lines;
use crate::metrics::CacheUse;
use crate::policy::snapshot::{GroupId, Held};
use crate::reason::Reason;
use crate::tenant::TenantList;
use crate::token::authorization::Scheme;
use crate::token::cache::TokenCache;
use crate::token::service::{Credentials, ServiceTokenCache};
use crate::token::{self, Refused, VerifiedClaims};
use std::sync::atomic::Ordering;

/// What a request brings to prove whom it speaks for. Nothing of it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// A user's token.
    User {
        /// The value of the first present token header.
        token: &'a [u8],
        /// That header is `Authorization`, so the token stands behind `Bearer`.
        bearer: bool,
    },
    /// A service account's token; or `Basic` without a token header beside it, which may carry one.
    Service {
        /// The value of `Authorization`.
        header: &'a [u8],
        /// Beside it there is a token header (be it empty), or `X-Grafana-User`.
        attended: bool,
    },
}

/// What a verified token means in one snapshot.
#[derive(Debug)]
pub(super) struct Resolved {
    serial: u32,
    held: Held,
    /// Until when (Unix seconds) the token, its key or its principal is revoked.
    revoked_until: u64,
    members: PrincipalMembers,
}

/// What a service token means in one snapshot.
#[derive(Debug)]
pub(super) struct ResolvedService {
    /// The account's position in the snapshot.
    account: usize,
    /// Until when (Unix seconds) the token or the account is revoked.
    revoked_until: u64,
    /// The user of `Basic`, where it is not the account's name: it must be the tenant that is asked for.
    user: Option<Box<[u8]>>,
    members: PrincipalMembers,
}

/// Whom a verified credential speaks for, and from where.
pub(super) struct Principal<'a> {
    pub(super) groups: &'a [GroupId],
    pub(super) caller: Caller<'a>,
    pub(super) client_ip: Result<ClientIp, Reason>,
}

/// The principal of a user's token.
///
/// - `bearer`: the token stands behind `Bearer`.
/// - `client_ip`: where the user is, or why that is not known.
/// - `now`: Unix seconds.
///
/// # Errors
/// Why the token proves nothing.
pub(super) fn user<'a>(
    live: &Live,
    tokens: &'a mut TokenCache<Resolved>,
    mut token: &[u8],
    bearer: bool,
    client_ip: Result<ClientIp, Reason>,
    now: u64,
    facts: &mut Facts<'a>,
) -> Result<Principal<'a>, Reason> {
    if bearer {
        let Some(Scheme::Bearer(behind)) = Scheme::read(token) else { return Err(Reason::TokenMalformed) };
        token = behind;
    }
    let (cache, resolved) =
        resolve(live, tokens, token, now).map_err(|refused| note_refused(live, refused, facts))?;
    facts.cache = cache;
    // Known even of one who is revoked: the record says who tried.
    facts.members = Some(&resolved.members);
    if now < resolved.revoked_until {
        return Err(Reason::TokenRevoked);
    }
    let caller = Caller::User { bound_by: resolved.held.binding() };
    Ok(Principal { groups: &resolved.held.groups, caller, client_ip })
}

/// A refused token into the facts, with whom it was made for where its signature held.
#[cold]
fn note_refused(live: &Live, refused: Refused, facts: &mut Facts<'_>) -> Reason {
    facts.cache = CacheUse::Refused;
    if let Some(signed) = refused.signed {
        let members = PrincipalMembers::of_refused(issuer_name(live, signed.issuer()), signed.identity());
        facts.refused = Some(Box::new(members));
    }
    refused.reason
}

fn issuer_name(live: &Live, issuer: usize) -> &str {
    live.compiled.snapshot.issuer_names.get(issuer).map_or("", |name| name)
}

/// The principal of a service token, which must come from its own machine: nobody may be behind it. Where the request
/// names no tenant, the account's is the one that it asks for.
///
/// - `header`: the value of `Authorization`.
/// - `attended`: there is a sign of a person, whatever the account is.
/// - `now`: Unix seconds.
///
/// # Errors
/// Why the token proves nothing, or [`Reason::ServiceAttended`].
#[inline(never)]
pub(super) fn service<'a>(
    live: &'a Live,
    services: &'a mut ServiceTokenCache<ResolvedService>,
    parsed: &Parsed<'_, '_>,
    header: &[u8],
    attended: bool,
    now: u64,
    facts: &mut Facts<'a>,
) -> Result<Principal<'a>, Reason> {
    let snapshot = &live.compiled.snapshot;
    let tenant = parsed.headers.tenant;
    let known = services.get_or_insert_with(live.serial, header, || {
        // `Basic` of something else is a token only where users' tokens come in `Authorization`.
        let is_token = live.header_names.has_authorization();
        let not_service = if is_token { Reason::TokenMalformed } else { Reason::TokenMissing };
        let credentials = Credentials::read(header).ok_or(not_service)?;
        let number = snapshot.account_of(&credentials, tenant)?;
        let account = snapshot.service_accounts.get(number).ok_or(Reason::TokenUnknown)?;
        let groups = account.groups.iter().map(|group| snapshot.groups.name(*group));
        Ok(ResolvedService {
            account: number,
            revoked_until: snapshot.account_revoked_until(number, &credentials),
            user: credentials.user().filter(|user| *user != account.name.as_bytes()).map(Into::into),
            members: PrincipalMembers::of_service(&account.name, groups),
        })
    })?;
    let account = snapshot.service_accounts.get(known.account).ok_or(Reason::TokenUnknown)?;
    // The value of the header was seen before, beside another tenant perhaps.
    if known.user.as_ref().is_some_and(|user| !account.asks_for(user, tenant)) {
        return Err(Reason::TokenUnknown);
    }
    facts.members = Some(&known.members);
    if now < known.revoked_until {
        return Err(Reason::TokenRevoked);
    }
    if attended || (parsed.headers.is_forwarded && !account.behind_proxy) {
        return Err(Reason::ServiceAttended);
    }
    if let (Lines::None, Some(tenant)) = (tenant, &account.tenant) {
        facts.tenants = TenantList::parse(tenant.as_bytes()).ok();
    }
    let caller = Caller::Service { networks: account.networks.as_ref() };
    Ok(Principal { groups: &account.groups, caller, client_ip: ClientIp::parse(parsed.request.peer) })
}

/// Whom a token speaks for in this snapshot: verified once, its groups resolved once a snapshot, its times
/// compared at every request.
fn resolve<'c>(
    live: &Live,
    tokens: &'c mut TokenCache<Resolved>,
    token: &[u8],
    now: u64,
) -> Result<(CacheUse, &'c Resolved), Refused> {
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
    match entry.claims.check_times(rules.leeway, now) {
        Ok(()) => Ok((cache, &entry.resolved)),
        Err(reason) => Err(out_of_time(reason, &entry.claims)),
    }
}

/// A token that verified once, and whose time is not now.
#[cold]
fn out_of_time(reason: Reason, claims: &VerifiedClaims) -> Refused {
    Refused { reason, signed: Some(Box::new(claims.clone())) }
}

/// Verifies a token that this worker does not know.
#[cold]
fn see_first(live: &Live, token: &[u8], now: u64) -> Result<(VerifiedClaims, Resolved), Refused> {
    let snapshot = &live.compiled.snapshot;
    let claims =
        token::prove(token, &snapshot.issuers, &live.keys, now).map_err(|refused| match &refused.signed {
            // Whoever else has the key may have made it: that comes before what it says.
            Some(signed) if snapshot.revoked.has_key(signed.issuer(), signed.key_ids()) => {
                Refused { reason: Reason::TokenRevoked, ..refused }
            }
            _ => {
                ask_for_keys(live, token, refused.reason);
                refused
            }
        })?;
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
    let revoked = &snapshot.revoked;
    let revoked_until = if revoked.has_key(issuer, claims.key_ids()) || revoked.has_token(token) {
        u64::MAX
    } else {
        revoked.principal_until(issuer, identity)
    };
    let name = issuer_name(live, issuer);
    let names = held.groups.iter().skip(1).map(|group| snapshot.groups.name(*group));
    let members = PrincipalMembers::of_user(name, identity, names);
    Resolved { serial: live.serial, held, revoked_until, members }
}
