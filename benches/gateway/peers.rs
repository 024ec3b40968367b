//! Who else does the same, each with the typical request's policy in front of the same backend: auth.lua with
//! lua-resty-jwt, HAProxy, Envoy. What is not there is left out, with a word why.

use crate::common::promises::build_directory;
use crate::load::{core, pin};
use crate::servers::{Front, Server, Variety};
use crate::support::client::Request;
use crate::support::nginx::Nginx;
use crate::support::site::COOKIE_KEY;
use crate::support::tokens::{jwks, key};
use crate::support::workspace::{Process, Workspace, free_port};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::env;
use std::fmt::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A running peer.
pub(crate) struct Peer {
    /// Where it listens.
    pub(crate) port: u16,
    /// Its process that serves.
    pub(crate) worker: u32,
    /// Its name and version.
    pub(crate) version: String,
    // Before the directory, which waits for what works in it.
    _nginx: Option<Nginx>,
    _process: Option<Process>,
    /// Its directory.
    pub(crate) workspace: Workspace,
    log: &'static str,
}

/// Who may reach which tenant: of the typical policy what all peers can express, without patterns.
const AUTHORIZATIONS: [(&str, &[&str]); 3] =
    [("team-a", &["team-a"]), ("tenant1", &["group1", "group3", "oncall"]), ("tenant2", &["group3"])];

impl Peer {
    /// Starts it in front of the backend on this port.
    ///
    /// # Errors
    /// Why it cannot run here.
    pub(crate) fn start(server: Server, backend: u16) -> Result<Self, String> {
        match server {
            Server::AuthLua => Self::auth_lua(backend, false),
            Server::AuthLuaVerifying => Self::auth_lua(backend, true),
            Server::HAProxy => Self::haproxy(backend, "var(txn.token),jwt_payload_query"),
            Server::HAProxyOnce => Self::haproxy(backend, "var(txn.claims),json_query"),
            Server::Envoy => Self::envoy(backend, ""),
            Server::EnvoyCached => Self::envoy(backend, "jwt_cache_config: { jwt_cache_size: 1000 }"),
            _ => Err("is not a peer".to_owned()),
        }
    }

    /// The last line of what it complained about.
    pub(crate) fn complaints(&self) -> String {
        last_line(&self.workspace, self.log)
    }

    fn auth_lua(backend: u16, verifying: bool) -> Result<Self, String> {
        let path =
            env::var("LUA_RESTY_JWT").map_err(|_| "LUA_RESTY_JWT names no directory with lua-resty-jwt")?;
        let given =
            Path::new(&path).canonicalize().map_err(|error| format!("LUA_RESTY_JWT, `{path}`: {error}"))?;
        let given = given.to_str().ok_or("LUA_RESTY_JWT is not UTF-8")?;
        let workspace = Workspace::new();
        workspace.write("auth.lua", include_str!("peers/auth.lua"));
        let keys = if verifying {
            format!(
                "bench_public_key = [[{}]]\nlocal hmac = require \"resty.hmac\"\n\
                 bench_cookie_mac = hmac:new(ngx.decode_base64(\"{}\"), hmac.ALGOS.SHA256)",
                public_key(),
                COOKIE_KEY.secret_base64()
            )
        } else {
            String::new()
        };
        // As released, and as LuaRocks or a package lays it out.
        let module = format!(
            "lua_package_path \"{given}/?.lua;{given}/?/init.lua;{given}/lib/?.lua;;\";\nlua_package_cpath \"{given}/?.so;;\";\n\
             init_by_lua_block {{ {keys} }}"
        );
        let variety = Variety {
            module: &module,
            enforce: "rewrite_by_lua_file @DIR@/auth.lua;",
            admin: "server {\nlisten 127.0.0.1:@ADMIN_PORT@;\naccess_log off;\nlocation / {\n\
                content_by_lua_block { ngx.print(require(\"resty.jwt\")._VERSION) } } }",
            format: "combined",
        };
        let Front { workspace, quiet, admin, worker, nginx, .. } = Front::start(workspace, backend, variety);
        let version = Request::get("/").send(admin);
        if version.status != 200 {
            let why = last_line(&workspace, "error.log");
            return Err(format!("lua-resty-jwt cannot be loaded from {path}: {why}"));
        }
        Ok(Self {
            port: quiet,
            worker,
            version: format!("lua-resty-jwt {}", version.text()),
            _nginx: Some(nginx),
            _process: None,
            workspace,
            log: "error.log",
        })
    }

