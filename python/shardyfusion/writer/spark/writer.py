"""Writing snapshots of many shards from Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion.config import (
    BaseShardedWriteConfig,
    CelShardedWriteConfig,
    ColumnWriteInput,
    HashShardedWriteConfig,
    SparkWriteOptions,
)
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._engines import check_arguments, run_job
from shardyfusion.writer.spark._job import SparkJob, overrides, spark_rows
from shardyfusion.writer.spark.util import DataFrameCacheContext, SparkConfOverrideContext

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["write_cel_sharded", "write_hash_sharded"]


def write_hash_sharded(
    df: DataFrame,
    config: HashShardedWriteConfig,
    input: ColumnWriteInput,
    options: SparkWriteOptions | None = None,
) -> BuildResult:
    """Publishes the rows as a new snapshot, sharded by the hash of the key. Tasks of Spark route and build; the driver publishes when all
    shards are stored. Readers see the snapshot before until then, and go on seeing it when anything fails."""
    return _write(df, HashShardedWriteConfig, config, input, options)


def write_cel_sharded(
    df: DataFrame,
    config: CelShardedWriteConfig,
    input: ColumnWriteInput,
    options: SparkWriteOptions | None = None,
) -> BuildResult:
    """The same, sharded by a CEL expression over the columns of its names (docs/cel.md). Unless the routing values are given, the rows are
    read twice: `options.cache_input` keeps them."""
    return _write(df, CelShardedWriteConfig, config, input, options)


def _write(
    df: DataFrame,
    wanted: type[BaseShardedWriteConfig],
    config: BaseShardedWriteConfig,
    input: ColumnWriteInput,
    options: SparkWriteOptions | None,
) -> BuildResult:
    options = SparkWriteOptions() if options is None else options
    check_arguments(wanted, config, input, options, SparkWriteOptions)
    spark = df.sparkSession
    with (
        SparkConfOverrideContext(spark, overrides(spark, options.spark_conf_overrides)),
        DataFrameCacheContext(df, options.storage_level, enabled=options.cache_input) as rows,
    ):
        job = SparkJob(rows, options.sort_within_partitions, "shardyfusion", options.cancel)
        return run_job(job, config, input, options, spark_rows)
