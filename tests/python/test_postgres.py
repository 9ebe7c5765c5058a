"""Manifests in PostgreSQL: the real one, with more than one driver; killed, stopped and robbed of its rows in the middle."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pg8000.dbapi
import psycopg
import psycopg2
import pytest
from fixtures import CASES
from plugged import make_manifest
from postgres_server import PASSWORD, PostgresServer, wait_for
from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
    WriterManifestConfig,
    WriterOutputConfig,
    db_manifest_store,
)
from shardyfusion.async_manifest_store import as_async_store
from shardyfusion.db_manifest_store import PostgresManifestStore
from shardyfusion.errors import (
    ConfigValidationError,
    ManifestParseError,
    ManifestStoreError,
    OperationTimeoutError,
    PublishConflictError,
    ReaderStateError,
    ShardyfusionError,
)
from shardyfusion.maintenance import cleanup
from shardyfusion.maintenance.aio import cleanup as cleanup_async
from shardyfusion.manifest import ParsedManifest
from shardyfusion.manifest_store import parse_manifest_payload
from shardyfusion.writer import aio
from shardyfusion.writer.python import write_hash_sharded

def connect_pg8000(url: str) -> Any:
    """It takes no URLs."""
    parts = urlsplit(url)
    assert parts.password is not None
    return pg8000.dbapi.connect(
        user=parts.username, password=unquote(parts.password), host=parts.hostname, port=parts.port, database=parts.path[1:]
    )


DRIVERS: dict[str, Callable[[str], Any]] = {"psycopg": psycopg.connect, "psycopg2": psycopg2.connect, "pg8000": connect_pg8000}
_numbers = itertools.count()


class Tables:
    """Three tables of a test's own."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.name = f"m{next(_numbers)}"
        self.names = {"table_name": self.name, "pointer_table_name": f"{self.name}_pointer"}

    def store(self, connect: Callable[[str], Any] = psycopg2.connect, **options: Any) -> PostgresManifestStore:
        return PostgresManifestStore(lambda: connect(self.server.url()), **{**self.names, **options})

    def sql(self, text: str, *values: Any) -> list[Any]:
        """`builds`, `shards` and `pointer` stand for the tables."""
        for table in ("builds", "shards", "pointer"):
            text = text.replace("{" + table + "}", f"{self.name}_{table}")
        with closing(psycopg2.connect(self.server.url())) as connection, connection:
            cursor = connection.cursor()
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def tables(postgres: PostgresServer) -> Tables:
    return Tables(postgres)


@pytest.fixture
def publish(tables: Tables) -> Callable[..., str]:
    def publish(run_id: str = "run-1", store: PostgresManifestStore | None = None, **more: Any) -> str:
        manifest = make_manifest(run_id)
        return (store or tables.store()).publish(
            run_id=run_id, required_build=manifest.required_build, shards=manifest.shards, custom=manifest.custom, **more
        )

    return publish


@pytest.fixture(autouse=True)
def no_threads_stay() -> Iterator[None]:
    yield
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "shardyfusion-postgres"])


def republish(store: PostgresManifestStore, manifest: ParsedManifest) -> str:
    return store.publish(
        run_id=manifest.required_build.run_id, required_build=manifest.required_build, shards=manifest.shards,
        custom=manifest.custom,
    )  # fmt: skip


# ---------------------------------------------------------------- what is stored


@pytest.mark.parametrize("driver", DRIVERS)
def test_manifests_come_back_equal(tables: Tables, driver: str) -> None:
    store = tables.store(DRIVERS[driver])
    assert store.load_current() is None and store.list_manifests() == []
    kinds: dict[object, ParsedManifest] = {}
    for case in CASES:
        for path in sorted(case.folder.glob("manifests/*/manifest")):
            with suppress(ManifestParseError):  # one of the malformed
                manifest = parse_manifest_payload(path.read_bytes())
                build, types = manifest.required_build, {type(shard.min_key) for shard in manifest.shards}
                kinds[build.sharding.model_dump_json(), build.key_encoding, frozenset(manifest.custom), frozenset(types)] = manifest
    manifests = list(kinds.values())[:: 1 if driver == "psycopg2" else 4]
    assert len(manifests) > 3
    for manifest in manifests:
        ref = republish(store, manifest)
        found = store.load_manifest(ref)
        assert found.custom.pop("shard_rows") == len(manifest.shards)
        for shard in manifest.shards:
            if any(isinstance(key, str) and "\0" in key for key in (shard.min_key, shard.max_key)):
                shard.min_key = shard.max_key = None
        assert found == manifest
        current = store.load_current()
        assert current is not None and current.ref == current.run_id == ref == manifest.required_build.run_id
    listed = store.list_manifests(limit=100)
    created = {m.required_build.run_id: m.required_build.created_at for m in manifests}
    assert {ref.run_id: ref.published_at for ref in listed} == created
    assert [ref.published_at for ref in listed] == sorted(created.values(), reverse=True)
    assert store.list_manifests(limit=2) == listed[:2] and store.list_manifests(limit=0) == []


