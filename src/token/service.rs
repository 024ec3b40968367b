//! Service tokens: what callers without a user present instead of a JWT.
//!
//! A token is `tas_` and 43 characters of base64url, 256 random bits, so its plain SHA-256 tells nothing about it; a
//! policy holds only that. It comes in `Authorization`, as `Bearer <token>` or, since many agents know nothing else, as
//! the password of `Basic` (RFC 7617, RFC 6750). The token alone says whose it is; the user beside it must be the
//! account's name or the tenant that is asked for, which the caller of this room knows.

use super::authorization::Scheme;
use super::digest::Sha256;
use crate::reason::Reason;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use lru::LruCache;
use std::borrow::Cow;
use std::num::NonZeroUsize;

/// What a service token begins with.
const PREFIX: &str = "tas_";
/// How many bytes a service token has.
const LENGTH: usize = 47;

/// The longest header value that is looked at, in bytes: no account has a name that would need more.
const MAX_HEADER_LEN: usize = 1024;
/// How many header values a worker remembers: each is some account's.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
/// Clients pad or do not.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// For what is only to be kept from backends.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What an `Authorization` header says of a service account; nothing of it is proven.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials<'h> {
    /// The user of `Basic`.
    user: Option<Vec<u8>>,
    token: Cow<'h, [u8]>,
}

impl<'h> Credentials<'h> {
    /// Reads the value of an `Authorization` header: `None` where it carries no service token, whatever else it does.
    pub fn read(header: &'h [u8]) -> Option<Self> {
        let encoded = match candidate(header)? {
            Scheme::Bearer(token) => return Self::of_token(token.trim_ascii_end()),
            Scheme::Basic(encoded) => encoded.trim_ascii_end(),
        };
        let decoded = BASIC.decode(encoded).ok()?;
        // RFC 7617 section 2: the first colon ends the user's name.
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (user, token) = (decoded.get(..colon)?, decoded.get(colon + 1..)?);
        token
            .starts_with(PREFIX.as_bytes())
            .then(|| Self { user: Some(user.to_vec()), token: token.to_vec().into() })
    }

    /// Credentials of a token alone.
    pub fn of_token(token: &'h [u8]) -> Option<Self> {
        token.starts_with(PREFIX.as_bytes()).then_some(Self { user: None, token: token.into() })
    }

    /// The account whose token this is, by its position in `accounts`: name, and the SHA-256 of each of its tokens.
    ///
    /// `is_user`: whether the user of `Basic` may be another one than the name of the account at this position.
    ///
    /// # Errors
    /// [`Reason::TokenUnknown`] where no account has the token, or beside another user.
    pub fn verify<'a>(
        &self,
        accounts: impl Iterator<Item = (&'a str, &'a [Sha256])>,
        is_user: impl FnOnce(usize, &[u8]) -> bool,
    ) -> Result<usize, Reason> {
        if !is_token(&self.token) {
            return Err(Reason::TokenUnknown);
        }
        let sum = Sha256::of(&self.token);
        let (number, (account, _)) = accounts
            .enumerate()
            .find(|(_, (_, tokens))| tokens.iter().any(|known| known.equals(&sum)))
            .ok_or(Reason::TokenUnknown)?;
        match &self.user {
            Some(user) if *user.as_slice() != *account.as_bytes() && !is_user(number, user) => {
                Err(Reason::TokenUnknown)
            }
            _ => Ok(number),
        }
    }

    /// The user of `Basic`; `None` beside `Bearer`.
    pub fn user(&self) -> Option<&[u8]> {
        self.user.as_deref()
    }

    /// The token.
    pub fn token(&self) -> &[u8] {
        &self.token
    }
}

/// What in an `Authorization` header may be a service account's: `Bearer` with the beginning of a service token, or
/// `Basic` with whatever. Looks only at the beginning: Grafana sends an access token with nearly every request.
pub fn candidate(header: &[u8]) -> Option<Scheme<'_>> {
    if header.len() > MAX_HEADER_LEN {
        return None;
    }
    Scheme::read(header).filter(|scheme| match scheme {
        Scheme::Bearer(token) => token.starts_with(PREFIX.as_bytes()),
        Scheme::Basic(_) => true,
    })
}

/// Whether a header's value holds what looks like a service token, however long it is and whatever stands around: what
/// no backend is ever to see. A JWT does not: between its dots nothing begins so, but in one of ten million.
pub fn holds_token(header: &[u8]) -> bool {
    let holds = |text: &[u8]| {
        let mut words = text.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        words.any(|word| word.starts_with(PREFIX.as_bytes()))
    };
    // As any reader might: both alphabets, whatever bits are left over.
    let holds_encoded = |word: &[u8]| {
        let usual = |byte: &u8| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        };
        LENIENT.decode(word.iter().map(usual).collect::<Vec<_>>()).is_ok_and(|text| holds(&text))
    };
    // Whatever cannot be part of it ends a word, so that it does not matter what a reader takes for a blank.
    let ends_word = |byte: &u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_'));
    let mut words = header.split(ends_word).filter(|word| !word.is_empty());
    let is_basic = words.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"));
    holds(header) || (is_basic && words.any(holds_encoded))
}

/// Whether the bytes are a token of the form that `tenantauth keygen --service-account` makes.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    bytes.len() == LENGTH
        && bytes.strip_prefix(PREFIX.as_bytes()).is_some_and(|random| {
            random.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

/// Header values that one worker knows to be service accounts', so that each token is hashed once: bounded, least
/// recently used out first. What is not an account's is never remembered, so requests cannot fill it.
///
/// Found by a keyed hash and confirmed by full comparison, whose time tells nothing of use: to be compared at all, a
/// value must have the very hash of a remembered one, under a key that nobody outside knows.
///
/// `R` is what the caller keeps with a value.
pub struct ServiceTokenCache<R> {
    entries: LruCache<Box<[u8]>, R>,
    serial: u32,
}

impl<R> Default for ServiceTokenCache<R> {
    fn default() -> Self {
        Self { entries: LruCache::new(CAPACITY), serial: 0 }
    }
}

impl<R> ServiceTokenCache<R> {
    /// What is kept with a header value, made by `make` where it is seen for the first time.
    ///
    /// `serial`: of the snapshot; what was remembered of another one is forgotten.
    ///
    /// # Errors
    /// What `make` failed with; nothing is then kept.
    pub fn get_or_insert_with(
        &mut self,
        serial: u32,
        header: &[u8],
        make: impl FnOnce() -> Result<R, Reason>,
    ) -> Result<&R, Reason> {
        if self.serial != serial {
            self.entries.clear();
            self.serial = serial;
        }
        if self.entries.get(header).is_none() {
            self.entries.put(header.into(), make()?);
        }
        // Found or put just now, so it is the most recently used.
        self.entries.peek_mru().map(|(_, kept)| kept).ok_or(Reason::InternalError)
    }

    /// How many header values are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
