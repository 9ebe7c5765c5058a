"""Writing through the engine, for built-in adapter factories: rows go straight into its sorter, and its threads build
the shards. The engine publishes, too, unless the manifest store is somebody else's."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shardyfusion._local_folder import make_local_folder
from shardyfusion._engine import native
from shardyfusion._s3_options import engine_options
from shardyfusion._storage_errors import (
    ConditionFailedError,
    InvalidArgumentError,
    MissingObjectError,
    UnknownRoutingTokenError,
    UnsupportedByStoreError,
)
from shardyfusion._store_events import with_events
from shardyfusion.config import (
    ANY,
    ArrowRecordInput,
    BadRow,
    PublishPreview,
    PythonRecordInput,
    WriteProgress,
)
from shardyfusion.errors import (
    ConfigValidationError,
    DbAdapterError,
    ManifestStoreError,
    PublishConflictError,
    PublishManifestError,
    PublishRefusedError,
    RowError,
    ShardWriteError,
    ShardyfusionError,
    WriteCancelledError,
)
from shardyfusion.manifest import BuildResult
from shardyfusion._manifest_objects import conflict
from shardyfusion.metrics import MetricEvent
from shardyfusion.run_registry import RunRecordLifecycle
from shardyfusion.serde import engine_value
from shardyfusion.type_defs import RetryConfig
from shardyfusion.writer import _publish
from shardyfusion.writer._arrow import arrow_stream, as_python_rows, spec_of
from shardyfusion.writer._limits import WriteLimits
from shardyfusion.writer._plan import Plan, ShardAttempt
from shardyfusion.writer._progress import Progress
from shardyfusion.writer._rows import explain_row, note_row, row_failure

if TYPE_CHECKING:
    from shardyfusion._native import Attempt, S3Options, Writer, WriteReport, WriterOptions

# What the engine's own template language takes; for others the general way is taken.
_SIMPLE_TEMPLATE = re.compile(r"(?:[^{}]|\{\{|\}\}|\{db_id(?::0?\d*d?)?\})*\Z")
_MOST_RETRIES = 1000  # of the engine; weeks of waiting
_CALLBACK_MS = 100  # between looks at signals, progress and cancelling
_ROWS_AT_A_TIME = 65536  # records between two looks at the rate limits


def native_options(plan: Plan) -> WriterOptions | None:
    """How the engine builds the shards of this write; None when it cannot."""
    backend = _backend(plan)
    if backend is None or not _SIMPLE_TEMPLATE.match(plan.config.output.db_path_template):
        return None
    output, options = plan.config.output, plan.options
    if options.resume and output.run_id is None:
        raise ConfigValidationError("options.resume needs output.run_id, of the run that goes on")
    retry = plan.config.retry.shard_retry
    given: WriterOptions = {
        "s3": _publish.manifest_options(plan),
        "run_id": plan.run_id,
        "new_run_id": output.run_id is None,
        "num_dbs": plan.num_dbs,
        "key_encoding": plan.config.kv.key_encoding.value,
        "key_col": plan.key_col,
        "custom_json": "{}" if plan.config.manifest.store is not None else _publish.custom_json(plan),
        "db_path_template": output.db_path_template,
        "shard_prefix": output.shard_prefix,
        "on_duplicate": options.on_duplicate,
        "threads": options.workers or 0,
        "max_retries": 0 if retry is None else min(retry.max_retries, _MOST_RETRIES),
        "retry_base_ms": 0 if retry is None else round(retry.initial_backoff.total_seconds() * 1000),
        "retry_multiplier": 2.0 if retry is None else retry.backoff_multiplier,
        "resume": options.resume,
        "reuse_unchanged": options.reuse_unchanged,
        "spill_folder": str(plan.local_run_dir),
        "progress_interval_ms": _CALLBACK_MS,
        "cel": plan.cel,
        **backend,
    }
    given["s3"] = with_events(given["s3"])
    given["shard_s3"] = given["shard_s3"] and with_events(given["shard_s3"])  # None: as "s3", which reports, too
    memory = options.memory_bytes or options.buffering.max_total_batched_bytes
    if memory is not None:
        given["memory_bytes"] = max(memory, 1 << 20)
    _add_checks(given, plan)
    return given


def _add_checks(given: WriterOptions, plan: Plan) -> None:
    checks, expected = plan.options.checks, plan.config.manifest.expected_current
    if checks.min_rows_share is not None:
        given["min_rows_share"] = checks.min_rows_share
    if checks.max_rows_share is not None:
        given["max_rows_share"] = checks.max_rows_share
    if checks.max_empty_shards is not None:
        given["max_empty_shards"] = checks.max_empty_shards
    given["sample_keys"] = checks.sample_keys
    if expected is not ANY:
        given["expected_current"] = expected


def _backend(plan: Plan) -> WriterOptions | None:
    """The engine's backend for the configured factory: exactly a built-in one, a derived class may do anything."""
    from shardyfusion.local_slatedb_adapter import LocalSlateDbFactory
    from shardyfusion.slatedb_adapter import SlateDbFactory, slatedb_options
    from shardyfusion.sqlite_adapter import SqliteFactory, sqlite_options

    factory = plan.config.kv.adapter_factory
    storage = _publish.storage_options(plan)
    if factory is None:
        return {"backend": "slatedb", "shard_s3": storage}
    if type(factory) is SqliteFactory:
        own = engine_options(factory.s3_connection_options, factory.credential_provider)
        sqlite = sqlite_options(factory.page_size, factory.emit_sidecar)
        return {"backend": "sqlite", "sqlite": sqlite, "shard_s3": own or storage}
    if type(factory) in (SlateDbFactory, LocalSlateDbFactory):
        assert isinstance(factory, SlateDbFactory | LocalSlateDbFactory)
        own = engine_options(factory.s3_connection_options, factory.credential_provider, factory.env_file)
        slatedb = slatedb_options(factory.settings)
        return {"backend": "slatedb", "slatedb": slatedb, "shard_s3": own or storage}
    return None


