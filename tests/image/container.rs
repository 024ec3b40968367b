//! One run of the image's entrypoint: on this machine as it lies in the repository, or inside a built image.

use crate::support::client::Request;
use crate::support::cookie::CookieKey;
use crate::support::nginx::{install, shim};
use crate::support::repository;
use crate::support::tokens::{jwks, key};
use crate::support::wait_for;
use crate::support::workspace::{Process, Workspace, free_port, signal};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) const COOKIE_KEY: CookieKey = CookieKey::new("k1", 7);
/// Whom the image runs as.
const USER: u32 = 10101;

/// What is mounted into the container: the policy, what it keeps, and where it may write.
pub(crate) struct Room {
    pub(crate) workspace: Workspace,
    ports: [u16; 5],
}

/// A started container.
pub(crate) struct Container {
    process: Option<Process>,
    name: String,
    admin: u16,
}

/// The root of a built image and its configuration, as `buildah inspect` prints what engines of Docker's kind read (OCI's
/// own has no health check); without them the entrypoint of
/// the repository runs on this machine.
fn image() -> Option<(PathBuf, serde_json::Value)> {
    let root = std::env::var_os("TENANTAUTH_IMAGE_ROOT")?;
    let file = std::env::var_os("TENANTAUTH_IMAGE_CONFIG").expect("TENANTAUTH_IMAGE_CONFIG too");
    let config = fs::read(file).expect("the image's configuration");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    Some((root.into(), config["Docker"]["config"].clone()))
}

/// The configuration of the image under test, where there is one.
pub(crate) fn config() -> Option<serde_json::Value> {
    image().map(|(_, config)| config)
}

impl Room {
    /// Keys, an empty state directory, and no policy yet.
    pub(crate) fn new() -> Self {
        let workspace = Workspace::new();
        workspace.write("etc/jwks.json", jwks(&[key()]));
        workspace.write("etc/client-ip.keys", COOKIE_KEY.line());
        for directory in ["etc/owners.d", "state", "run"] {
            fs::create_dir_all(workspace.path(directory)).expect("a directory inside ours");
        }
        if image().is_some() {
            // The image's user reads what is mounted; the test's own user may be one with a strict umask.
            for path in ["", "etc", "etc/owners.d", "etc/jwks.json", "etc/client-ip.keys"] {
                let mode = if workspace.path(path).is_dir() { 0o755 } else { 0o644 };
                fs::set_permissions(workspace.path(path), fs::Permissions::from_mode(mode)).expect("ours");
            }
            for path in ["state", "run"] {
                chown(workspace.path(path), Some(USER), Some(USER))
                    .expect("the tests of an image run as root");
            }
        } else {
            install(&workspace);
            for name in ["gateway.conf", "backend.conf", "admin.conf", "grafana-gateway.conf"] {
                let template = fs::read_to_string(repository("deploy/image").join(name)).expect(name);
                // Where Lua is a dynamic module `openresty`, below, loads it.
                let template = template.replace("/etc/nginx/modules-enabled", "/nonexistent");
                workspace.write(&format!("share/tenantauth/image/{name}"), template);
            }
            workspace.program(Path::new(env!("CARGO_BIN_EXE_tenantauth")), "bin/tenantauth");
            let openresty = workspace.write("openresty", shim());
            workspace.program(&openresty, "bin/openresty");
        }
        Self { workspace, ports: [(); 5].map(|()| free_port()) }
    }

    /// The port of `mimir`, `loki`, `tempo`, `grafana` or `admin`.
    pub(crate) fn port(&self, name: &str) -> u16 {
        let place = ["mimir", "loki", "tempo", "grafana", "admin"].iter().position(|known| *known == name);
        self.ports[place.expect("a known server")]
    }

    /// Where the container sees a directory of the room: `etc`, `state` or `run`.
    pub(crate) fn inside(&self, directory: &str) -> String {
        match (image(), directory) {
            (None, _) => self.workspace.path(directory).display().to_string(),
            (Some(_), "etc") => "/etc/tenantauth".to_owned(),
            (Some(_), "state") => "/var/lib/tenantauth".to_owned(),
            (Some(_), _) => "/run/tenantauth".to_owned(),
        }
    }

    pub(crate) fn write_policy(&self, text: &str) {
        self.write("etc/policy.yaml", text);
    }

