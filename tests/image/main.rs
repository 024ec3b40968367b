//! The image: its entrypoint, the configuration that it writes and the nginx that it becomes. `make test` runs this
//! with the entrypoint as it lies in the repository; `make image-test` with the image that the Dockerfile makes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "everything here is a test"
)]

mod container;
#[path = "../support/mod.rs"]
mod support;

use container::{COOKIE_KEY, Room};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use support::client::{Client, Request};
use support::site::records_of;
use support::tokens::{AUDIENCE, ISSUER, token};
use support::upstream::Upstream;
use support::wait_for;

/// The platform's document; its files lie beside it.
fn policy() -> String {
    format!(
        "version: 1\nissuers: [{{ name: idp, issuer: '{ISSUER}', audiences: [{AUDIENCE}], jwks_file: jwks.json }}]\n\
         grants: [{{ groups: [writers], tenants: [tenant1], scopes: ['rules:*', 'logs:read'] }}]\n\
         authorizations: {{ group1: [tenant1] }}\nclient_ip: {{ keys_file: client-ip.keys }}\n"
    )
}

const BROKEN: &str =
    "version: 1\nissuers: []\ngrants: [{ groups: [a], tenants: [t], scopes: [logs:raed] }]\n";

fn address(upstream: &Upstream) -> String {
    format!("http://127.0.0.1:{}", upstream.port)
}

fn query(path: &str, tenant: &str, group: &str) -> Request {
    Request::get(path).tenant(tenant).token(&token(&[group]))
}

#[test]
fn the_gateway_decides_for_the_backends_that_are_given() {
    let room = Room::new();
    room.write_policy(&policy());
    let (mimir, loki) = (Upstream::start(), Upstream::start());
    let container = room.start("gateway", &[("MIMIR_URL", &address(&mimir)), ("LOKI_URL", &address(&loki))]);
    room.wait_until_ready();
    let answer =
        query("/loki/api/v1/query?query=%7Ba%3D%22b%22%7D", "tenant1", "group1").send(room.port("loki"));
    assert_eq!(answer.status, 200, "{}", container.output(&room));
    let seen = loki.only();
    assert_eq!(seen.target(), "/loki/api/v1/query?query=%7Ba%3D%22b%22%7D");
    assert!(!seen.has("X-Id-Token"));
    // The backend gets the path as it came, byte for byte: this one has a meaning of its own once it is decoded.
    let rules = "/prometheus/config/v1/rules/team%2Fa%20b/group?x=%2f+";
    assert_eq!(query(rules, "tenant1", "writers").send(room.port("mimir")).status, 200);
    assert_eq!(mimir.only().target(), rules);
    let denied = query("/loki/api/v1/query", "tenant2", "group1").send(room.port("loki"));
    assert_eq!((denied.status, denied.reason()), (403, "tenant_forbidden"));
    let denied = Request::get("/prometheus/api/v1/query").tenant("tenant1").send(room.port("mimir"));
    assert_eq!((denied.status, denied.reason()), (403, "token_missing"));
    // Tempo was not given.
    assert!(TcpStream::connect(("127.0.0.1", room.port("tempo"))).is_err());

    let mut client = Client::connect(room.port("loki"));
    client.send(&query("/loki/api/v1/tail?query=x", "tenant1", "group1").websocket().bytes());
    assert_eq!(client.answer().status, 101);
    client.send(b"line");
    assert_eq!(client.exactly(4), b"line");
    drop(client);

    let admin = |path: &str| Request::get(path).send(room.port("admin"));
    assert!(
        admin("/metrics")
            .text()
            .contains("tenantauth_decisions_total{decision=\"deny\",reason=\"tenant_forbidden\"")
    );
    assert_eq!((admin("/status").status, admin("/healthz").text()), (200, "alive\n".to_owned()));
    assert_eq!(room.health("gateway"), 0);
    // The records are lines of their own on the container's output.
    let records = wait_for("records of five requests", 10, || {
        let output = container.output(&room);
        let lines: Vec<&str> = output.lines().filter(|line| line.starts_with('{')).collect();
        (lines.len() >= 5).then(|| records_of(&lines.join("\n")))
    });
    assert_eq!(records.iter().filter(|record| record["decision"] == "allow").count(), 3, "{records:?}");
    let output = container.output(&room);
    assert!(output.contains(": valid, revision ") && output.contains("start: with this policy"), "{output}");
    drop(container);
    assert_eq!(room.health("gateway"), 1);
}

