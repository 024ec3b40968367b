//! What the engine has to say in the error log, until the worker logs it.

use std::collections::{HashMap, VecDeque};

/// Messages that wait; older ones give way.
const MAX_WAITING: usize = 2000;

/// How urgent a message is, in nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is nginx's level of that name")]
pub enum Level {
    Error,
    Warn,
    Notice,
}

impl Level {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
        }
    }
}

/// What a state is about. What holds of each is logged when it changes, and not while it stays.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// Files of keys in whose place the keys in force stand.
    KeyFiles,
    /// The document of the owner of this name.
    Owner(Box<str>),
    /// The policy in the state directory.
    KeptPolicy,
    /// Fetched keys in the state directory.
    KeptKeys,
}

/// What has happened and what holds.
#[derive(Default)]
pub(super) struct Messages {
    waiting: VecDeque<(Level, String)>,
    /// What holds, a line each; all is well with a topic that is not there.
    states: HashMap<Topic, Vec<(Level, String)>>,
}

/// How a state has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It holds as before.
    None,
    /// It is another one.
    To {
        /// What held before was an error, and not only odd.
        was_error: bool,
    },
    /// All is well again.
    Over {
        /// What held before was an error, and not only odd.
        was_error: bool,
    },
}

impl Change {
    /// Whether an error has made way for what holds now.
    pub(super) const fn was_error(&self) -> bool {
        matches!(self, Self::To { was_error: true } | Self::Over { was_error: true })
    }
}

impl Messages {
    /// Something has happened.
    pub(super) fn log(&mut self, level: Level, message: &str) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((level, crate::text::one_line(message)));
    }

    /// Something holds from now on: logged where it did not hold before. Nothing where all is well.
    pub(super) fn state(&mut self, topic: Topic, lines: Vec<(Level, String)>) -> Change {
        let before = self.states.remove(&topic).unwrap_or_default();
        if before == lines {
            if !lines.is_empty() {
                self.states.insert(topic, lines);
            }
            return Change::None;
        }
        for (level, line) in &lines {
            self.log(*level, line);
        }
        let was_error = before.iter().any(|(level, _)| *level == Level::Error);
        if lines.is_empty() {
            return Change::Over { was_error };
        }
        self.states.insert(topic, lines);
        Change::To { was_error }
    }

    /// Forgets the topics of which nothing can hold any more.
    pub(super) fn retain(&mut self, is_topic: impl Fn(&Topic) -> bool) {
        self.states.retain(|topic, _| is_topic(topic));
    }

    /// The oldest message that has not been logged.
    pub(super) fn next(&mut self) -> Option<(Level, String)> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_logged_when_it_changes() {
        let mut messages = Messages::default();
        let lines = |text: &str| vec![(Level::Error, text.to_owned())];
        assert_eq!(messages.state(Topic::KeptKeys, Vec::new()), Change::None);
        assert_eq!(messages.state(Topic::KeptKeys, lines("full")), Change::To { was_error: false });
        assert_eq!(messages.state(Topic::KeptKeys, lines("full")), Change::None);
        assert_eq!(messages.state(Topic::KeptPolicy, lines("full")), Change::To { was_error: false });
        assert_eq!(messages.state(Topic::KeptKeys, lines("gone")), Change::To { was_error: true });
        assert_eq!(messages.state(Topic::KeptKeys, Vec::new()), Change::Over { was_error: true });
        assert_eq!(messages.state(Topic::KeptKeys, lines("gone")), Change::To { was_error: false });
        messages.retain(|topic| *topic == Topic::KeptPolicy);
        assert_eq!(messages.state(Topic::KeptKeys, Vec::new()), Change::None);
        let logged: Vec<_> = std::iter::from_fn(|| messages.next()).map(|(_, text)| text).collect();
        assert_eq!(logged, ["full", "full", "gone", "gone"]);
    }

    #[test]
    fn old_messages_give_way_and_stay_on_their_line() {
        let mut messages = Messages::default();
        for number in 0..=MAX_WAITING {
            messages.log(Level::Notice, &format!("{number}\nx"));
        }
        assert_eq!(messages.next(), Some((Level::Notice, "1\\nx".to_owned())));
    }
}
