//! Keys that must be refused, and keys that must not.

use super::*;
use crate::token::fixtures::{ISSUER, b64, jwk, sign, with};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        for value in [json!("AQAB"), json!(""), json!([]), json!(1)] {
            assert_refused(&with(rsa(), name, value), "it is a private key");
        }
    }
}

#[test]
fn members_that_are_null_say_nothing() {
    let mut key = rsa();
    for name in ["kid", "alg", "use", "key_ops", "issuer", "x5c", "d", "oth"] {
        key[name] = Value::Null;
    }
    assert_eq!(refusal(&key), None);
    for (name, why) in [("kty", "no `kty`"), ("n", "no `n`"), ("e", "no `e`")] {
        let mut key = rsa();
        key[name] = Value::Null;
        assert_refused(&key, why);
    }
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
        (&[0], "empty or zero"),
        (&[0, 0, 0], "empty or zero"),
        (&[], "empty or zero"),
        (&[0, 1], "below 3"),
        (&[0, 0, 2], "even"),
        (&[0, 1, 0, 0, 0, 1], "above"),
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
    // Zeros in front count for nothing, not for length either.
    assert_refused(&with(rsa(), "n", json!(b64([&[0][..], &[0xff; 255]].concat()))), "2040 bits");
    assert_refused(&with(rsa(), "n", json!(b64([0; 256]))), "empty or zero");
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
            // A byte that is missing makes another number, unless it is 0.
            if coordinate[0] != 0 {
                let short = with(key.clone(), name, json!(b64(&coordinate[1..])));
                assert_refused(&short, "not a valid public key");
            }
            let long = with(key.clone(), name, json!(b64([&[1], &coordinate[..]].concat())));
            assert_refused(&long, "longer than the curve's coordinates");
            assert_refused(&with(key.clone(), name, json!("")), "empty or zero");
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
        let why = if crv == "P-384" { "not a valid public key" } else { "not supported" };
        assert_refused(&with(jwk(Algorithm::Es256), "crv", json!(crv)), why);
    }
    assert_refused(&with(jwk(Algorithm::Es256), "crv", Value::Null), "not supported");
    for crv in ["X25519", "Ed448", "P-256", ""] {
        assert_refused(&with(jwk(Algorithm::EdDsa), "crv", json!(crv)), "not supported");
    }
    // The bytes of Ed25519 are no number (RFC 8037 section 2): none may be left out or added.
    let x = URL_SAFE_NO_PAD.decode(jwk(Algorithm::EdDsa)["x"].as_str().unwrap()).unwrap();
    for bad in [vec![1; 31], [&[0], &x[..]].concat(), [&x[..], &[0]].concat(), x[1..].to_vec(), vec![]] {
        assert_refused(&with(jwk(Algorithm::EdDsa), "x", json!(b64(bad))), "32 bytes");
    }
    assert_refused(&with(jwk(Algorithm::EdDsa), "kty", json!("EC")), "not supported");
}

fn named(key: Value, kid: &str) -> Value {
    with(key, "kid", json!(kid))
}

/// An RSA modulus of 2048 bits, and others.
fn other_rsa(odd: u8) -> Value {
    let mut n = vec![0xff; 256];
    n[255] = odd;
    with(rsa(), "n", json!(b64(n)))
}

/// Which entries were accepted.
fn accepted(reports: &[KeyReport]) -> Vec<bool> {
    reports.iter().map(|report| report.refused.is_none()).collect()
}

/// Whether the set verifies a signature of the fixtures' key.
fn verifies(set: &KeySet, kid: Option<&str>, algorithm: Algorithm) -> bool {
    let signature = sign(algorithm, b"message");
    set.verify(ISSUER, kid, algorithm, b"message", &signature).is_ok()
}

