//! `tenantauth replay`: what a new policy would have done with the requests of an audit log.

mod groups;
mod judge;
mod record;
mod revoked;

use super::{
    Answer, Failure, Format, Status, columns, counted, lines, load, plain, refused, refused_owners, words,
};
use crate::engine::unix_now;
use crate::policy::OwnerState;
use crate::policy::snapshot::Snapshot;
use clap::Args;
use judge::{Fate, Judge};
use record::{Line, Names, Record, SCHEMA};
use revoked::Untold;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Lines that cannot be read are shown up to this many.
const MAX_CORRUPT_SHOWN: u64 = 5;
const BUFFER: usize = 256 << 10;
/// Rows of each part of the summary; the JSON form has all.
const MAX_ROWS: usize = 20;

/// Decides the requests of an audit log again by another policy, and prints those whose decision changes.
///
/// The log is read as a stream and never kept. A record names those groups of a person that the policy of its time
/// named and did not revoke; where another group decides that the new policy names, the outcome is `unknown`. Which groups
/// a policy named is learnt from all its records in the file; --recorded tells it for certain, also for stdin, and what
/// was revoked. A name in `group_names` is taken to mean the same in both policies. Tokens, headers and paths are not
/// judged again. A record of which a part was cut that could decide is `unknown`. A record has one id of a person and
/// no token: whoever was denied as revoked is `unknown` where the new policy revokes another id or a token, and a
/// warning tells of revocations that fit no record. Exit status 0 where no decision changes, 2 where one does, 3
/// where a policy is invalid, 1 where a file cannot be read.
#[derive(Args)]
pub(super) struct Replay {
    /// The policy to decide by: a file, or a directory that holds a `policy.yaml`.
    #[arg(long)]
    policy: PathBuf,
    /// A policy under which records were made; may be repeated.
    #[arg(long, value_name = "POLICY")]
    recorded: Vec<PathBuf>,
    /// Decide as at this time, as in RFC 3339. Without it each request is decided at its own time.
    #[arg(long, value_name = "TIME", value_parser = super::explain::parse_time)]
    now: Option<u64>,
    /// The log: one record a line, or `-` for stdin.
    #[arg(value_name = "AUDIT.JSONL")]
    log: PathBuf,
}

/// How often what happened.
#[derive(Clone, Copy, Default, Serialize)]
struct Counts {
    gained: u64,
    lost: u64,
    unknown: u64,
}

/// What is left when the log has been read; the JSON form is stable.
#[derive(Default, Serialize)]
struct Summary {
    records: u64,
    same: u64,
    /// Denied as before, for another reason.
    other_reason: u64,
    changed: u64,
    unknown: u64,
    /// Denied before the rules were asked.
    before_rules: u64,
    /// Not decided by any policy.
    undecided: u64,
    /// Lines that are no records.
    corrupt: u64,
    by_owner: BTreeMap<String, Counts>,
    by_tenant: BTreeMap<String, Counts>,
    /// By the recorded and the new reason.
    by_reason: BTreeMap<String, Counts>,
}

/// A request whose decision changes, or is not known; the JSON form is stable.
#[derive(Serialize)]
struct Shown<'a> {
    /// `gained`, `lost` or `unknown`.
    change: &'static str,
    line: u64,
    time: Option<&'a str>,
    request_id: Option<&'a str>,
    issuer: Option<&'a str>,
    subject: Option<&'a str>,
    user: Option<&'a str>,
    groups: Vec<&'a str>,
    tenants: Vec<&'a str>,
    scope: Option<&'a str>,
    backend: Option<&'a str>,
    client_ip: Option<&'a str>,
    old: Decided<'a>,
    /// As far as it is known.
    new: Decided<'a>,
    /// What was not recorded and decides, only where the change is `unknown`: `groups`, `revocation`, or `truncated`,
    /// where the record was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    depends_on: Option<&'static str>,
}

#[derive(Serialize)]
struct Decided<'a> {
    decision: &'a str,
    reason: &'a str,
    grant: Option<&'a str>,
    restriction: Option<&'a str>,
    /// Whose document the rule stands in; null for the platform's.
    owner: Option<&'a str>,
}

/// The log, and how much of it there is.
struct Log {
    input: BufReader<Box<dyn io::Read>>,
    size: Option<u64>,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self { input: BufReader::with_capacity(BUFFER, Box::new(io::stdin())), size: None });
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::from(ErrorKind::IsADirectory));
        }
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self { input: BufReader::with_capacity(BUFFER, Box::new(file)), size })
    }
}

