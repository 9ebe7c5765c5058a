#!/usr/bin/env bash
# All tests: C under ASan and UBSan, TSan where threads meet, the fuzz targets for some seconds each, every fixture over
# files and over a real S3 server, the Python package. Called by `make test`. Stops at the first stage that fails;
# nothing is left out when a part is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
fuzz_seconds=${FUZZ_SECONDS:-5}
# What the machine is set up with must not decide how tests end.
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY "${!AWS_@}" "${!S3_@}"

say() { printf '\n== %s (%s s so far)\n' "$*" "$SECONDS"; }

# Meson and the compilers are heard when they fail or warn, and in no other case.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log"
        rm "$log"
        echo "failed: $*" >&2
        return 1
    fi
    grep -A4 ': warning: ' "$log" || true
    rm "$log"
}

# build FOLDER OPTION ...
build() {
    local folder=$1
    shift
    [ -e "$folder/build.ninja" ] || quietly meson setup "$folder" "$@"
    quietly meson compile -C "$folder"
}

say "includes, names in pages and comments"
python tools/check_includes.py
python tools/check_docs.py

say "types of the Python package"
python -m mypy --no-error-summary python/shardyfusion
MYPYPATH=python python -m mypy --no-error-summary examples/demo.py tests/python/typed_program.py

say "C, address and undefined behaviour sanitizers"
build build-asan -Db_sanitize=address,undefined -Db_lundef=false
meson test -C build-asan --no-rebuild --print-errorlogs --timeout-multiplier 4 # for busy machines; nothing is timed

say "C, thread sanitizer"
build build-tsan -Db_sanitize=thread -Db_lundef=false -Dcli=false -Dexamples=false
TSAN_OPTIONS="suppressions=$PWD/tests/support/tsan.supp" meson test -C build-tsan --no-rebuild --print-errorlogs --timeout-multiplier 4 \
    --suite threads

say "C, over a real S3 server, and through a network that fails"
tools/test_over_s3.sh build-asan

say "fuzz targets, $fuzz_seconds s each"
CC=clang build build-fuzz -Dfuzz=true -Dtests=false -Dcli=false -Dexamples=false -Db_sanitize=address,undefined \
    -Db_lundef=false
tools/fuzz.sh "$fuzz_seconds"

say "Python"
build build-python -Dpython=true -Dtests=false
tools/test_installed.sh build-python
PYTHONPATH="$PWD/build-python/python" python -m pytest -q tests/python
