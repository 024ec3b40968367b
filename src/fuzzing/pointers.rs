//! The entry that Lua calls by pointer.

use crate::lua::ffi::model::{Given, Said, agrees};

/// Any bytes as a request's pointers and lengths: read as they were put there, and lines of which something is missing
/// are no lines.
///
/// Two bytes choose the number of lines that is told, and whether there are any; then come the texts, those of the
/// request and those of its lines: a byte for the length and so many bytes, but for lengths of which there are none.
pub(super) fn pointers(bytes: &[u8]) -> bool {
    let mut rest = bytes.iter().copied();
    let count = match rest.next().unwrap_or_default() {
        b'-' => Some(-1),
        b'<' => Some(i32::MIN),
        b'+' => Some(101),
        b'>' => Some(i32::MAX),
        digit @ b'0'..=b'9' => Some(i32::from(digit - b'0')),
        _ => None,
    };
    let without_lines = rest.next() == Some(b'0');
    let mut text = || {
        let length = rest.next()?;
        let mut byte = || rest.next().unwrap_or_default().cast_signed();
        Some(match length {
            0xff => Given::Null(byte()),
            0xfe => Given::Negative(byte()),
            // Short ones are many, long ones some.
            0xc0.. => Given::Bytes(rest.by_ref().take(usize::from(length - 0xc0) * 128).collect()),
            _ => Given::Bytes(rest.by_ref().take(usize::from(length)).collect()),
        })
    };
    let texts = std::array::from_fn(|_| text().unwrap_or(Given::Null(0)));
    let mut lines = Vec::new();
    while let Some(name) = text() {
        lines.push((name, text().unwrap_or(Given::Null(0))));
    }
    agrees(&Said { texts, lines, count, without_lines }).unwrap_or_else(|failed| panic!("{failed}"))
}
