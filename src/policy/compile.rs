//! Document and the files it names -> snapshot and key material. References are followed here, and everything is
//! checked that needs more than one value to be judged.

mod client_ip;
mod issuers;
mod owners;
mod principals;

use super::diagnostic::{Diagnostic, Path, Place, Problems, WarningKind};
use super::document::{Document, GrantEntry, RestrictionEntry};
use super::groups::{IssuerName, is_of_account};
use super::reader::At;
use super::snapshot::{Grant, GroupId, GroupTable, Restriction, Snapshot};
use crate::client_ip::Source;
use crate::client_ip::signature::KeyRing;
use crate::fetch::Endpoint;
use crate::file::FileError;
use crate::network::{Network, NetworkSet};
use crate::tenant::{PatternSet, TenantPattern};
use crate::token::algorithm::AlgorithmSet;
use crate::token::jwks::{InvalidJwks, KeyReport};
use crate::token::keys::KeySet;
use client_ip::{NamedNetworks, compile_client_ip, load_client_ip};
use issuers::{Keys, compile_issuer, load_keys, refuse_repeated_issuers, refuse_several_bare};
pub use owners::Turn;
pub(super) use owners::{Context, Judged, OwnerDocument, RulesKey, add_owners};
use principals::{check_givers, compile_revoked, compile_service_accounts, refuse_unknown_accounts};
use std::collections::{HashMap, HashSet};
use std::path::{self, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The files that a policy names. The one place where compiling touches the outside.
pub trait Files {
    /// The content of a file.
    ///
    /// `path`: as the policy names it; how a relative one is resolved is the reader's.
    ///
    /// # Errors
    /// Why there is none.
    fn read(&mut self, path: &path::Path) -> Result<Vec<u8>, FileError>;

    /// Whether the secrets that a policy names are read. Where they are not, nothing is said of them, and nothing that
    /// was made with them is verified.
    fn reads_secrets(&self) -> bool {
        true
    }

    /// The keys of this issuer that are in force, for when its file cannot be used: only where they came from the same
    /// file, for the same algorithms. Nobody else's keys, and none that were withdrawn since.
    fn keys_in_force(
        &mut self,
        issuer: &str,
        algorithms: AlgorithmSet,
        file: &path::Path,
    ) -> Option<Arc<KeySet>> {
        _ = (issuer, algorithms, file);
        None
    }

    /// The keys of signed cookies that are in force, where they came from the same file.
    fn cookie_keys_in_force(&mut self, file: &path::Path) -> Option<Arc<KeyRing>> {
        _ = file;
        None
    }

    /// A file that cannot be used, in whose place its keys in force are; and what is wrong with it.
    fn keep_in_force(&mut self, file: &path::Path, problems: Vec<Diagnostic>) {
        _ = (file, problems);
    }

    /// The document of an owner, by its name. `None` where the policy is not a directory.
    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        _ = name;
        None
    }
}

/// The versions of an owner's document.
#[derive(Debug)]
pub struct OwnerText {
    /// What diagnostics call it.
    pub file: String,
    /// Its content now, or why it cannot be read.
    pub current: Result<Vec<u8>, FileError>,
    /// The content that was used last.
    pub last_good: Option<Vec<u8>>,
    /// It is changing right now, and is judged once it rests: what was used last is given as its content.
    pub is_unsettled: bool,
}

const HELP_READ: &str = "check the path, and that nginx's worker user may read it";

/// A policy ready to decide: the rules, and the keys they need.
#[derive(Debug)]
pub struct Compiled {
    /// The rules.
    pub snapshot: Snapshot,
    /// The keys of each issuer, parallel to the snapshot's issuers.
    pub keys: Vec<Option<Arc<KeySet>>>,
    /// Where the keys of each issuer are fetched, parallel to `keys`, which then holds none.
    pub endpoints: Vec<Option<Endpoint>>,
    /// What was found of each key that the policy or a file of it holds, accepted or not; parallel to `keys`.
    pub key_reports: Vec<Vec<KeyReport>>,
    /// The file that the keys of each issuer came from, as the policy names it; parallel to `keys`.
    pub key_files: Vec<Option<PathBuf>>,
    /// Where client addresses come from, with the keys of a signed cookie.
    pub client_ip: Option<Source>,
}

