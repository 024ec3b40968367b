//! What nginx raises by itself, before a decision and after it, and where an `error_page` then leads: nothing that was
//! not decided goes upstream, and what does carries what was authorised.

use crate::checks::{assert_allowed, assert_denied};
use crate::support::certificates::Authority;
use crate::support::client::{Client, Request};
use crate::support::site::{MODULE, POLICY, Site};
use crate::support::tokens::token;
use crate::support::upstream::Seen;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// What precedes an answer of nginx's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Before {
    /// Its headers were not read whole.
    Partial,
    /// They were, and nobody decided.
    Whole,
    /// `enforce` allowed it.
    Allowed,
}
use Before::{Allowed, Partial, Whole};

/// How a request gets to nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Plain,
    /// Over TLS: with no certificate, that of a stranger, or a good one.
    Tls(Option<&'static str>),
    /// Without TLS to the port that wants it.
    PlainToTls,
}
use By::{Plain, PlainToTls, Tls};

/// A location to which others fall back: name, target of the error_page, and it.
const KINDS: [(&str, &str, &str); 5] = [
    ("named", "@fallback", "location @fallback { @GUARD@ @FALLBACK@ }"),
    ("elsewhere", "/fallback", "location = /fallback { internal; @GUARD@ @FALLBACK@ }"),
    ("same", "/loki/api/v1/labels", "location = /loki/api/v1/labels { @GUARD@ @FALLBACK@ }"),
    ("other", "/loki/api/v1/rules", "location = /loki/api/v1/rules { @GUARD@ @FALLBACK@ }"),
    ("page", "/error.html", "location = /error.html { internal; rewrite_by_lua_block { } root @DIR@; }"),
];

const AGAIN: &str = r#"rewrite_by_lua_block { require("tenantauth").enforce { again = true } }"#;

/// Statuses that `return` gives in front of every `enforce`: all that nginx and its modules have a name for.
const RETURNED: [u16; 42] = [
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423,
    424, 425, 426, 428, 429, 431, 451, 494, 495, 496, 497, 498, 500, 501, 502, 503, 504, 505, 507, 508, 511,
];

fn label(value: &str) -> String {
    format!("/loki/api/v1/label/{value}/values")
}

