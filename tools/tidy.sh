#!/usr/bin/env bash
# tools/tidy.sh                  clang-tidy over all that ships: library, command, extension, examples
# tools/tidy.sh --changed [REF]  over its files that differ from REF, by default from where this branch left main
# tools/tidy.sh FILE ...         over these
# Needs the folder that `make check` builds (or TIDY_BUILD), and the clang-tidy that tools/install.sh test has put into .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
export build=${TIDY_BUILD:-build-asan}
[ -e "$build/compile_commands.json" ] || { echo "$build is not there: make check builds it" >&2; exit 1; }

ours=('src/*.c' 'cli/*.c' 'python/_core/*.c' 'examples/*.c')
if [ "${1:-}" = --changed ]; then
    mapfile -t files < <(git diff --name-only --diff-filter=d "${2:-$(git merge-base main HEAD)}" -- "${ours[@]}")
elif [ $# -gt 0 ]; then
    files=("$@")
else
    mapfile -t files < <(git ls-files -- "${ours[@]}")
fi
tidy() {
    grep -qF "\"../$1\"" "$build/compile_commands.json" || exit 0 # a fuzz target, or of another build folder
    said=$(clang-tidy -p "$build" --quiet "$1" 2>&1) || { echo "$said"; exit 1; }
}
export -f tidy
[ ${#files[@]} -eq 0 ] || printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -I{} bash -c 'tidy "$1"' - {} ||
    { echo "clang-tidy: mend these, or write NOLINT with the reason" >&2; exit 1; }
