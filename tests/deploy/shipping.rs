//! The shippers' files for Kubernetes speak of the pods that the chart makes. No shipper runs here.

use crate::helm::{NAMESPACE, objects, only};
use crate::support::repository;
use crate::yaml;
use serde_json::{Value, json};
use std::fs;

fn text(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap()
}

/// A pod of the gateway, and the name of its container.
fn gateway() -> (Value, String) {
    let objects = objects("tenantauth", &["--set", "gateway.lokiUrl=http://loki:3100"]);
    let pod = only(&objects, "Deployment", "tenantauth-gateway")["spec"]["template"].clone();
    let name = pod["spec"]["containers"][0]["name"].as_str().unwrap().to_owned();
    (pod, name)
}

#[test]
fn fluent_bit_reads_the_container_of_the_gateway() {
    let file = &yaml::modern(&text("deploy/fluent-bit/kubernetes.yaml"))[0];
    let (_, container) = gateway();
    let input = &file["pipeline"]["inputs"][0];
    // The kubelet's links: <pod>_<namespace>_<container>-<id>.log
    assert_eq!(input["path"], format!("/var/log/containers/*_{NAMESPACE}_{container}-*.log"));
    assert_eq!(input["multiline.parser"], "cri");
    assert_eq!(
        file["pipeline"]["filters"],
        json!([
            {"name": "grep", "match": input["tag"], "regex": "stream ^stdout$"}
        ])
    );
    // Where it goes is as with a file of nginx's own.
    let beside = &yaml::modern(&text("deploy/fluent-bit/s3.yaml"))[0];
    assert_eq!(file["pipeline"]["outputs"], beside["pipeline"]["outputs"]);
    for key in ["db", "read_from_head", "rotate_wait", "buffer_chunk_size", "buffer_max_size", "storage.type"]
    {
        assert_eq!(input[key], beside["pipeline"]["inputs"][0][key], "{key}");
    }
}

#[test]
fn alloy_selects_the_pods_of_the_gateway() {
    let file = text("deploy/alloy/kubernetes.alloy");
    let value = |key: &str| -> Vec<String> {
        let lines = file.lines().filter_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix("= "));
        lines.map(str::to_owned).collect()
    };
    let (pod, container) = gateway();
    let label = value("label");
    for pair in label[0].trim_matches('"').split(',') {
        let (key, value) = pair.split_once('=').unwrap();
        assert_eq!(pod["metadata"]["labels"][key], value);
    }
    assert_eq!(value("names"), [format!("[\"{NAMESPACE}\"]")]);
    assert_eq!(value("regex"), [format!("\"{container}\"")]);
    assert!(file.contains("selector            = \"{stream=\\\"stderr\\\"}\""));
    // The same job and labels as those of a file, which the dashboard asks for.
    let beside = text("deploy/alloy/audit.alloy");
    assert!(
        beside.contains("job = \"tenantauth-audit\"") && value("replacement")[1] == "\"tenantauth-audit\""
    );
    for stage in ["stage.json {", "stage.timestamp {", "stage.labels {"] {
        let block = |file: &str| file.split(stage).nth(1).unwrap().split('}').next().unwrap().to_owned();
        assert_eq!(block(&file), block(&beside));
    }
    assert_eq!(file.matches('{').count(), file.matches('}').count());
}
