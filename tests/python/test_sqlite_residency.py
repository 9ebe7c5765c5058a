"""Where SQLite shards stay: what a reader that is ready asks of a real S3 server, which is nothing, and what cannot be, said at its opening."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures import SQLITE, Case, case

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from shardyfusion import (
    AsyncShardedReader,
    CacheOptions,
    ConfigValidationError,
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
)
from shardyfusion._engine import native
from shardyfusion.credentials import StaticCredentialProvider
from shardyfusion.errors import ExhaustedError
from shardyfusion.reader import AsyncAutoReaderFactory, AutoReaderFactory
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.writer.python import write_hash_sharded

DEEP = case("sqlite-sidecar-deep")


def access(server: S3Server) -> dict[str, Any]:
    return {
        "credential_provider": StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
        "s3_connection_options": {"endpoint_url": server.endpoint, "region_name": REGION},
    }


def reading(server: S3Server, root: Path, mode: str, residency: str, name: str = DEEP.name, **options: Any) -> ShardedReader:
    factory = AutoReaderFactory(sqlite_mode=mode, **access(server))  # type: ignore[arg-type]
    return ShardedReader(
        s3_prefix=f"s3://bucket/golden/{name}", local_root=str(root), reader_factory=factory, residency=residency, **access(server), **options
    )


def requests() -> int:
    return native.runtime_stats()["requests"]


def look_at_all(c: Case, reader: ShardedReader) -> None:
    expected = {key: value for key, _, value in c.lookups}
    assert all(reader.get(key) == value for key, value in expected.items())
    assert reader.multi_get(list(expected)) == expected


@pytest.mark.parametrize(("mode", "residency"), [("range", "memory"), ("download", "memory"), ("download", "disk"), ("auto", "disk")])
@pytest.mark.parametrize("c", SQLITE, ids=lambda c: c.name)
def test_a_reader_that_is_ready_asks_for_nothing(c: Case, mode: str, residency: str, server: S3Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with reading(server, tmp_path, mode, residency, c.name) as reader:
        assert (tmp_path / "sqlite").exists() == (mode != "range")
        before = requests()
        reader.ready(timeout=60, progress=lambda done, total: told.append((done, total)))
        size = sum(f.stat().st_size for f in c.folder.rglob("shard.db"))
        assert told[-1] == (size, size)
        assert (requests() > before) == (mode == "range")
        before = requests()
        look_at_all(c, reader)
        assert sum(1 for _ in reader.scan()) > 0
        reader.ready()
        assert requests() == before


async def test_an_async_reader_is_ready_too(server: S3Server, tmp_path: Path) -> None:
    factory = AsyncAutoReaderFactory(sqlite_mode="range", **access(server))
    prefix = f"s3://bucket/golden/{DEEP.name}"
    async with AsyncShardedReader.open(
        s3_prefix=prefix, local_root=str(tmp_path), reader_factory=factory, residency="memory", **access(server)
    ) as reader:
        await reader.ready()
        before = requests()
        for key, _, value in DEEP.lookups:
            assert await reader.get(key) == value
        assert requests() == before


@pytest.mark.parametrize("c", SQLITE, ids=lambda c: c.name)
def test_with_the_index_a_look_up_reads_one_leaf(c: Case, server: S3Server, tmp_path: Path) -> None:
    """The sidecars of these are bound to ETags of another store: what they would have is read, level by level."""
    with reading(server, tmp_path, "range", "index", c.name) as reader:
        reader.ready()
        before = requests()
        reader.ready()
        assert requests() == before
        for key, _, value in c.lookups:
            before = requests()
            assert reader.get(key) == value
            assert requests() - before <= 1 + (value is not None and len(value) > 900), "the leaf, and other pages of the row"


def test_a_sidecar_has_the_index(server: S3Server, tmp_path: Path) -> None:
    shared = access(server)
    config = HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://scratch/ours", adapter_factory=SqliteFactory(**shared), **shared)
    write_hash_sharded(range(3000), config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"%09d" % n * 11))
    factory = AutoReaderFactory(sqlite_mode="range", **shared)
    with ShardedReader(s3_prefix="s3://scratch/ours", local_root=str(tmp_path), reader_factory=factory, residency="index", **shared) as reader:
        before = requests()
        reader.ready()
        assert requests() == before
        assert reader.get(17) == b"%09d" % 17 * 11
        assert requests() == before + 1


def test_what_does_not_fit_is_an_error(server: S3Server, tmp_path: Path) -> None:
    with reading(server, tmp_path, "range", "memory", cache=CacheOptions(memory_bytes=64 << 10)) as reader:
        with pytest.raises(ExhaustedError, match=r"has blocks of \d+ bytes, and memory has room for 65536") as failed:
            reader.ready()
        look_at_all(DEEP, reader)
    blocks = re.search(r"blocks of (\d+) bytes", str(failed.value))
    assert blocks is not None
    exactly = int(blocks[1])  # a page in memory takes some bytes more: that shows when nearly all are there, which are let go then
    with reading(server, tmp_path, "range", "memory", cache=CacheOptions(memory_bytes=exactly)) as reader:
        with pytest.raises(ExhaustedError, match="takes more than its cache may have"):
            reader.ready()
        assert reader.cache_stats().bytes < exactly / 2
        look_at_all(DEEP, reader)


def test_what_cannot_be_is_said_at_the_opening(server: S3Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigValidationError, match="cannot stay on disk, since it is read by ranges, without a copy"):
        reading(server, tmp_path, "range", "disk")


def test_the_cache_has_its_room_back(server: S3Server, tmp_path: Path) -> None:
    with reading(server, tmp_path, "range", "none") as beside:
        empty = beside.cache_stats().bytes
        with reading(server, tmp_path, "range", "memory", "sqlite-hash") as reader:
            reader.ready()
            assert reader.cache_stats().bytes > empty
        assert beside.cache_stats().bytes <= empty + 200_000  # pages of the cache's own: those of the schema
