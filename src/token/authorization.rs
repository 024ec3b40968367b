//! The value of an `Authorization` header (RFC 9110, section 11.6.2).

/// Its credentials, by their scheme, without the blanks in front of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme<'h> {
    /// A token (RFC 6750).
    Bearer(&'h [u8]),
    /// User and password, encoded (RFC 7617).
    Basic(&'h [u8]),
}

impl<'h> Scheme<'h> {
    /// Reads a header's value; `None` for every other scheme. Its letter case does not count (RFC 9110, section 11.1).
    pub fn read(header: &'h [u8]) -> Option<Self> {
        let after = |scheme: &[u8]| {
            let (found, rest) = header.split_at_checked(scheme.len())?;
            found.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii_start())
        };
        after(b"bearer ").map(Self::Bearer).or_else(|| after(b"basic ").map(Self::Basic))
    }
}
