"""Handles on single shards of blocking readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, Unpack

from shardyfusion._not_copied import NotCopied
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.reader._alone import alone
from shardyfusion.reader._handle import try_get
from shardyfusion.reader._scan import Rows, ShardScanOptions, SyncScan, scan_of
from shardyfusion.reader._slatedb_shard import BlockingShard
from shardyfusion.reader._types import MISSING
from shardyfusion.type_defs import ShardReader

_log = get_logger("shardyfusion.reader.reader")


class ShardReaderHandle(NotCopied):
    """A borrowed shard: it stays readable across `refresh()` and `close()` of its reader until the handle is closed.

    Keys are stored bytes (`encode_key` of the reader): nothing is routed, limited or counted.
    """

    _told: Callable[[], None] | None = None  # after each read, where the reader has somebody to tell

    def __init__(self, handle: ShardReader, release_fn: Callable[[], None] | None = None) -> None:
        self._reader = handle
        self._release_fn = release_fn

    @property
    def reader(self) -> ShardReader:
        """The shard reader itself: what the reader factory made, or a stand-in for a pool of them."""
        return self._reader

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None when there is none."""
        with self._telling():
            return self._reader.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """The values of keys, None for missing ones."""
        with self._telling():
            if isinstance(self._reader, BlockingShard):
                return self._reader.multi_get(keys)
            return {key: self._reader.get(key) for key in dict.fromkeys(keys)}

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The same as a list aligned with the keys."""
        keys = list(keys)
        found = self.multi_get(keys)
        return [found[key] for key in keys]

    def contains(self, key: bytes) -> bool:
        """Whether there is a value. A key that its filter rules out takes no read."""
        with self._telling():
            if isinstance(self._reader, BlockingShard):
                return self._reader.contains(key)
            return self._reader.get(key) is not None

    def contains_many(self, keys: Sequence[bytes]) -> list[bool]:
        """The same for many keys: a list aligned with them."""
        with self._telling():
            if isinstance(self._reader, BlockingShard):
                return self._reader.contains_many(keys)
            return [self._reader.get(key) is not None for key in keys]

    def try_get(self, key: bytes, default: Any = MISSING) -> Any:
        """As `get`, out of memory only and at once. When that takes a read of storage, as it always does for shards of a
        factory's own, `default` if it is given, else LookupError."""
        return try_get(self._reader, key, default)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._told is not None:
                self._told()

    def scan(
        self, start: bytes | None = None, end: bytes | None = None, **options: Unpack[ShardScanOptions]
    ) -> Iterator[tuple[bytes, bytes]]:
        """The shard's rows in [start, end), in key order. Options are those of its reader: prefix, limit, reverse, and of the
        built-in shard readers timeout and prefetch_bytes."""
        rows: Any = scan_of(self._reader)(start=start, end=end, **options)
        if isinstance(rows, SyncScan):
            return Rows(iter((rows,)), None, None, "raw", _nothing, self._told)
        return iter(rows) if self._told is None else alone(_telling(iter(rows), self._told))

    def close(self) -> None:
        """Gives the shard back; it does not close it. Any number of times."""
        release, self._release_fn = self._release_fn, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_release_fn", None) is not None:
            log_failure("shard_reader_handle_not_closed", severity=FailureSeverity.ERROR, logger=_log)
            self.close()


def _nothing() -> None:
    """What such a scan gives back: the handle holds the shard."""


def _telling(rows: Iterator[tuple[bytes, bytes]], told: Callable[[], None]) -> Iterator[tuple[bytes, bytes]]:
    """The rows, and after each what happened meanwhile; nothing when they are dropped: nobody's read ends then."""
    dropped = False
    try:
        for row in rows:
            told()
            yield row
    except GeneratorExit:
        dropped = True
        raise
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            close()
        if not dropped:
            told()
