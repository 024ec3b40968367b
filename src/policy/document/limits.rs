//! What an owner's document may make every decision pay, whoever asks for its tenants: a request is decided on the event
//! loop, in the time of a small policy.
//!
//! The bounds are about what ten rules take: twice as many rules, twice the time.
//!
//! An index finds tenants and patterns, however many there are. What it cannot make cheaper is bounded, for the tenant that
//! meets most of it: the steps of a look-up, the rules that are found, their exceptions, and the groups that they name.
//! Patterns of one beginning that differ in their ends are counted as if a tenant ended in the worst of them.
//!
//! Everything here takes the time of one walk through the document, or it would be what keeps everybody waiting.

use super::{Document, GrantEntry, RestrictionEntry};
use crate::policy::diagnostic::{Path, Place, Problems};
use crate::policy::reader::At;
use crate::tenant::{PatternMap, PatternSet, TenantPattern};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

/// The most pairs of a group and a tenant that a document's rules name together.
pub(in crate::policy) const MAX_PAIRS: usize = 100_000;
/// The most patterns of a document with several `*`: each is compared with every tenant that begins like it.
const MAX_LOOSE: usize = 8;
/// The most steps that looking up a tenant takes among the patterns of grants, and among those of restrictions
/// ([`PatternMap::most_steps`]).
const MAX_STEPS: usize = 18;
/// The same among the exceptions of one rule.
const MAX_EXCEPTION_STEPS: usize = 10;
/// The most grants that name one tenant and one group, and the most restrictions that do.
const MAX_OF_GROUP: usize = 20;
/// The most rules with exceptions that name one tenant, grants and restrictions each. Somebody may be in all groups.
const MAX_EXCEPTING: usize = 20;
/// The most grants that name one tenant.
const MAX_GRANTS: usize = 400;
/// The most restrictions that name one tenant: each looks where the client is.
const MAX_RESTRICTIONS: usize = 32;
/// If more rules than this name one tenant, they name groups that another one of them names at most as often: somebody in
/// fifty groups meets few of them.
const MAX_TOGETHER: usize = 30;
/// The most pairs of a group and a pattern that one tenant matches.
const MAX_PATTERN_PAIRS: usize = 1000;
/// The most groups that the restrictions of one tenant except together.
const MAX_EXCEPTED_GROUPS: usize = 500;
/// The most networks that the restrictions of a document hold together, once their names are resolved.
pub(in crate::policy) const MAX_NETWORKS: usize = 250_000;

/// What a grant and a restriction are found by.
struct Rule<'d> {
    place: Place,
    path: &'d str,
    groups: &'d [At<Box<str>>],
    tenants: &'d [At<TenantPattern>],
    except_tenants: &'d [At<TenantPattern>],
    except_groups: &'d [At<Box<str>>],
}

impl<'d> Rule<'d> {
    fn of_grant(grant: &'d GrantEntry) -> Self {
        let GrantEntry { place, path, groups, tenants, except_tenants, .. } = grant;
        Self { place: *place, path, groups, tenants, except_tenants, except_groups: &[] }
    }

