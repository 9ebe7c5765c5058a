#!/usr/bin/env bash
# Build a wheel that brings the libraries it needs along: dist/shardyfusion-*-manylinux_*.whl. After tools/install.sh test.
#     tools/build_wheel.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
out=${1:-dist}
mkdir -p "$out"
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
python -m build --wheel --no-isolation --outdir "$raw" . >"$raw/log" 2>&1 || { cat "$raw/log" >&2; exit 1; }
auditwheel repair --plat auto -w "$out" "$raw"/*.whl >"$raw/log" 2>&1 || { cat "$raw/log" >&2; exit 1; }
ls "$out"/shardyfusion-*.whl
