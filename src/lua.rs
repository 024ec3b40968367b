//! The Lua module: the native functions that the embedded Lua code calls, one line of work each.
//!
//! Denials are return values. An `Err` from here is a mistake of our own Lua code, and costs a traceback.

mod gateway;
mod shared_dict;

use crate::audit::GrafanaContext;
use crate::client_ip::cookie::Remaining;
use crate::engine::{
    Engine, Inherited, LAST_GOOD, Level, Options, Request, Server, Shared, undecided, unix_now,
};
use crate::metrics::{bucket_of, exposition};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet};
use crate::token;
use crate::token::service::Credentials;
use mlua::{BString, Lua, LuaString, Result, Table};
use shared_dict::SharedDict;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The embedded Lua code, by the names under which its parts import each other.
const CHUNKS: [(&str, &str); 8] = [
    ("denial", include_str!("../lua/tenantauth/denial.lua")),
    ("enforce", include_str!("../lua/tenantauth/enforce.lua")),
    ("environment", include_str!("../lua/tenantauth/environment.lua")),
    ("exposition", include_str!("../lua/tenantauth/exposition.lua")),
    ("grafana_gateway", include_str!("../lua/tenantauth/grafana_gateway.lua")),
    ("headers", include_str!("../lua/tenantauth/headers.lua")),
    ("options", include_str!("../lua/tenantauth/options.lua")),
    ("worker", include_str!("../lua/tenantauth/worker.lua")),
];
const INIT: &str = include_str!("../lua/tenantauth/init.lua");

/// The engine of this worker and the name of its shared dictionary.
///
/// Of the process and not of a Lua state: under `lua_code_cache off` every request has a state of its own, and
/// all of them must be decided by the policy that init_worker named.
static ENGINE: OnceLock<(Arc<Engine>, String)> = OnceLock::new();
static TIMERS_STARTED: AtomicBool = AtomicBool::new(false);
static WARNED: AtomicBool = AtomicBool::new(false);
/// init_worker was called and failed: its mistake must not be answered by deciding with some other policy.
static INIT_FAILED: AtomicBool = AtomicBool::new(false);

/// The code that says: the policy has changed since the headers were planned for.
const STALE_PLAN: i64 = -1;
/// The flags, as `enforce.lua` sets them.
const HEADERS_TRUNCATED: u64 = 1;
const TENANT_REPEATED: u64 = 2;
const TOKEN_REPEATED: u64 = 4;
const IP_HEADER_REPEATED: u64 = 8;
const TOKEN_IS_AUTHORIZATION: u64 = 16;
const TOKEN_IS_SERVICE: u64 = 32;
const TOKEN_IS_ATTENDED: u64 = 64;
/// How many values the flags take; the number of the plan stands above them.
const FLAGS: u64 = 128;

/// What `require "tenantauth"` gives.
///
/// # Errors
/// Where the environment lacks something: the message says what.
pub fn module(lua: &Lua) -> Result<Table> {
    let native = native(lua)?;
    let chunks = lua.create_table()?;
    for (name, source) in CHUNKS {
        chunks.set(name, lua.load(source).set_name(format!("=tenantauth/{name}.lua")).into_function()?)?;
    }
    lua.load(INIT).set_name("=tenantauth/init.lua").call((native, chunks))
}

fn engine() -> Option<&'static Arc<Engine>> {
    ENGINE.get().map(|(engine, _)| engine)
}

fn native(lua: &Lua) -> Result<Table> {
    let native = lua.create_table()?;
    native.set("version", env!("CARGO_PKG_VERSION"))?;
    add_lifecycle(lua, &native)?;
    add_decisions(lua, &native)?;
    add_exposition(lua, &native)?;
    gateway::add(lua, &native)?;
    Ok(native)
}

