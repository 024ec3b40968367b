//! What all benchmarks measured, as one table: the last step of `make bench`. Measures nothing itself.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a measurement on the developer's own machine: it may stop where something is missing"
)]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use common::promises::{Collected, Outcome, print_outcomes};
use jiff::Timestamp;
use std::fs;
use std::process::Command;

/// Rows whose figures stand in the history of `benches/README.md`, in the order of its columns.
const HISTORY: [&str; 11] = [
    "enforce",
    "audited",
    "auth-lua",
    "auth-lua-verifying",
    "haproxy",
    "envoy-cached",
    "first-sight",
    "decision-same",
    "decision-turns",
    "pause",
    "memory",
];

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

fn rustc() -> String {
    let output =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&output);
    said.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// What was measured, for the history.
fn history(rows: &[Outcome], date: &str) -> String {
    let figures = HISTORY.map(|id| Collected::told(rows, id)).join(" | ");
    format!("| {date} | {} | {} | {figures} | |", env!("CARGO_PKG_VERSION"), common::machine())
}

fn main() {
    if !common::is_wanted() {
        return;
    }
    let mut collected = Collected::read(&["micro", "gateway", "scale"]);
    let rows = collected.rows();
    let now = Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
    println!("\nWhat the project promises, and what was measured ({now})\n");
    print_outcomes(&rows);
    let lines: Vec<[String; 12]> =
        std::mem::take(&mut collected.further).into_iter().filter_map(|line| line.try_into().ok()).collect();
    if !lines.is_empty() {
        println!("\nRequests a second at saturation, and latency at half of that rate\n");
        common::print_table(&lines);
    }
    let mut versions = std::mem::take(&mut collected.versions);
    versions.sort();
    versions.dedup();
    println!("\nmachine   {}", common::machine());
    println!("load      {}", collected.loads.join(", "));
    println!("versions  {}, {}, {}", kernel(), rustc(), versions.join(", "));
    println!("\nfor the history in benches/README.md:\n{}", history(&rows, &now[..10]));
}
