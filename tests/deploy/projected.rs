//! The volume that the chart projects, as the kubelet lays it out: the command line accepts it as the image's user, and
//! the real module takes each change of it.

use crate::helm::{objects, only, rendered, value_sets};
use crate::image;
use crate::kubelet::{Data, Mount, data_of};
use crate::support::client::{Answer, Request};
use crate::support::site::{POLICY, Site, directory_module};
use crate::support::tokens::token;
use crate::support::wait_for;
use crate::support::workspace::Workspace;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long a change may take to be in force everywhere.
const IN_FORCE: Duration = Duration::from_secs(5);

/// The pod and its volume of this name.
fn volume<'o>(workload: &'o Value, name: &str) -> (&'o Value, &'o Value) {
    let pod = &workload["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().unwrap();
    (pod, volumes.iter().find(|volume| volume["name"] == name).expect("the volume"))
}

/// Runs the command in the workspace, as the user of the image where we are root and can become that user.
pub(crate) fn tenantauth(workspace: &Workspace, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_tenantauth"));
    // A copy, since the image's user cannot reach every place a repository may lie in.
    let mut command = Command::new(workspace.program(program, "tenantauth"));
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(10101).gid(10101);
    }
    command.current_dir(workspace.path("")).args(arguments).output().unwrap()
}

#[test]
fn the_command_accepts_what_the_kubelet_mounts() {
    let objects = rendered("everything-values.yaml");
    let (pod, policy) = volume(only(&objects, "StatefulSet", "-gateway"), "policy");
    let mut data = data_of(&objects);
    data.insert("internal-ca".to_owned(), [("ca.pem".to_owned(), "of no concern\n".to_owned())].into());
    let workspace = Workspace::new();
    let mut mount = Mount::new(workspace.path("mount"), pod, policy, &data);
    let links = ["policy.yaml", "owners.d", "client-ip.keys", "ca.pem"];
    for link in links {
        let target = fs::read_link(mount.directory.join(link)).unwrap();
        assert_eq!(target, Path::new("..data").join(link));
    }
    for (command, says) in [("check", "valid, revision"), ("test", "2 tests, 2 passed, 0 failed")] {
        let output = tenantauth(&workspace, &[command, "mount"]);
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains(says), "{command}: {said}{complaint}");
        assert!(!complaint.contains("error"), "{complaint}");
    }

    // The cookie's keys are no one else's.
    let keys = fs::metadata(mount.directory.join("client-ip.keys")).unwrap();
    assert_eq!(keys.mode() & 0o777, 0o440);

    // A ConfigMap that was deleted keeps no pod from starting; an owner's missing document is told.
    data.remove("auth-owner-team-a");
    mount.update(pod, policy, &data);
    let output = tenantauth(&workspace, &["check", "mount"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("owners.d/team-a.yaml"));
}

