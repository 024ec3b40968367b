//! Why a key set, or one key of it, cannot be used. The fault is the provider's, or that of a file of keys.

use super::{MAX_JWKS_LEN, MAX_KEYS, MAX_KID_LEN, MAX_RSA_BITS, MIN_RSA_BITS};
use thiserror::Error;

/// Why a document is no key set at all. Its text is the rest of a sentence that begins with the document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidJwks {
    /// Larger than [`MAX_JWKS_LEN`].
    #[error("is larger than {MAX_JWKS_LEN} bytes")]
    TooLarge,
    /// Not one JSON object, or one with a duplicate member outside of its keys: what is wrong, and where.
    #[error("is not valid JSON: {0}")]
    Json(String),
    /// No `keys`, or not an array.
    #[error("has no array `keys`")]
    NoKeys,
    /// More than [`MAX_KEYS`].
    #[error("holds more than {MAX_KEYS} keys")]
    TooManyKeys,
}

/// Why one key of a set verifies nothing. Names and values are the document's, of any length and content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum UnusableKey<'a> {
    #[error("it is not an object")]
    NotAnObject,
    #[error("a member is repeated in it")]
    Ambiguous,
    #[error("another key of the set has its `kid`, for the same algorithm")]
    KidRepeated,
    #[error("its `kid` is longer than {MAX_KID_LEN} bytes")]
    KidTooLong,
    #[error("it has no `{0}`")]
    Missing(&'static str),
    #[error("its `{0}` is not a string")]
    NotAString(&'static str),
    #[error("its `{0}` is not base64url")]
    NotBase64(&'static str),
    #[error("its `alg` `{0}` is not supported")]
    Algorithm(&'a str),
    #[error("its `alg` `{alg}` does not fit {key}")]
    AlgorithmOfOtherKey { alg: &'a str, key: &'static str },
    #[error("its `alg` `{0}` is not among the issuer's algorithms")]
    AlgorithmNotListed(&'a str),
    #[error("none of the issuer's algorithms uses {0}")]
    NoAlgorithm(&'static str),
    #[error("it is a private key")]
    Private,
    #[error("its private key is in the set too")]
    Published,
    #[error("it is a shared secret, which could sign as well as verify")]
    SharedSecret,
    #[error("its `use` is `{0}`, not `sig`")]
    Use(&'a str),
    #[error("its `key_ops` do not hold `verify`")]
    Operations,
    #[error("its `key_ops` is not an array")]
    OperationsNotAnArray,
    #[error("its `kty` `{0}` is not supported")]
    KeyType(&'a str),
    #[error("its `crv` `{crv}` is not supported for `kty` `{kty}`")]
    Curve { crv: &'a str, kty: &'static str },
    #[error("its `{0}` is longer than the curve's coordinates")]
    CoordinateLength(&'static str),
    #[error("its `x` is not 32 bytes")]
    Ed25519Length,
    #[error("its `{0}` is empty or zero")]
    Zero(&'static str),
    #[error("its `{0}` is even")]
    Even(&'static str),
    #[error("its modulus has {0} bits, fewer than {MIN_RSA_BITS}")]
    ModulusTooShort(usize),
    #[error("its modulus has {0} bits, more than {MAX_RSA_BITS}")]
    ModulusTooLong(usize),
    #[error("its `e` is below 3 or above 2^32")]
    Exponent,
    #[error("its modulus has the fingerprint of a broken generator (CVE-2017-15361)")]
    BrokenGenerator,
    #[error("it is not a valid public key")]
    NotAPublicKey,
}
