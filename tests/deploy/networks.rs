//! The network policies, evaluated as Kubernetes defines them, for pods as the charts of Grafana and the backends make
//! them: loki 18.11.0, tempo 2.2.4, tempo-distributed 3.3.0 and grafana 12.11.1 of the Grafana community, mimir-distributed
//! 6.1.

use crate::helm::{NAMESPACE, objects, of_kind, with_values};
use crate::support::repository;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// A pod: where it lives, and its labels.
#[derive(Clone)]
struct Pod {
    namespace: &'static str,
    labels: BTreeMap<&'static str, &'static str>,
}

/// A pod with the label that charts name their pods by.
fn pod(namespace: &'static str, name: &'static str) -> Pod {
    Pod { namespace, labels: [("app.kubernetes.io/name", name)].into() }
}

/// A pod of the release `tenantauth`.
fn ours(component: &'static str) -> Pod {
    let labels = [
        ("app.kubernetes.io/name", "tenantauth"),
        ("app.kubernetes.io/instance", "tenantauth"),
        ("app.kubernetes.io/component", component),
    ];
    Pod { namespace: NAMESPACE, labels: labels.into() }
}

/// Whether a selector, of labels alone, selects.
fn selects(selector: &Value, labels: &BTreeMap<&str, &str>) -> bool {
    let known = selector.as_object().unwrap().keys().all(|key| key == "matchLabels");
    assert!(known, "a selector of another kind: {selector}");
    let asked = selector["matchLabels"].as_object().into_iter().flatten();
    asked.into_iter().all(|(key, value)| labels.get(key.as_str()).copied() == value.as_str())
}

fn is_peer(peer: &Value, pod: &Pod, home: &str) -> bool {
    let namespace = match peer.get("namespaceSelector") {
        None => pod.namespace == home,
        Some(selector) => selects(selector, &[("kubernetes.io/metadata.name", pod.namespace)].into()),
    };
    namespace && peer.get("podSelector").is_none_or(|selector| selects(selector, &pod.labels))
}

/// Whether a connection gets through: to a pod that no policy selects everybody does, to others whom a rule lets in.
fn reaches(policies: &[&Value], from: &Pod, to: &Pod, protocol: &str, port: u64) -> bool {
    let selecting: Vec<&&Value> = policies
        .iter()
        .filter(|policy| policy["metadata"]["namespace"] == to.namespace)
        .filter(|policy| selects(&policy["spec"]["podSelector"], &to.labels))
        .collect();
    let admits = |rule: &Value, home: &str| {
        let from =
            rule["from"].as_array().is_none_or(|peers| peers.iter().any(|peer| is_peer(peer, from, home)));
        let at = rule["ports"].as_array().is_none_or(|ports| {
            ports
                .iter()
                .any(|one| one["port"] == port && one["protocol"].as_str().unwrap_or("TCP") == protocol)
        });
        from && at
    };
    selecting.is_empty()
        || selecting.iter().any(|policy| {
            let rules = policy["spec"]["ingress"].as_array().unwrap();
            rules.iter().any(|rule| admits(rule, to.namespace))
        })
}

/// The objects of the values that the page shows, by their order.
fn of_page(number: usize) -> Vec<Value> {
    let page = fs::read_to_string(repository("docs/kubernetes.md")).unwrap();
    let block =
        page.split("```yaml\n# values.yaml of the chart\n").nth(number + 1).expect("values of the page");
    with_values(block.split("```").next().unwrap())
}

