//! Keys from a real OpenID provider, over TLS: by discovery, through rotation, failure and attack.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::client::{Answer, Client, Request};
use crate::support::provider::{Counts, Provider};
use crate::support::site::{LOKI, MODULE, Site};
use crate::support::wait_for;
use crate::support::workspace::Workspace;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How long a change of the keys may take to be in force everywhere.
const IN_FORCE: Duration = Duration::from_secs(5);

/// A provider, and a gateway of two workers that knows only its issuer.
struct Gateway {
    site: Site,
    provider: Provider,
    /// The provider's. Last, so that nobody uses the directory any more when it is removed.
    _workspace: Workspace,
}

impl Gateway {
    /// Starts both, and waits until the keys are there.
    fn start() -> Self {
        let gateway = Self::prepare(|_| {}, MODULE, 2);
        gateway.wait_for_keys();
        gateway
    }

    /// `before`: what is done to the provider before the gateway knows it.
    fn prepare(before: impl FnOnce(&Provider), module: &str, workers: usize) -> Self {
        let workspace = Workspace::new();
        let provider = Provider::start(&workspace);
        before(&provider);
        let site = site(&provider, module, workers);
        Self { site, provider, _workspace: workspace }
    }

    fn wait_for_keys(&self) {
        let token = self.provider.mint(1, &["group1"], false).remove(0);
        wait_for("keys in every worker", 10, || self.each(&token).iter().all(is_allowed).then_some(()));
    }

    /// Asks every worker the same: one answer of each.
    fn each(&self, token: &str) -> Vec<Answer> {
        each(&self.site, token)
    }

    /// A token that names a key which nobody has.
    fn unknown(&self) -> String {
        self.provider.mint(1, &["group1"], true).remove(0)
    }

    /// The value of a sample.
    fn metric(&self, sample: &str) -> Option<f64> {
        metric(&self.site, sample)
    }
}

/// A gateway that knows this provider's issuer. Its second port is one whose connections the kernel spreads over the
/// workers; `X-Worker` says which one answered.
fn site(provider: &Provider, module: &str, workers: usize) -> Site {
    let policy =
        format!("version: 1\nissuers:\n{}authorizations:\n  group1: [tenant1]\n", provider.policy_entry(""));
    let server = format!("listen 127.0.0.1:@PORT:each@ reuseport;\nadd_header X-Worker $pid always;\n{LOKI}");
    Site::builder().policy(&policy).directory("state").module(module).server(&server).workers(workers).start()
}

fn each(site: &Site, token: &str) -> Vec<Answer> {
    let mut answers = BTreeMap::new();
    let workers = site.nginx().workers();
    for _ in 0..500 {
        let answer = query(token, "tenant1").send(site.port("each"));
        let worker: u32 = answer.header("X-Worker").unwrap().parse().unwrap();
        answers.insert(worker, answer);
        if workers.iter().all(|worker| answers.contains_key(worker)) {
            return answers.into_values().collect();
        }
    }
    panic!("of {workers:?} only {:?} answer", answers.keys());
}

fn metric(site: &Site, sample: &str) -> Option<f64> {
    site.metrics().lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

fn query(token: &str, tenant: &str) -> Request {
    Request::get("/loki/api/v1/query_range?query=%7Ba%3D%22b%22%7D").tenant(tenant).token(token)
}

fn is_allowed(answer: &Answer) -> bool {
    (answer.status, answer.reason()) == (200, "")
}

#[track_caller]
fn all_allowed(answers: &[Answer]) {
    answers.iter().for_each(assert_allowed);
}

#[track_caller]
fn all_denied(answers: &[Answer], reason: &str) {
    for answer in answers {
        assert_denied(answer, reason);
    }
}

/// The header (0) or the claims (1) of a token, unverified.
fn part(token: &str, number: usize) -> Value {
    let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

#[test]
fn the_provider_issues_what_a_login_asked_for() {
    let workspace = Workspace::new();
    let provider = Provider::start(&workspace);
    let token = provider.login("ada", &["group1", "team-a"]);
    let claims = part(&token, 1);
    assert_eq!(part(&token, 0)["kid"], "k1");
    assert_eq!(claims["iss"], provider.issuer.as_str());
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!("grafana"), &json!("ada")));
    assert_eq!(claims["groups"], json!(["group1", "team-a"]));
    provider.publish(&["ec1", "k1"]);
    assert_eq!(part(&provider.login("ada", &[]), 0)["kid"], "ec1");
    let minted = provider.mint(3, &["group1"], true);
    assert!(minted.iter().all(|token| part(token, 0)["kid"] != "ec1"));
    assert_eq!(provider.counts(), Counts { jwks: 0, discovery: 0, at_once: 0 });
}

