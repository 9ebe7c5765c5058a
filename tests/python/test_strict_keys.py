"""Bytes as the keys of look-ups on a snapshot of integers: warned of once per reader, or refused, whichever way they take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import (
    AsyncS3ManifestStore,
    AsyncShardedReader,
    ConcurrentShardedReader,
    ConfigValidationError,
    HashShardedWriteConfig,
    PythonRecordInput,
    S3ManifestStore,
    ShardedReader,
    TokenBucket,
)
from shardyfusion.storage import AsyncObstoreBackend, BucketStore, ObstoreBackend
from shardyfusion.testing import ListMetricsCollector
from shardyfusion.writer.python import write_hash_sharded

EVENT = "reader_bytes_key_on_integer_snapshot"
STORED = (5).to_bytes(8, "big")


class Unlimited:
    def acquire(self, tokens: int = 1) -> None: ...

    async def acquire_async(self, tokens: int = 1) -> None: ...


# name -> options of a reader, given what makes its manifest store, and the prefix
WAYS: dict[str, Callable[[Any, str], dict[str, Any]]] = {
    "engine": lambda store, prefix: {},
    "collector and bucket": lambda store, prefix: {
        "metrics_collector": ListMetricsCollector(), "rate_limiter": TokenBucket(1e9),
    },
    "own limiter": lambda store, prefix: {"rate_limiter": Unlimited()},
    "own store": lambda store, prefix: {"manifest_store": store(prefix)},
}
READERS = {"async": AsyncShardedReader, "blocking": ShardedReader, "concurrent": ConcurrentShardedReader}


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("strict")
    made = {}
    for encoding, key_of in (("u64be", lambda n: n), ("u32be", lambda n: n), ("raw", lambda n: b"%08d" % n)):
        made[encoding] = (folder / encoding).as_uri()
        records = PythonRecordInput(key_fn=key_of, value_fn=lambda n: b"%d" % n)
        write_hash_sharded(
            range(50), HashShardedWriteConfig(num_dbs=2, s3_prefix=made[encoding], key_encoding=encoding), records
        )
    return made


def asked(kind: str, prefix: str, way: str, work: list[tuple[str, Any]], local_root: Path, **options: Any) -> list[Any]:
    """What calls of a reader's methods answer, or the exceptions that they raise."""
    def store(prefix: str) -> Any:
        kept = BucketStore(prefix)
        if kind == "async":
            return AsyncS3ManifestStore(AsyncObstoreBackend(kept), prefix)
        return S3ManifestStore(ObstoreBackend(kept), prefix)

    arguments = {"s3_prefix": prefix, "local_root": str(local_root), **WAYS[way](store, prefix), **options}
    answers: list[Any] = []

    async def through_asyncio() -> None:
        async with AsyncShardedReader.open(**arguments) as reader:
            for method, argument in work:
                try:
                    answers.append(await getattr(reader, method)(argument))
                except Exception as error:
                    answers.append(error)

    if kind == "async":
        asyncio.run(through_asyncio())
        return answers
    with READERS[kind](**arguments) as reader:
        for method, argument in work:
            try:
                answers.append(getattr(reader, method)(argument))
            except Exception as error:
                answers.append(error)
    return answers


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == EVENT]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("encoding", ["u64be", "u32be"])
def test_one_warning_per_reader(
    prefixes: dict[str, str], kind: str, way: str, encoding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = STORED if encoding == "u64be" else STORED[4:]
    for first in (("get", stored), ("multi_get", [3, stored])):
        caplog.clear()
        work = [("get", 5), first, ("get", stored), ("multi_get", [stored, 4]), ("get", b"short")]
        five, one, other, batch, short = asked(kind, prefixes[encoding], way, work, tmp_path)
        assert five == b"5"
        assert other in (None, b"5") and batch == {stored: other, 4: b"4"}, "as if nobody had looked"
        assert one == (other if first[0] == "get" else {3: b"3", stored: other})
        assert isinstance(short, ValueError), "whose length cannot be right"
        (record,) = warnings_in(caplog)
        assert record.levelno == logging.WARNING and record.name.startswith("shardyfusion.reader.")
        assert (record.shardyfusion["encoding"], record.shardyfusion["s3_prefix"]) == (encoding, prefixes[encoding])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", READERS)
def test_strict_keys(
    prefixes: dict[str, str], kind: str, way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = [("get", STORED), ("multi_get", [1, STORED]), ("get", STORED), ("get", 5), ("multi_get", [5])]
    *refused, five, batch = asked(kind, prefixes["u64be"], way, work, tmp_path, strict_keys=True)
    for error in refused:
        assert isinstance(error, ConfigValidationError) and isinstance(error, ValueError), error
        assert str(error) == (
            "the keys of this snapshot are integers (u64be), and the reader has strict_keys: give "
            "int.from_bytes(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x05', 'big') in place of these bytes"
        )
    assert (five, batch) == (b"5", {5: b"5"})
    assert warnings_in(caplog) == []


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", READERS)
def test_other_snapshots_take_bytes(
    prefixes: dict[str, str], kind: str, way: str, strict: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = b"%08d" % 7
    work = [("get", key), ("multi_get", [key, b"none"])]
    assert asked(kind, prefixes["raw"], way, work, tmp_path, strict_keys=strict) == [b"7", {key: b"7", b"none": None}]
    assert warnings_in(caplog) == []


async def test_a_guard_that_closes_the_reader(prefixes: dict[str, str], tmp_path: Path) -> None:
    """What is called in the midst of a look-up may do as it likes."""
    from shardyfusion import _native

    class Core(_native.ReaderCore):
        def _opened(self) -> None:
            pass

    core = Core()

    def detach(key: bytes, encoding: str) -> bool:
        core._detach()
        return False

    core._attach(_native.open_reader(prefixes["u64be"], {}, 10).wait(), key_guard=detach)
    with pytest.raises(RuntimeError, match="detached"):
        await core.get(STORED)
    core._attach(_native.open_reader(prefixes["u64be"], {}, 10).wait(), key_guard=lambda key, encoding: 1 / 0)
    for work in (core.get(STORED), core.multi_get([STORED]), core.get_many([STORED])):
        with pytest.raises(ZeroDivisionError):
            await work