/// Start and state of this worker's engine.
fn add_lifecycle(lua: &Lua, native: &Table) -> Result<()> {
    native.set(
        "start",
        lua.create_function(|_, (policy, dict, interval, state_dir, fallback, keys): StartArguments| {
            let options = Options {
                policy: policy.into(),
                reload_interval: Duration::from_secs_f64(interval),
                state_dir: state_dir.map(Into::into),
            };
            let inherited = Inherited {
                policy: fallback.map(Into::into),
                keys: keys.into_iter().map(Into::into).collect(),
            };
            Ok(start(options, dict, inherited))
        })?,
    )?;
    native.set("attach", lua.create_function(|_, ()| Ok(ENGINE.get().map(|(_, dict)| dict.clone())))?)?;
    native.set(
        "claim_timers",
        lua.create_function(|_, ()| Ok(!TIMERS_STARTED.swap(true, Ordering::Relaxed)))?,
    )?;
    native.set(
        "set_init_failed",
        lua.create_function(|_, failed: bool| {
            INIT_FAILED.store(failed, Ordering::Relaxed);
            Ok(())
        })?,
    )?;
    native.set("init_failed", lua.create_function(|_, ()| Ok(INIT_FAILED.load(Ordering::Relaxed)))?)?;
    native.set("claim_warning", lua.create_function(|_, ()| Ok(!WARNED.swap(true, Ordering::Relaxed)))?)?;
    native.set(
        "readiness",
        lua.create_function(|_, ()| Ok(engine().map_or(1, |engine| engine.readiness() as u8)))?,
    )?;
    native.set(
        "next_message",
        lua.create_function(|_, ()| {
            Ok(engine().and_then(|engine| engine.next_message()).map_or((None, None), |(level, message)| {
                let level = match level {
                    Level::Error => "error",
                    Level::Warn => "warn",
                    Level::Notice => "notice",
                };
                (Some(level), Some(message))
            }))
        })?,
    )?;
    native.set("LAST_GOOD", LAST_GOOD)?;
    native.set(
        "share_policy",
        lua.create_function(|_, dict: Option<Table>| {
            if let Some(engine) = engine() {
                let mut dict = dict.map(SharedDict);
                engine.share_policy(dict.as_mut().map(|dict| dict as &mut dyn Shared));
            }
            Ok(())
        })?,
    )?;
    native.set(
        "take_reload_counts",
        lua.create_function(|_, ()| Ok(engine().map_or((0, 0), |engine| engine.take_reload_counts())))?,
    )?;
    native.set(
        "exchange",
        lua.create_function(|_, dict: Option<Table>| {
            if let Some(engine) = engine() {
                let mut dict = dict.map(SharedDict);
                engine.exchange(dict.as_mut().map(|dict| dict as &mut dyn Shared), unix_now());
            }
            Ok(())
        })?,
    )?;
    native.set(
        "take_counter",
        lua.create_function(|_, ()| {
            let grown = engine().and_then(|engine| engine.take_counter());
            Ok(grown.map_or((None, 0), |(sample, by)| (Some(sample), by)))
        })?,
    )?;
    native
        .set("revision", lua.create_function(|_, ()| Ok(engine().and_then(|engine| engine.revision())))?)?;
    native.set(
        "set_hash_key",
        lua.create_function(|_, key: LuaString| {
            if let Some(engine) = engine() {
                engine.set_hash_key(&key.as_bytes());
            }
            Ok(())
        })?,
    )?;
    native.set(
        "random_key",
        lua.create_function(|lua, ()| {
            let key = token::digest::random_key().map_err(|_| mlua::Error::runtime("no random bytes"))?;
            lua.create_string(key)
        })?,
    )
}

/// Policy, name of the shared dict, seconds between looks, state directory, and what former workers left: the last
/// good policy, and fetched keys.
type StartArguments = (String, String, f64, Option<String>, Option<BString>, Vec<BString>);

/// Starts this worker's engine, or finds the one that is there. Returns true, or nil and what is wrong.
fn start(options: Options, dict: String, inherited: Inherited) -> (Option<bool>, Option<String>) {
    if let Some((engine, other_dict)) = ENGINE.get() {
        return if *engine.options() == options && *other_dict == dict {
            (Some(true), None)
        } else {
            (None, Some("it was called before with other options".to_owned()))
        };
    }
    match Engine::start(options, inherited) {
        Ok(engine) => {
            ENGINE.get_or_init(|| (engine, dict));
            (Some(true), None)
        }
        Err(error) => (None, Some(format!("cannot start the background thread: {error}"))),
    }
}

/// The values of one `native.enforce`, in their order. Copies on purpose: mlua's handles to Lua strings cost several
/// times as much as copying even a whole token.
type EnforceArguments = (
    usize,
    u64,
    BString,
    BString,
    BString,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
    Option<BString>,
);

/// Code, nanoseconds, bucket, record, tenants to set, what to do with the cookies, cookies to set.
type EnforceAnswer = (i64, u64, usize, Option<String>, Option<String>, u8, Option<LuaString>);

/// What to do with the Cookie header of an allowed request.
const KEEP_COOKIES: u8 = 0;
const REMOVE_COOKIES: u8 = 1;
const SET_COOKIES: u8 = 2;
/// The request goes on as it came: no header is changed or removed.
const LEAVE_ALL: u8 = 3;

