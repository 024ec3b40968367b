//! Attacks on tokens, and tokens that must pass.

use super::algorithm::AlgorithmSet;
use super::fixtures::{ISSUER, NOW, b64, claims, jwk, key_set, rules, sign, token, with};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

const HEADER: &str = r#"{"typ":"JWT","alg":"RS256","kid":"k1"}"#;

fn keys() -> Arc<KeySet> {
    key_set(&[with(jwk(Algorithm::Rs256), "kid", json!("k1"))], AlgorithmSet::default())
}

/// The reason for which the token is denied by the issuer of the fixtures.
fn refusal(token: &str) -> Option<Reason> {
    verify(token.as_bytes(), &[rules()], &[Some(keys())], NOW).err()
}

fn refusal_of_header(header: &str) -> Option<Reason> {
    refusal(&token(Algorithm::Rs256, header, &claims().to_string()))
}

fn refusal_of_claims(claims: &str) -> Option<Reason> {
    refusal(&token(Algorithm::Rs256, HEADER, claims))
}

#[test]
fn a_good_token_says_whom_it_speaks_for() {
    let token = token(Algorithm::Rs256, HEADER, &claims().to_string());
    let verified = verify(token.as_bytes(), &[rules()], &[Some(keys())], NOW).unwrap();
    assert_eq!(verified.issuer(), 0);
    let identity = verified.identity();
    assert_eq!(identity.subject.as_deref(), Some("subject-1"));
    assert_eq!(identity.object_id.as_deref(), Some("00000000-0000-0000-0000-000000000001"));
    assert_eq!(identity.user.as_deref(), Some("ada@example.org"));
    assert_eq!(identity.token_id.as_deref(), Some("token-1"));
    assert_eq!((identity.not_before, identity.expires), (Some(NOW - 10), NOW + 3600));
    assert_eq!(identity.groups, ["g1".into(), "g2".into()]);
    assert_eq!(verified.check_times(60, NOW + 3659), Ok(()));
    assert_eq!(verified.check_times(60, NOW + 3660), Err(Reason::TokenExpired));
    assert_eq!(verified.check_times(0, NOW + 3600), Err(Reason::TokenExpired));
    assert_eq!(verified.check_times(60, NOW - 70), Ok(()));
    assert_eq!(verified.check_times(60, NOW - 71), Err(Reason::TokenNotYetValid));
}

#[test]
fn headers_that_change_nothing_pass() {
    for header in [
        r#"{"alg":"RS256","kid":"k1"}"#,
        r#"{"typ":"jwt","alg":"RS256","kid":"k1"}"#,
        r#"{"alg":"RS256","kid":"k1","x5t":"k1","nonce":"n"}"#,
        // Without a kid exactly one key fits.
        r#"{"alg":"RS256"}"#,
        // Keys and addresses that a token brings along are not used.
        r#"{"alg":"RS256","kid":"k1","jku":"https://evil.example","x5u":"file:///etc","x5c":["MII"]}"#,
        r#"{"alg":"RS256","kid":"k1","jwk":{"kty":"oct","k":"AA"}}"#,
    ] {
        assert_eq!(refusal_of_header(header), None, "{header}");
    }
}

#[test]
fn algorithms_that_the_issuer_does_not_use_are_unsupported() {
    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "HS256",
        "HS384",
        "HS512",
        "RS384",
        "PS256",
        "ES256",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "rs256",
        "RS256 ",
        " RS256",
        "RS256\u{0}",
        "",
        "RSA-OAEP",
        "dir",
    ] {
        let header = json!({"alg": alg, "kid": "k1"}).to_string();
        assert_eq!(refusal_of_header(&header), Some(Reason::TokenUnsupported), "{alg:?}");
    }
    for header in [
        "{}",
        r#"{"kid":"k1"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["RS256"]}"#,
        r#"{"alg":5}"#,
        r#"{"ALG":"RS256"}"#,
    ] {
        assert_eq!(refusal_of_header(header), Some(Reason::TokenUnsupported), "{header}");
    }
}

