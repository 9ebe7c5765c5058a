"""What a write needs of Ray Data: its Arrow blocks, its hash shuffle, and its errors in the package's terms."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from shardyfusion.errors import ConfigValidationError, ShardyfusionError
from shardyfusion.writer._failures import gave_up, raised_in_task
from shardyfusion.writer._tasks import BLOCK, SHARD, BuildShards, FindShards, KeptBlocks, RouteRows, Task

if TYPE_CHECKING:
    from shardyfusion._native import Attempt

_BLOCKS_AT_ONCE = 128
_BATCH_ROWS = 65_536
_MOST_PARTITIONS = 1000
_MOST_RETRIES = 3  # of a task whose process dies; Ray's own answer is to go on for ever
_PARTITIONS_PER_SHARD = 2  # shards are hashed to them; with more each has a task to itself more often, and empty ones cost little

_strategy_lock = threading.Lock()
_strategy_holders = 0
_strategy_before: Any = None


# ---------------------------------------------------------------- in tasks


def _task(partition: int | None = None) -> Task:
    """Nobody else may have been at the work before, for all that a task of Ray knows. Its place among its like is for messages."""
    if partition is None:
        try:
            from ray.data._internal.execution.interfaces.task_context import TaskContext

            context = TaskContext.get_current()
            partition = 0 if context is None else context.task_idx
        except ImportError:
            partition = 0
    return Task(partition, first=False)


def _result(value: Any) -> pa.Table:
    return pa.table({"result": pa.array([json.dumps(value)], pa.string())})


@dataclass(frozen=True)
class Route:
    work: RouteRows

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        empty = True
        for blocks in self.work(rows.to_batches(_BATCH_ROWS), _task()):
            empty = False
            yield pa.Table.from_batches([blocks])
        if empty:
            yield pa.table({SHARD: pa.array([], pa.int32()), BLOCK: pa.array([], pa.binary())})


@dataclass(frozen=True)
class Find:
    work: FindShards

    def __call__(self, rows: pa.Table) -> pa.Table:
        return _result(self.work(rows.to_batches(_BATCH_ROWS), _task()))


@dataclass(frozen=True)
class Build:
    work: BuildShards

    def __call__(self, blocks: pa.Table) -> pa.Table:
        kept = KeptBlocks(blocks.column(BLOCK), _BLOCKS_AT_ONCE)
        return _result(self.work(kept, _task(blocks.column(SHARD)[0].as_py())) if len(kept) > 0 else [])


def _function(work: Route | Find | Build) -> Any:
    """A plain one, whose name Ray shows in its own pages."""

    def call(table: pa.Table) -> Any:
        return work(table)

    call.__name__ = call.__qualname__ = f"shardyfusion_{type(work).__name__.lower()}"
    return call


# ---------------------------------------------------------------- on the driver


class RayJob:
    """Rows of a dataset."""

    writer_type = "ray"
    what = "Shard write"
    blocks_at_once = _BLOCKS_AT_ONCE

    def __init__(self, ds: Any, sort_rows: bool) -> None:
        self._ds = ds
        with task_errors():
            self.columns: Sequence[str] = list(ds.columns() or ())
        self.sort_rows = sort_rows

    def count_rows(self) -> int:
        with task_errors():
            return int(self._ds.count())

    def find(self, task: FindShards, columns: list[str]) -> Iterable[list[Any]]:
        with task_errors():
            return _results(self._mapped(columns, Find(task)))

    def build(self, route: RouteRows, build: BuildShards, columns: list[str] | None) -> Iterable[Attempt]:
        partitions = min(_PARTITIONS_PER_SHARD * build.num_dbs, max(build.num_dbs, _MOST_PARTITIONS))
        with task_errors(), hash_shuffle():
            blocks = self._mapped(columns, Route(route))
            groups = None if blocks is None else blocks.groupby(SHARD, num_partitions=partitions)
            built = None if groups is None else _retried(groups.map_groups, Build(build))
            return [attempt for some in _results(built) for attempt in some]

    def _mapped(self, columns: list[str] | None, function: Any) -> Any:
        if not self.columns:  # no rows, and so no schema
            return None
        selected = self._ds if columns is None else self._ds.select_columns(columns)
        return _retried(selected.map_batches, function, batch_size=None)


class SingleDbJob(RayJob):
    """Rows that come to the driver, in order, which builds the one shard."""

    what = "Single-db write"

    def __init__(self, ds: Any, prefetch: bool) -> None:
        super().__init__(ds, False)
        self._prefetch = prefetch

    def build(self, route: RouteRows, build: BuildShards, columns: list[str] | None) -> Iterable[Attempt]:
        return build(self._blocks(route, columns), Task(0, first=False))

    def _blocks(self, route: RouteRows, columns: list[str] | None) -> Iterator[list[bytes]]:
        routed = self._mapped(columns, Route(route))
        if routed is None:
            return
        with task_errors():
            for some in routed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=int(self._prefetch)):
                yield some.column(BLOCK).to_pylist()


def _retried(apply: Any, work: Route | Find | Build, **more: Any) -> Any:
    """The dataset of what the work makes of each table. Ray has no other way yet to bound retries than the one that it calls
    deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        return apply(_function(work), batch_format="pyarrow", zero_copy_batch=True, max_retries=_MOST_RETRIES, **more)


def _results(ds: Any) -> list[Any]:
    return [] if ds is None else [json.loads(row["result"]) for row in ds.take_all()]


@contextmanager
def hash_shuffle() -> Iterator[None]:
    """Rows of one key come together by hash, not by sorting all of them. The setting is the process's: the first write that needs it
    sets it, the last one puts it back."""
    from ray.data import DataContext
    from ray.data.context import ShuffleStrategy

    global _strategy_holders, _strategy_before
    context = DataContext.get_current()
    with _strategy_lock:
        if _strategy_holders == 0:
            _strategy_before = context.shuffle_strategy
            context.shuffle_strategy = ShuffleStrategy.HASH_SHUFFLE
        _strategy_holders += 1
    try:
        yield
    finally:
        with _strategy_lock:
            _strategy_holders -= 1
            if _strategy_holders == 0:
                context.shuffle_strategy = _strategy_before


@contextmanager
def task_errors() -> Iterator[None]:
    """What tasks raised, whatever Ray makes of it; of tasks that it gave up its own word; other errors of Ray as they are."""
    try:
        yield
    except ShardyfusionError:
        raise
    except Exception as error:
        raised = raised_in_task(error)
        if raised is not None:
            raise raised from None
        text = str(error)
        if "No module named 'shardyfusion'" in text or "No module named 'pyarrow'" in text:
            raise ConfigValidationError("Ray's workers have no shardyfusion or no pyarrow: install the wheel there") from error
        if any(name in text or name == type(error).__name__ for name in ("WorkerCrashedError", "ActorDiedError", "OutOfMemoryError")):
            raise gave_up("Ray", error) from error
        raise
