//! What is found tenant by tenant and thing by thing, said in as few lines as are true.

use super::cells::Cell;
use super::{Unit, scope_names};
use crate::tenant::TenantPattern;
use std::collections::{BTreeMap, HashSet};

/// Something that is true of tenants and of what can be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged<K> {
    /// What is true.
    pub what: K,
    /// Of the tenants that all of these patterns match.
    pub tenants: Vec<String>,
    /// But not of these among them; `a & b` is what two patterns have in common.
    pub except: Vec<String>,
    /// For requests that do one of these.
    pub units: Vec<Unit>,
}

/// Says once what is true of several units, and of tenants of a pattern as well as of the pattern.
///
/// `found`: each truth with its cell and unit. `cells`: all that were looked at, also those of which nothing is true.
pub fn merge<'p, K: Ord + Clone>(
    found: impl Iterator<Item = (K, Cell<'p>, Unit)>,
    cells: &[Cell<'p>],
) -> Vec<Merged<K>> {
    let mut by_cell: BTreeMap<(K, Cell<'_>), Vec<Unit>> = BTreeMap::new();
    for (what, cell, unit) in found {
        by_cell.entry((what, cell)).or_default().push(unit);
    }
    let mut by_units: BTreeMap<(K, Vec<String>), (Vec<Unit>, Vec<Cell<'_>>)> = BTreeMap::new();
    for ((what, cell), units) in by_cell {
        let entry = by_units.entry((what, scope_names(&units))).or_insert_with(|| (units, Vec::new()));
        entry.1.push(cell);
    }
    let named: Vec<Named<'_, 'p>> = cells.iter().map(Named::of).collect();
    let mut lines = Vec::new();
    for ((what, _), (units, mine)) in by_units {
        for (tenants, except) in regions(&mine, &named) {
            lines.push(Merged { what: what.clone(), tenants, except, units: units.clone() });
        }
    }
    lines
}

/// A cell with what it is called.
struct Named<'c, 'p> {
    cell: &'c Cell<'p>,
    names: Vec<&'p TenantPattern>,
    /// It is no written-out tenant.
    wild: bool,
}

impl<'c, 'p> Named<'c, 'p> {
    fn of(cell: &'c Cell<'p>) -> Self {
        let names = cell.names();
        let wild = names.iter().all(|name| name.literal().is_none());
        Self { cell, names, wild }
    }
}

/// The cells as few names and what is to be left out of each.
fn regions(mine: &[Cell<'_>], cells: &[Named<'_, '_>]) -> Vec<(Vec<String>, Vec<String>)> {
    let named: Vec<Named<'_, '_>> = mine.iter().map(Named::of).collect();
    let own: HashSet<&Cell<'_>> = mine.iter().collect();
    let any_wild = named.iter().any(|one| one.wild);
    // Only what lies in a pattern can be left out of one, so written-out tenants need not be held against each other.
    let others: Vec<&Named<'_, '_>> =
        if any_wild { cells.iter().filter(|one| !own.contains(one.cell)).collect() } else { Vec::new() };
    // For each pattern, the others inside; first those that are patterns themselves.
    let wide: Vec<(usize, &Named<'_, '_>, Vec<&Named<'_, '_>>)> = named
        .iter()
        .enumerate()
        .filter(|(_, one)| one.wild)
        .map(|(at, one)| {
            let mut inside: Vec<_> =
                others.iter().copied().filter(|other| covers(&one.names, &other.names)).collect();
            inside.sort_by_key(|other| !other.wild);
            (at, one, inside)
        })
        .collect();
    let mut regions = Vec::new();
    for (at, narrow) in named.iter().enumerate() {
        // Part of a wider set that is a line itself, and not of what that line leaves out.
        let is_told = wide.iter().any(|(wider, wide, left_out)| {
            let between = || {
                let patterns = left_out.iter().take_while(|third| third.wild);
                patterns.into_iter().any(|third| covers(&third.names, &narrow.names))
            };
            *wider != at
                && covers(&wide.names, &narrow.names)
                && !(covers(&narrow.names, &wide.names) && *wider > at)
                && !between()
        });
        if is_told {
            continue;
        }
        let left_out = wide.iter().find(|(wider, ..)| *wider == at).map_or(&[][..], |(_, _, inside)| inside);
        let is_widest = |one: &&&Named<'_, '_>| {
            let mut wider = left_out.iter().take_while(|other| other.wild);
            !wider.any(|other| other.names != one.names && covers(&other.names, &one.names))
        };
        let except = left_out.iter().filter(is_widest).map(|one| text(&one.names)).collect();
        regions.push((narrow.names.iter().map(ToString::to_string).collect(), except));
    }
    regions
}

/// Whether every tenant that all of `narrow` match is matched by all of `wide`.
fn covers(wide: &[&TenantPattern], narrow: &[&TenantPattern]) -> bool {
    wide.iter().all(|wide| narrow.iter().any(|narrow| wide.covers(narrow)))
}

fn text(names: &[&TenantPattern]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" & ")
}
