"""Every request of a publish meets a fault in turn; whatever happens, readers see one whole snapshot. And a full disk."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
    ShardyfusionError,
    StaticCredentialProvider,
    WriterOutputConfig,
)
from shardyfusion.config import PublishChecks  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

KEYS = 200
MOST_REQUESTS = 100

FAULTS = {
    "503 once": Fault(status=503, code="SlowDown"),
    "reset, the answer lost": Fault(reset=-1),
    "403": Fault(status=403, code="AccessDenied"),
    "500 for a while": Fault(status=500, code="InternalError", times=3),
}
PASSES = {"503 once"}  # what retries must make up for, wherever it is


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as s:
        yield s


@pytest.fixture
def front(server: S3Server) -> Iterator[Front]:
    with fault_server(server.endpoint) as f:
        yield f


def publish(prefix: str, endpoint: str, version: int, local: Path) -> None:
    config = HashShardedWriteConfig(
        num_dbs=2,
        s3_prefix=prefix,
        credential_provider=StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
        s3_connection_options={"endpoint_url": endpoint, "region_name": REGION, "max_attempts": 3},
        output=WriterOutputConfig(local_root=str(local)),
    )
    rows = PythonRecordInput(key_fn=int, value_fn=lambda n: b"%d of %d" % (n, version))
    options = PythonWriteOptions(progress=False, workers=1, checks=PublishChecks(sample_keys=10))
    write_hash_sharded(range(KEYS), config, rows, options)


def version_there(prefix: str, endpoint: str) -> int:
    """Of which all rows are; asked past the faults."""

    async def read() -> int:
        async with await AsyncShardedReader.open(
            s3_prefix=prefix,
            local_root="unused",
            credential_provider=StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
            s3_connection_options={"endpoint_url": endpoint, "region_name": REGION},
        ) as reader:
            values = await reader.multi_get(list(range(KEYS)))
        versions = {int(value.split()[-1]) for value in values.values() if value is not None}
        assert len(values) == KEYS and None not in values.values() and len(versions) == 1
        return versions.pop()

    return asyncio.run(read())


@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_of_a_publish(kind: str, server: S3Server, front: Front, tmp_path: Path) -> None:
    prefix = f"s3://scratch/{tmp_path.name}/snap"
    publish(prefix, server.endpoint, 0, tmp_path)
    there, failed = 0, 0
    for nth in range(MOST_REQUESTS):
        fault = FAULTS[kind]
        front.plan(Fault(**{**fault.__dict__, "skip": nth}))
        version = nth + 1
        try:
            publish(prefix, front.endpoint, version, tmp_path)
        except ShardyfusionError:
            failed += 1
            now = version_there(prefix, server.endpoint)
            assert now in (there, version), "the one before, or the new one when its answer was lost"
            there = now
        else:
            there = version
            assert version_there(prefix, server.endpoint) == version
        requests = front.log()["requests"]
        assert isinstance(requests, list)
        if all(request["fault"] is None for request in requests):
            break
    else:
        pytest.fail("a publish never came to its end")
    assert nth > 10, "so many requests at least"
    if kind in PASSES:
        assert failed == 0
    elif kind == "403":
        assert failed > 5


FULL_DISK = """
import resource, signal, sys
from shardyfusion import HashShardedWriteConfig, PythonRecordInput, PythonWriteOptions, WriterOutputConfig
from shardyfusion._engine import native
from shardyfusion.writer.python import write_hash_sharded
space = native.Store("mem://full")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
config = HashShardedWriteConfig(num_dbs=2, s3_prefix="mem://full/snap", output=WriterOutputConfig(local_root=sys.argv[1]))
rows = PythonRecordInput(key_fn=int, value_fn=lambda n: b"x" * 1000)
try:
    write_hash_sharded(range(50_000), config, rows, PythonWriteOptions(progress=False, memory_bytes=1 << 20))
except Exception as error:
    print(type(error).__name__, error)
left = [key for key, _, _ in space.list("snap/").wait() if "/runs/" not in key]
print(left)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "spill")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    failure, left = done.stdout.splitlines()
    assert failure.startswith(f"ShardWriteError spill file in {tmp_path / 'spill'}/") and failure.endswith(": write: File too large")
    assert left == "[]"
    assert not list((tmp_path / "spill").rglob("*")), "nothing is left of the spill"
