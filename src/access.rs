//! What a policy allows, seen from the outside: who reaches which tenants for what, from where and until when.
//!
//! Tenants are without number, rules are not: [`cells`] cuts the tenants into the few sets on which every rule says the
//! same. Within one, [`Rules`] looks up the rules that name it, and asks of them what [`crate::decision`] would ask.

pub mod cells;
pub mod diff;
pub mod merge;
pub mod reach;
pub mod settings;

use crate::network::{Network, NetworkSet};
use crate::policy::snapshot::{
    Grant, GrantOutcome, GroupId, Held, Restriction, RestrictionOutcome, ServiceAccount, Snapshot,
};
use crate::route::table;
use crate::scope::{BackendSet, Scope};
use crate::tenant::TenantPattern;
use cells::{Cell, Universe};
use hashbrown::HashMap;
use serde::Serialize;
use std::sync::LazyLock;

/// The smallest thing that a request can do: a scope, and for rules and alerts at one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// What it does.
    pub scope: Scope,
    /// Where; for a signal's own scope all backends that have a route for it, of which restrictions know nothing.
    pub backends: BackendSet,
}

/// Every unit that some route needs.
pub fn units() -> &'static [Unit] {
    static UNITS: LazyLock<Vec<Unit>> = LazyLock::new(|| {
        let mut units: Vec<Unit> = Vec::new();
        for scope in Scope::ALL {
            let backends: BackendSet =
                table().filter(|row| row.scope == Some(scope)).map(|row| row.backend).collect();
            if matches!(scope.signal(), "rules" | "alerts") {
                units.extend(backends.iter().map(|one| Unit { scope, backends: BackendSet::of(one) }));
            } else {
                units.push(Unit { scope, backends });
            }
        }
        units
    });
    &UNITS
}

/// Names of units: `rules:read (loki)` where they are not all units of that scope.
pub fn scope_names(of: &[Unit]) -> Vec<String> {
    let name = |ScopeAt { scope, backends }: ScopeAt| match backends {
        None => scope.to_owned(),
        Some(backends) => format!("{scope} ({})", backends.join(", ")),
    };
    scopes_of(of).into_iter().map(name).collect()
}

/// A scope as reports have it. Its form is stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeAt {
    /// Its name.
    pub scope: &'static str,
    /// The backends that are meant, where not all are that have it.
    pub backends: Option<Vec<&'static str>>,
}

/// The scopes of units, in the order of [`Scope::ALL`].
pub fn scopes_of(of: &[Unit]) -> Vec<ScopeAt> {
    let mut scopes = Vec::new();
    for scope in Scope::ALL {
        let all = units().iter().filter(|unit| unit.scope == scope).count();
        let found: Vec<_> = of.iter().filter(|unit| unit.scope == scope).collect();
        if !found.is_empty() {
            let backends = found.iter().map(|unit| unit.backends.label()).collect();
            scopes.push(ScopeAt { scope: scope.name(), backends: (found.len() < all).then_some(backends) });
        }
    }
    scopes
}

/// The end of an access; the later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// Unix seconds from which on it is none.
    Time(u64),
    /// It has no end.
    Always,
}

/// Where requests must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// No restriction binds: an address need not even be known.
    Anywhere,
    /// Inside all that bind.
    Within(NetworkSet),
}

impl Places {
    /// Where a service account must be.
    fn of_account(account: &ServiceAccount) -> Self {
        account.networks.clone().map_or(Self::Anywhere, Self::Within)
    }

    fn of(bound: &[&Restriction]) -> Self {
        let mut networks = bound.iter().map(|restriction| &restriction.networks);
        match networks.next() {
            None => Self::Anywhere,
            Some(first) => {
                Self::Within(networks.fold(first.clone(), |inside, more| inside.intersection(more)))
            }
        }
    }
}

/// Until when and from where tenants are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// Until when; `None` where these people have no access by themselves.
    pub until: Option<Until>,
    /// What must be satisfied; nothing: from anywhere.
    pub from: Vec<Bound>,
    /// Restrictions in shadow mode, which are recorded only.
    pub watched: Vec<Bound>,
}

