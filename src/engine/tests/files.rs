//! How policies lie on disks: replaced by rename, linked as Kubernetes does, in directories, and where no file is.

use super::*;
use std::os::unix::fs::symlink;
use std::process::Command;

fn refused_with(site: &Site, part: &str) {
    let mut seen = Vec::new();
    let started = Instant::now();
    while !seen.iter().any(|text: &String| text.contains(part)) {
        assert!(started.elapsed() < PROMISED, "{part} not in {seen:?}");
        seen.extend(site.errors());
        thread::sleep(Duration::from_millis(20));
    }
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_file_replaced_by_rename_is_taken() {
    let site = Site::start(TAIL);
    let before = site.engine.revision();
    site.scratch.write("policy.yaml.new", &policy("grants: []\n"));
    fs::rename(site.scratch.path("policy.yaml.new"), site.scratch.path("policy.yaml")).unwrap();
    site.wait_for("the policy", |site| site.engine.revision() != before);
}

#[test]
fn a_directory_holds_its_policy() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("conf")).unwrap();
    let site = Site::start_in(scratch, "conf");
    refused_with(&site, "conf/policy.yaml:1:1: cannot read the policy: no such file");
    // What the document names lies beside it.
    fs::copy(site.scratch.path("jwks.json"), site.scratch.path("conf/jwks.json")).unwrap();
    site.scratch.write("conf/policy.yaml", &policy(TAIL));
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    assert_eq!(site.reason(&query(&signed("r", &claims()))), Reason::Granted);
}

#[test]
fn a_config_map_is_followed_when_its_data_flips() {
    // Kubernetes: policy.yaml -> ..data/policy.yaml, ..data -> ..2027_01, which is replaced by a rename of a link.
    let scratch = Scratch::new();
    let mount = scratch.path("mount");
    let version = |name: &str, tail: &str, keys: &[(&str, Algorithm)]| {
        fs::create_dir_all(mount.join(name)).unwrap();
        fs::write(mount.join(name).join("policy.yaml"), policy(tail)).unwrap();
        fs::write(mount.join(name).join("jwks.json"), key_set(keys)).unwrap();
    };
    let both = [("r", Algorithm::Rs256), ("e", Algorithm::Es256)];
    version("..1", TAIL, &both);
    symlink("..1", mount.join("..data")).unwrap();
    for name in ["policy.yaml", "jwks.json"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let site = Site::start_in(scratch, "mount");
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    let good = signed("r", &claims());
    assert_eq!(site.reason(&query(&good)), Reason::Granted);
    let mount = site.scratch.path("mount");
    let flip = |to: &str| {
        symlink(to, mount.join("..tmp")).unwrap();
        fs::rename(mount.join("..tmp"), mount.join("..data")).unwrap();
    };
    fs::create_dir(mount.join("..2")).unwrap();
    fs::write(mount.join("..2/policy.yaml"), policy(&TAIL.replace("[a]", "[z]"))).unwrap();
    fs::write(mount.join("..2/jwks.json"), key_set(&both)).unwrap();
    flip("..2");
    fs::remove_dir_all(mount.join("..1")).unwrap();
    site.wait_for_reason(&query(&good), Reason::TenantForbidden);
}

#[test]
fn a_directory_may_not_be_led_out_of() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("conf")).unwrap();
    scratch.write("policy.yaml", &policy(TAIL));
    symlink("../policy.yaml", scratch.path("conf/policy.yaml")).unwrap();
    let site = Site::start_in(scratch, "conf");
    refused_with(&site, "it leads out of the directory");
    assert_eq!(site.engine.readiness(), Readiness::NoPolicy);
}

#[test]
fn what_is_no_file_is_refused_and_nobody_hangs() {
    // As the policy, and as what it names; a FIFO without a writer would block its reader for ever.
    let scratch = Scratch::new();
    make_fifo(&scratch.path("policy.yaml"));
    let site = Site::start_in(scratch, "policy.yaml");
    refused_with(&site, "policy.yaml:1:1: cannot read the policy: not a regular file");
    assert_eq!(site.engine.readiness(), Readiness::NoPolicy);
    fs::remove_file(site.scratch.path("policy.yaml")).unwrap();
    site.scratch.write("policy.yaml", &policy(TAIL));
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);

    fs::remove_file(site.scratch.path("jwks.json")).unwrap();
    make_fifo(&site.scratch.path("jwks.json"));
    refused_with(&site, "issuers[0].jwks_file: cannot read `jwks.json`: not a regular file");
    fs::remove_file(site.scratch.path("jwks.json")).unwrap();
    fs::create_dir(site.scratch.path("jwks.json")).unwrap();
    site.let_it_look();
    assert_eq!(site.reason(&query(&signed("r", &claims()))), Reason::Granted);

    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("conf/policy.yaml")).unwrap();
    let site = Site::start_in(scratch, "conf");
    refused_with(&site, "conf/policy.yaml:1:1: cannot read the policy: not a regular file");
}

#[test]
fn files_are_named_from_where_the_policy_lies() {
    // Two files of one name, and a directory that is called like the one above it.
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("conf/conf/x")).unwrap();
    let keys = key_set(&[("r", Algorithm::Rs256)]);
    scratch.write("conf/conf/x/keys", &keys);
    scratch.write("conf/keys", &format!("k1:{SECRET}\n"));
    let tail =
        format!("client_ip: {{ keys_file: keys }}\n{TAIL}restrictions: [{{ networks: [192.0.2.1] }}]\n");
    scratch.write("conf/policy.yaml", &policy(&tail).replace("jwks.json", "conf/x/keys"));
    let site = Site::start_in(scratch, "conf/policy.yaml");
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    let cookie = stamp(&format!("k1:{SECRET}\n"), "192.0.2.1", unix_now() + 300);
    let good = signed("r", &claims());
    let request = Query { cookies: Some(cookie.as_bytes()), ..query(&good) };
    assert_eq!(site.reason(&request), Reason::Granted);

    let bundle = site.last_good();
    let bundle = crate::policy::store::Bundle::from_bytes(&bundle).unwrap();
    assert_eq!(
        bundle.to_bytes(),
        crate::policy::store::Bundle::from_bytes(&bundle.to_bytes()).unwrap().to_bytes()
    );
    let again = bundle.compile(unix_now());
    assert!(again.compiled.is_some(), "{:?}", again.diagnostics);
}
