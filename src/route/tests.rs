//! The built-in table against the reference, and tables of good and bad requests.

use super::*;
use crate::scope::Backend;
use Backend::{Loki, Mimir, Pyroscope, Tempo};
use Reason::{PathAmbiguous, RouteUnknown};

const REFERENCE: &str = include_str!("../../tests/data/routes.tsv");

/// The rule that the contract states in words, by product, kind and path.
fn promised_scope(product: &str, kind: &str, pattern: &str) -> Option<String> {
    let signal = match product {
        "mimir" => "metrics",
        "loki" => "logs",
        "tempo" => "traces",
        "pyroscope" => "profiles",
        other => panic!("unknown product {other}"),
    };
    match (kind, pattern) {
        ("query" | "metadata" | "tail" | "mcp", _) => Some(format!("{signal}:read")),
        ("write", _) => Some(format!("{signal}:write")),
        ("rules_read", _) => Some("rules:read".into()),
        ("rules_write", _) => Some("rules:write".into()),
        ("alertmanager_read", _) => Some("alerts:read".into()),
        ("alertmanager_write", _) => Some("alerts:write".into()),
        ("alertmanager_admin", "/api/v1/alerts") => Some("alerts:write".into()),
        ("delete", "/loki/api/v1/delete") => Some("logs:delete".into()),
        ("delete" | "operational" | "overrides_admin" | "settings_admin", _) => None,
        ("alertmanager_admin" | "alertmanager_ui", _) => None,
        other => panic!("unknown kind {other:?}"),
    }
}

/// Rows that the reference does not have, each group with the reason for its class. Read in the sources: Cortex
/// a8c6358a, Tempo ad33aa8f (its vendored receivers too), Pyroscope 3fe6a457. The reference has no row of another class.
const BEYOND: [(&str, &str); 8] = [
    (
        "Cortex, which is served as `mimir`: `pkg/api/api.go`. `parse_query` reads no data, like `format_query`.",
        "\
            mimir GET /prometheus/api/v1/parse_query query
            mimir POST /prometheus/api/v1/parse_query query
            mimir POST /api/v1/otlp/v1/metrics write
            mimir GET /api/v1/rules/{namespace} rules_read
            mimir GET /api/v1/rules/{namespace}/{groupName} rules_read
            mimir DELETE /api/v1/rules/{namespace}/{groupName} rules_write
        ",
    ),
    (
        "Cortex' limits of a tenant, set by whoever may ask: administration, like Tempo's `/api/overrides`.",
        "\
            mimir * /api/v1/user-overrides overrides_admin
        ",
    ),
    (
        "Cortex' `-http.prefix`, each as its twin under `/prometheus` and `/api/v1`. Where Loki is consulted too, \
         `/api/prom/push` writes metrics to one and logs to the other, and so is `route_unknown`.",
        "\
            mimir GET /api/prom/api/v1/query query
            mimir POST /api/prom/api/v1/query query
            mimir GET /api/prom/api/v1/query_range query
            mimir POST /api/prom/api/v1/query_range query
            mimir GET /api/prom/api/v1/query_exemplars query
            mimir POST /api/prom/api/v1/query_exemplars query
            mimir GET /api/prom/api/v1/format_query query
            mimir POST /api/prom/api/v1/format_query query
            mimir GET /api/prom/api/v1/parse_query query
            mimir POST /api/prom/api/v1/parse_query query
            mimir POST /api/prom/api/v1/read query
            mimir GET /api/prom/api/v1/labels metadata
            mimir POST /api/prom/api/v1/labels metadata
            mimir GET /api/prom/api/v1/label/{name}/values metadata
            mimir GET /api/prom/api/v1/series metadata
            mimir POST /api/prom/api/v1/series metadata
            mimir DELETE /api/prom/api/v1/series delete
            mimir GET /api/prom/api/v1/metadata metadata
            mimir GET /api/prom/api/v1/status/buildinfo metadata
            mimir GET /api/prom/user_stats metadata
            mimir GET /api/prom/api/v1/rules rules_read
            mimir GET /api/prom/api/v1/alerts rules_read
            mimir GET /api/prom/rules rules_read
            mimir GET /api/prom/rules/{namespace} rules_read
            mimir GET /api/prom/rules/{namespace}/{groupName} rules_read
            mimir POST /api/prom/rules/{namespace} rules_write
            mimir DELETE /api/prom/rules/{namespace} rules_write
            mimir DELETE /api/prom/rules/{namespace}/{groupName} rules_write
            mimir POST /api/prom/push write
        ",
    ),
    (
        "`HTTPRouter().Handle` without methods in `cmd/tempo/app/modules.go`: the handlers do not look at the method. \
         HEAD and POST alone: no client sends another, and what a later Tempo does by DELETE is not known.",
        "\
            tempo HEAD /api/traces/{traceID} query
            tempo POST /api/traces/{traceID} query
            tempo HEAD /api/v2/traces/{traceID} query
            tempo POST /api/v2/traces/{traceID} query
            tempo HEAD /api/search query
            tempo POST /api/search query
            tempo HEAD /api/search/tags metadata
            tempo POST /api/search/tags metadata
            tempo HEAD /api/v2/search/tags metadata
            tempo POST /api/v2/search/tags metadata
            tempo HEAD /api/search/tag/{tagName}/values metadata
            tempo POST /api/search/tag/{tagName}/values metadata
            tempo HEAD /api/v2/search/tag/{tagName}/values metadata
            tempo POST /api/v2/search/tag/{tagName}/values metadata
            tempo HEAD /api/metrics/query_range query
            tempo POST /api/metrics/query_range query
            tempo HEAD /api/metrics/query query
            tempo POST /api/metrics/query query
            tempo HEAD /api/echo metadata
            tempo POST /api/echo metadata
        ",
    ),
    (
        "Receivers: Zipkin's reads version 1 where the path holds `api/v1/spans`; Jaeger's gRPC, beside its HTTP.",
        "\
            tempo POST /api/v1/spans write
            tempo POST /jaeger.api_v2.CollectorService/PostSpans write
        ",
    ),
    (
        "Between Tempo's own components, like its other services.",
        "\
            tempo POST /tempopb.Metrics/{method} operational
            tempo POST /tempopb.BackendScheduler/{method} operational
        ",
    ),
    (
        "What a client sends before and after `Upload` of debug information, a write: both change the upload's state.",
        "\
            pyroscope POST /debuginfo.v1alpha1.DebuginfoService/ShouldInitiateUpload write
            pyroscope POST /debuginfo.v1alpha1.DebuginfoService/UploadFinished write
        ",
    ),
    (
        "A listing that no reader of profiles needs, and a deletion: there is no `profiles:delete`.",
        "\
            pyroscope POST /debuginfo.v1alpha1.DebuginfoService/ListDebuginfo settings_admin
            pyroscope POST /debuginfo.v1alpha1.DebuginfoService/DeleteDebuginfo settings_admin
        ",
    ),
];