def run_native(
    records: Any,
    plan: Plan,
    input: PythonRecordInput[Any] | ArrowRecordInput,
    options: WriterOptions,
    progress: Progress,
    record: RunRecordLifecycle,
) -> BuildResult:
    """The course of such a write. What was stored is taken back when it fails before anything is visible."""
    limits = WriteLimits(plan.config.rate_limits, plan.collector)
    throttle = _Throttle(limits) if isinstance(input, ArrowRecordInput) else None

    def build(writer: Writer) -> WriteReport:
        with _local_failures(), _row_failures():
            _add(writer, records, plan, input, limits)
            return _build(writer, plan)

    return build_and_publish(plan, options, progress, record, build, throttle=throttle)


def build_and_publish(
    plan: Plan,
    options: WriterOptions,
    progress: Progress,
    record: RunRecordLifecycle,
    build: Callable[[Writer], WriteReport],
    *,
    take_back: Callable[[], None] = lambda: None,
    throttle: _Throttle | None = None,
) -> BuildResult:
    """From rows to a visible snapshot. `build` gives the writer rows and builds their shards, or hands it shards that others have built;
    `take_back` deletes those of others when nothing became visible."""
    publisher: _Publisher = _EnginePublisher(plan) if plan.config.manifest.store is None else _StorePublisher(plan, record)
    make_local_folder(plan.local_run_dir)
    told = _Told(plan, progress, throttle)
    plan.started()
    writer = native.Writer(
        plan.s3_prefix, options, _row_error(plan), progress=told, check=publisher.engine_check(), bad_row=_bad_row(plan, progress)
    )
    try:
        report = build(writer)
        if report["sharding"] is not None:
            plan.settle(report["num_dbs"], report["sharding"])
        attempts = report["attempts"]
        log_shards(plan, attempts)
        rows, duplicates = sum(one["row_count"] for one in attempts), sum(one["duplicates"] for one in attempts)
        plan.bad_rows += report["bad_rows"]
        plan.shards_completed(rows, duplicates)
        if plan.options.verify:
            progress.phase("checking")
            _verify(plan, report, options.get("shard_s3"))
        shards = [attempt_of(one).to_meta() for one in attempts if one["db_url"] is not None]
        for shard in shards:
            plan.selected(shard)
        if plan.options.dry_run:
            _publish.check(plan, _publish.manifest_store(plan), shards)
            writer.abort("DryRun", "nothing was to be published")
            take_back()
            return plan.result(
                shards, "", len(attempts), rows, duplicates, record.run_record_ref, sum(one["reused"] for one in attempts)
            )
        if record.has_lapsed:
            _find_shards(plan, writer)
        since_ms = plan.elapsed_ms()
        manifest_ref = publisher.publish(writer, shards, progress)
        warning = _warning(writer.report())
    except BaseException as error:
        if publisher.may_take_back:
            writer.abort(type(error).__name__, str(error))
            if writer.report()["manifest_ref"] is None:
                take_back()
        _note_published(writer, record)
        raise
    finally:
        writer.close()
    record.set_manifest_ref(manifest_ref)
    plan.published(manifest_ref, since_ms)
    if warning is not None:
        plan.log("write_warning", level=logging.WARNING, **warning)
    result = plan.result(
        shards, manifest_ref, len(attempts), rows, duplicates, record.run_record_ref, sum(one["reused"] for one in attempts)
    )
    plan.completed(result)
    return result


