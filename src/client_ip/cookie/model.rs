//! Cookies in plain steps: as Go's `readCookies` reads them, and as they stand.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "built for tests and fuzzing alone"
)]

use super::{is_name, trim_end, trim_start};

/// The name that is looked for.
pub(crate) const NAME: &str = "Client_Ip";

/// What Go's `readCookies` makes of the Cookie lines: names and values in their order, in plain steps.
pub(crate) fn as_go_reads(lines: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    fn trim(text: &[u8]) -> &[u8] {
        let blank = |byte: &u8| b" \t\r\n".contains(byte);
        let from = text.iter().position(|byte| !blank(byte)).unwrap_or(text.len());
        let to = text.iter().rposition(|byte| !blank(byte)).map_or(from, |last| last + 1);
        &text[from..to]
    }
    let mut cookies = Vec::new();
    for part in lines.split(|byte| *byte == b'\n').flat_map(|line| line.split(|byte| *byte == b';')) {
        let mut halves = trim(part).splitn(2, |byte| *byte == b'=');
        let name = trim(halves.next().unwrap());
        let mut value = halves.next().unwrap_or(b"");
        if value.len() > 1 && value[0] == b'"' && value[value.len() - 1] == b'"' {
            value = &value[1..value.len() - 1];
        }
        let is_token = std::str::from_utf8(name).is_ok_and(is_name);
        if is_token && value.iter().all(|byte| (0x20..0x7f).contains(byte) && !b"\"\\".contains(byte)) {
            cookies.push((name.to_vec(), value.to_vec()));
        }
    }
    cookies
}

/// Every segment that is not blank, and is not named `Client_Ip` in some case: trimmed, otherwise as it is.
pub(crate) fn others(lines: &[u8]) -> Vec<Vec<u8>> {
    lines
        .split(|byte| matches!(byte, b';' | b'\n'))
        .map(|segment| trim_end(trim_start(segment)))
        .filter(|segment| {
            let name = trim_end(segment.split(|byte| *byte == b'=').next().unwrap());
            !segment.is_empty() && !name.eq_ignore_ascii_case(NAME.as_bytes())
        })
        .map(<[u8]>::to_vec)
        .collect()
}
