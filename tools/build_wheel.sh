#!/usr/bin/env bash
# Build wheels that need nothing beside them but glibc 2.28: dist/shardyfusion-*-manylinux_2_28_*.whl, with the licences of the libraries inside.
# After tools/install.sh wheel.
#     tools/build_wheel.sh [--machine x86_64|aarch64] [--python PYTHON] ... [FOLDER]
# For this machine and the Python of .venv when nothing else is said. PYTHON (3.11 or newer) only runs the build: a wheel for another machine
# takes its headers, which are the same there.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
machine=$(uname -m) out=dist pythons=()
while [ $# -gt 0 ]; do
    case $1 in
    --machine) machine=$2 && shift 2 ;;
    --python) pythons+=("$2") && shift 2 ;;
    *) out=$1 && shift ;;
    esac
done
[ "${#pythons[@]}" -gt 0 ] || pythons=(.venv/bin/python)
mkdir -p "$out"
out=$(realpath "$out")

tools/wheel_libs.sh "$machine"
libs=$PWD/.cache/wheel/$machine
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# Even for a machine of the same kind it is a cross build: an old glibc, and none of what is installed here. Snappy and toml++ are C++.
# Zig's compiler, unlike the distribution's, makes no position-independent programs by itself. What nothing calls is left out.
cat >"$tmp/cross" <<END
[binaries]
c = '$libs/bin/cc'
cpp = '$libs/bin/c++'
ar = '$libs/bin/ar'
strip = 'true'
pkg-config = ['pkg-config', '--static']
[built-in options]
b_pie = true
c_args = ['-I$libs/include', '-I$tmp/include', '-ffunction-sections', '-fdata-sections']
cpp_args = ['-I$libs/include', '-I$tmp/include', '-ffunction-sections', '-fdata-sections']
c_link_args = ['-L$libs/lib', '-lc++', '-s', '-Wl,--gc-sections']
cpp_link_args = ['-L$libs/lib', '-s', '-Wl,--gc-sections']
[properties]
pkg_config_libdir = '$libs/lib/pkgconfig:$libs/share/pkgconfig'
needs_exe_wrapper = true
[host_machine]
system = 'linux'
cpu_family = '$machine'
cpu = '$machine'
endian = 'little'
END

for python in "${pythons[@]}"; do
    version=$("$python" -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))') # 3.13t is free-threaded
    venv=$PWD/.cache/wheel/python-$version
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $(grep -hE '^(meson|meson-python|build)==' tools/requirements-{build,wheel}.txt)
    # Debian's Pythons have what depends on the machine below /usr/include, where Zig does not look.
    beside=/usr/include/$(uname -m)-linux-gnu/$(basename "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')")
    if [ -d "$beside" ]; then mkdir -p "$tmp/include/$machine-linux-gnu" && ln -sfn "$beside" "$tmp/include/$machine-linux-gnu/"; fi
    raw=$tmp/$version
    mkdir -p "$raw/packed"
    # What sysconfig says of the Python that runs the build, said of the machine that the wheel is for.
    "$venv/bin/python" - "$machine" "$raw" <<'END'
import pathlib, platform, sys, sysconfig

machine, folder = sys.argv[1:]
name = "_sysconfigdata_for_wheel"
said = {k: v.replace(platform.machine(), machine) if isinstance(v, str) else v for k, v in sysconfig.get_config_vars().items()}
pathlib.Path(folder, name + ".py").write_text(f"build_time_vars = {said!r}\n")
END
    PATH="$venv/bin:$PATH" PYTHONPATH="$raw" _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata_for_wheel _PYTHON_HOST_PLATFORM="linux-$machine" \
        "$venv/bin/python" -m build --wheel --no-isolation --outdir "$raw" -Csetup-args=--cross-file="$tmp/cross" . >"$raw/log" 2>&1 ||
        { cat "$raw/log" >&2; exit 1; }
    python -m wheel unpack -d "$raw/tree" "$raw"/*.whl >/dev/null
    tree=$(echo "$raw"/tree/*)
    licences=$(echo "$tree"/*.dist-info)/licenses
    mkdir -p "$licences"
    cp "$libs"/licenses/* "$licences/"
    python -m wheel pack -d "$raw/packed" "$tree" >/dev/null
    if [ "$machine" = "$(uname -m)" ]; then
        auditwheel repair --plat "manylinux_2_28_$machine" -w "$out" "$raw"/packed/*.whl >"$raw/log" 2>&1 || { cat "$raw/log" >&2; exit 1; }
        continue
    fi
    # auditwheel knows only the machine that it runs on: here are its questions, of a wheel that brings no library beside the extension.
    for binary in "$tree"/shardyfusion/_native.*.so "$tree"/shardyfusion/shardy "$tree"/*.data/scripts/shardy; do
        asked=$(readelf -dW "$binary" | sed -n 's/.*Shared library: \[\(.*\)\].*/\1/p' | grep -vE '^(libc|libm|libdl|libpthread|librt|ld-linux-.*)\.so' || true)
        newer=$(readelf -VW "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | awk -F'[_.]' '$2 > 2 || $3 > 28' || true)
        [ -z "$asked$newer" ] || { echo "$binary wants" $asked $newer >&2; exit 1; }
    done
    python -m wheel tags --remove --platform-tag "manylinux_2_28_$machine" "$raw"/packed/*.whl >/dev/null
    cp "$raw"/packed/*.whl "$out"
done
ls "$out"/shardyfusion-*.whl
