//! The explanation for people: what was asked, rule by rule what was found, and at the end the decision.

use super::super::{MAX_LISTED, first_few, one_line, place_of};
use super::report::{
    AccountSeen, Explanation, GrantSeen, NetworkSeen, Past, RestrictionSeen, RuleName, TenantRules, Who,
};
use crate::policy::snapshot::SERVICE;
use crate::replay::Recorded;
use crate::token::inspect::Finding;
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Grants of other groups that are listed; the JSON form has them all.
const MAX_OTHER_GRANTS: usize = 10;
/// Groups that the policy does not know which are listed; the JSON form has them all.
const MAX_UNKNOWN: usize = 20;

// Writing to a string does not fail.

pub(super) fn human(found: &Explanation) -> String {
    let mut out = String::new();
    _ = writeln!(out, "policy   {}, revision {}", found.policy, found.revision);
    _ = writeln!(out, "time     {}", found.time);
    who(&mut out, &found.principal);
    what(&mut out, found);
    let unknown = if found.recorded.is_some() { "not known" } else { "not known: no --client-ip was given" };
    _ = writeln!(out, "where    {}", found.request.client_ip.as_deref().map_or(unknown.to_owned(), one_line));
    if let Some(account) = &found.service_account {
        account_networks(&mut out, account, found);
    }
    let refused = found.tenants.refused.map_or_else(String::new, |reason| format!(": refused ({reason})"));
    _ = writeln!(out, "tenants  {}{refused}", one_line(&found.tenants.header));
    for tenant in &found.tenants.rules {
        rules(&mut out, tenant, found);
    }
    decision(&mut out, found);
    if let Some(past) = &found.recorded {
        recorded(&mut out, past);
    }
    out
}

/// What the audit log says, and how the decision of today compares with it.
fn recorded(out: &mut String, past: &Past) {
    let Recorded { decision, reason, grant, restriction, owner, time, policy_revision, .. } = &past.record;
    let own = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), one_line);
    let of = owner.as_deref().map_or_else(String::new, |owner| format!(" of {}", one_line(owner)));
    let by = match (grant, restriction) {
        (_, Some(rule)) => format!(" by the restriction {}{of}", one_line(rule)),
        (Some(rule), _) => format!(" by the grant {}{of}", one_line(rule)),
        _ => String::new(),
    };
    _ = writeln!(
        out,
        "\nrecorded: {} ({}){by}\n  line {}, {}, by the policy revision {}",
        own(decision),
        own(reason),
        past.line,
        own(time),
        own(policy_revision)
    );
    let outcome = match (past.outcome, past.depends_on) {
        ("same", _) => "the policy of today decides alike",
        ("other_reason", _) => "the policy of today denies it as well, for another reason",
        ("gained", _) => "the policy of today allows what was denied",
        ("lost", _) => "the policy of today denies what was allowed",
        (_, Some("revocation")) => {
            "not known: it was denied as revoked, and whether that id or token is still revoked was not recorded"
        }
        (_, Some("truncated")) => "not known: what decides was cut from the record",
        (_, Some(_)) => "not known: a group decides that was not recorded; `explain --token` has all groups",
        ("before_rules", _) => {
            "it was denied before any rule was asked: headers, path or token, which are not judged again"
        }
        _ => "it was not decided: nginx refused it, or there was no policy",
    };
    _ = writeln!(out, "  {outcome}");
}

fn who(out: &mut String, who: &Who) {
    let is_service = who.known.as_ref().is_some_and(|known| known.issuer == SERVICE);
    let proof = match (who.source, who.verified) {
        ("token", true) if is_service => "a service token",
        ("groups", _) if is_service => "a service account, without its token",
        ("token", true) => "a verified token",
        ("token", false) => "a token",
        ("audit", true) => "as the audit log recorded, of a verified token",
        ("audit", false) => "as the audit log recorded, without a verified token",
        ("claims", _) => "claims, NOT VERIFIED",
        _ => "groups as given, without a token",
    };
    _ = write!(out, "who      {proof}");
    if let Some(reason) = who.refused {
        _ = write!(out, ": refused ({reason})");
    }
    out.push('\n');
    if who.source == "token" && !who.verified && !who.findings.is_empty() {
        out.push_str("         NOT VERIFIED; what it claims:\n");
    }
    for finding in &who.findings {
        _ = writeln!(out, "         {}", mismatch(finding));
    }
    if who.known.is_none() && who.refused.is_some() {
        return;
    }
    if let Some(known) = &who.known {
        for (label, value) in [
            ("issuer", Some(&known.issuer)),
            ("subject", known.subject.as_ref()),
            ("object id", known.object_id.as_ref()),
            ("user", known.user.as_ref()),
            ("token id", known.token_id.as_ref()),
        ] {
            if let Some(value) = value {
                _ = writeln!(out, "         {label}: {}", one_line(value));
            }
        }
    }
    _ = writeln!(out, "         groups known to the policy: {}", everything(&who.groups));
    if !who.unknown_groups.is_empty() {
        _ = writeln!(
            out,
            "         groups the policy does not know: {}",
            first_few(&who.unknown_groups, MAX_UNKNOWN)
        );
    }
    if !who.revoked_groups.is_empty() {
        _ = writeln!(out, "         groups the policy revokes: {}", everything(&who.revoked_groups));
    }
}

