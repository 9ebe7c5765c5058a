#!/usr/bin/env python3
"""Publishing from Spark, with two tasks at a time: 2,000,000 rows of 100 B from Parquet, 8 shards, to local files.

    PYTHONPATH=BUILD/python python bench/spark_write.py [ROWS [RUNS]]

`ours` is shardyfusion.writer.spark. `shuffle` is what Spark itself takes for the same job when nothing is built: the same rows
through the same exchange, by the hash of the key, and a count in each partition (in Spark's own code); `shuffle in Python` counts them in
Python, batch by batch. `foreachPartition` is what people write by hand: rows as Python objects, grouped by shard, into one adapter of ours
each, once. The best of the runs. Beside the times: the most memory that a Python process of Spark had, of `ours`, at these rows and at ten
times as many."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from process_peak import Peak
from pyarrow import parquet

warnings.simplefilter("ignore")
from pyspark.sql import SparkSession  # noqa: E402

from shardyfusion import HashShardedWriteConfig, ShardedReader, ValueSpec, WriterOutputConfig  # noqa: E402
from shardyfusion.config import ColumnWriteInput, SparkWriteOptions  # noqa: E402
from shardyfusion.writer.spark import write_hash_sharded  # noqa: E402

SHARDS, VALUE_BYTES, FILES = 8, 92, 8


def make_rows(folder: Path, rows: int) -> None:
    folder.mkdir()
    size = rows // FILES
    for number in range(FILES):
        ids = pa.array(range(number * size, (number + 1) * size), pa.int64())
        data = os.urandom(size * VALUE_BYTES)
        values = pa.Array.from_buffers(pa.binary(VALUE_BYTES), size, [None, pa.py_buffer(data)]).cast(pa.binary())
        parquet.write_table(pa.table({"id": ids, "v": values}), folder / f"{number}.parquet", compression="none")


def ours(df: Any, place: Path) -> None:
    config = HashShardedWriteConfig(
        s3_prefix=place.as_uri(), num_dbs=SHARDS, output=WriterOutputConfig(local_root=str(place.parent / "work"))
    )
    result = write_hash_sharded(df, config, ColumnWriteInput("id", ValueSpec.binary_col("v")), SparkWriteOptions(progress=False))
    assert result.stats.num_winners == SHARDS


def shuffle(df: Any, place: Path) -> None:
    rdd = df.repartition(SHARDS, "id").selectExpr("spark_partition_id() p", "length(v) n").groupBy("p").agg({"n": "sum", "*": "count"})
    assert len(rdd.collect()) <= SHARDS


def shuffle_in_python(df: Any, place: Path) -> None:
    def count(batches: Iterator[Any]) -> Iterator[Any]:
        yield pa.RecordBatch.from_arrays([pa.array([sum(batch.num_rows for batch in batches)], pa.int64())], ["n"])

    df.repartition(SHARDS, "id").mapInArrow(count, "n long").collect()


def by_hand(df: Any, place: Path) -> None:
    prefix = place.as_uri()

    def build(rows: Iterator[Any]) -> None:
        from shardyfusion.slatedb_adapter import SlateDbFactory

        pairs: dict[int, list[tuple[bytes, bytes]]] = {}
        for row in rows:
            pairs.setdefault(row.shard, []).append((row.id.to_bytes(8, "big"), bytes(row.v)))
        for shard, some in pairs.items():
            with SlateDbFactory()(db_url=f"{prefix}/{shard}", local_dir=place.parent / f"hand{shard}") as adapter:
                adapter.write_batch(some)
                adapter.flush()
                adapter.seal()

    from pyspark.sql import functions

    from shardyfusion.routing import xxh3_db_id

    route = functions.udf(lambda key: xxh3_db_id(key, SHARDS), "int")
    df.withColumn("shard", route("id")).repartition(SHARDS, "shard").foreachPartition(build)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    ways: dict[str, Callable[[Any, Path], None]] = {
        "ours": ours, "shuffle": shuffle, "shuffle in Python": shuffle_in_python, "foreachPartition": by_hand,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        builder = builder.config("spark.ui.showConsoleProgress", "false").config("spark.local.dir", name)
        spark = builder.config("spark.driver.memory", "2g").getOrCreate()
        spark.sparkContext.setLogLevel("OFF")
        make_rows(folder / "rows", rows)
        df = spark.read.parquet(str(folder / "rows"))
        best: dict[str, float] = {}
        for way, write in ways.items():  # one after the other: Spark ends processes of Python that nobody used for a minute
            for run in range(1 if way == "foreachPartition" else runs):
                begin = time.perf_counter()
                write(df, folder / f"{way.split()[-1]}{run}")
                best[way] = min(best.get(way, 1e9), time.perf_counter() - begin)
        with ShardedReader(s3_prefix=(folder / "ours0").as_uri(), local_root=name) as reader:
            assert reader.snapshot_info().row_count == rows
        for way, seconds in best.items():
            print(f"{way:<18} {seconds:>7.2f} s  {rows / seconds:>10,.0f} rows/s  {seconds / best['ours']:>6.2f} of ours", flush=True)
        for times in (1, 10):
            if times > 1:
                make_rows(folder / "more", rows * times)
                df = spark.read.parquet(str(folder / "more"))
            with Peak(lambda command: b"pyspark.daemon" in command) as peak:
                ours(df, folder / f"memory{times}")
            print(f"peak of a task's process at {rows * times:,} rows: {peak.kib / 1024:,.0f} MiB", flush=True)
        spark.stop()


if __name__ == "__main__":
    main()
