#!/usr/bin/env bash
# tools/test.sh         all tests: C under ASan and UBSan, TSan where threads meet, the fuzz targets for some seconds each,
#                       every fixture over files and over a real S3 server, the Python package, some of it over sanitizers.
#                       `make test` calls it.
# tools/test.sh quick   what tells most in three minutes. `make check` calls it.
# Stops at the first stage that fails; nothing is left out when a part is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
fuzz_seconds=${FUZZ_SECONDS:-5}
workers=${TEST_WORKERS:-$((2 * $(nproc)))} # of the Python tests, which wait for half of their time
# What the machine is set up with must not decide how tests end.
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY "${!AWS_@}" "${!S3_@}"

say() { printf '\n== %s (%s s so far)\n' "$*" "$SECONDS"; }

# Meson and the compilers are heard when they fail, and in no other case: a warning is a failure.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log"
        rm "$log"
        echo "failed: $*" >&2
        return 1
    fi
    rm "$log"
}

# build FOLDER OPTION ...
build() {
    local folder=$1
    shift
    [ -e "$folder/build.ninja" ] || quietly meson setup "$folder" --werror "$@"
    quietly meson compile -C "$folder"
}

# Runs the command beside what comes next, and keeps what it says. beside_ends() waits for it, tells that, and fails as it did.
beside_pid=
beside_log=
beside_begins() {
    beside_log=$(mktemp)
    set -m # a process group of its own, so that what it has started ends with it
    "$@" >"$beside_log" 2>&1 </dev/null &
    set +m
    beside_pid=$!
}
beside_ends() {
    local rc=0
    wait "$beside_pid" || rc=$?
    beside_pid=
    cat "$beside_log"
    rm "$beside_log"
    return $rc
}
# Whatever fails ends what runs beside it.
trap '[ -z "$beside_pid" ] || { kill -- "-$beside_pid"; wait "$beside_pid"; rm -f "$beside_log"; } 2>/dev/null || true' EXIT

names() {
    tools/format.sh --check
    python tools/check_includes.py
    python tools/check_docs.py
    ruff check --quiet
}

types() {
    python tools/check_types.py
}

# What python/shardyfusion/_native.pyi tells of the extension, against the extension itself. It is built by then.
stubs() {
    PYTHONPATH="$PWD/build-python/python" python -m mypy.stubtest shardyfusion._native --concise --ignore-disjoint-bases \
        --allowlist tools/stubtest_allowlist.txt
}

# c_tests FOLDER OPTION ...: more time for each, since the machine may be busy; nothing is timed
c_tests() {
    meson test -C "$1" --no-rebuild --print-errorlogs --timeout-multiplier 4 "${@:2}"
}

# Whole files go to a worker: what a file starts for its tests, it starts once.
python_tests() {
    PYTHONPATH="$PWD/build-python/python" python -m pytest -q -n "$workers" --dist loadfile tests/python "$@"
}

say "includes, names in pages and comments, what ruff finds"
names

say "types: of the package, of README and the examples"
types

say "C, address and undefined behaviour sanitizers; what clang-tidy finds"
build build-asan -Dpython=true -Db_sanitize=address,undefined -Db_lundef=false
beside_begins tools/tidy.sh # half a minute of processor time; some tests wait
if [ "${1:-all}" = quick ]; then
    c_tests build-asan --no-suite slow
    beside_ends
    say "Python, what is quick"
    build build-python -Dpython=true -Dtests=false
    stubs
    python_tests -m "not slow"
    exit
fi
c_tests build-asan
beside_ends

say "C, thread sanitizer"
build build-tsan -Db_sanitize=thread -Db_lundef=false -Dcli=false -Dexamples=false
TSAN_OPTIONS="suppressions=$PWD/tests/support/tsan.supp" c_tests build-tsan --suite threads

say "fuzz targets, $fuzz_seconds s each; C over a real S3 server, and through a network that fails"
CC=clang build build-fuzz -Dfuzz=true -Dtests=false -Dcli=false -Dexamples=false -Db_sanitize=address,undefined \
    -Db_lundef=false
beside_begins tools/test_over_s3.sh build-asan # it waits, mostly
tools/fuzz.sh "$fuzz_seconds"
beside_ends
python tools/check_clang.py build-asan # of what the fuzz targets do not build, the extension included

say "instructions of the hottest look-ups, what is installed, the documentation, Python"
build build-python -Dpython=true -Dtests=false
stubs
beside_begins python tools/check_instructions.py build-python
tools/test_installed.sh build-python
beside_ends
beside_begins tools/wheel_libs.sh "$(uname -m)" # for the test of the wheel: minutes, where they are not there
PYTHONPATH="$PWD/build-python/python" python -m sphinx -q -W --keep-going docs build-docs
beside_ends
python_tests

say "Python over address and undefined behaviour sanitizers, what touches the extension most"
tools/test_python_asan.sh quick