/// A restriction as far as it binds, or the networks of a service account: where requests must come from. Its form in
/// reports is stable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Bound {
    /// The restriction's name; `None` for the networks of a service account.
    pub restriction: Option<String>,
    /// The owner whose document it stands in; `None` for the platform's.
    pub owner: Option<String>,
    /// Its networks.
    pub networks: Vec<NamedNetwork>,
}

/// What one entry of `networks` stands for. Its form in reports is stable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NamedNetwork {
    /// The name, or the network itself where it is written out.
    pub name: String,
    /// Addresses and CIDRs.
    pub networks: Vec<String>,
}

impl Bound {
    /// What a restriction of this snapshot demands.
    pub fn of(restriction: &Restriction, snapshot: &Snapshot) -> Self {
        Self {
            restriction: Some(restriction.name.to_string()),
            owner: snapshot.owner_name(restriction.owner).map(str::to_owned),
            networks: written(&restriction.network_names),
        }
    }

    /// Where a service account must come from; `None` for anywhere.
    pub fn of_account(account: &ServiceAccount) -> Option<Self> {
        account.networks.as_ref()?;
        Some(Self { restriction: None, owner: None, networks: written(&account.network_names) })
    }
}

/// Names of networks with what they stand for.
fn written(named: &[(Box<str>, Box<[Network]>)]) -> Vec<NamedNetwork> {
    let network = |(name, networks): &(Box<str>, Box<[Network]>)| NamedNetwork {
        name: name.to_string(),
        networks: networks.iter().map(ToString::to_string).collect(),
    };
    named.iter().map(network).collect()
}

/// A snapshot, searched by sets of tenants.
#[derive(Debug)]
pub struct Rules<'s> {
    /// The policy.
    pub snapshot: &'s Snapshot,
    grants: HashMap<&'s TenantPattern, Vec<Filed<'s, Grant>>>,
    restrictions: HashMap<&'s TenantPattern, Vec<Filed<'s, Restriction>>>,
}

/// A rule with what takes tenants from it.
#[derive(Debug)]
struct Filed<'s, R> {
    rule: &'s R,
    except: &'s [TenantPattern],
    bounds: Option<&'s [TenantPattern]>,
}

impl<'s, R> Filed<'s, R> {
    /// The rule, where it holds on the tenants of a cell that one of its patterns matches.
    fn in_cell(&self, cell: &Cell<'_>) -> Option<&'s R> {
        let any = |patterns: &[TenantPattern]| patterns.iter().any(|pattern| cell.is_in(pattern));
        (!any(self.except) && self.bounds.is_none_or(any)).then_some(self.rule)
    }
}

/// The rules that name the tenants of one cell, in the order of the document.
#[derive(Debug, Default)]
pub struct RulesOfCell<'s> {
    /// Grants; those that have run out as well.
    pub grants: Vec<&'s Grant>,
    /// Restrictions.
    pub restrictions: Vec<&'s Restriction>,
}

impl<'s> Rules<'s> {
    /// Files the rules by their tenants.
    pub fn of(snapshot: &'s Snapshot) -> Self {
        let mut rules = Self { snapshot, grants: HashMap::new(), restrictions: HashMap::new() };
        for rule in &snapshot.grants {
            let bounds = bounds(snapshot, rule.owner, &rule.tenants);
            for tenant in &rule.tenants {
                let filed = Filed { rule, except: &rule.except_tenants, bounds };
                rules.grants.entry(tenant).or_default().push(filed);
            }
        }
        for rule in &snapshot.restrictions {
            let bounds = bounds(snapshot, rule.owner, &rule.tenants);
            for tenant in &rule.tenants {
                let filed = Filed { rule, except: &rule.except_tenants, bounds };
                rules.restrictions.entry(tenant).or_default().push(filed);
            }
        }
        rules
    }

