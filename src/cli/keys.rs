//! `tenantauth keys`: what each issuer publishes now, and which of it would verify a token.

use super::policy::Secrets;
use super::{Answer, Failure, Format, Status, columns, json, one_line, refused};
use crate::engine::unix_now;
use crate::fetch::{Endpoint, FetchError};
use crate::policy::Compiled;
use crate::policy::store::Fingerprint;
use crate::token::algorithm::AlgorithmSet;
use crate::token::jwks::{InvalidJwks, KeyReport};
use crate::token::keys::KeySet;
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;
use thiserror::Error;

/// Fetches and shows the keys of every issuer, each with the reason where it is not accepted.
///
/// Fetched from here, by this user and now: nginx's workers may see something else. Nothing is kept. Exit status 1
/// where an issuer has no usable key, 3 where the policy is invalid.
#[derive(Args)]
pub(super) struct Keys {
    /// The policy: a file, or a directory that holds a `policy.yaml`.
    #[arg(long)]
    policy: PathBuf,
    #[command(flatten)]
    secrets: Secrets,
}

/// What was found; the JSON form is stable.
#[derive(Serialize)]
struct Report {
    policy: String,
    revision: String,
    issuers: Vec<Published>,
}

/// The keys of one issuer.
#[derive(Serialize)]
struct Published {
    name: String,
    issuer: String,
    /// `discovery`, `jwks_url`, `jwks_file` or `jwks`.
    source: &'static str,
    /// The address or the file that the policy names.
    location: Option<String>,
    /// Since the keys were fetched, or their file was changed; null where they are in the policy, or there are none.
    age_seconds: Option<u64>,
    /// How many would verify a token.
    usable: usize,
    /// Why there are none.
    error: Option<String>,
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    kid: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    size: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    algorithm: Option<String>,
    accepted: bool,
    /// Why it is not accepted.
    refused: Option<String>,
    /// The policy revokes it: no token that it signed counts, however good the key is.
    revoked: bool,
}

impl Keys {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let (outcome, fingerprint, read) = self.secrets.load(&self.policy, unix_now());
        let Some(compiled) = &outcome.compiled else {
            return refused(&self.policy, &outcome, read, format);
        };
        let report = Report {
            policy: self.policy.display().to_string(),
            revision: compiled.snapshot.revision.to_string(),
            issuers: published(compiled, &fingerprint),
        };
        let without = report.issuers.iter().filter(|issuer| issuer.usable == 0);
        let err = without.fold(String::new(), |mut err, issuer| {
            let why = issuer.error.as_deref().unwrap_or("it publishes no usable key");
            _ = writeln!(err, "error: issuer `{}`: {}", one_line(&issuer.name), one_line(why));
            err
        });
        let status = if err.is_empty() { Status::Ok } else { Status::Failed };
        let out = match format {
            Format::Json => json(&report)?,
            Format::Human => report.issuers.iter().map(Published::human).collect::<Vec<_>>().join("\n"),
        };
        Ok(Answer { status, out, err })
    }
}

/// Fetches the keys of an issuer and judges them.
///
/// # Errors
/// Why there is no set. A set without one usable key is none of these.
pub(super) fn fetch(
    endpoint: &Endpoint,
    algorithms: AlgorithmSet,
) -> Result<(KeySet, Vec<KeyReport>), NoKeys> {
    KeySet::from_jwks(&endpoint.fetch()?, algorithms).map_err(NoKeys::from)
}

/// Why there is no key set of an issuer.
#[derive(Debug, Error)]
pub(super) enum NoKeys {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("the key set {0}")]
    Invalid(#[from] InvalidJwks),
}

