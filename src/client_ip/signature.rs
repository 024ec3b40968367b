//! The signed value of the client-IP cookie, and the keys that sign and verify it.
//!
//! A value is `v1.<address>.<expiry>.<key id>.<MAC>`: the address's canonical text and the MAC in base64url
//! without padding, the expiry in seconds since the Unix epoch. The MAC is HMAC-SHA-256 over the cookie's name,
//! `=`, and everything before the last dot: a value is worth nothing under another name. Every value has exactly
//! one spelling; every other spelling is malformed.
//!
//! The only place beside token verification that names the cryptographic library.

use super::ClientIp;
use crate::reason::Reason;
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, general_purpose};
use smallvec::SmallVec;
use std::fmt;

/// For how many seconds a stamped value is good where nothing else is configured.
pub const DEFAULT_TTL: u64 = 300;
/// For how many seconds a stamped value may be good; an expiry further ahead is malformed.
pub const MAX_TTL: u64 = 600;
/// A secret's least length, in bytes: that of the MAC, below which a longer MAC proves nothing.
pub const MIN_SECRET_BYTES: usize = 32;
/// A key id's greatest length, in bytes.
pub const MAX_KEY_ID_BYTES: usize = 64;

const VERSION: &[u8] = b"v1";
/// The longest textual address, IPv4-mapped and without abbreviation, has 45 bytes.
const MAX_ADDRESS_BASE64: usize = 60;
const MAC_BYTES: usize = 32;
/// No value can be longer: version, address, expiry (a `u64`), key id, MAC and four dots.
pub(super) const MAX_VALUE_BYTES: usize = 2 + MAX_ADDRESS_BASE64 + 20 + MAX_KEY_ID_BYTES + 43 + 4;

const LENIENT: GeneralPurposeConfig =
    general_purpose::PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);
const SECRET_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const SECRET_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Why a line of a keys file cannot be used. Holds nothing of what the line says: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProblem {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: &'static str,
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

struct Key {
    id: Box<str>,
    hmac: hmac::Key,
    /// The SHA-256 of the secret, by which a replaced key is known.
    digest: Box<[u8]>,
}

/// The keys of one keys file: at least one, with distinct ids. The first signs, each verifies.
pub struct KeyRing {
    signing: Key,
    others: Vec<Key>,
}

impl KeyRing {
    /// A ring of one key that nobody has: what was signed with any other is refused. `None` where the system gives no
    /// random bytes.
    pub(crate) fn unknown() -> Option<Self> {
        Self::parse(generate_key_line("unknown").ok()?.as_bytes()).ok()
    }

    /// Parses a keys file: one `key-id:base64 secret` a line. A key id is 1 to [`MAX_KEY_ID_BYTES`] of
    /// `A-Za-z0-9_-`, a secret at least [`MIN_SECRET_BYTES`] in base64 or base64url, padded or not. Blank lines
    /// and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// Every problem of the file, in the order of its lines; one without any key is one too.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<KeyProblem>> {
        let mut keys: Vec<(usize, Key)> = Vec::new();
        let mut problems = Vec::new();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for (line, content) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let content = content.trim_ascii();
            if content.is_empty() || content.starts_with(b"#") {
                continue;
            }
            match parse_key(content) {
                Err((message, help)) => problems.push(KeyProblem { line, message, help }),
                Ok(key) => match keys.iter().find(|(_, earlier)| earlier.id == key.id) {
                    None => keys.push((line, key)),
                    Some((earlier, _)) => problems.push(KeyProblem {
                        line,
                        message: format!("the key id is already used on line {earlier}"),
                        help: "give every key an id of its own",
                    }),
                },
            }
        }
        let mut keys = keys.into_iter().map(|(_, key)| key);
        match keys.next() {
            Some(signing) if problems.is_empty() => Ok(Self { signing, others: keys.collect() }),
            None if problems.is_empty() => {
                Err(vec![KeyProblem { line: 1, message: "there is no key".into(), help: HELP_KEYGEN }])
            }
            _ => Err(problems),
        }
    }

    /// The id of each key with what it is used for, `signs` or `verifies`; the one that signs, which verifies too,
    /// first.
    pub fn uses(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let uses = std::iter::once("signs").chain(std::iter::repeat("verifies"));
        self.ids().zip(uses)
    }

    /// What is to be logged where these keys take the place of others, without any secret; `None` where they are the
    /// same.
    ///
    /// `cookie`: its name.
    pub fn replacement_of(&self, before: &Self, cookie: &str) -> Option<String> {
        let same = |(new, old): (&Key, &Key)| new.id == old.id && new.digest == old.digest;
        if self.others.len() == before.others.len() && self.keys().zip(before.keys()).all(same) {
            return None;
        }
        let all = self.ids().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
        let verb = if self.others.is_empty() { "verifies" } else { "verify" };
        Some(format!(
            "the keys of the cookie `{cookie}` were replaced: `{}` signs, {all} {verb}",
            self.signing.id
        ))
    }

    /// The ids of the keys, the signing one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| &*key.id)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.signing).chain(&self.others)
    }
}

