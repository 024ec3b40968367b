//! What is read, and what is not complained about.

use super::files::{Files, Here, Nowhere};
use super::lua::{self, Value};
use super::nginx::{Body, Directive, glob};
use super::{Finding, Kind, examine, read};
use std::fs;
use std::path::{Path, PathBuf};

fn directives(text: &str) -> Vec<Directive> {
    read("nginx.conf", text, &Nowhere).unwrap().directives
}

fn words(directive: &Directive) -> Vec<&str> {
    std::iter::once(&directive.name).chain(&directive.arguments).map(String::as_str).collect()
}

/// The findings in a configuration for another machine, without those about the module and its records.
fn found(text: &str) -> Vec<Finding> {
    let configuration = read("nginx.conf", text, &Nowhere).unwrap();
    let mut found = examine(&configuration, &Nowhere);
    let setup = [Kind::Module, Kind::SharedDict, Kind::HttpConf, Kind::HeaderBuffers, Kind::NotCalled];
    found.retain(|finding| !setup.contains(&finding.kind));
    found
}

fn kinds(text: &str) -> Vec<(Kind, u32)> {
    found(text).iter().map(|finding| (finding.kind, finding.place.line)).collect()
}

/// As nginx 1.22 reads them.
#[test]
fn words_are_those_of_nginx() {
    let read = directives(
        "a b\\ c \"d;{}#\" 'e\\'f' g#h ${i}j k}l; # m;\nn\\;o \"\\t\\x\\\\\" # p\n;q{}\nr \"\" s\\\\t\\\"u;",
    );
    let read: Vec<_> = read.iter().map(words).collect();
    let expected = [
        &["a", "b\\ c", "d;{}#", "e'f", "g#h", "${i}j", "k}l"][..],
        &["n\\;o", "\t\\x\\"],
        &["q"],
        &["r", "", "s\\t\"u"],
    ];
    assert_eq!(read, expected);
}

#[test]
fn lua_ends_at_its_own_brace() {
    for code in [
        " a = { b = { } } ",
        " '}' \"}\" '\\'}' [[}]] [==[ }]] ]==] ",
        " -- }\n x() --[[ }\n } ]] y() ",
        " a[b[1]] = { [c] = 1 } ",
        "\n",
    ] {
        let read = directives(&format!("rewrite_by_lua_block {{{code}}}\nnext 1;"));
        assert!(matches!(&read[0].body, Body::Lua(own, 1) if own == code), "{code}: {read:?}");
        let line = 2 + u32::try_from(code.matches('\n').count()).unwrap();
        assert_eq!((words(&read[1]), read[1].place.line), (vec!["next", "1"], line), "{code}");
    }
}

#[test]
fn calls_are_found_by_every_name() {
    for code in [
        "require(\"tenantauth\").enforce { backend = 'loki' }",
        "require 'tenantauth'.enforce({ [\"backend\"] = [[loki]]; })",
        "local t = require \"tenantauth\" ; t . enforce { backend = \"loki\", }",
        "t = require('tenantauth')\nlocal e = t.enforce\n e { backend = 'loki' }",
        "local e = require('tenantauth').enforce e({ backend = 'loki' --[[ } ]] })",
        "local ok = pcall(function() require('tenantauth').enforce { backend = 'loki' } end)",
    ] {
        let read = lua::read(code);
        assert_eq!(read.calls.len(), 1, "{code}: {read:?}");
        assert_eq!(read.calls[0].function, "enforce", "{code}");
        let Value::Table(entries) = &read.calls[0].options else { panic!("{code}: {read:?}") };
        assert_eq!(entries.len(), 1, "{code}");
        assert_eq!(entries[0].name.as_deref(), Some("backend"), "{code}");
        assert_eq!(entries[0].value, Value::Text("loki".to_owned()), "{code}");
        assert!(!read.loads_others, "{code}");
    }
    // Handed on, it may be called with anything.
    let read =
        lua::read("local t = require 'tenantauth' pcall(t.enforce, { polcy = 1 }) x.enforce { polcy = 1 }");
    assert_eq!((read.calls.len(), &read.calls[0].options), (1, &Value::Unknown));
    // What loads other code may do anything.
    for code in ["require 'gateway'.run()", "dofile('/x.lua')", "local ok, t = pcall(require, 'tenantauth')"]
    {
        assert!(lua::read(code).loads_others, "{code}");
    }
    assert!(!lua::read("local base = require 'resty.core.base'").loads_others);
    assert!(lua::read(" -- only\n --[[ comments ]] ").is_empty);
}

