//! Who reaches a tenant, and what a group reaches.

mod one_by_one;

use super::cells::{Cell, Entangled, Universe};
use super::merge::{Merged, merge};
use super::{Bound, Reach, Rules, RulesOfCell, Unit, bounds, patterns_of, units, until};
use crate::policy::snapshot::{EVERYONE, Grant, GroupId, Held, Owner, Restriction, ServiceAccount, Snapshot};
use crate::tenant::TenantPattern;
use one_by_one::one_by_one;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What was found of a tenant or of a group.
#[derive(Debug)]
pub struct Reached<'s> {
    /// Owners of whose documents no version can be used: nobody reaches their tenants.
    pub unavailable: Vec<&'s Owner>,
    /// The patterns of tenants overlap in too many ways: each row is one grant by itself, and rows overlap.
    pub overlapping: bool,
    /// What grants give.
    pub rows: Vec<Row>,
}

/// What somebody in one group reaches.
#[derive(Clone, Debug)]
pub struct Row {
    /// The group; `*`: every verified user.
    pub group: String,
    /// Raw groups that its name stands for. Sorted.
    pub raw_groups: Vec<String>,
    /// To which tenants: those that all of these patterns match.
    pub tenants: Vec<String>,
    /// Tenants among them of which the row does not speak: each is what all of its patterns match.
    pub except: Vec<Vec<String>>,
    /// For what.
    pub units: Vec<Unit>,
    /// Until when and from where.
    pub reach: Reach,
    /// What must be satisfied besides for some of the tenants.
    pub from_in_parts: Vec<Bound>,
    /// The grants that give it.
    pub grants: Vec<Source>,
}

/// A grant by its name and place. Its form in reports is stable.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// Its name, or its path in the document.
    pub name: String,
    /// Whose document it stands in; `None` for the platform's.
    pub owner: Option<String>,
    /// That document, as diagnostics call it.
    pub file: String,
    /// Line in it, from 1.
    pub line: u32,
}

/// A reach, and the grants that give it: owner, line, name and file.
type Given = (Reach, Vec<(Option<String>, u32, String, String)>);

/// The raw groups that each group stands for, sorted.
struct RawGroups(HashMap<GroupId, Vec<String>>);

impl RawGroups {
    fn of(snapshot: &Snapshot) -> Self {
        let mut all: HashMap<GroupId, Vec<String>> = HashMap::new();
        for (raw, ids) in snapshot.groups.raw_groups() {
            for id in ids.iter().filter(|id| **id != EVERYONE && snapshot.groups.name(**id) != raw) {
                all.entry(*id).or_default().push(raw.to_owned());
            }
        }
        all.values_mut().for_each(|raw| raw.sort_unstable());
        Self(all)
    }

    fn behind(&self, snapshot: &Snapshot, group: &str) -> Vec<String> {
        snapshot.groups.id(group).and_then(|id| self.0.get(&id)).cloned().unwrap_or_default()
    }
}

impl Row {
    fn of(
        snapshot: &Snapshot,
        raw_groups: &RawGroups,
        group: &str,
        Merged { what: (reach, grants), tenants, except, units }: Merged<Given>,
    ) -> Self {
        Self {
            group: group.to_owned(),
            raw_groups: raw_groups.behind(snapshot, group),
            tenants,
            except,
            units,
            reach,
            from_in_parts: Vec::new(),
            grants: grants
                .into_iter()
                .map(|(owner, line, name, file)| Source { name, owner, file, line })
                .collect(),
        }
    }
}

/// Whether anything in the policy names a group.
pub fn is_known(snapshot: &Snapshot, group: &str) -> bool {
    snapshot.groups.id(group).is_some() || snapshot.groups.stands_for_any(group)
}

/// Whether a user's group grants nothing and excepts nobody, and restrictions on it bind.
pub fn is_revoked(snapshot: &Snapshot, group: &str) -> bool {
    matches!(Someone::of(snapshot, group), Someone::User(held) if *held.groups != *held.binding())
}

/// Every group that a grant gives the tenant to, those of service accounts included, and every group for which a
/// restriction makes a difference to what everyone may do.
///
/// `tenant`: one that is written out. `now`: Unix seconds. Of owners without a usable document only those
/// of this tenant are reported.
///
/// # Errors
/// [`Entangled`], for a pattern alone.
pub fn of_tenant<'s>(
    snapshot: &'s Snapshot,
    tenant: &TenantPattern,
    now: u64,
) -> Result<Reached<'s>, Entangled> {
    let is_asked = |owner: &&Owner| owner.has(tenant.as_str());
    let unavailable: Vec<&Owner> = unavailable(snapshot).filter(is_asked).collect();
    let mut rows = Vec::new();
    if !unavailable.is_empty() {
        return Ok(Reached { unavailable, overlapping: false, rows });
    }
    let rules = Rules::of(snapshot);
    let cells = Universe::of(rules.patterns().chain([tenant])).cells([tenant].into_iter())?;
    let raw = RawGroups::of(snapshot);
    for cell in &cells {
        let mut of_groups: BTreeMap<GroupId, Vec<_>> = BTreeMap::new();
        for (group, given, unit) in of_cell(snapshot, &rules.in_cell(cell), now) {
            of_groups.entry(group).or_default().push((given, cell.clone(), unit));
        }
        for (group, entries) in of_groups {
            let merged = merge(entries.into_iter(), &cells).into_iter();
            rows.extend(merged.map(|merged| Row::of(snapshot, &raw, snapshot.groups.name(group), merged)));
        }
    }
    rows.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(Reached { unavailable, overlapping: false, rows })
}

