//! Service tokens: what is read from a header, whose it is, and what is remembered.

use super::*;
use crate::lines::Lines;
use crate::policy::snapshot::Snapshot;
use crate::policy::tests::{HEAD, snapshot};
use crate::token::digest::sha256_hex;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

fn made(letter: char) -> String {
    format!("tas_{}", letter.to_string().repeat(43))
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

/// The account `agent` has the tokens of `a` and `b`, `script` that of `c`; `d`'s is revoked, and so is all of `gone`.
fn policy() -> Snapshot {
    let sum = |letter| sha256_hex(made(letter).as_bytes());
    snapshot(&format!(
        "{HEAD}service_accounts:\n\
         - {{ name: agent, token_sha256: ['{}', '{}'], networks: [10.0.0.0/8] }}\n\
         - {{ name: script, token_sha256: ['{}', '{}'], networks: [10.0.0.0/8] }}\n\
         - {{ name: gone, token_sha256: ['{}'], networks: [10.0.0.0/8] }}\n\
         grants: [{{ groups: ['service:agent'], tenants: [t] }}]\n\
         revoked: {{ principals: [{{ issuer: service, id: gone }}], tokens_sha256: ['{}'] }}\n",
        sum('a'),
        sum('b').to_uppercase(),
        sum('c'),
        sum('d'),
        sum('e'),
        sum('d'),
    ))
}

#[test]
fn a_header_is_read_in_both_forms_and_nothing_else_is_a_service_token() {
    let a = made('a');
    let read = |header: &str| {
        Credentials::read(header.as_bytes())
            .map(|found| (found.user.map(|user| String::from_utf8(user).unwrap()), found.token.into_owned()))
    };
    let token = a.clone().into_bytes();
    for header in [format!("Bearer {a}"), format!("bEARER   {a}"), format!("BEARER {a} ")] {
        assert_eq!(read(&header), Some((None, token.clone())), "{header}");
    }
    let padded = basic(&format!("agent:{a}"));
    for header in [
        padded.clone(),
        padded.replace("Basic", "bAsIc"),
        format!("Basic {}", STANDARD_NO_PAD.encode(format!("agent:{a}"))),
    ] {
        assert_eq!(read(&header), Some((Some("agent".to_owned()), token.clone())), "{header}");
    }
    // The first colon ends the name; what follows belongs to the password.
    assert_eq!(read(&basic(&format!("x:agent:{a}"))), None);
    assert_eq!(read(&basic(&format!(":{a}"))), Some((Some(String::new()), token)));
    for none in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer tas",
        "Bearer eyJhbGciOiJSUzI1NiJ9.e30.x",
        "Bearer TAS_aaaa",
        &format!("Bearer\t{a}"),
        &a,
        &format!("Token {a}"),
        &format!("Bearer{a}"),
        "Basic",
        "Basic !!!",
        &basic("agent:secret"),
        &basic(&format!("agent{a}")),
        &format!("Basic agent:{a}"),
        &basic(&format!("{}:{a}", "x".repeat(2000))),
    ] {
        assert_eq!(read(none), None, "{none}");
    }
}

#[test]
fn a_token_is_its_accounts_and_nobody_elses() {
    let snapshot = policy();
    let of = |header: &str| {
        let credentials = Credentials::read(header.as_bytes()).unwrap();
        let number = snapshot.account_of(&credentials, Lines::One(b"t"))?;
        Ok(&*snapshot.service_accounts[number].name)
    };
    let whole = made('a');
    let (short, _) = whole.split_at(LENGTH - 1);
    for (header, expected) in [
        (format!("Bearer {}", made('a')), Ok("agent")),
        (format!("Bearer {}", made('b')), Ok("agent")),
        (format!("Bearer {}", made('c')), Ok("script")),
        (basic(&format!("agent:{}", made('a'))), Ok("agent")),
        (basic(&format!("script:{}", made('c'))), Ok("script")),
        (basic(&format!("script:{}", made('a'))), Err(Reason::TokenUnknown)),
        (basic(&format!("Agent:{}", made('a'))), Err(Reason::TokenUnknown)),
        (basic(&format!(":{}", made('a'))), Err(Reason::TokenUnknown)),
        (format!("Bearer {}", made('z')), Err(Reason::TokenUnknown)),
        (format!("Bearer {}a", made('a')), Err(Reason::TokenUnknown)),
        (format!("Bearer {short}"), Err(Reason::TokenUnknown)),
        ("Bearer tas_".to_owned(), Err(Reason::TokenUnknown)),
        (format!("Bearer {short}."), Err(Reason::TokenUnknown)),
    ] {
        assert_eq!(of(&header), expected, "{header}");
    }
}

#[test]
fn only_the_form_that_keygen_makes_is_a_token() {
    // Its hash is in the policy, but a short secret could be guessed from that.
    let weak = "tas_hunter2";
    let snapshot = snapshot(&format!(
        "{HEAD}service_accounts: [{{ name: weak, token_sha256: ['{}'], networks: [10.0.0.0/8] }}]\n",
        sha256_hex(weak.as_bytes())
    ));
    let credentials = Credentials::of_token(weak.as_bytes()).unwrap();
    assert_eq!(snapshot.account_of(&credentials, Lines::None), Err(Reason::TokenUnknown));
}

