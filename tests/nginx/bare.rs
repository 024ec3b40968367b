//! Parts of the set-up that are missing: decisions stay, one warning says what is lost.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::Request;
use crate::support::site::{MODULE, Site};

const SERVER: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
location / { proxy_pass http://@UPSTREAM@; }
"#;

/// The module's lines without those that hold a word.
fn without(word: &str) -> String {
    MODULE.lines().filter(|line| !line.contains(word)).collect::<Vec<_>>().join("\n")
}

fn warnings(site: &Site, word: &str) -> usize {
    site.log().lines().filter(|line| line.contains("[warn]") && line.contains(word)).count()
}

#[test]
fn without_http_conf_requests_are_decided_and_no_audit_is_written() {
    let site = Site::builder().module(&without("http.conf")).server(SERVER).start();
    for _ in 0..5 {
        assert_allowed(&site.send(query(&["group1"], "tenant1")));
        assert_denied(&site.send(query(&["group1"], "tenant2")), "tenant_forbidden");
    }
    assert_eq!(warnings(&site, "http.conf"), 1, "{}", site.log());
    assert_eq!(Request::get("/metrics").send(site.port("admin")).status, 200);
    // A redirect inside nginx finds no trace of the first decision: still nothing passes that was not decided.
    assert_eq!(site.upstream.take().len(), 5);
}

#[test]
fn without_http_conf_an_internal_redirect_is_denied_too() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        location / { proxy_pass http://@UPSTREAM@; }
        location = /loki/api/v1/series { try_files /nowhere /loki/api/v1/labels; }
    "#;
    let site = Site::builder().module(&without("http.conf")).server(server).start();
    site.expect_errors();
    let request = Request::get("/loki/api/v1/series").tenant("tenant1");
    let answer = site.send(request.token(&crate::support::tokens::token(&["group1"])));
    assert!([403, 503].contains(&answer.status), "{answer:?}");
    assert!(site.upstream.take().is_empty());
}

#[test]
fn without_the_shared_dict_each_worker_counts_for_itself() {
    let site = Site::builder().module(&without("lua_shared_dict")).start();
    for _ in 0..5 {
        assert_allowed(&site.send(query(&["group1"], "tenant1")));
        assert_denied(&site.send(query(&["group1"], "tenant2")), "tenant_forbidden");
    }
    assert_eq!(warnings(&site, "shared dict"), 1, "{}", site.log());
    assert!(site.metrics().contains("tenantauth_decisions_total{"));
    assert_eq!(site.status().status, 200);
}

#[test]
fn another_name_for_the_shared_dict() {
    let module = MODULE
        .replace("lua_shared_dict tenantauth", "lua_shared_dict another")
        .replace("policy =", "shared_dict = \"another\", policy =");
    let site = Site::builder().module(&module).start();
    assert_allowed(&site.send(query(&["group1"], "tenant1")));
    assert_eq!(warnings(&site, "shared dict"), 0, "{}", site.log());
}
