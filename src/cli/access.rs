//! `tenantauth access`: who may reach a tenant, or what a group may reach; for the quarterly review.

mod one_by_one;

use super::check::Entry;
use super::{
    Answer, Failure, Format, MAX_LISTED, Status, columns, first_few, json, lines, load, place_of, plain,
    refused, refused_owners, timestamp,
};
use crate::access::cells::{Entangled, Universe};
use crate::access::merge::{Merged, merge};
use crate::access::{Bound, Rules, RulesOfCell, Unit, Until, units};
use crate::engine::unix_now;
use crate::policy::snapshot::{EVERYONE, Grant, GroupId, Held, Owner, Restriction, ServiceAccount, Snapshot};
use crate::scope::{Scope, ScopeSet};
use crate::tenant::{TenantPattern, is_tenant};
use clap::{ArgGroup, Args};
use one_by_one::one_by_one;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A longer text of a network's name and addresses is cut, in bytes.
const MAX_NETWORK: usize = 120;

/// Shows who may reach a tenant, or which tenants a group may reach: for what, from where, until when.
///
/// What is listed is true for somebody in that one group. With --tenant a group has lines where a grant names it, and
/// where a restriction makes what everyone may do different for it: `everyone` is whoever is in no such group. Further
/// groups add their grants, and the restrictions that bind or except them; `explain` decides such a case. Grants that
/// have expired are left out, and `mode: shadow` is not looked at. Where patterns of tenants overlap in too many ways,
/// each line of --group is one grant.
///
/// Exit status 0, 1 where the policy cannot be read, 3 where it is invalid. Where only an owner's document is invalid
/// the answer is given all the same, as it is without a last good version, and the exit status is 3.
#[derive(Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["tenant", "group"]))]
pub(super) struct Access {
    /// The policy: a file, or a directory that holds a `policy.yaml`.
    #[arg(long)]
    policy: PathBuf,
    /// Who may reach this tenant?
    #[arg(long, value_parser = parse_tenant)]
    tenant: Option<String>,
    /// What may this group reach? By its name in the policy, or as the issuer gives it; `*` is every verified user.
    #[arg(long)]
    group: Option<String>,
}

fn parse_tenant(text: &str) -> Result<String, &'static str> {
    if !is_tenant(text.as_bytes()) {
        return Err("no tenant that the backends accept");
    }
    if text.contains('*') { Err("one tenant, not a pattern") } else { Ok(text.to_owned()) }
}

/// What was found; the JSON form is stable.
#[derive(Serialize)]
struct Report {
    policy: String,
    revision: String,
    time: String,
    tenant: Option<String>,
    group: Option<String>,
    /// Owners whose documents cannot be used: without a last good version nobody reaches their tenants.
    unavailable: Vec<Unavailable>,
    /// The patterns of tenants overlap in too many ways: each row is one grant by itself, and rows overlap.
    overlapping: bool,
    access: Vec<Row>,
    /// What is wrong with documents of owners that cannot be used.
    diagnostics: Vec<Entry>,
}

#[derive(Serialize)]
struct Unavailable {
    owner: String,
    tenants: Vec<String>,
}

#[derive(Clone, Serialize)]
struct Row {
    /// The group; `*`: every verified user.
    group: String,
    /// Raw groups that its name stands for.
    raw_groups: Vec<String>,
    /// The tenants that all of these patterns match.
    tenants: Vec<String>,
    /// Tenants among them of which the row does not speak; in one entry, `a & b` is what several patterns have in
    /// common.
    except_tenants: Vec<String>,
    scopes: Vec<String>,
    /// Everything that must be satisfied; empty: from anywhere.
    from: Vec<Demand>,
    /// What must be satisfied besides for some of the tenants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    from_in_parts: Vec<Demand>,
    /// What is recorded only.
    shadow: Vec<Demand>,
    /// Null where it has no end.
    until: Option<String>,
    grants: Vec<Named>,
    #[serde(skip)]
    shown_from: String,
}

#[derive(Clone, Serialize)]
struct Named {
    name: String,
    /// Whose document it stands in; null for the platform's.
    owner: Option<String>,
    line: u32,
}

/// A restriction that binds, and the networks that satisfy it.
#[derive(Clone, Serialize)]
pub(super) struct Demand {
    /// Null for the networks of a service account.
    restriction: Option<String>,
    /// Whose document it stands in; null for the platform's.
    owner: Option<String>,
    networks: Vec<String>,
}