# ---------------------------------------------------------------- rows


def _row_error(plan: Plan) -> Any:
    explain = explain_row(plan.config.kv.key_encoding)

    def row_error(error: BaseException | None, key: object, value: object, number: int) -> BaseException:
        error = explain(key, value) if error is None else error
        note_row(error, number, key)
        return error

    return row_error


def _bad_row(plan: Plan, progress: Progress) -> Any:
    """For the engine: what becomes of rows that cannot be stored."""
    wanted = plan.options.on_bad_row
    if not callable(wanted):
        return True if wanted == "skip" else None

    def tell(number: int, error: Exception, record: Any, key: Any, value: bytes | None) -> None:
        progress.hide()
        wanted(BadRow(number, row_failure(error), record, key, value))

    return tell


def _add(
    writer: Writer,
    records: Any,
    plan: Plan,
    input: PythonRecordInput[Any] | ArrowRecordInput,
    limits: WriteLimits,
) -> None:
    if isinstance(input, ArrowRecordInput):
        stream = arrow_stream(records, input, plan.cel)
        value = engine_value(spec_of(input), stream)
        if value is not None:
            with stream.failures():
                writer.add_arrow(stream, input.key_col, value)
            return
        records, input = as_python_rows(stream, input, plan.cel)
    iterator = iter(records)
    columns_fn = None if plan.cel is None else input.columns_fn
    at_a_time = limits.batch_rows(sys.maxsize if limits.unlimited else min(plan.config.kv.batch_size, _ROWS_AT_A_TIME))
    while True:
        rows, size = writer.add_rows(iterator, input.key_fn, input.value_fn, at_a_time, columns_fn)
        limits.acquire(rows, size)
        if rows < at_a_time:
            return


class _Told:
    """What the engine calls about every 100 ms. An exception ends the write."""

    def __init__(self, plan: Plan, progress: Progress, throttle: _Throttle | None) -> None:
        self._plan = plan
        self._progress = progress
        self._throttle = throttle

    def __call__(self, state: tuple[Any, ...]) -> None:
        phase, rows_added, bytes_added, rows_built, bytes_stored, done, total, elapsed_ms = state
        self._plan.metrics.tell()
        if self._throttle is not None:
            self._throttle.wait(rows_added, bytes_added)
        self._progress.take(
            WriteProgress(phase, rows_added, rows_built, bytes_stored, done, total, elapsed_ms / 1000)
        )


