//! Ways round the removal of headers: forms of a request that a client chooses, over HTTP/1.0, 1.1 and 2.

use crate::go_proxy::{policy, proxy};
use crate::support::client::{Client, Request};
use crate::support::site::{COOKIE_KEY, POLICY, SIGNED_COOKIE, Site};
use crate::support::tokens::token;
use crate::support::wait_for;
use crate::support::workspace::free_port;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// As much of the client's hop-by-hop headers goes on as `enforce` leaves.
const FOLLOWING: &str = "proxy_http_version 1.1; proxy_set_header Connection $http_connection; \
    proxy_set_header Upgrade $http_upgrade;";

/// Loki behind `enforce` at this address, with these lines in its server.
fn loki(lines: &str, address: &str) -> Site {
    let server = format!(
        r#"
        {lines}
        rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        location / {{ {FOLLOWING} proxy_pass http://{address}; }}"#
    );
    Site::builder().policy(&format!("{POLICY}{SIGNED_COOKIE}")).server(&server).start()
}

/// The names of the headers that arrived, in lower case.
fn names(seen: &crate::support::upstream::Seen) -> Vec<String> {
    seen.headers().into_iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

/// What no backend may see of the requests below.
const GONE: [&str; 12] = [
    "x-loki-a",
    "x-loki-b",
    "x-mimir-q",
    "x-cortex-",
    "sharding-control",
    "upgrade",
    "http2-settings",
    "x-id-token",
    "x-grafana-id",
    "recent-data-target",
    "x-read-consistency-max-delay",
    "authorization",
];

/// A real Go proxy holds a service token; a person's request comes in every form that Go's server reads.
#[test]
fn no_form_of_a_request_takes_all_marks_of_a_person_away() {
    let site = Site::builder().policy(&policy("")).http("large_client_header_buffers 8 64k;").start();
    let grafana = proxy(&site, free_port());
    let cookie = COOKIE_KEY.pair("203.0.113.5");
    let marks = "X-Grafana-User, X-Id-Token, Cookie, X-Forwarded-For";
    let long = format!("Connection: {}{marks}\r\n", "X-A, ".repeat(9000));
    let many: String = (0..120).map(|number| format!("X-Pad-{number}: x\r\n")).collect();
    let cases = [
        (format!("Connection: close,\r\n {marks}\r\n"), ""),
        (format!("Connection: close,\r\n\t{marks},\r\n X-Forwarded-For\r\n"), ""),
        (format!("Connection:\t{}\t\r\n", marks.replace(", ", "\t,\t")), ""),
        (format!("Connection: {marks}, \"X-Forwarded-For\", Connection\r\n"), ""),
        (long, ""),
        (format!("Connection: {marks}\r\nX-Forwarded-For:\r\nX-Forwarded-For: a\r\n"), ""),
        (format!("Connection: {marks}\r\nProxy-Connection: X-Forwarded-For\r\nTE: X-Forwarded-For\r\n"), ""),
        (
            format!("Connection: {marks}\r\nTrailer: X-Forwarded-For\r\nTransfer-Encoding: chunked\r\n"),
            "3\r\nabc\r\n0\r\nX-Forwarded-For: \r\n\r\n",
        ),
        (format!("Connection: Upgrade, {marks}\r\nUpgrade: websocket\r\n"), ""),
        (format!("Connection: Upgrade, {marks}\r\nUpgrade: X-Forwarded-For\r\n"), ""),
        (format!("Connection: {marks}, Host, Content-Length, Transfer-Encoding\r\n"), ""),
        (format!("Connection: {marks}\r\nX-Forwarded-For: {}\r\n", "192.0.2.1, ".repeat(4000)), ""),
        (format!("Connection: {marks}\r\n{many}"), ""),
    ];
    for (lines, body) in &cases {
        for (path, version) in [("query", "1.1"), ("query", "1.0"), ("tail", "1.1")] {
            let mut client = Client::connect(grafana.port);
            let head =
                format!("GET /loki/api/v1/{path} HTTP/{version}\r\nHost: grafana\r\nCookie: {cookie}\r\n");
            client.send(format!("{head}{lines}\r\n{body}").as_bytes());
            let answer = client.answer();
            let expected = if lines.contains(&many) { "headers_truncated" } else { "service_attended" };
            assert_eq!(answer.reason(), expected, "{version} {lines:.200}: {answer:?}");
        }
    }
    assert!(site.upstream.take().is_empty(), "nothing arrives");
}

/// Which pieces a request has, and in what order, is nothing that a removal depends on.
#[test]
fn whatever_the_order_of_lines_none_is_left() {
    let names_sent = [
        "Connection",
        "connection",
        "CONNECTION",
        "X-Loki-A",
        "x-loki-b",
        "Upgrade",
        "HTTP2-Settings",
        "Recent-Data-Target",
        "X-Kept",
        "X-Mimir-Q",
        "Sharding-Control",
        "X-Read-Consistency-Max-Delay",
        "X-Cortex-",
        "X-Grafana-Id",
        "X-Pad",
    ];
    let values =
        ["x-scope-orgid", "te, x-kept", "h2c", "", "keep-alive, x-scope-orgid", "websocket", "X-Kept"];
    let site = loki("keepalive_requests 10000;", "@UPSTREAM@");
    let user = token(&["group1"]);
    let mut client = Client::connect(site.port(""));
    let mut seed = 99_u32;
    let mut pick = |count: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(seed >> 9).expect("a usize") % count
    };
    for _ in 0..600 {
        // nginx keeps headers in pieces of 20.
        let count = [3, 10, 18, 19, 20, 21, 40, 60, 90, 97][pick(10)];
        let place = pick(count);
        let mut kept = 0;
        let mut request = Request::get("/loki/api/v1/query");
        for number in 0..count {
            if number == place {
                request = request.tenant("tenant1").token(&user);
            }
            let name = names_sent[pick(names_sent.len())];
            kept += usize::from(name == "X-Kept");
            request = request.header(name, values[pick(values.len())]);
        }
        let bytes = request.bytes();
        client.send(&bytes);
        let answer = client.answer();
        let sent = String::from_utf8_lossy(&bytes);
        assert_eq!((answer.status, answer.reason()), (200, ""), "{sent}");
        let seen = site.upstream.only();
        assert!(!names(&seen).iter().any(|name| GONE.contains(&&**name)), "{}\n{sent}", seen.head);
        assert_eq!((seen.values("X-Kept").len(), seen.values("X-Scope-OrgID").len()), (kept, 1), "{sent}");
        let connection = seen.values("Connection");
        assert!(connection.len() <= 1, "{}", seen.head);
        assert!(
            ["", "te", "keep-alive", "keep-alive, te"].contains(&&*connection.join(",")),
            "{}",
            seen.head
        );
    }
}

/// What one request has made nginx take out, or could not, is nothing to the next one of its connection.
#[test]
fn requests_of_one_connection_do_not_touch_each_other() {
    let lines = "keepalive_requests 10000; if ($arg_copy) { set $copy $http_upgrade; }";
    let site = loki(lines, "@UPSTREAM@");
    let user = token(&["group1"]);
    let kinds: [(&str, &[(&str, &str)], &str, &str); 8] = [
        ("query?copy=1", &[("Upgrade", "h2c"), ("Connection", "Upgrade, X-A")], "route_unknown", ""),
        ("query", &[], "", ""),
        ("query", &[("Upgrade", "h2c"), ("Connection", "Upgrade, X-Scope-OrgID")], "", ""),
        ("query", &[("Connection", "X-Scope-OrgID, keep-alive")], "", "keep-alive"),
        ("query?copy=1", &[("Connection", "X-Scope-OrgID")], "", ""),
        ("nowhere", &[("Upgrade", "h2c"), ("Connection", "X-Scope-OrgID")], "route_unknown", ""),
        ("query", &[("X-Scope-OrgID", "tenant2"), ("Connection", "X-A")], "tenant_duplicate", ""),
        (
            "query",
            &[
                ("Cookie", "a=1; Client_Ip=2"),
                ("Connection", "cookie, te"),
                ("X-Mimir-Q", "1"),
                ("Sharding-Control", "1"),
                ("X-Cortex-", "a"),
                ("x-loki-b", "1"),
                ("Authorization", "x"),
            ],
            "",
            "te",
        ),
    ];
    let mut client = Client::connect(site.port(""));
    // Every kind after every other.
    for number in 0..kinds.len() * kinds.len() * 2 {
        let (first, second) = (number / 2 / kinds.len(), number / 2 % kinds.len());
        let (path, headers, reason, connection) = kinds[if number % 2 == 0 { first } else { second }];
        let request = Request::get(format!("/loki/api/v1/{path}")).tenant("tenant1").token(&user);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        client.send(&request.bytes());
        assert_eq!(client.answer().reason(), reason, "{path} {headers:?}");
        let seen = site.upstream.take();
        assert_eq!(seen.len(), usize::from(reason.is_empty()));
        for seen in seen {
            assert!(!names(&seen).iter().any(|name| GONE.contains(&&**name)), "{}", seen.head);
            assert_eq!(seen.values("Connection").join(","), connection, "{headers:?}");
            assert!(!seen.head.contains("Client_Ip"), "{}", seen.head);
        }
    }
}

/// A backend that answers everything with 101, and tells what it received: each reading of a connection by itself.
fn switching() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a bound listener").port();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 8192];
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let _ = sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    (port, receiver)
}

/// Sends a request, and another one after half a second or as soon as there is an answer. Returns what came back of the
/// second.
fn follow(port: u16, first: &[u8], second: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a listening server");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    stream.write_all(first).expect("a connection");
    let mut buffer = [0; 8192];
    let _ = stream.read(&mut buffer);
    let _ = stream.write_all(second);
    let count = stream.read(&mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[test]
fn a_declined_offer_is_no_tunnel_whatever_the_backend_answers() {
    let (port, received) = switching();
    let site = loki("", &format!("127.0.0.1:{port}"));
    let user = token(&["group1"]);
    for offers in [&["h2c"][..], &["websocket", "h2c"], &["a", "h2c", "c"]] {
        for path in ["/loki/api/v1/query", "/loki/api/v1/tail"] {
            let request = Request::get(path).tenant("tenant1").token(&user).header("Connection", "Upgrade");
            let request = offers.iter().fold(request, |request, offer| request.header("Upgrade", offer));
            follow(site.port(""), &request.bytes(), &Request::get("/loki/api/v1/smuggled").bytes());
            let seen: Vec<_> = received.try_iter().collect();
            assert_eq!(seen.len(), 1, "{path} {offers:?}: {seen:?}");
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An integer of HPACK with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(number: usize) -> Vec<u8> {
    let byte = |number: usize| u8::try_from(number).expect("a byte");
    if number < 127 {
        return vec![byte(number)];
    }
    let (mut rest, mut bytes) = (number - 127, vec![127]);
    while rest >= 128 {
        bytes.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    bytes.push(byte(rest));
    bytes
}

/// A request of HTTP/2, every header written out.
fn http2(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.extend(integer(text.len()));
            block.extend(text.as_bytes());
        }
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [preface.as_slice(), &frame(4, 0, 0, &[]), &frame(1, 5, 1, &block)].concat()
}

#[test]
fn over_http_2_the_same_is_taken_out() {
    let site = loki("listen 127.0.0.1:@PORT:h2@ http2;", "@UPSTREAM@");
    let user = token(&["group1"]);
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("connection", "close, x-scope-orgid")], "close"),
        (&[("connection", "x-scope-orgid"), ("connection", "x-b")], ""),
        (&[("upgrade", "h2c"), ("connection", "upgrade"), ("http2-settings", "AA")], ""),
        (&[("x-loki-a", "1"), ("recent-data-target", "x"), ("x-loki-a", ""), ("sharding-control", "1")], ""),
    ];
    for (extra, connection) in cases {
        let mut headers = vec![(":method", "GET"), (":scheme", "http"), (":path", "/loki/api/v1/query")];
        headers.extend([(":authority", "g"), ("x-scope-orgid", "tenant1"), ("x-id-token", &*user)]);
        headers.extend(extra);
        let mut client = Client::connect(site.port("h2"));
        client.send(&http2(&headers));
        let seen = wait_for("request that arrives", 5, || site.upstream.take().pop());
        assert_eq!(seen.values("Connection").join(","), connection, "{extra:?}");
        assert!(!names(&seen).iter().any(|name| GONE.contains(&&**name)), "{}", seen.head);
        assert_eq!(seen.values("X-Scope-OrgID"), ["tenant1"]);
    }
}

/// The Grafana Gateway as its example has it, before this address, with further servers.
fn grafana_gateway(address: &str, server: &str) -> Site {
    let http = format!(
        r#"
        map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
        server {{
            listen 127.0.0.1:@PORT:gateway@;
            large_client_header_buffers 8 32k;
            location / {{
                rewrite_by_lua_block {{
                    require("tenantauth").stamp_client_ip {{ keys_file = "@DIR@/client-ip.keys" }}
                }}
                proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $connection_upgrade;
                proxy_pass http://{address};
            }}
        }}"#
    );
    Site::builder().http(&http).server(server).start()
}

/// What stands before Grafana may know `h2c` (Caddy can be told to): all that follows in the tunnel is stamped by nobody,
/// and its `Connection` names what it likes.
#[test]
fn the_grafana_gateway_opens_no_tunnel_but_a_websocket() {
    let (port, received) = switching();
    let site = grafana_gateway(&format!("127.0.0.1:{port}"), "");
    for offer in ["h2c", "websocket, h2c", "TLS/1.0"] {
        let first =
            Request::get("/").header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", offer);
        let second =
            Request::get("/").cookie("Client_Ip=192.0.2.1").header("Connection", "X-Id-Token, Cookie");
        follow(site.port("gateway"), &first.bytes(), &second.bytes());
        let seen: Vec<_> = received.try_iter().collect();
        assert!(!seen.iter().any(|text| text.contains("192.0.2.1")), "{offer}: {seen:#?}");
    }
}

/// Go reads no cookie at all where there are more than 3000 (since 1.24.8 and 1.25.2): who logs in to Grafana by a header
/// has the gateway's cookie dropped, which shows a person behind a service token.
#[test]
fn no_number_of_cookies_hides_the_stamp_from_grafana() {
    let port = free_port();
    let server = "large_client_header_buffers 8 32k; location / { proxy_pass http://@UPSTREAM@; }";
    let site = grafana_gateway(&format!("127.0.0.1:{port}"), server);
    let _grafana = proxy(&site, port);
    // Each refusal is logged.
    site.expect_errors();
    for count in [0, 1, 2999, 3000, 5000] {
        let answer = Request::get("/").cookie("a;".repeat(count) + "b=1").send(site.port("gateway"));
        let seen = site.upstream.take();
        // Refused, or stamped.
        assert!(answer.status == 200 || count > 180, "{count}: {answer:?}");
        let stamped =
            |seen: &crate::support::upstream::Seen| seen.values("Cookie").join(";").contains("Client_Ip=v1.");
        assert!(seen.iter().all(stamped), "{count} cookies:\n{}", seen[0].head);
        assert_eq!(seen.len(), usize::from(answer.status == 200), "{count}");
    }
}
