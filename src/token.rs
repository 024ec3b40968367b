//! Tokens: from the bytes of a header to claims that are proven.
//!
//! Only JWS in compact form (RFC 7515 section 7.1) with a public-key signature; everything else is refused, not
//! interpreted. The order of checks is the order of costs: size and form, header, issuer, key, signature, and only
//! then the claims. The one thing that is read from a token before its signature is which issuer it claims.

pub mod algorithm;
pub(crate) mod authorization;
pub mod cache;
pub mod claims;
pub mod digest;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fixtures;
pub(crate) mod inspect;
mod json;
pub mod jwks;
pub mod keys;
pub mod service;
pub mod twin;

use self::algorithm::Algorithm;
use self::claims::{Claims, Identity, IssuerRules, Origin, read_claims};
use self::json::Object;
use self::keys::KeySet;
use crate::reason::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;

/// The largest token that is looked at, in bytes. nginx's default limits a header line to a quarter of it; 200 groups
/// take about half.
pub const MAX_TOKEN_LEN: usize = 32 * 1024;

/// Claims whose token was verified. Only [`verify`] makes one, so holding one is the proof.
///
/// Proven is what does not change: the signature, the issuer, the audience, the groups. The clock moves on, so
/// [`VerifiedClaims::check_times`] is asked at every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedClaims {
    issuer: usize,
    key_ids: Arc<[Box<str>]>,
    identity: Identity,
}

/// Why a token is refused, and whom it was made for where its signature held. Only [`prove`] makes one, so what it says
/// of somebody is proven; it grants nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// Whom the issuer signed it for; `None` before the signature is verified. Its groups were not read.
    pub signed: Option<Box<VerifiedClaims>>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, signed: None }
    }
}

impl VerifiedClaims {
    /// Which of the issuers given to [`verify`] signed the token.
    pub const fn issuer(&self) -> usize {
        self.issuer
    }

    /// The ids of the key that verified the token, whatever its header says: none of a key without any.
    pub fn key_ids(&self) -> &[Box<str>] {
        &self.key_ids
    }

    /// Whom the token speaks for.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Compares the clock (Unix seconds) with the token's times, `leeway` seconds to its benefit.
    ///
    /// # Errors
    /// [`Reason::TokenExpired`] or [`Reason::TokenNotYetValid`].
    pub fn check_times(&self, leeway: u64, now: u64) -> Result<(), Reason> {
        self.identity.check_times(leeway, now)
    }
}

/// Verifies a token against the issuers that a policy knows.
///
/// `keys` runs parallel to `issuers`: a token is verified only with keys of the issuer it claims. `now` is in Unix
/// seconds.
///
/// # Errors
/// The first of these that applies: [`Reason::TokenMalformed`] (not three parts of base64url within
/// [`MAX_TOKEN_LEN`], the first two JSON objects), [`Reason::TokenUnsupported`] (an algorithm that is unknown or not
/// the issuer's, or a header that changes what the parts mean), [`Reason::TokenIssuer`],
/// [`Reason::KeysUnavailable`], [`Reason::TokenKeyUnknown`], [`Reason::TokenSignature`], and those of
/// [`read_claims`].
pub fn verify(
    token: &[u8],
    issuers: &[IssuerRules],
    keys: &[Option<Arc<KeySet>>],
    now: u64,
) -> Result<VerifiedClaims, Reason> {
    prove(token, issuers, keys, now).map_err(|refused| refused.reason)
}

/// Verifies a token like [`verify`]. Of a token that is refused after its signature was verified, the error holds whom
/// it was made for.
///
/// # Errors
/// Those of [`verify`].
pub fn prove(
    token: &[u8],
    issuers: &[IssuerRules],
    keys: &[Option<Arc<KeySet>>],
    now: u64,
) -> Result<VerifiedClaims, Refused> {
    let parts = Parts::split(token)?;
    let (header, payload) = (decode(parts.header)?, decode(parts.payload)?);
    let signature = decode(parts.signature)?;
    let header = Object::parse(&header).map_err(|_| Reason::TokenMalformed)?;
    let claims = Claims::parse(&payload)?;
    let header = Header::read(&header)?;

    let claimed = claims.issuer()?.ok_or(Reason::TokenIssuer)?;
    let (issuer, rules) =
        issuers.iter().enumerate().find(|(_, rules)| *rules.issuer == *claimed).ok_or(Reason::TokenIssuer)?;
    if !rules.algorithms.contains(header.algorithm) {
        return Err(Reason::TokenUnsupported.into());
    }

    let keys = keys
        .get(issuer)
        .and_then(Option::as_deref)
        .filter(|keys| !keys.is_empty())
        .ok_or(Reason::KeysUnavailable)?;
    let key_ids =
        keys.verify(&rules.issuer, header.kid, header.algorithm, parts.signed.as_bytes(), &signature)?;
    let key_ids = Arc::clone(key_ids);

    // Nothing above this line says whom a token is for.
    match read_claims(&claims, rules, Origin::Token, now) {
        Ok(identity) => Ok(VerifiedClaims { issuer, key_ids, identity }),
        Err(reason) => Err(refused(reason, issuer, key_ids, claims.shown(rules))),
    }
}

#[cold]
fn refused(reason: Reason, issuer: usize, key_ids: Arc<[Box<str>]>, identity: Identity) -> Refused {
    Refused { reason, signed: Some(Box::new(VerifiedClaims { issuer, key_ids, identity })) }
}

/// Which of the issuers a token claims to be from. Nothing is proven by it.
pub fn claimed_issuer(token: &[u8], issuers: &[IssuerRules]) -> Option<usize> {
    let payload = decode(Parts::split(token).ok()?.payload).ok()?;
    let claims = Claims::parse(&payload).ok()?;
    let claimed = claims.issuer().ok()??;
    issuers.iter().position(|rules| *rules.issuer == *claimed)
}

/// The three parts of a compact JWS, still encoded.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// The first two with the dot between them: what the signature covers.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a [u8]) -> Result<Self, Reason> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(Reason::TokenMalformed);
        }
        let parts = || {
            let (signed, signature) = str::from_utf8(token).ok()?.rsplit_once('.')?;
            let (header, payload) = signed.split_once('.')?;
            (!payload.contains('.')).then_some(Self { header, payload, signature, signed })
        };
        parts().ok_or(Reason::TokenMalformed)
    }
}

/// Base64url without padding, blanks, line breaks or stray bits: each value has one spelling.
fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::TokenMalformed)
}

/// What counts of a token's header. Keys that it brings along (`jwk`, `jku`, `x5u`, `x5c`) do not.
struct Header<'a> {
    algorithm: Algorithm,
    kid: Option<&'a str>,
}

impl<'a> Header<'a> {
    fn read(header: &'a Object<'_>) -> Result<Self, Reason> {
        let mut algorithm = None;
        let mut kid = None;
        for (name, value) in header.iter() {
            match name {
                "alg" => algorithm = value.as_str().and_then(Algorithm::from_name),
                "kid" => kid = Some(value.as_str().ok_or(Reason::TokenMalformed)?),
                "typ" if value.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT")) => {}
                // Each of these announces that the parts mean something else than in a plain signed token.
                "typ" | "crit" | "enc" | "zip" | "cty" | "b64" => return Err(Reason::TokenUnsupported),
                _ => {}
            }
        }
        Ok(Self { algorithm: algorithm.ok_or(Reason::TokenUnsupported)?, kid })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