@pytest.mark.parametrize("key", ["abc", "5", '"', "é\U0001f600", 5, 2**64 - 1, -1, None])
def test_bounds_of_keys_are_decoded_once(tables: Tables, key: Any) -> None:
    store, manifest = tables.store(), make_manifest("r")
    manifest.shards[0].min_key = manifest.shards[0].max_key = key
    shard = store.load_manifest(republish(store, manifest)).shards[0]
    assert shard.min_key == key and type(shard.min_key) is type(key) and shard.max_key == key


@pytest.mark.parametrize("key", ["a\0b", b"a\0b", b"\xff"])
def test_bounds_that_jsonb_cannot_hold_are_left_out(tables: Tables, key: Any) -> None:
    store, manifest = tables.store(), make_manifest("r")
    manifest.shards[0].min_key, manifest.shards[0].max_key = "a", key
    shard = store.load_manifest(republish(store, manifest)).shards[0]
    assert (shard.min_key, shard.max_key) == (None, None)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.custom.update(x=float("nan")), "custom cannot be stored as JSON"),
        (lambda m: m.custom.update(x="a\0b"), "PostgreSQL cannot store what was given"),
        (lambda m: setattr(m.shards[1], "row_count", 2**31), "shard 1 has 2147483648 rows"),
        (lambda m: setattr(m.shards[1], "db_id", 0), "UNIQUE|duplicate"),
        (lambda m: setattr(m.required_build, "num_dbs", 2), "shard count exceeds num_dbs"),
    ],
)
def test_what_cannot_be_read_again_is_refused(tables: Tables, publish: Any, change: Any, text: str) -> None:
    store, manifest = tables.store(), make_manifest("bad")
    publish("good")
    change(manifest)
    with pytest.raises(ConfigValidationError, match=text):
        republish(store, manifest)
    assert [ref.ref for ref in store.list_manifests()] == ["good"] and store.load_current().ref == "good"  # type: ignore[union-attr]


def test_a_run_that_is_published_again_replaces_its_rows(tables: Tables, publish: Any) -> None:
    store = tables.store()
    publish("run-1")
    republish(store, make_manifest("run-1", 2, again=True))
    assert len(store.load_manifest("run-1").shards) == 2 and store.load_manifest("run-1").custom["again"] is True
    assert [ref.ref for ref in store.list_manifests()] == ["run-1"]


def test_tables_of_the_existing_package(tables: Tables) -> None:
    """Rows as its writer puts them: no shard_rows, members in any order, a pointer or none."""
    store = tables.store()
    tables.sql(
        """INSERT INTO {builds} (run_id, num_dbs, s3_prefix, sharding) VALUES ('theirs', 2, 's3://b/p',
        '{"hash_algorithm": "xxh3_64", "strategy": "hash", "cel_expr": null, "cel_columns": null, "routing_values": null}')""")
    tables.sql(
        """INSERT INTO {shards} (run_id, db_id, db_url, row_count, min_key, writer_info) VALUES
        ('theirs', 1, 's3://b/p/1', 7, '"x"', '{"attempt": 0, "stage_id": null, "duration_ms": 3, "task_attempt_id": null}')""")
    current = store.load_current()
    assert current is not None and current.ref == "theirs"  # the newest build, as there is no pointer
    manifest = store.load_manifest("theirs")
    assert manifest.required_build.key_col == "_key" and manifest.required_build.key_encoding == "u64be"
    (shard,) = manifest.shards
    assert (shard.db_id, shard.row_count, shard.min_key, shard.writer_info.duration_ms) == (1, 7, "x", 3)


# ---------------------------------------------------------------- the pointer


def test_the_pointer_moves_and_moves_back(tables: Tables, publish: Any) -> None:
    store = tables.store()
    for run_id in ("run-1", "run-2", "run-3"):
        publish(run_id)
    store.set_current("run-1")
    first = store.load_current()
    assert first is not None and first.ref == "run-1"
    with pytest.raises(FileNotFoundError, match=f"{tables.name}_builds has no row of run_id 'nobody'"):
        store.set_current("nobody")
    assert store.load_current() == first


