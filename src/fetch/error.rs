//! Why keys could not be fetched.

use super::http::{MAX_BODY, MAX_REDIRECTS};
use super::words::quoted;
use crate::fault::Fault;
use thiserror::Error;

/// An address that is not asked. Its text is the rest of a sentence that begins with the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidUrl {
    /// It is no URL, or one of another scheme.
    #[error("is not an https URL")]
    NotHttps,
    /// The HTTP client would drop it.
    #[error("has a fragment")]
    Fragment,
    /// Nothing can be appended to it.
    #[error("has a query")]
    Query,
    /// `user@` stands before the host.
    #[error("holds a user name or password")]
    UserInfo,
    /// Nothing stands before the port.
    #[error("has no host")]
    NoHost,
    /// The port is no number from 1 to 65535.
    #[error("has no valid port")]
    Port,
    /// Without TLS only this machine is asked.
    #[error("is plain http to another machine: only https is safe there")]
    PlainHttp,
    /// A redirect leads to another scheme, host or port.
    #[error("is another server")]
    OtherServer,
    /// An issuer that is asked over TLS names keys that are not.
    #[error("is no https URL")]
    Downgrade,
    /// An issuer on another machine names this one.
    #[error("is this machine, which the issuer is not")]
    Loopback,
}

/// Why a certificate file cannot be used. Its text is the rest of a sentence that begins with the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidAuthorities {
    /// It is not in PEM form.
    #[error("is not a PEM file")]
    NotPem,
    /// Which certificate cannot be read, from 1.
    #[error("holds a certificate that cannot be read, number {0}")]
    Certificate(usize),
    /// It is in PEM form, without a certificate.
    #[error("holds no certificate")]
    Empty,
}

/// Why one request brought no document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The time of the whole fetch is over.
    #[error("no time is left")]
    OutOfTime,
    /// No answer: the network, TLS or the HTTP client says why.
    #[error("{0}")]
    Transport(String),
    /// The system has no certificates of authorities; the text says why, in parentheses after a blank, or is empty.
    #[error(
        "the system has no certificates of authorities{0}: install them (ca-certificates), or give a `ca_file`"
    )]
    NoAuthorities(String),
    /// A redirect without a `Location`.
    #[error("it redirects without saying where")]
    RedirectNowhere,
    /// A redirect that is not followed.
    #[error("it redirects to {}, which {why}", quoted(to))]
    Redirect {
        /// The `Location`.
        to: String,
        /// What is wrong with it.
        why: InvalidUrl,
    },
    /// One redirect too many.
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    Redirects,
    /// The status of the answer.
    #[error("the status is {0}, not 200")]
    Status(u16),
    /// A `Content-Type` that is not JSON.
    #[error("the content type is {}, not JSON", quoted(.0))]
    ContentType(String),
    /// No `Content-Type`.
    #[error("there is no content type")]
    NoContentType,
    /// A `Content-Encoding` that was not asked for.
    #[error("the content encoding is {}", quoted(.0))]
    ContentEncoding(String),
    /// A body over the limit.
    #[error("the answer is larger than {MAX_BODY} bytes")]
    TooLarge,
}

/// Why an issuer's keys could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    /// An address of the policy or of the issuer's metadata that is not asked.
    #[error("{} {why}", quoted(url))]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: InvalidUrl,
    },
    /// Discovery appends a path to the issuer.
    #[error("the issuer `{0}` has a query, so nothing can be appended to it")]
    IssuerQuery(Box<str>),
    /// A request failed.
    #[error("cannot fetch {}: {why}", quoted(url))]
    Request {
        /// The address, after redirects.
        url: String,
        /// What went wrong.
        why: RequestError,
    },
    /// The answer to discovery cannot be read.
    #[error("`{url}` is no OpenID metadata: {why}")]
    NotMetadata {
        /// The address.
        url: String,
        /// The JSON reader's words.
        why: String,
    },
    /// The metadata is another issuer's.
    #[error("`{url}` is about the issuer {}, not `{expected}`", quoted(found))]
    OtherIssuer {
        /// The address.
        url: String,
        /// Whom it is about.
        found: String,
        /// The issuer of the policy.
        expected: Box<str>,
    },
    /// The metadata names an address for the keys that is not asked.
    #[error("`{url}` has a `jwks_uri` that {why}: {}", quoted(jwks_uri))]
    JwksUri {
        /// The address of the metadata.
        url: String,
        /// The address in it.
        jwks_uri: String,
        /// What is wrong with it.
        why: InvalidUrl,
    },
    /// The answer is no key set.
    #[error("`{url}` is no key set: {why}")]
    NotKeySet {
        /// The address.
        url: String,
        /// The JSON reader's words.
        why: String,
    },
    /// Nothing was asked: a panic, or no thread. The text says which.
    #[error("{0}")]
    Internal(String),
}

impl FetchError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Url { .. } | Self::IssuerQuery(_) => Fault::Document,
            Self::Request { why: RequestError::NoAuthorities(_), .. } | Self::Internal(_) => Fault::Gateway,
            _ => Fault::Provider,
        }
    }
}
