//! One request: from what nginx knows about it to a verdict. Runs on the event loop.

use super::checks::{Caches, Parsed, check, cookie_name};
use super::headers::{HeaderNames, Headers};
use super::rewrite::{Rewrite, Upgrade, hop_by_hop};
use super::task::Task;
use super::verdict::{Facts, Verdict};
use super::{Engine, Live, Worker, lock, since_epoch};
use crate::audit;
use crate::client_ip::cookie;
use crate::decision::Decision;
use crate::lines::Lines;
use crate::reason::Reason;
use crate::scope::BackendSet;
use crate::tenant::TenantList;
use crate::token::digest::keyed_hash;
use std::sync::LazyLock;
use std::time::Duration;

/// What the configuration of one `enforce` says, the same for all its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The route tables to consult.
    pub backends: BackendSet,
    /// External prefix of every path, without trailing slash; empty for none.
    pub path_prefix: String,
    /// The clients of this server connect directly: their address is the connection's.
    pub client_is_remote_addr: bool,
    /// Lower-case names of headers that are otherwise removed and go on here.
    pub forward_headers: Vec<Box<[u8]>>,
}

/// What nginx knows of one request besides its header lines.
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct Request<'a> {
    pub method: &'a [u8],
    /// `$request_uri`: undecoded, with the query.
    pub request_uri: &'a [u8],
    /// `$uri`: decoded, perhaps rewritten.
    pub uri: &'a [u8],
    /// `$remote_addr`; `None` where it was not asked for.
    pub remote_addr: Option<&'a [u8]>,
    /// The TCP peer: `$realip_remote_addr`.
    pub peer: &'a [u8],
    pub upgradable: Upgradable,
}

/// What an `Upgrade` header can be on the connection of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Upgradable {
    /// Not asked for: few requests have such a header.
    #[default]
    Unasked = 0,
    /// The request is one of HTTP/1.1.
    Yes = 1,
    /// HTTP/2 and HTTP/3 know no such header (RFC 9113, section 8.6), and of HTTP/1.0 it is ignored (RFC 9110, section
    /// 7.8): to nginx it means something all the same.
    No = 2,
    /// It was removed, and nginx still has a copy of it, or may have one.
    Kept = 3,
}

impl Upgradable {
    /// What Lua says by this number.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Unasked,
            1 => Self::Yes,
            2 => Self::No,
            _ => Self::Kept,
        }
    }
}

/// What the caller has to do before it comes again with the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Give `$remote_addr`: the policy in force looks at it.
    RemoteAddr,
    /// Say whether the connection can be upgraded.
    Upgradable,
    /// Have nginx take something out of the request.
    Rewrite(Rewrite),
}

/// What is read of a request that no policy decides: the record tells its context all the same.
static WITHOUT_POLICY: LazyLock<HeaderNames> = LazyLock::new(|| HeaderNames::new(&[], None));

impl Engine {
    /// Reads the header lines of a request as the policy in force says, and decides it. Total: whatever goes wrong is
    /// a denial.
    ///
    /// - `lines`: the header lines in their order, names in lower case; `None` where nginx's Lua interface did not show
    ///   all.
    /// - `apply` is called once with the verdict, and what it returns is returned.
    ///
    /// # Errors
    /// Where the caller has to come again: with `$remote_addr`, which few policies look at, or without headers that few
    /// requests have.
    pub fn enforce<'a, T>(
        &self,
        server: &Server,
        request: &Request<'a>,
        lines: Option<impl Iterator<Item = (&'a [u8], &'a [u8])>>,
        apply: impl FnOnce(Verdict<'_>) -> T,
    ) -> Result<T, Needs> {
        let guard = self.live();
        let live = guard.as_deref();
        let names = live.map_or(&*WITHOUT_POLICY, |live| &*live.header_names);
        let looks_at_peer = server.client_is_remote_addr || names.needs_remote_addr;
        if looks_at_peer && request.remote_addr.is_none() {
            return Err(Needs::RemoteAddr);
        }
        let headers =
            lines.map_or_else(Headers::default, |lines| Headers::read(names, &server.forward_headers, lines));
        // Read once: one time decides whether shadow mode is over.
        let now = since_epoch();
        let upgrade = if request.upgradable == Upgradable::Kept {
            Upgrade::Kept
        } else if headers.upgrade.is_some() || headers.connection.is_unusual() {
            hop_by_hop(live, server, request, &headers, now.as_secs())?
        } else {
            Upgrade::None
        };
        let joined;
        let cookies = match &*headers.cookies {
            [] => None,
            [line] => Some(*line),
            lines => {
                joined = lines.join(&b'\n');
                Some(&*joined)
            }
        };
        Ok(self.decide(live, &Parsed { server, request, headers: &headers, cookies, upgrade }, now, apply))
    }

    /// Decides a request with this policy. `now`: since the Unix epoch.
    fn decide<T>(
        &self,
        live: Option<&Live>,
        parsed: &Parsed<'_, '_>,
        now: Duration,
        apply: impl FnOnce(Verdict<'_>) -> T,
    ) -> T {
        let mut worker = lock(&self.worker);
        let Worker { tokens, services, cookies, record, clock } = &mut *worker;
        clock.set(now);
        let mut facts = Facts::default();
        let decision = match live {
            None => Decision::denied(Reason::PolicyUnavailable),
            Some(live) => {
                if let Some(retired) = tokens.set_generation(live.keys_generation) {
                    self.send(Task::Release(Box::new(retired)));
                }
                let caches = Caches { tokens, services, cookies };
                check(live, caches, parsed, now.as_secs(), &mut facts).unwrap_or_else(Decision::denied)
            }
        };

        let snapshot = live.map(|live| &live.compiled.snapshot);
        let shadow_mode = snapshot.is_some_and(|snapshot| snapshot.is_shadow(now.as_secs()));
        let hash = |query: &[u8]| keyed_hash(&lock(&self.hash_key), query);
        audit::render(record, &facts.record(parsed, &decision, snapshot, shadow_mode), clock, hash);
        let cookies = match parsed.cookies.filter(|_| decision.is_allow() && !shadow_mode) {
            Some(lines) => cookie::remove(lines, cookie_name(live.and_then(|live| live.client_ip.as_ref()))),
            None => cookie::Remaining::Unchanged,
        };
        let tenants = facts.tenants.as_ref();
        let came_so = |tenants: &TenantList<'_>| match parsed.headers.tenant {
            Lines::One(header) => tenants.is_canonical_form_of(header),
            Lines::None | Lines::Several => false,
        };
        apply(Verdict {
            tally: facts.tally(parsed.server.backends, &decision, shadow_mode),
            decision,
            record,
            tenants,
            tenants_rewritten: tenants.is_some_and(|tenants| !came_so(tenants)),
            cookies,
            removed: &parsed.headers.removed,
            shadow_mode,
        })
    }
}
