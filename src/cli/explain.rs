//! `tenantauth explain`: one request decided as nginx would, with every rule that took part.

mod audit;
mod principal;
mod question;
mod render;
mod report;

use super::policy::{LastGood, Policy, Secrets};
use super::{Answer, Failure, Format, Status, backend_parser, json};
use crate::client_ip::ClientIp;
use crate::engine::unix_now;
use crate::policy::Compiled;
use crate::policy::sample::{Action, is_method};
use crate::reason::Reason;
use crate::scope::{Backend, BackendSet, Scope};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args};
use principal::Principal;
use question::Question;
use report::Explanation;
use std::path::PathBuf;

/// Decides one request and shows every grant and restriction that took part.
///
/// The checks are those that nginx makes, in its order: tenant header, path, tenants, token, grants, client address.
/// Nothing is sent anywhere; only with --token, the keys of the issuer it claims are fetched where the policy says so.
///
/// With --audit it is a request that nginx decided before: the policy is that of today, the groups are those of the
/// record. Where a group decides that was not recorded, or a part that was cut, the decision is `unknown`. Token,
/// headers and path are not judged again.
///
/// The decision is the one that nginx applies: under `mode: shadow` every request is let through until `shadow_until`
/// (as --now counts), and `shadow` says what would have become of it.
///
/// Exit status 0 on allow, 2 on deny and where it is not known, 3 where the policy is invalid, 1 where the policy, the
/// token or the record cannot be read. Where only an owner's document is invalid the decision is shown all the same, as
/// it is without a last good version, and the exit status is 3; with --state-dir it is the decision of nginx, and so is
/// the exit status.
#[derive(Args)]
#[command(group = ArgGroup::new("who").required(true).args(["token", "claims", "groups", "audit"]))]
#[command(group = ArgGroup::new("what").args(["scope", "path", "audit"]))]
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
    /// An audit log, or `-` for stdin: the request of one record, decided by this policy at its own time. The log's
    /// other records say which groups it could list.
    #[arg(long, value_name = "FILE", requires = "request")]
    #[arg(conflicts_with_all = ["tenant", "client_ip", "backend", "method"])]
    audit: Option<PathBuf>,
    /// The record's request_id: the client's message and X-Request-Id have it.
    #[arg(long, value_name = "ID", requires = "audit", conflicts_with_all = ["token", "claims", "groups"])]
    request: Option<String>,
    /// The value of X-Scope-OrgID: one tenant, or several separated by `|`.
    #[arg(long, required_unless_present = "audit")]
    tenant: Option<String>,
    /// The client's address; a service account's TCP peer. Without it the address is not known, which fails every
    /// restriction that applies.
    #[arg(long, value_name = "IP", value_parser = parse_client_ip)]
    client_ip: Option<ClientIp>,
    /// What the request does. Without --backend it goes to its signal's backend; rules and alerts then count as for
    /// any backend, so that restrictions for each of them apply.
    #[arg(long, value_parser = scope_parser(), required_unless_present_any = ["path", "audit"])]
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
        if let (Some(log), Some(id)) = (&self.audit, &self.request) {
            return match audit::explain(&self.policy, &policy, log, id, self.now) {
                Ok(explanation) => answer(&explanation, &policy, String::new(), format),
                Err(error) => Ok(Failure(error.to_string()).with_help(&error.help())),
            };
        }
        let action = self.action()?;
        let token = self.token.as_deref().map(principal::read).transpose()?;
        let mut err = String::new();
        if let Some(Err(failure)) =
            token.as_deref().map(|header| principal::fetch_keys(&mut policy.compiled, header))
        {
            err = Answer::failed(&failure).err;
        }
        let principal = self.principal(&policy.compiled, token.as_deref(), now)?;
        let question = Question {
            tenants: self.tenant.as_deref().unwrap_or_default(),
            method: self.path.is_some().then(|| self.method().to_owned()),
            path: self.path.clone(),
            action,
            who: principal.shown.clone(),
            groups: principal.refused.map_or(Ok(principal.groups()), Err),
            caller: principal.caller(),
            account: principal.account(),
            client_ip: self.client_ip.ok_or(Reason::IpMissing),
            now,
        };
        let explanation = question.explain(&self.policy, &policy, None);
        answer(&explanation, &policy, err, format)
    }

    fn principal<'c>(
        &self,
        compiled: &'c Compiled,
        token: Option<&[u8]>,
        now: u64,
    ) -> Result<Principal<'c>, Failure> {
        match (token, &self.claims, &self.groups) {
            (Some(header), _, _) => {
                Ok(Principal::of_token(compiled, header, self.tenant.as_deref().unwrap_or_default(), now))
            }
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
