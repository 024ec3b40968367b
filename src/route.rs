//! Which scope a request needs: its raw path, proven to have one reading, looked up in the built-in table.
//!
//! nginx and the backends read one request line in three ways. nginx decodes the path, merges slashes and
//! resolves dots before it picks a location; Loki, Tempo and Pyroscope match their routes on the decoded path;
//! Mimir matches on the encoded one (gorilla/mux `UseEncodedPath`). What is allowed must mean the same to all
//! of them, so [`RoutePath::parse`] refuses every path that could be read differently, and [`route`] checks
//! that what nginx has made of it (`$uri`) still is that path. Routes that the table does not know are denied.

use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};
use hashbrown::HashMap;
use std::borrow::Cow;
use std::sync::LazyLock;

#[cfg(test)]
mod models;
#[cfg(test)]
mod tests;

/// The path can be read in more than one way, or is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousPath;

/// A raw request path with only one reading. Only [`RoutePath::parse`] builds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath<'a> {
    raw: &'a str,
    /// Borrowed, and the same as `raw`, where the path holds no escape.
    decoded: Cow<'a, str>,
    /// `raw` holds `%2F`: only some rows take that, which [`find`] checks.
    encoded_slash: bool,
}

impl<'a> RoutePath<'a> {
    /// Parses the path of a request: nginx's `$request_uri` up to the first `?`, undecoded.
    ///
    /// # Errors
    /// [`AmbiguousPath`] for what does not begin with `/`; for `//`, `/./` and `/../`; for `\`, `#`, blanks and
    /// control bytes; for broken escapes, and escapes that stand for a dot, a backslash, a control byte, or for
    /// text that would again be an escape (`%252F`: ruler code of the backends decodes names once more); for
    /// what is no UTF-8, raw or decoded. `%2F` passes only where every part around it has a name.
    pub fn parse(raw: &'a [u8]) -> Result<Self, AmbiguousPath> {
        // Not `any`: a loop without an early end is compiled to vector instructions.
        let refused = raw.iter().fold(false, |found, byte| found | is_refused(*byte));
        if refused || raw.first() != Some(&b'/') {
            return Err(AmbiguousPath);
        }
        let raw = std::str::from_utf8(raw).map_err(|_| AmbiguousPath)?;
        let (decoded, encoded_slash) =
            if raw.contains('%') { decode(raw)? } else { (Cow::Borrowed(raw), false) };
        // The decoded text, so that an encoded slash bounds a part too.
        if !parts_have_names(&decoded) {
            return Err(AmbiguousPath);
        }
        Ok(Self { raw, decoded, encoded_slash })
    }

    /// The path as it came, undecoded.
    pub fn as_str(&self) -> &'a str {
        self.raw
    }

    /// The path below `prefix` (without trailing slash), if it is the prefix or lies below it.
    fn without(&self, prefix: &str) -> Option<Self> {
        let raw = match self.raw.strip_prefix(prefix)? {
            "" => "/",
            below if below.starts_with('/') => below,
            _ => return None,
        };
        match self.decoded {
            Cow::Borrowed(_) => Some(Self { raw, decoded: Cow::Borrowed(raw), encoded_slash: false }),
            Cow::Owned(_) => Self::parse(raw.as_bytes()).ok(),
        }
    }
}

/// Bytes that no raw path holds. nginx from 1.21.1 on refuses blanks and control bytes itself, older ones do
/// not; `#` ends the path for nginx but not for the backends.
const fn is_refused(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || byte == b'\\' || byte == b'#'
}

/// Bytes that Go's `net/url` keeps as they are beside an escape (`validEncoded`).
const fn is_kept_by_go(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'$'..=b'/' | b':' | b';' | b'=' | b'@' | b'[' | b']' | b'_' | b'~')
}

