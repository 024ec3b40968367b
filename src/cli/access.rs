//! `tenantauth access`: who may reach a tenant, or what a group may reach; for the quarterly review.

use super::{
    Answer, Failure, Format, MAX_LISTED, columns, first_few, json, lines, load, place_of, plain, refused,
    refused_owners, timestamp,
};
use crate::engine::unix_now;
use crate::policy::access::cells::Universe;
use crate::policy::access::merge::merge;
use crate::policy::access::{Bound, Rules, RulesOfCell, Unit, Until, units};
use crate::policy::snapshot::{EVERYONE, Grant, GroupId, ServiceAccount, Snapshot};
use crate::scope::{Scope, ScopeSet};
use crate::tenant::{TenantPattern, is_tenant};
use clap::{ArgGroup, Args};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A longer text of a network's name and addresses is cut, in bytes.
const MAX_NETWORK: usize = 120;

/// Shows who may reach a tenant, or which tenants a group may reach: for what, from where, until when.
///
/// What is listed is true for somebody in that one group. Further groups add their grants, and the restrictions that
/// bind or except them; `explain` decides such a case. Grants that have expired are left out.
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
    access: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    /// The group; `*`: every verified user.
    group: String,
    /// Raw groups that its name stands for.
    raw_groups: Vec<String>,
    /// The tenants that all of these patterns match.
    tenants: Vec<String>,
    /// Tenants among them of which the row does not speak.
    except_tenants: Vec<String>,
    scopes: Vec<String>,
    /// Everything that must be satisfied; empty: from anywhere.
    from: Vec<Demand>,
    /// What is recorded only.
    shadow: Vec<Demand>,
    /// Null where it has no end.
    until: Option<String>,
    grants: Vec<Named>,
    #[serde(skip)]
    shown_from: String,
}

#[derive(Serialize)]
struct Named {
    name: String,
    /// Whose document it stands in; null for the platform's.
    owner: Option<String>,
    line: u32,
}

/// A restriction that binds, and the networks that satisfy it.
#[derive(Serialize)]
pub(super) struct Demand {
    /// Null for the networks of a service account.
    restriction: Option<String>,
    /// Whose document it stands in; null for the platform's.
    owner: Option<String>,
    networks: Vec<String>,
}

/// What is true of a group on a set of tenants for some units.
type Truth = (Option<Until>, Vec<Bound>, Vec<Bound>, Vec<(Option<String>, u32, String)>);

impl Access {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let now = unix_now();
        let (outcome, _, read) = load(&self.policy, now);
        let Some(compiled) = &outcome.compiled else {
            return refused(&self.policy, &outcome, read, format);
        };
        let snapshot = &compiled.snapshot;
        let mut err = lines(refused_owners(&outcome.owners));
        let access = match (&self.tenant, &self.group) {
            (Some(tenant), _) => of_tenant(snapshot, tenant, now)?,
            (None, group) => {
                let group = group.as_deref().unwrap_or_default();
                if snapshot.groups.id(group).is_none() && !snapshot.groups.stands_for_any(group) {
                    _ = writeln!(err, "note: nothing in the policy names the group `{}`", plain(group));
                }
                of_group(snapshot, group, now)?
            }
        };
        let report = Report {
            policy: self.policy.display().to_string(),
            revision: snapshot.revision.to_string(),
            time: timestamp(now),
            tenant: self.tenant,
            group: self.group,
            access,
        };
        let out = match format {
            Format::Json => json(&report)?,
            Format::Human => human(&report),
        };
        Ok(Answer { err, ..Answer::ok(out) })
    }
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure(error.to_string())
}

