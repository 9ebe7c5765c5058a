"""What all readers have in common: how they are made, what they tell of the snapshot that is served, and what they report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from logging import Logger
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import shardyfusion
from shardyfusion._storage_errors import NO_CURRENT, MissingCurrentError, no_current
from shardyfusion._store_events import noting
from shardyfusion.logging import FailureSeverity, log_event, log_failure
from shardyfusion.reader._health import StalenessOf, reader_health, refresh_error
from shardyfusion.reader._key_guard import KeyGuard
from shardyfusion.reader._limiter import ReaderLimiter, limiter_for_reader
from shardyfusion.reader._observe import Metrics, class_name
from shardyfusion.reader._options import ReaderOptions
from shardyfusion.reader._scan import decode_key
from shardyfusion.reader._source import Source, make_local_root
from shardyfusion.reader._state import SnapshotState
from shardyfusion.reader._types import CacheStats, ReaderHealth, ShardDetail, SnapshotInfo
from shardyfusion.sharding_types import KeyEncoding
from shardyfusion.storage import given_text
from shardyfusion.type_defs import K, PlainKey

if TYPE_CHECKING:
    from shardyfusion._native import Reader, Snapshot

H = TypeVar("H")  # the handles

SLOTS = (
    *("s3_prefix", "local_root", "_options", "_metrics", "_source", "_limiter", "_key_guard", "_on_refresh", "_swapping"),
    *("_closed", "_foreign", "_refreshing", "_state", "_pinned"),
)
"""Where readers have their attributes. With nothing in an instance's `__dict__`, which is there for callers, CPython finds methods by a shortcut:
from 3.13 on it has none for objects with a layout of their own and a dict that was used."""


class CommonReads(Generic[H, K]):
    """Of the snapshot that `_opened()` tells."""

    s3_prefix: str
    _metrics: Metrics
    _limiter: ReaderLimiter | None
    _key_guard: KeyGuard
    _swapping: AbstractContextManager[Any]
    """Held by whoever uses a snapshot that he has not borrowed, where threads meet."""

    def _opened(self) -> SnapshotState:
        """ReaderStateError when that is closed, or was not opened."""
        raise NotImplementedError

    def _facts(self) -> SnapshotState:
        """The snapshot of which facts are told."""
        return self._opened()

    def _handle(self, state: SnapshotState, db_id: int) -> H:
        raise NotImplementedError

    def _attach_core(self, core: Any, engine: Reader | Snapshot, **how: bool) -> None:
        """Look-ups by it need not pass through here at all."""
        observer = self._metrics if self._metrics.wanted else None
        core._attach(engine, observer, self._limiter, key_guard=self._key_guard.refuse_or_warn, **how)

    # ---- shards

    def route_key(self, key: K, *, routing_context: dict[str, object] | None = None) -> int:
        """The shard that holds a key, if any does."""
        return self._facts().locate(key, routing_context)

    def encode_key(self, key: K) -> bytes:
        """The bytes under which a shard holds a key."""
        return self._facts().encode(key)

    def decode_key(self, stored: bytes) -> PlainKey:
        """The key of stored bytes, as scans and handles have them: the reverse of `encode_key`. ValueError when they are none."""
        return decode_key(self._facts().encoding, stored)

    def shard_for_key(
        self, key: K, *, routing_context: dict[str, object] | None = None
    ) -> shardyfusion.RequiredShardMeta:
        """The manifest's entry of the shard that holds a key, if any does."""
        with self._swapping:
            state = self._facts()
            return state.shard_meta(state.locate(key, routing_context))

    def shards_for_keys(self, keys: Sequence[K]) -> dict[K, shardyfusion.RequiredShardMeta]:
        """The same for several keys."""
        with self._swapping:
            state = self._facts()
            return {key: state.shard_meta(state.locate(key, None)) for key in keys}

    def reader_for_key(self, key: K) -> H:
        """Borrows the shard of a key: `with reader.reader_for_key(key) as handle`. Of an async reader it is `async with`,
        without `await`."""
        with self._swapping:  # nobody retires the snapshot before it is borrowed
            state = self._opened()
            return self._handle(state, state.locate(key, None))

    def readers_for_keys(self, keys: Sequence[K]) -> dict[K, H]:
        """One handle for each distinct key."""
        with self._swapping:
            state = self._opened()
            located = {key: state.locate(key, None) for key in keys}  # all of them before the first is borrowed
            return {key: self._handle(state, db_id) for key, db_id in located.items()}

    # ---- facts

    @property
    def key_encoding(self) -> KeyEncoding:
        """How the snapshot stores keys."""
        return KeyEncoding(self._facts().encoding)

    def snapshot_info(self) -> SnapshotInfo:
        """The snapshot that is served."""
        return self._facts().info()

    def shard_details(self) -> list[ShardDetail]:
        """One entry a shard, in `db_id` order, empty ones included."""
        with self._swapping:
            return self._facts().shard_details()


