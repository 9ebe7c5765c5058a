"""Pinned snapshots: several reads of the same one, whatever becomes of the reader. And keys out of stored bytes."""

from __future__ import annotations

import gc
import inspect
import pickle
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from fixtures import CEL, case, typed
from plugged import Factory, Store
from test_following import Snapshots

from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    ManifestRef,
    MetricEvent,
    ReaderStateError,
    ShardedReader,
    SlateDbReaderFactory,
)
from shardyfusion.errors import ConfigValidationError
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory
from shardyfusion.testing import ListMetricsCollector

HISTORY = case("history-three-runs")
ROWS = {
    run["run_id"]: {typed(x["key"]): x["value"] and bytes.fromhex(x["value"]) for x in run["lookups"]}
    for run in HISTORY.expected["runs"]
}


class OwnFactory(SlateDbReaderFactory):
    """A subclass may do anything, so the reader asks it."""


class OwnAsyncFactory(AsyncSlateDbReaderFactory):
    """The same."""


WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "async": (AsyncShardedReader, {}),
    "async, factory": (AsyncShardedReader, {"reader_factory": OwnAsyncFactory()}),
    "plain": (ShardedReader, {}),
    "plain, factory": (ShardedReader, {"reader_factory": OwnFactory()}),
    "concurrent": (ConcurrentShardedReader, {}),
    "concurrent, factory": (ConcurrentShardedReader, {"reader_factory": OwnFactory()}),
}