#[test]
fn options_that_are_worked_out_are_unknown() {
    let read = lua::read(
        "require'tenantauth'.enforce { backend = f({ 1, 2 }, 'a'), path_prefix = '/a' .. b, again = true }",
    );
    let Value::Table(entries) = &read.calls[0].options else { panic!("{read:?}") };
    let values: Vec<_> = entries.iter().map(|entry| &entry.value).collect();
    assert_eq!(values, [&Value::Unknown, &Value::Unknown, &Value::Boolean(true)]);
}

const ENFORCE: &str = "rewrite_by_lua_block { require('tenantauth').enforce { } }";

/// Configurations that are unusual and sound.
#[test]
fn no_alarm_where_something_may_be_meant() {
    let again = "rewrite_by_lua_block { require('tenantauth').enforce { again = true } }";
    for sound in [
        // TLS in front of the gateway, in the same nginx.
        format!(
            "server {{ listen 8080; {ENFORCE} location / {{ proxy_pass http://loki; }} }} server {{ \
         listen 443 ssl; location / {{ proxy_pass http://127.0.0.1:8080; }} }}"
        ),
        // Code of the user's own, which calls anything.
        format!(
            "server {{ {ENFORCE} location / {{ proxy_pass http://loki; }} location /x {{ \
         rewrite_by_lua_block {{ require('mine').run() }} proxy_pass http://loki; }} }}"
        ),
        "server { rewrite_by_lua_file /etc/nginx/gone.lua; location / { proxy_pass http://loki; } \
         }"
        .to_owned(),
        // An authentication server is no backend.
        format!(
            "server {{ {ENFORCE} auth_request /auth; location / {{ proxy_pass http://loki; }} \
         location = /auth {{ internal; rewrite_by_lua_block {{ }} proxy_pass http://login; }} }}"
        ),
        format!(
            "server {{ {ENFORCE} error_page 502 = @spare; location / {{ proxy_pass http://loki; }} \
         location @spare {{ {again} proxy_pass http://spare; }} }}"
        ),
        format!(
            "server {{ {ENFORCE} error_page 500 /e.html; location / {{ proxy_pass http://loki; }} \
         location = /e.html {{ internal; rewrite_by_lua_block {{ }} root /srv; }} }}"
        ),
        format!(
            "server {{ {ENFORCE} error_page 500 /e; location / {{ proxy_pass http://loki; }} location \
         = /e {{ return 500 x; }} }}"
        ),
        format!(
            "server {{ {ENFORCE} error_page 500 https://example.org/; location / {{ proxy_pass \
         http://loki; try_files $uri =404; }} }}"
        ),
        // An `if` chooses between both.
        "server { rewrite_by_lua_block { local t = require 'tenantauth' if ngx.var.a == 'b' then \
         t.enforce { backend = 'loki' } else t.enforce { backend = 'mimir' } end } location / { \
         proxy_pass http://b; } }"
            .to_owned(),
        // A prefix that both remove.
        "server { rewrite_by_lua_block { require 'tenantauth'.enforce { path_prefix = '/pre' } } location \
         /pre/ { proxy_pass http://mimir/; } }"
            .to_owned(),
        format!("server {{ {ENFORCE} location /loki/ {{ proxy_pass http://loki/loki/; }} }}"),
        format!(
            "server {{ {ENFORCE} location / {{ proxy_pass http://loki; proxy_cache c; proxy_cache_key \
         \"$request_method $tenantauth_tenants $request_uri\"; }} }}"
        ),
        format!(
            "server {{ {ENFORCE} location / {{ proxy_pass http://loki; proxy_set_header X-Scope-OrgID \
         $tenantauth_tenants; proxy_set_header Connection $http_connection; }} }}"
        ),
        "server { listen 10.0.0.1:9145; allow 10.0.0.0/8; deny all; location /m { content_by_lua_block { \
         require('tenantauth').metrics() } } }"
            .to_owned(),
        "server { listen unix:/run/x.sock; listen [::1]:80; listen localhost:81; location /m { \
         content_by_lua_block { require('tenantauth').metrics() } } }"
            .to_owned(),
    ] {
        let text = format!("http {{\n{sound}\n}}");
        assert_eq!(found(&text), [], "{text}");
    }
}

