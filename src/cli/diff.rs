//! `tenantauth diff`: what changes for people when one policy takes the place of another.

use super::policy::{LastGood, Policy, Secrets};
use super::reach::{end, from_where, scopes_text};
use super::{
    Answer, Failure, Format, MAX_LISTED, Status, columns, first_few, json, one_line, place_of, timestamp,
};
use crate::access::cells::Entangled;
use crate::access::diff::{self, Change, Diff as Found, Line, Who};
use crate::access::settings::settings;
use crate::access::{Bound, Reach, Until, scope_names, units};
use crate::engine::unix_now;
use crate::policy::Compiled;
use crate::policy::snapshot::{EVERYONE, Grant, GroupId, Restriction, Snapshot};
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Tenants that are listed as exceptions of a line; the JSON form has them all.
const MAX_EXCEPTIONS: usize = 5;

/// Compares what two policies allow: who gains or loses access to which tenant, for what, from where, until when.
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

/// What was found; the JSON form is stable.
#[derive(Serialize)]
struct Report {
    equal: bool,
    old: Side,
    new: Side,
    changes: Vec<Changed>,
    /// Patterns of tenants, or excepted groups, overlap in too many ways: `rules` are told in place of `changes`.
    overlapping: bool,
    rules: Vec<RuleChanged>,
    /// Other sections that differ.
    settings: Vec<&'static str>,
    /// What differs in them.
    details: Vec<Detail>,
}

#[derive(Serialize)]
struct Detail {
    section: &'static str,
    /// The issuer, service account, principal or group; null for the section itself.
    name: Option<String>,
    /// A key; null for all of it.
    what: Option<&'static str>,
    /// Null where there is none.
    old: Option<String>,
    new: Option<String>,
}

#[derive(Serialize)]
struct Side {
    file: String,
    revision: String,
}

#[derive(Serialize)]
struct Changed {
    /// `gained`, `lost`, `until` or `places`.
    change: &'static str,
    /// `everyone`, `any_group`, `groups` or `service_account`.
    who: &'static str,
    /// Of `groups`: whoever holds one raw group of each list.
    groups: Vec<Vec<String>>,
    /// The same in the words of `group_names`; `service:<name>` for a service account.
    label: String,
    /// The tenants that all of these patterns match.
    tenants: Vec<String>,
    /// Tenants among them of which the line does not speak; in one entry, `a & b` is what several patterns have in
    /// common.
    except_tenants: Vec<String>,
    scopes: Vec<String>,
    old: Access,
    new: Access,
}

/// A rule that only one of the policies has.
#[derive(Serialize)]
struct RuleChanged {
    /// `gained` or `lost`: the rule, not an access. What others say besides is not looked at.
    change: &'static str,
    /// `grant` or `restriction`.
    rule: &'static str,
    name: String,
    /// Whose document it stands in; null for the platform's.
    owner: Option<String>,
    file: String,
    line: u32,
    /// Raw groups as the policy writes them: whoever holds one. `*`: every verified user.
    groups: Vec<String>,
    /// Of a restriction: whoever holds one is not bound.
    except_groups: Vec<String>,
    /// Patterns: the tenants that any of them matches.
    tenants: Vec<String>,
    except_tenants: Vec<String>,
    scopes: Vec<String>,
    /// Of a restriction: where requests must come from.
    networks: Vec<String>,
    /// Of a restriction in shadow mode.
    shadow: bool,
    /// Of a grant; null where it has no end.
    until: Option<String>,
}

#[derive(Serialize)]
struct Access {
    /// Whether these people have access by the groups named here.
    granted: bool,
    /// Null where it has no end.
    until: Option<String>,
    /// Everything that must be satisfied; empty: from anywhere.
    from: Vec<Bound>,
    /// What is recorded only.
    shadow: Vec<Bound>,
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
                    name: Some(setting.name.clone()).filter(|name| !name.is_empty()),
                    what: Some(setting.what).filter(|what| !what.is_empty()),
                    old: setting.old.clone(),
                    new: setting.new.clone(),
                })
                .collect(),
        };
        let out = match format {
            Format::Json => json(&report)?,
            Format::Human => human(&report, &found.lines, &labels),
        };
        let status = if report.equal { Status::Ok } else { Status::Denied };
        Ok(Answer { status, out, err: String::new() })
    }
}

