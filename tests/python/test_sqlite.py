"""SQLite shards through their factories: as copies, by ranges, and as the sizes say; over files and over the real S3 server."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures import SQLITE, Case, case

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server
from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    ConfigValidationError,
    DbAdapterError,
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
    SlateDbReaderFactory,
)
from shardyfusion._engine import native
from shardyfusion.credentials import StaticCredentialProvider
from shardyfusion.reader import AsyncAutoReaderFactory, AutoReaderFactory
from shardyfusion.sqlite_adapter import (
    AdaptiveSqliteReaderFactory,
    AsyncAdaptiveSqliteReaderFactory,
    AsyncSqliteRangeReaderFactory,
    AsyncSqliteRangeShardReader,
    AsyncSqliteReaderFactory,
    AsyncSqliteShardReader,
    SidecarUnavailableError,
    SqliteAccessPolicy,
    SqliteAdapterError,
    SqliteFactory,
    SqliteRangeReaderFactory,
    SqliteRangeShardReader,
    SqliteReaderFactory,
    SqliteShardReader,
    build_sidecar_frame,
    decide_access_mode,
    extract_sidecar,
    frame_to_sidecar,
    make_async_sqlite_reader_factory,
    make_sqlite_reader_factory,
    make_threshold_policy,
    maybe_upload_sidecar,
)
from shardyfusion.storage import ObstoreBackend, create_s3_store
from shardyfusion.writer.python import write_hash_sharded


class Always:
    """A policy of the caller's."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.asked: list[list[int]] = []

    def decide(self, db_bytes_per_shard: Sequence[int]) -> Any:
        self.asked.append(list(db_bytes_per_shard))
        return self.mode


FACTORIES: dict[str, tuple[Any, Any, type, bool]] = {  # blocking, asyncio, what they open, whether there are copies
    "download": (SqliteReaderFactory, AsyncSqliteReaderFactory, SqliteShardReader, True),
    "range": (SqliteRangeReaderFactory, AsyncSqliteRangeReaderFactory, SqliteRangeShardReader, False),
    "range, uncached": (
        lambda: SqliteRangeReaderFactory(page_cache_pages=0),
        lambda: AsyncSqliteRangeReaderFactory(page_cache_pages=0),
        SqliteRangeShardReader,
        False,
    ),
    "adaptive": (AdaptiveSqliteReaderFactory, AsyncAdaptiveSqliteReaderFactory, SqliteShardReader, True),
    "adaptive, large": (
        lambda: AdaptiveSqliteReaderFactory(per_shard_threshold=1),
        lambda: AsyncAdaptiveSqliteReaderFactory(policy=make_threshold_policy(total_budget=1)),
        SqliteRangeShardReader,
        False,
    ),
    "a policy": (
        lambda: AdaptiveSqliteReaderFactory(policy=Always("range")),
        lambda: AsyncAdaptiveSqliteReaderFactory(policy=Always("range")),
        SqliteRangeShardReader,
        False,
    ),
    "auto": (AutoReaderFactory, AsyncAutoReaderFactory, SqliteShardReader, True),
    "auto, range": (
        lambda: AutoReaderFactory(sqlite_mode="range"),
        lambda: AsyncAutoReaderFactory(sqlite_mode="range"),
        SqliteRangeShardReader,
        False,
    ),
}


