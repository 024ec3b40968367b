//! The chart with several sets of values: valid for Kubernetes, and of one piece.

use crate::helm::{CHART, NAMESPACE, objects, of_kind, only, refusal, rendered, run, value_sets};
use crate::schemas::{Kubernetes, problems_of_operator};
use crate::support::repository;
use crate::support::workspace::Workspace;
use crate::yaml;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const OPERATOR: &str = "monitoring.coreos.com/v1";

/// The pods' templates of a set of objects, with the labels that they get.
fn pods(objects: &[Value]) -> Vec<&Value> {
    let workloads = objects.iter().filter(|object| object["spec"]["template"].is_object());
    workloads.map(|workload| &workload["spec"]["template"]).collect()
}

/// Whether labels have all that a selector asks for; an empty selector asks for nothing and is a mistake here.
fn selects(selector: &Value, labels: &Value) -> bool {
    let asked: &Map<String, Value> = selector.as_object().unwrap();
    !asked.is_empty() && asked.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn helm_has_nothing_to_complain_about() {
    for (name, arguments) in value_sets() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(&[&["lint", "--strict", CHART], &arguments[..]].concat());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn kubernetes_takes_every_object() {
    let mut kubernetes = Kubernetes::default();
    let mut kinds = BTreeSet::new();
    let sets = value_sets();
    let names: Vec<&str> = sets.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "defaults",
            "everything-values.yaml",
            "existing-configmaps-values.yaml",
            "grafana-gateway-values.yaml"
        ]
    );
    for (name, arguments) in &sets {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // As long as a name of a release may be.
        let long = "a".repeat(53);
        for release in ["r", &long] {
            let objects = objects(release, &arguments);
            let (operator, plain): (Vec<&Value>, Vec<&Value>) =
                objects.iter().partition(|object| object["apiVersion"] == OPERATOR);
            for object in plain {
                let problems = kubernetes.problems(object);
                assert!(problems.is_empty(), "{name}: {problems:#?}");
            }
            assert_eq!(problems_of_operator(&operator), "", "{name}");
            let mut identities = BTreeSet::new();
            for object in &objects {
                let metadata = &object["metadata"];
                assert!(metadata["name"].as_str().unwrap().len() <= 63, "{metadata}");
                let identity = format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"]);
                assert!(identities.insert(identity.clone()), "{name}: {identity} stands there twice");
                kinds.insert(object["kind"].as_str().unwrap().to_owned());
            }
        }
    }
    let expected = [
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into());
}

/// The validators see what is wrong; else the test above could not fail.
#[test]
fn a_mistake_is_seen() {
    let objects = rendered("everything-values.yaml");
    let mut kubernetes = Kubernetes::default();
    let mut broken = only(&objects, "StatefulSet", "-gateway").clone();
    assert_eq!(kubernetes.problems(&broken), Vec::<String>::new());
    broken["spec"]["template"]["spec"]["securityContext"]["runAsNonRot"] = json!(true);
    broken["spec"]["replicas"] = json!("three");
    // Both, in both versions.
    assert_eq!(kubernetes.problems(&broken).len(), 4);
    let mut broken = only(&objects, "ServiceMonitor", "").clone();
    broken["spec"]["endpoints"][0]["intervall"] = json!("30s");
    broken["spec"]["endpoints"][0]["interval"] = json!(30);
    assert_eq!(problems_of_operator(&[&broken]).lines().count(), 2);
}

