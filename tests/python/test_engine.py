"""The reader over the engine itself: life cycle, damage, deadlines, processes."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from fixtures import case

from shardyfusion import (
    AsyncShardedReader,
    ConfigValidationError,
    DbAdapterError,
    HashShardedWriteConfig,
    ManifestParseError,
    MetricEvent,
    PythonRecordInput,
    ReaderStateError,
    ShardyfusionError,
)
from shardyfusion._engine import native
from shardyfusion.testing import ListMetricsCollector
from shardyfusion.writer.python import write_hash_sharded

CASE = case("slatedb-hash-u64be")
ROWS = {key: value for key, _, value in CASE.lookups if value is not None}
KEY, VALUE = next(iter(ROWS.items()))


def opening(prefix: Any = CASE.prefix, **options: Any) -> Any:
    return AsyncShardedReader.open(s3_prefix=str(prefix), local_root="unused", **options)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CASE.folder, tmp_path / "copy"))


def shard_folder(copy: Path, db_id: int) -> Path:
    return next(copy.glob(f"shards/run_id=*/db={db_id:05d}/attempt=00"))


async def settled(reader: AsyncShardedReader) -> None:
    """Until nothing is borrowed: the engine ends scans and reads on a thread of its own."""
    async with asyncio.timeout(60):
        while reader.health().borrowed:
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------- life cycle


async def test_warm_reads_end_without_the_event_loop() -> None:
    async with opening() as reader:
        assert await reader.get(KEY) == VALUE
        work = reader.get(KEY)
        with pytest.raises(StopIteration) as stop:
            work.send(None)
        assert stop.value.value == VALUE
        with pytest.raises(StopIteration) as stop:
            reader.multi_get([KEY]).send(None)
        assert stop.value.value == {KEY: VALUE}


async def test_what_get_returns_is_a_coroutine() -> None:
    async with opening() as reader:
        for work, result in ((lambda: reader.get(KEY), VALUE), (lambda: reader.multi_get([KEY]), {KEY: VALUE})):
            assert asyncio.iscoroutine(coroutine := work())
            coroutine.close()
            assert await asyncio.create_task(work()) == result
            assert await asyncio.gather(work(), work()) == [result, result]
            assert await asyncio.wait_for(work(), 60) == result
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(work())
            assert task.result() == result


async def test_unawaited_coroutines_warn() -> None:
    async with opening() as reader:
        for make in (lambda: reader.get(KEY), lambda: reader.multi_get([KEY]), lambda: reader.get_many([KEY])):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                make()
                gc.collect()
            assert [w.category for w in seen] == [RuntimeWarning]


async def test_borrowed_snapshots_outlive_refresh_and_close() -> None:
    reader = await opening()
    handle = reader.reader_for_key(KEY)
    scan = reader.scan(limit=5)
    stored = reader.encode_key(KEY)
    assert reader.health().borrowed == 2
    await reader.close()
    assert await handle.get(stored) == VALUE
    assert await handle.multi_get([stored, b"absent"]) == {stored: VALUE, b"absent": None}
    assert len([row async for row in handle.scan(limit=3)]) == 3
    assert len([row async for row in scan]) == 5
    handle.close()
    with pytest.raises(ReaderStateError, match="^Reader is closed$"):
        await reader.get(KEY)
    assert reader.health().is_closed


async def test_a_closed_shard_reader_says_so() -> None:
    async with opening() as reader:
        async with reader.reader_for_key(KEY) as handle:
            await handle.reader.close()
            with pytest.raises(ReaderStateError, match="^Reader is closed$"):
                await handle.get(reader.encode_key(KEY))
        assert await reader.get(KEY) == VALUE  # only that view was closed


async def test_a_scan_that_is_left_early_gives_its_snapshot_back() -> None:
    async with opening() as reader:
        async with reader.scan() as scan:
            async for _ in scan:
                break
            assert reader.health().borrowed == 1
        await settled(reader)
        dropped = reader.scan()
        await anext(dropped)
        del dropped
        gc.collect()
        await settled(reader)
        with pytest.raises(ReaderStateError, match="Scan is closed"):
            await anext(scan)


async def test_arguments_of_scans() -> None:
    async with opening() as reader:
        for bad in ({"order": "random"}, {"limit": -1}, {"prefix": b"a", "start": b"b"}):
            with pytest.raises(ValueError):
                reader.scan(**bad)
        assert [row async for row in reader.scan(limit=0)] == []
        first, second = sorted(ROWS)[:2]
        assert [key async for key, _ in reader.scan(first, second, decode_keys=True)] == [first]
        with pytest.raises(ValueError, match="size"):
            await anext(reader.scan().batches(0))
        gc.collect()
        await settled(reader)


async def test_events_of_the_engine(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = ListMetricsCollector()
    with caplog.at_level(logging.DEBUG, "shardyfusion"):
        async with opening(copy, metrics_collector=metrics) as reader:
            ref = reader.snapshot_info().manifest_ref
            await reader.get(KEY)
            await reader.multi_get([KEY, 3])
            await reader.refresh()
            pointer = json.loads((copy / "_CURRENT").read_text())
            (copy / "_CURRENT").unlink()
            with pytest.raises(ReaderStateError, match="^CURRENT pointer not found during refresh: file://.*/_CURRENT$"):
                await reader.refresh()
            other = copy / "manifests" / "2027-01-01T00:00:00.000000Z_run_id=bad"
            other.mkdir()
            (other / "manifest").write_bytes(b"not SQLite")
            pointer["manifest_ref"] = f"{CASE.expected['s3_prefix']}/manifests/{other.name}/manifest"
            (copy / "_CURRENT").write_text(json.dumps(pointer))
            assert await reader.refresh() is False
            assert "SQLite" in (reader.health().last_refresh_error or "")
            assert await reader.get(KEY) == VALUE
    assert [(event, set(payload)) for event, payload in metrics.events] == [
        (MetricEvent.READER_INITIALIZED, set()),
        (MetricEvent.READER_GET, {"duration_ms", "found", "duration_s", "db_id", "cache"}),
        (MetricEvent.READER_MULTI_GET, {"duration_ms", "num_keys", "duration_s", "found_count", "cache"}),
        (MetricEvent.READER_REFRESHED, {"changed"}),
        (MetricEvent.READER_REFRESH_FAILED, {"error"}),
        (MetricEvent.READER_REFRESH_FAILED, {"error"}),
        (MetricEvent.READER_REFRESHED, {"changed"}),
        (MetricEvent.READER_GET, {"duration_ms", "found", "duration_s", "db_id", "cache"}),
        (MetricEvent.READER_CLOSED, {"num_handles"}),
    ]
    failures = [p["error"] for event, p in metrics.events if event is MetricEvent.READER_REFRESH_FAILED]
    assert failures == ["ReaderStateError", "ManifestParseError"]
    events = [(r.message, r.shardyfusion) for r in caplog.records]
    assert [name for name, _ in events] == [
        "reader_initialized", "reader_refresh_unchanged", "reader_refresh_current_not_found",
        "reader_refresh_malformed_manifest", "reader_closed",
    ]
    assert events[0][1] == {"s3_prefix": str(copy), "num_shards": 8, "manifest_ref": ref}
    assert events[-1][1] == {"s3_prefix": str(copy), "num_handles_closed": 8}


def test_several_event_loops() -> None:
    async def opened() -> AsyncShardedReader:
        return await opening()

    reader = asyncio.run(opened())
    for _ in range(2):
        assert asyncio.run(asyncio.wait_for(reader.get(KEY), 60)) == VALUE
        assert asyncio.run(asyncio.wait_for(reader.refresh(), 60)) is False
    asyncio.run(reader.close())


def test_readers_that_are_dropped_close() -> None:
    async def open_and_drop() -> None:
        await opening()

    for _ in range(3):
        asyncio.run(open_and_drop())
    gc.collect()


async def test_everything_pickles() -> None:
    async with opening() as reader:
        for value in (reader.snapshot_info(), reader.shard_details(), reader.health(), reader.shard_for_key(KEY),
                      reader.shards_for_keys([KEY])):
            assert pickle.loads(pickle.dumps(value)) == value
        try:
            await reader.get("text")
        except ValueError as error:
            assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_keys() -> None:
    async with opening() as reader:
        assert await reader.get(True) == await reader.get(1)
        for key, cls, text in [
            ("a", ValueError, "u64be key encoding requires integer lookup keys"),
            (bytearray(b"a"), ValueError, "u64be key bytes must have length 8"),
            (b"abc", ValueError, "u64be key bytes must have length 8"),
            (-1, ConfigValidationError, "u64be encoding requires value in [0, 2^64-1]"),
            (2**63, ValueError, "Integer key 9223372036854775808 out of range "
             "[-9223372036854775808, 9223372036854775807]"),
            (1.5, ValueError, "Unsupported key type for hashing: <class 'float'>"),
            (None, ValueError, "Unsupported key type for hashing: <class 'NoneType'>"),
        ]:
            with pytest.raises(cls) as caught:
                await reader.get(key)
            assert type(caught.value) is cls
            assert str(caught.value) == text
        for bad in (2**63, 1.5):
            with pytest.raises(ValueError):
                await reader.multi_get([KEY, bad])
        for bad in (-1, "a"):
            with pytest.raises(ExceptionGroup) as group:
                await reader.multi_get([KEY, bad])
            assert group.value.message == "unhandled errors in a TaskGroup"
            assert isinstance(group.value, DbAdapterError)
        with pytest.raises(ValueError, match="^route_with_context requires CEL sharding strategy$"):
            await reader.get(KEY, routing_context={"a": 1})
        assert await reader.multi_get([], routing_context={"a": 1}) == {}
        with pytest.raises(ValueError, match="^route_with_context requires CEL sharding strategy$"):
            reader.route_key(KEY, routing_context={})
        assert reader.encode_key(2**64 - 1) == b"\xff" * 8


# ---------------------------------------------------------------- damage


async def test_a_missing_manifest_object(copy: Path) -> None:
    shutil.rmtree(copy / "manifests")
    with pytest.raises(FileNotFoundError) as caught:
        await opening(copy)
    assert isinstance(caught.value, ShardyfusionError)
    assert not caught.value.retryable
    assert "manifests/" in str(caught.value) and "manifests/" in caught.value.object_url


async def test_a_shard_that_is_gone(copy: Path) -> None:
    shutil.rmtree(shard_folder(copy, 3))
    with pytest.raises(DbAdapterError) as caught:
        await opening(copy)
    assert caught.value.db_id == 3
    assert "db=00003" in str(caught.value)
    async with opening(copy, lazy_open=True) as reader:
        good = {key: value for key, value in ROWS.items() if reader.route_key(key) != 3}
        bad = next(key for key in ROWS if reader.route_key(key) == 3)
        assert await reader.multi_get(list(good)) == good
        with pytest.raises(DbAdapterError, match="Failed to open SlateDB at .*db=00003"):
            await reader.get(bad)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"manifest_ref": 1}', b"\xff"])
async def test_a_damaged_pointer(copy: Path, payload: bytes) -> None:
    async with opening(copy) as reader:
        (copy / "_CURRENT").write_bytes(payload)
        with pytest.raises(ManifestParseError, match="^CURRENT pointer validation failed: "):
            await opening(copy)
        with pytest.raises(ManifestParseError):
            await reader.refresh()
        assert await reader.get(KEY) == VALUE


async def test_a_damaged_block_fails_only_its_keys(copy: Path) -> None:
    for table in (*shard_folder(copy, 0).glob("compacted/*"), *shard_folder(copy, 0).glob("wal/*")):
        data = bytearray(table.read_bytes())
        if len(data) > 2000:
            data[100] ^= 0x40  # inside the first block
            table.write_bytes(data)
    async with opening(copy) as reader:
        kept = await reader.multi_get(list(ROWS), on_error="return")
        failed = {key: error for key, error in kept.items() if isinstance(error, Exception)}
        assert failed and {reader.route_key(key) for key in failed} == {0}
        assert {key: value for key, value in kept.items() if key not in failed} == {
            key: value for key, value in ROWS.items() if key not in failed}
        assert all(isinstance(error, DbAdapterError) and error.db_id == 0 for error in failed.values())
        with pytest.raises(ExceptionGroup) as group:
            await reader.multi_get(list(ROWS))
        assert [type(error) for error in group.value.exceptions] == [DbAdapterError]
        # a key without a stored form in the same shard: each key has its own failure, the group one of the shard
        bad = next(n for n in range(-1, -1000, -1) if reader.route_key(n) == 0)
        mixed = await reader.multi_get([*failed, bad], on_error="return")
        assert {type(error) for error in mixed.values()} == {DbAdapterError, type(mixed[bad])} and not isinstance(mixed[bad], DbAdapterError)
        with pytest.raises(ExceptionGroup) as group:
            await reader.multi_get([*ROWS, bad])
        assert [str(error) for error in group.value.exceptions] == [str(mixed[bad])]
        with pytest.raises(DbAdapterError):
            await reader.get(next(iter(failed)))
        await settled(reader)


async def test_reading_leaves_storage_as_it_is(copy: Path) -> None:
    def files() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}

    before = files()
    async with opening(copy) as reader:
        assert await reader.multi_get(list(ROWS)) == ROWS
        await reader.refresh()
    assert files() == before


# ---------------------------------------------------------------- processes


def run(code: str) -> subprocess.CompletedProcess[str]:
    preamble = f"import asyncio, os, sys\nfrom shardyfusion import AsyncShardedReader\nPREFIX = {CASE.prefix!r}\nKEY = {KEY}\n"
    return subprocess.run([sys.executable, "-c", preamble + code], capture_output=True, text=True, timeout=60)


def test_the_interpreter_ends_with_a_reader_open() -> None:
    done = run("""
