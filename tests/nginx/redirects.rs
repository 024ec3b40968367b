//! Requests that nginx runs twice or within one another: what was decided stays decided, and nothing else passes.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Client, Request};
use crate::support::site::Site;

/// A server-level `enforce` with every way out of a location below it.
const SERVER: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
access_log @DIR@/audit.jsonl tenantauth_audit;
proxy_intercept_errors on;
error_page 404 /loki/api/v1/labels;
error_page 410 @named;
error_page 418 = /error.html;
error_page 420 = @free;

location / { proxy_pass http://@UPSTREAM@; }
location @named { proxy_pass http://@UPSTREAM@; }
location @free { rewrite_by_lua_block { } proxy_pass http://@UPSTREAM:free@; }
location = /error.html { internal; rewrite_by_lua_block { } root @DIR@; }
location = /loki/api/v1/series { try_files /nowhere /loki/api/v1/push; }
location = /loki/api/v1/patterns { content_by_lua_block { ngx.exec("/loki/api/v1/rules") } }
location = /loki/api/v1/index/stats {
    content_by_lua_block {
        local inner = ngx.location.capture("/loki/api/v1/query", { copy_all_vars = true })
        ngx.say("inner: ", inner.status)
    }
}
location = /auth { proxy_pass http://@UPSTREAM@; }
location = /free-auth { internal; rewrite_by_lua_block { } proxy_pass http://@UPSTREAM:free@; }
location = /loki/api/v1/index/volume { auth_request /auth; proxy_pass http://@UPSTREAM@; }
location = /loki/api/v1/index/volume_range { auth_request /free-auth; proxy_pass http://@UPSTREAM@; }
location = /outside {
    rewrite_by_lua_block { }
    content_by_lua_block { ngx.say(ngx.location.capture("/loki/api/v1/query").status) }
}
"#;

fn failing(path: &str, status: u16) -> Request {
    let request = Request::get(path).tenant("tenant1");
    request.token(&crate::support::tokens::token(&["group1"])).header("X-Echo-Status", status.to_string())
}

#[test]
fn an_internal_redirect_of_an_allowed_request_is_denied() {
    let site = Site::builder().server(SERVER).start();
    for (count, request) in [
        failing("/loki/api/v1/query", 404),
        failing("/loki/api/v1/query", 410),
        failing("/loki/api/v1/series", 200),
        failing("/loki/api/v1/patterns", 200),
    ]
    .into_iter()
    .enumerate()
    {
        assert_denied(&site.send(request), "internal_error");
        // The record keeps what was decided first, and tells how it ended.
        let record = site.audit(count + 1).pop().unwrap();
        assert_eq!(
            (&record["decision"], &record["reason"]),
            (&"allow".into(), &"granted".into()),
            "{record}"
        );
        assert_eq!(
            (&record["tenants"], &record["status"]),
            (&serde_json::json!(["tenant1"]), &503.into()),
            "{record}"
        );
    }
    // The first two had reached the backend before.
    assert_eq!(site.upstream.take().len(), 2);
    site.expect_errors();
}

#[test]
fn an_internal_redirect_of_a_denied_request_keeps_its_reason() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        error_page 403 503 /loki/api/v1/labels;
        location / { proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().server(server).start();
    assert_denied(&site.send(query(&["group1"], "tenant2")), "tenant_forbidden");
    let record = site.audit(1).remove(0);
    assert_eq!(
        (&record["decision"], &record["reason"]),
        (&"deny".into(), &"tenant_forbidden".into()),
        "{record}"
    );
    assert_eq!(record["path"], "/loki/api/v1/query_range");
    assert!(site.upstream.take().is_empty());
}

#[test]
fn error_pages_that_opt_out_are_shown() {
    let site = Site::builder().server(SERVER).start();
    site.workspace.write("error.html", "a page of our own\n");
    let page = site.send(failing("/loki/api/v1/query", 418));
    assert_eq!((page.status, page.text().as_str()), (200, "a page of our own\n"));
    let free = site.send(failing("/loki/api/v1/query", 420));
    assert_eq!(site.upstream_of("free").take().len(), 1, "{free:?}");
    // What was removed before the first backend is not there for the second either.
    let record = site.audit(2).pop().unwrap();
    assert_eq!(record["reason"], "granted", "{record}");
}

#[test]
fn subrequests_are_denied_and_their_location_is_logged() {
    let site = Site::builder().server(SERVER).start();
    site.expect_errors();
    let request = |path: &str| failing(path, 200);
    let answer = site.send(request("/loki/api/v1/index/stats"));
    assert_eq!(answer.text().trim_end(), "inner: 503");
    assert!(site.upstream.take().is_empty());
    site.wait_for_log("/loki/api/v1/query");
    // Also where the main request was never decided.
    assert_eq!(site.send(request("/outside")).text().trim_end(), "503");
    assert!(site.upstream.take().is_empty());

    // auth_request takes anything but 2xx, 401 and 403 for an error.
    let answer = site.send(request("/loki/api/v1/index/volume"));
    assert!([403, 500, 503].contains(&answer.status), "{answer:?}");
    assert!(site.upstream.take().is_empty());
    assert_allowed(&site.send(request("/loki/api/v1/index/volume_range")));
    assert_eq!((site.upstream_of("free").take().len(), site.upstream.take().len()), (1, 1));
}

#[test]
fn a_second_enforce_is_denied_and_the_record_stays() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki", forward_headers = { "X-Id-Token" } } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / {
            access_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            proxy_pass http://@UPSTREAM@;
        }
    "#;
    let site = Site::builder().server(server).start();
    site.expect_errors();
    assert_denied(&site.send(query(&["group1"], "tenant1")), "internal_error");
    assert!(site.upstream.take().is_empty());
    let records = site.audit(1);
    assert_eq!((&records[0]["decision"], &records[0]["reason"]), (&"allow".into(), &"granted".into()));
}

#[test]
fn a_denial_is_final_whatever_the_method() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        error_page 403 404 = @fallback;
        location / { proxy_pass http://@UPSTREAM@; }
        location @fallback { rewrite_by_lua_block { } proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().server(server).start();
    let mut client = Client::connect(site.port(""));
    for _ in 0..2 {
        for method in ["HEAD", "GET"] {
            client.send(&Request::new(method, "/ready").tenant("tenant1").bytes());
            let answer = client.answer_to(method);
            assert_eq!((answer.status, answer.reason()), (403, "route_unknown"), "{method}");
            assert_eq!(answer.text().is_empty(), method == "HEAD");
        }
    }
    assert!(site.upstream.take().is_empty());
}

/// What the first call allowed has lost its token when the second one looks.
#[test]
fn a_second_call_in_the_same_block_is_refused() {
    let server = r#"
        rewrite_by_lua_block {
            local enforce = require("tenantauth").enforce
            enforce { backend = "loki" }
            enforce { backend = "loki" }
        }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / { proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().server(server).start();
    assert_denied(&site.send(query(&["group1"], "tenant1")), "internal_error");
    assert!(site.upstream.take().is_empty());
    // A denial ends the request in the first call.
    assert_denied(&site.send(query(&["group1"], "tenant2")), "tenant_forbidden");
    let records = site.audit(2);
    let told: Vec<_> = records.iter().map(|record| (&record["decision"], &record["status"])).collect();
    assert_eq!(told, [(&"allow".into(), &503.into()), (&"deny".into(), &403.into())]);
    let metrics = site.metrics();
    for decision in ["allow\",reason=\"granted", "deny\",reason=\"tenant_forbidden"] {
        let line = format!(
            "tenantauth_decisions_total{{decision=\"{decision}\",backend=\"loki\",scope=\"logs:read\"}} 1\n"
        );
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("token_missing"), "{metrics}");
    site.expect_errors();
}
