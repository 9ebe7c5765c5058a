"""Opening SQLite shards that our writers published, as test_opening.py has it for those of SlateDB."""

from __future__ import annotations

import base64
import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from http_proxy import Log, Proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server  # noqa: E402
from test_opening import cut, manifest_path, other_kind, rewrite  # noqa: E402

from shardyfusion import AsyncShardedReader, HashShardedWriteConfig, PythonRecordInput, ShardedReader  # noqa: E402
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.reader import AsyncAutoReaderFactory, AutoReaderFactory  # noqa: E402
from shardyfusion.sqlite_adapter import SqliteFactory  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

SHARDS, KEYS, TRIES = 12, 3000, 10
ACCESS = {"credential_provider": StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY)}


def value_of(key: int) -> bytes:
    return f"value {key} ".encode() * 20


def over(endpoint: str | None) -> dict[str, Any]:
    return {} if endpoint is None else ACCESS | {"s3_connection_options": {"endpoint_url": endpoint, "region_name": REGION}}


def publish(prefix: str, endpoint: str | None = None, shards: int = SHARDS, **options: Any) -> None:
    shared = over(endpoint)
    config = HashShardedWriteConfig(num_dbs=shards, s3_prefix=prefix, adapter_factory=SqliteFactory(**options, **shared), **shared)
    write_hash_sharded(range(KEYS), config, PythonRecordInput(key_fn=lambda key: key, value_fn=value_of))


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as s:
        (s.folder / "bucket").mkdir()
        publish("s3://bucket/many", s.endpoint)
        publish("s3://bucket/bare", s.endpoint, emit_sidecar=False)
        yield s


async def open_reader(name: str, endpoint: str, folder: Path, mode: str, **options: Any) -> AsyncShardedReader:
    factory = AsyncAutoReaderFactory(sqlite_mode=mode, **over(endpoint))  # type: ignore[arg-type]
    return await AsyncShardedReader.open(s3_prefix=f"s3://bucket/{name}", local_root=str(folder), reader_factory=factory, **over(endpoint), **options)


def kinds(log: Log) -> list[str]:
    return sorted("listing" if "list-type=2" in r.target else r.target.rsplit("/")[-1].split("?")[0] for r in log.requests)


@pytest.mark.parametrize(("name", "part"), [("many", "shard.sidecar"), ("bare", "shard.db")])
async def test_opening_takes_three_round_trips_and_a_request_a_shard(name: str, part: str, counted: Proxy, tmp_path: Path) -> None:
    for _ in range(TRIES):  # a busy machine makes what goes out together look as if it went out in turn
        counted.log.reset()
        async with await open_reader(name, counted.endpoint, tmp_path, "range") as reader:
            assert kinds(counted.log) == ["_CURRENT", "listing", "manifest", *[part] * SHARDS]
            waves = counted.log.waves
            assert await reader.get(7) == value_of(7)
        if waves == 3:
            return
    pytest.fail(f"{waves} round trips")


async def test_copies_that_are_there_take_no_request(counted: Proxy, tmp_path: Path) -> None:
    async with await open_reader("many", counted.endpoint, tmp_path, "download"):
        pass
    counted.log.reset()
    async with await open_reader("many", counted.endpoint, tmp_path, "download") as reader:
        assert kinds(counted.log) == ["_CURRENT", "listing", "manifest"]
        assert await reader.get(7) == value_of(7)


async def test_a_lazy_shard_takes_a_round_trip(counted: Proxy, tmp_path: Path) -> None:
    async with await open_reader("many", counted.endpoint, tmp_path, "range", lazy_open=True) as reader:
        counted.log.reset()
        assert await reader.get(7) == value_of(7)
        assert kinds(counted.log) == ["listing", "shard.db", "shard.sidecar"]


# ---------------------------------------------------------------- what does not hold


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    publish((tmp_path / "snapshot").as_uri(), shards=2)
    return tmp_path / "snapshot"


def replace(db: Path) -> None:
    """Another object, of the same size, with other values."""
    db.with_name("new").write_bytes(db.read_bytes().replace(b"value ", b"VALUE "))
    os.replace(db.with_name("new"), db)


def vacuum(db: Path) -> None:
    """Other pages, and more rows."""
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE kv SET v = replace(v, 'value ', 'VALUE ')")
        connection.executemany("INSERT INTO kv VALUES (?, ?)", [(b"x%07d" % n, b"y" * 500) for n in range(500)])
        connection.commit()
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("VACUUM")


def read_all(snapshot: Path, mode: str, expected: Callable[[int], bytes]) -> None:
    factory = AutoReaderFactory(sqlite_mode=mode)  # type: ignore[arg-type]
    for _ in range(2):  # copies of the first are there for the second
        with ShardedReader(s3_prefix=snapshot.as_uri(), local_root=str(snapshot.parent / "root"), reader_factory=factory) as reader:
            assert reader.multi_get(range(KEYS)) == {key: expected(key) for key in range(KEYS)}


@pytest.mark.parametrize("mode", ["range", "download"])
@pytest.mark.parametrize("change", [replace, vacuum])
def test_a_shard_that_was_replaced_is_read_as_it_is_now(change: Callable[[Path], None], mode: str, snapshot: Path) -> None:
    read_all(snapshot, mode, expected=value_of)
    for db in snapshot.rglob("shard.db"):
        change(db)
    read_all(snapshot, mode, expected=lambda key: value_of(key).replace(b"value ", b"VALUE "))


@pytest.mark.parametrize("mode", ["range", "download"])
def test_the_same_where_the_manifest_says_that_it_is_slatedb(mode: str, snapshot: Path) -> None:
    with contextlib.closing(sqlite3.connect(manifest_path(snapshot))) as manifest, manifest:
        manifest.execute("UPDATE build_meta SET custom = json_set(custom, '$.kv_backend', 'slatedb')")
    read_all(snapshot, mode, expected=value_of)
    for db in snapshot.rglob("shard.db"):
        replace(db)
    read_all(snapshot, mode, expected=lambda key: value_of(key).replace(b"value ", b"VALUE "))


def other_bytes(record: bytes) -> bytes:
    return record[:1] + (int.from_bytes(record[1:9], "big") - 4096).to_bytes(8, "big") + record[9:]


def huge(record: bytes) -> bytes:
    return record[:1] + b"\xff" * 8 + record[9:]


def no_sidecar(record: bytes) -> bytes:
    return record[:9] + b"\0" + record[10:]


def other_etag(record: bytes) -> bytes:
    return record[:11] + b"x" * (len(record) - 11)


def injected(record: bytes) -> bytes:
    return record[:11] + b"x\r\nHost: elsewhere".ljust(len(record) - 11)[: len(record) - 11]


LIES = {"size": other_bytes, "huge": huge, "no sidecar": no_sidecar, "another ETag": other_etag, "more of a request": injected, "cut": cut,
        "another kind": other_kind, "random": lambda record: bytes(range(200)), "none": lambda record: b""}


@pytest.mark.parametrize("mode", ["range", "download"])
@pytest.mark.parametrize("lie", LIES)
def test_records_that_are_wrong_are_not_believed(lie: str, mode: str, snapshot: Path) -> None:
    rewrite(snapshot, lambda text: base64.b64encode(LIES[lie](base64.b64decode(text))).decode())
    read_all(snapshot, mode, expected=value_of)


def test_a_database_that_is_gone_is_named(snapshot: Path) -> None:
    next(snapshot.rglob("shard.db")).unlink()
    with pytest.raises(Exception, match="shard.db"):
        read_all(snapshot, "range", expected=value_of)
