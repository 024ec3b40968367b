//! One request by value, through mlua: what [`ffi`](super::ffi) does by pointer. The reference that its tests agree
//! with, built for them alone: nginx takes the other way, which makes no Lua strings.

use super::decide::{Answer, decide};
use crate::engine::{Request, Upgradable};
use mlua::{BString, Lua, Result, Table};

/// The values of `native.decide`, in their order: server, header names and values in turns (nil where they were
/// truncated), method, `$request_uri`, `$uri`, `$remote_addr`, peer, what an `Upgrade` header can be.
pub(super) type Arguments =
    (usize, Option<Vec<BString>>, BString, BString, BString, Option<BString>, BString, u32);

/// Code, nanoseconds, bucket, record, tenants to set, what to do with the cookies, cookies to set, lines to remove.
pub(super) type Values = (i64, u64, usize, BString, Option<String>, u8, BString, Vec<u16>);

pub(super) fn add(lua: &Lua, native: &Table) -> Result<()> {
    native.set("decide", lua.create_function(|_, arguments: Arguments| Ok(decide_by_value(&arguments)))?)
}

pub(super) fn decide_by_value(arguments: &Arguments) -> Values {
    let (server, headers, method, request_uri, uri, remote_addr, peer, upgradable) = arguments;
    let request = Request {
        method: method.as_slice(),
        request_uri: request_uri.as_slice(),
        uri: uri.as_slice(),
        remote_addr: remote_addr.as_ref().map(|address| address.as_slice()),
        peer: peer.as_slice(),
        upgradable: Upgradable::from_number(*upgradable),
    };
    let lines = headers.as_ref().map(|headers| {
        let (lines, _) = headers.as_chunks::<2>();
        lines.iter().map(|[name, value]| (name.as_slice(), value.as_slice()))
    });
    let mut answer = Answer::default();
    decide(*server, &request, lines, &mut answer);
    let Answer { code, nanoseconds, bucket, record, tenants, cookies_to, cookies, removed } = answer;
    (code, nanoseconds, bucket, record.as_bytes().into(), tenants, cookies_to as u8, cookies.into(), removed)
}
