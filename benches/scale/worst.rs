//! The worst that owners may write: what it costs decisions, what judging it costs, and whom it keeps waiting.

use crate::common::promises::Outcome;
use crate::common::{Spread, option, print_table};
use crate::policy::Size;
use crate::support::tokens::{jwks, key};
use crate::worker::Worker;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tenantauth::client_ip::ClientIp;
use tenantauth::decision::{AccessRequest, Caller, decide};
use tenantauth::engine::unix_now;
use tenantauth::file::FileError;
use tenantauth::policy::{self, Compiled, Files, OwnerState, OwnerText, Turn};
use tenantauth::reason::Reason;
use tenantauth::scope::{Backend, BackendSet, Scope};
use tenantauth::tenant::TenantList;

/// Owners that write the worst at the same time.
const OWNERS: usize = 100;

/// A policy of owners that all have the same tenants and write the same.
struct Texts<'t> {
    owners: usize,
    document: &'t str,
}

impl Files for Texts<'_> {
    fn read(&mut self, _: &Path) -> Result<Vec<u8>, FileError> {
        Ok(jwks(&[key()]).into_bytes())
    }

    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let current = Ok(self.document.as_bytes().to_vec());
        Some(OwnerText { file: format!("{name}.yaml"), current, last_good: None })
    }
}

impl Texts<'_> {
    fn compile(&mut self) -> (policy::Outcome, Duration) {
        let mut text = "version: 1\nissuers: [{ issuer: https://login.example.test, audiences: [grafana], jwks_file: jwks.json }]\n\
                        client_ip: { source: remote_addr }\nowners:\n"
            .to_owned();
        for owner in 0..self.owners {
            writeln!(text, "  o{owner}: {{ tenants: [\"team-*\"] }}").expect("a string takes all");
        }
        let started = cpu_time();
        let outcome = policy::compile_in_turn("policy.yaml", text.as_bytes(), self, unix_now(), &Turn::ALL);
        (outcome, cpu_time() - started)
    }

    fn compiled(mut self) -> Compiled {
        let outcome = self.compile().0;
        for owner in &outcome.owners {
            assert_eq!(owner.state, OwnerState::Current, "{:?}", owner.diagnostics.first());
        }
        outcome.compiled.expect("a good policy")
    }
}

/// What this thread has worked so far: proc(5), `schedstat`.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number"))
}

/// Lines of a list.
fn list(section: &str, rules: impl IntoIterator<Item = String>) -> String {
    rules.into_iter().fold(format!("{section}:\n"), |text, rule| text + "- { " + &rule + " }\n")
}

fn names(count: usize, name: &str) -> String {
    (0..count).map(|n| format!("{name}{n}")).collect::<Vec<_>>().join(", ")
}

/// What every tenant that is asked for begins with.
const STEM: &str = "team-abcdefghijklmnop";

/// Grants and restrictions of which each meets every tenant that is asked for: `nested` by patterns one within another,
/// `inner` by patterns with a star before their end, `more` by the longest pattern. All but one are for other scopes, and are looked at.
fn meeting(nested: usize, inner: usize, more: usize, further: usize) -> String {
    let groups = names(20, "g");
    let scopes = |last: bool| if last { "'logs:read'" } else { "'metrics:read'" };
    let except = names(30, "team-hr-");
    let rule = |pattern: String, last: bool| {
        format!(
            "groups: [{groups}], tenants: ['{pattern}'], except_tenants: [{except}, '{STEM}-e*'], scopes: [{}]",
            scopes(last)
        )
    };
    let stem = |n: usize| STEM.get(..STEM.len() - n % 16).unwrap_or_default().to_owned();
    let mut grants: Vec<String> =
        (0..nested).map(|n| rule(format!("{}*", stem(n)), n + 1 == nested)).collect();
    grants.extend((0..inner).map(|n| rule(format!("{}*x{}", stem(n), "*".repeat(1 + n % 2)), false)));
    grants.extend((0..more).map(|_| rule(format!("{STEM}*"), false)));
    // Of every length, beginning like the tenants; none of them matches.
    grants.extend((0..further).map(|n| {
        let length = n % 100;
        format!("groups: [g{}], tenants: ['{STEM}-{n}-{}*']", 20 + n % 30, "y".repeat(length))
    }));
    let restriction = |pattern: String| {
        format!(
            "groups: [{groups}], tenants: ['{pattern}'], networks: [10.0.0.0/8], except_groups: [k1, k2, k3]"
        )
    };
    let bound = (0..nested).map(|n| restriction(format!("{}*", stem(n))));
    let bound: Vec<String> =
        bound.chain((0..inner).map(|n| restriction(format!("{}*x*", stem(n))))).collect();
    let known = "- { groups: [k1, k2, k3], tenants: [team-k] }\n";
    list("grants", grants) + known + &list("restrictions", bound)
}

