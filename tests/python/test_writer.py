"""Writing through the engine: what is published is what was given, for every reader of the format."""

from __future__ import annotations

import contextlib
import asyncio
import gc
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    BuildResult,
    ConfigValidationError,
    DbAdapterError,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    InMemoryRunRegistry,
    KeyEncoding,
    LocalSlateDbFactory,
    ManifestStoreError,
    PublishConflictError,
    PublishManifestError,
    PublishRefusedError,
    PythonRecordInput,
    PythonWriteOptions,
    RowError,
    RunStatus,
    S3ManifestStore,
    ShardWriteError,
    SlateDbFactory,
    SlateDbSettings,
    ValueSpec,
    WriteCancelledError,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion._engine import native  # noqa: E402
from shardyfusion.config import ArrowRecordInput, PublishChecks, PublishPreview, WriteProgress  # noqa: E402
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.metrics import MetricEvent  # noqa: E402
from shardyfusion.routing import xxh3_db_id  # noqa: E402
from shardyfusion.run_registry import parse_run_record  # noqa: E402
from shardyfusion.slatedb_adapter import DbAdapter  # noqa: E402
from shardyfusion.sqlite_adapter import SqliteAdapterError, SqliteFactory  # noqa: E402
from shardyfusion.storage import BucketStore, ObstoreBackend  # noqa: E402
from shardyfusion.testing import ListMetricsCollector, open_slatedb_reader, real_file_adapter_factory  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

PAIRS: PythonRecordInput[tuple[Any, bytes]] = PythonRecordInput(key_fn=lambda p: p[0], value_fn=lambda p: p[1])


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server(None) as s:
        yield s


class Place:
    """Somewhere to publish to, and how to read from there."""

    def __init__(self, prefix: str | Path, local: Path, access: dict[str, Any]) -> None:
        self.prefix, self.local, self.access = prefix, local, access

    def config(self, **more: Any) -> HashShardedWriteConfig:
        more.setdefault("num_dbs", 4)
        more.setdefault("output", WriterOutputConfig(local_root=str(self.local / "write")))
        return HashShardedWriteConfig(s3_prefix=self.prefix, **self.access, **more)

    def write(self, rows: Any, input: Any = PAIRS, *, options: PythonWriteOptions | None = None, **more: Any) -> BuildResult:
        return write_hash_sharded(rows, self.config(**more), input, options or PythonWriteOptions(progress=False))

    def read(self, keys: list[Any]) -> list[bytes | None]:
        async def read() -> list[bytes | None]:
            async with await AsyncShardedReader.open(
                s3_prefix=self.prefix, local_root=str(self.local / "read"), **self.access
            ) as reader:
                values = await reader.multi_get(keys)
                return [values[key] for key in keys]

        return asyncio.run(read())

    def scan(self) -> dict[bytes, bytes]:
        async def scan() -> dict[bytes, bytes]:
            async with await AsyncShardedReader.open(
                s3_prefix=self.prefix, local_root=str(self.local / "read"), **self.access
            ) as reader:
                return {key: value async for key, value in reader.scan()}

        return asyncio.run(scan())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place((tmp_path / "bucket" / "snap").as_uri(), tmp_path, {})


