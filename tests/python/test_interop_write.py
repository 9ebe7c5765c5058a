"""Databases that we build are read by the real engine, in every version whose readers are in use: newest state, by
checkpoint, and read-write with later writes. The independent decoder finds nothing wrong with them, and our own reader
reads the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from s3_server import s3_server  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("0.12.1", "0.13.1", "0.17.0")
CODECS = ("none", "snappy", "zlib", "lz4", "zstd")
# Codecs whose Python packages tools/slatedb_dump.py finds everywhere.
PLAIN_CODECS = ("none", "zlib")

Rows = list[tuple[bytes, bytes]]


def text_rows(count: int) -> Callable[[], Rows]:
    def make() -> Rows:
        rng = random.Random(count)
        rows = []
        for n in range(count):
            value = b"" if n % 50 == 0 else f"value {n} ".encode() * rng.randrange(8) + rng.randbytes(rng.randrange(40))
            rows.append((f"key-{rng.randrange(2 * count):08d}".encode(), value))
        return rows
    return make


def dense_rows() -> Rows:
    return [(struct.pack(">Q", n), struct.pack("<Q", n * n)) for n in range(5000)]


def large_values() -> Rows:
    rng = random.Random(7)
    return [(f"big-{n}".encode(), rng.randbytes(300_000) if n % 3 == 0 else b"small") for n in range(20)]


def long_keys() -> Rows:
    return [(bytes([65 + n]) * (65535 - n) if n % 2 else bytes([65 + n]), b"v" * n) for n in range(12)]


def prefix_keys() -> Rows:
    """Each key is a prefix of the next, with 0 and ff bytes at the ends."""
    return [(b"p" + b"\0" * n, b"z%d" % n) for n in range(40)] + [(b"\xff" * n, b"f%d" % n) for n in range(1, 40)]


@dataclass
class Case:
    rows: Callable[[], Rows]
    settings: dict[str, object] = field(default_factory=dict)
    ssts: int = 1  # at least
    modes: tuple[str, ...] = ("reader", "checkpoint", "write")  # the large ones take long in the real engine


CASES = {
    "empty": Case(lambda: [], ssts=0),
    "one": Case(text_rows(1)),
    "six": Case(text_rows(6)),
    **{f"5000_{codec}": Case(text_rows(5000), {"codec": codec}) for codec in CODECS},
    "compacted": Case(text_rows(4000), {"codec": "zstd"}, modes=("compact",)),
    **{f"5000_block_{kib}k": Case(text_rows(5000), {"block_bytes": kib << 10}) for kib in (1, 16, 64)},
    "60000_none": Case(text_rows(60000), {"sst_bytes": 256 << 10}, ssts=4, modes=("reader",)),
    "60000_zstd": Case(text_rows(60000), {"codec": "zstd", "sst_bytes": 256 << 10}, ssts=4, modes=("write",)),
    "dense": Case(dense_rows),
    "no_filter": Case(text_rows(500), {"min_filter_keys": 1000}),
    "filter_1_bit": Case(text_rows(500), {"bits_per_key": 1}),
    "filter_25_bits": Case(text_rows(500), {"bits_per_key": 25}),
    "large_values": Case(large_values, {"sst_bytes": 1 << 20}, ssts=2),
    "large_values_lz4": Case(large_values, {"codec": "lz4", "block_bytes": 65536}),
    "one_byte_zstd": Case(lambda: [(b"k", bytes(65 << 20)), (b"l", b"x")], {"codec": "zstd"}, modes=("reader",)),
    "long_keys": Case(long_keys),
    "long_keys_zstd": Case(long_keys, {"codec": "zstd", "block_bytes": 1024, "sst_bytes": 65536}),
    "prefix_keys": Case(prefix_keys, {"block_bytes": 1024}),
    "spilled_parts": Case(text_rows(20000), {"memory_bytes": 1 << 18, "part_bytes": 10_000}, modes=("checkpoint",)),
}


@dataclass
class Built:
    name: str
    folder: Path
    rows: Rows
    rows_file: Path
    result: dict[str, object]

    def absent(self) -> list[str]:
        stored = {k for k, _ in self.rows}
        keys = {b"", b"zzz", b"\x01"} | {k + b"\0" for k, _ in self.rows[:300]} | {k[:-1] for k, _ in self.rows[:300]}
        return [k.hex() for k in sorted(keys - stored - {b""}) if len(k) <= 65535]


def program() -> Path:
    chosen = os.environ.get("SF_TEST_BUILD")
    places = [ROOT / folder / "tests/interop/write_shard" for folder in ([chosen] if chosen else ["build-asan", "build"])]
    for place in places:
        if place.exists():
            return place
    raise AssertionError(f"none of {places} exists: build the C tests")


def pack(rows: Rows) -> bytes:
    return b"".join(struct.pack("<II", len(k), len(v)) + k + v for k, v in rows)


def build(place: Path | str, rows: Rows, settings: dict[str, object], env: dict[str, str] | None = None,
          ) -> dict[str, object]:
    url = place if isinstance(place, str) else place.as_uri()
    done = subprocess.run([str(program()), url, *(f"{k}={v}" for k, v in settings.items())], input=pack(rows),
                          capture_output=True, timeout=120, env={**os.environ, **(env or {})})
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Built]]:
    root = tmp_path_factory.mktemp("shards")
    shards = []
    for name, case in CASES.items():
        rows = case.rows()
        random.Random(name).shuffle(rows)
        result = build(root / name, rows, case.settings)
        rows = sorted(dict(rows).items())
        assert result["rows"] == len(rows)
        assert len(list((root / name).rglob("*.sst"))) == result["objects"] - 1 >= case.ssts
        file = root / f"{name}.rows"
        file.write_bytes(pack(rows))
        shards.append(Built(name, root / name, rows, file, result))
    yield shards


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def real_engine_reads(version: str, mode: str, built: list[Built], folder: Path) -> None:
    wheel = ROOT / ".cache" / f"slatedb-{version}"
    assert wheel.is_dir(), f"{wheel} is missing: run tools/install.sh test"
    cases = []
    shards = [shard for shard in built if mode in CASES[shard.name].modes]
    for shard in shards:
        shutil.copytree(shard.folder, folder / shard.name)
        cases.append({"name": shard.name, "path": str(folder / shard.name), "checkpoint": shard.result["checkpoint"],
                      "rows": str(shard.rows_file), "absent": shard.absent()})
    done = subprocess.run([sys.executable, str(ROOT / "tests/interop/read_shards.py"), mode], input=json.dumps(cases),
                          env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{version}: {done.stderr[-2000:]}"
    for shard in shards:
        now, before = files(folder / shard.name), files(shard.folder)
        if mode == "checkpoint":
            assert now == before, f"{version}, {shard.name}: reading by checkpoint wrote to storage"
        assert before.items() <= now.items(), f"{version}, {shard.name}: what we built was changed"


@pytest.mark.parametrize("mode", ("reader", "checkpoint", "write", "compact"))
def test_the_real_engines_read_what_we_built(mode: str, built: list[Built], tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(VERSIONS)) as pool:  # each waits for its own timers most of the time
        runs = {v: pool.submit(real_engine_reads, v, mode, built, tmp_path / v) for v in VERSIONS}
    for run in runs.values():
        run.result()


async def test_our_reader_reads_what_we_built(built: list[Built], tmp_path: Path) -> None:
    from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory

    for shard in built:
        for checkpoint in (None, shard.result["checkpoint"]):
            opened = await AsyncSlateDbReaderFactory()(db_url=shard.folder.as_uri(), local_dir=tmp_path / shard.name,
                                                       checkpoint_id=checkpoint, manifest=None)
            try:
                assert [row async for row in opened.scan()] == shard.rows, shard.name
                for key, value in shard.rows[:: 1 if len(shard.rows) < 10000 else 7]:
                    assert await opened.get(key) == value, shard.name
                for key in shard.absent():
                    assert await opened.get(bytes.fromhex(key)) is None, shard.name
            finally:
                await opened.close()


def test_the_independent_decoder_finds_nothing_wrong(built: list[Built]) -> None:
    for shard in built:
        if CASES[shard.name].settings.get("codec", "none") not in PLAIN_CODECS:
            continue
        done = subprocess.run([sys.executable, str(ROOT / "tools/slatedb_dump.py"), str(shard.folder), "--verify"],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{shard.name}: {done.stdout[-1000:]}{done.stderr[-1000:]}"


def test_input_order_and_memory_do_not_matter(tmp_path: Path) -> None:
    rows = sorted(dict(text_rows(20000)()).items())
    seen = []
    for n, memory in enumerate((128 << 20, 1 << 18, 1 << 20)):
        random.Random(n).shuffle(rows)
        build(tmp_path / str(n), rows, {"codec": "zstd", "sst_bytes": 128 << 10, "memory_bytes": memory,
                                        "part_bytes": 1000 + 5000 * n})
        seen.append(files(tmp_path / str(n)))
    assert len(seen[0]) > 4
    assert seen[0] == seen[1] == seen[2]
    # one byte more in the first or last row
    for changed, same_names in ((min(rows), 0), (max(rows), len(seen[0]) - 1)):
        build(tmp_path / changed[0].decode(), [*rows, (changed[0], changed[1] + b"x")],
              {"codec": "zstd", "sst_bytes": 128 << 10})
        other = files(tmp_path / changed[0].decode())
        manifest = "manifest/00000000000000000001.manifest"
        assert other[manifest] != seen[0][manifest]  # another checkpoint, too
        assert len((other.keys() & seen[0].keys()) - {manifest}) == same_names  # an SST is named by what precedes it


def test_the_same_files_on_a_real_s3_server(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [(f"key-{n:07d}".encode(), rng.randbytes(200)) for n in range(120_000)]  # 25 MB: an SST of several parts
    with s3_server() as server:
        for settings in ({}, {"codec": "zstd", "sst_bytes": 10 << 20}):
            name = f"db-{len(settings)}"
            result = build(f"s3://scratch/{name}", rows, settings, server.environment)
            build(tmp_path / name, rows, settings)
            assert result["stored_bytes"] > 25_000_000
            assert files(server.folder / "scratch" / name) == files(tmp_path / name)
        done = subprocess.run([str(program()), "s3://scratch/db-0"], input=b"", capture_output=True, timeout=60,
                              env={**os.environ, **server.environment})
        assert done.returncode == 1 and b"is not empty" in done.stderr


def test_a_path_in_use_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "db", text_rows(10)(), {})
    before = files(tmp_path / "db")
    done = subprocess.run([str(program()), (tmp_path / "db").as_uri()], input=pack(text_rows(10)()),
                          capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"CONFLICT" in done.stderr and b"is not empty" in done.stderr
    assert files(tmp_path / "db") == before