impl Replay {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let now = self.now.unwrap_or_else(unix_now);
        let (outcome, _, read) = load(&self.policy, now);
        let usable = outcome.compiled.as_ref().filter(|_| refused_owners(&outcome.owners).next().is_none());
        let Some(compiled) = usable else { return refused(&self.policy, &outcome, read, format) };
        let mut judge = Judge::of(&compiled.snapshot, self.now);
        let mut err = String::new();
        for path in &self.recorded {
            let (outcome, _, read) = load(path, now);
            let Some(recorded) = &outcome.compiled else { return refused(path, &outcome, read, format) };
            judge.learn_policy(&recorded.snapshot);
            // Nothing is decided by it, and what was in force without that document is told all the same.
            err.push_str(&lines(refused_owners(&outcome.owners)));
            for owner in outcome.owners.iter().filter(|owner| owner.state != OwnerState::Current) {
                _ = writeln!(
                    err,
                    "warning: `{}` is read without the document of the owner `{}`\n  help: of records that were made with \
                     another version of it, nothing is learnt",
                    path.display(),
                    owner.name
                );
            }
        }
        let unreadable =
            |error: io::Error| Failure(format!("cannot read `{}`: {}", self.log.display(), words(&error)));
        let mut log = Log::open(&self.log).map_err(unreadable)?;
        // A pipe can be read only once.
        if log.size.is_some() {
            learn(&mut log, &mut judge).map_err(unreadable)?;
            log = Log::open(&self.log).map_err(unreadable)?;
        }
        let mut out = Output { to: BufWriter::new(io::stdout().lock()), format, shown: 0 };
        let summary = match replay(&mut log, &judge, &mut out, &mut err) {
            Ok(summary) => summary,
            // Whoever read it has seen enough.
            Err(Stopped::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
                return Ok(Answer { status: Status::Ok, out: String::new(), err });
            }
            Err(Stopped::Output(error)) => {
                return Err(Failure(format!("cannot write the output: {}", words(&error))));
            }
            Err(Stopped::Input(error)) => return Err(unreadable(error)),
        };
        let end = match format {
            Format::Human => human(&summary, out.shown > 0),
            Format::Json => {
                let text = serde_json::to_string(&summary)
                    .map_err(|error| Failure(format!("cannot write the answer as JSON: {error}")))?;
                format!("{}],\n\"summary\":{text}}}\n", if out.shown == 0 { "{\"changes\":[" } else { "\n" })
            }
        };
        // A stream that could not be flushed shows itself when the summary is printed.
        drop(out);
        let status = if summary.changed > 0 { Status::Denied } else { Status::Ok };
        Ok(Answer { status, out: end, err })
    }
}

enum Stopped {
    Input(io::Error),
    Output(io::Error),
}

/// Which groups the policies of the log name, by what their records name.
fn learn(log: &mut Log, judge: &mut Judge<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    let mut progress = Progress::new("looking for groups", log.size);
    loop {
        let (found, bytes) = record::next(&mut log.input, &mut line)?;
        progress.read(bytes, 0);
        match found {
            Line::End => return Ok(()),
            Line::TooLong => {}
            Line::Read => {
                // What is no record is told when it is decided.
                if let Ok(Names { schema: SCHEMA, policy_revision: Some(revision), groups: Some(groups) }) =
                    serde_json::from_slice(&line)
                {
                    judge.learn(&revision, groups.iter().map(|group| &*group.0));
                }
            }
        }
    }
}

fn replay(
    log: &mut Log,
    judge: &Judge<'_>,
    out: &mut Output<'_>,
    err: &mut String,
) -> Result<Summary, Stopped> {
    let mut summary = Summary::default();
    let mut untold = Untold::default();
    let mut line = Vec::new();
    let mut number = 0;
    let mut progress = Progress::new("replaying", log.size);
    loop {
        let (found, bytes) = record::next(&mut log.input, &mut line).map_err(Stopped::Input)?;
        progress.read(bytes, summary.changed);
        number += 1;
        let problem = match found {
            Line::End => break,
            Line::TooLong => format!("longer than {} KiB", record::MAX_LINE >> 10),
            Line::Read if line.trim_ascii().is_empty() => continue,
            Line::Read => match serde_json::from_slice::<Record<'_>>(&line) {
                Err(error) => format!("no record: {error}"),
                Ok(record) => match judge.fate(&record) {
                    Err(corrupt) => format!("no record: {}", corrupt.0),
                    Ok(fate) => {
                        summary.records += 1;
                        judge.note(&record, &mut untold);
                        if let Some(shown) = summary.count(&record, fate, judge.snapshot, number) {
                            out.show(&shown).map_err(Stopped::Output)?;
                        }
                        continue;
                    }
                },
            },
        };
        summary.corrupt += 1;
        if summary.corrupt <= MAX_CORRUPT_SHOWN {
            // Writing to a string does not fail.
            _ = writeln!(err, "line {number}: {}", plain(&problem));
        }
    }
    out.to.flush().map_err(Stopped::Output)?;
    if summary.corrupt > MAX_CORRUPT_SHOWN {
        let more = summary.corrupt - MAX_CORRUPT_SHOWN;
        _ = writeln!(err, "and {more} more that are no records");
    }
    err.push_str(&judge.warning(&untold));
    Ok(summary)
}