#[test]
fn a_broken_platform_document_is_refused_unless_a_last_good_version_is_kept() {
    let room = Room::new();
    let loki = Upstream::start();
    let variables = [("LOKI_URL", &*address(&loki))];
    for text in [Some(BROKEN), None] {
        if let Some(text) = text {
            room.write_policy(text);
            let said = room.refused(&variables);
            assert!(said.contains("policy.yaml:2:"), "{said}");
            let problem = "policy.yaml:3:48: grants[0].scopes[0]: unknown scope `logs:raed`\n  help: ";
            assert!(said.contains(problem), "{said}");
            assert!(said.contains("tenantauth: not started: the policy is not usable"), "{said}");
        } else {
            std::fs::remove_file(room.workspace.path("etc/policy.yaml")).unwrap();
            assert!(room.refused(&variables).contains("policy.yaml:1:1: cannot read the policy"));
        }
    }
    // Served once, it is served again after a restart.
    room.write_policy(&policy());
    let container = room.start("first", &variables);
    room.wait_until_ready();
    container.kill();
    room.write_policy(BROKEN);
    let container = room.start("second", &variables);
    room.wait_until_ready();
    let output = container.output(&room);
    assert!(
        output.contains("policy.yaml:3:48: ") && output.contains("start: with the last good version"),
        "{output}"
    );
    assert_eq!(query("/loki/api/v1/labels", "tenant1", "group1").send(room.port("loki")).status, 200);
    let status = Request::get("/status").send(room.port("admin")).json();
    assert_eq!(status["policy_source"], "state_dir");
    drop(container);
    // Who keeps nothing has nothing to go on with.
    let said = room.refused(&[variables[0], ("TENANTAUTH_STATE_DIR", "")]);
    assert!(said.contains("not started"), "{said}");
}

#[test]
fn a_broken_document_of_an_owner_never_stops_it() {
    let room = Room::new();
    let loki = Upstream::start();
    room.write_policy(&format!("{}owners: {{ team-a: {{ tenants: [team-a] }} }}\n", policy()));
    room.write("etc/owners.d/team-a.yaml", "grants: [{ groups: [a], tenants: [tenant1] }]\n");
    let container = room.start("owner", &[("LOKI_URL", &address(&loki))]);
    room.wait_until_ready();
    let output = container.output(&room);
    assert!(
        output.contains("owners.d/team-a.yaml:1:") && output.contains("owner team-a: invalid"),
        "{output}"
    );
    assert_eq!(query("/loki/api/v1/labels", "tenant1", "group1").send(room.port("loki")).status, 200);
    let denied = query("/loki/api/v1/labels", "team-a", "group1").send(room.port("loki"));
    assert_eq!((denied.status, denied.reason()), (503, "policy_unavailable"));
}

#[test]
fn the_grafana_gateway_stamps() {
    let room = Room::new();
    let grafana = Upstream::start();
    let url = address(&grafana);
    let variables = [
        ("TENANTAUTH_MODE", "grafana-gateway"),
        ("GRAFANA_URL", &*url),
        ("TENANTAUTH_LOAD_BALANCERS", "127.0.0.0/8 ::1"),
    ];
    let container = room.start("grafana", &variables);
    let request = || Request::get("/d/abc").cookie("session=1; client_ip=spoof");
    let answer = request().header("X-Forwarded-For", "203.0.113.5").send(room.port("grafana"));
    assert_eq!(answer.status, 200, "{}", container.output(&room));
    let cookies = grafana.only().values("Cookie");
    let value = cookies[0].strip_prefix("session=1; Client_Ip=").unwrap_or_else(|| panic!("{cookies:?}"));
    assert_eq!(COOKIE_KEY.open("Client_Ip", value).0, "203.0.113.5");
    assert_eq!(room.health("grafana-gateway"), 0);
    drop(container);
    // Without load balancers the address is the one that connects, whatever a header says.
    let container = room.start("direct", &variables[..2]);
    assert_eq!(request().header("X-Forwarded-For", "203.0.113.5").send(room.port("grafana")).status, 200);
    let cookies = grafana.only().values("Cookie");
    let value = cookies[0].strip_prefix("session=1; Client_Ip=").unwrap_or_else(|| panic!("{cookies:?}"));
    assert_eq!(COOKIE_KEY.open("Client_Ip", value).0, "127.0.0.1");
    drop(container);

    std::fs::remove_file(room.workspace.path("etc/client-ip.keys")).unwrap();
    let container = room.start("keyless", &variables);
    let told = "client-ip.keys` cannot be read: every request is answered 503";
    assert!(container.output(&room).contains(told), "{}", container.output(&room));
    assert_eq!(request().send(room.port("grafana")).status, 503);
    // They are found as soon as they are there.
    room.write("etc/client-ip.keys", &COOKIE_KEY.line());
    wait_for("stamp", 10, || (request().send(room.port("grafana")).status == 200).then_some(()));
}

