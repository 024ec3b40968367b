//! Schemas of what others read: Kubernetes' own, of the oldest and the newest version that the chart is for, and the
//! types of the Prometheus Operator and of the Gateway API.

use crate::support::{python, repository};
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The versions of Kubernetes whose schemas are asked.
const VERSIONS: [&str; 2] = ["v1.27.0", "v1.37.0"];

/// A file of a package that the tests' Python has.
pub(crate) fn packaged(path: &str) -> PathBuf {
    let lib = python().parent().unwrap().parent().unwrap().join("lib");
    let version = fs::read_dir(lib).unwrap().next().unwrap().unwrap().path();
    version.join("site-packages").join(path)
}

/// Reads what a schema of Kubernetes refers to: `_definitions.json` beside it.
struct Beside(PathBuf);

impl jsonschema::Retrieve for Beside {
    fn retrieve(&self, uri: &jsonschema::Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let name = uri.path().as_str().rsplit('/').next().unwrap_or_default().to_owned();
        Ok(serde_json::from_slice(&fs::read(self.0.join(name))?)?)
    }
}

/// The validators of kinds, made once each: they are large.
#[derive(Default)]
pub(crate) struct Kubernetes(BTreeMap<PathBuf, jsonschema::Validator>);

impl Kubernetes {
    /// What is wrong with an object, for each version of Kubernetes. Unknown keys are wrong.
    pub(crate) fn problems(&mut self, object: &Value) -> Vec<String> {
        let (kind, version) = (object["kind"].as_str().unwrap(), object["apiVersion"].as_str().unwrap());
        let name = match version.split_once('/') {
            None => format!("{kind}-{version}.json"),
            Some((group, version)) => format!("{kind}-{}-{version}.json", group.split('.').next().unwrap()),
        };
        let mut problems = Vec::new();
        for version in VERSIONS {
            let folder =
                packaged(&format!("kubernetes_validate/kubernetes-json-schema/{version}-local-strict"));
            let file = folder.join(name.to_lowercase());
            let validator = self.0.entry(file.clone()).or_insert_with(|| {
                let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                jsonschema::options()
                    .with_base_uri("json-schema:///kubernetes/")
                    .with_retriever(Beside(folder))
                    .build(&serde_json::from_slice(&text).unwrap())
                    .unwrap()
            });
            let place = |error: jsonschema::ValidationError<'_>| {
                format!("{version} {kind} {}: {error}", error.instance_path())
            };
            problems.extend(validator.iter_errors(object).map(place));
        }
        problems
    }
}

/// Whether an object is of Kubernetes itself, and not of the Prometheus Operator or the Gateway API.
pub(crate) fn is_of_kubernetes(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap();
    !["monitoring.coreos.com/", "gateway.networking.k8s.io/"].iter().any(|group| version.starts_with(group))
}

/// What is wrong with objects of the Prometheus Operator and of the Gateway API.
pub(crate) fn problems_of_operator(objects: &[&Value]) -> String {
    let mut node = Command::new("node")
        .arg(repository("tests/operator/validate.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node");
    let text = serde_json::to_vec(objects).unwrap();
    node.stdin.take().unwrap().write_all(&text).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator failed");
    String::from_utf8(output.stdout).unwrap()
}
