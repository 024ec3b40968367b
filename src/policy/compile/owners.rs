//! The documents of owners, added to the platform's policy: each within its bounds, and none able to harm another.
//!
//! A document that is refused changes nothing for anybody: its owner keeps the last version that was good. That bounds
//! hold is checked here for new versions, and once more at every decision (`Snapshot::is_in_bounds`), since the bounds
//! of an older version may have been narrowed since.

use super::super::document::owners::{OwnerEntry, read_document};
use super::super::{Files, OwnerOutcome, OwnerState, OwnerText, cases, node};
use super::client_ip::{MOST_NAMED, NamedNetworks};
use super::principals::{check_givers, refuse_unknown_accounts};
use super::{
    compile_grant, compile_restriction, groups_known_to_grants, refuse_repeated_names, warn_of_pattern_groups,
};
use crate::file::FileError;
use crate::policy::diagnostic::{Diagnostic, Path, Place, Problems};
use crate::policy::document::limits::{MAX_NETWORKS, refuse_slow_rules};
use crate::policy::document::{Document, RestrictionEntry};
use crate::policy::index::TenantIndex;
use crate::policy::revision_of;
use crate::policy::snapshot::{Grant, GroupId, GroupTable, Owner, Restriction, Snapshot};
use crate::scope::{BackendSet, Scope, ScopeSet};
use crate::tenant::PatternSet;
use crate::token::digest::Sha256;
use std::collections::HashMap;
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

/// Whether a version has to satisfy its bounds and its tests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// It is new.
    New,
    /// It was good once, and what has changed is the platform's document: its rules are used as far as they still lie
    /// within the bounds.
    Before,
}

/// What came of looking at a version.
#[derive(Default)]
struct Judgement {
    /// If it is good.
    rules: Option<Rules>,
    /// What is wrong with it, or odd.
    diagnostics: Vec<Diagnostic>,
    /// Of one that was good once: what the platform no longer gives.
    beyond: Vec<Diagnostic>,
    /// The tests that were not run.
    cases: Vec<cases::Case>,
}

/// Which documents are judged now, and what stands for the others until their turn comes: what many owners bring at once
/// must not keep anybody's change waiting.
///
/// The engine does not use turns yet and judges all documents at once ([`Turn::ALL`]): while one waits, a restriction of its
/// owner may lose its meaning to a change of the platform's, and an owner who writes again and again keeps others waiting.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'t> {
    /// The policy in force, and what became of the owners' documents in it. What it has of an owner is taken over where
    /// nothing has changed on which that depends.
    pub in_force: Option<(&'t Snapshot, &'t [OwnerOutcome])>,
    /// The most bytes of documents that are judged, the smallest first. One is judged whatever its size; one of more than a
    /// quarter of this alone.
    pub most_bytes: usize,
}

impl Turn<'_> {
    /// All documents, each judged by itself.
    pub const ALL: Self = Self { in_force: None, most_bytes: usize::MAX };
}

/// The parts of the platform's document on which the rules of owners depend: not what is revoked, granted or restricted.
pub(in crate::policy) struct Context {
    networks: String,
    others: String,
}

impl Context {
    /// `json`: the platform's document.
    pub(in crate::policy) fn of(json: &serde_json::Value, platform: &Document) -> Self {
        let part = |key: &str| json.get(key).map(ToString::to_string).unwrap_or_default();
        let mut known: Vec<&str> = groups_known_to_grants(platform).into_iter().collect();
        known.sort_unstable();
        let parts = ["issuers", "group_names", "service_accounts", "client_ip"].map(part);
        Self { networks: part("networks"), others: format!("{parts:?}{known:?}") }
    }

    /// Of what the meaning of an owner's rules depends.
    fn of_rules(&self, entry: &OwnerEntry) -> Sha256 {
        let tenants: Vec<&str> = entry.tenants.iter().map(|tenant| tenant.value.as_str()).collect();
        Sha256::of(format!("{}{tenants:?}{}", self.networks, names(entry.scopes)).as_bytes())
    }

    /// What is judged: a version in this context, and where that is refused, the one that was good before.
    fn of_judgement(
        &self,
        entry: &OwnerEntry,
        newest: &Result<Vec<u8>, FileError>,
        last: Option<&[u8]>,
    ) -> Sha256 {
        let newest = match newest {
            Ok(content) => format!("{:?}", Sha256::of(content)),
            Err(error) => error.to_string(),
        };
        let last = last.map(Sha256::of);
        Sha256::of(format!("{:?}{}{newest}{last:?}", self.of_rules(entry), self.others).as_bytes())
    }
}

