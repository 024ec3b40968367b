//! What a refused token says, and what the policy would accept in its place: for people, never for a decision.
//!
//! Every check of [`super::verify`] that the token does not pass is listed, not only the first, in the order in which
//! they are made. Nothing is repeated of a token but what policies are written about: header members, `iss`, `aud`,
//! `tid`, the identifiers' and the groups' types, and times.

use super::algorithm::{Algorithm, AlgorithmSet};
use super::claims::{
    Claims, GroupsFormat, IssuerRules, MAX_GROUPS, MAX_TIME, Origin, groups, is_clean, is_of_tenant,
};
use super::digest::sha256_hex;
use super::json::{Json, Object};
use super::keys::KeySet;
use super::service::{Credentials, is_token};
use super::{Header, MAX_TOKEN_LEN, Parts, decode};
use crate::reason::Reason;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A longer text is cut, in characters.
const MAX_TEXT: usize = 200;
/// Of a longer list only so many entries are shown.
const MAX_ITEMS: usize = 20;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Inspection {
    /// Whether the signature was verified: else everything that is found is only claimed.
    pub(crate) verified: bool,
    /// Each check that was not passed.
    pub(crate) findings: Vec<Finding>,
}

/// One check that was not passed. Its form in reports is stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// A member of the header, a claim, or `parts`, `length`, `header`, `claims`, `signature`, `keys`, `token_sha256`,
    /// `revoked`.
    pub(crate) name: String,
    /// What the token has; null where it has nothing. Where a value is not repeated, an object with its `type`.
    pub(crate) found: Value,
    /// What would be accepted: an object with `one_of` (a list), `absent` (true), `type`, `at_most`, `after` or
    /// `not_after` (times).
    pub(crate) expected: Value,
}

impl Inspection {
    fn note(&mut self, name: &str, found: Value, expected: Value) {
        self.findings.push(Finding { name: name.to_owned(), found, expected });
    }

    /// A token that verified, and whose principal or which itself is revoked.
    ///
    /// `what`: `token` or `principal`.
    pub(crate) fn of_revoked(what: &'static str) -> Self {
        let mut seen = Self { verified: true, ..Self::default() };
        seen.note("revoked", what.into(), absent());
        seen
    }
}

/// Looks at a token that [`super::verify`] refuses.
///
/// `names`, `keys`: parallel to `issuers`. `now`: Unix seconds.
pub(crate) fn inspect(
    token: &[u8],
    issuers: &[IssuerRules],
    keys: &[Option<Arc<KeySet>>],
    now: u64,
) -> Inspection {
    let mut seen = Inspection::default();
    if token.len() > MAX_TOKEN_LEN {
        seen.note("length", token.len().into(), json!({"at_most": MAX_TOKEN_LEN}));
        return seen;
    }
    let Ok(parts) = Parts::split(token) else {
        let found = token.split(|byte| *byte == b'.').count();
        seen.note("parts", found.into(), one_of([3]));
        return seen;
    };
    let parts_of = [("header", parts.header), ("claims", parts.payload), ("signature", parts.signature)];
    for (name, part) in parts_of {
        if decode(part).is_err() {
            seen.note(name, kind("other characters"), kind("base64url without padding"));
        }
    }
    let (header, payload) =
        (decode(parts.header).unwrap_or_default(), decode(parts.payload).unwrap_or_default());
    let (header, claims) = (Object::parse(&header).ok(), Claims::parse(&payload).ok());
    for (name, is_read) in [("header", header.is_some()), ("claims", claims.is_some())] {
        if !is_read && !seen.findings.iter().any(|finding| finding.name == name) {
            seen.note(name, kind("other text"), kind("one JSON object without repeated members"));
        }
    }
    let claimed = claims.as_ref().and_then(|claims| claims.issuer().ok().flatten());
    let issuer = claimed.and_then(|claimed| issuers.iter().position(|rules| *rules.issuer == *claimed));
    let rules = issuer.and_then(|issuer| issuers.get(issuer));
    if let Some(header) = &header {
        look_at_header(header, rules, issuers, &mut seen);
    }
    let Some(claims) = claims else { return seen };
    let Some((issuer, rules)) = issuer.zip(rules) else {
        let known = issuers.iter().map(|rules| text(&rules.issuer));
        seen.note("iss", claims.0.get("iss").map_or(Value::Null, shown), one_of(known));
        return seen;
    };
    let is_accepted = |header: &Header<'_>| rules.algorithms.contains(header.algorithm);
    let read = header.as_ref().and_then(|header| Header::read(header).ok()).filter(is_accepted);
    if let (Some(header), Ok(signature)) = (read, decode(parts.signature)) {
        let keys = keys.get(issuer).and_then(Option::as_deref).filter(|keys| !keys.is_empty());
        look_at_keys(&header, keys, rules, (parts.signed.as_bytes(), &signature), &mut seen);
    }
    look_at_claims(&claims, rules, Origin::Token, now, &mut seen);
    seen
}

