"""Writing snapshots of many shards from Dask."""

from __future__ import annotations

from typing import Any

from shardyfusion.config import (
    BaseShardedWriteConfig,
    CelShardedWriteConfig,
    ColumnWriteInput,
    DaskWriteOptions,
    HashShardedWriteConfig,
)
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._engines import check_arguments, run_job
from shardyfusion.writer.dask._job import DaskJob

__all__ = ["write_cel_sharded", "write_hash_sharded"]


def write_hash_sharded(
    ddf: Any,
    config: HashShardedWriteConfig,
    input: ColumnWriteInput,
    options: DaskWriteOptions | None = None,
) -> BuildResult:
    """Publishes the rows as a new snapshot, sharded by the hash of the key. Tasks of Dask route and build; the driver publishes when all
    shards are stored. Readers see the snapshot before until then, and go on seeing it when anything fails."""
    return _write(ddf, HashShardedWriteConfig, config, input, options)


def write_cel_sharded(
    ddf: Any,
    config: CelShardedWriteConfig,
    input: ColumnWriteInput,
    options: DaskWriteOptions | None = None,
) -> BuildResult:
    """The same, sharded by a CEL expression over the columns of its names (docs/cel.md). Unless the routing values are given, the rows are
    read twice: a DaskCacheContext keeps them."""
    return _write(ddf, CelShardedWriteConfig, config, input, options)


def _write(
    ddf: Any,
    wanted: type[BaseShardedWriteConfig],
    config: BaseShardedWriteConfig,
    input: ColumnWriteInput,
    options: DaskWriteOptions | None,
) -> BuildResult:
    options = DaskWriteOptions() if options is None else options
    check_arguments(wanted, config, input, options, DaskWriteOptions)
    return run_job(DaskJob(ddf, options.sort_within_partitions, options.cancel), config, input, options)
