//! The shipped examples, run as they are.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::client::{Client, Request};
use crate::support::example;
use crate::support::site::{COOKIE_KEY, Site};
use crate::support::tokens::{claims_with, key, service_token};
use serde_json::json;

/// A token as the example's policy wants it.
fn token(policy: &str, groups: &[&str]) -> String {
    let document = example::shipped(policy);
    let issuer = example::value(&document, "issuer");
    let audience = example::value(&document, "audiences");
    key().token(&claims_with(groups, json!({"iss": issuer, "aud": audience})))
}

/// Where nginx is not told, workers are `nobody`, and what `keygen --group www-data` made cannot be read: every request
/// is answered 503. (Which user it is differs between machines, so the tests run the examples with another.)
#[test]
fn every_configuration_says_who_its_workers_are() {
    for name in ["minimal.conf", "drop-in.conf", "mimir-loki-tempo.conf", "grafana-gateway.conf"] {
        let users = example::shipped(name).lines().filter(|line| *line == "user www-data;").count();
        assert_eq!(users, 1, "{name}");
    }
}

/// Tokens of people in many groups are larger than what nginx takes by default.
#[test]
fn every_configuration_has_room_for_tokens() {
    for (name, policy, port, path) in [
        ("minimal.conf", "minimal-policy.yaml", "8080", "/loki/api/v1/query"),
        ("drop-in.conf", "minimal-policy.yaml", "8080", "/prometheus/api/v1/query"),
        ("mimir-loki-tempo.conf", "policy.yaml", "8081", "/prometheus/api/v1/query"),
    ] {
        let site = example::start(name, policy, port);
        let groups: Vec<String> = (0..200).map(|n| format!("77777777-0000-4000-8000-{n:012x}")).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let request = Request::get(path).tenant("tenant1").token(&token(policy, &groups));
        assert_denied(&request.send(site.port(port)), "tenant_forbidden");
    }
}

/// Vector asks so before it sends, with its token and without a tenant. It leaves no record, and nothing is asked of
/// Loki.
#[track_caller]
fn assert_ready(site: &Site, port: &str) {
    let ready = || Request::get("/ready");
    for request in [ready(), ready().header("Authorization", format!("Bearer {}", service_token('a')))] {
        let answer = request.send(site.port(port));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ready\n"), "{answer:?}");
    }
    assert_denied(&Request::get("/ready/").send(site.port(port)), "tenant_missing");
    assert_denied(&Request::get("/readyx").send(site.port(port)), "tenant_missing");
    assert!(site.upstream_of("3100").take().is_empty());
}

#[test]
fn minimal() {
    let policy = "minimal-policy.yaml";
    let site = example::start("minimal.conf", policy, "8080");
    let ask = |tenant: &str| {
        let request = Request::get("/loki/api/v1/query").tenant(tenant).token(&token(policy, &["group1"]));
        request.send(site.port("8080"))
    };
    assert_allowed(&ask("tenant1"));
    assert_eq!(site.upstream_of("3100").only().target(), "/loki/api/v1/query");
    assert_ready(&site, "8080");
    assert_denied(&ask("tenant2"), "tenant_forbidden");
    let records = site.audit(4);
    assert_eq!(Request::get("/status").send(site.port("9145")).status, 200);
    // Two workers with a buffer each: the lines come in any order.
    let allowed = records.iter().filter(|record| record["decision"] == "allow").count();
    assert_eq!((records.len(), allowed), (4, 1), "{records:?}");
}

#[test]
fn drop_in() {
    let policy = "minimal-policy.yaml";
    let site = example::start("drop-in.conf", policy, "8080");
    let ask = |tenant: &str, groups: &[&str]| {
        let request = Request::get("/prometheus/api/v1/query?query=up").tenant(tenant);
        request.token(&token(policy, groups)).send(site.port("8080"))
    };
    assert_allowed(&ask("tenant1", &["group1"]));
    assert_allowed(&ask("tenant1|tenant2", &["group3"]));
    assert_eq!(site.upstream_of("9009").take().len(), 2);
    assert_denied(&ask("tenant2", &["group1"]), "tenant_forbidden");
    let missing = Request::get("/prometheus/api/v1/query").tenant("tenant1").send(site.port("8080"));
    assert_denied(&missing, "token_missing");
    assert_eq!(missing.json()["errorType"], "forbidden");
    assert_eq!(Request::get("/status").send(site.port("9145")).status, 200);
    site.audit(4);
}

