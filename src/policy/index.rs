//! Which rules may apply to a tenant and a principal's groups, without looking at the others.
//!
//! Exact tenants are found by one hash look-up, patterns by where they begin and end ([`PatternMap`]). So many cost as
//! little as one, but for patterns with something between two `*`, which are compared one by one: an owner's document may
//! hold few of them (`document::limits`). Within what is found, rules are sorted by group, so that a tenant with thousands
//! of rules costs a binary search a group.

use super::groups::GroupId;
use crate::tenant::{PatternMap, TenantPattern};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher as _;

/// One rule for one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    group: GroupId,
    rule: u32,
}

/// Rules by tenants that are written out. A policy may name a hundred thousand of them, so that their names and rules
/// lie in two pieces of memory and not in twice as many as there are tenants.
#[derive(Debug, Default)]
struct Exact {
    /// Positions in `tenants`, by the hash of the name.
    table: HashTable<usize>,
    hasher: DefaultHashBuilder,
    /// Where the name and the rules of each begin.
    tenants: Box<[(usize, usize)]>,
    names: Box<str>,
    entries: Box<[Entry]>,
    /// The rules of those tenants of which [`by_mask`] says so, by position.
    by_mask: HashMap<usize, Box<[Masks]>>,
}

impl Exact {
    /// `rules`: tenants, each with the position of a rule that names it; one whose rules are for no group is known all
    /// the same. `of_rules`: number and groups of each rule.
    fn build(mut rules: Vec<(&str, usize)>, of_rules: &[(u32, &[GroupId])]) -> Self {
        rules.sort_unstable();
        let (mut tenants, mut names, mut entries) = (Vec::new(), String::new(), Vec::new());
        let mut masks_of = HashMap::new();
        for of_tenant in rules.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((tenant, _)) = of_tenant.first() else { continue };
            tenants.push((names.len(), entries.len()));
            names.push_str(tenant);
            let own = of_tenant.iter().filter_map(|(_, position)| of_rules.get(*position));
            let own = own
                .flat_map(|(rule, groups)| groups.iter().map(|group| Entry { group: *group, rule: *rule }));
            let own = sorted(own.collect());
            if let Some(masks) = by_mask(&own) {
                masks_of.insert(tenants.len() - 1, masks);
            }
            entries.extend(own);
        }
        let mut exact = Self {
            by_mask: masks_of,
            table: HashTable::with_capacity(tenants.len()),
            tenants: tenants.into(),
            names: names.into(),
            entries: entries.into(),
            ..Self::default()
        };
        let hasher = exact.hasher.clone();
        let mut table = std::mem::take(&mut exact.table);
        for (position, tenant) in exact.names().enumerate() {
            table.insert_unique(hasher.hash_one(tenant), position, |other| {
                hasher.hash_one(exact.name(*other))
            });
        }
        exact.table = table;
        exact
    }

    /// Name and rules of the tenant at this position.
    fn at(&self, position: usize) -> (&str, &[Entry]) {
        let Some((name, entries)) = self.tenants.get(position) else { return ("", &[]) };
        let end = (self.names.len(), self.entries.len());
        let next = self.tenants.get(position + 1).unwrap_or(&end);
        let entries = self.entries.get(*entries..next.1).unwrap_or_default();
        (self.names.get(*name..next.0).unwrap_or_default(), entries)
    }

    fn name(&self, position: usize) -> &str {
        self.at(position).0
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.tenants.len()).map(|position| self.name(position))
    }

    /// Whether any tenant matches. They are sorted, so that only those are looked at which begin as the pattern does;
    /// where they are more than can be looked at, yes.
    fn any_matches(&self, pattern: &TenantPattern) -> bool {
        let (mut low, mut high) = (0, self.tenants.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.name(middle) < pattern.prefix() { low = middle + 1 } else { high = middle }
        }
        let rest = (low..self.tenants.len()).map(|position| self.name(position));
        let mut found = rest.take_while(|name| name.starts_with(pattern.prefix()));
        found.by_ref().take(MOST_LOOKED_AT).any(|name| pattern.matches(name)) || found.next().is_some()
    }

    fn position(&self, tenant: &str) -> Option<usize> {
        self.table.find(self.hasher.hash_one(tenant), |other| self.name(*other) == tenant).copied()
    }

    fn each_rule(&self, tenant: &str, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        let Some(position) = self.position(tenant) else { return };
        let entries = self.at(position).1;
        if entries.len() > FEW
            && let Some(masks) = self.by_mask.get(&position)
        {
            return each_of_masks(masks, groups, found);
        }
        each_of_groups(entries, groups, found);
    }
}

