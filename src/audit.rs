//! One decided request -> the members of one JSON object, which nginx's `access_log` completes and writes.
//!
//! A record has a length that the policy bounds (`budget`): a log that is a pipe or a datagram keeps whole only what is
//! short, and whoever can make a record longer could tear those of others, or hide their own.
//!
//! Redaction lives here: nothing that came in a header is written but the tenants (grammatical ones), what a
//! verified token says, and what Grafana claims about a dashboard.

mod budget;

use crate::client_ip::ClientIp;
use crate::decision::Decision;
use crate::policy::snapshot::{QueryAudit, Snapshot};
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use crate::tenant::TenantList;
use crate::text::is_hidden;
use crate::token::claims::Identity;
use budget::{Cuts, Key};
pub use budget::{LIMIT_VARIABLE, limit_problem};
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

/// Longest method that a record keeps, in bytes as they came: each registered one is shorter.
const MAX_METHOD: usize = 64;
/// Longest claimed header that a record keeps, in bytes as they came.
const MAX_CLAIMED: usize = 256;
/// Longest issuer, subject, user or token id, in bytes as a record writes them. A `sub` has 255 characters at most
/// (OpenID Connect Core section 2), and escaped ASCII takes twice as much.
const MAX_IDENTITY: usize = 512;
/// What stands at the end of a record of which nothing was cut.
const NOT_TRUNCATED: &str = ",\"truncated\":null";

/// The members that describe who asked, where that is not known.
const NOBODY: &str = r#""issuer":null,"subject":null,"user":null,"token_id":null,"groups":null"#;

/// A text that is put together from pieces, each of them UTF-8: bytes, so that nothing is checked to be text twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// The bytes, which are UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes everything away and keeps the room.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn push_str(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn push(&mut self, character: char) {
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() => self.0.push(byte),
            _ => self.push_str(character.encode_utf8(&mut [0; 4])),
        }
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

/// What of a principal stands in its records. Rendered once a token, since it is the same in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalMembers {
    json: Box<[u8]>,
    cuts: Cuts,
}

impl PrincipalMembers {
    /// Renders a service account: the issuer is `service`, the subject its name, and nothing is known of a user.
    pub fn of_service<'g>(name: &str, groups: impl Iterator<Item = &'g str>) -> Self {
        let mut out = Text::default();
        let mut cuts = Cuts::NONE;
        out.push_str("\"issuer\":\"service\",\"subject\":");
        push_identity(&mut out, name, Key::Subject, &mut cuts);
        out.push_str(",\"user\":null,\"token_id\":null,\"groups\":");
        push_list(&mut out, groups);
        Self { json: out.0.into(), cuts }
    }

    /// Renders issuer, subject, user, token id and those groups that the policy names.
    pub fn of_user<'g>(issuer: &str, identity: &Identity, groups: impl Iterator<Item = &'g str>) -> Self {
        let mut out = Text::default();
        let cuts = push_user(&mut out, issuer, identity);
        push_list(&mut out, groups);
        Self { json: out.0.into(), cuts }
    }

    /// Renders whom a token was made for that proves nothing: which groups are its holder's was not asked.
    #[cold]
    pub fn of_refused(issuer: &str, identity: &Identity) -> Self {
        let mut out = Text::default();
        let cuts = push_user(&mut out, issuer, identity);
        out.push_str("null");
        Self { json: out.0.into(), cuts }
    }
}

/// Appends everything of a user but the value of `groups`.
fn push_user(out: &mut Text, issuer: &str, identity: &Identity) -> Cuts {
    let mut cuts = Cuts::NONE;
    out.push_str("\"issuer\":");
    push_identity(out, issuer, Key::Issuer, &mut cuts);
    for (name, key, value) in [
        (",\"subject\":", Key::Subject, identity.subject.as_deref().or(identity.object_id.as_deref())),
        (",\"user\":", Key::User, identity.user.as_deref()),
        (",\"token_id\":", Key::TokenId, identity.token_id.as_deref()),
    ] {
        out.push_str(name);
        match value {
            Some(value) => push_identity(out, value, key, &mut cuts),
            None => out.push_str("null"),
        }
    }
    out.push_str(",\"groups\":");
    cuts
}

/// Appends a text of at most [`MAX_IDENTITY`] bytes between its quotes.
fn push_identity(out: &mut Text, value: &str, key: Key, cuts: &mut Cuts) {
    let start = out.0.len() + 1;
    push_text(out, value.as_bytes());
    let content = out.0.get(start..out.0.len() - 1).unwrap_or_default();
    if content.len() > MAX_IDENTITY {
        let kept = budget::prefix(content, MAX_IDENTITY);
        out.0.truncate(start + kept);
        out.push('"');
        cuts.insert(key);
    }
}