    fn of_restriction(restriction: &'d RestrictionEntry) -> Self {
        let RestrictionEntry { place, path, groups, tenants, except_tenants, except_groups, .. } =
            restriction;
        Self { place: *place, path, groups, tenants, except_tenants, except_groups }
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
    if refuse_loose_patterns(grants.iter().chain(&restrictions), problems) {
        return;
    }
    for (rules, what, most_rules) in
        [(&grants, "grants", MAX_GRANTS), (&restrictions, "restrictions", MAX_RESTRICTIONS)]
    {
        refuse_long_look_ups(rules, what, problems);
        refuse_meeting_rules(rules, what, most_rules, problems);
    }
}

/// An error about a tenant that a rule names.
fn refuse(rule: &Rule<'_>, tenant: &At<TenantPattern>, why: &str, help: &str, problems: &mut Problems) {
    let root = Path::Root.key(rule.path);
    let list = root.key("tenants");
    // A restriction without tenants binds all that its owner has.
    let path = if tenant.place == rule.place { root } else { list.item(tenant.number) };
    problems.error(tenant.place, &path, format!("`{}`: {why}", tenant.value.as_str())).help(help);
}

fn refuse_loose_patterns<'d>(rules: impl Iterator<Item = &'d Rule<'d>>, problems: &mut Problems) -> bool {
    let mut known = HashSet::new();
    let is_loose = |pattern: &TenantPattern| pattern.literal().is_none() && pattern.only_star().is_none();
    for rule in rules {
        for (key, list) in [("tenants", rule.tenants), ("except_tenants", rule.except_tenants)] {
            for tenant in list.iter().filter(|tenant| is_loose(&tenant.value)) {
                if known.insert(&tenant.value) && known.len() > MAX_LOOSE {
                    problems
                        .error(
                            tenant.place,
                            &Path::Root.key(rule.path).key(key).item(tenant.number),
                            format!(
                                "`{}` is one pattern too many with several `*`: a document holds {MAX_LOOSE}",
                                tenant.value.as_str()
                            ),
                        )
                        .help("name the tenants, or write patterns with one `*`, of which there may be any number");
                    return true;
                }
            }
        }
    }
    false
}

const HELP_STEPS: &str =
    "leave out patterns that others hold, or give patterns fewer different beginnings and ends";

fn refuse_long_look_ups(rules: &[Rule<'_>], what: &str, problems: &mut Problems) {
    let named = || rules.iter().flat_map(|rule| rule.tenants.iter().map(move |tenant| (rule, tenant)));
    let distinct: HashSet<&TenantPattern> = named().map(|(_, tenant)| &tenant.value).collect();
    let patterns = PatternMap::build(distinct.into_iter().map(|pattern| (pattern, ())));
    let (steps, head) = patterns.most_steps();
    let begins = |(_, tenant): &(_, &At<TenantPattern>)| {
        tenant.value.literal().is_none() && tenant.value.prefix() == head
    };
    if steps > MAX_STEPS
        && let Some((rule, tenant)) = named().find(begins)
    {
        let why = format!(
            "to look up a tenant that begins like it takes {steps} steps among the patterns of {what}, more than \
             {MAX_STEPS}"
        );
        refuse(rule, tenant, &why, HELP_STEPS, problems);
    }
    for rule in rules {
        let exceptions = PatternSet::new(rule.except_tenants.iter().map(|tenant| tenant.value.clone()));
        let (steps, head) = exceptions.most_steps();
        let begins =
            |tenant: &&At<TenantPattern>| tenant.value.literal().is_none() && tenant.value.prefix() == head;
        if steps > MAX_EXCEPTION_STEPS
            && let Some(tenant) = rule.except_tenants.iter().find(begins)
        {
            problems
                .error(
                    tenant.place,
                    &Path::Root.key(rule.path).key("except_tenants").item(tenant.number),
                    format!(
                        "`{}`: to look up a tenant that begins like it takes {steps} steps among these exceptions, \
                         more than {MAX_EXCEPTION_STEPS}",
                        tenant.value.as_str()
                    ),
                )
                .help(HELP_STEPS);
            return;
        }
    }
}

/// A rule's naming of a tenant.
#[derive(Clone, Copy)]
struct Naming<'r, 'd> {
    /// The rule's position.
    number: usize,
    rule: &'r Rule<'d>,
    tenant: &'r At<TenantPattern>,
}

/// What one tenant meets of the rules, but for the groups.
#[derive(Clone, Copy, Default)]
struct Totals {
    rules: usize,
    /// Those with exceptions.
    excepting: usize,
    /// The groups that they except.
    excepted_groups: usize,
    /// Pairs of a group and a pattern.
    pairs: usize,
    /// How often a rule names a group that another one names.
    again: usize,
}

impl Totals {
    fn each(&mut self, other: &Self, of: impl Fn(usize, usize) -> usize) {
        self.rules = of(self.rules, other.rules);
        self.excepting = of(self.excepting, other.excepting);
        self.excepted_groups = of(self.excepted_groups, other.excepted_groups);
        self.pairs = of(self.pairs, other.pairs);
        self.again = of(self.again, other.again);
    }
}

/// What the tenants that begin, or end, like the patterns looked at meet.
#[derive(Default)]
struct Met<'d> {
    totals: Totals,
    of_group: HashMap<&'d str, usize>,
    /// How often each rule was added, by its position: it counts once.
    times: Vec<usize>,
}

