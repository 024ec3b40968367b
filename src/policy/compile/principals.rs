//! Who asks: the names of groups held against the issuers and service accounts that can give them, service accounts,
//! and revocation.

use super::client_ip::{MOST_NAMED, NamedNetworks};
use crate::network::NetworkSet;
use crate::policy::diagnostic::{Path, Place, Problems, WarningKind};
use crate::policy::document::Document;
use crate::policy::groups::{SERVICE, is_of_account};
use crate::policy::reader::At;
use crate::policy::snapshot::{GroupTable, Revocations, ServiceAccount};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

/// Compiles the service accounts. Their groups are in `groups` already.
pub(super) fn compile_service_accounts(
    document: &Document,
    networks: &NamedNetworks<'_>,
    groups: &GroupTable,
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
        let revoked = |principal: &(At<Box<str>>, At<Box<str>>)| {
            *principal.0.value == *SERVICE && principal.1.value == name.value
        };
        accounts.push(ServiceAccount {
            name: name.value.clone(),
            line: entry.place.line,
            groups: groups.id(&group).filter(|_| !groups.is_revoked(&group)).into_iter().collect(),
            token_sha256: entry.token_sha256.iter().map(|sum| sum.value).collect(),
            networks: entry.networks.is_some().then(|| -> NetworkSet {
                network_names.iter().flat_map(|(_, networks)| networks.iter().copied()).collect()
            }),
            network_names,
            behind_proxy: entry.behind_proxy,
            revoked: document.revoked.principals.iter().any(revoked),
        });
    }
    accounts.into()
}

fn refuse_twice(what: &str, first: Place, place: Place, path: &Path<'_>, problems: &mut Problems) {
    problems
        .error(place, path, format!("{what} is given twice, first in line {}", first.line))
        .help("remove one of them");
}

/// Compiles what is revoked beside groups, which `groups` leaves out.
pub(super) fn compile_revoked(
    document: &Document,
    issuers: &[Box<str>],
    groups: &GroupTable,
    problems: &mut Problems,
) -> Revocations {
    let section = Path::Root.key("revoked");
    let list = section.key("principals");
    let accounts = Accounts::of(document);
    let mut revoked = Revocations::default();
    for (issuer, id) in &document.revoked.principals {
        let path = list.item(issuer.number);
        if *issuer.value == *SERVICE {
            accounts.refuse_unknown(&id.value, id.place, &path.key("id"), problems);
        } else if let Some(number) = issuers.iter().position(|name| *name == issuer.value) {
            revoked.principals.insert((number, id.value.clone()));
        } else {
            problems
                .error(issuer.place, &path.key("issuer"), format!("there is no issuer `{}`", issuer.value))
                .help(format!("names of issuers: {}; `{SERVICE}` for service accounts", issuers.join(", ")));
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
