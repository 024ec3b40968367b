//! Who may sign tokens, and which headers carry them.

use super::{
    IssuerEntry, KeysEntry, UNSERVED_ISSUER, boxed, check_name, plain_text, refuse_empty, refuse_unserved,
    required,
};
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
    if let Some(second) = items.get(1) {
        problems
            .error(second.place, &path.item(1), "several issuers are not supported by this version")
            .help("keep one issuer");
    }
    let mut issuers = Vec::new();
    for (number, item) in items.iter().enumerate() {
        issuers.extend(read_issuer(item, number, &path.item(number), problems));
    }
    issuers
}

/// The keys of an issuer that this version serves.
pub(in crate::policy) const SERVED: [&str; 10] = [
    "name",
    "issuer",
    "audiences",
    "jwks_file",
    "jwks",
    "algorithms",
    "groups_claim",
    "groups_format",
    "user_claim",
    "leeway",
];

pub(super) fn read_issuer(
    node: &Node,
    number: usize,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<IssuerEntry> {
    let known = [&SERVED[..], &UNSERVED_ISSUER].concat();
    let fields = problems.fields(node, path, &known)?;
    refuse_unserved(&fields, path, &UNSERVED_ISSUER, problems);
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
    let keys = read_keys(&fields, path, problems);
    Some(IssuerEntry {
        number,
        name,
        issuer: issuer?,
        audiences,
        keys,
        algorithms,
        groups_claim: text("groups_claim", problems),
        groups_format: text("groups_format", problems),
        user_claim: text("user_claim", problems).map(|text| text.value),
        leeway: fields.get("leeway").map_or(60, |node| read_leeway(node, &path.key("leeway"), problems)),
    })
}

pub(super) fn read_keys(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems) -> KeysEntry {
    let (file, inline) = (fields.get("jwks_file"), fields.get("jwks"));
    if let (Some(_), Some(place)) = (file, fields.key_place("jwks")) {
        problems
            .error(place, &path.key("jwks"), "`jwks` and `jwks_file` exclude each other")
            .help("keep one of them");
    }
    if let Some(node) = file
        && let Some(text) = problems.text(node, &path.key("jwks_file"))
    {
        return KeysEntry::File(boxed(text));
    }
    if let Some(node) = inline {
        if !matches!(node.value, Value::Map(_)) {
            problems.wrong_type(node, &path.key("jwks"), "a mapping");
            return KeysEntry::Missing;
        }
        return KeysEntry::Inline(At::new(node.to_json(), node.place));
    }
    if file.is_none() && fields.get("jwks_url").is_none() {
        problems
            .error(
                fields.place,
                &path.key("jwks_file"),
                "OpenID discovery of the keys is not supported by this version",
            )
            .help("name a file that holds the issuer's JWKS: `jwks_file: /etc/tenantauth/jwks.json`");
    }
    KeysEntry::Missing
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
