//! What an attacker tries on the ways from a decision to an answer: caches, copies that nginx made before, fallbacks, and
//! the connection's other requests.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::Request;
use crate::support::site::{POLICY, Site};
use crate::support::tokens::token;

/// The tenants are a client's choice, and so is the end of the path in front of them.
#[test]
fn no_other_request_has_the_cache_key_of_the_documents() {
    let page = std::fs::read_to_string(crate::support::repository("docs/security.md")).unwrap();
    let key = page.split("`proxy_cache_key ").nth(1).and_then(|rest| rest.split('`').next());
    let key = key.expect("the key, on one line of the page");
    let server = format!(
        r#"
        rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        location / {{
            proxy_cache answers;
            proxy_cache_valid 200 1m;
            proxy_cache_key {key}
            proxy_pass http://@UPSTREAM@;
        }}
        "#
    );
    let groups = "authorizations:\n  second: [tenant2]\n  short: [\"1\", ant1]\n";
    let policy = POLICY.replace("authorizations:\n", groups);
    let cache = "proxy_cache_path @DIR@/cache keys_zone=answers:1m;";
    let site = Site::builder().policy(&policy).http(cache).server(&server).start();
    let path = "/loki/api/v1/query?query=x";
    for (tenants, group, own, added) in [
        ("tenant1|tenant2", "second", "tenant2", "tenant1|"),
        ("tenant1", "short", "1", "tenant"),
        ("tenant1", "short", "ant1", "ten"),
    ] {
        assert_denied(&site.send(query(&[group], tenants)), "tenant_forbidden");
        assert_allowed(&site.send(Request::get(path).tenant(tenants).token(&token(&["group3"]))));
        site.upstream.take();
        let other = Request::get(format!("{path}{added}")).tenant(own).token(&token(&[group]));
        let answer = site.send(other);
        assert_allowed(&answer);
        let seen = site.upstream.take();
        assert_eq!(seen.len(), 1, "{own} gets what was answered to {tenants}: {answer:?}");
        assert_eq!(seen[0].values("X-Scope-OrgID"), [own]);
    }
}

/// nginx evaluates `$http_x_scope_orgid` once: what did so before `enforce` must not decide what
/// `$tenantauth_tenants` says, which names a cache's entries.
#[test]
fn no_earlier_copy_of_the_tenant_header_becomes_the_tenants() {
    let copies = [
        ("rewrite", "if ($http_x_scope_orgid = \"\") { return 401; }"),
        ("rewrite", "set $copy $http_x_scope_orgid;"),
        ("access", "limit_req zone=tenants burst=1000 nodelay;"),
    ];
    let mut wrong = Vec::new();
    for (phase, copy) in copies {
        let server = format!(
            r#"
            underscores_in_headers on;
            {copy}
            {phase}_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
            location / {{
                proxy_set_header X-Seen-Tenants $tenantauth_tenants;
                proxy_set_header X-Seen-Header $http_x_scope_orgid;
                proxy_pass http://@UPSTREAM@;
            }}
            "#
        );
        let zone = "limit_req_zone $http_x_scope_orgid zone=tenants:1m rate=1000r/s;";
        let site = Site::builder().http(zone).server(&server).start();
        for before in [None, Some("X_Scope_OrgID"), Some("X-Scope_OrgID")] {
            let mut request = Request::get("/loki/api/v1/query");
            if let Some(name) = before {
                request = request.header(name, "tenant2");
            }
            site.send(request.tenant("tenant1|tenant1").token(&token(&["group1"])));
            // Denied is well.
            for seen in site.upstream.take() {
                assert_eq!(seen.values("X-Scope-OrgID"), ["tenant1"], "{}", seen.head);
                let (tenants, header) = (seen.values("X-Seen-Tenants"), seen.values("X-Seen-Header"));
                // The header may be there as it was written, which means the same.
                if tenants != ["tenant1"] || header.iter().any(|header| header.contains("tenant2")) {
                    wrong.push(format!("{copy} {before:?}: {tenants:?} {header:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What two backends know is recorded as of `any`, which is not every one.
#[test]
fn what_two_backends_know_does_not_pass_to_a_third() {
    for (decided, again, passes) in [
        ("backend = { \"mimir\", \"loki\" }", "tempo", false),
        ("backend = { \"mimir\", \"loki\" }", "pyroscope", false),
        ("", "tempo", false),
        ("backend = { \"mimir\", \"loki\" }", "loki", true),
        ("", "mimir", true),
    ] {
        let server = format!(
            r#"
            error_page 502 = @standby; proxy_intercept_errors on;
            location / {{
                rewrite_by_lua_block {{ require("tenantauth").enforce {{ {decided} }} }}
                proxy_pass http://@UPSTREAM@;
            }}
            location @standby {{
                rewrite_by_lua_block {{ require("tenantauth").enforce {{ again = true, backend = "{again}" }} }}
                proxy_pass http://@UPSTREAM:standby@;
                proxy_set_header X-Echo-Status "";
            }}
            "#
        );
        let site = Site::builder().server(&server).start();
        site.expect_errors();
        let request = Request::get("/prometheus/api/v1/rules").tenant("tenant1").token(&token(&["group1"]));
        let answer = site.send(request.header("X-Echo-Status", "502"));
        let seen = site.upstream_of("standby").take().len();
        assert_eq!(seen, usize::from(passes), "{{ {decided} }} -> {again}: {answer:?}");
        if !passes {
            assert_denied(&answer, "internal_error");
        }
    }
}