/// Rules by tenant and group.
#[derive(Debug, Default)]
pub(crate) struct TenantIndex {
    exact: Exact,
    wild: PatternMap<Naming>,
    /// Further rules, for as long as an owner's tests run.
    further: Option<Box<TenantIndex>>,
}

impl TenantIndex {
    /// Builds the index.
    ///
    /// `first`: the number of the first rule. `rules`: each rule's tenants and groups; numbers follow their order.
    pub(super) fn build<'r>(
        first: usize,
        rules: impl Iterator<Item = (&'r [TenantPattern], &'r [GroupId])>,
    ) -> Self {
        let (mut exact, mut of_rules) = (Vec::new(), Vec::new());
        let mut patterns: HashMap<&TenantPattern, Vec<Entry>> = HashMap::new();
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        for (rule, (tenants, groups)) in (first..).zip(rules) {
            for tenant in tenants {
                match tenant.literal() {
                    Some(name) => exact.push((name, of_rules.len())),
                    None => {
                        let entries = groups.iter().map(|group| Entry { group: *group, rule });
                        patterns.entry(tenant).or_default().extend(entries);
                    }
                }
            }
            of_rules.push((rule, groups));
        }
        let patterns = patterns.into_iter().map(|(pattern, entries)| (pattern, Naming::of(entries)));
        Self { exact: Exact::build(exact, &of_rules), wild: PatternMap::build(patterns), further: None }
    }

    /// Adds rules behind those that are indexed, or takes them away again: what is there is not indexed anew.
    pub(super) fn set_further(&mut self, further: Option<Self>) {
        self.further = further.map(Box::new);
    }

    /// Calls `found` with the number of every rule that names this tenant and one of these groups.
    /// A rule that does so in several ways is named several times.
    ///
    /// `groups`: sorted, without duplicates.
    pub(crate) fn each_rule(&self, tenant: &str, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        self.exact.each_rule(tenant, groups, found);
        self.wild.any_match(tenant, &mut |naming| {
            naming.each_rule(groups, found);
            false
        });
        if let Some(further) = &self.further {
            further.each_rule(tenant, groups, found);
        }
    }

    /// How many patterns are compared with every tenant that begins like them, since they have something between two `*`.
    pub(super) fn loose_patterns(&self) -> usize {
        self.wild.loose() + self.further.as_ref().map_or(0, |further| further.loose_patterns())
    }

    /// Whether any rule names a tenant that matches `pattern`. Never a wrong no; where more tenants begin like a pattern
    /// with a `*` before its end than can be looked at, yes.
    pub(super) fn names_any_tenant_of(&self, pattern: &TenantPattern) -> bool {
        let exact = match pattern.literal() {
            Some(tenant) => self.exact.position(tenant).is_some(),
            None => self.exact.any_matches(pattern),
        };
        exact || self.wild.meets(pattern)
    }
}

/// The most tenants at which [`Exact::any_matches`] looks one by one.
const MOST_LOOKED_AT: usize = 512;

/// The rules that name one pattern.
#[derive(Debug)]
enum Naming {
    ByGroup(Box<[Entry]>),
    ByMask(Box<[Masks]>),
}

impl Naming {
    fn of(entries: Vec<Entry>) -> Self {
        let entries = sorted(entries);
        by_mask(&entries).map_or(Self::ByGroup(entries), Self::ByMask)
    }

    fn each_rule(&self, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        match self {
            Self::ByGroup(entries) => each_of_groups(entries, groups, found),
            Self::ByMask(masks) => each_of_masks(masks, groups, found),
        }
    }
}

/// Up to 64 rules that are for many groups each: looked for by group, each would be found again and again.
#[derive(Debug)]
struct Masks {
    /// In their order.
    rules: Box<[u32]>,
    /// Sorted.
    groups: Box<[GroupId]>,
    /// Which of the rules are for each group, by bits.
    masks: Box<[u64]>,
}