/// The same for claims that nobody signed.
///
/// `issuer`: the rules that hold for them, where there is a choice.
pub(crate) fn inspect_claims(json: &[u8], issuers: &[IssuerRules], now: u64) -> Inspection {
    let mut seen = Inspection::default();
    let Ok(claims) = Claims::parse(json) else {
        seen.note("claims", kind("other text"), kind("one JSON object without repeated members"));
        return seen;
    };
    let known = |rules: &&IssuerRules| match claims.0.get("iss") {
        None => issuers.len() == 1,
        Some(claimed) => claimed.as_str() == Some(&*rules.issuer),
    };
    match issuers.iter().find(known) {
        Some(rules) => look_at_claims(&claims, rules, Origin::Sample, now, &mut seen),
        None => {
            let known = issuers.iter().map(|rules| text(&rules.issuer));
            seen.note("iss", claims.0.get("iss").map_or(Value::Null, shown), one_of(known));
        }
    }
    seen
}

/// Looks at a service token that belongs to no account.
///
/// `accounts`: names, and the SHA-256 of each of their tokens as hexadecimal digits, of which the first 8 are shown.
pub(crate) fn inspect_service<'a>(
    credentials: &Credentials<'_>,
    accounts: impl Iterator<Item = (&'a str, Vec<String>)>,
) -> Inspection {
    let mut seen = Inspection::default();
    if !is_token(credentials.token()) {
        let found = json!({"type": "another text", "length": credentials.token().len()});
        seen.note("token", found, kind("`tas_` and 43 characters of base64url"));
        return seen;
    }
    let short = |sum: &str| sum.get(..8).unwrap_or_default().to_owned();
    let sum = sha256_hex(credentials.token());
    let mut known = Vec::new();
    for (account, sums) in accounts {
        if sums.contains(&sum) {
            let user = credentials.user().map(|user| text(&String::from_utf8_lossy(user)));
            seen.verified = true;
            seen.note("user", user.unwrap_or_default(), one_of([account]));
            return seen;
        }
        known.extend(sums.iter().map(|sum| short(sum)));
    }
    seen.note("token_sha256", short(&sum).into(), one_of(known));
    seen
}

fn look_at_header(
    header: &Object<'_>,
    rules: Option<&IssuerRules>,
    issuers: &[IssuerRules],
    seen: &mut Inspection,
) {
    for (name, value) in header.iter() {
        let is_jwt = || value.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"));
        match name {
            "kid" if value.as_str().is_none() => seen.note(name, shown(value), kind("string")),
            "typ" if !is_jwt() => seen.note(name, shown(value), one_of(["JWT"])),
            "crit" | "enc" | "zip" | "cty" | "b64" => seen.note(name, shown(value), absent()),
            _ => {}
        }
    }
    let accepted = |set: AlgorithmSet| set.iter().collect::<Vec<Algorithm>>();
    let accepted = match rules {
        Some(rules) => accepted(rules.algorithms),
        None => issuers.iter().flat_map(|rules| accepted(rules.algorithms)).collect(),
    };
    let algorithm = header.get("alg").and_then(Json::as_str).and_then(Algorithm::from_name);
    if !algorithm.is_some_and(|algorithm| accepted.contains(&algorithm)) {
        let found = header.get("alg").map_or(Value::Null, shown);
        seen.note("alg", found, one_of(accepted.iter().map(|algorithm| algorithm.name())));
    }
}

/// `signed`: the signed bytes, and the signature.
fn look_at_keys(
    header: &Header<'_>,
    keys: Option<&KeySet>,
    rules: &IssuerRules,
    signed: (&[u8], &[u8]),
    seen: &mut Inspection,
) {
    let Some(keys) = keys else {
        return seen.note("keys", Value::Null, kind("keys of the issuer; see `tenantauth keys`"));
    };
    let (message, signature) = signed;
    match keys.verify(&rules.issuer, header.kid, header.algorithm, message, signature) {
        Ok(_) => seen.verified = true,
        Err(Reason::TokenKeyUnknown) => {
            let all: Vec<_> = keys.described(&rules.issuer).collect();
            let own = all.iter().filter(|(kid, _)| kid.is_some() && *kid == header.kid);
            let algorithms: Vec<Algorithm> = own.flat_map(|(_, algorithms)| algorithms.iter()).collect();
            // The key is there, and for other algorithms.
            if !algorithms.is_empty() && !algorithms.contains(&header.algorithm) {
                let expected = one_of(algorithms.iter().map(|algorithm| algorithm.name()));
                return seen.note("alg", header.algorithm.name().into(), expected);
            }
            let found = header.kid.map_or(Value::Null, text);
            seen.note("kid", found, one_of(all.iter().map(|(kid, _)| kid.map_or(Value::Null, text))));
        }
        Err(_) => seen.note("signature", kind("a signature by another key, or of other content"), {
            let kid = header.kid.map_or(Value::Null, text);
            json!({"type": "a signature by the issuer's key", "kid": kid})
        }),
    }
}

