//! What a request costs in instructions, counted by callgrind, and held to what it cost when that was last looked at: the
//! same on an idle machine and on a busy one, where a measurement of time shows nothing below ten percent.
//!
//! `tests/budget/budget.json` has, for each version of nginx and each processor, the instructions in user mode that tenantauth adds to a
//! request in the setting of the benchmarks (`benches/README.md`), and a little more for versions that nobody has measured.
//! Whoever makes it cheaper lowers it; whoever has to make it dearer raises it and says why.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "everything here is a test"
)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../../benches/common/typical.rs"]
mod typical;

use serde_json::Value;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use support::client::{Client, Request};
use support::nginx::{Launch, Nginx, binary, install, modules};
use support::site::{COOKIE_KEY, TEMPORARY};
use support::tokens::{jwks, key};
use support::wait_for;
use support::workspace::{Process, Workspace, free_port, signal};

/// Of the whole request, plain nginx included.
const TOLERANCE: f64 = 0.03;

/// One process, so that callgrind sees all of it. Nothing is done on the side: no file is looked at while it counts.
const FRONT: &str = r#"
worker_processes 1; error_log @DIR@/error.log warn; pid @DIR@/nginx.pid; daemon off; master_process off;
events { worker_connections 64; }
http {
    @TEMPORARY@
    @MODULE@
    large_client_header_buffers 8 32k;
    keepalive_requests 100000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream loki { server 127.0.0.1:@BACKEND@; keepalive 64; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:@PORT@;
        access_log @LOG@;
        @ENFORCE@
        location / { proxy_pass http://loki; }
    }
}
"#;

const MODULE: &str = r#"
    lua_package_cpath "@DIR@/lib/tenantauth/?.so;;";
    lua_shared_dict tenantauth 10m;
    include @DIR@/share/tenantauth/http.conf;
    init_worker_by_lua_block {
        require("tenantauth").init_worker { policy = "@DIR@/policy.yaml", reload_interval = 3600 }
    }
"#;

const ENFORCE: &str = r#"rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }"#;

const BACKEND: &str = r#"
worker_processes 1; error_log @DIR@/error.log warn; pid @DIR@/nginx.pid;
events { worker_connections 64; }
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

/// Starts nginx under callgrind, sends so many of the typical request over one connection, ends it, and returns the
/// instructions that it took.
fn run(backend: u16, enforce: bool, log: &str, requests: u32) -> f64 {
    let workspace = Workspace::new();
    install(&workspace);
    workspace.write("jwks.json", jwks(&[key()]));
    workspace.write("client-ip.keys", COOKIE_KEY.line());
    workspace.write("policy.yaml", typical::POLICY.replace("@DIR@", workspace.text()));
    let port = free_port();
    let configuration = FRONT
        .replace("@MODULE@", if enforce { MODULE } else { "" })
        .replace("@ENFORCE@", if enforce { ENFORCE } else { "" })
        .replace("@LOG@", log)
        .replace("@TEMPORARY@", TEMPORARY)
        .replace("@DIR@", workspace.text())
        .replace("@PORT@", &port.to_string())
        .replace("@BACKEND@", &backend.to_string());
    let configuration = workspace.write("nginx.conf", configuration);
    let counted = workspace.path("callgrind.out");
    let mut command = Command::new("valgrind");
    // The event loop alone, without timers: how many of them run depends on how long the requests take, and how long
    // the cryptographic library collects entropy at the start depends on the machine's noise.
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counted.display()));
    command.arg("--toggle-collect=ngx_process_events_and_timers").arg("--collect-atstart=no");
    command.arg("--toggle-collect=ngx_event_expire_timers");
    command.arg(binary()).env_remove("NGINX").arg("-p").arg(workspace.path(""));
    command.arg("-e").arg(workspace.path("error.log")).arg("-c").arg(configuration);
    command.arg("-g").arg(modules());
    let mut nginx = Process::start(&workspace, "valgrind", &mut command);
    wait_for("nginx under callgrind", 120, || {
        assert!(nginx.is_running(), "{}", workspace.read("error.log"));
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let token = typical::token();
    let request = |token: &str, address: &str| {
        let value = |(name, value)| (name, if name == "Cookie" { COOKIE_KEY.pair(address) } else { value });
        typical::headers(token)
            .into_iter()
            .map(value)
            .filter(|(name, value): &(&str, String)| *name != "X-Id-Token" || !value.is_empty())
            .fold(Request::get(format!("{}?{}", typical::PATH, typical::QUERY)), |request, (name, value)| {
                request.header(name, value)
            })
            .bytes()
    };
    let mut client = Client::connect(port);
    // It does what it is counted for.
    for (token, address, reason) in
        [("", typical::OFFICE, "token_missing"), (&token, typical::HOME, "ip_forbidden")]
    {
        client.send(&request(token, address));
        assert_eq!(client.answer().reason(), if enforce { reason } else { "" });
    }
    let bytes = request(&token, typical::OFFICE);
    for _ in 0..requests {
        client.send(&bytes);
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    signal(nginx.pid(), "QUIT");
    wait_for("end of nginx", 60, || (!nginx.is_running()).then_some(()));
    let text = fs::read_to_string(&counted).unwrap();
    let line =
        text.lines().rev().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.and_then(|sum| sum.split(' ').next()?.parse().ok()).expect("callgrind's sum")
}

/// Instructions a request: what so many more of them took. What is compiled of Lua is in both.
fn a_request(backend: u16, enforce: bool, log: &str) -> f64 {
    let (few, many) = (1000, 3000);
    let [less, more] = [few, many].map(|requests| run(backend, enforce, log, requests));
    (more - less) / f64::from(many - few)
}

/// The version of nginx and what it was built for: `1.22.1 x86_64`.
fn version() -> String {
    let told = Command::new(binary()).env_remove("NGINX").arg("-v").output().expect("nginx");
    let text = String::from_utf8(told.stderr).expect("text");
    let version = text.trim().rsplit('/').next().and_then(|text| text.split(' ').next());
    format!("{} {}", version.expect("a version"), std::env::consts::ARCH)
}

#[test]
fn a_request_takes_no_more_instructions_than_it_did() {
    let workspace = Workspace::new();
    let port = free_port();
    let text = BACKEND
        .replace("@TEMPORARY@", TEMPORARY)
        .replace("@DIR@", workspace.text())
        .replace("@PORT@", &port.to_string());
    let _backend = Nginx::start(&workspace, &text, 1, port, Launch::default());
    // The harness would take the module of a debug build, which is three times as slow.
    assert!(std::env::var_os("TENANTAUTH_SO").is_some(), "`TENANTAUTH_SO` names no module as it is shipped");
    let budget: Value = serde_json::from_str(include_str!("budget.json")).unwrap();
    let version = version();
    let mut missed = Vec::new();
    for (what, log, without) in [
        ("enforce", "off", "off"),
        (
            "enforce with audit log",
            "@DIR@/access.log tenantauth_audit buffer=64k",
            "@DIR@/access.log combined buffer=64k",
        ),
    ] {
        let plain = a_request(port, false, without);
        assert!(plain > 1000.0, "nothing was counted: callgrind does not find ngx_process_events_and_timers");
        let measured = a_request(port, true, log);
        let added = measured - plain;
        println!("{what}: {plain:.0} of nginx {version}, {added:.0} added");
        let known = budget[&version][what].as_f64();
        let allowed = known.or(budget["any other"][what].as_f64()).expect("a budget");
        // A good deal less is worth a look too: a budget that is too high holds nothing.
        let ratio = measured / (plain + allowed);
        if ratio > 1.0 + TOLERANCE || (known.is_some() && ratio < 1.0 - TOLERANCE) {
            missed.push(format!("{what}: {added:.0} instructions a request, {allowed:.0} in the budget"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