#[test]
fn a_kid_names_one_key_for_an_algorithm() {
    let keys = json!([
        named(rsa(), "twice"),
        named(jwk(Algorithm::Es256), "once"),
        named(other_rsa(3), "twice"),
        rsa(),
        jwk(Algorithm::Es384),
        named(jwk(Algorithm::EdDsa), "twice"),
    ]);
    let (set, reports) = parse(&keys, AlgorithmSet::all());
    // Of the RSA key the entry without a name remains, and the other kind of key is told apart by its algorithm.
    assert_eq!(accepted(&reports), [false, true, false, true, true, true], "{reports:?}");
    assert_eq!(set.len(), 4);
    assert!(reports[0].refused.as_ref().unwrap().contains("for the same algorithm"));
    assert!(!verifies(&set, Some("twice"), Algorithm::Rs256), "which of both is meant is not said");
    assert!(verifies(&set, Some("twice"), Algorithm::EdDsa));
    // One of them for RS256, and the other for whatever fits.
    let both = json!([with(named(rsa(), "k"), "alg", json!("RS256")), named(other_rsa(3), "k")]);
    assert!(parse(&both, AlgorithmSet::all()).0.is_empty());
    let apart = json!([
        with(named(rsa(), "k"), "alg", json!("RS256")),
        with(named(other_rsa(3), "k"), "alg", json!("PS256"))
    ]);
    let (set, _) = parse(&apart, AlgorithmSet::all());
    assert_eq!(set.len(), 2);
    assert!(verifies(&set, Some("k"), Algorithm::Rs256));
    assert!(!verifies(&set, Some("k"), Algorithm::Ps256), "that is the other key's");
    // Where the issuer uses one of both algorithms, the other entry is left out before.
    let (set, reports) = parse(&apart, AlgorithmSet::default());
    assert_eq!((set.len(), accepted(&reports)), (1, vec![true, false]));

    assert_refused(&with(rsa(), "kid", json!(1)), "`kid` is not a string");
    assert_refused(&named(rsa(), &"k".repeat(MAX_KID_LEN + 1)), "longer than 256 bytes");
    assert_eq!(refusal(&named(rsa(), &"k".repeat(MAX_KID_LEN))), None);
}

#[test]
fn what_is_not_for_signatures_is_left_out_before_anything_is_compared() {
    let good = named(rsa(), "k");
    for other in [
        with(named(other_rsa(3), "k"), "use", json!("enc")),
        with(named(other_rsa(3), "k"), "key_ops", json!(["encrypt"])),
        with(named(other_rsa(3), "k"), "alg", json!("RSA-OAEP")),
        with(named(other_rsa(3), "k"), "alg", json!("RSA-OAEP-256")),
        with(named(jwk(Algorithm::Es256), "k"), "alg", json!("ECDH-ES")),
        json!({"kty": "OKP", "crv": "X25519", "kid": "k", "x": b64([9; 32])}),
        json!({"kty": "OKP", "crv": "Ed448", "kid": "k", "x": b64([9; 57])}),
        json!({"kty": "EC", "crv": "P-521", "kid": "k", "x": b64([9; 66]), "y": b64([9; 66])}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "k", "pub": b64([9; 1312])}),
        json!({"kty": "oct", "kid": "k", "k": b64([9; 32])}),
        // Broken ones, too, say nothing of the good one.
        with(named(other_rsa(3), "k"), "e", json!(b64([1]))),
        with(named(rsa(), "k"), "n", json!("+/")),
        json!("k"),
        json!(null),
    ] {
        for keys in [json!([good, other]), json!([other, good])] {
            let (set, reports) = parse(&keys, AlgorithmSet::all());
            assert_eq!(set.len(), 1, "{other}");
            assert_eq!(reports.iter().filter(|report| report.refused.is_some()).count(), 1, "{other}");
            assert!(verifies(&set, Some("k"), Algorithm::Rs256), "{other}");
        }
    }
    // The encryption key itself verifies nothing, not without a kid either.
    let (set, _) =
        parse(&json!([with(named(rsa(), "k"), "use", json!("enc")), other_rsa(3)]), AlgorithmSet::all());
    assert_eq!(set.len(), 1);
    for kid in [Some("k"), None] {
        assert!(!verifies(&set, kid, Algorithm::Rs256), "{kid:?}");
    }
}