fn look_at_claims(claims: &Claims<'_>, rules: &IssuerRules, origin: Origin, now: u64, seen: &mut Inspection) {
    let all = &claims.0;
    let found = |name: &str| all.get(name).map_or(Value::Null, shown);
    for name in ["sub", "oid"] {
        match all.get(name) {
            Some(Json::String(id)) if is_clean(id) => {}
            Some(value) => {
                let what = if value.as_str().is_some() {
                    kind("an empty string, or control characters")
                } else {
                    shown(value)
                };
                seen.note(name, what, kind("a string without control characters"));
            }
            None => {}
        }
    }
    let is_sample = origin == Origin::Sample;
    if !is_sample && all.get("sub").is_none() && all.get("oid").is_none() {
        seen.note("sub", Value::Null, kind("a string without control characters"));
    }
    look_at_times(all, rules, is_sample, now, seen);
    if !is_of_tenant(all, &rules.issuer) {
        let tenant = rules.issuer.split('/').skip(3).find(|segment| crate::text::is_guid(segment));
        seen.note("tid", found("tid"), one_of(tenant));
    }
    let is_ours = |audience: &str| rules.audiences.iter().any(|own| **own == *audience);
    let is_addressed = match all.get("aud") {
        None => is_sample,
        Some(Json::String(audience)) => is_ours(audience),
        Some(Json::List(list)) => {
            list.iter().all(|value| value.as_str().is_some())
                && list.iter().filter_map(Json::as_str).any(is_ours)
        }
        Some(_) => false,
    };
    if !is_addressed {
        seen.note("aud", found("aud"), one_of(rules.audiences.iter().map(|own| text(own))));
    }
    if let Err(reason) = groups(all, rules) {
        let there = || {
            rules.groups_claim.iter().filter_map(|path| path.find(all)).filter(|claim| **claim != Json::Null)
        };
        let is_wrong = |claim: &&Json<'_>| !rules.groups_format.fits(claim);
        let what = match there().find(is_wrong).or_else(|| there().next()) {
            _ if reason == Reason::GroupsOverage => kind("a reference to groups that are not in the token"),
            None => Value::Null,
            Some(Json::List(list)) => {
                match list.iter().position(|group| group.as_str().is_none_or(str::is_empty)) {
                    Some(at) => {
                        let item = list.get(at).map_or("null", type_of);
                        json!({"type": "list", "length": list.len(), "item": at, "item_type": item})
                    }
                    None => json!({"type": "list", "length": list.len()}),
                }
            }
            Some(value) => kind(type_of(value)),
        };
        let shape = match rules.groups_format {
            GroupsFormat::List => "list of strings",
            GroupsFormat::Space => "string of groups separated by blanks",
            GroupsFormat::Comma => "string of groups separated by commas",
            GroupsFormat::Keys => "object whose keys are groups",
            GroupsFormat::String => "string",
        };
        let expected = json!({"type": shape, "at_most": MAX_GROUPS});
        let names: Vec<String> = rules.groups_claim.iter().map(ToString::to_string).collect();
        seen.note(&names.join(", "), what, expected);
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range has been checked")]
fn look_at_times(all: &Object<'_>, rules: &IssuerRules, is_sample: bool, now: u64, seen: &mut Inspection) {
    let leeway = rules.leeway;
    for name in ["exp", "nbf", "iat"] {
        let is_end = name == "exp";
        match all.get(name) {
            None if is_end && !is_sample => {
                seen.note(name, Value::Null, kind("number of seconds since 1970"))
            }
            None => {}
            Some(Json::Number(seconds)) if (0.0..=MAX_TIME).contains(seconds) => {
                let at = if is_end { seconds.floor() } else { seconds.ceil() } as u64;
                if is_end && at.saturating_add(leeway) <= now {
                    seen.note(name, time(at), json!({"after": time(now.saturating_sub(leeway))}));
                } else if !is_end && at > now.saturating_add(leeway) {
                    seen.note(name, time(at), json!({"not_after": time(now.saturating_add(leeway))}));
                }
            }
            Some(value) => seen.note(name, shown(value), kind("number of seconds since 1970")),
        }
    }
}

/// Unix seconds as in RFC 3339; as a number where they are no time.
fn time(seconds: u64) -> Value {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| seconds.into(), |time| time.to_string().into())
}

fn one_of<T: Into<Value>>(values: impl IntoIterator<Item = T>) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for value in values.into_iter().map(Into::into) {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    json!({"one_of": all})
}

fn absent() -> Value {
    json!({"absent": true})
}

fn kind(what: &str) -> Value {
    json!({"type": what})
}

const fn type_of(value: &Json<'_>) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::List(_) => "list",
        Json::Object(_) => "object",
        Json::Ambiguous(_) => "object with repeated members",
    }
}