def test_clocks_do_not_decide(tables: Tables, publish: Any) -> None:
    """The greatest time is the current one, so a publisher whose clock runs ahead must not win for good."""
    publish("run-1")
    tables.sql("UPDATE {pointer} SET updated_at = now() + interval '1 day'")
    publish("run-2")
    assert tables.store().load_current().ref == "run-2"  # type: ignore[union-attr]


def test_compare_and_swap(tables: Tables, publish: Any) -> None:
    store = tables.store()
    publish("run-1", expected_current=None)
    with pytest.raises(PublishConflictError, match="CURRENT names 'run-1', expected none") as info:
        publish("run-2", expected_current=None)
    assert (info.value.expected, info.value.found, info.value.retryable) == (None, "run-1", False)
    publish("run-2", expected_current="run-1")
    with pytest.raises(PublishConflictError, match="CURRENT names 'run-2', expected 'run-1'"):
        store.set_current("run-1", expected_current="run-1")
    assert {ref.ref for ref in store.list_manifests()} == {"run-1", "run-2"}


def test_of_writers_that_race_one_wins(tables: Tables, publish: Any) -> None:
    publish("run-0")
    start, results = threading.Barrier(6), []

    def write(number: int) -> None:
        start.wait()
        try:
            results.append(publish(f"racer-{number}", expected_current="run-0"))
        except PublishConflictError as error:
            results.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [result for result in results if isinstance(result, str)]
    assert len(results) == 6
    assert {error.found for error in results if isinstance(error, PublishConflictError)} == {winner}
    assert {row[0] for row in tables.sql("SELECT run_id FROM {builds}")} == {"run-0", winner}


# ---------------------------------------------------------------- readers and writers


@pytest.fixture
def config(tables: Tables, tmp_path: Path) -> Callable[..., HashShardedWriteConfig]:
    def config(run_id: str, **more: Any) -> HashShardedWriteConfig:
        return HashShardedWriteConfig(
            num_dbs=2, s3_prefix=(tmp_path / "p").as_uri(), manifest=WriterManifestConfig(store=tables.store(), **more),
            output=WriterOutputConfig(run_id=run_id, local_root=str(tmp_path / "local")),
        )  # fmt: skip

    return config


def rows(run_id: str) -> PythonRecordInput[int]:
    return PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: f"{run_id}:{n}".encode())


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader])
def test_blocking_readers(tables: Tables, config: Any, tmp_path: Path, cls: Any) -> None:
    write_hash_sharded(range(20), config("run-1"), rows("run-1"))
    with cls(s3_prefix="any name", local_root=str(tmp_path), manifest_store=tables.store()) as reader:
        assert reader.get(3) == b"run-1:3" and reader.snapshot_info().manifest_ref == "run-1"
        assert reader.refresh() is False
        write_hash_sharded(range(20), config("run-2", expected_current="run-1"), rows("run-2"))
        assert reader.refresh() is True and reader.get(3) == b"run-2:3"


async def test_asyncio(tables: Tables, config: Any, tmp_path: Path) -> None:
    await aio.write_hash_sharded(range(20), config("run-1"), rows("run-1"))
    options = {"s3_prefix": "any name", "local_root": str(tmp_path), "manifest_store": tables.store()}
    async with await AsyncShardedReader.open(**options) as reader:
        assert await reader.get(3) == b"run-1:3"
        with pytest.raises(PublishConflictError):
            await aio.write_hash_sharded(range(20), config("run-2", expected_current=None), rows("run-2"))
        await aio.write_hash_sharded(range(20), config("run-2"), rows("run-2"))
        assert await reader.refresh() is True and await reader.get(3) == b"run-2:3"


async def test_the_store_for_coroutines_publishes_too(tables: Tables) -> None:
    store: Any = as_async_store(tables.store())
    manifest = make_manifest("run-1")
    fields = {"run_id": "run-1", "required_build": manifest.required_build, "shards": manifest.shards, "custom": {}}
    assert await store.publish(**fields, expected_current=None) == "run-1"
    await store.set_current("run-1", expected_current="run-1")
    assert [ref.ref for ref in await store.list_manifests(limit=5)] == ["run-1"]


def test_opening_takes_two_round_trips(tables: Tables, config: Any, tmp_path: Path) -> None:
    write_hash_sharded(range(20), config("run-1"), rows("run-1"))
    seen: list[str] = []

    class Counted(psycopg.Connection[Any]):
        def cursor(self, *args: Any, **kwargs: Any) -> Any:
            seen.append("autocommit" if self.autocommit else "BEGIN")
            return super().cursor(*args, **kwargs)

        def commit(self) -> None:
            seen.append("COMMIT")
            super().commit()

        def rollback(self) -> None:
            seen.append("ROLLBACK")
            super().rollback()

    store = tables.store(Counted.connect, ensure_table=False)
    with ShardedReader(s3_prefix="any name", local_root=str(tmp_path), manifest_store=store):
        assert seen == ["autocommit", "autocommit"]


