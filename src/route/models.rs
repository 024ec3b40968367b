//! Hygiene against slow, obvious models of everyone who reads a path: Go's `net/url` and gorilla/mux as each
//! backend uses them, and nginx. Whatever is allowed must have one scope for all of them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "built for tests and fuzzing alone"
)]

use super::*;
use crate::scope::Backend;
use proptest::prelude::*;

/// Percent-decodes; None for a broken escape.
fn unescape(raw: &[u8]) -> Option<Vec<u8>> {
    match raw {
        [] => Some(Vec::new()),
        [b'%', high, low, rest @ ..] => {
            let digits = std::str::from_utf8(&[*high, *low]).ok().filter(|d| !d.contains('+'))?.to_owned();
            let byte = u8::from_str_radix(&digits, 16).ok()?;
            Some([vec![byte], unescape(rest)?].concat())
        }
        [b'%', ..] => None,
        [byte, rest @ ..] => Some([vec![*byte], unescape(rest)?].concat()),
    }
}

fn escape(text: &[u8], keep: impl Fn(u8) -> bool) -> Vec<u8> {
    let escaped = |byte: &u8| if keep(*byte) { vec![*byte] } else { format!("%{byte:02X}").into_bytes() };
    text.iter().flat_map(escaped).collect()
}

/// Go's `URL.EscapedPath`: the raw form if its bytes are all ones that may stand there, else a new encoding of
/// the decoded one.
fn go_escaped_path(raw: &[u8]) -> Option<Vec<u8>> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte);
    let valid = |byte: u8| plain(byte) || b"!'()*[]%".contains(&byte);
    let decoded = unescape(raw)?;
    Some(if raw.iter().all(|byte| valid(*byte)) { raw.to_vec() } else { escape(&decoded, plain) })
}

/// nginx's `$uri`: decoded, slashes merged, dots resolved; None where nginx answers 400.
pub(crate) fn nginx_uri(raw: &[u8]) -> Option<Vec<u8>> {
    if !raw.starts_with(b"/") {
        return None;
    }
    // A raw `#` ends the path, an encoded one does not.
    let decoded = unescape(raw.split(|byte| *byte == b'#').next()?)?;
    if decoded.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut directory = true;
    for part in decoded.split(|byte| *byte == b'/') {
        directory = matches!(part, b"" | b"." | b"..");
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    let mut uri: Vec<u8> = parts.into_iter().flat_map(|part| [b"/", part].concat()).collect();
    if directory {
        uri.push(b'/');
    }
    Some(uri)
}

/// What a `proxy_pass` with a path, or any after a `rewrite`, sends for a `$uri`: `NGX_ESCAPE_URI`.
fn nginx_sends(uri: &[u8]) -> Vec<u8> {
    escape(uri, |byte| byte > b' ' && byte < 0x7f && !b"#%?".contains(&byte))
}

/// Whether `segment` is what one segment of a pattern stands for.
fn segment_matches(pattern: &str, segment: &[u8]) -> bool {
    match pattern.split_once('{') {
        None => pattern.as_bytes() == segment,
        Some((start, _)) => segment.starts_with(start.as_bytes()) && segment.len() > start.len(),
    }
}

/// How many segments of the path are literal in the pattern; None where it does not match.
fn literal_segments(pattern: &str, path: &[u8]) -> Option<usize> {
    let wanted: Vec<&str> = pattern.split('/').collect();
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let rest = wanted.last() == Some(&"{rest}");
    let compared = if rest { wanted.len() - 1 } else { wanted.len() };
    if segments.len() < wanted.len() || (!rest && segments.len() != wanted.len()) {
        return None;
    }
    let all = wanted.iter().zip(&segments).take(compared).all(|(want, have)| segment_matches(want, have));
    all.then(|| 2 * wanted.iter().filter(|want| !want.contains('{')).count() + usize::from(!rest))
}

/// What a router that sees `path` runs: the scope of the most literal row that serves the method. The outer
/// None is 404.
fn router(backend: Backend, method: &str, path: &[u8]) -> Option<(Option<Scope>, bool)> {
    table()
        .filter(|row| row.backend == backend && (row.method == method || row.method == "*"))
        .filter_map(|row| Some((literal_segments(row.pattern, path)?, row.method == method, row)))
        .max_by_key(|(literal, exact, _)| (*literal, *exact))
        .map(|(_, _, row)| (row.scope, row.tail))
}

/// What the backend runs for a path on the wire; None for 404 or 400.
fn backend_runs(backend: Backend, method: &str, wire: &[u8]) -> Option<(Option<Scope>, bool)> {
    if !wire.starts_with(b"/") || wire.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return None;
    }
    // The query and what follows are not the path's.
    let path = wire.split(|byte| *byte == b'?').next()?;
    let seen = if backend == Backend::Mimir { go_escaped_path(path)? } else { unescape(path)? };
    router(backend, method, &seen)
}

/// Decides the request as nginx would hand it over, and holds an allowed one against every reader. Whether it
/// was allowed.
pub(crate) fn one_reading(backend: Backend, method: &str, raw: &[u8]) -> Result<bool, TestCaseError> {
    let text = String::from_utf8_lossy(raw);
    let Some(uri) = nginx_uri(raw) else { return Ok(false) };
    let Ok(route) = route(BackendSet::of(backend), "", method.as_bytes(), raw, &uri, None) else {
        return Ok(false);
    };
    let promised = Some((Some(route.scope), route.tail));
    prop_assert_eq!(backend_runs(backend, method, raw), promised, "{} as it came", text);
    let sent = nginx_sends(&uri);
    let runs = backend_runs(backend, method, &sent);
    let slash_lost = raw.windows(3).any(|text| text.eq_ignore_ascii_case(b"%2f"));
    // A lost slash may lead nowhere, never elsewhere.
    prop_assert!(runs == promised || (slash_lost && runs.is_none()), "{text} sent as {sent:?} runs {runs:?}");
    prop_assert!(!slash_lost || backend == Backend::Mimir, "{text}");
    // A `proxy_pass` with `$uri` or a capture sends it as it is. A blank then ends the target, and what follows is no
    // version: 400.
    let runs = if uri.contains(&b' ') { None } else { backend_runs(backend, method, &uri) };
    prop_assert!(runs == promised || runs.is_none(), "{text} sent unescaped runs {runs:?}");
    // Nor may the table of all backends, if it allows the request, see anything else in it.
    if let Ok(any) = super::route(BackendSet::ALL, "", method.as_bytes(), raw, &uri, None) {
        prop_assert_eq!((any.scope, any.tail), (route.scope, route.tail));
    }
    Ok(true)
}

/// Decides a request of a server with `path_prefix`, and holds an allowed one against each backend, if it gets the path as
/// it came, prefix and all.
pub(crate) fn one_reading_below(
    prefix: &str,
    backends: BackendSet,
    method: &str,
    raw: &[u8],
) -> Result<(), TestCaseError> {
    let Ok(route) = route_raw(backends, prefix, method.as_bytes(), raw, None) else { return Ok(()) };
    let promised = Some((Some(route.scope), route.tail));
    for backend in backends.iter().filter(|_| !prefix.is_empty()) {
        let (runs, text) = (backend_runs(backend, method, raw), String::from_utf8_lossy(raw));
        prop_assert!(
            runs.is_none() || runs == promised,
            "{prefix} kept in {text}: {backend:?} runs {runs:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
