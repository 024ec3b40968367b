//! `tenantauth keys`, and `explain --token` with keys that are fetched: against a real OpenID provider.

use super::support::provider::Provider;
use super::support::workspace::Workspace;
use super::{Room, Run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

/// A provider, and a room whose `provider.yaml` knows its issuer alone.
fn start() -> (Room, Provider, Workspace) {
    let workspace = Workspace::new();
    let provider = Provider::start(&workspace);
    let room = Room::new();
    room.write("provider.yaml", &policy(&provider.policy_entry("")));
    (room, provider, workspace)
}

fn policy(issuers: &str) -> String {
    format!("version: 1\nissuers:\n{issuers}authorizations:\n  group1: [tenant1]\n")
}

fn keys(room: &Room, policy: &str) -> Run {
    room.run(&["keys", "--policy", policy])
}

fn keys_json(room: &Room, policy: &str) -> (i32, Value) {
    let run = room.run(&["keys", "--policy", policy, "--format", "json"]);
    (run.status, run.json())
}

#[test]
fn keys_shows_what_the_provider_publishes() {
    let (room, provider, _workspace) = start();
    provider.publish(&["k1", "ec1"]);
    let run = keys(&room, "provider.yaml");
    assert_eq!((run.status, &*run.err), (0, ""), "{}", run.out);
    let shown: Vec<Vec<&str>> = run.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(shown[0], ["idp", &provider.issuer]);
    assert_eq!(shown[1], ["keys", "by", "OpenID", "discovery,", "fetched", "now"]);
    assert_eq!(shown[3], ["k1", "RSA", "2048", "bits", "sig", "RS256", "accepted"]);
    assert_eq!(shown[4], ["ec1", "EC", "P-256", "sig", "ES256", "accepted"]);

    // What the issuer may not sign with is shown, with the reason.
    let rs256 = provider.policy_entry("").replace("[RS256, ES256]", "[RS256]");
    room.write("rs256.yaml", &policy(&rs256));
    let (status, report) = keys_json(&room, "rs256.yaml");
    let issuer = &report["issuers"][0];
    assert_eq!((status, &issuer["usable"], &issuer["error"]), (0, &json!(1), &Value::Null));
    assert_eq!((&issuer["source"], &issuer["age_seconds"]), (&json!("discovery"), &json!(0)));
    let refused = issuer["keys"][1]["refused"].as_str().unwrap();
    assert!(refused.contains("is not among the issuer's algorithms"), "{refused}");
    assert_eq!(issuer["keys"][1]["accepted"], false);
    let expected = json!({
        "kid": "k1", "type": "RSA", "size": "2048 bits", "use": "sig", "algorithm": "RS256", "accepted": true,
        "refused": null, "revoked": false,
    });
    assert_eq!(issuer["keys"][0], expected);

    // A key that the policy revokes is good, and counts for nothing.
    let revoking = |kids: &[&str]| {
        let keys: Vec<String> = kids.iter().map(|kid| format!("{{ issuer: idp, kid: {kid} }}")).collect();
        policy(&provider.policy_entry("")) + &format!("revoked: {{ keys: [{}] }}\n", keys.join(", "))
    };
    room.write("revoking.yaml", &revoking(&["k1"]));
    let (status, report) = keys_json(&room, "revoking.yaml");
    let issuer = &report["issuers"][0];
    assert_eq!((status, &issuer["usable"]), (0, &json!(1)));
    let of = |key: usize| ["accepted", "refused", "revoked"].map(|name| issuer["keys"][key][name].clone());
    assert_eq!(of(0), [json!(false), json!("the policy revokes it"), json!(true)]);
    assert_eq!(of(1), [json!(true), Value::Null, json!(false)]);
    room.write("revoking.yaml", &revoking(&["k1", "ec1", "gone"]));
    let run = keys(&room, "revoking.yaml");
    assert_eq!(run.status, 1);
    assert!(run.out.contains("refused: the policy revokes it"), "{}", run.out);
}

#[test]
fn keys_fails_where_an_issuer_has_none() {
    let (room, provider, _workspace) = start();
    let fails = |file: &str, why: &str| {
        let run = keys(&room, file);
        assert_eq!(run.status, 1, "{}{}", run.out, run.err);
        assert!(run.err.starts_with("error: issuer `idp`: ") && run.err.contains(why), "{}", run.err);
        let (status, report) = keys_json(&room, file);
        assert_eq!((status, &report["issuers"][0]["usable"]), (1, &json!(0)));
        report
    };
    // Keys, but none that the issuer may use: each is shown.
    provider.publish(&["ec1"]);
    let rs256 = provider.policy_entry("").replace("[RS256, ES256]", "[RS256]");
    room.write("rs256.yaml", &policy(&rs256));
    let report = fails("rs256.yaml", "no usable key");
    assert_eq!(report["issuers"][0]["keys"][0]["kid"], "ec1");
    provider.certificate("expired");
    let report = fails("provider.yaml", "the server's certificate has expired");
    assert_eq!(report["issuers"][0]["age_seconds"], Value::Null);
    provider.certificate("stranger");
    fails("provider.yaml", "is not from an authority that is trusted");
    provider.certificate("server");
    provider.fault("discovery", Some("issuer"));
    fails("provider.yaml", "is about the issuer `https://other.test`");
    provider.fault("discovery", None);
    provider.fault("jwks", Some("garbage"));
    fails("provider.yaml", "is no key set");
    provider.stop();
    fails("provider.yaml", "connection refused");
}

#[test]
fn keys_of_a_file_and_of_the_policy_are_shown_too() {
    let room = Room::new();
    let (status, report) = keys_json(&room, "policy.yaml");
    let issuer = &report["issuers"][0];
    assert_eq!((status, &issuer["source"], &issuer["usable"]), (0, &json!("jwks_file"), &json!(1)));
    assert!(issuer["age_seconds"].as_u64().unwrap() < 600, "{issuer}");
    assert_eq!(issuer["keys"][0]["size"], "Ed25519");
    keys(&room, "policy.yaml").says(0, &["from the file jwks.json, changed ", " s ago\n", "accepted"]);

    let jwks = std::fs::read_to_string(room.path("jwks.json")).unwrap();
    let with = |keys: &str| {
        let issuer = "  - { name: idp, issuer: \"https://idp.test\", audiences: [a], algorithms: [EdDSA], jwks: KEYS }\n";
        policy(&issuer.replace("KEYS", keys))
    };
    let two = jwks.replace("[{", r#"[{"kty": "oct", "kid": "hmac", "k": "AAAA"}, {"#);
    room.write("inline.yaml", &with(&two));
    let (status, report) = keys_json(&room, "inline.yaml");
    let issuer = &report["issuers"][0];
    assert_eq!((status, &issuer["source"], &issuer["age_seconds"]), (0, &json!("jwks"), &Value::Null));
    assert!(issuer["keys"][0]["refused"].as_str().unwrap().contains("shared secret"), "{issuer}");
    assert!(!report.to_string().contains("AAAA"), "nothing of a key itself is shown");

    keys(&room, "broken.yaml").complains(3, "broken.yaml:");
    keys(&room, "nowhere.yaml").complains(1, "cannot read the policy");
    room.run(&["keys"]).complains(1, "--policy");
}

#[test]
fn explain_verifies_a_token_with_fetched_keys() {
    let (room, provider, _workspace) = start();
    let token = provider.login("ada", &["group1"]);
    let explain = |token: &str, more: &[&str]| {
        let fixed = ["explain", "--policy", "provider.yaml", "--scope", "logs:read", "--token", "-"];
        room.run_with(&[&fixed[..], more].concat(), token)
    };
    let allowed = explain(&token, &["--tenant", "tenant1"]);
    allowed.says(0, &["a verified token", "subject: ada"]);
    assert_eq!(allowed.err, "");
    explain(&token, &["--tenant", "tenant2"]).says(2, &["tenant_forbidden"]);

    let other = provider.login("bob", &["group1"]);
    let forged = format!("{}.{}", token.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
    explain(&forged, &["--tenant", "tenant1"]).says(2, &["token_signature"]);
    provider.publish(&["k2"]);
    explain(&token, &["--tenant", "tenant1"]).says(2, &["token_key_unknown"]);

    provider.stop();
    let run = explain(&token, &["--tenant", "tenant1", "--format", "json"]);
    assert_eq!((run.status, &run.json()["reason"]), (2, &json!("keys_unavailable")));
    assert!(run.err.starts_with("error: issuer `idp`: cannot fetch `https://localhost:"), "{}", run.err);
    assert!(run.err.contains("connection refused"), "{}", run.err);
    // Nobody else is asked for anything: claims and groups need no keys.
    let fixed = ["explain", "--policy", "provider.yaml", "--scope", "logs:read", "--tenant", "tenant1"];
    let run = room.run(&[&fixed[..], &["--groups", "group1"]].concat());
    assert_eq!((run.status, &*run.err), (0, ""));
}

#[test]
fn the_proxy_of_the_environment_is_asked_but_not_for_this_machine() {
    let (room, provider, _workspace) = start();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (stream, _) = proxy.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        // To the empty line: what is left unread would become a reset.
        let head: Vec<_> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        let _ = (&stream).write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        head.into_iter().next().unwrap_or_default()
    });
    let run = |policy: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantauth"));
        command.args(["keys", "--policy", policy]).current_dir(room.path(""));
        for name in ["ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "https_proxy"] {
            command.env_remove(name);
        }
        let output = command.env("HTTPS_PROXY", &address).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("provider.yaml"), (Some(0), String::new()));
    let entry = provider.policy_entry("    jwks_url: https://keys.example.test/jwks\n");
    room.write("remote.yaml", &policy(&entry));
    let (status, err) = run("remote.yaml");
    assert!(status == Some(1) && err.contains("the proxy refuses"), "{err}");
    assert_eq!(asked.join().unwrap(), "CONNECT keys.example.test:443 HTTP/1.1");
}
