//! What failed, in words for an operator.

use crate::text::{self, words};
use rustls::CertificateError;
use std::io::{self, ErrorKind};
use ureq::Timeout;

/// The longest text of somebody else that is repeated, in characters.
const MAX_QUOTED: usize = 200;

/// Somebody else's text in backticks: one line, and not too long.
pub(super) fn quoted(text: &str) -> String {
    text::quoted(text, MAX_QUOTED)
}

/// Why a request failed.
pub(super) fn of(error: ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => "no connection in time".to_owned(),
        ureq::Error::Timeout(_) => "no complete answer in time".to_owned(),
        ureq::Error::HostNotFound => "the host is unknown".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::LargeResponseHeader(..) => "the answer's headers are too large".to_owned(),
        ureq::Error::ConnectProxyFailed(why) => format!("the proxy refuses: {}", quoted(&why)),
        ureq::Error::InvalidProxyUrl => "the proxy of the environment is not a URL".to_owned(),
        ureq::Error::Protocol(why) => format!("the answer is not HTTP: {}", words(&why)),
        ureq::Error::Rustls(error) => of_tls(&error),
        ureq::Error::Io(error) => of_io(&error),
        other => words(&other),
    }
}

fn of_io(error: &io::Error) -> String {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(error);
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => "the connection ended early".to_owned(),
        // The words of the kind alone are without the number that the system gives.
        kind @ (ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable) => kind.to_string(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "no answer in time".to_owned(),
        _ => words(error),
    }
}

fn of_tls(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(why) = error else { return format!("TLS: {}", words(error)) };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another name".to_owned()
        }
        // A bad signature is an authority of the same name with another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is not from an authority that is trusted".to_owned()
        }
        _ => format!("the server's certificate is refused: {}", words(error)),
    }
}
