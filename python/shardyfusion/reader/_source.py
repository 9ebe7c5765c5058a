"""Where a reader gets its snapshots from."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from logging import Logger

from shardyfusion._engine import native
from shardyfusion._immediate import Immediate
from shardyfusion._not_copied import NotCopied
from shardyfusion.async_manifest_store import AsyncS3ManifestStore, _DrivenStore, _ThreadedStore
from shardyfusion.logging import FailureSeverity, log_event, log_failure
from shardyfusion.manifest_store import S3ManifestStore
from shardyfusion.reader._state import SnapshotState
from shardyfusion.storage import join_s3

def make_local_root(path: str) -> None:
    """As the existing package does at opening; for nobody but its owner, since what lies there is read again. Where it cannot
    be made, whoever needs it says so."""
    with suppress(OSError):
        os.makedirs(path, mode=0o700, exist_ok=True)


@dataclass(frozen=True)
class Refreshed:
    """What a refresh found: a new snapshot that the reader is to serve; or one that is malformed, and why; or neither, and
    `current()` tells what is served.
    """

    state: SnapshotState | None = None
    malformed: str | None = None
    superseded: bool = False  # by a refresh that was asked for inside of it


class Source(NotCopied, ABC):
    """Opens what the pointer names. One refresh at a time. It logs under the name of its reader."""

    def __init__(self, log: Logger) -> None:
        self.log = log

    @abstractmethod
    async def open(self) -> SnapshotState:
        """The current snapshot, or an older one when that is malformed and older ones are allowed."""

    @abstractmethod
    async def refresh(self, current: SnapshotState) -> Refreshed: ...

    def current(self, known: SnapshotState) -> SnapshotState:
        """The snapshot that is served now, where the source decides that; `known` itself while it is that."""
        return known

    # ---- what is logged of a fallback, in this order

    def _log_fallback(self, failed_ref: str, error: BaseException, max_attempts: int) -> None:
        log_failure(
            "reader_cold_start_fallback",
            severity=FailureSeverity.TRANSIENT,
            error=error,
            logger=self.log,
            failed_ref=failed_ref,
            max_attempts=max_attempts,
        )

    def _log_skipped(self, manifest_ref: str, error: BaseException) -> None:
        log_failure(
            "reader_fallback_skip_malformed",
            severity=FailureSeverity.TRANSIENT,
            error=error,
            logger=self.log,
            manifest_ref=manifest_ref,
        )

    def _log_fell_back(self, fallback_ref: str, skipped_ref: str) -> None:
        log_event("reader_fallback_succeeded", logger=self.log, fallback_ref=fallback_ref, skipped_ref=skipped_ref)

    # ----

    def close(self) -> None:
        """No new snapshots from now on; those that were handed out stay usable."""

    def borrowed(self, current: SnapshotState) -> int:
        """How many reads, handles and scans hold a snapshot."""
        return current.borrowers

    def open_requests(self) -> int:
        """Requests to storage in flight, as far as the engine knows them: those of all readers of the process."""
        return native.runtime_stats()["requests_in_flight"]


def pointer_url(store: object) -> str | None:
    """Where a store of the package looks for the pointer; those of the caller's do not tell."""
    while isinstance(store, (Immediate, _ThreadedStore, _DrivenStore)):
        store = vars(store)["_target" if isinstance(store, Immediate) else "_store"]
    if isinstance(store, (S3ManifestStore, AsyncS3ManifestStore)):
        return join_s3(store.s3_prefix, store.current_pointer_key)
    return None