/// Every tenant that a grant gives to the group, or to everyone.
///
/// `group`: by its name in the policy, or as rules write an issuer's; `*` is every verified user. `now`: Unix seconds.
pub fn of_group<'s>(snapshot: &'s Snapshot, group: &str, now: u64) -> Reached<'s> {
    let who = Someone::of(snapshot, group);
    let granting = || who.granting(snapshot, now);
    let binding = || who.binding(snapshot);
    let unavailable: Vec<&Owner> = unavailable(snapshot).collect();
    let closed: Vec<&TenantPattern> = unavailable.iter().flat_map(|owner| owner.tenants.iter()).collect();
    // Tenants that only the rules of others tell apart are one to this group.
    let patterns = granting()
        .flat_map(|rule| patterns_of(snapshot, rule.owner, &rule.tenants, &rule.except_tenants))
        .chain(
            binding().flat_map(|rule| patterns_of(snapshot, rule.owner, &rule.tenants, &rule.except_tenants)),
        )
        .chain(closed.iter().copied())
        .chain(unavailable.iter().flat_map(|owner| owner.except_tenants.iter()));
    let targets = granting().flat_map(|rule| rule.tenants.iter());
    let (mut rows, overlapping): (Vec<Row>, bool) = match Universe::of(patterns).cells(targets) {
        Ok(cells) => {
            let rules = Rules::of(snapshot);
            let mut entries = Vec::new();
            let is_in =
                |cell: &Cell<'_>, tenants: &[TenantPattern]| tenants.iter().any(|own| cell.is_in(own));
            let is_closed = |cell: &Cell<'_>| {
                let mut owners = unavailable.iter();
                owners.any(|owner| is_in(cell, &owner.tenants) && !is_in(cell, &owner.except_tenants))
            };
            for cell in cells.iter().filter(|cell| !is_closed(cell)) {
                let found = rules.in_cell(cell);
                for unit in units() {
                    if let Some(given) = given(snapshot, &who, &found, *unit, now, |_| true) {
                        entries.push((given, cell.clone(), *unit));
                    }
                }
            }
            let merged = merge(entries.into_iter(), &cells).into_iter();
            let raw = RawGroups::of(snapshot);
            (merged.map(|merged| Row::of(snapshot, &raw, group, merged)).collect(), false)
        }
        Err(Entangled) => (one_by_one(snapshot, group, &who, &closed, now), true),
    };
    rows.sort_by(|a, b| a.tenants.cmp(&b.tenants));
    Reached { unavailable, overlapping, rows }
}

/// Every tenant that a grant gives to anybody, with everybody it is given to, as [`of_tenant`] says it of one.
///
/// `now`: Unix seconds.
pub fn of_all(snapshot: &Snapshot, now: u64) -> Reached<'_> {
    let unavailable: Vec<&Owner> = unavailable(snapshot).collect();
    let closed: Vec<&TenantPattern> = unavailable.iter().flat_map(|owner| owner.tenants.iter()).collect();
    let rules = Rules::of(snapshot);
    let live = || snapshot.grants.iter().filter(|grant| !grant.has_expired(now));
    let targets = live().flat_map(|grant| grant.tenants.iter());
    let patterns = rules.patterns().chain(closed.iter().copied());
    let (mut rows, overlapping) = match Universe::of(patterns).cells(targets) {
        Ok(cells) => {
            let mut entries = Vec::new();
            for cell in cells.iter().filter(|cell| !closed.iter().any(|pattern| cell.is_in(pattern))) {
                for (group, given, unit) in of_cell(snapshot, &rules.in_cell(cell), now) {
                    entries.push(((snapshot.groups.name(group), given), cell.clone(), unit));
                }
            }
            let raw = RawGroups::of(snapshot);
            let row = |Merged { what: (group, given), tenants, except, units }| {
                Row::of(snapshot, &raw, group, Merged { what: given, tenants, except, units })
            };
            (merge(entries.into_iter(), &cells).into_iter().map(row).collect::<Vec<Row>>(), false)
        }
        Err(Entangled) => {
            let groups: BTreeSet<GroupId> = live().flat_map(|grant| grant.groups.iter().copied()).collect();
            let rows = groups.into_iter().flat_map(|group| {
                let name = snapshot.groups.name(group);
                one_by_one(snapshot, name, &Someone::of(snapshot, name), &closed, now)
            });
            (rows.collect(), true)
        }
    };
    rows.sort_by(|a, b| (&a.tenants, &a.group).cmp(&(&b.tenants, &b.group)));
    Reached { unavailable, overlapping, rows }
}

