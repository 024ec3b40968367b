//! Random small policies: the decision, and its explanation, against what the contract says in so many words. The
//! model knows neither indexes nor numbers of groups, and reads the policy as it was written.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "built for tests and fuzzing alone"
)]

use super::*;
use crate::policy::fixtures::{HEAD, give_to_owner, outcome};
use crate::scope::Backend;
use crate::token::fixtures::NOW;
use proptest::prelude::*;
use std::net::IpAddr;

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) groups: Vec<&'static str>,
    pub(crate) except_groups: Vec<&'static str>,
    pub(crate) tenants: Vec<&'static str>,
    pub(crate) except_tenants: Vec<&'static str>,
    pub(crate) scopes: Option<Vec<&'static str>>,
    /// Grants alone.
    pub(crate) expires: Option<u64>,
    /// Grants alone: for the service account too.
    pub(crate) service: bool,
    /// Restrictions alone.
    pub(crate) networks: Vec<&'static str>,
    pub(crate) shadow: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) grants: Vec<Rule>,
    pub(crate) restrictions: Vec<Rule>,
    pub(crate) revoked: Vec<&'static str>,
    /// Of the service account.
    pub(crate) networks: Option<Vec<&'static str>>,
    pub(crate) owner: Option<Owned>,
}

/// An owner of less than its rules say.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) tenants: Vec<&'static str>,
    /// Of so many grants, and restrictions, one is its: the first.
    pub(crate) every: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The service account asks, and the address is its peer's; otherwise a user in the raw groups.
    pub(crate) service: bool,
    pub(crate) raw_groups: Vec<&'static str>,
    pub(crate) tenants: Vec<&'static str>,
    pub(crate) scope: Scope,
    pub(crate) backends: BackendSet,
    pub(crate) client_ip: Result<&'static str, Reason>,
}

pub(crate) const GROUPS: [&str; 5] = ["a", "b", "c", "alias", "entra:*"];
pub(crate) const RAW_GROUPS: [&str; 7] = ["a", "b", "c", "alias", "raw", "stranger", "service:agent"];
pub(crate) const REVOCABLE: [&str; 5] = ["a", "b", "alias", "raw", "service:agent"];
/// The last two leave nothing to an exception.
pub(crate) const PATTERNS: [&str; 26] = [
    "t", "u", "v", "t*", "*v", "t*v", "tv", "tx*", "txv*", "tx*x", "t*x*v", "*x*", "txxv", "t*xv", "t*xxv",
    "t*x", "t*vxx", "*xv", "*xx", "*x", "*vxx", "tx*v", "tx*xv", "tx*xx", "*", "tx*v*x",
];
/// How many leave something to an exception.
pub(crate) const EXCEPTIONS: usize = PATTERNS.len() - 2;
pub(crate) const TENANTS: [&str; 11] =
    ["t", "u", "v", "tv", "txv", "x", "txxv", "tx", "txvxx", "txxxv", "uxxv"];
pub(crate) const SCOPES: [&str; 14] = [
    "metrics:read",
    "metrics:*",
    "logs:read",
    "logs:write",
    "logs:delete",
    "logs:*",
    "rules:read",
    "rules:*",
    "alerts:read",
    "alerts:write",
    "traces:*",
    "*:read",
    "*:write",
    "*:*",
];
pub(crate) const NETWORKS: [&str; 3] = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"];
pub(crate) const ADDRESSES: [&str; 4] = ["10.1.2.3", "10.2.2.3", "192.0.2.1", "2001:db8::1"];

