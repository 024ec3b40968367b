//! What the policy in force has of an owner, for the policy that takes its place: as long as nothing has changed on which it
//! depends, a document is neither read nor tested again.

use super::Rules;
use crate::file::FileError;
use crate::policy::OwnerOutcome;
use crate::policy::compile::groups_known_to_grants;
use crate::policy::document::Document;
use crate::policy::document::owners::OwnerEntry;
use crate::policy::groups::is_of_account;
use crate::policy::snapshot::{Grant, GroupId, GroupTable, Restriction, Snapshot};
use crate::token::digest::Sha256;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// The platform's document, as the rules of owners depend on it.
pub(in crate::policy) struct Context<'d> {
    /// Everything in it: the tests of owners run on it.
    whole: Sha256,
    /// What gives rules their meaning: issuers, names of groups and networks, service accounts, where addresses come from.
    /// Not what is granted, restricted or revoked.
    meanings: Sha256,
    /// The groups that its grants and names of groups know.
    known: HashSet<&'d str>,
}

/// What the rules in force were made of: a content, under these bounds, with these meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) struct RulesKey(Sha256);

/// What the newest version of a document was found to be, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Judged {
    /// Rules that are in force. What is granted, restricted or revoked elsewhere changes nothing about them.
    Accepted(RulesKey),
    /// Refused, by the platform's document as a whole, while another version was good.
    Refused(Sha256),
}

impl<'d> Context<'d> {
    /// `json`: the platform's document.
    pub(in crate::policy) fn of(json: &serde_json::Value, platform: &'d Document) -> Self {
        let part = |key: &str| json.get(key).map(ToString::to_string).unwrap_or_default();
        let parts = ["issuers", "group_names", "service_accounts", "client_ip", "networks"].map(part);
        Self {
            whole: Sha256::of(json.to_string().as_bytes()),
            meanings: Sha256::of(format!("{parts:?}").as_bytes()),
            known: groups_known_to_grants(platform),
        }
    }

    /// Whether a grant or a name of groups in the platform's document knows the group.
    pub(super) fn knows(&self, group: &str) -> bool {
        self.known.contains(group)
    }

    pub(super) fn rules_key(&self, entry: &OwnerEntry, content: &[u8]) -> RulesKey {
        let tenants = [&entry.tenants, &entry.except_tenants]
            .map(|list| list.iter().map(|tenant| tenant.value.as_str()).collect::<Vec<_>>());
        let scopes: Vec<_> = entry.scopes.iter().collect();
        let of = format!("{:?}{tenants:?}{scopes:?}{:?}", self.meanings, Sha256::of(content));
        RulesKey(Sha256::of(of.as_bytes()))
    }

    /// Of a version that is refused. `last_good`: the content that stays in its place.
    pub(super) fn refused_key(
        &self,
        entry: &OwnerEntry,
        newest: Result<&[u8], &FileError>,
        last_good: Option<&[u8]>,
    ) -> Judged {
        let newest = match newest {
            Ok(content) => format!("{:?}", self.rules_key(entry, content)),
            Err(error) => error.to_string(),
        };
        let last_good = last_good.map(|content| self.rules_key(entry, content));
        Judged::Refused(Sha256::of(format!("{:?}{newest}{last_good:?}", self.whole).as_bytes()))
    }
}

/// What the policy in force has of the owners.
pub(super) struct Former<'f> {
    snapshot: &'f Snapshot,
    outcomes: &'f [OwnerOutcome],
    by_name: HashMap<&'f str, usize>,
    /// Where the rules of each owner stand among those of the snapshot.
    grants: Vec<Range<usize>>,
    restrictions: Vec<Range<usize>>,
}

impl<'f> Former<'f> {
    pub(super) fn new((snapshot, outcomes): (&'f Snapshot, &'f [OwnerOutcome])) -> Self {
        let by_name = outcomes.iter().map(|outcome| &*outcome.name).zip(0..).collect();
        let count = outcomes.len();
        Self {
            snapshot,
            outcomes,
            by_name,
            grants: ranges(count, snapshot.grants.iter().map(|rule| rule.owner)),
            restrictions: ranges(count, snapshot.restrictions.iter().map(|rule| rule.owner)),
        }
    }

    /// What became of the owner's document.
    pub(super) fn outcome(&self, name: &str) -> Option<&'f OwnerOutcome> {
        self.outcomes.get(*self.by_name.get(name)?)
    }

    /// The rules of an owner for another snapshot, in which groups have other numbers, where they would be the same if
    /// they were read again.
    ///
    /// `number`: the owner's in the other snapshot.
    pub(super) fn rules(
        &self,
        name: &str,
        key: RulesKey,
        number: u32,
        context: &Context<'_>,
        groups: &mut GroupTable,
    ) -> Option<Rules> {
        let at = *self.by_name.get(name)?;
        let outcome = self.outcomes.get(at).filter(|outcome| outcome.rules == Some(key))?;
        let grants = self.snapshot.grants.get(self.grants.get(at)?.clone())?;
        let restrictions = self.snapshot.restrictions.get(self.restrictions.get(at)?.clone())?;
        if !self.are_known(grants, restrictions, context, groups) {
            return None;
        }
        let mut renumbered = |own: &[GroupId]| -> Box<[GroupId]> {
            let mut ids: Vec<GroupId> =
                own.iter().map(|id| groups.of_rule(self.snapshot.groups.name(*id))).collect();
            ids.sort_unstable();
            ids.into()
        };
        let grants = grants
            .iter()
            .map(|rule| Grant { groups: renumbered(&rule.groups), owner: Some(number), ..rule.clone() })
            .collect();
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

    /// Whether everything that restrictions name is a group that something else knows, in the platform's document of today.
    fn are_known(
        &self,
        grants: &[Grant],
        restrictions: &[Restriction],
        context: &Context<'_>,
        groups: &GroupTable,
    ) -> bool {
        let mut named = restrictions.iter().flat_map(|rule| rule.groups.iter().chain(&rule.except_groups));
        let mut own: Option<HashSet<GroupId>> = None;
        named.all(|id| {
            let name = self.snapshot.groups.name(*id);
            context.knows(name)
                || groups.is_of_every_user(name)
                || is_of_account(name)
                || own
                    .get_or_insert_with(|| {
                        grants.iter().flat_map(|grant| grant.groups.iter().copied()).collect()
                    })
                    .contains(id)
        })
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
