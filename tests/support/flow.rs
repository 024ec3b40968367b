//! A steady flow of requests over connections that are kept, with every answer judged.

use super::client::{Answer, Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Looks at an answer: which request it belongs to, and what [`Flow::start`]'s `before` gave ahead of it. Returns what
/// is wrong with it.
pub(crate) type Judge = dyn Fn(usize, u64, &Answer) -> Result<(), String> + Send + Sync;

/// What came of a flow.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Answers that were read whole.
    pub(crate) answers: u64,
    /// Requests whose connection ended without an answer.
    pub(crate) lost: u64,
    /// What was wrong with answers, at most ten for a connection.
    pub(crate) wrong: Vec<String>,
    /// Answers a second, over all connections.
    pub(crate) rate: f64,
}

/// A running flow.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    started: Instant,
    connections: Vec<JoinHandle<Summary>>,
}

impl Flow {
    /// Starts it.
    ///
    /// `rate`: requests a second over all connections, as far as they are answered in time. `requests`: sent in turn.
    /// `before`: called ahead of each request; what it gives is handed to `judge` with the answer.
    pub(crate) fn start(
        port: u16,
        connections: u32,
        rate: u32,
        requests: &[Vec<u8>],
        before: &Arc<dyn Fn() -> u64 + Send + Sync>,
        judge: &Arc<Judge>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_secs(1) * connections / rate;
        let run = |first: u32| {
            let (stop, before, judge) = (Arc::clone(&stop), Arc::clone(before), Arc::clone(judge));
            let requests = requests.to_vec();
            let first = usize::try_from(first).expect("a small number");
            std::thread::spawn(move || {
                let mut summary = Summary::default();
                let mut client = Client::connect(port);
                let mut due = Instant::now();
                for number in first.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    sleep(due.saturating_duration_since(Instant::now()));
                    due += pause;
                    let which = number % requests.len();
                    let known = before();
                    client.send(&requests[which]);
                    let Some(answer) = client.answer_or_end() else {
                        summary.lost += 1;
                        client = Client::connect(port);
                        continue;
                    };
                    summary.answers += 1;
                    if let Err(problem) = judge(which, known, &answer)
                        && summary.wrong.len() < 10
                    {
                        summary.wrong.push(format!("request {which}: {problem}: {answer:?}"));
                    }
                    if answer.header("Connection") == Some("close") {
                        client = Client::connect(port);
                    }
                }
                summary
            })
        };
        Self { connections: (0..connections).map(run).collect(), stop, started: Instant::now() }
    }

    /// Ends it.
    ///
    /// # Panics
    /// Where a connection's thread did.
    pub(crate) fn stop(self) -> Summary {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Summary::default();
        for connection in self.connections {
            let one = connection.join().expect("a connection that was answered");
            total.answers += one.answers;
            total.lost += one.lost;
            total.wrong.extend(one.wrong);
        }
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let answers = total.answers as f64;
        total.rate = answers / self.started.elapsed().as_secs_f64();
        total
    }
}
