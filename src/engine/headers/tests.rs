//! Header lines against what contract section 4 says of them, and against a slow reading of it.

use super::model::{CLIENT_IP_PLANS, Plan, SOME_NAMES, TOKEN_PLANS, agrees};
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

type Line<'a> = (&'a str, &'a str);

fn names(tokens: &[&str], source: Option<&Source>) -> HeaderNames {
    let tokens: Vec<Box<str>> = tokens.iter().map(|name| (*name).into()).collect();
    HeaderNames::new(&tokens, source)
}

fn usual() -> HeaderNames {
    names(&["X-Id-Token"], None)
}

fn read<'a>(names: &HeaderNames, forwarded: &[&str], lines: &[Line<'a>]) -> Headers<'a> {
    let forwarded: Vec<Box<[u8]>> = forwarded.iter().map(|name| name.as_bytes().into()).collect();
    Headers::read(names, &forwarded, lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

/// The names that go no further.
fn removed<'a>(names: &HeaderNames, forwarded: &[&str], lines: &[Line<'a>]) -> Vec<&'a str> {
    let read = read(names, forwarded, lines);
    read.removed.iter().map(|number| lines[usize::from(*number)].0).collect()
}

/// A user's token in a header of its own.
fn user(token: &str) -> Lines<Credential<'_>> {
    Lines::One(Credential::User { token: token.as_bytes(), bearer: false })
}

fn service(header: &str, attended: bool) -> Lines<Credential<'_>> {
    Lines::One(Credential::Service { header: header.as_bytes(), attended })
}

fn service_token() -> String {
    format!("tas_{}", "A".repeat(43))
}

#[test]
fn credentials_and_what_tunes_a_backend_are_removed_unless_forwarded() {
    let lines: Vec<Line<'_>> = [
        "host",
        "x-id-token",
        "authorization",
        "x-grafana-id",
        "x-ds-authorization",
        "x-prom-label-policy",
        "x-scope-userid",
        "x-query-tags",
        "http2-settings",
        "x-loki-anything",
        "x-mimir-anything",
        "x-cortex-blockstore-type",
        "x-tenantauth-subject",
        "x-read-consistency",
        "x-read-consistency-max-delay",
        "x-query-queue-time",
        "recent-data-target",
        "sharding-control",
        "instant-split-control",
        "x-filter-queryables",
        "x-promql-enginetype",
        "x-request-logging-headers-key",
        "x-pyroscope-collect-diagnostics",
        "x-loki-response-encoding-flags",
        "x-scope-orgid",
        "cookie",
        "connection",
        "upgrade",
        "x-grafana-user",
        "x-dashboard-uid",
        "x-lokiless",
        "x-mimi",
        "x-",
        "x_scope_orgid",
        "x-scope_orgid",
        "x_scope-orgid",
        "",
        "user-agent",
    ]
    .map(|name| (name, "v"))
    .to_vec();
    let all = [
        "x-id-token",
        "authorization",
        "x-grafana-id",
        "x-ds-authorization",
        "x-prom-label-policy",
        "x-scope-userid",
        "x-query-tags",
        "http2-settings",
        "x-loki-anything",
        "x-mimir-anything",
        "x-cortex-blockstore-type",
        "x-tenantauth-subject",
        "x-read-consistency",
        "x-read-consistency-max-delay",
        "x-query-queue-time",
        "recent-data-target",
        "sharding-control",
        "instant-split-control",
        "x-filter-queryables",
        "x-promql-enginetype",
        "x-request-logging-headers-key",
        "x-pyroscope-collect-diagnostics",
        "x_scope_orgid",
        "x-scope_orgid",
        "x_scope-orgid",
    ];
    assert_eq!(removed(&usual(), &[], &lines), all);
    for kept in all {
        let rest: Vec<_> = all.into_iter().filter(|name| *name != kept || name.contains('_')).collect();
        assert_eq!(removed(&usual(), &[kept], &lines), rest, "{kept} is forwarded");
    }
}

