//! nginx's cache behind `enforce`: the key that the security page gives keeps tenants apart, and nginx's own does not.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::site::Site;

/// A site that caches under `key`, or under nginx's own where that is empty.
fn caching(key: &str) -> Site {
    let server = format!(
        r#"
        rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        location / {{
            proxy_cache answers;
            proxy_cache_valid 200 1m;
            {key}
            proxy_pass http://@UPSTREAM@;
        }}
        "#
    );
    Site::builder().http("proxy_cache_path @DIR@/cache keys_zone=answers:1m;").server(&server).start()
}

#[test]
fn a_cache_keeps_tenants_apart_by_the_key_of_the_documents() {
    let page = std::fs::read_to_string(crate::support::repository("docs/security.md")).unwrap();
    let key = page.split("`proxy_cache_key ").nth(1).and_then(|rest| rest.split('`').next());
    let key = key.expect("the key, on one line of the page");
    let site = caching(&format!("proxy_cache_key {key}"));
    for (group, tenant, reaches_backend) in [
        ("group3", "tenant1", 1),
        ("group3", "tenant1", 0),
        ("group3", "tenant2", 1),
        ("group1", "tenant1", 0),
    ] {
        assert_allowed(&site.send(query(&[group], tenant)));
        assert_eq!(site.upstream.take().len(), reaches_backend, "{group} {tenant}");
    }
    // However the tenants are written, and only for who may read them.
    for (tenants, reaches_backend) in [("tenant1|tenant2", 1), ("tenant2|tenant1", 0)] {
        assert_allowed(&site.send(query(&["group3"], tenants)));
        assert_eq!(site.upstream.take().len(), reaches_backend, "{tenants}");
    }
    assert_denied(&site.send(query(&["group1"], "tenant2")), "tenant_forbidden");
    assert!(site.upstream.take().is_empty());

    // What the page warns of: without the key one tenant gets the other's answer.
    let site = caching("");
    assert_allowed(&site.send(query(&["group3"], "tenant1")));
    assert_allowed(&site.send(query(&["group3"], "tenant2")));
    assert_eq!(site.upstream.take().len(), 1);
}
