"""Publishing from Dask and from Ray, beside what their exchange of the same rows takes by itself: the same partitions hashed by key, and
counted. One after the other, the best of three. Then the most memory that a worker's process had while publishing so many rows, and ten times as
many (without the pages of Ray's object store, which all processes share).

    PYTHONPATH=build-python/python python bench/engines.py dask|ray [ROWS] [SHARDS]
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from process_peak import Peak
from pyarrow import parquet

from shardyfusion import HashShardedWriteConfig, ValueSpec, WriterOutputConfig
from shardyfusion.config import ColumnWriteInput, DaskWriteOptions, RayWriteOptions

FILES, VALUE_BYTES, ROUNDS = 8, 100, 3
INPUT = ColumnWriteInput(key_col="id", value_spec=ValueSpec.binary_col("v"))


def make_rows(folder: Path, rows: int) -> None:
    random = np.random.default_rng(1)
    each = rows // FILES
    row_group = 200_000  # of which Dask makes partitions
    for number in range(FILES):
        data = pa.py_buffer(random.bytes(each * VALUE_BYTES))
        offsets = pa.py_buffer(np.arange(0, (each + 1) * VALUE_BYTES, VALUE_BYTES, dtype=np.int32).tobytes())
        values = pa.Array.from_buffers(pa.binary(), each, [None, offsets, data])
        ids = pa.array(np.arange(number * each, (number + 1) * each))
        parquet.write_table(pa.table({"id": ids, "v": values}), folder / f"{number}.parquet", row_group_size=row_group)


def best(what: str, once: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - begin)
    print(f"{what}: {min(seconds):.2f} s ({', '.join(f'{s:.2f}' for s in seconds)})")
    return min(seconds)


def configuration(folder: Path, shards: int) -> HashShardedWriteConfig:
    output = WriterOutputConfig(local_root=str(folder / "work"))
    return HashShardedWriteConfig(s3_prefix=(folder / "snapshot").as_uri(), num_dbs=shards, output=output)


def measured(folder: Path, rows: int, is_worker: Callable[[bytes], bool], publish: Callable[[str], object]) -> None:
    for times in (1, 10):
        place = folder / f"rows{times}"
        place.mkdir()
        make_rows(place, rows * times)
        with Peak(is_worker) as peak:
            publish(str(place))
        print(f"peak of a worker's process at {rows * times:,} rows: {peak.kib / 1024:,.0f} MiB", flush=True)


def with_dask(folder: Path, rows: int, shards: int) -> tuple[float, float]:
    import dask
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    from shardyfusion.writer.dask import write_hash_sharded

    dask.config.set({"dataframe.convert-string": False})
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster, Client(cluster):
        data: Any = dd.read_parquet(str(folder / "rows"))
        strings = data.assign(v=data.v.astype(pd.ArrowDtype(pa.binary())))  # what its shuffle can move
        rounds = itertools.count()

        def shuffle() -> None:
            other = strings.assign(round=next(rounds))  # workers remember the result of a graph that they have had
            other.shuffle("id", npartitions=shards).map_partitions(len).compute()

        alone = best("shuffle and count", shuffle)
        options = DaskWriteOptions(progress=False)
        publish = best("publish", lambda: write_hash_sharded(data, configuration(folder, shards), INPUT, options))

        def write(place: str) -> None:
            many = dd.read_parquet(place, split_row_groups=True)
            write_hash_sharded(many, configuration(folder, shards), INPUT, options)

        measured(folder, rows, lambda command: b"multiprocessing" in command and b"spawn_main" in command, write)
        return alone, publish


def with_ray(folder: Path, rows: int, shards: int) -> tuple[float, float]:
    import ray
    from ray.data.context import DataContext, ShuffleStrategy

    from shardyfusion.writer.ray import write_hash_sharded

    os.environ["RAY_worker_niceness"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.shuffle_strategy = ShuffleStrategy.HASH_SHUFFLE
    data: Any = ray.data.read_parquet(str(folder / "rows"))
    alone = best("shuffle and count", lambda: data.repartition(shards, keys=["id"]).materialize().count())
    options = RayWriteOptions(progress=False)
    publish = best("publish", lambda: write_hash_sharded(data, configuration(folder, shards), INPUT, options))

    def write(place: str) -> None:
        write_hash_sharded(ray.data.read_parquet(place), configuration(folder, shards), INPUT, options)

    measured(folder, rows, lambda command: command.startswith(b"ray::"), write)
    return alone, publish


def main() -> None:
    engine = sys.argv[1]
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000
    shards = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    folder = Path(tempfile.mkdtemp(prefix="engines-"))
    try:
        (folder / "rows").mkdir()
        make_rows(folder / "rows", rows)
        alone, publish = {"dask": with_dask, "ray": with_ray}[engine](folder, rows, shards)
        print(f"{engine}: publishing takes {publish / alone:.2f} times its shuffle alone; {rows} rows of {VALUE_BYTES} B, {shards} shards")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
