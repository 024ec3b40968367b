use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

const NOW: u64 = 1_799_999_700;
const EXPIRES: u64 = 1_800_000_000;
const NAME: &str = "Client_Ip";
/// The bytes 0 to 31.
const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn ring(text: &str) -> KeyRing {
    KeyRing::parse(text.as_bytes()).unwrap()
}

fn ip(text: &str) -> ClientIp {
    ClientIp::parse(text.as_bytes()).unwrap()
}

/// A value of any content with a good MAC, of the ring's first key.
fn forge(ring: &KeyRing, signed: &str) -> String {
    let mac = hmac::sign(&ring.signing.hmac, format!("{NAME}={signed}").as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn verified(ring: &KeyRing, value: &str) -> Result<String, Reason> {
    verify(ring, NAME, value.as_bytes(), NOW).map(|signed| signed.ip().to_string())
}

/// Computed with Python 3: `hmac.new(bytes(range(32)), b"Client_Ip=" + signed, hashlib.sha256)`.
const KNOWN: [(&str, &str); 2] = [
    ("203.0.113.7", "v1.MjAzLjAuMTEzLjc.1800000000.k1.gET9S6xZMAD3QOB_jotPDdX0r3q7ef0G_o_BB_vUifU"),
    ("2001:db8::1", "v1.MjAwMTpkYjg6OjE.1800000000.k1.r-8fWK0_dysbfXwd5DFVIFwJU4TwVlrITZyk6sJSjx8"),
];

#[test]
fn signs_and_verifies_what_another_implementation_signed() {
    let ring = ring(&format!("k1:{SECRET}"));
    for (address, value) in KNOWN {
        assert_eq!(sign(&ring, NAME, ip(address), EXPIRES), value);
        let signed = verify(&ring, NAME, value.as_bytes(), NOW).unwrap();
        assert_eq!((signed.ip(), signed.expires()), (ip(address), EXPIRES));
    }
}

#[test]
fn a_value_belongs_to_its_cookie_name_and_key() {
    let ring = ring(&format!("k1:{SECRET}"));
    let (_, value) = KNOWN[0];
    for name in ["client_ip", "Client_Ip2", "", "Client_Ip=v1"] {
        assert_eq!(verify(&ring, name, value.as_bytes(), NOW), Err(Reason::IpSignature), "{name}");
    }
    for other in [format!("k1:{OTHER}"), format!("k2:{SECRET}"), format!("K1:{SECRET}")] {
        assert_eq!(verified(&self::ring(&other), value), Err(Reason::IpSignature), "{other}");
    }
    // Under a second id of the same ring too.
    let both = self::ring(&format!("k2:{OTHER}\nk1:{SECRET}"));
    assert_eq!(verified(&both, value).as_deref(), Ok("203.0.113.7"));
    assert_eq!(verified(&both, &value.replace(".k1.", ".k2.")), Err(Reason::IpSignature));
    assert!(sign(&both, NAME, ip("203.0.113.7"), EXPIRES).contains(".k2."), "the first line signs");
}

#[test]
fn the_clock_decides_at_the_second() {
    let ring = ring(&format!("k1:{SECRET}"));
    let at = |now| verify(&ring, NAME, KNOWN[0].1.as_bytes(), now).map(|_| ());
    assert_eq!(at(EXPIRES - 600), Ok(()));
    assert_eq!(at(EXPIRES - 601), Err(Reason::IpMalformed));
    assert_eq!(at(0), Err(Reason::IpMalformed));
    assert_eq!(at(EXPIRES - 1), Ok(()));
    assert_eq!(at(EXPIRES), Err(Reason::IpExpired));
    assert_eq!(at(u64::MAX), Err(Reason::IpExpired));
}

#[test]
fn every_other_spelling_is_malformed_even_under_a_good_mac() {
    let ring = ring(&format!("k1:{SECRET}"));
    let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let address = b64("203.0.113.7");
    assert_eq!(
        verified(&ring, &forge(&ring, &format!("v1.{address}.1800000000.k1"))).as_deref(),
        Ok("203.0.113.7")
    );
    let long_id = "k".repeat(MAX_KEY_ID_BYTES + 1);
    for signed in [
        format!("v2.{address}.1800000000.k1"),
        format!("V1.{address}.1800000000.k1"),
        format!(".{address}.1800000000.k1"),
        format!("{address}.1800000000.k1"),
        format!("v1.{address}.1800000000"),
        format!("v1.{address}.1800000000.k1.k1"),
        format!("v1.{address}..1800000000.k1"),
        format!("v1.{address}.1800000000."),
        format!("v1.{address}.1800000000.k+1"),
        format!("v1.{address}.1800000000. k1"),
        format!("v1.{address}.1800000000.{long_id}"),
        format!("v1.{address}..k1"),
        format!("v1.{address}.+1800000000.k1"),
        format!("v1.{address}.-1.k1"),
        format!("v1.{address}.01800000000.k1"),
        format!("v1.{address}.00.k1"),
        format!("v1.{address}.1800000000 .k1"),
        format!("v1.{address}.1.8e9.k1"),
        format!("v1.{address}.18446744073709551616.k1"),
        format!("v1.{address}.99999999999999999999999.k1"),
        "v1..1800000000.k1".into(),
        "v1.203.0.113.7.1800000000.k1".into(),
        format!("v1.{address}=.1800000000.k1"),
        // Unused bits that are not zero: `MjAzLjAuMTEzLjc` ends in 4 bits of the last byte and 2 unused.
        format!("v1.{}d.1800000000.k1", address.strip_suffix('c').unwrap()),
        format!("v1.{}.1800000000.k1", b64("203.0.113.07")),
        format!("v1.{}.1800000000.k1", b64("203.0.113.7 ")),
        format!("v1.{}.1800000000.k1", b64("203.0.113.7:80")),
        format!("v1.{}.1800000000.k1", b64("fe80::1%eth0")),
        format!("v1.{}.1800000000.k1", b64("")),
        format!("v1.{}.1800000000.k1", b64(&"1".repeat(60))),
        format!("v1.{}.1800000000.k1", URL_SAFE_NO_PAD.encode([203, 0, 113, 7])),
    ] {
        assert_eq!(verified(&ring, &forge(&ring, &signed)), Err(Reason::IpMalformed), "{signed}");
    }
    for (written, meant) in [
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("2001:db8:0::1", "2001:db8::1"),
    ] {
        let value = forge(&ring, &format!("v1.{}.1800000000.k1", b64(written)));
        assert_eq!(verified(&ring, &value).map(|ip| ip.to_string()), Ok(meant.to_owned()), "{written}");
    }
    // 18446744073709551615 is a number, and far ahead.
    assert_eq!(
        verified(&ring, &forge(&ring, &format!("v1.{address}.{}.k1", u64::MAX))),
        Err(Reason::IpMalformed)
    );
    assert_eq!(verified(&ring, &forge(&ring, &format!("v1.{address}.0.k1"))), Err(Reason::IpExpired));
    let (_, good) = KNOWN[0];
    for value in [
        "",
        ".",
        "....",
        "203.0.113.7",
        "2001:db8::1",
        &format!("{good}="),
        &format!("{good}."),
        &format!(" {good}"),
        &format!("{good}A"),
        good.strip_suffix('U').unwrap(),
        good.rsplit_once('.').unwrap().0,
        &format!("{}.", good.rsplit_once('.').unwrap().0),
        &good.replace('_', "/"),
    ] {
        assert_eq!(verified(&ring, value), Err(Reason::IpMalformed), "{value}");
    }
}

#[test]
fn the_longest_value_fits() {
    let id = "k".repeat(MAX_KEY_ID_BYTES);
    let ring = ring(&format!("{id}:{SECRET}"));
    let address = "2001:1db8:1db8:1db8:1db8:1db8:1db8:1db8";
    let value = sign(&ring, NAME, ip(address), EXPIRES);
    assert_eq!(verified(&ring, &value).as_deref(), Ok(address));
    let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let longest = "0000:0000:0000:0000:0000:ffff:203.000.113.007".replace(".0", ".1");
    let value = forge(&ring, &format!("v1.{}.{}.{id}", b64(&longest), u64::MAX));
    assert_eq!(value.len(), MAX_VALUE_BYTES);
    // Read to its end, and only then found to be too far ahead.
    assert_eq!(verified(&ring, &value), Err(Reason::IpMalformed));
    let value = forge(&ring, &format!("v1.{}.{EXPIRES}.{id}", b64(&longest)));
    assert_eq!(verified(&ring, &value).as_deref(), Ok("203.100.113.107"));
}

#[test]
fn reads_keys_files() {
    let url_safe = "-_-_".repeat(11);
    let text = format!(
        "\u{feff}# client-ip keys\r\n\r\nnew:{SECRET}\r\n  old_1 : {}  \n\n#x:{OTHER}\nurl:{url_safe}\npadded:{}==",
        OTHER.trim_end_matches('='),
        "A".repeat(54),
    );
    let ring = ring(&text);
    assert_eq!(ring.ids().collect::<Vec<_>>(), ["new", "old_1", "url", "padded"]);
    let only = self::ring(&format!("old_1:{OTHER}"));
    let value = sign(&only, NAME, ip("203.0.113.7"), EXPIRES);
    assert_eq!(verified(&ring, &value).as_deref(), Ok("203.0.113.7"), "a later line verifies");
}

#[test]
fn tells_every_problem_of_a_keys_file_and_no_secret() {
    let text = format!(
        "good:{SECRET}\n{SECRET}\nbad id:{OTHER}\n:{OTHER}\nshort:AAECAw==\nempty:\nnoise:!{OTHER}\n\
         mixed:-/{OTHER}\n{OTHER}:swapped\ngood:{OTHER}\nbits:{}B=\n{}:{OTHER}",
        "A".repeat(42),
        "i".repeat(65),
    );
    let mut bytes = text.clone().into_bytes();
    bytes.extend_from_slice(format!("\n\u{e9}:{OTHER}\n\n").as_bytes());
    bytes.extend_from_slice(b"\xff:AAAA\n");
    let problems = KeyRing::parse(&bytes).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "line 2: the line is not `key-id:base64 secret`",
            "line 3: the key id is malformed",
            "line 4: the key id is malformed",
            "line 5: the secret has 4 bytes and needs at least 32",
            "line 6: the secret has 0 bytes and needs at least 32",
            "line 7: the secret is not base64",
            "line 8: the secret is not base64",
            "line 9: the key id is malformed",
            "line 10: the key id is already used on line 1",
            "line 11: the secret is not base64",
            "line 12: the key id is malformed",
            "line 13: the key id is malformed",
            "line 15: the key id is malformed",
        ]
    );
    let everything = format!("{problems:?}");
    for secret in ["AAECAw", "ICEiIy", "swapped"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[test]
fn a_file_without_keys_is_a_problem() {
    for text in ["", "\n\n", "# none yet\n", "\u{feff}"] {
        let problems = KeyRing::parse(text.as_bytes()).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].to_string(), "line 1: there is no key");
    }
}

