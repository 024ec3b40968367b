//! The Lua module: the native functions that the embedded Lua code calls, one line of work each.
//!
//! Denials are return values. An `Err` from here is a mistake of our own Lua code, and costs a traceback.

#[cfg(feature = "vendored")]
mod by_value;
mod decide;
pub(crate) mod ffi;
mod gateway;
mod shared_dict;

use crate::connection::Connection;
use crate::engine::{
    Engine, Inherited, LAST_GOOD, Options, Readiness, Request, Rewrite, Server, Shared, Upgradable,
    denied_tenant, is_allowed_again, of_no_engine, undecided, unix_now,
};
use crate::metrics::{SUM_KEY, TALLY_KEY, Tally, exposition};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet};
use crate::token;
use decide::{Cookies, NEEDS_REMOTE_ADDR, NEEDS_UPGRADABLE, number_of, rewrite_of, server};
use mlua::{BString, Lua, LuaString, Result, Table};
use shared_dict::SharedDict;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The embedded Lua code, by the names under which its parts import each other.
const CHUNKS: [(&str, &str); 9] = [
    ("denial", include_str!("../lua/tenantauth/denial.lua")),
    ("enforce", include_str!("../lua/tenantauth/enforce.lua")),
    ("environment", include_str!("../lua/tenantauth/environment.lua")),
    ("exposition", include_str!("../lua/tenantauth/exposition.lua")),
    ("grafana_gateway", include_str!("../lua/tenantauth/grafana_gateway.lua")),
    ("hop_by_hop", include_str!("../lua/tenantauth/hop_by_hop.lua")),
    ("options", include_str!("../lua/tenantauth/options.lua")),
    ("request", include_str!("../lua/tenantauth/request.lua")),
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
/// Why init_worker failed, where it was called and did: its mistake must not be answered by deciding with some other
/// policy.
static INIT_PROBLEM: Mutex<Option<String>> = Mutex::new(None);

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

fn init_problem() -> MutexGuard<'static, Option<String>> {
    INIT_PROBLEM.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine() -> Option<&'static Arc<Engine>> {
    ENGINE.get().map(|(engine, _)| engine)
}

fn native(lua: &Lua) -> Result<Table> {
    let native = lua.create_table()?;
    native.set("version", env!("CARGO_PKG_VERSION"))?;
    add_constants(&native)?;
    add_lifecycle(lua, &native)?;
    add_decisions(lua, &native)?;
    add_exposition(lua, &native)?;
    gateway::add(lua, &native)?;
    Ok(native)
}

