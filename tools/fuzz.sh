#!/usr/bin/env bash
# Run every fuzz target of build-fuzz for some seconds, from seeds cut out of the fixtures and from what was found before
# (tests/fuzz/regressions/TARGET/): tools/fuzz.sh SECONDS [TARGET ...]
# One line a target. The first finding of each is printed and kept in build-fuzz/findings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=$1
shift
targets=("$@")
if [ "${#targets[@]}" = 0 ]; then
    # Each decoder has one beside it: none may have been left out of the build.
    mapfile -t targets < <(find src -name '*_fuzz.c' -printf '%f\n' | sed 's/_fuzz\.c$//' | sort)
fi
corpus=build-fuzz/corpus found=build-fuzz/findings
rm -rf "$corpus"
mkdir -p "$corpus" "$found"
.venv/bin/python tests/fuzz/make_corpus.py "$corpus" >/dev/null

fuzz_one() {
    local target=$1 log=build-fuzz/$1.log dirs=("$corpus/$1") runs features
    mkdir -p "$corpus/$target"
    [ -d "tests/fuzz/regressions/$target" ] && dirs+=("tests/fuzz/regressions/$target")
    # more than any input may take, so that a lying length shows: see src/base/limits.h
    if ! build-fuzz/tests/fuzz/"$target"_fuzz "${dirs[@]}" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 \
        -max_len=65536 -print_final_stats=1 -artifact_prefix="$found/$target-" >"$log" 2>&1; then
        echo "$target: FAILED"
        grep -v '^#' "$log" | tail -60
        return 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    features=$(sed -n 's/^#.*DONE.* ft: \([0-9]*\).*/\1/p' "$log")
    printf '%-18s %10s executions, %6s features\n' "$target" "$runs" "$features"
}
export -f fuzz_one
export seconds corpus found
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz_one {}'
