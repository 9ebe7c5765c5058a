"""How a reader is, from what it keeps about itself."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Literal, TypeAlias

from shardyfusion.reader._source import Source
from shardyfusion.reader._state import SnapshotState
from shardyfusion.reader._types import ReaderHealth


StalenessOf: TypeAlias = Literal["reader", "snapshot", "refresh"]
"""What `staleness_threshold` is compared with: the age of the reader, of its snapshot, or of its last good refresh."""


class HealthRecord:
    """When a reader was made, and how its refreshes went."""

    def __init__(self) -> None:
        self.created_at = self.refreshed_at = time.monotonic()
        self.last_refresh_error: str | None = None

    def refreshed(self, error: BaseException | str | None = None) -> None:
        """After an opening or a refresh; with the reason when it did not end well, cancelled and interrupted ones included:
        nobody knows then whether what is served is what the pointer names."""
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
            error = "the refresh was cancelled"
        self.last_refresh_error = None if error is None else str(error) or type(error).__name__
        if error is None:
            self.refreshed_at = time.monotonic()

    def report(
        self,
        state: SnapshotState | None,
        source: Source,
        *,
        closed: bool,
        staleness_threshold: timedelta | None,
        by: StalenessOf,
    ) -> ReaderHealth:
        if by not in ("reader", "snapshot", "refresh"):
            raise ValueError(f"by must be 'reader', 'snapshot' or 'refresh', got {by!r}")
        if closed or state is None:
            return ReaderHealth("unhealthy", "", timedelta(0), 0, closed)
        now = time.monotonic()
        age = timedelta(seconds=round(now - self.created_at, 2))
        snapshot_age = datetime.now(timezone.utc) - _utc(state.info().created_at)
        since_refresh = timedelta(seconds=now - self.refreshed_at)
        judged = {"reader": age, "snapshot": snapshot_age, "refresh": since_refresh}[by]
        stale = staleness_threshold is not None and judged > staleness_threshold
        return ReaderHealth(
            "degraded" if stale else "healthy",
            state.manifest_ref,
            age,
            state.num_dbs,
            False,
            snapshot_age=snapshot_age,
            since_refresh=since_refresh,
            last_refresh_error=self.last_refresh_error,
            fallback=state.fallback,
            borrowed=source.borrowed(state),
            open_requests=source.open_requests(),
            refresh_failures=source.refresh_failures(),
        )


def _utc(when: datetime) -> datetime:
    return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)
