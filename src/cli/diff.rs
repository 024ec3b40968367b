//! `tenantauth diff`: what changes for people when one policy takes the place of another.

mod human;
mod report;

use super::policy::{LastGood, Policy, Secrets};
use super::{Answer, Failure, Format, Status, json};
use crate::access::cells::Entangled;
use crate::access::diff::{self, Diff as Found};
use crate::access::settings::settings;
use crate::engine::unix_now;
use crate::policy::Compiled;
use clap::Args;
use human::{Labels, human};
use report::{Changed, Detail, Report, Side, rules};
use std::path::{Path, PathBuf};

/// Compares what two policies allow: who gains or loses access to which tenant, for what, from where, until when.
///
/// CHANGE is `gained` or `lost`; of an access that stays, `ends later` or `ends earlier`, `wider` or `narrower` (from
/// more or fewer networks), `moved` (from other networks), `recorded` (only what restrictions in shadow mode record
/// differs). WHO is whoever holds that group; `a who is also in b` holds both. UNTIL is the end of the access, `always`
/// where it has none, and `as granted` where the group is not granted it by itself: the line says what binds those who
/// have it by another group. `old -> new` stands where the two differ. Settings are `added`, `removed` or `changed`;
/// revocations say who is revoked, and who no longer is.
///
/// Meaning is compared, not text: a grant that others make superfluous, or a group that got a name, is no difference.
/// What has run out by now is not there. The keys that issuers sign with are not compared. Where patterns of tenants
/// overlap in too many ways, the rules are listed that only one policy has. Exit status 0 where the policies mean the
/// same, 2 where they differ, 3 where one is invalid, or the document of an owner, 1 where one cannot be read.
#[derive(Args)]
pub(super) struct Diff {
    /// The policy in force: a file, or a directory that holds a `policy.yaml`.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The policy that shall take its place.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    #[command(flatten)]
    secrets: Secrets,
    // Of OLD.
    #[command(flatten)]
    last_good: LastGood,
}

impl Diff {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let now = unix_now();
        let old = self.secrets.in_force(&self.old, &self.last_good, now, format);
        let new = || self.secrets.usable(&self.new, now, format);
        // Compared without an owner's document, it would read as if the owner had withdrawn everything.
        let both = old.and_then(|old| {
            let old = old.complete(&self.old, format)?;
            Ok((old, new()?.complete(&self.new, format)?))
        });
        let (Policy { compiled: old, .. }, Policy { compiled: new, .. }) = match both {
            Ok(both) => both,
            Err(answer) => return Ok(answer),
        };
        let (found, rules) = match diff::diff(&old, &new, now) {
            Ok(found) => (found, None),
            // The next best: which rules there are in one policy and not in the other.
            Err(Entangled) => (
                Found { lines: Vec::new(), settings: settings(&old, &new) },
                Some(rules([&old.snapshot, &new.snapshot], now)),
            ),
        };
        let labels = Labels::of([&old.snapshot, &new.snapshot]);
        let side = |path: &Path, compiled: &Compiled| Side {
            file: path.display().to_string(),
            revision: compiled.snapshot.revision.to_string(),
        };
        let report = Report {
            equal: found.is_empty() && rules.as_ref().is_none_or(Vec::is_empty),
            old: side(&self.old, &old),
            new: side(&self.new, &new),
            changes: found.lines.iter().map(|line| Changed::of(line, &labels)).collect(),
            overlapping: rules.is_some(),
            rules: rules.unwrap_or_default(),
            settings: {
                let mut sections: Vec<_> = found.settings.iter().map(|setting| setting.section).collect();
                sections.dedup();
                sections
            },
            details: found
                .settings
                .iter()
                .map(|setting| Detail {
                    section: setting.section,
                    issuer: setting.issuer.clone(),
                    name: Some(setting.name.clone()).filter(|name| !name.is_empty()),
                    what: Some(setting.what).filter(|what| !what.is_empty()),
                    old: setting.old.as_ref().map(|old| old.data.clone()),
                    new: setting.new.as_ref().map(|new| new.data.clone()),
                })
                .collect(),
        };
        let out = match format {
            Format::Json => json(&report)?,
            Format::Human => human(&report, &found, &labels),
        };
        let status = if report.equal { Status::Ok } else { Status::Denied };
        Ok(Answer { status, out, err: String::new() })
    }
}
