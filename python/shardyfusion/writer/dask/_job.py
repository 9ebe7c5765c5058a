"""What a write needs of Dask: partitions as Arrow data, its shuffle, and its errors in the package's terms."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import dask
import pandas as pd
import pyarrow as pa

from shardyfusion.errors import ConfigValidationError, ShardyfusionError
from shardyfusion.writer._failures import gave_up, raised_in_task
from shardyfusion.writer._tasks import BLOCK, SHARD, BuildShards, FindShards, KeptBlocks, RouteRows, Task

if TYPE_CHECKING:
    from shardyfusion._native import Attempt

_BLOCKS_AT_ONCE = 128
_BATCH_ROWS = 65_536
_PARTITIONS_AHEAD = 4  # that come to the driver together
_BLOCKS = pd.DataFrame({SHARD: pd.Series([], dtype="int32"), BLOCK: pd.Series([], dtype=pd.ArrowDtype(pa.binary()))})


# ---------------------------------------------------------------- in tasks


def _batches(frame: pd.DataFrame, partition: int) -> list[Any]:
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).to_batches(_BATCH_ROWS)  # type: ignore[no-any-return]
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise ConfigValidationError(f"partition {partition}: {': '.join(str(part) for part in error.args)}") from error


def _routed(work: RouteRows, frame: pd.DataFrame, partition: int) -> pa.Table:
    """Nobody else may have been at the work before, for all that a task of Dask knows."""
    blocks = list(work(_batches(frame, partition), Task(partition, first=False)))
    return pa.Table.from_batches(blocks, pa.schema([(SHARD, pa.int32()), (BLOCK, pa.binary())]))


def route(work: RouteRows, places: Sequence[int], frame: pd.DataFrame, partition: int) -> pd.DataFrame:
    """Blocks, each beside the place of its shard."""
    table = _routed(work, frame, partition)
    placed = pa.array(places, pa.int32()).take(table.column(0).combine_chunks())
    return pd.DataFrame({SHARD: placed.to_pandas(), BLOCK: pd.Series(table.column(1), dtype=pd.ArrowDtype(pa.binary()))})


def route_to_driver(work: RouteRows, frame: pd.DataFrame, partition: int) -> list[bytes]:
    """Blocks alone: all are of one shard."""
    return _routed(work, frame, partition).column(1).to_pylist()  # type: ignore[no-any-return]


def find(work: FindShards, frame: pd.DataFrame, partition: int) -> list[Any]:
    return work(_batches(frame, partition), Task(partition, first=False))


def build(work: BuildShards, blocks: pd.DataFrame, shard: int) -> list[Attempt]:
    column = pa.array(blocks[BLOCK].array)
    return work(KeptBlocks(column, _BLOCKS_AT_ONCE), Task(shard, first=False)) if len(column) > 0 else []


def own_partitions(count: int) -> list[int]:
    """For each shard a number that Dask's hash partitioning puts into the partition of the shard's own number, so that each shard has
    a task to itself. Where Dask hashes in another way shards share tasks, no more."""
    places: dict[int, int] = {}
    begin = 0
    while len(places) < count and begin < 64 * count + 1024:
        numbers = pd.Series(range(begin, begin + 4 * count), dtype="int32")
        hashed = pd.util.hash_pandas_object(numbers.to_frame(), index=False) % count
        for number, partition in zip(numbers, hashed, strict=True):
            places.setdefault(int(partition), int(number))
        begin += 4 * count
    if len(places) < count:
        return list(range(count))
    return [places[shard] for shard in range(count)]


# ---------------------------------------------------------------- on the driver


class DaskJob:
    """Rows of a data frame."""

    writer_type = "dask"
    what = "Shard write"
    blocks_at_once = _BLOCKS_AT_ONCE

    def __init__(self, ddf: Any, sort_rows: bool) -> None:
        self._ddf = ddf
        self.columns: Sequence[str] = [str(name) for name in ddf.columns]
        self.sort_rows = sort_rows
        self._token = uuid.uuid4().hex  # names of tasks are a cluster's, which may have other drivers

    def count_rows(self) -> int:
        with task_errors():
            return len(self._ddf)

    def find(self, task: FindShards, columns: list[str]) -> Iterable[list[Any]]:
        work = dask.delayed(task, traverse=False)
        with task_errors():
            return list(dask.compute(*(self._named(find, number)(work, part, number) for number, part in self.partitions(columns))))

    def build(self, route_rows: RouteRows, build_shards: BuildShards, columns: list[str] | None) -> Iterable[Attempt]:
        from dask.dataframe import from_delayed

        count = build_shards.num_dbs
        work, places = dask.delayed(route_rows, traverse=False), dask.delayed(own_partitions(count), traverse=False)
        with task_errors():
            parts = [self._named(route, number)(work, places, part, number) for number, part in self.partitions(columns)]
            blocks = from_delayed(parts, meta=_BLOCKS, verify_meta=False)
            shuffled = blocks.shuffle(SHARD, npartitions=count, ignore_index=True, shuffle_method=_method())
            builder = dask.delayed(build_shards, traverse=False)
            tasks = (self._named(build, number)(builder, part, number) for number, part in enumerate(shuffled.to_delayed()))
            return [attempt for some in dask.compute(*tasks) for attempt in some]

    def partitions(self, columns: list[str] | None) -> Iterator[tuple[int, Any]]:
        return enumerate((self._ddf if columns is None else self._ddf[columns]).to_delayed())

    def _named(self, function: Any, partition: int) -> Any:
        """A task, which has this name in Dask's own pages."""

        def call(*arguments: Any) -> Any:
            name = f"shardyfusion-{function.__name__}-{self._token}"
            return dask.delayed(function, pure=False)(*arguments, dask_key_name=(name, partition))

        return call


class SingleDbJob(DaskJob):
    """Rows that come to the driver, in order, which builds the one shard."""

    what = "Single-db write"

    def __init__(self, ddf: Any, prefetch: bool, sort_rows: bool) -> None:
        super().__init__(ddf, sort_rows)
        self._at_once = _PARTITIONS_AHEAD if prefetch else 1

    def build(self, route_rows: RouteRows, build_shards: BuildShards, columns: list[str] | None) -> Iterable[Attempt]:
        return build_shards(self._blocks(route_rows, columns), Task(0, first=False))

    def _blocks(self, route_rows: RouteRows, columns: list[str] | None) -> Iterator[list[bytes]]:
        work = dask.delayed(route_rows, traverse=False)
        partitions = self.partitions(columns)
        while some := list(islice(partitions, self._at_once)):
            with task_errors():
                arrived = dask.compute(*(self._named(route_to_driver, number)(work, part, number) for number, part in some))
            yield from arrived


def _method() -> str:
    """Across processes Dask's own, which keeps what it moves on disk; in one process nothing has to be moved."""
    scheduler = getattr(dask.base.get_scheduler(), "__self__", None)
    return "p2p" if type(scheduler).__module__.startswith("distributed.") else "tasks"


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
