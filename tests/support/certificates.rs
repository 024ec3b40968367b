//! An authority of our own, and the certificates that it issues.

use super::workspace::Workspace;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// An authority that nobody trusts who was not told to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one, with a new key.
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a new key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for tests");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes `<name>.pem` and `<name>.key` for a server of this machine. `expired`: its time ended long ago.
    pub(crate) fn issue(&self, workspace: &Workspace, name: &str, expired: bool) {
        let key = KeyPair::generate().expect("a new key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("plain names");
        if expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        workspace.write(&format!("{name}.pem"), certificate.pem());
        workspace.write(&format!("{name}.key"), key.serialize_pem());
    }
}
