//! A real nginx (or OpenResty) in a workspace.

use super::wait_for;
use super::workspace::{Process, Workspace, signal};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running server with its workers; ended when dropped.
pub(crate) struct Nginx {
    master: Process,
    workers: usize,
}

/// What is unusual about a start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Launch {
    /// Workers are nobody special where the tests run as root, whom no permission stops.
    pub(crate) unprivileged: bool,
    /// A write beyond a limit on the size of files fails, as it does on a full disk, and kills nobody.
    pub(crate) survives_file_limit: bool,
}

impl Nginx {
    /// Starts nginx with this configuration, and waits until the port accepts connections.
    ///
    /// What differs from machine to machine is given on the command line (`daemon`, `user`, `load_module`), so
    /// that the configuration may be a file as users have it.
    ///
    /// # Panics
    /// With the error log, where nginx does not come up.
    pub(crate) fn start(
        workspace: &Workspace,
        configuration: &str,
        workers: usize,
        port: u16,
        launch: Launch,
    ) -> Self {
        let file = workspace.write("nginx.conf", configuration);
        let mut command = if launch.survives_file_limit {
            let mut shell = Command::new("sh");
            // What is ignored stays ignored in the program that takes the shell's place, and in its workers.
            shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(binary());
            shell
        } else {
            Command::new(binary())
        };
        // nginx reads `NGINX` itself: as the sockets that it inherits from another one.
        command.env_remove("NGINX");
        command.arg("-p").arg(workspace.path("")).arg("-e").arg(workspace.path("error.log"));
        command.arg("-c").arg(file).arg("-g").arg(format!("daemon off; {}{}", user(launch), modules()));
        // Seen by workers only where the configuration says `env TENANTAUTH_POLICY;`.
        command.env("TENANTAUTH_POLICY", workspace.path("policy.yaml"));
        let mut nginx = Self { master: Process::start(workspace, "nginx", &mut command), workers };
        wait_for("nginx that accepts connections", 15, || {
            let log = || workspace.read("nginx.log") + &workspace.read("error.log");
            assert!(nginx.master.is_running(), "nginx did not start:\n{}", log());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        nginx.wait_for_workers();
        nginx
    }

    /// The pids of the worker processes.
    pub(crate) fn workers(&self) -> BTreeSet<u32> {
        Self::workers_of(self.pid())
    }

    /// The pid of the master process.
    pub(crate) fn pid(&self) -> u32 {
        self.master.pid()
    }

    /// The pids of a master's worker processes.
    pub(crate) fn workers_of(master: u32) -> BTreeSet<u32> {
        let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| parent(*pid) == Some(master) && title(*pid).contains("worker process")).collect()
    }

    /// Reloads the configuration, and waits until new workers have replaced every old one.
    pub(crate) fn reload(&self) {
        let old = self.workers();
        signal(self.master.pid(), "HUP");
        wait_for("generation of new workers", 15, || {
            let new = self.workers();
            (new.len() == self.workers && new.is_disjoint(&old)).then_some(())
        });
    }

    /// Kills a worker without warning, and waits for nothing. One that has ended already is none.
    pub(crate) fn kill_one_worker(&self, number: usize) {
        if let Some(victim) = self.workers().into_iter().nth(number) {
            let _ =
                Command::new("sh").args(["-c", "kill -s KILL \"$1\"", "kill", &victim.to_string()]).status();
        }
    }

    /// Waits until no worker is missing or too many, and returns their pids.
    pub(crate) fn wait_for_workers(&self) -> BTreeSet<u32> {
        wait_for("full set of workers", 15, || Some(self.workers()).filter(|pids| pids.len() == self.workers))
    }

    /// Limits the size of the files that the workers write, in bytes; `None`: no longer.
    ///
    /// # Panics
    /// Where that cannot be done.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        // The soft limit alone: the hard one could not be raised again.
        let limit =
            bytes.map_or_else(|| "--fsize=unlimited:".to_owned(), |bytes| format!("--fsize={bytes}:"));
        for pid in self.workers() {
            let set = Command::new("prlimit").args([&limit, "--pid", &pid.to_string()]).status();
            assert!(set.expect("prlimit, of util-linux").success(), "{limit} for worker {pid}");
        }
    }

    /// Sends a signal to the master: `USR1` opens the logs again, `QUIT` and `TERM` end it.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.master.pid(), name);
    }

    /// Kills one worker without warning, and waits for the one that takes its place.
    pub(crate) fn kill_worker(&self) {
        let old = self.workers();
        let victim = *old.first().expect("a worker");
        signal(victim, "KILL");
        wait_for("worker in place of the killed one", 15, || {
            let new = self.workers();
            (new.len() == self.workers && !new.contains(&victim)).then_some(())
        });
    }

    /// Ends nginx before its time.
    pub(crate) fn stop(&mut self) {
        self.master.stop();
    }
}

/// Lets nginx judge a configuration (`nginx -t`), without running it.
///
/// # Panics
/// With what it says, where it refuses.
pub(crate) fn assert_valid(workspace: &Workspace, configuration: &str) {
    let file = workspace.write("nginx.conf", configuration);
    let mut command = Command::new(binary());
    command.env_remove("NGINX").arg("-t").arg("-p").arg(workspace.path("")).arg("-e").arg("stderr");
    command.arg("-c").arg(file).arg("-g").arg(format!("{}{}", user(Launch::default()), modules()));
    let output = command.output().expect("nginx");
    assert!(output.status.success(), "{}\n{configuration}", String::from_utf8_lossy(&output.stderr));
}

