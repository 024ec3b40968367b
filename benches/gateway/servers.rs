//! The servers under measurement: two nginx of the same build with one worker each, one with tenantauth and one
//! without, the peers, and one more nginx as the backend of all.

use crate::common::typical::{HOME, OFFICE, PATH, POLICY, QUERY, claims_of, headers, token};
use crate::load::{core, cpu_time, pin, wrk};
use crate::peers::Peer;
use crate::support::client::{Answer, Request};
use crate::support::cookie::CookieKey;
use crate::support::nginx::{Launch, Nginx, install};
use crate::support::site::{COOKIE_KEY, TEMPORARY};
use crate::support::tokens::{jwks, key};
use crate::support::wait_for;
use crate::support::workspace::{Workspace, free_port};
use serde_json::{Value, json};
use std::fs;

/// What the load is sent to.
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
    /// The same behind auth.lua, which parses the token.
    AuthLua,
    /// The same, which verifies it too.
    AuthLuaVerifying,
    /// HAProxy that verifies, and reads claims as its manual shows.
    HAProxy,
    /// The same, which decodes the claims once.
    HAProxyOnce,
    /// Envoy that verifies.
    Envoy,
    /// Envoy that remembers what it verified.
    EnvoyCached,
}

impl Server {
    /// The nginx without tenantauth and with it, in the order of their numbers.
    pub(crate) const OURS: [Self; 4] = [Self::Plain, Self::Enforce, Self::PlainLogged, Self::EnforceAudited];
    /// The others.
    pub(crate) const PEERS: [Self; 6] = [
        Self::AuthLua,
        Self::AuthLuaVerifying,
        Self::HAProxy,
        Self::HAProxyOnce,
        Self::Envoy,
        Self::EnvoyCached,
    ];
    /// How many there are.
    pub(crate) const COUNT: usize = Self::OURS.len() + Self::PEERS.len();

    fn enforces(self) -> bool {
        matches!(self, Self::Enforce | Self::EnforceAudited)
    }
}

