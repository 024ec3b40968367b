//! Who asks: the names of groups held against the issuers and service accounts that can give them, service accounts,
//! and revocation.

use super::client_ip::{MOST_NAMED, NamedNetworks};
use super::issuers::host_of;
use crate::network::NetworkSet;
use crate::policy::diagnostic::{Path, Place, Problems, WarningKind};
use crate::policy::document::{Document, RevokedPrincipal};
use crate::policy::groups::{SERVICE, is_of_account};
use crate::policy::reader::At;
use crate::policy::snapshot::{GroupTable, Revocations, ServiceAccount};
use crate::text::is_guid;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

/// Compiles the service accounts. Their groups are in `groups` already.
pub(super) fn compile_service_accounts(
    document: &Document,
    networks: &NamedNetworks<'_>,
    groups: &GroupTable,
    now: u64,
    problems: &mut Problems,
) -> Box<[ServiceAccount]> {
    let list = Path::Root.key("service_accounts");
    let (mut names, mut tokens) = (HashMap::new(), HashMap::new());
    let mut accounts = Vec::new();
    for entry in &document.service_accounts {
        let path = list.item(entry.number);
        let name = &entry.name;
        if let Some(first) = names.insert(&*name.value, name.place) {
            refuse_twice(
                &format!("the name `{}`", name.value),
                first,
                name.place,
                &path.key("name"),
                problems,
            );
        }
        for sum in &entry.token_sha256 {
            let path = path.key("token_sha256");
            if let Some(first) = tokens.insert(sum.value, sum.place) {
                refuse_twice("this hash", first, sum.place, &path.item(sum.number), problems);
            }
        }
        let network_names = match &entry.networks {
            Some(networks_of) => networks.resolve(networks_of, &path.key("networks"), problems),
            None => {
                problems
                    .warning(
                        WarningKind::ServiceAccountOpen,
                        entry.place,
                        &path.key("networks"),
                        format!("`{}` may come from anywhere: its token alone lets it in", name.value),
                    )
                    .help("name where its connections come from: `networks: [10.20.0.0/16]`");
                Box::default()
            }
        };
        let group = format!("{SERVICE}:{}", name.value);
        let revoked_until = document
            .revoked
            .principals
            .iter()
            .filter(|entry| *entry.issuer.value == *SERVICE && entry.id.value == name.value)
            .map(until)
            .max()
            .unwrap_or(0);
        accounts.push(ServiceAccount {
            name: name.value.clone(),
            line: entry.place.line,
            groups: groups.id(&group).filter(|_| !groups.is_revoked(&group)).into_iter().collect(),
            token_sha256: entry.token_sha256.iter().map(|sum| sum.value).collect(),
            tenant: entry.tenant.as_ref().map(|tenant| tenant.value.clone()),
            networks: entry.networks.is_some().then(|| -> NetworkSet {
                network_names.iter().flat_map(|(_, networks)| networks.iter().copied()).collect()
            }),
            network_names,
            behind_proxy: entry.behind_proxy,
            revoked: now < revoked_until,
            revoked_until,
        });
    }
    accounts.into()
}

fn refuse_twice(what: &str, first: Place, place: Place, path: &Path<'_>, problems: &mut Problems) {
    problems
        .error(place, path, format!("{what} is given twice, first in line {}", first.line))
        .help("remove one of them");
}

/// Until when (Unix seconds) somebody is revoked.
fn until(entry: &RevokedPrincipal) -> u64 {
    entry.until.as_ref().map_or(u64::MAX, |until| until.value)
}

