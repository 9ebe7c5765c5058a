"""What a reader keeps on local disk: the next one asks S3 for no SST any more, and what lies there is never believed unchecked."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from http_proxy import Proxy, proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402
from test_s3 import CASES, FIXTURES, lookups, open_case  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    CacheOptions,
    CacheStats,
    HashShardedWriteConfig,
    PythonRecordInput,
    ShardedReader,
    SlateDbFactory,
    SlateDbSettings,
)
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.errors import ConfigValidationError, ExhaustedError  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402


@pytest.fixture(scope="module")
def counted() -> Iterator[Proxy]:
    with s3_server(FIXTURES) as server, proxy(server.endpoint) as p:
        yield p


@asynccontextmanager
async def cached(case: str, counted: Proxy, root: Path, **options: object) -> AsyncIterator[AsyncShardedReader]:
    async with await open_case(case, counted.endpoint, root, cache=CacheOptions(disk_bytes=4 << 20), **options) as reader:
        yield reader


def asked_for_ssts(counted: Proxy) -> list[str]:
    return [r.target for r in counted.log.requests if ".sst" in r.target]


async def read_all(case: str, reader: AsyncShardedReader) -> None:
    for key, value in lookups(case):
        assert await reader.get(key) == value


async def written(case: str, counted: Proxy, root: Path) -> None:
    """What was read is written behind: until a reader finds all of it."""
    async with asyncio.timeout(60):
        while True:
            counted.log.reset()
            async with cached(case, counted, root) as reader:
                await read_all(case, reader)
            if not asked_for_ssts(counted):
                return


@pytest.mark.parametrize("case", CASES)
async def test_the_next_reader_asks_for_no_sst(case: str, counted: Proxy, tmp_path: Path) -> None:
    async with cached(case, counted, tmp_path) as reader:
        await read_all(case, reader)
    await written(case, counted, tmp_path)
    assert counted.log.requests, "pointer and manifests are asked for"
    assert tmp_path.joinpath("extents").stat().st_mode & 0o777 == 0o700


async def test_damage_is_read_anew(counted: Proxy, tmp_path: Path) -> None:
    case = "slatedb-hash-u64be"
    async with cached(case, counted, tmp_path) as reader:
        await read_all(case, reader)
    await written(case, counted, tmp_path)
    for file in tmp_path.joinpath("extents").iterdir():
        data = bytearray(file.read_bytes())
        data[8192:] = bytes(b ^ 1 for b in data[8192:])  # behind header and slots
        file.write_bytes(data)
    counted.log.reset()
    async with cached(case, counted, tmp_path) as reader:
        await read_all(case, reader)
        assert asked_for_ssts(counted)


async def test_a_folder_of_others_is_refused(counted: Proxy, tmp_path: Path) -> None:
    os.makedirs(tmp_path / "extents")
    os.chmod(tmp_path / "extents", 0o777)
    with pytest.raises(PermissionError, match="extents"):
        async with cached("slatedb-hash-u64be", counted, tmp_path):
            pass


async def test_options_are_checked(counted: Proxy, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cache must be CacheOptions"):
        await open_case("slatedb-hash-u64be", counted.endpoint, tmp_path, cache={"disk_bytes": 1})
    with pytest.raises(ValueError, match="disk_bytes"):
        await open_case("slatedb-hash-u64be", counted.endpoint, tmp_path, cache=CacheOptions(disk_bytes=1))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("residency", ["memory", "disk"])
async def test_a_reader_that_is_ready_asks_for_nothing(
    case: str, residency: str, counted: Proxy, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    async with cached(case, counted, tmp_path, residency=residency) as reader:
        await reader.ready(timeout=60, progress=lambda done, total: told.append((done, total)))
        assert told[-1][0] == told[-1][1] > 0
        counted.log.reset()
        await read_all(case, reader)
        await reader.ready()
        assert counted.log.requests == []


def test_a_blocking_reader_is_ready_too(counted: Proxy, tmp_path: Path) -> None:
    case = "slatedb-hash-u64be"
    told: list[tuple[int, int]] = []
    with ShardedReader(
        s3_prefix=f"s3://bucket/golden/{case}", local_root=str(tmp_path), residency="memory",
        credential_provider=StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
        s3_connection_options={"endpoint_url": counted.endpoint, "region_name": REGION},
    ) as reader:
        reader.ready(progress=lambda done, total: told.append((done, total)))
        assert told[-1][0] == told[-1][1] > 0
        counted.log.reset()
        for key, value in lookups(case):
            assert reader.get(key) == value
        reader.ready(timeout=60)
        assert counted.log.requests == []


INHERITING = """
import os, random, sys
from shardyfusion import CacheOptions, ShardedReader
from shardyfusion.credentials import StaticCredentialProvider