struct Question {
    what: &'static str,
    tenants: String,
    raw: &'static str,
    scope: Scope,
    expected: Reason,
}

fn questions() -> Vec<Question> {
    let many = (0..100).map(|n| format!("{STEM}-x{n}x")).collect::<Vec<_>>().join("|");
    let with_other = format!("{}|tean", many.split_once('|').expect("several").1);
    let one = || format!("{STEM}-x0x");
    let (read, write) = (Scope::LogsRead, Scope::LogsWrite);
    let of = |what, tenants, raw, scope, expected| Question { what, tenants, raw, scope, expected };
    vec![
        of("1 tenant", one(), "g", read, Reason::Granted),
        of("1 tenant, other scope", one(), "g", write, Reason::ScopeForbidden),
        of("1 tenant, other groups", one(), "h", read, Reason::TenantForbidden),
        of("1 tenant, excepted", format!("{STEM}-e0x"), "g", read, Reason::TenantForbidden),
        of("100 tenants", many.clone(), "g", read, Reason::Granted),
        of("100 tenants, other scope", many.clone(), "g", write, Reason::ScopeForbidden),
        of("100 tenants, the last of others", with_other, "g", read, Reason::TenantForbidden),
    ]
}

fn time(compiled: &Compiled, question: &Question, rounds: usize) -> f64 {
    let groups: Vec<String> = (0..50).map(|n| format!("{}{n}", question.raw)).collect();
    let held = compiled.snapshot.groups.held_by_user(0, groups.iter().map(String::as_str));
    let tenants = TenantList::parse(question.tenants.as_bytes()).expect("tenants");
    let client = ClientIp::parse(b"10.1.1.1").expect("an address");
    let request = AccessRequest {
        groups: &held.groups,
        caller: Caller::User { bound_by: &held.groups },
        tenants: &tenants,
        scope: question.scope,
        backends: BackendSet::of(Backend::Loki),
        client_ip: Ok(client),
        now: unix_now(),
    };
    assert_eq!(decide(&compiled.snapshot, &request).reason(), question.expected, "{}", question.what);
    let started = Instant::now();
    for _ in 0..rounds {
        black_box(decide(&compiled.snapshot, black_box(&request)));
    }
    started.elapsed().as_secs_f64() * 1e9 / rounds as f64
}