reader = asyncio.run(asyncio.wait_for(AsyncShardedReader.open(s3_prefix=PREFIX, local_root="x"), 10))
print(len(asyncio.run(asyncio.wait_for(reader.get(KEY), 10))))
""")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(len(VALUE)), "")


def test_forked_children_are_told() -> None:
    done = run("""
async def main():
    reader = await AsyncShardedReader.open(s3_prefix=PREFIX, local_root="x")
    value = await reader.get(KEY)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(1, repr(await reader.get(KEY) == value).encode())
        except Exception as error:
            os.write(1, f"{type(error).__mro__[1].__name__}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
asyncio.run(main())
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("True", "ReaderStateError")


def test_runtime_counters() -> None:
    stats = native.runtime_stats()
    assert stats and all(type(value) is int for value in stats.values())


async def test_a_cold_get_counts_once(tmp_path: Path) -> None:
    """What memory lacks is asked for once, and read with one request, whichever way it is asked for."""
    rows = [(n, bytes([n]) * 4100) for n in range(120)]  # a block each, and too many to be read at once by the opening
    write_hash_sharded(
        rows,
        HashShardedWriteConfig(num_dbs=2, s3_prefix=str(tmp_path / "snapshot")),
        PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1]),
    )

    def spent() -> tuple[int, int]:
        stats = native.runtime_stats()
        return stats["cache_misses"], stats["requests"]

    async with await opening(tmp_path / "snapshot") as reader:
        misses, requests = spent()
        assert await reader.get(1) == rows[1][1]
        assert spent() == (misses + 1, requests + 1)
        async with reader.reader_for_key(2) as handle:
            assert await handle.reader.get(reader.encode_key(2)) == rows[2][1]
        assert spent() == (misses + 2, requests + 2)
        assert await reader.multi_get([3, 50, 100]) == {key: rows[key][1] for key in (3, 50, 100)}
        assert spent()[0] == misses + 5
        assert await reader.get_many([1, 2, 3, 110]) == [rows[key][1] for key in (1, 2, 3, 110)]
        assert spent()[0] == misses + 6
