//! The tenants of the world, cut into the sets that the patterns of a policy cannot tell apart.
//!
//! A tenant that a policy writes out is a set of its own. All others differ by which patterns match them; which
//! combinations there are is found by reading, letter by letter, whatever any of the patterns can tell apart.

use crate::tenant::TenantPattern;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt;

/// Letters that patterns read before they are given up as too entangled; about a second's work.
const MAX_STEPS: usize = 4_000_000;

/// The patterns overlap in so many ways that their combinations cannot be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entangled;

impl fmt::Display for Entangled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the patterns of tenants overlap in too many ways to be compared")
    }
}

/// A set of tenants that the same patterns match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell<'p> {
    /// Sorted. A written-out tenant is among them where the cell is that tenant alone.
    matched: Vec<&'p TenantPattern>,
}

impl<'p> Cell<'p> {
    /// Every pattern that matches its tenants.
    pub fn patterns(&self) -> impl Iterator<Item = &'p TenantPattern> {
        self.matched.iter().copied()
    }

    /// Whether a pattern of the universe matches its tenants.
    pub fn is_in(&self, pattern: &TenantPattern) -> bool {
        self.matched.binary_search(&pattern).is_ok()
    }

    /// What people call it: the patterns that say most about it. Several mean what they have in common.
    pub fn names(&self) -> Vec<&'p TenantPattern> {
        if let Some(literal) = self.matched.iter().find(|pattern| pattern.literal().is_some()) {
            return vec![literal];
        }
        let says_less =
            |wide: &TenantPattern| self.matched.iter().any(|other| *other != wide && wide.covers(other));
        self.matched.iter().copied().filter(|pattern| !says_less(pattern)).collect()
    }
}

/// Every pattern that counts.
#[derive(Debug)]
pub struct Universe<'p> {
    literals: BTreeSet<&'p TenantPattern>,
    wild: Vec<&'p TenantPattern>,
}

impl<'p> Universe<'p> {
    /// A universe of these patterns.
    pub fn of(patterns: impl Iterator<Item = &'p TenantPattern>) -> Self {
        let (literals, wild): (BTreeSet<_>, BTreeSet<_>) =
            patterns.partition(|pattern| pattern.literal().is_some());
        Self { literals, wild: wild.into_iter().collect() }
    }

    /// The cells that lie in any of the targets, which are patterns of this universe.
    ///
    /// # Errors
    /// [`Entangled`], where there are too many.
    pub fn cells(
        &self,
        targets: impl Iterator<Item = &'p TenantPattern>,
    ) -> Result<Vec<Cell<'p>>, Entangled> {
        let (literals, wild): (BTreeSet<_>, BTreeSet<_>) =
            targets.partition(|target| target.literal().is_some());
        let mut cells = BTreeSet::new();
        let mut steps = 0;
        for target in &wild {
            let prefix = target.prefix();
            let near = self
                .literals
                .iter()
                .filter(|literal| literal.as_str().starts_with(prefix) && target.matches(literal.as_str()));
            cells.extend(near.map(|literal| self.cell_of(literal)));
            let others = self.wild.iter().copied().filter(|other| other.overlaps(target));
            combinations(&others.collect::<Vec<_>>(), target, &mut steps, &mut cells)?;
        }
        cells.extend(literals.iter().map(|literal| self.cell_of(literal)));
        Ok(cells.into_iter().collect())
    }

    fn cell_of(&self, literal: &'p TenantPattern) -> Cell<'p> {
        let around = self.wild.iter().copied().filter(|pattern| pattern.matches(literal.as_str()));
        let mut matched: Vec<_> = around.chain([literal]).collect();
        matched.sort_unstable();
        Cell { matched }
    }
}

/// How far the reading of one pattern has come: bits of the positions in it at which it may be.
type Positions = [u64; 3];

fn has(set: &Positions, position: usize) -> bool {
    set.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
}

