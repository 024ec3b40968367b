//! Header hygiene: one line where one is meant, nothing upstream that could steer a backend, the rest untouched.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Answer, Client, Request};
use crate::support::now;
use crate::support::site::{POLICY, SIGNED_COOKIE, Site};
use crate::support::tokens::{claims_with, key, service_token, token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const REMOVED: [&str; 29] = [
    "Authorization",
    "X-Grafana-Id",
    "x-grafana-id",
    "X-DS-Authorization",
    "x-ds-authorization",
    "X-Prom-Label-Policy",
    "X-PROM-LABEL-POLICY",
    "X-Scope-UserID",
    "X-Query-Tags",
    "HTTP2-Settings",
    "x-loki-anything",
    "X-LOKI-",
    "X-Loki-Response-Encoding-Flag",
    "X-Query-Queue-Time",
    "Recent-Data-Target",
    "Sharding-Control",
    "INSTANT-SPLIT-CONTROL",
    "X-Filter-Queryables",
    "X-Read-Consistency",
    "X-Read-Consistency-Offsets",
    "X-PromQL-EngineType",
    "X-Request-Logging-Headers-Key",
    "X-Pyroscope-Collect-Diagnostics",
    "X-Cortex-BlockStore-Type",
    "X-Tenantauth-Subject",
    "x-tenantauth-",
    "X-Mimir-Read-Consistency",
    "x-MIMIR-other",
    "X-Mimir-",
];

#[test]
fn what_could_steer_a_backend_is_removed() {
    let site = Site::builder().policy(&format!("{POLICY}{SIGNED_COOKIE}")).start();
    let mut request = query(&["group1"], "tenant1");
    for name in REMOVED {
        request = request.header(name, "steer");
        // Twice the same is no hiding place; nginx itself refuses a second Authorization.
        request = if name == "Authorization" { request } else { request.header(name, "again") };
    }
    assert_allowed(&site.send(request));
    let seen = site.upstream.only();
    for name in REMOVED.into_iter().chain(["X-Id-Token"]) {
        assert!(!seen.has(name), "{name} arrived:\n{}", seen.head);
    }
}

/// The first few are removed in another way than the rest.
#[test]
fn however_many_are_removed_none_is_left() {
    let site = Site::builder().policy(&format!("{POLICY}{SIGNED_COOKIE}")).start();
    for count in 0..=REMOVED.len() {
        let names = &REMOVED[..count];
        let request = query(&["group1"], "tenant1");
        let request = names.iter().fold(request, |request, name| request.header(name, "steer"));
        assert_allowed(&site.send(request.header("X-Kept", "kept")));
        let seen = site.upstream.only();
        assert_eq!(seen.values("X-Kept"), ["kept"]);
        for name in names.iter().chain(&["X-Id-Token"]) {
            assert!(!seen.has(name), "{name} of {count} arrived:\n{}", seen.head);
        }
    }
}

#[test]
fn everything_else_arrives_byte_for_byte() {
    let site = Site::builder().policy(&format!("{POLICY}{SIGNED_COOKIE}")).start();
    let others = [
        ("Accept", "*/*"),
        ("User-Agent", "Grafana/11.0 \u{7f}~"),
        ("X-Grafana-User", "ada"),
        ("X-Dashboard-Uid", "abc"),
        ("X-Grafana-Org-Id", "1"),
        ("X-Loki-Response-Encoding-Flags", "categorize-labels"),
        ("X-LokiX", "not one of Loki's"),
        ("X-Cortexes", "nor one of Cortex'"),
        ("X-Read-Consistenc", "nor this"),
        ("X-Prometheus-Remote-Write-Version", "2.0.0"),
        ("X-Mimirror", "neither"),
        ("X-Scope-OrgIDs", "nor this"),
        ("X-Odd", "a \"quoted\\\" {value}; with, everything = in it"),
        ("Accept-Encoding", "gzip"),
        ("X-Twice", "1"),
        ("x-twice", "2"),
    ];
    let mut request = query(&["group1"], "tenant1").header("X-Bytes", b"\x80\xfe\xff");
    for (name, value) in others {
        request = request.header(name, value);
    }
    assert_allowed(&site.send(request));
    let seen = site.upstream.only();
    for (name, value) in others {
        assert!(seen.headers().contains(&(name.to_owned(), value.to_owned())), "{name} in\n{}", seen.head);
    }
    assert_eq!(seen.values("X-Bytes"), ["\u{80}\u{fe}\u{ff}"]);
    assert_eq!(seen.values("X-Scope-OrgID"), ["tenant1"]);
}

#[test]
fn only_our_cookie_is_taken_out() {
    let site = Site::builder().policy(&format!("{POLICY}{SIGNED_COOKIE}")).start();
    let cases: [(&[&str], &str); 8] = [
        (&["a=1; Client_Ip=x; b=2"], "a=1; b=2"),
        (&["Client_Ip=x; b=2"], "b=2"),
        (&["a=1; Client_Ip=x"], "a=1"),
        (&["Client_Ip=x"], ""),
        (&["a=\"q,u o\"; b==; c"], "a=\"q,u o\"; b==; c"),
        (&["a=1;b=2;  c=3;"], "a=1;b=2;  c=3;"),
        (&["a=1", "b=2"], "a=1; b=2"),
        (&["Client_Ip_2=x; My_Client_Ip=y"], "Client_Ip_2=x; My_Client_Ip=y"),
    ];
    for (lines, expected) in cases {
        let request = lines.iter().fold(query(&["group1"], "tenant1"), |request, line| request.cookie(line));
        assert_allowed(&site.send(request));
        assert_eq!(site.upstream.only().values("Cookie").join("; "), expected, "{lines:?}");
    }
}

#[test]
fn a_second_line_is_a_denial() {
    let site = Site::start();
    let good = token(&["group1"]);
    for name in ["X-Scope-OrgID", "x-scope-orgid", "X-SCOPE-ORGID"] {
        for value in ["tenant1", "tenant2", ""] {
            assert_denied(&site.send(query(&["group1"], "tenant1").header(name, value)), "tenant_duplicate");
        }
    }
    for value in [good.as_str(), "x", ""] {
        assert_denied(
            &site.send(query(&["group1"], "tenant1").header("x-ID-token", value)),
            "token_duplicate",
        );
    }
    assert!(site.upstream.take().is_empty());
    // Names are compared in any case, and an underscore is not a dash.
    let lower =
        Request::get("/loki/api/v1/query").header("x-scope-orgid", "tenant1").header("x-id-token", &good);
    assert_allowed(&site.send(lower.header("X_Scope_OrgID", "tenant2")));
    assert_eq!(site.upstream.only().values("X-Scope-OrgID"), ["tenant1"]);
}

#[test]
fn more_headers_than_lua_can_see_are_a_denial() {
    let site = Site::start();
    let padded = |count: usize| {
        let request = Request::get("/loki/api/v1/query");
        (0..count).fold(request, |request, number| request.header(&format!("X-Pad-{number}"), "x"))
    };
    let finish = |request: Request| request.tenant("tenant1").token(&token(&["group1"]));
    assert_allowed(&site.send(finish(padded(90))));
    site.upstream.take();
    for count in [98, 100, 101, 200] {
        assert_denied(&site.send(finish(padded(count))), "headers_truncated");
        // A second tenant behind the horizon changes nothing.
        assert_denied(&site.send(finish(padded(count)).tenant("tenant2")), "headers_truncated");
    }
    assert!(site.upstream.take().is_empty());
}

#[test]
fn forward_headers_keeps_what_it_names() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce {
            backend = "loki",
            forward_headers = { "Authorization", "x-query-tags", "X-Loki-Query-Limits", "X-Id-Token", "Sharding-Control" },
        } }
        location / { proxy_pass http://@UPSTREAM@; }"#;
    let site = Site::builder().server(server).start();
    let request = query(&["group1"], "tenant1")
        .header("Authorization", "Basic dTpw")
        .header("X-Query-Tags", "Source=grafana")
        .header("X-Loki-Query-Limits", "{}")
        .header("Sharding-Control", "4")
        .header("Instant-Split-Control", "1h")
        .header("X-Loki-Other", "steer")
        .header("X-Scope-UserID", "steer");
    assert_allowed(&site.send(request));
    let seen = site.upstream.only();
    assert_eq!(seen.values("Authorization"), ["Basic dTpw"]);
    assert_eq!(seen.values("X-Query-Tags"), ["Source=grafana"]);
    assert_eq!(seen.values("X-Loki-Query-Limits"), ["{}"]);
    assert_eq!(seen.values("Sharding-Control"), ["4"]);
    assert!(!seen.has("Instant-Split-Control"), "{}", seen.head);
    assert!(
        seen.has("X-Id-Token") && !seen.has("X-Loki-Other") && !seen.has("X-Scope-UserID"),
        "{}",
        seen.head
    );
}