/// Product, method, pattern and kind of each row in [`BEYOND`].
fn beyond() -> impl Iterator<Item = [&'static str; 4]> {
    let lines = BEYOND.iter().flat_map(|(_, rows)| rows.lines()).filter(|line| !line.trim().is_empty());
    lines.map(|line| {
        let mut words = line.split_ascii_whitespace();
        [(); 4].map(|()| words.next().unwrap())
    })
}

/// Product, method, pattern and kind of every route of the reference.
fn reference() -> impl Iterator<Item = [&'static str; 4]> {
    REFERENCE.lines().skip(1).map(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        [columns[0], columns[1], columns[2], columns[3]]
    })
}

/// The pattern with something in place of its names.
pub(super) fn filled(pattern: &str, name: &str) -> String {
    let mut path = String::new();
    let mut rest = pattern;
    while let Some((before, (_, behind))) = rest.split_once('{').map(|(a, b)| (a, b.split_once('}').unwrap()))
    {
        path = path + before + name;
        rest = behind;
    }
    path + rest
}

/// The route of a request that nginx left as it came.
fn plain(backends: BackendSet, request: &str) -> Result<Route, Reason> {
    let (method, path) = request.split_once(' ').unwrap();
    route_raw(backends, "", method.as_bytes(), path.as_bytes(), None)
}

fn scope_of(backend: Backend, request: &str) -> Result<&'static str, Reason> {
    plain(BackendSet::of(backend), request).map(|route| route.scope.name())
}

#[test]
fn the_table_is_the_reference() {
    let ours: Vec<_> =
        table().map(|row| ([row.backend.name(), row.method, row.pattern, row.kind], row.scope)).collect();
    let same_route = |a: &[&str; 4], b: &[&str; 4]| a[..3] == b[..3];
    for row in beyond() {
        assert!(!reference().any(|known| same_route(&known, &row)), "the reference has it: {row:?}");
    }
    let promised: Vec<_> = reference()
        .chain(beyond())
        .map(|row| (row, promised_scope(row[0], row[3], row[2]).map(|name| Scope::from_name(&name).unwrap())))
        .collect();
    assert_eq!((reference().count(), beyond().count()), (400, 64));
    assert_eq!(ours.len(), include_str!("table.tsv").lines().count() - 1, "every line parses");
    for row in &promised {
        assert!(ours.contains(row), "missing or different: {row:?}");
    }
    for row in &ours {
        assert!(promised.contains(row), "neither in the reference nor argued beside it: {row:?}");
    }
    for row in table() {
        assert_eq!(row.tail, row.kind == "tail");
        let same = table().filter(|other| {
            (other.backend, other.method, other.pattern) == (row.backend, row.method, row.pattern)
        });
        assert_eq!(same.count(), 1, "{row:?} is there twice");
    }
}

