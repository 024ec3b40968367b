//! How it is said to people until when, from where and for what tenants are reached: for `access` and `diff`.

use super::timestamp;
use crate::access::{Bound, NamedNetwork, Reach, Until};
use crate::scope::{Scope, ScopeSet};
use std::fmt::Write as _;

/// A longer text of a network's name and addresses is cut, in bytes.
const MAX_NETWORK: usize = 120;

/// When it ends; `None` for never.
pub(super) fn end(reach: &Reach) -> Option<String> {
    match reach.until {
        Some(Until::Time(time)) => Some(timestamp(time)),
        Some(Until::Always) | None => None,
    }
}

/// Several sets of patterns; what several patterns have in common is `a & b`.
pub(super) fn sets(all: &[Vec<String>], separator: &str) -> String {
    all.iter().map(|patterns| patterns.join(" & ")).collect::<Vec<_>>().join(separator)
}

/// A name with what it stands for; without where that would fill the line. The JSON form has it all.
pub(super) fn short(network: &NamedNetwork) -> String {
    let NamedNetwork { name, networks } = network;
    let all = networks.join(" ");
    match networks.as_slice() {
        [only] if only == name => only.clone(),
        _ if name.len() + all.len() > MAX_NETWORK => format!("{name} ({} networks)", networks.len()),
        _ => format!("{name} ({all})"),
    }
}

/// The places for people.
pub(super) fn from_where(reach: &Reach) -> String {
    let mut text = if reach.from.is_empty() { "anywhere".to_owned() } else { demands(&reach.from) };
    if !reach.watched.is_empty() {
        // Writing to a string does not fail.
        _ = write!(text, " [shadow: {}]", demands(&reach.watched));
    }
    text
}

/// The networks of everything that must be satisfied.
pub(super) fn demands(bounds: &[Bound]) -> String {
    let places = |bound: &Bound| bound.networks.iter().map(short).collect::<Vec<_>>().join(", ");
    bounds.iter().map(places).collect::<Vec<_>>().join(" and ")
}

/// Scopes for people, shorter where they are what a grant without `scopes` gives.
pub(super) fn scopes_text(scopes: &[String]) -> String {
    let reads: Vec<&str> = ScopeSet::reads().iter().map(Scope::name).collect();
    if !reads.iter().all(|read| scopes.iter().any(|scope| scope == read)) {
        return scopes.join(" ");
    }
    let rest = scopes.iter().map(String::as_str).filter(|scope| !reads.contains(scope));
    std::iter::once("*:read").chain(rest).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_networks_are_counted_instead() {
        let named = |name: &str, networks: &[&str]| {
            short(&NamedNetwork {
                name: name.to_owned(),
                networks: networks.iter().map(ToString::to_string).collect(),
            })
        };
        assert_eq!(
            named("office", &["203.0.113.0/24", "2001:db8::/32"]),
            "office (203.0.113.0/24 2001:db8::/32)"
        );
        assert_eq!(named("office", &["203.0.113.0/24"; 40]), "office (40 networks)");
        assert_eq!(named("192.0.2.9", &["192.0.2.9"]), "192.0.2.9");
    }

    #[test]
    fn every_read_is_said_in_one_word() {
        let names = |set: ScopeSet| set.iter().map(|scope| scope.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(scopes_text(&names(ScopeSet::reads())), "*:read");
        let mut more = ScopeSet::reads();
        more.insert(Scope::LogsDelete);
        assert_eq!(scopes_text(&names(more)), "*:read logs:delete");
        assert_eq!(scopes_text(&["logs:read".to_owned()]), "logs:read");
    }
}
