//! tenantauth: the authorization layer for Grafana OSS over Mimir, Loki and Tempo, inside nginx.

pub mod access;
pub mod audit;
pub mod cli;
pub mod client_ip;
pub mod connection;
pub mod decision;
pub mod doctor;
pub mod engine;
pub mod fault;
pub mod fetch;
pub mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod grafana_gateway;
pub(crate) mod lines;
#[cfg(any(feature = "module", feature = "vendored"))]
pub mod lua;
pub mod metrics;
pub mod network;
pub mod policy;
pub mod reason;
pub(crate) mod replay;
pub mod route;
pub mod scope;
pub mod tenant;
pub(crate) mod text;
pub mod token;

#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
