//! `tenantauth keygen`.

use super::{POLICY, Room, account};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use tenantauth::client_ip::signature::KeyRing;
use tenantauth::token::digest::sha256_hex;

#[test]
fn keygen_makes_keys_and_tokens() {
    let room = Room::new();
    let (first, second) = (room.run(&["keygen"]), room.run(&["keygen"]));
    assert_eq!((first.status, &*first.err, first.out.lines().count()), (0, "", 1));
    let both = KeyRing::parse(format!("{}{}", first.out, second.out).as_bytes()).unwrap();
    assert_eq!(both.ids().count(), 2, "two keys have two ids");
    let key = room.run(&["keygen", "--format", "json"]).json();
    let ring = KeyRing::parse(key["line"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(ring.ids().collect::<Vec<_>>(), [key["key_id"].as_str().unwrap()]);

    let is_token = |token: &str| {
        let random = token.strip_prefix("tas_").unwrap();
        assert_eq!((random.len(), URL_SAFE_NO_PAD.decode(random).unwrap().len()), (43, 32));
    };
    let made = room.run(&["keygen", "--service-account", "--format", "json"]).json();
    is_token(made["token"].as_str().unwrap());
    assert_eq!(made["sha256"], sha256_hex(made["token"].as_str().unwrap().as_bytes()));
    let human = room.run(&["keygen", "--service-account"]).out;
    let (token, rest) = human.split_once('\n').unwrap();
    is_token(token.strip_prefix("token: ").unwrap());
    let digest = sha256_hex(token.strip_prefix("token: ").unwrap().as_bytes());
    assert!(rest.starts_with(&format!("sha256: {digest}\n\n")), "{human}");
    // What is printed for the policy is good as it is.
    let (_, entry) = rest.split_once("under a name of yours:\n\n").unwrap();
    room.write(
        "policy.yaml",
        &(POLICY.replace("grants:", "grants:\n  - { groups: ['service:my-agent'], tenants: [n] }") + entry),
    );
    room.explain_with("--token - --tenant n --scope logs:read", token.strip_prefix("token: ").unwrap())
        .says(0, &["subject: my-agent\n", "allow (granted)"]);
}

#[test]
fn keygen_writes_files_that_only_the_group_can_read() {
    let room = Room::new();
    let mine = fs::metadata(room.path("policy.yaml")).unwrap();
    // Only root can give a file away; everybody else can name the group they have.
    let gid = |fields: &[&str]| fields.get(2)?.parse::<u32>().ok();
    let wanted = |fields: &[&str]| {
        gid(fields).is_some_and(|gid| if mine.uid() == 0 { gid != mine.gid() } else { gid == mine.gid() })
    };
    let group = account("/etc/group", wanted).unwrap();
    let is_private = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid().to_string()), (0o640, group[2].clone()));
    };

    let run = room.run(&["keygen", "--out", "new.keys", "--group", &group[0]]);
    let content = fs::read(room.path("new.keys")).unwrap();
    let id = KeyRing::parse(&content).unwrap().ids().next().unwrap().to_owned();
    run.says(0, &[&format!("key id: {id}\n"), "written to: new.keys\n"]);
    let secret = std::str::from_utf8(&content).unwrap().trim().split_once(':').unwrap().1;
    assert!(!run.out.contains(secret));
    is_private(&room.path("new.keys"));

    let run = room.run(&[
        "keygen",
        "--service-account",
        "--out",
        "token",
        "--group",
        &group[0],
        "--format",
        "json",
    ]);
    let token = fs::read_to_string(room.path("token")).unwrap();
    assert_eq!(run.json(), json!({"token": null, "sha256": sha256_hex(token.as_bytes()), "file": "token"}));
    // Whoever checks the file with the usual tool finds what the policy holds.
    let sum = Command::new("sha256sum").arg("token").current_dir(&room.0).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(sum.split(' ').next(), run.json()["sha256"].as_str());
    let run = room.run(&["keygen", "--service-account", "--out", "other"]);
    run.says(
        0,
        &[
            "\nwritten to: other (without a line feed: `sha256sum` of it prints the same)\n",
            "\nservice_accounts:\n",
        ],
    );
    assert!(!run.out.contains(&fs::read_to_string(room.path("other")).unwrap()));
    is_private(&room.path("token"));

    // Whatever the umask is.
    for (umask, name) in [("0", "open.keys"), ("077", "closed.keys")] {
        let script = format!("umask {umask}; exec \"$0\" keygen --out {name}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_tenantauth")]).current_dir(&room.0);
        assert!(shell.output().unwrap().status.success());
        assert_eq!(fs::metadata(room.path(name)).unwrap().mode() & 0o7777, 0o640);
    }
}

#[test]
fn keygen_never_overwrites() {
    let room = Room::new();
    room.write("old.keys", "precious");
    symlink("elsewhere", room.path("dangling.keys")).unwrap();
    for name in ["old.keys", "dangling.keys"] {
        room.run(&["keygen", "--out", name])
            .complains(1, &format!("`{name}` exists already and is never overwritten"));
    }
    assert_eq!(fs::read_to_string(room.path("old.keys")).unwrap(), "precious");
    assert!(!room.path("elsewhere").exists());
    room.run(&["keygen", "--out", "new.keys", "--group", "no-such-group"])
        .complains(1, "no group `no-such-group`");
    assert!(!room.path("new.keys").exists());
    room.run(&["keygen", "--out", "no/such/directory"]).complains(1, "cannot create `no/such/directory`");
}
