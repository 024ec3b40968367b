//! A compiled policy: immutable, indexed, with a revision. A request is decided by exactly one snapshot.

mod outcome;

pub use super::document::{Audit, QueryAudit, RestrictedScopes};
pub use super::groups::{EVERYONE, GroupId, GroupTable, Held, MixedIssuers, SERVICE};
use super::index::TenantIndex;
use crate::client_ip::SourceConfig;
use crate::lines::Lines;
use crate::network::{Network, NetworkSet};
use crate::reason::Reason;
use crate::scope::ScopeSet;
use crate::tenant::{PatternSet, TenantList, TenantPattern, is_tenant};
use crate::token::claims::{Identity, IssuerRules};
use crate::token::digest::Sha256;
use crate::token::service::Credentials;
use crate::token::twin::twin;
use hashbrown::{HashMap, HashSet};
pub use outcome::{GrantOutcome, RestrictionOutcome};

/// One compiled policy.
#[derive(Debug)]
pub struct Snapshot {
    /// The hash of the policy's normalised content: 16 hexadecimal digits.
    pub revision: Box<str>,
    /// The platform's document, as diagnostics call it.
    pub file: Box<str>,
    /// How the tokens of each issuer are verified and read.
    pub issuers: Vec<IssuerRules>,
    /// What records, metrics and group names call each issuer, parallel to `issuers`.
    pub issuer_names: Vec<Box<str>>,
    /// Headers that may carry a user's token, in the order in which they count.
    pub token_headers: Vec<Box<str>>,
    /// Where a user's address comes from; absent only where no restriction exists.
    pub client_ip: Option<SourceConfig>,
    /// What audit records keep.
    pub audit: Audit,
    /// The address that denials name: where a person reads on.
    pub denial_help: Option<Box<str>>,
    /// Until when (Unix seconds) denials are recorded and not applied.
    pub shadow_until: Option<u64>,
    /// The groups that the policy knows.
    pub groups: GroupTable,
    /// Callers without a user's token.
    pub service_accounts: Box<[ServiceAccount]>,
    /// Who is no longer let in.
    pub revoked: Revocations,
    /// Grants, in the order of the document.
    pub grants: Vec<Grant>,
    /// Restrictions, in the order of the document.
    pub restrictions: Vec<Restriction>,
    /// Those to whom tenants were given, by the numbers that their rules say.
    pub owners: Vec<Owner>,
    /// The bounds of owners whose rules are not known, by the owners' numbers; nearly always of none, so that requests
    /// need not look.
    closed: Option<TenantIndex>,
    pub(crate) grant_index: TenantIndex,
    pub(crate) restriction_index: TenantIndex,
}

/// Somebody to whom tenants were given, with a document of rules for them.
#[derive(Debug)]
pub struct Owner {
    /// The owner's name.
    pub name: Box<str>,
    /// Its document, as diagnostics call it.
    pub file: Box<str>,
    /// The tenants within which its rules hold.
    pub tenants: PatternSet,
    /// Tenants among them that are none of its own: every rule of it excepts them.
    pub except_tenants: PatternSet,
    /// There is a version of its document that can be used.
    pub available: bool,
}

impl Owner {
    /// Whether the tenant was given to it.
    pub fn has(&self, tenant: &str) -> bool {
        self.tenants.matches(tenant) && !self.except_tenants.matches(tenant)
    }
}

impl Snapshot {
    /// Puts a snapshot together and builds its indexes.
    #[expect(clippy::too_many_arguments, reason = "each is one section of the policy")]
    pub(super) fn new(
        revision: Box<str>,
        file: Box<str>,
        issuers: Vec<IssuerRules>,
        issuer_names: Vec<Box<str>>,
        token_headers: Vec<Box<str>>,
        client_ip: Option<SourceConfig>,
        audit: Audit,
        denial_help: Option<Box<str>>,
        shadow_until: Option<u64>,
        groups: GroupTable,
        service_accounts: Box<[ServiceAccount]>,
        revoked: Revocations,
        grants: Vec<Grant>,
        restrictions: Vec<Restriction>,
    ) -> Self {
        let mut snapshot = Self {
            revision,
            file,
            issuers,
            issuer_names,
            token_headers,
            client_ip,
            audit,
            denial_help,
            shadow_until,
            groups,
            service_accounts,
            revoked,
            grants,
            restrictions,
            owners: Vec::new(),
            closed: None,
            grant_index: TenantIndex::default(),
            restriction_index: TenantIndex::default(),
        };
        snapshot.index();
        snapshot
    }

