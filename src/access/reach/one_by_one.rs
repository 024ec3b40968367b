//! What each grant gives by itself: for policies whose patterns overlap in too many ways to cut the tenants into sets of
//! which all rules say the same.

use super::{Given, Row, Someone, given};
use crate::access::merge::Merged;
use crate::access::{Bound, RulesOfCell, Unit, units};
use crate::policy::snapshot::{Grant, Restriction, Snapshot};
use crate::tenant::TenantPattern;
use std::collections::BTreeMap;

/// The rows of each pattern of each grant of the group.
///
/// `closed`: tenants of which nothing is said.
pub(super) fn one_by_one(
    snapshot: &Snapshot,
    group: &str,
    who: &Someone<'_>,
    closed: &[&TenantPattern],
    now: u64,
) -> Vec<Row> {
    let binding: Vec<&Restriction> = who.binding(snapshot).collect();
    let mut rows = Vec::new();
    for grant in who.granting(snapshot, now) {
        let except: Vec<&TenantPattern> = grant.except_tenants.iter().chain(closed.iter().copied()).collect();
        for tenants in &grant.tenants {
            if except.iter().any(|except| except.covers(tenants)) {
                continue;
            }
            let mut found: BTreeMap<(Given, Vec<Bound>), Vec<Unit>> = BTreeMap::new();
            let (all, some) = around(grant, tenants, &except, &binding);
            for unit in units() {
                let Some(given) = given(snapshot, who, &all, *unit, now, |_| true) else { continue };
                let parts = if some.restrictions.is_empty() {
                    Vec::new()
                } else {
                    who.bound(snapshot, &some, *unit, false)
                };
                found.entry((given, parts)).or_default().push(*unit);
            }
            let inside = except.iter().filter(|except| except.overlaps(tenants));
            let inside: Vec<String> = inside.map(ToString::to_string).collect();
            rows.extend(found.into_iter().map(|((what, from_in_parts), units)| {
                let tenants = vec![tenants.to_string()];
                let row = Row::of(snapshot, group, Merged { what, tenants, except: inside.clone(), units });
                Row { from_in_parts, ..row }
            }));
        }
    }
    rows
}

/// The grant with the restrictions on all of these tenants, and the restrictions on some of them.
///
/// `except`: tenants of which nothing is said.
fn around<'s>(
    grant: &'s Grant,
    tenants: &TenantPattern,
    except: &[&TenantPattern],
    binding: &[&'s Restriction],
) -> (RulesOfCell<'s>, RulesOfCell<'s>) {
    let mut all = RulesOfCell { grants: vec![grant], ..RulesOfCell::default() };
    let mut some = RulesOfCell::default();
    let touches = |pattern: &TenantPattern| {
        pattern.overlaps(tenants) && !except.iter().any(|except| except.covers(pattern))
    };
    for rule in binding.iter().copied() {
        let is_free = rule.except_tenants.iter().any(|free| free.covers(tenants));
        if is_free || !rule.tenants.iter().any(touches) {
            continue;
        }
        let is_on_all = rule.tenants.iter().any(|pattern| pattern.covers(tenants))
            && !rule.except_tenants.iter().any(touches);
        if is_on_all { all.restrictions.push(rule) } else { some.restrictions.push(rule) }
    }
    (all, some)
}
