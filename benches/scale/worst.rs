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
        Some(OwnerText { file: format!("{name}.yaml"), current, last_good: None, is_unsettled: false })
    }
}

impl Texts<'_> {
    fn compile(&mut self) -> (policy::Outcome, Duration) {
        let mut text = "version: 1\nissuers: [{ issuer: https://login.example.test, audiences: [grafana], jwks_file: jwks.json }]\n\
                        client_ip: { source: remote_addr }\n"
            .to_owned();
        // Groups that every policy here knows, so that users hold the same in all of them.
        writeln!(
            text,
            "grants: [{{ groups: [{}, {}], tenants: [elsewhere] }}]\nowners:",
            names(200, "g"),
            names(200, "h")
        )
        .expect("a string takes all");
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

/// What every tenant that is asked for ends in.
const TAIL: &str = "-abcdefghijklmnopqrst";

/// Something of which an owner may write much.
struct Kind {
    what: &'static str,
    /// Of ten rules that every tenant that is asked for meets.
    ten: String,
    /// As much of it as an owner's document may hold.
    worst: String,
    /// The client is in no network.
    is_outside: bool,
}

/// A grant of the scope that is asked for, behind others which are for other scopes.
const GRANT: &str = "- { groups: [g0, g1, g2], tenants: ['team-*'], scopes: ['logs:read'] }\n";

fn kinds() -> Vec<Kind> {
    let few = names(20, "g");
    // Not those of the grant.
    let beside = (3..23).map(|n| format!("g{n}")).collect::<Vec<_>>().join(", ");
    let other = "scopes: ['metrics:read']";
    let head = |n: usize| STEM.get(..STEM.len() - n).expect("that long");
    let tail = |n: usize| TAIL.get(TAIL.len() - n..).expect("that long");
    let of = |what, ten, worst, is_outside| Kind { what, ten, worst, is_outside };
    // Rules that may not touch the tenants asked for, of as many lengths as there may be.
    let further = |text: String| {
        text + &(0..6000).fold(String::new(), |text, n| {
            text + &format!(
                "- {{ groups: [g{}], tenants: ['{STEM}-{n}-{}*'] }}\n",
                150 + n % 50,
                "y".repeat(n % 100)
            )
        })
    };
    let nested = |count: usize| {
        list("grants", (1..count).map(|n| format!("groups: [{few}], tenants: ['{}*'], {other}", head(n - 1))))
            + GRANT
    };
    let tails = |count: usize| {
        list(
            "grants",
            (1..count).map(|n| format!("groups: [{few}], tenants: ['team-*{}'], {other}", tail(n))),
        ) + GRANT
    };
    // Each beginning with ends of five lengths, none of which is the tenant's.
    let beginnings = |count: usize| {
        let rule = |n: usize| {
            let ends = (1..=5)
                .map(|length| format!("'{}*!{}'", head(n), tail(length)))
                .collect::<Vec<_>>()
                .join(", ");
            format!("groups: [{few}], tenants: [{ends}], {other}")
        };
        list("grants", (0..count).map(rule)) + GRANT
    };
    let loose = |count: usize, more: usize| {
        let rules =
            (0..count).map(|n| format!("groups: [{few}], tenants: ['team-*{}*!*'], {other}", head(n)));
        let more = (0..more).map(|n| format!("groups: [{few}], tenants: ['{}*'], {other}", head(n)));
        list("grants", rules.chain(more)) + GRANT
    };
    // All but the last fail by their last exception, for every group and pattern by which they are found.
    let excepting = |count: usize, names_each: usize| {
        let rule = |n: usize| {
            let names = names(names_each, &format!("team-{n}-"));
            format!(
                "groups: [{beside}], tenants: ['team-*', '{STEM}*'], except_tenants: [{names}, 'team-*{}'], scopes: ['logs:read']",
                tail(3)
            )
        };
        list("grants", (1..count).map(rule)) + GRANT
    };
    // The last excepted group is the user's, who is in no network.
    let excepted_groups = |count: usize, each: usize| {
        let rule = |n: usize| {
            let excepted = names(each - 1, &format!("k{n}-"));
            format!(
                "groups: [{few}], tenants: ['team-*'], except_groups: [{excepted}, g1], networks: [10.0.0.0/8]"
            )
        };
        let known = (0..count).map(|n| names(each - 1, &format!("k{n}-"))).collect::<Vec<_>>().join(", ");
        format!("grants:\n{GRANT}- {{ groups: [{known}], tenants: [team-k] }}\n")
            + &list("restrictions", (0..count).map(rule))
    };
    let restrictions = |count: usize, groups: usize| {
        let rule = |n: usize| {
            let own = (0..groups).map(|g| format!("g{}", n * groups + g)).collect::<Vec<_>>().join(", ");
            let networks = (0..100).map(|m| format!("10.{n}.{}.0/24", 2 * m)).collect::<Vec<_>>().join(", ");
            format!("groups: [{own}], tenants: ['team-*'], networks: [{networks}, 192.168.0.0/16]")
        };
        format!("grants:\n{GRANT}") + &list("restrictions", (0..count).map(rule))
    };
    // Rules of which each is for other groups.
    let groups = |count: usize, each: usize, of: usize| {
        let rule = |n: usize| {
            let own = (0..each).map(|g| format!("g{}", (n * each + g) % of)).collect::<Vec<_>>().join(", ");
            format!("groups: [{own}], tenants: ['team-*'], {other}")
        };
        list("grants", (0..count).map(rule)) + GRANT
    };
    vec![
        of("one pattern within another", nested(10), nested(14), false),
        of("ends within one another", tails(10), tails(14), false),
        of("beginnings with many ends", beginnings(2), beginnings(3), false),
        of("several `*`", loose(5, 5), further(loose(8, 9)), false),
        of("exceptions of 30 names", excepting(11, 30), further(excepting(21, 30)), false),
        of("exceptions of 1000 names", excepting(11, 30), excepting(21, 1000), false),
        of("excepted groups, outside", excepted_groups(10, 25), excepted_groups(20, 25), true),
        of("restrictions, inside", restrictions(10, 20), restrictions(32, 5), false),
        of("300 groups", groups(10, 30, 300), groups(300, 1, 300), false),
        of("a rule for each group, and 30 more", groups(10, 32, 320), groups(346, 1, 320), false),
        of("1000 pairs of group and pattern", groups(10, 30, 300), groups(20, 49, 300), false),
        of("30 rules of 50 groups", groups(10, 30, 50), groups(29, 24, 50), false),
        of("a mixture", meeting(5, 5, 0, 0), meeting(6, 6, 5, 6000), false),
    ]
}

struct Question {
    what: &'static str,
    tenants: String,
    raw: &'static str,
    scope: Scope,
    expected: Reason,
}

fn questions() -> Vec<Question> {
    let tenant = |n: usize| format!("{STEM}-x{n}x{TAIL}");
    let many = (0..100).map(tenant).collect::<Vec<_>>().join("|");
    let with_other = format!("{}|tean", many.split_once('|').expect("several").1);
    let (read, write) = (Scope::LogsRead, Scope::LogsWrite);
    let of = |what, tenants, raw, scope, expected| Question { what, tenants, raw, scope, expected };
    vec![
        of("1 tenant", tenant(0), "g", read, Reason::Granted),
        of("1 tenant, other scope", tenant(0), "g", write, Reason::ScopeForbidden),
        of("1 tenant, other groups", tenant(0), "h", read, Reason::TenantForbidden),
        of("100 tenants", many.clone(), "g", read, Reason::Granted),
        of("100 tenants, other scope", many, "g", write, Reason::ScopeForbidden),
        of("100 tenants, the last of others", with_other, "g", read, Reason::TenantForbidden),
    ]
}

/// Nanoseconds a decision. `count`: of the user's groups.
fn time(compiled: &Compiled, kind: &Kind, question: &Question, count: usize, rounds: usize) -> f64 {
    let groups: Vec<String> = (0..count).map(|n| format!("{}{n}", question.raw)).collect();
    let held = compiled.snapshot.groups.held_by_user(0, groups.iter().map(String::as_str));
    let tenants = TenantList::parse(question.tenants.as_bytes()).expect("tenants");
    let client: &[u8] = if kind.is_outside { b"203.0.113.1" } else { b"192.168.1.1" };
    let client = if kind.what == "a mixture" { b"10.1.1.1" } else { client };
    let request = AccessRequest {
        groups: &held.groups,
        caller: Caller::User { bound_by: &held.groups },
        tenants: &tenants,
        scope: question.scope,
        backends: BackendSet::of(Backend::Loki),
        client_ip: Ok(ClientIp::parse(client).expect("an address")),
        now: unix_now(),
    };
    let reason = decide(&compiled.snapshot, &request).reason();
    assert_eq!(reason, question.expected, "{}, {}", kind.what, question.what);
    let started = Instant::now();
    for _ in 0..rounds {
        black_box(decide(&compiled.snapshot, black_box(&request)));
    }
    started.elapsed().as_secs_f64() * 1e9 / rounds as f64
}

/// Decisions under the worst documents against ten rules of the same kind, and under ten owners of the same tenants that
/// all write them.
pub(crate) fn decisions() -> Vec<Outcome> {
    let heads =
        ["the worst of", "groups", "question", "ten rules", "one owner", "ratio", "10 owners", "ratio"];
    let mut lines = vec![heads.map(str::to_owned)];
    let mut worst: [Option<(Spread, String)>; 2] = [None, None];
    for kind in kinds() {
        let of = |owners: usize, document: &str| Texts { owners, document }.compiled();
        let (few, one, ten) = (of(1, &kind.ten), of(1, &kind.worst), of(10, &kind.worst));
        for (count, question) in
            [50, 200].into_iter().flat_map(|count| questions().into_iter().map(move |q| (count, q)))
        {
            let is_many = question.tenants.len() > 200;
            let rounds = if is_many { 20 } else { 1000 };
            // The least of many rounds is what the work itself takes: what else the machine does only adds to it.
            let (mut small, mut large) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..option("ROUNDS", 24) {
                small = small.min(time(&few, &kind, &question, count, rounds));
                large = large.min(time(&one, &kind, &question, count, rounds));
            }
            let ratio = Spread::exactly(large / small);
            let crowd = (0..4).map(|_| time(&ten, &kind, &question, count, (rounds / 20).max(3)));
            let crowded = crowd.fold(f64::INFINITY, f64::min);
            let micros = |nanos: f64| format!("{:.2} us", nanos / 1e3);
            lines.push([
                kind.what.to_owned(),
                count.to_string(),
                question.what.to_owned(),
                micros(small),
                micros(large),
                format!("{:.2}", ratio.median),
                micros(crowded),
                format!("{:.1}", crowded / small),
            ]);
            let [one_tenant, many_tenants] = &mut worst;
            let worst = if is_many { many_tenants } else { one_tenant };
            if worst.as_ref().is_none_or(|(other, _)| other.median < ratio.median) {
                let (large, small) = (large / 1e3, small / 1e3);
                let told =
                    format!("{large:.3} / {small:.3} us: {}, {count} groups, {}", kind.what, question.what);
                *worst = Some((ratio, told));
            }
        }
    }
    print_table(&lines);
    println!();
    let ids = ["worst-one", "worst-many"].into_iter().zip(worst);
    ids.filter_map(|(id, worst)| worst.map(|(ratio, told)| Outcome::measured(id, ratio, told))).collect()
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
