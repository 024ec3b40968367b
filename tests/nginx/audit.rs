//! One JSON object a request, whatever the request was, with nothing secret in it.

use crate::checks::{assert_allowed, query};
use crate::support::client::{Client, Request};
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::tokens::{claims_with, key, token};
use serde_json::{Value, json};

/// What each record has, in this order.
pub(crate) const KEYS: [&str; 33] = [
    "backend",
    "bytes_sent",
    "client_ip",
    "client_ip_source",
    "decision",
    "denied_tenant",
    "duration_ms",
    "grafana",
    "grant",
    "groups",
    "issuer",
    "method",
    "mode",
    "owner",
    "path",
    "peer",
    "policy_revision",
    "query",
    "reason",
    "request_id",
    "restriction",
    "schema",
    "scope",
    "shadow",
    "status",
    "subject",
    "tenants",
    "time",
    "token_id",
    "truncated",
    "upgrade",
    "upstream_status",
    "user",
];

fn restricted() -> Site {
    Site::builder().policy(&format!("{POLICY}{RESTRICTIONS}{SIGNED_COOKIE}")).start()
}

/// The records so far, each with exactly the promised keys.
fn records(site: &Site, count: usize) -> Vec<Value> {
    let records = site.audit(count);
    for record in &records {
        assert_keys(record);
    }
    records
}

/// The record has the promised keys and no other, each of its type.
pub(crate) fn assert_keys(record: &Value) {
    let mut keys: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, KEYS, "{record}");
    let list = record["truncated"].as_array();
    assert!(record["truncated"].is_null() || list.is_some_and(|list| !list.is_empty()), "{record}");
    assert_eq!(record["schema"], 1);
    let time = record["time"].as_str().unwrap();
    // 2026-11-22T01:02:03.456Z or with an offset
    assert!(time.len() >= 24 && &time[10..11] == "T" && &time[19..20] == ".", "{time}");
    assert!(record["status"].is_u64() && record["bytes_sent"].is_u64(), "{record}");
    assert!(record["duration_ms"].is_number(), "{record}");
    assert!(record["upstream_status"].is_array() || record["upstream_status"].is_null(), "{record}");
}

#[test]
fn an_allowed_request_is_recorded_whole() {
    let site = restricted();
    let request = query(&["x", "group1"], "tenant1")
        .cookie(COOKIE_KEY.pair("203.0.113.5"))
        .header("X-Dashboard-Uid", "dash")
        .header("X-Panel-Id", "4")
        .header("X-Rule-Uid", "rule")
        .header("X-Grafana-Org-Id", "1");
    let answer = site.send(request);
    assert_eq!(answer.status, 200);
    let record = records(&site, 1).remove(0);
    for (key, value) in [
        ("decision", json!("allow")),
        ("reason", json!("granted")),
        ("mode", json!("enforce")),
        ("shadow", Value::Null),
        ("issuer", json!("idp")),
        ("subject", json!("user-1")),
        ("user", json!("ada@example.test")),
        ("token_id", json!("token-id-1")),
        ("groups", json!(["group1"])),
        ("tenants", json!(["tenant1"])),
        ("scope", json!("logs:read")),
        ("restriction", Value::Null),
        ("owner", Value::Null),
        ("backend", json!("loki")),
        ("method", json!("GET")),
        ("path", json!("/loki/api/v1/query_range")),
        ("query", json!("query=%7Ba%3D%22b%22%7D")),
        ("client_ip", json!("203.0.113.5")),
        ("client_ip_source", json!("cookie")),
        ("peer", json!("127.0.0.1")),
        ("upgrade", json!(false)),
        ("status", json!(200)),
        ("upstream_status", json!([200])),
    ] {
        assert_eq!(record[key], value, "{key} in {record}");
    }
    assert_eq!(record["grafana"]["dashboard"], "dash");
    assert_eq!(record["grafana"]["panel"], "4");
    assert_eq!(record["grafana"]["org"], "1");
    assert!(record["policy_revision"].is_string(), "{record}");
    assert_eq!(record["request_id"].as_str().map(str::len), Some(32));
}