/// Answers every question for an address with 127.0.0.`last`, for a second.
fn name_server(last: &Arc<AtomicU8>, asked: &Arc<AtomicUsize>) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let (last, asked) = (Arc::clone(last), Arc::clone(asked));
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[12..length];
            // The question ends with the type and the class: 1 is an IPv4 address, all else has no answer here.
            let wanted = question[question.len() - 4..question.len() - 2] == [0, 1];
            let mut answer = buffer[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(wanted), 0, 0, 0, 0]);
            answer.extend(question);
            if wanted {
                asked.fetch_add(1, Ordering::Relaxed);
                let address = [127, 0, 0, last.load(Ordering::Relaxed)];
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(address);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    port
}

#[test]
fn a_backends_name_is_looked_up_again() {
    let room = Room::new();
    room.write_policy(&policy());
    let loki = Upstream::start();
    let (last, asked) = (Arc::new(AtomicU8::new(1)), Arc::new(AtomicUsize::new(0)));
    let resolver = format!("127.0.0.1:{}", name_server(&last, &asked));
    let url = format!("http://loki.test:{}/", loki.port);
    let container = room.start(
        "names",
        &[("LOKI_URL", &url), ("TENANTAUTH_RESOLVER", &resolver), ("TENANTAUTH_WORKERS", "1")],
    );
    room.wait_until_ready();
    let ask = || query("/loki/api/v1/labels", "tenant1", "group1").send(room.port("loki")).status;
    assert_eq!(ask(), 200, "{}", container.output(&room));
    assert_eq!(
        (asked.load(Ordering::Relaxed), loki.only().values("Host")),
        (1, vec![url[7..url.len() - 1].to_owned()])
    );
    // It moves to where nobody listens, and back.
    last.store(99, Ordering::Relaxed);
    wait_for("new address", 10, || (ask() == 502).then_some(()));
    last.store(1, Ordering::Relaxed);
    wait_for("old address", 10, || (ask() == 200).then_some(()));
    assert!(asked.load(Ordering::Relaxed) >= 3);
}

