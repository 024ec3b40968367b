//! Callers without a user: agents, scripts and alerting, with a token of the policy's own.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Answer, Request};
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::tokens::{basic, key, service_token, sha256, token};
use crate::support::wait_for;
use serde_json::{Value, json};

/// Further lines of a policy: `agent` has the tokens of `a` and `b`, `far` that of `f`, `open` that of `o`.
fn accounts() -> String {
    let sum = |letter| sha256(&service_token(letter));
    format!(
        "service_accounts:\n\
         - {{ name: agent, token_sha256: [{}, {}], networks: [127.0.0.0/8] }}\n\
         - {{ name: far, token_sha256: [{}], networks: [10.0.0.0/8] }}\n\
         - {{ name: open, token_sha256: [{}] }}\n",
        sum('a'),
        sum('b'),
        sum('f'),
        sum('o'),
    )
}

/// [`POLICY`] with these accounts, which may push logs of `tenant1`; everybody else may read `public`.
fn policy() -> String {
    let grants = "grants:\n  - { name: agents, groups: ['service:agent', 'service:far', 'service:open'], tenants: [tenant1], scopes: ['logs:write'] }\n  - { groups: ['*'], tenants: [public] }";
    POLICY.replace("grants:", grants) + &accounts() + RESTRICTIONS + SIGNED_COOKIE
}

fn push(tenant: &str) -> Request {
    Request::new("POST", "/loki/api/v1/push").tenant(tenant).body("{}")
}

fn with(authorization: &str) -> Request {
    push("tenant1").header("Authorization", authorization)
}

fn bearer(letter: char) -> String {
    format!("Bearer {}", service_token(letter))
}

/// Refused, whoever asks again.
#[track_caller]
fn denied(site: &Site, request: &Request, reason: &str) -> Answer {
    assert_denied(&request.send(site.port("")), reason);
    let again = request.send(site.port(""));
    assert_denied(&again, reason);
    assert!(site.upstream.take().is_empty(), "nothing arrives");
    again
}

#[track_caller]
fn allowed(site: &Site, request: &Request) {
    for _ in 0..2 {
        assert_allowed(&request.send(site.port("")));
        let seen = site.upstream.only();
        assert!(!seen.has("Authorization"), "the token arrived:\n{}", seen.head);
        assert!(!seen.head.contains("tas_"), "{}", seen.head);
    }
}

#[test]
fn an_account_is_its_token() {
    let site = Site::builder().policy(&policy()).start();
    for good in [
        bearer('a'),
        bearer('b'),
        bearer('a').replace("Bearer", "bEARER"),
        bearer('a').replace("Bearer ", "Bearer   "),
        basic("agent", &service_token('a')),
        basic("agent", &service_token('b')).replace("Basic", "bASIC"),
        basic("agent", &service_token('a')).trim_end_matches('=').to_owned(),
        bearer('o'),
    ] {
        println!("{good}");
        allowed(&site, &with(&good));
    }
    for unknown in [
        bearer('z'),
        bearer('a') + "a",
        bearer('a')[..bearer('a').len() - 1].to_owned(),
        "Bearer tas_".to_owned(),
        basic("far", &service_token('a')),
        basic("", &service_token('a')),
        basic("Agent", &service_token('a')),
        basic("agent", &service_token('z')),
        basic("agent", "tas_"),
    ] {
        println!("{unknown}");
        denied(&site, &with(&unknown), "token_unknown");
    }
    // What is no service token is not looked at.
    for nothing in [
        service_token('a'),
        format!("Token {}", service_token('a')),
        format!("Bearer{}", service_token('a')),
        "Bearer junk".to_owned(),
        basic("agent", "secret"),
        basic("x:agent", &service_token('a')),
        "Basic !!!".to_owned(),
        "Basic".to_owned(),
        String::new(),
    ] {
        println!("{nothing}");
        denied(&site, &with(&nothing), "token_missing");
    }
    // In a user's header it is no token at all.
    denied(&site, &push("tenant1").token(&service_token('a')), "token_malformed");
}

