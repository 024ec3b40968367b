//! The length of a record. What is too long gives way in a fixed order, and the record says what was cut.
//!
//! The cutting works on the rendered members: what is measured is what is written.

use crate::policy::snapshot::{Audit, Snapshot};
use std::env;
use std::ops::Range;
use std::sync::LazyLock;

/// The environment variable that bounds records whatever the policy says: whoever writes nginx's configuration knows
/// where its log goes, and the policy's author may not.
pub const LIMIT_VARIABLE: &str = "TENANTAUTH_AUDIT_MAX_BYTES";

/// What nginx's log format adds to the members, with the line feed, at most. A test holds `http.conf` to it.
pub(super) const RESERVED: usize = 384;

/// What [`LIMIT_VARIABLE`] says. Where that cannot be understood, the least: no engine starts then.
static LIMIT: LazyLock<usize> = LazyLock::new(|| match env::var_os(LIMIT_VARIABLE) {
    None => *Audit::MAX_BYTES.end(),
    Some(written) => written.to_str().and_then(limit).unwrap_or(*Audit::MAX_BYTES.start()),
});

/// The bytes that a limit says.
fn limit(written: &str) -> Option<usize> {
    written.parse().ok().filter(|bytes| Audit::MAX_BYTES.contains(bytes))
}

/// What is wrong with the value of [`LIMIT_VARIABLE`], if anything.
pub fn limit_problem() -> Option<String> {
    let written = env::var_os(LIMIT_VARIABLE)?;
    let (least, most) = (Audit::MAX_BYTES.start(), Audit::MAX_BYTES.end());
    let problem =
        format!("{LIMIT_VARIABLE}: `{}` is not a number of bytes from {least} to {most}", written.display());
    written.to_str().and_then(limit).is_none().then_some(problem)
}

/// The bytes that the members of a record may take.
pub(super) fn room(snapshot: Option<&Snapshot>) -> usize {
    let audit = snapshot.map_or_else(Audit::default, |snapshot| snapshot.audit);
    audit.max_bytes.min(*LIMIT).saturating_sub(RESERVED)
}

/// The keys that can be cut, in the order in which they give way. Identity comes last: variables and later questions
/// tell people apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Key {
    Query,
    Path,
    Dashboard,
    Panel,
    Rule,
    Org,
    Groups,
    Tenants,
    DeniedTenant,
    User,
    TokenId,
    Restriction,
    Grant,
    Owner,
    Method,
    Peer,
    Issuer,
    Subject,
}

const COUNT: usize = 18;

/// What `truncated` calls each of them, and the name before its value. In the order of [`Key`].
const NAMES: [(Key, &str, &str); COUNT] = [
    (Key::Query, "query", "query"),
    (Key::Path, "path", "path"),
    (Key::Dashboard, "grafana.dashboard", "dashboard"),
    (Key::Panel, "grafana.panel", "panel"),
    (Key::Rule, "grafana.rule", "rule"),
    (Key::Org, "grafana.org", "org"),
    (Key::Groups, "groups", "groups"),
    (Key::Tenants, "tenants", "tenants"),
    (Key::DeniedTenant, "denied_tenant", "denied_tenant"),
    (Key::User, "user", "user"),
    (Key::TokenId, "token_id", "token_id"),
    (Key::Restriction, "restriction", "restriction"),
    (Key::Grant, "grant", "grant"),
    (Key::Owner, "owner", "owner"),
    (Key::Method, "method", "method"),
    (Key::Peer, "peer", "peer"),
    (Key::Issuer, "issuer", "issuer"),
    (Key::Subject, "subject", "subject"),
];

/// A set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cuts(u32);

impl Cuts {
    /// Nothing was cut.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn insert(&mut self, key: Key) {
        self.0 |= 1 << key as u32;
    }

    fn contains(self, key: Key) -> bool {
        self.0 & 1 << key as u32 != 0
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(key, ..)| self.contains(*key)).map(|(_, name, _)| *name)
    }
}

