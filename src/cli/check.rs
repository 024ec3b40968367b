//! `tenantauth check`: every problem of a policy, before nginx sees it.

use super::accounts::User;
use super::policy::Secrets;
use super::{Answer, Failure, Format, Status, counted, json, readable};
use crate::engine::{self, unix_now};
use crate::policy::diagnostic::{Diagnostic, Place, Severity};
use crate::policy::{Outcome, OwnerState, store};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Validates policies and prints every problem with its place, and the revision of each that is valid.
///
/// A directory stands for the `policy.yaml` in it and the owners' documents in `owners.d`. Where `policy.yaml` is
/// invalid, those are looked at as far as they can be without it: syntax and shape. All policies are checked; the highest exit status counts: 3 where
/// one is invalid (a file that it names cannot be read: also 3), 1 where a policy itself cannot be read, so that
/// nothing was checked. Warnings do not fail.
#[derive(Args)]
pub(super) struct Check {
    /// Policy files, or directories that hold a `policy.yaml`.
    #[arg(value_name = "POLICY", required = true)]
    policies: Vec<PathBuf>,
    /// Also check that this user, nginx's worker user, can read the policy and every file it names.
    ///
    /// Looks at owner, group (of /etc/passwd and /etc/group, supplementary groups too) and mode of the files and of
    /// every directory on the way; not at access control lists. What the user cannot read makes the policy invalid.
    #[arg(long, value_name = "NAME")]
    as_user: Option<String>,
    /// Judge as a start or a reload of nginx does: what is wrong with owners' documents is told and does not fail.
    #[arg(long)]
    start: bool,
    /// The `state_dir` of `init_worker`: where it holds a last good version of an invalid policy, a start goes on
    /// with that, and the exit status is 0.
    ///
    /// Looks for what was kept of the policy under this path (made absolute), and only at what a worker of the user who
    /// runs this would use.
    #[arg(long, value_name = "DIR", requires = "start")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    secrets: Secrets,
}

/// What was found of all policies; the JSON form is stable.
#[derive(Serialize)]
pub(super) struct Report {
    policies: Vec<Checked>,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    valid: bool,
    /// Null where the policy is not valid.
    revision: Option<String>,
    diagnostics: Vec<Entry>,
    /// With `--start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Start>,
    /// Whether the document could be read at all.
    #[serde(skip)]
    read: bool,
    #[serde(skip)]
    status: Status,
    #[serde(skip)]
    found: Vec<Diagnostic>,
    owners: Vec<Owner>,
}

/// What a start of nginx would go on with: as `policy_source` and `revision` of a worker's status, null where nothing
/// is usable.
#[derive(Default, Serialize)]
struct Start {
    policy_source: Option<&'static str>,
    revision: Option<String>,
    /// Why nothing in the state directory is used, where something lies there.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// One owner of a directory.
#[derive(Serialize)]
struct Owner {
    name: String,
    contact: Option<String>,
    /// Null where it could not be judged, since the platform's document is invalid; false where it is wrong by itself.
    valid: Option<bool>,
    revision: Option<String>,
}

/// A diagnostic; `kind` is that of a warning, `path` is empty for the document itself.
#[derive(Serialize)]
pub(super) struct Entry {
    severity: &'static str,
    kind: Option<&'static str>,
    file: String,
    line: u32,
    column: u32,
    path: String,
    message: String,
    help: Option<String>,
}

impl Check {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let user = self.as_user.as_deref().map(User::find).transpose()?;
        let policies: Vec<Checked> =
            self.policies.iter().map(|policy| self.check(policy, user.as_ref())).collect();
        let report = Report { policies };
        let status = report.policies.iter().map(|policy| policy.status).max().unwrap_or(Status::Ok);
        let (mut out, mut err) = (String::new(), String::new());
        match format {
            Format::Json => out = json(&report)?,
            Format::Human => {
                for policy in &report.policies {
                    policy.found.iter().for_each(|problem| _ = writeln!(err, "{problem}"));
                    _ = writeln!(out, "{}", policy.summary());
                    if let Some(start) = &policy.start {
                        _ = writeln!(out, "  start: {}", start.summary());
                    }
                    for owner in &policy.owners {
                        let state = match &owner.revision {
                            Some(revision) if owner.valid == Some(true) => format!("valid, revision {revision}"),
                            _ if owner.valid.is_none() => {
                                "nothing wrong in itself, not judged further: the platform's document is invalid".to_owned()
                            }
                            _ => "invalid".to_owned(),
                        };
                        _ = writeln!(out, "  owner {}: {state}", owner.name);
                    }
                }
            }
        }
        Ok(Answer { status, out, err })
    }

