//! The module in a real nginx: every test starts its own, on ports and in a directory of its own.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "everything here is a test"
)]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod attack_again;
mod attack_fallbacks;
mod attack_headers;
mod audit;
mod audit_load;
mod bare;
mod caching;
mod checks;
mod client_ip;
mod compiled;
mod decisions;
mod examples;
mod fallbacks;
mod flips;
mod go_proxy;
mod grafana_gateway;
mod headers;
mod issuers;
mod lifecycle;
mod metrics;
mod misuse;
mod monitoring;
mod no_answer;
mod owners;
mod paths;
mod prometheus;
mod provider;
mod redirects;
mod revocation;
mod self_check;
mod service_accounts;
mod shadow;
mod tokens;
mod websocket;