/// The context that Grafana claims in headers, unproven.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct GrafanaContext<'a> {
    pub dashboard: Option<&'a [u8]>,
    pub panel: Option<&'a [u8]>,
    pub rule: Option<&'a [u8]>,
    pub org: Option<&'a [u8]>,
}

/// Everything a record says. What is not known is `None`.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are the keys of the contract's section 10")]
pub struct Record<'a> {
    pub decision: &'a Decision,
    /// The whole gateway only records: `decision` is what it would have been.
    pub shadow_mode: bool,
    pub snapshot: Option<&'a Snapshot>,
    pub principal: Option<&'a PrincipalMembers>,
    pub tenants: Option<&'a TenantList<'a>>,
    pub scope: Option<Scope>,
    pub backends: BackendSet,
    pub method: &'a [u8],
    pub path: &'a [u8],
    pub query: Option<&'a [u8]>,
    pub client_ip: Option<ClientIp>,
    pub client_ip_source: Option<&'a str>,
    pub peer: &'a [u8],
    pub upgrade: bool,
    pub grafana: GrafanaContext<'a>,
}

/// The time of a record. Formatting a date costs more than the rest of a record, so that of a second is kept.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    now: Duration,
    second: u64,
    /// That second without its `Z`.
    text: String,
}

impl Clock {
    /// Sets the time of the next record: the time since the Unix epoch.
    pub fn set(&mut self, now: Duration) {
        self.now = now;
    }

    /// Appends the time in UTC as RFC 3339 with milliseconds.
    fn push_to(&mut self, out: &mut Text) {
        let second = self.now.as_secs();
        if self.second != second || self.text.is_empty() {
            self.format(second);
        }
        out.push_str(&self.text);
        let milliseconds = self.now.subsec_millis();
        let digit = |number: u32| b'0' + number.to_le_bytes()[0] % 10;
        let [tens, hundreds] = [10, 100].map(|divisor| digit(milliseconds / divisor % 10));
        out.0.extend_from_slice(&[b'.', hundreds, tens, digit(milliseconds % 10), b'Z']);
    }

    #[cold]
    fn format(&mut self, second: u64) {
        let time = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
        self.text = time.unwrap_or_default().to_string().trim_end_matches('Z').to_owned();
        self.second = second;
    }
}

/// Writes the members of the record, without braces, in place of what `out` held; `time` and `decision` come first, and
/// `truncated` last. With what nginx adds they are at most as long as the policy says. `hash`: what is written for a
/// query of which the policy wants the hash alone, in hexadecimal digits.
pub fn render(out: &mut Text, record: &Record<'_>, clock: &mut Clock, hash: impl FnOnce(&[u8]) -> String) {
    out.clear();
    let room = budget::room(record.snapshot);
    let shortened;
    let (record, cuts) = if is_long(record, room) {
        shortened = shorten(record, room);
        (&shortened.0, shortened.1)
    } else {
        (record, Cuts::NONE)
    };
    push_members(out, record, clock, hash);
    if cuts != Cuts::NONE || out.0.len() + NOT_TRUNCATED.len() > room {
        budget::fit(&mut out.0, room, cuts, kept_query(record) == QueryAudit::Full);
    } else {
        out.push_str(NOT_TRUNCATED);
    }
}

/// Whether a part of the record has to be cut before it is escaped; or may have to be, which is as good.
fn is_long(record: &Record<'_>, room: usize) -> bool {
    let GrafanaContext { dashboard, panel, rule, org } = record.grafana;
    let is_long_claim = |claim: Option<&[u8]>| claim.is_some_and(|claim| claim.len() > MAX_CLAIMED);
    // Escaping makes no text shorter.
    record.path.len() + record.query.map_or(0, <[u8]>::len) > room
        || record.method.len() > MAX_METHOD
        || [dashboard, panel, rule, org].into_iter().any(is_long_claim)
        || record.principal.is_some_and(|principal| principal.cuts != Cuts::NONE)
}

/// The record with parts that are no longer than they may be before they are escaped, and which of them were cut.
#[cold]
fn shorten<'a>(record: &Record<'a>, room: usize) -> (Record<'a>, Cuts) {
    let mut cuts = record.principal.map_or(Cuts::NONE, |principal| principal.cuts);
    let mut cut = |key: Key, bytes: &'a [u8], most: usize| {
        if bytes.len() > most {
            cuts.insert(key);
        }
        budget::raw_prefix(bytes, most)
    };
    let method = cut(Key::Method, record.method, MAX_METHOD);
    let path = cut(Key::Path, record.path, room);
    // All of it is hashed.
    let query = match kept_query(record) {
        QueryAudit::Full => record.query.map(|query| cut(Key::Query, query, room)),
        QueryAudit::Hash | QueryAudit::None => record.query,
    };
    let mut claimed = |key, claim: Option<&'a [u8]>| claim.map(|claim| cut(key, claim, MAX_CLAIMED));
    let grafana = GrafanaContext {
        dashboard: claimed(Key::Dashboard, record.grafana.dashboard),
        panel: claimed(Key::Panel, record.grafana.panel),
        rule: claimed(Key::Rule, record.grafana.rule),
        org: claimed(Key::Org, record.grafana.org),
    };
    (Record { method, path, query, grafana, ..*record }, cuts)
}

