//! `tenantauth doctor`: nothing in the shipped configurations, and each of their broken variants at its line.

use super::{Room, Run};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const MINIMAL: &str = include_str!("../../nginx/examples/minimal.conf");
const WHOLE: &str = include_str!("../../nginx/examples/mimir-loki-tempo.conf");
const GRAFANA: &str = include_str!("../../nginx/examples/grafana-gateway.conf");
const DROP_IN: &str = include_str!("../../nginx/examples/drop-in.conf");

/// A room with what is installed, as far as a configuration names it.
fn machine() -> Room {
    let room = Room::new();
    for directory in ["lib/tenantauth", "share/tenantauth/image", "etc-nginx/modules-enabled", "run"] {
        fs::create_dir_all(room.path(directory)).unwrap();
    }
    room.write("lib/tenantauth/tenantauth.so", "");
    room.write("share/tenantauth/http.conf", include_str!("../../nginx/http.conf"));
    room.write("etc-nginx/auth.lua", include_str!("../../lua/auth.lua"));
    room
}

/// The configuration with the room's paths.
fn here(room: &Room, text: &str) -> String {
    let root = room.0.display();
    text.replace("/etc/tenantauth/", &format!("{root}/"))
        .replace("/etc/nginx/", &format!("{root}/etc-nginx/"))
        .replace("/usr/local/", &format!("{root}/"))
}

fn examine(room: &Room, text: &str, flags: &[&str]) -> Run {
    room.write("nginx.conf", text);
    room.run(&[&["doctor", "--nginx", "nginx.conf"], flags].concat())
}

#[track_caller]
fn is_sound(run: &Run) {
    assert_eq!((run.status, &*run.err), (0, ""), "{}", run.out);
    assert!(run.out.ends_with(": 0 faults, 0 hints\n"), "{}", run.out);
}

#[test]
fn nothing_is_found_in_the_examples() {
    let room = machine();
    for example in [MINIMAL, WHOLE, GRAFANA, DROP_IN] {
        is_sound(&examine(&room, &here(&room, example), &[]));
        // Of another machine: nothing of this one is looked at, but for what is included.
        let elsewhere = example.replace("/usr/local/share", &format!("{}/share", room.0.display()));
        is_sound(&examine(&room, &elsewhere, &["--no-files"]));
    }
}

