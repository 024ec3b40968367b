//! Groups, grants and restrictions.

use super::networks::network_entry;
use super::{
    GrantEntry, RestrictedScopes, RestrictionEntry, boxed, plain_text, read_name, refuse_empty, required,
};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::groups::is_of_account;
use crate::policy::node::{Node, Value};
use crate::policy::reader::{At, Fields};
use crate::scope::{Backend, BackendSet, Scope, ScopeSet};
use crate::tenant::TenantPattern;

pub(super) fn read_group_names(
    fields: &Fields<'_>,
    problems: &mut Problems,
) -> Vec<(At<Box<str>>, Vec<At<Box<str>>>)> {
    let Some(node) = fields.get("group_names") else { return Vec::new() };
    let path = Path::Root.key("group_names");
    let mut names = Vec::new();
    for (key, value) in problems.entries(node, &path) {
        let path = path.key(&key.name);
        if key.name.is_empty() || &*key.name == "*" || key.name.starts_with("service:") {
            problems
                .error(key.place, &path, format!("`{}` cannot name a group", key.name))
                .help("`*` and `service:` have a meaning of their own: choose another name");
            continue;
        }
        let is_list = matches!(value.value, Value::List(_));
        let members = match &value.value {
            Value::List(_) => {
                refuse_empty(value, &path, problems);
                problems.list_of(value, &path, plain_text)
            }
            _ => problems.text(value, &path).map(boxed).into_iter().collect(),
        };
        for member in &members {
            if &*member.value == "*" || member.value.starts_with("service:") {
                let item = if is_list { path.item(member.number) } else { path };
                problems
                    .error(
                        member.place,
                        &item,
                        format!("`{}` is no group that an issuer gives", member.value),
                    )
                    .help("list the issuer's own groups");
            }
        }
        names.push((At::new(key.name.clone(), key.place), members));
    }
    names
}

pub(super) fn read_authorizations(fields: &Fields<'_>, problems: &mut Problems) -> Vec<GrantEntry> {
    let Some(node) = fields.get("authorizations") else { return Vec::new() };
    let path = Path::Root.key("authorizations");
    let mut grants = Vec::new();
    for (key, value) in problems.entries(node, &path) {
        let path = path.key(&key.name);
        let group = At::new(key.name.clone(), key.place);
        if group.value.is_empty() {
            problems
                .error(key.place, &path, "expected a group, found an empty string")
                .help("name the group, or remove the line");
        }
        grants.push(GrantEntry {
            place: key.place,
            path: path.to_string().into(),
            name: None,
            groups: vec![group],
            tenants: problems.list_of(value, &path, tenant_pattern),
            except_tenants: Vec::new(),
            scopes: ScopeSet::reads(),
            scopes_place: None,
            expires: None,
        });
    }
    grants
}

/// The keys of a grant.
pub(in crate::policy) const GRANT: [&str; 6] =
    ["name", "groups", "tenants", "except_tenants", "scopes", "expires"];

pub(super) fn read_grants(fields: &Fields<'_>, problems: &mut Problems) -> Vec<GrantEntry> {
    let Some(node) = fields.get("grants") else { return Vec::new() };
    let list = Path::Root.key("grants");
    let items = problems.items(node, &list);
    let mut grants = Vec::with_capacity(items.len());
    for (number, item) in items.iter().enumerate() {
        let path = list.item(number);
        let Some(fields) = problems.fields(item, &path, &GRANT) else { continue };
        let name = read_name(&fields, &path, problems);
        let groups = read_groups(required(&fields, "groups", &path, problems), &path.key("groups"), problems);
        let tenants =
            read_tenants(required(&fields, "tenants", &path, problems), &path.key("tenants"), problems);
        let scopes = read_scopes(fields.get("scopes"), &path.key("scopes"), problems);
        let expires = fields.get("expires").and_then(|node| read_time(node, &path.key("expires"), problems));
        grants.push(GrantEntry {
            place: item.place,
            path: path.to_string().into(),
            name,
            groups,
            tenants,
            except_tenants: read_tenants(fields.get("except_tenants"), &path.key("except_tenants"), problems),
            scopes,
            scopes_place: fields.get("scopes").map(|node| node.place),
            expires,
        });
    }
    grants
}

/// Scopes as grants write them; every `*:read` where they are not written.
pub(super) fn read_scopes(node: Option<&Node>, path: &Path<'_>, problems: &mut Problems) -> ScopeSet {
    let Some(node) = node else { return ScopeSet::reads() };
    refuse_empty(node, path, problems);
    let scopes = problems.list_of(node, path, scope_pattern);
    scopes.iter().fold(ScopeSet::EMPTY, |all, more| all.union(more.value))
}

