"""Where a reader gets its snapshots from: the engine opens what the pointer names, and follows it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import Logger
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from shardyfusion._engine import native
from shardyfusion._immediate import Immediate
from shardyfusion._not_copied import NotCopied
from shardyfusion._storage_errors import NO_GOOD_MANIFEST, MissingCurrentError
from shardyfusion._timeouts import engine_timeout
from shardyfusion.async_manifest_store import AsyncS3ManifestStore, _DrivenStore, _ThreadedStore, as_async_store
from shardyfusion.errors import ManifestParseError, ReaderStateError
from shardyfusion.logging import FailureSeverity, log_event, log_failure
from shardyfusion._manifest_objects import log_manifest_load_failed
from shardyfusion.manifest_store import S3ManifestStore
from shardyfusion.reader._manifest_questions import Ask, ask_async
from shardyfusion.reader._state import SnapshotState
from shardyfusion.reader._types import SnapshotInfo
from shardyfusion.storage import join_s3

if TYPE_CHECKING:
    from shardyfusion._native import Health, Operation, Reader, RejectedManifest, Snapshot

T = TypeVar("T")

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


@dataclass
class Told:
    """What a reader, and those beside it, have said of its refreshes."""

    announced: SnapshotInfo | None = None  # that opening or a refresh told of last
    refresh_error: str | None = None


class Source(NotCopied):
    """Follows a prefix, or a manifest store of the caller's, with the engine. `ask` answers for the store; `shards` for the shards
    of a factory of the caller's, and for what is not theirs as well. One refresh at a time. It logs under the name of its reader."""

    def __init__(
        self,
        prefix: str,
        options: dict[str, Any],
        log: Logger,
        *,
        ask: Ask | None = None,
        store: object = None,
        shards: Any = None,
        state: Callable[..., SnapshotState] = SnapshotState,
    ) -> None:
        self.log = log
        self._prefix = prefix
        self._options = options
        self._ask = ask
        self.shards = shards
        self._state_of = state
        self._store = store
        self._refreshing: Operation[bool] | None = None  # while the store is at work on this very thread
        self.engine: Reader | None = None
        self._owner: Source | None = None  # whose engine it is, where it is not its own
        self.told = Told()

    def beside(self) -> Source:
        """The same engine for a reader of asyncio beside a blocking one. Of shards that the engine reads itself."""
        assert self.shards is None
        ask = None if self._store is None else ask_async(as_async_store(self._store))  # type: ignore[arg-type]
        other = Source(self._prefix, self._options, self.log, ask=ask, store=self._store, state=self._state_of)
        other.engine, other._owner, other.told = self.engine, self, self.told
        return other

    async def open(self) -> SnapshotState:
        """The current snapshot, or an older one when that is malformed and older ones are allowed."""
        rejected: list[RejectedManifest] = []
        with self._opening(rejected):
            engine = await self._asked(lambda ask: self._open(rejected, ask), rejected)
        return self._opened(engine, rejected)

    def open_now(self) -> SnapshotState:
        """The same, blocking."""
        rejected: list[RejectedManifest] = []
        with self._opening(rejected):
            engine = self._asked_now(lambda ask: self._open(rejected, ask), rejected)
        return self._opened(engine, rejected)

    def _asked(self, begin: Callable[[Ask | None], Operation[T]], rejected: list[RejectedManifest]) -> Awaitable[T]:
        return begin(self._ask) if self.shards is None else self.shards.run(begin, rejected)

    def _asked_now(self, begin: Callable[[Ask | None], Operation[T]], rejected: list[RejectedManifest]) -> T:
        return begin(self._ask).wait() if self.shards is None else self.shards.run(begin, rejected)

    def _open(self, rejected: list[RejectedManifest], ask: Ask | None) -> Operation[Reader]:
        return native.open_reader(self._prefix, self._options, engine_timeout(), rejected, ask)

    @contextmanager
    def _opening(self, rejected: list[RejectedManifest]) -> Iterator[None]:
        try:
            with self._pointer_named():
                yield
        except ManifestParseError:
            if rejected and self._options["max_fallback_attempts"] < 0:  # there is a fallback, but no candidate
                raise ReaderStateError(NO_GOOD_MANIFEST) from None
            raise
        finally:
            self._log_rejected(rejected)

    @contextmanager
    def _pointer_named(self) -> Iterator[None]:
        """Where there is no pointer, the engine does not know for a store of the caller's."""
        try:
            yield
        except MissingCurrentError as error:
            if self._store is not None:
                error.object_url = pointer_url(self._store)
            raise

    def _opened(self, engine: Reader, rejected: Sequence[RejectedManifest]) -> SnapshotState:
        self.engine = engine
        state = self._state(engine, engine.snapshot())
        if rejected:
            state.skipped_ref = rejected[0][0]
            log_event(
                "reader_fallback_succeeded",
                logger=self.log,
                fallback_ref=state.manifest_ref,
                skipped_ref=rejected[0][0],
            )
        return state

    def _log_rejected(self, rejected: Sequence[RejectedManifest]) -> None:
        """The engine tells at the end of an opening which manifests it could not use, whether the opening failed or not."""
        max_attempts = self._options["max_fallback_attempts"]
        for number, (ref, error, malformed) in enumerate(rejected):
            if not malformed:
                self._log_unread(ref, error)
            elif number > 0:
                self._log_transient("reader_fallback_skip_malformed", error, manifest_ref=ref)
            elif max_attempts != 0:
                self._log_transient("reader_cold_start_fallback", error, failed_ref=ref, max_attempts=max_attempts)

    def _log_transient(self, event: str, error: BaseException, **fields: Any) -> None:
        log_failure(event, severity=FailureSeverity.TRANSIENT, error=error, logger=self.log, **fields)

    def _log_unread(self, ref: str, error: BaseException) -> None:
        """Stores of the caller's say so themselves, if they like; the package's do."""
        if self._ask is None:
            log_manifest_load_failed(ref, error)

    async def refresh(self, current: SnapshotState) -> Refreshed:
        rejected: list[RejectedManifest] = []
        with self._refreshed(current, rejected):
            await self._asked(lambda ask: self._refresh(rejected, ask), rejected)
        return self._found(current, rejected)

    def refresh_now(self, current: SnapshotState) -> Refreshed:
        """The same, blocking. One that the store asks for meanwhile overtakes it."""
        outer = self._refreshing
        if outer is not None:
            outer.cancel()
        rejected: list[RejectedManifest] = []
        mine: list[Operation[bool]] = []

        def begin(ask: Ask | None) -> Operation[bool]:
            self._refreshing = refresh = self._refresh(rejected, ask)
            mine.append(refresh)
            return refresh

        with self._refreshed(current, rejected):
            try:
                self._asked_now(begin, rejected)
            except Exception:
                if self._refreshing not in mine:
                    return Refreshed(superseded=True)
                raise
            finally:
                if outer is None:
                    self._refreshing = None
        return self._found(current, rejected)

    def _refresh(self, rejected: list[RejectedManifest], ask: Ask | None) -> Operation[bool]:
        assert self.engine is not None
        return self.engine.refresh(engine_timeout(), rejected, ask)

    def _found(self, current: SnapshotState, rejected: Sequence[RejectedManifest]) -> Refreshed:
        if rejected:
            return Refreshed(malformed=str(rejected[0][1]))
        if self.shards is None:
            return Refreshed()
        state = self.current(current)  # what it replaces is closed by whoever waits for the refresh
        return Refreshed(None if state is current else state)

    @contextmanager
    def _refreshed(self, current: SnapshotState, rejected: list[RejectedManifest]) -> Iterator[None]:
        assert self.engine is not None
        try:
            with self._pointer_named():
                yield
        finally:
            for ref, error, malformed in rejected:
                if not malformed:
                    self._log_unread(ref, error)
        current.fallback = self.engine.health()["fallback"]  # the pointer may have moved back to what is served

    def current(self, known: SnapshotState) -> SnapshotState:
        """The engine's: it may move at any time while a refresh is under way, whoever waits for that or has ceased to."""
        assert self.engine is not None
        snapshot = self.engine.snapshot(known.snapshot)
        return known if snapshot is known.snapshot else self._state(self.engine, snapshot)

    def close(self) -> None:
        """No new snapshots from now on; those that were handed out stay usable. One that is beside another leaves that alone."""
        if self.engine is not None and self._owner is None:
            self.engine.close()

    def health(self, staleness_ms: int | None, by: Literal["reader", "snapshot", "refresh"]) -> Health:
        assert self.engine is not None
        return self.engine.health(staleness_ms, by)

    def borrowed(self, current: SnapshotState, told: int) -> int:
        """How many reads, handles and scans hold a snapshot, of which the engine knows as many as `told`."""
        if self.shards is not None:
            return current.borrowers
        # Handles share the pin of their state, so the engine does not know them; reads that go straight to it are known to
        # it alone. Scans are known to both.
        return max(current.borrowers, told - 1)

    def open_requests(self) -> int:
        """Requests to storage in flight, as far as the engine knows them: those of all readers of the process."""
        return native.runtime_stats()["requests_in_flight"]

    def _state(self, engine: Reader, snapshot: Snapshot) -> SnapshotState:
        return self._state_of(snapshot, fallback=engine.health()["fallback"])


def pointer_url(store: object) -> str | None:
    """Where a store of the package looks for the pointer; those of the caller's do not tell."""
    while isinstance(store, (Immediate, _ThreadedStore, _DrivenStore)):
        store = vars(store)["_target" if isinstance(store, Immediate) else "_store"]
    if isinstance(store, (S3ManifestStore, AsyncS3ManifestStore)):
        return join_s3(store.s3_prefix, store.current_pointer_key)
    return None