endpoint, access, secret, region, root = sys.argv[1:]
reader = ShardedReader(
    s3_prefix="s3://scratch/large", local_root=root, residency="memory", cache=CacheOptions(memory_bytes=64 << 20),
    credential_provider=StaticCredentialProvider(access_key_id=access, secret_access_key=secret),
    s3_connection_options={"endpoint_url": endpoint, "region_name": region})
reader.ready(timeout=60)
everything = reader.cache_stats()
assert everything.bytes_fetched > 8_000_000


def child(of):
    with of.reopen() as mine:
        of.close()
        assert mine.get(7) == random.Random(7).randbytes(4000)  # from storage: nothing is inherited before it is asked for
        mine.ready(timeout=60)
        found = mine.cache_stats()
        assert found.bytes_fetched < everything.bytes_fetched / 10, found
        assert found.bytes > 8_000_000, found  # counted here as it was there
        assert mine.multi_get(range(2000)) == {n: random.Random(n).randbytes(4000) for n in range(2000)}
        assert mine.cache_stats().bytes_fetched == found.bytes_fetched
        yield mine


def fork(of, generations):
    pid = os.fork()
    if pid == 0:
        for mine in child(of):
            if generations > 1:
                fork(mine, generations - 1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


fork(reader, 2)
assert reader.get(7) == random.Random(7).randbytes(4000)
"""


def test_a_forked_child_finds_what_its_parent_kept(tmp_path: Path) -> None:
    with s3_server() as server:
        published(server.folder / "scratch" / "large", 2000)
        # from 3.12 on, Python warns of every fork with threads
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", INHERITING, server.endpoint, ACCESS_KEY, SECRET_KEY, REGION, str(tmp_path)],
            capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and done.returncode == 0


SHARED_ROWS = 400
SHARED_BYTES = SHARED_ROWS * 4000
SHARING = """
import os, random, sys
from shardyfusion import CacheOptions, ShardedReader
from shardyfusion.credentials import StaticCredentialProvider

endpoint, access, secret, region, root, disk_mib, rows = sys.argv[1:]
rows = int(rows)
reader = ShardedReader(
    s3_prefix="s3://scratch/large", local_root=root, residency="memory",
    cache=CacheOptions(memory_bytes=64 << 20, disk_bytes=int(disk_mib) << 20),
    credential_provider=StaticCredentialProvider(access_key_id=access, secret_access_key=secret),
    s3_connection_options={"endpoint_url": endpoint, "region_name": region})
told = []
reader.ready(timeout=60, progress=lambda done, total: told.append((done, total)))
assert told[-1][0] == told[-1][1] > 0
before = reader.cache_stats()


def everything():
    assert reader.multi_get(range(rows)) == {n: random.Random(n).randbytes(4000) for n in range(rows)}
    assert all(reader.get(n) == random.Random(n).randbytes(4000) for n in range(0, rows, 7))
    assert reader.cache_stats().bytes_fetched == before.bytes_fetched


everything()
blocks = [0, 0]  # of what is mapped, bytes that are in memory, and of these what this process alone has changed
for line in open("/proc/self/smaps"):
    words = line.split()
    if "-" in words[0]:
        mapped = len(words) > 5 and ".blocks" in words[5]
    elif mapped and words[0] == "Rss:":
        blocks[0] += int(words[1]) << 10
    elif mapped and words[0] == "Anonymous:":
        blocks[1] += int(words[1]) << 10
print(before.bytes, before.bytes_fetched, *blocks, flush=True)
sys.stdin.readline()
everything()
"""


class Sharing:
    """A process that has it all in memory, until it is let go."""

    def __init__(self, endpoint: str, root: Path, disk_mib: int = 64) -> None:
        command = [sys.executable, "-c", SHARING, endpoint, ACCESS_KEY, SECRET_KEY, REGION, str(root), str(disk_mib), str(SHARED_ROWS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self) -> list[int]:
        """Bytes in memory, bytes that came from storage; of what is mapped, bytes in memory and bytes that are the process's own."""
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return [int(word) for word in line.split()]

    def end(self) -> None:
        _, errors = self.process.communicate("\n", timeout=120)
        assert errors == "" and self.process.returncode == 0


def test_processes_share_what_stays_in_memory(tmp_path: Path) -> None:
    """Started at the same time: each block comes from storage once, and is in memory once."""
    with s3_server() as server:
        published(server.folder / "scratch" / "large", SHARED_ROWS)
        together = [Sharing(server.endpoint, tmp_path) for _ in range(3)]
        figures = [process.ready() for process in together]
        assert all(f[0] > SHARED_BYTES and f[2] > SHARED_BYTES and f[3] == 0 for f in figures), figures
        fetched = sum(f[1] for f in figures)
        assert SHARED_BYTES < fetched < 3 * SHARED_BYTES / 2, figures
        files = list(tmp_path.joinpath("extents").glob("*.blocks"))
        assert len(files) == 2 and not list(tmp_path.joinpath("extents").glob("*.making"))
        for file in files:
            file.unlink()  # as one does that needs the room; who has them mapped reads on
        for process in together:
            process.end()


@pytest.mark.parametrize("harm", ["flipped", "left by a killed writer"])
def test_files_that_are_no_good_are_made_again(harm: str, tmp_path: Path) -> None:
    with s3_server() as server:
        published(server.folder / "scratch" / "large", SHARED_ROWS)
        first = Sharing(server.endpoint, tmp_path)
        first.ready()
        first.end()
        for file in tmp_path.joinpath("extents").glob("*.blocks"):
            data = bytearray(file.read_bytes())
            if harm == "flipped":
                data[len(data) // 2] ^= 1
            else:
                file.unlink()
                file = file.with_suffix(".making")
            file.write_bytes(data)
        second = Sharing(server.endpoint, tmp_path)
        assert second.ready()[2] > SHARED_BYTES
        second.end()
        assert len(list(tmp_path.joinpath("extents").glob("*.blocks"))) == 2
        third = Sharing(server.endpoint, tmp_path)
        assert third.ready()[1] < SHARED_BYTES / 10
        third.end()


def test_a_writer_that_does_not_go_on_is_not_waited_for_long(tmp_path: Path) -> None:
    """Half of the time that there is: then the process reads for itself."""
    with s3_server() as server:
        published(server.folder / "scratch" / "large", SHARED_ROWS)
        first = Sharing(server.endpoint, tmp_path)
        first.ready()
        first.end()
        held = []
        for file in list(tmp_path.joinpath("extents").glob("*.blocks")):
            file.rename(file.with_suffix(".making"))
            held.append(os.open(file.with_suffix(".making"), os.O_RDONLY))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
        with ShardedReader(
            s3_prefix="s3://scratch/large", local_root=str(tmp_path), residency="memory",
            cache=CacheOptions(memory_bytes=64 << 20, disk_bytes=64 << 20),
            credential_provider=StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
            s3_connection_options={"endpoint_url": server.endpoint, "region_name": REGION},
        ) as reader:
            ready = False
            while not ready:  # however slow the machine is: what has come in time stays
                try:
                    reader.ready(timeout=2)
                    ready = True
                except TimeoutError:
                    pass
            assert reader.get(7) == random.Random(7).randbytes(4000)
            assert not list(tmp_path.joinpath("extents").glob("*.blocks"))
        for fd in held:
            os.close(fd)


def test_without_room_on_disk_each_has_its_own(tmp_path: Path) -> None:
    with s3_server() as server:
        published(server.folder / "scratch" / "large", SHARED_ROWS)
        alone = Sharing(server.endpoint, tmp_path, disk_mib=1)
        figures = alone.ready()
        assert figures[0] > SHARED_BYTES and figures[2] == 0
        alone.end()
        assert not list(tmp_path.joinpath("extents").glob("*.blocks"))


def test_with_room_on_disk_for_a_part_the_same_part_is_shared(tmp_path: Path) -> None:
    """What does not fit puts nothing out that is mapped: it would stay on disk, without a name, once more for each process."""
    with s3_server() as server:
        published(server.folder / "scratch" / "large", SHARED_ROWS)
        found = []
        together = []
        for _ in range(2):
            together.append(Sharing(server.endpoint, tmp_path, disk_mib=2))
            figures = together[-1].ready()
            assert SHARED_BYTES / 4 < figures[2] <= 1 << 20, figures
            found.append([(file.name, file.stat().st_ino) for file in tmp_path.joinpath("extents").glob("*.blocks")])
        assert found[0] == found[1] and len(found[0]) == 1
        for process in together:
            process.end()


async def test_index_is_there_when_it_is_open(counted: Proxy, tmp_path: Path) -> None:
    async with cached("slatedb-hash-u64be", counted, tmp_path, residency="index") as reader:
        counted.log.reset()
        await reader.ready()
        assert counted.log.requests == []


async def test_residencies_that_cannot_be(counted: Proxy, tmp_path: Path) -> None:
    case = "slatedb-hash-u64be"
    with pytest.raises(ConfigValidationError, match="disk_bytes"):
        await open_case(case, counted.endpoint, tmp_path, residency="disk")
    with pytest.raises(ValueError, match="lazy"):
        await open_case(case, counted.endpoint, tmp_path, residency="memory", lazy_open=True)


def published(prefix: Path, values: int, **options: object) -> str:
    """The URL of a snapshot of values of 4 KB that do not shrink."""
    rows = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: random.Random(n).randbytes(4000))
    write_hash_sharded(range(values), HashShardedWriteConfig(num_dbs=2, s3_prefix=prefix.as_uri(), **options), rows)
    return prefix.as_uri()


async def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    with s3_server() as server:
        url = published(server.folder / "scratch" / "large", 400)
        async with await AsyncShardedReader.open(
            s3_prefix="s3://scratch/large", local_root=str(tmp_path / "root"), residency="disk", cache=CacheOptions(disk_bytes=1 << 20),
            credential_provider=StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
            s3_connection_options={"endpoint_url": server.endpoint, "region_name": REGION},
        ) as reader:
            with pytest.raises(ExhaustedError, match=r"blocks of \d+ bytes, and the disk cache has room for \d+: raise disk_bytes"):
                await reader.ready()
            with ShardedReader(s3_prefix=url, local_root=str(tmp_path)) as local:
                assert await reader.get(7) == local.get(7) is not None


def test_what_turns_out_not_to_fit_is_let_go(tmp_path: Path) -> None:
    """Blocks that unpack to more than there is room for: the reader goes on with the cache that it had."""
    settings = SlateDbSettings(raw_overrides={"compression_codec": "Zstd"})
    rows = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"%04d" % n * 1000)
    config = HashShardedWriteConfig(num_dbs=4, s3_prefix=(tmp_path / "snapshot").as_uri(), adapter_factory=SlateDbFactory(settings=settings))
    write_hash_sharded(range(2000), config, rows)
    cache = CacheOptions(memory_bytes=3 << 20)
    with ShardedReader(s3_prefix=config.s3_prefix, local_root=str(tmp_path), cache=cache, residency="memory") as reader:
        for _ in range(2):
            with pytest.raises(ExhaustedError, match="takes more than its cache may have"):
                reader.ready()
            assert reader.cache_stats().bytes < 1 << 20  # indexes, filters and places of blocks
        for _ in range(2):
            assert reader.multi_get(range(100)) == {n: b"%04d" % n * 1000 for n in range(100)}
        before = reader.cache_stats()
        assert reader.get(7) == b"0007" * 1000
        after = reader.cache_stats()
        assert (after.hits, after.misses) == (before.hits + 1, before.misses)