fn written(policy: &Policy) -> String {
    let list = |texts: &[&str]| format!("{texts:?}");
    // `known` holds every group, so that restrictions may name it.
    let mut text = format!(
        "{HEAD}group_names: {{ alias: [raw] }}\nclient_ip: {{ source: remote_addr }}\n\
         authorizations: {{ a: [known], b: [known], c: [known] }}\nservice_accounts:\n\
         - {{ name: agent, token_sha256: ['{}']",
        "0".repeat(64)
    );
    if let Some(networks) = &policy.networks {
        text += &format!(", networks: {}", list(networks));
    }
    text += &format!(" }}\nrevoked: {{ groups: {} }}\ngrants:\n", list(&policy.revoked));
    let rule = |rule: &Rule, groups: &[&str]| {
        let mut fields = format!("groups: {}, tenants: {}", list(groups), list(&rule.tenants));
        if !rule.except_tenants.is_empty() {
            fields += &format!(", except_tenants: {}", list(&rule.except_tenants));
        }
        if let Some(scopes) = &rule.scopes {
            fields += &format!(", scopes: {}", list(scopes));
        }
        fields
    };
    for grant in &policy.grants {
        let mut groups = grant.groups.clone();
        groups.extend(is_for_service(grant).then_some("service:agent"));
        text += &format!("- {{ {}", rule(grant, &groups));
        if let Some(expires) = grant.expires {
            text += &format!(", expires: {}", jiff::Timestamp::from_second(expires as i64).unwrap());
        }
        text += " }\n";
    }
    text += "- { groups: [a], tenants: [known] }\nrestrictions:\n";
    for restriction in &policy.restrictions {
        text += &format!(
            "- {{ {}, networks: {}",
            rule(restriction, &restriction.groups),
            list(&restriction.networks)
        );
        if !restriction.except_groups.is_empty() {
            text += &format!(", except_groups: {}", list(&restriction.except_groups));
        }
        text += if restriction.shadow { ", mode: shadow }\n" } else { " }\n" };
    }
    text + "- { tenants: [known], networks: [10.0.0.1] }\n"
}

/// Any run of characters for a star, by trying each.
fn matches(pattern: &str, tenant: &str) -> bool {
    match pattern.chars().next() {
        None => tenant.is_empty(),
        Some('*') => {
            (0..=tenant.len()).any(|from| matches(pattern.get(1..).unwrap(), tenant.get(from..).unwrap()))
        }
        Some(_) => {
            tenant.chars().next() == pattern.chars().next()
                && matches(pattern.get(1..).unwrap(), tenant.get(1..).unwrap())
        }
    }
}

/// The rules that count for a tenant: the platform's, and those of the owner where the tenant is its.
fn counting<'p>(policy: &'p Policy, rules: &'p [Rule], tenant: &str) -> impl Iterator<Item = &'p Rule> {
    let owner = policy.owner.as_ref().filter(|owner| !owner.tenants.iter().any(|own| matches(own, tenant)));
    rules
        .iter()
        .enumerate()
        .filter(move |(n, _)| owner.is_none_or(|owner| n % owner.every != 0))
        .map(|(_, rule)| rule)
}

fn names_tenant(rule: &Rule, tenant: &str) -> bool {
    rule.tenants.iter().any(|pattern| matches(pattern, tenant))
        && !rule.except_tenants.iter().any(|pattern| matches(pattern, tenant))
}

/// `*` stands alone.
fn is_for_service(grant: &Rule) -> bool {
    grant.service && grant.groups != ["*"]
}

/// Whether the user's token gives the raw group: "a revoked group is dropped from every principal", and an alias stands
/// for its groups.
fn gives(policy: &Policy, wish: &Wish, raw: &str) -> bool {
    let revoked = policy.revoked.contains(&raw) || (raw == "raw" && policy.revoked.contains(&"alias"));
    // Nobody revokes what only reads like the name of an alias.
    wish.raw_groups.contains(&raw) && (!revoked || raw == "alias")
}

fn holds(policy: &Policy, wish: &Wish, group: &str) -> bool {
    match group {
        // "a token's group that begins with `service` and a colon is dropped"
        "entra:*" => wish.raw_groups.iter().any(|raw| *raw != "service:agent" && gives(policy, wish, raw)),
        "*" => true,
        "alias" => gives(policy, wish, "raw"),
        raw => gives(policy, wish, raw),
    }
}

