//! What is said of random policies is what requests meet.

use super::*;
use crate::access::diff::tests::{ADDRESSES, RAW, TENANTS, owner, pair, policy_with};
use crate::access::{NamedNetwork, scope_names};
use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller, decide};
use crate::network::Network;
use crate::reason::Reason;
use crate::tenant::TenantList;
use crate::token::fixtures::NOW;
use proptest::prelude::*;

/// Whether a row speaks of the unit and lets the address in.
fn lets_in(row: &Row, unit: Unit, ip: Option<&str>) -> Option<bool> {
    let speaks = |scope: &String| {
        let (name, of) = scope.split_once(' ').map_or((&**scope, None), |(name, of)| (name, Some(of)));
        name == unit.scope.name() && of.is_none_or(|of| of.contains(unit.backends.label()))
    };
    let is_inside = |network: &NamedNetwork| {
        let contains = |network: &String| {
            ip.is_some_and(|ip| Network::parse(network).unwrap().contains(ip.parse().unwrap()))
        };
        network.networks.iter().any(contains)
    };
    scope_names(&row.units)
        .iter()
        .any(speaks)
        .then(|| row.reach.from.iter().all(|demand| demand.networks.iter().any(is_inside)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 2000 }))]

    /// Whoever looks for a group, and else for everyone, reads what becomes of somebody in that group.
    #[test]
    fn rows_are_what_requests_show(
        (text, _) in pair(),
        (kept, bounds) in owner(),
        revoked in prop::sample::select(&["", "revoked: { groups: [b] }\n", "revoked: { groups: [alias] }\n"][..]),
    ) {
        let Some(policy) = policy_with(kept, &format!("{text}{revoked}{bounds}")) else { return Ok(()) };
        let snapshot = &policy.snapshot;
        for raw in RAW.iter().map(std::slice::from_ref).chain([&[][..]]) {
            let held = snapshot.groups.held_by_user(0, raw.iter().copied());
            let named = match raw {
                ["raw"] => "alias",
                [raw] => raw,
                _ => "*",
            };
            let of_group = of_group(snapshot, named, NOW).rows;
            let one_by_one = one_by_one(snapshot, named, &Someone::of(snapshot, named), &[], NOW);
            let with_parts: Vec<Row> = one_by_one
                .iter()
                .map(|row| {
                    let from = [row.reach.from.clone(), row.from_in_parts.clone()].concat();
                    Row { reach: Reach { from, ..row.reach.clone() }, ..row.clone() }
                })
                .collect();
            for tenant in TENANTS {
                let of_tenant = of_tenant(snapshot, &TenantPattern::parse(tenant).unwrap(), NOW).unwrap().rows;
                let tenants = TenantList::parse(tenant.as_bytes()).unwrap();
                for (unit, ip) in units().iter().flat_map(|unit| ADDRESSES.map(|ip| (*unit, ip))) {
                    let request = AccessRequest {
                        groups: &held.groups,
                        caller: Caller::User { bound_by: held.binding() },
                        tenants: &tenants,
                        scope: unit.scope,
                        backends: unit.backends,
                        client_ip: ip.map_or(Err(Reason::IpMissing), |ip| ClientIp::parse(ip.as_bytes())),
                        now: NOW,
                    };
                    let allowed = decide(snapshot, &request).is_allow();
                    let in_rows = |name: &str| {
                        let own = of_tenant.iter().filter(|row| row.group == name);
                        own.filter_map(|row| lets_in(row, unit, ip)).reduce(|any, one| any || one)
                    };
                    let any = if raw.is_empty() { None } else { in_rows("entra:*") };
                    // Whether a revoked group makes one of any group it depends on what for: granted or bound.
                    let is_clear = *held.groups == *held.binding() || any.is_none() || in_rows(named).is_some();
                    let said = in_rows(named).or(any).or_else(|| in_rows("*")).unwrap_or(false);
                    prop_assert!(!is_clear || said == allowed, "{} {} {:?} {:?}: {}", named, tenant, unit, ip, said);
                    let matches = |names: &Vec<String>| {
                        names.iter().all(|name| TenantPattern::parse(name).unwrap().matches(tenant))
                    };
                    let speaks_of = |row: &&Row| matches(&row.tenants) && !row.except.iter().any(matches);
                    let any = |rows: &[Row]| {
                        let said = rows.iter().filter(speaks_of).filter_map(|row| lets_in(row, unit, ip));
                        said.reduce(|any, one| any || one).unwrap_or(false)
                    };
                    prop_assert_eq!(any(&of_group), allowed, "{} {} {:?} {:?}", named, tenant, unit, ip);
                    // Grant by grant, what binds some tenants may bind this one.
                    prop_assert!(!allowed || any(&one_by_one), "{} {} {:?} {:?}", named, tenant, unit, ip);
                    prop_assert!(allowed || !any(&with_parts), "{} {} {:?} {:?}", named, tenant, unit, ip);
                }
            }
        }
    }
}
