//! What both benchmarks share: the middle of many measurements, tables, options, the machine.
#![allow(dead_code, reason = "each benchmark needs another part of it")]

pub(crate) mod typical;

use std::fs;

/// The middle of several measurements of the same thing, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// Half of the measurements are below it.
    pub(crate) median: f64,
    /// A quarter of the measurements are below it.
    pub(crate) low: f64,
    /// A quarter of the measurements are above it.
    pub(crate) high: f64,
}

impl Spread {
    /// Sums up at least one measurement.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            // Between two measurements where there is none in the place itself.
            let (place, rest) = ((values.len() - 1) * quarter / 4, (values.len() - 1) * quarter % 4);
            let next = values[(place + 1).min(values.len() - 1)];
            values[place] + (next - values[place]) * [0.0, 0.25, 0.5, 0.75][rest]
        };
        Self { median: at(2), low: at(1), high: at(3) }
    }
}

/// One comparison with what the contract promises of it.
pub(crate) struct Comparison {
    /// What was compared with what.
    pub(crate) what: String,
    /// How many times the cost of the second it was.
    pub(crate) ratio: Spread,
    /// The most that the ratio may be; absent where nothing is promised.
    pub(crate) target: Option<f64>,
    /// What was measured, in words: for information.
    pub(crate) absolute: String,
}

/// Prints comparisons with their verdicts.
pub(crate) fn print_comparisons(comparisons: &[Comparison]) {
    let heads = ["what", "ratio", "middle half", "target", "", "absolute"];
    let mut lines = vec![heads.map(str::to_owned)];
    for Comparison { what, ratio, target, absolute } in comparisons {
        let verdict = target.map_or("", |target| if ratio.median <= target { "pass" } else { "MISSED" });
        lines.push([
            what.clone(),
            format!("{:.3}", ratio.median),
            format!("{:.3} .. {:.3}", ratio.low, ratio.high),
            target.map_or_else(|| "-".to_owned(), |target| format!("{target:.2}")),
            verdict.to_owned(),
            absolute.clone(),
        ]);
    }
    print_table(&lines);
}

/// Prints lines of cells with every column as wide as its widest cell.
pub(crate) fn print_table<const N: usize>(lines: &[[String; N]]) {
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    for line in lines {
        let cells = line.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// A number from the environment, or the default.
///
/// # Panics
/// With the variable's name, where it holds something else or zero.
pub(crate) fn option(name: &str, default: usize) -> usize {
    let Some(text) = std::env::var_os(name) else { return default };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.unwrap_or_else(|| panic!("`{name}` must be a number above zero, got `{}`", text.display()))
}

/// The processor and how many of them there are.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("{model}, {} cores, {}", cores(), std::env::consts::ARCH)
}

/// How many processors this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether cargo runs this as a benchmark, and not as one more test.
pub(crate) fn is_wanted() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
