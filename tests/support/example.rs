//! Runs the configurations of `nginx/examples` as they are shipped, with other paths, ports and backends.

use super::repository;
use super::site::{Site, TEMPORARY};
use std::fs;

/// Starts an example. The backend at port 3100 of the file is `upstream_of("3100")`, the server at port 8080 is
/// `port("8080")`; the policy (an example too) and `auth.lua` are where the file looks for them.
pub(crate) fn start(configuration: &str, policy: &str, first_port: &str) -> Site {
    let site = Site::prepare(true);
    site.write_policy(&paths(&shipped(policy)));
    site.workspace.copy(&repository("lua/auth.lua"), "etc-nginx/auth.lua");
    let port = site.port(first_port);
    site.run_on(&prepared(&shipped(configuration)), 2, port)
}

/// A configuration as users have it, with placeholders for its paths, ports and backends.
pub(crate) fn prepared(configuration: &str) -> String {
    paths(configuration).lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A file of `nginx/examples`.
pub(crate) fn shipped(name: &str) -> String {
    let file = repository("nginx/examples").join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The value behind a key that occurs once in an example, without its comment: `issuer`, `audiences`.
pub(crate) fn value(document: &str, key: &str) -> String {
    let line = document
        .lines()
        .find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key)?.strip_prefix(':'));
    let value = line.unwrap_or_else(|| panic!("no `{key}` in the example"));
    value.split(" #").next().unwrap_or_default().trim().trim_matches(['[', ']']).to_owned()
}

fn paths(text: &str) -> String {
    text.replace("/etc/tenantauth/", "@DIR@/")
        .replace("/etc/nginx/", "@DIR@/etc-nginx/")
        .replace("/var/log/nginx/", "@DIR@/")
        .replace("/run/nginx.pid", "@DIR@/nginx.pid")
        .replace("/usr/local/", "@DIR@/")
        // The load balancers of the Grafana Gateway: here, the test itself.
        .replace("10.0.128.0/24", "127.0.0.0/8")
}

fn line(line: &str) -> String {
    let port =
        |address: &str| address.trim_end_matches(';').rsplit(':').next().unwrap_or_default().to_owned();
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["http", "{"] => format!("{line} {TEMPORARY}"),
        // Who runs the tests may be nobody that can become another; `nginx.rs` says who the workers are.
        ["user", _] => String::new(),
        ["worker_processes", ..] => "worker_processes 2;".to_owned(),
        ["listen", address] => format!("listen 127.0.0.1:@PORT:{}@;", port(address)),
        ["server", address] if address != "{" => format!("server @UPSTREAM:{}@;", port(address)),
        _ => line.to_owned(),
    }
}
