//! The command line: `tenantauth <command>`, for the people who write policies and those who are paged.
//!
//! A command is a function from its arguments to an [`Answer`]: what to print where, and the exit status. Only
//! [`run`] prints, and `replay`, which may find more than memory holds. Decisions are those of [`crate::decision`], made by the very function that nginx calls.

mod access;
mod accounts;
mod check;
mod csv;
mod diff;
mod doctor;
mod explain;
mod keygen;
mod keys;
mod policy;
mod reach;
mod readable;
mod replay;
mod routes;
mod schema;
mod test_cases;

use crate::policy::diagnostic::Diagnostic;
use crate::policy::{Outcome, OwnerOutcome, OwnerState};
use crate::scope::Backend;
use crate::text::{one_line, words};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

const EXIT_STATUS: &str = "\
Exit status:
  0  done: the policy is valid, the request is let through, every test passed
  1  the command could not run: wrong usage, a file that cannot be read, output that cannot be
     written, an issuer without usable keys
  2  the request is denied, a test failed, policies or decisions differ, doctor found a fault
  3  the policy is invalid, or the document of one of its owners

Errors and the problems of a policy go to stderr, everything else to stdout. With `--format json`
the problems of a policy that cannot be used are on stdout too, in the form of `check`.";

/// A longer cell does not make its column wider, in characters.
const MAX_WIDTH: usize = 100;
/// Entries of a rule's list that are shown to people.
const MAX_LISTED: usize = 8;

/// Authorization for Grafana OSS over Mimir, Loki and Tempo, inside nginx.
#[derive(Parser)]
#[command(name = "tenantauth", version, after_help = EXIT_STATUS, subcommand_required = true)]
struct Cli {
    /// For people, as one JSON document on stdout, or of `access` as CSV.
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    format: Output,
    #[command(subcommand)]
    command: Command,
}

/// What `--format` may be.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
    Csv,
}

/// The form of an answer that every command has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Human,
    Json,
}

#[derive(Subcommand)]
enum Command {
    Access(access::Access),
    Check(check::Check),
    Diff(diff::Diff),
    Doctor(doctor::Doctor),
    Explain(Box<explain::Explain>),
    Keygen(keygen::Keygen),
    Keys(keys::Keys),
    Replay(replay::Replay),
    Routes(routes::Routes),
    Schema(schema::Schema),
    Test(test_cases::Test),
}

/// The exit status. In this order the worse one counts where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Ok = 0,
    /// The command could not run.
    Failed = 1,
    /// The request is denied, a test failed, or policies differ.
    Denied = 2,
    /// The policy is invalid.
    Invalid = 3,
}

/// What a command has to say.
struct Answer {
    status: Status,
    /// For stdout.
    out: String,
    /// For stderr.
    err: String,
}

/// Why a command could not run: the words for stderr, without `error: `.
struct Failure(String);

impl Failure {
    /// The answer, with what to do about it on a line of its own.
    fn with_help(self, help: &str) -> Answer {
        let mut answer = Answer::failed(&self);
        // Writing to a string does not fail.
        _ = writeln!(answer.err, "  help: {}", one_line(help));
        answer
    }
}

impl Answer {
    fn ok(out: String) -> Self {
        Self { status: Status::Ok, out, err: String::new() }
    }

    fn failed(failure: &Failure) -> Self {
        Self { status: Status::Failed, out: String::new(), err: format!("error: {}\n", one_line(&failure.0)) }
    }

    /// A reader that has seen enough (`| head`) is no failure; output that is lost for another reason is.
    fn print(&self) -> Status {
        // Where stderr is closed there is nobody to tell.
        let _ = io::stderr().write_all(self.err.as_bytes());
        let mut stdout = io::stdout().lock();
        match stdout.write_all(self.out.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                let _ = writeln!(io::stderr(), "error: cannot write the output: {}", words(&error));
                // Whatever was found, nobody can read it.
                Status::Failed
            }
            _ => self.status,
        }
    }
}

/// Runs the command line.
///
/// `args`: the program's name and its arguments. Prints; the result is the exit status of the process: 0 done, 1
/// could not run or wrong usage, 2 denied, differs or a test failed, 3 invalid policy.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let answer = match Cli::try_parse_from(args) {
        Ok(cli) => execute(cli).unwrap_or_else(|failure| Answer::failed(&failure)),
        Err(error) => {
            let text = error.render().to_string();
            if error.use_stderr() {
                Answer { status: Status::Failed, out: String::new(), err: text }
            } else {
                Answer::ok(text)
            }
        }
    };
    ExitCode::from(answer.print() as u8)
}