fn grants_to(policy: &Policy, grant: &Rule, wish: &Wish) -> bool {
    if wish.service {
        is_for_service(grant) && !policy.revoked.contains(&"service:agent")
    } else {
        grant.groups.iter().any(|group| holds(policy, wish, group))
    }
}

/// "`X:*` is read and write, `delete` must be written out."
fn granted_scope(pattern: &str, scope: Scope) -> bool {
    let (signal, action) = pattern.split_once(':').unwrap();
    (signal == "*" || signal == scope.signal())
        && (action == scope.action() || (action == "*" && scope.action() != "delete"))
}

/// "In a restriction `logs:*` also covers rules and alerts requests to Loki, `metrics:*` those to Mimir."
fn bound_scope(pattern: &str, wish: &Wish) -> bool {
    let rules = matches!(wish.scope.signal(), "rules" | "alerts");
    let to = |backend| rules && wish.backends.contains(backend);
    match pattern {
        "logs:*" => wish.scope.signal() == "logs" || to(Backend::Loki),
        "metrics:*" => wish.scope.signal() == "metrics" || to(Backend::Mimir),
        "*:*" => true,
        other => granted_scope(other, wish.scope),
    }
}

fn inside(rule: &Rule, client_ip: &str) -> bool {
    rule.networks.iter().any(|network| contains(network, client_ip))
}

fn contains(network: &str, address: &str) -> bool {
    match (address.parse().unwrap(), network) {
        (IpAddr::V4(v4), "10.0.0.0/8") => v4.octets()[0] == 10,
        (IpAddr::V4(v4), "10.1.0.0/16") => v4.octets()[..2] == [10, 1],
        (IpAddr::V6(v6), "2001:db8::/32") => v6.segments()[..2] == [0x2001, 0xdb8],
        _ => false,
    }
}

/// "restrictions bind users", and a revocation lifts none.
fn applies(policy: &Policy, rule: &Rule, wish: &Wish, tenant: &str) -> bool {
    let nothing_revoked = Policy { revoked: Vec::new(), ..policy.clone() };
    names_tenant(rule, tenant)
        && !wish.service
        && rule.groups.iter().any(|group| holds(&nothing_revoked, wish, group))
        && !rule.except_groups.iter().any(|group| holds(policy, wish, group))
        && rule.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|pattern| bound_scope(pattern, wish)))
}

/// "The first refused of the requested tenants": in canonical order, by the one reason that the request was denied for.
fn first_refused(policy: &Policy, wish: &Wish, reason: Reason) -> Option<&'static str> {
    let mut tenants = wish.tenants.clone();
    tenants.sort_unstable();
    let alone =
        |tenant: &&'static str| expected(policy, &Wish { tenants: vec![tenant], ..wish.clone() }).0 == reason;
    let is_about_tenants =
        matches!(reason, Reason::TenantForbidden | Reason::ScopeForbidden) || !wish.service;
    tenants.into_iter().filter(|_| reason != Reason::Granted && is_about_tenants).find(alone)
}