@pytest.fixture(params=["file", "mem", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("server")
        access = {
            "credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
            "s3_connection_options": {"endpoint_url": s3.endpoint, "region_name": REGION},
        }
        yield Place(f"s3://scratch/{tmp_path.name}/snap", tmp_path, access)
    elif request.param == "mem":
        space = native.Store(f"mem://{tmp_path.name}")  # keeps the space alive
        yield Place(f"mem://{tmp_path.name}/snap", tmp_path, {})
        del space
    else:
        yield Place((tmp_path / "bucket" / "snap").as_uri(), tmp_path, {})


def objects(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- what is published is what was given


def test_rows_come_back(anywhere: Place) -> None:
    rows = [(n, b"value %d" % n) for n in range(5000)]
    result = anywhere.write(rows)
    assert anywhere.read([n for n, _ in rows]) == [value for _, value in rows]
    assert anywhere.read([5000, 10**15]) == [None, None]
    assert anywhere.scan() == {n.to_bytes(8, "big"): value for n, value in rows}
    assert (result.stats.rows_written, result.stats.num_winners) == (5000, 4)
    assert sum(w.row_count for w in result.winners) == 5000
    assert min(w.min_key for w in result.winners) == 0  # type: ignore[type-var]
    assert max(w.max_key for w in result.winners) == 4999  # type: ignore[type-var]
    assert all(w.db_bytes > 0 for w in result.winners)


@pytest.mark.parametrize(("bad", "text"), [("x", "requires integer"), (-1, "value in"), (None, "Unsupported key type")])
def test_a_bad_key_of_a_batch_is_named(place: Place, bad: Any, text: str) -> None:
    place.write([(n, b"") for n in range(9)])
    with pytest.raises(Exception) as caught:
        place.read([1, 2, bad, 3])
    errors = caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else [caught.value]
    assert text in str(errors[0])
    assert errors[0].__notes__ == [f"at key 3 of 4 of the batch: {bad!r}"]


def test_a_second_snapshot_replaces_the_first(anywhere: Place) -> None:
    first = anywhere.write([(1, b"one"), (2, b"two")])
    second = anywhere.write([(1, b"uno"), (3, b"tres")])
    assert first.manifest_ref != second.manifest_ref
    assert anywhere.read([1, 2, 3]) == [b"uno", None, b"tres"]


KEYS: dict[str, tuple[str, list[Any], list[bytes]]] = {
    "u64be": ("u64be", [0, 1, 2**63 - 1, True], [n.to_bytes(8, "big") for n in (0, 1, 2**63 - 1, 1)]),
    "u32be": ("u32be", [0, 7, 2**32 - 1], [n.to_bytes(4, "big") for n in (0, 7, 2**32 - 1)]),
    "utf8": ("utf8", ["a", "ä€😀", "x" * 65535], [s.encode() for s in ("a", "ä€😀", "x" * 65535)]),
    "utf8 bytes": ("utf8", [b"a", b"b"], [b"a", b"b"]),
    "raw": ("raw", [b"\x00", b"\xff\xfe", b"k"], [b"\x00", b"\xff\xfe", b"k"]),
}


@pytest.mark.parametrize("case", KEYS)
def test_key_encodings(place: Place, case: str) -> None:
    encoding, keys, stored = KEYS[case]
    rows = [(key, b"%d" % n) for n, key in enumerate(keys)]
    result = place.write(rows, key_encoding=KeyEncoding(encoding), num_dbs=1)
    wanted = dict(rows)
    assert place.read(list(wanted)) == list(wanted.values())
    assert sorted(place.scan()) == sorted(set(stored))
    (winner,) = result.winners
    if case == "raw":
        assert (winner.min_key, winner.max_key) == (None, None), "JSON has no form for such keys"
    else:
        assert (winner.min_key, winner.max_key) == (min(keys), max(keys))
        assert type(winner.min_key) is (bytes if case == "utf8 bytes" else type(min(keys)))


VALUES = [b"", b"\x00", b"x", os.urandom(100), os.urandom(1 << 20), bytearray(b"array"), memoryview(b"view")]


def test_values_of_all_sizes(place: Place) -> None:
    place.write(list(enumerate(VALUES)))
    assert place.read(list(range(len(VALUES)))) == [bytes(value) for value in VALUES]


def test_empty_shards_and_an_empty_snapshot(place: Place) -> None:
    result = place.write([(5, b"five")], num_dbs=64)
    assert len(result.winners) == 1
    assert place.read([5, 6]) == [b"five", None]
    empty = place.write([], num_dbs=64)
    assert (empty.winners, empty.stats.rows_written) == ([], 0)
    assert place.read([5]) == [None]


def test_the_last_of_several_rows_with_one_key_wins(place: Place) -> None:
    rows = [(n % 100, b"%d" % n) for n in range(1000)]
    result = place.write(rows)
    assert (result.stats.rows_written, result.stats.duplicates) == (100, 900)
    assert sum(winner.row_count for winner in result.winners) == 100
    assert place.read(list(range(100))) == [b"%d" % (900 + n) for n in range(100)]


def test_input_that_does_not_fit_in_memory(place: Place) -> None:
    rows = ((n * 7919 % 50_000, b"%08d" % n * 10) for n in range(100_000))
    options = PythonWriteOptions(progress=False, memory_bytes=1 << 20, workers=2)
    place.write(rows, options=options)
    assert place.read([0, 7919, 49_999]) == [
        b"%08d" % max(n for n in range(100_000) if n * 7919 % 50_000 == key) * 10 for key in (0, 7919, 49_999)
    ]
    assert not list((place.local / "write").rglob("*")), "nothing is left of the spill"


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "no member twice"
    return dict(pairs)


def test_manifest_says_what_readers_need(place: Place) -> None:
    custom = {"team": "search", "nested": {"a": [1, None]}}
    result = place.write([(1, b"")], manifest=WriterManifestConfig(custom_manifest_fields=custom))
    assert set(custom) == {"team", "nested"}
    with contextlib.closing(sqlite3.connect(":memory:")) as con, con:
        con.deserialize(Path(result.manifest_ref.removeprefix("file://")).read_bytes())
        con.row_factory = sqlite3.Row
        build = dict(con.execute("SELECT * FROM build_meta").fetchone())
        shard = dict(con.execute("SELECT * FROM shards").fetchone())
    con.close()
    fields = json.loads(build.pop("custom"), object_pairs_hook=once)
    assert fields.items() >= {"team": "search", "nested": {"a": [1, None]}, "kv_backend": "slatedb"}.items()
    assert build.items() >= {
        "run_id": result.run_id,
        "num_dbs": 4,
        "key_col": "_key",
        "key_encoding": "u64be",
        "format_version": 4,
        "db_path_template": "db={db_id:05d}",
        "shard_prefix": "shards",
        "s3_prefix": place.prefix,
    }.items()
    assert json.loads(build["sharding"])["strategy"] == "hash"
    (winner,) = result.winners
    assert (shard["db_url"], shard["checkpoint_id"], shard["row_count"]) == (winner.db_url, winner.checkpoint_id, 1)


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    rows = [(n, b"value %d" % n) for n in range(20_000)]
    trees = []
    for number, (given, workers) in enumerate([(rows, 1), (rows[::-1], 4), (sorted(rows, key=lambda r: r[1]), 2)]):
        where = tmp_path / str(number)
        place = Place((where / "snap").as_uri(), where, {})
        options = PythonWriteOptions(progress=False, workers=workers, memory_bytes=1 << 20 if number == 2 else None)
        place.write(given, options=options, output=WriterOutputConfig(run_id="r", local_root=str(where)))
        trees.append({name: data for name, data in objects(where / "snap").items() if "/compacted/" in name})
    assert len(trees[0]) == 4
    assert trees[0] == trees[1] == trees[2]


# ---------------------------------------------------------------- factories


@pytest.mark.parametrize("factory", [SlateDbFactory, LocalSlateDbFactory])
@pytest.mark.parametrize("codec", [None, "Snappy", "Zlib", "Lz4", "Zstd"])
def test_slatedb_factories(place: Place, factory: Callable[..., Any], codec: str | None) -> None:
    raw = {} if codec is None else {"compression_codec": codec}
    settings = SlateDbSettings(l0_sst_size_bytes=1 << 16, flush_interval="100ms", raw_overrides=raw)
    rows = [(n, b"%04d" % n * 50) for n in range(2000)]
    place.write(rows, adapter_factory=factory(settings=settings), num_dbs=2)
    assert place.scan() == {n.to_bytes(8, "big"): value for n, value in rows}


def test_sqlite_shards(place: Place) -> None:
    rows = [(n, b"%04d" % n * 50) for n in range(2000)]
    result = place.write(rows, adapter_factory=SqliteFactory(page_size=8192), num_dbs=2)
    found: dict[bytes, bytes] = {}
    for winner in result.winners:
        assert winner.db_url is not None
        path = Path(winner.db_url.removeprefix("file://")) / "shard.db"
        assert path.stat().st_size == winner.db_bytes
        with contextlib.closing(sqlite3.connect(path)) as con, con:
            assert con.execute("PRAGMA page_size").fetchone() == (8192,)
            found |= dict(con.execute("SELECT k, v FROM kv"))
        con.close()
    assert found == {n.to_bytes(8, "big"): value for n, value in rows}


@pytest.mark.parametrize("sidecar", [True, False])
def test_sqlite_shards_are_read_back(place: Place, sidecar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    options = PythonWriteOptions(progress=False, verify=True)
    rows = [(n, b"v" * (n % 5000)) for n in range(3000)]
    factory = SqliteFactory(emit_sidecar=sidecar)
    assert place.write(rows, adapter_factory=factory, options=options).stats.rows_written == 3000
    before = left_behind(place)
    content = native.shard_content
    monkeypatch.setattr(native, "shard_content", lambda *where: (content(*where)[0], "0" * 32))
    with pytest.raises(DbAdapterError, match="does not read back as it was written"):
        place.write(rows, adapter_factory=factory, options=options)
    assert left_behind(place) == before


def test_adapters_of_the_engine_serve_other_factories(tmp_path: Path) -> None:
    """A factory of one's own around a built-in adapter takes the general way."""
    store = InMemoryManifestStore()
    config = HashShardedWriteConfig(
        num_dbs=2,
        s3_prefix="s3://bucket/p",
        adapter_factory=real_file_adapter_factory(str(tmp_path)),
        manifest=WriterManifestConfig(store=store),
        output=WriterOutputConfig(local_root=str(tmp_path / "local")),
        batch_size=100,
    )
    rows = {n: b"value %d" % n for n in range(1000)}
    result = write_hash_sharded(list(rows.items()), config, PAIRS, PythonWriteOptions(progress=False))
    found: dict[bytes, bytes] = {}
    for winner in result.winners:
        assert winner.db_url is not None
        reader = open_slatedb_reader(winner.db_url.replace("s3://", f"{tmp_path.as_uri()}/"))
        found |= dict(reader.scan_iter())
        reader.close()
    assert found == {n.to_bytes(8, "big"): value for n, value in rows.items()}


ADAPTERS: dict[str, Callable[[], Any]] = {
    "slatedb": SlateDbFactory,
    "local": LocalSlateDbFactory,
    "sqlite": SqliteFactory,
}


class Shard:
    """One shard by itself, and what is stored of it."""

    def __init__(self, tmp_path: Path, backend: str) -> None:
        self.folder = tmp_path / "shard"
        self.factory = ADAPTERS[backend]()
        self.local = tmp_path / "local"
        self.backend = backend

    def open(self) -> Any:
        return self.factory(db_url=self.folder.as_uri(), local_dir=self.local)

    def rows(self) -> dict[bytes, bytes] | None:
        if not self.folder.exists() or not objects(self.folder):
            return None
        if self.backend == "sqlite":
            with contextlib.closing(sqlite3.connect(self.folder / "shard.db")) as db, db:
                return dict(db.execute("select k, v from kv"))
        reader = open_slatedb_reader(f"file://{self.folder}")
        with closing(reader):
            return dict(reader.scan_iter())


def with_block(shard: Shard) -> None:
    with shard.open() as adapter:
        adapter.write_batch([(b"k", b"v")])


def without_seal(shard: Shard) -> None:
    adapter = shard.open()
    adapter.write_batch([(b"k", b"v")])
    adapter.flush()
    adapter.close()
    adapter.close()


def sealed(shard: Shard) -> None:
    with shard.open() as adapter:
        adapter.write_batch([(b"k", b"old"), (b"k", b"v")])
        adapter.seal()
        assert adapter.rows_stored() == 1


def retry_in_an_except_block(shard: Shard) -> None:
    try:
        raise Broken("the first try")
    except Broken:
        adapter = shard.open()
        adapter.write_batch([(b"k", b"v")])
        adapter.close()


def end_of_a_loop(shard: Shard) -> None:
    batches, adapter = iter([[(b"k", b"v")]]), shard.open()
    while True:
        try:
            adapter.write_batch(next(batches))
        except StopIteration:
            adapter.close()
            return


def raising_with_block(shard: Shard) -> None:
    with pytest.raises(Broken), shard.open() as adapter:
        adapter.write_batch([(b"k", b"v")])
        raise Broken("oh")


def raising_before_finally(shard: Shard) -> None:
    def work() -> None:
        adapter = shard.open()
        try:
            adapter.write_batch([(b"k", b"v")])
            raise Broken("oh")
        finally:
            adapter.close()

    pytest.raises(Broken, work)


def a_batch_that_failed(shard: Shard) -> None:
    adapter = shard.open()
    adapter.write_batch([(b"k", b"v")])
    with pytest.raises(TypeError):
        adapter.write_batch([(b"l", "text")])
    adapter.close()


def interrupted(shard: Shard) -> None:
    def rows() -> Iterator[tuple[bytes, bytes]]:
        yield b"l", b"v"
        raise KeyboardInterrupt

    def work() -> None:
        adapter = shard.open()
        try:
            adapter.write_batch([(b"k", b"v")])
            adapter.write_batch(rows())
        finally:
            adapter.close()

    pytest.raises(KeyboardInterrupt, work)


def dropped(shard: Shard) -> None:
    adapter = shard.open()
    adapter.write_batch([(b"k", b"v")])
    with pytest.warns(ResourceWarning, match="unclosed writer of the shard at .*: its rows are not stored"):
        del adapter
        gc.collect()


ENDS: dict[str, tuple[Callable[[Shard], None], bool]] = {
    "with block": (with_block, True),
    "closed without seal": (without_seal, True),
    "sealed": (sealed, True),
    "a retry in an except block": (retry_in_an_except_block, True),
    "the end of a loop": (end_of_a_loop, True),
    "with block that raises": (raising_with_block, False),
    "raises before finally": (raising_before_finally, False),
    "a batch that failed": (a_batch_that_failed, False),
    "interrupted": (interrupted, False),
    "dropped": (dropped, False),
}


@pytest.mark.parametrize("backend", ADAPTERS)
@pytest.mark.parametrize("case", ENDS)
def test_how_an_adapter_ends(tmp_path: Path, case: str, backend: str) -> None:
    """Closed after success it stores its rows, sealed or not; after an exception, or unclosed, nothing."""
    end, stores = ENDS[case]
    shard = Shard(tmp_path, backend)
    end(shard)
    assert shard.rows() == ({b"k": b"v"} if stores else None)


AFTER_CLOSE: dict[str, tuple[Callable[[Any], Any], Any]] = {  # None: refused
    "write_batch": (lambda a: a.write_batch([(b"late", b"v")]), None),
    "flush": (lambda a: a.flush(), None),
    "seal": (lambda a: a.seal(), None),
    "close": (lambda a: a.close(), [None]),
    "__exit__": (lambda a: a.__exit__(None, None, None), [None]),
    "rows_stored": (lambda a: a.rows_stored(), [1]),
    "db_bytes": (lambda a: a.db_bytes() > 0, [True]),
}


@pytest.mark.parametrize("closing_way", ["sealed", "with_block", "without_seal"])
@pytest.mark.parametrize("backend", ADAPTERS)
def test_a_closed_adapter(tmp_path: Path, backend: str, closing_way: str) -> None:
    """What writes is refused with the adapter's own error; what tells and what closes works as before."""
    shard = Shard(tmp_path, backend)
    adapter = shard.open()
    adapter.write_batch([(b"k", b"v")])
    if closing_way == "sealed":
        adapter.seal()
    if closing_way == "with_block":
        with adapter:
            pass
    adapter.close()
    refusal = (SqliteAdapterError, "^Adapter already closed$")
    if backend != "sqlite":
        refusal = (DbAdapterError, f"^The writer of the shard at '{shard.folder.as_uri()}' is closed")
    assert {name for name in dir(DbAdapter) if not name.startswith("_")} <= set(AFTER_CLOSE)
    for name, (call, answer) in AFTER_CLOSE.items():
        if answer is not None:
            assert [call(adapter)] == answer, name
            continue
        with pytest.raises(refusal[0], match=refusal[1]):
            call(adapter)
    assert shard.rows() == {b"k": b"v"}


def test_a_sealed_sqlite_adapter(tmp_path: Path) -> None:
    with Shard(tmp_path, "sqlite").open() as adapter:
        adapter.seal()
        for call, text in ((lambda: adapter.write_batch([]), "Cannot write after seal"), (adapter.seal, "Adapter already sealed")):
            with pytest.raises(SqliteAdapterError, match=f"^{text}$"):
                call()


def test_a_template_of_ones_own(place: Place) -> None:
    """The engine's template language is smaller than Python's: such a run takes the general way."""
    output = WriterOutputConfig(local_root=str(place.local), db_path_template="part-{db_id:x}-of-16")
    result = place.write([(n, b"") for n in range(100)], output=output, num_dbs=16)
    assert {Path(w.db_url or "").parent.name for w in result.winners} == {f"part-{n:x}-of-16" for n in range(16)}
    assert len(place.scan()) == 100


# ---------------------------------------------------------------- the real engine reads them


def rows_file(path: Path, rows: list[tuple[bytes, bytes]]) -> str:
    """In the form that tests/interop/read_shards.py takes."""
    path.write_bytes(b"".join(struct.pack("<II", len(k), len(v)) + k + v for k, v in sorted(rows)))
    return str(path)


@pytest.mark.parametrize(
    ("version", "mode"), [("0.12.1", "checkpoint"), ("0.12.1", "reader"), ("0.13.1", "reader"), ("0.17.0", "reader")]
)
def test_the_real_engine_reads_every_row(place: Place, version: str, mode: str) -> None:
    cases = []
    for codec in (None, "Zstd"):
        settings = SlateDbSettings(raw_overrides={} if codec is None else {"compression_codec": codec})
        rows = {n: b"%05d" % n * (n % 40) for n in range(2000)}
        result = place.write(list(rows.items()), adapter_factory=SlateDbFactory(settings=settings), num_dbs=2)
        for winner in result.winners:
            assert winner.db_url is not None and winner.checkpoint_id is not None
            mine = [(n.to_bytes(8, "big"), value) for n, value in rows.items() if xxh3_db_id(n, 2) == winner.db_id]
            name = f"{codec}-{winner.db_id}"
            cases.append(
                {
                    "name": name,
                    "path": winner.db_url.removeprefix("file://"),
                    "checkpoint": str(uuid.UUID(winner.checkpoint_id)),
                    "rows": rows_file(place.local / name, mine),
                    "absent": [(10**6).to_bytes(8, "big").hex()],
                }
            )
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/interop/read_shards.py"), mode],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".cache" / f"slatedb-{version}")},
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- Arrow


def arrow_tables() -> dict[str, Any]:
    pa = pytest.importorskip("pyarrow")
    n = 3000
    values = [b"value %d" % i for i in range(n)]
    table = pa.table({"v": pa.array(values, pa.binary()), "other": [0.5] * n, "k": pa.array(range(n), pa.int64())})
    text = pa.table({"k": pa.array([str(i) for i in range(n)]), "v": pa.array(values, pa.large_binary())})
    return {
        "table": (table, "u64be", int),
        "chunks": (pa.concat_tables([table.slice(0, 1000), table.slice(1000)]), "u64be", int),
        "reader": (pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=100)), "u64be", int),
        "uint32 keys": (table.set_column(2, "k", pa.array(range(n), pa.uint32())), "u64be", int),
        "text keys": (text, "utf8", str),
        "large text": (text.set_column(0, "k", text["k"].cast(pa.large_string())), "utf8", str),
    }


@pytest.mark.parametrize("case", ["table", "chunks", "reader", "uint32 keys", "text keys", "large text"])
def test_arrow_records(place: Place, case: str) -> None:
    records, encoding, kind = arrow_tables()[case]
    result = place.write(records, ArrowRecordInput("k", "v"), key_encoding=KeyEncoding(encoding))
    keys = [kind(i) for i in range(3000)]
    assert place.read(keys) == [b"value %d" % i for i in range(3000)]
    assert result.stats.rows_written == 3000


def test_an_arrow_stream_is_read_once(place: Place) -> None:
    pa = pytest.importorskip("pyarrow")

    class Once:
        def __init__(self) -> None:
            self.stream = pa.table({"k": [1], "v": [b"x"]}).__arrow_c_stream__()

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return self.stream

    records = Once()
    place.write(records, ArrowRecordInput("k", "v"))
    with pytest.raises(ConfigValidationError, match="the Arrow stream was read before"):
        place.write(records, ArrowRecordInput("k", "v"))
    assert place.read([1]) == [b"x"]


def test_whatever_reads_arrow_streams_refuses_one_that_was_read() -> None:
    pa = pytest.importorskip("pyarrow")
    readers = (
        lambda records: native.Shuffle({"num_dbs": 2}).add_arrow(records, "k", "v"),
        lambda records: native.cel_shards({"expr": "key % 2", "columns": {"key": "int"}, "mode": "direct", "values": None}).place_arrow(records, "k"),
    )
    for read in readers:
        stream = pa.table({"k": [1], "v": [b"x"]}).__arrow_c_stream__()
        records = type("Once", (), {"__arrow_c_stream__": lambda self, requested_schema=None: stream})()  # noqa: B023
        read(records)
        with pytest.raises(ConfigValidationError, match="the Arrow stream was read before"):
            read(records)


@pytest.mark.parametrize("value", ["much", 1.5, -1, 1 << 64])
def test_the_engine_takes_no_other_number(value: object) -> None:
    with pytest.raises(ValueError, match="memory_bytes must be an integer from 0 to"):
        native.Writer("mem://numbers/snap", {"num_dbs": 1, "memory_bytes": value}, print)  # type: ignore[typeddict-item]


def test_arrow_and_rows_give_the_same_bytes(tmp_path: Path) -> None:
    table, *_ = arrow_tables()["table"]
    trees = []
    for name, records, input in (
        ("rows", [(i, b"value %d" % i) for i in range(3000)], PAIRS),
        ("arrow", table, ArrowRecordInput("k", "v")),
    ):
        place = Place((tmp_path / name / "snap").as_uri(), tmp_path, {})
        place.write(records, input, output=WriterOutputConfig(run_id="r", local_root=str(tmp_path)))
        trees.append({k: v for k, v in objects(tmp_path / name / "snap").items() if "/compacted/" in k})
    assert trees[0] == trees[1]


def test_arrow_with_a_value_spec(place: Place) -> None:
    table, *_ = arrow_tables()["table"]
    place.write(table, ArrowRecordInput("k", value_spec=ValueSpec.binary_col("v")))
    assert place.read([5]) == [b"value 5"]
    flat = table.drop_columns(["v"])
    place.write(flat, ArrowRecordInput("k", value_spec=ValueSpec.json_cols(["other"])))
    assert place.read([5]) == [b'{"other":0.5}']


def test_number_of_shards_from_arrow_rows(place: Place) -> None:
    table, *_ = arrow_tables()["table"]
    result = place.write(table, ArrowRecordInput("k", "v"), num_dbs=None, max_keys_per_shard=1000)
    assert len(result.winners) == 3


def frames() -> dict[str, tuple[Callable[[], Any], str]]:
    """The rows 1 and 2 (or "a" and "b") in the forms in which tables come; the columns are k and v."""
    pa = pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    duckdb = pytest.importorskip("duckdb")
    values, text = pa.array([b"one", b"two"]), pa.array(["a", "b"])

    def table(keys: Any, v: Any = values) -> Any:
        return pa.table({"k": keys, "v": v})

    def delta() -> Any:  # the second batch's dictionary has grown
        first = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["a"]))
        second = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), pa.array(["a", "b"]))
        sink = pa.BufferOutputStream()
        schema = pa.schema({"k": first.type, "v": pa.binary()})
        with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as out:
            for keys, n in ((first, 0), (second, 1)):
                out.write_batch(pa.record_batch({"k": keys, "v": values.slice(n, 1)}, schema=schema))
        return pa.ipc.open_stream(sink.getvalue())

    numbers = pa.array([1, 2])
    return {
        "dictionary": (lambda: table(text.dictionary_encode()), "utf8"),
        "dictionary of numbers": (lambda: table(numbers.dictionary_encode()), "u64be"),
        "dictionary of values": (lambda: table(numbers, values.dictionary_encode()), "u64be"),
        "dictionary, delta": (delta, "utf8"),
        "runs": (lambda: table(pa.compute.run_end_encode(text)), "utf8"),
        "runs, sliced": (lambda: table(pa.chunked_array([pa.compute.run_end_encode(pa.array(["z", "a", "b"])).slice(1)])), "utf8"),
        "decimal": (lambda: table(numbers.cast(pa.decimal128(38, 0))), "u64be"),
        "decimal of 256 bits": (lambda: table(numbers.cast(pa.decimal256(76, 0))), "u64be"),
        "views": (lambda: table(text.cast(pa.string_view()), values.cast(pa.binary_view())), "utf8"),
        "large": (lambda: table(text.cast(pa.large_string()), values.cast(pa.large_binary())), "utf8"),
        "extension": (lambda: table(pa.ExtensionArray.from_storage(pa.json_(), text)), "utf8"),
        "sliced": (lambda: pa.concat_tables([table(pa.array([0, 1, 0]), pa.array([b"", b"one", b""])).slice(1, 1),
                                             table(pa.array([0, 2, 0]), pa.array([b"", b"two", b""])).slice(1, 1)]), "u64be"),
        "pandas": (lambda: pd.DataFrame({"k": [1, 2], "v": [b"one", b"two"]}), "u64be"),
        "pandas, categories": (lambda: pd.DataFrame({"k": pd.Categorical(["a", "b"]), "v": [b"one", b"two"]}), "utf8"),
        "polars": (lambda: pl.DataFrame({"k": ["a", "b"], "v": [b"one", b"two"]}), "utf8"),
        "polars, categories": (lambda: pl.DataFrame({"k": ["a", "b"], "v": [b"one", b"two"]}, schema_overrides={"k": pl.Categorical}), "utf8"),
        "polars, enum": (lambda: pl.DataFrame({"k": ["a", "b"], "v": [b"one", b"two"]}, schema_overrides={"k": pl.Enum(["b", "a"])}), "utf8"),
        "duckdb": (lambda: duckdb.sql("select k::hugeint as k, v::blob as v from (values (1, 'one'), (2, 'two')) t(k, v)").to_arrow_table(), "u64be"),
        "duckdb, enum": (lambda: duckdb.sql("select k::enum('b', 'a') as k, v::blob as v from (values ('a', 'one'), ('b', 'two')) t(k, v)"), "utf8"),
    }