fn execute(cli: Cli) -> Result<Answer, Failure> {
    let format = match (cli.format, &cli.command) {
        (Output::Json, _) => Format::Json,
        (Output::Csv, command) if !matches!(command, Command::Access(_)) => {
            return Err(Failure("`--format csv` is a form of `access` alone".to_owned()));
        }
        _ => Format::Human,
    };
    match cli.command {
        Command::Access(access) => access.run(cli.format),
        Command::Check(check) => check.run(format),
        Command::Diff(diff) => diff.run(format),
        Command::Doctor(doctor) => doctor.run(format),
        Command::Explain(explain) => explain.run(format),
        Command::Keygen(keygen) => keygen.run(format),
        Command::Keys(keys) => keys.run(format),
        Command::Replay(replay) => replay.run(format),
        Command::Routes(routes) => routes.run(format),
        Command::Schema(schema) => schema.run(),
        Command::Test(test) => test.run(format),
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The value as JSON for stdout.
fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure(format!("cannot write the answer as JSON: {error}")))?;
    Ok(text + "\n")
}

/// Unix seconds in RFC 3339.
fn timestamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("{seconds} s after 1970"), |time| time.to_string())
}

/// The answer where a policy cannot be used, or where documents of its owners cannot and the command needs all of them.
/// `read`: whether it could be read at all.
///
/// As JSON it is what `check` says.
fn refused(path: &Path, outcome: &Outcome, read: bool, format: Format) -> Result<Answer, Failure> {
    let err = match &outcome.compiled {
        Some(_) => lines(refused_owners(&outcome.owners)),
        None => lines(&outcome.diagnostics),
    };
    let out = match format {
        Format::Json => json(&check::Report::of_refused(path, outcome))?,
        Format::Human => String::new(),
    };
    Ok(Answer { status: if read { Status::Invalid } else { Status::Failed }, out, err })
}

/// What is wrong with the documents of owners that are not in force.
fn refused_owners(owners: &[OwnerOutcome]) -> impl Iterator<Item = &Diagnostic> {
    let refused = owners.iter().filter(|owner| owner.state != OwnerState::Current);
    refused.flat_map(|owner| &owner.diagnostics).filter(|problem| problem.is_error())
}

fn lines<'d>(problems: impl IntoIterator<Item = &'d Diagnostic>) -> String {
    problems.into_iter().fold(String::new(), |mut out, problem| {
        _ = writeln!(out, "{problem}");
        out
    })
}

/// Where a rule stands, for people: file and line, and whose document that is unless it is the platform's.
fn place_of(owner: Option<&str>, file: &str, line: u32) -> String {
    let whose = owner.map_or_else(String::new, |owner| format!("owner {owner}, "));
    format!("{whose}{}:{line}", one_line(file))
}

/// Rows under their headings, in columns of equal width; the last one is as long as it is. A cell longer than
/// [`MAX_WIDTH`] moves the rest of its own line, and of no other.
fn columns<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            let own = text.chars().count();
            if own <= MAX_WIDTH {
                *width = own.max(*width);
            }
        }
    }
    let mut out = String::new();
    for row in std::iter::once(&headings.map(str::to_owned)).chain(rows) {
        let mut line = String::new();
        for (text, width) in row.iter().zip(widths) {
            line.push_str(text);
            let missing = width.saturating_sub(text.chars().count());
            line.extend(std::iter::repeat_n(' ', missing + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The first few of a list for people, and how many more there are; the JSON form has them all.
fn first_few(all: &[String], at_most: usize) -> String {
    let shown = all.get(..at_most).unwrap_or(all);
    let mut text = shown.iter().map(|one| one_line(one)).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = all.len().checked_sub(at_most) {
        _ = write!(text, " and {more} more");
    }
    text
}

/// Parses a backend's name, for clap.
fn backend_parser() -> impl TypedValueParser<Value = Backend> {
    PossibleValuesParser::new(Backend::ALL.map(Backend::name))
        .try_map(|name| Backend::from_name(&name).ok_or("unknown backend"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_failure_stays_on_its_line() {
        let answer = Answer::failed(&Failure("cannot read `a\n\u{1b}[2Jb\u{202e}`".to_owned()));
        assert_eq!(answer.err, "error: cannot read `a\\n\\u{1b}[2Jb\\u{202e}`\n");
    }

    /// A width in a format string ends at 65535.
    #[test]
    fn a_long_cell_moves_its_own_line_only() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let long = "x".repeat(70_000);
        let rows = [row(["a", "größe", "b"]), row([&long, "c", "d"]), row(["e", "f", &long])];
        let expected = format!("WHO  WHAT   END\na    größe  b\n{long}  c      d\ne    f      {long}\n");
        assert!(columns(["WHO", "WHAT", "END"], &rows) == expected);
    }

    #[test]
    fn long_lists_are_counted() {
        let list = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(first_few(&list(3), 3), "0, 1, 2");
        assert_eq!(first_few(&list(5), 3), "0, 1, 2 and 2 more");
    }
}
