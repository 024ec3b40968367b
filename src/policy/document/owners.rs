//! The bounds of owners, and the documents that they write.

use super::limits::{MAX_PAIRS, pairs};
use super::rules::{read_scopes, read_tenants};
use super::{Document, required};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::node::{Node, Value};
use crate::policy::reader::{At, Fields};
use crate::scope::ScopeSet;
use crate::tenant::TenantPattern;

/// The keys of one owner in the platform's document.
pub(in crate::policy) const KNOWN: [&str; 4] = ["tenants", "except_tenants", "scopes", "contact"];
/// The keys of an owner's own document.
pub(in crate::policy) const DOCUMENT: [&str; 5] = ["version", "grants", "networks", "restrictions", "tests"];
/// The most grants, restrictions, networks and tests that an owner's document holds together.
const MAX_ENTRIES: usize = 10_000;

/// Somebody to whom tenants were given, as the platform's document says.
#[derive(Debug)]
pub(in crate::policy) struct OwnerEntry {
    pub(in crate::policy) name: At<Box<str>>,
    pub(in crate::policy) tenants: Vec<At<TenantPattern>>,
    /// Tenants among them that are outside the bounds all the same.
    pub(in crate::policy) except_tenants: Vec<At<TenantPattern>>,
    pub(in crate::policy) scopes: ScopeSet,
    pub(in crate::policy) contact: Option<Box<str>>,
}

pub(super) fn read_owners(fields: &Fields<'_>, problems: &mut Problems) -> Vec<OwnerEntry> {
    let Some(node) = fields.get("owners") else { return Vec::new() };
    let path = Path::Root.key("owners");
    let mut owners = Vec::new();
    for (key, value) in problems.entries(node, &path) {
        let path = path.key(&key.name);
        if !is_file_name(&key.name) {
            problems
                .error(key.place, &path, format!("`{}` cannot name an owner", key.name.escape_debug()))
                .help(
                    "letters, digits, `-`, `_` and `.`, at most 100: it is the name of a file in `owners.d`",
                );
        }
        let Some(fields) = problems.fields(value, &path, &KNOWN) else { continue };
        let tenants =
            read_tenants(required(&fields, "tenants", &path, problems), &path.key("tenants"), problems);
        let except_tenants =
            read_tenants(fields.get("except_tenants"), &path.key("except_tenants"), problems);
        let contact = fields
            .get("contact")
            .and_then(|node| problems.text(node, &path.key("contact")))
            .map(|text| text.value.into());
        let scopes = read_scopes(fields.get("scopes"), &path.key("scopes"), problems);
        let name = At::new(key.name.clone(), key.place);
        let entry = OwnerEntry { name, tenants, except_tenants, scopes, contact };
        refuse_empty_bounds(&entry, &path, problems);
        owners.push(entry);
    }
    owners
}

/// Bounds that hold no tenant are a mistake in their exceptions.
fn refuse_empty_bounds(entry: &OwnerEntry, path: &Path<'_>, problems: &mut Problems) {
    let Some(first) = entry.except_tenants.first() else { return };
    let is_excepted = |tenant: &At<TenantPattern>| {
        entry.except_tenants.iter().any(|excepted| excepted.value.covers(&tenant.value))
    };
    if !entry.tenants.is_empty() && entry.tenants.iter().all(is_excepted) {
        problems
            .error(
                first.place,
                &path.key("except_tenants"),
                "every tenant that the owner is given is excepted as well",
            )
            .help("except fewer tenants, or remove the owner");
    }
}

/// Whether a file of this name can lie in a directory, and nowhere else.
fn is_file_name(name: &str) -> bool {
    name.len() <= 100
        && !name.starts_with('.')
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Reads an owner's document. `{}` is one that gives nothing.
pub(in crate::policy) fn read_document(root: &Node, problems: &mut Problems) -> Document {
    let mut document = Document::default();
    let Some(fields) = problems.fields(root, &Path::Root, &DOCUMENT) else { return document };
    let entries: usize = DOCUMENT
        .iter()
        .filter_map(|name| match &fields.get(name)?.value {
            Value::List(items) => Some(items.len()),
            Value::Map(entries) => Some(entries.len()),
            _ => None,
        })
        .sum();
    if entries > MAX_ENTRIES {
        problems
            .error(root.place, &Path::Root, format!("{entries} entries are more than {MAX_ENTRIES}"))
            .help("join grants of the same groups and tenants");
        return document;
    }
    if fields.get("version").is_some() {
        super::read_version(&fields, problems);
    }
    document.grants = super::read_grants(&fields, problems);
    document.networks = super::read_networks(&fields, problems);
    document.restrictions = super::read_restrictions(&fields, problems);
    document.cases = super::read_cases(&fields, problems);
    let pairs = pairs(&document);
    if pairs > MAX_PAIRS {
        problems
            .error(
                root.place,
                &Path::Root,
                format!("{pairs} pairs of group and tenant in its rules are more than {MAX_PAIRS}"),
            )
            .help("name the tenants by patterns, or the groups by one of the platform's `group_names`");
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::node::parse;
    use crate::policy::tests::HEAD;

    /// What is read of the bounds of owners, where nothing is wrong with them.
    fn read(text: &str) -> Vec<OwnerEntry> {
        let mut problems = Problems::of("p.yaml");
        let root = parse(format!("{HEAD}{text}").as_bytes(), &mut problems).unwrap();
        let owners = crate::policy::document::read(&root, &mut problems).owners;
        assert!(!problems.any_error(), "{:?}", problems.into_sorted());
        owners
    }

    #[test]
    fn tenants_of_the_bounds_can_be_excepted() {
        let owners = read(
            "owners:\n  team-a: { tenants: [team-a, \"team-a-*\"], except_tenants: [team-a-hr, \"team-a-*-hr\"] }\n  \
             team-b: { tenants: [team-b] }\n",
        );
        let excepted: Vec<Vec<&str>> = owners
            .iter()
            .map(|owner| owner.except_tenants.iter().map(|tenant| tenant.value.as_str()).collect())
            .collect();
        assert_eq!(excepted, [vec!["team-a-hr", "team-a-*-hr"], vec![]]);
    }
}
