//! The request of an audit record, by the policy of today.

use super::super::policy::Policy;
use super::question::Question;
use super::report::{Explanation, Known, Past, Who};
use crate::decision::Caller;
use crate::engine::unix_now;
use crate::policy::snapshot::SERVICE;
use crate::reason::Reason;
use crate::replay::log::LogError;
use crate::replay::record::Record;
use crate::replay::{Recorded, Replayer, Review};
use crate::scope::Scope;
use std::path::Path;

/// Explains the request of one record.
///
/// `path`: what the policy was asked for by. `log`: the file, `-` for stdin. `id`: the record's `request_id`. `now`:
/// Unix seconds in place of the record's own time.
///
/// # Errors
/// Why there is no such record, or none that can be decided.
pub(super) fn explain(
    path: &Path,
    policy: &Policy,
    log: &Path,
    id: &str,
    now: Option<u64>,
) -> Result<Explanation, LogError> {
    let snapshot = &policy.compiled.snapshot;
    let mut replayer = Replayer::of(snapshot, now);
    let (line, text) = replayer.find(log, id)?;
    let corrupt = |why: String| LogError::Corrupt { file: log.display().to_string(), line, why };
    let record = Record::parse(&text).map_err(|error| corrupt(error.to_string()))?;
    let review = replayer.review(&record, line).map_err(|why| corrupt(why.0))?;
    let Review { recorded, outcome, depends_on, decision, case, line } = review;
    let tenants = recorded.tenants.as_deref().unwrap_or_default().join("|");
    let scope = recorded.scope.as_deref().and_then(Scope::from_name);
    let (method, raw_path) = (recorded.method.clone(), recorded.path.clone());
    let who = who(&recorded);
    let mut explanation = match &case {
        Some(case) => {
            let sample = case.sample();
            let question = Question {
                tenants: sample.tenants,
                method,
                path: raw_path,
                action: sample.action,
                who,
                groups: sample.groups,
                caller: sample.caller,
                account: case.account,
                client_ip: sample.client_ip,
                now: sample.now,
            };
            question.explain(path, policy, decision)
        }
        // Nothing of the policy was asked: what was recorded is all there is.
        None => {
            let reason = recorded.reason.as_deref().and_then(Reason::from_name);
            let question = Question {
                tenants: &tenants,
                method,
                path: raw_path,
                action: Err(reason.unwrap_or(Reason::InternalError)),
                who,
                groups: Ok(&[]),
                caller: Caller::User { bound_by: &[] },
                account: None,
                client_ip: Err(Reason::IpMissing),
                now: now.or(record.unix_time()).unwrap_or_else(unix_now),
            };
            let mut explanation = question.explain(path, policy, decision);
            explanation.request.scope = scope.map(Scope::name);
            explanation.request.refused = None;
            explanation.request.client_ip.clone_from(&recorded.client_ip);
            explanation.tenants.refused = None;
            explanation
        }
    };
    let as_recorded = (outcome == "before_rules" || outcome == "undecided") && decision.is_none();
    if as_recorded || outcome == "unknown" {
        explanation.applied.forget(if as_recorded { "not_decided" } else { "unknown" });
    }
    explanation.recorded = Some(Past { line, outcome, depends_on, record: recorded });
    Ok(explanation)
}

/// Whom the record names: its groups are those that the policy of its time named.
fn who(recorded: &Recorded) -> Who {
    let groups = recorded.groups.clone().unwrap_or_default();
    let known = recorded.issuer.clone().map(|issuer| Known {
        issuer,
        subject: recorded.subject.clone(),
        object_id: None,
        user: recorded.user.clone(),
        token_id: None,
    });
    let groups = match (&known, groups.is_empty()) {
        (Some(Known { issuer, subject: Some(name), .. }), true) if issuer == SERVICE => {
            vec![format!("{SERVICE}:{name}")]
        }
        _ => groups,
    };
    // A record has an issuer once the token's signature was verified.
    Who { verified: known.is_some(), known, groups, ..Who::of("audit") }
}
