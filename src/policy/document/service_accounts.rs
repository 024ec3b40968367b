//! Service accounts.

use super::networks::network_entry;
use super::rules::tenant_pattern;
use super::{ServiceAccountEntry, boxed, check_name, refuse_empty, required, token_hashes};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::node::Node;
use crate::policy::reader::{At, Fields};

/// The keys of one service account.
pub(in crate::policy) const KNOWN: [&str; 5] = ["name", "token_sha256", "tenant", "networks", "behind_proxy"];

pub(super) fn read_service_accounts(
    fields: &Fields<'_>,
    problems: &mut Problems,
) -> Vec<ServiceAccountEntry> {
    let Some(node) = fields.get("service_accounts") else { return Vec::new() };
    let list = Path::Root.key("service_accounts");
    let mut accounts = Vec::new();
    for (number, item) in problems.items(node, &list).iter().enumerate() {
        let path = list.item(number);
        let Some(fields) = problems.fields(item, &path, &KNOWN) else { continue };
        let name = required(&fields, "name", &path, problems)
            .and_then(|node| problems.text(node, &path.key("name")))
            .map(boxed);
        if let Some(name) = &name {
            check_account_name(name, &path.key("name"), problems);
        }
        let token_sha256 = match required(&fields, "token_sha256", &path, problems) {
            Some(node) => {
                let path = path.key("token_sha256");
                refuse_empty(node, &path, problems);
                token_hashes(node, &path, problems)
            }
            None => Vec::new(),
        };
        let tenant = fields.get("tenant").and_then(|node| read_tenant(node, &path.key("tenant"), problems));
        let networks = fields.get("networks").map(|node| {
            let path = path.key("networks");
            refuse_empty(node, &path, problems);
            problems.list_of(node, &path, network_entry)
        });
        let behind_proxy = fields
            .get("behind_proxy")
            .and_then(|node| problems.boolean(node, &path.key("behind_proxy")))
            .unwrap_or_default();
        let Some(name) = name else { continue };
        let place = item.place;
        accounts.push(ServiceAccountEntry {
            place,
            number,
            name,
            token_sha256,
            tenant,
            networks,
            behind_proxy,
        });
    }
    accounts
}

/// One tenant: a request asks for tenants, not for patterns.
fn read_tenant(node: &Node, path: &Path<'_>, problems: &mut Problems) -> Option<At<Box<str>>> {
    let text = problems.text(node, path)?;
    let pattern = tenant_pattern(problems, text.clone(), path)?;
    let tenant = pattern.literal();
    if tenant.is_none() {
        problems
            .error(node.place, path, format!("`{pattern}` is a pattern: an account asks for one tenant"))
            .help("write one tenant out; what the account may reach, its grants say");
    }
    tenant.map(|tenant| At::new(tenant.into(), node.place))
}

/// With a colon in it the name could not be the user of `Basic`, which ends at the first one, and with a `*` it would
/// read as a pattern.
fn check_account_name(name: &At<Box<str>>, path: &Path<'_>, problems: &mut Problems) {
    if name.value.contains([':', '*']) {
        problems
            .error(name.place, path, format!("`{}` cannot be an account's name", name.value))
            .help("choose a name without `:` and `*`");
    } else {
        check_name(name, path, problems);
    }
}
