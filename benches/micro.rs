//! What the parts cost: decision, first sight of a token, a whole request, a route, a policy compiled.
//!
//! Absolute times come from criterion. Ratios that the project promises are measured apart from it, both sides in
//! turns, so that a machine that changes its pace does not change them. `benches/README.md` says how to read it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a measurement on the developer's own machine: it may stop where something is missing"
)]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::Spread;
use common::promises::{Outcome, Report};
use common::typical::{self, PATH, POLICY, QUERY};
use criterion::Criterion;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::site::COOKIE_KEY;
use support::tokens::{jwks, key};
use support::workspace::Workspace;
use tenantauth::audit::PrincipalMembers;
use tenantauth::client_ip::{ClientIp, cookie};
use tenantauth::decision::{AccessRequest, Caller, decide};
use tenantauth::engine::{Engine, Inherited, Options, Readiness, Request, Server, Upgradable, unix_now};
use tenantauth::policy::snapshot::GroupId;
use tenantauth::policy::{self, Compiled, Files};
use tenantauth::route::{Route, route};
use tenantauth::scope::{Backend, BackendSet};
use tenantauth::tenant::TenantList;
use tenantauth::token::{VerifiedClaims, verify};

// === Policies

/// The two files that every policy here names.
struct Keys;

impl Files for Keys {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, tenantauth::file::FileError> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("jwks.json") => Ok(jwks(&[key()]).into_bytes()),
            Some("client-ip.keys") => Ok(COOKIE_KEY.line().into_bytes()),
            _ => Err(tenantauth::file::FileError::NotKept),
        }
    }
}

fn compile(text: &str) -> Compiled {
    let outcome = policy::compile("policy.yaml", text.as_bytes(), &mut Keys, unix_now());
    outcome.compiled.unwrap_or_else(|| panic!("the policy was refused: {:?}", outcome.diagnostics.first()))
}

/// How much a policy holds.
#[derive(Clone, Copy)]
struct Size {
    grants: usize,
    groups: usize,
    networks: usize,
}

const SMALL: Size = Size { grants: 10, groups: 10, networks: 10 };
const LARGE: Size = Size { grants: 100_000, groups: 10_000, networks: 10_000 };

impl Size {
    /// A policy with one grant for each tenant, every tenth for a pattern too, its groups used in turns, and one
    /// restriction that binds every request to all networks.
    fn policy(self) -> String {
        let (head, _) = POLICY.split_once("authorizations:").expect("a section of that name");
        let head = head.replace("@DIR@/", "");
        let mut text = format!("{head}client_ip: {{ keys_file: client-ip.keys }}\nnetworks:\n");
        for n in 0..self.networks {
            writeln!(text, "  net-{n}: [{}]", network(n)).expect("a string takes everything");
        }
        text.push_str("restrictions:\n  - name: everything\n    networks:\n");
        for n in 0..self.networks {
            writeln!(text, "      - net-{n}").expect("a string takes everything");
        }
        text.push_str("grants:\n");
        for n in 0..self.grants {
            let pattern = if n % 10 == 0 { format!(", \"tenant-{n}-*\"") } else { String::new() };
            let group = n % self.groups;
            writeln!(
                text,
                "  - groups: [group-{group}]\n    tenants: [tenant-{n}{pattern}]\n    scopes: [\"logs:read\", \"metrics:*\"]"
            )
            .expect("a string takes everything");
        }
        text
    }
}

/// Every second /24 of 10.0.0.0/8: none touches another, so none can be merged.
fn network(n: usize) -> String {
    format!("10.{}.{}.0/24", n / 128, n % 128 * 2)
}

/// What is asked of a policy, over and over or in turns.
struct Question {
    tenant: String,
    groups: Box<[GroupId]>,
    client: ClientIp,
}

/// Questions all over a policy, each of which it allows: people in 50 groups, of which a small policy knows ten.
fn questions(policy: &Compiled, size: Size, count: usize) -> Vec<Question> {
    (0..count)
        .map(|n| {
            let grant = n * 7919 % size.grants;
            let names: Vec<String> =
                (0..50).map(|next| format!("group-{}", (grant + next * 211) % size.groups.max(50))).collect();
            let own = format!("group-{}", grant % size.groups);
            let groups = policy
                .snapshot
                .groups
                .of_user(0, names.iter().skip(1).map(String::as_str).chain([own.as_str()]));
            let address = network(n * 31 % size.networks).replace(".0/24", ".7");
            let client = ClientIp::parse(address.as_bytes()).expect("an address");
            Question { tenant: format!("tenant-{grant}"), groups, client }
        })
        .collect()
}

