"""Writing through adapters that may be anybody's, in one process a shard.

Records are read, routed and encoded here, by the caller's own functions, which need not pickle; chunks of rows travel to
the processes. With a retry policy they are also kept on disk, so that a shard that failed can be written again.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from shardyfusion._local_folder import make_local_folder
from shardyfusion._store_events import noting
from shardyfusion.config import KvWriteRateLimitConfig
from shardyfusion.errors import ShardWriteError, ShardyfusionError
from shardyfusion.metrics import MetricEvent, MetricsCollector
from shardyfusion.reader._observe import Metrics
from shardyfusion.slatedb_adapter import DbAdapterFactory
from shardyfusion.type_defs import RetryConfig
from shardyfusion.writer._limits import WriteLimits
from shardyfusion.writer._plan import Plan, ShardAttempt
from shardyfusion.writer._plugged import Buffers, rows_stored
from shardyfusion.writer._progress import Progress
from shardyfusion.writer._rows import Row

Chunk = list[tuple[bytes, bytes]]

_JOIN_SECONDS = 5.0
_sleep = time.sleep


# ---------------------------------------------------------------- inside the process


def _work(
    conn: Connection,
    factory: DbAdapterFactory,
    db_url: str,
    local_dir: Path,
    rates: KvWriteRateLimitConfig,
    collector: MetricsCollector | None,
) -> None:
    """Writes the chunks that arrive; None ends them. Answers with ("done", (db_bytes, rows)) or ("failed", error)."""
    metrics = Metrics(collector)
    limits = WriteLimits(rates, metrics if metrics.wanted else None)
    try:
        make_local_folder(local_dir)
        with noting(metrics.store_events), factory(db_url=db_url, local_dir=local_dir) as adapter:
            given = 0
            while (chunk := conn.recv()) is not None:
                given += len(chunk)
                limits.acquire(len(chunk), sum(len(key) + len(value) for key, value in chunk))
                adapter.write_batch(chunk)
            adapter.flush()
            adapter.seal()
            done = adapter.db_bytes(), rows_stored(adapter, given)
    except (EOFError, KeyboardInterrupt):  # the parent has gone, or given up
        sys.exit(1)
    except Exception as error:
        metrics.tell()
        conn.send(("failed", _portable(error)))
        sys.exit(1)
    metrics.tell()
    conn.send(("done", done))


def _portable(error: Exception) -> Exception:
    """The error, or its text when it does not survive the way."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return ShardWriteError(f"{type(error).__name__}: {error}")


# ---------------------------------------------------------------- the parent's side


class _BytesInFlight:
    """A bound over all workers, and one for each. A chunk that is larger than a bound goes alone."""

    def __init__(self, total: int | None, each: int | None) -> None:
        self._total_bound, self._each_bound = total or sys.maxsize, each or sys.maxsize
        self._total = 0
        self._changed = threading.Condition()

    def take(self, worker: _Worker, size: int) -> None:
        with self._changed:
            while not worker.gone and not (
                (self._total == 0 or self._total + size <= self._total_bound)
                and (worker.in_flight == 0 or worker.in_flight + size <= self._each_bound)
            ):
                self._changed.wait()
            self._total += size
            worker.in_flight += size

    def wake(self) -> None:
        """Somebody may wait for a worker that has gone."""
        with self._changed:
            self._changed.notify_all()

    def give_back(self, worker: _Worker, size: int) -> None:
        with self._changed:
            self._total -= size
            worker.in_flight -= size
            self._changed.notify_all()


