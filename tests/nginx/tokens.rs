//! Every reason that a token can be refused for, through nginx.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::{Answer, Request};
use crate::support::site::{POLICY, Site};
use crate::support::tokens::{ISSUER, claims, claims_with, jwks, key, other_key, token};
use crate::support::{now, wait_for};
use serde_json::{Value, json};

fn ask(site: &Site, token: &str) -> Answer {
    site.send(Request::get("/loki/api/v1/query").tenant("tenant1").token(token))
}

/// A token of `group1` with some claims replaced, null removing one.
fn with(changes: Value) -> String {
    key().token(&claims_with(&["group1"], changes))
}

/// A token of `group1` with another header, signed all the same.
fn headed(header: Value) -> String {
    key().sign(&header.to_string(), &claims(&["group1"]).to_string())
}

#[test]
fn each_reason_once() {
    let site = Site::start();
    let good = token(&["group1"]);
    let parts: Vec<&str> = good.split('.').collect();
    let tampered = token(&["group3"]).split('.').nth(1).unwrap().to_owned();
    let cases = [
        ("granted", good.clone()),
        ("token_malformed", "junk".to_owned()),
        ("token_malformed", format!("{}.{}", parts[0], parts[1])),
        ("token_malformed", format!("{good}.x")),
        ("token_malformed", format!("Bearer {good}")),
        ("token_malformed", format!("{}.!!.{}", parts[0], parts[2])),
        ("token_malformed", with(json!({"exp": "soon"}))),
        ("token_malformed", with(json!({"exp": null}))),
        ("token_unsupported", headed(json!({"alg": "none", "kid": "key-1"}))),
        ("token_unsupported", headed(json!({"alg": "HS256", "kid": "key-1"}))),
        ("token_unsupported", headed(json!({"alg": "RS512", "kid": "key-1"}))),
        ("token_unsupported", headed(json!({"alg": "RS256", "kid": "key-1", "crit": ["exp"]}))),
        ("token_unsupported", headed(json!({"alg": "RS256", "kid": "key-1", "zip": "DEF"}))),
        ("token_unsupported", headed(json!({"alg": "RS256", "kid": "key-1", "typ": "at+jwt"}))),
        ("granted", headed(json!({"alg": "RS256", "kid": "key-1", "typ": "jwt"}))),
        ("granted", headed(json!({"alg": "RS256"}))),
        ("token_key_unknown", headed(json!({"alg": "RS256", "kid": "key-9"}))),
        ("token_key_unknown", other_key().token(&claims(&["group1"]))),
        (
            "token_signature",
            other_key()
                .sign(&json!({"alg": "RS256", "kid": "key-1"}).to_string(), &claims(&["group1"]).to_string()),
        ),
        ("token_signature", format!("{}.{tampered}.{}", parts[0], parts[2])),
        ("token_expired", with(json!({"exp": now() - 3600}))),
        ("token_not_yet_valid", with(json!({"nbf": now() + 3600}))),
        ("token_issuer", with(json!({"iss": format!("{ISSUER}/")}))),
        ("token_audience", with(json!({"aud": "another"}))),
        ("granted", with(json!({"aud": ["another", "grafana"]}))),
        ("groups_missing", with(json!({"groups": null}))),
        (
            "groups_overage",
            with(json!({"groups": null, "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://graph.example.test/"}}})),
        ),
        ("groups_overage", with(json!({"groups": null, "hasgroups": true}))),
        ("granted", with(json!({"groups": "group1"}))),
        ("groups_malformed", with(json!({"groups": {"group1": true}}))),
        ("groups_malformed", with(json!({"groups": ["group1", 1]}))),
    ];
    for (reason, token) in cases {
        // Twice: what is remembered of the first time must not change the second.
        for _ in 0..2 {
            let answer = ask(&site, &token);
            println!("{reason}: {} {}", answer.status, answer.reason());
            if reason == "granted" {
                assert_allowed(&answer);
            } else {
                assert_denied(&answer, reason);
                assert!(!answer.text().contains(&token[..4.min(token.len())]), "{}", answer.text());
            }
        }
    }
    let missing = site.send(Request::get("/loki/api/v1/query").tenant("tenant1"));
    assert_eq!(assert_denied(&missing, "token_missing"), "403 Forbidden: cannot find JWT token");
    assert_denied(&site.send(query(&["group1"], "tenant1").token(&good)), "token_duplicate");
}

