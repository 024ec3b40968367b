//! The native functions of the Grafana Gateway.

use crate::client_ip::cookie;
use crate::engine::{of_stamping, unix_now};
use crate::grafana_gateway::{NotStamped, Stamper};
use crate::metrics::exposition_of_keys;
use mlua::{Lua, LuaString, Result, Table};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

type Key = (String, Option<PathBuf>, u64);

/// The stampers of this process, by what they were made for: under `lua_code_cache off` every request asks anew,
/// and each has a thread.
static STAMPERS: Mutex<Vec<(Key, Arc<Stamper>)>> = Mutex::new(Vec::new());

/// The number of the stamper for this configuration, or nil and what is wrong.
fn stamper(cookie: String, keys_file: Option<String>, ttl: u64) -> (Option<usize>, Option<String>) {
    let key = (cookie, keys_file.map(PathBuf::from), ttl);
    let mut stampers = STAMPERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(number) = stampers.iter().position(|(other, _)| *other == key) {
        return (Some(number), None);
    }
    match Stamper::start(&key.0, key.1.as_deref().map(Path::new), ttl) {
        Ok(stamper) => {
            stampers.push((key, stamper));
            (Some(stampers.len() - 1), None)
        }
        Err(error) => (None, Some(format!("cannot start the background thread: {error}"))),
    }
}

/// What is wrong where this worker has neither stamped nor a policy.
const NOTHING_KNOWN: &str = "there is no policy, and this worker has stamped nothing yet: a Grafana Gateway passes the \
                             options of `stamp_client_ip` to `status` and `metrics` as well";

/// Whether this worker knows of a stamper, and each of them can stamp.
fn can_stamp(stampers: &[Arc<Stamper>]) -> bool {
    !stampers.is_empty() && stampers.iter().all(|stamper| stamper.can_stamp())
}

/// The stampers that this process knows so far.
pub(super) fn all() -> Vec<Arc<Stamper>> {
    let stampers = STAMPERS.lock().unwrap_or_else(PoisonError::into_inner);
    stampers.iter().map(|(_, stamper)| Arc::clone(stamper)).collect()
}

/// Their keys: id, and `signs` or `verifies`.
pub(super) fn keys(stampers: &[Arc<Stamper>]) -> Vec<(String, &'static str)> {
    let mut keys: Vec<_> = stampers.iter().flat_map(|stamper| stamper.keys()).collect();
    keys.sort_unstable_by(|(a, a_use), (b, b_use)| (a_use, a).cmp(&(b_use, b)));
    keys.dedup();
    keys
}

fn at(number: usize) -> Result<Arc<Stamper>> {
    let stampers = STAMPERS.lock().unwrap_or_else(PoisonError::into_inner);
    let found = stampers.get(number).map(|(_, stamper)| Arc::clone(stamper));
    found.ok_or_else(|| mlua::Error::runtime("no such stamper"))
}

pub(super) fn add(lua: &Lua, native: &Table) -> Result<()> {
    native.set("is_cookie_name", lua.create_function(|_, name: String| Ok(cookie::is_name(&name)))?)?;
    native.set(
        "stamper",
        lua.create_function(|_, (cookie, keys_file, ttl): (String, Option<String>, u64)| {
            Ok(stamper(cookie, keys_file, ttl))
        })?,
    )?;
    native
        .set("stamper_is_loading", lua.create_function(|_, number: usize| Ok(at(number)?.is_loading()))?)?;
    native.set(
        "stamper_message",
        lua.create_function(|_, number: usize| {
            let message = at(number)?.take_message();
            Ok(message.map_or((None, None), |(level, text)| (Some(level.name()), Some(text))))
        })?,
    )?;
    native.set("stampers", lua.create_function(|_, ()| Ok(all().len()))?)?;
    native.set("can_stamp", lua.create_function(|_, ()| Ok(can_stamp(&all())))?)?;
    native.set("stampers_exposition", lua.create_function(|_, ()| Ok(exposition_of_keys(&keys(&all()))))?)?;
    native.set(
        "stampers_status",
        lua.create_function(|_, ()| {
            let stampers = all();
            let mut problems: Vec<String> = stampers.iter().filter_map(|stamper| stamper.problem()).collect();
            if stampers.is_empty() {
                problems.push(NOTHING_KNOWN.to_owned());
            }
            Ok(of_stamping(can_stamp(&stampers), &keys(&stampers), &problems).to_string())
        })?,
    )?;
    native.set(
        "stamp",
        lua.create_function(|lua, (number, lines, address): (usize, LuaString, LuaString)| {
            let stamped = at(number)?.stamp(&lines.as_bytes(), &address.as_bytes(), unix_now());
            Ok(match stamped {
                Ok(line) => (Some(lua.create_string(line)?), None, None),
                Err(NotStamped { cookies, problem }) => {
                    let cookies = cookies.map(|cookies| lua.create_string(cookies)).transpose()?;
                    (None, cookies, Some(problem))
                }
            })
        })?,
    )
}