/// What the Lua code compares answers with, and the keys of its counters.
fn add_constants(native: &Table) -> Result<()> {
    native.set("REASONS", Tally::REASONS)?;
    native.set("GRANTED", Reason::Granted as u8)?;
    native.set("BUCKETS", Tally::BUCKETS)?;
    native.set("TALLY_KEY", TALLY_KEY)?;
    native.set("SUM_KEY", SUM_KEY)?;
    native.set("NEEDS_REMOTE_ADDR", NEEDS_REMOTE_ADDR)?;
    native.set("NEEDS_UPGRADABLE", NEEDS_UPGRADABLE)?;
    native.set("UPGRADABLE", Upgradable::Yes as u8)?;
    native.set("NOT_UPGRADABLE", Upgradable::No as u8)?;
    native.set("UPGRADE_IS_KEPT", Upgradable::Kept as u8)?;
    native.set("REMOVE_COOKIES", Cookies::Remove as u8)?;
    native.set("SET_COOKIES", Cookies::Set as u8)?;
    native.set("LEAVE_ALL", Cookies::LeaveAll as u8)?;
    native.set("LOADING", Readiness::Loading as u8)?;
    native.set("READY", Readiness::Ready as u8)
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
        "set_init_problem",
        lua.create_function(|_, problem: Option<String>| {
            *init_problem() = problem;
            Ok(())
        })?,
    )?;
    native.set("has_init_failed", lua.create_function(|_, ()| Ok(init_problem().is_some()))?)?;
    native.set("claim_warning", lua.create_function(|_, ()| Ok(!WARNED.swap(true, Ordering::Relaxed)))?)?;
    native.set(
        "readiness",
        lua.create_function(|_, ()| {
            Ok(engine().map_or(Readiness::NoPolicy, |engine| engine.readiness()) as u8)
        })?,
    )?;
    native.set(
        "next_message",
        lua.create_function(|_, ()| {
            let message = engine().and_then(|engine| engine.next_message());
            Ok(message.map_or((None, None), |(level, text)| (Some(level.name()), Some(text))))
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
    if let Some(problem) = crate::audit::limit_problem() {
        return (None, Some(problem));
    }
    match Engine::start(options, inherited) {
        Ok(engine) => {
            ENGINE.get_or_init(|| (engine, dict));
            (Some(true), None)
        }
        Err(error) => (None, Some(format!("cannot start the background thread: {error}"))),
    }
}

/// The backends of a list with commas.
fn backends_of(names: &str) -> BackendSet {
    names.split(',').filter_map(Backend::from_name).collect()
}

fn add_decisions(lua: &Lua, native: &Table) -> Result<()> {
    native
        .set("is_backend", lua.create_function(|_, name: String| Ok(Backend::from_name(&name).is_some()))?)?;
    native.set(
        "server",
        lua.create_function(
            |_, (backends, path_prefix, client_is_remote_addr, forwarded): (String, String, bool, String)| {
                let backends = backends_of(&backends);
                let forward_headers = forwarded
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(|name| name.to_ascii_lowercase().into_bytes().into())
                    .collect();
                Ok(number_of(Server { backends, path_prefix, client_is_remote_addr, forward_headers }))
            },
        )?,
    )?;
    native.set("address", ffi::address())?;
    for (name, number) in ffi::LAYOUT {
        native.set(name, number)?;
    }
    #[cfg(feature = "vendored")]
    by_value::add(lua, native)?;
    native.set(
        "rewrite_of",
        lua.create_function(|_, code: i64| {
            let Rewrite { connection, declines_upgrade } = rewrite_of(code);
            let names_others = connection.is_some_and(Connection::names_others);
            Ok((connection.map(Connection::kept), names_others, declines_upgrade))
        })?,
    )?;
    native.set(
        "connection_of",
        lua.create_function(|_, lines: LuaString| {
            let mut connection = Connection::default();
            lines.as_bytes().split(|byte| *byte == b'\n').for_each(|line| connection.add(line));
            Ok((connection.has_upgrade(), connection.names_others()))
        })?,
    )?;
    native.set(
        "internal_error",
        lua.create_function(
            |_, (number, method, request_uri, peer): (usize, LuaString, LuaString, LuaString)| {
                let backends = server(number).map_or(BackendSet::ALL, |server| server.backends);
                let (method, request_uri, peer) =
                    (method.as_bytes(), request_uri.as_bytes(), peer.as_bytes());
                let request =
                    Request { method: &method, request_uri: &request_uri, peer: &peer, ..Request::default() };
                let (code, record, passes) = match engine() {
                    Some(engine) => engine.internal_error(backends, &request),
                    None => {
                        let (code, record) = undecided(Reason::InternalError, false, backends, &request);
                        (code, record, false)
                    }
                };
                Ok((code, BString::from(record.as_bytes()), passes))
            },
        )?,
    )?;
    native.set(
        "is_allowed_again",
        lua.create_function(
            |_,
             (backends, record, method, request_uri, uri): (
                String,
                LuaString,
                LuaString,
                LuaString,
                LuaString,
            )| {
                Ok(is_allowed_again(
                    backends_of(&backends),
                    &record.as_bytes(),
                    &method.as_bytes(),
                    &request_uri.as_bytes(),
                    &uri.as_bytes(),
                ))
            },
        )?,
    )?;
    let reason_at = |number: usize| Reason::ALL.get(number).copied().unwrap_or(Reason::InternalError);
    native.set("reason_of", lua.create_function(move |_, number: usize| Ok(reason_at(number).name()))?)?;
    native.set(
        "denial_of",
        lua.create_function(|_, (name, record): (String, Option<LuaString>)| {
            let reason = Reason::from_name(&name)
                .filter(|reason| *reason != Reason::Granted)
                .unwrap_or(Reason::InternalError);
            let mut sentence = reason.sentence().to_owned();
            // Nearly only who has been verified makes a worker read a record.
            let record = record.filter(|_| reason.is_about_tenants());
            if let Some(tenant) = record.and_then(|record| denied_tenant(&record.as_bytes())) {
                sentence = format!("{sentence}: `{tenant}`");
            }
            if let Some(help) = engine().and_then(|engine| engine.denial_help()) {
                sentence = format!("{sentence}; help: {help}");
            }
            Ok((reason.status(), sentence))
        })?,
    )
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
            let mut gauges = engine().map(|engine| engine.gauges()).unwrap_or_default();
            // The same nginx may stand in front of Grafana as well.
            gauges.client_ip_keys.extend(gateway::keys(&gateway::all()));
            Ok(exposition(&samples, &gauges))
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
                engine().map_or_else(|| of_no_engine(init_problem().as_deref()), |engine| engine.status());
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
