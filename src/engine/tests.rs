//! An engine on real files, with its thread and the real clock.

mod again;
mod attack_owners;
mod fetched;
mod files;
mod keys;
mod order;
mod owners;
mod reload;
mod sharing;

use super::*;
use crate::client_ip::ClientIp;
use crate::client_ip::signature::{self, KeyRing};
use crate::metrics::CacheUse;
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet};
use crate::token::algorithm::Algorithm;
use crate::token::fixtures::{jwk, token, with};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::Instant;

/// Changes are promised to be in force after so long.
const PROMISED: Duration = Duration::from_secs(5);
const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A directory of its own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tenantauth-engine-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn options(&self, policy: &str) -> Options {
        Options { policy: self.path(policy), reload_interval: Duration::from_millis(100), state_dir: None }
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn key_set(keys: &[(&str, Algorithm)]) -> String {
    let keys: Vec<Value> =
        keys.iter().map(|(kid, algorithm)| with(jwk(*algorithm), "kid", json!(kid))).collect();
    json!({"keys": keys}).to_string()
}

/// A policy of one issuer without leeway, and what follows.
fn policy(tail: &str) -> String {
    format!(
        "version: 1\n\
         issuers:\n\
         - name: entra\n  \
           issuer: https://issuer.example\n  \
           audiences: [grafana]\n  \
           jwks_file: jwks.json\n  \
           algorithms: [RS256, ES256]\n  \
           leeway: 0s\n\
         {tail}"
    )
}

/// A directory with keys and a policy, and an engine that watches it.
struct Site {
    scratch: Scratch,
    engine: Arc<Engine>,
}

const TAIL: &str = "grants: [{ name: readers, groups: [a], tenants: [t, u] }]\n";

impl Site {
    fn start(tail: &str) -> Self {
        let scratch = Scratch::new();
        scratch.write("policy.yaml", &policy(tail));
        let site = Self::start_in(scratch, "policy.yaml");
        site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
        site
    }

    fn start_in(scratch: Scratch, policy: &str) -> Self {
        Self::start_with(scratch, policy, None)
    }

    fn start_with(scratch: Scratch, policy: &str, fallback: Option<Vec<u8>>) -> Self {
        scratch.write("jwks.json", &key_set(&[("r", Algorithm::Rs256), ("e", Algorithm::Es256)]));
        scratch.write("ip.keys", &format!("k1:{SECRET}\n"));
        // A shorter rest than in nginx: these tests write each file at once.
        let settling = Duration::from_millis(100);
        let inherited = Inherited { policy: fallback, ..Inherited::default() };
        Self {
            engine: Engine::start_settling(scratch.options(policy), inherited, settling).unwrap(),
            scratch,
        }
    }

    /// Returns how long it took.
    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < 4 * PROMISED, "{what}: {:?}", self.messages());
            thread::sleep(Duration::from_millis(20));
        }
        started.elapsed()
    }

    fn wait_for_reason(&self, request: &Query<'_>, wanted: Reason) {
        let took = self.wait_for(wanted.name(), |site| site.reason(request) == wanted);
        assert!(took < PROMISED, "{wanted} after {took:?}");
    }

    fn change(&self, tail: &str) {
        let before = self.engine.revision();
        self.scratch.write("policy.yaml", &policy(tail));
        let took = self.wait_for("the changed policy", |site| site.engine.revision() != before);
        assert!(took < PROMISED, "{took:?}");
    }

    fn seen<T>(&self, server: &Server, request: &Query<'_>, look: impl Fn(Verdict<'_>) -> T) -> T {
        decided(&self.engine, server, request, look)
    }

    fn reason(&self, request: &Query<'_>) -> Reason {
        self.seen(&loki(), request, |verdict| verdict.decision.reason())
    }

    fn cache(&self, request: &Query<'_>) -> CacheUse {
        self.seen(&loki(), request, |verdict| verdict.tally.cache)
    }

    /// What this worker leaves for others.
    fn last_good(&self) -> Vec<u8> {
        let mut memory = super::keys::Local::default();
        self.engine.share_policy(Some(&mut memory));
        memory.get(LAST_GOOD).unwrap()
    }

    /// All messages that wait, each with its level.
    fn messages(&self) -> Vec<(Level, String)> {
        std::iter::from_fn(|| self.engine.next_message()).collect()
    }

    fn errors(&self) -> Vec<String> {
        let messages = self.messages().into_iter();
        messages.filter(|(level, _)| *level == Level::Error).map(|(_, text)| text).collect()
    }

    /// Long enough for a change to be noticed and judged, were it one.
    fn let_it_look(&self) {
        thread::sleep(Duration::from_millis(500));
    }
}

