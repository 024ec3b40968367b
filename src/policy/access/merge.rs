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
    let mut lines = Vec::new();
    for ((what, _), (units, mine)) in by_units {
        for (tenants, except) in regions(&mine, cells) {
            lines.push(Merged { what: what.clone(), tenants, except, units: units.clone() });
        }
    }
    lines
}

/// The cells as few names and what is to be left out of each.
fn regions(mine: &[Cell<'_>], cells: &[Cell<'_>]) -> Vec<(Vec<String>, Vec<String>)> {
    let names: Vec<Vec<&TenantPattern>> = mine.iter().map(Cell::names).collect();
    let wild: Vec<usize> = (0..mine.len())
        .filter(|at| names.get(*at).is_some_and(|names| names.iter().all(|name| name.literal().is_none())))
        .collect();
    let own: HashSet<&Cell<'_>> = mine.iter().collect();
    // Only what lies in a pattern can be left out of one, so written-out tenants need not be held against each other.
    let others: Vec<Vec<&TenantPattern>> = if wild.is_empty() {
        Vec::new()
    } else {
        cells.iter().filter(|cell| !own.contains(cell)).map(Cell::names).collect()
    };
    // Part of a wider set, and not of what the line of that set leaves out.
    let is_inside = |wider: usize, at: usize| {
        let (Some(wide), Some(narrow)) = (names.get(wider), names.get(at)) else { return false };
        let between = |third: &Vec<&TenantPattern>| covers(wide, third) && covers(third, narrow);
        wider != at && covers(wide, narrow) && !others.iter().any(between)
    };
    let lines = lines_of(&names, wild, is_inside);
    let mut regions = Vec::new();
    for (at, narrow) in names.iter().enumerate() {
        if !lines.contains(&at) && lines.iter().any(|line| is_inside(*line, at)) {
            continue;
        }
        let left_out: Vec<_> = others.iter().filter(|other| covers(narrow, other)).collect();
        let is_widest =
            |one: &&&Vec<&TenantPattern>| !left_out.iter().any(|other| other != *one && covers(other, one));
        let except = left_out.iter().filter(is_widest).map(|names| text(names)).collect();
        regions.push((narrow.iter().map(ToString::to_string).collect(), except));
    }
    regions
}

/// Which of the sets become lines: those that are no part of a line already, the widest first. Being part of a set that
/// is itself only part of a line says nothing, since that line may leave this one out.
fn lines_of(
    names: &[Vec<&TenantPattern>],
    mut rest: Vec<usize>,
    is_inside: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let is_wider = |wide: usize, narrow: usize| {
        let (Some(a), Some(b)) = (names.get(wide), names.get(narrow)) else { return false };
        // Of two that are the same the first counts as the wider one.
        wide != narrow && covers(a, b) && !(covers(b, a) && wide > narrow)
    };
    let mut lines: Vec<usize> = Vec::new();
    while !rest.is_empty() {
        let is_widest = |at: &usize| !rest.iter().any(|other| is_wider(*other, *at));
        let (mut widest, mut later): (Vec<usize>, Vec<usize>) = rest.iter().partition(|at| is_widest(at));
        if widest.is_empty() {
            // Not in an order; and if it were, each would be a line of its own.
            std::mem::swap(&mut widest, &mut later);
        }
        for at in widest {
            if !lines.iter().any(|line| is_inside(*line, at)) {
                lines.push(at);
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

fn text(names: &[&TenantPattern]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" & ")
}
