//! SHA-256: of service tokens, which policies hold only as a digest, and of anything that needs a fingerprint.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use std::fmt::Write as _;

/// The SHA-256 of the bytes, in lowercase hexadecimal: 64 characters.
pub fn sha256_hex(bytes: &[u8]) -> String {
    sha256(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The HMAC-SHA-256 of the bytes under a key of any length, its first 16 bytes in hexadecimal: tells equal texts
/// from different ones without telling the text.
pub fn keyed_hash(key: &[u8], bytes: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes);
    tag.as_ref().iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 random bytes.
///
/// # Errors
/// The system's, where it has none to give.
pub fn random_key() -> Result<[u8; 32], aws_lc_rs::error::Unspecified> {
    let mut key = [0; 32];
    rand::fill(&mut key)?;
    Ok(key)
}

/// The SHA-256 of the bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    for (to, from) in sum.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_fips_180() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
