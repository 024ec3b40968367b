//! A small web server for one test, with or without TLS, that answers as the test says.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a handler writes to: the connection, decrypted where there is TLS.
pub(super) trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

type Handler = Box<dyn Fn(&str, &mut dyn Connection) + Send + Sync>;

/// Ends with the process that started it.
pub(super) struct Server {
    /// Where it listens, on 127.0.0.1.
    pub(super) port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `handler`: gets a request's path and writes the whole answer; afterwards the connection is closed.
    pub(super) fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&str, &mut dyn Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::start_knowing_its_port(tls, |_| handler)
    }

    /// The same, for answers that name the server itself.
    pub(super) fn start_knowing_its_port<H>(
        tls: Option<Arc<ServerConfig>>,
        handler: impl FnOnce(u16) -> H,
    ) -> Self
    where
        H: Fn(&str, &mut dyn Connection) + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let handler = handler(port);
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (record, handler): (_, Arc<Handler>) = (Arc::clone(&heads), Arc::new(Box::new(handler)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, record, handler) = (tls.clone(), Arc::clone(&record), Arc::clone(&handler));
                thread::spawn(move || match tls {
                    None => serve(stream, &record, &handler),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(session, stream), &record, &handler);
                    }
                });
            }
        });
        Self { port, heads }
    }

    /// A port that takes connections and never says anything.
    pub(super) fn silent() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let kept: Vec<TcpStream> = listener.incoming().flatten().collect();
            drop(kept);
        });
        port
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(mut stream: impl Connection, heads: &Mutex<Vec<String>>, handler: &Handler) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // A client that does not trust the certificate leaves here.
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().unwrap().push(head);
    handler(&path, &mut stream);
}

/// Writes an answer with a body of JSON.
pub(super) fn json(connection: &mut dyn Connection, body: &str) {
    answer(connection, "200 OK", "Content-Type: application/json\r\n", body.as_bytes());
}

/// Writes an answer. `headers`: whole lines. A client that has seen enough is no failure.
pub(super) fn answer(connection: &mut dyn Connection, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    let _ = connection.write_all(head.as_bytes());
    let _ = connection.write_all(body);
    let _ = connection.flush();
}

/// An authority of certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate.
    pub(super) fn pem(&self) -> &[u8] {
        self.pem.as_bytes()
    }

    /// A server's certificate for a name, and its key. `expired`: it ended long ago.
    pub(super) fn serve(&self, name: &str, expired: bool) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}
