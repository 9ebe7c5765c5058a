"""Opening what our writers published: how many requests, how many of them in turn, and that whatever the manifest tells of a shard
is a hint that is compared with what lies there."""

from __future__ import annotations

import contextlib
import asyncio
import base64
import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from http_proxy import Log, Proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    BuildResult,
    CacheOptions,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
    ShardedReader,
)
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

SHARDS, KEYS = 40, 4000
LISTING, PARTS = "list-type=2", ".sst"
TRIES = 10
CREDENTIALS = StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY)


def value_of(key: int) -> bytes:
    return f"value {key} ".encode() * 20


def publish(prefix: str, endpoint: str | None = None, shards: int = SHARDS, changed: int | None = None, note: str = "", **options: bool) -> BuildResult:
    config = HashShardedWriteConfig(num_dbs=shards, s3_prefix=prefix)
    if endpoint:
        config.credential_provider = CREDENTIALS
        config.s3_connection_options = {"endpoint_url": endpoint, "region_name": REGION}
    if note:
        config.manifest.custom_manifest_fields = {"note": note}
    rows = PythonRecordInput[int](key_fn=lambda key: key, value_fn=lambda key: b"new" if key == changed else value_of(key))
    return write_hash_sharded(range(KEYS), config, rows, PythonWriteOptions(progress=False, **options))


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as s:
        (s.folder / "bucket").mkdir()
        publish("s3://bucket/many", s.endpoint)
        publish("s3://bucket/one", s.endpoint, shards=1)
        yield s


async def open_reader(name: str, endpoint: str, folder: Path, **options: object) -> AsyncShardedReader:
    return await AsyncShardedReader.open(
        s3_prefix=f"s3://bucket/{name}", local_root=str(folder), credential_provider=CREDENTIALS,
        s3_connection_options={"endpoint_url": endpoint, "region_name": REGION}, **options)


def kinds(log: Log) -> list[str]:
    """What was asked for, in the order of the names."""
    return sorted("listing" if LISTING in r.target else "part" if PARTS in r.target else r.target.rsplit("/")[-1] for r in log.requests)


@pytest.mark.parametrize(("name", "shards"), [("one", 1), ("many", SHARDS)])
async def test_opening_takes_three_round_trips_and_a_request_a_shard(name: str, shards: int, counted: Proxy, tmp_path: Path) -> None:
    for _ in range(TRIES):  # a busy machine makes what goes out together look as if it went out in turn
        counted.log.reset()
        async with await open_reader(name, counted.endpoint, tmp_path):
            assert kinds(counted.log) == ["_CURRENT", "listing", "manifest", *["part"] * shards]
            waves = counted.log.waves
        if waves == 3:
            return
    pytest.fail(f"{waves} round trips")


async def test_a_large_manifest_takes_no_round_trip_more(server: S3Server, counted: Proxy, tmp_path: Path) -> None:
    publish("s3://bucket/large", server.endpoint, shards=2, note="x" * 2_000_000)
    counted.log.reset()
    async with await open_reader("large", counted.endpoint, tmp_path):
        assert kinds(counted.log) == ["_CURRENT", "listing", "manifest", "part", "part"]


async def test_lazy_opening_takes_pointer_and_manifest_and_a_shard_one_round_trip(counted: Proxy, tmp_path: Path) -> None:
    for _ in range(TRIES):
        counted.log.reset()
        async with await open_reader("many", counted.endpoint, tmp_path, lazy_open=True) as reader:
            assert kinds(counted.log) == ["_CURRENT", "manifest"]
            counted.log.reset()
            assert await reader.get(7) == value_of(7)
            # a small shard comes whole: its rows are there with its index
            assert kinds(counted.log) == ["listing", "part"]
            waves = counted.log.waves
        if waves == 1:
            return
    pytest.fail(f"{waves} round trips")


async def test_a_refresh_opens_what_has_changed(server: S3Server, counted: Proxy, tmp_path: Path) -> None:
    publish("s3://bucket/moving", server.endpoint)
    async with await open_reader("moving", counted.endpoint, tmp_path) as reader:
        counted.log.reset()
        assert not await reader.refresh()
        assert kinds(counted.log) == ["_CURRENT"], "one conditional request"
        publish("s3://bucket/moving", server.endpoint, changed=7, reuse_unchanged=True)
        counted.log.reset()
        assert await reader.refresh()
        assert kinds(counted.log) == ["_CURRENT", "listing", "manifest", "part"]
        assert await reader.get(7) == b"new"
        assert await reader.get(8) == value_of(8)
    async with await open_reader("moving", counted.endpoint, tmp_path):  # shards of two runs: a listing each
        counted.log.reset()
    counted.log.reset()
    async with await open_reader("moving", counted.endpoint, tmp_path):
        assert kinds(counted.log) == ["_CURRENT", "listing", "listing", "manifest", *["part"] * SHARDS]


HOT = range(0, KEYS, 40)


