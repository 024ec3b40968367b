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

#[test]
fn attack_work() {
    let many = |count: usize, item: &str| vec![item; count].join(",");
    let numbered = |count: usize, item: &str| {
        (0..count).map(|n| format!("{item}{n}")).collect::<Vec<_>>().join(",")
    };
    let key = |length: usize| "k".repeat(length);
    let base = lines("grants", 9000, |n| format!("groups: [g{n}, h{n}], tenants: [team-a-{n}], scopes: ['logs:read']"));
    let documents: Vec<(&str, String)> = vec![
        ("baseline", base),
        ("long network name", format!("networks:\n  ? {}\n  : [{}]\n", key(20_000), many(20_000, "%"))),
        ("long key, anchors", format!("? {}\n: [{}]\n", key(20_000), many(5_000, "&a 1"))),
        ("long key flow json", format!("{{\"networks\": {{? \"{}\" : [{}]}}}}\n", key(20_000), many(20_000, "1"))),
        ("long implicit key", format!("networks:\n  {}: [{}]\n", key(1000), many(100_000, "1"))),
        ("anchors", format!("networks: [{}]\n", many(100_000, "&a 1"))),
        ("tags", format!("networks: [{}]\n", many(100_000, "!a 1"))),
        ("stars", format!("grants: [{}]\n# {}", many(40, "*"), "x".repeat(80_000))),
        ("unknown keys", (0..60_000).map(|n| format!("k{n}: 1\n")).collect()),
        ("unknown keys in grants", format!("grants: [{{ {} }}]\n", (0..60_000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(","))),
        ("except groups", format!("grants: [{{ groups: [{0}], tenants: [team-a] }}]\nrestrictions:\n- {{ groups: [g1], except_groups: [{0}], networks: [office] }}\n", numbered(40_000, "g"))),
        ("networks in one", format!("restrictions:\n- {{ networks: [{}] }}\n", (0..50_000).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect::<Vec<_>>().join(","))),
        ("named networks", format!("networks: {{ n: [{}] }}\nrestrictions:\n{}", (0..25_000).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect::<Vec<_>>().join(","), "- { networks: [n] }\n".repeat(10))),
        ("guid names", lines("grants", 3, |_| format!("groups: [{}], tenants: [team-a]", numbered(30_000, "g")))),
        ("claims", lines("tests", 9000, |n| format!("claims: {{ sub: a, groups: [g{n}], a: {{b: 1}} }}, tenant: team-a, scope: logs:read, expect: deny"))),
        ("failing", lines("tests", 9000, |n| format!("groups: [g{n}], tenant: team-a, scope: logs:read, expect: allow"))),
        ("restrictions patterns", format!("{}grants: [{{ groups: [a], tenants: ['team-a-*'] }}]\n", lines("restrictions", 9000, |n| format!("groups: [a], tenants: ['team-a-x{n}-*', 'team-a-y{n}'], networks: [office]")))),
        ("expired", lines("grants", 9000, |n| format!("groups: [g{n}], tenants: [team-a-{n}], expires: 2001-01-01T00:00:00Z"))),
        ("many groups duplicates", lines("grants", 20, |n| format!("groups: [{}], tenants: [team-a], scopes: ['{}']", numbered(4_900, "g"), if n % 2 == 0 { "logs:read" } else { "metrics:read" }))),
        ("overlapping excepts", format!("grants: [{{ groups: [a], tenants: [{}], except_tenants: [{}] }}]\n", (0..20_000).map(|n| format!("'team-a-{n}-*'")).collect::<Vec<_>>().join(","), (0..20_000).map(|n| format!("'team-a-{n}-x*'")).collect::<Vec<_>>().join(","))),
        ("two grants excepts", (0..2).map(|_| format!("- {{ groups: [a], tenants: [{}], except_tenants: [{}] }}\n", (0..10_000).map(|n| format!("'team-a-{n}-*'")).collect::<Vec<_>>().join(","), (0..10_000).map(|n| format!("'team-a-{n}-x*'")).collect::<Vec<_>>().join(","))).fold("grants:\n".to_owned(), |all, one| all + &one)),
        ("block scalar", format!("grants: |\n{}", " x\n".repeat(300_000))),
        ("plain multiline", format!("grants: x\n{}", " x\n".repeat(300_000))),
        ("quoted multiline", format!("grants: \"x\n{}\"\n", " x\n".repeat(300_000))),
        ("comments", format!("{{}}\n{}", "# x\n".repeat(200_000))),
        ("blank", format!("grants: [\n{}]\n", "\n".repeat(900_000))),
        ("spaces", format!("grants: [{}]\n", " ".repeat(1_000_000))),
        ("open brackets", "[".repeat(900_000)),
        ("dashes", format!("{}\n", "- ".repeat(400_000))),
        ("questions", format!("{}\n", "? ".repeat(400_000))),
        ("one line pairs", format!("grants: [{}]\n", many(150_000, "a: b"))),
        ("flow quoted keys", format!("grants: [{}]\n", many(100_000, "\"a\": b"))),
        ("surrogates", format!("{{\"a\": \"{}\"}}\n", "\\ud83d\\ude00".repeat(80_000))),
        ("backslashes", format!("{{\"a\": \"\\ud83d\\ude00{}\"}}\n", "\\\\".repeat(400_000))),
        ("escapes hidden", format!("{{\"{}\": 1}}\n", "\\u202e".repeat(150))),
        ("directives", "%YAML 1.2\n".repeat(90_000) + "---\n{}\n"),
        ("documents", "---\n{}\n".repeat(100_000)),
    ];
    let only = std::env::var("ATTACK").ok();
    for (what, document) in documents {
        if only.as_ref().is_some_and(|only| !what.contains(only.as_str())) { continue; }
        assert!(document.len() <= 1 << 20, "{what} {}", document.len());
        let (took, state, told) = timed(&document);
        let per = took.as_secs_f64() * 1048576.0 / document.len() as f64;
        eprintln!("{what:28} {:8} bytes {took:10.1?} {per:8.2} s/MiB {state:?} told {told}", document.len());
    }
}

/// A policy in force, with what became of owners' documents.
struct InForce(Compiled, Vec<OwnerOutcome>);

fn load(text: &str, directory: &mut Directory, before: Option<&InForce>, most_bytes: usize) -> Option<InForce> {
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
    &["", "group_names: { c: a }\n", "group_names: { c: [a, b] }\n", "group_names: { a: b }\n", "group_names: { c: 'two:a' }\n"],
    &[
        "",
        "service_accounts: [{ name: s, token_sha256: \
         ['0000000000000000000000000000000000000000000000000000000000000001'] }]\n",
    ],
    &["networks: { office: [10.0.0.0/8] }\n", "networks: { office: [11.0.0.0/8] }\n", "networks: { lab: [10.0.0.0/8] }\n", ""],
    &["client_ip: { source: remote_addr }\n", "client_ip: { source: remote_addr }\n", "client_ip: { source: remote_addr }\n", ""],
    &["", "grants: [{ groups: ['*'], tenants: ['*'] }]\n", "grants: [{ groups: [a], tenants: [p] }]\n", "grants: [{ groups: [b, c], tenants: ['t*'] }]\n"],
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
        let sections: String = self.sections.iter().zip(SECTIONS).map(|(at, versions)| versions[*at]).collect();
        let order = [["o", "p", ""], ["p", "o", ""], ["o", "", ""], ["p", "", ""], ["q", "o", "p"], ["o", "q", ""]];
        let owners: String = order[self.order]
            .iter()
            .filter_map(|name| Some((name, ["o", "p", "q"].iter().position(|known| known == name)?)))
            .map(|(name, at)| format!("  {name}: {}\n", BOUNDS[self.bounds[at]]))
            .collect();
        format!("version: 1\n{sections}owners:\n{owners}")
    }
}

