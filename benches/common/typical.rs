//! The request that contract section 12 measures: a data source query of a dashboard as Grafana sends it to Loki,
//! with 20 headers, a 3 kB RS256 token of somebody in 50 groups, and the signed cookie of the Grafana Gateway.

use crate::support::site::COOKIE_KEY;
use crate::support::tokens::{claims_with, key};
use serde_json::{Value, json};

/// The tenant it asks for.
pub(crate) const TENANT: &str = "team-a";
/// Where the user is: inside the policy's `office`.
pub(crate) const OFFICE: &str = "203.0.113.5";
/// Somewhere else.
pub(crate) const HOME: &str = "198.18.0.5";
/// Path of the request.
pub(crate) const PATH: &str = "/loki/api/v1/query_range";
/// The query of its URL.
pub(crate) const QUERY: &str = "direction=backward&end=1795312800000000000&limit=1000\
    &query=%7Bnamespace%3D%22checkout%22%7D+%7C%3D+%22error%22&start=1795309200000000000&step=15000ms";

/// A policy such as a first rollout has; `@DIR@` holds the keys. The user is in `team-a` and `oncall`, and the
/// restriction applies.
pub(crate) const POLICY: &str = r#"version: 1
issuers:
  - name: idp
    issuer: https://login.example.test/v2.0
    audiences: [grafana]
    jwks_file: @DIR@/jwks.json
authorizations:
  group1: [tenant1]
  group3: [tenant1, tenant2]
  oncall: [tenant1]
  sre: ["*"]
grants:
  - name: team-a-owns-team-a
    groups: [team-a]
    tenants: [team-a, "team-a-*"]
    except_tenants: [team-a-hr]
    scopes: ["logs:read", "logs:write", "metrics:*", "traces:read", "rules:*"]
networks:
  office: [203.0.113.0/24, "2001:db8::/32"]
  vpn: [198.51.100.7]
client_ip:
  source: cookie
  keys_file: @DIR@/client-ip.keys
restrictions:
  - name: logs-from-office
    scopes: ["logs:*"]
    networks: [office, vpn]
    except_groups: [sre]
"#;

/// The token: good for a day, 3 kB, 50 groups of which the policy knows two.
///
/// # Panics
/// Where it would be of another size.
pub(crate) fn token() -> String {
    let token = token_of(50, "user-1");
    assert!((2900..3200).contains(&token.len()), "the token has {} bytes", token.len());
    token
}

/// Such a token of somebody else, in so many groups.
pub(crate) fn token_of(groups: usize, subject: &str) -> String {
    key().token(&claims_of(groups, subject))
}

/// Its claims: of the groups `team-a` first, then `oncall`, then those that no policy knows.
pub(crate) fn claims_of(groups: usize, subject: &str) -> Value {
    let known = ["team-a", "oncall"].map(str::to_owned);
    let others = (known.len()..groups).map(|n| format!("{n:08x}00004000a00000000000aa{n:02x}"));
    let groups: Vec<String> = known.into_iter().take(groups).chain(others).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    claims_with(&groups, json!({"sub": subject, "exp": crate::support::now() + 86_400}))
}

/// The header lines but `Host`, which whoever sends them adds as the twentieth. The cookie is good for five minutes.
pub(crate) fn headers(token: &str) -> Vec<(&'static str, String)> {
    let mut headers: Vec<(&str, String)> = [
        ("User-Agent", "Grafana/12.1.0"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "gzip"),
        // The access token that `oauthPassThru` sends beside the identity token; opaque for many providers.
        ("Authorization", "Bearer 4f7d1c0e9a2b4c6d8e0f1a2b3c4d5e6f7a8b9c0d"),
        ("X-Scope-OrgID", TENANT),
        ("X-Dashboard-Uid", "c3f1a9b2-7e54-4d0c-9c0e-5a1d7f3e2b11"),
        ("X-Dashboard-Title", "Checkout"),
        ("X-Panel-Id", "12"),
        ("X-Panel-Plugin-Id", "logs"),
        ("X-Panel-Title", "Errors"),
        ("X-Datasource-Uid", "P8E80F9AEF21F6940"),
        ("X-Query-Group-Id", "5d9a1e34-3f0b-4a61-9b0c-2f6f8c0d7e42"),
        ("X-Grafana-Org-Id", "1"),
        ("X-Grafana-User", "ada"),
        ("X-Loki-Response-Encoding-Flags", "categorize-labels"),
        ("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("Tracestate", "grafana=1"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec();
    headers.push(("X-Id-Token", token.to_owned()));
    headers.push(("Cookie", COOKIE_KEY.pair(OFFICE)));
    assert_eq!(headers.len() + 1, 20, "with `Host`");
    headers
}
