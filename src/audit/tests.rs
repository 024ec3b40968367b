//! Records are one line of JSON whatever the request held, with every promised key, and nothing secret.

use super::*;
use crate::decision::ShadowDenial;
use crate::policy::tests::{HEAD, snapshot};
use crate::reason::Reason;
use crate::scope::Backend;
use crate::token::claims::{Claims, Origin, read_claims};
use crate::token::digest::keyed_hash;
use crate::token::fixtures::{NOW, rules};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The promised keys, less those that nginx adds: `schema`, `request_id`, `status`, `upstream_status`, `bytes_sent`,
/// `duration_ms`.
const KEYS: [&str; 26] = [
    "time",
    "decision",
    "reason",
    "mode",
    "shadow",
    "issuer",
    "subject",
    "user",
    "token_id",
    "groups",
    "tenants",
    "scope",
    "grant",
    "restriction",
    "owner",
    "backend",
    "method",
    "path",
    "query",
    "client_ip",
    "client_ip_source",
    "peer",
    "upgrade",
    "policy_revision",
    "denied_tenant",
    "truncated",
];

fn record<'a>(decision: &'a Decision) -> Record<'a> {
    Record {
        shadow_mode: false,
        decision,
        snapshot: None,
        principal: None,
        tenants: None,
        scope: None,
        backends: BackendSet::EMPTY,
        method: b"GET",
        path: b"/",
        query: None,
        client_ip: None,
        client_ip_source: None,
        peer: b"192.0.2.1",
        upgrade: false,
        grafana: GrafanaContext::default(),
    }
}

/// The record as nginx completes it, read by a strict reader. It is never longer than the policy says.
fn rendered(record: &Record<'_>, key: &[u8]) -> Value {
    let mut line = Text::default();
    let mut clock = Clock::default();
    clock.set(Duration::from_millis(1_800_000_000_042));
    render(&mut line, record, &mut clock, |query| keyed_hash(key, query));
    let line = String::from_utf8(line.as_bytes().to_vec()).unwrap();
    assert!(!line.contains(is_hidden), "{line:?}");
    assert!(line.len() <= budget::room(record.snapshot), "{} bytes", line.len());
    let whole = format!("{{{line}}}");
    let value: Value = serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{error}: {whole}"));
    let found: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [&KEYS[..], &["grafana"]].concat();
    expected.sort_unstable();
    assert_eq!(found, expected, "every key, once");
    // A map would hide a key that is written twice.
    assert_eq!(line.matches("\"policy_revision\":").count(), 1);
    value
}

fn identity(claims: &Value) -> Identity {
    let text = claims.to_string();
    let claims = Claims::parse(text.as_bytes()).unwrap();
    read_claims(&claims, &rules(), Origin::Sample, NOW).unwrap()
}

#[test]
fn a_request_of_which_nothing_is_known() {
    let decision = Decision::denied(Reason::PolicyUnavailable);
    assert_eq!(
        rendered(&record(&decision), b"k"),
        json!({
            "time": "2027-01-15T08:00:00.042Z",
            "decision": "deny", "reason": "policy_unavailable", "mode": "enforce", "shadow": null,
            "issuer": null, "subject": null, "user": null, "token_id": null, "groups": null,
            "tenants": null, "scope": null, "grant": null, "restriction": null, "owner": null,
            "backend": "any", "method": "GET", "path": "/", "query": null,
            "client_ip": null, "client_ip_source": null, "peer": "192.0.2.1", "upgrade": false,
            "policy_revision": null, "denied_tenant": null,
            "grafana": {"dashboard": null, "panel": null, "rule": null, "org": null},
            "truncated": null,
        })
    );
}

