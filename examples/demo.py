"""Publish a data set, read it back, publish the next version while readers are at work, and say what each step took.

`make demo` runs it on local files: no server, no credentials. The data are 200,000 made-up user profiles.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from shardyfusion import (
    AsyncShardedReader,
    BuildResult,
    HashShardedWriteConfig,
    KeyEncoding,
    PythonRecordInput,
    PythonWriteOptions,
    WriterOutputConfig,
)
from shardyfusion.config import PublishChecks
from shardyfusion.writer.aio import write_hash_sharded as write_async
from shardyfusion.writer.python import write_hash_sharded

USERS = 200_000
SHARDS = 8
CITIES = ("Accra", "Bergen", "Cusco", "Dakar", "Essen", "Fukuoka", "Ghent", "Hanoi", "Izmir", "Jaipur")
INTERESTS = ("chess", "climbing", "cooking", "film", "gardening", "jazz", "running", "sailing", "travel", "weaving")


@dataclass(frozen=True)
class Profile:
    """One user, as the batch job has it."""

    user_id: str
    name: str
    city: str
    interests: list[str]
    score: float
    version: int


def profiles(version: int) -> list[Profile]:
    """The same users in every version; their scores change."""
    people, scores = random.Random(1), random.Random(version)
    made = []
    for number in range(USERS):
        bits = people.getrandbits(64)
        first = bits % len(INTERESTS)
        made.append(
            Profile(
                user_id=f"user-{number:06d}",
                name=f"{CITIES[bits % 7]}-{bits >> 40:06x}",
                city=CITIES[bits % len(CITIES)],
                interests=[*INTERESTS[first:], *INTERESTS[:first]][: 1 + bits % 5],
                score=round(scores.random(), 6),
                version=version,
            )
        )
    return made


ROWS: PythonRecordInput[Profile] = PythonRecordInput(
    key_fn=lambda profile: profile.user_id,
    value_fn=lambda profile: json.dumps(
        {"name": profile.name, "city": profile.city, "interests": profile.interests, "score": profile.score,
         "version": profile.version},
        separators=(",", ":"),
    ).encode(),
)
# Nobody sees a version that has lost many users, or whose rows do not read back.
OPTIONS = PythonWriteOptions(progress=False, checks=PublishChecks(min_rows_share=0.9, sample_keys=200))


def configuration(folder: str, local: str) -> HashShardedWriteConfig:
    return HashShardedWriteConfig(
        num_dbs=SHARDS,
        s3_prefix=folder,
        key_encoding=KeyEncoding.UTF8,
        output=WriterOutputConfig(local_root=local),
    )


def row(what: str, result: str, note: str = "") -> None:
    print(f"    {what:<40} {result:>16}  {note}".rstrip())


def show_write(what: str, result: BuildResult, seconds: float) -> None:
    rows, stored = result.stats.rows_written, sum(shard.db_bytes for shard in result.winners)
    row(what, f"{rows / seconds:,.0f} rows/s", f"{rows:,} rows in {seconds:.2f} s, JSON made on the way")
    row("", f"{stored / 1e6:,.1f} MB", f"in {result.stats.num_winners} shards, {stored / rows:.0f} bytes a row")


async def microseconds(reader: AsyncShardedReader, keys: list[str]) -> float:
    """Of one look-up."""
    start = time.perf_counter_ns()
    for key in keys:
        await reader.get(key)
    return (time.perf_counter_ns() - start) / len(keys) / 1000


async def read(reader: AsyncShardedReader, expected: dict[str, bytes]) -> None:
    keys = list(expected)
    start = time.perf_counter_ns()
    found = await reader.multi_get(keys)
    together = (time.perf_counter_ns() - start) / len(keys) / 1000
    assert found == expected, "every profile as it was published"
    assert await reader.get("nobody") is None
    fresh = [f"user-{n:06d}" for n in random.Random(2).sample(range(USERS), 2000)]
    row("multi_get of 1,000 cold keys", f"{together:,.1f} µs/key")
    row("get, first touch", f"{await microseconds(reader, fresh):,.1f} µs")
    row("get, warm", f"{await microseconds(reader, fresh * 10):,.2f} µs")
    start = time.perf_counter_ns()
    rows = sum([1 async for _ in reader.scan()])
    row("scan of everything, in key order", f"{rows / ((time.perf_counter_ns() - start) / 1e9):,.0f} rows/s")
    assert rows == USERS


class Service:
    """Looks profiles up all the time, as a service would, and counts which version answered."""

    def __init__(self, reader: AsyncShardedReader) -> None:
        self.reader = reader
        self.answers: dict[int, int] = {}
        self.stopping = False

    async def run(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self.stopping:
            keys = [f"user-{rng.randrange(USERS):06d}" for _ in range(20)]
            values = (await self.reader.multi_get(keys)).values()
            versions = {json.loads(value)["version"] for value in values if value is not None}
            assert len(versions) == 1, "a batch is answered by one snapshot"
            version = versions.pop()
            self.answers[version] = self.answers.get(version, 0) + len(keys)
            await asyncio.sleep(0.001)  # a busy service, not one that leaves nobody else the interpreter


async def next_version(reader: AsyncShardedReader, config: HashShardedWriteConfig) -> None:
    service = Service(reader)
    second = await asyncio.to_thread(profiles, 2)
    tasks = [asyncio.create_task(service.run(seed)) for seed in range(4)]
    start = time.perf_counter()
    result = await write_async(second, config, ROWS, OPTIONS)
    show_write("publish version 2, while 4 tasks read", result, time.perf_counter() - start)
    assert set(service.answers) == {1}, "until refresh() the service keeps its version"
    start = time.perf_counter()
    changed = await reader.refresh()
    row("refresh() with look-ups in flight", f"{(time.perf_counter() - start) * 1000:,.1f} ms")
    assert changed and reader.snapshot_info().run_id == result.run_id
    while 2 not in service.answers:
        await asyncio.sleep(0.01)
    service.stopping = True
    await asyncio.gather(*tasks)
    row("answered by version 1, then by 2", f"{service.answers[1]:,} + {service.answers[2]:,}", "none failed, none mixed")


async def main(folder: Path) -> None:
    prefix, local = (folder / "snapshots").as_uri(), str(folder / "local")
    config = configuration(prefix, local)
    print(f"{USERS:,} user profiles, {SHARDS} shards, {prefix}\n")

    first = profiles(1)
    start = time.perf_counter()
    result = write_hash_sharded(first, config, ROWS, OPTIONS)
    show_write("publish version 1", result, time.perf_counter() - start)

    expected = {profile.user_id: ROWS.value_fn(profile) for profile in random.Random(3).sample(first, 1000)}
    start = time.perf_counter()
    reader = await AsyncShardedReader.open(s3_prefix=prefix, local_root=local)
    row("open a reader", f"{(time.perf_counter() - start) * 1000:,.1f} ms")
    async with reader:
        await read(reader, expected)
        await next_version(reader, config)
        user = next(iter(expected))
        print(f"\n    {user}: {(await reader.get(user) or b'').decode()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory(prefix="shardyfusion-demo-") as temporary:
            asyncio.run(main(Path(temporary)))