#[test]
fn a_configuration_of_ones_own_is_taken_instead() {
    let room = Room::new();
    let own = |text: &str| {
        let (run, admin) = (room.inside("run"), room.port("admin"));
        room.write(
            "own.conf",
            &format!(
                "worker_processes 1; pid {run}/nginx.pid; events {{}} http {{ client_body_temp_path {run}/body; \
                 proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u; scgi_temp_path {run}/s; \
                 access_log off; server {{ listen 127.0.0.1:{admin}; location / {{ return 200 '{text}'; }} }} }}\n"
            ),
        );
    };
    own("mine");
    // Without a policy there is nothing to look at: it may be that of a Grafana Gateway.
    let container = room.start("own", &[]);
    assert_eq!(Request::get("/").send(room.port("admin")).text(), "mine");
    drop(container);
    room.write_policy(BROKEN);
    assert!(room.refused(&[]).contains("policy.yaml:3:48: "));
    room.write_policy(&policy());
    drop(room.start("checked", &[]));
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_word_about_it() {
    let room = Room::new();
    room.write_policy(&policy());
    let render = |variables: &[(&str, &str)]| {
        let output = room.run(variables, &["render"]);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let loki = ("LOKI_URL", "http://127.0.0.1:3100");
    for url in [
        "http://loki:3100; return 200 'x'",
        "http://loki:3100\nreturn",
        "http://loki/prometheus",
        "http://user:password@loki",
        "http://$host",
        "http://{loki}",
        "http://loki:0",
        "http://loki:65536",
        "http://loki:3100:1",
        "http://[::1",
        "http://",
        "loki:3100",
        "ftp://loki",
        "http://lo|ki",
        "http://-loki",
    ] {
        let (status, said) = render(&[("LOKI_URL", url)]);
        assert!(
            status == 1 && said.starts_with("tenantauth: LOKI_URL: `") && said.contains("\n  help: "),
            "{url}: {said}"
        );
    }
    for (variables, told) in [
        (&[][..], "no backend is given\n  help: set MIMIR_URL"),
        (&[("TENANTAUTH_MODE", "grafana-gateway")], "Grafana is not given\n  help: set GRAFANA_URL"),
        (&[("TENANTAUTH_MODE", "gatway")], "TENANTAUTH_MODE: unknown mode `gatway`"),
        (&[loki, ("TENANTAUTH_LISTEN_LOKI", "tcp://10.0.0.1:80")], "TENANTAUTH_LISTEN_LOKI: "),
        (&[loki, ("TENANTAUTH_ADMIN_LISTEN", "9145 ssl")], "TENANTAUTH_ADMIN_LISTEN: "),
        (&[loki, ("TENANTAUTH_RESOLVER", "1.1.1.1;")], "TENANTAUTH_RESOLVER: "),
        (&[loki, ("TENANTAUTH_WORKERS", "many")], "TENANTAUTH_WORKERS: `many`"),
        (&[loki, ("TENANTAUTH_WORKERS", "1\n2")], "TENANTAUTH_WORKERS: `1\n2`"),
        (&[loki, ("TENANTAUTH_LOG_LEVEL", "loud")], "TENANTAUTH_LOG_LEVEL: `loud`"),
        (
            &[loki, ("TENANTAUTH_POLICY", "policy.yaml")],
            "TENANTAUTH_POLICY: `policy.yaml` is no absolute path",
        ),
        (&[loki, ("TENANTAUTH_STATE_DIR", "/a\" b")], "TENANTAUTH_STATE_DIR: "),
        (
            &[("LOKI_URL", "https://127.0.0.1"), ("TENANTAUTH_CA_FILE", "/no.pem")],
            "TENANTAUTH_CA_FILE: `/no.pem`",
        ),
        (
            &[
                ("TENANTAUTH_MODE", "grafana-gateway"),
                ("GRAFANA_URL", "http://127.0.0.1"),
                ("TENANTAUTH_LOAD_BALANCERS", "all"),
            ],
            "TENANTAUTH_LOAD_BALANCERS: `all`",
        ),
    ] {
        let (status, said) = render(variables);
        assert!(status == 1 && said.starts_with(&format!("tenantauth: {told}")), "{variables:?}: {said}");
    }
    let rendered = |variables: &[(&str, &str)]| {
        let (status, said) = render(variables);
        assert_eq!((status, said.trim().rsplit('/').next()), (0, Some("nginx.conf")), "{said}");
        room.workspace.read("run/nginx.conf") + &room.workspace.read("run/servers/loki.conf")
    };
    for (url, written) in [
        ("http://loki:3100/", "\"http://loki:3100\";"),
        ("http://localhost:3100", "\"http://127.0.0.1:3100\";"),
        ("http://[::1]:3100", "\"http://[::1]:3100\";"),
        ("http://my_loki.monitoring.svc.cluster.local.", "\"http://my_loki.monitoring.svc.cluster.local.\";"),
    ] {
        let text = rendered(&[("LOKI_URL", url), ("TENANTAUTH_RESOLVER", "127.0.0.1 [::1]:5353")]);
        assert!(text.contains(written) && text.contains("resolver 127.0.0.1 [::1]:5353;"), "{text}");
        assert!(!text.contains("proxy_ssl") && !text.contains('@'), "{text}");
    }
    let text = rendered(&[("LOKI_URL", "https://10.0.0.1"), ("TENANTAUTH_STATE_DIR", "")]);
    assert!(text.contains("proxy_ssl_verify on;") && !text.contains("state_dir"), "{text}");
    let text = rendered(&[loki, ("TENANTAUTH_WORKERS", "7"), ("TENANTAUTH_LISTEN_LOKI", "3101")]);
    assert!(text.contains("worker_processes 7;") && text.contains("listen 3101;"), "{text}");
}

#[test]
fn other_commands_run_in_place_of_the_gateway() {
    let room = Room::new();
    let output = room.run(&[], &["tenantauth", "--version"]);
    let version = format!("tenantauth {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap()), (Some(0), version));
}