def test_connections_that_are_lent_come_back_as_they_were(tables: Tables, publish: Any) -> None:
    class Lent(psycopg.Connection[Any]):
        def close(self) -> None:
            """Goes back to its owner."""

    for autocommit in (False, True):
        with psycopg.connect(tables.server.url(), autocommit=autocommit, row_factory=psycopg.rows.dict_row) as owner:
            owner.__class__ = Lent
            store = PostgresManifestStore(lambda lent=owner: lent, **tables.names)
            publish("run-1", store)
            assert store.load_current().ref == "run-1"  # type: ignore[union-attr]
            assert owner.autocommit is autocommit and owner.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            owner.execute("SELECT 1")
            store.load_manifest("run-1")
            assert owner.autocommit is autocommit
            owner.__class__ = psycopg.Connection


def test_whoever_may_only_read(tables: Tables, publish: Any) -> None:
    publish("run-1")
    name = f"reader_{tables.name}"
    tables.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'reader'")
    tables.sql(f"GRANT SELECT ON {{builds}}, {{shards}}, {{pointer}} TO {name}")
    url = tables.server.url().replace("shardy:s3cret%2Bpass", f"{name}:reader")
    store = tables.store(lambda _: psycopg.connect(url))
    assert len(store.load_manifest("run-1").shards) == 3
    with pytest.raises(ManifestStoreError, match="permission denied") as info:
        publish("run-2", store)
    assert isinstance(info.value, PermissionError) and not info.value.retryable


def test_tables_are_created_once_by_many(postgres: PostgresServer) -> None:
    tables, start = Tables(postgres), threading.Barrier(5)
    failed: list[Exception] = []

    def create() -> None:
        start.wait()
        try:
            tables.store()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=create) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and tables.store().load_current() is None
    assert tables.sql("SELECT indexname FROM pg_indexes WHERE tablename = %s", f"{tables.name}_pointer") == [
        (f"idx_{tables.name}_pointer_updated_at",)
    ]


def test_schemas(postgres: PostgresServer) -> None:
    tables = Tables(postgres)
    tables.sql(f"CREATE SCHEMA s_{tables.name}")
    names = {"table_name": f"s_{tables.name}.Manifests", "pointer_table_name": f"s_{tables.name}.pointer"}
    store = tables.store(**names)
    republish(store, make_manifest("run-1"))
    assert store.load_current().ref == "run-1"  # type: ignore[union-attr]
    with pytest.raises(ConfigValidationError, match=r"^Failed to create manifest tables: .*schema .*nowhere"):
        tables.store(table_name="nowhere.m")


@pytest.mark.parametrize("name", ["", "a b", "a;drop table x", 'a"b', "a.b.c", ".a", "a.", "1a", "x" * 57, "é", "a\0b"])
def test_names_that_are_none(postgres: PostgresServer, name: str) -> None:
    with pytest.raises(ValueError):
        PostgresManifestStore(lambda: psycopg.connect(postgres.url()), table_name=name)


# ---------------------------------------------------------------- what is lost, or is not what it should be

