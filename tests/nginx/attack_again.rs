//! What an attacker tries on the ways from a decision to an answer: caches, copies that nginx made before, fallbacks,
//! and the connection's other requests.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Client, Request};
use crate::support::site::{LOKI, MODULE, POLICY, Site};
use crate::support::tokens::{basic, service_token, sha256, token};
use crate::support::upstream::Seen;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

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
    let settings = ["underscores_in_headers on;", "ignore_invalid_headers off;"];
    for ((phase, copy), setting) in
        copies.into_iter().flat_map(|copy| settings.map(|setting| (copy, setting)))
    {
        let server = format!(
            r#"
            {setting}
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
                    wrong.push(format!("{setting} {copy} {before:?}: {tenants:?} {header:?}"));
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

/// A fallback that sends on what is below the prefix changes no `$uri`: the path that `again` sees is known to nobody.
#[test]
fn what_is_below_a_prefix_passes_to_no_other_backend_either() {
    let server = r#"
        error_page 502 = @standby; proxy_intercept_errors on;
        location /pre/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir", path_prefix = "/pre" } }
            proxy_pass http://@UPSTREAM@/;
        }
        location @standby {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true } }
            proxy_pass http://@UPSTREAM:loki@$below;
            proxy_set_header X-Echo-Status "";
        }
    "#;
    let policy = POLICY.to_owned()
        + "  - { name: metrics, groups: [agents], tenants: [tenant1], scopes: [\"metrics:write\"] }\n";
    let map = "map $request_uri $below { ~^/pre(?<rest>/.*)$ $rest; }";
    let site = Site::builder().policy(&policy).http(map).server(server).start();
    site.expect_errors();
    let request = Request::new("POST", "/pre/api/prom/push").tenant("tenant1").token(&token(&["agents"]));
    let answer = site.send(request.header("X-Echo-Status", "502").body("{}"));
    let seen = site.upstream_of("loki").take();
    assert!(seen.is_empty(), "who may write no logs writes some:\n{}", seen[0].head);
    assert_denied(&answer, "internal_error");
}

/// Nor does a default tenant, or a token that was decided for one backend, reach what another one's fallback names.
#[test]
fn a_fallback_that_names_its_backend_takes_no_prefixed_path_of_another() {
    let server = r#"
        error_page 502 = @standby; proxy_intercept_errors on;
        location /pre/ {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir", path_prefix = "/pre" } }
            proxy_pass http://@UPSTREAM@/;
        }
        location @standby {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true, backend = "loki" } }
            proxy_pass http://@UPSTREAM:loki@$below;
            proxy_set_header X-Echo-Status "";
        }
    "#;
    let policy = POLICY.replace(
        "grants:\n",
        &format!(
            "service_accounts:\n  - {{ name: agent, tenant: tenant1, token_sha256: [{}] }}\ngrants:\n  - {{ name: a, \
             groups: [\"service:agent\"], tenants: [tenant1], scopes: [\"metrics:write\"] }}\n",
            sha256(&service_token('s'))
        ),
    );
    let map = "map $request_uri $below { ~^/pre(?<rest>/.*)$ $rest; }";
    let site = Site::builder().policy(&policy).http(map).server(server).start();
    site.expect_errors();
    for path in ["/pre/api/prom/push", "/pre/api/v1/push"] {
        let request =
            Request::new("POST", path).header("Authorization", format!("Bearer {}", service_token('s')));
        let answer = site.send(request.header("X-Echo-Status", "502").body("{}"));
        assert!(site.upstream_of("loki").take().is_empty(), "{path}: {answer:?}");
        assert_denied(&answer, "internal_error");
    }
}

/// A WebSocket was accepted for a tail, and for nothing else of its scope.
#[test]
fn an_accepted_upgrade_goes_to_no_other_route() {
    let server = r#"
        proxy_http_version 1.1;
        proxy_set_header Connection $http_connection;
        proxy_set_header Upgrade $http_upgrade;
        error_page 502 /loki/api/v1/labels;
        location / {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            proxy_pass http://127.0.0.1:1;
        }
        location = /loki/api/v1/labels {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true, backend = "loki" } }
            proxy_pass http://@UPSTREAM@;
        }
    "#;
    let site = Site::builder().server(server).start();
    site.expect_errors();
    let tail = Request::get("/loki/api/v1/tail?query=x").tenant("tenant1").token(&token(&["group1"]));
    let mut client = Client::connect(site.port(""));
    client.send(&tail.websocket().bytes());
    // Denied, or without the upgrade; a 101 has no end.
    thread::sleep(Duration::from_millis(300));
    for seen in site.upstream.take() {
        assert!(!seen.has("Upgrade"), "an upgrade to something else than a tail:\n{}", seen.head);
    }
}

