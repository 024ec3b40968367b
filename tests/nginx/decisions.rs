//! Who may do what on which tenant, and what those who may not are told.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::Request;
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::tokens::token;
use serde_json::{Value, json};

const READ: (&str, &str) = ("GET", "/loki/api/v1/query");
const WRITE: (&str, &str) = ("POST", "/loki/api/v1/push");
const DELETE: (&str, &str) = ("POST", "/loki/api/v1/delete?query=x");
const RULES: (&str, &str) = ("POST", "/loki/api/v1/rules/space");

#[test]
fn groups_scopes_and_tenants_decide() {
    let site = Site::start();
    let cases = [
        (["group1"].as_slice(), "tenant1", READ, "granted"),
        (&["group1"], "tenant2", READ, "tenant_forbidden"),
        (&["group1"], "tenant1|tenant2", READ, "tenant_forbidden"),
        (&["group1"], "tenant1", WRITE, "scope_forbidden"),
        (&["group1"], "tenant1", DELETE, "scope_forbidden"),
        (&["group1"], "tenant1", RULES, "scope_forbidden"),
        (&["group1"], "Tenant1", READ, "tenant_forbidden"),
        (&["Group1"], "tenant1", READ, "tenant_forbidden"),
        (&["group1 "], "tenant1", READ, "tenant_forbidden"),
        (&[], "tenant1", READ, "tenant_forbidden"),
        (&["*"], "tenant1", READ, "tenant_forbidden"),
        (&["x", "group1", "y"], "tenant1", READ, "granted"),
        (&["group3"], "tenant1|tenant2", READ, "granted"),
        (&["group3"], "tenant2", READ, "granted"),
        (&["group1"], "*", READ, "tenant_forbidden"),
        (&["team-a"], "team-a", WRITE, "granted"),
        (&["team-a"], "team-a-dev", WRITE, "granted"),
        (&["team-a"], "team-a-", READ, "granted"),
        (&["team-a"], "team-ab", READ, "tenant_forbidden"),
        (&["team-a"], "team-a-hr", READ, "tenant_forbidden"),
        (&["team-a"], "team-a|team-a-dev", READ, "granted"),
        (&["team-a"], "team-a|team-a-hr", READ, "tenant_forbidden"),
        (&["team-a"], "team-a", RULES, "granted"),
        (&["team-a"], "team-a", DELETE, "scope_forbidden"),
        (&["team-a", "group1"], "team-a|tenant1", READ, "granted"),
        (&["cleaners"], "tenant1", DELETE, "granted"),
        (&["cleaners"], "tenant1", READ, "scope_forbidden"),
        (&["visitors"], "tenant1", READ, "tenant_forbidden"),
        (&["visitors", "group1"], "tenant1", READ, "granted"),
        // Writes, rules and deletes take one tenant.
        (&["team-a"], "team-a|team-a-dev", WRITE, "tenant_malformed"),
        (&["team-a"], "team-a|team-a-dev", RULES, "tenant_malformed"),
        (&["cleaners"], "tenant1|tenant2", DELETE, "tenant_malformed"),
        (&["cleaners"], "tenant1|tenant1", ("GET", "/loki/api/v1/delete"), "granted"),
        // The tenant is judged before what is done with it.
        (&["group1"], "team-a", WRITE, "tenant_forbidden"),
        (&["group1"], "tenant1", ("GET", "/loki/api/v1/nothing"), "route_unknown"),
        (&["group1"], "tenant1", ("GET", "/loki/api/v1/push"), "route_unknown"),
        (&["group1"], "tenant1", ("PATCH", "/loki/api/v1/query"), "route_unknown"),
        (&["sre"], "tenant1", ("GET", "/ready"), "route_unknown"),
        (&["sre"], "tenant1", ("GET", "/metrics"), "route_unknown"),
        (&["sre"], "tenant1", ("POST", "/flush"), "route_unknown"),
        (&["sre"], "tenant1", ("GET", "/ui/api/v1/proxy/node/config"), "route_unknown"),
        // Another backend's path.
        (&["group1"], "tenant1", ("GET", "/prometheus/api/v1/query"), "route_unknown"),
    ];
    for (groups, tenant, (method, path), expected) in cases {
        let request = Request::new(method, path).tenant(tenant).token(&token(groups));
        let answer = site.send(if method == "POST" { request.body("{}") } else { request });
        println!("{groups:?} {tenant} {method} {path}: {} {}", answer.status, answer.reason());
        if expected == "granted" {
            assert_allowed(&answer);
            assert_eq!(site.upstream.only().target(), path);
        } else {
            assert_denied(&answer, expected);
            assert!(site.upstream.take().is_empty());
        }
    }
}

