"""Which source a reader needs for the parts it was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from logging import Logger
from typing import TYPE_CHECKING, Any

from shardyfusion._s3_options import engine_options
from shardyfusion._store_events import with_events
from shardyfusion.async_manifest_store import as_async_store
from shardyfusion.reader._manifest_questions import Ask, ask_async, ask_sync
from shardyfusion.reader._options import (
    DEFAULT_OPEN_CONCURRENCY,
    AsyncReaderOptions,
    ReaderOptions,
    SyncReaderOptions,
)
from shardyfusion.reader._slatedb_shard import (
    AsyncSlateDbReaderFactory,
    SlateDbReaderFactory,
    shard_options,
)
from shardyfusion.reader._source import Source
from shardyfusion.reader._sqlite_shard import (
    AdaptiveSqliteReaderFactory,
    AsyncAdaptiveSqliteReaderFactory,
    AsyncAutoReaderFactory,
    AsyncSqliteRangeReaderFactory,
    AsyncSqliteReaderFactory,
    AutoReaderFactory,
    SqliteRangeReaderFactory,
    SqliteReaderFactory,
)
from shardyfusion.reader._state import SnapshotState
from shardyfusion.type_defs import ShardReader

if TYPE_CHECKING:
    from shardyfusion.reader._foreign_shards import AsyncShards, SyncShards
    from shardyfusion.reader._sync_shards import SyncShard


# A subclass of a factory may do anything when it is called, so only the classes themselves stand for the engine.
_ASYNC: tuple[type, ...] = (
    AsyncSlateDbReaderFactory,
    AsyncSqliteReaderFactory,
    AsyncSqliteRangeReaderFactory,
    AsyncAdaptiveSqliteReaderFactory,
    AsyncAutoReaderFactory,
)
_BLOCKING: tuple[type, ...] = (
    SlateDbReaderFactory,
    SqliteReaderFactory,
    SqliteRangeReaderFactory,
    AdaptiveSqliteReaderFactory,
    AutoReaderFactory,
)


def _engine_reading(factory: Any, known: tuple[type, ...], local_root: str) -> dict[str, Any] | None:
    """How the engine opens what the factory is for; None: the factory is to be called."""
    if type(factory) not in known:
        return None
    reading: dict[str, Any] | None = factory.engine_reading(local_root)
    return reading


def _default_factory(options: ReaderOptions) -> dict[str, Any]:
    """The snapshot says which backend it is of."""
    return {
        "env_file": options.slate_env_file,
        "credential_provider": options.credential_provider,
        "s3_connection_options": options.s3_connection_options,
    }


def source_for(options: AsyncReaderOptions, log: Logger) -> Source:
    """For the async reader."""
    store = options.manifest_store
    factory = options.reader_factory or AsyncAutoReaderFactory(**_default_factory(options))
    reading = _engine_reading(factory, _ASYNC, options.local_root)
    if reading is not None:
        ask = None if store is None else ask_async(as_async_store(store))
        return _source(options, log, factory, ask, open_concurrency=_at_a_time(options), **reading)
    from shardyfusion.reader._foreign_shards import AsyncShards
    from shardyfusion.reader._foreign_state import ForeignState

    shards = AsyncShards(factory, local_root=options.local_root, log=log)
    if store is not None:
        shards.manifests = ask_async(as_async_store(store), shards.keep_manifest)
    return _source(options, log, None, shards.manifests, shards, ForeignState, open_concurrency=_at_a_time(options))


def sync_source_for(
    options: SyncReaderOptions, log: Logger, *, share: Callable[[Callable[[], ShardReader]], SyncShard], open_together: bool
) -> Source:
    """The same for blocking readers. `share` and `open_together` are for the shards of a caller's own factory."""
    store = options.manifest_store
    factory = options.reader_factory or AutoReaderFactory(**_default_factory(options))
    reading = _engine_reading(factory, _BLOCKING, options.local_root)
    if reading is not None:
        return _source(options, log, factory, None if store is None else ask_sync(store), **reading)
    from shardyfusion.reader._foreign_shards import SyncShards
    from shardyfusion.reader._foreign_state import SyncForeignState

    shards = SyncShards(
        factory, share=share, open_together=open_together, local_root=options.local_root, log=log)
    if store is not None:
        shards.manifests = ask_sync(store, shards.keep_manifest)
    # one after the other, on this thread, or all at once by a factory that can
    at_a_time = 1 if shards.open_many is None else 2**32 - 1
    return _source(options, log, None, shards.manifests, shards, SyncForeignState, open_concurrency=at_a_time)


def _source(
    options: ReaderOptions,
    log: Logger,
    factory: object,  # that the engine stands for, or None
    ask: Ask | None,
    foreign: AsyncShards | SyncShards | None = None,
    state: Callable[..., SnapshotState] = SnapshotState,
    **others: object,
) -> Source:
    store_options = with_events(engine_options(options.s3_connection_options, options.credential_provider))
    shards = None if factory is None else shard_options(factory)
    if shards is None and options.reader_factory is not None:
        shards = {}  # one of the caller's that says nothing: the environment counts, whatever the reader was told
    engine = {
        **vars(options),
        "manifest_ref": options.manifest_ref,
        **options.caching,
        "s3": store_options,
        "shard_s3": None if shards is None else with_events(shards),  # None: as "s3", which reports, too
        **others,
    }
    if foreign is not None:
        engine["shard_opener"] = foreign.opener
        engine["own_manifests"] = ask is None
        state = partial(state, shards=foreign)
    return Source(options.prefix, engine, log, ask=ask, store=options.manifest_store, shards=foreign, state=state)


def _at_a_time(options: AsyncReaderOptions) -> int | None:
    """Where the caller has not chosen, as many as the engine sees fit."""
    return None if options.open_concurrency == DEFAULT_OPEN_CONCURRENCY else options.open_concurrency
