//! Documents of owners under attack: work and meaning.

use super::owners::{Directory, PLATFORM, errors, lines, read, reason};
use super::*;
use crate::policy::{OwnerState, Outcome, Turn, compile_in_turn};
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