/// What the policy in force has of the owners.
struct Former<'f> {
    snapshot: &'f Snapshot,
    outcomes: &'f [OwnerOutcome],
    by_name: HashMap<&'f str, usize>,
    /// Where the rules of each owner stand among those of the snapshot.
    grants: Vec<Range<usize>>,
    restrictions: Vec<Range<usize>>,
}

impl<'f> Former<'f> {
    fn new((snapshot, outcomes): (&'f Snapshot, &'f [OwnerOutcome])) -> Self {
        let by_name = snapshot.owners.iter().zip(outcomes).map(|(owner, _)| &*owner.name).zip(0..).collect();
        let count = snapshot.owners.len();
        Self {
            snapshot,
            outcomes,
            by_name,
            grants: ranges(count, snapshot.grants.iter().map(|rule| rule.owner)),
            restrictions: ranges(count, snapshot.restrictions.iter().map(|rule| rule.owner)),
        }
    }

    fn of(&self, name: &str) -> Option<(usize, &'f Owner, &'f OwnerOutcome)> {
        let at = *self.by_name.get(name)?;
        Some((at, self.snapshot.owners.get(at)?, self.outcomes.get(at)?))
    }

    /// The rules of an owner for another snapshot, in which groups have other numbers. `number`: the owner's there.
    fn rules(&self, at: usize, number: u32, groups: &mut GroupTable) -> Option<Rules> {
        let outcome = self.outcomes.get(at)?;
        let mut renumbered = |own: &[GroupId]| -> Box<[GroupId]> {
            let mut ids: Vec<GroupId> =
                own.iter().map(|id| groups.of_rule(self.snapshot.groups.name(*id))).collect();
            ids.sort_unstable();
            ids.into()
        };
        let grants = self.snapshot.grants.get(self.grants.get(at)?.clone())?;
        let grants = grants
            .iter()
            .map(|rule| Grant { groups: renumbered(&rule.groups), owner: Some(number), ..rule.clone() })
            .collect();
        let restrictions = self.snapshot.restrictions.get(self.restrictions.get(at)?.clone())?;
        let restrictions = restrictions
            .iter()
            .map(|rule| Restriction {
                groups: renumbered(&rule.groups),
                except_groups: renumbered(&rule.except_groups),
                owner: Some(number),
                ..rule.clone()
            })
            .collect();
        Some(Rules { grants, restrictions, revision: outcome.revision.clone()? })
    }
}

/// Where the rules of each owner stand: one owner's behind another's, the platform's before all.
fn ranges(owners: usize, rules: impl Iterator<Item = Option<u32>>) -> Vec<Range<usize>> {
    let mut ranges = vec![0..0; owners];
    for (position, owner) in rules.enumerate() {
        let owner = owner.and_then(|owner| usize::try_from(owner).ok());
        if let Some(range) = owner.and_then(|owner| ranges.get_mut(owner)) {
            *range = if range.end == 0 { position..position + 1 } else { range.start..position + 1 };
        }
    }
    ranges
}

/// What became of one owner's document.
struct Chosen {
    rules: Option<Rules>,
    outcome: OwnerOutcome,
    /// [`Owner::judged`].
    judged: Option<Sha256>,
    /// It was judged right now, in its newest version.
    is_new: bool,
}

