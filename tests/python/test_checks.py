"""Verifying snapshots and comparing them from Python."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fixtures import FIXTURES, case

sys.path.insert(0, str(FIXTURES.parent / "support"))

from s3_server import ACCESS_KEY, SECRET_KEY, S3Server
from shardyfusion import (
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
    StaticCredentialProvider,
)
from shardyfusion.async_manifest_store import AsyncS3ManifestStore, as_async_store
from shardyfusion.config import WriterOutputConfig
from shardyfusion.errors import (
    ConfigValidationError,
    ManifestParseError,
    OperationCancelledError,
)
from shardyfusion.maintenance import (
    Difference,
    DiffProgress,
    RowChange,
    VerifyProgress,
    aio,
    diff,
    diff_rows,
    history,
    manifest_store,
    verify,
)
from shardyfusion.manifest_store import S3ManifestStore
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.writer.python import write_hash_sharded

CASE = case("history-three-runs")
BEFORE = {i: b"%d" % i for i in range(3000)}
AFTER = {i: b"%d" % (i if i % 7 else -i) for i in range(500, 3500)}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(CASE.folder, tmp_path / "snapshot")
    return tmp_path / "snapshot"


def publish(prefix: Path, rows: dict[int, bytes], num_dbs: int, run_id: str, backend: str = "slatedb") -> None:
    options: dict[str, Any] = {"adapter_factory": SqliteFactory()} if backend == "sqlite" else {}
    write_hash_sharded(
        rows.items(),
        HashShardedWriteConfig(
            num_dbs=num_dbs, s3_prefix=prefix.as_uri(), output=WriterOutputConfig(run_id=run_id), **options
        ),
        PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1]),
    )


class Plugged:
    """A store of the caller's own: nothing tells that it is over files."""

    def __init__(self, folder: Path) -> None:
        self._store = manifest_store(folder)

    def load_current(self) -> Any:
        return self._store.load_current()

    def load_manifest(self, ref: str) -> Any:
        return self._store.load_manifest(ref)

    def list_manifests(self, *, limit: int = 10) -> Any:
        return self._store.list_manifests(limit=limit)


# ---- verify


