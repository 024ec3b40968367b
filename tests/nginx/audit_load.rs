//! The audit log under load: as many records as requests, whatever their bytes, through rotations and crashes.

use crate::audit::assert_keys;
use crate::checks::query;
use crate::metrics::samples;
use crate::support::client::{Client, Request};
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site, records_of};
use crate::support::tokens::{claims_with, key, token};
use crate::support::{repository, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, scope, sleep};
use std::time::Duration;

/// Stands in everything secret that the requests hold beside tokens and signatures.
const SECRET: &str = "S3CRET";
/// The longest record that the policy allows, with its line feed.
const LONGEST_RECORD: usize = 16_384;

/// A gateway whose audit log is buffered as the documentation shows it, in front of a backend that is quick.
fn site(workers: usize, buffering: &str) -> Site {
    let server = format!(
        r#"rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        access_log @DIR@/audit.jsonl tenantauth_audit {buffering};
        client_header_buffer_size 16k;
        large_client_header_buffers 4 16k;
        location / {{ proxy_pass http://unix:@DIR@/backend.sock; }}"#
    );
    let backend = "server { listen unix:@DIR@/backend.sock; location / { return 200 fine; } }";
    let policy = format!("{POLICY}{RESTRICTIONS}{SIGNED_COOKIE}");
    Site::builder().policy(&policy).workers(workers).server(&server).http(backend).start()
}

/// Numbers that look random and are the same in each run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }

    /// Up to `most` bytes of any kind, but those that end a line.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        const PIECES: [&[u8]; 12] = [
            b"\"",
            b"\\",
            b"\"}\n{\"a\":\"",
            b"\\u0000",
            b"\xed\xa0\x80",
            b"\xe2\x80\xa8",
            b"\xc2\x85",
            b"\xf0\x9f\x92\xa9",
            b"\xff\xfe",
            b"$request_id",
            b"',\"decision\":\"allow",
            b"%00%22%0a",
        ];
        let length = self.below(most);
        let mut bytes = Vec::new();
        while bytes.len() < length {
            match self.below(4) {
                0 => bytes.extend_from_slice(PIECES[self.below(PIECES.len())]),
                1 => bytes.push(u8::try_from(self.below(256)).unwrap()),
                2 => bytes.push(u8::try_from(128 + self.below(128)).unwrap()),
                _ => bytes.push(u8::try_from(0x21 + self.below(0x5e)).unwrap()),
            }
        }
        bytes.retain(|byte| !matches!(byte, b'\r' | b'\n'));
        bytes
    }

    /// The same without what nginx refuses in a request line.
    fn target(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = self.bytes(most);
        bytes.retain(|byte| *byte > b' ' && *byte != 0x7f);
        bytes
    }
}

/// The credentials of the load, real and junk, each of which may stand in no record.
struct Credentials {
    tokens: Vec<String>,
    cookies: Vec<String>,
}

impl Credentials {
    fn new() -> Self {
        let user = |number: u32| {
            let changes = json!({"sub": format!("user-{number}"), "uti": format!("token-id-{number}")});
            key().token(&claims_with(&["group1", "group3"], changes))
        };
        let addresses = ["203.0.113.5", "198.51.100.7", "198.18.0.5", "2001:db8::1"];
        Self {
            tokens: (0..20).map(user).collect(),
            cookies: addresses.into_iter().map(|address| COOKIE_KEY.pair(address)).collect(),
        }
    }

