//! `decide` against the words of the contract: examples for each sentence. The slow, obvious model is beside.

use super::*;
use crate::policy::tests::{HEAD, snapshot};
use crate::scope::Backend;
use crate::token::fixtures::NOW;

/// One request of a user, as people would say it.
struct Asked<'a> {
    groups: &'a [&'a str],
    tenants: &'a str,
    scope: Scope,
    backends: BackendSet,
    client_ip: Result<&'a str, Reason>,
}

fn ask<'a>(groups: &'a [&'a str], tenants: &'a str, scope: Scope) -> Asked<'a> {
    let backends = BackendSet::of(Backend::Loki);
    Asked { groups, tenants, scope, backends, client_ip: Ok("192.0.2.1") }
}

fn decided(snapshot: &Snapshot, asked: &Asked<'_>) -> Decision {
    let held = snapshot.groups.held_by_user(0, asked.groups.iter().copied());
    let tenants = TenantList::parse(asked.tenants.as_bytes()).unwrap();
    let request = AccessRequest {
        groups: &held.groups,
        caller: Caller::User { bound_by: held.binding() },
        tenants: &tenants,
        scope: asked.scope,
        backends: asked.backends,
        client_ip: asked.client_ip.and_then(|text| ClientIp::parse(text.as_bytes())),
        now: NOW,
    };
    let decision = decide(snapshot, &request);
    assert_eq!(explain(snapshot, &request).decision, decision);
    decision
}

fn reason(snapshot: &Snapshot, asked: &Asked<'_>) -> Reason {
    decided(snapshot, asked).reason()
}

fn policy(tail: &str) -> Snapshot {
    snapshot(&format!("{HEAD}{tail}"))
}

#[test]
fn nobody_may_do_anything_without_a_grant() {
    let snapshot = policy("");
    for scope in Scope::ALL {
        assert_eq!(reason(&snapshot, &ask(&["a"], "t", scope)), Reason::TenantForbidden);
    }
    let denied = Decision::denied(Reason::Granted);
    assert_eq!((denied.reason(), denied.is_allow(), denied.effect()), (Reason::InternalError, false, "deny"));
}

#[test]
fn every_tenant_must_be_granted_for_the_scope() {
    let snapshot = policy(
        "grants:\n\
         - { name: one, groups: [a], tenants: [t1, t2], scopes: ['logs:read'] }\n\
         - { name: two, groups: [b], tenants: [t3], scopes: ['metrics:read'] }\n\
         - { name: three, groups: [a], tenants: [t3], scopes: ['logs:write', 'metrics:write'] }\n",
    );
    let of = |groups: &[&str], tenants: &str| reason(&snapshot, &ask(groups, tenants, Scope::LogsRead));
    assert_eq!(of(&["a"], "t1"), Reason::Granted);
    assert_eq!(of(&["a"], "t1|t2"), Reason::Granted);
    assert_eq!(of(&["b", "a"], "t2|t1"), Reason::Granted);
    assert_eq!(of(&["a"], "t3"), Reason::ScopeForbidden);
    assert_eq!(of(&["a"], "t1|t3"), Reason::ScopeForbidden);
    assert_eq!(of(&["b"], "t1"), Reason::TenantForbidden);
    assert_eq!(of(&["b"], "t3"), Reason::ScopeForbidden);
    assert_eq!(of(&[], "t1"), Reason::TenantForbidden);
    assert_eq!(of(&["a"], "t1|t4"), Reason::TenantForbidden);
    // A tenant that is not granted is told before a scope, wherever the two stand.
    assert_eq!(of(&["a"], "t3|t4"), Reason::TenantForbidden);
    assert_eq!(of(&["a"], "a0|t3"), Reason::TenantForbidden);
    // The scopes of one group do not widen another group's tenants.
    assert_eq!(reason(&snapshot, &ask(&["a", "b"], "t3", Scope::LogsRead)), Reason::ScopeForbidden);
    let grant = decided(&snapshot, &ask(&["a", "b"], "t2|t1", Scope::LogsRead)).grant;
    assert_eq!(grant, Some(0));
}

