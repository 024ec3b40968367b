//! Live tail: a WebSocket is decided at its handshake, and no other upgrade passes.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Client, Request};
use crate::support::http2;
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

/// HTTP/2 has no such header, and nginx looks at it all the same.
#[test]
fn over_http_2_nothing_is_upgraded() {
    for (http, location) in FORMS {
        let gateway = format!(
            "{http}\nserver {{ listen 127.0.0.1:@PORT:h2@ http2; access_log @DIR@/audit.jsonl tenantauth_audit;\n\
             rewrite_by_lua_block {{ require(\"tenantauth\").enforce {{ backend = \"loki\" }} }}\n\
             location / {{ {location} proxy_http_version 1.1; proxy_pass http://@UPSTREAM@; }} }}"
        );
        let site = Site::builder().http(&gateway).start();
        let token = token(&["group1"]);
        let all = [("x-scope-orgid", "tenant1"), ("x-id-token", &*token)];
        let ask = |path: &str, more: &[(&str, &str)]| {
            let lines = [&all[..], more].concat();
            http2::get(site.port("h2"), path, &lines)
        };
        let tail = "/loki/api/v1/tail?query=%7B%7D";
        for offer in [
            &[("upgrade", "websocket")][..],
            &[("upgrade", "WebSocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
            &[("upgrade", "websocket"), ("connection", "upgrade")],
            &[("connection", "Upgrade"), ("upgrade", "websocket")],
            &[("upgrade", "h2c")],
            &[("upgrade", "")],
        ] {
            println!("{location}: {offer:?}");
            // Loki's to answer, like every tail without an upgrade.
            assert_eq!(ask(tail, offer), 200);
            let seen = site.upstream.only();
            assert!(!seen.has("Upgrade"), "{}", seen.head);
            let connection = seen.values("Connection").join(",").to_ascii_lowercase();
            assert!(!connection.contains("upgrade") || location.contains("\"Upgrade\""), "{}", seen.head);
        }
        assert_eq!(ask("/nowhere", &[("upgrade", "websocket")]), 403);
        assert_eq!(http2::get(site.port("h2"), tail, &[("upgrade", "websocket"), all[1]]), 403);
        assert!(site.upstream.take().is_empty());
        let records = site.audit(8);
        assert!(records.iter().all(|record| record["upgrade"] == false), "{records:?}");
    }
}

/// Of HTTP/1.0 the header is ignored.
#[test]
fn over_http_1_0_nothing_is_upgraded() {
    let site = Site::builder().server(SERVER).start();
    let request = tail(&["group1"]).websocket().bytes();
    let request = String::from_utf8(request).unwrap().replace(" HTTP/1.1\r\n", " HTTP/1.0\r\n");
    let mut client = Client::connect(site.port(""));
    client.send(request.as_bytes());
    assert_eq!(client.answer().status, 200);
    assert!(!site.upstream.only().has("Upgrade"));
}