fn ask(policy: &Compiled, question: &Question, tenants: &TenantList<'_>, route: Route, now: u64) -> bool {
    decide(
        &policy.snapshot,
        &AccessRequest {
            groups: &question.groups,
            caller: Caller::User { bound_by: &question.groups },
            tenants,
            scope: route.scope,
            backends: route.backends,
            client_ip: Ok(question.client),
            now,
        },
    )
    .is_allow()
}

/// A function that asks the next of the questions.
fn asker<'a>(policy: &'a Compiled, questions: &'a [Question]) -> impl FnMut() -> bool + 'a {
    let route = typical_route();
    let now = unix_now();
    let parsed: Vec<_> = questions
        .iter()
        .map(|question| (question, TenantList::parse(question.tenant.as_bytes()).expect("a tenant")))
        .collect();
    for (question, tenants) in &parsed {
        assert!(ask(policy, question, tenants, route, now), "denied: {}", question.tenant);
    }
    let next = Cell::new(0);
    move || {
        let (question, tenants) = &parsed[next.get()];
        next.set((next.get() + 1) % parsed.len());
        ask(policy, question, tenants, route, now)
    }
}

// === Requests

fn typical_route() -> Route {
    let uri = format!("{PATH}?{QUERY}");
    route(BackendSet::of(Backend::Loki), "", b"GET", uri.as_bytes(), PATH.as_bytes(), None).expect("a route")
}

/// What an engine does with a token that it sees for the first time.
fn first_sight(
    policy: &Compiled,
    token: &str,
    now: u64,
) -> (VerifiedClaims, Box<[GroupId]>, PrincipalMembers) {
    let snapshot = &policy.snapshot;
    let claims = verify(token.as_bytes(), &snapshot.issuers, &policy.keys, now).expect("a good token");
    let identity = claims.identity();
    let groups = snapshot.groups.of_user(claims.issuer(), identity.groups.iter().map(|group| &**group));
    let names = groups.iter().skip(1).map(|group| snapshot.groups.name(*group));
    let members = PrincipalMembers::of_user("idp", identity, names);
    (claims, groups, members)
}

/// The signature of a token verified by the cryptographic library alone: key parsed before, nothing decoded.
fn raw_verification(token: &str) -> impl Fn() -> bool {
    let jwk = key().jwk();
    let number = |name: &str| {
        URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("a member of the key")).expect("base64url")
    };
    let components = RsaPublicKeyComponents { n: number("n"), e: number("e") };
    let key: ParsedPublicKey =
        components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).expect("a public key");
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let (signed, signature) = (signed.to_owned(), URL_SAFE_NO_PAD.decode(signature).expect("base64url"));
    move || key.verify_sig(signed.as_bytes(), &signature).is_ok()
}

/// An engine with the typical policy in force.
fn start_engine(workspace: &Workspace) -> Arc<Engine> {
    workspace.write("jwks.json", jwks(&[key()]));
    workspace.write("client-ip.keys", COOKIE_KEY.line());
    let policy = workspace.write("policy.yaml", POLICY.replace("@DIR@", workspace.text()));
    let engine = Engine::start(
        Options { policy, reload_interval: Duration::from_secs(2), state_dir: None },
        Inherited::default(),
    );
    let engine = engine.expect("a thread");
    support::wait_for("policy in force", 10, || (engine.readiness() == Readiness::Ready).then_some(()));
    engine
}

/// A function that decides the typical request, token and cookie known.
fn typical_request(engine: &Engine) -> impl FnMut() -> bool + '_ {
    let token = typical::token();
    let uri = format!("{PATH}?{QUERY}");
    let server = Server {
        backends: BackendSet::of(Backend::Loki),
        path_prefix: String::new(),
        client_is_remote_addr: false,
        forward_headers: Vec::new(),
    };
    let mut headers = typical::headers(&token);
    headers.push(("Host", "gateway.example".to_owned()));
    let headers: Vec<(String, String)> =
        headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    move || {
        let request = Request {
            method: b"GET",
            request_uri: uri.as_bytes(),
            uri: PATH.as_bytes(),
            remote_addr: None,
            peer: b"127.0.0.1",
            upgradable: Upgradable::Unasked,
        };
        let lines = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        engine
            .enforce(&server, &request, Some(lines), |verdict| {
                verdict.decision.is_allow() && !black_box(verdict.record.as_bytes()).is_empty()
            })
            .expect("a policy that needs no $remote_addr")
    }
}

// === Ratios