impl Summary {
    /// Counts a record; what is worth showing is returned.
    fn count<'a>(
        &mut self,
        record: &'a Record<'_>,
        fate: Fate,
        snapshot: &'a Snapshot,
        line: u64,
    ) -> Option<Shown<'a>> {
        let mut depends_on = None;
        let (decision, change) = match fate {
            Fate::Cut => {
                self.unknown += 1;
                depends_on = Some("truncated");
                (None, "unknown")
            }
            Fate::Same => {
                self.same += 1;
                return None;
            }
            Fate::OtherReason(_) => {
                self.other_reason += 1;
                return None;
            }
            Fate::BeforeRules => {
                self.before_rules += 1;
                return None;
            }
            Fate::Undecided => {
                self.undecided += 1;
                return None;
            }
            Fate::Changed(decision) => {
                self.changed += 1;
                (Some(decision), if decision.is_allow() { "gained" } else { "lost" })
            }
            Fate::Unknown(decision) => {
                self.unknown += 1;
                depends_on = Some("groups");
                (Some(decision), "unknown")
            }
            Fate::PerhapsRevoked(decision) => {
                self.unknown += 1;
                depends_on = Some("revocation");
                (Some(decision), "unknown")
            }
        };
        let (old, old_reason) = match (&record.shadow, record.mode.as_deref()) {
            (Some(shadow), Some("shadow")) => (&*shadow.decision, &*shadow.reason),
            _ => {
                (record.decision.as_deref().unwrap_or_default(), record.reason.as_deref().unwrap_or_default())
            }
        };
        // Of one that is not known at all, what it was.
        let (new, new_reason) =
            decision.map_or((old, old_reason), |decision| (decision.effect(), decision.reason().name()));
        let add = |counts: &mut Counts| match change {
            "gained" => counts.gained += 1,
            "lost" => counts.lost += 1,
            _ => counts.unknown += 1,
        };
        let tenants: Vec<&str> = record.tenants.iter().flatten().map(|tenant| &*tenant.0).collect();
        for tenant in &tenants {
            add(self.by_tenant.entry((*tenant).to_owned()).or_default());
        }
        let reasons = if change == "unknown" {
            format!("{old_reason} -> unknown")
        } else {
            format!("{old_reason} -> {new_reason}")
        };
        add(self.by_reason.entry(reasons).or_default());
        let at = |number: u32| usize::try_from(number).ok();
        let grant =
            decision.and_then(|decision| decision.grant).and_then(at).and_then(|at| snapshot.grants.get(at));
        let restriction = decision.and_then(|decision| decision.restriction).and_then(at);
        let restriction = restriction.and_then(|at| snapshot.restrictions.get(at));
        let owners = [grant.map(|rule| rule.owner), restriction.map(|rule| rule.owner)];
        let owner = owners.into_iter().flatten().find_map(|owner| snapshot.owner_name(owner));
        // Whoever wrote the rule that decides now; where that is the platform, whoever wrote the one that decided.
        let counted = owner.or(record.owner.as_deref()).unwrap_or("-");
        add(self.by_owner.entry(counted.to_owned()).or_default());
        Some(Shown {
            change,
            line,
            time: record.time.as_deref(),
            request_id: record.request_id.as_deref(),
            issuer: record.issuer.as_deref(),
            subject: record.subject.as_deref(),
            user: record.user.as_deref(),
            groups: record.groups.iter().flatten().map(|group| &*group.0).collect(),
            tenants,
            scope: record.scope.as_deref(),
            backend: record.backend.as_deref(),
            client_ip: record.client_ip.as_deref(),
            old: Decided {
                decision: old,
                reason: old_reason,
                grant: record.grant.as_deref(),
                restriction: record.restriction.as_deref(),
                owner: record.owner.as_deref(),
            },
            new: Decided {
                decision: new,
                reason: new_reason,
                grant: grant.map(|grant| &*grant.name),
                restriction: restriction.map(|restriction| &*restriction.name),
                owner,
            },
            depends_on,
        })
    }
}