HOSTILE = {
    "sharding is no object": ("UPDATE {builds} SET sharding = '[]'", "Manifest validation failed"),
    "unknown hash": ("UPDATE {builds} SET sharding = '{\"strategy\": \"hash\", \"hash_algorithm\": \"md5\"}'", "Manifest validation failed"),
    "unknown encoding": ("UPDATE {builds} SET key_encoding = 'ebcdic'", "Unsupported key encoding: 'ebcdic'"),
    "no shards": ("UPDATE {builds} SET num_dbs = 0", "num_dbs is out of range"),
    "fewer shards": ("UPDATE {builds} SET num_dbs = 1", "shard count exceeds num_dbs"),
    "no end of time": ("UPDATE {builds} SET created_at = 'infinity'", "created_at is not an integer"),
    "time beyond": ("UPDATE {builds} SET created_at = '250000-01-01'", "Manifest validation failed"),
    "custom is no object": ("UPDATE {builds} SET custom = '3'", "Manifest validation failed"),
    "a lost shard": ("DELETE FROM {shards} WHERE db_id = 1", "2 rows of shards are there, and shard_rows is 3"),
    "all shards lost": ("DELETE FROM {shards}", "0 rows of shards are there, and shard_rows is 3"),
    "negative count": ("UPDATE {shards} SET row_count = -1 WHERE db_id = 2", "shard 2: row_count is out of range"),
    "a number without end": ("UPDATE {shards} SET db_id = 77 WHERE db_id = 2", "out of range"),
    "bound is an object": ("UPDATE {shards} SET min_key = '{\"a\": [1]}'", "Manifest validation failed"),
    "writer is a list": ("UPDATE {shards} SET writer_info = '[]'", "Manifest validation failed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_rows_that_are_not_as_they_should_be(tables: Tables, publish: Any, name: str) -> None:
    change, text = HOSTILE[name]
    publish("run-1")
    tables.sql(change)
    with pytest.raises(ManifestParseError, match=text) as info:
        tables.store().load_manifest("run-1")
    assert f"tables {tables.name}_builds and {tables.name}_shards, run_id 'run-1'" in str(info.value)


def test_columns_of_other_types(tables: Tables, publish: Any) -> None:
    publish("run-1")
    tables.sql("ALTER TABLE {shards} ALTER db_bytes TYPE text, ALTER db_url TYPE jsonb USING to_jsonb(db_url)")
    with pytest.raises(ManifestParseError, match="shard 0: db_bytes is not an integer"):
        tables.store().load_manifest("run-1")


def test_a_reader_falls_back(tables: Tables, config: Any, tmp_path: Path) -> None:
    for run_id in ("run-1", "run-2"):
        write_hash_sharded(range(20), config(run_id), rows(run_id))
    tables.sql("DELETE FROM {shards} WHERE run_id = 'run-2'")
    with ShardedReader(s3_prefix="any name", local_root=str(tmp_path), manifest_store=tables.store()) as reader:
        assert reader.get(3) == b"run-1:3" and reader.health().fallback


def test_what_is_lost_under_a_reader(tables: Tables, config: Any, tmp_path: Path) -> None:
    for run_id in ("run-1", "run-2"):
        write_hash_sharded(range(20), config(run_id), rows(run_id))
    store = tables.store()
    store.set_current("run-1")
    with ShardedReader(s3_prefix="any name", local_root=str(tmp_path), manifest_store=store) as reader:
        store.set_current("run-2")
        tables.sql("DELETE FROM {shards} WHERE run_id = 'run-2'")
        tables.sql("DELETE FROM {builds} WHERE run_id = 'run-2'")
        with pytest.raises(FileNotFoundError, match=f"no such row .*{tables.name}_builds.*'run-2'"):  # as from storage
            reader.refresh()
        assert reader.get(3) == b"run-1:3" and "no such row" in str(reader.health().last_refresh_error)
        tables.sql("DELETE FROM {pointer}")
        assert reader.refresh() is False and reader.health().last_refresh_error is None  # the newest build: run-1
        tables.sql("TRUNCATE {shards}, {builds}")
        with pytest.raises(ReaderStateError, match="CURRENT pointer not found"):
            reader.refresh()
        tables.sql("DROP TABLE {pointer}")
        with pytest.raises(ManifestStoreError, match=f'"{tables.name}_pointer" does not exist') as info:
            reader.refresh()
        assert isinstance(info.value, FileNotFoundError) and not info.value.retryable
        assert reader.get(3) == b"run-1:3"


def test_pointers_that_name_no_time(tables: Tables, publish: Any) -> None:
    publish("run-1")
    for time in ("infinity", "250000-01-01"):
        tables.sql("UPDATE {pointer} SET updated_at = %s", time)
        with pytest.raises(ManifestParseError, match=f"^CURRENT pointer validation failed: .*{tables.name}_pointer"):
            tables.store().load_current()
    tables.sql("UPDATE {builds} SET created_at = 'infinity'")
    assert tables.store().list_manifests() == []


# ---------------------------------------------------------------- a server that is killed, or hangs


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for a server to come back."""
    monkeypatch.setattr(db_manifest_store, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(db_manifest_store, "_ATTEMPTS", 12)  # of which the last waits are minutes


class Blocked:
    """A table that nobody gets at, until the connection dies."""

    def __init__(self, tables: Tables, table: str) -> None:
        self.tables, self._connection = tables, psycopg.connect(tables.server.url())
        self._connection.execute(f"LOCK TABLE {tables.name}_{table} IN ACCESS EXCLUSIVE MODE")

    def wait_for_another(self) -> None:
        wait_for(lambda: self._connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())

    def free(self) -> None:
        self._connection.close()


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    result: list[Any] = []

    def body() -> None:
        try:
            result.append(work())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=body)
    thread.start()

    def join() -> Any:
        thread.join()
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    return join


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("what", ["publish", "load"])
def test_killed_in_the_middle(tables: Tables, publish: Any, patient: None, driver: str, what: str) -> None:
    store = tables.store(DRIVERS[driver])
    publish("run-1")
    blocked = Blocked(tables, "shards")
    join = in_thread(lambda: publish("run-2", store) if what == "publish" else len(store.load_manifest("run-1").shards))
    blocked.wait_for_another()
    tables.server.kill()
    tables.server.start()
    assert join() == ("run-2" if what == "publish" else 3)
    assert len(tables.sql("SELECT * FROM {pointer}")) == (2 if what == "publish" else 1)
    blocked.free()


def test_a_commit_whose_answer_is_lost(tables: Tables, publish: Any) -> None:
    """It has happened; meanwhile somebody else has published: their pointer must stay."""
    lose = True

    class Lossy(psycopg.Connection[Any]):
        def commit(self) -> None:
            nonlocal lose
            super().commit()
            if lose:
                lose = False
                publish("run-2")
                raise psycopg.OperationalError("server closed the connection unexpectedly")

    store = tables.store(Lossy.connect, ensure_table=bool(tables.store()))
    assert publish("run-1", store, expected_current=None) == "run-1"
    assert not lose and [row[0] for row in tables.sql("SELECT manifest_ref FROM {pointer} ORDER BY updated_at")] == ["run-1", "run-2"]


def test_a_commit_that_goes_on_without_its_client(tables: Tables, publish: Any) -> None:
    """It is still under way when the next attempt begins, which must not take its own pointer for somebody else's."""
    store = tables.store()
    tables.sql(
        f"CREATE FUNCTION {tables.name}_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {pointer} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "
        f"{tables.name}_wait()"
    )
    with tables.server.losing_a_commit() as port:
        store = PostgresManifestStore(lambda: psycopg2.connect(tables.server.url(port=port)), **tables.names)
        assert publish("run-1", store, expected_current=None) == "run-1"
    assert tables.sql("SELECT manifest_ref FROM {pointer}") == [("run-1",)]


def test_a_server_that_is_not_there(tables: Tables, publish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_manifest_store, "_FIRST_WAIT_S", 0.001)
    store = tables.store()
    tables.server.kill()
    try:
        with pytest.raises(ManifestStoreError, match=r"^PostgreSQL load_current: .*refused") as info:
            store.load_current()
        assert info.value.attempts == 5 and info.value.retryable
        with pytest.raises(ConfigValidationError, match=r"^Failed to create manifest tables: .*refused"):
            tables.store()
    finally:
        tables.server.start()
    assert publish("run-1", store) == "run-1"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_that_hangs_holds_nobody(tables: Tables, config: Any, tmp_path: Path, driver: str) -> None:
    write_hash_sharded(range(20), config("run-1"), rows("run-1"))
    store, hasty = tables.store(DRIVERS[driver]), tables.store(DRIVERS[driver], timeout=timedelta(seconds=0.2), ensure_table=False)
    reader = ShardedReader(s3_prefix="any name", local_root=str(tmp_path), manifest_store=store)
    paused = tables.server.pause()
    try:
        with pytest.raises(OperationTimeoutError):
            reader.refresh(timeout=0.2)
        with pytest.raises(ManifestStoreError, match=r"PostgreSQL load_current: no answer within 0\.2 s"):
            hasty.load_current()
        with pytest.raises(OperationTimeoutError):
            ShardedReader(s3_prefix="x", local_root=str(tmp_path), manifest_store=store, open_timeout=0.2)
        assert reader.get(3) == b"run-1:3"
    finally:
        tables.server.go_on(paused)
    assert reader.refresh() is False
    reader.close()


async def test_a_server_that_hangs_holds_no_event_loop(tables: Tables, config: Any, tmp_path: Path) -> None:
    await aio.write_hash_sharded(range(20), config("run-1"), rows("run-1"))
    options = {"s3_prefix": "any name", "local_root": str(tmp_path), "manifest_store": tables.store()}
    async with await AsyncShardedReader.open(**options) as reader:
        paused = tables.server.pause()
        try:
            with pytest.raises(OperationTimeoutError):
                await reader.refresh(timeout=0.2)
            task = asyncio.create_task(reader.refresh())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await reader.get(3) == b"run-1:3"
        finally:
            tables.server.go_on(paused)
        assert await reader.refresh() is False


def test_a_statement_that_waits_for_a_lock(tables: Tables, publish: Any) -> None:
    publish("run-1")
    store = tables.store(timeout=0.3)
    blocked = Blocked(tables, "pointer")
    for call in (store.load_current, lambda: publish("run-2", store)):
        with pytest.raises(ManifestStoreError, match="no answer within|statement timeout"):
            call()
    blocked.free()
    assert tables.store().load_current().ref == "run-1"  # type: ignore[union-attr]


def test_connections_that_hang_are_not_made_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_manifest_store, "_MOST_STUCK", 2)
    release = threading.Event()

    def connect() -> Any:
        release.wait()
        raise OSError("at last")

    store = PostgresManifestStore(connect, ensure_table=False, timeout=0.01)
    for _ in range(2):
        with pytest.raises(ManifestStoreError, match="no answer within"):
            store.load_current()
    with pytest.raises(ManifestStoreError, match="2 connections that were given up have not ended yet"):
        store.load_current()
    release.set()
    wait_for(lambda: store._stuck == 0)


# ---------------------------------------------------------------- failures of the factory


def test_what_is_no_failure_of_the_driver_stays_what_it_is() -> None:
    def connect() -> Any:
        raise KeyError("my own mistake")

    store = PostgresManifestStore(connect, ensure_table=False)
    with pytest.raises(KeyError, match="my own mistake"):
        store.load_current()


class DriversError(Exception):
    """Of a driver of one's own."""


DriversError.__name__ = "DatabaseError"


@pytest.mark.parametrize("text", ["server says \udcff\0", "\ud800"])
def test_texts_that_are_none(text: str) -> None:
    def connect() -> Any:
        error = DriversError(text)
        error.sqlstate = "XX\udc00"  # type: ignore[attr-defined]
        raise error

    store = PostgresManifestStore(connect, ensure_table=False)
    with pytest.raises(ManifestStoreError, match="^PostgreSQL load_current: "):
        store.load_current()


def test_what_is_left_out_is_nobodys_context() -> None:
    def connect() -> Any:
        raise DriversError(f"invalid dsn: {PASSWORD}")

    store = PostgresManifestStore(connect, ensure_table=False)
    with pytest.raises(ManifestStoreError) as info:
        store.load_current()
    assert info.value.__context__ is info.value.__cause__ is None


def test_what_hangs_and_is_no_socket(tmp_path: Path) -> None:
    release = threading.Event()
    file = (tmp_path / "file").open("wb")

    class Connection:
        fileno = staticmethod(file.fileno)

        def cursor(self) -> Any:
            release.wait()
            raise DriversError("at last")

        def close(self) -> None: ...

    store = PostgresManifestStore(Connection, ensure_table=False, timeout=0.05)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ManifestStoreError, match="no answer within"):
        store.load_current()
    assert len(os.listdir("/proc/self/fd")) == before
    release.set()
    wait_for(lambda: store._stuck == 0)
    file.close()