#[test]
fn an_account_may_do_what_its_group_is_granted_and_nothing_else() {
    let site = Site::builder().policy(&policy()).start();
    let good = bearer('a');
    denied(&site, &push("tenant2").header("Authorization", &good), "tenant_forbidden");
    let read = Request::get("/loki/api/v1/query").header("Authorization", &good);
    denied(&site, &read.clone().tenant("tenant1"), "scope_forbidden");
    // `*` is every user, and an account is none.
    denied(&site, &read.clone().tenant("public"), "tenant_forbidden");
    assert_allowed(&site.send(query(&["nobody"], "public").cookie(COOKIE_KEY.pair("203.0.113.5"))));
    site.upstream.take();
    denied(&site, &read.tenant("a/b"), "tenant_malformed");
    // No user reaches what is granted to an account, whatever his groups are called.
    let user =
        push("tenant1").token(&token(&["service:agent", "agent"])).cookie(COOKIE_KEY.pair("203.0.113.5"));
    denied(&site, &user, "tenant_forbidden");
}

#[test]
fn the_peer_must_be_in_the_accounts_networks() {
    let realip = "set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;\n";
    let server = format!("{realip}{}", crate::support::site::LOKI);
    let site = Site::builder().policy(&policy()).server(&server).start();
    denied(&site, &with(&bearer('f')), "ip_forbidden");
    // The peer is who holds the connection, whatever a header makes of $remote_addr.
    denied(&site, &with(&bearer('f')).header("X-Real-IP", "10.1.2.3"), "ip_forbidden");
    allowed(&site, &with(&bearer('a')).header("X-Real-IP", "192.0.2.1"));
    // The grant is looked at first.
    denied(&site, &push("tenant2").header("Authorization", bearer('f')), "tenant_forbidden");
}

#[test]
fn a_person_behind_a_service_token_is_noticed() {
    let site = Site::builder().policy(&policy()).start();
    let user = token(&["group1"]);
    for good in [bearer('a'), basic("agent", &service_token('a'))] {
        denied(&site, &with(&good).token(&user), "service_attended");
        denied(&site, &with(&good).token(""), "service_attended");
        denied(&site, &with(&good).header("x-id-token", "junk"), "service_attended");
        denied(&site, &with(&good).header("X-Grafana-User", "ada"), "service_attended");
        denied(&site, &with(&good).header("x-grafana-user", ""), "service_attended");
        for cookie in [COOKIE_KEY.pair("203.0.113.5"), "a=b; client_ip=x".to_owned(), "CLIENT_IP".to_owned()]
        {
            denied(&site, &with(&good).cookie(cookie), "service_attended");
        }
        allowed(&site, &with(&good).cookie("session=1; Client_Ipx=2"));
    }
    // One that nobody has is unknown first.
    denied(&site, &with(&bearer('z')).token(&user), "token_unknown");
    denied(&site, &with(&bearer('z')).header("X-Forwarded-For", "192.0.2.1"), "token_unknown");

    // Grafana sends an access token with every request of a user, or the credentials of a data source: they say nothing.
    let read = || query(&["group1"], "tenant1").cookie(COOKIE_KEY.pair("203.0.113.5"));
    for other in [
        "Bearer EwBwA8l6BAAU",
        "Bearer TAS_x",
        &basic("grafana", "secret"),
        &basic("tas_", ""),
        "Basic ???",
        "bas",
        "Bearer",
        "Negotiate tas_",
    ] {
        println!("{other}");
        assert_allowed(&site.send(read().header("Authorization", other)));
        assert!(!site.upstream.only().has("Authorization"));
    }
}

/// What a reverse proxy of Go's adds last: no client can have it removed.
#[test]
fn a_proxy_before_a_service_token_is_a_person_unless_the_account_says_so() {
    let server = format!("underscores_in_headers on;\n{}", crate::support::site::LOKI);
    let site = Site::builder().policy(&policy()).server(&server).start();
    for good in [bearer('a'), basic("agent", &service_token('a'))] {
        for (name, value) in [
            ("X-Forwarded-For", "192.0.2.1"),
            ("x-forwarded-for", ""),
            ("X-FORWARDED-FOR", "192.0.2.1, 10.0.0.1"),
        ] {
            denied(&site, &with(&good).header(name, value), "service_attended");
            denied(&site, &with(&good).header(name, value).header(name, value), "service_attended");
        }
        // No proxy of Go's writes these.
        allowed(&site, &with(&good).header("X_Forwarded_For", "a").header("Forwarded", "for=192.0.2.1"));
    }
    assert_allowed(&site.send(
        query(&["group1"], "tenant1").cookie(COOKIE_KEY.pair("203.0.113.5")).header("X-Forwarded-For", "a"),
    ));
    site.upstream.take();

    let behind = policy().replace("name: agent,", "name: agent, behind_proxy: true,");
    let site = Site::builder().policy(&behind).start();
    let proxied = with(&bearer('a')).header("X-Forwarded-For", "192.0.2.1");
    allowed(&site, &proxied);
    denied(&site, &proxied.clone().header("X-Grafana-User", "ada"), "service_attended");
    denied(&site, &proxied.clone().token(""), "service_attended");
    denied(&site, &proxied.cookie("client_ip=x"), "service_attended");
    // The others do not say so.
    denied(&site, &with(&bearer('o')).header("X-Forwarded-For", "192.0.2.1"), "service_attended");
}

