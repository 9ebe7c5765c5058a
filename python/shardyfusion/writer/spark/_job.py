"""What a write needs of Spark: its own tasks, its exchange, and its errors in the package's terms."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardyfusion import errors
from shardyfusion.errors import ConfigValidationError, ShardWriteError, ShardyfusionError
from shardyfusion.writer._progress import raise_if_set
from shardyfusion.writer._tasks import BATCH_BLOCK_BYTES, BLOCK, SHARD, BuildShards, FindShards, RouteRows, Task

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from shardyfusion._native import Attempt

_ROWS_CONF, _BYTES_CONF = "spark.sql.execution.arrow.maxRecordsPerBatch", "spark.sql.execution.arrow.maxBytesPerBatch"
_BATCH_BLOCKS = 128
_ROWS_WITHOUT_BYTES = 1024  # of a batch, where Spark (3.5) cannot bound its bytes
_LOOK_SECONDS = 0.2  # between looks at the cancel event
_RESULT = "result binary"
_MOST_OWN_PARTITIONS = 20_000  # above, several shards may share a task


# ---------------------------------------------------------------- in tasks


def _task() -> Task:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    return Task(context.partitionId(), context.attemptNumber(), context.stageId(), context.taskAttemptId())


def spark_rows(batch: Any) -> Iterable[Any]:
    """The rows of a record batch as Spark's own: by name, by attribute, and by asDict()."""
    from pyspark.sql import Row

    row = Row(*batch.schema.names)
    columns = [column.to_pylist() for column in batch.columns]
    return (row(*values) for values in zip(*columns, strict=True))


def _results(values: Iterable[Any]) -> Any:
    import pyarrow as pa  # type: ignore[import-not-found, import-untyped, unused-ignore]

    texts = [json.dumps(value).encode() for value in values]
    return pa.RecordBatch.from_arrays([pa.array(texts, pa.binary())], ["result"])


def _with_names(batches: Iterator[Any], names: Sequence[str]) -> Iterator[Any]:
    """Spark cannot hand over columns whose names have dots, so they come under others."""
    import pyarrow as pa

    return (pa.RecordBatch.from_arrays(batch.columns, names=list(names)) for batch in batches)


@dataclass(frozen=True)
class _Route:
    work: RouteRows
    names: tuple[str, ...]
    places: tuple[int, ...] | None

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        places = None if self.places is None else pa.array(self.places, pa.int32())
        for batch in self.work(_with_names(batches, self.names), _task()):
            if places is None:
                yield batch
            else:
                yield pa.RecordBatch.from_arrays([places.take(batch.column(0)), batch.column(1)], [SHARD, BLOCK])


@dataclass(frozen=True)
class _Find:
    work: FindShards
    names: tuple[str, ...]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield _results([self.work(_with_names(batches, self.names), _task())])


@dataclass(frozen=True)
class _Build:
    work: BuildShards

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield _results(self.work((batch.column(1).to_pylist() for batch in batches), _task()))


# ---------------------------------------------------------------- places


def own_partitions(count: int) -> tuple[int, ...] | None:
    """For each shard a number that Spark's hash partitioning (Murmur3 with seed 42, modulo `count`) puts into the partition of the
    shard's own number: so each shard has a task to itself. None: too many to look for."""
    if count > _MOST_OWN_PARTITIONS:
        return None
    places: dict[int, int] = {}
    number = 0
    while len(places) < count:
        places.setdefault(_signed(_murmur3(number)) % count, number)
        number += 1
    return tuple(places[shard] for shard in range(count))


def _murmur3(value: int) -> int:
    """Of one 32-bit integer, as Spark hashes an `int` column."""
    mask = 0xFFFFFFFF
    k = value * 0xCC9E2D51 & mask
    k = (k << 15 | k >> 17) & mask
    h = 42 ^ (k * 0x1B873593 & mask)
    h = (h << 13 | h >> 19) & mask
    h = (h * 5 + 0xE6546B64 & mask) ^ 4
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    return h ^ h >> 16


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