/// A request as it went upstream: allowed by the model, of these tenants, without what is removed.
#[track_caller]
fn assert_is(seen: &Seen, expected: Option<&str>) {
    for header in ["X-Id-Token", "Authorization", "X-Loki-Forged", "HTTP2-Settings", "Upgrade"] {
        assert!(!seen.has(header), "{header} arrived:\n{}", seen.head);
    }
    assert_eq!(seen.values("X-Scope-OrgID"), [expected.unwrap_or("denied")], "{}", seen.head);
}

/// One connection, pipelined requests of different people, tenants and locations, half of which fall back.
#[test]
fn requests_of_one_connection_have_nothing_of_one_another() {
    let server = r#"
        access_log @DIR@/audit.jsonl tenantauth_audit;
        error_page 502 503 = @standby; error_page 418 /loki/api/v1/labels; error_page 420 /loki/api/v1/push;
        proxy_intercept_errors on; recursive_error_pages on; keepalive_requests 10000; proxy_http_version 1.1;
        proxy_set_header Connection $http_connection; proxy_set_header Upgrade $http_upgrade;
        location / { @LOKI } } proxy_pass http://@UPSTREAM@; }
        location /pre/ { @LOKI, path_prefix = "/pre", client_ip = "remote_addr" } } proxy_pass http://@UPSTREAM@/; }
        location /re/ { rewrite ^/re(/.*)$ $1 break; @LOKI, path_prefix = "/re" } } proxy_pass http://@UPSTREAM@; }
        location = /loki/api/v1/labels { @AGAIN }
        location = /loki/api/v1/push { @AGAIN }
        location @standby { @AGAIN }
    "#;
    let again = r#"rewrite_by_lua_block { require("tenantauth").enforce { again = true, backend = "loki" } }
        proxy_pass http://@UPSTREAM:standby@; proxy_set_header X-Echo-Status "";"#;
    let loki = r#"rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki""#;
    let service = service_token('s');
    let policy = POLICY.replace(
        "grants:\n",
        &format!(
            "service_accounts:\n  - {{ name: agent, token_sha256: [{}] }}\ngrants:\n  - {{ name: a, groups: \
             [\"service:agent\"], tenants: [tenant2], scopes: [\"logs:*\"] }}\n",
            sha256(&service)
        ),
    );
    let server = server.replace("@AGAIN", again).replace("@LOKI", loki);
    let site = Site::builder().policy(&policy).server(&server).start();
    site.expect_errors();
    let (one, both) = (token(&["group1"]), token(&["group3"]));
    let mut seed = 7_u32;
    let mut pick = |count: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(seed >> 9).expect("a usize") % count
    };
    let mut client = Client::connect(site.port(""));
    let mut expected: Vec<Option<String>> = Vec::new();
    for _ in 0..200 {
        let mut bytes = Vec::new();
        let first = expected.len();
        for number in first..first + 1 + pick(4) {
            let asked = ["tenant1", "tenant2", "tenant2|tenant1", "tenant1|tenant1", "team-a"][pick(5)];
            let (path, known) = [
                ("/loki/api/v1/query", true),
                ("/pre/loki/api/v1/query", true),
                ("/re/loki/api/v1/query", true),
                ("/ready", false),
                ("/loki/api/v1/labels", false),
            ][pick(5)];
            let status = ["200", "502", "503", "418", "420"][pick(5)];
            let request = Request::get(format!("{path}?n={number}")).tenant(asked);
            let request = request.header("X-Echo-Status", status).header("X-N", number.to_string());
            let bearer = format!("Bearer {service}");
            let (request, may): (_, &[&str]) = match pick(6) {
                0 => (request.token(&one), &["tenant1"]),
                1 => (request.token(&both), &["tenant1", "tenant2"]),
                2 => (request.header("Authorization", &bearer), &["tenant2"]),
                3 => (request.header("Authorization", basic("agent", &service)), &["tenant2"]),
                4 => (request.header("Authorization", &bearer).header("X-Grafana-User", "ada"), &[]),
                _ => (request.header("X-Loki-Forged", "1"), &[]),
            };
            let request = match pick(5) {
                0 => request.header("Connection", "X-Scope-OrgID, X-N"),
                1 => request.header("Connection", "keep-alive").header("Connection", "X-Id-Token"),
                2 => request.header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", "h2c"),
                3 => request.header("Upgrade", "websocket").header("Upgrade", "websocket"),
                _ => request,
            };
            let mut tenants: Vec<&str> = asked.split('|').collect();
            tenants.sort_unstable();
            tenants.dedup();
            let allowed = known && tenants.iter().all(|tenant| may.contains(tenant));
            expected.push(allowed.then(|| tenants.join("|")));
            bytes.extend(request.bytes());
        }
        client.send(&bytes);
        for _ in first..expected.len() {
            client.answer();
        }
    }
    let mut passed = site.upstream.take();
    passed.extend(site.upstream_of("standby").take());
    assert!(passed.len() > 100, "{}", passed.len());
    for seen in passed {
        let number: usize = seen.values("X-N")[0].parse().unwrap();
        assert_is(&seen, expected[number].as_deref());
    }
    let mut recorded = vec![false; expected.len()];
    for record in site.audit(expected.len()) {
        // What `again` refuses undecided has no query.
        let Some(query) = record["query"].as_str() else {
            assert_eq!(record["reason"], "internal_error", "{record}");
            continue;
        };
        let number: usize = query["n=".len()..].parse().unwrap();
        assert!(!std::mem::replace(&mut recorded[number], true), "twice: {record}");
        assert_eq!(record["decision"] == "allow", expected[number].is_some(), "{record}");
        if let Some(tenants) = &expected[number] {
            assert_eq!(
                record["tenants"],
                serde_json::json!(tenants.split('|').collect::<Vec<_>>()),
                "{record}"
            );
        }
    }
}

