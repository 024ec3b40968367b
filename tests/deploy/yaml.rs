//! YAML as Kubernetes and Docker Compose read it.

use crate::support::{python, repository};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// The documents of a text in YAML 1.1, as Kubernetes reads it: `0440` is octal, `on` is true.
pub(crate) fn kubernetes(text: &str) -> Vec<Value> {
    documents("1.1", text)
}

/// The documents of a text in YAML 1.2, as Docker Compose, Grafana and tenantauth read it.
pub(crate) fn modern(text: &str) -> Vec<Value> {
    documents("1.2", text)
}

/// The documents of a text in `version` of YAML.
fn documents(version: &str, text: &str) -> Vec<Value> {
    let mut command = Command::new(python());
    command.arg(repository("tests/yaml_to_json.py")).arg(version);
    let mut reader = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "not YAML {version}:\n{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}
