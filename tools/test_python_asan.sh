#!/usr/bin/env bash
# tools/test_python_asan.sh          all Python tests over an extension with address and undefined behaviour sanitizers, by hand
# tools/test_python_asan.sh quick    what touches the extension most: part of `make test`
# tools/test_python_asan.sh FILE ... these
# Python's own memory is the C library's there (PYTHONMALLOC), so that what is read of an object that is gone is seen. Leaks are not looked
# for: the interpreter keeps what it has. Needs build-asan, as `make test` builds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
workers=${TEST_WORKERS:-$(nproc)}
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY "${!AWS_@}" "${!S3_@}"

tests=("$@")
case "${1:-all}" in
all) tests=(tests/python) ;;
quick)
    tests=()
    for name in arrow_rows bad_rows beside faults lookups native pinned prefetch reentrancy run_registry sync views writer; do
        tests+=("tests/python/test_$name.py")
    done
    ;;
esac
# One that was made before the tests wanted the extension there:
[ -e build-asan/python/package.stamp ] || { meson configure build-asan -Dpython=true && meson compile -C build-asan; }
# The C++ runtime comes with the sanitizers: else they know nothing of what a peer in C++ throws, and end the process at that.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    PYTHONMALLOC=malloc PYTHONPATH="$PWD/build-asan/python" SF_TEST_BUILD=build-asan SF_SHARDY="$PWD/build-asan/cli/shardy" \
    python -m pytest -q -n "$workers" --dist loadfile "${tests[@]}"
