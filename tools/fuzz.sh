#!/usr/bin/env bash
# Runs every fuzz target for some seconds: tools/fuzz.sh SECONDS [TARGET ...]
# Needs the folder that this makes:
#   CC=clang meson setup build-fuzz -Dfuzz=true -Dtests=false -Dcli=false -Dexamples=false \
#       -Db_sanitize=address,undefined -Db_lundef=false
# Seeds come from the fixtures, and from tests/fuzz/regressions/TARGET; what the fuzzer finds stays in
# build-fuzz/corpus/TARGET and is where the next run begins. A crash leaves its input in build-fuzz/crashes/TARGET and
# fails the run. Another build folder: FUZZ_BUILD. As many run at a time as there are cores: FUZZ_WORKERS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

[ $# -ge 1 ] || { echo "usage: tools/fuzz.sh SECONDS [TARGET ...]" >&2; exit 2; }
seconds=$1
shift
build=${FUZZ_BUILD:-build-fuzz}
python tests/fuzz/make_corpus.py "$build/seeds" >/dev/null

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for program in "$build"/tests/fuzz/*_fuzz; do
        name=$(basename "$program")
        targets+=("${name%_fuzz}")
    done
    # Each decoder has one beside it: none may have been left out of the build.
    sources=$(find src -name '*_fuzz.c' | wc -l)
    [ ${#targets[@]} -eq "$sources" ] || { echo "$build has ${#targets[@]} of $sources fuzz targets" >&2; exit 1; }
fi

# One target: a line that says how it went, and its log when it failed.
fuzz() {
    local target=$1 log=$build/fuzz-$1.log verdict=ok count
    mkdir -p "$build/corpus/$target" "$build/seeds/$target" "$build/crashes/$target"
    local folders=("$build/corpus/$target" "$build/seeds/$target")
    [ -d "tests/fuzz/regressions/$target" ] && folders+=("tests/fuzz/regressions/$target")
    # An input of a second is a bug here, but not under sanitizers on a busy machine.
    if ! "$build/tests/fuzz/${target}_fuzz" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 \
        -print_final_stats=1 -artifact_prefix="$build/crashes/$target/" "${folders[@]}" >"$log" 2>&1; then
        verdict=FAILED
        tail -n 40 "$log"
    fi
    count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-18s %-6s %12s executions, %s seeds\n' "$target" "$verdict" "${count:-no}" \
        "$(find "$build/seeds/$target" -type f | wc -l)"
    [ "$verdict" = ok ]
}

# As many at a time as there are cores, each with its output in one piece.
export -f fuzz
export build seconds
if printf '%s\n' "${targets[@]}" | xargs -P "${FUZZ_WORKERS:-$(nproc)}" -I{} bash -c 'out=$(fuzz "$1") && rc=0 || rc=1; echo "$out"; exit $rc' - {}; then
    echo "${#targets[@]} passed, 0 failed"
else
    echo "a target failed" >&2
    exit 1
fi
