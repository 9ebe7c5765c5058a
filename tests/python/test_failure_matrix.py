"""The failure matrix of the contract (docs/compatibility/contract.md 19), row by row, through each kind of reader and writer.

A row of the page without one here, or the other way round, is a failure.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT, case

from shardyfusion import (
    AsyncShardedReader,
    AsyncSlateDbReaderFactory,
    ConcurrentShardedReader,
    ConfigValidationError,
    DbAdapterError,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    ManifestParseError,
    ManifestStoreError,
    PoolExhaustedError,
    PublishCurrentError,
    PublishManifestError,
    PythonRecordInput,
    PythonWriteOptions,
    ReaderStateError,
    S3TransientError,
    ShardedReader,
    SlateDbReaderFactory,
    StaticCredentialProvider,
    TokenBucket,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.routing import xxh3_db_id
from shardyfusion.sqlite_adapter import AsyncSqliteReaderFactory, SqliteReaderFactory
from shardyfusion.testing import fake_adapter_factory
from shardyfusion.writer import _publish, _run, aio
from shardyfusion.writer.python import write_hash_sharded

ROWS = PythonRecordInput[int](key_fn=lambda n: n, value_fn=lambda n: b"value %d" % n)
KEYS = range(20)
KEY_IN = {xxh3_db_id(n, 3): n for n in KEYS}  # of each shard a key


def conditions() -> list[str]:
    page = (ROOT / "docs" / "compatibility" / "contract.md").read_text()
    table = page[page.index("\n## 19.") : page.index("\n## 20.")]
    return [row.split(" | ")[0].strip("| ") for row in table.splitlines() if row.startswith("| ")][2:]


class Parts:
    """A factory of the caller's, blocking or not. Errors by a part of the shard's URL, or by the stored key."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async
        self.open_errors: dict[str, Exception] = {}
        self.get_errors: dict[int, Exception] = {}
        self.close_errors: dict[str, Exception] = {}
        self.open: list[str] = []
        self.opened = 0
        self.gets: list[int] = []
        self.gate: Any = None  # an event of asyncio's or of threads: what reads wait for

    def reply(self, work: Callable[[], Any]) -> Any:
        async def later() -> Any:
            return work()

        return later() if self.is_async else work()

    def __call__(self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Any) -> Any:
        def work() -> Part:
            raise_of(self.open_errors, db_url)
            self.open.append(db_url)
            self.opened += 1
            return Part(self, db_url)

        return self.reply(work)


def raise_of(errors: dict[str, Exception], url: str) -> None:
    for part, error in errors.items():
        if part in url:
            raise error


class Part:
    def __init__(self, parts: Parts, db_url: str) -> None:
        self.parts, self.db_url = parts, db_url

    def get(self, key: bytes) -> Any:
        number = int.from_bytes(key, "big")
        self.parts.gets.append(number)

        def work() -> bytes:
            if number in self.parts.get_errors:
                raise self.parts.get_errors[number]
            return b"value %d" % number

        async def waiting() -> bytes:
            await self.parts.gate.wait()
            return work()

        if self.parts.gate is not None:
            return waiting() if self.parts.is_async else self.parts.gate.wait(30) and work()
        return self.parts.reply(work)

    def close(self) -> Any:
        def work() -> None:
            self.parts.open.remove(self.db_url)
            raise_of(self.parts.close_errors, self.db_url)

        return self.parts.reply(work)


