"""Snapshots on a real S3 server, behind the front that injects faults. Each value fills a block of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, StaticCredentialProvider, WriterOutputConfig  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

__all__ = ["ACCESS_KEY", "REGION", "ROWS", "SECRET_KEY", "Fault", "Front", "access", "config", "no_faults", "publishing", "value_of"]


def value_of(key: int) -> bytes:
    return key.to_bytes(4, "big") * 1024


ROWS = PythonRecordInput(key_fn=int, value_fn=value_of)


def access(endpoint: str, **connection: Any) -> dict[str, Any]:
    return {
        "credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
        "s3_connection_options": {"endpoint_url": endpoint, "region_name": REGION, **connection},
    }


def config(prefix: str, local: Path, **options: Any) -> HashShardedWriteConfig:
    return HashShardedWriteConfig(num_dbs=2, s3_prefix=prefix, output=WriterOutputConfig(local_root=str(local)), **options)


@contextmanager
def publishing(local: Path, keys: int, *prefixes: str) -> Iterator[Front]:
    """The front of a server with one snapshot below each prefix, of the keys below `keys`."""
    with s3_server() as server:
        for prefix in prefixes:
            write_hash_sharded(range(keys), config(prefix, local, **access(server.endpoint)), ROWS)
        with fault_server(server.endpoint) as front:
            yield front


@pytest.fixture(autouse=True)
def no_faults(front: Front) -> Iterator[None]:
    yield
    front.plan()