/// What is true of a group on a set of tenants for some units.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Truth {
    until: Until,
    from: Vec<Bound>,
    watched: Vec<Bound>,
    /// Owner, line and name.
    grants: Vec<(Option<String>, u32, String)>,
}

impl Access {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let now = unix_now();
        let (outcome, _, read) = load(&self.policy, now);
        let Some(compiled) = &outcome.compiled else {
            return refused(&self.policy, &outcome, read, format);
        };
        let snapshot = &compiled.snapshot;
        let mut err = lines(refused_owners(&outcome.owners));
        let status = if err.is_empty() { Status::Ok } else { Status::Invalid };
        let is_asked = |owner: &&Owner| {
            let tenant = self.tenant.as_deref();
            tenant.is_none_or(|tenant| owner.tenants.iter().any(|pattern| pattern.matches(tenant)))
        };
        let unavailable: Vec<Unavailable> = unavailable(snapshot)
            .filter(is_asked)
            .map(|owner| Unavailable {
                owner: owner.name.to_string(),
                tenants: owner.tenants.iter().map(ToString::to_string).collect(),
            })
            .collect();
        let (access, overlapping) = match (&self.tenant, &self.group) {
            (Some(_), _) if !unavailable.is_empty() => (Vec::new(), false),
            (Some(tenant), _) => (of_tenant(snapshot, tenant, now)?, false),
            (None, group) => {
                let group = group.as_deref().unwrap_or_default();
                if snapshot.groups.id(group).is_none() && !snapshot.groups.stands_for_any(group) {
                    _ = writeln!(err, "note: nothing in the policy names the group `{}`", plain(group));
                }
                if let Someone::User(held) = Someone::of(snapshot, group)
                    && *held.groups != *held.binding()
                {
                    let what = "it grants nothing and excepts nobody, and restrictions on it still bind";
                    _ = writeln!(err, "note: the policy revokes the group `{}`: {what}", plain(group));
                }
                of_group(snapshot, group, now)
            }
        };
        let report = Report {
            policy: self.policy.display().to_string(),
            revision: snapshot.revision.to_string(),
            time: timestamp(now),
            tenant: self.tenant,
            group: self.group,
            unavailable,
            overlapping,
            access,
            diagnostics: refused_owners(&outcome.owners).map(Entry::of).collect(),
        };
        let out = match format {
            Format::Json => json(&report)?,
            Format::Human => human(&report),
        };
        Ok(Answer { status, out, err })
    }
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure(error.to_string())
}

/// Every group that a grant gives the tenant to, those of service accounts included, and every group for which a
/// restriction makes a difference to what everyone may do.
fn of_tenant(snapshot: &Snapshot, tenant: &str, now: u64) -> Result<Vec<Row>, Failure> {
    let written = TenantPattern::parse(tenant).map_err(failure)?;
    let rules = Rules::of(snapshot);
    let cells =
        Universe::of(rules.patterns().chain([&written])).cells([&written].into_iter()).map_err(failure)?;
    let mut rows = Vec::new();
    for cell in &cells {
        let found = rules.in_cell(cell);
        let granted = found.grants.iter().flat_map(|grant| grant.groups.iter());
        let bound = found.restrictions.iter().flat_map(|rule| rule.groups.iter().chain(&rule.except_groups));
        let groups: BTreeSet<GroupId> = granted.chain(bound).copied().collect();
        for group in &groups {
            let name = snapshot.groups.name(*group);
            let who = Someone::of(snapshot, name);
            // Groups that everybody in this one is in as well, and of which lines may speak.
            let wider = who.groups().iter().filter(|id| *id != group && groups.contains(*id));
            let wider: Vec<_> = wider.map(|id| Someone::of(snapshot, snapshot.groups.name(*id))).collect();
            let entries = units().iter().filter_map(|unit| {
                let truth_of = |who: &Someone<'_>| truth(snapshot, who, &found, *unit, now, |_| true);
                let own = |grant: &&Grant| grant.groups.contains(group);
                let truth = truth(snapshot, &who, &found, *unit, now, own).or_else(|| {
                    let mine = truth_of(&who)?;
                    let mut said = wider.iter().filter_map(truth_of);
                    let differs = said.any(|said| said.from != mine.from || said.watched != mine.watched);
                    differs.then_some(mine)
                })?;
                Some((truth, cell.clone(), *unit))
            });
            rows.extend(merge(entries, &cells).into_iter().map(|merged| {
                Row::of(snapshot, name, merged.what, (merged.tenants, merged.except), &merged.units)
            }));
        }
    }
    rows.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(rows)
}

