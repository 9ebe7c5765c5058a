"""Rows in key order, as async iterators."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from itertools import chain, islice
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeAlias, TypedDict, TypeVar

from shardyfusion._key_errors import INTEGER_BITS, encoding_error
from shardyfusion._kinds import INTEGER, check_kind
from shardyfusion._not_copied import NotCopied
from shardyfusion._timeouts import Timeout, engine_timeout, seconds, within
from shardyfusion._turn import give_way
from shardyfusion.errors import ConfigValidationError, ReaderStateError
from shardyfusion.reader._alone import alone
from shardyfusion.reader._arrow_rows import BATCH_ROWS, ArrowData, ArrowRows, batch_of, pyarrow, table
from shardyfusion.type_defs import KeyInput, PlainKey

if TYPE_CHECKING:
    from shardyfusion._native import ArrowBatch, Scan
    from shardyfusion.reader._state import SnapshotState

K = TypeVar("K")
T = TypeVar("T")
Row: TypeAlias = tuple[bytes, bytes]


class ShardScanOptions(TypedDict, total=False):
    """What scans of single shards take beside their bounds."""

    prefix: bytes | None
    limit: int | None
    reverse: bool
    timeout: Timeout
    prefetch_bytes: int


class ScanOptions(TypedDict, total=False):
    """What scans of snapshots take beside their bounds and `decode_keys`, which decides of the type of their rows."""

    prefix: str | bytes | None
    limit: int | None
    reverse: bool
    order: Literal["key", "shard"]
    scan_tokens: bool
    timeout: Timeout
    prefetch_bytes: int


ROWS_A_TOKEN = 1000
"""Of a scan that asks the limiter."""
STEP_ROWS = 1000
MOST_ROWS = 4000
"""Of one step, whatever the caller wants: they become objects without a pause."""
TURN_ROWS = 64
"""After so many rows somebody looks whether the event loop must run."""


class RowSource(Protocol):
    """Stored rows, some at a time; none means the end. What the engine's scans are."""

    def next(self, max_rows: int = STEP_ROWS) -> Coroutine[Any, Any, list[Row]]: ...
    def next_batch(self, keys: str, max_rows: int) -> Coroutine[Any, Any, ArrowBatch | None]: ...
    def close(self) -> None: ...


class SyncScan(NotCopied, ArrowRows, Iterator[Row]):
    """The rows of a scan of the engine, blocking. `read` runs its operations, where shards of the caller's are asked."""

    def __init__(
        self,
        scan: Scan,
        timeout: float | None,
        *,
        step: int = STEP_ROWS,
        read: Callable[[Callable[[Any], Any]], Any] | None = None,
        ended: Callable[[], object] | None = None,
    ) -> None:
        self._scan = scan
        self._timeout = timeout
        self._read = read or _read_now
        self._ended = ended
        self._rows: Any = alone(_rows_of(scan, timeout, step, self._read, ended))

    def __iter__(self) -> Iterator[Row]:
        return self._rows  # type: ignore[no-any-return]

    def __next__(self) -> Row:
        return next(self._rows)  # type: ignore[no-any-return]

    def next_batch(self, keys: str, max_rows: int) -> ArrowBatch | None:
        """The next rows as Arrow data; None at the end."""
        batch: ArrowBatch | None = self._read(lambda asked: self._scan.next_batch(keys, max_rows, self._timeout, asked))
        if batch is None:
            self._end()
        return batch

    def _next_batch(self) -> ArrowBatch | None:
        return self.next_batch(self._arrow_keys(), BATCH_ROWS)

    def _arrow_keys(self) -> str:
        return "raw"

    def close(self) -> None:
        """Ends the scan. Any number of times."""
        self._rows.close()
        self._end()

    def _end(self) -> None:
        self._scan.close()
        if self._ended is not None:
            self._ended()


