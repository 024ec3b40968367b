//! The Grafana Gateway: one trustworthy cookie in place of whatever the browser claims.

use crate::checks::{assert_allowed, query};
use crate::support::client::{Answer, Client, Request};
use crate::support::cookie::CookieKey;
use crate::support::http2;
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::{now, wait_for};

/// No `init_worker`, no shared dict, no `http.conf`: the gateway needs none of them.
const BARE: &str = r#"lua_package_cpath "@DIR@/lib/tenantauth/?.so;;";"#;

fn gateway(options: &str) -> Site {
    let server = format!(
        r#"
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Forwarded-For;
        location / {{
            rewrite_by_lua_block {{ require("tenantauth").stamp_client_ip {{ {options} }} }}
            proxy_pass http://@UPSTREAM@;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
        }}"#
    );
    Site::builder().module(BARE).server(&server).start()
}

const SIGNED: &str = r#"keys_file = "@DIR@/client-ip.keys""#;

/// The cookies that Grafana got, all in one line, the last one taken apart: name and value.
fn stamped(site: &Site) -> (Vec<String>, String, String) {
    let lines = site.upstream.only().values("Cookie");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let mut cookies: Vec<String> = lines[0].split("; ").map(str::to_owned).collect();
    let last = cookies.pop().unwrap();
    let (name, value) = last.split_once('=').unwrap();
    (cookies, name.to_owned(), value.to_owned())
}

fn ok(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!format!("{answer:?}").contains("Set-Cookie"), "the browser saw it: {answer:?}");
}

#[test]
fn the_address_is_stamped_and_signed() {
    let site = gateway(SIGNED);
    for (forwarded, address) in [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8::5", "2001:db8::5"),
        ("", "127.0.0.1"),
        ("junk", "127.0.0.1"),
    ] {
        let request = Request::get("/d/abc?x=1");
        ok(&site.send(if forwarded.is_empty() {
            request
        } else {
            request.header("X-Forwarded-For", forwarded)
        }));
        let (others, name, value) = stamped(&site);
        assert_eq!((others.len(), name.as_str()), (0, "Client_Ip"));
        let (signed, expiry) = COOKIE_KEY.open("Client_Ip", &value);
        assert_eq!(signed, address);
        assert!((295..=300).contains(&(expiry - now())), "{expiry}");
    }
}

#[test]
fn every_claimed_cookie_goes_and_the_others_stay_byte_for_byte() {
    let site = gateway(SIGNED);
    let cases: [(&[&[u8]], &[&str]); 9] = [
        (&[b"a=1; Client_Ip=1.2.3.4; b=2"], &["a=1", "b=2"]),
        (&[b"client_ip=x; CLIENT_IP=y; a=1; Client_Ip=z"], &["a=1"]),
        (&[b"a=1; client_IP=x", b"CLIENT_ip=y; b=2", b"c=3"], &["a=1", "b=2", "c=3"]),
        (&[b"Client_Ip=x"], &[]),
        (&[b"Client_Ip =x; \tclient_ip\t=y; a=1"], &["a=1"]),
        (&[b"Client_Ip; client_ip"], &[]),
        (&[b"Client_Ip2=x; XClient_Ip=y; Client-Ip=z"], &["Client_Ip2=x", "XClient_Ip=y", "Client-Ip=z"]),
        (&[b"s=\"q,u o=te\"; t==a=; u"], &["s=\"q,u o=te\"", "t==a=", "u"]),
        (&[b"raw=\x80\xff%20"], &["raw=\u{80}\u{ff}%20"]),
    ];
    for (lines, expected) in cases {
        let request = lines.iter().fold(Request::get("/"), |request, line| request.cookie(line));
        ok(&site.send(request.header("X-Other", "kept")));
        let (others, name, value) = stamped(&site);
        assert_eq!(
            (others, name.as_str()),
            (expected.iter().map(|c| (*c).to_owned()).collect(), "Client_Ip")
        );
        assert_eq!(COOKIE_KEY.open("Client_Ip", &value).0, "127.0.0.1");
    }
    // Without blanks behind the semicolon, with some too many.
    ok(&site.send(Request::get("/").cookie("a=1;Client_Ip=x;b=2;  c=3")));
    let line = site.upstream.only().values("Cookie").remove(0);
    let (others, stamp) = line.rsplit_once("; ").unwrap();
    let names: Vec<&str> = others.split(';').map(str::trim).collect();
    assert!(names == ["a=1", "b=2", "c=3"] && stamp.starts_with("Client_Ip=v1."), "{line}");
}

