//! The public keys of one issuer, and the only place where a signature is verified.

use super::algorithm::{Algorithm, AlgorithmSet};
use super::digest::sha256;
use crate::reason::Reason;
use crate::text::is_guid;
use aws_lc_rs::signature::ParsedPublicKey;
use std::fmt;
use std::sync::Arc;

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

    /// The ids of each key: those of all its entries in the document, in their order; none of a key without any.
    pub fn ids(&self) -> impl Iterator<Item = &[Box<str>]> {
        self.keys.iter().map(|key| &*key.ids)
    }

    /// The `kid` and the algorithms of each entry for a key that may sign for the issuer.
    pub(super) fn described<'k>(
        &'k self,
        issuer: &'k str,
    ) -> impl Iterator<Item = (Option<&'k str>, AlgorithmSet)> {
        let entries = self.keys.iter().flat_map(|key| &key.entries);
        entries
            .filter(|entry| entry.is_for_issuer(issuer))
            .map(|entry| (entry.kid.as_deref(), entry.algorithms))
    }

    /// Verifies a signature over `message` with the one key that the token's header selects. Returns all its ids.
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
    ) -> Result<&Arc<[Box<str>]>, Reason> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.entries.iter().any(|entry| entry.is_for(issuer, kid, algorithm)))
            .filter_map(|key| Some((key, key.verifier(algorithm)?)));
        let (Some((key, verifier)), None) = (fitting.next(), fitting.next()) else {
            return Err(Reason::TokenKeyUnknown);
        };
        verifier.verify_sig(message, signature).map_err(|_| Reason::TokenSignature)?;
        Ok(&key.ids)
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
    /// What the document says of it: once, or several times, each for some algorithms.
    entries: Vec<Entry>,
    ids: Arc<[Box<str>]>,
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
    fingerprint: [u8; 32],
}

/// One entry of a document, for a key that may have others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) kid: Option<Box<str>>,
    /// `issuer` of Microsoft's key sets, which tells keys of one directory from those of another in a shared set.
    pub(super) issuer: Option<Box<str>>,
    pub(super) algorithms: AlgorithmSet,
}

impl Entry {
    /// Whether the key may verify, by this entry, a token of the issuer whose header says this.
    fn is_for(&self, issuer: &str, kid: Option<&str>, algorithm: Algorithm) -> bool {
        (kid.is_none() || self.kid.as_deref() == kid)
            && self.algorithms.contains(algorithm)
            && self.is_for_issuer(issuer)
    }

    /// Whether the key may sign for the issuer. A directory (a GUID) that the key's own `issuer` names must be named
    /// by the token's issuer too: a key for personal accounts signs nothing for a company. The rest of the two
    /// addresses may differ, since keys published as v2.0 also sign v1.0 tokens.
    fn is_for_issuer(&self, issuer: &str) -> bool {
        let Some(own) = self.issuer.as_deref() else { return true };
        own.split('/').filter(|part| is_guid(part)).all(|guid| issuer.split('/').any(|part| part == guid))
    }
}

impl Key {
    /// A key and what it verifies.
    ///
    /// `ids`: everything that the document calls it. `material`: the public key's bytes, whatever their encoding.
    pub(super) fn new<'i>(
        mut entries: Vec<Entry>,
        ids: impl Iterator<Item = &'i str>,
        verifiers: Vec<(Algorithm, ParsedPublicKey)>,
        material: &[u8],
    ) -> Self {
        let mut known: Vec<Box<str>> = Vec::new();
        for kid in ids {
            if !known.iter().any(|known| **known == *kid) {
                known.push(kid.into());
            }
        }
        entries.sort_unstable();
        entries.dedup();
        let ids = known.clone();
        known.sort_unstable();
        // Debug quotes and escapes the texts, so no two keys are written alike.
        let mut description = format!("{entries:?} {known:?} ").into_bytes();
        description.extend_from_slice(material);
        Self { entries, ids: ids.into(), verifiers, fingerprint: sha256(&description) }
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.verifiers.iter().find(|(own, _)| *own == algorithm).map(|(_, key)| key)
    }
}
