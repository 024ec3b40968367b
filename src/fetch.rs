//! Keys from where an issuer publishes them: a key set by URL, or OpenID discovery and then a key set.
//!
//! HTTPS, or plain HTTP to the machine itself. Everything that an answer could do to the reader is bounded: its size,
//! its time, where it may redirect to. Nothing here is ever told by a token or a request: the addresses come from the
//! policy and from the document that the policy's issuer serves.
//!
//! The only place that names the HTTP client and TLS. Blocking; the event loop of nginx never calls it.

mod authorities;
mod error;
mod http;
mod url;
mod words;

pub use self::authorities::Authorities;
pub use self::error::{FetchError, InvalidAuthorities, InvalidUrl, RequestError};
pub use self::url::check_url;

use self::http::Client;
use self::url::Address;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::time::Duration;

/// Where an issuer publishes its keys, and whom to trust on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The issuer, exactly as in the policy.
    pub issuer: Box<str>,
    /// The address of the key set; `None`: OpenID discovery at `<issuer>/.well-known/openid-configuration`.
    pub jwks_url: Option<Box<str>>,
    /// Certificates to trust instead of the system's.
    pub authorities: Option<Authorities>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Looking up a name and connecting to it, TLS included.
    connect: Duration,
    /// One request, from the look-up of the name to the last byte of its answer.
    request: Duration,
    /// All of a fetch: discovery, redirects, the key set.
    total: Duration,
}

const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(10),
    total: Duration::from_secs(15),
};

/// What counts of an OpenID provider's metadata (OpenID Connect Discovery 1.0 section 3).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// What a document must be before anybody looks at its keys.
#[derive(Deserialize)]
struct Jwks {
    #[serde(rename = "keys")]
    _keys: Vec<IgnoredAny>,
}

impl Endpoint {
    /// Fetches the key set. Blocks, for 15 seconds at most: never on the event loop.
    ///
    /// The result is the document's bytes, at most 1 MiB, which are a JSON object with an array `keys`. Whether any of
    /// the keys is usable is not looked at.
    ///
    /// # Errors
    /// [`FetchError`], with the address that failed.
    pub fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        self.fetch_within(LIMITS)
    }

    fn fetch_within(&self, limits: Limits) -> Result<Vec<u8>, FetchError> {
        let client = Client::new(self.authorities.as_ref(), limits);
        match &self.jwks_url {
            Some(url) => fetch_keys(&client, url),
            None => fetch_keys(&client, &self.discover(&client)?),
        }
    }

    /// Asks the issuer where its keys are.
    fn discover(&self, client: &Client) -> Result<String, FetchError> {
        if self.issuer.contains('?') {
            return Err(FetchError::IssuerQuery(self.issuer.clone()));
        }
        let url = discovery_url(&self.issuer);
        let document = client.get(&url)?;
        let metadata: Metadata = match serde_json::from_slice(&document) {
            Ok(metadata) => metadata,
            Err(error) => return Err(FetchError::NotMetadata { url, why: error.to_string() }),
        };
        // Exactly, as section 4.3 demands: otherwise one tenant of a provider could answer for another.
        if *metadata.issuer != *self.issuer {
            let (found, expected) = (metadata.issuer, self.issuer.clone());
            return Err(FetchError::OtherIssuer { url, found, expected });
        }
        match check_discovered(&self.issuer, &metadata.jwks_uri) {
            Ok(()) => Ok(metadata.jwks_uri),
            Err(why) => Err(FetchError::JwksUri { url, jwks_uri: metadata.jwks_uri, why }),
        }
    }
}

/// Whether an issuer may say that its keys are there. On another host as often as not; but no issuer far away makes
/// this machine ask itself something, and none that is asked over TLS has its keys fetched without.
///
/// # Errors
/// [`InvalidUrl`], of the address of the keys.
fn check_discovered(issuer: &str, jwks_uri: &str) -> Result<(), InvalidUrl> {
    let (from, to) = (Address::parse(issuer)?, Address::parse(jwks_uri)?);
    if from.is_secure() && !to.is_secure() {
        return Err(InvalidUrl::Downgrade);
    }
    if to.is_loopback() && !from.is_loopback() {
        return Err(InvalidUrl::Loopback);
    }
    Ok(())
}

/// Where an issuer's metadata is: one slash at its end is dropped first (OpenID Connect Discovery 1.0 section 4).
fn discovery_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer))
}

fn fetch_keys(client: &Client, url: &str) -> Result<Vec<u8>, FetchError> {
    let document = client.get(url)?;
    match serde_json::from_slice::<Jwks>(&document) {
        Ok(_) => Ok(document),
        Err(error) => Err(FetchError::NotKeySet { url: url.to_owned(), why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests;
