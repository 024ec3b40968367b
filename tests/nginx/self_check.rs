//! The harness itself, with an nginx that does not know tenantauth: what the other tests conclude rests on this.

use crate::support::client::{Client, Request};
use crate::support::cookie::CookieKey;
use crate::support::now;
use crate::support::site::Site;
use crate::support::tokens::{claims_with, key, other_key, token};
use crate::support::upstream::Seen;
use crate::support::workspace::{Process, Workspace};
use serde_json::json;
use std::process::Command;

const PLAIN: &str = "access_log @DIR@/audit.jsonl; location / { proxy_pass http://@UPSTREAM@; }";

#[test]
fn bytes_arrive_as_they_were_sent() {
    let site = Site::builder().without_module().server(PLAIN).start();
    let request = Request::new("POST", "/a%2Fb//c/../d?x=%00&y=\"")
        .header("X-Twice", "one")
        .header("x-twice", "two")
        .header("X-Odd", b"\x80\xff \t!")
        .cookie("a=1;b=2")
        .cookie(" c = 3")
        .body("body");
    let answer = site.send(request);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["target"], "/a%2Fb//c/../d?x=%00&y=\"");
    let seen = site.upstream.only();
    assert_eq!((seen.method(), seen.target()), ("POST", "/a%2Fb//c/../d?x=%00&y=\""));
    assert_eq!(seen.values("X-Twice"), ["one", "two"]);
    assert_eq!(seen.values("X-Odd"), ["\u{80}\u{ff} \t!"]);
    assert_eq!(seen.values("Cookie"), ["a=1;b=2", "c = 3"]);
    assert_eq!(seen.body, b"body");
}

#[test]
fn a_connection_is_kept_and_chunked_answers_are_read() {
    let server = "location / { content_by_lua_block { ngx.say('one'); ngx.flush(true); ngx.say('two') } }";
    let site = Site::builder().without_module().server(server).start();
    let mut client = Client::connect(site.port(""));
    for _ in 0..3 {
        client.send(&Request::get("/").bytes());
        assert_eq!(client.answer().text(), "one\ntwo\n");
    }
}

#[test]
fn websockets_pass_through_a_plain_proxy() {
    let server = r#"location / {
        proxy_pass http://@UPSTREAM@; proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }"#;
    let site = Site::builder().without_module().server(server).start();
    let mut client = Client::connect(site.port(""));
    client.send(&Request::get("/tail").websocket().bytes());
    assert_eq!(client.answer().status, 101);
    client.send(b"hello");
    assert_eq!(client.exactly(5), b"hello");
}

#[test]
fn workers_are_reloaded_and_replaced() {
    let site = Site::builder().without_module().workers(2).server(PLAIN).start();
    let first = site.nginx().workers();
    site.nginx().reload();
    let second = site.nginx().workers();
    assert!(second.len() == 2 && second.is_disjoint(&first));
    site.nginx().kill_worker();
    assert_eq!(site.nginx().workers().intersection(&second).count(), 1);
    site.wait_for_log("exited on signal 9");
    site.expect_errors();
}

#[test]
fn a_workspace_leaves_nothing_behind() {
    let workspace = Workspace::new();
    let path = workspace.write("inside/file", "text");
    let mut process = Process::start(&workspace, "sleep", Command::new("sleep").arg("60"));
    assert!(process.is_running());
    // As if the test had been killed: nobody stops the process, the janitor must.
    std::mem::forget(process);
    let directory = workspace.path("");
    drop(workspace);
    assert!(!path.exists() && !directory.exists());
}

#[test]
fn tokens_verify_with_the_published_key() {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let verifies = |token: &str, jwk: &serde_json::Value| {
        let (text, signature) = token.rsplit_once('.').unwrap();
        let part = |name: &str| decode(jwk[name].as_str().unwrap());
        RsaPublicKeyComponents { n: part("n"), e: part("e") }
            .verify(&RSA_PKCS1_2048_8192_SHA256, text.as_bytes(), &decode(signature))
            .is_ok()
    };
    let token = token(&["group1"]);
    assert!(verifies(&token, &key().jwk()));
    assert!(!verifies(&token, &other_key().jwk()));
    let claims = claims_with(&["group1"], json!({"exp": null, "sub": "other"}));
    assert_eq!((claims.get("exp"), &claims["sub"]), (None, &json!("other")));
}

#[test]
fn cookies_open_with_their_key() {
    let key = CookieKey::new("k", 1);
    let value = key.sign("Client_Ip", "2001:db8::1", now() + 5);
    assert_eq!(key.open("Client_Ip", &value).0, "2001:db8::1");
    assert_eq!(value.split('.').nth(1), Some("MjAwMTpkYjg6OjE"));
    assert!(std::panic::catch_unwind(|| key.open("Other", &value)).is_err());
}

#[test]
fn a_head_is_taken_apart() {
    let seen = Seen { head: "GET /x HTTP/1.1\r\nA: 1\r\na:2\r\n\r\n".to_owned(), body: Vec::new() };
    assert_eq!((seen.method(), seen.target()), ("GET", "/x"));
    assert_eq!(seen.values("a"), ["1", "2"]);
}
