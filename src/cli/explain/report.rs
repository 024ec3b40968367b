//! What `explain` found, in the shape of its JSON form, which is stable. Members are null where they are unknown.

use crate::cli::check::Entry;
use crate::cli::policy::OwnerSeen;
use crate::cli::timestamp;
use crate::client_ip::ClientIp;
use crate::decision::TenantTrace;
use crate::network::Network;
use crate::policy::snapshot::{
    Grant, GrantOutcome, GroupId, Restriction, RestrictionOutcome, ServiceAccount, Snapshot,
};
use crate::replay::Recorded;
use crate::scope::Scope;
use crate::token::inspect::Finding;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Explanation {
    #[serde(flatten)]
    pub(super) applied: Applied,
    /// The record that was asked about, with `--audit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recorded: Option<Past>,
    /// What is wrong with documents of owners that cannot be used, and with a policy in whose place the last good one
    /// stands.
    pub(super) diagnostics: Vec<Entry>,
    /// Owners whose newest document is not in force.
    pub(super) owners: Vec<OwnerSeen>,
    /// `policy`, or `state_dir` where the policy is refused and nginx goes on with the last good one.
    pub(super) policy_source: &'static str,
    pub(super) policy: String,
    pub(super) revision: String,
    pub(super) time: String,
    pub(super) principal: Who,
    /// Where a service account must come from; null for a user.
    pub(super) service_account: Option<AccountSeen>,
    pub(super) request: Asked,
    pub(super) tenants: Tenants,
}

impl Explanation {
    pub(super) fn allowed(&self) -> bool {
        self.applied.decision == "allow"
    }
}

/// What the audit log says of the request, and how that compares with the decision of today.
#[derive(Serialize)]
pub(super) struct Past {
    /// Its line in the log.
    pub(super) line: u64,
    /// `same`, `other_reason` (denied as before), `gained`, `lost`, `unknown`, `before_rules` (denied before any rule
    /// was asked: headers, path, token) or `undecided` (nginx refused it, or there was no policy).
    pub(super) outcome: &'static str,
    /// What was not recorded and decides, where that is not known: `groups`, `revocation` or `truncated`.
    pub(super) depends_on: Option<&'static str>,
    pub(super) record: Recorded,
}

/// What becomes of the request.
#[derive(Serialize)]
pub(super) struct Applied {
    /// `allow` or `deny`; of an audit record also `unknown`, or `not_decided` where no rule was asked.
    pub(super) decision: &'static str,
    /// Null where there is no decision.
    pub(super) reason: Option<&'static str>,
    /// `enforce`; `shadow` where the whole gateway only records.
    pub(super) mode: &'static str,
    /// Until when it does.
    pub(super) shadow_until: Option<String>,
    /// What the client would be told.
    pub(super) answer: Option<&'static str>,
    /// The grant that allowed it, or would have.
    pub(super) grant: Option<RuleName>,
    /// The restriction that denied it.
    pub(super) restriction: Option<RuleName>,
    /// What would have become of it: by the whole policy where the gateway only records, else by a restriction in
    /// shadow mode that would have denied it.
    pub(super) shadow: Option<Shadow>,
}

impl Applied {
    /// Leaves no decision, which is not known. `word`: what stands in its place.
    pub(super) fn forget(&mut self, word: &'static str) {
        let Self { mode, shadow_until, .. } = self;
        let (mode, shadow_until) = (*mode, shadow_until.take());
        *self = Self {
            decision: word,
            reason: None,
            mode,
            shadow_until,
            answer: None,
            grant: None,
            restriction: None,
            shadow: None,
        };
    }
}

#[derive(Serialize)]
pub(super) struct RuleName {
    pub(super) name: String,
    /// Whose document it stands in; null for the platform's.
    pub(super) owner: Option<String>,
    /// That document.
    pub(super) file: String,
    pub(super) line: u32,
}