fn documents() -> impl Strategy<Value = Option<String>> {
    let group = || prop::sample::select(&["a", "a", "a", "b", "b", "c", "two:a", "'one:*'", "'*'", "one:b"][..]);
    let tenant = || prop::sample::select(&["t", "t", "u", "u", "tx", "'t*'", "'*x'"][..]);
    let grant = (group(), tenant(), prop::sample::select(&["", "", ", scopes: ['logs:read']", ", except_tenants: [tx]"][..]))
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
    let networks = prop::sample::select(&["", "networks: { lab: [10.0.0.0/8] }\n", "networks: { lab: [12.0.0.0/8] }\n"][..]);
    let tests = prop::sample::select(
        &["", "", "", "tests: [{ groups: [a], tenant: t, scope: logs:read, expect: allow }]\n",
          "tests: [{ groups: [b], tenant: u, scope: logs:read, expect: deny }]\n"][..],
    );
    let good = (prop::collection::vec(grant, 0..3), prop::collection::vec(restriction, 0..2), networks, tests, 0_usize..200)
        .prop_map(|(grants, restrictions, networks, tests, filling)| {
            format!(
                "grants: [{}]\nrestrictions: [{}]\n{networks}{tests}# {}\n",
                grants.join(", "), restrictions.join(", "), "x".repeat(filling)
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
                for (client, scope) in
                    [("10.0.0.1", Scope::LogsRead), ("11.0.0.1", Scope::LogsRead), ("12.0.0.1", Scope::MetricsRead), ("10.0.0.1", Scope::LogsWrite)]
                {
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

fn cases() -> u32 {
    std::env::var("ATTACK_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

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

#[test]
fn attack_budget() {
    let accounts = lines("service_accounts", 5000, |n| format!("name: s{n}, token_sha256: ['{n:064}']"));
    let aliases = format!("group_names: {{ sre: raw-sre, {} }}\n", (0..5000).map(|n| format!("al{n}: z")).collect::<Vec<_>>().join(", "));
    let with_aliases = PLATFORM.replace("group_names: { sre: raw-sre }\n", &aliases);
    let with_accounts = format!("{accounts}{PLATFORM}");
    let names = |count: usize, name: &str| vec![name; count].join(",");
    let test = |count: usize, groups: &str, expect: &str| {
        lines("tests", count, |_| format!("groups: [{groups}], tenant: team-a, scope: logs:read, expect: {expect}"))
    };
    let claims = |count: usize, groups: &str, expect: &str| {
        lines("tests", count, |_| format!("claims: {{groups: [{groups}], exp: 1000000000}}, tenant: team-a, scope: logs:read, expect: {expect}"))
    };
    let all: Vec<(&str, &str, String)> = vec![
        ("baseline", PLATFORM, lines("grants", 9000, |n| format!("groups: [g{n}, h{n}], tenants: [team-a-{n}], scopes: ['logs:read']"))),
        ("one group", PLATFORM, test(9999, "a", "deny")),
        ("one group, 5000 accounts in the platform's", &with_accounts, test(9999, "a", "deny")),
        ("account, 5000 accounts", &with_accounts, test(9999, "'service:s4999'", "deny")),
        ("account, failing", &with_accounts, test(9999, "'service:s4999'", "allow")),
        ("15 names", PLATFORM, test(9999, &names(15, "a"), "deny")),
        ("15 names failing", PLATFORM, test(9999, &names(15, "a"), "allow")),
        ("400 names", PLATFORM, test(600, &names(400, "a"), "deny")),
        ("400 names failing", PLATFORM, test(600, &names(400, "a"), "allow")),
        ("aliases", &with_aliases, test(400, "z", "deny")),
        ("aliases failing", &with_aliases, test(400, "z", "allow")),
        ("claims failing", PLATFORM, claims(7000, "a,b,c", "allow")),
        ("long tenant", PLATFORM, lines("tests", 9, |_| format!("groups: [a], tenant: '{}', scope: logs:read, expect: allow", "t|".repeat(50_000)))),
    ];
    let only = std::env::var("ATTACK").ok();
    for (what, platform, document) in all {
        if only.as_ref().is_some_and(|only| !what.contains(only.as_str())) { continue; }
        let run = |document: &str| {
            let text = format!("{HEAD}{platform}");
            let mut directory = Directory::with("team-a", document).and("team-b", Some("{}\n"), None);
            let started = Instant::now();
            let outcome = compile_in_turn("p.yaml", text.as_bytes(), &mut directory, NOW, &Turn::ALL);
            (started.elapsed(), outcome.owners.first().map(|one| (one.state, one.diagnostics.first().map(|one| one.message.chars().take(60).collect::<String>()))))
        };
        let (empty, _) = run("{}\n");
        let (took, state) = run(&document);
        let took = took.saturating_sub(empty);
        let per = took.as_secs_f64() * 1048576.0 / document.len() as f64;
        eprintln!("{what:44} {:8} bytes {took:10.1?} {per:8.2} s/MiB {state:?}", document.len());
    }
}