    /// Builds the indexes anew, after rules or owners were added.
    pub(super) fn index(&mut self) {
        self.closed = self.owners.iter().any(|owner| !owner.available).then(|| {
            let closed = |owner: &Owner| if owner.available { &[][..] } else { &[EVERYONE][..] };
            TenantIndex::build(0, self.owners.iter().map(|owner| (&*owner.tenants, closed(owner))))
        });
        self.grant_index = TenantIndex::build(0, self.grants.iter().map(Grant::indexed));
        self.restriction_index = TenantIndex::build(0, self.restrictions.iter().map(Restriction::indexed));
    }

    /// Whether a rule may speak about a tenant: the platform's about any, an owner's about those that were given to it.
    ///
    /// `owner`: that of the rule.
    pub fn is_in_bounds(&self, owner: Option<u32>, tenant: &str) -> bool {
        let Some(owner) = owner else { return true };
        let owner = usize::try_from(owner).ok().and_then(|owner| self.owners.get(owner));
        owner.is_some_and(|owner| owner.has(tenant))
    }

    /// The first owner of one of the tenants that has no version of its document which could be used: what it would
    /// have said about the tenant is not known.
    pub fn unavailable_owner(&self, tenants: &TenantList<'_>) -> Option<&Owner> {
        self.closed.as_ref().and_then(|closed| self.first_closed(closed, tenants))
    }

    #[cold]
    fn first_closed(&self, closed: &TenantIndex, tenants: &TenantList<'_>) -> Option<&Owner> {
        let mut first: Option<u32> = None;
        for tenant in tenants.iter() {
            closed.each_rule(tenant, &[EVERYONE], &mut |number| {
                let owner = usize::try_from(number).ok().and_then(|number| self.owners.get(number));
                if owner.is_none_or(|owner| owner.has(tenant)) {
                    first = Some(first.map_or(number, |other| other.min(number)));
                }
            });
        }
        self.owners.get(usize::try_from(first?).ok()?)
    }

    /// The name of a rule's owner; `None` for the platform's rules.
    pub fn owner_name(&self, owner: Option<u32>) -> Option<&str> {
        let owner = usize::try_from(owner?).ok().and_then(|owner| self.owners.get(owner))?;
        Some(&owner.name)
    }

    /// The document that a rule stands in, as diagnostics call it.
    ///
    /// `owner`: that of the rule.
    pub fn file_of(&self, owner: Option<u32>) -> &str {
        let owner = owner.and_then(|owner| self.owners.get(usize::try_from(owner).ok()?));
        owner.map_or(&self.file, |owner| &owner.file)
    }
}

impl Snapshot {
    /// Whether denials are only recorded at `now` (Unix seconds).
    pub fn is_shadow(&self, now: u64) -> bool {
        self.shadow_until.is_some_and(|until| now < until)
    }

    /// The service account whose group is written like this: `service:<name>`.
    pub fn service_account(&self, group: &str) -> Option<&ServiceAccount> {
        let name = group.strip_prefix(SERVICE)?.strip_prefix(':')?;
        self.service_accounts.iter().find(|account| *account.name == *name)
    }

