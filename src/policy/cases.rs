//! The tests of a policy: requests, and what must become of them.
//!
//! A test says what the document means, so whether it passes must not depend on the day on which a worker happens to
//! start: without `now`, one that fails only because a grant or its own claims have run out since is told as a warning
//! and refuses nothing.

use super::diagnostic::{Diagnostic, Path, Place, Problems, WarningKind};
use super::sample::{Action, Sample, identity};
use super::snapshot::{Grant, Held, ServiceAccount, Snapshot};
use super::{document, node};
use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller, Decision, decide};
use crate::reason::Reason;
use crate::tenant::MAX_TENANTS;
use std::fmt::{self, Write as _};

/// Failing tests of which it is told what decided.
const MAX_EXPLAINED: usize = 20;

/// One test of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name, or its path in the document.
    pub name: Box<str>,
    /// Its path in the document: `tests[3]`.
    pub path: Box<str>,
    /// Where it stands.
    pub place: Place,
    /// Who asks.
    pub who: Who,
    /// The value of `X-Scope-OrgID`.
    pub tenant: Box<str>,
    /// What is asked for, or why no route serves it.
    pub action: Result<Action, Reason>,
    /// Where from; `None` where the address is not known.
    pub client_ip: Option<ClientIp>,
    /// Unix seconds; without it the clock.
    pub now: Option<u64>,
    /// What must become of it.
    pub expected: Expected,
}

/// Who asks in a test.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// A user of these groups, as rules write them.
    Groups(Vec<Box<str>>),
    /// Whoever a token of these claims would speak for.
    Claims(serde_json::Value),
}

/// What a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is allowed.
    Allow,
    /// It is denied, whatever the reason.
    Deny,
    /// It is decided for this reason.
    Reason(Reason),
}

impl Expected {
    fn is_met_by(self, decision: Decision) -> bool {
        match self {
            Self::Allow => decision.is_allow(),
            Self::Deny => !decision.is_allow(),
            Self::Reason(reason) => decision.reason() == reason,
        }
    }
}

impl Outcome {
    /// What reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Outdated => "outdated",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Deny => f.write_str("deny"),
            Self::Reason(reason) => write!(f, "{reason}"),
        }
    }
}

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not as expected, but it was before something ran out.
    Outdated,
    /// Not as expected.
    Failed,
}

/// Reads a document that holds `tests:` and nothing else.
///
/// `file`: what diagnostics call it. Returns what could be read, and every problem.
pub fn read(file: &str, text: &[u8]) -> (Vec<Case>, Vec<Diagnostic>) {
    let mut problems = Problems::of(file);
    let root = node::parse(text, &mut problems);
    let cases = root.map(|root| document::cases::read_file(&root, &mut problems)).unwrap_or_default();
    (cases, problems.into_sorted())
}

/// Runs tests; those that do not pass are told to `problems`.
///
/// `now`: Unix seconds. Returns how each went, parallel to `cases`.
pub fn run(snapshot: &Snapshot, cases: &[Case], now: u64, problems: &mut Problems) -> Vec<Outcome> {
    let mut failures = 0;
    cases
        .iter()
        .map(|case| {
            let outcome = case.outcome(snapshot, now);
            match outcome {
                Outcome::Passed => {}
                Outcome::Outdated => {
                    problems
                        .warning(
                            WarningKind::OutdatedTest,
                            case.place,
                            &Path::Root.key(&case.path),
                            format!("the test `{}` passes no more: what it relies on has expired", case.name),
                        )
                        .help("remove it, or write in `now` the time that it is about");
                }
                // To say which rule decided takes a look at all of them: the first failures are enough to go by.
                Outcome::Failed if failures >= MAX_EXPLAINED => {
                    problems
                        .error(
                            case.place,
                            &Path::Root.key(&case.path),
                            format!("the test `{}` fails", case.name),
                        )
                        .help("`tenantauth explain` shows every rule that took part");
                }
                Outcome::Failed => {
                    failures += 1;
                    let path = Path::Root.key(&case.path);
                    let message = case.complaint(snapshot, case.now.unwrap_or(now));
                    problems.error(case.place, &path, message).help(case.help(snapshot));
                }
            }
            outcome
        })
        .collect()
}

/// Units of work that an owner's tests may take for each byte of the document: 200 ms for one of 1 MiB, where a unit is
/// about 10 ns of one core. It is counted and not timed, so that every worker judges alike.
const WORK_PER_BYTE: u64 = 20;
/// What the tests of the smallest document may take.
const LEAST_WORK: u64 = 1 << 20;

