//! Verified tokens, remembered so that each is verified once: bounded in entries and bytes, least recently used out
//! first.
//!
//! What is found was verified under every byte of the token: a keyed hash finds the candidate, full comparison
//! confirms it. Nothing that failed verification ever enters, so nobody without a verified token can fill it.

use super::VerifiedClaims;
use super::claims::MAX_LEEWAY;
use crate::reason::Reason;
use hashbrown::DefaultHashBuilder;
use lru::LruCache;
use std::hash::{BuildHasher, Hasher};

/// What an entry costs besides its texts, in bytes: the cache's own nodes and the allocator's.
const ENTRY_COST: usize = 256;
/// What a text costs besides its bytes.
const TEXT_COST: usize = 32;

/// A remembered token.
#[derive(Debug)]
pub struct Entry<R> {
    /// What was proven.
    pub claims: VerifiedClaims,
    /// What the caller made of it, such as its groups as numbers of a snapshot; replaced when that changes.
    pub resolved: R,
}

type Entries<R> = LruCache<Box<[u8]>, Entry<R>, HashOfTheEnd>;

/// Hashes a token by its length and its last bytes under a key of the process: they belong to the signature, which no
/// two tokens share but by chance, and only tokens whose signature was verified are ever put in. Three kilobytes would
/// take longer than most of a decision.
#[derive(Clone, Default)]
struct HashOfTheEnd(DefaultHashBuilder);

/// A part of any signature: the shortest, of EdDSA and ES256, have 86 characters.
const HASHED: usize = 64;

impl BuildHasher for HashOfTheEnd {
    type Hasher = EndHasher<<DefaultHashBuilder as BuildHasher>::Hasher>;

    fn build_hasher(&self) -> Self::Hasher {
        EndHasher(self.0.build_hasher())
    }
}

struct EndHasher<H>(H);

impl<H: Hasher> Hasher for EndHasher<H> {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes.last_chunk::<HASHED>().map_or(bytes, |end| end));
    }

    fn write_usize(&mut self, length: usize) {
        self.0.write_usize(length);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// Verified tokens by their bytes.
///
/// `R` is what the caller keeps with an entry; what it holds on the heap is not counted.
pub struct TokenCache<R> {
    entries: Entries<R>,
    generation: u64,
    max_entries: usize,
    max_bytes: usize,
    bytes: usize,
}

/// The entries of a former generation. Releasing many takes a while, which a thread other than the worker's can
/// spend.
#[must_use = "releasing many entries takes a while: drop it where nobody waits"]
pub struct Retired<R>(Entries<R>);

impl<R> Retired<R> {
    /// How many entries there were.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there were none, so that nothing is left to release.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<R> TokenCache<R> {
    /// An empty cache of at most so many entries and bytes.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: LruCache::unbounded_with_hasher(HashOfTheEnd::default()),
            generation: 0,
            max_entries,
            max_bytes,
            bytes: 0,
        }
    }

    /// Says which keys and issuers are in force: entries of another generation are gone at once, and returned only
    /// to be dropped. `None` where the generation is still the same.
    pub fn set_generation(&mut self, generation: u64) -> Option<Retired<R>> {
        if self.generation == generation {
            return None;
        }
        self.generation = generation;
        self.bytes = 0;
        Some(Retired(std::mem::replace(
            &mut self.entries,
            LruCache::unbounded_with_hasher(HashOfTheEnd::default()),
        )))
    }

    /// The entry of exactly this token. The caller still compares the clock with its times: an entry is dropped
    /// here only where no leeway could save it.
    pub fn get(&mut self, token: &[u8], now: u64) -> Option<&mut Entry<R>> {
        // Hashed and compared once: what is found becomes the most recently used, so the rest finds it there.
        let found = self.entries.get(token)?;
        if found.claims.check_times(MAX_LEEWAY, now) == Err(Reason::TokenExpired) {
            if let Some((token, entry)) = self.entries.pop_mru() {
                self.bytes -= cost(&token, &entry.claims);
            }
            return None;
        }
        self.entries.iter_mut().next().map(|(_, entry)| entry)
    }

    /// Remembers a token and what the caller made of it. One that is larger than the whole cache is not kept.
    pub fn insert(&mut self, token: &[u8], claims: VerifiedClaims, resolved: R) {
        self.remove(token);
        let cost = cost(token, &claims);
        if cost > self.max_bytes || self.max_entries == 0 {
            return;
        }
        while self.entries.len() >= self.max_entries || self.bytes > self.max_bytes - cost {
            let Some((token, entry)) = self.entries.pop_lru() else { break };
            self.bytes -= self::cost(&token, &entry.claims);
        }
        self.bytes += cost;
        self.entries.put(token.into(), Entry { claims, resolved });
    }

    /// The entry of exactly this token, made by `make` where there is none.
    ///
    /// # Errors
    /// What `make` failed with (nothing is then kept), or [`Reason::InternalError`] for a token that is larger than
    /// the whole cache.
    pub fn get_or_insert_with<E: From<Reason>>(
        &mut self,
        token: &[u8],
        now: u64,
        make: impl FnOnce() -> Result<(VerifiedClaims, R), E>,
    ) -> Result<&mut Entry<R>, E> {
        if self.get(token, now).is_none() {
            let (claims, resolved) = make()?;
            self.insert(token, claims, resolved);
            if self.entries.peek_mru().is_none_or(|(newest, _)| **newest != *token) {
                return Err(Reason::InternalError.into());
            }
        }
        // Found or made just now, so it is the most recently used.
        self.entries.iter_mut().next().map(|(_, entry)| entry).ok_or_else(|| Reason::InternalError.into())
    }

    fn remove(&mut self, token: &[u8]) {
        if let Some(entry) = self.entries.pop(token) {
            self.bytes -= cost(token, &entry.claims);
        }
    }

    /// How many tokens are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no token is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes the entries take, without what `R` holds.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// About how many bytes an entry takes.
fn cost(token: &[u8], claims: &VerifiedClaims) -> usize {
    let identity = claims.identity();
    let texts = [&identity.subject, &identity.object_id, &identity.user, &identity.token_id];
    let texts = texts.into_iter().flatten().chain(&identity.groups);
    ENTRY_COST + token.len() + texts.map(|text| TEXT_COST + text.len()).sum::<usize>()
}

#[cfg(test)]
mod tests;
