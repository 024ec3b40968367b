//! What a record says about a person's groups in another policy.
//!
//! A record lists what the person held by the policy of its time. Where a group is missing in it, the person did not have
//! it only where that policy named the group and took nothing of it away: a revoked group grants nothing and
//! still binds, and no record lists it. What the new policy revokes is taken from what is listed.

use crate::policy::snapshot::{EVERYONE, GroupId, GroupTable, Snapshot};
use hashbrown::{HashMap, HashSet};
use std::cell::OnceCell;
use std::iter::once;

/// What a person holds.
pub(super) struct Holdings<'g> {
    /// What counts for grants, for certain: sorted, without duplicates, [`EVERYONE`] first.
    pub(super) groups: Vec<GroupId>,
    /// The same of what restrictions bind by.
    pub(super) bound_by: Vec<GroupId>,
    /// What the record says nothing about.
    open: &'g Open,
    /// What perhaps counts for grants besides.
    perhaps: Vec<GroupId>,
    /// By what restrictions perhaps bind besides.
    perhaps_bound: Vec<GroupId>,
}

impl Holdings<'_> {
    /// What counts for grants at most.
    pub(super) fn groups_at_most(&self) -> Vec<GroupId> {
        sorted([&*self.groups, &self.open.groups, &self.perhaps].concat())
    }

    /// By what restrictions bind at most.
    pub(super) fn bound_at_most(&self) -> Vec<GroupId> {
        sorted([&*self.bound_by, &self.open.bound_by, &self.perhaps_bound].concat())
    }
}

/// The groups of the policy that decides, and what is known of those that decided.
pub(super) struct Groups<'s> {
    table: &'s GroupTable,
    issuer_names: &'s [Box<str>],
    /// In the order of the snapshot.
    issuers: Vec<Issuer<'s>>,
    /// By revision.
    recorded: HashMap<String, Recorded>,
    /// A policy of which nothing is known.
    unknown: Recorded,
}

/// How one issuer's groups stand for those that a policy names. They are written as the policy writes them.
struct Issuer<'s> {
    /// `<name>:*`.
    every: String,
    /// What each stands for.
    standing: HashMap<&'s str, &'s [GroupId]>,
    /// The groups that stand for one that rules name.
    members: HashMap<GroupId, Vec<&'s str>>,
    /// Those that are revoked, also by way of an alias.
    revoked: HashSet<&'s str>,
}

/// What is known of a policy under which records were made.
#[derive(Default)]
struct Recorded {
    /// Groups that a record lists wherever they are held.
    listed: HashSet<Box<str>>,
    /// Groups of issuers that gave nothing to a record.
    revoked: HashSet<Box<str>>,
    /// By the policy itself, not by its records.
    certain: bool,
    /// What a record does not say about the users of each issuer, once it was asked for.
    open: OnceCell<Vec<Open>>,
}

/// Groups that a person may have held although the record does not list them. Sorted.
struct Open {
    /// Those that would count for grants.
    groups: Vec<GroupId>,
    /// Those by which restrictions would bind.
    bound_by: Vec<GroupId>,
    /// `<issuer>:*` is one of them.
    every: bool,
}

impl<'s> Issuer<'s> {
    fn all(snapshot: &'s Snapshot) -> Vec<Self> {
        let table = &snapshot.groups;
        let mut issuers: Vec<Self> = snapshot
            .issuer_names
            .iter()
            .map(|name| Self {
                every: format!("{name}:*"),
                standing: HashMap::new(),
                members: HashMap::new(),
                revoked: HashSet::new(),
            })
            .collect();
        for (name, ids) in table.raw_groups() {
            let Some((at, raw)) = table.giver(name) else { continue };
            let Some(issuer) = issuers.get_mut(at) else { continue };
            issuer.standing.insert(name, ids);
            for id in ids {
                issuer.members.entry(*id).or_default().push(name);
            }
            let held = table.held_by_user(at, once(raw));
            if *held.groups != *held.binding() {
                issuer.revoked.insert(name);
            }
        }
        // Those that stand for nothing: who has no other group does not hold `<issuer>:*`.
        for name in table.revoked().iter().filter(|name| !table.is_alias(name)) {
            if let Some(issuer) = table.giver(name).and_then(|(at, _)| issuers.get_mut(at)) {
                issuer.revoked.insert(name);
            }
        }
        issuers
    }

    /// What a record does not say about the issuer's users.
    fn open(&self, table: &GroupTable, recorded: &Recorded) -> Open {
        let is_listed = |name: &str| recorded.listed.contains(name);
        let mut open = Open {
            groups: Vec::new(),
            bound_by: Vec::new(),
            // Records do not say whether their policy revoked a group.
            every: !(recorded.certain && is_listed(&self.every)),
        };
        for (id, members) in &self.members {
            let unlisted = || members.iter().filter(|member| !is_listed(member));
            let any_revoked = || unlisted().any(|member| self.revoked.contains(*member));
            // What is revoked now was perhaps revoked then.
            if is_listed(table.name(*id)) && (recorded.certain || !any_revoked()) {
                continue;
            }
            if unlisted().next().is_some() {
                open.bound_by.push(*id);
            }
            if unlisted().any(|member| !self.revoked.contains(*member)) {
                open.groups.push(*id);
            }
        }
        open.groups.sort_unstable();
        open.bound_by.sort_unstable();
        open
    }
}

