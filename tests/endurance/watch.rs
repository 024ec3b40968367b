//! What the processes take: resident memory and descriptors, sampled twice a second.

use crate::support::nginx::{Nginx, resident_kib};
use crate::support::wait_for;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One process at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    kib: u64,
    descriptors: usize,
}

type Samples = BTreeMap<u32, Vec<Sample>>;

/// The running watch.
pub(crate) struct Watch {
    master: u32,
    samples: Arc<Mutex<Samples>>,
    /// The newest samples of the workers that lived through each generation.
    ends: Mutex<Vec<u64>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(nginx: &Nginx) -> Self {
        let master = nginx.pid();
        let samples = Arc::new(Mutex::new(Samples::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, until) = (Arc::clone(&samples), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for pid in Nginx::workers_of(master).into_iter().chain([master]) {
                    let Some(sample) = sample(pid) else { continue };
                    into.lock().unwrap().entry(pid).or_default().push(sample);
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Self { master, samples, ends: Mutex::default(), stop, thread }
    }

    /// To be called while the workers of a generation still run.
    pub(crate) fn end_of_generation(&self) {
        let samples = self.samples.lock().unwrap();
        let oldest = Nginx::workers_of(self.master)
            .into_iter()
            .filter_map(|pid| samples.get(&pid))
            .max_by_key(|samples| samples.len())
            .map(|samples| middle(&samples[samples.len() * 5 / 6..]));
        self.ends.lock().unwrap().extend(oldest);
    }

    /// To be called when nobody asks any more: then no worker may keep a connection.
    pub(crate) fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        // nginx gives up what a client left without a word after 75 s at most.
        wait_for("end of every connection", 90, || {
            Nginx::workers_of(self.master).into_iter().all(|pid| connections(pid) == 0).then_some(())
        });
        let samples = std::mem::take(&mut *self.samples.lock().unwrap());
        let longest = samples
            .iter()
            .filter(|(pid, _)| **pid != self.master)
            .map(|(_, samples)| lifetime(samples))
            .max()
            .unwrap_or_default();
        let lives = samples
            .iter()
            // Those that lived through a whole generation: one that was killed in the middle of it has hardly warmed up.
            .filter(|(pid, samples)| **pid == self.master || lifetime(samples) * 3 > longest * 2)
            .map(|(pid, samples)| Life::of(*pid == self.master, samples))
            .collect();
        Report { lives, ends: std::mem::take(&mut *self.ends.lock().unwrap()) }
    }
}

fn sample(pid: u32) -> Option<Sample> {
    let descriptors = descriptors(pid)?;
    Some(Sample { at: Instant::now(), kib: resident_kib(pid), descriptors }).filter(|sample| sample.kib > 0)
}

/// The descriptors of a process but sockets: connections come and go, and with every worker that starts or ends so do the
/// channels between nginx's processes.
fn descriptors(pid: u32) -> Option<usize> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    Some(entries.filter(|entry| socket_of(entry).is_none()).count())
}

/// The inode of a descriptor that is a socket.
fn socket_of(entry: &fs::DirEntry) -> Option<String> {
    let target = fs::read_link(entry.path()).ok()?;
    Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

/// How many TCP connections a process has.
fn connections(pid: u32) -> usize {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    // proc(5): the state is the fourth column, the inode the tenth.
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inodes: BTreeSet<&str> = rows.filter(|row| row[3] != LISTEN).map(|row| row[9]).collect();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| socket_of(&entry)).filter(|inode| inodes.contains(inode.as_str())).count()
}

/// The median of resident memory, in KiB: a single sample may meet a moment in which a policy is read.
fn middle(samples: &[Sample]) -> u64 {
    let mut kib: Vec<u64> = samples.iter().map(|sample| sample.kib).collect();
    kib.sort_unstable();
    kib.get(kib.len() / 2).copied().unwrap_or_default()
}

fn lifetime(samples: &[Sample]) -> Duration {
    match samples {
        [first, .., last] => last.at - first.at,
        _ => Duration::ZERO,
    }
}

/// One process from when it was warm, a third into its life, to its end.
#[derive(Debug)]
struct Life {
    master: bool,
    lived: Duration,
    kib: [u64; 2],
    descriptors: [usize; 2],
}

impl Life {
    fn of(master: bool, samples: &[Sample]) -> Self {
        let (warm, late) = (samples.len() / 3, samples.len() * 5 / 6);
        let within = |samples: &[Sample]| {
            let descriptors = samples.iter().map(|sample| sample.descriptors).max().unwrap_or_default();
            (middle(samples), descriptors)
        };
        let (first, last) = (within(&samples[warm..warm * 3 / 2 + 1]), within(&samples[late..]));
        Self { master, lived: lifetime(samples), kib: [first.0, last.0], descriptors: [first.1, last.1] }
    }
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Report {
    lives: Vec<Life>,
    /// Resident KiB of the oldest worker at the end of each generation.
    ends: Vec<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Life { master, lived, kib, descriptors } in &self.lives {
            let who = if *master { "master" } else { "worker" };
            writeln!(
                f,
                "{who} of {:.0} s: {} KiB when warm, {} at the end; {} descriptors, {}",
                lived.as_secs_f64(),
                kib[0],
                kib[1],
                descriptors[0],
                descriptors[1]
            )?;
        }
        write!(f, "workers at the end of each generation: {:?} KiB", self.ends)
    }
}

impl Report {
    /// Memory within 5 %, descriptors but for the clients' connections.
    ///
    /// `short`: within seconds an allocator has not found its level yet, and 4 MiB more are no sign of anything.
    pub(crate) fn assert_flat(&self, short: bool) {
        let flat = |before: u64, after: u64| after <= before + before / 20 + if short { 4096 } else { 0 };
        assert!(self.lives.len() >= 3, "{self}");
        for Life { kib, descriptors, .. } in &self.lives {
            assert!(flat(kib[0], kib[1]), "{self}");
            assert!(descriptors[1] <= descriptors[0] + 2, "{self}");
        }
        assert!(flat(self.ends[0], *self.ends.last().unwrap()), "{self}");
    }
}
