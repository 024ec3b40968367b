//! The stack of `deploy/compose`. No image can be pulled here, so each file is judged by what reads it: the schema of
//! compose files, `setup.sh` run for real, the command line, nginx, and the real module asked as Grafana would ask.

use crate::image::{self, Environment};
use crate::schemas::packaged;
use crate::support::client::{Answer, Request};
use crate::support::repository;
use crate::support::site::{COOKIE_KEY, Site};
use crate::support::tokens::{claims_with, jwks, key};
use crate::support::wait_for;
use crate::support::workspace::Workspace;
use crate::yaml;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const FOLDER: &str = "deploy/compose";

pub(crate) fn text(file: &str) -> String {
    fs::read_to_string(repository(FOLDER).join(file)).unwrap()
}

/// A file of one document.
pub(crate) fn document(file: &str) -> Value {
    let documents = yaml::modern(&text(file));
    assert_eq!(documents.len(), 1);
    documents[0].clone()
}

/// The compose file with the defaults of its variables.
pub(crate) fn stack() -> Value {
    let file = text("compose.yaml");
    let mut rest = &*file;
    let mut plain = String::new();
    while let Some((before, variable)) = rest.split_once("${") {
        let (variable, behind) = variable.split_once('}').unwrap();
        plain += &format!("{before}{}", variable.split_once(":-").expect("a default").1);
        rest = behind;
    }
    yaml::modern(&format!("{plain}{rest}"))[0].clone()
}

pub(crate) fn names(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Array(list) => list.iter().map(|name| name.as_str().unwrap()).collect(),
        Value::Object(map) => map.keys().map(String::as_str).collect(),
        _ => BTreeSet::new(),
    }
}

