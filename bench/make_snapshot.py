"""Publish a snapshot of integer keys with the real SlateDB engine, for the benchmarks.

    PYTHONPATH=<slatedb wheel>:<built package> python bench/make_snapshot.py PREFIX_FOLDER [--rows N] [--shards N] [--value-bytes N]

Keys are 0 .. rows-1, stored as u64be; the value of key k is k in decimal, padded with dots. The folder becomes a
complete snapshot: `_CURRENT`, one manifest, one SlateDB database a non-empty shard.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
import uuid
from datetime import datetime, timezone
from pathlib import Path

import slatedb.uniffi as slatedb

from shardyfusion._native import hash_db_id

TABLES = """
CREATE TABLE build_meta (run_id TEXT NOT NULL, created_at TEXT NOT NULL, num_dbs INTEGER NOT NULL,
    s3_prefix TEXT NOT NULL, key_col TEXT NOT NULL, sharding TEXT NOT NULL, db_path_template TEXT NOT NULL,
    shard_prefix TEXT NOT NULL, format_version INTEGER NOT NULL, key_encoding TEXT NOT NULL,
    custom TEXT NOT NULL DEFAULT '{}');
CREATE TABLE shards (db_id INTEGER NOT NULL PRIMARY KEY, db_url TEXT, attempt INTEGER NOT NULL,
    row_count INTEGER NOT NULL, db_bytes INTEGER NOT NULL, min_key TEXT, max_key TEXT, checkpoint_id TEXT,
    writer_info TEXT NOT NULL DEFAULT '{}');
"""
SHARDING = {"cel_columns": None, "cel_expr": None, "hash_algorithm": "xxh3_64", "routing_values": None,
            "strategy": "hash"}


def value_of(key: int, value_bytes: int) -> bytes:
    return str(key).encode().ljust(value_bytes, b".")


async def write_shard(folder: Path, keys: list[int], value_bytes: int) -> None:
    store = slatedb.ObjectStore.resolve("file:///")
    path = str(folder.resolve()).lstrip("/")
    db = await slatedb.DbBuilder(path, store).build()
    for start in range(0, len(keys), 5000):
        batch = slatedb.WriteBatch()
        for key in keys[start : start + 5000]:
            batch.put(key.to_bytes(8, "big"), value_of(key, value_bytes))
        await db.write(batch)
    await db.flush_with_options(slatedb.FlushOptions(flush_type=slatedb.FlushType.MEM_TABLE))
    await db.shutdown()


def write_manifest(prefix: Path, url: str, rows: list[tuple]) -> None:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    folder = prefix / "manifests" / f"{now}_run_id=bench"
    folder.mkdir(parents=True)
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        connection = sqlite3.connect(file.name)
        connection.executescript(TABLES)
        connection.execute("INSERT INTO build_meta VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                           ("bench", now, len(rows), url, "_key", json.dumps(SHARDING), "db={db_id:05d}", "shards", 4,
                            "u64be", "{}"))
        connection.executemany("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [r for r in rows if r[1]])
        connection.commit()
        connection.close()
        (folder / "manifest").write_bytes(Path(file.name).read_bytes())
    (prefix / "_CURRENT").write_text(json.dumps({
        "format_version": 1, "manifest_content_type": "application/x-sqlite3",
        "manifest_ref": f"{url}/manifests/{folder.name}/manifest", "run_id": "bench", "updated_at": now}))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("--url", help="the prefix as published; default s3://bucket/NAME")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--value-bytes", type=int, default=100)
    args = parser.parse_args()
    url = args.url or f"s3://bucket/{args.prefix.name}"
    keys: list[list[int]] = [[] for _ in range(args.shards)]
    for key in range(args.rows):
        keys[hash_db_id(key, args.shards)].append(key)
    rows: list[tuple] = []
    for db_id, shard in enumerate(keys):
        below = f"shards/run_id=bench/db={db_id:05d}/attempt=00"
        if not shard:
            rows.append((db_id, None))
            continue
        await write_shard(args.prefix / below, shard, args.value_bytes)
        rows.append((db_id, f"{url}/{below}", 0, len(shard), 0, str(shard[0]), str(shard[-1]),
                     uuid.uuid4().hex, "{}"))
    write_manifest(args.prefix, url, rows)


if __name__ == "__main__":
    asyncio.run(main())
