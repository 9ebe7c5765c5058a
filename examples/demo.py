"""Open the bundled snapshot, look keys up, scan its first rows, and say what each step took.

`make demo` runs it on local files: no server, no credentials. The snapshot was published by a batch job to
s3://bucket/golden/slatedb-str-utf8; here it is read from a copy of that folder.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardyfusion import AsyncShardedReader

SNAPSHOT = Path(__file__).resolve().parent / "snapshot"


@contextmanager
def timed(what: str, count: int = 1) -> Iterator[None]:
    start = time.perf_counter_ns()
    yield
    each = (time.perf_counter_ns() - start) / count / 1000
    print(f"    {what}: {each:,.2f} µs" + (" each" if count > 1 else ""))


async def main(prefix: str) -> None:
    with tempfile.TemporaryDirectory() as local_root:
        print(f"open {prefix}")
        with timed("open"):
            reader = await AsyncShardedReader.open(s3_prefix=prefix, local_root=local_root)
        async with reader:
            info = reader.snapshot_info()
            print(f"    run {info.run_id}: {info.num_dbs} shards, {info.row_count} rows, "
                  f"{info.sharding.value} sharding, {info.key_encoding.value} keys, {info.created_at:%Y-%m-%d %H:%M}")

            print("\nshard   rows  smallest key .. largest key")
            for shard in reader.shard_details():
                print(f"{shard.db_id:5}  {shard.row_count:5}  {shard.min_key!s:.20} .. {shard.max_key!s:.20}")

            print("\nfirst rows of every shard, merged in key order")
            rows = []
            with timed("scan of 1,000 rows"):
                async for key, value in reader.scan(limit=1000):
                    rows.append((key, value))
            for key, value in rows[:5]:
                print(f"    {key.decode()[:24]:24} {len(value):4} bytes  shard {reader.route_key(key.decode())}")

            known = [key.decode() for key, _ in rows]
            print("\nlook-ups")
            with timed("first get"):
                value = await reader.get(known[0])
            print(f"    {known[0][:24]} -> {value[:40]!r}")
            with timed("get of an absent key"):
                print(f"    nobody -> {await reader.get('nobody')!r}")
            with timed("multi_get", len(known)):
                found = await reader.multi_get(known)
            assert dict(rows) == {key.encode(): value for key, value in found.items()}
            with timed("warm get", 20 * len(known)):
                for _ in range(20):
                    for key in known:
                        await reader.get(key)

            async with reader.reader_for_key(known[0]) as handle:
                raw = await handle.get(reader.encode_key(known[0]))
            assert raw == value

            health = reader.health()
            print(f"\nhealth: {health.status}, {health.num_shards} shards, "
                  f"reader age {health.manifest_age.total_seconds():.2f} s")
            with timed("refresh"):
                print(f"refresh: a newer snapshot? {await reader.refresh()}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else SNAPSHOT.as_uri()))
