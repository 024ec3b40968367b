//! Requests a second at saturation, and latency at half of it: of the typical request over 1, 16 and 256 connections,
//! with tokens of which all, nine of ten or none are known, with 1 to 200 groups and 1 to 100 tenants.
//!
//! The worker has a core for itself; we and the backend share the others. `LOAD_ROUNDS` (3) rounds of each kind and
//! server are measured in turns, each for `LOAD_MILLISECONDS` (1000).

use crate::common::typical::{PATH, QUERY, TENANT, headers, token_of};
use crate::common::{Spread, option};
use crate::generator::{Hits, Pace, Run, Traffic, run, wake_exactly};
use crate::load::{core, cpu_time, other_cores, pin};
use crate::servers::{Farm, Server};
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// A kind of load.
#[derive(Clone, Copy)]
struct Shape {
    connections: usize,
    hits: Hits,
    groups: usize,
    tenants: usize,
}

/// The typical request.
const TYPICAL: Shape = Shape { connections: 16, hits: Hits::All, groups: 50, tenants: 1 };

const SHAPES: [Shape; 10] = [
    TYPICAL,
    Shape { connections: 1, ..TYPICAL },
    Shape { connections: 256, ..TYPICAL },
    Shape { hits: Hits::NineOfTen, ..TYPICAL },
    Shape { hits: Hits::None, ..TYPICAL },
    Shape { groups: 1, ..TYPICAL },
    Shape { groups: 10, ..TYPICAL },
    Shape { groups: 200, ..TYPICAL },
    Shape { tenants: 10, ..TYPICAL },
    Shape { tenants: 100, ..TYPICAL },
];

/// Twice as many as a worker remembers at most.
const TOKENS: usize = 8192;

/// Cells of a line.
pub(crate) const COLUMNS: usize = 12;

impl Shape {
    fn traffic<'a>(self, tokens: &'a [String], made: &'a AtomicU64) -> Traffic<'a> {
        let mut head = format!("GET {PATH}?{QUERY} HTTP/1.1\r\nHost: gateway.test\r\n");
        for (name, value) in headers("") {
            let value = if name == "X-Scope-OrgID" { self.tenants() } else { value };
            if name != "X-Id-Token" {
                write!(head, "{name}: {value}\r\n").expect("a string takes everything");
            }
        }
        head.push_str("X-Id-Token: ");
        let tail = "\r\n\r\n".to_owned();
        Traffic { head, tail, tokens, hits: self.hits, made }
    }

    /// `team-a` and others that the same grant names by a pattern.
    fn tenants(self) -> String {
        let others = (1..self.tenants).map(|n| format!("|{TENANT}-{n}"));
        TENANT.to_owned() + &others.collect::<String>()
    }
}

/// What was measured of one server under one kind of load.
#[derive(Default)]
struct Measured {
    /// Requests a second at saturation, by round.
    rates: Vec<f64>,
    /// What part of its core the worker used meanwhile, by round.
    busy: Vec<f64>,
    /// Microseconds of CPU time that a request took it meanwhile, by round.
    costs: Vec<f64>,
    /// At half of the rate, over all rounds.
    latencies: Vec<Duration>,
}

impl Measured {
    /// The part `of` all requests that took no longer, in microseconds.
    fn quantile(&self, of: f64) -> String {
        let place = (self.latencies.len() as f64 * of) as usize;
        format!("{:.0}", self.latencies[place.min(self.latencies.len() - 1)].as_secs_f64() * 1e6)
    }

    /// The cells that are the same for every server.
    fn cells(&self) -> [String; 6] {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).median;
        [
            format!("{:.0}", median(&self.rates)),
            format!("{:.0} %", 100.0 * median(&self.busy)),
            format!("{:.1}", median(&self.costs)),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(0.999),
        ]
    }
}

