"""Rows in key order, as async iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar

from shardyfusion._key_errors import INTEGER_BITS, encoding_error
from shardyfusion._not_copied import NotCopied
from shardyfusion._timeouts import Timeout, engine_timeout, seconds, within
from shardyfusion._turn import give_way
from shardyfusion.errors import ConfigValidationError, ReaderStateError
from shardyfusion.type_defs import KeyInput

if TYPE_CHECKING:
    from shardyfusion.reader._state import SnapshotState

K = TypeVar("K")
Row: TypeAlias = tuple[bytes, bytes]

STEP_ROWS = 1000
MOST_ROWS = 4000
"""Of one step, whatever the caller wants: they become objects without a pause."""
TURN_ROWS = 64
"""After so many rows somebody looks whether the event loop must run."""


class RowSource(Protocol):
    """Stored rows, some at a time; none means the end. What the engine's scans are."""

    def next(self, max_rows: int = STEP_ROWS) -> Coroutine[Any, Any, list[Row]]: ...
    def close(self) -> None: ...


class AsyncScan(NotCopied, Generic[K]):
    """An async iterator over (key, value) rows. It pins its snapshot until it is exhausted, closed or dropped; use it in
    `async with` when it may be left early. One task at a time.
    """

    def __init__(
        self,
        rows: RowSource,
        *,
        decode: Callable[[bytes], K] | None = None,
        release: Callable[[], object] | None = None,
        timeout: Timeout = None,
    ) -> None:
        self._rows: RowSource | None = rows
        self._decode = decode
        self._release = release
        self._timeout = seconds(timeout)
        self._buffer: list[tuple[K, bytes]] = []
        self._at = 0
        self._stop = 0  # where to look at the event loop
        self._ended = False
        self.told: Callable[[], None] | None = None  # after each fetch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[K, bytes]:
        if self._at == self._stop:
            await self._more()
        row = self._buffer[self._at]
        self._at += 1
        return row

    async def _more(self) -> None:
        """Rows up to the next stop, so few that the event loop can run between them and the ones after them."""
        if self._at < len(self._buffer):
            await give_way()
        if self._at == len(self._buffer):  # also when it was closed meanwhile
            rows = await self._step(STEP_ROWS)
            self._buffer, self._at, self._stop = rows, 0, 0
            if not rows:
                raise StopAsyncIteration
        self._stop = min(self._at + TURN_ROWS, len(self._buffer))

    async def batches(self, size: int = STEP_ROWS) -> AsyncIterator[list[tuple[K, bytes]]]:
        """The rows in lists of `size`; the last one may be shorter."""
        if size <= 0:
            raise ValueError(f"size must be > 0, got {size}")
        batch = self._buffer[self._at :]
        self._buffer, self._at, self._stop = [], 0, 0
        while True:
            while len(batch) < size and (rows := await self._step(min(size - len(batch), MOST_ROWS))):
                batch += rows
            if not batch:
                return
            yield batch[:size]
            batch = batch[size:]

    async def _step(self, max_rows: int) -> list[tuple[K, bytes]]:
        await give_way()
        if self._ended:
            return []
        if self._rows is None:
            raise ReaderStateError("Scan is closed")
        try:
            rows = await within(self._rows.next(max_rows), self._timeout, "scan")
        finally:
            if self.told is not None:
                self.told()
        if not rows:
            self._ended = True
            self.close()
        decode = self._decode
        return rows if decode is None else [(decode(key), value) for key, value in rows]  # type: ignore[return-value]

    def close(self) -> None:
        """Gives the snapshot back. Any number of times."""
        self._buffer, self._at, self._stop = [], 0, 0
        rows, self._rows = self._rows, None
        release, self._release = self._release, None
        if rows is not None:
            rows.close()
        if release is not None:
            release()

    async def aclose(self) -> None:
        """`close()` under the name that async generators use."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_release", None) is not None or getattr(self, "_rows", None) is not None:
            self.close()


class EngineRows:
    """The rows of a scan of the engine."""

    def __init__(self, scan: Any) -> None:
        self._scan = scan

    async def next(self, max_rows: int = STEP_ROWS) -> list[Row]:
        return await self._scan.next(max_rows, engine_timeout())  # type: ignore[no-any-return]

    def close(self) -> None:
        self._scan.close()


class LimitedRows:
    """The first rows of another source."""

    def __init__(self, rows: RowSource, limit: int) -> None:
        self._rows = rows
        self._left = limit

    async def next(self, max_rows: int = STEP_ROWS) -> list[Row]:
        if self._left <= 0:
            return []
        rows = (await self._rows.next(min(max_rows, self._left)))[: self._left]
        self._left -= len(rows)
        return rows

    def close(self) -> None:
        self._rows.close()


class ChainedRows:
    """One source after the other; each is opened when it is its turn."""

    def __init__(self, opens: list[Callable[[], RowSource]]) -> None:
        self._opens = opens[::-1]
        self._rows: RowSource | None = None

    async def next(self, max_rows: int = STEP_ROWS) -> list[Row]:
        while True:
            if self._rows is None:
                if not self._opens:
                    return []
                self._rows = self._opens.pop()()
            if rows := await self._rows.next(max_rows):
                return rows
            self._rows.close()
            self._rows = None

    def close(self) -> None:
        self._opens.clear()
        if self._rows is not None:
            self._rows.close()


class IteratedRows:
    """The rows of anything that iterates asynchronously: the scans of shard readers that users supply."""

    def __init__(self, rows: AsyncIterator[Row]) -> None:
        self._rows = rows

    async def next(self, max_rows: int = STEP_ROWS) -> list[Row]:
        rows: list[Row] = []
        async for row in self._rows:
            rows.append(row)
            if len(rows) == max_rows:
                break
        return rows

    def close(self) -> None:
        if isinstance(self._rows, AsyncScan):  # anything else ends when it is collected
            self._rows.close()


def scan_of(shard: object) -> Callable[..., AsyncIterator[Row]]:
    """A shard reader's own scan. ConfigValidationError when it has none."""
    scan = getattr(shard, "scan", None)
    if scan is None:
        raise ConfigValidationError(f"shard readers of type {type(shard).__qualname__} cannot scan")
    return scan  # type: ignore[no-any-return]


