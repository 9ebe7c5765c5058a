"""What is kept in memory can be used in a child that was forked while another thread was in it."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from plugged import make_manifest
from shardyfusion import InMemoryManifestStore, MetricEvent, TokenBucket
from shardyfusion.db_manifest_store import PostgresManifestStore
from shardyfusion.manifest import SqliteManifestBuilder
from shardyfusion.manifest_store import SqliteShardLookup
from shardyfusion.metrics import NativeMetrics
from shardyfusion.run_registry import InMemoryRunRegistry, RunRecord, RunStatus
from shardyfusion.storage import MemoryBackend


def with_an_object() -> MemoryBackend:
    backend = MemoryBackend()
    backend.put("s3://b/k", b"x", "text/plain")
    return backend


def published() -> InMemoryManifestStore:
    manifest, store = make_manifest("r"), InMemoryManifestStore()
    store.publish(run_id="r", required_build=manifest.required_build, shards=manifest.shards, custom={})
    return store


class Uncomparable(InMemoryManifestStore):
    """As a dataclass is: equal by value, and without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return NotImplemented


def record() -> RunRecord:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return RunRecord(
        run_id="r", writer_type="t", status=RunStatus.RUNNING, started_at=at, updated_at=at, lease_expires_at=at,
        s3_prefix="s3://b/p", shard_prefix="s", db_path_template="d",
    )  # fmt: skip


def ask_postgres(store: PostgresManifestStore) -> None:
    with pytest.raises(ValueError, match="nobody is there"):
        store.load_current()


def no_server() -> Any:
    raise ValueError("nobody is there")


def given_up_often() -> PostgresManifestStore:
    store = PostgresManifestStore(no_server, ensure_table=False)
    store._stuck = 16
    return store


def lookup() -> SqliteShardLookup:
    manifest = make_manifest("r")
    payload = SqliteManifestBuilder().build(
        required_build=manifest.required_build, shards=manifest.shards, custom_fields={}
    ).payload
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.deserialize(payload)
    return SqliteShardLookup(connection, 4)


OWNERS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "manifest store": (published, lambda store: store.list_manifests()[0].run_id == "r" and store.set_current(store.load_current().ref)),
    "manifest store without a hash": (Uncomparable, lambda store: store.list_manifests()),
    "shard lookup": (lookup, lambda lookup: lookup.get_shard(0)),
    "run registry": (InMemoryRunRegistry, lambda registry: registry.load(registry.create(record()))),
    "backend": (with_an_object, lambda backend: backend.get("s3://b/k") == b"x" and backend.list_prefixes("s3://b/")),
    "metrics": (NativeMetrics, lambda metrics: metrics.emit(MetricEvent.READER_REFRESHED, {}) or metrics.snapshot()),
    "PostgreSQL": (given_up_often, ask_postgres),
}


def in_child(run: Callable[[], object]) -> int:
    """The exit status of a forked child, which has ten seconds."""
    pid = os.fork()
    if pid == 0:  # no pytest in the child
        signal.alarm(10)
        try:
            run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", OWNERS)
def test_a_lock_that_was_taken_at_the_fork(name: str) -> None:
    make, use = OWNERS[name]
    owner = make()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with owner._lock:
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert inside.wait(10)
        assert in_child(lambda: use(owner)) == 7
        assert owner._lock.locked(), "the parent's is its own"
    finally:
        leave.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_bucket_amid_use() -> None:
    bucket, stop = TokenBucket(1e12), threading.Event()

    def take() -> None:
        while not stop.is_set():
            bucket.try_acquire()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(bucket.acquire) for _ in range(10)] == [7] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_owners_that_are_gone_are_forgotten() -> None:
    from shardyfusion import _fork

    before = len(_fork._owners)
    owners = [MemoryBackend() for _ in range(10)]
    assert len(_fork._owners) == before + 10
    del owners
    assert len(_fork._owners) == before