# ---------------------------------------------------------------- on the driver


class SparkJob:
    """Rows of a data frame."""

    writer_type = "spark"
    what = "Shard write"

    def __init__(self, df: DataFrame, sort_rows: bool, title: str, cancel: threading.Event | None) -> None:
        self._df = df
        self._spark = df.sparkSession
        self._title = title
        self._cancel = cancel
        self.columns: Sequence[str] = df.columns if is_case_sensitive(self._spark) else _AnyCase(df.columns)
        self.sort_rows = sort_rows
        self.blocks_at_once = _BATCH_BLOCKS if bounds_bytes(self._spark) else batch_rows(self._spark) or _ROWS_WITHOUT_BYTES

    def count_rows(self) -> int:
        with self._jobs("counting rows"):
            return int(self._df.count())

    def find(self, task: FindShards, columns: list[str]) -> Iterable[list[Any]]:
        found = self.selected(columns).mapInArrow(_Find(task, tuple(columns)), _RESULT)
        with self._jobs("looking for shards"):
            return [json.loads(row[0]) for row in found.collect()]

    def build(self, route: RouteRows, build: BuildShards, columns: list[str] | None) -> Generator[Attempt]:
        routed = self.routed(route, columns, own_partitions(build.num_dbs))
        built = routed.repartition(build.num_dbs, SHARD).mapInArrow(_Build(build), _RESULT)
        with self._jobs(f"{build.num_dbs} shards of run {build.run_id}"):
            results = built.collect()
        yield from (json.loads(row[0]) for row in results)

    def routed(self, route: RouteRows, columns: list[str] | None, places: tuple[int, ...] | None = None) -> DataFrame:
        names = list(self.columns) if columns is None else columns
        return self.selected(names).mapInArrow(_Route(route, tuple(names), places), f"{SHARD} int, {BLOCK} binary")

    def selected(self, columns: Sequence[str]) -> DataFrame:
        """These columns, called c0, c1, ..."""
        if list(columns) == list(self.columns):
            return self._df.toDF(*(f"c{number}" for number in range(len(columns))))
        from pyspark.sql import functions

        return self._df.select([functions.col(quoted(name)).alias(f"c{number}") for number, name in enumerate(columns)])


    @contextmanager
    def _jobs(self, what: str) -> Iterator[None]:
        """Jobs and stages have this name in Spark's own pages. They end when this is left with an exception, and when the write is
        cancelled."""
        jobs = _Jobs(self._spark, f"{self._title}: {what}")
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(jobs, ended), name="shardyfusion-spark", daemon=True)
        raise_if_set(self._cancel)
        with jobs.titled(), task_errors():
            if self._cancel is not None:
                watch.start()
            try:
                yield
            except BaseException:
                jobs.end()
                raise_if_set(self._cancel)
                raise
            finally:
                ended.set()
                if self._cancel is not None:
                    watch.join()

    def _watch(self, jobs: _Jobs, ended: threading.Event) -> None:
        assert self._cancel is not None
        while not ended.wait(_LOOK_SECONDS):
            if self._cancel.is_set():
                jobs.end()  # more than once: another job may have begun behind the last look


