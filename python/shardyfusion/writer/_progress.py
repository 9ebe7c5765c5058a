"""How far a write is, and where the caller may stop it."""

from __future__ import annotations

import time
from typing import Protocol

from shardyfusion._progress import Measure, Teller
from shardyfusion.config import Phase, PythonWriteOptions, WriteProgress
from shardyfusion.errors import WriteCancelledError

_ROWS_BETWEEN_LOOKS = 256  # at the clock


class CanBeSet(Protocol):
    """A threading.Event, or what looks like one."""

    def is_set(self) -> bool: ...


def raise_if_set(cancel: CanBeSet | None) -> None:
    """WriteCancelledError when the caller asked for it."""
    if cancel is not None and cancel.is_set():
        raise WriteCancelledError("The write was cancelled; nothing was published")


class Progress:
    """Counts, and calls back once an interval and at every change of phase. One thread."""

    def __init__(self, options: PythonWriteOptions) -> None:
        self._cancel = options.cancel
        self._teller = Teller(options.progress, measure)
        self._interval = options.progress_interval
        self._begin = time.monotonic()
        self._next = self._begin + self._interval
        self._phase: Phase = "adding"
        self._rows_read = self._rows_written = self._bytes_written = 0
        self._shards_done = self._shards_total = 0

    def row(self) -> None:
        """A record was read."""
        self._rows_read += 1
        if self._rows_read % _ROWS_BETWEEN_LOOKS == 0:
            self.look()

    def written(self, rows: int, size: int) -> None:
        """Rows were handed to a shard."""
        self._rows_written += rows
        self._bytes_written += size
        self.look()

    def shard_done(self) -> None:
        self._shards_done += 1
        self.look()

    def phase(self, phase: Phase, shards_total: int | None = None) -> None:
        self._phase = phase
        if shards_total is not None:
            self._shards_total = shards_total
        self.raise_if_cancelled()
        self._tell()

    def take(self, progress: WriteProgress) -> None:
        """The engine's own count, at the engine's own pace."""
        changed = progress.phase != self._phase
        self._phase = progress.phase
        self._rows_read, self._rows_written = progress.rows_read, progress.rows_written
        self._bytes_written = progress.bytes_written
        self._shards_done, self._shards_total = progress.shards_done, progress.shards_total
        if progress.phase not in ("cleaning", "done"):  # else it is too late
            self.raise_if_cancelled()
        if changed or time.monotonic() >= self._next:
            self._tell()

    def look(self) -> None:
        """Calls back when it is time. WriteCancelledError when the caller asked for it."""
        self.raise_if_cancelled()
        if time.monotonic() >= self._next:
            self._tell()

    def raise_if_cancelled(self) -> None:
        raise_if_set(self._cancel)

    def hide(self) -> None:
        """Takes the terminal's line away: a function of the caller's is called, which may write there."""
        self._teller.hide()

    def end(self) -> None:
        """Leaves the terminal's line."""
        self._teller.end()

    def _tell(self) -> None:
        self._next = time.monotonic() + self._interval
        self._teller(
            WriteProgress(
                phase=self._phase,
                rows_read=self._rows_read,
                rows_written=self._rows_written,
                bytes_written=self._bytes_written,
                shards_done=self._shards_done,
                shards_total=self._shards_total,
                elapsed=time.monotonic() - self._begin,
            )
        )


def measure(progress: WriteProgress) -> Measure:
    """By shards, since only their number is known ahead."""
    rate = progress.rows_read / progress.elapsed if progress.elapsed > 0 else 0.0
    text = f"{progress.phase}: {progress.rows_read:,} rows, {rate:,.0f} rows/s"
    if progress.shards_total:
        text += f", {progress.shards_done}/{progress.shards_total} shards"
    if progress.bytes_written:
        text += f", {progress.bytes_written / (1 << 20):,.1f} MiB"
    return Measure(progress.shards_done, progress.shards_total, text)
