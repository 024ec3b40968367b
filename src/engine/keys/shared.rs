//! The memory that workers share, as far as keys need it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A dictionary that every worker sees: nginx's shared dict.
pub trait Shared {
    /// The value of an entry.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// The value of an entry that is counted up by [`Shared::increment`].
    fn number(&self, key: &str) -> Option<u64>;
    /// Adds an entry that goes away by itself; false where there is one already.
    fn add(&mut self, key: &str, value: &[u8], lifetime: Duration) -> bool;
    /// Sets an entry; false where there is no room for it. Nothing else is driven out.
    fn set(&mut self, key: &str, value: &[u8], lifetime: Option<Duration>) -> bool;
    /// Adds one to a number, which begins at 0. `None` where there is no room for it.
    fn increment(&mut self, key: &str) -> Option<u64>;
    /// Removes an entry.
    fn delete(&mut self, key: &str);
    /// How many bytes it holds at most; `None` where there is no such bound.
    fn capacity(&self) -> Option<usize> {
        None
    }
}

/// What stands in where there is nothing to share: the memory of a worker that is on its own.
#[derive(Debug, Default)]
pub(in crate::engine) struct Local(HashMap<String, (Vec<u8>, Option<Instant>)>);

impl Shared for Local {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let (value, until) = self.0.get(key)?;
        until.is_none_or(|until| until > Instant::now()).then(|| value.clone())
    }

    fn number(&self, key: &str) -> Option<u64> {
        Some(u64::from_le_bytes(*self.get(key)?.first_chunk()?))
    }

    fn add(&mut self, key: &str, value: &[u8], lifetime: Duration) -> bool {
        self.get(key).is_none() && self.set(key, value, Some(lifetime))
    }

    fn set(&mut self, key: &str, value: &[u8], lifetime: Option<Duration>) -> bool {
        let until = lifetime.map(|lifetime| Instant::now() + lifetime);
        self.0.insert(key.to_owned(), (value.to_vec(), until));
        true
    }

    fn increment(&mut self, key: &str) -> Option<u64> {
        let next = self.number(key).unwrap_or_default() + 1;
        self.set(key, &next.to_le_bytes(), None).then_some(next)
    }

    fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }
}
