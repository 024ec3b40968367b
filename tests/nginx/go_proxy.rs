//! A real reverse proxy of Go's in front of the gateway, as Grafana's data source proxy is one: the client lists in
//! `Connection` whatever shows that a person is behind a service token.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::client::{Answer, Request};
use crate::support::repository;
use crate::support::site::{COOKIE_KEY, POLICY, SIGNED_COOKIE, Site};
use crate::support::tokens::{service_token, sha256, token};
use crate::support::wait_for;
use crate::support::workspace::{Process, free_port};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program, built once by `go build`: `GO`, or that of PATH.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go_proxy");
        let go = std::env::var_os("GO").unwrap_or_else(|| "go".into());
        let mut build = Command::new(go);
        build
            .current_dir(repository("tests/go_proxy"))
            .args(["build", "-o"])
            .arg(into.join("go_proxy"))
            .arg(".");
        // The standard library is all it needs: nothing is fetched.
        build.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-buildvcs=false");
        build.env("GOCACHE", into.join("cache")).env("GOPATH", into.join("path")).env("CGO_ENABLED", "0");
        let status = build.status().expect("go: run `make setup-test`");
        assert!(status.success(), "go build: {status}");
        into.join("go_proxy")
    })
}

/// Grafana with a data source that uses a service token, in front of the site's main server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    _process: Process,
}

pub(crate) fn proxy(site: &Site, port: u16) -> Proxy {
    let mut command = Command::new(program());
    command.arg(format!("127.0.0.1:{port}")).arg(format!("127.0.0.1:{}", site.port("")));
    command.arg(format!("Bearer {}", service_token('g'))).arg(token(&["group1"]));
    // As in a program whose go.mod names Go 1.25 or later, as Grafana's does.
    command.env("GODEBUG", "httpcookiemaxnum=3000");
    let process = Process::start(&site.workspace, "go_proxy", &mut command);
    wait_for("proxy that accepts connections", 15, || TcpStream::connect(("127.0.0.1", port)).ok());
    Proxy { port, _process: process }
}

/// [`POLICY`] with an account that may read what a user of `group1` may, and these further keys of the account.
pub(crate) fn policy(keys: &str) -> String {
    let grants = "grants:\n  - { groups: ['service:grafana'], tenants: [tenant1] }";
    let sum = sha256(&service_token('g'));
    let account = format!("{{ name: grafana, token_sha256: [{sum}], networks: [127.0.0.0/8]{keys} }}");
    POLICY.replace("grants:", grants) + SIGNED_COOKIE + "service_accounts: [" + &account + "]\n"
}

/// What a browser lists so that Go removes it after Grafana has set it.
const LISTS: [&str; 6] = [
    "close, X-Grafana-User, X-Id-Token, Cookie",
    "X-Grafana-User, X-Id-Token, Cookie, X-Forwarded-For",
    "keep-alive, x-grafana-user,x-id-token ,cookie,x-forwarded-for",
    "X-Grafana-User, X-Id-Token, Cookie, Connection, X-Forwarded-For, Keep-Alive",
    "Upgrade, X-Grafana-User, X-Id-Token, Cookie",
    "close",
];

fn ask(port: u16, connection: &str) -> Answer {
    let request = Request::get("/loki/api/v1/query").header("Connection", connection);
    request.cookie(COOKIE_KEY.pair("203.0.113.5")).send(port)
}

#[test]
fn a_person_cannot_have_the_marks_of_a_person_removed() {
    let site = Site::builder().policy(&policy("")).start();
    let grafana = proxy(&site, free_port());
    for list in LISTS {
        assert_denied(&ask(grafana.port, list), "service_attended");
    }
    // One line each, and the mark written by the client itself.
    let lines = ["X-Grafana-User", "X-Id-Token", "Cookie", "X-Forwarded-For", "close"];
    let request = Request::get("/loki/api/v1/query").header("X-Forwarded-For", "");
    let request = lines.iter().fold(request, |request, line| request.header("Connection", line));
    assert_denied(&request.send(grafana.port), "service_attended");
    assert!(site.upstream.take().is_empty(), "nothing arrives");
}

/// The removal is real, and `behind_proxy` is what it says: nothing else shows this person any more.
#[test]
fn an_account_behind_a_proxy_has_no_such_mark() {
    let site = Site::builder().policy(&policy(", behind_proxy: true")).start();
    let ingress = proxy(&site, free_port());
    assert_allowed(&ask(ingress.port, LISTS[0]));
    let seen = site.upstream.only();
    assert!(
        seen.has("X-Forwarded-For") && !seen.has("X-Grafana-User") && !seen.has("Cookie"),
        "{}",
        seen.head
    );
    assert_denied(&ask(ingress.port, "close"), "service_attended");
    assert_denied(&ask(ingress.port, "close, X-Grafana-User, Cookie"), "service_attended");
}

/// The Grafana Gateway leaves nothing in `Connection` that Go could remove: the marks arrive, though `X-Forwarded-For`
/// counts for nothing here.
#[test]
fn behind_the_grafana_gateway_the_marks_stay() {
    for (port, forms) in [
        (free_port(), "proxy_set_header Connection $http_connection;"),
        (
            free_port(),
            "proxy_set_header Connection $http_connection; proxy_set_header Upgrade $http_upgrade;",
        ),
    ] {
        let gateway = format!(
            r#"server {{
                listen 127.0.0.1:@PORT:grafana@;
                location / {{
                    rewrite_by_lua_block {{
                        require("tenantauth").stamp_client_ip {{ keys_file = "@DIR@/client-ip.keys" }}
                    }}
                    proxy_http_version 1.1;
                    {forms}
                    proxy_pass http://127.0.0.1:{port};
                }}
            }}"#
        );
        let site = Site::builder().policy(&policy(", behind_proxy: true")).http(&gateway).start();
        let grafana = proxy(&site, port);
        for list in LISTS {
            assert_denied(&ask(site.port("grafana"), list), "service_attended");
        }
        assert!(site.upstream.take().is_empty(), "nothing arrives");
        // Without the gateway it would.
        assert_allowed(&ask(grafana.port, LISTS[0]));
        site.upstream.take();
    }
}
