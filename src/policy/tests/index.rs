//! The index finds what looking at every rule would find, also in a policy as large as they get.

use super::*;
use crate::decision::{AccessRequest, Caller, decide};
use crate::policy::index::TenantIndex;
use crate::policy::snapshot::{EVERYONE, GroupId};
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use crate::tenant::{TenantList, TenantPattern};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

fn found(index: &TenantIndex, tenant: &str, groups: &[GroupId]) -> BTreeSet<u32> {
    let mut rules = BTreeSet::new();
    index.each_rule(tenant, groups, &mut |rule| _ = rules.insert(rule));
    rules
}

proptest! {
    #[test]
    fn finds_what_a_scan_finds(
        rules in prop::collection::vec(
            (prop::collection::vec("[ab]{0,4}\\*?[ab]{0,3}\\*?[ab]{0,1}\\*?", 1..8), prop::collection::btree_set(0u32..40, 0..25)),
            0..40,
        ),
        tenants in prop::collection::vec("[ab*]{1,8}", 1..8),
        groups in prop::collection::btree_set(0u32..40, 0..30),
        split in any::<prop::sample::Index>(),
    ) {
        let rules: Vec<(Vec<TenantPattern>, Vec<GroupId>)> = rules
            .into_iter()
            .map(|(tenants, groups)| (
                tenants.iter().filter_map(|text| TenantPattern::parse(text).ok()).collect(),
                groups.into_iter().collect(),
            ))
            .collect();
        let of = |rules: &[(Vec<TenantPattern>, Vec<GroupId>)], first| {
            TenantIndex::build(first, rules.iter().map(|(tenants, groups)| (&**tenants, &**groups)))
        };
        let index = of(&rules, 0);
        // The same in two parts.
        let (platform, own) = rules.split_at(split.index(rules.len() + 1));
        let mut in_parts = of(platform, 0);
        in_parts.set_further(Some(of(own, platform.len())));
        let groups: Vec<GroupId> = groups.into_iter().collect();
        for tenant in &tenants {
            let scan: BTreeSet<u32> = (0..)
                .zip(&rules)
                .filter(|(_, (tenants, _))| tenants.iter().any(|pattern| pattern.matches(tenant)))
                .filter(|(_, (_, own))| own.iter().any(|group| groups.contains(group)))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(&found(&index, tenant, &groups), &scan, "{}", tenant);
            prop_assert_eq!(&found(&in_parts, tenant, &groups), &scan, "{}", tenant);
        }
        // Whether anything is said about them does not depend on who it is said to.
        let patterns = tenants.iter().filter_map(|text| TenantPattern::parse(text).ok());
        for asked in patterns {
            let all = rules.iter().flat_map(|(tenants, _)| tenants);
            let any = all.into_iter().any(|known| asked.overlaps(known));
            prop_assert_eq!(index.names_any_tenant_of(&asked), any, "{}", asked);
        }
    }
}

#[test]
fn a_very_large_policy_decides_like_a_small_one() {
    const GRANTS: usize = 100_000;
    const GROUPS: usize = 10_000;
    // Grant n: group n mod 10 000 may read tenant n; every hundredth its team's tenants too, by a pattern.
    let mut text = format!("{HEAD}grants:\n");
    for number in 0..GRANTS {
        let group = number % GROUPS;
        _ = if number % 100 == 0 {
            writeln!(text, "- {{groups: [g{group}], tenants: [t{number}, 'team-{number}-*']}}")
        } else {
            writeln!(text, "- {{groups: [g{group}], tenants: [t{number}]}}")
        };
    }
    let started = Instant::now();
    let snapshot = snapshot(&text);
    let built = started.elapsed();
    assert_eq!(snapshot.grants.len(), GRANTS);
    // Generous: a debug build on a slow machine takes about three seconds.
    assert!(built.as_secs() < 30, "{built:?}");

    let reason = |groups: &[GroupId], tenants: &str| {
        let tenants = TenantList::parse(tenants.as_bytes()).unwrap();
        let request = AccessRequest {
            groups,
            caller: Caller::User { bound_by: groups },
            tenants: &tenants,
            scope: Scope::LogsRead,
            backends: BackendSet::ALL,
            client_ip: Err(Reason::IpMissing),
            now: NOW,
        };
        decide(&snapshot, &request).reason()
    };
    let of_user = |raw: &[usize]| {
        let names: Vec<String> = raw.iter().map(|number| format!("g{number}")).collect();
        snapshot.groups.of_user(0, names.iter().map(|name| &**name))
    };
    for sample in (0..GRANTS).step_by(9_973) {
        let group = sample % GROUPS;
        assert_eq!(reason(&of_user(&[group]), &format!("t{sample}")), Reason::Granted);
        assert_eq!(reason(&of_user(&[group + 1]), &format!("t{sample}")), Reason::TenantForbidden);
        let hundred = sample / 100 * 100;
        let team = format!("team-{hundred}-x");
        assert_eq!(reason(&of_user(&[hundred % GROUPS]), &team), Reason::Granted);
        assert_eq!(reason(&of_user(&[hundred % GROUPS + 1]), &team), Reason::TenantForbidden);
    }
    assert_eq!(reason(&[EVERYONE], "t0"), Reason::TenantForbidden);

    // The same rules as looking at all of them finds.
    let groups = of_user(&[0, 1, 99, 100, 5_000]);
    for tenant in ["t0", "t1", "t100", "t5000", "t99999", "team-0-x", "team-100-", "team-5000", "nobody"] {
        let scan: BTreeSet<u32> = (0..)
            .zip(&snapshot.grants)
            .filter(|(_, grant)| grant.tenants.iter().any(|pattern| pattern.matches(tenant)))
            .filter(|(_, grant)| grant.groups.iter().any(|group| groups.contains(group)))
            .map(|(number, _)| number)
            .collect();
        assert_eq!(found(&snapshot.grant_index, tenant, &groups), scan, "{tenant}");
    }
}
