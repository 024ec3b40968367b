//! Who may sign tokens, and which headers carry them.

use super::{IssuerEntry, KeysEntry, boxed, check_name, plain_text, refuse_empty, required};
use crate::fetch::{InvalidUrl, check_url};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::node::{Node, Value};
use crate::policy::reader::{At, Fields};

pub(super) fn read_issuers(fields: &Fields<'_>, problems: &mut Problems) -> Vec<IssuerEntry> {
    let Some(node) = required(fields, "issuers", &Path::Root, problems) else { return Vec::new() };
    let path = Path::Root.key("issuers");
    let items = problems.items(node, &path);
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        problems
            .error(node.place, &path, "no issuer: nobody could sign a token")
            .help("name the issuer of your users' tokens");
    }
    let mut issuers = Vec::new();
    for (number, item) in items.iter().enumerate() {
        issuers.extend(read_issuer(item, number, &path.item(number), problems));
    }
    issuers
}

/// The keys of an issuer that this version serves.
pub(in crate::policy) const SERVED: [&str; 13] = [
    "name",
    "issuer",
    "audiences",
    "jwks_url",
    "jwks_file",
    "jwks",
    "ca_file",
    "algorithms",
    "groups_claim",
    "groups_format",
    "user_claim",
    "leeway",
    "bare_groups",
];