#[test]
fn a_request_of_which_everything_is_known() {
    let snapshot = snapshot(&format!(
        "{HEAD}client_ip: {{ source: remote_addr }}\n\
         grants: [{{ name: \"read\\\"ers\", groups: [a], tenants: [t] }}]\n\
         restrictions: [{{ name: tried, networks: [10.0.0.1], mode: shadow }}]\n"
    ));
    let groups = snapshot.groups.of_user(0, ["a"].into_iter());
    let tenants = TenantList::parse(b"t").unwrap();
    let client_ip = ClientIp::parse(b"::ffff:192.0.2.7").unwrap();
    let decision = crate::decision::decide(
        &snapshot,
        &crate::decision::AccessRequest {
            groups: &groups,
            caller: crate::decision::Caller::User { bound_by: &groups },
            tenants: &tenants,
            scope: Scope::LogsRead,
            backends: BackendSet::of(Backend::Loki),
            client_ip: Ok(client_ip),
            now: NOW,
        },
    );
    let claims = json!({"sub": "s-1", "preferred_username": "a\"d\\a@x", "jti": "j-1", "groups": ["a", "z"]});
    let principal = PrincipalMembers::of_user(
        "entra",
        &identity(&claims),
        ["a", "b\u{2028}\u{202e}\u{200b}"].into_iter(),
    );
    let record = Record {
        snapshot: Some(&snapshot),
        principal: Some(&principal),
        tenants: Some(&tenants),
        scope: Some(Scope::LogsRead),
        backends: BackendSet::of(Backend::Loki),
        path: b"/loki/api/v1/query",
        query: Some(b"query={app=\"x\"}"),
        client_ip: Some(client_ip),
        client_ip_source: Some("remote_addr"),
        upgrade: true,
        grafana: GrafanaContext {
            dashboard: Some(b"d-1"),
            panel: Some(b"2"),
            rule: Some(b""),
            org: Some(b"1"),
        },
        ..record(&decision)
    };
    assert_eq!(
        rendered(&record, b"k"),
        json!({
            "time": "2027-01-15T08:00:00.042Z",
            "decision": "allow", "reason": "granted", "mode": "enforce",
            "shadow": {"decision": "deny", "reason": "ip_forbidden"},
            "issuer": "entra", "subject": "s-1", "user": "a\"d\\a@x", "token_id": "j-1",
            "groups": ["a", "b\u{2028}\u{202e}\u{200b}"],
            "tenants": ["t"], "scope": "logs:read", "grant": "read\"ers", "restriction": "tried", "owner": null,
            "backend": "loki", "method": "GET", "path": "/loki/api/v1/query", "query": "query={app=\"x\"}",
            "client_ip": "192.0.2.7", "client_ip_source": "remote_addr", "peer": "192.0.2.1", "upgrade": true,
            "policy_revision": &*snapshot.revision, "denied_tenant": null,
            "grafana": {"dashboard": "d-1", "panel": "2", "rule": "", "org": "1"},
            "truncated": null,
        })
    );
}

#[test]
fn several_tenants_and_a_principal_that_is_known_by_oid() {
    let decision = Decision::denied(Reason::TenantForbidden);
    let tenants = TenantList::parse(b"b|a|(x)'!*").unwrap();
    let claims = json!({"oid": "o-1", "uti": "u-1", "jti": "j-1", "preferred_username": 5, "groups": []});
    let principal = PrincipalMembers::of_user("i", &identity(&claims), std::iter::empty());
    let found =
        rendered(&Record { tenants: Some(&tenants), principal: Some(&principal), ..record(&decision) }, b"k");
    assert_eq!(found["tenants"], json!(["(x)'!*", "a", "b"]));
    assert_eq!(found["subject"], "o-1");
    assert_eq!((&found["user"], &found["token_id"]), (&Value::Null, &json!("u-1")));
    assert_eq!(found["groups"], json!([]));
}

#[test]
fn queries_are_kept_hashed_or_left_out() {
    let decision = Decision::denied(Reason::TokenMissing);
    let query = |mode: &str, query: Option<&[u8]>, key: &[u8]| {
        let snapshot = snapshot(&format!("{HEAD}audit: {{ query: {mode} }}\n"));
        rendered(&Record { snapshot: Some(&snapshot), query, ..record(&decision) }, key)["query"].clone()
    };
    let secret: &[u8] = b"query=secret";
    assert_eq!(query("full", Some(secret), b"k"), "query=secret");
    assert_eq!(query("full", Some(b""), b"k"), "");
    assert_eq!(query("none", Some(secret), b"k"), Value::Null);
    for mode in ["full", "hash", "none"] {
        assert_eq!(query(mode, None, b"k"), Value::Null);
    }
    let hash = query("hash", Some(secret), b"k");
    assert!(hash.as_str().unwrap().starts_with("hmac-sha256:") && !hash.to_string().contains("secret"));
    assert_eq!(hash, query("hash", Some(secret), b"k"));
    assert_ne!(hash, query("hash", Some(b"query=secrets"), b"k"));
    assert_ne!(hash, query("hash", Some(secret), b"another key"), "nobody can guess without the key");
    // Without a policy nobody has allowed the query to be kept.
    assert_eq!(rendered(&Record { query: Some(secret), ..record(&decision) }, b"k")["query"], Value::Null);
}

