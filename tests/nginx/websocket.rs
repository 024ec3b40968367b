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

/// Forms in which people send `Upgrade` on.
const FORMS: [(&str, &str); 3] = [
    ("", "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;"),
    (
        "map $http_upgrade $connection_upgrade { default upgrade; '' close; }",
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;",
    ),
    ("", r#"proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "Upgrade";"#),
];

fn site_of(http: &str, location: &str) -> Site {
    let server = format!(
        r#"
        rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / {{
            {location}
            proxy_http_version 1.1;
            proxy_pass http://@UPSTREAM@;
        }}"#
    );
    Site::builder().http(http).server(&server).start()
}

/// As HTTP clients of Java's offer it.
fn offering(request: Request, protocol: &str) -> Request {
    request
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", protocol)
        .header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
}

#[test]
fn other_offers_to_upgrade_are_declined() {
    for (http, location) in FORMS {
        let site = site_of(http, location);
        let declined = |request: Request| {
            assert_allowed(&site.send(request));
            let seen = site.upstream.only();
            assert!(!seen.has("Upgrade") && !seen.has("HTTP2-Settings"), "{location}:\n{}", seen.head);
            let connection = seen.values("Connection").join(",").to_ascii_lowercase();
            assert!(!connection.contains("http2"), "{location}:\n{}", seen.head);
            // Only where the configuration itself says so for every request.
            assert!(!connection.contains("upgrade") || location.contains("\"Upgrade\""), "{}", seen.head);
        };
        for protocol in ["h2c", "websocket, h2c", "h2c, websocket", "websockets", "TLS/1.0", ""] {
            println!("{protocol}");
            declined(offering(tail(&["group1"]), protocol));
            declined(offering(query(&["group1"], "tenant1"), protocol));
        }
        declined(offering(query(&["group1"], "tenant1"), "websocket"));
        declined(tail(&["group1"]).websocket().header("Upgrade", "h2c"));
        declined(query(&["group1"], "tenant1").header("Upgrade", "h2c"));
        // It is decided all the same.
        assert_denied(&site.send(offering(query(&["group1"], "tenant2"), "h2c")), "tenant_forbidden");
        let unknown = Request::get("/nowhere").tenant("tenant1").token(&token(&["group1"]));
        assert_denied(&site.send(offering(unknown, "h2c")), "route_unknown");
        assert!(site.upstream.take().is_empty());
        // A tail without an upgrade is Loki's to answer; with one it is a WebSocket in each of these forms.
        assert_allowed(&site.send(tail(&["group1"])));
        site.upstream.take();
        let mut client = Client::connect(site.port(""));
        client.send(&tail(&["group1"]).websocket().bytes());
        assert_eq!(client.answer().status, 101, "{location}");
        client.finish();
        drop(client);
        let records = site.audit(19);
        let upgraded = records.iter().filter(|record| record["upgrade"] == true).count();
        assert_eq!(upgraded, 1, "only the WebSocket");
    }
}

/// What nginx has evaluated before keeps its value: the offer would go on.
#[test]
fn an_offer_that_nginx_has_copied_is_unknown() {
    for location in [
        "set $copy $http_upgrade; proxy_set_header Upgrade $copy;",
        "if ($http_upgrade = none) { return 418; } proxy_set_header Upgrade $http_upgrade;",
        "if ($http_upgrade ~ (.*)) { set $copy $1; } proxy_set_header Upgrade $copy;",
    ] {
        let site = site_of("", location);
        assert_denied(&site.send(offering(query(&["group1"], "tenant1"), "h2c")), "route_unknown");
        assert_denied(&site.send(offering(tail(&["group1"]), "h2c")), "route_unknown");
        assert!(site.upstream.take().is_empty(), "{location}");
        // The order of reasons is that of every request, and nobody else notices.
        let without = Request::get("/loki/api/v1/query").token(&token(&["group1"]));
        assert_denied(&site.send(offering(without, "h2c")), "tenant_missing");
        assert_allowed(&site.send(query(&["group1"], "tenant1")));
        let records = site.audit(4);
        assert!(records.iter().all(|record| record["upgrade"] == false), "{records:?}");
        assert_eq!(records[0]["reason"], "route_unknown");
    }
    // A copy made by a map, or at the end of the request, is made of what is left.
    let later = "map $http_upgrade $copy { default $http_upgrade; }";
    let site = site_of(later, "proxy_set_header Upgrade $copy;");
    assert_allowed(&site.send(offering(query(&["group1"], "tenant1"), "h2c")));
    assert!(!site.upstream.only().has("Upgrade"));
}

#[test]
fn without_http_conf_no_other_offer_passes() {
    let module = crate::support::site::MODULE.replace("include @DIR@/share/tenantauth/http.conf;", "");
    let server = SERVER.replace("access_log @DIR@/audit.jsonl tenantauth_audit;", "");
    let site = Site::builder().module(&module).server(&server).start();
    assert_denied(&site.send(offering(query(&["group1"], "tenant1"), "h2c")), "route_unknown");
    assert_denied(&site.send(offering(tail(&["group1"]), "h2c")), "route_unknown");
    assert!(site.upstream.take().is_empty());
    let mut client = Client::connect(site.port(""));
    client.send(&tail(&["group1"]).websocket().bytes());
    assert_eq!(client.answer().status, 101);
    client.finish();
}