    fn check(&self, policy: &Path, user: Option<&User>) -> Checked {
        let now = unix_now();
        let (outcome, fingerprint, read) = self.secrets.load(policy, now);
        let (mut found, told) = findings(policy, &outcome);
        let compiled = outcome.compiled;
        let mut usable = compiled.is_some();
        if let Some(user) = user {
            // A file that could not be read here is told already.
            let readable_here = fingerprint.files().filter(|(_, error)| error.is_none());
            let document = fingerprint.files().next().map(|(path, _)| path.display().to_string().into());
            let document: Arc<str> = document.unwrap_or_default();
            for (path, _) in readable_here {
                let Some(obstacle) = readable::obstacle(path, user) else { continue };
                usable &= fingerprint.is_of_an_owner(path);
                found.push(Diagnostic {
                    severity: Severity::Error,
                    file: Arc::clone(&document),
                    place: Place { line: 1, column: 1 },
                    path: String::new(),
                    message: obstacle.message,
                    help: Some(obstacle.help),
                });
            }
        }
        let valid = !found.iter().any(Diagnostic::is_error) && compiled.is_some();
        let revision = compiled.map(|compiled| compiled.snapshot.revision.to_string());
        let start = self.start.then(|| match &revision {
            Some(revision) if usable => {
                Start { policy_source: Some("policy"), revision: Some(revision.clone()), problem: None }
            }
            _ => self.last_good(policy, now),
        });
        let good = start.as_ref().map_or(valid, |start| start.policy_source.is_some());
        Checked {
            file: policy.display().to_string(),
            valid,
            revision: revision.filter(|_| valid),
            diagnostics: found.iter().map(Entry::of).collect(),
            start,
            owners: told,
            read,
            status: match (good, read) {
                (true, _) => Status::Ok,
                (false, false) => Status::Failed,
                (false, true) => Status::Invalid,
            },
            found,
        }
    }

    /// What the state directory holds for a start with a policy that is not usable.
    fn last_good(&self, policy: &Path, now: u64) -> Start {
        let Some(directory) = &self.state_dir else { return Start::default() };
        // nginx knows the policy by an absolute path, whatever directory this is run in.
        let known_as = std::path::absolute(policy).unwrap_or_else(|_| policy.to_owned());
        match engine::last_good(directory, &known_as, now) {
            Ok(None) => Start::default(),
            Ok(Some(compiled)) => Start {
                policy_source: Some("state_dir"),
                revision: Some(compiled.snapshot.revision.to_string()),
                problem: None,
            },
            Err(problem) => Start { problem: Some(problem.to_string()), ..Start::default() },
        }
    }
}

/// Every problem of a policy and of its owners' documents, and what became of these.
fn findings(policy: &Path, outcome: &Outcome) -> (Vec<Diagnostic>, Vec<Owner>) {
    let Outcome { compiled, diagnostics, owners } = outcome;
    let mut found = diagnostics.clone();
    found.extend(owners.iter().flat_map(|owner| owner.diagnostics.iter().cloned()));
    let mut told: Vec<Owner> = owners
        .iter()
        .map(|owner| Owner {
            name: owner.name.to_string(),
            contact: owner.contact.as_deref().map(str::to_owned),
            valid: Some(owner.state == OwnerState::Current),
            revision: owner.revision.as_deref().map(str::to_owned),
        })
        .collect();
    if owners.is_empty() && compiled.is_none() && policy.is_dir() {
        for (name, problems) in store::shapes_of_owners(policy) {
            let wrong = problems.iter().any(Diagnostic::is_error);
            told.push(Owner { name, contact: None, valid: wrong.then_some(false), revision: None });
            found.extend(problems);
        }
    }
    (found, told)
}

impl Report {
    /// What other commands say of a policy that they cannot use.
    pub(super) fn of_refused(policy: &Path, outcome: &Outcome) -> Self {
        let (found, owners) = findings(policy, outcome);
        let checked = Checked {
            file: policy.display().to_string(),
            valid: false,
            revision: None,
            diagnostics: found.iter().map(Entry::of).collect(),
            start: None,
            read: true,
            status: Status::Invalid,
            found,
            owners,
        };
        Self { policies: vec![checked] }
    }
}

impl Start {
    fn summary(&self) -> String {
        match (self.policy_source, self.revision.as_deref(), &self.problem) {
            (Some("policy"), _, _) => "with this policy".to_owned(),
            (Some(_), revision, _) => {
                format!(
                    "with the last good version of the state directory, revision {}",
                    revision.unwrap_or("unknown")
                )
            }
            (None, _, None) => "refused, there is no last good version".to_owned(),
            (None, _, Some(problem)) => format!("refused, {problem}"),
        }
    }
}

impl Checked {
    fn summary(&self) -> String {
        let errors = self.found.iter().filter(|problem| problem.is_error()).count();
        let warnings = self.found.len() - errors;
        let mut line = match (&self.revision, self.read) {
            (Some(revision), _) => format!("{}: valid, revision {revision}", self.file),
            (None, false) => return format!("{}: not checked", self.file),
            (None, _) => format!("{}: invalid, {}", self.file, counted(errors, "error")),
        };
        if warnings > 0 {
            _ = write!(line, ", {}", counted(warnings, "warning"));
        }
        line
    }
}

impl Entry {
    pub(super) fn of(problem: &Diagnostic) -> Self {
        let (severity, kind) = match problem.severity {
            Severity::Error => ("error", None),
            Severity::Warning(kind) => ("warning", Some(kind.name())),
        };
        Self {
            severity,
            kind,
            file: problem.file.to_string(),
            line: problem.place.line,
            column: problem.place.column,
            path: problem.path.clone(),
            message: problem.message.clone(),
            help: problem.help.clone(),
        }
    }
}
