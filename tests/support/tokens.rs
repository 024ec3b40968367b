//! An identity provider: an RSA key, its JWKS, and tokens as good or as bad as a test wants them.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// What `iss` says.
pub(crate) const ISSUER: &str = "https://login.example.test/v2.0";
/// What `aud` says.
pub(crate) const AUDIENCE: &str = "grafana";

/// A signing key with its id.
pub(crate) struct SigningKey {
    /// The `kid`.
    pub(crate) id: &'static str,
    pair: KeyPair,
}

/// The key that the tests' issuer publishes. Made once for a process: it takes a while.
pub(crate) fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::new("key-1"))
}

/// A key that only tests of rotation publish.
pub(crate) fn other_key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::new("key-2"))
}

impl SigningKey {
    fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate(KeySize::Rsa2048).expect("a new key") }
    }

    /// The public half as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let (modulus, exponent) = public_numbers(self.pair.public_key().as_ref());
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        })
    }

    /// A token of exactly this header and these claims, signed with RS256 whatever the header says.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token with the usual header and these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.id});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

/// The JWKS document of these keys.
pub(crate) fn jwks(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// A service token of the promised form, all of one letter.
pub(crate) fn service_token(letter: char) -> String {
    format!("tas_{}", letter.to_string().repeat(43))
}

/// `Authorization: Basic` with this user and password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What a policy knows of a token.
pub(crate) fn sha256(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The claims of a user in these groups, good for ten minutes.
pub(crate) fn claims(groups: &[&str]) -> Value {
    let now = super::now();
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "oid": "00000000-0000-0000-0000-000000000001",
        "preferred_username": "ada@example.test", "uti": "token-id-1",
        "iat": now, "nbf": now, "exp": now + 600, "groups": groups,
    })
}

/// The usual claims with some replaced; null removes one.
pub(crate) fn claims_with(groups: &[&str], changes: Value) -> Value {
    let mut claims = claims(groups);
    let (Value::Object(claims_map), Value::Object(changes)) = (&mut claims, changes) else {
        panic!("changes are an object");
    };
    for (name, value) in changes {
        if value.is_null() {
            claims_map.remove(&name);
        } else {
            claims_map.insert(name, value);
        }
    }
    claims
}

/// A good token of a user in these groups.
pub(crate) fn token(groups: &[&str]) -> String {
    key().token(&claims(groups))
}

/// Modulus and exponent of a DER `RSAPublicKey`: a SEQUENCE of two INTEGERs, each perhaps with a zero in front.
fn public_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    let (sequence, _) = element(der, 0x30);
    let (modulus, rest) = element(sequence, 0x02);
    let (exponent, _) = element(rest, 0x02);
    (strip_zero(modulus), strip_zero(exponent))
}

fn strip_zero(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

/// The content of the DER element in front, and what follows it.
fn element(der: &[u8], tag: u8) -> (&[u8], &[u8]) {
    assert_eq!(der[0], tag, "DER tag");
    let short = usize::from(der[1]);
    let (start, length) = if short < 0x80 {
        (2, short)
    } else {
        let digits = short - 0x80;
        (2 + digits, der[2..2 + digits].iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte)))
    };
    (&der[start..start + length], &der[start + length..])
}
