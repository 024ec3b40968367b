//! What was found, in the shape of its JSON form, which is stable.

use super::human::Labels;
use crate::access::diff::{self, Direction, Line, Who};
use crate::access::{Bound, NamedNetwork, Reach, ScopeAt, Unit, scopes_of, units};
use crate::cli::reach::end;
use crate::cli::timestamp;
use crate::policy::snapshot::{EVERYONE, Grant, GroupId, Restriction, Snapshot};
use serde::Serialize;
use serde_json::Value as Data;

/// What was found; the JSON form is stable.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) equal: bool,
    pub(super) old: Side,
    pub(super) new: Side,
    pub(super) changes: Vec<Changed>,
    /// Patterns of tenants, or excepted groups, overlap in too many ways: `rules` are listed in place of `changes`.
    pub(super) overlapping: bool,
    pub(super) rules: Vec<RuleChanged>,
    /// Other sections that differ.
    pub(super) settings: Vec<&'static str>,
    /// What differs in them, in words and as data.
    pub(super) details: Vec<Detail>,
}

#[derive(Serialize)]
pub(super) struct Detail {
    pub(super) section: &'static str,
    /// Of a revoked principal, its issuer, `service` for a service account; else null.
    pub(super) issuer: Option<String>,
    /// The issuer, service account or group, or the principal's id; null for the section itself.
    pub(super) name: Option<String>,
    /// A key; null for all of it.
    pub(super) what: Option<&'static str>,
    /// Null where there is none.
    pub(super) old: Option<Data>,
    pub(super) new: Option<Data>,
}

#[derive(Serialize)]
pub(super) struct Side {
    pub(super) file: String,
    pub(super) revision: String,
}

#[derive(Serialize)]
pub(super) struct Changed {
    /// `gained`, `lost`, `until` or `places`.
    pub(super) change: &'static str,
    /// Of `until`: `later` or `earlier`. Of `places`: `wider`, `narrower`, `moved`, or `recorded` where only what
    /// restrictions in shadow mode record differs.
    pub(super) direction: Option<&'static str>,
    /// `everyone`, `any_group`, `groups` or `service_account`.
    pub(super) who: &'static str,
    /// Of `groups`: whoever holds one of each list.
    pub(super) groups: Vec<Vec<GroupSeen>>,
    /// Of `service_account`: its name.
    pub(super) service_account: Option<String>,
    /// The tenants that all of these patterns match.
    pub(super) tenants: Vec<String>,
    /// Tenants among them of which the line does not speak: each list is what all of its patterns match.
    pub(super) except_tenants: Vec<Vec<String>>,
    pub(super) scopes: Vec<ScopeAt>,
    pub(super) old: Access,
    pub(super) new: Access,
}

/// A group as its issuer gives it.
#[derive(Serialize)]
pub(super) struct GroupSeen {
    pub(super) group: String,
    /// What `group_names` of either policy calls it.
    pub(super) names: Vec<String>,
}

