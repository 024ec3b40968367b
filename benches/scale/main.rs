//! How cost grows with a policy and with users: decision and load time in this process, memory and pauses in a real nginx
//! worker. `benches/README.md` says how to read it; the curves go to `benches/scale/scale.svg`.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a measurement on the developer's own machine: it may stop where something is missing"
)]

mod chart;
#[path = "../common/mod.rs"]
mod common;
mod policy;
#[path = "../../tests/support/mod.rs"]
mod support;
mod users;
mod worker;
mod worst;

use chart::Curve;
use common::promises::{Outcome, Report};
use common::{Spread, machine, option, print_table};
use policy::Size;
use std::hint::black_box;
use std::time::Instant;
use support::nginx::resident_kib;
use tenantauth::client_ip::ClientIp;
use tenantauth::decision::{AccessRequest, Caller, decide};
use tenantauth::engine::unix_now;
use tenantauth::policy::Compiled;
use tenantauth::policy::snapshot::GroupId;
use tenantauth::scope::{Backend, BackendSet, Scope};
use tenantauth::tenant::TenantList;
use users::Users;
use worker::{Gap, Worker};

/// Somebody of 50 groups, each asking for a tenant that is granted to one of them.
struct Question {
    tenant: String,
    groups: Box<[GroupId]>,
    client: ClientIp,
}

fn questions(compiled: &Compiled, size: Size, count: usize) -> Vec<Question> {
    let of_owner = size.grants / size.owners();
    (0..count)
        .map(|n| {
            let number = n * 7919 % size.grants;
            let names: Vec<String> =
                (0..50).map(|more| format!("group-{}", (number + more * 31) % size.groups())).collect();
            let groups = compiled.snapshot.groups.held_by_user(0, names.iter().map(String::as_str)).groups;
            let (owner, within) = (number / of_owner, number % of_owner);
            // Its first network; each owner has a tenth as many as grants.
            let network = owner * size.networks() / size.owners();
            let address = format!("10.{}.{}.7", network / 128, network % 128 * 2);
            let client = ClientIp::parse(address.as_bytes()).expect("an address");
            Question { tenant: format!("team-{owner}-{within}"), groups: groups.to_vec().into(), client }
        })
        .collect()
}

/// Nanoseconds a decision, over questions that come in turns.
fn time(compiled: &Compiled, questions: &[Question], rounds: usize) -> f64 {
    let now = unix_now();
    let ask = |question: &Question| {
        let tenants = TenantList::parse(question.tenant.as_bytes()).expect("a tenant");
        let request = AccessRequest {
            groups: &question.groups,
            caller: Caller::User { bound_by: &question.groups },
            tenants: &tenants,
            scope: Scope::LogsRead,
            backends: BackendSet::of(Backend::Loki),
            client_ip: Ok(question.client),
            now,
        };
        let decision = decide(&compiled.snapshot, black_box(&request));
        assert!(decision.is_allow(), "{:?} for {}", decision, question.tenant);
    };
    let started = Instant::now();
    for _ in 0..rounds {
        questions.iter().for_each(ask);
    }
    started.elapsed().as_secs_f64() * 1e9 / (rounds * questions.len()) as f64
}

/// Decisions under each size against the smallest, in turns, and what compiling each took in milliseconds.
fn decisions() -> (Vec<(Size, Spread, Spread)>, Vec<f64>) {
    let mut load = Vec::new();
    let policies: Vec<(Size, Compiled, Vec<Question>)> = Size::ALL
        .into_iter()
        .map(|size| {
            let started = Instant::now();
            let compiled = size.compile();
            load.push(started.elapsed().as_secs_f64() * 1e3);
            // One question over and over, as in the promise: what a processor's caches add is `micro`'s to tell.
            let questions = questions(&compiled, size, 8);
            (size, compiled, questions)
        })
        .collect();
    let mut times = vec![Vec::new(); policies.len()];
    for _ in 0..option("ROUNDS", 24) {
        for ((_, compiled, questions), times) in policies.iter().zip(&mut times) {
            times.push(time(compiled, questions, 5000));
        }
    }
    let base = times[0].clone();
    let of = |(size, times): (Size, Vec<f64>)| {
        let ratios = times.iter().zip(&base).map(|(one, base)| one / base);
        (size, Spread::of(ratios), Spread::of(times.iter().copied()))
    };
    (Size::ALL.into_iter().zip(times).map(of).collect(), load)
}

