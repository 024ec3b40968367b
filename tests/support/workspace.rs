//! A directory for one test or demo, and the processes that run in it. Neither outlives its owner, however that
//! one ends: by returning, by a panic, by Ctrl-C or by SIGKILL.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Reads pids until its standard input closes, which the kernel does for a process that dies in any way; then ends
/// those that still work in the directory, and removes it. The working directory tells a process of ours from a
/// stranger who got the same pid later.
const JANITOR: &str = r#"
trap '' HUP INT QUIT TERM
dir=$1 pids= keep=
while read -r line; do
    case $line in keep) keep=1 ;; *) pids="$pids $line" ;; esac
done
ours() { [ "$(readlink "/proc/$1/cwd")" = "$dir" ]; }
for pid in $pids; do ours "$pid" && kill -TERM "$pid"; done
for pid in $pids; do
    tries=0
    while ours "$pid" && [ $tries -lt 30 ]; do sleep 0.1; tries=$((tries + 1)); done
    ours "$pid" && kill -KILL "$pid"
done
[ -n "$keep" ] || rm -rf "$dir"
"#;

/// The directory. Removed when dropped, unless a test fails: then it is kept, and named on stderr.
pub(crate) struct Workspace {
    dir: PathBuf,
    janitor: Child,
}

impl Workspace {
    /// Makes a new, empty directory under the system's temporary one.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let name = format!("tenantauth-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = fs::canonicalize(std::env::temp_dir()).expect("a temporary directory").join(name);
        fs::create_dir(&dir).expect("a directory of our own");
        let janitor = Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new(JANITOR), OsStr::new("janitor"), dir.as_os_str()])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        Self { dir, janitor }
    }

    /// The directory's path, or that of a file in it (`""` for the directory).
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    /// The directory as text, for configuration files.
    pub(crate) fn text(&self) -> &str {
        self.dir.to_str().expect("a temporary directory with a plain name")
    }

    /// Writes a file as a careful editor does: aside, then renamed over the old one.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("inside the directory")).expect("a directory inside ours");
        let aside = path.with_extension("new");
        fs::write(&aside, content).expect("a file in our own directory");
        fs::rename(&aside, &path).expect("a rename in our own directory");
        path
    }

    /// Copies a file into the directory, replacing by rename.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let content = fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self.write(name, content)
    }

    /// Copies a program into the directory, for everybody to run.
    ///
    /// Another process writes it: a child that any thread of ours forks holds what we have open until it runs its own
    /// program, and the kernel runs no file that somebody may still write (`ETXTBSY`).
    pub(crate) fn program(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        let status = Command::new("install").args(["-D", "-m", "0755"]).args([from, &path]).status();
        assert!(status.expect("install").success(), "cannot copy {}", from.display());
        path
    }

    /// The text of a file, lossily decoded; empty while it does not exist.
    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    fn tell_janitor(&self, line: &str) {
        if let Some(mut stdin) = self.janitor.stdin.as_ref() {
            // A janitor that is gone can only mean that the whole process group is being ended.
            let _ = writeln!(stdin, "{line}");
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if cfg!(test) && std::thread::panicking() {
            self.tell_janitor("keep");
            eprintln!("kept for inspection: {}", self.dir.display());
        }
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// A server that was started in a workspace; ended when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts the command with the workspace as its working directory and its output in `<name>.log` there.
    pub(crate) fn start(workspace: &Workspace, name: &str, command: &mut Command) -> Self {
        let path = workspace.path(&format!("{name}.log"));
        fs::write(&path, "").expect("a log in our own directory");
        // A program may open its standard output once more, by its name: neither writes over the other.
        let log = fs::OpenOptions::new().append(true).open(path).expect("a log in our own directory");
        let child = command
            .current_dir(&workspace.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        workspace.tell_janitor(&child.id().to_string());
        Self { child }
    }

    /// Starts the command as [`Process::start`] does, but its standard input and output are the caller's; only what
    /// it complains about is in `<name>.log`.
    pub(crate) fn start_with_pipes(
        workspace: &Workspace,
        name: &str,
        command: &mut Command,
    ) -> (Self, ChildStdin, ChildStdout) {
        let log =
            fs::File::create(workspace.path(&format!("{name}.log"))).expect("a log in our own directory");
        command.current_dir(&workspace.dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        workspace.tell_janitor(&child.id().to_string());
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        (Self { child }, stdin, stdout)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the process to end, and insists after five seconds.
    pub(crate) fn stop(&mut self) {
        if self.is_running() {
            signal(self.pid(), "TERM");
        }
        for _ in 0..250 {
            if !self.is_running() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a signal by name (`HUP`).
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "kill", name, &pid.to_string()])
        .status()
        .expect("sh");
    assert!(status.success(), "cannot send {name} to {pid}");
}

/// A port of 127.0.0.1 that nobody listens on.
///
/// Below the range from which the kernel takes ports for connections: one of those, found free now, may belong to
/// a client by the time a server binds it. Each test process begins elsewhere and never gives a port twice.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    let start = std::process::id().wrapping_mul(397) % COUNT;
    for _ in 0..COUNT {
        let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("below 30 000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}
