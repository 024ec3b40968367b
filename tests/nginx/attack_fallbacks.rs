//! What an attacker tries on the ways around a decision: bodies behind a denial, requests that come by once more, what a
//! request leaves in logs.

use crate::checks::assert_denied;
use crate::support::client::{Client, Request};
use crate::support::site::{LOKI, POLICY, Site};
use crate::support::tokens::token;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Sends the bytes over a connection of their own, and returns what comes until nothing more does.
fn exchange(port: u16, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for part in parts {
        stream.write_all(part).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

fn statuses(answers: &str) -> Vec<&str> {
    answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, found)| &answers[at + found.len()..at + found.len() + 3])
        .collect()
}

/// A good request in the body of a denied one is no request.
#[test]
fn a_denied_request_ends_with_its_body() {
    let site = Site::start();
    let token = token(&["group1"]);
    let inner = format!(
        "GET /loki/api/v1/labels HTTP/1.1\r\nHost: a\r\nX-Scope-OrgID: tenant1\r\nX-Id-Token: {token}\r\n\r\n"
    );
    let length = format!("Content-Length: {}\r\n", inner.len());
    let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    for (framing, body) in [(&*length, &*inner), ("Transfer-Encoding: chunked\r\n", &chunked)] {
        for method in ["POST", "GET", "HEAD"] {
            let head = format!(
                "{method} /loki/api/v1/query HTTP/1.1\r\nHost: a\r\nX-Scope-OrgID: tenant1\r\n{framing}\r\n"
            );
            let whole = format!("{head}{body}");
            for parts in [vec![whole.as_bytes()], vec![head.as_bytes(), body.as_bytes()]] {
                let answers = exchange(site.port(""), &parts);
                assert_eq!(statuses(&answers), ["403"], "{method} {framing}: {answers}");
            }
        }
    }
    assert!(site.upstream.take().is_empty());
}

/// nginx runs such a location once the answer is sent, as HTTP/0.9.
#[test]
fn nothing_goes_upstream_behind_an_answer() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        error_page 400 = @page;
        location / { post_action @after; proxy_pass http://@UPSTREAM@; }
        location = /loki/api/v1/labels { post_action @after; return 204; }
        location @page { rewrite_by_lua_block { } post_action @after; return 204; }
        location @after { @GUARD@ proxy_pass http://@UPSTREAM:after@; }
    "#;
    for guard in ["", r#"rewrite_by_lua_block { require("tenantauth").enforce { again = true } }"#] {
        let site = Site::builder().server(&server.replace("@GUARD@", guard)).start();
        site.expect_errors();
        let token = token(&["group1"]);
        let get = |path: &str, more: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nX-Scope-OrgID: tenant1|tenant1\r\nX-Id-Token: {token}\r\n\
                 X-Loki-Forged: 1\r\n{more}\r\n"
            )
        };
        for (bytes, expected) in [
            (get("/loki/api/v1/query", ""), "200"),
            (get("/ready", ""), "403"),
            (get("/loki/api/v1/labels", ""), "204"),
            (get("/loki/api/v1/query", "Host: b\r\nX-Grafana-User: ada\r\n"), "204"),
        ] {
            let answers = exchange(site.port(""), &[bytes.as_bytes()]);
            assert_eq!(statuses(&answers), [expected], "{answers}");
        }
        assert_eq!(site.upstream.take().len(), 1);
        let seen = site.upstream_of("after").take();
        assert!(seen.is_empty(), "{}", seen[0].head);
    }
}

/// One server for two backends, and a fallback to one of them: what is a write of metrics to the first is a write of logs
/// to the second.
#[test]
fn what_one_backend_was_allowed_does_not_pass_to_another() {
    let server = r#"
        error_page 502 = @standby;
        proxy_intercept_errors on;
        location /loki/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            proxy_pass http://@UPSTREAM@;
        }
        location /api/prom/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir" } }
            proxy_pass http://@UPSTREAM@;
        }
        location @standby {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true } }
            proxy_pass http://@UPSTREAM:loki@;
            proxy_set_header X-Echo-Status "";
        }
    "#;
    let policy = POLICY.to_owned()
        + "  - { name: metrics, groups: [agents], tenants: [tenant1], scopes: [\"metrics:write\"] }\n";
    let site = Site::builder().policy(&policy).server(server).start();
    site.expect_errors();
    let request =
        |path: &str| Request::new("POST", path).tenant("tenant1").token(&token(&["agents"])).body("{}");
    assert_denied(&site.send(request("/loki/api/v1/push")), "scope_forbidden");
    let answer = site.send(request("/api/prom/push").header("X-Echo-Status", "502"));
    let seen = site.upstream_of("loki").take();
    assert!(seen.is_empty(), "who may write no logs writes some:\n{}", seen[0].head);
    assert_denied(&answer, "internal_error");
}

