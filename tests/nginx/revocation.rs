//! Revocation reaches tokens that workers remember: it is in force within five seconds, and lifted as fast.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::client::Request;
use crate::support::site::{POLICY, Site};
use crate::support::tokens::{claims_with, jwks, key, service_token, sha256, token};
use serde_json::json;
use std::thread::sleep;
use std::time::Duration;

const IN_FORCE: Duration = Duration::from_secs(5);

/// The policy with a service account and these revocations.
fn policy(revoked: &str) -> String {
    let account = format!(
        "service_accounts: [{{ name: agent, token_sha256: [{}, {}], networks: [127.0.0.1] }}]\n",
        sha256(&service_token('a')),
        sha256(&service_token('b'))
    );
    let grants = "grants:\n  - { groups: ['service:agent'], tenants: [tenant1] }\n  - { groups: [oncall, 'idp:*'], tenants: [nights] }";
    let aliases = "group_names: { oncall: [sre] }\n";
    POLICY.replace("grants:", grants) + aliases + &account + &format!("revoked: {{ {revoked} }}\n")
}

#[test]
fn a_remembered_token_is_revoked_at_the_next_reload() {
    let site = Site::builder().workers(2).policy(&policy("")).start();
    let user = |sub: &str, oid: &str, groups: &[&str]| {
        key().token(&claims_with(groups, json!({"sub": sub, "oid": oid})))
    };
    let ada = user("ada", "oid-1", &["group1"]);
    let bob = user("bob", "oid-2", &["group1", "sre"]);
    let users = |tenant: &str| {
        [&ada, &bob].map(|token| {
            let request = Request::get("/loki/api/v1/query").tenant(tenant).token(token);
            site.send(request).reason().to_owned()
        })
    };
    let agents = || {
        ['a', 'b'].map(|letter| {
            let header = format!("Bearer {}", service_token(letter));
            let request =
                Request::get("/loki/api/v1/query").tenant("tenant1").header("Authorization", header);
            site.send(request).reason().to_owned()
        })
    };
    let change = |revoked: &str| {
        site.write_policy(&policy(revoked));
        sleep(IN_FORCE);
    };
    // Each of both workers is asked several times, and none of them forgets or delays.
    let are = |reasons: [&str; 2], tenant: &str| {
        for _ in 0..6 {
            assert_eq!(users(tenant), reasons, "{tenant}");
        }
    };
    are(["", ""], "tenant1");
    are(["", ""], "nights");
    for _ in 0..6 {
        assert_eq!(agents(), ["", ""]);
    }

    change("principals: [{ issuer: idp, id: ada }, { issuer: service, id: agent }]");
    are(["token_revoked", ""], "tenant1");
    for _ in 0..6 {
        assert_eq!(agents(), ["token_revoked", "token_revoked"]);
    }
    change(&format!(
        "principals: [{{ issuer: idp, id: oid-2 }}], tokens_sha256: [{}]",
        sha256(&service_token('a'))
    ));
    are(["", "token_revoked"], "tenant1");
    for _ in 0..6 {
        assert_eq!(agents(), ["token_revoked", ""]);
    }
    // Only this token: the same person signs in again and has another.
    change(&format!("tokens_sha256: [{}]", sha256(&ada).to_uppercase()));
    are(["token_revoked", ""], "tenant1");
    let again = user("ada", "oid-1", &["group1", "x"]);
    assert_allowed(&site.send(Request::get("/loki/api/v1/query").tenant("tenant1").token(&again)));

    // A group is dropped, with the alias it is listed under.
    change("groups: [sre, 'service:agent']");
    are(["", ""], "nights");
    are(["", ""], "tenant1");
    let only_sre = user("eve", "oid-3", &["sre"]);
    for tenant in ["tenant2", "nights"] {
        let request = Request::get("/loki/api/v1/query").tenant(tenant).token(&only_sre);
        assert_denied(&site.send(request), "tenant_forbidden");
    }
    for _ in 0..6 {
        assert_eq!(agents(), ["tenant_forbidden", "tenant_forbidden"]);
    }

    change("groups: [], principals: [], tokens_sha256: []");
    are(["", ""], "tenant1");
    for _ in 0..6 {
        assert_eq!(agents(), ["", ""]);
    }
}

