//! Tests inside policies: what they can ask, when they are run, and what a failing one does.

use super::*;
use crate::decision::{AccessRequest, Caller, decide};
use crate::policy::cases::{self, Outcome as How};
use crate::policy::diagnostic::{Problems, WarningKind};
use crate::policy::sample::Action;
use crate::policy::{Compiled, compile_untested};
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use crate::tenant::TenantList;

const RULES: &str = "\
group_names: { sre: [raw-sre] }
authorizations: { a: [t, u] }
grants:
  - { groups: [w], tenants: ['t*'], scopes: ['logs:*', 'rules:write'], except_tenants: [t-hr] }
  - { groups: [sre], tenants: ['*'], scopes: ['*:*'], expires: 2027-02-01T00:00:00Z }
client_ip: { source: remote_addr }
restrictions:
  - { tenants: [t], scopes: ['logs:*'], except_groups: [sre], networks: [10.0.0.0/8] }
";

fn rules() -> Compiled {
    compiled(&format!("{HEAD}{RULES}"))
}

/// How a test written in flow style goes.
#[track_caller]
fn went(case: &str) -> How {
    let (cases, problems) = cases::read("c.yaml", format!("tests: [{{ {case} }}]\n").as_bytes());
    assert_eq!(problems, [], "{case}");
    let mut told = Problems::of("c.yaml");
    let outcomes = cases::run(&rules().snapshot, &cases, NOW, &mut told);
    assert_eq!(outcomes.len(), 1);
    assert_eq!(told.any_error(), outcomes[0] == How::Failed, "{case}");
    outcomes[0]
}

#[test]
fn every_way_to_ask_is_answered() {
    for case in [
        "groups: [a], tenant: t, scope: logs:read, client_ip: 10.1.1.1, expect: granted",
        "groups: [a], tenant: t, scope: logs:read, client_ip: '::ffff:10.1.1.1', expect: allow",
        "groups: [a], tenant: t, scope: logs:read, client_ip: 192.0.2.1, expect: ip_forbidden",
        "groups: [a], tenant: t, scope: logs:read, client_ip: 192.0.2.1, expect: deny",
        "groups: [a], tenant: t, scope: logs:read, expect: ip_missing",
        "groups: [a], tenant: 'u|t', scope: logs:read, client_ip: 10.1.1.1, expect: allow",
        "groups: [a], tenant: 'u|x', scope: logs:read, expect: tenant_forbidden",
        "groups: [a], tenant: 'a b', scope: logs:read, expect: tenant_malformed",
        "groups: [a], tenant: u, scope: logs:write, expect: scope_forbidden",
        "groups: [w], tenant: 't|t1', scope: logs:write, expect: tenant_malformed",
        "groups: [w], tenant: t-hr, scope: logs:write, expect: tenant_forbidden",
        "groups: [], tenant: t, scope: logs:read, expect: tenant_forbidden",
        "groups: [stranger, a], tenant: u, scope: logs:read, expect: allow",
        "groups: [sre], tenant: t, scope: logs:read, expect: allow",
        "groups: [raw-sre], tenant: t, scope: logs:read, expect: allow",
        "groups: [w], tenant: t, backend: loki, request: 'POST /loki/api/v1/push', client_ip: 10.0.0.1, expect: allow",
        "groups: [w], tenant: t, backend: [loki, mimir], request: 'POST /loki/api/v1/push?x=y', expect: ip_missing",
        "groups: [w], tenant: t, request: 'POST /loki/api/v1/push', expect: ip_missing",
        "groups: [w], tenant: t, backend: mimir, request: 'POST /loki/api/v1/push', expect: route_unknown",
        "groups: [w], tenant: t, backend: loki, request: 'GET /loki//api/v1/push', expect: path_ambiguous",
        // Rules of Loki are bound by `logs:*`, those of Mimir are not.
        "groups: [w], tenant: t, backend: loki, scope: rules:write, expect: ip_missing",
        "groups: [w], tenant: t, backend: mimir, scope: rules:write, expect: allow",
        "claims: { groups: [a] }, tenant: u, scope: logs:read, expect: allow",
        "claims: { groups: [sre] }, tenant: x, scope: logs:read, expect: tenant_forbidden",
        "claims: { groups: [raw-sre], iss: 'https://issuer.example', aud: [grafana] }, tenant: x, scope: logs:read, expect: allow",
        "claims: { groups: [a], iss: 'https://other.example' }, tenant: u, scope: logs:read, expect: token_issuer",
        "claims: { groups: [a], aud: other }, tenant: u, scope: logs:read, expect: token_audience",
        "claims: { groups: [a], exp: 1 }, tenant: u, scope: logs:read, expect: token_expired",
        "claims: { sub: ada }, tenant: u, scope: logs:read, expect: groups_missing",
        "claims: { groups: [[a]] }, tenant: u, scope: logs:read, expect: groups_malformed",
    ] {
        assert_eq!(went(case), How::Passed, "{case}");
    }
}

