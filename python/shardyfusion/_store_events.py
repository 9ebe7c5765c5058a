"""How what stores had to repeat finds the collector of the reader or writer that they serve.

A reader or writer with a collector has one `StoreEvents`. While it makes its stores, or has a factory open or write a
shard, it is the one that notes: everything of the engine that is made meanwhile reports to it, whoever makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardyfusion._native import S3Options, StoreEvents

_noting: ContextVar[StoreEvents | None] = ContextVar("shardyfusion_store_events", default=None)


@contextmanager
def noting(events: StoreEvents | None) -> Iterator[None]:
    """For blocking work; None: nobody wants to know, whoever does around it."""
    token = _noting.set(events)
    try:
        yield
    finally:
        _noting.reset(token)


def note_from_now_on(events: StoreEvents | None) -> None:
    """The same for the rest of the running task, which must be one of our own."""
    _noting.set(events)


def noted() -> StoreEvents | None:
    """Who notes now."""
    return _noting.get()


def with_events(options: S3Options | None) -> S3Options | None:
    """The engine's options, reporting to whoever notes now."""
    events = _noting.get()
    if events is None:
        return options
    reporting: S3Options = {**(options or {}), "events": events}
    return reporting
