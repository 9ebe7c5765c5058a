"""What a write needs of Dask: partitions as Arrow data, its shuffle, and its errors in the package's terms."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import dask
import pandas as pd
import pyarrow as pa
from dask.callbacks import Callback

from shardyfusion._storage_errors import MissingColumnError
from shardyfusion.errors import ConfigValidationError, ShardyfusionError
from shardyfusion.writer._failures import gave_up, raised_in_task
from shardyfusion.writer._progress import raise_if_set
from shardyfusion.writer._tasks import BuildShards, FindShards, KeptBlocks, RouteRows, Task
from shardyfusion.writer.dask._exchange import Exchange, Exchanging, LostBlocksError, Piece, Pieces

if TYPE_CHECKING:
    from shardyfusion._native import Attempt

_BLOCKS_AT_ONCE = 32
_BATCH_ROWS = 65_536
_PARTITIONS_AHEAD = 4  # that come to the driver together
_LOOK_SECONDS = 0.2  # between looks at the cancel event
_STOP_SECONDS = 10.0  # for tasks that were told to end


# ---------------------------------------------------------------- in tasks


def _batches(frame: pd.DataFrame, partition: int) -> list[Any]:
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).to_batches(_BATCH_ROWS)  # type: ignore[no-any-return]
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise ConfigValidationError(f"partition {partition}: {': '.join(str(part) for part in error.args)}") from error


def route(work: RouteRows, exchange: Exchange, frame: pd.DataFrame, partition: int) -> dict[int, Piece]:
    """Where the blocks of each shard lie. Nobody else may have been at the work before, for all that a task of Dask knows."""
    raise_if_set(exchange)
    return exchange.store(partition, work(_batches(frame, partition), Task(partition)))


def route_to_driver(work: RouteRows, frame: pd.DataFrame, partition: int) -> tuple[int, list[bytes]]:
    """Blocks alone: all are of one shard."""
    routed = work(_batches(frame, partition), Task(partition))
    return partition, [block for blocks in routed for block in blocks.column(1).to_pylist()]


def find(work: FindShards, frame: pd.DataFrame, partition: int) -> list[Any]:
    return work(_batches(frame, partition), Task(partition))


def build(work: BuildShards, exchange: Exchange, pieces: Pieces, shard: int) -> list[Attempt] | LostBlocksError:
    """An error that is given back is one that the driver can do something about."""
    raise_if_set(exchange)
    try:
        return work(KeptBlocks(lambda: exchange.read(pieces.of_shard)), Task(shard), exchange)
    except LostBlocksError as error:
        raise_if_set(exchange)
        return error


# ---------------------------------------------------------------- on the driver


def missing_key_column(name: str, columns: list[str]) -> str:
    return f"Key column `{name}` not found in DataFrame columns: {columns}"


class DaskJob:
    """Rows of a data frame."""

    writer_type = "dask"
    what = "Shard write"
    blocks_at_once = _BLOCKS_AT_ONCE

    def __init__(self, ddf: Any, sort_rows: bool, cancel: threading.Event | None) -> None:
        self._ddf = ddf
        self._cancel = cancel
        self.columns: Sequence[str] = [str(name) for name in ddf.columns]
        self.sort_rows = sort_rows

    def count_rows(self) -> int:
        with task_errors():
            return len(self._ddf)

    def find(self, task: FindShards, columns: list[str]) -> Iterable[list[Any]]:
        work = dask.delayed(task, traverse=False)
        with task_errors():
            return list(self._results(find, {number: (work, part) for number, part in self.partitions(columns)}))

    def build(self, route_rows: RouteRows, build_shards: BuildShards, columns: list[str] | None) -> Generator[Attempt]:
        with task_errors(), Exchanging(_client(), build_shards.config.output.local_root) as exchanging:
            exchange = dask.delayed(exchanging.exchange, traverse=False)
            work, builder = dask.delayed(route_rows, traverse=False), dask.delayed(build_shards, traverse=False)
            parts = dict(self.partitions(columns))
            pieces: dict[int, dict[int, Piece]] = {shard: {} for shard in range(build_shards.num_dbs)}  # by shard that is to be built, and partition
            to_route = set(parts)
            for _ in range(1 + dask.config.get("distributed.scheduler.allowed-failures", 3)):
                for some in self._results(route, {number: (work, exchange, parts[number]) for number in to_route}):
                    for shard in some.keys() & pieces.keys():
                        pieces[shard][some[shard].partition] = some[shard]
                lost = dict[str | None, LostBlocksError]()
                todo = {shard: (builder, exchange, Pieces(list(parts_of.values()))) for shard, parts_of in pieces.items() if parts_of}
                for result in self._results(build, todo, exchanging.stop):
                    if isinstance(result, LostBlocksError):
                        lost[result.worker] = result
                        continue
                    for attempt in result:
                        del pieces[attempt["db_id"]]
                        yield attempt
                if not lost:
                    return
                to_route = {piece.partition for some in pieces.values() for piece in some.values() if piece.worker in lost}
            raise gave_up("Dask", next(iter(lost.values())))

    def _results(
        self, function: Any, tasks: dict[int, tuple[Any, ...]], stop: Callable[[], None] = lambda: None
    ) -> Iterator[Any]:
        """Of tasks by number (which they are given last), each when it is there. When this is left with an exception, `stop` is called
        and tasks that run have ended: then none stores anything behind whoever deletes what is stored."""
        name = f"shardyfusion-{function.__name__}-{uuid.uuid4().hex}"  # Dask's pages show it without its end
        delayed = [dask.delayed(function, pure=False)(*given, at, dask_key_name=(name, at)) for at, given in tasks.items()]
        client = _client()
        if client is None:
            with Callback(posttask=lambda *_: raise_if_set(self._cancel)):
                results = dask.compute(*delayed)
            yield from results
            return
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        running = client.compute(delayed)
        for future in running:
            future.add_done_callback(done.put)
        left = len(running)
        try:
            while left > 0:
                raise_if_set(self._cancel)
                with suppress(queue.Empty):
                    future = done.get(timeout=_LOOK_SECONDS)
                    left -= 1
                    yield future.result()
        finally:
            if left > 0:
                stop()
                until = time.monotonic() + _STOP_SECONDS
                with suppress(queue.Empty):
                    for _ in range(left):
                        done.get(timeout=max(0.0, until - time.monotonic()))
                client.cancel(running)

    def partitions(self, columns: list[str] | None) -> Iterator[tuple[int, Any]]:
        """Of the frame's columns, whose names are texts from then on."""
        names = {str(name): name for name in self._ddf.columns}
        for name in columns or ():
            if name not in names and name not in self._ddf.columns:
                raise MissingColumnError(missing_key_column(name, list(names)))
        chosen = self._ddf if columns is None else self._ddf[[names.get(name, name) for name in columns]]
        return enumerate(chosen.to_delayed())


