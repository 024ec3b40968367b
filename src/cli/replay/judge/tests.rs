//! Records as the gateway writes them, decided again: what is not called unknown is what would have happened.

use super::*;
use crate::audit::{self, Clock, GrafanaContext, PrincipalMembers};
use crate::policy::Compiled;
use crate::policy::access::diff::tests::{ADDRESSES, RAW, TENANTS, pair, policy_or_none};
use crate::policy::access::{Unit, units};
use crate::policy::tests::{HEAD, compiled};
use crate::token::claims::Identity;
use crate::token::fixtures::NOW;
use proptest::prelude::*;
use std::time::Duration;

/// A request decided by a policy: its decision, and its record.
fn recorded_by(
    policy: &Compiled,
    raw: &[&str],
    header: &str,
    unit: Unit,
    ip: Option<&str>,
) -> (Decision, String) {
    let snapshot = &policy.snapshot;
    let groups = snapshot.groups.of_user(0, raw.iter().copied());
    let tenants = TenantList::parse(header.as_bytes()).unwrap();
    let client_ip = ip.map_or(Err(Reason::IpMissing), |ip| ClientIp::parse(ip.as_bytes()));
    let request = AccessRequest {
        groups: &groups,
        caller: Caller::User { bound_by: &groups },
        tenants: &tenants,
        scope: unit.scope,
        backends: unit.backends,
        client_ip,
        now: NOW,
    };
    let decision = decide(snapshot, &request);
    let identity = Identity {
        subject: Some("ada".into()),
        object_id: None,
        user: Some("Ada \"L\"".into()),
        token_id: None,
        expires: NOW + 60,
        not_before: None,
        groups: Vec::new(),
    };
    let names = groups.iter().skip(1).map(|group| snapshot.groups.name(*group));
    let members = PrincipalMembers::of_user("entra", &identity, names);
    let mut clock = Clock::default();
    clock.set(Duration::from_secs(NOW));
    let mut line = audit::Text::default();
    let record = audit::Record {
        decision: &decision,
        shadow_mode: false,
        snapshot: Some(snapshot),
        principal: Some(&members),
        tenants: Some(&tenants),
        scope: Some(unit.scope),
        backends: unit.backends,
        method: b"GET",
        path: b"/",
        query: None,
        client_ip: client_ip.ok(),
        client_ip_source: Some("remote_addr"),
        peer: b"127.0.0.1",
        upgrade: false,
        grafana: GrafanaContext::default(),
    };
    audit::render(&mut line, &record, &mut clock, |_| String::new());
    (decision, format!("{{\"schema\":1,\"request_id\":\"x\",{line}}}"))
}

fn fate(judge: &Judge<'_>, line: &str) -> Fate {
    judge.fate(&serde_json::from_str(line).unwrap()).unwrap_or_else(|problem| panic!("{problem:?}: {line}"))
}

fn policy(tail: &str) -> Compiled {
    compiled(&format!("{HEAD}client_ip: {{ source: remote_addr }}\n{tail}"))
}

fn unit(scope: &str) -> Unit {
    *units().iter().find(|unit| unit.scope.name() == scope).unwrap()
}

