//! Whom to believe that a server is who it says.

use super::error::{InvalidAuthorities, RequestError};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts};

/// Certificates of authorities, at least one. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities(Arc<[CertificateDer<'static>]>);

impl Authorities {
    /// Reads the certificates of a PEM file. Whatever else it holds says nothing.
    ///
    /// # Errors
    /// [`InvalidAuthorities`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidAuthorities> {
        let mut certificates = Vec::new();
        let mut store = RootCertStore::empty();
        for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
            let certificate = certificate.map_err(|_| InvalidAuthorities::NotPem)?;
            store.add(certificate.clone()).map_err(|_| InvalidAuthorities::Certificate(number))?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(InvalidAuthorities::Empty);
        }
        Ok(Self(certificates.into()))
    }

    pub(super) fn roots(&self) -> RootCerts {
        roots(&self.0)
    }
}

/// How many there are.
impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

/// Those that the system trusts now: a bundle that was renewed counts at the next fetch.
///
/// # Errors
/// [`RequestError::NoAuthorities`].
pub(super) fn system_roots() -> Result<RootCerts, RequestError> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(roots(&found.certs));
    }
    let why = found.errors.first().map(|error| format!(" ({})", error.to_string().to_lowercase()));
    Err(RequestError::NoAuthorities(why.unwrap_or_default()))
}

fn roots(certificates: &[CertificateDer<'_>]) -> RootCerts {
    let owned: Vec<_> =
        certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    RootCerts::from(owned)
}
