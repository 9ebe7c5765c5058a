"""Writing through adapters that may be anybody's: one pass over the records, a buffer and an adapter a shard."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from shardyfusion._local_folder import make_local_folder
from shardyfusion.slatedb_adapter import DbAdapter
from shardyfusion.type_defs import PlainKey
from shardyfusion.writer._limits import WriteLimits
from shardyfusion.writer._plan import Plan, ShardAttempt
from shardyfusion.writer._progress import Progress
from shardyfusion.writer._rows import KeyRange, Row

_TRIES_BEFORE_WAITING = 16  # for tokens, while a full buffer grows to twice its size


class ShardBuffer:
    """Rows of one shard that wait to be written, and what is known of all its rows."""

    __slots__ = ("bytes", "keys", "pairs", "rows")

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []
        self.bytes = 0
        self.rows = 0
        self.keys = KeyRange()

    def add(self, given_key: PlainKey, key: bytes, value: bytes) -> None:
        self.keys.widen(given_key)
        self.pairs.append((key, value))
        self.bytes += len(key) + len(value)
        self.rows += 1

    def take(self) -> list[tuple[bytes, bytes]]:
        """The waiting rows, which wait no longer."""
        pairs, self.pairs, self.bytes = self.pairs, [], 0
        return pairs


class Buffers:
    """The buffers of all shards. `full_buffer` tells which one to write next, by the caps over all of them."""

    def __init__(self, plan: Plan) -> None:
        buffering = plan.options.buffering
        self._max_items = buffering.max_total_batched_items or sys.maxsize
        self._max_bytes = buffering.max_total_batched_bytes or sys.maxsize
        self._items = self._bytes = 0
        self.by_shard: dict[int, ShardBuffer] = {}

    def add(self, row: Row) -> ShardBuffer:
        buffer = self.by_shard.get(row.db_id)
        if buffer is None:
            buffer = self.by_shard[row.db_id] = ShardBuffer()
        before = buffer.bytes
        buffer.add(row.given_key, row.key, row.value)
        self._items += 1
        self._bytes += buffer.bytes - before
        return buffer

    def take(self, db_id: int) -> list[tuple[bytes, bytes]]:
        buffer = self.by_shard[db_id]
        self._items -= len(buffer.pairs)
        self._bytes -= buffer.bytes
        return buffer.take()

    def over_the_caps(self) -> int | None:
        """The shard with the largest buffer, when all of them together are too large."""
        if self._items > self._max_items:
            return max(self.by_shard, key=lambda db_id: len(self.by_shard[db_id].pairs))
        if self._bytes > self._max_bytes:
            return max(self.by_shard, key=lambda db_id: self.by_shard[db_id].bytes)
        return None


def rows_stored(adapter: DbAdapter, given: int) -> int:
    """How many rows are left of those that were given: adapters that do not tell are believed to have kept all."""
    tell = getattr(adapter, "rows_stored", None)
    return given if tell is None else min(given, int(tell()))


class PluggedBuild:
    """Writes all shards in this process. Leaving it with an exception closes every adapter that is open."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._factory = plan.adapter_factory()
        self._limits = WriteLimits(plan.config.rate_limits, plan.collector)
        self._batch_size = plan.config.kv.batch_size
        self._buffers = Buffers(plan)
        self._adapters: dict[int, DbAdapter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for db_id, adapter in sorted(self._adapters.items()):
            try:
                adapter.__exit__(exc_type, exc, tb)
            except Exception as error:  # the first failure is the one to report
                attempt = self._plan.first_attempt(db_id)
                self._plan.log_failed("shard_write_failed", error, db_id=db_id, attempt=attempt)
        self._adapters.clear()

    def run(self, rows: Iterable[Row]) -> list[ShardAttempt]:
        """One attempt at every shard with rows, in `db_id` order."""
        for row in rows:
            buffer = self._buffers.add(row)
            if len(buffer.pairs) >= self._batch_size:
                self._full(row.db_id, buffer)
            elif (largest := self._buffers.over_the_caps()) is not None:
                self._write(largest)
            self._progress.row()
        self._progress.phase("building", shards_total=len(self._buffers.by_shard))
        return [self._finish(db_id) for db_id in sorted(self._buffers.by_shard)]

    def _full(self, db_id: int, buffer: ShardBuffer) -> None:
        waiting = len(buffer.pairs) - self._batch_size
        if not self._limits.limits_rows or waiting >= self._batch_size:
            self._write(db_id)
        elif waiting % max(1, self._batch_size // _TRIES_BEFORE_WAITING) == 0 and self._limits.try_acquire(
            len(buffer.pairs), buffer.bytes
        ):
            self._store(db_id)

    def _write(self, db_id: int) -> None:
        buffer = self._buffers.by_shard[db_id]
        self._limits.acquire(len(buffer.pairs), buffer.bytes)
        self._store(db_id)

    def _store(self, db_id: int) -> None:
        adapter = self._adapters.get(db_id)
        if adapter is None:
            adapter = self._open(db_id)
        pairs = self._buffers.take(db_id)
        size = sum(len(key) + len(value) for key, value in pairs)
        adapter.write_batch(pairs)
        self._plan.metrics.tell()
        self._progress.written(len(pairs), size)

    def _open(self, db_id: int) -> DbAdapter:
        attempt = self._plan.first_attempt(db_id)
        local_dir = self._plan.local_dir(db_id, attempt)
        make_local_folder(local_dir)
        self._plan.log("shard_write_started", db_id=db_id, attempt=attempt)
        adapter = self._factory(db_url=self._plan.shard_url(db_id, attempt), local_dir=local_dir)
        adapter = adapter.__enter__()
        self._adapters[db_id] = adapter
        return adapter

    def _finish(self, db_id: int) -> ShardAttempt:
        buffer = self._buffers.by_shard[db_id]
        if buffer.pairs:
            self._write(db_id)
        adapter = self._adapters[db_id]
        adapter.flush()
        adapter.seal()
        db_bytes = adapter.db_bytes()
        rows, attempt = rows_stored(adapter, buffer.rows), self._plan.first_attempt(db_id)
        del self._adapters[db_id]
        adapter.__exit__(None, None, None)
        self._plan.metrics.tell()
        self._progress.shard_done()
        result = ShardAttempt(
            db_id=db_id,
            attempt=attempt,
            db_url=self._plan.shard_url(db_id, attempt),
            row_count=rows,
            db_bytes=db_bytes,
            min_key=buffer.keys.smallest,
            max_key=buffer.keys.largest,
            duplicates=buffer.rows - rows,
        )
        self._plan.shard_completed(result)
        return result
