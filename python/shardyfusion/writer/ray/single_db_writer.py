"""Writing snapshots of one shard from Ray."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from shardyfusion.config import ColumnWriteInput, SingleDbWriteConfig, SingleDbWriteOptions
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._engines import check_arguments, is_built_in, run_job
from shardyfusion.writer.ray._job import SingleDbJob

__all__ = ["RayCacheContext", "write_single_db"]


class RayCacheContext:
    """Keeps a dataset that is read more than once; `with` gives the one to read."""

    def __init__(self, ds: Any, *, enabled: bool = True) -> None:
        self._ds = ds
        self._enabled = enabled
        self._kept: Any = None

    def __enter__(self) -> Any:
        if not self._enabled:
            return self._ds
        self._kept = self._ds.materialize()
        return self._kept

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._kept = None  # Ray forgets what nobody holds


def write_single_db(
    ds: Any,
    config: SingleDbWriteConfig,
    input: ColumnWriteInput,
    options: SingleDbWriteOptions | None = None,
) -> BuildResult:
    """Publishes the rows as a new snapshot of one shard, which the driver builds in bounded memory while the rows come to it. Shards of
    ours are sorted there; for an adapter of the caller's Ray sorts, unless `options.sort_keys` is off."""
    options = SingleDbWriteOptions() if options is None else options
    check_arguments(SingleDbWriteConfig, config, input, options, SingleDbWriteOptions)
    sort = options.sort_keys and not is_built_in(config)
    with RayCacheContext(ds, enabled=options.cache_input and sort) as rows:
        if options.num_partitions is not None:
            rows = rows.repartition(options.num_partitions)
        job = SingleDbJob(rows, input.key_col if sort else None, options.prefetch_partitions, options.cancel)
        return run_job(job, config, input, options)
