//! What an owner's document may make every decision pay, whoever asks for its tenants: a request is decided on the event
//! loop, in the time of a small policy.
//!
//! The bounds are about what ten rules take: twice as many rules, twice the time.
//!
//! Tenants and patterns that end in their only `*` are found by an index, however many there are. What no index finds is
//! bounded: patterns with a `*` elsewhere, patterns one within another, and rules that name the same tenant and group.

use super::{Document, GrantEntry, RestrictionEntry};
use crate::policy::diagnostic::{Path, Place, Problems};
use crate::policy::reader::At;
use crate::tenant::TenantPattern;
use std::collections::{HashMap, HashSet};

/// The most pairs of a group and a tenant that a document's rules name together.
pub(in crate::policy) const MAX_PAIRS: usize = 100_000;
/// The most patterns of a document with a `*` before their end: each is compared with every tenant that begins like it.
const MAX_INNER: usize = 8;
/// The most patterns that end in their only `*` and that one tenant matches.
const MAX_NESTED: usize = 8;
/// The most times that grants name one tenant and one group, and the most times that restrictions do.
const MAX_MEETING: usize = 20;
/// The most pairs of a group and a pattern that one tenant matches.
const MAX_PATTERN_PAIRS: usize = 1000;
/// The most networks that the restrictions of a document hold together, once their names are resolved.
pub(in crate::policy) const MAX_NETWORKS: usize = 250_000;

/// What a grant and a restriction are found by.
struct Rule<'d> {
    place: Place,
    path: &'d str,
    groups: &'d [At<Box<str>>],
    tenants: &'d [At<TenantPattern>],
    except_tenants: &'d [At<TenantPattern>],
}

impl<'d> Rule<'d> {
    fn of_grant(grant: &'d GrantEntry) -> Self {
        let GrantEntry { place, path, groups, tenants, except_tenants, .. } = grant;
        Self { place: *place, path, groups, tenants, except_tenants }
    }

    fn of_restriction(restriction: &'d RestrictionEntry) -> Self {
        let RestrictionEntry { place, path, groups, tenants, except_tenants, .. } = restriction;
        Self { place: *place, path, groups, tenants, except_tenants }
    }
}

/// How many pairs of a group and a tenant the rules of a document name: what they are found by holds each of them.
pub(super) fn pairs(document: &Document) -> usize {
    let grants = document.grants.iter().map(|rule| rule.groups.len().saturating_mul(rule.tenants.len()));
    let bound = document.restrictions.iter().map(|rule| rule.groups.len().saturating_mul(rule.tenants.len()));
    grants.chain(bound).fold(0, usize::saturating_add)
}

/// Refuses an owner's document whose rules would make decisions slow. One that has too many pairs is refused as such, and
/// to go through billions of them would keep everybody waiting.
pub(in crate::policy) fn refuse_slow_rules(document: &Document, problems: &mut Problems) {
    if pairs(document) > MAX_PAIRS {
        return;
    }
    let grants: Vec<Rule<'_>> = document.grants.iter().map(Rule::of_grant).collect();
    let restrictions: Vec<Rule<'_>> = document.restrictions.iter().map(Rule::of_restriction).collect();
    refuse_inner_patterns(grants.iter().chain(&restrictions), problems);
    refuse_meeting_rules(&grants, "grants", problems);
    refuse_meeting_rules(&restrictions, "restrictions", problems);
}

fn is_inner(pattern: &TenantPattern) -> bool {
    pattern.literal().is_none() && pattern.trailing().is_none()
}

fn refuse_inner_patterns<'d>(rules: impl Iterator<Item = &'d Rule<'d>>, problems: &mut Problems) {
    let mut known = HashSet::new();
    for rule in rules {
        for (key, list) in [("tenants", rule.tenants), ("except_tenants", rule.except_tenants)] {
            for tenant in list.iter().filter(|tenant| is_inner(&tenant.value)) {
                if known.insert(&tenant.value) && known.len() > MAX_INNER {
                    problems
                        .error(
                            tenant.place,
                            &Path::Root.key(rule.path).key(key).item(tenant.number),
                            format!(
                                "`{}` is one pattern too many with a `*` before its end: a document holds {MAX_INNER}",
                                tenant.value.as_str()
                            ),
                        )
                        .help("name the tenants, or end patterns in their only `*`, of which there may be any number");
                    return;
                }
            }
        }
    }
}

