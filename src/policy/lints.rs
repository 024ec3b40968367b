//! What a policy says that is probably not meant. None of it refuses the policy.

use super::diagnostic::{Diagnostic, Path, Problems, WarningKind};
use super::document::{Document, GrantEntry};
use super::reader::At;
use super::snapshot::{EVERYONE, Grant, GroupId, Snapshot};
use crate::scope::{BackendSet, Scope, ScopeSet};
use crate::tenant::TenantPattern;
use std::collections::{HashMap, HashSet};

/// A grant that ends within this many seconds is told: two weeks, time enough to ask whether it is still needed.
const SOON: u64 = 14 * 86_400;

/// Comparisons of grants after which no further duplicates are looked for, so that a policy of any size loads in time.
const MAX_COMPARISONS: usize = 2_000_000;

/// From this many groups on the policy shows what the issuer's groups look like.
const MIN_GUIDS: usize = 3;

/// A document whose rules are in a snapshot.
pub(super) struct Source<'d> {
    document: &'d Document,
    /// Where its rules begin among those of the snapshot.
    grants: usize,
    restrictions: usize,
    problems: Problems,
}

impl<'d> Source<'d> {
    /// `grants` and `restrictions`: where its rules begin among those of the snapshot.
    pub(super) fn new(document: &'d Document, file: &str, grants: usize, restrictions: usize) -> Self {
        Self { document, grants, restrictions, problems: Problems::of(file) }
    }
}

/// Tells what is odd about the documents of a policy that has no error: the platform's, and each owner's that is in
/// force in its newest version. All of them are held against the rules of the whole policy.
///
/// `now`: Unix seconds. Returns what was found in each of the documents.
pub(super) fn lint(
    platform: Source<'_>,
    owners: Vec<Source<'_>>,
    snapshot: &Snapshot,
    now: u64,
) -> (Problems, Vec<Vec<Diagnostic>>) {
    let platforms = raw_groups(platform.document, snapshot);
    let mut sources = vec![platform];
    sources.extend(owners);
    warn_of_duplicates(&mut sources, snapshot, now);
    let granted = Granted::of(&sources, snapshot, now);
    for (number, source) in sources.iter_mut().enumerate() {
        let grants = snapshot.grants.get(source.grants..).unwrap_or_default();
        for (entry, grant) in source.document.grants.iter().zip(grants) {
            warn_of_end(entry, now, &mut source.problems);
            warn_of_writes_everywhere(entry, grant, &mut source.problems);
            warn_of_unreachable(entry, &mut source.problems);
        }
        warn_of_unmatched_restrictions(source, snapshot, granted.scopes);
        warn_of_ungranted_tenants(source.document, &granted, snapshot, now, &mut source.problems);
        let own = if number == 0 { None } else { Some(raw_groups(source.document, snapshot)) };
        warn_of_names_among_guids(&platforms, own.as_deref(), snapshot, &mut source.problems);
    }
    let mut found = sources.into_iter().map(|source| source.problems);
    let platform = found.next().unwrap_or_else(|| Problems::of(""));
    (platform, found.map(Problems::into_sorted).collect())
}

/// What is granted at all.
struct Granted<'s> {
    scopes: ScopeSet,
    /// The tenants of grants that have not run out, where any has; and those of them that are patterns.
    live: HashSet<&'s TenantPattern>,
    wild: Vec<&'s TenantPattern>,
}