/// Whether an owner's tests take no more than their share of work; where they would, that is reported as an error.
///
/// `bytes`: the length of the document. `now`: Unix seconds.
pub(super) fn are_within_budget(
    snapshot: &Snapshot,
    cases: &[Case],
    bytes: usize,
    now: u64,
    problems: &mut Problems,
) -> bool {
    let mut left = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(WORK_PER_BYTE).max(LEAST_WORK);
    let loose = snapshot.grant_index.loose_patterns() + snapshot.restriction_index.loose_patterns();
    for case in cases {
        let Some(rest) = case.work(snapshot, now, loose, left) else {
            problems
                .error(
                    case.place,
                    &Path::Root.key(&case.path),
                    "with it the document's tests take more work than an owner's may",
                )
                .help("name fewer tenants and groups in each test, or leave out tests that say the same");
            return false;
        };
        left = rest;
    }
    true
}

impl Case {
    /// What is left of some work once it is decided; `None` where it takes more.
    ///
    /// Counted are the tenants, the groups that are looked for with each, and the rules that name both.
    ///
    /// `loose`: patterns that are compared with each tenant.
    fn work(&self, snapshot: &Snapshot, now: u64, loose: usize, left: u64) -> Option<u64> {
        let units = |count: usize, each: u64| u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(each);
        let written = match &self.who {
            Who::Groups(names) => {
                // A service account is looked for among all.
                let walked = if names.len() == 1 { snapshot.service_accounts.len() } else { 0 };
                units(names.len(), 100).saturating_add(units(walked, 1))
            }
            Who::Claims(claims) => units(size_of_json(claims), 10),
        };
        let mut left = left.checked_sub(written)?;
        let held = self.held(snapshot, now);
        let (groups, bound_by) = match &held {
            Ok(Asker::User(held)) => (&*held.groups, held.binding()),
            Ok(Asker::Service(account)) => (&*account.groups, &[][..]),
            Err(_) => return Some(left),
        };
        // Of a restriction the exceptions are looked at as well.
        let excepted = |rule: u32| {
            let rule = usize::try_from(rule).ok().and_then(|rule| snapshot.restrictions.get(rule));
            let except = rule.map_or(0, |rule| rule.except_groups.len().min(groups.len()));
            units(except, 2).saturating_add(4)
        };
        for tenant in self.tenant.split('|').take(MAX_TENANTS) {
            let mut work = units(groups.len(), 2).saturating_add(units(loose, 4)).saturating_add(48);
            snapshot.grant_index.each_rule(tenant, groups, &mut |_| work = work.saturating_add(4));
            snapshot
                .restriction_index
                .each_rule(tenant, bound_by, &mut |rule| work = work.saturating_add(excepted(rule)));
            left = left.checked_sub(work)?;
        }
        Some(left)
    }

    fn outcome(&self, snapshot: &Snapshot, now: u64) -> Outcome {
        let is_met = |times| self.expected.is_met_by(self.decided(snapshot, times));
        if is_met(Times::of_clock(self.now.unwrap_or(now))) {
            Outcome::Passed
        } else if self.now.is_none() && is_met(self.before_expiry(now)) {
            Outcome::Outdated
        } else {
            Outcome::Failed
        }
    }

    /// What becomes of it.
    ///
    /// `now`: Unix seconds, the time of a test that fixes none.
    pub fn decision(&self, snapshot: &Snapshot, now: u64) -> Decision {
        self.decided(snapshot, Times::of_clock(self.now.unwrap_or(now)))
    }

    fn decided(&self, snapshot: &Snapshot, times: Times) -> Decision {
        self.reach(snapshot, times, |request| decide(snapshot, request)).unwrap_or_else(Decision::denied)
    }

    fn before_expiry(&self, now: u64) -> Times {
        let exp = match &self.who {
            // A claim that is no whole number of seconds is judged at the clock alone.
            Who::Claims(claims) => claims.get("exp").and_then(serde_json::Value::as_u64),
            Who::Groups(_) => None,
        };
        let claims = exp.map_or(now, |exp| now.min(exp.saturating_sub(1)));
        Times { claims, grants: 0 }
    }

