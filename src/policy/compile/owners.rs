//! The documents of owners, added to the platform's policy: each within its bounds, and none able to harm another.
//!
//! A document that is refused changes nothing for anybody: its owner keeps the last version that was good. That bounds
//! hold is checked here for new versions, and once more at every decision (`Snapshot::is_in_bounds`), since the bounds
//! of an older version may have been narrowed since.
//!
//! Nobody's document keeps another's change waiting, nor the platform's. What is in force of an owner is compiled for the
//! platform's document of today, or inherited where nothing has changed on which it depends. New versions are judged in
//! turns ([`Turn`]); until its turn has come, what was good before is in force, as if the new one had not been written yet.

mod bounds;
mod inherit;
mod judge;

use super::super::document::owners::OwnerEntry;
use super::super::{Files, OwnerOutcome, OwnerState, OwnerText};
use super::client_ip::NamedNetworks;
use crate::file::FileError;
use crate::policy::cases::Case;
use crate::policy::diagnostic::{Diagnostic, Path, Place, Problems};
use crate::policy::document::{Document, RestrictionEntry};
use crate::policy::revision_of;
use crate::policy::snapshot::{Grant, Owner, Restriction, Snapshot};
use crate::tenant::PatternSet;
use inherit::Former;
pub(in crate::policy) use inherit::{Context, Judged, RulesKey};
use judge::{Judgement, Version};
use std::cmp::Reverse;
use std::ops::Range;

/// The rules of one owner.
struct Rules {
    grants: Vec<Grant>,
    restrictions: Vec<Restriction>,
    /// Of the document's normalised content.
    revision: Box<str>,
}

/// The newest version of an owner's document, where that is in force.
pub(in crate::policy) struct OwnerDocument {
    /// The owner's position among the outcomes.
    pub(in crate::policy) owner: usize,
    /// Which of the snapshot's grants are its.
    pub(in crate::policy) grants: Range<usize>,
    /// Where its restrictions begin among those of the snapshot.
    pub(in crate::policy) restrictions: usize,
}

/// Which new versions are judged now.
///
/// What a version takes is bounded by its length, its tests included. So small ones are judged until there are `most_bytes` of
/// them, and beside them as many bytes of large ones, at least one; of either kind, first who has waited longest. A small
/// change never waits for large ones, and whoever writes again and again keeps nobody waiting.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'t> {
    /// The policy in force, and what became of the owners' documents in it. What it has of an owner is inherited where
    /// nothing has changed on which that depends.
    pub in_force: Option<(&'t Snapshot, &'t [OwnerOutcome])>,
    /// The most bytes of small documents, and of large ones.
    pub most_bytes: usize,
}

impl<'t> Turn<'t> {
    /// All documents, each judged by itself.
    pub const ALL: Self = Self { in_force: None, most_bytes: usize::MAX };

    /// A turn of less than a second, for a policy that takes the place of another one; where there is none, more at once.
    ///
    /// `in_force`: that other one, and what became of the owners' documents in it.
    pub const fn after(in_force: Option<(&'t Snapshot, &'t [OwnerOutcome])>) -> Self {
        Self { in_force, most_bytes: if in_force.is_some() { 1 << 20 } else { 8 << 20 } }
    }

    /// Whether a document is judged beside small ones: a 16th of what is judged at once.
    fn is_small(&self, bytes: usize) -> bool {
        bytes <= self.most_bytes / 16
    }
}

/// What became of one owner's document.
struct Chosen {
    rules: Option<Rules>,
    outcome: OwnerOutcome,
    /// It was judged right now, in its newest version.
    is_new: bool,
}

/// A new version that is to be judged.
struct Waiting<'a> {
    adder: Adder<'a>,
    file: String,
    content: Vec<u8>,
    last_good: Option<Vec<u8>>,
    /// The turns that passed without it.
    turns: u32,
}