#[test]
fn entries_of_the_same_material_are_one_key() {
    let entry = |kid: &str, alg: &str| with(named(rsa(), kid), "alg", json!(alg));
    let padded = with(with(entry("k", "RS512"), "e", json!("AAEAAQ==")), "use", json!("sig"));
    let (set, reports) =
        parse(&json!([entry("k", "RS256"), entry("k", "RS384"), padded]), AlgorithmSet::all());
    assert_eq!(accepted(&reports), [true, true, true]);
    assert_eq!(set.len(), 1);
    for (algorithm, verified) in [
        (Algorithm::Rs256, true),
        (Algorithm::Rs384, true),
        (Algorithm::Rs512, true),
        (Algorithm::Ps256, false),
    ] {
        for kid in [Some("k"), None] {
            assert_eq!(verifies(&set, kid, algorithm), verified, "{algorithm} {kid:?}");
        }
    }
    // Each name keeps what its own entry says, and both are the key's.
    let (set, _) =
        parse(&json!([entry("a", "RS256"), entry("b", "RS512"), entry("a", "RS256")]), AlgorithmSet::all());
    assert_eq!(set.len(), 1);
    assert_eq!(set.ids().collect::<Vec<_>>(), [["a".into(), "b".into()]]);
    for (kid, algorithm, verified) in [
        (Some("a"), Algorithm::Rs256, true),
        (Some("b"), Algorithm::Rs512, true),
        (Some("a"), Algorithm::Rs512, false),
        (Some("b"), Algorithm::Rs256, false),
        (None, Algorithm::Rs256, true),
        (None, Algorithm::Rs384, false),
    ] {
        assert_eq!(verifies(&set, kid, algorithm), verified, "{kid:?} {algorithm}");
    }
    // An entry for another directory adds nothing to the one for ours.
    let directory = "https://login.example/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0";
    let foreign = with(entry("k", "RS384"), "issuer", json!(directory));
    let (set, _) = parse(&json!([entry("k", "RS256"), foreign]), AlgorithmSet::all());
    assert!(verifies(&set, Some("k"), Algorithm::Rs256) && !verifies(&set, Some("k"), Algorithm::Rs384));
    // What it encrypts says nothing of what it signs.
    let encrypts = with(entry("k", "RSA-OAEP"), "use", json!("enc"));
    let (set, reports) = parse(&json!([encrypts, entry("k", "RS256")]), AlgorithmSet::all());
    assert_eq!(accepted(&reports), [false, true]);
    assert!(verifies(&set, Some("k"), Algorithm::Rs256) && !verifies(&set, Some("k"), Algorithm::Ps256));
    // Another exponent makes another key.
    let (set, _) =
        parse(&json!([named(rsa(), "k"), with(named(rsa(), "k"), "e", json!("Aw"))]), AlgorithmSet::all());
    assert!(set.is_empty());
}

#[test]
fn a_key_whose_private_half_is_published_verifies_nothing() {
    let private = with(named(rsa(), "old"), "d", json!("AQAB"));
    for leak in
        [private.clone(), with(private.clone(), "use", json!("enc")), with(private, "alg", json!("RSA-OAEP"))]
    {
        let keys = json!([named(rsa(), "k"), named(other_rsa(3), "other"), leak]);
        let (set, reports) = parse(&keys, AlgorithmSet::all());
        assert_eq!(accepted(&reports), [false, true, false]);
        assert!(reports[0].refused.as_ref().unwrap().contains("private key is in the set"));
        assert!(!verifies(&set, Some("k"), Algorithm::Rs256));
    }
}

#[test]
fn numbers_are_read_with_zeros_in_front_and_padding_behind() {
    let decoded = |key: &Value, name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let pad = |text: String| format!("{text}{}", ["", "", "==", "="][text.len() % 4]);
    for (algorithm, names) in [
        (Algorithm::Rs256, &["n", "e"][..]),
        (Algorithm::Es256, &["x", "y"]),
        (Algorithm::Es384, &["x", "y"]),
    ] {
        let key = jwk(algorithm);
        for zeros in 0..3 {
            let mut written = key.clone();
            for name in names {
                let number = [vec![0; zeros], decoded(&key, name)].concat();
                written = with(written, name, json!(pad(b64(number))));
            }
            let (set, _) = parse(&json!([written, key]), AlgorithmSet::all());
            assert_eq!(set.len(), 1, "{written} is the same key");
            assert!(verifies(&set, None, algorithm));
        }
    }
    let ed25519 = jwk(Algorithm::EdDsa);
    let written = with(ed25519.clone(), "x", json!(format!("{}=", ed25519["x"].as_str().unwrap())));
    assert_eq!(parse(&json!([written, ed25519]), AlgorithmSet::all()).0.len(), 1);
    for bad in ["=", "AQAB=", "AQ===", "A=QAB", "AQAB\n", " AQAB", "AQ==AQ==", "AR"] {
        assert_refused(&with(rsa(), "e", json!(bad)), "not base64url");
    }
    // Coordinates that lost the zeros in front of them: of one key in 128.
    let (key, point) = (0..10_000)
        .find_map(|_| {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let point = pair.public_key().as_ref()[1..].to_vec();
            (point[0] == 0).then_some((pair, point))
        })
        .unwrap();
    let (x, y) = point.split_at(32);
    let of = |x: &[u8]| json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)});
    let (set, _) = parse(&json!([of(x), of(&x[1..])]), AlgorithmSet::all());
    assert_eq!(set.len(), 1);
    let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), b"message").unwrap();
    assert!(set.verify(ISSUER, None, Algorithm::Es256, b"message", signature.as_ref()).is_ok());
}

