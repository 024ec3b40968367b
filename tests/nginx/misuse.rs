//! Wrong use of the interface is told to the administrator by name, and lets nobody in.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::site::{MODULE, Site};

#[test]
fn enforce_names_the_option_that_is_wrong() {
    // One server a case, all in one nginx: a port each.
    let cases = [
        ("{ bogus = 1 }", "bogus"),
        ("{ backend = 1 }", "backend"),
        ("{ backend = \"cortex\" }", "backend"),
        ("{ backend = {} }", "backend"),
        ("{ backend = { \"loki\", 2 } }", "backend"),
        ("{ backend = \"loki\", path_prefix = \"pre\" }", "path_prefix"),
        ("{ backend = \"loki\", path_prefix = true }", "path_prefix"),
        ("{ backend = \"loki\", client_ip = \"x_forwarded_for\" }", "client_ip"),
        ("{ backend = \"loki\", client_ip = false }", "client_ip"),
        ("{ backend = \"loki\", forward_headers = \"Authorization\" }", "forward_headers"),
        ("{ backend = \"loki\", forward_headers = { 1 } }", "forward_headers"),
        ("{ backend = \"loki\", forward_headers = { \"X-Foo,Authorization\" } }", "forward_headers"),
        ("(\"loki\")", "table"),
    ];
    let server = |(number, (options, _)): (usize, &(&str, &str))| {
        format!(
            "server {{ listen 127.0.0.1:@PORT:{number}@;
             rewrite_by_lua_block {{ require(\"tenantauth\").enforce{options} }}
             location / {{ proxy_pass http://@UPSTREAM@; }} }}\n"
        )
    };
    let http: String = cases.iter().enumerate().map(server).collect();
    let site = Site::builder().http(&http).start();
    site.expect_errors();
    for (number, (options, name)) in cases.iter().enumerate() {
        let before = site.log().len();
        for _ in 0..2 {
            let answer = query(&["group1"], "tenant1").send(site.port(&number.to_string()));
            assert_eq!(answer.status, 500, "{options}: {answer:?}");
        }
        let log = site.log().split_off(before);
        assert!(log.contains("[error]") && log.contains(name), "{options} should name {name}:\n{log}");
        // It begins with the line of the block, not with one of ours.
        assert_eq!(log.matches("):1: tenantauth.enforce: ").count(), 2, "{options}:\n{log}");
    }
    assert!(site.upstream.take().is_empty());
    // The right server beside them is not disturbed.
    assert_allowed(&site.send(query(&["group1"], "tenant1")));
}

#[test]
fn init_worker_names_the_option_that_is_wrong() {
    for (options, name) in [
        (r#"policy = "@DIR@/policy.yaml", bogus = 1"#, "bogus"),
        (r#"policy = 1"#, "option `policy` must be a string"),
        (r#"policy = "@DIR@/policy.yaml", state_dir = 1"#, "option `state_dir` must be a string"),
        (r#"policy = "@DIR@/policy.yaml", shared_dict = true"#, "shared_dict"),
        (r#"policy = "@DIR@/policy.yaml", reload_interval = "2""#, "reload_interval"),
        (r#"policy = "@DIR@/policy.yaml", reload_interval = 0"#, "reload_interval"),
    ] {
        let module = MODULE.replace(r#"policy = "@DIR@/policy.yaml""#, options);
        // The default policy of the drop-in is there and good: it must not take the place of the one meant.
        let site = Site::builder().main("env TENANTAUTH_POLICY;").module(&module).start();
        site.expect_errors();
        let log = site.wait_for_log(name);
        assert!(log.contains("[error]"), "{options}:\n{log}");
        // Where in the configuration it stands; ngx_http_lua_module 0.10.21 knows only the directive.
        let told = |line: &str| {
            let place = line.split_once(":1: tenantauth.init_worker: ").map(|(place, _)| place);
            place.is_some_and(|place| {
                place.contains("init_worker_by_lua(nginx.conf:") || place.ends_with("init_worker_by_lua")
            })
        };
        assert!(log.lines().any(told), "{options}:\n{log}");
        assert_denied(&site.send(query(&["group1"], "tenant1")), "policy_unavailable");
        assert!(site.upstream.take().is_empty(), "{options}");
    }
}

#[test]
fn functions_in_the_wrong_phase_are_errors() {
    let http = r#"server {
        listen 127.0.0.1:@PORT:content@;
        location / { content_by_lua_block { require("tenantauth").enforce { backend = "loki" } } }
    }"#;
    let site = Site::builder().http(http).start();
    site.expect_errors();
    let answer = query(&["group1"], "tenant1").send(site.port("content"));
    assert_eq!(answer.status, 500, "{answer:?}");
    site.wait_for_log(":1: tenantauth.enforce: must be called in the rewrite or access phase");
}

#[test]
fn the_version_is_the_crates() {
    let http = r#"server {
        listen 127.0.0.1:@PORT:version@;
        location / { content_by_lua_block { ngx.print(require("tenantauth").version) } }
    }"#;
    let site = Site::builder().http(http).start();
    let answer = crate::support::client::Request::get("/").send(site.port("version"));
    assert_eq!(answer.text(), env!("CARGO_PKG_VERSION"));
}
