"""What the two blocking readers have in common."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, islice
from logging import Logger
from threading import TIMEOUT_MAX, RLock
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from shardyfusion._engine import native
from shardyfusion._not_copied import NotCopied
from shardyfusion._storage_errors import NO_CURRENT, READER_CLOSED, MissingCurrentError, MultiGetError, no_current
from shardyfusion._store_events import noting
from shardyfusion._timeouts import Timeout, seconds, until
from shardyfusion.errors import OperationTimeoutError, ReaderStateError
from shardyfusion.logging import FailureSeverity, log_event, log_failure
from shardyfusion.metrics import MetricEvent
from shardyfusion.reader._following import follow_in_thread, tell, watch_now
from shardyfusion.reader._health import HealthRecord, StalenessOf
from shardyfusion.reader._key_guard import KeyGuard
from shardyfusion.reader._limiter import limiter_for_reader
from shardyfusion.reader._observe import Metrics, ms_since
from shardyfusion.reader._options import SyncReaderOptions
from shardyfusion.reader._scan import check_scan, key_decoder, scan_bounds
from shardyfusion.reader._source import Refreshed, make_local_root
from shardyfusion.reader._sources import sync_source_for
from shardyfusion.reader._state import close_error
from shardyfusion.reader._sync_handle import ShardReaderHandle
from shardyfusion.reader._types import MISSING, OnError, ReaderHealth, ShardDetail, SnapshotInfo
from shardyfusion.sharding_types import KeyEncoding
from shardyfusion.storage import given_text
from shardyfusion.type_defs import KeyInput, ShardReader

if TYPE_CHECKING:
    from shardyfusion._native import Reader
    from shardyfusion.manifest import RequiredShardMeta
    from shardyfusion.reader._foreign_state import SyncForeignState
    from shardyfusion.reader._state import SnapshotState
    from shardyfusion.reader._sync_shards import SyncShard


T = TypeVar("T")


class _BaseShardedReader(NotCopied):
    """A blocking reader. Where the two differ, they say so in the attributes and methods marked below."""

    # ---- differences
    _log: Logger
    _no_current_at_refresh: str
    _what_does_not_close: str
    _limits_first: bool
    """Whether the limiter is asked before anything else, or when the snapshot is pinned."""
    _release_raises: bool
    """Whether the release that closes a retired snapshot raises what cannot be closed; it is logged in any case."""

    def _facts(self) -> SnapshotState:
        """The snapshot that facts are told of."""
        raise NotImplementedError

    # ---- life

    def __init__(
        self,
        options: SyncReaderOptions,
        *,
        share: Callable[[Callable[[], ShardReader]], SyncShard],
        open_together: bool,
    ) -> None:
        options.check()
        self.s3_prefix = given_text(options.s3_prefix)
        self.local_root = options.local_root
        self.max_workers = options.max_workers
        self._metrics = Metrics(options.metrics_collector)
        with noting(self._metrics.store_events):
            self._source = source = sync_source_for(options, self._log, share=share, open_together=open_together)
        self._limiter = limiter_for_reader(options.rate_limiter, self.s3_prefix)
        self._key_guard = KeyGuard(options.strict_keys, self._log, self.s3_prefix)
        self._record = HealthRecord()
        self._swapping = RLock()
        # One after the other: who comes second finds that there is nothing to load. Only one inside of another, made by a
        # store of the caller's, overtakes it; that one is superseded.
        self._refreshing = RLock()
        self._closed = False
        self._state: SnapshotState
        with until(options.open_timeout):
            self._open()
        self._announced = self._state.info()  # that opening or a refresh told of last
        self._on_refresh = options.on_refresh
        self._core: Any = None  # a ReaderCore, whose methods block
        if source.shards is None:
            assert source.engine is not None
            self._core = native.ReaderCore()
            self._core._attach(
                source.engine,
                self._metrics if self._metrics.wanted else None,
                self._limiter,
                pins_last=self._limits_first,
                blocking=True,
                key_guard=self._key_guard.refuse_or_warn,
            )
        log_event(
            "reader_initialized",
            logger=self._log,
            s3_prefix=self.s3_prefix,
            num_shards=self._state.num_dbs,
            manifest_ref=self._state.manifest_ref,
        )
        self._metrics.emit(MetricEvent.READER_INITIALIZED, {})
        if options.refreshes_itself:
            follow_in_thread(weakref.ref(self), self._engine(), self._log)

    def _engine(self) -> Reader:
        assert self._source.engine is not None
        return self._source.engine

    def _open(self) -> None:
        make_local_root(self.local_root)
        try:
            self._state = self._source.open_now()
        except MissingCurrentError as error:
            log_failure(
                "reader_current_not_found",
                severity=FailureSeverity.ERROR,
                logger=self._log,
                s3_prefix=self.s3_prefix,
            )
            raise no_current(error, NO_CURRENT) from error.__cause__
        finally:
            self._metrics.tell()

    def close(self) -> None:
        """No new reads from now on; what is borrowed or in flight finishes first. Any number of times.

        DbAdapterError when a shard cannot be closed; the reader is closed all the same.
        """
        with self._swapping:
            if self._closed:
                return
            self._closed = True
            state = self._state
            state.keep_facts()
        self._source.close()
        failures = state.dispose_now() if state.retire() else []
        self._metrics.tell()
        if failures:
            raise close_error(failures, self._what_does_not_close)
        log_event("reader_closed", logger=self._log, s3_prefix=self.s3_prefix, num_handles_closed=state.num_dbs)
        self._metrics.emit(MetricEvent.READER_CLOSED, {"num_handles": state.num_dbs})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and hasattr(self, "_state"):
            self._closed = True
            self._source.close()
            if self._state.retire():
                self._state.dispose_now()

    def _opened(self) -> SnapshotState:
        if self._closed:
            raise ReaderStateError(READER_CLOSED)
        return self._follow()

    def _follow(self) -> SnapshotState:
        """The snapshot that is served: every fact, scan and handle is of the one that look-ups go to."""
        known = self._state
        if self._closed or self._source.current(known) is known:
            return known
        with self._swapping:  # whoever uses a snapshot that he has not borrowed holds it, too
            known = self._state
            if self._closed:
                return known
            state: Any = self._source.current(known)
            if state is not known:
                self._state = state
                if known.retire():
                    known.dispose_now()
            return self._state

    def _borrow(self) -> SnapshotState:
        with self._swapping:
            state = self._opened()
            state.borrow()
            return state

    def _end_read(self, state: SnapshotState) -> None:
        try:
            self._metrics.tell()
        finally:  # whatever interrupts a collector
            self._give_back(state)

    def _give_back(self, state: SnapshotState) -> None:
        """Tells nobody: it may be the garbage collector that does so, in the midst of anything."""
        failures = state.dispose_now() if state.give_back() else []
        if failures and self._release_raises:
            raise close_error(failures, self._what_does_not_close)

    # ---- look-ups

    def get(
        self, key: KeyInput, *, routing_context: dict[str, object] | None = None, timeout: Timeout = None
    ) -> bytes | None:
        """The value of a key; None when there is none. `timeout` bounds waiting for the limiter and reads of the built-in
        shard readers."""
        if (core := self._direct()) is not None:
            value: bytes | None = core.get(key, routing_context=routing_context, timeout=timeout)
            return value
        with until(timeout), self._limited_and_borrowed(1, timeout, "get") as state:
            self._key_guard.look_at((key,), state.encoding)
            started = time.perf_counter()
            value = state.look_up_now(key, routing_context)
            self._metrics.get_done(ms_since(started), value is not None)
            return value

    def multi_get(
        self,
        keys: Sequence[KeyInput],
        *,
        routing_context: dict[str, object] | None = None,
        timeout: Timeout = None,
        on_error: OnError = "raise",
    ) -> dict[KeyInput, bytes | None]:
        """The values of keys, None for missing ones. `on_error="return"` gives exceptions in place of values."""
        if on_error not in ("raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        if (core := self._direct()) is not None:
            values: dict[KeyInput, bytes | None] = _bare(
                core.multi_get, keys, routing_context=routing_context, timeout=timeout, on_error=on_error)
            return values
        return self._look_up_many(list(keys), routing_context, timeout, on_error)

    def get_many(
        self,
        keys: Sequence[KeyInput],
        *,
        routing_context: dict[str, object] | None = None,
        timeout: Timeout = None,
    ) -> list[bytes | None]:
        """As `multi_get`, but a list aligned with `keys`."""
        if (core := self._direct()) is not None:
            values: list[bytes | None] = _bare(core.get_many, keys, routing_context=routing_context, timeout=timeout)
            return values
        keys = list(keys)
        found = self._look_up_many(keys, routing_context, timeout)
        return [found[key] for key in keys]

    def contains(
        self, key: KeyInput, *, routing_context: dict[str, object] | None = None, timeout: Timeout = None
    ) -> bool:
        """Whether the snapshot holds a key. As `get`, without the value; a key that its filter rules out takes no read."""
        if (core := self._direct()) is not None:
            found: bool = core.contains(key, routing_context=routing_context, timeout=timeout)
            return found
        return self.get(key, routing_context=routing_context, timeout=timeout) is not None

    def contains_many(
        self,
        keys: Sequence[KeyInput],
        *,
        routing_context: dict[str, object] | None = None,
        timeout: Timeout = None,
    ) -> list[bool]:
        """The same for many keys: a list aligned with `keys`."""
        if (core := self._direct()) is not None:
            found: list[bool] = _bare(core.contains_many, keys, routing_context=routing_context, timeout=timeout)
            return found
        return [
            value is not None for value in self.get_many(keys, routing_context=routing_context, timeout=timeout)
        ]

    def try_get(
        self, key: KeyInput, default: Any = MISSING, *, routing_context: dict[str, object] | None = None
    ) -> Any:
        """As `get`, out of memory only and at once. When that takes a read of storage (shards of a factory's own always do), or
        the limiter has no token, `default` if it is given, else LookupError. None: the snapshot does not hold the key."""
        given = () if default is MISSING else (default,)
        if (core := self._direct()) is not None:
            return core.try_get(key, *given, routing_context=routing_context)
        state = self._opened()
        self._key_guard.look_at((key,), state.encoding)
        started = time.perf_counter()
        try:
            value = state.try_look_up(key, routing_context)
            if self._limiter is not None and not self._limiter.try_take(1):
                raise LookupError("the limiter has no token now: get() waits for one")
        except LookupError:
            if given:
                return default
            raise
        self._metrics.get_done(ms_since(started), value is not None)
        return value

    def _direct(self) -> Any:
        """What look-ups go straight to, when shards are the engine's; else, and to hear that the reader is closed, None."""
        if self._core is None or self._closed:
            return None
        self._opened()
        return self._core

    def _look_up_many(
        self,
        keys: list[KeyInput],
        routing_context: dict[str, object] | None,
        timeout: Timeout,
        on_error: OnError = "raise",
    ) -> dict[KeyInput, bytes | None]:
        """Over parts of the caller's."""
        with until(timeout), self._limited_and_borrowed(len(keys), timeout, "multi_get") as state:
            self._key_guard.look_at(keys, state.encoding)
            started = time.perf_counter()
            result = state.look_up_many_now(keys, routing_context, on_error, self.max_workers)
            self._metrics.multi_get_done(ms_since(started), len(keys))
            return result

    @contextmanager
    def _limited_and_borrowed(self, tokens: int, timeout: Timeout, what: str) -> Iterator[SyncForeignState]:
        """Over parts of the caller's: the limiter asked, the snapshot pinned."""
        if self._limiter is not None and self._limits_first:
            self._limiter.wait(tokens, seconds(timeout), what)
        state = self._borrow()
        try:
            if self._limiter is not None and not self._limits_first:
                self._limiter.wait(tokens, seconds(timeout), what)
            yield cast("SyncForeignState", state)
        finally:
            self._end_read(state)

    # ---- rows

    def scan(
        self,
        start: KeyInput | None = None,
        end: KeyInput | None = None,
        *,
        prefix: str | bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
        order: Literal["key", "shard"] = "key",
        decode_keys: bool = False,
        timeout: Timeout = None,
    ) -> Iterator[tuple[Any, bytes]]:
        """The rows of the snapshot with keys in [start, end), or with a prefix, as (key, value).

        Bounds may be keys, or stored bytes, which need not be whole keys. `order="key"` merges all shards in the order of
        stored bytes; "shard" goes through one shard after the other. `decode_keys` gives integers or text for the
        encodings that hold them. The iterator pins the snapshot until it is exhausted, closed or dropped.
        """
        check_scan(start, end, prefix, limit, order)
        state = self._borrow()
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._give_back(state)

        try:
            bounds = scan_bounds(state, start, end, prefix, reverse)
            step = seconds(timeout)
            if order == "key":
                rows = state.rows_now(timeout=step, db_id=None, limit=limit, **bounds)
            else:
                shards = (state.rows_now(timeout=step, db_id=n, limit=limit, **bounds) for n in range(state.num_dbs))
                rows = islice(chain.from_iterable(shards), limit)
        except BaseException:
            release()
            raise
        decode = key_decoder(state.encoding) if decode_keys else None
        return _Rows(rows, decode, release, self._metrics.tell if self._metrics.wanted else None)

    # ---- shards

    def route_key(self, key: KeyInput, *, routing_context: dict[str, object] | None = None) -> int:
        """The shard that holds a key, if any does."""
        return self._facts().locate(key, routing_context)

    def encode_key(self, key: KeyInput) -> bytes:
        """The bytes under which a shard holds a key."""
        return self._facts().encode(key)

    def shard_for_key(
        self, key: KeyInput, *, routing_context: dict[str, object] | None = None
    ) -> RequiredShardMeta:
        """The manifest's entry of the shard that holds a key, if any does."""
        with self._swapping:
            state = self._facts()
            return state.shard_meta(state.locate(key, routing_context))

    def shards_for_keys(self, keys: Sequence[KeyInput]) -> dict[KeyInput, RequiredShardMeta]:
        """The same for several keys."""
        with self._swapping:
            state = self._facts()
            return {key: state.shard_meta(state.locate(key, None)) for key in keys}

    def reader_for_key(self, key: KeyInput) -> ShardReaderHandle:
        """Borrows the shard of a key: `with reader.reader_for_key(key) as handle`."""
        with self._swapping:  # nobody retires the snapshot before it is borrowed
            state = self._opened()
            return self._handle(state, state.locate(key, None))

    def readers_for_keys(self, keys: Sequence[KeyInput]) -> dict[KeyInput, ShardReaderHandle]:
        """One handle for each distinct key."""
        with self._swapping:
            state = self._opened()
            located = {key: state.locate(key, None) for key in keys}  # all of them before the first is borrowed
            return {key: self._handle(state, db_id) for key, db_id in located.items()}

    def _handle(self, state: SnapshotState, db_id: int) -> ShardReaderHandle:
        state.borrow()
        handle = ShardReaderHandle(state.shard_now(db_id), lambda: self._give_back(state))
        if self._metrics.wanted:
            handle._told = self._metrics.tell
        return handle

    # ---- refresh

    def refresh(self, *, timeout: Timeout = None) -> bool:
        """Moves to the snapshot that the pointer names now; whether that is another one.

        When it fails, and when the new manifest is malformed (False), the reader stays as it was. However it fails,
        interrupted and timed out too, `health().last_refresh_error` says why until one ends well. `timeout` bounds requests
        of the built-in store and shard readers, and waiting for another refresh; a store of the caller's is not
        interrupted. Of several threads that call it at once the first
        one reports the change.
        """
        try:
            with until(timeout), self._one_at_a_time(seconds(timeout)):
                moved = self._refresh(self._opened())
        except (Exception, KeyboardInterrupt) as error:
            self._record.refreshed(error)
            raise
        if moved is not None and self._on_refresh is not None:
            tell(self._on_refresh, *moved, self._log)
        return moved is not None

    def watch(self) -> Iterator[SnapshotInfo]:
        """The snapshots that the reader moves to from now on, whoever refreshes it, until it is closed: it blocks until the next
        one. Who takes them slower than it moves gets the newest. By itself a reader moves with `refresh_interval` only."""
        return watch_now(self._engine(), self._opened().manifest_ref, lambda: self._opened().info())

    @contextmanager
    def _one_at_a_time(self, timeout: float | None) -> Iterator[None]:
        lock = self._refreshing
        if not lock.acquire(timeout=-1 if timeout is None else min(timeout, TIMEOUT_MAX)):
            late = OperationTimeoutError(
                f"refresh of {self.s3_prefix} took longer than its timeout of {timeout:g} s, while another refresh ran"
            )
            late.operation, late.object_url = "refresh", self.s3_prefix
            raise late
        try:
            yield
        finally:
            lock.release()

    def _refresh(self, current: SnapshotState) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        try:
            found = self._source.refresh_now(current)
        except Exception as error:
            if isinstance(error, MissingCurrentError):
                log_failure("reader_refresh_current_not_found", severity=FailureSeverity.ERROR, logger=self._log)
                raise no_current(error, self._no_current_at_refresh) from error.__cause__
            raise
        finally:
            self._metrics.tell()
        return self._take(current, found)

    def _take(self, current: SnapshotState, found: Refreshed) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        if found.superseded:
            log_event("reader_refresh_superseded", logger=self._log)
            return None
        if found.state is not None and not self._install(current, found.state):
            return None
        with self._swapping:
            state = self._opened()
            old = self._announced
            if state.manifest_ref != old.manifest_ref:
                self._announced = state.info()
            now = self._announced
        if now is old:
            self._not_changed(found.malformed)
            return None
        self._record.refreshed()
        log_event(
            "reader_refreshed", logger=self._log, old_manifest_ref=old.manifest_ref, new_manifest_ref=now.manifest_ref
        )
        self._metrics.emit(MetricEvent.READER_REFRESHED, {"changed": True})
        return old, now

    def _install(self, current: SnapshotState, new: Any) -> bool:
        with self._swapping:
            closed, superseded = self._closed, self._state is not current
            if not closed and not superseded:
                self._state = new
        if closed:
            new.dispose_now()
            raise ReaderStateError(READER_CLOSED)
        if superseded:
            new.dispose_now()
            log_event("reader_refresh_superseded", logger=self._log, manifest_ref=new.manifest_ref)
            return False
        if current.retire():
            current.dispose_now()
        return True

    def _not_changed(self, malformed: str | None) -> None:
        self._record.refreshed(malformed)
        if malformed is None:
            log_event("reader_refresh_unchanged", logger=self._log)
        else:
            log_failure(
                "reader_refresh_malformed_manifest", severity=FailureSeverity.ERROR, logger=self._log, reason=malformed
            )
        self._metrics.emit(MetricEvent.READER_REFRESHED, {"changed": False})

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

    def health(self, *, staleness_threshold: timedelta | None = None, by: StalenessOf = "reader") -> ReaderHealth:
        """How the reader is. Never fails, asks storage for nothing. "degraded": older than the threshold, by the age of
        the "reader", of its "snapshot", or of its last good "refresh".
        """
        return self._record.report(
            self._follow(), self._source, closed=self._closed, staleness_threshold=staleness_threshold, by=by
        )


def _bare(batch: Callable[..., T], keys: Sequence[KeyInput], **options: Any) -> T:
    """A batch of the engine's; of shards that fail together, the first one's exception."""
    try:
        return batch(keys, **options)
    except MultiGetError as group:
        raise group.exceptions[0] from None


class _Rows(NotCopied, Iterator[tuple[Any, bytes]]):
    """The rows of a scan, which hold their snapshot."""

    def __init__(
        self,
        rows: Iterator[tuple[bytes, bytes]],
        decode: Callable[[bytes], KeyInput] | None,
        release: Callable[[], None],
        told: Callable[[], None] | None,
    ) -> None:
        self._rows = rows
        self._decode = decode
        self._release = release
        self._told = told

    def __next__(self) -> tuple[Any, bytes]:
        try:
            key, value = next(self._rows)
        except BaseException:
            self.close()
            raise
        if self._told is not None:
            self._told()
        return (key if self._decode is None else self._decode(key)), value

    def close(self) -> None:
        """Gives the snapshot back. Any number of times."""
        self._end()
        if self._told is not None:
            self._told()

    def _end(self) -> None:
        close = getattr(self._rows, "close", None)
        self._rows = iter(())
        if close is not None:
            close()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_told"):
            self._end()