#[test]
fn a_broken_line_is_no_row() {
    assert!(TableRow::parse("loki\tGET\t/x\tlogs:read\tquery").is_some());
    for bad in [
        "",
        "loki\tGET\t/x\tlogs:read",
        "loki\tGET\t/x\tlogs:reads\tquery",
        "oki\tGET\t/x\t-\tquery",
        "loki\tGET\t/x\t-\tquery\tmore",
    ] {
        assert_eq!(TableRow::parse(bad), None, "{bad}");
    }
}

#[test]
fn every_row_is_reached_by_its_own_method_only() {
    for row in table() {
        let path = filled(row.pattern, "some-name_1");
        let method = if row.method == "*" { "PROPFIND" } else { row.method };
        let found = plain(BackendSet::of(row.backend), &format!("{method} {path}?query=x"));
        let expected = row.scope.ok_or(RouteUnknown);
        assert_eq!(found.map(|route| route.scope), expected, "{row:?}");
        assert_eq!(found.is_ok_and(|route| route.tail), row.kind == "tail", "{row:?}");
        if let Ok(route) = found {
            assert_eq!(route.backends, BackendSet::of(row.backend));
        }
        if row.method != "*" {
            for other in ["HEAD", "OPTIONS", "CONNECT", "get", "", "GET ", "*"] {
                // A row of that method beside it, as Tempo's reads have, or a name that takes a literal path.
                let rows = INDEX.near(&path);
                if rows.find(row.backend, other.as_bytes()).is_some_and(|row| row.method == other) {
                    continue;
                }
                let found =
                    route_raw(BackendSet::of(row.backend), "", other.as_bytes(), path.as_bytes(), None);
                assert_eq!(found, Err(RouteUnknown), "{other:?} for {row:?}");
            }
        }
        for other in [format!("{path}/"), format!("/x{path}"), format!("{path}%20"), path.to_uppercase()] {
            // What a name takes, or a denied row beside it, is no concern here.
            if other != path && path != "/" && !row.pattern.ends_with('}') {
                let found = plain(BackendSet::of(row.backend), &format!("{method} {other}"));
                let is_name = INDEX.near(&other).matching(row.backend).next().is_some();
                let same = is_name && found.is_ok_and(|route| Some(route.scope) == row.scope);
                assert!(same || found == Err(RouteUnknown), "{other} for {row:?}");
            }
        }
    }
}

/// gorilla/mux tries the next route where the method does not fit, and Tempo's handlers take any method: a
/// literal path must not get another scope through a name that matches it too.
#[test]
fn no_literal_path_takes_the_scope_of_a_name() {
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let mut overlaps = 0;
    for row in table().filter(|row| !row.pattern.contains('{')) {
        for method in methods {
            let rows = table().filter(|other| other.backend == row.backend && other.pattern == row.pattern);
            let scopes: Vec<_> = rows.map(|other| other.scope).collect();
            let request = format!("{method} {}", row.pattern);
            if let Ok(scope) = scope_of(row.backend, &request) {
                overlaps += usize::from(!table().any(|other| {
                    other.backend == row.backend
                        && other.pattern == row.pattern
                        && (other.method == method || other.method == "*")
                }));
                assert!(scopes.contains(&Scope::from_name(scope)), "{request} became {scope}");
            }
        }
    }
    assert_eq!(overlaps, 2, "GET and HEAD /api/v2/traces/diff alone: a trace's name, read like the diff");
}

