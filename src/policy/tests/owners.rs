//! Documents of owners: what they may say, and what becomes of the rest when they may not.

use super::*;
use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller, decide};
use crate::file::FileError;
use crate::policy::{OwnerOutcome, OwnerState, OwnerText};
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use crate::tenant::{TenantList, TenantPattern};
use proptest::prelude::*;
use std::collections::HashMap;
use std::io;
use std::time::Instant;

/// A directory of owners' documents in memory: the newest version, and the one that was used last.
#[derive(Clone, Default)]
pub(super) struct Directory(pub(super) HashMap<String, (Option<String>, Option<String>)>);

impl Directory {
    pub(super) fn with(owner: &str, newest: &str) -> Self {
        Self::default().and(owner, Some(newest), None)
    }

    pub(super) fn and(mut self, owner: &str, newest: Option<&str>, last: Option<&str>) -> Self {
        self.0.insert(owner.to_owned(), (newest.map(str::to_owned), last.map(str::to_owned)));
        self
    }

    /// Writes a newer version.
    pub(super) fn set(&mut self, owner: &str, newest: &str) {
        self.0.entry(owner.to_owned()).or_default().0 = Some(newest.to_owned());
    }
}

impl Files for Directory {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        Shelf.read(path)
    }

    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let (newest, last) = self.0.get(name).cloned().unwrap_or_default();
        Some(OwnerText {
            file: format!("owners.d/{name}.yaml"),
            current: newest.map(String::into_bytes).ok_or_else(|| io::Error::from_raw_os_error(2).into()),
            last_good: last.map(String::into_bytes),
            is_unsettled: false,
        })
    }
}

pub(super) const PLATFORM: &str = r##"
networks: { office: [10.0.0.0/8] }
client_ip: { source: remote_addr }
group_names: { sre: raw-sre }
grants: [{ name: all, groups: [sre], tenants: ["*"], scopes: ["*:read"] }]
owners:
  team-a: { tenants: [team-a, "team-a-*"], scopes: ["*:read", "logs:write"], contact: "#team-a" }
  team-b: { tenants: [team-b] }
"##;

pub(super) fn both(directory: &Directory) -> (Compiled, Vec<OwnerOutcome>) {
    under(PLATFORM, directory)
}

pub(super) fn under(platform: &str, directory: &Directory) -> (Compiled, Vec<OwnerOutcome>) {
    let text = format!("{HEAD}{platform}");
    let outcome = compile("p.yaml", text.as_bytes(), &mut directory.clone(), NOW);
    (outcome.compiled.unwrap_or_else(|| panic!("{:#?}", outcome.diagnostics)), outcome.owners)
}

/// What the policy says to a query of logs by somebody in these raw groups.
pub(super) fn reason(
    compiled: &Compiled,
    groups: &[&str],
    tenant: &str,
    scope: Scope,
    client: &str,
) -> Reason {
    let snapshot = &compiled.snapshot;
    let groups = snapshot.groups.of_user(0, groups.iter().copied());
    let request = AccessRequest {
        caller: Caller::User { bound_by: &groups },
        groups: &groups,
        tenants: &TenantList::parse(tenant.as_bytes()).unwrap(),
        scope,
        backends: BackendSet::ALL,
        client_ip: Ok(ClientIp::parse(client.as_bytes()).unwrap()),
        now: NOW,
    };
    decide(snapshot, &request).reason()
}

pub(super) fn read(compiled: &Compiled, groups: &[&str], tenant: &str) -> Reason {
    reason(compiled, groups, tenant, Scope::LogsRead, "192.0.2.1")
}

pub(super) fn errors(outcome: &OwnerOutcome) -> Vec<String> {
    let errors = outcome.diagnostics.iter().filter(|problem| problem.is_error());
    errors.map(ToString::to_string).collect()
}

/// The only error of a document of `team-a`, behind the file's name.
pub(super) fn refusal(document: &str) -> String {
    let (_, owners) = both(&Directory::with("team-a", document).and("team-b", Some(GOOD_B), None));
    assert_eq!(owners[0].state, OwnerState::Unavailable, "{document:.200}");
    let errors = errors(&owners[0]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].replace("owners.d/team-a.yaml:", "")
}

pub(super) fn is_accepted(document: &str) {
    let (_, owners) = both(&Directory::with("team-a", document).and("team-b", Some(GOOD_B), None));
    assert_eq!((owners[0].state, errors(&owners[0])), (OwnerState::Current, Vec::new()), "{document:.200}");
}

/// Lines of a list, each a rule.
pub(super) fn lines(section: &str, count: usize, line: impl Fn(usize) -> String) -> String {
    let rules = (0..count).map(|number| format!("- {{ {} }}\n", line(number)));
    format!("{section}:\n{}", rules.collect::<String>())
}