impl<'s> Groups<'s> {
    /// The groups of the policy that decides.
    pub(super) fn of(snapshot: &'s Snapshot) -> Self {
        let (table, issuers) = (&snapshot.groups, Issuer::all(snapshot));
        let (issuer_names, unknown) = (&*snapshot.issuer_names, Recorded::default());
        Self { table, issuer_names, issuers, recorded: HashMap::new(), unknown }
    }

    /// Takes note of what a policy names under which records were made.
    pub(super) fn learn_policy(&mut self, snapshot: &Snapshot) {
        let table = &snapshot.groups;
        let issuers = Issuer::all(snapshot);
        // Where an issuer's groups are written otherwise now, equal names are not the same groups.
        let are_written_alike = snapshot.issuer_names.iter().enumerate().all(|(then, name)| {
            let now = self.issuer_names.iter().position(|known| known == name);
            now.is_none_or(|now| self.table.is_bare(now) == table.is_bare(then))
        });
        let mut recorded = Recorded { certain: true, ..Recorded::default() };
        if are_written_alike {
            let is_listed = |id: &GroupId| {
                issuers.iter().all(|issuer| {
                    let mut members = issuer.members.get(id).into_iter().flatten();
                    (issuer.revoked.is_empty() || issuer.every != table.name(*id))
                        && !members.any(|member| issuer.revoked.contains(member))
                })
            };
            recorded.listed.extend(table.ids().filter(is_listed).map(|id| table.name(id).into()));
            let revoked = issuers.iter().flat_map(|issuer| &issuer.revoked);
            recorded.revoked.extend(revoked.map(|name| Box::from(*name)));
        }
        self.recorded.insert(snapshot.revision.to_string(), recorded);
    }

    /// Takes note of the groups of one record: what one record of a policy lists, all do that may.
    pub(super) fn learn<'g>(&mut self, revision: &str, groups: impl Iterator<Item = &'g str>) {
        let recorded = self.recorded.entry_ref(revision).or_default();
        if recorded.certain {
            return;
        }
        for group in groups {
            if !recorded.listed.contains(group) {
                recorded.listed.insert(group.into());
                recorded.open.take();
            }
        }
    }

    /// What a user holds of whom a record of this revision lists these groups.
    ///
    /// `issuer`: its position in the snapshot.
    pub(super) fn held<'g>(
        &self,
        issuer: usize,
        revision: &str,
        listed: impl Iterator<Item = &'g str>,
    ) -> Option<Holdings<'_>> {
        let own = self.issuers.get(issuer)?;
        let recorded = self.recorded.get(revision).unwrap_or(&self.unknown);
        let of_issuers = || self.issuers.iter().map(|issuer| issuer.open(self.table, recorded)).collect();
        let open = recorded.open.get_or_init(of_issuers).get(issuer)?;
        let (mut groups, mut bound_by) = (vec![EVERYONE], vec![EVERYONE]);
        let (mut perhaps, mut perhaps_bound) = (Vec::new(), Vec::new());
        // Whether the user has a group at all: perhaps, for certain, and one that is not revoked.
        let (mut any, mut some, mut some_left) = (open.every, false, false);
        for name in listed {
            any = true;
            if let Some(ids) = own.standing.get(name) {
                some = true;
                bound_by.extend(*ids);
                if !own.revoked.contains(name) {
                    some_left = true;
                    groups.extend(*ids);
                }
            } else if name == own.every {
                some = true;
                some_left |= own.revoked.iter().all(|group| recorded.revoked.contains(*group));
            } else if let Some(id) = self.table.id(name).filter(|_| self.table.is_alias(name)) {
                // By which of its groups is not listed: by none that was revoked then.
                let members = own.members.get(&id).into_iter().flatten();
                let mut members = members.filter(|member| !recorded.revoked.contains(**member));
                let revoked = members.clone().filter(|member| own.revoked.contains(**member)).count();
                some = true;
                bound_by.push(id);
                if revoked == 0 && !self.table.is_revoked(name) {
                    some_left = true;
                    groups.push(id);
                } else if members.any(|member| !own.revoked.contains(member)) {
                    perhaps.push(id);
                }
            } else if self.table.giver(name).is_some_and(|(giver, _)| giver == issuer) {
                some = true;
                some_left |= !own.revoked.contains(name);
            }
        }
        if let Some(every) = self.table.id(&own.every) {
            let push = |list: &mut Vec<GroupId>, is_held: bool| list.extend(is_held.then_some(every));
            push(&mut bound_by, some);
            push(&mut groups, some_left);
            push(&mut perhaps, any);
            push(&mut perhaps_bound, any);
        }
        Some(Holdings { groups: sorted(groups), bound_by: sorted(bound_by), open, perhaps, perhaps_bound })
    }
}

fn sorted(mut ids: Vec<GroupId>) -> Vec<GroupId> {
    // Most of them are sorted runs already.
    ids.sort();
    ids.dedup();
    ids
}
