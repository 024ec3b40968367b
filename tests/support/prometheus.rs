//! A real Prometheus as a backend that speaks Mimir's query API.

use super::client::Request;
use super::wait_for;
use super::workspace::{Process, Workspace, free_port};
use std::net::TcpStream;
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
        let port = free_port();
        let file = workspace.write(
            "prometheus.yml",
            format!(
                "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: prometheus\n    \
                 metrics_path: /prometheus/metrics\n    static_configs: [{{ targets: [\"127.0.0.1:{port}\"] }}]\n"
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
}