/// Appends every member but `truncated`.
fn push_members(out: &mut Text, record: &Record<'_>, clock: &mut Clock, hash: impl FnOnce(&[u8]) -> String) {
    let decision = record.decision;
    out.push_str("\"time\":\"");
    clock.push_to(out);
    out.push_str("\",\"decision\":\"");
    if record.shadow_mode {
        out.push_str("allow\",\"reason\":\"granted\",\"mode\":\"shadow\",\"shadow\":");
        push_shadow(out, decision.effect(), decision.reason());
    } else {
        out.push_str(decision.effect());
        out.push_str("\",\"reason\":\"");
        out.push_str(decision.reason().name());
        out.push_str("\",\"mode\":\"enforce\",\"shadow\":");
        match decision.shadow {
            Some(shadow) => push_shadow(out, "deny", shadow.reason),
            None => out.push_str("null"),
        }
    }
    out.push(',');
    out.0.extend_from_slice(record.principal.map_or(NOBODY.as_bytes(), |principal| &principal.json));
    out.push_str(",\"tenants\":");
    match record.tenants {
        // The grammar holds nothing that JSON escapes.
        Some(tenants) => {
            for (number, tenant) in tenants.iter().enumerate() {
                out.push_str(if number == 0 { "[\"" } else { "\",\"" });
                out.push_str(tenant);
            }
            out.push_str("\"]");
        }
        None => out.push_str("null"),
    }
    out.push_str(",\"scope\":");
    push_name(out, record.scope.map(Scope::name));
    let grant = record
        .snapshot
        .zip(decision.grant)
        .and_then(|(snapshot, grant)| snapshot.grants.get(usize::try_from(grant).ok()?));
    out.push_str(",\"grant\":");
    push_optional(out, grant.map(|grant| grant.name.as_bytes()));
    let restriction = decision.restriction.or(decision.shadow.map(|shadow| shadow.restriction));
    let restriction = record
        .snapshot
        .zip(restriction)
        .and_then(|(snapshot, restriction)| snapshot.restrictions.get(usize::try_from(restriction).ok()?));
    out.push_str(",\"restriction\":");
    push_optional(out, restriction.map(|restriction| restriction.name.as_bytes()));
    // Whose rule had the last word.
    let owner = match (decision.is_allow(), grant, restriction) {
        (true, Some(grant), _) => grant.owner,
        (_, _, Some(restriction)) => restriction.owner,
        _ => None,
    };
    let owner = record.snapshot.and_then(|snapshot| match (decision.reason(), record.tenants) {
        // Whose rules are missing.
        (Reason::PolicyUnavailable, Some(tenants)) => {
            snapshot.unavailable_owner(tenants).map(|owner| &*owner.name)
        }
        _ => snapshot.owner_name(owner),
    });
    out.push_str(",\"owner\":");
    push_optional(out, owner.map(str::as_bytes));
    out.push_str(",\"backend\":\"");
    out.push_str(record.backends.label());
    out.push_str("\",\"method\":");
    push_text(out, record.method);
    out.push_str(",\"path\":");
    push_text(out, record.path);
    out.push_str(",\"query\":");
    push_query(out, record, hash);
    out.push_str(",\"client_ip\":");
    match record.client_ip {
        Some(client_ip) => push_address(out, client_ip.addr()),
        None => out.push_str("null"),
    }
    out.push_str(",\"client_ip_source\":");
    push_name(out, record.client_ip_source);
    out.push_str(",\"peer\":");
    push_text(out, record.peer);
    out.push_str(if record.upgrade { ",\"upgrade\":true" } else { ",\"upgrade\":false" });
    out.push_str(",\"policy_revision\":");
    push_name(out, record.snapshot.map(|snapshot| &*snapshot.revision));
    out.push_str(",\"denied_tenant\":");
    // The grammar holds nothing that JSON escapes.
    push_name(out, record.tenants.and_then(|tenants| decision.denied_tenant(tenants)));
    for (key, value) in [
        (",\"grafana\":{\"dashboard\":", record.grafana.dashboard),
        (",\"panel\":", record.grafana.panel),
        (",\"rule\":", record.grafana.rule),
        (",\"org\":", record.grafana.org),
    ] {
        out.push_str(key);
        push_optional(out, value);
    }
    out.push('}');
}

