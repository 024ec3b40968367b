//! A real Prometheus behind the gateway: queries come back whole, and a denial reads as Prometheus' own error.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::client::Request;
use crate::support::prometheus::Prometheus;
use crate::support::site::Site;
use crate::support::tokens::token;

#[test]
fn queries_reach_prometheus_and_denials_read_like_its_errors() {
    let site = Site::prepare(true);
    site.write_policy(crate::support::site::POLICY);
    let prometheus = Prometheus::start(&site.workspace);
    let configuration = format!(
        "worker_processes 1; error_log @DIR@/error.log info; pid @DIR@/nginx.pid; events {{}}\nhttp {{ {} access_log off;
         {}\nserver {{ listen 127.0.0.1:@PORT@;
         rewrite_by_lua_block {{ require(\"tenantauth\").enforce {{ backend = \"mimir\" }} }}
         location / {{ proxy_pass http://127.0.0.1:{}; }} }} }}",
        crate::support::site::TEMPORARY,
        crate::support::site::MODULE,
        prometheus.port
    );
    let site = site.run(&configuration, 1);
    let as_user = |request: Request, tenant: &str| request.tenant(tenant).token(&token(&["group1"]));

    let answer = site.send(as_user(Request::get("/prometheus/api/v1/query?query=up"), "tenant1"));
    assert_allowed(&answer);
    let json = answer.json();
    assert_eq!((&json["status"], &json["data"]["resultType"]), (&"success".into(), &"vector".into()));
    assert_eq!(json["data"]["result"][0]["metric"]["job"], "prometheus");

    let form = Request::new("POST", "/prometheus/api/v1/query")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("query=sum(up)");
    let answer = site.send(as_user(form, "tenant1"));
    assert_allowed(&answer);
    assert_eq!(answer.json()["data"]["result"][0]["value"][1], "1");

    for path in
        ["/prometheus/api/v1/labels", "/prometheus/api/v1/label/__name__/values", "/prometheus/api/v1/rules"]
    {
        let answer = site.send(as_user(Request::get(path), "tenant1"));
        assert_allowed(&answer);
        assert_eq!(answer.json()["status"], "success");
    }

    let denied = site.send(as_user(Request::get("/prometheus/api/v1/query?query=up"), "tenant2"));
    assert_denied(&denied, "tenant_forbidden");
    let json = denied.json();
    assert_eq!((&json["status"], &json["errorType"]), (&"error".into(), &"forbidden".into()));
    for path in ["/prometheus/-/quit", "/prometheus/metrics", "/prometheus/api/v1/admin/tsdb/snapshot"] {
        assert_denied(&site.send(as_user(Request::new("POST", path), "tenant1")), "route_unknown");
    }
}

/// The form follows the path that the client asked for, of which a prefix is removed as a whole segment.
#[test]
fn the_form_of_an_error_follows_the_path() {
    let site = Site::builder()
        .server(
            r#"rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki", path_prefix = "/prom" } }
            location / { proxy_pass http://@UPSTREAM@; }"#,
        )
        .start();
    for (path, json) in [
        ("/prometheus/api/v1/query", true),
        ("/prom/prometheus/api/v1/query", true),
        ("/prom/api/v1/rules", true),
        ("/prom/loki/api/v1/nothing", false),
    ] {
        let answer = site.send(Request::get(path).tenant("tenant1"));
        let kind = answer.header("Content-Type").unwrap_or_default().starts_with("application/json");
        assert_eq!((answer.status, kind), (403, json), "{path}: {answer:?}");
    }
}
