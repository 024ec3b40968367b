//! What the gateway costs: CPU time a request of the one nginx worker, with tenantauth and without it, in one run on
//! one machine. Rows 1 and 2 of the targets; `benches/README.md` says how to read it.
//!
//! `ROUNDS` (24) slices of `SECONDS` (1) are measured of each server. Ends with status 1 only where it could not
//! measure: a missed target is a result.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a measurement on the developer's own machine: it may stop where something is missing"
)]

#[path = "../common/mod.rs"]
mod common;
mod load;
mod servers;
#[path = "../../tests/support/mod.rs"]
mod support;

use common::{Comparison, Spread, machine, option, print_comparisons};
use servers::{Farm, Server};
use std::io::IsTerminal;
use std::process::ExitCode;

/// A pair of servers that differ in tenantauth alone.
struct Pair {
    what: &'static str,
    without: Server,
    with: Server,
    target: f64,
}

const PAIRS: [Pair; 2] = [
    Pair {
        what: "enforce / plain, no access log",
        without: Server::Plain,
        with: Server::Enforce,
        target: 1.15,
    },
    Pair {
        what: "enforce with audit log / plain with combined log",
        without: Server::PlainLogged,
        with: Server::EnforceAudited,
        target: 1.15,
    },
];

/// Microseconds of CPU time a request, by round, of one server.
type Costs = Vec<f64>;

fn measure(farm: &Farm, rounds: usize, seconds: usize) -> [Costs; 4] {
    let mut costs: [Costs; 4] = Default::default();
    // Warm: caches filled, code compiled, connections to the backend open.
    for server in Server::ALL {
        farm.slice(server, 1);
    }
    for round in 0..rounds {
        // Each goes first, last and in between equally often, so that a machine that gets slower wrongs nobody.
        let mut order = Server::ALL;
        if round % 2 == 1 {
            order.swap(0, 1);
            order.swap(2, 3);
        }
        if round / 2 % 2 == 1 {
            order.rotate_left(2);
        }
        for server in order {
            costs[server as usize].push(farm.slice(server, seconds));
        }
        if std::io::stderr().is_terminal() {
            eprint!("\rround {} of {rounds} ", round + 1);
        }
    }
    costs
}

fn run() {
    let (rounds, seconds) = (option("ROUNDS", 24), option("SECONDS", 1));
    let farm = Farm::start();
    farm.prove();
    let costs = measure(&farm, rounds, seconds);
    farm.prove_counted();

    let of = |server: Server| &costs[server as usize];
    let comparisons = PAIRS.map(|Pair { what, without, with, target }| {
        let ratios = of(with).iter().zip(of(without)).map(|(with, without)| with / without);
        let absolute = format!(
            "{:.1} / {:.1} us of CPU time a request",
            Spread::of(of(with).iter().copied()).median,
            Spread::of(of(without).iter().copied()).median
        );
        Comparison { what: what.to_owned(), ratio: Spread::of(ratios), target: Some(target), absolute }
    });
    println!(
        "\n{rounds} rounds of {seconds} s a server, {} connections, all on core {}",
        load::CONNECTIONS,
        load::core()
    );
    print_comparisons(&comparisons);
    println!("\nmachine   {}", machine());
    println!("versions  {}", farm.versions());
}

fn main() -> ExitCode {
    if !common::is_wanted() {
        println!("measures only as `cargo bench --bench gateway`, or `make bench`");
        return ExitCode::SUCCESS;
    }
    // The message has been printed where it happened, and what was started is stopped by now.
    std::panic::catch_unwind(run).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
