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
const KEYS: [&str; 24] = [
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

/// The record as nginx completes it, read by a strict reader.
fn rendered(record: &Record<'_>, key: &[u8]) -> Value {
    let mut line = Text::default();
    let mut clock = Clock::default();
    clock.set(Duration::from_millis(1_800_000_000_042));
    render(&mut line, record, &mut clock, |query| keyed_hash(key, query));
    let line = String::from_utf8(line.as_bytes().to_vec()).unwrap();
    assert!(line.chars().all(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')), "{line:?}");
    let whole = format!("{{{line}}}");
    let value: Value = serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{error}: {whole}"));
    let mut found: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    found.retain(|key| *key != "truncated");
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
            "policy_revision": null,
            "grafana": {"dashboard": null, "panel": null, "rule": null, "org": null},
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
    let principal = PrincipalMembers::of_user("entra", &identity(&claims), ["a", "b\u{2028}"].into_iter());
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
            "groups": ["a", "b\u{2028}"],
            "tenants": ["t"], "scope": "logs:read", "grant": "read\"ers", "restriction": "tried", "owner": null,
            "backend": "loki", "method": "GET", "path": "/loki/api/v1/query", "query": "query={app=\"x\"}",
            "client_ip": "192.0.2.7", "client_ip_source": "remote_addr", "peer": "192.0.2.1", "upgrade": true,
            "policy_revision": &*snapshot.revision,
            "grafana": {"dashboard": "d-1", "panel": "2", "rule": "", "org": "1"},
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

#[test]
fn long_parts_are_cut_and_said_to_be() {
    let decision = Decision::denied(Reason::RouteUnknown);
    // Cut in the middle of a character.
    let long = "ä".repeat(MAX_PART).replacen('ä', "a", 1);
    let found = rendered(&Record { path: long.as_bytes(), ..record(&decision) }, b"k");
    assert_eq!(found["truncated"], true);
    assert!(found["path"].as_str().unwrap().chars().count() <= MAX_PART / 2 + 1);
    let exact = "a".repeat(MAX_PART);
    let found = rendered(&Record { path: exact.as_bytes(), ..record(&decision) }, b"k");
    assert_eq!(found.get("truncated"), None);
    assert_eq!(found["path"], exact);
    // Whatever part it is that was cut.
    let bytes = Some(long.as_bytes());
    let claimed = GrafanaContext::default();
    for cut in [
        Record { method: long.as_bytes(), ..record(&decision) },
        Record { query: bytes, ..record(&decision) },
        Record { grafana: GrafanaContext { dashboard: bytes, ..claimed }, ..record(&decision) },
        Record { grafana: GrafanaContext { panel: bytes, ..claimed }, ..record(&decision) },
        Record { grafana: GrafanaContext { rule: bytes, ..claimed }, ..record(&decision) },
        Record { grafana: GrafanaContext { org: bytes, ..claimed }, ..record(&decision) },
    ] {
        assert_eq!(rendered(&cut, b"k")["truncated"], true, "{cut:?}");
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        // What ends lines, strings and objects somewhere.
        "[\"\\\\\r\n\t\u{0}\u{7f}\u{85}\u{2028}\u{2029}{}\\[\\],:/u€😀]{0,20}".prop_map(String::into_bytes),
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
