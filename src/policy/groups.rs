//! Groups: the names that policies use, and which of an issuer's raw groups are which.

use hashbrown::HashMap;
use smallvec::SmallVec;

/// A group's number within one snapshot. Never kept beyond it.
pub type GroupId = u32;

/// The group `*`: every verified user, no service account.
pub const EVERYONE: GroupId = 0;

/// The groups that a policy names, and which of an issuer's raw groups are which.
#[derive(Debug)]
pub struct GroupTable {
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, GroupId>,
    /// What a raw group of a token stands for.
    raw: HashMap<Box<str>, SmallVec<[GroupId; 2]>>,
    /// `<issuer>:*`, and its number once a rule names it: every principal of the issuer that has a group at all.
    any_of_issuer: Vec<(Box<str>, Option<GroupId>)>,
}

impl GroupTable {
    /// A table of the issuers' aliases.
    ///
    /// `aliases`: name and raw groups. `issuers`: names, in their order.
    pub(super) fn new<'a>(
        issuers: impl Iterator<Item = &'a str>,
        aliases: impl Iterator<Item = (&'a str, Vec<&'a str>)>,
    ) -> Self {
        let mut table =
            Self { names: Vec::new(), ids: HashMap::new(), raw: HashMap::new(), any_of_issuer: Vec::new() };
        table.intern("*");
        let mut aliased = Vec::new();
        for (name, members) in aliases {
            aliased.push((table.intern(name), members));
        }
        for (id, members) in aliased {
            for member in members {
                table.raw.entry(member.into()).or_default().push(id);
            }
        }
        for issuer in issuers {
            table.any_of_issuer.push((format!("{issuer}:*").into(), None));
        }
        table
    }

    fn intern(&mut self, name: &str) -> GroupId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = GroupId::try_from(self.names.len()).unwrap_or(GroupId::MAX);
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        id
    }

    /// The number of a group as a rule writes it: an alias, `*`, `<issuer>:*`, or a raw group, which from now on
    /// stands for itself.
    pub(super) fn of_rule(&mut self, name: &str) -> GroupId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.intern(name);
        match self.any_of_issuer.iter_mut().find(|(every, _)| **every == *name) {
            Some((_, known)) => *known = Some(id),
            None => self.raw.entry(name.into()).or_default().push(id),
        }
        id
    }

    /// The group of this name, if the policy knows it.
    pub fn id(&self, name: &str) -> Option<GroupId> {
        self.ids.get(name).copied()
    }

    /// Whether the name is one that needs no definition: `*`, or `<issuer>:*`.
    pub(super) fn is_of_every_user(&self, name: &str) -> bool {
        name == "*" || self.any_of_issuer.iter().any(|(every, _)| **every == *name)
    }

    /// The name of a group; empty for a number of another snapshot.
    pub fn name(&self, id: GroupId) -> &str {
        usize::try_from(id).ok().and_then(|id| self.names.get(id)).map_or("", |name| name)
    }

    /// Every group, in the order of their numbers.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> {
        (0..).zip(&self.names).map(|(id, _)| id)
    }

    /// Every raw group that stands for something, with what it stands for.
    pub fn raw_groups(&self) -> impl Iterator<Item = (&str, &[GroupId])> {
        self.raw.iter().map(|(raw, ids)| (&**raw, &**ids))
    }

    /// Whether a raw group stands for anything that the policy names.
    pub fn stands_for_any(&self, raw: &str) -> bool {
        self.raw.contains_key(raw)
    }

    /// What a user's raw groups stand for: sorted, without duplicates, [`EVERYONE`] first.
    ///
    /// `issuer`: its position in the snapshot.
    pub fn of_user<'g>(&self, issuer: usize, raw: impl Iterator<Item = &'g str>) -> Box<[GroupId]> {
        let mut ids: SmallVec<[GroupId; 16]> = SmallVec::new();
        ids.push(EVERYONE);
        let mut any = false;
        for group in raw {
            any = true;
            if let Some(known) = self.raw.get(group) {
                ids.extend_from_slice(known);
            }
        }
        if any {
            ids.extend(self.any_of_issuer.get(issuer).and_then(|(_, known)| *known));
        }
        ids.sort_unstable();
        ids.dedup();
        ids.into_vec().into_boxed_slice()
    }

    /// What these group names stand for, as policy tests and `explain --groups` give them: names as rules write
    /// them, aliases included.
    pub fn of_names<'g>(&self, issuer: usize, names: impl Iterator<Item = &'g str>) -> Box<[GroupId]> {
        let mut ids = Vec::from([EVERYONE]);
        let mut any = false;
        for name in names {
            any = true;
            ids.extend(self.id(name));
            if let Some(known) = self.raw.get(name) {
                ids.extend_from_slice(known);
            }
        }
        if any {
            ids.extend(self.any_of_issuer.get(issuer).and_then(|(_, known)| *known));
        }
        ids.sort_unstable();
        ids.dedup();
        ids.into_boxed_slice()
    }
}