#[test]
fn known_requests() {
    for (backend, request, scope) in [
        (Mimir, "GET /prometheus/api/v1/query?query=up", "metrics:read"),
        (Mimir, "GET /prometheus/api/v1/query?/../x%zz#", "metrics:read"),
        (Mimir, "POST /api/v1/push", "metrics:write"),
        (Mimir, "GET /prometheus/api/v1/label/__name__/values", "metrics:read"),
        (Mimir, "GET /prometheus/api/v1/label/caf%C3%A9/values", "metrics:read"),
        (Mimir, "GET /prometheus/api/v1/label/café/values", "metrics:read"),
        (Mimir, "GET /prometheus/config/v1/rules/My%20rules/CPU%20%3E%2080%25", "rules:read"),
        (Mimir, "GET /prometheus/config/v1/rules/why/issue%20%2342", "rules:read"),
        (Mimir, "POST /prometheus/config/v1/rules/a%2Fb", "rules:write"),
        (Mimir, "DELETE /prometheus/config/v1/rules/a%2fb/c%2Fd%2Fe", "rules:write"),
        (Mimir, "DELETE /prometheus/config/v1/rules/a%2F.b/..c", "rules:write"),
        (Mimir, "DELETE /api/v1/rules/a%2Fb", "rules:write"),
        (Mimir, "POST /prometheus/rules/a%2Fb", "rules:write"),
        (Mimir, "GET /api/v1/alerts", "alerts:write"),
        // No tenant and no data: Grafana's Alertmanager data source recognises Mimir by it, as by its twins.
        (Mimir, "GET /api/v1/status/buildinfo", "metrics:read"),
        // Label names and values, streamed: the same as `labels` and `label/{name}/values` tell.
        (Mimir, "POST /prometheus/api/v1/search/label_values?label=job", "metrics:read"),
        (Mimir, "POST /api/prom/push", "metrics:write"),
        (Mimir, "GET /api/prom/api/v1/query", "metrics:read"),
        (Mimir, "DELETE /api/prom/rules/a/b", "rules:write"),
        (Mimir, "GET /api/v1/rules/a/b", "rules:read"),
        (Mimir, "POST /api/v1/otlp/v1/metrics", "metrics:write"),
        (Mimir, "DELETE /alertmanager/api/v2/silence/0f3c9a1e", "alerts:write"),
        (Loki, "GET /loki/api/v1/query_range", "logs:read"),
        (Loki, "GET /loki/api/v1/label/a+b;c=d,e:f@g/values", "logs:read"),
        (Loki, "POST /loki/api/v1/push", "logs:write"),
        (Loki, "GET /loki/api/v1/delete", "logs:delete"),
        (Loki, "DELETE /loki/api/v1/delete?request_id=1", "logs:delete"),
        (Loki, "DELETE /loki/api/v1/rules/delete", "rules:write"),
        (Loki, "DELETE /loki/api/v1/rules/.../.hidden", "rules:write"),
        (Tempo, "GET /api/traces/0123abcd", "traces:read"),
        (Tempo, "POST /api/v2/traces/diff", "traces:read"),
        (Tempo, "HEAD /api/traces/0123abcd", "traces:read"),
        (Tempo, "POST /api/search", "traces:read"),
        (Tempo, "DELETE /api/mcp", "traces:read"),
        (Tempo, "POST /api/v1/spans", "traces:write"),
        (Tempo, "POST /otlp/v1/traces", "traces:write"),
        (Tempo, "POST /jaeger.api_v2.CollectorService/PostSpans", "traces:write"),
        (Tempo, "POST /api/traces", "traces:write"),
        (Tempo, "POST /tempopb.StreamingQuerier/Search", "traces:read"),
        (Pyroscope, "POST /querier.v1.QuerierService/Diff", "profiles:read"),
        (Pyroscope, "POST /debuginfo.v1alpha1.DebuginfoService/Upload/0a1b", "profiles:write"),
        (Pyroscope, "POST /settings.v1.RecordingRulesService/UpsertRecordingRule", "rules:write"),
    ] {
        assert_eq!(scope_of(backend, request), Ok(scope), "{request}");
    }
}

#[test]
fn unknown_requests() {
    for (backend, request) in [
        (Loki, "POST /loki/api/v1/%70ush"),
        (Loki, "POST /%6Coki/api/v1/push"),
        (Loki, "POST /Loki/api/v1/push"),
        (Loki, "POST /loki/api/v1/push/"),
        (Loki, "POST /loki/api/v1/push;x=1"),
        (Loki, "POST /loki/api/v1/push%20"),
        (Loki, "HEAD /loki/api/v1/query"),
        (Loki, "GET /loki/api/v1/label/values"),
        (Loki, "GET /loki/api/v1/label/a/b/values"),
        (Loki, "DELETE /loki/api/v1/rules/"),
        (Loki, "DELETE /loki/api/v1/rules"),
        (Loki, "DELETE /loki/api/v1/rules/a/b/c"),
        (Loki, "GET /ui/api/v1/proxy/node/loki/api/v1/query"),
        (Loki, "GET /compactor/ui/api/v1/deletes"),
        (Loki, "GET /loki/api/v1/cache/generation_numbers"),
        (Loki, "POST /logproto.Pusher/Push"),
        (Loki, "GET /"),
        (Mimir, "DELETE /prometheus/api/v1/series"),
        (Mimir, "DELETE /api/prom/api/v1/series"),
        (Mimir, "GET /api/v1/user-overrides"),
        (Mimir, "POST /api/prom/configs/rules"),
        (Mimir, "POST /push"),
        (Mimir, "POST /purger/delete_tenant"),
        (Mimir, "HEAD /prometheus/api/v1/query"),
        (Mimir, "POST /compactor/delete_tenant"),
        (Mimir, "GET /alertmanager"),
        (Mimir, "GET /alertmanager/"),
        (Mimir, "POST /alertmanager/api/v2/status"),
        (Mimir, "POST /api/v1/grafana/config"),
        (Mimir, "PUT /prometheus/config/v1/rules/a%2Fb"),
        (Mimir, "GET /ingester/tsdb/x"),
        (Mimir, "POST /cortex.Ingester/Push"),
        (Mimir, "POST /loki/api/v1/push"),
        (Tempo, "GET /api/overrides"),
        (Tempo, "GET /querier/api/traces/1"),
        (Tempo, "DELETE /api/traces/1"),
        (Tempo, "PUT /api/search"),
        (Tempo, "HEAD /api/status/buildinfo"),
        (Tempo, "GET /api/v1/spans"),
        (Pyroscope, "POST /settings.v1.SettingsService/Get"),
        (Pyroscope, "POST /debuginfo.v1alpha1.DebuginfoService/DeleteDebuginfo"),
        (Pyroscope, "GET /pyroscope/labels"),
    ] {
        assert_eq!(scope_of(backend, request), Err(RouteUnknown), "{request}");
    }
    assert_eq!(plain(BackendSet::EMPTY, "GET /loki/api/v1/query"), Err(RouteUnknown));
}