/// Forms in which people send `Connection` on, and what a backend then gets of it for `keep-alive, X-Scope-OrgID`.
const CONNECTION_FORMS: [(&str, &str, &[&str]); 6] = [
    ("", "proxy_set_header Connection $http_connection;", &["keep-alive"]),
    (
        "map $http_upgrade $connection_upgrade { default upgrade; '' close; }",
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;",
        &["close"],
    ),
    ("", r#"proxy_set_header Connection "upgrade";"#, &["upgrade"]),
    ("", r#"proxy_set_header Connection "";"#, &[]),
    ("", "", &["close"]),
    (
        "map $http_connection $copy { default $http_connection; }",
        "proxy_set_header Connection $copy;",
        &["keep-alive"],
    ),
];

fn with_connection(http: &str, location: &str) -> Site {
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

/// A proxy behind would drop the header.
#[test]
fn no_header_is_named_to_a_proxy_behind() {
    let hostile: [(&[&str], &str); 9] = [
        (&["keep-alive, X-Scope-OrgID"], "keep-alive"),
        (&["X-Scope-OrgID"], ""),
        (&["close", "X-Scope-OrgID"], "close"),
        (&["X-Scope-OrgID", "close"], "close"),
        (&["X-Prom-Label-Policy,Keep-Alive , TE"], "keep-alive, te"),
        (&["Upgrade"], ""),
        (&["close, Connection, Transfer-Encoding, Host"], "close"),
        (&["a", "b", "c", "keep-alive, x-scope-orgid"], "keep-alive"),
        (&["\"close\", close;X-Scope-OrgID"], ""),
    ];
    for (http, location, expected) in CONNECTION_FORMS {
        let site = with_connection(http, location);
        for (lines, kept) in hostile {
            let request =
                lines.iter().fold(query(&["group1"], "tenant1"), |r, line| r.header("Connection", line));
            assert_allowed(&site.send(request));
            let seen = site.upstream.only();
            assert_eq!(seen.values("X-Scope-OrgID"), ["tenant1"]);
            let follows_client = location.contains("$http_connection") || location.contains("$copy");
            let expected: Vec<&str> = if !follows_client {
                expected.to_vec()
            } else if kept.is_empty() {
                vec![]
            } else {
                vec![kept]
            };
            assert_eq!(seen.values("Connection"), expected, "{location}: {lines:?}\n{}", seen.head);
        }
    }
}

#[test]
fn what_a_connection_says_of_itself_arrives_as_it_came() {
    let site = with_connection("", "proxy_set_header Connection $http_connection;");
    for line in ["keep-alive", "Close", "TE", "te, close", "KEEP-ALIVE,te"] {
        assert_allowed(&site.send(query(&["group1"], "tenant1").header("Connection", line)));
        assert_eq!(site.upstream.only().values("Connection"), [line]);
    }
}

/// What nginx does with its own client was settled before.
#[test]
fn a_client_keeps_its_connection_though_its_header_is_rewritten() {
    let site = with_connection("", "proxy_set_header Connection $http_connection;");
    let mut client = Client::connect(site.port(""));
    for (line, upstream) in [("X-A", vec![]), ("keep-alive, x-a", vec!["keep-alive"]), ("X-A", vec![])] {
        client.send(&query(&["group1"], "tenant1").header("Connection", line).bytes());
        assert_eq!(client.answer().status, 200, "{line}");
        assert_eq!(site.upstream.only().values("Connection"), upstream);
    }
    client.send(&query(&["group1"], "tenant1").header("Connection", "X-A, close").bytes());
    assert_eq!(client.answer().status, 200);
    assert!(client.answer_or_end().is_none(), "as it asked for");
}

/// nginx evaluates $http_connection once: what `set` has copied no removal undoes.
#[test]
fn a_copy_of_connection_that_names_headers_is_an_internal_error() {
    let location = "set $copy $http_connection; proxy_set_header Connection $copy;";
    let site = with_connection("", location);
    site.expect_errors();
    let answer = site.send(query(&["group1"], "tenant1").header("Connection", "close, X-Scope-OrgID"));
    assert_eq!((answer.status, answer.reason()), (503, "internal_error"), "{answer:?}");
    assert!(site.upstream.take().is_empty());
    site.wait_for_log("$http_connection was evaluated before `enforce`");
    for harmless in ["close", "keep-alive", "upgrade"] {
        assert_allowed(&site.send(query(&["group1"], "tenant1").header("Connection", harmless)));
        assert_eq!(site.upstream.only().values("Connection"), [harmless]);
    }
    let records = site.audit(4);
    assert_eq!(records[0]["reason"], "internal_error");
}

#[test]
fn nothing_is_rewritten_where_the_gateway_only_records() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / {
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_pass http://@UPSTREAM@;
        }"#;
    let until = jiff::Timestamp::from_second(now() + 3600).expect("a time");
    let shadow = format!("version: 1\nmode: shadow\nshadow_until: {until}\n");
    let policy = POLICY.replace("version: 1\n", &shadow);
    let site = Site::builder().policy(&policy).server(server).start();
    let request = query(&["group1"], "tenant1").header("Connection", "Upgrade, X-Scope-OrgID");
    assert_allowed(&site.send(request.header("Upgrade", "h2c").header("HTTP2-Settings", "AAMAAABk")));
    let seen = site.upstream.only();
    assert_eq!(seen.values("Connection"), ["Upgrade, X-Scope-OrgID"]);
    assert!(seen.values("Upgrade") == ["h2c"] && seen.has("HTTP2-Settings"), "{}", seen.head);
    // What would have been: declined, and allowed.
    let record = site.audit(1).remove(0);
    assert_eq!(
        (&record["upgrade"], &record["shadow"]["reason"]),
        (&json!(false), &json!("granted")),
        "{record}"
    );
}

#[test]
fn the_first_token_header_that_is_present_counts() {
    let policy = POLICY.replace("authorizations:", "token_headers: [X-First, X-Second]\nauthorizations:");
    let site = Site::builder().policy(&policy).start();
    let good = token(&["group1"]);
    let request = || Request::get("/loki/api/v1/query").tenant("tenant1");
    assert_allowed(&site.send(request().header("X-First", &good)));
    assert_allowed(&site.send(request().header("X-Second", &good)));
    assert_allowed(&site.send(request().header("X-First", &good).header("X-Second", "junk")));
    for seen in site.upstream.take() {
        assert!(!seen.has("X-First") && !seen.has("X-Second"), "{}", seen.head);
    }
    assert_denied(
        &site.send(request().header("X-First", "junk").header("X-Second", &good)),
        "token_malformed",
    );
    assert_denied(&site.send(request().header("X-First", "").header("X-Second", &good)), "token_malformed");
    assert_denied(&site.send(request().header("X-First", &good).header("X-First", &good)), "token_duplicate");
    assert_denied(
        &site.send(request().header("X-First", &good).header("X-Second", "a").header("X-Second", "b")),
        "token_duplicate",
    );
    // The usual header means nothing now, and neither does Authorization.
    assert_denied(&site.send(request().token(&good)), "token_missing");
    assert_denied(&site.send(request().header("Authorization", format!("Bearer {good}"))), "token_missing");
}

#[test]
fn authorization_can_be_a_token_header() {
    let policy = POLICY.replace("authorizations:", "token_headers: [Authorization]\nauthorizations:");
    let site = Site::builder().policy(&policy).start();
    let request = || Request::get("/loki/api/v1/query").tenant("tenant1");
    assert_allowed(&site.send(request().header("Authorization", format!("Bearer {}", token(&["group1"])))));
    assert!(!site.upstream.only().has("Authorization"));
    let other = site.send(request().header("Authorization", "Basic dTpw"));
    assert!(other.reason().starts_with("token_"), "{other:?}");
}

#[test]
fn tokens_with_many_groups_fit_where_nginx_lets_them() {
    let site = Site::builder().http("large_client_header_buffers 8 32k;").start();
    let mut groups: Vec<String> =
        (0..200).map(|number| format!("0f3c9a1e-0000-4000-8000-{number:012}")).collect();
    groups.push("group1".to_owned());
    let large = key().token(&claims_with(&[], json!({"groups": groups})));
    assert!(large.len() > 10_000);
    let request = Request::get("/loki/api/v1/query").tenant("tenant1").token(&large);
    assert_allowed(&site.send(request.clone()));
    assert_allowed(&site.send(request));
}

#[test]
fn another_spelling_of_the_tenant_header_is_another_line_of_it() {
    let server = r#"
        underscores_in_headers on;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        location / { proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().server(server).start();
    for name in ["X_Scope_OrgID", "x-scope_orgid", "X_SCOPE-ORGID"] {
        let request = Request::get("/loki/api/v1/query").token(&token(&["group1"]));
        let both = request.clone().header(name, "other").tenant("tenant1");
        assert_denied(&site.send(both), "tenant_duplicate");
        assert_denied(&site.send(request.header(name, "tenant1")), "tenant_missing");
        assert!(site.upstream.take().is_empty(), "{name}");
    }
}

#[test]
fn a_service_token_is_not_forwarded_whatever_it_stands_behind() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce {
            backend = "loki",
            forward_headers = { "Authorization" },
        } }
        location / { proxy_pass http://@UPSTREAM@; }"#;
    let site = Site::builder().server(server).start();
    let encoded = STANDARD.encode(format!("agent:{}", service_token('s')));
    for byte in ["\x01", "\x0b", "\x1f", "\x7f", ";", "=\""] {
        let line = format!("Basic {byte}{encoded}");
        assert_allowed(&site.send(query(&["group1"], "tenant1").header("Authorization", &line)));
        let seen = site.upstream.only();
        assert!(!seen.has("Authorization"), "{byte:?}:\n{}", seen.head);
    }
    // What is read as credentials is decided as such. Where it is not the last of its lines, nginx refuses the request.
    let line = format!("Basic \x0c{encoded}");
    let request = query(&["group1"], "tenant1").header("Authorization", &line);
    assert_denied(&site.send(request.clone()), "token_unknown");
    assert_eq!(site.send(request.header("Authorization", "Basic dTpw")).status, 400);
    assert!(site.upstream.take().is_empty());
}

/// nginx drops such lines unless it is told not to. Its Lua module escapes these bytes and so finds no line to remove.
#[test]
fn what_cannot_be_removed_is_denied() {
    let server = r#"
        ignore_invalid_headers off;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        location / { proxy_pass http://@UPSTREAM@; }"#;
    let site = Site::builder().server(server).start();
    let with = |name: &[u8]| {
        let mut request =
            Request::get("/loki/api/v1/query").tenant("tenant1").token(&token(&["group1"])).bytes();
        request.truncate(request.len() - 2);
        request.extend_from_slice(name);
        request.extend_from_slice(b": x\r\n\r\n");
        let mut client = Client::connect(site.port(""));
        client.send(&request);
        client.answer_or_end()
    };
    for byte in (0x21..=0xff_u8).filter(|byte| *byte != b':') {
        for prefix in ["X-Loki-A", "X-Mimir-A"] {
            let name = [prefix.as_bytes(), &[byte], b"b"].concat();
            let answer = with(&name);
            let seen = site.upstream.take();
            // 400: nginx refuses it itself.
            let fine = |answer: &Answer| {
                [200, 400].contains(&answer.status) || answer.reason() == "headers_truncated"
            };
            assert!(answer.as_ref().is_none_or(fine), "{byte:#x}: {answer:?}");
            for request in seen {
                let head = request.head.to_ascii_lowercase();
                assert!(!head.contains("x-loki-") && !head.contains("x-mimir-"), "{byte:#x}: {head}");
            }
        }
    }
    // What no rule removes goes on, whatever it is called.
    assert_allowed(&with(b"X-Other\"b").expect("an answer"));
    assert_denied(&with(b"X-Loki-\x80").expect("an answer"), "headers_truncated");
}
