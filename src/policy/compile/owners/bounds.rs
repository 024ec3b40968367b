//! What an owner's document may say: nothing beyond what the platform gives it, and no more than can be decided quickly.

use super::{Adder, is_unnamed};
use crate::policy::compile::client_ip::{MOST_NAMED, NamedNetworks};
use crate::policy::diagnostic::{Path, Problems};
use crate::policy::document::Document;
use crate::policy::document::limits::{MAX_NETWORKS, MAX_PAIRS};
use crate::scope::{BackendSet, Scope, ScopeSet};

impl Adder<'_> {
    /// Everything that is given must have been given to the owner: patterns by containment, scopes one by one. Names of
    /// networks are the owner's own.
    pub(super) fn check_bounds(&self, document: &Document, problems: &mut Problems) {
        for (name, _) in &document.networks {
            if self.platform.networks.iter().any(|(known, _)| known.value == name.value) {
                problems
                    .error(
                        name.place,
                        &Path::Root.key("networks").key(&name.value),
                        format!("`{}` is a network of the platform", name.value),
                    )
                    .help("choose another name; the platform's can be used without defining it");
            }
        }
        let grants = document.grants.iter().map(|grant| (&grant.path, &grant.tenants));
        let named = document.restrictions.iter().filter(|rule| !is_unnamed(rule));
        let bound = named.map(|rule| (&rule.path, &rule.tenants));
        let tenants = self.entry.tenants.iter().map(|bound| format!("`{}`", bound.value.as_str()));
        let mut given: Vec<String> = tenants.take(MOST_NAMED + 1).collect();
        if given.len() > MOST_NAMED {
            given.truncate(MOST_NAMED);
            given.push("...".to_owned());
        }
        let given = given.join(", ");
        for (path, tenants) in grants.chain(bound) {
            for tenant in tenants {
                if !self.bounds.covers(&tenant.value) {
                    problems
                        .error(
                            tenant.place,
                            &Path::Root.key(path).key("tenants").item(tenant.number),
                            format!("`{}` is not within the owner's tenants", tenant.value.as_str()),
                        )
                        .help(format!("the platform gives `{}` {given}", self.entry.name.value));
                } else if self.excepted.covers(&tenant.value) {
                    problems
                        .error(
                            tenant.place,
                            &Path::Root.key(path).key("tenants").item(tenant.number),
                            format!("`{}` is excepted from the owner's tenants", tenant.value.as_str()),
                        )
                        .help("a rule reaches no tenant that the platform excepts: leave it out");
                }
            }
        }
        for rule in &document.restrictions {
            let meets = Scope::ALL
                .into_iter()
                .any(|scope| self.entry.scopes.contains(scope) && rule.scopes.cover(scope, BackendSet::ALL));
            if !meets {
                problems
                    .error(
                        rule.place,
                        &Path::Root.key(&rule.path).key("scopes"),
                        "none of its scopes is within the owner's: it would bind nothing",
                    )
                    .help(format!(
                        "the platform gives `{}` {}",
                        self.entry.name.value,
                        names(self.entry.scopes)
                    ));
            }
        }
        for grant in &document.grants {
            let beyond = beyond(grant.scopes, self.entry.scopes);
            if let Some(place) = grant.scopes_place
                && !beyond.is_empty()
            {
                problems
                    .error(
                        place,
                        &Path::Root.key(&grant.path).key("scopes"),
                        format!("not within the owner's scopes: {}", names(beyond)),
                    )
                    .help(format!(
                        "the platform gives `{}` {}",
                        self.entry.name.value,
                        names(self.entry.scopes)
                    ));
            }
        }
    }

    /// A name stands for any number of networks, and may be written any number of times.
    pub(super) fn refuse_many_networks(&self, document: &Document, problems: &mut Problems) -> bool {
        let networks = NamedNetworks::of_owner(document, self.networks, &mut Problems::of(""));
        let mut count = 0;
        for rule in &document.restrictions {
            count += rule.networks.iter().map(|entry| networks.count(&entry.value)).sum::<usize>();
            if count > MAX_NETWORKS {
                problems
                    .error(
                        rule.place,
                        &Path::Root.key(&rule.path).key("networks"),
                        format!("the restrictions up to this one name more than {MAX_NETWORKS} networks"),
                    )
                    .help("join restrictions of the same networks");
                return true;
            }
        }
        false
    }

    /// A restriction without tenants is on all that its owner has: on as many pairs of group and tenant as if it named them.
    pub(super) fn refuse_many_bounds(&self, document: &Document, problems: &mut Problems) -> bool {
        let mut pairs = 0_usize;
        for rule in document.restrictions.iter().filter(|rule| is_unnamed(rule)) {
            pairs = pairs.saturating_add(rule.groups.len().saturating_mul(self.entry.tenants.len()));
            if pairs > MAX_PAIRS {
                problems
                    .error(
                        rule.place,
                        &Path::Root.key(&rule.path),
                        format!(
                            "the restrictions up to this one that name no tenants are on more than {MAX_PAIRS} pairs of \
                             a group and a tenant of the owner"
                        ),
                    )
                    .help("name the tenants by patterns, or the groups by one of the platform's `group_names`");
                return true;
            }
        }
        false
    }
}

fn beyond(scopes: ScopeSet, bounds: ScopeSet) -> ScopeSet {
    scopes.iter().filter(|scope| !bounds.contains(*scope)).collect()
}

fn names(scopes: ScopeSet) -> String {
    let names: Vec<_> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
    names.join(", ")
}
