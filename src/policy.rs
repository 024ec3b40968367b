//! A policy as data: text -> document (as written, with places) -> snapshot (compiled, immutable).
//!
//! | stage | module | refuses |
//! |---|---|---|
//! | text -> tree of nodes | `node` | what is not one plain YAML or JSON document |
//! | tree -> document | `document`, `reader` | unknown keys, wrong types, values outside their grammar |
//! | document and the files it names -> [`snapshot::Snapshot`] | `compile` | references that lead nowhere, contradictions |
//! | snapshot and the document's own tests | [`cases`] | a snapshot that decides otherwise than they expect |
//!
//! Every stage collects all its problems ([`diagnostic::Diagnostic`]) before it gives up, and a policy with one
//! error is not used at all.

pub mod access;
pub mod cases;
mod compile;
pub mod diagnostic;
mod document;
mod groups;
mod index;
mod lints;
mod node;
mod reader;
pub mod sample;
pub mod schema;
pub mod snapshot;
pub mod store;

pub use compile::{Compiled, Files};
use diagnostic::{Diagnostic, Problems};

/// What became of a policy: something to decide with, or the reasons why not.
#[derive(Debug)]
pub struct Outcome {
    /// The policy, if no diagnostic is an error.
    pub compiled: Option<Compiled>,
    /// Every problem of the document, in the order of their places; warnings too.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads and compiles one policy document, and runs its tests: one that fails refuses it like an error.
///
/// `file`: what diagnostics call it. `text`: its content. `files`: reads what the policy names. `now`: Unix
/// seconds.
pub fn compile(file: &str, text: &[u8], files: &mut dyn Files, now: u64) -> Outcome {
    let (mut outcome, cases) = compile_untested(file, text, files, now);
    if let Some(compiled) = &outcome.compiled
        && !cases.is_empty()
    {
        let mut problems = Problems::of(file);
        cases::run(&compiled.snapshot, &cases, now, &mut problems);
        if problems.any_error() {
            outcome.compiled = None;
        }
        outcome.diagnostics.extend(problems.into_sorted());
        outcome.diagnostics.sort_by_key(|problem| problem.place);
    }
    outcome
}

/// The same without running the tests, which are returned: for reports about each of them.
pub fn compile_untested(
    file: &str,
    text: &[u8],
    files: &mut dyn Files,
    now: u64,
) -> (Outcome, Vec<cases::Case>) {
    let mut problems = Problems::of(file);
    let mut cases = Vec::new();
    let compiled = node::parse(text, &mut problems).and_then(|root| {
        let mut document = document::read(&root, &mut problems);
        cases = std::mem::take(&mut document.cases);
        let digest = crate::token::digest::sha256_hex(root.to_json().to_string().as_bytes());
        let revision = digest.get(..16).unwrap_or(&digest).into();
        // Compiled even if something is wrong already: the problems of every stage are told together.
        compile::compile(&document, revision, files, now, &mut problems)
    });
    (Outcome { compiled, diagnostics: problems.into_sorted() }, cases)
}

#[cfg(test)]
pub(crate) mod tests;
