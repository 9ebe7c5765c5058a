"""What reading from S3 takes: requests, dependent trips, connections, bytes and time, of opening, refreshing and cold look-ups, beside the same ranges fetched by
libcurl alone. A real S3 server on loopback, behind a proxy that counts and, where it says `as S3 answers`, holds each request back as long as S3 took (bench/s3_latency.py,
seeded, so that both sides of a comparison wait for the same draws).

    PYTHONPATH=BUILD/python python bench/s3_reads.py --plain BUILD/bench/plain_gets [--rows N] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from common import ROOT, begins_with, keys_of, sample, tell
from s3_latency import draws

sys.path.insert(0, str(ROOT / "tests" / "support"))

from http_proxy import Proxy, Request, proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    CacheOptions,
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
    WriterOutputConfig,
)
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

VALUE_BYTES, CONNECTIONS, TRIP_S = 100, 256, 0.1
WAVE_TRIP_S = 1.0  # 256 requests at once, and tens of megabytes, take the proxy longer than TRIP_S
AS_S3 = "as S3 answers"


def access(endpoint: str) -> dict[str, Any]:
    return {
        "credential_provider": StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
        "s3_connection_options": {"endpoint_url": endpoint, "region_name": REGION},
    }


def publish(server: S3Server, name: str, rows: int, shards: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        config = HashShardedWriteConfig(
            num_dbs=shards, s3_prefix=f"s3://bucket/{name}", output=WriterOutputConfig(local_root=root), **access(server.endpoint))
        value_fn = lambda key: key.to_bytes(8, "little").ljust(VALUE_BYTES, b".")  # noqa: E731
        write_hash_sharded(range(0, 2 * rows, 2), config, PythonRecordInput(key_fn=int, value_fn=value_fn))


@contextmanager
def reading(endpoint: str, name: str, cache: CacheOptions | None = None, root: str | None = None) -> Iterator[ShardedReader[Any]]:
    with tempfile.TemporaryDirectory() as fresh:
        with ShardedReader(
            s3_prefix=f"s3://bucket/{name}", local_root=root or fresh, cache=cache or CacheOptions(), **access(endpoint)
        ) as reader:
            yield reader


def of_rows(requests: list[Request]) -> list[Request]:
    return [r for r in requests if r.method == "GET" and r.range]


def plainly(program: Path, how: str, endpoint: str, requests: list[Request]) -> list[float]:
    """Milliseconds of the same GETs by libcurl."""
    listed = "".join(f"{r.target} {(r.range or '').removeprefix('bytes=')}\n" for r in requests)
    command = [program, how, endpoint, ACCESS_KEY, SECRET_KEY, REGION, str(CONNECTIONS)]
    return json.loads(subprocess.run(command, input=listed, capture_output=True, text=True, check=True, timeout=300).stdout)


def opening(p: Proxy, shards: list[int], rounds: int) -> None:
    for count in shards:
        name, case = f"shards-{count}", f"{count} shards"
        p.delay = TRIP_S
        trips = []
        for _ in range(3):  # a busy machine may make of one wave two, never less
            p.log.reset()
            with reading(p.endpoint, name) as reader:
                trips.append(p.log.waves)
                sample("open", case, "requests", "requests", len(p.log.requests))
                sample("open", case, "at once", "requests", p.log.max_in_flight)
                sample("open", case, "bytes", "B", p.log.bytes)
                p.log.reset()
                reader.refresh()
                sample("refresh", case, "requests", "requests", len(p.log.requests))
                sample("refresh", case, "answered 304", "requests", sum(r.status == 304 for r in p.log.requests))
        sample("open", case, "trips", "trips", min(trips))
        p.log.reset()
        subprocess.run([sys.executable, __file__, "--open", p.endpoint, name], check=True, timeout=300)  # connections of a process stay for its next reader
        sample("open", case, "connections", "connections", p.log.connections)
        for round in range(rounds):
            p.delay = draws(round)
            start = time.perf_counter()
            with reading(p.endpoint, name):
                sample("open", f"{case}, {AS_S3}", "ours", "ms", (time.perf_counter() - start) * 1e3)


def timed(reader: ShardedReader[Any], keys: list[int]) -> list[float]:
    out = []
    for key in keys:
        start = time.perf_counter()
        value = reader.get(key)
        out.append((time.perf_counter() - start) * 1e3)
        assert value is not None and value[:8] == key.to_bytes(8, "little")
    return out


def cold_gets(p: Proxy, server: S3Server, plain: Path, name: str, rows: int, count: int, slow: int) -> None:
    keys, ranges, most, fetched = [], [], 0, 0
    with reading(p.endpoint, name) as reader:
        for row in range(0, rows, max(1, rows // count)):  # those that lie in a block which another one has brought are left out
            p.delay = 0.0 if keys else TRIP_S
            p.log.reset()
            timed(reader, [2 * row])
            if not keys:
                sample("cold get", "of a key", "trips", "trips", p.log.waves)
            if p.log.requests:
                keys.append(2 * row)
                ranges += of_rows(p.log.requests)
                most = max(most, len(p.log.requests))
                fetched += p.log.bytes
        sample("cold get", "of a key", "requests", "requests", most)
        sample("cold get", "of a key", "bytes", "B", fetched / len(keys))
        p.log.reset()
        assert all(reader.get(key + 1) is None for key in keys)
        sample("cold get", "of an absent key", "requests", "requests", len(p.log.requests) / len(keys))
    tell("cold gets, on loopback")
    with reading(server.endpoint, name) as reader:
        for at in range(0, len(keys), 250):
            sample("cold get", "on loopback", "ours", "ms", *timed(reader, keys[at : at + 250]))
            sample("cold get", "on loopback", "GET by libcurl", "ms", *plainly(plain, "each", server.endpoint, ranges[at : at + 250]))
    tell("cold gets, as S3 answers")
    with reading(p.endpoint, name) as reader:
        p.delay = draws(1)
        sample("cold get", AS_S3, "ours", "ms", *timed(reader, keys[:slow]))
    p.delay = chain([0.0], iter(draws(1), None)).__next__  # its first GET does not count
    sample("cold get", AS_S3, "GET by libcurl", "ms", *plainly(plain, "each", p.endpoint, ranges[:slow]))


def cold_batches(p: Proxy, plain: Path, name: str, rows: int, rounds: int) -> None:
    for count in (1_000, 10_000):
        for gap, what in ((0, "neighbours only"), (CacheOptions().read_gap_bytes, "over gaps as by default")):
            case = f"{count} keys, {what}"
            tell(f"cold multi_get, {case}")
            if gap:  # else they are more than may be under way at once
                p.delay = WAVE_TRIP_S
                trips = []
                for _ in range(3):  # a busy machine may make of one wave two, never less
                    with reading(p.endpoint, name) as reader:
                        p.log.reset()
                        reader.multi_get(keys_of("uniform", rows, count))
                    trips.append(p.log.waves)
                sample("cold multi_get", case, "trips", "trips", min(trips))
            for round in range(rounds):
                keys = list(dict.fromkeys(keys_of("uniform", rows, count + count // 50 + 10, round)))[: min(count, rows // 2)]
                with reading(p.endpoint, name, CacheOptions(read_gap_bytes=gap)) as reader:
                    p.delay = draws(round)
                    p.log.reset()
                    start = time.perf_counter()
                    values = reader.multi_get(keys)
                    took = (time.perf_counter() - start) * 1e3
                    assert all(values[key] is not None for key in keys)
                    requests = list(p.log.requests)
                sample("cold multi_get", case, "requests", "requests", len(requests))
                sample("cold multi_get", case, "at once", "requests", p.log.max_in_flight)
                sample("cold multi_get", case, "bytes", "B", sum(r.bytes for r in requests))
                sample("cold multi_get", f"{case}, {AS_S3}", "ours", "ms", took)
                p.delay = draws(round)
                sample("cold multi_get", f"{case}, {AS_S3}", "GETs by libcurl", "ms", *plainly(plain, "all", p.endpoint, of_rows(requests)))


async def from_disk(p: Proxy, name: str, rows: int, count: int) -> None:
    """What the next process finds in the folder."""
    p.delay = 0.0
    keys = keys_of("uniform", rows, count)
    with tempfile.TemporaryDirectory() as root:
        for who in ("first process", "next process"):
            p.log.reset()
            async with await AsyncShardedReader.open(
                s3_prefix=f"s3://bucket/{name}", local_root=root, cache=CacheOptions(disk_bytes=1 << 30), **access(p.endpoint)
            ) as reader:
                sample("disk cache", who, "requests of opening", "requests", len(p.log.requests))
                p.log.reset()
                await reader.multi_get(keys)
                sample("disk cache", who, f"requests of {count} keys", "requests", len(p.log.requests))
                await asyncio.sleep(2)  # it is written behind


class Hedging:
    """A reader that keeps nothing, so that every look-up asks storage. S3 is in slow motion, and figures are divided by that: then what the proxy
    takes for 128 connections counts little."""

    def __init__(self, p: Proxy, share: float, slow_motion: float) -> None:
        self.p, self.share, self.slow_motion = p, share, slow_motion
        self.who = f"share of {share:.0%}" if share else "not hedged"
        self.draws = {times: draws(times) for times in (1, 4)}  # the same for all

    async def open(self, stack: AsyncExitStack, name: str) -> Hedging:
        cache = CacheOptions(memory_bytes=0, read_gap_bytes=0, hedge_share=self.share)
        root = stack.enter_context(tempfile.TemporaryDirectory())
        opening = AsyncShardedReader.open(s3_prefix=f"s3://bucket/{name}", local_root=root, cache=cache, **access(self.p.endpoint))
        self.reader = await stack.enter_async_context(await opening)
        return self

    async def gets(self, keys: list[int], times: int = 1) -> list[float]:
        """Milliseconds of each, 64 at a time, of an S3 that takes so many times as long."""
        out: list[float] = []
        left, draw = iter(keys), self.draws[times]
        self.p.delay = lambda: self.slow_motion * times * draw()

        async def one_after_the_other() -> None:
            for key in left:
                start = time.perf_counter()
                assert begins_with(await self.reader.get(key), key)
                out.append((time.perf_counter() - start) * 1e3 / self.slow_motion)

        await asyncio.gather(*(one_after_the_other() for _ in range(64)))
        return out

    async def wave(self, keys: list[int]) -> float:
        draw = self.draws[1]
        self.p.delay = lambda: self.slow_motion * draw()
        start = time.perf_counter()
        await self.reader.multi_get(keys)
        return (time.perf_counter() - start) * 1e3 / self.slow_motion

    @property
    def sent(self) -> int:
        return self.reader.cache_stats().hedges_sent


async def hedged_reads(p: Proxy, name: str, rows: int, gets: int, waves: int, slow_motion: float) -> None:
    """Look-ups one by one, and 128 in a wave, each of a block of its own, in turn. Then a store that is slow as a whole, and one that refuses."""
    keys = [2 * (n * rows // gets) for n in range(gets)]
    some, wave = keys[::3], keys[:: max(1, gets // 128)][:128]
    async with AsyncExitStack() as stack:
        every = [await Hedging(p, share, slow_motion).open(stack, name) for share in (0.0, 0.05, 0.1)]
        for h in every:
            await h.gets(some)  # to learn from
        before = {h: h.sent for h in every}
        took: dict[Hedging, list[float]] = {h: [] for h in every}
        for at in range(5):
            for h in every:
                took[h] += await h.gets(keys[at::5])
        for h in every:
            took[h].sort()
            for label, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
                sample("hedged", "gets", f"{h.who}, {label}", "ms", took[h][min(gets - 1, int(part * gets))])
            sample("hedged", "gets", f"{h.who}, requests more", "%", 100 * (h.sent - before[h]) / gets)
        before, took = {h: h.sent for h in every}, {h: [] for h in every}
        for _ in range(waves):
            for h in every:
                took[h].append(await h.wave(wave))
        for h in every:
            sample("hedged", "wave of 128", h.who, "ms", *took[h])
            sample("hedged", "wave of 128", f"{h.who}, requests more", "%", 100 * (h.sent - before[h]) / (waves * len(wave)))
        h = every[1]
        for case, times, refused in (("all four times as slow", 4, 0.0), ("one of ten refused", 1, 0.1)):
            await h.gets(some)  # well again
            sent, random_ = h.sent, random.Random(1).random
            p.refuses = lambda random_=random_, refused=refused: random_() < refused
            await h.gets(some, times)
            p.refuses = lambda: False
            sample("hedged", case, f"{h.who}, requests more", "%", 100 * (h.sent - sent) / len(some))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--hedged", action="store_true", help="nothing but hedged reads")
    parser.add_argument("--hedged-gets", type=int, default=3_000)
    parser.add_argument("--waves", type=int, default=20)
    parser.add_argument("--slow-motion", type=float, default=3, help="of hedged reads")
    parser.add_argument("--open", nargs=2, metavar=("ENDPOINT", "NAME"), help="nothing but that, in a process of its own")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--gets", type=int, default=3_000)
    parser.add_argument("--slow-gets", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 8, 32, 128])
    args = parser.parse_args()
    if args.open:
        with reading(*args.open):
            return
    if not args.plain and not args.hedged:
        parser.error("--plain says where bench/plain_gets is")
    with s3_server() as server:
        (server.folder / "bucket").mkdir(exist_ok=True)
        tell("publishing over S3")
        publish(server, "rows", args.rows, 8)
        for count in () if args.hedged else args.shards:
            publish(server, f"shards-{count}", 2_000 * count, count)
        with proxy(server.endpoint) as p:
            tell("hedged reads")
            asyncio.run(hedged_reads(p, "rows", args.rows, args.hedged_gets, args.waves, args.slow_motion))
            if args.hedged:
                return
            tell("opening")
            opening(p, args.shards, args.rounds)
            cold_gets(p, server, args.plain, "rows", args.rows, args.gets, args.slow_gets)
            cold_batches(p, args.plain, "rows", args.rows, args.rounds)
            asyncio.run(from_disk(p, "rows", args.rows, min(10_000, args.rows)))


main()
