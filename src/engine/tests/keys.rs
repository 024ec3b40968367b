//! What is never frozen into the cache of tokens: keys, times, issuers, groups.

use super::*;

#[test]
fn a_cached_token_dies_with_its_key() {
    let site = Site::start(TAIL);
    let (gone, stays) = (signed("r", &claims()), signed("e", &claims()));
    for token in [&gone, &stays] {
        assert_eq!(site.reason(&query(token)), Reason::Granted);
        assert_eq!(site.cache(&query(token)), CacheUse::Hit);
    }
    site.scratch.write("jwks.json", &key_set(&[("e", Algorithm::Es256)]));
    site.wait_for_reason(&query(&gone), Reason::TokenKeyUnknown);
    assert_eq!(site.reason(&query(&stays)), Reason::Granted);
    // A set without one usable key is a failed refresh, which keeps the old one.
    let ages = || (site.engine.gauges().jwks_last_success, site.engine.status()["loaded_at"].clone());
    let before = ages();
    // The ages are in seconds: one has to pass for a wrong one to be seen.
    std::thread::sleep(Duration::from_millis(1100));
    site.scratch.write("jwks.json", r#"{"keys": []}"#);
    site.wait_for("the complaint", |site| {
        site.errors().iter().any(|text| text.contains("there is no usable key"))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ages(), before, "a refresh that failed makes nothing younger");
    assert_eq!(site.reason(&query(&stays)), Reason::Granted);
    // The same key id, another key.
    site.scratch.write("jwks.json", &key_set(&[("e", Algorithm::Rs256), ("r", Algorithm::Rs256)]));
    site.wait_for_reason(&query(&stays), Reason::TokenKeyUnknown);
    assert_eq!(site.reason(&query(&gone)), Reason::Granted);
}

#[test]
fn a_key_is_withdrawn_even_while_the_policy_is_broken() {
    let site = Site::start(&format!(
        "client_ip: {{ keys_file: ip.keys }}\n{TAIL}restrictions: [{{ networks: [192.0.2.1] }}]\n"
    ));
    let (gone, stays) = (signed("r", &claims()), signed("e", &claims()));
    let keys = format!("k1:{SECRET}\n");
    let cookie = stamp(&keys, "192.0.2.1", unix_now() + 300);
    let of = |token| Query { cookies: Some(cookie.as_bytes()), ..query(token) };
    assert_eq!([site.reason(&of(&gone)), site.reason(&of(&stays))], [Reason::Granted; 2]);
    let revision = site.engine.revision();
    site.scratch.write("policy.yaml", &policy("grant: []\n"));
    site.wait_for("the complaint", |site| site.errors().iter().any(|text| text.contains("unknown key")));

    site.scratch.write("jwks.json", &key_set(&[("e", Algorithm::Es256)]));
    site.wait_for_reason(&of(&gone), Reason::TokenKeyUnknown);
    assert_eq!(site.reason(&of(&stays)), Reason::Granted);
    // So are the keys of cookies.
    site.scratch.write("ip.keys", &format!("k2:{}\n", SECRET.replace('M', "N")));
    site.wait_for_reason(&of(&stays), Reason::IpSignature);
    // What is broken replaces nothing.
    site.scratch.write("jwks.json", "{}");
    fs::remove_file(site.scratch.path("ip.keys")).unwrap();
    site.wait_for("the complaint", |site| {
        let errors = site.errors();
        errors
            .iter()
            .any(|text| text.contains("the keys in force are kept: `jwks.json`: has no array `keys`"))
            && errors.iter().any(|text| text.contains("`ip.keys`: no such file"))
    });
    assert_eq!(site.reason(&of(&stays)), Reason::IpSignature);
    assert_eq!(site.engine.revision(), revision);
    assert!(!site.engine.gauges().last_reload_successful);
}

/// A revocation must not wait for whoever repairs a file of keys.
#[test]
fn a_policy_is_used_even_while_a_file_of_keys_is_broken() {
    let with_cookie =
        format!("client_ip: {{ keys_file: ip.keys }}\n{TAIL}restrictions: [{{ networks: [192.0.2.1] }}]\n");
    let site = Site::start(&with_cookie);
    let (gone, stays) = (signed("r", &claims()), signed("e", &claims()));
    let cookie = stamp(&format!("k1:{SECRET}\n"), "192.0.2.1", unix_now() + 300);
    let of = |token| Query { cookies: Some(cookie.as_bytes()), ..query(token) };
    assert_eq!([site.reason(&of(&gone)), site.reason(&of(&stays))], [Reason::Granted; 2]);
    let complaint = |site: &Site, what: &str| {
        site.wait_for(what, |site| site.engine.status()["problems"].to_string().contains(what));
    };
    for (file, content, what) in [("jwks.json", "{", "`jwks.json`"), ("ip.keys", "k1", "ip.keys")] {
        let good = fs::read_to_string(site.scratch.path(file)).unwrap();
        site.scratch.write(file, content);
        complaint(&site, what);
        let before = site.engine.revision();
        site.let_it_look();
        assert_eq!((site.engine.revision(), site.reason(&of(&stays))), (before, Reason::Granted));
        // What else is changed counts, with the keys that were in force.
        site.change(&format!("{with_cookie}revoked: {{ groups: [a] }} # {file}\n"));
        assert_eq!(site.reason(&of(&stays)), Reason::TenantForbidden);
        complaint(&site, what);
        assert!(!site.engine.gauges().last_reload_successful);
        site.change(&with_cookie);
        assert_eq!(site.reason(&of(&stays)), Reason::Granted);
        // The other files of keys go on being watched.
        if file == "ip.keys" {
            site.scratch.write("jwks.json", &key_set(&[("e", Algorithm::Es256)]));
            site.wait_for_reason(&of(&gone), Reason::TokenKeyUnknown);
            assert_eq!(site.reason(&of(&stays)), Reason::Granted);
        }
        // What is wrong with the policy itself is refused, as ever.
        let in_force = site.engine.revision();
        site.scratch.write("policy.yaml", &policy("grant: []\n"));
        complaint(&site, "unknown key");
        assert_eq!(site.engine.revision(), in_force);
        site.scratch.write("policy.yaml", &policy(&with_cookie));
        site.scratch.write(file, &good);
        site.wait_for("the repair", |site| site.engine.gauges().last_reload_successful);
        assert_eq!(site.reason(&of(&stays)), Reason::Granted);
    }
}

/// A key set belongs to one issuer: what stands in for a broken file is that issuer's own, and for its own algorithms.
#[test]
fn keys_in_force_stand_in_for_nobody_else() {
    let site = Site::start(TAIL);
    let of_entra = signed("r", &claims());
    assert_eq!(site.reason(&query(&of_entra)), Reason::Granted);
    let revision = site.engine.revision();
    let of_other = signed("r", &with(claims(), "iss", json!("https://other.example")));
    for changed in [
        policy(TAIL).replace("https://issuer.example", "https://other.example"),
        policy(TAIL).replace("[RS256, ES256]", "[RS256]"),
    ] {
        site.scratch.write("jwks.json", "{");
        site.scratch.write("policy.yaml", &changed);
        site.wait_for("the refusal", |site| {
            site.errors().iter().any(|text| text.contains("the policy was refused, the last good revision"))
        });
        assert_eq!(site.engine.revision(), revision);
        assert_eq!(site.reason(&query(&of_other)), Reason::TokenIssuer);
        site.scratch.write("policy.yaml", &policy(TAIL));
        site.scratch.write("jwks.json", &key_set(&[("r", Algorithm::Rs256), ("e", Algorithm::Es256)]));
        site.wait_for("the repair", |site| site.engine.gauges().last_reload_successful);
    }
}

/// A file of two issuers may be good for one of them: then it is read, and what it no longer holds verifies nothing.
#[test]
fn a_file_of_two_issuers_is_no_broken_file() {
    let two = |tail: &str| {
        let second = "- name: other\n  issuer: https://other.example\n  audiences: [grafana]\n  jwks_file: jwks.json\n  \
             algorithms: [ES256]\n  leeway: 0s\n";
        let policy = policy(tail).replace("[RS256, ES256]", "[RS256]");
        policy.replace("grants:", &format!("{second}grants:")).replace("groups: [a]", "groups: ['entra:a']")
    };
    let scratch = Scratch::new();
    scratch.write("policy.yaml", &two(TAIL));
    let site = Site::start_in(scratch, "policy.yaml");
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    let (gone, stays) = (signed("r", &claims()), signed("q", &claims()));
    assert_eq!(
        [site.reason(&query(&gone)), site.reason(&query(&stays))],
        [Reason::Granted, Reason::TokenKeyUnknown]
    );
    // Of no use for the other issuer.
    site.scratch.write("jwks.json", &key_set(&[("q", Algorithm::Rs256)]));
    site.wait_for_reason(&query(&gone), Reason::TokenKeyUnknown);
    assert_eq!(site.reason(&query(&stays)), Reason::Granted);
}

/// Nor for a worker that starts: a key that was withdrawn meanwhile must not come back, not for a moment.
#[test]
fn a_worker_that_starts_takes_no_former_key_for_a_good_file() {
    let with_cookie =
        format!("client_ip: {{ keys_file: ip.keys }}\n{TAIL}restrictions: [{{ networks: [192.0.2.1] }}]\n");
    let site = Site::start(&with_cookie);
    let bundle = site.last_good();
    let (gone, stays) = (signed("r", &claims()), signed("e", &claims()));
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy.yaml", &policy(&format!("{with_cookie}revoked: {{ groups: [a] }}\n")));
    let inherited = Inherited { policy: Some(bundle), ..Inherited::default() };
    scratch.write("jwks.json", &key_set(&[("e", Algorithm::Es256)]));
    scratch.write("ip.keys", "broken");
    let engine =
        Engine::start_settling(scratch.options("policy.yaml"), inherited, Duration::from_millis(100))
            .unwrap();
    let site = Site { scratch, engine };
    let cookie = stamp(&format!("k1:{SECRET}\n"), "192.0.2.1", unix_now() + 300);
    let of = |token| Query { cookies: Some(cookie.as_bytes()), ..query(token) };
    site.wait_for("a policy", |site| {
        let reason = site.reason(&of(&gone));
        assert!([Reason::PolicyUnavailable, Reason::TokenKeyUnknown].contains(&reason), "{reason}");
        reason == Reason::TokenKeyUnknown
    });
    assert_eq!(site.reason(&of(&stays)), Reason::Granted);
    // With these keys at hand, what was changed before it started counts too.
    site.wait_for_reason(&of(&stays), Reason::TenantForbidden);
    assert_eq!(site.reason(&of(&gone)), Reason::TokenKeyUnknown);
}

#[test]
fn times_are_compared_at_every_request() {
    let site = Site::start(TAIL);
    let now = unix_now();
    let short = signed("r", &with(claims(), "exp", json!(now + 3)));
    let later = signed("r", &with(claims(), "nbf", json!(now + 3)));
    assert_eq!(site.reason(&query(&short)), Reason::Granted);
    assert_eq!(site.reason(&query(&later)), Reason::TokenNotYetValid);
    assert_eq!(site.cache(&query(&short)), CacheUse::Hit);
    site.wait_for("the end", |_| unix_now() >= now + 3);
    assert_eq!(site.reason(&query(&short)), Reason::TokenExpired);
    assert_eq!(site.reason(&query(&later)), Reason::Granted);

    // A grant and a cookie expire likewise.
    let now = unix_now();
    let expires = jiff::Timestamp::from_second(i64::try_from(now + 3).unwrap()).unwrap();
    site.change(&format!(
        "client_ip: {{ keys_file: ip.keys }}\n\
         grants:\n\
         - {{ groups: [a], tenants: [t], expires: {expires} }}\n\
         - {{ groups: [a], tenants: [u] }}\n\
         restrictions: [{{ networks: [192.0.2.1] }}]\n"
    ));
    let cookie = stamp(&format!("k1:{SECRET}\n"), "192.0.2.1", now + 3);
    let good = signed("r", &claims());
    let on_t = Query { cookies: Some(cookie.as_bytes()), ..query(&good) };
    let on_u = Query { tenant: Some(b"u"), ..on_t };
    assert_eq!([site.reason(&on_t), site.reason(&on_u)], [Reason::Granted; 2]);
    site.wait_for("the end", |_| unix_now() >= now + 3);
    assert_eq!([site.reason(&on_t), site.reason(&on_u)], [Reason::TenantForbidden, Reason::IpExpired]);
}

#[test]
fn a_cached_token_is_judged_by_the_issuers_of_today() {
    let site = Site::start(TAIL);
    let good = signed("r", &claims());
    assert_eq!(site.reason(&query(&good)), Reason::Granted);
    let change = |from: &str, to: &str| {
        let before = site.engine.revision();
        let text = policy(TAIL);
        assert!(text.contains(from));
        site.scratch.write("policy.yaml", &text.replace(from, to));
        site.wait_for("the change", |site| site.engine.revision() != before);
        site.reason(&query(&good))
    };
    assert_eq!(change("audiences: [grafana]", "audiences: [other]"), Reason::TokenAudience);
    assert_eq!(change("audiences: [grafana]", "audiences: [other, grafana]"), Reason::Granted);
    assert_eq!(change("issuer.example", "issuer.test"), Reason::TokenIssuer);
    assert_eq!(change("[RS256, ES256]", "[ES256]"), Reason::TokenUnsupported);
    assert_eq!(change("leeway: 0s", "leeway: 0s\n  groups_claim: /realm/roles"), Reason::GroupsMissing);
    assert_eq!(change("leeway: 0s", "leeway: 1s"), Reason::Granted);
}

#[test]
fn groups_are_resolved_in_the_policy_that_decides() {
    let site = Site::start(TAIL);
    let good = signed("r", &with(claims(), "groups", json!(["a", "b"])));
    assert_eq!(site.reason(&query(&good)), Reason::Granted);
    let record = |site: &Site| {
        let record = site.seen(&loki(), &query(&good), record_of);
        serde_json::from_str::<Value>(&format!("{{{record}}}")).unwrap()
    };
    assert_eq!(record(&site)["groups"], json!(["a"]));
    // Other rules in front, so that every number changes its meaning.
    site.change("grants:\n- { groups: [x, y, z, b], tenants: [w] }\n- { groups: [q], tenants: [t] }\n");
    assert_eq!(site.cache(&query(&good)), CacheUse::Hit, "verified once, resolved again");
    assert_eq!(site.reason(&query(&good)), Reason::TenantForbidden);
    assert_eq!(record(&site)["groups"], json!(["b"]));
    // The name of an alias is no raw group any more.
    site.change(&format!("group_names: {{ a: [elsewhere], team: [b] }}\n{TAIL}"));
    assert_eq!(site.reason(&query(&good)), Reason::TenantForbidden);
    assert_eq!(record(&site)["groups"], json!(["team"]));
    site.change(&format!("group_names: {{ team: [b] }}\n{}", TAIL.replace("[a]", "[team]")));
    assert_eq!(site.reason(&query(&good)), Reason::Granted);
}

#[test]
fn the_keys_of_cookies_follow_their_file() {
    let site = Site::start(&format!(
        "client_ip: {{ keys_file: ip.keys }}\n{TAIL}restrictions: [{{ networks: [192.0.2.1] }}]\n"
    ));
    let good = signed("r", &claims());
    let (old, new) = (format!("k1:{SECRET}\n"), format!("k2:{}\n", SECRET.replace('M', "N")));
    let expires = unix_now() + 300;
    let (by_old, by_new) = (stamp(&old, "192.0.2.1", expires), stamp(&new, "192.0.2.1", expires));
    let of = |cookie: &str| site.reason(&Query { cookies: Some(cookie.as_bytes()), ..query(&good) });
    assert_eq!([of(&by_old), of(&by_new)], [Reason::Granted, Reason::IpSignature]);
    site.scratch.write("ip.keys", &format!("{new}{old}"));
    site.wait_for("the new key", |_| of(&by_new) == Reason::Granted);
    assert_eq!(of(&by_old), Reason::Granted);
    site.scratch.write("ip.keys", &new);
    site.wait_for("the end of the old key", |_| of(&by_old) == Reason::IpSignature);
    assert_eq!(of(&by_new), Reason::Granted);
}

#[test]
fn a_revoked_token_stays_revoked_however_its_signature_is_written() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let revoked = signed("e", &claims());
    let sum = crate::token::digest::sha256_hex(revoked.as_bytes());
    let site = Site::start(&format!("{TAIL}revoked: {{ tokens_sha256: [{sum}] }}\n"));
    assert_eq!(site.reason(&query(&revoked)), Reason::TokenRevoked);
    // (r, n - s) verifies wherever (r, s) does.
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (signed_part, signature) = revoked.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let mut digit = i16::from(N[at]) - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        digit += 256 * borrow;
        bytes[32 + at] = u8::try_from(digit).unwrap();
    }
    let twin = format!("{signed_part}.{}", URL_SAFE_NO_PAD.encode(&bytes));
    assert_eq!(site.reason(&query(&twin)), Reason::TokenRevoked);
}

