"""Run records: their bytes, where they are kept, and their life."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
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


class Blocking(InMemoryRunRegistry):
    """Whose first renewal waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.may_go = threading.Event(), threading.Event()
        self.written: list[RunStatus] = []

    def update(self, ref: str, record: RunRecord) -> None:
        if ref in self._records and record.status is RunStatus.RUNNING:
            self.arrived.set()
            assert self.may_go.wait(60)
        super().update(ref, record)
        self.written.append(record.status)


def wait_inside_of(function: str, thread: int | None) -> None:
    over = time.monotonic() + 60
    while thread is None or thread not in (frames := sys._current_frames()) or frames[thread].f_code.co_name != function:
        assert time.monotonic() < over, f"the thread never came into {function}()"
        time.sleep(0.001)


def test_the_last_word_waits_for_a_renewal_under_way() -> None:
    registry = Blocking()
    with lifecycle(registry, timedelta(milliseconds=1)) as life:
        assert registry.arrived.wait(60)
        end = threading.Thread(target=life.mark_succeeded)
        end.start()
        wait_inside_of("mark_succeeded", end.ident)
        assert RunStatus.SUCCEEDED not in registry.written
        registry.may_go.set()
        end.join()
    assert registry.written[-1] is RunStatus.SUCCEEDED  # and nothing behind it
    assert registry.written.count(RunStatus.SUCCEEDED) == 1 and registry.written.count(RunStatus.RUNNING) >= 2


@pytest.mark.parametrize("end", ["mark_succeeded", "intend"])
def test_a_renewal_that_would_wait_for_itself(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """A registry that calls back from update(): it is told, and the run ends as if it had not."""

    class CallsBack(InMemoryRunRegistry):
        begun, called = threading.Event(), threading.Event()

        def update(self, ref: str, record: RunRecord) -> None:
            if ref in self._records and record.status is RunStatus.RUNNING and not self.called.is_set():
                assert self.begun.wait(60)
                self.called.set()
                life.intend("mine") if end == "intend" else life.mark_succeeded()
            super().update(ref, record)

    registry = CallsBack()
    life = lifecycle(registry, timedelta(milliseconds=1))
    registry.begun.set()
    assert registry.called.wait(60)
    life.mark_succeeded()
    life.close()
    assert registry.load(life.run_record_ref or "").status is RunStatus.SUCCEEDED
    errors = [getattr(r, "shardyfusion")["error"] for r in caplog.records if r.message == "run_record_heartbeat_failed"]
    assert len(errors) == 1 and "can neither end the run nor renew its record" in errors[0]


def test_an_interrupt_ends_the_wait_for_a_renewal() -> None:
    registry, main = Blocking(), threading.main_thread().ident
    life = lifecycle(registry, timedelta(milliseconds=1))

    def interrupt() -> None:
        wait_inside_of("mark_succeeded", main)
        signal.pthread_kill(main or 0, signal.SIGINT)

    assert registry.arrived.wait(60)
    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        life.mark_succeeded()
    thread.join()
    assert RunStatus.SUCCEEDED not in registry.written
    registry.may_go.set()
    life.mark_succeeded()
    life.close()
    assert registry.written[-1] is RunStatus.SUCCEEDED


def test_an_exit_inside_of_a_registry_is_not_swallowed() -> None:
    class Leaving(InMemoryRunRegistry):
        def update(self, ref: str, record: RunRecord) -> None:
            if record.status is RunStatus.SUCCEEDED:
                raise SystemExit(3)
            super().update(ref, record)

    with pytest.raises(SystemExit), lifecycle(Leaving()) as life:
        life.mark_succeeded()


ODD_ERRORS = {
    "NUL": (ValueError("a\0b"), "a b"),
    "a lone surrogate": (ValueError("a\udc80"), "a?"),
    "lines": (ValueError("a\nb"), "a\nb"),
    "none": (ValueError(), ""),
    "no text": (type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})(), ""),
}


@pytest.mark.parametrize("name", ODD_ERRORS)
@pytest.mark.parametrize("make", [InMemoryRunRegistry, lambda: S3RunRegistry(MemoryBackend(), "s3://bucket/p")])
def test_any_exception_can_be_the_last_word(make: Any, name: str) -> None:
    error, text = ODD_ERRORS[name]
    registry = make()
    life = lifecycle(registry)
    life.mark_failed(error)
    life.close()
    last = registry.load(life.run_record_ref)
    assert (last.status, last.error_type, last.error_message) == (RunStatus.FAILED, type(error).__name__, text)


@pytest.mark.parametrize(
    ("lease", "began", "lapsed"),
    [
        (timedelta(minutes=10), 0.0, False),
        (timedelta(minutes=10), 601.0, True),
        (timedelta.max, 601.0, False),
        (timedelta(0), 1.0, True),
    ],
)
def test_leases_that_ran_out(lease: timedelta, began: float, lapsed: bool) -> None:
    registry = InMemoryRunRegistry()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    life = RunRecordLifecycle(
        registry=registry, record=record(), ref=registry.create(record()), lease_duration=lease, began=now - began
    )
    assert life.has_lapsed is lapsed
    life.close()


def test_what_lapsed_once_stays_so() -> None:
    registry = Blocking()
    registry.may_go.set()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    life = RunRecordLifecycle(
        registry=registry, record=record(), ref=registry.create(record()), began=now - 601,
        heartbeat_interval=timedelta(milliseconds=1),
    )  # fmt: skip
    while len(registry.written) < 3:
        time.sleep(0.001)
    assert life.has_lapsed
    life.close()


def in_child(run: Callable[[], None]) -> int:
    """The exit status of a forked child, which has a minute."""
    pid = os.fork()
    if pid == 0:  # no pytest in the child
        signal.alarm(60)
        try:
            run()
        except BaseException:
            os._exit(1)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_leaves_the_run_to_its_parent(tmp_path: Path) -> None:
    class OnDisk(Blocking):
        def update(self, ref: str, record: RunRecord) -> None:
            super().update(ref, record)
            with open(tmp_path / "written", "a") as file:
                file.write(f"{record.status.value}\n")

    registry = OnDisk()
    life = lifecycle(registry, timedelta(milliseconds=1))
    assert registry.arrived.wait(60)  # a renewal is under way, which the child has not

    def run() -> None:
        assert life.has_lapsed
        life.set_manifest_ref("mine")
        life.mark_succeeded()
        life.mark_failed(ValueError())
        life.close()

    status = in_child(run)
    written = (tmp_path / "written").read_text()
    registry.may_go.set()
    life.close()
    assert (status, written) == (7, "running\n")


def test_a_program_may_end_in_the_midst_of_a_renewal() -> None:
    script = """
import threading, time
from datetime import timedelta
from shardyfusion import HashShardedWriteConfig
from shardyfusion.run_registry import InMemoryRunRegistry, RunRecordLifecycle
arrived = threading.Event()
class Registry(InMemoryRunRegistry):
    def update(self, ref, record):
        if ref in self._records:
            arrived.set()
            time.sleep(0.05)
        super().update(ref, record)
config = HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://bucket/p", run_registry=Registry())
life = RunRecordLifecycle.start(
    config=config, run_id="r1", writer_type="python", heartbeat_interval=timedelta(milliseconds=1))
arrived.wait()
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
