//! Who asks: a verified token, claims that nobody signed, just groups, or a service account.

use super::super::{Failure, keys, words};
use super::report::{Known, Who};
use crate::decision::Caller;
use crate::lines::Lines;
use crate::policy::snapshot::{EVERYONE, GroupId, Held, SERVICE, ServiceAccount, Snapshot};
use crate::policy::{Compiled, sample};
use crate::reason::Reason;
use crate::token::claims::Identity;
use crate::token::digest::Sha256;
use crate::token::inspect::{Inspection, inspect, inspect_claims, inspect_service};
use crate::token::service::Credentials;
use crate::token::{claimed_issuer, verify};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// No token or claims are read beyond this, in bytes.
const MAX_INPUT: u64 = 1 << 20;

/// Who asks, and what can be told of them.
pub(super) struct Principal<'s> {
    kind: Kind<'s>,
    /// Why there is no principal.
    pub(super) refused: Option<Reason>,
    pub(super) shown: Who,
}

enum Kind<'s> {
    User(Held),
    Service(&'s ServiceAccount),
    /// There is no principal.
    Nobody,
}

impl<'s> Principal<'s> {
    /// The groups in the policy; none, not even everyone, where there is no principal.
    pub(super) fn groups(&self) -> &[GroupId] {
        match &self.kind {
            Kind::User(held) => &held.groups,
            Kind::Service(account) => &account.groups,
            Kind::Nobody => &[],
        }
    }