FRAMES = [
    "dictionary", "dictionary of numbers", "dictionary of values", "dictionary, delta", "runs", "runs, sliced", "decimal",
    "decimal of 256 bits", "views", "large", "extension", "sliced", "pandas", "pandas, categories", "polars",
    "polars, categories", "polars, enum", "duckdb", "duckdb, enum",
]


@pytest.mark.parametrize("way", ["engine", "adapters"])
@pytest.mark.parametrize("case", FRAMES)
def test_columns_of_all_kinds(place: Place, case: str, way: str) -> None:
    make, encoding = frames()[case]
    more: dict[str, Any] = {}
    if way == "adapters":
        factory = SlateDbFactory()
        more["adapter_factory"] = lambda *, db_url, local_dir: factory(db_url=db_url, local_dir=local_dir)
    place.write(make(), ArrowRecordInput("k", "v"), key_encoding=KeyEncoding(encoding), **more)
    assert place.read([1, 2, 3] if encoding == "u64be" else ["a", "b", "c"]) == [b"one", b"two", None]


def test_frames_without_rows(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    pa, pd, pl = (pytest.importorskip(name) for name in ("pyarrow", "pandas", "polars"))
    used_up = pa.table({"k": [1], "v": [b""]}).to_reader()
    used_up.read_all()
    cases = (
        pd.DataFrame({"k": [], "v": []}),
        pd.DataFrame({"k": pd.Series([], dtype="float64"), "v": pd.Series([], dtype="object")}),
        pl.DataFrame({"k": [], "v": []}),
        pa.table({"k": pa.array([], pa.null()), "v": pa.array([], pa.null()).dictionary_encode()}),
        pa.table({"k": pa.array([], pa.float64()), "v": pa.array([], pa.float32())}),
        pd.DataFrame({"k": pd.Series([], dtype="bool"), "v": pd.Series([], dtype="bool")}),
        pa.table({"k": pa.array([], pa.date32()), "v": pa.array([], pa.list_(pa.bool_()))}),
        pa.table({"k": pa.array([], pa.int64()), "v": pa.array([], pa.int64())}),
        pa.RecordBatchReader.from_batches(pa.schema({"k": pa.int64(), "v": pa.binary()}), []),
        used_up,
    )
    for records in cases:
        caplog.clear()
        result = place.write(records, ArrowRecordInput("k", "v"))
        assert (result.winners, result.stats.rows_written) == ([], 0)
        assert [(r.levelname, r.message) for r in caplog.records if r.levelname == "WARNING"] == [("WARNING", "write_without_rows")]
    assert place.read([1]) == [None]


@pytest.mark.parametrize("spec", [None, ValueSpec.json_cols(["v"])])
def test_records_as_people_have_them(spec: ValueSpec | None, place: Place, tmp_path: Path) -> None:
    pa, pl, duckdb = (pytest.importorskip(name) for name in ("pyarrow", "polars", "duckdb"))
    dataset, parquet = pytest.importorskip("pyarrow.dataset"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"v": ["a", "b", "c"], "unused": [[1], [2], [3]], "k": [1, 2, 3]})
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(3):
        parquet.write_table(table.slice(number, 1), parts / f"part-{number}.parquet")
    halves = [table.slice(0, 1), table.slice(1)]
    kinds: dict[str, Any] = {
        "batches": iter(table.to_batches(max_chunksize=2)),
        "tables": halves,
        "data frames": (pl.from_arrow(half) for half in halves),
        "a dataset": dataset.dataset(str(parts), format="parquet"),
        "a scanner": dataset.dataset(table).scanner(),
        "a lazy frame": pl.from_arrow(table).lazy().filter(pl.col("k") > 0),
        "a relation": duckdb.from_arrow(table),
        "a folder": parts,
        "a pattern": str(parts / "part-*.parquet"),
        "files": [str(parts / f"part-{number}.parquet") for number in (2, 1, 0)],
        "one file": parts / "part-0.parquet",
    }
    input = ArrowRecordInput("k", "v") if spec is None else ArrowRecordInput("k", value_spec=spec)
    for kind, records in kinds.items():
        place.write(records, input)
        rows = {int.from_bytes(key, "big"): value for key, value in place.scan().items()}
        expected = {1: b"a", 2: b"b", 3: b"c"} if kind != "one file" else {1: b"a"}
        assert rows == {k: v if spec is None else b'{"v":"%s"}' % v for k, v in expected.items()}, kind