/// A policy whose records are so long at most.
fn bounded(max_bytes: usize) -> Snapshot {
    snapshot(&format!("{HEAD}audit: {{ max_bytes: {max_bytes} }}\n"))
}

#[test]
fn claimed_headers_and_methods_are_cut_and_said_to_be() {
    let decision = Decision::denied(Reason::RouteUnknown);
    for (most, cut) in [(MAX_CLAIMED, false), (MAX_CLAIMED, true), (MAX_METHOD, false), (MAX_METHOD, true)] {
        let text = "a".repeat(most + usize::from(cut));
        let bytes = Some(text.as_bytes());
        let claimed = GrafanaContext::default();
        let all = [
            ("method", Record { method: text.as_bytes(), ..record(&decision) }),
            (
                "grafana.dashboard",
                Record { grafana: GrafanaContext { dashboard: bytes, ..claimed }, ..record(&decision) },
            ),
            (
                "grafana.panel",
                Record { grafana: GrafanaContext { panel: bytes, ..claimed }, ..record(&decision) },
            ),
            (
                "grafana.rule",
                Record { grafana: GrafanaContext { rule: bytes, ..claimed }, ..record(&decision) },
            ),
            (
                "grafana.org",
                Record { grafana: GrafanaContext { org: bytes, ..claimed }, ..record(&decision) },
            ),
        ];
        for (key, record) in all.into_iter().filter(|(key, _)| (*key == "method") == (most == MAX_METHOD)) {
            let found = rendered(&record, b"k");
            assert_eq!(found["truncated"], if cut { json!([key]) } else { Value::Null });
            let value = key.split('.').fold(&found, |value, name| &value[name]);
            assert_eq!(*value, "a".repeat(most), "{key}");
        }
    }
    // Never in the middle of a character.
    let long = "\u{20ac}".repeat(MAX_CLAIMED);
    let grafana = GrafanaContext { rule: Some(long.as_bytes()), ..GrafanaContext::default() };
    let found = rendered(&Record { grafana, ..record(&decision) }, b"k");
    assert_eq!(found["grafana"]["rule"], "\u{20ac}".repeat(MAX_CLAIMED / 3));
}

/// As each part grows, it is the next one that gives way.
#[test]
fn what_is_too_long_gives_way_in_its_order() {
    let decision = Decision::denied(Reason::TenantForbidden);
    let snapshot = bounded(4000);
    let groups: Vec<String> = (0..40).map(|number| format!("group-\u{2028}-{number}")).collect();
    let claims = json!({"sub": "ada", "preferred_username": "a\"da", "jti": "t", "groups": []});
    let principal = PrincipalMembers::of_user("idp", &identity(&claims), groups.iter().map(String::as_str));
    let names: Vec<String> =
        (100..180).map(|number| format!("tenant-{number}-{}", "x".repeat(130))).collect();
    let tenants = |count: usize| names[..count].join("|");
    let truncated = |path: usize, query: usize, claimed: usize, count: usize| {
        let (path, query) = ("/\u{1}".repeat(path), "\"".repeat(query));
        let claimed = "\u{2}".repeat(claimed);
        let named = tenants(count);
        let record = Record {
            snapshot: Some(&snapshot),
            principal: Some(&principal),
            tenants: Some(&TenantList::parse(named.as_bytes()).unwrap()),
            path: path.as_bytes(),
            query: Some(query.as_bytes()),
            grafana: GrafanaContext {
                dashboard: Some(claimed.as_bytes()),
                org: Some(b"1234567890123456789012345"),
                ..GrafanaContext::default()
            },
            ..record(&decision)
        };
        let found = rendered(&record, b"k");
        assert!(path.starts_with(found["path"].as_str().unwrap()));
        assert!(query.starts_with(found["query"].as_str().unwrap()));
        let list = |key: &str| serde_json::from_value::<Vec<String>>(found[key].clone()).unwrap();
        assert!(groups.starts_with(&list("groups")) && names[..count].starts_with(&list("tenants")));
        assert_eq!((&found["subject"], &found["user"]), (&json!("ada"), &json!("a\"da")));
        found["truncated"].clone()
    };
    assert_eq!(truncated(10, 100, 10, 1), Value::Null);
    assert_eq!(truncated(10, 3000, 10, 1), json!(["query"]));
    assert_eq!(truncated(1000, 3000, 10, 1), json!(["query", "path"]));
    assert_eq!(truncated(100, 3000, 255, 8), json!(["query", "path", "grafana.dashboard"]));
    let upto = |last: usize| {
        let all = ["query", "path", "grafana.dashboard", "grafana.org", "groups", "tenants"];
        json!(all[..last])
    };
    assert_eq!(truncated(100, 3000, 255, 17), upto(5));
    assert_eq!(truncated(100, 3000, 255, 80), upto(6));
}

