"""Databases written a moment ago by the real engine, in every version whose databases are in use, read back equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("0.12.1", "0.13.1", "0.17.0")
CASES = ("plain", "small_l0", "zstd", "lz4", "filters")


def write(version: str, case: str, folder: Path) -> list[tuple[bytes, bytes]]:
    """The rows that the engine's own reader returns."""
    wheel = ROOT / ".cache" / f"slatedb-{version}"
    assert wheel.is_dir(), f"{wheel} is missing: run tools/install.sh test"
    done = subprocess.run([sys.executable, str(ROOT / "tests/interop/write_database.py"), str(folder), case],
                          env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [(bytes.fromhex(k), bytes.fromhex(v)) for k, v in json.loads(done.stdout)]


def files(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("version", VERSIONS)
async def test_database_of_the_real_engine_reads_back_equal(version: str, case: str, tmp_path: Path) -> None:
    expected = write(version, case, tmp_path / "bucket")
    assert len(expected) > 1000
    before = files(tmp_path / "bucket")
    factory = AsyncSlateDbReaderFactory()
    shard = await factory(db_url=(tmp_path / "bucket" / "db").as_uri(), local_dir=tmp_path / "local",
                          checkpoint_id=None, manifest=None)
    try:
        rows = dict(expected)
        for key, value in expected:
            assert await shard.get(key) == value
        for n in range(3000):
            key = f"key-{n:05d}".encode()
            if key not in rows:
                assert await shard.get(key) is None
        assert [row async for row in shard.scan()] == expected
        assert [row async for row in shard.scan(reverse=True)] == expected[::-1]
        middle = expected[len(expected) // 2][0]
        assert [row async for row in shard.scan(start=middle)] == [r for r in expected if r[0] >= middle]
        assert [row async for row in shard.scan(prefix=b"key-01")] == [r for r in expected if r[0][:6] == b"key-01"]
    finally:
        await shard.close()
    assert files(tmp_path / "bucket") == before, "reading wrote to storage"