/// Adds a position, and the one behind it where a star stands there.
fn add(set: &mut Positions, position: usize, pattern: &[u8]) {
    let mut position = position;
    loop {
        if let Some(word) = set.get_mut(position / 64) {
            *word |= 1 << (position % 64);
        }
        if pattern.get(position) != Some(&b'*') {
            return;
        }
        position += 1;
    }
}

fn step(set: &Positions, byte: u8, pattern: &[u8]) -> Positions {
    let mut next = Positions::default();
    let mut last_star = None;
    for position in positions(set) {
        match pattern.get(position) {
            Some(b'*') => add(&mut next, position, pattern),
            Some(at) if *at == byte => add(&mut next, position + 1, pattern),
            _ => {}
        }
    }
    for position in positions(&next) {
        if pattern.get(position) == Some(&b'*') {
            last_star = Some(position);
        }
    }
    // From the last star that was reached everything can be read that can be read from before it.
    if let Some(star) = last_star {
        for (number, word) in next.iter_mut().enumerate() {
            let below = star.saturating_sub(number * 64).min(64);
            *word &= u64::MAX.checked_shl(u32::try_from(below).unwrap_or(64)).unwrap_or(0);
        }
    }
    next
}

/// The positions in a set, ascending.
fn positions(set: &Positions) -> impl Iterator<Item = usize> + '_ {
    (0..).step_by(64).zip(set).flat_map(|(base, word)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let lowest = usize::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)?;
            rest &= rest - 1;
            Some(base + lowest)
        })
    })
}

/// Adds every combination of `patterns` that some tenant inside `target` has.
fn combinations<'p>(
    patterns: &[&'p TenantPattern],
    target: &'p TenantPattern,
    steps: &mut usize,
    cells: &mut BTreeSet<Cell<'p>>,
) -> Result<(), Entangled> {
    // The patterns that can still match what was read, and how far each has come.
    type State = Vec<(usize, Positions)>;
    let bytes: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_str().as_bytes()).collect();
    let Some(own) = patterns.iter().position(|pattern| *pattern == target) else { return Ok(()) };
    let start: State = bytes
        .iter()
        .enumerate()
        .map(|(number, pattern)| {
            let mut at = Positions::default();
            add(&mut at, 0, pattern);
            (number, at)
        })
        .collect();
    // Not the start: the empty tenant is none, and what `*` has read afterwards looks the same.
    let mut seen: HashSet<State> = HashSet::new();
    let mut todo = VecDeque::from([start]);
    let mut first = true;
    while let Some(state) = todo.pop_front() {
        let matched: Vec<_> = state
            .iter()
            .filter_map(|(number, at)| {
                let pattern = patterns.get(*number)?;
                has(at, pattern.as_str().len()).then_some(*pattern)
            })
            .collect();
        if !first && matched.contains(&target) {
            let mut matched = matched;
            matched.sort_unstable();
            cells.insert(Cell { matched });
        }
        first = false;
        for byte in told_apart(&state, &bytes) {
            *steps += state.len();
            if *steps > MAX_STEPS {
                return Err(Entangled);
            }
            let next: State = state
                .iter()
                .filter_map(|(number, at)| {
                    let next = step(at, byte, bytes.get(*number)?);
                    (next != Positions::default()).then_some((*number, next))
                })
                .collect();
            if next.iter().any(|(number, _)| *number == own) && seen.insert(next.clone()) {
                todo.push_back(next);
            }
        }
    }
    Ok(())
}