#[test]
fn every_pod_is_nobody_and_may_nothing() {
    for (name, arguments) in value_sets() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let objects = objects("r", &arguments);
        let pods = pods(&objects);
        assert!(!pods.is_empty());
        for pod in pods {
            let spec = &pod["spec"];
            assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
            let context = &spec["securityContext"];
            assert_eq!(context["runAsNonRoot"], true);
            assert_eq!([&context["runAsUser"], &context["runAsGroup"], &context["fsGroup"]], [10101; 3]);
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
            let containers = spec["containers"].as_array().unwrap();
            assert_eq!((containers.len(), spec.get("initContainers")), (1, None));
            let container = &containers[0];
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(container["securityContext"], expected);

            // What is mounted is there, and what is there is mounted; what the image writes to can be written to.
            let mounts = container["volumeMounts"].as_array().unwrap();
            let mounted: BTreeSet<&str> =
                mounts.iter().map(|mount| mount["name"].as_str().unwrap()).collect();
            let volumes = spec["volumes"].as_array().unwrap().iter();
            let mut volumes: BTreeSet<&str> =
                volumes.map(|volume| volume["name"].as_str().unwrap()).collect();
            if objects.iter().any(|object| object["spec"]["volumeClaimTemplates"].is_array())
                && container["name"] == "gateway"
            {
                volumes.insert("state");
            }
            assert_eq!(mounted, volumes, "{name}");
            let writable = mounts.iter().filter(|mount| mount.get("readOnly").is_none());
            let writable: Vec<&str> = writable.map(|mount| mount["mountPath"].as_str().unwrap()).collect();
            let state = if container["name"] == "gateway" { &["/var/lib/tenantauth"][..] } else { &[] };
            assert_eq!(writable, [state, &["/run/tenantauth", "/tmp"]].concat());
            // A file that is mounted by a subPath would never change.
            assert!(mounts.iter().all(|mount| mount.get("subPath").is_none()));

            let ports: Vec<&Value> =
                container["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
            for probe in ["livenessProbe", "readinessProbe"] {
                let probe = &container[probe];
                let asked =
                    if probe["httpGet"].is_object() { &probe["httpGet"] } else { &probe["tcpSocket"] };
                assert!(ports.contains(&&asked["port"]), "{probe}");
            }
        }
    }
}

/// Selectors, ports and names fit together.
#[test]
fn the_objects_are_of_one_piece() {
    for (name, arguments) in value_sets() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let objects = objects("r", &arguments);
        let pods = pods(&objects);
        let matching = |selector: &Value| -> Vec<&Value> {
            pods.iter().filter(|pod| selects(selector, &pod["metadata"]["labels"])).copied().collect()
        };
        for workload in objects.iter().filter(|object| object["spec"]["template"].is_object()) {
            assert_eq!(matching(&workload["spec"]["selector"]["matchLabels"]).len(), 1, "{name}");
        }
        for service in of_kind(&objects, "Service") {
            let selected = matching(&service["spec"]["selector"]);
            assert_eq!(selected.len(), 1, "{name}: {}", service["metadata"]["name"]);
            let ports = selected[0]["spec"]["containers"][0]["ports"].as_array().unwrap();
            for port in service["spec"]["ports"].as_array().unwrap() {
                assert!(ports.iter().any(|of_pod| of_pod["name"] == port["targetPort"]), "{port}");
            }
        }
        let budgets = of_kind(&objects, "PodDisruptionBudget");
        assert_eq!(budgets.len(), pods.len(), "{name}");
        for budget in budgets {
            assert_eq!(matching(&budget["spec"]["selector"]["matchLabels"]).len(), 1);
        }
        for monitor in of_kind(&objects, "ServiceMonitor") {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let services = of_kind(&objects, "Service");
            let mut services =
                services.iter().filter(|service| selects(selector, &service["metadata"]["labels"]));
            let service = services.next().expect("a Service that is scraped");
            // Else each pod would be scraped more than once.
            assert!(services.next().is_none());
            let ports = service["spec"]["ports"].as_array().unwrap();
            assert!(ports.iter().any(|port| port["name"] == monitor["spec"]["endpoints"][0]["port"]));
        }
        for workload in of_kind(&objects, "StatefulSet") {
            let headless = only(&objects, "Service", workload["spec"]["serviceName"].as_str().unwrap());
            assert_eq!(headless["spec"]["clusterIP"], "None");
        }
    }
}