class SingleDbJob(DaskJob):
    """Rows that come to the driver, in order, which builds the one shard."""

    what = "Single-db write"

    def __init__(self, ddf: Any, prefetch: bool, sort_rows: bool, cancel: threading.Event | None) -> None:
        super().__init__(ddf, sort_rows, cancel)
        self._at_once = _PARTITIONS_AHEAD if prefetch else 1

    def build(self, route_rows: RouteRows, build_shards: BuildShards, columns: list[str] | None) -> Generator[Attempt]:
        yield from build_shards(self._blocks(route_rows, columns), Task(0), self._cancel)

    def _blocks(self, route_rows: RouteRows, columns: list[str] | None) -> Iterator[list[bytes]]:
        work = dask.delayed(route_rows, traverse=False)
        partitions = self.partitions(columns)
        while some := list(islice(partitions, self._at_once)):
            with task_errors():
                arrived = dict(self._results(route_to_driver, {number: (work, part) for number, part in some}))
            for number, _ in some:
                yield arrived.pop(number)


def _client() -> Any:
    """Of the cluster that is the present scheduler, if one is."""
    client = getattr(dask.base.get_scheduler(), "__self__", None)
    return client if type(client).__module__.startswith("distributed.") else None


@contextmanager
def task_errors() -> Iterator[None]:
    """What tasks raised, whatever Dask makes of it; of tasks that it gave up its own word; other errors of Dask as they are."""
    try:
        yield
    except ShardyfusionError:
        raise
    except Exception as error:
        raised = raised_in_task(error)
        if raised is not None:
            raise raised from None
        if type(error).__name__ in ("KilledWorker", "NoValidWorkerError", "CommClosedError"):
            raise gave_up("Dask", error) from error
        if isinstance(error, ModuleNotFoundError) and error.name in ("shardyfusion", "pyarrow"):
            raise ConfigValidationError(f"Dask's workers have no {error.name}: install the wheel there") from error
        raise