/// The nginx under test: `NGINX`, or that of the `PATH`.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("NGINX").map_or_else(
        || {
            let packaged = Path::new("/usr/sbin/nginx");
            if packaged.exists() { packaged.to_path_buf() } else { PathBuf::from("nginx") }
        },
        PathBuf::from,
    )
}

/// nginx's workers give up root; the workspaces are made for the one who runs the tests.
fn user(launch: Launch) -> String {
    if !is_root() {
        return String::new();
    }
    if !launch.unprivileged {
        return "user root; ".to_owned();
    }
    // The group is called otherwise in Debian than elsewhere.
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let group = if groups.lines().any(|line| line.starts_with("nogroup:")) { "nogroup" } else { "nobody" };
    format!("user nobody {group}; ")
}

/// Gives a file or directory to the user of unprivileged workers.
///
/// # Panics
/// Where that user does not exist, or the file.
pub(crate) fn give_to_unprivileged(path: &Path) {
    if is_root() {
        let users = fs::read_to_string("/etc/passwd").expect("users");
        let nobody =
            users.lines().find_map(|line| line.strip_prefix("nobody:")?.split(':').nth(1)?.parse().ok());
        std::os::unix::fs::chown(path, Some(nobody.expect("the user nobody")), None)
            .expect("root may do this");
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The memory of a process that is not swapped out, in KiB.
///
/// # Panics
/// Where it does not exist.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

/// Where Lua is a dynamic module, as in Debian, the lines that load it; none where it is built in, as in OpenResty.
pub(crate) fn modules() -> String {
    let names = ["ndk_http_module.so", "ngx_http_lua_module.so"];
    let built = Command::new(binary()).arg("-V").output().map(|output| output.stderr).unwrap_or_default();
    let built = String::from_utf8_lossy(&built);
    let mut added = built.split_whitespace().filter_map(|word| word.strip_prefix("--add-module="));
    // OpenResty's name for the module, and that of its repository.
    if added.any(|path| path.contains("ngx_lua") || path.contains("lua-nginx-module")) {
        return String::new();
    }
    let place = built.split("--modules-path=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let place = place.unwrap_or("/usr/lib/nginx/modules");
    names.map(|name| format!("load_module {place}/{name}; ")).concat()
}

/// A script that is `openresty` where there is none: the nginx under test, with what differs on this machine. Its last
/// argument is the directives of `-g`, to which it adds.
pub(crate) fn shim() -> String {
    let (binary, added) = (binary(), format!("{}{}", user(Launch::default()), modules()));
    format!(
        "#!/bin/sh\nset -eu\ncount=$# last=\nfor argument; do last=$argument; done\nwhile [ $count -gt 1 ]; do \
         set -- \"$@\" \"$1\"; shift; count=$((count - 1)); done\nshift\n\
         exec '{}' \"$@\" \"$last {added}\"\n",
        binary.display()
    )
}

/// The module under test: `TENANTAUTH_SO`, or what cargo built last. It leaves the module of a test beside the test
/// (`target/debug/deps`), and that of `cargo build` above it.
fn shared_object() -> PathBuf {
    let given = std::env::var_os("TENANTAUTH_SO").map(PathBuf::from);
    let executable = std::env::current_exe().expect("a path of our own");
    let built = executable
        .ancestors()
        .skip(2)
        .take(1)
        .flat_map(|profile| [profile.to_path_buf(), profile.join("deps")]);
    let built = built.map(|directory| directory.join("libtenantauth.so"));
    let newest = built.max_by_key(|file| fs::metadata(file).and_then(|data| data.modified()).ok());
    let file = given.or(newest).expect("target/<profile>/<directory>/<file>");
    assert!(file.exists(), "no module at {}: build it, or set TENANTAUTH_SO", file.display());
    file
}

/// Lays the module out in the workspace as `make install` does: `lib/tenantauth/tenantauth.so`, and the snippets in
/// `share/tenantauth/`.
pub(crate) fn install(workspace: &Workspace) {
    let module = workspace.path("lib/tenantauth/tenantauth.so");
    fs::create_dir_all(module.parent().expect("a directory")).expect("a directory inside ours");
    // A debug build is large: a second name for it is enough wherever the file systems allow.
    if fs::hard_link(shared_object(), &module).is_err() {
        fs::copy(shared_object(), &module).expect("a copy of the module");
    }
    workspace.copy(&super::repository("nginx/http.conf"), "share/tenantauth/http.conf");
    workspace.copy(&super::repository("lua/auth.lua"), "share/tenantauth/auth.lua");
}

/// Replaces the installed module by a copy, by rename; the copy is another file to the kernel. Returns its inode.
pub(crate) fn replace_module(workspace: &Workspace) -> u64 {
    let module = workspace.path("lib/tenantauth/tenantauth.so");
    let aside = module.with_extension("new");
    fs::copy(&module, &aside).expect("a copy of the module");
    fs::rename(&aside, &module).expect("a rename in our own directory");
    fs::metadata(&module).expect("the copy").ino()
}

/// The inodes of every `tenantauth.so` that a process has mapped.
pub(crate) fn mapped_modules(pid: u32) -> BTreeSet<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let ours = maps.lines().filter(|line| line.contains("tenantauth.so"));
    ours.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).collect()
}

/// The parent of a process; the command in `/proc/<pid>/stat` may hold anything up to its last parenthesis.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn title(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}