#[test]
fn a_record_names_whom_a_refused_token_was_made_for() {
    let site = Site::start();
    let refused = [
        ("token_expired", with(json!({"exp": now() - 3600}))),
        ("token_not_yet_valid", with(json!({"nbf": now() + 3600}))),
        ("token_audience", with(json!({"aud": "another"}))),
        ("token_malformed", with(json!({"exp": null}))),
        ("groups_missing", with(json!({"groups": null}))),
        ("groups_malformed", with(json!({"groups": 5}))),
        ("groups_overage", with(json!({"groups": null, "hasgroups": true}))),
    ];
    let header = json!({"alg": "RS256", "kid": "key-1"}).to_string();
    for (reason, token) in &refused {
        assert_denied(&ask(&site, token), reason);
        // The same claims, signed by somebody else.
        let forged = other_key().sign(&header, &claims_of(token).to_string());
        assert_denied(&ask(&site, &forged), "token_signature");
    }
    let records = site.audit(2 * refused.len());
    let said =
        |record: &Value| ["issuer", "subject", "user", "token_id", "groups"].map(|key| record[key].clone());
    for ((reason, _), pair) in refused.iter().zip(records.chunks(2)) {
        assert_eq!((&pair[0]["reason"], &pair[1]["reason"]), (&json!(reason), &json!("token_signature")));
        assert_eq!(
            said(&pair[0]),
            [json!("idp"), json!("user-1"), json!("ada@example.test"), json!("token-id-1"), Value::Null]
        );
        assert_eq!(
            said(&pair[1]),
            [Value::Null, Value::Null, Value::Null, Value::Null, Value::Null],
            "{reason}"
        );
    }
}

#[test]
fn an_altered_signature_is_not_saved_by_the_cache() {
    let site = Site::start();
    let good = token(&["group1"]);
    assert_allowed(&ask(&site, &good));
    let (text, signature) = good.rsplit_once('.').unwrap();
    // The last character carries bits that decode to nothing: another one there is another token.
    for place in [0, 10, signature.len() / 2, signature.len() - 1] {
        let mut altered = signature.as_bytes().to_vec();
        altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
        let altered = format!("{text}.{}", String::from_utf8(altered).unwrap());
        let answer = ask(&site, &altered);
        assert!(["token_signature", "token_malformed"].contains(&answer.reason()), "{place}: {answer:?}");
    }
    assert_allowed(&ask(&site, &good));
}

#[test]
fn a_remembered_token_expires_all_the_same() {
    let policy = POLICY.replace("    jwks_file:", "    leeway: 0s\n    jwks_file:");
    let site = Site::builder().policy(&policy).start();
    let short = with(json!({"exp": now() + 3}));
    assert_allowed(&ask(&site, &short));
    assert_allowed(&ask(&site, &short));
    wait_for("end of the token", 6, || (ask(&site, &short).reason() == "token_expired").then_some(()));
    assert!(now() >= claims_of(&short)["exp"].as_i64().unwrap());
}

fn claims_of(token: &str) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_replaced_jwks_file_is_in_force_within_five_seconds() {
    let site = Site::builder().workers(2).start();
    let (old, new) = (token(&["group1"]), other_key().token(&claims(&["group1"])));
    for _ in 0..8 {
        assert_allowed(&ask(&site, &old));
    }
    // A file without one usable key keeps the old ones, and is complained about.
    site.expect_errors();
    site.workspace.write("jwks.json", r#"{"keys": []}"#);
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_allowed(&ask(&site, &old));
    site.workspace.write("jwks.json", jwks(&[other_key()]));
    std::thread::sleep(std::time::Duration::from_secs(5));
    for _ in 0..8 {
        assert_allowed(&ask(&site, &new));
        // In both workers, although both had verified it.
        assert_denied(&ask(&site, &old), "token_key_unknown");
    }
}

#[test]
fn without_keys_nobody_is_let_in_and_the_cause_is_ours() {
    let site = Site::builder().policy(&POLICY.replace("jwks.json", "later.json")).start();
    let answer = ask(&site, &token(&["group1"]));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.reason(), "policy_unavailable", "{answer:?}");
    site.workspace.write("later.json", jwks(&[key()]));
    let good = token(&["group1"]);
    wait_for("answer after the keys have come", 6, || (ask(&site, &good).status == 200).then_some(()));
    site.expect_errors();
}