#[test]
fn a_record_names_the_tenant_that_was_refused() {
    let tenants = TenantList::parse(b"b|a|c").unwrap();
    let named = |decision: &Decision| {
        let mut text = Text::default();
        let record = Record { tenants: Some(&tenants), ..record(decision) };
        render(&mut text, &record, &mut Clock::default(), |_| String::new());
        let json: Value = serde_json::from_str(&format!("{{{text}}}")).unwrap();
        assert_eq!(crate::engine::denied_tenant(text.as_bytes()).as_deref(), json["denied_tenant"].as_str());
        json["denied_tenant"].clone()
    };
    assert_eq!(named(&Decision::denied(Reason::TenantForbidden).about(1)), "b");
    assert_eq!(named(&Decision::denied(Reason::IpForbidden).about(2)), "c");
    assert_eq!(named(&Decision::denied(Reason::TokenExpired)), Value::Null);
    // A part of a name is the whole of another; and a record is what we wrote, or it says nothing.
    for nothing in [
        &b"\"denied_tenant\":\"team-\",\"truncated\":[\"path\",\"denied_tenant\"]"[..],
        b"\"denied_tenant\":\"a b\",\"truncated\":null",
        b"\"denied_tenant\":5,\"truncated\":null",
        b"\"decision\":null",
        b"",
        b"}",
    ] {
        assert_eq!(crate::engine::denied_tenant(nothing), None);
    }
    let cut = b"\"denied_tenant\":\"team-a\",\"truncated\":[\"path\"]";
    assert_eq!(crate::engine::denied_tenant(cut).as_deref(), Some("team-a"));
}

