//! A file's content as it is kept for later: compressed, since policies say the same words over and over.

use super::MAX_BYTES;
use crate::token::digest::Sha256;
use lz4_flex::block;

/// A content, compressed. Two are equal where the contents are.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// The length in 4 bytes, the least significant first, and one block of LZ4.
    bytes: Box<[u8]>,
    digest: Sha256,
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Packed {}

impl Packed {
    pub(super) fn new(content: &[u8]) -> Self {
        Self { bytes: block::compress_prepend_size(content).into(), digest: Sha256::of(content) }
    }

    /// Takes back what [`Packed::bytes`] and [`Packed::digest`] told; `None` where they do not belong together.
    pub(super) fn from_parts(bytes: &[u8], digest: &[u8]) -> Option<Self> {
        let unpacked = unpack(bytes)?;
        let found = Sha256::of(&unpacked);
        (found.as_bytes() == digest).then(|| Self { bytes: bytes.into(), digest: found })
    }

    /// The content. It was packed here or has been unpacked once, so that `None` cannot be; an empty file in its place would
    /// be a lie.
    pub(super) fn content(&self) -> Option<Vec<u8>> {
        unpack(&self.bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The SHA-256 of the content.
    pub(super) fn digest(&self) -> &Sha256 {
        &self.digest
    }
}

fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, block) = block::uncompressed_size(bytes).ok()?;
    // No file is longer, whatever is claimed.
    if u64::try_from(length).ok()? > MAX_BYTES {
        return None;
    }
    block::decompress(block, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_comes_back_whole_and_takes_less() {
        let content = "  - { groups: [group-1], tenants: [team-1], scopes: [\"logs:read\"] }\n".repeat(200);
        let packed = Packed::new(content.as_bytes());
        assert!(packed.bytes().len() < content.len() / 8, "{} of {}", packed.bytes().len(), content.len());
        for content in [content.as_bytes(), b"", b"x", &[0; 70_000]] {
            let packed = Packed::new(content);
            assert_eq!(packed.content().as_deref(), Some(content));
            let again = Packed::from_parts(packed.bytes(), packed.digest().as_bytes()).unwrap();
            assert_eq!((again.content().as_deref(), &again), (Some(content), &packed));
        }
    }

    #[test]
    fn what_is_damaged_is_nothing() {
        let packed = Packed::new(&b"version: 1\n".repeat(30));
        let (bytes, digest) = (packed.bytes().to_vec(), packed.digest().as_bytes().to_vec());
        for at in 0..bytes.len() {
            assert!(Packed::from_parts(&bytes[..at], &digest).is_none(), "{at}");
            let mut other = bytes.clone();
            other[at] ^= 0x41;
            // Another way to write the same content is as good.
            let read = Packed::from_parts(&other, &digest);
            assert!(read.is_none_or(|read| read.content() == packed.content()), "{at}");
        }
        assert!(Packed::from_parts(&bytes, &digest[1..]).is_none());
        assert!(Packed::from_parts(&bytes, Packed::new(b"x").digest().as_bytes()).is_none());
        // 4 GiB, it says.
        assert!(Packed::from_parts(&[0xff; 40], &digest).is_none());
    }
}
