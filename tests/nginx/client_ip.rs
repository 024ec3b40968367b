//! Where a person is, and the restrictions that ask for it.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Answer, Request};
use crate::support::cookie::CookieKey;
use crate::support::site::{COOKIE_KEY, OLD_COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::tokens::token;
use crate::support::{now, wait_for};

const OFFICE: &str = "203.0.113.5";
const HOME: &str = "198.18.0.5";

fn restricted(client_ip: &str) -> String {
    format!("{POLICY}{RESTRICTIONS}{client_ip}")
}

fn with_cookie(site: &Site, cookie: &str) -> Answer {
    site.send(query(&["group1"], "tenant1").cookie(cookie))
}

#[track_caller]
fn expect(answer: &Answer, reason: &str) {
    if reason == "granted" { assert_allowed(answer) } else { drop(assert_denied(answer, reason)) }
}

#[test]
fn a_signed_cookie_carries_the_address() {
    let site = Site::builder().policy(&restricted(SIGNED_COOKIE)).start();
    let sign = |address: &str| COOKIE_KEY.pair(address);
    let until = |expiry: i64| format!("Client_Ip={}", COOKIE_KEY.sign("Client_Ip", OFFICE, expiry));
    let forged = CookieKey::new("k1", 8).pair(OFFICE);
    let unknown = CookieKey::new("k9", 7).pair(OFFICE);
    let renamed = format!("Client_Ip={}", COOKIE_KEY.sign("Other", OFFICE, now() + 60));
    let good = sign(OFFICE);
    let quoted = good.replacen('=', "=\"", 1) + "\"";
    let cases = [
        (good.clone(), "granted"),
        (sign("2001:db8::5"), "granted"),
        (sign("2001:DB8:0:0::5"), "granted"),
        (sign("::ffff:203.0.113.5"), "granted"),
        (sign("198.51.100.7"), "granted"),
        (sign("192.0.2.9"), "granted"),
        (OLD_COOKIE_KEY.pair(OFFICE), "granted"),
        (format!("a=1; {good}; b=2"), "granted"),
        (format!("a=1;{good};b=2"), "granted"),
        (quoted, "granted"),
        (until(now() + 590), "granted"),
        (sign(HOME), "ip_forbidden"),
        (sign("198.51.100.8"), "ip_forbidden"),
        (sign("203.0.114.5"), "ip_forbidden"),
        (sign("2001:db9::5"), "ip_forbidden"),
        (sign("::1"), "ip_forbidden"),
        (forged, "ip_signature"),
        (unknown, "ip_signature"),
        (renamed, "ip_signature"),
        (until(now() - 90), "ip_expired"),
        (until(now() + 700), "ip_malformed"),
        (sign("not an address"), "ip_malformed"),
        (sign("203.0.113.5/24"), "ip_malformed"),
        (sign("203.0.113.05"), "ip_malformed"),
        (sign(""), "ip_malformed"),
        ("Client_Ip=203.0.113.5".to_owned(), "ip_malformed"),
        ("Client_Ip=v1.x".to_owned(), "ip_malformed"),
        ("Client_Ip=".to_owned(), "ip_missing"),
        (good.replacen("v1.", "v2.", 1), "ip_malformed"),
        (format!("{good}.x"), "ip_malformed"),
        (format!("{good}="), "ip_malformed"),
        // Another name is another cookie: Grafana tells them apart, so do we.
        (good.replacen("Client_Ip", "client_ip", 1), "ip_missing"),
        (good.replacen("Client_Ip", "Client-Ip", 1), "ip_missing"),
        ("a=1".to_owned(), "ip_missing"),
        (format!("{good}; {good}"), "ip_duplicate"),
        (format!("{good}; a=1; Client_Ip=x"), "ip_duplicate"),
    ];
    for (cookie, reason) in cases {
        println!("{cookie}: {reason}");
        expect(&with_cookie(&site, &cookie), reason);
    }
    assert_denied(&site.send(query(&["group1"], "tenant1")), "ip_missing");
    assert_denied(&site.send(query(&["group1"], "tenant1").cookie(&good).cookie(&good)), "ip_duplicate");
    assert_denied(
        &site.send(query(&["group1"], "tenant1").cookie(&good).cookie("Client_Ip=x")),
        "ip_duplicate",
    );
    for seen in site.upstream.take() {
        assert!(!seen.head.contains("Client_Ip"), "{}", seen.head);
    }
}

#[test]
fn a_cookie_ends_while_it_is_remembered() {
    let site = Site::builder().policy(&restricted(SIGNED_COOKIE)).start();
    let cookie = format!("Client_Ip={}", COOKIE_KEY.sign("Client_Ip", OFFICE, now() + 2));
    assert_allowed(&with_cookie(&site, &cookie));
    assert_allowed(&with_cookie(&site, &cookie));
    wait_for("end of the cookie", 8, || {
        let answer = with_cookie(&site, &cookie);
        (answer.reason() == "ip_expired").then_some(())
    });
}

#[test]
fn restrictions_bind_whom_they_name() {
    let site = Site::builder().policy(&restricted(SIGNED_COOKIE)).start();
    let home = COOKIE_KEY.pair(HOME);
    let ask = |groups: &[&str], tenant: &str, method: &str, path: &str, cookie: &str| {
        let request = Request::new(method, path).tenant(tenant).token(&token(groups));
        site.send(if cookie.is_empty() { request } else { request.cookie(cookie) })
    };
    let (read, push, rules) = ("/loki/api/v1/query", "/loki/api/v1/push", "/loki/api/v1/rules");
    for (groups, tenant, method, path, cookie, reason) in [
        // A tenant that is excepted: no address is asked for, and a bad one does not matter.
        (["group3"].as_slice(), "tenant2", "GET", read, "", "granted"),
        (&["group3"], "tenant2", "GET", read, &home, "granted"),
        (&["group3"], "tenant2", "GET", read, "Client_Ip=junk", "granted"),
        // Bound as soon as one tenant of several is.
        (&["group3"], "tenant1|tenant2", "GET", read, &home, "ip_forbidden"),
        (&["group3"], "tenant1|tenant2", "GET", read, "", "ip_missing"),
        // Exempt are those who hold an excepted group, whatever else they hold.
        (&["sre"], "tenant1", "GET", read, "", "granted"),
        (&["group1", "sre"], "tenant1", "GET", read, &home, "granted"),
        // The grant is judged before the address.
        (&["group1"], "tenant2", "GET", read, "", "tenant_forbidden"),
        (&["group1"], "tenant1", "POST", push, "", "scope_forbidden"),
        (&["team-a"], "team-a", "POST", push, &home, "ip_forbidden"),
        // `logs:*` covers rules and alerts at Loki.
        (&["team-a"], "team-a", "GET", rules, &home, "ip_forbidden"),
        (&["team-a"], "team-a", "GET", rules, &COOKIE_KEY.pair(OFFICE), "granted"),
    ] {
        println!("{groups:?} {tenant} {method} {path} {cookie}: {reason}");
        expect(&ask(groups, tenant, method, path, cookie), reason);
    }
}

#[test]
fn every_restriction_that_applies_must_be_satisfied() {
    let second = "  - { name: vpn-only, tenants: [tenant1], scopes: [\"logs:read\"], networks: [vpn] }\n";
    let site = Site::builder().policy(&format!("{POLICY}{RESTRICTIONS}{second}{SIGNED_COOKIE}")).start();
    assert_denied(&with_cookie(&site, &COOKIE_KEY.pair(OFFICE)), "ip_forbidden");
    assert_allowed(&with_cookie(&site, &COOKIE_KEY.pair("198.51.100.7")));
}

#[test]
fn an_unsigned_cookie_is_the_plain_address() {
    let site = Site::builder().policy(&restricted("client_ip: { source: cookie, unsigned: true }\n")).start();
    for (value, reason) in [
        (OFFICE, "granted"),
        ("2001:db8::5", "granted"),
        ("\"203.0.113.5\"", "granted"),
        ("::ffff:203.0.113.5", "granted"),
        (HOME, "ip_forbidden"),
        ("203.0.113.5:443", "ip_malformed"),
        ("[2001:db8::5]", "ip_malformed"),
        ("203.0.113.5 ,x", "ip_malformed"),
        ("0xcb007105", "ip_malformed"),
        ("\"203.0.113.5", "ip_malformed"),
        ("\"\"203.0.113.5\"\"", "ip_malformed"),
    ] {
        println!("{value}: {reason}");
        expect(&with_cookie(&site, &format!("Client_Ip={value}")), reason);
    }
}

const BEHIND: &str = r#"
server {
    listen 127.0.0.1:@PORT:behind@;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Forwarded-For;
    rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
    location / { proxy_pass http://@UPSTREAM@; }
}
server {
    listen 127.0.0.1:@PORT:direct@;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Forwarded-For;
    rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki", client_ip = "remote_addr" } }
    location / { proxy_pass http://@UPSTREAM@; }
}
"#;

#[test]
fn the_connection_can_be_the_source() {
    let site =
        Site::builder().policy(&restricted("client_ip: { source: remote_addr }\n")).http(BEHIND).start();
    // The test connects from 127.0.0.1; nginx's real_ip module may say otherwise, on its administrator's word.
    assert_denied(&with_cookie(&site, &format!("Client_Ip={OFFICE}")), "ip_forbidden");
    let from = |address: &str| {
        query(&["group1"], "tenant1").header("X-Forwarded-For", address).send(site.port("behind"))
    };
    assert_allowed(&from(OFFICE));
    assert_allowed(&from("2001:db8::5"));
    assert_denied(&from(HOME), "ip_forbidden");
}

#[test]
fn a_server_can_say_that_its_clients_connect_directly() {
    let site = Site::builder().policy(&restricted(SIGNED_COOKIE)).http(BEHIND).start();
    let ask = |address: &str, cookie: &str| {
        let request = query(&["group1"], "tenant1").header("X-Forwarded-For", address).cookie(cookie);
        request.send(site.port("direct"))
    };
    assert_allowed(&ask(OFFICE, "a=1"));
    assert_denied(&ask(HOME, &COOKIE_KEY.pair(OFFICE)), "ip_forbidden");
    // The servers beside it keep to the cookie.
    assert_denied(&site.send(query(&["group1"], "tenant1").header("X-Forwarded-For", OFFICE)), "ip_missing");
    let behind = query(&["group1"], "tenant1").header("X-Forwarded-For", OFFICE).send(site.port("behind"));
    assert_denied(&behind, "ip_missing");
}

#[test]
fn a_header_counts_where_the_peer_is_trusted() {
    let source = |peers: &str| {
        restricted(&format!("client_ip: {{ source: \"header:X-Client\", trusted_peers: [{peers}] }}\n"))
    };
    let site = Site::builder().policy(&source("127.0.0.0/8")).http(BEHIND).start();
    let ask = |site: &Site, port: &str, header: &str, value: &str| {
        query(&["group1"], "tenant1").header(header, value).send(site.port(port))
    };
    for (value, reason) in [
        (OFFICE, "granted"),
        ("2001:db8::5", "granted"),
        ("::ffff:203.0.113.5", "granted"),
        (HOME, "ip_forbidden"),
        ("203.0.113.5:51008", "granted"),
        ("[2001:db8::5]", "granted"),
        ("[2001:db8::5]:443", "granted"),
        ("198.18.0.5:51008", "ip_forbidden"),
        ("junk", "ip_malformed"),
        ("203.0.113.5, 198.18.0.5", "ip_malformed"),
        ("203.0.113.5:51008, 198.18.0.5:1", "ip_malformed"),
        ("\"203.0.113.5:51008\"", "ip_malformed"),
        ("for=203.0.113.5", "ip_malformed"),
        ("[203.0.113.5]:443", "ip_malformed"),
        ("203.0.113.5:65536", "ip_malformed"),
    ] {
        println!("{value}: {reason}");
        expect(&ask(&site, "", "x-client", value), reason);
    }
    assert_denied(&site.send(query(&["group1"], "tenant1")), "ip_missing");
    let twice = query(&["group1"], "tenant1").header("X-Client", OFFICE).header("x-client", OFFICE);
    assert_denied(&site.send(twice), "ip_duplicate");
    // A cookie is nothing here.
    assert_denied(&with_cookie(&site, &COOKIE_KEY.pair(OFFICE)), "ip_missing");

    // The peer is who holds the connection, whatever real_ip makes of $remote_addr.
    let site = Site::builder().policy(&source("10.0.0.0/8")).http(BEHIND).start();
    assert_denied(&ask(&site, "", "X-Client", OFFICE), "ip_missing");
    let claimed =
        query(&["group1"], "tenant1").header("X-Client", OFFICE).header("X-Forwarded-For", "10.0.0.1");
    assert_denied(&claimed.send(site.port("behind")), "ip_missing");
}

#[test]
fn a_replaced_keys_file_is_in_force_within_five_seconds() {
    let site = Site::builder().policy(&restricted(SIGNED_COOKIE)).workers(2).start();
    let (old, fresh) = (COOKIE_KEY.pair(OFFICE), CookieKey::new("k2", 33));
    assert_allowed(&with_cookie(&site, &old));
    site.workspace.write("client-ip.keys", fresh.line());
    std::thread::sleep(std::time::Duration::from_secs(5));
    for _ in 0..8 {
        assert_denied(&with_cookie(&site, &old), "ip_signature");
        assert_allowed(&with_cookie(&site, &fresh.pair(OFFICE)));
    }
}

/// Which keys verify is to be seen before an old one is removed, and that a new one has come.
#[test]
fn rotated_keys_are_logged_once_and_shown() {
    let policy = restricted(SIGNED_COOKIE);
    let site = Site::builder().workers(4).policy(&policy).start();
    wait_for("all workers", 10, || (site.revisions().len() == 4).then_some(()));
    let ids = |site: &Site| site.status().json()["client_ip_keys"].clone();
    let before = ids(&site);
    assert_eq!(before.as_array().unwrap().len(), 2, "{before}");
    assert_eq!((&before[0]["use"], &before[1]["use"]), (&"signs".into(), &"verifies".into()), "{before}");
    assert!(!site.log().contains("were replaced"));

    site.workspace.write("client-ip.keys", CookieKey::new("fresh", 40).line() + &COOKIE_KEY.line());
    // Each answer is of one of the workers.
    wait_for("the new keys in every answer", 10, || {
        let of_one = |_| {
            let metrics = site.metrics();
            let line =
                |key_and_use: &str| metrics.contains(&format!("tenantauth_client_ip_keys{key_and_use} 1"));
            line(r#"{key="fresh",use="signs"}"#)
                && line(&format!("{{key={},use=\"verifies\"}}", before[0]["key"]))
        };
        (ids(&site)[0]["key"] == "fresh" && (0..20).all(of_one)).then_some(())
    });
    site.wait_for_log("the keys of the cookie `Client_Ip` were replaced: `fresh` signs, `fresh`, ");
    std::thread::sleep(std::time::Duration::from_secs(4));
    let log = site.log();
    assert_eq!(log.matches("were replaced").count(), 1, "{log}");
    // A policy that changes brings the same keys again.
    site.write_policy(&policy.replace("visitors", "guests"));
    let old = site.revisions();
    wait_for("the other policy", 8, || site.revisions().iter().all(|new| !old.contains(new)).then_some(()));
    assert_eq!(site.log().matches("were replaced").count(), 1);
}
