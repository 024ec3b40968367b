//! Patterns with a `*`, each with a value: those that match a tenant are found without looking at the others.

use super::TenantPattern;
use super::affixes::{Affixes, Back, Front, Node};

/// The most patterns at which [`PatternMap::meets`] looks one by one.
const MOST_LOOKED_AT: usize = 512;

/// Values by patterns with a `*`, filed under what stands before the first `*`, and then under what stands behind the
/// last one. Only patterns with something between two `*` are compared one by one.
#[derive(Clone, Debug)]
pub(crate) struct PatternMap<V> {
    heads: Affixes<Front, AtHead<V>>,
}

/// The patterns of one beginning.
#[derive(Clone, Debug)]
struct AtHead<V> {
    /// Of the pattern that ends in its only `*`.
    trailing: Option<V>,
    /// Of the others, which are rare.
    further: Option<Box<Further<V>>>,
}

#[derive(Clone, Debug)]
struct Further<V> {
    /// Of each pattern with one `*`, by what stands behind it.
    tails: Affixes<Back, V>,
    /// Of each with several.
    loose: Box<[(TenantPattern, V)]>,
}

impl<V> Default for PatternMap<V> {
    fn default() -> Self {
        Self { heads: Affixes::default() }
    }
}

impl<V> PatternMap<V> {
    /// `values`: of distinct patterns; what is said of one without a `*` is left out.
    pub(crate) fn build<'p>(values: impl IntoIterator<Item = (&'p TenantPattern, V)>) -> Self {
        let values = values.into_iter().filter(|(pattern, _)| pattern.literal().is_none());
        let mut values: Vec<(&str, &TenantPattern, Option<V>)> =
            values.map(|(pattern, value)| (pattern.prefix(), pattern, Some(value))).collect();
        values.sort_unstable_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
        let of_head = |of_head: &mut [(&'p str, &'p TenantPattern, Option<V>)]| {
            let mut at = AtHead { trailing: None, further: None };
            let (mut tails, mut loose) = (Vec::new(), Vec::new());
            for (_, pattern, value) in &mut *of_head {
                let Some(value) = value.take() else { continue };
                match pattern.only_star() {
                    Some((_, "")) => at.trailing = Some(value),
                    Some((_, tail)) => tails.push((tail.as_bytes(), value)),
                    None => loose.push(((*pattern).clone(), value)),
                }
            }
            if !(tails.is_empty() && loose.is_empty()) {
                at.further = Some(Box::new(Further { tails: Affixes::build(tails), loose: loose.into() }));
            }
            (of_head.first().map_or("", |(head, ..)| head).as_bytes(), at)
        };
        let heads = values.chunk_by_mut(|one, other| one.0 == other.0).map(of_head).collect();
        Self { heads: Affixes::build(heads) }
    }

    /// Whether `test` says yes to the value of any pattern that matches the tenant. It is asked until it does.
    pub(crate) fn any_match(&self, tenant: &str, test: &mut impl FnMut(&V) -> bool) -> bool {
        self.heads.at_end_of(tenant.as_bytes()).any(|node| {
            node.value.trailing.as_ref().is_some_and(&mut *test)
                || node.value.further.as_ref().is_some_and(|further| further.any_match(node, tenant, test))
        })
    }

    /// Whether any pattern matches a tenant that `other` matches too. Never a wrong no; where more patterns with a `*`
    /// before their end begin like it than can be looked at, yes.
    pub(crate) fn meets(&self, other: &TenantPattern) -> bool {
        if let Some(tenant) = other.literal() {
            return self.any_match(tenant, &mut |_| true);
        }
        // Of two beginnings, one of which begins the other, the longer one serves both patterns; so it is with ends, and
        // in between there is room for the rest of both.
        let tail = other.suffix().as_bytes();
        let head = other.prefix().as_bytes();
        let mut left = MOST_LOOKED_AT;
        self.heads.ending_in(head).iter().chain(self.heads.at_end_of(head)).any(|node| {
            let Some(further) = &node.value.further else { return true };
            left = left.saturating_sub(1 + further.loose.len());
            left == 0
                || tail.is_empty()
                || node.value.trailing.is_some()
                || further.tails.meets(tail)
                || further.loose.iter().any(|(pattern, _)| {
                    let own = pattern.suffix().as_bytes();
                    own.ends_with(tail) || tail.ends_with(own)
                })
        })
    }

    /// How many patterns are compared one by one.
    pub(crate) fn loose(&self) -> usize {
        let further = self.heads.iter().filter_map(|node| node.value.further.as_ref());
        further.map(|further| further.loose.len()).sum()
    }

    /// The most steps that looking up a tenant takes, each a beginning, an end, or a look-up among their lengths; patterns
    /// that are compared one by one are not counted. Returns them with the beginning of the tenants that take them.
    pub(crate) fn most_steps(&self) -> (usize, &str) {
        let (steps, head) = self
            .heads
            .most_steps(|at| 1 + at.further.as_ref().map_or(0, |further| further.tails.most_steps(|_| 1).0));
        (steps, std::str::from_utf8(head).unwrap_or_default())
    }
}