/// The stamp's pod holds the keys and nothing else.
#[test]
fn the_grafana_gateway_gets_the_keys_alone() {
    for set in ["everything-values.yaml", "grafana-gateway-values.yaml"] {
        let objects = rendered(set);
        let (pod, keys) = volume(only(&objects, "Deployment", "-grafana-gateway"), "keys");
        let mut data = data_of(&objects);
        let line = "docs:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".to_owned();
        data.entry("tenantauth-client-ip".to_owned()).or_default().insert("client-ip.keys".to_owned(), line);
        let workspace = Workspace::new();
        let mount = Mount::new(workspace.path("mount"), pod, keys, &data);
        let visible = fs::read_dir(&mount.directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut visible: Vec<String> = visible.map(|name| name.into_string().unwrap()).collect();
        visible.retain(|name| !name.starts_with(".."));
        assert_eq!(visible, ["client-ip.keys"]);
    }
}

/// A platform with two owners, whose documents are other people's ConfigMaps.
fn platform(site: &Site) -> String {
    let head = site.fill(POLICY);
    let head = head.split("grants:").next().unwrap().replace(", team-a]", "]");
    format!(
        "{head}owners:\n  team-a: {{ tenants: [team-a, 'team-a-*'] }}\n  Team_B: {{ tenants: [team-b] }}\n"
    )
}

fn document(group: &str, tenant: &str) -> String {
    format!("grants:\n  - {{ groups: [{group}], tenants: [{tenant}] }}\n")
}

fn put(data: &mut Data, name: &str, key: &str, text: &str) {
    data.entry(name.to_owned()).or_default().insert(key.to_owned(), text.to_owned());
}

#[test]
fn the_module_takes_every_flip_of_the_volume() {
    let objects = rendered("existing-configmaps-values.yaml");
    let (pod, policy) = volume(only(&objects, "Deployment", "tenantauth-gateway"), "policy");
    let site = Site::prepare(true);
    let mut data = Data::new();
    put(&mut data, "platform", "platform.yaml", &platform(&site));
    put(&mut data, "cookie-keys", "keys", &site.workspace.read("client-ip.keys"));
    put(&mut data, "tenantauth-team-a", "team-a.yaml", &document("team-a", "team-a"));
    put(&mut data, "tenantauth-team-b", "access.yaml", &document("team-b", "team-b"));
    let mut mount = Mount::new(site.workspace.path("policy"), pod, policy, &data);
    let site = Site::builder().module(&directory_module("")).workers(2).start_in(site);
    let ask = |group: &str, tenant: &str| -> Answer {
        let request = Request::get("/loki/api/v1/query").tenant(tenant).token(&token(&[group]));
        site.send(request)
    };
    let status = |group: &str, tenant: &str| ask(group, tenant).status;
    assert_eq!([status("team-a", "team-a"), status("team-b", "team-b")], [200; 2]);
    assert_eq!(ask("team-a", "team-a-dev").reason(), "tenant_forbidden");

    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let changed = Instant::now();
        // Several in a row, so that each worker has answered.
        wait_for(what, 10, || (0..8).all(|_| done()).then_some(()));
        assert!(changed.elapsed() < IN_FORCE, "{what}: {:?}", changed.elapsed());
    };
    put(&mut data, "tenantauth-team-a", "team-a.yaml", &document("team-a", "team-a-dev"));
    mount.update(pod, policy, &data);
    wait("the owner's change", &|| {
        status("team-a", "team-a-dev") == 200 && status("team-a", "team-a") == 403
    });
    assert_eq!(status("team-b", "team-b"), 200);

    // Deleted: broken for its owner, who keeps what was good; others change as they like.
    site.expect_errors();
    data.remove("tenantauth-team-a");
    put(&mut data, "tenantauth-team-b", "access.yaml", "{}\n");
    mount.update(pod, policy, &data);
    wait("the other owner's change", &|| status("team-b", "team-b") == 403);
    assert_eq!(status("team-a", "team-a-dev"), 200);
    let told = site.status().json();
    let state = |name: &str| {
        told["owners"].as_array().unwrap().iter().find(|owner| owner["name"] == name).unwrap()["state"]
            .clone()
    };
    assert_eq!([state("team-a"), state("Team_B")], ["last_good", "current"]);
}

/// The container of a rendered workload, what it is asked by its probes, and the port that each asks.
fn probes(workload: &Value) -> (&Value, [(String, String); 2]) {
    let container = &workload["spec"]["template"]["spec"]["containers"][0];
    let asked = ["livenessProbe", "readinessProbe"].map(|probe| {
        let asked = &container[probe]["httpGet"];
        (asked["path"].as_str().unwrap().to_owned(), asked["port"].as_str().unwrap().to_owned())
    });
    (container, asked)
}