#[test]
fn tenants_follow_the_backends_grammar() {
    let site = Site::start();
    let long = "t".repeat(151);
    let many = ["tenant1"; 101].join("|");
    let bad = [
        "tenant1|",
        "|tenant1",
        "tenant1||tenant2",
        ".",
        "..",
        "tenant1|..",
        "__mimir_cluster",
        "a:b",
        "a/b",
        "a b",
        "a,b",
        "tenant1, tenant2",
        "a%7Cb",
        "tenant1\u{e4}",
        "a\"b",
        "a\\b",
        &long,
        &many,
    ];
    for tenant in bad {
        println!("{tenant}");
        assert_denied(&site.send(query(&["group1"], tenant)), "tenant_malformed");
    }
    let longest = "t".repeat(150);
    for tenant in ["a!-_.*'()Z9", longest.as_str(), "a.b", "...", "a..b"] {
        println!("{tenant}");
        assert_denied(&site.send(query(&["group1"], tenant)), "tenant_forbidden");
    }
    assert_denied(&site.send(Request::get(READ.1).token(&token(&["group1"]))), "tenant_missing");
    assert_denied(&site.send(query(&["group1"], "")), "tenant_missing");
    assert!(site.upstream.take().is_empty());
}

#[test]
fn the_backend_receives_the_canonical_tenants() {
    let site = Site::start();
    for (sent, received) in [
        ("tenant2|tenant1|tenant2", "tenant1|tenant2"),
        ("tenant1|tenant1", "tenant1"),
        ("tenant1", "tenant1"),
    ] {
        assert_allowed(&site.send(query(&["group3"], sent)));
        assert_eq!(site.upstream.only().values("X-Scope-OrgID"), [received]);
    }
    let hundred: Vec<String> = (0..100).map(|number| format!("team-a-{number:02}")).collect();
    assert_allowed(&site.send(query(&["team-a"], &hundred.join("|"))));
    assert_eq!(site.upstream.only().values("X-Scope-OrgID"), [hundred.join("|")]);
}

#[test]
fn the_first_failing_check_gives_the_reason() {
    let site = Site::start();
    let twice = |request: Request| request.tenant("tenant1").tenant("tenant1");
    let checks = [
        ("tenant_duplicate", twice(Request::get("/nothing"))),
        ("token_duplicate", Request::get("/nothing").tenant("..").token("x").token("y")),
        ("route_unknown", Request::get("/nothing").tenant("..")),
        ("tenant_malformed", Request::get(READ.1).tenant("..").token("x")),
        ("tenant_malformed", Request::new("POST", WRITE.1).tenant("a|b")),
        ("tenant_missing", Request::get(READ.1)),
        ("token_missing", Request::get(READ.1).tenant("nobodys")),
        ("token_malformed", Request::get(READ.1).tenant("nobodys").token("x")),
    ];
    for (reason, request) in checks {
        assert_denied(&site.send(request), reason);
    }
}

