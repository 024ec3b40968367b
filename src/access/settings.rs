//! What differs between two policies outside of their rules: issuers, service accounts, revocations, sources.

use super::{NamedNetwork, written};
use crate::client_ip::{CookieKeys, Source};
use crate::network::NetworkSet;
use crate::policy::Compiled;
use crate::policy::snapshot::{Audit, SERVICE, ServiceAccount, Snapshot};
use crate::token::algorithm::Algorithm;
use serde_json::{Value as Data, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The section of the document.
    pub section: &'static str,
    /// Whose principal it is about: the name of an issuer, or `service`. `None` where it is about no principal.
    pub issuer: Option<String>,
    /// Of what in it: the name of an issuer, of a service account or of a group, or a principal's id; empty for the
    /// section itself.
    pub name: String,
    /// What about it: a key, or empty for all of it.
    pub what: &'static str,
    /// Under the old policy; `None` where it is not there.
    pub old: Option<Shown>,
    /// Under the new policy.
    pub new: Option<Shown>,
}

/// What a policy says, for people and as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// On one line.
    pub text: String,
    /// The same without any joining.
    pub data: Data,
}

impl Shown {
    fn of(text: impl Into<String>, data: Data) -> Self {
        Self { text: text.into(), data }
    }
}

/// What is said of one thing: keys and values.
type Said = Vec<(&'static str, Value)>;

/// A value, as it is shown and as it counts.
struct Value {
    shown: Shown,
    meaning: String,
}

impl Value {
    fn of(text: impl Into<String>, data: Data) -> Self {
        let text = text.into();
        Self { meaning: text.clone(), shown: Shown { text, data } }
    }

    /// A text that is itself the data.
    fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::of(text.clone(), text.into())
    }

    /// A list in which the order does not count.
    fn set<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        let shown = Shown::of(texts.join(", "), texts.clone().into());
        texts.sort_unstable();
        // Quoted: a text may hold what separates them.
        Self { shown, meaning: format!("{texts:?}") }
    }
}

/// Everything that differs. Neither hashes nor keys are told, only how many there are.
pub fn settings(old: &Compiled, new: &Compiled) -> Vec<Setting> {
    let (a, b) = (&old.snapshot, &new.snapshot);
    let mut found = Vec::new();
    named("issuers", issuers(old), issuers(new), &mut found);
    let mut whole = |section, old: Value, new: Value| {
        if old.meaning != new.meaning {
            let side = |value: Value| (!value.shown.text.is_empty()).then_some(value.shown);
            let (old, new) = (side(old), side(new));
            found.push(Setting { section, issuer: None, name: String::new(), what: "", old, new });
        }
    };
    whole("token_headers", token_headers(a), token_headers(b));
    whole("client_ip", client_ip(a), client_ip(b));
    let audit = |snapshot: &Snapshot| {
        let Audit { query, max_bytes } = snapshot.audit;
        let query = format!("{query:?}").to_lowercase();
        let data = json!({"query": query, "max_bytes": max_bytes});
        Value::of(format!("query: {query}, max_bytes: {max_bytes}"), data)
    };
    whole("audit", audit(a), audit(b));
    let help = |snapshot: &Snapshot| {
        let help = snapshot.denial_help.as_deref();
        Value::of(help.unwrap_or_default(), json!({"help": help}))
    };
    whole("denials", help(a), help(b));
    whole("mode", mode(a), mode(b));
    named("service_accounts", accounts(a), accounts(b), &mut found);
    tokens(a, b, &mut found);
    default_tenants(a, b, &mut found);
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
            let texts = said.iter().map(|(what, value)| format!("{what}: {}", value.shown.text));
            let data = said.iter().map(|(what, value)| ((*what).to_owned(), value.shown.data.clone()));
            Shown::of(texts.collect::<Vec<_>>().join("; "), Data::Object(data.collect()))
        };
        let setting = |what, old, new| Setting { section, issuer: None, name: name.clone(), what, old, new };
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
            (Some(Some(file)), _) => {
                let file = file.display().to_string();
                Value::of(file.clone(), json!({"jwks_file": file}))
            }
            (_, Some(Some(endpoint))) => match endpoint.jwks_url.as_deref() {
                Some(url) => Value::of(url, json!({"jwks_url": url})),
                None => Value::of("discovery", json!({"discovery": true})),
            },
            _ => Value::of("in the policy", json!({"jwks": true})),
        };
        let bare = snapshot.groups.is_bare(at);
        let said = vec![
            ("issuer", Value::text(&*rules.issuer)),
            ("audiences", Value::set(rules.audiences.iter().map(|audience| &**audience))),
            ("algorithms", Value::set(rules.algorithms.iter().map(Algorithm::name))),
            ("groups_claim", Value::set(rules.groups_claim.iter().map(ToString::to_string))),
            ("groups_format", Value::text(rules.groups_format.name())),
            ("user_claim", Value::text(&*rules.user_claim)),
            ("leeway", Value::of(format!("{}s", rules.leeway), json!({"seconds": rules.leeway}))),
            ("bare_groups", Value::of(bare.to_string(), bare.into())),
            ("keys", keys),
        ];
        (name.to_string(), said)
    })
    .collect()
}