/// Adds the owners' rules to a snapshot of the platform's.
///
/// `context`: of the platform's document. `test`: whether the tests in new documents are run. Returns what became of each
/// owner, in the document's order, and the documents that are in force in their newest version and were judged now.
#[expect(clippy::too_many_arguments, reason = "what compiling takes, and what this stage adds")]
pub(in crate::policy) fn add_owners(
    snapshot: &mut Snapshot,
    platform: &Document,
    context: &Context<'_>,
    turn: &Turn<'_>,
    files: &mut dyn Files,
    now: u64,
    test: bool,
    problems: &mut Problems,
) -> (Vec<OwnerOutcome>, Vec<OwnerDocument>) {
    // What is wrong with these was reported when the platform's rules were compiled.
    let networks = NamedNetworks::new(platform, &mut Problems::of(""));
    let former = turn.in_force.map(Former::new);
    let mut chosen: Vec<(u32, Chosen)> = Vec::new();
    let mut queue = Vec::new();
    for (number, entry) in (0..).zip(&platform.owners) {
        let Some(OwnerText { file, current, last_good, is_unsettled }) = files.owner(&entry.name.value)
        else {
            problems
                .error(
                    entry.name.place,
                    &Path::Root.key("owners").key(&entry.name.value),
                    "owners need a directory as the policy: their documents lie in its `owners.d`",
                )
                .help("name the directory that holds `policy.yaml` and `owners.d`");
            return (Vec::new(), Vec::new());
        };
        let (bounds, excepted) = (super::set_of(&entry.tenants), super::set_of(&entry.except_tenants));
        snapshot.owners.push(Owner {
            name: entry.name.value.clone(),
            file: file.as_str().into(),
            tenants: bounds.clone(),
            except_tenants: excepted.clone(),
            available: false,
        });
        let former = former.as_ref();
        let adder = Adder {
            platform,
            context,
            networks: &networks,
            former,
            entry,
            bounds,
            excepted,
            number,
            now,
            test,
        };
        match current {
            // As if it had not been written yet.
            Ok(content) if is_unsettled => {
                let outcome = former.and_then(|former| former.outcome(&entry.name.value));
                let turns = outcome.map_or(0, |outcome| outcome.turns_waited);
                chosen.push((number, Waiting { adder, file, content, last_good, turns }.rest(snapshot)));
            }
            Ok(content) if last_good.as_ref() == Some(&content) => {
                chosen.push((number, adder.settled(snapshot, &file, content)));
            }
            Ok(content) => {
                let judged = context.refused_key(entry, Ok(&content), last_good.as_deref());
                let outcome = former.and_then(|former| former.outcome(&entry.name.value));
                match outcome.filter(|outcome| outcome.judged == Some(judged)) {
                    Some(OwnerOutcome { diagnostics, cases, .. }) => {
                        let (diagnostics, cases) = (diagnostics.clone(), cases.clone());
                        let refused = adder.refused(snapshot, &file, judged, diagnostics, cases, last_good);
                        chosen.push((number, refused));
                    }
                    None => {
                        let turns = outcome.map_or(0, |outcome| outcome.turns_waited);
                        queue.push(Waiting { adder, file, content, last_good, turns });
                    }
                }
            }
            Err(error) => chosen.push((number, adder.unreadable(snapshot, &file, error, last_good))),
        }
    }
    queue.sort_by_key(|waiting| (Reverse(waiting.turns), waiting.adder.number));
    let (mut small, mut large) = (0_usize, 0_usize);
    for waiting in queue {
        let bytes = waiting.content.len();
        let judged = if turn.is_small(bytes) { &mut small } else { &mut large };
        let is_first = *judged == 0;
        *judged = judged.saturating_add(bytes);
        let is_next = is_first || *judged <= turn.most_bytes;
        let number = waiting.adder.number;
        chosen.push((number, if is_next { waiting.judge(snapshot) } else { waiting.wait(snapshot) }));
    }
    chosen.sort_by_key(|(number, _)| *number);
    let mut revisions = snapshot.revision.to_string();
    let mut documents = Vec::new();
    let mut outcomes = Vec::new();
    for (owner, (_, Chosen { rules, outcome, is_new })) in chosen.into_iter().enumerate() {
        if let Some(known) = snapshot.owners.get_mut(owner) {
            known.available = rules.is_some();
        }
        if let Some(rules) = rules {
            revisions.push_str(&rules.revision);
            if is_new && outcome.state == OwnerState::Current {
                let first = snapshot.grants.len();
                documents.push(OwnerDocument {
                    owner,
                    grants: first..first + rules.grants.len(),
                    restrictions: snapshot.restrictions.len(),
                });
            }
            snapshot.grants.extend(rules.grants);
            snapshot.restrictions.extend(rules.restrictions);
        }
        outcomes.push(outcome);
    }
    for outcome in &outcomes {
        // Not whether a version is the newest: the same rules are the same revision in every worker, also in one that
        // has them from what another left.
        revisions.push(if outcome.state == OwnerState::Unavailable { '-' } else { '+' });
    }
    snapshot.revision = revision_of(&revisions);
    snapshot.index();
    (outcomes, documents)
}