/// What policies call raw groups.
struct Labels {
    aliases: BTreeMap<String, BTreeSet<String>>,
}

impl Labels {
    fn of(snapshots: [&Snapshot; 2]) -> Self {
        let mut aliases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for snapshot in snapshots {
            for (raw, ids) in snapshot.groups.raw_groups() {
                for name in ids.iter().map(|id| snapshot.groups.name(*id)).filter(|name| *name != raw) {
                    aliases.entry(name.to_owned()).or_default().insert(raw.to_owned());
                }
            }
        }
        Self { aliases }
    }

    /// Raw groups of which one is held: by their common name where all groups of that name are among them.
    fn any(&self, raw: &[String]) -> String {
        let mut rest: BTreeSet<&str> = raw.iter().map(String::as_str).collect();
        let mut names = Vec::new();
        for (alias, members) in &self.aliases {
            if members.iter().all(|member| raw.contains(member)) {
                names.push(alias.clone());
                members.iter().for_each(|member| _ = rest.remove(&**member));
            }
        }
        for group in rest {
            if self.aliases.contains_key(group) {
                // Not the name of `group_names` that is written alike.
                names.push(format!("{group} (the issuer's)"));
                continue;
            }
            let of = self.aliases.iter().find(|(_, members)| members.contains(group));
            names.push(of.map_or_else(|| group.to_owned(), |(alias, _)| format!("{group} (of {alias})")));
        }
        names.join(", ")
    }

    fn who(&self, who: &Who) -> String {
        match who {
            Who::Everyone => "everyone".to_owned(),
            Who::AnyGroup => "any group".to_owned(),
            Who::Account(name) => format!("service:{name}"),
            Who::Holders(all) => {
                all.iter().map(|any| self.any(any)).collect::<Vec<_>>().join(" who is also in ")
            }
        }
    }
}

impl Changed {
    fn of(line: &Line, labels: &Labels) -> Self {
        let (who, groups) = match &line.who {
            Who::Everyone => ("everyone", Vec::new()),
            Who::AnyGroup => ("any_group", Vec::new()),
            Who::Account(_) => ("service_account", Vec::new()),
            Who::Holders(groups) => ("groups", groups.clone()),
        };
        let access = |reach: &Reach| Access {
            granted: reach.until.is_some(),
            until: end(reach),
            from: reach.from.clone(),
            shadow: reach.watched.clone(),
        };
        Self {
            change: line.change.name(),
            who,
            groups,
            label: labels.who(&line.who),
            tenants: line.tenants.clone(),
            except_tenants: line.except.clone(),
            scopes: line.scopes(),
            old: access(&line.old),
            new: access(&line.new),
        }
    }
}

