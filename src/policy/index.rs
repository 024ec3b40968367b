//! Which rules may apply to a tenant and a principal's groups, without looking at the others.
//!
//! Exact tenants are found by one hash look-up. Patterns are filed under what stands before their first `*`, and
//! looked up once for each length that such a prefix has; so many patterns cost as little as one. Within what is
//! found, rules are sorted by group, so a tenant with thousands of rules costs a binary search a group.

use super::groups::GroupId;
use crate::tenant::TenantPattern;
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
}

impl Exact {
    /// `rules`: tenants, each with the number of a rule that names it; one whose rules are for no group is known all the
    /// same. `groups`: those of each rule.
    fn build(mut rules: Vec<(&str, u32)>, groups: &[&[GroupId]]) -> Self {
        rules.sort_unstable();
        let (mut tenants, mut names, mut entries) = (Vec::new(), String::new(), Vec::new());
        for of_tenant in rules.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((tenant, _)) = of_tenant.first() else { continue };
            tenants.push((names.len(), entries.len()));
            names.push_str(tenant);
            let own = of_tenant.iter().flat_map(|(_, rule)| {
                let groups = usize::try_from(*rule).ok().and_then(|rule| groups.get(rule));
                groups.into_iter().copied().flatten().map(|group| Entry { group: *group, rule: *rule })
            });
            entries.extend(sorted(own.collect()));
        }
        let mut exact = Self {
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

    fn get(&self, tenant: &str) -> Option<&[Entry]> {
        let found = self.table.find(self.hasher.hash_one(tenant), |other| self.name(*other) == tenant)?;
        Some(self.at(*found).1)
    }
}

/// Rules by tenant and group.
#[derive(Debug, Default)]
pub(crate) struct TenantIndex {
    exact: Exact,
    patterns: HashMap<Box<str>, Box<[(TenantPattern, Box<[Entry]>)]>>,
    /// The distinct lengths of the keys of `patterns`, ascending.
    prefix_lengths: Box<[usize]>,
}

impl TenantIndex {
    /// Builds the index.
    ///
    /// `rules`: each rule's tenants and groups; a rule's number is its position.
    pub(super) fn build<'r>(rules: impl Iterator<Item = (&'r [TenantPattern], &'r [GroupId])>) -> Self {
        let (mut exact, mut groups_of_rules) = (Vec::new(), Vec::new());
        let mut patterns: HashMap<TenantPattern, Vec<Entry>> = HashMap::new();
        for (rule, (tenants, groups)) in (0..).zip(rules) {
            groups_of_rules.push(groups);
            for tenant in tenants {
                match tenant.literal() {
                    Some(name) => exact.push((name, rule)),
                    None => {
                        let entries = groups.iter().map(|group| Entry { group: *group, rule });
                        patterns.entry(tenant.clone()).or_default().extend(entries);
                    }
                }
            }
        }
        let mut by_prefix: HashMap<Box<str>, Vec<(TenantPattern, Box<[Entry]>)>> = HashMap::new();
        for (pattern, entries) in patterns {
            by_prefix.entry(pattern.prefix().into()).or_default().push((pattern, sorted(entries)));
        }
        let mut prefix_lengths: Vec<usize> = by_prefix.keys().map(|prefix| prefix.len()).collect();
        prefix_lengths.sort_unstable();
        prefix_lengths.dedup();
        Self {
            exact: Exact::build(exact, &groups_of_rules),
            patterns: by_prefix.into_iter().map(|(prefix, found)| (prefix, found.into())).collect(),
            prefix_lengths: prefix_lengths.into(),
        }
    }

    /// Calls `found` with the number of every rule that names this tenant and one of these groups.
    /// A rule that does so in several ways is told several times.
    ///
    /// `groups`: sorted, without duplicates.
    pub(crate) fn each_rule(&self, tenant: &str, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        if let Some(entries) = self.exact.get(tenant) {
            each_of_groups(entries, groups, found);
        }
        for length in &self.prefix_lengths {
            let Some(prefix) = tenant.get(..*length) else { break };
            let Some(patterns) = self.patterns.get(prefix) else { continue };
            for (pattern, entries) in patterns {
                if pattern.matches(tenant) {
                    each_of_groups(entries, groups, found);
                }
            }
        }
    }

    /// Whether any rule names a tenant that matches `pattern`.
    pub(super) fn names_any_tenant_of(&self, pattern: &TenantPattern) -> bool {
        if let Some(tenant) = pattern.literal() {
            return self.exact.get(tenant).is_some()
                || self.patterns.values().flatten().any(|(other, _)| other.matches(tenant));
        }
        self.exact.names().any(|tenant| pattern.matches(tenant))
            || self.patterns.values().flatten().any(|(other, _)| pattern.overlaps(other))
    }
}

fn sorted(mut entries: Vec<Entry>) -> Box<[Entry]> {
    entries.sort_unstable();
    entries.dedup();
    entries.into()
}

fn each_of_groups(entries: &[Entry], groups: &[GroupId], found: &mut impl FnMut(u32)) {
    // Few rules: look at each. Many: look for each of the principal's groups.
    if entries.len() <= 16 {
        for entry in entries {
            if groups.binary_search(&entry.group).is_ok() {
                found(entry.rule);
            }
        }
        return;
    }
    let mut rest = entries;
    for group in groups {
        let from = rest.partition_point(|entry| entry.group < *group);
        rest = rest.get(from..).unwrap_or_default();
        for entry in rest.iter().take_while(|entry| entry.group == *group) {
            found(entry.rule);
        }
    }
}