def rows_of(c: Case, reader: Any) -> list[tuple[bytes, bytes]]:
    return sorted((reader.encode_key(key), value) for key, _, value in c.lookups if value is not None)


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("c", SQLITE, ids=lambda c: c.name)
def test_golden_snapshots(c: Case, name: str, tmp_path: Path) -> None:
    make, make_async, opens, copies = FACTORIES[name]
    expected = {key: value for key, _, value in c.lookups}
    with ShardedReader(s3_prefix=c.prefix, local_root=str(tmp_path), reader_factory=make()) as reader:
        assert reader.multi_get(list(expected)) == expected
        assert all(reader.get(key) == value for key, value in expected.items())
        assert (tmp_path / "sqlite").exists() == copies
        key = next(key for key, value in expected.items() if value is not None)
        with reader.reader_for_key(key) as handle:
            stored = reader.encode_key(key)
            assert type(handle.reader) is opens
            assert handle.get(stored) == expected[key] and handle.contains(stored)
            if copies:
                ((value,),) = handle.reader.connection.execute("SELECT v FROM kv WHERE k = ?", (stored,))
                assert value == expected[key]
        if name != "a policy":
            rows = rows_of(c, reader)
            assert list(reader.scan()) == rows and list(reader.scan(reverse=True)) == rows[::-1]

    async def look() -> None:
        root = str(tmp_path / "async")
        async with AsyncShardedReader.open(s3_prefix=c.prefix, local_root=root, reader_factory=make_async()) as reader:
            assert await reader.multi_get(list(expected)) == expected
            assert await reader.get(key) == expected[key]

    asyncio.run(look())


@pytest.mark.parametrize("name", FACTORIES)
def test_one_shard(name: str, tmp_path: Path) -> None:
    c = case("sqlite-hash")
    make, make_async, opens, _ = FACTORIES[name]
    with ShardedReader(s3_prefix=c.prefix, local_root=str(tmp_path)) as reader:
        detail = next(d for d in reader.shard_details() if d.row_count > 3)
        manifest = Facts(c, [16384] * 4)
        stored = {reader.encode_key(k): v for k, shard, v in c.lookups if shard == detail.db_id and v is not None}
    url = f"{c.prefix}/shards/{detail.db_url.split('/shards/')[1]}"
    where = {"db_url": url, "local_dir": tmp_path / "local", "checkpoint_id": "any", "manifest": manifest}

    shard = pickle.loads(pickle.dumps(make()))(**where) if name != "a policy" else make()(**where)
    assert type(shard) is opens
    assert {key: shard.get(key) for key in stored} == stored == shard.multi_get(list(stored))
    assert shard.get(b"not there") is None
    assert dict(shard.scan_iter()).items() >= stored.items()
    if not name.startswith("auto"):
        connection = shard.connection
        assert shard.connection is connection
        assert dict(connection.execute("SELECT k, v FROM kv")) == dict(shard.scan())
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM kv")
    shard.close()
    shard.close()
    text = "^Reader already closed$" if opens is SqliteShardReader else "^Reader is closed$"
    for read in (lambda: shard.get(b""), lambda: shard.connection, lambda: shard.scan()):
        with pytest.raises(SqliteAdapterError, match=text):
            read()

    async def look() -> None:
        shard = await make_async()(**where)
        assert type(shard) is (AsyncSqliteShardReader if opens is SqliteShardReader else AsyncSqliteRangeShardReader)
        assert {key: await shard.get(key) for key in stored} == stored
        await shard.close()
        with pytest.raises(SqliteAdapterError, match=text):
            await shard.get(b"")

    asyncio.run(look())


class Facts:
    """As much of a manifest as policies see."""

    class required_build:
        run_id = "run"

    def __init__(self, c: Case, sizes: list[int]) -> None:
        self.shards = [type("Shard", (), {"db_bytes": size})() for size in sizes]


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    where: dict[str, Any] = {"db_url": (tmp_path / "x").as_uri(), "local_dir": tmp_path, "checkpoint_id": None, "manifest": None}
    for factory in (SqliteReaderFactory(), SqliteRangeReaderFactory()):
        with pytest.raises(SqliteAdapterError, match="^Failed to open SQLite shard at 'file://") as caught:
            factory(**where)
        assert isinstance(caught.value, FileNotFoundError) and not caught.value.retryable
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "shard.db").write_bytes(b"no database" * 1000)
    for factory in (SqliteReaderFactory(), SqliteRangeReaderFactory()):
        with pytest.raises(SqliteAdapterError, match="shard.db"):
            factory(**where)


