//! Those who ask: connections that send every case in turn and judge every answer, and one that sends noise.

use crate::cases::{Case, Expect, cases};
use crate::support::client::{Answer, Client};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// How many connections are kept, one a thread.
pub(crate) const CONNECTIONS: u64 = 4;
/// The pause of a connection between two requests: 800 a second over all.
const PAUSE: Duration = Duration::from_millis(5);
/// Requests are made anew this often: a signed cookie lives for minutes.
const FRESH: Duration = Duration::from_secs(60);

/// Which policy decides and which keys verify. Changes with every word, so that a request that was under way meanwhile is
/// not held against either.
#[derive(Default)]
pub(crate) struct Truth(AtomicU64);

impl Truth {
    pub(crate) fn set(&self, certain: Option<(char, u8)>) {
        let code =
            certain.map_or(0, |(letter, keys)| 1 | u64::from(letter == 'b') << 1 | u64::from(keys) << 2);
        let era = self.0.load(Ordering::SeqCst) >> 4;
        self.0.store((era + 1) << 4 | code, Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// What the answer may be, where the truth was `before` when the request was sent.
    fn allowed_answers(&self, before: u64, expect: Expect) -> Vec<&'static str> {
        if before == self.now() && before & 1 == 1 {
            let letter = if before & 2 == 0 { 'a' } else { 'b' };
            return vec![expect(letter, u8::try_from(before >> 2 & 3).unwrap())];
        }
        ['a', 'b'].into_iter().flat_map(|letter| (1..4).map(move |keys| expect(letter, keys))).collect()
    }
}

/// What came of all of it.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) wrong: Vec<String>,
    pub(crate) lost: u64,
    noise: u64,
    /// By what was answered; empty for the backend's own.
    answers: BTreeMap<String, u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.answers.values().sum();
        write!(f, "{total} answers, {} lost, {} of noise: {:?}", self.lost, self.noise, self.answers)
    }
}

/// The running threads.
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Summary>>,
}

impl Callers {
    pub(crate) fn start(port: u16, truth: &Arc<Truth>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..CONNECTIONS {
            let (stop, truth) = (Arc::clone(&stop), Arc::clone(truth));
            threads.push(std::thread::spawn(move || ask(port, number, &stop, &truth)));
        }
        let until = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || make_noise(port, &until)));
        Self { stop, threads }
    }

    pub(crate) fn stop(self) -> Summary {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Summary::default();
        for thread in self.threads {
            let one = thread.join().expect("a thread that did not panic");
            total.wrong.extend(one.wrong);
            total.lost += one.lost;
            total.noise += one.noise;
            for (answer, count) in one.answers {
                *total.answers.entry(answer).or_default() += count;
            }
        }
        total
    }
}

fn ask(port: u16, number: u64, stop: &AtomicBool, truth: &Truth) -> Summary {
    let mut summary = Summary::default();
    let mut client = Client::connect(port);
    let mut made: Vec<Case> = Vec::new();
    let mut made_at = Instant::now();
    for turn in number.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if made.is_empty() || made_at.elapsed() > FRESH {
            (made, made_at) = (cases(), Instant::now());
        }
        let case = &made[usize::try_from(turn).unwrap() % made.len()];
        let before = truth.now();
        client.send(&(case.bytes)(turn));
        let Some(answer) = client.answer_or_end() else {
            summary.lost += 1;
            client = Client::connect(port);
            continue;
        };
        let reason = answer.reason().to_owned();
        let expected = truth.allowed_answers(before, case.expect);
        if !(expected.contains(&&*reason) && is_of(&answer, &reason)) && summary.wrong.len() < 10 {
            summary.wrong.push(format!("{}: expected one of {expected:?}: {answer:?}", case.name));
        }
        *summary.answers.entry(reason).or_default() += 1;
        if answer.header("Connection") == Some("close") {
            client = Client::connect(port);
        }
        sleep(PAUSE);
    }
    summary
}

/// A denial has its status, and what is allowed is the backend's.
fn is_of(answer: &Answer, reason: &str) -> bool {
    answer.status == if reason.is_empty() { 200 } else { 403 }
}

/// Bytes that are no request, halves of requests, and connections that end at once.
fn make_noise(port: u16, stop: &AtomicBool) -> Summary {
    let mut summary = Summary::default();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let mut bytes = Vec::new();
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        let begin: &[u8] = match summary.noise % 4 {
            0 => b"",
            1 => b"GET /loki/api/v1/query HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: ",
            2 => b"GET /loki/api/v1/query HTTP/1.1\r\nHost: x\r\nX-Id-Token: a.b",
            _ => b"POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
        };
        // Whether anybody still listens does not matter.
        _ = stream.write_all(begin).and_then(|()| stream.write_all(&bytes));
        summary.noise += 1;
        drop(stream);
        sleep(Duration::from_millis(20));
    }
    summary
}