/// Adds one owner's rules.
struct Adder<'a> {
    platform: &'a Document,
    context: &'a Context<'a>,
    networks: &'a NamedNetworks<'a>,
    former: Option<&'a Former<'a>>,
    entry: &'a OwnerEntry,
    bounds: PatternSet,
    /// Tenants within the bounds that are not the owner's.
    excepted: PatternSet,
    number: u32,
    now: u64,
    test: bool,
}

impl Adder<'_> {
    fn outcome(&self, file: &str, state: OwnerState) -> OwnerOutcome {
        OwnerOutcome {
            name: self.entry.name.value.clone(),
            file: file.to_owned(),
            contact: self.entry.contact.clone(),
            cases: Vec::new(),
            state,
            revision: None,
            diagnostics: Vec::new(),
            content: None,
            turns_waited: 0,
            rules: None,
            judged: None,
        }
    }

    /// A version that was good before: in force, as far as the platform gives it still.
    fn settled(&self, snapshot: &mut Snapshot, file: &str, content: Vec<u8>) -> Chosen {
        let key = self.context.rules_key(self.entry, &content);
        let outcome = self.former.and_then(|former| former.outcome(&self.entry.name.value));
        let outcome = outcome.filter(|outcome| outcome.judged == Some(Judged::Accepted(key)));
        if let Some(outcome) = outcome
            && let Some(rules) = self.inherited(snapshot, key)
        {
            let contact = self.entry.contact.clone();
            let outcome =
                OwnerOutcome { contact, content: Some(content), turns_waited: 0, ..outcome.clone() };
            return Chosen { rules: Some(rules), outcome, is_new: false };
        }
        let judgement = self.judge(snapshot, file, &content, Version::Before);
        self.accepted(file, content, judgement)
    }

    /// What becomes of a version of which there are rules, or of one that was good before.
    fn accepted(&self, file: &str, content: Vec<u8>, judgement: Judgement) -> Chosen {
        let Judgement { rules, mut diagnostics, beyond, cases } = judgement;
        let Some(rules) = rules else {
            let outcome = OwnerOutcome { diagnostics, cases, ..self.outcome(file, OwnerState::Unavailable) };
            return Chosen { rules: None, outcome, is_new: true };
        };
        let key = self.context.rules_key(self.entry, &content);
        // Whoever starts without this last good version refuses it as a whole: that is reported now.
        let state = if beyond.is_empty() { OwnerState::Current } else { OwnerState::LastGood };
        diagnostics.extend(beyond);
        diagnostics.sort_by_key(|problem| problem.place);
        let outcome = OwnerOutcome {
            revision: Some(rules.revision.clone()),
            content: Some(content),
            diagnostics,
            cases,
            rules: Some(key),
            judged: Some(Judged::Accepted(key)),
            ..self.outcome(file, state)
        };
        Chosen { rules: Some(rules), outcome, is_new: true }
    }

    /// What is in force while the newest version is refused.
    fn refused(
        &self,
        snapshot: &mut Snapshot,
        file: &str,
        judged: Judged,
        diagnostics: Vec<Diagnostic>,
        cases: Vec<Case>,
        last_good: Option<Vec<u8>>,
    ) -> Chosen {
        let kept = last_good.and_then(|content| self.kept(snapshot, file, content));
        let (rules, outcome) = kept.unwrap_or_else(|| self.nothing(file));
        let outcome = OwnerOutcome { diagnostics, cases, judged: Some(judged), ..outcome };
        Chosen { rules, outcome, is_new: true }
    }

    fn unreadable(
        &self,
        snapshot: &mut Snapshot,
        file: &str,
        error: FileError,
        last_good: Option<Vec<u8>>,
    ) -> Chosen {
        let mut problems = Problems::of(file);
        let help = if error.is_missing() {
            "an owner without rules has the document `{}`"
        } else {
            "it must be a file of at most 1 MiB in the policy's directory that nginx's worker user may read"
        };
        problems
            .error(Place { line: 1, column: 1 }, &Path::Root, format!("cannot read the document: {error}"))
            .help(help);
        let judged = self.context.refused_key(self.entry, Err(&error), last_good.as_deref());
        self.refused(snapshot, file, judged, problems.into_sorted(), Vec::new(), last_good)
    }

    /// The version that was good before, for the platform's document of today.
    fn kept(
        &self,
        snapshot: &mut Snapshot,
        file: &str,
        content: Vec<u8>,
    ) -> Option<(Option<Rules>, OwnerOutcome)> {
        let key = self.context.rules_key(self.entry, &content);
        let rules = self
            .inherited(snapshot, key)
            .or_else(|| self.judge(snapshot, file, &content, Version::Before).rules)?;
        let outcome = OwnerOutcome {
            revision: Some(rules.revision.clone()),
            content: Some(content),
            rules: Some(key),
            ..self.outcome(file, OwnerState::LastGood)
        };
        Some((Some(rules), outcome))
    }

    fn former_outcome(&self) -> Option<&OwnerOutcome> {
        self.former.and_then(|former| former.outcome(&self.entry.name.value))
    }

    /// No version can be used, for a reason that is not the document's.
    fn without(&self, file: &str, why: &str, help: &str, turns_waited: u32) -> Chosen {
        let mut problems = Problems::of(file);
        problems.error(Place { line: 1, column: 1 }, &Path::Root, why).help(help);
        let (rules, outcome) = self.nothing(file);
        let outcome = OwnerOutcome { turns_waited, diagnostics: problems.into_sorted(), ..outcome };
        Chosen { rules, outcome, is_new: false }
    }

    fn nothing(&self, file: &str) -> (Option<Rules>, OwnerOutcome) {
        (None, self.outcome(file, OwnerState::Unavailable))
    }

    fn inherited(&self, snapshot: &mut Snapshot, key: RulesKey) -> Option<Rules> {
        let (name, groups) = (&self.entry.name.value, &mut snapshot.groups);
        self.former?.rules(name, key, self.number, self.context, groups)
    }
}