@pytest.mark.parametrize("place", ["prefix", "store", "plugged", "plugged async"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_good_snapshot(place: str, deep: bool, copy: Path) -> None:
    places: dict[str, Any] = {
        "prefix": copy,
        "store": manifest_store(copy),
        "plugged": Plugged(copy),
        "plugged async": as_async_store(Plugged(copy)),  # type: ignore[arg-type]
    }
    # what the manifest names lies on S3: only the package's own stores know that this is a copy
    confine = {"confine": False} if place.startswith("plugged") else {}
    if confine:
        publish(copy, BEFORE, 4, "run-003")
    report = verify(places[place], deep=deep, **confine)
    assert report.good and report.deep == deep and report.run_id == ("run-003" if confine else "run-002")
    assert [shard.db_id for shard in report.shards] == [0, 1, 2, 3]
    assert all(shard.good and shard.first is None and shard.damages == 0 for shard in report.shards)
    rows = [shard.rows for shard in report.shards]
    assert rows == [None] * 4 if not deep else sum(map(int, rows)) == (len(BEFORE) if confine else 120)  # type: ignore[arg-type]
    if confine:
        assert all(shard.hashed == deep for shard in report.shards)


def test_what_they_look_like(copy: Path, tmp_path: Path) -> None:
    assert repr(verify(copy, deep=True)) == "<VerifyReport run_id=run-002 shards=4 bad=0 (deep)>"
    reader = ShardedReader(s3_prefix=copy.as_uri(), local_root=str(tmp_path / "root"))
    assert repr(reader) == f"<ShardedReader {copy.as_uri()} run_id=run-002 shards=4 rows=120>"
    reader.close()
    assert repr(reader) == f"<ShardedReader {copy.as_uri()} (closed)>"
    assert repr(ShardedReader.__new__(ShardedReader)) == "<ShardedReader >"  # one whose opening failed


def test_another_snapshot_is_chosen(copy: Path) -> None:
    second = history(copy)[1]
    for chosen in (second, second.ref, "run_id=run-001", manifest_store(copy).list_manifests()[1]):
        report = verify(copy, chosen)
        assert report.run_id == "run-001" and report.manifest_ref == second.ref
    assert verify(Plugged(copy), "run_id=run-000", confine=False).run_id == "run-000"  # type: ignore[arg-type]
    with pytest.raises(ConfigValidationError, match="no manifest of the run 'nobody'"):
        verify(copy, "run_id=nobody")


@pytest.mark.parametrize("backend", ["slatedb", "sqlite"])
def test_damage_is_named(backend: str, tmp_path: Path) -> None:
    publish(tmp_path, BEFORE, 3, "run", backend)
    assert verify(tmp_path, deep=True).good
    table = max(tmp_path.glob("shards/run_id=run/db=00001/**/*.*"), key=lambda path: path.stat().st_size)
    damaged = bytearray(table.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    table.write_bytes(damaged)
    report = verify(tmp_path, deep=True, local_root=str(tmp_path / "root"))
    assert not report.good and [shard.good for shard in report.shards] == [True, False, True]
    first = report.shards[1].first
    assert first is not None and report.shards[1].damages > 0
    assert first.object_url is not None and "/db=00001/" in first.object_url and first.message


def test_what_is_gone_is_named(copy: Path) -> None:
    shutil.rmtree(next(copy.glob("shards/run_id=run-002/db=00002")))
    (bad,) = (shard for shard in verify(copy).shards if not shard.good)
    assert bad.db_id == 2 and bad.first is not None
    next(copy.glob("manifests/*run-002*/manifest")).write_bytes(b"nothing")
    with pytest.raises(ManifestParseError):  # not an older one instead
        verify(copy)


def test_over_s3(server: S3Server) -> None:
    reach: dict[str, Any] = {
        "s3_connection_options": {"endpoint_url": server.endpoint, "region_name": "us-east-1"},
        "credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
    }
    prefix = "s3://bucket/golden/history-three-runs"
    store = manifest_store(prefix, **reach)
    assert verify(prefix, deep=True, **reach) == verify(store, deep=True)
    assert list(diff_rows(store, "run_id=run-000")) == list(diff_rows(prefix, "run_id=run-000", **reach))
    with pytest.raises(ConfigValidationError, match="give them to it"):
        verify(store, **reach)


def test_progress_and_cancel(tmp_path: Path) -> None:
    publish(tmp_path, BEFORE, 3, "run")
    heard: list[VerifyProgress] = []
    report = verify(tmp_path, deep=True, workers=1, progress=heard.append)
    assert heard[-1] == VerifyProgress(3, 3, sum(shard.bytes for shard in report.shards), len(BEFORE))

    def refuse(progress: VerifyProgress) -> None:
        raise LookupError(progress.shards_total)

    with pytest.raises(LookupError, match="3"):
        verify(tmp_path, progress=refuse)
    cancel = Event()
    cancel.set()
    with pytest.raises(OperationCancelledError, match="verification was cancelled"):
        verify(tmp_path, cancel=cancel)
    cancel.clear()
    with pytest.raises(OperationCancelledError, match="verification was cancelled"):
        verify(tmp_path, cancel=cancel, progress=lambda _: cancel.set())


@pytest.mark.parametrize("workers", [0, -1, 1025])
def test_wrong_workers(workers: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigValidationError, match="workers must be from 1 to 1024"):
        verify(tmp_path, workers=workers)


# ---- diff


def rows_of(prefix: Path, run_id: str) -> dict[int, bytes]:
    """By a scan of the snapshot."""
    with ShardedReader(
        s3_prefix=prefix.as_uri(),
        local_root=str(prefix / "root"),
        manifest_store=Only(prefix, run_id),  # type: ignore[arg-type]
    ) as reader:
        return dict(reader.scan(decode_keys=True))  # type: ignore[arg-type]


class Only(Plugged):
    def __init__(self, folder: Path, run_id: str) -> None:
        super().__init__(folder)
        self._run_id = run_id

    def load_current(self) -> Any:
        return next(ref for ref in self._store.list_manifests() if ref.run_id == self._run_id)


@pytest.mark.parametrize(("num_dbs", "backend"), [((4, 4), "slatedb"), ((4, 3), "slatedb"), ((2, 2), "sqlite")])
def test_rows_differ_as_scans_do(num_dbs: tuple[int, int], backend: str, tmp_path: Path) -> None:
    publish(tmp_path, BEFORE, num_dbs[0], "old", backend)
    publish(tmp_path, AFTER, num_dbs[1], "new", backend)
    old, new = rows_of(tmp_path, "old"), rows_of(tmp_path, "new")
    assert (old, new) == (BEFORE, AFTER)
    expected = {
        RowChange(
            "added" if key not in old else "removed" if key not in new else "changed", key, old.get(key), new.get(key)
        )
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }
    heard: list[DiffProgress] = []
    changes = list(diff_rows(tmp_path, "run_id=old", "run_id=new", decode_keys=True, progress=heard.append))
    assert len(changes) == len(expected) and set(changes) == expected
    shards = num_dbs[0] if num_dbs[0] == num_dbs[1] else 1
    assert heard[-1] == DiffProgress(shards, shards, 0, len(old) + len(new))
    back = list(diff_rows(tmp_path, None, "run_id=old"))
    assert {change.key for change in back} == {int(change.key).to_bytes(8, "big") for change in changes}
    if shards == 1:
        assert [change.key for change in back] == sorted(change.key for change in back)  # type: ignore[type-var]


def test_shards_of_the_same_rows_are_not_read(tmp_path: Path) -> None:
    for run_id in ("a", "b"):
        publish(tmp_path, BEFORE, 3, run_id)
    shutil.rmtree(tmp_path / "shards")
    heard: list[DiffProgress] = []
    assert list(diff_rows(tmp_path, "run_id=a", progress=heard.append)) == []
    assert heard == [DiffProgress(3, 3, 3, 0)]
    a, b = reversed(history(tmp_path))
    differences = diff(tmp_path, a)
    assert [difference.name for difference in differences] == ["run_id", "manifest_ref", "created_at"]
    assert differences[:2] == [Difference("run_id", "a", "b"), Difference("manifest_ref", a.ref, b.ref)]
    assert differences[2].before < differences[2].after  # type: ignore[operator]
    assert diff(tmp_path, None) == []


def test_manifests_differ(copy: Path) -> None:
    facts = {fact.name: (fact.before, fact.after) for fact in diff(copy, "run_id=run-001")}
    assert facts["num_dbs"] == (3, 4) and facts["shards[3].row_count"] == (None, 33)
    publish(copy, BEFORE, 4, "run-003")
    publish(copy, AFTER, 5, "run-004")
    plugged: Any = Plugged(copy)
    assert diff(plugged, "run_id=run-003") == diff(copy, "run_id=run-003")
    assert list(diff_rows(plugged, "run_id=run-003")) == list(diff_rows(copy, "run_id=run-003"))


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    publish(tmp_path, {1: b"1"}, 1, "numbers")
    write_hash_sharded(
        ["a"],
        HashShardedWriteConfig(num_dbs=1, s3_prefix=tmp_path.as_uri(), key_encoding="utf8"),  # type: ignore[arg-type]
        PythonRecordInput(key_fn=lambda row: row, value_fn=str.encode),
    )
    with pytest.raises(ConfigValidationError, match="keys of different encodings"):
        list(diff_rows(tmp_path, "run_id=numbers"))


def test_a_comparison_is_left_early(tmp_path: Path) -> None:
    publish(tmp_path, BEFORE, 3, "old")
    publish(tmp_path, AFTER, 3, "new")
    with diff_rows(tmp_path, "run_id=old") as changes:
        assert next(changes).change in ("added", "removed", "changed")
    assert list(changes) == []
    cancel = Event()
    changes = diff_rows(tmp_path, "run_id=old", cancel=cancel, progress=lambda _: cancel.set())
    with pytest.raises(OperationCancelledError, match="comparison was cancelled"):
        list(changes)


# ---- coroutines


async def test_coroutines(tmp_path: Path) -> None:
    publish(tmp_path, BEFORE, 3, "old")
    publish(tmp_path, AFTER, 3, "new")
    assert await aio.verify(tmp_path, deep=True) == verify(tmp_path, deep=True)
    assert await aio.diff(tmp_path, "run_id=old") == diff(tmp_path, "run_id=old")
    expected = list(diff_rows(tmp_path, "run_id=old"))
    assert [change async for change in aio.diff_rows(tmp_path, "run_id=old")] == expected
    async with aio.diff_rows(tmp_path, "run_id=old") as changes:
        assert await anext(changes) == expected[0]
    assert [change async for change in changes] == []
    store = AsyncS3ManifestStore(manifest_store(tmp_path).backend, tmp_path.as_uri())  # type: ignore[arg-type]
    assert not isinstance(store, S3ManifestStore)
    assert aio.verify.__doc__ == verify.__doc__ and aio.diff_rows.__doc__ == diff_rows.__doc__


async def test_a_cancelled_coroutine_ends_its_thread(tmp_path: Path) -> None:
    publish(tmp_path, BEFORE, 3, "old")
    publish(tmp_path, AFTER, 3, "new")
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), Event()
    heard: list[object] = []

    def hold(progress: object) -> None:
        heard.append(progress)
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(60)

    task = asyncio.ensure_future(aio.verify(tmp_path, workers=1, progress=hold))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    begun.clear()
    changes = aio.diff_rows(tmp_path, "run_id=old", progress=hold)
    task = asyncio.ensure_future(anext(changes))  # type: ignore[arg-type]
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await changes.aclose()
    assert [change async for change in changes] == []
