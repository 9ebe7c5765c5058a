"""Which event loops the tests run on: uvloop too where it matters how a coroutine meets its loop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from fixtures import FIXTURES  # noqa: E402
from http_proxy import Proxy, proxy  # noqa: E402
from postgres_server import PostgresServer  # noqa: E402
from s3_server import S3Server, s3_server  # noqa: E402

BOTH_LOOPS = {"test_engine", "test_plugged", "test_turns"}
# What `make check` leaves to `make test`: peers, servers that fail in every way, crashes, floods, memory that runs out.
SLOW = {
    "test_cel_peer", "test_cli_crash", "test_credentials", "test_damage", "test_interop", "test_interop_write", "test_lifecycle", "test_memory",
    "test_dask", "test_nearly_s3", "test_nomemory", "test_processes", "test_ray", "test_retries", "test_spark", "test_turns", "test_wheel", "test_writer_faults",
    "test_writer_plugged",
}  # fmt: skip


def pytest_configure() -> None:
    """A shell that runs us in the background has us ignore SIGINT, and so would the programs that tests interrupt."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    factories: dict[str, Any] = {"asyncio": asyncio.new_event_loop}
    if item.module.__name__ in BOTH_LOOPS:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One for the run, started by whoever asks first. What a test stops, it starts again."""
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A real S3 server over the fixtures, for the tests of a file."""
    with s3_server(FIXTURES) as s:
        yield s


@pytest.fixture
def slow(server: S3Server) -> Iterator[Proxy]:
    """Before it, what a test makes slow."""
    with proxy(server.endpoint) as p:
        yield p


@pytest.fixture(scope="module")
def counted(server: S3Server) -> Iterator[Proxy]:
    """Before it, 30 ms away, what counts requests and trips."""
    with proxy(server.endpoint, delay=0.03) as p:
        yield p