/// Every rule that only one of the policies has.
fn rules(sides: [&Snapshot; 2], now: u64) -> Vec<RuleChanged> {
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
            scopes: scope_names(&units),
            networks: Vec::new(),
            shadow: false,
            until: rule.expires.map(timestamp),
        }
    }

    fn of_restriction(change: &'static str, rule: &Restriction, snapshot: &Snapshot) -> Self {
        let covered = units().iter().copied().filter(|unit| rule.scopes.cover(unit.scope, unit.backends));
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
            scopes: scope_names(&covered.collect::<Vec<_>>()),
            networks: Bound::of(rule, snapshot).networks,
            shadow: rule.shadow,
            until: None,
        }
    }

    fn row(&self, labels: &Labels) -> [String; 7] {
        let but = |all: &[String]| match all {
            [] => String::new(),
            some => format!(" except {}", first_few(some, MAX_LISTED)),
        };
        let groups = if *self.groups == ["*"] { "everyone".to_owned() } else { labels.any(&self.groups) };
        let except =
            if self.except_groups.is_empty() { Vec::new() } else { vec![labels.any(&self.except_groups)] };
        let from = match self.rule {
            "grant" => "as restricted".to_owned(),
            _ => format!("{}{}", self.networks.join(", "), if self.shadow { " [shadow]" } else { "" }),
        };
        [
            self.change.to_owned(),
            one_line(&format!(
                "{} {} ({})",
                self.rule,
                self.name,
                place_of(self.owner.as_deref(), &self.file, self.line)
            )),
            one_line(&format!("{groups}{}", but(&except))),
            format!("{}{}", first_few(&self.tenants, MAX_LISTED), but(&self.except_tenants)),
            scopes_text(&self.scopes),
            one_line(&from),
            match (self.rule, &self.until) {
                ("grant", Some(until)) => until.clone(),
                ("grant", None) => "always".to_owned(),
                _ => "-".to_owned(),
            },
        ]
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

fn human(report: &Report, lines: &[Line], labels: &Labels) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    _ = writeln!(out, "old  {}, revision {}", report.old.file, report.old.revision);
    _ = writeln!(out, "new  {}, revision {}", report.new.file, report.new.revision);
    if report.equal {
        out.push_str("\nno difference: both allow the same\n");
        return out;
    }
    let rows: Vec<_> = report.changes.iter().zip(lines).map(|(changed, line)| row(changed, line)).collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&columns(["CHANGE", "WHO", "TENANT", "SCOPES", "FROM", "UNTIL"], &rows));
    }
    if report.overlapping {
        out.push_str(
            "\npatterns of tenants, or excepted groups, overlap in too many ways to say what changes for people\n\
             each line is a rule that only one policy has, whatever other rules say besides\n",
        );
        let rows: Vec<_> = report.rules.iter().map(|rule| rule.row(labels)).collect();
        out.push_str(&columns(["CHANGE", "RULE", "WHO", "TENANT", "SCOPES", "FROM", "UNTIL"], &rows));
    }
    if !report.settings.is_empty() {
        _ = writeln!(out, "\nalso different: {}", report.settings.join(", "));
        let text = |side: &Option<String>| side.as_deref().map_or_else(|| "-".to_owned(), one_line);
        let rows: Vec<_> = report
            .details
            .iter()
            .map(|detail| {
                let words = [Some(detail.section), detail.name.as_deref(), detail.what];
                let what: Vec<_> = words.into_iter().flatten().map(one_line).collect();
                let change = match (&detail.old, &detail.new) {
                    (None, _) => "gained",
                    (_, None) => "lost",
                    _ => "changed",
                };
                [change.to_owned(), what.join(" "), format!("{} -> {}", text(&detail.old), text(&detail.new))]
            })
            .collect();
        out.push_str(&columns(["CHANGE", "SETTING", "OLD -> NEW"], &rows));
    }
    out
}

fn row(changed: &Changed, line: &Line) -> [String; 6] {
    let mut tenant = changed.tenants.join(" & ");
    let shown = changed.except_tenants.get(..MAX_EXCEPTIONS).unwrap_or(&changed.except_tenants);
    if !shown.is_empty() {
        _ = write!(tenant, " except {}", shown.join(", "));
    }
    if let Some(more @ 1..) = changed.except_tenants.len().checked_sub(MAX_EXCEPTIONS) {
        _ = write!(tenant, " and {more} more");
    }
    let from = from_where;
    let until = |reach: &Reach| match reach.until {
        Some(Until::Time(time)) => timestamp(time),
        Some(Until::Always) => "always".to_owned(),
        None => "-".to_owned(),
    };
    let both = |before: String, after: String| {
        if before == after { after } else { format!("{before} -> {after}") }
    };
    let (from, until) = match line.change {
        Change::Gained => (from(&line.new), until(&line.new)),
        Change::Lost => (from(&line.old), until(&line.old)),
        Change::Until | Change::Places => {
            (both(from(&line.old), from(&line.new)), both(until(&line.old), until(&line.new)))
        }
    };
    [
        changed.change.to_owned(),
        one_line(&changed.label),
        tenant,
        scopes_text(&changed.scopes),
        one_line(&from),
        until,
    ]
}
