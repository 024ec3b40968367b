//! The other way to write an ECDSA signature.
//!
//! Where (r, s) is a signature, so is (r, n - s), n being the order of the curve: whoever holds a token can make a second
//! one of it. Two such tokens are one where tokens are told apart by their bytes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The order of P-256 (FIPS 186-5, SP 800-186 section 3.2.1.3).
const P256: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// The order of P-384 (SP 800-186 section 3.2.1.4).
const P384: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// The same token with its signature written the other way; `None` where the signature has not the length of one that
/// has two ways. (One of Ed25519 is as long as one of P-256: what comes of it is no token that anybody could use.)
pub fn twin(token: &[u8]) -> Option<Vec<u8>> {
    let dot = memchr::memrchr(b'.', token)?;
    let (signed, signature) = token.split_at_checked(dot + 1)?;
    let mut signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let order: &[u8] = match signature.len() {
        64 => &P256,
        96 => &P384,
        _ => return None,
    };
    let (_, s) = signature.split_at_mut_checked(order.len())?;
    let mut borrow = 0_u16;
    for (digit, order) in s.iter_mut().zip(order).rev() {
        let difference = 0x100 + u16::from(*order) - u16::from(*digit) - borrow;
        borrow = u16::from(difference < 0x100);
        *digit = u8::try_from(difference & 0xff).unwrap_or_default();
    }
    if borrow == 1 {
        return None;
    }
    let mut twin = signed.to_vec();
    twin.extend_from_slice(URL_SAFE_NO_PAD.encode(&signature).as_bytes());
    Some(twin)
}