/// What would have been, had it been applied.
fn push_shadow(out: &mut Text, effect: &str, reason: Reason) {
    // The writer is a string: it does not fail.
    _ = write!(out, r#"{{"decision":"{effect}","reason":"{reason}"}}"#);
}

/// How much of the query the record keeps. Without a policy nobody has allowed any.
fn kept_query(record: &Record<'_>) -> QueryAudit {
    record.snapshot.map_or(QueryAudit::None, |snapshot| snapshot.audit.query)
}

fn push_query(out: &mut Text, record: &Record<'_>, hash: impl FnOnce(&[u8]) -> String) {
    match (record.query, kept_query(record)) {
        (None, _) | (_, QueryAudit::None) => out.push_str("null"),
        (Some(query), QueryAudit::Full) => push_text(out, query),
        (Some(query), QueryAudit::Hash) => {
            out.push_str("\"hmac-sha256:");
            out.push_str(&hash(query));
            out.push('"');
        }
    }
}

/// An address in quotes. IPv4 digit by digit: the formatting machinery costs more than the rest of a record.
fn push_address(out: &mut Text, address: IpAddr) {
    out.push('"');
    match address {
        IpAddr::V4(v4) => {
            for (number, octet) in v4.octets().into_iter().enumerate() {
                if number > 0 {
                    out.push('.');
                }
                for divisor in [100, 10, 1] {
                    if octet >= divisor || divisor == 1 {
                        out.push(char::from(b'0' + octet / divisor % 10));
                    }
                }
            }
        }
        IpAddr::V6(v6) => _ = write!(out, "{v6}"),
    }
    out.push('"');
}

/// A name of ours, which needs no escaping.
fn push_name(out: &mut Text, name: Option<&str>) {
    match name {
        Some(name) => {
            out.push('"');
            out.push_str(name);
            out.push('"');
        }
        None => out.push_str("null"),
    }
}

fn push_optional(out: &mut Text, value: Option<&[u8]>) {
    match value {
        Some(value) => push_text(out, value),
        None => out.push_str("null"),
    }
}

fn push_list<'t>(out: &mut Text, texts: impl Iterator<Item = &'t str>) {
    out.push('[');
    for (number, text) in texts.enumerate() {
        if number > 0 {
            out.push(',');
        }
        push_text(out, text.as_bytes());
    }
    out.push(']');
}

/// Whether JSON shows these bytes as they are: printable ASCII, neither `"` nor `\`. Eight at a time, and the last eight
/// once more, since most texts are short.
fn is_plain(bytes: &[u8]) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if let Some(last) = bytes.last_chunk::<8>() {
        let (words, _) = bytes.as_chunks::<8>();
        let plain = |word: &[u8; 8]| are_plain(u64::from_le_bytes(*word));
        return words.iter().fold(plain(last), |all, word| all & plain(word));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let [first, last] = [first, last].map(|half| u64::from(u32::from_le_bytes(*half)));
        return are_plain(first | last << 32);
    }
    bytes.iter().fold(true, |all, byte| all & plain(*byte))
}

/// The same for the eight bytes of a word at once: each sets its highest bit where it passes.
const fn are_plain(word: u64) -> bool {
    const EACH: u64 = u64::MAX / 255;
    const HIGHEST: u64 = EACH * 0x80;
    // Without their highest bits no sum of bytes carries into the next byte.
    let ascii = word & !HIGHEST;
    let from_space = ascii + EACH * (0x80 - 0x20);
    let is_delete = ascii + EACH;
    let is_no_quote = (ascii ^ (EACH * 0x22)) + EACH * 0x7f;
    let is_no_backslash = (ascii ^ (EACH * 0x5c)) + EACH * 0x7f;
    from_space & !is_delete & is_no_quote & is_no_backslash & !word & HIGHEST == HIGHEST
}

/// Appends any bytes as a JSON string: what is not UTF-8 replaced, on one line.
fn push_text(out: &mut Text, bytes: &[u8]) {
    if is_plain(bytes) {
        out.push('"');
        out.0.extend_from_slice(bytes);
        out.push('"');
    } else {
        push_escaped(out, bytes);
    }
}

#[cold]
fn push_escaped(out: &mut Text, bytes: &[u8]) {
    out.push('"');
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            hidden if is_hidden(hidden) => push_escape(out, hidden),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Appends a character of the basic plane as the JSON escape of its four digits. Without the formatting machinery: a
/// client can send a request that consists of such characters alone.
fn push_escape(out: &mut Text, character: char) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from_digit((u32::from(character) >> shift) & 0xf, 16).unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests;
