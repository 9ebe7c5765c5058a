"""Rows of scans as lists and as Arrow data: of readers, pinned snapshots and handles, over the engine's shards and the caller's."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fixtures import case
from test_pinned import WAYS, opened

from shardyfusion import ReaderStateError
from shardyfusion.testing import ListMetricsCollector

pa = pytest.importorskip("pyarrow")
NAMES = ["slatedb-hash-u64be", "slatedb-hash-u32be", "slatedb-str-utf8", "slatedb-bytes-raw"]
KEY_TYPES = {"u64be": pa.uint64(), "u32be": pa.uint32(), "utf8": pa.string(), "raw": pa.binary()}


async def now(result: Any) -> Any:
    if hasattr(result, "__aiter__"):
        return [one async for one in result]
    if inspect.isawaitable(result):
        return await result
    return list(result) if hasattr(result, "__next__") else result


def pairs(table: Any) -> list[tuple[Any, bytes]]:
    assert table.schema.names == ["key", "value"] and not any(field.nullable for field in table.schema)
    table.validate(full=True)
    return list(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
async def test_the_same_rows_in_every_form(way: str, name: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path, case(name).prefix)
    for options in (
        {}, {"decode_keys": True}, {"limit": 7}, {"order": "shard"}, {"order": "shard", "limit": 7, "decode_keys": True},
        {"reverse": True, "decode_keys": True},
    ):
        rows = await now(reader.scan(**options))
        table = await now(reader.scan(**options).to_arrow())
        assert pairs(table) == rows, options
        expected = KEY_TYPES[reader.key_encoding.value] if options.get("decode_keys") else pa.binary()
        assert table.schema.field("key").type == expected
        lists = await now(reader.scan(**options).batches(5))
        assert [row for one in lists for row in one] == rows
        assert {len(one) for one in lists[:-1]} <= {5}
        batches = await now(reader.scan(**options).arrow_batches())
        assert sum(batch.num_rows for batch in batches) == len(rows)
    empty = await now(reader.scan(limit=0, decode_keys=True).to_arrow())
    assert pairs(empty) == [] and empty.schema.field("key").type == KEY_TYPES[reader.key_encoding.value]
    with pytest.raises(ValueError, match="size"):
        await now(reader.scan().batches(0))
    with reader.pin() as pinned:
        assert pairs(await now(pinned.scan().to_arrow())) == await now(pinned.scan())
    key = next(key for key, _, value in case(name).lookups if value is not None)
    handle = reader.reader_for_key(key)
    assert pairs(await now(handle.scan().to_arrow())) == await now(handle.scan()) != []
    handle.close()
    assert reader.health().borrowed == 0
    await now(reader.close())


@pytest.mark.parametrize("way", ["plain", "plain, factory", "concurrent"])
async def test_streams(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path, case(NAMES[0]).prefix)
    rows = await now(reader.scan(decode_keys=True))
    assert pairs(pa.table(reader.scan(decode_keys=True))) == rows
    stream = pa.RecordBatchReader.from_stream(reader.scan(order="shard"))
    assert sorted(pairs(stream.read_all())) == sorted(await now(reader.scan()))
    dropped = pa.RecordBatchReader.from_stream(reader.scan())  # nobody reads it
    del dropped
    handle = reader.reader_for_key(rows[0][0])
    assert pairs(pa.table(handle.scan())) == await now(handle.scan())
    handle.close()
    assert reader.health().borrowed == 0
    await now(reader.close())


@pytest.mark.parametrize("way", ["async", "plain", "concurrent"])
async def test_handles_of_a_reader_with_a_collector(way: str, tmp_path: Path) -> None:
    c = case(NAMES[0])
    reader = await opened(way, tmp_path, c.prefix, metrics_collector=ListMetricsCollector())
    handle = reader.reader_for_key(next(key for key, _, value in c.lookups if value is not None))
    rows = await now(handle.scan())
    assert pairs(await now(handle.scan().to_arrow())) == rows != []
    lists = await now(handle.scan(limit=12).batches(5))
    assert [row for one in lists for row in one] == rows[:12] and len(lists[0]) == 5
    assert await now(handle.scan(reverse=True, limit=3)) == rows[:-4:-1]
    handle.close()
    assert reader.health().borrowed == 0
    await now(reader.close())


@pytest.mark.parametrize("way", ["async", "plain"])
async def test_what_a_scan_refuses(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path, case(NAMES[0]).prefix, metrics_collector=ListMetricsCollector())
    scan = reader.scan()
    await anext(scan) if way == "async" else next(scan)
    with pytest.raises(ReaderStateError, match="one by one"):
        await now(scan.to_arrow())
    scan.close()
    closed = reader.scan()
    closed.close()
    if way == "async":
        with pytest.raises(ReaderStateError, match="closed"):
            await closed.to_arrow()
    else:
        assert pairs(closed.to_arrow()) == []
    if way == "plain":
        stream = pa.RecordBatchReader.from_stream(reader.scan(timeout=0))
        scan = reader.scan()
        next(scan)
        with pytest.raises(Exception, match="one by one"):
            pa.RecordBatchReader.from_stream(scan).read_all()
        scan.close()
        del stream
    assert reader.health().borrowed == 0
    await now(reader.close())


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Threads give way to one another as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def test_a_scan_that_several_threads_step_and_one_closes(busy_threads: None, tmp_path: Path) -> None:
    """Batches are made without the GIL: whoever closes the scan, or steps it, meanwhile takes nothing from under the other."""
    reader = await opened("concurrent", tmp_path, case(NAMES[0]).prefix)
    rows = len(await now(reader.scan()))

    def walk(scan: Any, close_at: int) -> tuple[int, str]:
        taken = 0
        while True:
            try:
                if close_at >= 0 and taken >= close_at:
                    scan.close()
                batch = scan.next_batch("raw", 1).wait()
            except ReaderStateError:  # another one is in it
                continue
            except ValueError as e:
                return taken, str(e)
            if batch is None:
                return taken, "end"
            taken += batch[2]

    for close_at in (-1, 0, rows // 8):
        for _ in range(5):
            outer = reader.scan()
            scan = next(outer._scans)._scan
            with ThreadPoolExecutor(3) as pool:
                ends = list(pool.map(walk, [scan] * 3, [-1, -1, close_at]))
            assert sum(taken for taken, _ in ends) <= rows
            assert {why for _, why in ends} <= ({"end"} if close_at < 0 else {"end", "the scan is closed"})
            assert close_at >= 0 or sum(taken for taken, _ in ends) == rows
            scan.close()
            outer.close()
    assert reader.health().borrowed == 0
    await now(reader.close())
