//! What `deploy/` ships for Kubernetes and Docker Compose, judged by the tools that read it: helm renders, schemas
//! validate, the command line checks policies, and the real module runs on what the kubelet would mount.
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

mod chart;
mod compose;
mod helm;
mod image;
mod kubelet;
mod networks;
mod projected;
mod provisioning;
mod schemas;
mod shipping;
mod yaml;