/// The bytes that some pattern waits for, and one that none does.
fn told_apart(state: &[(usize, Positions)], bytes: &[&[u8]]) -> Vec<u8> {
    let mut wanted = BTreeSet::new();
    for (number, at) in state {
        let pattern = bytes.get(*number).copied().unwrap_or_default();
        let waiting = positions(at).filter_map(|position| pattern.get(position));
        wanted.extend(waiting.filter(|byte| **byte != b'*'));
    }
    let other = (b'!'..=b'z')
        .find(|byte| !wanted.contains(byte) && *byte != b'*' && crate::tenant::is_tenant(&[b'a', *byte]));
    wanted.into_iter().chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(patterns: &[&str], target: &str) -> Vec<String> {
        let patterns: Vec<_> = patterns.iter().map(|text| TenantPattern::parse(text).unwrap()).collect();
        let target = patterns.iter().find(|pattern| pattern.as_str() == target).unwrap();
        let cells = Universe::of(patterns.iter()).cells([target].into_iter()).unwrap();
        let name =
            |cell: &Cell<'_>| cell.names().iter().map(ToString::to_string).collect::<Vec<_>>().join(" & ");
        cells.iter().map(name).collect()
    }

    #[test]
    fn tenants_are_cut_where_patterns_differ() {
        assert_eq!(names(&["t", "u", "v*"], "t"), ["t"]);
        assert_eq!(names(&["team-*", "team-a", "x"], "team-*"), ["team-*", "team-a"]);
        assert_eq!(names(&["*", "team-*"], "*"), ["*", "team-*"]);
        assert_eq!(names(&["*", "team-*"], "team-*"), ["team-*"]);
        let mut both = names(&["team-*", "*-prod"], "team-*");
        both.sort_unstable();
        assert_eq!(both, ["*-prod & team-*", "team-*"]);
        assert_eq!(names(&["ab*ba", "aba"], "ab*ba"), ["ab*ba"]);
    }

    #[test]
    fn many_patterns_are_quick_and_hopeless_ones_an_error() {
        let many: Vec<_> = (0..200)
            .map(|number| TenantPattern::parse(&format!("team-{number}-*")).unwrap())
            .chain([TenantPattern::everything()])
            .collect();
        let cells = Universe::of(many.iter()).cells(many.iter()).unwrap();
        assert_eq!(cells.len(), 201);
        let hopeless: Vec<_> = (0..40)
            .map(|number| TenantPattern::parse(&format!("*x{number}y*z{number}w*")).unwrap())
            .collect();
        assert_eq!(Universe::of(hopeless.iter()).cells(hopeless.iter()), Err(Entangled));
    }

    proptest! {
        /// Every short tenant lies in exactly the cell of the patterns that match it, and every cell can be lived in, were no tenant written out.
        #[test]
        fn cells_are_what_tenants_show(
            texts in prop::collection::vec("[ab*]{1,4}", 1..6),
            target in any::<prop::sample::Index>(),
        ) {
            let patterns: Vec<_> =
                texts.iter().filter_map(|text| TenantPattern::parse(text).ok()).collect();
            let target = target.get(&patterns);
            let universe = Universe::of(patterns.iter());
            let found: HashSet<Vec<String>> = universe
                .cells([target].into_iter())
                .unwrap()
                .iter()
                .map(|cell| cell.patterns().map(ToString::to_string).collect())
                .collect();
            let mut shown = HashSet::new();
            for length in 1..=8u32 {
                for code in 0..3u32.pow(length) {
                    let tenant: String =
                        (0..length).map(|at| ['a', 'b', 'c'][(code / 3u32.pow(at) % 3) as usize]).collect();
                    if !target.matches(&tenant) {
                        continue;
                    }
                    let literal = |pattern: &TenantPattern| pattern.literal() == Some(&*tenant);
                    let mut matched: Vec<_> =
                        patterns.iter().filter(|pattern| pattern.matches(&tenant)).collect();
                    matched.sort_unstable();
                    matched.dedup();
                    let key: Vec<String> = matched.iter().map(ToString::to_string).collect();
                    prop_assert!(found.contains(&key), "{tenant} {key:?} {found:?}");
                    prop_assert!(!matched.iter().any(|pattern| pattern.literal().is_some()) || matched.iter().any(|pattern| literal(pattern)));
                    // A cell beside a written-out tenant may hold that tenant alone: it is listed, and nothing is lost.
                    let wild = matched.iter().filter(|pattern| pattern.literal().is_none());
                    shown.insert(wild.map(ToString::to_string).collect());
                    shown.insert(key);
                }
            }
            for cell in &found {
                prop_assert!(shown.contains(cell), "no tenant lives in {cell:?}");
            }
        }
    }
}
