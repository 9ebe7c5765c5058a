#!/usr/bin/env bash
# Programs in C, C++, Go and Rust, built from nothing but installed files, read a snapshot; the headers are clean as C99, C11,
# C17, C++11, C++17 and C++20; the libraries show no name but the public ones; the ABI is that of the last release, or one that its programs
# run with.
#     tools/test_installed.sh BUILD [--record-abi]
# With --record-abi the ABI becomes that of the last release, for whoever releases.
# A language whose compiler is not on the machine is left out, and said to be.
set -euo pipefail
build=$1
root=$PWD
work=$root/$build/installed # not a new one each time: Go remembers where libraries were
rm -rf "$work"
mkdir "$work"
export PATH="$root/.venv/bin:$PATH:/usr/local/go/bin:$HOME/.cargo/bin"
prefix=$work$(meson introspect "$build" --buildoptions | python3 -c 'import json, sys
print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')

fail() { echo "installed files: $*" >&2; exit 1; }
has() { command -v "$1" >/dev/null || { echo "left out, since there is no $1 on this machine: $2"; return 1; }; }

meson install -C "$build" --no-rebuild --destdir "$work" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
pc=$(find "$work" -name shardyfusion.pc)
[ -n "$pc" ] || fail "there is no shardyfusion.pc"
lib=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH=$(dirname "$pc") PKG_CONFIG_SYSROOT_DIR=$work LD_LIBRARY_PATH=$lib

# headers
for header in "$prefix"/include/shardyfusion/*.h; do
    printf '#include <shardyfusion/%s>\nint main(void) { return 0; }\n' "$(basename "$header")" >"$work/h.c"
    for std in c99 c11 c17; do
        cc -I"$prefix/include" -std=$std -Wall -Wextra -pedantic -Werror -Wstrict-prototypes -fsyntax-only "$work/h.c" ||
            fail "$(basename "$header") is not clean as $std"
    done
    for std in c++11 c++17 c++20; do
        c++ -I"$prefix/include" -std=$std -Wall -Wextra -pedantic -Werror -fsyntax-only -x c++ "$work/h.c" ||
            fail "$(basename "$header") is not clean as $std"
    done
done

# names
strays=$({ nm -D --defined-only "$lib/libshardyfusion.so" | awk '$2 != "A" {print $3}' | grep -v '^sf_[^_]'
    nm -g --defined-only "$lib/libshardyfusion.a" 2>/dev/null | awk 'NF == 3 {print $3}' | grep -v '^sf_'; } || true)
[ -z "$strays" ] || fail "names that are not ours: $strays"

# What the programs read: a key that is there, and one that is not.
there=42 absent=100000 value="value 42"
snapshot=$work/snapshot
{ echo k,v; for i in $(seq 1 500); do echo "$i,value $i"; done; } >"$work/rows.csv"
"$build/cli/shardy" --current-url "file://$snapshot/_CURRENT" publish "$work/rows.csv" --num-dbs 4 --key k --value v >/dev/null 2>"$work/log" ||
    { cat "$work/log"; fail "there is no snapshot to read"; }
look_up() { # PROGRAM
    "$1" "$snapshot" "$there" "$absent" >"$work/out" || fail "$1 failed"
    printf '%s = %s\n%s = (absent)\n' "$there" "$value" "$absent" | cmp - "$work/out" || fail "$1 read something else"
}

# C, shared and static
cc -O1 -Wall -Werror -o "$work/service" examples/embed/service.c $(pkg-config --cflags --libs shardyfusion)
cc -O1 -Wall -Werror -o "$work/static" examples/embed/service.c $(pkg-config --cflags --libs shardyfusion-static)
! ldd "$work/static" | grep -q libshardyfusion || fail "the static program needs libshardyfusion.so"
for program in service static; do
    printf '%s\n%s\nx\n' "$there" "$absent" | "$work/$program" "$snapshot" >"$work/out" 2>/dev/null || fail "$program failed"
    printf 'OK %s bytes\nABSENT\nERR not an integer\n' "${#value}" | cmp - "$work/out" || fail "$program read something else"
done

c++ -std=c++17 -O1 -Wall -Wextra -pedantic -Werror -o "$work/lookup" examples/embed/cpp/lookup.cpp \
    $(pkg-config --cflags --libs shardyfusion)
look_up "$work/lookup"

if has cmake "a program built by CMake"; then
    mkdir "$work/cmake"
    cat >"$work/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.18)
project(lookup CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(shardyfusion 0.1 REQUIRED)
add_executable(lookup $root/examples/embed/cpp/lookup.cpp)
target_link_libraries(lookup PRIVATE shardyfusion::shardyfusion)
END
    cmake -S "$work/cmake" -B "$work/cmake/build" -Dshardyfusion_DIR="$lib/cmake/shardyfusion" >"$work/log" 2>&1 &&
        cmake --build "$work/cmake/build" >>"$work/log" 2>&1 || { cat "$work/log"; fail "CMake"; }
    look_up "$work/cmake/build/lookup"
fi
if has go "the Go program"; then
    (cd examples/embed/go && GOFLAGS=-mod=mod GOTOOLCHAIN=local GOCACHE=$root/$build/go-cache go build -o "$work/go-lookup" .)
    look_up "$work/go-lookup"
fi
if has rustc "the Rust program" && has bindgen "the Rust program"; then
    printf '#include <shardyfusion/reader.h>\n' >"$work/shardyfusion.h"
    bindgen --generate-inline-functions --allowlist-function 'sf_.*' --allowlist-type 'sf_.*' "$work/shardyfusion.h" -o "$work/bindings.rs" -- \
        $(pkg-config --cflags shardyfusion)
    BINDINGS=$work/bindings.rs rustc --edition 2018 -o "$work/rust-lookup" examples/embed/rust/main.rs \
        $(pkg-config --libs shardyfusion) 2>"$work/log" || { cat "$work/log"; fail "rustc"; }
    look_up "$work/rust-lookup"
fi
if has abidiff "the comparison with the ABI of the last release"; then
    abi=tests/fixtures/abi/libshardyfusion.so.0.abi
    dump() { abidw --headers-dir "$prefix/include" --no-show-locs --no-corpus-path --no-comp-dir-path --drop-private-types "$lib/libshardyfusion.so"; }
    if [ "${2:-}" = --record-abi ]; then dump >"$abi"; fi
    dump >"$work/now.abi"
    # What headers only name may change: programs never see inside. abidw keeps some of it all the same.
    known=$(sed -nE 's/^typedef struct (sf_\w+) \{$/\1/p' "$prefix"/include/shardyfusion/*.h | paste -sd '|')
    printf '[suppress_type]\n  type_kind = struct\n  name_not_regexp = ^(%s|__anonymous.*)$\n' "$known" >"$work/private.suppr"
    abidiff --no-added-syms --suppressions tests/fixtures/abi/grown.suppr --suppressions "$work/private.suppr" "$abi" "$work/now.abi" >"$work/log" ||
        { cat "$work/log"; fail "programs of the last release would not run; a release that means it records its ABI anew, by --record-abi"; }
fi
echo "installed files: headers, names and the programs are as they should be"
