"""Writing through adapters, stores and registries of the caller's own: the calls they get, and what comes of failures."""

from __future__ import annotations

import io
import logging
import multiprocessing
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from shardyfusion import (
    BufferingOptions,
    BuildResult,
    ConfigValidationError,
    DbAdapterError,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    InMemoryRunRegistry,
    PublishConflictError,
    PublishCurrentError,
    PublishManifestError,
    PublishRefusedError,
    PythonRecordInput,
    PythonWriteOptions,
    RetryConfig,
    RunStatus,
    ShardWriteError,
    ShardyfusionError,
    WriteCancelledError,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.config import PublishChecks, SharedMemoryOptions, WriteProgress
from shardyfusion.metrics import MetricEvent
from shardyfusion.routing import xxh3_db_id
from shardyfusion.testing import (
    FailOnceAdapterFactory,
    ListMetricsCollector,
    fake_adapter_factory,
    file_backed_adapter_factory,
    file_backed_load_db,
)
from shardyfusion.writer import _processes, _publish
from shardyfusion.writer.python import write_hash_sharded

ROWS = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"value %d" % n)
STEPS = ("factory", "enter", "write_batch", "flush", "seal", "db_bytes", "exit")


class Broken(Exception):
    """Raised by the parts under test."""


@dataclass
class Recorder:
    """A factory whose adapters note every call; `fail_at` raises there, for shard `fail_db`."""

    fail_at: str | None = None
    fail_db: int = 1
    calls: list[tuple[str, int]] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    exits: list[tuple[int, type[BaseException] | None]] = field(default_factory=list)

    def __call__(self, *, db_url: str, local_dir: Path) -> Noting:
        assert local_dir.is_dir()
        db_id = int(db_url.split("/db=")[1][:5])
        self.note("factory", db_id)
        return Noting(self, db_id)

    def note(self, step: str, db_id: int) -> None:
        self.calls.append((step, db_id))
        if step == self.fail_at and db_id == self.fail_db:
            raise Broken(step)


@dataclass
class Noting:
    recorder: Recorder
    db_id: int

    def __enter__(self) -> Self:
        self.recorder.note("enter", self.db_id)
        return self

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self.recorder.note("write_batch", self.db_id)
        pairs = list(pairs)
        self.recorder.batches.append((self.db_id, len(pairs)))
        self.recorder.rows.update(pairs)

    def flush(self) -> None:
        self.recorder.note("flush", self.db_id)

    def seal(self) -> None:
        self.recorder.note("seal", self.db_id)

    def db_bytes(self) -> int:
        self.recorder.note("db_bytes", self.db_id)
        return 100 + self.db_id

    def close(self) -> None:
        self.recorder.note("close", self.db_id)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.recorder.exits.append((self.db_id, exc_type))
        self.recorder.note("exit", self.db_id)


def configuration(tmp_path: Path, factory: Any, store: Any = None, **more: Any) -> HashShardedWriteConfig:
    more.setdefault("output", WriterOutputConfig(run_id="r1", local_root=str(tmp_path / "local")))
    more.setdefault("manifest", WriterManifestConfig(store=InMemoryManifestStore() if store is None else store))
    more.setdefault("num_dbs", 3)
    return HashShardedWriteConfig(s3_prefix="s3://bucket/p/", adapter_factory=factory, **more)


def write(config: HashShardedWriteConfig, rows: Any = range(100), **options: Any) -> BuildResult:
    return write_hash_sharded(rows, config, ROWS, PythonWriteOptions(progress=False, **options))


# ---------------------------------------------------------------- calls


