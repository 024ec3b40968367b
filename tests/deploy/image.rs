//! The image's entrypoint outside the image: it writes nginx's configuration from the environment that a chart or a
//! compose file gives, and the real nginx reads it.

use crate::support::client::Request;
use crate::support::repository;
use crate::support::site::{POLICY, Site, records_of};
use crate::support::tokens::token;
use crate::support::wait_for;
use crate::support::workspace::{Process, Workspace};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// The environment of a container.
pub(crate) type Environment = BTreeMap<String, String>;

/// One that is written out.
pub(crate) fn environment_of(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The environment that a pod's container gets.
pub(crate) fn of_container(container: &Value) -> Environment {
    let variables = container["env"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    variables.map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
}

/// The configuration that the entrypoint writes into the site's directory.
///
/// # Panics
/// With its words, where it refuses.
fn render(site: &Site, environment: &Environment) -> String {
    let templates = repository("deploy/image");
    for entry in fs::read_dir(&templates).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            let name = path.file_name().unwrap().to_str().unwrap();
            site.workspace.copy(&path, &format!("share/tenantauth/image/{name}"));
        }
    }
    let mut command = Command::new("sh");
    command.arg(templates.join("entrypoint.sh")).arg("render").env_clear().envs(environment);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    for (variable, path) in [("PREFIX", ""), ("RUN_DIR", "run"), ("POLICY", "policy"), ("STATE_DIR", "state")]
    {
        let path = site.workspace.path(path);
        command.env(format!("TENANTAUTH_{variable}"), path.to_str().unwrap().trim_end_matches('/'));
    }
    command.env("TENANTAUTH_KEYS_FILE", site.workspace.path("policy/client-ip.keys"));
    fs::create_dir_all(site.workspace.path("run")).unwrap();
    fs::create_dir_all(site.workspace.path("state")).unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{environment:?}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(String::from_utf8(output.stdout).unwrap().trim()).unwrap()
}

/// `nginx -t` over what the entrypoint writes for this environment.
pub(crate) fn assert_nginx_takes(environment: &Environment) {
    let site = Site::prepare(true);
    let mut environment = environment.clone();
    // Names are looked up while nginx runs, which it does not here.
    environment.insert("TENANTAUTH_RESOLVER".to_owned(), "127.0.0.1".to_owned());
    let configuration = render(&site, &environment);
    crate::support::nginx::assert_valid(&site.workspace, &without_packages(&configuration));
}

/// Starts what the entrypoint writes for this environment, on free ports and in front of the site's own backends: the
/// one that is `upstream_of("mimir")` for `MIMIR_URL`, and so on. The server of a backend is `port("mimir")`.
pub(crate) fn start(site: Site, environment: &Environment) -> Site {
    let mut environment = environment.clone();
    let admin = format!("127.0.0.1:{}", site.port("admin"));
    environment.insert("TENANTAUTH_ADMIN_LISTEN".to_owned(), admin);
    environment.insert("TENANTAUTH_WORKERS".to_owned(), "1".to_owned());
    if let Some(url) = environment.get_mut("TEMPO_OTLP_URL") {
        *url = format!("http://127.0.0.1:{}", site.upstream_of("otlp").port);
    }
    for backend in ["mimir", "loki", "tempo", "pyroscope", "grafana"] {
        let name = backend.to_uppercase();
        if let Some(url) = environment.get_mut(&format!("{name}_URL")) {
            *url = format!("http://127.0.0.1:{}", site.upstream_of(backend).port);
            let listen = format!("127.0.0.1:{}", site.port(backend));
            environment.insert(format!("TENANTAUTH_LISTEN_{name}"), listen);
        }
    }
    let configuration = without_packages(&render(&site, &environment));
    let log = format!("error_log {} ", site.workspace.path("error.log").display());
    let configuration = configuration.replace("error_log stderr ", &log);
    let port = site.port("admin");
    site.run_on(&configuration, 1, port)
}

/// The harness loads the Lua module itself.
fn without_packages(configuration: &str) -> String {
    configuration.replace("include /etc/nginx/modules-enabled/*.conf;", "")
}

/// Grafana learns each address once, the one that is stamped as the client's, and how the client connected.
#[test]
fn the_grafana_gateway_says_who_asked_and_how() {
    let mut environment =
        environment_of(&[("TENANTAUTH_MODE", "grafana-gateway"), ("GRAFANA_URL", "http://grafana:3000")]);
    let ask = |environment: &Environment| {
        let site = Site::prepare(true);
        site.write("policy/client-ip.keys", &site.workspace.read("client-ip.keys"));
        let site = start(site, environment);
        let request = Request::get("/login")
            .header("X-Forwarded-For", "203.0.113.5")
            .header("X-Forwarded-Proto", "https")
            .header("X-Real-IP", "198.18.0.5");
        assert_eq!(request.send(site.port("grafana")).status, 200);
        let seen = site.upstream_of("grafana").only();
        ["X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"].map(|name| {
            let values = seen.values(name);
            assert_eq!(values.len(), 1, "{name}: {values:?}");
            values[0].to_owned()
        })
    };
    // Without load balancers whoever connects is the client.
    assert_eq!(ask(&environment), ["127.0.0.1", "203.0.113.5, 127.0.0.1", "https"]);
    environment.insert("TENANTAUTH_LOAD_BALANCERS".to_owned(), "127.0.0.1".to_owned());
    assert_eq!(ask(&environment), ["203.0.113.5", "203.0.113.5, 127.0.0.1", "https"]);
}