@pytest.mark.parametrize("timeout", [3e6, 1e300, timedelta.max, None])
def test_long_timeouts(tables: Tables, publish: Any, timeout: Any) -> None:
    """The server's own bound ends at 24 days."""
    publish("run-1", tables.store(timeout=timeout))
    assert tables.store(timeout=timeout).load_current().ref == "run-1"  # type: ignore[union-attr]


URLS = {
    "wrong password": lambda server: server.url(password="wr0ng+" + PASSWORD),
    "no such database": lambda server: server.url("nowhere"),
    "a port that is none": lambda server: server.url().replace(f"@127.0.0.1:{server.port}", f"/{PASSWORD}@127.0.0.1:1"),
    "an @ in the password": lambda server: f"postgresql://shardy:x@{PASSWORD}@127.0.0.1:1/postgres",
    "blanks": lambda server: f"host=127.0.0.1 port=1 password=a {PASSWORD}",
    "an unknown option": lambda server: server.url(**{PASSWORD: "1"}),
}


def told(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text


@pytest.mark.parametrize(
    ("name", "driver"),
    [(name, driver) for name in URLS for driver in DRIVERS if driver != "pg8000" or name in ("wrong password", "no such database")],
)
def test_no_password_is_told(
    postgres: PostgresServer, name: str, driver: str, caplog: pytest.LogCaptureFixture, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(db_manifest_store, "_ATTEMPTS", 1)
    url = URLS[name](postgres)
    store = PostgresManifestStore(lambda: DRIVERS[driver](url), ensure_table=False, timeout=20)
    with pytest.raises(ShardyfusionError) as info:
        ShardedReader(s3_prefix="any name", local_root=str(tmp_path), manifest_store=store)
    with pytest.raises(ConfigValidationError, match="Failed to create manifest tables") as created:
        PostgresManifestStore(lambda: DRIVERS[driver](url))
    assert PASSWORD not in told(info.value) + told(created.value) + caplog.text + repr(store)


# ---------------------------------------------------------------- clean-up

_DIES = """
import os, sys, psycopg2
from shardyfusion import HashShardedWriteConfig, PythonRecordInput, WriterManifestConfig, WriterOutputConfig
from shardyfusion.db_manifest_store import PostgresManifestStore
from shardyfusion.writer.python import write_hash_sharded

url, table, prefix, local, when = sys.argv[1:]

class Dies(PostgresManifestStore):
    def publish(self, **fields):
        if when == "after":
            super().publish(**fields)
        os._exit(9)

store = Dies(lambda: psycopg2.connect(url), table_name=table, pointer_table_name=table + "_pointer")
config = HashShardedWriteConfig(num_dbs=2, s3_prefix=prefix, manifest=WriterManifestConfig(store=store),
    output=WriterOutputConfig(run_id=when, local_root=local))
write_hash_sharded(range(10), config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"%d" % n))
"""


def test_a_run_that_is_killed_around_its_publishing(tables: Tables, tmp_path: Path) -> None:
    store, prefix = tables.store(), (tmp_path / "p").as_uri()
    for when in ("before", "after"):
        done = subprocess.run([sys.executable, "-c", _DIES, tables.server.url(), tables.name, prefix, str(tmp_path / "local"), when])
        assert done.returncode == 9
    records = sorted((tmp_path / "p" / "runs").glob("*/run.yaml"))
    for record, when in zip(records, ("before", "after"), strict=True):
        text = record.read_text()
        assert f"manifest_ref: {when}\n" in text and "status: running\n" in text
        record.write_text(re.sub(r"(updated_at|lease_expires_at): .*", "\\1: '2026-01-02T03:04:05Z'", text))
    options: Any = {"older_than": timedelta(0), "min_age": timedelta(0)}
    # who does not know of the store leaves both; who does asks it
    assert cleanup(prefix, old_runs=True, min_age=timedelta(0)).leftovers == ()
    assert [(one.kind, one.run_id) for one in cleanup(prefix, manifest_store=store, **options).leftovers] == [
        ("run", "before"), ("run_record", "before")
    ]  # fmt: skip
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path / "r"), manifest_store=store) as reader:
        assert reader.get(4) == b"4"


