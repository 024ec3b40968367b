//! What nginx has to take out of a request before it is decided: headers that are meant for the next hop alone and
//! would make a proxy or a backend behind do something else than what was decided.

use super::Live;
use super::headers::Headers;
use super::request::{Needs, Request, Server, Upgradable};
use crate::connection::Connection;
use crate::lines::Lines;
use crate::route;

/// What nginx has to take out. The caller comes again when that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What `Connection` may go on with, where it names more. Its other names are still among them.
    pub connection: Option<Connection>,
    /// `Upgrade` and `HTTP2-Settings` go: an offer that is declined, as HTTP allows.
    pub declines_upgrade: bool,
}

impl Rewrite {
    const CONNECTION: u8 = 32;
    const UPGRADE: u8 = 64;

    /// As a number below 128, for Lua.
    pub fn to_number(self) -> u8 {
        let connection = self.connection.map_or(0, |connection| Self::CONNECTION | connection.to_number());
        connection | if self.declines_upgrade { Self::UPGRADE } else { 0 }
    }

    /// What [`Rewrite::to_number`] made a number of.
    pub fn from_number(number: u8) -> Self {
        Self {
            connection: (number & Self::CONNECTION != 0).then(|| Connection::from_number(number)),
            declines_upgrade: number & Self::UPGRADE != 0,
        }
    }
}

/// What an `Upgrade` header is to the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Absent, or declined.
    #[default]
    None,
    /// `websocket`, alone, on a tail, by HTTP/1.1: decided at its handshake.
    WebSocket,
    /// Another one, of which nginx may have a copy that nobody can remove.
    Kept,
}

impl Upgrade {
    /// What the route is to be asked with.
    pub(super) fn value(self) -> Option<&'static [u8]> {
        match self {
            Self::None => None,
            Self::WebSocket => Some(b"websocket"),
            Self::Kept => Some(b""),
        }
    }
}

/// What the `Upgrade` header of a request is, where there is one or `Connection` names more than usual.
///
/// `now`: Unix seconds.
///
/// # Errors
/// What has to be known or rewritten first. Nothing is rewritten of a request that is denied whatever its token says,
/// nor where the whole gateway only records and changes nothing.
#[cold]
#[inline(never)]
pub(super) fn hop_by_hop(
    live: Option<&Live>,
    server: &Server,
    request: &Request<'_>,
    headers: &Headers<'_>,
    now: u64,
) -> Result<Upgrade, Needs> {
    let Request { method, request_uri, uri, .. } = *request;
    let is_known = |upgrade| {
        route::route(server.backends, &server.path_prefix, method, request_uri, uri, upgrade).is_ok()
    };
    let upgrade = match (headers.upgrade, request.upgradable) {
        (Lines::One(value), Upgradable::Unasked) if is_known(Some(value)) => return Err(Needs::Upgradable),
        (Lines::One(value), Upgradable::Yes) if is_known(Some(value)) => Upgrade::WebSocket,
        _ => Upgrade::None,
    };
    let changes = live.is_some_and(|live| !live.compiled.snapshot.is_shadow(now));
    if !changes || !is_known(upgrade.value()) {
        return Ok(upgrade);
    }
    let declines_upgrade = headers.upgrade.is_some() && upgrade == Upgrade::None;
    let mut connection = headers.connection;
    if upgrade == Upgrade::None {
        connection = connection.without_upgrade();
    }
    let connection = (connection.names_others() || connection != headers.connection).then_some(connection);
    if connection.is_none() && !declines_upgrade {
        return Ok(upgrade);
    }
    Err(Needs::Rewrite(Rewrite { connection, declines_upgrade }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_rewritten_is_a_number_for_lua() {
        let of = |line: &[u8]| {
            let mut connection = Connection::default();
            connection.add(line);
            connection
        };
        for connection in
            [None, Some(of(b"")), Some(of(b"close, cookie")), Some(of(b"keep-alive, te, upgrade"))]
        {
            for declines_upgrade in [false, true] {
                let rewrite = Rewrite { connection, declines_upgrade };
                assert!(rewrite.to_number() < 128);
                assert_eq!(Rewrite::from_number(rewrite.to_number()), rewrite);
            }
        }
    }
}
