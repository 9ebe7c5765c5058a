"""`await reader.get(key)` of keys in memory, over and over, for tools/check_instructions.py, which counts the instructions inside of `floor_drive`.

    PYTHONPATH=BUILD/python:BUILD/bench python bench/hot_await.py FOLDER     # FOLDER: what bench/hot_paths has published

Prints how many keys it looks up.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path

import floor  # bench/floor.c

from shardyfusion import AsyncShardedReader

ROWS, KEYS = 20_000, 2_000


async def main() -> None:
    with tempfile.TemporaryDirectory() as local_root:
        async with await AsyncShardedReader.open(s3_prefix=Path(sys.argv[1]).resolve().as_uri(), local_root=local_root) as reader:
            keys = [2 * n for n in random.Random(1).sample(range(ROWS), KEYS)]
            values = [await reader.get(key) for key in keys]  # brings the blocks into memory
            assert all(value is not None and len(value) == 100 for value in values)

            async def look_up() -> None:
                for key in keys:
                    await reader.get(key)

            floor.drive(look_up())
    print(KEYS)


asyncio.run(main())
