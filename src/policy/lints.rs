//! What a policy says that is probably not meant. None of it refuses the policy.

use super::diagnostic::{Diagnostic, Path, Problems, WarningKind};
use super::document::owners::read_document;
use super::document::{Document, GrantEntry};
use super::reader::At;
use super::snapshot::{EVERYONE, Grant, GroupId, SERVICE, Snapshot};
use crate::scope::{BackendSet, Scope, ScopeSet};
use crate::tenant::{PatternSet, TenantPattern};
use crate::text::is_guid;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// A grant that ends within this many seconds is told: two weeks, time enough to ask whether it is still needed.
const SOON: u64 = 14 * 86_400;

/// Comparisons of grants after which no further duplicates are looked for, so that a policy of any size loads in time.
const MAX_COMPARISONS: usize = 2_000_000;

/// From this many groups on the policy shows what the issuer's groups look like.
const MIN_GUIDS: usize = 3;

/// The document of an owner whose rules are in a snapshot.
pub(super) struct OwnerRules<'d> {
    /// What diagnostics call it.
    pub(super) file: &'d str,
    pub(super) text: &'d [u8],
    /// Which of the snapshot's grants are its.
    pub(super) grants: Range<usize>,
    /// Where its restrictions begin among those of the snapshot.
    pub(super) restrictions: usize,
}

/// What every document is held against.
struct Whole<'s> {
    snapshot: &'s Snapshot,
    granted: Granted,
    /// Grants by their number, with that of one which gives all of them.
    duplicates: HashMap<usize, usize>,
    /// Whether any grant names a tenant of a pattern, which is asked again and again.
    named: RefCell<HashMap<TenantPattern, bool>>,
    platforms: RawGroups<'s>,
    now: u64,
}

/// Tells what is odd about the documents of a policy that has no error: the platform's, and each owner's that is in
/// force in its newest version. All of them are held against the rules of the whole policy.
///
/// `file`: what diagnostics call the platform's. `owners`: in the order of their grants. `now`: Unix seconds. Returns what was found in each of the documents.
///
/// Owners' documents are read once more, one after the other: five hundred of them at once would take several times what
/// the policy itself takes.
pub(super) fn lint(
    platform: &Document,
    file: &str,
    owners: &[OwnerRules<'_>],
    snapshot: &Snapshot,
    now: u64,
) -> (Problems, Vec<Vec<Diagnostic>>) {
    // Those of other documents could not be told where they stand.
    let is_told = |number: usize| {
        let after = owners.partition_point(|owner| owner.grants.start <= number);
        let before = after.checked_sub(1).and_then(|index| owners.get(index));
        number < platform.grants.len() || before.is_some_and(|owner| owner.grants.contains(&number))
    };
    let duplicates = duplicates(snapshot, now, is_told);
    let whole = Whole {
        snapshot,
        granted: Granted::of(snapshot, now),
        duplicates,
        named: RefCell::default(),
        platforms: RawGroups::of(platform, snapshot),
        now,
    };
    let mut problems = Problems::of(file);
    whole.hold(platform, 0, 0, &mut problems);
    warn_of_names_among_guids(&whole.platforms, None, snapshot, &mut problems);
    let of_owner = |owner: &OwnerRules<'_>| {
        let mut problems = Problems::of(owner.file);
        // What is wrong with it was told when its rules were compiled.
        if let Some(root) = super::node::parse(owner.text, &mut Problems::of("")) {
            let document = read_document(&root, &mut Problems::of(""));
            whole.hold(&document, owner.grants.start, owner.restrictions, &mut problems);
            let own = RawGroups::of(&document, snapshot);
            warn_of_names_among_guids(&whole.platforms, Some(&own), snapshot, &mut problems);
        }
        problems.into_sorted()
    };
    let of_owners = owners.iter().map(of_owner).collect();
    (problems, of_owners)
}

impl Whole<'_> {
    /// Holds one document against all rules. `grants` and `restrictions`: where its own begin among them.
    fn hold(&self, document: &Document, grants: usize, restrictions: usize, problems: &mut Problems) {
        self.warn_of_duplicates(document, grants, problems);
        let compiled = self.snapshot.grants.get(grants..).unwrap_or_default();
        for (entry, grant) in document.grants.iter().zip(compiled) {
            warn_of_end(entry, self.now, problems);
            warn_of_writes_everywhere(entry, grant, problems);
            warn_of_unreachable(entry, grant, problems);
        }
        self.warn_of_unmatched_restrictions(document, restrictions, problems);
        self.warn_of_ungranted_tenants(document, problems);
        self.warn_of_ungranted_defaults(document, problems);
    }

    /// Whether any grant names a tenant that matches the pattern.
    fn names_any_of(&self, pattern: &TenantPattern) -> bool {
        if let Some(known) = self.named.borrow().get(pattern) {
            return *known;
        }
        let names = self.snapshot.grant_index.names_any_tenant_of(pattern);
        self.named.borrow_mut().insert(pattern.clone(), names);
        names
    }

    fn warn_of_duplicates(&self, document: &Document, grants: usize, problems: &mut Problems) {
        for (number, entry) in (grants..).zip(&document.grants) {
            let wider = self.duplicates.get(&number).and_then(|wider| self.snapshot.grants.get(*wider));
            let Some(other) = wider else { continue };
            let file = self.snapshot.file_of(other.owner);
            problems
                .warning(
                    WarningKind::DuplicateGrant,
                    entry.place,
                    &Path::Root.key(&entry.path),
                    format!("`{}` in {file}:{} grants all of it already", other.name, other.line),
                )
                .help("remove one of them");
        }
    }
}

