#!/usr/bin/env bash
# Which lines and branches of src/ the tests reach, by folder and by file. After `tools/install.sh test`:
#     tools/coverage.sh          builds into build-cov, runs the C tests and the Python tests on it, prints the tables
#     tools/coverage.sh c        the same without the Python tests
#     tools/coverage.sh report   only the tables, of what was run before
# Needs gcc's own gcov and nothing else. A test that fails is said and does not end it: what was reached, was reached.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY "${!AWS_@}" "${!S3_@}"

if [ "${1:-}" != report ]; then
    [ -e build-cov/build.ninja ] || CC=gcc meson setup build-cov --buildtype=debug -Db_coverage=true -Dpython=true
    meson compile -C build-cov
    find build-cov -name '*.gcda' -delete
    failed=()
    run() { "$@" || failed+=("$*"); }
    run meson test -C build-cov --no-rebuild --timeout-multiplier 10
    run tools/test_over_s3.sh build-cov
    [ "${1:-}" = c ] || run env PYTHONPATH="$PWD/build-cov/python" SF_SHARDY="$PWD/build-cov/cli/shardy" \
        SF_TEST_BUILD=build-cov python -m pytest -q tests/python
    for what in "${failed[@]+"${failed[@]}"}"; do
        echo "failed: $what" >&2
    done
fi
python tools/coverage_table.py build-cov
