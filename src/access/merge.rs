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
    /// But not of these among them: each is what all of its patterns match.
    pub except: Vec<Vec<String>>,
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
    let named = AllNamed::of(cells);
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

/// Every cell with what it is called, found by how that begins.
struct AllNamed<'c, 'p> {
    cells: Vec<Named<'c, 'p>>,
    /// Each name with the number of its cell. Sorted.
    by_name: Vec<(&'p str, usize)>,
}

impl<'c, 'p> AllNamed<'c, 'p> {
    fn of(cells: &'c [Cell<'p>]) -> Self {
        let cells: Vec<_> = cells.iter().map(Named::of).collect();
        let names = |(number, one): (usize, &Named<'c, 'p>)| {
            one.names.iter().map(|name| (name.as_str(), number)).collect::<Vec<_>>()
        };
        let mut by_name: Vec<_> = cells.iter().enumerate().flat_map(names).collect();
        by_name.sort_unstable();
        Self { cells, by_name }
    }

    /// The cells that may lie in what all of these patterns match, in their order.
    fn near(&self, names: &[&TenantPattern]) -> impl Iterator<Item = &Named<'c, 'p>> {
        let prefix = names.iter().map(|name| name.prefix()).max_by_key(|prefix| prefix.len());
        let prefix = prefix.unwrap_or_default();
        let first = self.by_name.partition_point(|(name, _)| *name < prefix);
        let begin = self.by_name.iter().skip(first).take_while(|(name, _)| name.starts_with(prefix));
        let mut numbers: Vec<usize> = begin.map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().filter_map(|number| self.cells.get(number))
    }
}

/// The cells as few names and what is to be left out of each.
fn regions(mine: &[Cell<'_>], cells: &AllNamed<'_, '_>) -> Vec<(Vec<String>, Vec<Vec<String>>)> {
    let named: Vec<Named<'_, '_>> = mine.iter().map(Named::of).collect();
    let own: HashSet<&Cell<'_>> = mine.iter().collect();
    // For each pattern, the others inside; first those that are patterns themselves. Only what lies in a pattern can be
    // left out of one, so written-out tenants need not be held against each other.
    let wide: Vec<Wide<'_, '_, '_>> = named
        .iter()
        .enumerate()
        .filter(|(_, one)| one.wild)
        .map(|(at, one)| {
            let is_inside =
                |other: &&Named<'_, '_>| covers(&one.names, &other.names) && !own.contains(other.cell);
            let mut inside: Vec<_> = cells.near(&one.names).filter(is_inside).collect();
            inside.sort_by_key(|other| !other.wild);
            (at, one, inside)
        })
        .collect();
    // Part of a wider set, and not of what the line of that set leaves out.
    let is_inside = |wider: &Wide<'_, '_, '_>, at: usize, narrow: &Named<'_, '_>| {
        let (number, wide, left_out) = wider;
        let between = || {
            let mut patterns = left_out.iter().take_while(|third| third.wild);
            patterns.any(|third| covers(&third.names, &narrow.names))
        };
        *number != at && covers(&wide.names, &narrow.names) && !between()
    };
    let lines = lines_of(&wide, |wider, (at, narrow, _)| is_inside(wider, *at, narrow));
    let mut regions = Vec::new();
    for (at, narrow) in named.iter().enumerate() {
        let is_line = lines.iter().any(|(number, ..)| *number == at);
        if !is_line && lines.iter().any(|line| is_inside(line, at, narrow)) {
            continue;
        }
        let left_out = wide.iter().find(|(wider, ..)| *wider == at).map_or(&[][..], |(_, _, inside)| inside);
        let is_widest = |one: &&&Named<'_, '_>| {
            let mut wider = left_out.iter().take_while(|other| other.wild);
            !wider.any(|other| other.names != one.names && covers(&other.names, &one.names))
        };
        let except = left_out.iter().filter(is_widest).map(|one| texts(&one.names)).collect();
        regions.push((texts(&narrow.names), except));
    }
    regions
}

/// A set that is no written-out tenant: its number, its names, and the others inside, first those that are patterns.
type Wide<'n, 'c, 'p> = (usize, &'n Named<'c, 'p>, Vec<&'n Named<'c, 'p>>);

/// Which of the sets become lines: those that are no part of a line already, the widest first. Being part of a set that
/// is itself only part of a line says nothing, since that line may leave this one out.
fn lines_of<'w, 'n, 'c, 'p>(
    wide: &'w [Wide<'n, 'c, 'p>],
    is_inside: impl Fn(&Wide<'n, 'c, 'p>, &Wide<'n, 'c, 'p>) -> bool,
) -> Vec<&'w Wide<'n, 'c, 'p>> {
    let is_wider = |(a, wide, _): &Wide<'_, '_, '_>, (b, narrow, _): &Wide<'_, '_, '_>| {
        // Of two that are the same the first counts as the wider one.
        a != b && covers(&wide.names, &narrow.names) && !(covers(&narrow.names, &wide.names) && a > b)
    };
    let mut lines: Vec<&Wide<'_, '_, '_>> = Vec::new();
    let mut rest: Vec<&Wide<'_, '_, '_>> = wide.iter().collect();
    while !rest.is_empty() {
        let (mut widest, mut later): (Vec<_>, Vec<_>) =
            rest.iter().copied().partition(|one| !rest.iter().any(|other| is_wider(other, one)));
        if widest.is_empty() {
            // Not in an order; and if it were so, each would be a line of its own.
            std::mem::swap(&mut widest, &mut later);
        }
        for one in widest {
            if !lines.iter().any(|line| is_inside(line, one)) {
                lines.push(one);
            }
        }
        rest = later;
    }
    lines
}

/// Whether every tenant that all of `narrow` match is matched by all of `wide`.
fn covers(wide: &[&TenantPattern], narrow: &[&TenantPattern]) -> bool {
    wide.iter().all(|wide| narrow.iter().any(|narrow| wide.covers(narrow)))
}

fn texts(names: &[&TenantPattern]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
