//! One GET, bounded in every direction.

use super::Limits;
use super::authorities::{Authorities, system_roots};
use super::error::{FetchError, RequestError};
use super::url::Address;
use super::words;
use crate::token::jwks::MAX_JWKS_LEN;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Instant;
use ureq::config::Config;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, LOCATION};
use ureq::http::{Response, Uri};
use ureq::tls::{TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Proxy};

/// The largest document, in bytes: what a key set may have.
pub(super) const MAX_BODY: usize = MAX_JWKS_LEN;
/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How many redirects are followed.
pub(super) const MAX_REDIRECTS: u32 = 3;
const USER_AGENT: &str = concat!("tenantauth/", env!("CARGO_PKG_VERSION"));

/// Makes the requests of one fetch, within its time.
pub(super) struct Client<'a> {
    authorities: Option<&'a Authorities>,
    limits: Limits,
    deadline: Instant,
}

/// What an answer brings.
enum Answer {
    Document(Vec<u8>),
    Redirect(Address),
}

impl<'a> Client<'a> {
    /// The clock of [`Limits::total`] begins to run.
    pub(super) fn new(authorities: Option<&'a Authorities>, limits: Limits) -> Self {
        Self { authorities, limits, deadline: Instant::now() + limits.total }
    }

    /// Fetches a JSON document of at most [`MAX_BODY`] bytes.
    ///
    /// # Errors
    /// [`FetchError`], with the address.
    pub(super) fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let mut address = Address::parse(url).map_err(|why| FetchError::Url { url: url.to_owned(), why })?;
        for _ in 0..=MAX_REDIRECTS {
            match self.ask(&address) {
                Ok(Answer::Document(document)) => return Ok(document),
                Ok(Answer::Redirect(target)) => address = target,
                Err(why) => return Err(FetchError::Request { url: address.uri().to_string(), why }),
            }
        }
        Err(FetchError::Request { url: url.to_owned(), why: RequestError::Redirects })
    }

    fn ask(&self, address: &Address) -> Result<Answer, RequestError> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(RequestError::OutOfTime);
        }
        let mut config = Config::builder()
            // Statuses are judged here, redirects are followed here.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .accept("application/json, application/jwk-set+json")
            .max_response_header_size(MAX_HEAD)
            .max_idle_connections(0)
            .timeout_resolve(Some(self.limits.connect))
            .timeout_connect(Some(self.limits.connect))
            .timeout_global(Some(self.limits.request.min(remaining)));
        if address.is_secure() {
            config = config.tls_config(self.tls()?);
        }
        let proxy = if address.is_loopback() { None } else { Proxy::try_from_env() };
        let agent = Agent::with_parts(
            config.proxy(proxy).build(),
            DefaultConnector::new(),
            Names { plain: !address.is_secure(), system: DefaultResolver::default() },
        );
        let answer =
            agent.get(address.uri()).call().map_err(|error| RequestError::Transport(words::of(error)))?;
        read(address, answer)
    }

    fn tls(&self) -> Result<TlsConfig, RequestError> {
        let roots = match self.authorities {
            Some(authorities) => authorities.roots(),
            None => system_roots()?,
        };
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            // Named, because the library's own choice is a second cryptographic library.
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(roots)
            .build())
    }
}

fn read(address: &Address, mut answer: Response<Body>) -> Result<Answer, RequestError> {
    match answer.status().as_u16() {
        200 => {}
        301 | 302 | 303 | 307 | 308 => {
            let location = text(&answer, LOCATION).ok_or(RequestError::RedirectNowhere)?;
            return match address.redirected(location) {
                Ok(target) => Ok(Answer::Redirect(target)),
                Err(why) => Err(RequestError::Redirect { to: location.to_owned(), why }),
            };
        }
        status => return Err(RequestError::Status(status)),
    }
    match text(&answer, CONTENT_TYPE) {
        Some(value) if is_json(value) => {}
        Some(other) => return Err(RequestError::ContentType(other.to_owned())),
        None => return Err(RequestError::NoContentType),
    }
    // None was offered; to go on would end in a puzzling complaint about JSON.
    match text(&answer, CONTENT_ENCODING) {
        None | Some("identity") => {}
        Some(other) => return Err(RequestError::ContentEncoding(other.to_owned())),
    }
    let limit = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
    if answer.body().content_length().is_some_and(|length| length > limit) {
        return Err(RequestError::TooLarge);
    }
    let mut body = Vec::new();
    let mut reader = answer.body_mut().as_reader().take(limit.saturating_add(1));
    reader.read_to_end(&mut body).map_err(|error| RequestError::Transport(words::of(error.into())))?;
    if body.len() > MAX_BODY { Err(RequestError::TooLarge) } else { Ok(Answer::Document(body)) }
}

fn text(answer: &Response<Body>, name: HeaderName) -> Option<&str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Whether a content type is JSON by its name (RFC 6839 section 3.1), whatever its parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || essence.strip_suffix("+json").is_some_and(|kind| {
            kind.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
        })
}

/// The system's names; those that are asked without TLS must be this machine, whatever a name server says.
#[derive(Debug)]
struct Names {
    plain: bool,
    system: DefaultResolver,
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.system.resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        for address in found.iter().filter(|address| !self.plain || address.ip().is_loopback()) {
            kept.push(*address);
        }
        if kept.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(kept) }
    }
}