pub(crate) fn environment(service: &Value) -> Environment {
    let variables = service["environment"].as_object().unwrap().iter();
    variables.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

#[test]
fn the_schema_of_compose_files_takes_it() {
    let schema = fs::read(packaged("check_jsonschema/builtin_schemas/vendor/compose-spec.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let stack = stack();
    let problems: Vec<String> =
        schema.iter_errors(&stack).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(problems, Vec::<String>::new());
    let mut broken = stack;
    broken["services"]["grafana"]["netwroks"] = json!(["backends"]);
    assert!(!schema.is_valid(&broken));
}

#[test]
fn what_services_name_is_there() {
    let stack = stack();
    let services = stack["services"].as_object().unwrap();
    let declared = |what: &str| names(&stack[what]);
    let (mut networks, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for (name, service) in services {
        for other in names(&service["depends_on"]) {
            assert!(services.contains_key(other), "{name}: {other}");
        }
        networks.extend(names(&service["networks"]));
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume["source"].as_str().unwrap();
            if volume["type"] == "bind" {
                assert!(repository(FOLDER).join(source).exists(), "{name}: {source}");
                assert_eq!(volume["read_only"], true, "{name}: {source}");
            } else {
                volumes.insert(source);
                // Only what makes them writes them.
                assert_eq!(volume["read_only"] == true, name != "setup", "{name}: {source}");
            }
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        // A version, never `latest`.
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').expect(name);
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{image}");
    }
    assert_eq!((networks, volumes), (declared("networks"), declared("volumes")));
}

/// The networks leave no way round the gateways.
#[test]
fn only_the_gateways_lead_anywhere() {
    let stack = stack();
    let services = stack["services"].as_object().unwrap();
    let members = |network: &str| -> BTreeSet<&str> {
        let of = services.iter().filter(|(_, service)| names(&service["networks"]).contains(network));
        of.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(members("backends"), ["gateway", "gateway-for-agents", "loki", "mimir", "tempo"].into());
    assert_eq!(members("grafana"), ["grafana", "grafana-gateway"].into());
    assert_eq!(members("gateway"), ["gateway", "grafana"].into());
    assert_eq!(members("agents"), ["alloy", "gateway-for-agents"].into());
    assert_eq!(members("front"), ["grafana-gateway", "keycloak"].into());
    assert_eq!(members("admin"), ["gateway"].into());
    for (name, network) in stack["networks"].as_object().unwrap() {
        let open = ["front", "admin"].contains(&name.as_str());
        assert_eq!(network["internal"] == true, !open, "{name}");
    }
    let published = services.iter().filter(|(_, service)| service["ports"].is_array());
    let published: Vec<&str> = published.map(|(name, _)| name.as_str()).collect();
    assert_eq!(published, ["gateway", "grafana-gateway", "keycloak"]);
    for name in ["gateway", "gateway-for-agents", "grafana-gateway"] {
        let service = &services[name];
        assert_eq!((&service["read_only"], &service["cap_drop"]), (&json!(true), &json!(["ALL"])));
        image::assert_nginx_takes(&environment(service));
    }
}

/// Runs `setup.sh` as the service does. Returns the directory, with `policy`, `tls` and `tokens` in it.
fn set_up(workspace: &Workspace) {
    let run = || {
        let mut shell = Command::new("sh");
        shell.arg("setup.sh").arg("policy").current_dir(repository(FOLDER));
        let output =
            shell.args(["policy", "tls", "tokens"].map(|name| workspace.path(name))).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run();
    let before = workspace.read("policy/policy.yaml") + &workspace.read("policy/client-ip.keys");
    // Again, as after a change of the policy: keys and tokens stay.
    run();
    assert_eq!(before, workspace.read("policy/policy.yaml") + &workspace.read("policy/client-ip.keys"));
    assert!(!before.contains('@'));
}

#[test]
fn the_policy_is_valid_and_passes_its_own_tests() {
    let workspace = Workspace::new();
    set_up(&workspace);
    for (command, says) in [("check", "valid, revision"), ("test", "6 tests, 6 passed, 0 failed")] {
        let output = crate::projected::tenantauth(&workspace, &[command, "policy"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(says), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
    }
}

/// The gateway accepts the certificate that `setup.sh` makes for Keycloak. An nginx stands in for Keycloak: it presents
/// that certificate and hands out keys.
#[test]
fn keys_are_fetched_over_the_certificate_of_the_demo() {
    let site = Site::prepare(true);
    set_up(&site.workspace);
    site.write("keys/certs", &jwks(&[key()]));
    let port = site.port("tls");
    let server = "server { listen 127.0.0.1:@PORT:tls@ ssl; ssl_certificate @DIR@/tls/keycloak.pem;\n\
         ssl_certificate_key @DIR@/tls/keycloak.key; root @DIR@/keys; default_type application/json; }\n";
    let site = Site::builder().http(server).start_in(site);
    let policy = site.workspace.read("policy/policy.yaml");
    let address = "https://keycloak:8443/realms/demo/protocol/openid-connect/certs";
    assert!(policy.contains(address));
    site.write("policy/policy.yaml", &policy.replace(address, &format!("https://localhost:{port}/certs")));
    let fetch = || crate::projected::tenantauth(&site.workspace, &["keys", "--policy", "policy"]);
    let output = fetch();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("RS256"), "{said}");
    // Another CA's word counts for nothing.
    let other = rcgen::generate_simple_self_signed(["keycloak".to_owned()]).unwrap();
    site.write("policy/ca.pem", &other.cert.pem());
    site.expect_errors();
    let output = fetch();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("certificate"), "{said}");
}

/// What each person of the demo gets from each data source, asked of the real module as Grafana would ask.
#[test]
fn everyone_sees_what_the_page_says() {
    let site = Site::prepare(true);
    set_up(&site.workspace);
    // The keys of the tests in place of Keycloak's.
    let policy = site.workspace.read("policy/policy.yaml");
    let lines = policy
        .lines()
        .filter(|line| !line.contains("ca_file:"))
        .map(|line| if line.contains("jwks_url:") { "    jwks_file: ../jwks.json" } else { line });
    let policy =
        lines.collect::<Vec<_>>().join("\n").replace("172.16.0.0/12,", "172.16.0.0/12, 127.0.0.0/8,");
    site.write("policy/policy.yaml", &format!("{policy}\n"));
    site.write("policy/client-ip.keys", &COOKIE_KEY.line());
    let alerting = site.workspace.read("tokens/alerting");
    let agent = site.workspace.read("tokens/agent");
    let stack = stack();
    let site = image::start(site, &environment(&stack["services"]["gateway"]));
    site.expect_errors();

    let sources = document("grafana/provisioning/datasources/tenantauth.yaml");
    let source = |uid: &str| {
        let found = sources["datasources"].as_array().unwrap().iter().find(|source| source["uid"] == uid);
        found.expect(uid).clone()
    };
    let request = |uid: &str| {
        let source = source(uid);
        let (port, path) = match source["type"].as_str().unwrap() {
            "prometheus" => ("mimir", "/prometheus/api/v1/query?query=up"),
            "loki" => ("loki", "/loki/api/v1/query_range?query=%7Ba%3D%22b%22%7D"),
            _ => ("tempo", "/api/search?q=%7B%7D"),
        };
        let tenant = source["secureJsonData"]["httpHeaderValue1"].as_str().unwrap().to_owned();
        (port, Request::get(path).tenant(&tenant))
    };
    let ask = |group: &str, uid: &str, address: &str| -> Answer {
        let (port, request) = request(uid);
        let claims =
            claims_with(&[group], json!({"iss": "http://localhost:8180/realms/demo", "aud": "grafana"}));
        request.token(&key().token(&claims)).cookie(COOKIE_KEY.pair(address)).send(site.port(port))
    };
    let (work, home) = ("172.18.0.1", "203.0.113.9");
    for signal in ["mimir", "loki", "tempo"] {
        let (a, b) = (format!("{signal}-team-a"), format!("{signal}-team-b"));
        for (group, uid, address, reason) in [
            ("team-a", &a, work, ""),
            ("team-a", &a, home, ""),
            ("team-a", &b, work, "tenant_forbidden"),
            ("team-b", &b, work, ""),
            ("team-b", &b, home, "ip_forbidden"),
            ("team-b", &a, work, "tenant_forbidden"),
            ("sre", &a, home, ""),
            ("sre", &b, home, ""),
        ] {
            assert_eq!(ask(group, uid, address).reason(), reason, "{group} {uid} {address}");
        }
    }
    assert_eq!(ask("sre", "loki-both", home).status, 200);
    assert_eq!(ask("team-a", "loki-both", work).reason(), "tenant_forbidden");

    // Alerting's own data source: for rules, and for nobody who sits there.
    let (port, rule) = request("loki-team-a-alerting");
    let rule = rule.header("Authorization", format!("Bearer {alerting}"));
    assert_eq!(rule.clone().send(site.port(port)).status, 200);
    assert_eq!(rule.clone().cookie(COOKIE_KEY.pair(work)).send(site.port(port)).reason(), "service_attended");
    assert_eq!(rule.header("X-Grafana-User", "ada").send(site.port(port)).reason(), "service_attended");

    // What the page proposes to change: bob is refused where he was let in, and sam is not.
    let page = text("README.md");
    let network = "networks: [198.51.100.0/24]";
    assert!(page.contains(network));
    let policy = site.workspace.read("policy/policy.yaml");
    let changed = policy
        .replace("networks: [everywhere-docker-is], except_groups", &format!("{network}, except_groups"));
    assert_ne!(policy, changed);
    site.write("policy/policy.yaml", &changed);
    wait_for("the change of the page", 10, || {
        (ask("team-b", "loki-team-b", work).reason() == "ip_forbidden").then_some(())
    });
    assert_eq!(ask("sre", "loki-team-b", work).status, 200);

    // The agent writes and does not read.
    for (port, path) in [("mimir", "/otlp/v1/metrics"), ("loki", "/otlp/v1/logs"), ("tempo", "/v1/traces")] {
        let write =
            Request::new("POST", path).tenant("team-b").header("Authorization", format!("Bearer {agent}"));
        assert_eq!(write.send(site.port(port)).status, 200, "{path}");
    }
    let (port, read) = request("loki-team-b");
    let read = read.header("Authorization", format!("Bearer {agent}"));
    assert_eq!(read.send(site.port(port)).reason(), "scope_forbidden");
}

/// The agent sends each signal where the gateway for agents listens for it, as a tenant of its own.
#[test]
fn alloy_sends_to_the_gateway_for_agents() {
    let alloy = text("alloy/config.alloy");
    assert_eq!(alloy.matches('{').count(), alloy.matches('}').count());
    let values = |key: &str| -> Vec<String> {
        let lines = alloy.lines().filter_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix("= "));
        lines.map(|value| value.trim_matches('"').to_owned()).collect()
    };
    let endpoints = values("endpoint");
    let receivers = ["0.0.0.0:4318", "0.0.0.0:4319"];
    let sent: Vec<&String> = endpoints.iter().filter(|one| !receivers.contains(&one.as_str())).collect();
    let to = ["8081/otlp", "8082/otlp", "8083"].map(|port| format!("http://gateway-for-agents:{port}"));
    assert_eq!(sent, to.iter().chain(&to).collect::<Vec<_>>());
    for tenant in ["team-a", "team-b"] {
        assert_eq!(values("headers").iter().filter(|value| value.contains(tenant)).count(), 3);
    }
    let stack = stack();
    for (name, service) in stack["services"].as_object().unwrap() {
        let command = names(&service["command"]);
        if let Some(endpoint) = command.iter().find_map(|word| word.strip_prefix("--otlp-endpoint=alloy:")) {
            let port = if name.starts_with("team-a") { "4318" } else { "4319" };
            assert_eq!(endpoint, port, "{name}");
        }
    }
}

/// Each backend tells tenants apart: else the gateway would protect nothing.
#[test]
fn the_backends_know_tenants_and_listen_where_the_gateways_ask() {
    let stack = stack();
    let gateway = environment(&stack["services"]["gateway"]);
    let agents = environment(&stack["services"]["gateway-for-agents"]);
    let port = |url: &str| url.rsplit(':').next().unwrap().parse::<u64>().unwrap();
    for (file, key, variable) in [
        ("mimir/mimir.yaml", "multitenancy_enabled", "MIMIR_URL"),
        ("loki/loki.yaml", "auth_enabled", "LOKI_URL"),
        ("tempo/tempo.yaml", "multitenancy_enabled", "TEMPO_URL"),
    ] {
        let configuration = document(file);
        assert_eq!(configuration[key], true, "{file}");
        assert_eq!(configuration["server"]["http_listen_port"], port(&gateway[variable]), "{file}");
        let host = gateway[variable].trim_start_matches("http://").split(':').next().unwrap();
        assert!(stack["services"][host].is_object());
    }
    let receiver = document("tempo/tempo.yaml");
    let receiver = receiver["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"].clone();
    assert_eq!(port(receiver.as_str().unwrap()), port(&agents["TEMPO_OTLP_URL"]));
}