#[test]
fn ambiguous_paths() {
    for bad in [
        "",
        "*",
        "x",
        "http://host/loki/api/v1/query",
        "%2Floki/api/v1/query",
        "//",
        "/a//b",
        "/a//",
        "/.",
        "/..",
        "/a/.",
        "/a/..",
        "/./a",
        "/a/../b",
        "/a/./b",
        "/a\\b",
        "/a#b",
        "/a b",
        "/a\tb",
        "/a\nb",
        "/a\0b",
        "/a\x7fb",
        "/%",
        "/%2",
        "/%2g",
        "/%g2",
        "/%+1",
        "/a%",
        "/%2E",
        "/%2e%2e/a",
        "/a.%2Eb",
        "/a%2Eb",
        "/%5C",
        "/a%5cb",
        "/%00",
        "/a%00",
        "/%0a",
        "/%0D",
        "/%1f",
        "/%7F",
        "/%3F",
        "/a%3fb",
        "/loki/api/v1/push%3F",
        "/loki/api/v1/label/a%3Fx=/values",
        "/prometheus/config/v1/rules/why%3F",
        "/%c3",
        "/%C3%28",
        "/%C0%AF",
        "/%ED%A0%80",
        "/%ff",
        "/%252F",
        "/%252e%252e",
        "/%2525",
        "/%25%32%46",
        "/a%25ff",
        "/%2F",
        "/a%2F",
        "/a%2F/b",
        "/%2Fa",
        "/a/%2Fb",
    ] {
        assert_eq!(RoutePath::parse(bad.as_bytes()), Err(AmbiguousPath), "{bad:?}");
        assert_eq!(scope_of(Loki, &format!("GET {bad}")), Err(PathAmbiguous), "{bad:?}");
    }
    for bad in [&b"/\xff"[..], b"/a\xc3", b"/\xc0\xaf", b"/\xed\xa0\x80", b"/\xc3%a9", b"/a\x80/"] {
        // The fifth is whole once decoded, but not before.
        assert_eq!(RoutePath::parse(bad), Err(AmbiguousPath), "{bad:?}");
    }
    for good in
        ["/", "/a/", "/a.b", "/...", "/.a", "/a%20b", "/%25", "/%25/a", "/a%25zz", "/%C3%A9", "/%3b%26%23"]
    {
        assert_eq!(RoutePath::parse(good.as_bytes()).map(|path| path.as_str()), Ok(good));
    }
}

#[test]
fn encoded_slashes_are_for_the_names_of_mimirs_rules() {
    for (backend, request) in [
        (Loki, "DELETE /loki/api/v1/rules/..%2Fdelete"),
        (Loki, "DELETE /loki/api/v1/rules/a%2Fb"),
        (Loki, "POST /loki%2Fapi/v1/push"),
        (Loki, "GET /loki/api/v1/label/a%2Fb/values"),
        (Tempo, "GET /api/traces/a%2Fb"),
        (Pyroscope, "POST /debuginfo.v1alpha1.DebuginfoService/Upload/a%2fb"),
        (Mimir, "GET /nothing%2Fknown"),
        // Cortex' rules too, but Loki's as well.
        (Mimir, "GET /api/prom/rules/a%2Fb"),
        (Mimir, "GET /prometheus/api/v1/label/a%2Fb/values"),
        (Mimir, "GET /ingester/tsdb/a%2Fb"),
        (Mimir, "GET /alertmanager/a%2Fb"),
        (Mimir, "GET /prometheus/config%2Fv1/rules/a"),
        (Mimir, "GET /prometheus/config/v1/rules%2Fa"),
        (Mimir, "GET /prometheus/config/v1/rules/a%2Fb/c/d"),
        (Mimir, "POST /prometheus/config/v1/rules/..%2F..%2F..%2Fapi%2Fv1%2Fquery"),
        (Mimir, "GET /ingester/tsdb/..%2F..%2Fprometheus%2Fapi%2Fv1%2Fquery"),
        (Mimir, "GET /prometheus/config/v1/rules/%2Fa"),
        (Mimir, "GET /prometheus/config/v1/rules/a%2F"),
        (Mimir, "GET /prometheus/config/v1/rules/a%2F%2Fb"),
        (Mimir, "GET /prometheus/config/v1/rules/a%2F.%2Fb"),
        (Mimir, "GET /prometheus/config/v1/rules/a%2F../b"),
        (Mimir, "GET /prometheus/config/v1/rules/a%2Fb%252Fc"),
        // Beside bytes that Go would escape, it matches the decoded path after all.
        (Mimir, "POST /prometheus/config/v1/rules/a%2Fé"),
        (Mimir, "POST /prometheus/config/v1/rules/a%2Fb\"c"),
        (Mimir, "POST /prometheus/config/v1/rules/a%2Fb^"),
    ] {
        assert_eq!(scope_of(backend, request), Err(PathAmbiguous), "{request}");
        assert_eq!(plain(BackendSet::ALL, request), Err(PathAmbiguous), "{request}");
    }
    let path = RoutePath::parse(b"/loki/api/v1/rules/a%2Fb").unwrap();
    assert_eq!(classify(BackendSet::of(Loki), b"GET", &path), None);
    let found = plain(BackendSet::ALL, "GET /prometheus/config/v1/rules/a%2Fb").unwrap();
    assert_eq!((found.scope, found.backends), (Scope::RulesRead, BackendSet::of(Mimir)));
}

