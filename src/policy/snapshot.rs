//! A compiled policy: immutable, indexed, with a revision. A request is decided by exactly one snapshot.

pub use super::document::{QueryAudit, RestrictedScopes};
pub use super::groups::{EVERYONE, GroupId, GroupTable};
use super::index::TenantIndex;
use crate::client_ip::SourceConfig;
use crate::network::{Network, NetworkSet};
use crate::scope::ScopeSet;
use crate::tenant::TenantPattern;
use crate::token::claims::IssuerRules;

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
    /// Until when (Unix seconds) denials are recorded and not applied.
    pub shadow_until: Option<u64>,
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
        shadow_until: Option<u64>,
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
            shadow_until,
            groups,
            grants,
            restrictions,
            grant_index,
            restriction_index,
        }
    }
}

impl Snapshot {
    /// Whether denials are only recorded at `now` (Unix seconds).
    pub fn is_shadow(&self, now: u64) -> bool {
        self.shadow_until.is_some_and(|until| now < until)
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
