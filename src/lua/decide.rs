//! One request from Lua's side, whichever way it came: what nginx knows about it -> what Lua has to do.

use crate::audit::Text;
use crate::client_ip::cookie::Remaining;
use crate::engine::{Needs, Request, Rewrite, Server, undecided};
use crate::metrics::bucket_of;
use crate::reason::Reason;
use crate::scope::BackendSet;
use std::cell::RefCell;
use std::mem::swap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

/// Every `enforce { ... }` of the configuration that was met so far. Of the process, like the engine: under
/// `lua_code_cache off` every request has a Lua state of its own. They are never given back: so a thread keeps what it
/// found, and a request takes no lock for it.
static SERVERS: RwLock<Vec<&'static Server>> = RwLock::new(Vec::new());

thread_local! {
    /// The beginning of `SERVERS` that this thread knows.
    static KNOWN: RefCell<Vec<&'static Server>> = const { RefCell::new(Vec::new()) };
}

/// The code that says: come again, with `$remote_addr`.
pub(super) const NEEDS_REMOTE_ADDR: i64 = -1;

/// The code that says: come again, with what the request's connection is.
pub(super) const NEEDS_UPGRADABLE: i64 = -2;

/// The code that says: come again, when nginx has taken out what this code less the given one says.
const NEEDS_REWRITE: i64 = -3;

/// What a code below [`NEEDS_UPGRADABLE`] asks for.
pub(super) fn rewrite_of(code: i64) -> Rewrite {
    Rewrite::from_number(u8::try_from(NEEDS_REWRITE - code).unwrap_or_default())
}

/// What to do with the Cookie header of an allowed request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cookies {
    #[default]
    Keep = 0,
    Remove = 1,
    Set = 2,
    /// The whole gateway only records: the request goes on as it came, no header is changed or removed.
    LeaveAll = 3,
}

/// What Lua has to do. Kept from request to request, so that nothing is allocated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The tally of the decision, whose lowest part is the reason; or what has to be done before, which is negative.
    pub(super) code: i64,
    pub(super) nanoseconds: u64,
    /// The bucket of that time.
    pub(super) bucket: usize,
    /// The members of the audit record.
    pub(super) record: Text,
    /// The tenants in canonical form, where the header has to be set, or does not hold them: of a request that was
    /// denied, or that the gateway only watches.
    pub(super) tenants: Option<String>,
    pub(super) cookies_to: Cookies,
    /// The Cookie header to set.
    pub(super) cookies: Vec<u8>,
    /// The numbers of the header lines to remove.
    pub(super) removed: Vec<u16>,
}

impl Answer {
    fn clear(&mut self) {
        let Self { code, nanoseconds, bucket, record, tenants, cookies_to, cookies, removed } = self;
        (*code, *nanoseconds, *bucket) = (0, 0, 0);
        record.clear();
        *tenants = None;
        *cookies_to = Cookies::Keep;
        cookies.clear();
        removed.clear();
    }

    fn set_undecided(&mut self, (code, record): (i64, Text), cookies_to: Cookies) {
        self.clear();
        self.code = code;
        self.record = record;
        self.cookies_to = cookies_to;
    }
}

/// The number by which [`decide`] knows a server of the configuration.
pub(super) fn number_of(server: Server) -> usize {
    let mut servers = SERVERS.write().unwrap_or_else(PoisonError::into_inner);
    servers.iter().position(|known| **known == server).unwrap_or_else(|| {
        servers.push(Box::leak(Box::new(server)));
        servers.len() - 1
    })
}

/// The server of this number; `None` for a number that [`number_of`] did not give.
pub(super) fn server(number: usize) -> Option<&'static Server> {
    KNOWN.with_borrow_mut(|known| {
        if number >= known.len() {
            known.clone_from(&SERVERS.read().unwrap_or_else(PoisonError::into_inner));
        }
        known.get(number).copied()
    })
}

/// Decides one request. A panic is a denial: the worker goes on.
pub(super) fn decide<'a>(
    number: usize,
    request: &Request<'a>,
    lines: Option<impl Iterator<Item = (&'a [u8], &'a [u8])>>,
    answer: &mut Answer,
) {
    let started = Instant::now();
    answer.clear();
    let server = server(number);
    let backends = server.map_or(BackendSet::ALL, |server| server.backends);
    let Some(engine) = super::engine() else {
        let undecided = undecided(Reason::PolicyUnavailable, false, backends, request);
        return answer.set_undecided(undecided, Cookies::Keep);
    };
    let answered = server.and_then(|server| {
        guarded(|| {
            #[cfg(test)]
            tests_panic(request.request_uri);
            engine.enforce(server, request, lines, |verdict| {
                answer.code = verdict.tally.to_code_or_internal_error();
                swap(&mut answer.record, verdict.record);
                if verdict.tenants_rewritten || verdict.shadow_mode || !verdict.passes() {
                    answer.tenants = verdict.tenants.map(ToString::to_string);
                }
                answer.cookies_to = match &verdict.cookies {
                    _ if verdict.shadow_mode => Cookies::LeaveAll,
                    Remaining::Unchanged => Cookies::Keep,
                    Remaining::Nothing => Cookies::Remove,
                    Remaining::Rewritten(rest) => {
                        answer.cookies.extend_from_slice(rest);
                        Cookies::Set
                    }
                };
                answer.removed.extend_from_slice(verdict.removed);
                answer.nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                answer.bucket = bucket_of(answer.nanoseconds);
            })
        })
    });
    match answered {
        Some(Ok(())) => {}
        Some(Err(Needs::RemoteAddr)) => answer.code = NEEDS_REMOTE_ADDR,
        Some(Err(Needs::Upgradable)) => answer.code = NEEDS_UPGRADABLE,
        Some(Err(Needs::Rewrite(rewrite))) => answer.code = NEEDS_REWRITE - i64::from(rewrite.to_number()),
        None => {
            let (code, record, passes) = engine.internal_error(backends, request);
            answer.set_undecided((code, record), if passes { Cookies::LeaveAll } else { Cookies::Keep });
        }
    }
}

/// Stands for a mistake of ours that only one request meets.
#[cfg(test)]
fn tests_panic(request_uri: &[u8]) {
    assert_ne!(request_uri, b"/panic", "deliberate, in a test");
}

/// What `decide` returns, or `None` where it panicked: a denial for one request, never the end of a worker.
pub(super) fn guarded<T>(decide: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(decide)).ok()
}
