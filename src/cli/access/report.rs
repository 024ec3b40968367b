//! What `access` shows of the rows that were found.

use crate::access::reach::{Reached, Row, Source};
use crate::access::{Bound, NamedNetwork, ScopeAt, scope_names, scopes_of};
use crate::cli::check::Entry;
use crate::cli::policy::OwnerSeen;
use crate::cli::reach::{demands, end, from_where, scopes_text, sets};
use crate::cli::{MAX_LISTED, columns, csv, first_few, one_line, place_of};
use serde::Serialize;
use std::fmt::Write as _;

/// What was found; the JSON form is stable.
#[derive(Serialize)]
pub(super) struct Report<'r> {
    pub(super) policy: String,
    pub(super) revision: &'r str,
    pub(super) time: String,
    pub(super) tenant: Option<&'r str>,
    pub(super) group: Option<&'r str>,
    /// Owners whose documents cannot be used: without a last good version nobody reaches their tenants.
    pub(super) unavailable: Vec<Unavailable<'r>>,
    /// The patterns of tenants overlap in too many ways: each row is one grant by itself, and rows overlap.
    pub(super) overlapping: bool,
    pub(super) access: Vec<Shown<'r>>,
    /// Owners whose newest document is not in force.
    pub(super) owners: Vec<OwnerSeen>,
    /// `policy`, or `state_dir` where the policy is refused and nginx goes on with the last good one.
    pub(super) policy_source: &'static str,
    /// What is wrong with documents that are not in force.
    pub(super) diagnostics: Vec<Entry>,
}

#[derive(Serialize)]
pub(super) struct Unavailable<'r> {
    owner: &'r str,
    tenants: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Shown<'r> {
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

pub(super) fn unavailable<'r>(found: &Reached<'r>) -> Vec<Unavailable<'r>> {
    let owners = found.unavailable.iter();
    owners
        .map(|owner| Unavailable {
            owner: &owner.name,
            tenants: owner.tenants.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

impl<'r> Shown<'r> {
    pub(super) fn of(row: &'r Row) -> Self {
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

impl Report<'_> {
    pub(super) fn human(&self, rows: &[Row]) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        _ = writeln!(out, "policy  {}, revision {}", self.policy, self.revision);
        _ = writeln!(out, "time    {}", self.time);
        if let Some(tenant) = self.tenant {
            _ = writeln!(out, "tenant  {tenant}");
        }
        if let Some(group) = self.group {
            _ = writeln!(out, "group   {}", one_line(group));
        }
        for Unavailable { owner, tenants } in &self.unavailable {
            _ = writeln!(
                out,
                "owner   {owner}: its document is refused; without a last good version nobody reaches {} \
                 (policy_unavailable)",
                tenants.join(", ")
            );
        }
        if self.overlapping {
            out.push_str(
                "the patterns of tenants overlap in too many ways: each line is one grant by itself, and lines \
                 overlap\n",
            );
        }
        out.push('\n');
        let table = match (self.tenant, self.group) {
            (Some(_), _) if rows.is_empty() => "nobody may reach it\n".to_owned(),
            (_, Some(_)) if rows.is_empty() => "it may reach nothing\n".to_owned(),
            (None, None) if rows.is_empty() => "nobody may reach anything\n".to_owned(),
            (Some(_), _) => {
                let rows: Vec<_> = rows.iter().map(|row| cells(row, who(row))).collect();
                columns(["WHO", "SCOPES", "FROM", "UNTIL", "BY"], &rows)
            }
            (_, Some(_)) => {
                let rows: Vec<_> = rows.iter().map(|row| cells(row, tenants(row))).collect();
                columns(["TENANT", "SCOPES", "FROM", "UNTIL", "BY"], &rows)
            }
            (None, None) => {
                let all = |row: &Row| {
                    let [who, scopes, from, until, by] = cells(row, who(row));
                    [tenants(row), who, scopes, from, until, by]
                };
                let rows: Vec<_> = rows.iter().map(all).collect();
                columns(["TENANT", "WHO", "SCOPES", "FROM", "UNTIL", "BY"], &rows)
            }
        };
        out + &table
    }
}

fn tenants(row: &Row) -> String {
    let mut text = row.tenants.join(" & ");
    if !row.except.is_empty() {
        _ = write!(text, " except {}", sets(&row.except, ", "));
    }
    text
}

fn who(row: &Row) -> String {
    if row.group == "*" {
        "everyone".to_owned()
    } else if row.raw_groups.is_empty() {
        one_line(&row.group)
    } else {
        one_line(&format!("{} ({})", row.group, first_few(&row.raw_groups, MAX_LISTED)))
    }
}

/// A row for people, behind its first cell.
fn cells(row: &Row, first: String) -> [String; 5] {
    let mut from = from_where(&row.reach);
    if !row.from_in_parts.is_empty() {
        _ = write!(from, " [for some of them also {}]", demands(&row.from_in_parts));
    }
    let grants: Vec<_> = row.grants.iter().map(source).collect();
    let until = end(&row.reach).unwrap_or_else(|| "always".to_owned());
    [first, scopes_text(&scope_names(&row.units)), one_line(&from), until, first_few(&grants, MAX_LISTED)]
}

fn source(grant: &Source) -> String {
    format!("{} ({})", one_line(&grant.name), place_of(grant.owner.as_deref(), &grant.file, grant.line))
}

/// The rows for a spreadsheet, each list as one cell.
pub(super) fn csv(rows: &[Row]) -> String {
    const HEADINGS: [&str; 10] = [
        "tenants",
        "except_tenants",
        "group",
        "raw_groups",
        "scopes",
        "from",
        "from_in_parts",
        "shadow",
        "until",
        "grants",
    ];
    let networks = |bound: &Bound| {
        let all = |one: &NamedNetwork| match one.networks.as_slice() {
            [only] if *only == one.name => only.clone(),
            all => format!("{} ({})", one.name, all.join(" ")),
        };
        bound.networks.iter().map(all).collect::<Vec<_>>().join(" or ")
    };
    let bounds = |bounds: &[Bound]| bounds.iter().map(networks).collect::<Vec<_>>().join(" and ");
    let row = |row: &Row| {
        [
            row.tenants.join(" & "),
            sets(&row.except, "; "),
            row.group.clone(),
            row.raw_groups.join("; "),
            scope_names(&row.units).join("; "),
            if row.reach.from.is_empty() { "anywhere".to_owned() } else { bounds(&row.reach.from) },
            bounds(&row.from_in_parts),
            bounds(&row.reach.watched),
            end(&row.reach).unwrap_or_default(),
            row.grants.iter().map(source).collect::<Vec<_>>().join("; "),
        ]
    };
    csv::table(HEADINGS, rows.iter().map(row))
}
