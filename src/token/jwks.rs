//! JSON Web Key Sets (RFC 7517): which keys of a document may verify tokens, and why the others may not.
//!
//! Each key stands for itself: one that is refused leaves the others in force.

use super::algorithm::{Algorithm, AlgorithmSet, Curve, Needs};
use super::json::{Json, Object};
use super::keys::{Key, KeySet};
use crate::text::one_line_of;
pub use error::InvalidJwks;
use error::UnusableKey;

mod error;

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The largest document that is read, in bytes.
pub const MAX_JWKS_LEN: usize = 1 << 20;
/// The most keys of a document.
pub const MAX_KEYS: usize = 100;
/// The longest `kid` of a key, in bytes.
pub const MAX_KID_LEN: usize = 256;
/// The longest reason with a provider's words in it that is shown, in characters: it stands in logs and in shared memory.
pub(crate) const MAX_SHOWN: usize = 500;
/// RSA moduli below this many bits are refused (RFC 7518 section 3.3) ...
const MIN_RSA_BITS: usize = 2048;
/// ... and above this many, which would make verifying slow.
const MAX_RSA_BITS: usize = 8192;

/// One key of a document, as `tenantauth keys` prints it. Holds nothing of the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReport {
    /// The key id.
    pub kid: Option<String>,
    /// `RSA`, `EC`, `OKP`, ...
    pub kty: Option<String>,
    /// The algorithm that the key is restricted to, as written.
    pub alg: Option<String>,
    /// The curve, or an RSA modulus' size: `2048 bits`.
    pub size: Option<String>,
    /// What the key is for, as written: `sig`.
    pub usage: Option<String>,
    /// Why it verifies nothing; `None` for an accepted key.
    pub refused: Option<String>,
}

impl KeySet {
    /// Reads a key set; `algorithms` are those that the issuer may use.
    ///
    /// There is one report for each key of the document, in its order. A set without one accepted key is `Ok`, and
    /// empty: it verifies nothing.
    ///
    /// # Errors
    /// [`InvalidJwks`] where the document as a whole cannot be trusted.
    pub fn from_jwks(json: &[u8], algorithms: AlgorithmSet) -> Result<(Self, Vec<KeyReport>), InvalidJwks> {
        if json.len() > MAX_JWKS_LEN {
            return Err(InvalidJwks::TooLarge);
        }
        let document = Object::parse(json).map_err(|error| InvalidJwks::Json(error.to_string()))?;
        let Some(Json::List(listed)) = document.get("keys") else { return Err(InvalidJwks::NoKeys) };
        if listed.len() > MAX_KEYS {
            return Err(InvalidJwks::TooManyKeys);
        }
        let mut keys = Vec::new();
        let mut reports = Vec::with_capacity(listed.len());
        for jwk in listed {
            let read = jwk.as_object().ok_or(UnusableKey::NotAnObject).and_then(|jwk| {
                let kid = jwk.get("kid");
                if kid.is_some() && listed.iter().filter(|other| kid_of(other) == kid).count() > 1 {
                    return Err(UnusableKey::KidRepeated);
                }
                read_key(jwk, algorithms)
            });
            let mut report = describe(jwk);
            match read {
                Ok(key) => keys.push(key),
                Err(why) => report.refused = Some(one_line_of(&why.to_string(), MAX_SHOWN)),
            }
            reports.push(report);
        }
        Ok((Self::new(keys), reports))
    }
}

fn kid_of<'a, 'b>(jwk: &'b Json<'a>) -> Option<&'b Json<'a>> {
    jwk.as_object()?.get("kid")
}

fn describe(jwk: &Json<'_>) -> KeyReport {
    let text = |name: &str| Some(jwk.as_object()?.get(name)?.as_str()?.to_owned());
    let bits = || Some(format!("{} bits", bit_len(&URL_SAFE_NO_PAD.decode(text("n")?).ok()?)));
    KeyReport {
        kid: text("kid"),
        kty: text("kty"),
        alg: text("alg"),
        size: text("crv").or_else(bits),
        usage: text("use"),
        refused: None,
    }
}

/// Reads one key, or says why it may verify nothing.
fn read_key<'a>(jwk: &'a Object<'_>, allowed: AlgorithmSet) -> Result<Key, UnusableKey<'a>> {
    let kid = optional_text(jwk, "kid")?;
    if kid.is_some_and(|kid| kid.len() > MAX_KID_LEN) {
        return Err(UnusableKey::KidTooLong);
    }
    let public = PublicKey::read(jwk)?;
    check_purpose(jwk)?;
    let candidates = match optional_text(jwk, "alg")? {
        None => allowed,
        Some(name) => {
            let algorithm = Algorithm::from_name(name).ok_or(UnusableKey::Algorithm(name))?;
            if !public.fits(algorithm) {
                return Err(UnusableKey::AlgorithmOfOtherKey { alg: name, key: public.describe() });
            }
            if !allowed.contains(algorithm) {
                return Err(UnusableKey::AlgorithmNotListed(name));
            }
            AlgorithmSet::from_iter([algorithm])
        }
    };
    let verifiers: Vec<_> = candidates
        .iter()
        .filter(|algorithm| public.fits(*algorithm))
        .map(|algorithm| public.verifier(algorithm).map(|verifier| (algorithm, verifier)))
        .collect::<Result<_, _>>()?;
    if verifiers.is_empty() {
        return Err(UnusableKey::NoAlgorithm(public.describe()));
    }
    Ok(Key::new(kid, optional_text(jwk, "issuer")?, verifiers, &public.material()))
}

