//! A real OpenID provider: `oidc-provider` on Node.js, over TLS, with faults on demand (`tests/provider`).

use super::certificates::Authority;
use super::repository;
use super::workspace::{Process, Workspace, free_port};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command};

/// The audience of its tokens: the client that Grafana would be.
pub(crate) const AUDIENCE: &str = "grafana";

/// How often it was asked since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// For the key set.
    pub(crate) jwks: u64,
    /// For the metadata.
    pub(crate) discovery: u64,
    /// Such requests at one time, at most.
    pub(crate) at_once: u64,
}

/// The provider; ended when dropped. Its certificates are in the workspace: `ca.pem`, `server.pem`, `expired.pem`
/// and, of an authority that `ca.pem` knows nothing of, `stranger.pem`.
pub(crate) struct Provider {
    /// The issuer of its tokens.
    pub(crate) issuer: String,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
    directory: std::path::PathBuf,
    _process: Process,
}

impl Provider {
    /// Starts it with one key, `k1`, and waits until it listens.
    ///
    /// # Panics
    /// With what to do, where it was not installed.
    pub(crate) fn start(workspace: &Workspace) -> Self {
        let script = repository("tests/provider/provider.mjs");
        let installed = script.with_file_name("node_modules/oidc-provider");
        assert!(installed.exists(), "the provider is not installed: run `make provider`");
        let authority = Authority::new();
        workspace.write("ca.pem", authority.pem());
        authority.issue(workspace, "server", false);
        authority.issue(workspace, "expired", true);
        Authority::new().issue(workspace, "stranger", false);

        let mut command = Command::new(std::env::var_os("NODE").unwrap_or_else(|| "node".into()));
        command.arg(script).arg(free_port().to_string()).arg(workspace.path(""));
        let (process, stdin, stdout) = Process::start_with_pipes(workspace, "provider", &mut command);
        let provider = Self {
            issuer: String::new(),
            pipes: RefCell::new((stdin, BufReader::new(stdout))),
            directory: workspace.path(""),
            _process: process,
        };
        let issuer = provider.answer()["issuer"].as_str().expect("an issuer").to_owned();
        Self { issuer, ..provider }
    }

    /// The issuer as an entry of a policy's `issuers`, by OpenID discovery. `more`: further lines of that entry.
    pub(crate) fn policy_entry(&self, more: &str) -> String {
        format!(
            "  - name: idp\n    issuer: {}\n    audiences: [{AUDIENCE}]\n    ca_file: {}\n    \
             algorithms: [RS256, ES256]\n{more}",
            self.issuer,
            self.directory.join("ca.pem").display()
        )
    }

    /// Logs a user in, step by step as a browser does, and returns the ID token.
    pub(crate) fn login(&self, name: &str, groups: &[&str]) -> String {
        let answer = self.tell(&json!({"do": "login", "name": name, "groups": groups}));
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// ID tokens of different users, signed with the current key. `random_kid`: each with a key id that nobody has.
    pub(crate) fn mint(&self, count: usize, groups: &[&str], random_kid: bool) -> Vec<String> {
        let file = self.directory.join("minted");
        let how =
            json!({"do": "mint", "count": count, "groups": groups, "file": file, "random_kid": random_kid});
        self.tell(&how);
        let tokens = fs::read_to_string(&file).expect("the tokens");
        tokens.lines().map(str::to_owned).collect()
    }

    /// Publishes exactly these keys, each made when it is first named; the first one signs from now on. Names that
    /// begin with `ec` are keys for ES256, all others for RS256.
    pub(crate) fn publish(&self, keys: &[&str]) {
        self.tell(&json!({"do": "keys", "publish": keys}));
    }

    /// Answers for the key set (`jwks`) or the metadata (`discovery`) as `tests/provider/faults.mjs` says under this
    /// name; `None`: properly again.
    pub(crate) fn fault(&self, on: &str, kind: Option<&str>) {
        self.tell(&json!({"do": "fault", "on": on, "kind": kind}));
    }

    /// Answers for the key set and the metadata so much later.
    pub(crate) fn delay(&self, milliseconds: u64) {
        self.tell(&json!({"do": "delay", "milliseconds": milliseconds}));
    }

    /// Shows another certificate to new connections.
    pub(crate) fn certificate(&self, name: &str) {
        self.tell(&json!({"do": "certificate", "name": name}));
    }

    /// Stops listening.
    pub(crate) fn stop(&self) {
        self.tell(&json!({"do": "stop"}));
    }

    /// Listens again.
    pub(crate) fn listen(&self) {
        self.tell(&json!({"do": "start"}));
    }

    /// What it has counted.
    pub(crate) fn counts(&self) -> Counts {
        let answer = self.tell(&json!({"do": "counts"}));
        let number = |name: &str| answer[name].as_u64().expect("a number");
        Counts { jwks: number("jwks"), discovery: number("discovery"), at_once: number("at_once") }
    }

    fn tell(&self, command: &Value) -> Value {
        writeln!(self.pipes.borrow_mut().0, "{command}").expect("a provider that listens to us");
        self.answer()
    }

    fn answer(&self) -> Value {
        let mut line = String::new();
        self.pipes.borrow_mut().1.read_line(&mut line).expect("an answer");
        let log = || fs::read_to_string(self.directory.join("provider.log")).unwrap_or_default();
        let answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("no answer but `{line}`:\n{}", log()));
        assert!(answer.get("error").is_none(), "the provider: {}", answer["error"]);
        answer
    }
}