class Reader:
    """Any reader, or a handle: what it answers is awaited where it must be."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def do(self, name: str, *args: Any, **options: Any) -> Any:
        answer = getattr(self.inner, name)(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def serves(self, run_id: str) -> None:
        assert self.inner.snapshot_info().run_id == run_id
        assert await self.do("get", 1) == b"value 1"
        await self.given_back()

    async def given_back(self) -> None:
        """Nothing is borrowed; the engine ends what failed on a thread of its own, so a moment later."""
        for _ in range(5000):
            if self.inner.health().borrowed == 0:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(self.inner.health())


class Way:
    """One kind of reader, over a folder with the snapshots `old` and `new`, which the pointer names."""

    def __init__(self, cls: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cls, self.folder, self.monkeypatch = cls, folder, monkeypatch
        self.is_async = cls is AsyncShardedReader
        self.prefix = folder / "published"
        self.pointer = self.prefix / "_CURRENT"
        self.parts = Parts(self.is_async)
        self.readers: list[Reader] = []

    async def open(self, prefix: Any = None, **options: Any) -> Reader:
        arguments = {"s3_prefix": str(prefix or self.prefix), "local_root": str(self.folder / "local"), "relocate": True}
        opened = (self.cls.open if self.is_async else self.cls)(**(arguments | options))
        reader = Reader(await opened if self.is_async else opened)
        self.readers.append(reader)
        return reader

    def manifest(self, run_id: str) -> Path:
        (found,) = self.prefix.glob(f"manifests/*_run_id={run_id}/manifest")
        return found

    def point_to(self, run_id: str) -> None:
        pointer = json.loads(self.pointer.read_text())
        ref = re.sub(r"[^/]*_run_id=.*", f"{self.manifest(run_id).parent.name}/manifest", pointer["manifest_ref"])
        self.pointer.write_text(json.dumps(pointer | {"manifest_ref": ref, "run_id": run_id}))

    def shard(self, run_id: str, db_id: int) -> Path:
        (found,) = self.prefix.glob(f"shards/*{run_id}*/db={db_id:05d}")
        return found

    async def all_closed(self) -> None:
        for _ in range(5000):
            if not self.parts.open:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(self.parts.open)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("made") / "published"
    for run_id in ("old", "new"):
        config = HashShardedWriteConfig(num_dbs=3, s3_prefix=str(prefix), output=WriterOutputConfig(run_id=run_id))
        write_hash_sharded(KEYS, config, ROWS, PythonWriteOptions(progress=False))
    return prefix


Row = Callable[[Way], Awaitable[None]]
READERS = (AsyncShardedReader, ShardedReader, ConcurrentShardedReader)
ROWS_OF_READERS: dict[str, tuple[Row, tuple[Any, ...]]] = {}


def row(condition: str, *readers: Any) -> Callable[[Row], Row]:
    def keep(work: Row) -> Row:
        assert condition not in ROWS_OF_READERS
        ROWS_OF_READERS[condition] = (work, readers or READERS)
        return work

    return keep


# ---------------------------------------------------------------- opening and refreshing


@row("no pointer at open")
async def _(way: Way) -> None:
    way.pointer.unlink()
    with pytest.raises(ReaderStateError, match="^CURRENT pointer not found: .*_CURRENT") as caught:
        await way.open()
    assert isinstance(caught.value, FileNotFoundError)


@row("no pointer at refresh")
async def _(way: Way) -> None:
    reader = await way.open()
    way.pointer.unlink()
    during = "" if way.cls is ShardedReader else " during refresh"
    with pytest.raises(ReaderStateError, match=f"^CURRENT pointer not found{during}: "):
        await reader.do("refresh")
    await reader.serves("new")


@row("pointer malformed")
async def _(way: Way) -> None:
    way.point_to("old")
    reader = await way.open()
    way.pointer.write_text("{")
    with pytest.raises(ManifestParseError):
        await reader.do("refresh")
    await reader.serves("old")
    with pytest.raises(ManifestParseError):
        await way.open()


@row("manifest malformed at open")
async def _(way: Way) -> None:
    way.manifest("new").write_bytes(b"no database")
    await (await way.open()).serves("old")
    with pytest.raises(ManifestParseError):
        await way.open(max_fallback_attempts=0)
    way.manifest("old").write_bytes(b"")
    with pytest.raises(ReaderStateError, match="^No valid manifest found after fallback"):
        await way.open()


@row("manifest malformed at refresh")
async def _(way: Way) -> None:
    way.point_to("old")
    reader = await way.open()
    way.manifest("new").write_bytes(b"no database")
    way.point_to("new")
    assert await reader.do("refresh") is False
    await reader.serves("old")


@row("manifest object missing")
async def _(way: Way) -> None:
    way.point_to("old")
    reader = await way.open()
    way.point_to("new")
    way.manifest("new").unlink()
    for again in (lambda: reader.do("refresh"), way.open):
        with pytest.raises(ManifestStoreError) as caught:
            await again()
        assert isinstance(caught.value, FileNotFoundError)
    await reader.serves("old")


@row("manifest names an unsupported hash, encoding, strategy, version")
async def _(way: Way) -> None:
    good = way.manifest("new").read_bytes()
    way.point_to("old")
    reader = await way.open()
    way.point_to("new")
    for change in (
        "sharding = json_set(sharding, '$.hash_algorithm', 'md5')",
        "key_encoding = 'u16be'",
        "sharding = json_set(sharding, '$.strategy', 'range')",
        "format_version = 99",
    ):
        way.manifest("new").write_bytes(good)
        con = sqlite3.connect(way.manifest("new"))
        con.execute(f"UPDATE build_meta SET {change}")
        con.commit()
        con.close()
        with pytest.raises(ManifestParseError):
            await way.open(max_fallback_attempts=0)
        await (await way.open()).serves("old")
        assert await reader.do("refresh") is False
        await reader.serves("old")


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """A store that says so to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def over_http(endpoint: str) -> dict[str, Any]:
    return {
        "s3_prefix": "s3://bucket/p",
        "credential_provider": StaticCredentialProvider("id", "secret"),
        "s3_connection_options": {"endpoint_url": endpoint, "region_name": "us-east-1", "max_attempts": 1},
    }