def test_what_batches_raise_is_raised(place: Place) -> None:
    pa = pytest.importorskip("pyarrow")

    def batches() -> Iterator[Any]:
        yield pa.table({"k": [1], "v": [b"a"]})
        raise LookupError("no more")

    for input in (ArrowRecordInput("k", "v"), ArrowRecordInput("k", value_spec=ValueSpec.binary_col("v")), ArrowRecordInput("k", value_spec=ValueSpec.json_cols(["k"]))):
        with pytest.raises(LookupError, match="no more"):
            place.write(batches(), input)


def test_paths_and_batches_are_not_counted(place: Place) -> None:
    pytest.importorskip("pyarrow")
    for records in ("rows.parquet", [], ["a", "b"]):
        with pytest.raises(ConfigValidationError, match="max_keys_per_shard"):
            place.write(records, ArrowRecordInput("k", "v"), num_dbs=None, max_keys_per_shard=10)


async def async_batches() -> Any:
    yield None


def other_batches(pa: Any) -> Iterator[Any]:
    """pyarrow believes whoever makes a reader of an iterator."""
    yield pa.record_batch({"k": [1], "v": [2]})


def test_batches_that_differ_in_form(place: Place) -> None:
    """As frames do that were read in pieces: other orders, nulls in place of text, integers as floating-point numbers."""
    pa = pytest.importorskip("pyarrow")
    batches = [
        pa.record_batch({"k": [1], "v": [b"a"], "n": [1.5]}),
        pa.record_batch({"n": [2.5], "v": [b"b"], "more": [0], "k": [2]}),
        pa.record_batch({"k": [3.0], "v": ["c"], "n": [3]}),
        pa.record_batch({"k": [4], "v": [b"d"], "n": pa.nulls(1)}),
    ]
    for input, values in (
        (ArrowRecordInput("k", "v"), [b"a", b"b", b"c", b"d"]),
        (ArrowRecordInput("k", value_spec=ValueSpec.json_cols(["n"])), [b'{"n":1.5}', b'{"n":2.5}', b'{"n":3.0}', b'{"n":null}']),
    ):
        place.write(iter(batches), input)
        assert place.read([1, 2, 3, 4]) == values