/// The reason, and the reason that restrictions in shadow mode would have given.
fn expected(policy: &Policy, wish: &Wish) -> (Reason, Option<Reason>) {
    let mut tenants = wish.tenants.clone();
    tenants.sort_unstable();
    let grants_of = |tenant: &str| -> Vec<&Rule> {
        counting(policy, &policy.grants, tenant)
            .filter(|grant| names_tenant(grant, tenant) && grants_to(policy, grant, wish))
            .filter(|grant| grant.expires.is_none_or(|expires| NOW < expires))
            .collect()
    };
    let allows = |grant: &&Rule| match &grant.scopes {
        None => wish.scope.action() == "read",
        Some(scopes) => scopes.iter().any(|pattern| granted_scope(pattern, wish.scope)),
    };
    if tenants.iter().any(|tenant| grants_of(tenant).is_empty()) {
        return (Reason::TenantForbidden, None);
    }
    if !tenants.iter().all(|tenant| grants_of(tenant).iter().any(allows)) {
        return (Reason::ScopeForbidden, None);
    }
    if wish.service {
        // "The TCP peer must be inside."
        let outside = policy.networks.as_ref().is_some_and(|networks| {
            !wish.client_ip.is_ok_and(|peer| networks.iter().any(|network| contains(network, peer)))
        });
        return (if outside { Reason::IpForbidden } else { Reason::Granted }, None);
    }
    let violated = |shadow: bool| {
        tenants.iter().any(|tenant| {
            counting(policy, &policy.restrictions, tenant)
                .filter(|rule| rule.shadow == shadow && applies(policy, rule, wish, tenant))
                .any(|rule| !wish.client_ip.is_ok_and(|client_ip| inside(rule, client_ip)))
        })
    };
    let why = wish.client_ip.err().unwrap_or(Reason::IpForbidden);
    if violated(false) { (why, None) } else { (Reason::Granted, violated(true).then_some(why)) }
}

/// Holds what is decided about each wish against the model. Whether the policy could be compiled: one with a
/// restriction whose exceptions leave nothing of it is refused, and decides nothing.
pub(crate) fn agrees(policy: &Policy, wishes: &[Wish]) -> Result<bool, TestCaseError> {
    let text = written(policy);
    let outcome = outcome(&text);
    let Some(compiled) = outcome.compiled else {
        let senseless =
            |told: &str| told.contains("is excepted as well") || told.contains("excepts everybody");
        prop_assert!(
            outcome.diagnostics.iter().filter(|told| told.is_error()).all(|told| senseless(&told.message))
        );
        return Ok(false);
    };
    let mut snapshot = compiled.snapshot;
    if let Some(owner) = &policy.owner {
        // Behind those of `authorizations`, before the last.
        let first = snapshot.grants.len() - 1 - policy.grants.len();
        let grants = (0..policy.grants.len()).step_by(owner.every).map(|n| first + n);
        let restrictions = (0..policy.restrictions.len()).step_by(owner.every);
        give_to_owner(&mut snapshot, &owner.tenants, grants, restrictions);
    }
    for wish in wishes {
        let held = snapshot.groups.held_by_user(0, wish.raw_groups.iter().copied());
        let account = &snapshot.service_accounts[0];
        let (groups, caller) = if wish.service {
            (&account.groups, Caller::Service { networks: account.networks.as_ref() })
        } else {
            (&held.groups, Caller::User { bound_by: held.binding() })
        };
        let header = wish.tenants.join("|");
        let tenants = TenantList::parse(header.as_bytes()).unwrap();
        let request = AccessRequest {
            groups,
            caller,
            tenants: &tenants,
            scope: wish.scope,
            backends: wish.backends,
            client_ip: wish.client_ip.and_then(|text| ClientIp::parse(text.as_bytes())),
            now: NOW,
        };
        let decision = decide(&snapshot, &request);
        let (reason, shadow) = expected(policy, wish);
        prop_assert_eq!(decision.reason(), reason, "{:?}\n{}", wish, text);
        prop_assert_eq!(decision.shadow.map(|shadow| shadow.reason), shadow, "{:?}\n{}", wish, text);
        prop_assert_eq!(
            decision.denied_tenant(&tenants),
            first_refused(policy, wish, reason),
            "{:?}\n{}",
            wish,
            text
        );
        check_trace(&explain(&snapshot, &request), decision, wish.service);
    }
    Ok(true)
}

