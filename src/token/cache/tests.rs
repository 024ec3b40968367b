//! What is remembered, for how long, and what makes room.

use super::*;
use crate::token::algorithm::{Algorithm, AlgorithmSet};
use crate::token::fixtures::{NOW, claims, jwk, key_set, rules, token, with};
use crate::token::verify;
use proptest::prelude::*;
use serde_json::json;

/// A real proof: there is no other way to claims.
fn verified(expires: u64) -> VerifiedClaims {
    let claims = with(claims(), "exp", json!(expires)).to_string();
    let token = token(Algorithm::EdDsa, r#"{"alg":"EdDSA"}"#, &claims);
    let rules = crate::token::claims::IssuerRules { algorithms: AlgorithmSet::all(), ..rules() };
    let keys = key_set(&[jwk(Algorithm::EdDsa)], AlgorithmSet::all());
    verify(token.as_bytes(), &[rules], &[Some(keys)], NOW).unwrap()
}

#[test]
fn finds_exactly_what_was_put_in() {
    let mut cache = TokenCache::new(10, 100_000);
    assert!(cache.is_empty());
    cache.insert(b"a.b.c", verified(NOW + 10), 1);
    cache.insert(b"a.b.d", verified(NOW + 20), 2);
    assert_eq!(cache.len(), 2);
    assert_eq!(cache.get(b"a.b.c", NOW).unwrap().resolved, 1);
    let entry = cache.get(b"a.b.d", NOW).unwrap();
    assert_eq!((entry.resolved, entry.claims.identity().expires), (2, NOW + 20));
    for other in [&b""[..], b"a.b", b"a.b.c ", b"A.b.c", b"a.b.cc"] {
        assert!(cache.get(other, NOW).is_none());
    }
    entry_is_replaced(&mut cache);
}

fn entry_is_replaced(cache: &mut TokenCache<i32>) {
    let before = cache.bytes();
    cache.get(b"a.b.c", NOW).unwrap().resolved = 7;
    assert_eq!(cache.get(b"a.b.c", NOW).unwrap().resolved, 7);
    cache.insert(b"a.b.c", verified(NOW + 10), 8);
    assert_eq!(cache.get(b"a.b.c", NOW).unwrap().resolved, 8);
    assert_eq!((cache.len(), cache.bytes()), (2, before));
}

#[test]
fn an_expired_entry_is_dropped_on_sight() {
    let mut cache = TokenCache::new(10, 100_000);
    cache.insert(b"short", verified(NOW + 10), ());
    cache.insert(b"long", verified(NOW + 1000), ());
    assert!(cache.get(b"short", NOW + 10 + MAX_LEEWAY - 1).is_some(), "a leeway could save it");
    assert!(cache.get(b"short", NOW + 10 + MAX_LEEWAY).is_none());
    assert_eq!(cache.len(), 1);
    assert!(cache.get(b"short", NOW).is_none(), "gone for good");
    assert!(cache.get(b"long", NOW + 10 + MAX_LEEWAY).is_some());
    assert!(cache.get(b"long", NOW + 1000 + MAX_LEEWAY).is_none());
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
}

#[test]
fn another_generation_starts_empty() {
    let mut cache = TokenCache::new(10, 100_000);
    assert!(cache.set_generation(0).is_none());
    assert_eq!(cache.set_generation(5).unwrap().len(), 0);
    cache.insert(b"a", verified(NOW + 10), ());
    assert!(cache.set_generation(5).is_none());
    assert!(cache.get(b"a", NOW).is_some());
    assert_eq!(cache.set_generation(4).unwrap().len(), 1);
    assert!(cache.get(b"a", NOW).is_none());
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
    assert_eq!(cache.set_generation(5).unwrap().len(), 0, "an older generation does not come back");
}

#[test]
fn the_least_recently_used_make_room() {
    let mut cache = TokenCache::new(3, 100_000);
    for name in [b"1", b"2", b"3"] {
        cache.insert(name, verified(NOW + 10), ());
    }
    assert!(cache.get(b"1", NOW).is_some());
    cache.insert(b"4", verified(NOW + 10), ());
    assert!(cache.get(b"2", NOW).is_none());
    assert!(
        cache.get(b"1", NOW).is_some() && cache.get(b"3", NOW).is_some() && cache.get(b"4", NOW).is_some()
    );
}

#[test]
fn bytes_are_bounded_too() {
    let claims = verified(NOW + 10);
    let cost = cost(&[0; 1000], &claims);
    let mut cache = TokenCache::new(1000, 3 * cost);
    for number in 0..10 {
        cache.insert(&[number; 1000], claims.clone(), ());
        assert!(cache.bytes() <= 3 * cost);
    }
    assert_eq!((cache.len(), cache.bytes()), (3, 3 * cost));
    cache.insert(&[0xff; 5000], claims.clone(), ());
    assert!(cache.get(&[0xff; 5000], NOW).is_none(), "larger than everything");
    assert_eq!(cache.len(), 3, "and nothing had to make room for it");

    let mut nothing = TokenCache::new(0, 100_000);
    nothing.insert(b"a", claims, ());
    assert!(nothing.is_empty());
}

proptest! {
    #[test]
    fn counts_stay_right(steps in proptest::collection::vec((0..4u8, 0..6usize, 0..3u64), 0..60)) {
        let lives = [verified(NOW + 1), verified(NOW + 500), verified(NOW + 1000)];
        let mut cache = TokenCache::new(4, 3000);
        for (step, token, life) in steps {
            let token = vec![b'a'; token * 300];
            match step {
                0 | 1 => cache.insert(&token, lives[life as usize].clone(), ()),
                2 => drop(cache.get(&token, NOW + life * 500)),
                _ => drop(cache.set_generation(life)),
            }
            prop_assert!(cache.len() <= 4 && cache.bytes() <= 3000);
            let sum: usize = cache.entries.iter().map(|(token, entry)| cost(token, &entry.claims)).sum();
            prop_assert_eq!(sum, cache.bytes());
        }
    }
}
