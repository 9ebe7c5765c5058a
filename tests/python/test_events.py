"""What readers log and count is the same whoever reads: the engine, the engine over a manifest store, or the parts that a caller
may replace. Each case runs the same prefix, with the same damage, through all, and compares every event with its level, logger
and fields."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import (
    AsyncShardedReader,
    AsyncSlateDbReaderFactory,
    ConcurrentShardedReader,
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
    SlateDbReaderFactory,
    WriterOutputConfig,
)
from shardyfusion.async_manifest_store import AsyncS3ManifestStore
from shardyfusion.manifest_store import S3ManifestStore
from shardyfusion.metrics import MetricEvent
from shardyfusion.storage import AsyncObstoreBackend, BucketStore, ObstoreBackend
from shardyfusion.writer.python import write_hash_sharded

RUNS = ("run-1", "run-2", "run-3")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three snapshots; the pointer names the newest."""
    prefix = tmp_path_factory.mktemp("published") / "p"
    for run_id in RUNS:
        config = HashShardedWriteConfig(
            num_dbs=2,
            s3_prefix=prefix.as_uri(),
            output=WriterOutputConfig(run_id=run_id, local_root=str(prefix.parent / "local")),
        )
        rows = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: f"{n}".encode())
        write_hash_sharded(range(50), config, rows)
    return prefix


