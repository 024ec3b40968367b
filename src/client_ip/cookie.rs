//! The Cookie header, read exactly as Grafana reads it: Go's `net/http` `readCookies`.
//!
//! nginx's `$cookie_name` ignores letter case and takes the first of several cookies, Go's map in Grafana is
//! exact and keeps the last: a spoofed cookie could win on one side. So the header is read here, and more than
//! one cookie of a name is told as such.
//!
//! All Cookie lines of a request are one byte string, joined by `\n`, which no header value can hold.
//!
//! # Where this differs from Go, and why that is safe
//!
//! Compared by reading with `src/net/http/cookie.go` as it was about Go 1.12 ("old Go" below), 1.23 and 1.25.2.
//! Each point has its test.
//!
//! * **Names.** Go drops a cookie whose name is no token; here any bytes are a name. The name looked for is a
//!   token ([`is_name`]), so one that Go drops never equals it.
//! * **Blanks** are those of `textproto.TrimString`: space, tab, CR, LF. Old Go trimmed every Unicode
//!   space, and read `\x0bClient_Ip` as `Client_Ip`; [`remove`] leaves that cookie. Such a Grafana keeps the
//!   last of equal names, which is the stamped one, and two that reach the gateway are a denial.
//! * **Blanks before `=`.** Old Go did not trim them and dropped the cookie; newer Go reads it. It counts here,
//!   so it is deleted, and beside another it is a duplicate.
//! * **Without `=`** a cookie has an empty value, in Go as here. It counts.
//! * **Values.** Go drops a cookie whose value, without its quotes, holds `"`, `\` or a byte outside
//!   `0x20..=0x7e`. Here it counts, with that value, which is no address: a denial where Go would have looked at
//!   the next cookie.
//! * **Quotes.** One pair is removed, as in Go: `""x""` is `"x"`, and a lone `"` stays. They protect nothing:
//!   `;` separates inside them too. Go 1.23 and later writes a quoted value quoted again, before it did not; both
//!   are read the same.
//! * **Blanks behind `=`** belong to the value, in Go as here (it then sends them in quotes). No address has any.
//! * **Number.** Since 1.24.8 and 1.25.2 Go reads no cookie at all where there would be more than 3000; here all
//!   are read. A request padded like that has no session in Grafana, and the stamped cookie is lost with the
//!   others: the address is missing.
//! * **`,`** separates cookies in RFC 2965 and nowhere else: not in Go, not here.

/// What a request's cookies say under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No cookie has the name.
    None,
    /// Exactly one has; its value without one optional pair of double quotes.
    One(&'a [u8]),
    /// Several have, whatever their values.
    Many,
}

/// What a request's Cookie lines are without the cookies of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// No cookie had the name: the lines may stay as they are, also where they are several.
    Unchanged,
    /// The only Cookie line that is left.
    Rewritten(Vec<u8>),
    /// No cookie is left, and so no Cookie line.
    Nothing,
}

/// Whether a text can be a cookie's name: a token of RFC 9110, so that Go keeps it.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether `lines` is more than one Cookie line.
pub fn has_several_lines(lines: &[u8]) -> bool {
    lines.contains(&b'\n')
}

/// Looks for the cookies whose name is exactly `name`, a token.
pub fn find<'a>(lines: &'a [u8], name: &str) -> Found<'a> {
    let mut found = Found::None;
    for segment in Segments::of(lines) {
        if let Some(value) = value_of(segment, |head| head == name.as_bytes(), name.len()) {
            if found != Found::None {
                return Found::Many;
            }
            found = Found::One(unquoted(value));
        }
    }
    found
}

/// Removes every cookie whose name is `name`, a token, in any letter case. The others stay byte for byte, and
/// what is between them, their lines joined by `; `.
pub fn remove(lines: &[u8], name: &str) -> Remaining {
    let mut segments = Segments::of(lines);
    let has_it = |segment| has_name(segment, name);
    let first = segments.next().is_some_and(has_it);
    // The usual case: Grafana forwards this cookie alone.
    if segments.rest.is_none() {
        return if first { Remaining::Nothing } else { Remaining::Unchanged };
    }
    if !first && !segments.any(has_it) {
        return Remaining::Unchanged;
    }
    let mut rest = Vec::with_capacity(lines.len());
    push_others(lines, name, &mut rest);
    if rest.is_empty() { Remaining::Nothing } else { Remaining::Rewritten(rest) }
}

/// Removes every cookie whose name is `name`, a token, in any letter case, and adds one as the last: the value of
/// the only Cookie line.
///
/// `value` is written as it is: an address or a signed value, never anything with `;` or a newline in it.
pub fn stamp(lines: &[u8], name: &str, value: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(lines.len() + name.len() + value.len() + 3);
    push_others(lines, name, &mut line);
    if !line.is_empty() {
        line.extend_from_slice(b"; ");
    }
    line.extend_from_slice(name.as_bytes());
    line.push(b'=');
    line.extend_from_slice(value.as_bytes());
    line
}

/// Appends every cookie of another name. Blanks and `;` at both ends of a line are no part of any cookie and are
/// left out; everything else is copied.
fn push_others(lines: &[u8], name: &str, out: &mut Vec<u8>) {
    let mut begun = false;
    let mut segments = Segments::of(lines);
    while let Some(segment) = segments.next() {
        if !has_name(segment, name) {
            if begun {
                out.push(b';');
                out.extend_from_slice(segment);
            } else if let segment @ [_, ..] = trim_start(segment) {
                begun = true;
                if !out.is_empty() {
                    out.extend_from_slice(b"; ");
                }
                out.extend_from_slice(segment);
            }
        }
        if segments.at_line_end {
            begun = false;
            // Stops within this line: one that has begun holds a byte that is neither.
            while let Some(b';' | b' ' | b'\t' | b'\r') = out.last() {
                out.pop();
            }
        }
    }
}

fn has_name(segment: &[u8], name: &str) -> bool {
    value_of(segment, |head| head.eq_ignore_ascii_case(name.as_bytes()), name.len()).is_some()
}

/// The value of the cookie in this segment, quotes included, if its name is the one that `is_it` knows: a token
/// of `length` bytes. A token holds neither `=` nor blanks, so it is the whole name that is compared.
fn value_of(segment: &[u8], is_it: impl FnOnce(&[u8]) -> bool, length: usize) -> Option<&[u8]> {
    let (head, behind) = trim_end(trim_start(segment)).split_at_checked(length)?;
    if !is_it(head) {
        return None;
    }
    match trim_start(behind) {
        [] => Some(b""),
        [b'=', value @ ..] => Some(value),
        _ => None,
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    text
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

/// What is between the `;` and newlines. Always at least one segment, which may be empty.
struct Segments<'a> {
    rest: Option<&'a [u8]>,
    /// Whether the last segment told was the last of its line.
    at_line_end: bool,
}

impl<'a> Segments<'a> {
    const fn of(lines: &'a [u8]) -> Self {
        Self { rest: Some(lines), at_line_end: false }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest?;
        // Searched many bytes at a time: the other cookies are the longest part of most requests.
        let end = memchr::memchr2(b';', b'\n', text).unwrap_or(text.len());
        let (segment, behind) = text.split_at_checked(end)?;
        self.at_line_end = behind.first() != Some(&b';');
        self.rest = behind.get(1..);
        Some(segment)
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