# ---------------------------------------------------------------- arguments


def check_scan(
    start: KeyInput | None, end: KeyInput | None, prefix: str | bytes | None, limit: int | None, order: str
) -> None:
    """ValueError for arguments of a reader's scan that make no sense."""
    if order not in ("key", "shard"):
        raise ValueError(f"order must be 'key' or 'shard', got {order!r}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be >= 0, got {limit}")
    if prefix is not None and (start is not None or end is not None):
        raise ValueError("prefix cannot be combined with start or end")


def scan_bounds(
    state: SnapshotState, start: KeyInput | None, end: KeyInput | None, prefix: str | bytes | None, reverse: bool
) -> dict[str, Any]:
    """Stored bytes for the keys that a reader's scan was given."""

    def bound(key: KeyInput | None) -> bytes | None:
        return key if key is None or isinstance(key, bytes) else state.encode(key)

    return {
        "start": bound(start),
        "end": bound(end),
        "prefix": prefix.encode() if isinstance(prefix, str) else prefix,
        "reverse": reverse,
    }


def key_decoder(encoding: str) -> Callable[[bytes], KeyInput] | None:
    """From stored bytes to keys; None where they are the same."""
    if encoding in ("u64be", "u32be"):
        return lambda stored: int.from_bytes(stored, "big")
    if encoding == "utf8":
        return lambda stored: stored.decode()
    return None


def decode_key(encoding: str, stored: bytes) -> KeyInput:
    """The key that is stored as these bytes. ValueError when none is."""
    bits = INTEGER_BITS.get(encoding)
    if bits is not None and len(stored) * 8 != bits:
        raise encoding_error(stored, encoding)
    decode = key_decoder(encoding)
    return stored if decode is None else decode(stored)