class Prefix:
    """A copy of the published snapshots, to be damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self, run_id: str) -> Path:
        return next((self.folder / "manifests").glob(f"*_run_id={run_id}")) / "manifest"

    def ref(self, run_id: str) -> str:
        return f"file://{self.manifest(run_id)}"

    def point_at(self, run_id: str) -> None:
        pointer = {"manifest_ref": self.ref(run_id), "manifest_content_type": "application/x-sqlite3", "run_id": run_id,
                   "updated_at": "2026-01-01T00:00:00Z", "format_version": 1}
        (self.folder / "_CURRENT").write_text(json.dumps(pointer))

    def no_pointer(self) -> None:
        (self.folder / "_CURRENT").unlink()

    def bad_pointer(self) -> None:
        (self.folder / "_CURRENT").write_text("{}")

    def malformed(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.manifest(run_id).write_bytes(b"no manifest")

    def truncated(self, run_id: str) -> None:
        payload = self.manifest(run_id).read_bytes()
        self.manifest(run_id).write_bytes(payload[: len(payload) // 2])

    def from_the_future(self, run_id: str) -> None:
        con = sqlite3.connect(self.manifest(run_id))
        con.execute("UPDATE build_meta SET format_version = 99")
        con.commit()
        con.close()

    def no_manifest(self, run_id: str) -> None:
        manifest = self.manifest(run_id)
        manifest.with_name("another").write_bytes(b"")  # or the folder would not be listed
        manifest.unlink()

    def no_shard(self, run_id: str) -> None:
        shutil.rmtree(next((self.folder / "shards").glob(f"run_id={run_id}/db=00001")))


@dataclass
class Case:
    """Damage before the opening, then damage before each refresh. `expected`: names of the events."""

    expected: list[str]
    before: Callable[[Prefix], None] = lambda p: None
    refreshes: tuple[Callable[[Prefix], None], ...] = ()
    max_fallback_attempts: int = 3


def _all(*steps: tuple[Any, ...]) -> Callable[[Prefix], None]:
    return lambda prefix: [getattr(prefix, name)(*args) for name, *args in steps] and None


OPENED, CLOSED = "reader_initialized", "reader_closed"
FALLBACK, SKIPPED, FELL_BACK = "reader_cold_start_fallback", "reader_fallback_skip_malformed", "reader_fallback_succeeded"
UNREAD = "manifest_s3_load_failed"

CASES = {
    # opening
    "sound": Case([OPENED, CLOSED]),
    "no pointer": Case(["reader_current_not_found"], Prefix.no_pointer),
    "a malformed pointer": Case([], Prefix.bad_pointer),
    "the newest is malformed": Case([FALLBACK, FELL_BACK, OPENED, CLOSED], _all(("malformed", "run-3"))),
    "the newest is truncated": Case([FALLBACK, FELL_BACK, OPENED, CLOSED], _all(("truncated", "run-3"))),
    "the newest is of a later version": Case([FALLBACK, FELL_BACK, OPENED, CLOSED], _all(("from_the_future", "run-3"))),
    "two are malformed": Case(
        [FALLBACK, SKIPPED, FELL_BACK, OPENED, CLOSED], _all(("malformed", "run-3", "run-2"))),
    "the pointer names an older one, malformed": Case(
        [FALLBACK, SKIPPED, FELL_BACK, OPENED, CLOSED], _all(("malformed", "run-3", "run-2"), ("point_at", "run-2"))),
    "all are malformed": Case([FALLBACK, SKIPPED, SKIPPED], _all(("malformed", *RUNS))),
    "no fallback": Case([], _all(("malformed", *RUNS)), max_fallback_attempts=0),
    "a fallback without candidates": Case([FALLBACK], _all(("malformed", "run-3")), max_fallback_attempts=-1),
    "one fallback, malformed too": Case([FALLBACK, SKIPPED], _all(("malformed", *RUNS)), max_fallback_attempts=1),
    "no manifest": Case([UNREAD], _all(("no_manifest", "run-3"))),
    "no manifest to fall back to": Case(
        [FALLBACK, SKIPPED, UNREAD], _all(("malformed", "run-3", "run-2"), ("no_manifest", "run-1"))),
    "a shard is gone": Case([], _all(("no_shard", "run-3"))),
    "a shard of the fallback is gone": Case([FALLBACK], _all(("malformed", "run-3"), ("no_shard", "run-2"))),
    # refreshing
    "unchanged": Case([OPENED, "reader_refresh_unchanged", CLOSED], refreshes=(_all(),)),
    "changed": Case([OPENED, "reader_refreshed", CLOSED], refreshes=(_all(("point_at", "run-1")),)),
    "changed to a malformed one, then back": Case(
        [OPENED, "reader_refresh_malformed_manifest", "reader_refresh_unchanged", CLOSED],
        refreshes=(_all(("malformed", "run-2"), ("point_at", "run-2")), _all(("point_at", "run-3")))),
    "changed to a later version": Case(
        [OPENED, "reader_refresh_malformed_manifest", CLOSED],
        refreshes=(_all(("from_the_future", "run-2"), ("point_at", "run-2")),)),
    "the pointer is gone, and is back": Case(
        [OPENED, "reader_refresh_current_not_found", "reader_refreshed", CLOSED],
        refreshes=(Prefix.no_pointer, _all(("point_at", "run-2")))),
    "the pointer is malformed": Case([OPENED, CLOSED], refreshes=(Prefix.bad_pointer,)),
    "changed to a manifest that is gone": Case(
        [OPENED, UNREAD, CLOSED], refreshes=(lambda p: (p.point_at("run-1"), p.no_manifest("run-1")) and None,)),
    "changed to a snapshot without a shard": Case(
        [OPENED, CLOSED], refreshes=(_all(("point_at", "run-1"), ("no_shard", "run-1")),)),
    "fallen back, refreshed, fallen back no more": Case(
        [FALLBACK, FELL_BACK, OPENED, "reader_refresh_malformed_manifest", "reader_refreshed", CLOSED],
        _all(("malformed", "run-3")), (_all(), _all(("point_at", "run-1")))),
}


class Collector:
    def __init__(self) -> None:
        self.events: list[tuple[MetricEvent, dict[str, Any]]] = []

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        self.events.append((event, payload))


@dataclass
class OurFactory(SlateDbReaderFactory):
    """The built-in one, which the engine may not stand in for."""


@dataclass
class OurAsyncFactory(AsyncSlateDbReaderFactory):
    """The same for async readers."""


class _AnywhereStore(AsyncS3ManifestStore):
    """Takes references to files, too."""

    def _manifest_url(self, ref: str) -> str:
        return ref


def _async_store(prefix: str) -> dict[str, Any]:
    return {"manifest_store": _AnywhereStore(AsyncObstoreBackend(BucketStore(prefix)), prefix)}


def _store(prefix: str) -> dict[str, Any]:
    return {"manifest_store": S3ManifestStore(ObstoreBackend(BucketStore(prefix)), prefix)}


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "async": (AsyncShardedReader.open, {"reader_factory": OurAsyncFactory()}, _async_store),
    "async, over a blocking store": (AsyncShardedReader.open, {"reader_factory": OurAsyncFactory()}, _store),
    "one thread": (ShardedReader, {"reader_factory": OurFactory()}, _store),
    "threads": (ConcurrentShardedReader, {"reader_factory": OurFactory()}, _store),
}


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _run(case: Case, prefix: Prefix, make: Any, options: Any) -> tuple[bool, list[str], list[Any]]:
    """Whether the engine read, the classes of what was raised, the metrics."""
    collector, raised, native = Collector(), [], None
    if callable(options):
        options = options(prefix.folder.as_uri())
    try:
        case.before(prefix)
        reader = await _result(make(
            s3_prefix=prefix.folder.as_uri(), local_root=str(prefix.folder / "local"), metrics_collector=collector,
            max_fallback_attempts=case.max_fallback_attempts, **options,
        ))
        native = reader._source.shards is None
        for damage in case.refreshes:
            damage(prefix)
            try:
                await _result(reader.refresh())
            except Exception as error:
                raised.append(type(error).__name__)
        await _result(reader.close())
    except Exception as error:
        raised.append(type(error).__name__)
    return native, raised, collector.events


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was malformed, the engine says in its own words."""
    fields = dict(record.shardyfusion)
    if "error" in fields:
        fields["error"] = fields["error"].partition("(")[0]
    if "reason" in fields:
        assert isinstance(fields["reason"], str) and fields["reason"]
        fields["reason"] = "..."
    return fields


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_all_sources_tell_the_same(
    name: str, kind: str, published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case, (make, parts, store) = CASES[name], KINDS[kind]
    told = []
    for options in ({}, parts, store):
        folder = tmp_path / "p"
        shutil.copytree(published, folder)
        _adopt(folder, published)
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "shardyfusion"):
            native, raised, metrics = asyncio.run(_run(case, Prefix(folder), make, options))
        assert native in (None, options is not parts)
        logged = [(r.name, r.levelname, r.message, _fields(r)) for r in caplog.records]
        told.append((logged, raised, metrics))
        shutil.rmtree(folder)
    assert told[0] == told[1]
    assert told[0][1:] == told[2][1:]
    # what the store itself says comes while the engine works, which tells at its end
    assert sorted(map(repr, told[0][0])) == sorted(map(repr, told[2][0]))
    assert [message for _, _, message, _ in told[0][0]] == case.expected


def _adopt(folder: Path, published: Path) -> None:
    """Makes a copy of the snapshots one that was published where it lies."""
    old, new = published.as_uri(), folder.as_uri()
    pointer = folder / "_CURRENT"
    pointer.write_text(pointer.read_text().replace(old, new))
    for manifest in (folder / "manifests").glob("*/manifest"):
        con = sqlite3.connect(manifest)
        con.execute("UPDATE build_meta SET s3_prefix = ?", (new,))
        con.execute("UPDATE shards SET db_url = replace(db_url, ?, ?)", (old, new))
        con.commit()
        con.close()