    /// Writes a file that everybody may read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.workspace.write(name, text);
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("ours");
    }

    /// The command that runs the entrypoint with these variables and arguments.
    fn command(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
        let mut environment: BTreeMap<String, String> = BTreeMap::new();
        for name in ["mimir", "loki", "tempo", "grafana"] {
            let listen = format!("127.0.0.1:{}", self.port(name));
            environment.insert(format!("TENANTAUTH_LISTEN_{}", name.to_uppercase()), listen);
        }
        environment.insert("TENANTAUTH_ADMIN_LISTEN".to_owned(), format!("127.0.0.1:{}", self.port("admin")));
        environment.insert("TENANTAUTH_WORKERS".to_owned(), "2".to_owned());
        let mut command = Command::new("env");
        command.current_dir(self.workspace.path("")).arg("-i");
        let mut entrypoint;
        if let Some((root, config)) = image() {
            // The room's directories are mounted where the image's users mount theirs.
            environment.insert("ROOM".to_owned(), self.workspace.text().to_owned());
            environment.insert("ROOT".to_owned(), root.display().to_string());
            for pair in config["Env"].as_array().expect("the image's environment") {
                let (name, value) = pair.as_str().expect("text").split_once('=').expect("NAME=value");
                environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
            entrypoint = vec![repository("tests/image/enter.sh").display().to_string()];
            entrypoint.push(config["User"].as_str().expect("a user").to_owned());
            let words = config["Entrypoint"].as_array().expect("an entrypoint").iter();
            entrypoint.extend(words.map(|word| word.as_str().expect("text").to_owned()));
        } else {
            let path = std::env::var("PATH").expect("PATH");
            environment.insert("PATH".to_owned(), format!("{}:{path}", self.inside("bin")));
            environment.insert("TENANTAUTH_PREFIX".to_owned(), self.inside(""));
            environment.insert("TENANTAUTH_RUN_DIR".to_owned(), self.inside("run"));
            environment.insert("TENANTAUTH_STATE_DIR".to_owned(), self.inside("state"));
            environment.insert("TENANTAUTH_POLICY".to_owned(), self.inside("etc"));
            environment.insert("TENANTAUTH_NGINX_CONF".to_owned(), self.inside("own.conf"));
            let keys = format!("{}/client-ip.keys", self.inside("etc"));
            environment.insert("TENANTAUTH_KEYS_FILE".to_owned(), keys);
            entrypoint = vec![repository("deploy/image/entrypoint.sh").display().to_string()];
        }
        let given = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        environment.extend(given);
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(entrypoint).args(arguments);
        command
    }

    /// Starts the container, and waits until its administration server answers.
    pub(crate) fn start(&self, name: &str, variables: &[(&str, &str)]) -> Container {
        let process = Process::start(&self.workspace, name, &mut self.command(variables, &[]));
        let mut container =
            Container { process: Some(process), name: name.to_owned(), admin: self.port("admin") };
        wait_for("container that listens", 20, || {
            let running = container.process.as_mut().is_some_and(Process::is_running);
            assert!(running, "it ended:\n{}", container.output(self));
            TcpStream::connect(("127.0.0.1", self.port("admin"))).ok()
        });
        container
    }

    /// Runs the entrypoint to its end, which is expected soon.
    pub(crate) fn run(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        self.command(variables, arguments).output().expect("env and sh")
    }

    /// Runs it where it must refuse to start, and returns what it says. Nothing listens then.
    pub(crate) fn refused(&self, variables: &[(&str, &str)]) -> String {
        let output = self.run(variables, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(TcpStream::connect(("127.0.0.1", self.port("admin"))).is_err());
        said
    }

    /// Waits until a policy serves with the keys of every issuer.
    pub(crate) fn wait_until_ready(&self) {
        wait_for("policy", 10, || {
            (Request::get("/status?ready").send(self.port("admin")).status == 200).then_some(())
        });
    }

    /// The exit status of the image's health check.
    pub(crate) fn health(&self, mode: &str) -> i32 {
        let variables = [("TENANTAUTH_MODE", mode)];
        let status = if let Some(config) = config() {
            let test = config_of_health(&config);
            self.run(&variables, &test.iter().map(String::as_str).collect::<Vec<_>>()).status
        } else {
            let script = repository("deploy/image/health.sh").display().to_string();
            self.run(&variables, &[&script]).status
        };
        status.code().expect("it ended by itself")
    }
}

/// The words of the health check: `CMD` and what follows.
fn config_of_health(config: &serde_json::Value) -> Vec<String> {
    let words = config["Healthcheck"]["Test"].as_array().expect("a health check").iter();
    let words: Vec<String> = words.map(|word| word.as_str().expect("text").to_owned()).collect();
    assert_eq!(words[0], "CMD");
    words[1..].to_vec()
}

impl Container {
    /// What it has printed so far.
    pub(crate) fn output(&self, room: &Room) -> String {
        room.workspace.read(&format!("{}.log", self.name))
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take()
            && process.is_running()
        {
            // Inside an image that is the process which made its namespaces: all in them ends with it. On this
            // machine it is nginx, whose workers must not outlive it.
            signal(process.pid(), if image().is_some() { "KILL" } else { "TERM" });
            wait_for("end of the container", 10, || (!process.is_running()).then_some(()));
            // What it leaves behind ends a moment later.
            wait_for("free port", 10, || TcpStream::connect(("127.0.0.1", self.admin)).err());
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.end();
    }
}
