"""What tasks of a batch engine do: rows become blocks of rows of one shard each (a Shuffle of the engine in C), whoever runs the tasks
brings the blocks of a shard together, and blocks become stored shards. All of it pickles and knows nothing of Spark, Dask or Ray; the
machines that run it need this package and pyarrow."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from shardyfusion._local_folder import make_local_folder
from shardyfusion._engine import native
from shardyfusion._storage_errors import InvalidArgumentError, UnknownRoutingTokenError
from shardyfusion._store_events import noting
from shardyfusion.config import BaseShardedWriteConfig, PythonWriteOptions
from shardyfusion.errors import (
    ConfigValidationError,
    RowError,
    ShardAssignmentError,
    ShardWriteError,
    ShardyfusionError,
    WriteCancelledError,
)
from shardyfusion.serde import ValueSpec, engine_value
from shardyfusion.type_defs import RetryConfig
from shardyfusion.writer._limits import WriteLimits
from shardyfusion.writer._native_build import backoff_s, native_options
from shardyfusion.writer._plan import Plan, ShardAttempt
from shardyfusion.writer._plugged import PluggedBuild
from shardyfusion.writer._progress import Progress
from shardyfusion.writer._rows import Row, value_bytes

if TYPE_CHECKING:
    from shardyfusion._native import ArrowValue, Attempt, CelSharding, ShuffleOptions

SHARD, BLOCK = "shard", "block"
"""The columns of shuffled data: int32 and binary."""

TASK_MEMORY_BYTES = 64 << 20
TASK_RETRIES = RetryConfig()
"""The least of them inside of a task: a folder that another attempt uses costs one."""
BATCH_BLOCK_BYTES = 8 << 20  # of the blocks that come to a task at once
_OPEN_BLOCK_BYTES = 64 << 20  # of the blocks that a task is filling


@dataclass(frozen=True)
class Task:
    """Which one runs, as the engine counts. `attempt` counts from 0, and again from 0 where an engine repeats a whole stage: another task may have been
    at the same work before, whatever it says."""

    partition: int
    attempt: int = 0
    stage_id: int | None = None
    task_attempt_id: int | None = None


def block_bytes(num_dbs: int, blocks_at_once: int) -> int:
    """How large blocks should be where so many come to a task at once."""
    size = min(BATCH_BLOCK_BYTES // max(1, blocks_at_once), _OPEN_BLOCK_BYTES // num_dbs)
    return max(1 << 10, min(size, 256 << 10))


# ---------------------------------------------------------------- rows to blocks


def dicts(batch: Any) -> Iterable[Any]:
    """The rows of a record batch, for encoders of values."""
    return batch.to_pylist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RouteRows:
    """Record batches of any rows -> record batches of blocks."""

    key_col: str
    value_spec: ValueSpec
    options: ShuffleOptions
    rows_of: Callable[[Any], Iterable[Any]] = dicts
    what: str = "Shard write"

    def __call__(self, batches: Iterable[Any], task: Task) -> Iterator[Any]:
        shuffle = native.Shuffle(self.options)
        values = _Values(self, task)
        for batch in batches:
            if batch.num_rows > 0:
                with _row_failures(task):
                    blocks = shuffle.add_arrow(*values.beside_keys(batch))
                    shuffle.leave_out(values.left_out)
                    values.left_out = 0
                if blocks[0] > 0:
                    yield _batch_of(blocks)
        with _row_failures(task):
            rest = shuffle.finish()
        if rest[0] > 0:
            yield _batch_of(rest)


def _batch_of(blocks: tuple[int, bytes, bytes, bytes]) -> Any:
    import pyarrow as pa  # type: ignore[import-not-found, import-untyped, unused-ignore]

    count, shards, offsets, data = blocks
    buffers = [pa.py_buffer(shards), pa.py_buffer(offsets), pa.py_buffer(data)]
    columns = [
        pa.Array.from_buffers(pa.int32(), count, [None, buffers[0]]),
        pa.Array.from_buffers(pa.binary(), count, [None, buffers[1], buffers[2]]),
    ]
    return pa.RecordBatch.from_arrays(columns, [SHARD, BLOCK])


@contextmanager
def _row_failures(task: Task) -> Iterator[None]:
    """Says of a bad row in which task it was. The text tells all: nothing else leaves a task."""
    try:
        yield
    except RowError as error:
        raise RowError(f"partition {task.partition}: {error}") from error
    except InvalidArgumentError as error:
        raise ConfigValidationError(f"partition {task.partition}: {error}") from error
    except UnknownRoutingTokenError as error:
        raise ShardAssignmentError(f"partition {task.partition}: {error}") from error


class _Arriving:
    """Blocks on their way to a shard, and what they met there: other tasks have told it already."""

    def __init__(self, blocks: Iterable[Iterable[bytes]]) -> None:
        self._blocks = blocks
        self.failure: ShardyfusionError | None = None

    def __iter__(self) -> Iterator[Iterable[bytes]]:
        try:
            yield from self._blocks
        except ShardyfusionError as error:
            self.failure = error
            raise


@contextmanager
def _shard_failures(what: str, task: Task, db_id: Callable[[], int], arriving: _Arriving) -> Iterator[None]:
    """What else fails while a shard is built names it."""
    try:
        with _row_failures(task):
            yield
    except Exception as error:
        if arriving.failure is not None:
            raise arriving.failure from None
        if isinstance(error, ConfigValidationError | ShardAssignmentError | WriteCancelledError):
            raise
        shard = getattr(error, "db_id", None)
        shard = db_id() if shard is None else shard
        failure = ShardWriteError(f"{what} failed for db_id={shard}, attempt={task.attempt}: {error}")
        failure.retryable = getattr(error, "retryable", True)
        raise failure from error


class _Values:
    """Batches with what is the value as it is stored."""

    def __init__(self, route: RouteRows, task: Task) -> None:
        self._route = route
        self._task = task
        self._rows = 0
        self.left_out = 0  # of the last batch: rows whose value cannot be made

    def beside_keys(self, batch: Any) -> tuple[Any, str, ArrowValue]:
        """(stream, key column, value)"""
        import pyarrow as pa

        key_col = self._route.key_col
        value = engine_value(self._route.value_spec, pa.Table.from_batches([batch]))
        if value is not None:
            self._rows += batch.num_rows
            if isinstance(value, str):
                batch = _without_nulls(batch, value)
            return pa.Table.from_batches([batch]), key_col, value
        encoded = self._encoded(batch)
        values = pa.array([value for value in encoded if value is not None], pa.large_binary())
        if self.left_out > 0:
            batch = batch.take(pa.array([place for place, value in enumerate(encoded) if value is not None], pa.int64()))
        name = _unused(batch.schema.names)
        return pa.Table.from_batches([batch]).append_column(name, values), key_col, name

    def _encoded(self, batch: Any) -> list[bytes | None]:
        """None: of a row that is left out."""
        encode, leaves_out = self._route.value_spec.encoder, self._route.options.get("leave_out", False)
        values: list[bytes | None] = []
        for row in self._route.rows_of(batch):
            self._rows += 1
            try:
                values.append(value_bytes(encode(row)))
            except (Exception, SystemExit) as error:
                if not leaves_out or isinstance(error, MemoryError | SystemExit):
                    raise self._failure(error, batch, len(values)) from error
                values.append(None)
                self.left_out += 1
        return values

    def _failure(self, error: Exception | SystemExit, batch: Any, place: int) -> Exception:
        where = f"partition {self._task.partition}, row {self._rows}"
        if isinstance(error, ShardyfusionError):
            return type(error)(f"{where}: {error}") if type(error).__init__ is ShardyfusionError.__init__ else error
        row = batch.slice(place, 1)
        shard = self._shard(row)
        return ShardWriteError(
            f"{self._route.what} failed for db_id={shard}, attempt={self._task.attempt}: {error} ({type(error).__name__} of the encoder of "
            f"values, {where})"
        )

    def _shard(self, row: Any) -> int | str:
        """Of a batch of one row, whose value cannot be made."""
        import pyarrow as pa

        shuffle = native.Shuffle(self._route.options)
        try:
            name = _unused(row.schema.names)
            table = pa.Table.from_batches([row]).append_column(name, pa.array([b"x"], pa.binary()))
            shuffle.add_arrow(table, self._route.key_col, name)
            return int.from_bytes(shuffle.finish()[1][:4], "little")
        except ShardyfusionError:
            return "?"


def _unused(names: list[str]) -> str:
    """A name that no column has."""
    name = "value"
    while name in names:
        name += "_"
    return name


def _without_nulls(batch: Any, column: str) -> Any:
    """A null of a `binary_col` is an empty value."""
    place = batch.schema.get_field_index(column)
    if place < 0 or batch.column(place).null_count == 0:
        return batch
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-not-found, import-untyped, unused-ignore]

    empty: str | bytes
    values, types = batch.column(place), pa.types
    kind = values.type.value_type if types.is_dictionary(values.type) else values.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        values, empty = values.cast(pa.large_string()), ""
    elif any(fits(kind) for fits in (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary, types.is_null)):
        values, empty = values.cast(pa.large_binary()), b""
    else:
        return batch  # the engine says what is wrong with it
    columns = list(batch.columns)
    columns[place] = pc.fill_null(values, empty)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


@dataclass(frozen=True)
class FindShards:
    """Record batches of any rows -> what a CEL expression gives for them: numbers of shards, or values that are inferred."""

    key_col: str
    cel: CelSharding
    leave_out: bool = False

    def __call__(self, batches: Iterable[Any], task: Task) -> list[Any]:
        import pyarrow as pa

        shards = native.cel_shards(self.cel)
        seen: set[int] = set()
        rows = 0
        for batch in batches:
            if batch.num_rows > 0:
                with _row_failures(task):
                    seen |= shards.place_arrow(pa.Table.from_batches([batch]), self.key_col, rows, self.leave_out)
                rows += batch.num_rows
        if self.cel["mode"] == "direct":
            return sorted(seen)
        return json.loads(shards.seal(seen, max(seen, default=-1) + 1)[1])["routing_values"] or []


# ---------------------------------------------------------------- blocks to shards


@dataclass(frozen=True)
class KeptBlocks:
    """Blocks that stay where they are: some at a time, and as often as wanted."""

    read: Callable[[], Iterator[list[bytes]]]

    def __iter__(self) -> Iterator[list[bytes]]:
        return self.read()


@dataclass(frozen=True)
class BuildShards:
    """Blocks -> attempts at the shards whose rows they hold: stored, not yet published. All blocks of a shard must come to one task.
    WriteCancelledError soon after `cancel` is set."""

    config: BaseShardedWriteConfig
    run_id: str
    num_dbs: int
    key_col: str
    cel: CelSharding | None
    memory_bytes: int
    sort_rows: bool = False  # in memory, for an adapter of the caller's
    resume: bool = False  # what earlier tries of the run finished
    reuse_unchanged: bool = False
    what: str = "Shard write"

    def __call__(self, blocks: Iterable[Iterable[bytes]], task: Task, cancel: Any = None) -> list[Attempt]:
        plan = self._plan(task, cancel)
        make_local_folder(plan.local_run_dir)
        try:
            with noting(plan.metrics.store_events):
                options = native_options(plan)
                if options is not None:
                    return self._native(plan, options, blocks, task)
                return self._repeated(plan, blocks, task)
        finally:
            shutil.rmtree(plan.config.output.local_root, ignore_errors=True)

    def _plan(self, task: Task, cancel: Any) -> Plan:
        config = self.config
        folder = f"{config.output.local_root}/task-{task.partition}-{uuid.uuid4().hex}"  # another attempt may be at work beside this one
        options = PythonWriteOptions(
            progress=False,
            cancel=cancel,
            memory_bytes=self.memory_bytes,
            resume=self.resume,
            reuse_unchanged=self.reuse_unchanged,
        )
        output = replace(config.output, run_id=self.run_id, local_root=folder)
        parts = {name: getattr(config, name) for name in ("storage", "kv", "retry", "rate_limits")}
        plan = Plan(BaseShardedWriteConfig(output=output, **parts), options, self.num_dbs, self.key_col, self.cel)
        plan.attempt = task.attempt
        return plan

    def _native(self, plan: Plan, options: native.WriterOptions, blocks: Iterable[Iterable[bytes]], task: Task) -> list[Attempt]:
        options["attempt"] = task.attempt
        options["stage_id"], options["task_attempt_id"] = task.stage_id, task.task_attempt_id
        options["threads"] = 1
        if options["max_retries"] < TASK_RETRIES.max_retries:
            options["max_retries"] = TASK_RETRIES.max_retries
            if plan.config.retry.shard_retry is None:
                options["retry_base_ms"] = round(TASK_RETRIES.initial_backoff.total_seconds() * 1000)
                options["retry_multiplier"] = TASK_RETRIES.backoff_multiplier
        limits = WriteLimits(plan.config.rate_limits, None)
        progress = Progress(plan.options)
        writer = native.Writer(plan.s3_prefix, options, _no_row, progress=lambda state: progress.raise_if_cancelled())
        rows = size = 0
        arriving = _Arriving(blocks)
        try:
            with _shard_failures(self.what, task, lambda: task.partition, arriving):
                for some in arriving:
                    progress.raise_if_cancelled()
                    writer.add_shuffled(some)
                    if not limits.unlimited:
                        report = writer.report()
                        now = report["rows"], report["key_bytes"] + report["value_bytes"]
                        limits.acquire(now[0] - rows, now[1] - size)
                        rows, size = now
                report = writer.build() if writer.report()["rows"] > 0 else writer.report()
                return _counted(report["attempts"], report["bad_rows"], task)
        finally:
            writer.close()

    def _repeated(self, plan: Plan, blocks: Iterable[Iterable[bytes]], task: Task) -> list[Attempt]:
        """By adapters that may be anybody's. Where the blocks stay, what fails is done again, as far as the caller wants it."""
        from shardyfusion.writer import _publish

        plan.next_attempts = _publish.next_attempts(plan)
        retry = plan.config.retry.shard_retry
        most = retry.max_retries if retry is not None and isinstance(blocks, KeptBlocks) else 0
        first, retries = task.attempt, 0
        while True:
            try:
                return self._plugged(plan, blocks, task, retries)
            except ShardWriteError as error:
                if retry is None or not error.retryable or retries == most:
                    raise
            time.sleep(backoff_s(retry, retries))
            retries += 1
            task = replace(task, attempt=first + retries)
            plan.next_attempts = {path: number + 1 for path, number in plan.next_attempts.items()}
            plan.attempt = task.attempt

    def _plugged(self, plan: Plan, blocks: Iterable[Iterable[bytes]], task: Task, retries: int) -> list[Attempt]:
        arriving = _Arriving(blocks)
        rows = _Unpacked(arriving, task.partition)
        with _shard_failures(self.what, task, lambda: rows.db_id, arriving), PluggedBuild(plan, Progress(plan.options)) as build:
            in_order = sorted(rows, key=lambda row: (row.db_id, row.key)) if self.sort_rows else rows
            return _counted([_told(attempt, task, retries) for attempt in build.run(in_order)], rows.left_out, task)


