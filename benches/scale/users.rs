//! The token cache under many users, in one engine.

use crate::common::typical::{PATH, QUERY};
use crate::support::wait_for;
use crate::support::workspace::Workspace;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenantauth::engine::{Engine, Inherited, Options, Readiness, Request, Server, Upgradable};
use tenantauth::scope::{Backend, BackendSet};

/// Everybody's tokens, and the engine that they are shown to.
pub(crate) struct Users {
    tokens: Vec<String>,
    engine: Arc<Engine>,
    _workspace: Workspace,
}

impl Users {
    /// So many users of the typical size: 50 groups, a token of 3 kB. Signed with ES256, which is quicker to sign.
    pub(crate) fn new(count: usize) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        let workspace = Workspace::new();
        workspace.write("jwks.json", json!({"keys": [jwk]}).to_string());
        let policy = "version: 1\nissuers:\n  - { name: idp, issuer: https://login.example.test/v2.0, audiences: [grafana], \
                      jwks_file: jwks.json, algorithms: [ES256] }\nauthorizations: { team-a: [tenant1] }\n";
        let policy = workspace.write("policy.yaml", policy);
        let options = Options { policy, reload_interval: Duration::from_secs(2), state_dir: None };
        let engine = Engine::start(options, Inherited::default()).expect("a thread");
        wait_for("policy in force", 10, || (engine.readiness() == Readiness::Ready).then_some(()));
        let random = SystemRandom::new();
        let groups: Vec<String> = (1..50).map(|n| format!("{n:08x}00004000a00000000000aa{n:02x}")).collect();
        let sign = |user: usize| {
            let mut groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            groups.push("team-a");
            let subject = json!({"sub": format!("user-{user}"), "exp": crate::support::now() + 7200});
            let claims = crate::support::tokens::claims_with(&groups, subject).to_string();
            let text = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#),
                URL_SAFE_NO_PAD.encode(claims)
            );
            let signature = pair.sign(&random, text.as_bytes()).expect("a signature");
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        Self { tokens: (0..count).map(sign).collect(), engine, _workspace: workspace }
    }

    /// Microseconds a request where the first so many users come in turns, each at least twice.
    pub(crate) fn in_turns(&self, count: usize) -> f64 {
        let server = Server {
            backends: BackendSet::of(Backend::Loki),
            path_prefix: String::new(),
            client_is_remote_addr: false,
            forward_headers: Vec::new(),
        };
        let uri = format!("{PATH}?{QUERY}");
        let ask = |token: &str| {
            let lines =
                [(b"x-scope-orgid".as_slice(), b"tenant1".as_slice()), (b"x-id-token", token.as_bytes())];
            let request = Request {
                method: b"GET",
                request_uri: uri.as_bytes(),
                uri: PATH.as_bytes(),
                remote_addr: None,
                peer: b"127.0.0.1",
                upgradable: Upgradable::Unasked,
            };
            let lines = Some(lines.into_iter());
            let allowed =
                self.engine.enforce(&server, &request, lines, |verdict| verdict.decision.is_allow());
            assert_eq!(allowed, Ok(true), "a user of the policy");
        };
        self.tokens[..count].iter().for_each(|token| ask(token));
        let rounds = (20_000 / count).max(1);
        let started = Instant::now();
        for _ in 0..rounds {
            self.tokens[..count].iter().for_each(|token| ask(token));
        }
        started.elapsed().as_secs_f64() * 1e6 / (rounds * count) as f64
    }
}
