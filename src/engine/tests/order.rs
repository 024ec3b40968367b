//! The promised order of checks: a request that is wrong everywhere is repaired step by step.

use super::*;
use crate::connection::Connection;

#[test]
fn reasons_come_in_the_promised_order() {
    let site = Site::start(
        "client_ip: { keys_file: ip.keys }\n\
         grants:\n\
         - { groups: [a], tenants: [t], scopes: ['logs:write'] }\n\
         - { groups: [a, b], tenants: [u] }\n\
         restrictions: [{ networks: [192.0.2.0/24] }]\n",
    );
    let now = unix_now();
    let twice = "Client_Ip=x; a=b\nClient_Ip=y";
    let malformed = "Client_Ip=x";
    let outside = stamp(&format!("k1:{SECRET}\n"), "198.51.100.1", now + 60);
    let inside = stamp(&format!("k1:{SECRET}\n"), "192.0.2.9", now + 60);
    let old = stamp(&format!("k1:{SECRET}\n"), "192.0.2.9", now - 1);
    let forged = stamp(&format!("k1:{}\n", SECRET.replace('M', "N")), "192.0.2.9", now + 60);
    let unsupported = token(Algorithm::Rs256, r#"{"alg":"RS384","kid":"r"}"#, &claims().to_string());
    let unknown_key = token(Algorithm::Rs256, r#"{"alg":"RS256","kid":"z"}"#, &claims().to_string());
    let with_claim = |name: &str, value: Value| signed("r", &with(claims(), name, value));
    let stranger = with_claim("iss", json!("https://other.example"));
    let mut tampered = signed("r", &claims());
    let last = tampered.pop().unwrap();
    tampered.push(if last == 'A' { 'Q' } else { 'A' });
    let signature_of_another = {
        let other = signed("r", &with(claims(), "sub", json!("s-2")));
        let (signed, _) = tampered.rsplit_once('.').unwrap();
        format!("{signed}.{}", other.rsplit_once('.').unwrap().1)
    };
    let expired = signed("r", &with(with(claims(), "exp", json!(now - 1)), "aud", json!("other")));
    let early = signed("r", &with(with(claims(), "nbf", json!(now + 600)), "aud", json!("other")));
    let audience = signed("r", &with(with(claims(), "aud", json!("other")), "groups", Value::Null));
    let no_groups = with_claim("groups", Value::Null);
    let bad_groups = with_claim("groups", json!(5));
    let overage = signed("r", &with(with(claims(), "groups", Value::Null), "hasgroups", json!(true)));
    let nobody = with_claim("groups", json!([]));
    let good = signed("r", &claims());

    // Wrong in every way at once.
    let mut request = Query {
        headers_truncated: true,
        tenant: Some(b""),
        tenant_repeated: true,
        token: None,
        token_repeated: true,
        cookies: Some(twice.as_bytes()),
        request_uri: b"/loki/api/v1/unknown",
        uri: b"/loki/api/v1/unknown",
        ..query("")
    };
    type Repair<'a> = Box<dyn Fn(&mut Query<'a>) + 'a>;
    let of_token = |token: &'static str| -> Repair<'_> {
        Box::new(move |request| request.token = Some(token.as_bytes()))
    };
    fn tokens<'a>(token: &'a str) -> Repair<'a> {
        Box::new(move |request| request.token = Some(token.as_bytes()))
    }
    fn cookies<'a>(cookies: &'a str) -> Repair<'a> {
        Box::new(move |request| request.cookies = Some(cookies.as_bytes()))
    }
    let steps: Vec<(Reason, Repair<'_>)> = vec![
        (Reason::HeadersTruncated, Box::new(|_| ())),
        (Reason::TenantDuplicate, Box::new(|request| request.headers_truncated = false)),
        (Reason::TenantMissing, Box::new(|request| request.tenant_repeated = false)),
        (Reason::TenantMissing, Box::new(|request| request.tenant = None)),
        (Reason::TokenDuplicate, Box::new(|request| request.tenant = Some(b"w|x:y"))),
        (Reason::IpDuplicate, Box::new(|request| request.token_repeated = false)),
        (Reason::RouteUnknown, cookies(malformed)),
        (Reason::PathAmbiguous, Box::new(|request| request.request_uri = b"/loki/api/v1//push")),
        (
            Reason::TenantMalformed,
            Box::new(|request| {
                request.request_uri = b"/loki/api/v1/query";
                request.uri = b"/loki/api/v1/query";
            }),
        ),
        (Reason::TokenMissing, Box::new(|request| request.tenant = Some(b"w"))),
        (Reason::TokenMalformed, of_token("")),
        (Reason::TokenMalformed, of_token("a.b")),
        (Reason::TokenUnsupported, tokens(&unsupported)),
        (Reason::TokenIssuer, tokens(&stranger)),
        (Reason::TokenKeyUnknown, tokens(&unknown_key)),
        (Reason::TokenSignature, tokens(&signature_of_another)),
        (Reason::TokenExpired, tokens(&expired)),
        (Reason::TokenNotYetValid, tokens(&early)),
        (Reason::TokenAudience, tokens(&audience)),
        (Reason::GroupsMissing, tokens(&no_groups)),
        (Reason::GroupsMalformed, tokens(&bad_groups)),
        (Reason::GroupsOverage, tokens(&overage)),
        (Reason::TenantForbidden, tokens(&nobody)),
        (Reason::TenantForbidden, tokens(&good)),
        (Reason::TenantForbidden, Box::new(|request| request.tenant = Some(b"t|w"))),
        (Reason::ScopeForbidden, Box::new(|request| request.tenant = Some(b"u|t"))),
        (Reason::IpMalformed, Box::new(|request| request.tenant = Some(b"u"))),
        (Reason::IpMissing, Box::new(|request| request.cookies = Some(b"a=b"))),
        (Reason::IpMissing, Box::new(|request| request.cookies = None)),
        (Reason::IpSignature, cookies(&forged)),
        (Reason::IpExpired, cookies(&old)),
        (Reason::IpForbidden, cookies(&outside)),
        (Reason::Granted, cookies(&inside)),
    ];
    for (number, (expected, repair)) in steps.iter().enumerate() {
        repair(&mut request);
        assert_eq!(site.reason(&request), *expected, "step {number}");
    }

    // A write of several tenants is malformed, before anybody is asked for a token.
    request.request_uri = b"/loki/api/v1/push";
    request.uri = b"/loki/api/v1/push";
    request.method = b"POST";
    request.token = None;
    request.tenant = Some(b"t|u");
    assert_eq!(site.reason(&request), Reason::TenantMalformed);
    request.tenant = Some(b"t");
    assert_eq!(site.reason(&request), Reason::TokenMissing);
    request.token = Some(good.as_bytes());
    assert_eq!(site.reason(&request), Reason::Granted);
}

