//! `tenantauth access`: who may reach a tenant, or what a group may reach; for the quarterly review.

use super::check::Entry;
use super::policy::{LastGood, OwnerSeen, Secrets};
use super::reach::{demands, end, from_where, scopes_text, sets};
use super::{
    Answer, Failure, Format, MAX_LISTED, Status, columns, first_few, json, one_line, place_of, timestamp,
};
use crate::access::reach::{self, Reached, Row, Source};
use crate::access::{Bound, ScopeAt, scope_names, scopes_of};
use crate::engine::unix_now;
use crate::tenant::{TenantPattern, is_tenant};
use clap::{ArgGroup, Args};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Shows who may reach a tenant, or which tenants a group may reach: for what, from where, until when.
///
/// What is listed is true for somebody in that one group. With --tenant a group has lines where a grant names it, and
/// where a restriction makes what everyone may do different for it: `everyone` is whoever is in no such group. Further
/// groups add their grants, and the restrictions that bind or except them; `explain` decides such a case. Grants that
/// have expired are left out, and `mode: shadow` is not looked at. Where patterns of tenants overlap in too many ways,
/// each line of --group is one grant.
///
/// Exit status 0, 1 where the policy cannot be read, 3 where it is invalid. Where only an owner's document is invalid
/// the answer is given all the same, as it is without a last good version, and the exit status is 3; with --state-dir it
/// is what nginx goes on with, and the exit status is 0.
#[derive(Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["tenant", "group"]))]
pub(super) struct Access {
    /// The policy: a file, or a directory that holds a `policy.yaml`.
    #[arg(long)]
    policy: PathBuf,
    /// Who may reach this tenant?
    #[arg(long, value_parser = parse_tenant)]
    tenant: Option<TenantPattern>,
    /// What may this group reach? By its name in the policy, or as the issuer gives it; `*` is every verified user.
    #[arg(long)]
    group: Option<String>,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    last_good: LastGood,
}

fn parse_tenant(text: &str) -> Result<TenantPattern, &'static str> {
    const UNKNOWN: &str = "no tenant that the backends accept";
    if !is_tenant(text.as_bytes()) {
        return Err(UNKNOWN);
    }
    if text.contains('*') {
        Err("one tenant, not a pattern")
    } else {
        TenantPattern::parse(text).map_err(|_| UNKNOWN)
    }
}

/// What was found; the JSON form is stable.
#[derive(Serialize)]
struct Report<'r> {
    policy: String,
    revision: &'r str,
    time: String,
    tenant: Option<&'r str>,
    group: Option<&'r str>,
    /// Owners whose documents cannot be used: without a last good version nobody reaches their tenants.
    unavailable: Vec<Unavailable<'r>>,
    /// The patterns of tenants overlap in too many ways: each row is one grant by itself, and rows overlap.
    overlapping: bool,
    access: Vec<Shown<'r>>,
    /// Owners whose newest document is not in force.
    owners: Vec<OwnerSeen>,
    /// `policy`, or `state_dir` where the policy is refused and nginx goes on with the last good one.
    policy_source: &'static str,
    /// What is wrong with documents that are not in force.
    diagnostics: Vec<Entry>,
}

#[derive(Serialize)]
struct Unavailable<'r> {
    owner: &'r str,
    tenants: Vec<String>,
}

#[derive(Serialize)]
struct Shown<'r> {
    /// The group; `*`: every verified user.
    group: &'r str,
    /// Raw groups that its name stands for.
    raw_groups: &'r [String],
    /// The tenants that all of these patterns match.
    tenants: &'r [String],
    /// Tenants among them of which the row does not speak: each list is what all of its patterns match.
    except_tenants: &'r [Vec<String>],
    scopes: Vec<ScopeAt>,
    /// Everything that must be satisfied; empty: from anywhere.
    from: &'r [Bound],
    /// What must be satisfied besides for some of the tenants.
    #[serde(skip_serializing_if = "<[Bound]>::is_empty")]
    from_in_parts: &'r [Bound],
    /// What is recorded only.
    shadow: &'r [Bound],
    /// Null where it has no end.
    until: Option<String>,
    grants: &'r [Source],
}

