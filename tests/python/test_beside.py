"""A reader for asyncio beside a blocking one: one engine, one snapshot, one cache."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import SQLITE
from test_following import Snapshots
from test_pinned import HISTORY, ROWS, OwnFactory

from shardyfusion import (
    AsyncShardedReader,
    CacheOptions,
    ConcurrentShardedReader,
    HashShardedWriteConfig,
    ManifestRef,
    MetricEvent,
    PythonRecordInput,
    ReaderStateError,
    ShardedReader,
    SnapshotInfo,
)
from shardyfusion.errors import ConfigValidationError
from shardyfusion.maintenance import manifest_store
from shardyfusion.sqlite_adapter import AdaptiveSqliteReaderFactory, SqliteRangeReaderFactory, SqliteReaderFactory
from shardyfusion.testing import ListMetricsCollector
from shardyfusion.writer.python import write_hash_sharded

KINDS: list[Any] = [ShardedReader, ConcurrentShardedReader]


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    made = Snapshots(tmp_path / "snapshots")
    made.point_at("run-000")
    return made


async def check(reader: AsyncShardedReader, rows: dict[Any, bytes | None]) -> None:
    assert await reader.multi_get(list(rows)) == rows
    assert await reader.get_many(list(rows)) == list(rows.values())
    key = next(key for key, value in rows.items() if value is not None)
    assert await reader.get(key) == rows[key] and await reader.contains(key)
    async with reader.reader_for_key(key) as handle:
        assert await handle.get(reader.encode_key(key)) == rows[key]
    with reader.pin() as pinned:
        assert await pinned.get(key, timeout=20) == rows[key]
        assert len([row async for row in pinned.scan()]) == len([row async for row in reader.scan(order="shard")]) > 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refresh_of_one_is_the_others(kind: Any, snapshots: Snapshots, tmp_path: Path) -> None:
    told: list[str] = []

    def on_refresh(before: SnapshotInfo, now: SnapshotInfo) -> None:
        told.append(now.run_id)

    collector = ListMetricsCollector()
    reader = kind(local_root=str(tmp_path / "local"), metrics_collector=collector, on_refresh=on_refresh, **snapshots.options())
    beside = reader.as_async()
    assert type(beside) is AsyncShardedReader and beside.snapshot_info() == reader.snapshot_info()
    await check(beside, ROWS["run-000"])
    pinned, scan = beside.pin(), beside.scan()
    snapshots.point_at("run-001")
    assert await beside.refresh()
    assert await asyncio.to_thread(reader.refresh) is False  # it was told to who asked
    snapshots.point_at("run-002")
    assert await asyncio.to_thread(reader.refresh)
    assert not await beside.refresh() and told == ["run-001", "run-002"]
    assert beside.snapshot_info() == reader.snapshot_info() and beside.snapshot_info().run_id == "run-002"
    await check(beside, ROWS["run-002"])
    assert await pinned.multi_get(list(ROWS["run-000"])) == ROWS["run-000"]
    assert all(value[:4] == b"run0" for _, value in [row async for row in scan])
    pinned.close()
    assert reader.health().borrowed == beside.health().borrowed == 0
    assert reader.cache_stats() == beside.cache_stats()
    snapshots.write("no pointer")
    with pytest.raises(Exception) as failed:
        await beside.refresh()
    assert reader.health().last_refresh_error == beside.health().last_refresh_error == str(failed.value)
    kinds = [event for event, _ in collector.events]
    assert kinds.count(MetricEvent.READER_INITIALIZED) == 1 and kinds.count(MetricEvent.READER_GET) >= 2
    reader.close()
    assert kinds.count(MetricEvent.READER_REFRESHED) == 4


@pytest.mark.parametrize("kind", KINDS)
async def test_who_closes_whom(kind: Any, snapshots: Snapshots, tmp_path: Path) -> None:
    key = next(key for key, value in ROWS["run-000"].items() if value is not None)
    reader = kind(local_root=str(tmp_path / "local"), **snapshots.options())
    first, second = reader.as_async(), AsyncShardedReader.from_sync(reader)
    await first.close()
    await first.close()
    assert reader.get(key) == await second.get(key) == ROWS["run-000"][key]  # it ended itself alone
    for work in (first.get, first.scan, first.route_key):
        with pytest.raises(ReaderStateError, match="Reader is closed"):
            await work(key)
    assert first.health().is_closed and not reader.health().is_closed
    handle, pinned = second.reader_for_key(key), second.pin()
    watched = asyncio.create_task(anext(second.watch(), None))
    await asyncio.sleep(0)
    await asyncio.to_thread(reader.close)  # which is the end of both
    assert await watched is None
    for work in (second.get, second.scan, second.try_get, second.route_key):
        with pytest.raises(ReaderStateError, match="Reader is closed"):
            await work(key)
    with pytest.raises(ReaderStateError, match="Reader is closed"):
        await second.refresh()
    with pytest.raises(ReaderStateError, match="Reader is closed"):
        reader.as_async()
    assert second.health().is_closed and second.health().status == "unhealthy"
    assert await handle.get(pinned.encode_key(key)) == await pinned.get(key) == ROWS["run-000"][key]
    handle.close()
    pinned.close()
    again = await second.reopen()
    assert await again.get(key) == ROWS["run-000"][key]
    await again.close()
    with pytest.raises(ReaderStateError):
        again._beside.get(key)  # which it had opened


async def test_of_what_is_no_blocking_reader(snapshots: Snapshots, tmp_path: Path) -> None:
    with ShardedReader(local_root=str(tmp_path / "local"), **snapshots.options()) as reader, reader.pin() as pinned:
        wrong: Any
        for wrong in (None, "x", pinned, reader.as_async()):
            with pytest.raises(TypeError, match=f"takes a ShardedReader or a ConcurrentShardedReader, not {type(wrong).__name__}"):
                AsyncShardedReader.from_sync(wrong)


async def test_it_says_what_it_serves(snapshots: Snapshots, tmp_path: Path) -> None:
    reader = ShardedReader(local_root=str(tmp_path / "local"), **snapshots.options())
    ended, beside = reader.as_async(), reader.as_async()
    assert repr(beside) == repr(reader).replace("<", "<Async") and " run_id=run-000 " in repr(beside)
    await ended.close()
    reader.close()
    assert repr(ended).endswith(" (closed)>") and repr(beside).endswith(" (closed)>")


async def test_it_keeps_the_other_one(snapshots: Snapshots, tmp_path: Path) -> None:
    beside = ShardedReader(local_root=str(tmp_path / "local"), **snapshots.options()).as_async()
    gc.collect()
    await check(beside, ROWS["run-000"])
    await beside.close()


@pytest.mark.parametrize("options", [
    {"reader_factory": SqliteReaderFactory()}, {"reader_factory": SqliteRangeReaderFactory()},
    {"reader_factory": AdaptiveSqliteReaderFactory()}, {"cache": CacheOptions(memory_bytes=1 << 20)},
])  # fmt: skip
async def test_over_sqlite(options: dict[str, Any], tmp_path: Path) -> None:
    sqlite = SQLITE[0]
    with ShardedReader(s3_prefix=sqlite.prefix, local_root=str(tmp_path), **options) as reader:
        await check(reader.as_async(), {key: value for key, _, value in sqlite.lookups})


class Manifests:
    """A blocking store of the caller's over what a prefix has."""

    def __init__(self, prefix: str) -> None:
        self._store = manifest_store(prefix)
        self.threads: list[int] = []

    def load_current(self) -> ManifestRef | None:
        self.threads.append(threading.get_ident())
        return self._store.load_current()

    def load_manifest(self, ref: str) -> Any:
        return self._store.load_manifest(ref)

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        return self._store.list_manifests(limit=limit)


