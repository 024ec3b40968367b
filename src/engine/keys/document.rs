//! A fetched key set on its way: to other workers, to those that come after them, and over a restart.

use super::{JITTER, KEEP, REFRESH};
use crate::fetch::Endpoint;
use crate::token::digest::{random_key, sha256_hex};
use serde::{Deserialize, Serialize};

/// The form in which it is written.
const SCHEMA: u32 = 1;

/// A key set as it was fetched, with where from and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::engine) struct Document {
    schema: u32,
    issuer: Box<str>,
    /// The address in the policy, or null where it was discovered.
    jwks_url: Option<Box<str>>,
    /// Unix seconds.
    pub(in crate::engine) fetched_at: u64,
    /// Unix seconds: when the next fetch is due.
    pub(in crate::engine) refresh_at: u64,
    /// Of `jwks`: tells a file that is damaged.
    sha256: String,
    pub(in crate::engine) jwks: String,
}

impl Document {
    /// `now`: Unix seconds.
    pub(in crate::engine) fn new(endpoint: &Endpoint, jwks: String, now: u64) -> Self {
        let random =
            random_key().map_or(0, |[first, second, ..]| u64::from(u16::from_le_bytes([first, second])));
        Self {
            schema: SCHEMA,
            issuer: endpoint.issuer.clone(),
            jwks_url: endpoint.jwks_url.clone(),
            fetched_at: now,
            refresh_at: now + REFRESH - random % JITTER,
            sha256: sha256_hex(jwks.as_bytes()),
            jwks,
        }
    }

    /// Whether it holds the keys that are published there, and not those of another issuer.
    pub(in crate::engine) fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.issuer == endpoint.issuer && self.jwks_url == endpoint.jwks_url
    }

    /// Unix seconds from which on it verifies nothing, unless it was fetched again.
    pub(in crate::engine) fn keep_until(&self) -> u64 {
        self.fetched_at.saturating_add(KEEP)
    }

    /// Whether it may still be used at `now` (Unix seconds).
    pub(in crate::engine) fn is_usable(&self, now: u64) -> bool {
        now < self.keep_until()
    }

    pub(in crate::engine) fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers only: it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Document::to_bytes`] wrote; `None` for anything else, or if a byte of the set is another.
    pub(in crate::engine) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let document: Self = serde_json::from_slice(bytes).ok()?;
        let whole = document.schema == SCHEMA && document.sha256 == sha256_hex(document.jwks.as_bytes());
        whole.then_some(document)
    }
}

/// What an issuer's keys are filed under: the exact issuer and the exact address.
pub(in crate::engine) fn id_of(endpoint: &Endpoint) -> String {
    // Debug quotes and escapes the texts, so no two are written alike.
    let mut id = sha256_hex(format!("{:?} {:?}", endpoint.issuer, endpoint.jwks_url).as_bytes());
    id.truncate(32);
    id
}