#[test]
fn ed25519_has_two_names() {
    for alg in ["EdDSA", "Ed25519"] {
        let (set, _) = parse(&json!([with(jwk(Algorithm::EdDsa), "alg", json!(alg))]), AlgorithmSet::all());
        assert!(verifies(&set, None, Algorithm::EdDsa), "{alg}");
        assert_refused(&with(rsa(), "alg", json!(alg)), "does not fit an RSA key");
        assert_refused(&with(jwk(Algorithm::Es256), "alg", json!(alg)), "does not fit a P-256 key");
    }
    assert_refused(&with(jwk(Algorithm::EdDsa), "alg", json!("Ed448")), "is not supported");
}

#[test]
fn a_key_with_a_repeated_member_is_refused_alone() {
    let good = named(rsa(), "good").to_string();
    let n = rsa()["n"].to_string();
    for bad in [
        r#"{"kty":"RSA","kid":"a","kid":"b"}"#.to_owned(),
        format!(r#"{{"kty":"RSA","e":"AQAB","n":{n},"n":{n}}}"#),
        format!(r#"{{"kty":"RSA","e":"AQAB","n":{n},"use":"enc","use":"sig"}}"#),
        format!(r#"{{"kty":"RSA","e":"AQAB","n":{n},"\u0075se":"enc","use":"sig"}}"#),
        format!(r#"{{"kty":"RSA","e":"AQAB","n":{n},"x":{{"y":[{{"z":1,"z":1}}]}}}}"#),
    ] {
        let text = format!(r#"{{"keys":[{bad},{good}]}}"#);
        let (set, reports) = KeySet::from_jwks(text.as_bytes(), AlgorithmSet::all()).unwrap();
        assert_eq!(accepted(&reports), [false, true], "{bad}");
        assert!(reports[0].refused.as_ref().unwrap().contains("repeated"), "{reports:?}");
        assert!(verifies(&set, Some("good"), Algorithm::Rs256) && set.len() == 1);
    }
}

/// What providers publish, shortened where nothing is proven by length.
#[test]
fn sets_of_real_providers() {
    let sig = |key: Value, kid: &str, alg: &str| {
        with(with(named(key, kid), "alg", json!(alg)), "use", json!("sig"))
    };
    let cases = [
        // Keycloak: an encryption key beside each signature key, with chains of certificates.
        (
            "keycloak",
            json!([
                with(sig(rsa(), "s", "RS256"), "x5c", json!(["MIIC"])),
                with(with(named(other_rsa(3), "e"), "alg", json!("RSA-OAEP")), "use", json!("enc")),
            ]),
            1,
        ),
        // Zitadel and others: one kid for both purposes.
        (
            "one kid",
            json!([sig(rsa(), "1", "RS256"), with(named(other_rsa(3), "1"), "use", json!("enc"))]),
            1,
        ),
        // ADFS: `x5t` is the kid, and x5c holds the certificate.
        ("adfs", json!([with(with(sig(rsa(), "t", "RS256"), "x5t", json!("t")), "x5c", json!(["MIIC"]))]), 1),
        // Entra ID: no `alg`, `issuer` and `cloud_instance_name` of its own.
        (
            "entra",
            json!([with(
                with(
                    with(named(rsa(), "k"), "use", json!("sig")),
                    "cloud_instance_name",
                    json!("microsoftonline.com")
                ),
                "issuer",
                json!("https://login.microsoftonline.com/{tenantid}/v2.0")
            )]),
            1,
        ),
        // Ping and others: one key for three algorithms.
        (
            "three algorithms",
            json!([sig(rsa(), "k", "RS256"), sig(rsa(), "k", "RS384"), sig(rsa(), "k", "RS512")]),
            1,
        ),
        // Dex and Google: two keys, old and new.
        ("rotation", json!([sig(rsa(), "new", "RS256"), sig(other_rsa(3), "old", "RS256")]), 2),
        // Java's BigInteger with its sign, as JSON libraries of .NET pad.
        ("java", json!([with(sig(rsa(), "k", "RS256"), "e", json!("AAEAAQ=="))]), 1),
    ];
    for (name, keys, count) in cases {
        let (set, reports) = parse(&keys, AlgorithmSet::default());
        assert_eq!(set.len(), count, "{name}: {reports:?}");
        let kid = keys[0]["kid"].as_str();
        assert!(verifies(&set, kid, Algorithm::Rs256), "{name}");
    }
}

#[test]
fn a_document_is_one_object_with_keys_within_bounds() {
    let error = |text: &str| KeySet::from_jwks(text.as_bytes(), AlgorithmSet::all()).unwrap_err();
    for text in [
        "",
        "[]",
        "null",
        "{",
        "{} {}",
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[],"k\u0065ys":[]}"#,
        r#"{"keys":[],"x":{"a":1,"a":1}}"#,
        r#"{"keys":[],"x":[{"a":1,"a":1}]}"#,
    ] {
        assert!(matches!(error(text), InvalidJwks::Json(_)), "{text}");
    }
    assert_eq!(
        error("{\"keys\":[],\n \"keys\":[]}").to_string(),
        "is not valid JSON: duplicate member at line 2 column 7"
    );
    for text in [
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":{"a":1,"a":1}}"#,
        r#"{"keys":null}"#,
        r#"{"Keys":[]}"#,
        &rsa().to_string(),
    ] {
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

/// A revocation may name a key by what an entry calls it that verifies nothing.
#[test]
fn a_key_has_every_name_that_the_set_gives_it() {
    let (one, other) = (rsa(), other_rsa(3));
    let ids = |keys: &Value| {
        let (set, _) = parse(keys, AlgorithmSet::from_iter([Algorithm::Rs256]));
        let ids = set.ids().map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        (ids.collect::<Vec<_>>(), *set.fingerprint())
    };
    let good = named(with(one.clone(), "alg", json!("RS256")), "k2");
    let (alone, print) = ids(&json!([good]));
    assert_eq!(alone, [["k2"]]);
    for further in [
        with(named(one.clone(), "k1"), "alg", json!("RS512")),
        with(named(one.clone(), "k1"), "use", json!("enc")),
        with(named(one.clone(), "k1"), "key_ops", json!(["encrypt"])),
        with(named(one.clone(), "k1"), "alg", json!("RSA-OAEP")),
    ] {
        let (both, other_print) = ids(&json!([further, good]));
        assert_eq!(both, [["k1", "k2"]], "{further}");
        // Tokens that were verified before are looked at again.
        assert_ne!(print, other_print);
    }
    // Refused under a name that two keys have, it keeps it beside its own.
    let (repeated, _) = ids(&json!([named(one.clone(), "k1"), named(other, "k1"), good]));
    assert_eq!(repeated, [["k1", "k2"]]);
}

/// In an entry that can be read in several ways the private half may be that of any key.
#[test]
fn a_private_half_that_is_written_oddly_is_seen() {
    let public = rsa();
    let text = |member: &str| {
        let odd = public.to_string().replacen(
            '{',
            &format!("{{\"kid\":\"x\",\"kid\":\"y\",\"{member}\":\"AQAB\","),
            1,
        );
        format!("{{\"keys\":[{public},{odd}]}}")
    };
    let read = |text: &str| KeySet::from_jwks(text.as_bytes(), AlgorithmSet::all());
    assert!(read(&text("x5t")).is_ok_and(|(set, _)| set.len() == 1));
    for member in PRIVATE {
        let why = read(&text(member)).unwrap_err().to_string();
        assert_eq!(why, "is not valid JSON: duplicate member", "{member}");
    }
    // The modulus is the same for every exponent.
    let other = with(with(public.clone(), "e", json!("Aw")), "d", json!("AQAB"));
    let (set, reports) = parse(&json!([public, other]), AlgorithmSet::all());
    assert!(set.is_empty() && reports.iter().all(|report| report.refused.is_some()), "{reports:?}");
}