/// What a request that nobody decided says in its path stays on one line.
#[test]
fn nobody_writes_lines_of_the_error_log() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        client_max_body_size 1;
        error_page 413 @fallback;
        location / { proxy_pass http://@UPSTREAM@; }
        location @fallback { @GUARD@ proxy_pass http://@UPSTREAM@; }
    "#;
    for guard in ["", r#"rewrite_by_lua_block { require("tenantauth").enforce { again = true } }"#] {
        let site = Site::builder().server(&server.replace("@GUARD@", guard)).start();
        site.expect_errors();
        let request =
            Request::new("POST", "/%0a2026/01/01%2000:00:00%20[notice]%20forged%1b[31m").body("large");
        assert_denied(&site.send(request), "internal_error");
        let log = site.wait_for_log("location of");
        assert!(!log.lines().any(|line| line.starts_with("2026/01/01 00:00:00")), "{log}");
        assert!(!log.contains('\u{1b}'), "{log}");
    }
}

/// Whatever a backend answers, and however many were asked.
#[test]
fn every_status_is_json_and_none_is_lost() {
    let site = Site::builder().server(&LOKI.replace("@UPSTREAM@", "127.0.0.1:@PORT:odd@")).start();
    site.expect_errors();
    let listener = TcpListener::bind(("127.0.0.1", site.port("odd"))).unwrap();
    let odd = ["001", "099", "000", "009", "100", "999"];
    thread::spawn(move || {
        for (stream, status) in listener.incoming().flatten().zip(odd) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.1 {status} Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let query = || Request::get("/loki/api/v1/query").tenant("tenant1").token(&token(&["group1"]));
    for _ in odd {
        let mut client = Client::connect(site.port(""));
        client.send(&query().header("Connection", "close").bytes());
        client.answer();
    }
    let records = site.audit(odd.len());
    assert_eq!(records[5]["status"], 999);
}

/// A fallback adds the servers that it asks to those that were asked before.
#[test]
fn the_statuses_of_many_servers_are_all_recorded() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        error_page 502 = @standby; proxy_intercept_errors on;
        location / { proxy_pass http://@UPSTREAM@; }
        location @standby {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true } }
            proxy_pass http://dead;
        }
    "#;
    let servers: String = (1..=4).map(|port| format!("server 127.0.0.1:{port};")).collect();
    let site = Site::builder().server(server).http(&format!("upstream dead {{ {servers} }}")).start();
    site.expect_errors();
    let request = Request::get("/loki/api/v1/query").tenant("tenant1").token(&token(&["group1"]));
    assert_eq!(site.send(request.header("X-Echo-Status", "502")).status, 502);
    assert_eq!(site.audit(1)[0]["upstream_status"], serde_json::json!([502, 502, 502, 502, 502]));
}

#[test]
fn what_is_allowed_below_a_prefix_passes_to_no_other_backend() {
    let server = r#"
        error_page 502 = @standby; proxy_intercept_errors on;
        location /pre/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir", path_prefix = "/pre" } }
            proxy_pass http://@UPSTREAM@/;
        }
        location /loki/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            proxy_pass http://@UPSTREAM@;
        }
        location @standby {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true, backend = "loki" } }
            proxy_pass http://@UPSTREAM:loki@;
        }
    "#;
    let policy = POLICY.to_owned()
        + "  - { name: m, groups: [agents], tenants: [tenant1], scopes: [\"metrics:write\", \"metrics:read\"] }\n";
    let site = Site::builder().policy(&policy).server(server).start();
    site.expect_errors();
    let r =
        |method: &str, path: &str| Request::new(method, path).tenant("tenant1").token(&token(&["agents"]));
    assert_denied(
        &site.send(r("POST", "/pre/api/prom/push").body("{}").header("X-Echo-Status", "502")),
        "internal_error",
    );
    assert!(site.upstream_of("loki").take().is_empty());
    assert_denied(&site.send(r("GET", "/pre/prometheus/api/v1/label/a%3Fb/values")), "path_ambiguous");
    // What the connection's first request was allowed says nothing of its second one.
    let mut client = Client::connect(site.port(""));
    client.send(&r("GET", "/pre/prometheus/api/v1/labels").bytes());
    assert_eq!(client.answer().status, 200);
    client.send(&r("GET", "/loki/api/v1/labels").header("X-Echo-Status", "502").bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.reason().to_owned()), (403, "scope_forbidden".to_owned()));
    assert!(site.upstream_of("loki").take().is_empty());
}