/// What people read must lead to what was decided.
fn check_trace(trace: &Trace<'_>, decision: Decision, service: bool) {
    assert_eq!(trace.decision, decision);
    let any = |tenant: &TenantTrace<'_>, wanted| tenant.grants.iter().any(|(_, outcome)| *outcome == wanted);
    let granted = trace.tenants.iter().all(|tenant| any(tenant, GrantOutcome::Allows));
    let named = trace
        .tenants
        .iter()
        .all(|tenant| any(tenant, GrantOutcome::Allows) || any(tenant, GrantOutcome::OtherScope));
    let violated = |shadow: bool| {
        trace
            .tenants
            .iter()
            .flat_map(|tenant| &tenant.restrictions)
            .any(|(rule, outcome)| rule.shadow == shadow && *outcome == RestrictionOutcome::Violated)
    };
    match decision.reason() {
        Reason::TenantForbidden => assert!(!named),
        Reason::ScopeForbidden => assert!(named && !granted),
        Reason::Granted => {
            assert!(granted && !violated(false));
            assert_eq!(decision.shadow.is_some(), violated(true));
        }
        // A service account's networks are no restriction.
        _ => assert!(granted && violated(false) != service),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_of(
        from: &'static [&'static str],
        counts: std::ops::Range<usize>,
    ) -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(from), counts)
    }

    prop_compose! {
        fn rule()(
            groups in prop_oneof![2 => some_of(&GROUPS, 1..3), 1 => Just(vec!["*"])],
            except_groups in some_of(&GROUPS, 0..2),
            tenants in prop_oneof![3 => some_of(&PATTERNS, 1..3), 1 => some_of(&PATTERNS, 8..20)],
            except_tenants in prop_oneof![
                5 => some_of(&PATTERNS[..EXCEPTIONS], 0..2),
                1 => some_of(&PATTERNS[..EXCEPTIONS], 9..15),
            ],
            scopes in prop::option::of(some_of(&SCOPES, 1..3)),
            expires in prop_oneof![4 => Just(None), 1 => Just(Some(NOW)), 1 => Just(Some(NOW + 1))],
            networks in some_of(&NETWORKS, 1..3),
            service in any::<bool>(),
            shadow in prop::bool::weighted(0.3),
        ) -> Rule {
            Rule { groups, except_groups, tenants, except_tenants, scopes, expires, service, networks, shadow }
        }
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let revoked = prop_oneof![2 => Just(Vec::new()), 1 => some_of(&REVOCABLE, 1..3)];
        let networks = prop::option::of(some_of(&NETWORKS, 1..3));
        let owner = (some_of(&PATTERNS, 0..12), 1_usize..3);
        let owner = prop::option::of(owner.prop_map(|(tenants, every)| Owned { tenants, every }));
        (prop::collection::vec(rule(), 0..5), prop::collection::vec(rule(), 0..4), revoked, networks, owner)
            .prop_map(|(grants, restrictions, revoked, networks, owner)| Policy {
                grants,
                restrictions,
                revoked,
                networks,
                owner,
            })
    }

    prop_compose! {
        fn wish()(
            service in prop::bool::weighted(0.25),
            raw_groups in some_of(&RAW_GROUPS, 0..4),
            tenants in some_of(&TENANTS, 1..6),
            scope in prop::sample::select(&Scope::ALL[..]),
            backends in prop::collection::vec(prop::sample::select(&Backend::ALL[..]), 1..3),
            client_ip in prop_oneof![
                3 => prop::sample::select(&ADDRESSES[..]).prop_map(Ok),
                1 => prop::sample::select(&[Reason::IpMissing, Reason::IpExpired][..]).prop_map(Err),
            ],
        ) -> Wish {
            let backends = backends.into_iter().map(BackendSet::of).fold(BackendSet::EMPTY, BackendSet::union);
            Wish { service, raw_groups, tenants, scope, backends, client_ip }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

        #[test]
        fn decides_as_the_contract_says(policy in policies(), wishes in prop::collection::vec(wish(), 12)) {
            if !agrees(&policy, &wishes)? {
                return Err(TestCaseError::reject("a senseless exception"));
            }
        }
    }
}
