#!/bin/sh
# Builds the fuzz targets and runs each for some time: `fuzz/run.sh SECONDS [TARGET...]`.
#
# Any Rust does, stable too: these are the flags that `cargo fuzz --sanitizer none` gives, and libFuzzer itself comes
# with the crate libfuzzer-sys. No sanitizer: none of this is unsafe code. The one file that is runs under valgrind (`make memcheck`).
# What is found stays in fuzz/corpus/<target>, which later runs begin with; an input that breaks a property is written to
# fuzz/artifacts/<target>. CORPUS=none keeps nothing.
set -eu
cd "$(dirname "$0")"
seconds=$1
shift
[ $# -gt 0 ] || set -- $(ls fuzz_targets | sed 's/\.rs$//')

host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0"
export RUSTFLAGS
"${CARGO:-cargo}" build --quiet --release --locked --target "$host"

# libFuzzer writes what it finds into the first directory that it is given: never the seeds.
found=corpus fixed=
if [ "${CORPUS:-}" = none ]; then
    # Without a corpus the same inputs each time: what then fails tells of a change, not of luck.
    found=$(mktemp -d) fixed="-seed=1 -runs=5000"
    trap 'rm -rf "$found"' EXIT
fi

for target in "$@"; do
    mkdir -p "artifacts/$target" "$found/$target"
    log=artifacts/$target/log
    # shellcheck disable=SC2086 # words or none
    if "target/$host/release/$target" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 \
        -verbosity=1 -artifact_prefix="artifacts/$target/" $fixed "$found/$target" "seeds/$target" >"$log" 2>&1
    then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        coverage=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -n 1)
        echo "$target: $runs runs in $seconds s at most, $coverage, nothing found"
    else
        tail -n 40 "$log" >&2
        echo "$target: a property does not hold; see fuzz/$log" >&2
        exit 1
    fi
done
