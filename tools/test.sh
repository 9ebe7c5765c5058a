#!/usr/bin/env bash
# All tests: C under ASan and UBSan, then Python. Called by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
meson=.venv/bin/meson
python3 tools/check_includes.py
[ -e build-asan/build.ninja ] || $meson setup build-asan -Db_sanitize=address,undefined -Db_lundef=false
$meson compile -C build-asan
$meson test -C build-asan --print-errorlogs
