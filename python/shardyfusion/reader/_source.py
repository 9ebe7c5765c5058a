"""Where a reader gets its snapshots from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from logging import Logger

from shardyfusion._engine import native
from shardyfusion.reader._state import SnapshotState

FULL_TEXT_OF_VECTOR_ONLY = (
    "This manifest contains unsupported or incomplete vector metadata and cannot be opened with a generic KV reader. "
    "Use ShardedVectorReader instead."
)


@dataclass(frozen=True)
class Refreshed:
    """What a refresh found: a new snapshot; or nothing new; or one that is malformed, and why."""

    state: SnapshotState | None = None
    malformed: str | None = None


class Source(ABC):
    """Opens what the pointer names. One refresh at a time. It logs under the name of its reader."""

    def __init__(self, log: Logger) -> None:
        self.log = log

    @abstractmethod
    async def open(self) -> SnapshotState:
        """The current snapshot, or an older one when that is malformed and older ones are allowed."""

    @abstractmethod
    async def refresh(self, current: SnapshotState) -> Refreshed: ...

    def close(self) -> None:
        """No new snapshots from now on; those that were handed out stay usable."""

    def borrowed(self, current: SnapshotState) -> int:
        """How many reads, handles and scans hold a snapshot."""
        return current.borrowers

    def open_requests(self) -> int:
        """Requests to storage in flight, as far as the engine knows them: those of all readers of the process."""
        return native.runtime_stats()["requests_in_flight"]