/// So a reader that takes the slash for a plain one finds the same scope there or nothing.
#[test]
fn below_rules_there_are_only_rules() {
    let heads = ["/prometheus/config/v1/rules/", "/prometheus/rules/", "/api/v1/rules/"];
    let mut rows = 0;
    for row in table().filter(|row| heads.iter().any(|head| row.pattern.starts_with(head))) {
        assert_eq!(row.backend, Mimir, "{row:?}");
        assert_eq!(row.kind, if row.method == "GET" { "rules_read" } else { "rules_write" }, "{row:?}");
        rows += 1;
    }
    assert_eq!(rows, 12);
    for prefix in
        ["/{rest}", "/api/{rest}", "/api/v1/{rest}", "/prometheus/{rest}", "/prometheus/config/{rest}"]
    {
        assert!(!table().any(|row| row.pattern == prefix), "{prefix} would match too");
    }
}

#[test]
fn the_order_of_the_lines_makes_no_difference() {
    let mut rows: Vec<_> = table().collect();
    rows.reverse();
    let reversed = index::Index::of(rows.into_iter());
    for row in table() {
        let path = filled(row.pattern, "some-name_1");
        for method in ["GET", "POST", "DELETE", "PATCH", row.method] {
            let says = |index: &index::Index| {
                index.near(&path).find(row.backend, method.as_bytes()).map(|found| (found.scope, found.tail))
            };
            assert_eq!(says(&reversed), says(&INDEX), "{method} {path}");
        }
    }
}

#[test]
fn the_very_method_wins_over_any() {
    let lines = ["loki\t*\t/x\t-\toperational", "loki\tGET\t/x\tlogs:read\tquery"];
    let index = index::Index::of(lines.into_iter().filter_map(TableRow::parse));
    let scope = |method: &[u8]| index.near("/x").find(Loki, method).map(|row| row.scope);
    assert_eq!(scope(b"GET"), Some(Some(Scope::LogsRead)));
    assert_eq!(scope(b"HEAD"), Some(None));
}

#[test]
fn several_tables_must_agree() {
    let rules = plain(BackendSet::ALL, "GET /prometheus/api/v1/rules").unwrap();
    assert_eq!(rules.scope, Scope::RulesRead);
    assert_eq!(rules.backends, BackendSet::of(Mimir).union(BackendSet::of(Loki)));
    let legacy = plain(BackendSet::ALL, "GET /api/prom/rules/a").unwrap();
    assert_eq!(legacy.backends, rules.backends);
    // Cortex writes metrics there, Loki logs.
    assert_eq!(plain(BackendSet::ALL, "POST /api/prom/push"), Err(RouteUnknown));
    let query = plain(BackendSet::ALL, "GET /loki/api/v1/query").unwrap();
    assert_eq!(query.backends, BackendSet::of(Loki));
    // What one table denies, no other allows: every row in every set of backends that knows the path.
    for row in table() {
        let method = if row.method == "*" { "GET" } else { row.method };
        let path = filled(row.pattern, "n");
        let parsed = RoutePath::parse(path.as_bytes()).unwrap();
        let single = |backend| classify(BackendSet::of(backend), method.as_bytes(), &parsed);
        let known = |backend| INDEX.near(&path).find(backend, method.as_bytes()).is_some();
        let knowing: BackendSet = Backend::ALL
            .into_iter()
            .filter(|b| known(*b))
            .fold(BackendSet::EMPTY, |set, b| set.union(BackendSet::of(b)));
        let scopes: Vec<_> =
            knowing.iter().map(|backend| single(backend).map(|route| (route.scope, route.tail))).collect();
        let agreed = scopes.iter().all(|scope| *scope == scopes[0]).then(|| scopes[0]).flatten();
        let found = classify(BackendSet::ALL, method.as_bytes(), &parsed);
        assert_eq!(found.map(|route| (route.scope, route.tail)), agreed, "{row:?}");
        assert!(found.is_none_or(|route| route.backends == knowing), "{row:?}");
    }
    // A tail and a query of the same scope would differ too.
    let tail = Route { scope: Scope::LogsRead, backends: BackendSet::of(Loki), tail: true };
    assert_eq!(tail.merged_with(Route { tail: false, ..tail }), None);
    assert_eq!(tail.merged_with(Route { scope: Scope::LogsWrite, ..tail }), None);
}

