"""What a write needs of Ray: the Arrow blocks of a dataset, tasks whose results stay in the object store, and its errors in the
package's terms."""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data.block import BlockAccessor
from ray.experimental import internal_kv

from shardyfusion.errors import ConfigValidationError, ShardyfusionError
from shardyfusion.writer._failures import gave_up, raised_in_task
from shardyfusion.writer._progress import raise_if_set
from shardyfusion.writer._tasks import BLOCK, SHARD, BuildShards, FindShards, KeptBlocks, RouteRows, Task

if TYPE_CHECKING:
    from shardyfusion._native import Attempt

_BLOCKS_AT_ONCE = 32
_BATCH_ROWS = 65_536
_ROUTED_BYTES = 128 << 20  # of rows for a task; Ray's own blocks are about as large
_PIECE_BYTES = 4 << 20  # at least, on average: very small results would all lie in the driver's memory
_TASKS_PER_CPU = 2  # that wait or run
_MOST_RETRIES = 3  # of a task whose process dies
_LOOK_SECONDS = 0.2  # between looks at the cancel event
_STOP_SECONDS = 10.0  # for tasks that were told to end


# ---------------------------------------------------------------- in tasks


class Stop:
    """What a driver sets for its tasks, wherever they run. (`ray.cancel` may end the driver's process: a task that ends meanwhile is
    an error that Ray aborts on.)"""

    def __init__(self) -> None:
        self._key = f"shardyfusion-stop-{uuid.uuid4().hex}".encode()
        self._found = False
        self._next = 0.0

    def set(self) -> None:
        internal_kv._internal_kv_put(self._key, b"")

    def forget(self) -> None:
        internal_kv._internal_kv_del(self._key)

    def is_set(self) -> bool:
        if not self._found and time.monotonic() >= self._next:
            self._found = bool(internal_kv._internal_kv_exists(self._key))
            self._next = time.monotonic() + _LOOK_SECONDS
        return self._found


def _batches(blocks: Iterable[Any], stop: Stop) -> Iterator[Any]:
    raise_if_set(stop)
    for block in blocks:
        for batch in BlockAccessor.for_block(block).to_arrow().to_batches(_BATCH_ROWS):
            raise_if_set(stop)
            yield batch


def route(work: RouteRows, stop: Stop, groups: int, number: int, *blocks: Any) -> Iterator[Any]:
    """Blocks of rows by groups of shards (the remainder of the shard's number), a table each; last, which shards have rows."""
    schema = pa.schema([(SHARD, pa.int32()), (BLOCK, pa.binary())])
    by_group = defaultdict[int, list[Any]](list)
    found = set[int]()
    for routed in work(_batches(blocks, stop), Task(number)):
        shards = routed.column(0).to_numpy()
        found.update(np.unique(shards).tolist())
        for group in np.unique(shards % groups).tolist():
            by_group[group].append(routed.take(pa.array(np.flatnonzero(shards % groups == group))))
    for group in range(groups):
        yield pa.Table.from_batches(by_group.pop(group, []), schema)
    yield sorted(found)


def find(work: FindShards, stop: Stop, number: int, *blocks: Any) -> list[Any]:
    return work(_batches(blocks, stop), Task(number))


def build(work: BuildShards, stop: Stop, shard: int, pieces: list[Any]) -> list[Attempt]:
    """`pieces` are references: one piece at a time is held, and lies in the object store."""

    def read() -> Iterator[list[bytes]]:
        for piece in pieces:
            yield from _blocks_of(shard, ray.get(piece))

    raise_if_set(stop)
    return work(KeptBlocks(read), Task(shard), stop)


def _blocks_of(shard: int, piece: pa.Table) -> Iterator[list[bytes]]:
    for batch in piece.to_batches(_BLOCKS_AT_ONCE):
        rows = np.flatnonzero(batch.column(0).to_numpy() == shard)
        if len(rows) > 0:
            yield batch.column(1).take(pa.array(rows)).to_pylist()


# ---------------------------------------------------------------- on the driver