#[test]
fn debug_shows_ids_alone() {
    assert_eq!(format!("{:?}", ring(&format!("k1:{SECRET}\nk2:{OTHER}"))), r#"["k1", "k2"]"#);
}

#[test]
fn generated_lines_are_good_and_differ() {
    let (one, two) = (generate_key_line("2026-a_1").unwrap(), generate_key_line("2026-a_1").unwrap());
    assert_ne!(one, two);
    assert_eq!(ring(&one).ids().collect::<Vec<_>>(), ["2026-a_1"]);
    let value = sign(&ring(&one), NAME, ip("203.0.113.7"), EXPIRES);
    assert!(verified(&ring(&one), &value).is_ok());
    assert_eq!(verified(&ring(&two), &value), Err(Reason::IpSignature));
    for bad in ["", "a b", "a:b", "#a", "\u{e9}", &"k".repeat(65)] {
        assert_eq!(generate_key_line(bad), Err(KeyLineError::Id), "{bad}");
    }
}

proptest! {
    #[test]
    fn what_is_signed_verifies(bits in any::<u128>(), v4 in any::<bool>(), ahead in 1..=MAX_TTL) {
        let ring = ring(&format!("k1:{SECRET}"));
        let address = if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) };
        let ip = ClientIp::parse(address.to_string().as_bytes()).unwrap();
        let value = sign(&ring, NAME, ip, NOW + ahead);
        prop_assert!(value.len() <= MAX_VALUE_BYTES);
        prop_assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
        let signed = verify(&ring, NAME, value.as_bytes(), NOW).unwrap();
        prop_assert_eq!((signed.ip(), signed.expires()), (ip, NOW + ahead));
    }

    #[test]
    fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..200), text in any::<Vec<u8>>()) {
        let ring = ring(&format!("k1:{SECRET}"));
        prop_assert!(verify(&ring, NAME, &value, NOW).is_err());
        let _ = KeyRing::parse(&text);
    }
}