async def test_a_store_of_the_callers_does_not_block_the_loop(tmp_path: Path) -> None:
    def publish(value: bytes) -> None:
        write_hash_sharded([1], config, PythonRecordInput(key_fn=int, value_fn=lambda _: value))

    prefix = str(tmp_path / "snapshots")
    config = HashShardedWriteConfig(num_dbs=1, s3_prefix=prefix)
    publish(b"first")
    store = Manifests(prefix)
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path / "local"), manifest_store=store) as reader:
        beside = reader.as_async()
        assert await beside.get(1) == b"first" and set(store.threads) == {threading.get_ident()}
        publish(b"second")
        assert await beside.refresh() and store.threads[-1] != threading.get_ident()
        assert reader.get(1) == await beside.get(1) == b"second"
        publish(b"third")
        assert reader.refresh() and await beside.get(1) == b"third"


@pytest.mark.parametrize("kind", KINDS)
def test_shards_of_the_callers_are_refused(kind: Any, tmp_path: Path) -> None:
    with kind(s3_prefix=HISTORY.prefix, local_root=str(tmp_path), reader_factory=OwnFactory()) as reader:
        with pytest.raises(ConfigValidationError, match="reader_factory"):
            reader.as_async()


def test_threads_and_loops_at_once(snapshots: Snapshots, tmp_path: Path) -> None:
    """Three threads with an event loop each, and one that refreshes."""
    runs = ["run-000", "run-001", "run-002"]
    failures: list[BaseException] = []
    done = threading.Event()
    reader = ConcurrentShardedReader(local_root=str(tmp_path / "local"), **snapshots.options())
    beside = reader.as_async()
    known = set(ROWS["run-000"]) & set(ROWS["run-001"]) & set(ROWS["run-002"])

    async def read() -> None:
        while not done.is_set():
            for key in known:
                assert await beside.get(key) in [ROWS[run][key] for run in runs]
            with beside.pin() as pinned:
                run = pinned.snapshot_info().run_id
                assert await pinned.get_many(list(known)) == [ROWS[run][key] for key in known]

    def loop(work: Callable[[], Any]) -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(read,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(30):
        snapshots.point_at(runs[n % 3])
        reader.refresh() if n % 2 else asyncio.run(beside.refresh())
    done.set()
    for thread in threads:
        thread.join()
    reader.close()
    assert failures == []
