//! The whole gateway in shadow mode: everything is recorded, nothing is changed, and an older script goes on deciding.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Client, Request};
use crate::support::site::{POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::tokens::token;
use crate::support::{now, repository, wait_for};

const ENFORCE: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
access_log @DIR@/audit.jsonl tenantauth_audit;
"#;

const OLD: &str = r#"
access_by_lua_file @DIR@/old_auth.lua;
location / { proxy_pass http://@UPSTREAM@; }
"#;

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).expect("a time").to_string()
}

fn shadow(until: i64) -> String {
    let policy = format!("{POLICY}{SIGNED_COOKIE}{RESTRICTIONS}");
    policy.replace("version: 1\n", &format!("version: 1\nmode: shadow\nshadow_until: {}\n", time(until)))
}

/// A request that is denied in many ways, with all that tenantauth would remove or rewrite.
fn loaded() -> Request {
    Request::get("/loki/api/v1/query?query=%7Ba%3D%22b%22%7D")
        .header("X-Scope-OrgID", "tenant2|tenant1|tenant2")
        .header("x-id-token", token(&["group3"]))
        .header("Authorization", "Bearer something")
        .header("X-Grafana-Id", "a.b.c")
        .header("X-Loki-Response-Encoding-Flags", "categorize-labels")
        .header("X-Query-Tags", "Source=grafana")
        .cookie("a=1; Client_Ip=v1.bad;  b=2")
        .cookie("c=3")
        .header("X-Panel-Id", "7")
}

