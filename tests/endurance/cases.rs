//! What is asked, and what must be answered under each policy and each set of keys.

use crate::support::client::Request;
use crate::support::cookie::CookieKey;
use crate::support::site::{COOKIE_KEY, POLICY};
use crate::support::tokens::{SigningKey, claims_with, key, other_key, service_token, sha256};
use serde_json::json;

/// The reason that must be answered, by the policy's letter and the keys that are published (1: the first, 2: the
/// second, 3: both). Empty: the backend answers.
pub(crate) type Expect = fn(char, u8) -> &'static str;

/// The bytes to send, by the number of the turn: some are never sent twice.
type Bytes = Box<dyn Fn(u64) -> Vec<u8>>;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) bytes: Bytes,
    pub(crate) expect: Expect,
}

/// One of two policies, each with a tenant of its own; `number` makes a new revision of it.
pub(crate) fn policy(letter: char, number: u32) -> String {
    let head = POLICY.split("authorizations:").next().unwrap();
    format!(
        "{head}service_accounts:\n  - {{ name: agent, token_sha256: [{}], networks: [127.0.0.0/8] }}\n\
         client_ip: {{ keys_file: @DIR@/client-ip.keys }}\nnetworks: {{ office: [203.0.113.0/24] }}\n\
         restrictions:\n  - {{ name: from-office, tenants: [bound], networks: [office] }}\n\
         grants:\n  - name: {letter}-{number}\n    groups: [group1]\n    tenants: [tenant1, bound, only-{letter}]\n\
         \x20 - {{ groups: [\"service:agent\"], tenants: [tenant1], scopes: [\"logs:write\"] }}\n",
        sha256(&service_token('s'))
    )
}

fn token(by: &SigningKey, number: u32) -> String {
    let exp = crate::support::now() + 7200;
    by.token(&claims_with(&["group1"], json!({"exp": exp, "sub": format!("user-{number}")})))
}

fn query(tenant: &str) -> Request {
    Request::get("/loki/api/v1/query?query=%7Ba%3D%22b%22%7D").tenant(tenant)
}

fn fixed(name: &'static str, request: &Request, expect: Expect) -> Case {
    let bytes = request.bytes();
    Case { name, bytes: Box::new(move |_| bytes.clone()), expect }
}