/// Refuses keys that were not published for verifying signatures (RFC 7517 sections 4.2 and 4.3).
fn check_purpose<'a>(jwk: &'a Object<'_>) -> Result<(), UnusableKey<'a>> {
    if jwk.get("d").is_some() {
        return Err(UnusableKey::Private);
    }
    match optional_text(jwk, "use")? {
        None | Some("sig") => {}
        Some(other) => return Err(UnusableKey::Use(other)),
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Json::List(operations)) if operations.iter().any(|name| name.as_str() == Some("verify")) => {
            Ok(())
        }
        Some(Json::List(_)) => Err(UnusableKey::Operations),
        Some(_) => Err(UnusableKey::OperationsNotAnArray),
    }
}

/// A public key of a kind that tokens may be signed with, its encoding checked.
enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519 { x: Vec<u8> },
}

impl PublicKey {
    fn read<'a>(jwk: &'a Object<'_>) -> Result<Self, UnusableKey<'a>> {
        match optional_text(jwk, "kty")? {
            Some("RSA") => Self::read_rsa(bytes(jwk, "n")?, bytes(jwk, "e")?),
            Some("EC") => {
                let name = optional_text(jwk, "crv")?.unwrap_or_default();
                let curve = Curve::from_name(name).ok_or(UnusableKey::Curve { crv: name, kty: "EC" })?;
                // Uncompressed, as in SEC 1 section 2.3.3.
                let mut point = vec![4];
                for name in ["x", "y"] {
                    let coordinate = bytes(jwk, name)?;
                    if coordinate.len() != curve.coordinate_len() {
                        return Err(UnusableKey::CoordinateLength(name));
                    }
                    point.extend(coordinate);
                }
                Ok(Self::Ec { curve, point })
            }
            Some("OKP") => {
                let name = optional_text(jwk, "crv")?.unwrap_or_default();
                if name != "Ed25519" {
                    return Err(UnusableKey::Curve { crv: name, kty: "OKP" });
                }
                let x = bytes(jwk, "x")?;
                if x.len() == 32 { Ok(Self::Ed25519 { x }) } else { Err(UnusableKey::Ed25519Length) }
            }
            Some("oct") => Err(UnusableKey::SharedSecret),
            Some(other) => Err(UnusableKey::KeyType(other)),
            None => Err(UnusableKey::Missing("kty")),
        }
    }

    fn read_rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Self, UnusableKey<'static>> {
        for (name, number) in [("n", &n), ("e", &e)] {
            if number.first().is_none_or(|first| *first == 0) {
                return Err(UnusableKey::LeadingZero(name));
            }
            if number.last().is_some_and(|last| last % 2 == 0) {
                return Err(UnusableKey::Even(name));
            }
        }
        match bit_len(&n) {
            bits if bits < MIN_RSA_BITS => return Err(UnusableKey::ModulusTooShort(bits)),
            bits if bits > MAX_RSA_BITS => return Err(UnusableKey::ModulusTooLong(bits)),
            _ => {}
        }
        // The library verifies with exponents of up to 33 bits; in practice they are 3 or 65537.
        if e.len() > 4 || e == [1] {
            return Err(UnusableKey::Exponent);
        }
        if has_roca_fingerprint(&n) {
            return Err(UnusableKey::BrokenGenerator);
        }
        Ok(Self::Rsa { n, e })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        match (self, algorithm.needs()) {
            (Self::Rsa { .. }, Needs::Rsa(_)) | (Self::Ed25519 { .. }, Needs::Ed25519) => true,
            (Self::Ec { curve, .. }, Needs::Ec(needed, _)) => *curve == needed,
            _ => false,
        }
    }

    /// The key parsed by the library, once for all tokens; points that are not on their curve fail here.
    fn verifier(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, UnusableKey<'static>> {
        match (self, algorithm.needs()) {
            (Self::Rsa { n, e }, Needs::Rsa(parameters)) => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()
            }
            (Self::Ec { point, .. }, Needs::Ec(_, parameters)) => {
                ParsedPublicKey::new(parameters, point).ok()
            }
            (Self::Ed25519 { x }, Needs::Ed25519) => ParsedPublicKey::new(&ED25519, x).ok(),
            _ => None,
        }
        .ok_or(UnusableKey::NotAPublicKey)
    }

    const fn describe(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "an RSA key",
            Self::Ec { curve: Curve::P256, .. } => "a P-256 key",
            Self::Ec { curve: Curve::P384, .. } => "a P-384 key",
            Self::Ed25519 { .. } => "an Ed25519 key",
        }
    }

    fn material(&self) -> Vec<u8> {
        match self {
            // The exponent has its own length in front, so that the two numbers cannot run into each other.
            Self::Rsa { n, e } => [&[e.len().to_le_bytes()[0]], &**e, n].concat(),
            Self::Ec { point, .. } => point.clone(),
            Self::Ed25519 { x } => x.clone(),
        }
    }
}

fn bit_len(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// Whether the modulus looks like one that Infineon's library made, whose factors can be found: modulo each small
/// prime it is a power of 65537 (Nemec et al., "The Return of Coppersmith's Attack", 2017, section 2). Of other
/// moduli fewer than one in ten million do.
fn has_roca_fingerprint(n: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
        103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.into_iter().all(|prime| {
        let rest = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (1..prime).any(|_| {
            power = power * 65537 % prime;
            power == rest
        })
    })
}

fn optional_text<'a>(
    jwk: &'a Object<'_>,
    name: &'static str,
) -> Result<Option<&'a str>, UnusableKey<'static>> {
    jwk.get(name).map(|value| value.as_str().ok_or(UnusableKey::NotAString(name))).transpose()
}

fn bytes(jwk: &Object<'_>, name: &'static str) -> Result<Vec<u8>, UnusableKey<'static>> {
    let text = optional_text(jwk, name)?.ok_or(UnusableKey::Missing(name))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| UnusableKey::NotBase64(name))
}

#[cfg(test)]
mod tests;