@row("ref in pointer not an `s3://` URL (default store)")
async def _(way: Way) -> None:
    pointer = json.loads(way.pointer.read_text()) | {"manifest_ref": "ftp://x/manifest"}
    with answering(200, json.dumps(pointer).encode()) as endpoint:
        with pytest.raises(ValueError, match="^Invalid S3 URL: ftp://x/manifest"):
            await way.open(**over_http(endpoint), relocate=False)


@row("storage unreachable, 5xx")
async def _(way: Way) -> None:
    with answering(503) as endpoint, pytest.raises(S3TransientError, match="503") as caught:
        await way.open(**over_http(endpoint))
    assert caught.value.retryable
    with pytest.raises(S3TransientError):  # nobody listens there any more
        await way.open(**over_http(endpoint))


@row("denied")
async def _(way: Way) -> None:
    with answering(403) as endpoint, pytest.raises(ManifestStoreError) as caught:
        await way.open(**over_http(endpoint))
    assert isinstance(caught.value, PermissionError) and not caught.value.retryable


@row("a shard cannot be opened at open")
async def _(way: Way) -> None:
    error = OSError("no room")
    way.parts.open_errors["db=00001"] = error
    with pytest.raises(OSError) as caught:
        await way.open(reader_factory=way.parts)
    assert caught.value is error
    await way.all_closed()
    shutil.rmtree(way.shard("new", 1))
    with pytest.raises(DbAdapterError) as ours:
        await way.open()
    assert ours.value.db_id == 1 and isinstance(ours.value, FileNotFoundError)


@row("… at refresh")
async def _(way: Way) -> None:
    way.point_to("old")
    reader, own = await way.open(reader_factory=way.parts), await way.open()
    error = OSError("no room")
    way.parts.open_errors["db=00002"] = error
    shutil.rmtree(way.shard("new", 1))
    way.point_to("new")
    with pytest.raises(OSError) as caught:
        await reader.do("refresh")
    assert caught.value is error
    with pytest.raises(DbAdapterError) as ours:
        await own.do("refresh")
    assert ours.value.db_id == 1
    await reader.serves("old")
    await own.serves("old")
    await reader.do("close")
    await way.all_closed()


# ---------------------------------------------------------------- looking up


@row("shard read fails in `get`")
async def _(way: Way) -> None:
    reader = await way.open(reader_factory=way.parts)
    way.parts.get_errors[1] = error = KeyError("foreign")
    with pytest.raises(KeyError) as caught:
        await reader.do("get", 1)
    assert caught.value is error
    await reader.given_back()


@row("shard read fails in `multi_get`")
async def _(way: Way) -> None:
    bad, other = KEY_IN[1], KEY_IN[2]
    for error in (KeyError("foreign"), S3TransientError("ours")):
        way.parts.get_errors[bad] = error
        options: dict[str, Any] = {} if way.is_async else {"max_workers": 2}
        through = await way.open(reader_factory=way.parts, **options)
        with pytest.raises((ExceptionGroup, DbAdapterError, S3TransientError)) as caught:
            await through.do("multi_get", [other, bad])
        if way.is_async:
            assert isinstance(caught.value, ExceptionGroup) and isinstance(caught.value, DbAdapterError)
            assert caught.value.message == "unhandled errors in a TaskGroup" and list(caught.value.exceptions) == [error]
        elif isinstance(error, KeyError):
            assert str(caught.value) == "Read failed for shard db_id=1" and caught.value.__cause__ is error
        else:
            assert caught.value is error
        if not way.is_async:
            with pytest.raises(type(error)) as inline:
                await (await way.open(reader_factory=way.parts)).do("multi_get", [other, bad])
            assert inline.value is error