/// Who a policy lets in, as (namespace, labels, ports).
fn peers(policy: &Value) -> Vec<(Value, Value, Vec<u64>)> {
    let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
    let of_rule = |rule: &Value| {
        let ports = rule["ports"].as_array().cloned().unwrap_or_default();
        let ports: Vec<u64> = ports.iter().map(|port| port["port"].as_u64().unwrap()).collect();
        let from = rule["from"].as_array().cloned().unwrap_or_else(|| vec![json!({})]);
        from.into_iter()
            .map(|peer| {
                let namespace =
                    peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].clone();
                (namespace, peer["podSelector"]["matchLabels"].clone(), ports.clone())
            })
            .collect::<Vec<_>>()
    };
    rules.flat_map(of_rule).collect()
}

#[test]
fn only_whom_it_concerns_gets_through_the_network() {
    let objects = rendered("everything-values.yaml");
    let policies = of_kind(&objects, "NetworkPolicy");
    for policy in &policies {
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
    }
    assert_eq!(policies.len(), 6);
    let app = |name: &str| json!({"app.kubernetes.io/name": name});
    let component = |of: &str| {
        json!({
            "app.kubernetes.io/name": "tenantauth",
            "app.kubernetes.io/instance": "r",
            "app.kubernetes.io/component": of,
        })
    };

    let gateway = only(&objects, "NetworkPolicy", "auth-gateway");
    assert_eq!(gateway["spec"]["podSelector"]["matchLabels"], component("gateway"));
    let backends = vec![8081, 8082, 8083];
    let expected = vec![
        (json!("monitoring"), app("grafana"), backends.clone()),
        (json!("monitoring"), app("alloy"), backends),
        (Value::Null, app("prometheus"), vec![9145]),
    ];
    assert_eq!(peers(gateway), expected);

    let grafana = only(&objects, "NetworkPolicy", "auth-grafana");
    assert_eq!(grafana["metadata"]["namespace"], "monitoring");
    assert_eq!(grafana["spec"]["podSelector"]["matchLabels"], app("grafana"));
    let expected = vec![
        (json!(NAMESPACE), component("grafana-gateway"), vec![3000]),
        (Value::Null, app("prometheus"), vec![3000]),
    ];
    assert_eq!(peers(grafana), expected);

    for (backend, namespace, port, others) in
        [("mimir", "mimir", 8080, 0), ("loki", "loki", 3100, 1), ("tempo", NAMESPACE, 3200, 0)]
    {
        let policy = only(&objects, "NetworkPolicy", &format!("auth-backend-{backend}"));
        assert_eq!(policy["metadata"]["namespace"], namespace);
        assert_eq!(policy["spec"]["podSelector"]["matchLabels"], app(backend));
        let peers = peers(policy);
        assert_eq!(peers[0], (json!(NAMESPACE), component("gateway"), vec![port]));
        assert_eq!(peers[1], (Value::Null, app(backend), Vec::new()));
        assert_eq!(peers.len(), 2 + others);
    }
    // The pods that they name are those that there are.
    let pods = pods(&objects);
    for name in ["gateway", "grafana-gateway"] {
        let found = pods.iter().filter(|pod| selects(&component(name), &pod["metadata"]["labels"]));
        assert_eq!(found.count(), 1);
    }
}

/// Alerts and dashboard are those of `deploy/`, and promtool takes the alerts.
#[test]
fn alerts_and_dashboard_have_one_source() {
    let objects = rendered("everything-values.yaml");
    let rules = fs::read_to_string(repository("deploy/alerts/tenantauth.rules.yml")).unwrap();
    let moved = rules.replace(
        "https://runbooks.example.com/tenantauth/runbook.md",
        "https://wiki.example.org/tenantauth/runbook.md",
    );
    assert_ne!(rules, moved);
    let spec = &only(&objects, "PrometheusRule", "")["spec"];
    assert_eq!(*spec, yaml::kubernetes(&moved)[0]);
    let workspace = Workspace::new();
    let file = workspace.write("rules.yml", serde_json::to_vec(spec).unwrap());
    let output = Command::new("promtool").args(["check", "rules"]).arg(file).output().expect("promtool");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let dashboard = fs::read_to_string(repository("deploy/grafana/tenantauth.json")).unwrap();
    let shown = only(&objects, "ConfigMap", "-dashboard");
    let shown: Value = serde_json::from_str(shown["data"]["tenantauth.json"].as_str().unwrap()).unwrap();
    assert_eq!(shown, serde_json::from_str::<Value>(&dashboard).unwrap());
    assert_eq!(only(&objects, "ConfigMap", "-dashboard")["metadata"]["labels"]["grafana_dashboard"], "1");
}