impl<'s> Granted<'s> {
    fn of(sources: &[Source<'_>], snapshot: &'s Snapshot, now: u64) -> Self {
        let scopes = snapshot.grants.iter().fold(ScopeSet::EMPTY, |all, grant| all.union(grant.scopes));
        let any_expired =
            sources.iter().flat_map(|source| &source.document.grants).any(|entry| has_expired(entry, now));
        let grants = snapshot.grants.iter().filter(|grant| any_expired && !grant.has_expired(now));
        let live: HashSet<&TenantPattern> = grants.flat_map(|grant| &grant.tenants).collect();
        let wild = live.iter().copied().filter(|pattern| pattern.literal().is_none()).collect();
        Self { scopes, live, wild }
    }
}

fn has_expired(entry: &GrantEntry, now: u64) -> bool {
    entry.expires.as_ref().is_some_and(|expires| expires.value <= now)
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

/// A grant that gives nothing which another one does not give as long. Another owner's does not count: it may go.
fn warn_of_duplicates(sources: &mut [Source<'_>], snapshot: &Snapshot, now: u64) {
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
                && (other.owner.is_none() || other.owner == grant.owner)
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
        let source = sources.iter_mut().find_map(|source| {
            Some((source.document.grants.get(number.checked_sub(source.grants)?)?, &mut source.problems))
        });
        if let (Some(other), Some((entry, problems))) = (wider, source) {
            told.insert(number);
            let whose = if other.owner == grant.owner { "" } else { " of the platform's document" };
            problems
                .warning(
                    WarningKind::DuplicateGrant,
                    entry.place,
                    &Path::Root.key(&entry.path),
                    format!("`{}` in line {}{whose} grants all of it already", other.name, other.line),
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
fn warn_of_ungranted_tenants(
    document: &Document,
    grants: &Granted<'_>,
    snapshot: &Snapshot,
    now: u64,
    problems: &mut Problems,
) {
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
    for entry in document.grants.iter().filter(|entry| has_expired(entry, now)) {
        for tenant in &entry.tenants {
            let Some(name) = tenant.value.literal() else { continue };
            if !grants.live.contains(&tenant.value)
                && !grants.wild.iter().any(|pattern| pattern.matches(name))
            {
                let list = Path::Root.key(&entry.path);
                tell(tenant.place, &list.key("tenants").item(tenant.number), &tenant.value);
            }
        }
    }
}

/// The groups of issuers that a document names, each with its path.
fn raw_groups<'d>(document: &'d Document, snapshot: &Snapshot) -> Vec<(&'d At<Box<str>>, String)> {
    let section = Path::Root.key("group_names");
    let mut raw = Vec::new();
    for (name, members) in &document.group_names {
        raw.extend(members.iter().map(|member| (member, section.key(&name.value).to_string())));
    }
    for entry in &document.grants {
        let own = entry.groups.iter().filter(|group| {
            !snapshot.groups.is_alias(&group.value)
                && !group.value.starts_with("service:")
                && !snapshot.groups.is_of_every_user(&group.value)
        });
        raw.extend(own.map(|group| (group, entry.path.to_string())));
    }
    raw
}

/// Where most groups are GUIDs, as Entra ID gives them, a name is one that somebody forgot to look up.
///
/// `platforms`: the groups of the platform's document, by which an owner's are judged as well. `own`: those of an owner.
fn warn_of_names_among_guids(
    platforms: &[(&At<Box<str>>, String)],
    own: Option<&[(&At<Box<str>>, String)]>,
    snapshot: &Snapshot,
    problems: &mut Problems,
) {
    // Several issuers need not give the same kind of group.
    if snapshot.issuers.len() != 1 {
        return;
    }
    let distinct: HashSet<&str> =
        platforms.iter().chain(own.unwrap_or_default()).map(|(group, _)| &*group.value).collect();
    let guids = distinct.iter().filter(|group| is_guid(group)).count();
    if guids < MIN_GUIDS || guids * 2 <= distinct.len() {
        return;
    }
    let judged = own.unwrap_or(platforms);
    for (group, path) in judged.iter().filter(|(group, _)| !is_guid(&group.value)) {
        problems
            .warning(
                WarningKind::GroupNotGuid,
                group.place,
                &Path::Root.key(path),
                format!("the issuer gives groups as GUIDs, and `{}` is none", group.value),
            )
            .help("look up the group's object id, and name it in `group_names`");
    }
}

/// Restrictions on tenants or scopes that nothing grants.
fn warn_of_unmatched_restrictions(source: &mut Source<'_>, snapshot: &Snapshot, granted: ScopeSet) {
    let restrictions = snapshot.restrictions.get(source.restrictions..).unwrap_or_default();
    for (entry, restriction) in source.document.restrictions.iter().zip(restrictions) {
        let tenants_meet =
            restriction.tenants.iter().any(|pattern| snapshot.grant_index.names_any_tenant_of(pattern));
        let scopes_meet = Scope::ALL
            .into_iter()
            .any(|scope| granted.contains(scope) && restriction.scopes.cover(scope, BackendSet::ALL));
        if !(tenants_meet && scopes_meet) {
            let what = if tenants_meet { "scope" } else { "tenant" };
            source
                .problems
                .warning(
                    WarningKind::RestrictionUnmatched,
                    entry.place,
                    &Path::Root.key(&entry.path),
                    format!("no grant names a {what} that this restriction binds: it applies to nothing"),
                )
                .help("check how it is written");
        }
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