@row("key not routable (type, range)")
async def _(way: Way) -> None:
    reader = await way.open(reader_factory=way.parts)
    for key in (1.5, None, 2**63, -(2**63) - 1):
        for name, asked in (("get", key), ("multi_get", [1, key]), ("reader_for_key", key)):
            with pytest.raises(ValueError) as caught:
                await reader.do(name, asked)
            assert type(caught.value) is ValueError
    assert way.parts.gets == []
    await reader.given_back()


@row("key not encodable")
async def _(way: Way) -> None:
    for options in ({}, {"reader_factory": way.parts}):
        reader = await way.open(**options)
        for key, kind in ((-1, ConfigValidationError), ("text", ValueError)):
            with pytest.raises(kind):
                await reader.do("get", key)
            with pytest.raises((kind, ExceptionGroup)) as caught:
                await reader.do("multi_get", [key])
            if way.is_async:
                assert isinstance(caught.value, ExceptionGroup) and isinstance(caught.value.exceptions[0], kind)
            else:
                assert isinstance(caught.value, kind) and not isinstance(caught.value, ExceptionGroup)
        await reader.given_back()


async def categorical(way: Way) -> Reader:
    """One that routes by the text column `region`."""
    return await way.open(case("slatedb-cel-categorical").prefix)


@row("unknown CEL token")
async def _(way: Way) -> None:
    reader = await categorical(way)
    assert await reader.do("get", 8, routing_context={"region": "mars"}) is None
    assert await reader.do("multi_get", [8, 9], routing_context={"region": "mars"}) == {8: None, 9: None}


async def refused_bare(reader: Reader, text: str, **options: Any) -> None:
    for name, asked in (("get", 8), ("multi_get", [8])):
        with pytest.raises(ValueError, match=text) as caught:
            await reader.do(name, asked, **options)
        assert not isinstance(caught.value, ExceptionGroup)
    await reader.given_back()


@row("CEL snapshot, no context where needed")
async def _(way: Way) -> None:
    await refused_bare(await categorical(way), "requires routing_context")


@row("CEL context incomplete or of a wrong type")
async def _(way: Way) -> None:
    reader = await categorical(way)
    await refused_bare(reader, "there is no value for column 'region'", routing_context={})
    await refused_bare(reader, "of type string and cannot take the int given", routing_context={"region": 5})


@row("context on HASH snapshot")
async def _(way: Way) -> None:
    await refused_bare(await way.open(), "route_with_context", routing_context={"region": "mars"})


@row("SlateDB factory on SQLite snapshot, or the reverse")
async def _(way: Way) -> None:
    slatedb, sqlite = (
        (AsyncSlateDbReaderFactory(), AsyncSqliteReaderFactory())
        if way.is_async
        else (SlateDbReaderFactory(), SqliteReaderFactory())
    )
    for name, wrong in (("sqlite-sidecar", slatedb), ("slatedb-hash-u64be", sqlite)):
        golden = case(name)
        with pytest.raises((ConfigValidationError, DbAdapterError), match=r"(?is)(?=.*slatedb)(?=.*sqlite)"):
            await way.open(golden.prefix, reader_factory=wrong)
        key, value = next((key, value) for key, _, value in golden.lookups if value is not None)
        assert await (await way.open(golden.prefix)).do("get", key) == value


# ---------------------------------------------------------------- the life of a reader


@row("never opened", AsyncShardedReader)
async def _(way: Way) -> None:
    reader = AsyncShardedReader(s3_prefix=str(way.prefix), local_root=str(way.folder))
    for work in (lambda: reader.get(1), lambda: reader.multi_get([1]), reader.refresh):
        with pytest.raises(ReaderStateError, match=r"^Reader not yet initialized \(use open\(\)\)$"):
            await work()
    await reader.close()


@row("closed")
async def _(way: Way) -> None:
    for options in ({}, {"reader_factory": way.parts}):
        reader = await way.open(**options)
        await reader.do("close")
        await reader.do("close")
        for name, *asked in (("get", 1), ("multi_get", [1]), ("refresh",), ("reader_for_key", 1)):
            with pytest.raises(ReaderStateError, match="^Reader is closed$"):
                await reader.do(name, *asked)
        if way.cls is ShardedReader:
            assert reader.inner.snapshot_info().run_id == "new"
        else:
            with pytest.raises(ReaderStateError, match="^Reader is closed$"):
                reader.inner.snapshot_info()
        reader.inner.health()


