#!/usr/bin/env bash
# Build a wheel that brings the libraries it needs along, and their licences: dist/shardyfusion-*-manylinux_*.whl. After tools/install.sh wheel.
#     tools/build_wheel.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
out=${1:-dist}
mkdir -p "$out"
tools/wheel_curl.sh
export PKG_CONFIG_PATH="$PWD/.cache/curl/lib/pkgconfig"
export LDFLAGS="-Wl,--exclude-libs,libcurl.a" # its names stay inside
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
python -m build --wheel --no-isolation --outdir "$raw" . >"$raw/log" 2>&1 || { cat "$raw/log" >&2; exit 1; }
auditwheel repair --plat auto -w "$raw/repaired" "$raw"/*.whl >"$raw/log" 2>&1 || { cat "$raw/log" >&2; exit 1; }

# The licence of each library inside, as its package has it.
python -m wheel unpack -d "$raw/tree" "$raw"/repaired/*.whl >/dev/null
tree=$(echo "$raw"/tree/*)
licences=$(echo "$tree"/*.dist-info)/licenses
mkdir -p "$licences"
cp .cache/curl/COPYING "$licences/curl"
for library in "$tree"/shardyfusion.libs/*; do
    name=$(basename "$library" | sed -E 's/-[0-9a-f]{8}\././')
    file=$(find /usr/lib /lib -name "$name" -print -quit)
    package=$(dpkg -S "$file" 2>/dev/null || dpkg -S "$(readlink -f "$file")" 2>/dev/null || dpkg -S "${file#/usr}")
    package=${package%%:*}
    cp -L "/usr/share/doc/$package/copyright" "$licences/$package"
done
python -m wheel pack -d "$out" "$tree" >/dev/null
ls "$out"/shardyfusion-*.whl