impl Whole<'_> {
    /// Tenants, written out, that a restriction names beside others, or that only grants name which have expired.
    fn warn_of_ungranted_tenants(&self, document: &Document, problems: &mut Problems) {
        let granted = |tenant: &TenantPattern| self.names_any_of(tenant);
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
            // Another warning reports one that binds nothing at all.
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
        for entry in document.grants.iter().filter(|entry| has_expired(entry, self.now)) {
            for tenant in &entry.tenants {
                let Some(name) = tenant.value.literal() else { continue };
                if !self.granted.live.matches(name) {
                    let list = Path::Root.key(&entry.path);
                    tell(tenant.place, &list.key("tenants").item(tenant.number), &tenant.value);
                }
            }
        }
    }

    /// Service accounts that ask for a tenant by default which no grant gives them.
    fn warn_of_ungranted_defaults(&self, document: &Document, problems: &mut Problems) {
        let snapshot = self.snapshot;
        for (entry, account) in document.service_accounts.iter().zip(&snapshot.service_accounts) {
            let Some(tenant) = &entry.tenant else { continue };
            let group = format!("{SERVICE}:{}", account.name);
            let mut is_granted = account.revoked || snapshot.groups.is_revoked(&group);
            snapshot.grant_index.each_rule(&tenant.value, &account.groups, &mut |rule| {
                let grant = usize::try_from(rule).ok().and_then(|rule| snapshot.grants.get(rule));
                is_granted |= grant.is_some_and(|grant| {
                    !grant.has_expired(self.now)
                        && !grant.excepts(&tenant.value)
                        && snapshot.is_in_bounds(grant.owner, &tenant.value)
                });
            });
            if !is_granted {
                problems
                    .warning(
                        WarningKind::UngrantedTenant,
                        tenant.place,
                        &Path::Root.key("service_accounts").item(entry.number).key("tenant"),
                        format!("no grant gives `{}` to `{group}`: it asks in vain", tenant.value),
                    )
                    .help("grant it, or name a tenant that is granted");
            }
        }
    }

    /// Restrictions on tenants or scopes that nothing grants.
    ///
    /// `first`: where the document's restrictions begin among those of the snapshot.
    fn warn_of_unmatched_restrictions(&self, document: &Document, first: usize, problems: &mut Problems) {
        let restrictions = self.snapshot.restrictions.get(first..).unwrap_or_default();
        for (entry, restriction) in document.restrictions.iter().zip(restrictions) {
            let tenants_meet = restriction.tenants.iter().any(|pattern| self.names_any_of(pattern));
            let scopes_meet = Scope::ALL.into_iter().any(|scope| {
                self.granted.scopes.contains(scope) && restriction.scopes.cover(scope, BackendSet::ALL)
            });
            if !(tenants_meet && scopes_meet) {
                let what = if tenants_meet { "scope" } else { "tenant" };
                problems
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
}

/// What is granted at all.
struct Granted {
    scopes: ScopeSet,
    /// The tenants of grants that have not run out, where any has.
    live: PatternSet,
}

impl Granted {
    fn of(snapshot: &Snapshot, now: u64) -> Self {
        let scopes = snapshot.grants.iter().fold(ScopeSet::EMPTY, |all, grant| all.union(grant.scopes));
        let any_expired = snapshot.grants.iter().any(|grant| grant.has_expired(now));
        let grants = snapshot.grants.iter().filter(|grant| any_expired && !grant.has_expired(now));
        Self { scopes, live: PatternSet::new(grants.flat_map(|grant| &grant.tenants).cloned()) }
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

fn warn_of_unreachable(entry: &GrantEntry, grant: &Grant, problems: &mut Problems) {
    if grant.tenants.iter().all(|tenant| grant.except_tenants.covers(tenant)) {
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
///
/// `is_told`: whether a grant stands in a document about which something can be told. Returns numbers of such grants, each
/// with that of the one which gives all of it.
fn duplicates(snapshot: &Snapshot, now: u64, is_told: impl Fn(usize) -> bool) -> HashMap<usize, usize> {
    let mut by_group: HashMap<(GroupId, &TenantPattern), SmallVec<[usize; 1]>> = HashMap::new();
    let mut patterns: HashMap<GroupId, Vec<(&TenantPattern, usize)>> = HashMap::new();
    let live = || {
        let grants = snapshot.grants.iter().enumerate();
        // What grants nothing is told as such.
        let reaches = |grant: &Grant| !grant.tenants.iter().all(|tenant| grant.except_tenants.covers(tenant));
        // Nor does what stands in documents that are not told: it is of other owners.
        let is_told = &is_told;
        grants.filter(move |(number, grant)| is_told(*number) && !grant.has_expired(now) && reaches(grant))
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
    let mut told: HashMap<usize, usize> = HashMap::new();
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
            let lists = |grant: &Grant| grant.tenants.len().saturating_add(grant.except_tenants.len());
            let pairs =
                snapshot.grants.get(candidate).map_or(0, |other| lists(other).saturating_mul(lists(grant)));
            if comparisons.saturating_add(pairs) > MAX_COMPARISONS {
                return told;
            }
            // Of two that say the same, the second one is told.
            let first_of_two = |other: &Grant| candidate > number && gives_all_of(grant, other);
            if let Some(other) = snapshot.grants.get(candidate)
                && candidate != number
                && (other.owner.is_none() || other.owner == grant.owner)
                && !told.contains_key(&candidate)
                && is_no_narrower(other, grant)
                && {
                    comparisons += pairs;
                    gives_all_of(other, grant)
                }
                && !first_of_two(other)
            {
                wider = Some(candidate);
                break;
            }
        }
        if comparisons > MAX_COMPARISONS {
            break;
        }
        if let Some(wider) = wider {
            told.insert(number, wider);
        }
    }
    told
}

/// Whether `wide` is for everybody for whom `narrow` is, for its scopes and for as long.
fn is_no_narrower(wide: &Grant, narrow: &Grant) -> bool {
    let groups = wide.groups.contains(&EVERYONE)
        || narrow.groups.iter().all(|group| wide.groups.binary_search(group).is_ok());
    groups
        && narrow.scopes.is_subset_of(wide.scopes)
        && wide.expires.is_none_or(|end| narrow.expires.is_some_and(|own| own <= end))
}

/// Whether `wide` gives everybody, for as long, everything that `narrow` gives.
fn gives_all_of(wide: &Grant, narrow: &Grant) -> bool {
    let covered = |tenant: &TenantPattern| wide.tenants.iter().any(|pattern| pattern.covers(tenant));
    // What the wider one excepts must not be reached by the narrower one.
    let kept = |except: &TenantPattern| {
        narrow.except_tenants.iter().any(|own| own.covers(except))
            || !narrow.tenants.iter().any(|tenant| tenant.overlaps(except))
    };
    is_no_narrower(wide, narrow) && narrow.tenants.iter().all(covered) && wide.except_tenants.iter().all(kept)
}

/// The groups of issuers that a document names.
struct RawGroups<'d> {
    /// Each with its path.
    written: Vec<(&'d At<Box<str>>, String)>,
    distinct: HashSet<&'d str>,
    /// How many of `distinct` are GUIDs.
    guids: usize,
}

impl<'d> RawGroups<'d> {
    fn of(document: &'d Document, snapshot: &Snapshot) -> Self {
        let section = Path::Root.key("group_names");
        let mut written = Vec::new();
        for (name, members) in &document.group_names {
            written.extend(members.iter().map(|member| (member, section.key(&name.value).to_string())));
        }
        for entry in &document.grants {
            let own = entry.groups.iter().filter(|group| {
                !snapshot.groups.is_alias(&group.value)
                    && !group.value.starts_with("service:")
                    && !snapshot.groups.is_of_every_user(&group.value)
            });
            written.extend(own.map(|group| (group, entry.path.to_string())));
        }
        let distinct: HashSet<&str> = written.iter().map(|(group, _)| &*group.value).collect();
        let guids = distinct.iter().filter(|group| is_guid(group)).count();
        Self { written, distinct, guids }
    }
}

/// Where most groups are GUIDs, as Entra ID gives them, a name is one that somebody forgot to look up.
///
/// `platforms`: the groups of the platform's document, by which an owner's are judged as well. `own`: those of an owner.
fn warn_of_names_among_guids(
    platforms: &RawGroups<'_>,
    own: Option<&RawGroups<'_>>,
    snapshot: &Snapshot,
    problems: &mut Problems,
) {
    // Several issuers need not give the same kind of group.
    if snapshot.issuers.len() != 1 {
        return;
    }
    let further =
        own.iter().flat_map(|own| &own.distinct).filter(|group| !platforms.distinct.contains(*group));
    let (mut distinct, mut guids) = (platforms.distinct.len(), platforms.guids);
    for group in further {
        distinct += 1;
        guids += usize::from(is_guid(group));
    }
    if guids < MIN_GUIDS || guids * 2 <= distinct {
        return;
    }
    let judged = &own.unwrap_or(platforms).written;
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
