#!/usr/bin/env bash
# The online store of examples/feast with the real Feast, in an environment of its own (600 MB: `make test` leaves it out). After a build with
# -Dpython=true.
#     tools/test_feast.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build-python}
home=.cache/feast
[ -e "$build/python/shardyfusion" ] || { echo "$build has no package: meson setup $build -Dpython=true && ninja -C $build" >&2; exit 1; }
wanted=$(grep -v '^shardyfusion' examples/feast/requirements.txt)
if [ "$(cat $home/installed 2>/dev/null)" != "$wanted" ]; then
    .venv/bin/python -m venv --clear $home
    $home/bin/python -m pip install --quiet --disable-pip-version-check $wanted
    echo "$wanted" >$home/installed
fi
PYTHONPATH="$PWD/$build/python" timeout 300 $home/bin/python examples/feast/try_it.py
