//! What the gateway costs, with tenantauth, without it, and with others in its place, in one run on one machine.
//! `benches/README.md` says how to read it.
//!
//! First CPU time a request: `ROUNDS` (24) slices of `SECONDS` (1) of each server, over `STARTS` (6) starts of nginx.
//! Then requests a second and latency of requests of other shapes: [`shapes`]. `PARTS` (`ratios,load`) names what is
//! measured. Ends with status 1 only where it could not measure: a missed target is a result.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a measurement on the developer's own machine: it may stop where something is missing"
)]

#[path = "../common/mod.rs"]
mod common;
mod generator;
mod load;
mod peers;
mod servers;
mod shapes;
#[path = "../../tests/support/mod.rs"]
mod support;

use common::promises::{Outcome, Report};
use common::{Spread, option};
use servers::{Farm, Server};
use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;

/// A row of the contract: two servers that serve the same request.
struct Pair {
    row: &'static str,
    with: Server,
    without: Server,
}

const fn pair(row: &'static str, with: Server, without: Server) -> Pair {
    Pair { row, with, without }
}

const PAIRS: [Pair; 8] = [
    pair("enforce", Server::Enforce, Server::Plain),
    pair("audited", Server::EnforceAudited, Server::PlainLogged),
    pair("auth-lua", Server::Enforce, Server::AuthLua),
    pair("auth-lua-verifying", Server::Enforce, Server::AuthLuaVerifying),
    pair("haproxy", Server::Enforce, Server::HAProxy),
    pair("haproxy-once", Server::Enforce, Server::HAProxyOnce),
    pair("envoy-cached", Server::Enforce, Server::EnvoyCached),
    pair("envoy", Server::Enforce, Server::Envoy),
];

/// Microseconds of CPU time a request, by round, of one server.
type Costs = Vec<f64>;

/// `of_a_start`: after how many rounds both nginx in front are started anew.
fn measure(farm: &mut Farm, rounds: usize, seconds: usize, of_a_start: usize) -> [Costs; Server::COUNT] {
    let mut costs: [Costs; Server::COUNT] = Default::default();
    for round in 0..rounds {
        if round % of_a_start == 0 {
            let new = if round == 0 {
                farm.running()
            } else {
                farm.prove_counted();
                farm.restart();
                Server::OURS.to_vec()
            };
            // Warm: caches filled, code compiled, connections to the backend open.
            for server in new {
                farm.slice(server, 1);
            }
        }
        // Each goes first, last and in between equally often, so that a machine that gets slower wrongs nobody, and
        // the two of a pair of ours stay neighbours.
        let mut order = farm.running();
        if round % 2 == 1 {
            order.swap(0, 1);
            order.swap(2, 3);
        }
        if round / 2 % 2 == 1 {
            order.reverse();
        }
        let places = order.len();
        order.rotate_left(round / 4 * 2 % places);
        for server in order {
            costs[server as usize].extend(farm.slice(server, seconds));
        }
        if std::io::stderr().is_terminal() {
            eprint!("\rround {} of {rounds} ", round + 1);
        }
    }
    costs
}

/// The rows of the contract. Measured next to each other or a few seconds apart, in the same round.
fn ratios(farm: &mut Farm) -> Vec<Outcome> {
    let (rounds, seconds, starts) = (option("ROUNDS", 24), option("SECONDS", 1), option("STARTS", 6));
    let of_a_start = rounds.div_ceil(starts);
    let starts = rounds.div_ceil(of_a_start);
    let costs = measure(farm, rounds, seconds, of_a_start);
    farm.prove_counted();
    println!(
        "\n{rounds} rounds of {seconds} s a server, {starts} starts of nginx, {} connections, all on core {}",
        load::CONNECTIONS,
        load::core()
    );
    let of = |server: Server| &costs[server as usize];
    let outcome = |Pair { row, with, without }: &Pair| {
        if let Some(why) = farm.absent(*without) {
            return Outcome::missing(row, why);
        }
        let ratios = of(*with).iter().zip(of(*without)).map(|(with, without)| with / without);
        let median = |server| Spread::of(of(server).iter().copied()).median;
        let mut absolute = format!("{:.1} / {:.1} us of CPU time a request", median(*with), median(*without));
        if !matches!(without, Server::Plain | Server::PlainLogged) {
            // Where it is above the target, nothing that runs in nginx can reach that.
            let alone = median(Server::Plain) / median(*without);
            write!(absolute, "; plain nginx / this peer {alone:.3}").expect("a string takes all");
        }
        Outcome::measured(row, Spread::of(ratios), absolute)
    };
    PAIRS.iter().map(outcome).collect()
}

fn run() {
    // Without it the tests' harness would find a module of a debug build, which is three times as slow.
    assert!(
        std::env::var_os("TENANTAUTH_SO").is_some(),
        "TENANTAUTH_SO must name the module as it is shipped"
    );
    let mut report = Report::begin("gateway");
    let parts = std::env::var("PARTS").unwrap_or_else(|_| "ratios,load".to_owned());
    let wanted = |part: &str| parts.split(',').any(|name| name.trim() == part);
    let mut farm = Farm::start();
    farm.prove();
    farm.versions().into_iter().for_each(|version| report.version(version));
    let outcomes = if wanted("ratios") {
        ratios(&mut farm)
    } else {
        PAIRS.iter().map(|pair| Outcome::missing(pair.row, "PARTS leaves it out")).collect()
    };
    if wanted("load") {
        farm.without_peers();
        let lines = shapes::measure(&farm);
        common::print_table(&lines);
        println!();
        lines.iter().for_each(|line| report.further(line));
    }
    report.end(&outcomes);
}

fn main() -> ExitCode {
    if !common::is_wanted() {
        println!("measures only as `cargo bench --bench gateway`, or `make bench`");
        return ExitCode::SUCCESS;
    }
    // The message has been printed where it happened, and what was started is stopped by now.
    std::panic::catch_unwind(run).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
