"""Writing snapshots of one shard from Dask."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from shardyfusion._storage_errors import MissingColumnError
from shardyfusion.config import ColumnWriteInput, SingleDbWriteConfig, SingleDbWriteOptions
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._engines import check_arguments, is_built_in, run_job
from shardyfusion.writer.dask._job import SingleDbJob, missing_key_column

__all__ = ["DaskCacheContext", "write_single_db"]


class DaskCacheContext:
    """Keeps a data frame that is read more than once; `with` gives the one to read."""

    def __init__(self, ddf: Any, *, enabled: bool = True) -> None:
        self._ddf = ddf
        self._enabled = enabled
        self._kept: Any = None

    def __enter__(self) -> Any:
        if not self._enabled:
            return self._ddf
        self._kept = self._ddf.persist()
        return self._kept

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._kept = None  # Dask forgets what nobody holds


def write_single_db(
    ddf: Any,
    config: SingleDbWriteConfig,
    input: ColumnWriteInput,
    options: SingleDbWriteOptions | None = None,
) -> BuildResult:
    """Publishes the rows as a new snapshot of one shard, which the driver builds in bounded memory while the rows come to it. Shards of
    ours are sorted there; for an adapter of the caller's Dask sorts (keys of bytes are sorted by the driver, in memory), unless
    `options.sort_keys` is off."""
    options = SingleDbWriteOptions() if options is None else options
    check_arguments(SingleDbWriteConfig, config, input, options, SingleDbWriteOptions)
    columns = [str(name) for name in ddf.columns]
    if input.key_col not in columns:
        raise MissingColumnError(missing_key_column(input.key_col, columns))
    sort = options.sort_keys and not is_built_in(config)
    sort_here = sort and ddf.dtypes[input.key_col] == "object"  # bytes or a mixture, which Dask cannot sort
    sort = sort and not sort_here
    with DaskCacheContext(ddf, enabled=options.cache_input and sort) as rows:
        job = SingleDbJob(_in_order(rows, config, input, options, sort), options.prefetch_partitions, sort_here, options.cancel)
        return run_job(job, config, input, options)


def _in_order(ddf: Any, config: SingleDbWriteConfig, input: ColumnWriteInput, options: SingleDbWriteOptions, sort: bool) -> Any:
    partitions = options.num_partitions
    if not sort:
        return ddf if partitions is None else ddf.repartition(npartitions=partitions)
    if partitions is None:
        partitions = max(1, math.ceil(len(ddf) / config.kv.batch_size))
    return ddf.sort_values(input.key_col, npartitions=partitions)