async def now(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def opened(way: str, tmp_path: Path, prefix: str, **more: Any) -> Any:
    cls, options = WAYS[way]
    arguments = {"s3_prefix": prefix, "local_root": str(tmp_path / "local"), **options, **more}
    return await (cls.open(**arguments)) if cls is AsyncShardedReader else cls(**arguments)


async def rows_of(scan: Any) -> list[Any]:
    return [row async for row in scan] if hasattr(scan, "__aiter__") else list(scan)


@pytest.mark.parametrize("way", WAYS)
async def test_what_readers_have_leaves_their_dict_to_callers(way: str, tmp_path: Path) -> None:
    """CPython 3.13 looks methods of such objects up the slow way when there is something in their dict: see SLOTS."""
    snapshots = Snapshots(tmp_path / "snapshots")
    snapshots.point_at("run-000")
    reader = await opened(way, tmp_path, str(snapshots.prefix))
    await now(reader.refresh())
    everything = [reader, reader.pin()]
    if way in ("plain", "concurrent"):
        everything += [reader.as_async(), reader.as_async().pin()]
    for one in everything:
        assert vars(one) == {}
        one.of_the_caller = 1
        assert vars(one) == {"of_the_caller": 1}
    for one in reversed(everything):
        await now(one.close())


@pytest.mark.parametrize("way", WAYS)
async def test_it_stays_across_refresh_and_close(way: str, tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "snapshots")
    snapshots.point_at("run-000")
    collector = ListMetricsCollector()
    reader = await opened(way, tmp_path, str(snapshots.prefix), metrics_collector=collector)
    pinned = reader.pin()
    rows = ROWS["run-000"]
    found = {key: value for key, value in rows.items() if value is not None}
    absent = next(key for key, value in rows.items() if value is None)
    assert reader.health().borrowed == 1
    snapshots.point_at("run-001")
    assert await now(reader.refresh())
    for closed in (False, True):
        assert pinned.snapshot_info().run_id == "run-000"
        assert await now(pinned.multi_get(list(rows))) == rows
        assert await now(pinned.get_many(list(rows))) == list(rows.values())
        key = next(iter(found))
        assert await now(pinned.get(key)) == found[key]
        assert await now(pinned.get(absent, timeout=20)) is None
        assert await now(pinned.contains(key)) is True
        assert await now(pinned.contains_many([absent, key])) == [False, True]
        assert pinned.try_get(key, None) in (None, found[key])
        scanned = await rows_of(pinned.scan(limit=5))
        assert len(scanned) == 5 and all(value[:4] == b"run0" for _, value in scanned)
        handle = pinned.reader_for_key(key)
        assert await now(handle.get(pinned.encode_key(key))) == found[key]
        handle.close()
        assert pinned.decode_key(pinned.encode_key(key)) == key
        assert pinned.route_key(key) == pinned.shard_for_key(key).db_id
        assert len(pinned.shard_details()) == pinned.snapshot_info().num_dbs
        with pytest.raises(ValueError):
            await now(pinned.get("text"))
        if not closed:
            assert reader.snapshot_info().run_id == "run-001"
            await now(reader.close())
    pinned.close()
    pinned.close()
    for work in (
        pinned.snapshot_info, lambda: pinned.get(key), lambda: pinned.multi_get([key]), pinned.scan, lambda: pinned.try_get(key)
    ):
        with pytest.raises(ReaderStateError):
            await now(work())
    told = [event for event, _ in collector.events]
    assert told.count(MetricEvent.READER_MULTI_GET) >= 4 and told.count(MetricEvent.READER_GET) >= 4


@pytest.mark.parametrize("way", WAYS)
async def test_in_a_with_statement_and_dropped(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path, HISTORY.prefix)
    with reader.pin() as pinned:
        assert pinned.snapshot_info() == reader.snapshot_info()
        assert reader.health().borrowed == 1
    assert reader.health().borrowed == 0
    if "async" in way:
        async with reader.pin() as pinned:
            assert reader.health().borrowed == 1
    pinned = reader.pin()
    scan = pinned.scan()
    pinned.close()
    assert await rows_of(scan)
    assert reader.health().borrowed == 0
    pinned = reader.pin()
    del pinned
    gc.collect()
    assert reader.health().borrowed == 0
    await now(reader.close())
    with pytest.raises(ReaderStateError):
        reader.pin()


@pytest.mark.parametrize("way", ["async", "plain", "plain, factory"])
async def test_with_strict_keys(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path, HISTORY.prefix, strict_keys=True)
    with reader.pin() as pinned:
        for work in (pinned.get, pinned.try_get, lambda key: pinned.multi_get([key])):
            with pytest.raises(ConfigValidationError, match="strict_keys"):
                await now(work(b"\0" * 8))
    await now(reader.close())


@pytest.mark.parametrize("way", ["async", "plain"])
async def test_with_a_routing_context(way: str, tmp_path: Path) -> None:
    golden = next(one for one in CEL if one.name == "slatedb-cel-categorical")
    reader = await opened(way, tmp_path, golden.prefix)
    with reader.pin() as pinned:
        for one in golden.expected["lookups"]:
            if "value" in one:
                context = {name: typed(value) for name, value in one["context"].items()}
                expected = one["value"] and bytes.fromhex(one["value"])
                assert await now(pinned.get(typed(one["key"]), routing_context=context)) == expected
    await now(reader.close())


@pytest.mark.parametrize("way", WAYS)
async def test_readers_of_one_manifest(way: str, tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "snapshots")
    snapshots.write("this is no pointer")  # nobody asks for it
    ref = next(run["manifest_ref"] for run in HISTORY.expected["runs"] if run["run_id"] == "run-001")
    for named in (ref, "run_id=run-001", ManifestRef(ref, "run-001", datetime(2026, 1, 1, tzinfo=timezone.utc))):
        reader = await opened(way, tmp_path, str(snapshots.prefix), snapshot=named)
        assert reader.snapshot_info().run_id == "run-001"
        assert reader.snapshot_info().manifest_ref.endswith(ref[ref.index("/manifests/") :])
        assert await now(reader.multi_get(list(ROWS["run-001"]))) == ROWS["run-001"]
        assert await now(reader.refresh()) is False
        await now(reader.close())
    with pytest.raises(FileNotFoundError, match="run_id=run-009"):
        await opened(way, tmp_path, str(snapshots.prefix), snapshot="run_id=run-009")
    with pytest.raises(FileNotFoundError):
        await opened(way, tmp_path, str(snapshots.prefix), snapshot=ref.replace("run-001", "run-00x"))
    with pytest.raises(ValueError, match="snapshot"):
        await opened(way, tmp_path, str(snapshots.prefix), snapshot="")


async def test_one_manifest_of_a_store_of_the_callers(tmp_path: Path) -> None:
    store = Store()
    for run in ("run_id=1", "run_id=2"):
        store.publish(run)
    options = {"s3_prefix": "any", "local_root": str(tmp_path), "manifest_store": store, "reader_factory": Factory()}
    async with AsyncShardedReader.open(snapshot=store.ref("run_id=1"), **options) as reader:
        assert reader.snapshot_info().run_id == "run_id=1"
        assert "load_current" not in store.calls
        assert await reader.get(1) == b"run_id=1:1"


@pytest.mark.parametrize("name", ["slatedb-hash-u64be", "slatedb-hash-u32be", "slatedb-str-utf8", "slatedb-bytes-raw"])
@pytest.mark.parametrize("way", ["async", "plain"])
async def test_keys_of_stored_bytes(way: str, name: str, tmp_path: Path) -> None:
    golden = case(name)
    reader = await opened(way, tmp_path, golden.prefix)
    keys = [key for key, _, value in golden.lookups if value is not None]
    for key in keys:
        decoded = reader.decode_key(reader.encode_key(key))
        assert decoded == (key.encode() if reader.key_encoding.value == "raw" and isinstance(key, str) else key)
    if reader.key_encoding.value in ("u64be", "u32be"):
        with pytest.raises(ValueError):
            reader.decode_key(b"\xff" * 3)
    await now(reader.close())


@pytest.mark.parametrize("way", WAYS)
async def test_of_one_kind_of_keys(way: str, tmp_path: Path) -> None:
    """A subscription is for type checkers: what it opens is the reader itself."""
    cls, options = WAYS[way]
    of_numbers = cls[int]
    assert pickle.loads(pickle.dumps(of_numbers)) == of_numbers
    arguments = {"s3_prefix": HISTORY.prefix, "local_root": str(tmp_path / "local"), **options}
    reader = await of_numbers.open(**arguments) if cls is AsyncShardedReader else of_numbers(**arguments)
    assert type(reader) is cls and isinstance(reader, cls)
    with reader.pin() as pinned:
        for key, value in ROWS[reader.snapshot_info().run_id].items():
            assert await now(pinned.get(key)) == await now(reader.get(key)) == value
    await now(reader.close())
