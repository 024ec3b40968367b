//! What a policy says that is probably not meant. None of it refuses the policy.

use super::diagnostic::{Path, Problems, WarningKind};
use super::document::{Document, GrantEntry};
use super::snapshot::{EVERYONE, Grant, GroupId, Snapshot};
use crate::scope::Scope;
use crate::tenant::TenantPattern;
use std::collections::{HashMap, HashSet};

/// A grant that ends within this many seconds is told: two weeks, time enough to ask whether it is still needed.
const SOON: u64 = 14 * 86_400;

/// Comparisons of grants after which no further duplicates are looked for, so that a policy of any size loads in time.
const MAX_COMPARISONS: usize = 2_000_000;

/// From this many groups on the policy shows what the issuer's groups look like.
const MIN_GUIDS: usize = 3;

/// Tells what is odd about a policy that has no error. `now`: Unix seconds.
pub(super) fn lint(document: &Document, snapshot: &Snapshot, now: u64, problems: &mut Problems) {
    for (entry, grant) in document.grants.iter().zip(&snapshot.grants) {
        warn_of_end(entry, now, problems);
        warn_of_writes_everywhere(entry, grant, problems);
        warn_of_unreachable(entry, problems);
    }
    warn_of_duplicates(document, snapshot, now, problems);
    warn_of_ungranted_tenants(document, snapshot, now, problems);
    warn_of_names_among_guids(document, snapshot, problems);
}

fn warn_of_end(entry: &GrantEntry, now: u64, problems: &mut Problems) {
    let Some(expires) = &entry.expires else { return };
    if expires.value > now && expires.value - now <= SOON {
        let days = (expires.value - now).div_ceil(86_400);
        let left = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
        problems
            .warning(
                WarningKind::ExpiringGrant,
                expires.place,
                &Path::Root.key(&entry.path).key("expires"),
                format!("the grant ends within {left}"),
            )
            .help("move its end, or let it end");
    }
}

fn warn_of_writes_everywhere(entry: &GrantEntry, grant: &Grant, problems: &mut Problems) {
    let writes: Vec<_> =
        grant.scopes.iter().filter(|scope| scope.action() != "read").map(Scope::name).collect();
    let everything = entry.tenants.iter().find(|tenant| tenant.value.is_everything());
    if let (Some(everything), [first, ..]) = (everything, writes.as_slice()) {
        problems
            .warning(
                WarningKind::WritesEverywhere,
                everything.place,
                &Path::Root.key(&entry.path).key("tenants").item(everything.number),
                format!("`{first}` is granted on every tenant, those to come included"),
            )
            .help("name the tenants, or grant `*:read` alone");
    }
}

fn warn_of_unreachable(entry: &GrantEntry, problems: &mut Problems) {
    let excepted =
        |tenant: &TenantPattern| entry.except_tenants.iter().any(|except| except.value.covers(tenant));
    if entry.tenants.iter().all(|tenant| excepted(&tenant.value)) {
        let (message, help) = if entry.tenants.is_empty() {
            ("it names no tenant: it grants nothing", "name tenants, or remove it")
        } else {
            (
                "every tenant that it names is excepted as well: it grants nothing",
                "remove it, or the exception",
            )
        };
        problems
            .warning(WarningKind::UnreachableGrant, entry.place, &Path::Root.key(&entry.path), message)
            .help(help);
    }
}

/// A grant that gives nothing which another one does not give as long.
fn warn_of_duplicates(document: &Document, snapshot: &Snapshot, now: u64, problems: &mut Problems) {
    let mut by_group: HashMap<(GroupId, &TenantPattern), Vec<usize>> = HashMap::new();
    let mut patterns: HashMap<GroupId, Vec<(&TenantPattern, usize)>> = HashMap::new();
    let live = || {
        let grants = snapshot.grants.iter().enumerate();
        // What grants nothing is told as such.
        let reaches = |grant: &Grant| {
            let excepted = |tenant| grant.except_tenants.iter().any(|except| except.covers(tenant));
            !grant.tenants.iter().all(excepted)
        };
        grants.filter(move |(_, grant)| !grant.has_expired(now) && reaches(grant))
    };
    for (number, grant) in live() {
        for group in &grant.groups {
            for tenant in &grant.tenants {
                match tenant.literal() {
                    Some(_) => by_group.entry((*group, tenant)).or_default().push(number),
                    None => patterns.entry(*group).or_default().push((tenant, number)),
                }
            }
        }
    }
    let mut told: HashSet<usize> = HashSet::new();
    let mut comparisons = 0;
    for (number, grant) in live() {
        let (Some(tenant), Some(group)) = (grant.tenants.first(), grant.groups.first()) else { continue };
        let everyone = (*group != EVERYONE).then_some(EVERYONE);
        let candidates = std::iter::once(*group).chain(everyone).flat_map(|group| {
            let exact = by_group.get(&(group, tenant)).into_iter().flatten().copied();
            let wide = patterns.get(&group).into_iter().flatten();
            exact.chain(wide.filter(|(pattern, _)| pattern.covers(tenant)).map(|(_, number)| *number))
        });
        comparisons += patterns.get(group).map_or(0, Vec::len) + patterns.get(&EVERYONE).map_or(0, Vec::len);
        let mut wider = None;
        for candidate in candidates {
            comparisons += 1;
            // Of two that say the same, the second one is told.
            let first_of_two = |other: &Grant| candidate > number && gives_all_of(grant, other);
            if let Some(other) = snapshot.grants.get(candidate)
                && candidate != number
                && !told.contains(&candidate)
                && gives_all_of(other, grant)
                && !first_of_two(other)
            {
                wider = Some(other);
                break;
            }
        }
        if comparisons > MAX_COMPARISONS {
            return;
        }
        if let (Some(other), Some(entry)) = (wider, document.grants.get(number)) {
            told.insert(number);
            problems
                .warning(
                    WarningKind::DuplicateGrant,
                    entry.place,
                    &Path::Root.key(&entry.path),
                    format!("`{}` in line {} grants all of it already", other.name, other.line),
                )
                .help("remove one of them");
        }
    }
}

