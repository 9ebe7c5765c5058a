"""Which source a reader needs for the parts it was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from logging import Logger
from typing import TYPE_CHECKING

from shardyfusion._s3_options import engine_options
from shardyfusion._store_events import with_events
from shardyfusion.async_manifest_store import as_async_store
from shardyfusion.reader._manifest_questions import Ask, ask_async, ask_sync
from shardyfusion.reader._options import DEFAULT_OPEN_CONCURRENCY, AsyncReaderOptions, ReaderOptions, SyncReaderOptions
from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory, SlateDbReaderFactory, shard_options
from shardyfusion.reader._source import Source
from shardyfusion.reader._state import SnapshotState
from shardyfusion.type_defs import ShardReader

if TYPE_CHECKING:
    from shardyfusion.reader._foreign_shards import AsyncShards, SyncShards
    from shardyfusion.reader._sync_shards import SyncShard

def source_for(options: AsyncReaderOptions, log: Logger) -> Source:
    """For the async reader."""
    factory = options.reader_factory
    if factory is None:
        factory = AsyncSlateDbReaderFactory(
            env_file=options.slate_env_file,
            credential_provider=options.credential_provider,
            s3_connection_options=options.s3_connection_options,
        )
    # a subclass of the factory may do anything when it is called, so only the class itself stands for the engine
    if type(factory) is AsyncSlateDbReaderFactory:
        store = options.manifest_store
        ask = None if store is None else ask_async(as_async_store(store))
        return _source(options, log, factory, ask, open_concurrency=_at_a_time(options))
    from shardyfusion.reader._foreign_shards import AsyncShards
    from shardyfusion.reader._foreign_state import ForeignState

    shards = AsyncShards(factory, local_root=options.local_root, log=log)
    store = options.manifest_store
    if store is not None:
        shards.manifests = ask_async(as_async_store(store), shards.keep_manifest)
    return _source(options, log, None, shards.manifests, shards, ForeignState, open_concurrency=_at_a_time(options))


def sync_source_for(
    options: SyncReaderOptions, log: Logger, *, share: Callable[[Callable[[], ShardReader]], SyncShard], open_together: bool
) -> Source:
    """The same for blocking readers. `share` and `open_together` are for the shards of a caller's own factory."""
    factory = options.reader_factory
    if factory is None:
        factory = SlateDbReaderFactory(
            env_file=options.slate_env_file,
            credential_provider=options.credential_provider,
            s3_connection_options=options.s3_connection_options,
        )
    store = options.manifest_store
    if type(factory) is SlateDbReaderFactory:
        return _source(options, log, factory, None if store is None else ask_sync(store))
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
    factory: AsyncSlateDbReaderFactory | SlateDbReaderFactory | None,
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
        "s3": store_options,
        "shard_s3": None if shards is None else with_events(shards),  # None: as "s3", which reports, too
        **others,
    }
    if foreign is not None:
        engine["shard_opener"] = foreign.opener
        engine["own_manifests"] = ask is None
        state = partial(state, shards=foreign)
    if options.reader_factory is None:  # the snapshot says which backend it is of
        engine["sqlite_folder"] = os.path.join(options.local_root, "sqlite")
    else:
        engine["sqlite_mode"] = "refuse"
    return Source(options.prefix, engine, log, ask=ask, store=options.manifest_store, shards=foreign, state=state)


def _at_a_time(options: AsyncReaderOptions) -> int | None:
    """Where the caller has not chosen, as many as the engine sees fit."""
    return None if options.open_concurrency == DEFAULT_OPEN_CONCURRENCY else options.open_concurrency
