//! Groups: the names that policies use, and which of an issuer's raw groups are which.
//!
//! Raw groups are filed under the issuer that gives them, so that no issuer can speak for another, and never under a
//! name that has a meaning of its own: `*`, `<issuer>:*` and `service:<account>` are reached by no raw group.

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use std::fmt;

/// A group's number within one snapshot. Never kept beyond it.
pub type GroupId = u32;

/// The group `*`: every verified user, no service account.
pub const EVERYONE: GroupId = 0;

/// What stands before the name of a service account where groups are named, and what audit records call the issuer of
/// service tokens.
pub const SERVICE: &str = "service";

/// The groups that a policy names, and which of an issuer's raw groups are which.
#[derive(Debug)]
pub struct GroupTable {
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, GroupId>,
    /// In the order of the snapshot.
    issuers: Vec<IssuerGroups>,
    aliases: HashMap<GroupId, Alias>,
    /// Every group of an issuer that stands for something, as the policy writes it.
    written: Vec<Box<str>>,
    /// Revoked groups, as the policy names them.
    revoked: HashSet<Box<str>>,
}

/// What an alias stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Alias {
    /// The issuers that give its groups: the first, and whether there is another one.
    issuer: Option<(usize, bool)>,
    /// Some of its groups is not revoked.
    any_left: bool,
}

impl Alias {
    fn add(&mut self, issuer: usize, is_revoked: bool) {
        let mixed = self.issuer.is_some_and(|(first, mixed)| mixed || first != issuer);
        self.issuer = Some((self.issuer.map_or(issuer, |(first, _)| first), mixed));
        self.any_left |= !is_revoked;
    }
}

/// The groups of one issuer.
#[derive(Debug)]
struct IssuerGroups {
    name: Box<str>,
    /// Its groups are written without its name: it is the only issuer, or the one with `bare_groups`.
    bare: bool,
    /// The number of `<name>:*`, once a rule names it: every principal of the issuer that has a group at all.
    every: Option<GroupId>,
    /// What a raw group of a token stands for.
    raw: HashMap<Box<str>, SmallVec<[GroupId; 2]>>,
    /// Raw groups that are taken from every token.
    revoked: HashSet<Box<str>>,
}

/// What a user holds in one snapshot. Each list is sorted, without duplicates, [`EVERYONE`] first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What counts for grants, and for the exceptions of restrictions.
    pub groups: Box<[GroupId]>,
    /// The same with the revoked groups, where there are any.
    with_revoked: Option<Box<[GroupId]>>,
}

impl Held {
    /// What nobody is without.
    pub fn everyone() -> Self {
        Self { groups: Box::from([EVERYONE]), with_revoked: None }
    }

    /// What is held together with that.
    pub fn with(&self, other: &Self) -> Self {
        let both = |own: &[GroupId], others: &[GroupId]| -> Box<[GroupId]> {
            let mut all = [own, others].concat();
            all.sort_unstable();
            all.dedup();
            all.into_boxed_slice()
        };
        let groups = both(&self.groups, &other.groups);
        let all = both(self.binding(), other.binding());
        let with_revoked = (all != groups).then_some(all);
        Self { groups, with_revoked }
    }

    /// The groups by which restrictions bind: revoked ones too, since a revocation must not widen anything.
    pub fn binding(&self) -> &[GroupId] {
        self.with_revoked.as_deref().unwrap_or(&self.groups)
    }
}

/// Names of groups that no one user can hold together: they are given by different issuers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixedIssuers(pub String, pub String);