fn add_decisions(lua: &Lua, native: &Table) -> Result<()> {
    let servers: Rc<RefCell<Vec<Server>>> = Rc::default();
    native
        .set("is_backend", lua.create_function(|_, name: String| Ok(Backend::from_name(&name).is_some()))?)?;
    let known = Rc::clone(&servers);
    native.set(
        "server",
        lua.create_function(
            move |_, (backends, path_prefix, client_is_remote_addr): (String, String, bool)| {
                let backends = backends
                    .split(',')
                    .filter_map(Backend::from_name)
                    .fold(BackendSet::EMPTY, |all, backend| all.union(BackendSet::of(backend)));
                let mut known = known.borrow_mut();
                known.push(Server { backends, path_prefix, client_is_remote_addr });
                Ok(known.len() - 1)
            },
        )?,
    )?;
    native.set(
        "header_plan",
        lua.create_function(|_, ()| {
            Ok(engine().map_or((0, false, None, String::new()), |engine| {
                let plan = engine.header_plan();
                (plan.serial, plan.needs_remote_addr, plan.ip_header, plan.token_headers.join(","))
            }))
        })?,
    )?;
    native.set(
        "is_service",
        lua.create_function(|_, header: LuaString| Ok(Credentials::read(&header.as_bytes()).is_some()))?,
    )?;
    native.set(
        "holds_service_token",
        lua.create_function(|_, header: LuaString| Ok(token::service::holds_token(&header.as_bytes())))?,
    )?;
    let known = Rc::clone(&servers);
    native.set(
        "enforce",
        lua.create_function(move |lua, arguments: EnforceArguments| {
            enforce(lua, &known.borrow(), &arguments)
        })?,
    )?;
    native.set(
        "internal_error",
        lua.create_function(
            move |_, (server, method, request_uri, peer): (usize, LuaString, LuaString, LuaString)| {
                let known = servers.borrow();
                let backends = known.get(server).map_or(BackendSet::ALL, |server| server.backends);
                let (method, uri, peer) = (method.as_bytes(), request_uri.as_bytes(), peer.as_bytes());
                Ok(match engine() {
                    Some(engine) => engine.internal_error(backends, &method, &uri, &peer),
                    None => {
                        let reason = Reason::InternalError;
                        let (code, record) = undecided(reason, false, backends, &method, &uri, &peer);
                        (code, record, false)
                    }
                })
            },
        )?,
    )?;
    let reason_at = |number: usize| Reason::ALL.get(number).copied().unwrap_or(Reason::InternalError);
    native.set("reason_of", lua.create_function(move |_, number: usize| Ok(reason_at(number).name()))?)?;
    native.set(
        "denial_of",
        lua.create_function(|_, name: String| {
            let reason = Reason::from_name(&name)
                .filter(|reason| *reason != Reason::Granted)
                .unwrap_or(Reason::InternalError);
            Ok((reason.status(), reason.sentence()))
        })?,
    )
}

fn bytes(text: &Option<BString>) -> Option<&[u8]> {
    text.as_ref().map(|text| text.as_slice())
}

/// One request. A panic is a denial: the worker goes on.
fn enforce(lua: &Lua, servers: &[Server], arguments: &EnforceArguments) -> Result<EnforceAnswer> {
    let started = Instant::now();
    let (
        server,
        plan_and_flags,
        method,
        request_uri,
        uri,
        tenant,
        token,
        cookies,
        ip_header,
        remote_addr,
        peer,
        upgrade,
        dashboard,
        panel,
        rule,
        org,
    ) = arguments;
    let Some(server) = servers.get(*server) else { return Err(mlua::Error::runtime("no such server")) };
    let (plan, flags) = (plan_and_flags / FLAGS, plan_and_flags % FLAGS);
    let flag = |bit: u64| flags & bit != 0;
    let unjudged = |code, record, todo| Ok((code, 0, 0, Some(record), None, todo, None));
    let request = Request {
        method,
        request_uri,
        uri,
        tenant: bytes(tenant),
        token: bytes(token),
        token_is_authorization: flag(TOKEN_IS_AUTHORIZATION),
        token_is_service: flag(TOKEN_IS_SERVICE),
        token_is_attended: flag(TOKEN_IS_ATTENDED),
        cookies: bytes(cookies),
        ip_header: bytes(ip_header),
        remote_addr: bytes(remote_addr).unwrap_or_default(),
        peer: bytes(peer).unwrap_or_default(),
        upgrade: bytes(upgrade),
        grafana: GrafanaContext {
            dashboard: bytes(dashboard),
            panel: bytes(panel),
            rule: bytes(rule),
            org: bytes(org),
        },
        headers_truncated: flag(HEADERS_TRUNCATED),
        tenant_repeated: flag(TENANT_REPEATED),
        token_repeated: flag(TOKEN_REPEATED),
        ip_header_repeated: flag(IP_HEADER_REPEATED),
    };
    let Some(engine) = engine() else {
        let reason = Reason::PolicyUnavailable;
        let (code, record) = undecided(reason, false, server.backends, method, request_uri, request.peer);
        return unjudged(code, record, KEEP_COOKIES);
    };
    let answered = guarded(|| {
        #[cfg(test)]
        tests_panic(request_uri);
        engine.enforce(server, plan, &request, |verdict| -> Result<EnforceAnswer> {
            let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let code = i64::try_from(verdict.tally.to_code()).unwrap_or(STALE_PLAN);
            let set_tenants = verdict.tenants_rewritten || !verdict.passes();
            let tenants = verdict.tenants.filter(|_| set_tenants).map(ToString::to_string);
            let (cookies, rest) = match &verdict.cookies {
                _ if verdict.shadow_mode => (LEAVE_ALL, None),
                Remaining::Unchanged => (KEEP_COOKIES, None),
                Remaining::Nothing => (REMOVE_COOKIES, None),
                Remaining::Rewritten(rest) => (SET_COOKIES, Some(lua.create_string(rest)?)),
            };
            let record = Some(verdict.record.to_owned());
            Ok((code, nanoseconds, bucket_of(nanoseconds), record, tenants, cookies, rest))
        })
    });
    match answered {
        Some(Some(answer)) => answer,
        Some(None) => Ok((STALE_PLAN, 0, 0, None, None, KEEP_COOKIES, None)),
        None => {
            let (code, record, passes) =
                engine.internal_error(server.backends, method, request_uri, request.peer);
            unjudged(code, record, if passes { LEAVE_ALL } else { KEEP_COOKIES })
        }
    }
}