/// The ids alone.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

const HELP_KEYGEN: &str = "make one with `tenantauth keygen`";

fn parse_key(line: &[u8]) -> Result<Key, (String, &'static str)> {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Err(("the line is not `key-id:base64 secret`".into(), HELP_KEYGEN));
    };
    let (id, behind) = line.split_at(colon);
    let secret = behind.get(1..).unwrap_or_default().trim_ascii();
    let Some(id) = std::str::from_utf8(id).ok().map(str::trim_ascii).filter(|id| is_key_id(id)) else {
        return Err((
            "the key id is malformed".into(),
            "a key id is 1 to 64 letters, digits, `_` or `-`, before the first colon",
        ));
    };
    let url_safe = secret.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if url_safe { &SECRET_URL_SAFE } else { &SECRET_STANDARD };
    // The decoder's error would quote a byte of the secret.
    let Ok(secret) = engine.decode(secret) else {
        return Err(("the secret is not base64".into(), HELP_KEYGEN));
    };
    if secret.len() < MIN_SECRET_BYTES {
        return Err((
            format!("the secret has {} bytes and needs at least {MIN_SECRET_BYTES}", secret.len()),
            HELP_KEYGEN,
        ));
    }
    Ok(Key {
        id: id.into(),
        hmac: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        digest: digest::digest(&digest::SHA256, &secret).as_ref().into(),
    })
}

fn is_key_id(text: &str) -> bool {
    (1..=MAX_KEY_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Why no key line could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLineError {
    /// The id is not 1 to [`MAX_KEY_ID_BYTES`] of `A-Za-z0-9_-`.
    Id,
    /// The system gave no random bytes.
    Random,
}

impl fmt::Display for KeyLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "the key id is not 1 to 64 letters, digits, `_` or `-`",
            Self::Random => "the system gave no random bytes",
        })
    }
}

impl std::error::Error for KeyLineError {}

/// A new line for a keys file, without its newline: the id and 32 random bytes.
///
/// # Errors
/// [`KeyLineError`] where the id is malformed or randomness is not to be had.
pub fn generate_key_line(id: &str) -> Result<String, KeyLineError> {
    if !is_key_id(id) {
        return Err(KeyLineError::Id);
    }
    let mut secret = [0; MIN_SECRET_BYTES];
    rand::fill(&mut secret).map_err(|_| KeyLineError::Random)?;
    Ok(format!("{id}:{}", SECRET_STANDARD.encode(secret)))
}

/// An address under a MAC that a key of the ring made, and until when it is good. Only verification builds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedIp {
    /// The address.
    pub(super) ip: ClientIp,
    /// Seconds since the Unix epoch; from this second on it is expired.
    pub(super) expires: u64,
}

impl SignedIp {
    /// The address.
    pub const fn ip(self) -> ClientIp {
        self.ip
    }

    /// When it expires, in seconds since the Unix epoch; in that second it already has.
    pub const fn expires(self) -> u64 {
        self.expires
    }

    /// Itself, if it is good at `now`. An expiry further ahead than any gateway stamps is malformed.
    pub(super) const fn at(self, now: u64) -> Result<Self, Reason> {
        match self.expires.checked_sub(now) {
            None | Some(0) => Err(Reason::IpExpired),
            Some(1..=MAX_TTL) => Ok(self),
            Some(_) => Err(Reason::IpMalformed),
        }
    }
}

