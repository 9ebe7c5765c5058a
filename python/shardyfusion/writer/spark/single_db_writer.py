"""Writing snapshots of one shard from Spark."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shardyfusion.config import ColumnWriteInput, SingleDbWriteConfig, SingleDbWriteOptions
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._engines import check_arguments, is_built_in, run_job
from shardyfusion.writer.spark._job import SingleDbJob, overrides, quoted, spark_rows
from shardyfusion.writer.spark.util import DataFrameCacheContext, SparkConfOverrideContext

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["write_single_db"]


def write_single_db(
    df: DataFrame,
    config: SingleDbWriteConfig,
    input: ColumnWriteInput,
    options: SingleDbWriteOptions | None = None,
) -> BuildResult:
    """Publishes the rows as a new snapshot of one shard, which the driver builds in bounded memory while the rows come to it. Shards of
    ours are sorted there; for an adapter of the caller's Spark sorts, unless `options.sort_keys` is off."""
    options = SingleDbWriteOptions() if options is None else options
    check_arguments(SingleDbWriteConfig, config, input, options, SingleDbWriteOptions)
    spark = df.sparkSession
    with SparkConfOverrideContext(spark, overrides(spark, options.spark_conf_overrides)):
        sort = options.sort_keys and not is_built_in(config)
        with DataFrameCacheContext(df, options.storage_level, enabled=options.cache_input and sort) as rows:
            ordered = _in_order(rows, config, input, options, sort)
            job = SingleDbJob(ordered, "shardyfusion: one shard", options.prefetch_partitions, options.cancel)
            return run_job(job, config, input, options, spark_rows)


def _in_order(
    df: DataFrame, config: SingleDbWriteConfig, input: ColumnWriteInput, options: SingleDbWriteOptions, sort: bool
) -> DataFrame:
    partitions = options.num_partitions
    if not sort:
        return df if partitions is None else df.repartition(partitions)
    key = quoted(input.key_col)
    if partitions is None:
        partitions = max(1, math.ceil(df.count() / config.kv.batch_size))
    return df.repartitionByRange(partitions, key).sortWithinPartitions(key)
