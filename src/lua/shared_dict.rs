//! nginx's shared dict as the memory in which workers exchange keys. Its functions do not yield.

use crate::engine::Shared;
use mlua::{BString, ObjectLike as _, Table};
use std::time::Duration;

/// An `ngx.shared.DICT`. A call that fails is one that found nothing and stored nothing.
pub(super) struct SharedDict(pub(super) Table);

impl Shared for SharedDict {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let value: Option<BString> = self.0.call_method("get", key).ok()?;
        value.map(Into::into)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.0.call_method("get", key).ok()?
    }

    fn add(&mut self, key: &str, value: &[u8], lifetime: Duration) -> bool {
        // Small, and more important than the oldest counter: it may drive that out.
        self.0.call_method("add", (key, BString::from(value), lifetime.as_secs_f64())).unwrap_or(false)
    }

    fn set(&mut self, key: &str, value: &[u8], lifetime: Option<Duration>) -> bool {
        let lifetime = lifetime.unwrap_or_default().as_secs_f64();
        self.0.call_method("safe_set", (key, BString::from(value), lifetime)).unwrap_or(false)
    }

    fn increment(&mut self, key: &str) -> Option<u64> {
        self.0.call_method("incr", (key, 1, 0)).ok()?
    }

    fn delete(&mut self, key: &str) {
        _ = self.0.call_method::<()>("delete", key);
    }

    fn capacity(&self) -> Option<usize> {
        self.0.call_method("capacity", ()).ok()
    }
}