/// The entrypoint's own configurations, with every backend and with none of the defaults.
#[test]
fn nothing_is_found_in_what_the_image_makes() {
    let room = machine();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for template in fs::read_dir(repository.join("deploy/image")).unwrap() {
        let template = template.unwrap().path();
        if template.extension().is_some_and(|extension| extension == "conf") {
            let to = room.path("share/tenantauth/image").join(template.file_name().unwrap());
            fs::copy(&template, to).unwrap();
        }
    }
    let url = "http://backend.example.org:3100";
    let backends = ["MIMIR_URL", "LOKI_URL", "TEMPO_URL", "PYROSCOPE_URL"].map(|name| (name, url));
    let otlp = ("TEMPO_OTLP_URL", "http://backend.example.org:4318");
    let keys = room.path("client-ip.keys").display().to_string();
    let grafana = [
        ("TENANTAUTH_MODE", "grafana-gateway"),
        ("GRAFANA_URL", url),
        ("TENANTAUTH_KEYS_FILE", &keys),
        ("TENANTAUTH_LOAD_BALANCERS", "10.0.128.0/24"),
    ];
    let log = room.path("audit.jsonl").display().to_string();
    let file = [("TENANTAUTH_AUDIT_LOG", &*log), ("LOKI_URL", url)];
    for variables in [&[&backends[..], &[otlp]].concat()[..], &backends[..1], &grafana, &file] {
        let root = room.0.display().to_string();
        let output = Command::new("sh")
            .arg(repository.join("deploy/image/entrypoint.sh"))
            .arg("render")
            .env("TENANTAUTH_PREFIX", &root)
            .env("TENANTAUTH_RUN_DIR", format!("{root}/run"))
            .env("TENANTAUTH_POLICY", format!("{root}/policy.yaml"))
            .env("TENANTAUTH_STATE_DIR", &root)
            .env("TENANTAUTH_RESOLVER", "127.0.0.1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        is_sound(&room.run(&["doctor", "--nginx", "run/nginx.conf"]));
    }
}

/// What the pages show, in the context that they say, may be part of a configuration; it holds no fault.
#[test]
fn nothing_is_found_in_what_the_pages_show() {
    let room = machine();
    let share = format!("{}/share", room.0.display());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(repository.join("docs")).unwrap().map(|page| page.unwrap().path());
    let mut seen = 0;
    for page in pages.chain([repository.join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```nginx\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let in_http = block.starts_with("# in http { }");
            let calls = block.contains("tenantauth\")") || block.contains("auth.lua");
            let mut http = String::new();
            for (directive, line) in [
                ("lua_package_cpath", "lua_package_cpath \"/usr/local/lib/tenantauth/?.so;;\";"),
                ("lua_shared_dict", "lua_shared_dict tenantauth 10m;"),
                ("http.conf", "include /usr/local/share/tenantauth/http.conf;"),
                ("access_log", "access_log /var/log/nginx/audit.jsonl tenantauth_audit;"),
                ("large_client", "large_client_header_buffers 8 32k;"),
            ] {
                if !block.contains(directive) {
                    http += &format!("{line}\n");
                }
            }
            let block =
                if in_http { block.to_owned() } else { format!("server {{\nlisten 8080;\n{block}}}\n") };
            let whole = format!("http {{\n{http}{block}}}\n").replace("/usr/local/share", &share);
            let run = examine(&room, &whole, &["--no-files", "--format", "json"]);
            let mut found = run.json()["findings"].as_array().unwrap().clone();
            // What a part does not call it does not protect.
            found.retain(|finding| calls || finding["kind"] != "not_called");
            found.retain(|finding| finding["kind"] != "not_called" || !block.contains("auth.lua"));
            assert!(found.is_empty(), "{}: {found:#?}\n{whole}", page.display());
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen}");
}

/// A change of an example: what is replaced by what, and the kind that is then found, in the line that holds the mark.
struct Broken {
    example: &'static str,
    changes: &'static [(&'static str, &'static str)],
    severity: &'static str,
    kind: &'static str,
    mark: &'static str,
}

const fn fault(
    example: &'static str,
    changes: &'static [(&'static str, &'static str)],
    kind: &'static str,
    mark: &'static str,
) -> Broken {
    Broken { example, changes, severity: "fault", kind, mark }
}

const fn hint(
    example: &'static str,
    changes: &'static [(&'static str, &'static str)],
    kind: &'static str,
    mark: &'static str,
) -> Broken {
    Broken { example, changes, severity: "hint", kind, mark }
}

const LOKI: &str = "location / { proxy_pass http://loki; }";
const CPATH: &str = "lua_package_cpath \"/usr/local/lib/tenantauth/?.so;;\";";
const LOG: &str = "access_log /var/log/nginx/audit.jsonl tenantauth_audit buffer=64k flush=1s;";
const STAMP: &str = "rewrite_by_lua_block { require(\"tenantauth\").stamp_client_ip { keys_file = \
 \"/etc/tenantauth/client-ip.keys\" } }";

const BROKEN: &[Broken] = &[
    // Options, functions, phases.
    fault(MINIMAL, &[("\"loki\" }", "\"lok\" }")], "option_value", "\"lok\""),
    fault(MINIMAL, &[("{ policy =", "{ polcy =")], "option_unknown", "polcy"),
    fault(MINIMAL, &[("enforce {", "enforc {")], "unknown_function", "enforc {"),
    fault(MINIMAL, &[("rewrite_by_lua_block", "header_filter_by_lua_block")], "phase", "header_filter"),
    fault(MINIMAL, &[("init_worker_by_lua_block", "init_by_lua_block")], "phase", "init_by_lua"),
    fault(
        GRAFANA,
        &[("keys_file = \"/etc/tenantauth/client-ip.keys\"", "ttl = 60")],
        "option_conflict",
        "ttl = 60",
    ),
    fault(GRAFANA, &[(".keys\" }", ".keys\", ttl = 900 }")], "option_value", "ttl = 900"),
    fault(
        WHOLE,
        &[(
            "enforce { backend = \"tempo\" }",
            "enforce {\n  backend = \"tempo\",\n  path_prefx = \"/tempo\",\n}",
        )],
        "option_unknown",
        "path_prefx",
    ),
    fault(
        MINIMAL,
        &[("require(\"tenantauth\").enforce { backend", "local t = require 'tenantauth'; t.enforce{ bakend")],
        "option_unknown",
        "bakend",
    ),
    // Module, dict, files.
    fault(MINIMAL, &[(CPATH, "")], "module", "init_worker_by_lua_block {"),
    fault(MINIMAL, &[("lib/tenantauth/?.so", "lib/?.so")], "module", "lib/?.so"),
    hint(MINIMAL, &[("lua_shared_dict tenantauth 10m;", "")], "shared_dict", "enforce {"),
    fault(
        MINIMAL,
        &[("policy.yaml\" }", "policy.yaml\", shared_dict = \"gate\" }")],
        "shared_dict",
        "\"gate\"",
    ),
    hint(MINIMAL, &[("include /usr/local/share/tenantauth/http.conf;", "")], "http_conf", "enforce {"),
    fault(MINIMAL, &[("tenantauth/http.conf", "tenantauth/htpp.conf")], "include_missing", "htpp.conf"),
    fault(MINIMAL, &[("policy.yaml\" }", "polciy.yaml\" }")], "file_missing", "polciy.yaml"),
    fault(
        MINIMAL,
        &[("\"/etc/tenantauth/policy", "\"tenantauth/policy")],
        "relative_path",
        "\"tenantauth/policy",
    ),
    fault(GRAFANA, &[("client-ip.keys\"", "client.keys\"")], "file_missing", "client.keys"),
    fault(
        DROP_IN,
        &[("by_lua_file /etc/nginx/auth.lua;", "by_lua_file /etc/nginx/outh.lua;")],
        "lua_file",
        "outh.lua;",
    ),
    fault(DROP_IN, &[("env TENANTAUTH_POLICY;", "env TENANTAUTH_POLICY=/none.yaml;")], "file_missing", ""),
    fault(MINIMAL, &[("http {", "http {\nlua_code_cache off;")], "code_cache", "lua_code_cache"),
    hint(MINIMAL, &[("error.log notice;", "error.log info;")], "error_log", "error.log info;"),
    // Who is not decided, or twice.
    fault(
        MINIMAL,
        &[(LOKI, "location / { rewrite_by_lua_block { } proxy_pass http://loki; }")],
        "empty_block",
        "rewrite_by_lua_block { }",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "location / { rewrite_by_lua_block { ngx.req.set_header('X-A', '}') } proxy_pass http://loki; }",
        )],
        "replaced",
        "'X-A'",
    ),
    fault(
        MINIMAL,
        &[(
            "listen 127.0.0.1:9145;",
            "listen 127.0.0.1:9145; location /loki { proxy_pass http://127.0.0.1:3100; }",
        )],
        "unprotected",
        "location /loki",
    ),
    fault(
        WHOLE,
        &[
            ("        rewrite_by_lua_block { require(\"tenantauth\").enforce { backend = \"loki\" } }\n", ""),
            ("location = /v1/traces", "location /loki { proxy_pass http://loki; }\nlocation = /v1/traces"),
        ],
        "unprotected",
        "location / { proxy_pass http://loki; }",
    ),
    hint(
        WHOLE,
        &[("        rewrite_by_lua_block { require(\"tenantauth\").enforce { backend = \"loki\" } }\n", "")],
        "unprotected",
        "location / { proxy_pass http://loki; }",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "error_page 502 = @spare; location @spare { proxy_pass http://10.0.2.20:3100; } location / { \
             proxy_pass http://loki; }",
        )],
        "fallback_denied",
        "error_page 502",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "error_page 502 /oops.html;\nlocation = /oops.html { root /srv; } location / { proxy_pass \
             http://loki; }",
        )],
        "fallback_denied",
        "error_page 502",
    ),
    fault(
        MINIMAL,
        &[(LOKI, "location / { try_files $uri @loki; } location @loki { proxy_pass http://loki; }")],
        "fallback_denied",
        "try_files",
    ),
    hint(
        MINIMAL,
        &[(
            LOKI,
            "error_page 502 /spare; location /spare { rewrite_by_lua_block { \
             require(\"tenantauth\").enforce { again = true } } proxy_pass http://10.0.2.20:3100; } \
             location / { proxy_pass http://loki; }",
        )],
        "fallback_by_uri",
        "error_page 502",
    ),
    hint(
        MINIMAL,
        &[(
            LOKI,
            "location / { rewrite_by_lua_block { require(\"tenantauth\").enforce { again = true } } \
             proxy_pass http://loki; }",
        )],
        "again_from_outside",
        "again = true",
    ),
    fault(
        MINIMAL,
        &[
            ("include /usr/local/share/tenantauth/http.conf;", ""),
            (
                LOKI,
                "location @b { rewrite_by_lua_block { require(\"tenantauth\").enforce { again = true } } \
                 proxy_pass http://loki; }",
            ),
        ],
        "http_conf",
        "again = true",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "location / { access_by_lua_block { require(\"tenantauth\").enforce { } } proxy_pass \
             http://loki; }",
        )],
        "decided_twice",
        "access_by_lua_block",
    ),
    fault(
        MINIMAL,
        &[("rewrite_by_lua_block", "satisfy any; access_by_lua_block")],
        "satisfy_any",
        "satisfy any",
    ),
    fault(
        MINIMAL,
        &[("rewrite_by_lua_block", "auth_request /auth; access_by_lua_block")],
        "auth_request",
        "auth_request",
    ),
    // Caches, headers, paths.
    fault(
        MINIMAL,
        &[(LOKI, "location / { proxy_cache c; proxy_pass http://loki; }")],
        "cache_key",
        "proxy_cache c;",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "location / { proxy_cache c; proxy_cache_key $request_uri$tenantauth_tenants; proxy_pass \
             http://loki; }",
        )],
        "cache_key",
        "proxy_cache_key",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "location / { proxy_cache c; proxy_cache_key $http_x_scope_orgid$request_uri; proxy_pass \
             http://loki; }",
        )],
        "cache_key",
        "proxy_cache_key",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "location / { proxy_cache c; proxy_cache_key $tenantauth_tenants$request_uri; \
             proxy_cache_methods POST; proxy_pass http://loki; }",
        )],
        "cache_methods",
        "proxy_cache_methods",
    ),
    fault(
        MINIMAL,
        &[("listen 8080;", "listen 8080; underscores_in_headers on;")],
        "header_forms",
        "underscores",
    ),
    fault(
        MINIMAL,
        &[("listen 8080;", "listen 8080; ignore_invalid_headers off;")],
        "header_forms",
        "ignore_invalid",
    ),
    fault(MINIMAL, &[("buffers 8 32k", "buffers 8 4k")], "header_buffers", "buffers 8 4k"),
    hint(MINIMAL, &[("large_client_header_buffers 8 32k;", "")], "header_buffers", "server {"),
    fault(
        MINIMAL,
        &[(LOKI, "location / { proxy_pass http://loki; proxy_set_header X-Scope-OrgID tenant1; }")],
        "tenants_overwritten",
        "proxy_set_header",
    ),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "location / { set $c $http_connection; proxy_pass http://loki; proxy_set_header Connection $c; }",
        )],
        "header_copy",
        "proxy_set_header",
    ),
    fault(
        MINIMAL,
        &[(LOKI, "location /team/ { proxy_pass http://loki/; }")],
        "path_changed",
        "location /team/",
    ),
    hint(
        MINIMAL,
        &[("backend = \"loki\" }", "backend = \"loki\", path_prefix = \"/logs\" }")],
        "path_prefix",
        "proxy_pass http://loki",
    ),
    hint(
        MINIMAL,
        &[("http {", "http {\nlimit_req_zone $http_x_scope_orgid zone=z:1m rate=9r/s;")],
        "tenants_unproven",
        "limit_req_zone",
    ),
    fault(
        GRAFANA,
        &[("set_real_ip_from 10.0.128.0/24", "set_real_ip_from 0.0.0.0/0")],
        "real_ip",
        "0.0.0.0/0",
    ),
    hint(GRAFANA, &[("set_real_ip_from 10.0.128.0/24;", "")], "real_ip", "server {"),
    hint(GRAFANA, &[("real_ip_header X-Forwarded-For;", "")], "real_ip", "server {"),
    hint(GRAFANA, &[(STAMP, "")], "not_called", ""),
    fault(
        GRAFANA,
        &[
            ("        location / {\n            rewrite", "        rewrite"),
            (
                STAMP,
                concat!(
                    "rewrite_by_lua_block { require(\"tenantauth\").stamp_client_ip { unsigned = true } }\n",
                    "location / { rewrite_by_lua_block { }"
                ),
            ),
        ],
        "replaced",
        "rewrite_by_lua_block { }",
    ),
    hint(
        MINIMAL,
        &[(
            "content_by_lua_block { require(\"tenantauth\").m",
            "access_by_lua_block { require(\"tenantauth\").m",
        )],
        "phase",
        "metrics",
    ),
    // Records, and the operator's server.
    hint(MINIMAL, &[(LOG, "")], "audit_log", "server {"),
    hint(MINIMAL, &[(LOG, "access_log off;")], "audit_log", "access_log off;"),
    fault(
        MINIMAL,
        &[
            ("http {", "http {\nlog_format mine '$tenantauth_audit';"),
            ("jsonl tenantauth_audit", "jsonl mine"),
        ],
        "audit_escaped",
        "log_format mine",
    ),
    hint(MINIMAL, &[("/var/log/nginx/audit.jsonl", "syslog:server=unix:/dev/log")], "audit_pipe", "syslog:"),
    hint(MINIMAL, &[("listen 127.0.0.1:9145;", "listen 9145;")], "admin_listener", "listen 9145;"),
    fault(
        MINIMAL,
        &[(
            LOKI,
            "location / { proxy_pass http://loki; } location /m { content_by_lua_block { \
             require('tenantauth').metrics() } }",
        )],
        "admin_denied",
        "'tenantauth'",
    ),
];

#[test]
fn each_broken_variant_is_found_at_its_line() {
    let room = machine();
    for Broken { example, changes, severity, kind, mark } in BROKEN {
        let mut text = (*example).to_owned();
        for (from, to) in *changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let text = here(&room, &text);
        let run = examine(&room, &text, &["--format", "json"]);
        let findings = run.json()["findings"].as_array().unwrap().clone();
        let found: Vec<&Value> = findings
            .iter()
            .filter(|finding| finding["kind"] == *kind && finding["severity"] == *severity)
            .collect();
        assert_eq!(found.len(), 1, "{kind} {changes:?}: {findings:#?}");
        assert_eq!(run.status, if *severity == "fault" { 2 } else { 0 }, "{kind} {changes:?}: {findings:#?}");
        let (file, line) = (found[0]["file"].as_str().unwrap(), found[0]["line"].as_u64().unwrap());
        if mark.is_empty() {
            continue;
        }
        assert_eq!(file, "nginx.conf");
        let line = text.lines().nth(usize::try_from(line).unwrap() - 1).unwrap();
        assert!(line.contains(&here(&room, mark)), "{kind} {changes:?}: `{line}`\n{findings:#?}");
        for finding in &findings {
            let help = finding["help"].as_str().unwrap();
            let message = finding["message"].as_str().unwrap();
            assert!(!help.is_empty() && !help.ends_with('.') && !message.ends_with('.'), "{finding}");
        }
    }
    assert!(BROKEN.len() > 50);
}

#[test]
fn people_read_place_message_and_help() {
    let room = machine();
    let text = here(&room, &MINIMAL.replace("\"loki\" }", "\"lok\" }"));
    let line = text.lines().position(|line| line.contains("\"lok\"")).unwrap() + 1;
    let run = examine(&room, &text, &[]);
    let expected = format!(
        "nginx.conf:{line}: tenantauth.enforce: option `backend` names an unknown backend `lok`: it must \
         be one of \
         mimir, loki, tempo, pyroscope\n  help: docs/reference.md lists the options of `enforce`\n"
    );
    assert_eq!((run.status, &*run.err, &*run.out), (2, &*expected, "nginx.conf: 1 fault, 0 hints\n"));
}

/// Before a reload only what denies everybody fails.
#[test]
fn a_reload_fails_only_for_what_denies_everybody() {
    let room = machine();
    let lok = here(&room, &MINIMAL.replace("\"loki\" }", "\"lok\" }"));
    assert_eq!(examine(&room, &lok, &["--start"]).status, 2);
    let cached = MINIMAL.replace(LOKI, "location / { proxy_cache c; proxy_pass http://loki; }");
    let run = examine(&room, &here(&room, &cached), &["--start"]);
    assert_eq!(run.status, 0);
    assert!(run.err.contains("`proxy_cache` without a key"), "{}", run.err);
    assert_eq!(examine(&room, &here(&room, &cached), &[]).status, 2);
}

/// What `nginx -T` prints names the file of each line, also on stdin and behind the verdict of the test.
#[test]
fn a_dump_is_read_with_its_files() {
    let room = machine();
    let main = here(&room, WHOLE);
    let (head, _) = main.split_once("    server {\n        listen 8081;").unwrap();
    let main = format!("{head}    include {}/etc-nginx/conf.d/*.conf;\n}}\n", room.0.display());
    let site = "server {\n    listen 8081;\n    rewrite_by_lua_block { require(\"tenantauth\").enforce { \
     backend = \"mimr\" } }\n    location / { proxy_pass http://mimir; }\n}\n";
    let root = room.0.display();
    let http = include_str!("../../nginx/http.conf");
    let dump = format!(
        "nginx: the configuration file {root}/etc-nginx/nginx.conf syntax is ok\nnginx: configuration file \
         {root}/etc-nginx/nginx.conf test is successful\n# configuration file \
         {root}/etc-nginx/nginx.conf:\n{main}\n\
         # configuration file {root}/share/tenantauth/http.conf:\n{http}\n# configuration file \
         {root}/etc-nginx/conf.d/mimir.conf:\n{site}\n"
    );
    let run = room.run_with(&["doctor", "--nginx", "-"], &dump);
    assert_eq!(run.status, 2, "{}", run.err);
    let place = format!("{root}/etc-nginx/conf.d/mimir.conf:3: tenantauth.enforce: option `backend` names");
    assert!(run.err.starts_with(&place), "{}", run.err);
    assert_eq!(run.out, "-: 1 fault, 0 hints\n", "{}", run.err);
}

#[test]
fn what_is_no_configuration_is_1_with_help() {
    let room = machine();
    let run = room.run(&["doctor", "--nginx", "nowhere.conf"]);
    run.complains(1, "error: cannot read `nowhere.conf`: no such file or directory");
    assert!(run.err.contains("\n  help: write the path of nginx.conf"), "{}", run.err);
    for (text, complaint) in [
        ("http {\n", "nginx.conf:2: unexpected end of file, expecting `}`"),
        ("http {\n}\n}\n", "nginx.conf:3: unexpected `}`"),
        ("worker_processes 1", "nginx.conf:1: unexpected end of file, expecting `;` or `{`"),
        ("http {\n  ;\n}\n", "nginx.conf:2: unexpected `;`"),
        ("a 'b'c;\n", "nginx.conf:1: unexpected `c`"),
        ("a 'b\n", "nginx.conf:2: unexpected end of file, expecting the quote that ends a text"),
        (
            "rewrite_by_lua_block {\n '}' --}\n",
            "nginx.conf:1: unexpected end of file, expecting the `}` that ends Lua code",
        ),
        ("include nginx.conf;\n", "nginx.conf:1: blocks and includes are nested deeper than 40 levels"),
    ] {
        let run = examine(&room, text, &[]);
        run.complains(1, complaint);
        assert!(run.err.contains("\n  help: `nginx -t` reports the same"), "{}", run.err);
    }
}

/// The policy that the configuration names is read for what concerns nginx.
#[test]
fn a_balancer_in_a_permitted_network_is_found() {
    let room = machine();
    for (trusted, hints) in [("203.0.113.0/28", 1), ("203.0.0.0/16", 1), ("10.0.0.0/8", 0)] {
        let real_ip = format!("listen 8080; set_real_ip_from {trusted}; real_ip_header X-Forwarded-For;");
        let text = MINIMAL
            .replace("\"loki\" }", "\"loki\", client_ip = \"remote_addr\" }")
            .replace("listen 8080;", &real_ip);
        let run = examine(&room, &here(&room, &text), &[]);
        assert_eq!(
            run.out,
            format!("nginx.conf: 0 faults, {hints} hint{}\n", if hints == 1 { "" } else { "s" }),
            "{}",
            run.err
        );
        assert_eq!(run.err.contains("overlaps a network that the restriction `"), hints == 1, "{}", run.err);
    }
}