#[test]
fn the_prefix_is_removed_once_at_a_segment() {
    let scope = |prefix: &str, path: &str| {
        route_raw(BackendSet::of(Loki), prefix, b"GET", path.as_bytes(), None).map(|route| route.scope.name())
    };
    assert_eq!(scope("/pre", "/pre/loki/api/v1/query?x"), Ok("logs:read"));
    assert_eq!(scope("/a/b", "/a/b/loki/api/v1/label/x%20y/values"), Ok("logs:read"));
    for unknown in [
        "/loki/api/v1/query",
        "/pre2/loki/api/v1/query",
        "/pre/pre/loki/api/v1/query",
        "/pre",
        "/pre/",
        "/",
        "/%70re/loki/api/v1/query",
        "/Pre/loki/api/v1/query",
        "/pre2/loki/api/v1/label/%20/values",
    ] {
        assert_eq!(scope("/pre", unknown), Err(RouteUnknown), "{unknown}");
    }
    for bad in [
        "/pre//loki/api/v1/query",
        "/pre/../loki/api/v1/query",
        "/pre%2Floki/api/v1/query",
        "/pre2/a%2Fb",
        "/pre/a%2Fb",
    ] {
        assert_eq!(scope("/pre", bad), Err(PathAmbiguous), "{bad}");
    }
    for outside in ["/pre2", "/pre2/a", "/pre%20/a", "/pr", "/a/pre"] {
        assert_eq!(RoutePath::parse(outside.as_bytes()).unwrap().without("/pre"), None, "{outside}");
    }
    let path = RoutePath::parse(b"/pre").unwrap();
    assert_eq!(path.without("/pre").map(|path| path.as_str()), Some("/"));
}

/// nginx may not have removed the prefix: the path with it must mean the same, or nothing.
#[test]
fn a_prefix_that_is_kept_changes_nothing() {
    let check = |backends, prefix: &str, request: &str| {
        let (method, path) = request.split_once(' ').unwrap();
        let alone = route_raw(backends, prefix, method.as_bytes(), path.as_bytes(), None);
        for uri in [path, path.strip_prefix(prefix).unwrap()] {
            let whole = route(backends, prefix, method.as_bytes(), path.as_bytes(), uri.as_bytes(), None);
            assert_eq!(whole, alone, "{prefix} of {request} as {uri}");
        }
        alone.map(|route| route.scope.name())
    };
    let (loki, mimir) = (BackendSet::of(Loki), BackendSet::of(Mimir));
    for (backends, prefix, request) in [
        // Mimir's push below the prefix, Loki's with it.
        (BackendSet::ALL, "/loki", "POST /loki/api/v1/push"),
        (loki.union(mimir), "/loki", "POST /loki/api/v1/push"),
        // Denied as it stands.
        (loki, "/compactor", "GET /compactor/loki/api/v1/labels"),
        (mimir, "/alertmanager", "GET /alertmanager/prometheus/api/v1/query"),
    ] {
        let found = check(backends, prefix, request);
        let below = request.replacen(prefix, "", 1);
        assert!(plain(backends, &below).is_ok(), "{below}");
        assert_eq!(found, Err(PathAmbiguous), "{prefix} of {request}");
    }
    for (backends, prefix, request, scope) in [
        // Nobody knows the path with the prefix.
        (BackendSet::ALL, "/pre", "POST /pre/loki/api/v1/push", "logs:write"),
        // The only backend that does is not asked.
        (mimir, "/loki", "POST /loki/api/v1/push", "metrics:write"),
        // The same on both ways.
        (loki.union(mimir), "/loki", "GET /loki/api/v1/rules", "rules:read"),
    ] {
        assert_eq!(check(backends, prefix, request), Ok(scope), "{prefix} of {request}");
    }
    // Then restrictions for either of them apply.
    let rules = route_raw(loki.union(mimir), "/loki", b"GET", b"/loki/api/v1/rules", None).unwrap();
    assert_eq!(rules.backends, loki.union(mimir));
}