class _Throttle:
    """Holds back rows that the engine takes from columns by itself."""

    def __init__(self, limits: WriteLimits) -> None:
        self._limits = limits
        self._rows = self._bytes = 0

    def wait(self, rows: int, size: int) -> None:
        if rows > self._rows and not self._limits.unlimited:
            self._limits.acquire(rows - self._rows, size - self._bytes)
            self._rows, self._bytes = rows, size


# ---------------------------------------------------------------- shards


@contextmanager
def _local_failures() -> Iterator[None]:
    """What fails without an object in storage is the disk that rows spill to."""
    try:
        yield
    except ManifestStoreError as error:
        if error.object_url is not None or error.retryable:
            raise
        failure = ShardWriteError(str(error))
        failure.retryable = False
        raise failure from error


@contextmanager
def _row_failures() -> Iterator[None]:
    try:
        yield
    except (RowError, InvalidArgumentError, UnknownRoutingTokenError) as error:
        failure = row_failure(error)
        if failure is error:
            raise
        raise failure from None


def _build(writer: Writer, plan: Plan) -> WriteReport:
    try:
        return writer.build()
    except ShardyfusionError as error:
        retry = plan.config.retry.shard_retry
        if error.db_id is not None:
            plan.log_failed("shard_write_failed", error, db_id=error.db_id)
            if error.retryable and retry is not None and retry.max_retries > 0:
                attempts = retry.max_retries + 1
                plan.emit(MetricEvent.SHARD_WRITE_RETRY_EXHAUSTED, db_id=error.db_id, attempts=attempts)
        raise


def attempt_of(one: Attempt) -> ShardAttempt:
    """Of a report."""
    assert one["db_url"] is not None
    return ShardAttempt(
        db_id=one["db_id"],
        attempt=one["attempt"],
        db_url=one["db_url"],
        row_count=one["row_count"],
        db_bytes=one["db_bytes"],
        min_key=_key(one["min_key"], one["bytes_keys"]),
        max_key=_key(one["max_key"], one["bytes_keys"]),
        duration_ms=one["duration_ms"],
        checkpoint_id=one["checkpoint_id"] or "",
        stage_id=one["stage_id"],
        task_attempt_id=one["task_attempt_id"],
        opening=one["opening"],
    )


def _key(text: str | None, is_bytes: bool) -> Any:
    key = None if text is None else json.loads(text)
    return key.encode() if is_bytes and isinstance(key, str) else key


def backoff_s(retry: RetryConfig, retries: int) -> float:
    """How long to wait after so many repetitions."""
    return retry.initial_backoff.total_seconds() * retry.backoff_multiplier**retries


def log_shards(plan: Plan, attempts: list[Attempt]) -> None:
    """How often each was repeated, and that it is done. Tasks of batch engines repeat without being told to."""
    retry = plan.config.retry.shard_retry or RetryConfig()
    for one in attempts:
        for attempt in range(1, one["retries"] + 1):
            plan.shard_retrying(one["db_id"], attempt, backoff_s(retry, attempt - 1))
        plan.shard_completed(attempt_of(one))


def _warning(report: WriteReport) -> dict[str, Any] | None:
    """What is odd about the snapshot; known when the engine has published it."""
    if not report["warning"]:
        return None
    return {"warning": report["warning"], "suggested_num_dbs": report["suggested_num_dbs"]}


def _verify(plan: Plan, report: WriteReport, s3: S3Options | None) -> None:
    """Reads every shard back and compares it with what was built."""
    copies = plan.local_run_dir / "read-back"  # of SQLite shards, one at a time
    rows = 0
    for one in report["attempts"]:
        url = one["db_url"]
        assert url is not None
        try:
            found, content_hash = native.shard_content(url, s3, str(copies))
        finally:
            shutil.rmtree(copies, ignore_errors=True)
        rows += found
        if content_hash != one["content_hash"]:
            raise DbAdapterError(f"shard {one['db_id']} at {url} does not read back as it was written")
    written = sum(one["row_count"] for one in report["attempts"])
    if rows != written:
        raise DbAdapterError(f"{rows} rows read back, {written} were written")


