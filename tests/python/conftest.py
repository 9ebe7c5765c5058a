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

from postgres_server import PostgresServer  # noqa: E402

BOTH_LOOPS = {"test_engine", "test_plugged", "test_turns"}


def pytest_configure() -> None:
    """A shell that runs us in the background has us ignore SIGINT, and so would the programs that tests interrupt."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
