//! What `deploy/` gives to those who watch: a real Prometheus scrapes the real module, evaluates the alert rules, and
//! answers each query of the dashboard.

use crate::audit::KEYS;
use crate::checks::query;
use crate::support::client::Request;
use crate::support::prometheus::Prometheus;
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site, directory_module};
use crate::support::{repository, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const RULES: &str = "deploy/alerts/tenantauth.rules.yml";
/// Where the shipped rules say that the runbook is read: a place to be replaced.
const RUNBOOK: &str = "https://runbooks.example.com/tenantauth/runbook.md";
const DASHBOARD: &str = "deploy/grafana/tenantauth.json";
/// A gateway with something to say about each metric: denials of all kinds, a shadow restriction, a grant that ends,
/// keys that are fetched, from itself, and an owner.
fn site() -> Site {
    let keys = "server { listen 127.0.0.1:@PORT:keys@; root @DIR@; default_type application/json; }";
    let fetched = "jwks_url: http://127.0.0.1:@PORT:keys@/jwks.json";
    let shadow = "  - { name: tried-out, tenants: [tenant2], networks: [office], mode: shadow }\n";
    let policy = POLICY.replace("2020-02-01", "2999-02-01").replace("jwks_file: @DIR@/jwks.json", fetched);
    assert!(policy.contains(fetched));
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location = /loki/api/v1/index/stats {
            content_by_lua_block { ngx.say(ngx.location.capture("/loki/api/v1/query").status) }
        }
        location / { proxy_pass http://@UPSTREAM@; }
    "#;
    let owners = "owners:\n  team-a: { tenants: [team-a] }\n";
    let policy = format!("{policy}{RESTRICTIONS}{shadow}{SIGNED_COOKIE}{owners}");
    let builder = Site::builder().policy_directory(&policy, &[("team-a", "{}\n")]).workers(2);
    let site = builder.module(&directory_module("")).server(server).http(keys).start();
    // A subrequest is answered 503, and says so in the log.
    site.expect_errors();
    site
}

fn visit(site: &Site) {
    let cookie = || COOKIE_KEY.pair("203.0.113.5");
    site.send(query(&["group3"], "tenant1").cookie(cookie()));
    site.send(query(&["group3"], "tenant1").cookie(cookie()));
    site.send(query(&["group3"], "tenant1").cookie("Client_Ip=junk"));
    site.send(query(&["group3"], "tenant2").cookie(COOKIE_KEY.pair("198.18.0.5")));
    site.send(query(&["group1"], "tenant2"));
    site.send(Request::get("/nowhere").tenant("tenant1"));
    let stats = Request::get("/loki/api/v1/index/stats?query=%7B%7D").tenant("tenant2");
    site.send(stats.token(&crate::support::tokens::token(&["group3"])).cookie(cookie()));
}

/// The metrics that the module can export. What it does not in fact, no query finds.
fn exported() -> BTreeSet<String> {
    let source = fs::read_to_string(repository("src/metrics.rs")).unwrap();
    let table =
        source.split("const METRICS: [").nth(1).unwrap().split("/// The key of a counter").next().unwrap();
    let names = table.split('"').filter(|text| text.starts_with("tenantauth_"));
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    assert!(names.len() >= 16, "{names:?}");
    names
}

/// Each metric that a query names is exported.
#[track_caller]
fn assert_exported(expression: &str, exported: &BTreeSet<String>) {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let names: Vec<&str> = expression.split(word).filter(|name| name.starts_with("tenantauth_")).collect();
    assert!(!names.is_empty(), "{expression}");
    let is_exported = |name: &&str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        exported.contains(*name) || family.is_some_and(|family| exported.contains(family))
    };
    for name in &names {
        assert!(is_exported(name), "`{name}` is no metric: {expression}");
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(repository(DASHBOARD)).unwrap()).unwrap()
}

/// Title of the panel and target, for each target of a data source.
fn targets(dashboard: &Value, source: &str) -> Vec<(String, Value)> {
    let mut targets = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            if target["datasource"]["type"] == source {
                targets.push((panel["title"].as_str().unwrap().to_owned(), target.clone()));
            }
        }
    }
    targets
}

/// What stands between `before` and `after`, each time.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    text.split(before).skip(1).map(|rest| rest.split(after).next().unwrap()).collect()
}