/// What the kubelet would do to a pod: whether it restarts it, and whether it sends requests there.
#[test]
fn the_probes_ask_the_right_questions() {
    let objects = rendered("minimal-values.yaml");
    let (container, probes) = probes(only(&objects, "Deployment", "tenantauth-gateway"));
    let site = Site::prepare(true);
    site.write("policy/policy.yaml", "version: 1\nissuers: [\n");
    let site = image::start(site, &image::of_container(container));
    site.expect_errors();
    let ask = || {
        probes.each_ref().map(|(path, port)| {
            assert_eq!(port, "admin");
            Request::get(path).send(site.port("admin")).status
        })
    };
    // Without any policy it is left alone, and gets nobody.
    assert_eq!(ask(), [200, 503]);
    site.write("policy/policy.yaml", POLICY);
    wait_for("a pod that is ready", 10, || (ask() == [200, 200]).then_some(()));
    let request = || Request::get("/loki/api/v1/query").tenant("tenant1").token(&token(&["group1"]));
    assert_eq!(request().send(site.port("loki")).status, 200);
    assert_eq!(site.upstream_of("loki").only().target(), "/loki/api/v1/query");
    // With a broken one after a good one it serves on.
    site.write("policy/policy.yaml", "version: 1\nissuers: [\n");
    site.wait_for_log("stays in force");
    assert_eq!(ask(), [200, 200]);
    assert_eq!(request().send(site.port("loki")).status, 200);
}

#[test]
fn the_grafana_gateway_is_ready_while_it_can_stamp() {
    let objects = rendered("grafana-gateway-values.yaml");
    let (container, [(alive, admin), (ready, http)]) =
        probes(only(&objects, "Deployment", "tenantauth-grafana-gateway"));
    assert_eq!([&*admin, &*http], ["admin", "http"]);
    let site = Site::prepare(true);
    let keys = site.workspace.read("client-ip.keys");
    let site = image::start(site, &image::of_container(container));
    site.expect_errors();
    let ask = || {
        [(&alive, "admin"), (&ready, "grafana")]
            .map(|(path, port)| Request::get(path).send(site.port(port)).status)
    };
    assert_eq!(ask(), [200, 503]);
    site.write("policy/client-ip.keys", &keys);
    wait_for("a pod that is ready", 10, || (ask() == [200, 200]).then_some(()));
    let seen = site.upstream_of("grafana").take();
    assert!(seen.iter().all(|request| request.target() == "/api/health"));
    assert!(seen.last().unwrap().values("Cookie")[0].starts_with("Client_Ip=v1."));
}

/// `helm test` passes where everything serves, and says what does not.
#[test]
fn the_test_of_the_chart_sees_what_does_not_serve() {
    let objects = rendered("minimal-values.yaml");
    let gateway = only(&objects, "Deployment", "tenantauth-gateway");
    let site = Site::prepare(true);
    site.write("policy/policy.yaml", POLICY);
    let site = image::start(site, &image::of_container(probes(gateway).0));
    site.expect_errors();
    let pod = only(&objects, "Pod", "-test");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    let script = pod["spec"]["containers"][0]["args"][0].as_str().unwrap();
    let domain = "gateways.svc.cluster.local";
    // Grafana is here what answers 200 to everybody: the backend itself.
    let script = [
        (format!("r-tenantauth-gateway-admin.{domain} 9145"), site.port("admin")),
        (format!("r-tenantauth-gateway.{domain} 8082"), site.port("loki")),
        (format!("r-tenantauth-grafana-gateway.{domain} 80"), site.upstream_of("loki").port),
    ]
    .iter()
    .fold(script.to_owned(), |script, (address, port)| {
        assert_eq!(script.matches(address).count(), 1, "{script}");
        script.replace(address, &format!("127.0.0.1 {port}"))
    });
    let run = || {
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run();
    assert_eq!((code, said.matches("ok: ").count(), said.lines().count()), (Some(0), 3, 3), "{said}");
    // Behind it everybody is let in: what the test is for.
    let open = script.replace(
        &format!("127.0.0.1 {} /loki", site.port("loki")),
        &format!("127.0.0.1 {} /loki", site.upstream_of("loki").port),
    );
    let output = Command::new("bash").args(["-c", &open]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("failed: loki: denied without a token: 200"), "{said}");
    // Where nothing listens.
    drop(site);
    let (code, said) = run();
    assert_eq!((code, said.matches("failed: ").count()), (Some(1), 2), "{said}");
}

/// nginx takes what the entrypoint makes of each set of values.
#[test]
fn nginx_takes_the_environment_of_every_set() {
    let mut checked = 0;
    for (_, arguments) in value_sets() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for object in objects("r", &arguments) {
            if object["spec"]["template"].is_object() {
                image::assert_nginx_takes(&image::of_container(probes(&object).0));
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 6);
}