/// Whatever gives way, a record says who asked: even the shortest one has its subject.
#[test]
fn the_shortest_record_keeps_its_subject() {
    let name = format!("n{}n", "\u{2028}".repeat(98));
    let rules = json!({
        "version": 1,
        "issuers": [{"issuer": "https://a.example", "audiences": ["g"], "jwks_file": "jwks.json"}],
        "client_ip": {"source": "remote_addr"},
        "grants": [{"name": name, "groups": ["a"], "tenants": ["t"]}],
        "restrictions": [{"name": name, "networks": ["10.0.0.1"], "mode": "shadow"}],
        "audit": {"max_bytes": 2048, "query": "hash"},
    });
    let snapshot = snapshot(&rules.to_string());
    let longest = *Reason::ALL.iter().max_by_key(|reason| reason.name().len()).unwrap();
    let mut decision = Decision::denied(longest).about(0);
    decision.grant = Some(0);
    decision.shadow = Some(ShadowDenial { reason: longest, restriction: 0 });
    let whole = "\"".repeat(MAX_IDENTITY / 2);
    let claims = json!({"sub": whole, "preferred_username": name, "jti": name, "groups": []});
    let issuer = "\u{2028}".repeat(5000);
    let groups = ["g".repeat(30_000)];
    let principal = PrincipalMembers::of_user(&issuer, &identity(&claims), groups.iter().map(String::as_str));
    let tenants = (0..100).map(|number| format!("{number:0150}")).collect::<Vec<_>>().join("|");
    let long = b"\x01".repeat(30_000);
    let record = Record {
        shadow_mode: false,
        snapshot: Some(&snapshot),
        principal: Some(&principal),
        tenants: Some(&TenantList::parse(tenants.as_bytes()).unwrap()),
        scope: Scope::ALL.iter().copied().max_by_key(|scope| scope.name().len()),
        backends: BackendSet::of(Backend::Pyroscope),
        method: &long,
        path: &long,
        query: Some(&long),
        client_ip: ClientIp::parse(b"1111:1111:1111:1111:1111:1111:1111:1111").ok(),
        client_ip_source: Some("remote_addr"),
        peer: &long,
        upgrade: false,
        grafana: GrafanaContext {
            dashboard: Some(&long),
            panel: Some(&long),
            rule: Some(&long),
            org: Some(&long),
        },
        ..record(&decision)
    };
    let found = rendered(&record, b"k");
    assert_eq!(found["subject"], whole);
    assert!(found["query"].as_str().unwrap().starts_with("hmac-sha256:"), "a hash is not cut");
    // A longer subject is cut, and nothing else can push it out.
    let long = json!({"sub": "s".repeat(MAX_IDENTITY + 1), "groups": []});
    let principal = PrincipalMembers::of_user("idp", &identity(&long), std::iter::empty());
    let found = rendered(&Record { principal: Some(&principal), ..record }, b"k");
    assert_eq!(found["subject"], "s".repeat(MAX_IDENTITY));
    assert!(found["truncated"].as_array().unwrap().contains(&json!("subject")));
}