#[test]
fn an_expired_grant_grants_nothing() {
    let snapshot = policy(&format!(
        "grants:\n\
         - {{ groups: [a], tenants: [gone], expires: {} }}\n\
         - {{ groups: [a], tenants: [soon], expires: {} }}\n\
         - {{ groups: [a], tenants: [mixed], expires: {} }}\n\
         - {{ groups: [a], tenants: [mixed], scopes: ['metrics:read'] }}\n",
        "2027-01-15T08:00:00Z", "2027-01-15T08:00:01Z", "2020-01-01T00:00:00Z"
    ));
    let of = |tenants: &str, scope| reason(&snapshot, &ask(&["a"], tenants, scope));
    assert_eq!(of("gone", Scope::LogsRead), Reason::TenantForbidden);
    assert_eq!(
        of("gone", Scope::LogsWrite),
        Reason::TenantForbidden,
        "not even the knowledge that it is named"
    );
    assert_eq!(of("soon", Scope::LogsRead), Reason::Granted);
    assert_eq!(of("mixed", Scope::LogsRead), Reason::ScopeForbidden);
    assert_eq!(of("mixed", Scope::MetricsRead), Reason::Granted);
}

#[test]
fn an_exception_of_a_grant_is_only_its_own() {
    let snapshot = policy(
        "grants:\n\
         - { groups: [a], tenants: ['team-*', x], except_tenants: ['team-hr*', x] }\n\
         - { groups: [b], tenants: [team-hr] }\n",
    );
    let of = |groups: &[&str], tenant: &str| reason(&snapshot, &ask(groups, tenant, Scope::LogsRead));
    assert_eq!(of(&["a"], "team-dev"), Reason::Granted);
    assert_eq!(of(&["a"], "team-hr"), Reason::TenantForbidden);
    assert_eq!(of(&["a"], "team-hr-eu"), Reason::TenantForbidden);
    assert_eq!(of(&["a"], "x"), Reason::TenantForbidden);
    assert_eq!(of(&["a", "b"], "team-hr"), Reason::Granted);
}

#[test]
fn groups_mean_what_is_promised() {
    let snapshot = policy(
        "group_names: { sre: [raw-sre, 'kc:sre'] }\n\
         grants:\n\
         - { groups: ['*'], tenants: [public] }\n\
         - { groups: [sre], tenants: [prod] }\n\
         - { groups: ['entra:*'], tenants: [staff] }\n\
         - { groups: [plain], tenants: [own] }\n",
    );
    let of = |groups: &[&str], tenant: &str| reason(&snapshot, &ask(groups, tenant, Scope::LogsRead));
    let (yes, no) = (Reason::Granted, Reason::TenantForbidden);
    assert_eq!([of(&[], "public"), of(&["whatever"], "public")], [yes, yes], "`*` is every user");
    assert_eq!([of(&["raw-sre"], "prod"), of(&["kc:sre"], "prod")], [yes, yes]);
    assert_eq!(of(&["sre"], "prod"), no, "a raw group of an alias's name matches nothing");
    assert_eq!([of(&["whatever"], "staff"), of(&[], "staff"), of(&["entra:*"], "prod")], [yes, no, no]);
    assert_eq!([of(&["plain"], "own"), of(&["Plain"], "own"), of(&["plain "], "own")], [yes, no, no]);
    assert_eq!(of(&["*"], "own"), no);
}