#[test]
fn denials_say_why_in_the_form_that_the_caller_reads() {
    let http = r#"server {
        listen 127.0.0.1:@PORT:mimir@;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir" } }
        location / { proxy_pass http://@UPSTREAM@; }
    }
    server {
        listen 127.0.0.1:@PORT:any@;
        rewrite_by_lua_block { require("tenantauth").enforce() }
        location / { proxy_pass http://@UPSTREAM@; }
    }"#;
    let site = Site::builder().http(http).start();
    let json = |port: &str, path: &str| {
        let answer = Request::get(path).tenant("tenant2").token(&token(&["group1"])).send(site.port(port));
        assert_denied(&answer, "tenant_forbidden");
        answer.header("Content-Type").expect("a content type").starts_with("application/json")
    };
    assert!(json("mimir", "/prometheus/api/v1/query?query=up"));
    assert!(json("mimir", "/alertmanager/api/v2/alerts"));
    assert!(json("", "/prometheus/api/v1/rules"));
    assert!(json("any", "/prometheus/api/v1/query"));
    assert!(json("any", "/api/v1/user_stats"));
    assert!(!json("", "/loki/api/v1/query"));
    assert!(!json("any", "/api/search"));

    // The id is nginx's, whatever the client calls its request; it is new for each one.
    let ask = || site.send(query(&["group1"], "tenant2").header("X-Request-Id", "mine"));
    let (one, two) = (ask(), ask());
    assert_ne!(one.header("X-Request-Id"), two.header("X-Request-Id"));
    // Nothing of token, policy or an ungrammatical tenant is repeated to the client.
    let answer = site.send(query(&["group1"], "<script>"));
    assert!(!answer.text().contains("script") && !answer.text().contains("group1"), "{}", answer.text());
}

#[test]
fn bodies_pass_unread_and_connections_stay_open() {
    use crate::support::client::Client;

    let site = Site::start();
    let mut client = Client::connect(site.port(""));
    let large = "x".repeat(300_000);
    for round in 0..3 {
        // A denial must not leave the body of a refused request to be read as the next request.
        client.send(
            &Request::new("POST", WRITE.1)
                .tenant("team-a-hr")
                .token(&token(&["team-a"]))
                .body(&large)
                .bytes(),
        );
        assert_denied(&client.answer(), "tenant_forbidden");
        client.send(
            &Request::new("POST", WRITE.1).tenant("team-a").token(&token(&["team-a"])).body(&large).bytes(),
        );
        assert_allowed(&client.answer());
        assert_eq!(site.upstream.only().body.len(), large.len(), "round {round}");
        client.send(&query(&["group1"], "tenant1").bytes());
        assert_allowed(&client.answer());
        site.upstream.take();
    }
}

/// Grafana shows people the body. What is in it of the request is the first tenant that was refused, and of the policy
/// the address that it names.
#[test]
fn a_denial_names_the_refused_tenant_and_the_help_of_the_policy() {
    const HELP: &str = "https://wiki.example.com/grafana?a=(b)&c='d'#e";
    let text = format!("{POLICY}{RESTRICTIONS}{SIGNED_COOKIE}");
    let http = r#"server {
        listen 127.0.0.1:@PORT:mimir@;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir" } }
        location / { proxy_pass http://@UPSTREAM@; }
    }"#;
    let ask = |site: &Site, groups: &[&str], tenant: &str| {
        let answer = site.send(query(groups, tenant).cookie(COOKIE_KEY.pair("198.18.0.5")));
        let reason = answer.reason().to_owned();
        (assert_denied(&answer, &reason), reason)
    };
    let with_help = format!("denials: {{ help: \"{HELP}\" }}\n{}", text.trim_start());
    for (policy, help) in [(&text, String::new()), (&with_help, format!("; help: {HELP}"))] {
        let site = Site::builder().policy(policy).http(http).start();
        for (groups, tenant, reason, sentence) in [
            (
                &["group3"][..],
                "zz|tenant1|aa|aa",
                "tenant_forbidden",
                "not allowed to access this tenant: `aa`",
            ),
            (&["group3"], "tenant1|zz", "tenant_forbidden", "not allowed to access this tenant: `zz`"),
            (&["group1"], "a'(b)!*", "tenant_forbidden", "not allowed to access this tenant: `a'(b)!*`"),
            (&["cleaners", "group3"], "tenant2|tenant1", "ip_forbidden", "ip not allowed: `tenant1`"),
            // Nothing that is no tenant comes back.
            (&["group1"], "a\"b", "tenant_malformed", "X-Scope-OrgID names no valid tenant for this request"),
            (&["group1"], "a|", "tenant_malformed", "X-Scope-OrgID names no valid tenant for this request"),
        ] {
            let expected = (format!("403 Forbidden: {sentence}{help}"), reason.to_owned());
            assert_eq!(ask(&site, groups, tenant), expected, "{tenant}");
        }
        // A scope is missing on the first that is granted otherwise.
        let push =
            Request::new("DELETE", "/loki/api/v1/rules/x").tenant("tenant1").token(&token(&["group1"]));
        let told = assert_denied(&site.send(push), "scope_forbidden");
        assert_eq!(told, format!("403 Forbidden: not allowed to do this on this tenant: `tenant1`{help}"));
        let nobody = Request::get("/loki/api/v1/query").tenant("tenant1");
        let told = assert_denied(&site.send(nobody), "token_missing");
        assert_eq!(told, format!("403 Forbidden: cannot find JWT token{help}"));
        // In Prometheus' JSON, which holds it as it is.
        let path = "/prometheus/api/v1/query";
        let answer = Request::get(path).tenant("other").token(&token(&["group1"])).send(site.port("mimir"));
        assert_eq!(
            assert_denied(&answer, "tenant_forbidden"),
            format!("403 Forbidden: not allowed to access this tenant: `other`{help}")
        );
        let head = Request::new("HEAD", path).tenant("other").token(&token(&["group1"]));
        assert_eq!(head.send(site.port("mimir")).status, 403);

        let records = site.audit(8);
        let denied: Vec<&Value> = records.iter().map(|record| &record["denied_tenant"]).collect();
        assert_eq!(
            denied,
            [
                &json!("aa"),
                &json!("zz"),
                &json!("a'(b)!*"),
                &json!("tenant1"),
                &Value::Null,
                &Value::Null,
                &json!("tenant1"),
                &Value::Null
            ]
        );
        let good = query(&["group1"], "tenant1").cookie(COOKIE_KEY.pair("203.0.113.5"));
        assert_allowed(&site.send(good));
        assert_eq!(site.audit(9)[8]["denied_tenant"], Value::Null);
    }
}