/// An installation takes nothing away from anybody: Grafana has its ingress, renderer and scraper, its alerting gossips,
/// and the backends are reached as before.
#[test]
fn an_installation_cuts_nothing() {
    let minimal = objects("tenantauth", &["--set", "gateway.lokiUrl=http://loki:3100"]);
    for objects in [minimal, of_page(0)] {
        let policies = of_kind(&objects, "NetworkPolicy");
        assert!(!policies.is_empty());
        for namespace in [NAMESPACE, "monitoring"] {
            let grafana = pod(namespace, "grafana");
            for (from, protocol, port) in [
                (pod("ingress", "ingress-nginx"), "TCP", 3000),
                (pod(namespace, "grafana-image-renderer"), "TCP", 3000),
                (pod("monitoring", "prometheus"), "TCP", 3000),
                (grafana.clone(), "TCP", 9094),
                (grafana.clone(), "UDP", 9094),
                (ours("grafana-gateway"), "TCP", 3000),
            ] {
                assert!(reaches(&policies, &from, &grafana, protocol, port), "{protocol} {port}");
            }
            for backend in ["mimir", "loki", "tempo"] {
                assert!(reaches(&policies, &grafana, &pod(namespace, backend), "TCP", 8080));
            }
        }
        // What is new is closed from the beginning.
        assert!(!reaches(&policies, &pod("elsewhere", "curl"), &ours("gateway"), "TCP", 8082));
        assert!(!reaches(&policies, &pod("elsewhere", "curl"), &ours("gateway"), "TCP", 9145));
        assert!(reaches(&policies, &pod("monitoring", "prometheus"), &ours("gateway"), "TCP", 9145));
        assert!(reaches(&policies, &pod("ingress", "ingress-nginx"), &ours("grafana-gateway"), "TCP", 8080));
        for (to, port) in [("gateway", 8082), ("gateway", 9145), ("grafana-gateway", 8080)] {
            assert!(reaches(&policies, &ours("test"), &ours(to), "TCP", port), "helm test: {to} {port}");
        }
    }
    let objects = of_page(0);
    let policies = of_kind(&objects, "NetworkPolicy");
    for from in ["grafana", "alloy"] {
        for port in [8081, 8082, 8083] {
            assert!(
                reaches(&policies, &pod("monitoring", from), &ours("gateway"), "TCP", port),
                "{from} {port}"
            );
        }
    }
}

/// Closed as the page shows, the gateway still reaches each backend at the port of its pods, and nobody else does.
#[test]
fn closed_backends_are_open_to_the_gateway() {
    let objects = of_page(1);
    let policies = of_kind(&objects, "NetworkPolicy");
    let (stranger, grafana) = (pod("elsewhere", "curl"), pod("monitoring", "grafana"));
    for (backend, ports, own) in [
        ("mimir", &[8080][..], &[7946, 9095][..]),
        // Its gateway, and a single binary.
        ("loki", &[8080, 3100], &[7946, 9095, 3500]),
        // Questions and traces.
        ("tempo", &[3200, 4318], &[7946, 9095]),
    ] {
        let to = pod(backend, backend);
        for port in ports {
            assert!(reaches(&policies, &ours("gateway"), &to, "TCP", *port), "{backend} {port}");
        }
        for port in ports.iter().chain(own) {
            assert!(reaches(&policies, &to, &to, "TCP", *port), "{backend} itself {port}");
            assert!(reaches(&policies, &pod("monitoring", "prometheus"), &to, "TCP", *port));
            for from in [&stranger, &grafana, &ours("grafana-gateway"), &pod("elsewhere", backend)] {
                assert!(!reaches(&policies, from, &to, "TCP", *port), "{backend} {port}");
            }
        }
    }
    assert!(reaches(&policies, &pod("mimir", "rollout-operator"), &pod("mimir", "mimir"), "TCP", 8080));
    // Not of the gateway's business, and not selected.
    assert!(reaches(&policies, &pod("loki", "loki"), &pod("loki", "memcached-chunks-cache"), "TCP", 11211));
}

#[test]
fn a_protected_grafana_keeps_what_it_needs() {
    let objects = of_page(1);
    let policies = of_kind(&objects, "NetworkPolicy");
    let grafana = pod("monitoring", "grafana");
    for (from, protocol, port, passes) in [
        (ours("grafana-gateway"), "TCP", 3000, true),
        (grafana.clone(), "TCP", 9094, true),
        (grafana.clone(), "UDP", 9094, true),
        (pod("monitoring", "grafana-image-renderer"), "TCP", 3000, true),
        (pod("monitoring", "prometheus"), "TCP", 3000, true),
        (pod("ingress", "ingress-nginx"), "TCP", 3000, false),
        (pod("elsewhere", "grafana"), "UDP", 9094, false),
        (ours("gateway"), "TCP", 3000, false),
        (ours("test"), "TCP", 3000, false),
    ] {
        assert_eq!(reaches(&policies, &from, &grafana, protocol, port), passes, "{protocol} {port}");
    }
}