/// Every case, with cookies that are good from now on.
pub(crate) fn cases() -> Vec<Case> {
    let first = token(key(), 1);
    let office = COOKIE_KEY.pair("203.0.113.5");
    let forged = CookieKey::new("k1", 99).pair("203.0.113.5");
    let with_cookie = |cookie: &str| query("bound").token(&first).cookie(cookie);
    let needs_first: Expect = |_, keys| if keys & 1 == 1 { "" } else { "token_key_unknown" };
    let push = |token: &str| {
        Request::new("POST", "/loki/api/v1/push").tenant("tenant1").header("Authorization", token).body("{}")
    };
    let expired = key().token(&claims_with(&["group1"], json!({"exp": crate::support::now() - 3600})));
    let stranger = key().token(&claims_with(&["nobody"], json!({"exp": crate::support::now() + 7200})));
    let mut broken = first.clone();
    broken.replace_range(first.len() - 8..first.len() - 4, "AAAA");
    let hundred_one = (0..101).map(|n| format!("t{n}")).collect::<Vec<_>>().join("|");
    let mut many = query("tenant1").token(&first);
    for n in 0..120 {
        many = many.header(&format!("X-Header-{n}"), "x");
    }
    let mut cases = vec![
        fixed("a granted tenant", &query("tenant1").token(&first), needs_first),
        fixed("the other key's token", &query("tenant1").token(&token(other_key(), 2)), |_, keys| {
            if keys & 2 == 2 { "" } else { "token_key_unknown" }
        }),
        fixed("the tenant of a", &query("only-a").token(&first), |letter, keys| match (letter, keys & 1) {
            (_, 0) => "token_key_unknown",
            ('a', _) => "",
            _ => "tenant_forbidden",
        }),
        fixed("the tenant of b", &query("only-b").token(&first), |letter, keys| match (letter, keys & 1) {
            (_, 0) => "token_key_unknown",
            ('b', _) => "",
            _ => "tenant_forbidden",
        }),
        fixed("half of each", &query("only-a|only-b").token(&first), |_, keys| {
            if keys & 1 == 1 { "tenant_forbidden" } else { "token_key_unknown" }
        }),
        fixed("a stranger", &query("tenant1").token(&stranger), |_, keys| {
            if keys & 1 == 1 { "tenant_forbidden" } else { "token_key_unknown" }
        }),
        fixed("from the office", &with_cookie(&office), needs_first),
        fixed("from home", &with_cookie(&COOKIE_KEY.pair("198.18.0.5")), |_, keys| {
            if keys & 1 == 1 { "ip_forbidden" } else { "token_key_unknown" }
        }),
        fixed("a forged cookie", &with_cookie(&forged), |_, keys| {
            if keys & 1 == 1 { "ip_signature" } else { "token_key_unknown" }
        }),
        fixed("two cookies", &with_cookie(&format!("{office}; {office}")), |_, _| "ip_duplicate"),
        fixed("no cookie", &query("bound").token(&first), |_, keys| {
            if keys & 1 == 1 { "ip_missing" } else { "token_key_unknown" }
        }),
        fixed("the agent", &push(&format!("Bearer {}", service_token('s'))), |_, _| ""),
        fixed("another agent", &push(&format!("Bearer {}", service_token('t'))), |_, _| "token_unknown"),
        fixed("a write by a user", &push("Bearer x").token(&first), |_, keys| {
            if keys & 1 == 1 { "scope_forbidden" } else { "token_key_unknown" }
        }),
        fixed("nobody", &query("tenant1"), |_, _| "token_missing"),
        fixed("an expired token", &query("tenant1").token(&expired), |_, keys| {
            if keys & 1 == 1 { "token_expired" } else { "token_key_unknown" }
        }),
        fixed("a changed signature", &query("tenant1").token(&broken), |_, keys| {
            if keys & 1 == 1 { "token_signature" } else { "token_key_unknown" }
        }),
        fixed("unsigned", &query("tenant1").token("eyJhbGciOiJub25lIn0.e30."), |_, _| "token_unsupported"),
        fixed("two token headers", &query("tenant1").token(&first).token(&first), |_, _| "token_duplicate"),
        fixed("no tenant", &Request::get("/loki/api/v1/query").token(&first), |_, _| "tenant_missing"),
        fixed(
            "two tenant headers",
            &query("tenant1").tenant("tenant1").token(&first),
            |_, _| "tenant_duplicate",
        ),
        fixed("an odd tenant", &query("a b").token(&first), |_, _| "tenant_malformed"),
        fixed("too many tenants", &query(&hundred_one).token(&first), |_, _| "tenant_malformed"),
        fixed("too many headers", &many, |_, _| "headers_truncated"),
    ];
    for (name, path, expect) in [
        ("dots", "/loki/api/v1/../v1/query", (|_, _| "path_ambiguous") as Expect),
        ("an encoded slash", "/loki/api/v1/rules/..%2Fdelete", |_, _| "path_ambiguous"),
        ("an encoded letter", "/loki/api/v1/%70ush", |_, _| "route_unknown"),
        ("an administrator's route", "/config", |_, _| "route_unknown"),
    ] {
        cases.push(fixed(name, &Request::get(path).tenant("tenant1").token(&first), expect));
    }
    // Never the same twice: what is remembered of them would grow.
    cases.push(Case {
        name: "a new broken token each time",
        bytes: Box::new(move |turn| {
            let (kept, end) = first.split_at(first.len() - 4);
            query("tenant1").token(&format!("{}{turn:08}{end}", &kept[..kept.len() - 8])).bytes()
        }),
        expect: |_, keys| if keys & 1 == 1 { "token_signature" } else { "token_key_unknown" },
    });
    cases.push(Case {
        name: "a new tenant each time",
        bytes: Box::new(move |turn| query(&format!("unknown-{turn}")).token(&stranger).bytes()),
        expect: |_, keys| if keys & 1 == 1 { "tenant_forbidden" } else { "token_key_unknown" },
    });
    cases
}