#[test]
fn many_headers_hide_no_cookie() {
    let site = gateway(SIGNED);
    site.expect_errors();
    let padded =
        (0..150).fold(Request::get("/"), |request, number| request.header(&format!("X-{number}"), "x"));
    let answer = site.send(padded.cookie("Client_Ip=203.0.113.5; a=1"));
    match site.upstream.take().as_slice() {
        [] => assert_eq!(answer.status, 503, "{answer:?}"),
        seen => {
            let cookies = seen[0].values("Cookie").join("; ");
            assert!(
                !cookies.contains("203.0.113.5") && cookies.matches("Client_Ip=").count() == 1,
                "{cookies}"
            );
        }
    }
}

#[test]
fn websockets_are_stamped() {
    let site = gateway(SIGNED);
    let mut client = Client::connect(site.port(""));
    client.send(&Request::get("/api/live/ws").websocket().cookie("client_ip=x; a=1").bytes());
    assert_eq!(client.answer().status, 101);
    client.send(b"frame");
    assert_eq!(client.exactly(5), b"frame");
    let (others, name, value) = stamped(&site);
    assert_eq!((others, name.as_str()), (vec!["a=1".to_owned()], "Client_Ip"));
    COOKIE_KEY.open("Client_Ip", &value);
}

#[test]
fn options_are_followed() {
    let site = gateway("unsigned = true");
    ok(&site.send(Request::get("/").cookie("a=1; client_ip=x").header("X-Forwarded-For", "2001:db8::5")));
    assert_eq!(site.upstream.only().values("Cookie"), ["a=1; Client_Ip=2001:db8::5"]);

    let site = gateway(&format!(r#"{SIGNED}, cookie = "Where_From", ttl = 600"#));
    ok(&site.send(Request::get("/").cookie("where_from=x; Client_Ip=y")));
    let (others, name, value) = stamped(&site);
    assert_eq!((others, name.as_str()), (vec!["Client_Ip=y".to_owned()], "Where_From"));
    let (_, expiry) = COOKIE_KEY.open("Where_From", &value);
    assert!((595..=600).contains(&(expiry - now())), "{expiry}");
}

#[test]
fn misuse_names_the_option() {
    for (options, name) in [
        ("", "keys_file"),
        (r#"keys_file = "x", unsigned = true"#, "unsigned"),
        (r#"keys_file = "x", ttl = 601"#, "ttl"),
        (r#"keys_file = "x", ttl = 0"#, "ttl"),
        (r#"keys_file = "x", ttl = "300""#, "ttl"),
        (r#"keys_file = 1"#, "keys_file"),
        (r#"unsigned = "yes""#, "unsigned"),
        (r#"unsigned = true, cookie = "a b""#, "cookie"),
        (r#"unsigned = true, bogus = 1"#, "bogus"),
    ] {
        let site = gateway(options);
        site.expect_errors();
        assert_eq!(site.send(Request::get("/")).status, 503, "{options}");
        assert!(site.upstream.take().is_empty(), "{options}");
        let log = site.wait_for_log(name);
        assert!(log.contains("[error]") && log.contains(":1: tenantauth.stamp_client_ip: "), "{log}");
    }
}

#[test]
fn without_a_key_nothing_is_stamped_and_nothing_passes() {
    let site = gateway(r#"keys_file = "@DIR@/later.keys""#);
    site.expect_errors();
    for broken in ["", "no line of a keys file\n", "k1:dG9vIHNob3J0\n"] {
        if !broken.is_empty() {
            site.workspace.write("later.keys", broken);
        }
        let answer = site.send(Request::get("/").cookie("Client_Ip=203.0.113.5"));
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(site.upstream.take().is_empty());
        assert!(!site.log().contains("dG9vIHNob3J0"), "a secret in the log:\n{}", site.log());
    }
    site.wait_for_log("later.keys");
    site.workspace.write("later.keys", COOKIE_KEY.line());
    wait_for("stamp after the keys have come", 6, || {
        (site.send(Request::get("/")).status == 200).then_some(())
    });
    site.upstream.take();
    // Another first key signs soon.
    let fresh = CookieKey::new("k2", 40);
    site.workspace.write("later.keys", fresh.line() + &COOKIE_KEY.line());
    wait_for("stamp by the new key", 6, || {
        ok(&site.send(Request::get("/")));
        stamped(&site).2.contains(".k2.").then_some(())
    });
}

#[test]
fn a_failure_deletes_the_cookies_even_for_an_error_page() {
    let server = r#"
        error_page 503 @down;
        location @down { proxy_pass http://@UPSTREAM@; }
        location / {
            rewrite_by_lua_block { require("tenantauth").stamp_client_ip { keys_file = "@DIR@/none.keys" } }
            proxy_pass http://@UPSTREAM@;
        }"#;
    let site = Site::builder().module(BARE).server(server).start();
    site.expect_errors();
    let answer = site.send(Request::get("/").cookie("a=1; Client_Ip=203.0.113.5").cookie("client_ip=y"));
    assert_eq!(answer.status, 503, "{answer:?}");
    for seen in site.upstream.take() {
        assert_eq!(seen.values("Cookie"), ["a=1"], "{}", seen.head);
    }
}

#[test]
fn what_it_stamps_is_accepted_behind_grafana() {
    let http = r#"server {
        listen 127.0.0.1:@PORT:grafana@;
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Forwarded-For;
        location / {
            rewrite_by_lua_block { require("tenantauth").stamp_client_ip { keys_file = "@DIR@/client-ip.keys" } }
            proxy_pass http://@UPSTREAM:grafana@;
        }
    }"#;
    let site = Site::builder().policy(&format!("{POLICY}{RESTRICTIONS}{SIGNED_COOKIE}")).http(http).start();
    for (address, status) in [("203.0.113.5", 200), ("2001:db8::9", 200), ("198.18.0.5", 403)] {
        ok(&Request::get("/").header("X-Forwarded-For", address).send(site.port("grafana")));
        let cookie = site.upstream_of("grafana").only().values("Cookie").remove(0);
        let answer = site.send(query(&["group1"], "tenant1").cookie(&cookie));
        assert_eq!(answer.status, status, "{address}: {answer:?}");
        if status == 200 {
            assert_allowed(&answer);
        }
    }
}

/// Such a request has no headers, and nginx would send it on as one of HTTP/1.
#[test]
fn a_request_of_http_0_9_is_not_passed_on() {
    let site = gateway(SIGNED);
    site.expect_errors();
    let mut client = Client::connect(site.port(""));
    client.send(b"GET /api/health\r\n\r\n");
    let text = b"503 Service Unavailable: the client address could not be recorded (internal_error; ";
    assert_eq!(client.exactly(text.len()), text);
    assert!(site.upstream.take().is_empty());
}

/// nginx takes them for HTTP/1.1; its Lua module has no name for their version.
#[test]
fn later_versions_of_http_1_are_stamped_too() {
    let site = gateway(SIGNED);
    let mut client = Client::connect(site.port(""));
    client.send(b"GET /api/health HTTP/1.2\r\nHost: grafana\r\nCookie: Client_Ip=6.6.6.6\r\nConnection: close\r\n\r\n");
    ok(&client.answer());
    let (others, name, value) = stamped(&site);
    assert!(others.is_empty() && name == "Client_Ip" && value.starts_with("v1."), "{value}");
}

/// In front of `location`, with these lines in it and in `http {}`.
fn gateway_in(http: &str, location: &str, module: &str) -> Site {
    let server = format!(
        r#"
        location / {{
            {location}
            rewrite_by_lua_block {{ require("tenantauth").stamp_client_ip {{ {SIGNED} }} }}
            proxy_pass http://@UPSTREAM@;
            proxy_http_version 1.1;
        }}"#
    );
    Site::builder().module(module).http(http).server(&server).start()
}

const MAP: &str = "map $http_upgrade $connection_upgrade { default upgrade; '' close; }";

/// Grafana is a reverse proxy of Go's: it removes what `Connection` lists, also what it has set itself.
#[test]
fn connection_names_no_header_to_grafana() {
    for (http, location, follows) in [
        ("", "proxy_set_header Connection $http_connection;", true),
        ("", "proxy_set_header Connection $http_connection; proxy_set_header Upgrade $http_upgrade;", true),
        (
            MAP,
            "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;",
            false,
        ),
        ("", r#"proxy_set_header Connection "upgrade";"#, false),
        ("", r#"proxy_set_header Connection "";"#, false),
        ("", "", false),
        (
            "map $http_connection $copy { default $http_connection; }",
            "proxy_set_header Connection $copy;",
            true,
        ),
    ] {
        let site = gateway_in(http, location, BARE);
        for lines in [
            &["X-Grafana-User, X-Id-Token, Cookie"][..],
            &["close, X-Grafana-User", "X-Id-Token", "Cookie"],
            &["X-Grafana-User", "close"],
            &["keep-alive"],
        ] {
            let request =
                lines.iter().fold(Request::get("/"), |request, line| request.header("Connection", line));
            ok(&site.send(request.header("X-Id-Token", "mark").cookie("client_ip=x")));
            let seen = site.upstream.only();
            let connection = seen.values("Connection").join(",");
            println!("{location}: {lines:?}: {connection}");
            assert!(["", "close", "upgrade"].contains(&&*connection), "{}", seen.head);
            assert!(!follows || connection.is_empty(), "{}", seen.head);
            assert!(seen.has("Cookie") && seen.has("X-Id-Token"), "{}", seen.head);
        }
        for line in ["Upgrade", "keep-alive, UPGRADE, Cookie"] {
            let mut client = Client::connect(site.port(""));
            let request =
                Request::get("/api/live/ws").header("Connection", line).header("Upgrade", "websocket");
            client.send(&request.bytes());
            let upgrades = location.contains("proxy_set_header Upgrade");
            assert_eq!(client.answer().status, if upgrades { 101 } else { 200 }, "{location}: {line}");
            if follows {
                assert_eq!(site.upstream.only().values("Connection"), ["upgrade"]);
            }
            site.upstream.take();
            client.finish();
        }
    }
}

/// nginx evaluates $http_connection once. With http.conf the copy is seen; without, it is not: the documentation says so.
#[test]
fn a_copy_of_connection_that_names_headers_is_not_passed_on() {
    let location = "set $copy $http_connection; proxy_set_header Connection $copy;";
    let module = format!("{BARE}\ninclude @DIR@/share/tenantauth/http.conf;");
    let site = gateway_in("", location, &module);
    site.expect_errors();
    let hostile = Request::get("/").header("Connection", "close, Cookie").cookie("Client_Ip=203.0.113.5");
    assert_eq!(site.send(hostile).status, 503);
    assert!(site.upstream.take().is_empty());
    site.wait_for_log("$http_connection was evaluated before `stamp_client_ip`");
    // What every browser sends names no header.
    ok(&site.send(Request::get("/").header("Connection", "keep-alive")));
    assert_eq!(site.upstream.only().values("Connection"), ["keep-alive"]);
}

/// HTTP/2 has no such header: Grafana is asked like for every other path, and stamped.
#[test]
fn over_http_2_nothing_is_upgraded() {
    let forward = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;";
    let http = format!(
        "{MAP}\nserver {{ listen 127.0.0.1:@PORT:h2@ http2; location / {{ {forward}\n\
         rewrite_by_lua_block {{ require(\"tenantauth\").stamp_client_ip {{ {SIGNED} }} }}\n\
         proxy_http_version 1.1; proxy_pass http://@UPSTREAM@; }} }}"
    );
    let site = gateway_in(&http, "", BARE);
    for offer in [&[("upgrade", "websocket")][..], &[("upgrade", "websocket"), ("connection", "upgrade")]] {
        assert_eq!(http2::get(site.port("h2"), "/api/live/ws", offer), 200);
        let seen = site.upstream.only();
        assert!(!seen.has("Upgrade") && seen.values("Connection") == ["close"], "{}", seen.head);
        assert!(seen.has("Cookie"), "{}", seen.head);
    }
}

/// A Grafana Gateway with a page for Prometheus and probes; `options` are those of `metrics` and `status`.
fn observed(file: &str, options: &str) -> Site {
    let admin = format!(
        "server {{ listen 127.0.0.1:@PORT:page@;\n\
         location = /metrics {{ content_by_lua_block {{ require(\"tenantauth\").metrics({options}) }} }}\n\
         location = /status {{ content_by_lua_block {{ require(\"tenantauth\").status({options}) }} }} }}"
    );
    let server = format!(
        "location / {{ rewrite_by_lua_block {{ require(\"tenantauth\").stamp_client_ip {{ {file} }} }}\n\
         proxy_pass http://@UPSTREAM@; }}"
    );
    Site::builder().module(BARE).http(&admin).server(&server).start()
}

fn page(site: &Site, path: &str) -> Answer {
    Request::get(path).send(site.port("page"))
}

#[test]
fn its_keys_are_shown_and_their_rotation_is_logged() {
    let file = r#"keys_file = "@DIR@/own.keys""#;
    let site = observed(file, &format!("{{ {file} }}"));
    site.expect_errors();
    // Nothing was stamped yet, and it is known that nothing can be.
    let answer = page(&site, "/status");
    assert_eq!((answer.status, &answer.json()["stamping"]), (503, &false.into()), "{answer:?}");
    assert!(answer.json()["problems"][0].as_str().unwrap().contains("own.keys"), "{answer:?}");
    assert_eq!(page(&site, "/status?ready").status, 503);
    assert!(!page(&site, "/metrics").text().contains("tenantauth_client_ip_keys"));

    let first = CookieKey::new("k1", 39);
    site.workspace.write("own.keys", first.line());
    wait_for("the keys", 6, || (page(&site, "/status").status == 200).then_some(()));
    assert_eq!(page(&site, "/status?ready").text(), "ready\n");
    let status = page(&site, "/status").json();
    assert_eq!(status["client_ip_keys"], serde_json::json!([{"key": "k1", "use": "signs"}]));
    assert!(!site.log().contains("were replaced"), "the first keys replace none");

    let fresh = CookieKey::new("k2", 40);
    site.workspace.write("own.keys", fresh.line() + &first.line());
    wait_for("both keys", 6, || {
        let metrics = page(&site, "/metrics").text();
        let both = [r#"{key="k1",use="verifies"} 1"#, r#"{key="k2",use="signs"} 1"#];
        both.iter().all(|one| metrics.contains(&format!("tenantauth_client_ip_keys{one}"))).then_some(())
    });
    let log =
        site.wait_for_log("the keys of the cookie `Client_Ip` were replaced: `k2` signs, `k2`, `k1` verify");
    assert_eq!(log.matches("were replaced").count(), 1, "{log}");
    // Another secret under the same id is another key.
    site.workspace.write("own.keys", CookieKey::new("k2", 41).line());
    wait_for("the second notice", 6, || {
        page(&site, "/metrics");
        site.log().contains("replaced: `k2` signs, `k2` verifies").then_some(())
    });
    // A broken file replaces nothing, and is shown.
    site.workspace.write("own.keys", "k3:dG9vIHNob3J0\n");
    wait_for("the problem", 6, || {
        let status = page(&site, "/status");
        let problems = status.json()["problems"].to_string();
        (status.status == 200 && problems.contains("the secret has 9 bytes")).then_some(())
    });
    let metrics = page(&site, "/metrics").text();
    // What a policy has is not there: no alert is about it.
    assert!(!metrics.contains("tenantauth_policy") && !metrics.contains("tenantauth_decision"), "{metrics}");
    assert!(metrics.contains("tenantauth_build_info"), "{metrics}");
    let shown = [metrics, page(&site, "/status").text(), site.log()].concat();
    for secret in [first.line(), fresh.line(), "k3:dG9vIHNob3J0".to_owned()] {
        let secret = secret.trim().split(':').next_back().unwrap().to_owned();
        assert!(!shown.contains(&secret), "{shown}");
    }
}

#[test]
fn without_options_its_pages_show_what_it_has_stamped_with() {
    let site = observed(SIGNED, "");
    let answer = page(&site, "/status");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("has stamped nothing yet"), "{answer:?}");
    ok(&site.send(Request::get("/")));
    let answer = page(&site, "/status");
    assert_eq!((answer.status, &answer.json()["stamping"]), (200, &true.into()), "{answer:?}");
    assert_eq!(answer.json()["client_ip_keys"][0]["use"], "signs");
    assert!(page(&site, "/metrics").text().contains("tenantauth_client_ip_keys"));
    // Nobody was looked for who could have a policy.
    assert!(!site.log().contains("the policy"), "{}", site.log());
    // One that stamps plain addresses needs no keys.
    let site = observed("unsigned = true", "{ unsigned = true }");
    assert_eq!(page(&site, "/status").status, 200);
    assert!(!page(&site, "/metrics").text().contains("tenantauth_client_ip_keys"));
    let site = observed(SIGNED, "{ keys = 1 }");
    site.expect_errors();
    assert_eq!(page(&site, "/status").status, 500);
    site.wait_for_log("tenantauth.status: unknown option `keys`");
}