#[test]
fn requests_go_upstream_byte_for_byte_and_the_old_script_decides() {
    let beside = format!("server {{ listen 127.0.0.1:@PORT:without@; {OLD} }}");
    let server = format!("{ENFORCE}access_log @DIR@/tenants.log tenants;\n{OLD}");
    let beside = format!("log_format tenants '$tenantauth_tenants';\n{beside}");
    let site = Site::builder().policy(&shadow(now() + 3600)).http(&beside).server(&server).start();
    site.workspace.copy(&repository("tests/data/old_auth.lua"), "old_auth.lua");

    let cases: Vec<(Request, u16, &str)> = vec![
        // The script compares the whole header with one tenant; tenantauth would have allowed none of it: the cookie is bad.
        (loaded(), 403, "ip_malformed"),
        (query(&["group1"], "tenant1"), 200, "ip_missing"),
        (query(&["group3"], "tenant2"), 200, "granted"),
        (query(&["nobody"], "tenant1"), 403, "tenant_forbidden"),
        // What the script lets through, and tenantauth will not.
        (
            Request::get("/loki/api/v1/query")
                .tenant("tenant1")
                .token("e30.eyJncm91cHMiOlsiZ3JvdXAxIl19.eHg"),
            200,
            "token_unsupported",
        ),
        (
            Request::new("POST", "/loki/api/v1/push").tenant("tenant2").token(&token(&["group3"])).body("{}"),
            200,
            "scope_forbidden",
        ),
        (Request::get("/flush").tenant("tenant1").token(&token(&["group1"])), 200, "route_unknown"),
        (Request::get("/loki/api/v1/query").tenant("tenant1"), 403, "token_missing"),
    ];
    for (number, (request, status, reason)) in cases.iter().enumerate() {
        let answer = site.send(request.clone());
        assert_eq!((answer.status, answer.reason()), (*status, ""), "{reason}: {answer:?}");
        let seen = site.upstream.take();
        request.send(site.port("without"));
        let plain = site.upstream.take();
        assert_eq!(seen.len(), usize::from(*status == 200), "{reason}");
        assert_eq!(
            seen.iter().map(|seen| (&seen.head, &seen.body)).collect::<Vec<_>>(),
            plain.iter().map(|seen| (&seen.head, &seen.body)).collect::<Vec<_>>(),
            "{reason}: byte for byte as without tenantauth"
        );
        let record = site.audit(number + 1).pop().expect("a record");
        let would = if *reason == "granted" { "allow" } else { "deny" };
        assert_eq!(
            [&record["decision"], &record["reason"], &record["mode"]],
            ["allow", "granted", "shadow"],
            "{record}"
        );
        assert_eq!(record["shadow"], serde_json::json!({"decision": would, "reason": reason}), "{record}");
        assert_eq!(record["status"], *status, "{record}");
    }
    let metrics = site.metrics();
    for line in [
        r#"tenantauth_shadow_denials_total{reason="tenant_forbidden",backend="loki"} 1"#,
        r#"tenantauth_shadow_denials_total{reason="route_unknown",backend="loki"} 1"#,
        r#"tenantauth_policy_warnings{kind="shadow_mode"} 1"#,
        r#"tenantauth_decisions_total{decision="allow",reason="granted",backend="loki",scope="logs:read"} 6"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains(r#"decision="deny""#), "{metrics}");
    let status = site.status().json();
    assert_eq!(status["mode"], "shadow");
    assert!(status["warnings"].to_string().contains("nothing is denied, only recorded"), "{status}");
    // In canonical form, although the header goes on as it came; of one that is no list of tenants, what no other has.
    site.send(Request::get("/loki/api/v1/query").tenant("a\"b|tenant1").token(&token(&["group1"])));
    wait_for("the tenants of all requests", 5, || {
        let tenants = site.workspace.read("tenants.log");
        (tenants.lines().count() == cases.len() + 1).then_some(())
    });
    let tenants = site.workspace.read("tenants.log");
    assert!(
        tenants.starts_with("tenant1|tenant2\ntenant1\ntenant2\n")
            && tenants.lines().next_back().is_some_and(|last| last.len() == 33 && last.starts_with('?')),
        "{tenants}"
    );
    assert!(site.log().contains("until then nothing is denied, only recorded"));
}

#[test]
fn what_cannot_be_decided_goes_on_too() {
    // Subrequests, internal redirects, and a WebSocket that no route knows.
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        proxy_intercept_errors on;
        error_page 404 /loki/api/v1/labels;
        location / { proxy_pass http://@UPSTREAM@; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; }
        location = /auth { proxy_pass http://@UPSTREAM@; }
        location = /loki/api/v1/index/volume { auth_request /auth; proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().policy(&shadow(now() + 3600)).server(server).start();
    site.expect_errors();
    let redirected = Request::get("/loki/api/v1/query").tenant("tenant1").header("X-Echo-Status", "404");
    let answer = site.send(redirected);
    assert_eq!((answer.status, answer.reason()), (404, ""), "{answer:?}");
    assert_eq!(site.upstream.take().len(), 2, "the page of the error was asked for as well");
    let answer = site.send(Request::get("/loki/api/v1/index/volume").tenant("tenant1"));
    assert_eq!((answer.status, answer.reason()), (200, ""), "{answer:?}");
    let mut client = Client::connect(site.port(""));
    client.send(&Request::get("/somewhere").websocket().bytes());
    assert_eq!(client.answer().status, 101);
    // The first decision is what was recorded.
    let records = site.audit(2);
    for record in &records {
        assert_eq!([&record["decision"], &record["mode"]], ["allow", "shadow"], "{record}");
        assert_eq!(record["shadow"]["decision"], "deny", "{record}");
    }
}

#[test]
fn shadow_mode_ends_by_itself() {
    let end = now() + 4;
    let site = Site::builder().policy(&shadow(end)).start();
    let forbidden = || query(&["nobody"], "tenant1");
    assert_allowed(&site.send(forbidden()));
    wait_for("the end", 10, || (now() >= end).then_some(()));
    assert_denied(&site.send(forbidden()), "tenant_forbidden");
    let seen = site.upstream.take();
    assert_eq!(seen.len(), 1);
    site.wait_for_log("shadow mode is over: from now on denials are applied");
    let metrics = site.metrics();
    assert!(metrics.contains(r#"tenantauth_policy_warnings{kind="shadow_mode"} 0"#), "{metrics}");
    assert!(metrics.contains(r#"tenantauth_policy_warnings{kind="shadow_over"} 1"#), "{metrics}");
    let status = site.status().json();
    assert_eq!(status["mode"], "enforce");
    assert!(
        status["warnings"].to_string().contains("shadow_until: it has passed: denials are applied"),
        "{status}"
    );
}

/// Enforcing removes the token before the access phase: a script that still stands there needs it kept, until its line
/// is removed too. The migration guide says so.
#[test]
fn the_old_script_goes_on_when_shadow_mode_ends() {
    let policy = |mode: &str| POLICY.replace("version: 1\n", &format!("version: 1\n{mode}\n"));
    let enforce = |options: &str| {
        format!(
            "rewrite_by_lua_block {{ require(\"tenantauth\").enforce {{ backend = \"loki\"{options} }} }}\n{OLD}"
        )
    };
    let unkept = format!("server {{ listen 127.0.0.1:@PORT:unkept@; {} }}", enforce(""));
    let site = Site::builder()
        .policy(&policy(&format!("mode: shadow\nshadow_until: {}", time(now() + 3600))))
        .http(&unkept)
        .server(&enforce(", forward_headers = { \"X-Id-Token\" }"))
        .start();
    site.workspace.copy(&repository("tests/data/old_auth.lua"), "old_auth.lua");
    let status = |port: &str| query(&["group1"], "tenant1").send(site.port(port)).status;
    assert_eq!([status(""), status("unkept")], [200, 200]);
    site.write_policy(&policy("mode: enforce"));
    wait_for("tenantauth to enforce", 6, || {
        (site.send(query(&["group1"], "tenant2")).reason() == "tenant_forbidden").then_some(())
    });
    assert_eq!([status(""), status("unkept")], [200, 403]);
}
