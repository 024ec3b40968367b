//! The chart, rendered by helm itself.

use crate::support::repository;
use crate::support::workspace::Workspace;
use crate::yaml;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

pub(crate) const CHART: &str = "deploy/helm/tenantauth";
/// Where the release of these tests lives.
pub(crate) const NAMESPACE: &str = "gateways";

/// The helm of the tests: `HELM`, or that of `make setup-test`.
fn command(workspace: &Workspace) -> Command {
    let given = std::env::var_os("HELM").map(PathBuf::from);
    let helm = given.unwrap_or_else(|| repository("target/venv/bin/helm"));
    assert!(helm.exists(), "no helm at {}: run `make setup-test`, or set HELM", helm.display());
    let mut command = Command::new(helm);
    // Nothing of the user's own helm takes part.
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, workspace.path("helm"));
    }
    command
}

/// Runs helm with these arguments.
pub(crate) fn run(arguments: &[&str]) -> Output {
    command(&Workspace::new()).args(arguments).current_dir(repository("")).output().expect("helm")
}

/// What `helm template` says of a release with these arguments behind it.
pub(crate) fn template(release: &str, arguments: &[&str]) -> Output {
    let head = ["template", release, CHART, "--namespace", NAMESPACE, "--kube-version", "1.37.0"];
    run(&[&head[..], arguments].concat())
}

/// The objects of a release.
///
/// # Panics
/// With what helm says, where it refuses.
pub(crate) fn objects(release: &str, arguments: &[&str]) -> Vec<Value> {
    let output = template(release, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    yaml::kubernetes(&String::from_utf8(output.stdout).unwrap())
}

/// What helm says where it refuses.
pub(crate) fn refusal(arguments: &[&str]) -> String {
    let output = template("r", arguments);
    assert!(!output.status.success(), "{arguments:?} were accepted");
    String::from_utf8(output.stderr).unwrap()
}

/// The sets of values that are rendered: each file of `ci/`. Names and arguments.
pub(crate) fn value_sets() -> Vec<(String, Vec<String>)> {
    let files = fs::read_dir(repository(CHART).join("ci")).unwrap();
    let mut sets: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, vec!["--values".to_owned(), path.to_str().unwrap().to_owned()])
        })
        .collect();
    sets.sort();
    sets
}

/// The objects of a release `tenantauth` with these values over the least that the chart needs.
pub(crate) fn with_values(text: &str) -> Vec<Value> {
    let workspace = Workspace::new();
    let least = repository(CHART).join("ci/minimal-values.yaml");
    let file = workspace.write("values.yaml", text);
    objects("tenantauth", &["--values", least.to_str().unwrap(), "--values", file.to_str().unwrap()])
}

/// The objects of one set of values, by the name of its file.
pub(crate) fn rendered(set: &str) -> Vec<Value> {
    let sets = value_sets();
    let (_, arguments) = sets.iter().find(|(name, _)| name == set).expect("a set of values");
    objects("r", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The objects of one kind.
pub(crate) fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The one object of a kind whose name ends so.
///
/// # Panics
/// Where there is none, or more than one.
pub(crate) fn only<'o>(objects: &'o [Value], kind: &str, ending: &str) -> &'o Value {
    let found: Vec<_> = of_kind(objects, kind)
        .into_iter()
        .filter(|object| object["metadata"]["name"].as_str().unwrap().ends_with(ending))
        .collect();
    assert_eq!(found.len(), 1, "{kind} {ending}");
    found[0]
}