/// One server of each kind, port `<name>` and, over TLS, `<name>-tls`.
fn servers(name: &str, equals: &str, (_, target, location): (&str, &str, &str), guard: &str) -> String {
    let codes: Vec<String> = (400..600).filter(|code| *code != 499).map(|code| code.to_string()).collect();
    let returned: String =
        RETURNED.iter().map(|code| format!("if ($http_x_raise = {code}) {{ return {code}; }}\n")).collect();
    // The second backend answers 200, whatever the first was asked for.
    let fallback = "proxy_pass http://@UPSTREAM:fallback@; proxy_set_header X-Echo-Status \"\";";
    let location = location.replace("@GUARD@", guard).replace("@FALLBACK@", fallback);
    let codes = codes.join(" ");
    let (deny, gone, limit, dead, slow) =
        (label("deny"), label("gone"), label("limit"), label("dead"), label("slow"));
    let body = format!(
        r#"
        rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        error_page {codes} {equals} {target};
        recursive_error_pages on;
        proxy_intercept_errors on;
        large_client_header_buffers 4 2k;
        client_max_body_size 100;
        location / {{ {returned} proxy_pass http://@UPSTREAM@; }}
        location = {deny} {{ deny all; proxy_pass http://@UPSTREAM@; }}
        location = {gone} {{ try_files /nowhere =404; }}
        location = {limit} {{ limit_req zone=once; proxy_pass http://@UPSTREAM@; }}
        location = {dead} {{ proxy_pass http://127.0.0.1:1; }}
        location = {slow} {{ proxy_read_timeout 100ms; proxy_pass http://127.0.0.1:@PORT:silent@; }}
        {location}
        "#
    );
    let tls = "ssl_certificate @DIR@/server.pem; ssl_certificate_key @DIR@/server.key; ssl_verify_client on;
        ssl_client_certificate @DIR@/authority.pem;";
    format!(
        "server {{ listen 127.0.0.1:@PORT:{name}@; server_name localhost; {body} }}
         server {{ listen 127.0.0.1:@PORT:{name}-tls@ ssl; server_name localhost; {tls} {body} }}
         server {{ listen 127.0.0.1:@PORT:{name}-tls@ ssl; server_name beside; {tls} {body} }}"
    )
}

/// Every request that nginx answers by itself: name, what precedes, way, and the bytes. `credentials` are complete
/// header lines.
fn causes(credentials: &str) -> Vec<(String, Before, By, Vec<u8>)> {
    let line = "GET /loki/api/v1/query HTTP/1.1\r\n";
    let host = "Host: localhost\r\n";
    let long = "x".repeat(3000);
    let behind = |more: &str| format!("{line}{host}{credentials}{more}\r\n");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{host}{credentials}\r\n");
    let mut causes: Vec<(String, Before, By, String)> = [
        ("method", Partial, Plain, format!("G\"ET / HTTP/1.1\r\n{host}{credentials}\r\n")),
        ("path", Partial, Plain, get("/loki/%zz")),
        ("path of NUL", Partial, Plain, get("/loki/%00")),
        ("above the root", Partial, Plain, get("/../loki/api/v1/query")),
        ("long path", Partial, Plain, get(&format!("/loki/api/v1/query?{long}"))),
        ("host in the line", Partial, Plain, get("http://a\"b/loki/api/v1/query")),
        ("version", Partial, Plain, format!("GET /loki/api/v1/query HTTP/3.0\r\n{host}{credentials}\r\n")),
        ("two hosts", Partial, Plain, behind("Host: other\r\nX-Grafana-User: ada\r\n")),
        ("bad host", Partial, Plain, format!("{line}{credentials}Host: a/b\r\n\r\n")),
        ("NUL", Partial, Plain, behind("X-Odd: a\0b\r\n")),
        ("long header", Partial, Plain, behind(&format!("X-Long: {long}\r\nX-Grafana-User: ada\r\n"))),
        ("many headers", Partial, Plain, behind(&format!("X-Many: {}\r\n", &long[..1500]).repeat(9))),
        ("two lengths", Partial, Plain, behind("Content-Length: 0\r\nContent-Length: 0\r\n")),
        ("no host", Whole, Plain, format!("{line}{credentials}\r\n")),
        ("odd length", Whole, Plain, behind("Content-Length: x\r\n")),
        (
            "length and chunks",
            Whole,
            Plain,
            behind("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n") + "{}",
        ),
        ("other encoding", Whole, Plain, behind("Transfer-Encoding: gzip\r\n")),
        ("TRACE", Whole, Plain, behind("").replacen("GET", "TRACE", 1)),
        ("CONNECT", Whole, Plain, behind("").replacen("GET", "CONNECT", 1)),
        ("large body", Whole, Plain, behind("Content-Length: 200\r\n") + &"x".repeat(200)),
        ("plain HTTP", Whole, PlainToTls, behind("")),
        ("no certificate", Whole, Tls(None), behind("")),
        ("a stranger's certificate", Whole, Tls(Some("stranger")), behind("")),
        ("another name", Partial, Tls(Some("client")), format!("{line}{credentials}Host: beside\r\n\r\n")),
        ("deny", Allowed, Plain, get(&label("deny"))),
        ("try_files", Allowed, Plain, get(&label("gone"))),
        ("limit_req", Allowed, Plain, get(&label("limit"))),
        ("no upstream", Allowed, Plain, get(&label("dead"))),
        ("slow upstream", Allowed, Plain, get(&label("slow"))),
        ("bad chunk", Allowed, Plain, behind("Transfer-Encoding: chunked\r\n") + "zz\r\n"),
        (
            "large chunk",
            Allowed,
            Plain,
            behind("Transfer-Encoding: chunked\r\n") + "fff\r\n" + &"x".repeat(4095) + "\r\n0\r\n\r\n",
        ),
    ]
    .into_iter()
    .map(|(name, before, by, bytes)| (name.to_owned(), before, by, bytes))
    .collect();
    for status in [400, 404, 413, 429, 500, 502, 503, 504] {
        causes.push((
            format!("upstream's {status}"),
            Allowed,
            Plain,
            behind(&format!("X-Echo-Status: {status}\r\n")),
        ));
    }
    for status in RETURNED {
        causes.push((format!("return {status}"), Whole, Plain, behind(&format!("X-Raise: {status}\r\n"))));
    }
    // The client may ask for the end of the connection: nothing may depend on it.
    let closing = causes.clone().into_iter().map(|(name, before, by, bytes)| {
        let at = bytes.find(host).map_or(0, |at| at + host.len());
        let (head, rest) = bytes.split_at(at);
        (format!("{name}, close"), before, by, format!("{head}Connection: close\r\n{rest}"))
    });
    let all = causes.clone().into_iter().chain(closing.filter(|(.., bytes)| bytes.contains("close\r\n")));
    all.map(|(name, before, by, bytes)| (name, before, by, bytes.into_bytes())).collect()
}

struct Tries {
    site: Site,
    tls: Vec<(Option<&'static str>, Arc<ClientConfig>)>,
}

impl Tries {
    fn start(http: &str) -> Self {
        let site = Site::prepare(true);
        let (authority, stranger) = (Authority::new(), Authority::new());
        site.workspace.write("authority.pem", authority.pem());
        site.workspace.write("error.html", "a page of our own\n");
        authority.issue(&site.workspace, "server", false);
        authority.issue(&site.workspace, "client", false);
        stranger.issue(&site.workspace, "stranger", false);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let config = |name: Option<&str>| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.unwrap().with_root_certificates(roots.clone());
            let Some(name) = name else { return Arc::new(builder.with_no_client_auth()) };
            let read = |suffix: &str| site.workspace.read(&format!("{name}.{suffix}"));
            let chain = vec![CertificateDer::from_pem_slice(read("pem").as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(read("key").as_bytes()).unwrap();
            Arc::new(builder.with_client_auth_cert(chain, key).unwrap())
        };
        let tls = [None, Some("client"), Some("stranger")].map(|name| (name, config(name))).to_vec();
        let zone = "limit_req_zone $server_port zone=once:1m rate=1r/m;";
        let site = Site::builder().http(&format!("{zone}\n{http}")).start_in(site);
        site.expect_errors();
        Self { site, tls }
    }

    /// Sends the bytes and reads whatever comes; returns the status, 0 for none.
    fn send(&self, port: &str, by: By, bytes: &[u8]) -> u16 {
        let port = self.site.port(&if by == Plain { port.to_owned() } else { format!("{port}-tls") });
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        let mut read = |stream: &mut dyn Read| {
            let mut buffer = [0; 4096];
            // The head is enough: what went upstream went there before it.
            while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => answer.extend_from_slice(&buffer[..count]),
                }
            }
        };
        if let Tls(certificate) = by {
            let (_, config) = self.tls.iter().find(|(name, _)| *name == certificate).unwrap();
            let name = "localhost".try_into().unwrap();
            let mut stream =
                StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream);
            let _ = stream.write_all(bytes);
            read(&mut stream);
        } else {
            let _ = stream.write_all(bytes);
            read(&mut stream);
        }
        let text = String::from_utf8_lossy(&answer);
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }
}

/// A request as it went upstream was decided: without what is removed, and with the canonical tenants.
#[track_caller]
fn assert_authorised(case: &str, seen: &Seen) {
    for header in ["X-Id-Token", "Authorization", "X-Loki-Forged", "X-Prom-Label-Policy"] {
        assert!(!seen.has(header), "{case}: {header} arrived:\n{}", seen.head);
    }
    assert_eq!(seen.values("X-Scope-OrgID"), ["tenant1"], "{case}:\n{}", seen.head);
}

/// Every server: its port, kind, whether its fallback says `again`, and what the error_page says before the target.
fn variants() -> Vec<(String, &'static str, bool, &'static str)> {
    let every = KINDS.iter().flat_map(|(kind, ..)| [false, true].map(|again| (*kind, again)));
    let sound = every.filter(|(kind, again)| *kind != "page" || !again);
    let both = sound.flat_map(|(kind, again)| ["", "="].map(|equals| (kind, again, equals)));
    both.map(|(kind, again, equals)| (format!("{kind}-{again}{equals}"), kind, again, equals)).collect()
}

/// `X-Scope-OrgID` names the tenant twice: only a decision makes one of it.
const FORGED: &str = "X-Scope-OrgID: tenant1|tenant1\r\nX-Loki-Forged: 1\r\nX-Prom-Label-Policy: {}\r\n";

#[test]
fn what_nginx_raises_never_goes_upstream_undecided() {
    let http: String = variants()
        .iter()
        .map(|(name, kind, again, equals)| {
            let kind = *KINDS.iter().find(|(known, ..)| known == kind).unwrap();
            servers(name, equals, kind, if *again { AGAIN } else { "" })
        })
        .collect();
    let tries = Tries::start(&http);
    let _silent = TcpListener::bind(("127.0.0.1", tries.site.port("silent"))).unwrap();
    let token = token(&["group1"]);
    let good = format!("{FORGED}X-Id-Token: {token}\r\nAuthorization: Bearer opaque\r\n");
    let mut fell_back = std::collections::BTreeMap::new();
    for (port, kind, again, equals) in variants() {
        // The zone counts a port's requests: from the second one on they are refused.
        for (credentials, known) in [(&*good, true), (FORGED, false)] {
            for (cause, before, by, bytes) in causes(credentials) {
                let case = format!("{port}: {cause} ({}a token)", if known { "" } else { "without " });
                if cause.starts_with("limit_req") {
                    tries.send(&port, by, &bytes);
                    tries.site.upstream_of("fallback").take();
                }
                let status = tries.send(&port, by, &bytes);
                for seen in tries.site.upstream.take() {
                    assert!(known && before == Allowed, "{case}: went on:\n{}", seen.head);
                    assert_authorised(&case, &seen);
                }
                let seen = tries.site.upstream_of("fallback").take();
                for seen in &seen {
                    assert!(known && before != Partial, "{case}: fell back:\n{}", seen.head);
                    // Decided once alone: an inherited `enforce` takes what nobody decided, `again` what was allowed.
                    assert_eq!(before == Allowed, again, "{case}: fell back:\n{}", seen.head);
                    assert!(["named", "same"].contains(&kind), "{case}: fell back:\n{}", seen.head);
                    assert_authorised(&case, seen);
                }
                assert!(seen.len() <= 1, "{case}");
                *fell_back.entry((kind, again, equals, before)).or_insert(0) += seen.len();
                let complete = !cause.contains("chunk");
                if known && before == Allowed && again && complete && ["named", "same"].contains(&kind) {
                    assert_eq!(seen.len(), 1, "{case}: {status}");
                }
                assert!(equals.is_empty() || seen.is_empty() || status == 200, "{case}: {status}");
            }
        }
    }
    // The table means something: what may fall back does.
    for kind in ["named", "same"] {
        for equals in ["", "="] {
            assert!(fell_back[&(kind, true, equals, Allowed)] >= 20, "{fell_back:?}");
            assert!(fell_back[&(kind, false, equals, Whole)] >= 20, "{fell_back:?}");
        }
    }
}

/// A server whose first location fails as the client says, with a fallback of this text.
fn failing(fallback: &str) -> String {
    format!(
        r#"
        rewrite_by_lua_block {{ require("tenantauth").enforce {{ backend = "loki" }} }}
        access_log @DIR@/audit.jsonl tenantauth_audit;
        proxy_intercept_errors on;
        recursive_error_pages on;
        location / {{ proxy_pass http://@UPSTREAM@; }}
        {fallback}
        "#
    )
}

fn fails(path: &str, status: u16) -> Request {
    let request = Request::get(path).tenant("tenant1|tenant1").token(&token(&["group1"]));
    request.header("X-Echo-Status", status.to_string())
}

#[test]
fn again_passes_what_was_allowed_and_keeps_its_record() {
    let server = failing(
        r#"
        error_page 502 504 = @backup;
        location @backup {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true } }
            error_page 502 = @third;
            proxy_pass http://@UPSTREAM:backup@;
        }
        location @third {
            access_by_lua_block { require("tenantauth").enforce { again = true } }
            rewrite_by_lua_block { }
            proxy_pass http://@UPSTREAM:third@;
            proxy_set_header X-Echo-Status "";
        }"#,
    );
    let site = Site::builder().server(&server).start();
    let post = |status: u16| {
        let token = token(&["group1"]);
        let request =
            Request::new("POST", "/loki/api/v1/query?query=x").tenant("tenant1|tenant1").token(&token);
        request.header("X-Echo-Status", status.to_string()).body("query=y")
    };
    assert_allowed(&site.send(post(502)));
    for upstream in [&site.upstream, &*site.upstream_of("backup"), &*site.upstream_of("third")] {
        let seen = upstream.only();
        assert_authorised("a second and a third time", &seen);
        assert_eq!(
            (seen.method(), seen.target(), &*seen.body),
            ("POST", "/loki/api/v1/query?query=x", &b"query=y"[..])
        );
    }
    let record = site.audit(1).remove(0);
    assert_eq!(
        (&record["decision"], &record["reason"], &record["status"]),
        (&"allow".into(), &"granted".into(), &200.into())
    );
    assert_eq!(record["upstream_status"], serde_json::json!([502, 502, 200]));
    assert!(site.metrics().contains("tenantauth_audit_records_total 1\n"), "it was decided once");
}

#[test]
fn again_passes_the_path_and_scope_that_were_decided_alone() {
    let server = failing(
        r#"
        error_page 502 /loki/api/v1/labels;
        error_page 503 /loki/api/v1/rules;
        error_page 504 /ready;
        error_page 505 /loki/api/v1/tail;
        error_page 507 /loki/api/v1/push;
        location = /loki/api/v1/labels { @AGAIN@ @TO@ }
        location = /loki/api/v1/rules { @AGAIN@ @TO@ }
        location = /ready { @AGAIN@ @TO@ }
        location = /loki/api/v1/tail { @AGAIN@ @TO@ }
        location = /loki/api/v1/push { @AGAIN@ @TO@ }
        "#,
    );
    let to = "proxy_pass http://@UPSTREAM:backup@; proxy_set_header X-Echo-Status \"\";";
    let site = Site::builder().server(&server.replace("@TO@", to).replace("@AGAIN@", AGAIN)).start();
    site.expect_errors();
    let query = "/loki/api/v1/query";
    assert_eq!(site.send(fails(query, 502)).status, 502, "as the error_page says");
    let seen = site.upstream_of("backup").only();
    assert_authorised("another path of the scope", &seen);
    assert_eq!(seen.target(), "/loki/api/v1/labels");
    for status in [503, 504, 505, 507] {
        assert_denied(&site.send(fails(query, status)), "internal_error");
        site.wait_for_log("allowed as another one and came again, as `GET ");
    }
    // A URI makes a GET of it: what was allowed was a POST.
    let token = token(&["group1"]);
    let post =
        Request::new("POST", query).tenant("tenant1").token(&token).header("X-Echo-Status", "502").body("");
    assert_denied(&site.send(post), "internal_error");
    assert!(site.upstream_of("backup").take().is_empty());
}

#[test]
fn again_denies_what_was_not_allowed_before() {
    let server = r#"
        access_log @DIR@/audit.jsonl tenantauth_audit;
        location / { @AGAIN@ proxy_pass http://@UPSTREAM@; }
        location /prometheus/ {
            access_by_lua_block { require("tenantauth").enforce { again = true } }
            proxy_pass http://@UPSTREAM@;
        }
        location = /outside { rewrite_by_lua_block { } try_files /nowhere @again; }
        location @again { @AGAIN@ proxy_pass http://@UPSTREAM@; }
        location = /inside {
            rewrite_by_lua_block { }
            content_by_lua_block {
                ngx.say(ngx.location.capture("/loki/api/v1/query", { copy_all_vars = true }).status)
            }
        }
        location = /loki/api/v1/index/stats {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            content_by_lua_block {
                ngx.say(ngx.location.capture("/loki/api/v1/query", { share_all_vars = true }).status)
            }
        }
        location = /loki/api/v1/index/volume {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            auth_request /loki/api/v1/query;
            proxy_pass http://@UPSTREAM@;
        }
        location = /loki/api/v1/labels {
            rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
            access_by_lua_block { require("tenantauth").enforce { again = true } }
            proxy_pass http://@UPSTREAM@;
        }
    "#;
    let http = format!(
        "server {{ listen 127.0.0.1:@PORT:bare@; {AGAIN} location / {{ proxy_pass http://@UPSTREAM@; }} }}"
    );
    let site = Site::builder().server(&server.replace("@AGAIN@", AGAIN)).http(&http).start();
    site.expect_errors();
    let request = |path: &str| Request::get(path).tenant("tenant1|tenant1").token(&token(&["group1"]));
    for path in ["/loki/api/v1/query", "/outside"] {
        assert_denied(&site.send(request(path)), "internal_error");
    }
    let answer = site.send(request("/prometheus/api/v1/query"));
    assert_denied(&answer, "internal_error");
    assert!(answer.text().starts_with("{\"status\""), "{answer:?}");
    assert_denied(&request("/loki/api/v1/query").send(site.port("bare")), "internal_error");
    site.wait_for_log("a request that was never decided cannot pass `again`");
    for record in site.audit(3) {
        assert_eq!(
            (&record["decision"], &record["reason"]),
            (&"deny".into(), &"internal_error".into()),
            "{record}"
        );
    }
    // A subrequest shares the record of a request that was allowed, and is none.
    assert_eq!(site.send(request("/inside")).text().trim_end(), "503");
    assert_eq!(site.send(request("/loki/api/v1/index/stats")).text().trim_end(), "503");
    assert!([403, 500, 503].contains(&site.send(request("/loki/api/v1/index/volume")).status));
    assert!(site.upstream.take().is_empty());
    // Not redirected, but decided: nothing has changed since.
    assert_allowed(&site.send(request("/loki/api/v1/labels")));
    assert_authorised("the access phase", &site.upstream.only());
}

#[test]
fn again_passes_nothing_without_a_record_and_everything_while_the_gateway_only_records() {
    let fallback = r#"
        error_page 404 502 = @backup;
        location = /undecided { return 404; }
        location @backup {
            rewrite_by_lua_block { require("tenantauth").enforce { again = true } }
            proxy_pass http://@UPSTREAM:backup@;
            proxy_set_header X-Echo-Status "";
        }"#;
    let module = MODULE.replace("include @DIR@/share/tenantauth/http.conf;\n", "");
    let server = failing(fallback).replace("access_log @DIR@/audit.jsonl tenantauth_audit;", "");
    let site = Site::builder().module(&module).server(&server).start();
    site.expect_errors();
    assert_denied(&site.send(fails("/loki/api/v1/query", 502)), "internal_error");
    assert!(site.upstream_of("backup").take().is_empty());

    let until = jiff::Timestamp::from_second(crate::support::now() + 3600).unwrap();
    let policy =
        POLICY.replace("version: 1\n", &format!("version: 1\nmode: shadow\nshadow_until: {until}\n"));
    let site = Site::builder().policy(&policy).server(&failing(fallback)).start();
    site.expect_errors();
    for request in [fails("/loki/api/v1/query", 502), fails("/ready", 502), fails("/undecided", 200)] {
        assert_allowed(&site.send(request));
        let seen = site.upstream_of("backup").only();
        assert_eq!(seen.values("X-Scope-OrgID"), ["tenant1|tenant1"], "as it came");
        assert!(seen.has("X-Id-Token"), "{}", seen.head);
    }
}

/// A request over HTTP/2 without TLS, each field written out. Returns the status; 0 where the connection ended first.
fn http2(port: u16, fields: &[(&str, &str)]) -> u16 {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // HPACK: a length of 127 and above goes on in groups of seven bits.
            let mut length = text.len();
            block.push(u8::try_from(length.min(127)).unwrap());
            if length >= 127 {
                length -= 127;
                while length >= 128 {
                    block.push(u8::try_from(length % 128).unwrap() | 128);
                    length /= 128;
                }
                block.push(u8::try_from(length).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    stream.write_all(&[&preface[..], &frame(4, 0, 0, b""), &frame(1, 5, 1, &block)].concat()).unwrap();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return 0;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == 1 {
            let block = payload.strip_prefix(b"\x20").unwrap_or(&payload);
            return match block {
                [0x88, ..] => 200,
                [0x8c, ..] => 400,
                [0x48, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).parse().unwrap(),
                other => panic!("{other:02x?}"),
            };
        }
    }
}

const REWRITTEN: &str = r#"
    rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki", path_prefix = "/pre" } }
    large_client_header_buffers 8 32k;
    location / { rewrite ^/pre(/.*)$ $1 break; proxy_pass http://@UPSTREAM@; }
"#;

/// Of a request that was rewritten it is asked whether its headers were read whole: they were, in all of these.
#[test]
fn a_rewritten_request_passes_however_it_came() {
    let http = format!(
        "server {{ listen 127.0.0.1:@PORT:one@; keepalive_timeout 0; {REWRITTEN} }}
         server {{ listen 127.0.0.1:@PORT:two@ http2; {REWRITTEN} }}
         server {{ listen 127.0.0.1:@PORT:closing@ http2; keepalive_timeout 0; {REWRITTEN} }}"
    );
    let site = Site::builder().server(REWRITTEN).http(&http).start();
    let token = token(&["group1"]);
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    for port in ["", "one"] {
        for version in ["1.1", "1.0"] {
            for more in
                ["", "Connection: close\r\n", &long, &format!("Connection: close\r\n{long}{long}{long}")]
            {
                let mut client = Client::connect(site.port(port));
                let head = format!("GET /pre/loki/api/v1/query?query=x HTTP/{version}\r\nHost: a\r\n");
                client.send(format!("{head}{FORGED}{more}X-Id-Token: {token}\r\n\r\n").as_bytes());
                assert_allowed(&client.answer());
                let seen = site.upstream.only();
                assert_authorised(&format!("{port} {version} {}", more.len()), &seen);
                assert_eq!(seen.target(), "/loki/api/v1/query?query=x");
            }
        }
    }
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/pre/loki/api/v1/query"),
        ("x-scope-orgid", "tenant1|tenant1"),
        ("x-id-token", &token),
    ];
    for port in ["two", "closing"] {
        assert_eq!(http2(site.port(port), &fields), 200, "{port}");
        assert_authorised(port, &site.upstream.only());
    }
}

/// nginx refuses these in the middle of their headers; no fallback gets hold of what came before.
#[test]
fn http2_is_no_way_around() {
    let servers = |equals: &str, guard: &str, port: &str| {
        format!(
            "server {{ listen 127.0.0.1:@PORT:{port}@ http2; large_client_header_buffers 4 2k;
             rewrite_by_lua_block {{ require(\"tenantauth\").enforce {{ backend = \"loki\" }} }}
             error_page 400 403 494 503 {equals} @fallback; recursive_error_pages on;
             location / {{ proxy_pass http://@UPSTREAM@; }}
             location @fallback {{ {guard} proxy_pass http://@UPSTREAM@; }} }}"
        )
    };
    let ports = [("", "", "a"), ("=", "", "b"), ("", AGAIN, "c"), ("=", AGAIN, "d")];
    let http: String = ports.iter().map(|(equals, guard, port)| servers(equals, guard, port)).collect();
    let site = Site::builder().http(&http).start();
    site.expect_errors();
    let token = token(&["group1"]);
    let long = "x".repeat(9000);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/loki/api/v1/query"),
        ("x-scope-orgid", "tenant1|tenant1"),
        ("x-id-token", &*token),
    ];
    for (_, _, port) in ports {
        assert_eq!(http2(site.port(port), &fields), 200);
        assert_authorised(port, &site.upstream.only());
        for more in [("host", "other"), ("host", "a/b"), ("x-long", &*long), ("X-Upper", "x")] {
            http2(site.port(port), &[&fields[..], &[more, ("x-grafana-user", "ada")]].concat());
            let seen = site.upstream.take();
            assert!(seen.is_empty(), "{port} {}: {}", more.0, seen[0].head);
        }
        // A denial is sent before anything could replace it.
        assert_eq!(http2(site.port(port), &fields[..5]), 403, "{port}");
        assert_eq!(
            http2(site.port(port), &[&fields[..3], &[(":path", "/ready")], &fields[4..]].concat()),
            403
        );
        assert!(site.upstream.take().is_empty(), "{port}");
    }
}

/// Denials of either status, in every form of a request.
#[test]
fn no_error_page_replaces_a_denial() {
    let http = r#"
    server {
        listen 127.0.0.1:@PORT:mistyped@;
        rewrite_by_lua_block { require("tenantauth").enforce { backed = "loki" } }
        error_page 403 500 503 = @fallback; recursive_error_pages on; proxy_intercept_errors on;
        location / { proxy_pass http://@UPSTREAM@; }
        location @fallback { rewrite_by_lua_block { } proxy_pass http://@UPSTREAM@; }
    }"#;
    let server = r#"
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        error_page 403 500 503 = @fallback; recursive_error_pages on; proxy_intercept_errors on;
        location / { proxy_pass http://@UPSTREAM@; }
        location @fallback { rewrite_by_lua_block { } proxy_pass http://@UPSTREAM@; }
    "#;
    let site = Site::builder().http(http).server(server).start();
    site.expect_errors();
    for (port, expected) in [("", 403), ("mistyped", 503)] {
        for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
            for version in ["1.1", "1.0"] {
                let mut client = Client::connect(site.port(port));
                client.send(
                    format!("{method} /loki/api/v1/query HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes(),
                );
                let answer = client.answer_to(method);
                assert_eq!(answer.status, expected, "{port} {method} {version}: {answer:?}");
                assert!(!answer.reason().is_empty(), "{answer:?}");
            }
        }
        // HTTP/0.9 has no headers to answer with.
        let mut client = Client::connect(site.port(port));
        client.send(b"GET /loki/api/v1/query\r\n");
        assert!(client.answer_or_end().is_none(), "{port}");
        assert!(site.upstream.take().is_empty(), "{port}");
    }
}
