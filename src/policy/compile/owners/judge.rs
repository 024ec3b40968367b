//! One version of an owner's document: read, held against its bounds, compiled, tested.

use super::{Adder, Rules, is_unnamed};
use crate::policy::cases;
use crate::policy::compile::client_ip::NamedNetworks;
use crate::policy::compile::principals::{check_givers, refuse_unknown_accounts};
use crate::policy::compile::{
    compile_grant, compile_restriction, groups_known_to_grants, patterns, refuse_repeated_names,
    warn_of_pattern_groups,
};
use crate::policy::diagnostic::{Diagnostic, Path, Problems};
use crate::policy::document::Document;
use crate::policy::document::limits::refuse_slow_rules;
use crate::policy::document::owners::read_document;
use crate::policy::index::TenantIndex;
use crate::policy::snapshot::{Grant, Restriction, Snapshot};
use crate::policy::{node, revision_of};
use crate::tenant::{PatternSet, TenantPattern};

/// Whether a version has to satisfy its bounds and its tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// It is new.
    New,
    /// It was good once, and what has changed is the platform's document: its rules are used as far as they still lie
    /// within the bounds.
    Before,
}

/// What came of looking at a version.
#[derive(Default)]
pub(super) struct Judgement {
    /// If it is good.
    pub(super) rules: Option<Rules>,
    /// What is wrong with it, or odd.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Of one that was good once: what the platform no longer gives.
    pub(super) beyond: Vec<Diagnostic>,
    /// The tests that were not run.
    pub(super) cases: Vec<cases::Case>,
}

impl Adder<'_> {
    /// Judges a version. `file`: what diagnostics call it.
    pub(super) fn judge(
        &self,
        snapshot: &mut Snapshot,
        file: &str,
        content: &[u8],
        version: Version,
    ) -> Judgement {
        let mut problems = Problems::of(file);
        let mut beyond = Problems::of(file);
        let Some(root) = node::parse(content, &mut problems) else {
            return Judgement { diagnostics: problems.into_sorted(), ..Judgement::default() };
        };
        let mut document = read_document(&root, &mut problems);
        {
            let problems = if version == Version::New { &mut problems } else { &mut beyond };
            self.check_bounds(&document, problems);
            refuse_slow_rules(&document, problems);
            // An account that the platform has taken away since is granted nothing.
            refuse_unknown_accounts(&document, self.platform, problems);
        }
        if self.refuse_many_networks(&document, &mut problems)
            || self.refuse_many_bounds(&document, &mut problems)
        {
            return Judgement { diagnostics: problems.into_sorted(), ..Judgement::default() };
        }
        // Of a former version too: a restriction on a group that nobody gives any more would bind nobody.
        check_givers(&document, &snapshot.issuer_names, &snapshot.groups, &mut problems);
        check_references(snapshot, &document, &mut problems);
        let mut rules = self.compile(snapshot, &document, &mut problems);
        rules.revision = revision_of(&root.to_json().to_string());
        let mut cases = std::mem::take(&mut document.cases);
        if version == Version::New && !problems.any_error() && !cases.is_empty() {
            rules = self.run(snapshot, rules, &cases, content.len(), &mut problems);
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
    ///
    /// `bytes`: the length of the document, which says how much work they may take.
    fn run(
        &self,
        snapshot: &mut Snapshot,
        rules: Rules,
        cases: &[cases::Case],
        bytes: usize,
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
        if cases::are_within_budget(snapshot, cases, bytes, self.now, problems) && self.test {
            cases::run(snapshot, cases, self.now, problems);
        }
        snapshot.grant_index.set_further(None);
        snapshot.restriction_index.set_further(None);
        let grants = snapshot.grants.split_off(platform.0);
        let restrictions = snapshot.restrictions.split_off(platform.1);
        Rules { grants, restrictions, revision }
    }

    fn compile(&self, snapshot: &mut Snapshot, document: &Document, problems: &mut Problems) -> Rules {
        let networks = NamedNetworks::of_owner(document, self.networks, problems);
        let own = groups_known_to_grants(document);
        let is_known = |group: &str| own.contains(group) || self.context.knows(group);
        let groups = &mut snapshot.groups;
        let grants = document
            .grants
            .iter()
            .map(|entry| {
                let grant = compile_grant(entry, groups, self.now, problems);
                let scopes = grant.scopes.intersection(self.entry.scopes);
                let within_bounds = grant.tenants.iter().all(|tenant| self.bounds.covers(tenant));
                let except_tenants = self.excepting(&grant.tenants, grant.except_tenants);
                Grant { owner: Some(self.number), within_bounds, scopes, except_tenants, ..grant }
            })
            .collect();
        let restrictions = document
            .restrictions
            .iter()
            .map(|entry| {
                let mut rule = compile_restriction(entry, &networks, &is_known, groups, problems);
                rule.owner = Some(self.number);
                rule.scopes.within = self.entry.scopes;
                if is_unnamed(entry) {
                    rule.tenants = patterns(&self.entry.tenants);
                }
                rule.within_bounds = rule.tenants.iter().all(|tenant| self.bounds.covers(tenant));
                rule.except_tenants = self.excepting(&rule.tenants, rule.except_tenants);
                rule
            })
            .collect();
        Rules { grants, restrictions, revision: Box::default() }
    }

    /// A rule's exceptions, and those of the owner's tenants that it would reach.
    fn excepting(&self, tenants: &[TenantPattern], own: PatternSet) -> PatternSet {
        // Of tenants that are written out there may be thousands, and one that is excepted is a mistake.
        let is_reached =
            |tenant: &&TenantPattern| tenant.literal().is_none_or(|name| self.excepted.matches(name));
        let tenants: Vec<&TenantPattern> = tenants.iter().filter(is_reached).collect();
        let reached = |excepted: &&TenantPattern| {
            tenants.iter().any(|tenant| tenant.may_overlap(excepted) && tenant.overlaps(excepted))
        };
        let mut further = self.excepted.iter().filter(reached).peekable();
        if further.peek().is_none() {
            return own;
        }
        PatternSet::new(own.iter().chain(further).cloned())
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
