//! `tenantauth explain`: one request decided as nginx would, with every rule that took part.

mod principal;
mod render;
mod report;

use super::check::Entry;
use super::policy::{LastGood, Policy, Secrets};
use super::{Answer, Failure, Format, Status, backend_parser, json, timestamp};
use crate::client_ip::ClientIp;
use crate::decision::{Decision, Trace, explain};
use crate::engine::unix_now;
use crate::policy::Compiled;
use crate::policy::sample::{Action, Sample, is_method, tenants};
use crate::policy::snapshot::Snapshot;
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args};
use principal::Principal;
use report::{AccountSeen, Applied, Asked, Explanation, RuleName, Shadow, TenantRules, Tenants};
use std::path::PathBuf;

/// Decides one request and shows every grant and restriction that took part.
///
/// The checks are those that nginx makes, in its order: tenant header, path, tenants, token, grants, client address.
/// Nothing is sent anywhere; only with --token, the keys of the issuer it claims are fetched where the policy says so.
///
/// The decision is the one that nginx applies: under `mode: shadow` every request is let through until `shadow_until`
/// (as --now counts), and `shadow` says what would have become of it.
///
/// Exit status 0 on allow, 2 on deny, 3 where the policy is invalid, 1 where the policy or the token cannot be read.
/// Where only an owner's document is invalid the decision is shown all the same, as it is without a last good version,
/// and the exit status is 3; with --state-dir it is the decision of nginx, and so is the exit status.
#[derive(Args)]
#[command(group = ArgGroup::new("who").required(true).args(["token", "claims", "groups"]))]
#[command(group = ArgGroup::new("what").required(true).args(["scope", "path"]))]
pub(super) struct Explain {
    /// The policy: a file, or a directory that holds a `policy.yaml`.
    #[arg(long)]
    policy: PathBuf,
    /// A file with the token as its header carries it, or `-` for stdin. Verified with the policy's keys. A service
    /// token too, alone or as `Authorization` carries it (`Bearer ...`, `Basic ...`).
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// A file with a token's claims as JSON, or `-` for stdin. Not verified; `iss`, `aud`, `exp`, `sub` and `oid` may
    /// be left out.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// A principal of these groups, as the policy names them; comma-separated or repeated, empty for none. Alone,
    /// `service:NAME` is that service account.
    #[arg(long, value_name = "GROUPS")]
    groups: Option<Vec<String>>,
    /// The value of X-Scope-OrgID: one tenant, or several separated by `|`.
    #[arg(long)]
    tenant: String,
    /// The client's address; a service account's TCP peer. Without it the address is not known, which fails every
    /// restriction that applies.
    #[arg(long, value_name = "IP", value_parser = parse_client_ip)]
    client_ip: Option<ClientIp>,
    /// What the request does. Without --backend it goes to its signal's backend; rules and alerts then count as for
    /// any backend, so that restrictions for each of them apply.
    #[arg(long, value_parser = scope_parser())]
    scope: Option<Scope>,
    /// The backends that the nginx server is for; comma-separated or repeated. Without it all four, as in nginx.
    #[arg(long, value_name = "BACKEND", value_delimiter = ',', value_parser = backend_parser())]
    backend: Vec<Backend>,
    /// The method of the request [default: GET]
    #[arg(long, conflicts_with = "scope", value_parser = parse_method)]
    method: Option<String>,
    /// The path of the request, undecoded as on the wire; a query may follow.
    #[arg(long, value_name = "/RAW/PATH")]
    path: Option<String>,
    /// The time of the request, as in RFC 3339. Without it the clock.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    now: Option<u64>,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    last_good: LastGood,
}

fn scope_parser() -> impl TypedValueParser<Value = Scope> {
    PossibleValuesParser::new(Scope::ALL.map(Scope::name))
        .try_map(|name| Scope::from_name(&name).ok_or("unknown scope"))
}

fn parse_client_ip(text: &str) -> Result<ClientIp, &'static str> {
    ClientIp::parse(text.as_bytes()).map_err(|_| "no address: one IPv4 or IPv6 address without port or zone")
}

fn parse_method(text: &str) -> Result<String, &'static str> {
    if is_method(text) { Ok(text.to_owned()) } else { Err("a method is written in capitals") }
}

pub(super) fn parse_time(text: &str) -> Result<u64, &'static str> {
    let time: jiff::Timestamp = text.parse().map_err(|_| "write it as in RFC 3339: 2027-01-31T00:00:00Z")?;
    u64::try_from(time.as_second()).map_err(|_| "a time before 1970")
}

