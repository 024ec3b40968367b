//! Keys that must be refused, and keys that must not.

use super::*;
use crate::token::fixtures::{b64, jwk, with};
use serde_json::{Value, json};

fn parse(keys: &Value, algorithms: AlgorithmSet) -> (KeySet, Vec<KeyReport>) {
    KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes(), algorithms).unwrap()
}

/// Why the key is refused by an issuer that uses every algorithm.
fn refusal(key: &Value) -> Option<String> {
    let (set, mut reports) = parse(&json!([key]), AlgorithmSet::all());
    let refused = reports.remove(0).refused;
    assert_eq!(set.is_empty(), refused.is_some());
    refused
}

fn rsa() -> Value {
    jwk(Algorithm::Rs256)
}

#[track_caller]
fn assert_refused(key: &Value, why: &str) {
    let refused = refusal(key).unwrap_or_else(|| panic!("accepted: {key}"));
    assert!(refused.contains(why), "{refused}");
}

#[test]
fn keys_for_verifying_are_accepted() {
    for algorithm in Algorithm::ALL {
        let key = jwk(algorithm);
        for good in [
            key.clone(),
            with(key.clone(), "alg", json!(algorithm.name())),
            with(with(key.clone(), "use", json!("sig")), "kid", json!("k1")),
            with(key.clone(), "key_ops", json!(["verify"])),
            with(with(key.clone(), "x5c", json!(["MII"])), "x5t", json!("t")),
        ] {
            assert_eq!(refusal(&good), None, "{good}");
        }
    }
}

#[test]
fn shared_secrets_and_unknown_kinds_are_refused() {
    assert_refused(&json!({"kty": "oct", "k": b64([1; 32]), "alg": "HS256"}), "shared secret");
    assert_refused(&json!({"kty": "oct", "k": b64([1; 32]), "alg": "RS256", "use": "sig"}), "shared secret");
    for kty in ["", "rsa", "DH", "AKP"] {
        assert_refused(&with(rsa(), "kty", json!(kty)), "is not supported");
    }
    assert_refused(&with(rsa(), "kty", Value::Null), "no `kty`");
    assert_refused(&with(rsa(), "kty", json!(1)), "`kty` is not a string");
    assert_refused(&json!("RSA"), "not an object");
}

#[test]
fn keys_for_something_else_are_refused() {
    assert_refused(&with(rsa(), "use", json!("enc")), "`use` is `enc`");
    assert_refused(&with(rsa(), "use", json!("SIG")), "`use`");
    assert_refused(&with(rsa(), "use", json!(["sig"])), "`use` is not a string");
    assert_refused(&with(rsa(), "key_ops", json!(["encrypt", "wrapKey"])), "`verify`");
    assert_refused(&with(rsa(), "key_ops", json!([])), "`verify`");
    assert_refused(&with(rsa(), "key_ops", json!("verify")), "not an array");
    assert_refused(&with(rsa(), "d", json!("AQAB")), "private key");
}

#[test]
fn algorithms_must_fit_the_key_and_the_issuer() {
    for alg in ["none", "HS256", "RSA-OAEP", "ES512", "rs256", ""] {
        assert_refused(&with(rsa(), "alg", json!(alg)), "is not supported");
    }
    assert_refused(&with(rsa(), "alg", json!(1)), "`alg` is not a string");
    for own in Algorithm::ALL {
        for other in Algorithm::ALL.into_iter().filter(|other| jwk(*other) != jwk(own)) {
            assert_refused(&with(jwk(own), "alg", json!(other.name())), "does not fit");
        }
    }
    let only = |algorithm: Algorithm| AlgorithmSet::from_iter([algorithm]);
    let (set, reports) = parse(&json!([with(rsa(), "alg", json!("PS256"))]), only(Algorithm::Rs256));
    assert!(set.is_empty() && reports[0].refused.as_ref().unwrap().contains("issuer's algorithms"));
    let (set, reports) = parse(&json!([jwk(Algorithm::Es384), rsa()]), only(Algorithm::Es256));
    assert!(set.is_empty());
    assert!(reports[0].refused.as_ref().unwrap().contains("a P-384 key"));
    assert!(reports[1].refused.as_ref().unwrap().contains("an RSA key"));
}

