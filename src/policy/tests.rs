//! Policies from text to snapshot, held against the promised document format.

pub(crate) mod accepted;
mod attack_owners;
mod cases;
mod errors;
mod groups;
mod index;
mod limits;
mod owners;
mod turns;
mod warnings;

use super::diagnostic::Severity;
pub(crate) use super::fixtures::{HEAD, Shelf, outcome};
use super::snapshot::Snapshot;
use super::{Compiled, Files, compile};
use crate::token::algorithm::Algorithm;
use crate::token::fixtures::{NOW, jwk, with};
use serde_json::json;
use std::path::Path;

/// Two issuers, neither of which has its groups written bare.
pub(crate) const TWO: &str = "\
version: 1
issuers:
  - { name: entra, issuer: https://issuer.example, audiences: [grafana], jwks_file: jwks.json }
  - { name: keycloak, issuer: https://sso.example, audiences: [grafana], jwks_file: jwks.json }
";

/// Every problem as it is printed.
fn problems(text: &str) -> Vec<String> {
    let outcome = outcome(text);
    let refused = outcome.diagnostics.iter().any(|problem| problem.severity == Severity::Error);
    assert_eq!(outcome.compiled.is_none(), refused, "a policy is used exactly if it has no error: {text}");
    outcome.diagnostics.iter().map(ToString::to_string).collect()
}

pub(crate) fn compiled(text: &str) -> Compiled {
    let outcome = outcome(text);
    let Some(compiled) = outcome.compiled else {
        let told: Vec<_> = outcome.diagnostics.iter().map(ToString::to_string).collect();
        panic!("{}\n{text}", told.join("\n"))
    };
    compiled
}

pub(crate) fn snapshot(text: &str) -> Snapshot {
    compiled(text).snapshot
}
