"""What belongs to the engine of its process is neither copied nor pickled; what only says how to open it is."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import case
from plugged import Factory, Store, SyncStore

from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    EnvCredentialProvider,
    HashShardedWriteConfig,
    ShardedReader,
    SlateDbFactory,
    StaticCredentialProvider,
    TokenBucket,
)
from shardyfusion._engine import native
from shardyfusion.reader import AsyncSlateDbReaderFactory, SlateDbReaderFactory
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.storage import AsyncObstoreBackend, ObstoreBackend, create_s3_store

PREFIX = case("history-three-runs").prefix
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "old pickle": lambda o: pickle.dumps(o, protocol=0),
    "in a list": lambda o: copy.deepcopy([o]),
}


class Mine(AsyncShardedReader):
    pass


def refuses(o: Any) -> None:
    for way, do in WAYS.items():
        with pytest.raises(TypeError) as caught:
            do(o)
        assert str(caught.value) == (
            f"{type(o).__name__} objects cannot be copied or pickled: open one in each process"), (way, o)


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader])
def test_blocking_readers(cls: Any, tmp_path: Path) -> None:
    with cls(s3_prefix=PREFIX, local_root=str(tmp_path)) as reader:
        handle, scan = reader.reader_for_key(1), reader.scan()
        first = next(scan)
        for o in (reader, handle, handle.reader, handle.scan(), scan, reader._state, reader._source):
            refuses(o)
        assert reader.health().status == "healthy" and reader.health().borrowed == 2
        assert reader.get(int.from_bytes(first[0], "big")) == first[1]
        handle.close()
        scan.close()
    refuses(reader)


async def test_the_async_reader(tmp_path: Path) -> None:
    refuses(AsyncShardedReader(s3_prefix=PREFIX, local_root=str(tmp_path)))
    async with Mine.open(s3_prefix=PREFIX, local_root=str(tmp_path)) as reader:
        handle, scan, get = reader.reader_for_key(1), reader.scan(), reader.get(1)
        first = await anext(scan)
        for o in (reader, handle, handle.reader, scan, get, reader._state, reader._source):
            refuses(o)
        get.close()
        assert reader.health().borrowed == 2
        assert await reader.get(int.from_bytes(first[0], "big")) == first[1]
        handle.close()
        scan.close()
    refuses(reader)


def test_readers_of_ones_own_parts(tmp_path: Path) -> None:
    store = Store()
    store.publish("run-1")
    factory = Factory()

    async def lazily() -> None:
        async with AsyncShardedReader.open(
            s3_prefix="x", local_root=str(tmp_path), manifest_store=store, reader_factory=factory, lazy_open=True
        ) as reader:
            with reader_handle(reader) as handle:
                for o in (reader, handle, handle.reader):
                    refuses(o)

    class SyncShard:
        def __init__(self, **arguments: Any) -> None: ...
        def get(self, key: bytes) -> bytes: return b"v"
        def close(self) -> None: ...

    with ConcurrentShardedReader(
        s3_prefix="x", local_root=str(tmp_path), manifest_store=SyncStore(store), reader_factory=SyncShard,
        thread_safety="pool",
    ) as reader:
        with reader.reader_for_key(1) as handle:
            for o in (reader, handle, handle.reader):
                refuses(o)
            assert handle.get(b"k") == b"v"
    asyncio.run(lazily())


class reader_handle:  # noqa: N801
    def __init__(self, reader: Any) -> None:
        self.handle = reader.reader_for_key(1)

    def __enter__(self) -> Any:
        return self.handle

    def __exit__(self, *_: object) -> None:
        self.handle.close()


def test_stores_and_adapters(tmp_path: Path) -> None:
    store = create_s3_store("bucket")
    for o in (store, store.objects, ObstoreBackend(store), AsyncObstoreBackend(store), native.StoreEvents(),
              native.ReaderCore(), native.BlockingReaderCore()):
        refuses(o)
    for factory in (SlateDbFactory(), SqliteFactory()):
        adapter = factory(db_url=(tmp_path / type(factory).__name__).as_uri(), local_dir=tmp_path)
        refuses(adapter)
        refuses(adapter._writer)
        adapter.close()


def test_what_pickles() -> None:
    for o in (
        HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://bucket/p"), SlateDbFactory(), SqliteFactory(),
        SlateDbReaderFactory(env_file="x"), AsyncSlateDbReaderFactory(), EnvCredentialProvider(),
        StaticCredentialProvider(access_key_id="a", secret_access_key="b"), TokenBucket(5),
    ):
        for again in (copy.copy(o), copy.deepcopy(o), pickle.loads(pickle.dumps(o))):
            assert type(again) is type(o)
            assert type(o) is TokenBucket or type(o) is EnvCredentialProvider or again == o