    /// What the decision has to know beside the groups.
    pub(super) fn caller(&self) -> Caller<'_> {
        match &self.kind {
            Kind::User(held) => Caller::User { bound_by: held.binding() },
            Kind::Service(account) => Caller::Service { networks: account.networks.as_ref() },
            Kind::Nobody => Caller::User { bound_by: &[] },
        }
    }

    /// The service account, where it is one.
    pub(super) fn account(&self) -> Option<&'s ServiceAccount> {
        match self.kind {
            Kind::Service(account) => Some(account),
            _ => None,
        }
    }

    /// - `header`: the value of the header that carries the token, or a service token alone.
    /// - `tenant`: the value of `X-Scope-OrgID`.
    pub(super) fn of_token(compiled: &'s Compiled, header: &[u8], tenant: &str, now: u64) -> Self {
        let snapshot = &compiled.snapshot;
        let header = header.trim_ascii();
        if let Some(credentials) = Credentials::read(header).or_else(|| Credentials::of_token(header)) {
            return match snapshot.account_of(&credentials, Lines::One(tenant.as_bytes())) {
                Ok(account) => {
                    let revoked = snapshot.is_revoked_account(account, &credentials);
                    let by_token = snapshot.revoked.has_token(credentials.token());
                    let what = if by_token { "token" } else { "principal" };
                    Self::of_account(snapshot, "token", account, revoked.then_some(what))
                }
                Err(reason) => {
                    let accounts = snapshot.service_accounts.iter();
                    let sums = |account: &ServiceAccount| account.token_sha256.iter().map(hex).collect();
                    let accounts = accounts.map(|account| (&*account.name, sums(account)));
                    Self::refused("token", reason, inspect_service(&credentials, accounts))
                }
            };
        }
        let token = bearer(snapshot, header);
        match verify(token, &snapshot.issuers, &compiled.keys, now) {
            Ok(claims) => {
                let revoked = snapshot.revoked.has_token(token)
                    || snapshot.revoked.has_key(claims.issuer(), claims.key_ids());
                Self::known(snapshot, "token", claims.issuer(), claims.identity(), revoked)
            }
            Err(reason) => {
                Self::refused("token", reason, inspect(token, &snapshot.issuers, &compiled.keys, now))
            }
        }
    }

    /// `json`: the claims. Without `iss` they are those of the only issuer.
    pub(super) fn of_claims(compiled: &'s Compiled, json: &[u8], now: u64) -> Result<Self, Failure> {
        let snapshot = &compiled.snapshot;
        // Not a decision but a wrong file, told with the place of what is wrong in it.
        if let Err(error) = serde_json::from_slice::<serde_json::Map<_, _>>(json) {
            return Err(Failure(format!("the claims are no JSON object: {error}; a token goes to --token")));
        }
        Ok(match sample::identity(snapshot, json, now) {
            Ok((issuer, identity)) => Self::known(snapshot, "claims", issuer, &identity, false),
            Err(reason) => Self::refused("claims", reason, inspect_claims(json, &snapshot.issuers, now)),
        })
    }

    /// `lists`: names of groups separated by commas, as rules write them. `service:<name>` alone is that account.
    pub(super) fn of_groups(compiled: &'s Compiled, lists: &[String]) -> Result<Self, Failure> {
        let snapshot = &compiled.snapshot;
        let names: Vec<&str> = lists
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        let account = names.iter().find_map(|name| name.strip_prefix(SERVICE)?.strip_prefix(':'));
        if let Some(account) = account {
            if names.len() > 1 {
                let told = format!("`{SERVICE}:{account}` is a service account, which has no other group");
                return Err(Failure(told));
            }
            let number = snapshot.service_accounts.iter().position(|known| *known.name == *account);
            let number =
                number.ok_or_else(|| Failure(format!("the policy has no service account `{account}`")))?;
            let revoked = snapshot.service_accounts.get(number).is_some_and(|account| account.revoked);
            return Ok(Self::of_account(snapshot, "groups", number, revoked.then_some("principal")));
        }
        let resolve = |names: &[&str]| snapshot.groups.of_names(names);
        let (_, held) = resolve(&names).map_err(|error| Failure(error.to_string()))?;
        let is_known = |name: &&str| {
            let stands_for_any = |(issuer, held): (Option<usize>, Held)| {
                issuer.is_some_and(|issuer| names_a_group(snapshot, issuer, held.binding()))
            };
            snapshot.groups.id(name).is_some() || resolve(&[name]).is_ok_and(stands_for_any)
        };
        let (unknown, known): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| !is_known(name));
        let revoked = known
            .iter()
            .filter(|name| resolve(&[name]).is_ok_and(|(_, held)| *held.groups != *held.binding()));
        let shown = Who {
            groups: shown_groups(snapshot, &held.groups),
            unknown_groups: unknown.into_iter().map(str::to_owned).collect(),
            revoked_groups: revoked.map(|name| (*name).to_owned()).collect(),
            ..Who::of("groups")
        };
        Ok(Self { kind: Kind::User(held), refused: None, shown })
    }

    /// `revoked`: what the policy revokes, the `token` or the `principal`, if anything.
    fn of_account(
        snapshot: &'s Snapshot,
        source: &'static str,
        number: usize,
        revoked: Option<&'static str>,
    ) -> Self {
        let Some(account) = snapshot.service_accounts.get(number) else {
            return Self::refused(source, Reason::TokenUnknown, Inspection::default());
        };
        let refused = revoked.map(|_| Reason::TokenRevoked);
        let group = format!("{SERVICE}:{}", account.name);
        let shown = Who {
            verified: source == "token",
            refused: refused.map(Reason::name),
            findings: revoked.map_or_else(Vec::new, |what| Inspection::of_revoked(what).findings),
            known: Some(Known {
                issuer: SERVICE.to_owned(),
                subject: Some(account.name.to_string()),
                object_id: None,
                user: None,
                token_id: None,
            }),
            revoked_groups: snapshot.groups.is_revoked(&group).then_some(group).into_iter().collect(),
            groups: account.groups.iter().map(|id| snapshot.groups.name(*id).to_owned()).collect(),
            ..Who::of(source)
        };
        Self { kind: Kind::Service(account), refused, shown }
    }

    fn refused(source: &'static str, reason: Reason, Inspection { verified, findings }: Inspection) -> Self {
        let shown = Who { refused: Some(reason.name()), verified, findings, ..Who::of(source) };
        Self { kind: Kind::Nobody, refused: Some(reason), shown }
    }

    /// `revoked`: the token itself is; the principal is looked up here.
    fn known(
        snapshot: &'s Snapshot,
        source: &'static str,
        issuer: usize,
        identity: &Identity,
        revoked: bool,
    ) -> Self {
        let raw = || identity.groups.iter().map(|group| &**group);
        let held = snapshot.groups.held_by_user(issuer, raw());
        let one = |group: &str| snapshot.groups.held_by_user(issuer, std::iter::once(group));
        let is_unknown = |group: &&str| !names_a_group(snapshot, issuer, one(group).binding());
        let is_revoked = |group: &&str| {
            let held = one(group);
            *held.groups != *held.binding()
        };
        let is_principal_revoked = snapshot.revoked.has_principal(issuer, identity);
        let revoked = revoked || is_principal_revoked;
        let what = if is_principal_revoked { "principal" } else { "token" };
        let refused = revoked.then_some(Reason::TokenRevoked);
        let text = |value: &Option<Box<str>>| value.as_deref().map(str::to_owned);
        let shown = Who {
            verified: source == "token",
            refused: refused.map(Reason::name),
            findings: if revoked { Inspection::of_revoked(what).findings } else { Vec::new() },
            known: Some(Known {
                issuer: snapshot.issuer_names.get(issuer).map_or_else(String::new, ToString::to_string),
                subject: text(&identity.subject),
                object_id: text(&identity.object_id),
                user: text(&identity.user),
                token_id: text(&identity.token_id),
            }),
            groups: shown_groups(snapshot, &held.groups),
            unknown_groups: raw().filter(is_unknown).map(str::to_owned).collect(),
            revoked_groups: raw().filter(is_revoked).map(str::to_owned).collect(),
            ..Who::of(source)
        };
        Self { kind: Kind::User(held), refused, shown }
    }
}