@row("cancelled", AsyncShardedReader)
async def _(way: Way) -> None:
    reader = await way.open(reader_factory=way.parts)
    for name, asked in (("get", 1), ("multi_get", [1])):
        way.parts.gate = asyncio.Event()
        task = asyncio.ensure_future(reader.do(name, asked))
        while not way.parts.gets:
            await asyncio.sleep(0)
        assert reader.inner.health().borrowed == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await reader.given_back()
        way.parts.gets.clear()
        way.parts.gate = None


@row("close with borrowed handles")
async def _(way: Way) -> None:
    reader = await way.open(reader_factory=way.parts)
    handle = Reader(await reader.do("reader_for_key", 1))
    await reader.do("close")
    assert len(way.parts.open) == 3
    assert await handle.do("get", (1).to_bytes(8, "big")) == b"value 1"
    await handle.do("close")
    await way.all_closed()


@row("shard close fails")
async def _(way: Way) -> None:
    reader = await way.open(reader_factory=way.parts)
    way.parts.close_errors["db=00001"] = cause = RuntimeError("cannot close")
    kind = "handle" if way.cls is ConcurrentShardedReader else "reader"
    with pytest.raises(DbAdapterError) as caught:
        await reader.do("close")
    assert str(caught.value) == f"Failed to close 1 shard {kind}(s): db_ids=[1]" and caught.value.__cause__ is cause
    assert way.parts.open == []
    await reader.do("close")
    with pytest.raises(ReaderStateError, match="^Reader is closed$"):
        await reader.do("get", 1)


@row("pool empty", ConcurrentShardedReader)
async def _(way: Way) -> None:
    reader = await way.open(
        reader_factory=way.parts, thread_safety="pool", max_workers=1, pool_checkout_timeout=timedelta(milliseconds=5)
    )
    way.parts.gate = gate = threading.Event()
    reading = asyncio.ensure_future(asyncio.to_thread(reader.inner.get, 1))
    while not way.parts.gets:
        await asyncio.sleep(0.001)
    with pytest.raises(PoolExhaustedError, match="^Shard reader pool checkout timed out after 0.005s$"):
        reader.inner.get(1)
    gate.set()
    assert await reading == b"value 1"


@row("more tokens than the bucket holds")
async def _(way: Way) -> None:
    bucket = TokenBucket(1000)
    reader = await way.open(rate_limiter=bucket)
    keys = [*KEYS] * 51  # 20 ms of tokens beyond what it holds
    assert await reader.do("multi_get", keys) == {n: b"value %d" % n for n in KEYS}


@row("collector raises")
async def _(way: Way) -> None:
    class Collector:
        def emit(self, event: Any, payload: Any) -> None:
            raise RuntimeError("collector")

    for options in ({}, {"reader_factory": way.parts}):
        reader = await way.open(metrics_collector=Collector(), **options)
        await reader.serves("new")
        assert await reader.do("multi_get", [1]) == {1: b"value 1"}
        assert await reader.do("refresh") is False
        await reader.do("close")


@row("limiter raises")
async def _(way: Way) -> None:
    error = RuntimeError("limiter")

    class Limiter:
        def acquire(self, tokens: int = 1) -> None:
            raise error

        async def acquire_async(self, tokens: int = 1) -> None:
            raise error

        def try_acquire(self, tokens: int = 1) -> Any:
            raise error

    for options in ({}, {"reader_factory": way.parts}):
        reader = await way.open(rate_limiter=Limiter(), **options)
        for name, asked in (("get", 1), ("multi_get", [1])):
            with pytest.raises(RuntimeError) as caught:
                await reader.do(name, asked)
            assert caught.value is error
        assert way.parts.gets == []
        await reader.given_back()


@row("factory raises `ManifestParseError` at open")
async def _(way: Way) -> None:
    way.parts.open_errors["run_id=new"] = ManifestParseError("of a shard")
    reader = await way.open(reader_factory=way.parts)
    await reader.serves("old")
    assert len(way.parts.open) == 3