/// Cuts the members of a record to `room` bytes and appends `truncated`.
///
/// `members`: all the others, as they are rendered. `cuts`: what was cut before. `query`: the query is one, and not a
/// hash, of which a part says nothing.
#[cold]
pub(super) fn fit(members: &mut Vec<u8>, room: usize, mut cuts: Cuts, query: bool) {
    const LIST: &str = ",\"truncated\":[]";
    // A name in the list stands in quotes, before a comma or the end.
    let cost = |name: &str| name.len() + 3;
    let mut length = members.len() + LIST.len() + cuts.names().map(cost).sum::<usize>();
    let mut removed = [const { 0..0 }; COUNT];
    let values = values(members).into_iter().zip(&mut removed);
    for ((key, name, _), (value, removed)) in NAMES.iter().zip(values) {
        let content = members.get(value.start + 1..value.end.saturating_sub(1)).unwrap_or_default();
        let cost = if cuts.contains(*key) { 0 } else { cost(name) };
        let is_fixed = *key == Key::Query && !query;
        if length <= room || content.len() <= cost || is_fixed {
            continue;
        }
        let most = content.len().saturating_sub(length + cost - room);
        let kept = match members.get(value.start) {
            Some(b'"') => prefix(content, most),
            Some(b'[') => whole_entries(content, most),
            _ => continue,
        };
        length = length + cost - (content.len() - kept);
        *removed = value.start + 1 + kept..value.end - 1;
        cuts.insert(*key);
    }
    removed.sort_unstable_by_key(|range| range.start);
    for range in removed.into_iter().rev() {
        members.drain(range);
    }
    members.extend_from_slice(b",\"truncated\":");
    if cuts == Cuts::NONE {
        return members.extend_from_slice(b"null");
    }
    for (number, name) in cuts.names().enumerate() {
        members.extend_from_slice(if number == 0 { b"[\"" } else { b",\"" });
        members.extend_from_slice(name.as_bytes());
        members.push(b'"');
    }
    members.push(b']');
}

/// Where the values of [`NAMES`] stand, quotes and brackets included. The text is ours: strict JSON without blanks.
fn values(text: &[u8]) -> [Range<usize>; COUNT] {
    let mut found = [const { 0..0 }; COUNT];
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte != b'"' {
            at += 1;
            continue;
        }
        let end = string_end(text, at);
        let name = text.get(at + 1..end - 1).unwrap_or_default();
        at = end;
        // Only a name comes before a colon.
        if text.get(end) == Some(&b':') {
            let value = end + 1..value_end(text, end + 1);
            let known = NAMES.iter().position(|(.., known)| known.as_bytes() == name);
            if let Some(found) = known.and_then(|known| found.get_mut(known)) {
                at = value.end;
                *found = value;
            }
        }
    }
    found
}

/// The end of a text, a list of texts, or null.
fn value_end(text: &[u8], start: usize) -> usize {
    match text.get(start) {
        Some(b'"') => string_end(text, start),
        Some(b'[') => {
            let mut at = start + 1;
            while let Some(byte) = text.get(at) {
                at = match byte {
                    b']' => return at + 1,
                    b'"' => string_end(text, at),
                    _ => at + 1,
                };
            }
            at
        }
        _ => start,
    }
}

/// The place behind the closing quote of the string that begins at `start`.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of the longest beginning of at most so many bytes of what stands in a JSON string that ends behind a
/// whole character or escape.
pub(super) fn prefix(content: &[u8], most: usize) -> usize {
    let mut end = 0;
    while let Some(byte) = content.get(end) {
        let step = match byte {
            b'\\' if content.get(end + 1) == Some(&b'u') => 6,
            b'\\' | 0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0.. => 4,
            _ => 1,
        };
        if end + step > most {
            break;
        }
        end += step;
    }
    end
}

/// The same for the strings of a list: as many as fit.
fn whole_entries(content: &[u8], most: usize) -> usize {
    let (mut kept, mut at) = (0, 0);
    while at < content.len() {
        let end = string_end(content, at);
        if end > most {
            break;
        }
        kept = end;
        // Behind the comma.
        at = end + 1;
    }
    kept
}

/// The longest beginning of at most so many bytes that ends no character in its middle: replacing what is not UTF-8
/// makes a beginning of it of the whole that it makes of all bytes.
pub(super) fn raw_prefix(bytes: &[u8], most: usize) -> &[u8] {
    let continues = |at: usize| matches!(bytes.get(at), Some(0x80..=0xbf));
    // Of four such bytes the last belongs to no character.
    let back = (0..4).find(|back| !continues(most.saturating_sub(*back))).unwrap_or(0);
    bytes.get(..most.saturating_sub(back)).unwrap_or(bytes)
}