/// What the rules of one cell give to each group: those that grants name, and those for which a restriction makes what
/// everyone may do different.
fn of_cell(snapshot: &Snapshot, found: &RulesOfCell<'_>, now: u64) -> Vec<(GroupId, Given, Unit)> {
    let granted = found.grants.iter().flat_map(|grant| grant.groups.iter());
    let bound = found.restrictions.iter().flat_map(|rule| rule.groups.iter().chain(&rule.except_groups));
    let groups: BTreeSet<GroupId> = granted.chain(bound).copied().collect();
    let mut all = Vec::new();
    for group in &groups {
        let who = Someone::of(snapshot, snapshot.groups.name(*group));
        // Groups that everybody in this one is in as well, and of which rows may speak.
        let wider = who.groups().iter().filter(|id| *id != group && groups.contains(*id));
        let wider: Vec<_> = wider.map(|id| Someone::of(snapshot, snapshot.groups.name(*id))).collect();
        all.extend(units().iter().filter_map(|unit| {
            let given_to = |who: &Someone<'_>| given(snapshot, who, found, *unit, now, |_| true);
            let own = |grant: &&Grant| grant.groups.contains(group);
            let given = given(snapshot, &who, found, *unit, now, own).or_else(|| {
                let mine = given_to(&who)?;
                let mut others = wider.iter().filter_map(given_to);
                let differs =
                    others.any(|(other, _)| other.from != mine.0.from || other.watched != mine.0.watched);
                differs.then_some(mine)
            })?;
            Some((*group, given, *unit))
        }));
    }
    all
}

/// Owners without a version of their document that could be used.
fn unavailable(snapshot: &Snapshot) -> impl Iterator<Item = &Owner> {
    snapshot.owners.iter().filter(|owner| !owner.available)
}

/// Somebody in this one group, or a service account.
enum Someone<'s> {
    User(Held),
    Account(&'s ServiceAccount),
}

impl<'s> Someone<'s> {
    fn of(snapshot: &'s Snapshot, group: &str) -> Self {
        if let Some(account) = snapshot.service_account(group) {
            return Self::Account(account);
        }
        let own = (group != "*").then_some(group);
        let own: Vec<&str> = own.into_iter().collect();
        Self::User(snapshot.groups.of_names(&own).map_or_else(|_| Held::everyone(), |(_, held)| held))
    }

    /// What counts for grants.
    fn groups(&self) -> &[GroupId] {
        match self {
            Self::User(held) => &held.groups,
            Self::Account(account) => &account.groups,
        }
    }

    /// What restrictions bind by.
    fn bound_by(&self) -> &[GroupId] {
        match self {
            Self::User(held) => held.binding(),
            Self::Account(_) => &[],
        }
    }

    /// The grants of its groups that have not run out.
    fn granting<'a>(&'a self, snapshot: &'a Snapshot, now: u64) -> impl Iterator<Item = &'a Grant> {
        let is_own = move |grant: &&Grant| grant.is_for(self.groups()) && !grant.has_expired(now);
        snapshot.grants.iter().filter(is_own)
    }

    /// The restrictions on its groups.
    fn binding<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Restriction> {
        snapshot.restrictions.iter().filter(|rule| rule.is_on(self.bound_by()))
    }

    /// Where requests must come from; for `shadow`, what is recorded only.
    fn bound(&self, snapshot: &Snapshot, rules: &RulesOfCell<'_>, unit: Unit, shadow: bool) -> Vec<Bound> {
        match self {
            Self::User(held) => {
                let binding = rules.binding(held, unit, shadow).into_iter();
                binding.map(|rule| Bound::of(rule, snapshot)).collect()
            }
            // No restriction binds it.
            Self::Account(_) if shadow => Vec::new(),
            Self::Account(account) => Bound::of_account(account).into_iter().collect(),
        }
    }
}

/// `None` where no grant that is `meant` gives it, and for a service account that is revoked.
fn given(
    snapshot: &Snapshot,
    who: &Someone<'_>,
    rules: &RulesOfCell<'_>,
    unit: Unit,
    now: u64,
    meant: impl Fn(&&Grant) -> bool,
) -> Option<Given> {
    if matches!(who, Someone::Account(account) if account.revoked) {
        return None;
    }
    let grants: Vec<&Grant> = rules.granting(who.groups(), unit, now).filter(meant).collect();
    let until = grants.iter().copied().map(until).max()?;
    let reach = Reach {
        until: Some(until),
        from: who.bound(snapshot, rules, unit, false),
        watched: who.bound(snapshot, rules, unit, true),
    };
    let source = |grant: &&Grant| {
        let owner = snapshot.owner_name(grant.owner).map(str::to_owned);
        (owner, grant.line, grant.name.to_string(), snapshot.file_of(grant.owner).to_owned())
    };
    Some((reach, grants.iter().map(source).collect()))
}

#[cfg(test)]
mod tests;