#[test]
fn every_restriction_that_applies_must_contain_the_client() {
    let snapshot = policy(
        "client_ip: { source: remote_addr }\n\
         group_names: { sre: raw-sre }\n\
         authorizations: { a: [t, u, 'team-*'], raw-sre: [t] }\n\
         restrictions:\n\
         - { name: office, tenants: [t], networks: [192.0.2.0/24], except_groups: [sre] }\n\
         - { name: desk, tenants: [t], groups: [raw-sre, b], networks: [192.0.2.1] }\n\
         - { name: team, tenants: ['team-*'], except_tenants: [team-open], networks: [192.0.2.0/24, '2001:db8::/32'] }\n\
         grants: [{ groups: [b], tenants: [nothing-else] }]\n",
    );
    let of = |groups: &[&str], tenants: &str, client_ip: &str| {
        reason(&snapshot, &Asked { client_ip: Ok(client_ip), ..ask(groups, tenants, Scope::LogsRead) })
    };
    let (yes, no) = (Reason::Granted, Reason::IpForbidden);
    assert_eq!(of(&["a"], "u", "198.51.100.1"), yes, "no restriction applies");
    assert_eq!([of(&["a"], "t", "192.0.2.9"), of(&["a"], "t", "198.51.100.1")], [yes, no]);
    // A group that grants nothing here binds all the same.
    assert_eq!([of(&["a", "b"], "t", "192.0.2.9"), of(&["a", "b"], "t", "192.0.2.1")], [no, yes]);
    // Excepted from one and bound by the other.
    assert_eq!([of(&["raw-sre"], "t", "192.0.2.9"), of(&["raw-sre"], "t", "192.0.2.1")], [no, yes]);
    assert_eq!(of(&["a"], "team-open", "198.51.100.1"), yes);
    assert_eq!(of(&["a"], "team-x", "198.51.100.1"), no);
    assert_eq!([of(&["a"], "team-x", "2001:db8::9"), of(&["a"], "team-x", "::ffff:192.0.2.7")], [yes, yes]);
    assert_eq!(of(&["a"], "team-x|u", "198.51.100.1"), no, "one tenant suffices");
    // Grants come first.
    assert_eq!(of(&["c"], "t", "198.51.100.1"), Reason::TenantForbidden);

    let unknown = |tenant, client_ip| {
        reason(&snapshot, &Asked { client_ip: Err(client_ip), ..ask(&["a"], tenant, Scope::LogsRead) })
    };
    for why in [Reason::IpMissing, Reason::IpMalformed, Reason::IpSignature, Reason::IpExpired] {
        assert_eq!(unknown("t", why), why);
        assert_eq!(unknown("u", why), Reason::Granted, "it denies only where a restriction applies");
    }
    let asked = Asked { client_ip: Ok("198.51.100.1"), ..ask(&["a", "b"], "team-x|t", Scope::LogsRead) };
    let denied = decided(&snapshot, &asked);
    assert_eq!(
        denied.restriction,
        Some(0),
        "the first of the document, for the first tenant in canonical order"
    );
}

#[test]
fn restrictions_on_a_signal_bind_its_backend() {
    let bound = |scopes: &str, scope: Scope, backends: BackendSet| {
        let snapshot = policy(&format!(
            "client_ip: {{ source: remote_addr }}\n\
             grants: [{{ groups: [a], tenants: [t], scopes: ['*:*', 'logs:delete'] }}]\n\
             restrictions: [{{ scopes: [{scopes}], networks: [10.0.0.1] }}]\n"
        ));
        let found = reason(&snapshot, &Asked { backends, ..ask(&["a"], "t", scope) });
        assert!(matches!(found, Reason::Granted | Reason::IpForbidden), "{found}");
        found == Reason::IpForbidden
    };
    let (loki, mimir) = (BackendSet::of(Backend::Loki), BackendSet::of(Backend::Mimir));
    for rules in [Scope::RulesRead, Scope::RulesWrite, Scope::AlertsRead, Scope::AlertsWrite] {
        assert!(bound("'logs:*'", rules, loki), "{rules}");
        assert!(!bound("'logs:*'", rules, mimir), "{rules}");
        assert!(bound("'metrics:*'", rules, mimir), "{rules}");
        assert!(!bound("'metrics:*'", rules, loki), "{rules}");
        assert!(bound("'logs:*'", rules, loki.union(mimir)), "{rules}: perhaps for Loki");
        assert!(bound("'traces:read', 'logs:*'", rules, loki), "{rules}");
        assert!(!bound("'logs:read', 'logs:write'", rules, loki), "{rules}: only the star means the backend");
        assert!(!bound("'traces:*', 'profiles:*'", rules, BackendSet::ALL), "{rules}");
    }
    for logs in [Scope::LogsRead, Scope::LogsWrite, Scope::LogsDelete] {
        assert!(bound("'logs:*'", logs, loki), "{logs}");
        assert!(!bound("'metrics:*'", logs, loki), "{logs}");
    }
    assert!(!bound("'logs:read', 'logs:write'", Scope::LogsDelete, loki));
    assert!(bound("'*:read'", Scope::RulesRead, loki));
    assert!(!bound("'*:read'", Scope::RulesWrite, loki));
    for scope in Scope::ALL {
        assert!(bound("'*:*'", scope, BackendSet::of(Backend::Tempo)), "{scope}");
    }
}