/// What is shown goes out as it is found.
struct Output<'o> {
    to: BufWriter<io::StdoutLock<'o>>,
    format: Format,
    shown: u64,
}

impl Output<'_> {
    fn show(&mut self, shown: &Shown<'_>) -> io::Result<()> {
        self.shown += 1;
        match self.format {
            Format::Json => {
                self.to.write_all(if self.shown == 1 { b"{\"changes\":[\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.to, shown)?;
                Ok(())
            }
            Format::Human => {
                let who = shown.user.or(shown.subject).unwrap_or("-");
                let of = shown.new.owner.map_or_else(String::new, |owner| format!(" of {owner}"));
                let by = match (shown.new.grant, shown.new.restriction) {
                    (Some(grant), _) => format!(" by the grant {grant}{of}"),
                    (_, Some(restriction)) => format!(" by the restriction {restriction}{of}"),
                    _ => String::new(),
                };
                let new = match shown.depends_on {
                    None => format!("{} ({}){by}", shown.new.decision, shown.new.reason),
                    Some("revocation") => "depends on a revoked id or token that was not recorded".to_owned(),
                    Some("truncated") => "depends on what was cut from the record".to_owned(),
                    Some(_) => "depends on groups that were not recorded".to_owned(),
                };
                let line = format!(
                    "{:<7}  line {}  {}  {who}  {}  {}  {}: {} ({}) -> {new}",
                    shown.change,
                    shown.line,
                    shown.time.unwrap_or("-"),
                    shown.tenants.join("|"),
                    shown.scope.unwrap_or("-"),
                    shown.client_ip.unwrap_or("-"),
                    shown.old.decision,
                    shown.old.reason,
                );
                writeln!(self.to, "{}", plain(&line))
            }
        }
    }
}

/// One line on a terminal that says how far it has come; nothing elsewhere.
struct Progress {
    what: &'static str,
    size: Option<u64>,
    bytes: u64,
    lines: u64,
    last: Instant,
    is_shown: bool,
}

impl Progress {
    fn new(what: &'static str, size: Option<u64>) -> Self {
        Self { what, size, bytes: 0, lines: 0, last: Instant::now(), is_shown: io::stderr().is_terminal() }
    }

    fn read(&mut self, bytes: u64, changed: u64) {
        self.bytes += bytes;
        self.lines += 1;
        // The clock is asked seldom: a look at it costs as much as a short line.
        if self.is_shown
            && self.lines.is_multiple_of(1024)
            && self.last.elapsed() > Duration::from_millis(500)
        {
            self.last = Instant::now();
            let of = self.size.map_or_else(String::new, |size| format!(" of {}", size >> 20));
            let line = format!(
                "{}: {}{of} MiB, {}, {changed} changed",
                self.what,
                self.bytes >> 20,
                counted(usize::try_from(self.lines).unwrap_or(usize::MAX), "line")
            );
            // Where stderr is closed there is nobody to tell.
            _ = write!(io::stderr(), "\r{line}\u{1b}[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

fn human(summary: &Summary, any: bool) -> String {
    let mut out = String::new();
    if any {
        out.push('\n');
    }
    let count = |count: u64, noun: &str| counted(usize::try_from(count).unwrap_or(usize::MAX), noun);
    _ = writeln!(
        out,
        "{}: {} changed, {} unknown, {} the same, {} denied for another reason, {} denied before the rules, {} not \
         decided; {}",
        count(summary.records, "record"),
        summary.changed,
        summary.unknown,
        summary.same,
        summary.other_reason,
        summary.before_rules,
        summary.undecided,
        count(summary.corrupt, "corrupt line"),
    );
    for (heading, counts) in
        [("OWNER", &summary.by_owner), ("TENANT", &summary.by_tenant), ("REASON", &summary.by_reason)]
    {
        if counts.is_empty() {
            continue;
        }
        let mut sorted: Vec<_> = counts.iter().collect();
        let total = |counts: &Counts| counts.gained + counts.lost + counts.unknown;
        sorted.sort_by_key(|(_, counts)| std::cmp::Reverse(total(counts)));
        let rows: Vec<_> = sorted
            .iter()
            .take(MAX_ROWS)
            .map(|(name, counts)| {
                let [gained, lost, unknown] =
                    [counts.gained, counts.lost, counts.unknown].map(|count| count.to_string());
                [plain(name), gained, lost, unknown]
            })
            .collect();
        out.push('\n');
        out.push_str(&columns([heading, "GAINED", "LOST", "UNKNOWN"], &rows));
        if let Some(more @ 1..) = sorted.len().checked_sub(MAX_ROWS) {
            _ = writeln!(out, "and {more} more");
        }
    }
    out
}