/// The decoded form of a raw path, and whether it held an encoded slash.
fn decode(raw: &str) -> Result<(Cow<'_, str>, bool), AmbiguousPath> {
    let mut bytes = raw.bytes();
    let hex = |bytes: &mut std::str::Bytes<'_>| {
        let digit = bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(AmbiguousPath)?;
        u8::try_from(digit).map_err(|_| AmbiguousPath)
    };
    let mut decoded = Vec::with_capacity(raw.len());
    let mut encoded_slash = false;
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let byte = (hex(&mut bytes)? << 4) | hex(&mut bytes)?;
        if byte < b' ' || matches!(byte, 0x7f | b'\\' | b'.') {
            return Err(AmbiguousPath);
        }
        encoded_slash |= byte == b'/';
        decoded.push(byte);
    }
    let escape_again = |text: &[u8]| matches!(text, [b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
    if decoded.windows(3).any(escape_again) {
        return Err(AmbiguousPath);
    }
    // Beside any other byte Go forgets the raw form and encodes the decoded path anew: Mimir would then see a
    // plain slash. And `parts_have_names` lets a path end in a slash, which must be a plain one.
    let go_forgets = || !raw.bytes().all(is_kept_by_go);
    if encoded_slash && (go_forgets() || (decoded.ends_with(b"/") && !raw.ends_with('/'))) {
        return Err(AmbiguousPath);
    }
    let decoded = String::from_utf8(decoded).map_err(|_| AmbiguousPath)?;
    Ok((Cow::Owned(decoded), encoded_slash))
}

/// Whether no part between slashes is empty (the last may be), `.` or `..`.
fn parts_have_names(path: &str) -> bool {
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        if matches!(part, "." | "..") || (part.is_empty() && parts.peek().is_some()) {
            return false;
        }
    }
    true
}

/// What a request does, by its method and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The scope it needs.
    pub scope: Scope,
    /// Those of the consulted backends that know the path, all with this scope; never empty.
    pub backends: BackendSet,
    /// Whether it is a live tail, which may be upgraded to a WebSocket.
    pub tail: bool,
}

/// One line of the built-in table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The backend that serves the route.
    pub backend: Backend,
    /// An HTTP method, or `*` for any.
    pub method: &'static str,
    /// The path: `{name}` is one segment or the end of one, `{rest}` is anything below.
    pub pattern: &'static str,
    /// The scope it needs; `None` where it is denied to everyone.
    pub scope: Option<Scope>,
    /// What the backend does there: `query`, `rules_write`, `operational`.
    pub kind: &'static str,
    /// Whether it is a live tail.
    pub tail: bool,
}

impl TableRow {
    fn parse(line: &'static str) -> Option<Self> {
        let mut columns = line.split('\t');
        let (backend, method, pattern) = (columns.next()?, columns.next()?, columns.next()?);
        let (scope, kind) = (columns.next()?, columns.next()?);
        let scope = if scope == "-" { None } else { Some(Scope::from_name(scope)?) };
        let backend = Backend::from_name(backend)?;
        columns.next().is_none().then_some(Self {
            backend,
            method,
            pattern,
            scope,
            kind,
            tail: kind == "tail",
        })
    }
}

/// Every line of the built-in table, in its order.
pub fn table() -> impl Iterator<Item = TableRow> {
    ROWS.iter().copied()
}

/// The table behind its heading line. One broken line empties it, which denies everything: half a table could
/// lack the very row that denies. A test reads them all.
static ROWS: LazyLock<Vec<TableRow>> = LazyLock::new(|| {
    let lines = include_str!("route/table.tsv").lines().skip(1);
    lines.map(TableRow::parse).collect::<Option<_>>().unwrap_or_default()
});

/// The tables as they are searched, in the order of [`Backend::ALL`].
static TABLES: LazyLock<[Table; 4]> = LazyLock::new(|| Backend::ALL.map(Table::of));

/// One backend's routes.
struct Table {
    /// By path, where it holds no name.
    literals: HashMap<&'static str, Vec<TableRow>>,
    /// The others, the more specific before the less specific.
    patterns: Vec<Pattern>,
}

impl Table {
    fn of(backend: Backend) -> Self {
        let mut literals: HashMap<_, Vec<_>> = HashMap::new();
        let mut patterns: Vec<Pattern> = Vec::new();
        for row in table().filter(|row| row.backend == backend) {
            if !row.pattern.contains('{') {
                literals.entry(row.pattern).or_default().push(row);
            } else if let Some(pattern) = patterns.iter_mut().find(|pattern| pattern.text == row.pattern) {
                pattern.rows.push(row);
            } else {
                patterns.push(Pattern::of(row));
            }
        }
        patterns.sort_by_cached_key(Pattern::order);
        Self { literals, patterns }
    }

    /// The most specific row for this path that serves the method.
    fn find(&self, method: &[u8], path: &str) -> Option<&TableRow> {
        let literal = self.literals.get(path).and_then(|rows| serving(rows, method));
        literal.or_else(|| {
            let mut matching = self.patterns.iter().filter(|pattern| pattern.matches(path));
            matching.find_map(|pattern| serving(&pattern.rows, method))
        })
    }
}

/// The row of exactly this method (`HEAD` is not `GET`), else that of any method.
fn serving<'t>(rows: &'t [TableRow], method: &[u8]) -> Option<&'t TableRow> {
    let exact = rows.iter().find(|row| row.method.as_bytes() == method);
    exact.or_else(|| rows.iter().find(|row| row.method == "*"))
}

