//! Tokens, key sets and service tokens.

use super::parts;
use crate::reason::Reason;
use crate::token::algorithm::{Algorithm, AlgorithmSet};
use crate::token::claims::{ClaimPath, Claims, GroupsFormat, IssuerRules, Origin, read_claims};
use crate::token::digest::Sha256;
use crate::token::fixtures::{self, ISSUER, NOW, b64, jwk, key_set, with};
use crate::token::jwks::{InvalidJwks, KeyReport, MAX_JWKS_LEN, MAX_KEYS};
use crate::token::keys::KeySet;
use crate::token::service::{Credentials, ServiceTokenCache};
use crate::token::twin::twin;
use crate::token::{MAX_TOKEN_LEN, VerifiedClaims, claimed_issuer, verify};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// Ed25519 alone: quick, and with one signature for each message.
static KEYS: LazyLock<[Option<Arc<KeySet>>; 1]> = LazyLock::new(|| {
    let key = with(jwk(Algorithm::EdDsa), "kid", json!("k1"));
    [Some(key_set(&[key], AlgorithmSet::from_iter([Algorithm::EdDsa])))]
});

fn rules() -> [IssuerRules; 1] {
    [IssuerRules { algorithms: AlgorithmSet::from_iter([Algorithm::EdDsa]), ..fixtures::rules() }]
}

/// Verifies as a request does, and holds what is always true of the answer.
fn verified(token: &[u8]) -> Result<VerifiedClaims, Reason> {
    let rules = rules();
    let found = verify(token, &rules, &*KEYS, NOW);
    assert_eq!(verify(token, &rules, &*KEYS, NOW), found, "the same question has one answer");
    match &found {
        Ok(claims) => {
            assert_eq!(claimed_issuer(token, &rules), Some(0));
            assert_eq!(claims.check_times(60, NOW), Ok(()));
            // Without its keys nothing verifies, nor under other keys.
            assert_eq!(verify(token, &rules, &[None], NOW), Err(Reason::KeysUnavailable));
        }
        Err(reason) => assert!(
            reason.name().starts_with("token_") || reason.name().starts_with("groups_"),
            "{reason} is no reason of a token"
        ),
    }
    found
}

/// Any bytes as a token: taken only with the one signature that the key makes.
pub(super) fn token(bytes: &[u8]) -> bool {
    let signed_by_us = || {
        let text = std::str::from_utf8(bytes).ok()?;
        let (signed, signature) = text.rsplit_once('.')?;
        Some(signature == b64(fixtures::sign(Algorithm::EdDsa, signed.as_bytes())))
    };
    let found = verified(bytes);
    if found.is_ok() {
        assert_eq!(signed_by_us(), Some(true), "a signature was accepted that the key did not make");
        assert!(bytes.len() <= MAX_TOKEN_LEN);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'.').count(), 2);
    } else if found == Err(Reason::TokenSignature) {
        assert_eq!(signed_by_us(), Some(false), "the key's own signature was refused");
    }
    // A token has at most one other spelling that some decoder takes for it, and that one leads back.
    if let Some(other) = twin(bytes) {
        assert_ne!(other, bytes);
    }
    found.is_ok()
}

/// A header and claims of any bytes, signed well: taken only if a lax reader finds in them all that is required.
pub(super) fn claims(bytes: &[u8]) -> bool {
    let [header, claims] = parts(bytes);
    let signed = format!("{}.{}", b64(header), b64(claims));
    let token = format!("{signed}.{}", b64(fixtures::sign(Algorithm::EdDsa, signed.as_bytes())));
    let found = verified(token.as_bytes());
    assert_ne!(found, Err(Reason::TokenSignature));
    read_groups(claims);
    let Ok(verified) = found else { return false };

    let (header, claims) = (lax(header), lax(claims));
    assert!(["EdDSA", "Ed25519"].contains(&header["alg"].as_str().unwrap()));
    assert!(header["kid"].is_null() || header["kid"] == "k1");
    assert!(header["typ"].is_null() || header["typ"].as_str().unwrap().eq_ignore_ascii_case("jwt"));
    for name in ["crit", "enc", "zip", "cty", "b64"] {
        assert!(header.get(name).is_none(), "{name}");
    }
    assert_eq!(claims["iss"], ISSUER);
    let now = NOW as f64;
    assert!(claims["exp"].as_f64().unwrap() > now - 61.0);
    for name in ["nbf", "iat"] {
        assert!(claims.get(name).is_none_or(|time| time.as_f64().unwrap() <= now + 60.0), "{name}");
    }
    let audience = |value: &Value| value == "grafana" || value == "other";
    assert!(audience(&claims["aud"]) || claims["aud"].as_array().unwrap().iter().any(audience));
    let identity = verified.identity();
    let text = |name: &str| claims.get(name).map(|value| value.as_str().unwrap());
    assert_eq!(identity.subject.as_deref(), text("sub"));
    assert_eq!(identity.object_id.as_deref(), text("oid"));
    assert!(identity.subject.is_some() || identity.object_id.is_some());
    let groups = groups_of(GroupsFormat::List, &claims["groups"]);
    assert_eq!(identity.groups.iter().map(|group| &**group).collect::<Vec<_>>(), groups);
    assert!(groups.len() <= 2000 && groups.iter().all(|group| !group.is_empty()));
    for shown in
        [&identity.subject, &identity.object_id, &identity.user, &identity.token_id].into_iter().flatten()
    {
        assert!(!shown.is_empty() && !shown.chars().any(char::is_control), "{shown:?}");
    }
    true
}