/// Decisions under the worst document against a policy of ten rules of the same kinds, and under 500 of them.
pub(crate) fn decisions() -> Vec<Outcome> {
    let few = Texts { owners: 1, document: &meeting(5, 5, 0, 0) }.compiled();
    let worst = Texts { owners: 1, document: &meeting(7, 8, 5, 6000) }.compiled();
    let crowd = Texts { owners: 500, document: &meeting(8, 8, 4, 0) }.compiled();
    let mut lines =
        vec![["the worst patterns", "policy of 10", "one owner", "ratio", "500 owners"].map(str::to_owned)];
    let mut rows: Vec<(f64, Spread, String)> = Vec::new();
    for question in questions() {
        let rounds = if question.tenants.len() > 200 { 200 } else { 20_000 };
        let (mut ratios, mut base, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..option("ROUNDS", 24) {
            let (small, large) = (time(&few, &question, rounds), time(&worst, &question, rounds));
            ratios.push(large / small);
            base.push(small);
            times.push(large);
        }
        let [ratio, base, large] = [ratios, base, times].map(Spread::of);
        let crowded = time(&crowd, &question, (rounds / 200).max(3));
        lines.push([
            question.what.to_owned(),
            format!("{:.2} us", base.median / 1e3),
            format!("{:.2} us", large.median / 1e3),
            format!("{:.2}", ratio.median),
            format!("{:.1} us", crowded / 1e3),
        ]);
        rows.push((
            large.median,
            ratio,
            format!("{:.3} / {:.3} us: {}", large.median / 1e3, base.median / 1e3, question.what),
        ));
    }
    print_table(&lines);
    println!();
    let worst_of = |id, rows: &[(f64, Spread, String)]| {
        let (_, ratio, told) =
            rows.iter().max_by(|one, other| one.1.median.total_cmp(&other.1.median)).expect("rows");
        Outcome::measured(id, *ratio, told.clone())
    };
    vec![worst_of("worst-one", &rows[..4]), worst_of("worst-many", &rows[4..])]
}

fn repeated(section: &str, bytes: usize, most: usize, rule: impl Fn(usize) -> String) -> String {
    let mut text = format!("{section}:\n");
    for number in 0..most {
        let line = format!("- {{ {} }}\n", rule(number));
        if text.len() + line.len() > bytes {
            break;
        }
        text += &line;
    }
    text
}

/// Documents of at most 1 MiB and 10 000 entries that make judging them as long as they can.
pub(crate) fn documents() -> Vec<(&'static str, String)> {
    const ALL: usize = 1 << 20;
    let tenants = |count: usize, length: usize| {
        (0..count).map(|n| format!("{STEM}-{n:x>length$}")).collect::<Vec<_>>().join("|")
    };
    let grants = meeting(8, 8, 4, 0);
    let room = ALL - grants.len();
    let tests = |count: usize, groups: usize, tenants: &str, expect: &str| {
        repeated("tests", room, count, |n| {
            format!(
                "name: n{n}, groups: [{}], tenant: '{tenants}', scope: logs:read, expect: {expect}",
                names(groups, "g")
            )
        })
    };
    let hundred = tenants(100, 1);
    let starred = || (0..).map(|n| format!("'team-*{n}*'"));
    let many = |count: usize| starred().take(count).collect::<Vec<_>>().join(", ");
    let aliases = (ALL - 40) / 3;
    let flat = |count: usize, item: &str| vec![item; count].join(",");
    vec![
        ("9000 patterns and 769 tests, as found", {
            repeated("grants", ALL / 2, 9000, |n| format!("groups: [a], tenants: ['team-a-*{n}*']"))
                + &repeated("tests", ALL / 2, 769, |n| {
                    format!("name: n{n}, groups: [a], tenant: '{hundred}', scope: logs:read, expect: deny")
                })
        }),
        ("as many tests as the budget takes", grants.clone() + &tests(88, 20, &hundred, "ip_missing")),
        (
            "as many tests as it takes, all fail",
            grants.clone() + &tests(88, 20, &hundred, "service_attended"),
        ),
        ("more tests than it takes", grants + &tests(2000, 1, &hundred, "deny")),
        (
            "grants",
            repeated("grants", ALL, 9999, |n| {
                format!("groups: [g{n}, g1], tenants: [team-{n}, 'team-{n}-*']")
            }),
        ),
        ("one grant of many tenants and exceptions", {
            let tenants = names(38_000, "team-");
            format!("grants: [{{ groups: [g], tenants: [{tenants}], except_tenants: [{tenants}] }}]\n")
        }),
        (
            "grants that another one gives",
            repeated("grants", ALL, 9999, |n| {
                format!("groups: [g], tenants: ['team-*', team-{n}], expires: 2099-01-01T00:00:0{}Z", n % 10)
            }),
        ),
        ("restrictions by patterns", {
            let lines = repeated("restrictions", ALL - 100, 9000, |n| {
                format!("tenants: ['team-*{n}'], networks: [10.0.0.0/8]")
            });
            lines + "grants: [{ groups: [g], tenants: [team-k] }]\n"
        }),
        ("one restriction of many groups", {
            let groups = names(44_000, "g");
            format!(
                "grants: [{{ groups: [{groups}], tenants: [team-k] }}]\nrestrictions: [{{ groups: [{groups}], except_groups: [{groups}], networks: [10.0.0.0/8] }}]\n"
            )
        }),
        ("names of networks, defined nowhere", {
            let defined = (0..9000).map(|n| format!("n{n}: [10.0.0.0/8]")).collect::<Vec<_>>().join(", ");
            format!("networks: {{ {defined} }}\nrestrictions: [{{ networks: [{}] }}]\n", flat(150_000, "zzz"))
        }),
        ("networks by name, again and again", {
            let defined = (0..20_000)
                .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
                .collect::<Vec<_>>()
                .join(", ");
            format!(
                "networks: {{ all: [{defined}] }}\nrestrictions: [{{ networks: [{}] }}]\n",
                flat(100_000, "all")
            )
        }),
        ("patterns that are too many", format!("grants: [{{ groups: [g], tenants: [{}] }}]\n", many(50_000))),
        (
            "tenants out of bounds",
            format!("grants: [{{ groups: [g], tenants: [{}] }}]\n", flat(100_000, "elsewhere")),
        ),
        ("anchors and aliases", format!("networks: &a [{}]\n", flat(aliases, "*a"))),
        ("stars without quotes", format!("grants: [{}]\n", flat(aliases / 2, "*x yy"))),
        ("unknown keys", {
            let keys = (0..60_000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(", ");
            format!("grants: [{{ groups: [g], tenants: [team-k], {keys} }}]\n")
        }),
        ("one long key", format!("{}: 1\n", "k".repeat(ALL - 10))),
        (
            "tests that expect no reason",
            repeated("tests", ALL, 9999, |n| {
                format!(
                    "name: n{n}, groups: [a], tenant: t, scope: logs:read, expect: granded{}",
                    "x".repeat(20)
                )
            }),
        ),
        (
            "tests of many groups",
            format!(
                "tests: [{{ groups: [{}], tenant: team-k, scope: logs:read, expect: deny }}]\n",
                flat(190_000, "g1")
            ),
        ),
        ("claims", {
            let groups = flat(150_000, "g1");
            format!(
                "tests: [{{ claims: {{ groups: [{groups}] }}, tenant: team-k, scope: logs:read, expect: deny }}]\n"
            )
        }),
        ("brackets", format!("grants: {}{}\n", "[".repeat(31), "[],".repeat(300_000))),
        ("flat text", format!("grants: [{}]\n", flat(350_000, "a"))),
    ]
}

/// What judging each of the worst documents takes, in milliseconds of CPU time.
pub(crate) fn judging() -> Outcome {
    let nothing = Texts { owners: 1, document: "{}\n" }.compile().1;
    let mut lines = vec![["a document of an owner", "KiB", "CPU time", ""].map(str::to_owned)];
    let mut longest = (0.0, "");
    for (what, document) in documents() {
        assert!(document.len() <= 1 << 20, "{what}: {}", document.len());
        let times = (0..3).map(|_| {
            let (outcome, took) = Texts { owners: 1, document: &document }.compile();
            (took.saturating_sub(nothing).as_secs_f64() * 1e3, outcome)
        });
        let (took, outcome) = times.min_by(|one, other| one.0.total_cmp(&other.0)).expect("three");
        let owner = outcome.owners.first().expect("an owner");
        let first = owner.diagnostics.iter().find(|problem| problem.is_error());
        let told =
            first.map_or_else(|| "good".to_owned(), |problem| problem.message.chars().take(90).collect());
        lines.push([what.to_owned(), (document.len() >> 10).to_string(), format!("{took:.0} ms"), told]);
        if took > longest.0 {
            longest = (took, what);
        }
    }
    print_table(&lines);
    println!();
    Outcome::measured("worst-document", Spread::exactly(longest.0), longest.1)
}

/// How long the change of another owner, and a revocation, take until they are in force while a hundred owners bring the
/// worst documents, and once those are in force; and what that costs the event loop.
pub(crate) fn changes() -> Vec<Outcome> {
    let documents = documents();
    let (_, tests) = &documents[1];
    let (_, grants) = &documents[4];
    let size = Size { grants: 1000 };
    let heavy = |n: usize| format!("heavy-{n}");
    let mut bounds = String::new();
    for n in 0..OWNERS {
        writeln!(bounds, "  {}: {{ tenants: [\"team-*\"] }}", heavy(n)).expect("a string takes all");
    }
    let worker = Worker::start_with(size, &bounds, |workspace| {
        for n in 0..OWNERS {
            workspace.write(&format!("policy/owners.d/{}.yaml", heavy(n)), "{}\n");
        }
    });
    let mut gaps = Vec::new();
    let mut changes = Vec::new();
    let mut revocations = Vec::new();
    let mut measure = |number: usize| {
        worker.gap();
        let (change, revocation) = worker.change_and_revoke(number, &bounds);
        changes.push(change.as_secs_f64());
        revocations.push(revocation.as_secs_f64());
        gaps.push(worker.gap().busy);
    };
    measure(0);
    for n in 0..OWNERS {
        let text = if n % 2 == 0 { tests } else { grants };
        worker.workspace().write(&format!("policy/owners.d/{}.yaml", heavy(n)), text);
    }
    sleep(Duration::from_secs(2));
    for number in 1..4 {
        measure(number);
    }
    let started = Instant::now();
    worker.wait_for_owners(OWNERS, 600);
    println!("all of {OWNERS} worst documents were judged {:.0} s later", started.elapsed().as_secs_f64());
    for number in 4..6 {
        measure(number);
    }
    let told = |times: &[f64]| times.iter().map(|time| format!("{time:.1}")).collect::<Vec<_>>().join(", ");
    println!("change in force after {} s, revocation after {} s", told(&changes), told(&revocations));
    println!("the event loop's thread worked at most {} ms at once\n", told(&gaps));
    let longest = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    let quiet = format!("alone {:.1} s", changes[0]);
    vec![
        Outcome::measured("worst-change", Spread::exactly(longest(&changes[1..])), quiet),
        Outcome::measured(
            "worst-revocation",
            Spread::exactly(longest(&revocations[1..])),
            format!("alone {:.1} s", revocations[0]),
        ),
        Outcome::measured("worst-pause", Spread::exactly(longest(&gaps[1..])), "the thread's own time"),
    ]
}