/// What nginx adds to the members takes no more than is set aside for it, with the longest of each value.
#[test]
fn what_nginx_adds_has_its_room() {
    let conf = include_str!("../../nginx/http.conf");
    let (_, format) = conf.split_once("log_format tenantauth_audit escape=none '").unwrap();
    let mut line = format.split_once("';").unwrap().0.to_owned() + "\n";
    let statuses = ["502"; 32].join(", ");
    for (variable, longest) in [
        ("$tenantauth_record", String::new()),
        ("$request_id", "0".repeat(32)),
        ("$tenantauth_status", u64::MAX.to_string()),
        ("$tenantauth_upstream_status", format!("[{statuses}]")),
        ("$bytes_sent", i64::MIN.to_string()),
        ("${request_time}", format!("{}.000", i64::MIN)),
    ] {
        assert_eq!(line.matches(variable).count(), 1, "{variable}");
        line = line.replace(variable, &longest);
    }
    assert!(!line.contains('$'), "{line}");
    assert!(line.len() <= budget::RESERVED, "{}", line.len());
    // The list of statuses is as long as this test takes it to be: as many as the groups of each row hold together.
    let (_, rows) = conf.split_once("map $upstream_status $tenantauth_upstream_status {").unwrap();
    let rows = rows.lines().map(str::trim).take_while(|row| *row != "}");
    let held = |row: &str| -> usize {
        let bounds = row.split("){0,").skip(1).map(|rest| rest.split('}').next().unwrap());
        let fixed = row.split("){").skip(1).filter_map(|rest| rest.split('}').next()?.parse::<usize>().ok());
        bounds.map(|bound| bound.parse::<usize>().unwrap() + 1).sum::<usize>()
            + fixed.map(|count| count + 1).sum::<usize>()
    };
    let expressions: Vec<&str> = rows.filter(|row| row.starts_with("\"~")).collect();
    assert_eq!(expressions.len(), 6);
    for row in expressions {
        assert!((30..=32).contains(&held(row)), "{row}: {}", held(row));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        // What ends lines, strings and objects somewhere.
        "[\"\\\\\r\n\t\u{0}\u{7f}\u{85}\u{2028}\u{2029}\u{61c}\u{202e}\u{feff}{}\\[\\],:/u€😀]{0,20}"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn any_bytes_become_one_line_of_json(
        (method, path, peer) in (bytes(), bytes(), bytes()),
        query in prop::option::of(bytes()),
        grafana in prop::collection::vec(prop::option::of(bytes()), 4),
        groups in prop::collection::vec(any::<String>(), 0..4),
        (subject, user, token, issuer) in (any::<String>(), any::<String>(), any::<String>(), any::<String>()),
        names in ("\\PC{1,20}", "\\PC{1,20}"),
        reason in prop::sample::select(Reason::ALL),
        upgrade in any::<bool>(),
        mode in prop::sample::select(&["full", "hash", "none"][..]),
    ) {
        let (grant, restriction) = (json!(format!("g{}g", names.0)), json!(format!("r{}r", names.1)));
        let policy = json!({
            "version": 1,
            "issuers": [{"issuer": "https://a.example", "audiences": ["g"], "jwks_file": "jwks.json"}],
            "client_ip": {"source": "remote_addr"},
            "grants": [{"name": grant, "groups": ["a"], "tenants": ["t"]}],
            "restrictions": [{"name": restriction, "networks": ["10.0.0.1"]}],
            "audit": {"query": mode},
        });
        let snapshot = snapshot(&policy.to_string());
        let mut decision = Decision::denied(reason);
        decision.grant = Some(0);
        decision.shadow = Some(ShadowDenial { reason, restriction: 0 });
        // Not what verification lets through, which is narrower.
        let identity = Identity {
            subject: Some(subject.as_str().into()),
            user: Some(user.as_str().into()),
            token_id: Some(token.as_str().into()),
            ..identity(&json!({"groups": []}))
        };
        let principal = PrincipalMembers::of_user(&issuer, &identity, groups.iter().map(String::as_str));
        let grafana = GrafanaContext {
            dashboard: grafana[0].as_deref(),
            panel: grafana[1].as_deref(),
            rule: grafana[2].as_deref(),
            org: grafana[3].as_deref(),
        };
        let record = Record {
            snapshot: Some(&snapshot),
            principal: Some(&principal),
            method: &method,
            path: &path,
            query: query.as_deref(),
            peer: &peer,
            upgrade,
            grafana,
            ..record(&decision)
        };
        let found = rendered(&record, b"k");
        let text = |bytes: &[u8]| json!(String::from_utf8_lossy(bytes));
        prop_assert_eq!(&found["method"], &text(&method));
        prop_assert_eq!(&found["path"], &text(&path));
        prop_assert_eq!(&found["peer"], &text(&peer));
        prop_assert_eq!(&found["grafana"]["panel"], &grafana.panel.map_or(Value::Null, text));
        prop_assert_eq!(&found["groups"], &json!(groups));
        prop_assert_eq!(&found["subject"], &json!(subject));
        prop_assert_eq!(&found["issuer"], &json!(issuer));
        prop_assert_eq!(&found["grant"], &grant);
        prop_assert_eq!(&found["restriction"], &restriction);
        if mode == "full" {
            prop_assert_eq!(&found["query"], &query.as_deref().map_or(Value::Null, text));
        }
    }
}

#[test]
fn a_second_is_formatted_once_and_its_milliseconds_each_time() {
    let mut clock = Clock::default();
    let mut at = |milliseconds: u64| {
        let mut out = Text::default();
        clock.set(Duration::from_millis(milliseconds));
        clock.push_to(&mut out);
        out.to_string()
    };
    assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(999), "1970-01-01T00:00:00.999Z");
    assert_eq!(at(1_000), "1970-01-01T00:00:01.000Z");
    assert_eq!(at(951_782_400_007), "2000-02-29T00:00:00.007Z");
    assert_eq!(at(500), "1970-01-01T00:00:00.500Z");
}

/// Every byte at every place of texts around the eight bytes that are looked at together.
#[test]
fn plain_bytes_are_told_wherever_they_stand() {
    for length in 1..=20 {
        for place in 0..length {
            for byte in 0..=u8::MAX {
                let mut text = vec![b'a'; length];
                text[place] = byte;
                let plain = byte.is_ascii() && !byte.is_ascii_control() && byte != b'"' && byte != b'\\';
                assert_eq!(is_plain(&text), plain, "{byte:#x} at {place} of {length}");
            }
        }
    }
    assert!(is_plain(b""));
    assert!(is_plain(b" ~!#[]^ ~!#[]^ ~"));
}