    /// One request of the load.
    fn request(&self, dice: &mut Dice) -> Request {
        let token = &self.tokens[dice.below(self.tokens.len())];
        let cookie = &self.cookies[dice.below(self.cookies.len())];
        let good = |target: Vec<u8>| {
            Request::get(target)
                .tenant("tenant1")
                .token(token)
                .cookie(format!("grafana_session={SECRET}; {cookie}"))
                .header("Authorization", format!("Bearer {SECRET}"))
                .header("X-Grafana-Id", SECRET)
        };
        let path = || b"/loki/api/v1/query_range".to_vec();
        let joined = |text: &str, bytes: Vec<u8>| [text.as_bytes(), &bytes].concat();
        let secret = |bytes: Vec<u8>| joined(SECRET, bytes);
        let without = |tenant: &[u8]| Request::get(path()).header("X-Scope-OrgID", tenant);
        match dice.below(16) {
            0..=2 => good(joined("/loki/api/v1/query?query=", dice.target(200))),
            3 => good(joined("/loki/api/v1/query?query=", dice.target(6000))),
            4 => good(path()).header("X-Dashboard-Uid", dice.bytes(80)).header("X-Panel-Id", dice.bytes(80)),
            5 => {
                good(path()).header("X-Rule-Uid", dice.bytes(6000)).header("X-Grafana-Org-Id", dice.bytes(80))
            }
            6 => good(joined("/", dice.target(200))),
            7 => good(joined("/loki/api/v1/", dice.target(6000))),
            8 => without(&dice.bytes(100)).token(token),
            9 => without(b"tenant1").token("").header("X-Id-Token", secret(dice.bytes(500))),
            10 => without(b"tenant1").header("X-Id-Token", secret(dice.bytes(500))),
            11 => without(b"tenant1").token(token).cookie(joined("Client_Ip=", secret(dice.bytes(200)))),
            12 => good(path()).tenant("tenant2"),
            // Those that nginx refuses itself: any bytes in the request line, a body and a header that are too large.
            13 => good(joined("/", dice.bytes(200))),
            14 => good(path()).header("Content-Length", "99999999"),
            // Header names that nginx leaves out, or that look like others.
            15 if dice.below(2) == 0 => {
                let names = [
                    "X_Scope_OrgID",
                    "X-Scope OrgID",
                    "X-Id_Token",
                    "X-Id-Token\u{85}",
                    "Cookie\\",
                    "\"",
                    "ü",
                ];
                good(path()).header(names[dice.below(names.len())], secret(dice.bytes(80)))
            }
            _ if dice.below(10) == 0 => good(path()).header("X-Large", secret(vec![b'x'; 20_000])),
            _ => Request::get(path()).tenant("nobody").header("X-Id-Token", SECRET),
        }
    }
}

/// What the clients saw: answers by status, and how many requests were cut off without one.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<u64, usize>,
    unanswered: usize,
}

impl Seen {
    fn requests(&self) -> usize {
        self.statuses.values().sum::<usize>() + self.unanswered
    }
}

/// Sends so many requests over four connections at a time, while `meanwhile` runs again and again, and more of them
/// until it has once said that it ran often enough.
fn load(
    site: &Site,
    credentials: &Credentials,
    requests: usize,
    mut meanwhile: impl FnMut() -> bool,
) -> Seen {
    const CONNECTIONS: usize = 4;
    // An end for a test that fails meanwhile.
    const AT_MOST: usize = 50_000;
    let port = site.port("");
    let seen = Mutex::new(Seen::default());
    let (running, enough) = (AtomicBool::new(true), AtomicBool::new(false));
    scope(|threads| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (seen, enough) = (&seen, &enough);
                threads.spawn(move || {
                    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 + u64::try_from(number).unwrap());
                    let mut client = None;
                    let mut sent = 0;
                    while sent < requests / CONNECTIONS || (sent < AT_MOST && !enough.load(Ordering::Relaxed))
                    {
                        sent += 1;
                        let open = client.get_or_insert_with(|| Client::connect(port));
                        open.send(&credentials.request(&mut dice).bytes());
                        let answer = open.answer_or_end();
                        let mut seen = seen.lock().unwrap();
                        if let Some(answer) = &answer {
                            *seen.statuses.entry(answer.status.into()).or_default() += 1;
                        } else {
                            seen.unanswered += 1;
                        }
                        if answer.is_none_or(|answer| answer.header("Connection") == Some("close")) {
                            client = None;
                        }
                    }
                })
            })
            .collect();
        let watch = threads.spawn(|| {
            for client in clients {
                client.join().unwrap();
            }
            running.store(false, Ordering::Relaxed);
        });
        while running.load(Ordering::Relaxed) {
            if meanwhile() {
                enough.store(true, Ordering::Relaxed);
            }
        }
        watch.join().unwrap();
    });
    seen.into_inner().unwrap()
}