#[test]
fn successes_are_remembered_for_one_snapshot_and_failures_never() {
    let snapshot = policy();
    let mut cache = ServiceTokenCache::default();
    let mut find = |serial, header: &str| {
        let found = cache.get_or_insert_with(serial, header.as_bytes(), || {
            let found = Credentials::read(header.as_bytes()).ok_or(Reason::TokenMissing)?;
            let account = snapshot.account_of(&found, Lines::None)?;
            Ok((account, snapshot.is_revoked_account(account, &found)))
        });
        (found.copied(), cache.len())
    };
    let bearer = |letter| format!("Bearer {}", made(letter));
    assert_eq!(find(1, &bearer('a')), (Ok((0, false)), 1));
    assert_eq!(find(1, &bearer('a')), (Ok((0, false)), 1));
    assert_eq!(find(1, &basic(&format!("agent:{}", made('a')))), (Ok((0, false)), 2));
    assert_eq!(find(1, &bearer('d')), (Ok((1, true)), 3), "a revoked token");
    assert_eq!(find(1, &bearer('c')), (Ok((1, false)), 4), "of an account that goes on with another");
    assert_eq!(find(1, &bearer('e')), (Ok((2, true)), 5), "a revoked account");
    for _ in 0..2 {
        assert_eq!(find(1, &bearer('z')), (Err(Reason::TokenUnknown), 5));
        assert_eq!(find(1, "Basic x"), (Err(Reason::TokenMissing), 5));
        assert_eq!(find(1, &format!("Bearer tas_{}", "x".repeat(500))), (Err(Reason::TokenUnknown), 5));
        assert_eq!(
            find(1, &format!("Bearer {}{}", " ".repeat(5000), made('a'))),
            (Err(Reason::TokenMissing), 5)
        );
        assert_eq!(find(1, &format!("Basic {}", "x".repeat(5000))), (Err(Reason::TokenMissing), 5));
    }
    assert_eq!(find(2, &bearer('z')), (Err(Reason::TokenUnknown), 0), "another snapshot");
    assert_eq!(find(2, &bearer('b')), (Ok((0, false)), 1));
}

#[test]
fn what_looks_like_a_token_is_known_however_it_is_wrapped() {
    let a = made('a');
    let blanks = " ".repeat(2000);
    for held in [
        a.clone(),
        format!("Bearer {a}"),
        format!("Bearer {blanks}{a}"),
        format!("bearer\t{a}"),
        format!("Token {a}; x"),
        format!("Digest token=\"{a}\""),
        "Bearer tas_short".to_owned(),
        basic(&format!("agent:{a}")),
        basic(&format!("agent:x:{a}")),
        basic(&format!("agent:{a}")).replace("Basic", &format!("bASIC{blanks}")),
        basic(&format!("{}:{a}", "n".repeat(2000))),
    ] {
        assert!(holds_token(held.as_bytes()), "{held}");
    }
    // Found by fuzzing: what is read as credentials behind a form feed went on as nobody's.
    for blank in (0..=u8::MAX).filter(u8::is_ascii_whitespace).map(char::from) {
        for held in [basic(&format!("agent:{a}")), format!("Bearer {a}")] {
            let held = held.replace(' ', &format!(" {blank}")) + &blank.to_string();
            assert!(Credentials::read(held.as_bytes()).is_some() && holds_token(held.as_bytes()), "{held:?}");
        }
    }
    for byte in (0..128_u8).filter(|byte| !byte.is_ascii_alphanumeric() && !b"+/-_".contains(byte)) {
        let held = basic(&format!("agent:{a}")).replace(' ', &format!(" {}", char::from(byte)));
        assert!(holds_token(held.as_bytes()), "{held:?}");
    }
    // As Go reads it: bits that are left over may be anything, and the other alphabet is as good.
    let unpadded = basic(&format!("a:{a}"));
    let unpadded = unpadded.trim_end_matches('=');
    let (head, last) = unpadded.split_at(unpadded.len() - 1);
    let odd = format!("{head}{}", char::from(last.as_bytes()[0] + 1));
    assert!(Credentials::read(odd.as_bytes()).is_none() && holds_token(odd.as_bytes()), "{odd}");
    let other_alphabet = basic(&format!("??>:{a}"));
    assert!(other_alphabet.contains('+'), "{other_alphabet}");
    let other_alphabet = other_alphabet.replace('+', "-").replace('/', "_");
    assert!(holds_token(other_alphabet.as_bytes()) && holds_token(format!("{other_alphabet},").as_bytes()));
    let jwt = crate::token::fixtures::token(
        crate::token::algorithm::Algorithm::Rs256,
        r#"{"alg":"RS256"}"#,
        r#"{"sub":"tas_x"}"#,
    );
    for other in [
        "",
        "Bearer",
        "Basic",
        "Bearer xtas_aaaa",
        "Basic tas",
        &basic("agent:secret"),
        &format!("Bearer {jwt}"),
    ] {
        assert!(!holds_token(other.as_bytes()), "{other}");
    }
}
