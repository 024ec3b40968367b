//! Records as the gateway writes them, decided again: what is not called unknown is what would have happened.

use super::*;
use crate::access::diff::tests::{ADDRESSES, RAW, TENANTS, pair, policy_or_none};
use crate::access::{Unit, units};
use crate::audit::{self, Clock, GrafanaContext, PrincipalMembers};
use crate::policy::Compiled;
use crate::policy::tests::{HEAD, TWO, compiled};
use crate::tenant::TenantList;
use crate::token::claims::Identity;
use crate::token::fixtures::NOW;
use proptest::prelude::*;
use std::time::Duration;

/// A request decided by a policy: its decision, and its record. Of the first issuer.
fn recorded_by(
    policy: &Compiled,
    raw: &[&str],
    header: &str,
    unit: Unit,
    ip: Option<&str>,
) -> (Decision, String) {
    recorded_of(0, policy, raw, header, unit, ip)
}

fn recorded_of(
    issuer: usize,
    policy: &Compiled,
    raw: &[&str],
    header: &str,
    unit: Unit,
    ip: Option<&str>,
) -> (Decision, String) {
    let snapshot = &policy.snapshot;
    let held = snapshot.groups.held_by_user(issuer, raw.iter().copied());
    let tenants = TenantList::parse(header.as_bytes()).unwrap();
    let client_ip = ip.map_or(Err(Reason::IpMissing), |ip| ClientIp::parse(ip.as_bytes()));
    let request = AccessRequest {
        groups: &held.groups,
        caller: Caller::User { bound_by: held.binding() },
        tenants: &tenants,
        scope: unit.scope,
        backends: unit.backends,
        client_ip,
        now: NOW,
    };
    let revoked = snapshot.revoked.principals().any(|(of, id, _)| (of, id) == (issuer, "ada"));
    let decision = if revoked { Decision::denied(Reason::TokenRevoked) } else { decide(snapshot, &request) };
    let identity = Identity {
        subject: Some("ada".into()),
        object_id: None,
        user: Some("Ada \"L\"".into()),
        token_id: None,
        expires: NOW + 60,
        not_before: None,
        groups: Vec::new(),
    };
    let names = held.groups.iter().skip(1).map(|group| snapshot.groups.name(*group));
    let members = PrincipalMembers::of_user(&snapshot.issuer_names[issuer], &identity, names);
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

fn fate(replayer: &Replayer<'_>, line: &str) -> Fate {
    replayer
        .judge(&serde_json::from_str(line).unwrap())
        .unwrap_or_else(|problem| panic!("{problem:?}: {line}"))
        .fate
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
    let mut replayer = Replayer::of(&new.snapshot, None);
    // Nothing is known of the old policy: whoever was denied may be in any group.
    assert!(matches!(fate(&replayer, &record(&["a"], "w")), Fate::Unknown(_)));
    replayer.learn_policy(&old.snapshot);
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
        let found = match fate(&replayer, &record(raw, tenant)) {
            Fate::Same => "same",
            Fate::Changed(decision) if decision.is_allow() => "gained",
            Fate::Unknown(_) => "unknown",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{raw:?} {tenant}");
    }
    // The same policy knows everything about its own records.
    let replayer = Replayer::of(&old.snapshot, None);
    for tenant in ["t", "u", "v"] {
        assert_eq!(fate(&replayer, &record(&["a"], tenant)), Fate::Same);
    }
}

#[test]
fn grants_end_at_the_time_of_the_request() {
    let old = policy("authorizations: { a: [t] }\n");
    let new = policy("grants: [{ groups: [a], tenants: [t], expires: 2027-01-15T08:00:01Z }]\n");
    let line = recorded_by(&old, &["a"], "t", unit("logs:read"), None).1;
    assert_eq!(fate(&Replayer::of(&new.snapshot, None), &line), Fate::Same);
    assert!(matches!(
        fate(&Replayer::of(&new.snapshot, Some(NOW + 1)), &line),
        Fate::Unknown(_) | Fate::Changed(_)
    ));
    let mut replayer = Replayer::of(&new.snapshot, Some(NOW + 1));
    replayer.learn_policy(&old.snapshot);
    assert!(matches!(fate(&replayer, &line), Fate::Changed(decision) if !decision.is_allow()));
}

#[test]
fn what_the_rules_did_not_decide_is_left_alone() {
    let policy = policy("authorizations: { a: [t] }\n");
    let replayer = Replayer::of(&policy.snapshot, None);
    let of = |text: &str| replayer.judge(&serde_json::from_str(text).unwrap()).map(|judged| judged.fate);
    for (text, expected) in [
        (r#"{"decision":null}"#, Fate::Undecided),
        (r#"{"decision":"deny","reason":"policy_unavailable"}"#, Fate::Undecided),
        (
            r#"{"decision":"deny","reason":"token_expired","groups":null,"tenants":["t"],"scope":"logs:read"}"#,
            Fate::BeforeRules,
        ),
        // Nobody is behind a service token: that was seen by headers, and the record has everything else.
        (
            r#"{"decision":"deny","reason":"service_attended","issuer":"service","subject":"agent","groups":[],"tenants":["t"],"scope":"logs:read"}"#,
            Fate::BeforeRules,
        ),
        (
            r#"{"decision":"deny","reason":"route_unknown","groups":null,"tenants":null,"scope":null}"#,
            Fate::BeforeRules,
        ),
    ] {
        assert_eq!(of(&text.replacen('{', r#"{"schema":1,"#, 1)), Ok(expected), "{text}");
    }
    let whole = recorded_by(&policy, &["a"], "t", unit("logs:read"), Some("10.0.0.1")).1;
    assert_eq!(of(&whole), Ok(Fate::Same));
    for (from, to) in [
        ("\"schema\":1", "\"schema\":2"),
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

/// What becomes of a record, in one word.
fn found(replayer: &Replayer<'_>, line: &str) -> &'static str {
    match fate(replayer, line) {
        Fate::Same => "same",
        Fate::OtherReason(_) => "other reason",
        Fate::Changed(decision) if decision.is_allow() => "gained",
        Fate::Changed(_) => "lost",
        Fate::Unknown(_) => "unknown",
        Fate::PerhapsRevoked(_) => "perhaps revoked",
        other => panic!("{other:?}: {line}"),
    }
}

/// The same, where the policy of the log is known, and where only its records are.
fn found_of(new: &Compiled, old: &Compiled, line: &str) -> [&'static str; 2] {
    let mut knows = Replayer::of(&new.snapshot, None);
    knows.learn_policy(&old.snapshot);
    let mut learns = Replayer::of(&new.snapshot, None);
    learns.learn(line.as_bytes());
    [found(&knows, line), found(&learns, line)]
}

#[test]
fn revoked_principals_stay_out_and_the_others_come_in() {
    let with = |revoked: &str| policy(&format!("authorizations: {{ a: [t] }}\n{revoked}"));
    let id = |ids: &str| {
        let one = |id: &str| format!("{{ issuer: entra, id: {id} }}");
        let all: Vec<_> = ids.split_whitespace().map(one).collect();
        format!("revoked: {{ principals: [{}] }}\n", all.join(", "))
    };
    let token =
        "revoked: { tokens_sha256: [ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad] }\n";
    let line = |policy: &Compiled, tenant| {
        recorded_by(policy, &["a"], tenant, unit("logs:read"), Some("10.0.0.1")).1
    };
    let nobody = with("");
    for (old, new, tenant, expected) in [
        (id("ada"), id("ada"), "t", ["same", "same"]),
        (id("ada"), id("ada bob"), "t", ["same", "same"]),
        (String::new(), id("ada"), "t", ["lost", "lost"]),
        (String::new(), id("ada"), "u", ["other reason", "other reason"]),
        (id("ada"), String::new(), "t", ["gained", "gained"]),
        (id("ada"), String::new(), "u", ["other reason", "other reason"]),
        // Perhaps that is the `oid` of the same person, or the token that came.
        (id("ada"), id("bob"), "t", ["perhaps revoked", "perhaps revoked"]),
        (id("ada"), token.to_owned(), "t", ["perhaps revoked", "perhaps revoked"]),
        (id("ada"), token.to_owned(), "u", ["other reason", "other reason"]),
        // Whoever was let in is not taken for one of whom no record tells.
        (String::new(), id("bob"), "t", ["same", "same"]),
    ] {
        let (old, new) = (with(&old), with(&new));
        assert_eq!(
            found_of(&new, &old, &line(&old, tenant)),
            expected,
            "{tenant} {:?}",
            new.snapshot.revoked
        );
    }
    // By whatever it was: all of it is revoked still, or it is not known whether.
    let by_oid = |policy: &Compiled| {
        let line = line(&nobody, "t");
        let line = line.replace(&*nobody.snapshot.revision, &policy.snapshot.revision);
        line.replace("\"allow\",\"reason\":\"granted\"", "\"deny\",\"reason\":\"token_revoked\"")
    };
    let old = with(&id("oid-of-ada"));
    assert_eq!(found_of(&with(&id("oid-of-ada bob")), &old, &by_oid(&old)), ["same", "perhaps revoked"]);
    assert_eq!(found_of(&with(&id("bob")), &old, &by_oid(&old)), ["perhaps revoked", "perhaps revoked"]);
    assert_eq!(found(&Replayer::of(&old.snapshot, None), &by_oid(&old)), "same");
}

#[test]
fn revoked_service_accounts_stay_out() {
    let with = |revoked: &str| {
        policy(&format!(
            "service_accounts: [{{ name: agent, token_sha256: ['ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'], networks: [10.0.0.0/8] }},\n\
             \x20 {{ name: other, token_sha256: ['60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752'], networks: [10.0.0.0/8] }}]\n\
             grants: [{{ groups: ['service:agent'], tenants: [t] }}]\n{revoked}"
        ))
    };
    let nothing = with("");
    let id = |name: &str| with(&format!("revoked: {{ principals: [{{ issuer: service, id: {name} }}] }}\n"));
    let token = with(
        "revoked: { tokens_sha256: [ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad] }\n",
    );
    let group = with("revoked: { groups: ['service:agent'] }\n");
    let line = |policy: &Compiled, reason: &str, groups: &str| {
        let decision = if reason == "granted" { "allow" } else { "deny" };
        format!(
            r#"{{"schema":1,"time":"2027-01-15T08:00:00.000Z","decision":"{decision}","reason":"{reason}","mode":"enforce","issuer":"service","subject":"agent","groups":[{groups}],"tenants":["t"],"scope":"logs:read","backend":"loki","peer":"10.0.0.1","policy_revision":"{}"}}"#,
            policy.snapshot.revision
        )
    };
    let own = r#""service:agent""#;
    for (old, new, reason, groups, expected) in [
        (&nothing, &id("agent"), "granted", own, "lost"),
        (&nothing, &id("other"), "granted", own, "same"),
        (&id("agent"), &id("agent"), "token_revoked", own, "same"),
        (&id("agent"), &nothing, "token_revoked", own, "gained"),
        // Another account's name is no id of this one, another token perhaps its own.
        (&id("agent"), &id("other"), "token_revoked", own, "gained"),
        (&id("agent"), &token, "token_revoked", own, "perhaps revoked"),
        (&token, &token, "token_revoked", own, "same"),
        (&token, &nothing, "token_revoked", own, "gained"),
        // A revoked group is not listed; the account is known all the same.
        (&group, &group, "tenant_forbidden", "", "same"),
        (&group, &nothing, "tenant_forbidden", "", "gained"),
        (&nothing, &group, "granted", own, "lost"),
    ] {
        let line = line(old, reason, groups);
        assert_eq!(found_of(new, old, &line)[0], expected, "{line} {:?}", new.snapshot.revoked);
    }
}

#[test]
fn a_revoked_group_is_not_recorded_and_binds_all_the_same() {
    let rules = "grants: [{ groups: ['*'], tenants: [t] }, { groups: [sre], tenants: [u] }, { groups: ['entra:*'], tenants: [v] }]\n\
                 restrictions: [{ tenants: [t], groups: [sre], networks: [192.0.2.1] }]\n";
    let free = policy(rules);
    let revoked = policy(&format!("{rules}revoked: {{ groups: [sre] }}\n"));
    let more = policy(&format!("{rules}audit: {{ query: none }}\nrevoked: {{ groups: [sre] }}\n"));
    let line = |policy: &Compiled, raw: &[&str], tenant| {
        recorded_by(policy, raw, tenant, unit("logs:read"), Some("10.0.0.1")).1
    };
    for (old, new, raw, tenant, expected) in [
        // Denied by what it holds and the record does not list: the policy that denied it denies it again,
        (&revoked, &revoked, &["sre"][..], "t", ["same", "same"]),
        // and of another it is not known.
        (&revoked, &more, &["sre"], "t", ["unknown", "unknown"]),
        (&revoked, &more, &["x"], "t", ["unknown", "unknown"]),
        // It grants again,
        (&revoked, &free, &["sre"], "u", ["unknown", "unknown"]),
        (&revoked, &free, &["sre"], "v", ["unknown", "unknown"]),
        // or no more; whether the person has another group is not recorded.
        (&free, &revoked, &["sre"], "u", ["lost", "lost"]),
        (&free, &revoked, &["sre"], "v", ["unknown", "unknown"]),
        (&free, &revoked, &["sre"], "t", ["same", "same"]),
        (&free, &revoked, &["x"], "v", ["unknown", "unknown"]),
        // Only a policy that revokes nothing tells that nothing is missing.
        (&free, &more, &[], "u", ["same", "same"]),
        (&free, &more, &[], "t", ["same", "unknown"]),
        (&free, &more, &[], "v", ["same", "unknown"]),
    ] {
        let line = line(old, raw, tenant);
        assert_eq!(found_of(new, old, &line), expected, "{line} {:?}", new.snapshot.groups.revoked());
    }
    // Of an alias one group is revoked: whom the other gives it is listed.
    let alias = "group_names: { ops: [a, b] }\nauthorizations: { ops: [t] }\n";
    let (free, part) = (policy(alias), policy(&format!("{alias}revoked: {{ groups: [a] }}\n")));
    for (old, new, raw, expected) in [
        (&free, &part, &["a"][..], "unknown"),
        (&free, &part, &[], "same"),
        (&part, &free, &["a"], "unknown"),
        (&part, &free, &["b"], "same"),
    ] {
        assert_eq!(found_of(new, old, &line(old, raw, "t"))[0], expected, "{raw:?}");
    }
}

#[test]
fn the_issuer_of_a_record_is_known_without_groups() {
    let with = |tail: &str| {
        compiled(&format!(
            "{TWO}client_ip: {{ source: remote_addr }}\ngroup_names: {{ ops: ['entra:o', 'keycloak:o'] }}\n{tail}"
        ))
    };
    let old = with("authorizations: { '*': [t], ops: [u], 'entra:a': [v], 'keycloak:b': [w] }\n");
    let new = with(
        "authorizations: { '*': [t], ops: [u, x], 'keycloak:*': [x], 'entra:a': [v], 'keycloak:b': [w, v] }\n",
    );
    for (issuer, raw, tenant, expected) in [
        (0, &[][..], "t", ["same", "same"]),
        (0, &["o"], "t", ["same", "same"]),
        (0, &["o"], "u", ["same", "same"]),
        (0, &["o"], "x", ["gained", "gained"]),
        (0, &[], "x", ["same", "unknown"]),
        // Of this issuer's users nobody holds another's group.
        (0, &[], "w", ["same", "same"]),
        (1, &["o"], "x", ["gained", "gained"]),
        (1, &["b"], "x", ["gained", "gained"]),
        (1, &["b"], "v", ["gained", "gained"]),
        // `keycloak:*` was named by no policy.
        (1, &[], "x", ["unknown", "unknown"]),
        (1, &[], "v", ["same", "unknown"]),
    ] {
        let line = recorded_of(issuer, &old, raw, tenant, unit("logs:read"), Some("10.0.0.1")).1;
        assert_eq!(found(&Replayer::of(&old.snapshot, None), &line), "same", "{line}");
        assert_eq!(found_of(&new, &old, &line), expected, "{line}");
    }
    // Names of groups without their issuer's are other groups.
    let one = policy("authorizations: { a: [v], 'entra:a': [u] }\n");
    let line = recorded_of(0, &old, &["a"], "v", unit("logs:read"), None).1;
    assert_eq!(found_of(&one, &old, &line), ["unknown", "unknown"]);
}

/// What the two policies of a pair revoke.
fn revoked() -> impl Strategy<Value = (String, String)> {
    let some = || {
        let list = prop::sample::subsequence(vec!["a", "b", "alias", "x"], 0..=2);
        (list, prop::bool::weighted(0.1)).prop_map(|(groups, ada)| {
            let ids = if ada { "{ issuer: entra, id: ada }" } else { "" };
            format!("revoked: {{ groups: {groups:?}, principals: [{ids}] }}\n")
        })
    };
    (some(), some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 2000 }))]

    #[test]
    fn what_is_not_unknown_is_what_would_have_happened(
        (old, new) in pair(), (old_revoked, new_revoked) in revoked(), knows in 0..3
    ) {
        let (old, new) = (old + &old_revoked, new + &new_revoked);
        let (Some(old), Some(new)) = (policy_or_none(&old), policy_or_none(&new)) else { return Ok(()) };
        let mut replayer = Replayer::of(&new.snapshot, None);
        match knows {
            0 => {}
            1 => replayer.learn_policy(&old.snapshot),
            _ => replayer.learn(recorded_by(&old, &RAW, "t", unit("logs:read"), None).1.as_bytes()),
        }
        let own = Replayer::of(&old.snapshot, None);
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
                        match fate(&replayer, &line) {
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
