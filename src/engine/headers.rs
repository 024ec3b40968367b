//! The header lines of a request -> what a decision needs of them, and which of them no backend may see.
//!
//! The lines come as nginx keeps them; most are only looked at by name.

use crate::audit::GrafanaContext;
use crate::client_ip::Source;
use crate::token::service::{Credentials, MAX_HEADER_LEN, PREFIX, holds_token};
use smallvec::SmallVec;

/// Names that reach nginx's `$http_x_scope_orgid` with `underscores_in_headers on`, which http.conf reads; no backend
/// knows them.
const SPELLINGS: [&[u8]; 3] = [b"x_scope_orgid", b"x-scope_orgid", b"x_scope-orgid"];

/// Which headers a policy makes a worker look for. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeaderNames {
    /// The token headers, in the order in which they count.
    pub(super) tokens: Vec<Box<[u8]>>,
    /// The header that carries the client's address, if one does.
    pub(super) client_ip: Option<Box<[u8]>>,
    /// The client's address is that of the connection.
    pub(super) needs_remote_addr: bool,
    /// The shapes of all names that mean something.
    shapes: Shapes,
}

/// Names that mean something whatever the policy says.
const NAMES: [&[u8]; 18] = [
    b"x-scope-orgid",
    b"cookie",
    b"upgrade",
    b"x-grafana-user",
    b"x-dashboard-uid",
    b"x-panel-id",
    b"x-rule-uid",
    b"x-grafana-org-id",
    b"authorization",
    b"x-grafana-id",
    b"x-ds-authorization",
    b"x-prom-label-policy",
    b"x-scope-userid",
    b"x-query-tags",
    b"http2-settings",
    SPELLINGS[0],
    SPELLINGS[1],
    SPELLINGS[2],
];

/// A set of names, known by length and by their first and last byte: most header lines are told apart so, and are not
/// compared with anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shapes(Box<[u64; 64]>);

impl Default for Shapes {
    fn default() -> Self {
        Self(Box::new([0; 64]))
    }
}

impl Shapes {
    /// The word and the bit of a name's shape.
    fn place(name: &[u8]) -> Option<(usize, u64)> {
        let (first, last) = (name.first()?, name.last()?);
        let number = name.len() * 67 + usize::from(*first) * 31 + usize::from(*last);
        Some((number / 64 % 64, 1 << (number % 64)))
    }

    fn add(&mut self, name: &[u8]) {
        if let Some((word, bit)) = Self::place(name)
            && let Some(word) = self.0.get_mut(word)
        {
            *word |= bit;
        }
    }