class Rows(NotCopied, ArrowRows, Iterator[tuple[K, bytes]], Generic[K]):
    """The rows of a scan, which hold their snapshot until they are exhausted, closed or dropped."""

    def __init__(
        self,
        scans: Iterator[SyncScan],
        limit: int | None,
        decode: Callable[[bytes], K] | None,
        arrow_keys: str,
        release: Callable[[], None],
        told: Callable[[], None] | None,
        take_token: Callable[[], object] | None = None,
        /,
    ) -> None:
        self._scans = alone(scans)
        self._scan: SyncScan | None = None  # whose Arrow data is taken
        self._left = sys.maxsize if limit is None else limit
        self._rows: Iterator[tuple[bytes, bytes]] = alone(islice(chain.from_iterable(self._scans), limit))
        self._singly = False
        self._decode = decode
        self._keys = arrow_keys
        self._release = release
        self._told = told
        self._take_token = take_token
        self._granted = 0  # rows for which the limiter was asked

    def batches(self, size: int = STEP_ROWS) -> Iterator[list[tuple[K, bytes]]]:
        """The rows in lists of `size`; the last one may be shorter."""
        if size <= 0:
            raise ValueError(f"size must be > 0, got {size}")
        return alone(_lists_of(self, size))

    def _next_batch(self) -> ArrowBatch | None:
        if self._singly:
            raise ReaderStateError("Rows of the scan were taken one by one: take Arrow data before any")
        try:
            batch = self._batch()
        except BaseException:
            self.close()
            raise
        if self._told is not None:
            self._told()
        if batch is None:
            self.close()
        return batch

    def _ask(self) -> None:
        """Ahead of rows, so that a wait that is given up costs none."""
        if self._granted == 0 and self._take_token is not None:
            self._take_token()
            self._granted = ROWS_A_TOKEN

    def _batch(self) -> ArrowBatch | None:
        self._ask()
        most = BATCH_ROWS if self._take_token is None else self._granted
        while self._left > 0:
            if self._scan is None:
                self._scan = next(self._scans, None)
            if self._scan is None:
                return None
            if (batch := self._scan.next_batch(self._keys, min(most, self._left))) is not None:
                self._left -= batch[2]
                self._granted -= 0 if self._take_token is None else batch[2]
                return batch
            self._scan = None
        return None

    def _arrow_keys(self) -> str:
        return self._keys

    def __next__(self) -> tuple[K, bytes]:
        self._singly = True
        try:
            if self._take_token is not None:
                self._ask()
                self._granted -= 1
            key, value = next(self._rows)
        except BaseException:
            self.close()
            raise
        if self._told is not None:
            self._told()
        return (key if self._decode is None else self._decode(key)), value  # type: ignore[return-value]

    def close(self) -> None:
        """Gives the snapshot back. Any number of times."""
        self._end()
        if self._told is not None:
            self._told()

    def _end(self) -> None:
        self._rows, self._scans = iter(()), iter(())  # with the scan that is under way
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.close()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_told"):
            self._end()


def _lists_of(rows: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(rows, size)):
        yield batch


def _read_now(begin: Callable[[Any], Any]) -> Any:
    return begin(None).wait()


def _rows_of(
    scan: Scan, timeout: float | None, step: int, read: Callable[[Callable[[Any], Any]], Any], ended: Callable[[], object] | None
) -> Generator[Row, None, None]:
    """Not a method: whoever holds it would hold itself then, and end by the garbage collector only."""
    try:
        while rows := read(lambda asked: scan.next(step, timeout, asked)):
            yield from rows
    finally:
        scan.close()
        if ended is not None:
            ended()


class AsyncScan(NotCopied, Generic[K]):
    """An async iterator over (key, value) rows. It pins its snapshot until it is exhausted, closed or dropped; use it in
    `async with` when it may be left early. One task at a time.
    """

    def __init__(
        self,
        rows: RowSource | IteratedRows,
        *,
        decode: Callable[[bytes], K] | None = None,
        release: Callable[[], object] | None = None,
        timeout: Timeout = None,
    ) -> None:
        self._rows: RowSource | IteratedRows | None = rows
        self._decode = decode
        self._release = release
        self._timeout = seconds(timeout)
        self._buffer: list[tuple[K, bytes]] = []
        self._at = 0
        self._stop = 0  # where to look at the event loop
        self._ended = False
        self.told: Callable[[], None] | None = None  # after each fetch
        self.arrow_keys = "raw"  # the encoding in which Arrow data tells keys
        self.take_token: Callable[[], Coroutine[Any, Any, object]] | None = None  # asked ahead of each ROWS_A_TOKEN rows
        self._granted = 0  # rows for which it was asked

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

    async def arrow_batches(self) -> AsyncIterator[Any]:
        """The rows as `pyarrow.RecordBatch`es, without an object per row: columns "key" and "value". Not behind rows that were
        taken one by one."""
        pa = pyarrow()
        if self._at < len(self._buffer):
            raise ReaderStateError("Rows of the scan were taken one by one: take Arrow data before any")
        if isinstance(self._rows, IteratedRows):
            async for rows in self.batches():
                yield batch_of(rows, self.arrow_keys)
            return
        while (batch := await self._batch()) is not None:
            yield pa.record_batch(ArrowData(batch))

    async def to_arrow(self) -> Any:
        """All rows as one `pyarrow.Table`; `.to_pandas()` makes a frame of it."""
        return table([batch async for batch in self.arrow_batches()], self.arrow_keys)

    async def _batch(self) -> ArrowBatch | None:
        await give_way()
        if self._ended:
            return None
        most = await self._allowed(BATCH_ROWS)
        if self._rows is None or isinstance(self._rows, IteratedRows):
            raise ReaderStateError("Scan is closed")
        try:
            batch = await within(self._rows.next_batch(self.arrow_keys, most), self._timeout, "scan")
        finally:
            if self.told is not None:
                self.told()
        self._granted -= 0 if batch is None else batch[2]
        if batch is None:
            self._ended = True
            self.close()
        return batch

    async def _allowed(self, max_rows: int) -> int:
        """How many rows the limiter has been asked for. A wait that is given up costs no row."""
        if self.take_token is None or self._rows is None:
            return max_rows
        if self._granted <= 0:
            await self.take_token()
            self._granted = ROWS_A_TOKEN
        return min(max_rows, self._granted)

    async def _step(self, max_rows: int) -> list[tuple[K, bytes]]:
        await give_way()
        if self._ended:
            return []
        max_rows = await self._allowed(max_rows)
        if self._rows is None:
            raise ReaderStateError("Scan is closed")
        try:
            rows = await within(self._rows.next(max_rows), self._timeout, "scan")
        finally:
            if self.told is not None:
                self.told()
        self._granted -= len(rows)
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

    async def next_batch(self, keys: str, max_rows: int) -> ArrowBatch | None:
        return await self._scan.next_batch(keys, max_rows, engine_timeout())  # type: ignore[no-any-return]

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

    async def next_batch(self, keys: str, max_rows: int) -> ArrowBatch | None:
        batch = await self._rows.next_batch(keys, min(max_rows, self._left)) if self._left > 0 else None
        self._left -= 0 if batch is None else batch[2]
        return batch

    def close(self) -> None:
        self._rows.close()