/// Every group that a grant gives the tenant to, those of service accounts included.
fn of_tenant(snapshot: &Snapshot, tenant: &str, now: u64) -> Result<Vec<Row>, Failure> {
    let written = TenantPattern::parse(tenant).map_err(failure)?;
    let rules = Rules::of(snapshot);
    let cells =
        Universe::of(rules.patterns().chain([&written])).cells([&written].into_iter()).map_err(failure)?;
    let mut rows = Vec::new();
    for cell in &cells {
        let found = rules.in_cell(cell);
        let groups: BTreeSet<GroupId> =
            found.grants.iter().flat_map(|grant| grant.groups.iter().copied()).collect();
        for group in groups {
            let name = snapshot.groups.name(group);
            let account = snapshot.service_account(name);
            let ids = ids_of(snapshot, name);
            let entries = units().iter().filter_map(|unit| {
                let own = |grant: &&Grant| grant.groups.contains(&group);
                let truth = truth(snapshot, account, &found, (&ids, *unit, now), own)?;
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

/// Every tenant that a grant gives to the group, or to everyone.
fn of_group(snapshot: &Snapshot, group: &str, now: u64) -> Result<Vec<Row>, Failure> {
    let ids = ids_of(snapshot, group);
    let holds = |groups: &[GroupId]| groups.iter().any(|group| ids.binary_search(group).is_ok());
    let granting = || snapshot.grants.iter().filter(|grant| holds(&grant.groups) && !grant.has_expired(now));
    let binding = || snapshot.restrictions.iter().filter(|restriction| holds(&restriction.groups));
    // Tenants that only the rules of others tell apart are one to this group.
    let patterns = granting()
        .flat_map(|rule| rule.tenants.iter().chain(&rule.except_tenants))
        .chain(binding().flat_map(|rule| rule.tenants.iter().chain(&rule.except_tenants)));
    let targets = granting().flat_map(|rule| rule.tenants.iter());
    let cells = Universe::of(patterns).cells(targets).map_err(failure)?;
    let rules = Rules::of(snapshot);
    let account = snapshot.service_account(group);
    let mut entries = Vec::new();
    for cell in &cells {
        let found = rules.in_cell(cell);
        for unit in units() {
            if let Some(truth) = truth(snapshot, account, &found, (&ids, *unit, now), |_| true) {
                entries.push((truth, cell.clone(), *unit));
            }
        }
    }
    let mut rows: Vec<Row> = merge(entries.into_iter(), &cells)
        .into_iter()
        .map(|merged| Row::of(snapshot, group, merged.what, (merged.tenants, merged.except), &merged.units))
        .collect();
    rows.sort_by(|a, b| a.tenants.cmp(&b.tenants));
    Ok(rows)
}

/// What somebody in this one group holds.
fn ids_of(snapshot: &Snapshot, group: &str) -> Box<[GroupId]> {
    if let Some(account) = snapshot.service_account(group) {
        return account.groups.clone();
    }
    let own = (group != "*").then_some(group);
    let own: Vec<&str> = own.into_iter().collect();
    snapshot.groups.of_names(&own).map_or_else(|_| Box::default(), |(_, held)| held.groups)
}

/// `None` where no grant that is `meant` gives it, or to a service account that is revoked.
fn truth(
    snapshot: &Snapshot,
    account: Option<&ServiceAccount>,
    rules: &RulesOfCell<'_>,
    (ids, unit, now): (&[GroupId], Unit, u64),
    meant: impl Fn(&&Grant) -> bool,
) -> Option<Truth> {
    let grants: Vec<&Grant> = rules.granting(ids, unit, now).filter(meant).collect();
    let until = grants.iter().map(|grant| grant.expires.map_or(Until::Always, Until::Time)).max()?;
    let bound = |shadow| {
        let binding = rules.binding(ids, unit, shadow).into_iter();
        binding.map(|rule| Bound::of(rule, snapshot)).collect()
    };
    let (from, watched) = match account {
        Some(account) if account.revoked => return None,
        // No restriction binds it.
        Some(account) => (Bound::of_account(account).into_iter().collect(), Vec::new()),
        None => (bound(false), bound(true)),
    };
    let owner = |grant: &Grant| snapshot.owner_name(grant.owner).map(str::to_owned);
    let by = grants.iter().map(|grant| (owner(grant), grant.line, grant.name.to_string())).collect();
    Some((Some(until), from, watched, by))
}

impl Row {
    fn of(
        snapshot: &Snapshot,
        group: &str,
        (until, from, watched, grants): Truth,
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
            scopes: crate::policy::access::scope_names(units),
            from: demands(&from),
            shadow: demands(&watched),
            until: match until {
                Some(Until::Time(time)) => Some(timestamp(time)),
                _ => None,
            },
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
mod tests {
    use super::*;

    #[test]
    fn long_networks_are_counted_instead() {
        assert_eq!(short("office (203.0.113.0/24 2001:db8::/32)"), "office (203.0.113.0/24 2001:db8::/32)");
        let many = vec!["203.0.113.0/24"; 40].join(" ");
        assert_eq!(short(&format!("office ({many})")), "office (40 networks)");
        assert_eq!(short("192.0.2.9"), "192.0.2.9");
    }

    #[test]
    fn every_read_is_said_in_one_word() {
        let names = |set: ScopeSet| set.iter().map(|scope| scope.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(scopes_text(&names(ScopeSet::reads())), "*:read");
        let mut more = ScopeSet::reads();
        more.insert(Scope::LogsDelete);
        assert_eq!(scopes_text(&names(more)), "*:read logs:delete");
        assert_eq!(scopes_text(&["logs:read".to_owned()]), "logs:read");
    }
}