impl<V> Further<V> {
    /// `node`: where it stands.
    #[cold]
    fn any_match(&self, node: &Node<AtHead<V>>, tenant: &str, test: &mut impl FnMut(&V) -> bool) -> bool {
        // The beginning and the end may not overlap.
        let rest = tenant.as_bytes().get(node.text.len()..).unwrap_or_default();
        self.tails.at_end_of(rest).any(|tail| test(&tail.value))
            || self.loose.iter().any(|(pattern, value)| pattern.matches(tenant) && test(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn parsed(texts: &[String]) -> BTreeSet<TenantPattern> {
        texts.iter().filter_map(|text| TenantPattern::parse(text).ok()).collect()
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            patterns in proptest::collection::vec("[ab]{0,4}\\*?[ab]{0,4}\\*?[ab]{0,2}", 0..60),
            tenants in proptest::collection::vec("[ab*]{1,9}", 1..20),
        ) {
            let patterns = parsed(&patterns);
            let wild: BTreeSet<_> = patterns.iter().filter(|pattern| pattern.literal().is_none()).collect();
            let map = PatternMap::build(patterns.iter().map(|pattern| (pattern, pattern)));
            prop_assert_eq!(map.loose(), wild.iter().filter(|pattern| pattern.only_star().is_none()).count());
            for tenant in &tenants {
                let mut found = Vec::new();
                let any = map.any_match(tenant, &mut |pattern| {
                    found.push(*pattern);
                    false
                });
                prop_assert!(!any);
                let once: BTreeSet<_> = found.iter().copied().collect();
                prop_assert_eq!(once.len(), found.len());
                let matching: BTreeSet<_> =
                    wild.iter().copied().filter(|pattern| pattern.matches(tenant)).collect();
                prop_assert_eq!(map.any_match(tenant, &mut |_| true), !matching.is_empty());
                prop_assert_eq!(once, matching, "{}", tenant);
                if let Ok(asked) = TenantPattern::parse(tenant) {
                    let any = wild.iter().any(|pattern| pattern.overlaps(&asked));
                    prop_assert_eq!(map.meets(&asked), any, "{} {:?}", asked, wild);
                }
            }
        }

        /// No tenant takes more steps than are counted.
        #[test]
        fn no_tenant_takes_more_steps(
            patterns in proptest::collection::vec("[ab]{0,4}\\*[ab]{0,4}", 0..40), tenant in "[ab]{1,9}",
        ) {
            let patterns = parsed(&patterns);
            let map = PatternMap::build(patterns.iter().map(|pattern| (pattern, ())));
            let mut found = 0;
            map.any_match(&tenant, &mut |()| {
                found += 1;
                false
            });
            prop_assert!(found <= map.most_steps().0);
        }
    }

    #[test]
    fn patterns_that_share_their_ends_are_searched_and_not_walked() {
        let shapes: [fn(usize) -> String; 4] = [
            |n| format!("team-a-*-{n}"),
            |n| format!("team-{n}-*-prod"),
            |n| format!("*-{n}-logs"),
            |n| format!("t-{n}-*"),
        ];
        for shape in shapes {
            let all: Vec<_> = (0..20_000).filter_map(|n| TenantPattern::parse(&shape(n)).ok()).collect();
            let map = PatternMap::build(all.iter().map(|pattern| (pattern, ())));
            assert_eq!((map.loose(), map.most_steps().0 <= 8), (0, true), "{:?}", map.most_steps());
            // 20 000 comparisons each would take minutes in this build.
            for n in 0..20_000 {
                let tenant = shape(n).replace('*', "x");
                assert!(map.any_match(&tenant, &mut |()| true), "{tenant}");
                assert!(!map.any_match(&format!("{tenant}!").replacen('t', "u", 1), &mut |()| true));
            }
        }
    }

    /// It is asked again and again about documents that are only bounded in their length.
    #[test]
    fn whether_patterns_meet_takes_a_bounded_look() {
        let all: Vec<_> =
            (0..20_000).filter_map(|n| TenantPattern::parse(&format!("team-{n}-*-x")).ok()).collect();
        let map = PatternMap::build(all.iter().map(|pattern| (pattern, ())));
        let meets = |text: &str| map.meets(&TenantPattern::parse(text).unwrap());
        assert!(meets("team-7-*-x") && meets("team-7-*") && meets("team-7-y*x"));
        assert!(!meets("team-7-*-y"));
        for _ in 0..20_000 {
            assert!(meets("team-*-z"), "more than can be looked at");
        }
    }
}