/// Tempo takes traces at another port than questions; each has its own scope, on one port of the gateway.
#[test]
fn traces_go_to_tempos_receiver_and_questions_to_its_api() {
    let variables = [
        ("TEMPO_URL", "http://tempo:3200"),
        ("TEMPO_OTLP_URL", "http://tempo:4318"),
        ("PYROSCOPE_URL", "http://pyroscope:4040"),
    ];
    let site = Site::prepare(true);
    site.write("policy/policy.yaml", POLICY);
    let site = start(site, &environment_of(&variables));
    let send = |port: &str, method: &str, path: &str, group: &str| {
        let request = Request::new(method, path).tenant("team-a").token(&token(&[group]));
        request.body("spans").send(site.port(port))
    };
    for (path, asked) in [
        ("/v1/traces", "/v1/traces"),
        ("/otlp/v1/traces", "/v1/traces"),
        ("/otlp/v1/traces?a=b", "/v1/traces?a=b"),
    ] {
        assert_eq!(send("tempo", "POST", path, "team-a").status, 200, "{path}");
        let seen = site.upstream_of("otlp").only();
        assert_eq!((seen.target(), seen.values("X-Scope-OrgID")), (asked, vec!["team-a".to_owned()]));
        // A location of its own is no way around the decision.
        assert_eq!(send("tempo", "POST", path, "sre").reason(), "scope_forbidden", "{path}");
        assert_eq!(send("tempo", "GET", path, "team-a").reason(), "route_unknown", "{path}");
    }
    for path in ["/v1//traces", "/v1/%74races", "/x/../v1/traces", "/v1/traces/"] {
        assert_eq!(send("tempo", "POST", path, "team-a").status, 403, "{path}");
    }
    assert!(site.upstream_of("otlp").take().is_empty());
    assert_eq!(send("tempo", "GET", "/api/search?q=x", "team-a").status, 200);
    assert_eq!(site.upstream_of("tempo").only().target(), "/api/search?q=x");
    let profiles = send("pyroscope", "POST", "/querier.v1.QuerierService/ProfileTypes", "sre");
    assert_eq!(profiles.status, 200);
    assert_eq!(site.upstream_of("pyroscope").take().len(), 1);
}

/// A pipe takes short records, a file takes whole ones; the file is moved aside when it has grown, and no record is lost.
#[test]
fn the_audit_log_of_a_volume_is_whole_and_kept_short() {
    let site = Site::prepare(true);
    site.write("policy/policy.yaml", POLICY);
    let volume = site.workspace.path("volume");
    fs::create_dir(&volume).unwrap();
    let log = volume.join("audit.jsonl");
    let mut environment = environment_of(&[("LOKI_URL", "http://loki:3100")]);
    environment.insert("TENANTAUTH_RESOLVER".to_owned(), "127.0.0.1".to_owned());
    let piped = render(&site, &environment);
    assert!(piped.contains("\nenv TENANTAUTH_AUDIT_MAX_BYTES=4000;\n"));
    assert!(piped.contains("access_log /dev/stdout tenantauth_audit buffer=4k flush=1s;"));
    environment.insert("TENANTAUTH_AUDIT_LOG".to_owned(), log.to_str().unwrap().to_owned());
    let site = start(site, &environment);

    let pid = site.workspace.read("run/nginx.pid").trim().to_owned();
    let mut command = Command::new("sh");
    command.arg(repository("deploy/image/rotate.sh")).arg(&log).args(["1", &pid, "1"]);
    let _rotation = Process::start(&site.workspace, "rotate", &mut command);
    // About 1.5 MiB, while the file is moved aside and after that.
    let long = "q".repeat(10_000);
    let token = token(&["group1"]);
    let mut sent = 0;
    let mut ask = || {
        let target = format!("/loki/api/v1/query?query={long}&number={sent}");
        assert_eq!(Request::get(target).tenant("tenant1").token(&token).send(site.port("loki")).status, 200);
        sent += 1;
    };
    (0..120).for_each(|_| ask());
    wait_for("a file that is moved aside", 20, || {
        ask();
        volume.join("audit.jsonl.1").exists().then_some(())
    });
    (0..20).for_each(|_| ask());
    let records = || {
        let files = ["audit.jsonl.1", "audit.jsonl"].map(|file| fs::read_to_string(volume.join(file)));
        Some(records_of(&files.into_iter().flatten().collect::<String>()))
            .filter(|records| records.len() == sent)
    };
    let records = wait_for("each record", 20, records);
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record["query"], format!("query={long}&number={number}"));
        assert_eq!(record["truncated"], Value::Null);
    }
    assert!(fs::metadata(volume.join("audit.jsonl.1")).unwrap().len() >= 1024 * 1024);
}

/// The image's layer of dependencies is built where the sources of tests and benchmarks are not there: cargo takes that
/// for targets of which it is told the path.
#[test]
fn the_dependencies_are_built_without_our_sources() {
    let dockerfile = fs::read_to_string(repository("Dockerfile")).unwrap();
    let copied =
        dockerfile.lines().find_map(|line| line.strip_prefix("COPY Cargo.toml ")?.strip_suffix(" ./"));
    let workspace = Workspace::new();
    for file in ["Cargo.toml"].into_iter().chain(copied.expect("the first layer").split(' ')) {
        workspace.copy(&repository(file), file);
    }
    workspace.write("src/bin/tenantauth.rs", "fn main() {}");
    workspace.write("src/lib.rs", "");
    // A target that is not there: what is refused before that is the manifest.
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--locked", "--offline", "--bin", "none-such"]).current_dir(workspace.path(""));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no bin target named `none-such`"), "{said}");
}
