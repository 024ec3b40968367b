//! What differs between two policies outside of their rules: issuers, service accounts, revocations, sources.

use super::written;
use crate::client_ip::{CookieKeys, Source};
use crate::network::NetworkSet;
use crate::policy::Compiled;
use crate::policy::snapshot::{Audit, ServiceAccount, Snapshot};
use crate::token::algorithm::Algorithm;
use crate::token::claims::ClaimPath;
use std::collections::{BTreeMap, BTreeSet};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The section of the document.
    pub section: &'static str,
    /// Of what in it: the name of an issuer or of a service account; empty for the section itself.
    pub name: String,
    /// What about it: a key, or empty for all of it.
    pub what: &'static str,
    /// Under the old policy; `None` where it is not there.
    pub old: Option<String>,
    /// Under the new policy.
    pub new: Option<String>,
}

/// What is said of one thing: keys and values.
type Said = Vec<(&'static str, Value)>;

/// A value, as people read it and as it counts.
struct Value {
    shown: String,
    meaning: String,
}

impl From<String> for Value {
    fn from(shown: String) -> Self {
        Self { meaning: shown.clone(), shown }
    }
}

/// Everything that differs. Neither hashes nor keys are told, only how many there are.
pub fn settings(old: &Compiled, new: &Compiled) -> Vec<Setting> {
    let (a, b) = (&old.snapshot, &new.snapshot);
    let mut found = Vec::new();
    named("issuers", issuers(old), issuers(new), &mut found);
    let mut whole = |section, old: Value, new: Value| {
        if old.meaning != new.meaning {
            let side = |value: Value| (!value.shown.is_empty()).then_some(value.shown);
            found.push(Setting { section, name: String::new(), what: "", old: side(old), new: side(new) });
        }
    };
    whole("token_headers", token_headers(a), token_headers(b));
    whole("client_ip", client_ip(a), client_ip(b));
    let audit = |snapshot: &Snapshot| {
        let Audit { query, max_bytes } = snapshot.audit;
        format!("query: {query:?}, max_bytes: {max_bytes}").to_lowercase()
    };
    whole("audit", audit(a).into(), audit(b).into());
    whole("mode", mode(a).into(), mode(b).into());
    named("service_accounts", accounts(a), accounts(b), &mut found);
    tokens(a, b, &mut found);
    revoked(a, b, &mut found);
    found
}

/// Compares things that have names.
fn named(
    section: &'static str,
    old: BTreeMap<String, Said>,
    new: BTreeMap<String, Said>,
    found: &mut Vec<Setting>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let all = |said: &Said| {
            said.iter().map(|(what, value)| format!("{what}: {}", value.shown)).collect::<Vec<_>>().join("; ")
        };
        let setting = |what, old, new| Setting { section, name: name.clone(), what, old, new };
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => {
                let both = old.iter().zip(new).filter(|((_, old), (_, new))| old.meaning != new.meaning);
                for ((what, old), (_, new)) in both {
                    found.push(setting(what, Some(old.shown.clone()), Some(new.shown.clone())));
                }
            }
            (old, new) => found.push(setting("", old.map(all), new.map(all))),
        }
    }
}

fn issuers(policy: &Compiled) -> BTreeMap<String, Said> {
    let snapshot = &policy.snapshot;
    let each = snapshot.issuers.iter().zip(&snapshot.issuer_names).enumerate();
    each.map(|(at, (rules, name))| {
        let keys = match (policy.key_files.get(at), policy.endpoints.get(at)) {
            (Some(Some(file)), _) => file.display().to_string(),
            (_, Some(Some(endpoint))) => {
                endpoint.jwks_url.as_deref().map_or_else(|| "discovery".to_owned(), str::to_owned)
            }
            _ => "in the policy".to_owned(),
        };
        let mut audiences: Vec<&str> = rules.audiences.iter().map(|audience| &**audience).collect();
        let shown = audiences.join(", ");
        audiences.sort_unstable();
        let audiences = Value { shown, meaning: audiences.join(", ") };
        let said = vec![
            ("issuer", rules.issuer.to_string().into()),
            ("audiences", audiences),
            (
                "algorithms",
                rules.algorithms.iter().map(Algorithm::name).collect::<Vec<_>>().join(", ").into(),
            ),
            ("groups_claim", claims(&rules.groups_claim)),
            ("groups_format", rules.groups_format.name().to_owned().into()),
            ("user_claim", rules.user_claim.to_string().into()),
            ("leeway", format!("{}s", rules.leeway).into()),
            ("bare_groups", snapshot.groups.is_bare(at).to_string().into()),
            ("keys", keys.into()),
        ];
        (name.to_string(), said)
    })
    .collect()
}

/// The order of claims does not count: their groups are united.
fn claims(paths: &[ClaimPath]) -> Value {
    let mut written: Vec<String> = paths.iter().map(ToString::to_string).collect();
    let shown = written.join(", ");
    written.sort_unstable();
    // Quoted: a name may hold what separates them.
    Value { shown, meaning: format!("{written:?}") }
}

