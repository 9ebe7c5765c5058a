#!/usr/bin/env bash
# The C tests that need a server around them, out of one build folder: tools/test_over_s3.sh BUILD. All of them, whatever
# fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=$1
failed=()
run() {
    printf '\n-- %s\n' "${*: -1}"
    "$@" || failed+=("${*: -1}")
}

# every fixture
run python tests/support/s3_server.py --fixtures tests/fixtures -- \
    env SF_FIXTURES="$PWD/tests/fixtures" SF_SNAPSHOT_URL='s3://bucket/golden/%s' SF_DATABASE_URL='s3://%s/db' \
    "$build/tests/conformance/conformance_test"
# store operations, over TLS and through a network that fails
run python tests/support/s3_server.py --tls -- "$build/tests/unit/store/s3_test"
run python tests/support/fault_server.py -- "$build/tests/unit/store/s3_front_test"
# publishing: who wins, what is refused, a writer that stops at any request, what clean-up finds
for name in publish gate crash uploads; do
    run python tests/support/s3_server.py --fixtures tests/fixtures -- env SF_WRITER_PREFIX=s3://bucket/writer \
        "$build/tests/unit/writer/writer_${name}_test"
done
# clean-up goes by the server's clock
run python tests/support/fault_server.py --clock=-7200 -- "$build/tests/unit/writer/writer_cleanup_test"
# manifests in a real PostgreSQL
run python tests/support/postgres_server.py "$build/tests/unit/postgres/postgres_store_test"
for what in "${failed[@]+"${failed[@]}"}"; do
    echo "failed: $what" >&2
done
[ ${#failed[@]} -eq 0 ]
