//! The native functions of the Grafana Gateway.

use crate::client_ip::cookie;
use crate::engine::unix_now;
use crate::grafana_gateway::{NotStamped, Stamper};
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
    native.set("stamper_message", lua.create_function(|_, number: usize| Ok(at(number)?.take_message()))?)?;
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
