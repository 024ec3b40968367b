//! Documents of owners under attack: work and meaning.

use super::owners::{Directory, PLATFORM, lines};
use super::*;
use crate::client_ip::ClientIp;
use crate::decision::{AccessRequest, Caller, decide};
use crate::policy::{Outcome, OwnerOutcome, OwnerState, Turn, compile_in_turn};
use crate::reason::Reason;
use crate::scope::{BackendSet, Scope};
use crate::tenant::TenantList;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// How long one document takes, and what became of it.
fn timed(document: &str) -> (Duration, OwnerState, usize) {
    let text = format!("{HEAD}{PLATFORM}");
    let mut directory = Directory::with("team-a", document).and("team-b", Some("{}\n"), None);
    let started = Instant::now();
    let outcome = compile_in_turn("p.yaml", text.as_bytes(), &mut directory, NOW, &Turn::ALL);
    let took = started.elapsed();
    let Outcome { owners, .. } = outcome;
    let told: usize = owners[0]
        .diagnostics
        .iter()
        .map(|one| one.path.len() + one.message.len() + one.help.as_ref().map_or(0, String::len))
        .sum();
    (took, owners[0].state, told)
}

fn many(count: usize, item: &str) -> String {
    vec![item; count].join(",")
}

/// Seconds for each MiB of a plain document.
fn plain() -> f64 {
    per_mib(&lines("grants", 2000, |n| {
        format!("groups: [g{n}, h{n}], tenants: [team-a-{n}], scopes: ['logs:read']")
    }))
}

fn per_mib(document: &str) -> f64 {
    let (took, ..) = timed(document);
    took.as_secs_f64() * 1_048_576.0 / (document.len() as f64)
}

/// What is said of many items names the key that holds them each time.
#[test]
fn a_long_key_does_not_make_each_complaint_below_it_long() {
    let key = "k".repeat(5000);
    for document in [
        format!("{{\"networks\": {{? \"{key}\" : [{}]}}}}\n", many(5000, "1")),
        format!("? {key}\n: [{}]\n", many(2000, "&a 1")),
        format!("networks:\n  {}: [{}]\n", "k".repeat(1000), many(20_000, "1")),
    ] {
        let (took, state, told) = timed(&document);
        assert_eq!(state, OwnerState::Unavailable);
        eprintln!("{} bytes take {took:?}, {told} bytes are told", document.len());
        assert!(told < 20 * document.len(), "{} bytes: {told} bytes are told", document.len());
        let (long, plain) = (per_mib(&document), plain());
        assert!(long < 8.0 * plain, "{long:.1} s/MiB, and {plain:.1} of a plain document");
    }
}