    /// False for no name that was added, and for most others.
    fn may_hold(&self, name: &[u8]) -> bool {
        Self::place(name).is_some_and(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }
}

impl HeaderNames {
    /// The names for a policy's `token_headers` and its source of client addresses.
    pub(super) fn new(token_headers: &[Box<str>], source: Option<&Source>) -> Self {
        let lower = |name: &str| name.to_ascii_lowercase().into_bytes().into();
        let tokens: Vec<Box<[u8]>> = token_headers.iter().map(|name| lower(name)).collect();
        let client_ip = match source {
            Some(Source::Header { name, .. }) => Some(lower(name)),
            _ => None,
        };
        let mut shapes = Shapes::default();
        let of_policy = tokens.iter().chain(&client_ip).map(|name| &**name);
        NAMES.into_iter().chain(of_policy).for_each(|name| shapes.add(name));
        Self { tokens, client_ip, needs_remote_addr: matches!(source, Some(Source::RemoteAddr)), shapes }
    }
}

/// What a request's header lines say. Values are those of the only line; where there were several, a flag says so.
#[derive(Debug, Default)]
pub(super) struct Headers<'a> {
    pub(super) tenant: Option<&'a [u8]>,
    pub(super) tenant_repeated: bool,
    /// The first present of the token headers; or `Authorization`, where it may carry a service token.
    pub(super) token: Option<&'a [u8]>,
    pub(super) token_repeated: bool,
    pub(super) token_is_authorization: bool,
    pub(super) token_is_service: bool,
    pub(super) token_is_attended: bool,
    pub(super) cookies: SmallVec<[&'a [u8]; 2]>,
    pub(super) client_ip: Option<&'a [u8]>,
    pub(super) client_ip_repeated: bool,
    pub(super) upgrade: Option<&'a [u8]>,
    pub(super) grafana: GrafanaContext<'a>,
    /// The lines that go no further, by their number; all lines of their name go with them.
    pub(super) removed: SmallVec<[u16; 16]>,
}

/// What an `Authorization` header may carry of a service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// `Bearer` with a service token.
    Bearer,
    /// `Basic` with whatever.
    Basic,
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
        let mut authorization: Option<(u16, &'a [u8], Service)> = None;
        let mut authorizations = 0_u32;
        let mut person = false;
        let is_kept = |name: &[u8]| forwarded.iter().any(|kept| **kept == *name);
        for (number, (name, value)) in (0_u16..).zip(lines) {
            if !names.shapes.may_hold(name) && !tunes_a_backend(name) {
                continue;
            }
            // A service token is ours, however it is written: no backend ever sees it, whatever is forwarded.
            let is_kept = |name: &[u8]| is_kept(name) && !(name == b"authorization" && holds_token(value));
            let place = names.tokens.iter().position(|token| **token == *name);
            if let Some(slot) = place.and_then(|place| tokens.get_mut(place)) {
                read.token_repeated |= slot.is_some();
                *slot = Some(value);
            }
            if name == b"authorization" {
                authorizations += 1;
                if let Some(found) = service_scheme(value) {
                    authorization = Some((number, value, found));
                }
            }
            let goes = if place.is_some() {
                !is_kept(name)
            } else if names.client_ip.as_deref() == Some(name) {
                read.client_ip_repeated |= read.client_ip.is_some();
                read.client_ip = Some(value);
                false
            } else {
                match name {
                    b"x-scope-orgid" => {
                        read.tenant_repeated |= read.tenant.is_some();
                        read.tenant = Some(value);
                        false
                    }
                    b"cookie" => {
                        read.cookies.push(value);
                        false
                    }
                    b"upgrade" => {
                        // A second line makes it something that no route knows.
                        read.upgrade = Some(if read.upgrade.is_some() { b"," } else { value });
                        false
                    }
                    b"x-grafana-user" => {
                        person = true;
                        false
                    }
                    b"x-dashboard-uid" => first(&mut read.grafana.dashboard, value),
                    b"x-panel-id" => first(&mut read.grafana.panel, value),
                    b"x-rule-uid" => first(&mut read.grafana.rule, value),
                    b"x-grafana-org-id" => first(&mut read.grafana.org, value),
                    _ => is_removed(name) && (!is_kept(name) || SPELLINGS.contains(&name)),
                }
            };
            if goes {
                read.removed.push(number);
            }
        }

        // The first present token header counts, even if empty or broken.
        let is_authorization =
            |place: usize| names.tokens.get(place).is_some_and(|name| **name == *b"authorization");
        let mut present = tokens.iter().enumerate().filter_map(|(place, value)| Some((place, (*value)?)));
        if let Some((place, value)) = present.next() {
            read.token = Some(value);
            read.token_is_authorization = is_authorization(place);
        }
        // A token header that is not the Authorization of a service token.
        let others =
            tokens.iter().enumerate().any(|(place, value)| value.is_some() && !is_authorization(place));
        // `Basic` beside a token header may be anything: Grafana can be told to send its own. Alone it is for the
        // engine to say what it is.
        if let Some((number, value, scheme)) = authorization
            && (scheme == Service::Bearer || !others || Credentials::read(value).is_some())
        {
            read.token = Some(value);
            read.token_is_service = true;
            read.token_is_attended = others || person;
            read.token_repeated |= authorizations > 1;
            // It is ours: no backend ever sees it, whatever is forwarded.
            if !read.removed.contains(&number) {
                read.removed.push(number);
            }
        }
        read
    }
}

fn first<'a>(known: &mut Option<&'a [u8]>, value: &'a [u8]) -> bool {
    known.get_or_insert(value);
    false
}

/// Whether a header is removed before the request goes on, beside the token headers: credentials, and what tunes a
/// backend (contract section 4).
fn is_removed(name: &[u8]) -> bool {
    match name {
        b"authorization"
        | b"x-grafana-id"
        | b"x-ds-authorization"
        | b"x-prom-label-policy"
        | b"x-scope-userid"
        | b"x-query-tags"
        | b"http2-settings" => true,
        _ => tunes_a_backend(name) || SPELLINGS.contains(&name),
    }
}

fn tunes_a_backend(name: &[u8]) -> bool {
    matches!(name, [b'x', b'-', b'l' | b'm', ..])
        && (name.starts_with(b"x-loki-") || name.starts_with(b"x-mimir-"))
}

/// Looks only at the beginning: Grafana sends an access token with nearly every request.
fn service_scheme(value: &[u8]) -> Option<Service> {
    if value.len() > MAX_HEADER_LEN {
        return None;
    }
    if let Some((scheme, rest)) = value.split_at_checked(7)
        && scheme.eq_ignore_ascii_case(b"bearer ")
    {
        return rest.trim_ascii_start().starts_with(PREFIX.as_bytes()).then_some(Service::Bearer);
    }
    let (scheme, _) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then_some(Service::Basic)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
