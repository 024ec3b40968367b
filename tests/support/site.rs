//! A gateway with everything around it: workspace, policy, keys, backend, nginx.

use super::client::{Answer, Request};
use super::cookie::CookieKey;
use super::nginx::{Launch, Nginx, give_to_unprivileged, install};
use super::tokens::{jwks, key};
use super::upstream::Upstream;
use super::wait_for;
use super::workspace::{Workspace, free_port};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::rc::Rc;

/// The first key of `client-ip.keys`: it signs.
pub(crate) const COOKIE_KEY: CookieKey = CookieKey::new("k1", 7);
/// The second: it only verifies.
pub(crate) const OLD_COOKIE_KEY: CookieKey = CookieKey::new("k0", 9);

/// Tenants and scopes, without restrictions on networks.
pub(crate) const POLICY: &str = r#"
version: 1
issuers:
  - name: idp
    issuer: https://login.example.test/v2.0
    audiences: [grafana]
    jwks_file: @DIR@/jwks.json
authorizations:
  group1: [tenant1]
  group3: [tenant1, tenant2]
  sre: [tenant1, tenant2, team-a]
grants:
  - name: team-a-writers
    groups: [team-a]
    tenants: [team-a, "team-a-*"]
    except_tenants: [team-a-hr]
    scopes: ["logs:read", "logs:write", "metrics:*", "rules:*", "traces:*"]
  - name: cleaners
    groups: [cleaners]
    tenants: [tenant1, tenant2]
    scopes: ["logs:delete"]
  - name: visit-in-2020
    groups: [visitors]
    tenants: [tenant1]
    expires: 2020-02-01T00:00:00Z
"#;

/// What binds logs of every tenant but `tenant2` to the office; append to [`POLICY`] with a `client_ip`.
pub(crate) const RESTRICTIONS: &str = r#"
networks: { office: [203.0.113.0/24, "2001:db8::/32"], vpn: [198.51.100.7] }
restrictions:
  - name: logs-from-office
    except_tenants: [tenant2]
    scopes: ["logs:*"]
    except_groups: [sre]
    networks: [office, vpn, 192.0.2.9]
"#;

/// The signed cookie as the source of the client's address; append to [`POLICY`].
pub(crate) const SIGNED_COOKIE: &str = "client_ip: { keys_file: @DIR@/client-ip.keys }\n";

/// How the module is brought into `http {}`.
pub(crate) const MODULE: &str = r#"
lua_package_cpath "@DIR@/lib/tenantauth/?.so;;";
lua_shared_dict tenantauth 10m;
include @DIR@/share/tenantauth/http.conf;
init_worker_by_lua_block { require("tenantauth").init_worker { policy = "@DIR@/policy.yaml" } }
"#;

/// The platform's document of a policy that is a directory.
pub(crate) const PLATFORM_FILE: &str = "policy/policy.yaml";

/// An owner's document of a policy that is a directory.
pub(crate) fn owner_file(owner: &str) -> String {
    format!("policy/owners.d/{owner}.yaml")
}

/// [`MODULE`] with these options of `init_worker` in addition: `, state_dir = "@DIR@/state"`.
pub(crate) fn module_with(options: &str) -> String {
    let module = MODULE.replace(" } }", &format!("{options} }} }}"));
    assert!(options.is_empty() || module != MODULE);
    module
}

/// The same for a policy that is the directory `policy`.
pub(crate) fn directory_module(options: &str) -> String {
    module_with(options).replace("@DIR@/policy.yaml", "@DIR@/policy")
}

