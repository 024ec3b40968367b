//! What fuzzers run: for each parser of bytes from outside one function, which panics where a property does not hold.
//!
//! The functions are ordinary ones. `fuzz/` drives them with libFuzzer, `cargo test` with the seeds of `fuzz/seeds`.
//! Each says whether it got beyond the first refusal, so that the tests can tell that the seeds mean something.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a property that does not hold is a panic"
)]

mod audit;
mod client_ip;
mod decision;
mod doctor;
mod headers;
#[cfg(feature = "vendored")]
mod pointers;
mod policy;
mod requests;
mod tokens;

/// A function that a fuzzer calls with any bytes.
pub type Target = fn(&[u8]) -> bool;

/// Every target, under the name of its directory of seeds and of its program. What Lua calls is there where Lua is.
pub const TARGETS: &[(&str, Target)] = &[
    ("audit", audit::audit),
    ("claims", tokens::claims),
    ("cookies", client_ip::cookies),
    ("decision", decision::decision),
    ("headers", headers::headers),
    ("jwks", tokens::jwks),
    ("keys_file", client_ip::keys_file),
    ("nginx", doctor::nginx),
    ("path", requests::path),
    #[cfg(feature = "vendored")]
    ("pointers", pointers::pointers),
    ("policy", policy::policy),
    ("service_token", tokens::service_token),
    ("signed_cookie", client_ip::signed_cookie),
    ("tenants", requests::tenants),
    ("token", tokens::token),
];

/// Runs the target of this name, for the programs of `fuzz/`.
///
/// # Panics
/// Where there is none, and where a property does not hold.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(own, _)| *own == name).expect("the target exists");
    target(bytes);
}

/// The parts of an input that consists of several: what stands between bytes `0xff`, which no UTF-8 holds.
fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = bytes.splitn(N, |byte| *byte == 0xff);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests;
