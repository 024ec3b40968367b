//! Which addresses may be asked, and where a redirect may lead.

use super::error::InvalidUrl;
use std::net::IpAddr;
use ureq::http::Uri;

/// Whether keys may be fetched from there: https, or http to a loopback address (127.0.0.0/8, `[::1]`, `localhost`);
/// no user info, no fragment.
///
/// # Errors
/// [`InvalidUrl`].
pub fn check_url(url: &str) -> Result<(), InvalidUrl> {
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
    pub(super) fn parse(url: &str) -> Result<Self, InvalidUrl> {
        // The parser would drop a fragment without a word.
        if url.contains('#') {
            return Err(InvalidUrl::Fragment);
        }
        let uri: Uri = url.parse().map_err(|_| InvalidUrl::NotHttps)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidUrl::NotHttps),
        };
        let authority = uri.authority().ok_or(InvalidUrl::NotHttps)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err(InvalidUrl::NoHost);
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
                .ok_or(InvalidUrl::Port)?,
        };
        let address = Self { uri, secure, host, port };
        if !secure && !address.is_loopback() {
            return Err(InvalidUrl::PlainHttp);
        }
        Ok(address)
    }

    /// Where a redirect from here leads. Only to the same server: a host that can redirect elsewhere could otherwise
    /// make this machine ask addresses that only it can reach.
    ///
    /// # Errors
    /// [`InvalidUrl`], of the redirect's target.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, InvalidUrl> {
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
            Err(InvalidUrl::OtherServer)
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