/// Whoever goes away, whenever: before the decision's answer, during the first backend, during the fallback.
#[test]
fn a_client_that_goes_away_takes_no_record_with_it() {
    let server = r#"
        access_log @DIR@/audit.jsonl tenantauth_audit;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        error_page 504 = @standby;
        location / { proxy_read_timeout 60ms; proxy_pass http://127.0.0.1:@PORT:silent@; }
        location @standby {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true, backend = "loki" } }
            proxy_pass http://@UPSTREAM@;
        }
    "#;
    let site = Site::builder().server(server).start();
    site.expect_errors();
    let _silent = TcpListener::bind(("127.0.0.1", site.port("silent"))).unwrap();
    let token = token(&["group1"]);
    for number in 0..20_usize {
        let tenant = if number.is_multiple_of(3) { "tenant2" } else { "tenant1" };
        let request = Request::new("POST", format!("/loki/api/v1/query?n={number}")).tenant(tenant);
        let mut stream = TcpStream::connect(("127.0.0.1", site.port(""))).unwrap();
        stream.write_all(&request.token(&token).body("query=x").bytes()).unwrap();
        thread::sleep(Duration::from_millis([0, 5, 65, 90][number % 4]));
    }
    for record in site.audit(20) {
        let number: usize = record["query"].as_str().unwrap()["n=".len()..].parse().unwrap();
        assert_eq!(record["decision"] == "deny", number.is_multiple_of(3), "{record}");
    }
    for seen in site.upstream.take() {
        assert_is(&seen, Some("tenant1"));
    }
}

