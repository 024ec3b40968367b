//! Where a request's person is: the client address, from the source that the policy names.
//!
//! [`resolve`] is the only way from what a request carries to a [`ClientIp`]. It reads what nginx knows and
//! nothing else: no clock, no file. Whatever cannot be read exactly is a [`Reason`], never a guess.

pub mod cache;
pub mod cookie;
pub mod signature;

use crate::lines::Lines;
use crate::network::NetworkSet;
use crate::reason::Reason;
use cache::VerifiedCookieCache;
use cookie::Found;
use signature::KeyRing;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The cookie that carries the address where nothing else is configured.
pub const DEFAULT_COOKIE: &str = "Client_Ip";

/// A client's address: canonical, so an IPv4-mapped IPv6 address is the IPv4 address it stands for. Has neither
/// zone nor port. Only [`ClientIp::parse`] builds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientIp(IpAddr);

impl ClientIp {
    /// Parses one textual address: `203.0.113.7` (dotted, decimal, without leading zeros) or `2001:db8::1`.
    ///
    /// # Errors
    /// [`Reason::IpMalformed`] for everything else, also for blanks, zones, ports, brackets and lists.
    pub fn parse(text: &[u8]) -> Result<Self, Reason> {
        let text = std::str::from_utf8(text).map_err(|_| Reason::IpMalformed)?;
        let address: IpAddr = text.parse().map_err(|_| Reason::IpMalformed)?;
        Ok(Self(address.to_canonical()))
    }

    /// Parses the address of a client as proxies write it into a header: with or without its port (`203.0.113.7:51008`,
    /// `[2001:db8::7]:443`), IPv6 also in brackets alone. An IPv6 address without brackets has no port: whatever follows
    /// is a part of it.
    ///
    /// # Errors
    /// [`Reason::IpMalformed`] for everything else.
    pub fn parse_with_port(text: &[u8]) -> Result<Self, Reason> {
        let (address, port) = match text.strip_prefix(b"[") {
            Some(rest) => {
                let end = rest.iter().position(|byte| *byte == b']').ok_or(Reason::IpMalformed)?;
                let (address, behind) = rest.split_at(end);
                // IPv4 stands in no brackets (RFC 3986 section 3.2.2).
                if !address.contains(&b':') {
                    return Err(Reason::IpMalformed);
                }
                match behind {
                    b"]" => (address, None),
                    [b']', b':', port @ ..] => (address, Some(port)),
                    _ => return Err(Reason::IpMalformed),
                }
            }
            None => match text.iter().position(|byte| *byte == b':') {
                // A dot in front of the first colon: IPv4.
                Some(colon) if text.iter().take(colon).any(|byte| *byte == b'.') => {
                    let (address, port) = text.split_at(colon);
                    (address, port.get(1..))
                }
                _ => (text, None),
            },
        };
        if port.is_none_or(is_port) { Self::parse(address) } else { Err(Reason::IpMalformed) }
    }

    /// The address, for membership in networks.
    pub const fn addr(self) -> IpAddr {
        self.0
    }
}

/// Digits alone, as far as ports go.
fn is_port(text: &[u8]) -> bool {
    let number = text.iter().try_fold(0_u32, |number, byte| {
        char::from(*byte).to_digit(10).map(|digit| (number * 10 + digit).min(u32::from(u16::MAX) + 1))
    });
    !text.is_empty() && number.is_some_and(|number| number <= u32::from(u16::MAX))
}

/// The canonical text: RFC 5952 for IPv6.
impl fmt::Display for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What makes a cookie's address believable. `K` names the keys: a path in a policy, the keys themselves once
/// they are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CookieKeys<K> {
    /// The value must be signed by one of these keys.
    Signed(K),
    /// Nothing: the value is the plain address, and the network path has to be closed by other means.
    Unsigned,
}

/// Where the client address is taken from: the policy's `client_ip` section.
///
/// A policy knows the keys of a signed cookie by their file, a deciding worker by their content; there is no
/// third state, so a source that decides cannot lack its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source<K = Arc<KeyRing>> {
    /// A cookie, stamped by the gateway in front of Grafana.
    Cookie {
        /// Its name, in the exact case; a token ([`cookie::is_name`]).
        name: Box<str>,
        /// What its value is checked with.
        keys: CookieKeys<K>,
    },
    /// The address nginx has for the client (`$remote_addr`): the clients connect directly.
    RemoteAddr,
    /// A request header, set by a proxy.
    Header {
        /// The header's name as the policy writes it.
        name: Box<str>,
        /// The TCP peers whose header counts.
        trusted_peers: NetworkSet,
    },
}

