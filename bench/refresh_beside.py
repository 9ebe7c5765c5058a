"""Warm look-ups while the reader is refreshed, next to the same without: processor time of the thread that looks up, by its own clock,
in rounds in turn. The pointer goes to and fro between two snapshots whose shards all differ, so every refresh opens all of them.

    PYTHONPATH=<built package> python bench/refresh_beside.py [--shards 32] [--rows 200000] [--rounds 10] [--warm-bytes 0]
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

from shardyfusion import CacheOptions, HashShardedWriteConfig, PythonRecordInput, PythonWriteOptions, ShardedReader
from shardyfusion.writer.python import write_hash_sharded

LOOK_UPS = 50_000  # of a round


def publish(prefix: str, shards: int, rows: int, mark: bytes) -> None:
    records = PythonRecordInput[int](key_fn=lambda key: key, value_fn=lambda key: mark + str(key).encode().ljust(99, b"."))
    write_hash_sharded(range(rows), HashShardedWriteConfig(num_dbs=shards, s3_prefix=prefix), records, PythonWriteOptions(progress=False))


def look_up(reader: ShardedReader, hot: int) -> list[int]:
    """Nanoseconds of each of the look-ups."""
    took = []
    clock = time.thread_time_ns
    for i in range(LOOK_UPS):
        start = clock()
        reader.get(i % hot)
        took.append(clock() - start)
    return took


def tell(name: str, took: list[int]) -> float:
    took.sort()
    p50, p99, p999 = (took[int(len(took) * share)] / 1000 for share in (0.5, 0.99, 0.999))
    print(f"{name:8s} p50 {p50:6.2f} us, p99 {p99:6.2f} us, p99.9 {p999:7.2f} us, {len(took)} look-ups")
    return p99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--hot", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warm-bytes", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prefix, pointer = (Path(folder) / "snapshot").as_uri(), Path(folder) / "snapshot" / "_CURRENT"
        pointers = []
        for mark in (b"a", b"b"):
            publish(prefix, args.shards, args.rows, mark)
            pointers.append(pointer.read_bytes())
        with ShardedReader(s3_prefix=prefix, local_root=folder, cache=CacheOptions(warm_bytes=args.warm_bytes)) as reader:
            plain: list[int] = []
            beside: list[int] = []
            refreshes = 0
            for _ in range(args.rounds):
                look_up(reader, args.hot)
                plain += look_up(reader, args.hot)
                stop = threading.Event()

                def refresh(stop: threading.Event = stop) -> None:
                    nonlocal refreshes
                    while not stop.is_set():
                        other = pointer.with_name("other")
                        other.write_bytes(pointers[refreshes % 2])
                        other.rename(pointer)
                        assert reader.refresh()
                        refreshes += 1

                thread = threading.Thread(target=refresh)
                thread.start()
                beside += look_up(reader, args.hot)
                stop.set()
                thread.join()
            a, b = tell("without", plain), tell("during", beside)
            print(f"p99 during {refreshes} refreshes is {b / a:.2f} times that without")


main()
