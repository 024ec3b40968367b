//! The command line as its users meet it: the real binary, its output and its exit status.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod check;
mod diff;
mod doctor;
mod explain;
mod keygen;
mod keys;
mod owners;
mod replay;
mod start;
mod test;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const POLICY: &str = include_str!("../data/cli/policy.yaml");
const BROKEN: &str = include_str!("../data/cli/broken.yaml");
/// When the requests take place: after one of the policy's grants has expired.
const NOW: &str = "2026-06-01T12:00:00Z";
const NOW_UNIX: u64 = 1_780_315_200;

static KEY: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

/// A directory with the policy and the files it names, removed when dropped.
struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tenantauth-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Not $TMPDIR, which may be closed to other users: that is what one of the tests is about.
        let room = Self(Path::new("/tmp").join(name));
        fs::create_dir(&room.0).unwrap();
        room.set_mode("", 0o755);
        let x = URL_SAFE_NO_PAD.encode(KEY.public_key());
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x}]});
        room.write("jwks.json", &jwks.to_string());
        room.write("client-ip.keys", &format!("k1:{}\n", "A".repeat(43)));
        room.write("policy.yaml", POLICY);
        room.write("broken.yaml", BROKEN);
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        self.set_mode(name, 0o644);
    }

    /// Whatever the umask is.
    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs the command in the room.
    fn run(&self, args: &[&str]) -> Run {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tenantauth"))
            .args(args)
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads no input may have ended.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        Run {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Explains a request at [`NOW`].
    fn explain(&self, args: &str) -> Run {
        self.explain_with(args, "")
    }

    fn explain_with(&self, args: &str, stdin: &str) -> Run {
        let fixed = ["explain", "--policy", "policy.yaml", "--now", NOW];
        self.run_with(&[&fixed[..], &args.split_whitespace().collect::<Vec<_>>()].concat(), stdin)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.out, self.err))
    }

    /// The exit status, and that the text is part of stdout.
    #[track_caller]
    fn says(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.out.contains(part), "{part}\n---\n{}{}", self.out, self.err);
        }
    }

    /// The same of stderr, where nothing else is printed.
    #[track_caller]
    fn complains(&self, status: i32, part: &str) {
        assert_eq!((self.status, &*self.out), (status, ""), "{}", self.err);
        assert!(self.err.contains(part), "{part}\n---\n{}", self.err);
    }
}

/// The first line of a database of accounts of which `wanted` is true, split into its fields.
fn account(file: &str, wanted: impl Fn(&[&str]) -> bool) -> Option<Vec<String>> {
    let content = fs::read_to_string(file).unwrap();
    let lines = content.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines
        .filter(|fields| wanted(fields))
        .map(|fields| fields.iter().map(ToString::to_string).collect())
        .next()
}

