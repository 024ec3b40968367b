//! Lists of patterns as rules and bounds write them, matched without looking at each pattern.

use super::TenantPattern;
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
    /// Positions of patterns that end in their only `*`, but for those that another one covers: of these at most one
    /// begins any tenant, the last one that does not come after it.
    trailing: Box<[u32]>,
    /// Positions of patterns with a `*` elsewhere.
    inner: Box<[u32]>,
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

    /// Whether any pattern matches the tenant. A set of n patterns takes O(log n) comparisons, and one for each pattern
    /// with a `*` before its end.
    pub fn matches(&self, tenant: &str) -> bool {
        match &self.lookup {
            None => self.patterns.iter().any(|pattern| pattern.matches(tenant)),
            Some(lookup) => self.finds(lookup, tenant),
        }
    }

    /// Whether one of the patterns covers `other` ([`TenantPattern::covers`]).
    pub fn covers(&self, other: &TenantPattern) -> bool {
        self.matches(other.as_str())
    }

    #[cold]
    fn finds(&self, lookup: &Lookup, tenant: &str) -> bool {
        let at = |position: &u32| usize::try_from(*position).ok().and_then(|at| self.patterns.get(at));
        let head = |position: &u32| at(position).and_then(TenantPattern::trailing).unwrap_or_default();
        if self.patterns.binary_search_by(|pattern| pattern.as_str().cmp(tenant)).is_ok() {
            return true;
        }
        let after = lookup.trailing.partition_point(|position| head(position) <= tenant);
        let last = after.checked_sub(1).and_then(|last| lookup.trailing.get(last));
        last.is_some_and(|position| tenant.starts_with(head(position)))
            || lookup.inner.iter().filter_map(at).any(|pattern| pattern.matches(tenant))
    }
}

impl Lookup {
    fn of(patterns: &[TenantPattern]) -> Self {
        let mut trailing: Vec<(&str, u32)> = Vec::new();
        let mut inner = Vec::new();
        for (position, pattern) in (0..).zip(patterns) {
            match pattern.trailing() {
                Some(head) => trailing.push((head, position)),
                None if pattern.literal().is_none() => inner.push(position),
                None => {}
            }
        }
        trailing.sort_unstable();
        // What begins with the head before it that was kept comes right behind it.
        let mut kept: Vec<(&str, u32)> = Vec::new();
        for (head, position) in trailing {
            if kept.last().is_none_or(|(before, _)| !head.starts_with(before)) {
                kept.push((head, position));
            }
        }
        Self { trailing: kept.into_iter().map(|(_, position)| position).collect(), inner: inner.into() }
    }
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
            patterns in proptest::collection::vec("[ab]{0,3}\\*?[ab]{0,2}\\*?", 0..30),
            tenants in proptest::collection::vec("[ab*]{1,6}", 1..20),
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