/// Compiles what is revoked beside groups, which `groups` leaves out.
///
/// `now`: Unix seconds.
pub(super) fn compile_revoked(
    document: &Document,
    issuers: &[Box<str>],
    groups: &GroupTable,
    now: u64,
    problems: &mut Problems,
) -> Revocations {
    let section = Path::Root.key("revoked");
    let list = section.key("principals");
    let accounts = Accounts::of(document);
    let mut revoked = Revocations { compiled_at: now, ..Revocations::default() };
    for entry in &document.revoked.principals {
        let RevokedPrincipal { issuer, id, .. } = entry;
        let path = list.item(entry.number);
        if let Some(until) = entry.until.as_ref().filter(|until| until.value <= now) {
            problems
                .warning(
                    WarningKind::RevocationEnded,
                    until.place,
                    &path.key("until"),
                    format!("the time has passed: `{}` is revoked no longer", id.value.escape_debug()),
                )
                .help("remove the entry");
        }
        if *issuer.value == *SERVICE {
            accounts.refuse_unknown(&id.value, id.place, &path.key("id"), problems);
        } else if let Some(number) = issuers.iter().position(|name| *name == issuer.value) {
            let ends = revoked.principals.entry((number, id.value.clone())).or_insert(0);
            // Of two entries the one that ends later counts.
            *ends = until(entry).max(*ends);
            warn_of_unlike_id(document, number, entry, &path.key("id"), problems);
        } else {
            refuse_unknown_issuer(issuer, issuers, true, &path.key("issuer"), problems);
        }
    }
    let list = section.key("keys");
    for (issuer, kid) in &document.revoked.keys {
        let path = list.item(issuer.number);
        match issuers.iter().position(|name| *name == issuer.value) {
            Some(number) => _ = revoked.keys.insert((number, kid.value.clone())),
            None => refuse_unknown_issuer(issuer, issuers, false, &path.key("issuer"), problems),
        }
    }
    let list = section.key("groups");
    for group in &document.revoked.groups {
        let (name, path) = (&*group.value, list.item(group.number));
        if groups.is_of_every_user(name) {
            problems
                .error(group.place, &path, format!("`{name}` is no group that could be taken from a token"))
                .help(
                    "name groups; an issuer whose tokens shall not count any more is removed from `issuers`",
                );
        // An owner's document may know it.
        } else if !is_of_account(name) && !groups.knows(name) && document.owners.is_empty() {
            problems
                .warning(
                    WarningKind::RevokedGroupUnknown,
                    group.place,
                    &path,
                    format!("nothing else in the policy knows the group `{name}`"),
                )
                .help("check its name: what is mistyped here is not revoked");
        }
    }
    revoked.tokens = document.revoked.tokens_sha256.iter().map(|sum| sum.value).collect();
    revoked
}

/// `with_service`: service accounts are named here as well.
fn refuse_unknown_issuer(
    issuer: &At<Box<str>>,
    known: &[Box<str>],
    with_service: bool,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    let problem = problems.error(issuer.place, path, format!("there is no issuer `{}`", issuer.value));
    let known = known.join(", ");
    problem.help(if with_service {
        format!("names of issuers: {known}; `{SERVICE}` for service accounts")
    } else {
        format!("names of issuers: {known}")
    });
}

/// Warns of an id that no token of the issuer is likely to have as its `sub` or `oid`: it would revoke nobody.
fn warn_of_unlike_id(
    document: &Document,
    issuer: usize,
    entry: &RevokedPrincipal,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    let id = &*entry.id.value;
    let of_same = document.revoked.principals.iter().filter(|other| other.issuer.value == entry.issuer.value);
    let url = document.issuers.get(issuer).map_or("", |issuer| &*issuer.issuer.value);
    let why = match IdsOf::issuer(url) {
        // The `sub` of Entra ID is a hash that names a person for one application.
        IdsOf::Entra if !is_guid(id) && !is_opaque(id) => "the ids of Entra ID are GUIDs",
        IdsOf::Google if !id.bytes().all(|byte| byte.is_ascii_digit()) => "the ids of Google are numbers",
        IdsOf::Guids if is_mail_address(id) => "the ids of this issuer are GUIDs",
        _ if is_mail_address(id) && of_same.clone().any(|other| is_guid(&other.id.value)) => {
            "other ids of this issuer are GUIDs"
        }
        _ => return,
    };
    problems
        .warning(
            WarningKind::RevokedIdUnlike,
            entry.id.place,
            path,
            format!("{why}, and `{}` is none: it probably revokes nobody", id.escape_debug()),
        )
        .help("take `subject` from an audit record of the principal, or its `oid` from the directory");
}

/// The form of an issuer's ids, as far as it is known.
enum IdsOf {
    Entra,
    Google,
    /// GUIDs, but perhaps others from a directory behind it.
    Guids,
    Other,
}

impl IdsOf {
    /// `url`: the issuer as in `iss`.
    fn issuer(url: &str) -> Self {
        let host = host_of(url).unwrap_or_default().to_ascii_lowercase();
        let is_entra = host.starts_with("login.microsoftonline.")
            || ["sts.windows.net", "login.chinacloudapi.cn", "login.partner.microsoftonline.cn"]
                .contains(&&*host)
            || [".b2clogin.com", ".ciamlogin.com"].iter().any(|end| host.ends_with(end));
        if is_entra {
            Self::Entra
        } else if host == "accounts.google.com" {
            Self::Google
        } else if host.starts_with("cognito-idp.") || url.contains("/realms/") {
            Self::Guids
        } else {
            Self::Other
        }
    }
}

/// Whether it is like a hash in base64url: long, and not a word.
fn is_opaque(id: &str) -> bool {
    id.len() >= 40 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether it is an e-mail address or a user principal name. `f:<directory>:<name>` is the id that Keycloak gives to a
/// user of another directory.
fn is_mail_address(id: &str) -> bool {
    !id.starts_with("f:")
        && id.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !name.contains('|') && host.contains('.') && !host.contains(['@', '/', ':'])
        })
}

