//! The options of the module's functions, as `lua/tenantauth/*.lua` takes them: a test holds both against each other.

use super::lua::{Call, Entry, Value};
use crate::client_ip::cookie;
use crate::scope::Backend;
use thiserror::Error;

/// Whether the value of an option is taken.
type Check = fn(&Value) -> Result<(), WrongValue>;

/// What is wrong with the value of an option, behind its name, in the words of the Lua code. The fault is the author's of the
/// configuration.
#[derive(Debug, Error)]
pub(super) enum WrongValue {
    #[error("must be {expected}, got {got}")]
    Type { expected: &'static str, got: &'static str },
    #[error("must not be empty")]
    Empty,
    #[error("must be a list of strings")]
    NotStrings,
    #[error("must be a backend's name or a list of them")]
    NotBackends,
    #[error("must name at least one backend")]
    NoBackend,
    #[error("names an unknown backend `{0}`: it must be one of mimir, loki, tempo, pyroscope")]
    UnknownBackend(String),
    #[error("must begin with `/`")]
    RelativePath,
    #[error("must be a plain path")]
    NotPlain,
    #[error("must be \"remote_addr\"")]
    NotRemoteAddr,
    #[error("names `{0}`, which is no header's name")]
    NotHeader(String),
    #[error("cannot name `{0}`")]
    ReservedHeader(String),
    #[error("must be `true`")]
    NotTrue,
    #[error("must be between 0.1 and 3600 seconds")]
    Interval,
    #[error("is no cookie name")]
    NotCookie,
    #[error("must be a whole number of 1 to 600 seconds")]
    Lifetime,
}

impl WrongValue {
    const fn of_type(expected: &'static str, value: &Value) -> Self {
        Self::Type { expected, got: type_of(value) }
    }
}

/// What `require "tenantauth"` has.
pub(super) const FUNCTIONS: [&str; 6] =
    ["version", "init_worker", "enforce", "stamp_client_ip", "metrics", "status"];

pub(super) const INIT_WORKER: [(&str, Check); 4] = [
    ("policy", nonempty_string),
    ("shared_dict", nonempty_string),
    ("reload_interval", reload_interval),
    ("state_dir", nonempty_string),
];

pub(super) const ENFORCE: [(&str, Check); 5] = [
    ("backend", backends),
    ("path_prefix", path_prefix),
    ("client_ip", client_ip),
    ("forward_headers", header_names),
    ("again", again),
];

pub(super) const STAMP_CLIENT_IP: [(&str, Check); 4] =
    [("cookie", cookie_name), ("keys_file", nonempty_string), ("unsigned", boolean), ("ttl", ttl)];