fn hex(sum: &Sha256) -> String {
    sum.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether one raw group stands for anything but what every principal of the issuer holds.
fn names_a_group(snapshot: &Snapshot, issuer: usize, ids: &[GroupId]) -> bool {
    let every = snapshot.issuer_names.get(issuer).and_then(|name| snapshot.groups.id(&format!("{name}:*")));
    ids.iter().any(|id| *id != EVERYONE && Some(*id) != every)
}

/// The names of the groups, as audit records show them.
fn shown_groups(snapshot: &Snapshot, ids: &[GroupId]) -> Vec<String> {
    let named = ids.iter().filter(|id| **id != EVERYONE);
    named.map(|id| snapshot.groups.name(*id).to_owned()).collect()
}

/// The token of `Authorization: Bearer`, where the policy reads that header (RFC 9110 section 11.1).
fn bearer<'h>(snapshot: &Snapshot, header: &'h [u8]) -> &'h [u8] {
    let is_read = snapshot.token_headers.iter().any(|name| name.eq_ignore_ascii_case("Authorization"));
    match header.split_at_checked(7) {
        Some((scheme, token)) if is_read && scheme.eq_ignore_ascii_case(b"bearer ") => {
            token.trim_ascii_start()
        }
        _ => header,
    }
}

/// Fetches the keys of the issuer that a token claims, where the policy says that they are fetched.
///
/// # Errors
/// Why there are none; then the token cannot be verified.
pub(super) fn fetch_keys(compiled: &mut Compiled, header: &[u8]) -> Result<(), Failure> {
    let snapshot = &compiled.snapshot;
    let token = bearer(snapshot, header.trim_ascii());
    let Some(at) = claimed_issuer(token, &snapshot.issuers) else { return Ok(()) };
    let (Some(rules), Some(Some(endpoint))) = (snapshot.issuers.get(at), compiled.endpoints.get(at)) else {
        return Ok(());
    };
    let name = snapshot.issuer_names.get(at).map_or("", |name| name);
    let (set, _) =
        keys::fetch(endpoint, rules.algorithms).map_err(|why| Failure(format!("issuer `{name}`: {why}")))?;
    if set.is_empty() {
        return Err(Failure(format!("issuer `{name}`: it publishes no usable key; see `tenantauth keys`")));
    }
    if let Some(keys) = compiled.keys.get_mut(at) {
        *keys = Some(Arc::new(set));
    }
    Ok(())
}

/// A file's content, or that of stdin for `-`. A pipe is as good as a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let fill = |input: &mut dyn Read| {
        let mut content = Vec::new();
        input.take(MAX_INPUT + 1).read_to_end(&mut content).map(|_| content)
    };
    let content = if path.as_os_str() == "-" {
        fill(&mut io::stdin())
    } else {
        File::open(path).and_then(|mut file| fill(&mut file))
    };
    let content =
        content.map_err(|error| Failure(format!("cannot read `{}`: {}", path.display(), words(&error))))?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > MAX_INPUT {
        return Err(Failure(format!("`{}` is larger than {} MiB", path.display(), MAX_INPUT >> 20)));
    }
    Ok(content)
}