/// Why a file of keys replaces nothing. Its text is the rest of a sentence that begins with the file. The fault is its
/// author's, but where it cannot be read.
#[derive(Debug, Error)]
enum UnusableKeys {
    #[error(": {0}")]
    Unreadable(#[from] FileError),
    #[error(": {0}")]
    NotKeySet(#[from] InvalidJwks),
    #[error(" holds no usable key")]
    NoKey,
    #[error(" is no keys file")]
    NotAKeysFile,
}

impl UnusableKeys {
    fn of(&self, file: &path::Path) -> String {
        format!("`{}`{self}", file.display())
    }
}

impl Compiled {
    /// Reads the keys again: a file that is good replaces what it gave before, any other replaces nothing.
    ///
    /// `keys` and `client_ip`: what is in force. Returns the files that were good, as the policy names them, and what
    /// is wrong with the others.
    pub fn refresh_keys(
        &self,
        keys: &mut [Option<Arc<KeySet>>],
        client_ip: &mut Option<Source>,
        files: &mut dyn Files,
    ) -> (Vec<PathBuf>, Vec<String>) {
        let mut good = Vec::new();
        let mut wrong = Vec::new();
        for ((set, file), rules) in keys.iter_mut().zip(&self.key_files).zip(&self.snapshot.issuers) {
            let Some(file) = file else { continue };
            let mut read = || match KeySet::from_jwks(&files.read(file)?, rules.algorithms)? {
                (fresh, _) if fresh.is_empty() => Err(UnusableKeys::NoKey),
                (fresh, _) => Ok(fresh),
            };
            match read() {
                Ok(fresh) => {
                    *set = Some(Arc::new(fresh));
                    good.push(file.clone());
                }
                Err(why) => wrong.push(why.of(file)),
            }
        }
        let Some(config) = &self.snapshot.client_ip else { return (good, wrong) };
        let fresh = config.with_keys(|file| {
            let content = files.read(file).map_err(|why| UnusableKeys::from(why).of(file))?;
            KeyRing::parse(&content).map(Arc::new).map_err(|_| UnusableKeys::NotAKeysFile.of(file))
        });
        match fresh {
            Ok(fresh) => {
                *client_ip = Some(fresh);
                good.extend(config.keys_file().map(path::Path::to_path_buf));
            }
            Err(error) => wrong.push(error),
        }
        (good, wrong)
    }
}

/// Compiles a document that was read without an error. `None` where `problems` now holds one.
///
/// `now`: Unix seconds, for warnings about what has run out.
pub(super) fn compile(
    document: &Document,
    revision: Box<str>,
    files: &mut dyn Files,
    now: u64,
    problems: &mut Problems,
) -> Option<Compiled> {
    let mut issuers = Vec::new();
    let mut issuer_names = Vec::new();
    let mut keys = Vec::new();
    let mut endpoints = Vec::new();
    let mut key_reports = Vec::new();
    let mut key_files = Vec::new();
    let mut bare = Vec::new();
    for entry in &document.issuers {
        let list = Path::Root.key("issuers");
        let path = list.item(entry.number);
        if let Some((name, rules)) = compile_issuer(entry, &path, problems) {
            let file = entry.keys_file().map(PathBuf::from);
            let mut wrong = problems.of_same_file();
            let loaded = load_keys(entry, rules.algorithms, files, &path, &mut wrong);
            // A file of two issuers may be good for one of them, and then it is not broken.
            let is_shared =
                || document.issuers.iter().filter(|other| other.keys_file() == file.as_deref()).count() > 1;
            let in_force = file
                .as_deref()
                .filter(|_| wrong.any_error() && !is_shared())
                .and_then(|file| files.keys_in_force(&rules.issuer, rules.algorithms, file));
            let (found, endpoint) = match (in_force, loaded) {
                (Some(set), _) => {
                    files.keep_in_force(file.as_deref().unwrap_or(path::Path::new("")), wrong.into_sorted());
                    (Some((set, Vec::new())), None)
                }
                (None, loaded) => {
                    problems.append(wrong);
                    match loaded {
                        Keys::Here(found) => (found, None),
                        Keys::At(endpoint) => (None, Some(endpoint)),
                    }
                }
            };
            let (set, reports) = found.unzip();
            key_reports.push(reports.unwrap_or_default());
            keys.push(set);
            endpoints.push(endpoint);
            key_files.push(file);
            issuers.push(rules);
            issuer_names.push(name);
            bare.push(entry.bare_groups.is_some());
        }
    }
    refuse_repeated_issuers(document, problems);
    refuse_several_bare(document, problems);
    refuse_repeated_names(document, problems);
    refuse_chained_aliases(document, &issuer_names, problems);

    let names: Vec<IssuerName<'_>> =
        issuer_names.iter().zip(bare).map(|(name, bare)| IssuerName { name, bare }).collect();
    let mut groups = GroupTable::new(
        &names,
        document.service_accounts.iter().map(|account| &*account.name.value),
        document
            .group_names
            .iter()
            .map(|(name, members)| (&*name.value, members.iter().map(|member| &*member.value).collect())),
        document.revoked.groups.iter().map(|group| &*group.value),
    );
    let grants: Vec<Grant> =
        document.grants.iter().map(|entry| compile_grant(entry, &mut groups, now, problems)).collect();
    warn_of_pattern_groups(document, &issuer_names, problems);

    refuse_unknown_accounts(document, document, problems);
    // An issuer that could not be read may be the one that gives a group.
    if issuer_names.len() == document.issuers.len() {
        check_givers(document, &issuer_names, &groups, problems);
    }

    let networks = NamedNetworks::new(document, problems);
    let service_accounts = compile_service_accounts(document, &networks, &groups, now, problems);
    let known_groups = groups_known_to_grants(document);
    let is_known = |group: &str| known_groups.contains(group);
    let mut restrictions = Vec::new();
    for entry in &document.restrictions {
        restrictions.push(compile_restriction(entry, &networks, &is_known, &mut groups, problems));
    }
    let revoked = compile_revoked(document, &issuer_names, &groups, now, problems);
    let client_ip = compile_client_ip(document, &networks, problems);
    let source = load_client_ip(document, client_ip.as_ref(), files, problems);

    let snapshot = Snapshot::new(
        revision,
        problems.file().into(),
        issuers,
        issuer_names,
        document.token_headers.iter().map(|header| header.value.clone()).collect(),
        client_ip,
        document.audit,
        document.denial_help.clone(),
        compile_shadow(document, now, problems),
        groups,
        service_accounts,
        revoked,
        grants,
        restrictions,
    );
    (!problems.any_error()).then_some(Compiled {
        snapshot,
        keys,
        endpoints,
        key_reports,
        key_files,
        client_ip: source,
    })
}

/// Until when the whole gateway only records. Not for long: a gateway that denies nothing must not be forgotten.
fn compile_shadow(document: &Document, now: u64, problems: &mut Problems) -> Option<u64> {
    const LONGEST: u64 = 31 * 24 * 3600;
    let until = document.shadow_until.as_ref()?;
    let path = Path::Root.key("shadow_until");
    if until.value > now.saturating_add(LONGEST) {
        problems
            .error(until.place, &path, "it is more than 31 days ahead")
            .help("choose an earlier end; it can be moved when it comes near");
    } else {
        let warning = problems.warning(
            WarningKind::ShadowMode,
            until.place,
            &path,
            "until then nothing is denied, only recorded",
        );
        warning.help("write `mode: enforce` once the record shows what you expect");
        if until.value <= now {
            warning.shadow_is_over();
        }
    }
    Some(until.value)
}

fn refuse_repeated_names(document: &Document, problems: &mut Problems) {
    let grants = document.grants.iter().map(|grant| ("grants", &grant.path, &grant.name));
    let restrictions = document.restrictions.iter().map(|rule| ("restrictions", &rule.path, &rule.name));
    let mut seen: HashMap<(&str, &str), Place> = HashMap::new();
    for (section, path, name) in grants.chain(restrictions) {
        let Some(name) = name else { continue };
        if let Some(first) = seen.get(&(section, &*name.value)) {
            problems
                .error(
                    name.place,
                    &Path::Root.key(path).key("name"),
                    format!("the name `{}` is given twice, first in line {}", name.value, first.line),
                )
                .help("give each its own name");
        } else {
            seen.insert((section, &name.value), name.place);
        }
    }
}

/// An alias stands for raw groups. One that named another alias, or every group of an issuer, could be read in two
/// ways.
fn refuse_chained_aliases(document: &Document, issuers: &[Box<str>], problems: &mut Problems) {
    let aliases: HashSet<&str> = document.group_names.iter().map(|(name, _)| &*name.value).collect();
    let section = Path::Root.key("group_names");
    for (name, members) in &document.group_names {
        let path = section.key(&name.value);
        if is_all_of_issuer(&name.value, issuers) {
            problems
                .error(
                    name.place,
                    &path,
                    format!("`{}` is every group of that issuer and cannot be a name", name.value),
                )
                .help("choose another name");
        }
        for member in members {
            if aliases.contains(&*member.value) || is_all_of_issuer(&member.value, issuers) {
                problems
                    .error(member.place, &path, format!("`{}` is itself a name of groups", member.value))
                    .help("list the issuer's own groups");
            }
        }
    }
}

/// Whether it is written `<issuer name>:*`.
fn is_all_of_issuer(group: &str, issuers: &[Box<str>]) -> bool {
    group.strip_suffix(":*").is_some_and(|name| issuers.iter().any(|issuer| **issuer == *name))
}

fn ids(names: &[At<Box<str>>], groups: &mut GroupTable) -> Box<[GroupId]> {
    let mut ids: Vec<GroupId> = names.iter().map(|name| groups.of_rule(&name.value)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into()
}

fn patterns(written: &[At<TenantPattern>]) -> Box<[TenantPattern]> {
    let mut patterns: Vec<TenantPattern> = written.iter().map(|pattern| pattern.value.clone()).collect();
    patterns.sort_unstable();
    patterns.dedup();
    patterns.into()
}

fn set_of(written: &[At<TenantPattern>]) -> PatternSet {
    PatternSet::new(written.iter().map(|pattern| pattern.value.clone()))
}

fn compile_grant(entry: &GrantEntry, groups: &mut GroupTable, now: u64, problems: &mut Problems) -> Grant {
    if let Some(expires) = &entry.expires
        && expires.value <= now
    {
        problems
            .warning(
                WarningKind::ExpiredGrant,
                expires.place,
                &Path::Root.key(&entry.path),
                "the grant has expired",
            )
            .help("remove it");
    }
    Grant {
        name: entry.name.as_ref().map_or_else(|| entry.path.clone(), |name| name.value.clone()),
        line: entry.place.line,
        groups: ids(&entry.groups, groups),
        tenants: patterns(&entry.tenants),
        except_tenants: set_of(&entry.except_tenants),
        scopes: entry.scopes,
        expires: entry.expires.as_ref().map(|expires| expires.value),
        owner: None,
        within_bounds: false,
    }
}

/// Groups match exactly, so a `*` inside a name is a character: probably not what was meant.
fn warn_of_pattern_groups(document: &Document, issuers: &[Box<str>], problems: &mut Problems) {
    let grants = document.grants.iter().map(|grant| (&grant.path, &grant.groups));
    let restrictions = document.restrictions.iter().flat_map(|restriction| {
        [(&restriction.path, &restriction.groups), (&restriction.path, &restriction.except_groups)]
    });
    for (path, groups) in grants.chain(restrictions) {
        for group in groups {
            let meant = &*group.value == "*" || is_all_of_issuer(&group.value, issuers);
            if group.value.contains('*') && !meant && !is_of_account(&group.value) {
                problems
                    .warning(
                        WarningKind::GroupLooksLikePattern,
                        group.place,
                        &Path::Root.key(path),
                        format!("groups match exactly: `{}` is not a pattern", group.value),
                    )
                    .help("name each group");
            }
        }
    }
}

/// Every group that something other than a restriction names.
fn groups_known_to_grants(document: &Document) -> HashSet<&str> {
    let granted = document.grants.iter().flat_map(|grant| &grant.groups);
    let aliased = document.group_names.iter().flat_map(|(name, members)| members.iter().chain([name]));
    granted.chain(aliased).map(|group| &*group.value).collect()
}

fn compile_restriction(
    entry: &RestrictionEntry,
    networks: &NamedNetworks<'_>,
    is_known: &dyn Fn(&str) -> bool,
    groups: &mut GroupTable,
    problems: &mut Problems,
) -> Restriction {
    let root = Path::Root.key(&entry.path);
    for (key, list) in [("groups", &entry.groups), ("except_groups", &entry.except_groups)] {
        for group in list {
            // A group of service accounts has been refused as such.
            let known = is_known(&group.value) || groups.is_of_every_user(&group.value);
            if !known && !is_of_account(&group.value) {
                problems
                    .error(
                        group.place,
                        &root.key(key).item(group.number),
                        format!("nothing else in the policy knows the group `{}`", group.value),
                    )
                    .help("a restriction on a mistyped group would restrict nobody: check its name");
            }
        }
    }
    if let Some(place) = entry.shadow {
        problems
            .warning(
                WarningKind::ShadowRestriction,
                place,
                &root.key("mode"),
                "the restriction is recorded only and denies nothing",
            )
            .help("remove `mode: shadow` once the record shows what you expect");
    }
    let network_names = networks.resolve(&entry.networks, &root.key("networks"), problems);
    let except_groups = ids(&entry.except_groups, groups);
    if let Some(everyone) = entry.except_groups.iter().find(|group| groups.is_everybody(&group.value)) {
        problems
            .error(
                everyone.place,
                &root.key("except_groups").item(everyone.number),
                format!("`{}` excepts everybody: the restriction would restrict nothing", everyone.value),
            )
            .help("name the groups that are meant");
    }
    let bound = ids(&entry.groups, groups);
    if !bound.is_empty() && bound.iter().all(|group| except_groups.binary_search(group).is_ok()) {
        problems
            .error(entry.place, &root.key("except_groups"), "every group that it binds is excepted as well")
            .help("remove the restriction, or the exception");
    }
    let except = set_of(&entry.except_tenants);
    if !entry.tenants.is_empty() && entry.tenants.iter().all(|tenant| except.covers(&tenant.value)) {
        problems
            .error(entry.place, &root.key("except_tenants"), "every tenant that it binds is excepted as well")
            .help("remove the restriction, or the exception");
    }
    let allowed: NetworkSet =
        network_names.iter().flat_map(|(_, networks)| networks.iter().copied()).collect();
    let told = network_names.iter().flat_map(|(_, networks)| networks.iter()).any(Network::is_everything);
    if allowed.is_everything() && !told {
        problems
            .warning(
                WarningKind::OpenNetwork,
                entry.place,
                &root.key("networks"),
                "together these networks are every address: they restrict nothing",
            )
            .help("name the networks that are meant");
    }
    Restriction {
        name: entry.name.as_ref().map_or_else(|| entry.path.clone(), |name| name.value.clone()),
        line: entry.place.line,
        groups: bound,
        except_groups,
        tenants: patterns(&entry.tenants),
        except_tenants: except,
        scopes: entry.scopes,
        networks: allowed,
        network_names,
        shadow: entry.shadow.is_some(),
        owner: None,
        within_bounds: false,
    }
}
