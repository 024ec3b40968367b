//! The options of the commands that read a policy, and what they make of it.

use super::{Answer, Failure, Format, lines, one_line, refused, refused_owners, words};
use crate::engine::last_good_bundle;
use crate::policy::cases::Case;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::store::offline::{self, Reading};
use crate::policy::store::{Bundle, Fingerprint};
use crate::policy::{Compiled, Outcome, OwnerOutcome, OwnerState};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{self, Path, PathBuf};

/// For every command that needs a policy.
#[derive(Args, Clone, Copy)]
pub(super) struct Secrets {
    /// Do not read the policy's secrets (`client_ip.keys_file`), whether they are there or not: for pipelines and
    /// people who may not read them. Everything else is judged as with them.
    #[arg(long)]
    no_secrets: bool,
}

/// For the commands to which the last good versions matter.
#[derive(Args, Clone)]
pub(super) struct LastGood {
    /// The `state_dir` of `init_worker`: what nginx goes on with stands in for documents that are refused, owners' and
    /// the policy itself.
    ///
    /// The policy is looked up there by its path, made absolute. Run this as nginx's worker user: a file that belongs
    /// to another one is not used.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// A policy that can be used.
pub(super) struct Policy {
    pub(super) compiled: Compiled,
    pub(super) owners: Vec<OwnerOutcome>,
    source: Source,
    /// What is wrong with the policy in whose place the last good one stands.
    refused: Vec<Diagnostic>,
}

/// Where it came from, in words of a worker's status.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Policy,
    /// The policy alone; nothing is known of last good versions.
    PolicyAlone,
    StateDir,
}

/// An owner whose newest document is not in force. Its form in reports is stable.
#[derive(Serialize)]
pub(super) struct OwnerSeen {
    name: String,
    /// `last_good` or `unavailable`.
    state: &'static str,
    /// Of the version that is used; null where there is none.
    revision: Option<String>,
}

impl Secrets {
    /// Reads a policy; the flag says whether it could be read at all.
    pub(super) fn load(self, path: &Path, now: u64) -> (Outcome, Fingerprint, bool) {
        let (outcome, fingerprint, _) = self.read(path, now, true);
        let read = is_read(&fingerprint);
        (outcome, fingerprint, read)
    }

    /// The same; with its tests, where they are not to be run.
    pub(super) fn read(self, path: &Path, now: u64, test: bool) -> (Outcome, Fingerprint, Vec<Case>) {
        offline::read(path, now, Reading { former: &Bundle::EMPTY, secrets: !self.no_secrets, test })
    }

    /// The policy, or the answer where it cannot be used.
    pub(super) fn usable(self, path: &Path, now: u64, format: Format) -> Result<Policy, Answer> {
        let (outcome, _, read) = self.load(path, now);
        take(path, outcome, read, format)
    }

    /// The policy that nginx decides by, as far as `last_good` has it, or the answer where none can be used.
    pub(super) fn in_force(
        self,
        path: &Path,
        last_good: &LastGood,
        now: u64,
        format: Format,
    ) -> Result<Policy, Answer> {
        let Some(directory) = &last_good.state_dir else { return self.usable(path, now, format) };
        // What was kept knows its files by the path that nginx knows.
        let known_as = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let former = kept(directory, &known_as)?;
        let reading = Reading { former: &former, secrets: !self.no_secrets, test: true };
        let (outcome, fingerprint, _) = offline::read(&known_as, now, reading);
        if outcome.compiled.is_some() {
            let policy = take(path, outcome, true, format)?;
            return Ok(Policy { source: Source::Policy, ..policy });
        }
        let Outcome { compiled: Some(compiled), owners, .. } = former.compile(now) else {
            return take(path, outcome, is_read(&fingerprint), format);
        };
        let refused = outcome.diagnostics;
        Ok(Policy { compiled, owners, source: Source::StateDir, refused })
    }
}

fn is_read(fingerprint: &Fingerprint) -> bool {
    fingerprint.files().next().is_some_and(|(_, error)| error.is_none())
}

