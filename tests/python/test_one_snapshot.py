"""A reader serves one snapshot at a time: whatever is asked of it, whenever, the answers agree."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, HashShardedWriteConfig, PythonRecordInput, ShardedReader
from shardyfusion.errors import OperationTimeoutError
from shardyfusion.writer.python import write_hash_sharded

KEYS = range(40)


class World:
    """Two snapshots below one prefix, and a pointer that can be moved between them."""

    def __init__(self, root: Path) -> None:
        self.prefix = f"file://{root}/p"
        self.local_root = str(root / "local")
        self._pointer = root / "p" / "_CURRENT"
        self._pointers: dict[str, bytes] = {}
        for name, num_dbs in (("old", 2), ("new", 5)):
            config = HashShardedWriteConfig(num_dbs=num_dbs, s3_prefix=self.prefix)
            values = PythonRecordInput(key_fn=lambda key: key, value_fn=lambda key, name=name: f"{name}{key}".encode())
            write_hash_sharded(KEYS, config, values)
            self._pointers[name] = self._pointer.read_bytes()
        self.named = "new"

    def point_to(self, name: str) -> None:
        self._pointer.write_bytes(self._pointers[name])
        self.named = name

    def move(self) -> None:
        self.point_to("old" if self.named == "new" else "new")

    @property
    def options(self) -> dict[str, Any]:
        return {"s3_prefix": self.prefix, "local_root": self.local_root}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("one-snapshot"))


def snapshot_of(value: bytes | None) -> str:
    assert value is not None
    return value[:3].decode()


def facts(reader: Any) -> set[str]:
    """The snapshots that the reader's facts are of."""
    names = {2: "old", 5: "new"}
    info, health = reader.snapshot_info(), reader.health()
    assert info.manifest_ref == health.manifest_ref
    return {names[info.num_dbs], names[len(reader.shard_details())], names[health.num_shards]}


def fact(reader: Any) -> str:
    return {2: "old", 5: "new"}[reader.snapshot_info().num_dbs]


async def async_reads(reader: AsyncShardedReader) -> dict[str, str]:
    """Every way to read, and of which snapshot the answer was."""
    async with reader.reader_for_key(7) as handle:
        by_handle = await handle.get(reader.encode_key(7))
    rows = [row async for row in reader.scan(limit=3)]
    return {
        "get": snapshot_of(await reader.get(7)),
        "multi_get": snapshot_of((await reader.multi_get([7, 8]))[8]),
        "handle": snapshot_of(by_handle),
        "scan": snapshot_of(rows[0][1]),
    }


def blocking_reads(reader: Any) -> dict[str, str]:
    with reader.reader_for_key(7) as handle:
        by_handle = handle.get(reader.encode_key(7))
    return {
        "get": snapshot_of(reader.get(7)),
        "multi_get": snapshot_of(reader.multi_get([7, 8])[8]),
        "handle": snapshot_of(by_handle),
        "scan": snapshot_of(next(iter(reader.scan(limit=1)))[1]),
    }


@pytest.mark.parametrize("options", [{}, {"open_concurrency": 3}, {"lazy_open": True}], ids=["plain", "concurrency", "lazy"])
async def test_facts_and_reads_agree_while_a_reader_refreshes(world: World, options: dict[str, Any]) -> None:
    async with await AsyncShardedReader.open(**world.options, **options) as reader:
        for _ in range(20):
            world.move()
            refreshing = asyncio.create_task(reader.refresh())
            for _ in range(60):
                before = fact(reader)
                for what in ("get", "scan", "handle"):
                    if what == "get":
                        value = await reader.get(7)
                    elif what == "scan":
                        value = [row async for row in reader.scan(limit=1)][0][1]
                    else:
                        async with reader.reader_for_key(7) as handle:
                            value = await handle.get(reader.encode_key(7))
                    if before == fact(reader):  # it has not moved meanwhile
                        assert snapshot_of(value) == before, what
                if refreshing.done():
                    break
                await asyncio.sleep(0)
            assert await refreshing is True
            assert facts(reader) == {world.named}
            assert set((await async_reads(reader)).values()) == {world.named}


async def test_refreshes_that_are_cancelled_at_any_step(world: World) -> None:
    async with await AsyncShardedReader.open(**world.options) as reader:
        for turns in range(40):
            world.move()
            refreshing = asyncio.create_task(reader.refresh())
            for _ in range(turns):
                await asyncio.sleep(0)
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)
            for _ in range(3):  # the engine may move until it has heard of it, and not later
                before = fact(reader)
                reads = await async_reads(reader)
                if before == fact(reader):
                    assert set(reads.values()) == {before}, (turns, reads)
            moved = facts(reader) == {world.named}
            changed = await reader.refresh()
            assert facts(reader) == {world.named}
            assert changed or moved, turns


async def test_a_move_that_nobody_was_told_of_is_reported_by_the_next_refresh(world: World) -> None:
    async with await AsyncShardedReader.open(**world.options) as reader:
        told = fact(reader)
        for turns in range(40):
            world.move()
            refreshing = asyncio.create_task(reader.refresh())
            for _ in range(turns):
                await asyncio.sleep(0)
            refreshing.cancel()
            result = (await asyncio.gather(refreshing, return_exceptions=True))[0]
            if result is True:
                told = world.named
            if await reader.refresh():
                assert told != world.named, turns
                told = world.named
            assert told == fact(reader) == world.named, turns


@pytest.mark.parametrize("timeout", [0.0, 0.0005, 0.001, 0.002, 0.005])
async def test_refreshes_that_time_out(world: World, timeout: float) -> None:
    async with await AsyncShardedReader.open(**world.options) as reader:
        for _ in range(8):
            world.move()
            try:
                await reader.refresh(timeout=timeout)
            except OperationTimeoutError:
                pass
            before = fact(reader)
            reads = await async_reads(reader)
            if before == fact(reader):
                assert set(reads.values()) == {before}, reads
            await reader.refresh()
            assert facts(reader) == {world.named}
            assert set((await async_reads(reader)).values()) == {world.named}


@pytest.mark.parametrize("kind", [ShardedReader, ConcurrentShardedReader])
@pytest.mark.parametrize("timeout", [0.0, 0.001, 0.002])
def test_blocking_refreshes_that_time_out(world: World, kind: Any, timeout: float) -> None:
    with kind(**world.options) as reader:
        for _ in range(8):
            world.move()
            try:
                reader.refresh(timeout=timeout)
            except OperationTimeoutError:
                pass
            before = fact(reader)
            reads = blocking_reads(reader)
            if before == fact(reader):
                assert set(reads.values()) == {before}, reads
            reader.refresh()
            assert facts(reader) == {world.named}
            assert set(blocking_reads(reader).values()) == {world.named}


def test_threads_that_read_while_one_refreshes(world: World) -> None:
    with ConcurrentShardedReader(**world.options) as reader:
        over = threading.Event()
        wrong: list[object] = []
        moves = 0

        def read() -> None:
            while not over.is_set():
                moved, before = moves, fact(reader)
                value = reader.get(7)
                rows = list(reader.scan(limit=1))
                if before == fact(reader) and moved == moves and {snapshot_of(value), snapshot_of(rows[0][1])} != {before}:
                    wrong.append((before, value, rows))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(15):
                moves += 1
                world.move()
                assert reader.refresh() is True
                assert facts(reader) == {world.named}
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not wrong
