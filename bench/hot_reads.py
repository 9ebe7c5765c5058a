"""Look-ups of keys in memory, over and over, for tools/check_instructions.py, which counts the instructions inside of `floor_drive`.

    PYTHONPATH=BUILD/python:BUILD/bench python bench/hot_reads.py FOLDER PATH     # FOLDER: what bench/hot_paths has published

PATH is one of those below; the last three are what any client would have to do for the others. Prints how many keys it looks up. Or it is
`times`: all of them in turn, and then what a key takes of the thread's processor time in the fastest of 300 rounds.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import floor  # bench/floor.c

from shardyfusion import AsyncShardedReader, ShardedReader

ROWS, KEYS, BATCH = 20_000, 2_000, 1_000


LookUp = Callable[[], Coroutine[Any, Any, None]]


def fastest(paths: list[LookUp]) -> dict[LookUp, float]:
    times = dict.fromkeys(paths, float("inf"))
    for _ in range(300):
        for path in paths:
            began = time.thread_time_ns()
            floor.drive(path())
            times[path] = min(times[path], (time.thread_time_ns() - began) / KEYS)
    return times


async def main() -> None:
    with tempfile.TemporaryDirectory() as root, ShardedReader(s3_prefix=Path(sys.argv[1]).resolve().as_uri(), local_root=root) as blocking:
        reader = AsyncShardedReader.from_sync(blocking)
        keys = [2 * n for n in random.Random(1).sample(range(ROWS), KEYS)]
        batches = [keys[at : at + BATCH] for at in range(0, KEYS, BATCH)]
        sizes = [100] * KEYS
        table = await reader.multi_get(keys)  # brings the blocks into memory
        assert all(value is not None and len(value) == 100 for value in table.values())

        async def await_get() -> None:
            for key in keys:
                await reader.get(key)

        async def get() -> None:
            for key in keys:
                blocking.get(key)

        async def multi_get() -> None:
            for batch in batches:
                await reader.multi_get(batch)

        async def await_floor() -> None:
            for size in sizes:
                await floor.get(size)

        async def multi_get_floor() -> None:
            for batch in batches:
                floor.multi_get(batch, 100)

        async def dict_loop() -> None:
            for batch in batches:
                {key: table.get(key) for key in batch}

        paths: list[LookUp] = [await_get, get, multi_get, await_floor, multi_get_floor, dict_loop]
        if sys.argv[2] == "times":
            print("  ".join(f"{path.__name__} {ns:.0f} ns" for path, ns in fastest(paths).items()))
            return
        path = {f.__name__: f for f in paths}[sys.argv[2]]
        floor.drive(path())
    print(KEYS)


asyncio.run(main())