/// A time as in RFC 3339, in Unix seconds.
pub(super) fn read_time(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Option<At<u64>> {
    if matches!(node.value, Value::Number(_)) {
        problems
            .error(node.place, path, "expected a time, found a number")
            .help("write it as in RFC 3339: `2027-01-31T00:00:00Z`");
        return None;
    }
    let text = problems.text(node, path)?;
    match text.value.parse::<jiff::Timestamp>() {
        Ok(time) => Some(At::new(u64::try_from(time.as_second()).unwrap_or(0), text.place)),
        Err(_) => {
            problems
                .error(text.place, path, format!("`{}` is no time", text.value))
                .help("write it as in RFC 3339: `2027-01-31T00:00:00Z`");
            None
        }
    }
}

/// The keys of a restriction.
pub(in crate::policy) const RESTRICTION: [&str; 8] =
    ["name", "tenants", "except_tenants", "scopes", "groups", "except_groups", "networks", "mode"];

pub(super) fn read_restrictions(fields: &Fields<'_>, problems: &mut Problems) -> Vec<RestrictionEntry> {
    let Some(node) = fields.get("restrictions") else { return Vec::new() };
    let list = Path::Root.key("restrictions");
    let mut restrictions = Vec::new();
    for (number, item) in problems.items(node, &list).iter().enumerate() {
        let path = list.item(number);
        let Some(fields) = problems.fields(item, &path, &RESTRICTION) else { continue };
        let name = read_name(&fields, &path, problems);
        let everything = || At::new(TenantPattern::everything(), item.place);
        let tenants = match fields.get("tenants") {
            Some(node) => read_tenants(Some(node), &path.key("tenants"), problems),
            None => vec![everything()],
        };
        let groups = match fields.get("groups") {
            Some(node) => read_groups(Some(node), &path.key("groups"), problems),
            None => vec![At::new("*".into(), item.place)],
        };
        let except_groups = read_groups(fields.get("except_groups"), &path.key("except_groups"), problems);
        refuse_accounts(&groups, &path.key("groups"), problems);
        refuse_accounts(&except_groups, &path.key("except_groups"), problems);
        let networks = match required(&fields, "networks", &path, problems) {
            Some(node) => {
                refuse_empty(node, &path.key("networks"), problems);
                problems.list_of(node, &path.key("networks"), network_entry)
            }
            None => Vec::new(),
        };
        let shadow = fields
            .get("mode")
            .and_then(|node| problems.word(node, &path.key("mode"), &[("enforce", false), ("shadow", true)]))
            .filter(|shadow| *shadow)
            .and_then(|_| fields.key_place("mode"));
        restrictions.push(RestrictionEntry {
            place: item.place,
            path: path.to_string().into(),
            name,
            tenants,
            except_tenants: read_tenants(fields.get("except_tenants"), &path.key("except_tenants"), problems),
            scopes: read_restricted_scopes(fields.get("scopes"), &path.key("scopes"), problems),
            groups,
            except_groups,
            networks,
            shadow,
        });
    }
    restrictions
}

/// A restriction's `X:*` is everything a request can do to that signal's backend: deleting, and rules and alerts.
pub(super) fn read_restricted_scopes(
    node: Option<&Node>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> RestrictedScopes {
    let Some(node) = node else {
        let (scopes, within) = (ScopeSet::all(), ScopeSet::all());
        return RestrictedScopes { scopes, rules_of: BackendSet::ALL, within };
    };
    refuse_empty(node, path, problems);
    let mut bound =
        RestrictedScopes { scopes: ScopeSet::EMPTY, rules_of: BackendSet::EMPTY, within: ScopeSet::all() };
    for part in problems.list_of(node, path, |problems, text, path| {
        let scopes = scope_pattern(problems, At::new(text.value, text.place), path)?;
        Some((Box::<str>::from(text.value), scopes))
    }) {
        let (written, scopes) = part.value;
        bound.scopes = bound.scopes.union(scopes);
        match &*written {
            "logs:*" => {
                bound.scopes.insert(Scope::LogsDelete);
                bound.rules_of = bound.rules_of.union(BackendSet::of(Backend::Loki));
            }
            "metrics:*" => bound.rules_of = bound.rules_of.union(BackendSet::of(Backend::Mimir)),
            "*:*" => bound.scopes = ScopeSet::all(),
            _ => {}
        }
    }
    bound
}

pub(super) fn read_groups(
    node: Option<&Node>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Vec<At<Box<str>>> {
    let Some(node) = node else { return Vec::new() };
    refuse_empty(node, path, problems);
    let groups = problems.list_of(node, path, plain_text);
    for group in &groups {
        let path = path.item(group.number);
        if &*group.value == "*" && groups.len() > 1 {
            problems
                .error(group.place, &path, "`*` stands alone: it is every verified user")
                .help("write `groups: [\"*\"]`, or name groups");
        }
    }
    groups
}

/// Restrictions bind users alone, so that a service account in one would be a rule that does nothing.
fn refuse_accounts(groups: &[At<Box<str>>], path: &Path<'_>, problems: &mut Problems) {
    for group in groups.iter().filter(|group| is_of_account(&group.value)) {
        problems
            .error(
                group.place,
                &path.item(group.number),
                format!("`{}` is a service account, and restrictions bind users", group.value),
            )
            .help("write `networks` at the service account");
    }
}

pub(super) fn read_tenants(
    node: Option<&Node>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Vec<At<TenantPattern>> {
    let Some(node) = node else { return Vec::new() };
    refuse_empty(node, path, problems);
    problems.list_of(node, path, tenant_pattern)
}

pub(super) fn tenant_pattern(
    problems: &mut Problems,
    text: At<&str>,
    path: &Path<'_>,
) -> Option<TenantPattern> {
    TenantPattern::parse(text.value)
        .map_err(|error| {
            problems
                .error(text.place, path, format!("`{}` {error}", text.value))
                .help("1 to 150 of A-Z a-z 0-9 ! - _ . ' ( ), and `*` for any run of characters");
        })
        .ok()
}

pub(super) fn scope_pattern(problems: &mut Problems, text: At<&str>, path: &Path<'_>) -> Option<ScopeSet> {
    let scopes = ScopeSet::from_pattern(text.value);
    if scopes.is_none() {
        let names: Vec<_> = Scope::ALL.into_iter().map(Scope::name).collect();
        problems
            .error(text.place, path, format!("unknown scope `{}`", text.value))
            .help(format!("`X:*`, `*:read`, `*:write`, or one of {}", names.join(", ")));
    }
    scopes
}
