//! The header lines of a request -> what a decision needs of them, and which of them no backend may see.
//!
//! The lines come as nginx keeps them; most are only looked at by name.

use super::credential::Credential;
use crate::audit::GrafanaContext;
use crate::client_ip::Source;
use crate::connection::Connection;
use crate::lines::Lines;
use crate::token::authorization::Scheme;
use crate::token::service::{Credentials, candidate, holds_token};
use smallvec::SmallVec;

/// What a name means whatever the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Nothing, but what the policy makes of it.
    Other,
    Tenant,
    Cookie,
    Connection,
    Upgrade,
    User,
    Dashboard,
    Panel,
    Rule,
    Org,
    /// Added by a reverse proxy of Go's after it has removed what its client lists in `Connection`: the one mark of a
    /// person that nobody can have taken away.
    Forwarded,
    Authorization,
    /// A credential, or what tunes a backend: removed before the request goes on.
    Removed,
    /// Reaches nginx's `$http_x_scope_orgid` with `underscores_in_headers on`, which http.conf reads; no backend knows
    /// it. Removed whatever is forwarded.
    Spelling,
}

/// The names that are known whatever the policy says. Where those come from that tune a backend, and what else begins
/// like the ones that [`tunes_a_backend`] finds: `docs/reference.md`, "Removed headers".
const ROLES: [(&[u8], Role); 28] = [
    (b"x-scope-orgid", Role::Tenant),
    (b"cookie", Role::Cookie),
    (b"connection", Role::Connection),
    (b"upgrade", Role::Upgrade),
    (b"x-grafana-user", Role::User),
    (b"x-dashboard-uid", Role::Dashboard),
    (b"x-panel-id", Role::Panel),
    (b"x-rule-uid", Role::Rule),
    (b"x-grafana-org-id", Role::Org),
    (b"x-forwarded-for", Role::Forwarded),
    (b"authorization", Role::Authorization),
    (b"x-grafana-id", Role::Removed),
    (b"x-ds-authorization", Role::Removed),
    (b"x-prom-label-policy", Role::Removed),
    (b"x-scope-userid", Role::Removed),
    (b"http2-settings", Role::Removed),
    // Loki, as of 2026-08-22 (65e30f84): pkg/util/httpreq/tags.go.
    (b"x-query-tags", Role::Removed),
    (b"x-query-queue-time", Role::Removed),
    // Tempo, as of 2026-08-21 (ad33aa8f): pkg/api/http.go.
    (b"recent-data-target", Role::Removed),
    // Mimir, looked up on 2026-11-29: pkg/frontend/querymiddleware/codec.go (0019a762), pkg/querier/filter_queryables.go
    // (096dc676).
    (b"sharding-control", Role::Removed),
    (b"instant-split-control", Role::Removed),
    (b"x-filter-queryables", Role::Removed),
    // Cortex, as of 2026-08-06 (a8c6358a): pkg/engine/engine.go, pkg/util/requestmeta/logging_headers.go.
    (b"x-promql-enginetype", Role::Removed),
    (b"x-request-logging-headers-key", Role::Removed),
    // Pyroscope, as of 2026-08-21 (3fe6a457): pkg/frontend/readpath/queryfrontend/diagnostics/interceptor.go.
    (b"x-pyroscope-collect-diagnostics", Role::Removed),
    (b"x_scope_orgid", Role::Spelling),
    (b"x-scope_orgid", Role::Spelling),
    (b"x_scope-orgid", Role::Spelling),
];

/// A name that means something, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: Box<[u8]>,
    /// [`number_of`] it.
    number: u8,
    role: Role,
    /// Its place among the token headers.
    token: Option<usize>,
    is_client_ip: bool,
}

/// Which headers a policy makes a worker look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeaderNames {
    /// Of each token header, in the order in which they count, whether it is `Authorization`.
    tokens: Vec<bool>,
    /// The client's address is that of the connection.
    pub(super) needs_remote_addr: bool,
    /// All names that mean something, in the order of their numbers.
    known: Vec<Known>,
    /// Where the names of a number begin in `known`, counted from 1, or a little before; 0 where there are none. Most
    /// header lines are told apart so, and are compared with nothing.
    first: Box<[u8; 256]>,
}