/// What a refused token says and what was expected, on one line.
fn mismatch(finding: &Finding) -> String {
    let list = |values: &[Value]| values.iter().map(value).collect::<Vec<_>>().join(", ");
    let member = |name: &str| finding.expected.get(name);
    let expected = match (member("one_of"), member("absent"), member("after"), member("not_after")) {
        (Some(Value::Array(values)), ..) => match values.as_slice() {
            [] => "nothing: the policy knows none".to_owned(),
            [only] => value(only),
            several => format!("one of {}", list(several)),
        },
        (_, Some(_), ..) => "none".to_owned(),
        (.., Some(time), _) => format!("later than {}", plain(time)),
        (.., Some(time)) => format!("not later than {}", plain(time)),
        _ => value(&finding.expected),
    };
    one_line(&format!("{}: found {}, expected {expected}", finding.name, value(&finding.found)))
}

/// A value of a token, or its type where it is not repeated.
fn value(found: &Value) -> String {
    let details = |object: &Map<String, Value>| {
        let what = object.get("type").map(plain).unwrap_or_default();
        let rest = object.iter().filter(|(key, _)| *key != "type");
        let rest: Vec<_> =
            rest.map(|(key, value)| format!("{} {}", key.replace('_', " "), plain(value))).collect();
        match (&*what, rest.is_empty()) {
            (_, true) => what,
            ("", _) => rest.join(", "),
            _ => format!("{what} ({})", rest.join(", ")),
        }
    };
    match found {
        Value::Null => "none".to_owned(),
        Value::Array(values) => format!("[{}]", values.iter().map(value).collect::<Vec<_>>().join(", ")),
        Value::Object(object) => details(object),
        text => text.to_string(),
    }
}

/// A text without quotes, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn account_networks(out: &mut String, account: &AccountSeen, found: &Explanation) {
    let Some(networks) = &account.networks else {
        out.push_str("         the service account may come from anywhere\n");
        return;
    };
    let networks = networks.iter().map(network).collect::<Vec<_>>().join(", ");
    let peer = found.request.client_ip.as_deref().unwrap_or("an unknown address");
    let outcome = if account.outcome == "satisfied" { "satisfied" } else { "VIOLATED" };
    _ = writeln!(out, "         the service account must connect from {networks}: {outcome} by {peer}");
}

fn what(out: &mut String, found: &Explanation) {
    let asked = &found.request;
    out.push_str("what     ");
    if let (Some(method), Some(path)) = (&asked.method, &asked.path) {
        _ = write!(out, "{method} {}: ", one_line(path));
    }
    match (asked.scope, &asked.backends) {
        (Some(scope), Some(backends)) => _ = writeln!(out, "{scope} on {}", backends.join(", ")),
        (Some(scope), None) => _ = writeln!(out, "{scope}"),
        _ => match asked.refused {
            Some(reason) => _ = writeln!(out, "refused ({reason})"),
            None => out.push_str("not known\n"),
        },
    }
}