impl Source {
    /// The name of a signed cookie, and the keys by which it is verified.
    pub fn signed_cookie(&self) -> Option<(&str, &Arc<KeyRing>)> {
        match self {
            Self::Cookie { name, keys: CookieKeys::Signed(ring) } => Some((name, ring)),
            _ => None,
        }
    }
}

/// A source as a policy states it: the keys are the path of the keys file.
pub type SourceConfig = Source<PathBuf>;

impl SourceConfig {
    /// The keys file that this source needs, if any; it is to be watched like the policy.
    pub fn keys_file(&self) -> Option<&Path> {
        match self {
            Self::Cookie { keys: CookieKeys::Signed(path), .. } => Some(path),
            _ => None,
        }
    }

    /// The source that can decide. `load` is called with the keys file, only where there is one.
    ///
    /// # Errors
    /// Whatever `load` failed with.
    pub fn with_keys<E>(
        &self,
        load: impl FnOnce(&Path) -> Result<Arc<KeyRing>, E>,
    ) -> Result<Source<Arc<KeyRing>>, E> {
        Ok(match self {
            Self::Cookie { name, keys: CookieKeys::Signed(path) } => {
                Source::Cookie { name: name.clone(), keys: CookieKeys::Signed(load(path)?) }
            }
            Self::Cookie { name, keys: CookieKeys::Unsigned } => {
                Source::Cookie { name: name.clone(), keys: CookieKeys::Unsigned }
            }
            Self::RemoteAddr => Source::RemoteAddr,
            Self::Header { name, trusted_peers } => {
                Source::Header { name: name.clone(), trusted_peers: trusted_peers.clone() }
            }
        })
    }
}

impl<K> Source<K> {
    /// The kind of source, for metrics and audit records: `cookie`, `remote_addr` or `header`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Cookie { .. } => "cookie",
            Self::RemoteAddr => "remote_addr",
            Self::Header { .. } => "header",
        }
    }
}

/// What a request says, and nginx knows, about where it comes from. Not `Debug`: cookies are secrets.
#[derive(Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// The values of all Cookie lines in their order, joined by `\n`; `None` without any.
    pub cookies: Option<&'a [u8]>,
    /// `$remote_addr`: the client after nginx's own real IP handling. `unix:` is no address.
    pub remote_addr: &'a [u8],
    /// The peer of the TCP connection (`$realip_remote_addr`). `unix:` is no address.
    pub peer: &'a [u8],
    /// The source's header.
    pub header: Lines<&'a [u8]>,
}

/// The client address of a request.
///
/// `now`: seconds since the Unix epoch. `cache`: this worker's, used by signed cookies alone.
///
/// # Errors
/// [`Reason::IpMissing`] where the source says nothing (or a peer that is not trusted says it),
/// [`Reason::IpDuplicate`] where it says it more than once, [`Reason::IpMalformed`] where it says no single
/// address, and what [`signature::verify`] finds in a signed cookie.
pub fn resolve(
    source: &Source,
    evidence: &Evidence<'_>,
    now: u64,
    cache: &mut VerifiedCookieCache,
) -> Result<ClientIp, Reason> {
    match source {
        Source::Cookie { name, keys } => {
            let value = match cookie::find(evidence.cookies.unwrap_or_default(), name) {
                Found::None | Found::Similar | Found::One(b"") => return Err(Reason::IpMissing),
                Found::One(value) => value,
                Found::Many => return Err(Reason::IpDuplicate),
            };
            match keys {
                CookieKeys::Signed(ring) => cache.verify(ring, name, value, now).map(|signed| signed.ip),
                CookieKeys::Unsigned => ClientIp::parse(value),
            }
        }
        Source::RemoteAddr => connection_address(evidence.remote_addr),
        Source::Header { trusted_peers, .. } => {
            // Looked at before the header: what a stranger sends, however it is written, is not there.
            if !connection_address(evidence.peer).is_ok_and(|peer| trusted_peers.contains(peer.addr())) {
                return Err(Reason::IpMissing);
            }
            match evidence.header.at_most_one(Reason::IpDuplicate)?.map(<[u8]>::trim_ascii) {
                None | Some(b"") => Err(Reason::IpMissing),
                Some(value) => ClientIp::parse_with_port(value),
            }
        }
    }
}

/// The address of one end of a connection, as nginx writes it; a unix socket has none.
fn connection_address(text: &[u8]) -> Result<ClientIp, Reason> {
    if text.is_empty() || text.starts_with(b"unix:") {
        return Err(Reason::IpMissing);
    }
    ClientIp::parse(text)
}

#[cfg(test)]
mod tests;
