//! `tenantauth access`: who may reach what, for the quarterly review.

mod report;
mod unused;

use super::check::Entry;
use super::policy::{LastGood, Policy, Secrets};
use super::{Answer, Failure, Format, Output, Status, json, one_line, timestamp};
use crate::access::reach::{self, Reached};
use crate::engine::unix_now;
use crate::tenant::{TenantPattern, is_tenant};
use clap::{ArgGroup, Args};
use report::{Report, Shown};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Shows who may reach a tenant, or which tenants a group may reach: for what, from where, until when.
///
/// What is listed is true for somebody in that one group. With --tenant and --all a group has lines where a grant names
/// it, and where a restriction makes what everyone may do different for it: `everyone` is whoever is in no such group.
/// Further groups add their grants, and the restrictions that bind or except them; `explain` decides such a case.
/// Grants that have expired are left out, and `mode: shadow` is not looked at. Where patterns of tenants overlap in too
/// many ways, each line of --group and --all is one grant.
///
/// With `--format csv` the rows are a file for spreadsheets (RFC 4180), in which no cell is taken for a formula: one
/// that would be begins with an apostrophe.
///
/// Exit status 0, 1 where the policy cannot be read, 3 where it is invalid. Where only an owner's document is invalid
/// the answer is given all the same, as it is without a last good version, and the exit status is 3; with --state-dir
/// it is what nginx goes on with, and the exit status is 0.
#[derive(Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["tenant", "group", "all"]))]
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
    /// Who may reach what: every tenant and pattern of the policy, every group and service account.
    #[arg(long)]
    all: bool,
    /// Only the grants that no request of this audit log used. `unknown` is one that a request perhaps used by a group
    /// that was not recorded.
    ///
    /// A grant was used where it allows a request that was allowed, to those groups, at that time, whether or not
    /// another grant does so too. The log says nothing of the time before its first record.
    #[arg(long, value_name = "AUDIT", requires = "all", conflicts_with_all = ["tenant", "group"])]
    unused: Option<PathBuf>,
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

impl Access {
    pub(super) fn run(self, output: Output) -> Result<Answer, Failure> {
        let now = unix_now();
        let format = if output == Output::Json { Format::Json } else { Format::Human };
        let policy = match self.secrets.in_force(&self.policy, &self.last_good, now, format) {
            Ok(policy) => policy,
            Err(answer) => return Ok(answer),
        };
        let mut err = policy.problems();
        let status = if policy.is_in_force() { Status::Ok } else { Status::Invalid };
        let out = match &self.unused {
            Some(log) => {
                let report = match unused::Report::of(&self.policy, &policy, log, now) {
                    Ok(report) => report,
                    Err(error) => return Ok(Failure(error.to_string()).with_help(&error.help())),
                };
                match output {
                    Output::Json => json(&report)?,
                    Output::Human => report.human(),
                    Output::Csv => report.csv(),
                }
            }
            None => {
                let found = self.found(&policy, now, &mut err)?;
                let report = self.report(&policy, &found, now);
                match output {
                    Output::Json => json(&report)?,
                    Output::Human => report.human(&found.rows),
                    Output::Csv => report::csv(&found.rows),
                }
            }
        };
        Ok(Answer { status, out, err })
    }

    fn found<'p>(&self, policy: &'p Policy, now: u64, err: &mut String) -> Result<Reached<'p>, Failure> {
        let snapshot = &policy.compiled.snapshot;
        if self.all {
            return Ok(reach::of_all(snapshot, now));
        }
        if let Some(tenant) = &self.tenant {
            return reach::of_tenant(snapshot, tenant, now).map_err(|error| Failure(error.to_string()));
        }
        let group = self.group.as_deref().unwrap_or_default();
        // Writing to a string does not fail.
        if !reach::is_known(snapshot, group) {
            _ = writeln!(err, "note: nothing in the policy names the group `{}`", one_line(group));
        }
        if reach::is_revoked(snapshot, group) {
            let what = "it grants nothing and excepts nobody, and restrictions on it still bind";
            _ = writeln!(err, "note: the policy revokes the group `{}`: {what}", one_line(group));
        }
        Ok(reach::of_group(snapshot, group, now))
    }

    fn report<'r>(&'r self, policy: &'r Policy, found: &'r Reached<'_>, now: u64) -> Report<'r> {
        Report {
            policy: self.policy.display().to_string(),
            revision: &policy.compiled.snapshot.revision,
            time: timestamp(now),
            tenant: self.tenant.as_ref().map(TenantPattern::as_str),
            group: self.group.as_deref(),
            unavailable: report::unavailable(found),
            overlapping: found.overlapping,
            access: found.rows.iter().map(Shown::of).collect(),
            owners: policy.owners_behind(),
            policy_source: policy.source(),
            diagnostics: policy.refused().map(Entry::of).collect(),
        }
    }
}
