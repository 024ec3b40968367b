//! A policy as data: text -> document (as written, with places) -> snapshot (compiled, immutable).
//!
//! | stage | module | refuses |
//! |---|---|---|
//! | text -> tree of nodes | `node` | what is not one plain YAML or JSON document |
//! | tree -> document | `document`, `reader` | unknown keys, wrong types, values outside their grammar |
//! | document and the files it names -> [`snapshot::Snapshot`] | `compile` | references that lead nowhere, contradictions |
//!
//! Every stage collects all its problems ([`diagnostic::Diagnostic`]) before it gives up, and a policy with one
//! error is not used at all.

mod compile;
pub mod diagnostic;
mod document;
mod groups;
mod index;
mod node;
mod reader;
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

/// Reads and compiles one policy document.
///
/// `file`: what diagnostics call it. `text`: its content. `files`: reads what the policy names. `now`: Unix
/// seconds.
pub fn compile(file: &str, text: &[u8], files: &mut dyn Files, now: u64) -> Outcome {
    let mut problems = Problems::of(file);
    let compiled = node::parse(text, &mut problems).and_then(|root| {
        let document = document::read(&root, &mut problems);
        let digest = crate::token::digest::sha256_hex(root.to_json().to_string().as_bytes());
        let revision = digest.get(..16).unwrap_or(&digest).into();
        // Compiled even if something is wrong already: the problems of every stage are told together.
        compile::compile(&document, revision, files, now, &mut problems)
    });
    Outcome { compiled, diagnostics: problems.into_sorted() }
}

#[cfg(test)]
pub(crate) mod tests;
