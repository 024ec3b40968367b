//! The signature algorithms that tokens may use. There is no HMAC and no `none` here, so nothing can name them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
};
use std::fmt;

/// A signature algorithm, named as in RFC 7518 section 3.1 and RFC 8037 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant says its name")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// Every algorithm, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The algorithm as token headers, key sets and policies write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of exactly this name. `Ed25519` is `EdDSA` fully specified (RFC 9864 section 2.2): the only curve
    /// of it that is implemented.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDsa);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The key that the algorithm needs, and how the library verifies with it.
    pub(super) fn needs(self) -> Needs {
        match self {
            Self::Rs256 => Needs::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Needs::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Needs::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Needs::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Needs::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Needs::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Needs::Ec(Curve::P256, &ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Needs::Ec(Curve::P384, &ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Needs::Ed25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What key an algorithm verifies with.
#[derive(Clone, Copy)]
pub(super) enum Needs {
    Rsa(&'static RsaParameters),
    Ec(Curve, &'static EcdsaVerificationAlgorithm),
    Ed25519,
}

/// An elliptic curve of RFC 7518 section 6.2.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// The curve of exactly this `crv`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            _ => None,
        }
    }

    /// How many bytes a coordinate has.
    pub(super) const fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A set of algorithms. The default is the policy's: RS256 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlgorithmSet(u16);

impl AlgorithmSet {
    /// Every algorithm that is implemented.
    pub fn all() -> Self {
        Algorithm::ALL.into_iter().collect()
    }

    /// Whether the algorithm is in the set.
    pub const fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & (1 << algorithm as u16) != 0
    }

    /// Whether there is no algorithm in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the sets have an algorithm in common.
    pub(super) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The algorithms of the set, in their order.
    pub fn iter(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(move |algorithm| self.contains(*algorithm))
    }
}

impl Default for AlgorithmSet {
    fn default() -> Self {
        Self(1 << Algorithm::Rs256 as u16)
    }
}

impl FromIterator<Algorithm> for AlgorithmSet {
    fn from_iter<I: IntoIterator<Item = Algorithm>>(algorithms: I) -> Self {
        Self(algorithms.into_iter().fold(0, |set, algorithm| set | 1 << algorithm as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_numbers_match() {
        for (number, algorithm) in Algorithm::ALL.into_iter().enumerate() {
            assert_eq!(algorithm as usize, number);
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("Ed25519"), Some(Algorithm::EdDsa));
        for bad in [
            "Ed448", "ed25519", "ESP256", "none", "None", "HS256", "HS384", "HS512", "rs256", "RS256 ",
            "ES512", "ES256K", "EDDSA", "",
        ] {
            assert_eq!(Algorithm::from_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        assert_eq!(AlgorithmSet::default().iter().collect::<Vec<_>>(), [Algorithm::Rs256]);
        assert_eq!(AlgorithmSet::all().iter().collect::<Vec<_>>(), Algorithm::ALL);
        assert!(AlgorithmSet::from_iter([]).is_empty());
        let set = AlgorithmSet::from_iter([Algorithm::EdDsa, Algorithm::Ps256]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Algorithm::Ps256, Algorithm::EdDsa]);
        assert!(!set.contains(Algorithm::Rs256) && !set.is_empty());
    }
}