def test_shards_that_cannot_stay(tmp_path: Path) -> None:
    url = published(tmp_path / "published", 10)
    with pytest.raises(ConfigValidationError, match="which is for what lies on S3"):
        ShardedReader(s3_prefix=url, local_root=str(tmp_path / "root"), residency="disk", cache=CacheOptions(disk_bytes=1 << 20))


@pytest.mark.parametrize("case", CASES)
async def test_a_cache_of_its_own(case: str, counted: Proxy, tmp_path: Path) -> None:
    """It counts what this reader has looked for, and nobody else's blocks are in it."""
    async with (
        await open_case(case, counted.endpoint, tmp_path, cache=CacheOptions(memory_bytes=1 << 30)) as own,
        await open_case(case, counted.endpoint, tmp_path, cache=CacheOptions(memory_bytes=0)) as without,
        await open_case(case, counted.endpoint, tmp_path) as sharing,
    ):
        shared = sharing.cache_stats()
        assert shared.max_bytes == 256 << 20
        await read_all(case, own)
        await read_all(case, own)
        first = own.cache_stats()
        assert first.hits + first.misses > 0 and 0 < first.bytes < first.max_bytes == 1 << 30
        assert (sharing.cache_stats().hits, sharing.cache_stats().misses) == (shared.hits, shared.misses)
        assert own.cache_stats().disk_hits == 0
        counted.log.reset()
        await read_all(case, own)
        assert counted.log.requests == []
        await read_all(case, without)
        await read_all(case, without)
        asked = [r.target for r in counted.log.requests]
        assert len(asked) > len(set(asked)) or not asked  # the same again, but for what opening has brought
        stats = without.cache_stats()
        assert (stats.hits, stats.max_bytes) == (0, 0) and stats.requests >= len(asked)
    assert own.cache_stats().bytes <= first.bytes  # closed


async def test_what_the_disk_cache_did(counted: Proxy, tmp_path: Path) -> None:
    case = "slatedb-hash-u64be"
    async with cached(case, counted, tmp_path) as reader:
        await read_all(case, reader)
        await written(case, counted, tmp_path)
        assert reader.cache_stats().disk_misses > 0 and reader.cache_stats().disk_bytes_written > 0
    async with cached(case, counted, tmp_path) as reader:
        await read_all(case, reader)
        assert reader.cache_stats().disk_hits > 0 and reader.cache_stats().disk_bytes_read > 0


def test_a_reader_that_is_not_open_has_no_stats(tmp_path: Path) -> None:
    assert AsyncShardedReader(s3_prefix=str(tmp_path), local_root=str(tmp_path)).cache_stats() == CacheStats()


@pytest.mark.parametrize("wrong", [-1, 1.5, "1"])
async def test_memory_is_whole_bytes(wrong: Any, counted: Proxy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory_bytes"):
        await open_case("slatedb-hash-u64be", counted.endpoint, tmp_path, cache=CacheOptions(memory_bytes=wrong))
