"""Run records: their bytes, where they are kept, and their life."""

from __future__ import annotations

import pickle
import re
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from shardyfusion import HashShardedWriteConfig, InMemoryManifestStore, WriterManifestConfig
from shardyfusion.run_registry import (
    DEFAULT_RUN_HEARTBEAT_INTERVAL,
    DEFAULT_RUN_LEASE_DURATION,
    InMemoryRunRegistry,
    RunRecord,
    RunRecordLifecycle,
    RunStatus,
    S3RunRegistry,
    parse_run_record,
    resolve_run_registry,
)
from shardyfusion.storage import MemoryBackend

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def record(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "run_id": "r1",
        "writer_type": "python",
        "status": RunStatus.RUNNING,
        "started_at": AT,
        "updated_at": AT,
        "lease_expires_at": AT + timedelta(minutes=10),
        "s3_prefix": "s3://bucket/p",
        "shard_prefix": "shards",
        "db_path_template": "db={db_id:05d}",
    }
    return RunRecord(**{**fields, **changes})


RECORDS = {
    "running": record(),
    "failed": record(status="failed", error_type="ValueError", error_message="line\nbreak: 'quoted' é"),
    "succeeded": record(status=RunStatus.SUCCEEDED, manifest_ref="s3://bucket/p/manifests/x/manifest"),
    "odd texts": record(run_id="1.0", error_message="", writer_type="null"),
    "without fractions": record(updated_at=AT.replace(microsecond=0)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_kept_is_read_back(name: str) -> None:
    backend = MemoryBackend()
    registry = S3RunRegistry(backend, "s3://bucket/p/", run_registry_prefix="journal")
    ref = registry.create(RECORDS[name])
    assert re.fullmatch(
        r"s3://bucket/p/journal/2026-01-02T03:04:05\.678901Z_run_id=[^/]+_[0-9a-f]{32}/run\.yaml", ref
    )
    assert registry.load(ref) == RECORDS[name]
    names = [line.split(":")[0] for line in backend.get(ref).decode().splitlines() if re.match(r"[a-z]", line)]
    assert names == sorted(RunRecord.model_fields)


def test_another_record_in_its_place() -> None:
    for registry in (S3RunRegistry(MemoryBackend(), "s3://bucket/p"), InMemoryRunRegistry()):
        ref = registry.create(record())
        registry.update(ref, record(status=RunStatus.FAILED))
        assert registry.load(ref).status is RunStatus.FAILED


BAD = {
    "a list": (b"- 1\n", "Run record payload must decode to a mapping"),
    "text": (b"hello", "Run record payload must decode to a mapping"),
    "nothing": (b"", None),
    "missing fields": (b"run_id: x\n", None),
    "not UTF-8": (b"run_id: \xff\n", None),
    "a Python object": (b"!!python/object:os.system {}\n", None),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_record(name: str) -> None:
    payload, text = BAD[name]
    with pytest.raises(ValueError) as caught:
        parse_run_record(payload)
    if text is not None:
        assert str(caught.value) == text


def test_json_is_yaml_and_unknown_fields_are_ignored() -> None:
    payload = record().model_dump_json().encode().replace(b"{", b'{"later": [1, {"a": 2}], ', 1)
    assert parse_run_record(payload) == record()


def test_pickle() -> None:
    assert pickle.loads(pickle.dumps(record())) == record()
    assert (DEFAULT_RUN_LEASE_DURATION, DEFAULT_RUN_HEARTBEAT_INTERVAL) == (timedelta(minutes=10), timedelta(minutes=1))


def test_which_registry() -> None:
    mine = InMemoryRunRegistry()
    good: dict[str, Any] = {"num_dbs": 1, "s3_prefix": "s3://bucket/p"}
    assert resolve_run_registry(HashShardedWriteConfig(**good, run_registry=mine)) is mine
    in_memory = WriterManifestConfig(store=InMemoryManifestStore())
    assert isinstance(resolve_run_registry(HashShardedWriteConfig(**good, manifest=in_memory)), InMemoryRunRegistry)
    assert isinstance(resolve_run_registry(HashShardedWriteConfig(**good)), S3RunRegistry)


def lifecycle(registry: InMemoryRunRegistry, interval: timedelta = timedelta(minutes=1)) -> RunRecordLifecycle:
    config = HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://bucket/p", run_registry=registry)
    return RunRecordLifecycle.start(config=config, run_id="r1", writer_type="python", heartbeat_interval=interval)


def test_a_life_that_ends_well() -> None:
    registry = InMemoryRunRegistry()
    with lifecycle(registry) as life:
        assert life.run_record_ref is not None
        first = registry.load(life.run_record_ref)
        assert first.status is RunStatus.RUNNING
        assert first.lease_expires_at - first.updated_at == DEFAULT_RUN_LEASE_DURATION
        life.set_manifest_ref("the-ref")
        assert registry.load(life.run_record_ref) == first, "kept with the next word"
        life.mark_succeeded()
        life.mark_failed(ValueError("too late"))
    last = registry.load(life.run_record_ref)
    assert (last.status, last.manifest_ref, last.error_type) == (RunStatus.SUCCEEDED, "the-ref", None)
    assert last.lease_expires_at == last.updated_at


def test_a_life_that_ends_with_an_exception() -> None:
    registry = InMemoryRunRegistry()
    with pytest.raises(ValueError), lifecycle(registry) as life:
        raise ValueError("why")
    assert life.run_record_ref is not None
    last = registry.load(life.run_record_ref)
    assert (last.status, last.error_type, last.error_message) == (RunStatus.FAILED, "ValueError", "why")


def test_heartbeats_renew_the_lease() -> None:
    class Registry(InMemoryRunRegistry):
        beats: list[RunRecord] = []

        def update(self, ref: str, record: RunRecord) -> None:
            super().update(ref, record)
            self.beats.append(record)

    registry = Registry()
    life = lifecycle(registry, timedelta(milliseconds=1))
    while len(registry.beats) < 4:  # the creation is the first
        time.sleep(0.001)
    life.close()
    times = [beat.updated_at for beat in registry.beats]
    assert times == sorted(times) and times[0] < times[3]
    assert all(beat.lease_expires_at - beat.updated_at == DEFAULT_RUN_LEASE_DURATION for beat in registry.beats)
    assert registry.beats[-1].status is RunStatus.RUNNING, "closing is not an end"


def test_heartbeats_that_fail_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Registry(InMemoryRunRegistry):
        failed = 0

        def update(self, ref: str, record: RunRecord) -> None:
            if ref in self._records:
                self.failed += 1
                raise OSError("away")
            super().update(ref, record)

    registry = Registry()
    with lifecycle(registry, timedelta(milliseconds=1)):
        while registry.failed < 2:
            time.sleep(0.001)
    assert "run_record_heartbeat_failed" in [r.message for r in caplog.records]