fn take(path: &Path, mut outcome: Outcome, read: bool, format: Format) -> Result<Policy, Answer> {
    match outcome.compiled.take() {
        Some(compiled) => {
            let (owners, source) = (outcome.owners, Source::PolicyAlone);
            Ok(Policy { compiled, owners, source, refused: Vec::new() })
        }
        None => Err(refused(path, &outcome, read, format).unwrap_or_else(|failure| Answer::failed(&failure))),
    }
}

/// What the state directory holds of a policy.
fn kept(directory: &Path, policy: &Path) -> Result<Bundle, Answer> {
    // A directory that is not there holds nothing, and is rather a mistyped one.
    let listed = std::fs::read_dir(directory).map_err(|error| {
        let failure =
            Failure(format!("cannot read the state directory `{}`: {}", directory.display(), words(&error)));
        failure.with_help("name the `state_dir` of `init_worker`, and run this as nginx's worker user")
    })?;
    drop(listed);
    let bundle = last_good_bundle(directory, policy).map_err(|error| {
        Failure(error.to_string())
            .with_help("run this as nginx's worker user, with the same version as nginx's module")
    })?;
    bundle.ok_or_else(|| {
        let (directory, policy) = (directory.display(), policy.display());
        Failure(format!("`{directory}` holds no last good version of `{policy}`"))
            .with_help("name the policy by the path that `init_worker` has, and that worker's `state_dir`")
    })
}

impl Policy {
    /// What is wrong with the policy and with owners' documents that are not in force.
    pub(super) fn refused(&self) -> impl Iterator<Item = &Diagnostic> {
        self.refused.iter().filter(|problem| problem.is_error()).chain(refused_owners(&self.owners))
    }

    /// Whether it is what nginx decides by: nothing is refused, or the last good versions are known.
    pub(super) fn is_in_force(&self) -> bool {
        self.source != Source::PolicyAlone || refused_owners(&self.owners).next().is_none()
    }

    /// The answer in place of one that would lack an owner's rules.
    pub(super) fn complete(self, path: &Path, format: Format) -> Result<Self, Answer> {
        let unavailable = self.owners.iter().any(|owner| match self.source {
            Source::PolicyAlone => owner.state != OwnerState::Current,
            Source::Policy | Source::StateDir => owner.state == OwnerState::Unavailable,
        });
        if !unavailable {
            return Ok(self);
        }
        let Self { compiled, owners, .. } = self;
        let outcome = Outcome { compiled: Some(compiled), diagnostics: Vec::new(), owners };
        Err(refused(path, &outcome, true, format).unwrap_or_else(|failure| Answer::failed(&failure)))
    }

    /// Owners whose newest document is not in force.
    pub(super) fn owners_behind(&self) -> Vec<OwnerSeen> {
        let behind = self.owners.iter().filter(|owner| owner.state != OwnerState::Current);
        behind
            .map(|owner| OwnerSeen {
                name: owner.name.to_string(),
                state: owner.state.name(),
                revision: owner.revision.as_deref().map(str::to_owned),
            })
            .collect()
    }

    /// `policy` or `state_dir`.
    pub(super) fn source(&self) -> &'static str {
        if self.source == Source::StateDir { "state_dir" } else { "policy" }
    }

    /// Everything that is refused, and by what nginx decides in its place: for stderr.
    pub(super) fn problems(&self) -> String {
        let mut text = lines(self.refused());
        if self.source == Source::StateDir {
            text.push_str(
                "note: the policy is refused, and nginx goes on with the last good version, which is shown\n",
            );
        }
        for owner in self.owners.iter().filter(|owner| owner.state != OwnerState::Current) {
            let name = one_line(&owner.name);
            // Writing to a string does not fail.
            _ = match (owner.state, self.source) {
                (OwnerState::LastGood, _) => writeln!(
                    text,
                    "note: nginx goes on with the last good version of the owner `{name}`, which is shown"
                ),
                (_, Source::PolicyAlone) => writeln!(
                    text,
                    "note: nginx goes on with the last good version of the owner `{name}`, where it has one\n  \
                     help: `--state-dir DIR`, the `state_dir` of `init_worker`, shows what it decides by"
                ),
                _ => writeln!(
                    text,
                    "note: the state directory holds no good version of the owner `{name}`: nginx answers 503 \
                     (policy_unavailable) on its tenants"
                ),
            };
        }
        text
    }
}