pub(super) fn read_issuer(
    node: &Node,
    number: usize,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<IssuerEntry> {
    let fields = problems.fields(node, path, &SERVED)?;
    let text = |name: &str, problems: &mut Problems| {
        let node = fields.get(name)?;
        problems.text(node, &path.key(name)).map(boxed)
    };
    let name = text("name", problems);
    if let Some(name) = &name {
        check_name(name, &path.key("name"), problems);
    }
    let issuer = required(&fields, "issuer", path, problems)
        .and_then(|node| problems.text(node, &path.key("issuer")))
        .map(boxed);
    let audiences = match required(&fields, "audiences", path, problems) {
        Some(node) => {
            let path = path.key("audiences");
            let audiences = problems.list_of(node, &path, plain_text);
            refuse_empty(node, &path, problems);
            audiences
        }
        None => Vec::new(),
    };
    let algorithms = match fields.get("algorithms") {
        Some(node) => {
            let path = path.key("algorithms");
            refuse_empty(node, &path, problems);
            problems.list_of(node, &path, plain_text)
        }
        None => Vec::new(),
    };
    let bare_groups = fields
        .get("bare_groups")
        .and_then(|node| problems.boolean(node, &path.key("bare_groups")))
        .filter(|bare| *bare)
        .and_then(|_| fields.key_place("bare_groups"));
    let keys = read_keys(&fields, issuer.as_ref(), path, problems);
    Some(IssuerEntry {
        number,
        name,
        issuer: issuer?,
        audiences,
        keys,
        algorithms,
        groups_claim: read_groups_claim(&fields, path, problems),
        groups_claim_is_list: fields
            .get("groups_claim")
            .is_some_and(|node| matches!(node.value, Value::List(_))),
        groups_format: text("groups_format", problems),
        user_claim: text("user_claim", problems).map(|text| text.value),
        leeway: fields.get("leeway").map_or(60, |node| read_leeway(node, &path.key("leeway"), problems)),
        bare_groups,
    })
}

/// One claim, or a list of claims whose groups are united.
fn read_groups_claim(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems) -> Vec<At<Box<str>>> {
    let Some(node) = fields.get("groups_claim") else { return Vec::new() };
    let path = path.key("groups_claim");
    match &node.value {
        Value::List(_) => {
            refuse_empty(node, &path, problems);
            let claims = problems.list_of(node, &path, plain_text);
            for (count, claim) in claims.iter().enumerate() {
                if claims.iter().take(count).any(|other| other.value == claim.value) {
                    problems
                        .error(
                            claim.place,
                            &path.item(claim.number),
                            format!("`{}` is listed twice", claim.value),
                        )
                        .help("remove one of them");
                }
            }
            claims
        }
        Value::Text(_) => problems.text(node, &path).map(boxed).into_iter().collect(),
        _ => {
            problems.wrong_type(node, &path, "a string or a list of strings");
            Vec::new()
        }
    }
}

/// Where the keys come from: one of three keys says so, or OpenID discovery at the issuer does.
fn read_keys(
    fields: &Fields<'_>,
    issuer: Option<&At<Box<str>>>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> KeysEntry {
    const SOURCES: [&str; 3] = ["jwks_url", "jwks_file", "jwks"];
    let mut given = SOURCES.into_iter().filter(|name| fields.get(name).is_some());
    let source = given.next();
    for other in given {
        if let (Some(first), Some(place)) = (source, fields.key_place(other)) {
            problems
                .error(place, &path.key(other), format!("`{first}` and `{other}` exclude each other"))
                .help("keep one of them");
        }
    }
    let ca_file = fields.get("ca_file").and_then(|node| problems.text(node, &path.key("ca_file"))).map(boxed);
    if let (Some(file), Some("jwks_file" | "jwks")) = (&ca_file, source) {
        problems
            .error(file.place, &path.key("ca_file"), "the keys of this issuer are not fetched")
            .help("remove it, or name the address of the keys: `jwks_url: https://...`");
    }
    let Some((name, node)) = source.and_then(|name| Some((name, fields.get(name)?))) else {
        return discovered(issuer, ca_file, path, problems);
    };
    let path = path.key(name);
    if name == "jwks" {
        if !matches!(node.value, Value::Map(_)) {
            problems.wrong_type(node, &path, "a mapping");
            return KeysEntry::Missing;
        }
        return KeysEntry::Inline(At::new(node.to_json(), node.place));
    }
    let Some(text) = problems.text(node, &path).map(boxed) else { return KeysEntry::Missing };
    if name == "jwks_file" {
        return KeysEntry::File(text);
    }
    if let Err(why) = check_url(&text.value) {
        problems
            .error(text.place, &path, format!("`{}` {why}", text.value.escape_debug()))
            .help("write `https://host/path`; plain http is for a loopback address only");
    }
    KeysEntry::Fetched { url: Some(text.value), ca_file }
}

/// OpenID Connect Discovery 1.0 section 4: the issuer is the address at which it describes itself.
fn discovered(
    issuer: Option<&At<Box<str>>>,
    ca_file: Option<At<Box<str>>>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> KeysEntry {
    let Some(issuer) = issuer else { return KeysEntry::Missing };
    let fit = check_url(&issuer.value)
        .and_then(|()| if issuer.value.contains('?') { Err(InvalidUrl::Query) } else { Ok(()) });
    if let Err(why) = fit {
        problems
            .error(
                issuer.place,
                &path.key("issuer"),
                format!("`{}` {why}: the keys cannot be discovered there", issuer.value.escape_debug()),
            )
            .help("say where they are: `jwks_url: https://...` or `jwks_file: /etc/tenantauth/jwks.json`");
    }
    KeysEntry::Fetched { url: None, ca_file }
}

/// `90s`, `2m`: at most five minutes.
pub(super) fn read_leeway(node: &Node, path: &Path<'_>, problems: &mut Problems) -> u64 {
    const DEFAULT: u64 = 60;
    let written = match &node.value {
        Value::Number(written) => written,
        Value::Text(text) => text,
        Value::Refused => return DEFAULT,
        _ => "",
    };
    let (digits, unit) = match written.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (written.strip_suffix('s').unwrap_or_default(), 1),
    };
    let seconds = Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|count| count.checked_mul(unit));
    match seconds {
        Some(seconds @ 0..=300) => seconds,
        Some(_) => {
            problems
                .error(node.place, path, format!("`{written}` is more than 5 minutes"))
                .help("write at most `5m`");
            DEFAULT
        }
        None => {
            problems
                .error(node.place, path, "expected a duration in seconds or minutes")
                .help("write `60s` or `2m`");
            DEFAULT
        }
    }
}

pub(super) fn read_token_headers(fields: &Fields<'_>, problems: &mut Problems) -> Vec<At<Box<str>>> {
    let path = Path::Root.key("token_headers");
    let Some(node) = fields.get("token_headers") else {
        return vec![At::new("X-Id-Token".into(), fields.place)];
    };
    refuse_empty(node, &path, problems);
    let headers = problems.list_of(node, &path, |problems, text, path| header_name(text, path, problems));
    for (count, header) in headers.iter().enumerate() {
        let twice = headers.iter().take(count).any(|other| other.value.eq_ignore_ascii_case(&header.value));
        if twice {
            problems
                .error(header.place, &path.item(header.number), format!("`{}` is listed twice", header.value))
                .help("remove one of them");
        }
    }
    headers
}

/// RFC 9110 section 5.1, less the characters that nginx drops from names by default.
pub(super) fn header_name(text: At<&str>, path: &Path<'_>, problems: &mut Problems) -> Option<Box<str>> {
    let grammatical =
        !text.value.is_empty() && text.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let taken = ["x-scope-orgid", "cookie", "host", "upgrade", "connection", "content-length"];
    if !grammatical {
        problems
            .error(text.place, path, format!("`{}` is no header name", text.value))
            .help("letters, digits and `-`: nginx drops other names");
        return None;
    }
    if taken.contains(&text.value.to_ascii_lowercase().as_str()) {
        problems
            .error(text.place, path, format!("`{}` has another meaning", text.value))
            .help("name a header of its own");
        return None;
    }
    Some(text.value.into())
}