async def test_clean_up_gives_manifests_up(tables: Tables, tmp_path: Path) -> None:
    store = tables.store()
    prefix = (tmp_path / "gone").as_uri()
    rows = PythonRecordInput[int](key_fn=lambda n: n, value_fn=lambda n: b"%d" % n)
    for run_id in ("run-1", "run-2", "run-3"):
        write_hash_sharded(range(10), HashShardedWriteConfig(
            num_dbs=2, s3_prefix=prefix, manifest=WriterManifestConfig(store=store),
            output=WriterOutputConfig(run_id=run_id, local_root=str(tmp_path / "local")),
        ), rows)  # fmt: skip
    store.set_current("run-2")
    with pytest.raises(PublishConflictError, match="'run-2', which therefore stays"):
        store.delete_manifest("run-2")
    store.delete_manifest("nobody")
    found = await cleanup_async(prefix, manifest_store=as_async_store(store), keep_last=1, min_age=timedelta(0))
    assert found.leftovers == ()  # a store that cannot delete keeps all
    report = cleanup(prefix, manifest_store=store, keep_last=1, min_age=timedelta(0))
    assert [(one.kind, one.url) for one in report.leftovers][0] == ("manifest", "PostgresManifestStore#run-1")
    assert [ref.ref for ref in store.list_manifests()] == ["run-3", "run-2"]
    assert sorted(path.name for path in (tmp_path / "gone" / "shards").iterdir()) == ["run_id=run-2", "run_id=run-3"]
    with pytest.raises(ConfigValidationError, match="names a snapshot of"):
        cleanup((tmp_path / "other").as_uri(), manifest_store=store)


def test_clean_up_over_a_store_that_fails(tmp_path: Path) -> None:
    class Broken:
        def __init__(self, failure: Exception | None, answer: Any = None) -> None:
            self.failure, self.answer = failure, answer

        def load_current(self) -> Any:
            if self.failure is not None:
                raise self.failure
            return self.answer

        def load_manifest(self, ref: str) -> Any:
            raise AssertionError

        def list_manifests(self, *, limit: int = 10) -> Any:
            raise ZeroDivisionError("a list")

    prefix: Any = (tmp_path / "p").as_uri()
    for failure in (ManifestStoreError("no server"), KeyboardInterrupt(), OSError(5, "x")):
        with pytest.raises(type(failure)):
            cleanup(prefix, manifest_store=Broken(failure))  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError, match="a list"):
        cleanup(prefix, manifest_store=Broken(None))  # type: ignore[arg-type]