#[test]
fn without_a_policy_nothing_else_is_looked_at() {
    let scratch = Scratch::new();
    let site = Site::start_in(scratch, "policy.yaml");
    let wrong = Query { headers_truncated: true, tenant_repeated: true, ..query("x") };
    assert_eq!(site.reason(&wrong), Reason::PolicyUnavailable);
    site.wait_for("the end of loading", |site| site.engine.readiness() == Readiness::NoPolicy);
    assert_eq!(site.reason(&wrong), Reason::PolicyUnavailable);
    let record = site.seen(&loki(), &query("secret-token"), record_of);
    let record: Value = serde_json::from_str(&format!("{{{record}}}")).unwrap();
    assert_eq!((&record["reason"], &record["query"]), (&json!("policy_unavailable"), &Value::Null));
    // What Grafana claims is told all the same.
    let lines = [(b"upgrade".as_slice(), b"websocket".as_slice()), (b"x-dashboard-uid", b"d1")];
    let request = Request {
        method: b"GET",
        request_uri: b"/loki/api/v1/tail",
        uri: b"/loki/api/v1/tail",
        remote_addr: None,
        peer: b"192.0.2.1",
        upgradable: Upgradable::Unasked,
    };
    let request = Request { upgradable: Upgradable::Yes, ..request };
    let record = site.engine.enforce(&loki(), &request, Some(lines.into_iter()), record_of).unwrap();
    let record: Value = serde_json::from_str(&format!("{{{record}}}")).unwrap();
    assert_eq!((&record["upgrade"], &record["grafana"]["dashboard"]), (&json!(true), &json!("d1")));
}

