//! Cookie lines, signed values and keys files.

use super::parts;
use crate::client_ip::cache::VerifiedCookieCache;
use crate::client_ip::cookie::model::{NAME, as_go_reads, others};
use crate::client_ip::cookie::{Found, Remaining, find, has_several_lines, remove, stamp};
use crate::client_ip::signature::{KeyRing, MAX_TTL, sign, verify};
use crate::client_ip::{ClientIp, CookieKeys, Evidence, Source, resolve};
use crate::reason::Reason;
use crate::token::fixtures::NOW;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

static RING: LazyLock<Arc<KeyRing>> = LazyLock::new(|| {
    let keys =
        "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\nk2:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n";
    Arc::new(KeyRing::parse(keys.as_bytes()).unwrap())
});

/// Any bytes as Cookie lines: read by the gateway and stamped by the Grafana Gateway, against what Go reads.
pub(super) fn cookies(lines: &[u8]) -> bool {
    let ours = |name: &[u8]| name.eq_ignore_ascii_case(NAME.as_bytes());
    let in_go = as_go_reads(lines);
    let found = find(lines, NAME);
    let such: Vec<&[u8]> =
        in_go.iter().filter_map(|(name, value)| (name == NAME.as_bytes()).then_some(&value[..])).collect();
    match found {
        Found::None | Found::Similar => assert!(such.is_empty()),
        Found::One(value) => assert!(such.is_empty() || such == [value]),
        Found::Many => assert!(has_several_lines(lines) || lines.contains(&b';')),
    }
    match remove(lines, NAME) {
        Remaining::Unchanged => {
            assert!(!in_go.iter().any(|(name, _)| ours(name)));
            assert_eq!(found, Found::None);
        }
        Remaining::Nothing => assert!(others(lines).is_empty()),
        Remaining::Rewritten(line) => {
            assert!(!line.is_empty() && !has_several_lines(&line));
            assert_eq!(others(&line), others(lines));
            assert_eq!(remove(&line, NAME), Remaining::Unchanged);
        }
    }
    let line = stamp(lines, NAME, "v1.abc");
    assert!(!has_several_lines(&line));
    assert_eq!(find(&line, NAME), Found::One(b"v1.abc"));
    assert_eq!(others(&line), others(lines));
    let stamped = as_go_reads(&line);
    let (last, before) = stamped.split_last().unwrap();
    assert_eq!((&last.0[..], &last.1[..]), (NAME.as_bytes(), &b"v1.abc"[..]));
    assert!(before.iter().eq(in_go.iter().filter(|(name, _)| !ours(name))));
    // Stamped twice it is stamped once.
    assert_eq!(stamp(&line, NAME, "v1.abc"), line);

    header(lines);
    let source = Source::Cookie { name: NAME.into(), keys: CookieKeys::Unsigned };
    let evidence = Evidence { cookies: Some(lines), ..Evidence::default() };
    let resolved = resolve(&source, &evidence, NOW, &mut VerifiedCookieCache::default());
    match found {
        Found::Many => assert_eq!(resolved, Err(Reason::IpDuplicate)),
        Found::None | Found::Similar | Found::One(b"") => assert_eq!(resolved, Err(Reason::IpMissing)),
        Found::One(value) => assert_eq!(resolved, ClientIp::parse(value)),
    }
    matches!(found, Found::One(_))
}

/// Any bytes as a proxy's header: what is read is what the standard library reads, and nothing that has a zone.
fn header(value: &[u8]) {
    let found = ClientIp::parse_with_port(value);
    let as_std = std::str::from_utf8(value).ok().filter(|text| !text.contains('%')).and_then(|text| {
        let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
        let address = text.parse::<IpAddr>().ok().or_else(|| bracketed().map(IpAddr::V6));
        address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
    });
    assert_eq!(found.ok().map(ClientIp::addr), as_std.map(|address| address.to_canonical()), "{value:?}");
}

/// Any bytes as a signed value: taken only where the key made exactly these bytes. An input that ends in `!` is signed
/// first, so that the fuzzer gets beyond the MAC.
pub(super) fn signed_cookie(bytes: &[u8]) -> bool {
    let signed_for_it =
        bytes.strip_suffix(b"!").map(|signed| crate::client_ip::signature::forge(&RING, NAME, signed));
    let value = signed_for_it.as_deref().unwrap_or(bytes);
    let found = verify(&RING, NAME, value, NOW);
    let mut cache = VerifiedCookieCache::default();
    for _ in 0..2 {
        assert_eq!(cache.verify(&RING, NAME, value, NOW), found);
        assert_eq!(cache.len(), usize::from(found.is_ok()));
    }
    match found {
        Ok(signed) => {
            let text = std::str::from_utf8(value).expect("a signed value is text");
            let parts: Vec<&str> = text.split('.').collect();
            assert_eq!(parts.len(), 5);
            assert_eq!((parts[0], parts[2]), ("v1", &*signed.expires().to_string()));
            assert!(signed.expires() > NOW && signed.expires() <= NOW + MAX_TTL);
            let other = stamp(b"", "Other", text);
            assert_eq!(find(&other, NAME), Found::None);
            assert_eq!(
                verify(&RING, "Other", value, NOW),
                Err(Reason::IpSignature),
                "it belongs to its cookie"
            );
            if parts[3] == "k1" && ClientIp::parse(signed.ip().to_string().as_bytes()).is_ok() {
                let again = sign(&RING, NAME, signed.ip(), signed.expires());
                // The address may be written otherwise, where the one who signed wrote it so.
                let same_address = again.split('.').nth(1) == Some(parts[1]);
                assert_eq!(again == text, same_address);
            }
        }
        Err(reason) => {
            assert!(
                matches!(reason, Reason::IpMalformed | Reason::IpSignature | Reason::IpExpired),
                "{reason}"
            );
        }
    }
    found.is_ok()
}

/// Any bytes as a keys file: taken whole or refused, with no word of what may be a secret.
pub(super) fn keys_file(bytes: &[u8]) -> bool {
    match KeyRing::parse(bytes) {
        Ok(ring) => {
            let mut ids: Vec<&str> = ring.ids().collect();
            let address = ClientIp::parse(b"2001:db8::1").unwrap();
            let value = sign(&ring, NAME, address, NOW + 1);
            assert_eq!(value.split('.').nth(3), ids.first().copied(), "the first line signs");
            assert_eq!(verify(&ring, NAME, value.as_bytes(), NOW).map(|signed| signed.ip()), Ok(address));
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "ids are distinct");
            assert!(ids.iter().all(|id| (1..=64).contains(&id.len())));
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
            assert!(problems.is_sorted_by_key(|problem| problem.line));
            // Fixed words and numbers: nothing that was in the line.
            let [marked] = parts::<1>(bytes);
            let letters = |text: &str| text.chars().filter(char::is_ascii_alphabetic).count();
            assert!(problems.iter().all(|problem| letters(&problem.message) < 60), "{marked:?}");
            false
        }
    }
}
