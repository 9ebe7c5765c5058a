"""Write a SlateDB database with the real wheel on the path, and what its own reader returns, as JSON on stdout.

    PYTHONPATH=<folder of a slatedb wheel> python write_database.py FOLDER CASE
The cases differ in what the writer leaves behind: rows in the WAL, in L0, in sorted runs; codecs; tombstones.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import slatedb.uniffi as slatedb

CASES: dict[str, dict[str, str]] = {
    "plain": {},
    "small_l0": {"l0_sst_size_bytes": "16384"},
    "zstd": {"compression_codec": '"Zstd"', "l0_sst_size_bytes": "32768"},
    "lz4": {"compression_codec": '"Lz4"', "l0_sst_size_bytes": "32768"},
    "filters": {"min_filter_keys": "1", "l0_sst_size_bytes": "65536"},
}


def database_path(folder: Path) -> str:
    return str(folder.resolve() / "db").lstrip("/")


async def write(folder: Path, case: str) -> None:
    rng = random.Random(case)
    store = slatedb.ObjectStore.resolve("file:///")
    for generation in range(3):  # reopened: several writers, fences, L0 and WAL side by side
        builder = slatedb.DbBuilder(database_path(folder), store)
        settings = slatedb.Settings.default()
        for key, value in CASES[case].items():
            settings.set(key, value)
        builder.with_settings(settings)
        db = await builder.build()
        for _ in range(20):
            batch = slatedb.WriteBatch()
            for _ in range(50):
                key = f"key-{rng.randrange(3000):05d}".encode()
                if rng.random() < 0.1:
                    batch.delete(key)
                else:
                    batch.put(key, f"{generation}-".encode() + rng.randbytes(rng.randrange(120)))
            await db.write(batch)
        await db.flush()
        await db.shutdown()


async def read_back(folder: Path) -> list[tuple[str, str]]:
    store = slatedb.ObjectStore.resolve("file:///")
    reader = await slatedb.DbReaderBuilder(database_path(folder), store).build()
    rows = []
    iterator = await reader.scan(slatedb.KeyRange(start=None, start_inclusive=True, end=None, end_inclusive=False))
    while (row := await iterator.next()) is not None:
        rows.append((row.key.hex(), row.value.hex()))
    await reader.shutdown()
    return rows


async def main() -> None:
    folder, case = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    await write(folder, case)
    json.dump(await read_back(folder), sys.stdout)


asyncio.run(main())
