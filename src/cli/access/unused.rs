//! Grants that no request of an audit log used.

use crate::access::{ScopeAt, Unit, scope_names, scopes_of, units};
use crate::cli::policy::Policy;
use crate::cli::reach::scopes_text;
use crate::cli::{MAX_LISTED, columns, counted, csv, first_few, one_line, place_of, timestamp};
use crate::policy::snapshot::{EVERYONE, Grant, GroupId, Snapshot};
use crate::replay::log::LogError;
use crate::replay::usage::{Usage, usage};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// What was found; the JSON form is stable.
#[derive(Serialize)]
pub(super) struct Report {
    policy: String,
    revision: String,
    time: String,
    log: LogSeen,
    /// How many grants there are, those that have expired left out.
    grants: usize,
    unused: Vec<Unused>,
}

#[derive(Serialize)]
struct LogSeen {
    file: String,
    records: u64,
    /// The time of its first and of its last record.
    from: Option<String>,
    to: Option<String>,
    /// Records of allowed requests that say too little: a part that decides was cut.
    undetermined: u64,
}

#[derive(Serialize)]
struct Unused {
    name: String,
    /// Whose document it stands in; null for the platform's.
    owner: Option<String>,
    file: String,
    line: u32,
    groups: Vec<String>,
    tenants: Vec<String>,
    except_tenants: Vec<String>,
    scopes: Vec<ScopeAt>,
    /// Null where it has no end.
    until: Option<String>,
    /// `unused`; `unknown` where a group that was not recorded may have used it.
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(skip)]
    units: Vec<Unit>,
}

impl Report {
    /// `path`: what the policy was asked for by. `now`: Unix seconds; what has expired by then is left out.
    pub(super) fn of(path: &Path, policy: &Policy, log: &Path, now: u64) -> Result<Self, LogError> {
        let snapshot = &policy.compiled.snapshot;
        let Usage { unused, records, undetermined, span } = usage(snapshot, log)?;
        let live = unused.into_iter().filter(|(grant, _)| !grant.has_expired(now));
        Ok(Self {
            policy: path.display().to_string(),
            revision: snapshot.revision.to_string(),
            time: timestamp(now),
            log: LogSeen {
                file: log.display().to_string(),
                records,
                from: span.map(|(first, _)| timestamp(first)),
                to: span.map(|(_, last)| timestamp(last)),
                undetermined,
            },
            grants: snapshot.grants.iter().filter(|grant| !grant.has_expired(now)).count(),
            unused: live.map(|(grant, perhaps)| Unused::of(grant, perhaps, snapshot)).collect(),
        })
    }

    pub(super) fn human(&self) -> String {
        let LogSeen { file, records, from, to, undetermined } = &self.log;
        let mut out = String::new();
        // Writing to a string does not fail.
        _ = writeln!(out, "policy  {}, revision {}", self.policy, self.revision);
        let records = counted(usize::try_from(*records).unwrap_or(usize::MAX), "record");
        let own = |time: &Option<String>| time.clone().unwrap_or_else(|| "an unknown time".to_owned());
        _ = writeln!(out, "log     {}, {records} from {} to {}", one_line(file), own(from), own(to));
        if *undetermined > 0 {
            _ = writeln!(out, "        {undetermined} of them say too little: a part was cut");
        }
        if self.unused.is_empty() {
            _ = writeln!(out, "\nevery grant was used ({})", self.grants);
            return out;
        }
        let count = self.unused.len();
        _ = writeln!(out, "\n{} of {} not used since {}:", count, counted(self.grants, "grant"), own(from));
        let row = |one: &Unused| {
            let (usage, until) =
                (one.usage.to_owned(), one.until.clone().unwrap_or_else(|| "always".to_owned()));
            [
                usage,
                one.who(),
                one.tenants(", ", MAX_LISTED),
                scopes_text(&scope_names(&one.units)),
                until,
                one.rule(),
            ]
        };
        let rows: Vec<_> = self.unused.iter().map(row).collect();
        out + &columns(["USE", "WHO", "TENANT", "SCOPES", "UNTIL", "GRANT"], &rows)
    }

    pub(super) fn csv(&self) -> String {
        let row = |one: &Unused| {
            [
                one.usage.to_owned(),
                one.groups.join("; "),
                one.tenants("; ", usize::MAX),
                scope_names(&one.units).join("; "),
                one.until.clone().unwrap_or_default(),
                one.rule(),
                self.log.from.clone().unwrap_or_default(),
                self.log.to.clone().unwrap_or_default(),
            ]
        };
        let headings = ["use", "groups", "tenants", "scopes", "until", "grant", "log_from", "log_to"];
        csv::table(headings, self.unused.iter().map(row))
    }
}

impl Unused {
    fn of(grant: &Grant, perhaps: bool, snapshot: &Snapshot) -> Self {
        let units: Vec<Unit> =
            units().iter().copied().filter(|unit| grant.scopes.contains(unit.scope)).collect();
        let name = |id: &GroupId| if *id == EVERYONE { "*" } else { snapshot.groups.name(*id) };
        Self {
            name: grant.name.to_string(),
            owner: snapshot.owner_name(grant.owner).map(str::to_owned),
            file: snapshot.file_of(grant.owner).to_owned(),
            line: grant.line,
            groups: grant.groups.iter().map(|id| name(id).to_owned()).collect(),
            tenants: grant.tenants.iter().map(ToString::to_string).collect(),
            except_tenants: grant.except_tenants.iter().map(ToString::to_string).collect(),
            scopes: scopes_of(&units),
            until: grant.expires.map(timestamp),
            usage: if perhaps { "unknown" } else { "unused" },
            units,
        }
    }

    fn who(&self) -> String {
        if *self.groups == ["*"] { "everyone".to_owned() } else { first_few(&self.groups, MAX_LISTED) }
    }

    fn tenants(&self, separator: &str, at_most: usize) -> String {
        let list =
            |all: &[String]| if at_most < usize::MAX { first_few(all, at_most) } else { all.join(separator) };
        match self.except_tenants.as_slice() {
            [] => list(&self.tenants),
            except => format!("{} except {}", list(&self.tenants), list(except)),
        }
    }

    fn rule(&self) -> String {
        format!("{} ({})", one_line(&self.name), place_of(self.owner.as_deref(), &self.file, self.line))
    }
}
