//! Signed cookies that one worker has verified: a pure MAC result under the full bytes verified.

use super::signature::{self, KeyRing, MAX_VALUE_BYTES, SignedIp};
use crate::reason::Reason;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// How many values a worker remembers where nothing else is asked for: with the longest ones well under 1 MB.
pub const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// A bounded cache of verified values, least recently used out first.
///
/// Found by a keyed hash, confirmed by full comparison. Only values with a good MAC enter, so requests cannot fill
/// it with what no gateway stamped; the expiry is compared with the clock at every use. It belongs to one ring and
/// one cookie name at a time, and forgets everything when it is used with another.
#[derive(Debug)]
pub struct VerifiedCookieCache {
    entries: LruCache<Box<[u8]>, SignedIp>,
    // Kept alive here, so that its address cannot come to mean another ring.
    valid_for: Option<(Arc<KeyRing>, Box<str>)>,
}

impl VerifiedCookieCache {
    /// An empty cache of at most `capacity` values.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: LruCache::new(capacity), valid_for: None }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// [`signature::verify`], remembered.
    ///
    /// # Errors
    /// As there.
    pub fn verify(
        &mut self,
        ring: &Arc<KeyRing>,
        cookie_name: &str,
        value: &[u8],
        now: u64,
    ) -> Result<SignedIp, Reason> {
        match &self.valid_for {
            Some((same, name)) if Arc::ptr_eq(same, ring) && **name == *cookie_name => {}
            _ => {
                self.entries.clear();
                self.valid_for = Some((Arc::clone(ring), cookie_name.into()));
            }
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(Reason::IpMalformed);
        }
        if let Some(signed) = self.entries.get(value) {
            return signed.at(now);
        }
        let signed = signature::authenticate(ring, cookie_name, value)?.at(now)?;
        self.entries.put(value.into(), signed);
        Ok(signed)
    }
}

impl Default for VerifiedCookieCache {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_ip::ClientIp;
    use crate::client_ip::signature::sign;

    const NOW: u64 = 1_800_000_000;

    fn ring(byte: char) -> Arc<KeyRing> {
        // 43 characters of base64 are 32 bytes; the last one has two unused bits.
        let secret = byte.to_string().repeat(42);
        Arc::new(KeyRing::parse(format!("k1:{secret}A").as_bytes()).unwrap())
    }

    fn stamped(ring: &KeyRing, address: &str, expires: u64) -> Vec<u8> {
        sign(ring, "Client_Ip", ClientIp::parse(address.as_bytes()).unwrap(), expires).into_bytes()
    }

    fn small(capacity: usize) -> VerifiedCookieCache {
        VerifiedCookieCache::new(NonZeroUsize::new(capacity).unwrap())
    }

    #[test]
    fn a_remembered_value_still_expires() {
        let (ring, mut cache) = (ring('a'), small(4));
        let value = stamped(&ring, "203.0.113.7", NOW + 300);
        for _ in 0..2 {
            let signed = cache.verify(&ring, "Client_Ip", &value, NOW).unwrap();
            assert_eq!((signed.ip().to_string().as_str(), signed.expires()), ("203.0.113.7", NOW + 300));
        }
        assert_eq!(cache.len(), 1);
        assert!(cache.verify(&ring, "Client_Ip", &value, NOW + 299).is_ok());
        assert_eq!(cache.verify(&ring, "Client_Ip", &value, NOW + 300), Err(Reason::IpExpired));
        // A clock that is set back: what was good is too far ahead now.
        assert_eq!(cache.verify(&ring, "Client_Ip", &value, NOW - 301), Err(Reason::IpMalformed));
    }

    #[test]
    fn a_new_ring_or_name_forgets_everything() {
        let (old, mut cache) = (ring('a'), small(4));
        let value = stamped(&old, "203.0.113.7", NOW + 300);
        assert!(cache.verify(&old, "Client_Ip", &value, NOW).is_ok());
        assert_eq!(cache.verify(&old, "Other", &value, NOW), Err(Reason::IpSignature));
        assert!(cache.is_empty());
        assert!(cache.verify(&old, "Client_Ip", &value, NOW).is_ok());
        assert_eq!(cache.verify(&ring('b'), "Client_Ip", &value, NOW), Err(Reason::IpSignature));
        assert!(cache.is_empty());
    }

    #[test]
    fn only_good_values_enter_and_no_more_than_it_may_hold() {
        let (ring, mut cache) = (ring('a'), small(2));
        let forged = stamped(&self::ring('b'), "203.0.113.7", NOW + 300);
        let expired = stamped(&ring, "203.0.113.7", NOW);
        for bad in [&forged[..], &expired, b"203.0.113.7", &[b'v'; 4000]] {
            assert!(cache.verify(&ring, "Client_Ip", bad, NOW).is_err());
        }
        assert!(cache.is_empty());
        for last in 1..=9 {
            let value = stamped(&ring, &format!("203.0.113.{last}"), NOW + 300);
            assert!(cache.verify(&ring, "Client_Ip", &value, NOW).is_ok());
        }
        assert_eq!(cache.len(), 2);
    }
}