/// The audit log and what it was renamed to, once there are so many lines in them.
fn lines(site: &Site, count: usize) -> String {
    let read = || {
        let files = fs::read_dir(site.workspace.path("")).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<_> = files
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit.jsonl"))
            })
            .collect();
        logs.sort();
        // Not lossily: a record is UTF-8.
        logs.into_iter().map(|path| String::from_utf8(fs::read(path).unwrap()).unwrap()).collect::<String>()
    };
    wait_for("complete audit log", 15, || (read().matches('\n').count() >= count).then_some(()));
    let lines = read();
    assert_eq!(lines.matches('\n').count(), count);
    assert!(lines.ends_with('\n'));
    lines
}

/// The values of one counter by its labels, as written.
fn counters(site: &Site, name: &str) -> BTreeMap<String, f64> {
    let samples = samples(&site.metrics());
    samples.into_iter().filter(|(series, _)| series.split('{').next() == Some(name)).collect()
}

fn counter(site: &Site, name: &str) -> f64 {
    counters(site, name).values().sum()
}

/// The counters that these records should have led to.
fn counters_of(records: &[Value]) -> BTreeMap<String, f64> {
    let mut counters = BTreeMap::new();
    for record in records.iter().filter(|record| !record["decision"].is_null()) {
        let text = |key: &str| record[key].as_str().unwrap_or("none").to_owned();
        let series = format!(
            r#"tenantauth_decisions_total{{decision="{}",reason="{}",backend="{}",scope="{}"}}"#,
            text("decision"),
            text("reason"),
            text("backend"),
            text("scope")
        );
        *counters.entry(series).or_default() += 1.0;
    }
    counters
}

/// Each record is whole, none holds a secret, and the counters say what they say.
fn assert_complete(site: &Site, credentials: &Credentials, seen: &Seen) -> Vec<Value> {
    let lines = lines(site, seen.requests());
    let longest = lines.lines().map(str::len).max().unwrap();
    assert!(longest < LONGEST_RECORD, "a record of {longest} bytes");
    let mut secrets = vec![SECRET.to_owned()];
    for token in &credentials.tokens {
        secrets.extend(token.split('.').map(str::to_owned));
    }
    let macs = credentials.cookies.iter().map(|cookie| cookie.rsplit('.').next().unwrap().to_owned());
    secrets.extend(macs);
    for secret in &secrets {
        assert!(!lines.contains(secret.as_str()), "{secret} is recorded");
    }
    let records = records_of(&lines);
    let mut statuses = BTreeMap::<u64, usize>::new();
    for record in &records {
        assert_keys(record);
        *statuses.entry(record["status"].as_u64().unwrap()).or_default() += 1;
    }
    for (status, count) in &seen.statuses {
        assert!(statuses.get(status) >= Some(count), "{count} answers {status}, but {statuses:?}");
    }
    let decided = records.iter().filter(|record| !record["decision"].is_null()).count();
    assert_eq!(counters(site, "tenantauth_decisions_total"), counters_of(&records));
    assert_eq!(counter(site, "tenantauth_audit_records_total"), decided as f64);
    assert_eq!(counter(site, "tenantauth_decision_duration_seconds_count"), decided as f64);
    // nginx complains of large bodies, as it should, and of nothing else.
    site.expect_errors();
    for word in ["[error]", "[crit]", "[alert]", "stack traceback", "panicked"] {
        let log = site.log();
        let mut complaints = log.lines().filter(|line| line.contains(word));
        let other = complaints.find(|line| !line.contains("client intended to send too large body"));
        assert!(other.is_none(), "{other:?}");
    }
    records
}