class _Worker:
    """A process that writes one attempt at a shard, and the thread that feeds it."""

    def __init__(self, plan: Plan, db_id: int, retry: int, in_flight: _BytesInFlight) -> None:
        attempt = plan.first_attempt(db_id) + retry
        self.db_id, self.attempt, self.retry = db_id, attempt, retry
        self.db_url = plan.shard_url(db_id, attempt)
        self.in_flight = 0
        self.gone = False
        self.error: Exception | None = None
        self.db_bytes = self.rows = 0
        self._is_done = False  # until the process says that it has written everything
        self._budget = in_flight
        self._queue: queue.Queue[tuple[Chunk | None, int]] = queue.Queue(plan.options.max_queue_size)
        context = multiprocessing.get_context("spawn")
        self._conn, theirs = context.Pipe()
        arguments = (
            theirs,
            plan.adapter_factory(),
            self.db_url,
            plan.local_dir(db_id, attempt),
            plan.config.rate_limits,
            plan.config.observability.metrics_collector,
        )
        self._process = context.Process(target=_work, args=arguments, name=f"shard-{db_id}", daemon=True)
        self._process.start()
        theirs.close()
        self._thread = threading.Thread(target=self._feed, name=f"feed-shard-{db_id}", daemon=True)
        self._thread.start()
        plan.log("shard_write_started", db_id=db_id, attempt=attempt)

    def put(self, chunk: Chunk, size: int) -> None:
        """Waits while too much is on its way."""
        self._budget.take(self, size)
        self._queue.put((chunk, size))

    def finish(self) -> None:
        """No chunks follow. Waits for the process; `error` tells how it went."""
        self._queue.put((None, 0))
        self._thread.join()
        self._process.join()
        self._conn.close()
        if self.error is None and not self._is_done:  # whatever its exit code says
            self.error = _ProcessDied(f"the process ended with exit code {self._process.exitcode}")

    @property
    def exitcode(self) -> int | None:
        return self._process.exitcode

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self.gone = True
        self._process.terminate()
        self._process.join(_JOIN_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        with suppress(queue.Full):  # a full queue wakes the thread by itself
            self._queue.put_nowait((None, 0))
        self._thread.join(_JOIN_SECONDS)
        self._conn.close()

    def _feed(self) -> None:
        while True:
            chunk, size = self._queue.get()
            if not self.gone:
                try:
                    self._conn.send(chunk)
                except OSError:  # the process has ended; why, it has said
                    self._leave()
            self._budget.give_back(self, size)
            if chunk is None:
                break
        try:
            kind, answer = self._conn.recv()
        except (EOFError, OSError):
            self.gone = True
            return
        if kind == "done":
            self.db_bytes, self.rows = answer
            self._is_done = True
        else:
            self.error = answer

    def _leave(self) -> None:
        self.gone = True
        self._budget.wake()


class _ProcessDied(ShardWriteError):
    """A worker process ended without a word."""


class _Spool:
    """The chunks of every shard, on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, BinaryIO] = {}
        make_local_folder(folder)

    def add(self, db_id: int, chunk: Chunk) -> None:
        file = self._files.get(db_id)
        if file is None:
            file = self._files[db_id] = (self._folder / f"db={db_id:05d}.spool").open("w+b")
        pickle.dump(chunk, file, protocol=pickle.HIGHEST_PROTOCOL)

    def chunks(self, db_id: int) -> Iterator[Chunk]:
        file = self._files[db_id]
        file.flush()
        file.seek(0)
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return

    def remove(self) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class ProcessBuild:
    """Writes all shards, each in its own process. Leaving it with an exception ends all of them."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._retry: RetryConfig | None = plan.config.retry.shard_retry
        self._buffers = Buffers(plan)
        memory = plan.options.shared_memory
        self._in_flight = _BytesInFlight(memory.max_total_bytes, memory.max_bytes_per_worker)
        self._workers: dict[int, _Worker] = {}
        self._spool = None if self._retry is None else _Spool(plan.local_run_dir / "spool")
        self.failed_urls: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()
        if self._spool is not None:
            self._spool.remove()

    def run(self, rows: Iterable[Row]) -> list[ShardAttempt]:
        """One successful attempt at every shard with rows, in `db_id` order."""
        batch_size = self._plan.config.kv.batch_size
        for row in rows:
            buffer = self._buffers.add(row)
            if len(buffer.pairs) >= batch_size:
                self._send(row.db_id)
            elif (largest := self._buffers.over_the_caps()) is not None:
                self._send(largest)
            self._progress.row()
        shards = sorted(self._buffers.by_shard)
        self._progress.phase("building", shards_total=len(shards))
        for db_id in shards:
            if self._buffers.by_shard[db_id].pairs:
                self._send(db_id)
        return self._finish(shards)

    def _send(self, db_id: int) -> None:
        worker = self._workers.get(db_id)
        if worker is None:
            worker = self._workers[db_id] = _Worker(self._plan, db_id, 0, self._in_flight)
        buffer = self._buffers.by_shard[db_id]
        size = buffer.bytes
        chunk = self._buffers.take(db_id)
        if self._spool is not None:
            self._spool.add(db_id, chunk)
        elif worker.gone:
            self._fail(self._finished())
        if not worker.gone:
            worker.put(chunk, size)
        self._progress.written(len(chunk), size)

    def _finished(self) -> list[_Worker]:
        """All workers, ended."""
        workers = [self._workers[db_id] for db_id in sorted(self._workers)]
        for worker in workers:
            worker.finish()
        self._workers.clear()
        return workers

    def _finish(self, shards: list[int]) -> list[ShardAttempt]:
        workers = self._finished()
        failed = [worker for worker in workers if worker.error is not None]
        for worker in failed:
            self._failed(worker)
        if failed and self._retry is None:
            self._fail(workers)
        return [self._written(worker) if worker.error is None else self._again(worker) for worker in workers]

    def _failed(self, worker: _Worker) -> None:
        assert worker.error is not None
        self.failed_urls.append(worker.db_url)
        self._plan.log_failed("shard_write_failed", worker.error, db_id=worker.db_id, attempt=worker.attempt)

    def _fail(self, workers: list[_Worker]) -> None:
        exits = [(worker.db_id, worker.exitcode) for worker in workers if worker.error is not None]
        first = next(worker.error for worker in workers if worker.error is not None)
        raise ShardyfusionError(f"Worker process(es) exited with errors: {exits}") from first

    def _written(self, worker: _Worker) -> ShardAttempt:
        buffer = self._buffers.by_shard[worker.db_id]
        self._progress.shard_done()
        attempt = ShardAttempt(
            db_id=worker.db_id,
            attempt=worker.attempt,
            db_url=worker.db_url,
            row_count=worker.rows,
            db_bytes=worker.db_bytes,
            min_key=buffer.keys.smallest,
            max_key=buffer.keys.largest,
            duplicates=buffer.rows - worker.rows,
        )
        self._plan.shard_completed(attempt)
        return attempt

    def _again(self, failed: _Worker) -> ShardAttempt:
        """The attempts that follow a failed one."""
        assert self._retry is not None and self._spool is not None
        backoff = self._retry.initial_backoff.total_seconds()
        worker = failed
        for retry in range(1, self._retry.max_retries + 1):
            assert worker.error is not None
            if not _may_help(worker.error):
                raise worker.error
            self._plan.shard_retrying(worker.db_id, retry, backoff)
            self._wait(backoff)
            backoff *= self._retry.backoff_multiplier
            worker = self._workers[worker.db_id] = _Worker(self._plan, worker.db_id, retry, self._in_flight)
            for chunk in self._spool.chunks(worker.db_id):
                if worker.gone:
                    break
                worker.put(chunk, sum(len(key) + len(value) for key, value in chunk))
            worker.finish()
            del self._workers[worker.db_id]
            if worker.error is None:
                return self._written(worker)
            self._failed(worker)
        assert worker.error is not None
        if worker.retry > 0:
            self._plan.emit(
                MetricEvent.SHARD_WRITE_RETRY_EXHAUSTED, db_id=worker.db_id, attempts=worker.retry + 1
            )
        raise _as_package_error(worker)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._progress.raise_if_cancelled()
            _sleep(min(left, 0.1))


def _may_help(error: Exception) -> bool:
    return error.retryable if isinstance(error, ShardyfusionError) else True


def _as_package_error(worker: _Worker) -> Any:
    error = worker.error
    if isinstance(error, ShardyfusionError) and not isinstance(error, _ProcessDied):
        return error
    wrapped = ShardWriteError(f"Shard write failed for db_id={worker.db_id}, attempt={worker.attempt}: {error}")
    wrapped.__cause__ = error
    return wrapped
