//! The pages of identity providers: what they tell Grafana and what they tell tenantauth fit together.

use super::{Block, blocks_of};
use std::collections::BTreeSet;
use std::path::Path;

/// What Grafana reads of the sections that are shown, from its `conf/defaults.ini`. Grafana ignores what it does not
/// know, without a word.
const GRAFANA_INI: [(&str, &[&str]); 4] = [
    (
        "auth.azuread",
        &[
            "allowed_organizations",
            "auth_url",
            "client_id",
            "client_secret",
            "enabled",
            "scopes",
            "token_url",
            "use_pkce",
            "use_refresh_token",
        ],
    ),
    (
        "auth.generic_oauth",
        &[
            "api_url",
            "auth_url",
            "client_id",
            "client_secret",
            "enabled",
            "login_attribute_path",
            "name",
            "scopes",
            "token_url",
            "use_pkce",
            "use_refresh_token",
        ],
    ),
    (
        "auth.okta",
        &[
            "api_url",
            "auth_url",
            "client_id",
            "client_secret",
            "enabled",
            "scopes",
            "token_url",
            "use_pkce",
            "use_refresh_token",
        ],
    ),
    ("dataproxy", &["send_user_header"]),
];

/// The keys of an ini block, each behind its section: `[a]` and `b = c` give `a.b` and `c`.
fn ini(block: &Block) -> Vec<(String, String)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in block.text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{}: `{line}`", block.place));
        found.push((format!("{section}.{key}"), value.to_owned()));
    }
    found
}

/// Grafana knows each key, asks for refreshed ID tokens, and is the audience that the policy of the page expects.
#[test]
fn grafana_and_the_policy_of_a_provider_fit_together() {
    let known: BTreeSet<String> = GRAFANA_INI
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
        .collect();
    let mut checked = BTreeSet::new();
    for block in blocks_of("ini") {
        let page = block.place.split(':').next().unwrap().to_owned();
        let keys = ini(&block);
        for (key, _) in &keys {
            assert!(known.contains(key), "{}: `{key}`", block.place);
        }
        let value = |name: &str| {
            let found = keys.iter().find(|(key, _)| key.starts_with("auth.") && key.ends_with(name));
            found.unwrap_or_else(|| panic!("{}: no `{name}`", block.place)).1.clone()
        };
        assert_eq!((&*value(".enabled"), &*value(".use_refresh_token")), ("true", "true"), "{page}");
        assert!(value(".scopes").split(' ').any(|scope| scope == "openid"), "{page}");
        assert!(value(".client_secret").starts_with("$__file{"), "{page}");
        let audience = format!("audiences: [{}]", value(".client_id"));
        let policies = blocks_of("yaml").filter(|policy| policy.place.starts_with(&format!("{page}:")));
        let policies: Vec<Block> = policies.collect();
        assert!(
            !policies.is_empty() && policies.iter().all(|policy| policy.text.contains(&audience)),
            "{page}"
        );
        checked.insert(Path::new(&page).file_stem().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(checked, ["cognito", "entra-id", "gitlab", "keycloak", "okta"].map(str::to_owned).into());
}
