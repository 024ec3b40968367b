//! How far the reading of a log has come.

use crate::cli::counted;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// One line on a terminal that says how far it has come; nothing elsewhere.
pub(super) struct Progress {
    what: &'static str,
    size: Option<u64>,
    bytes: u64,
    lines: u64,
    last: Instant,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str, size: Option<u64>) -> Self {
        Self { what, size, bytes: 0, lines: 0, last: Instant::now(), is_shown: io::stderr().is_terminal() }
    }

    /// Takes note of one line of this many bytes.
    pub(super) fn read(&mut self, bytes: u64, changed: u64) {
        self.bytes += bytes;
        self.lines += 1;
        // The clock is asked seldom: a look at it costs as much as a short line.
        if self.is_shown
            && self.lines.is_multiple_of(1024)
            && self.last.elapsed() > Duration::from_millis(500)
        {
            self.last = Instant::now();
            let of = self.size.map_or_else(String::new, |size| format!(" of {}", size >> 20));
            let line = format!(
                "{}: {}{of} MiB, {}, {changed} changed",
                self.what,
                self.bytes >> 20,
                counted(usize::try_from(self.lines).unwrap_or(usize::MAX), "line")
            );
            // Where stderr is closed there is nobody to tell.
            _ = write!(io::stderr(), "\r{line}\u{1b}[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