class _AnyCase(list[str]):
    """Names of columns, which Spark finds in whatever case they are asked for."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in (one.lower() for one in self)


class SingleDbJob(SparkJob):
    """Rows that come to the driver, which builds the one shard."""

    what = "Single-db write"

    def __init__(self, df: DataFrame, title: str, prefetch: bool, cancel: threading.Event | None) -> None:
        super().__init__(df, False, title, cancel)
        self._prefetch = prefetch
        self.blocks_at_once = 1

    def build(self, route: RouteRows, build: BuildShards, columns: list[str] | None) -> Generator[Attempt]:
        yield from build(self._blocks(route, columns, build.run_id), Task(0), self._cancel)

    def _blocks(self, route: RouteRows, columns: list[str] | None, run_id: str) -> Iterator[list[bytes]]:
        with self._jobs(f"run {run_id}"):
            for row in self.routed(route, columns).toLocalIterator(self._prefetch):
                yield [bytes(row[1])]


def batch_rows(spark: SparkSession) -> int:
    """Rows of an Arrow batch; 0: no bound."""
    return max(0, int(spark.conf.get(_ROWS_CONF) or 0))


def bounds_bytes(spark: SparkSession) -> bool:
    """Whether Spark can."""
    return bool(spark.conf.isModifiable(_BYTES_CONF))


def is_case_sensitive(spark: SparkSession) -> bool:
    return bool(spark.conf.get("spark.sql.caseSensitive") == "true")


def overrides(spark: SparkSession, given: dict[str, str] | None) -> dict[str, str]:
    """The settings of a write: what the caller says, and batches that are no larger than memory is meant for."""
    settings = dict(given or {})
    if bounds_bytes(spark):
        settings.setdefault(_BYTES_CONF, str(BATCH_BLOCK_BYTES))
    elif not 0 < batch_rows(spark) <= _ROWS_WITHOUT_BYTES:
        settings.setdefault(_ROWS_CONF, str(_ROWS_WITHOUT_BYTES))
    return settings


def quoted(name: str) -> str:
    """A column's name, dots and all."""
    return "`" + name.replace("`", "``") + "`"


class _Jobs:
    """Those that a thread starts."""

    def __init__(self, spark: SparkSession, title: str) -> None:
        self._spark = spark
        self._title = title
        self._tag = f"shardyfusion-{uuid.uuid4().hex}"
        try:
            self._context: Any = spark.sparkContext
        except Exception:  # a remote session has none here
            self._context = None

    @contextmanager
    def titled(self) -> Iterator[None]:
        if self._context is None:
            self._spark.addTag(self._tag)
            try:
                yield
            finally:
                self._spark.removeTag(self._tag)
            return
        names = ("spark.job.description", "callSite.short")
        before = [self._context.getLocalProperty(name) for name in names]
        self._context.addJobTag(self._tag)
        for name in names:
            self._context.setLocalProperty(name, self._title)
        try:
            yield
        finally:
            for name, value in zip(names, before, strict=True):
                self._context.setLocalProperty(name, value)
            self._context.removeJobTag(self._tag)

    def end(self) -> None:
        if self._context is None:
            self._spark.interruptTag(self._tag)
        else:
            self._context.cancelJobsWithTag(self._tag)


# ---------------------------------------------------------------- errors

_RAISED = re.compile(r"^(?:\s*)shardyfusion\.[\w.]*?(\w+): (.*)$", re.MULTILINE)


@contextmanager
def task_errors() -> Iterator[None]:
    """What tasks raised, of which Spark tells a text, as the package's exceptions; other errors of Spark as they are."""
    try:
        yield
    except ShardyfusionError:
        raise
    except Exception as error:
        failure = _failure_of(str(error))
        if failure is None:
            raise
        raise failure from error


def _failure_of(text: str) -> Exception | None:
    raised = _RAISED.findall(text)
    if raised:
        name, what = raised[-1]
        kind: Any = getattr(errors, name, ShardyfusionError)
        return kind(what) if isinstance(kind, type) and issubclass(kind, ShardyfusionError) else ShardyfusionError(what)
    if re.search(r"No module named '(shardyfusion|pyarrow)'|ImportError: shardyfusion\.writer\.spark needs", text):
        return ConfigValidationError(
            "the Python of Spark's executors has no shardyfusion or no pyarrow: install the wheel there, or hand it to them with "
            "spark.archives"
        )
    if "Job aborted due to stage failure" in text or "Python worker" in text:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raised = [line for line in lines if re.match(r"[\w.]+(?:Error|Exception|Exit|Interrupt|Warning)\b", line)]
        told = next((line for line in lines if "stage failure" in line), (raised or lines)[-1 if raised else 0])
        return ShardWriteError(f"Spark gave up on a task: {told}")
    return None