fn main() {
    if !common::is_wanted() {
        return;
    }
    let report = Report::begin("scale");
    println!("{}", machine());
    // Its keys are made once, and not while a policy is timed.
    support::tokens::key();
    let mut outcomes = worst::decisions();
    if std::env::var_os("PARTS").is_some_and(|parts| parts == "worst-decisions") {
        return report.end(&outcomes);
    }
    outcomes.push(worst::judging());
    outcomes.extend(worst::changes());
    if std::env::var_os("PARTS").is_some_and(|parts| parts == "worst") {
        return report.end(&outcomes);
    }
    let (decisions, load) = decisions();
    let grants = |size: Size| size.grants as f64;

    let heads = [
        "grants",
        "decision",
        "compiled in",
        "in force in",
        "worker",
        "after reloads",
        "gap",
        "reloading",
        "own",
    ];
    let mut lines = vec![heads.map(str::to_owned)];
    let (mut memory, mut gaps) = (Vec::new(), Vec::new());
    for ((size, _, decision), compiled) in decisions.iter().zip(&load) {
        let worker = Worker::start(*size);
        let resident = worker.resident();
        let (idle, reloading) = worker.gaps(if *size == Size::LARGE { option("RELOADS", 3) } else { 1 });
        let later = worker.resident();
        let longest = |gaps: &[Gap], of: fn(&Gap) -> f64| gaps.iter().map(of).fold(0.0, f64::max);
        let middle = |gaps: &[Gap], of: fn(&Gap) -> f64| Spread::of(gaps.iter().map(of)).median;
        let told = |gaps: &[Gap], of: fn(&Gap) -> f64| {
            format!("{:.1} ms (at most {:.1})", middle(gaps, of), longest(gaps, of))
        };
        memory.push((grants(*size), resident.max(later)));
        let pause = |gaps: &[Gap]| Spread::of(gaps.iter().map(|gap| gap.gap));
        let told_longest = format!(
            "{:.1} ms at most, of which the thread itself worked {:.1} ms at most",
            longest(&reloading, |gap| gap.gap),
            longest(&reloading, |gap| gap.busy)
        );
        gaps.push((pause(&reloading), pause(&idle), told_longest));
        lines.push([
            size.grants.to_string(),
            format!("{:.0} ns", decision.median),
            format!("{compiled:.0} ms"),
            format!("{:.0} ms", worker.loaded_in().as_secs_f64() * 1e3),
            format!("{resident:.1} MiB"),
            format!("{later:.1} MiB"),
            told(&idle, |gap| gap.gap),
            told(&reloading, |gap| gap.gap),
            told(&reloading, |gap| gap.busy),
        ]);
    }
    print_table(&lines);
    println!();

    let before = resident_kib(std::process::id());
    let users = Users::new(100_000);
    let made = resident_kib(std::process::id());
    let counts = [10, 100, 1000, 4000, 10_000, 100_000];
    let turns: Vec<(f64, f64)> = counts.map(|count| (count as f64, users.in_turns(count))).to_vec();
    let cached = resident_kib(std::process::id()).saturating_sub(made);
    let mut lines = vec![["users in turns", "a request"].map(str::to_owned)];
    lines.extend(turns.iter().map(|(users, cost)| [format!("{users:.0}"), format!("{cost:.1} µs")]));
    print_table(&lines);
    println!(
        "the token cache grew by {:.1} MiB (the tokens themselves: {} MiB)\n",
        cached as f64 / 1024.0,
        (made - before) >> 10
    );

    let added = memory.last().expect("sizes").1 - memory[0].1;
    let (_, ratio, _) = decisions.last().expect("sizes");
    let (pause, idle, told) = gaps.last().expect("sizes");
    outcomes.extend([
        Outcome::measured("decision-owners", *ratio, ""),
        Outcome::measured("pause", *pause, &**told),
        Outcome::measured("pause-idle", *idle, ""),
        Outcome::measured("memory", Spread::exactly(added), ""),
    ]);
    report.end(&outcomes);

    let sizes: Vec<f64> = Size::ALL.map(grants).to_vec();
    let curve = |title, x, y, points, target| Curve { title, x, y, points, target };
    let with = |values: Vec<f64>| sizes.iter().copied().zip(values).collect();
    let decided: Vec<f64> = decisions.iter().map(|(_, _, time)| time.median).collect();
    let twice = Some(decided[0] * 2.0);
    let over = memory[0].1 + 64.0;
    chart::draw(
        &support::repository("benches/scale/scale.svg"),
        &[
            curve("decision", "grants", "ns", with(decided), twice),
            curve("compiling", "grants", "ms", with(load), None),
            curve("resident memory of a worker", "grants", "MiB", memory, Some(over)),
            curve(
                "longest pause while reloading",
                "grants",
                "ms",
                with(gaps.iter().map(|(pause, _, _)| pause.median).collect()),
                Some(10.0),
            ),
            curve("users that come in turns", "users", "µs a request", turns, None),
        ],
    );
    println!("\nthe curves are in benches/scale/scale.svg");
}
