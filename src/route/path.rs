//! A request path with one reading.

use std::borrow::Cow;

/// The path can be read in more than one way, or is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousPath;

/// A raw request path with only one reading. Only [`RoutePath::parse`] builds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath<'a> {
    raw: &'a str,
    /// Borrowed, and the same as `raw`, where the path holds no escape.
    decoded: Cow<'a, str>,
    /// `raw` holds `%2F`: only some rows take that, which the classification checks.
    encoded_slash: bool,
}

impl<'a> RoutePath<'a> {
    /// Parses the path of a request: nginx's `$request_uri` up to the first `?`, undecoded.
    ///
    /// # Errors
    /// [`AmbiguousPath`] for what does not begin with `/`; for `//`, `/./` and `/../`; for `\`, `#`, blanks and
    /// control bytes; for broken escapes, and escapes that stand for a dot, a backslash, a control byte, a question
    /// mark, or for text that would again be an escape (`%252F`: ruler code of the backends decodes names once more);
    /// for what is no UTF-8, raw or decoded. `%2F` passes only where every part around it has a name.
    pub fn parse(raw: &'a [u8]) -> Result<Self, AmbiguousPath> {
        // Not `any`: a loop without an early end is compiled to vector instructions.
        let refused = raw.iter().fold(false, |found, byte| found | is_refused(*byte));
        if refused || raw.first() != Some(&b'/') {
            return Err(AmbiguousPath);
        }
        let raw = std::str::from_utf8(raw).map_err(|_| AmbiguousPath)?;
        let (decoded, encoded_slash) =
            if raw.contains('%') { decode(raw)? } else { (Cow::Borrowed(raw), false) };
        // The decoded text, so that an encoded slash bounds a part too.
        if !parts_have_names(&decoded) {
            return Err(AmbiguousPath);
        }
        Ok(Self { raw, decoded, encoded_slash })
    }

    /// The path as it came, undecoded.
    pub fn as_str(&self) -> &'a str {
        self.raw
    }

    /// What the path is once decoded; the same where it holds no escape.
    pub(super) fn decoded(&self) -> &str {
        &self.decoded
    }

    /// Whether it holds `%2F`.
    pub(super) const fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// The path below `prefix` (without trailing slash), if it is the prefix or lies below it.
    pub(super) fn without(&self, prefix: &str) -> Option<Self> {
        let raw = match self.raw.strip_prefix(prefix)? {
            "" => "/",
            below if below.starts_with('/') => below,
            _ => return None,
        };
        match self.decoded {
            Cow::Borrowed(_) => Some(Self { raw, decoded: Cow::Borrowed(raw), encoded_slash: false }),
            Cow::Owned(_) => Self::parse(raw.as_bytes()).ok(),
        }
    }
}

/// Bytes that no raw path holds. nginx from 1.21.1 on refuses blanks and control bytes itself, older ones do
/// not; `#` ends the path for nginx but not for the backends.
const fn is_refused(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || byte == b'\\' || byte == b'#'
}

/// Bytes that Go's `net/url` keeps as they are beside an escape (`validEncoded`).
const fn is_kept_by_go(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'$'..=b'/' | b':' | b';' | b'=' | b'@' | b'[' | b']' | b'_' | b'~')
}

/// The decoded form of a raw path, and whether it held an encoded slash.
fn decode(raw: &str) -> Result<(Cow<'_, str>, bool), AmbiguousPath> {
    let mut bytes = raw.bytes();
    let hex = |bytes: &mut std::str::Bytes<'_>| {
        let digit = bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(AmbiguousPath)?;
        u8::try_from(digit).map_err(|_| AmbiguousPath)
    };
    let mut decoded = Vec::with_capacity(raw.len());
    let mut encoded_slash = false;
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let byte = (hex(&mut bytes)? << 4) | hex(&mut bytes)?;
        // A `proxy_pass` with variables (`$uri`, `$1`) sends the decoded path as it is, and a question mark ends it there.
        // A blank breaks the request line, which backends refuse; a `#` is a character of the path to them.
        if byte < b' ' || matches!(byte, 0x7f | b'\\' | b'.' | b'?') {
            return Err(AmbiguousPath);
        }
        encoded_slash |= byte == b'/';
        decoded.push(byte);
    }
    if decoded.windows(3).any(is_escape) {
        return Err(AmbiguousPath);
    }
    // Beside any other byte Go forgets the raw form and encodes the decoded path anew: Mimir would then see a
    // plain slash. And `parts_have_names` lets a path end in a slash, which must be a plain one.
    let go_forgets = || !raw.bytes().all(is_kept_by_go);
    if encoded_slash && (go_forgets() || (decoded.ends_with(b"/") && !raw.ends_with('/'))) {
        return Err(AmbiguousPath);
    }
    let decoded = String::from_utf8(decoded).map_err(|_| AmbiguousPath)?;
    Ok((Cow::Owned(decoded), encoded_slash))
}

/// Whether the three bytes would be decoded to one.
fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'%', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether no part between slashes is empty (the last may be), `.` or `..`.
fn parts_have_names(path: &str) -> bool {
    // Nearly every path has neither, and this loop without an early end is the faster one.
    let pairs = path.bytes().zip(path.bytes().skip(1));
    if !pairs.fold(false, |found, (byte, next)| found | (byte == b'/' && matches!(next, b'/' | b'.'))) {
        return true;
    }
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        if matches!(part, "." | "..") || (part.is_empty() && parts.peek().is_some()) {
            return false;
        }
    }
    true
}