#[test]
fn denials_are_recorded_with_what_was_known() {
    let site = restricted();
    let home = site.send(query(&["group1"], "tenant1").cookie(COOKIE_KEY.pair("198.18.0.5")));
    let forbidden = site.send(query(&["group1"], "tenant2"));
    let nobody = site.send(Request::get("/loki/api/v1/query").tenant("tenant1"));
    let nowhere = site.send(Request::get("/nothing").tenant("tenant1").token("junk"));
    let grantless = site.send(query(&["team-a"], "team-a").cookie(COOKIE_KEY.pair("203.0.113.5")));
    let records = records(&site, 5);
    for (record, answer) in records.iter().zip([&home, &forbidden, &nobody, &nowhere, &grantless]) {
        assert_eq!(
            record["request_id"].as_str(),
            answer.header("X-Request-Id").or(record["request_id"].as_str())
        );
        if answer.status != 200 {
            assert_eq!((&record["decision"], &record["reason"]), (&json!("deny"), &json!(answer.reason())));
            assert_eq!(record["status"], answer.status);
        }
    }
    let [home, forbidden, nobody, nowhere, granted] = &records[..] else { panic!("five records") };
    assert_eq!(
        (&home["restriction"], &home["client_ip"]),
        (&json!("logs-from-office"), &json!("198.18.0.5"))
    );
    assert_eq!(
        (&forbidden["user"], &forbidden["tenants"]),
        (&json!("ada@example.test"), &json!(["tenant2"]))
    );
    assert_eq!((&nobody["user"], &nobody["groups"]), (&Value::Null, &Value::Null));
    assert_eq!((&nowhere["scope"], &nowhere["path"]), (&Value::Null, &json!("/nothing")));
    assert_eq!(granted["grant"], "team-a-writers", "{granted}");
}

