//! The servers under measurement: two nginx of the same build with one worker each, one with tenantauth and one
//! without, and a third as their backend.

use crate::common::typical::{HOME, OFFICE, PATH, POLICY, QUERY, headers, token};
use crate::load::{cpu_time, pin, wrk};
use crate::support::client::{Answer, Request};
use crate::support::nginx::{Launch, Nginx, install};
use crate::support::site::{COOKIE_KEY, TEMPORARY};
use crate::support::tokens::{jwks, key};
use crate::support::wait_for;
use crate::support::workspace::{Workspace, free_port};
use std::fs;

/// What the load is sent to. Each is one `server {}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// `proxy_pass` alone.
    Plain,
    /// The same behind `enforce`.
    Enforce,
    /// `proxy_pass` with nginx's `combined` log.
    PlainLogged,
    /// The same behind `enforce`, with the audit log instead.
    EnforceAudited,
}

impl Server {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Enforce, Self::PlainLogged, Self::EnforceAudited];

    fn enforces(self) -> bool {
        matches!(self, Self::Enforce | Self::EnforceAudited)
    }
}

/// Both front servers proxy as production does (`nginx/examples/mimir-loki-tempo.conf`): kept connections to the
/// backend and room for large headers. The fewer microseconds nginx itself needs, the more a microsecond of ours
/// weighs.
const FRONT: &str = r#"
worker_processes 1;
error_log @DIR@/error.log warn;
pid @DIR@/nginx.pid;
events { worker_connections 1024; }
http {
    @TEMPORARY@
    @MODULE@
    large_client_header_buffers 8 32k;
    keepalive_requests 100000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream loki {
        server 127.0.0.1:@BACKEND@;
        keepalive 64;
        keepalive_requests 100000000;
    }
    server {
        listen 127.0.0.1:@QUIET@;
        access_log off;
        @ENFORCE@
        location / { proxy_pass http://loki; }
    }
    server {
        listen 127.0.0.1:@LOGGED@;
        access_log @DIR@/access.log @FORMAT@ buffer=64k flush=1s;
        @ENFORCE@
        location / { proxy_pass http://loki; }
    }
    @ADMIN@
}
"#;

const MODULE: &str = r#"
    lua_package_cpath "@DIR@/lib/tenantauth/?.so;;";
    lua_shared_dict tenantauth 10m;
    include @DIR@/share/tenantauth/http.conf;
    init_worker_by_lua_block { require("tenantauth").init_worker { policy = "@DIR@/policy.yaml" } }
"#;

const ENFORCE: &str = r#"rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }"#;

const ADMIN: &str = r#"
    server {
        listen 127.0.0.1:@ADMIN_PORT@;
        access_log off;
        location = /metrics { content_by_lua_block { require("tenantauth").metrics() } }
        location = /versions { content_by_lua_block {
            local v, lua = ngx.config.nginx_version, ngx.config.ngx_lua_version
            ngx.print("nginx ", math.floor(v / 1000000), ".", math.floor(v / 1000) % 1000, ".", v % 1000,
                ", ngx_lua ", math.floor(lua / 1000000), ".", math.floor(lua / 1000) % 1000, ".", lua % 1000,
                ", ", jit.version, ", tenantauth ", require("tenantauth").version)
        } }
    }
"#;

const BACKEND: &str = r#"
worker_processes 1;
error_log @DIR@/error.log warn;
pid @DIR@/nginx.pid;
events { worker_connections 1024; }
http {
    @TEMPORARY@
    access_log off;
    large_client_header_buffers 8 32k;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:@PORT@;
        location / {
            default_type application/json;
            return 200 '{"status":"success","data":{"resultType":"streams","result":[]}}';
        }
    }
}
"#;

/// One nginx in front of the backend.
struct Front {
    workspace: Workspace,
    quiet: u16,
    logged: u16,
    admin: u16,
    worker: u32,
    _nginx: Nginx,
}

impl Front {
    fn start(backend: u16, with_module: bool) -> Self {
        let workspace = Workspace::new();
        if with_module {
            install(&workspace);
            workspace.write("jwks.json", jwks(&[key()]));
            workspace.write("client-ip.keys", COOKIE_KEY.line());
            workspace.write("policy.yaml", POLICY.replace("@DIR@", workspace.text()));
        }
        let [quiet, logged, admin] = [(); 3].map(|()| free_port());
        let [module, enforce, further] =
            [MODULE, ENFORCE, ADMIN].map(|text| if with_module { text } else { "" });
        let configuration = FRONT
            .replace("@MODULE@", module)
            .replace("@ENFORCE@", enforce)
            .replace("@ADMIN@", further)
            .replace("@FORMAT@", if with_module { "tenantauth_audit" } else { "combined" })
            .replace("@BACKEND@", &backend.to_string())
            .replace("@QUIET@", &quiet.to_string())
            .replace("@LOGGED@", &logged.to_string())
            .replace("@ADMIN_PORT@", &admin.to_string());
        let (nginx, worker) = start(&workspace, &configuration, quiet);
        Self { workspace, quiet, logged, admin, worker, _nginx: nginx }
    }
}

fn fill(configuration: &str, workspace: &Workspace) -> String {
    configuration.replace("@TEMPORARY@", TEMPORARY).replace("@DIR@", workspace.text())
}

/// Starts nginx, and moves its only worker to the core of the measurement.
fn start(workspace: &Workspace, configuration: &str, port: u16) -> (Nginx, u32) {
    let nginx = Nginx::start(workspace, &fill(configuration, workspace), 1, port, Launch::default());
    let worker = *nginx.workers().first().expect("a worker");
    pin(worker);
    (nginx, worker)
}

/// Everything that runs.
pub(crate) struct Farm {
    plain: Front,
    enforcing: Front,
    token: String,
    _backend: Nginx,
    _backend_workspace: Workspace,
}

impl Farm {
    /// Starts the three nginx.
    pub(crate) fn start() -> Self {
        let workspace = Workspace::new();
        let port = free_port();
        let (backend, _) = start(&workspace, &BACKEND.replace("@PORT@", &port.to_string()), port);
        Self {
            plain: Front::start(port, false),
            enforcing: Front::start(port, true),
            token: token(),
            _backend: backend,
            _backend_workspace: workspace,
        }
    }

    fn front(&self, server: Server) -> &Front {
        if server.enforces() { &self.enforcing } else { &self.plain }
    }

    fn port(&self, server: Server) -> u16 {
        match server {
            Server::Plain | Server::Enforce => self.front(server).quiet,
            Server::PlainLogged | Server::EnforceAudited => self.front(server).logged,
        }
    }

    /// Sends requests for so many seconds, and returns the worker's CPU time a request in microseconds.
    pub(crate) fn slice(&self, server: Server, seconds: usize) -> f64 {
        let front = self.front(server);
        let log = front.workspace.path("access.log");
        // nginx appends, so an emptied file stays its log; a whole run's would fill the disk.
        fs::File::options().write(true).open(&log).and_then(|log| log.set_len(0)).expect("nginx's log");
        let target = format!("http://127.0.0.1:{}{PATH}?{QUERY}", self.port(server));
        // Signed anew each time: a cookie lives for ten minutes at most.
        let headers = headers(&self.token);
        let before = cpu_time(front.worker);
        let requests = wrk(&front.workspace, &target, &headers, seconds);
        let spent = cpu_time(front.worker) - before;
        spent.as_secs_f64() * 1e6 / requests as f64
    }

    fn send(&self, server: Server, change: impl Fn(&str, String) -> Option<String>) -> Answer {
        let mut request = Request::get(format!("{PATH}?{QUERY}"));
        for (name, value) in headers(&self.token) {
            if let Some(value) = change(name, value) {
                request = request.header(name, value);
            }
        }
        request.send(self.port(server))
    }

    /// Makes sure that what is measured does what it is measured for: all four serve the typical request, and those
    /// that should deny it from elsewhere or without its token do.
    pub(crate) fn prove(&self) {
        for server in Server::ALL {
            let answer = self.send(server, |_, value| Some(value));
            assert_eq!(
                answer.status,
                200,
                "{server:?}: {answer:?}\n{}",
                self.enforcing.workspace.read("error.log")
            );
            let home = self.send(server, |name, value| {
                Some(if name == "Cookie" { COOKIE_KEY.pair(HOME) } else { value })
            });
            let nobody = self.send(server, |name, value| (name != "X-Id-Token").then_some(value));
            let expected = if server.enforces() { ["ip_forbidden", "token_missing"] } else { ["", ""] };
            assert_eq!([home.reason(), nobody.reason()], expected, "{server:?}");
        }
        wait_for("audit record of the typical request", 5, || {
            let log = self.enforcing.workspace.read("access.log");
            log.contains(&format!("\"client_ip\":\"{OFFICE}\"")).then_some(())
        });
    }

    /// Makes sure afterwards that the requests were allowed by verified tokens and counted.
    pub(crate) fn prove_counted(&self) {
        let metrics = Request::get("/metrics").send(self.enforcing.admin).text();
        let value = |sample: &str| {
            let line = metrics.lines().find(|line| line.starts_with(sample));
            let number = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            number.unwrap_or_else(|| panic!("no `{sample}` in the metrics:\n{metrics}"))
        };
        let allowed = value("tenantauth_decisions_total{decision=\"allow\",reason=\"granted\"");
        let hits = value("tenantauth_token_cache_requests_total{result=\"hit\"}");
        assert!(allowed > 1000.0 && hits >= allowed - 2.0, "the load was not decided:\n{metrics}");
    }

    /// What was measured.
    pub(crate) fn versions(&self) -> String {
        Request::get("/versions").send(self.enforcing.admin).text()
    }
}
