"""The course of a write whose rows lie in a batch engine: planned and published here, on the driver, as every other write is; routed and
built by the engine's tasks (`_tasks`). What an engine brings is a Job."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from shardyfusion._engine import native
from shardyfusion._storage_errors import UnknownRoutingTokenError
from shardyfusion.config import (
    BaseShardedWriteConfig,
    CelShardedWriteConfig,
    ColumnWriteInput,
    HashShardedWriteConfig,
    PythonWriteOptions,
    validate_configs,
)
from shardyfusion.config._options import EngineWriteOptions
from shardyfusion.errors import ConfigValidationError, ShardAssignmentError, ShardCoverageError
from shardyfusion.manifest import BuildResult
from shardyfusion.run_registry import RunRecordLifecycle
from shardyfusion.serde import ValueSpec
from shardyfusion.storage import join_s3
from shardyfusion.writer import _publish
from shardyfusion.writer._native_build import attempt_of, build_and_publish, log_shards, native_options
from shardyfusion.writer._plan import Plan, ShardAttempt, resolve_cel
from shardyfusion.writer._progress import Progress
from shardyfusion.writer._run import publish_plugged, recorded
from shardyfusion.writer._tasks import TASK_MEMORY_BYTES, BuildShards, FindShards, RouteRows, block_bytes

if TYPE_CHECKING:
    from shardyfusion._native import Attempt, ShuffleOptions, WriteReport, Writer


class Job(Protocol):
    """How an engine runs what a write needs. Errors of tasks are those of the package, as far as the engine tells them."""

    writer_type: str
    columns: Sequence[str]  # of its rows; `in` it is what the engine takes for one of them
    blocks_at_once: int  # how many may come to a task in one batch
    sort_rows: bool  # before an adapter of the caller's gets them
    what: str  # of the messages of shards that fail: "Shard write"

    def count_rows(self) -> int: ...

    def find(self, task: FindShards, columns: list[str]) -> Iterable[list[Any]]:
        """What the task returns, of each partition of the rows."""
        ...

    def build(self, route: RouteRows, build: BuildShards, columns: list[str] | None) -> Generator[Attempt]:
        """Routes all rows, of which these columns are needed (None: all), brings the blocks of each shard to one task, and builds
        there. Every attempt that ended well and counts, each shard at most once. No task is at work behind its end, whatever ends
        it, as far as the engine tells."""
        ...


def require_engine(module: str, package: str, extra: str) -> None:
    """ImportError that names the extra unless the engine and pyarrow can be imported."""
    missing = [name for name in (package, "pyarrow") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{module} needs {' and '.join(missing)}: pip install 'shardyfusion[{extra}]'", name=module)


# ---------------------------------------------------------------- planning


def check_arguments(
    wanted: type[BaseShardedWriteConfig], config: Any, input: Any, options: Any, options_type: type[Any]
) -> None:
    """ConfigValidationError unless they are what an engine's writer takes."""
    if not isinstance(config, wanted):
        raise ConfigValidationError(f"config must be {wanted.__name__}, not {type(config).__name__}")
    if not isinstance(input, ColumnWriteInput):
        raise ConfigValidationError(f"input must be ColumnWriteInput, not {type(input).__name__}")
    if not isinstance(options, options_type):
        raise ConfigValidationError(f"options must be {options_type.__name__}, not {type(options).__name__}")
    validate_configs(config, input, options)
    if not isinstance(input.value_spec, ValueSpec):
        raise ConfigValidationError(f"value_spec must be ValueSpec, not {type(input.value_spec).__name__}")
    if input.vector is not None or input.vector_fn is not None:
        raise ConfigValidationError("vector_fn requires config.vector_spec to be set")


def needed_columns(input: ColumnWriteInput, present: Sequence[str], routing: Iterable[str] = ()) -> list[str] | None:
    """The columns that a write reads; None: all, as they are called. A key column that is missing is among them, for the engine to refuse."""
    referenced = input.value_spec.referenced_columns()
    wanted = [input.key_col, *(name for name in (*(referenced or ()), *routing) if name in present)]
    if referenced is None:
        if set(wanted) <= set(iter(present)):
            return None
        wanted = [*present, *wanted]
    return list(dict.fromkeys(wanted))