/// Stands for a mistake of ours that only one request meets.
#[cfg(test)]
fn tests_panic(request_uri: &[u8]) {
    assert_ne!(request_uri, b"/panic", "deliberate, in a test");
}

/// What `decide` returns, or `None` where it panicked: a denial for one request, never the end of a worker.
fn guarded<T>(decide: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(decide)).ok()
}

fn add_exposition(lua: &Lua, native: &Table) -> Result<()> {
    native.set(
        "exposition",
        lua.create_function(|_, shared: String| {
            let samples: Vec<(String, f64)> = shared
                .lines()
                .filter_map(|line| {
                    let (value, key) = line.split_once(' ')?;
                    Some((key.to_owned(), value.parse().ok()?))
                })
                .collect();
            Ok(exposition(&samples, &engine().map(|engine| engine.gauges()).unwrap_or_default()))
        })?,
    )?;
    native.set(
        "cache_entries",
        lua.create_function(|_, ()| Ok(engine().map_or(0, |engine| engine.cache_entries())))?,
    )?;
    native.set(
        "has_keys",
        lua.create_function(|_, ()| {
            Ok(engine().is_some_and(|engine| engine.gauges().jwks_keys.iter().all(|(_, count)| *count > 0)))
        })?,
    )?;
    native.set(
        "status",
        lua.create_function(|_, workers: String| {
            let mut status =
                engine().map_or_else(|| serde_json::json!({"serving": false}), |engine| engine.status());
            let workers: Vec<_> = workers
                .lines()
                .map(|line| {
                    let mut parts = line.splitn(4, ' ');
                    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
                    let (pid, entries, uptime) = (number(), number(), number());
                    let revision = parts.next().filter(|revision| !revision.is_empty());
                    serde_json::json!({
                        "pid": pid,
                        "revision": revision,
                        "uptime_seconds": uptime,
                        "token_cache_entries": entries,
                    })
                })
                .collect();
            if let Some(status) = status.as_object_mut() {
                status.insert("workers".into(), workers.into());
            }
            Ok(status.to_string())
        })?,
    )?;
    native.set("now", lua.create_function(|_, ()| Ok(unix_now()))?)
}

// Without the check mlua runs everything that makes a Lua string under a protected call of its own, at several times
// the cost of the string. What it guards against is Lua running out of memory, which ends an nginx worker in any case:
// ngx_http_lua itself makes its strings unprotected. A worker that ends is replaced, and lets nothing through.
#[cfg(feature = "module")]
#[mlua::lua_module(skip_memory_check)]
fn tenantauth(lua: &Lua) -> Result<Table> {
    module(lua).inspect_err(|error| {
        // nginx prints an error that is not a string as "unknown reason": what is wrong has to be logged here.
        let logged = lua.globals().get::<Table>("ngx").and_then(|ngx| {
            let level: mlua::Value = ngx.get("ERR")?;
            ngx.get::<mlua::Function>("log")?.call::<()>((level, format!("tenantauth: {error}")))
        });
        if logged.is_err() {
            eprintln!("tenantauth: {error}");
        }
    })
}

#[cfg(test)]
#[cfg(feature = "vendored")]
mod tests;