/// All lines of the table, the head first. Everything is moved from the core of the other measurement but the
/// workers in front.
pub(crate) fn measure(farm: &Farm) -> Vec<[String; COLUMNS]> {
    wake_exactly();
    pin(std::process::id(), &other_cores());
    pin(farm.backend, &other_cores());
    eprint!("\r{TOKENS} tokens are being signed ");
    let tokens: Vec<String> = (0..TOKENS).map(|n| token_of(TYPICAL.groups, &format!("user-{n}"))).collect();
    // How many requests each server got: who remembers tokens must not meet one again too soon.
    let made = [(); 2].map(|()| AtomicU64::new(0));
    let mut lines = vec![
        [
            "connections",
            "tokens known",
            "groups",
            "tenants",
            "server",
            "requests/s",
            "busy",
            "CPU us",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "CPU / plain's",
        ]
        .map(str::to_owned),
    ];
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let own = [token_of(shape.groups, "user-1"), String::new()];
        let tokens = if matches!(shape.hits, Hits::All) { &own[..] } else { &tokens };
        lines.extend(measure_shape(farm, shape, tokens, &made));
        if std::io::stderr().is_terminal() {
            eprint!("\r{} of {} kinds of load       ", number + 1, SHAPES.len());
        }
    }
    println!(
        "\n{} rounds of {} ms of each kind of load; the worker on core {}, clients and backend on {:?}",
        option("LOAD_ROUNDS", 3),
        option("LOAD_MILLISECONDS", 1000),
        core(),
        other_cores()
    );
    println!(
        "the worker remembers {} tokens of the typical size",
        farm.metric("tenantauth_token_cache_entries")
    );
    lines
}

fn measure_shape(
    farm: &Farm,
    shape: Shape,
    tokens: &[String],
    made: &[AtomicU64; 2],
) -> [[String; COLUMNS]; 2] {
    let time = Duration::from_millis(option("LOAD_MILLISECONDS", 1000) as u64);
    let [mut enforce, mut plain] = [(); 2].map(|()| Measured::default());
    let lookups = || {
        ["hit", "miss"].map(|result| {
            farm.metric(&format!("tenantauth_token_cache_requests_total{{result=\"{result}\"}}"))
        })
    };
    let mut known = [0.0; 2];
    for round in 0..option("LOAD_ROUNDS", 3) {
        let mut order = [(Server::Plain, &mut plain), (Server::Enforce, &mut enforce)];
        if round % 2 == 1 {
            order.reverse();
        }
        for (server, measured) in order {
            let (port, worker) = (farm.port(server), farm.worker(server));
            // Its cookie lives for five minutes.
            let traffic = shape.traffic(tokens, &made[usize::from(server == Server::Enforce)]);
            let go = |pace, time| run(port, &traffic, shape.connections, pace, time);
            // Warm: connections to the backend are open, tokens known, or others in their place.
            go(Pace::Flat, time.mul_f64(0.3));
            let (before, started) = (lookups(), cpu_time(worker));
            let saturated: Run = go(Pace::Flat, time);
            let spent = (cpu_time(worker) - started).as_secs_f64();
            measured.busy.push(spent / saturated.took.as_secs_f64());
            measured.costs.push(spent * 1e6 / saturated.latencies.len() as f64);
            if server == Server::Enforce {
                let after = lookups();
                (0..2).for_each(|result| known[result] += after[result] - before[result]);
            }
            measured.rates.push(saturated.rate());
            measured.latencies.extend(go(Pace::Rate(saturated.rate() / 2.0), time).latencies);
        }
    }
    enforce.latencies.sort_unstable();
    plain.latencies.sort_unstable();
    let [hits, misses] = known;
    let shown = [
        shape.connections.to_string(),
        format!("{:.1} %", 100.0 * hits / (hits + misses)),
        shape.groups.to_string(),
        shape.tenants.to_string(),
    ];
    let ratios = enforce.costs.iter().zip(&plain.costs).map(|(enforce, plain)| enforce / plain);
    let Spread { median, low, high } = Spread::of(ratios);
    let line = |shown: [String; 4], server: &str, measured: &Measured, ratio: String| {
        let cells = shown.into_iter().chain([server.to_owned()]).chain(measured.cells()).chain([ratio]);
        cells.collect::<Vec<_>>().try_into().expect("as many cells as columns")
    };
    [
        line(shown, "enforce", &enforce, format!("{median:.2} ({low:.2} .. {high:.2})")),
        line(Default::default(), "plain", &plain, String::new()),
    ]
}