/// A path with names in it: `head` and then the pieces.
struct Pattern {
    text: &'static str,
    head: &'static str,
    pieces: Vec<Piece>,
    /// Whether its names may hold `%2F`.
    encoded_slash: bool,
    rows: Vec<TableRow>,
}

enum Piece {
    Literal(&'static str),
    Name,
    Rest,
}

impl Pattern {
    fn of(row: TableRow) -> Self {
        let (head, mut rest) = row.pattern.split_at(row.pattern.find('{').unwrap_or(row.pattern.len()));
        let mut pieces = Vec::new();
        while let Some((literal, (name, behind))) =
            rest.split_once('{').and_then(|(literal, name)| Some((literal, name.split_once('}')?)))
        {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal));
            }
            pieces.push(if name == "rest" { Piece::Rest } else { Piece::Name });
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest));
        }
        // Mimir matches on the encoded path, and its names of rule namespaces and groups are free text.
        let encoded_slash = row.backend == Backend::Mimir && head.ends_with("/rules/");
        Self { text: row.pattern, head, pieces, encoded_slash, rows: vec![row] }
    }

    /// Sorts literal text before a name, and a name before the rest of the path.
    fn order(&self) -> String {
        let mut key = self.head.to_owned();
        for piece in &self.pieces {
            key.push_str(match piece {
                Piece::Literal(text) => text,
                Piece::Name => "\u{10ffff}",
                Piece::Rest => "\u{10ffff}\u{10ffff}",
            });
        }
        key
    }

    fn matches(&self, path: &str) -> bool {
        let Some(mut left) = path.strip_prefix(self.head) else { return false };
        for piece in &self.pieces {
            left = match piece {
                Piece::Literal(text) => match left.strip_prefix(text) {
                    Some(behind) => behind,
                    None => return false,
                },
                Piece::Name => {
                    let (name, behind) = left.split_at(left.find('/').unwrap_or(left.len()));
                    if name.is_empty() {
                        return false;
                    }
                    behind
                }
                Piece::Rest => "",
            };
        }
        left.is_empty()
    }
}

/// What the consulted tables say about a path.
enum Verdict {
    /// No table knows it.
    Unknown,
    /// A table denies it to everyone, or two class it differently.
    Denied,
    Known(Route),
}

fn verdict(backends: BackendSet, method: &[u8], path: &str) -> Verdict {
    let mut known: Option<Route> = None;
    for (backend, table) in Backend::ALL.into_iter().zip(TABLES.iter()) {
        if !backends.contains(backend) {
            continue;
        }
        let Some(row) = table.find(method, path) else { continue };
        let Some(scope) = row.scope else { return Verdict::Denied };
        let route = Route { scope, backends: BackendSet::of(backend), tail: row.tail };
        known = match known {
            None => Some(route),
            Some(before) => match before.merged_with(route) {
                Some(merged) => Some(merged),
                None => return Verdict::Denied,
            },
        };
    }
    known.map_or(Verdict::Unknown, Verdict::Known)
}

impl Route {
    /// Both, where they do the same: restrictions for any of the backends apply.
    fn merged_with(self, other: Self) -> Option<Self> {
        let same = self.scope == other.scope && self.tail == other.tail;
        same.then_some(Self { backends: self.backends.union(other.backends), ..self })
    }
}

/// Classifies a path, [`Reason::RouteUnknown`] or, for a `%2F` that has no place there,
/// [`Reason::PathAmbiguous`].
fn find(backends: BackendSet, method: &[u8], path: &RoutePath<'_>) -> Result<Route, Reason> {
    if path.encoded_slash {
        let takes_it = |table: &Table| {
            table.patterns.iter().any(|pattern| pattern.encoded_slash && pattern.matches(path.raw))
        };
        let mut consulted = Backend::ALL.into_iter().zip(TABLES.iter());
        if !consulted.any(|(backend, table)| backends.contains(backend) && takes_it(table)) {
            return Err(Reason::PathAmbiguous);
        }
    }
    let Verdict::Known(route) = verdict(backends, method, path.raw) else { return Err(Reason::RouteUnknown) };
    // A `proxy_pass` with a path sends the decoded form, in which that slash is a plain one, and every backend
    // but Mimir would read it so anyway.
    if path.encoded_slash {
        match verdict(backends, method, &path.decoded) {
            Verdict::Unknown => {}
            Verdict::Known(decoded) if decoded == route => {}
            Verdict::Known(_) | Verdict::Denied => return Err(Reason::PathAmbiguous),
        }
    }
    Ok(route)
}