/// A server that decides for Loki and writes an audit record for every request.
pub(crate) const LOKI: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
access_log @DIR@/audit.jsonl tenantauth_audit;
location / { proxy_pass http://@UPSTREAM@; }
"#;

const ADMIN: &str = r#"
server {
    listen 127.0.0.1:@PORT:admin@;
    location = /metrics { content_by_lua_block { require("tenantauth").metrics() } }
    location = /status { content_by_lua_block { require("tenantauth").status() } }
}
"#;

/// Keeps nginx's temporary files in the workspace; to be put first into `http {}`.
pub(crate) const TEMPORARY: &str = "client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; \
    fastcgi_temp_path tmp-fastcgi; uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;";

/// What is to be started. In every text `@DIR@` is the workspace, `@UPSTREAM@` the backend's address, `@PORT@` the
/// main server's port, and `@PORT:name@` or `@UPSTREAM:name@` a further one.
pub(crate) struct SiteBuilder {
    workers: usize,
    policy: Option<String>,
    files: Vec<(String, String)>,
    directories: Vec<String>,
    launch: Launch,
    main: String,
    module: String,
    http: String,
    server: String,
    admin: bool,
    installed: bool,
}

impl SiteBuilder {
    /// The policy document.
    #[must_use]
    pub(crate) fn policy(mut self, text: &str) -> Self {
        self.policy = Some(text.to_owned());
        self
    }

    /// A policy that is the directory `policy`: the platform's document, and each owner's by its name. To be used
    /// with [`directory_module`].
    #[must_use]
    pub(crate) fn policy_directory(mut self, platform: &str, owners: &[(&str, &str)]) -> Self {
        self.policy = None;
        self.files.push((PLATFORM_FILE.to_owned(), platform.to_owned()));
        let owners = owners.iter().map(|(owner, text)| (owner_file(owner), (*text).to_owned()));
        self.files.extend(owners);
        self
    }

    /// How nginx is started, if not as usual.
    #[must_use]
    pub(crate) fn launch(mut self, launch: Launch) -> Self {
        self.launch = launch;
        self
    }

    /// A further directory of the workspace, for the workers alone.
    #[must_use]
    pub(crate) fn directory(mut self, name: &str) -> Self {
        self.directories.push(name.to_owned());
        self
    }

    /// The number of worker processes; one unless said.
    #[must_use]
    pub(crate) fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Further directives outside `http {}`.
    #[must_use]
    pub(crate) fn main(mut self, text: &str) -> Self {
        self.main = text.to_owned();
        self
    }

    /// Other lines in place of [`MODULE`].
    #[must_use]
    pub(crate) fn module(mut self, text: &str) -> Self {
        self.module = text.to_owned();
        self
    }

    /// Further directives and servers inside `http {}`.
    #[must_use]
    pub(crate) fn http(mut self, text: &str) -> Self {
        self.http = text.to_owned();
        self
    }

    /// The main server, in place of [`LOKI`].
    #[must_use]
    pub(crate) fn server(mut self, text: &str) -> Self {
        self.server = text.to_owned();
        self
    }

    /// nginx alone, to test the harness.
    #[must_use]
    pub(crate) fn without_module(mut self) -> Self {
        self.installed = false;
        self.admin = false;
        self.module = String::new();
        self
    }

    /// Starts everything.
    pub(crate) fn start(self) -> Site {
        let site = Site::prepare(self.installed);
        self.start_in(site)
    }

    /// [`SiteBuilder::start`] where [`Site::prepare`] was called already, and files were laid out since.
    pub(crate) fn start_in(self, mut site: Site) -> Site {
        let ours = "worker_processes @WORKERS@; error_log @DIR@/error.log info; pid @DIR@/nginx.pid;";
        let admin = if self.admin { ADMIN } else { "" };
        let Self { main, module, http, server, .. } = &self;
        let configuration = format!(
            "{ours}\n{main}\nevents {{ worker_connections 256; }}\nhttp {{\n{TEMPORARY}\naccess_log off;\n{module}\n\
             {http}\nserver {{\nlisten 127.0.0.1:@PORT@;\n{server}\n}}\n{admin}\n}}\n"
        );
        site.launch = self.launch;
        for name in &self.directories {
            let made = DirBuilder::new().mode(0o700).create(site.workspace.path(name));
            made.expect("a directory inside ours");
            if self.launch.unprivileged {
                give_to_unprivileged(&site.workspace.path(name));
            }
        }
        for (name, text) in &self.files {
            site.write(name, text);
        }
        if let Some(policy) = &self.policy {
            site.write_policy(policy);
        }
        site.run(&configuration.replace("@WORKERS@", &self.workers.to_string()), self.workers)
    }
}

/// The running gateway.
pub(crate) struct Site {
    nginx: Option<Nginx>,
    /// The backend behind it.
    pub(crate) upstream: Upstream,
    others: RefCell<BTreeMap<String, Rc<Upstream>>>,
    ports: RefCell<BTreeMap<String, u16>>,
    noisy: Cell<bool>,
    launch: Launch,
    /// Its files. Last, so that nobody uses the directory any more when it is removed.
    pub(crate) workspace: Workspace,
}

impl Site {
    /// A gateway of one worker in front of Loki, with [`POLICY`].
    pub(crate) fn builder() -> SiteBuilder {
        SiteBuilder {
            workers: 1,
            policy: Some(POLICY.to_owned()),
            files: Vec::new(),
            directories: Vec::new(),
            launch: Launch::default(),
            main: String::new(),
            module: MODULE.to_owned(),
            http: String::new(),
            server: LOKI.to_owned(),
            admin: true,
            installed: true,
        }
    }

    /// [`Site::builder`] with a bare policy.
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// Everything but nginx: keys, module and backend.
    pub(crate) fn prepare(installed: bool) -> Self {
        let workspace = Workspace::new();
        if installed {
            install(&workspace);
        }
        workspace.write("jwks.json", jwks(&[key()]));
        workspace.write("client-ip.keys", COOKIE_KEY.line() + &OLD_COOKIE_KEY.line());
        let (others, ports, noisy) = (RefCell::default(), RefCell::default(), Cell::new(false));
        let launch = Launch::default();
        Self { nginx: None, upstream: Upstream::start(), others, ports, noisy, launch, workspace }
    }

    /// Starts nginx with a configuration that may hold placeholders.
    pub(crate) fn run(self, configuration: &str, workers: usize) -> Self {
        let port = self.port("");
        self.run_on(configuration, workers, port)
    }

    /// [`Site::run`] for a configuration whose first server listens elsewhere.
    pub(crate) fn run_on(mut self, configuration: &str, workers: usize, port: u16) -> Self {
        let configuration = self.fill(configuration);
        self.nginx = Some(Nginx::start(&self.workspace, &configuration, workers, port, self.launch));
        self
    }

    /// Ends nginx, all of it, and starts it again with what it had.
    pub(crate) fn restart(&mut self) {
        let mut old = self.nginx.take().expect("a site that was started");
        let workers = old.workers().len();
        old.stop();
        let configuration = self.workspace.read("nginx.conf");
        let port = self.port("");
        self.nginx = Some(Nginx::start(&self.workspace, &configuration, workers, port, self.launch));
    }

    /// Replaces the placeholders in a text.
    pub(crate) fn fill(&self, text: &str) -> String {
        let upstream = format!("127.0.0.1:{}", self.upstream.port);
        let text = text.replace("@DIR@", self.workspace.text()).replace("@UPSTREAM@", &upstream);
        let text = text.replace("@PORT@", &self.port("").to_string());
        let text = fill_named(text, "@PORT:", |name| self.port(name).to_string());
        fill_named(text, "@UPSTREAM:", |name| format!("127.0.0.1:{}", self.upstream_of(name).port))
    }

    /// A further backend, by a name of the test's choice.
    pub(crate) fn upstream_of(&self, name: &str) -> Rc<Upstream> {
        let mut others = self.others.borrow_mut();
        Rc::clone(others.entry(name.to_owned()).or_insert_with(|| Rc::new(Upstream::start())))
    }

    /// The port of this name; `""` is the main server's.
    pub(crate) fn port(&self, name: &str) -> u16 {
        *self.ports.borrow_mut().entry(name.to_owned()).or_insert_with(free_port)
    }

    /// The server.
    pub(crate) fn nginx(&self) -> &Nginx {
        self.nginx.as_ref().expect("a site that was started")
    }

    /// Writes the policy that the module reads.
    pub(crate) fn write_policy(&self, text: &str) {
        self.workspace.write("policy.yaml", self.fill(text));
    }

    /// Writes a file of the workspace, placeholders replaced, by rename.
    pub(crate) fn write(&self, name: &str, text: &str) {
        self.workspace.write(name, self.fill(text));
    }

    /// Writes the document of an owner.
    pub(crate) fn write_owner(&self, owner: &str, text: &str) {
        self.write(&owner_file(owner), text);
    }

    /// Sends a request to the main server.
    pub(crate) fn send(&self, request: Request) -> Answer {
        request.send(self.port(""))
    }

    /// The error log.
    pub(crate) fn log(&self) -> String {
        self.workspace.read("error.log")
    }

    /// Waits until the error log holds a text, and returns the log.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        wait_for(&format!("`{text}` in the error log"), 10, || {
            Some(self.log()).filter(|log| log.contains(text))
        })
    }

    /// This test provokes errors in the log: do not object to them.
    pub(crate) fn expect_errors(&self) {
        self.noisy.set(true);
    }

    /// The audit records, once there are so many.
    pub(crate) fn audit(&self, count: usize) -> Vec<Value> {
        let read = || self.workspace.read("audit.jsonl");
        wait_for("complete audit log", 10, || (read().lines().count() >= count).then_some(()));
        let lines = read();
        assert_eq!(lines.lines().count(), count, "audit records:\n{lines}");
        records_of(&lines)
    }

    /// The exposition of `metrics()`.
    pub(crate) fn metrics(&self) -> String {
        let answer = Request::get("/metrics").send(self.port("admin"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// The revision that each worker reported last; of those that run.
    pub(crate) fn revisions(&self) -> Vec<String> {
        let running = self.nginx().workers();
        let status = self.status().json();
        let reported = status["workers"].as_array().expect("workers").iter();
        let of_running = reported.filter_map(|worker| {
            let pid = worker["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
            running.contains(&pid).then(|| worker["revision"].as_str().unwrap_or_default().to_owned())
        });
        of_running.collect()
    }

    /// The answer of `status()`.
    pub(crate) fn status(&self) -> Answer {
        Request::get("/status").send(self.port("admin"))
    }
}

/// The records of an audit log's lines.
pub(crate) fn records_of(lines: &str) -> Vec<Value> {
    let parsed = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    lines.lines().map(parsed).collect()
}

/// Replaces every `<prefix>name@` by what belongs to the name.
fn fill_named(mut text: String, prefix: &str, value: impl Fn(&str) -> String) -> String {
    while let Some(start) = text.find(prefix) {
        let (_, rest) = text[start..].split_at(prefix.len());
        let (name, _) = rest.split_once('@').expect("a closed placeholder");
        let (end, value) = (start + prefix.len() + name.len() + 1, value(name));
        text.replace_range(start..end, &value);
    }
    text
}

impl Drop for Site {
    /// Whatever a request does, it must not make nginx complain, and no token may reach a log.
    fn drop(&mut self) {
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of error.log\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            return;
        }
        // Every token of the tests begins with the base64url of `{"alg"`.
        assert!(!log.contains("eyJhbGci"), "a token in the error log:\n{log}");
        let bad = ["[error]", "[crit]", "[alert]", "[emerg]", "stack traceback", "panicked"];
        let complaint = log.lines().find(|line| bad.iter().any(|word| line.contains(word)));
        assert!(self.noisy.get() || complaint.is_none(), "nginx complained:\n{log}");
    }
}
