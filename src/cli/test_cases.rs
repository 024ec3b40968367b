//! `tenantauth test`: the tests of a policy, one by one.

use super::check::Entry;
use super::policy::Secrets;
use super::{Answer, Failure, Format, Status, counted, json};
use crate::engine::unix_now;
use crate::file::read;
use crate::policy::OwnerState;
use crate::policy::cases::{self, Case, Outcome};
use crate::policy::diagnostic::{Diagnostic, Path as At, Place, Problems};
use crate::policy::snapshot::Snapshot;
use crate::policy::{self, store};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Runs the tests of a policy, its own and those of further documents.
///
/// A further document holds `tests:` and nothing else. nginx runs the policy's own before it takes a policy: one that
/// fails refuses it. A test that passes no more because a grant has expired is a warning, here as there.
/// Exit status 0 where none failed, 2 where one did, 3 where a document is invalid, 1 where one cannot be read.
#[derive(Args)]
pub(super) struct Test {
    /// The policy: a file, or a directory that holds a `policy.yaml`.
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// Documents that hold `tests:`.
    #[arg(value_name = "CASES")]
    cases: Vec<PathBuf>,
    #[command(flatten)]
    secrets: Secrets,
}

/// How all tests went; the JSON form is stable.
#[derive(Serialize)]
struct Report {
    policy: String,
    /// Null where the policy is not valid; then no test was run.
    revision: Option<String>,
    passed: usize,
    failed: usize,
    outdated: usize,
    documents: Vec<Document>,
    #[serde(skip)]
    status: Status,
}

#[derive(Serialize)]
struct Document {
    file: String,
    tests: Vec<Tested>,
    diagnostics: Vec<Entry>,
    #[serde(skip)]
    found: Vec<Diagnostic>,
    #[serde(skip)]
    status: Status,
}

#[derive(Serialize)]
struct Tested {
    name: String,
    line: u32,
    /// `passed`, `failed`, or `outdated`: it passed before a grant or its own claims expired.
    outcome: &'static str,
    expected: String,
    decision: &'static str,
    reason: &'static str,
}

impl Test {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let report = self.report(unix_now());
        let (mut out, mut err) = (String::new(), String::new());
        match format {
            Format::Json => out = json(&report)?,
            Format::Human => {
                for document in &report.documents {
                    document.found.iter().for_each(|problem| _ = writeln!(err, "{problem}"));
                    if document.status != Status::Invalid && document.status != Status::Failed {
                        _ = writeln!(out, "{}", document.summary());
                    }
                }
            }
        }
        Ok(Answer { status: report.status, out, err })
    }

    fn report(&self, now: u64) -> Report {
        let (policy::Outcome { compiled, diagnostics, owners }, fingerprint, own) =
            self.secrets.read(&self.policy, now, false);
        let name = self.policy.display().to_string();
        let mut documents = Vec::new();
        match &compiled {
            Some(compiled) => {
                let file = fingerprint.files().next().map_or(&*self.policy, |(path, _)| path);
                documents.push(Document::run(&compiled.snapshot, file, &own, Vec::new(), now));
                for owner in owners {
                    let file = Path::new(&owner.file);
                    documents.push(if owner.state == OwnerState::Current {
                        Document::run(&compiled.snapshot, file, &owner.cases, owner.diagnostics, now)
                    } else {
                        Document::refused(file, owner.diagnostics, Status::Invalid)
                    });
                }
                for path in &self.cases {
                    documents.push(Document::of_file(&compiled.snapshot, path, now));
                }
            }
            None => {
                let read = fingerprint.files().next().is_some_and(|(_, error)| error.is_none());
                let status = if read { Status::Invalid } else { Status::Failed };
                documents.push(Document::refused(&self.policy, diagnostics, status));
            }
        }
        let count = |outcome: Outcome| {
            let tests = documents.iter().flat_map(|document| &document.tests);
            tests.filter(|test| test.outcome == outcome.name()).count()
        };
        Report {
            policy: name,
            revision: compiled.map(|compiled| compiled.snapshot.revision.to_string()),
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            outdated: count(Outcome::Outdated),
            status: documents.iter().map(|document| document.status).max().unwrap_or(Status::Ok),
            documents,
        }
    }
}

impl Document {
    fn of_file(snapshot: &Snapshot, path: &Path, now: u64) -> Self {
        match read(path) {
            Ok(text) => {
                let (cases, found) = cases::read(&path.display().to_string(), &text);
                Self::run(snapshot, path, &cases, found, now)
            }
            Err(error) => {
                let mut problems = Problems::of(&path.display().to_string());
                problems
                    .error(Place { line: 1, column: 1 }, &At::Root, format!("cannot read the tests: {error}"))
                    .help("check the path");
                Self::refused(path, problems.into_sorted(), Status::Failed)
            }
        }
    }

    fn run(snapshot: &Snapshot, file: &Path, cases: &[Case], mut found: Vec<Diagnostic>, now: u64) -> Self {
        let file_name = file.display().to_string();
        if store::refused(&found) {
            return Self::refused(file, found, Status::Invalid);
        }
        let mut problems = Problems::of(&file_name);
        let outcomes = cases::run(snapshot, cases, now, &mut problems);
        let failed = problems.any_error();
        found.extend(problems.into_sorted());
        let tests = cases.iter().zip(outcomes).map(|(case, outcome)| {
            let decision = case.decision(snapshot, now);
            Tested {
                name: case.name.to_string(),
                line: case.place.line,
                outcome: outcome.name(),
                expected: case.expected.to_string(),
                decision: decision.effect(),
                reason: decision.reason().name(),
            }
        });
        Self {
            file: file_name,
            tests: tests.collect(),
            diagnostics: found.iter().map(Entry::of).collect(),
            found,
            status: if failed { Status::Denied } else { Status::Ok },
        }
    }

    fn refused(file: &Path, found: Vec<Diagnostic>, status: Status) -> Self {
        Self {
            file: file.display().to_string(),
            tests: Vec::new(),
            diagnostics: found.iter().map(Entry::of).collect(),
            found,
            status,
        }
    }

    fn summary(&self) -> String {
        let count =
            |outcome: Outcome| self.tests.iter().filter(|test| test.outcome == outcome.name()).count();
        if self.tests.is_empty() {
            return format!("{}: no tests", self.file);
        }
        let mut line = format!(
            "{}: {}, {} passed, {} failed",
            self.file,
            counted(self.tests.len(), "test"),
            count(Outcome::Passed),
            count(Outcome::Failed)
        );
        if let outdated @ 1.. = count(Outcome::Outdated) {
            _ = write!(line, ", {outdated} outdated");
        }
        line
    }
}