def test_folders_of_parquet_files(place: Place, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    dataset = pytest.importorskip("pyarrow.dataset")
    table = pa.table({"k": [1, 2, 3], "v": [b"a", b"b", b"c"], "region": ["eu", "us", "eu"]})
    hive = dataset.partitioning(pa.schema([("region", pa.string())]), flavor="hive")
    dataset.write_dataset(table, tmp_path / "x=1" / "rows", format="parquet", partitioning=hive)
    input = ArrowRecordInput("k", value_spec=ValueSpec.json_cols(["region", "x"]))
    for records in (tmp_path / "x=1" / "rows", (tmp_path / "x=1" / "rows").as_uri()):
        place.write(records, input)
        assert place.read([1, 2, 3]) == [b'{"region":"%s","x":null}' % r for r in (b"eu", b"us", b"eu")]
    place.write(f"{tmp_path.as_uri()}/*/rows/*/*.parquet", ArrowRecordInput("k", "v"))
    assert place.read([1, 2, 3]) == [b"a", b"b", b"c"]


def test_frames_are_no_rows(place: Place) -> None:
    pa, pl = (pytest.importorskip(name) for name in ("pyarrow", "polars"))
    table = pa.table({"k": [1], "v": [b""]})
    rows = PythonRecordInput[Any](key_fn=lambda row: row, value_fn=lambda row: b"")
    for frame, call in ((table.to_pandas(), "itertuples()"), (pl.from_arrow(table), "iter_rows(named=True)"), (table, "to_pylist()")):
        with pytest.raises(ConfigValidationError) as caught:
            place.write(frame, rows)
        assert str(caught.value).endswith(f", or pass records.{call}")
    place.write(pl.Series([1, 2]), rows)
    assert place.read([1, 2]) == [b"", b""]


def test_bad_arrow_records(place: Place) -> None:
    pa, duckdb = (pytest.importorskip(name) for name in ("pyarrow", "duckdb"))
    table, *_ = arrow_tables()["table"]
    kv, two = ArrowRecordInput("k", "v"), [b"", b""]
    holes = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([7, None]))
    twice = pa.table([[1], [2], [b""]], names=["k", "k", "v"])
    cases: list[tuple[Any, ArrowRecordInput, type[Exception], str]] = [
        (table, ArrowRecordInput("absent", "v"), ConfigValidationError, "absent"),
        (table, ArrowRecordInput("k", "other"), ConfigValidationError, "value column 'other' has type double"),
        ([1, 2], kv, ConfigValidationError, r"records of type list have no __arrow_c_stream__: pass record batches, .*from_pylist"),
        ({"k": [1]}, kv, ConfigValidationError, r"pass pyarrow.table\(records\)"),
        (duckdb.connect(), kv, ConfigValidationError, r"pass records.(fetch_record_batch|to_arrow_reader)\(\)"),
        ("/nowhere/rows.parquet", kv, ConfigValidationError, "Parquet files cannot be read: .*rows.parquet"),
        ("/nowhere/*.parquet", kv, ConfigValidationError, r"no file is named like '/nowhere/\*.parquet'"),
        ([table, 1], kv, ConfigValidationError, "int have no __arrow_c_stream__: it stands among record batches"),
        ([], kv, ConfigValidationError, "there are no record batches, so no columns: pass a table without rows"),
        ("s3://bucket/*.parquet", kv, ConfigValidationError, "patterns are of local files: pass the paths that"),
        ("file:///nowhere/*.parquet", kv, ConfigValidationError, "no file is named like 'file:///nowhere"),
        (table.to_pandas().set_index("k"), kv, ConfigValidationError, r"the key 'k' is the index of the frame, .* pass records.reset_index\(\)"),
        (async_batches(), kv, ConfigValidationError, "async_generator have no __arrow_c_stream__: .* shardyfusion.writer.aio"),
        (pa.chunked_array([[1]]), kv, ConfigValidationError, "no record batches"),
        (pa.chunked_array([[1]]), ArrowRecordInput("k", value_spec=ValueSpec.json_cols()), ConfigValidationError, "no record batches"),
        ([table, pa.table({"k": [1]})], kv, ConfigValidationError, "the columns of batch 2 are not those of the first one: .*v"),
        ([pa.table({"k": [1], "v": [b""]}), pa.table({"k": ["text"], "v": [b""]})], kv, ConfigValidationError, "the columns of batch 2 are not those of the first one"),
        (pa.RecordBatchReader.from_batches(pa.schema({"k": pa.int64(), "v": pa.binary()}), other_batches(pa)), kv, ConfigValidationError,
         "an Arrow batch has another value column 'v' than its schema, in which it has type binary"),
        (7, kv, ConfigValidationError, "int have no __arrow_c_stream__: pass a table, record batches, or the paths"),
        (pa.table({"k": [1, None, 3], "v": [b"", b"", b""]}), kv, RowError, "row 2: the key is null"),
        (pa.table({"k": holes, "v": two}), kv, RowError, "row 2: the key is null"),
        (pa.table({"k": pa.compute.run_end_encode(pa.array([1, None])), "v": two}), kv, RowError, "row 2: the key is null"),
        (pa.table({"k": [1, 2, -3], "v": [b"", b"", b""]}), kv, RowError, r"row 3: .*, got -3"),
        (pa.table({"k": [1, 2], "v": [b"", None]}), kv, RowError, "row 2"),
        (pa.table({"k": [1.5, 2.5], "v": two}), kv, ConfigValidationError, "key column 'k' has type double, which is neither integer, text nor binary"),
        (pa.table({"k": pa.array([1, 2]).cast(pa.decimal128(38, 2)), "v": two}), kv, ConfigValidationError, r"has type decimal\(38, 2\)"),
        (pa.table({"k": [True, False], "v": two}), kv, ConfigValidationError, "has type bool"),
        (pa.table({"k": [1, 2], "v": [[1], [2]]}), kv, ConfigValidationError, "value column 'v' has type list"),
        (pa.table({"k": pa.array([2**63], pa.uint64()), "v": [b""]}), kv, RowError, "row 1: key 9223372036854775808 is above"),
        (twice, kv, ConfigValidationError, "the rows have 2 columns 'k'"),
        (twice, ArrowRecordInput("k", value_spec=ValueSpec.json_cols(["v"])), ConfigValidationError, "the rows have 2 columns 'k'"),
        (pa.table({"k": [None], "v": [b""]}), ArrowRecordInput("k", value_spec=ValueSpec.json_cols([])), RowError, "row 1: the key is null"),
    ]
    for records, input, kind, text in cases:
        with pytest.raises(kind, match=text):
            place.write(records, input)
    assert not (place.local / "bucket" / "snap" / "_CURRENT").exists()


