"""What scans read ahead: so much as they are told, in requests that grow as they go on."""

from __future__ import annotations

import asyncio
import inspect
import random
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from fixtures import FIXTURES  # noqa: E402
from http_proxy import Proxy, proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    ConcurrentShardedReader,
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
)
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

MIB = 1 << 20
ROWS = 2500
VALUE = random.Random(7).randbytes(4000)  # a row a block
CREDENTIALS = StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY)


@pytest.fixture(scope="module")
def counted() -> Iterator[Proxy]:
    """One shard of 10 MiB."""
    with s3_server(FIXTURES) as server, proxy(server.endpoint) as p:
        config = HashShardedWriteConfig(
            num_dbs=1, s3_prefix="s3://scratch/rows", credential_provider=CREDENTIALS,
            s3_connection_options={"endpoint_url": server.endpoint, "region_name": REGION},
        )
        write_hash_sharded(range(ROWS), config, PythonRecordInput(key_fn=int, value_fn=lambda n: n.to_bytes(4, "big") + VALUE))
        yield p


WAYS = ["async", "async, pinned", "async, handle", "plain", "concurrent, pinned", "plain, handle"]


@asynccontextmanager
async def scanned(way: str, counted: Proxy, root: Path) -> AsyncIterator[Any]:
    """What has the scan."""
    kind, _, what = way.partition(", ")
    options: Any = {
        "s3_prefix": "s3://scratch/rows", "local_root": str(root), "credential_provider": CREDENTIALS,
        "s3_connection_options": {"endpoint_url": counted.endpoint, "region_name": REGION},
    }
    if kind == "async":
        reader: Any = await AsyncShardedReader.open(**options)
    else:
        reader = {"plain": ShardedReader, "concurrent": ConcurrentShardedReader}[kind](**options)
    part = reader.pin() if what == "pinned" else reader.reader_for_key(1) if what == "handle" else None
    counted.log.reset()
    yield part or reader
    if part:
        part.close()
    closed = reader.close()
    if inspect.isawaitable(closed):
        await closed


async def take(rows: Any, count: int) -> list[int]:
    """The next keys."""
    if hasattr(rows, "__anext__"):
        return [int.from_bytes((await anext(rows))[0], "big") for _ in range(count)]
    return [int.from_bytes(key, "big") for key, _ in islice(rows, count)]


def asked(counted: Proxy) -> list[int]:
    """Bytes of the requests so far."""
    ranges = [request.range.removeprefix("bytes=").split("-") for request in counted.log.requests if request.range]
    return [int(last) - int(first) + 1 for first, last in ranges]


@pytest.mark.parametrize("way", WAYS)
async def test_block_by_block(way: str, counted: Proxy, tmp_path: Path) -> None:
    async with scanned(way, counted, tmp_path) as place:
        rows = place.scan(prefetch_bytes=0)
        assert await take(rows, 20) == list(range(20))
        assert max(asked(counted)) < 5000 and len(asked(counted)) >= 20
        await close(rows)


@pytest.mark.parametrize(("prefetch", "most"), [(MIB, MIB), (2 * MIB, 2 * MIB), (None, 8 * MIB)])
@pytest.mark.parametrize("way", WAYS)
async def test_as_far_as_it_is_told(way: str, prefetch: int | None, most: int, counted: Proxy, tmp_path: Path) -> None:
    async with scanned(way, counted, tmp_path) as place:
        rows = place.scan() if prefetch is None else place.scan(prefetch_bytes=prefetch)
        assert await take(rows, 1) == [0]
        used, here = 1, len(VALUE)
        assert asked(counted)[0] <= 64 << 10  # who wants little asks for little
        for _ in range(4):
            used += len(await take(rows, 200))
        here = used * len(VALUE)
        while sum(asked(counted)) < here + min(most // 2, 3 * MIB):  # the requests are on their way
            await asyncio.sleep(0.01)
        assert sum(asked(counted)) <= here + most + 2 * MIB  # that a step has taken, which is 1 MiB, and a part of a window
        assert max(asked(counted)) <= MIB
        await close(rows)


async def close(rows: Any) -> None:
    closed = rows.aclose() if hasattr(rows, "aclose") else rows.close()
    if inspect.isawaitable(closed):
        await closed


@pytest.mark.parametrize("way", WAYS)
async def test_all_rows_either_way(way: str, counted: Proxy, tmp_path: Path) -> None:
    async with scanned(way, counted, tmp_path) as place:
        for reverse in (False, True):
            counted.log.reset()
            rows = place.scan(reverse=reverse)
            keys = await take(rows, ROWS)
            assert keys == list(range(ROWS))[:: -1 if reverse else 1]
            assert len(asked(counted)) <= 20  # of 10 MiB
            await close(rows)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("prefetch", "error"), [(-1, ValueError), (1.5, (TypeError, ValueError)), (1 << 64, ValueError)])
async def test_what_is_none(way: str, prefetch: Any, error: Any, counted: Proxy, tmp_path: Path) -> None:
    async with scanned(way, counted, tmp_path) as place:
        with pytest.raises(error, match="prefetch_bytes"):
            place.scan(prefetch_bytes=prefetch)