/// Issuers are asked at the same time, so that one which does not answer delays nobody else's.
fn published(compiled: &Compiled, fingerprint: &Fingerprint) -> Vec<Published> {
    let snapshot = &compiled.snapshot;
    thread::scope(|scope| {
        let issuers =
            snapshot.issuers.iter().zip(&snapshot.issuer_names).zip(&compiled.endpoints).enumerate();
        let asked: Vec<_> = issuers
            .map(|(at, ((rules, name), endpoint))| {
                let answer =
                    endpoint.as_ref().map(|endpoint| scope.spawn(|| fetch(endpoint, rules.algorithms)));
                (at, rules, name, endpoint, answer)
            })
            .collect();
        asked
            .into_iter()
            .map(|(at, rules, name, endpoint, answer)| {
                let file = compiled.key_files.get(at).and_then(Option::as_deref);
                let (source, location) = match (endpoint, file) {
                    (Some(endpoint), _) => match &endpoint.jwks_url {
                        Some(url) => ("jwks_url", Some(url.to_string())),
                        None => ("discovery", None),
                    },
                    (None, Some(file)) => ("jwks_file", Some(file.display().to_string())),
                    (None, None) => ("jwks", None),
                };
                let fetched;
                let (set, reports, age_seconds, error) = match answer {
                    Some(answer) => match answer.join().unwrap_or_else(|panic| panic::resume_unwind(panic)) {
                        Ok((set, reports)) => {
                            fetched = set;
                            (Some(&fetched), reports, Some(0), None)
                        }
                        Err(error) => (None, Vec::new(), Some(0), Some(error.to_string())),
                    },
                    None => {
                        let reports = compiled.key_reports.get(at).cloned().unwrap_or_default();
                        let set = compiled.keys.get(at).and_then(Option::as_deref);
                        (set, reports, file.and_then(|file| age(file, fingerprint)), None)
                    }
                };
                // Whatever other ids a revoked key has, too.
                let is_revoked = |ids: &&[Box<str>]| snapshot.revoked.has_key(at, ids);
                let revoked: Vec<&str> = set
                    .into_iter()
                    .flat_map(KeySet::ids)
                    .filter(is_revoked)
                    .flatten()
                    .map(|kid| &**kid)
                    .collect();
                let keys: Vec<Key> = reports.into_iter().map(|report| Key::of(report, &revoked)).collect();
                Published {
                    name: name.to_string(),
                    issuer: rules.issuer.to_string(),
                    source,
                    location,
                    age_seconds: age_seconds.filter(|_| error.is_none()),
                    usable: keys.iter().filter(|key| key.accepted).count(),
                    error,
                    keys,
                }
            })
            .collect()
    })
}

/// Seconds since a file was changed that the policy names.
fn age(file: &Path, fingerprint: &Fingerprint) -> Option<u64> {
    // The files that were read are named from where the policy is.
    let (path, _) = fingerprint.files().find(|(path, _)| path.ends_with(file))?;
    let changed = fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(changed).ok().map(|age| age.as_secs())
}

impl Key {
    /// `revoked`: the ids of revoked keys.
    fn of(report: KeyReport, revoked: &[&str]) -> Self {
        let is_good = report.refused.is_none();
        let revoked = is_good && report.kid.as_deref().is_some_and(|kid| revoked.contains(&kid));
        Self {
            kid: report.kid,
            kind: report.kty,
            size: report.size,
            usage: report.usage,
            algorithm: report.alg,
            accepted: is_good && !revoked,
            refused: report.refused.or_else(|| revoked.then(|| "the policy revokes it".to_owned())),
            revoked,
        }
    }

    fn row(&self) -> [String; 6] {
        let shown = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), one_line);
        [
            shown(&self.kid),
            shown(&self.kind),
            shown(&self.size),
            shown(&self.usage),
            shown(&self.algorithm),
            self.refused
                .as_deref()
                .map_or("accepted".to_owned(), |why| format!("refused: {}", one_line(why))),
        ]
    }
}

impl Published {
    fn human(&self) -> String {
        let mut out = format!("{}  {}\n", one_line(&self.name), one_line(&self.issuer));
        let from = match (self.source, &self.location) {
            ("discovery", _) => "by OpenID discovery".to_owned(),
            ("jwks_url", Some(url)) => format!("from {url}"),
            (_, Some(file)) => format!("from the file {file}"),
            _ => "in the policy".to_owned(),
        };
        let age = match (self.source, self.age_seconds) {
            ("jwks_file", Some(age)) => format!(", changed {} ago", duration(age)),
            ("discovery" | "jwks_url", Some(_)) => ", fetched now".to_owned(),
            ("discovery" | "jwks_url", None) => ", not fetched".to_owned(),
            _ => String::new(),
        };
        _ = writeln!(out, "keys {from}{age}");
        if !self.keys.is_empty() {
            let rows: Vec<_> = self.keys.iter().map(Key::row).collect();
            let table = columns(["kid", "type", "size", "use", "algorithm", ""], &rows);
            table.lines().for_each(|line| _ = writeln!(out, "  {line}"));
        }
        out
    }
}

/// Two units at most: `3 d 4 h`.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn an_age_has_two_units() {
        let shown = [0, 59, 60, 3599, 3600, 86_399, 86_400, 900_000].map(duration);
        let expected =
            ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 0 h", "10 d 10 h"];
        assert_eq!(shown, expected);
    }
}