/// The engine asks for $remote_addr, and then for another `Connection`, of the very first request.
#[test]
fn the_first_request_of_a_worker_may_need_everything() {
    let policy = format!(
        "{POLICY}client_ip: {{ source: remote_addr }}\nrestrictions:\n  - {{ name: here, scopes: [\"logs:*\"], \
         networks: [127.0.0.0/8] }}\n"
    );
    let following = "proxy_http_version 1.1; proxy_set_header Connection $http_connection; \
        proxy_set_header Upgrade $http_upgrade; proxy_pass";
    for (lines, left) in [
        (&[("Connection", "X-Scope-OrgID, close")][..], &["close"][..]),
        (&[("Connection", "Upgrade"), ("Upgrade", "h2c")], &[]),
        (&[("Connection", "Upgrade, X-A"), ("Upgrade", "websocket")], &[]),
        (&[("Connection", "keep-alive"), ("Connection", "X-Scope-OrgID"), ("Upgrade", "a")], &["keep-alive"]),
    ] {
        let server = LOKI.replace("proxy_pass", following);
        let site = Site::builder().policy(&policy).server(&server).start();
        let request = Request::get("/loki/api/v1/query").tenant("tenant1|tenant1").token(&token(&["group1"]));
        let request = lines.iter().fold(request, |request, (name, value)| request.header(name, value));
        assert_allowed(&site.send(request));
        let seen = site.upstream.only();
        assert_is(&seen, Some("tenant1"));
        assert_eq!(seen.values("Connection"), left, "{lines:?}");
        assert_eq!(site.audit(1)[0]["client_ip"], "127.0.0.1");
        assert!(site.metrics().contains("tenantauth_audit_records_total 1\n"), "{lines:?}");
    }
}

/// Without `init_worker` the first requests wait for the policy, and go on in one burst.
#[test]
fn requests_that_waited_together_are_not_taken_for_one_another() {
    let module: Vec<&str> = MODULE.lines().filter(|line| !line.contains("init_worker")).collect();
    let site = Site::builder().main("env TENANTAUTH_POLICY;").module(&module.join("\n")).start();
    let port = site.port("");
    let cases =
        [("group1", "tenant1"), ("group1", "tenant2"), ("group3", "tenant2"), ("group3", "tenant2|tenant1")];
    let expected = [Some("tenant1"), None, Some("tenant2"), Some("tenant1|tenant2")];
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(port)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let (group, tenants) = cases[number % 4];
        let request = Request::get(format!("/loki/api/v1/query?n={number}")).tenant(tenants);
        client.send(&request.header("X-N", number.to_string()).token(&token(&[group])).bytes());
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.answer();
        assert_eq!(answer.status == 200, expected[number % 4].is_some(), "{number}: {answer:?}");
    }
    for seen in site.upstream.take() {
        let number: usize = seen.values("X-N")[0].parse().unwrap();
        assert_is(&seen, expected[number % 4]);
    }
}

/// While the gateway only records, what it would deny before it reads the tenants has none: such requests of all
/// tenants would share a cache's entries.
#[test]
fn a_cache_keeps_tenants_apart_while_the_gateway_only_records() {
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        location / {
            proxy_cache answers;
            proxy_cache_valid 200 1m;
            proxy_cache_key "$request_method $tenantauth_tenants $request_uri";
            proxy_pass http://@UPSTREAM@;
        }
    "#;
    let until = jiff::Timestamp::from_second(crate::support::now() + 3600).unwrap();
    let shadow = format!("version: 1\nmode: shadow\nshadow_until: {until}\n");
    let cache = "proxy_cache_path @DIR@/cache keys_zone=answers:1m;";
    let policy = POLICY.replace("version: 1\n", &shadow);
    let site = Site::builder().policy(&policy).http(cache).server(server).start();
    let (one, both) = (token(&["group1"]), token(&["group3"]));
    let mut wrong = Vec::new();
    for (case, path, lines) in [
        ("granted", "/loki/api/v1/query", 1),
        ("route_unknown", "/loki/api/v1/new_route", 1),
        ("path_ambiguous", "/loki/api/v1/label/a%2Fb/values", 1),
        ("tenant_duplicate", "/loki/api/v1/series", 2),
    ] {
        for (number, (tenant, token)) in [("tenant2", &both), ("tenant1", &one)].into_iter().enumerate() {
            let request = Request::get(path).token(token);
            assert_allowed(&site.send((0..lines).fold(request, |request, _| request.tenant(tenant))));
            if site.upstream.take().len() != 1 {
                wrong.push(format!("{case}: request {number}, for {tenant}, gets another tenant's answer"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