impl RuleName {
    pub(super) fn of(name: &str, owner: Option<u32>, line: u32, snapshot: &Snapshot) -> Self {
        let (file, whose) = (snapshot.file_of(owner).to_owned(), snapshot.owner_name(owner));
        Self { name: name.to_owned(), owner: whose.map(str::to_owned), file, line }
    }
}

#[derive(Serialize)]
pub(super) struct Shadow {
    pub(super) decision: &'static str,
    pub(super) reason: &'static str,
    pub(super) restriction: Option<RuleName>,
    /// What the client would have been told, where the whole gateway only records.
    #[serde(skip)]
    pub(super) answer: Option<&'static str>,
}

/// Who asks.
#[derive(Clone, Serialize)]
pub(super) struct Who {
    /// `token`, `claims`, `groups` or `audit`.
    pub(super) source: &'static str,
    /// Whether a signature was verified.
    pub(super) verified: bool,
    /// The reason for which the token or the claims are refused.
    pub(super) refused: Option<&'static str>,
    /// Of a refused token or claims: each check that they do not pass, with what was found and what was expected. Only
    /// claimed where `verified` is false.
    pub(super) findings: Vec<Finding>,
    /// What token or claims say.
    pub(super) known: Option<Known>,
    /// The groups as the policy names them, as in audit records.
    pub(super) groups: Vec<String>,
    /// Groups that nothing in the policy names.
    pub(super) unknown_groups: Vec<String>,
    /// Groups that count for nothing, since the policy revokes them.
    pub(super) revoked_groups: Vec<String>,
}

impl Who {
    pub(super) fn of(source: &'static str) -> Self {
        Self {
            source,
            verified: false,
            refused: None,
            findings: Vec::new(),
            known: None,
            groups: Vec::new(),
            unknown_groups: Vec::new(),
            revoked_groups: Vec::new(),
        }
    }
}

#[derive(Clone, Serialize)]
pub(super) struct Known {
    /// The issuer's name in the policy.
    pub(super) issuer: String,
    pub(super) subject: Option<String>,
    pub(super) object_id: Option<String>,
    pub(super) user: Option<String>,
    pub(super) token_id: Option<String>,
}

/// What is asked for, and where from.
#[derive(Serialize)]
pub(super) struct Asked {
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) scope: Option<&'static str>,
    pub(super) backends: Option<Vec<&'static str>>,
    /// The reason for which no route serves it.
    pub(super) refused: Option<&'static str>,
    pub(super) client_ip: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Tenants {
    pub(super) header: String,
    /// The reason for which the header is refused.
    pub(super) refused: Option<&'static str>,
    /// Tenant by tenant in canonical order; empty where an earlier check denies.
    pub(super) rules: Vec<TenantRules>,
}

#[derive(Serialize)]
pub(super) struct TenantRules {
    pub(super) tenant: String,
    pub(super) grants: Vec<GrantSeen>,
    pub(super) restrictions: Vec<RestrictionSeen>,
}

#[derive(Serialize)]
pub(super) struct GrantSeen {
    pub(super) name: String,
    /// Whose document it stands in; null for the platform's.
    pub(super) owner: Option<String>,
    /// That document.
    pub(super) file: String,
    pub(super) line: u32,
    /// `allows`, `other_scope`, `expired` or `other_groups`.
    pub(super) outcome: &'static str,
    pub(super) groups: Vec<String>,
    pub(super) scopes: Vec<&'static str>,
    pub(super) expires: Option<String>,
    pub(super) has_expired: bool,
}

#[derive(Serialize)]
pub(super) struct RestrictionSeen {
    pub(super) name: String,
    /// Whose document it stands in; null for the platform's.
    pub(super) owner: Option<String>,
    /// That document.
    pub(super) file: String,
    pub(super) line: u32,
    /// `satisfied`, `violated` or `excepted`.
    pub(super) outcome: &'static str,
    /// It is recorded and denies nothing.
    pub(super) shadow: bool,
    pub(super) except_groups: Vec<String>,
    pub(super) networks: Vec<NetworkSeen>,
}