impl Masks {
    /// `entries`: of at most 64 rules, sorted by them.
    fn of(entries: &[(u32, GroupId)]) -> Self {
        let of_rules = entries.chunk_by(|one, other| one.0 == other.0);
        let rules = of_rules.filter_map(|of_rule| of_rule.first()).map(|(rule, _)| *rule).collect();
        let mut bit = 0_u64;
        let mut before = None;
        let mut by_group: Vec<(GroupId, u64)> = Vec::with_capacity(entries.len());
        for (rule, group) in entries {
            if before != Some(rule) {
                bit = if before.is_none() { 1 } else { bit << 1 };
                before = Some(rule);
            }
            by_group.push((*group, bit));
        }
        by_group.sort_unstable();
        let (mut groups, mut masks) = (Vec::new(), Vec::new());
        for of_group in by_group.chunk_by(|one, other| one.0 == other.0) {
            groups.extend(of_group.first().map(|(group, _)| *group));
            masks.push(of_group.iter().fold(0, |all, (_, bit)| all | bit));
        }
        Self { rules, groups: groups.into(), masks: masks.into() }
    }
}

/// Up to this many entries are looked at one by one.
const FEW: usize = 16;

/// More rules than this are always looked for by group.
const MANY_RULES: usize = 512;

/// The same by rule, where rules are for many groups each.
fn by_mask(entries: &[Entry]) -> Option<Box<[Masks]>> {
    let mut by_rule: Vec<(u32, GroupId)> = entries.iter().map(|entry| (entry.rule, entry.group)).collect();
    by_rule.sort_unstable();
    let rules: Vec<&[(u32, GroupId)]> = by_rule.chunk_by(|one, other| one.0 == other.0).collect();
    let is_worth_it = entries.len() > FEW && rules.len() <= MANY_RULES && entries.len() >= 2 * rules.len();
    is_worth_it.then(|| rules.chunks(64).map(|rules| Masks::of(&rules.concat())).collect())
}

fn sorted(mut entries: Vec<Entry>) -> Box<[Entry]> {
    entries.sort_unstable();
    entries.dedup();
    entries.into()
}

fn each_of_groups(entries: &[Entry], groups: &[GroupId], found: &mut impl FnMut(u32)) {
    if entries.len() <= FEW {
        for entry in entries {
            if groups.binary_search(&entry.group).is_ok() {
                found(entry.rule);
            }
        }
        return;
    }
    each_of_groups_held(entries, |entry| entry.group, groups, &mut |at| {
        if let Some(entry) = entries.get(at) {
            found(entry.rule);
        }
    });
}

#[cold]
fn each_of_masks(all: &[Masks], groups: &[GroupId], found: &mut impl FnMut(u32)) {
    for Masks { rules, groups: own, masks } in all {
        let mut met = 0_u64;
        each_of_groups_held(own, |group| *group, groups, &mut |at| {
            met |= masks.get(at).copied().unwrap_or_default();
        });
        while let Some(rule) = rules.get(usize::try_from(met.trailing_zeros()).unwrap_or(usize::MAX)) {
            found(*rule);
            met &= met - 1;
        }
    }
}

/// One of two lists is this many times as long as the other where it is searched instead of walked.
const FAR_LONGER: usize = 8;

/// Calls `met` with the position of each item that is for one of the groups. Both lists are sorted by group; several items
/// may be for the same.
fn each_of_groups_held<T>(
    items: &[T],
    group_of: impl Fn(&T) -> GroupId,
    groups: &[GroupId],
    met: &mut impl FnMut(usize),
) {
    if items.len() / FAR_LONGER > groups.len() {
        let mut at = 0;
        for group in groups {
            let rest = items.get(at..).unwrap_or_default();
            at += rest.partition_point(|item| group_of(item) < *group);
            while items.get(at).is_some_and(|item| group_of(item) == *group) {
                met(at);
                at += 1;
            }
        }
        return;
    }
    if groups.len() / FAR_LONGER > items.len() {
        let mut rest = groups;
        for (at, item) in items.iter().enumerate() {
            let own = group_of(item);
            rest = rest.get(rest.partition_point(|group| *group < own)..).unwrap_or_default();
            if rest.first() == Some(&own) {
                met(at);
            }
        }
        return;
    }
    let (mut at, mut held) = (0, 0);
    while let (Some(item), Some(group)) = (items.get(at), groups.get(held)) {
        let own = group_of(item);
        if own == *group {
            met(at);
        }
        // Without a branch, which nothing could predict.
        at += usize::from(own <= *group);
        held += usize::from(own > *group);
    }
}