/// A service account's group is written only where there is such an account.
///
/// `platform`: the document that defines the accounts; `document` itself, or that of its owner's platform.
pub(super) fn refuse_unknown_accounts(document: &Document, platform: &Document, problems: &mut Problems) {
    let is_list = |path: &str| path.starts_with("grants");
    let accounts = Accounts::of(platform);
    for grant in &document.grants {
        for group in &grant.groups {
            let Some(account) = account_of(&group.value) else { continue };
            let root = Path::Root.key(&grant.path);
            let list = root.key("groups");
            let path = if is_list(&grant.path) { list.item(group.number) } else { root };
            accounts.refuse_unknown(account, group.place, &path, problems);
        }
    }
    let section = Path::Root.key("revoked");
    let list = section.key("groups");
    for group in &document.revoked.groups {
        if let Some(account) = account_of(&group.value) {
            accounts.refuse_unknown(account, group.place, &list.item(group.number), problems);
        }
    }
}

fn account_of(group: &str) -> Option<&str> {
    group.strip_prefix(SERVICE)?.strip_prefix(':')
}

/// The service accounts that a platform's document defines.
struct Accounts<'d> {
    names: HashSet<&'d str>,
    /// The help of a complaint about another one, once there is such a complaint.
    help: OnceCell<String>,
}

impl<'d> Accounts<'d> {
    fn of(document: &'d Document) -> Self {
        let names = document.service_accounts.iter().map(|entry| &*entry.name.value).collect();
        Self { names, help: OnceCell::new() }
    }

    fn refuse_unknown(&self, account: &str, place: Place, path: &Path<'_>, problems: &mut Problems) {
        if !self.names.contains(account) {
            let help = self.help.get_or_init(|| self.list());
            problems
                .error(place, path, format!("there is no service account `{account}`"))
                .help(help.clone());
        }
    }

    fn list(&self) -> String {
        let mut known: Vec<&str> = self.names.iter().copied().collect();
        if known.is_empty() {
            return "define it under `service_accounts`".to_owned();
        }
        known.sort_unstable();
        let more = if known.len() > MOST_NAMED { ", ..." } else { "" };
        known.truncate(MOST_NAMED);
        format!("defined service accounts: {}{more}", known.join(", "))
    }
}

/// With several issuers, of which none has `bare_groups`, a group that is written bare is nobody's. In a grant that is
/// probably a mistake, in a restriction it would leave free what is meant to be bound.
pub(super) fn check_givers(
    document: &Document,
    issuers: &[Box<str>],
    groups: &GroupTable,
    problems: &mut Problems,
) {
    let is_nobodys = |name: &str| {
        !name.is_empty()
            && !groups.is_alias(name)
            && !groups.is_of_every_user(name)
            && !is_of_account(name)
            && groups.giver(name).is_none()
    };
    let help = |name: &str| {
        if issuers.is_empty() {
            return "name the issuer that gives it under `issuers`".to_owned();
        }
        let written: Vec<_> = issuers.iter().map(|issuer| format!("`{issuer}:{name}`")).collect();
        format!("write {}; or give one issuer `bare_groups: true`", written.join(" or "))
    };
    let granted = document.grants.iter().map(|grant| (&*grant.path, &grant.groups));
    let section = Path::Root.key("group_names");
    for (path, list) in granted {
        for group in list.iter().filter(|group| is_nobodys(&group.value)) {
            problems
                .warning(
                    WarningKind::GroupUnmatched,
                    group.place,
                    &Path::Root.key(path),
                    format!("no issuer gives the group `{}`", group.value),
                )
                .help(help(&group.value));
        }
    }
    for (name, members) in &document.group_names {
        // A member that is an alias itself has been refused.
        for member in members.iter().filter(|member| is_nobodys(&member.value)) {
            problems
                .warning(
                    WarningKind::GroupUnmatched,
                    member.place,
                    &section.key(&name.value),
                    format!("no issuer gives the group `{}`", member.value),
                )
                .help(help(&member.value));
        }
    }
    for restriction in &document.restrictions {
        let root = Path::Root.key(&restriction.path);
        for (key, list) in [("groups", &restriction.groups), ("except_groups", &restriction.except_groups)] {
            for group in list.iter().filter(|group| is_nobodys(&group.value)) {
                problems
                    .error(
                        group.place,
                        &root.key(key).item(group.number),
                        format!("no issuer gives the group `{}`", group.value),
                    )
                    .help(help(&group.value));
            }
        }
    }
}
