//! The load, and what it costs.

use crate::support::workspace::Workspace;
use std::fmt::Write;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Connections that are kept busy.
pub(crate) const CONNECTIONS: usize = 16;

/// What `wrk` does with the headers: sends them with every request, and says in the end what came of it.
const REPORT: &str = r#"
function done(summary)
    local errors = summary.errors
    print(string.format("requests=%d errors=%d connect=%d read=%d write=%d timeout=%d status=%d", summary.requests,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status,
        errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
"#;

/// Sends a GET over and over for so many seconds; the number of requests that were answered.
///
/// # Errors
/// What `wrk` said, where a single one was not answered with success: a denial is faster than a request that is
/// served.
pub(crate) fn wrk(
    workspace: &Workspace,
    target: &str,
    headers: &[(&str, String)],
    seconds: usize,
) -> Result<u64, String> {
    let mut script = String::new();
    for (name, value) in headers {
        // Lua's long brackets take everything as it is; no header holds one.
        writeln!(script, "wrk.headers[\"{name}\"] = [[{value}]]").expect("a string takes everything");
    }
    let script = workspace.write("load.lua", script + REPORT);
    let mut command = Command::new("taskset");
    command.args(["-c", &core().to_string(), "wrk"]);
    command
        .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "--timeout", "20s", "-s"])
        .arg(script)
        .arg(target);
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot start taskset: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let counted = said.lines().find_map(|line| line.strip_prefix("requests=")?.split_once(" errors="));
    match counted.map(|(requests, errors)| (requests.parse::<u64>(), errors)) {
        Some((Ok(requests), errors)) if requests > 0 && errors.starts_with("0 ") => Ok(requests),
        Some((requests, errors)) => {
            Err(format!("under load: {} requests, errors: {errors}", requests.unwrap_or(0)))
        }
        None => {
            Err(format!("wrk failed: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
        }
    }
}

/// The core on which everything runs: the last that we may use, since interrupts like the first.
///
/// One for all, so that a request costs a worker the same whoever else is busy: to wake a process on another core
/// takes a worker several microseconds if that core sleeps and next to nothing if it does not, and behind a slow
/// worker it sleeps more often. Measured on two cores, whatever makes a worker slower seems to cost half as much
/// again.
pub(crate) fn core() -> usize {
    allowed().last().copied().unwrap_or_default()
}

/// The other cores that we may use; the same one where there is no other.
pub(crate) fn other_cores() -> Vec<usize> {
    let mut cores = allowed();
    if cores.len() > 1 {
        cores.pop();
    }
    cores
}

/// The cores that we may use.
fn allowed() -> Vec<usize> {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    // Asked once: later we may have moved ourselves.
    let read = || {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let cores = list.trim().split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
        });
        cores.flatten().collect()
    };
    ALLOWED.get_or_init(read).clone()
}

/// Moves a process with all its threads to these cores.
pub(crate) fn pin(pid: u32, cores: &[usize]) {
    let list: Vec<String> = cores.iter().map(usize::to_string).collect();
    let output = Command::new("taskset").args(["-a", "-p", "-c", &list.join(","), &pid.to_string()]).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start taskset: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The time that all threads of a process have spent on a processor, in user and kernel mode together.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs");
    let nanoseconds = threads.flatten().map(|thread| {
        // The first number of Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
    });
    let sum = nanoseconds.sum();
    assert!(sum > 0, "the kernel keeps no /proc/<pid>/schedstat");
    Duration::from_nanos(sum)
}
