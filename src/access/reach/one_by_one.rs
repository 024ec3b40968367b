//! What each grant gives by itself: for policies whose patterns overlap in too many ways to cut the tenants into sets of
//! which all rules say the same.

use super::{Given, RawGroups, Row, Someone, bounds, given};
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
    let raw = RawGroups::of(snapshot);
    let mut rows = Vec::new();
    for grant in who.granting(snapshot, now) {
        let except: Vec<&TenantPattern> = grant.except_tenants.iter().chain(closed.iter().copied()).collect();
        for area in areas(grant, snapshot) {
            if except.iter().any(|except| area.is_within(except)) {
                continue;
            }
            let mut found: BTreeMap<(Given, Vec<Bound>), Vec<Unit>> = BTreeMap::new();
            let (all, some) = around(snapshot, grant, &area, &except, &binding);
            for unit in units() {
                let Some(given) = given(snapshot, who, &all, *unit, now, |_| true) else { continue };
                let parts = if some.restrictions.is_empty() {
                    Vec::new()
                } else {
                    who.bound(snapshot, &some, *unit, false)
                };
                found.entry((given, parts)).or_default().push(*unit);
            }
            let inside = except.iter().filter(|except| area.meets(except));
            let inside: Vec<Vec<String>> = inside.map(|pattern| vec![pattern.to_string()]).collect();
            rows.extend(found.into_iter().map(|((what, from_in_parts), units)| {
                let tenants = area.0.iter().map(ToString::to_string).collect();
                let row =
                    Row::of(snapshot, &raw, group, Merged { what, tenants, except: inside.clone(), units });
                Row { from_in_parts, ..row }
            }));
        }
    }
    rows
}

/// The tenants that all of these patterns match.
struct Area<'s>(Vec<&'s TenantPattern>);

impl Area<'_> {
    /// Whether the pattern matches all of them. Rather no than yes.
    fn is_within(&self, pattern: &TenantPattern) -> bool {
        self.0.iter().any(|own| pattern.covers(own))
    }

    /// Whether the pattern matches some of them. Rather yes than no.
    fn meets(&self, pattern: &TenantPattern) -> bool {
        self.0.iter().all(|own| pattern.overlaps(own))
    }
}

/// Each pattern of a grant, as far as it lies within the grant's bounds.
fn areas<'s>(grant: &'s Grant, snapshot: &'s Snapshot) -> Vec<Area<'s>> {
    let bounds = bounds(snapshot, grant.owner, &grant.tenants);
    let within = |tenants: &'s TenantPattern| -> Vec<Area<'s>> {
        match bounds {
            Some(bounds) if !bounds.iter().any(|bound| bound.covers(tenants)) => {
                let inside = bounds.iter().filter(|bound| bound.overlaps(tenants));
                inside.map(|bound| Area(vec![tenants, bound])).collect()
            }
            _ => vec![Area(vec![tenants])],
        }
    };
    grant.tenants.iter().flat_map(within).collect()
}

/// The grant with the restrictions on all of these tenants, and the restrictions on some of them.
///
/// `except`: tenants of which nothing is said.
fn around<'s>(
    snapshot: &Snapshot,
    grant: &'s Grant,
    area: &Area<'_>,
    except: &[&TenantPattern],
    binding: &[&'s Restriction],
) -> (RulesOfCell<'s>, RulesOfCell<'s>) {
    let mut all = RulesOfCell { grants: vec![grant], ..RulesOfCell::default() };
    let mut some = RulesOfCell::default();
    let touches =
        |pattern: &TenantPattern| area.meets(pattern) && !except.iter().any(|except| except.covers(pattern));
    for rule in binding.iter().copied() {
        let bounds = bounds(snapshot, rule.owner, &rule.tenants);
        let is_free = rule.except_tenants.iter().any(|free| area.is_within(free))
            || bounds.is_some_and(|bounds| !bounds.iter().any(touches));
        if is_free || !rule.tenants.iter().any(touches) {
            continue;
        }
        let is_on_all = rule.tenants.iter().any(|pattern| area.is_within(pattern))
            && bounds.is_none_or(|bounds| bounds.iter().any(|bound| area.is_within(bound)))
            && !rule.except_tenants.iter().any(touches);
        if is_on_all { all.restrictions.push(rule) } else { some.restrictions.push(rule) }
    }
    (all, some)
}