impl Access {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let now = unix_now();
        let policy = match self.secrets.in_force(&self.policy, &self.last_good, now, format) {
            Ok(policy) => policy,
            Err(answer) => return Ok(answer),
        };
        let snapshot = &policy.compiled.snapshot;
        let mut err = policy.problems();
        let status = if policy.is_in_force() { Status::Ok } else { Status::Invalid };
        let found = match (&self.tenant, &self.group) {
            (Some(tenant), _) => {
                reach::of_tenant(snapshot, tenant, now).map_err(|error| Failure(error.to_string()))?
            }
            (None, group) => {
                let group = group.as_deref().unwrap_or_default();
                if !reach::is_known(snapshot, group) {
                    _ = writeln!(err, "note: nothing in the policy names the group `{}`", one_line(group));
                }
                if reach::is_revoked(snapshot, group) {
                    let what = "it grants nothing and excepts nobody, and restrictions on it still bind";
                    _ = writeln!(err, "note: the policy revokes the group `{}`: {what}", one_line(group));
                }
                reach::of_group(snapshot, group, now)
            }
        };
        let report = Report {
            policy: self.policy.display().to_string(),
            revision: &snapshot.revision,
            time: timestamp(now),
            tenant: self.tenant.as_ref().map(TenantPattern::as_str),
            group: self.group.as_deref(),
            unavailable: unavailable(&found),
            overlapping: found.overlapping,
            access: found.rows.iter().map(Shown::of).collect(),
            owners: policy.owners_behind(),
            policy_source: policy.source(),
            diagnostics: policy.refused().map(Entry::of).collect(),
        };
        let out = match format {
            Format::Json => json(&report)?,
            Format::Human => human(&report, &found.rows),
        };
        Ok(Answer { status, out, err })
    }
}

fn unavailable<'r>(found: &Reached<'r>) -> Vec<Unavailable<'r>> {
    let owners = found.unavailable.iter();
    owners
        .map(|owner| Unavailable {
            owner: &owner.name,
            tenants: owner.tenants.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

impl<'r> Shown<'r> {
    fn of(row: &'r Row) -> Self {
        Self {
            group: &row.group,
            raw_groups: &row.raw_groups,
            tenants: &row.tenants,
            except_tenants: &row.except,
            scopes: scopes_of(&row.units),
            from: &row.reach.from,
            from_in_parts: &row.from_in_parts,
            shadow: &row.reach.watched,
            until: end(&row.reach),
            grants: &row.grants,
        }
    }
}

fn human(report: &Report<'_>, rows: &[Row]) -> String {
    let mut out = String::new();
    _ = writeln!(out, "policy  {}, revision {}", report.policy, report.revision);
    _ = writeln!(out, "time    {}", report.time);
    let of_tenant = report.tenant.is_some();
    if let Some(tenant) = &report.tenant {
        _ = writeln!(out, "tenant  {tenant}");
    }
    if let Some(group) = &report.group {
        _ = writeln!(out, "group   {}", one_line(group));
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
    if rows.is_empty() {
        out.push_str(if of_tenant { "nobody may reach it\n" } else { "it may reach nothing\n" });
        return out;
    }
    let first = if of_tenant { "WHO" } else { "TENANT" };
    let rows: Vec<_> = rows.iter().map(|row| cells(row, of_tenant)).collect();
    out.push_str(&columns([first, "SCOPES", "FROM", "UNTIL", "BY"], &rows));
    out
}

/// A row for people; of a tenant it begins with the group, else with the tenants.
fn cells(row: &Row, of_tenant: bool) -> [String; 5] {
    let first = if !of_tenant {
        let mut text = row.tenants.join(" & ");
        if !row.except.is_empty() {
            _ = write!(text, " except {}", sets(&row.except, ", "));
        }
        text
    } else if row.group == "*" {
        "everyone".to_owned()
    } else if row.raw_groups.is_empty() {
        one_line(&row.group)
    } else {
        one_line(&format!("{} ({})", row.group, first_few(&row.raw_groups, MAX_LISTED)))
    };
    let mut from = from_where(&row.reach);
    if !row.from_in_parts.is_empty() {
        _ = write!(from, " [for some of them also {}]", demands(&row.from_in_parts));
    }
    let grant = |grant: &Source| {
        format!("{} ({})", one_line(&grant.name), place_of(grant.owner.as_deref(), &grant.file, grant.line))
    };
    let grants: Vec<_> = row.grants.iter().map(grant).collect();
    let until = end(&row.reach).unwrap_or_else(|| "always".to_owned());
    [first, scopes_text(&scope_names(&row.units)), one_line(&from), until, first_few(&grants, MAX_LISTED)]
}