def _find_shards(plan: Plan, writer: Writer) -> None:
    plan.log("run_lease_lapsed")
    try:
        writer.find_shards()
    except MissingObjectError as error:
        failure = ShardWriteError(str(error))
        failure.retryable = False
        raise failure from error


def _note_published(writer: Writer, record: RunRecordLifecycle) -> None:
    """What fails behind the pointer, a progress callback say, leaves a snapshot that is visible."""
    report = writer.report()
    if report["published"] and report["manifest_ref"] is not None:
        record.set_manifest_ref(report["manifest_ref"])


# ---------------------------------------------------------------- publishing


class _Publisher:
    """Makes a built snapshot visible."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.may_take_back = True

    def engine_check(self) -> Any:
        """What the engine asks before it publishes."""
        return None

    def publish(self, writer: Writer, shards: list[Any], progress: Progress) -> str:
        raise NotImplementedError


class _StorePublisher(_Publisher):
    """Through a manifest store of the caller's."""

    def __init__(self, plan: Plan, record: RunRecordLifecycle) -> None:
        super().__init__(plan)
        self._record = record
        self._store = _publish.manifest_store(plan)
        _publish.expectation(plan, self._store)  # before the work, not after it
        if plan.options.reuse_unchanged:
            raise ConfigValidationError("options.reuse_unchanged needs the default manifest store")
        if plan.options.checks.sample_keys:
            raise ConfigValidationError("options.checks.sample_keys needs the default manifest store")

    def publish(self, writer: Writer, shards: list[Any], progress: Progress) -> str:
        hashes = [(one["db_id"], one["attempt"], one["db_url"], one["content_hash"]) for one in writer.report()["attempts"]]
        progress.phase("checking")
        _publish.check(self._plan, self._store, shards)
        progress.phase("publishing")
        self.may_take_back = False  # the store may have kept the manifest even when it fails
        try:
            return _publish.publish(self._plan, self._store, shards, self._record, hashes)
        except PublishConflictError as error:
            self.may_take_back = error.manifest_ref is None
            raise


class _EnginePublisher(_Publisher):
    """By the engine, below the prefix."""

    def engine_check(self) -> Any:
        return None if self._plan.options.checks.check is None else self._ask

    def _ask(self, report: WriteReport) -> None:
        shards = [attempt_of(one).to_meta() for one in report["winners"]]
        rows = sum(shard.row_count for shard in shards)
        _publish.ask(
            self._plan, PublishPreview(self._plan.run_id, report["num_dbs"], rows, shards, report["previous_rows"])
        )

    def publish(self, writer: Writer, shards: list[Any], progress: Progress) -> str:
        try:
            ref = writer.publish()["manifest_ref"]
        except ShardyfusionError as error:
            explained = self._explain(error, writer.report())
            if explained is error:
                raise
            raise explained from error
        assert ref is not None
        return ref

    def _explain(self, error: ShardyfusionError, report: WriteReport) -> BaseException:
        expected = self._plan.config.manifest.expected_current
        if expected is ANY:  # but a shard that is taken over holds as long as the snapshot that has it is the one
            expected = next((one["taken_from"] for one in report["winners"] if one["taken_from"] is not None), ANY)
        if isinstance(error, ConditionFailedError) and expected is not ANY:
            return conflict(expected, report["found_ref"], report["manifest_ref"])
        if isinstance(error, UnsupportedByStoreError) and expected is not ANY:
            return PublishManifestError(f"expected_current cannot be had: {error}")
        if isinstance(error, PublishRefusedError | ConfigValidationError | WriteCancelledError):
            return error
        self._plan.log_failed("manifest_publish_failed", error)
        if report["manifest_ref"] is not None:
            return PublishManifestError("Failed to set CURRENT pointer after retries")
        return PublishManifestError("Failed to publish manifest")
