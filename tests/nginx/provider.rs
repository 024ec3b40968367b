//! Keys from a real OpenID provider, over TLS: by discovery, through rotation, failure and attack.

use crate::support::provider::{Counts, Provider};
use crate::support::workspace::Workspace;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The header (0) or the claims (1) of a token, unverified.
fn part(token: &str, number: usize) -> Value {
    let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

#[test]
fn the_provider_issues_what_a_login_asked_for() {
    let workspace = Workspace::new();
    let provider = Provider::start(&workspace);
    let token = provider.login("ada", &["group1", "team-a"]);
    let claims = part(&token, 1);
    assert_eq!(part(&token, 0)["kid"], "k1");
    assert_eq!(claims["iss"], provider.issuer.as_str());
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!("grafana"), &json!("ada")));
    assert_eq!(claims["groups"], json!(["group1", "team-a"]));
    provider.publish(&["ec1", "k1"]);
    assert_eq!(part(&provider.login("ada", &[]), 0)["kid"], "ec1");
    let minted = provider.mint(3, &["group1"], true);
    assert!(minted.iter().all(|token| part(token, 0)["kid"] != "ec1"));
    assert_eq!(provider.counts(), Counts { jwks: 0, discovery: 0, at_once: 0 });
}
