//! Several issuers: none of them can speak for another, with its keys, its groups or its audience.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::client::{Answer, Request};
use crate::support::site::Site;
use crate::support::tokens::{AUDIENCE, ISSUER, SigningKey, claims_with, jwks, key, other_key};
use crate::support::wait_for;
use serde_json::{Value, json};

const SSO: &str = "https://sso.example.test/realms/main";

/// `entra` signs with `key()`, `keycloak` with `other_key()`.
fn policy(bare: &str, rules: &str) -> String {
    format!(
        "version: 1\n\
         issuers:\n\
         - {{ name: entra, issuer: '{ISSUER}', audiences: [{AUDIENCE}], jwks: {}{bare} }}\n\
         - name: keycloak\n  \
           issuer: {SSO}\n  \
           audiences: [grafana-kc]\n  \
           groups_claim: /realm_access/roles\n  \
           jwks: {}\n\
         {rules}",
        jwks(&[key()]),
        jwks(&[other_key()]),
    )
}

const RULES: &str = "\
group_names: { ops: [oncall, 'keycloak:oncall'] }
service_accounts: [{ name: agent, token_sha256: ['ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'], networks: [127.0.0.1] }]
grants:
- { groups: [sre], tenants: [of-entra] }
- { groups: ['keycloak:sre'], tenants: [of-keycloak] }
- { groups: ['entra:*'], tenants: [every-entra] }
- { groups: ['keycloak:*'], tenants: [every-keycloak] }
- { groups: ['service:agent'], tenants: [of-agent] }
- { groups: [ops], tenants: [of-ops] }
- { groups: ['*'], tenants: [public] }
";

fn entra(groups: &[&str]) -> Value {
    claims_with(groups, json!({}))
}

fn keycloak(roles: &[&str]) -> Value {
    claims_with(
        &[],
        json!({"iss": SSO, "aud": "grafana-kc", "groups": null, "realm_access": {"roles": roles}}),
    )
}

fn ask(site: &Site, tenant: &str, token: &str) -> Answer {
    site.send(Request::get("/loki/api/v1/query").tenant(tenant).token(token))
}

const TENANTS: [&str; 7] =
    ["of-entra", "of-keycloak", "every-entra", "every-keycloak", "of-agent", "of-ops", "public"];

/// The tenants that the bearer of a token may read.
fn reached(site: &Site, token: &str) -> String {
    let mut reached = Vec::new();
    for tenant in TENANTS {
        let answer = ask(site, tenant, token);
        if answer.status == 200 {
            reached.push(tenant);
        } else {
            assert_denied(&answer, "tenant_forbidden");
        }
    }
    reached.join(" ")
}

#[test]
fn no_issuer_signs_for_another() {
    let site = Site::builder().policy(&policy(", bare_groups: true", RULES)).start();
    let (entra, keycloak) = (entra(&["sre"]), keycloak(&["sre"]));
    assert_eq!(reached(&site, &key().token(&entra)), "of-entra every-entra public");
    assert_eq!(reached(&site, &other_key().token(&keycloak)), "of-keycloak every-keycloak public");

    let signed = |by: &SigningKey, kid: Option<&str>, claims: &Value| {
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        by.sign(&header.to_string(), &claims.to_string())
    };
    for (by, claims, own) in [(other_key(), &entra, "key-1"), (key(), &keycloak, "key-2")] {
        // With the id of the key that signed it, with that of the issuer's own key, and without one.
        assert_denied(&ask(&site, "public", &by.token(claims)), "token_key_unknown");
        assert_denied(&ask(&site, "public", &signed(by, Some(own), claims)), "token_signature");
        assert_denied(&ask(&site, "public", &signed(by, None, claims)), "token_signature");
    }
    // The same, after both have been remembered and a token of each was let in again.
    assert_allowed(&ask(&site, "public", &key().token(&entra)));
    assert_denied(&ask(&site, "public", &other_key().token(&entra)), "token_key_unknown");

    // An audience is its issuer's too.
    let mut elsewhere = keycloak.clone();
    elsewhere["aud"] = json!(AUDIENCE);
    assert_denied(&ask(&site, "public", &other_key().token(&elsewhere)), "token_audience");
    // And so is the place of the groups.
    let mut misplaced = keycloak.clone();
    misplaced["groups"] = json!(["sre"]);
    misplaced["realm_access"] = Value::Null;
    assert_denied(&ask(&site, "public", &other_key().token(&misplaced)), "groups_missing");
    let mut stranger = keycloak;
    stranger["iss"] = json!("https://sso.example.test/realms/main/");
    assert_denied(&ask(&site, "public", &other_key().token(&stranger)), "token_issuer");
}

#[test]
fn no_group_is_forged_across_issuers() {
    let site = Site::builder().policy(&policy(", bare_groups: true", RULES)).start();
    let of_entra = |groups: &[&str]| reached(&site, &key().token(&entra(groups)));
    let of_keycloak = |groups: &[&str]| reached(&site, &other_key().token(&keycloak(groups)));
    assert_eq!(of_entra(&["oncall"]), "every-entra of-ops public");
    assert_eq!(of_keycloak(&["oncall"]), "every-keycloak of-ops public");
    assert_eq!([of_entra(&[]), of_keycloak(&[])], ["public", "public"]);
    for forged in ["*", "entra:*", "ops", "entra:sre", "entra:", "service"] {
        assert_eq!(of_entra(&[forged]), "every-entra public", "{forged}");
        assert_eq!(of_keycloak(&[forged]), "every-keycloak public", "{forged}");
    }
    for forged in ["keycloak:sre", "keycloak:oncall", "keycloak:*", "service:agent", "service:*"] {
        assert_eq!(of_entra(&[forged]), "public", "{forged}");
        assert_eq!(of_keycloak(&[forged]), "every-keycloak public", "{forged}");
    }
    assert_eq!(of_entra(&["keycloak:sre", "service:agent", "sre"]), "of-entra every-entra public");
    // The record names both, and only the groups that the policy knows.
    let tokens = 2 + 2 + 2 * 6 + 2 * 5 + 1;
    let records = site.audit(tokens * TENANTS.len());
    let last = records.last().unwrap();
    assert_eq!((&last["issuer"], &last["groups"]), (&json!("entra"), &json!(["sre", "entra:*"])));
    assert!(records.iter().any(|record| record["issuer"] == "keycloak"), "{last}");
    assert!(records.iter().all(|record| record["groups"] != json!(["service:agent"])));
}