fn rules(out: &mut String, found: &TenantRules, explanation: &Explanation) {
    _ = writeln!(out, "\ntenant {}", found.tenant);
    let (others, own): (Vec<&GrantSeen>, Vec<&GrantSeen>) =
        found.grants.iter().partition(|grant| grant.outcome == "other_groups");
    if found.grants.is_empty() {
        out.push_str("  no grant names this tenant\n");
    } else {
        out.push_str("  grants that name it\n");
    }
    for grant in own.into_iter().chain(others.iter().copied().take(MAX_OTHER_GRANTS)) {
        _ = writeln!(
            out,
            "    {} ({}): {}",
            one_line(&grant.name),
            place_of(grant.owner.as_deref(), &grant.file, grant.line),
            grant_outcome(grant, explanation)
        );
    }
    if let Some(more @ 1..) = others.len().checked_sub(MAX_OTHER_GRANTS) {
        _ = writeln!(out, "    and {more} more for other groups");
    }
    if found.restrictions.is_empty() {
        out.push_str("  no restriction applies\n");
    } else {
        out.push_str("  restrictions that apply\n");
    }
    for restriction in &found.restrictions {
        let outcome = restriction_outcome(restriction, explanation);
        let shadow = if restriction.shadow { " [shadow: recorded, denies nothing]" } else { "" };
        let place = place_of(restriction.owner.as_deref(), &restriction.file, restriction.line);
        _ = writeln!(out, "    {} ({place}): {outcome}{shadow}", one_line(&restriction.name));
    }
}

fn grant_outcome(grant: &GrantSeen, explanation: &Explanation) -> String {
    let expired = match &grant.expires {
        Some(time) if grant.has_expired => format!("expired {time}"),
        _ => String::new(),
    };
    match grant.outcome {
        "allows" => {
            let until = grant.expires.as_ref().map_or_else(String::new, |time| format!(" until {time}"));
            format!("allows{until}")
        }
        "expired" => expired,
        "other_scope" => {
            let scope = explanation.request.scope.unwrap_or_default();
            // An expired grant does not count as one for another scope: the reason is then `tenant_forbidden`.
            let also = if expired.is_empty() { String::new() } else { format!(", and has {expired}") };
            format!("does not cover {scope}, only {}{also}", grant.scopes.join(", "))
        }
        _ => format!("is for other groups: {}", list(&grant.groups)),
    }
}

fn restriction_outcome(restriction: &RestrictionSeen, explanation: &Explanation) -> String {
    let networks: Vec<String> = restriction.networks.iter().map(network).collect();
    let networks = networks.join(", ");
    match (restriction.outcome, &explanation.request.client_ip) {
        ("satisfied", Some(client)) => {
            let inside = restriction.networks.iter().find(|network| network.contains_client);
            format!("satisfied, {client} is in {}", inside.map_or_else(String::new, network))
        }
        ("excepted", _) => {
            let holds = |group: &&String| explanation.principal.groups.contains(group);
            let held: Vec<String> = restriction.except_groups.iter().filter(holds).cloned().collect();
            format!("not for members of {}", list(&held))
        }
        (_, Some(client)) => format!("VIOLATED, {client} is in none of {networks}"),
        (_, None) => format!("VIOLATED, the client address is not known and must be in {networks}"),
    }
}

/// A network by its name, with what the name stands for.
fn network(network: &NetworkSeen) -> String {
    match network.networks.as_slice() {
        [only] if *only == network.name => only.clone(),
        all => format!("{} ({})", one_line(&network.name), all.join(" ")),
    }
}

fn decision(out: &mut String, Explanation { applied: found, .. }: &Explanation) {
    match found.reason {
        Some(reason) => _ = writeln!(out, "\ndecision: {} ({reason})", found.decision),
        None => _ = writeln!(out, "\ndecision: {}", found.decision.replace('_', " ")),
    }
    let rule = |rule: &RuleName| {
        format!("{} ({})", one_line(&rule.name), place_of(rule.owner.as_deref(), &rule.file, rule.line))
    };
    if let Some(grant) = &found.grant {
        _ = writeln!(out, "  by grant {}", rule(grant));
    }
    if let Some(restriction) = &found.restriction {
        _ = writeln!(out, "  by restriction {}", rule(restriction));
    }
    if let Some(answer) = found.answer {
        _ = writeln!(out, "  the client is told: {answer}");
    }
    if let Some(until) = &found.shadow_until {
        _ = writeln!(out, "  mode shadow: denials are recorded and not applied until {until}");
    }
    if let Some(shadow) = &found.shadow {
        let by = shadow.restriction.as_ref().map(|name| format!(" by restriction {}", rule(name)));
        let by = by.unwrap_or_default();
        _ = writeln!(out, "  shadow: would {} ({}){by}", shadow.decision, shadow.reason);
        if let Some(answer) = shadow.answer {
            _ = writeln!(out, "  the client would be told: {answer}");
        }
    }
}

/// All of what a principal holds: the one group that is missing is what is looked for.
fn everything(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.iter().map(|name| one_line(name)).collect::<Vec<_>>().join(", ")
    }
}

/// The first few names of a rule.
fn list(names: &[String]) -> String {
    first_few(names, MAX_LISTED)
}