/// The groups that a lax reader finds in a claim.
fn groups_of(format: GroupsFormat, claim: &Value) -> Vec<&str> {
    match (format, claim) {
        (_, Value::Null) => Vec::new(),
        (GroupsFormat::List, Value::Array(list)) => {
            list.iter().map(|group| group.as_str().unwrap()).collect()
        }
        (GroupsFormat::List | GroupsFormat::String, Value::String(group)) => vec![group],
        (GroupsFormat::Space, Value::String(line)) => line.split_ascii_whitespace().collect(),
        (GroupsFormat::Comma, Value::String(line)) => {
            line.split(',').map(str::trim_ascii).filter(|group| !group.is_empty()).collect()
        }
        (GroupsFormat::Keys, Value::Object(object)) => {
            let is_held = |value: &Value| match value {
                Value::Bool(held) => *held,
                Value::Null => false,
                value => {
                    assert!(value.is_object() || value.is_array(), "{value} says nothing of a group");
                    true
                }
            };
            object.iter().filter(|(_, value)| is_held(value)).map(|(group, _)| &**group).collect()
        }
        (format, claim) => panic!("{claim} as {format:?}"),
    }
}

/// Any claims in every format and from two places: what is read is what a lax reader finds there, and no more.
fn read_groups(text: &[u8]) {
    let Ok(claims) = Claims::parse(text) else { return };
    for groups_format in GroupsFormat::ALL {
        let groups_claim = ["groups", "/realm/roles"].map(|path| ClaimPath::parse(path).unwrap()).into();
        let rules = IssuerRules { groups_claim, groups_format, ..fixtures::rules() };
        let Ok(identity) = read_claims(&claims, &rules, Origin::Sample, NOW) else { continue };
        let lax = lax(text);
        let found = [&lax["groups"], &lax["realm"]["roles"]];
        assert!(found.iter().any(|claim| !claim.is_null()), "groups of nowhere");
        let mut expected: Vec<&str> =
            found.into_iter().flat_map(|claim| groups_of(groups_format, claim)).collect();
        let mut read: Vec<&str> = identity.groups.iter().map(|group| &**group).collect();
        assert!(read.len() <= 2000 && read.iter().all(|group| !group.is_empty()));
        read.sort_unstable();
        assert!(read.windows(2).all(|pair| pair[0] != pair[1]), "united: {read:?}");
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(read, expected, "{groups_format:?}");
    }
}

/// Reads JSON as most libraries do. What we take must have no member twice: then an object has as many members as the
/// text has colons.
fn lax(text: &[u8]) -> Value {
    fn members(value: &Value) -> usize {
        match value {
            Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
            Value::Array(list) => list.iter().map(members).sum(),
            _ => 0,
        }
    }
    let value: Value = serde_json::from_slice(text).expect("what we read is JSON");
    let (mut colons, mut quoted, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b':' if !quoted => colons += 1,
            _ => {}
        }
    }
    assert_eq!(members(&value), colons, "a member stands there twice");
    value
}