impl HeaderNames {
    /// The names for a policy's `token_headers` and its source of client addresses.
    pub(super) fn new(token_headers: &[Box<str>], source: Option<&Source>) -> Self {
        let mut known: Vec<Known> = Vec::new();
        let mut add = |name: &[u8], change: &dyn Fn(&mut Known)| {
            let name = name.to_ascii_lowercase();
            if let Some(known) = known.iter_mut().find(|known| *known.name == *name) {
                return change(known);
            }
            let number = number_of(&name);
            let mut new =
                Known { name: name.into(), number, role: Role::Other, token: None, is_client_ip: false };
            change(&mut new);
            known.push(new);
        };
        for (name, role) in ROLES {
            add(name, &|known| known.role = role);
        }
        for (place, name) in token_headers.iter().enumerate() {
            add(name.as_bytes(), &|known| known.token = known.token.or(Some(place)));
        }
        if let Some(Source::Header { name, .. }) = source {
            add(name.as_bytes(), &|known| known.is_client_ip = true);
        }
        known.sort_by_key(|known| known.number);
        let mut first = Box::new([0; 256]);
        for (place, known) in known.iter().enumerate().rev() {
            if let Some(first) = first.get_mut(usize::from(known.number)) {
                *first = u8::try_from(place + 1).unwrap_or(u8::MAX);
            }
        }
        Self {
            tokens: token_headers.iter().map(|name| name.eq_ignore_ascii_case("authorization")).collect(),
            needs_remote_addr: matches!(source, Some(Source::RemoteAddr)),
            known,
            first,
        }
    }

    /// Whether users' tokens may come in `Authorization`.
    pub(super) fn has_authorization(&self) -> bool {
        self.tokens.contains(&true)
    }

    /// What a name in lower case means; `None` for one that means nothing, but perhaps by how it begins.
    #[inline]
    fn get(&self, name: &[u8]) -> Option<&Known> {
        let number = number_of(name);
        let place = usize::from(*self.first.get(usize::from(number))?).checked_sub(1)?;
        self.find_from(place, number, name)
    }

    #[inline(never)]
    fn find_from(&self, place: usize, number: u8, name: &[u8]) -> Option<&Known> {
        let from_there = self.known.get(place..)?.iter();
        from_there.take_while(|known| known.number <= number).find(|known| *known.name == *name)
    }
}

/// Of a name's length, first and last byte.
#[inline]
fn number_of(name: &[u8]) -> u8 {
    let [length, ..] = name.len().to_le_bytes();
    let (first, last) = (name.first().unwrap_or(&0), name.last().unwrap_or(&0));
    length.wrapping_mul(67).wrapping_add(first.wrapping_mul(31)).wrapping_add(*last)
}

/// What a request's header lines say. The default is what is known where nginx's Lua interface did not show all lines.
#[derive(Debug, Default)]
pub(super) struct Headers<'a> {
    /// All lines are known, and those that go no further can be removed. Not so where one of them has a name by which
    /// nginx's Lua module finds nothing: it escapes what HTTP does not allow in a name. nginx drops such lines itself,
    /// unless `ignore_invalid_headers` is off.
    pub(super) are_whole: bool,
    pub(super) tenant: Lines<&'a [u8]>,
    pub(super) credential: Lines<Credential<'a>>,
    /// A proxy named its client.
    pub(super) is_forwarded: bool,
    pub(super) cookies: SmallVec<[&'a [u8]; 2]>,
    pub(super) client_ip: Lines<&'a [u8]>,
    pub(super) connection: Connection,
    pub(super) upgrade: Lines<&'a [u8]>,
    pub(super) grafana: GrafanaContext<'a>,
    /// A line is there whose name reaches `$http_x_scope_orgid` as the tenants' does.
    pub(super) is_tenant_misspelled: bool,
    /// The lines that go no further, by their number; all lines of their name go with them.
    pub(super) removed: SmallVec<[u16; 16]>,
}

