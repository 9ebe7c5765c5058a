"""One write: what was decided before its first row, and what comes of it."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion.config import BaseShardedWriteConfig, CelShardedWriteConfig, HashShardedWriteConfig, PythonWriteOptions
from shardyfusion.errors import ConfigValidationError
from shardyfusion.logging import FailureSeverity, get_logger, log_event, log_failure
from shardyfusion.manifest import BuildDurations, BuildResult, BuildStats, WriterInfo
from shardyfusion.metrics import MetricEvent, MetricsCollector
from shardyfusion.reader._observe import Metrics
from shardyfusion.sharding_types import KeyEncoding, ShardingStrategy
from shardyfusion.storage import join_s3, location
from shardyfusion.type_defs import PlainKey

if TYPE_CHECKING:
    from shardyfusion._native import CelSharding
    from shardyfusion.manifest import RequiredShardMeta
    from shardyfusion.slatedb_adapter import DbAdapterFactory

log = get_logger("shardyfusion.writer.python.writer")

_NEEDS_SIZE = (
    "max_keys_per_shard requires a Sized input (e.g. list) so num_dbs can be computed from len(records). "
    "Provide num_dbs explicitly for non-Sized iterables."
)


@dataclass(slots=True)
class ShardAttempt:
    """One shard as one attempt left it."""

    db_id: int
    attempt: int
    db_url: str
    row_count: int
    db_bytes: int
    min_key: PlainKey | None
    max_key: PlainKey | None
    duration_ms: int = 0
    checkpoint_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    duplicates: int = 0  # rows that were given and are not stored
    stage_id: int | None = None  # of the batch engine's task that wrote it
    task_attempt_id: int | None = None
    opening: str | None = None  # what the engine tells readers of it

    def to_meta(self) -> RequiredShardMeta:
        """Its row in the manifest."""
        from shardyfusion.manifest import RequiredShardMeta

        return RequiredShardMeta(
            db_id=self.db_id,
            db_url=self.db_url,
            attempt=self.attempt,
            row_count=self.row_count,
            db_bytes=self.db_bytes,
            min_key=self.min_key,
            max_key=self.max_key,
            checkpoint_id=self.checkpoint_id,
            writer_info=WriterInfo(self.stage_id, self.task_attempt_id, self.attempt, self.duration_ms, opening=self.opening),
        )


def resolve_num_dbs(config: HashShardedWriteConfig, records: object) -> int:
    """The number of shards, from the number of rows when the configuration bounds the rows of a shard."""
    sharding = config.sharding
    if sharding.max_keys_per_shard is None:
        assert sharding.num_dbs is not None
        return sharding.num_dbs
    if not isinstance(records, Sized):
        raise ConfigValidationError(_NEEDS_SIZE)
    return max(1, math.ceil(len(records) / sharding.max_keys_per_shard))


def resolve_cel(config: CelShardedWriteConfig) -> CelSharding:
    """The configured sharding, for the engine. ConfigValidationError unless the expression compiles."""
    sharding = config.sharding
    given = sharding.routing_values is not None
    cel: CelSharding = {
        "expr": sharding.cel_expr,
        "columns": sharding.cel_columns,
        "mode": "categorical" if given else "inferred" if sharding.infer_routing_values_from_data else "direct",
        "values": sharding.routing_values,
    }
    native.cel_shards(cel)
    return cel


class Plan:
    """What a write does. Made when its configuration has been checked; the clock of its durations starts here.

    With `cel` the number of shards may be known only when all rows are there: it is 0 until `settle()`.
    """

    def __init__(
        self,
        config: BaseShardedWriteConfig,
        options: PythonWriteOptions,
        num_dbs: int,
        key_col: str,
        cel: CelSharding | None = None,
        writer_type: str = "python",
    ) -> None:
        self.writer_type: str = writer_type
        self.config = config
        self.options = options
        self.num_dbs: int = num_dbs
        self.key_col = key_col
        self.cel = cel
        self.sharding: str | None = None  # as the manifest has it
        self.run_id: str = config.output.run_id or uuid.uuid4().hex
        self.metrics: Metrics = Metrics(config.observability.metrics_collector)
        self._begin = time.monotonic()
        self._told_start = False
        self.sharding_ms: int = 0
        self.write_ms: int = 0
        self.manifest_ms: int = 0
        self.bad_rows: int = 0
        self.attempt: int = 0  # of the first attempt at each shard
        self.next_attempts: dict[str, int] = {}  # of each path that has some by other writers under this run id

    @property
    def s3_prefix(self) -> str:
        return location(self.config.storage.s3_prefix).rstrip("/")

    def settle(self, num_dbs: int, sharding: str | None) -> None:
        """All rows are there: so many shards, spread like this."""
        self.num_dbs, self.sharding = num_dbs, sharding

    def sharded(self) -> None:
        """It is known how many shards there are; what it took counts by itself."""
        self.sharding_ms = self.elapsed_ms()

    def first_attempt(self, db_id: int) -> int:
        """The number of this write's first attempt at a shard."""
        return max(self.attempt, self.next_attempts.get(self._db_path(db_id), 0))

    def _db_path(self, db_id: int) -> str:
        return self.config.output.db_path_template.format(db_id=db_id)

    def shard_url(self, db_id: int, attempt: int) -> str:
        """The folder of one attempt at a shard."""
        output, path = self.config.output, self._db_path(db_id)
        return join_s3(self.s3_prefix, output.shard_prefix, f"run_id={self.run_id}", path, f"attempt={attempt:02d}")

    @property
    def local_run_dir(self) -> Path:
        return Path(self.config.output.local_root) / f"run_id={self.run_id}"

    def local_dir(self, db_id: int, attempt: int) -> Path:
        """The local folder of one attempt at a shard."""
        return self.local_run_dir / f"db={db_id:05d}" / f"attempt={attempt:02d}"

    def adapter_factory(self) -> DbAdapterFactory:
        """The configured one, else SlateDB with the storage group's access."""
        from shardyfusion.slatedb_adapter import SlateDbFactory

        if self.config.kv.adapter_factory is not None:
            return self.config.kv.adapter_factory
        storage = self.config.storage
        return SlateDbFactory(
            credential_provider=storage.credential_provider, s3_connection_options=storage.s3_connection_options
        )

    # ------------------------------------------------------------ events

    def elapsed_ms(self) -> int:
        return int((time.monotonic() - self._begin) * 1000)

    def elapsed(self) -> float:
        return time.monotonic() - self._begin

    def emit(self, event: MetricEvent, **payload: Any) -> None:
        """A metric, with the time since the start."""
        self.metrics.emit(event, {"elapsed_ms": self.elapsed_ms(), **payload})

    def log(self, event: str, *, level: int = logging.INFO, **fields: Any) -> None:
        log_event(event, level=level, logger=log, run_id=self.run_id, **fields)

    def log_failed(self, event: str, error: BaseException, **fields: Any) -> None:
        log_failure(event, severity=FailureSeverity.ERROR, error=error, logger=log, run_id=self.run_id, **fields)

    @property
    def collector(self) -> MetricsCollector | None:
        """For what emits by itself; a failing one does not fail the write."""
        return self.metrics if self.metrics.wanted else None

    def started(self) -> None:
        """Told once."""
        if self._told_start:
            return
        self._told_start = True
        self.metrics.emit(MetricEvent.WRITE_STARTED, {"elapsed_ms": 0})
        self.log(
            "write_started",
            num_dbs=self.num_dbs,
            s3_prefix=self.s3_prefix,
            strategy=(ShardingStrategy.HASH if self.cel is None else ShardingStrategy.CEL).value,
            key_encoding=KeyEncoding.from_value(self.config.kv.key_encoding).value,
            writer_type=self.writer_type,
        )

    def shard_completed(self, attempt: ShardAttempt) -> None:
        self.log(
            "shard_write_completed",
            db_id=attempt.db_id,
            attempt=attempt.attempt,
            db_url=attempt.db_url,
            row_count=attempt.row_count,
            db_bytes=attempt.db_bytes,
            duration_ms=attempt.duration_ms,
        )

    def shard_retrying(self, db_id: int, attempt: int, backoff_s: float) -> None:
        """Attempt number `attempt` follows one that failed."""
        self.emit(MetricEvent.SHARD_WRITE_RETRIED, db_id=db_id, attempt=attempt, backoff_s=backoff_s)
        self.log("shard_write_retrying", db_id=db_id, attempt=attempt, backoff_s=backoff_s)

    def selected(self, winner: RequiredShardMeta) -> None:
        self.log(
            "winner_selected",
            db_id=winner.db_id,
            attempt=winner.attempt,
            db_url=winner.db_url,
            row_count=winner.row_count,
        )

    def shards_completed(self, rows: int, duplicates: int) -> None:
        self.write_ms = self.elapsed_ms()
        self.emit(MetricEvent.SHARD_WRITES_COMPLETED, duration_ms=self.write_ms, rows_written=rows)
        self.log("shard_writes_completed", duration_ms=self.write_ms, rows_written=rows, duplicates=duplicates)
        if self.bad_rows:
            self.log("write_bad_rows", level=logging.WARNING, bad_rows=self.bad_rows)
        if rows == 0:
            self.log("write_without_rows", level=logging.WARNING, num_dbs=self.num_dbs)

    def published(self, manifest_ref: str, since_ms: int) -> None:
        self.manifest_ms = self.elapsed_ms() - since_ms
        self.emit(MetricEvent.MANIFEST_PUBLISHED)
        self.emit(MetricEvent.CURRENT_PUBLISHED)
        self.log("manifest_published", manifest_ref=manifest_ref)

    def completed(self, result: BuildResult) -> None:
        rows = result.stats.rows_written
        self.emit(MetricEvent.WRITE_COMPLETED, rows_written=rows)
        self.log(
            "write_completed",
            num_dbs=self.num_dbs,
            num_winners=result.stats.num_winners,
            rows_written=rows,
            manifest_ref=result.manifest_ref,
            duration_ms=self.elapsed_ms(),
        )

    def result(
        self,
        winners: list[RequiredShardMeta],
        manifest_ref: str,
        attempts: int,
        rows: int,
        duplicates: int,
        run_record_ref: str | None,
        reused: int = 0,
    ) -> BuildResult:
        durations = BuildDurations(
            sharding_ms=self.sharding_ms, write_ms=self.write_ms, manifest_ms=self.manifest_ms, total_ms=self.elapsed_ms()
        )
        stats = BuildStats(
            durations=durations,
            num_attempt_results=attempts,
            num_winners=len(winners),
            rows_written=rows,
            duplicates=duplicates,
            bad_rows=self.bad_rows,
            shards_reused=reused,
        )
        return BuildResult(
            run_id=self.run_id,
            winners=winners,
            manifest_ref=manifest_ref,
            stats=stats,
            run_record_ref=run_record_ref,
        )