def _counted(attempts: list[Attempt], bad_rows: int, task: Task) -> list[Attempt]:
    """With the rows that were left out on their way: one attempt tells, or where there is none one without rows."""
    if bad_rows > 0:
        attempts = attempts or [_told(ShardAttempt(task.partition, task.attempt, "", 0, 0, None, None), task, 0)]
        attempts[0]["bad_rows"] = bad_rows
    return attempts


class _Unpacked:
    """The rows of blocks; of which shard the last one was, and how many were left out."""

    def __init__(self, blocks: Iterable[Iterable[bytes]], first: int) -> None:
        self._blocks = blocks
        self.db_id = first
        self.left_out = 0

    def __iter__(self) -> Iterator[Row]:
        for some in self._blocks:
            for block in some:
                left_out, rows = native.shuffled_rows(block)
                self.left_out += left_out
                for row in rows:
                    self.db_id = row[0]
                    yield Row(*row)


def _no_row(error: BaseException | None, key: object, value: object, number: int) -> BaseException:
    raise AssertionError("rows come as blocks")


def _told(attempt: ShardAttempt, task: Task, retries: int) -> Attempt:
    """As the engine's own report has it, which travels as JSON."""
    low, high = _key_json(attempt.min_key), _key_json(attempt.max_key)
    both = low is not None and high is not None
    return {
        "db_id": attempt.db_id,
        "attempt": attempt.attempt,
        "retries": retries,
        "db_url": attempt.db_url,
        "row_count": attempt.row_count,
        "duplicates": attempt.duplicates,
        "db_bytes": attempt.db_bytes,
        "min_key": low if both else None,
        "max_key": high if both else None,
        "checkpoint_id": attempt.checkpoint_id,
        "content_hash": None,
        "opening": attempt.opening,
        "duration_ms": attempt.duration_ms,
        "bytes_keys": isinstance(attempt.min_key, bytes),
        "reused": False,
        "taken_from": None,
        "stage_id": task.stage_id,
        "task_attempt_id": task.task_attempt_id,
    }


def _key_json(key: Any) -> str | None:
    try:
        return json.dumps(key.decode() if isinstance(key, bytes) else key)
    except UnicodeDecodeError:
        return None