#[test]
fn a_reload_changes_how_groups_are_written_for_remembered_tokens_too() {
    let rules =
        "grants:\n- { groups: [sre], tenants: [bare] }\n- { groups: ['entra:sre'], tenants: [full] }\n";
    let site = Site::builder().workers(2).policy(&policy(", bare_groups: true", rules)).start();
    let token = key().token(&entra(&["sre"]));
    let reasons = || ["bare", "full"].map(|tenant| ask(&site, tenant, &token).reason().to_owned());
    assert_eq!(reasons(), ["", "tenant_forbidden"]);
    site.write_policy(&policy("", rules));
    wait_for("groups with their issuer's name", 6, || (reasons() == ["tenant_forbidden", ""]).then_some(()));
    std::thread::sleep(std::time::Duration::from_secs(3));
    for _ in 0..8 {
        assert_eq!(reasons(), ["tenant_forbidden", ""]);
    }
}

#[test]
fn groups_are_found_where_each_provider_writes_them() {
    let cases = [
        ("cognito", "'cognito:groups'", "list", json!({"cognito:groups": ["sre"]})),
        ("gitlab", "groups_direct", "list", json!({"groups_direct": ["acme/platform", "sre"]})),
        ("auth0", "'https://app.example/roles'", "list", json!({"https://app.example/roles": ["sre"]})),
        ("entra", "roles", "list", json!({"roles": ["sre"], "groups": ["other"]})),
        ("keycloak", "/realm_access/roles", "list", json!({"realm_access": {"roles": ["sre"]}})),
        (
            "client",
            "/resource_access/grafana.example~1x/roles",
            "list",
            json!({"resource_access": {"grafana.example/x": {"roles": ["sre"]}}}),
        ),
        ("scopes", "scp", "space", json!({"scp": "openid sre"})),
        ("single", "department", "string", json!({"department": "sre"})),
        ("one", "groups", "list", json!({"groups": "sre"})),
        ("commas", "memberOf", "comma", json!({"memberOf": "dev, sre,"})),
        (
            "zitadel",
            "urn:roles",
            "keys",
            json!({"urn:roles": {"sre": {"1": "x.example"}, "dev": {"2": "sre"}}}),
        ),
        ("united", "[groups, roles]", "list", json!({"groups": ["dev"], "roles": "sre"})),
    ];
    let keys = jwks(&[key()]);
    let mut text = "version: 1\nissuers:\n".to_owned();
    for (name, claim, format, _) in &cases {
        text += &format!(
            "- {{ name: {name}, issuer: 'https://{name}.example', audiences: [grafana], groups_claim: {claim}, \
             groups_format: {format}, jwks: {keys} }}\n"
        );
    }
    text += "authorizations:\n";
    for (name, ..) in &cases {
        text += &format!("  {name}:sre: [of-{name}]\n");
    }
    let site = Site::builder().policy(&text).start();
    for (name, _, _, groups) in &cases {
        let mut claims = claims_with(&[], json!({"iss": format!("https://{name}.example"), "groups": null}));
        for (claim, value) in groups.as_object().unwrap() {
            claims[claim] = value.clone();
        }
        let token = key().token(&claims);
        for (other, ..) in &cases {
            let answer = ask(&site, &format!("of-{other}"), &token);
            if other == name {
                assert_allowed(&answer);
            } else {
                assert_denied(&answer, "tenant_forbidden");
            }
        }
    }
}

#[test]
fn entra_names_its_tenant_twice_and_tells_when_groups_are_too_many() {
    const TENANT: &str = "11111111-2222-3333-4444-555555555555";
    let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let policy = policy("", "grants: [{ groups: ['*'], tenants: [public] }]\n").replace(ISSUER, &issuer);
    let site = Site::builder().policy(&policy).start();
    let of = |changes: Value| {
        let mut claims = claims_with(&["g"], changes);
        claims["iss"] = json!(issuer);
        ask(&site, "public", &key().token(&claims)).reason().to_owned()
    };
    assert_eq!(of(json!({"tid": TENANT})), "");
    assert_eq!(of(json!({})), "");
    assert_eq!(of(json!({"tid": "9188040d-6c67-4c5b-b112-36a304b66dad"})), "token_issuer");
    let elsewhere =
        json!({"src1": {"endpoint": "https://graph.microsoft.com/v1.0/users/x/getMemberObjects"}});
    let overage = json!({"groups": null, "_claim_names": {"groups": "src1"}, "_claim_sources": elsewhere});
    assert_eq!(of(overage), "groups_overage");
    assert_eq!(of(json!({"groups": "src1", "_claim_names": {"groups": "src1"}})), "groups_overage");
    assert_eq!(of(json!({"groups": null, "hasgroups": true})), "groups_overage");
    assert_eq!(of(json!({"groups": null})), "groups_missing");
    assert_eq!(of(json!({"groups": []})), "");
}
