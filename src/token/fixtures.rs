//! For tests: one key of each kind, made when first used, and tokens signed with them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "built for tests and fuzzing alone"
)]
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use more of it than fuzzing does"))]

use super::algorithm::{Algorithm, AlgorithmSet};
use super::claims::{ClaimPath, GroupsFormat, IssuerRules};
use super::keys::KeySet;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub(crate) static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static P256: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static P384: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
/// The same in every process, so that what a fuzzer found can be read again.
static ED25519: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

/// When the tests take place.
pub(crate) const NOW: u64 = 1_800_000_000;
/// The `iss` of the tokens.
pub(crate) const ISSUER: &str = "https://issuer.example";

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs with the key that the algorithm needs.
pub(crate) fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |encoding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; RSA.public_modulus_len()];
        RSA.sign(encoding, &random, message, &mut signature).unwrap();
        signature
    };
    match algorithm {
        Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
        Algorithm::Rs384 => rsa(&RSA_PKCS1_SHA384),
        Algorithm::Rs512 => rsa(&RSA_PKCS1_SHA512),
        Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
        Algorithm::Ps384 => rsa(&RSA_PSS_SHA384),
        Algorithm::Ps512 => rsa(&RSA_PSS_SHA512),
        Algorithm::Es256 => P256.sign(&random, message).unwrap().as_ref().to_vec(),
        Algorithm::Es384 => P384.sign(&random, message).unwrap().as_ref().to_vec(),
        Algorithm::EdDsa => ED25519.sign(message).as_ref().to_vec(),
    }
}

/// The public key that verifies what [`sign`] signs, without `alg` and `kid`.
pub(crate) fn jwk(algorithm: Algorithm) -> Value {
    let ec = |crv: &str, point: &[u8]| {
        let (x, y) = point[1..].split_at(point.len() / 2);
        json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)})
    };
    match algorithm {
        Algorithm::Es256 => ec("P-256", P256.public_key().as_ref()),
        Algorithm::Es384 => ec("P-384", P384.public_key().as_ref()),
        Algorithm::EdDsa => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(ED25519.public_key())}),
        _ => {
            let n = RSA.public_key().modulus().big_endian_without_leading_zero();
            let e = RSA.public_key().exponent().big_endian_without_leading_zero();
            json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
        }
    }
}

/// The value with one member set, or taken out where `value` is null.
pub(crate) fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    object
}

/// A set of these keys, of which none may be refused.
pub(crate) fn key_set(keys: &[Value], algorithms: AlgorithmSet) -> Arc<KeySet> {
    let (set, reports) = KeySet::from_jwks(json!({"keys": keys}).to_string().as_bytes(), algorithms).unwrap();
    assert!(reports.iter().all(|report| report.refused.is_none()), "{reports:?}");
    Arc::new(set)
}

/// The issuer that the tokens come from.
pub(crate) fn rules() -> IssuerRules {
    IssuerRules {
        issuer: ISSUER.into(),
        audiences: vec!["other".into(), "grafana".into()],
        algorithms: AlgorithmSet::default(),
        groups_claim: Box::new([ClaimPath::parse("groups").unwrap()]),
        groups_format: GroupsFormat::List,
        user_claim: "preferred_username".into(),
        leeway: 60,
    }
}

/// Claims that pass.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": "grafana",
        "sub": "subject-1",
        "oid": "00000000-0000-0000-0000-000000000001",
        "uti": "token-1",
        "preferred_username": "ada@example.org",
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 3600,
        "groups": ["g1", "g2"],
    })
}

/// A token of this header and these claims, whatever they are.
pub(crate) fn token(algorithm: Algorithm, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let signature = sign(algorithm, signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}
