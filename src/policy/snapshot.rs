//! A compiled policy: immutable, indexed, with a revision. A request is decided by exactly one snapshot.

pub use super::document::{QueryAudit, RestrictedScopes};
use super::index::TenantIndex;
use crate::client_ip::SourceConfig;
use crate::network::{Network, NetworkSet};
use crate::scope::ScopeSet;
use crate::tenant::TenantPattern;
use crate::token::claims::IssuerRules;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// A group's number within one snapshot. Never kept beyond it.
pub type GroupId = u32;

/// The group `*`: every verified user, no service account.
pub const EVERYONE: GroupId = 0;

/// One compiled policy.
#[derive(Debug)]
pub struct Snapshot {
    /// The hash of the policy's normalised content: 16 hexadecimal digits.
    pub revision: Box<str>,
    /// How the tokens of each issuer are verified and read.
    pub issuers: Vec<IssuerRules>,
    /// What records, metrics and group names call each issuer, parallel to `issuers`.
    pub issuer_names: Vec<Box<str>>,
    /// Headers that may carry a user's token, in the order in which they count.
    pub token_headers: Vec<Box<str>>,
    /// Where a user's address comes from; absent only where no restriction exists.
    pub client_ip: Option<SourceConfig>,
    /// How much of the query the audit record keeps.
    pub audit_query: QueryAudit,
    /// The groups that the policy knows.
    pub groups: GroupTable,
    /// Grants, in the order of the document.
    pub grants: Vec<Grant>,
    /// Restrictions, in the order of the document.
    pub restrictions: Vec<Restriction>,
    pub(crate) grant_index: TenantIndex,
    pub(crate) restriction_index: TenantIndex,
}

impl Snapshot {
    /// Puts a snapshot together and builds its indexes.
    #[expect(clippy::too_many_arguments, reason = "each is one section of the policy")]
    pub(super) fn new(
        revision: Box<str>,
        issuers: Vec<IssuerRules>,
        issuer_names: Vec<Box<str>>,
        token_headers: Vec<Box<str>>,
        client_ip: Option<SourceConfig>,
        audit_query: QueryAudit,
        groups: GroupTable,
        grants: Vec<Grant>,
        restrictions: Vec<Restriction>,
    ) -> Self {
        let grant_index = TenantIndex::build(grants.iter().map(|rule| (&*rule.tenants, &*rule.groups)));
        let restriction_index =
            TenantIndex::build(restrictions.iter().map(|rule| (&*rule.tenants, &*rule.groups)));
        Self {
            revision,
            issuers,
            issuer_names,
            token_headers,
            client_ip,
            audit_query,
            groups,
            grants,
            restrictions,
            grant_index,
            restriction_index,
        }
    }
}

/// `groups` may use `scopes` on `tenants`.
#[derive(Debug)]
pub struct Grant {
    /// Its name, or its path in the document.
    pub name: Box<str>,
    /// Line in the document, from 1.
    pub line: u32,
    /// Sorted, without duplicates.
    pub groups: Box<[GroupId]>,
    /// The tenants it covers.
    pub tenants: Box<[TenantPattern]>,
    /// Tenants it does not cover.
    pub except_tenants: Box<[TenantPattern]>,
    /// What may be done.
    pub scopes: ScopeSet,
    /// Unix seconds from which on it grants nothing.
    pub expires: Option<u64>,
}

impl Grant {
    /// Whether it has run out at `now` (Unix seconds).
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether the tenant is one of its exceptions.
    pub fn excepts(&self, tenant: &str) -> bool {
        self.except_tenants.iter().any(|pattern| pattern.matches(tenant))
    }
}

/// Users' requests on these tenants and scopes must come from these networks.
#[derive(Debug)]
pub struct Restriction {
    /// Its name, or its path in the document.
    pub name: Box<str>,
    /// Line in the document, from 1.
    pub line: u32,
    /// Sorted, without duplicates.
    pub groups: Box<[GroupId]>,
    /// A principal in any of them is not bound. Sorted.
    pub except_groups: Box<[GroupId]>,
    /// The tenants it binds.
    pub tenants: Box<[TenantPattern]>,
    /// Tenants it does not bind.
    pub except_tenants: Box<[TenantPattern]>,
    /// What it binds.
    pub scopes: RestrictedScopes,
    /// Where requests may come from.
    pub networks: NetworkSet,
    /// The same as written, for people: name (or the network itself) and networks.
    pub network_names: Box<[(Box<str>, Box<[Network]>)]>,
    /// It records what it would deny, and denies nothing.
    pub shadow: bool,
}

impl Restriction {
    /// Whether the tenant is one of its exceptions.
    pub fn excepts_tenant(&self, tenant: &str) -> bool {
        self.except_tenants.iter().any(|pattern| pattern.matches(tenant))
    }

    /// Whether any of the groups is one of its exceptions.
    pub fn excepts_groups(&self, groups: &[GroupId]) -> bool {
        self.except_groups.iter().any(|group| groups.binary_search(group).is_ok())
    }
}

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
