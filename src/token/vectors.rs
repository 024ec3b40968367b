//! Published signatures: those of the RFCs, and the hostile ones of Project Wycheproof.
//!
//! They are held against what [`super::verify`] asks before it reads claims, since what was signed is none; and the
//! invalid ones against [`super::verify`] itself.

use super::algorithm::{Algorithm, AlgorithmSet};
use super::claims::IssuerRules;
use super::fixtures::{ISSUER, NOW, rules};
use super::json::Object;
use super::keys::KeySet;
use super::{Header, Parts, decode, verify};
use crate::reason::Reason;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use wycheproof_ng_kdf_jose::json_web::{TestName, TestSet};

/// The keys, or an empty set, of what is one key or a set of them.
fn key_set(jwk: &Value) -> KeySet {
    let set = if jwk.get("keys").is_some() { jwk.clone() } else { json!({"keys": [jwk]}) };
    KeySet::from_jwks(set.to_string().as_bytes(), AlgorithmSet::all()).unwrap().0
}

/// Verifies a signature as [`verify`] does, whatever was signed.
fn verify_jws(keys: &KeySet, jws: &str) -> Result<(), Reason> {
    let parts = Parts::split(jws.as_bytes())?;
    let (header, _payload) = (decode(parts.header)?, decode(parts.payload)?);
    let signature = decode(parts.signature)?;
    let header = Object::parse(&header).map_err(|_| Reason::TokenMalformed)?;
    let header = Header::read(&header)?;
    keys.verify(ISSUER, header.kid, header.algorithm, parts.signed.as_bytes(), &signature).map(|_| ())
}

/// No token of a real issuer either.
fn assert_no_token(keys: KeySet, jws: &str) {
    let any = IssuerRules { algorithms: AlgorithmSet::all(), ..rules() };
    assert!(verify(jws.as_bytes(), &[any], &[Some(Arc::new(keys))], NOW).is_err(), "{jws}");
}

/// The examples of RFC 7515, appendix A, and of RFC 7520, section 4. What is refused of them: shared secrets (HS256), the
/// curve P-521 (ES512), `none`, the detached form, and JSON serialization.
#[test]
fn examples_of_the_rfcs() {
    let data: Value = serde_json::from_str(include_str!("../../tests/data/jose_examples.json")).unwrap();
    let mut verified = 0;
    for example in data["examples"].as_array().unwrap() {
        let (source, jws) = (&example["source"], example["jws"].as_str().unwrap());
        let outcome = verify_jws(&key_set(&example["key"]), jws).map_or_else(Reason::name, |()| "verifies");
        assert_eq!(example["outcome"], outcome, "{source}");
        assert_no_token(key_set(&example["key"]), jws);
        if outcome == "verifies" {
            verified += 1;
            // Any other bytes are not what was signed.
            let elsewhere = jws.replacen('.', ".AAAA", 1);
            let outcome = verify_jws(&key_set(&example["key"]), &elsewhere);
            assert_eq!(outcome, Err(Reason::TokenSignature), "{source}");
        }
    }
    assert_eq!(verified, 4);
}

/// Wycheproof's sets, of which none that is invalid may verify. What is valid and refused all the same is counted by why.
#[test]
fn wycheproof_finds_nothing() {
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut invalid, mut valid) = (0, 0);
    for name in [TestName::JsonWebSignature, TestName::JsonWebKey, TestName::JsonWebCrypto] {
        for group in TestSet::load(name).unwrap().test_groups {
            let jwk = group.public_key.or(group.private_key).unwrap();
            for test in group.tests {
                // The others are encrypted (JWE), which nothing here reads.
                let Some(jws) = test.jws else { continue };
                let text = match &jws {
                    Value::String(compact) => compact.clone(),
                    json => json.to_string(),
                };
                let outcome = verify_jws(&key_set(&jwk), &text);
                assert_no_token(key_set(&jwk), &text);
                let what = format!("{name:?} {} {}: {}", test.tc_id, group.group_comment, test.comment);
                if test.result.must_fail() {
                    assert!(outcome.is_err(), "{what}");
                    invalid += 1;
                } else if let Err(reason) = outcome {
                    *refused.entry(why_not_ours(&jwk, &text)).or_default() += 1;
                    assert!(!why_not_ours(&jwk, &text).is_empty(), "{what}: {reason}");
                } else {
                    assert_eq!(why_not_ours(&jwk, &text), "", "{what}");
                    valid += 1;
                }
            }
        }
    }
    let expected = BTreeMap::from([
        ("a shared secret (HMAC)", 16),
        ("another algorithm than the key's own", 2),
        ("the curve P-521", 2),
    ]);
    assert_eq!((invalid, valid, refused), (421, 35, expected));
}

/// Why a valid signature is none for us, from the key and the header alone; empty where it should verify.
fn why_not_ours(jwk: &Value, jws: &str) -> &'static str {
    let header: Value = serde_json::from_slice(&decode(jws.split('.').next().unwrap()).unwrap_or_default())
        .unwrap_or_default();
    let algorithm = header["alg"].as_str().unwrap_or_default();
    let key = match jwk["keys"].as_array() {
        Some(keys) => keys.iter().find(|key| key["kid"] == header["kid"]).unwrap(),
        None => jwk,
    };
    if key["kty"] == "oct" {
        "a shared secret (HMAC)"
    } else if key["crv"] == "P-521" {
        "the curve P-521"
    } else if key["alg"].as_str().is_some_and(|own| own != algorithm) {
        "another algorithm than the key's own"
    } else {
        ""
    }
}

/// Verifies with one key whatever the header says.
fn verify_as(key: &Value, algorithm: Algorithm, jws: &str) -> Result<(), Reason> {
    let (message, signature) = jws.rsplit_once('.').unwrap();
    let signature = decode(signature).unwrap();
    key_set(key).verify(ISSUER, None, algorithm, message.as_bytes(), &signature).map(|_| ())
}

#[test]
fn a_signature_verifies_under_its_own_algorithm_alone() {
    let rfc7515_a2 = (
        json!({
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-\
                  yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-\
                  KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_\
                  h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        }),
        Algorithm::Rs256,
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290\
         Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5ju\
         jGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRm\
         B_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5A\
         XLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    );
    let rfc7515_a3 = (
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }),
        Algorithm::Es256,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290\
         Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );
    let rfc8037_a4 = (
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
        Algorithm::EdDsa,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhij\
         cNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
    for (key, algorithm, jws) in [rfc7515_a2, rfc7515_a3, rfc8037_a4] {
        assert_eq!(verify_as(&key, algorithm, jws), Ok(()), "{algorithm}");
        let elsewhere = jws.replacen('.', ".A", 1);
        assert_eq!(verify_as(&key, algorithm, &elsewhere), Err(Reason::TokenSignature), "{algorithm}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(verify_as(&key, other, jws).is_err(), "{algorithm} as {other}");
        }
    }
}