#[test]
fn fifty_thousand_hostile_requests_leave_as_many_records() {
    let site = site(2, "buffer=64k flush=1s");
    let credentials = Credentials::new();
    let seen = load(&site, &credentials, 50_000, || {
        sleep(Duration::from_millis(50));
        true
    });
    assert_eq!(seen.requests(), 50_000);
    let records = assert_complete(&site, &credentials, &seen);
    // The load is what it claims to be: each kind of end is among it.
    let count = |key: &str, value: &Value| records.iter().filter(|record| record[key] == *value).count();
    for (key, value, least) in [
        ("decision", json!("allow"), 5_000),
        ("decision", json!("deny"), 10_000),
        ("decision", Value::Null, 1_000),
        ("reason", json!("ip_forbidden"), 500),
        ("reason", json!("token_malformed"), 1_000),
        ("reason", json!("tenant_malformed"), 1_000),
        ("reason", json!("tenant_duplicate"), 1_000),
        ("reason", json!("ip_malformed"), 500),
        ("status", json!(400), 1_000),
        ("status", json!(413), 1_000),
        ("truncated", json!(["grafana.rule"]), 500),
    ] {
        assert!(count(key, &value) >= least, "only {} of {key}={value}", count(key, &value));
    }
}

#[test]
fn rotation_under_load_loses_no_record() {
    let site = site(2, "buffer=64k flush=1s");
    let credentials = Credentials::new();
    let mut rotations = 0;
    let seen = load(&site, &credentials, 4_000, || {
        sleep(Duration::from_millis(100));
        // As logrotate does: rename, then tell nginx.
        let rotated = format!("audit.jsonl.{rotations}");
        fs::rename(site.workspace.path("audit.jsonl"), site.workspace.path(&rotated)).unwrap();
        site.nginx().signal("USR1");
        wait_for("new audit log", 10, || site.workspace.path("audit.jsonl").exists().then_some(()));
        rotations += 1;
        rotations >= 5
    });
    assert_complete(&site, &credentials, &seen);
}

#[test]
fn a_killed_worker_loses_its_buffer_and_the_counter_tells() {
    // No line is written before the buffer is full or nginx ends.
    let site = site(1, "buffer=1m flush=10m");
    site.expect_errors();
    let send = |count: usize| {
        for _ in 0..count {
            site.send(query(&["group1"], "tenant2"));
        }
    };
    let written = || site.workspace.read("audit.jsonl").lines().count();
    send(120);
    site.nginx().kill_worker();
    assert_eq!((written(), counter(&site, "tenantauth_audit_records_total")), (0, 120.0));
    // A reload, a rotation and an end by either signal write what is buffered.
    send(10);
    site.nginx().reload();
    assert_eq!(lines(&site, 10).lines().count(), 10);
    send(10);
    site.nginx().signal("USR1");
    lines(&site, 20);
    send(10);
    assert_eq!(counter(&site, "tenantauth_audit_records_total"), 150.0);
    site.nginx().signal("QUIT");
    lines(&site, 30);
}

#[test]
fn ending_nginx_at_once_writes_what_is_buffered() {
    let site = site(2, "buffer=1m flush=10m");
    for _ in 0..40 {
        site.send(query(&["group1"], "tenant2"));
    }
    site.nginx().signal("TERM");
    lines(&site, 40);
}

#[test]
fn counters_stay_exact_where_workers_are_killed_under_load() {
    let site = site(2, "buffer=64k flush=1s");
    site.expect_errors();
    let token = token(&["group1"]);
    let credentials = Credentials { tokens: vec![token], cookies: vec![COOKIE_KEY.pair("203.0.113.5")] };
    let mut kills = 0;
    let seen = load(&site, &credentials, 4_000, || {
        sleep(Duration::from_millis(200));
        site.nginx().kill_worker();
        kills += 1;
        kills >= 5
    });
    assert_counted(&site, &seen);
}

/// nginx refuses some requests itself; the rest is counted once each, but for those that were cut off: they may have
/// been decided before.
fn assert_counted(site: &Site, seen: &Seen) {
    let decided = counter(site, "tenantauth_decisions_total");
    let refused: usize = [400, 413].iter().filter_map(|status| seen.statuses.get(status)).sum();
    let answered = seen.requests() - seen.unanswered - refused;
    let at_most = answered + seen.unanswered;
    assert!(decided >= answered as f64 && decided <= at_most as f64, "{decided} of {answered} to {at_most}");
    assert_eq!(counter(site, "tenantauth_audit_records_total"), decided);
    assert_eq!(counter(site, "tenantauth_decision_duration_seconds_count"), decided);
}

