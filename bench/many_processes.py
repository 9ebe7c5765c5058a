"""What several processes take that read one snapshot, beside one that does.

    PYTHONPATH=BUILD/python python bench/many_processes.py [PROCESSES] [MIB] [memory]

Publishes MIB (256) mebibytes of rows on a loopback S3 server and to files. PROCESSES (8) Python processes, each on its own or forked of one that has
imported the package, read a row of every block: with all of the snapshot in memory (residency "memory"), which processes on their own share in files that they map, and
forked ones with their parent; with one disk cache for all (residency "disk"), and from the files, with block caches of 2, 8 and 256 MiB. With "memory" that alone.

Prints, for one process and for all of them, their memory (PSS of /proc/PID/smaps, summed up, without the blocks that they map), what of the files lies in the page cache, with those, and
the ratio of the sums. Of processes on their own also the ratio without what processes take that import the package and do nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardyfusion import CacheOptions, ShardedReader

VALUE = 1000
STEP = 3  # of the rows of a block one or two
MIB = 1 << 20


def place(prefix: str, endpoint: str) -> dict[str, Any]:
    """Who may read it says the environment."""
    return {"s3_prefix": prefix, **({"s3_connection_options": {"endpoint_url": endpoint}} if endpoint else {})}


def opened(residency: str, prefix: str, endpoint: str, local: str, cache_bytes: int) -> ShardedReader:
    cache = CacheOptions(memory_bytes=cache_bytes, disk_bytes=4 << 30 if endpoint else None)
    reader = ShardedReader(local_root=local, cache=cache, residency=residency, **place(prefix, endpoint))
    reader.ready(timeout=600)
    return reader


def read(reader: ShardedReader, rows: int) -> None:
    """Says when it has looked all up, and stays until its input ends."""
    with reader:
        began = time.process_time()
        for i in range(0, rows, STEP):
            key = i * 7919 % rows
            value = reader.get(key)
            assert value is not None and value[:8] == key.to_bytes(8, "big")
        os.write(1, f"ready {(time.process_time() - began) / (rows / STEP) * 1e9:.0f}\n".encode())  # whole, whoever else writes
        sys.stdin.read()


def read_forked(count: int, rows: int, *arguments: Any) -> None:
    parent = opened(*arguments) if arguments[0] == "memory" else None
    for _ in range(count):
        if os.fork() == 0:
            read(opened(*arguments), rows)
            os._exit(0)
    for _ in range(count):
        assert os.wait()[1] == 0
    if parent is not None:
        parent.close()


@contextmanager
def readers(count: int, forked: bool, *arguments: object) -> Iterator[list[float]]:
    """Nanoseconds of processor time a look-up, of each."""
    started = 1 if forked else count
    command = [sys.executable, __file__, "read", str(count if forked else 0), *map(str, arguments)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(started)]
    try:
        lines = [child.stdout.readline().split() for child in running for _ in range(count // started) if child.stdout]
        assert all(line[:1] == ["ready"] for line in lines), lines
        yield [float(line[1]) for line in lines]
    finally:
        for child in running:
            child.communicate()


def pss_of(pid: str) -> int:
    """Without the blocks that it maps, which are part of the page cache."""
    total, counts = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            counts = len(words) < 6 or not words[5].endswith(".blocks")
        elif words[0] == "Pss:" and counts:
            total += int(words[1]) << 10
    return total


def pss(pid: int) -> int:
    """Of the readers below that process."""
    total = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(__file__).name.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
            total += pss_of(child) + pss(int(child))
    return total


def in_page_cache(folder: Path) -> int:
    pages = 0
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 0:
            out = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)], capture_output=True, text=True, check=True)
            pages += int(out.stdout.split()[0])
    return pages


def measure(name: str, count: int, forked: bool, idle: list[int], folder: Path, *arguments: object) -> None:
    sums = []
    for n in (1, count):
        with readers(n, forked, *arguments) as ns:
            mine, cached = pss(os.getpid()), in_page_cache(folder)
        sums.append(mine + cached)
        print(f"{name}, {n}: PSS {mine / MIB:.0f} MiB, page cache {cached / MIB:.0f} MiB, together {(mine + cached) / MIB:.0f}; "
              f"{min(ns) / 1000:.1f} us of processor time a look-up", flush=True)
    without = f", {(sums[1] - idle[1]) / (sums[0] - idle[0]):.2f} without what idle ones take" if not forked else ""
    print(f"{name}: {sums[1] / sums[0]:.2f} times{without}", flush=True)


def idling(count: int) -> list[int]:
    sums = []
    for n in (1, count):
        with readers(n, False, 0, "idle", "", "", "", 0):
            sums.append(pss(os.getpid()))
        print(f"imported and idle, {n}: PSS {sums[-1] / MIB:.0f} MiB", flush=True)
    return sums


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
    from s3_server import ACCESS_KEY, REGION, ROOT, SECRET_KEY, s3_server

    from shardyfusion import HashShardedWriteConfig, PythonRecordInput
    from shardyfusion.writer.python import write_hash_sharded

    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION}
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    rows = (int(sys.argv[2]) if len(sys.argv) > 2 else 256) * MIB // (VALUE + 16)
    records = PythonRecordInput(key_fn=int, value_fn=lambda n: n.to_bytes(8, "big") + os.urandom(VALUE - 8))
    idle = idling(count)
    with s3_server(ROOT / "tests" / "fixtures") as server, tempfile.TemporaryDirectory() as local:
        everywhere = (("s3://scratch/rows", server.endpoint), (Path(local, "snapshot").as_uri(), ""))
        for prefix, endpoint in everywhere[:1] if sys.argv[3:] == ["memory"] else everywhere:
            write_hash_sharded(range(rows), HashShardedWriteConfig(num_dbs=8, **place(prefix, endpoint)), records)
            if endpoint:
                for forked in (False, True):
                    kept = Path(local, f"memory-{forked}")
                    name = f"all in memory, {'forked of one that has it' if forked else 'on their own'}"
                    measure(name, count, forked, idle, kept / "extents", rows, "memory", prefix, endpoint, kept, 4 * rows * VALUE)
            if sys.argv[3:] == ["memory"]:
                continue
            kept = Path(local, "cache")
            folder = kept / "extents" if endpoint else Path(local, "snapshot")
            for cache in (2, 8, 256):
                for forked in (False, True):
                    name = f"{'disk cache' if endpoint else 'local files'}, {cache} MiB of blocks each, {'forked' if forked else 'on their own'}"
                    measure(name, count, forked, idle, folder, rows, "disk" if endpoint else "none", prefix, endpoint, kept, cache * MIB)


def wait_idle() -> None:
    os.write(1, b"ready 0\n")
    sys.stdin.read()


if sys.argv[1:2] == ["read"]:
    if sys.argv[4] == "idle":
        wait_idle()
        sys.exit()
    arguments = (sys.argv[4], sys.argv[5], sys.argv[6], sys.argv[7], int(sys.argv[8]))
    if int(sys.argv[2]) > 0:
        read_forked(int(sys.argv[2]), int(sys.argv[3]), *arguments)
    else:
        read(opened(*arguments), int(sys.argv[3]))
else:
    main()