@pytest.mark.parametrize(("warm_bytes", "all_of_it"), [(0, False), (64 << 10, False), (64 << 20, True)])
async def test_what_was_hot_is_read_before_the_reader_moves(warm_bytes: int, all_of_it: bool, server: S3Server, counted: Proxy, tmp_path: Path) -> None:
    name = f"warm{warm_bytes}"
    publish(f"s3://bucket/{name}", server.endpoint, shards=2)
    cache = CacheOptions(memory_bytes=32 << 20, warm_bytes=warm_bytes)
    async with await open_reader(name, counted.endpoint, tmp_path, cache=cache) as reader:
        assert await reader.multi_get(list(HOT)) == {key: value_of(key) for key in HOT}
        publish(f"s3://bucket/{name}", server.endpoint, shards=2, changed=1)
        counted.log.reset()
        assert await reader.refresh()
        read = kinds(counted.log).count("part") - 2  # of the two indexes
        counted.log.reset()
        assert await reader.multi_get(list(HOT)) == {key: value_of(key) for key in HOT}
        assert (read > 0) == (warm_bytes > 0)
        assert (counted.log.requests == []) == all_of_it


async def test_warming_keeps_to_its_bytes_where_blocks_have_grown(server: S3Server, counted: Proxy, tmp_path: Path) -> None:
    def fill(size: int) -> None:
        config = HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://bucket/grown", credential_provider=CREDENTIALS,
                                        s3_connection_options={"endpoint_url": server.endpoint, "region_name": REGION})
        rows = PythonRecordInput[int](key_fn=lambda key: key, value_fn=lambda key: random.Random(key).randbytes(size))
        write_hash_sharded(range(40), config, rows, PythonWriteOptions(progress=False))

    fill(500)
    cache = CacheOptions(memory_bytes=32 << 20, warm_bytes=64 << 10)
    async with await open_reader("grown", counted.endpoint, tmp_path, cache=cache) as reader:
        await reader.multi_get(list(range(40)))
        fill(30_000)
        before = reader.cache_stats().bytes_fetched
        assert await reader.refresh()
        assert 30_000 < reader.cache_stats().bytes_fetched - before < 80_000


async def test_warming_ends_when_it_is_cancelled(server: S3Server, counted: Proxy, tmp_path: Path) -> None:
    publish("s3://bucket/warming", server.endpoint, shards=2)
    async with await open_reader("warming", counted.endpoint, tmp_path, cache=CacheOptions(memory_bytes=32 << 20, read_gap_bytes=0, warm_bytes=64 << 20)) as reader:
        await reader.multi_get(list(HOT))
        publish("s3://bucket/warming", server.endpoint, shards=2, changed=1)
        delay = counted.delay
        task = asyncio.create_task(reader.refresh())
        counted.log.reset()
        try:
            while kinds(counted.log).count("part") <= 2:  # it reads more than the two indexes, and that takes long
                counted.delay = 1.0 if kinds(counted.log).count("part") >= 2 else delay
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await reader.get(0) == value_of(0)
        finally:
            counted.delay = delay
        assert await reader.refresh()
        assert await reader.get(1) == b"new"
    async with asyncio.timeout(60):
        while counted.log.in_flight:  # those that nobody waits for any more
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- shards that are not as recorded ----------------


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "snap"
    publish(folder.as_uri(), shards=4)
    return folder


def shard_of(snapshot: Path, key: int) -> Path:
    with ShardedReader(s3_prefix=snapshot.as_uri(), local_root=str(snapshot.parent / "root")) as reader:
        number = reader.route_key(key)
    (shard,) = snapshot.glob(f"shards/run_id=*/db={number:05d}/attempt=00")
    return shard


def manifest_path(snapshot: Path) -> Path:
    (path,) = snapshot.glob("manifests/*/manifest")
    return path


def check(snapshot: Path, *, lazy: bool, expected: dict[int, bytes | None] | None = None) -> None:
    """All rows are there, however it is opened."""
    want = {key: value_of(key) for key in range(0, KEYS, 7)} | (expected or {})

    async def read() -> dict[int, bytes | None]:
        async with AsyncShardedReader.open(s3_prefix=snapshot.as_uri(), local_root=str(snapshot.parent / "root"), lazy_open=lazy) as reader:
            return await reader.multi_get(list(want))

    assert asyncio.run(read()) == want


def touch_manifest(shard: Path) -> None:
    """As a reader of the existing package, or one who compacts, leaves it."""
    shutil.copy(shard / "manifest" / f"{1:020d}.manifest", shard / "manifest" / f"{2:020d}.manifest")


def fence(shard: Path) -> None:
    """As a writer of SlateDB 0.17 leaves it that has only opened the database."""
    (shard / "wal").mkdir()
    (shard / "wal" / f"{1:020d}.sst").touch()