#[test]
fn rsa_numbers_are_within_bounds() {
    // Whether a modulus has two prime factors nobody can tell: odd is all that can be asked.
    let modulus = |bits: usize| {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] >>= (8 - bits % 8) % 8;
        with(rsa(), "n", json!(b64(n)))
    };
    for bits in [2048, 3072, 4096, 8192] {
        assert_eq!(refusal(&modulus(bits)), None, "{bits}");
    }
    for bits in [8, 512, 1024, 2040, 2047] {
        assert_refused(&modulus(bits), &format!("{bits} bits, fewer than 2048"));
    }
    for bits in [8193, 16384] {
        assert_refused(&modulus(bits), &format!("{bits} bits, more than 8192"));
    }
    for (e, why) in [
        (&[1][..], "below 3"),
        (&[0], "zero byte"),
        (&[], "zero byte"),
        (&[0, 1, 0, 1], "zero byte"),
        (&[2], "even"),
        (&[1, 0, 0], "even"),
        (&[1, 0, 0, 0, 1], "above"),
    ] {
        assert_refused(&with(rsa(), "e", json!(b64(e))), why);
    }
    assert_eq!(refusal(&with(rsa(), "e", json!(b64([3])))), None);
    let mut even = vec![0xff; 256];
    even[255] = 0xfe;
    assert_refused(&with(rsa(), "n", json!(b64(even))), "`n` is even");
    assert_refused(&with(rsa(), "n", json!(b64([&[0][..], &[0xff; 256]].concat()))), "zero byte");
    for (name, bad, why) in [
        ("n", Value::Null, "no `n`"),
        ("e", Value::Null, "no `e`"),
        ("n", json!(1), "not a string"),
        ("e", json!("AQAB=="), "not base64url"),
        ("n", json!("+/"), "not base64url"),
    ] {
        assert_refused(&with(rsa(), name, bad), why);
    }
}

#[test]
fn points_lie_on_their_curve() {
    for algorithm in [Algorithm::Es256, Algorithm::Es384] {
        let key = jwk(algorithm);
        for name in ["x", "y"] {
            let mut coordinate = URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
            let short = with(key.clone(), name, json!(b64(&coordinate[1..])));
            assert_refused(&short, "length");
            let long = with(key.clone(), name, json!(b64([&[0], &coordinate[..]].concat())));
            assert_refused(&long, "length");
            coordinate[7] ^= 1;
            assert_refused(&with(key.clone(), name, json!(b64(&coordinate))), "not a valid public key");
            coordinate.fill(0xff);
            assert_refused(&with(key.clone(), name, json!(b64(&coordinate))), "not a valid public key");
            assert_refused(&with(key.clone(), name, Value::Null), "it has no");
        }
    }
    let zero = json!({"kty": "EC", "crv": "P-256", "x": b64([0; 32]), "y": b64([0; 32])});
    assert_refused(&zero, "not a valid public key");
    for crv in ["P-384", "P-521", "secp256k1", "Ed25519", "p-256", ""] {
        let why = if crv == "P-384" { "length" } else { "not supported" };
        assert_refused(&with(jwk(Algorithm::Es256), "crv", json!(crv)), why);
    }
    assert_refused(&with(jwk(Algorithm::Es256), "crv", Value::Null), "not supported");
    for crv in ["X25519", "Ed448", "P-256", ""] {
        assert_refused(&with(jwk(Algorithm::EdDsa), "crv", json!(crv)), "not supported");
    }
    assert_refused(&with(jwk(Algorithm::EdDsa), "x", json!(b64([1; 31]))), "32 bytes");
    assert_refused(&with(jwk(Algorithm::EdDsa), "kty", json!("EC")), "not supported");
}

#[test]
fn a_kid_is_a_unique_string() {
    let named = |key: Value, kid: &str| with(key, "kid", json!(kid));
    let keys = json!([
        named(rsa(), "twice"),
        named(jwk(Algorithm::Es256), "once"),
        named(jwk(Algorithm::EdDsa), "twice"),
        rsa(),
        jwk(Algorithm::Es384),
    ]);
    let (set, reports) = parse(&keys, AlgorithmSet::all());
    let accepted: Vec<bool> = reports.iter().map(|report| report.refused.is_none()).collect();
    assert_eq!(accepted, [false, true, false, true, true], "{reports:?}");
    assert_eq!(set.len(), 3);
    assert!(reports[0].refused.as_ref().unwrap().contains("not unique"));
    assert_refused(&with(rsa(), "kid", json!(1)), "`kid` is not a string");
    assert_refused(&named(rsa(), &"k".repeat(MAX_KID_LEN + 1)), "longer than 256 bytes");
    assert_eq!(refusal(&named(rsa(), &"k".repeat(MAX_KID_LEN))), None);
}