impl fmt::Display for MixedIssuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` and `{}` are given by different issuers, and nobody is a user of two", self.0, self.1)
    }
}

/// An issuer as the names of its groups depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct IssuerName<'a> {
    pub(super) name: &'a str,
    /// It has `bare_groups`.
    pub(super) bare: bool,
}

impl GroupTable {
    /// A table of the issuers' aliases and the service accounts' groups.
    ///
    /// `issuers`: in their order. `accounts`: names of service accounts. `aliases`: name and groups. `revoked`: names of
    /// groups as rules write them.
    pub(super) fn new<'a>(
        issuers: &[IssuerName<'_>],
        accounts: impl Iterator<Item = &'a str>,
        aliases: impl Iterator<Item = (&'a str, Vec<&'a str>)>,
        revoked: impl Iterator<Item = &'a str>,
    ) -> Self {
        let only = issuers.len() == 1;
        let issuers = issuers.iter().map(|issuer| IssuerGroups {
            name: issuer.name.into(),
            bare: only || issuer.bare,
            every: None,
            raw: HashMap::new(),
            revoked: HashSet::new(),
        });
        let mut table = Self {
            names: Vec::new(),
            ids: HashMap::new(),
            issuers: issuers.collect(),
            aliases: HashMap::new(),
            written: Vec::new(),
            revoked: revoked.map(Box::from).collect(),
        };
        table.intern("*");
        for account in accounts {
            table.intern(&format!("{SERVICE}:{account}"));
        }
        let mut aliased = Vec::new();
        for (name, members) in aliases {
            let id = table.intern(name);
            table.aliases.insert(id, Alias::default());
            aliased.push((name, id, members));
        }
        for (name, id, members) in aliased {
            for member in members {
                table.add_raw(member, id);
                // An alias stands for its groups: whoever revokes it means them.
                if table.revoked.contains(name) {
                    table.revoke_raw(member);
                }
            }
        }
        let revoked: Vec<Box<str>> = table.revoked.iter().cloned().collect();
        for name in revoked {
            if table.id(&name).is_none_or(|id| !table.aliases.contains_key(&id)) {
                table.revoke_raw(&name);
            }
        }
        for (number, issuer) in table.issuers.iter().enumerate() {
            for (raw, ids) in &issuer.raw {
                let is_revoked = issuer.revoked.contains(raw);
                for id in ids {
                    if let Some(alias) = table.aliases.get_mut(id) {
                        alias.add(number, is_revoked);
                    }
                }
            }
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

    fn add_raw(&mut self, name: &str, id: GroupId) {
        if let Some((issuer, raw)) = self.giver(name)
            && let Some(issuer) = self.issuers.get_mut(issuer)
        {
            let ids = issuer.raw.entry(raw.into()).or_default();
            if ids.is_empty() {
                self.written.push(name.into());
            }
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    fn revoke_raw(&mut self, name: &str) {
        if let Some((issuer, raw)) = self.giver(name)
            && let Some(issuer) = self.issuers.get_mut(issuer)
        {
            issuer.revoked.insert(raw.into());
        }
    }

    /// Which issuer gives the group that is written like this, and how its tokens write it. `None` for a name with a
    /// meaning of its own, and for one that no issuer could give. An alias is not looked for.
    pub fn giver<'n>(&self, name: &'n str) -> Option<(usize, &'n str)> {
        if name.is_empty() || self.is_of_every_user(name) {
            return None;
        }
        // No issuer's name holds a colon, so the first one ends it.
        if let Some((issuer, raw)) = name.split_once(':') {
            if issuer == SERVICE {
                return None;
            }
            let place = self.issuers.iter().position(|known| !known.bare && *known.name == *issuer);
            if let Some(place) = place {
                return (!raw.is_empty()).then_some((place, raw));
            }
        }
        self.issuers.iter().position(|issuer| issuer.bare).map(|place| (place, name))
    }

    /// The number of a group as a rule writes it: an alias, `*`, `<issuer>:*`, a service account's, or a group of an
    /// issuer, which from now on stands for itself.
    pub(super) fn of_rule(&mut self, name: &str) -> GroupId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.intern(name);
        match self.issuers.iter_mut().find(|issuer| is_every(name, &issuer.name)) {
            Some(issuer) => issuer.every = Some(id),
            None => self.add_raw(name, id),
        }
        id
    }

    /// The group of this name, if the policy knows it.
    pub fn id(&self, name: &str) -> Option<GroupId> {
        self.ids.get(name).copied()
    }

    /// Whether the name is one that needs no definition: `*`, or `<issuer>:*`.
    pub(super) fn is_of_every_user(&self, name: &str) -> bool {
        name == "*" || self.issuers.iter().any(|issuer| is_every(name, &issuer.name))
    }

    /// Whether no user is without the group: `*`, and with one issuer `<issuer>:*`.
    pub(super) fn is_everybody(&self, name: &str) -> bool {
        name == "*" || (self.issuers.len() == 1 && self.is_of_every_user(name))
    }

    /// Whether the name is an alias.
    pub fn is_alias(&self, name: &str) -> bool {
        self.id(name).is_some_and(|id| self.aliases.contains_key(&id))
    }

    /// Whether a rule or an alias names the group.
    pub(super) fn knows(&self, name: &str) -> bool {
        let given = || {
            let (issuer, raw) = self.giver(name)?;
            self.issuers.get(issuer).map(|issuer| issuer.raw.contains_key(raw))
        };
        self.ids.contains_key(name) || given().unwrap_or(false)
    }

    /// Whether the groups of an issuer are written without its name.
    pub fn is_bare(&self, issuer: usize) -> bool {
        self.issuers.get(issuer).is_some_and(|issuer| issuer.bare)
    }

    /// The groups that are revoked, as the policy names them.
    pub fn revoked(&self) -> &HashSet<Box<str>> {
        &self.revoked
    }

    /// Whether the policy revokes the group of this name.
    pub fn is_revoked(&self, name: &str) -> bool {
        self.revoked.contains(name)
    }

    /// The name of a group; empty for a number of another snapshot.
    pub fn name(&self, id: GroupId) -> &str {
        usize::try_from(id).ok().and_then(|id| self.names.get(id)).map_or("", |name| name)
    }

    /// Every group, in the order of their numbers.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> {
        (0..).zip(&self.names).map(|(id, _)| id)
    }

    /// Every group of an issuer that stands for something, as the policy writes it, with what it stands for.
    pub fn raw_groups(&self) -> impl Iterator<Item = (&str, &[GroupId])> {
        self.written.iter().filter_map(|name| {
            let (issuer, raw) = self.giver(name)?;
            Some((&**name, &**self.issuers.get(issuer)?.raw.get(raw)?))
        })
    }

    /// Whether an issuer's group, as a policy would write it, stands for anything that this one names.
    pub fn stands_for_any(&self, name: &str) -> bool {
        self.giver(name)
            .and_then(|(issuer, raw)| self.issuers.get(issuer)?.raw.get(raw))
            .is_some_and(|ids| !ids.is_empty())
    }

    /// For each issuer of several: `<issuer>:*`, and how a policy would write a group of it.
    ///
    /// `raw`: the group as the issuer's tokens write it.
    pub fn of_each_issuer(&self, raw: &str) -> Vec<(String, String)> {
        let several = self.issuers.iter().filter(|_| self.issuers.len() > 1);
        several
            .map(|issuer| {
                let written = if issuer.bare { raw.to_owned() } else { format!("{}:{raw}", issuer.name) };
                (format!("{}:*", issuer.name), written)
            })
            .collect()
    }

    /// What a user's raw groups stand for: sorted, without duplicates, [`EVERYONE`] first. Revoked groups are left out.
    ///
    /// `issuer`: its position in the snapshot.
    pub fn of_user<'g>(&self, issuer: usize, raw: impl Iterator<Item = &'g str>) -> Box<[GroupId]> {
        self.resolve(issuer, raw, true)
    }

    /// The same, with what restrictions bind by.
    pub fn held_by_user<'g>(&self, issuer: usize, raw: impl Iterator<Item = &'g str> + Clone) -> Held {
        let revokes = self.issuers.get(issuer).is_some_and(|issuer| !issuer.revoked.is_empty());
        let with_revoked = revokes.then(|| self.resolve(issuer, raw.clone(), false));
        Held { groups: self.resolve(issuer, raw, true), with_revoked }
    }

    fn resolve<'g>(
        &self,
        issuer: usize,
        raw: impl Iterator<Item = &'g str>,
        without_revoked: bool,
    ) -> Box<[GroupId]> {
        let mut ids: SmallVec<[GroupId; 16]> = SmallVec::new();
        ids.push(EVERYONE);
        if let Some(own) = self.issuers.get(issuer) {
            let mut any = false;
            for group in raw {
                if without_revoked && own.revoked.contains(group) {
                    continue;
                }
                if let Some(known) = own.raw.get(group) {
                    any = true;
                    ids.extend_from_slice(known);
                } else if !any && own.every.is_some() {
                    any = !self.is_forged(own, group);
                }
            }
            if any {
                ids.extend(own.every);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids.into_vec().into_boxed_slice()
    }

    /// Whether a raw group of an issuer whose groups are written bare would read as another issuer's, or as a service
    /// account's. It is then nothing at all. (None of these is ever among the groups that rules know: those are filed
    /// under the issuer they name.)
    fn is_forged(&self, own: &IssuerGroups, raw: &str) -> bool {
        own.bare
            && raw.split_once(':').is_some_and(|(prefix, _)| {
                prefix == SERVICE || self.issuers.iter().any(|other| !other.bare && *other.name == *prefix)
            })
    }

    /// What these names of groups stand for, as policy tests and `explain --groups` give them: names as rules write
    /// them, aliases included, all held by one user. Returns the issuer of that user, where the names tell, and what
    /// the user holds. `<issuer>:*` is held where the issuer is known.
    ///
    /// # Errors
    /// [`MixedIssuers`], with the first two names that do not fit.
    pub fn of_names(&self, names: &[&str]) -> Result<(Option<usize>, Held), MixedIssuers> {
        let mut of: Option<(usize, &str)> = (self.issuers.len() == 1).then_some((0, ""));
        for name in names {
            match (self.issuer_of(name), of) {
                (Some(issuer), Some((other, first))) if issuer != other => {
                    return Err(MixedIssuers(first.to_owned(), (*name).to_owned()));
                }
                (Some(issuer), None) => of = Some((issuer, name)),
                _ => {}
            }
        }
        let issuer = of.map(|(issuer, _)| issuer);
        let groups = self.resolve_names(issuer, names, true);
        let all = self.resolve_names(issuer, names, false);
        let with_revoked = (all != groups).then_some(all);
        Ok((issuer, Held { groups, with_revoked }))
    }

    /// What a user holds in whose token these groups are, as a policy would write each; a name in `group_names` is none.
    /// Only what everybody holds where different issuers give them.
    pub fn of_written(&self, groups: &[&str]) -> Held {
        let given: Vec<(usize, &str)> = groups.iter().filter_map(|name| self.giver(name)).collect();
        match given.first() {
            Some((issuer, _)) if given.iter().all(|(other, _)| other == issuer) => {
                self.held_by_user(*issuer, given.iter().map(|(_, raw)| *raw))
            }
            _ => Held::everyone(),
        }
    }

    fn resolve_names(&self, issuer: Option<usize>, names: &[&str], without_revoked: bool) -> Box<[GroupId]> {
        let mut ids = Vec::from([EVERYONE]);
        let mut any = false;
        for name in names {
            if without_revoked && self.is_revoked_by_name(name) {
                continue;
            }
            any |= *name != "*";
            ids.extend(self.id(name).filter(|_| !is_of_account(name)));
            if !self.is_alias(name)
                && let Some((issuer, raw)) = self.giver(name)
            {
                let known = self.issuers.get(issuer).and_then(|issuer| issuer.raw.get(raw));
                ids.extend(known.into_iter().flatten());
            }
        }
        if any {
            ids.extend(issuer.and_then(|issuer| self.issuers.get(issuer)).and_then(|issuer| issuer.every));
        }
        ids.sort_unstable();
        ids.dedup();
        ids.into_boxed_slice()
    }

    /// Whether no token can give this group because of a revocation: of the name itself, of the group it stands for
    /// by way of an alias, or of everything that an alias stands for.
    fn is_revoked_by_name(&self, name: &str) -> bool {
        if self.is_revoked(name) {
            return true;
        }
        if let Some(alias) = self.alias(name) {
            return alias.issuer.is_some() && !alias.any_left;
        }
        let given = self.giver(name).and_then(|(issuer, raw)| Some((self.issuers.get(issuer)?, raw)));
        given.is_some_and(|(issuer, raw)| issuer.revoked.contains(raw))
    }

    fn alias(&self, name: &str) -> Option<Alias> {
        self.aliases.get(&self.id(name)?).copied()
    }

    /// The issuer whose users alone can hold the group of this name.
    fn issuer_of(&self, name: &str) -> Option<usize> {
        if let Some(alias) = self.alias(name) {
            return alias.issuer.filter(|(_, mixed)| !mixed).map(|(issuer, _)| issuer);
        }
        let every = self.issuers.iter().position(|issuer| is_every(name, &issuer.name));
        every.or_else(|| self.giver(name).map(|(issuer, _)| issuer))
    }
}

/// Whether `name` is `<issuer>:*`.
fn is_every(name: &str, issuer: &str) -> bool {
    name.strip_suffix(":*") == Some(issuer)
}

/// Whether `name` is a service account's group.
pub(super) fn is_of_account(name: &str) -> bool {
    name.strip_prefix(SERVICE).is_some_and(|rest| rest.starts_with(':'))
}
