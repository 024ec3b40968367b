//! Revocation: principals, groups, tokens and keys that no longer count.

use super::{RevokedEntry, RevokedPrincipal, boxed, plain_text, read_time, required, token_hashes};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::reader::{At, Fields};

/// The keys of the section.
pub(in crate::policy) const KNOWN: [&str; 4] = ["principals", "groups", "tokens_sha256", "keys"];
/// The keys of one principal.
pub(in crate::policy) const PRINCIPAL: [&str; 3] = ["issuer", "id", "until"];
/// Those of them that each has.
pub(in crate::policy) const PRINCIPAL_REQUIRED: [&str; 2] = ["issuer", "id"];
/// The keys of one key of an issuer.
pub(in crate::policy) const KEY: [&str; 2] = ["issuer", "kid"];

/// The lists may be empty: so they stand in a policy between two incidents.
pub(super) fn read_revoked(fields: &Fields<'_>, problems: &mut Problems) -> RevokedEntry {
    let mut revoked = RevokedEntry::default();
    let Some(node) = fields.get("revoked") else { return revoked };
    let path = Path::Root.key("revoked");
    let Some(fields) = problems.fields(node, &path, &KNOWN) else { return revoked };
    if let Some(node) = fields.get("principals") {
        let list = path.key("principals");
        for (number, item) in problems.items(node, &list).iter().enumerate() {
            let path = list.item(number);
            let Some(fields) = problems.fields(item, &path, &PRINCIPAL) else { continue };
            let issuer = read_text(&fields, "issuer", &path, problems);
            let id = read_text(&fields, "id", &path, problems);
            let until = fields.get("until").map(|node| read_time(node, &path.key("until"), problems));
            if let (Some(issuer), Some(id)) = (issuer, id) {
                revoked.principals.push(RevokedPrincipal { number, issuer, id, until: until.flatten() });
            }
        }
    }
    if let Some(node) = fields.get("groups") {
        revoked.groups = problems.list_of(node, &path.key("groups"), plain_text);
    }
    if let Some(node) = fields.get("tokens_sha256") {
        revoked.tokens_sha256 = token_hashes(node, &path.key("tokens_sha256"), problems);
    }
    if let Some(node) = fields.get("keys") {
        let list = path.key("keys");
        for (number, item) in problems.items(node, &list).iter().enumerate() {
            let path = list.item(number);
            let Some(fields) = problems.fields(item, &path, &KEY) else { continue };
            let issuer = read_text(&fields, "issuer", &path, problems);
            let kid = read_text(&fields, "kid", &path, problems);
            if let (Some(mut issuer), Some(kid)) = (issuer, kid) {
                issuer.number = number;
                revoked.keys.push((issuer, kid));
            }
        }
    }
    revoked
}

fn read_text(
    fields: &Fields<'_>,
    name: &str,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<At<Box<str>>> {
    let node = required(fields, name, path, problems)?;
    problems.text(node, &path.key(name)).map(boxed)
}
