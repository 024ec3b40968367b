//! What was found, for people.

use super::report::{Report, RuleChanged};
use crate::access::diff::{Change, Diff as Found, Line, Who};
use crate::access::settings::{Setting, Shown};
use crate::access::{Reach, Until, scope_names};
use crate::cli::reach::{from_where, scopes_text, sets, short};
use crate::cli::{MAX_LISTED, columns, first_few, one_line, place_of, timestamp};
use crate::policy::snapshot::{SERVICE, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Tenants that are listed as exceptions of a line; the JSON form has them all.
const MAX_EXCEPTIONS: usize = 5;

/// What policies call raw groups.
pub(super) struct Labels {
    aliases: BTreeMap<String, BTreeSet<String>>,
}

impl Labels {
    pub(super) fn of(snapshots: [&Snapshot; 2]) -> Self {
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

    /// What `group_names` calls a raw group.
    pub(super) fn names(&self, group: &str) -> Vec<String> {
        let of = self.aliases.iter().filter(|(_, members)| members.contains(group));
        of.map(|(alias, _)| alias.clone()).collect()
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

impl RuleChanged {
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
            _ => {
                let networks: Vec<_> = self.networks.iter().map(short).collect();
                format!("{}{}", networks.join(", "), if self.shadow { " [shadow]" } else { "" })
            }
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
            scopes_text(&scope_names(&self.units)),
            one_line(&from),
            self.until.clone().unwrap_or_else(|| "always".to_owned()),
        ]
    }
}

pub(super) fn human(report: &Report, found: &Found, labels: &Labels) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    _ = writeln!(out, "old  {}, revision {}", report.old.file, report.old.revision);
    _ = writeln!(out, "new  {}, revision {}", report.new.file, report.new.revision);
    if report.equal {
        out.push_str("\nno difference: both allow the same\n");
        return out;
    }
    let rows: Vec<_> = found.lines.iter().map(|line| row(line, labels)).collect();
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
        let rows: Vec<_> = found.settings.iter().map(setting).collect();
        out.push_str(&columns(["CHANGE", "SETTING", "OLD -> NEW"], &rows));
    }
    out
}

fn setting(setting: &Setting) -> [String; 3] {
    let Setting { section, name, what, old, new, .. } = setting;
    let name = one_line(name);
    if *section == "revoked" {
        return revocation(setting, &name);
    }
    let change = match (old, new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let words = [*section, &name, what];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let text =
        |side: &Option<Shown>| side.as_ref().map_or_else(|| "-".to_owned(), |side| one_line(&side.text));
    [change.to_owned(), words.join(" "), format!("{} -> {}", text(old), text(new))]
}

/// Who is let in no more, or again.
fn revocation(Setting { issuer, what, old, new, .. }: &Setting, name: &str) -> [String; 3] {
    let change = if new.is_some() { "revoked" } else { "no longer revoked" };
    const PEOPLE: [&str; 2] = ["is let in again", "loses all access"];
    let (whom, [again, no_more]) = match (issuer.as_deref(), *what) {
        (Some(issuer), "keys") => (
            format!("key {name} of {}", one_line(issuer)),
            ["verifies tokens again", "verifies no token any more"],
        ),
        (Some(SERVICE), _) => (format!("service account {name}"), PEOPLE),
        (Some(issuer), _) => (format!("{name} of {}", one_line(issuer)), PEOPLE),
        (None, "groups") => (
            format!("group {name}"),
            ["grants and excepts again", "grants and excepts nothing more; restrictions on it still bind"],
        ),
        // Of tokens there may be some of either kind.
        (None, _) => {
            let count = |side: &Option<Shown>| side.as_ref().map_or("0", |side| &side.text).to_owned();
            let effect = format!("{} more, {} fewer", count(new), count(old));
            return ["changed".to_owned(), "revoked tokens".to_owned(), effect];
        }
    };
    let until = new.as_ref().and_then(|new| new.text.strip_prefix("revoked until "));
    let effect = match (new, until) {
        (None, _) => again.to_owned(),
        (Some(_), None) => no_more.to_owned(),
        (Some(_), Some(until)) => format!("{no_more} until {until}"),
    };
    [change.to_owned(), whom, effect]
}

fn row(line: &Line, labels: &Labels) -> [String; 6] {
    let mut tenant = line.tenants.join(" & ");
    let shown = line.except.get(..MAX_EXCEPTIONS).unwrap_or(&line.except);
    if !shown.is_empty() {
        _ = write!(tenant, " except {}", sets(shown, ", "));
    }
    if let Some(more @ 1..) = line.except.len().checked_sub(MAX_EXCEPTIONS) {
        _ = write!(tenant, " and {more} more");
    }
    let from = from_where;
    let until = |reach: &Reach| match reach.until {
        Some(Until::Time(time)) => timestamp(time),
        Some(Until::Always) => "always".to_owned(),
        None => "as granted".to_owned(),
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
    let change = match (line.change, line.direction) {
        (Change::Until, Some(direction)) => format!("ends {}", direction.name()),
        (_, Some(direction)) => direction.name().to_owned(),
        (change, None) => change.name().to_owned(),
    };
    [change, one_line(&labels.who(&line.who)), tenant, scopes_text(&line.scopes()), one_line(&from), until]
}