/// Any bytes as a key set: only public keys for signatures get in, and what is told of the others is one short line.
pub(super) fn jwks(bytes: &[u8]) -> bool {
    let (set, reports) = match KeySet::from_jwks(bytes, AlgorithmSet::all()) {
        Ok(read) => read,
        Err(why) => {
            assert_eq!(why == InvalidJwks::TooLarge, bytes.len() > MAX_JWKS_LEN);
            assert!(!why.to_string().contains('\n'));
            return false;
        }
    };
    let document: Value = serde_json::from_slice(bytes).expect("what we read is JSON");
    let listed = document["keys"].as_array().unwrap();
    assert_eq!(listed.len(), reports.len());
    assert!(listed.len() <= MAX_KEYS);
    let accepted =
        || listed.iter().zip(&reports).filter(|(_, report)| report.refused.is_none()).map(|(key, _)| key);
    // Several entries may be of one key.
    assert!(set.len() <= accepted().count() && set.is_empty() == (accepted().count() == 0));
    for why in reports.iter().filter_map(|report| report.refused.as_deref()) {
        assert!(why.chars().count() <= 503 && !why.contains(crate::text::is_hidden), "{why:?}");
    }
    let number = |key: &Value, name: &str| -> Vec<u8> {
        let text = key[name].as_str().unwrap().trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        bytes.into_iter().skip_while(|byte| *byte == 0).collect()
    };
    let material = |key: &Value| match key["kty"].as_str() {
        Some("RSA") => (number(key, "n"), number(key, "e")),
        Some("EC") => (number(key, "x"), number(key, "y")),
        _ => (number(key, "x"), Vec::new()),
    };
    let fits = |key: &Value, algorithm: Algorithm| {
        let of_kind = match (key["kty"].as_str(), key["crv"].as_str()) {
            (Some("RSA"), _) => !matches!(algorithm, Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa),
            (Some("EC"), Some("P-256")) => algorithm == Algorithm::Es256,
            (Some("EC"), _) => algorithm == Algorithm::Es384,
            _ => algorithm == Algorithm::EdDsa,
        };
        of_kind && key["alg"].as_str().is_none_or(|own| Algorithm::from_name(own) == Some(algorithm))
    };
    for key in accepted() {
        for secret in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
            assert!(key.get(secret).is_none_or(Value::is_null), "a private key was accepted");
        }
        assert!(matches!(key["kty"].as_str(), Some("RSA" | "EC" | "OKP")));
        assert!(key.get("use").is_none_or(|usage| usage.is_null() || usage == "sig"));
        let ops = key.get("key_ops").filter(|ops| !ops.is_null());
        assert!(ops.is_none_or(|ops| ops.as_array().unwrap().contains(&json!("verify"))), "{key}");
        if key["kty"] == "RSA" {
            assert!((256..=1024).contains(&material(key).0.len()));
        }
        let Some(kid) = key["kid"].as_str() else { continue };
        for other in accepted().filter(|other| other["kid"].as_str() == Some(kid)) {
            let both = Algorithm::ALL.into_iter().any(|own| fits(key, own) && fits(other, own));
            assert!(!both || material(key) == material(other), "two keys are meant by {kid}");
        }
    }
    // In another order it is the same set; with fewer algorithms no larger one.
    // Written anew, an entry with a repeated member has only one of them.
    let is_repeated = |report: &KeyReport| report.refused.as_deref() == Some("a member is repeated in it");
    if !reports.iter().any(is_repeated) {
        let reversed = json!({"keys": listed.iter().rev().collect::<Vec<_>>()}).to_string();
        let (again, _) = KeySet::from_jwks(reversed.as_bytes(), AlgorithmSet::all()).unwrap();
        assert_eq!(again.fingerprint(), set.fingerprint());
    }
    let (fewer, _) = KeySet::from_jwks(bytes, AlgorithmSet::from_iter([Algorithm::EdDsa])).unwrap();
    assert!(fewer.len() <= set.len());
    !set.is_empty()
}

/// Any bytes as the value of `Authorization`: only the account's own token, in either form, is the account's.
pub(super) fn service_token(bytes: &[u8]) -> bool {
    const TOKEN: &str = "tas_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let sums = [Sha256::of(TOKEN.as_bytes())];
    let other = [Sha256::of(b"tas_another")];
    let accounts = || [("other", &other[..]), ("agent", &sums[..])].into_iter();
    let read = Credentials::read(bytes);
    let found = read.as_ref().map(|credentials| credentials.verify(accounts(), |_, _| false));
    let mut cache = ServiceTokenCache::default();
    for _ in 0..2 {
        let remembered = cache
            .get_or_insert_with(1, bytes, || {
                Credentials::read(bytes).ok_or(Reason::TokenMissing)?.verify(accounts(), |_, _| false)
            })
            .copied();
        assert_eq!(remembered, found.unwrap_or(Err(Reason::TokenMissing)));
        assert_eq!(cache.len(), usize::from(remembered.is_ok()), "only what is an account's is remembered");
    }
    if found == Some(Ok(1)) {
        let text = std::str::from_utf8(bytes).expect("both forms are text");
        let (scheme, rest) = text.split_once(' ').unwrap();
        let proof = if scheme.eq_ignore_ascii_case("bearer") {
            rest.trim_ascii().to_owned()
        } else {
            assert!(scheme.eq_ignore_ascii_case("basic"));
            let encoded = rest.trim_ascii().trim_end_matches('=');
            let plain = String::from_utf8(STANDARD_NO_PAD.decode(encoded).unwrap()).unwrap();
            plain.strip_prefix("agent:").expect("the name is the account's").to_owned()
        };
        assert_eq!(proof, TOKEN);
    } else {
        assert!(matches!(found, None | Some(Err(Reason::TokenUnknown))), "{found:?}");
    }
    found == Some(Ok(1))
}