#[test]
fn a_user_who_logged_in_is_authorised_by_discovered_keys() {
    let gateway = Gateway::start();
    let token = gateway.provider.login("ada", &["group1"]);
    all_allowed(&gateway.each(&token));
    let site = &gateway.site;
    assert_denied(&query(&token, "tenant2").send(site.port("")), "tenant_forbidden");
    let stranger = gateway.provider.login("bob", &["group9"]);
    assert_denied(&query(&stranger, "tenant1").send(site.port("")), "tenant_forbidden");
    let forged = format!("{}.{}", token.rsplit_once('.').unwrap().0, stranger.rsplit_once('.').unwrap().1);
    all_denied(&gateway.each(&forged), "token_signature");

    // One worker fetched for both, and nobody asked again.
    assert_eq!(gateway.provider.counts(), Counts { jwks: 1, discovery: 1, at_once: 1 });
    site.wait_for_log("issuer `idp`: keys fetched: `k1`");
    let status = site.status();
    let issuer = &status.json()["issuers"][0];
    assert_eq!((status.status, &issuer["source"], &issuer["keys"]), (200, &json!("discovery"), &json!(1)));
    assert_eq!(issuer["last_error"], Value::Null);
    assert_eq!(gateway.metric(r#"tenantauth_jwks_keys{issuer="idp"}"#), Some(1.0));
    let age = f64::from(i32::try_from(crate::support::now()).unwrap())
        - gateway.metric(r#"tenantauth_jwks_last_success_timestamp_seconds{issuer="idp"}"#).unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");
    wait_for("a counted fetch", 5, || {
        let fetches = gateway.metric(r#"tenantauth_jwks_refreshes_total{issuer="idp",result="success"}"#);
        (fetches == Some(1.0)).then_some(())
    });
    let log = site.workspace.read("audit.jsonl");
    let of_ada = |line: &&str| line.contains(r#""subject":"ada""#) && line.contains(r#""issuer":"idp""#);
    assert!(log.lines().any(|line| of_ada(&line)), "{log}");
}

#[test]
fn a_rotation_denies_nobody_whose_key_is_published() {
    let gateway = Gateway::start();
    let old = gateway.provider.login("ada", &["group1"]);
    let (port, stop) = (gateway.site.port("each"), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        answers.push(query(&old, "tenant1").send(port));
                    }
                    answers
                })
            })
            .collect();
        sleep(Duration::from_millis(300));
        gateway.provider.publish(&["k2", "k1"]);
        let new = gateway.provider.login("ada", &["group1"]);
        assert_eq!(part(&new, 0)["kid"], "k2");
        // Nobody knows the key yet; that it is asked for leads to a fetch.
        assert_denied(&query(&new, "tenant1").send(port), "token_key_unknown");
        let began = Instant::now();
        wait_for("new key in every worker", 5, || gateway.each(&new).iter().all(is_allowed).then_some(()));
        assert!(began.elapsed() < IN_FORCE, "{:?}", began.elapsed());
        sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        let answers: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert!(answers.len() > 100, "only {} requests", answers.len());
        all_allowed(&answers);
    });
    assert_eq!(gateway.provider.counts(), Counts { jwks: 2, discovery: 2, at_once: 1 });
}

#[test]
fn a_withdrawn_key_verifies_nothing_any_more_not_even_from_the_cache() {
    let gateway = Gateway::start();
    let old = gateway.provider.login("ada", &["group1"]);
    // Twice: the second time it is found in the cache.
    all_allowed(&gateway.each(&old));
    all_allowed(&gateway.each(&old));
    gateway.provider.publish(&["k2"]);
    let new = gateway.provider.login("ada", &["group1"]);
    assert_denied(&query(&new, "tenant1").send(gateway.site.port("")), "token_key_unknown");
    wait_for("a worker with the new set", 5, || gateway.each(&new).iter().any(is_allowed).then_some(()));
    sleep(IN_FORCE);
    all_denied(&gateway.each(&old), "token_key_unknown");
    all_denied(&gateway.each(&old), "token_key_unknown");
    all_allowed(&gateway.each(&new));
}

#[test]
fn the_last_good_keys_serve_while_the_provider_is_down() {
    let gateway = Gateway::start();
    gateway.site.expect_errors();
    let token = gateway.provider.login("ada", &["group1"]);
    gateway.provider.stop();
    all_allowed(&gateway.each(&token));
    // Workers that were never able to fetch anything.
    gateway.site.nginx().reload();
    all_allowed(&gateway.each(&token));
    gateway.site.nginx().kill_worker();
    all_allowed(&gateway.each(&token));
    assert_eq!(gateway.site.status().status, 200);
    assert_eq!(Request::get("/status?ready").send(gateway.site.port("admin")).status, 200);
}