#[test]
fn a_test_passes_only_as_expected() {
    let allowed = "groups: [a], tenant: u, scope: logs:read";
    let denied = "groups: [a], tenant: x, scope: logs:read";
    for (case, met) in [(allowed, ["allow", "granted"]), (denied, ["deny", "tenant_forbidden"])] {
        for expected in ["allow", "deny"].into_iter().chain(Reason::ALL.iter().map(|reason| reason.name())) {
            let how = if met.contains(&expected) { How::Passed } else { How::Failed };
            assert_eq!(went(&format!("{case}, expect: {expected}")), how, "{case} {expected}");
        }
    }
}

#[test]
fn what_has_run_out_since_is_told_and_refuses_nothing() {
    let sre = "groups: [sre], tenant: x, scope: logs:read";
    for (case, how) in [
        ("now: 2027-01-31T23:59:59Z, expect: allow", How::Passed),
        ("now: 2027-02-01T00:00:00Z, expect: allow", How::Failed),
        ("now: 2027-02-01T00:00:00Z, expect: tenant_forbidden", How::Passed),
        ("expect: allow", How::Passed),
        ("expect: tenant_forbidden", How::Failed),
    ] {
        assert_eq!(went(&format!("{sre}, {case}")), how, "{case}");
    }
    for (claims, how) in [
        (format!("exp: {}", NOW + 1000), How::Passed),
        (format!("exp: {}", NOW - 1000), How::Outdated),
        (format!("exp: {}, nbf: {}", NOW - 1000, NOW - 2000), How::Outdated),
        (format!("nbf: {}", NOW + 1000), How::Failed),
    ] {
        let case = format!("claims: {{ groups: [a], {claims} }}, tenant: u, scope: logs:read, expect: allow");
        assert_eq!(went(&case), how, "{claims}");
    }

    // The same document, before and after the grant's last day.
    let tail = "authorizations: { a: [t] }\ngrants: [{ groups: [b], tenants: [u], expires: 2027-03-01T00:00:00Z }]\n\
                tests:\n  - { groups: [b], tenant: u, scope: logs:read, expect: allow }\n";
    let text = format!("{HEAD}{tail}");
    let at = |now| compile("p.yaml", text.as_bytes(), &mut Shelf, now);
    assert!(at(NOW).compiled.is_some());
    let later = at(NOW + 60 * 86_400);
    assert!(later.compiled.is_some(), "a policy that was taken is taken on every later day");
    let kinds: Vec<_> = later.diagnostics.iter().map(|problem| problem.severity).collect();
    assert_eq!(
        kinds,
        [WarningKind::UngrantedTenant, WarningKind::ExpiredGrant, WarningKind::OutdatedTest]
            .map(Severity::Warning),
        "{:?}",
        later.diagnostics
    );
}

