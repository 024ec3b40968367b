//! `make demo`: a Grafana Gateway, the gateway and a real Prometheus on this machine, and a dozen people who try to
//! read from it. Ends with status 0 only if every one of them was answered as the policy says.
//!
//! On a terminal everything stays up to be tried out until Ctrl-C; without one it is stopped at the end. Nothing is
//! left behind in either case: the workspace's janitor sees to that.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a demonstration on the developer's own machine: it may stop where something is missing"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;
use support::client::Request;
use support::prometheus::Prometheus;
use support::site::{MODULE, Site, TEMPORARY};
use support::tokens::{claims_with, key, other_key};

const POLICY: &str = r#"version: 1
issuers:
  - name: idp
    issuer: https://login.example.test/v2.0
    audiences: [grafana]
    jwks_file: @DIR@/jwks.json
authorizations:                       # group: tenants it may read
  group1: [tenant1]
  group3: [tenant1, tenant2]
  sre: ["*"]
networks:
  office: [203.0.113.0/24]
client_ip:
  source: cookie                      # stamped and signed by the Grafana Gateway
  keys_file: @DIR@/client-ip.keys
restrictions:
  - name: tenant1-from-office
    tenants: [tenant1]
    networks: [office]
    except_groups: [sre]
"#;

const SERVERS: &str = r#"
server {
    listen 127.0.0.1:@PORT@;
    rewrite_by_lua_block { require("tenantauth").enforce { backend = "mimir" } }
    access_log @DIR@/audit.jsonl tenantauth_audit;
    location / { proxy_pass http://127.0.0.1:@PROMETHEUS@; }
}
server {
    listen 127.0.0.1:@PORT:grafana@;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Forwarded-For;
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
"#;

const OFFICE: &str = "203.0.113.5";
const HOME: &str = "198.18.0.5";
const QUERY: &str = "GET /prometheus/api/v1/query?query=up";

/// One attempt, and what should come of it.
struct Row {
    who: &'static str,
    token: Option<String>,
    tenant: &'static str,
    /// Where the browser is; the Grafana Gateway stamps that.
    from: &'static str,
    /// What somebody writes into the cookie without going through the Grafana Gateway.
    claims: Option<&'static str>,
    what: &'static str,
    expected: &'static str,
}

fn token(user: &str, groups: &[&str]) -> String {
    let until = support::now() + 8 * 3600;
    key().token(&claims_with(groups, json!({"sub": user, "preferred_username": user, "exp": until})))
}

fn rows() -> Vec<Row> {
    let ada = || Some(token("ada", &["group1"]));
    let bob = || Some(token("bob", &["group3"]));
    let expired = key().token(&claims_with(&["group1"], json!({"exp": support::now() - 7200})));
    let stranger = other_key().sign(
        &json!({"alg": "RS256", "kid": key().id}).to_string(),
        &claims_with(&["group1"], json!({})).to_string(),
    );
    let row = |who, token, tenant, from, what, expected| Row {
        who,
        token,
        tenant,
        from,
        claims: None,
        what,
        expected,
    };
    vec![
        row("ada (group1)", ada(), "tenant1", OFFICE, QUERY, "granted"),
        row("ada (group1)", ada(), "tenant1", HOME, QUERY, "ip_forbidden"),
        row("ada (group1)", ada(), "tenant2", OFFICE, QUERY, "tenant_forbidden"),
        row("ada (group1)", ada(), "tenant1|tenant2", OFFICE, QUERY, "tenant_forbidden"),
        row("bob (group3)", bob(), "tenant1|tenant2", OFFICE, QUERY, "granted"),
        row("bob (group3)", bob(), "tenant2", HOME, QUERY, "granted"),
        row("carl (sre)", Some(token("carl", &["sre"])), "tenant1", HOME, QUERY, "granted"),
        row("ada (group1)", ada(), "tenant1", OFFICE, "POST /api/v1/push", "scope_forbidden"),
        row("ada (group1)", ada(), "tenant1", OFFICE, "GET /config", "route_unknown"),
        row("ada (group1)", ada(), "tenant1/..", OFFICE, QUERY, "tenant_malformed"),
        row("ada, yesterday", Some(expired), "tenant1", OFFICE, QUERY, "token_expired"),
        row("nobody", None, "tenant1", OFFICE, QUERY, "token_missing"),
        row("a forger", Some(stranger), "tenant1", OFFICE, QUERY, "token_signature"),
        Row {
            claims: Some("Client_Ip=203.0.113.5"),
            ..row("ada (group1)", ada(), "tenant1", HOME, QUERY, "ip_malformed")
        },
    ]
}

/// Goes the way of a person's request: browser, Grafana Gateway, Grafana (here the echo), gateway, Prometheus.
fn attempt(site: &Site, row: &Row) -> (u16, String) {
    let page = Request::get("/d/dashboard").header("X-Forwarded-For", row.from).send(site.port("grafana"));
    assert_eq!(page.status, 200, "the Grafana Gateway answered {}", page.text());
    let stamped = site.upstream.only().values("Cookie").concat();
    let (method, target) = row.what.split_once(' ').expect("a method and a target");
    let request = Request::new(method, target).tenant(row.tenant).cookie(row.claims.unwrap_or(&stamped));
    let request = if let Some(token) = &row.token { request.token(token) } else { request };
    let request = if method == "POST" { request.body("") } else { request };
    let answer = site.send(request);
    let got = match answer.reason() {
        "" if answer.status == 200 && answer.json()["status"] == "success" => "granted".to_owned(),
        "" => format!("status {}", answer.status),
        reason => reason.to_owned(),
    };
    (answer.status, got)
}

/// Prints lines of cells with every column as wide as its widest cell.
fn print_table(lines: &[Vec<String>]) {
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
    for line in lines {
        let cells = line.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn start() -> (Site, Prometheus) {
    let site = Site::prepare(true);
    site.write_policy(POLICY);
    println!("starting Prometheus ...");
    let prometheus = Prometheus::start(&site.workspace);
    println!(
        "starting nginx with the gateway in front of it, and the Grafana Gateway in front of an echo ...\n"
    );
    let main = "worker_processes 2; error_log @DIR@/error.log info; pid @DIR@/nginx.pid; events {}";
    let servers = SERVERS.replace("@PROMETHEUS@", &prometheus.port.to_string());
    let site = site.run(&format!("{main}\nhttp {{ {TEMPORARY} access_log off;\n{MODULE}\n{servers} }}\n"), 2);
    (site, prometheus)
}

fn print_hints(site: &Site, dir: &str) {
    let query = format!("'http://127.0.0.1:{}/prometheus/api/v1/query?query=up'", site.port(""));
    let grafana = site.port("grafana");
    println!("\nTry it. Bob reads tenant2 from anywhere:");
    println!("  curl -H 'X-Scope-OrgID: tenant2' -H \"X-Id-Token: $(cat {dir}/bob.token)\" {query}");
    println!("tenant1 asks where he is, and says so:");
    println!("  curl -i -H 'X-Scope-OrgID: tenant1' -H \"X-Id-Token: $(cat {dir}/bob.token)\" {query}");
    println!("What the Grafana Gateway hands to Grafana for somebody in the office:");
    println!(
        "  curl -H 'X-Forwarded-For: {OFFICE}' -H 'Cookie: session=1; Client_Ip=spoofed' http://127.0.0.1:{grafana}/"
    );
    let admin = site.port("admin");
    println!("\npolicy   {dir}/policy.yaml (a change is in force after 5 s)\naudit    {dir}/audit.jsonl");
    println!("status   http://127.0.0.1:{admin}/status\nmetrics  http://127.0.0.1:{admin}/metrics");
}

fn main() -> ExitCode {
    let (site, prometheus) = start();
    let heads = ["who", "tenant", "from where", "what", "expected", "got", "reason"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    let mut wrong = 0;
    for row in rows() {
        let (status, reason) = attempt(&site, &row);
        let expected = if row.expected == "granted" { "allow" } else { "deny" };
        let got = if reason == "granted" { "allow" } else { "deny" };
        let mark = if reason == row.expected { "" } else { " <- WRONG" };
        wrong += usize::from(reason != row.expected);
        let place = if row.from == OFFICE { "office" } else { "home" };
        let place = format!("{place}{}", if row.claims.is_some() { ", claims office" } else { "" });
        let cells = [row.who, row.tenant, &place, row.what, expected, &format!("{got} {status}")];
        let mut line = cells.map(str::to_owned).to_vec();
        line.push(format!("{reason}{mark}"));
        lines.push(line);
    }
    print_table(&lines);
    println!("\n{} requests, {wrong} answered otherwise than expected", lines.len() - 1);
    if wrong > 0 {
        eprintln!("\n{}", site.log());
        return ExitCode::FAILURE;
    }
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        site.workspace.write("bob.token", token("bob", &["group3"]));
        print_hints(&site, site.workspace.text());
        println!("\nEverything runs on 127.0.0.1 until you press Ctrl-C; then it is gone.");
        loop {
            // Ctrl-C ends this process at once, and the janitor what it started.
            std::thread::park();
        }
    }
    drop((prometheus, site));
    println!("stopped");
    ExitCode::SUCCESS
}
