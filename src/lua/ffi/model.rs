//! Requests with any pointers and lengths that the entry's caller may give, and what is to be read of them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "built for tests and fuzzing alone"
)]

use super::{Header, MAX_HEADERS, NginxText, Request, Text, read};
use std::ffi::{c_int, c_uint};
use std::ptr;

/// A text of a request: in memory of its own, exactly as long as itself, so that a sanitizer sees a byte too many.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    /// Its bytes.
    Bytes(Box<[u8]>),
    /// A null pointer with this length.
    Null(i8),
    /// A pointer with a negative length, of header lines alone.
    Negative(i8),
}

impl Given {
    fn text(&self) -> Text {
        match self {
            Self::Bytes(bytes) => Text::of(bytes),
            Self::Null(length) | Self::Negative(length) => {
                Text { data: ptr::null(), length: usize::from(length.unsigned_abs()) }
            }
        }
    }

    fn nginx_text(&self) -> NginxText {
        let length = |bytes: &[u8]| c_uint::try_from(bytes.len()).unwrap();
        match self {
            Self::Bytes(bytes) => NginxText { length: length(bytes), data: bytes.as_ptr() },
            Self::Null(length) => {
                NginxText { length: c_int::from(*length).cast_unsigned(), data: ptr::null() }
            }
            Self::Negative(length) => {
                let length = -1 - c_int::from(length.unsigned_abs());
                NginxText { length: length.cast_unsigned(), data: b"any".as_ptr() }
            }
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// What a text of a header line holds; `None` where it is not there.
    fn of_a_line(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            // Nothing at all may lie anywhere.
            Self::Null(0) => Some(b""),
            Self::Null(_) | Self::Negative(_) => None,
        }
    }
}

/// What Lua gives: method, `$request_uri`, `$uri`, `$remote_addr` and peer, and the header lines.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) texts: [Given; 5],
    pub(crate) lines: Vec<(Given, Given)>,
    /// Instead of the number of lines: one that is too small or too great.
    pub(crate) count: Option<i32>,
    /// The pointer to the lines is null.
    pub(crate) without_lines: bool,
}

/// Holds what the entry reads of this request against what was put there; returns whether it has header lines.
///
/// # Errors
/// What differs.
pub(crate) fn agrees(said: &Said) -> Result<bool, String> {
    let lines: Box<[Header]> = said
        .lines
        .iter()
        .map(|(name, value)| Header { name: name.nginx_text(), value: value.nginx_text() })
        .collect();
    let true_count = i32::try_from(lines.len()).unwrap();
    // More lines than there are is a lie that the entry cannot see, unless it takes so many for too many.
    let count = said.count.filter(|count| *count < true_count || *count > 100).unwrap_or(true_count);
    let [method, request_uri, uri, remote_addr, peer] = said.texts.each_ref().map(Given::text);
    let request = Request {
        server: 0,
        headers_count: count,
        headers: if said.without_lines { ptr::null() } else { lines.as_ptr() },
        method,
        request_uri,
        uri,
        remote_addr,
        peer,
        upgradable: if said.without_lines { 3 } else { 0 },
    };
    // SAFETY: every pointer is null or leads to what `said` and `lines` hold until the end of this function.
    let (read, shown_lines) = unsafe { read(&request) };

    let [method, request_uri, uri, remote_addr, peer] = said.texts.each_ref().map(Given::bytes);
    let texts =
        [Some(read.method), Some(read.request_uri), Some(read.uri), read.remote_addr, Some(read.peer)];
    let or_empty = |text: Option<_>| Some(text.unwrap_or_default());
    let expected = [or_empty(method), or_empty(request_uri), or_empty(uri), remote_addr, or_empty(peer)];
    if texts != expected {
        return Err(format!("{texts:?} instead of {expected:?}"));
    }
    if (read.upgradable == crate::engine::Upgradable::Kept) != said.without_lines {
        return Err(format!("whether there is a copy of Upgrade: {:?}", read.upgradable));
    }
    let shown = usize::try_from(count).ok().filter(|count| *count <= MAX_HEADERS);
    let expected: Option<Vec<_>> =
        shown.filter(|count| *count == 0 || !said.without_lines).and_then(|count| {
            said.lines[..count]
                .iter()
                .map(|(name, value)| Some((name.of_a_line()?, value.of_a_line()?)))
                .collect()
        });
    let lines: Option<Vec<_>> = shown_lines.map(Iterator::collect);
    if lines != expected {
        return Err(format!("{lines:?} instead of {expected:?}"));
    }
    Ok(lines.is_some_and(|lines| !lines.is_empty()))
}
