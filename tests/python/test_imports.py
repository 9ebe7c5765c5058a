"""What importing the package brings in, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORBIDDEN = ("pyspark", "dask", "ray", "pandas", "numpy", "pyarrow", "prometheus_client", "opentelemetry", "click")


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import shardyfusion",
        "from shardyfusion import AsyncShardedReader, TokenBucket, SnapshotInfo",
        "import shardyfusion.reader.async_reader, shardyfusion.metrics.prometheus, shardyfusion.metrics.otel",
        "import shardyfusion.manifest, shardyfusion.manifest_store, shardyfusion.storage, shardyfusion.routing",
    ],
)
def test_nothing_heavy(code: str) -> None:
    loaded = loaded_by(code)
    assert not loaded & {*FORBIDDEN, "pydantic", "pydantic_core", "sqlalchemy"}


def test_the_package_itself_loads_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import shardyfusion; print(*set(sys.modules) - before, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in done.stderr.split() if name.startswith("shardyfusion")}
    assert ours == {"shardyfusion", "shardyfusion._lazy"}


def test_models_are_loaded_when_they_are_used() -> None:
    assert "pydantic" in loaded_by("from shardyfusion.manifest import RequiredShardMeta")
