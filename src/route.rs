//! Which scope a request needs: its raw path, proven to have one reading, looked up in the built-in table.
//!
//! nginx and the backends read one request line in three ways. nginx decodes the path, merges slashes and
//! resolves dots before it picks a location; Loki, Tempo and Pyroscope match their routes on the decoded path;
//! Mimir matches on the encoded one (gorilla/mux `UseEncodedPath`). What is allowed must mean the same to all
//! of them, so [`RoutePath::parse`] refuses every path that could be read differently, and [`route`] checks
//! that what nginx has made of it (`$uri`) still is that path. Routes that the table does not know are denied.

use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};
use index::INDEX;

pub use index::{TableRow, table};
pub use path::{AmbiguousPath, RoutePath};

mod index;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod models;
mod path;
#[cfg(test)]
mod tests;

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
    let candidates = INDEX.near(path);
    for backend in backends.iter() {
        let Some(row) = candidates.find(backend, method) else { continue };
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
    if path.has_encoded_slash() {
        let candidates = INDEX.near(path.as_str());
        let takes_it = |backend| candidates.matching(backend).any(|pattern| pattern.encoded_slash);
        if !backends.iter().any(takes_it) {
            return Err(Reason::PathAmbiguous);
        }
    }
    match verdict(backends, method, path.as_str()) {
        Verdict::Known(route) => Ok(route),
        Verdict::Unknown | Verdict::Denied => Err(Reason::RouteUnknown),
    }
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
/// - `prefix`: `enforce`'s `path_prefix` without its trailing slash, empty for none; compared undecoded. The path is
///   decided without it; nginx may not have removed it, so the path with it must not mean anything else.
/// - `method`, `request_uri`: nginx's `$request_method`, `$request_uri` (raw, with the query).
/// - `uri`: nginx's `$uri`: decoded, and perhaps rewritten.
/// - `upgrade`: the value of the request's `Upgrade` header.
///
/// # Errors
/// [`Reason::PathAmbiguous`] for a path that is not clean; [`Reason::RouteUnknown`] for one outside the prefix
/// or that [`classify`] does not know, and for an upgrade that is not exactly `websocket` on a tail;
/// [`Reason::PathAmbiguous`] where the path with the prefix is denied, or known with another scope, and where `uri` is
/// neither that path decoded (with or without the prefix) nor a clean path that classifies alike.
pub fn route(
    backends: BackendSet,
    prefix: &str,
    method: &[u8],
    request_uri: &[u8],
    uri: &[u8],
    upgrade: Option<&[u8]>,
) -> Result<Route, Reason> {
    let (external, internal, route) = raw(backends, prefix, method, request_uri, upgrade)?;
    let is_uri = |path: &RoutePath<'_>| path.decoded().as_bytes() == uri;
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
    raw(backends, prefix, method, request_uri, upgrade).map(|(_, _, route)| route)
}

/// The request's path, where there is a prefix that path below it, and what it does.
#[inline]
fn raw<'a>(
    backends: BackendSet,
    prefix: &str,
    method: &[u8],
    request_uri: &'a [u8],
    upgrade: Option<&[u8]>,
) -> Result<(RoutePath<'a>, Option<RoutePath<'a>>, Route), Reason> {
    let (external, internal) = paths(prefix, request_uri)?;
    let Some(below) = &internal else {
        let route = decide(backends, method, &external, upgrade)?;
        return Ok((external, None, route));
    };
    let route = decide(backends, method, below, upgrade)?;
    let route = match verdict(backends, method, external.as_str()) {
        Verdict::Unknown => route,
        Verdict::Denied => return Err(Reason::PathAmbiguous),
        Verdict::Known(other) => route.merged_with(other).ok_or(Reason::PathAmbiguous)?,
    };
    Ok((external, internal, route))
}

/// Whether a request that was allowed still does what it did, now that nginx has redirected it and its path may be
/// another: the path that came, or a clean one of the same scope.
///
/// - `backends`, `scope`: of the route that was decided. The method is the one that was decided, too.
/// - `others`: further backends that may get it. To them its path must be unknown: what one backend reads is a write to
///   another, or bound by another restriction. A path of which only the part below a prefix is known may go to none of
///   them: what they will get is not seen here.
/// - `is_upgraded`: it is a WebSocket, which only the path that came may be.
/// - `request_uri`, `uri`: nginx's `$request_uri`, and `$uri` as it is now.
#[cold]
pub fn is_same(
    backends: BackendSet,
    others: BackendSet,
    scope: Scope,
    is_upgraded: bool,
    method: &[u8],
    request_uri: &[u8],
    uri: &[u8],
) -> bool {
    let is_of_others =
        |path: &RoutePath<'_>| !matches!(verdict(others, method, path.as_str()), Verdict::Unknown);
    let raw = request_uri.split(|byte| *byte == b'?').next().unwrap_or_default();
    if let Ok(path) = RoutePath::parse(raw)
        && path.decoded().as_bytes() == uri
    {
        let is_whole = matches!(verdict(backends, method, path.as_str()), Verdict::Known(_));
        return others.is_empty() || (is_whole && !is_of_others(&path));
    }
    let Some(path) = undecoded(uri).filter(|_| !is_upgraded) else { return false };
    let found = verdict(backends, method, path.as_str());
    matches!(found, Verdict::Known(route) if route.scope == scope && !route.tail) && !is_of_others(&path)
}

/// The backends that know a request, where more than one does: by the path that came, or where only the part below a prefix is
/// known, by that.
///
/// `request_uri`, `uri`: nginx's `$request_uri`, and `$uri` as it is now.
#[cold]
pub fn knowing(scope: Scope, method: &[u8], request_uri: &[u8], uri: &[u8]) -> BackendSet {
    let raw = request_uri.split(|byte| *byte == b'?').next().unwrap_or_default();
    let of = |path: RoutePath<'_>| {
        let knows = |backend: &Backend| {
            let found = verdict(BackendSet::of(*backend), method, path.as_str());
            matches!(found, Verdict::Known(route) if route.scope == scope)
        };
        Backend::ALL.into_iter().filter(knows).collect::<BackendSet>()
    };
    let as_it_came = RoutePath::parse(raw).map_or(BackendSet::EMPTY, of);
    if as_it_came.is_empty() { undecoded(uri).map_or(BackendSet::EMPTY, of) } else { as_it_came }
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
        None if external.has_encoded_slash() => Err(Reason::PathAmbiguous),
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
    let whole = undecoded(uri)?;
    let below = if prefix.is_empty() { None } else { whole.without(prefix) };
    let mut agreed = None;
    for path in [Some(&whole), below.as_ref()].into_iter().flatten() {
        match verdict(backends, method, path.as_str()) {
            Verdict::Unknown => {}
            Verdict::Denied => return None,
            Verdict::Known(other) => agreed = Some(agreed.unwrap_or(route).merged_with(other)?),
        }
    }
    agreed
}

/// A `$uri` as a path. It is decoded already: an escape or a question mark in it is text, which the next reader may not
/// know.
fn undecoded(uri: &[u8]) -> Option<RoutePath<'_>> {
    let plain = !uri.iter().any(|byte| matches!(byte, b'%' | b'?'));
    plain.then(|| RoutePath::parse(uri).ok()).flatten()
}
