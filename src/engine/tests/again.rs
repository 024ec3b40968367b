//! What a request may become after it was allowed.

use super::super::is_allowed_again;
use crate::scope::{Backend, BackendSet};

/// The members of a record, as far as they are looked at. The subject is hostile text as JSON escapes it.
fn record(decision: &str, reason: &str, backend: &str, scope: &str, method: &str) -> String {
    let subject = r#""subject":"\",\"decision\":\"allow\",\"scope\":\"logs:write\"""#;
    let decided = format!(r#""decision":"{decision}","reason":"{reason}","mode":"enforce","#);
    let request = format!(r#","scope":"{scope}","backend":"{backend}","method":"{method}""#);
    format!(r#""time":"2026-01-01T00:00:00.000Z",{decided}{subject}{request}"#)
}

#[test]
fn only_what_was_allowed_passes_again() {
    let granted = |backend, scope| record("allow", "granted", backend, scope, "GET");
    let query = "/loki/api/v1/query?query=x";
    let passes = |record: &str, method: &str, request_uri: &str, uri: &str| {
        is_allowed_again(
            BackendSet::ALL,
            record.as_bytes(),
            method.as_bytes(),
            request_uri.as_bytes(),
            uri.as_bytes(),
        )
    };
    let reads = granted("loki", "logs:read");
    for (request_uri, uri) in [
        (query, "/loki/api/v1/query"),
        ("/loki/api/v1/label/a%20b/values", "/loki/api/v1/label/a b/values"),
        // Its prefix was removed.
        ("/pre/loki/api/v1/query", "/loki/api/v1/query"),
        // Another path of the scope.
        (query, "/loki/api/v1/labels"),
    ] {
        assert!(passes(&reads, "GET", request_uri, uri), "{uri}");
        assert!(!passes(&reads, "POST", request_uri, uri), "another method");
        assert!(!passes(
            &record("deny", "tenant_forbidden", "loki", "logs:read", "GET"),
            "GET",
            request_uri,
            uri
        ));
        assert!(!passes(&record("allow", "other", "loki", "logs:read", "GET"), "GET", request_uri, uri));
        assert!(!passes(&granted("loki", "null"), "GET", request_uri, uri));
    }
    for uri in [
        "",
        "/",
        "/ready",
        "/loki/api/v1/rules",
        "/loki/api/v1/tail",
        "/loki/api/v1/label/a?b/values",
        "/fallback",
        "/loki/api/v1/label/a%20b/values",
        "//loki/api/v1/query",
        "/loki/api/v1/query/../labels",
    ] {
        assert!(!passes(&reads, "GET", query, uri), "{uri}");
    }
    // Where several backends know the path, all tables are asked.
    let any = granted("any", "rules:read");
    assert!(passes(&any, "GET", "/prometheus/api/v1/rules", "/prometheus/api/v1/alerts"));
    assert!(!passes(&any, "GET", "/prometheus/api/v1/rules", "/loki/api/v1/query"));
    assert!(!passes(&any, "GET", "/loki/api/v1/query", "/loki/api/v1/query"), "only one knows it");
    // Another backend's path is none of this one's.
    assert!(!passes(&granted("tempo", "logs:read"), "GET", "/x", "/loki/api/v1/query"));
    for broken in
        ["", "\"decision\":", "\"decision\":\"allow\"", "\u{0}", reads.strip_suffix('"').unwrap(), "}{"]
    {
        assert!(!passes(broken, "GET", query, "/loki/api/v1/query"), "{broken}");
    }
}

#[test]
fn an_allow_for_one_backend_is_none_for_another() {
    let writes = record("allow", "granted", "mimir", "metrics:write", "POST");
    let rules = record("allow", "granted", "mimir", "rules:read", "GET");
    let passes = |backends: &[Backend], record: &str, method: &str, path: &str| {
        let may_go_to = backends.iter().copied().collect();
        is_allowed_again(may_go_to, record.as_bytes(), method.as_bytes(), path.as_bytes(), path.as_bytes())
    };
    let (mimir, loki) = ([Backend::Mimir], [Backend::Loki]);
    // Loki takes logs there.
    assert!(!passes(&Backend::ALL, &writes, "POST", "/api/prom/push"));
    assert!(!passes(&loki, &writes, "POST", "/api/prom/push"));
    assert!(passes(&mimir, &writes, "POST", "/api/prom/push"));
    // The same scope, but restrictions of Loki's were not looked at.
    assert!(!passes(&Backend::ALL, &rules, "GET", "/api/prom/rules"));
    assert!(passes(&mimir, &rules, "GET", "/api/prom/rules"));
    // No other backend knows it.
    assert!(passes(&Backend::ALL, &writes, "POST", "/api/v1/push"));
    assert!(!passes(&loki, &writes, "POST", "/api/v1/push"));
    // What is below a prefix that stays in `$uri` may be anything to others.
    assert!(!passes(&Backend::ALL, &writes, "POST", "/pre/api/prom/push"));
    assert!(!passes(&Backend::ALL, &writes, "POST", "/pre/api/v1/push"));
    assert!(passes(&mimir, &writes, "POST", "/pre/api/v1/push"));
    // What two know is nothing to a third.
    let any = record("allow", "granted", "any", "rules:read", "GET");
    let path = "/prometheus/api/v1/rules";
    assert!(passes(&mimir, &any, "GET", path) && passes(&loki, &any, "GET", path));
    assert!(!passes(&[Backend::Tempo], &any, "GET", path));
    assert!(!passes(&[Backend::Pyroscope], &any, "GET", path));
}

#[test]
fn a_websocket_passes_as_what_it_was_alone() {
    let mut tail = record("allow", "granted", "loki", "logs:read", "GET");
    tail += ",\"upgrade\":true";
    let passes = |uri: &str| {
        let loki = BackendSet::of(Backend::Loki);
        is_allowed_again(loki, tail.as_bytes(), b"GET", b"/loki/api/v1/tail?query=x", uri.as_bytes())
    };
    assert!(passes("/loki/api/v1/tail"));
    assert!(!passes("/loki/api/v1/labels"));
}