impl<'d> Met<'d> {
    fn of(rules: usize) -> Self {
        Self { times: vec![0; rules], ..Self::default() }
    }

    fn has(&self, naming: &Naming<'_, '_>) -> bool {
        self.times.get(naming.number).is_some_and(|times| *times > 0)
    }

    fn add_pairs(&mut self, naming: &Naming<'_, 'd>) {
        if naming.tenant.value.literal().is_none() {
            self.totals.pairs += naming.rule.groups.len();
        }
    }

    fn remove_pairs(&mut self, naming: &Naming<'_, 'd>) {
        if naming.tenant.value.literal().is_none() {
            self.totals.pairs -= naming.rule.groups.len().min(self.totals.pairs);
        }
    }

    /// Adds a rule. Returns the group that too many rules are for.
    fn add(&mut self, naming: &Naming<'_, 'd>) -> Option<&'d str> {
        let rule = naming.rule;
        self.add_pairs(naming);
        let times = self.times.get_mut(naming.number)?;
        *times += 1;
        if *times > 1 {
            return None;
        }
        self.totals.rules += 1;
        self.totals.excepting +=
            usize::from(!(rule.except_tenants.is_empty() && rule.except_groups.is_empty()));
        self.totals.excepted_groups += rule.except_groups.len();
        let mut too_often = None;
        for group in rule.groups {
            let count = self.of_group.entry(&group.value).or_default();
            *count += 1;
            self.totals.again += usize::from(*count > 1);
            if *count > MAX_OF_GROUP {
                too_often = Some(&*group.value);
            }
        }
        too_often
    }

    fn remove(&mut self, naming: &Naming<'_, 'd>) {
        let rule = naming.rule;
        self.remove_pairs(naming);
        let Some(times) = self.times.get_mut(naming.number).filter(|times| **times > 0) else { return };
        *times -= 1;
        if *times > 0 {
            return;
        }
        let mut own = Totals { rules: 1, excepted_groups: rule.except_groups.len(), ..Totals::default() };
        own.excepting = usize::from(!(rule.except_tenants.is_empty() && rule.except_groups.is_empty()));
        self.totals.each(&own, usize::saturating_sub);
        for group in rule.groups {
            if let Some(count) = self.of_group.get_mut(&*group.value) {
                self.totals.again -= usize::from(*count > 1);
                *count -= 1.min(*count);
            }
        }
    }

    /// Adds the most that the patterns of one beginning with different ends add.
    fn add_peak<'r>(&mut self, peak: &Peak<'r, 'd>) -> Option<(Naming<'r, 'd>, &'d str)> {
        self.totals.each(&peak.totals, usize::saturating_add);
        let mut too_often = None;
        for (group, (count, naming)) in &peak.of_group {
            let all = self.of_group.entry(group).or_default();
            self.totals.again += usize::from(*all > 0);
            *all += count;
            if *all > MAX_OF_GROUP && too_often.is_none_or(|(_, other)| *group < other) {
                too_often = Some((*naming, *group));
            }
        }
        too_often
    }

    fn remove_peak(&mut self, peak: &Peak<'_, 'd>) {
        self.totals.each(&peak.totals, usize::saturating_sub);
        for (group, (count, _)) in &peak.of_group {
            if let Some(all) = self.of_group.get_mut(group) {
                *all -= (*count).min(*all);
                self.totals.again -= usize::from(*all > 0);
            }
        }
    }
}