    fn haproxy(backend: u16, claim: &str) -> Result<Self, String> {
        let program =
            program("HAPROXY", "haproxy").ok_or("there is no haproxy: `make setup-bench` installs it")?;
        let workspace = Workspace::new();
        workspace.write("key.pem", public_key());
        let (mut rules, mut served) = (String::new(), Vec::new());
        for (number, (tenant, groups)) in AUTHORIZATIONS.into_iter().enumerate() {
            let groups = groups.join("|");
            writeln!(
                rules,
                "    acl tenant_{number} req.fhdr(X-Scope-OrgID) -m str {tenant}\n    \
                 acl groups_{number} var(txn.claims) -m reg '\"groups\":\\[[^]]*\"({groups})\"[],]'"
            )
            .expect("a string takes everything");
            served.push(format!("tenant_{number} groups_{number}"));
        }
        let configuration = include_str!("peers/haproxy.cfg")
            .replace("@CLAIM@", claim)
            .replace("@COOKIE_KEY@", &COOKIE_KEY.secret_base64())
            .replace("@RULES@", rules.trim())
            .replace("@SERVED@", &served.join(" or "));
        let version = version(Command::new(&program).arg("-v"), "HAProxy version ");
        let mut command = Command::new(program);
        // In the foreground, and no master beside the one process.
        command.args(["-db", "-f", "haproxy.cfg"]);
        Self::process(
            workspace,
            "haproxy",
            &configuration,
            backend,
            &mut command,
            format!("HAProxy {version}"),
        )
    }

    fn envoy(backend: u16, cache: &str) -> Result<Self, String> {
        let program = program("ENVOY", "envoy").ok_or("there is no envoy: `make setup-bench` installs it")?;
        let mut policies = String::new();
        for (tenant, groups) in AUTHORIZATIONS {
            writeln!(
                policies,
                "                  {tenant}:\n                    permissions: \
                 [{{ header: {{ name: x-scope-orgid, string_match: {{ exact: {tenant} }} }} }}]\n                    \
                 principals:"
            )
            .expect("a string takes everything");
            for group in groups {
                writeln!(
                    policies,
                    "                    - metadata: {{ filter: envoy.filters.http.jwt_authn, \
                     path: [{{ key: claims }}, {{ key: groups }}], \
                     value: {{ list_match: {{ one_of: {{ string_match: {{ exact: {group} }} }} }} }} }}"
                )
                .expect("a string takes everything");
            }
        }
        let configuration = include_str!("peers/envoy.yaml")
            .replace("@POLICIES@", policies.trim())
            .replace("@CACHE@", cache)
            .replace("@JWKS@", &jwks(&[key()]));
        // `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
        let told = version(Command::new(&program).arg("--version"), "version: ");
        let version = told.split('/').nth(1).unwrap_or(&told).to_owned();
        let mut command = Command::new(program);
        command.args([
            "-c",
            "envoy.yaml",
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]);
        Self::process(
            Workspace::new(),
            "envoy",
            &configuration,
            backend,
            &mut command,
            format!("Envoy {version}"),
        )
    }

    fn process(
        workspace: Workspace,
        name: &'static str,
        configuration: &str,
        backend: u16,
        command: &mut Command,
        version: String,
    ) -> Result<Self, String> {
        let port = free_port();
        let configuration = configuration
            .replace("@PORT@", &port.to_string())
            .replace("@BACKEND@", &backend.to_string())
            .replace("@DIR@", workspace.text());
        let (file, log) = match name {
            "haproxy" => ("haproxy.cfg", "haproxy.log"),
            _ => ("envoy.yaml", "envoy.log"),
        };
        workspace.write(file, configuration);
        let mut process = Process::start(&workspace, name, command);
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if !process.is_running() || Instant::now() > end {
                return Err(format!("{name} did not start: {}", last_line(&workspace, log)));
            }
            sleep(Duration::from_millis(50));
        }
        let worker = process.pid();
        pin(worker, &[core()]);
        Ok(Self { port, worker, version, _nginx: None, _process: Some(process), workspace, log })
    }
}

/// The last message in a log, without which nobody finds what is wrong. A Lua error goes on for many lines that begin
/// with a tab.
fn last_line(workspace: &Workspace, log: &str) -> String {
    let text = workspace.read(log);
    let message =
        text.lines().rfind(|line| line.starts_with(|first: char| first.is_ascii_digit() || first == '['));
    let message = message.or_else(|| text.lines().last());
    message.map_or_else(|| "it logged nothing".to_owned(), |line| line.chars().take(300).collect())
}

/// The program that a variable names, or that of `make setup-bench`, of the `PATH` or of the system.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(given) = env::var_os(variable).filter(|given| !given.is_empty()) {
        return Path::new(&given).canonicalize().ok();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = build_directory().join("venv-bench");
    let directories =
        [installed].into_iter().chain(env::split_paths(&path)).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The word that follows `before` in what a program says of itself.
fn version(command: &mut Command, before: &str) -> String {
    let said = command.output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let word = said.split_once(before).and_then(|(_, rest)| rest.split_whitespace().next());
    word.unwrap_or("of an unknown version").to_owned()
}

/// The key of the tokens as PEM.
fn public_key() -> String {
    let jwk = key().jwk();
    let number = |name: &str| {
        URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("a member of the key")).expect("base64url")
    };
    let der: PublicKeyX509Der<'_> =
        RsaPublicKeyComponents { n: number("n"), e: number("e") }.as_der().expect("a public key");
    let text = STANDARD.encode(der.as_ref());
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n");
    format!("-----BEGIN PUBLIC KEY-----\n{}-----END PUBLIC KEY-----\n", lines.collect::<String>())
}