/// Adds the owners' rules to a snapshot of the platform's.
///
/// `context`: of the platform's document. `test`: whether the tests in new documents are run. Returns what became of each
/// owner, in the document's order, and the documents that are in force in their newest version and were judged now.
#[expect(clippy::too_many_arguments, reason = "what compiling takes, and what this stage adds")]
pub(in crate::policy) fn add_owners(
    snapshot: &mut Snapshot,
    platform: &Document,
    context: &Context,
    turn: &Turn<'_>,
    files: &mut dyn Files,
    now: u64,
    test: bool,
    problems: &mut Problems,
) -> (Vec<OwnerOutcome>, Vec<OwnerDocument>) {
    // What is wrong with these was told when the platform's rules were compiled.
    let networks = NamedNetworks::new(platform, &mut Problems::of(""));
    let mut texts = Vec::new();
    for entry in &platform.owners {
        let Some(text) = files.owner(&entry.name.value) else {
            problems
                .error(
                    entry.name.place,
                    &Path::Root.key("owners").key(&entry.name.value),
                    "owners need a directory as the policy: their documents lie in its `owners.d`",
                )
                .help("name the directory that holds `policy.yaml` and `owners.d`");
            return (Vec::new(), Vec::new());
        };
        texts.push(text);
    }
    let owner = |(entry, text): (&OwnerEntry, &OwnerText)| Owner {
        name: entry.name.value.clone(),
        file: text.file.as_str().into(),
        tenants: super::set_of(&entry.tenants),
        available: false,
        judged: None,
        context: context.of_rules(entry),
    };
    snapshot.owners = platform.owners.iter().zip(&texts).map(owner).collect();
    let former = turn.in_force.map(Former::new);
    let mut chosen: Vec<(u32, Chosen)> = Vec::new();
    let mut queue = Vec::new();
    for ((number, entry), text) in (0..).zip(&platform.owners).zip(texts) {
        let bounds = super::set_of(&entry.tenants);
        let adder = Adder { platform, context, networks: &networks, entry, bounds, number, now, test };
        match former.as_ref().and_then(|former| adder.take_over(&text, former, &mut snapshot.groups)) {
            Some(known) => chosen.push((number, known)),
            None => queue.push((text.size(), number, adder, text)),
        }
    }
    let is_large = |size: usize| size > turn.most_bytes / 4;
    let total = queue.iter().fold(0_usize, |all, (size, ..)| all.saturating_add(*size));
    let is_crowded =
        queue.len() > 1 && (total > turn.most_bytes || queue.iter().any(|(size, ..)| is_large(*size)));
    if is_crowded {
        queue.sort_by_key(|(size, number, ..)| (*size, *number));
    }
    let mut bytes = 0_usize;
    for (position, (size, number, adder, text)) in queue.into_iter().enumerate() {
        bytes = bytes.saturating_add(size);
        let waits = position > 0 && (bytes > turn.most_bytes || is_large(size));
        let found =
            if waits { adder.wait(snapshot, text, former.as_ref()) } else { adder.choose(snapshot, text) };
        chosen.push((number, found));
    }
    chosen.sort_by_key(|(number, _)| *number);
    let mut revisions = snapshot.revision.to_string();
    let mut documents = Vec::new();
    let mut outcomes = Vec::new();
    for (owner, (_, Chosen { rules, outcome, judged, is_new })) in chosen.into_iter().enumerate() {
        if let Some(known) = snapshot.owners.get_mut(owner) {
            known.available = rules.is_some();
            known.judged = judged;
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

struct Adder<'a> {
    platform: &'a Document,
    context: &'a Context,
    networks: &'a NamedNetworks<'a>,
    entry: &'a OwnerEntry,
    bounds: PatternSet,
    number: u32,
    now: u64,
    test: bool,
}

impl Adder<'_> {
    fn outcome(&self, file: &str) -> OwnerOutcome {
        OwnerOutcome {
            name: self.entry.name.value.clone(),
            file: file.to_owned(),
            contact: self.entry.contact.clone(),
            cases: Vec::new(),
            state: OwnerState::Current,
            revision: None,
            diagnostics: Vec::new(),
            content: None,
            waits: false,
        }
    }

    /// What the policy in force has of the owner, where nothing has changed on which that depends.
    fn take_over(&self, text: &OwnerText, former: &Former<'_>, groups: &mut GroupTable) -> Option<Chosen> {
        let (at, owner, outcome) = former.of(&self.entry.name.value)?;
        let last = text.last_good.as_deref().filter(|_| outcome.state != OwnerState::Current);
        let judged = self.context.of_judgement(self.entry, &text.current, last);
        if owner.judged != Some(judged) {
            return None;
        }
        let content = match outcome.state {
            OwnerState::Current => text.current.clone().ok(),
            OwnerState::LastGood => text.last_good.clone(),
            OwnerState::Unavailable => None,
        };
        let rules = former.rules(at, self.number, groups).filter(|_| owner.available);
        if owner.available != rules.is_some() || rules.is_some() != content.is_some() {
            return None;
        }
        let outcome =
            OwnerOutcome { contact: self.entry.contact.clone(), content, waits: false, ..outcome.clone() };
        Some(Chosen { rules, outcome, judged: Some(judged), is_new: false })
    }

    /// What stands for a document whose turn comes later: what is in force, or the version that was good before.
    fn wait(&self, snapshot: &mut Snapshot, text: OwnerText, former: Option<&Former<'_>>) -> Chosen {
        let OwnerText { file, last_good, .. } = text;
        let context = self.context.of_rules(self.entry);
        let in_force = former.and_then(|former| {
            let (at, owner, outcome) = former.of(&self.entry.name.value)?;
            let rules = former.rules(at, self.number, &mut snapshot.groups).filter(|_| owner.available)?;
            (owner.context == context).then_some((rules, owner, outcome))
        });
        if let (Some((rules, owner, outcome)), Some(content)) = (in_force, &last_good) {
            let outcome = OwnerOutcome {
                contact: self.entry.contact.clone(),
                content: Some(content.clone()),
                waits: true,
                ..outcome.clone()
            };
            return Chosen { rules: Some(rules), outcome, judged: owner.judged, is_new: false };
        }
        let mut outcome = OwnerOutcome { waits: true, state: OwnerState::LastGood, ..self.outcome(&file) };
        // Where nothing is in force yet, nobody has to wait for this either.
        let kept = last_good.filter(|_| former.is_some()).and_then(|content| {
            Some((self.judge(snapshot, &file, &content, Judged::Before).rules?, content))
        });
        let Some((rules, content)) = kept else {
            let mut problems = Problems::of(&file);
            problems
                .error(Place { line: 1, column: 1 }, &Path::Root, "it waits for its turn to be read")
                .help("documents are read from the smallest to the largest");
            outcome.state = OwnerState::Unavailable;
            outcome.diagnostics = problems.into_sorted();
            return Chosen { rules: None, outcome, judged: None, is_new: false };
        };
        outcome.revision = Some(rules.revision.clone());
        outcome.content = Some(content);
        Chosen { rules: Some(rules), outcome, judged: None, is_new: false }
    }

    /// The newest version that is good.
    fn choose(&self, snapshot: &mut Snapshot, text: OwnerText) -> Chosen {
        let OwnerText { file, current, last_good } = text;
        let mut outcome = self.outcome(&file);
        let judged = |last: Option<&[u8]>| Some(self.context.of_judgement(self.entry, &current, last));
        match &current {
            Ok(content) => {
                let version = if last_good.as_ref() == Some(content) { Judged::Before } else { Judged::New };
                let Judgement { rules, diagnostics, beyond, cases } =
                    self.judge(snapshot, &file, content, version);
                outcome.diagnostics = diagnostics;
                outcome.cases = cases;
                if let Some(rules) = rules {
                    // Whoever starts without this last good version refuses it as a whole: that is told now.
                    if !beyond.is_empty() {
                        outcome.state = OwnerState::LastGood;
                        outcome.diagnostics.extend(beyond);
                        outcome.diagnostics.sort_by_key(|problem| problem.place);
                    }
                    let is_current = outcome.state == OwnerState::Current;
                    outcome.revision = Some(rules.revision.clone());
                    outcome.content = Some(content.clone());
                    let judged = judged(last_good.as_deref().filter(|_| !is_current));
                    return Chosen { rules: Some(rules), outcome, judged, is_new: true };
                }
            }
            Err(error) => {
                let mut problems = Problems::of(&file);
                let help = if error.is_missing() {
                    "an owner without rules has the document `{}`"
                } else {
                    "it must be a file of at most 1 MiB in the policy's directory that nginx's worker user may read"
                };
                problems
                    .error(
                        Place { line: 1, column: 1 },
                        &Path::Root,
                        format!("cannot read the document: {error}"),
                    )
                    .help(help);
                outcome.diagnostics = problems.into_sorted();
            }
        }
        outcome.state = OwnerState::LastGood;
        let judged = judged(last_good.as_deref());
        let kept = last_good.and_then(|content| {
            Some((self.judge(snapshot, &file, &content, Judged::Before).rules?, content))
        });
        let Some((rules, content)) = kept else {
            outcome.state = OwnerState::Unavailable;
            return Chosen { rules: None, outcome, judged, is_new: true };
        };
        outcome.revision = Some(rules.revision.clone());
        outcome.content = Some(content);
        Chosen { rules: Some(rules), outcome, judged, is_new: true }
    }

    fn judge(&self, snapshot: &mut Snapshot, file: &str, content: &[u8], judged: Judged) -> Judgement {
        let mut problems = Problems::of(file);
        let mut beyond = Problems::of(file);
        let Some(root) = node::parse(content, &mut problems) else {
            return Judgement { diagnostics: problems.into_sorted(), ..Judgement::default() };
        };
        let mut document = read_document(&root, &mut problems);
        {
            let problems = if judged == Judged::New { &mut problems } else { &mut beyond };
            self.check_bounds(&document, problems);
            refuse_slow_rules(&document, problems);
            // An account that the platform has taken away since is granted nothing.
            refuse_unknown_accounts(&document, self.platform, problems);
        }
        if self.refuse_many_networks(&document, &mut problems) {
            return Judgement { diagnostics: problems.into_sorted(), ..Judgement::default() };
        }
        // Of a former version too: a restriction on a group that nobody gives any more would bind nobody.
        check_givers(&document, &snapshot.issuer_names, &snapshot.groups, &mut problems);
        check_references(snapshot, &document, &mut problems);
        let mut rules = self.compile(snapshot, &document, &mut problems);
        rules.revision = revision_of(&root.to_json().to_string());
        let mut cases = std::mem::take(&mut document.cases);
        if self.test && judged == Judged::New && !problems.any_error() && !cases.is_empty() {
            rules = self.run(snapshot, rules, &cases, &mut problems);
        }
        if self.test {
            cases.clear();
        }
        let good = !problems.any_error();
        Judgement {
            rules: good.then_some(rules),
            diagnostics: problems.into_sorted(),
            beyond: beyond.into_sorted(),
            cases,
        }
    }

    /// Runs an owner's tests on the platform's rules and its own: what other owners do cannot make them fail.
    fn run(
        &self,
        snapshot: &mut Snapshot,
        rules: Rules,
        cases: &[cases::Case],
        problems: &mut Problems,
    ) -> Rules {
        let Rules { grants, restrictions, revision } = rules;
        let platform = (snapshot.grants.len(), snapshot.restrictions.len());
        let grants_of = TenantIndex::build(platform.0, grants.iter().map(Grant::indexed));
        let restrictions_of = TenantIndex::build(platform.1, restrictions.iter().map(Restriction::indexed));
        snapshot.grants.extend(grants);
        snapshot.restrictions.extend(restrictions);
        snapshot.grant_index.set_further(Some(grants_of));
        snapshot.restriction_index.set_further(Some(restrictions_of));
        cases::run_within_budget(snapshot, cases, self.now, problems);
        snapshot.grant_index.set_further(None);
        snapshot.restriction_index.set_further(None);
        let grants = snapshot.grants.split_off(platform.0);
        let restrictions = snapshot.restrictions.split_off(platform.1);
        Rules { grants, restrictions, revision }
    }

    /// Everything that is given must have been given to the owner: patterns by containment, scopes one by one. Names of
    /// networks are the owner's own.
    fn check_bounds(&self, document: &Document, problems: &mut Problems) {
        for (name, _) in &document.networks {
            if self.platform.networks.iter().any(|(known, _)| known.value == name.value) {
                problems
                    .error(
                        name.place,
                        &Path::Root.key("networks").key(&name.value),
                        format!("`{}` is a network of the platform", name.value),
                    )
                    .help("choose another name; the platform's can be used without defining it");
            }
        }
        let grants = document.grants.iter().map(|grant| (&grant.path, &grant.tenants));
        let named = document.restrictions.iter().filter(|rule| !is_unnamed(rule));
        let bound = named.map(|rule| (&rule.path, &rule.tenants));
        let tenants = self.entry.tenants.iter().map(|bound| format!("`{}`", bound.value.as_str()));
        let mut given: Vec<String> = tenants.take(MOST_NAMED + 1).collect();
        if given.len() > MOST_NAMED {
            given.truncate(MOST_NAMED);
            given.push("...".to_owned());
        }
        let given = given.join(", ");
        for (path, tenants) in grants.chain(bound) {
            for tenant in tenants {
                if !self.bounds.covers(&tenant.value) {
                    problems
                        .error(
                            tenant.place,
                            &Path::Root.key(path).key("tenants").item(tenant.number),
                            format!("`{}` is not within the owner's tenants", tenant.value.as_str()),
                        )
                        .help(format!("the platform gives `{}` {given}", self.entry.name.value));
                }
            }
        }
        for rule in &document.restrictions {
            let meets = Scope::ALL
                .into_iter()
                .any(|scope| self.entry.scopes.contains(scope) && rule.scopes.cover(scope, BackendSet::ALL));
            if !meets {
                problems
                    .error(
                        rule.place,
                        &Path::Root.key(&rule.path).key("scopes"),
                        "none of its scopes is within the owner's: it would bind nothing",
                    )
                    .help(format!(
                        "the platform gives `{}` {}",
                        self.entry.name.value,
                        names(self.entry.scopes)
                    ));
            }
        }
        for grant in &document.grants {
            let beyond = beyond(grant.scopes, self.entry.scopes);
            if let Some(place) = grant.scopes_place
                && !beyond.is_empty()
            {
                problems
                    .error(
                        place,
                        &Path::Root.key(&grant.path).key("scopes"),
                        format!("not within the owner's scopes: {}", names(beyond)),
                    )
                    .help(format!(
                        "the platform gives `{}` {}",
                        self.entry.name.value,
                        names(self.entry.scopes)
                    ));
            }
        }
    }

    /// A name stands for any number of networks, and may be written any number of times.
    fn refuse_many_networks(&self, document: &Document, problems: &mut Problems) -> bool {
        let networks = NamedNetworks::of_owner(document, self.networks, &mut Problems::of(""));
        let mut count = 0;
        for rule in &document.restrictions {
            count += rule.networks.iter().map(|entry| networks.count(&entry.value)).sum::<usize>();
            if count > MAX_NETWORKS {
                problems
                    .error(
                        rule.place,
                        &Path::Root.key(&rule.path).key("networks"),
                        format!("the restrictions up to this one name more than {MAX_NETWORKS} networks"),
                    )
                    .help("join restrictions of the same networks");
                return true;
            }
        }
        false
    }

    fn compile(&self, snapshot: &mut Snapshot, document: &Document, problems: &mut Problems) -> Rules {
        let networks = NamedNetworks::of_owner(document, self.networks, problems);
        let mut known = groups_known_to_grants(self.platform);
        known.extend(groups_known_to_grants(document));
        let groups = &mut snapshot.groups;
        let grants = document
            .grants
            .iter()
            .map(|entry| {
                let grant = compile_grant(entry, groups, self.now, problems);
                let scopes = grant.scopes.intersection(self.entry.scopes);
                let within_bounds = grant.tenants.iter().all(|tenant| self.bounds.covers(tenant));
                Grant { owner: Some(self.number), within_bounds, scopes, ..grant }
            })
            .collect();
        let restrictions = document
            .restrictions
            .iter()
            .map(|entry| {
                let mut rule = compile_restriction(entry, &networks, &known, groups, problems);
                rule.owner = Some(self.number);
                rule.scopes.within = self.entry.scopes;
                if is_unnamed(entry) {
                    rule.tenants = super::patterns(&self.entry.tenants);
                }
                rule.within_bounds = rule.tenants.iter().all(|tenant| self.bounds.covers(tenant));
                rule
            })
            .collect();
        Rules { grants, restrictions, revision: Box::default() }
    }
}

fn check_references(snapshot: &Snapshot, document: &Document, problems: &mut Problems) {
    refuse_repeated_names(document, problems);
    warn_of_pattern_groups(document, &snapshot.issuer_names, problems);
    if let Some(first) = document.restrictions.first()
        && snapshot.client_ip.is_none()
    {
        problems
            .error(
                first.place,
                &Path::Root.key(&first.path),
                "the platform says nowhere where a user's address comes from",
            )
            .help("the platform's document needs `client_ip`");
    }
}

/// Whether a restriction names no tenants: it binds those of its owner.
fn is_unnamed(restriction: &RestrictionEntry) -> bool {
    restriction.tenants.iter().all(|tenant| tenant.place == restriction.place)
}

fn beyond(scopes: ScopeSet, bounds: ScopeSet) -> ScopeSet {
    scopes.iter().filter(|scope| !bounds.contains(*scope)).collect()
}

fn names(scopes: ScopeSet) -> String {
    let names: Vec<_> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
    names.join(", ")
}
