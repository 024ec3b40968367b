//! The same reading in plain steps, from contract section 4: every name is compared with every other, and each question
//! is asked of all lines.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "built for tests and fuzzing alone"
)]

use super::{Credential, HeaderNames, Headers, Lines, Source};
use crate::token::service::{Credentials, holds_token};

/// A header line: its name in lower case, and its value.
pub(crate) type Line<'a> = (&'a [u8], &'a [u8]);

/// What a policy and a server of the configuration say of headers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) tokens: Vec<&'static str>,
    pub(crate) client_ip: Option<&'static str>,
    pub(crate) forwarded: Vec<&'static str>,
}

/// Every name that means something to some plan, and some that come close.
pub(crate) const SOME_NAMES: [&str; 43] = [
    "x-scope-orgid",
    "cookie",
    "upgrade",
    "x-grafana-user",
    "x-dashboard-uid",
    "x-panel-id",
    "x-rule-uid",
    "x-grafana-org-id",
    "authorization",
    "x-grafana-id",
    "x-ds-authorization",
    "x-prom-label-policy",
    "x-scope-userid",
    "x-query-tags",
    "http2-settings",
    "x_scope_orgid",
    "x-loki-a",
    "x-mimir-b",
    "x-id-token",
    "x-real-ip",
    "x-lokia",
    "x-other",
    "x-id-tokem",
    "cookif",
    "x-forwarded-for",
    "x_forwarded_for",
    "connection",
    "x-query-queue-time",
    "recent-data-target",
    "sharding-control",
    "instant-split-control",
    "x-filter-queryables",
    "x-promql-enginetype",
    "x-request-logging-headers-key",
    "x-pyroscope-collect-diagnostics",
    "x-read-consistency",
    "x-read-consistency-offsets",
    "x-cortex-c",
    "x-tenantauth-subject",
    "x-loki-response-encoding-flags",
    "x-loki-response-encoding-flag",
    "x-cortexc",
    "x-read-consistenc",
];

/// Names of token headers, as policies write them.
pub(crate) const TOKEN_PLANS: [&[&str]; 4] = [
    &["X-Id-Token"],
    &["X-Id-Token", "X-Other"],
    &["Authorization"],
    &["X-Other", "Authorization", "X-Id-Token"],
];

/// Headers that carry the client's address, some of which mean something else too.
pub(crate) const CLIENT_IP_PLANS: [Option<&str>; 7] = [
    None,
    Some("X-Real-IP"),
    Some("Authorization"),
    Some("X-Loki-A"),
    Some("X-Grafana-User"),
    Some("X-Id-Token"),
    Some("X-Forwarded-For"),
];

/// Removed whatever the policy says, unless it is forwarded.
const REMOVED: [&str; 15] = [
    "authorization",
    "x-grafana-id",
    "x-ds-authorization",
    "x-prom-label-policy",
    "x-scope-userid",
    "x-query-tags",
    "http2-settings",
    "x-query-queue-time",
    "recent-data-target",
    "sharding-control",
    "instant-split-control",
    "x-filter-queryables",
    "x-promql-enginetype",
    "x-request-logging-headers-key",
    "x-pyroscope-collect-diagnostics",
];

/// Beginnings of names, likewise.
const BEGINNINGS: [&str; 5] = ["x-loki-", "x-mimir-", "x-cortex-", "x-tenantauth-", "x-read-consistency"];

/// Begins so, and stays: it only chooses the form of an answer.
const KEPT: &str = "x-loki-response-encoding-flags";

/// Removed always: they reach a variable of nginx that belongs to the tenant's header.
const SPELLINGS: [&str; 3] = ["x_scope_orgid", "x-scope_orgid", "x_scope-orgid"];

impl Plan {
    /// Whether the lines of this name are removed, but for what they hold.
    fn removes(&self, name: &[u8]) -> bool {
        let is = |one: &&str| one.as_bytes() == name;
        let is_token = self.tokens.iter().any(|token| token.to_ascii_lowercase().as_bytes() == name);
        let tunes =
            name != KEPT.as_bytes() && BEGINNINGS.iter().any(|start| name.starts_with(start.as_bytes()));
        let goes = is_token || tunes || REMOVED.iter().any(is);
        goes && !self.forwarded.iter().any(is) || SPELLINGS.iter().any(is)
    }
}