#[test]
fn hostile_bytes_make_no_second_line_and_no_broken_json() {
    let site = Site::start();
    let hostile: [&[u8]; 9] = [
        b"\"}\\",
        b"\\u0000\\n",
        b"\x80\xff\xfe",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\x7f\x1b[31m",
        b"',\"decision\":\"allow",
        b"{\"a\":1}",
        b"\xe2\x80\xa8<script>",
    ];
    let mut count = 0;
    for bytes in hostile {
        let target = |prefix: &str| [prefix.as_bytes(), bytes].concat();
        let base = || query(&["group1"], "tenant1");
        for request in [
            Request::get(target("/loki/api/v1/query?query=")).tenant("tenant1").token(&token(&["group1"])),
            Request::get(target("/")).tenant("tenant1"),
            base().header("X-Dashboard-Uid", bytes).header("X-Panel-Id", bytes),
            base().header("X-Rule-Uid", bytes).header("X-Grafana-Org-Id", bytes).header("User-Agent", bytes),
            Request::get("/loki/api/v1/query").header("X-Scope-OrgID", bytes),
            Request::get("/loki/api/v1/query").tenant("tenant1").header("X-Id-Token", bytes),
            base().header("Upgrade", bytes).header("Connection", bytes),
        ] {
            site.send(request);
            count += 1;
        }
    }
    let records = records(&site, count);
    assert!(records.iter().any(|record| record["decision"] == "allow"));
    let denied = |record: &&Value| record["decision"] == "deny";
    assert!(records.iter().filter(denied).count() >= 2 * hostile.len());
}

#[test]
fn nothing_secret_is_recorded() {
    let site = restricted();
    let good = token(&["group1"]);
    let cookie = COOKIE_KEY.pair("203.0.113.5");
    let request = query(&["group1"], "tenant1").cookie(format!("session=s3cret; {cookie}"));
    site.send(request.header("Authorization", "Basic czNjcmV0").header("X-Grafana-Id", "s3cret"));
    site.send(Request::get("/loki/api/v1/query").tenant("tenant1").token(&good).token(&good).cookie(&cookie));
    site.send(Request::get("/loki/api/v1/query").tenant("tenant1").token("s3cret.junk.token"));
    site.send(Request::get("/loki/api/v1/query").tenant("tenant1").token(&good).cookie("Client_Ip=s3cret"));
    records(&site, 4);
    let (audit, log) = (site.workspace.read("audit.jsonl"), site.log());
    let mac = cookie.rsplit('.').next().unwrap();
    for secret in ["s3cret", "czNjcmV0", mac, good.as_str(), good.split('.').nth(1).unwrap()] {
        assert!(!audit.contains(secret), "{secret} in\n{audit}");
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
}

#[test]
fn requests_that_nginx_refuses_itself_leave_a_record_without_a_decision() {
    let site = Site::start();
    let long = "x".repeat(20_000);
    let raw = |bytes: &[u8]| {
        let mut client = Client::connect(site.port(""));
        client.send(bytes);
        client.finish();
        client.answer().status
    };
    let refused = [
        raw(b"GET /loki HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        raw(b"GET /loki HTTP/1.1\r\n\r\n"),
        raw(b"G\"ET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()),
        raw(format!("GET /loki HTTP/1.1\r\nHost: a\r\nX-Id-Token: {long}\r\n\r\n").as_bytes()),
        raw(b"TRACE /loki/api/v1/query HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    assert_eq!(refused, [400, 400, 400, 414, 400, 405]);
    for (record, status) in records(&site, refused.len()).iter().zip(refused) {
        assert_eq!(record["status"], status, "{record}");
        assert_eq!((&record["decision"], &record["reason"]), (&Value::Null, &Value::Null), "{record}");
        assert_eq!(record["peer"], Value::Null);
    }
}

/// The realip module may not be there, so http.conf cannot name the peer; `$remote_addr` is what a header says.
#[test]
fn a_header_does_not_become_the_peer_of_an_undecided_request() {
    let server = r#"
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Forwarded-For;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / { client_max_body_size 1k; proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().server(server).start();
    site.expect_errors();
    let forwarded = query(&["group1"], "tenant1").header("X-Forwarded-For", "203.0.113.66");
    assert_eq!(site.send(forwarded.clone().header("Content-Length", "2000")).status, 413);
    assert_eq!(site.send(forwarded).status, 200);
    let records = records(&site, 2);
    assert_eq!(records[0]["peer"], Value::Null, "{}", records[0]);
    assert_eq!(records[1]["peer"], "127.0.0.1", "{}", records[1]);
}

#[test]
fn refusals_behind_the_request_line_and_an_error_page_of_their_own_are_recorded_too() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        error_page 494 =431 @too_large;
        location @too_large { return 431 "too large\n"; }
        location / { client_max_body_size 1k; proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().server(server).start();
    site.expect_errors();
    let large = query(&["group1"], "tenant1").header("Content-Length", "2000");
    assert_eq!(site.send(large).status, 413);
    let mut client = Client::connect(site.port(""));
    client.send(&query(&["group1"], "tenant1").header("X-Large", "x".repeat(20_000)).bytes());
    assert_eq!(client.answer().status, 431);
    for (record, status) in records(&site, 2).iter().zip([413, 431]) {
        assert_eq!((&record["status"], &record["decision"]), (&json!(status), &Value::Null), "{record}");
    }
    assert!(site.upstream.take().is_empty());
}

/// The log format and the variable of its name say the same, byte for byte.
#[test]
fn a_format_of_ones_own_holds_the_same_record() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        # In this order: what is in the second file is in the first.
        access_log @DIR@/own.log own;
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / { proxy_pass http://@UPSTREAM@; }
    "#;
    let http = "log_format own escape=none '$tenantauth_audit';";
    let site = Site::builder().server(server).http(http).start();
    assert_eq!(site.send(query(&["group1"], "tenant1")).status, 200);
    assert_eq!(site.send(query(&["group1"], "tenant2")).status, 403);
    assert_eq!(site.send(Request::get("/loki/%zz")).status, 400);
    records(&site, 3);
    assert_eq!(site.workspace.read("own.log"), site.workspace.read("audit.jsonl"));
}

#[test]
fn variables_serve_other_directives() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / {
            proxy_pass http://@UPSTREAM@;
            proxy_set_header X-Seen "$tenantauth_decision,$tenantauth_reason,$tenantauth_tenants,$tenantauth_user";
            proxy_set_header X-Subject $tenantauth_subject;
        }"#;
    let http = "log_format short '$status $tenantauth_decision $tenantauth_reason $tenantauth_tenants';
        server { listen 127.0.0.1:@PORT:short@; access_log @DIR@/short.log short;
            rewrite_by_lua_block { require(\"tenantauth\").enforce { backend = \"loki\" } }
            location / { proxy_pass http://@UPSTREAM@; } }";
    let site = Site::builder().server(server).http(http).start();
    assert_eq!(site.send(query(&["group3"], "tenant2|tenant1")).status, 200);
    let seen = site.upstream.only();
    assert_eq!(seen.values("X-Seen"), ["allow,granted,tenant1|tenant2,ada@example.test"]);
    assert_eq!(seen.values("X-Subject"), ["user-1"]);
    query(&["group1"], "tenant2").send(site.port("short"));
    let log = || site.workspace.read("short.log");
    crate::support::wait_for("line in the short log", 5, || log().ends_with('\n').then_some(()));
    assert_eq!(log(), "403 deny tenant_forbidden tenant2\n");
}

/// A part of a name is the whole of another: no header is made of it.
#[test]
fn a_name_that_was_cut_is_no_variable() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / {
            proxy_pass http://@UPSTREAM@;
            proxy_set_header X-Seen "$tenantauth_subject,$tenantauth_user";
        }"#;
    let site = Site::builder().server(server).start();
    let long = "ada-".repeat(200);
    let of = |subject: &str, user: &str| {
        let changes = json!({"sub": subject, "oid": null, "preferred_username": user});
        let token = key().token(&claims_with(&["group1"], changes));
        site.send(Request::get("/loki/api/v1/query?query=x").tenant("tenant1").token(&token));
        site.upstream.take()[0].values("X-Seen").concat()
    };
    assert_eq!(of("ada", &long), "ada,");
    assert_eq!(of(&long, "ada"), ",ada");
    assert_eq!(of("ada", "\",\"truncated\":[\"subject\"]"), "ada,\\\",\\\"truncated\\\":[\\\"subject\\\"]");
    let truncated: Vec<_> = records(&site, 3).iter().map(|record| record["truncated"].clone()).collect();
    assert_eq!(json!(truncated), json!([["user"], ["subject"], null]));
}

/// However many servers were asked.
#[test]
fn every_server_that_was_asked_is_in_the_record() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / { proxy_pass http://many; proxy_next_upstream error; }"#;
    // A record has a length that it keeps to: of more than 32 servers these are the last.
    for (count, recorded) in [(6, 7), (31, 32), (32, 32), (50, 32)] {
        let dead: String = (1..=count).map(|port| format!("server 127.0.0.1:{port};\n")).collect();
        let http = format!("upstream many {{\n{dead}server @UPSTREAM@ backup;\n}}");
        let site = Site::builder().http(&http).server(server).start();
        site.expect_errors();
        assert_allowed(&site.send(query(&["group1"], "tenant1")));
        let mut expected = vec![502; recorded - 1];
        expected.push(200);
        assert_eq!(records(&site, 1)[0]["upstream_status"], json!(expected));
    }
}
