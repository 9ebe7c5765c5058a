"""Deadlines, cancelling and refusals over a real S3 server.

Only two blocks of the golden snapshot are not loaded at opening, so the tests here are careful with what a reader reads to
the end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures import FIXTURES, case

sys.path.insert(0, str(FIXTURES.parent / "support"))

from http_proxy import Proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    DbAdapterError,
    S3TransientError,
    ShardyfusionError,
    StaticCredentialProvider,
)
from shardyfusion.errors import OperationTimeoutError  # noqa: E402
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory  # noqa: E402

CASE = case("slatedb-multi-l0")
CREDENTIALS = StaticCredentialProvider(ACCESS_KEY, SECRET_KEY)
ROWS = {key: value for key, _, value in CASE.lookups if value is not None}


class OwnFactory(AsyncSlateDbReaderFactory):
    """A subclass may do anything, so the reader puts the snapshot together in Python."""


def connection(server: S3Server) -> dict[str, Any]:
    return {"endpoint_url": server.endpoint, "region_name": REGION, "max_attempts": 2}


def opening(endpoint: str, *, secret: str = SECRET_KEY, **options: Any) -> Any:
    return AsyncShardedReader.open(
        s3_prefix=CASE.expected["s3_prefix"],
        local_root="unused",
        credential_provider=StaticCredentialProvider(ACCESS_KEY, secret),
        s3_connection_options={"endpoint_url": endpoint, "region_name": REGION, "max_attempts": 2},
        **options,
    )


async def cold_and_warm(reader: AsyncShardedReader, slow: Proxy) -> tuple[int, int]:
    """A key that needs a request, and one that does not."""
    slow.delay = 30.0
    warm = None
    for key in ROWS:
        try:
            await reader.get(key, timeout=0.02)
            warm = key
        except OperationTimeoutError:
            if warm is not None:
                return key, warm
    raise AssertionError("every key is in memory")


async def settled(reader: AsyncShardedReader) -> None:
    async with asyncio.timeout(60):
        while reader.health().borrowed:
            await asyncio.sleep(0.005)


async def test_deadlines_and_cancelling(slow: Proxy) -> None:
    async with opening(slow.endpoint) as reader:
        cold, warm = await cold_and_warm(reader, slow)
        for work in (
            reader.get(cold, timeout=0.05),
            reader.multi_get(list(ROWS), timeout=0.05),
            reader.get_many([warm, cold], timeout=0.05),
            reader.refresh(timeout=0.05),
        ):
            with pytest.raises(OperationTimeoutError) as caught:
                await work
            assert caught.value.retryable
        for make in (lambda: reader.get(cold), lambda: reader.multi_get([warm, cold]), reader.refresh):
            task = asyncio.create_task(make())
            async with asyncio.timeout(60):
                while reader.health().open_requests < 1:
                    await asyncio.sleep(0.001)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(make(), 0.02)
        async with reader.reader_for_key(cold) as handle:
            with pytest.raises(OperationTimeoutError):
                await handle.get(reader.encode_key(cold), timeout=0.05)
        assert await reader.get(warm) == ROWS[warm]
        await settled(reader)


async def test_opening_with_a_deadline(slow: Proxy) -> None:
    slow.delay = 30.0
    with pytest.raises(OperationTimeoutError):
        await opening(slow.endpoint, timeout=0.05)
    task = asyncio.create_task(opening(slow.endpoint))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_during_a_read(slow: Proxy) -> None:
    reader = await opening(slow.endpoint)
    cold, _ = await cold_and_warm(reader, slow)
    slow.delay = 0.1
    reads = [asyncio.create_task(reader.get(cold)) for _ in range(5)]
    await asyncio.sleep(0.02)
    await reader.close()
    assert await asyncio.gather(*reads) == [ROWS[cold]] * 5


async def test_nobody_answers() -> None:
    with pytest.raises(S3TransientError) as caught:
        await opening("http://127.0.0.1:9")
    assert caught.value.attempts == 2
    assert caught.value.retryable
    assert caught.value.operation == "get"
    assert caught.value.object_url == CASE.expected["s3_prefix"] + "/_CURRENT"


async def test_denied(server: S3Server) -> None:
    with pytest.raises(PermissionError) as caught:
        await opening(server.endpoint, secret="not-the-secret")
    assert isinstance(caught.value, ShardyfusionError)
    assert not caught.value.retryable
    assert "not-the-secret" not in repr(caught.value)


async def test_a_file_of_credentials_is_for_shards_only(server: S3Server, tmp_path: Path) -> None:
    env = tmp_path / "slate.env"
    env.write_text(
        f'# shards\nexport AWS_ACCESS_KEY_ID="{ACCESS_KEY}"\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n'
        f"AWS_ENDPOINT_URL={server.endpoint}\nAWS_REGION={REGION}\nAWS_ALLOW_HTTP=true\n")
    before = dict(os.environ)
    async with opening(server.endpoint, slate_env_file=str(env)) as reader:
        assert reader.snapshot_info().num_dbs == 2
    assert dict(os.environ) == before
    env.write_text(f"AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY=wrong\n")
    with pytest.raises(DbAdapterError) as caught:
        await opening(server.endpoint, slate_env_file=str(env))
    assert isinstance(caught.value, PermissionError)


@pytest.mark.parametrize("way", ["engine", "factory", "lazy"])
async def test_a_mirror_is_read_below_its_own_prefix(server: S3Server, tmp_path: Path, way: str) -> None:
    moved = case("slatedb-str-utf8")
    golden = server.folder / "bucket" / "golden" / moved.name
    mirror = server.folder / "bucket" / "mirror" / way
    if not mirror.exists():
        shutil.copytree(golden, mirror)
    lost = golden.rename(golden.with_name(f"lost-{moved.name}"))  # whatever is still read from there fails
    options: dict[str, Any] = {
        "engine": {}, "factory": {"reader_factory": OwnFactory(None, CREDENTIALS, connection(server))}, "lazy": {"lazy_open": True}
    }[way]
    arguments: dict[str, Any] = {
        "s3_prefix": f"s3://bucket/mirror/{way}/", "local_root": str(tmp_path), "credential_provider": CREDENTIALS,
        "s3_connection_options": connection(server), **options,
    }
    try:
        async with AsyncShardedReader.open(relocate=True, **arguments) as reader:
            rows = {key: value for key, _, value in moved.lookups}
            assert await reader.multi_get(list(rows)) == rows
            assert reader.shard_details()[0].db_url.startswith(f"s3://bucket/golden/{moved.name}/")  # as published
            assert await reader.refresh() is False
        with pytest.raises(FileNotFoundError):
            await AsyncShardedReader.open(**arguments)
    finally:
        lost.rename(golden)