    fn reach<T>(
        &self,
        snapshot: &Snapshot,
        times: Times,
        decide: impl FnOnce(&AccessRequest<'_>) -> T,
    ) -> Result<T, Reason> {
        let held = self.held(snapshot, times.claims);
        let nobody = Caller::User { bound_by: &[] };
        let (groups, caller) = match &held {
            Ok(Asker::User(held)) => (Ok(&*held.groups), Caller::User { bound_by: held.binding() }),
            Ok(Asker::Service(account)) => {
                (Ok(&*account.groups), Caller::Service { networks: account.networks.as_ref() })
            }
            Err(reason) => (Err(*reason), nobody),
        };
        let sample = Sample {
            tenants: &self.tenant,
            action: self.action,
            groups,
            caller,
            client_ip: self.client_ip.ok_or(Reason::IpMissing),
            now: times.grants,
        };
        sample.reach(snapshot, decide)
    }

    fn held<'s>(&self, snapshot: &'s Snapshot, now: u64) -> Result<Asker<'s>, Reason> {
        match &self.who {
            Who::Groups(names) => {
                let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                // A service account has no other group; which names go together is checked where they are read.
                if let [name] = &names[..]
                    && let Some(account) = snapshot.service_account(name)
                {
                    return if now < account.revoked_until {
                        Err(Reason::TokenRevoked)
                    } else {
                        Ok(Asker::Service(account))
                    };
                }
                snapshot
                    .groups
                    .of_names(&names)
                    .map(|(_, held)| Asker::User(held))
                    .map_err(|_| Reason::TokenIssuer)
            }
            Who::Claims(claims) => {
                let (issuer, identity) = identity(snapshot, claims.to_string().as_bytes(), now)?;
                if now < snapshot.revoked.principal_until(issuer, &identity) {
                    return Err(Reason::TokenRevoked);
                }
                let raw = identity.groups.iter().map(|group| &**group);
                Ok(Asker::User(snapshot.groups.held_by_user(issuer, raw)))
            }
        }
    }

    /// What was expected, what came, and which rule decided.
    fn complaint(&self, snapshot: &Snapshot, now: u64) -> String {
        let found = self.reach(snapshot, Times::of_clock(now), |request| {
            let decision = decide(snapshot, request);
            let denied = matches!(decision.reason(), Reason::TenantForbidden | Reason::ScopeForbidden);
            (decision, denied.then(|| nearest_grant(snapshot, request)).flatten())
        });
        let (decision, near) = found.unwrap_or_else(|reason| (Decision::denied(reason), None));
        let mut text = format!(
            "the test `{}` expects {}, but the decision is {} ({})",
            self.name,
            self.expected,
            decision.effect(),
            decision.reason()
        );
        let rule = |number: u32| usize::try_from(number).ok();
        // A test of an owner, or of a document of its own, also meets rules of other documents.
        let file = |owner| snapshot.file_of(owner);
        // Writing to a string does not fail.
        if let Some(grant) = decision.grant.and_then(rule).and_then(|at| snapshot.grants.get(at)) {
            _ = write!(text, " by the grant `{}` in {}:{}", grant.name, file(grant.owner), grant.line);
        }
        if let Some(restriction) =
            decision.restriction.and_then(rule).and_then(|at| snapshot.restrictions.get(at))
        {
            _ = write!(
                text,
                " by the restriction `{}` in {}:{}",
                restriction.name,
                file(restriction.owner),
                restriction.line
            );
        }
        if let Some((grant, why)) = near {
            _ = write!(text, ": the grant `{}` in {}:{} {why}", grant.name, file(grant.owner), grant.line);
        }
        text
    }

    fn help(&self, snapshot: &Snapshot) -> String {
        if let Who::Groups(names) = &self.who {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            if let Err(mixed) = snapshot.groups.of_names(&names) {
                return format!("{mixed}");
            }
            let known = |name: &str| {
                snapshot.groups.id(name).is_some()
                    || snapshot.groups.stands_for_any(name)
                    || snapshot.service_account(name).is_some()
            };
            let unknown = names.iter().find(|name| !known(name));
            if let Some(unknown) = unknown {
                return format!("the policy does not know the group `{unknown}`: check its name");
            }
        }
        "correct the rules or the test; `tenantauth explain` shows every rule that took part".to_owned()
    }
}

/// The first grant that names one of the tenants and a group of the principal, and why it does not allow.
fn nearest_grant<'s>(
    snapshot: &'s Snapshot,
    request: &AccessRequest<'_>,
) -> Option<(&'s Grant, &'static str)> {
    request.tenants.iter().find_map(|tenant| {
        let mut rules = Vec::new();
        snapshot.grant_index.each_rule(tenant, request.groups, &mut |rule| rules.push(rule));
        rules.sort_unstable();
        rules.into_iter().find_map(|rule| {
            let grant = snapshot.grants.get(usize::try_from(rule).ok()?)?;
            let why = if grant.has_expired(request.now) {
                "has expired"
            } else if !grant.scopes.contains(request.scope) {
                "is for other scopes"
            } else {
                return None;
            };
            let is_meant = !grant.excepts(tenant) && snapshot.is_in_bounds(grant.owner, tenant);
            is_meant.then_some((grant, why))
        })
    })
}

/// About how many bytes the claims are long.
fn size_of_json(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::Array(items) => items.iter().map(size_of_json).sum::<usize>() + 2,
        serde_json::Value::Object(members) => {
            members.iter().map(|(name, value)| name.len() + 4 + size_of_json(value)).sum::<usize>() + 2
        }
        serde_json::Value::String(text) => text.len() + 2,
        _ => 8,
    }
}

/// Who asks, in one snapshot.
enum Asker<'s> {
    User(Held),
    Service(&'s ServiceAccount),
}

/// When a request is decided.
#[derive(Clone, Copy)]
struct Times {
    /// Unix seconds, for the times in claims.
    claims: u64,
    /// Unix seconds, for the ends of grants.
    grants: u64,
}

impl Times {
    const fn of_clock(now: u64) -> Self {
        Self { claims: now, grants: now }
    }
}