fn accounts(snapshot: &Snapshot) -> BTreeMap<String, Said> {
    let said = |account: &ServiceAccount| {
        let networks = match &account.networks {
            Some(networks) => {
                let named = written(&account.network_names);
                let shown = Shown::of(in_words(&named), json!(named));
                Value { shown, meaning: ranges(networks) }
            }
            None => Value::of("anywhere", Data::Null),
        };
        let (behind_proxy, tokens) = (account.behind_proxy, account.token_sha256.len());
        vec![
            ("tokens", Value::of(tokens.to_string(), json!({"count": tokens}))),
            ("networks", networks),
            ("behind_proxy", Value::of(behind_proxy.to_string(), behind_proxy.into())),
        ]
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
                issuer: None,
                name: account.name.to_string(),
                what: "tokens",
                old: Some(Shown::of(format!("{gone} that are gone"), json!({"removed": gone}))),
                new: Some(Shown::of(format!("{come} new"), json!({"added": come}))),
            });
        }
    }
}

/// Accounts that ask for another tenant where they name none.
fn default_tenants(old: &Snapshot, new: &Snapshot, found: &mut Vec<Setting>) {
    for account in &new.service_accounts {
        let before = old.service_accounts.iter().find(|known| known.name == account.name);
        let Some(before) = before.filter(|before| before.tenant != account.tenant) else { continue };
        let text = |tenant: &str| Shown::of(tenant, tenant.into());
        found.push(Setting {
            section: "service_accounts",
            issuer: None,
            name: account.name.to_string(),
            what: "tenant",
            old: before.tenant.as_deref().map(text),
            new: account.tenant.as_deref().map(text),
        });
    }
}

/// The letter case of a header's name does not count.
fn token_headers(snapshot: &Snapshot) -> Value {
    let text = snapshot.token_headers.join(", ");
    let data = snapshot.token_headers.iter().map(|header| &**header).collect::<Vec<&str>>().into();
    Value { meaning: text.to_ascii_lowercase(), shown: Shown { text, data } }
}

fn client_ip(snapshot: &Snapshot) -> Value {
    match &snapshot.client_ip {
        None => Value::of("", Data::Null),
        Some(Source::Cookie { name, keys: CookieKeys::Signed(file) }) => {
            let file = file.display().to_string();
            let data = json!({"source": "cookie", "cookie": name, "keys_file": file});
            Value::of(format!("cookie {name}, keys_file {file}"), data)
        }
        Some(Source::Cookie { name, keys: CookieKeys::Unsigned }) => {
            let data = json!({"source": "cookie", "cookie": name, "unsigned": true});
            Value::of(format!("cookie {name}, unsigned"), data)
        }
        Some(Source::RemoteAddr) => Value::of("remote_addr", json!({"source": "remote_addr"})),
        Some(Source::Header { name, trusted_peers }) => {
            let text = format!("header {name}, trusted_peers {}", ranges(trusted_peers));
            let peers: Vec<_> = trusted_peers.ranges().map(range).collect();
            let data = json!({"source": "header", "header": name, "trusted_peers": peers});
            Value { meaning: text.to_ascii_lowercase(), shown: Shown { text, data } }
        }
    }
}