#[test]
fn upgrades_are_for_tails() {
    let upgrade = |path: &str, value: &[u8]| {
        route_raw(BackendSet::of(Loki), "", b"GET", path.as_bytes(), Some(value)).map(|route| route.tail)
    };
    for tail in ["/loki/api/v1/tail?query={}", "/api/prom/tail"] {
        assert_eq!(upgrade(tail, b"websocket"), Ok(true));
        for bad in ["", "WebSocket", "websocket ", "websocket, h2c", "h2c"] {
            assert_eq!(upgrade(tail, bad.as_bytes()), Err(RouteUnknown), "{bad}");
        }
    }
    assert_eq!(upgrade("/loki/api/v1/query", b"websocket"), Err(RouteUnknown));
    assert_eq!(upgrade("/loki/api/v1//query", b"h2c"), Err(PathAmbiguous), "the path comes first");
}

#[test]
fn what_nginx_made_of_the_path_must_do_the_same() {
    let check = |backends, prefix: &str, request: &str, uri: &str| {
        let (method, path) = request.split_once(' ').unwrap();
        route(backends, prefix, method.as_bytes(), path.as_bytes(), uri.as_bytes(), None)
            .map(|route| route.scope.name())
    };
    let loki = BackendSet::of(Loki);
    for (prefix, request, uri, scope) in [
        ("", "GET /loki/api/v1/query?a=b", "/loki/api/v1/query", "logs:read"),
        (
            "",
            "GET /loki/api/v1/label/a%20%C3%A9%23%25/values",
            "/loki/api/v1/label/a é#%/values",
            "logs:read",
        ),
        ("/pre", "GET /pre/loki/api/v1/query", "/pre/loki/api/v1/query", "logs:read"),
        ("/pre", "GET /pre/loki/api/v1/query", "/loki/api/v1/query", "logs:read"),
        ("/pre", "GET /pre/loki/api/v1/label/%25/values", "/loki/api/v1/label/%/values", "logs:read"),
        ("/p%20q", "GET /p%20q/loki/api/v1/query", "/p q/loki/api/v1/query", "logs:read"),
        // Rewritten to another path of the same scope.
        ("", "GET /api/prom/label", "/loki/api/v1/labels", "logs:read"),
        ("/pre", "GET /pre/api/prom/label", "/pre/loki/api/v1/labels", "logs:read"),
        ("/pre", "GET /pre/api/prom/label", "/loki/api/v1/labels", "logs:read"),
    ] {
        assert_eq!(check(loki, prefix, request, uri), Ok(scope), "{request} as {uri}");
    }
    for (prefix, request, uri) in [
        ("", "GET /loki/api/v1/query", ""),
        ("", "GET /loki/api/v1/query", "loki/api/v1/query"),
        ("", "GET /loki/api/v1/query", "/loki/api/v1/query/"),
        ("", "GET /loki/api/v1/query", "/loki/api/v1/rules"),
        ("", "GET /loki/api/v1/query", "/loki/api/v1/tail"),
        ("", "GET /loki/api/v1/tail", "/loki/api/v1/query"),
        ("", "GET /loki/api/v1/query", "/config"),
        ("", "GET /loki/api/v1/query", "/nothing"),
        ("", "GET /loki/api/v1/query", "/loki/api/v1/../v1/query"),
        ("", "GET /loki/api/v1/query", "//loki/api/v1/labels"),
        ("", "GET /loki/api/v1/query", "/pre/loki/api/v1/query"),
        ("", "GET /loki/api/v1/query", "/loki/api/v1/label/a%20b/values"),
        ("", "GET /loki/api/v1/query", "/loki/api/v1/label/a?b/values"),
        ("", "GET /loki/api/v1/label/a%20b/values", "/loki/api/v1/label/a%20b/values"),
        ("", "DELETE /loki/api/v1/rules/x", "/loki/api/v1/delete"),
        ("/pre", "GET /pre/loki/api/v1/query", "/pre2/loki/api/v1/query"),
        ("/pre", "GET /pre/loki/api/v1/query", "/pre/pre/loki/api/v1/query"),
        // Denied as it stands, allowed without the prefix: which of them is sent cannot be known.
        ("/compactor", "GET /compactor/api/prom/label", "/compactor/loki/api/v1/labels"),
    ] {
        assert_eq!(check(loki, prefix, request, uri), Err(PathAmbiguous), "{request} as {uri}");
    }
    assert_eq!(
        check(loki, "", "GET /nothing", "/loki/api/v1/query"),
        Err(RouteUnknown),
        "the raw path comes first"
    );
    let slash = "DELETE /prometheus/config/v1/rules/a%2Fb/c";
    assert_eq!(
        check(BackendSet::of(Mimir), "", slash, "/prometheus/config/v1/rules/a/b/c"),
        Ok("rules:write")
    );
    // The backends of both paths count.
    let both =
        route(BackendSet::ALL, "", b"GET", b"/loki/api/v1/rules", b"/prometheus/api/v1/rules", None).unwrap();
    assert_eq!(both.backends, loki.union(BackendSet::of(Mimir)));
}
