//! Which rules may apply to a tenant and a principal's groups, without looking at the others.
//!
//! Exact tenants are found by one hash look-up. Patterns are filed under what stands before their first `*`: the longest
//! such prefix of a tenant is found by a binary search among their lengths, a hash look-up each, and leads to the shorter
//! ones. So many patterns cost as little as one, but for those with a `*` before their end, which are compared one by
//! one: an owner's document may hold few of them (`document::limits`). Within what is found, rules are sorted by group,
//! so that a tenant with thousands of rules costs a binary search a group.

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
    /// The rules of those tenants of which [`by_rule`] says so, by position.
    by_rule: HashMap<usize, ByRule>,
}

impl Exact {
    /// `rules`: tenants, each with the position of a rule that names it; one whose rules are for no group is known all
    /// the same. `of_rules`: number and groups of each rule.
    fn build(mut rules: Vec<(&str, usize)>, of_rules: &[(u32, &[GroupId])]) -> Self {
        rules.sort_unstable();
        let (mut tenants, mut names, mut entries) = (Vec::new(), String::new(), Vec::new());
        let mut rules_of = HashMap::new();
        for of_tenant in rules.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((tenant, _)) = of_tenant.first() else { continue };
            tenants.push((names.len(), entries.len()));
            names.push_str(tenant);
            let own = of_tenant.iter().filter_map(|(_, position)| of_rules.get(*position));
            let own = own
                .flat_map(|(rule, groups)| groups.iter().map(|group| Entry { group: *group, rule: *rule }));
            let own = sorted(own.collect());
            if let Some(rules) = by_rule(&own) {
                rules_of.insert(tenants.len() - 1, rules);
            }
            entries.extend(own);
        }
        let mut exact = Self {
            by_rule: rules_of,
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

    /// Whether any tenant matches. They are sorted, so that only those are looked at which begin as the pattern does.
    fn any_matches(&self, pattern: &TenantPattern) -> bool {
        let (mut low, mut high) = (0, self.tenants.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.name(middle) < pattern.prefix() { low = middle + 1 } else { high = middle }
        }
        let rest = (low..self.tenants.len()).map(|position| self.name(position));
        rest.take_while(|name| name.starts_with(pattern.prefix())).any(|name| pattern.matches(name))
    }

    fn position(&self, tenant: &str) -> Option<usize> {
        self.table.find(self.hasher.hash_one(tenant), |other| self.name(*other) == tenant).copied()
    }

    fn each_rule(&self, tenant: &str, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        let Some(position) = self.position(tenant) else { return };
        let entries = self.at(position).1;
        if entries.len() > FEW
            && let Some(rules) = self.by_rule.get(&position)
        {
            return each_of_rules(rules, groups, found);
        }
        each_of_groups(entries, groups, found);
    }
}

/// Rules by tenants written as patterns, filed under what stands before the first `*`.
#[derive(Debug, Default)]
struct Wild {
    /// In the order of their prefixes.
    nodes: Box<[Node]>,
    /// The distinct lengths of prefixes, ascending.
    lengths: Box<[usize]>,
    /// The last node whose prefix the key begins with; for every prefix, and for those beginnings of it at which the
    /// search among `lengths` for this prefix stops (Waldvogel et al., Scalable High Speed IP Routing Lookups, 1997).
    table: HashMap<Box<str>, Option<usize>>,
}

/// The patterns of one prefix.
#[derive(Debug)]
struct Node {
    prefix: Box<str>,
    /// That with the longest prefix with which this one begins.
    parent: Option<usize>,
    /// Of the pattern that ends in its only `*`.
    trailing: Option<Naming>,
    /// Of each that does not.
    inner: Box<[(TenantPattern, Naming)]>,
}

impl Wild {
    fn build(patterns: HashMap<&TenantPattern, Vec<Entry>>) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let mut above: Vec<usize> = Vec::new();
        let mut patterns: Vec<(&str, &TenantPattern, Vec<Entry>)> =
            patterns.into_iter().map(|(pattern, entries)| (pattern.prefix(), pattern, entries)).collect();
        patterns.sort_unstable_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
        for of_prefix in patterns.chunk_by_mut(|one, other| one.0 == other.0) {
            let Some(&mut (prefix, ..)) = of_prefix.first_mut() else { continue };
            let begins =
                |node: &usize| nodes.get(*node).is_some_and(|node| prefix.starts_with(&*node.prefix));
            while above.last().is_some_and(|node| !begins(node)) {
                above.pop();
            }
            let mut node = Node {
                prefix: prefix.into(),
                parent: above.last().copied(),
                trailing: None,
                inner: [].into(),
            };
            let mut inner = Vec::new();
            for (_, pattern, entries) in of_prefix {
                let entries = Naming::of(std::mem::take(entries));
                match pattern.trailing() {
                    Some(_) => node.trailing = Some(entries),
                    None => inner.push((pattern.clone(), entries)),
                }
            }
            node.inner = inner.into();
            above.push(nodes.len());
            nodes.push(node);
        }
        let mut lengths: Vec<usize> = nodes.iter().map(|node| node.prefix.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut wild = Self { nodes: nodes.into(), lengths: lengths.into(), table: HashMap::new() };
        wild.table = wild.stops();
        wild
    }