/// Every nginx in front proxies as production does (`nginx/examples/mimir-loki-tempo.conf`): kept connections to the
/// backend and room for large headers. The fewer microseconds nginx itself needs, the more a microsecond of ours
/// weighs.
const FRONT: &str = r#"
worker_processes 1;
error_log @DIR@/error.log warn;
pid @DIR@/nginx.pid;
events { worker_connections 2048; }
http {
    @TEMPORARY@
    @MODULE@
    large_client_header_buffers 8 32k;
    keepalive_requests 100000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream loki {
        server 127.0.0.1:@BACKEND@;
        keepalive @KEPT@;
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

/// Connections to the backend that are kept open: as many as come in at most.
const KEPT: usize = 256;

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
events { worker_connections 4096; }
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

/// What distinguishes one nginx in front of the backend from another.
#[derive(Clone, Copy, Default)]
pub(crate) struct Variety<'a> {
    /// Directives of `http {}`.
    pub(crate) module: &'a str,
    /// Directives of each `server {}`.
    pub(crate) enforce: &'a str,
    /// Further servers of `http {}`.
    pub(crate) admin: &'a str,
    /// The access log's format.
    pub(crate) format: &'a str,
}

/// One nginx in front of the backend.
pub(crate) struct Front {
    pub(crate) workspace: Workspace,
    pub(crate) quiet: u16,
    logged: u16,
    pub(crate) admin: u16,
    pub(crate) worker: u32,
    pub(crate) nginx: Nginx,
}

impl Front {
    /// Starts it in a workspace that has what the variety names.
    pub(crate) fn start(workspace: Workspace, backend: u16, variety: Variety<'_>) -> Self {
        let [quiet, logged, admin] = [(); 3].map(|()| free_port());
        let configuration = FRONT
            .replace("@MODULE@", variety.module)
            .replace("@ENFORCE@", variety.enforce)
            .replace("@ADMIN@", variety.admin)
            .replace("@FORMAT@", variety.format)
            .replace("@KEPT@", &KEPT.to_string())
            .replace("@BACKEND@", &backend.to_string())
            .replace("@QUIET@", &quiet.to_string())
            .replace("@LOGGED@", &logged.to_string())
            .replace("@ADMIN_PORT@", &admin.to_string());
        let (nginx, worker) = start(&workspace, &configuration, quiet);
        Self { workspace, quiet, logged, admin, worker, nginx }
    }

    fn plain(backend: u16) -> Self {
        let variety = Variety { format: "combined", ..Variety::default() };
        Self::start(Workspace::new(), backend, variety)
    }

    fn enforcing(backend: u16) -> Self {
        let workspace = Workspace::new();
        install(&workspace);
        workspace.write("jwks.json", jwks(&[key()]));
        workspace.write("client-ip.keys", COOKIE_KEY.line());
        workspace.write("policy.yaml", POLICY.replace("@DIR@", workspace.text()));
        let variety = Variety { module: MODULE, enforce: ENFORCE, admin: ADMIN, format: "tenantauth_audit" };
        Self::start(workspace, backend, variety)
    }
}

/// Starts nginx, and moves its only worker to the core of the measurement.
fn start(workspace: &Workspace, configuration: &str, port: u16) -> (Nginx, u32) {
    let configuration = configuration.replace("@TEMPORARY@", TEMPORARY).replace("@DIR@", workspace.text());
    let nginx = Nginx::start(workspace, &configuration, 1, port, Launch::default());
    let worker = *nginx.workers().first().expect("a worker");
    pin(worker, &[core()]);
    (nginx, worker)
}

/// Everything that runs.
pub(crate) struct Farm {
    plain: Front,
    enforcing: Front,
    peers: Vec<(Server, Result<Peer, String>)>,
    token: String,
    /// The backend's only worker.
    pub(crate) backend: u32,
    backend_port: u16,
    _backend: Nginx,
    _backend_workspace: Workspace,
}

impl Farm {
    /// Starts the nginx, and those peers that are there.
    pub(crate) fn start() -> Self {
        let workspace = Workspace::new();
        let port = free_port();
        let (nginx, backend) = start(&workspace, &BACKEND.replace("@PORT@", &port.to_string()), port);
        Self {
            plain: Front::plain(port),
            enforcing: Front::enforcing(port),
            peers: Server::PEERS.map(|server| (server, Peer::start(server, port))).into(),
            token: token(),
            backend,
            backend_port: port,
            _backend: nginx,
            _backend_workspace: workspace,
        }
    }

    /// Starts both nginx in front anew: what is measured of one process differs by a percent from the next one's, for as
    /// long as it lives.
    pub(crate) fn restart(&mut self) {
        self.plain = Front::plain(self.backend_port);
        self.enforcing = Front::enforcing(self.backend_port);
        self.prove();
    }

    fn front(&self, server: Server) -> &Front {
        if server.enforces() { &self.enforcing } else { &self.plain }
    }

    fn peer(&self, server: Server) -> Option<&Peer> {
        let (_, peer) = self.peers.iter().find(|(peer, _)| *peer == server)?;
        Some(peer.as_ref().unwrap_or_else(|why| panic!("{server:?} does not run: {why}")))
    }

    /// Where a server listens.
    pub(crate) fn port(&self, server: Server) -> u16 {
        self.peer(server).map_or_else(
            || match server {
                Server::PlainLogged | Server::EnforceAudited => self.front(server).logged,
                _ => self.front(server).quiet,
            },
            |peer| peer.port,
        )
    }

    /// The process that serves a server's requests.
    pub(crate) fn worker(&self, server: Server) -> u32 {
        self.peer(server).map_or_else(|| self.front(server).worker, |peer| peer.worker)
    }

    /// Those that run.
    pub(crate) fn running(&self) -> Vec<Server> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.is_ok()).map(|(server, _)| *server);
        Server::OURS.into_iter().chain(peers).collect()
    }

    /// Why a peer does not run.
    pub(crate) fn absent(&self, server: Server) -> Option<&str> {
        let (_, peer) = self.peers.iter().find(|(peer, _)| *peer == server)?;
        peer.as_ref().err().map(String::as_str)
    }

    /// Stops a peer that turned out not to be fit for what it is measured for.
    fn give_up(&mut self, server: Server, why: String) {
        eprintln!("{server:?} is left out: {why}");
        for (peer, state) in &mut self.peers {
            if *peer == server {
                *state = Err(why.clone());
            }
        }
    }

    /// Stops all peers.
    pub(crate) fn without_peers(&mut self) {
        self.peers.clear();
    }

    /// Sends requests for so many seconds, and returns the worker's CPU time a request in microseconds; `None` where
    /// a peer failed, which is then left out.
    pub(crate) fn slice(&mut self, server: Server, seconds: usize) -> Option<f64> {
        self.absent(server).is_none().then_some(())?;
        let workspace =
            self.peer(server).map_or_else(|| &self.front(server).workspace, |peer| &peer.workspace);
        if self.peer(server).is_none() {
            // nginx appends, so an emptied file stays its log; a whole run's would fill the disk.
            let log = workspace.path("access.log");
            fs::File::options().write(true).open(&log).and_then(|log| log.set_len(0)).expect("nginx's log");
        }
        let target = format!("http://127.0.0.1:{}{PATH}?{QUERY}", self.port(server));
        // Signed anew each time: a cookie lives for ten minutes at most.
        let headers = headers(&self.token);
        let worker = self.worker(server);
        let before = cpu_time(worker);
        match wrk(workspace, &target, &headers, seconds) {
            Ok(requests) => Some((cpu_time(worker) - before).as_secs_f64() * 1e6 / requests as f64),
            Err(why) => {
                assert!(self.peer(server).is_some(), "{server:?}: {why}");
                self.give_up(server, why);
                None
            }
        }
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

    /// Makes sure that what is measured does what it is measured for: all nginx serve the typical request, and those
    /// that should deny it from elsewhere or without its token do. A peer that does not is left out.
    pub(crate) fn prove(&mut self) {
        for server in Server::OURS {
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
        for server in
            Server::PEERS.into_iter().filter(|server| self.absent(*server).is_none()).collect::<Vec<_>>()
        {
            if let Err(why) = self.prove_peer(server) {
                self.give_up(server, why);
            }
        }
    }

    /// A peer must serve the typical request and another tenant of the same user's, and deny a tenant that is not
    /// theirs and a request without a token; where it verifies, a token that somebody changed, or that is not for now
    /// or for us. Where it knows the restriction, it must deny a request from elsewhere or without an address; where it
    /// verifies the cookie, one that somebody else signed or that has expired.
    fn prove_peer(&self, server: Server) -> Result<(), String> {
        let replaced = |name: &'static str, by: &'static str| {
            move |header: &str, value: String| Some(if header == name { by.to_owned() } else { value })
        };
        // The first character of the signature, none of whose bits is filling.
        let forge = |name: &str, value: String| {
            let forged = |token: &str| {
                let (signed, signature) = token.rsplit_once('.').expect("three parts");
                let other = if signature.starts_with('A') { 'B' } else { 'A' };
                format!("{signed}.{other}{}", &signature[1..])
            };
            Some(if name == "X-Id-Token" { forged(&value) } else { value })
        };
        let forged = self.send(server, forge);
        let now = crate::support::now();
        let token = |claim: &str, value: Value| {
            let mut claims = claims_of(50, "user-1");
            claims[claim] = value;
            let token = key().token(&claims);
            self.send(server, |name, value| Some(if name == "X-Id-Token" { token.clone() } else { value }))
        };
        let cookie = |cookie: Option<String>| {
            self.send(server, |name, value| if name == "Cookie" { cookie.clone() } else { Some(value) })
        };
        let stamped = |key: &CookieKey, seconds: i64| {
            let value = key.sign("Client_Ip", OFFICE, now + seconds);
            cookie(Some(format!("Client_Ip={value}")))
        };
        // Envoy's filters know no HMAC.
        let unrestricted = matches!(server, Server::Envoy | Server::EnvoyCached);
        let trusting = unrestricted || server == Server::AuthLua;
        let impostor = CookieKey::new(COOKIE_KEY.id, 8);
        let answers = [
            ("the typical request", self.send(server, |_, value| Some(value)), true),
            ("another tenant of theirs", self.send(server, replaced("X-Scope-OrgID", "tenant1")), true),
            ("a tenant of others", self.send(server, replaced("X-Scope-OrgID", "tenant2")), false),
            ("no token", self.send(server, |name, value| (name != "X-Id-Token").then_some(value)), false),
            ("a token that was changed", forged, server == Server::AuthLua),
            ("a token of yesterday", token("exp", json!(now - 3600)), server == Server::AuthLua),
            ("a token of tomorrow", token("nbf", json!(now + 3600)), server == Server::AuthLua),
            (
                "a token of another issuer",
                token("iss", json!("https://other.test")),
                server == Server::AuthLua,
            ),
            ("a token for another audience", token("aud", json!("other")), server == Server::AuthLua),
            ("a request from elsewhere", cookie(Some(COOKIE_KEY.pair(HOME))), unrestricted),
            ("no address", cookie(None), unrestricted),
            ("an address signed by somebody else", stamped(&impostor, 300), trusting),
            ("an address of a minute ago", stamped(&COOKIE_KEY, -60), trusting),
        ];
        for (what, answer, served) in answers {
            let expected: &[u16] = if served { &[200] } else { &[401, 403] };
            if !expected.contains(&answer.status) {
                let log = self.peer(server).map(Peer::complaints).unwrap_or_default();
                return Err(format!("{what} was answered {}; {log}", answer.status));
            }
        }
        Ok(())
    }

    /// The value of a sample of tenantauth's metrics.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let metrics = Request::get("/metrics").send(self.enforcing.admin).text();
        let line = metrics.lines().find(|line| line.starts_with(sample));
        let number = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        number.unwrap_or_else(|| panic!("no `{sample}` in the metrics:\n{metrics}"))
    }

    /// Makes sure afterwards that the requests were allowed by verified tokens and counted.
    pub(crate) fn prove_counted(&self) {
        let allowed = self.metric("tenantauth_decisions_total{decision=\"allow\",reason=\"granted\"");
        let hits = self.metric("tenantauth_token_cache_requests_total{result=\"hit\"}");
        assert!(
            allowed > 1000.0 && hits >= allowed - 2.0,
            "{allowed} were allowed, {hits} tokens were known"
        );
    }

    /// What was measured.
    pub(crate) fn versions(&self) -> Vec<String> {
        let ours = Request::get("/versions").send(self.enforcing.admin).text();
        let mut versions: Vec<String> = ours.split(", ").map(str::to_owned).collect();
        for peer in self.peers.iter().filter_map(|(_, peer)| peer.as_ref().ok()) {
            if !versions.contains(&peer.version) {
                versions.push(peer.version.clone());
            }
        }
        versions
    }
}