/// A rule that only one of the policies has.
#[derive(Serialize)]
pub(super) struct RuleChanged {
    /// `gained` or `lost`: the rule, not an access. What others say besides is not looked at.
    pub(super) change: &'static str,
    /// `grant` or `restriction`.
    pub(super) rule: &'static str,
    pub(super) name: String,
    /// Whose document it stands in; null for the platform's.
    pub(super) owner: Option<String>,
    pub(super) file: String,
    pub(super) line: u32,
    /// Raw groups as the policy writes them: whoever holds one. `*`: every verified user.
    pub(super) groups: Vec<String>,
    /// Of a restriction: whoever holds one is not bound.
    pub(super) except_groups: Vec<String>,
    /// Patterns: the tenants that any of them matches.
    pub(super) tenants: Vec<String>,
    pub(super) except_tenants: Vec<String>,
    pub(super) scopes: Vec<ScopeAt>,
    #[serde(skip)]
    pub(super) units: Vec<Unit>,
    /// Of a restriction: where requests must come from.
    pub(super) networks: Vec<NamedNetwork>,
    /// Of a restriction in shadow mode.
    pub(super) shadow: bool,
    /// Of a grant; null where it has no end.
    pub(super) until: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Access {
    /// Whether these people have access by the groups named here.
    pub(super) granted: bool,
    /// Null where it has no end.
    pub(super) until: Option<String>,
    /// Everything that must be satisfied; empty: from anywhere.
    pub(super) from: Vec<Bound>,
    /// What is recorded only.
    pub(super) shadow: Vec<Bound>,
}

impl Changed {
    pub(super) fn of(line: &Line, labels: &Labels) -> Self {
        let seen = |group: &String| GroupSeen { group: group.clone(), names: labels.names(group) };
        let (who, groups, service_account) = match &line.who {
            Who::Everyone => ("everyone", Vec::new(), None),
            Who::AnyGroup => ("any_group", Vec::new(), None),
            Who::Account(name) => ("service_account", Vec::new(), Some(name.clone())),
            Who::Holders(groups) => {
                ("groups", groups.iter().map(|any| any.iter().map(seen).collect()).collect(), None)
            }
        };
        let access = |reach: &Reach| Access {
            granted: reach.until.is_some(),
            until: end(reach),
            from: reach.from.clone(),
            shadow: reach.watched.clone(),
        };
        Self {
            change: line.change.name(),
            direction: line.direction.map(Direction::name),
            who,
            groups,
            service_account,
            tenants: line.tenants.clone(),
            except_tenants: line.except.clone(),
            scopes: scopes_of(&line.units),
            old: access(&line.old),
            new: access(&line.new),
        }
    }
}

/// Every rule that only one of the policies has.
pub(super) fn rules(sides: [&Snapshot; 2], now: u64) -> Vec<RuleChanged> {
    let [old, new] = sides;
    let diff::Unmatched { grants, restrictions } = diff::unmatched(old, new, now);
    let changes = ["lost", "gained"].into_iter().zip(sides);
    let each = changes.zip(grants.into_iter().zip(restrictions));
    each.flat_map(|((change, snapshot), (grants, restrictions))| {
        let grants = grants.into_iter().map(move |rule| RuleChanged::of_grant(change, rule, snapshot));
        let restrictions = restrictions.into_iter();
        grants.chain(restrictions.map(move |rule| RuleChanged::of_restriction(change, rule, snapshot)))
    })
    .collect()
}

impl RuleChanged {
    fn of_grant(change: &'static str, rule: &Grant, snapshot: &Snapshot) -> Self {
        let units: Vec<_> = units().iter().copied().filter(|unit| rule.scopes.contains(unit.scope)).collect();
        Self {
            change,
            rule: "grant",
            name: rule.name.to_string(),
            owner: snapshot.owner_name(rule.owner).map(str::to_owned),
            file: snapshot.file_of(rule.owner).to_owned(),
            line: rule.line,
            groups: raw_groups(&rule.groups, snapshot),
            except_groups: Vec::new(),
            tenants: rule.tenants.iter().map(ToString::to_string).collect(),
            except_tenants: rule.except_tenants.iter().map(ToString::to_string).collect(),
            scopes: scopes_of(&units),
            units,
            networks: Vec::new(),
            shadow: false,
            until: rule.expires.map(timestamp),
        }
    }

    fn of_restriction(change: &'static str, rule: &Restriction, snapshot: &Snapshot) -> Self {
        let covered = units().iter().copied().filter(|unit| rule.scopes.cover(unit.scope, unit.backends));
        let units: Vec<_> = covered.collect();
        Self {
            change,
            rule: "restriction",
            name: rule.name.to_string(),
            owner: snapshot.owner_name(rule.owner).map(str::to_owned),
            file: snapshot.file_of(rule.owner).to_owned(),
            line: rule.line,
            groups: raw_groups(&rule.groups, snapshot),
            except_groups: raw_groups(&rule.except_groups, snapshot),
            tenants: rule.tenants.iter().map(ToString::to_string).collect(),
            except_tenants: rule.except_tenants.iter().map(ToString::to_string).collect(),
            scopes: scopes_of(&units),
            units,
            networks: Bound::of(rule, snapshot).networks,
            shadow: rule.shadow,
            until: None,
        }
    }
}

/// The raw groups that stand for any of these; a group for which none does is named itself.
fn raw_groups(groups: &[GroupId], snapshot: &Snapshot) -> Vec<String> {
    let of = |id: &GroupId| -> Vec<String> {
        let raw = snapshot.groups.raw_groups().filter(|(_, ids)| *id != EVERYONE && ids.contains(id));
        let raw: Vec<String> = raw.map(|(raw, _)| raw.to_owned()).collect();
        if raw.is_empty() { vec![snapshot.groups.name(*id).to_owned()] } else { raw }
    };
    let mut all: Vec<String> = groups.iter().flat_map(of).collect();
    all.sort_unstable();
    all.dedup();
    all
}