# ---------------------------------------------------------------- bad input


def left_behind(place: Place) -> list[str]:
    """Objects other than run records."""
    folder = place.local / "bucket" / "snap"
    return [name for name in objects(folder) if not name.startswith("runs/")] if folder.exists() else []


def record_of(place: Place) -> Any:
    (path,) = (place.local / "bucket" / "snap" / "runs").rglob("run.yaml")
    return parse_run_record(path.read_bytes())


class Broken(Exception):
    """Raised by the caller's functions."""


def raising(*args: Any) -> Any:
    raise Broken("oh")


BAD_ROWS: dict[str, tuple[str, Any, Any, type[BaseException], str]] = {
    "beyond 63 bits": ("u64be", 2**63, b"", ValueError, "Integer key 9223372036854775808 out of range"),
    "negative": ("u64be", -1, b"", ConfigValidationError, r"u64be encoding requires value in \[0, 2\^64-1\]"),
    "beyond 32 bits": ("u32be", 2**32, b"", ConfigValidationError, r"u32be encoding requires value in \[0, 2\^32-1\]"),
    "text for a number": ("u64be", "5", b"", ConfigValidationError, "u64be encoding expects int key, got <class 'str'>; keys of text need key_encoding=\"utf8\""),
    "bytes for a number": ("u64be", b"5", b"", ConfigValidationError, "; keys of bytes need key_encoding=\"raw\""),
    "number for text": ("utf8", 5, b"", ConfigValidationError, "utf8 encoding expects str or bytes key, got <class 'int'>"),
    "number for bytes": ("raw", 5, b"", ConfigValidationError, "raw encoding expects bytes or str key, got <class 'int'>"),
    "no key": ("u64be", None, b"", ValueError, "Unsupported key type for hashing: <class 'NoneType'>"),
    "half a character": ("utf8", "\ud800", b"", UnicodeEncodeError, "surrogates not allowed"),
    "text value": ("u64be", 1, "text", TypeError, "value_fn must return bytes, got <class 'str'>"),
    "no value": ("u64be", 1, None, TypeError, "value_fn must return bytes, got <class 'NoneType'>"),
    "number for a value": ("u64be", 1, 5, TypeError, "value_fn must return bytes, got <class 'int'>"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named_and_nothing_is_published(place: Place, case: str) -> None:
    encoding, key, value, kind, text = BAD_ROWS[case]
    good = 1 if encoding.startswith("u") and encoding != "utf8" else "one"
    rows = [(good, b"")] * 3000 + [(key, value)] + [(good, b"")] * 3000
    with pytest.raises(kind, match=text) as caught:
        place.write(rows, key_encoding=KeyEncoding(encoding))
    named = f": key {key!r}" if key is not None else ""
    assert caught.value.__notes__ == [f"at row 3001 of the records{named}"]
    assert left_behind(place) == []
    record = record_of(place)
    assert (record.status, record.error_type) == (RunStatus.FAILED, kind.__name__)


ENGINE_ROWS: dict[str, tuple[Any, bytes]] = {"empty key": (b"", b""), "long key": (b"k" * 65536, b"")}


@pytest.mark.parametrize("case", ENGINE_ROWS)
def test_what_the_format_cannot_hold(place: Place, case: str) -> None:
    rows = [(b"%d" % n, b"") for n in range(9)] + [ENGINE_ROWS[case]]
    with pytest.raises(RowError, match="row 10"):
        place.write(rows, key_encoding=KeyEncoding.RAW)
    assert left_behind(place) == []


def test_text_and_bytes_do_not_mix_in_a_shard(place: Place) -> None:
    with pytest.raises(ValueError) as caught:
        place.write([("a", b""), (b"b", b"")], key_encoding=KeyEncoding.UTF8, num_dbs=1)
    assert str(caught.value) == "Shard key type changed within partition: mixed int/str keys"
    assert caught.value.__notes__ == ["at row 2 of the records: key b'b'"]


@pytest.mark.parametrize("where", ["key_fn", "value_fn", "iterable"])
def test_the_callers_functions_may_raise(place: Place, where: str) -> None:
    def records() -> Iterator[int]:
        yield from range(5000)
        if where == "iterable":
            raise Broken("oh")
        yield 5000

    def fail_last(n: int) -> Any:
        return raising() if n == 5000 else n

    input = PythonRecordInput(
        key_fn=fail_last if where == "key_fn" else int,
        value_fn=(lambda n: fail_last(n) and b"" or b"") if where == "value_fn" else (lambda _: b""),
    )
    with pytest.raises(Broken) as caught:
        place.write(records(), input)
    assert (str(caught.value), caught.value.__notes__) == (
        "oh", ["at row 5001 of the records" + (": key 5000" if where == "value_fn" else "")]
    )
    assert left_behind(place) == []
    assert record_of(place).error_type == "Broken"


def test_duplicates_can_be_refused(place: Place) -> None:
    options = PythonWriteOptions(progress=False, on_duplicate="error")
    place.write([(n, b"") for n in range(100)], options=options)
    with pytest.raises(RowError, match=r"row 101: duplicate key 50 in shard \d, row 51 has it already"):
        place.write([(n, b"") for n in [*range(100), 50]], options=options)
    assert place.read([50, 100]) == [b"", None]
    for encoding, key, text in ((KeyEncoding.UTF8, "k\n", r"'k\\x0a'"), (KeyEncoding.RAW, b"\xff", r"b'\\xff'")):
        with pytest.raises(RowError, match=f"row 3: duplicate key {text} in shard 0, row 1 has it already"):
            place.write([(key, b""), (key * 2, b""), (key, b"")], options=options, key_encoding=encoding, num_dbs=1)


def test_an_interrupted_write_takes_back_what_it_stored(place: Place) -> None:
    def records() -> Iterator[tuple[int, bytes]]:
        for n in range(10**9):
            if n == 10_000:
                os.kill(os.getpid(), signal.SIGINT)
            yield n, b"value"

    with pytest.raises(KeyboardInterrupt):
        place.write(records())
    assert left_behind(place) == []
    assert record_of(place).error_type == "KeyboardInterrupt"
    assert not list((place.local / "write").rglob("*"))


def test_a_spill_folder_that_cannot_be_made(place: Place) -> None:
    blocked = place.local / "no-folder"
    blocked.write_text("a file where the spill folder should be")
    with pytest.raises(OSError):
        place.write([(1, b"")], output=WriterOutputConfig(local_root=str(blocked)))
    assert left_behind(place) == []


# ---------------------------------------------------------------- progress, cancelling, limits


def test_progress(place: Place) -> None:
    seen: list[WriteProgress] = []
    options = PythonWriteOptions(progress=seen.append, progress_interval=1e-6)
    place.write(((n, b"x" * 100) for n in range(200_000)), options=options)
    phases = [p for n, p in enumerate(p.phase for p in seen) if n == 0 or p != seen[n - 1].phase]
    order = ["adding", "building", "checking", "publishing", "cleaning", "done"]
    assert phases == [phase for phase in order if phase in phases] and {"building", "publishing"} <= set(phases)
    assert all(a.rows_read <= b.rows_read and a.elapsed <= b.elapsed for a, b in zip(seen, seen[1:], strict=False))
    last = seen[-1]
    assert (last.rows_read, last.shards_done, last.shards_total) == (200_000, 4, 4)
    assert last.rows_written == 200_000 and last.bytes_written > 20_000_000


@pytest.mark.parametrize("phase", ["adding", "building", "checking"])
def test_cancelling(place: Place, phase: str) -> None:
    cancel = threading.Event()

    def progress(state: WriteProgress) -> None:
        if state.phase == phase:
            cancel.set()

    place.write([(1, b"before")])
    before = left_behind(place)
    options = PythonWriteOptions(progress=progress, progress_interval=1e-6, cancel=cancel)
    if phase == "adding":
        cancel.set()
    with pytest.raises(WriteCancelledError):
        place.write(((n, b"x" * 100) for n in range(300_000)), options=options)
    assert left_behind(place) == before
    assert place.read([1]) == [b"before"]


def test_a_progress_callback_that_raises_ends_the_write(place: Place) -> None:
    with pytest.raises(Broken):
        place.write([(n, b"") for n in range(5000)], options=PythonWriteOptions(progress=raising))
    assert left_behind(place) == []


def test_limits_are_asked_for_rows_and_bytes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[int]] = {"ops": [], "bytes": []}

    class Bucket:
        def __init__(self, rate: float, collector: Any, kind: str) -> None:
            self.kind, self.rate = kind, rate

        def acquire(self, tokens: int) -> None:
            asked[self.kind].append(tokens)

    monkeypatch.setattr("shardyfusion.writer._limits.TokenBucket", Bucket)
    place.write(
        [(n, b"12345") for n in range(1000)],
        batch_size=300,
        max_writes_per_second=1e9,
        max_write_bytes_per_second=1e9,
    )
    assert asked == {"ops": [300, 300, 300, 100], "bytes": [1500, 1500, 1500, 500]}


def test_metrics(place: Place) -> None:
    collector = ListMetricsCollector()
    place.write([(1, b"")], metrics_collector=collector)
    assert [event.value for event, _ in collector.events] == [
        "write.started",
        "write.shards_completed",
        "write.manifest_published",
        "write.current_published",
        "write.completed",
    ]


# ---------------------------------------------------------------- publishing


def test_compare_and_swap(anywhere: Place) -> None:
    def publish(expected: Any) -> str:
        return anywhere.write([(1, b"")], manifest=WriterManifestConfig(expected_current=expected)).manifest_ref

    first = publish(None)
    second = publish(first)
    for stale in (None, first):
        with pytest.raises(PublishConflictError) as caught:
            publish(stale)
        assert (caught.value.expected, caught.value.found) == (stale, second)
    assert publish(second) != second


CHECKS: dict[str, tuple[PublishChecks, str]] = {
    "fewer rows": (PublishChecks(min_rows_share=0.9), "50"),
    "more rows": (PublishChecks(max_rows_share=0.1), "50"),
    "empty shards": (PublishChecks(max_empty_shards=0), "empty"),
    "callback says no": (PublishChecks(check=lambda _: False), "the check refused"),
    "callback says why": (PublishChecks(check=lambda p: f"{p.rows} of {p.previous_rows}"), "50 of 100"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_checks_refuse_before_anything_is_visible(place: Place, case: str) -> None:
    checks, text = CHECKS[case]
    place.write([(n, b"before") for n in range(100)])
    before = left_behind(place)
    options = PythonWriteOptions(progress=False, checks=checks)
    with pytest.raises(PublishRefusedError, match=text):
        place.write([(n, b"") for n in range(50)], options=options, num_dbs=64)
    assert left_behind(place) == before
    assert place.read([1]) == [b"before"]


def test_checks_pass(place: Place) -> None:
    previews: list[PublishPreview] = []
    checks = PublishChecks(0.5, 2.0, 0, 100, check=previews.append)
    options = PythonWriteOptions(progress=False, checks=checks, verify=True)
    for count in (100, 60):
        place.write([(n, b"value") for n in range(count)], options=options)
    assert [(p.rows, p.previous_rows, len(p.shards)) for p in previews] == [(100, None, 4), (60, 100, 4)]


def test_a_check_that_raises(place: Place) -> None:
    options = PythonWriteOptions(progress=False, checks=PublishChecks(check=raising))
    with pytest.raises(Broken):
        place.write([(1, b"")], options=options)
    assert left_behind(place) == []


def test_verify_finds_damage(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "shard_content", lambda *where: (1, "0" * 32))
    with pytest.raises(Exception, match="does not read back as it was written"):
        place.write([(1, b"")], options=PythonWriteOptions(progress=False, verify=True))
    assert left_behind(place) == []


def test_dry_run_leaves_nothing(place: Place) -> None:
    result = place.write([(n, b"") for n in range(100)], options=PythonWriteOptions(progress=False, dry_run=True))
    assert (result.manifest_ref, result.stats.rows_written) == ("", 100)
    assert left_behind(place) == []


def test_a_manifest_store_of_ones_own(place: Place) -> None:
    store, registry = InMemoryManifestStore(), InMemoryRunRegistry()
    result = place.write(
        [(n, b"") for n in range(100)], manifest=WriterManifestConfig(store=store), run_registry=registry
    )
    current = store.load_current()
    assert current is not None and current.ref == result.manifest_ref
    assert store.load_manifest(current.ref).shards == result.winners
    custom = store.load_manifest(current.ref).custom
    assert custom["kv_backend"] == "slatedb"
    assert set(custom["content_hash"]["shards"]) == {"0", "1", "2", "3"}
    assert {name.split("/")[0] for name in left_behind(place)} == {"shards"}
    assert result.run_record_ref is not None
    assert registry.load(result.run_record_ref).manifest_ref == result.manifest_ref


def test_a_manifest_store_that_fails(place: Place) -> None:
    class Store(InMemoryManifestStore):
        def publish(self, **kwargs: Any) -> str:
            raise Broken("no")

    with pytest.raises(PublishManifestError) as caught:
        place.write([(1, b"")], manifest=WriterManifestConfig(store=Store()))
    assert str(caught.value) == "Failed to publish manifest"
    assert isinstance(caught.value.__cause__, Broken)
    assert left_behind(place) != [], "it may have kept the manifest: the data stays"


def test_storage_that_is_away(tmp_path: Path) -> None:
    options = {"endpoint_url": "http://127.0.0.1:9", "region_name": "r", "max_attempts": 1, "connect_timeout": 1}
    place = Place("s3://bucket/p", tmp_path, {
        "credential_provider": StaticCredentialProvider("a", "b"), "s3_connection_options": options})
    registry = InMemoryRunRegistry()
    with pytest.raises(Exception) as caught:
        place.write([(1, b"")], run_registry=registry)
    assert caught.value.retryable  # type: ignore[attr-defined]
    assert [r.status for r in registry._records.values()] == [RunStatus.FAILED]


def wrapped(factory: Any) -> Any:
    """A factory of the caller's, for the general way."""
    return lambda *, db_url, local_dir: factory(db_url=db_url, local_dir=local_dir)


def shards_of(place: Place) -> dict[bytes, bytes]:
    """The rows of the snapshot that the pointer names."""
    rows: dict[bytes, bytes] = {}
    store = S3ManifestStore(ObstoreBackend(BucketStore(place.prefix)), place.prefix)
    current = store.load_current()
    assert current is not None
    for shard in store.load_manifest(current.ref).shards:
        folder = Path(str(shard.db_url).removeprefix("file://"))
        one = Shard(folder.parent, "sqlite" if (folder / "shard.db").exists() else "slatedb")
        one.folder = folder
        rows |= one.rows() or {}
    return rows


@pytest.mark.parametrize("way", ["engine", "adapters"])
@pytest.mark.parametrize("backend", [SlateDbFactory, SqliteFactory])
def test_a_run_id_again(place: Place, backend: Any, way: str) -> None:
    """A scheduler's retry: after a run that ended well and after one that failed; each snapshot can be rolled back to."""
    output = WriterOutputConfig(run_id="daily", local_root=str(place.local / "write"))
    factory = backend() if way == "engine" else wrapped(backend())
    results = []
    for n in range(3):
        rows = {k: b"%d of %d" % (k, n) for k in range(50)}
        results.append(place.write(list(rows.items()), output=output, adapter_factory=factory))
        assert [winner.attempt for winner in results[-1].winners] == [n] * 4
        assert results[-1].stats.num_attempt_results == 4
        assert shards_of(place) == {k.to_bytes(8, "big"): v for k, v in rows.items()}
        with pytest.raises(Broken):
            place.write(([(1, b"")] if k < 99 else raising() for k in range(100)), output=output, adapter_factory=factory,
                        input=PythonRecordInput(key_fn=lambda r: r[0][0], value_fn=lambda r: r[0][1]))
    assert len({result.manifest_ref for result in results}) == 3
    assert len(list((place.local / "bucket" / "snap").rglob("attempt=*"))) == 12
    records = [parse_run_record(path.read_bytes()) for path in (place.local / "bucket").rglob("run.yaml")]
    assert sorted(record.status for record in records) == [RunStatus.FAILED] * 3 + [RunStatus.SUCCEEDED] * 3


DYING = """
import os, signal, sys
from shardyfusion import HashShardedWriteConfig, PythonRecordInput, PythonWriteOptions, WriterOutputConfig
from shardyfusion.writer.python import write_hash_sharded

prefix, local, how = sys.argv[1:]
def told(progress):
    if how == "kill" and progress.phase == "publishing":
        os.kill(os.getpid(), signal.SIGKILL)
def rows():
    yield from range(50)
    if how == "wait":
        print("waiting", flush=True)
        sys.stdin.read()
config = HashShardedWriteConfig(num_dbs=4, s3_prefix=prefix, output=WriterOutputConfig(run_id="daily", local_root=local))
write_hash_sharded(rows(), config, PythonRecordInput(key_fn=int, value_fn=lambda n: b"dead"),
                   PythonWriteOptions(progress=told))
"""


def dying(place: Place, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DYING, place.prefix, str(place.local / "other"), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )


def test_a_run_id_of_a_writer_that_was_killed(place: Place) -> None:
    """Its lease lasts for minutes; that the process is gone is known on the same machine."""
    process = dying(place, "kill")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert left_behind(place), "it died behind its shards"
    output = WriterOutputConfig(run_id="daily", local_root=str(place.local / "write"))
    result = place.write([(n, b"alive") for n in range(50)], output=output)
    assert {winner.attempt for winner in result.winners} == {1}
    assert set(place.read(list(range(50)))) == {b"alive"}


@pytest.mark.parametrize("way", ["engine", "adapters", "path"])
def test_a_run_id_of_a_living_writer(place: Place, way: str) -> None:
    process = dying(place, "wait")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "waiting\n"
    output = WriterOutputConfig(run_id="daily", local_root=str(place.local / "write"))
    factory = wrapped(SlateDbFactory()) if way == "adapters" else SlateDbFactory()
    if way == "path":
        place = Place(place.local / "bucket" / "snap", place.local, {})
    taken: list[int] = []
    with pytest.raises(ManifestStoreError, match="another writer works on run 'daily': its lease ends at 20"):
        place.write((taken.append(n) or (n, b"") for n in range(50)), output=output, adapter_factory=factory)
    assert taken == []
    process.communicate()
    assert process.returncode == 0
    place.write([(n, b"second") for n in range(50)], output=output, adapter_factory=factory)
    assert set(shards_of(place).values()) == {b"second"}


UNUSABLE: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "no such bucket": ("s3://no-such-bucket/snap", {}, FileNotFoundError, "no bucket"),
    "unknown key": ("s3://scratch/early", {"access": "unknown"}, PermissionError, "XAdminUserNotFound|InvalidAccessKeyId"),
    "wrong secret": ("s3://scratch/early", {"secret": "wrong"}, PermissionError, "SignatureDoesNotMatch"),
}


@pytest.mark.parametrize("registry", ["beside the snapshot", "elsewhere"])
@pytest.mark.parametrize("run_id", [None, "daily"])
@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_storage_is_noticed_before_the_first_row(
    server: S3Server, tmp_path: Path, case: str, run_id: str | None, registry: str
) -> None:
    prefix, wrong, kind, text = UNUSABLE[case]
    access = {
        "credential_provider": StaticCredentialProvider(wrong.get("access", ACCESS_KEY), wrong.get("secret", SECRET_KEY)),
        "s3_connection_options": {"endpoint_url": server.endpoint, "region_name": REGION},
    }
    more: dict[str, Any] = {} if registry == "beside the snapshot" else {"run_registry": InMemoryRunRegistry()}
    taken: list[int] = []
    place = Place(prefix, tmp_path, access)
    with pytest.raises(kind, match=text):
        place.write(
            (taken.append(n) or (n, b"") for n in range(10)),
            output=WriterOutputConfig(run_id=run_id, local_root=str(tmp_path / "write")), **more,
        )
    assert taken == []


def test_a_killed_writer_leaves_the_snapshot_before(place: Place) -> None:
    place.write([(1, b"before")])
    script = """
import os, signal, sys
from shardyfusion import HashShardedWriteConfig, PythonRecordInput, PythonWriteOptions, WriterOutputConfig
from shardyfusion.config import PublishChecks
from shardyfusion.writer.python import write_hash_sharded
kill = PublishChecks(check=lambda _: os.kill(os.getpid(), signal.SIGKILL))
config = HashShardedWriteConfig(num_dbs=4, s3_prefix=sys.argv[1], output=WriterOutputConfig(local_root=sys.argv[2]))
write_hash_sharded([(1, b"after")], config, PythonRecordInput(lambda p: p[0], lambda p: p[1]),
                   PythonWriteOptions(checks=kill))
"""
    done = subprocess.run([sys.executable, "-c", script, place.prefix, str(place.local / "killed")], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert place.read([1]) == [b"before"]
    assert any("/attempt=00/" in name for name in left_behind(place))


class AfterBuilding(ListMetricsCollector):
    """Does something between the last shard and the manifest."""

    def __init__(self, action: Any) -> None:
        super().__init__()
        self.action = action

    def emit(self, event: Any, payload: Any) -> None:
        super().emit(event, payload)
        if event is MetricEvent.SHARD_WRITES_COMPLETED:
            self.action()


@pytest.mark.parametrize("removed", [False, True])
def test_a_run_that_was_taken_for_dead(place: Place, monkeypatch: pytest.MonkeyPatch, removed: bool) -> None:
    from shardyfusion import run_registry

    place.write([(1, b"before")])
    asleep = run_registry._clock() + 3600

    def sleep() -> None:
        monkeypatch.setattr(run_registry, "_clock", lambda: asleep)
        if removed:
            shutil.rmtree(place.local / "bucket" / "snap" / "shards" / "run_id=late")

    config = place.config(
        metrics_collector=AfterBuilding(sleep),
        output=WriterOutputConfig(local_root=str(place.local / "write"), run_id="late"),
    )
    if removed:
        with pytest.raises(ShardWriteError, match="is gone: the lease of run late had run out"):
            write_hash_sharded([(1, b"after")], config, PAIRS, PythonWriteOptions(progress=False))
    else:
        write_hash_sharded([(1, b"after")], config, PAIRS, PythonWriteOptions(progress=False))
    assert place.read([1]) == [b"before" if removed else b"after"]


def test_a_callback_that_fails_too_late(place: Place) -> None:
    def told(progress: WriteProgress) -> None:
        if progress.phase == "cleaning":
            raise ZeroDivisionError

    registry = InMemoryRunRegistry()
    with pytest.raises(ZeroDivisionError):
        place.write([(1, b"x")], options=PythonWriteOptions(progress=told), run_registry=registry)
    assert place.read([1]) == [b"x"]
    (record,) = registry._records.values()
    assert record.manifest_ref is not None and "/manifests/" in record.manifest_ref


def test_a_forked_child_cannot_use_the_parents_writer() -> None:
    writer = native.ShardWriter("mem://fork/x")
    pid = os.fork()
    if pid == 0:  # no pytest in the child
        try:
            writer.add([(b"k", b"v")])
        except RuntimeError:
            os._exit(7)
        os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    writer.close()


# ---------------------------------------------------------------- two publishers at once


def build_meta() -> Any:
    from shardyfusion.manifest import ManifestShardingSpec, RequiredBuildMeta

    return RequiredBuildMeta(
        run_id="r", created_at=datetime.now(timezone.utc), num_dbs=1, s3_prefix="s3://b/p", key_col="_key",
        sharding=ManifestShardingSpec(hash_algorithm="xxh3_64"), db_path_template="db={db_id}", shard_prefix="shards",
    )


class Overtaken(ObstoreBackend):
    """Another publisher moves the pointer just before this one does."""

    other: S3ManifestStore
    deleting_fails = False

    def put_if(self, url: str, payload: bytes, content_type: str, *, if_match: str | None) -> bool:
        self.other.publish(run_id="other", required_build=build_meta(), shards=[], custom={})
        return super().put_if(url, payload, content_type, if_match=if_match)

    def delete_prefix(self, prefix_url: str) -> int:
        if self.deleting_fails:
            raise OSError("away")
        return super().delete_prefix(prefix_url)


@pytest.mark.parametrize("deleting_fails", [False, True])
def test_a_publisher_that_is_overtaken(tmp_path: Path, deleting_fails: bool) -> None:
    prefix = (tmp_path / "snap").as_uri()
    backend = Overtaken(BucketStore(prefix))
    backend.other = S3ManifestStore(ObstoreBackend(BucketStore(prefix)), prefix)
    backend.deleting_fails = deleting_fails
    store = S3ManifestStore(backend, prefix)
    with pytest.raises(PublishConflictError) as caught:
        store.publish(run_id="mine", required_build=build_meta(), shards=[], custom={}, expected_current=None)
    current = store.load_current()
    assert current is not None and current.run_id == "other"
    assert (caught.value.expected, caught.value.found) == (None, current.ref)
    runs = [ref.run_id for ref in store.list_manifests()]
    if deleting_fails:
        assert sorted(runs) == ["mine", "other"] and caught.value.manifest_ref is not None
    else:
        assert runs == ["other"], "no reader falls back to a manifest that was never announced"
        assert caught.value.manifest_ref is None


class Deaf(ObstoreBackend):
    """The pointer moves, and the answer is lost; the put is sent again and told that it lost."""

    def put_if(self, url: str, payload: bytes, content_type: str, *, if_match: str | None) -> bool:
        assert super().put_if(url, payload, content_type, if_match=if_match)
        return super().put_if(url, payload, content_type, if_match=if_match)


def test_a_publisher_that_lost_against_itself(tmp_path: Path) -> None:
    prefix = (tmp_path / "snap").as_uri()
    store = S3ManifestStore(Deaf(BucketStore(prefix)), prefix)
    ref = store.publish(run_id="mine", required_build=build_meta(), shards=[], custom={}, expected_current=None)
    current = store.load_current()
    assert current is not None and current.ref == ref
