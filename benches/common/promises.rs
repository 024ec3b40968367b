//! What the project promises of its speed and memory (section 12 of its contract), and how a benchmark hands in what
//! it measured of it: as lines of JSON under `target/bench`, of which the bench `table` makes one table.

use super::{Spread, print_table};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// One row of the table.
pub(crate) struct Promise {
    /// How benchmarks call it.
    pub(crate) id: &'static str,
    /// What is measured, in words.
    pub(crate) what: &'static str,
    /// The most that is promised, in the unit; absent where the row is for information.
    pub(crate) at_most: Option<f64>,
    /// The same as the contract writes it.
    pub(crate) target: &'static str,
    /// Of the measured number; empty for a ratio.
    pub(crate) unit: &'static str,
}

const fn promise(
    id: &'static str,
    what: &'static str,
    at_most: f64,
    target: &'static str,
    unit: &'static str,
) -> Promise {
    Promise { id, what, at_most: Some(at_most), target, unit }
}

/// All rows, in the order of the contract.
pub(crate) const PROMISES: [Promise; 21] = [
    promise("enforce", "enforce / plain nginx, no access log", 1.15, "1.15", ""),
    promise("audited", "enforce with audit log / plain nginx with combined log", 1.15, "1.15", ""),
    promise("auth-lua", "enforce / auth.lua, lua-resty-jwt that only parses", 0.25, "1/4", ""),
    promise("auth-lua-verifying", "enforce / auth.lua, lua-resty-jwt that verifies", 1.0 / 30.0, "1/30", ""),
    promise(
        "haproxy",
        "enforce / HAProxy, jwt_verify, claims read as its manual shows",
        1.0 / 3.0,
        "1/3",
        "",
    ),
    Promise {
        id: "haproxy-once",
        what: "enforce / HAProxy, jwt_verify, claims decoded once by hand",
        at_most: None,
        target: "-",
        unit: "",
    },
    promise("envoy-cached", "enforce / Envoy, jwt_authn with token cache, rbac", 1.0 / 3.0, "1/3", ""),
    Promise {
        id: "envoy",
        what: "enforce / Envoy, jwt_authn without token cache, rbac",
        at_most: None,
        target: "-",
        unit: "",
    },
    promise("first-sight", "first sight of a token / one raw RS256 verification", 2.0, "2.0", ""),
    promise(
        "decision-same",
        "decision under 100 000 grants / under 10, the same question again",
        2.0,
        "2.0",
        "",
    ),
    promise(
        "decision-turns",
        "decision under 100 000 grants / under 10, 1024 questions in turns",
        2.0,
        "2.0",
        "",
    ),
    promise("decision-owners", "the same of 500 owners, 8 questions in turns", 2.0, "2.0", ""),
    promise(
        "worst-one",
        "decision under the worst that an owner may write / under 10 rules of its kinds, 1 tenant",
        2.0,
        "2.0",
        "",
    ),
    promise("worst-many", "the same for 100 tenants", 2.0, "2.0", ""),
    Promise {
        id: "worst-document",
        what: "CPU time of judging the worst document of an owner",
        at_most: None,
        target: "-",
        unit: "ms",
    },
    promise(
        "worst-change",
        "an owner's change in force while 100 others bring the worst documents",
        5.0,
        "5 s",
        "s",
    ),
    promise("worst-revocation", "a revocation in force meanwhile", 5.0, "5 s", "s"),
    promise("worst-pause", "what the event loop did at once meanwhile", 10.0, "10 ms", "ms"),
    promise("pause", "longest pause of the event loop while that policy is reloaded", 10.0, "10 ms", "ms"),
    Promise {
        id: "pause-idle",
        what: "the same while nothing is reloaded: the machine's own noise",
        at_most: None,
        target: "-",
        unit: "ms",
    },
    promise("memory", "memory that a worker adds for that policy", 64.0, "64 MiB", "MiB"),
];

/// What came of measuring one row.
pub(crate) struct Outcome {
    id: &'static str,
    measured: Result<(Spread, String), String>,
}

impl Outcome {
    /// The row was measured; `absolute` says of what the ratio is made, or whatever else explains it.
    pub(crate) fn measured(id: &'static str, spread: Spread, absolute: impl Into<String>) -> Self {
        Self { id, measured: Ok((spread, absolute.into())) }
    }

    /// The row could not be measured.
    pub(crate) fn missing(id: &'static str, why: impl Into<String>) -> Self {
        Self { id, measured: Err(why.into()) }
    }

    fn as_json(&self) -> Value {
        match &self.measured {
            Ok((Spread { median, low, high }, absolute)) => {
                json!({"row": self.id, "median": median, "low": low, "high": high, "absolute": absolute})
            }
            Err(why) => json!({"row": self.id, "missing": why}),
        }
    }

    fn from_json(line: &Value) -> Option<Self> {
        let id = PROMISES.iter().find(|promise| line["row"] == promise.id)?.id;
        if let Some(why) = line["missing"].as_str() {
            return Some(Self::missing(id, why));
        }
        let number = |name: &str| line[name].as_f64();
        let spread = Spread { median: number("median")?, low: number("low")?, high: number("high")? };
        Some(Self::measured(id, spread, line["absolute"].as_str()?))
    }