def move_sst(shard: Path) -> None:
    """As a compactor leaves it: the SST has another name, and the old one is collected."""
    (path,) = (shard / "compacted").glob("*.sst")
    new = "01DXF6DT00000000000000000Z"
    old_id, new_id = (int.from_bytes(ulid_bytes(name), "big") for name in (path.stem, new))
    manifest = shard / "manifest" / f"{1:020d}.manifest"
    halves = [(value >> 64).to_bytes(8, "little") for value in (old_id, new_id)], [(value & (2**64 - 1)).to_bytes(8, "little") for value in (old_id, new_id)]
    data = manifest.read_bytes()
    for old, fresh in halves:
        assert data.count(old) == 1
        data = data.replace(old, fresh)
    manifest.with_name(f"{2:020d}.manifest").write_bytes(data)
    manifest.unlink()
    path.rename(path.with_name(f"{new}.sst"))


def ulid_bytes(text: str) -> bytes:
    value = 0
    for c in text:
        value = value * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(c)
    return value.to_bytes(16, "big")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("change", [touch_manifest, fence, move_sst])
def test_a_shard_that_somebody_wrote_to_is_read_as_it_is_now(change: Callable[[Path], None], lazy: bool, snapshot: Path) -> None:
    change(shard_of(snapshot, 7))
    check(snapshot, lazy=lazy)


@pytest.mark.parametrize("version", ["0.13.1", "0.17.0"])
def test_rows_that_slatedb_added_later_are_seen(version: str, snapshot: Path) -> None:
    shard = shard_of(snapshot, 7)
    program = """
import asyncio, sys
import slatedb.uniffi as slatedb
async def main():
    db = await slatedb.DbBuilder(sys.argv[1].lstrip("/"), slatedb.ObjectStore.resolve("file:///")).build()
    await db.put((7).to_bytes(8, "big"), b"later")
    await db.flush()
    await db.shutdown()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program, str(shard)], check=True, timeout=60,
                   env={"PYTHONPATH": str(ROOT / ".cache" / f"slatedb-{version}"), "PATH": "/usr/bin:/bin"})
    for lazy in (False, True):
        check(snapshot, lazy=lazy, expected={7: b"later"})


def cut(record: bytes) -> bytes:
    return record[:-5]


def offsets(record: bytes) -> bytes:
    """Where filter and index lie, off by some."""
    return record[:-9] + bytes([record[-9] ^ 1]) + record[-8:]


def other_sst(record: bytes) -> bytes:
    return record[:5] + bytes(b ^ 0x5A for b in record[5:13]) + record[13:]


def other_size(record: bytes) -> bytes:
    return record[:1] + bytes([record[1] ^ 1]) + record[2:]


def other_kind(record: bytes) -> bytes:
    return b"\x7f" + record[1:]


def empty(record: bytes) -> bytes:
    """As one of a shard without SSTs, which would hide all rows."""
    assert record[0] == 1 and record[1] >= 0x80 > record[2], "the length of the manifest takes two bytes"
    return record[:3] + b"\0"


LIES = {"cut": cut, "offsets": offsets, "another SST": other_sst, "another size": other_size, "another kind": other_kind, "no SST": empty,
        "random": lambda record: bytes(range(200)), "long": lambda record: b"\1" * 20_000}


def rewrite(snapshot: Path, change: Callable[[str], object]) -> None:
    """What the manifest tells of the opening of each shard becomes something else."""
    path = manifest_path(snapshot)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for db_id, text in db.execute("SELECT db_id, writer_info FROM shards").fetchall():
            info = json.loads(text)
            info["opening"] = change(info["opening"])
            db.execute("UPDATE shards SET writer_info = ? WHERE db_id = ?", (json.dumps(info), db_id))
    db.close()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_records_that_are_wrong_are_not_believed(lie: str, lazy: bool, snapshot: Path) -> None:
    rewrite(snapshot, lambda text: base64.b64encode(LIES[lie](base64.b64decode(text))).decode())
    check(snapshot, lazy=lazy)


@pytest.mark.parametrize("opening", ["no base64!", "Zg=", "", 7, None, [], {"a": 1}, "A" * 100_000])
def test_texts_that_are_no_records_are_as_none(opening: object, snapshot: Path) -> None:
    rewrite(snapshot, lambda text: opening)
    check(snapshot, lazy=False)


def test_records_of_other_shards_are_not_believed(snapshot: Path) -> None:
    texts: list[str] = []
    rewrite(snapshot, lambda text: texts.append(text) or text)
    texts.append(texts.pop(0))
    rewrite(snapshot, lambda text: texts.pop(0))
    for lazy in (False, True):
        check(snapshot, lazy=lazy)


def test_a_snapshot_in_another_place_opens_as_quickly(snapshot: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(snapshot, copy)
    shutil.rmtree(snapshot)
    with ShardedReader(s3_prefix=copy.as_uri(), local_root=str(tmp_path / "root"), relocate=True) as reader:
        assert reader.get(7) == value_of(7)


def test_an_sst_that_is_gone_is_named(snapshot: Path) -> None:
    (path,) = (shard_of(snapshot, 7) / "compacted").glob("*.sst")
    path.unlink()
    with pytest.raises(Exception, match=path.name):
        ShardedReader(s3_prefix=snapshot.as_uri(), local_root=str(snapshot.parent / "root"))