def test_the_other_backend(tmp_path: Path) -> None:
    c = case("slatedb-hash-u64be")
    for factory in (SqliteReaderFactory(), SqliteRangeReaderFactory(), AdaptiveSqliteReaderFactory()):
        with pytest.raises((ConfigValidationError, DbAdapterError), match="SQLite") as caught:
            ShardedReader(s3_prefix=c.prefix, local_root=str(tmp_path), reader_factory=factory)
        assert "SlateDB" in str(caught.value)
    with ShardedReader(s3_prefix=c.prefix, local_root=str(tmp_path), reader_factory=AutoReaderFactory()) as reader:
        key, _, value = next(one for one in c.lookups if one[2] is not None)
        assert reader.get(key) == value
    with pytest.raises((ConfigValidationError, DbAdapterError)):
        ShardedReader(s3_prefix=case("sqlite-hash").prefix, local_root=str(tmp_path), reader_factory=SlateDbReaderFactory())


@pytest.mark.parametrize(
    ("sizes", "bounds", "mode"),
    [
        ([], {}, "download"),
        ([0, 0], {}, "download"),
        ([16 << 20], {}, "range"),
        ([(16 << 20) - 1] * 2, {}, "download"),
        ([(16 << 20) - 1] * 200, {}, "range"),
        ([5], {"per_shard_threshold": 5}, "range"),
        ([2, 3], {"total_budget": 5}, "range"),
        ([2, 2], {"total_budget": 5}, "download"),
    ],
)
def test_the_mode_by_sizes(sizes: list[int], bounds: dict[str, int], mode: str) -> None:
    assert decide_access_mode(db_bytes_per_shard=sizes, **bounds) == mode
    policy = make_threshold_policy(**bounds)
    assert policy.decide(sizes) == mode and isinstance(policy, SqliteAccessPolicy)
    assert isinstance(Always("range"), SqliteAccessPolicy)


def test_factories_by_mode() -> None:
    assert make_sqlite_reader_factory(mode="download", mmap_size=5) == SqliteReaderFactory(mmap_size=5)
    assert make_sqlite_reader_factory(mode="range", page_cache_pages=5) == SqliteRangeReaderFactory(page_cache_pages=5)
    assert make_async_sqlite_reader_factory(mode="download") == AsyncSqliteReaderFactory()
    assert make_async_sqlite_reader_factory(mode="range") == AsyncSqliteRangeReaderFactory()
    for make in (make_sqlite_reader_factory, make_async_sqlite_reader_factory):
        text = f"{make.__name__}: unsupported mode 'auto'; expected 'download' or 'range' (resolve 'auto' before calling)"
        with pytest.raises(SqliteAdapterError) as caught:
            make(mode="auto")  # type: ignore[operator]
        assert str(caught.value) == text
    for cls in (SqliteRangeReaderFactory, AsyncSqliteRangeReaderFactory, AdaptiveSqliteReaderFactory, AutoReaderFactory):
        with pytest.raises(ConfigValidationError, match="page_cache_pages"):
            cls(page_cache_pages=-1)  # type: ignore[operator]
    with pytest.raises(ConfigValidationError, match="sqlite_mode"):
        AutoReaderFactory(sqlite_mode="mmap")  # type: ignore[arg-type]


def test_a_policy_is_asked_once_per_snapshot(tmp_path: Path) -> None:
    c, policy = case("sqlite-hash"), Always("download")
    factory = AdaptiveSqliteReaderFactory(policy=policy)
    for _ in range(2):
        with ConcurrentShardedReader(s3_prefix=c.prefix, local_root=str(tmp_path), reader_factory=factory) as reader:
            assert reader.multi_get([key for key, _, _ in c.lookups])
    assert len(policy.asked) == 1 and len(policy.asked[0]) == len(c.expected["shards"])
    with pytest.raises(SqliteAdapterError, match="decide: 'maybe' is neither"):
        ShardedReader(
            s3_prefix=c.prefix, local_root=str(tmp_path), reader_factory=AdaptiveSqliteReaderFactory(policy=Always("maybe"))
        )


# ---------------------------------------------------------------- the sidecar