/// Names with what they stand for.
fn in_words(named: &[NamedNetwork]) -> String {
    let words = |one: &NamedNetwork| match one.networks.as_slice() {
        [only] if *only == one.name => only.clone(),
        all => format!("{} ({})", one.name, all.join(" ")),
    };
    named.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// The addresses of a set, however it is written.
fn ranges(networks: &NetworkSet) -> String {
    networks.ranges().map(range).collect::<Vec<_>>().join(", ")
}

fn range((first, last): (IpAddr, IpAddr)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// `None` for a time that no calendar has.
fn timestamp(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

fn mode(snapshot: &Snapshot) -> Value {
    let Some(until) = snapshot.shadow_until else {
        return Value::of("enforce", json!({"mode": "enforce", "shadow_until": null}));
    };
    let time = timestamp(until);
    let text = time.as_ref().map_or_else(|| "shadow".to_owned(), |time| format!("shadow until {time}"));
    Value::of(text, json!({"mode": "shadow", "shadow_until": time}))
}

fn revoked(old: &Snapshot, new: &Snapshot, found: &mut Vec<Setting>) {
    // Whose, and whom or what.
    type Whom = (Option<String>, String);
    let always = || Shown::of("revoked", true.into());
    let until = |until: u64| match timestamp(until) {
        Some(time) => Shown::of(format!("revoked until {time}"), json!({"until": time})),
        None => always(),
    };
    let of_issuer = |snapshot: &Snapshot, issuer: usize, id: &str| -> Whom {
        (snapshot.issuer_names.get(issuer).map(ToString::to_string), id.to_owned())
    };
    let principals = |snapshot: &Snapshot| -> BTreeMap<Whom, Shown> {
        let users = snapshot.revoked.principals();
        let users = users.map(|(issuer, id, ends)| (of_issuer(snapshot, issuer, id), until(ends)));
        let accounts = snapshot.service_accounts.iter().filter(|account| account.revoked_until > 0);
        let accounts = accounts.map(|account| {
            ((Some(SERVICE.to_owned()), account.name.to_string()), until(account.revoked_until))
        });
        users.chain(accounts).collect()
    };
    let groups = |snapshot: &Snapshot| -> BTreeMap<Whom, Shown> {
        snapshot.groups.revoked().iter().map(|group| ((None, group.to_string()), always())).collect()
    };
    let keys = |snapshot: &Snapshot| -> BTreeMap<Whom, Shown> {
        let keys = snapshot.revoked.keys();
        keys.map(|(issuer, kid)| (of_issuer(snapshot, issuer, kid), always())).collect()
    };
    for (what, old, new) in [
        ("principals", principals(old), principals(new)),
        ("groups", groups(old), groups(new)),
        ("keys", keys(old), keys(new)),
    ] {
        let names: BTreeSet<&Whom> = old.keys().chain(new.keys()).collect();
        for whom in names {
            let (old, new) = (old.get(whom).cloned(), new.get(whom).cloned());
            if old != new {
                let (issuer, name) = whom.clone();
                found.push(Setting { section: "revoked", issuer, name, what, old, new });
            }
        }
    }
    let gone = old.revoked.tokens().difference(new.revoked.tokens()).count();
    let come = new.revoked.tokens().difference(old.revoked.tokens()).count();
    if gone + come > 0 {
        let count = |count: usize, word: &str| {
            (count > 0).then(|| Shown::of(count.to_string(), json!({word: count})))
        };
        found.push(Setting {
            section: "revoked",
            issuer: None,
            name: String::new(),
            what: "tokens_sha256",
            old: count(gone, "removed"),
            new: count(come, "added"),
        });
    }
}
