//! Wrong use of the interface is told to the administrator by name, and lets nobody in.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::Request;
use crate::support::site::{MODULE, POLICY, Site};

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
        ("{ backend = \"loki\", forward_headers = { \"X-Tenantauth-Subject\" } }", "forward_headers"),
        ("(\"loki\")", "table"),
        ("{ again = false }", "again"),
        ("{ again = 1 }", "again"),
        ("{ again = true, path_prefix = \"/pre\" }", "again"),
    ];
    let server = |(number, (options, _)): (usize, &(&str, &str))| {
        format!(
            "server {{ listen 127.0.0.1:@PORT:{number}@;
             rewrite_by_lua_block {{ require(\"tenantauth\").enforce{options} }}
             error_page 500 503 @fallback;
             location / {{ proxy_pass http://@UPSTREAM@; }}
             location @fallback {{ rewrite_by_lua_block {{ }} proxy_pass http://@UPSTREAM@; }} }}\n"
        )
    };
    let http: String = cases.iter().enumerate().map(server).collect();
    let site = Site::builder().http(&http).start();
    site.expect_errors();
    for (number, (options, name)) in cases.iter().enumerate() {
        let before = site.log().len();
        for _ in 0..2 {
            let answer = query(&["group1"], "tenant1").send(site.port(&number.to_string()));
            assert_denied(&answer, "internal_error");
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
        // The status page says why, and no worker has been up since 1970.
        let answer = site.status();
        let status: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!((answer.status, &status["serving"]), (503, &false.into()), "{status}");
        let problems = status["problems"].as_array().unwrap();
        assert!(problems.iter().any(|problem| problem.as_str().unwrap().contains(name)), "{status}");
        for worker in status["workers"].as_array().unwrap() {
            assert!(worker["uptime_seconds"].is_null(), "{status}");
        }
    }
}

#[test]
fn functions_in_the_wrong_phase_are_errors() {
    let http = r#"server {
        listen 127.0.0.1:@PORT:content@;
        error_page 500 503 @fallback;
        location / { content_by_lua_block { require("tenantauth").enforce { backend = "loki" } } }
        location /stamp { content_by_lua_block { require("tenantauth").stamp_client_ip { unsigned = true } } }
        location /log {
            log_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            root @DIR@;
        }
        location @fallback { rewrite_by_lua_block { } proxy_pass http://@UPSTREAM@; }
    }"#;
    let site = Site::builder().http(http).start();
    site.expect_errors();
    assert_denied(&query(&["group1"], "tenant1").send(site.port("content")), "internal_error");
    site.wait_for_log(
        "):1: tenantauth.enforce: must be called in the rewrite or access phase, not in content",
    );
    assert_denied(&Request::get("/stamp").send(site.port("content")), "internal_error");
    site.wait_for_log("):1: tenantauth.stamp_client_ip: must be called in the rewrite phase, not in content");
    // Nothing can be answered any more: the error is nginx's to tell.
    assert_eq!(Request::get("/log").send(site.port("content")).status, 404);
    site.wait_for_log("must be called in the rewrite or access phase, not in log");
    assert!(site.upstream.take().is_empty());
}

#[test]
fn no_error_page_replaces_a_mistake_of_stamp_client_ip() {
    let cases = [("{ bogus = 1 }", "bogus"), ("(\"keys\")", "table")];
    let server = |(number, (options, _)): (usize, &(&str, &str))| {
        format!(
            "server {{ listen 127.0.0.1:@PORT:{number}@;
             rewrite_by_lua_block {{ require(\"tenantauth\").stamp_client_ip{options} }}
             error_page 500 503 @fallback;
             location / {{ proxy_pass http://@UPSTREAM@; }}
             location @fallback {{ rewrite_by_lua_block {{ }} proxy_pass http://@UPSTREAM@; }} }}\n"
        )
    };
    let http: String = cases.iter().enumerate().map(server).collect();
    let site = Site::builder().http(&http).start();
    site.expect_errors();
    for (number, (options, name)) in cases.iter().enumerate() {
        let before = site.log().len();
        let answer = Request::get("/").cookie("Client_Ip=192.0.2.1").send(site.port(&number.to_string()));
        assert_denied(&answer, "internal_error");
        let log = site.log().split_off(before);
        assert!(log.contains("[error]") && log.contains(name), "{options} should name {name}:\n{log}");
        assert_eq!(log.matches("):1: tenantauth.stamp_client_ip: ").count(), 1, "{options}:\n{log}");
    }
    assert!(site.upstream.take().is_empty());
}

/// What a policy of shadow mode promises holds for a mistake too: nothing is changed, everything is told.
#[test]
fn a_mistake_in_shadow_mode_is_logged_and_the_request_goes_on() {
    let until = jiff::Timestamp::from_second(crate::support::now() + 3600).unwrap();
    let policy =
        POLICY.replace("version: 1\n", &format!("version: 1\nmode: shadow\nshadow_until: {until}\n"));
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki", bogus = 1 } }
        location / { proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().policy(&policy).server(server).start();
    site.expect_errors();
    assert_allowed(&site.send(query(&["group1"], "tenant1")));
    assert!(site.upstream.only().has("X-Id-Token"));
    site.wait_for_log("unknown option `bogus`");
}

#[test]
fn the_version_is_the_crates() {
    let http = r#"server {
        listen 127.0.0.1:@PORT:version@;
        location / { content_by_lua_block { ngx.print(require("tenantauth").version) } }
    }"#;
    let site = Site::builder().http(http).start();
    let answer = Request::get("/").send(site.port("version"));
    assert_eq!(answer.text(), env!("CARGO_PKG_VERSION"));
}
