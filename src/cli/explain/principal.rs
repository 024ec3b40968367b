//! Who asks: a verified token, claims that nobody signed, or just groups.

use super::super::{Failure, keys, words};
use super::report::{Known, Who};
use crate::policy::snapshot::{EVERYONE, GroupId, Snapshot};
use crate::policy::{Compiled, sample};
use crate::reason::Reason;
use crate::token::claims::Identity;
use crate::token::{claimed_issuer, verify};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// No token or claims are read beyond this, in bytes.
const MAX_INPUT: u64 = 1 << 20;

/// Who asks, and what can be told of them.
pub(super) struct Principal {
    /// The groups in the policy; none, not even everyone, where there is no principal.
    pub(super) ids: Box<[GroupId]>,
    /// Why there is no principal.
    pub(super) refused: Option<Reason>,
    pub(super) shown: Who,
}

impl Principal {
    /// `header`: the value of the header that carries the token.
    pub(super) fn of_token(compiled: &Compiled, header: &[u8], now: u64) -> Result<Self, Failure> {
        let snapshot = &compiled.snapshot;
        let token = bearer(snapshot, header.trim_ascii());
        Ok(match verify(token, &snapshot.issuers, &compiled.keys, now) {
            Ok(claims) => Self::known(snapshot, "token", claims.issuer(), claims.identity()),
            Err(reason) => Self::refused("token", reason),
        })
    }

    /// `json`: the claims. Without `iss` they are those of the only issuer.
    pub(super) fn of_claims(compiled: &Compiled, json: &[u8], now: u64) -> Result<Self, Failure> {
        let snapshot = &compiled.snapshot;
        // Not a decision but a wrong file, told with the place of what is wrong in it.
        if let Err(error) = serde_json::from_slice::<serde_json::Map<_, _>>(json) {
            return Err(Failure(format!("the claims are no JSON object: {error}; a token goes to --token")));
        }
        Ok(match sample::identity(snapshot, json, now) {
            Ok((issuer, identity)) => Self::known(snapshot, "claims", issuer, &identity),
            Err(reason) => Self::refused("claims", reason),
        })
    }

    /// `lists`: names of groups separated by commas, as rules write them.
    pub(super) fn of_groups(compiled: &Compiled, lists: &[String]) -> Self {
        let snapshot = &compiled.snapshot;
        let names: Vec<&str> = lists
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        // Groups are those of an issuer's user; which one only matters where there are several.
        let resolve = |names: &[&str]| snapshot.groups.of_names(0, names.iter().copied());
        let ids = resolve(&names);
        let is_known =
            |name: &&str| snapshot.groups.id(name).is_some() || names_a_group(snapshot, 0, &resolve(&[name]));
        let unknown = names.iter().filter(|name| !is_known(name)).map(|name| (*name).to_owned());
        let groups = shown_groups(snapshot, &ids);
        let shown = Who { groups, unknown_groups: unknown.collect(), ..Who::of("groups") };
        Self { ids, refused: None, shown }
    }

    fn refused(source: &'static str, reason: Reason) -> Self {
        let shown = Who { refused: Some(reason.name()), ..Who::of(source) };
        Self { ids: Box::default(), refused: Some(reason), shown }
    }

    fn known(snapshot: &Snapshot, source: &'static str, issuer: usize, identity: &Identity) -> Self {
        let raw = || identity.groups.iter().map(|group| &**group);
        let ids = snapshot.groups.of_user(issuer, raw());
        let is_unknown = |group: &&str| {
            let ids = snapshot.groups.of_user(issuer, std::iter::once(*group));
            !names_a_group(snapshot, issuer, &ids)
        };
        let text = |value: &Option<Box<str>>| value.as_deref().map(str::to_owned);
        let shown = Who {
            verified: source == "token",
            known: Some(Known {
                issuer: snapshot.issuer_names.get(issuer).map_or_else(String::new, ToString::to_string),
                subject: text(&identity.subject),
                object_id: text(&identity.object_id),
                user: text(&identity.user),
                token_id: text(&identity.token_id),
            }),
            groups: shown_groups(snapshot, &ids),
            unknown_groups: raw().filter(is_unknown).map(str::to_owned).collect(),
            ..Who::of(source)
        };
        Self { ids, refused: None, shown }
    }
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
/// Why there are none, in words; then the token cannot be verified.
pub(super) fn fetch_keys(compiled: &mut Compiled, header: &[u8]) -> Result<(), String> {
    let snapshot = &compiled.snapshot;
    let token = bearer(snapshot, header.trim_ascii());
    let Some(at) = claimed_issuer(token, &snapshot.issuers) else { return Ok(()) };
    let (Some(rules), Some(Some(endpoint))) = (snapshot.issuers.get(at), compiled.endpoints.get(at)) else {
        return Ok(());
    };
    let name = snapshot.issuer_names.get(at).map_or("", |name| name);
    let (set, _) =
        keys::fetch(endpoint, rules.algorithms).map_err(|why| format!("issuer `{name}`: {why}"))?;
    if set.is_empty() {
        return Err(format!("issuer `{name}`: it publishes no usable key; see `tenantauth keys`"));
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
