//! JSON Web Key Sets (RFC 7517): which keys of a document may verify tokens, and why the others may not.
//!
//! Documents are read as providers publish them. What is not for verifying the issuer's tokens is left out before
//! anything is compared, and entries of the same key material are one key. Each key stands for itself: one that could
//! mean something else is refused and leaves the others in force.

use super::algorithm::{Algorithm, AlgorithmSet, Curve, Needs};
use super::json::{Json, Object};
use super::keys::{Entry, Key, KeySet};
use crate::text::one_line_of;
pub use error::InvalidJwks;
use error::UnusableKey;

mod error;

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

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

/// RFC 7515 section 2 wants no padding, and some providers pad.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// What only a private key has (RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037 section 2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

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
    /// There is one report for each entry of the document, in its order; several may be of one key. A set without one
    /// accepted key is `Ok`, and empty: it verifies nothing.
    ///
    /// # Errors
    /// [`InvalidJwks`] where the document as a whole cannot be trusted.
    pub fn from_jwks(json: &[u8], algorithms: AlgorithmSet) -> Result<(Self, Vec<KeyReport>), InvalidJwks> {
        if json.len() > MAX_JWKS_LEN {
            return Err(InvalidJwks::TooLarge);
        }
        let document = Object::parse_marking(json).map_err(|error| InvalidJwks::Json(error.to_string()))?;
        if document.iter().any(|(name, value)| name != "keys" && value.is_ambiguous()) {
            return Err(InvalidJwks::Json("duplicate member".to_owned()));
        }
        let Some(Json::List(listed)) = document.get("keys") else { return Err(InvalidJwks::NoKeys) };
        if listed.len() > MAX_KEYS {
            return Err(InvalidJwks::TooManyKeys);
        }
        // Which key's private half it is may be read in several ways.
        if listed.iter().any(|jwk| matches!(jwk, Json::Ambiguous(members) if is_private(members))) {
            return Err(InvalidJwks::Json("duplicate member".to_owned()));
        }
        let mut read: Vec<_> = listed.iter().map(|jwk| Listed::read(jwk, algorithms)).collect();
        refuse_published(listed, &mut read);
        refuse_repeated(&mut read);
        let mut keys: Vec<(PublicKey, Vec<Entry>, Verifiers)> = Vec::new();
        let mut reports = Vec::with_capacity(listed.len());
        for (jwk, read) in listed.iter().zip(read) {
            let mut report = describe(jwk);
            match read {
                Ok(Listed { entry, public, verifiers }) => {
                    match keys.iter_mut().find(|(known, ..)| *known == public) {
                        Some((_, entries, known)) => {
                            entries.push(entry);
                            for (algorithm, verifier) in verifiers {
                                if !known.iter().any(|(known, _)| *known == algorithm) {
                                    known.push((algorithm, verifier));
                                }
                            }
                        }
                        None => keys.push((public, vec![entry], verifiers)),
                    }
                }
                Err(why) => report.refused = Some(one_line_of(&why.to_string(), MAX_SHOWN)),
            }
            reports.push(report);
        }
        // Also those of entries that verify nothing: a revocation may name the key by any of them.
        let named: Vec<(PublicKey, &str)> = listed.iter().filter_map(named).collect();
        let keys = keys.into_iter().map(|(public, entries, verifiers)| {
            let ids = named.iter().filter(|(other, _)| *other == public).map(|(_, kid)| *kid);
            Key::new(entries, ids, verifiers, &public.material())
        });
        Ok((Self::new(keys.collect()), reports))
    }
}

/// The key that an entry is of, whatever the entry may be used for, and what it calls it.
fn named<'a>(jwk: &'a Json<'_>) -> Option<(PublicKey, &'a str)> {
    let jwk = jwk.as_object()?;
    Some((PublicKey::read(jwk).ok()?, optional_text(jwk, "kid").ok()??))
}

/// Refuses the keys whose private half stands in the document too: whoever reads it can sign with them.
fn refuse_published(listed: &[Json<'_>], read: &mut [Result<Listed, UnusableKey<'_>>]) {
    let private = listed.iter().filter_map(Json::as_object).filter(|jwk| is_private(jwk));
    let published: Vec<PublicKey> = private.filter_map(|jwk| PublicKey::read(jwk).ok()).collect();
    for read in read.iter_mut() {
        let is_published =
            |listed: &Listed| published.iter().any(|known| known.has_secret_of(&listed.public));
        if read.as_ref().is_ok_and(is_published) {
            *read = Err(UnusableKey::Published);
        }
    }
}

