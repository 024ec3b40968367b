//! Revocation: principals, groups and tokens that no longer count.

use super::{RevokedEntry, boxed, plain_text, required, token_hashes};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::reader::Fields;

/// The keys of the section.
pub(in crate::policy) const KNOWN: [&str; 3] = ["principals", "groups", "tokens_sha256"];
/// The keys of one principal.
pub(in crate::policy) const PRINCIPAL: [&str; 2] = ["issuer", "id"];

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
            let text = |name: &str, problems: &mut Problems| {
                let node = required(&fields, name, &path, problems)?;
                problems.text(node, &path.key(name)).map(boxed)
            };
            let (issuer, id) = (text("issuer", problems), text("id", problems));
            if let (Some(mut issuer), Some(id)) = (issuer, id) {
                issuer.number = number;
                revoked.principals.push((issuer, id));
            }
        }
    }
    if let Some(node) = fields.get("groups") {
        revoked.groups = problems.list_of(node, &path.key("groups"), plain_text);
    }
    if let Some(node) = fields.get("tokens_sha256") {
        revoked.tokens_sha256 = token_hashes(node, &path.key("tokens_sha256"), problems);
    }
    revoked
}