#[test]
fn prometheus_finds_nothing_to_object_to_in_the_exposition() {
    let site = site();
    visit(&site);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool, which comes with Prometheus");
    promtool.stdin.take().unwrap().write_all(site.metrics().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_alert_rules_pass_their_own_tests() {
    for (verb, file) in [("check", RULES), ("test", "deploy/alerts/tenantauth.rules.test.yml")] {
        let output = Command::new("promtool").args([verb, "rules"]).arg(repository(file)).output();
        let output = output.expect("promtool, which comes with Prometheus");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn prometheus_evaluates_the_rules_and_answers_each_query_of_the_dashboard() {
    let site = site();
    visit(&site);
    let prometheus = Prometheus::watching(&site.workspace, &[site.port("admin")], &[repository(RULES)]);
    let scrapes = |count: &str| {
        let query = format!("count_over_time(tenantauth_build_info{{job=\"tenantauth\"}}[1m]) >= {count}");
        !prometheus.ask("query", &[("query", &query)])["result"].as_array().unwrap().is_empty()
    };
    wait_for("Prometheus that has scraped the module", 60, || {
        visit(&site);
        sleep(Duration::from_millis(200));
        scrapes("8").then_some(())
    });
    let exported = exported();

    for (title, target) in targets(&dashboard(), "prometheus") {
        let written = target["expr"].as_str().unwrap();
        let mut expression = written.to_owned();
        for (variable, value) in [
            ("$__rate_interval", "10s"),
            ("$__range", "1m"),
            ("$cluster", ".*"),
            ("$namespace", ".*"),
            ("$job", "tenantauth"),
            ("$instance", ".*"),
        ] {
            expression = expression.replace(variable, value);
        }
        assert!(!expression.contains('$'), "{title}: {expression}");
        assert_exported(&expression, &exported);
        let result = prometheus.ask("query", &[("query", &expression)])["result"].take();
        let series = result.as_array().unwrap();
        let values = series.iter().filter_map(|one| one["value"][1].as_str()?.parse::<f64>().ok());
        assert!(values.into_iter().any(f64::is_finite), "{title}: {expression} gives {result}");
        // The labels that the legend shows are there.
        for label in between(target["legendFormat"].as_str().unwrap(), "{{", "}}") {
            assert!(
                series.iter().all(|one| one["metric"][label].is_string()),
                "{title}: no `{label}` in {result}"
            );
        }
    }

    let rules = wait_for("evaluation of every rule", 20, || {
        let groups = prometheus.ask("rules", &[("type", "alert")]);
        let rules = groups["groups"][0]["rules"].as_array().unwrap().clone();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    let runbook = fs::read_to_string(repository("docs/runbook.md")).unwrap();
    let tested = fs::read_to_string(repository("deploy/alerts/tenantauth.rules.test.yml")).unwrap();
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_exported(rule["query"].as_str().unwrap(), &exported);
        // What this gateway does wrong on purpose is pending; nothing else is.
        let expected = match name {
            "TenantauthUnavailable" | "TenantauthShadowMode" => ["pending", "pending"],
            // Not every request of it may be recorded: a subrequest has no record of its own.
            "TenantauthAuditMissing" => ["inactive", "pending"],
            _ => ["inactive", "inactive"],
        };
        assert!(expected.iter().any(|state| rule["state"] == *state), "{rule}");
        let place = format!("{RUNBOOK}#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], place);
        assert!(runbook.contains(&format!("\n## {name}\n")), "the runbook has no heading {name}");
        let silent = format!("alertname: {name}, exp_alerts: [] }}");
        let firing = format!("alertname: {name}\n        exp_alerts:\n");
        assert!(tested.contains(&silent) && tested.contains(&firing), "{name} is not tested in both states");
        names.insert(name.to_owned());
    }
    let headings: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## Tenantauth"))
        .map(|rest| format!("Tenantauth{rest}"))
        .collect();
    assert_eq!(headings, names);
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: BTreeSet<&str> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let row = panel["type"] == "row";
        assert_eq!(panel["targets"].as_array().is_none_or(Vec::is_empty), row, "{panel}");
    }
    let text = dashboard.to_string();
    // Of Grafana itself, where links know them.
    let global = ["__url_time_range", "__field.labels.reason"];
    let fields = ["__data.fields.tenants", "__data.fields.user", "__data.fields.reason"];
    for variable in between(&text, "${", "}") {
        let name = variable.split(':').next().unwrap();
        let known = variables.contains(name) || global.contains(&name) || fields.contains(&name);
        assert!(known, "`{variable}` is not declared");
    }
    for variable in between(&text, "var-", "=") {
        assert!(variables.contains(variable), "a link sets `{variable}`, which is not declared");
    }
    // A link shows what a row or a series has: the query behind it gives that label.
    let links = between(&text, "__data.fields.", "}").len() + between(&text, "__field.labels.", "}").len();
    assert_eq!(links, 6);
    for panel in dashboard["panels"].as_array().unwrap() {
        let settings = panel["fieldConfig"].to_string();
        let expressions = panel["targets"].to_string();
        let fields = between(&settings, "__data.fields.", "}").into_iter();
        for label in fields.chain(between(&settings, "__field.labels.", "}")) {
            let by = between(&expressions, "sum by (", ")");
            assert!(by.iter().all(|by| by.split(", ").any(|one| one == label)), "{label} in {panel}");
            assert!(!by.is_empty());
        }
    }
    let list = dashboard["templating"]["list"].as_array().unwrap();
    let audit_job = list.iter().find(|one| one["name"] == "audit_job").unwrap()["current"]["value"].clone();
    // The panels on Loki: labels that the shipping sets, and keys of the record.
    let shipping = fs::read_to_string(repository("deploy/alloy/audit.alloy")).unwrap();
    let logs = targets(&dashboard, "loki");
    assert!(logs.len() >= 3);
    for (title, target) in logs {
        let expression = target["expr"].as_str().unwrap();
        let selector = between(expression, "{", "}")[0];
        for label in selector.split(", ") {
            let (name, value) = label.split_once('=').unwrap();
            // `job` is given to the file, the others are taken from the record.
            let set = if name == "job" {
                assert_eq!(value, "\"$audit_job\"");
                format!("job = {audit_job} }}")
            } else {
                format!("{name} = \"\"")
            };
            assert!(shipping.contains(&set), "{title}: {label} is not what the shipping sets");
        }
        for key in
            between(expression, "| json ", " [").into_iter().flat_map(|fields| between(fields, "=\"", "\""))
        {
            assert!(KEYS.contains(&key), "{title}: `{key}` is no key of the record");
        }
    }
}