#[test]
fn a_failing_test_refuses_the_policy_and_says_why() {
    let text = |expect: &str| {
        format!(
            "{HEAD}{RULES}tests: [{{ name: x, groups: [a], tenant: u, scope: logs:read, expect: {expect} }}]\n"
        )
    };
    assert!(outcome(&text("allow")).compiled.is_some());
    let outcome = outcome(&text("deny"));
    assert!(outcome.compiled.is_none());
    assert_eq!(
        outcome.diagnostics.iter().find(|problem| problem.is_error()).unwrap().to_string(),
        "p.yaml:15:9: tests[0]: the test `x` expects deny, but the decision is allow (granted) by the grant \
         `authorizations.a` in p.yaml:8\n  \
         help: correct the rules or the test; `tenantauth explain` shows every rule that took part"
    );
    let (untested, cases) = compile_untested("p.yaml", text("deny").as_bytes(), &mut Shelf, NOW);
    assert!(untested.compiled.is_some() && cases.len() == 1);
}

#[test]
fn documents_of_tests_hold_nothing_else() {
    let told = |text: &str| -> Vec<String> {
        cases::read("c.yaml", text.as_bytes()).1.iter().map(ToString::to_string).collect()
    };
    for good in ["tests: []\n", "version: 1\ntests: []\n", "{\"tests\": []}"] {
        assert_eq!(told(good), [""; 0], "{good}");
    }
    for (bad, problem) in [
        ("version: 1\n", "c.yaml:1:1: tests: missing key `tests`\n  help: add `tests:`"),
        (
            "version: 2\ntests: []\n",
            "c.yaml:1:10: version: unknown version of the policy document\n  help: write `version: 1`",
        ),
        (
            "tests: []\ngrants: []\n",
            "c.yaml:2:1: grants: unknown key `grants`\n  help: known keys: version, tests",
        ),
        (
            "tests: []",
            "c.yaml:1:10: the document does not end in a newline: it may be truncated\n  help: end the last line with a newline",
        ),
    ] {
        assert_eq!(told(bad), [problem], "{bad}");
    }
}

/// The decision of a test is the one that nginx makes.
#[test]
fn tests_ask_the_deciding_function() {
    let snapshot = rules().snapshot;
    let (cases, _) = cases::read(
        "c.yaml",
        b"tests: [{ groups: [a], tenant: t, scope: logs:read, client_ip: 192.0.2.1, expect: deny }]\n",
    );
    let tenants = TenantList::parse(b"t").unwrap();
    let groups = snapshot.groups.of_names(&["a"]).unwrap().1.groups;
    let action = Action::of_scope(Scope::LogsRead, BackendSet::EMPTY).unwrap();
    let request = AccessRequest {
        caller: Caller::User { bound_by: &groups },
        groups: &groups,
        tenants: &tenants,
        scope: action.scope,
        backends: action.backends,
        client_ip: Ok(crate::client_ip::ClientIp::parse(b"192.0.2.1").unwrap()),
        now: NOW,
    };
    assert_eq!(cases[0].decision(&snapshot, NOW), decide(&snapshot, &request));
}

/// Every test is one decision, so a thousand of them are milliseconds beside a large policy too. The bound is a hundred
/// times what an unoptimised build on a busy machine needs, and far below one look at every grant a test.
#[test]
fn a_thousand_tests_cost_little() {
    use std::fmt::Write as _;
    let mut text = format!("{HEAD}authorizations:\n");
    for number in 0..5000 {
        writeln!(text, "  group{number}: [tenant{number}]").unwrap();
    }
    let snapshot = snapshot(&text);
    let mut document = String::from("tests:\n");
    for number in 0..1000 {
        writeln!(
            document,
            "- {{ groups: [group{number}], tenant: tenant{number}, scope: logs:read, expect: allow }}"
        )
        .unwrap();
    }
    let (cases, problems) = cases::read("c.yaml", document.as_bytes());
    assert_eq!((cases.len(), problems.len()), (1000, 0));
    let mut told = Problems::of("c.yaml");
    let start = std::time::Instant::now();
    let outcomes = cases::run(&snapshot, &cases, NOW, &mut told);
    let elapsed = start.elapsed();
    assert!(outcomes.iter().all(|how| *how == How::Passed));
    assert!(elapsed.as_millis() < 1000, "{elapsed:?}");
    eprintln!("1000 tests: {elapsed:?}");
}