/// The most that one tenant meets of patterns with the same beginning: of each number the most, whichever end has it.
#[derive(Default)]
struct Peak<'r, 'd> {
    totals: Totals,
    /// With the naming up to which it is reached.
    of_group: HashMap<&'d str, (usize, Naming<'r, 'd>)>,
}

impl<'r, 'd> Peak<'r, 'd> {
    /// `namings`: of patterns with one `*`, none at their end. `met`: what all tenants of that beginning meet. `own`: holds
    /// nothing, before and after.
    fn of(mut namings: Vec<Naming<'r, 'd>>, met: &Met<'d>, own: &mut Met<'d>) -> Self {
        let mut peak = Self::default();
        let tail = |naming: &Naming<'r, 'd>| naming.tenant.value.suffix();
        let order = |one: &str, other: &str| -> Ordering { one.bytes().rev().cmp(other.bytes().rev()) };
        namings.sort_by(|one, other| order(tail(one), tail(other)));
        let remove = |own: &mut Met<'d>, of_tail: &[Naming<'r, 'd>]| {
            for naming in of_tail {
                if met.has(naming) { own.remove_pairs(naming) } else { own.remove(naming) }
            }
        };
        let mut above: Vec<&[Naming<'r, 'd>]> = Vec::new();
        for of_tail in namings.chunk_by(|one, other| tail(one) == tail(other)) {
            let Some(first) = of_tail.first() else { continue };
            while let Some(last) = above
                .pop_if(|of_other| of_other.first().is_none_or(|other| !tail(first).ends_with(tail(other))))
            {
                remove(own, last);
            }
            for naming in of_tail {
                if met.has(naming) {
                    own.add_pairs(naming);
                } else {
                    _ = own.add(naming);
                    peak.reach(own, naming);
                }
                peak.totals.each(&own.totals, usize::max);
            }
            above.push(of_tail);
        }
        above.iter().for_each(|of_tail| remove(own, of_tail));
        peak
    }

    /// Keeps what is met by now of the groups of a naming, where it is more than ever before.
    fn reach(&mut self, own: &Met<'d>, naming: &Naming<'r, 'd>) {
        for group in naming.rule.groups {
            let count = own.of_group.get(&*group.value).copied().unwrap_or_default();
            let most = self.of_group.entry(&group.value).or_insert((0, *naming));
            if count > most.0 {
                *most = (count, *naming);
            }
        }
    }
}

/// The patterns of one beginning, while everything is looked at that begins with it.
struct Above<'r, 'd> {
    head: &'r str,
    trailing: Vec<Naming<'r, 'd>>,
    peak: Peak<'r, 'd>,
}