#[test]
fn no_service_token_is_ever_forwarded() {
    let server = crate::support::site::LOKI
        .replace("backend = \"loki\"", "backend = \"loki\", forward_headers = { \"Authorization\" }");
    let site = Site::builder().policy(&policy()).server(&server).start();
    allowed(&site, &with(&bearer('a')));
    allowed(&site, &with(&basic("agent", &service_token('a'))));
    let read = || query(&["group1"], "tenant1").cookie(COOKIE_KEY.pair("203.0.113.5"));
    for own in ["Bearer EwBwA8l6BAAU", &basic("grafana", "secret")] {
        assert_allowed(&site.send(read().header("Authorization", own)));
        assert_eq!(site.upstream.only().values("Authorization"), [own]);
    }
    // Padded beyond what an account could send it is none, and behind a user's token it goes nowhere all the same.
    let blanks = " ".repeat(1100);
    let long = basic(&"n".repeat(1100), &service_token('a'));
    for hidden in [bearer('a').replace(' ', &blanks), long, bearer('a').replace("Bearer", "Token")] {
        assert_allowed(&site.send(read().header("Authorization", &*hidden)));
        assert!(!site.upstream.only().has("Authorization"), "{hidden}");
    }
}

#[test]
fn authorization_may_carry_users_tokens_as_well() {
    let headers = |names: &str| format!("token_headers: [{names}]\n{}", policy().trim_start());
    let site = Site::builder().policy(&headers("X-Id-Token, Authorization")).start();
    let user = format!("Bearer {}", token(&["group1"]));
    let read = || Request::get("/loki/api/v1/query").tenant("tenant1").cookie(COOKIE_KEY.pair("203.0.113.5"));
    assert_allowed(&site.send(read().header("Authorization", &user)));
    assert!(!site.upstream.only().has("Authorization"));
    allowed(&site, &with(&bearer('a')));
    allowed(&site, &with(&basic("agent", &service_token('a'))));
    denied(&site, &with(&bearer('a')).token(&token(&["group1"])), "service_attended");
    denied(&site, &with(&bearer('z')), "token_unknown");
    denied(&site, &with(&basic("agent", "secret")), "token_malformed");
    // The first that is present counts, and this one says nothing of a service account.
    assert_allowed(&site.send(read().token(&token(&["group1"])).header("Authorization", basic("a", "b"))));
    site.upstream.take();

    site.write_policy(&headers("Authorization, X-Id-Token"));
    let both = read().token(&token(&["group1"])).header("Authorization", basic("a", "b"));
    wait_for("the other order", 6, || (site.send(both.clone()).reason() == "token_malformed").then_some(()));
}

#[test]
fn tokens_are_rotated_without_a_denial() {
    let site = Site::builder().workers(2).policy(&policy()).start();
    let ask = |letter| site.send(with(&bearer(letter))).reason().to_owned();
    for _ in 0..4 {
        assert_eq!([ask('a'), ask('b'), ask('c')], ["", "", "token_unknown"]);
    }
    let without_old = policy().replace(&sha256(&service_token('a')), &sha256(&service_token('c')));
    site.write_policy(&without_old);
    let started = std::time::Instant::now();
    wait_for("the new token", 6, || (ask('c').is_empty()).then_some(()));
    std::thread::sleep(std::time::Duration::from_secs(5).saturating_sub(started.elapsed()));
    for _ in 0..8 {
        // Both workers had let it in before.
        assert_eq!([ask('a'), ask('b'), ask('c')], ["token_unknown", "", ""]);
    }
}

#[test]
fn without_accounts_no_service_token_is_known() {
    let site = Site::start();
    denied(&site, &with(&bearer('a')), "token_unknown");
    denied(&site, &with(&basic("agent", &service_token('a'))), "token_unknown");
}