#[test]
fn the_first_token_header_that_is_present_counts_even_if_empty() {
    let names = names(&["X-First", "Authorization", "X-Last"], None);
    let token = |lines: &[Line<'static>]| read(&names, &[], lines).credential;
    assert_eq!(token(&[("x-last", "c"), ("authorization", "b"), ("x-first", "a")]), user("a"));
    let bearer = Lines::One(Credential::User { token: b"b", bearer: true });
    assert_eq!(token(&[("x-last", "c"), ("authorization", "b")]), bearer);
    assert_eq!(token(&[("x-last", "c"), ("x-first", "")]), user(""));
    assert_eq!(token(&[("x-id-token", "c")]), Lines::None);
    // In which line it came makes no difference; two lines of one name do.
    assert_eq!(token(&[("x-last", "c"), ("x-first", "a"), ("x-last", "d")]), Lines::Several);
    assert_eq!(token(&[("x-last", "c"), ("x-first", "a")]), user("a"));
}

#[test]
fn repeated_lines_are_noticed() {
    let header = Source::Header { name: "X-Real-Ip".into(), trusted_peers: Default::default() };
    let names = names(&["X-Id-Token"], Some(&header));
    let one =
        read(&names, &[], &[("x-scope-orgid", "a"), ("x-real-ip", "192.0.2.1"), ("upgrade", "websocket")]);
    assert_eq!((one.tenant, one.client_ip), (Lines::One(&b"a"[..]), Lines::One(&b"192.0.2.1"[..])));
    assert_eq!(one.upgrade, Lines::One(&b"websocket"[..]));
    let two = [("x-scope-orgid", "a"), ("x-scope-orgid", ""), ("x-real-ip", ""), ("x-real-ip", "")];
    let two = read(&names, &[], &two);
    assert_eq!((two.tenant, two.client_ip), (Lines::Several, Lines::Several));
    let upgrades = [("upgrade", "websocket"), ("upgrade", "")];
    assert_eq!(read(&names, &[], &upgrades).upgrade, Lines::Several);
    let cookies = read(&names, &[], &[("cookie", "a=b"), ("cookie", "c=d")]).cookies;
    assert_eq!(&*cookies, [b"a=b", b"c=d"]);
}

#[test]
fn a_service_token_is_known_by_its_beginning_and_never_forwarded() {
    let good = service_token();
    let long = format!("Bearer {good}{}", "A".repeat(5000));
    for value in [
        format!("Bearer {good}"),
        format!("bEARER \t {good}"),
        "Basic anything".to_owned(),
        "basic ".to_owned(),
    ] {
        let lines = [("authorization", value.as_str())];
        let read = read(&usual(), &["authorization"], &lines);
        assert_eq!(read.credential, service(&value, false), "{value}");
        assert_eq!(read.removed.len(), 1, "no backend sees it: {value}");
    }
    // No account's, being so long; and all the same not for any backend.
    let too_long = [("authorization", long.as_str())];
    let too_long = read(&usual(), &["authorization"], &too_long);
    assert!(!too_long.credential.is_some() && too_long.removed.len() == 1);
    for value in ["Bearer eyJ", "Bearer", "Bearer\ttas_x", "Basic", "tas_x", "Digest tas_x", ""] {
        let lines = [("authorization", value)];
        let read = read(&usual(), &["authorization"], &lines);
        assert_eq!(read.credential, Lines::None, "{value}");
        assert_eq!(read.removed.is_empty(), !value.contains("tas_"), "{value}");
    }
}

#[test]
fn somebody_behind_a_service_token_is_noticed() {
    let bearer = format!("Bearer {}", service_token());
    let line = ("authorization", bearer.as_str());
    for sign in ["x-id-token", "x-grafana-user"] {
        assert_eq!(read(&usual(), &[], &[line, (sign, "")]).credential, service(&bearer, true), "{sign}");
    }
    assert_eq!(read(&usual(), &[], &[line, line]).credential, Lines::Several);
    // Who comes through a proxy may be an agent: the engine asks the account.
    for forwarded in [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "")] {
        let read = read(&usual(), &[], &[line, forwarded, forwarded]);
        assert!(read.is_forwarded && read.credential == service(&bearer, false));
    }
    // With `underscores_in_headers on`; no proxy writes it.
    assert!(!read(&usual(), &[], &[line, ("x_forwarded_for", "192.0.2.1")]).is_forwarded);
    // `Basic` beside a token is Grafana's own, unless a service token is in it.
    let of = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let (theirs, ours) = (of("grafana:secret"), of(&format!("name:{}", service_token())));
    let beside = read(&usual(), &[], &[("authorization", &theirs), ("x-id-token", "t")]);
    assert_eq!(beside.credential, user("t"));
    let beside = read(&usual(), &[], &[("authorization", &ours), ("x-id-token", "t")]);
    assert_eq!(beside.credential, service(&ours, true));
}

/// More names than their numbers can count.
#[test]
fn any_number_of_token_headers_is_found() {
    let tokens: Vec<String> = (0..400).map(|number| format!("X-Token-{number}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let names = names(&tokens, None);
    for name in &tokens {
        let name = name.to_ascii_lowercase();
        let lines = [(&*name, "t"), ("x-token-400", "u"), ("authorization", "v")];
        let found = read(&names, &[], &lines.map(|(name, value)| (name, value)));
        assert_eq!((found.credential, &*found.removed), (user("t"), &[0, 2][..]), "{name}");
    }
}

proptest! {
    /// The numbers of names hide no line from the reading that compares every name with every other.
    #[test]
    fn no_line_that_matters_is_passed_over(
        tokens in proptest::sample::select(TOKEN_PLANS.to_vec()),
        client_ip in proptest::sample::select(CLIENT_IP_PLANS.to_vec()),
        picks in proptest::collection::vec((0..SOME_NAMES.len(), value()), 0..30),
        forward in proptest::collection::vec(0..SOME_NAMES.len(), 0..3),
    ) {
        let plan = Plan {
            tokens: tokens.to_vec(),
            client_ip,
            forwarded: forward.iter().map(|name| SOME_NAMES[*name]).collect(),
        };
        let lines: Vec<model::Line<'_>> =
            picks.iter().map(|(name, value)| (SOME_NAMES[*name].as_bytes(), value.as_bytes())).collect();
        agrees(&plan, &lines).map_err(TestCaseError::fail)?;
    }
}

/// Any printable value, and what may be a service token's.
fn value() -> impl Strategy<Value = String> {
    let service = service_token();
    prop_oneof![
        6 => "[ -~]{0,12}",
        1 => Just(format!("Bearer {service}")),
        1 => Just(format!("Basic {}", STANDARD.encode(format!("name:{service}")))),
        1 => Just("Basic anything".to_owned()),
        2 => "(close|Keep-Alive|te|upgrade|Cookie|,| ){0,5}",
    ]
}
