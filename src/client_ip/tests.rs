use super::*;
use crate::network::Network;

const NOW: u64 = 1_800_000_000;
const KEYS: &[u8] = b"k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::parse(KEYS).unwrap())
}

fn cookie(keys: CookieKeys<Arc<KeyRing>>) -> Source {
    Source::Cookie { name: DEFAULT_COOKIE.into(), keys }
}

fn header() -> Source {
    let trusted_peers = ["10.0.0.0/8", "2001:db8::/32"].map(|text| Network::parse(text).unwrap());
    Source::Header { name: "X-Real-IP".into(), trusted_peers: trusted_peers.into_iter().collect() }
}

fn resolved(source: &Source, evidence: Evidence<'_>) -> Result<String, Reason> {
    resolve(source, &evidence, NOW, &mut VerifiedCookieCache::default()).map(|ip| ip.to_string())
}

fn of_cookies(source: &Source, lines: &str) -> Result<String, Reason> {
    resolved(source, Evidence { cookies: Some(lines.as_bytes()), ..Evidence::default() })
}

#[test]
fn addresses_are_canonical() {
    for (text, canonical) in [
        ("203.0.113.7", "203.0.113.7"),
        ("0.0.0.0", "0.0.0.0"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:cb00:7107", "203.0.113.7"),
        ("::1", "::1"),
    ] {
        assert_eq!(ClientIp::parse(text.as_bytes()).unwrap().to_string(), canonical);
    }
    for bad in [
        "",
        " ",
        "203.0.113.7 ",
        "\t203.0.113.7",
        "203.0.113.07",
        "203.0.113",
        "203.0.113.256",
        "0xcb.0.113.7",
        "3405803783",
        "203.0.113.7:80",
        "[2001:db8::1]",
        "[2001:db8::1]:80",
        "fe80::1%eth0",
        "203.0.113.7/32",
        "203.0.113.7,198.51.100.1",
        "unix:",
        "localhost",
        "203.0.113.7\0",
        "\u{ff12}03.0.113.7",
    ] {
        assert_eq!(ClientIp::parse(bad.as_bytes()), Err(Reason::IpMalformed), "{bad:?}");
    }
    assert_eq!(ClientIp::parse(b"\xff"), Err(Reason::IpMalformed));
}

#[test]
fn unsigned_cookies_hold_plain_addresses() {
    let source = cookie(CookieKeys::Unsigned);
    let signed =
        signature::sign(&ring(), DEFAULT_COOKIE, ClientIp::parse(b"203.0.113.7").unwrap(), NOW + 300);
    for (lines, result) in [
        ("Client_Ip=203.0.113.7", Ok("203.0.113.7")),
        ("a=b; Client_Ip=\"2001:db8::1\"", Ok("2001:db8::1")),
        ("client_ip=198.51.100.1; Client_Ip=203.0.113.7", Ok("203.0.113.7")),
        ("", Err(Reason::IpMissing)),
        ("client_ip=203.0.113.7", Err(Reason::IpMissing)),
        ("Client_Ip", Err(Reason::IpMissing)),
        ("Client_Ip=", Err(Reason::IpMissing)),
        ("Client_Ip=\"\"", Err(Reason::IpMissing)),
        ("Client_Ip=203.0.113.7; Client_Ip=203.0.113.7", Err(Reason::IpDuplicate)),
        ("Client_Ip=203.0.113.7\nClient_Ip", Err(Reason::IpDuplicate)),
        ("Client_Ip= 203.0.113.7", Err(Reason::IpMalformed)),
        ("Client_Ip=203.0.113.7,203.0.113.8", Err(Reason::IpMalformed)),
        ("Client_Ip=\"203.0.113.7", Err(Reason::IpMalformed)),
        (&format!("Client_Ip={signed}"), Err(Reason::IpMalformed)),
    ] {
        assert_eq!(of_cookies(&source, lines).as_deref(), result.as_ref().copied(), "{lines:?}");
    }
    assert_eq!(resolved(&source, Evidence::default()), Err(Reason::IpMissing));
}

#[test]
fn signed_cookies_must_be_signed() {
    let source = cookie(CookieKeys::Signed(ring()));
    let value = |name: &str, expires: u64| {
        signature::sign(&ring(), name, ClientIp::parse(b"203.0.113.7").unwrap(), expires)
    };
    let good = value(DEFAULT_COOKIE, NOW + 300);
    for (lines, result) in [
        (format!("a=b; Client_Ip={good}"), Ok("203.0.113.7")),
        (format!("Client_Ip=\"{good}\""), Ok("203.0.113.7")),
        (format!("Client_Ip={good}; Client_Ip={good}"), Err(Reason::IpDuplicate)),
        (format!("client_ip={good}"), Err(Reason::IpMissing)),
        ("Client_Ip=203.0.113.7".into(), Err(Reason::IpMalformed)),
        (format!("Client_Ip={}", value("Other", NOW + 300)), Err(Reason::IpSignature)),
        (format!("Client_Ip={}", value(DEFAULT_COOKIE, NOW)), Err(Reason::IpExpired)),
        (format!("Client_Ip={}", value(DEFAULT_COOKIE, NOW + 601)), Err(Reason::IpMalformed)),
    ] {
        assert_eq!(of_cookies(&source, &lines).as_deref(), result.as_ref().copied(), "{lines:?}");
    }
}

#[test]
fn a_direct_clients_address_is_nginxs() {
    let of = |remote_addr: &str| {
        // Neither cookies nor headers count.
        let evidence = Evidence {
            cookies: Some(b"Client_Ip=198.51.100.1"),
            remote_addr: remote_addr.as_bytes(),
            peer: b"10.0.0.1",
            header: Lines::One(b"198.51.100.2"),
        };
        resolved(&Source::RemoteAddr, evidence)
    };
    assert_eq!(of("203.0.113.7").as_deref(), Ok("203.0.113.7"));
    assert_eq!(of("::ffff:203.0.113.7").as_deref(), Ok("203.0.113.7"));
    assert_eq!(of("unix:"), Err(Reason::IpMissing));
    assert_eq!(of(""), Err(Reason::IpMissing));
    assert_eq!(of("-"), Err(Reason::IpMalformed));
}

#[test]
fn a_header_counts_from_trusted_peers_only() {
    let of = |peer: &str, header: Lines<&[u8]>| {
        let evidence = Evidence {
            cookies: Some(b"Client_Ip=198.51.100.1"),
            remote_addr: b"10.0.0.9",
            peer: peer.as_bytes(),
            header,
        };
        resolved(&self::header(), evidence)
    };
    assert_eq!(of("10.0.0.1", Lines::One(b"203.0.113.7")).as_deref(), Ok("203.0.113.7"));
    assert_eq!(of("::ffff:10.0.0.1", Lines::One(b"203.0.113.7")).as_deref(), Ok("203.0.113.7"));
    assert_eq!(of("2001:db8::1", Lines::One(b"\t2001:db8::7 ")).as_deref(), Ok("2001:db8::7"));
    for stranger in ["203.0.113.1", "unix:", "", "10.0.0.1:80", "2001:db9::1"] {
        assert_eq!(of(stranger, Lines::One(b"203.0.113.7")), Err(Reason::IpMissing), "{stranger}");
        assert_eq!(of(stranger, Lines::Several), Err(Reason::IpMissing), "{stranger}");
    }
    for absent in [Lines::None, Lines::One(b"".as_slice()), Lines::One(b" \t")] {
        assert_eq!(of("10.0.0.1", absent), Err(Reason::IpMissing), "{absent:?}");
    }
    assert_eq!(of("10.0.0.1", Lines::Several), Err(Reason::IpDuplicate));
    for (written, read) in [
        ("203.0.113.7:51008", "203.0.113.7"),
        ("203.0.113.7:0", "203.0.113.7"),
        (" 203.0.113.7:65535\t", "203.0.113.7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:DB8::7]:443", "2001:db8::7"),
        ("[::1]:1", "::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:80", "203.0.113.7"),
        // All of it is an address: RFC 4291 knows no port.
        ("2001:db8::7:443", "2001:db8::7:443"),
    ] {
        assert_eq!(of("10.0.0.1", Lines::One(written.as_bytes())).as_deref(), Ok(read), "{written}");
        // Only a proxy's header is read so.
        if written.contains([']', ' ']) || written.starts_with("203") {
            assert_eq!(ClientIp::parse(written.as_bytes()), Err(Reason::IpMalformed), "{written}");
        }
    }
    for bad in [
        "203.0.113.7, 10.0.0.1",
        "203.0.113.7,",
        "203.0.113.7 198.51.100.1",
        "203.0.113.7:80, 10.0.0.1:80",
        "203.0.113.7:80,10.0.0.1",
        "[2001:db8::7]:443, 10.0.0.1",
        "[2001:db8::7],10.0.0.1",
        "unix:",
        "unknown",
        "_hidden",
        "203.0.113.7:",
        "203.0.113.7::80",
        "203.0.113.7:80:80",
        "203.0.113.7: 80",
        "203.0.113.7 :80",
        "203.0.113.7:+80",
        "203.0.113.7:-1",
        "203.0.113.7:65536",
        "203.0.113.7:4294967376",
        "203.0.113.7:8o",
        "203.0.113.7:http",
        "203.0.113.07:80",
        "203.0.113:80",
        ":80",
        "[]",
        "[]:80",
        "[:80",
        "[203.0.113.7]",
        "[203.0.113.7]:80",
        "[2001:db8::7",
        "2001:db8::7]",
        "[2001:db8::7]443",
        "[2001:db8::7]:",
        "[2001:db8::7]]",
        "[[2001:db8::7]]",
        "[2001:db8::7]:443]",
        "[ 2001:db8::7]",
        "[2001:db8::7]: 443",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]:80",
        "[fe80::1%1]:80",
        "fe80::1%eth0",
        "\"203.0.113.7\"",
        "\"[2001:db8::7]:443\"",
        "for=203.0.113.7",
        "for=\"[2001:db8::7]:443\"",
        "203.0.113.7/32",
        "203.0.113.7:80/tcp",
        "2001:db8:1:2:3:4:5:6:46532",
        "2001:db8::7:46532",
    ] {
        assert_eq!(of("10.0.0.1", Lines::One(bad.as_bytes())), Err(Reason::IpMalformed), "{bad}");
    }
}

#[test]
fn a_configured_source_decides_with_its_keys() {
    let config: SourceConfig =
        Source::Cookie { name: "Ip".into(), keys: CookieKeys::Signed(PathBuf::from("/etc/keys")) };
    assert_eq!((config.keys_file(), config.kind()), (Some(Path::new("/etc/keys")), "cookie"));
    let loaded = config.with_keys(|path| {
        assert_eq!(path, Path::new("/etc/keys"));
        Ok::<_, ()>(ring())
    });
    assert!(matches!(loaded, Ok(Source::Cookie { name, keys: CookieKeys::Signed(_) }) if &*name == "Ip"));
    assert_eq!(config.with_keys(|_| Err("unreadable")).err(), Some("unreadable"));

    let unsigned: SourceConfig = Source::Cookie { name: "Ip".into(), keys: CookieKeys::Unsigned };
    for config in [unsigned, Source::RemoteAddr] {
        assert_eq!(config.keys_file(), None);
        let loaded = config.with_keys(|_| Err("there is nothing to load")).unwrap();
        assert_eq!(loaded.kind(), config.kind());
    }
    assert_eq!(header().kind(), "header");
}