class CommonReader(CommonReads[H, K]):
    """The reader itself."""

    _log: Logger
    _no_current_at_refresh: str

    def _served(self) -> SnapshotState | None:
        """The snapshot that is served, for whoever must not fail."""
        raise NotImplementedError

    # ---- life

    def _is_closed(self) -> bool:
        return self._closed

    def _prepare(self, options: ReaderOptions, make_source: Callable[[], Source]) -> None:
        options.check()
        self._options = options  # for reopen()
        self.s3_prefix: str = given_text(options.s3_prefix)
        self.local_root: str = options.local_root
        self._metrics = Metrics(options.metrics_collector)
        with noting(self._metrics.store_events):
            self._source = make_source()
        self._limiter = limiter_for_reader(options.rate_limiter, self.s3_prefix)
        self._key_guard = KeyGuard(options.strict_keys, self._log, self.s3_prefix)
        self._on_refresh = options.on_refresh
        self._closed = False

    def _engine(self) -> Reader:
        assert self._source.engine is not None
        return self._source.engine

    @contextmanager
    def _opening(self) -> Iterator[None]:
        make_local_root(self.local_root)
        try:
            yield
        except MissingCurrentError as error:
            log_failure(
                "reader_current_not_found", severity=FailureSeverity.ERROR, logger=self._log, s3_prefix=self.s3_prefix
            )
            raise no_current(error, NO_CURRENT) from error.__cause__
        finally:
            self._metrics.tell()

    def _tell_opened(self, state: SnapshotState) -> None:
        log_event(
            "reader_initialized",
            logger=self._log,
            s3_prefix=self.s3_prefix,
            num_shards=state.num_dbs,
            manifest_ref=state.manifest_ref,
        )
        self._metrics.opened(state)

    def _tell_closed(self, state: SnapshotState) -> None:
        log_event("reader_closed", logger=self._log, s3_prefix=self.s3_prefix, num_handles_closed=state.num_dbs)
        self._metrics.closed(state.num_dbs)

    # ---- refresh

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """For another snapshot."""
        try:
            yield
        except MissingCurrentError as error:
            log_failure("reader_refresh_current_not_found", severity=FailureSeverity.ERROR, logger=self._log)
            raise no_current(error, self._no_current_at_refresh) from error.__cause__
        finally:
            self._metrics.tell()

    def _refresh_failed(self, error: BaseException) -> None:
        """However it did, cancelled and interrupted too."""
        self._source.told.refresh_error = refresh_error(error)
        if isinstance(error, Exception) and not self._closed:
            self._metrics.refresh_failed(class_name(error))

    def _refreshed(self, malformed: str | None) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        """From where and to where the reader has moved since somebody was told so: perhaps in a call that was cancelled as it
        did. None: it has not."""
        with self._swapping:
            told = self._source.told
            state, old = self._opened(), told.announced
            assert old is not None
            now = told.announced = old if state.manifest_ref == old.manifest_ref else state.info()
        told.refresh_error = malformed if now is old else None
        if now is not old:
            log_event(
                "reader_refreshed", logger=self._log, old_manifest_ref=old.manifest_ref, new_manifest_ref=now.manifest_ref
            )
        elif malformed is None:
            log_event("reader_refresh_unchanged", logger=self._log)
        else:
            log_failure(
                "reader_refresh_malformed_manifest", severity=FailureSeverity.ERROR, logger=self._log, reason=malformed
            )
            self._metrics.refresh_failed("ManifestParseError")
        self._metrics.refreshed(None if now is old else state)
        return None if now is old else (old, now)

    # ---- facts

    def cache_stats(self) -> CacheStats:
        """What the reader's caches have done. Never fails, asks storage for nothing; zeros before it is opened."""
        engine = self._source.engine
        return CacheStats() if engine is None else CacheStats(**engine.cache_stats())

    def health(self, *, staleness_threshold: timedelta | None = None, by: StalenessOf = "reader") -> ReaderHealth:
        """How the reader is. Never fails, asks storage for nothing. "degraded": older than the threshold, by the age of
        the "reader", of its "snapshot", or of its last good "refresh".
        """
        return reader_health(
            self._served(), self._source, self._source.told.refresh_error,
            closed=self._is_closed(), staleness_threshold=staleness_threshold, by=by,
        )  # fmt: skip