#[test]
fn a_document_is_one_object_with_keys_within_bounds() {
    let error = |text: &str| KeySet::from_jwks(text.as_bytes(), AlgorithmSet::all()).unwrap_err();
    for text in
        ["", "[]", "null", "{", "{} {}", r#"{"keys":[],"keys":[]}"#, r#"{"keys":[{"kid":"a","kid":"b"}]}"#]
    {
        assert!(matches!(error(text), InvalidJwks::Json(_)), "{text}");
    }
    assert_eq!(
        error("{\"keys\":[],\n \"keys\":[]}").to_string(),
        "is not valid JSON: duplicate member at line 2 column 7"
    );
    for text in ["{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"Keys":[]}"#, &rsa().to_string()] {
        assert_eq!(error(text), InvalidJwks::NoKeys, "{text}");
    }
    let many = |count: usize| json!({"keys": vec![json!({}); count]}).to_string();
    assert_eq!(error(&many(MAX_KEYS + 1)), InvalidJwks::TooManyKeys);
    let (set, reports) = KeySet::from_jwks(many(MAX_KEYS).as_bytes(), AlgorithmSet::all()).unwrap();
    assert!(set.is_empty() && reports.len() == MAX_KEYS);
    let padded = format!("{}{}", json!({"keys": [rsa()]}), " ".repeat(MAX_JWKS_LEN));
    assert_eq!(error(&padded), InvalidJwks::TooLarge);
}

#[test]
fn sets_differ_by_what_they_verify() {
    let set = |keys: Value| parse(&keys, AlgorithmSet::all()).0;
    let (one, other) = (with(rsa(), "kid", json!("1")), with(jwk(Algorithm::Es256), "kid", json!("2")));
    assert_eq!(set(json!([one, other])), set(json!([other, one])), "order says nothing");
    assert_eq!(set(json!([one])), set(json!([with(one.clone(), "x5t", json!("t"))])), "nor do other members");
    assert_eq!(set(json!([one])), set(json!([one, {"kty": "oct", "k": "AA"}])), "nor refused keys");
    for differing in [
        json!([]),
        json!([other]),
        json!([one, other]),
        json!([with(one.clone(), "kid", json!("3"))]),
        json!([rsa()]),
        json!([with(one.clone(), "alg", json!("RS256"))]),
        json!([with(one.clone(), "issuer", json!("x"))]),
        json!([with(one.clone(), "e", json!(b64([3])))]),
    ] {
        assert_ne!(set(json!([one])), set(differing.clone()), "{differing}");
    }
    assert_ne!(parse(&json!([one]), AlgorithmSet::default()).0, set(json!([one])), "fewer algorithms");
    assert_eq!(format!("{:?}", set(json!([one]))), "KeySet { len: 1, .. }", "keys are not printed");
}

#[test]
fn reports_describe_without_showing() {
    let key = with(with(with(rsa(), "kid", json!("k1")), "alg", json!("RS512")), "use", json!("sig"));
    let (_, reports) = parse(&json!([key, jwk(Algorithm::Es384), null]), AlgorithmSet::all());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        reports[0],
        KeyReport {
            kid: text("k1"),
            kty: text("RSA"),
            alg: text("RS512"),
            size: text("2048 bits"),
            usage: text("sig"),
            refused: None,
        }
    );
    assert_eq!((&reports[1].kty, &reports[1].size), (&text("EC"), &text("P-384")));
    assert_eq!((&reports[2].kty, &reports[2].refused), (&None, &text("it is not an object")));
}

#[test]
fn keys_of_the_broken_generator_are_told() {
    // One more than a multiple of every prime of the fingerprint: modulo each it is 65537 to the power of 0.
    let n = "gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAG47KVL8d5gzwgbOdgiJTOdQ26zMIc2LdTqBtFjHw";
    let key = json!({"kty": "RSA", "kid": "weak", "n": n, "e": "AQAB"});
    let jwks = json!({"keys": [key]}).to_string();
    let (set, reports) = KeySet::from_jwks(jwks.as_bytes(), AlgorithmSet::all()).unwrap();
    assert!(set.is_empty());
    assert!(reports[0].refused.as_ref().is_some_and(|why| why.contains("CVE-2017-15361")), "{reports:?}");
}

#[test]
fn what_a_provider_writes_is_quoted_and_short() {
    let alg = format!("x\n2026/11/23 00:00:00 [emerg] 1#1: forged {}", "y".repeat(500_000));
    let json = serde_json::json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "alg": alg,
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
    let (_, reports) = KeySet::from_jwks(json.to_string().as_bytes(), AlgorithmSet::all()).unwrap();
    let why = reports[0].refused.as_deref().unwrap();
    assert!(!why.contains('\n') && why.len() < 1000, "{} bytes, newline {}", why.len(), why.contains('\n'));
}

#[test]
fn what_a_provider_says_is_shown_on_one_line_of_bounded_length() {
    // Found by fuzzing: each of these is written as six.
    let json = serde_json::json!({"keys": [{"kty": "\u{202e}".to_owned() + &"\u{7f}".repeat(500)}]});
    let (_, reports) = KeySet::from_jwks(json.to_string().as_bytes(), AlgorithmSet::all()).unwrap();
    let why = reports[0].refused.as_deref().unwrap();
    assert!(why.starts_with("its `kty` `\\u{202e}\\u{7f}") && why.ends_with("..."), "{why}");
    assert!(why.len() <= 503 && why.is_ascii(), "{why}");
}