#[test]
fn unsigned_tokens_are_refused() {
    let body = b64(claims().to_string());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"none","kid":"k1"}"#] {
        assert_eq!(refusal(&format!("{}.{body}.", b64(header))), Some(Reason::TokenUnsupported));
        assert_eq!(refusal(&format!("{}.{body}", b64(header))), Some(Reason::TokenMalformed));
    }
    assert_eq!(refusal(&format!("{}.{body}.", b64(HEADER))), Some(Reason::TokenSignature));
}

#[test]
fn the_public_key_is_no_shared_secret() {
    // RS256 to HS256: the attacker signs with the public key, which everybody knows, as the secret.
    let n = jwk(Algorithm::Rs256)["n"].as_str().unwrap().to_owned();
    for secret in [n.clone().into_bytes(), URL_SAFE_NO_PAD.decode(&n).unwrap()] {
        for header in [r#"{"alg":"HS256","kid":"k1"}"#, HEADER] {
            let signed = format!("{}.{}", b64(header), b64(claims().to_string()));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
            let forged = format!("{signed}.{}", b64(aws_lc_rs::hmac::sign(&key, signed.as_bytes())));
            let expected = if header == HEADER { Reason::TokenSignature } else { Reason::TokenUnsupported };
            assert_eq!(refusal(&forged), Some(expected));
        }
    }
}