/// The route of a path, by the tables of `backends`.
///
/// `method`: as in the request line, compared exactly. None where no table knows the path, where one denies it
/// to everyone, where two class it differently, or where `%2F` stands outside the names of Mimir's rule
/// namespaces and groups.
pub fn classify(backends: BackendSet, method: &[u8], path: &RoutePath<'_>) -> Option<Route> {
    find(backends, method, path).ok()
}

/// Every check of a request's path, in the promised order.
///
/// - `prefix`: `enforce`'s `path_prefix` without its trailing slash, empty for none; compared undecoded.
/// - `method`, `request_uri`: nginx's `$request_method`, `$request_uri` (raw, with the query).
/// - `uri`: nginx's `$uri`: decoded, and perhaps rewritten.
/// - `upgrade`: the value of the request's `Upgrade` header.
///
/// # Errors
/// [`Reason::PathAmbiguous`] for a path that is not clean; [`Reason::RouteUnknown`] for one outside the prefix
/// or that [`classify`] does not know, and for an upgrade that is not exactly `websocket` on a tail;
/// [`Reason::PathAmbiguous`] where `uri` is neither that path decoded (with or without the prefix) nor a clean
/// path that classifies alike.
pub fn route(
    backends: BackendSet,
    prefix: &str,
    method: &[u8],
    request_uri: &[u8],
    uri: &[u8],
    upgrade: Option<&[u8]>,
) -> Result<Route, Reason> {
    let (external, internal) = paths(prefix, request_uri)?;
    let route = decide(backends, method, internal.as_ref().unwrap_or(&external), upgrade)?;
    let is_uri = |path: &RoutePath<'_>| path.decoded.as_bytes() == uri;
    if is_uri(&external) || internal.as_ref().is_some_and(is_uri) {
        return Ok(route);
    }
    rewritten(backends, prefix, method, uri, route).ok_or(Reason::PathAmbiguous)
}

/// The checks of [`route`] that need no nginx: for explaining, testing and replaying requests.
///
/// # Errors
/// As [`route`], for the same arguments.
pub fn route_raw(
    backends: BackendSet,
    prefix: &str,
    method: &[u8],
    request_uri: &[u8],
    upgrade: Option<&[u8]>,
) -> Result<Route, Reason> {
    let (external, internal) = paths(prefix, request_uri)?;
    decide(backends, method, internal.as_ref().unwrap_or(&external), upgrade)
}

/// The request's path, and where there is a prefix, that path below it.
fn paths<'a>(prefix: &str, request_uri: &'a [u8]) -> Result<(RoutePath<'a>, Option<RoutePath<'a>>), Reason> {
    let raw = request_uri.split(|byte| *byte == b'?').next().unwrap_or_default();
    let external = RoutePath::parse(raw).map_err(|AmbiguousPath| Reason::PathAmbiguous)?;
    if prefix.is_empty() {
        return Ok((external, None));
    }
    match external.without(prefix) {
        Some(internal) => Ok((external, Some(internal))),
        None if external.encoded_slash => Err(Reason::PathAmbiguous),
        None => Err(Reason::RouteUnknown),
    }
}

fn decide(
    backends: BackendSet,
    method: &[u8],
    path: &RoutePath<'_>,
    upgrade: Option<&[u8]>,
) -> Result<Route, Reason> {
    let route = find(backends, method, path)?;
    match upgrade {
        None => Ok(route),
        Some(b"websocket") if route.tail => Ok(route),
        Some(_) => Err(Reason::RouteUnknown),
    }
}

/// The route of a request whose `$uri` was rewritten, if what is now sent (that uri, escaped again, or what a
/// `proxy_pass` leaves of it without the prefix) does the same as what came.
#[cold]
fn rewritten(backends: BackendSet, prefix: &str, method: &[u8], uri: &[u8], route: Route) -> Option<Route> {
    // Already decoded: an escape or a question mark in it is text, which the next reader may not know.
    if uri.iter().any(|byte| matches!(byte, b'%' | b'?')) {
        return None;
    }
    let whole = RoutePath::parse(uri).ok()?;
    let below = if prefix.is_empty() { None } else { whole.without(prefix) };
    let mut agreed = None;
    for path in [Some(&whole), below.as_ref()].into_iter().flatten() {
        match verdict(backends, method, path.raw) {
            Verdict::Unknown => {}
            Verdict::Denied => return None,
            Verdict::Known(other) => agreed = Some(agreed.unwrap_or(route).merged_with(other)?),
        }
    }
    agreed
}
