//! The exposition and the status page: exact counts over all workers, and names that dashboards rely on.

use crate::checks::query;
use crate::support::client::Request;
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::tokens::token;
use crate::support::wait_for;
use std::collections::{BTreeMap, BTreeSet};

/// Samples by their name and labels as written, each family announced before.
pub(crate) fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a help text");
            assert!(!words.is_empty() && helped.insert(name.to_owned()), "second HELP: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(
                helped.contains(name) && typed.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{line}"
            );
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("`{line}`"));
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("`{line}`"));
            assert!(name.starts_with("tenantauth_"), "{line}");
            assert!(labels.is_empty() || (labels.contains("=\"") && labels.ends_with('"')), "{line}");
            let suffixes = ["_bucket", "_sum", "_count"];
            let family =
                suffixes.iter().find_map(|end| name.strip_suffix(end).filter(|f| typed.contains_key(*f)));
            assert!(typed.contains_key(family.unwrap_or(name)), "no TYPE for {line}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("`{line}`"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

/// The sum of the samples of this name whose labels hold all of these.
fn sum(site: &Site, name: &str, labels: &[&str]) -> f64 {
    let samples = samples(&site.metrics());
    let ours = samples.iter().filter(|(series, _)| {
        series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
    });
    ours.fold(0.0, |sum, (_, value)| sum + value)
}

/// Counts may be gathered with a delay; they must arrive, and not overshoot.
#[track_caller]
fn expect(site: &Site, name: &str, labels: &[&str], count: f64) {
    wait_for(&format!("{name} {labels:?} of {count}; it is {}", sum(site, name, labels)), 10, || {
        let now = sum(site, name, labels);
        assert!(now <= count, "{name} {labels:?}: {now} instead of {count}");
        (now == count).then_some(())
    });
}

#[test]
fn decisions_are_counted_exactly_over_workers_crashes_and_reloads() {
    let site = Site::builder().workers(2).start();
    site.expect_errors();
    let decisions = "tenantauth_decisions_total";
    let load = || {
        for _ in 0..25 {
            site.send(query(&["group1"], "tenant1"));
            site.send(query(&["group1"], "tenant2"));
            site.send(Request::new("POST", "/loki/api/v1/push").tenant("tenant1").token(&token(&["group1"])));
            site.send(Request::get("/nothing").tenant("tenant1"));
        }
    };
    for round in 1..=3 {
        load();
        let count = f64::from(round * 25);
        let loki = r#"backend="loki""#;
        expect(
            &site,
            decisions,
            &[r#"decision="allow""#, r#"reason="granted""#, r#"scope="logs:read""#, loki],
            count,
        );
        expect(&site, decisions, &[r#"reason="tenant_forbidden""#, r#"scope="logs:read""#, loki], count);
        expect(&site, decisions, &[r#"reason="scope_forbidden""#, r#"scope="logs:write""#, loki], count);
        expect(&site, decisions, &[r#"reason="route_unknown""#, r#"scope="none""#, loki], count);
        expect(&site, decisions, &[r#"decision="deny""#], 3.0 * count);
        expect(&site, decisions, &[], 4.0 * count);
        if round == 1 { site.nginx().kill_worker() } else { site.nginx().reload() }
    }
    expect(&site, decisions, &[], 300.0);
    expect(&site, "tenantauth_decision_duration_seconds_count", &[], 300.0);
    expect(&site, "tenantauth_audit_records_total", &[], 300.0);
}

#[test]
fn the_promised_names_are_there() {
    let policy = POLICY.replace("2020-02-01", "2999-02-01");
    let site = Site::builder().policy(&format!("{policy}{RESTRICTIONS}{SIGNED_COOKIE}")).start();
    site.send(query(&["group1"], "tenant1").cookie(COOKIE_KEY.pair("203.0.113.5")));
    site.send(query(&["group1"], "tenant1").cookie("Client_Ip=junk"));
    expect(&site, "tenantauth_decisions_total", &[], 2.0);
    let samples = samples(&site.metrics());
    let find = |name: &str| samples.iter().find(|(series, _)| series.split('{').next() == Some(name));
    for (name, labels) in [
        ("tenantauth_decisions_total", ["decision=", "reason=", "backend=", "scope="].as_slice()),
        ("tenantauth_decision_duration_seconds_bucket", &["le="]),
        ("tenantauth_decision_duration_seconds_sum", &[]),
        ("tenantauth_decision_duration_seconds_count", &[]),
        ("tenantauth_token_cache_requests_total", &["result="]),
        ("tenantauth_token_cache_entries", &[]),
        ("tenantauth_client_ip_checks_total", &["source=", "result="]),
        ("tenantauth_workers", &["revision="]),
        ("tenantauth_policy_last_reload_successful", &[]),
        ("tenantauth_policy_last_reload_success_timestamp_seconds", &[]),
        ("tenantauth_policy_reloads_total", &["result="]),
        ("tenantauth_grant_expiry_timestamp_seconds", &["grant="]),
        ("tenantauth_jwks_last_success_timestamp_seconds", &["issuer=\"idp\""]),
        ("tenantauth_jwks_keys", &["issuer=\"idp\""]),
        ("tenantauth_audit_records_total", &[]),
        ("tenantauth_build_info", &["version="]),
    ] {
        let (series, _) = find(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
        assert!(labels.iter().all(|label| series.contains(label)), "{series}");
    }
    assert_eq!(find("tenantauth_policy_last_reload_successful").unwrap().1, &1.0);
    assert_eq!(find("tenantauth_jwks_keys").unwrap().1, &1.0);
    assert_eq!(find("tenantauth_workers").unwrap().1, &1.0);
    assert_eq!(find("tenantauth_grant_expiry_timestamp_seconds").unwrap().1, &32_474_822_400.0);
}

#[test]
fn labels_never_come_from_a_request() {
    let site = Site::start();
    for number in 0..20 {
        let request = Request::new(&format!("M{}", "Q".repeat(number)), format!("/path-{number}"))
            .tenant(&format!("t{number}"));
        site.send(request.header("X-Grafana-User", format!("u{number}")));
    }
    expect(&site, "tenantauth_decisions_total", &[r#"reason="route_unknown""#], 20.0);
    let samples = samples(&site.metrics());
    for forbidden in ["path-", "\"t1", "\"u1", "\"MQ", "ada@", "user-1"] {
        assert!(!samples.keys().any(|series| series.contains(forbidden)), "{forbidden} in {samples:#?}");
    }
}

#[test]
fn status_follows_the_policy() {
    let site = Site::start();
    site.send(query(&["group1"], "tenant1"));
    let good = site.status();
    assert_eq!(good.status, 200, "{}", good.text());
    assert!(good.header("Content-Type").is_some_and(|kind| kind.starts_with("application/json")), "{good:?}");
    assert_eq!(good.json()["problems"], serde_json::json!([]));
    let status = good.json();
    let [worker] = &status["workers"].as_array().expect("workers")[..] else {
        panic!("one worker: {status}")
    };
    assert_eq!(worker["pid"].as_u64(), site.nginx().workers().first().map(|pid| u64::from(*pid)), "{status}");
    assert_eq!(worker["revision"], status["revision"], "{status}");
    assert_eq!(worker["token_cache_entries"], 1, "{status}");
    assert!(worker["uptime_seconds"].as_u64().is_some_and(|seconds| seconds < 60), "{status}");
    for query in ["ready", "ready=1", "ready&x=1", "x=1&ready"] {
        let ready = Request::get(format!("/status?{query}")).send(site.port("admin"));
        assert_eq!((ready.status, &*ready.text()), (200, "ready\n"), "{query}");
    }
    let other = Request::get("/status?already&unready=1").send(site.port("admin"));
    assert_eq!(other.json()["serving"], true);

    let site = Site::builder().policy("version: 2\n").start();
    site.expect_errors();
    site.send(query(&["group1"], "tenant1"));
    let bad = site.status();
    assert_eq!(bad.status, 503, "{}", bad.text());
    // The diagnostics are there for whoever looks.
    let problems = bad.json()["problems"].to_string();
    assert!(problems.contains("policy.yaml:1:10: version: unknown version"), "{}", bad.text());
    let ready = Request::get("/status?ready").send(site.port("admin"));
    assert_eq!((ready.status, ready.text().split_whitespace().count()), (503, 1), "{}", ready.text());
    assert_eq!(sum(&site, "tenantauth_policy_last_reload_successful", &[]), 0.0);
}

#[test]
fn counters_begin_with_0_at_the_first_scrape() {
    let site = Site::builder().start();
    let samples = samples(&site.metrics());
    for sample in [
        "tenantauth_audit_records_total",
        r#"tenantauth_policy_reloads_total{result="failure"}"#,
        r#"tenantauth_token_cache_requests_total{result="hit"}"#,
        r#"tenantauth_token_cache_requests_total{result="miss"}"#,
        r#"tenantauth_token_cache_requests_total{result="refused"}"#,
    ] {
        assert_eq!(samples.get(sample), Some(&0.0), "{sample}");
    }
}