/// Inheritance is that of nginx: code of a location takes the place of the server's.
#[test]
fn code_of_a_location_replaces_the_servers() {
    let text = format!(
        "http {{\n{ENFORCE}\nserver {{\nlocation /a {{ proxy_pass http://a; }}\nlocation /b \
         {{\nrewrite_by_lua_block {{ ngx.say() }}\n\
         location /b/c {{ proxy_pass http://b; }}\n}}\n}}\n}}"
    );
    assert_eq!(kinds(&text), [(Kind::Replaced, 6)]);
}

#[test]
fn backends_are_compared_by_their_addresses() {
    for other in ["http://127.0.0.1:3100", "http://LOCALHOST:3100/x", "http://other", "http://$b"] {
        let text = format!(
            "http {{ upstream loki {{ server localhost:3100; }} upstream other {{ server 10.0.0.1; server \
             127.0.0.1:3100; }}\n\
             server {{ {ENFORCE} location / {{ proxy_pass http://loki; }} }}\n\
             server {{ set $b loki;\nlocation / {{ set $b loki; proxy_pass {other}; }} }} }}"
        );
        let expected =
            if other == "http://$b" { "reach `http://$b` undecided" } else { "protected elsewhere" };
        let found = found(&text);
        assert!(found.len() == 1 && found[0].message.contains(expected), "{other}: {found:?}");
        assert_eq!(found[0].place.line, 4);
    }
}

#[test]
fn patterns_are_those_of_glob() {
    for (pattern, name, fits) in [
        ("/a/*.conf", "/a/b.conf", true),
        ("/a/*.conf", "/a/b/c.conf", false),
        ("/a/*", "/a/", true),
        ("*a*b*c", "xaxbxbxc", true),
        ("*a*b*c", "xaxbxbx", false),
        ("[a-c]?[!x]", "bzy", true),
        ("[a-c]?[!x]", "bzx", false),
        ("[]x]", "]", true),
        ("[", "[", false),
        ("", "", true),
        ("?", "/", false),
    ] {
        assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
    }
}

#[test]
fn files_are_included_in_order_and_by_pattern() {
    let root = PathBuf::from(format!("/tmp/tenantauth-doctor-{}", std::process::id()));
    fs::create_dir_all(root.join("conf.d")).unwrap();
    for (name, text) in
        [("conf.d/b.conf", "b 2;"), ("conf.d/a.conf", "a 1;"), ("conf.d/.c.conf", "c 3;"), ("d", "d 4;")]
    {
        fs::write(root.join(name), text).unwrap();
    }
    let files = Here(|_: &Path, _: &str| None);
    let name = root.join("nginx.conf").display().to_string();
    let read =
        read(&name, "include conf.d/*.conf; include d; include none/*; include gone;", &files).unwrap();
    assert_eq!(read.directives.iter().map(words).collect::<Vec<_>>(), [["a", "1"], ["b", "2"], ["d", "4"]]);
    assert!(read.directives[0].place.file.ends_with("/conf.d/a.conf"));
    assert_eq!((read.missing.len(), read.missing[0].1.ends_with("/gone")), (1, true));
    assert!(files.matching(&root.join("*/[ab].conf")).len() == 2);
    fs::remove_dir_all(root).unwrap();
}