class RayJob:
    """Rows of a dataset."""

    writer_type = "ray"
    what = "Shard write"
    blocks_at_once = _BLOCKS_AT_ONCE

    def __init__(self, ds: Any, sort_rows: bool, cancel: threading.Event | None) -> None:
        self._ds = ds
        self._cancel = cancel
        with task_errors():
            self.columns: Sequence[str] = list(ds.columns() or ())
        self.sort_rows = sort_rows

    def count_rows(self) -> int:
        with task_errors():
            return int(self._ds.count())

    def find(self, task: FindShards, columns: list[str]) -> Iterable[list[Any]]:
        with task_errors(), _Tasks(self._cancel) as tasks:
            work = ray.put(task)
            for number, (refs, _) in enumerate(self._inputs(columns)):
                tasks.start(find, work, number, *refs)
            return [ray.get(done) for done in tasks.ended()]

    def build(self, route_rows: RouteRows, build_shards: BuildShards, columns: list[str] | None) -> Generator[Attempt]:
        with task_errors(), _Tasks(self._cancel) as tasks:
            pieces = self._routed(tasks, route_rows, build_shards.num_dbs, columns)
            work = ray.put(build_shards)
            while pieces:
                shard, some = pieces.popitem()
                tasks.start(build, work, shard, some, scheduling_strategy="SPREAD")
            for done in tasks.ended():
                yield from ray.get(done)

    def _routed(
        self, tasks: _Tasks, work: RouteRows, num_dbs: int, columns: list[str] | None
    ) -> dict[int, list[Any]]:
        """By shard, references to all tables that have blocks of it."""
        shared, results, pieces = ray.put(work), dict[Any, list[Any]](), defaultdict[int, list[Any]](list)

        def take(most: int) -> None:
            for shards in tasks.ended(most):
                tables = results.pop(shards)
                for shard in ray.get(shards):
                    pieces[shard].append(tables[shard % len(tables)])

        at_once = _TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
        for number, (refs, size) in enumerate(self._inputs(columns)):
            take(at_once)  # the dataset makes more rows as fast as somebody takes them
            groups = max(1, min(num_dbs, size // _PIECE_BYTES))
            *tables, shards = tasks.start(route, shared, groups, number, *refs, num_returns=groups + 1)
            results[shards] = tables
        take(0)
        return pieces

    def _inputs(self, columns: list[str] | None) -> Iterator[tuple[list[Any], int]]:
        """References to blocks of rows, as many as make a task, and the bytes of them."""
        if not self.columns:  # no rows, and so no schema
            return
        refs: list[Any] = []
        size = 0
        for bundle in self._selected(columns).iter_internal_ref_bundles():
            raise_if_set(self._cancel)
            if refs and size + bundle.size_bytes() > _ROUTED_BYTES:
                yield refs, size
                refs, size = [], 0
            refs += bundle.block_refs
            size += bundle.size_bytes()
        if refs:
            yield refs, size

    def _selected(self, columns: list[str] | None) -> Any:
        return self._ds if columns is None else self._ds.select_columns(columns)


class _Tasks:
    """Those that run for one write. When it is left with an exception, they have ended: then none stores anything behind whoever
    deletes what is stored."""

    def __init__(self, cancel: threading.Event | None) -> None:
        self._cancel = cancel
        self._stop = Stop()
        self._running: list[Any] = []

    def __enter__(self) -> _Tasks:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._running:
            self._stop.set()
            ray.wait(self._running, num_returns=len(self._running), timeout=_STOP_SECONDS, fetch_local=False)
            self._stop.forget()

    def start(self, function: Any, work: Any, *arguments: Any, num_returns: int = 1, **more: Any) -> Any:
        """What it returns. It has this name in Ray's own pages."""
        raise_if_set(self._cancel)
        task = ray.remote(function).options(
            name=f"shardyfusion_{function.__name__}", max_retries=_MOST_RETRIES, num_returns=num_returns, **more
        )
        results = task.remote(work, self._stop, *arguments)
        self._running.append(results if num_returns == 1 else results[-1])
        return results

    def ended(self, most: int = 0) -> Iterator[Any]:
        """The last result of each, when it is there, until so many at most are left."""
        while len(self._running) > most:
            yield self.ended_of(self._running)

    def ended_of(self, some: list[Any]) -> Any:
        """The first of some that is there."""
        while True:
            raise_if_set(self._cancel)
            done, _ = ray.wait(some, timeout=_LOOK_SECONDS, fetch_local=False)
            if done:
                self._running.remove(done[0])
                return done[0]


class SingleDbJob(RayJob):
    """Rows that come to the driver, in order, which builds the one shard."""

    what = "Single-db write"

    def __init__(self, ds: Any, sort_by: str | None, prefetch: bool, cancel: threading.Event | None) -> None:
        super().__init__(ds, False, cancel)
        self._sort_by = sort_by
        self._ahead = int(prefetch)

    def build(self, route_rows: RouteRows, build_shards: BuildShards, columns: list[str] | None) -> Generator[Attempt]:
        yield from build_shards(self._blocks(route_rows, columns), Task(0), self._cancel)

    def _selected(self, columns: list[str] | None) -> Any:
        selected = super()._selected(columns)
        return selected if self._sort_by is None else selected.sort(self._sort_by)

    def _blocks(self, work: RouteRows, columns: list[str] | None) -> Iterator[list[bytes]]:
        with task_errors(), _Tasks(self._cancel) as tasks:
            shared, ahead = ray.put(work), deque[tuple[Any, Any]]()
            for number, (refs, _) in enumerate(self._inputs(columns)):
                ahead.append(tasks.start(route, shared, 1, number, *refs, num_returns=2))
                if len(ahead) > self._ahead:
                    yield from self._first(tasks, *ahead.popleft())
            while ahead:
                yield from self._first(tasks, *ahead.popleft())

    @staticmethod
    def _first(tasks: _Tasks, piece: Any, ended: Any) -> Iterator[list[bytes]]:
        tasks.ended_of([ended])
        yield from _blocks_of(0, ray.get(piece))


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