/// The package that people install holds the files that are links here, and renders the same.
#[test]
fn the_packaged_chart_is_the_same() {
    let workspace = Workspace::new();
    let output = run(&["package", CHART, "--destination", workspace.text()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let package = workspace.path("tenantauth-0.1.0.tgz");
    let values = repository(CHART).join("ci/everything-values.yaml");
    let arguments =
        ["--namespace", NAMESPACE, "--kube-version", "1.37.0", "--values", values.to_str().unwrap()];
    let output = run(&[&["template", "r", package.to_str().unwrap()], &arguments[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        yaml::kubernetes(&String::from_utf8(output.stdout).unwrap()),
        rendered("everything-values.yaml")
    );
}

#[test]
fn what_cannot_work_is_refused_with_a_word() {
    let cases: [(&[&str], &str); 12] = [
        (&["--set", "gateway.replicas=0"], "gateway/replicas"),
        (&["--set", "gatway.enabled=true"], "additional properties 'gatway' not allowed"),
        (&["--set", "gateway.mimirUrl=mimir:8080"], "gateway/mimirUrl"),
        (&["--set", "gateway.mimirUrl=http://mimir:8080/prometheus"], "gateway/mimirUrl"),
        (&["--set", "gateway.mimirUrl=,gateway.lokiUrl=,gateway.tempoUrl="], "give at least one of mimirUrl"),
        (&["--set", "policy.existingConfigMap="], "without a policy nobody is let in"),
        (&["--set", "clientIpKeys.existingSecret="], "it signs with the keys of clientIpKeys"),
        (&["--set", "clientIpKeys.value=short"], "clientIpKeys/value"),
        (&["--set", "grafanaGateway.loadBalancers={0.0.0.0/0}"], "grafanaGateway/loadBalancers/0"),
        (&["--set", "policy.owners.team-a.key=x"], "policy/owners/team-a"),
        (&["--set", "prometheusRule.enabled=true"], "the address at which your people read docs/runbook.md"),
        (&["--set", "prometheusRule.runbookUrl=docs/runbook.md"], "prometheusRule/runbookUrl"),
    ];
    for (arguments, word) in cases {
        let told = refusal(arguments);
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
}

/// Both are the crate's.
#[test]
fn the_chart_has_the_version_of_the_crate() {
    let chart = fs::read_to_string(repository(CHART).join("Chart.yaml")).unwrap();
    let chart = &yaml::kubernetes(&chart)[0];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!([&chart["version"], &chart["appVersion"]], [version; 2]);
}

/// What the page shows of values is rendered as it stands.
#[test]
fn the_values_of_the_page_can_be_rendered() {
    let page = fs::read_to_string(repository("docs/kubernetes.md")).unwrap();
    let blocks: Vec<&str> = page
        .split("```yaml\n# values.yaml of the chart\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 2);
    let mut kubernetes = Kubernetes::default();
    for block in blocks {
        let workspace = Workspace::new();
        let file = workspace.write("values.yaml", block);
        let objects = objects("tenantauth", &["--values", file.to_str().unwrap()]);
        for object in objects.iter().filter(|object| object["apiVersion"] != OPERATOR) {
            assert_eq!(kubernetes.problems(object), Vec::<String>::new());
        }
        // Names that the page gives to Services.
        only(&objects, "Service", "tenantauth-gateway");
        only(&objects, "Service", "tenantauth-grafana-gateway");
    }
}
