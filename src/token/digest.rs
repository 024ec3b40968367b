//! SHA-256: of service tokens, which policies hold only as a digest, and of anything that needs a fingerprint.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use std::fmt::{self, Write as _};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// That of the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }

    /// Reads 64 hexadecimal digits in either case; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut sum = [0; 32];
        if text.len() != 2 * sum.len() {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        for (to, pair) in sum.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *to = digit(high)? * 16 + digit(low)?;
        }
        Some(Self(sum))
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether both are the same, in a time that does not tell how much of them is.
    pub fn equals(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

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
    fn hexadecimal_digits_are_read_in_either_case_and_nothing_else_is() {
        let sum = Sha256::of(b"abc");
        let text = sha256_hex(b"abc");
        assert_eq!(format!("{sum:?}"), text);
        for same in [text.clone(), text.to_uppercase()] {
            assert!(Sha256::from_hex(&same).unwrap().equals(&sum), "{same}");
        }
        assert!(!Sha256::of(b"abd").equals(&sum));
        let (_, rest) = text.split_at(1);
        for bad in
            ["", rest, &format!("{text}0"), &text.replace('b', "g"), &format!(" {rest}"), &format!("+{rest}")]
        {
            assert_eq!(Sha256::from_hex(bad), None, "{bad}");
        }
        // As long in bytes, but not in digits.
        assert_eq!(Sha256::from_hex(&format!("\u{e4}{}", text.split_at(2).1)), None);
    }

    #[test]
    fn agrees_with_fips_180() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
