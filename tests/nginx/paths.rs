//! The path that was decided is the path that the backend runs, however it is written.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::client::{Answer, Request};
use crate::support::site::Site;
use crate::support::tokens::token;

/// Someone who may read and write everything of `team-a`, but delete nothing.
fn ask(site: &Site, port: &str, method: &str, target: &str) -> Answer {
    let request = Request::new(method, target).tenant("team-a").token(&token(&["team-a"]));
    request.send(site.port(port))
}

const MIMIR: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir" } }
location / { proxy_pass http://@UPSTREAM@; }
"#;

/// The same backend behind every form of `proxy_pass`.
const FORMS: &str = r#"
server {
    listen 127.0.0.1:@PORT:uri@;
    rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
    location /loki/ { proxy_pass http://@UPSTREAM@/loki/; }
}
server {
    listen 127.0.0.1:@PORT:variable@;
    rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
    location / { proxy_pass http://@UPSTREAM@$uri$is_args$args; }
}
"#;

#[test]
fn paths_that_can_be_read_twice_never_arrive() {
    let site = Site::builder().http(FORMS).start();
    let hostile = [
        ("DELETE", "/loki/api/v1/rules/..%2Fdelete"),
        ("DELETE", "/loki/api/v1/rules/%2e%2e/delete"),
        ("DELETE", "/loki/api/v1/rules/../delete"),
        ("DELETE", "/loki/api/v1/rules/x/..%2F..%2Fdelete"),
        ("POST", "/loki/api/v1/query/../push"),
        ("POST", "/loki/api/v1/query/..%2fdelete"),
        ("POST", "/loki%2Fapi/v1/push"),
        ("POST", "/loki/api/v1/%70ush"),
        ("POST", "/%6coki/api/v1/push"),
        ("POST", "/loki/api/v1/pus%68"),
        ("GET", "//loki/api/v1/query"),
        ("GET", "/loki//api/v1/query"),
        ("GET", "/loki/api/v1//query"),
        ("GET", "/loki/./api/v1/query"),
        ("GET", "/./loki/api/v1/query"),
        ("GET", "/x/../loki/api/v1/query"),
        ("GET", "/loki/api/v1/query/"),
        ("GET", "/loki/api/v1/query/."),
        ("GET", "/loki/api/v1/query%00"),
        ("GET", "/loki/api/v1/query%23"),
        ("GET", "/loki/api/v1/query#fragment"),
        ("GET", "/loki/api/v1/query#/../../../../metrics"),
        ("GET", "/loki/api/v1/query;x=1"),
        ("GET", "/loki/api/v1/query%3Fx"),
        ("GET", "/loki/api/v1\\query"),
        ("GET", "/loki/api/v1/label/a%5Cb/values"),
        ("GET", "/loki/api/v1/label/a%2Fb/values"),
        ("GET", "/loki/api/v1/label/%2e%2e/values"),
        ("GET", "/loki/api/v1/label/%2E/values"),
        ("GET", "/loki/api/v1/label/%FF/values"),
        ("GET", "/loki/api/v1/label/%C0%AF/values"),
        ("GET", "/loki/api/v1/label/%zz/values"),
        ("GET", "/loki/api/v1/label/%/values"),
        ("GET", "/loki/api/v1/label//values"),
        ("GET", "/LOKI/api/v1/query"),
        ("GET", "/loki/api/v1/Query"),
        ("GET", "/"),
        ("OPTIONS", "*"),
        ("OPTIONS", "/loki/api/v1/query"),
        ("TRACE", "/loki/api/v1/query"),
        ("get", "/loki/api/v1/query"),
    ];
    for port in ["", "uri", "variable"] {
        for (method, target) in hostile {
            let answer = ask(&site, port, method, target);
            println!("{port} {method} {target}: {} {}", answer.status, answer.reason());
            if answer.status == 403 {
                assert!(["route_unknown", "path_ambiguous"].contains(&answer.reason()), "{answer:?}");
            } else {
                // nginx refuses some by itself, and knows no location for others.
                assert!([400, 404, 405].contains(&answer.status), "{answer:?}");
            }
            let seen = site.upstream.take();
            assert!(seen.is_empty(), "{method} {target} arrived as {}", seen[0].head);
        }
        assert_allowed(&ask(&site, port, "GET", "/loki/api/v1/label/na%C3%AFve/values?query=%2F..%2F"));
        site.upstream.take();
    }
}

#[test]
fn names_may_be_encoded_and_arrive_as_they_were_sent() {
    let site = Site::start();
    let names = ["a%20b", "na%C3%AFve", "na\u{ef}ve%21", "a.b", "a%25b", "x%2Cy", "a+b", "a:b@c"];
    for name in names {
        let target = format!("/loki/api/v1/label/{name}/values?x=//../%2F");
        let answer = ask(&site, "", "GET", &target);
        println!("{name}: {} {}", answer.status, answer.reason());
        assert_allowed(&answer);
        let arrived: Vec<u8> = site.upstream.only().target().chars().map(|c| c as u8).collect();
        assert_eq!(arrived, target.as_bytes());
    }
}

#[test]
fn mimirs_rule_groups_may_hold_an_encoded_slash() {
    let site = Site::builder().server(MIMIR).start();
    for target in [
        "/prometheus/config/v1/rules/a%2Fb",
        "/prometheus/config/v1/rules/a%2Fb/c%2Fd",
        "/prometheus/config/v1/rules/a%2f..b",
    ] {
        assert_allowed(&ask(&site, "", "GET", target));
        assert_eq!(site.upstream.only().target(), target);
    }
    for (method, target) in [
        ("POST", "/prometheus/config/v1/rules/..%2F..%2F..%2Fapi%2Fv1%2Fquery"),
        ("GET", "/prometheus/config/v1/rules/a%2F..%2Fb"),
        ("GET", "/prometheus/config/v1/rules/%2E%2E"),
        ("GET", "/prometheus/config/v1/rules/a/%2e"),
        ("GET", "/prometheus/config/v1/rules/a%5Cb"),
        ("GET", "/ingester/tsdb/..%2F..%2Fprometheus%2Fapi%2Fv1%2Fquery"),
        ("GET", "/prometheus/api/v1/label/a%2Fb/values"),
        ("DELETE", "/prometheus/api/v1/series"),
        ("POST", "/alertmanager/-/reload"),
    ] {
        let answer = ask(&site, "", method, target);
        println!("{method} {target}: {} {}", answer.status, answer.reason());
        assert!(["route_unknown", "path_ambiguous"].contains(&answer.reason()), "{answer:?}");
    }
    assert!(site.upstream.take().is_empty());
}

#[test]
fn the_absolute_form_is_the_same_path() {
    let site = Site::start();
    let cases = [
        ("GET", "http://gateway.test/loki/api/v1/query?x=1", ""),
        ("POST", "http://gateway.test/loki/api/v1/delete", "scope_forbidden"),
        ("GET", "http://gateway.test/ready", "route_unknown"),
        ("GET", "http://loki/loki/api/v1/query/../../../../ready", "path_ambiguous"),
    ];
    for (method, target, reason) in cases {
        let answer = ask(&site, "", method, target);
        println!("{method} {target}: {} {}", answer.status, answer.reason());
        let seen = site.upstream.take();
        assert_eq!(answer.reason(), reason, "{answer:?}");
        let arrived: Vec<_> = seen.iter().map(|request| request.target().to_owned()).collect();
        let expected: &[&str] = if reason.is_empty() { &["/loki/api/v1/query?x=1"] } else { &[] };
        assert_eq!(arrived, expected);
    }
}

#[test]
fn a_rewrite_in_front_cannot_change_what_is_decided() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        rewrite ^/loki/api/v1/query$ /loki/api/v1/push;
        rewrite ^/loki/api/v1/labels$ /ready;
        rewrite ^/loki/api/v1/series$ /loki/api/v1/rules/x/y;
        rewrite ^/loki/api/v1/query_range$ /loki/api/v1/index/stats;
        rewrite ^/outside$ /loki/api/v1/query;
        location / { proxy_pass http://@UPSTREAM@; }
        location /loki/api/v1/patterns {
            rewrite ^ /loki/api/v1/delete break;
            proxy_pass http://@UPSTREAM@;
        }
        location /loki/api/v1/detected_labels {
            rewrite ^ /loki/api/v1/delete last;
        }
    "#;
    let site = Site::builder().server(server).start();
    for (method, target, reason) in [
        ("POST", "/loki/api/v1/query", "path_ambiguous"),
        ("GET", "/loki/api/v1/labels", "path_ambiguous"),
        ("GET", "/loki/api/v1/series", "path_ambiguous"),
        ("GET", "/loki/api/v1/patterns", "path_ambiguous"),
        ("GET", "/loki/api/v1/detected_labels", "path_ambiguous"),
        ("GET", "/outside", "route_unknown"),
    ] {
        println!("{method} {target}");
        assert_denied(&ask(&site, "", method, target), reason);
    }
    assert!(site.upstream.take().is_empty());
    // Another path of the same scope is harmless.
    assert_allowed(&ask(&site, "", "GET", "/loki/api/v1/query_range?query=x"));
    assert_eq!(site.upstream.only().target(), "/loki/api/v1/index/stats?query=x");
}

#[test]
fn an_external_prefix_is_removed_once() {
    let server = |prefix: &str, name: &str| {
        format!(
            r#"server {{
                listen 127.0.0.1:@PORT:{name}@;
                rewrite_by_lua_block {{
                    require("tenantauth").enforce {{ backend = "loki", path_prefix = "{prefix}" }}
                }}
                location / {{ proxy_pass http://@UPSTREAM@; }}
                location /pre/stripped/ {{ proxy_pass http://@UPSTREAM@; }}
            }}
            server {{
                listen 127.0.0.1:@PORT:{name}-rewritten@;
                rewrite_by_lua_block {{
                    require("tenantauth").enforce {{ backend = "loki", path_prefix = "{prefix}" }}
                }}
                location / {{ rewrite ^/pre(/.*)$ $1 break; proxy_pass http://@UPSTREAM@; }}
            }}
            server {{
                listen 127.0.0.1:@PORT:{name}-replaced@;
                rewrite_by_lua_block {{
                    require("tenantauth").enforce {{ backend = "loki", path_prefix = "{prefix}" }}
                }}
                location /pre/ {{ proxy_pass http://@UPSTREAM@/; }}
            }}"#
        )
    };
    let site = Site::builder().http(&(server("/pre", "bare") + &server("/pre/", "slash"))).start();
    for port in ["bare", "slash"] {
        assert_allowed(&ask(&site, port, "GET", "/pre/loki/api/v1/query"));
        assert_eq!(site.upstream.only().target(), "/pre/loki/api/v1/query");
        for form in ["rewritten", "replaced"] {
            assert_allowed(&ask(&site, &format!("{port}-{form}"), "GET", "/pre/loki/api/v1/query"));
            assert_eq!(site.upstream.only().target(), "/loki/api/v1/query");
        }
        for target in [
            "/loki/api/v1/query",
            "/pre/pre/loki/api/v1/query",
            "/prefix/loki/api/v1/query",
            "/preloki/api/v1/query",
            "/Pre/loki/api/v1/query",
            "/pre",
            "/pre/",
        ] {
            assert_denied(&ask(&site, port, "GET", target), "route_unknown");
        }
        for target in ["/pre//loki/api/v1/query", "/pre/../loki/api/v1/query", "/pre%2Floki/api/v1/query"] {
            let answer = ask(&site, port, "GET", target);
            assert!(["route_unknown", "path_ambiguous"].contains(&answer.reason()), "{target}: {answer:?}");
        }
        assert!(site.upstream.take().is_empty());
    }
}

/// What a `proxy_pass` with variables sends is decoded: it says the same, or never arrives.
#[test]
fn decoded_paths_that_are_sent_as_they_are_mean_the_same() {
    let forms = [
        ("uri", "location / { proxy_pass http://@UPSTREAM@$uri; }"),
        ("args", "location / { proxy_pass http://@UPSTREAM@$uri$is_args$args; }"),
        ("rewrite", "location / { rewrite ^/(.*)$ /$1 break; proxy_pass http://@UPSTREAM@; }"),
        ("capture", "location ~ ^/(.*)$ { proxy_pass http://@UPSTREAM@/$1; }"),
        ("named", "location ~ ^(?<rest>/.*)$ { proxy_pass http://@UPSTREAM@$rest; }"),
        ("set", "location / { set $to $uri; proxy_pass http://@UPSTREAM@$to; }"),
    ];
    let enforce = r#"rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }"#;
    let http: String = forms
        .iter()
        .map(|(name, location)| {
            format!("server {{ listen 127.0.0.1:@PORT:{name}@; {enforce} {location} }}\n")
        })
        .collect();
    let site = Site::builder().http(&http).start();
    for (form, _) in forms {
        for byte in 0..=255_u8 {
            for text in
                [format!("a%{byte:02X}b"), format!("a%{byte:02x}"), format!("a%20HTTP/1.1%{byte:02X}")]
            {
                let target = format!("/loki/api/v1/label/{text}/values");
                let answer = ask(&site, form, "GET", &target);
                let case = format!("{form} {target}: {} {}", answer.status, answer.reason());
                let Some(seen) = site.upstream.take().pop() else {
                    assert!([400, 403].contains(&answer.status), "{case}");
                    continue;
                };
                let line = seen.head.lines().next().unwrap();
                let sent =
                    line.strip_prefix("GET ").and_then(|rest| rest.strip_suffix(" HTTP/1.0")).expect(line);
                assert!(!sent.contains(['?', '\\', '\r', '\n', '\0', '\t', '\x7f']), "{case}: {line}");
                // A blank makes a request line of four parts, which net/http refuses: its version would hold one.
                if !sent.contains(' ') {
                    // Decoded once more it is the name that was decided: a `%` in front of no digits is refused there.
                    let name = sent
                        .strip_prefix("/loki/api/v1/label/")
                        .and_then(|path| path.strip_suffix("/values"));
                    let name = name.unwrap_or_else(|| panic!("{case}: {line}"));
                    let plain = char::from(byte).to_string();
                    let decoded = name.replacen(&format!("%{byte:02X}"), &plain, 1).replacen("%20", " ", 1);
                    let wanted = text.replacen("%20", " ", 1);
                    let wanted = wanted.replacen(&format!("%{byte:02X}"), &plain, 1);
                    let wanted = wanted.replacen(&format!("%{byte:02x}"), &plain, 1);
                    assert_eq!(decoded, wanted, "{case}: {line}");
                }
            }
        }
        for refused in ["%3F", "%3f", "%0A", "%0d%0a", "%00", "%09", "%7F", "%5C", "%2E", "%2F", "%253F"] {
            let answer = ask(&site, form, "GET", &format!("/loki/api/v1/label/a{refused}b/values"));
            // nginx itself refuses NUL.
            let nul = refused == "%00" && answer.status == 400;
            assert!(nul || answer.reason() == "path_ambiguous", "{form} {refused}: {answer:?}");
        }
        assert!(site.upstream.take().is_empty());
    }
}

/// A prefix that Mimir's clients have, and Loki's paths begin with.
#[test]
fn a_prefix_that_is_not_removed_leads_nowhere_else() {
    let enforce = |options: &str| {
        format!(
            "rewrite_by_lua_block {{ require(\"tenantauth\").enforce {{ {options} path_prefix = \"/loki\" }} }}"
        )
    };
    let http = format!(
        "server {{ listen 127.0.0.1:@PORT:any@; {} location / {{ proxy_pass http://@UPSTREAM@; }} }}
         server {{ listen 127.0.0.1:@PORT:two@; {} location / {{ proxy_pass http://@UPSTREAM@; }} }}
         server {{ listen 127.0.0.1:@PORT:mimir@; {}
             location / {{ rewrite ^/loki(/.*)$ $1 break; proxy_pass http://@UPSTREAM@; }} }}",
        enforce(""),
        enforce("backend = { \"mimir\", \"loki\" },"),
        enforce("backend = \"mimir\",")
    );
    let site = Site::builder().http(&http).start();
    for port in ["any", "two"] {
        assert_denied(&ask(&site, port, "POST", "/loki/api/v1/push"), "path_ambiguous");
        assert_allowed(&ask(&site, port, "GET", "/loki/prometheus/api/v1/query"));
    }
    site.upstream.take();
    assert_allowed(&ask(&site, "mimir", "POST", "/loki/api/v1/push"));
    assert_eq!(site.upstream.only().target(), "/api/v1/push");
}

#[test]
fn the_backends_that_are_named_know_the_path() {
    let http = r#"
    server {
        listen 127.0.0.1:@PORT:two@;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = { "loki", "tempo" } } }
        location / { proxy_pass http://@UPSTREAM@; }
    }
    server {
        listen 127.0.0.1:@PORT:any@;
        rewrite_by_lua_block { require("tenantauth").enforce {} }
        location / { proxy_pass http://@UPSTREAM@; }
    }
    server {
        listen 127.0.0.1:@PORT:access@;
        access_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        location / { proxy_pass http://@UPSTREAM@; }
    }"#;
    let site = Site::builder().http(http).start();
    for (port, method, target, expected) in [
        ("two", "GET", "/loki/api/v1/query", ""),
        ("two", "GET", "/api/search", ""),
        ("two", "GET", "/prometheus/api/v1/query", "route_unknown"),
        ("two", "GET", "/metrics", "route_unknown"),
        ("any", "GET", "/loki/api/v1/query", ""),
        ("any", "GET", "/api/search", ""),
        ("any", "GET", "/prometheus/api/v1/query", ""),
        ("any", "GET", "/prometheus/api/v1/rules", ""),
        ("any", "POST", "/api/v1/push", ""),
        ("any", "GET", "/pyroscope/render", "scope_forbidden"),
        ("any", "GET", "/metrics", "route_unknown"),
        ("any", "GET", "/nothing", "route_unknown"),
        ("access", "GET", "/loki/api/v1/query", ""),
        ("access", "GET", "/ready", "route_unknown"),
    ] {
        let answer = ask(&site, port, method, target);
        println!("{port} {method} {target}: {} {}", answer.status, answer.reason());
        if expected.is_empty() { assert_allowed(&answer) } else { drop(assert_denied(&answer, expected)) }
    }
}

/// A namespace of rules may hold a slash, written `%2F`. Which forms of removing a prefix keep it: `docs/reference.md`.
#[test]
fn a_prefix_is_removed_and_encoded_slashes_stay() {
    let locations = r#"
        location /kept/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir", path_prefix = "/kept" } }
            proxy_pass http://backend$without_prefix;
        }
        location /decoded/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir", path_prefix = "/decoded" } }
            proxy_pass http://backend/;
        }"#;
    let http = r#"
        upstream backend { server @UPSTREAM@; }
        map $request_uri $without_prefix { "~^/kept(?<rest>/.*)$" $rest; }"#;
    let site = Site::builder().http(http).server(locations).start();
    let ask = |method: &str, path: &str| {
        let request = Request::new(method, path).tenant("team-a").token(&token(&["team-a"]));
        site.send(request).reason().to_owned()
    };
    for path in [
        "/prometheus/config/v1/rules/a%2Fb",
        "/prometheus/config/v1/rules/a%2fb%20c/group%2F1",
        "/prometheus/config/v1/rules/plain?x=%2F",
        "/prometheus/api/v1/query?query=a%2Fb",
    ] {
        let method = if path.contains("query") { "GET" } else { "DELETE" };
        assert_eq!(ask(method, &format!("/kept{path}")), "", "{path}");
        assert_eq!(site.upstream.only().target(), path);
        assert_eq!(ask(method, &format!("/decoded{path}")), "", "{path}");
        let decoded = site.upstream.only().target().to_owned();
        assert_eq!(decoded == path, !path.contains("rules/a"), "{decoded}");
    }
    // What is no path below the prefix does not come to the backend by another way.
    for path in ["/kept//prometheus/config/v1/rules/a", "/kept/../kept/prometheus/api/v1/query"] {
        assert_eq!(ask("GET", path), "path_ambiguous", "{path}");
    }
    // nginx itself finds no location for it, and says so.
    site.expect_errors();
    assert_eq!(site.send(Request::get("/kept/%2e%2e/ready")).status, 404);
    assert_eq!(ask("DELETE", "/kept/prometheus/config/v1/rules/a%2F..%2Fb"), "path_ambiguous");
    assert_eq!(ask("GET", "/kept/ready"), "route_unknown");
    assert!(site.upstream.take().is_empty());
    // An absolute address is read as its path.
    assert_eq!(ask("DELETE", "http://gateway.test/kept/prometheus/config/v1/rules/a%2Fb"), "");
    assert_eq!(site.upstream.only().target(), "/prometheus/config/v1/rules/a%2Fb");
}
