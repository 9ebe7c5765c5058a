"""Handles on single shards."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

from shardyfusion._engine import native
from shardyfusion._not_copied import NotCopied
from shardyfusion._timeouts import Timeout, within
from shardyfusion._turn import give_way
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.reader._scan import AsyncScan, IteratedRows, scan_of
from shardyfusion.reader._slatedb_shard import EngineShard
from shardyfusion.reader._types import MISSING
from shardyfusion.type_defs import AsyncShardReader

T = TypeVar("T")

_log = get_logger("shardyfusion.reader.async_reader")


def try_get(shard: object, key: bytes, default: Any) -> Any:
    """The value of a stored key out of memory: of a handle."""
    try:
        if isinstance(shard, EngineShard):
            return shard.try_get(key)
        raise LookupError("shards of a factory's own are not in the engine's memory: get() reads them")
    except LookupError:
        if default is MISSING:
            raise
        return default


class AsyncShardReaderHandle(NotCopied):
    """A borrowed shard: it stays readable across `refresh()` and `close()` of its reader until the handle is closed.

    Keys are stored bytes (`AsyncShardedReader.encode_key`): nothing is routed, limited or counted.
    """

    _told: Callable[[], None] | None = None  # after each read, where the reader has somebody to tell

    def __init__(self, reader: AsyncShardReader, release_fn: Any | None = None) -> None:
        self._reader = reader
        self._release_fn = release_fn

    @property
    def reader(self) -> AsyncShardReader:
        """The shard reader itself: what the reader factory made."""
        return self._reader

    async def get(self, key: bytes, *, timeout: Timeout = None) -> bytes | None:
        """The value of a key; None when there is none."""
        return await self._read(self._reader.get(key), timeout, "get")

    async def multi_get(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> dict[bytes, bytes | None]:
        """The values of keys, None for missing ones."""
        return await self._read(self._multi_get(keys), timeout, "multi_get")

    async def get_many(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> list[bytes | None]:
        """The same as a list aligned with the keys."""
        return await self._read(self._get_many(keys), timeout, "get_many")

    async def contains(self, key: bytes, *, timeout: Timeout = None) -> bool:
        """Whether there is a value. A key that its filter rules out takes no read."""
        return await self._read(self._contains(key), timeout, "contains")

    async def contains_many(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> list[bool]:
        """The same for many keys: a list aligned with them."""
        return await self._read(self._contains_many(keys), timeout, "contains_many")

    def try_get(self, key: bytes, default: Any = MISSING) -> Any:
        """As `get`, out of memory only and at once. When that takes a read of storage, as it always does for shards of a
        factory's own, `default` if it is given, else LookupError."""
        return try_get(self._reader, key, default)

    async def _read(self, reading: Coroutine[Any, Any, T], timeout: Timeout, what: str) -> T:
        try:
            return await within(reading, timeout, what)
        finally:
            if self._told is not None:
                self._told()

    async def _multi_get(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        together = getattr(self._reader, "multi_get", None)
        if together is not None:
            return await together(keys)  # type: ignore[no-any-return]
        values = {}
        for key in dict.fromkeys(keys):
            values[key] = await self._reader.get(key)
            await give_way()
        return values

    async def _get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if isinstance(self._reader, EngineShard):
            return await self._reader.get_many(keys)  # type: ignore[attr-defined, no-any-return]
        keys = list(keys)
        found = await self._multi_get(keys)
        return [found[key] for key in keys]

    async def _contains(self, key: bytes) -> bool:
        if isinstance(self._reader, EngineShard):
            return await self._reader.contains(key)  # type: ignore[attr-defined, no-any-return]
        return await self._reader.get(key) is not None

    async def _contains_many(self, keys: Sequence[bytes]) -> list[bool]:
        if isinstance(self._reader, EngineShard):
            return await self._reader.contains_many(keys)  # type: ignore[attr-defined, no-any-return]
        return [value is not None for value in await self._get_many(keys)]

    def scan(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
        timeout: Timeout = None,
        prefetch_bytes: int = native.SCAN_PREFETCH_BYTES,
    ) -> AsyncScan[bytes]:
        """The shard's rows in [start, end), or those with a prefix, in key order. `prefetch_bytes` are read ahead at most, by the
        built-in shard readers."""
        more = {"prefetch_bytes": prefetch_bytes} if isinstance(self._reader, EngineShard) else {}
        rows = scan_of(self._reader)(start=start, end=end, prefix=prefix, limit=limit, reverse=reverse, **more)
        if not isinstance(rows, AsyncScan) or timeout is not None:
            rows = AsyncScan(IteratedRows(aiter(rows)), timeout=timeout)
        rows.told = self._told
        return rows

    def close(self) -> None:
        """Gives the shard back; it does not close it. Any number of times."""
        release, self._release_fn = self._release_fn, None
        if release is not None:
            release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_release_fn", None) is not None:
            log_failure("async_shard_reader_handle_not_closed", severity=FailureSeverity.ERROR, logger=_log)
            self.close()


class PluggedShardHandle(AsyncShardReaderHandle):
    """On a shard of the caller's, which may answer at once, over and over."""

    async def get(self, key: bytes, *, timeout: Timeout = None) -> bytes | None:
        await give_way()
        return await super().get(key, timeout=timeout)