#[test]
fn reloads_under_load_lose_no_record() {
    let site = site(2, "buffer=64k flush=1s");
    site.expect_errors();
    let credentials = Credentials::new();
    let mut reloads = 0;
    let seen = load(&site, &credentials, 4_000, || {
        sleep(Duration::from_millis(200));
        site.nginx().reload();
        reloads += 1;
        reloads >= 5
    });
    assert_counted(&site, &seen);
    // An old worker may close a connection over a request that it has not read yet, which then leaves nothing.
    let lines = wait_for("complete audit log", 15, || {
        let lines = site.workspace.read("audit.jsonl");
        let decided = records_of(&lines).iter().filter(|record| !record["decision"].is_null()).count();
        (decided as f64 == counter(&site, "tenantauth_audit_records_total")).then_some(lines)
    });
    let count = lines.lines().count();
    assert!(count <= seen.requests() && count >= seen.requests() - seen.unanswered, "{count}");
}

/// Requests that would have the longest records, and whether each is allowed. A request line and a header line have
/// 32 KiB.
fn hostile() -> Vec<(Request, bool)> {
    let user = json!({
        "sub": "\u{2028}".repeat(100),
        "oid": null,
        "preferred_username": "\"".repeat(5000),
        "uti": "\\".repeat(5000),
    });
    let token = key().token(&claims_with(&["group1", "group3"], user));
    let tenants: Vec<String> = (0..100).map(|number| format!("{number:0150}")).collect();
    let claimed = |request: Request| {
        ["X-Dashboard-Uid", "X-Panel-Id", "X-Rule-Uid", "X-Grafana-Org-Id"]
            .iter()
            .fold(request, |request, name| request.header(name, b"\x01".repeat(24_000)))
    };
    let path = format!("/loki/api/v1/label/{}/values", "\u{85}".repeat(15_000));
    let query = format!("/loki/api/v1/query?query={}", "\u{85}".repeat(15_000));
    let allowed = |request: Request| request.tenant("tenant1").token(&token);
    vec![
        (allowed(claimed(Request::get(&query))), true),
        (allowed(Request::get(&query)), true),
        (allowed(claimed(Request::get(&path))), true),
        (claimed(Request::get(&query)).tenant(&tenants.join("|")).token(&token), false),
        (claimed(Request::get(&query)).tenant("tenant1"), false),
        (allowed(claimed(Request::new(&"A".repeat(5000), "/loki/api/v1/query"))), false),
        (Request::get("\u{85}".repeat(15_000).replacen('\u{85}', "/", 1)), false),
    ]
}

/// What the image says about its audit log, with the log elsewhere: the directives outside of `http {}`, and inside.
fn image(log: &str) -> (String, String) {
    let text = fs::read_to_string(repository("deploy/image/gateway.conf")).unwrap();
    // As the entrypoint fills it in where the log is a pipe.
    let text = text.replace("@PIPED@", "").replace("@AUDIT_LOG@", log).replace("@AUDIT_BUFFER@", "4k");
    let lines = |start: &str| {
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with(start));
        lines.collect::<Vec<_>>().join("\n")
    };
    (lines("env "), [lines("access_log "), lines("large_client_header_buffers ")].join("\n"))
}

