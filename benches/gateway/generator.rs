//! A load of exact shape: so many connections, each token in its turn, as fast as it goes or at a fixed rate.
//!
//! At a fixed rate every connection has a timetable that no answer changes, and latency counts from the moment at
//! which a request was due, not from that at which it could be sent: what had to wait behind a slow answer is as late
//! as its user would find it (open loop; Debian's `wrk` has none, and leaves such waits out).

use crate::support::tokens::key;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// In what order tokens are shown: the first of them is the one that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hits {
    /// The same over and over.
    All,
    /// Every tenth request shows the next of the others.
    NineOfTen,
    /// Every request shows the next of the others. They are more than a worker remembers, which forgets what was
    /// used longest ago: so each is new by the time it comes again.
    None,
}

/// What is sent.
pub(crate) struct Traffic<'a> {
    /// Request line and headers, up to the token.
    pub(crate) head: String,
    /// What follows the token.
    pub(crate) tail: String,
    /// The tokens.
    pub(crate) tokens: &'a [String],
    /// Their order.
    pub(crate) hits: Hits,
    /// How many requests were made of these tokens: the next run goes on with the token after the last.
    pub(crate) made: &'a AtomicU64,
}

impl Traffic<'_> {
    fn next(&self, buffer: &mut Vec<u8>) {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let others = self.tokens.len() as u64 - 1;
        let place = match self.hits {
            Hits::NineOfTen if number % 10 == 9 => 1 + number / 10 % others,
            Hits::None => 1 + number % others,
            Hits::All | Hits::NineOfTen => 0,
        };
        buffer.clear();
        buffer.extend_from_slice(self.head.as_bytes());
        buffer.extend_from_slice(self.tokens[place as usize].as_bytes());
        buffer.extend_from_slice(self.tail.as_bytes());
    }
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// On each connection as soon as the last answer is there.
    Flat,
    /// So many a second over all connections, evenly.
    Rate(f64),
}

/// What came of a run.
pub(crate) struct Run {
    /// How long each request took, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

impl Run {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

/// Sends requests to the port for so long.
///
/// # Panics
/// Where a single one is not answered with success.
pub(crate) fn run(port: u16, traffic: &Traffic<'_>, connections: usize, pace: Pace, time: Duration) -> Run {
    let opened: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            stream.set_nodelay(true).expect("an option of every socket");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of every socket");
            stream
        })
        .collect();
    let start = Instant::now() + Duration::from_millis(20);
    let end = start + time;
    let runs: Vec<(Vec<Duration>, Instant)> = thread::scope(|scope| {
        let threads: Vec<_> = opened
            .into_iter()
            .enumerate()
            .map(|(number, stream)| {
                let timetable = match pace {
                    Pace::Flat => None,
                    Pace::Rate(rate) => Some(Timetable {
                        first: start + Duration::from_secs_f64(number as f64 / rate),
                        period: connections as f64 / rate,
                    }),
                };
                scope.spawn(move || drive(stream, traffic, timetable, start, end))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("answers")).collect()
    });
    let last = runs.iter().map(|(_, last)| *last).max().expect("a connection");
    let mut latencies: Vec<Duration> = runs.into_iter().flat_map(|(latencies, _)| latencies).collect();
    latencies.sort_unstable();
    Run { latencies, took: last - start }
}

/// When a connection's requests are due.
struct Timetable {
    first: Instant,
    /// In seconds.
    period: f64,
}

fn drive(
    mut stream: TcpStream,
    traffic: &Traffic<'_>,
    timetable: Option<Timetable>,
    start: Instant,
    end: Instant,
) -> (Vec<Duration>, Instant) {
    let mut request = Vec::new();
    let mut answer = Answer::default();
    let mut latencies = Vec::new();
    let mut now = Instant::now();
    thread::sleep(start - now);
    loop {
        let due = match &timetable {
            None => Instant::now(),
            Some(Timetable { first, period }) => {
                *first + Duration::from_secs_f64(period * latencies.len() as f64)
            }
        };
        if due >= end {
            return (latencies, now);
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        traffic.next(&mut request);
        stream.write_all(&request).expect("a connection that is kept");
        answer.read(&mut stream);
        now = Instant::now();
        latencies.push(now - due);
    }
}

/// Answers of one connection. All are alike, so that the first tells how long the others are.
struct Answer {
    buffer: Vec<u8>,
    length: Option<usize>,
}

impl Default for Answer {
    fn default() -> Self {
        Self { buffer: vec![0; 16 << 10], length: None }
    }
}

impl Answer {
    fn read(&mut self, stream: &mut TcpStream) {
        let mut filled = 0;
        while self.length.is_none_or(|length| filled < length) {
            let count = stream.read(&mut self.buffer[filled..]).expect("an answer");
            assert!(count > 0, "the connection was closed");
            filled += count;
            let answer = &self.buffer[..filled];
            assert!(
                answer.starts_with(b"HTTP/1.1 200 ") || filled < 13,
                "not served: {}",
                String::from_utf8_lossy(answer)
            );
            if self.length.is_none() {
                self.length = length(answer);
            }
        }
        assert_eq!(Some(filled), self.length, "an answer unlike the first");
    }
}

/// Length of an answer with its body, once its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let text = str::from_utf8(answer).expect("an answer of our backend");
    let (head, _) = text.split_once("\r\n\r\n")?;
    let body = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let body: usize = body.expect("an answer of a known length").parse().expect("a number");
    Some(head.len() + 4 + body)
}

/// Lets threads that are started from now on wake when they are due, and not up to 50 microseconds later
/// (`/proc/<pid>/timerslack_ns`). Where the kernel does not let us, latencies are as much longer, on all servers alike.
pub(crate) fn wake_exactly() {
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    // Made once, and not by the first who needs it.
    key();
}