impl<'a> Headers<'a> {
    /// Reads the lines in their order, names in lower case. `forwarded`: names that are not removed.
    pub(super) fn read(
        names: &HeaderNames,
        forwarded: &[Box<[u8]>],
        lines: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let mut read = Self::default();
        let mut tokens: SmallVec<[Option<&'a [u8]>; 4]> = SmallVec::from_elem(None, names.tokens.len());
        let mut authorization: Option<(u16, &'a [u8], Scheme<'a>)> = None;
        let mut authorizations = 0_u32;
        let mut repeated = false;
        let mut are_whole = true;
        let mut person = false;
        let is_kept = |name: &[u8]| forwarded.iter().any(|kept| **kept == *name);
        for (number, (name, value)) in (0_u16..).zip(lines) {
            let Some(known) = names.get(name) else {
                if tunes_a_backend(name) && !is_kept(name) {
                    read.removed.push(number);
                    are_whole &= name.iter().copied().all(is_in_names);
                }
                continue;
            };
            if let Some(slot) = known.token.and_then(|place| tokens.get_mut(place)) {
                repeated |= slot.is_some();
                *slot = Some(value);
            }
            let mut is_service = false;
            if known.role == Role::Authorization {
                authorizations += 1;
                if let Some(scheme) = candidate(value) {
                    authorization = Some((number, value, scheme));
                }
                // A service token is ours, however it is written: no backend ever sees it, whatever is forwarded.
                is_service = !forwarded.is_empty() && holds_token(value);
            }
            let is_forwarded = is_kept(name) && !is_service;
            if known.is_client_ip {
                read.client_ip.add(value);
            }
            let goes = if known.token.is_some() {
                !is_forwarded
            } else {
                match known.role {
                    Role::Other => tunes_a_backend(name) && !is_forwarded,
                    Role::Tenant => {
                        read.tenant.add(value);
                        false
                    }
                    Role::Cookie => {
                        read.cookies.push(value);
                        false
                    }
                    Role::Connection => {
                        read.connection.add(value);
                        false
                    }
                    Role::Upgrade => {
                        read.upgrade.add(value);
                        false
                    }
                    Role::User => {
                        person = true;
                        false
                    }
                    Role::Forwarded => {
                        read.is_forwarded = true;
                        false
                    }
                    Role::Dashboard => first(&mut read.grafana.dashboard, value),
                    Role::Panel => first(&mut read.grafana.panel, value),
                    Role::Rule => first(&mut read.grafana.rule, value),
                    Role::Org => first(&mut read.grafana.org, value),
                    Role::Authorization | Role::Removed => !is_forwarded,
                    Role::Spelling => {
                        read.is_tenant_misspelled = true;
                        true
                    }
                }
            };
            if goes {
                read.removed.push(number);
            }
        }

        // The first present token header counts, even if empty or broken.
        let is_authorization = |place: usize| names.tokens.get(place) == Some(&true);
        let mut present = tokens.iter().enumerate().filter_map(|(place, value)| Some((place, (*value)?)));
        let mut credential =
            present.next().map(|(place, token)| Credential::User { token, bearer: is_authorization(place) });
        // A token header that is not the Authorization of a service token.
        let others =
            tokens.iter().enumerate().any(|(place, value)| value.is_some() && !is_authorization(place));
        // `Basic` beside a token header may be anything: Grafana can be told to send its own. Alone it is for the
        // engine to say what it is.
        if let Some((number, value, scheme)) = authorization
            && (matches!(scheme, Scheme::Bearer(_)) || !others || Credentials::read(value).is_some())
        {
            credential = Some(Credential::Service { header: value, attended: others || person });
            repeated |= authorizations > 1;
            // It is ours: no backend ever sees it, whatever is forwarded.
            if !read.removed.contains(&number) {
                read.removed.push(number);
            }
        }
        read.are_whole = are_whole;
        read.credential = match credential {
            _ if repeated => Lines::Several,
            Some(credential) => Lines::One(credential),
            None => Lines::None,
        };
        read
    }
}

fn first<'a>(known: &mut Option<&'a [u8]>, value: &'a [u8]) -> bool {
    known.get_or_insert(value);
    false
}

/// Whether a header is removed because of how its name begins, in lower case: what a backend calls its own, but for
/// the one that only chooses the form of Loki's answer, and Mimir's `X-Read-Consistency`, `-Offsets` and `-Max-Delay`.
#[inline]
fn tunes_a_backend(name: &[u8]) -> bool {
    let [b'x', b'-', letter, ..] = name else { return false };
    match letter {
        b'l' => name.starts_with(b"x-loki-") && name != b"x-loki-response-encoding-flags",
        b'm' => name.starts_with(b"x-mimir-"),
        b'c' => name.starts_with(b"x-cortex-"),
        b't' => name.starts_with(b"x-tenantauth-"),
        b'r' => name.starts_with(b"x-read-consistency"),
        _ => false,
    }
}

/// Whether HTTP allows this byte in a header's name, in lower case (RFC 9110, section 5.6.2).
fn is_in_names(byte: u8) -> bool {
    crate::text::is_token_byte(byte) && !byte.is_ascii_uppercase()
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
