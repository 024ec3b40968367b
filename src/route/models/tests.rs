//! The models on hostile paths, and on what is known of their originals.

use super::super::tests::filled;
use super::*;
use proptest::test_runner::RngSeed;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "HEAD"];

/// Pieces that some reader gives a meaning, and names of routes for them to lead to.
const HOSTILE: &[&str] = &[
    "..",
    ".",
    "%2e",
    "%2E%2e",
    "..%2f",
    "%2F..",
    "%2f",
    "%2F%2F",
    "%5c",
    "\\",
    "%25",
    "%252f",
    "%252e%252e",
    "%3f",
    "%23",
    "#",
    ";",
    ";x=1",
    "+",
    "%20",
    "\"",
    "^",
    "é",
    "%C3%A9",
    "%c0%af",
    "%ff",
    "%00",
    "%0a",
    "%7f",
    "",
    "a",
    "b.c",
    "rules",
    "push",
    "%70ush",
    "delete",
    "query",
    "alerts",
    "series",
    "tail",
    "api",
    "v1",
    "loki",
    "prometheus",
    "config",
    "compactor",
    "ingester",
    "tsdb",
    "metrics",
    "values",
    "label",
];

fn hostile_name() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(HOSTILE), 1..4).prop_map(|pieces| pieces.concat())
}

/// A path of one of the rows, with hostile text for its names, and perhaps more of it put in somewhere.
fn near_a_row() -> impl Strategy<Value = (Backend, String)> {
    let rows: Vec<TableRow> =
        table().filter(|row| row.scope.is_some() && row.pattern.contains('{')).collect();
    let every: Vec<TableRow> = table().collect();
    let row = prop_oneof![3 => proptest::sample::select(rows), 1 => proptest::sample::select(every)];
    let names = proptest::collection::vec(hostile_name(), 2);
    let inserted = proptest::option::weighted(0.3, (any::<prop::sample::Index>(), hostile_name()));
    (row, names, inserted).prop_map(|(row, names, inserted)| {
        let mut names = names.into_iter().cycle();
        let fill = |part: &str| match part.split_once('{') {
            Some((start, _)) => start.to_owned() + &names.next().unwrap_or_default(),
            None => part.to_owned(),
        };
        let mut parts: Vec<String> = row.pattern.split('/').map(fill).collect();
        if let Some((at, text)) = inserted {
            parts.insert(at.index(parts.len()) + 1, text);
        }
        (row.backend, parts.join("/"))
    })
}

/// Any pieces, joined by plain, doubled and encoded slashes.
fn anything() -> impl Strategy<Value = (Backend, String)> {
    let joint = proptest::sample::select(vec!["/", "/", "/", "//", "%2f", "/./", "/../", ""]);
    let piece = (joint, proptest::sample::select(HOSTILE));
    let path = proptest::collection::vec(piece, 1..8);
    (proptest::sample::select(Backend::ALL.to_vec()), path).prop_map(|(backend, pieces)| {
        (backend, pieces.into_iter().fold(String::from("/"), |path, (joint, piece)| path + joint + piece))
    })
}

fn fixed(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(fixed(6000))]

    #[test]
    fn near_every_row_there_is_one_reading((backend, path) in near_a_row()) {
        for method in METHODS {
            one_reading(backend, method, path.as_bytes())?;
        }
    }

    /// Its first segments for a prefix, or one that some backend knows.
    #[test]
    fn below_a_prefix_there_is_one_reading(
        (backend, path) in near_a_row(),
        count in 1_usize..4,
        front in proptest::sample::select(vec!["", "/loki", "/prometheus", "/api", "/alertmanager", "/compactor"]),
    ) {
        let path = front.to_owned() + &path;
        let prefix = path.split('/').take(count + 1).collect::<Vec<_>>().join("/");
        for method in METHODS {
            for backends in [BackendSet::of(backend), BackendSet::ALL] {
                one_reading_below(&prefix, backends, method, path.as_bytes())?;
                one_reading_below(front, backends, method, path.as_bytes())?;
            }
        }
    }

    #[test]
    fn of_any_pieces_there_is_one_reading((backend, path) in anything()) {
        for method in METHODS {
            one_reading(backend, method, path.as_bytes())?;
        }
    }

    #[test]
    fn no_bytes_panic(
        path in proptest::collection::vec(any::<u8>(), 0..40),
        uri in proptest::collection::vec(any::<u8>(), 0..40),
        prefix in "[/a%]{0,3}",
    ) {
        let _ = route(BackendSet::ALL, &prefix, b"GET", &path, &uri, None);
    }
}

/// Every name of two hostile pieces, with and without an encoded slash between, in every row that takes a
/// name: each that is allowed has one reading, and enough are allowed for the properties to mean something.
#[test]
fn two_hostile_pieces_in_every_name() {
    let (mut allowed, mut with_slash) = (0, 0);
    for row in table().filter(|row| row.scope.is_some() && row.pattern.contains('{')) {
        let pairs = HOSTILE.iter().flat_map(|first| HOSTILE.iter().map(move |second| (first, second)));
        for (first, second) in pairs {
            for name in [format!("{first}{second}"), format!("{first}%2f{second}")] {
                let path = filled(row.pattern, &name);
                if one_reading(row.backend, row.method, path.as_bytes()).unwrap() {
                    allowed += 1;
                    with_slash += usize::from(path.to_lowercase().contains("%2f"));
                }
            }
        }
    }
    assert!(allowed > 10_000 && with_slash > 1_000, "{allowed} allowed, {with_slash} with an encoded slash");
}

/// The models themselves, on what is known of their originals.
#[test]
fn the_models_show_the_known_attacks() {
    let runs = |backend, request: &str| {
        let (method, path) = request.split_once(' ').unwrap();
        backend_runs(backend, method, path.as_bytes()).and_then(|(scope, _)| scope).map(Scope::name)
    };
    let uri = |path: &str| nginx_uri(path.as_bytes()).map(|uri| String::from_utf8(uri).unwrap());
    let mimir = "/prometheus/config/v1/rules/..%2F..%2F..%2Fapi%2Fv1%2Fquery";
    assert_eq!(uri(mimir).as_deref(), Some("/prometheus/api/v1/query"));
    assert_eq!(runs(Backend::Mimir, &format!("POST {mimir}")), Some("rules:write"));
    assert_eq!(runs(Backend::Loki, "POST /loki%2Fapi/v1/push"), Some("logs:write"));
    assert_eq!(runs(Backend::Mimir, "POST /api%2Fv1/push"), None);
    let loki = "/loki/api/v1/rules/..%2Fdelete";
    assert_eq!(uri(loki).as_deref(), Some("/loki/api/v1/delete"));
    assert_eq!(runs(Backend::Loki, "DELETE /loki/api/v1/delete"), Some("logs:delete"));
    assert_eq!(
        route_raw(BackendSet::of(Backend::Loki), "", b"DELETE", loki.as_bytes(), None),
        Err(Reason::PathAmbiguous)
    );
    assert_eq!(go_escaped_path("/a%2Fé".as_bytes()).unwrap(), b"/a/%C3%A9");
    assert_eq!(go_escaped_path(b"/a%2Fb%41").unwrap(), b"/a%2Fb%41");
    assert_eq!(uri("/a//b/./c/../d%23%3f").as_deref(), Some("/a/b/d#?"));
    assert_eq!((uri("/.."), uri("/a/.."), uri("/a%00")), (None, Some("/".into()), None));
    assert_eq!(nginx_sends("/a é?".as_bytes()), b"/a%20%C3%A9%3F");
}
