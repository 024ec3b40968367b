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
    /// None has it, but one or more have it in another letter case.
    Similar,
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
    !text.is_empty() && text.bytes().all(crate::text::is_token_byte)
}

/// Whether `lines` is more than one Cookie line.
pub fn has_several_lines(lines: &[u8]) -> bool {
    lines.contains(&b'\n')
}

/// Looks for the cookies whose name is exactly `name`, a token.
pub fn find<'a>(lines: &'a [u8], name: &str) -> Found<'a> {
    if let Some(value) = alone(lines, name) {
        return Found::One(unquoted(trim_end(value)));
    }
    let mut found = Found::None;
    for cookie in Named::of(lines, name) {
        found = match (found, cookie.is_exact) {
            (Found::None, false) => Found::Similar,
            (Found::None | Found::Similar, true) => Found::One(unquoted(cookie.value())),
            (found, false) => found,
            (_, true) => return Found::Many,
        };
    }
    found
}

/// Removes every cookie whose name is `name`, a token, in any letter case. The others stay byte for byte, and
/// what is between them, their lines joined by `; `.
pub fn remove(lines: &[u8], name: &str) -> Remaining {
    if alone(lines, name).is_some() {
        return Remaining::Nothing;
    }
    if Named::of(lines, name).next().is_none() {
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

/// The value of the usual only cookie, blanks at its end included: Grafana forwards this cookie alone.
fn alone<'a>(lines: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = lines.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    memchr::memchr2(b';', b'\n', value).is_none().then_some(value)
}

/// Appends every cookie of another name. Blanks and `;` at both ends of a line are no part of any cookie and are
/// left out; everything else is copied.
fn push_others(lines: &[u8], name: &str, out: &mut Vec<u8>) {
    let mut left = Some(lines);
    while let Some(text) = left {
        let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
        let line = text.get(..end).unwrap_or_default();
        left = text.get(end + 1..);
        let before = out.len();
        if before > 0 {
            out.extend_from_slice(b"; ");
        }
        let begin = out.len();
        let mut push = |piece: &[u8]| {
            let is_first = out.len() == begin;
            out.extend_from_slice(if is_first { trim_start_of(piece, is_between) } else { piece });
        };
        let mut from = 0;
        for cookie in Named::of(line, name) {
            push(line.get(from..cookie.from).unwrap_or_default());
            // The `;` behind it goes too: the one before it stays.
            from = cookie.to() + 1;
        }
        push(line.get(from..).unwrap_or_default());
        let end = out.iter().skip(begin).rposition(|byte| !is_between(*byte));
        out.truncate(end.map_or(before, |last| begin + last + 1));
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

const fn is_between(byte: u8) -> bool {
    is_blank(byte) || byte == b';'
}

fn trim_start(text: &[u8]) -> &[u8] {
    trim_start_of(text, is_blank)
}

fn trim_start_of(mut text: &[u8], is_it: impl Fn(u8) -> bool) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_it(*first)
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

/// So many bytes are searched at a time.
const BLOCK: usize = 64;

/// A cookie of the name that is looked for, in any letter case.
struct Cookie<'a> {
    /// Where it begins, behind the `;` or newline before it.
    from: usize,
    /// What stands behind its name, to the end of all lines, and where that begins.
    behind: &'a [u8],
    behind_at: usize,
    is_exact: bool,
}

impl<'a> Cookie<'a> {
    /// Its value, quotes included, and blanks before the `=` passed over.
    fn value(&self) -> &'a [u8] {
        match trim_start(trim_end(self.behind.get(..self.length()).unwrap_or_default())) {
            [b'=', value @ ..] => value,
            _ => b"",
        }
    }

    /// Where the `;` or newline behind it stands, or the text ends.
    fn to(&self) -> usize {
        self.behind_at + self.length()
    }

    fn length(&self) -> usize {
        memchr::memchr2(b';', b'\n', self.behind).unwrap_or(self.behind.len())
    }
}

/// Whether two names of one length differ in letter case alone.
fn is_similar(head: &[u8], name: &[u8]) -> bool {
    head.iter().zip(name).all(|(have, want)| have == want || have.eq_ignore_ascii_case(want))
}

/// The cookies of one name, in any letter case. Cookies end at `;` and newlines.
///
/// Somebody who is denied may send as many cookies as nginx takes, so that the time must not depend on their number: the
/// name is searched for, and only where it stands is it asked whether a cookie begins there.
struct Named<'a, 'n> {
    lines: &'a [u8],
    name: &'n [u8],
    /// Where the search goes on.
    at: usize,
}

impl<'a, 'n> Named<'a, 'n> {
    /// `name`: a token, which holds neither `=`, `;` nor blanks, so that it is the whole name that is compared.
    const fn of(lines: &'a [u8], name: &'n str) -> Self {
        Self { lines, name: name.as_bytes(), at: 0 }
    }

    /// The cookie whose name may begin `at` this place.
    fn cookie(&self, at: usize) -> Option<Cookie<'a>> {
        let (before, text) = self.lines.split_at_checked(at)?;
        let (head, behind) = text.split_at_checked(self.name.len())?;
        // First of all: a name holds no blanks, so that no run of them is trimmed for two names.
        if !is_similar(head, self.name) {
            return None;
        }
        let before = trim_end(before);
        let begins_here = matches!(before, [] | [.., b';' | b'\n']);
        let ends_here = matches!(trim_start(behind), [] | [b'=' | b';' | b'\n', ..]);
        (begins_here && ends_here).then(|| Cookie {
            from: before.len(),
            behind,
            behind_at: at + head.len(),
            is_exact: head == self.name,
        })
    }
}

impl<'a> Iterator for Named<'a, '_> {
    type Item = Cookie<'a>;

    fn next(&mut self) -> Option<Cookie<'a>> {
        let lower = |byte: u8| byte | 0x20;
        let (first, last) = (lower(*self.name.first()?), lower(*self.name.last()?));
        let may_be = |(begin, end): (&u8, &u8)| (lower(*begin) == first) & (lower(*end) == last);
        let begins = self.lines.get(self.at..)?.chunks(BLOCK);
        let ends = self.lines.get(self.at + self.name.len() - 1..)?.chunks(BLOCK);
        for (begins, ends) in begins.zip(ends) {
            // Without a way out, so that the compiler takes many bytes at a time.
            if begins.iter().zip(ends).fold(false, |any, pair| any | may_be(pair)) {
                for (offset, pair) in begins.iter().zip(ends).enumerate() {
                    if may_be(pair)
                        && let Some(cookie) = self.cookie(self.at + offset)
                    {
                        self.at = cookie.behind_at;
                        return Some(cookie);
                    }
                }
            }
            self.at += BLOCK;
        }
        self.at = self.lines.len();
        None
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
