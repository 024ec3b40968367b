//! What only a built image can show; `make image-test` runs it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "everything here is a test"
)]

#[allow(dead_code, reason = "the other tests of the image use all of it")]
mod container;
#[path = "../support/mod.rs"]
mod support;

use container::{Room, config};

#[test]
fn the_image_is_as_it_says() {
    let config = config().expect("TENANTAUTH_IMAGE_ROOT");
    let room = Room::new();
    let run = |script: &str| {
        let output = room.run(&[], &["sh", "-c", script]);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(run("id -u; id -g"), (0, "10101\n10101\n".to_owned()));
    assert_eq!(
        run("for tool in cc gcc c++ ld as make cargo rustc; do command -v $tool; done; true"),
        (0, String::new())
    );
    for place in ["/", "/etc", "/usr/local/lib/tenantauth", "/etc/tenantauth", "/tmp"] {
        assert_ne!(run(&format!("touch {place}/x 2>/dev/null")).0, 0, "{place} can be written");
    }
    for place in ["/run/tenantauth", "/var/lib/tenantauth"] {
        assert_eq!(run(&format!("touch {place}/x")).0, 0, "{place} cannot be written");
    }
    let labels = &config["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
    assert!(labels["org.opencontainers.image.description"].as_str().unwrap().len() > 20);
    assert_eq!(config["StopSignal"], "SIGQUIT");
    let mut ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    ports.sort_unstable();
    assert_eq!(ports, ["8080/tcp", "8081/tcp", "8082/tcp", "8083/tcp", "9145/tcp"]);
}
