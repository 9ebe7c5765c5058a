"""Writing snapshots of many shards from Ray."""

from __future__ import annotations

from typing import Any

from shardyfusion.config import (
    BaseShardedWriteConfig,
    CelShardedWriteConfig,
    ColumnWriteInput,
    HashShardedWriteConfig,
    RayWriteOptions,
)
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._engines import check_arguments, run_job
from shardyfusion.writer.ray._job import RayJob

__all__ = ["write_cel_sharded", "write_hash_sharded"]


def write_hash_sharded(
    ds: Any,
    config: HashShardedWriteConfig,
    input: ColumnWriteInput,
    options: RayWriteOptions | None = None,
) -> BuildResult:
    """Publishes the rows as a new snapshot, sharded by the hash of the key. Tasks of Ray route and build; the driver publishes when all
    shards are stored. Readers see the snapshot before until then, and go on seeing it when anything fails."""
    return _write(ds, HashShardedWriteConfig, config, input, options)


def write_cel_sharded(
    ds: Any,
    config: CelShardedWriteConfig,
    input: ColumnWriteInput,
    options: RayWriteOptions | None = None,
) -> BuildResult:
    """The same, sharded by a CEL expression over the columns of its names (docs/cel.md). Unless the routing values are given, the rows are
    read twice: a RayCacheContext keeps them."""
    return _write(ds, CelShardedWriteConfig, config, input, options)


def _write(
    ds: Any,
    wanted: type[BaseShardedWriteConfig],
    config: BaseShardedWriteConfig,
    input: ColumnWriteInput,
    options: RayWriteOptions | None,
) -> BuildResult:
    options = RayWriteOptions() if options is None else options
    check_arguments(wanted, config, input, options, RayWriteOptions)
    return run_job(RayJob(ds, options.sort_within_partitions, options.cancel), config, input, options)