#[test]
fn headers_that_change_the_meaning_of_the_parts_are_unsupported() {
    for extra in [
        r#""crit":["x"],"x":1"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":["b64"],"b64":false"#,
        r#""b64":false"#,
        r#""b64":true"#,
        r#""enc":"A128GCM""#,
        r#""enc":null"#,
        r#""zip":"DEF""#,
        r#""cty":"JWT""#,
        r#""typ":"JWE""#,
        r#""typ":"at+jwt""#,
        r#""typ":"application/jwt""#,
        r#""typ":null"#,
        r#""typ":["JWT"]"#,
        r#""typ":"""#,
    ] {
        let header = format!(r#"{{"alg":"RS256","kid":"k1",{extra}}}"#);
        assert_eq!(refusal_of_header(&header), Some(Reason::TokenUnsupported), "{header}");
    }
}

#[test]
fn encrypted_tokens_are_refused() {
    // CVE-2024-33531: a header with `enc` sent lua-resty-jwt past the signature, whatever the number of parts.
    let body = b64(claims().to_string());
    let header = b64(r#"{"alg":"dir","enc":"A256GCM","kid":"k1"}"#);
    assert_eq!(refusal(&format!("{header}..iv.{body}.tag")), Some(Reason::TokenMalformed));
    assert_eq!(refusal(&format!("{header}.{body}.")), Some(Reason::TokenUnsupported));
    assert_eq!(refusal(&format!("{header}.{body}.AAAA")), Some(Reason::TokenUnsupported));
}

#[test]
fn only_three_parts_of_strict_base64url_within_the_size_are_a_token() {
    let good = token(Algorithm::Rs256, HEADER, &claims().to_string());
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let mut bad = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        header.to_owned(),
        format!("{header}.{body}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{body}.{signature}"),
        format!("Bearer {good}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}\0"),
        format!("{good}é"),
        format!("{good},{good}"),
        format!("{header}=.{body}.{signature}"),
        format!("{header}.{body}==.{signature}"),
        format!("{header}.{body}.{signature}=="),
        format!("{header}.{body}.{}+", signature.get(1..).unwrap()),
        format!("{header}.{body}.{}/", signature.get(1..).unwrap()),
        format!("{header}.{body}.{}%3D", signature.get(3..).unwrap()),
        // `{ "keys": ...` and the JSON serialisation of a JWS.
        json!({"payload": body, "protected": header, "signature": signature}).to_string(),
    ];
    // The last character of 256 bytes carries four bits that must be zero.
    let last = signature.chars().next_back().unwrap();
    assert!("AQgw".contains(last));
    bad.push(format!(
        "{header}.{body}.{}{}",
        signature.strip_suffix(last).unwrap(),
        char::from(last as u8 + 1)
    ));
    for token in bad {
        assert_eq!(refusal(&token), Some(Reason::TokenMalformed), "{token:?}");
    }
    assert_eq!(verify(b"\xff.\xff.\xff", &[rules()], &[Some(keys())], NOW), Err(Reason::TokenMalformed));

    let sized = |len: usize| {
        token(Algorithm::Rs256, HEADER, &with(claims(), "x", json!("x".repeat(len))).to_string())
    };
    let (fits, over) = (sized(23_500), sized(24_500));
    assert!(fits.len() <= MAX_TOKEN_LEN && over.len() > MAX_TOKEN_LEN);
    assert_eq!(refusal(&fits), None);
    assert_eq!(refusal(&over), Some(Reason::TokenMalformed));
}

#[test]
fn headers_and_claims_that_are_not_strict_json_are_malformed() {
    for header in [
        r#"{"alg":"RS256","alg":"RS256","kid":"k1"}"#,
        r#"{"alg":"none","alg":"RS256","kid":"k1"}"#,
        r#"{"alg":"RS256","kid":"k1","kid":"k1"}"#,
        r#"{"alg":"RS256","\u0061lg":"RS256","kid":"k1"}"#,
        r#"{"alg":"RS256","kid":"k1","x":{"y":1,"y":2}}"#,
        r#"{"alg":"RS256","kid":"k1"} {}"#,
        r#"{"alg":"RS256","kid":"k1",}"#,
        r#"["RS256"]"#,
        r#""RS256""#,
        "null",
        "",
        // A kid is a string.
        r#"{"alg":"RS256","kid":1}"#,
        r#"{"alg":"RS256","kid":null}"#,
        r#"{"alg":"RS256","kid":["k1"]}"#,
        r#"{"alg":"RS256","kid":{"k1":1}}"#,
    ] {
        assert_eq!(refusal_of_header(header), Some(Reason::TokenMalformed), "{header}");
    }
    let good = claims().to_string();
    for claims in [
        good.replace('{', r#"{"groups":["admin"],"#),
        good.replace('}', r#","groups":["admin"]}"#),
        good.replace('}', r#","gr\u006fups":["admin"]}"#),
        good.replace('}', r#","sub":"other"}"#),
        good.replace('}', r#","x":{"y":[{"z":1,"z":1}]}}"#),
        format!("{good}{good}"),
        format!("{good},"),
        format!("[{good}]"),
        good.replace('}', ""),
        good.replace('}', ",\"x\":\"\\ud800\"}"),
        format!("{{\"x\":{}", "[".repeat(10_000)),
        "null".to_owned(),
        String::new(),
    ] {
        assert_eq!(refusal_of_claims(&claims), Some(Reason::TokenMalformed), "{claims}");
    }
}

#[test]
fn the_issuer_is_compared_exactly() {
    for iss in ["", "https://issuer.example/", "HTTPS://issuer.example", "https://issuer.example ", "evil"] {
        let claims = with(claims(), "iss", json!(iss)).to_string();
        assert_eq!(refusal_of_claims(&claims), Some(Reason::TokenIssuer), "{iss}");
    }
    assert_eq!(
        refusal_of_claims(&with(claims(), "iss", Value::Null).to_string()),
        Some(Reason::TokenIssuer),
        "absent"
    );
    for iss in [json!([ISSUER]), json!(1), json!({"iss": ISSUER}), json!(true)] {
        let claims = with(claims(), "iss", iss).to_string();
        assert_eq!(refusal_of_claims(&claims), Some(Reason::TokenMalformed), "{claims}");
    }
}

#[test]
fn a_key_verifies_only_for_its_own_issuer() {
    let other = IssuerRules { issuer: "https://other.example".into(), ..rules() };
    let foreign = key_set(
        &[with(jwk(Algorithm::Es256), "kid", json!("k1"))],
        AlgorithmSet::from_iter([Algorithm::Es256]),
    );
    let issuers = [other, rules()];
    let good = token(Algorithm::Rs256, HEADER, &claims().to_string());
    let check = |keys: &[Option<Arc<KeySet>>]| verify(good.as_bytes(), &issuers, keys, NOW);

    assert_eq!(check(&[Some(foreign.clone()), Some(keys())]).unwrap().issuer(), 1);
    assert_eq!(check(&[Some(keys()), Some(foreign)]), Err(Reason::TokenKeyUnknown));
    let empty = Arc::new(KeySet::from_jwks(br#"{"keys":[]}"#, AlgorithmSet::all()).unwrap().0);
    for without in [vec![Some(keys()), None], vec![Some(keys()), Some(empty)], vec![Some(keys())], vec![]] {
        assert_eq!(check(&without), Err(Reason::KeysUnavailable));
    }
    assert_eq!(verify(good.as_bytes(), &[], &[], NOW), Err(Reason::TokenIssuer));
}

#[test]
fn a_kid_selects_its_key_exactly() {
    let long = "k".repeat(10_000);
    for kid in ["k2", "", "K1", "k1 ", "k", "../k1", "k1\0", &long] {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        assert_eq!(refusal_of_header(&header), Some(Reason::TokenKeyUnknown), "{kid:?}");
    }
    // Without a kid the token does not say which of two keys it means.
    let rsa = |kid: Value| with(jwk(Algorithm::Rs256), "kid", kid);
    let ec = with(jwk(Algorithm::Es256), "kid", json!("k3"));
    let nameless = token(Algorithm::Rs256, r#"{"alg":"RS256"}"#, &claims().to_string());
    let check = |keys: &[Value]| {
        let keys = key_set(keys, AlgorithmSet::from_iter([Algorithm::Rs256, Algorithm::Es256]));
        verify(nameless.as_bytes(), &[rules()], &[Some(keys)], NOW).err()
    };
    assert_eq!(check(&[rsa(json!("k1")), ec.clone()]), None, "one key fits");
    assert_eq!(check(&[rsa(Value::Null), ec.clone()]), None, "one key fits, without a name itself");
    let other = |kid: Value| with(rsa(kid), "n", json!(b64([0xff; 256])));
    assert_eq!(check(&[rsa(json!("k1")), other(json!("k2"))]), Some(Reason::TokenKeyUnknown));
    assert_eq!(check(&[rsa(json!("k1")), other(Value::Null)]), Some(Reason::TokenKeyUnknown));
    assert_eq!(check(&[rsa(json!("k1")), rsa(json!("k2")), rsa(Value::Null)]), None, "one key, three times");
    assert_eq!(check(&[ec]), Some(Reason::TokenKeyUnknown), "no key fits");
    // A key without a kid is not the one that a kid names.
    let named = token(Algorithm::Rs256, HEADER, &claims().to_string());
    let keys = key_set(&[rsa(Value::Null)], AlgorithmSet::default());
    assert_eq!(verify(named.as_bytes(), &[rules()], &[Some(keys)], NOW), Err(Reason::TokenKeyUnknown));
}

#[test]
fn keys_of_another_directory_do_not_verify() {
    let (ours, theirs) = ("72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad");
    let check = |iss: &str, key_issuer: &str| {
        let key = with(with(jwk(Algorithm::Rs256), "kid", json!("k1")), "issuer", json!(key_issuer));
        let rules = IssuerRules { issuer: iss.into(), ..rules() };
        let token = token(Algorithm::Rs256, HEADER, &with(claims(), "iss", json!(iss)).to_string());
        verify(token.as_bytes(), &[rules], &[Some(key_set(&[key], AlgorithmSet::default()))], NOW).err()
    };
    let v2 = |directory: &str| format!("https://login.microsoftonline.com/{directory}/v2.0");
    assert_eq!(check(&v2(ours), &v2(ours)), None);
    assert_eq!(check(&v2(ours), &v2("{tenantid}")), None);
    assert_eq!(check(&format!("https://sts.windows.net/{ours}/"), &v2(ours)), None);
    assert_eq!(check(&v2(ours), &v2(theirs)), Some(Reason::TokenKeyUnknown));
    assert_eq!(check("https://keycloak.example", "https://elsewhere.example"), None, "no directory is named");
}

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_others() {
    let rules = IssuerRules { algorithms: AlgorithmSet::all(), ..rules() };
    let body = b64(claims().to_string());
    for own in Algorithm::ALL {
        for restricted in [false, true] {
            let mut key = with(jwk(own), "kid", json!("k1"));
            if restricted {
                key = with(key, "alg", json!(own.name()));
            }
            let keys = [Some(key_set(&[key], AlgorithmSet::all()))];
            for claimed in Algorithm::ALL {
                let signed =
                    format!("{}.{body}", b64(json!({"alg": claimed.name(), "kid": "k1"}).to_string()));
                let token = format!("{signed}.{}", b64(sign(own, signed.as_bytes())));
                let result = verify(token.as_bytes(), std::slice::from_ref(&rules), &keys, NOW);
                if claimed == own {
                    assert!(result.is_ok(), "{own}: {result:?}");
                } else {
                    let same_key = !restricted && jwk(own) == jwk(claimed);
                    let expected = if same_key { Reason::TokenSignature } else { Reason::TokenKeyUnknown };
                    assert_eq!(result, Err(expected), "{own} as {claimed}");
                }
            }
        }
    }
}

#[test]
fn an_algorithm_that_the_issuer_may_not_use_is_refused_before_its_key() {
    let token = token(Algorithm::Ps256, r#"{"alg":"PS256","kid":"k1"}"#, &claims().to_string());
    let keys = key_set(&[with(jwk(Algorithm::Rs256), "kid", json!("k1"))], AlgorithmSet::all());
    assert_eq!(
        verify(token.as_bytes(), &[rules()], &[Some(keys)], NOW),
        Err(Reason::TokenUnsupported),
        "the key could verify it"
    );
}

#[test]
fn degenerate_ecdsa_signatures_are_refused() {
    let rules = IssuerRules { algorithms: AlgorithmSet::all(), ..rules() };
    let keys = [Some(key_set(&[with(jwk(Algorithm::Es256), "kid", json!("k1"))], AlgorithmSet::all()))];
    let signed = format!("{}.{}", b64(r#"{"alg":"ES256","kid":"k1"}"#), b64(claims().to_string()));
    let good = sign(Algorithm::Es256, signed.as_bytes());
    let der = [&[0x30, 68, 2, 32], &good[..32], &[2, 32], &good[32..]].concat();
    for signature in [
        vec![0; 64],
        vec![0xff; 64],
        [&[0; 32], &good[32..]].concat(),
        [&good[..32], &[0; 32]].concat(),
        good[..63].to_vec(),
        [&good[..], &[0]].concat(),
        der,
        vec![],
    ] {
        let token = format!("{signed}.{}", b64(&signature));
        assert_eq!(
            verify(token.as_bytes(), std::slice::from_ref(&rules), &keys, NOW),
            Err(Reason::TokenSignature),
            "{signature:02x?}"
        );
    }
    let token = format!("{signed}.{}", b64(&good));
    assert!(verify(token.as_bytes(), std::slice::from_ref(&rules), &keys, NOW).is_ok());
}

#[test]
fn the_first_failing_check_gives_the_reason() {
    // Everything is wrong; each step mends what the step before complained of.
    let mut header = json!({"alg": "RS256", "kid": "k2", "crit": ["x"]});
    let mut body = with(with(claims(), "exp", json!("soon")), "groups", json!(1));
    body["iss"] = json!("https://evil.example");
    body["aud"] = json!("elsewhere");
    let check = |header: &Value, body: &Value, signed_by_us: bool| {
        let mut token = token(Algorithm::Rs256, &header.to_string(), &body.to_string());
        if !signed_by_us {
            token.replace_range(token.len() - 8..token.len() - 4, "AAAA");
        }
        refusal(&token)
    };
    assert_eq!(check(&header, &body, false), Some(Reason::TokenUnsupported));
    header = with(header, "crit", Value::Null);
    assert_eq!(check(&header, &body, false), Some(Reason::TokenIssuer));
    body["iss"] = json!(ISSUER);
    assert_eq!(check(&header, &body, false), Some(Reason::TokenKeyUnknown));
    header["kid"] = json!("k1");
    assert_eq!(check(&header, &body, false), Some(Reason::TokenSignature));
    assert_eq!(check(&header, &body, true), Some(Reason::TokenMalformed));
    body["exp"] = json!(NOW - 61);
    assert_eq!(check(&header, &body, true), Some(Reason::TokenExpired));
    body["exp"] = json!(NOW + 61);
    assert_eq!(check(&header, &body, true), Some(Reason::TokenAudience));
    body["aud"] = json!(["elsewhere", "grafana"]);
    assert_eq!(check(&header, &body, true), Some(Reason::GroupsMalformed));
    body["groups"] = json!([]);
    assert_eq!(check(&header, &body, true), None);
}

/// The subject and user that a refused token was made for.
fn whom(token: &str) -> Option<(Option<Box<str>>, Option<Box<str>>)> {
    let refused = prove(token.as_bytes(), &[rules()], &[Some(keys())], NOW).unwrap_err();
    assert_eq!(Some(refused.reason), refusal(token), "the reason is the same");
    let signed = refused.signed?;
    assert_eq!((signed.issuer(), signed.key_ids()), (0, &["k1".into()][..]));
    assert!(signed.identity().groups.is_empty(), "it grants nothing");
    assert_eq!(signed.check_times(300, NOW), Err(Reason::TokenExpired), "nor at any time");
    Some((signed.identity().subject.clone(), signed.identity().user.clone()))
}

#[test]
fn a_refused_token_says_whom_it_was_made_for_once_its_signature_held() {
    let ada = Some((Some("subject-1".into()), Some("ada@example.org".into())));
    for (name, value) in [
        ("exp", json!(NOW - 3600)),
        ("nbf", json!(NOW + 3600)),
        ("exp", Value::Null),
        ("aud", json!("elsewhere")),
        ("aud", json!(5)),
        ("groups", Value::Null),
        ("groups", json!(5)),
        ("hasgroups", json!(true)),
        ("iat", json!("soon")),
    ] {
        let claims = with(with(claims(), "groups", Value::Null), name, value);
        assert_eq!(whom(&token(Algorithm::Rs256, HEADER, &claims.to_string())), ada, "{claims}");
    }
    // What cannot stand in a record does not.
    let evil = with(with(claims(), "sub", json!("a\nb")), "preferred_username", json!(7));
    assert_eq!(whom(&token(Algorithm::Rs256, HEADER, &evil.to_string())), Some((None, None)));

    // Nothing that is not verified is said.
    let expired = with(claims(), "exp", json!(1)).to_string();
    let good = token(Algorithm::Rs256, HEADER, &expired);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut forged = vec![
        format!("{signed}."),
        format!("{signed}.{}", b64([0; 256])),
        format!("{}.{}.{signature}", b64(HEADER), b64(with(claims(), "sub", json!("root")).to_string())),
        token(Algorithm::Rs256, r#"{"alg":"RS256","kid":"k2"}"#, &expired),
        token(Algorithm::Rs256, r#"{"alg":"none","kid":"k1"}"#, &expired),
        token(Algorithm::Rs256, r#"{"alg":"RS256","kid":"k1","crit":["x"]}"#, &expired),
        token(Algorithm::Es256, HEADER, &expired),
        token(Algorithm::Rs256, HEADER, &with(claims(), "iss", json!("https://evil.example")).to_string()),
        token(Algorithm::Rs256, HEADER, &expired.replace('{', r#"{"sub":"root","#)),
    ];
    forged.push(String::new());
    for token in forged {
        assert_eq!(whom_or_nobody(&token), None, "{token}");
    }
}

fn whom_or_nobody(token: &str) -> Option<Box<VerifiedClaims>> {
    prove(token.as_bytes(), &[rules()], &[Some(keys())], NOW).unwrap_err().signed
}

#[test]
fn the_key_that_verified_a_token_is_known_whatever_its_header_says() {
    let rsa = |kid: Value| with(jwk(Algorithm::Rs256), "kid", kid);
    let of = |header: &str, keys: &[Value]| {
        let token = token(Algorithm::Rs256, header, &claims().to_string());
        let keys = key_set(keys, AlgorithmSet::default());
        verify(token.as_bytes(), &[rules()], &[Some(keys)], NOW).unwrap().key_ids().to_vec()
    };
    assert_eq!(of(HEADER, &[rsa(json!("k1"))]), ["k1".into()]);
    assert_eq!(of(r#"{"alg":"RS256"}"#, &[rsa(json!("k1"))]), ["k1".into()]);
    assert_eq!(of(r#"{"alg":"RS256"}"#, &[rsa(Value::Null)]), []);
    assert_eq!(of(HEADER, &[rsa(json!("k1")), rsa(json!("k2"))]), ["k1".into(), "k2".into()]);
}

#[test]
fn ed25519_may_call_itself_by_its_own_name() {
    let keys = key_set(&[jwk(Algorithm::EdDsa)], AlgorithmSet::all());
    let check = |alg: &str, algorithms: &[Algorithm]| {
        let token = token(Algorithm::EdDsa, &json!({"alg": alg}).to_string(), &claims().to_string());
        let rules = IssuerRules { algorithms: algorithms.iter().copied().collect(), ..rules() };
        verify(token.as_bytes(), &[rules], &[Some(keys.clone())], NOW).err()
    };
    for alg in ["EdDSA", "Ed25519"] {
        assert_eq!(check(alg, &[Algorithm::EdDsa]), None, "{alg}");
        assert_eq!(check(alg, &[Algorithm::Rs256]), Some(Reason::TokenUnsupported), "{alg}");
    }
    for alg in ["Ed448", "ed25519", "EDDSA"] {
        assert_eq!(check(alg, &Algorithm::ALL), Some(Reason::TokenUnsupported), "{alg}");
    }
}

#[test]
fn any_flipped_bit_is_denied() {
    let mut token = token(Algorithm::Rs256, HEADER, &claims().to_string()).into_bytes();
    let (rules, keys) = ([rules()], [Some(keys())]);
    for at in 0..token.len() {
        for bit in 0..8 {
            token[at] ^= 1 << bit;
            assert!(verify(&token, &rules, &keys, NOW).is_err(), "byte {at}, bit {bit}");
            token[at] ^= 1 << bit;
        }
    }
    assert!(verify(&token, &rules, &keys, NOW).is_ok());
}

#[test]
fn any_truncation_is_denied() {
    let token = token(Algorithm::Rs256, HEADER, &claims().to_string());
    let (rules, keys) = ([rules()], [Some(keys())]);
    for len in 0..token.len() {
        assert!(verify(&token.as_bytes()[..len], &rules, &keys, NOW).is_err(), "{len}");
        assert!(verify(&token.as_bytes()[len + 1..], &rules, &keys, NOW).is_err(), "from {len}");
    }
}

#[test]
fn the_jsonwebtoken_crate_agrees_on_good_tokens() {
    use jsonwebtoken as peer;
    let mut validation = peer::Validation::new(peer::Algorithm::RS256);
    validation.set_audience(&["grafana"]);
    validation.validate_exp = false;
    let key = jwk(Algorithm::Rs256);
    let key = peer::DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap())
        .unwrap();
    let token = token(Algorithm::Rs256, HEADER, &claims().to_string());
    assert_eq!(refusal(&token), None);
    assert_eq!(peer::decode::<Value>(&token, &key, &validation).unwrap().claims, claims());
}

static GOOD: LazyLock<String> = LazyLock::new(|| token(Algorithm::Rs256, HEADER, &claims().to_string()));

proptest! {
    #[test]
    fn no_bytes_panic(token in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(verify(&token, &[rules()], &[Some(keys())], NOW).is_err());
    }

    #[test]
    fn no_parts_panic(header in r#"\{"alg":"(RS256|ES256|none)"(,"kid":"k[12]")?\}|.{0,20}"#, claims in r#"\{.{0,40}\}"#, signature in any::<Vec<u8>>()) {
        let token = format!("{}.{}.{}", b64(header), b64(claims), b64(signature));
        prop_assert!(refusal(&token).is_some());
    }

    #[test]
    fn parts_of_a_good_token_do_not_verify_in_another(claims in r#"\{"iss":"https://issuer\.example","groups":\["[a-z]{1,9}"\]\}"#) {
        let (_, rest) = GOOD.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let token = format!("{}.{}.{signature}", b64(HEADER), b64(claims));
        prop_assert_eq!(refusal(&token), Some(Reason::TokenSignature));
    }
}