/// Goes through tenants and patterns in the order in which patterns come right before everything that begins like them.
/// Patterns with several `*` are counted as if every tenant matched them: they are few.
fn refuse_meeting_rules(rules: &[Rule<'_>], what: &str, most_rules: usize, problems: &mut Problems) {
    let mut met = Met::of(rules.len());
    let mut own = Met::of(rules.len());
    let mut named: Vec<(&str, bool, Naming<'_, '_>)> = Vec::new();
    let limits = Limits { what, most_rules };
    for (number, rule) in rules.iter().enumerate() {
        let mut tenants: Vec<&At<TenantPattern>> = rule.tenants.iter().collect();
        tenants.sort_by(|one, other| one.value.cmp(&other.value));
        tenants.dedup_by(|one, other| one.value == other.value);
        for tenant in tenants {
            let naming = Naming { number, rule, tenant };
            let is_literal = tenant.value.literal().is_some();
            if is_literal || tenant.value.only_star().is_some() {
                named.push((tenant.value.prefix(), is_literal, naming));
            } else {
                let too_often = met.add(&naming).map(|group| (naming, group));
                if limits.refuse(&met.totals, &naming, too_often, problems) {
                    return;
                }
            }
        }
    }
    named.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
    let mut above: Vec<Above<'_, '_>> = Vec::new();
    for of_text in named.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
        let Some((text, is_literal, first)) = of_text.first() else { continue };
        while let Some(last) = above.pop_if(|last| !text.starts_with(last.head)) {
            last.trailing.iter().for_each(|naming| met.remove(naming));
            met.remove_peak(&last.peak);
        }
        let namings = of_text.iter().map(|(.., naming)| *naming);
        let (whole, with_ends): (Vec<_>, Vec<_>) =
            namings.partition(|naming| naming.tenant.value.suffix().is_empty() || *is_literal);
        for naming in &whole {
            let too_often = met.add(naming).map(|group| (*naming, group));
            if limits.refuse(&met.totals, naming, too_often, problems) {
                return;
            }
        }
        if *is_literal {
            whole.iter().for_each(|naming| met.remove(naming));
            continue;
        }
        let last = with_ends.last().copied().unwrap_or(*first);
        let peak = Peak::of(with_ends, &met, &mut own);
        let too_often = met.add_peak(&peak);
        if limits.refuse(&met.totals, &last, too_often, problems) {
            return;
        }
        above.push(Above { head: text, trailing: whole, peak });
    }
}

/// How much one tenant may meet.
struct Limits<'w> {
    /// What the rules are called.
    what: &'w str,
    most_rules: usize,
}

impl Limits<'_> {
    /// Reports the first limit that is exceeded. `naming`: that up to which the totals are reached. `too_often`: a group
    /// that too many rules are for.
    fn refuse(
        &self,
        totals: &Totals,
        naming: &Naming<'_, '_>,
        too_often: Option<(Naming<'_, '_>, &str)>,
        problems: &mut Problems,
    ) -> bool {
        const JOIN: &str = "join rules that differ in their groups alone or in their tenants alone; name fewer tenants in \
                            the others";
        let what = self.what;
        let Totals { rules, excepting, excepted_groups, pairs, again } = *totals;
        let (naming, why, help) = if let Some((naming, group)) = too_often {
            let why = format!("more than {MAX_OF_GROUP} {what} name the group `{group}` for one tenant");
            (naming, why, JOIN)
        } else if excepting > MAX_EXCEPTING {
            let why = format!("more than {MAX_EXCEPTING} {what} with exceptions name one tenant");
            (
                *naming,
                why,
                "join rules that differ in their groups alone, or name tenants and groups in place of exceptions",
            )
        } else if rules > self.most_rules {
            (*naming, format!("more than {} {what} name one tenant", self.most_rules), JOIN)
        } else if rules > MAX_TOGETHER && again > MAX_TOGETHER {
            let why = format!(
                "more than {MAX_TOGETHER} {what} name one tenant, and more than {MAX_TOGETHER} times a group that another \
                 of them names"
            );
            (*naming, why, JOIN)
        } else if excepted_groups > MAX_EXCEPTED_GROUPS {
            let why = format!(
                "{what} that name one tenant except {excepted_groups} groups, more than {MAX_EXCEPTED_GROUPS}"
            );
            (*naming, why, "name the groups by one of the platform's `group_names`")
        } else if pairs > MAX_PATTERN_PAIRS {
            let why = format!(
                "patterns of {what} that a tenant may match name {pairs} groups, more than {MAX_PATTERN_PAIRS}"
            );
            (*naming, why, "name the groups by one of the platform's `group_names`, or name the tenants")
        } else {
            return false;
        };
        refuse(naming.rule, naming.tenant, &why, help, problems);
        true
    }
}
