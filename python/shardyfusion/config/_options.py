"""How a write goes about it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import shardyfusion
from shardyfusion._kinds import YES_OR_NO
from shardyfusion._progress import To, is_told
from shardyfusion.config._checks import above, at_least, require, require_kind, require_not_async, validate_configs
from shardyfusion.sharding_types import is_positive_integer


@dataclass(slots=True)
class SharedMemoryOptions:
    """Bounds on the bytes of rows on their way to the processes of `parallel`.

    max_total_bytes: to all of them. max_bytes_per_worker: to each. None: no bound.
    """

    max_total_bytes: int | None = 256 << 20
    max_bytes_per_worker: int | None = 32 << 20

    def validate(self) -> None:
        for name in ("max_total_bytes", "max_bytes_per_worker"):
            value = getattr(self, name)
            require(value is None or is_positive_integer(value), f"options.shared_memory.{name} must be > 0 when set")


@dataclass(slots=True)
class BufferingOptions:
    """Bounds on what waits in memory for all shards together.

    max_total_batched_items: rows, for adapters of the caller's. max_total_batched_bytes: bytes. None: no bound but `batch_size`.
    """

    max_total_batched_items: int | None = None
    max_total_batched_bytes: int | None = None

    def validate(self) -> None:
        for name in ("max_total_batched_items", "max_total_batched_bytes"):
            value = getattr(self, name)
            require(value is None or is_positive_integer(value), f"options.buffering.{name} must be > 0 when set")


Phase = Literal["adding", "building", "checking", "publishing", "cleaning", "done"]


@dataclass(slots=True, frozen=True)
class WriteProgress:
    """How far a write is.

    phase: what it does now. rows_read: taken from the source.
    rows_written, bytes_written, shards_done: of shards that are stored.
    shards_total: the shards with rows; 0 until all rows were read.
    elapsed: seconds since it began.
    """

    phase: Phase
    rows_read: int
    rows_written: int
    bytes_written: int
    shards_done: int
    shards_total: int
    elapsed: float


@dataclass(slots=True, frozen=True)
class BadRow:
    """A row that was left out: its number from 1, and what is wrong with it. Of records the record; of columns, as far as they
    could be read, key and value."""

    number: int
    error: Exception
    record: Any = None
    key: int | str | bytes | None = None
    value: bytes | None = None


@dataclass(slots=True, frozen=True)
class PublishPreview:
    """What is about to be published, for a check of one's own.

    run_id, num_dbs: of the run. rows: stored ones. shards: those with rows.
    previous_rows: rows of the snapshot that the pointer names; None: there is none.
    """

    run_id: str
    num_dbs: int
    rows: int
    shards: list[shardyfusion.RequiredShardMeta]
    previous_rows: int | None


@dataclass(slots=True)
class PublishChecks:
    """What must hold before a snapshot becomes visible; else PublishRefusedError, and readers keep the one before.

    `min_rows_share` and `max_rows_share` compare the rows with those of the snapshot that the pointer names;
    `max_empty_shards` bounds the shards without rows; so many keys as `sample_keys` must read back from storage; `check`
    refuses by returning False or a text, or by raising.
    """

    min_rows_share: float | None = None
    max_rows_share: float | None = None
    max_empty_shards: int | None = None
    sample_keys: int = 0
    check: Callable[[PublishPreview], bool | str | None] | None = None

    def validate(self) -> None:
        for name in ("min_rows_share", "max_rows_share"):
            share = getattr(self, name)
            require(share is None or above(share, 0), f"options.checks.{name} must be > 0 when set")
        empty = self.max_empty_shards
        require(empty is None or at_least(empty, 0), "options.checks.max_empty_shards must be >= 0 when set")
        few = at_least(self.sample_keys, 0) and self.sample_keys <= 100_000
        require(few, "options.checks.sample_keys must be between 0 and 100000")
        require(self.check is None or callable(self.check), "options.checks.check must be callable")
        require_not_async("options.checks.check", self.check)


@dataclass(slots=True)
class PythonWriteOptions:
    """How a write from Python goes about it.

    `parallel` builds shards at once: in threads of the engine when the adapter factory is a built-in one, else in one
    process a shard. The keyword-only fields:

    max_queue_size, shared_memory: rows on their way to the processes of `parallel`. buffering: rows that wait in memory.
    progress, progress_interval: called about every so many seconds, on the writing thread; or a bar of shards such as `tqdm()`; None
        shows a line on a terminal, False nothing.
    cancel: setting the event ends the write with WriteCancelledError, unless the pointer has moved.
    workers: threads of the engine that build shards. memory_bytes: rows in memory before they spill to `local_root`.
    on_duplicate: of rows with one key "last" counts; "error" refuses them by a RowError. Only with built-in factories.
    on_bad_row: what becomes of a row that cannot be stored, or whose functions raise. "raise" ends the write; "skip" leaves the
        row out; a callable is given each as a BadRow, on the writing thread, and may end the write by raising. What was left
        out is counted, in `BuildStats.bad_rows`; duplicates are no bad rows.
    verify: read every shard back before it is published. dry_run: do everything but publish, then take it back.
    checks: what must hold before the snapshot becomes visible.
    resume: with `output.run_id`, keep the shards that earlier tries of the run finished, with this option, where their rows are the
        same; what this one finishes stays when it fails, for the next.
    reuse_unchanged: of a shard whose rows are those of the snapshot that is published, the new manifest names the one that is
        there. PublishConflictError when another snapshot was published meanwhile. Both only with built-in factories.
    """

    parallel: bool = False
    max_queue_size: int = 100
    shared_memory: SharedMemoryOptions = field(default_factory=SharedMemoryOptions)
    buffering: BufferingOptions = field(default_factory=BufferingOptions)
    progress: To[WriteProgress] = field(default=None, kw_only=True)
    progress_interval: float = field(default=1.0, kw_only=True)
    cancel: threading.Event | None = field(default=None, kw_only=True)
    workers: int | None = field(default=None, kw_only=True)
    memory_bytes: int | None = field(default=None, kw_only=True)
    on_duplicate: Literal["last", "error"] = field(default="last", kw_only=True)
    on_bad_row: Literal["raise", "skip"] | Callable[[BadRow], object] = field(default="raise", kw_only=True)
    verify: bool = field(default=False, kw_only=True)
    dry_run: bool = field(default=False, kw_only=True)
    checks: PublishChecks = field(default_factory=PublishChecks, kw_only=True)
    resume: bool = field(default=False, kw_only=True)
    reuse_unchanged: bool = field(default=False, kw_only=True)

    def validate(self) -> None:
        require(is_positive_integer(self.max_queue_size), "options.max_queue_size must be > 0")
        require(isinstance(self.shared_memory, SharedMemoryOptions), "options.shared_memory must be SharedMemoryOptions")
        require(isinstance(self.buffering, BufferingOptions), "options.buffering must be BufferingOptions")
        require(isinstance(self.checks, PublishChecks), "options.checks must be PublishChecks")
        validate_configs(self.shared_memory, self.buffering, self.checks)
        require(is_told(self.progress), "options.progress must be callable, a bar such as tqdm(), False or None")
        require_not_async("options.progress", self.progress)
        require(above(self.progress_interval, 0), "options.progress_interval must be > 0")
        require(self.workers is None or is_positive_integer(self.workers), "options.workers must be > 0 when set")
        require(
            self.memory_bytes is None or (is_positive_integer(self.memory_bytes) and self.memory_bytes >= 1 << 20),
            "options.memory_bytes must be at least 1 MiB when set",
        )
        require(self.on_duplicate in ("last", "error"), "options.on_duplicate must be 'last' or 'error'")
        bad_row = self.on_bad_row in ("raise", "skip") or callable(self.on_bad_row)
        require(bad_row, "options.on_bad_row must be 'raise', 'skip' or callable")
        require_not_async("options.on_bad_row", self.on_bad_row)
        for name in ("parallel", "verify", "dry_run", "resume", "reuse_unchanged"):
            require_kind(f"options.{name}", getattr(self, name), YES_OR_NO, optional=False)
        require(self.cancel is None or hasattr(self.cancel, "is_set"), "options.cancel must be a threading.Event")
        require(not (self.resume and self.dry_run), "options.dry_run leaves nothing that options.resume could keep")


@dataclass(slots=True, kw_only=True, repr=False)
class EngineWriteOptions:
    """What the options of all batch engines have: `memory_bytes` are of the rows of a task that builds a shard, before they spill to
    `local_root`; the others as in PythonWriteOptions, on the driver. `cancel` ends the engine's tasks, too. `on_bad_row` is no callable here: it
    is tasks that meet such rows."""

    memory_bytes: int | None = None
    progress: To[WriteProgress] = None
    progress_interval: float = 1.0
    cancel: threading.Event | None = None
    checks: PublishChecks = field(default_factory=PublishChecks)
    resume: bool = False
    reuse_unchanged: bool = False
    on_bad_row: Literal["raise", "skip"] = "raise"

    def general(self) -> PythonWriteOptions:
        """The same, for what all writes have in common."""
        return PythonWriteOptions(**{one.name: getattr(self, one.name) for one in fields(EngineWriteOptions)})

    def __repr__(self) -> str:
        given = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self))
        return f"{type(self).__name__}({given})"

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        require(
            not callable(self.on_bad_row),
            "options.on_bad_row must be 'raise' or 'skip': the engine's tasks, which meet such rows, cannot call this process",
        )
        self.general().validate()


_Options = TypeVar("_Options", bound=EngineWriteOptions)


def _own_first(cls: type[_Options]) -> type[_Options]:
    """The fields that an engine adds come before those of all engines, as its parameters do."""
    for one in fields(EngineWriteOptions):
        cls.__dataclass_fields__[one.name] = cls.__dataclass_fields__.pop(one.name)
    return cls


@_own_first
@dataclass(slots=True, repr=False)
class SparkWriteOptions(EngineWriteOptions):
    """How a write from Spark goes about it. Rows are routed by the package itself, in C, and every row is checked where it arrives:
    `verify_routing` has nothing to add.

    sort_within_partitions: rows come in order to adapters of the caller's; shards of ours are always sorted.
    cache_input, storage_level: keep the rows in Spark's cache, at this level, where they are read twice.
    spark_conf_overrides: settings of the session during the write.
    """

    sort_within_partitions: bool = False
    verify_routing: bool = True
    cache_input: bool = False
    storage_level: Any | None = None
    spark_conf_overrides: dict[str, str] | None = None


@_own_first
@dataclass(slots=True, repr=False)
class DaskWriteOptions(EngineWriteOptions):
    """How a write from Dask goes about it. `sort_within_partitions` and `verify_routing` are those of SparkWriteOptions."""

    sort_within_partitions: bool = False
    verify_routing: bool = True


@_own_first
@dataclass(slots=True, repr=False)
class RayWriteOptions(EngineWriteOptions):
    """How a write from Ray goes about it. `sort_within_partitions` and `verify_routing` are those of SparkWriteOptions."""

    sort_within_partitions: bool = False
    verify_routing: bool = True


@_own_first
@dataclass(slots=True, repr=False)
class SingleDbWriteOptions(EngineWriteOptions):
    """How a write of one shard from Spark, Dask or Ray goes about it.

    sort_keys: the engine sorts rows for an adapter of the caller's; shards of ours are sorted on the driver.
    num_partitions: in which they come to the driver; None: by `batch_size` where the engine sorts.
    prefetch_partitions: the next one is computed while one is written.
    cache_input, storage_level, spark_conf_overrides: as in SparkWriteOptions; the rows are cached where the engine sorts.
    """

    sort_keys: bool = True
    num_partitions: int | None = None
    prefetch_partitions: bool = True
    cache_input: bool = True
    storage_level: Any | None = None
    spark_conf_overrides: dict[str, str] | None = None

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        EngineWriteOptions.validate(self)  # super() does not know a class with slots
        partitions = self.num_partitions
        require(partitions is None or is_positive_integer(partitions), "options.num_partitions must be > 0 when set")