#[test]
fn wrong_usage_is_1_and_help_is_0() {
    let room = Room::new();
    for (args, complaint) in [
        ("", "Usage: tenantauth"),
        ("chekc policy.yaml", "'check'"),
        ("check", "<POLICY>..."),
        ("check --format xml policy.yaml", "'xml'"),
        ("check --state-dir state policy.yaml", "--start"),
        ("explain --policy policy.yaml --tenant a --groups b", "--scope"),
        ("explain --policy policy.yaml --tenant a --scope logs:read", "--groups"),
        ("explain --policy policy.yaml --groups b --scope logs:read", "--tenant"),
        ("explain --policy policy.yaml --tenant a --groups b --scope logs:read --path /x", "--path"),
        ("explain --policy policy.yaml --tenant a --groups b --token t --scope logs:read", "--token"),
        ("explain --policy policy.yaml --tenant a --groups b --scope logs:raed", "'logs:read'"),
        ("explain --policy policy.yaml --tenant a --groups b --scope logs:read --method GET", "--method"),
        ("explain --policy policy.yaml --tenant a --groups b --path /x --method get", "capitals"),
        ("explain --policy policy.yaml --tenant a --groups b --path /x --client-ip 1.2.3.4:5", "no address"),
        ("explain --policy policy.yaml --tenant a --groups b --path /x --now yesterday", "RFC 3339"),
        ("explain --policy policy.yaml --tenant a --groups b --path /x --backend cortex", "'cortex'"),
        ("explain --policy policy.yaml --tenant a --groups b --scope logs:read --backend mimir", "no route"),
        ("keygen --group root", "--out"),
        ("routes --backend cortex", "'cortex'"),
        ("test", "<POLICY>"),
        ("access --policy policy.yaml", "--tenant"),
        ("access --policy policy.yaml --tenant a|b", "no tenant"),
        ("access --policy policy.yaml --tenant a*", "not a pattern"),
        ("access --policy policy.yaml --tenant a --group b", "--group"),
        ("diff policy.yaml", "<NEW>"),
        ("replay audit.jsonl", "--policy"),
        ("replay --policy policy.yaml", "<AUDIT.JSONL>"),
        ("replay --policy policy.yaml audit.jsonl --now x", "RFC 3339"),
        ("replay --policy policy.yaml audit.jsonl --since x", "RFC 3339"),
        ("replay --policy policy.yaml audit.jsonl --limit x", "--limit"),
        ("replay --policy policy.yaml audit.jsonl --limit 5 --summary", "--summary"),
        ("explain --policy policy.yaml --audit audit.jsonl", "--request"),
        ("explain --policy policy.yaml --request 12 --groups a --tenant b --scope logs:read", "--request"),
        ("explain --policy policy.yaml --request 12 --tenant b --scope logs:read", "--audit"),
        ("explain --policy policy.yaml --audit audit.jsonl --request 12 --tenant a", "--tenant"),
        ("explain --policy policy.yaml --audit audit.jsonl --request 12 --scope logs:read", "--scope"),
    ] {
        room.run(&args.split_whitespace().collect::<Vec<_>>()).complains(1, complaint);
    }
    for command in [
        &[][..],
        &["access"],
        &["check"],
        &["diff"],
        &["doctor"],
        &["explain"],
        &["keygen"],
        &["replay"],
        &["routes"],
        &["test"],
    ] {
        let run = room.run(&[command, &["--help"]].concat());
        run.says(0, &["Usage: tenantauth"]);
        assert_eq!(run.err, "");
    }
    room.run(&["--help"]).says(
        0,
        &[
            "access",
            "check",
            "diff",
            "doctor",
            "explain",
            "keygen",
            "replay",
            "routes",
            "schema",
            "test",
            "Exit status:",
        ],
    );
    assert_eq!(room.run(&["--version"]).out, format!("tenantauth {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
    let room = Room::new();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantauth"));
        command.args(args).current_dir(&room.0);
        command
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["routes"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));

    // Whatever was found: nobody has read it.
    room.write("other.yaml", &POLICY.replace("group1: [tenant1]", "group1: [tenant2]"));
    for args in [&["routes"][..], &["diff", "policy.yaml", "other.yaml"], &["check", "broken.yaml"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output =
            command(args).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(err.contains("error: cannot write the output: no space left on device"), "{args:?}: {err}");
    }
}

/// Scripts read the problems where they read the answer.
#[test]
fn as_json_every_command_tells_an_invalid_policy_as_check_does() {
    let room = Room::new();
    let checked = room.run(&["check", "broken.yaml", "--format", "json"]).json();
    assert_eq!(checked["policies"][0]["valid"], false);
    let all = [
        "access --policy broken.yaml --group a",
        "explain --policy broken.yaml --groups a --tenant b --scope logs:read",
        "diff broken.yaml policy.yaml",
        "diff policy.yaml broken.yaml",
        "keys --policy broken.yaml",
        "replay --policy broken.yaml audit.jsonl",
        "replay --policy policy.yaml --recorded broken.yaml audit.jsonl",
    ];
    for command in all {
        let args: Vec<&str> = command.split(' ').chain(["--format", "json"]).collect();
        let run = room.run(&args);
        assert_eq!((run.status, run.json()), (3, checked.clone()), "{command}");
        assert!(run.err.contains("broken.yaml:10:14: "), "{command}: {}", run.err);
        // One that cannot be read at all is told the same way.
        let args: Vec<&str> =
            args.iter().map(|arg| if *arg == "broken.yaml" { "nowhere.yaml" } else { arg }).collect();
        let run = room.run(&args);
        assert_eq!((run.status, &run.json()["policies"][0]["valid"]), (1, &json!(false)), "{command}");
    }
}

/// What is shipped is what the command prints, and the examples name it.
#[test]
fn the_schema_is_the_shipped_one() {
    let room = Room::new();
    let run = room.run(&["schema"]);
    assert_eq!((run.status, &*run.out), (0, include_str!("../../nginx/policy.schema.json")));
    let run = room.run(&["schema", "--owner"]);
    assert_eq!((run.status, &*run.out), (0, include_str!("../../nginx/owner.schema.json")));
    let page = include_str!("../../docs/owners.md");
    let line = "# yaml-language-server: $schema=/usr/local/share/tenantauth/owner.schema.json\n";
    assert!(page.contains(&format!("```yaml\n{line}grants:\n")));
    let line = "# yaml-language-server: $schema=/usr/local/share/tenantauth/policy.schema.json\n";
    for example in [
        include_str!("../../nginx/examples/policy.yaml"),
        include_str!("../../nginx/examples/minimal-policy.yaml"),
    ] {
        assert!(example.starts_with(line));
    }
}

#[test]
fn routes_are_the_built_in_table() {
    let room = Room::new();
    let wanted: Vec<Vec<&str>> = include_str!("../../src/route/table.tsv")
        .lines()
        .skip(1)
        .map(|line| line.split('\t').map(|field| if field == "-" { "denied" } else { field }).collect())
        .collect();
    let run = room.run(&["routes"]);
    assert_eq!(run.status, 0);
    let printed: Vec<Vec<&str>> = run.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(printed, wanted);
    let starts = |line: &str| line.find('/').unwrap();
    assert!(
        run.out.lines().all(|line| starts(line) == starts(run.out.lines().next().unwrap())),
        "not aligned"
    );

    let rows = room.run(&["routes", "--format", "json"]).json();
    assert_eq!(rows.as_array().unwrap().len(), wanted.len());
    let (row, denied) = (&rows[0], wanted.iter().position(|row| row[3] == "denied").unwrap());
    assert_eq!(
        [&row["backend"], &row["method"], &row["pattern"], &row["scope"], &row["kind"]],
        wanted[0].iter().collect::<Vec<_>>()[..]
    );
    assert_eq!(rows[denied]["scope"], Value::Null);

    let some = room.run(&["routes", "--backend", "tempo,loki", "--format", "json"]).json();
    let backends: Vec<&str> =
        some.as_array().unwrap().iter().map(|row| row["backend"].as_str().unwrap()).collect();
    assert!(backends.contains(&"tempo") && backends.contains(&"loki"));
    assert!(backends.iter().all(|backend| ["tempo", "loki"].contains(backend)));
}