/// The signed value of a cookie.
///
/// `expires_unix`: seconds since the Unix epoch, at most [`MAX_TTL`] ahead or nobody accepts it.
pub fn sign(ring: &KeyRing, cookie_name: &str, ip: ClientIp, expires_unix: u64) -> String {
    let key = &ring.signing;
    let mut value = String::with_capacity(MAX_VALUE_BYTES);
    value.push_str("v1.");
    URL_SAFE_NO_PAD.encode_string(ip.to_string(), &mut value);
    value.push('.');
    value.push_str(&expires_unix.to_string());
    value.push('.');
    value.push_str(&key.id);
    let mac = hmac::sign(&key.hmac, &signed_bytes(cookie_name, value.as_bytes()));
    value.push('.');
    URL_SAFE_NO_PAD.encode_string(mac, &mut value);
    value
}

/// Verifies the signed value of a cookie, at `now` in seconds since the Unix epoch.
///
/// # Errors
/// [`Reason::IpMalformed`] where it is not the one spelling of a signed address, or good for longer than
/// [`MAX_TTL`]; [`Reason::IpSignature`] where no key of the ring made it; [`Reason::IpExpired`].
pub fn verify(ring: &KeyRing, cookie_name: &str, value: &[u8], now: u64) -> Result<SignedIp, Reason> {
    authenticate(ring, cookie_name, value)?.at(now)
}

/// What of [`verify`] depends on the bytes alone and never changes.
pub(super) fn authenticate(ring: &KeyRing, cookie_name: &str, value: &[u8]) -> Result<SignedIp, Reason> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(Reason::IpMalformed);
    }
    let mut parts = value.rsplitn(2, |byte| *byte == b'.');
    let (Some(mac), Some(signed)) = (parts.next(), parts.next()) else { return Err(Reason::IpMalformed) };
    let mut parts = signed.split(|byte| *byte == b'.');
    let (Some(VERSION), Some(address), Some(expires), Some(id), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Reason::IpMalformed);
    };
    let ip = decode_address(address)?;
    let expires = decode_expiry(expires)?;
    let id = std::str::from_utf8(id).ok().filter(|id| is_key_id(id)).ok_or(Reason::IpMalformed)?;
    let mut buffer = [0; 64];
    let mac = decode(mac, &mut buffer).filter(|mac| mac.len() == MAC_BYTES).ok_or(Reason::IpMalformed)?;
    let key = ring.keys().find(|key| *key.id == *id).ok_or(Reason::IpSignature)?;
    // Compares in constant time.
    hmac::verify(&key.hmac, &signed_bytes(cookie_name, signed), mac).map_err(|_| Reason::IpSignature)?;
    Ok(SignedIp { ip, expires })
}

/// Any text under the MAC of the first key, whatever it says.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn forge(ring: &KeyRing, cookie_name: &str, signed: &[u8]) -> Vec<u8> {
    let mac = hmac::sign(&ring.signing.hmac, &signed_bytes(cookie_name, signed));
    [signed, b".", URL_SAFE_NO_PAD.encode(mac).as_bytes()].concat()
}

/// What the MAC covers. Unambiguous: a cookie's name holds no `=`.
fn signed_bytes(cookie_name: &str, value: &[u8]) -> SmallVec<[u8; 256]> {
    let mut bytes = SmallVec::from_slice(cookie_name.as_bytes());
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes
}

fn decode_address(base64: &[u8]) -> Result<ClientIp, Reason> {
    if base64.len() > MAX_ADDRESS_BASE64 {
        return Err(Reason::IpMalformed);
    }
    let mut buffer = [0; 64];
    let text = decode(base64, &mut buffer).ok_or(Reason::IpMalformed)?;
    // Whoever holds a key may write an address as it came, such as an IPv4-mapped one.
    ClientIp::parse(text)
}

fn decode_expiry(text: &[u8]) -> Result<u64, Reason> {
    // `parse` alone would take `+1` and `01`.
    let canonical = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || !text.starts_with(b"0"));
    std::str::from_utf8(text)
        .ok()
        .filter(|_| canonical)
        .and_then(|text| text.parse().ok())
        .ok_or(Reason::IpMalformed)
}

/// Strict base64url: no padding, no unused bits. `None` also where the buffer does not suffice.
fn decode<'b>(base64: &[u8], buffer: &'b mut [u8; 64]) -> Option<&'b [u8]> {
    let length = URL_SAFE_NO_PAD.decode_slice(base64, buffer).ok()?;
    buffer.get(..length)
}

#[cfg(test)]
mod tests;