    /// What [`Wild::last`] looks up on its way to each prefix.
    fn stops(&self) -> HashMap<Box<str>, Option<usize>> {
        let mut table: HashMap<Box<str>, Option<usize>> = HashMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let (mut low, mut high) = (0, self.lengths.len());
            while low < high {
                let middle = low.midpoint(high);
                let length = self.lengths.get(middle).copied().unwrap_or(usize::MAX);
                let Some(stop) = node.prefix.get(..length) else {
                    high = middle;
                    continue;
                };
                if !table.contains_key(stop) {
                    table.insert(
                        stop.into(),
                        self.chain(Some(number)).find(|above| self.is_within(*above, length)),
                    );
                }
                low = middle + 1;
            }
        }
        table
    }

    fn is_within(&self, node: usize, length: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.prefix.len() <= length)
    }

    /// A node and those above it.
    fn chain(&self, node: Option<usize>) -> impl Iterator<Item = usize> {
        std::iter::successors(node, |node| self.nodes.get(*node)?.parent)
    }

    /// The node with the longest prefix with which the tenant begins: a binary search among the lengths of prefixes,
    /// so that a request pays for their logarithm.
    fn last(&self, tenant: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.lengths.len());
        let mut last = None;
        while low < high {
            let middle = low.midpoint(high);
            let stop = self.lengths.get(middle).and_then(|length| tenant.get(..*length));
            match stop.and_then(|stop| self.table.get(stop)) {
                Some(found) => (last, low) = (*found, middle + 1),
                None => high = middle,
            }
        }
        last
    }

    fn each_rule(&self, tenant: &str, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        let mut next = self.last(tenant);
        while let Some(node) = next.and_then(|node| self.nodes.get(node)) {
            if let Some(naming) = &node.trailing {
                naming.each_rule(groups, found);
            }
            for (pattern, naming) in &node.inner {
                if pattern.matches(tenant) {
                    naming.each_rule(groups, found);
                }
            }
            next = node.parent;
        }
    }

    /// Whether any pattern matches a tenant that `other` matches too.
    fn meets(&self, other: &TenantPattern) -> bool {
        let prefix = other.prefix();
        let within = begin_with(&self.nodes, prefix, |node| &node.prefix);
        let above = self.chain(self.last(prefix)).filter_map(|node| self.nodes.get(node));
        if other.trailing().is_some() {
            // Beyond the longer of two prefixes at least one of the patterns takes whatever the other one wants.
            return !within.is_empty() || self.last(prefix).is_some();
        }
        within.iter().chain(above).any(|node| {
            let trailing = node.trailing.as_ref().and_then(|_| TenantPattern::trailing_star(&node.prefix));
            trailing.is_some_and(|pattern| pattern.overlaps(other))
                || node.inner.iter().any(|(pattern, _)| pattern.overlaps(other))
        })
    }
}

