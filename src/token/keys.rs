//! The public keys of one issuer, and the only place where a signature is verified.

use super::algorithm::Algorithm;
use super::digest::sha256;
use crate::reason::Reason;
use crate::text::is_guid;
use aws_lc_rs::signature::ParsedPublicKey;
use std::fmt;

/// The keys of one issuer: immutable, replaced as a whole. Built by [`KeySet::from_jwks`].
///
/// Two sets are equal when they hold the same keys for the same algorithms, in whatever order.
pub struct KeySet {
    keys: Box<[Key]>,
    fingerprint: [u8; 32],
}

impl KeySet {
    pub(super) fn new(keys: Vec<Key>) -> Self {
        let mut prints: Vec<[u8; 32]> = keys.iter().map(|key| key.fingerprint).collect();
        prints.sort_unstable();
        Self { keys: keys.into_boxed_slice(), fingerprint: sha256(prints.as_flattened()) }
    }

    /// How many keys can verify something.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can verify anything: such a set must not replace another.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A digest of the keys and what each may verify, the same in whatever order they are listed.
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Verifies a signature over `message` with the one key that the token's header selects.
    ///
    /// # Errors
    /// [`Reason::TokenKeyUnknown`] where no key is selected: another `kid`, a key that is not for this algorithm
    /// or not for this issuer, or no `kid` and not exactly one key that fits. [`Reason::TokenSignature`] where the
    /// key did not make the signature.
    pub(super) fn verify(
        &self,
        issuer: &str,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Reason> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| kid.is_none() || key.kid.as_deref() == kid)
            .filter(|key| key.is_for_issuer(issuer))
            .filter_map(|key| key.verifier(algorithm));
        let (Some(key), None) = (fitting.next(), fitting.next()) else { return Err(Reason::TokenKeyUnknown) };
        key.verify_sig(message, signature).map_err(|_| Reason::TokenSignature)
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for KeySet {}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// One accepted key, ready to verify each of its algorithms.
pub(super) struct Key {
    kid: Option<Box<str>>,
    /// `issuer` of Microsoft's key sets, which tells keys of one directory from those of another in a shared set.
    issuer: Option<Box<str>>,
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
    fingerprint: [u8; 32],
}

impl Key {
    /// A key and what it verifies; `material` is the public key's bytes, whatever their encoding.
    pub(super) fn new(
        kid: Option<&str>,
        issuer: Option<&str>,
        verifiers: Vec<(Algorithm, ParsedPublicKey)>,
        material: &[u8],
    ) -> Self {
        let names: Vec<&str> = verifiers.iter().map(|(algorithm, _)| algorithm.name()).collect();
        // Debug quotes and escapes the texts, so no two keys are written alike.
        let mut description = format!("{kid:?} {issuer:?} {names:?} ").into_bytes();
        description.extend_from_slice(material);
        Self {
            kid: kid.map(Box::from),
            issuer: issuer.map(Box::from),
            verifiers,
            fingerprint: sha256(&description),
        }
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.verifiers.iter().find(|(own, _)| *own == algorithm).map(|(_, key)| key)
    }

    /// Whether the key may sign for the issuer. A directory (a GUID) that the key's own `issuer` names must be named
    /// by the token's issuer too: a key for personal accounts signs nothing for a company. The rest of the two
    /// addresses may differ, since keys published as v2.0 also sign v1.0 tokens.
    fn is_for_issuer(&self, issuer: &str) -> bool {
        let Some(own) = self.issuer.as_deref() else { return true };
        own.split('/').filter(|part| is_guid(part)).all(|guid| issuer.split('/').any(|part| part == guid))
    }
}