/// What tests may take is counted, so that every worker judges alike: the tenants of each, the groups that rules know, and the
/// rules that name both.
#[test]
fn tests_take_no_more_than_their_share() {
    let tenants = (0..100).map(|n| format!("team-a-{n}")).collect::<Vec<_>>().join("|");
    let groups = |count: usize| (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>().join(", ");
    let document = |who: String, count: usize| {
        let test = |n| format!("name: n{n}, {who}, tenant: '{tenants}', scope: logs:read, expect: allow");
        let grant = format!("groups: [{}], tenants: [\"team-a-*\"]", groups(400));
        format!("grants: [{{ {grant} }}]\n{}", lines("tests", count, test))
    };
    // Many tests of many tenants, or of many groups.
    is_accepted(&document("groups: [g1, g2, g3]".to_owned(), 900));
    let one = |_| format!("groups: [{}], tenant: team-a-x, scope: logs:read, expect: allow", groups(400));
    is_accepted(&format!(
        "{}grants: [{{ groups: [g1], tenants: [\"team-a-*\"] }}]\n",
        lines("tests", 400, one)
    ));
    for who in [format!("groups: [{}]", groups(400)), format!("claims: {{ groups: [{}] }}", groups(400))] {
        is_accepted(&document(who.clone(), 4));
        let refused = refusal(&document(who, 200));
        assert!(
            refused.contains(": with it the document's tests take more work than an owner's may\n  help: name fewer tenants"),
            "{refused}"
        );
    }
    // One tenant each is never too much.
    let small =
        |n| format!("name: n{n}, groups: [a, b], tenant: team-a-{n}, scope: logs:read, expect: allow");
    is_accepted(&format!(
        "grants: [{{ groups: [a], tenants: [\"team-a-*\"] }}]\n{}",
        lines("tests", 9999, small)
    ));
}

/// A restriction that names no tenants is on all of its owner's, and counts as many pairs.
#[test]
fn restrictions_without_tenants_count_the_owners() {
    let bounds = (0..2000).map(|n| format!("b{n}")).collect::<Vec<_>>().join(", ");
    let platform = PLATFORM.replace("[team-a, \"team-a-*\"]", &format!("[team-a, {bounds}]"));
    let document = |count: usize| {
        let rule =
            |n| format!("groups: [a{n}, b{n}, c{n}, d{n}], networks: [10.{}.{}.0/24]", n / 256, n % 256);
        let known = (0..count).flat_map(|n| ["a", "b", "c", "d"].map(|letter| format!("{letter}{n}")));
        let known = known.collect::<Vec<_>>().join(", ");
        format!(
            "{}grants: [{{ groups: [{known}], tenants: [team-a] }}]\n",
            lines("restrictions", count, rule)
        )
    };
    let state = |count| {
        let (_, owners) =
            under(&platform, &Directory::with("team-a", &document(count)).and("team-b", Some(GOOD_B), None));
        (owners[0].state, errors(&owners[0]))
    };
    assert_eq!(state(10), (OwnerState::Current, Vec::new()));
    let (refused, errors) = state(13);
    assert_eq!(refused, OwnerState::Unavailable);
    assert!(errors[0].contains("are on more than 100000 pairs of a group and a tenant"), "{errors:?}");
}

/// Documents on which something took the square of their length: in this build each would take minutes.
#[test]
fn no_document_takes_more_than_its_length() {
    let many = |count: usize, item: &str| vec![item; count].join(",");
    let numbered =
        |count: usize, item: &str| (0..count).map(|n| format!("{item}{n}")).collect::<Vec<_>>().join(",");
    let (groups, tenants) = (numbered(30_000, "g"), numbered(20_000, "team-a-"));
    let bad = [
        format!("networks: &a [{}]\n", many(100_000, "*a")),
        format!("restrictions: [{{ groups: [{groups}], except_groups: [{groups}], networks: [office] }}]\n"),
        format!(
            "networks: {{ {} }}\nrestrictions: [{{ networks: [{}] }}]\n",
            (0..5000).map(|n| format!("n{n}: [10.0.0.0/8]")).collect::<Vec<_>>().join(", "),
            many(50_000, "zzz")
        ),
        format!("{}: 1\n", "k".repeat(500_000)),
        lines("tests", 5000, |n| {
            format!("groups: [a], tenant: t, scope: logs:read, expect: {}", "x".repeat(20 + n % 9))
        }),
    ];
    for document in &bad {
        let started = Instant::now();
        let (_, owners) = both(&Directory::with("team-a", document));
        assert_eq!(owners[0].state, OwnerState::Unavailable);
        assert!(started.elapsed().as_secs() < 30, "{:?} for {document:.100}", started.elapsed());
    }
    let good = [
        format!("grants: [{{ groups: [a], tenants: [{tenants}], except_tenants: [{tenants}, x] }}]\n"),
        lines("restrictions", 4000, |n| {
            format!("groups: [a], tenants: ['team-a-*{}', team-a-{n}], networks: [office]", n % 8)
        }) + "grants: [{ groups: [a], tenants: [team-a] }]\n",
    ];
    for document in &good {
        let started = Instant::now();
        let (_, owners) = both(&Directory::with("team-a", document));
        assert!(started.elapsed().as_secs() < 30, "{:?} for {document:.100}", started.elapsed());
        _ = owners;
    }
}

/// Complaints about accounts that do not exist name a few of those that do, however many there are of either.
#[test]
fn unknown_accounts_are_looked_up_and_not_walked() {
    let accounts =
        lines("service_accounts", 5000, |n| format!("name: account-{n:04}, token_sha256: ['{n:064}']"));
    let unknown = (0..9000).map(|n| format!("'service:other-{n}'")).collect::<Vec<_>>().join(", ");
    let directory =
        Directory::with("team-a", &format!("grants: [{{ groups: [{unknown}], tenants: [team-a] }}]\n"));
    let started = Instant::now();
    let (_, owners) = under(&format!("{accounts}{PLATFORM}"), &directory.and("team-b", Some(GOOD_B), None));
    let first = &errors(&owners[0])[0];
    assert!(
        first.contains("there is no service account `other-0`\n  help: defined service accounts: account-0000, account-0001,")
            && first.ends_with("account-0019, ..."),
        "{first}"
    );
    // Joining all the names for each of them takes a minute in this build.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// A document that is refused for its pairs of group and tenant is not walked pair by pair.
#[test]
fn a_document_of_too_many_pairs_is_refused_without_counting_them() {
    let list =
        |count: usize, item: &str| (0..count).map(|n| format!("{item}{n}")).collect::<Vec<_>>().join(", ");
    let timed = |tenants: usize| {
        let document = format!(
            "grants: [{{ groups: [{}], tenants: [{}] }}]\n",
            list(5000, "g"),
            list(tenants, "team-a-")
        );
        let started = Instant::now();
        let (_, owners) = both(&Directory::with("team-a", &document));
        (owners[0].state, started.elapsed(), document.len())
    };
    let (within, beyond) = (timed(20), timed(5000));
    assert_eq!((within.0, beyond.0), (OwnerState::Current, OwnerState::Unavailable));
    assert!(beyond.1 < within.1 * 5, "{within:?} {beyond:?}");
}

pub(super) const GOOD_B: &str = "grants: [{ groups: [b], tenants: [team-b] }]\n";

#[test]
fn owners_rule_within_their_bounds() {
    let document = r#"
version: 1
networks: { vpn: [198.51.100.0/24] }
grants:
  - { name: readers, groups: [a, "*"], tenants: [team-a] }
  - { groups: [a], tenants: ["team-a-*"], scopes: ["logs:read", "logs:write"] }
restrictions:
  - { name: at-work, groups: [a], scopes: ["logs:*"], networks: [office, vpn] }
"#
    .replace(r#", "*"]"#, "]");
    let directory = Directory::with("team-a", &document).and("team-b", Some(GOOD_B), None);
    let (compiled, owners) = both(&directory);
    assert_eq!(owners.iter().map(|owner| owner.state).collect::<Vec<_>>(), [OwnerState::Current; 2]);
    assert_eq!(owners[0].contact.as_deref(), Some("#team-a"));
    let at = |tenant, client| reason(&compiled, &["a"], tenant, Scope::LogsRead, client);
    // Networks of its own and of the platform; its restriction binds its tenants without naming them.
    assert_eq!([at("team-a", "198.51.100.9"), at("team-a-x", "10.1.1.1")], [Reason::Granted; 2]);
    assert_eq!(at("team-a", "192.0.2.1"), Reason::IpForbidden);
    assert_eq!(
        reason(&compiled, &["a"], "team-a-x", Scope::LogsWrite, "10.1.1.1"),
        Reason::Granted,
        "a scope of its own"
    );
    assert_eq!(reason(&compiled, &["a"], "team-a", Scope::LogsWrite, "10.1.1.1"), Reason::ScopeForbidden);
    // Nobody else is touched, not even by somebody who is in its group.
    assert_eq!(read(&compiled, &["a", "b"], "team-b"), Reason::Granted);
    assert_eq!(read(&compiled, &["raw-sre"], "other"), Reason::Granted);
    assert_eq!(read(&compiled, &["a", "raw-sre"], "other"), Reason::Granted);
    // The platform's rules on its tenants hold as well.
    assert_eq!(read(&compiled, &["raw-sre"], "team-a"), Reason::Granted);
    assert_eq!(
        read(&compiled, &["raw-sre", "a"], "team-a"),
        Reason::IpForbidden,
        "it narrows its own tenants"
    );
    let snapshot = &compiled.snapshot;
    let grant = snapshot.grants.iter().find(|grant| &*grant.name == "readers").unwrap();
    assert_eq!(snapshot.owner_name(grant.owner), Some("team-a"));
}

/// Every error of an owner's document, to the letter. Behind `team-a` stands the document.
#[test]
fn what_an_owner_may_not_say() {
    for (document, expected) in [
        (
            "grants: [{ groups: [a], tenants: [team-b] }]\n",
            "1:35: grants[0].tenants[0]: `team-b` is not within the owner's tenants\n  \
             help: the platform gives `team-a` `team-a`, `team-a-*`",
        ),
        (
            "grants: [{ groups: [a], tenants: ['team-*'] }]\n",
            "1:35: grants[0].tenants[0]: `team-*` is not within the owner's tenants\n  \
             help: the platform gives `team-a` `team-a`, `team-a-*`",
        ),
        (
            "grants: [{ groups: [a], tenants: [team-a], scopes: ['metrics:*'] }]\n",
            "1:52: grants[0].scopes: not within the owner's scopes: `metrics:write`\n  \
             help: the platform gives `team-a` `metrics:read`, `logs:read`, `logs:write`, `traces:read`, \
             `profiles:read`, `rules:read`, `alerts:read`",
        ),
        (
            "restrictions: [{ tenants: ['*'], networks: [office] }]\n",
            "1:28: restrictions[0].tenants[0]: `*` is not within the owner's tenants\n  \
             help: the platform gives `team-a` `team-a`, `team-a-*`",
        ),
        (
            "networks: { office: [0.0.0.0/1] }\n",
            "1:13: networks.office: `office` is a network of the platform\n  \
             help: choose another name; the platform's can be used without defining it",
        ),
        (
            "restrictions: [{ networks: [home], groups: [nobody] }]\n",
            "1:29: restrictions[0].networks[0]: the network `home` is not defined\n  help: defined networks: office\n\
             1:45: restrictions[0].groups[0]: nothing else in the policy knows the group `nobody`\n  \
             help: a restriction on a mistyped group would restrict nobody: check its name",
        ),
        (
            "issuers: []\n",
            "1:1: issuers: unknown key `issuers`\n  \
             help: known keys: version, grants, networks, restrictions, tests",
        ),
        (
            "group_names: {}\n",
            "1:1: group_names: unknown key `group_names`\n  help: known keys: version, grants, networks, restrictions, tests",
        ),
        (
            "restrictions: [{ scopes: ['metrics:write'], networks: [office] }]\n",
            "1:16: restrictions[0].scopes: none of its scopes is within the owner's: it would bind nothing\n  \
             help: the platform gives `team-a` `metrics:read`, `logs:read`, `logs:write`, `traces:read`, \
             `profiles:read`, `rules:read`, `alerts:read`",
        ),
        (
            "",
            "1:1: the document is empty\n  help: a policy begins with `version: 1`; an owner without rules has the document `{}`",
        ),
        (
            "grants: [{ groups: [a], tenants: [team-a] }]\n\
             tests: [{ groups: [b], tenant: team-a, scope: logs:read, expect: allow }]\n",
            "2:9: tests[0]: the test `tests[0]` expects allow, but the decision is deny (tenant_forbidden)\n  \
             help: the policy does not know the group `b`: check its name",
        ),
    ] {
        let directory = Directory::with("team-a", document).and("team-b", Some(GOOD_B), None);
        let (compiled, owners) = both(&directory);
        let expected: Vec<String> = expected
            .split("\n1:")
            .enumerate()
            .map(|(number, text)| {
                let at = if number == 0 { String::new() } else { "1:".to_owned() };
                format!("owners.d/team-a.yaml:{at}{text}")
            })
            .collect();
        assert_eq!(errors(&owners[0]), expected);
        assert_eq!(owners[0].state, OwnerState::Unavailable);
        // Nobody else is touched; the owner's tenants cannot be decided, whoever asks.
        assert_eq!(read(&compiled, &["b"], "team-b"), Reason::Granted);
        assert_eq!(read(&compiled, &["raw-sre"], "other"), Reason::Granted);
        assert_eq!(read(&compiled, &["raw-sre"], "team-a-x"), Reason::PolicyUnavailable);
    }
}

#[test]
fn a_version_that_was_good_stays_until_a_better_one_comes() {
    let good = "grants: [{ groups: [a], tenants: [team-a] }]\n";
    let versions = |newest: Option<&str>| {
        let directory = Directory::default().and("team-a", newest, Some(good));
        both(&directory.and("team-b", Some("{}\n"), Some(GOOD_B)))
    };
    for broken in [None, Some("grants: 5\n"), Some("grants: [{ groups: [a], tenants: [team-b] }]\n")] {
        let (compiled, owners) = versions(broken);
        assert_eq!(owners[0].state, OwnerState::LastGood);
        assert!(!errors(&owners[0]).is_empty());
        assert_eq!(owners[0].content.as_deref(), Some(good.as_bytes()));
        assert_eq!(read(&compiled, &["a"], "team-a"), Reason::Granted);
        // `{}` withdraws.
        assert_eq!(owners[1].state, OwnerState::Current);
        assert_eq!(read(&compiled, &["b"], "team-b"), Reason::TenantForbidden);
    }
    let (compiled, owners) = versions(Some("{}\n"));
    assert_eq!(owners[0].state, OwnerState::Current);
    assert_eq!(read(&compiled, &["a"], "team-a"), Reason::TenantForbidden);
}

#[test]
fn narrower_bounds_bind_at_once_and_an_owner_removed_is_gone() {
    let good = "grants: [{ groups: [a], tenants: [team-a, 'team-a-*'], scopes: ['logs:*'] }]\n\
                restrictions: [{ tenants: ['team-a-*'], networks: [office] }]\n";
    let directory =
        Directory::default().and("team-a", Some(good), Some(good)).and("team-b", Some(GOOD_B), None);
    let narrowed = PLATFORM
        .replace(r#"tenants: [team-a, "team-a-*"], scopes: ["*:read", "logs:write"]"#, "tenants: [team-a-x]");
    let (compiled, owners) = under(&narrowed, &directory);
    // What was good is used as far as it still lies within the bounds; who starts with it would refuse it, so it is told.
    assert_eq!(owners[0].state, OwnerState::LastGood);
    let told: Vec<String> = owners[0].diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(
        told[0].contains("1:35: grants[0].tenants[0]: `team-a` is not within the owner's tenants"),
        "{told:#?}"
    );
    let at = |tenant, scope| reason(&compiled, &["a", "raw-sre"], tenant, scope, "10.0.0.1");
    assert_eq!(at("team-a-x", Scope::LogsRead), Reason::Granted);
    assert_eq!(at("team-a-x", Scope::LogsWrite), Reason::ScopeForbidden);
    assert_eq!(read(&compiled, &["a"], "team-a"), Reason::TenantForbidden);
    assert_eq!(
        read(&compiled, &["raw-sre"], "team-a-y"),
        Reason::Granted,
        "its restriction reaches no further"
    );
    assert_eq!(read(&compiled, &["raw-sre"], "team-a-x"), Reason::IpForbidden);
    // New, the same would be refused.
    let (_, owners) = under(&narrowed, &Directory::default().and("team-a", Some(good), None));
    assert_eq!(owners[0].state, OwnerState::Unavailable);
    let removed: String = PLATFORM
        .lines()
        .filter(|line| !line.starts_with("  team-a:"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (compiled, owners) = under(&removed, &directory);
    assert_eq!(owners.len(), 1);
    assert_eq!(read(&compiled, &["a"], "team-a"), Reason::TenantForbidden);
}

/// What the platform excepts from an owner's tenants belongs to the platform alone.
#[test]
fn tenants_excepted_from_bounds_are_out_of_reach() {
    let excepting = PLATFORM.replace(
        r#"tenants: [team-a, "team-a-*"]"#,
        r#"tenants: [team-a, "team-a-*"], except_tenants: [team-a-hr, "team-a-*-hr"]"#,
    );
    let document = "grants: [{ groups: [a], tenants: ['team-a-*'] }]\n\
                    restrictions: [{ networks: [office] }, { tenants: ['team-a-*'], networks: [office] }]\n";
    let good_b = |directory: Directory| directory.and("team-b", Some(GOOD_B), None);
    let (compiled, owners) = under(&excepting, &good_b(Directory::with("team-a", document)));
    assert_eq!((owners[0].state, errors(&owners[0])), (OwnerState::Current, Vec::new()));
    let at = |tenant| reason(&compiled, &["a", "raw-sre"], tenant, Scope::LogsRead, "192.0.2.1");
    assert_eq!(read(&compiled, &["a"], "team-a-x"), Reason::IpForbidden);
    for excepted in ["team-a-hr", "team-a-x-hr"] {
        assert_eq!(read(&compiled, &["a"], excepted), Reason::TenantForbidden, "{excepted}");
        assert_eq!(at(excepted), Reason::Granted, "no restriction of the owner reaches {excepted}");
    }
    // Where the owner has no usable document, that closes its tenants and not those.
    let (compiled, _) = under(&excepting, &good_b(Directory::with("team-a", "grants: 1\n")));
    let read_all = |tenant| read(&compiled, &["raw-sre"], tenant);
    assert_eq!([read_all("team-a-x"), read_all("team-a-hr")], [Reason::PolicyUnavailable, Reason::Granted]);
    // Named outright it is refused; a version that was good before exceptions came is in force without it.
    let named = "grants: [{ groups: [a], tenants: [team-a-hr, team-a-x] }]\n";
    let (compiled, owners) =
        under(&excepting, &good_b(Directory::default().and("team-a", Some(named), Some(named))));
    assert_eq!(
        errors(&owners[0]),
        [
            "owners.d/team-a.yaml:1:35: grants[0].tenants[0]: `team-a-hr` is excepted from the owner's tenants\n  \
          help: a rule reaches no tenant that the platform excepts: leave it out"
        ]
    );
    assert_eq!(
        [read(&compiled, &["a"], "team-a-hr"), read(&compiled, &["a"], "team-a-x")],
        [Reason::TenantForbidden, Reason::Granted]
    );
    let (_, owners) = under(&excepting, &good_b(Directory::with("team-a", named)));
    assert_eq!(owners[0].state, OwnerState::Unavailable);
}

#[test]
fn owners_cannot_fail_each_others_tests_nor_the_platforms() {
    let platform = format!(
        "{PLATFORM}tests: [{{ groups: [sre], tenant: team-b, scope: logs:read, client_ip: 192.0.2.1, expect: allow }}]\n"
    )
    .replace("team-b: { tenants: [team-b] }", "team-b: { tenants: [team-b, team-a] }");
    let a = "grants: [{ groups: [a], tenants: [team-a] }]\n\
             tests: [{ groups: [a], tenant: team-a, scope: logs:read, client_ip: 192.0.2.1, expect: allow }]\n";
    // Its restriction binds tenants that are the other's too, and what the platform tests.
    let b = "restrictions: [{ networks: [office] }]\n";
    let directory = Directory::with("team-a", a).and("team-b", Some(b), None);
    let (compiled, owners) = under(&platform, &directory);
    assert_eq!(owners.iter().map(|owner| owner.state).collect::<Vec<_>>(), [OwnerState::Current; 2]);
    assert_eq!(read(&compiled, &["a"], "team-a"), Reason::IpForbidden);
    // A version that was good is not tested again: what the platform changed is not the owner's mistake.
    let failing = a.replace("expect: allow", "expect: deny");
    let directory =
        Directory::default().and("team-a", Some(&failing), Some(&failing)).and("team-b", Some("{}\n"), None);
    assert_eq!(under(&platform, &directory).1[0].state, OwnerState::Current);
}

/// The line of a rule is one of the document that holds the rule, not of the one that holds the test.
#[test]
fn a_failing_test_of_an_owner_names_the_file_of_the_rule() {
    let tests = |more: &str| {
        format!(
            "{more}tests:\n\
             - {{ groups: [sre], tenant: team-a, scope: logs:read, expect: deny }}\n\
             - {{ groups: [sre], tenant: team-a, scope: logs:write, expect: allow }}\n\
             - {{ groups: [a], tenant: team-a, scope: logs:read, expect: deny }}\n"
        )
    };
    let platform = PLATFORM.replace("grants: [", "grants: [{ name: own, groups: [a], tenants: [\"*\"] },\n ");
    let named = |platform: &str, document: &str| -> Vec<String> {
        let directory = Directory::with("team-a", document).and("team-b", Some(GOOD_B), None);
        let (_, owners) = under(platform, &directory);
        let rule =
            |problem: String| problem.split_once(" the grant ").unwrap().1.lines().next().unwrap().to_owned();
        errors(&owners[0]).into_iter().map(rule).collect()
    };
    assert_eq!(
        named(&platform, &tests("")),
        ["`all` in p.yaml:12", "`all` in p.yaml:12 is for other scopes", "`own` in p.yaml:11"]
    );
    let own = tests("grants: [{ name: mine, groups: [a], tenants: [team-a] }]\n");
    assert_eq!(
        named(PLATFORM, &own),
        ["`all` in p.yaml:11", "`all` in p.yaml:11 is for other scopes", "`mine` in owners.d/team-a.yaml:1"]
    );
    let bound = tests("").replace("expect: deny", "expect: allow, client_ip: 192.0.2.1")
        + "restrictions: [{ name: lab, groups: [a], networks: [office] }]\n";
    let directory = Directory::with("team-a", &bound).and("team-b", Some(GOOD_B), None);
    let (_, owners) = under(&platform, &directory);
    let last = errors(&owners[0]).pop().unwrap();
    assert!(last.contains(" by the restriction `lab` in owners.d/team-a.yaml:5\n"), "{last}");
}

#[test]
fn revisions_follow_what_decides() {
    let of = |directory: Directory| both(&directory).0.snapshot.revision.clone();
    let base = Directory::with("team-a", "{}\n").and("team-b", Some(GOOD_B), None);
    let first = of(base.clone());
    assert_eq!(of(base.clone()), first);
    assert_ne!(of(base.clone().and("team-a", Some("networks: { x: [10.0.0.1] }\n"), None)), first);
    // The last good version decides as it did when it was the newest; none at all does not.
    assert_eq!(of(base.clone().and("team-a", None, Some("{}\n"))), first);
    assert_ne!(of(base.and("team-a", None, None)), first);
}

#[test]
fn a_single_file_has_no_owners() {
    assert_eq!(
        problems(&format!("{HEAD}{PLATFORM}")),
        [
            "p.yaml:13:3: owners.team-a: owners need a directory as the policy: their documents lie in its `owners.d`\n  \
             help: name the directory that holds `policy.yaml` and `owners.d`"
        ]
    );
}

/// Patterns and tenants over so few letters that they meet.
fn pattern() -> impl Strategy<Value = String> {
    "[ab*]{1,4}".prop_filter("a tenant pattern", |text| TenantPattern::parse(text).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an owner writes, new or good before, it grants nothing outside its bounds and takes nothing from others.
    #[test]
    fn owners_never_reach_beyond_their_bounds(
        bounds in proptest::collection::vec(pattern(), 1..3),
        narrower in proptest::collection::vec(pattern(), 1..3),
        excepted in proptest::collection::vec(pattern(), 0..2),
        granted in proptest::collection::vec(pattern(), 1..3),
        restricted in proptest::collection::vec(pattern(), 0..2),
        write in any::<bool>(),
        was_good in any::<bool>(),
        tenants in proptest::collection::vec("[ab]{1,4}", 8),
    ) {
        let quoted = |patterns: &[String]| {
            patterns.iter().map(|pattern| format!("'{pattern}'")).collect::<Vec<_>>().join(", ")
        };
        let scopes = if write { ", scopes: ['logs:*']" } else { "" };
        let mut document = format!("grants: [{{ groups: [a], tenants: [{}]{scopes} }}]\n", quoted(&granted));
        if !restricted.is_empty() {
            document += &format!("restrictions: [{{ tenants: [{}], networks: [10.0.0.1] }}]\n", quoted(&restricted));
        }
        let in_force = if was_good { &narrower } else { &bounds };
        let platform = |with: &str| format!(
            "client_ip: {{ source: remote_addr }}\ngrants: [{{ groups: [sre], tenants: ['*'], scopes: ['logs:*'] }}]\n{with}"
        );
        let except = match &*excepted {
            [] => String::new(),
            excepted => format!(", except_tenants: [{}]", quoted(excepted)),
        };
        let with =
            format!("owners: {{ o: {{ tenants: [{}]{except}, scopes: ['logs:read'] }} }}\n", quoted(in_force));
        let last = was_good.then_some(&*document);
        let directory = Directory::default().and("o", Some(&document), last);
        // Exceptions that leave the owner nothing are the platform's mistake.
        let text = format!("{HEAD}{}", platform(&with));
        let outcome = compile("p.yaml", text.as_bytes(), &mut directory.clone(), NOW);
        let (Some(compiled), owners) = (outcome.compiled, outcome.owners) else { return Ok(()) };
        let (alone, _) = under(&platform(""), &Directory::default());
        let matches = |patterns: &[String], tenant: &str| {
            patterns.iter().any(|pattern| TenantPattern::parse(pattern).unwrap().matches(tenant))
        };
        for tenant in &tenants {
            let is_in_bounds = matches(in_force, tenant) && !matches(&excepted, tenant);
            for (scope, bounded) in [(Scope::LogsRead, true), (Scope::LogsWrite, false)] {
                let own = is_in_bounds && bounded;
                let as_owner = reason(&compiled, &["a"], tenant, scope, "10.0.0.1");
                prop_assert!(own || as_owner != Reason::Granted, "{tenant} {scope} {as_owner} {document}");
                if own && owners[0].state == OwnerState::Current && matches(&granted, tenant) {
                    prop_assert_eq!(as_owner, Reason::Granted, "{} {}", tenant, document);
                }
                // Outside its bounds everybody else is decided as without it.
                if !is_in_bounds {
                    for client in ["10.0.0.1", "192.0.2.1"] {
                        let with = reason(&compiled, &["sre"], tenant, scope, client);
                        prop_assert_eq!(with, reason(&alone, &["sre"], tenant, scope, client));
                    }
                }
            }
        }
    }
}

/// What is odd about an owner's document is told with its place, in its file; the platform's knows what owners grant.
#[test]
fn odd_rules_of_owners_are_told_like_the_platforms() {
    const GUIDS: &str = "group_names:\n  x: 0f3c9a1e-0000-4000-8000-000000000001\n  y: 0f3c9a1e-0000-4000-8000-000000000002\n  z: 0f3c9a1e-0000-4000-8000-000000000003\n";
    let platform = format!(
        "{GUIDS}networks: {{ office: [10.0.0.0/8] }}\nclient_ip: {{ source: remote_addr }}\n\
         grants: [{{ name: all, groups: [x], tenants: [\"team-*\"] }}]\n\
         restrictions: [{{ networks: [office], tenants: [team-a, mine, nobodys] }}]\n\
         owners:\n  team-a: {{ tenants: [\"*\"], scopes: [\"*:*\"] }}\n"
    );
    let document = "grants:\n\
        - { name: writers, groups: [y], tenants: [\"*\"], scopes: [\"logs:write\"] }\n\
        - { groups: [x], tenants: [team-b] }\n\
        - { groups: [y], tenants: [t], except_tenants: [\"t*\"] }\n\
        - { groups: [z], tenants: [mine], expires: @SOON@ }\n\
        - { groups: [team], tenants: [mine] }\n\
        restrictions:\n\
        - { networks: [office], tenants: [u], scopes: [\"traces:write\"] }\n";
    let soon = jiff::Timestamp::from_second(i64::try_from(NOW).unwrap() + 5 * 86_400).unwrap().to_string();
    let directory = Directory::with("team-a", &document.replace("@SOON@", &soon));
    let text = format!("{HEAD}{platform}");
    let outcome = compile("p.yaml", text.as_bytes(), &mut directory.clone(), NOW);
    assert!(outcome.compiled.is_some(), "{:#?}", outcome.diagnostics);
    let told = |found: &[crate::policy::diagnostic::Diagnostic]| -> Vec<String> {
        found.iter().map(|problem| problem.to_string().split("\n").next().unwrap().to_owned()).collect()
    };
    assert_eq!(
        told(&outcome.owners[0].diagnostics),
        [
            "owners.d/team-a.yaml:2:43: warning: grants[0].tenants[0]: `logs:write` is granted on every tenant, those to come included",
            "owners.d/team-a.yaml:3:3: warning: grants[1]: `all` in p.yaml:13 grants all of it already",
            "owners.d/team-a.yaml:4:3: warning: grants[2]: every tenant that it names is excepted as well: it grants nothing",
            "owners.d/team-a.yaml:5:44: warning: grants[3].expires: the grant ends within 5 days",
            "owners.d/team-a.yaml:6:14: warning: grants[4]: the issuer gives groups as GUIDs, and `team` is none",
            "owners.d/team-a.yaml:8:3: warning: restrictions[0]: no grant names a scope that this restriction binds: it applies to nothing",
        ]
    );
    // `*` is granted by the owner, so nothing of the platform's is granted to nobody.
    assert_eq!(told(&outcome.diagnostics), [""; 0]);
    let without = Directory::with("team-a", "grants: [{ groups: [z], tenants: [mine] }]\n");
    let outcome = compile("p.yaml", text.as_bytes(), &mut without.clone(), NOW);
    assert_eq!(
        told(&outcome.diagnostics),
        ["p.yaml:14:62: warning: restrictions[0].tenants[2]: the tenant `nobodys` is granted to nobody"]
    );
    // Ungranted in the owner's document.
    let restricted = "grants: [{ groups: [z], tenants: [mine] }]\nrestrictions:\n- { networks: [office], tenants: [mine, theirs] }\n";
    let outcome = compile("p.yaml", text.as_bytes(), &mut Directory::with("team-a", restricted), NOW);
    assert_eq!(
        told(&outcome.owners[0].diagnostics),
        [
            "owners.d/team-a.yaml:3:41: warning: restrictions[0].tenants[1]: the tenant `theirs` is granted to nobody"
        ]
    );
}
