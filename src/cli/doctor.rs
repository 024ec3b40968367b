//! `tenantauth doctor`: what nginx takes and what nevertheless does not do what it is there for.

use super::accounts::User;
use super::{Answer, Failure, Format, Status, counted, json, readable};
use crate::doctor::files::{Files, Here, Nowhere};
use crate::doctor::{Finding, Severity, examine, read};
use crate::file::{self, FileError};
use crate::text::one_line;
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Looks over an nginx configuration, and prints what is wrong with it: options and paths, what is not protected, what
/// a cache, an error page or a header does to the decision.
///
/// `nginx -t` finds none of these. The exit status is 2 where a fault is found, and 0 where there are only hints. Lua
/// code is read and not run: options that are put together elsewhere are not looked at.
#[derive(Args)]
pub(super) struct Doctor {
    /// nginx.conf, which is read with the files that it includes; or what `nginx -T` printed, or `-` for that on
    /// stdin.
    #[arg(long, value_name = "FILE")]
    nginx: PathBuf,
    /// Look at no file that the configuration names: it belongs to another machine.
    #[arg(long)]
    no_files: bool,
    /// Judge as a reload does: hints are left out, and only what would answer everybody 500 or 503 fails.
    #[arg(long)]
    start: bool,
}

/// The JSON form; it is stable.
#[derive(Serialize)]
struct Report<'a> {
    faults: usize,
    hints: usize,
    findings: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    severity: &'static str,
    kind: &'static str,
    /// Whether everybody would be answered 500 or 503.
    denies_everybody: bool,
    file: &'a str,
    line: u32,
    message: &'a str,
    help: &'a str,
}

impl Doctor {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let name = self.nginx.display().to_string();
        let text = match self.text() {
            Ok(text) => text,
            Err(error) => {
                let help = "write the path of nginx.conf, or `-` and the output of `nginx -T` on stdin";
                return Ok(unreadable(&format!("cannot read `{name}`: {error}"), help));
            }
        };
        let files: Box<dyn Files> = if self.no_files { Box::new(Nowhere) } else { Box::new(Here(obstacle)) };
        // A file is read with its includes even where no other one is looked at.
        let configuration = match read(&name, &text, &Here(obstacle)) {
            Ok(configuration) => configuration,
            Err(error) => {
                return Ok(unreadable(&error.to_string(), "`nginx -t` reports the same: repair it first"));
            }
        };
        let mut findings = examine(&configuration, &*files);
        findings.retain(|finding| !self.start || finding.severity == Severity::Fault);
        let faults = findings.iter().filter(|finding| finding.severity == Severity::Fault).count();
        let fails = findings.iter().any(|finding| match self.start {
            true => finding.denies_everybody(),
            false => finding.severity == Severity::Fault,
        });
        let hints = findings.len() - faults;
        let mut err = String::new();
        let out = match format {
            Format::Json => {
                json(&Report { faults, hints, findings: findings.iter().map(Entry::of).collect() })?
            }
            Format::Human => {
                findings.iter().for_each(|finding| _ = writeln!(err, "{finding}"));
                format!("{name}: {}, {}\n", counted(faults, "fault"), counted(hints, "hint"))
            }
        };
        Ok(Answer { status: if fails { Status::Denied } else { Status::Ok }, out, err })
    }

    fn text(&self) -> Result<String, FileError> {
        let content = if self.nginx == Path::new("-") {
            let mut content = Vec::new();
            io::stdin().lock().take(file::MAX_BYTES + 1).read_to_end(&mut content)?;
            if u64::try_from(content.len()).unwrap_or(u64::MAX) > file::MAX_BYTES {
                return Err(FileError::TooLarge(file::MAX_BYTES));
            }
            content
        } else {
            file::read(&self.nginx)?
        };
        // A comment may be in any encoding.
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}

/// The answer where there is no configuration to look over.
fn unreadable(problem: &str, help: &str) -> Answer {
    let err = format!("error: {}\n  help: {help}\n", one_line(problem));
    Answer { status: Status::Failed, out: String::new(), err }
}

/// What keeps nginx's worker user from reading a file, if there is such a user here.
fn obstacle(path: &Path, user: &str) -> Option<(String, String)> {
    let user = User::find(user).ok()?;
    readable::obstacle(path, &user).map(|obstacle| (obstacle.message, obstacle.help))
}

impl<'a> Entry<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self {
            severity: if finding.severity == Severity::Fault { "fault" } else { "hint" },
            kind: finding.kind.name(),
            denies_everybody: finding.denies_everybody(),
            file: &finding.place.file,
            line: finding.place.line,
            message: &finding.message,
            help: &finding.help,
        }
    }
}