#[derive(Serialize)]
pub(super) struct AccountSeen {
    pub(super) name: String,
    /// The document that it stands in.
    pub(super) file: String,
    pub(super) line: u32,
    /// `satisfied` or `violated` by the client address, which stands for the TCP peer.
    pub(super) outcome: &'static str,
    /// Null where it may come from anywhere.
    pub(super) networks: Option<Vec<NetworkSeen>>,
}

impl AccountSeen {
    pub(super) fn of(account: &ServiceAccount, snapshot: &Snapshot, client: Option<ClientIp>) -> Self {
        let inside = account
            .networks
            .as_ref()
            .is_none_or(|networks| client.is_some_and(|client| networks.contains(client.addr())));
        Self {
            name: account.name.to_string(),
            file: snapshot.file.to_string(),
            line: account.line,
            outcome: if inside { "satisfied" } else { "violated" },
            networks: account.networks.is_some().then(|| seen_networks(&account.network_names, client)),
        }
    }
}

#[derive(Serialize)]
pub(super) struct NetworkSeen {
    pub(super) name: String,
    pub(super) networks: Vec<String>,
    /// The client is inside.
    pub(super) contains_client: bool,
}

impl TenantRules {
    pub(super) fn of(
        found: &TenantTrace<'_>,
        snapshot: &Snapshot,
        client: Option<ClientIp>,
        now: u64,
    ) -> Self {
        Self {
            tenant: found.tenant.clone(),
            grants: found.grants.iter().map(|(grant, how)| seen_grant(grant, *how, snapshot, now)).collect(),
            restrictions: found
                .restrictions
                .iter()
                .map(|(restriction, how)| seen_restriction(restriction, *how, snapshot, client))
                .collect(),
        }
    }
}

fn seen_grant(grant: &Grant, outcome: GrantOutcome, snapshot: &Snapshot, now: u64) -> GrantSeen {
    GrantSeen {
        name: grant.name.to_string(),
        owner: snapshot.owner_name(grant.owner).map(str::to_owned),
        file: snapshot.file_of(grant.owner).to_owned(),
        line: grant.line,
        outcome: match outcome {
            GrantOutcome::Allows => "allows",
            GrantOutcome::OtherScope => "other_scope",
            GrantOutcome::Expired => "expired",
            GrantOutcome::OtherGroups => "other_groups",
        },
        groups: names(&grant.groups, snapshot),
        scopes: grant.scopes.iter().map(Scope::name).collect(),
        expires: grant.expires.map(timestamp),
        has_expired: grant.has_expired(now),
    }
}

fn seen_restriction(
    restriction: &Restriction,
    outcome: RestrictionOutcome,
    snapshot: &Snapshot,
    client: Option<ClientIp>,
) -> RestrictionSeen {
    RestrictionSeen {
        name: restriction.name.to_string(),
        owner: snapshot.owner_name(restriction.owner).map(str::to_owned),
        file: snapshot.file_of(restriction.owner).to_owned(),
        line: restriction.line,
        outcome: match outcome {
            RestrictionOutcome::Satisfied => "satisfied",
            RestrictionOutcome::Violated => "violated",
            RestrictionOutcome::Excepted => "excepted",
        },
        shadow: restriction.shadow,
        except_groups: names(&restriction.except_groups, snapshot),
        networks: seen_networks(&restriction.network_names, client),
    }
}

fn seen_networks(named: &[(Box<str>, Box<[Network]>)], client: Option<ClientIp>) -> Vec<NetworkSeen> {
    let seen = named.iter().map(|(name, networks)| NetworkSeen {
        name: name.to_string(),
        networks: networks.iter().map(ToString::to_string).collect(),
        contains_client: client
            .is_some_and(|client| networks.iter().any(|network| network.contains(client.addr()))),
    });
    seen.collect()
}

fn names(groups: &[GroupId], snapshot: &Snapshot) -> Vec<String> {
    groups.iter().map(|group| snapshot.groups.name(*group).to_owned()).collect()
}