#[test]
fn the_record_says_who_was_revoked() {
    let revoked = format!(
        "principals: [{{ issuer: idp, id: user-1 }}], tokens_sha256: [{}]",
        sha256(&service_token('a'))
    );
    let site = Site::builder().policy(&policy(&revoked)).start();
    let answer = site.send(crate::checks::query(&["group1"], "tenant1"));
    assert_eq!(assert_denied(&answer, "token_revoked"), "403 Forbidden: the token has been revoked");
    let header = format!("Bearer {}", service_token('a'));
    let push = Request::get("/loki/api/v1/query").tenant("tenant1").header("Authorization", header);
    assert_denied(&site.send(push), "token_revoked");
    let records = site.audit(2);
    assert_eq!(
        (&records[0]["reason"], &records[0]["issuer"], &records[0]["subject"]),
        (&json!("token_revoked"), &json!("idp"), &json!("user-1"))
    );
    assert_eq!(
        (&records[1]["reason"], &records[1]["issuer"], &records[1]["subject"]),
        (&json!("token_revoked"), &json!("service"), &json!("agent"))
    );
}

#[test]
fn a_revoked_key_ends_what_it_signed_in_every_worker() {
    let site = Site::builder().workers(2).policy(&policy("")).start();
    let token = key().token(&claims_with(&["group1"], json!({"sub": "ada"})));
    let nameless =
        key().sign(r#"{"alg":"RS256"}"#, &claims_with(&["group1"], json!({"sub": "eve"})).to_string());
    let are = |reason: &str| {
        for token in [&token, &nameless] {
            for _ in 0..6 {
                let request = Request::get("/loki/api/v1/query").tenant("tenant1").token(token);
                assert_eq!(site.send(request).reason(), reason);
            }
        }
    };
    are("");
    site.write_policy(&policy("keys: [{ issuer: idp, kid: key-1 }]"));
    sleep(IN_FORCE);
    are("token_revoked");
    let status = site.status().json();
    let issuer = &status["issuers"][0];
    assert_eq!((&issuer["kids"], &issuer["revoked_kids"]), (&json!(["key-1"]), &json!(["key-1"])));
    let records = site.audit(24);
    assert_eq!(records[12]["reason"], "token_revoked");
    assert_eq!((&records[12]["issuer"], &records[12]["subject"]), (&json!("idp"), &json!("ada")));
    site.write_policy(&policy("keys: [{ issuer: idp, kid: key-2 }]"));
    sleep(IN_FORCE);
    are("");
}

/// An incident notice may name the key as an entry does that verifies nothing here.
#[test]
fn a_key_is_revoked_by_any_of_its_names() {
    let site = Site::builder().policy(&policy("keys: [{ issuer: idp, kid: legacy }]")).start();
    let mut set: serde_json::Value = serde_json::from_str(&jwks(&[key()])).unwrap();
    let request = || Request::get("/loki/api/v1/query").tenant("tenant1").token(&token(&["group1"]));
    assert_eq!(site.send(request()).reason(), "", "another key is revoked");
    let mut legacy = set["keys"][0].clone();
    (legacy["kid"], legacy["alg"]) = (json!("legacy"), json!("RS512"));
    set["keys"].as_array_mut().unwrap().push(legacy);
    site.workspace.write("jwks.json", set.to_string());
    sleep(IN_FORCE);
    assert_eq!(site.send(request()).reason(), "token_revoked");
    assert_eq!(site.upstream.take().len(), 1);
}

#[test]
fn a_revocation_ends_by_itself() {
    let until = |seconds: i64| jiff::Timestamp::from_second(crate::support::now() + seconds).unwrap();
    let revoked = format!("principals: [{{ issuer: idp, id: user-1, until: {} }}]", until(4));
    let site = Site::builder().policy(&policy(&revoked)).start();
    let revision = site.revisions();
    let ask = || site.send(crate::checks::query(&["group1"], "tenant1")).reason().to_owned();
    assert_eq!(ask(), "token_revoked");
    crate::support::wait_for("the end", 10, || ask().is_empty().then_some(()));
    assert_eq!(site.revisions(), revision, "nothing was reloaded");
}