/// The part of a sorted list whose texts begin with `prefix`.
fn begin_with<'l, T>(list: &'l [T], prefix: &str, text: impl Fn(&T) -> &str) -> &'l [T] {
    let rest = list.get(list.partition_point(|item| text(item) < prefix)..).unwrap_or_default();
    rest.get(..rest.partition_point(|item| text(item).starts_with(prefix))).unwrap_or_default()
}

/// Rules by tenant and group.
#[derive(Debug, Default)]
pub(crate) struct TenantIndex {
    exact: Exact,
    wild: Wild,
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
        Self { exact: Exact::build(exact, &of_rules), wild: Wild::build(patterns), further: None }
    }

    /// Adds rules behind those that are indexed, or takes them away again: what is there is not indexed anew.
    pub(super) fn set_further(&mut self, further: Option<Self>) {
        self.further = further.map(Box::new);
    }

    /// Calls `found` with the number of every rule that names this tenant and one of these groups.
    /// A rule that does so in several ways is told several times.
    ///
    /// `groups`: sorted, without duplicates.
    pub(crate) fn each_rule(&self, tenant: &str, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        self.exact.each_rule(tenant, groups, found);
        self.wild.each_rule(tenant, groups, found);
        if let Some(further) = &self.further {
            further.each_rule(tenant, groups, found);
        }
    }

    /// Whether any rule names a tenant that matches `pattern`. Looks through all that begin like a pattern with a `*`
    /// before its end.
    pub(super) fn names_any_tenant_of(&self, pattern: &TenantPattern) -> bool {
        let exact = match pattern.literal() {
            Some(tenant) => self.exact.position(tenant).is_some(),
            None => self.exact.any_matches(pattern),
        };
        exact || self.wild.meets(pattern)
    }
}

/// The rules that name one pattern.
#[derive(Debug)]
enum Naming {
    ByGroup(Box<[Entry]>),
    ByRule(ByRule),
}

impl Naming {
    fn of(entries: Vec<Entry>) -> Self {
        let entries = sorted(entries);
        by_rule(&entries).map_or(Self::ByGroup(entries), Self::ByRule)
    }

    fn each_rule(&self, groups: &[GroupId], found: &mut impl FnMut(u32)) {
        match self {
            Self::ByGroup(entries) => each_of_groups(entries, groups, found),
            Self::ByRule(rules) => each_of_rules(rules, groups, found),
        }
    }
}

/// Rules, each with its groups, sorted.
type ByRule = Box<[(u32, Box<[GroupId]>)]>;

/// Up to this many entries are looked at one by one.
const FEW: usize = 16;

/// More rules than this are always looked for by group.
const MANY_RULES: usize = 512;

/// The same by rule, where rules are for many groups each: looked for by group, each would be found again and again.
fn by_rule(entries: &[Entry]) -> Option<ByRule> {
    let mut by_rule: Vec<(u32, GroupId)> = entries.iter().map(|entry| (entry.rule, entry.group)).collect();
    by_rule.sort_unstable();
    let rules = by_rule.chunk_by(|one, other| one.0 == other.0);
    let count = rules.clone().count();
    let of = |of_rule: &[(u32, GroupId)]| {
        let groups = of_rule.iter().map(|(_, group)| *group).collect();
        of_rule.first().map(|(rule, _)| (*rule, groups))
    };
    (entries.len() > FEW && count <= MANY_RULES && entries.len() >= 2 * count)
        .then(|| rules.filter_map(of).collect())
}

fn sorted(mut entries: Vec<Entry>) -> Box<[Entry]> {
    entries.sort_unstable();
    entries.dedup();
    entries.into()
}

fn each_of_groups(entries: &[Entry], groups: &[GroupId], found: &mut impl FnMut(u32)) {
    // Few rules, or fewer than groups: look at each. Many: look for each of the principal's groups.
    if entries.len() <= FEW || entries.len() < groups.len() {
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

#[cold]
fn each_of_rules(rules: &ByRule, groups: &[GroupId], found: &mut impl FnMut(u32)) {
    for (rule, own) in rules {
        let (few, many) = if own.len() <= groups.len() { (&**own, groups) } else { (groups, &**own) };
        if few.iter().any(|group| many.binary_search(group).is_ok()) {
            found(*rule);
        }
    }
}