/// What is wrong with the options of a call.
pub(super) enum Mistake {
    /// They are no table.
    NoTable(&'static str),
    /// An unknown option, the known one that looks most like it, and its line.
    Unknown(String, Option<&'static str>, u32),
    /// An option, what is wrong with its value, and its line.
    Value(String, WrongValue, u32),
    /// Options that exclude or need each other.
    Conflict(&'static str),
}

/// What is wrong with the options of a call, as far as they are written out.
pub(super) fn mistakes(call: &Call) -> Vec<Mistake> {
    let known: &[(&'static str, Check)] = match &*call.function {
        "init_worker" => &INIT_WORKER,
        "enforce" => &ENFORCE,
        "stamp_client_ip" => &STAMP_CLIENT_IP,
        _ => return Vec::new(),
    };
    let empty = Vec::new();
    let entries = match &call.options {
        Value::Unknown => return Vec::new(),
        Value::Nil => &empty,
        Value::Table(entries) => entries,
        other => return vec![Mistake::NoTable(type_of(other))],
    };
    let mut found: Vec<Mistake> = entries.iter().filter_map(|entry| mistake(entry, known)).collect();
    let has = |name: &str| entries.iter().any(|entry| entry.name.as_deref() == Some(name));
    let is_whole = entries.iter().all(|entry| entry.name.is_some());
    let says = |name: &str, value| {
        entries
            .iter()
            .any(|entry| entry.name.as_deref() == Some(name) && entry.value == Value::Boolean(value))
    };
    if call.function == "enforce"
        && has("again")
        && ["path_prefix", "client_ip", "forward_headers"].map(has).contains(&true)
    {
        found.push(Mistake::Conflict("option `again` excludes every other one but `backend`"));
    }
    if call.function == "stamp_client_ip" && is_whole {
        if has("keys_file") && says("unsigned", true) {
            found.push(Mistake::Conflict("options `keys_file` and `unsigned` exclude each other"));
        }
        if !has("keys_file") && (!has("unsigned") || says("unsigned", false)) {
            found.push(Mistake::Conflict("option `keys_file` is required, or `unsigned = true`"));
        }
    }
    found
}

fn mistake(entry: &Entry, known: &[(&'static str, Check)]) -> Option<Mistake> {
    // An entry of a list, `{ "loki" }`, has the name 1.
    let Some(name) = &entry.name else {
        let is_literal = entry.value != Value::Unknown;
        return is_literal.then(|| Mistake::Unknown("1".to_owned(), None, entry.line));
    };
    let Some((_, check)) = known.iter().find(|(own, _)| own == name) else {
        let near = known.iter().map(|(own, _)| (strsim::damerau_levenshtein(own, name), *own)).min();
        let near = near.filter(|(distance, _)| *distance <= 2).map(|(_, own)| own);
        return Some(Mistake::Unknown(name.clone(), near, entry.line));
    };
    // `nil` is no entry at all.
    if matches!(entry.value, Value::Unknown | Value::Nil) {
        return None;
    }
    check(&entry.value).err().map(|problem| Mistake::Value(name.clone(), problem, entry.line))
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "string",
        Value::Number(_) => "number",
        Value::Boolean(_) => "boolean",
        Value::Nil | Value::Unknown => "nil",
        Value::Table(_) => "table",
    }
}

fn nonempty_string(value: &Value) -> Result<(), WrongValue> {
    match value {
        Value::Text(text) if text.is_empty() => Err(WrongValue::Empty),
        Value::Text(_) => Ok(()),
        other => Err(WrongValue::of_type("a string", other)),
    }
}

fn boolean(value: &Value) -> Result<(), WrongValue> {
    match value {
        Value::Boolean(_) => Ok(()),
        other => Err(WrongValue::of_type("a boolean", other)),
    }
}

/// The texts of a list, those that are written out.
fn list_of_strings(value: &Value) -> Result<Vec<&str>, WrongValue> {
    let Value::Table(entries) = value else {
        return Err(WrongValue::of_type("a list of strings", value));
    };
    let mut texts = Vec::new();
    for entry in entries {
        match (&entry.name, &entry.value) {
            (None, Value::Unknown) => {}
            (None, Value::Text(text)) if !text.is_empty() => texts.push(&**text),
            _ => return Err(WrongValue::NotStrings),
        }
    }
    Ok(texts)
}

fn backends(value: &Value) -> Result<(), WrongValue> {
    let names = match value {
        Value::Text(name) if name.is_empty() => Err(WrongValue::NotBackends),
        Value::Text(name) => Ok(vec![&**name]),
        list => list_of_strings(list),
    };
    let names = names.map_err(|_| WrongValue::NotBackends)?;
    if matches!(value, Value::Table(entries) if entries.is_empty()) {
        return Err(WrongValue::NoBackend);
    }
    match names.into_iter().find(|name| Backend::ALL.iter().all(|backend| backend.name() != *name)) {
        None => Ok(()),
        Some(name) => Err(WrongValue::UnknownBackend(name.to_owned())),
    }
}

fn path_prefix(value: &Value) -> Result<(), WrongValue> {
    let Value::Text(prefix) = value else {
        return Err(WrongValue::of_type("a string", value));
    };
    if !prefix.is_empty() && !prefix.starts_with('/') {
        return Err(WrongValue::RelativePath);
    }
    let closed = format!("{prefix}/");
    let has_dots = closed.contains("/./") || closed.contains("/../");
    // What ends in a slash is closed by none of ours.
    if prefix.contains(['%', '?', '#', '\\']) || prefix.contains("//") || has_dots {
        return Err(WrongValue::NotPlain);
    }
    Ok(())
}

fn client_ip(value: &Value) -> Result<(), WrongValue> {
    if *value == Value::Text("remote_addr".to_owned()) { Ok(()) } else { Err(WrongValue::NotRemoteAddr) }
}

fn header_names(value: &Value) -> Result<(), WrongValue> {
    for name in list_of_strings(value)? {
        let lower = name.to_ascii_lowercase();
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
            return Err(WrongValue::NotHeader(name.to_owned()));
        }
        if lower == "cookie" || lower == "x-scope-orgid" || lower.starts_with("x-tenantauth-") {
            return Err(WrongValue::ReservedHeader(name.to_owned()));
        }
    }
    Ok(())
}

fn again(value: &Value) -> Result<(), WrongValue> {
    if *value == Value::Boolean(true) { Ok(()) } else { Err(WrongValue::NotTrue) }
}

fn reload_interval(value: &Value) -> Result<(), WrongValue> {
    match value {
        Value::Number(seconds) if (0.1..=3600.0).contains(seconds) => Ok(()),
        Value::Number(_) => Err(WrongValue::Interval),
        other => Err(WrongValue::of_type("a number of seconds", other)),
    }
}

fn cookie_name(value: &Value) -> Result<(), WrongValue> {
    nonempty_string(value)?;
    match value {
        Value::Text(name) if cookie::is_name(name) => Ok(()),
        _ => Err(WrongValue::NotCookie),
    }
}

fn ttl(value: &Value) -> Result<(), WrongValue> {
    match value {
        Value::Number(seconds) if seconds.fract() == 0.0 && (1.0..=600.0).contains(seconds) => Ok(()),
        Value::Number(_) => Err(WrongValue::Lifetime),
        other => Err(WrongValue::of_type("a number of seconds", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a table in a file of `lua/tenantauth`.
    fn names<'t>(source: &'t str, opening: &str) -> Vec<&'t str> {
        let (_, rest) = source.split_once(opening).unwrap();
        let body = rest.split_once("\n}").unwrap().0;
        body.lines().map(|line| line.split_once(" = ").unwrap().0.trim()).collect()
    }

    fn own(options: &[(&'static str, Check)]) -> Vec<&'static str> {
        options.iter().map(|(name, _)| *name).collect()
    }

    const LUA: [&str; 5] = [
        include_str!("../../lua/tenantauth/init.lua"),
        include_str!("../../lua/tenantauth/worker.lua"),
        include_str!("../../lua/tenantauth/enforce.lua"),
        include_str!("../../lua/tenantauth/grafana_gateway.lua"),
        include_str!("../../lua/tenantauth/options.lua"),
    ];

    #[test]
    fn functions_and_options_are_those_of_the_lua_code() {
        assert_eq!(names(LUA[0], "\nreturn {\n"), FUNCTIONS);
        assert_eq!(names(LUA[1], "local INIT_OPTIONS = {\n"), own(&INIT_WORKER));
        assert_eq!(names(LUA[2], "local ENFORCE_OPTIONS = {\n"), own(&ENFORCE));
        assert_eq!(names(LUA[3], "local STAMP_OPTIONS = {\n"), own(&STAMP_CLIENT_IP));
    }

    fn said(function: &str, options: &str) -> Vec<String> {
        let code = super::super::lua::read(&format!("require 'tenantauth'.{function} {options}"));
        let said = code.calls.iter().flat_map(mistakes).map(|mistake| match mistake {
            Mistake::NoTable(got) => format!("options must be a table, got {got}"),
            Mistake::Unknown(name, ..) => format!("unknown option `{name}`"),
            Mistake::Value(_, problem, _) => problem.to_string(),
            Mistake::Conflict(words) => words.to_owned(),
        });
        said.collect()
    }

    /// Each wrong value is reported in the very words of the Lua code.
    #[test]
    fn wrong_values_are_reported_as_the_lua_code_does() {
        for (function, options, fixed) in [
            ("enforce", "{ backend = 'lok' }", "it must be one of mimir, loki, tempo, pyroscope"),
            ("enforce", "{ backend = {} }", "must name at least one backend"),
            ("enforce", "{ backend = 5 }", "must be a backend's name or a list of them"),
            ("enforce", "{ path_prefix = 'pre' }", "must begin with `/`"),
            ("enforce", "{ path_prefix = '/a/../b' }", "must be a plain path"),
            ("enforce", "{ path_prefix = '/a%20' }", "must be a plain path"),
            ("enforce", "{ path_prefix = true }", "must be a string, got "),
            ("enforce", "{ client_ip = 'cookie' }", "must be \\\"remote_addr\\\""),
            ("enforce", "{ forward_headers = 'X-A' }", "must be a list of strings, got "),
            ("enforce", "{ forward_headers = { a = 'X-A' } }", "must be a list of strings"),
            ("enforce", "{ forward_headers = { 'X A' } }", "`, which is no header's name"),
            ("enforce", "{ forward_headers = { 'Cookie' } }", "cannot name `"),
            ("enforce", "{ again = 1 }", "must be `true`"),
            (
                "enforce",
                "{ again = true, client_ip = 'remote_addr' }",
                "option `again` excludes every other one but `backend`",
            ),
            ("enforce", "{ polcy = 1 }", "unknown option `"),
            ("enforce", "{ 'loki' }", "unknown option `"),
            ("enforce", "'loki'", "options must be a table, got "),
            ("init_worker", "{ policy = '' }", "must not be empty"),
            ("init_worker", "{ reload_interval = 0 }", "must be between 0.1 and 3600 seconds"),
            ("init_worker", "{ reload_interval = '2' }", "must be a number of seconds, got "),
            ("stamp_client_ip", "{ keys_file = '/k', cookie = 'a b' }", "is no cookie name"),
            (
                "stamp_client_ip",
                "{ keys_file = '/k', ttl = 1.5 }",
                "must be a whole number of 1 to 600 seconds",
            ),
            (
                "stamp_client_ip",
                "{ keys_file = '/k', unsigned = true }",
                "options `keys_file` and `unsigned` exclude each other",
            ),
            ("stamp_client_ip", "{}", "option `keys_file` is required, or `unsigned = true`"),
        ] {
            let found = said(function, options);
            assert_eq!(found.len(), 1, "{options}: {found:?}");
            let plain = fixed.replace("\\\"", "\"");
            assert!(found[0].contains(&plain), "{options}: {found:?}");
            assert!(LUA.iter().any(|source| source.contains(fixed)), "{fixed}");
        }
        for (function, options) in [
            ("enforce", "{ backend = { 'loki', 'mimir' }, path_prefix = '/pre/', forward_headers = {} }"),
            ("enforce", "{ again = true, backend = backend }"),
            ("enforce", "(options)"),
            ("enforce", "()"),
            ("enforce", "{ backend = ngx.var.backend, client_ip = nil }"),
            ("init_worker", "{ policy = root .. '/policy.yaml', reload_interval = .5 + 1 }"),
            ("stamp_client_ip", "{ unsigned = true, ttl = 600 }"),
            ("metrics", "()"),
        ] {
            assert_eq!(said(function, options), Vec::<String>::new(), "{options}");
        }
    }
}