/// One request as these tests vary it. Becomes header lines, which the engine reads as it reads nginx's.
#[derive(Clone, Copy, Default)]
struct Query<'a> {
    method: &'a [u8],
    request_uri: &'a [u8],
    uri: &'a [u8],
    tenant: Option<&'a [u8]>,
    tenant_repeated: bool,
    token: Option<&'a [u8]>,
    token_repeated: bool,
    /// The token comes in `Authorization`.
    token_is_authorization: bool,
    /// All Cookie lines, joined by newlines.
    cookies: Option<&'a [u8]>,
    remote_addr: &'a [u8],
    peer: &'a [u8],
    headers_truncated: bool,
}

impl<'a> Query<'a> {
    fn lines(&self) -> Vec<(&'static [u8], &'a [u8])> {
        fn add<'a>(
            lines: &mut Vec<(&'static [u8], &'a [u8])>,
            name: &'static str,
            value: Option<&'a [u8]>,
            repeated: bool,
        ) {
            lines.extend(value.map(|value| (name.as_bytes(), value)));
            if repeated {
                lines.extend([(name.as_bytes(), b"".as_slice()); 2]);
            }
        }
        let mut lines = Vec::new();
        add(&mut lines, "x-scope-orgid", self.tenant, self.tenant_repeated);
        let token = if self.token_is_authorization { "authorization" } else { "x-id-token" };
        add(&mut lines, token, self.token, self.token_repeated);
        for line in self.cookies.into_iter().flat_map(|cookies| cookies.split(|byte| *byte == b'\n')) {
            add(&mut lines, "cookie", Some(line), false);
        }
        lines
    }
}

/// What the policy in force says of a request.
fn decided<T>(engine: &Engine, server: &Server, query: &Query<'_>, look: impl Fn(Verdict<'_>) -> T) -> T {
    let Query { method, request_uri, uri, remote_addr, peer, headers_truncated, .. } = *query;
    let request = Request {
        method,
        request_uri,
        uri,
        remote_addr: Some(remote_addr),
        peer,
        upgradable: Upgradable::Unasked,
    };
    let lines = (!headers_truncated).then(|| query.lines().into_iter());
    engine.enforce(server, &request, lines, look).expect("nothing to do before")
}

fn loki() -> Server {
    Server {
        backends: BackendSet::of(Backend::Loki),
        path_prefix: String::new(),
        client_is_remote_addr: false,
        forward_headers: Vec::new(),
    }
}

fn record_of(verdict: Verdict<'_>) -> String {
    String::from_utf8(verdict.record.as_bytes().to_vec()).unwrap()
}

fn claims() -> Value {
    let now = unix_now();
    json!({
        "iss": "https://issuer.example", "aud": "grafana", "sub": "s-1", "exp": now + 3600, "groups": ["a"],
        "preferred_username": "ada",
    })
}

fn signed(kid: &str, claims: &Value) -> String {
    let (algorithm, name) = match kid {
        "e" => (Algorithm::Es256, "ES256"),
        _ => (Algorithm::Rs256, "RS256"),
    };
    token(algorithm, &json!({"alg": name, "kid": kid}).to_string(), &claims.to_string())
}

/// A query of tenant `t` that the policy allows.
fn query(token: &str) -> Query<'_> {
    Query {
        method: b"GET",
        request_uri: b"/loki/api/v1/query?query=%7Bx%3D%22y%22%7D",
        uri: b"/loki/api/v1/query",
        tenant: Some(b"t"),
        token: Some(token.as_bytes()),
        remote_addr: b"192.0.2.1",
        peer: b"192.0.2.1",
        ..Query::default()
    }
}

fn stamp(keys: &str, address: &str, expires: u64) -> String {
    let ring = KeyRing::parse(keys.as_bytes()).unwrap();
    let address = ClientIp::parse(address.as_bytes()).unwrap();
    format!("Client_Ip={}", signature::sign(&ring, "Client_Ip", address, expires))
}