/// Holds what [`Headers::read`] makes of these lines against the model; returns whether they name a tenant and carry a
/// token.
///
/// # Errors
/// What differs.
pub(crate) fn agrees(plan: &Plan, lines: &[Line<'_>]) -> Result<bool, String> {
    let tokens: Vec<Box<str>> = plan.tokens.iter().map(|name| (*name).into()).collect();
    let source =
        plan.client_ip.map(|name| Source::Header { name: name.into(), trusted_peers: Default::default() });
    let forwarded: Vec<Box<[u8]>> = plan.forwarded.iter().map(|name| name.as_bytes().into()).collect();
    let names = HeaderNames::new(&tokens, source.as_ref());
    let read = Headers::read(&names, &forwarded, lines.iter().copied());
    let of = |wanted: &str| -> Vec<&[u8]> {
        let wanted = wanted.to_ascii_lowercase();
        lines.iter().filter(|(name, _)| *name == wanted.as_bytes()).map(|(_, value)| *value).collect()
    };

    // === What is there once, or is known to be there more than once
    let single = |values: Vec<_>| match *values {
        [] => Lines::None,
        [only] => Lines::One(only),
        _ => Lines::Several,
    };
    equal("the tenant", read.tenant, single(of("x-scope-orgid")))?;
    let addresses = plan.client_ip.map(of).unwrap_or_default();
    equal("the client's address", read.client_ip, single(addresses))?;
    equal("the cookies", read.cookies.to_vec(), of("cookie"))?;
    equal("the upgrade", read.upgrade, single(of("upgrade")))?;
    let connection = of("connection").join(&b',').to_ascii_lowercase();
    let connection: Vec<&[u8]> = connection
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .collect();
    let options: Vec<&str> = ["close", "keep-alive", "te", "upgrade"]
        .into_iter()
        .filter(|option| connection.contains(&option.as_bytes()))
        .collect();
    let others = connection.iter().any(|name| !options.iter().any(|option| option.as_bytes() == *name));
    let read_connection = (read.connection.kept(), read.connection.names_others());
    equal("the connection", read_connection, (options.join(", "), others))?;
    let claimed = [read.grafana.dashboard, read.grafana.panel, read.grafana.rule, read.grafana.org];
    let names = ["x-dashboard-uid", "x-panel-id", "x-rule-uid", "x-grafana-org-id"];
    equal("what Grafana claims", claimed, names.map(|name| of(name).first().copied()))?;

    // === The token
    let present = |name: &&&str| !of(name).is_empty();
    let first = plan.tokens.iter().find(present);
    let others = plan.tokens.iter().any(|name| *name != "Authorization" && !of(name).is_empty());
    let value_of = |number: &usize| lines[*number].1;
    let authorizations: Vec<usize> =
        (0..lines.len()).filter(|number| lines[*number].0 == b"authorization").collect();
    let candidate =
        authorizations.iter().rfind(|number| is_bearer(value_of(number)) || is_basic(value_of(number)));
    let is_service = |value: &[u8]| is_bearer(value) || !others || Credentials::read(value).is_some();
    let service = candidate.filter(|number| is_service(value_of(number)));
    equal("whether a proxy names its client", read.is_forwarded, !of("x-forwarded-for").is_empty())?;
    let repeated =
        plan.tokens.iter().any(|name| of(name).len() > 1) || (service.is_some() && authorizations.len() > 1);
    let credential = match (service, first) {
        _ if repeated => Lines::Several,
        (Some(number), _) => {
            let attended = others || !of("x-grafana-user").is_empty();
            Lines::One(Credential::Service { header: value_of(number), attended })
        }
        (None, Some(name)) => {
            Lines::One(Credential::User { token: of(name)[0], bearer: *name == "Authorization" })
        }
        (None, None) => Lines::None,
    };
    equal("the credential", read.credential, credential)?;

    // === What goes no further
    let mut gone: Vec<usize> = read.removed.iter().map(|number| usize::from(*number)).collect();
    gone.sort_unstable();
    let expected: Vec<usize> = (0..lines.len())
        .filter(|number| {
            let (name, value) = lines[*number];
            plan.removes(name) || (name == b"authorization" && holds_token(value)) || service == Some(number)
        })
        .collect();
    equal("the removed lines", &gone, &expected)?;
    let named = |number: &usize| lines[*number].0;
    let escaped = |byte: &u8| *byte <= b' ' || *byte >= 127 || b"\"(),/:;<=>?@[\\]{}".contains(byte);
    let unremovable = expected
        .iter()
        .any(|number| named(number).iter().any(|byte| escaped(byte) || byte.is_ascii_uppercase()));
    equal("whether all of them can be removed", read.are_whole, !unremovable)?;
    // Lines are removed by their name, all of it: no service token is left in one that goes on.
    let left = lines.iter().filter(|(name, _)| gone.iter().all(|number| lines[*number].0 != *name));
    for (_, value) in left.filter(|(name, _)| *name == b"authorization") {
        let text = String::from_utf8_lossy(value);
        equal("what is left of a service token", has_service_token(&text), false)?;
        equal("what is left of a service account", Credentials::read(value).is_some(), false)?;
    }
    Ok(read.credential.is_some() && read.tenant.is_some())
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, read: T, model: T) -> Result<(), String> {
    if read == model { Ok(()) } else { Err(format!("{what}: {read:?} instead of {model:?}")) }
}

/// `Bearer` with the beginning of a service token, in no more than 1024 bytes.
fn is_bearer(value: &[u8]) -> bool {
    let blanks = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    value.len() <= 1024 && value.to_ascii_lowercase().starts_with(b"bearer ") && {
        let rest = &value[7..];
        rest[blanks(rest)..].starts_with(b"tas_")
    }
}

/// `Basic` with whatever, in no more than 1024 bytes.
fn is_basic(value: &[u8]) -> bool {
    value.len() <= 1024 && value.to_ascii_lowercase().starts_with(b"basic ")
}

/// A whole service token that is a word of its own.
fn has_service_token(text: &str) -> bool {
    let in_a_token = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    text.split(|letter| !in_a_token(letter)).any(|word| word.len() == 47 && word.starts_with("tas_"))
}