/// Every tenant that a grant gives to the group, or to everyone; and whether that had to be said grant by grant.
fn of_group(snapshot: &Snapshot, group: &str, now: u64) -> (Vec<Row>, bool) {
    let who = Someone::of(snapshot, group);
    let granting = || who.granting(snapshot, now);
    let binding = || who.binding(snapshot);
    let closed: Vec<&TenantPattern> = unavailable(snapshot).flat_map(|owner| &owner.tenants).collect();
    // Tenants that only the rules of others tell apart are one to this group.
    let patterns = granting()
        .flat_map(|rule| rule.tenants.iter().chain(&rule.except_tenants))
        .chain(binding().flat_map(|rule| rule.tenants.iter().chain(&rule.except_tenants)))
        .chain(closed.iter().copied());
    let targets = granting().flat_map(|rule| rule.tenants.iter());
    let (mut rows, overlapping): (Vec<Row>, bool) = match Universe::of(patterns).cells(targets) {
        Ok(cells) => {
            let rules = Rules::of(snapshot);
            let mut entries = Vec::new();
            for cell in cells.iter().filter(|cell| !closed.iter().any(|pattern| cell.is_in(pattern))) {
                let found = rules.in_cell(cell);
                for unit in units() {
                    if let Some(truth) = truth(snapshot, &who, &found, *unit, now, |_| true) {
                        entries.push((truth, cell.clone(), *unit));
                    }
                }
            }
            let merged = merge(entries.into_iter(), &cells).into_iter();
            let row = |merged: Merged<Truth>| {
                Row::of(snapshot, group, merged.what, (merged.tenants, merged.except), &merged.units)
            };
            (merged.map(row).collect(), false)
        }
        Err(Entangled) => (one_by_one(snapshot, group, &who, now), true),
    };
    rows.sort_by(|a, b| a.tenants.cmp(&b.tenants));
    (rows, overlapping)
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
        let is_own = move |grant: &&Grant| meet(&grant.groups, self.groups()) && !grant.has_expired(now);
        snapshot.grants.iter().filter(is_own)
    }

    /// The restrictions on its groups.
    fn binding<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Restriction> {
        snapshot.restrictions.iter().filter(|rule| meet(&rule.groups, self.bound_by()))
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

fn meet(rule: &[GroupId], held: &[GroupId]) -> bool {
    rule.iter().any(|group| held.binary_search(group).is_ok())
}

/// `None` where no grant that is `meant` gives it, or to a service account that is revoked.
fn truth(
    snapshot: &Snapshot,
    who: &Someone<'_>,
    rules: &RulesOfCell<'_>,
    unit: Unit,
    now: u64,
    meant: impl Fn(&&Grant) -> bool,
) -> Option<Truth> {
    if matches!(who, Someone::Account(account) if account.revoked) {
        return None;
    }
    let grants: Vec<&Grant> = rules.granting(who.groups(), unit, now).filter(meant).collect();
    let until = grants.iter().map(|grant| grant.expires.map_or(Until::Always, Until::Time)).max()?;
    let owner = |grant: &Grant| snapshot.owner_name(grant.owner).map(str::to_owned);
    Some(Truth {
        until,
        from: who.bound(snapshot, rules, unit, false),
        watched: who.bound(snapshot, rules, unit, true),
        grants: grants.iter().map(|grant| (owner(grant), grant.line, grant.name.to_string())).collect(),
    })
}

impl Row {
    fn of(
        snapshot: &Snapshot,
        group: &str,
        Truth { until, from, watched, grants }: Truth,
        (tenants, except_tenants): (Vec<String>, Vec<String>),
        units: &[Unit],
    ) -> Self {
        let id = snapshot.groups.id(group).filter(|id| *id != EVERYONE);
        let raw = snapshot
            .groups
            .raw_groups()
            .filter(|(raw, ids)| *raw != group && id.is_some_and(|id| ids.contains(&id)));
        let mut raw_groups: Vec<String> = raw.map(|(raw, _)| raw.to_owned()).collect();
        raw_groups.sort_unstable();
        Self {
            group: group.to_owned(),
            raw_groups,
            tenants,
            except_tenants,
            scopes: crate::access::scope_names(units),
            from: demands(&from),
            shadow: demands(&watched),
            until: match until {
                Until::Time(time) => Some(timestamp(time)),
                Until::Always => None,
            },
            from_in_parts: Vec::new(),
            grants: grants.into_iter().map(|(owner, line, name)| Named { name, owner, line }).collect(),
            shown_from: from_where(&from, &watched),
        }
    }
}

pub(super) fn demands(bound: &[Bound]) -> Vec<Demand> {
    bound
        .iter()
        .map(|bound| Demand {
            restriction: bound.restriction.clone(),
            owner: bound.owner.clone(),
            networks: bound.networks.clone(),
        })
        .collect()
}

/// A name with what it stands for; without where that would fill the line. The JSON form has it all.
fn short(network: &str) -> String {
    match network.split_once(" (") {
        Some((name, all)) if network.len() > MAX_NETWORK => {
            format!("{name} ({} networks)", all.split(' ').count())
        }
        _ => network.to_owned(),
    }
}

/// The places for people.
pub(super) fn from_where(from: &[Bound], watched: &[Bound]) -> String {
    let list = |bounds: &[Bound]| {
        let places = |bound: &Bound| {
            bound.networks.iter().map(|network| short(network)).collect::<Vec<_>>().join(", ")
        };
        bounds.iter().map(places).collect::<Vec<_>>().join(" and ")
    };
    let mut text = if from.is_empty() { "anywhere".to_owned() } else { list(from) };
    if !watched.is_empty() {
        _ = write!(text, " [shadow: {}]", list(watched));
    }
    text
}

/// Scopes for people, shorter where they are what a grant without `scopes` gives.
pub(super) fn scopes_text(scopes: &[String]) -> String {
    let reads: Vec<&str> = ScopeSet::reads().iter().map(Scope::name).collect();
    if !reads.iter().all(|read| scopes.iter().any(|scope| scope == read)) {
        return scopes.join(" ");
    }
    let rest = scopes.iter().map(String::as_str).filter(|scope| !reads.contains(scope));
    std::iter::once("*:read").chain(rest).collect::<Vec<_>>().join(" ")
}

fn human(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    _ = writeln!(out, "policy  {}, revision {}", report.policy, report.revision);
    _ = writeln!(out, "time    {}", report.time);
    let of_tenant = report.tenant.is_some();
    if let Some(tenant) = &report.tenant {
        _ = writeln!(out, "tenant  {tenant}");
    }
    if let Some(group) = &report.group {
        _ = writeln!(out, "group   {}", plain(group));
    }
    for Unavailable { owner, tenants } in &report.unavailable {
        _ = writeln!(
            out,
            "owner   {owner}: its document is refused; without a last good version nobody reaches {} (policy_unavailable)",
            tenants.join(", ")
        );
    }
    if report.overlapping {
        out.push_str("the patterns of tenants overlap in too many ways: each line is one grant by itself, and lines overlap\n");
    }
    out.push('\n');
    if report.access.is_empty() {
        out.push_str(if of_tenant { "nobody may reach it\n" } else { "it may reach nothing\n" });
        return out;
    }
    let rows: Vec<_> = report
        .access
        .iter()
        .map(|row| {
            let first = if of_tenant {
                let raw = if row.raw_groups.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", first_few(&row.raw_groups, MAX_LISTED))
                };
                if row.group == "*" { "everyone".to_owned() } else { plain(&format!("{}{raw}", row.group)) }
            } else {
                let except = if row.except_tenants.is_empty() {
                    String::new()
                } else {
                    format!(" except {}", row.except_tenants.join(", "))
                };
                format!("{}{except}", row.tenants.join(" & "))
            };
            let grants: Vec<_> = row
                .grants
                .iter()
                .map(|grant| {
                    format!("{} ({})", plain(&grant.name), place_of(grant.owner.as_deref(), grant.line))
                })
                .collect();
            [
                first,
                scopes_text(&row.scopes),
                plain(&row.shown_from),
                row.until.clone().unwrap_or_else(|| "always".to_owned()),
                first_few(&grants, MAX_LISTED),
            ]
        })
        .collect();
    let first = if of_tenant { "WHO" } else { "TENANT" };
    out.push_str(&columns([first, "SCOPES", "FROM", "UNTIL", "BY"], &rows));
    out
}

#[cfg(test)]
mod tests;