#[test]
fn any_single_byte_changed_added_or_left_out_is_denied() {
    let ring = ring(&format!("k1:{SECRET}\nk2:{OTHER}"));
    for (_, value) in KNOWN {
        let good = value.as_bytes();
        for at in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut changed = good.to_vec();
                changed[at] = byte;
                assert_eq!(verify(&ring, NAME, &changed, NOW).is_ok(), byte == good[at], "{at} {byte}");
                let mut longer = good.to_vec();
                longer.insert(at, byte);
                assert!(verify(&ring, NAME, &longer, NOW).is_err(), "{at} {byte}");
            }
            let mut shorter = good.to_vec();
            shorter.remove(at);
            assert!(verify(&ring, NAME, &shorter, NOW).is_err(), "{at}");
        }
    }
}

/// Stands in for keys that were not read: what was signed by anybody is refused, by another such ring too.
#[test]
fn a_ring_that_nobody_has_verifies_nothing() {
    let (own, other) = (KeyRing::unknown().unwrap(), KeyRing::unknown().unwrap());
    for (_, value) in KNOWN {
        assert_eq!(verified(&own, value), Err(Reason::IpSignature));
    }
    let value = sign(&other, NAME, ip("203.0.113.7"), EXPIRES);
    assert_eq!(verified(&own, &value), Err(Reason::IpSignature));
    assert_eq!(verified(&other, &value).as_deref(), Ok("203.0.113.7"));
}