/// What `ours` costs, as a multiple of what `theirs` costs: measured in turns, for about a second.
fn compare(row: &'static str, mut ours: impl FnMut() -> bool, mut theirs: impl FnMut() -> bool) -> Outcome {
    const ROUNDS: usize = 2001;
    // A quarter of a millisecond a batch: long against the clock, and so short that most rounds pass before another
    // process takes the core away. The median does not see the others.
    let batch = |call: &mut dyn FnMut() -> bool| {
        let mut calls = 1_u32;
        loop {
            let time = timed(call, calls);
            if time > Duration::from_micros(250) {
                return calls;
            }
            calls *= 2;
        }
    };
    let (our_batch, their_batch) = (batch(&mut ours), batch(&mut theirs));
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let (mut our_time, mut their_time) = (0.0, 0.0);
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                our_time = timed(&mut ours, our_batch).as_secs_f64() / f64::from(our_batch);
            } else {
                their_time = timed(&mut theirs, their_batch).as_secs_f64() / f64::from(their_batch);
            }
        }
        rounds.push((our_time, their_time));
    }
    let median = |side: fn(&(f64, f64)) -> f64| Spread::of(rounds.iter().map(side)).median * 1e6;
    let absolute = format!("{:.3} / {:.3} us", median(|round| round.0), median(|round| round.1));
    let ratio = Spread::of(rounds.iter().map(|(ours, theirs)| ours / theirs));
    Outcome::measured(row, ratio, absolute)
}

fn timed(call: &mut (impl FnMut() -> bool + ?Sized), calls: u32) -> Duration {
    let started = Instant::now();
    for _ in 0..calls {
        assert!(black_box(call()), "what is measured failed");
    }
    started.elapsed()
}

/// The middle of a few compilations, in milliseconds.
fn compile_time(text: &str) -> f64 {
    let times = (0..3).map(|_| {
        let started = Instant::now();
        let policy = black_box(compile(text));
        let time = started.elapsed().as_secs_f64() * 1e3;
        drop(policy);
        time
    });
    Spread::of(times).median
}

fn main() {
    let mut report = Report::begin("micro");
    let text = LARGE.policy();
    let (small, large) = (compile(&SMALL.policy()), compile(&text));
    let (few, many) = (questions(&small, SMALL, 1024), questions(&large, LARGE, 1024));
    let asked: BTreeSet<&str> = many.iter().map(|question| &*question.tenant).collect();
    assert_eq!(asked.len(), many.len(), "each asks for a tenant of its own");
    let token = typical::token();
    let now = unix_now();
    let workspace = Workspace::new();
    let engine = start_engine(&workspace);
    let typical_policy = compile(&POLICY.replace("@DIR@/", ""));
    let uri = format!("{PATH}?{QUERY}");

    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    let mut bench = |name: &str, call: &mut dyn FnMut() -> bool| {
        assert!(call(), "`{name}` fails");
        criterion.bench_function(name, |bencher| bencher.iter(|| black_box(call())));
    };
    bench("route", &mut || {
        let backends = BackendSet::of(Backend::Loki);
        route(backends, "", b"GET", uri.as_bytes(), PATH.as_bytes(), None).is_ok()
    });
    for part in [";", "a=b; ", "Client_Ix;"] {
        let cookies = part.repeat(240_000 / part.len());
        bench(&format!("240 kB of `{part}` as cookies"), &mut || {
            cookie::find(cookies.as_bytes(), "Client_Ip") == cookie::Found::None
        });
    }
    bench("decide: 10 grants", &mut asker(&small, &few));
    bench("decide: 100 000 grants", &mut asker(&large, &many));
    bench("RS256 of the token, the library alone", &mut raw_verification(&token));
    bench("first sight of the token", &mut || first_sight(&typical_policy, &token, now).1.len() == 3);
    bench("whole request, token and cookie known", &mut typical_request(&engine));
    criterion.final_summary();
    if !common::is_wanted() {
        return;
    }

    let outcomes = [
        compare(
            "first-sight",
            || first_sight(&typical_policy, &token, now).1.len() == 3,
            raw_verification(&token),
        ),
        compare("decision-same", asker(&large, &many[..1]), asker(&small, &few[..1])),
        compare("decision-turns", asker(&large, &many), asker(&small, &few)),
    ];
    report.version(format!("tenantauth {}", env!("CARGO_PKG_VERSION")));
    report.end(&outcomes);
    println!(
        "\ncompiling 100 000 grants, 10 000 groups, 100 000 tenants, 10 000 networks ({:.1} MB): {:.0} ms",
        text.len() as f64 / 1e6,
        compile_time(&text)
    );
    drop(engine);
}
