#!/usr/bin/env bash
# tools/format.sh [FILE ...]           formats C and C++ in place, as .clang-format says: all of it, or these files
# tools/format.sh --check [FILE ...]   changes nothing; lists what is not formatted, and fails when there is any
# The clang-format is the one that tools/install.sh test has put into .venv: others break lines elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

check=
[ "${1:-}" != --check ] || { check=1; shift; }
wanted=$(sed -n 's/^clang-format==//p' tools/requirements-test.txt)
found=$(clang-format --version 2>/dev/null | sed -n 's/.*version \([0-9.]*\).*/\1/p' || true)
[ "$found" = "$wanted" ] || { echo "clang-format ${found:-is not there}, $wanted is wanted: tools/install.sh test" >&2; exit 1; }

files=("$@")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(git ls-files -- '*.c' '*.h' '*.cpp' '*.hpp')
if [ -z "$check" ]; then
    printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 40 clang-format -i
    exit
fi
# One line a file: where its first difference is.
unformatted=$(printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 40 clang-format --dry-run 2>&1 |
    sed -n 's/^\([^:]*\):\([0-9]*\):[0-9]*: warning: code should be clang-formatted.*/\1 \2/p' |
    sort -k1,1 -k2,2n | awk '$1 != last { print "not formatted: " $1 ", line " $2; last = $1 }' || true)
[ -z "$unformatted" ] || { echo "$unformatted"; echo "tools/format.sh formats them" >&2; exit 1; }