def test_sidecar_helpers(tmp_path: Path) -> None:
    folder = case("sqlite-sidecar").folder / "shards"
    pairs = [(db, db.with_name("shard.sidecar").read_bytes()) for db in sorted(folder.rglob("shard.db"))]
    assert pairs
    for db, golden in pairs:
        tag = golden[18 : 18 + golden[17]].decode()
        built = build_sidecar_frame(db)
        assert (built.body_size, built.page_size) == (int.from_bytes(golden[5:13], "little"), 4096)
        assert frame_to_sidecar(built.frame, tag, built.body_size, built.page_size) == extract_sidecar(db, db_tag=tag)
        assert extract_sidecar(db, db_bytes=db.read_bytes(), db_tag=tag)[: 18 + golden[17]] == golden[: 18 + golden[17]]
    with pytest.raises(SidecarUnavailableError):
        build_sidecar_frame(Path("x"), db_bytes=b"no database")
    with pytest.raises(SidecarUnavailableError, match="page_size"):
        frame_to_sidecar(b"")


# ---------------------------------------------------------------- over S3

ROWS = 20_000


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def published(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two shards of some hundred pages each."""
    s3 = {"endpoint_url": server.endpoint, "region_name": REGION}
    shared = {"credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY), "s3_connection_options": s3}
    config = HashShardedWriteConfig(num_dbs=2, s3_prefix="s3://scratch/sqlite", adapter_factory=SqliteFactory(**shared), **shared)
    write_hash_sharded(range(ROWS), config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"%09d" % n * 11))
    return {"s3_prefix": "s3://scratch/sqlite", "local_root": str(tmp_path_factory.mktemp("local")), **shared}


def requests() -> int:
    return native.runtime_stats()["requests"]


def test_a_cold_look_up_is_one_request(published: dict[str, Any], tmp_path: Path) -> None:
    with ShardedReader(**published, reader_factory=AutoReaderFactory(
        sqlite_mode="range", credential_provider=published["credential_provider"],
        s3_connection_options=published["s3_connection_options"],
    )) as reader:
        for key in (17, 4711, 12345):
            before = requests()
            assert reader.get(key) == b"%09d" % key * 11
            assert requests() == before + 1
            assert reader.try_get(key) == b"%09d" % key * 11  # in memory now
            assert requests() == before + 1
        before = requests()
        keys = list(range(0, ROWS, 40))
        assert reader.multi_get(keys) == {key: b"%09d" % key * 11 for key in keys}
        assert requests() - before < len(keys) / 10  # pages side by side are one request
        before = requests()
        assert sum(1 for _ in reader.scan()) == ROWS
        assert requests() - before < 40  # more pages each time


def test_ranges_of_an_object_that_was_replaced(published: dict[str, Any], tmp_path: Path, server: S3Server) -> None:
    backend = ObstoreBackend(create_s3_store("scratch", published["credential_provider"], published["s3_connection_options"]))
    with ShardedReader(**published) as reader:
        detail = reader.shard_details()[0]
    db = backend.get(f"{detail.db_url}/shard.db")
    copy = f"s3://scratch/{tmp_path.name}/db"
    backend.put(f"{copy}/shard.db", db, "application/octet-stream")
    file = tmp_path / "shard.db"
    file.write_bytes(db)
    maybe_upload_sidecar(backend=backend, db_url=copy, db_path=file, db_bytes=db)
    shared = {"credential_provider": published["credential_provider"], "s3_connection_options": published["s3_connection_options"]}
    where: dict[str, Any] = {"db_url": copy, "local_dir": tmp_path, "checkpoint_id": None}
    rows = dict(SqliteShardReader(**where, **shared).scan())
    first, last = min(rows), max(rows)
    shard = SqliteRangeShardReader(**where, **shared)
    before = requests()
    assert shard.get(first) == rows[first] and requests() == before + 1
    assert dict(shard.connection.execute("SELECT k, v FROM kv")) == rows
    backend.put(f"{copy}/shard.db", db[:-1] + b"!", "application/octet-stream")
    assert shard.get(first) == rows[first]  # out of memory
    with pytest.raises(DbAdapterError, match="it was replaced"):
        shard.get(last)
    shard.close()
    assert backend.delete_prefix(f"s3://scratch/{tmp_path.name}") == 2
