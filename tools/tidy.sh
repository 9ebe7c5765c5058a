#!/usr/bin/env bash
# tools/tidy.sh                  clang-tidy over all that ships: library, command, extension, examples. Part of `make check` and `make test`
# tools/tidy.sh --deep ...       with the static analyzer, too: minutes, by hand
# tools/tidy.sh --changed [REF]  over its files that differ from REF, by default from where this branch left main
# tools/tidy.sh FILE ...         over these
# Needs the folder that `make check` builds (or TIDY_BUILD), and the clang-tidy that tools/install.sh test has put into .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
build=${TIDY_BUILD:-build-asan}
[ -e "$build/compile_commands.json" ] || { echo "$build is not there: make check builds it" >&2; exit 1; }

# Its headers of sanitizers are not in its wheel; without the sanitizers the code does not ask for them. Compilers judge their warnings themselves (--werror).
options=(-p "$build" --quiet --extra-arg=-fno-sanitize=all --extra-arg=-Wno-error)
if [ "${1:-}" = --deep ]; then
    shift
    # what it only guesses: texts of the environment, descriptors that were checked elsewhere, SF_FD(), order of fields, functions that C11 made optional
    guesses=(security.ArrayBound unix.StdCLibraryFunctions unix.Errno optin.performance.Padding security.insecureAPI.DeprecatedOrUnsafeBufferHandling)
    options+=("--checks=clang-analyzer-*$(printf ',-clang-analyzer-%s' "${guesses[@]}")")
fi
ours=('src/*.c' 'cli/*.c' 'python/_core/*.c' 'examples/*.c')
if [ "${1:-}" = --changed ]; then
    names=$(git diff --name-only --diff-filter=d "${2:-$(git merge-base main HEAD)}" -- "${ours[@]}")
elif [ $# -gt 0 ]; then
    names=$(printf '%s\n' "$@")
else
    names=$(git ls-files -- "${ours[@]}")
fi
# Not the fuzz targets, which are of another build folder. What no build folder has (examples/embed) is compiled as what lies near it.
files=()
while read -r name; do
    case $name in
    '' | *_fuzz.c) continue ;;
    esac
    [ -e "$name" ] || { echo "$name is not there" >&2; exit 1; }
    files+=("$name")
done <<<"$names"
[ ${#files[@]} -gt 0 ] || { echo "clang-tidy: no files to look at"; exit 0; }
# How many it has looked at, and at how many things that are not ours, is left out; of each by itself, since it writes a line in several pieces.
look='set -o pipefail
    { clang-tidy "$@" 2>&1 >&3 | sed -E "/^\[[0-9]+\/|^[0-9]+ warnings? generated/d" >&2; } 3>&1'
printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 8 bash -c "$look" clang-tidy "${options[@]}" ||
    { echo "clang-tidy: mend these, or write NOLINT with the reason" >&2; exit 1; }
echo "clang-tidy: nothing in ${#files[@]} files"