#[test]
fn what_was_not_recorded_is_unknown_where_it_decides() {
    let old = policy("authorizations: { a: [t], b: [u] }\n");
    let record = |raw: &[&str], tenant| recorded_by(&old, raw, tenant, unit("logs:read"), Some("10.0.0.1")).1;
    let new = policy(
        "authorizations: { a: [t, v], b: [u], c: [u, w] }\ngroup_names: { team: [b, d] }\n\
         grants: [{ groups: [team], tenants: [x] }]\nrestrictions: [{ tenants: [t], groups: [c], networks: [192.0.2.1] }]\n",
    );
    let mut judge = Judge::of(&new.snapshot, None);
    // Nothing is known of the old policy: whoever was denied may be in any group.
    assert!(matches!(fate(&judge, &record(&["a"], "w")), Fate::Unknown(_)));
    judge.learn_policy(&old.snapshot);
    for (raw, tenant, expected) in [
        // `a` and `b` were recorded, so who has none of them has none.
        (&["a"][..], "v", "gained"),
        (&["b"], "v", "same"),
        // `c` was not: it may grant,
        (&["a"], "w", "unknown"),
        (&["a"], "u", "unknown"),
        // and it may bind.
        (&["a"], "t", "unknown"),
        // Of `team`, `b` was recorded, `d` was not.
        (&["b"], "x", "gained"),
        (&["a"], "x", "unknown"),
        (&["b"], "u", "same"),
    ] {
        let found = match fate(&judge, &record(raw, tenant)) {
            Fate::Same => "same",
            Fate::Changed(decision) if decision.is_allow() => "gained",
            Fate::Unknown(_) => "unknown",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{raw:?} {tenant}");
    }
    // The same policy knows everything about its own records.
    let judge = Judge::of(&old.snapshot, None);
    for tenant in ["t", "u", "v"] {
        assert_eq!(fate(&judge, &record(&["a"], tenant)), Fate::Same);
    }
}

#[test]
fn grants_end_at_the_time_of_the_request() {
    let old = policy("authorizations: { a: [t] }\n");
    let new = policy("grants: [{ groups: [a], tenants: [t], expires: 2027-01-15T08:00:01Z }]\n");
    let line = recorded_by(&old, &["a"], "t", unit("logs:read"), None).1;
    assert_eq!(fate(&Judge::of(&new.snapshot, None), &line), Fate::Same);
    assert!(matches!(
        fate(&Judge::of(&new.snapshot, Some(NOW + 1)), &line),
        Fate::Unknown(_) | Fate::Changed(_)
    ));
    let mut judge = Judge::of(&new.snapshot, Some(NOW + 1));
    judge.learn_policy(&old.snapshot);
    assert!(matches!(fate(&judge, &line), Fate::Changed(decision) if !decision.is_allow()));
}

#[test]
fn what_the_rules_did_not_decide_is_left_alone() {
    let policy = policy("authorizations: { a: [t] }\n");
    let judge = Judge::of(&policy.snapshot, None);
    let of = |text: &str| judge.fate(&serde_json::from_str(text).unwrap());
    for (text, expected) in [
        (r#"{"decision":null}"#, Fate::Undecided),
        (r#"{}"#, Fate::Undecided),
        (r#"{"decision":"deny","reason":"policy_unavailable"}"#, Fate::Undecided),
        (
            r#"{"decision":"deny","reason":"token_expired","groups":null,"tenants":["t"],"scope":"logs:read"}"#,
            Fate::BeforeRules,
        ),
        (
            r#"{"decision":"deny","reason":"route_unknown","groups":null,"tenants":null,"scope":null}"#,
            Fate::BeforeRules,
        ),
    ] {
        assert_eq!(of(text), Ok(expected), "{text}");
    }
    let whole = recorded_by(&policy, &["a"], "t", unit("logs:read"), Some("10.0.0.1")).1;
    assert_eq!(of(&whole), Ok(Fate::Same));
    for (from, to) in [
        ("\"granted\"", "\"fine\""),
        ("\"allow\"", "\"perhaps\""),
        ("logs:read", "logs:raed"),
        ("\"loki\"", "\"cortex\""),
        ("[\"t\"]", "null"),
        ("[\"t\"]", "[\"t|\"]"),
        ("10.0.0.1\",\"client", "10.0.0\",\"client"),
        ("2027-", "yesterday-"),
    ] {
        let broken = whole.replace(from, to);
        assert_ne!(broken, whole, "{from}");
        assert!(of(&broken).is_err(), "{broken}");
    }
    // A gateway in shadow mode applied nothing; what it would have done is compared.
    let shadow = whole.replace(
        "\"mode\":\"enforce\",\"shadow\":null",
        "\"mode\":\"shadow\",\"shadow\":{\"decision\":\"deny\",\"reason\":\"tenant_forbidden\"}",
    );
    assert_ne!(shadow, whole);
    assert!(matches!(of(&shadow), Ok(Fate::Changed(decision)) if decision.is_allow()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 2000 }))]

    #[test]
    fn what_is_not_unknown_is_what_would_have_happened((old, new) in pair(), knows_old in any::<bool>()) {
        let (Some(old), Some(new)) = (policy_or_none(&old), policy_or_none(&new)) else { return Ok(()) };
        let mut judge = Judge::of(&new.snapshot, None);
        if knows_old {
            judge.learn_policy(&old.snapshot);
        }
        let own = Judge::of(&old.snapshot, None);
        for bits in 0..1u32 << RAW.len() {
            let raw: Vec<&str> =
                RAW.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, raw)| *raw).collect();
            for tenant in TENANTS.into_iter().chain(["t|tv"]) {
                for scope in ["logs:read", "metrics:write"] {
                    if tenant.contains('|') && scope != "logs:read" {
                        continue;
                    }
                    for ip in ADDRESSES {
                        let (decision, line) = recorded_by(&old, &raw, tenant, unit(scope), ip);
                        prop_assert_eq!(fate(&own, &line), Fate::Same);
                        let (truth, _) = recorded_by(&new, &raw, tenant, unit(scope), ip);
                        match fate(&judge, &line) {
                            Fate::Unknown(_) => {}
                            // Of two denials, a group that was not recorded may turn one into the other.
                            Fate::Same => prop_assert_eq!(decision.is_allow(), truth.is_allow(), "{}", line),
                            Fate::OtherReason(_) => prop_assert_eq!(decision.is_allow(), truth.is_allow()),
                            Fate::Changed(found) => {
                                prop_assert_eq!(found.is_allow(), truth.is_allow());
                                prop_assert_ne!(found.is_allow(), decision.is_allow());
                            }
                            other => prop_assert!(false, "{other:?}: {line}"),
                        }
                    }
                }
            }
        }
    }
}
