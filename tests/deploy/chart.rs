//! The chart with several sets of values: valid for Kubernetes, and of one piece.

use crate::helm::{
    CHART, NAMESPACE, objects, of_kind, only, refusal, rendered, run, value_sets, with_values,
};
use crate::schemas::{Kubernetes, is_of_kubernetes, problems_of_operator};
use crate::support::repository;
use crate::support::workspace::Workspace;
use crate::yaml;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

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
            "everything-values.yaml",
            "existing-configmaps-values.yaml",
            "grafana-gateway-values.yaml",
            "minimal-values.yaml"
        ]
    );
    for (name, arguments) in &sets {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // As long as a name of a release may be.
        let long = "a".repeat(53);
        for release in ["r", &long] {
            let objects = objects(release, &arguments);
            let (plain, operator): (Vec<&Value>, Vec<&Value>) =
                objects.iter().partition(|object| is_of_kubernetes(object));
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
        "HTTPRoute",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "Pod",
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
    let mut broken = only(&objects, "HTTPRoute", "").clone();
    broken["spec"]["rules"][0]["match"] = json!([]);
    broken["spec"]["hostnames"] = json!("grafana.example.org");
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
            // The first is ours; more of them are the values'.
            let containers = spec["containers"].as_array().unwrap();
            let container = &containers[0];
            let more = if (name.as_str(), container["name"].as_str())
                == ("everything-values.yaml", Some("gateway"))
            {
                vec!["audit"]
            } else {
                Vec::new()
            };
            let names: Vec<&str> =
                containers[1..].iter().map(|container| container["name"].as_str().unwrap()).collect();
            assert_eq!((names, spec.get("initContainers").is_some()), (more.clone(), !more.is_empty()));
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
            let extra = if more.is_empty() { &[][..] } else { &["/var/log/tenantauth"] };
            assert_eq!(writable, [state, &["/run/tenantauth", "/tmp"], extra].concat());
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
        // Whoever is scaled has no number of replicas of its own: each upgrade would set it back.
        for scaler in of_kind(&objects, "HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            let workload = only(&objects, target["kind"].as_str().unwrap(), target["name"].as_str().unwrap());
            assert_eq!(workload["spec"].get("replicas"), None);
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

/// What pods of a component are selected by.
fn component(of: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "tenantauth",
        "app.kubernetes.io/instance": "r",
        "app.kubernetes.io/component": of,
    })
}

/// Who a policy lets in, as (namespace, labels, ports).
fn peers(policy: &Value) -> Vec<(Value, Value, Vec<Value>)> {
    let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
    let of_rule = |rule: &Value| {
        let ports = rule["ports"].as_array().cloned().unwrap_or_default();
        let ports: Vec<Value> = ports.iter().map(|port| port["port"].clone()).collect();
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
    let gateway = only(&objects, "NetworkPolicy", "auth-gateway");
    assert_eq!(gateway["spec"]["podSelector"]["matchLabels"], component("gateway"));
    let numbers = |ports: &[u64]| ports.iter().map(|port| json!(port)).collect::<Vec<Value>>();
    let backends = numbers(&[8082, 8081, 8084, 8083]);
    let expected = vec![
        (json!("monitoring"), app("grafana"), backends.clone()),
        (json!("monitoring"), app("alloy"), backends.clone()),
        (Value::Null, component("test"), [&backends[..], &numbers(&[9145])].concat()),
        (Value::Null, app("prometheus"), numbers(&[9145])),
    ];
    assert_eq!(peers(gateway), expected);

    let grafana = only(&objects, "NetworkPolicy", "auth-grafana");
    assert_eq!(grafana["metadata"]["namespace"], "monitoring");
    assert_eq!(grafana["spec"]["podSelector"]["matchLabels"], app("grafana"));
    let expected = vec![
        (json!(NAMESPACE), component("grafana-gateway"), numbers(&[3000])),
        (Value::Null, app("prometheus"), numbers(&[3000])),
        (Value::Null, app("grafana"), Vec::new()),
    ];
    assert_eq!(peers(grafana), expected);

    for (backend, namespace, ports, others) in [
        ("mimir", "mimir", vec![json!("http-metrics")], 0),
        ("loki", "loki", numbers(&[8080, 3100]), 1),
        ("tempo", NAMESPACE, numbers(&[3200, 4318]), 0),
    ] {
        let policy = only(&objects, "NetworkPolicy", &format!("auth-backend-{backend}"));
        assert_eq!(policy["metadata"]["namespace"], namespace);
        assert_eq!(policy["spec"]["podSelector"]["matchLabels"], app(backend));
        let peers = peers(policy);
        assert_eq!(peers[0], (json!(NAMESPACE), component("gateway"), ports));
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

/// What the chart needs at least.
const LOKI: &str = "gateway.lokiUrl=http://loki:3100";

#[test]
fn what_cannot_work_is_refused_with_a_word() {
    let cases: [(&[&str], &str); 21] = [
        (&["--set", "gateway.replicas=0"], "gateway/replicas"),
        (&["--set", "gatway.enabled=true"], "additional properties 'gatway' not allowed"),
        (&["--set", "gateway.mimirUrl=mimir:8080"], "gateway/mimirUrl"),
        (&["--set", "gateway.mimirUrl=http://mimir:8080/prometheus"], "gateway/mimirUrl"),
        (&[], "give at least one of mimirUrl"),
        (
            &["--set", "gateway.tempoOtlpUrl=http://t:4318,gateway.lokiUrl=http://loki:3100"],
            "give tempoUrl too",
        ),
        (&["--set", LOKI, "--set", "policy.existingConfigMap="], "without a policy nobody is let in"),
        (&["--set", "image.digest=sha256:abc"], "image/digest"),
        // Pods are selected by it.
        (&["--set", r"commonLabels.app\.kubernetes\.io/component=x"], "'app.kubernetes.io/component'"),
        (&["--set", r"gateway.podLabels.app\.kubernetes\.io/name=x"], "'app.kubernetes.io/name'"),
        (
            &[
                "--set",
                LOKI,
                "--set",
                "gateway.autoscaling.enabled=true,gateway.autoscaling.targetCPUUtilizationPercentage=null",
            ],
            "give a target",
        ),
        (
            &["--set", LOKI, "--set", "grafanaGateway.ingress.enabled=true"],
            "the host at which people read Grafana",
        ),
        (&["--set", LOKI, "--set", "grafanaGateway.httpRoute.enabled=true"], "the Gateway that serves it"),
        (&["--set-json", r#"grafanaGateway.httpRoute.rules=[{"backendRefs":[]}]"#], "httpRoute/rules/0"),
        (
            &["--set-json", r#"networkPolicy.backends=[{"name":"a","podLabels":{"a":"b"},"port":1}]"#],
            "'ports'",
        ),
        (&["--set", LOKI, "--set", "clientIpKeys.existingSecret="], "it signs with the keys of clientIpKeys"),
        (&["--set", "clientIpKeys.value=short"], "clientIpKeys/value"),
        (&["--set", "grafanaGateway.loadBalancers={0.0.0.0/0}"], "grafanaGateway/loadBalancers/0"),
        (&["--set", "policy.owners.team-a.key=x"], "policy/owners/team-a"),
        (
            &["--set", LOKI, "--set", "prometheusRule.enabled=true"],
            "the address at which your people read docs/runbook.md",
        ),
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

/// What the pages show of values is rendered as it stands.
#[test]
fn the_values_of_the_page_can_be_rendered() {
    let pages =
        ["docs/kubernetes.md", "docs/audit.md"].map(|page| fs::read_to_string(repository(page)).unwrap());
    let pages = pages.concat();
    let blocks: Vec<&str> = pages
        .split("```yaml\n# values.yaml of the chart\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 4);
    let mut kubernetes = Kubernetes::default();
    for block in blocks {
        let objects = with_values(block);
        for object in objects.iter().filter(|object| is_of_kubernetes(object)) {
            assert_eq!(kubernetes.problems(object), Vec::<String>::new());
        }
        // Names that the page gives to Services.
        only(&objects, "Service", "tenantauth-gateway");
        only(&objects, "Service", "tenantauth-grafana-gateway");
    }
}

/// A backend without an address has no port anywhere.
#[test]
fn one_backend_is_one_port() {
    let objects = rendered("minimal-values.yaml");
    let names = |ports: &Value| -> Vec<String> {
        ports.as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap().to_owned()).collect()
    };
    let gateway = only(&objects, "Deployment", "tenantauth-gateway");
    let container = &gateway["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(names(&container["ports"]), ["loki", "admin"]);
    assert_eq!(names(&only(&objects, "Service", "tenantauth-gateway")["spec"]["ports"]), ["loki"]);
    let urls = container["env"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
    assert_eq!(urls.filter(|name| name.ends_with("_URL")).collect::<Vec<_>>(), ["LOKI_URL"]);
    let ports = &peers(only(&objects, "NetworkPolicy", "tenantauth-gateway"))[0].2;
    assert_eq!(ports, &[json!(8082)]);
}

/// Labels and annotations for everything are on everything, and never select.
#[test]
fn common_labels_and_annotations_are_everywhere() {
    let objects = rendered("everything-values.yaml");
    for object in objects.iter().filter(|object| object["metadata"]["name"] != "r-extra") {
        let place = format!("{} {}", object["kind"], object["metadata"]["name"]);
        let metadata = [&object["metadata"], &object["spec"]["template"]["metadata"]];
        for metadata in metadata.into_iter().filter(|metadata| metadata.is_object()) {
            assert_eq!(metadata["labels"]["example.org/team"], "platform", "{place}");
            assert_eq!(metadata["annotations"]["example.org/cost-center"], "4711", "{place}");
        }
        assert!(!object["spec"]["selector"].to_string().contains("example.org"), "{place}");
    }
    let gateway = only(&objects, "StatefulSet", "");
    let pod = &gateway["spec"]["template"];
    assert_eq!(gateway["metadata"]["annotations"]["example.org/reviewed"], "yes");
    assert_eq!(pod["metadata"]["labels"]["example.org/mesh"], "off");
    assert_eq!(pod["spec"]["priorityClassName"], "system-cluster-critical");
    assert_eq!(pod["spec"]["serviceAccountName"], only(&objects, "ServiceAccount", "")["metadata"]["name"]);
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
    assert!(image.starts_with("registry.example.org/tenantauth:0.1.0@sha256:"), "{image}");
    assert_eq!(pod["spec"]["containers"][1]["volumeMounts"][0]["mountPath"], "/audit/r");
}

/// Where the cluster chooses the users of pods, null takes the chart's away.
#[test]
fn the_security_context_can_be_the_clusters() {
    let null =
        ["runAsUser", "runAsGroup", "fsGroup"].map(|key| format!("podSecurityContext.{key}=null")).join(",");
    let objects = objects("r", &["--set", LOKI, "--set", &null]);
    for pod in pods(&objects) {
        let expected = json!({
            "runAsNonRoot": true,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        assert_eq!(pod["spec"]["securityContext"], expected);
    }
}

/// Every value has its line in the README, and every line its value.
#[test]
fn the_readme_lists_every_value() {
    let values = fs::read_to_string(repository(CHART).join("values.yaml")).unwrap();
    let values = &yaml::kubernetes(&values)[0];
    let readme = fs::read_to_string(repository(CHART).join("README.md")).unwrap();
    let mut listed: BTreeSet<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut missing = Vec::new();
    leaves(values, "", &mut |path| {
        // A line may stand for all that lies below it.
        let mut above = path;
        loop {
            if listed.contains(above) {
                return;
            }
            match above.rsplit_once('.') {
                Some((parent, _)) => above = parent,
                None => break,
            }
        }
        missing.push(path.to_owned());
    });
    assert_eq!(missing, Vec::<String>::new());
    listed.retain(|path| {
        let pointer = format!("/{}", path.replace('.', "/"));
        values.pointer(&pointer).is_none()
    });
    assert_eq!(listed, BTreeSet::new());
}

fn leaves(value: &Value, path: &str, found: &mut impl FnMut(&str)) {
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, &path, found);
            }
        }
        _ => found(path),
    }
}

/// The notes say what is closed and what is open, as the policies are.
#[test]
fn the_notes_say_what_is_closed() {
    let notes = |values: &str| {
        let values = format!("deploy/helm/tenantauth/ci/{values}");
        let head = ["install", "r", CHART, "--namespace", NAMESPACE, "--dry-run=client"];
        let output = run(&[&head[..], &["--values", &values]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        said.split("\nNOTES:\n").nth(1).expect("notes").to_owned()
    };
    let parts = |notes: &str| -> [String; 2] {
        let (closed, open) = notes.split_once("\nStill open:\n").unwrap();
        [closed.split("\nClosed by").nth(1).unwrap().to_owned(), open.to_owned()]
    };
    let least = notes("minimal-values.yaml");
    let [closed, open] = parts(&least);
    assert!(closed.contains("  the gateway ") && !closed.contains("  Grafana "), "{closed}");
    for what in ["  the Grafana Gateway ", "  Grafana  ", "  the backends "] {
        assert!(open.contains(what), "{open}");
    }
    assert!(least.contains("No load balancer is trusted") && !least.contains("Mimir"), "{least}");
    let [closed, open] = parts(&notes("everything-values.yaml"));
    for what in ["  the gateway ", "  the Grafana Gateway ", "  Grafana  ", "  mimir ", "  loki ", "  tempo "]
    {
        assert!(closed.contains(what), "{what}: {closed}");
    }
    assert!(!open.contains("Grafana"), "{open}");
}
