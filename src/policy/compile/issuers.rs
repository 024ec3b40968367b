//! Issuers and their keys.

use super::{Files, HELP_READ};
use crate::fetch::{Authorities, Endpoint};
use crate::policy::diagnostic::{Path, Place, Problems, WarningKind};
use crate::policy::document::{Document, IssuerEntry, KeysEntry};
use crate::policy::reader::At;
use crate::token::algorithm::{Algorithm, AlgorithmSet};
use crate::token::claims::{ClaimPath, GroupsFormat, IssuerRules};
use crate::token::jwks::KeyReport;
use crate::token::keys::KeySet;
use std::collections::HashMap;
use std::path;
use std::sync::Arc;

pub(super) fn compile_issuer(
    entry: &IssuerEntry,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<(Box<str>, IssuerRules)> {
    let (name, place) = match &entry.name {
        Some(name) => (name.value.clone(), name.place),
        None => match host_of(&entry.issuer.value) {
            Some(host) => (host.into(), entry.issuer.place),
            None => {
                problems
                    .error(
                        entry.issuer.place,
                        &path.key("name"),
                        "missing key `name`: the issuer has no host to be named by",
                    )
                    .help("add `name:`");
                return None;
            }
        },
    };
    if &*name == "service" {
        problems
            .error(place, &path.key("name"), "`service` is reserved for service accounts")
            .help("give the issuer another name");
    }
    // A group `b:c` of an issuer `a` would be written as the group `c` of an issuer `a:b`.
    if name.contains(':') {
        problems
            .error(place, &path.key("name"), format!("the issuer's name `{name}` holds a colon"))
            .help("give it a `name:` without one: in the names of groups a colon ends the issuer's");
    }
    refuse_placeholders(&entry.issuer, &path.key("issuer"), problems);
    let mut algorithms = Vec::new();
    for written in &entry.algorithms {
        match Algorithm::from_name(&written.value) {
            Some(algorithm) => algorithms.push(algorithm),
            None => {
                let names: Vec<_> = Algorithm::ALL.into_iter().map(Algorithm::name).collect();
                problems
                    .error(
                        written.place,
                        &path.key("algorithms").item(written.number),
                        format!("unknown or refused algorithm `{}`", written.value),
                    )
                    .help(format!("one of {}; HMAC is never accepted", names.join(", ")));
            }
        }
    }
    if entry.algorithms.is_empty() {
        algorithms.push(Algorithm::Rs256);
    }
    let groups_claim = compile_groups_claim(entry, path, problems);
    let groups_format = match &entry.groups_format {
        None => Some(GroupsFormat::List),
        Some(written) => {
            let format = GroupsFormat::from_name(&written.value);
            if format.is_none() {
                problems
                    .error(
                        written.place,
                        &path.key("groups_format"),
                        format!("unknown value `{}`", written.value),
                    )
                    .help(format!("it must be one of {}", GROUPS_FORMATS.join(", ")));
            }
            format
        }
    };
    Some((
        name,
        IssuerRules {
            issuer: entry.issuer.value.clone(),
            audiences: entry.audiences.iter().map(|audience| audience.value.clone()).collect(),
            algorithms: algorithms.into_iter().collect(),
            groups_claim: groups_claim?,
            groups_format: groups_format?,
            user_claim: entry.user_claim.clone().unwrap_or_else(|| "preferred_username".into()),
            leeway: entry.leeway,
        },
    ))
}

/// The formats of groups as messages list them.
const GROUPS_FORMATS: [&str; 5] = ["`list`", "`space`", "`comma`", "`keys`", "`string`"];

/// Where an issuer's groups are; `None` where a claim is no path.
fn compile_groups_claim(
    entry: &IssuerEntry,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<Box<[ClaimPath]>> {
    if entry.groups_claim.is_empty() {
        return Some(Box::new([ClaimPath::parse("groups").ok()?]));
    }
    let path = path.key("groups_claim");
    let mut parsed = Vec::with_capacity(entry.groups_claim.len());
    for written in &entry.groups_claim {
        match ClaimPath::parse(&written.value) {
            Ok(claim) => parsed.push(claim),
            Err(error) => {
                let item = path.item(written.number);
                let path = if entry.groups_claim_is_list { &item } else { &path };
                problems
                    .error(written.place, path, format!("`{}` {error}", written.value))
                    .help("write a claim's name, or a JSON Pointer like `/realm_access/roles`");
            }
        }
    }
    (parsed.len() == entry.groups_claim.len()).then(|| parsed.into())
}

/// Entra ID's documents show issuers of every tenant, which no token has: `iss` names the tenant that signed in.
fn refuse_placeholders(issuer: &At<Box<str>>, path: &Path<'_>, problems: &mut Problems) {
    const EVERY_TENANT: [&str; 3] = ["common", "organizations", "consumers"];
    let is_entra = host_of(&issuer.value)
        .is_some_and(|host| host.starts_with("login.") && host.contains("microsoftonline"));
    let tenant = issuer.value.split('/').nth(3).unwrap_or_default();
    if issuer.value.contains(['{', '}']) || (is_entra && EVERY_TENANT.contains(&tenant)) {
        problems
            .error(issuer.place, path, format!("`{}` is the issuer of no token", issuer.value))
            .help("write your own tenant's id in its place: an issuer is compared exactly with `iss`");
    }
}

/// The host of an `https://host:port/path` issuer.
pub(super) fn host_of(issuer: &str) -> Option<&str> {
    let (_, rest) = issuer.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // The colons of an IPv6 address stand in brackets; those of the port do not.
    let (host, _) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    (!host.is_empty()).then_some(host)
}

/// The keys of one issuer: at hand, or to be fetched.
pub(super) enum Keys {
    Here(Option<(Arc<KeySet>, Vec<KeyReport>)>),
    At(Endpoint),
}

pub(super) fn load_keys(
    entry: &IssuerEntry,
    algorithms: AlgorithmSet,
    files: &mut dyn Files,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Keys {
    match &entry.keys {
        KeysEntry::File(file) => {
            let json = read_named(file, "jwks_file", files, path, problems);
            let name = format!("`{}`", file.value);
            Keys::Here(json.and_then(|json| {
                key_set(&json, &name, algorithms, file.place, &path.key("jwks_file"), problems)
            }))
        }
        KeysEntry::Inline(json) => {
            let text = json.value.to_string();
            let path = path.key("jwks");
            Keys::Here(key_set(text.as_bytes(), "the key set", algorithms, json.place, &path, problems))
        }
        KeysEntry::Fetched { url, ca_file } => {
            let authorities = ca_file.as_ref().and_then(|file| {
                let pem = read_named(file, "ca_file", files, path, problems)?;
                Authorities::from_pem(&pem)
                    .inspect_err(|error| {
                        problems
                            .error(file.place, &path.key("ca_file"), format!("`{}`: {error}", file.value))
                            .help("it must hold certificates in PEM form");
                    })
                    .ok()
            });
            Keys::At(Endpoint { issuer: entry.issuer.value.clone(), jwks_url: url.clone(), authorities })
        }
        KeysEntry::Missing => Keys::Here(None),
    }
}

fn read_named(
    file: &At<Box<str>>,
    key: &str,
    files: &mut dyn Files,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<Vec<u8>> {
    files
        .read(path::Path::new(&*file.value))
        .inspect_err(|error| {
            problems
                .error(file.place, &path.key(key), format!("cannot read `{}`: {error}", file.value))
                .help(HELP_READ);
        })
        .ok()
}

/// `name`: what messages call the document.
fn key_set(
    json: &[u8],
    name: &str,
    algorithms: AlgorithmSet,
    place: Place,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<(Arc<KeySet>, Vec<KeyReport>)> {
    match KeySet::from_jwks(json, algorithms) {
        Err(error) => {
            problems
                .error(place, path, format!("{name} {error}"))
                .help("it must be a JSON Web Key Set: `{\"keys\": [...]}`");
            None
        }
        Ok((set, reports)) => {
            for report in &reports {
                if let Some(why) = &report.refused {
                    let kid = report.kid.as_deref().unwrap_or_default();
                    problems
                        .warning(
                            WarningKind::KeyRefused,
                            place,
                            path,
                            format!("the key `{}` is not used: {why}", kid.escape_debug()),
                        )
                        .help("the issuer's other keys are used");
                }
            }
            if set.is_empty() {
                problems
                    .error(place, path, "there is no usable key: nobody's token could be verified")
                    .help("write the public keys that the issuer signs with");
            }
            Some((Arc::new(set), reports))
        }
    }
}

/// At most one issuer's groups can be written bare, or its groups would be taken for another's.
pub(super) fn refuse_several_bare(document: &Document, problems: &mut Problems) {
    let list = Path::Root.key("issuers");
    let mut bare = document.issuers.iter().filter_map(|entry| Some((entry.number, entry.bare_groups?)));
    let Some((_, first)) = bare.next() else { return };
    for (number, place) in bare {
        problems
            .error(
                place,
                &list.item(number).key("bare_groups"),
                format!("only one issuer can have `bare_groups`, and one has it in line {}", first.line),
            )
            .help("remove it here, and write this issuer's groups as `<issuer name>:<group>`");
    }
}

pub(super) fn refuse_repeated_issuers(document: &Document, problems: &mut Problems) {
    let list = Path::Root.key("issuers");
    let (mut issuers, mut names) = (HashMap::new(), HashMap::new());
    for entry in &document.issuers {
        let path = list.item(entry.number);
        let mut refuse = |first: Option<Place>, what: &str, key, place, help: &str| {
            if let Some(first) = first {
                problems
                    .error(
                        place,
                        &path.key(key),
                        format!("{what} is given twice, first in line {}", first.line),
                    )
                    .help(help);
            }
        };
        let issuer = &entry.issuer;
        let first = issuers.insert(&*issuer.value, issuer.place);
        refuse(
            first,
            &format!("the issuer `{}`", issuer.value),
            "issuer",
            issuer.place,
            "remove one of them",
        );
        let (name, place, help) = match &entry.name {
            Some(name) => (&*name.value, name.place, "remove one of them"),
            None => match host_of(&issuer.value) {
                Some(host) => (host, issuer.place, "without `name:` an issuer is named by its host: add one"),
                None => continue,
            },
        };
        // The same issuer once more has been told.
        let first_name = names.insert(name, place).filter(|_| first.is_none() || entry.name.is_some());
        refuse(first_name, &format!("the name `{name}`"), "name", place, help);
    }
}