    /// The service account that these credentials prove, by its position.
    ///
    /// `tenant`: the lines of `X-Scope-OrgID` beside them.
    ///
    /// # Errors
    /// [`Reason::TokenUnknown`].
    pub fn account_of(&self, credentials: &Credentials<'_>, tenant: Lines<&[u8]>) -> Result<usize, Reason> {
        let accounts = &self.service_accounts;
        credentials
            .verify(accounts.iter().map(|known| (&*known.name, &*known.token_sha256)), |number, user| {
                accounts.get(number).is_some_and(|account| account.asks_for(user, tenant))
            })
    }

    /// Until when (Unix seconds) the service account at this position, or the token it came with, is revoked; 0: it is
    /// not.
    pub fn account_revoked_until(&self, account: usize, credentials: &Credentials<'_>) -> u64 {
        match self.service_accounts.get(account) {
            Some(account) if !self.revoked.has_token(credentials.token()) => account.revoked_until,
            _ => u64::MAX,
        }
    }

    /// Whether that was so when the policy was compiled.
    pub fn is_revoked_account(&self, account: usize, credentials: &Credentials<'_>) -> bool {
        self.revoked.compiled_at < self.account_revoked_until(account, credentials)
    }
}

/// A caller that comes with a token of the policy's own: an agent, a script, alerting.
#[derive(Debug)]
pub struct ServiceAccount {
    /// Its name; its group is `service:<name>`.
    pub name: Box<str>,
    /// Line in the document, from 1.
    pub line: u32,
    /// Its group alone; nothing where that group is revoked.
    pub groups: Box<[GroupId]>,
    /// The SHA-256 of each of its tokens.
    pub token_sha256: Box<[Sha256]>,
    /// The tenant that it asks for where `X-Scope-OrgID` is absent: a request like any, and no grant.
    pub tenant: Option<Box<str>>,
    /// Where its TCP peer must be; `None`: anywhere.
    pub networks: Option<NetworkSet>,
    /// The same as written, for people: name (or the network itself) and networks.
    pub network_names: Box<[(Box<str>, Box<[Network]>)]>,
    /// Its requests come through a proxy: `X-Forwarded-For` beside its token is no mark of a person.
    pub behind_proxy: bool,
    /// It was among the revoked principals when the policy was compiled.
    pub revoked: bool,
    /// Until when (Unix seconds) it is among them; 0: it is not.
    pub revoked_until: u64,
}

impl ServiceAccount {
    /// Whether the user of `Basic` is the tenant that this account asks for, where Grafana's tools write it: the one of
    /// `X-Scope-OrgID` as it is written, or the account's own where that header is absent. A user only repeats a
    /// tenant, which is authorised like any other; it never names one.
    ///
    /// `tenant`: the lines of `X-Scope-OrgID`.
    #[cold]
    pub fn asks_for(&self, user: &[u8], tenant: Lines<&[u8]>) -> bool {
        match tenant {
            Lines::One(header) => header == user && is_tenant(user),
            Lines::None => self.tenant.as_ref().is_some_and(|tenant| tenant.as_bytes() == user),
            Lines::Several => false,
        }
    }
}

/// Who is no longer let in, although the signature of their token is good.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// `sub` and `oid`, by the issuer's position: until when (Unix seconds).
    pub(super) principals: HashMap<(usize, Box<str>), u64>,
    /// `kid`, by the issuer's position.
    pub(super) keys: HashSet<(usize, Box<str>)>,
    /// Of whole tokens.
    pub(super) tokens: HashSet<Sha256>,
    /// Unix seconds: what had ended then was never in force.
    pub(super) compiled_at: u64,
}

impl Revocations {
    /// The users who are revoked: the position of their issuer, a `sub` or `oid`, and until when (Unix seconds).
    pub fn principals(&self) -> impl Iterator<Item = (usize, &str, u64)> {
        self.principals.iter().map(|((issuer, id), until)| (*issuer, &**id, *until))
    }

    /// The keys that are revoked: the position of their issuer, and their `kid`.
    pub fn keys(&self) -> impl Iterator<Item = (usize, &str)> {
        self.keys.iter().map(|(issuer, kid)| (*issuer, &**kid))
    }