#[test]
fn mimir_loki_tempo() {
    let policy = "policy.yaml";
    let site = example::start("mimir-loki-tempo.conf", policy, "8082");
    let (sre, team) = ("0f3c9a1e-0000-4000-8000-000000000001", "0f3c9a1e-0000-4000-8000-000000000002");
    let office = COOKIE_KEY.pair("203.0.113.5");
    let ask = |port: &str, method: &str, path: &str, tenant: &str, group: &str, cookie: &str| {
        let request = Request::new(method, path).tenant(tenant).token(&token(policy, &[group]));
        let request = if cookie.is_empty() { request } else { request.cookie(cookie) };
        request.send(site.port(port))
    };
    for (port, backend, path) in [
        ("8081", "9009", "/prometheus/api/v1/query?query=up"),
        ("8082", "3100", "/loki/api/v1/query?query=x"),
        ("8083", "3200", "/api/search?q=x"),
    ] {
        assert_allowed(&ask(port, "GET", path, "team-a", team, &office));
        let seen = site.upstream_of(backend).only();
        assert_eq!((seen.target(), seen.has("X-Id-Token"), seen.has("Connection")), (path, false, false));
        assert_denied(&ask(port, "GET", path, "team-a-hr", team, &office), "tenant_forbidden");
        assert_allowed(&ask(port, "GET", path, "anyones", sre, ""));
        assert_eq!(site.upstream_of(backend).take().len(), 1);
    }
    let home = COOKIE_KEY.pair("198.18.0.5");
    assert_denied(&ask("8082", "GET", "/loki/api/v1/query", "team-a", team, &home), "ip_forbidden");
    assert_allowed(&ask("8081", "GET", "/prometheus/api/v1/query", "team-a", team, &home));
    assert_allowed(&ask("8081", "POST", "/api/v1/push", "team-a", team, &home));
    site.upstream_of("9009").take();

    // Traces are written to Tempo's receiver, by whom the policy lets write.
    for path in ["/v1/traces", "/otlp/v1/traces"] {
        assert_denied(&ask("8083", "POST", path, "team-a", sre, ""), "scope_forbidden");
        assert_allowed(&ask("8083", "POST", path, "team-a", team, &home));
        assert_eq!(site.upstream_of("4318").only().target(), "/v1/traces");
    }

    assert_ready(&site, "8082");
    // Live tail, and a token as large as real ones get.
    let mut groups: Vec<String> = (0..200).map(|n| format!("ffffffff-0000-4000-8000-{n:012}")).collect();
    groups.push(team.to_owned());
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut client = Client::connect(site.port("8082"));
    let tail = Request::get("/loki/api/v1/tail?query=x").tenant("team-a").token(&token(policy, &groups));
    client.send(&tail.cookie(&office).websocket().bytes());
    assert_eq!(client.answer().status, 101);
    client.send(b"line");
    assert_eq!(client.exactly(4), b"line");
    drop(client);

    assert_eq!(Request::get("/status").send(site.port("9145")).status, 200);
    assert!(Request::get("/metrics").send(site.port("9145")).text().contains("tenantauth_decisions_total{"));
    site.audit(19);
}

fn gateway() -> Site {
    example::start("grafana-gateway.conf", "policy.yaml", "8084")
}

#[test]
fn grafana_gateway() {
    let site = gateway();
    let request =
        Request::get("/d/abc").cookie("session=1; client_ip=spoof").header("X-Forwarded-For", "203.0.113.5");
    let answer = request.send(site.port("8084"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = site.upstream_of("3000").only();
    let status = Request::get("/status").send(site.port("9146"));
    assert_eq!((status.status, &status.json()["stamping"]), (200, &true.into()), "{status:?}");
    let metrics = Request::get("/metrics").send(site.port("9146")).text();
    assert!(metrics.contains("tenantauth_client_ip_keys{"), "{metrics}");
    let cookies = seen.values("Cookie");
    let value = cookies[0].strip_prefix("session=1; Client_Ip=").unwrap_or_else(|| panic!("{cookies:?}"));
    assert_eq!(COOKIE_KEY.open("Client_Ip", value).0, "203.0.113.5");
    assert_eq!((cookies.len(), seen.values("Host")), (1, vec!["gateway.test".to_owned()]));

    let mut client = Client::connect(site.port("8084"));
    client.send(&Request::get("/api/live/ws").websocket().bytes());
    assert_eq!(client.answer().status, 101);
    client.send(b"ping");
    assert_eq!(client.exactly(4), b"ping");
    assert!(site.upstream_of("3000").only().values("Cookie")[0].starts_with("Client_Ip=v1."));
}

/// Grafana learns each address once, the one that is stamped as the client's, and how the client connected.
#[test]
fn grafana_gateway_says_who_asked_and_how() {
    let site = gateway();
    let seen = |headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Request::get("/login"), |request, (name, value)| request.header(name, value));
        assert_eq!(request.send(site.port("8084")).status, 200);
        let seen = site.upstream_of("3000").only();
        ["X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"].map(|name| {
            let values = seen.values(name);
            assert_eq!(values.len(), 1, "{name}: {values:?}");
            values[0].to_owned()
        })
    };
    assert_eq!(seen(&[]), ["127.0.0.1", "127.0.0.1", "http"]);
    let balanced = [("X-Forwarded-For", "203.0.113.5"), ("X-Forwarded-Proto", "https")];
    assert_eq!(seen(&balanced), ["203.0.113.5", "203.0.113.5, 127.0.0.1", "https"]);
    // What a client wrote before its load balancer appended the address it saw, and what is no scheme.
    let forged = [
        ("X-Forwarded-For", "198.18.0.5, 203.0.113.5"),
        ("X-Real-IP", "198.18.0.5"),
        ("X-Forwarded-Proto", "javascript"),
    ];
    assert_eq!(seen(&forged), ["203.0.113.5", "198.18.0.5, 203.0.113.5, 127.0.0.1", "http"]);
}
