//! Lists of patterns as rules and bounds write them, matched without looking at each pattern.

use super::{PatternMap, TenantPattern};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher as _;
use std::ops::Deref;

/// Up to this many patterns are compared one by one, which is quicker than any search.
const FEW: usize = 8;

/// Patterns of which any may match: sorted, without duplicates.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Box<[TenantPattern]>,
    /// Of a set with more than [`FEW`] patterns.
    lookup: Option<Box<Lookup>>,
}

#[derive(Clone, Debug, Default)]
struct Lookup {
    /// Positions of patterns without a `*`, by their hash.
    names: HashTable<u32>,
    hasher: DefaultHashBuilder,
    wild: PatternMap<()>,
}

impl PatternSet {
    /// The set of these patterns.
    pub fn new(patterns: impl IntoIterator<Item = TenantPattern>) -> Self {
        let mut patterns: Vec<TenantPattern> = patterns.into_iter().collect();
        patterns.sort_unstable();
        patterns.dedup();
        let lookup = (patterns.len() > FEW).then(|| Box::new(Lookup::of(&patterns)));
        Self { patterns: patterns.into(), lookup }
    }

    /// Whether any pattern matches the tenant. How many there are makes no difference, but for those with something
    /// between two `*`, which are compared one by one.
    pub fn matches(&self, tenant: &str) -> bool {
        match &self.lookup {
            None => self.patterns.iter().any(|pattern| pattern.matches(tenant)),
            Some(lookup) => lookup.finds(&self.patterns, tenant),
        }
    }

    /// Whether one of the patterns covers `other` ([`TenantPattern::covers`]).
    pub fn covers(&self, other: &TenantPattern) -> bool {
        self.matches(other.as_str())
    }

    /// The most steps that matching a tenant takes, with the beginning of the tenants that take them
    /// ([`PatternMap::most_steps`]).
    pub(crate) fn most_steps(&self) -> (usize, &str) {
        self.lookup.as_ref().map_or((self.patterns.len(), ""), |lookup| lookup.wild.most_steps())
    }
}

impl Lookup {
    fn of(patterns: &[TenantPattern]) -> Self {
        let mut lookup = Self::default();
        // Of patterns that end in their only `*`, those that another one covers come right behind it.
        let mut wide: Vec<&TenantPattern> = Vec::new();
        let mut trailing: Vec<&TenantPattern> =
            patterns.iter().filter(|pattern| pattern.trailing().is_some()).collect();
        trailing.sort_unstable_by_key(|pattern| pattern.prefix());
        for pattern in trailing {
            if wide.last().is_none_or(|before| !before.matches(pattern.prefix())) {
                wide.push(pattern);
            }
        }
        let of_all = PatternMap::build(wide.iter().map(|pattern| (*pattern, ())));
        let is_covered = |pattern: &TenantPattern| of_all.any_match(pattern.as_str(), &mut |()| true);
        let (hasher, names) = (&lookup.hasher, &mut lookup.names);
        for (position, pattern) in (0..).zip(patterns) {
            if let Some(name) = pattern.literal() {
                names.insert_unique(hasher.hash_one(name), position, |other| {
                    hasher.hash_one(text_at(patterns, *other))
                });
            }
        }
        let others = patterns.iter().filter(|pattern| pattern.trailing().is_none() && !is_covered(pattern));
        lookup.wild = PatternMap::build(wide.iter().copied().chain(others).map(|pattern| (pattern, ())));
        lookup
    }

    #[cold]
    fn finds(&self, patterns: &[TenantPattern], tenant: &str) -> bool {
        let is_it = |position: &u32| text_at(patterns, *position) == tenant;
        self.names.find(self.hasher.hash_one(tenant), is_it).is_some()
            || self.wild.any_match(tenant, &mut |()| true)
    }
}

fn text_at(patterns: &[TenantPattern], position: u32) -> &str {
    let pattern = usize::try_from(position).ok().and_then(|at| patterns.get(at));
    pattern.map_or("", TenantPattern::as_str)
}

impl Deref for PatternSet {
    type Target = [TenantPattern];

    fn deref(&self) -> &Self::Target {
        &self.patterns
    }
}

impl<'s> IntoIterator for &'s PatternSet {
    type Item = &'s TenantPattern;
    type IntoIter = std::slice::Iter<'s, TenantPattern>;

    fn into_iter(self) -> Self::IntoIter {
        self.patterns.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn matches_what_any_of_its_patterns_matches(
            patterns in proptest::collection::vec("[ab]{0,4}\\*?[ab]{0,3}\\*?[ab]{0,2}", 0..40),
            tenants in proptest::collection::vec("[ab*]{1,8}", 1..20),
        ) {
            let patterns: Vec<TenantPattern> =
                patterns.iter().filter_map(|text| TenantPattern::parse(text).ok()).collect();
            let set = PatternSet::new(patterns.clone());
            for tenant in &tenants {
                let any = patterns.iter().any(|pattern| pattern.matches(tenant));
                prop_assert_eq!(set.matches(tenant), any, "{} of {:?}", tenant, patterns);
            }
        }
    }

    #[test]
    fn a_large_set_is_searched_and_not_walked() {
        let names = (0..50_000).map(|n| format!("team-a-{n}{}", if n % 2 == 0 { "-*" } else { "" }));
        let set = PatternSet::new(names.filter_map(|name| TenantPattern::parse(&name).ok()));
        assert_eq!(set.len(), 50_000);
        // 50 000 comparisons each would take minutes in this build.
        for _ in 0..20_000 {
            assert!(
                set.matches("team-a-49998-x")
                    && set.matches("team-a-49999")
                    && !set.matches("team-a-49999-x")
            );
        }
    }
}