    /// The tokens that are revoked.
    pub fn tokens(&self) -> &HashSet<Sha256> {
        &self.tokens
    }

    /// Until when (Unix seconds) a user is revoked; 0: they are not.
    ///
    /// `issuer`: its position in the snapshot.
    pub fn principal_until(&self, issuer: usize, identity: &Identity) -> u64 {
        if self.principals.is_empty() {
            return 0;
        }
        let ids = [&identity.subject, &identity.object_id].into_iter().flatten();
        ids.filter_map(|id| self.principals.get(&(issuer, id.clone()))).copied().max().unwrap_or(0)
    }

    /// Whether a user was revoked when the policy was compiled, as its tests see it.
    ///
    /// `issuer`: its position in the snapshot.
    pub fn has_principal(&self, issuer: usize, identity: &Identity) -> bool {
        self.compiled_at < self.principal_until(issuer, identity)
    }

    /// Whether a key is revoked by any of its ids.
    ///
    /// `issuer`: its position in the snapshot.
    pub fn has_key(&self, issuer: usize, ids: &[Box<str>]) -> bool {
        !self.keys.is_empty() && ids.iter().any(|id| self.keys.contains(&(issuer, id.clone())))
    }

    /// Whether a token is revoked, a user's or a service account's, `Bearer` left off. Hashes it only where the policy
    /// revokes any token.
    pub fn has_token(&self, token: &[u8]) -> bool {
        let revoked = |token: &[u8]| self.tokens.contains(&Sha256::of(token));
        !self.tokens.is_empty() && (revoked(token) || twin(token).is_some_and(|twin| revoked(&twin)))
    }
}

/// `groups` may use `scopes` on `tenants`.
#[derive(Clone, Debug)]
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
    pub except_tenants: PatternSet,
    /// What may be done.
    pub scopes: ScopeSet,
    /// Unix seconds from which on it grants nothing.
    pub expires: Option<u64>,
    /// The owner whose document it stands in; `None` for the platform's.
    pub owner: Option<u32>,
    /// All its tenants were proven to lie within its owner's bounds, so that decisions need not look.
    pub within_bounds: bool,
}

impl Grant {
    /// What it is found by.
    pub(super) fn indexed(&self) -> (&[TenantPattern], &[GroupId]) {
        (&self.tenants, &self.groups)
    }

    /// Whether it has run out at `now` (Unix seconds).
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether the tenant is one of its exceptions.
    pub fn excepts(&self, tenant: &str) -> bool {
        self.except_tenants.matches(tenant)
    }
}

/// Users' requests on these tenants and scopes must come from these networks.
#[derive(Clone, Debug)]
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
    pub except_tenants: PatternSet,
    /// What it binds.
    pub scopes: RestrictedScopes,
    /// Where requests may come from.
    pub networks: NetworkSet,
    /// The same as written, for people: name (or the network itself) and networks.
    pub network_names: Box<[(Box<str>, Box<[Network]>)]>,
    /// It records what it would deny, and denies nothing.
    pub shadow: bool,
    /// The owner whose document it stands in; `None` for the platform's.
    pub owner: Option<u32>,
    /// All its tenants were proven to lie within its owner's bounds, so that decisions need not look.
    pub within_bounds: bool,
}

impl Restriction {
    /// Whether the tenant is one of its exceptions.
    pub fn excepts_tenant(&self, tenant: &str) -> bool {
        self.except_tenants.matches(tenant)
    }

    /// Whether any of the groups is one of its exceptions. `groups`: sorted.
    pub fn excepts_groups(&self, groups: &[GroupId]) -> bool {
        let (few, many) = if self.except_groups.len() <= groups.len() {
            (&*self.except_groups, groups)
        } else {
            (groups, &*self.except_groups)
        };
        few.iter().any(|group| many.binary_search(group).is_ok())
    }

    /// What it is found by.
    pub(super) fn indexed(&self) -> (&[TenantPattern], &[GroupId]) {
        (&self.tenants, &self.groups)
    }
}