fn accounts(snapshot: &Snapshot) -> BTreeMap<String, Said> {
    let said = |account: &ServiceAccount| {
        let networks = match &account.networks {
            Some(networks) => {
                Value { shown: written(&account.network_names).join(", "), meaning: ranges(networks) }
            }
            None => "anywhere".to_owned().into(),
        };
        let behind_proxy = account.behind_proxy.to_string();
        let tokens = account.token_sha256.len().to_string();
        vec![("tokens", tokens.into()), ("networks", networks), ("behind_proxy", behind_proxy.into())]
    };
    snapshot.service_accounts.iter().map(|account| (account.name.to_string(), said(account))).collect()
}

/// Accounts that have as many tokens as before, and others.
fn tokens(old: &Snapshot, new: &Snapshot, found: &mut Vec<Setting>) {
    for account in &new.service_accounts {
        let Some(before) = old.service_accounts.iter().find(|known| known.name == account.name) else {
            continue;
        };
        let not_in = |mine: &ServiceAccount, others: &ServiceAccount| {
            let is_there = |sum| others.token_sha256.iter().any(|other| other == sum);
            mine.token_sha256.iter().filter(|sum| !is_there(*sum)).count()
        };
        let (gone, come) = (not_in(before, account), not_in(account, before));
        if gone > 0 && come == gone {
            found.push(Setting {
                section: "service_accounts",
                name: account.name.to_string(),
                what: "tokens",
                old: Some(format!("{gone} that are gone")),
                new: Some(format!("{come} new")),
            });
        }
    }
}

/// The letter case of a header's name does not count.
fn token_headers(snapshot: &Snapshot) -> Value {
    let shown = snapshot.token_headers.join(", ");
    Value { meaning: shown.to_ascii_lowercase(), shown }
}

fn client_ip(snapshot: &Snapshot) -> Value {
    let shown = match &snapshot.client_ip {
        None => String::new(),
        Some(Source::Cookie { name, keys: CookieKeys::Signed(file) }) => {
            format!("cookie {name}, keys_file {}", file.display())
        }
        Some(Source::Cookie { name, keys: CookieKeys::Unsigned }) => format!("cookie {name}, unsigned"),
        Some(Source::RemoteAddr) => "remote_addr".to_owned(),
        Some(Source::Header { name, trusted_peers }) => {
            let shown = format!("header {name}, trusted_peers {}", ranges(trusted_peers));
            return Value { meaning: shown.to_ascii_lowercase(), shown };
        }
    };
    shown.into()
}

/// The addresses of a set, however it is written.
fn ranges(networks: &NetworkSet) -> String {
    let text = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    networks.ranges().map(text).collect::<Vec<_>>().join(", ")
}

fn mode(snapshot: &Snapshot) -> String {
    let Some(until) = snapshot.shadow_until else { return "enforce".to_owned() };
    timestamp(until).map_or_else(|| "shadow".to_owned(), |time| format!("shadow until {time}"))
}

/// `None` for a time that no calendar has.
fn timestamp(seconds: u64) -> Option<jiff::Timestamp> {
    i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
}

fn revoked(old: &Snapshot, new: &Snapshot, found: &mut Vec<Setting>) {
    let named = |snapshot: &Snapshot, issuer: usize, id: &str| {
        format!("{} {id}", snapshot.issuer_names.get(issuer).map_or("", |name| name))
    };
    let until = |until: u64| match timestamp(until) {
        Some(time) => format!("revoked until {time}"),
        None => "revoked".to_owned(),
    };
    let principals = |snapshot: &Snapshot| -> BTreeMap<String, String> {
        let users = snapshot.revoked.principals();
        let users = users.map(|(issuer, id, ends)| (named(snapshot, issuer, id), until(ends)));
        let accounts = snapshot.service_accounts.iter().filter(|account| account.revoked_until > 0);
        let accounts =
            accounts.map(|account| (format!("service {}", account.name), until(account.revoked_until)));
        users.chain(accounts).collect()
    };
    let groups = |snapshot: &Snapshot| -> BTreeMap<String, String> {
        snapshot.groups.revoked().iter().map(|group| (group.to_string(), "revoked".to_owned())).collect()
    };
    let keys = |snapshot: &Snapshot| -> BTreeMap<String, String> {
        let keys = snapshot.revoked.keys();
        keys.map(|(issuer, kid)| (named(snapshot, issuer, kid), "revoked".to_owned())).collect()
    };
    for (what, old, new) in [
        ("principals", principals(old), principals(new)),
        ("groups", groups(old), groups(new)),
        ("keys", keys(old), keys(new)),
    ] {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let (old, new) = (old.get(name).cloned(), new.get(name).cloned());
            if old != new {
                found.push(Setting { section: "revoked", name: name.clone(), what, old, new });
            }
        }
    }
    let gone = old.revoked.tokens().difference(new.revoked.tokens()).count();
    let come = new.revoked.tokens().difference(old.revoked.tokens()).count();
    if gone + come > 0 {
        let count = |count: usize, word: &str| (count > 0).then(|| format!("{count} {word}"));
        found.push(Setting {
            section: "revoked",
            name: String::new(),
            what: "tokens_sha256",
            old: count(gone, "that are gone"),
            new: count(come, "new"),
        });
    }
}
