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
use crate::policy::diagnostic::{Diagnostic, Path, Place, Problems};
use crate::policy::document::limits::{MAX_NETWORKS, refuse_slow_rules};
use crate::policy::document::{Document, RestrictionEntry};
use crate::policy::index::TenantIndex;
use crate::policy::snapshot::{Grant, Owner, Restriction, Snapshot};
use crate::scope::{BackendSet, Scope, ScopeSet};
use crate::tenant::PatternSet;
use crate::token::digest::sha256_hex;
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

/// Adds the owners' rules to a snapshot of the platform's.
///
/// `test`: whether the tests in new documents are run. Returns what became of each owner, in the document's order, and
/// the documents that are in force in their newest version.
pub(in crate::policy) fn add_owners(
    snapshot: &mut Snapshot,
    platform: &Document,
    files: &mut dyn Files,
    now: u64,
    test: bool,
    problems: &mut Problems,
) -> (Vec<OwnerOutcome>, Vec<OwnerDocument>) {
    // What is wrong with these was told when the platform's rules were compiled.
    let networks = NamedNetworks::new(platform, &mut Problems::of(""));
    let mut accepted = Vec::new();
    let mut outcomes = Vec::new();
    for (number, entry) in (0..).zip(&platform.owners) {
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
        let bounds = super::set_of(&entry.tenants);
        let mut adder =
            Adder { snapshot, platform, networks: &networks, entry, bounds: &bounds, number, now, test };
        let (rules, outcome) = adder.choose(text);
        snapshot.owners.push(Owner {
            name: entry.name.value.clone(),
            file: outcome.file.as_str().into(),
            tenants: bounds,
            available: rules.is_some(),
        });
        accepted.extend(rules.map(|rules| (outcomes.len(), rules)));
        outcomes.push(outcome);
    }
    let mut revisions = snapshot.revision.to_string();
    let mut documents = Vec::new();
    for (owner, rules) in accepted {
        revisions.push_str(&rules.revision);
        if let Some(outcome) = outcomes.get(owner)
            && outcome.state == OwnerState::Current
        {
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
    for outcome in &outcomes {
        // Not whether a version is the newest: the same rules are the same revision in every worker, also in one that
        // has them from what another left.
        revisions.push(if outcome.state == OwnerState::Unavailable { '-' } else { '+' });
    }
    let digest = sha256_hex(revisions.as_bytes());
    snapshot.revision = digest.get(..16).unwrap_or(&digest).into();
    snapshot.index();
    (outcomes, documents)
}

struct Adder<'a> {
    snapshot: &'a mut Snapshot,
    platform: &'a Document,
    networks: &'a NamedNetworks<'a>,
    entry: &'a OwnerEntry,
    bounds: &'a PatternSet,
    number: u32,
    now: u64,
    test: bool,
}

impl Adder<'_> {
    /// The newest version that is good.
    fn choose(&mut self, text: OwnerText) -> (Option<Rules>, OwnerOutcome) {
        let OwnerText { file, current, last_good } = text;
        let mut outcome = OwnerOutcome {
            name: self.entry.name.value.clone(),
            file: file.clone(),
            contact: self.entry.contact.clone(),
            cases: Vec::new(),
            state: OwnerState::Current,
            revision: None,
            diagnostics: Vec::new(),
            content: None,
        };
        match current {
            Ok(content) => {
                let judged = if last_good.as_ref() == Some(&content) { Judged::Before } else { Judged::New };
                let Judgement { rules, diagnostics, beyond, cases } = self.judge(&file, &content, judged);
                outcome.diagnostics = diagnostics;
                outcome.cases = cases;
                if let Some(rules) = rules {
                    // Whoever starts without this last good version refuses it as a whole: that is told now.
                    if !beyond.is_empty() {
                        outcome.state = OwnerState::LastGood;
                        outcome.diagnostics.extend(beyond);
                        outcome.diagnostics.sort_by_key(|problem| problem.place);
                    }
                    outcome.revision = Some(rules.revision.clone());
                    outcome.content = Some(content);
                    return (Some(rules), outcome);
                }
            }
            Err(error) => {
                let mut problems = Problems::of(&file);
                let help = if error.starts_with("no such file") {
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
        let kept =
            last_good.and_then(|content| Some((self.judge(&file, &content, Judged::Before).rules?, content)));
        match kept {
            Some((rules, content)) => {
                outcome.revision = Some(rules.revision.clone());
                outcome.content = Some(content);
                (Some(rules), outcome)
            }
            None => {
                outcome.state = OwnerState::Unavailable;
                (None, outcome)
            }
        }
    }

    fn judge(&mut self, file: &str, content: &[u8], judged: Judged) -> Judgement {
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
        check_givers(&document, &self.snapshot.issuer_names, &self.snapshot.groups, &mut problems);
        self.check_references(&document, &mut problems);
        let mut rules = self.compile(&document, &mut problems);
        rules.revision = {
            let digest = sha256_hex(root.to_json().to_string().as_bytes());
            digest.get(..16).unwrap_or(&digest).into()
        };
        let mut cases = std::mem::take(&mut document.cases);
        if self.test && judged == Judged::New && !problems.any_error() && !cases.is_empty() {
            rules = self.run(rules, &cases, &mut problems);
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
    fn run(&mut self, rules: Rules, cases: &[cases::Case], problems: &mut Problems) -> Rules {
        let Rules { grants, restrictions, revision } = rules;
        let snapshot = &mut *self.snapshot;
        let platform = (snapshot.grants.len(), snapshot.restrictions.len(), snapshot.owners.len());
        // Its number among the owners is what its rules say.
        while snapshot.owners.len() <= usize::try_from(self.number).unwrap_or(usize::MAX) {
            snapshot.owners.push(Owner {
                name: self.entry.name.value.clone(),
                file: problems.file().into(),
                tenants: self.bounds.clone(),
                available: true,
            });
        }
        let grants_of = TenantIndex::build(platform.0, grants.iter().map(Grant::indexed));
        let restrictions_of = TenantIndex::build(platform.1, restrictions.iter().map(Restriction::indexed));
        snapshot.grants.extend(grants);
        snapshot.restrictions.extend(restrictions);
        snapshot.grant_index.set_further(Some(grants_of));
        snapshot.restriction_index.set_further(Some(restrictions_of));
        cases::run(snapshot, cases, self.now, problems);
        snapshot.grant_index.set_further(None);
        snapshot.restriction_index.set_further(None);
        let grants = snapshot.grants.split_off(platform.0);
        let restrictions = snapshot.restrictions.split_off(platform.1);
        snapshot.owners.truncate(platform.2);
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

    fn check_references(&self, document: &Document, problems: &mut Problems) {
        refuse_repeated_names(document, problems);
        warn_of_pattern_groups(document, &self.snapshot.issuer_names, problems);
        if let Some(first) = document.restrictions.first()
            && self.snapshot.client_ip.is_none()
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

    fn compile(&mut self, document: &Document, problems: &mut Problems) -> Rules {
        let networks = NamedNetworks::of_owner(document, self.networks, problems);
        let mut known = groups_known_to_grants(self.platform);
        known.extend(groups_known_to_grants(document));
        let groups = &mut self.snapshot.groups;
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
