"""Writing from asyncio: async records, async stores, cancelling, an event loop that stays free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import (
    AsyncS3ManifestStore,
    AsyncShardedReader,
    CelShardedWriteConfig,
    ConfigValidationError,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    LogContext,
    PublishConflictError,
    PythonRecordInput,
    PythonWriteOptions,
    WriteCancelledError,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.config import ANY, ArrowRecordInput
from shardyfusion.storage import AsyncMemoryBackend, AsyncObstoreBackend, BucketStore
from shardyfusion.testing import fake_adapter_factory
from shardyfusion.writer.aio import write_cel_sharded, write_hash_sharded

ROWS = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"value %d" % n)
QUIET = PythonWriteOptions(progress=False)


def configuration(tmp_path: Path, **more: Any) -> HashShardedWriteConfig:
    return HashShardedWriteConfig(
        num_dbs=4,
        s3_prefix=(tmp_path / "snap").as_uri(),
        output=WriterOutputConfig(local_root=str(tmp_path / "write")),
        **more,
    )


async def numbers(count: int) -> AsyncIterator[int]:
    for n in range(count):
        if n % 1000 == 0:
            await asyncio.sleep(0)
        yield n


async def read(tmp_path: Path, keys: list[int]) -> list[bytes | None]:
    async with await AsyncShardedReader.open(
        s3_prefix=(tmp_path / "snap").as_uri(), local_root=str(tmp_path / "read")
    ) as reader:
        return [await reader.get(key) for key in keys]


def shards(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "snap" / "shards").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
async def test_records(tmp_path: Path, kind: str) -> None:
    records: Any = range(5000) if kind == "iterable" else numbers(5000)
    result = await write_hash_sharded(records, configuration(tmp_path), ROWS, QUIET)
    assert result.stats.rows_written == 5000
    assert await read(tmp_path, [0, 1023, 1024, 4999, 5000]) == [
        b"value 0", b"value 1023", b"value 1024", b"value 4999", None
    ]


async def test_sharding_by_cel(tmp_path: Path) -> None:
    prefix = (tmp_path / "snap").as_uri()
    given: dict[str, Any] = {"s3_prefix": prefix, "cel_expr": "key % 3", "cel_columns": {"key": "int"}}
    result = await write_cel_sharded(numbers(3000), CelShardedWriteConfig(**given), ROWS, QUIET)
    assert [winner.row_count for winner in result.winners] == [1000] * 3
    assert await read(tmp_path, [0, 2999]) == [b"value 0", b"value 2999"]
    inferred = CelShardedWriteConfig(**given, infer_routing_values_from_data=True)
    with pytest.raises(ConfigValidationError, match="requires a reiterable input"):
        await write_cel_sharded(numbers(3000), inferred, ROWS, QUIET)


async def test_async_batches_of_arrow_data(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    ahead = 0

    async def batches(error: Exception | None = None) -> AsyncIterator[Any]:
        nonlocal ahead
        for n in range(0, 3000, 1000):
            ahead += 1
            yield pyarrow.table({"k": range(n, n + 1000), "v": [b"value %d" % i for i in range(n, n + 1000)]})
            ahead -= 1
        if error is not None:
            raise error

    input: Any = ArrowRecordInput("k", "v")
    result = await write_hash_sharded(batches(), configuration(tmp_path), input, QUIET)
    assert result.stats.rows_written == 3000 and ahead == 0
    assert await read(tmp_path, [0, 1500, 2999, 3000]) == [b"value 0", b"value 1500", b"value 2999", None]
    with pytest.raises(LookupError, match="no more"):
        await write_hash_sharded(batches(LookupError("no more")), configuration(tmp_path), input, QUIET)


async def test_async_records_through_adapters_of_ones_own(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    config = configuration(tmp_path, adapter_factory=fake_adapter_factory, manifest=WriterManifestConfig(store=store))
    result = await write_hash_sharded(numbers(3000), config, ROWS, QUIET)
    assert sum(w.row_count for w in result.winners) == 3000


async def test_the_event_loop_stays_free(tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await write_hash_sharded(range(300_000), configuration(tmp_path), ROWS, QUIET)
    ticking.cancel()
    assert ticks > 3


async def test_an_error_of_the_records_names_its_row(tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    async def records() -> AsyncIterator[int]:
        async for n in numbers(1500):
            yield n
        raise Broken("oh")

    with pytest.raises(Broken) as caught:
        await write_hash_sharded(records(), configuration(tmp_path), ROWS, QUIET)
    assert caught.value.__notes__ == ["at row 1501 of the records"]
    assert shards(tmp_path) == []


async def test_a_timeout_of_the_records_is_theirs(tmp_path: Path) -> None:
    async def records() -> AsyncIterator[int]:
        yield 1
        raise TimeoutError("the source")

    with pytest.raises(TimeoutError, match="the source"):
        await write_hash_sharded(records(), configuration(tmp_path), ROWS, QUIET)


async def test_cancelling_the_task(tmp_path: Path) -> None:
    closed = threading.Event()
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        n = 0
        try:
            while True:
                await asyncio.sleep(0)
                yield (n := n + 1)
                if n == 3000:
                    reached.set()
        finally:
            closed.set()

    await write_hash_sharded([7], configuration(tmp_path), ROWS, QUIET)
    before = shards(tmp_path)
    task = asyncio.create_task(write_hash_sharded(endless(), configuration(tmp_path), ROWS, QUIET))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set(), "the source is closed"
    assert shards(tmp_path) == before
    assert await read(tmp_path, [7, 1]) == [b"value 7", None]
    assert not any(thread.name.startswith("shardyfusion-write") for thread in threading.enumerate())


async def test_records_that_never_come_do_not_keep_a_cancel_waiting(tmp_path: Path) -> None:
    async def silent() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    cancel = threading.Event()
    options = PythonWriteOptions(progress=False, cancel=cancel)
    task = asyncio.create_task(write_hash_sharded(silent(), configuration(tmp_path), ROWS, options))
    await asyncio.sleep(0)
    cancel.set()
    with pytest.raises(WriteCancelledError):
        await task


async def test_context_of_the_task_reaches_the_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="shardyfusion"), LogContext(job="nightly"):
        await write_hash_sharded([1], configuration(tmp_path), ROWS, QUIET)
    started = next(r for r in caplog.records if r.message == "write_started")
    assert started.shardyfusion["job"] == "nightly"  # type: ignore[attr-defined]


async def test_an_async_manifest_store(tmp_path: Path) -> None:
    prefix = (tmp_path / "snap").as_uri()
    store = AsyncS3ManifestStore(AsyncObstoreBackend(BucketStore(prefix)), prefix)

    async def publish(expected: Any) -> str:
        config = configuration(tmp_path, manifest=WriterManifestConfig(store=store, expected_current=expected))
        return (await write_hash_sharded(range(100), config, ROWS, QUIET)).manifest_ref

    first = await publish(ANY)
    assert await read(tmp_path, [5]) == [b"value 5"]
    second = await publish(first)
    with pytest.raises(PublishConflictError) as caught:
        await publish(first)
    assert (caught.value.expected, caught.value.found) == (first, second)
    await store.set_current(first)
    current = await store.load_current()
    assert current is not None and current.ref == first


async def test_an_async_store_over_memory_has_no_compare_and_swap() -> None:
    from shardyfusion import ConfigValidationError

    store = AsyncS3ManifestStore(AsyncMemoryBackend(), "s3://bucket/p")
    with pytest.raises(ConfigValidationError, match="needs a storage backend with put_if"):
        await store.publish(run_id="r", required_build=None, shards=[], custom={}, expected_current=None)  # type: ignore[arg-type]


def test_stores_of_either_kind_anywhere(tmp_path: Path) -> None:
    from shardyfusion.async_manifest_store import as_async_store, as_sync_store
    from shardyfusion.writer.python import write_hash_sharded as write_blocking

    prefix = (tmp_path / "snap").as_uri()
    sync = as_sync_store(AsyncS3ManifestStore(AsyncObstoreBackend(BucketStore(prefix)), prefix))
    assert as_sync_store(sync) is sync
    config = configuration(tmp_path, manifest=WriterManifestConfig(store=sync))
    first = write_blocking(range(100), config, ROWS, QUIET).manifest_ref
    second = write_blocking(range(50), config, ROWS, QUIET).manifest_ref
    assert asyncio.run(read(tmp_path, [5, 99])) == [b"value 5", None]
    sync.set_current(first)
    assert asyncio.run(read(tmp_path, [99])) == [b"value 99"]
    assert [ref.ref for ref in sync.list_manifests()] == [second, first]

    store = as_async_store(InMemoryManifestStore())

    async def publish() -> str:
        config = configuration(tmp_path, manifest=WriterManifestConfig(store=store))  # type: ignore[arg-type]
        return (await write_hash_sharded([1], config, ROWS, QUIET)).manifest_ref

    ref = asyncio.run(publish())
    current = asyncio.run(store.load_current())
    assert current is not None and current.ref == ref


def test_an_async_store_does_not_serve_the_blocking_writer(tmp_path: Path) -> None:
    from shardyfusion import ConfigValidationError
    from shardyfusion.writer.python import write_hash_sharded as write_blocking

    prefix = (tmp_path / "snap").as_uri()
    store = AsyncS3ManifestStore(AsyncObstoreBackend(BucketStore(prefix)), prefix)
    with pytest.raises(ConfigValidationError, match="as_sync_store"):
        write_blocking([1], configuration(tmp_path, manifest=WriterManifestConfig(store=store)), ROWS, QUIET)  # type: ignore[arg-type]
    assert shards(tmp_path) == []