impl Explain {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let now = self.now.unwrap_or_else(unix_now);
        let mut policy = match self.secrets.in_force(&self.policy, &self.last_good, now, format) {
            Ok(policy) => policy,
            Err(answer) => return Ok(answer),
        };
        let action = self.action()?;
        let token = self.token.as_deref().map(principal::read).transpose()?;
        let mut err = String::new();
        if let Some(Err(failure)) =
            token.as_deref().map(|header| principal::fetch_keys(&mut policy.compiled, header))
        {
            err = Answer::failed(&failure).err;
        }
        let principal = self.principal(&policy.compiled, token.as_deref(), now)?;
        let explanation = self.judge(&policy, action, &principal, now);
        answer(&explanation, &policy, err, format)
    }

    fn principal<'c>(
        &self,
        compiled: &'c Compiled,
        token: Option<&[u8]>,
        now: u64,
    ) -> Result<Principal<'c>, Failure> {
        match (token, &self.claims, &self.groups) {
            (Some(header), _, _) => Ok(Principal::of_token(compiled, header, now)),
            (_, Some(file), _) => Principal::of_claims(compiled, &principal::read(file)?, now),
            (_, _, groups) => Principal::of_groups(compiled, groups.as_deref().unwrap_or_default()),
        }
    }

    /// The action, or why no route has it. A scope that the named backends have no route for is a wrong question.
    fn action(&self) -> Result<Result<Action, Reason>, Failure> {
        let named: BackendSet = self.backend.iter().copied().collect();
        let Some(scope) = self.scope else {
            let path = self.path.as_deref().unwrap_or_default();
            return Ok(Action::of_request(named, self.method(), path));
        };
        let action = Action::of_scope(scope, named);
        action.map(Ok).ok_or_else(|| {
            let names: Vec<_> = named.iter().map(Backend::name).collect();
            Failure(format!("no route of {} needs the scope `{scope}`", names.join(", ")))
        })
    }

    fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("GET")
    }

    /// Every stage is looked at, so that each can be shown; the first that denies is the reason, as in nginx.
    fn judge(
        &self,
        policy: &Policy,
        action: Result<Action, Reason>,
        principal: &Principal<'_>,
        now: u64,
    ) -> Explanation {
        let snapshot = &policy.compiled.snapshot;
        let tenants = tenants(&self.tenant, action.ok().map(|action| action.scope));
        let sample = Sample {
            tenants: &self.tenant,
            action,
            groups: principal.refused.map_or(Ok(principal.groups()), Err),
            caller: principal.caller(),
            client_ip: self.client_ip.ok_or(Reason::IpMissing),
            now,
        };
        let trace = sample
            .reach(snapshot, |request| explain(snapshot, request))
            .unwrap_or_else(|reason| Trace { decision: Decision::denied(reason), tenants: Vec::new() });
        let found = trace.decision;
        let shadow_until = snapshot.shadow_until.filter(|_| snapshot.is_shadow(now));
        let restriction = found.restriction.and_then(|rule| restriction_name(snapshot, rule));
        let answer = (!found.is_allow()).then(|| found.reason().sentence());
        let grant = found.grant.and_then(|grant| grant_name(snapshot, grant));
        // What is applied, and what would have been, in the terms of an audit record.
        let applied = match shadow_until {
            Some(until) => Applied {
                decision: "allow",
                reason: Reason::Granted.name(),
                mode: "shadow",
                shadow_until: Some(timestamp(until)),
                answer: None,
                grant,
                restriction: None,
                shadow: Some(Shadow {
                    decision: found.effect(),
                    reason: found.reason().name(),
                    restriction,
                    answer,
                }),
            },
            None => Applied {
                decision: found.effect(),
                reason: found.reason().name(),
                mode: "enforce",
                shadow_until: None,
                answer,
                grant,
                restriction,
                shadow: found.shadow.map(|shadow| Shadow {
                    decision: "deny",
                    reason: shadow.reason.name(),
                    restriction: restriction_name(snapshot, shadow.restriction),
                    answer: None,
                }),
            },
        };
        Explanation {
            applied,
            diagnostics: policy.refused().map(Entry::of).collect(),
            owners: policy.owners_behind(),
            policy_source: policy.source(),
            policy: self.policy.display().to_string(),
            revision: snapshot.revision.to_string(),
            time: timestamp(now),
            principal: principal.shown.clone(),
            service_account: principal
                .account()
                .map(|account| AccountSeen::of(account, snapshot, self.client_ip)),
            request: Asked {
                method: self.path.is_some().then(|| self.method().to_owned()),
                path: self.path.clone(),
                scope: action.ok().map(|action| action.scope.name()),
                backends: action.ok().map(|action| action.backends.iter().map(Backend::name).collect()),
                refused: action.err().map(Reason::name),
                client_ip: self.client_ip.map(|address| address.to_string()),
            },
            tenants: Tenants {
                header: self.tenant.clone(),
                refused: tenants.as_ref().err().map(|reason| reason.name()),
                rules: trace
                    .tenants
                    .iter()
                    .map(|found| TenantRules::of(found, snapshot, self.client_ip, now))
                    .collect(),
            },
        }
    }
}

/// `err`: what stands before the policy's own problems on stderr.
fn answer(
    explanation: &Explanation,
    policy: &Policy,
    err: String,
    format: Format,
) -> Result<Answer, Failure> {
    let status = match (policy.is_in_force(), explanation.allowed()) {
        (false, _) => Status::Invalid,
        (true, true) => Status::Ok,
        (true, false) => Status::Denied,
    };
    let out = match format {
        Format::Json => json(explanation)?,
        Format::Human => render::human(explanation),
    };
    Ok(Answer { status, out, err: err + &policy.problems() })
}

fn grant_name(snapshot: &Snapshot, number: u32) -> Option<RuleName> {
    let grant = snapshot.grants.get(usize::try_from(number).ok()?)?;
    Some(RuleName::of(&grant.name, grant.owner, grant.line, snapshot))
}

fn restriction_name(snapshot: &Snapshot, number: u32) -> Option<RuleName> {
    let restriction = snapshot.restrictions.get(usize::try_from(number).ok()?)?;
    Some(RuleName::of(&restriction.name, restriction.owner, restriction.line, snapshot))
}
