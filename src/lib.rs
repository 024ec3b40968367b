//! tenantauth: the authorization layer for Grafana OSS over Mimir, Loki and Tempo, inside nginx.

pub mod client_ip;
pub mod network;
pub mod reason;
pub mod route;
pub mod scope;
pub mod tenant;
pub mod token;
