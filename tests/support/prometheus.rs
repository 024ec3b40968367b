//! A real Prometheus as a backend that speaks Mimir's query API.

use super::client::Request;
use super::wait_for;
use super::workspace::{Process, Workspace, free_port};
use serde_json::Value;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

/// A Prometheus that scrapes itself every second and answers under `/prometheus`, as Mimir does.
pub(crate) struct Prometheus {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    _process: Process,
}

impl Prometheus {
    /// Starts it with its data in the workspace, and waits until it has scraped something.
    pub(crate) fn start(workspace: &Workspace) -> Self {
        Self::watching(workspace, &[], &[])
    }

    /// [`Prometheus::start`] for one that scrapes these ports of 127.0.0.1 too, as the job `tenantauth`, and evaluates
    /// these rules, both every second.
    pub(crate) fn watching(workspace: &Workspace, ports: &[u16], rules: &[PathBuf]) -> Self {
        let port = free_port();
        let targets: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let file = workspace.write(
            "prometheus.yml",
            format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: {rules:?}\n\
                 scrape_configs:\n  - job_name: prometheus\n    metrics_path: /prometheus/metrics\n    \
                 static_configs: [{{ targets: [\"127.0.0.1:{port}\"] }}]\n  - job_name: tenantauth\n    \
                 static_configs: [{{ targets: {targets:?} }}]\n"
            ),
        );
        let mut command = Command::new(std::env::var_os("PROMETHEUS").unwrap_or_else(|| "prometheus".into()));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", workspace.path("prometheus").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.args(["--web.route-prefix=/prometheus", "--log.level=warn"]);
        let mut process = Process::start(workspace, "prometheus", &mut command);
        wait_for("Prometheus that has scraped itself", 30, || {
            let log = || workspace.read("prometheus.log");
            assert!(process.is_running(), "Prometheus did not start:\n{}", log());
            drop(TcpStream::connect(("127.0.0.1", port)).ok()?);
            let answer = Request::get("/prometheus/api/v1/query?query=up").send(port);
            (answer.status == 200 && answer.text().contains("\"job\":\"prometheus\"")).then_some(())
        });
        Self { port, _process: process }
    }

    /// The `data` of an answer of its API: `rules`, or `query` with its parameters.
    ///
    /// # Panics
    /// With the answer, where it is an error.
    pub(crate) fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Value {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let escaped = |text: &str| -> String {
            let letter =
                |byte: u8| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") };
            text.bytes().map(letter).collect()
        };
        let pairs: Vec<_> =
            parameters.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let answer = Request::get(format!("/prometheus/api/v1/{what}?{}", pairs.join("&"))).send(self.port);
        assert_eq!(answer.status, 200, "{parameters:?}: {}", answer.text());
        answer.json()["data"].take()
    }
}
