//! Which addresses may be asked, and where a redirect may lead.

use std::net::IpAddr;
use ureq::http::Uri;

/// Whether keys may be fetched from there: https, or http to a loopback address (127.0.0.0/8, `[::1]`, `localhost`);
/// no user info, no fragment.
///
/// # Errors
/// What is wrong, as the rest of a sentence that begins with the address: "is not an https URL".
pub fn check_url(url: &str) -> Result<(), String> {
    Address::parse(url).map(drop)
}

/// An address that may be asked.
#[derive(Debug)]
pub(super) struct Address {
    uri: Uri,
    secure: bool,
    host: String,
    port: u16,
}

impl Address {
    /// # Errors
    /// As [`check_url`].
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        // The parser would drop a fragment without a word.
        if url.contains('#') {
            return Err("has a fragment".to_owned());
        }
        let not_a_url = || "is not an https URL".to_owned();
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(not_a_url()),
        };
        let authority = uri.authority().ok_or_else(not_a_url)?;
        if authority.as_str().contains('@') {
            return Err("holds a user name or password".to_owned());
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        let port = match authority.as_str().get(host.len()..) {
            Some("") | None => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| "has no valid port".to_owned())?,
        };
        let address = Self { uri, secure, host, port };
        if !secure && !address.is_loopback() {
            return Err("is plain http to another machine: only https is safe there".to_owned());
        }
        Ok(address)
    }

    /// Where a redirect from here leads. Only to the same server: a host that can redirect elsewhere could otherwise
    /// make this machine ask addresses that only it can reach.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence that begins with the redirect's target.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, String> {
        // A fragment is for browsers.
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.secure { "https" } else { "http" };
        let target = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority())
        } else {
            location.to_owned()
        };
        let target = Self::parse(&target)?;
        if (target.secure, &target.host, target.port) == (self.secure, &self.host, self.port) {
            Ok(target)
        } else {
            Err("is another server".to_owned())
        }
    }

    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether TLS protects what is asked there.
    pub(super) const fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether it is this machine, by the name or by the address that is written.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}