    fn cells(&self) -> [String; 6] {
        let promise = PROMISES.iter().find(|promise| promise.id == self.id).expect("a row of the contract");
        let what = promise.what.to_owned();
        let target = promise.target.to_owned();
        let told = |value: f64| match promise.unit {
            // Of small ratios the third digit after the point is the second that says something.
            "" if value < 0.1 => format!("{value:.4}"),
            "" => format!("{value:.3}"),
            unit => format!("{value:.1} {unit}"),
        };
        match &self.measured {
            Ok((spread, absolute)) => {
                let verdict =
                    promise.at_most.map_or("", |most| if spread.median <= most { "pass" } else { "MISSED" });
                let range = format!("{} .. {}", told(spread.low), told(spread.high));
                [what, told(spread.median), range, target, verdict.to_owned(), absolute.clone()]
            }
            Err(why) => [what, "-".to_owned(), String::new(), target, "not measured".to_owned(), why.clone()],
        }
    }
}

/// Prints outcomes with their verdicts.
pub(crate) fn print_outcomes(outcomes: &[Outcome]) {
    let heads = ["what", "measured", "middle half", "at most", "", "of which"].map(str::to_owned);
    let lines: Vec<_> = std::iter::once(heads).chain(outcomes.iter().map(Outcome::cells)).collect();
    print_table(&lines);
}

/// What one run of a benchmark hands in.
pub(crate) struct Report {
    bench: &'static str,
    lines: Vec<Value>,
}

impl Report {
    /// To be called before anything is measured: notes what else the machine does.
    pub(crate) fn begin(bench: &'static str) -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        Self { bench, lines: vec![json!({"load_average": load})] }
    }

    /// Names something that took part, with its version: `nginx 1.22.1`.
    pub(crate) fn version(&mut self, what: impl Into<String>) {
        self.lines.push(json!({"version": what.into()}));
    }

    /// Adds a line of a further table, which is printed below the first.
    pub(crate) fn further(&mut self, cells: &[String]) {
        self.lines.push(json!({"further": cells}));
    }

    /// Prints the rows, and writes everything where the table finds it.
    pub(crate) fn end(mut self, outcomes: &[Outcome]) {
        print_outcomes(outcomes);
        self.lines.extend(outcomes.iter().map(Outcome::as_json));
        let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let directory = directory();
        fs::create_dir_all(&directory).expect("a directory below that of the build");
        fs::write(directory.join(format!("{}.jsonl", self.bench)), text).expect("a file of our own");
    }
}

/// What was handed in by all benchmarks.
#[derive(Default)]
pub(crate) struct Collected {
    /// By row; several of one row only where something is wrong.
    pub(crate) outcomes: Vec<Outcome>,
    /// What took part.
    pub(crate) versions: Vec<String>,
    /// Benchmark and load average before it.
    pub(crate) loads: Vec<String>,
    /// Lines of the further table.
    pub(crate) further: Vec<Vec<String>>,
}

impl Collected {
    /// Reads what `benches` have left; of one that left nothing, its rows are absent.
    pub(crate) fn read(benches: &[&str]) -> Self {
        let mut all = Self::default();
        for bench in benches {
            let text = fs::read_to_string(directory().join(format!("{bench}.jsonl"))).unwrap_or_default();
            for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                let word = |name: &str| line[name].as_str().map(str::to_owned);
                all.loads.extend(word("load_average").map(|load| format!("{load} before {bench}")));
                all.versions.extend(word("version"));
                all.further.extend(line["further"].as_array().map(|cells| {
                    cells.iter().map(|cell| cell.as_str().unwrap_or_default().to_owned()).collect()
                }));
                all.outcomes.extend(Outcome::from_json(&line));
            }
        }
        all
    }

    /// Every row of the contract in its order; one that nobody handed in is missing.
    pub(crate) fn rows(&mut self) -> Vec<Outcome> {
        let take = |promise: &Promise| {
            let place = self.outcomes.iter().position(|outcome| outcome.id == promise.id);
            let none = || Outcome::missing(promise.id, "its benchmark did not run to the end: see above");
            place.map_or_else(none, |place| self.outcomes.swap_remove(place))
        };
        PROMISES.iter().map(take).collect()
    }

    /// What was measured of a row as the history writes it: `1.123 (25.8 / 23.0 µs)`.
    pub(crate) fn told(rows: &[Outcome], id: &str) -> String {
        let Some(row) = rows.iter().find(|row| row.id == id) else { return String::new() };
        let [_, measured, .., absolute] = row.cells();
        let sides = absolute.split_once(" us").filter(|_| row.measured.is_ok());
        sides.map_or_else(|| measured.clone(), |(sides, _)| format!("{measured} ({sides} µs)"))
    }
}

/// Where the results are.
fn directory() -> PathBuf {
    build_directory().join("bench")
}

/// `target`, wherever cargo builds.
pub(crate) fn build_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("a path of our own");
    // target/<profile>/deps/<bench>
    executable.ancestors().nth(3).expect("a directory of the build").to_path_buf()
}