#[test]
fn replaced_keys_are_reported_by_their_ids_alone() {
    let secret = |byte: u8| general_purpose::STANDARD.encode([byte; 40]);
    let ring = |lines: &[(&str, u8)]| {
        let text: String = lines.iter().map(|(id, byte)| format!("{id}:{}\n", secret(*byte))).collect();
        KeyRing::parse(text.as_bytes()).unwrap()
    };
    let old = ring(&[("k1", 1), ("k0", 0)]);
    assert_eq!(old.uses().collect::<Vec<_>>(), [("k1", "signs"), ("k0", "verifies")]);
    let told = |new: &[(&str, u8)]| ring(new).replacement_of(&old, "Client_Ip");
    assert_eq!(told(&[("k1", 1), ("k0", 0)]), None);
    for (new, expected) in [
        (&[("k2", 2), ("k1", 1)][..], "`k2` signs, `k2`, `k1` verify"),
        (&[("k0", 0), ("k1", 1)], "`k0` signs, `k0`, `k1` verify"),
        (&[("k1", 1)], "`k1` signs, `k1` verifies"),
        // Another secret is another key.
        (&[("k1", 9), ("k0", 0)], "`k1` signs, `k1`, `k0` verify"),
        (&[("k1", 1), ("k0", 9)], "`k1` signs, `k1`, `k0` verify"),
    ] {
        let expected = format!("the keys of the cookie `Client_Ip` were replaced: {expected}");
        assert_eq!(told(new), Some(expected), "{new:?}");
    }
}