def plan_write(config: BaseShardedWriteConfig, input: ColumnWriteInput, options: EngineWriteOptions, job: Job) -> Plan:
    """Everything that is decided before the first row."""
    if config.shard_id_col in job.columns:
        raise ConfigValidationError(
            f"shard_id_col '{config.shard_id_col}' conflicts with user data column. Choose a different shard_id_col or rename the "
            "user column."
        )
    if options.checks.sample_keys:
        raise ConfigValidationError("options.checks.sample_keys needs the Python writer, which sees every row")
    cel = resolve_cel(config) if isinstance(config, CelShardedWriteConfig) else None
    known = 1
    if isinstance(config, HashShardedWriteConfig):
        known = config.sharding.num_dbs or 0
    elif cel is not None:
        known = max(1, len(cel["values"])) if cel["values"] is not None else 0
    plan = Plan(profiled(config), options.general(), known, input.key_col, cel, job.writer_type)
    if native_options(plan) is None:  # which refuses what cannot be, before the work
        for name in ("resume", "reuse_unchanged"):
            if getattr(options, name):
                raise ConfigValidationError(f"options.{name} needs a built-in adapter factory")
    return plan


def is_built_in(config: BaseShardedWriteConfig) -> bool:
    """Whether the engine in C builds the shards."""
    return native_options(Plan(config, PythonWriteOptions(), 1, "")) is not None


def profiled(config: BaseShardedWriteConfig) -> BaseShardedWriteConfig:
    """With `profile_value_sizes_for_page_size` the engine chooses the page size of every SQLite shard by its values."""
    if not config.kv.profile_value_sizes_for_page_size:
        return config
    from shardyfusion.sqlite_adapter import SqliteFactory

    factory = config.kv.adapter_factory
    if not isinstance(factory, SqliteFactory):
        raise ConfigValidationError("kv.profile_value_sizes_for_page_size=True needs a SqliteFactory")
    if factory.page_size != 4096:
        raise ConfigValidationError(
            f"kv.profile_value_sizes_for_page_size=True conflicts with SqliteFactory(page_size={factory.page_size!r})"
        )
    kv = replace(config.kv, adapter_factory=replace(factory, page_size="auto"), profile_value_sizes_for_page_size=False)
    parts = {name: getattr(config, name) for name in ("storage", "output", "manifest", "retry", "rate_limits", "observability", "lifecycle")}
    return BaseShardedWriteConfig(kv=kv, shard_id_col=config.shard_id_col, **parts)


# ---------------------------------------------------------------- the course


def run_job(
    job: Job, config: BaseShardedWriteConfig, input: ColumnWriteInput, options: EngineWriteOptions, rows_of: Any = None
) -> BuildResult:
    """Writes and publishes; leaves the run's record saying how it went."""
    plan = plan_write(config, input, options, job)
    return recorded(plan, lambda progress, record: _Course(job, plan, config, input, rows_of).run(progress, record))