def test_calls_of_an_adapter_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    result = write(configuration(tmp_path, recorder, batch_size=10))
    expected = {n.to_bytes(8, "big"): b"value %d" % n for n in range(100)}
    assert recorder.rows == expected
    for db_id in range(3):
        steps = [step for step, shard in recorder.calls if shard == db_id]
        batches = steps.count("write_batch")
        assert steps == ["factory", "enter", *["write_batch"] * batches, "flush", "seal", "db_bytes", "exit"]
        rows = sum(1 for n in range(100) if xxh3_db_id(n, 3) == db_id)
        sizes = [size for shard, size in recorder.batches if shard == db_id]
        assert sizes == [10] * (rows // 10) + ([rows % 10] if rows % 10 else [])
    ends = [call for call in recorder.calls if call[0] in ("flush", "exit")]
    assert ends == [(step, db_id) for db_id in range(3) for step in ("flush", "exit")]
    assert recorder.exits == [(0, None), (1, None), (2, None)]
    assert [w.db_id for w in result.winners] == [0, 1, 2]
    assert [w.db_bytes for w in result.winners] == [100, 101, 102]


def test_what_a_write_answers(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    result = write(configuration(tmp_path, fake_adapter_factory, store, num_dbs=4))
    by_shard = {d: [n for n in range(100) if xxh3_db_id(n, 4) == d] for d in range(4)}
    for winner in result.winners:
        keys = by_shard[winner.db_id]
        assert winner.db_url == f"s3://bucket/p/shards/run_id=r1/db={winner.db_id:05d}/attempt=00"
        assert (winner.row_count, winner.min_key, winner.max_key) == (len(keys), min(keys), max(keys))
        assert winner.checkpoint_id is not None and len(bytes.fromhex(winner.checkpoint_id)) == 16
        assert (winner.attempt, winner.writer_info.attempt, winner.writer_info.duration_ms) == (0, 0, 0)
    assert result.run_id == "r1"
    assert result.manifest_ref == "mem://manifests/run_id=r1/manifest"
    assert (result.stats.rows_written, result.stats.num_winners, result.stats.num_attempt_results) == (100, 4, 4)
    assert result.stats.durations.total_ms >= result.stats.durations.write_ms
    manifest = store.load_manifest(result.manifest_ref)
    assert manifest.shards == result.winners
    build = manifest.required_build
    assert (build.run_id, build.num_dbs, build.s3_prefix, build.key_col) == ("r1", 4, "s3://bucket/p", "_key")
    assert (build.db_path_template, build.shard_prefix, build.format_version) == ("db={db_id:05d}", "shards", 4)
    assert not (tmp_path / "local" / "run_id=r1").exists(), "the local folder is gone"


def test_empty_shards_are_not_opened_and_an_empty_input_is_published(tmp_path: Path) -> None:
    recorder, store = Recorder(), InMemoryManifestStore()
    result = write(configuration(tmp_path, recorder, store, num_dbs=8), [5])
    assert [(w.db_id, w.row_count) for w in result.winners] == [(xxh3_db_id(5, 8), 1)]
    assert {shard for _, shard in recorder.calls} == {xxh3_db_id(5, 8)}
    empty = write(configuration(tmp_path, recorder, store), [])
    assert (empty.winners, empty.stats.rows_written) == ([], 0)
    assert store.load_manifest(empty.manifest_ref).shards == []


def test_number_of_shards_from_the_number_of_rows(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    config = configuration(tmp_path, fake_adapter_factory, store, num_dbs=None, max_keys_per_shard=30)
    ref = write(config).manifest_ref
    assert store.load_manifest(ref).required_build.num_dbs == 4
    assert store.load_manifest(write(config, []).manifest_ref).required_build.num_dbs == 1
    with pytest.raises(ConfigValidationError) as caught:
        write(config, iter(range(5)))
    assert str(caught.value) == (
        "max_keys_per_shard requires a Sized input (e.g. list) so num_dbs can be computed from len(records). "
        "Provide num_dbs explicitly for non-Sized iterables."
    )


@pytest.mark.parametrize(
    ("buffering", "largest"),
    [(BufferingOptions(max_total_batched_items=10), 11), (BufferingOptions(max_total_batched_bytes=200), 14)],
)
def test_the_largest_buffer_is_written_when_all_are_too_large(
    tmp_path: Path, buffering: BufferingOptions, largest: int
) -> None:
    recorder = Recorder()
    write(configuration(tmp_path, recorder), buffering=buffering)
    assert len(recorder.rows) == 100
    assert 1 <= max(size for _, size in recorder.batches) <= largest


def test_duplicates_are_counted_apart_and_the_last_wins(tmp_path: Path) -> None:
    factory = file_backed_adapter_factory(str(tmp_path / "files"))
    config = configuration(tmp_path, factory, num_dbs=1)
    pairs = [(1, b"a"), (2, b"b"), (1, b"c")]
    result = write_hash_sharded(
        pairs, config, PythonRecordInput(key_fn=lambda p: p[0], value_fn=lambda p: p[1]), PythonWriteOptions()
    )
    assert (result.winners[0].row_count, result.stats.rows_written, result.stats.duplicates) == (2, 2, 1)
    url = result.winners[0].db_url
    assert url is not None
    assert file_backed_load_db(str(tmp_path / "files"), url) == {
        (1).to_bytes(8, "big"): b"c",
        (2).to_bytes(8, "big"): b"b",
    }


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("step", STEPS)
def test_a_failing_adapter_propagates_unchanged_and_nothing_is_published(tmp_path: Path, step: str) -> None:
    recorder, store, registry = Recorder(fail_at=step), InMemoryManifestStore(), InMemoryRunRegistry()
    config = configuration(tmp_path, recorder, store, batch_size=10, run_registry=registry)
    with pytest.raises(Broken, match=f"^{step}$"):
        write(config)
    assert store.load_current() is None
    (record,) = registry._records.values()
    assert (record.status, record.error_type, record.error_message) == (RunStatus.FAILED, "Broken", step)
    assert record.manifest_ref is None and record.lease_expires_at == record.updated_at
    entered = {shard for call, shard in recorder.calls if call == "enter"}
    left = [shard for shard, _ in recorder.exits]
    refused = {1} if step == "enter" else set()
    assert sorted(left) == sorted(entered - refused), "every adapter that was entered is left, once"


BAD_ROWS: dict[str, tuple[Any, type[Exception], str]] = {
    "key too large to route": (2**63, ValueError, "Integer key 9223372036854775808 out of range"),
    "negative key": (-1, ConfigValidationError, r"u64be encoding requires value in \[0, 2\^64-1\]"),
    "text": ("five", ConfigValidationError, "u64be encoding expects int key, got <class 'str'>"),
    "bytes": (b"12345678", ConfigValidationError, "u64be encoding expects int key, got <class 'bytes'>"),
    "float": (5.0, ValueError, "Unsupported key type for hashing: <class 'float'>"),
    "none": (None, ValueError, "Unsupported key type for hashing: <class 'NoneType'>"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_key_names_its_row(tmp_path: Path, case: str) -> None:
    key, kind, text = BAD_ROWS[case]
    store = InMemoryManifestStore()
    config = configuration(tmp_path, fake_adapter_factory, store)
    good = PythonRecordInput(key_fn=lambda row: row, value_fn=lambda row: b"")
    with pytest.raises(kind, match=text) as caught:
        write_hash_sharded([1, 2, key, 4], config, good, PythonWriteOptions())
    named = f": key {key!r}" if isinstance(key, int | str | bytes) else ""
    assert caught.value.__notes__ == [f"at row 3 of the records{named}"]
    assert store.load_current() is None


@pytest.mark.parametrize(
    ("value", "kind"), [("text", TypeError), (5, TypeError), (None, TypeError), ([1], TypeError)]
)
def test_a_value_that_is_not_bytes_names_its_row(tmp_path: Path, value: Any, kind: type[Exception]) -> None:
    config = configuration(tmp_path, fake_adapter_factory)
    with pytest.raises(kind, match="value_fn must return bytes") as caught:
        write_hash_sharded([b"", value], config, PythonRecordInput(key_fn=lambda _: 1, value_fn=lambda v: v))
    assert caught.value.__notes__ == ["at row 2 of the records: key 1"]


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_values_that_are_bytes(tmp_path: Path, value: Any) -> None:
    recorder = Recorder()
    config = configuration(tmp_path, recorder)
    write_hash_sharded([1], config, PythonRecordInput(key_fn=lambda _: 1, value_fn=lambda _: value))
    assert list(recorder.rows.values()) == [b"x"] and type(next(iter(recorder.rows.values()))) is bytes


def broken_at(where: str) -> tuple[Iterable[int], PythonRecordInput[int]]:
    def records() -> Iterator[int]:
        for n in range(10):
            if where == "iterable" and n == 7:
                raise Broken(where)
            yield n

    def key_fn(n: int) -> int:
        if where == "key_fn" and n == 7:
            raise Broken(where)
        return n

    def value_fn(n: int) -> bytes:
        if where == "value_fn" and n == 7:
            raise Broken(where)
        return b""

    return records(), PythonRecordInput(key_fn=key_fn, value_fn=value_fn)


@pytest.mark.parametrize("where", ["iterable", "key_fn", "value_fn"])
def test_the_callers_functions_may_raise(tmp_path: Path, where: str) -> None:
    records, input = broken_at(where)
    store = InMemoryManifestStore()
    with pytest.raises(Broken) as caught:
        write_hash_sharded(records, configuration(tmp_path, fake_adapter_factory, store), input)
    assert str(caught.value) == where
    assert caught.value.__notes__ == ["at row 8 of the records" + (": key 7" if where == "value_fn" else "")]
    assert store.load_current() is None


def test_text_and_bytes_do_not_mix_in_a_shard(tmp_path: Path) -> None:
    config = configuration(tmp_path, fake_adapter_factory, num_dbs=1, key_encoding="utf8")
    with pytest.raises(ValueError) as caught:
        write_hash_sharded(["a", b"b"], config, PythonRecordInput(key_fn=lambda k: k, value_fn=lambda _: b""))
    assert str(caught.value) == "Shard key type changed within partition: mixed int/str keys"


def test_interrupting_a_write_leaves_every_adapter(tmp_path: Path) -> None:
    def records() -> Iterator[int]:
        yield from range(50)
        raise KeyboardInterrupt

    recorder, registry = Recorder(), InMemoryRunRegistry()
    config = configuration(tmp_path, recorder, batch_size=5, run_registry=registry)
    with pytest.raises(KeyboardInterrupt):
        write(config, records())
    assert sorted(recorder.exits) == [(db_id, KeyboardInterrupt) for db_id in range(3)]
    assert [r.status for r in registry._records.values()] == [RunStatus.FAILED]


# ---------------------------------------------------------------- metrics, logs, limits


def test_metrics_in_order(tmp_path: Path) -> None:
    collector = ListMetricsCollector()
    write(configuration(tmp_path, fake_adapter_factory, metrics_collector=collector))
    assert [(event.value, set(payload)) for event, payload in collector.events] == [
        ("write.started", {"elapsed_ms"}),
        ("write.shards_completed", {"elapsed_ms", "duration_ms", "rows_written"}),
        ("write.manifest_published", {"elapsed_ms"}),
        ("write.current_published", {"elapsed_ms"}),
        ("write.completed", {"elapsed_ms", "rows_written"}),
    ]
    assert collector.events[0][1] == {"elapsed_ms": 0}
    assert collector.events[-1][1]["rows_written"] == 100


def test_a_failing_collector_does_not_fail_the_write(tmp_path: Path) -> None:
    class Failing:
        def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
            raise Broken

    assert write(configuration(tmp_path, fake_adapter_factory, metrics_collector=Failing())).winners


def test_log_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="shardyfusion"):
        write(configuration(tmp_path, fake_adapter_factory, num_dbs=1))
    assert [r.message for r in caplog.records if r.name == "shardyfusion.writer.python.writer"] == [
        "write_started",
        "shard_write_started",
        "shard_write_completed",
        "shard_writes_completed",
        "winner_selected",
        "manifest_published",
        "write_completed",
    ]
    assert {r.shardyfusion["run_id"] for r in caplog.records} == {"r1"}  # type: ignore[attr-defined]


def test_limits_are_asked_once_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int]] = []

    class Bucket:
        def __init__(self, rate: float, collector: Any, kind: str) -> None:
            self.kind = kind

        def acquire(self, tokens: int) -> None:
            asked.append((self.kind, "acquire", tokens))

        def try_acquire(self, tokens: int) -> bool:
            asked.append((self.kind, "try", tokens))
            return tokens > 14

    monkeypatch.setattr("shardyfusion.writer._limits.TokenBucket", Bucket)
    recorder = Recorder()
    config = configuration(
        tmp_path, recorder, num_dbs=1, batch_size=10, max_writes_per_second=1e9, max_write_bytes_per_second=1e9
    )
    write(config, range(25))
    assert [size for _, size in recorder.batches] == [15, 10], "tried without waiting until it was granted"
    tries = [tokens for kind, how, tokens in asked if (kind, how) == ("ops", "try")]
    assert tries == [10, 11, 12, 13, 14, 15, 10]
    assert ("ops", "acquire", 10) in asked, "the rest waits"
    sizes = [tokens for kind, how, tokens in asked if (kind, how) == ("bytes", "acquire")]
    assert sizes == [sum(8 + len(b"value %d" % n) for n in part) for part in (range(15), range(15, 25))]


# ---------------------------------------------------------------- publishing


@dataclass
class Store(InMemoryManifestStore):
    """A store that fails where it is told to."""

    publish_errors: list[Exception] = field(default_factory=list)
    current_errors: list[Exception] = field(default_factory=list)
    set_refs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        InMemoryManifestStore.__init__(self)

    def publish(self, *, run_id: str, required_build: Any, shards: Any, custom: Any) -> str:  # type: ignore[override]
        ref = super().publish(run_id=run_id, required_build=required_build, shards=shards, custom=custom)
        if self.publish_errors:
            raise self.publish_errors.pop(0)
        return ref

    def set_current(self, ref: str) -> None:
        self.set_refs.append(ref)
        if self.current_errors:
            raise self.current_errors.pop(0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(_publish, "_sleep", slept.append)
    return slept


def test_a_store_that_fails(tmp_path: Path) -> None:
    error = Broken("no disk")
    with pytest.raises(PublishManifestError) as caught:
        write(configuration(tmp_path, fake_adapter_factory, Store(publish_errors=[error])))
    assert str(caught.value) == "Failed to publish manifest"
    assert caught.value.__cause__ is error


def test_a_pointer_that_moves_at_the_third_attempt(tmp_path: Path, waits: list[float]) -> None:
    store = Store(
        publish_errors=[PublishCurrentError("pointer", manifest_ref="the-ref")],
        current_errors=[Broken("1"), Broken("2")],
    )
    assert write(configuration(tmp_path, fake_adapter_factory, store)).manifest_ref == "the-ref"
    assert (store.set_refs, waits) == (["the-ref"] * 3, [1.0, 2.0])


def test_a_pointer_that_never_moves(tmp_path: Path, waits: list[float]) -> None:
    store = Store(
        publish_errors=[PublishCurrentError("pointer", manifest_ref="the-ref")],
        current_errors=[Broken(str(n)) for n in range(9)],
    )
    with pytest.raises(PublishManifestError) as caught:
        write(configuration(tmp_path, fake_adapter_factory, store))
    assert str(caught.value) == "Failed to set CURRENT pointer after retries"
    assert (len(store.set_refs), waits) == (3, [1.0, 2.0])


def test_a_pointer_error_without_a_reference_propagates(tmp_path: Path) -> None:
    with pytest.raises(PublishCurrentError, match="^pointer$"):
        write(configuration(tmp_path, fake_adapter_factory, Store(publish_errors=[PublishCurrentError("pointer")])))


def test_compare_and_swap(tmp_path: Path) -> None:
    store = InMemoryManifestStore()

    def publish(run_id: str, expected: Any) -> str:
        config = configuration(
            tmp_path,
            fake_adapter_factory,
            output=WriterOutputConfig(run_id=run_id, local_root=str(tmp_path)),
            manifest=WriterManifestConfig(store=store, expected_current=expected),
        )
        return write(config).manifest_ref

    first = publish("r1", None)
    second = publish("r2", first)
    with pytest.raises(PublishConflictError) as caught:
        publish("r3", first)
    assert (caught.value.expected, caught.value.found, caught.value.retryable) == (first, second, False)
    current = store.load_current()
    assert current is not None and current.ref == second


def test_compare_and_swap_needs_a_store_that_can(tmp_path: Path) -> None:
    recorder = Recorder()
    config = configuration(
        tmp_path, recorder, manifest=WriterManifestConfig(store=Store(), expected_current=None)
    )
    with pytest.raises(ConfigValidationError, match="needs a manifest store whose publish"):
        write(config)
    assert recorder.calls == []


def test_custom_fields_stay_the_callers(tmp_path: Path) -> None:
    store, custom = InMemoryManifestStore(), {"team": "search"}
    config = configuration(
        tmp_path, fake_adapter_factory, manifest=WriterManifestConfig(store=store, custom_manifest_fields=custom)
    )
    ref = write(config).manifest_ref
    assert custom == {"team": "search"}
    assert store.load_manifest(ref).custom == {"team": "search"}, "whose adapter it is, nobody knows"


CHECKS: dict[str, tuple[PublishChecks, str]] = {
    "fewer rows": (PublishChecks(min_rows_share=0.9), "50 rows are less than 0.9 of the 100 published before"),
    "empty shards": (PublishChecks(max_empty_shards=0), "shards are empty"),
    "callback says no": (PublishChecks(check=lambda _: False), "the check refused"),
    "callback says why": (PublishChecks(check=lambda preview: f"{preview.rows} of {preview.previous_rows}"), "50 of 100"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_checks_refuse_before_anything_is_visible(tmp_path: Path, case: str) -> None:
    checks, text = CHECKS[case]
    store, num_dbs = InMemoryManifestStore(), 64 if case == "empty shards" else 3
    write(configuration(tmp_path, fake_adapter_factory, store))
    before = store.load_current()
    with pytest.raises(PublishRefusedError, match=text):
        write(configuration(tmp_path, fake_adapter_factory, store, num_dbs=num_dbs), range(50), checks=checks)
    assert store.load_current() == before


def test_checks_pass(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    checks = PublishChecks(min_rows_share=0.5, max_rows_share=2.0, max_empty_shards=0, check=lambda _: None)
    for rows in (range(100), range(60), range(110)):
        write(configuration(tmp_path, fake_adapter_factory, store), rows, checks=checks)
    with pytest.raises(PublishRefusedError, match="300 rows are more than 2 of the 110 published before"):
        write(configuration(tmp_path, fake_adapter_factory, store), range(300), checks=checks)


def test_dry_run_publishes_nothing(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    result = write(configuration(tmp_path, file_backed_adapter_factory(str(tmp_path))), dry_run=True)
    assert (result.manifest_ref, result.stats.rows_written) == ("", 100)
    assert store.load_current() is None


# ---------------------------------------------------------------- run records


def test_run_record_of_a_write_that_succeeds(tmp_path: Path) -> None:
    registry = InMemoryRunRegistry()
    result = write(configuration(tmp_path, fake_adapter_factory, run_registry=registry))
    assert result.run_record_ref is not None
    record = registry.load(result.run_record_ref)
    assert (record.status, record.manifest_ref) == (RunStatus.SUCCEEDED, result.manifest_ref)
    assert (record.writer_type, record.run_id, record.s3_prefix) == ("python", "r1", "s3://bucket/p/")
    assert record.lease_expires_at == record.updated_at >= record.started_at


def test_a_registry_that_fails_does_not_fail_the_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Registry:
        def create(self, record: Any) -> str:
            raise Broken

    result = write(configuration(tmp_path, fake_adapter_factory, run_registry=Registry()))
    assert result.run_record_ref is None
    assert "run_record_create_failed" in [r.message for r in caplog.records]


# ---------------------------------------------------------------- progress and cancelling


def test_progress(tmp_path: Path) -> None:
    seen: list[WriteProgress] = []
    config = configuration(tmp_path, fake_adapter_factory, batch_size=10)
    write_hash_sharded(
        range(1000), config, ROWS, PythonWriteOptions(progress=seen.append, progress_interval=1e-9)
    )
    assert [p.rows_written for p in seen] == sorted(p.rows_written for p in seen)
    assert [p for n, p in enumerate(p.phase for p in seen) if n == 0 or p != seen[n - 1].phase] == [
        "adding",
        "building",
        "checking",
        "publishing",
    ]
    last = seen[-1]
    assert (last.rows_read, last.rows_written, last.shards_done, last.shards_total) == (1000, 1000, 3, 3)


def test_cancelling(tmp_path: Path) -> None:
    cancel, recorder, store = threading.Event(), Recorder(), InMemoryManifestStore()

    def records() -> Iterator[int]:
        for n in range(10**9):
            if n == 1000:
                cancel.set()
            yield n

    with pytest.raises(WriteCancelledError):
        write(configuration(tmp_path, recorder, store, batch_size=100), records(), cancel=cancel)
    assert len(recorder.rows) <= 2000
    assert {kind for _, kind in recorder.exits} == {WriteCancelledError}
    assert store.load_current() is None


def test_what_needs_the_engine_says_so(tmp_path: Path) -> None:
    for options in ({"verify": True}, {"on_duplicate": "error"}, {"workers": 2}, {"checks": PublishChecks(sample_keys=1)}):
        with pytest.raises(ConfigValidationError, match="needs a built-in adapter factory"):
            write(configuration(tmp_path, fake_adapter_factory), **options)


# ---------------------------------------------------------------- processes


@dataclass
class FailingFactory:
    """Fails at a step, in its process."""

    error: Exception

    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        if "db=00001" in db_url:
            raise self.error
        return fake_adapter_factory(db_url=db_url, local_dir=local_dir)


def leave(*, db_url: str, local_dir: Path) -> Any:
    """A factory that ends its process as if all were well."""
    if "db=00001" in db_url:
        raise SystemExit(0)
    return fake_adapter_factory(db_url=db_url, local_dir=local_dir)


def parallel(config: HashShardedWriteConfig, rows: Any = range(100), **options: Any) -> BuildResult:
    return write(config, rows, parallel=True, **options)


def test_one_process_a_shard(tmp_path: Path) -> None:
    root = str(tmp_path / "files")
    options = SharedMemoryOptions(max_total_bytes=300, max_bytes_per_worker=100)
    config = configuration(tmp_path, file_backed_adapter_factory(root), batch_size=7)
    result = parallel(config, shared_memory=options, max_queue_size=1)
    rows: dict[bytes, bytes] = {}
    for winner in result.winners:
        assert winner.db_url is not None and winner.db_bytes > 0
        found = file_backed_load_db(root, winner.db_url)
        assert len(found) == winner.row_count
        rows |= found
    assert rows == {n.to_bytes(8, "big"): b"value %d" % n for n in range(100)}
    assert multiprocessing.active_children() == []


def test_a_process_that_fails(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    with pytest.raises(ShardyfusionError) as caught:
        parallel(configuration(tmp_path, FailingFactory(Broken("in the process")), store))
    assert str(caught.value) == "Worker process(es) exited with errors: [(1, 1)]"
    assert isinstance(caught.value.__cause__, Broken)
    assert store.load_current() is None
    assert multiprocessing.active_children() == []


def test_a_process_that_leaves_without_a_word(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    with pytest.raises(ShardyfusionError) as caught:
        parallel(configuration(tmp_path, leave, store))
    assert str(caught.value) == "Worker process(es) exited with errors: [(1, 0)]"
    assert str(caught.value.__cause__) == "the process ended with exit code 0"
    assert store.load_current() is None


def test_a_shard_that_fails_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(_processes.ProcessBuild, "_wait", lambda self, seconds: waited.append(seconds))
    root = str(tmp_path / "files")
    factory = FailOnceAdapterFactory(
        file_backed_adapter_factory(root), str(tmp_path / "marks"), fail_db_ids=(1,), fail_attempts=(0, 1)
    )
    retry = RetryConfig(max_retries=3, initial_backoff=timedelta(seconds=5), backoff_multiplier=3.0)
    result = parallel(configuration(tmp_path, factory, shard_retry=retry, batch_size=7))
    assert [w.attempt for w in result.winners] == [0, 2, 0]
    assert waited == [5.0, 15.0]
    assert result.stats.num_attempt_results == 3, "a failed attempt has no result"
    url = result.winners[1].db_url
    assert url is not None and url.endswith("/db=00001/attempt=02")
    expected = {n.to_bytes(8, "big"): b"value %d" % n for n in range(100) if xxh3_db_id(n, 3) == 1}
    assert file_backed_load_db(root, url) == expected


def test_retries_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes.ProcessBuild, "_wait", lambda self, seconds: None)
    retry = RetryConfig(max_retries=1)
    with pytest.raises(ShardWriteError) as caught:
        parallel(configuration(tmp_path, FailingFactory(Broken("always")), shard_retry=retry), [4, 2])
    assert str(caught.value) == "Shard write failed for db_id=1, attempt=1: always"


def test_an_error_that_no_retry_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes.ProcessBuild, "_wait", lambda self, seconds: pytest.fail("waited"))
    factory = FailingFactory(DbAdapterError("no such bucket"))
    with pytest.raises(DbAdapterError, match="^no such bucket$"):
        parallel(configuration(tmp_path, factory, shard_retry=RetryConfig()), [2])


def test_a_bad_row_ends_all_processes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unsupported key type"):
        parallel(configuration(tmp_path, fake_adapter_factory, batch_size=1), [1, 2, 3, None])
    assert multiprocessing.active_children() == []


# ---------------------------------------------------------------- the line on a terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_on_a_terminal_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    config = configuration(tmp_path, fake_adapter_factory, batch_size=10)
    write_hash_sharded(range(1000), config, ROWS, PythonWriteOptions(progress_interval=1e-9))
    *shown, last = terminal.getvalue().split("\r\x1b[K")
    assert shown and last.startswith("publishing: 1,000 rows, ") and last.endswith("\n")
    assert "3/3 shards" in last


@pytest.mark.parametrize("how", ["no terminal", "switched off", "a callback"])
def test_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    stream = io.StringIO() if how == "no terminal" else Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    progress: Any = {"no terminal": None, "switched off": False, "a callback": lambda _: None}[how]
    options = PythonWriteOptions(progress=progress, progress_interval=1e-9)
    write_hash_sharded(range(100), configuration(tmp_path, fake_adapter_factory), ROWS, options)
    assert stream.getvalue() == ""