/// Refuses different keys of one `kid` that verify the same algorithm.
fn refuse_repeated(read: &mut [Result<Listed, UnusableKey<'_>>]) {
    let collides = |one: &Listed, other: &Listed| {
        one.entry.kid.is_some()
            && one.entry.kid == other.entry.kid
            && one.entry.algorithms.intersects(other.entry.algorithms)
            && one.public != other.public
    };
    let good = || read.iter().flatten();
    let repeated: Vec<bool> = read
        .iter()
        .map(|one| one.as_ref().is_ok_and(|one| good().any(|other| collides(one, other))))
        .collect();
    for (read, repeated) in read.iter_mut().zip(repeated) {
        if repeated {
            *read = Err(UnusableKey::KidRepeated);
        }
    }
}

fn describe(jwk: &Json<'_>) -> KeyReport {
    let text = |name: &str| Some(jwk.as_object()?.get(name)?.as_str()?.to_owned());
    let bits = || Some(format!("{} bits", bit_len(&without_zeros(BASE64URL.decode(text("n")?).ok()?))));
    KeyReport {
        kid: text("kid"),
        kty: text("kty"),
        alg: text("alg"),
        size: text("crv").or_else(bits),
        usage: text("use"),
        refused: None,
    }
}

type Verifiers = Vec<(Algorithm, ParsedPublicKey)>;

/// An entry of a document that may verify tokens.
struct Listed {
    entry: Entry,
    public: PublicKey,
    /// For each of the entry's algorithms.
    verifiers: Verifiers,
}

impl Listed {
    /// Reads one entry, or says why it may verify nothing.
    fn read<'a>(jwk: &'a Json<'_>, allowed: AlgorithmSet) -> Result<Self, UnusableKey<'a>> {
        if jwk.is_ambiguous() {
            return Err(UnusableKey::Ambiguous);
        }
        let jwk = jwk.as_object().ok_or(UnusableKey::NotAnObject)?;
        if optional_text(jwk, "kty")? == Some("oct") {
            return Err(UnusableKey::SharedSecret);
        }
        if is_private(jwk) {
            return Err(UnusableKey::Private);
        }
        check_purpose(jwk)?;
        let kid = optional_text(jwk, "kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_LEN) {
            return Err(UnusableKey::KidTooLong);
        }
        let public = PublicKey::read(jwk)?;
        let algorithms: AlgorithmSet = match optional_text(jwk, "alg")? {
            None => allowed.iter().filter(|algorithm| public.fits(*algorithm)).collect(),
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
        if algorithms.is_empty() {
            return Err(UnusableKey::NoAlgorithm(public.describe()));
        }
        let verifiers = algorithms
            .iter()
            .map(|algorithm| public.verifier(algorithm).map(|verifier| (algorithm, verifier)))
            .collect::<Result<_, _>>()?;
        let issuer = optional_text(jwk, "issuer")?.map(Box::from);
        Ok(Self { entry: Entry { kid: kid.map(Box::from), issuer, algorithms }, public, verifiers })
    }
}

/// The member of this name. One that is `null` says nothing: serializers write so what they do not have.
fn member<'a, 'j>(jwk: &'a Object<'j>, name: &str) -> Option<&'a Json<'j>> {
    jwk.get(name).filter(|value| **value != Json::Null)
}

fn is_private(jwk: &Object<'_>) -> bool {
    jwk.iter().any(|(name, value)| PRIVATE.contains(&name) && *value != Json::Null)
}

/// Refuses keys that were not published for verifying signatures (RFC 7517 sections 4.2 and 4.3).
fn check_purpose<'a>(jwk: &'a Object<'_>) -> Result<(), UnusableKey<'a>> {
    match optional_text(jwk, "use")? {
        None | Some("sig") => {}
        Some(other) => return Err(UnusableKey::Use(other)),
    }
    match member(jwk, "key_ops") {
        None => Ok(()),
        Some(Json::List(operations)) if operations.iter().any(|name| name.as_str() == Some("verify")) => {
            Ok(())
        }
        Some(Json::List(_)) => Err(UnusableKey::Operations),
        Some(_) => Err(UnusableKey::OperationsNotAnArray),
    }
}

/// A public key of a kind that tokens may be signed with, its encoding checked. Two are equal that are the same key,
/// however they were written.
#[derive(PartialEq, Eq)]
enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519 { x: Vec<u8> },
}

impl PublicKey {
    fn read<'a>(jwk: &'a Object<'_>) -> Result<Self, UnusableKey<'a>> {
        match optional_text(jwk, "kty")? {
            Some("RSA") => Self::read_rsa(number(jwk, "n")?, number(jwk, "e")?),
            Some("EC") => {
                let name = optional_text(jwk, "crv")?.unwrap_or_default();
                let curve = Curve::from_name(name).ok_or(UnusableKey::Curve { crv: name, kty: "EC" })?;
                // Uncompressed, as in SEC 1 section 2.3.3.
                let mut point = vec![4];
                for name in ["x", "y"] {
                    let coordinate = number(jwk, name)?;
                    let zeros = curve
                        .coordinate_len()
                        .checked_sub(coordinate.len())
                        .ok_or(UnusableKey::CoordinateLength(name))?;
                    point.resize(point.len() + zeros, 0);
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

    /// Whether who knows the private half of one knows that of the other: an RSA modulus is factored for every exponent.
    fn has_secret_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rsa { n, .. }, Self::Rsa { n: other, .. }) => n == other,
            _ => self == other,
        }
    }

    fn read_rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Self, UnusableKey<'static>> {
        for (name, number) in [("n", &n), ("e", &e)] {
            let Some(last) = number.last() else { return Err(UnusableKey::Zero(name)) };
            if last % 2 == 0 {
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
    member(jwk, name).map(|value| value.as_str().ok_or(UnusableKey::NotAString(name))).transpose()
}

fn bytes(jwk: &Object<'_>, name: &'static str) -> Result<Vec<u8>, UnusableKey<'static>> {
    let text = optional_text(jwk, name)?.ok_or(UnusableKey::Missing(name))?;
    BASE64URL.decode(text).map_err(|_| UnusableKey::NotBase64(name))
}

/// An unsigned number (RFC 7518 sections 2 and 6.2.1), without the zero bytes that some libraries leave in front of it,
/// for the sign. Zero has no bytes.
fn number(jwk: &Object<'_>, name: &'static str) -> Result<Vec<u8>, UnusableKey<'static>> {
    let bytes = bytes(jwk, name)?;
    if bytes.is_empty() { Err(UnusableKey::Zero(name)) } else { Ok(without_zeros(bytes)) }
}

fn without_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

#[cfg(test)]
mod tests;