#[test]
fn an_account_is_recorded_and_its_token_is_not() {
    let site = Site::builder().policy(&policy()).start();
    site.send(with(&bearer('a')));
    site.send(with(&basic("agent", &service_token('b'))));
    site.send(with(&bearer('z')));
    site.send(with(&bearer('a')).cookie(COOKIE_KEY.pair("203.0.113.5")));
    let records = site.audit(4);
    for record in &records[..2] {
        for (name, value) in [
            ("decision", json!("allow")),
            ("issuer", json!("service")),
            ("subject", json!("agent")),
            ("user", Value::Null),
            ("token_id", Value::Null),
            ("groups", json!(["service:agent"])),
            ("grant", json!("agents")),
            ("scope", json!("logs:write")),
            ("client_ip", Value::Null),
            ("client_ip_source", Value::Null),
            ("peer", json!("127.0.0.1")),
        ] {
            assert_eq!(record[name], value, "{name} in {record}");
        }
    }
    assert_eq!((&records[2]["reason"], &records[2]["issuer"]), (&json!("token_unknown"), &Value::Null));
    // Who lets people use the account is to be found.
    assert_eq!(
        (&records[3]["reason"], &records[3]["subject"]),
        (&json!("service_attended"), &json!("agent"))
    );
    let (audit, log) = (site.workspace.read("audit.jsonl"), site.log());
    let encoded = basic("agent", &service_token('b'));
    for secret in ["tas_", encoded.trim_start_matches("Basic ")] {
        assert!(!audit.contains(secret) && !log.contains(secret), "{secret}");
    }
    let metrics = site.metrics();
    assert!(metrics.contains(r#"tenantauth_policy_warnings{kind="service_account_open"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"reason="service_attended""#), "{metrics}");
}

#[test]
fn a_users_token_and_a_service_token_are_different_things() {
    let site = Site::builder().policy(&policy()).start();
    // A service token is judged before the path only where headers are: the order is that of every request.
    let unknown_path = Request::get("/nowhere").tenant("tenant1").header("Authorization", bearer('a'));
    denied(&site, &unknown_path, "route_unknown");
    denied(&site, &Request::get("/loki/api/v1/query").header("Authorization", bearer('a')), "tenant_missing");
    let jwt = key().token(&crate::support::tokens::claims(&["group1"]));
    denied(&site, &with(&format!("Bearer {jwt}")), "token_missing");
}

/// [`policy`] in which `agent` may push logs and read rules of `team-a` as well, and asks for it by default.
fn with_default() -> String {
    policy().replace("name: agent,", "name: agent, tenant: team-a,").replace(
        "grants:",
        "grants:\n  - { groups: ['service:agent'], tenants: [team-a], scopes: ['logs:write', 'rules:write'] }",
    )
}

fn untold() -> Request {
    Request::new("POST", "/loki/api/v1/push").body("{}")
}

/// Allowed, and the backend is asked for this tenant alone.
#[track_caller]
fn reaches(site: &Site, request: &Request, tenant: &str) {
    for _ in 0..2 {
        assert_allowed(&request.send(site.port("")));
        let seen = site.upstream.only();
        assert_eq!(seen.values("X-Scope-OrgID"), [tenant], "{}", seen.head);
        assert!(!seen.has("X_Scope_OrgID") && !seen.has("Authorization"), "{}", seen.head);
    }
}

#[test]
fn an_account_asks_for_its_tenant_where_the_request_names_none() {
    let server = format!(
        "underscores_in_headers on;\naccess_log @DIR@/tenants.log tenants;\n{}",
        crate::support::site::LOKI
    );
    let http = "log_format tenants '$tenantauth_tenants';\n";
    let site = Site::builder().policy(&with_default()).http(http).server(&server).start();
    let good = || untold().header("Authorization", bearer('a'));
    reaches(&site, &good(), "team-a");
    reaches(&site, &untold().header("Authorization", basic("agent", &service_token('b'))), "team-a");
    // A route that takes one tenant gets one.
    let rule = Request::new("DELETE", "/loki/api/v1/rules/namespace").header("Authorization", bearer('a'));
    reaches(&site, &rule, "team-a");
    // What a header says is asked for, not the default.
    reaches(&site, &good().tenant("tenant1"), "tenant1");
    denied(&site, &good().tenant("tenant2"), "tenant_forbidden");
    // A spelling that no backend knows is a line too.
    denied(&site, &good().header("X_Scope_OrgID", "tenant1"), "tenant_duplicate");
    // An empty header is not absent, nor are two.
    denied(&site, &good().tenant(""), "tenant_missing");
    denied(&site, &good().tenant("").tenant(""), "tenant_duplicate");
    denied(&site, &good().tenant("team-a").tenant("team-a"), "tenant_duplicate");
    // It is a request and no grant.
    let query = Request::get("/loki/api/v1/query").header("Authorization", bearer('a'));
    denied(&site, &query, "scope_forbidden");
    // Another account has none, and what nobody has is unknown first; a person too.
    denied(&site, &untold().header("Authorization", bearer('o')), "tenant_missing");
    denied(&site, &untold().header("Authorization", bearer('z')), "token_unknown");
    denied(&site, &untold().tenant("").header("Authorization", bearer('z')), "token_unknown");
    denied(&site, &good().header("X-Grafana-User", "ada"), "service_attended");
    denied(&site, &untold().header("Authorization", basic("grafana", "secret")), "tenant_missing");
    denied(&site, &untold(), "tenant_missing");
    denied(&site, &untold().token(&token(&["group1"])), "tenant_missing");
    denied(&site, &good().token(&token(&["group1"])), "service_attended");
    denied(&site, &Request::get("/nowhere").header("Authorization", bearer('a')), "route_unknown");

    let records = site.audit(38);
    let first = &records[0];
    assert_eq!(
        (&first["decision"], &first["tenants"], &first["subject"]),
        (&json!("allow"), &json!(["team-a"]), &json!("agent"))
    );
    let tenants = site.workspace.read("tenants.log");
    assert_eq!(tenants.lines().take(6).collect::<Vec<_>>(), ["team-a"; 6]);
}

#[test]
fn a_default_tenant_that_is_not_granted_or_whose_owner_is_unknown_is_denied() {
    let policy = policy().replace("name: open,", "name: open, tenant: tenant2,");
    let site = Site::builder().policy(&policy).start();
    denied(&site, &untold().header("Authorization", bearer('o')), "tenant_forbidden");
    assert!(site.metrics().contains(r#"tenantauth_policy_warnings{kind="ungranted_tenant"} 1"#));

    let platform =
        with_default() + "owners: { team-a: { tenants: [team-a], scopes: ['*:read', 'logs:write'] } }\n";
    let site = Site::builder()
        .module(&crate::support::site::directory_module(""))
        .policy_directory(&platform, &[("team-a", "grants: 5\n")])
        .start();
    site.expect_errors();
    denied(&site, &untold().header("Authorization", bearer('a')), "policy_unavailable");
    denied(&site, &untold().header("Authorization", bearer('z')), "token_unknown");
}

#[test]
fn in_shadow_mode_a_default_tenant_changes_nothing() {
    let until = jiff::Timestamp::from_second(crate::support::now() + 3600).unwrap();
    let policy =
        with_default().replace("version: 1\n", &format!("version: 1\nmode: shadow\nshadow_until: {until}\n"));
    let server = format!("access_log @DIR@/tenants.log tenants;\n{}", crate::support::site::LOKI);
    let site = Site::builder()
        .policy(&policy)
        .http("log_format tenants '$tenantauth_tenants';\n")
        .server(&server)
        .start();
    assert_allowed(&site.send(untold().header("Authorization", bearer('a'))));
    let seen = site.upstream.only();
    assert!(!seen.has("X-Scope-OrgID"), "{}", seen.head);
    assert_eq!(seen.values("Authorization"), [bearer('a')]);
    assert_allowed(&site.send(Request::get("/loki/api/v1/query").header("Authorization", bearer('a'))));
    let records = site.audit(2);
    let would = json!({"decision": "allow", "reason": "granted"});
    assert_eq!((&records[0]["tenants"], &records[0]["shadow"]), (&json!(["team-a"]), &would));
    assert_eq!(records[1]["shadow"], json!({"decision": "deny", "reason": "scope_forbidden"}));
    assert_eq!(site.workspace.read("tenants.log"), "team-a\nteam-a\n");
}

/// Grafana's tools write the tenant there. It is repeated, never named.
#[test]
fn the_user_of_basic_is_the_account_or_the_tenant_that_is_asked_for() {
    let site = Site::builder().policy(&with_default()).start();
    let as_user = |user: &str| untold().header("Authorization", basic(user, &service_token('a')));
    for _ in 0..2 {
        reaches(&site, &as_user("tenant1").tenant("tenant1"), "tenant1");
        // Seen before, beside another tenant: the value is remembered, and its user is not.
        denied(&site, &as_user("tenant1").tenant("team-a"), "token_unknown");
        denied(&site, &as_user("tenant1"), "token_unknown");
        reaches(&site, &as_user("team-a").tenant("team-a"), "team-a");
        reaches(&site, &as_user("team-a"), "team-a");
        // The default where the header is absent, and only there.
        denied(&site, &as_user("team-a").tenant("tenant1"), "token_unknown");
        denied(&site, &as_user("team-a").tenant(""), "token_unknown");
        reaches(&site, &as_user("agent").tenant("tenant1"), "tenant1");
        reaches(&site, &as_user("agent"), "team-a");
    }
    // Being named as a user grants nothing.
    denied(&site, &as_user("tenant2").tenant("tenant2"), "tenant_forbidden");
    let read = Request::get("/loki/api/v1/query").tenant("tenant1");
    let read = read.header("Authorization", basic("tenant1", &service_token('a')));
    denied(&site, &read, "scope_forbidden");
    // Exactly one tenant, as it is written.
    let read = |user: &str, tenant: &str| {
        let read = Request::get("/loki/api/v1/query").tenant(tenant);
        read.header("Authorization", basic(user, &service_token('a')))
    };
    for (user, tenant) in [
        ("tenant1", "tenant1|tenant2"),
        ("tenant1|tenant2", "tenant1|tenant2"),
        ("tenant1", "tenant1|tenant1"),
        ("tenant1|tenant1", "tenant1|tenant1"),
        ("tenant1", "tenant2"),
        ("Tenant1", "tenant1"),
        (" tenant1", "tenant1"),
        ("tenant1 ", "tenant1"),
        ("tenant%31", "tenant1"),
        ("tenant1", "team-a"),
        ("service%3Aagent", "tenant1"),
        // Another account's name, the group's name, nothing.
        ("open", "tenant1"),
        ("far", "tenant1"),
        ("", "tenant1"),
        ("*", "tenant1"),
        ("tenant1\0", "tenant1"),
        ("tenant1\u{e9}", "tenant1"),
    ] {
        println!("{user:?} beside {tenant:?}");
        denied(&site, &read(user, tenant), "token_unknown");
    }
    denied(&site, &read("tenant1", "tenant1").tenant("tenant1"), "tenant_duplicate");
    // The first colon ends the user, so that the rest is no token.
    denied(&site, &read("tenant1:x", "tenant1"), "token_missing");
    denied(&site, &read("a/b", "a/b"), "tenant_malformed");
    denied(&site, &read("__mimir_cluster", "__mimir_cluster"), "tenant_malformed");
    // Not UTF-8.
    let raw = [b"\xff\xfe".as_slice(), b":", service_token('a').as_bytes()].concat();
    let raw =
        format!("Basic {}", base64::engine::Engine::encode(&base64::engine::general_purpose::STANDARD, raw));
    denied(&site, &push("tenant1").header("Authorization", raw), "token_unknown");
    // The token decides whose it is, whatever the tenant is called.
    let far = push("agent").header("Authorization", basic("agent", &service_token('f')));
    denied(&site, &far, "tenant_forbidden");
    let unknown = push("tenant1").header("Authorization", basic("tenant1", &service_token('z')));
    denied(&site, &unknown, "token_unknown");
    // Neither does it make a person's request one of a machine.
    let attended = push("tenant1").header("Authorization", basic("tenant1", &service_token('a')));
    denied(&site, &attended.clone().header("X-Forwarded-For", "192.0.2.1"), "service_attended");
    denied(&site, &attended.token(&token(&["group1"])), "service_attended");
    let site =
        Site::builder().policy(&policy().replace("name: agent,", "name: agent, behind_proxy: true,")).start();
    let proxied = push("tenant1").header("X-Forwarded-For", "192.0.2.1");
    let proxied = proxied.header("Authorization", basic("tenant1", &service_token('a')));
    reaches(&site, &proxied, "tenant1");
    // Without a default the user names none.
    denied(&site, &untold().header("Authorization", basic("tenant1", &service_token('a'))), "token_unknown");
    denied(&site, &untold().header("Authorization", basic("agent", &service_token('a'))), "tenant_missing");
}