#[test]
fn a_deletion_must_be_granted_by_name() {
    let of = |scopes: &str| {
        let snapshot = policy(&format!("grants: [{{ groups: [a], tenants: [t], scopes: [{scopes}] }}]\n"));
        reason(&snapshot, &ask(&["a"], "t", Scope::LogsDelete))
    };
    assert_eq!(of("'logs:*'"), Reason::ScopeForbidden);
    assert_eq!(of("'*:*'"), Reason::ScopeForbidden);
    assert_eq!(of("'*:write'"), Reason::ScopeForbidden);
    assert_eq!(of("'logs:delete'"), Reason::Granted);
}

#[test]
fn a_restriction_in_shadow_mode_records_and_denies_nothing() {
    let snapshot = policy(
        "client_ip: { source: remote_addr }\n\
         authorizations: { a: [t, u] }\n\
         restrictions:\n\
         - { name: tried, networks: [10.0.0.1], mode: shadow }\n\
         - { name: second, networks: [10.0.0.2], mode: shadow }\n\
         - { name: real, tenants: [u], networks: [10.0.0.0/8] }\n",
    );
    let of = |tenant: &'static str, client_ip| {
        decided(&snapshot, &Asked { client_ip, ..ask(&["a"], tenant, Scope::LogsRead) })
    };
    let outside = of("t", Ok("192.0.2.1"));
    assert!(outside.is_allow());
    assert_eq!(outside.shadow, Some(ShadowDenial { reason: Reason::IpForbidden, restriction: 0 }));
    assert_eq!((outside.grant, outside.restriction), (Some(0), None));
    let unknown = of("t", Err(Reason::IpExpired));
    assert_eq!(unknown.shadow, Some(ShadowDenial { reason: Reason::IpExpired, restriction: 0 }));
    assert_eq!(of("t", Ok("10.0.0.1")).shadow.map(|shadow| shadow.restriction), Some(1));
    let denied = of("u", Ok("192.0.2.1"));
    assert_eq!((denied.reason(), denied.restriction), (Reason::IpForbidden, Some(2)));
}

#[test]
fn a_service_account_has_its_group_and_its_networks() {
    let snapshot = policy(
        "client_ip: { source: remote_addr }\n\
         networks: { pods: [10.20.0.0/16] }\n\
         service_accounts:\n\
         - { name: agent, token_sha256: ['ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'], networks: [pods] }\n\
         - { name: open, token_sha256: ['0000000000000000000000000000000000000000000000000000000000000000'] }\n\
         grants:\n\
         - { groups: ['service:agent', 'service:open'], tenants: [t], scopes: ['logs:write'] }\n\
         - { groups: ['*'], tenants: [public] }\n\
         restrictions: [{ networks: [192.0.2.1] }]\n",
    );
    let of = |account: usize, tenant: &str, scope, peer: Result<&str, Reason>| {
        let account = &snapshot.service_accounts[account];
        let tenants = TenantList::parse(tenant.as_bytes()).unwrap();
        let request = AccessRequest {
            groups: &account.groups,
            caller: Caller::Service { networks: account.networks.as_ref() },
            tenants: &tenants,
            scope,
            backends: BackendSet::of(Backend::Loki),
            client_ip: peer.and_then(|text| ClientIp::parse(text.as_bytes())),
            now: NOW,
        };
        let trace = explain(&snapshot, &request);
        assert!(trace.tenants.iter().all(|tenant| tenant.restrictions.is_empty()), "restrictions bind users");
        assert_eq!((trace.decision.restriction, trace.decision.shadow), (None, None));
        trace.decision.reason()
    };
    let write = Scope::LogsWrite;
    assert_eq!(of(0, "t", write, Ok("10.20.3.4")), Reason::Granted);
    assert_eq!(of(0, "t", write, Ok("::ffff:10.20.3.4")), Reason::Granted);
    assert_eq!(of(0, "t", write, Ok("10.21.3.4")), Reason::IpForbidden);
    assert_eq!(of(0, "t", write, Err(Reason::IpMalformed)), Reason::IpForbidden, "a peer without an address");
    assert_eq!(of(1, "t", write, Err(Reason::IpMalformed)), Reason::Granted);
    assert_eq!(of(1, "t", write, Ok("198.51.100.1")), Reason::Granted);
    // Grants come first, and `*` is nobody but users.
    assert_eq!(of(0, "t", Scope::LogsRead, Ok("10.21.3.4")), Reason::ScopeForbidden);
    assert_eq!(of(0, "public", Scope::LogsRead, Ok("10.20.3.4")), Reason::TenantForbidden);
    assert_eq!(of(1, "u", write, Ok("10.20.3.4")), Reason::TenantForbidden);
}