@row("process forked after open")
async def _(way: Way) -> None:
    reader = await way.open()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for name, asked in (("get", 1), ("multi_get", [1])):
                with pytest.raises(ReaderStateError, match="fork"):
                    asyncio.run(reader.do(name, asked))

            async def read_anew() -> None:
                again = Reader(await reader.do("reopen"))
                await again.serves("new")
                await again.do("close")

            asyncio.run(read_anew())
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    await reader.serves("new")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of a fork beside threads
@pytest.mark.parametrize(
    ("condition", "cls"), [(c, cls) for c, (_, readers) in ROWS_OF_READERS.items() for cls in readers],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
async def test_readers(
    condition: str, cls: Any, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(cls, tmp_path, monkeypatch)
    shutil.copytree(published, way.prefix)
    try:
        await ROWS_OF_READERS[condition][0](way)
    finally:
        way.parts.close_errors.clear()
        for reader in way.readers:
            await reader.do("close")
    await way.all_closed()


# ---------------------------------------------------------------- writers


class Failing(InMemoryManifestStore):
    """Publishing fails with these errors, one after the other."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = [*errors]

    def publish(self, **manifest: Any) -> str:
        if isinstance(self.errors[0], PublishCurrentError):
            ref = super().publish(**manifest)
            raise PublishCurrentError(str(self.errors.pop(0)), manifest_ref=ref)
        raise self.errors.pop(0)

    def set_current(self, ref: str) -> None:
        if self.errors:
            raise self.errors.pop(0)


class Writer:
    def __init__(self, is_async: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
        self.is_async, self.folder, self.monkeypatch, self.caplog = is_async, folder, monkeypatch, caplog
        self.waits: list[float] = []
        monkeypatch.setattr(_publish, "_sleep", self.waits.append)

    async def write(self, **options: Any) -> Any:
        options = {"num_dbs": 3, "s3_prefix": str(self.folder / "published"), **options}
        options.setdefault("output", WriterOutputConfig(local_root=str(self.folder / "local")))
        config = HashShardedWriteConfig(**options)
        if self.is_async:
            return await aio.write_hash_sharded(KEYS, config, ROWS, PythonWriteOptions(progress=False))
        return write_hash_sharded(KEYS, config, ROWS, PythonWriteOptions(progress=False))

    async def publish_to(self, store: Any) -> Any:
        return await self.write(adapter_factory=fake_adapter_factory, manifest=WriterManifestConfig(store=store))

    @property
    def logged(self) -> list[str]:
        return [record.message for record in self.caplog.records]


WriterRow = Callable[[Writer], Awaitable[None]]
ROWS_OF_WRITERS: dict[str, WriterRow] = {}


def writers(condition: str) -> Callable[[WriterRow], WriterRow]:
    return lambda work: ROWS_OF_WRITERS.setdefault(f"writer: {condition}", work)


@writers("bad config")
async def _(writer: Writer) -> None:
    for options in ({"num_dbs": 0}, {"max_writes_per_second": 0}, {"output": WriterOutputConfig(shard_prefix="a/b")}):
        with pytest.raises(ConfigValidationError):
            await writer.write(**options)
    assert not (writer.folder / "published").exists()


@writers("store publish fails")
async def _(writer: Writer) -> None:
    store = Failing(error := OSError("no disk"))
    with pytest.raises(PublishManifestError, match="^Failed to publish manifest$") as caught:
        await writer.publish_to(store)
    assert caught.value.__cause__ is error and store.load_current() is None


@writers("pointer fails")
async def _(writer: Writer) -> None:
    with pytest.raises(PublishManifestError, match="^Failed to set CURRENT pointer after retries$"):
        await writer.publish_to(Failing(PublishCurrentError("pointer"), *[OSError(str(n)) for n in range(3)]))
    assert writer.waits == [1.0, 2.0]
    assert (await writer.publish_to(Failing(PublishCurrentError("pointer"), OSError("once")))).manifest_ref


@writers("run registry fails")
async def _(writer: Writer) -> None:
    class Registry:
        def create(self, record: Any) -> str:
            raise OSError("registry")

        def update(self, ref: str, record: Any) -> None:
            raise OSError("registry")

    result = await writer.write(run_registry=Registry())
    assert result.manifest_ref and "run_record_create_failed" in writer.logged


@writers("loser clean-up fails")
async def _(writer: Writer) -> None:
    building = _run._build
    writer.monkeypatch.setattr(_run, "_build", lambda *a: (building(*a)[0], ["ftp://no/such/place"]))
    result = await writer.publish_to(InMemoryManifestStore())
    assert result.manifest_ref and "losers_cleanup_failed" in writer.logged


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("condition", ROWS_OF_WRITERS)
async def test_writers(
    condition: str, is_async: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "shardyfusion"):
        await ROWS_OF_WRITERS[condition](Writer(is_async, tmp_path, monkeypatch, caplog))


def test_every_row_of_the_page_has_its_test() -> None:
    assert {*ROWS_OF_READERS, *ROWS_OF_WRITERS} == set(conditions())