class _Course:
    def __init__(
        self, job: Job, plan: Plan, config: BaseShardedWriteConfig, input: ColumnWriteInput, rows_of: Any
    ) -> None:
        self._job = job
        self._plan = plan
        self._config = config
        self._input = input
        self._rows_of = rows_of

    def run(self, progress: Progress, record: RunRecordLifecycle) -> BuildResult:
        self._plan.started()
        self._settle()
        result = self._publish(progress, record)
        self._delete_losers({winner.db_url for winner in result.winners})
        return result

    def _publish(self, progress: Progress, record: RunRecordLifecycle) -> BuildResult:
        plan = self._plan
        options = native_options(plan)
        if options is None:
            return publish_plugged(plan, progress, record, lambda: (self._attempts_of(progress), []))

        def hand_over(writer: Writer) -> WriteReport:
            for attempt in self._build(progress):
                writer.add_attempt(attempt)
            return writer.report()

        return build_and_publish(plan, options, progress, record, hand_over, take_back=self._take_back)

    def _settle(self) -> None:
        """How many shards, and which."""
        plan, config = self._plan, self._config
        if isinstance(config, HashShardedWriteConfig) and plan.num_dbs == 0:
            assert config.sharding.max_keys_per_shard is not None
            rows = self._job.count_rows()
            plan.settle(max(1, math.ceil(rows / config.sharding.max_keys_per_shard)), None)
        if plan.cel is not None:
            self._settle_cel()
        plan.sharded()

    def _settle_cel(self) -> None:
        plan = self._plan
        assert plan.cel is not None
        if plan.cel["mode"] != "categorical":
            columns = [self._input.key_col, *(name for name in plan.cel["columns"] if name in self._job.columns)]
            find = FindShards(self._input.key_col, plan.cel, plan.options.on_bad_row == "skip")
            found = {value for some in self._job.find(find, list(dict.fromkeys(columns))) for value in some}
            if plan.cel["mode"] == "inferred":
                plan.cel = {**plan.cel, "mode": "categorical", "values": sorted(found, key=_by_type)}
                found = set()
        else:
            found = set()
        shards = native.cel_shards(plan.cel)
        try:
            plan.settle(*shards.seal(found, max(found, default=-1) + 1))
        except UnknownRoutingTokenError as error:
            raise ShardAssignmentError(str(error)) from None

    def _build(self, progress: Progress) -> list[Attempt]:
        plan, input, job = self._plan, self._input, self._job
        shuffle: ShuffleOptions = {
            "num_dbs": plan.num_dbs,
            "key_encoding": plan.config.kv.key_encoding.value,
            "block_bytes": block_bytes(plan.num_dbs, job.blocks_at_once),
            "leave_out": plan.options.on_bad_row == "skip",
            "cel": plan.cel,
        }
        backend = (native_options(plan) or {}).get("backend")
        if backend is not None:
            shuffle["backend"] = backend
        route = RouteRows(input.key_col, input.value_spec, shuffle, what=job.what)
        if self._rows_of is not None:
            route = replace(route, rows_of=self._rows_of)
        parts = {name: getattr(plan.config, name) for name in ("storage", "output", "kv", "retry", "rate_limits")}
        build = BuildShards(
            config=BaseShardedWriteConfig(**parts),
            run_id=plan.run_id,
            num_dbs=plan.num_dbs,
            key_col=input.key_col,
            cel=plan.cel,
            memory_bytes=plan.options.memory_bytes or TASK_MEMORY_BYTES,
            sort_rows=job.sort_rows,
            resume=plan.options.resume,
            reuse_unchanged=plan.options.reuse_unchanged,
            what=job.what,
        )
        columns = needed_columns(input, job.columns, () if plan.cel is None else plan.cel["columns"])
        progress.phase("building", shards_total=plan.num_dbs)
        seen: set[int] = set()
        attempts = []
        with closing(job.build(route, build, columns)) as built:
            for attempt in built:
                plan.bad_rows += attempt.pop("bad_rows", 0)
                if attempt["row_count"] == 0:
                    continue  # nothing is stored: it tells of these
                if attempt["db_id"] in seen:
                    raise ShardCoverageError(f"shard {attempt['db_id']} was built twice, each time of a part of its rows")
                seen.add(attempt["db_id"])
                attempts.append(attempt)
                progress.written(attempt["row_count"], attempt["db_bytes"])
                progress.shard_done()
        return sorted(attempts, key=lambda attempt: attempt["db_id"])

    def _attempts_of(self, progress: Progress) -> list[ShardAttempt]:
        try:
            attempts = self._build(progress)
        except BaseException:
            self._take_back()
            raise
        log_shards(self._plan, attempts)
        return [attempt_of(one) for one in attempts]

    @property
    def _own_folder(self) -> str | None:
        """Where the tasks store; None: the run id was given, so others may have published something there."""
        output = self._plan.config.output
        return None if output.run_id else join_s3(self._plan.s3_prefix, output.shard_prefix, f"run_id={self._plan.run_id}")

    def _take_back(self) -> None:
        """What tasks stored, as far as that works."""
        if self._own_folder is not None:
            _publish.delete_attempts(self._plan, [self._own_folder], "run_taken_back")

    def _delete_losers(self, kept: set[str | None]) -> None:
        """Tries of tasks that the engine gave up or ran twice, as far as that works: of those that died nobody has heard."""
        plan, folder = self._plan, self._own_folder
        if folder is None or (plan.config.manifest.store is not None and not is_built_in(self._config)):
            return  # with both of the caller's the prefix may be no place at all
        for path, count in _publish.next_attempts(plan, new_run=True).items():
            attempts = {join_s3(folder, path, f"attempt={number:02d}") for number in range(count)}
            _publish.delete_attempts(plan, sorted(attempts - kept))


def _by_type(value: Any) -> tuple[str, Any]:
    """Integers by size, texts by code point; the engine refuses a mixture."""
    return type(value).__name__, value
