#!/usr/bin/env bash
# All tests: C under ASan and UBSan, TSan where threads meet, the fuzz targets for some seconds each, every fixture over
# files and over a real S3 server, the Python package. Called by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
fuzz_seconds=${FUZZ_SECONDS:-5}
say() { printf '\n== %s\n' "$*"; }

say "includes"
python tools/check_includes.py

say "C, address and undefined behaviour sanitizers"
[ -e build-asan/build.ninja ] || meson setup build-asan -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
meson compile -C build-asan
meson test -C build-asan --print-errorlogs

say "C, thread sanitizer"
[ -e build-tsan/build.ninja ] || meson setup build-tsan -Db_sanitize=thread -Db_lundef=false >/dev/null
meson compile -C build-tsan
meson test -C build-tsan --print-errorlogs --suite threads

say "every fixture and the store operations over a real S3 server"
python tests/support/s3_server.py --fixtures tests/fixtures -- \
    env SF_FIXTURES="$PWD/tests/fixtures" SF_SNAPSHOT_URL='s3://bucket/golden/%s' SF_DATABASE_URL='s3://%s/db' \
    build-asan/tests/conformance/conformance_test
python tests/support/s3_server.py -- build-asan/tests/unit/store/s3_test

say "fuzz targets, $fuzz_seconds s each"
[ -e build-fuzz/build.ninja ] || CC=clang meson setup build-fuzz -Dfuzz=true -Dtests=false -Dcli=false -Dexamples=false \
    -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
meson compile -C build-fuzz
tools/fuzz.sh "$fuzz_seconds"

say "Python"
[ -e build-python/build.ninja ] || meson setup build-python -Dpython=true -Dtests=false >/dev/null
meson compile -C build-python
python -m pytest -q tests/python
