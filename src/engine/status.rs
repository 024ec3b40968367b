//! What `status()` says of a worker. Holds no secret.

use super::{Engine, Live, Predecessor, keys, lock, timestamp, unix_now};
use crate::policy::OwnerState;
use crate::policy::diagnostic::Diagnostic;
use serde_json::{Value, json};

/// The state of a worker whose engine was never started, with the same members as [`Engine::status`].
///
/// `problem`: why `init_worker` failed, where it did.
pub fn of_no_engine(problem: Option<&str>) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "serving": false,
        "policy": null,
        "revision": null,
        "loaded_at": null,
        "last_reload_successful": false,
        "problems": problem.as_slice(),
        "policy_source": null,
        "issuers": [],
        "owners": [],
        "mode": null,
        "shadow_until": null,
        "warnings": [],
        "token_cache_entries": 0,
        "client_ip_keys": [],
        "stamping": null,
    })
}

/// The state of a worker that stamps addresses and has no policy, with the same members.
///
/// `can_stamp`: as far as this worker knows. `keys`: id, and `signs` or `verifies`. `problems`: a line each.
pub fn of_stamping(can_stamp: bool, keys: &[(String, &'static str)], problems: &[String]) -> Value {
    let mut status = of_no_engine(None);
    if let Some(status) = status.as_object_mut() {
        status.insert("problems".into(), json!(problems));
        status.insert("client_ip_keys".into(), keys_json(keys));
        status.insert("stamping".into(), can_stamp.into());
    }
    status
}

fn keys_json(keys: &[(String, &'static str)]) -> Value {
    keys.iter().map(|(key, usage)| json!({"key": key, "use": usage})).collect()
}

impl Engine {
    /// The state as JSON, for `status()`. Holds no secret.
    pub fn status(&self) -> Value {
        let live = self.live();
        let live = live.as_deref();
        let last = lock(&self.last_reload);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "serving": live.is_some(),
            "policy": self.options.policy.display().to_string(),
            "revision": live.map(|live| &*live.compiled.snapshot.revision),
            "loaded_at": live.and_then(|live| timestamp(live.loaded_at)),
            "last_reload_successful": last.successful,
            "problems": last.problems,
            "policy_source": live.map(|_| match last.fallen_back {
                None => "policy",
                Some(Predecessor::SharedDict) => "shared_dict",
                Some(Predecessor::StateDir) => "state_dir",
            }),
            "issuers": live.map_or_else(Vec::new, |live| {
                self.issuers(live).map(|issuer| issuer.status(unix_now())).collect()
            }),
            "owners": live.map_or_else(Vec::new, |live| {
                live.owners
                    .iter()
                    .map(|owner| json!({
                        "name": owner.name,
                        "contact": owner.contact,
                        // While the platform's document is refused, what owners write is not looked at: theirs is
                        // kept like everything else.
                        "state": match owner.state {
                            OwnerState::Current if !last.successful && !last.only_keys => {
                                OwnerState::LastGood.name()
                            }
                            state => state.name(),
                        },
                        "revision": owner.revision,
                        "problems": owner
                            .diagnostics
                            .iter()
                            .filter(|problem| problem.is_error())
                            .map(Diagnostic::one_line)
                            .collect::<Vec<_>>(),
                    }))
                    .collect()
            }),
            "mode": live.map(|live| {
                if live.compiled.snapshot.is_shadow(unix_now()) { "shadow" } else { "enforce" }
            }),
            "shadow_until": live.and_then(|live| timestamp(live.compiled.snapshot.shadow_until?)),
            "warnings": live.map_or_else(Vec::new, |live| {
                live.warnings(unix_now()).map(|warning| warning.one_line()).collect()
            }),
            "token_cache_entries": lock(&self.worker).tokens.len(),
            "client_ip_keys": keys_json(&live.map_or_else(Vec::new, Live::client_ip_keys)),
            "stamping": null,
        })
    }

    /// What is known of the keys of each issuer of the policy in force.
    pub(super) fn issuers<'l>(&'l self, live: &'l Live) -> impl Iterator<Item = IssuerState<'l>> {
        let exchange = lock(&self.exchange);
        let snapshot = &live.compiled.snapshot;
        snapshot.issuers.iter().zip(&snapshot.issuer_names).enumerate().map(move |(at, (rules, name))| {
            let endpoint = live.compiled.endpoints.get(at).and_then(Option::as_ref);
            let remote = endpoint.and_then(|endpoint| {
                let id = keys::id_of(endpoint);
                exchange.remotes().find(|remote| remote.id == id)
            });
            let held = remote.and_then(|remote| remote.held.as_deref());
            IssuerState {
                name,
                issuer: &rules.issuer,
                source: match (endpoint, live.compiled.key_files.get(at)) {
                    (Some(endpoint), _) if endpoint.jwks_url.is_none() => "discovery",
                    (Some(_), _) => "jwks_url",
                    (None, Some(Some(_))) => "jwks_file",
                    _ => "jwks",
                },
                is_fetched: endpoint.is_some(),
                keys: live.keys.get(at).and_then(Option::as_ref).map_or(0, |keys| keys.len()),
                kids: live
                    .keys
                    .get(at)
                    .and_then(Option::as_deref)
                    .map_or_else(Vec::new, |keys| keys.ids().flatten().map(|kid| &**kid).collect()),
                revoked_kids: {
                    let of_issuer = snapshot.revoked.keys().filter(|(issuer, _)| *issuer == at);
                    let mut kids: Vec<&str> = of_issuer.map(|(_, kid)| kid).collect();
                    kids.sort_unstable();
                    kids
                },
                last_success: match endpoint {
                    Some(_) => held.map(|held| held.fetched_at),
                    None => Some(live.keys_read_at),
                },
                next_refresh: held.map(|held| held.refresh_at),
                failure: remote.and_then(|remote| remote.failure.clone()),
            }
        })
    }
}

/// What is known of the keys of one issuer.
pub(super) struct IssuerState<'l> {
    pub(super) name: &'l str,
    issuer: &'l str,
    /// The key of the policy that says where they are; `discovery` without one.
    source: &'static str,
    pub(super) is_fetched: bool,
    pub(super) keys: usize,
    /// The ids of these keys, those that the policy revokes among them.
    kids: Vec<&'l str>,
    /// The ids that the policy revokes, whether a key has them or not.
    revoked_kids: Vec<&'l str>,
    /// Unix seconds.
    pub(super) last_success: Option<u64>,
    /// Unix seconds.
    next_refresh: Option<u64>,
    failure: Option<keys::Failure>,
}

impl IssuerState<'_> {
    fn status(&self, now: u64) -> Value {
        json!({
            "name": self.name,
            "issuer": self.issuer,
            "source": self.source,
            "keys": self.keys,
            "kids": self.kids,
            "revoked_kids": self.revoked_kids,
            "last_success": self.last_success.and_then(timestamp),
            "age_seconds": self.last_success.map(|time| now.saturating_sub(time)),
            "next_refresh": self.next_refresh.and_then(timestamp),
            "last_error": self.failure.as_ref().map(|failure| json!({
                "time": timestamp(failure.at),
                "error": failure.error,
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Inherited, Options};
    use std::time::Duration;

    #[test]
    fn every_state_has_the_same_members() {
        let options = Options {
            policy: "/nowhere/policy.yaml".into(),
            reload_interval: Duration::from_secs(3600),
            state_dir: None,
        };
        let members = |status: &Value| status.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let engine = Engine::start(options, Inherited::default()).unwrap().status();
        let none = of_no_engine(Some("unknown option `polcy`"));
        assert_eq!(members(&engine), members(&none));
        assert_eq!(members(&of_stamping(true, &[], &[])), members(&none));
        assert_eq!(none["problems"], json!(["unknown option `polcy`"]));
        assert_eq!(of_no_engine(None)["problems"], json!([]));
    }
}