#[test]
fn the_last_good_keys_survive_a_restart_where_a_state_directory_is_given() {
    let with_state = MODULE.replace(" } }", r#", state_dir = "@DIR@/state" } }"#);
    assert_ne!(with_state, MODULE);
    for (module, survive) in [(with_state.as_str(), true), (MODULE, false)] {
        let mut gateway = Gateway::prepare(|_| {}, module, 2);
        gateway.site.expect_errors();
        gateway.wait_for_keys();
        let token = gateway.provider.login("ada", &["group1"]);
        all_allowed(&gateway.each(&token));
        gateway.provider.stop();
        gateway.site.restart();
        if survive {
            // No request is lost: the very first ones are decided with those keys.
            all_allowed(&gateway.each(&token));
            continue;
        }
        sleep(Duration::from_secs(1));
        all_denied(&gateway.each(&token), "keys_unavailable");
        assert_eq!(Request::get("/status?ready").send(gateway.site.port("admin")).status, 503);
        gateway.provider.listen();
        wait_for("keys after the provider came back", 10, || {
            gateway.each(&token).iter().all(is_allowed).then_some(())
        });
        assert_eq!(Request::get("/status?ready").send(gateway.site.port("admin")).status, 200);
    }
}

#[test]
fn requests_before_the_first_keys_are_answered_503_and_flow_when_the_keys_arrive() {
    let gateway = Gateway::prepare(|provider| provider.delay(1500), MODULE, 2);
    let token = gateway.provider.mint(1, &["group1"], false).remove(0);
    all_denied(&gateway.each(&token), "keys_unavailable");
    wait_for("fetched keys", 15, || gateway.site.log().contains("keys fetched").then_some(()));
    let arrived = Instant::now();
    wait_for("traffic", 5, || gateway.each(&token).iter().all(is_allowed).then_some(()));
    assert!(arrived.elapsed() < Duration::from_secs(1), "{:?}", arrived.elapsed());
    assert_eq!(gateway.provider.counts(), Counts { jwks: 1, discovery: 1, at_once: 1 });
}

/// What is wrong with the provider, and the words for it.
struct Fault {
    on: &'static str,
    kind: &'static str,
    words: &'static str,
}

const fn fault(on: &'static str, kind: &'static str, words: &'static str) -> Fault {
    Fault { on, kind, words }
}

impl Fault {
    fn begin(&self, provider: &Provider) {
        match self.on {
            "certificate" => provider.certificate(self.kind),
            on => provider.fault(on, Some(self.kind)),
        }
    }

    fn end(&self, provider: &Provider) {
        match self.on {
            "certificate" => provider.certificate("server"),
            on => provider.fault(on, None),
        }
    }
}

/// A fetch that goes wrong changes nothing but what log, status and metrics say.
fn keys_stay_through(faults: &[Fault]) {
    let workspace = Workspace::new();
    let provider = Provider::start(&workspace);
    let token = provider.mint(1, &["group1"], false).remove(0);
    let unknown = provider.mint(1, &["group1"], true).remove(0);
    for fault in faults {
        let words = fault.words;
        let site = site(&provider, MODULE, 2);
        site.expect_errors();
        wait_for("keys in every worker", 10, || each(&site, &token).iter().all(is_allowed).then_some(()));
        fault.begin(&provider);
        all_denied(&each(&site, &unknown), "token_key_unknown");
        let log = wait_for(&format!("`{words}` in the log of {} {}", fault.on, fault.kind), 20, || {
            Some(site.log()).filter(|log| log.contains(words))
        });
        let line = log.lines().find(|line| line.contains(words)).unwrap();
        assert!(line.contains("[error]") && line.contains("issuer `idp`"), "{line}");
        all_allowed(&each(&site, &token));
        let failed = || metric(&site, r#"tenantauth_jwks_refreshes_total{issuer="idp",result="failure"}"#);
        wait_for("a counted failure", 5, || (failed() == Some(1.0)).then_some(()));
        assert_eq!(metric(&site, r#"tenantauth_jwks_keys{issuer="idp"}"#), Some(1.0));
        let status = site.status();
        let error =
            status.json()["issuers"][0]["last_error"]["error"].as_str().unwrap_or_default().to_owned();
        assert!(status.status == 200 && error.contains(words), "{}", status.text());
        fault.end(&provider);
    }
}

#[test]
fn the_last_good_keys_stay_whatever_the_provider_answers() {
    keys_stay_through(&[
        fault("jwks", "garbage", "is no key set"),
        fault("jwks", "empty", "holds no key"),
        fault("jwks", "endless", "the answer is larger than 1048576 bytes"),
        fault("jwks", "type", "the content type is `text/html`, not JSON"),
        fault("jwks", "status", "the status is 500, not 200"),
        fault("jwks", "redirect", "it redirects to `https://other.test/jwks`, which is another server"),
        fault("discovery", "issuer", "is about the issuer `https://other.test`, not `https://localhost:"),
        fault("discovery", "garbage", "is no OpenID metadata"),
        fault("certificate", "expired", "the server's certificate has expired"),
        fault("certificate", "stranger", "is not from an authority that is trusted"),
    ]);
}

#[test]
fn the_last_good_keys_stay_when_the_provider_drips() {
    keys_stay_through(&[fault("jwks", "drip", "no complete answer in time")]);
}

#[test]
fn the_last_good_keys_stay_when_the_provider_says_nothing() {
    keys_stay_through(&[fault("discovery", "silence", "no complete answer in time")]);
}

#[test]
fn without_keys_nobody_gets_in_until_the_provider_is_repaired() {
    for fault in [
        fault("certificate", "expired", "the server's certificate has expired"),
        fault("certificate", "stranger", "is not from an authority that is trusted"),
        fault("discovery", "issuer", "is about the issuer `https://other.test`"),
        fault("jwks", "garbage", "is no key set"),
    ] {
        let gateway = Gateway::prepare(|provider| fault.begin(provider), MODULE, 2);
        gateway.site.expect_errors();
        let token = gateway.provider.mint(1, &["group1"], false).remove(0);
        gateway.site.wait_for_log(fault.words);
        all_denied(&gateway.each(&token), "keys_unavailable");
        assert_eq!(gateway.site.status().status, 200, "the policy serves");
        assert_eq!(Request::get("/status?ready").send(gateway.site.port("admin")).status, 503);
        assert_eq!(gateway.metric(r#"tenantauth_jwks_keys{issuer="idp"}"#), Some(0.0));
        fault.end(&gateway.provider);
        gateway.wait_for_keys();
    }
}

#[test]
fn a_thousand_unknown_keys_cause_one_fetch() {
    let gateway = Gateway::start();
    let before = gateway.provider.counts();
    // Long enough for a second fetch to begin while the first one runs, if anything lets it.
    gateway.provider.delay(500);
    let tokens = gateway.provider.mint(1000, &["group1"], true);
    let port = gateway.site.port("each");
    thread::scope(|scope| {
        for some in tokens.chunks(250) {
            scope.spawn(move || {
                for token in some {
                    assert_denied(&query(token, "tenant1").send(port), "token_key_unknown");
                }
            });
        }
    });
    sleep(Duration::from_secs(2));
    all_denied(&gateway.each(&gateway.unknown()), "token_key_unknown");
    sleep(Duration::from_secs(1));
    let after = gateway.provider.counts();
    assert_eq!((after.jwks - before.jwks, after.discovery - before.discovery, after.at_once), (1, 1, 1));
}

#[test]
fn memory_stays_flat_through_ten_thousand_tokens_beyond_the_cache() {
    const BOUND: usize = 4096;
    const MORE: usize = 10_000;
    let gateway = Gateway::prepare(|provider| provider.publish(&["ec1"]), MODULE, 1);
    gateway.wait_for_keys();
    let tokens = gateway.provider.mint(BOUND + 1000 + MORE, &["group1"], false);
    let send = |tokens: &[String]| {
        // nginx closes a connection after a thousand requests.
        for some in tokens.chunks(500) {
            let mut client = Client::connect(gateway.site.port(""));
            for token in some {
                client.send(&query(token, "tenant1").bytes());
                assert_allowed(&client.answer());
            }
        }
    };
    let worker = *gateway.site.nginx().workers().first().unwrap();
    let (first, more) = tokens.split_at(BOUND + 1000);
    send(first);
    let before = resident_kib(worker);
    send(more);
    let after = resident_kib(worker);
    assert!(gateway.site.nginx().workers().contains(&worker), "another worker than at first");
    let entries = gateway.metric("tenantauth_token_cache_entries").unwrap();
    assert!(entries <= BOUND as f64, "{entries} entries");
    eprintln!("resident: {before} KiB with a full cache, {after} KiB after {MORE} more tokens");
    assert!(after < before + 2048, "{before} KiB grew to {after} KiB");
}

/// The resident memory of a process.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
