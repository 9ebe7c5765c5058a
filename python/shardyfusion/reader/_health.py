"""How a reader is, from what the engine says of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Literal, TypeAlias

from shardyfusion.reader._source import Source
from shardyfusion.reader._state import SnapshotState
from shardyfusion.reader._types import ReaderHealth

StalenessOf: TypeAlias = Literal["reader", "snapshot", "refresh"]
"""What `staleness_threshold` is compared with: the age of the reader, of its snapshot, or of its last good refresh."""

_MILLISECOND = timedelta(milliseconds=1)


def refresh_error(error: BaseException) -> str:
    """Why a refresh did not end well, cancelled and interrupted ones included: nobody knows then whether what is served is
    what the pointer names."""
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        return "the refresh was cancelled"
    return str(error) or type(error).__name__


def reader_health(
    state: SnapshotState | None,
    source: Source,
    last_refresh_error: str | None,
    *,
    closed: bool,
    staleness_threshold: timedelta | None,
    by: StalenessOf,
) -> ReaderHealth:
    if by not in ("reader", "snapshot", "refresh"):
        raise ValueError(f"by must be 'reader', 'snapshot' or 'refresh', got {by!r}")
    staleness_ms = None if staleness_threshold is None else max(0, staleness_threshold // _MILLISECOND)
    facts = None if closed or state is None else source.health(staleness_ms, by)
    if facts is None or state is None or facts["closed"]:
        return ReaderHealth("unhealthy", "", timedelta(0), 0, closed)
    return ReaderHealth(
        facts["status"],
        state.manifest_ref,
        round(facts["age_ms"], -1) * _MILLISECOND,
        state.num_dbs,
        False,
        snapshot_age=facts["snapshot_age_ms"] * _MILLISECOND,
        since_refresh=facts["since_refresh_ms"] * _MILLISECOND,
        # the engine knows of a failure before the caller of that refresh does, who words it better
        last_refresh_error=last_refresh_error or facts["last_refresh_error"] or None,
        fallback=facts["fallback"],
        borrowed=source.borrowed(state, facts["borrowed"]),
        open_requests=source.open_requests(),
        refresh_failures=facts["refresh_failures"],
    )