impl Waiting<'_> {
    /// Its turn has come.
    fn judge(self, snapshot: &mut Snapshot) -> Chosen {
        let Self { adder, file, content, last_good, .. } = self;
        let judgement = adder.judge(snapshot, &file, &content, Version::New);
        if judgement.rules.is_some() {
            return adder.accepted(&file, content, judgement);
        }
        let judged = adder.context.refused_key(adder.entry, Ok(&content), last_good.as_deref());
        let Judgement { diagnostics, cases, .. } = judgement;
        adder.refused(snapshot, &file, judged, diagnostics, cases, last_good)
    }

    /// Its turn comes later.
    fn wait(self, snapshot: &mut Snapshot) -> Chosen {
        let Self { adder, file, last_good, turns, .. } = self;
        let turns_waited = turns.saturating_add(1);
        let Some((rules, outcome)) = last_good.and_then(|content| adder.kept(snapshot, &file, content))
        else {
            let help = "large documents are read one after the other";
            return adder.without(&file, "it waits for its turn to be read", help, turns_waited);
        };
        // What is known of the version before counts until the new one was looked at.
        let former = adder.former_outcome().filter(|former| former.rules == outcome.rules);
        let (state, diagnostics) = former
            .map_or((OwnerState::LastGood, Vec::new()), |former| (former.state, former.diagnostics.clone()));
        let outcome = OwnerOutcome { state, diagnostics, turns_waited, ..outcome };
        Chosen { rules, outcome, is_new: false }
    }

    /// It is looked at once it rests: what was found before stays so.
    fn rest(self, snapshot: &mut Snapshot) -> Chosen {
        let Self { adder, file, last_good, turns, .. } = self;
        let Some((rules, outcome)) = last_good.and_then(|content| adder.kept(snapshot, &file, content))
        else {
            let help = "the platform no longer gives what it needs; leave the file alone for a second";
            return adder.without(
                &file,
                "it is changing, and the version before cannot be used",
                help,
                turns,
            );
        };
        let (state, diagnostics) = match adder.former_outcome() {
            None => (OwnerState::Current, Vec::new()),
            Some(OwnerOutcome { state: OwnerState::Unavailable, diagnostics, .. }) => {
                (OwnerState::LastGood, diagnostics.clone())
            }
            Some(former) => (former.state, former.diagnostics.clone()),
        };
        let outcome = OwnerOutcome { state, diagnostics, turns_waited: turns, ..outcome };
        Chosen { rules, outcome, is_new: false }
    }
}

/// Whether a restriction names no tenants: it binds those of its owner.
fn is_unnamed(restriction: &RestrictionEntry) -> bool {
    restriction.tenants.iter().all(|tenant| tenant.place == restriction.place)
}