    /// Every tenant and pattern that tells the rules apart.
    pub fn patterns(&self) -> impl Iterator<Item = &'s TenantPattern> {
        let snapshot = self.snapshot;
        let granted = snapshot
            .grants
            .iter()
            .flat_map(move |rule| patterns_of(snapshot, rule.owner, &rule.tenants, &rule.except_tenants));
        let restrictions = snapshot.restrictions.iter();
        granted.chain(
            restrictions
                .flat_map(move |rule| patterns_of(snapshot, rule.owner, &rule.tenants, &rule.except_tenants)),
        )
    }

    /// The rules that name the tenants of a cell.
    pub fn in_cell(&self, cell: &Cell<'_>) -> RulesOfCell<'s> {
        let mut found = RulesOfCell::default();
        for pattern in cell.patterns() {
            let grants = self.grants.get(pattern).into_iter().flatten();
            found.grants.extend(grants.filter_map(|filed| filed.in_cell(cell)));
            let restrictions = self.restrictions.get(pattern).into_iter().flatten();
            found.restrictions.extend(restrictions.filter_map(|filed| filed.in_cell(cell)));
        }
        // A rule may name the cell in several ways.
        found.grants.sort_by_key(|rule| std::ptr::from_ref(*rule));
        found.grants.dedup_by_key(|rule| std::ptr::from_ref(*rule));
        found.restrictions.sort_by_key(|rule| std::ptr::from_ref(*rule));
        found.restrictions.dedup_by_key(|rule| std::ptr::from_ref(*rule));
        found
    }
}

impl<'s> RulesOfCell<'s> {
    /// The grants that give somebody of these groups this unit, at `now` (Unix seconds).
    ///
    /// `groups`: sorted.
    pub fn granting(&self, groups: &[GroupId], unit: Unit, now: u64) -> impl Iterator<Item = &'s Grant> {
        let allows = move |grant: &&Grant| grant.outcome(groups, unit.scope, now) == GrantOutcome::Allows;
        self.grants.iter().copied().filter(allows)
    }

    /// Until when somebody of these groups has access, wherever from; `None` for not at all.
    pub fn until(&self, groups: &[GroupId], unit: Unit, now: u64) -> Option<Until> {
        self.granting(groups, unit, now).map(until).max()
    }

    /// The restrictions that bind somebody who holds this; those in shadow mode for `shadow`, else those that deny.
    /// Revoked groups bind too, and except from nothing.
    pub fn binding(&self, held: &Held, unit: Unit, shadow: bool) -> Vec<&'s Restriction> {
        // What binds is violated by who is nowhere.
        let outcome =
            |rule: &Restriction| rule.outcome(&held.groups, held.binding(), unit.scope, unit.backends, None);
        let binds = |rule: &&Restriction| {
            rule.shadow == shadow && outcome(rule) == Some(RestrictionOutcome::Violated)
        };
        self.restrictions.iter().copied().filter(binds).collect()
    }
}

/// The tenants within which an owner's rule holds, where it names others as well: a document that was good stays in
/// force when the platform gives its owner fewer. `None` where the rule names nothing outside its bounds.
///
/// `owner` and `tenants`: those of the rule. It is what [`Snapshot::is_in_bounds`] says of a single tenant.
fn bounds<'s>(
    snapshot: &'s Snapshot,
    owner: Option<u32>,
    tenants: &[TenantPattern],
) -> Option<&'s [TenantPattern]> {
    let owner = usize::try_from(owner?).ok().and_then(|owner| snapshot.owners.get(owner));
    let bounds = owner.map_or(&[][..], |owner| &*owner.tenants);
    let is_within = |tenant| bounds.iter().any(|bound| bound.covers(tenant));
    (!tenants.iter().all(is_within)).then_some(bounds)
}

/// What tells the tenants of a rule apart from others: its patterns, its exceptions and its bounds.
fn patterns_of<'s>(
    snapshot: &'s Snapshot,
    owner: Option<u32>,
    tenants: &'s [TenantPattern],
    except: &'s [TenantPattern],
) -> impl Iterator<Item = &'s TenantPattern> {
    tenants.iter().chain(except).chain(bounds(snapshot, owner, tenants).unwrap_or_default())
}

/// Until when a grant holds.
fn until(grant: &Grant) -> Until {
    grant.expires.map_or(Until::Always, Until::Time)
}

/// The sets of tenants on which all rules of these policies say the same, as far as they lie in `targets`.
///
/// # Errors
/// [`cells::Entangled`].
pub fn cells<'s>(
    policies: &[&Rules<'s>],
    targets: impl Iterator<Item = &'s TenantPattern>,
) -> Result<Vec<Cell<'s>>, cells::Entangled> {
    Universe::of(policies.iter().flat_map(|rules| rules.patterns())).cells(targets)
}
