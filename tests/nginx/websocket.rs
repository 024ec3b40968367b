//! Live tail: a WebSocket is decided at its handshake, and no other upgrade passes.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Client, Request};
use crate::support::site::Site;
use crate::support::tokens::token;

const SERVER: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
access_log @DIR@/audit.jsonl tenantauth_audit;
location / {
    proxy_pass http://@UPSTREAM@;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $http_connection;
}"#;

fn tail(groups: &[&str]) -> Request {
    Request::get("/loki/api/v1/tail?query=%7B%7D").tenant("tenant1").token(&token(groups))
}

#[test]
fn a_tail_passes_both_ways_and_is_recorded() {
    let site = Site::builder().server(SERVER).start();
    let mut client = Client::connect(site.port(""));
    client.send(&tail(&["group1"]).websocket().bytes());
    assert_eq!(client.answer().status, 101);
    for frame in [b"\x81\x05hello".as_slice(), &[0, 255, 13, 10, 13, 10]] {
        client.send(frame);
        assert_eq!(client.exactly(frame.len()), frame);
    }
    let seen = site.upstream.only();
    assert!(!seen.has("X-Id-Token") && seen.values("X-Scope-OrgID") == ["tenant1"], "{}", seen.head);
    assert_eq!(seen.values("Upgrade"), ["websocket"]);
    client.finish();
    drop(client);
    let record = site.audit(1).remove(0);
    assert_eq!((&record["upgrade"], &record["status"]), (&true.into(), &101.into()), "{record}");
    assert_eq!(record["scope"], "logs:read");
}

#[test]
fn a_tail_that_is_not_granted_is_refused_at_its_handshake() {
    let site = Site::builder().server(SERVER).start();
    assert_denied(&site.send(tail(&["team-a"]).websocket()), "tenant_forbidden");
    assert!(site.upstream.take().is_empty());
    let record = site.audit(1).remove(0);
    assert_eq!((&record["upgrade"], &record["decision"]), (&true.into(), &"deny".into()), "{record}");
}

#[test]
fn other_upgrades_are_unknown() {
    let site = Site::builder().server(SERVER).start();
    let upgrade = |request: Request, protocol: &str| {
        site.send(request.header("Connection", "Upgrade").header("Upgrade", protocol))
    };
    for protocol in ["h2c", "websocket, h2c", "h2c, websocket", "websockets", "TLS/1.0", ""] {
        println!("{protocol}");
        assert_denied(&upgrade(tail(&["group1"]), protocol), "route_unknown");
    }
    assert_denied(&upgrade(query(&["group1"], "tenant1"), "websocket"), "route_unknown");
    assert_denied(&upgrade(query(&["group1"], "tenant1"), "h2c"), "route_unknown");
    let twice = tail(&["group1"]).websocket().header("Upgrade", "h2c");
    assert_denied(&site.send(twice), "route_unknown");
    assert!(site.upstream.take().is_empty());
    // A tail without an upgrade is Loki's to answer.
    assert_allowed(&site.send(tail(&["group1"])));
}