/// A value of the token: texts, numbers and lists of them; of anything else the type.
fn shown(value: &Json<'_>) -> Value {
    match value {
        Json::String(own) => text(own),
        Json::Number(number) => (*number).into(),
        Json::Bool(own) => (*own).into(),
        Json::List(list) => {
            let mut items: Vec<Value> = list
                .iter()
                .take(MAX_ITEMS)
                .map(|item| item.as_str().map_or_else(|| kind(type_of(item)), text))
                .collect();
            if list.len() > MAX_ITEMS {
                items.push(json!({"more": list.len() - MAX_ITEMS}));
            }
            items.into()
        }
        Json::Null | Json::Object(_) | Json::Ambiguous(_) => kind(type_of(value)),
    }
}

fn text(own: &str) -> Value {
    match own.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", own.get(..end).unwrap_or_default()).into(),
        None => own.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::fixtures::{NOW, b64, claims, jwk, key_set, rules, token, with};
    use crate::token::verify;
    use proptest::prelude::*;

    fn keys() -> Arc<KeySet> {
        key_set(&[with(jwk(Algorithm::Rs256), "kid", json!("k1"))], AlgorithmSet::default())
    }

    /// What is refused has a finding, and nothing else has one: nobody is sent to look for a fault that is none.
    fn agree(token: &[u8]) -> Result<(), TestCaseError> {
        let refused = verify(token, &[rules()], &[Some(keys())], NOW).err();
        let seen = inspect(token, &[rules()], &[Some(keys())], NOW);
        prop_assert_eq!(refused.is_some(), !seen.findings.is_empty(), "{:?} {:?}", refused, seen);
        prop_assert!(refused.is_some() || seen.verified);
        let is_claim = refused.is_some_and(|reason| {
            matches!(reason, Reason::TokenExpired | Reason::TokenAudience | Reason::GroupsMalformed)
        });
        prop_assert!(!is_claim || seen.verified, "{:?}", seen);
        Ok(())
    }

    fn value() -> impl Strategy<Value = Value> {
        let at = prop_oneof![-1e3..1e3_f64, Just(1e300), Just(-1.0)];
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            at.prop_map(|at| json!(at)),
            (-4000_i64..4000).prop_map(|off| json!(i64::try_from(NOW).unwrap() + off)),
            (-70.0..70.0_f64).prop_map(|off| json!(1_800_000_000.0 + off)),
            "(grafana|g1|[a-z\u{7}]{0,3})".prop_map(Value::from),
            prop::collection::vec("(grafana|[a-z]{0,3})", 0..4).prop_map(Value::from),
            Just(json!([1, "grafana"])),
            Just(json!({"a": "b"})),
        ]
    }

    const CLAIMS: [&str; 10] =
        ["iss", "aud", "sub", "oid", "exp", "nbf", "iat", "groups", "tid", "hasgroups"];

    const HEADERS: &str = concat!(
        r#"\{"alg":"(RS256|ES256|RS384|none)"(,"kid":("k[12]"|1))?"#,
        r#"(,"(typ|crit|zip)":("JWT"|\[\]))?\}|.{0,20}"#
    );

    proptest! {
        #[test]
        fn what_is_refused_has_a_finding_and_nothing_else(
            name in prop::sample::select(&CLAIMS[..]), value in value(), without in any::<bool>(),
        ) {
            let header = r#"{"alg":"RS256","kid":"k1"}"#;
            // Null takes it out, and is a value of its own in JSON.
            let mut changed = with(claims(), name, value.clone());
            agree(token(Algorithm::Rs256, header, &changed.to_string()).as_bytes())?;
            changed[name] = value;
            if without {
                changed["sub"] = Value::Null;
            }
            agree(token(Algorithm::Rs256, header, &changed.to_string()).as_bytes())?;
        }

        #[test]
        fn whatever_the_header_says(
            header in HEADERS,
            text in prop::option::of(r#"\{.{0,40}\}"#), signature in prop::option::of(any::<Vec<u8>>()),
        ) {
            let text = text.unwrap_or_else(|| claims().to_string());
            let token = match signature {
                None => token(Algorithm::Rs256, &header, &text),
                Some(signature) => format!("{}.{}.{}", b64(header), b64(text), b64(signature)),
            };
            agree(token.as_bytes())?;
        }

        #[test]
        fn any_bytes(token in prop::collection::vec(any::<u8>(), 0..200)) {
            agree(&token)?;
        }
    }
}