#[test]
fn a_revoked_group_grants_nothing_excepts_nobody_and_binds_still() {
    let rules = "client_ip: { source: remote_addr }\n\
         authorizations: { a: [t, u, v], b: [t, u, v] }\n\
         restrictions:\n\
         - { tenants: [t], groups: [b], networks: [10.0.0.1] }\n\
         - { tenants: [u], except_groups: [b], networks: [10.0.0.1] }\n";
    let (before, after) = (policy(rules), policy(&format!("{rules}revoked: {{ groups: [b] }}\n")));
    let of = |snapshot: &Snapshot, groups: &[&str], tenant: &str| {
        reason(snapshot, &ask(groups, tenant, Scope::LogsRead))
    };
    let (yes, outside, no) = (Reason::Granted, Reason::IpForbidden, Reason::TenantForbidden);
    for (groups, tenant, was, is) in [
        (&["b"][..], "v", yes, no),
        (&["a", "b"], "v", yes, yes),
        (&["a", "b"], "t", outside, outside),
        (&["a"], "t", yes, yes),
        (&["a", "b"], "u", yes, outside),
        (&["b"], "u", yes, no),
    ] {
        assert_eq!(
            [of(&before, groups, tenant), of(&after, groups, tenant)],
            [was, is],
            "{groups:?} {tenant}"
        );
    }
}

#[test]
fn an_explanation_names_every_rule_that_took_part() {
    let snapshot = policy(
        "client_ip: { source: remote_addr }\n\
         grants:\n\
         - { name: allows, groups: [a], tenants: ['t*'] }\n\
         - { name: writes, groups: [a], tenants: [t], scopes: ['logs:write'] }\n\
         - { name: gone, groups: [a], tenants: [t], expires: 2020-01-01T00:00:00Z }\n\
         - { name: gone-writes, groups: [a], tenants: [t], scopes: ['logs:write'], expires: 2020-01-01T00:00:00Z }\n\
         - { name: others, groups: [b], tenants: [t] }\n\
         - { name: excepts, groups: [a], tenants: ['*'], except_tenants: [t] }\n\
         - { name: elsewhere, groups: [a], tenants: [u] }\n\
         restrictions:\n\
         - { name: inside, networks: [192.0.2.1] }\n\
         - { name: outside, networks: [10.0.0.1] }\n\
         - { name: excepted, except_groups: [a], networks: [10.0.0.1] }\n\
         - { name: not-mine, groups: [b], networks: [10.0.0.1] }\n\
         - { name: not-this, scopes: ['metrics:*'], networks: [10.0.0.1] }\n\
         - { name: not-here, tenants: [u], networks: [10.0.0.1] }\n",
    );
    let groups = snapshot.groups.of_user(0, ["a"].into_iter());
    let tenants = TenantList::parse(b"t").unwrap();
    let trace = explain(
        &snapshot,
        &AccessRequest {
            groups: &groups,
            caller: Caller::User { bound_by: &groups },
            tenants: &tenants,
            scope: Scope::LogsRead,
            backends: BackendSet::of(Backend::Loki),
            client_ip: ClientIp::parse(b"192.0.2.1"),
            now: NOW,
        },
    );
    assert_eq!(trace.decision.reason(), Reason::IpForbidden);
    let [tenant] = &*trace.tenants else { panic!() };
    let grants: Vec<_> = tenant.grants.iter().map(|(grant, outcome)| (&*grant.name, *outcome)).collect();
    assert_eq!(
        grants,
        [
            ("allows", GrantOutcome::Allows),
            ("writes", GrantOutcome::OtherScope),
            ("gone", GrantOutcome::Expired),
            ("gone-writes", GrantOutcome::Expired),
            ("others", GrantOutcome::OtherGroups),
        ]
    );
    let restrictions: Vec<_> =
        tenant.restrictions.iter().map(|(rule, outcome)| (&*rule.name, *outcome)).collect();
    assert_eq!(
        restrictions,
        [
            ("inside", RestrictionOutcome::Satisfied),
            ("outside", RestrictionOutcome::Violated),
            ("excepted", RestrictionOutcome::Excepted),
        ]
    );
}