/// Whether `wide` gives everybody, for as long, everything that `narrow` gives.
fn gives_all_of(wide: &Grant, narrow: &Grant) -> bool {
    let groups = wide.groups.contains(&EVERYONE)
        || narrow.groups.iter().all(|group| wide.groups.binary_search(group).is_ok());
    let covered = |tenant: &TenantPattern| wide.tenants.iter().any(|pattern| pattern.covers(tenant));
    // What the wider one excepts must not be reached by the narrower one.
    let kept = |except: &TenantPattern| {
        narrow.except_tenants.iter().any(|own| own.covers(except))
            || !narrow.tenants.iter().any(|tenant| tenant.overlaps(except))
    };
    groups
        && narrow.scopes.is_subset_of(wide.scopes)
        && wide.expires.is_none_or(|end| narrow.expires.is_some_and(|own| own <= end))
        && narrow.tenants.iter().all(covered)
        && wide.except_tenants.iter().all(kept)
}

/// Tenants, written out, that a restriction names beside others, or that only grants name which have expired.
fn warn_of_ungranted_tenants(document: &Document, snapshot: &Snapshot, now: u64, problems: &mut Problems) {
    let granted = |tenant: &TenantPattern| snapshot.grant_index.names_any_tenant_of(tenant);
    let mut tell = |place, path: &Path<'_>, tenant: &TenantPattern| {
        problems
            .warning(
                WarningKind::UngrantedTenant,
                place,
                path,
                format!("the tenant `{tenant}` is granted to nobody"),
            )
            .help("check how it is written");
    };
    for entry in &document.restrictions {
        // One that binds nothing at all is told as such.
        if !entry.tenants.iter().any(|tenant| granted(&tenant.value)) {
            continue;
        }
        // A pattern may be there for tenants to come.
        let written_out = entry.tenants.iter().filter(|tenant| tenant.value.literal().is_some());
        for tenant in written_out.filter(|tenant| !granted(&tenant.value)) {
            let list = Path::Root.key(&entry.path);
            tell(tenant.place, &list.key("tenants").item(tenant.number), &tenant.value);
        }
    }
    let expired: Vec<_> = document
        .grants
        .iter()
        .filter(|entry| entry.expires.as_ref().is_some_and(|expires| expires.value <= now))
        .collect();
    if expired.is_empty() {
        return;
    }
    let live = snapshot.grants.iter().filter(|grant| !grant.has_expired(now));
    let live: HashSet<&TenantPattern> = live.flat_map(|grant| &grant.tenants).collect();
    let wild: Vec<_> = live.iter().filter(|pattern| pattern.literal().is_none()).collect();
    for entry in expired {
        for tenant in &entry.tenants {
            let Some(name) = tenant.value.literal() else { continue };
            if !live.contains(&tenant.value) && !wild.iter().any(|pattern| pattern.matches(name)) {
                let list = Path::Root.key(&entry.path);
                tell(tenant.place, &list.key("tenants").item(tenant.number), &tenant.value);
            }
        }
    }
}

/// Where most groups are GUIDs, as Entra ID gives them, a name is one that somebody forgot to look up.
fn warn_of_names_among_guids(document: &Document, snapshot: &Snapshot, problems: &mut Problems) {
    // Several issuers need not give the same kind of group.
    if snapshot.issuers.len() != 1 {
        return;
    }
    let aliases: HashSet<&str> = document.group_names.iter().map(|(name, _)| &*name.value).collect();
    let section = Path::Root.key("group_names");
    let mut raw = Vec::new();
    for (name, members) in &document.group_names {
        raw.extend(members.iter().map(|member| (member, section.key(&name.value).to_string())));
    }
    for entry in &document.grants {
        let own = entry.groups.iter().filter(|group| {
            !aliases.contains(&*group.value)
                && !group.value.starts_with("service:")
                && !snapshot.groups.is_of_every_user(&group.value)
        });
        raw.extend(own.map(|group| (group, entry.path.to_string())));
    }
    let distinct: HashSet<&str> = raw.iter().map(|(group, _)| &*group.value).collect();
    let guids = distinct.iter().filter(|group| is_guid(group)).count();
    if guids < MIN_GUIDS || guids * 2 <= distinct.len() {
        return;
    }
    for (group, path) in raw.into_iter().filter(|(group, _)| !is_guid(&group.value)) {
        problems
            .warning(
                WarningKind::GroupNotGuid,
                group.place,
                &Path::Root.key(&path),
                format!("the issuer gives groups as GUIDs, and `{}` is none", group.value),
            )
            .help("look up the group's object id, and name it in `group_names`");
    }
}

/// RFC 9562 section 4: 8-4-4-4-12 hexadecimal digits.
fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut parts = text.split('-');
    lengths.iter().all(|length| {
        parts
            .next()
            .is_some_and(|part| part.len() == *length && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }) && parts.next().is_none()
}