#[test]
fn what_is_meant_for_the_next_hop_is_taken_out_before_anything_is_decided() {
    let ask = |site: &Site, path: &str, lines: &[(&str, &str)], upgradable: Upgradable| {
        let good = signed("r", &claims());
        let all = [("x-scope-orgid", "t"), ("x-id-token", &*good)];
        let lines = all.iter().chain(lines).map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let request = Request {
            method: b"GET",
            request_uri: path.as_bytes(),
            uri: path.as_bytes(),
            remote_addr: None,
            peer: b"192.0.2.1",
            upgradable,
        };
        site.engine.enforce(&loki(), &request, Some(lines), |verdict| {
            (verdict.decision.reason(), verdict.record.to_string().contains(r#","upgrade":true"#))
        })
    };
    let kept = |rewrite: Needs| match rewrite {
        Needs::Rewrite(rewrite) => (rewrite.connection.map(Connection::kept), rewrite.declines_upgrade),
        Needs::RemoteAddr | Needs::Upgradable => panic!("known, or not looked at: {rewrite:?}"),
    };
    let (query, tail) = ("/loki/api/v1/query", "/loki/api/v1/tail");
    let (h2c, websocket) = (("upgrade", "h2c"), ("upgrade", "websocket"));
    let site = Site::start(TAIL);
    for (path, lines, expected) in [
        (query, &[h2c][..], (None, true)),
        (query, &[websocket, ("connection", "upgrade, te")], (Some("te"), true)),
        (tail, &[websocket, websocket], (None, true)),
        (tail, &[websocket, ("connection", "Upgrade, Cookie")], (Some("upgrade"), false)),
        (tail, &[("connection", "keep-alive"), ("connection", "Upgrade")], (Some("keep-alive"), false)),
        (query, &[("connection", "x-scope-orgid")], (Some(""), false)),
    ] {
        let expected = (expected.0.map(str::to_owned), expected.1);
        assert_eq!(ask(&site, path, lines, Upgradable::Yes).map_err(kept), Err(expected), "{path} {lines:?}");
    }
    // Who asks with a WebSocket has to say by which protocol; nobody else.
    assert_eq!(ask(&site, tail, &[websocket], Upgradable::Unasked), Err(Needs::Upgradable));
    for (path, lines) in [(query, &[websocket][..]), (tail, &[h2c]), (tail, &[("connection", "upgrade")])] {
        assert!(matches!(ask(&site, path, lines, Upgradable::Unasked), Err(Needs::Rewrite(_))), "{path}");
    }
    // By HTTP/2 it is declined like every other offer.
    for (lines, expected) in [
        (&[websocket][..], (None, true)),
        (&[websocket, ("connection", "upgrade, keep-alive")], (Some("keep-alive".to_owned()), true)),
    ] {
        assert_eq!(ask(&site, tail, lines, Upgradable::No).map_err(kept), Err(expected));
    }
    let (yes, kept) = (Upgradable::Yes, Upgradable::Kept);
    for (path, lines, kept, expected) in [
        (tail, &[websocket, ("connection", "Upgrade, keep-alive")][..], yes, (Reason::Granted, true)),
        (query, &[("connection", "close"), ("connection", "TE")], yes, (Reason::Granted, false)),
        // Denied whatever is taken out of it.
        ("/nowhere", &[h2c, ("connection", "cookie")], yes, (Reason::RouteUnknown, false)),
        (query, &[], kept, (Reason::RouteUnknown, false)),
        (tail, &[], kept, (Reason::RouteUnknown, false)),
    ] {
        assert_eq!(ask(&site, path, lines, kept), Ok(expected), "{path} {lines:?}");
    }
    // Who only records changes nothing.
    let until = jiff::Timestamp::from_second(i64::try_from(unix_now()).unwrap() + 3600).unwrap();
    let site = Site::start(&format!("mode: shadow\nshadow_until: {until}\n{TAIL}"));
    let lines = [h2c, ("connection", "upgrade, cookie")];
    assert_eq!(ask(&site, query, &lines, yes), Ok((Reason::Granted, false)));
    assert_eq!(ask(&site, tail, &[websocket], yes), Ok((Reason::Granted, true)));
    assert_eq!(ask(&site, tail, &[websocket], Upgradable::No), Ok((Reason::Granted, false)));
}

#[test]
fn authorization_counts_only_as_a_bearer_token() {
    let site = Site::start(&format!("token_headers: [Authorization]\n{TAIL}"));
    let good = signed("r", &claims());
    let of = |header: String| {
        let request = Query { token: Some(header.as_bytes()), token_is_authorization: true, ..query("") };
        site.reason(&request)
    };
    assert_eq!(of(format!("Bearer {good}")), Reason::Granted);
    assert_eq!(of(format!("bEARER   {good}")), Reason::Granted);
    for bad in
        [good.clone(), format!("Basic {good}"), format!("Bearer{good}"), "Bearer".into(), String::new()]
    {
        assert_eq!(of(bad), Reason::TokenMalformed);
    }
}

#[test]
fn a_bad_address_is_recorded_always_and_denies_only_where_a_restriction_applies() {
    let site = Site::start(
        "client_ip: { keys_file: ip.keys }\n\
         grants: [{ groups: [a], tenants: [t, u] }]\n\
         restrictions: [{ tenants: [u], networks: [192.0.2.0/24] }]\n",
    );
    let good = signed("r", &claims());
    let request = Query { cookies: Some(b"Client_Ip=nonsense; a=b"), ..query(&good) };
    let (reason, found) =
        site.seen(&loki(), &request, |verdict| (verdict.decision.reason(), verdict.tally.client_ip));
    assert_eq!(reason, Reason::Granted);
    assert_eq!(found.map(|(_, why)| why), Some(Some(Reason::IpMalformed)));
    assert_eq!(site.reason(&Query { tenant: Some(b"u"), ..request }), Reason::IpMalformed);
    // A server whose clients connect directly needs no cookie.
    let direct = Server { client_is_remote_addr: true, ..loki() };
    let request = Query { tenant: Some(b"u"), ..query(&good) };
    let reason = |request: &Query<'_>| site.seen(&direct, request, |verdict| verdict.decision.reason());
    assert_eq!(reason(&request), Reason::Granted);
    assert_eq!(reason(&Query { remote_addr: b"198.51.100.1", ..request }), Reason::IpForbidden);
    assert_eq!(reason(&Query { remote_addr: b"unix:", ..request }), Reason::IpMissing);
}

/// Somebody who is denied cannot make a worker rewrite what no backend sees.
#[test]
fn cookies_are_rewritten_only_where_the_request_passes() {
    use crate::client_ip::cookie::Remaining;
    let site = Site::start(TAIL);
    let good = signed("r", &claims());
    let allowed = Query { cookies: Some(b"a=b; client_ip=x"), ..query(&good) };
    let denied = Query { tenant: Some(b"other"), ..allowed };
    let seen = |request: &Query<'_>| {
        site.seen(&loki(), request, |verdict| (verdict.decision.reason(), verdict.cookies.clone()))
    };
    assert_eq!(seen(&allowed), (Reason::Granted, Remaining::Rewritten(b"a=b".to_vec())));
    assert_eq!(seen(&denied), (Reason::TenantForbidden, Remaining::Unchanged));
    assert_eq!(seen(&Query { token: None, ..allowed }), (Reason::TokenMissing, Remaining::Unchanged));
    let until = jiff::Timestamp::from_second(i64::try_from(unix_now()).unwrap() + 3600).unwrap();
    site.change(&format!("mode: shadow\nshadow_until: {until}\n{TAIL}"));
    assert_eq!(seen(&allowed), (Reason::Granted, Remaining::Unchanged), "it goes on as it came");
}
