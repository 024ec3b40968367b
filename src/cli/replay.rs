//! `tenantauth replay`: what a new policy would have done with the requests of an audit log.

mod print;
mod progress;

use super::policy::{LastGood, Secrets};
use super::{Answer, Failure, Format, Status, lines, one_line, refused_owners, words};
use crate::engine::unix_now;
use crate::policy::OwnerState;
use crate::replay::log::{Log, LogError};
use crate::replay::record::{MAX_LINE, Next, Record};
use crate::replay::{Findings, Replayer, Summary};
use clap::Args;
use print::Output;
use progress::Progress;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// Lines that cannot be read are shown up to this many.
const MAX_CORRUPT_SHOWN: u64 = 5;

/// Decides the requests of an audit log again by another policy, and prints those whose decision changes.
///
/// The log is read as a stream and never kept. A record names those groups of a person that the policy of its time
/// named and did not revoke; where another group decides that the new policy names, the outcome is `unknown`. Which
/// groups a policy named is learnt from all its records in the file; --recorded tells it for certain, also for stdin,
/// and what was revoked. A name in `group_names` is taken to mean the same in both policies. Tokens, headers and paths
/// are not judged again. A record of which a part was cut that could decide is `unknown`. A record has one id of a
/// person and no token: whoever was denied as revoked is `unknown` where the new policy revokes another id or a token,
/// and a warning reports revocations that fit no record. Exit status 0 where no decision changes, 2 where one does, 3
/// where a policy is invalid, 1 where a file cannot be read or holds no record at all (a compressed one is named as
/// such).
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
    /// Only records of this time and later, as in RFC 3339. What groups earlier ones name is learnt all the same.
    #[arg(long, value_name = "TIME", value_parser = super::explain::parse_time)]
    since: Option<u64>,
    /// Print only the summary: how many decisions change, by reason, tenant, group and owner.
    #[arg(long, conflicts_with = "limit")]
    summary: bool,
    /// Print so many changed records at most; the summary counts all.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    last_good: LastGood,
    /// The log: one record a line, or `-` for stdin.
    #[arg(value_name = "AUDIT.JSONL")]
    log: PathBuf,
}

impl Replay {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let now = self.now.unwrap_or_else(unix_now);
        let policy = self.secrets.in_force(&self.policy, &self.last_good, now, format);
        let policy = match policy.and_then(|policy| policy.complete(&self.policy, format)) {
            Ok(policy) => policy,
            Err(answer) => return Ok(answer),
        };
        let mut replayer = Replayer::of(&policy.compiled.snapshot, self.now);
        let mut err = policy.problems();
        for path in &self.recorded {
            let recorded = match self.secrets.usable(path, now, format) {
                Ok(recorded) => recorded,
                Err(answer) => return Ok(answer),
            };
            replayer.learn_policy(&recorded.compiled.snapshot);
            // Nothing is decided by it: a broken document of an owner is reported and stops nothing.
            err.push_str(&lines(refused_owners(&recorded.owners)));
            for owner in recorded.owners.iter().filter(|owner| owner.state != OwnerState::Current) {
                _ = writeln!(
                    err,
                    "warning: `{}` is read without the document of the owner `{}`\n  help: of records that were made with \
                     another version of it, nothing is learnt",
                    path.display(),
                    owner.name
                );
            }
        }
        let limit = if self.summary { Some(0) } else { self.limit };
        let mut out = Output::new(format, limit);
        let summary = match self.replay(&mut replayer, &mut out, &mut err) {
            Ok(summary) => summary,
            // Whoever read it has seen enough.
            Err(Stopped::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
                return Ok(Answer { status: Status::Ok, out: String::new(), err });
            }
            Err(Stopped::Output(error)) => {
                return Err(Failure(format!("cannot write the output: {}", words(&error))));
            }
            Err(Stopped::Input(error)) => {
                let mut answer = Failure(error.to_string()).with_help(&error.help());
                answer.err.insert_str(0, &err);
                return Ok(answer);
            }
        };
        let out = out.end(&summary)?;
        let status = if summary.changed > 0 { Status::Denied } else { Status::Ok };
        Ok(Answer { status, out, err })
    }

    fn replay(
        &self,
        replayer: &mut Replayer<'_>,
        out: &mut Output<'_>,
        err: &mut String,
    ) -> Result<Summary, Stopped> {
        let mut log = Log::open(&self.log)?;
        // A pipe can be read only once.
        if log.size.is_some() {
            let mut progress = Progress::new("looking for groups", log.size);
            replayer.learn_log(&mut log, |bytes| progress.read(bytes, 0))?;
            log = Log::open(&self.log)?;
        }
        let mut findings = Findings::default();
        let mut line = Vec::new();
        let mut number = 0;
        let mut progress = Progress::new("replaying", log.size);
        loop {
            let (found, bytes) = log.next(&mut line)?;
            progress.read(bytes, findings.summary.changed);
            number += 1;
            let problem = match found {
                Next::End => break,
                Next::TooLong => format!("longer than {} KiB", MAX_LINE >> 10),
                Next::Read if line.trim_ascii().is_empty() => continue,
                Next::Read => match Record::parse(&line) {
                    Err(error) => format!("no record: {error}"),
                    Ok(record) if self.is_earlier(&record) => {
                        findings.summary.earlier += 1;
                        continue;
                    }
                    Ok(record) => match replayer.replay(&record, number, &mut findings) {
                        Err(corrupt) => format!("no record: {}", corrupt.0),
                        Ok(change) => {
                            change.map_or(Ok(()), |change| out.show(&change)).map_err(Stopped::Output)?;
                            continue;
                        }
                    },
                },
            };
            findings.summary.corrupt += 1;
            if findings.summary.corrupt <= MAX_CORRUPT_SHOWN {
                // Writing to a string does not fail.
                _ = writeln!(err, "line {number}: {}", one_line(&problem));
            }
        }
        drop(progress);
        out.flush().map_err(Stopped::Output)?;
        if findings.summary.corrupt > MAX_CORRUPT_SHOWN {
            let more = findings.summary.corrupt - MAX_CORRUPT_SHOWN;
            _ = writeln!(err, "and {more} more that are no records");
        }
        if findings.summary.records + findings.summary.earlier == 0 {
            return Err(LogError::NoRecord { file: log.file().to_owned() }.into());
        }
        err.push_str(&print::warning(&replayer.gaps(&findings)));
        Ok(findings.summary)
    }

    /// Whether a record is older than what was asked for. One without a time is not.
    fn is_earlier(&self, record: &Record<'_>) -> bool {
        self.since.is_some_and(|since| record.unix_time().is_some_and(|time| time < since))
    }
}

/// Why there is no summary.
enum Stopped {
    Input(LogError),
    Output(io::Error),
}

impl From<LogError> for Stopped {
    fn from(error: LogError) -> Self {
        Self::Input(error)
    }
}
