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

pub mod cases;
mod compile;
pub mod diagnostic;
mod document;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fixtures;
mod groups;
mod index;
mod lints;
mod node;
mod reader;
pub mod sample;
pub mod schema;
pub mod snapshot;
pub mod store;

pub use compile::{Compiled, Files, OwnerText, Turn};
use diagnostic::{Diagnostic, Problems};

/// What became of a policy: something to decide with, or the reasons why not.
#[derive(Debug)]
pub struct Outcome {
    /// The policy, if no diagnostic is an error.
    pub compiled: Option<Compiled>,
    /// Every problem of the document, in the order of their places; warnings too.
    pub diagnostics: Vec<Diagnostic>,
    /// What became of the owners' documents, in the order in which the platform's names them.
    pub owners: Vec<OwnerOutcome>,
}

/// What became of one owner's document.
#[derive(Clone, Debug)]
pub struct OwnerOutcome {
    /// The owner.
    pub name: Box<str>,
    /// What diagnostics call its document.
    pub file: String,
    /// Whom to tell, as the platform's document says.
    pub contact: Option<Box<str>>,
    /// Which version is used.
    pub state: OwnerState,
    /// The hash of that version's normalised content: 16 hexadecimal digits.
    pub revision: Option<Box<str>>,
    /// Every problem of the newest version; warnings too.
    pub diagnostics: Vec<Diagnostic>,
    /// The content of the version that is used.
    pub content: Option<Vec<u8>>,
    /// Its tests, where they were not run.
    pub cases: Vec<cases::Case>,
    /// How many turns have passed in which its newest version was not judged: what was good before counts until then.
    pub turns_waited: u32,
    /// What the rules that are used were made of.
    pub(in crate::policy) rules: Option<compile::RulesKey>,
    /// What was found of the newest version.
    pub(in crate::policy) judged: Option<compile::Judged>,
}

impl OwnerOutcome {
    /// Whether the same became of the same versions.
    pub fn is_as_before(&self, before: &Self) -> bool {
        let key = |outcome: &Self| (outcome.state, outcome.rules, outcome.judged, outcome.turns_waited);
        key(self) == key(before) && self.diagnostics == before.diagnostics
    }

    /// Says that the newest version is refused, of which nothing was known when the rules were made of another one.
    ///
    /// `diagnostics`: every problem of the newest version.
    pub fn refuse_newest(&mut self, diagnostics: Vec<Diagnostic>) {
        if self.state == OwnerState::Current {
            self.state = OwnerState::LastGood;
        }
        self.diagnostics = diagnostics;
        self.judged = None;
    }
}

/// Which version of an owner's document is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// The newest.
    Current,
    /// The newest was refused: the last one that was good.
    LastGood,
    /// None: requests for the owner's tenants cannot be decided.
    Unavailable,
}

impl OwnerState {
    /// The state in status reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::LastGood => "last_good",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Reads and compiles a policy, and runs its tests: one that fails refuses the document that holds it like an error.
///
/// `file`: what diagnostics call the document. `text`: its content. `files`: reads what the policy names, and the
/// documents of owners. `now`: Unix seconds.
pub fn compile(file: &str, text: &[u8], files: &mut dyn Files, now: u64) -> Outcome {
    compile_in_turn(file, text, files, now, &Turn::ALL)
}

/// The same for a policy that takes the place of another one.
///
/// `turn`: which documents of owners are judged now, and what is in force.
pub fn compile_in_turn(file: &str, text: &[u8], files: &mut dyn Files, now: u64, turn: &Turn<'_>) -> Outcome {
    build(file, text, files, now, true, turn).0
}

/// The same without running the tests, which are returned: for reports about each of them.
pub fn compile_untested(
    file: &str,
    text: &[u8],
    files: &mut dyn Files,
    now: u64,
) -> (Outcome, Vec<cases::Case>) {
    build(file, text, files, now, false, &Turn::ALL)
}

/// What is wrong with an owner's document by itself: its syntax and its shape. For when there is no platform's document
/// to judge it by.
///
/// `file`: what diagnostics call it. `text`: its content.
pub fn shape_of_owner(file: &str, text: &[u8]) -> Vec<Diagnostic> {
    let mut problems = Problems::of(file);
    if let Some(root) = node::parse(text, &mut problems) {
        let document = document::owners::read_document(&root, &mut problems);
        document::limits::refuse_slow_rules(&document, &mut problems);
    }
    problems.into_sorted()
}

fn build(
    file: &str,
    text: &[u8],
    files: &mut dyn Files,
    now: u64,
    test: bool,
    turn: &Turn<'_>,
) -> (Outcome, Vec<cases::Case>) {
    let mut problems = Problems::of(file);
    let mut cases = Vec::new();
    let mut owners = Vec::new();
    let compiled = node::parse(text, &mut problems).and_then(|root| {
        let mut document = document::read(&root, &mut problems);
        cases = std::mem::take(&mut document.cases);
        let json = root.to_json();
        let revision = revision_of(&json.to_string());
        // Compiled even if something is wrong already: the problems of every stage are told together.
        let mut compiled = compile::compile(&document, revision, files, now, &mut problems)?;
        if test {
            // On the platform's rules alone: what owners do cannot refuse the platform's document.
            cases::run(&compiled.snapshot, &cases, now, &mut problems);
        }
        let mut documents = Vec::new();
        if !document.owners.is_empty() && !problems.any_error() {
            let context = compile::Context::of(&json, &document);
            let snapshot = &mut compiled.snapshot;
            (owners, documents) =
                compile::add_owners(snapshot, &document, &context, turn, files, now, test, &mut problems);
        }
        let rules = |one: compile::OwnerDocument| {
            let owner = owners.get(one.owner)?;
            let (file, text) = (&*owner.file, owner.content.as_deref()?);
            let (grants, restrictions) = (one.grants, one.restrictions);
            Some((one.owner, lints::OwnerRules { file, text, grants, restrictions }))
        };
        let (numbers, rules): (Vec<_>, Vec<_>) = documents.into_iter().filter_map(rules).unzip();
        let (odd, odd_of_owners) = lints::lint(&document, file, &rules, &compiled.snapshot, now);
        problems.append(odd);
        for (number, odd) in numbers.into_iter().zip(odd_of_owners) {
            if let Some(owner) = owners.get_mut(number) {
                owner.diagnostics.extend(odd);
                owner.diagnostics.sort_by_key(|problem| problem.place);
            }
        }
        (!problems.any_error()).then_some(compiled)
    });
    (Outcome { compiled, diagnostics: problems.into_sorted(), owners }, cases)
}

/// The name of a version of rules: the first 16 hexadecimal digits of the SHA-256 of what they are made of.
fn revision_of(content: &str) -> Box<str> {
    let mut digest = crate::token::digest::sha256_hex(content.as_bytes());
    digest.truncate(16);
    digest.into()
}

#[cfg(test)]
pub(crate) mod tests;
