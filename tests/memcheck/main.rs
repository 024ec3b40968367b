//! The module in a real nginx under valgrind: every kind of request while policy and keys change, and no error of ours.
//!
//! `make memcheck`; not part of `make test`, since valgrind is slow. No suppression is needed: an error counts where a frame
//! of it lies in the module, and LuaJIT and nginx have made none so far.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "everything here is a test"
)]

#[path = "../endurance/cases.rs"]
mod cases;
#[path = "../support/mod.rs"]
mod support;

use cases::{cases, policy};
use std::net::TcpStream;
use std::process::Command;
use support::client::{Client, Request};
use support::nginx::{binary, modules};
use support::site::{MODULE, Site, TEMPORARY};
use support::tokens::{jwks, key, other_key};
use support::wait_for;
use support::workspace::{Process, signal};

/// One process, so that valgrind sees it to its end.
const CONFIGURATION: &str = r#"
worker_processes 1; error_log @DIR@/error.log info; pid @DIR@/nginx.pid; daemon off; master_process off;
events { worker_connections 64; }
http {
    @TEMPORARY@
    access_log off;
    @MODULE@
    server {
        listen 127.0.0.1:@PORT@;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / { content_by_lua_block { ngx.print("{}") } }
    }
    server {
        listen 127.0.0.1:@PORT:gateway@;
        location / {
            rewrite_by_lua_block { require("tenantauth").stamp_client_ip { keys_file = "@DIR@/client-ip.keys" } }
            proxy_pass http://@UPSTREAM@;
        }
    }
    server {
        listen 127.0.0.1:@PORT:admin@;
        location = /metrics { content_by_lua_block { require("tenantauth").metrics() } }
        location = /status { content_by_lua_block { require("tenantauth").status() } }
    }
}
"#;

#[test]
fn valgrind_finds_no_error_of_ours() {
    let site = Site::prepare(true);
    site.expect_errors();
    site.write_policy(&policy('a', 0));
    let fast = MODULE.replace(" } }", ", reload_interval = 0.1 } }");
    let text = CONFIGURATION.replace("@TEMPORARY@", TEMPORARY).replace("@MODULE@", &fast);
    let configuration = site.workspace.write("nginx.conf", site.fill(&text));
    let report = site.workspace.path("valgrind.log");
    let mut command = Command::new("valgrind");
    command.arg(format!("--log-file={}", report.display())).args(["--num-callers=40", "--leak-check=full"]);
    command.args(["--show-leak-kinds=definite"]).arg(binary()).env_remove("NGINX");
    command.arg("-p").arg(site.workspace.path("")).arg("-e").arg(site.workspace.path("error.log"));
    command.arg("-c").arg(configuration).arg("-g").arg(modules());
    let mut nginx = Process::start(&site.workspace, "valgrind", &mut command);
    let port = site.port("");
    wait_for("nginx under valgrind", 120, || {
        assert!(nginx.is_running(), "{}", site.log());
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let mut answered = 0;
    for round in 0..4_u32 {
        let letter = if round % 2 == 0 { 'a' } else { 'b' };
        site.write_policy(&policy(letter, round));
        let keys = if round % 2 == 0 { vec![key()] } else { vec![key(), other_key()] };
        site.write("jwks.json", &jwks(&keys));
        let mut client = Client::connect(port);
        for case in cases() {
            for turn in 0..4 {
                client.send(&(case.bytes)(u64::from(round) * 4 + turn));
                match client.answer_or_end() {
                    Some(answer) => {
                        let possible =
                            ['a', 'b'].map(|letter| (1..4).map(move |keys| (case.expect)(letter, keys)));
                        let right = possible.into_iter().flatten().any(|reason| reason == answer.reason());
                        assert!(right, "{}: {answer:?}", case.name);
                        answered += 1;
                        if answer.header("Connection") == Some("close") {
                            client = Client::connect(port);
                        }
                    }
                    None => client = Client::connect(port),
                }
            }
        }
        let stamped =
            Request::get("/").cookie("x=1; client_ip=spoofed; Client_Ip=too").send(site.port("gateway"));
        assert_eq!(stamped.status, 200, "{stamped:?}");
        assert!(site.metrics().contains("tenantauth_decisions_total"));
        assert_eq!(site.status().status, 200);
        std::thread::sleep(std::time::Duration::from_secs(5));
    }
    assert!(answered > 300, "{answered} answers");
    signal(nginx.pid(), "QUIT");
    wait_for("end of nginx", 60, || (!nginx.is_running()).then_some(()));
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.contains("ERROR SUMMARY"), "{text}");
    // Blocks are parted by empty lines: `==123== `.
    let blocks: Vec<String> = text
        .lines()
        .map(|line| line.rsplit_once("== ").map_or("", |(_, words)| words.trim_end()))
        .collect::<Vec<_>>()
        .split(|line| line.is_empty())
        .map(|block| block.join("\n"))
        .filter(|block| block.contains("   at 0x") || block.contains("   by 0x"))
        .collect();
    let ours: Vec<&String> = blocks.iter().filter(|block| block.contains("tenantauth")).collect();
    println!("{answered} answers, {} findings of others, {} of ours", blocks.len() - ours.len(), ours.len());
    assert!(ours.is_empty(), "{ours:#?}");
}