class ChainedRows:
    """One source after the other; each is opened when it is its turn."""

    def __init__(self, opens: list[Callable[[], RowSource]]) -> None:
        self._opens = opens[::-1]
        self._rows: RowSource | None = None

    async def next(self, max_rows: int = STEP_ROWS) -> list[Row]:
        return await self._first(lambda rows: rows.next(max_rows)) or []

    async def next_batch(self, keys: str, max_rows: int) -> ArrowBatch | None:
        return await self._first(lambda rows: rows.next_batch(keys, max_rows))

    async def _first(self, take: Callable[[RowSource], Coroutine[Any, Any, T]]) -> T | None:
        while True:
            if self._rows is None:
                if not self._opens:
                    return None
                self._rows = self._opens.pop()()
            if taken := await take(self._rows):
                return taken
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
    start: KeyInput | None, end: KeyInput | None, prefix: str | bytes | None, limit: int | None, order: str, prefetch_bytes: int
) -> None:
    """ValueError for arguments of a reader's scan that make no sense."""
    check_kind("prefetch_bytes", prefetch_bytes, INTEGER)
    if prefetch_bytes < 0:
        raise ValueError(f"prefetch_bytes must be >= 0, got {prefetch_bytes}")
    if order not in ("key", "shard"):
        raise ValueError(f"order must be 'key' or 'shard', got {order!r}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be >= 0, got {limit}")
    if prefix is not None and (start is not None or end is not None):
        raise ValueError("prefix cannot be combined with start or end")


def scan_bounds(
    state: SnapshotState,
    start: KeyInput | None,
    end: KeyInput | None,
    prefix: str | bytes | None,
    reverse: bool,
    prefetch_bytes: int,
) -> dict[str, Any]:
    """Stored bytes for the keys that a reader's scan was given."""

    def bound(key: KeyInput | None) -> bytes | None:
        return key if key is None or isinstance(key, bytes) else state.encode(key)

    return {
        "start": bound(start),
        "end": bound(end),
        "prefix": prefix.encode() if isinstance(prefix, str) else prefix,
        "reverse": reverse,
        "prefetch_bytes": index(prefetch_bytes),
    }


def key_decoder(encoding: str) -> Callable[[bytes], PlainKey] | None:
    """From stored bytes to keys; None where they are the same."""
    if encoding in ("u64be", "u32be"):
        return lambda stored: int.from_bytes(stored, "big")
    if encoding == "utf8":
        return lambda stored: stored.decode()
    return None


def decode_key(encoding: str, stored: bytes) -> PlainKey:
    """The key that is stored as these bytes. ValueError when none is."""
    bits = INTEGER_BITS.get(encoding)
    if bits is not None and len(stored) * 8 != bits:
        raise encoding_error(stored, encoding)
    decode = key_decoder(encoding)
    return stored if decode is None else decode(stored)