/// Other shapes that could take the square of their length, or a multiple of it.
#[test]
fn no_shape_of_a_document_takes_much_more_than_a_plain_one() {
    let numbered =
        |count: usize, item: &str| (0..count).map(|n| format!("{item}{n}")).collect::<Vec<_>>().join(",");
    let slash_24 = |count: usize| {
        (0..count).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect::<Vec<_>>().join(",")
    };
    let patterns = |end: &str| (0..3000).map(|n| format!("'team-a-{n}{end}'")).collect::<Vec<_>>().join(",");
    let excepting =
        format!("groups: [a], tenants: [{}], except_tenants: [{}]", patterns("-*"), patterns("-x*"));
    let groups = numbered(4900, "g");
    let documents = [
        format!("networks: [{}]\n", many(20_000, "&a 1")),
        format!("networks: [{}]\n", many(20_000, "!a 1")),
        (0..8000).map(|n| format!("k{n}: 1\n")).collect(),
        format!("grants: [{{ {} }}]\n", (0..8000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(",")),
        format!(
            "grants: [{{ groups: [{groups}], tenants: [team-a] }}]\n\
             restrictions: [{{ groups: [g1], except_groups: [{groups}], networks: [office] }}]\n"
        ),
        format!(
            "networks: {{ n: [{}] }}\nrestrictions:\n{}",
            slash_24(5000),
            "- { networks: [n] }\n".repeat(10)
        ),
        format!("restrictions: [{{ networks: [{}] }}]\n", slash_24(10_000)),
        format!("grants: [{{ {excepting} }}, {{ {excepting} }}]\n"),
        lines("grants", 20, |n| {
            let scope = if n % 2 == 0 { "logs:read" } else { "metrics:read" };
            format!("groups: [{groups}], tenants: [team-a], scopes: ['{scope}']")
        }),
        lines("tests", 1500, |n| {
            format!("claims: {{ sub: a, groups: [g{n}] }}, tenant: team-a, scope: logs:read, expect: deny")
        }),
        lines("tests", 1500, |n| format!("groups: [g{n}], tenant: team-a, scope: logs:read, expect: allow")),
        lines("restrictions", 1500, |n| {
            format!("groups: [a], tenants: ['team-a-x{n}-*', 'team-a-y{n}'], networks: [office]")
        }) + "grants: [{ groups: [a], tenants: ['team-a-*'] }]\n",
        lines("grants", 2000, |n| {
            format!("groups: [g{n}], tenants: [team-a-{n}], expires: 2001-01-01T00:00:00Z")
        }),
        format!("grants: |\n{}", " x\n".repeat(60_000)),
        "[".repeat(100_000),
        format!("{{\"a\": \"\\ud83d\\ude00{}\"}}\n", "\\\\".repeat(50_000)),
        "---\n{}\n".repeat(20_000),
    ];
    let plain = plain();
    for document in &documents {
        let per = per_mib(document);
        assert!(per < 8.0 * plain, "{per:.1} s/MiB, and {plain:.1} of a plain document: {document:.100}");
    }
}

/// A policy in force, with what became of owners' documents.
struct InForce(Compiled, Vec<OwnerOutcome>);

fn load(
    text: &str,
    directory: &mut Directory,
    before: Option<&InForce>,
    most_bytes: usize,
) -> Option<InForce> {
    let in_force = before.map(|before| (&before.0.snapshot, &*before.1));
    let outcome = compile_in_turn("p.yaml", text.as_bytes(), directory, NOW, &Turn { in_force, most_bytes });
    let Outcome { compiled, owners, .. } = outcome;
    let compiled = compiled?;
    // As in a bundle: what is not in force is kept for nobody.
    let names: Vec<&str> = owners.iter().map(|owner| &*owner.name).collect();
    for (name, (_, last)) in &mut directory.0 {
        if !names.contains(&&**name) {
            *last = None;
        }
    }
    for owner in &owners {
        let entry = directory.0.entry(owner.name.to_string()).or_default();
        entry.1 = owner.content.clone().map(|content| String::from_utf8(content).unwrap());
    }
    Some(InForce(compiled, owners))
}

const ISSUERS: [&str; 5] = [
    "issuers:\n- { name: one, issuer: https://one.example, audiences: [g], jwks_file: jwks.json }\n",
    "issuers:\n- { name: one, issuer: https://one.example, audiences: [g], jwks_file: jwks.json }\n\
     - { name: two, issuer: https://two.example, audiences: [g], jwks_file: jwks.json }\n",
    "issuers:\n- { name: one, issuer: https://one.example, audiences: [g], jwks_file: jwks.json, bare_groups: true }\n\
     - { name: two, issuer: https://two.example, audiences: [g], jwks_file: jwks.json }\n",
    "issuers:\n- { name: two, issuer: https://two.example, audiences: [g], jwks_file: jwks.json, bare_groups: true }\n\
     - { name: one, issuer: https://one.example, audiences: [g], jwks_file: jwks.json }\n",
    "issuers:\n- { name: two, issuer: https://one.example, audiences: [g], jwks_file: jwks.json }\n",
];

/// The sections of the platform's document, each in versions of which the first is the beginning.
const SECTIONS: [&[&str]; 7] = [
    &ISSUERS,
    &[
        "",
        "group_names: { c: a }\n",
        "group_names: { c: [a, b] }\n",
        "group_names: { a: b }\n",
        "group_names: { c: 'two:a' }\n",
    ],
    &[
        "",
        "service_accounts: [{ name: s, token_sha256: \
         ['0000000000000000000000000000000000000000000000000000000000000001'] }]\n",
    ],
    &[
        "networks: { office: [10.0.0.0/8] }\n",
        "networks: { office: [11.0.0.0/8] }\n",
        "networks: { lab: [10.0.0.0/8] }\n",
        "",
    ],
    &[
        "client_ip: { source: remote_addr }\n",
        "client_ip: { source: remote_addr }\n",
        "client_ip: { source: remote_addr }\n",
        "",
    ],
    &[
        "",
        "grants: [{ groups: ['*'], tenants: ['*'] }]\n",
        "grants: [{ groups: [a], tenants: [p] }]\n",
        "grants: [{ groups: [b, c], tenants: ['t*'] }]\n",
    ],
    &["", "revoked: { groups: [a] }\n", "revoked: { groups: [c] }\n"],
];

const BOUNDS: [&str; 8] = [
    "{ tenants: ['*'] }",
    "{ tenants: ['t*', u] }",
    "{ tenants: [t, u] }",
    "{ tenants: [u] }",
    "{ tenants: ['*'], except_tenants: [tx] }",
    "{ tenants: ['t*', u], except_tenants: ['*x'] }",
    "{ tenants: ['*'], scopes: ['logs:read'] }",
    "{ tenants: ['*'], scopes: ['metrics:read'] }",
];

/// Which version of each section there is, which bounds each owner has, and which owners there are in which order.
#[derive(Clone, Debug, Default)]
struct Platform {
    sections: [usize; 7],
    bounds: [usize; 3],
    order: usize,
}

impl Platform {
    fn change(&mut self, (what, version): (usize, usize)) {
        match what {
            0..7 => self.sections[what] = version % SECTIONS[what].len(),
            7..10 => self.bounds[what - 7] = version % BOUNDS.len(),
            _ => self.order = version % 6,
        }
    }

    fn text(&self) -> String {
        let sections: String =
            self.sections.iter().zip(SECTIONS).map(|(at, versions)| versions[*at]).collect();
        let order =
            [["o", "p", ""], ["p", "o", ""], ["o", "", ""], ["p", "", ""], ["q", "o", "p"], ["o", "q", ""]];
        let owners: String = order[self.order]
            .iter()
            .filter_map(|name| Some((name, ["o", "p", "q"].iter().position(|known| known == name)?)))
            .map(|(name, at)| format!("  {name}: {}\n", BOUNDS[self.bounds[at]]))
            .collect();
        format!("version: 1\n{sections}owners:\n{owners}")
    }
}

fn documents() -> impl Strategy<Value = Option<String>> {
    let group =
        || prop::sample::select(&["a", "a", "a", "b", "b", "c", "two:a", "'one:*'", "'*'", "one:b"][..]);
    let tenant = || prop::sample::select(&["t", "t", "u", "u", "tx", "'t*'", "'*x'"][..]);
    let grant = (
        group(),
        tenant(),
        prop::sample::select(&["", "", ", scopes: ['logs:read']", ", except_tenants: [tx]"][..]),
    )
        .prop_map(|(group, tenant, more)| format!("{{ groups: [{group}], tenants: [{tenant}]{more} }}"));
    let restriction = (
        prop::option::of(group()),
        prop::option::of(tenant()),
        prop::option::weighted(0.25, group()),
        prop::sample::select(&["office", "office", "lab", "10.0.0.0/8"][..]),
        prop::sample::select(&["", ", mode: shadow", ", scopes: ['logs:*']", ", except_tenants: [tx]"][..]),
    )
        .prop_map(|(group, tenant, except, network, more)| {
            let group = group.map(|group| format!("groups: [{group}], ")).unwrap_or_default();
            let tenant = tenant.map(|tenant| format!("tenants: [{tenant}], ")).unwrap_or_default();
            let except = except.map(|except| format!("except_groups: [{except}], ")).unwrap_or_default();
            format!("{{ {group}{tenant}{except}networks: [{network}]{more} }}")
        });
    let networks = prop::sample::select(
        &["", "networks: { lab: [10.0.0.0/8] }\n", "networks: { lab: [12.0.0.0/8] }\n"][..],
    );
    let tests = prop::sample::select(
        &[
            "",
            "",
            "",
            "tests: [{ groups: [a], tenant: t, scope: logs:read, expect: allow }]\n",
            "tests: [{ groups: [b], tenant: u, scope: logs:read, expect: deny }]\n",
        ][..],
    );
    let good = (
        prop::collection::vec(grant, 0..3),
        prop::collection::vec(restriction, 0..2),
        networks,
        tests,
        0_usize..200,
    )
        .prop_map(|(grants, restrictions, networks, tests, filling)| {
            format!(
                "grants: [{}]\nrestrictions: [{}]\n{networks}{tests}# {}\n",
                grants.join(", "),
                restrictions.join(", "),
                "x".repeat(filling)
            )
        });
    prop_oneof![12 => good.prop_map(Some), 1 => Just(None), 1 => Just(Some("grants: [\n".to_owned()))]
}

/// Whatever the policy says to whomever.
fn decisions(compiled: &Compiled) -> Vec<(Reason, Option<String>)> {
    let snapshot = &compiled.snapshot;
    let mut all = Vec::new();
    for issuer in 0..snapshot.issuers.len() {
        for raw in [&[][..], &["a"], &["b"], &["a", "b"], &["c"]] {
            let held = snapshot.groups.held_by_user(issuer, raw.iter().copied());
            for tenant in ["t", "tx", "u", "z", "t|u"] {
                for (client, scope) in [
                    ("10.0.0.1", Scope::LogsRead),
                    ("11.0.0.1", Scope::LogsRead),
                    ("12.0.0.1", Scope::MetricsRead),
                    ("10.0.0.1", Scope::LogsWrite),
                ] {
                    let request = AccessRequest {
                        caller: Caller::User { bound_by: held.binding() },
                        groups: &held.groups,
                        tenants: &TenantList::parse(tenant.as_bytes()).unwrap(),
                        scope,
                        backends: BackendSet::ALL,
                        client_ip: Ok(ClientIp::parse(client.as_bytes()).unwrap()),
                        now: NOW,
                    };
                    let decision = decide(snapshot, &request);
                    let owner = decision
                        .grant
                        .and_then(|at| snapshot.grants.get(usize::try_from(at).unwrap()))
                        .and_then(|grant| snapshot.owner_name(grant.owner))
                        .map(str::to_owned);
                    all.push((decision.reason(), owner));
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Owners come, go, change their names and places; issuers, names of groups and networks change their meaning; other
    /// workers bring versions of their own; documents wait: what is decided, and in whose name, is what one reading of the
    /// same files decides.
    #[test]
    fn histories_decide_as_one_reading_does(
        steps in prop::collection::vec(
            (
                prop::collection::vec((0_usize..11, 0_usize..8), 0..2),
                prop::collection::vec(prop::option::weighted(0.3, documents()), 3),
                prop::option::weighted(0.15, (prop::sample::select(&["o", "p", "q"][..]), documents())),
                prop::option::weighted(0.15, prop::sample::select(&["o", "p", "q"][..])),
                prop::sample::select(&[1_usize, 150, 5000][..]),
                1..3,
            ),
            3..12,
        ),
        first in prop::collection::vec(documents(), 3),
    ) {
        let mut directory = Directory::default();
        for (name, document) in ["o", "p", "q"].iter().zip(first) {
            directory.0.entry((*name).to_owned()).or_default().0 = document;
        }
        let mut before: Option<InForce> = None;
        let mut platform = Platform::default();
        for (changes, changed, learnt, unsettled, most_bytes, turns) in steps {
            changes.into_iter().for_each(|change| platform.change(change));
            let text = &platform.text();
            for (name, document) in ["o", "p", "q"].iter().zip(changed) {
                if let Some(document) = document {
                    directory.0.entry((*name).to_owned()).or_default().0 = document;
                }
            }
            // What another worker has taken: some version that one reading accepts.
            if let Some((name, Some(document))) = learnt {
                let mut alone = Directory::with(name, &document);
                if let Some(one) = load(text, &mut alone, None, usize::MAX)
                    && one.1.iter().any(|owner| *owner.name == *name && owner.state == OwnerState::Current)
                {
                    directory.0.entry(name.to_owned()).or_default().1 = Some(document);
                }
            }
            for _ in 0..turns {
                let mut seen = directory.clone();
                if let Some(name) = unsettled
                    && let Some(entry) = seen.0.get_mut(name)
                {
                    entry.0 = entry.1.clone();
                }
                let mut settled = seen.clone();
                let Some(next) = load(text, &mut seen, before.as_ref(), most_bytes) else { break };
                for owner in next.1.iter().filter(|owner| owner.turns_waited > 0) {
                    let entry = settled.0.entry(owner.name.to_string()).or_default();
                    entry.0.clone_from(&entry.1);
                }
                let Some(at_once) = load(text, &mut settled, None, usize::MAX) else { break };
                prop_assert_eq!(decisions(&next.0), decisions(&at_once.0), "{}\n{:?}", text, directory.0);
                for (one, other) in next.1.iter().zip(&at_once.1) {
                    prop_assert_eq!(&one.revision, &other.revision, "{}\n{:?}", text, directory.0);
                    prop_assert_eq!(&one.content, &other.content);
                    if one.turns_waited == 0 {
                        prop_assert_eq!(one.state, other.state, "{}\n{:?}", text, directory.0);
                    }
                }
                for (name, (_, last)) in &mut directory.0 {
                    last.clone_from(&seen.0.get(name).cloned().unwrap_or_default().1);
                }
                before = Some(next);
            }
        }
    }
}

/// Names of groups in tests take what is counted for them: some hundred nanoseconds each, and not microseconds.
#[test]
fn names_of_groups_in_tests_take_what_is_counted_for_them() {
    let names = many(400, "a");
    let tests = |groups: &str, count: usize| {
        lines("tests", count, |_| {
            format!("groups: [{groups}], tenant: team-a, scope: logs:read, expect: deny")
        })
    };
    let (of_many, plain) = (per_mib(&tests(&names, 300)), plain());
    assert!(of_many < 3.0 * plain, "{of_many:.1} s/MiB, and {plain:.1} of a plain document");
}
