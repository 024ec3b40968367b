//! What becomes of the records of a log, one by one and in numbers.

use super::Fate;
use super::record::Record;
use crate::policy::snapshot::Snapshot;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// How often a decision changes, or is not known.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) gained: u64,
    pub(crate) lost: u64,
    pub(crate) unknown: u64,
}

/// What is left when the log has been read; the JSON form is stable.
#[derive(Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) records: u64,
    pub(crate) same: u64,
    /// Denied as before, for another reason.
    pub(crate) other_reason: u64,
    pub(crate) changed: u64,
    pub(crate) unknown: u64,
    /// Denied before the rules were asked.
    pub(crate) before_rules: u64,
    /// Not decided by any policy.
    pub(crate) undecided: u64,
    /// Lines that are no records.
    pub(crate) corrupt: u64,
    /// Records of earlier requests than were asked for; they count nowhere else.
    pub(crate) earlier: u64,
    pub(crate) by_owner: BTreeMap<String, Counts>,
    pub(crate) by_tenant: BTreeMap<String, Counts>,
    /// By the groups that the records list.
    pub(crate) by_group: BTreeMap<String, Counts>,
    /// By the recorded and the new reason.
    #[serde(serialize_with = "reasons")]
    pub(crate) by_reason: BTreeMap<(String, String), Counts>,
}

/// A request whose decision changes, or is not known; the JSON form is stable.
#[derive(Serialize)]
pub(crate) struct Change<'a> {
    /// `gained`, `lost` or `unknown`.
    pub(crate) change: &'static str,
    pub(crate) line: u64,
    pub(crate) time: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) issuer: Option<&'a str>,
    pub(crate) subject: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) groups: Vec<&'a str>,
    pub(crate) tenants: Vec<&'a str>,
    pub(crate) scope: Option<&'a str>,
    pub(crate) backend: Option<&'a str>,
    pub(crate) client_ip: Option<&'a str>,
    pub(crate) old: Decided<'a>,
    /// As far as it is known.
    pub(crate) new: Decided<'a>,
    /// What was not recorded and decides, only where the change is `unknown`: `groups`, `revocation`, or `truncated`,
    /// where the record was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) depends_on: Option<&'static str>,
}

#[derive(Serialize)]
pub(crate) struct Decided<'a> {
    pub(crate) decision: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) grant: Option<&'a str>,
    pub(crate) restriction: Option<&'a str>,
    /// Whose document the rule stands in; null for the platform's.
    pub(crate) owner: Option<&'a str>,
}

/// A list: an object's keys would be two reasons in one text.
fn reasons<S: Serializer>(
    by_reason: &BTreeMap<(String, String), Counts>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Reasons<'a> {
        old: &'a str,
        new: &'a str,
        #[serde(flatten)]
        counts: Counts,
    }
    serializer.collect_seq(by_reason.iter().map(|((old, new), counts)| Reasons { old, new, counts: *counts }))
}

impl Summary {
    /// Counts a record; what is worth showing is returned.
    pub(super) fn count<'a>(
        &mut self,
        record: &'a Record<'_>,
        fate: Fate,
        snapshot: &'a Snapshot,
        line: u64,
    ) -> Option<Change<'a>> {
        self.records += 1;
        let mut depends_on = None;
        let (decision, change) = match fate {
            Fate::Cut => {
                self.unknown += 1;
                depends_on = Some("truncated");
                (None, "unknown")
            }
            Fate::Same => {
                self.same += 1;
                return None;
            }
            Fate::OtherReason(_) => {
                self.other_reason += 1;
                return None;
            }
            Fate::BeforeRules => {
                self.before_rules += 1;
                return None;
            }
            Fate::Undecided => {
                self.undecided += 1;
                return None;
            }
            Fate::Changed(decision) => {
                self.changed += 1;
                (Some(decision), if decision.is_allow() { "gained" } else { "lost" })
            }
            Fate::Unknown(decision) => {
                self.unknown += 1;
                depends_on = Some("groups");
                (Some(decision), "unknown")
            }
            Fate::PerhapsRevoked(decision) => {
                self.unknown += 1;
                depends_on = Some("revocation");
                (Some(decision), "unknown")
            }
        };
        let (old, old_reason) = match (&record.shadow, record.mode.as_deref()) {
            (Some(shadow), Some("shadow")) => (&*shadow.decision, &*shadow.reason),
            _ => {
                (record.decision.as_deref().unwrap_or_default(), record.reason.as_deref().unwrap_or_default())
            }
        };
        // Of one that is not known at all, what it was.
        let (new, new_reason) =
            decision.map_or((old, old_reason), |decision| (decision.effect(), decision.reason().name()));
        let add = |counts: &mut Counts| match change {
            "gained" => counts.gained += 1,
            "lost" => counts.lost += 1,
            _ => counts.unknown += 1,
        };
        let tenants: Vec<&str> = record.tenants.iter().flatten().map(|tenant| &*tenant.0).collect();
        for tenant in &tenants {
            add(self.by_tenant.entry((*tenant).to_owned()).or_default());
        }
        let groups: Vec<&str> = record.groups.iter().flatten().map(|group| &*group.0).collect();
        for group in &groups {
            add(self.by_group.entry((*group).to_owned()).or_default());
        }
        let now = if change == "unknown" { "unknown" } else { new_reason };
        add(self.by_reason.entry((old_reason.to_owned(), now.to_owned())).or_default());
        let at = |number: u32| usize::try_from(number).ok();
        let grant =
            decision.and_then(|decision| decision.grant).and_then(at).and_then(|at| snapshot.grants.get(at));
        let restriction = decision.and_then(|decision| decision.restriction).and_then(at);
        let restriction = restriction.and_then(|at| snapshot.restrictions.get(at));
        let owners = [grant.map(|rule| rule.owner), restriction.map(|rule| rule.owner)];
        let owner = owners.into_iter().flatten().find_map(|owner| snapshot.owner_name(owner));
        // Whoever wrote the rule that decides now; where that is the platform, whoever wrote the one that decided.
        let counted = owner.or(record.owner.as_deref()).unwrap_or("-");
        add(self.by_owner.entry(counted.to_owned()).or_default());
        Some(Change {
            change,
            line,
            time: record.time.as_deref(),
            request_id: record.request_id.as_deref(),
            issuer: record.issuer.as_deref(),
            subject: record.subject.as_deref(),
            user: record.user.as_deref(),
            groups,
            tenants,
            scope: record.scope.as_deref(),
            backend: record.backend.as_deref(),
            client_ip: record.client_ip.as_deref(),
            old: Decided {
                decision: old,
                reason: old_reason,
                grant: record.grant.as_deref(),
                restriction: record.restriction.as_deref(),
                owner: record.owner.as_deref(),
            },
            new: Decided {
                decision: new,
                reason: new_reason,
                grant: grant.map(|grant| &*grant.name),
                restriction: restriction.map(|restriction| &*restriction.name),
                owner,
            },
            depends_on,
        })
    }
}