/// The one key of the policy's file, under these ids.
fn rsa_under(kids: &[Option<&str>]) -> String {
    let keys: Vec<Value> = kids
        .iter()
        .map(|kid| with(jwk(Algorithm::Rs256), "kid", kid.map_or(Value::Null, |kid| json!(kid))))
        .collect();
    json!({"keys": keys}).to_string()
}

#[test]
fn a_revoked_key_ends_its_cached_tokens_at_the_next_reload() {
    let site = Site::start(TAIL);
    let (theirs, ours) = (signed("r", &claims()), signed("e", &claims()));
    // Without a kid: the key that verified it counts.
    let nameless = token(Algorithm::Rs256, r#"{"alg":"RS256"}"#, &claims().to_string());
    let all = [&theirs, &nameless, &ours];
    let reasons = || all.map(|token| site.reason(&query(token)));
    assert_eq!(reasons(), [Reason::Granted; 3]);
    for token in all {
        assert_eq!(site.cache(&query(token)), CacheUse::Hit);
    }
    let revoked = [Reason::TokenRevoked, Reason::TokenRevoked, Reason::Granted];
    site.change(&format!("{TAIL}revoked: {{ keys: [{{ issuer: entra, kid: r }}] }}\n"));
    assert_eq!(reasons(), revoked);
    for token in all {
        assert_eq!(site.cache(&query(token)), CacheUse::Hit, "it is not verified again");
    }
    let issuer = &site.engine.status()["issuers"][0];
    assert_eq!((&issuer["kids"], &issuer["revoked_kids"]), (&json!(["r", "e"]), &json!(["r"])));
    // Whoever holds the key writes what they like: also what would be refused for something else.
    for (name, value) in [("exp", json!(1)), ("groups", json!(5)), ("aud", json!("x")), ("sub", json!(5))] {
        let forged = signed("r", &with(claims(), name, value));
        assert_eq!(site.reason(&query(&forged)), Reason::TokenRevoked, "{name}");
    }
    // By another id of the same key it is that key still.
    site.scratch.write("jwks.json", &rsa_under(&[Some("x"), Some("r")]));
    let renamed = token(Algorithm::Rs256, r#"{"alg":"RS256","kid":"x"}"#, &claims().to_string());
    site.wait_for_reason(&query(&renamed), Reason::TokenRevoked);
    assert_eq!(site.reason(&query(&nameless)), Reason::TokenRevoked);

    site.scratch.write("jwks.json", &key_set(&[("r", Algorithm::Rs256), ("e", Algorithm::Es256)]));
    site.change(TAIL);
    site.wait_for_reason(&query(&ours), Reason::Granted);
    assert_eq!(reasons(), [Reason::Granted; 3]);
    // One of another name, which no key has, revokes nothing.
    site.change(&format!("{TAIL}revoked: {{ keys: [{{ issuer: entra, kid: R }}] }}\n"));
    assert_eq!(reasons(), [Reason::Granted; 3]);
}

#[test]
fn a_revocation_ends_by_the_clock_and_not_by_a_reload() {
    let token = signed("r", &claims());
    let entry = |ends: u64| {
        let ends = super::super::timestamp(ends).unwrap();
        format!("{{ issuer: entra, id: s-1, until: {ends} }}")
    };
    let ends = unix_now() + 3;
    let site = Site::start(&format!("{TAIL}revoked: {{ principals: [{}] }}\n", entry(ends)));
    let revision = site.engine.revision();
    assert_eq!(site.reason(&query(&token)), Reason::TokenRevoked);
    assert_eq!(site.cache(&query(&token)), CacheUse::Hit);
    site.wait_for_reason(&query(&token), Reason::Granted);
    assert!(unix_now() >= ends && site.engine.revision() == revision);
    // Of two entries the later one counts, in either order; and one without an end does not end.
    let (past, later) = (entry(ends), entry(ends + 3600));
    let endless = "{ issuer: entra, id: s-1 }".to_owned();
    for (entries, reason) in [
        (&[&past, &later][..], Reason::TokenRevoked),
        (&[&later, &past], Reason::TokenRevoked),
        (&[&past, &endless], Reason::TokenRevoked),
        (&[&endless, &past], Reason::TokenRevoked),
        (&[&past], Reason::Granted),
    ] {
        let entries: Vec<&str> = entries.iter().map(|entry| &***entry).collect();
        site.change(&format!("{TAIL}revoked: {{ principals: [{}] }}\n", entries.join(", ")));
        assert_eq!(site.reason(&query(&token)), reason, "{entries:?}");
    }
}

#[test]
fn a_service_accounts_revocation_ends_by_the_clock() {
    const TOKEN: &str = "Bearer tas_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let sum = crate::token::digest::sha256_hex(TOKEN.trim_start_matches("Bearer ").as_bytes());
    let ends = unix_now() + 3;
    let site = Site::start(&format!(
        "service_accounts: [{{ name: agent, token_sha256: [{sum}], networks: [192.0.2.1] }}]\n\
         grants: [{{ groups: ['service:agent'], tenants: [t] }}]\n\
         revoked: {{ principals: [{{ issuer: service, id: agent, until: {} }}] }}\n",
        super::super::timestamp(ends).unwrap()
    ));
    let request = Query { token_is_authorization: true, ..query(TOKEN) };
    assert_eq!(site.reason(&request), Reason::TokenRevoked);
    site.wait_for_reason(&request, Reason::Granted);
    assert!(unix_now() >= ends);
}

#[test]
fn records_name_whom_a_refused_token_was_made_for_and_nobody_else() {
    let site = Site::start(TAIL);
    let record = |token: &str| -> Value {
        let record = site.seen(&loki(), &query(token), record_of);
        serde_json::from_str(&format!("{{{record}}}")).unwrap()
    };
    let named = |token: &str| {
        let record = record(token);
        ["reason", "issuer", "subject", "user", "groups"].map(|key| record[key].clone())
    };
    let changed = |name: &str, value: Value| with(claims(), name, value);
    for (reason, claims) in [
        ("token_expired", changed("exp", json!(unix_now() - 10))),
        ("token_not_yet_valid", changed("nbf", json!(unix_now() + 600))),
        ("token_malformed", changed("exp", Value::Null)),
        ("token_audience", changed("aud", json!("elsewhere"))),
        ("groups_missing", changed("groups", Value::Null)),
        ("groups_malformed", changed("groups", json!(5))),
        (
            "groups_overage",
            changed("groups", Value::Null).as_object_mut().map_or(Value::Null, |claims| {
                claims.insert("hasgroups".to_owned(), json!(true));
                json!(claims)
            }),
        ),
    ] {
        assert_eq!(
            named(&signed("r", &claims)),
            [json!(reason), json!("entra"), json!("s-1"), json!("ada"), json!(null)]
        );
        // The same with a signature that no key made.
        let (good, _) = signed("r", &claims).rsplit_once('.').map(|(good, _)| (good.to_owned(), ())).unwrap();
        let forged = format!("{good}.{}", crate::token::fixtures::b64([0; 256]));
        let mut nobody = [json!("token_signature"), json!(null), json!(null), json!(null), json!(null)];
        assert_eq!(named(&forged), nobody);
        nobody[0] = json!("token_key_unknown");
        assert_eq!(named(&signed("unknown", &claims)), nobody);
    }
    // One that was verified before, and has expired since.
    let ends = unix_now() + 2;
    let token = signed("r", &changed("exp", json!(ends)));
    assert_eq!(named(&token)[0], json!("granted"));
    site.wait_for_reason(&query(&token), Reason::TokenExpired);
    assert_eq!(
        named(&token),
        [json!("token_expired"), json!("entra"), json!("s-1"), json!("ada"), json!(null)]
    );
    // The next request, which is somebody else's, inherits nothing.
    assert_eq!(named("x")[1], json!(null));
}