/// A log that is a pipe, as that of a container is, whose reader is slow: four workers write into it, some records
/// are of requests that do what they can to be long, and each is whole.
#[test]
fn nobody_tears_the_records_of_others_on_a_pipe() {
    const QUIET: usize = 400;
    const HOSTILE: usize = 60;
    let site = Site::prepare(true);
    let pipe = site.workspace.path("audit.fifo");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // For both, so that nobody waits for the other end.
    let mut end = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    thread::spawn({
        let (lines, mut end) = (Arc::clone(&lines), end.try_clone().unwrap());
        move || {
            let mut buffer = [0; 1000];
            loop {
                let length = end.read(&mut buffer).unwrap();
                lines.lock().unwrap().extend_from_slice(&buffer[..length]);
                // Slower than the workers write: the pipe is full.
                sleep(Duration::from_micros(500));
            }
        }
    });
    let (main, http) = image(&pipe.display().to_string());
    let server = format!(
        r#"rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        {http}
        location / {{ proxy_pass http://unix:@DIR@/backend.sock; }}"#
    );
    let backend = "server { listen unix:@DIR@/backend.sock; location / { return 200 fine; } \
                   large_client_header_buffers 8 128k; }";
    let site = Site::builder().workers(4).main(&main).server(&server).http(backend).start_in(site);
    let token = token(&["group1"]);
    let port = site.port("");
    let hostile = hostile();
    scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for number in 0..HOSTILE {
                    hostile[number % hostile.len()].0.clone().send(port);
                }
            });
        }
        for client in 0..4 {
            let token = &token;
            threads.spawn(move || {
                for number in 0..QUIET {
                    let target = format!("/loki/api/v1/query?query=quiet-{client}-{number}");
                    let answer = Request::get(target).tenant("tenant1").token(token).send(port);
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
    let count = 4 * (QUIET + HOSTILE);
    wait_for("complete audit log", 60, || {
        let read = lines.lock().unwrap().iter().filter(|byte| **byte == b'\n').count();
        (read >= count).then_some(())
    });
    // The next to arrive: there is nothing behind the last record.
    end.write_all(b"end\n").unwrap();
    let text = wait_for("end of the pipe", 10, || {
        let lines = lines.lock().unwrap();
        lines.ends_with(b"end\n").then(|| String::from_utf8(lines.clone()).unwrap())
    });
    let records = records_of(text.strip_suffix("end\n").unwrap());
    assert_eq!(records.len(), count);
    let longest = text.lines().map(str::len).max().unwrap();
    assert!((3700..4000).contains(&longest), "the load is what it claims to be: {longest}");
    for record in &records {
        assert_keys(record);
    }
    for client in 0..4 {
        for number in 0..QUIET {
            let query = format!("query=quiet-{client}-{number}");
            let mut found = records.iter().filter(|record| record["query"] == *query);
            let record = found.next().unwrap_or_else(|| panic!("no record of {query}"));
            assert_eq!((&record["decision"], &record["truncated"]), (&json!("allow"), &Value::Null));
            assert!(found.next().is_none(), "two records of {query}");
        }
    }
}

/// Whatever a request holds, its record reaches syslog: a datagram that is too long would not be sent.
#[test]
fn no_request_hides_from_syslog() {
    for (audit, limit, most) in [
        ("", "", 16_384),
        ("audit: { max_bytes: 4000 }\n", "", 4000),
        ("", "env TENANTAUTH_AUDIT_MAX_BYTES=4000;", 4000),
    ] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let server = format!(
            r#"rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
            access_log syslog:server={},tag=tenantauth tenantauth_audit;
            large_client_header_buffers 8 32k;
            location / {{ proxy_pass http://unix:@DIR@/backend.sock; }}"#,
            socket.local_addr().unwrap()
        );
        let backend = "server { listen unix:@DIR@/backend.sock; location / { return 200 fine; } \
                       large_client_header_buffers 8 128k; }";
        let policy = format!("{POLICY}{audit}");
        let site = Site::builder().policy(&policy).main(limit).server(&server).http(backend).start();
        let mut longest = 0;
        for (request, is_allowed) in hostile() {
            let answer = site.send(request);
            assert_eq!(answer.status == 200, is_allowed, "{answer:?}");
            let mut message = vec![0; 65_536];
            let length = socket.recv(&mut message).expect("a record");
            let message = String::from_utf8(message[..length].to_vec()).unwrap();
            let line = message.split_once(" tenantauth: ").unwrap().1;
            assert!(line.len() < most, "{}", line.len());
            longest = longest.max(line.len());
            let record = records_of(line).remove(0);
            assert_keys(&record);
            assert_eq!(record["status"], answer.status);
            assert_eq!(record["decision"], if is_allowed { "allow" } else { "deny" });
            assert!(record["truncated"].is_array(), "{record}");
            if is_allowed {
                assert_eq!(record["subject"], "\u{2028}".repeat(85), "512 bytes of it as they are written");
                assert_eq!(record["tenants"], json!(["tenant1"]));
            }
        }
        assert!(longest > most - 400, "{longest}");
    }
}

/// The Grafana Gateway's log is a pipe, too.
#[test]
fn no_line_of_the_grafana_gateway_is_longer_than_a_pipe_takes() {
    let text = fs::read_to_string(repository("deploy/image/grafana-gateway.conf")).unwrap();
    let (head, log) = text.split_once("    access_log /dev/stdout ").unwrap();
    let format = head.split_once("lua_package_cpath").unwrap().1.split_once('\n').unwrap().1;
    let log = log.split_once(" buffer=4k flush=1s;").unwrap().0;
    let server =
        format!("access_log @DIR@/audit.jsonl {log}; large_client_header_buffers 8 32k; return 200 fine;");
    let site = Site::builder().without_module().http(format).server(&server).start();
    let ask = |byte: &[u8], user: &str| {
        let long = byte.repeat(20_000 / byte.len());
        let target = [b"/".as_slice(), &long].concat();
        let request = Request::get(target).header("Referer", &long).header("User-Agent", &long);
        assert_eq!(site.send(request.header("Authorization", format!("Basic {user}"))).status, 200);
    };
    // The users are `aaa…` and `\x01\x01…`.
    ask(b"a", &"YWFh".repeat(5000));
    ask("\u{85}".as_bytes(), &"AQEB".repeat(5000));
    ask(b"\"", "");
    let read = || site.workspace.read("audit.jsonl");
    let text = wait_for("three lines", 5, || Some(read()).filter(|text| text.matches('\n').count() == 3));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.iter().all(|line| line.len() < 4096), "{:?}", lines.iter().map(|line| line.len()));
    assert!(lines[0].len() > 3000 && lines[0].contains("] \"GET /aaaa"), "{}", lines[0]);
    assert!(
        lines[1].starts_with("127.0.0.1 - - [") && lines[1].ends_with("] \"GET /\" 200 4 \"-\" \"-\""),
        "{}",
        lines[1]
    );
    assert!(lines[2].ends_with("] \"GET /\" 200 4 \"-\" \"-\""), "{}", lines[2]);
}

/// The limit in nginx's configuration is one that records can keep to, or there is no gateway.
#[test]
fn a_limit_that_is_none_is_no_start() {
    let site = Site::builder().main("env TENANTAUTH_AUDIT_MAX_BYTES=4k;").start();
    site.expect_errors();
    let answer = site.send(query(&["group1"], "tenant1"));
    assert_eq!((answer.status, answer.reason()), (503, "policy_unavailable"));
    site.wait_for_log("TENANTAUTH_AUDIT_MAX_BYTES: `4k` is not a number of bytes from 2048 to 65536");
}

#[test]
fn syslog_gets_the_same_records() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let server = format!(
        r#"rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        access_log syslog:server={},tag=tenantauth tenantauth_audit;
        location / {{ proxy_pass http://@UPSTREAM@; }}"#,
        socket.local_addr().unwrap()
    );
    let site = Site::builder().server(&server).start();
    let long = format!("/loki/api/v1/query?query={}", "%22\"".repeat(1500));
    let requests = [
        (query(&["group1"], "tenant1"), "granted"),
        (query(&["group1"], "tenant2"), "tenant_forbidden"),
        (Request::get(long).tenant("tenant1").token(&token(&["group1"])), "granted"),
    ];
    for (request, reason) in requests {
        site.send(request);
        let mut message = vec![0; 65_536];
        let length = socket.recv(&mut message).unwrap();
        let message = String::from_utf8(message[..length].to_vec()).unwrap();
        let (head, line) = message.split_once(": ").unwrap();
        assert!(head.ends_with(" tenantauth"), "{head}");
        let record = records_of(line).remove(0);
        assert_keys(&record);
        assert_eq!(record["reason"], reason);
    }
}
