//! What the integration tests and the demo share: a real nginx, an upstream that shows what it received, a client
//! that sends exact bytes, and the makers of keys, tokens and cookies.
//!
//! Nothing here uses the crate under test: what it should do is computed a second time, from the contract.
#![allow(dead_code, reason = "each user of this directory needs another part of it")]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod cookie;
pub(crate) mod example;
pub(crate) mod flow;
pub(crate) mod http2;
pub(crate) mod nginx;
pub(crate) mod prometheus;
pub(crate) mod provider;
pub(crate) mod site;
pub(crate) mod tokens;
pub(crate) mod upstream;
pub(crate) mod workspace;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A path inside the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Letters and digits that no compression makes shorter, always the same.
pub(crate) fn noise(length: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from_digit(u32::try_from(state % 36).expect("below 36"), 36).expect("a digit")
    };
    (0..length).map(|_| letter()).collect()
}

/// The Python that has what `tests/requirements.txt` lists: `TENANTAUTH_PYTHON`, or that of
/// `make setup-test`.
///
/// # Panics
/// Where there is none.
pub(crate) fn python() -> PathBuf {
    let given = std::env::var_os("TENANTAUTH_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| repository("target/venv/bin/python"));
    assert!(python.exists(), "no Python at {}: run `make setup-test`", python.display());
    python
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(elapsed.as_secs()).expect("a clock before the year 292 billion")
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// With `what`, when there is none within `seconds`.
pub(crate) fn wait_for<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "within {seconds} s there was no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
