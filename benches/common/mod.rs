//! What the benchmarks share: the middle of many measurements, tables, options, the machine.
#![allow(dead_code, reason = "each benchmark needs another part of it")]

pub(crate) mod promises;
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

    /// What was measured once.
    pub(crate) const fn exactly(value: f64) -> Self {
        Self { median: value, low: value, high: value }
    }
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