/// A rule's naming of a tenant.
struct Naming<'r, 'd> {
    rule: &'r Rule<'d>,
    tenant: &'d At<TenantPattern>,
}

/// What the tenants that begin like the patterns looked at meet.
#[derive(Default)]
struct Met<'d> {
    of_group: HashMap<&'d str, usize>,
    pairs: usize,
}

impl<'d> Met<'d> {
    /// Adds a rule's groups. Returns the group that is named too often.
    fn add(&mut self, rule: &Rule<'d>) -> Option<&'d str> {
        self.pairs += rule.groups.len();
        let mut too_often = None;
        for group in rule.groups {
            let count = self.of_group.entry(&group.value).or_default();
            *count += 1;
            if *count > MAX_MEETING {
                too_often = Some(&*group.value);
            }
        }
        too_often
    }

    fn remove(&mut self, rule: &Rule<'d>) {
        self.pairs -= rule.groups.len().min(self.pairs);
        for group in rule.groups {
            if let Some(count) = self.of_group.get_mut(&*group.value) {
                *count -= 1.min(*count);
            }
        }
    }
}

/// Goes through tenants and patterns in the order in which one pattern is right before everything that begins like it.
/// Patterns with a `*` before their end are counted as if every tenant matched them: they are few.
fn refuse_meeting_rules(rules: &[Rule<'_>], what: &str, problems: &mut Problems) {
    let mut met = Met::default();
    let mut named: Vec<(&str, bool, Naming<'_, '_>)> = Vec::new();
    for rule in rules {
        let mut own: Vec<&At<TenantPattern>> = rule.tenants.iter().collect();
        own.sort_by(|one, other| one.value.cmp(&other.value));
        own.dedup_by(|one, other| one.value == other.value);
        for tenant in own {
            let naming = Naming { rule, tenant };
            match (tenant.value.literal(), tenant.value.trailing()) {
                (Some(name), _) => named.push((name, true, naming)),
                (None, Some(head)) => named.push((head, false, naming)),
                (None, None) => {
                    if let Some(group) = met.add(rule) {
                        return refuse_meeting(&naming, group, what, problems);
                    }
                }
            }
        }
    }
    named.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
    let mut above: Vec<&[(&str, bool, Naming<'_, '_>)]> = Vec::new();
    for of_text in named.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
        let Some((text, is_literal, first)) = of_text.first() else { continue };
        while let Some((of_head, head)) =
            above.last().and_then(|of_head| Some((*of_head, of_head.first()?.0)))
            && !text.starts_with(head)
        {
            of_head.iter().for_each(|(.., naming)| met.remove(naming.rule));
            above.pop();
        }
        for (.., naming) in of_text {
            if let Some(group) = met.add(naming.rule) {
                return refuse_meeting(naming, group, what, problems);
            }
        }
        if *is_literal {
            of_text.iter().for_each(|(.., naming)| met.remove(naming.rule));
            continue;
        }
        above.push(of_text);
        if above.len() > MAX_NESTED {
            return refuse(
                first,
                &format!("it lies within {MAX_NESTED} other patterns of {what}"),
                "a tenant may match that many: leave out patterns that others hold",
                problems,
            );
        }
        if met.pairs > MAX_PATTERN_PAIRS {
            return refuse(
                first,
                &format!(
                    "patterns of {what} that a tenant may match name {} groups, more than {MAX_PATTERN_PAIRS}",
                    met.pairs
                ),
                "name the groups by one of the platform's `group_names`, or name the tenants",
                problems,
            );
        }
    }
}

fn refuse_meeting(naming: &Naming<'_, '_>, group: &str, what: &str, problems: &mut Problems) {
    refuse(
        naming,
        &format!("more than {MAX_MEETING} {what} name the group `{group}` for one tenant"),
        "join rules of the same groups and tenants, or remove those that others hold",
        problems,
    );
}

fn refuse(naming: &Naming<'_, '_>, why: &str, help: &str, problems: &mut Problems) {
    let Naming { rule, tenant } = naming;
    let root = Path::Root.key(rule.path);
    let list = root.key("tenants");
    // A restriction without tenants binds all that its owner has.
    let path = if tenant.place == rule.place { root } else { list.item(tenant.number) };
    problems.error(tenant.place, &path, format!("`{}`: {why}", tenant.value.as_str())).help(help);
}
