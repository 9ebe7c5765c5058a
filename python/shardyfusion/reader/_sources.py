"""Which source a reader needs for the parts it was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger
from typing import TYPE_CHECKING, Any

from shardyfusion._s3_options import check_connection_options, engine_options
from shardyfusion._store_events import with_events
from shardyfusion.async_manifest_store import AsyncManifestStore, as_async_store
from shardyfusion.reader._manifest_questions import Ask, ask_async, ask_sync
from shardyfusion.reader._native_source import NativeSource
from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory, SlateDbReaderFactory, shard_options
from shardyfusion.reader._source import Source
from shardyfusion.storage import location, parse_s3_url
from shardyfusion.type_defs import AsyncShardReaderFactory, S3ConnectionOptions, ShardReader, ShardReaderFactory

if TYPE_CHECKING:
    from shardyfusion._native import ReaderOptions
    from shardyfusion.credentials import CredentialProvider
    from shardyfusion.manifest_store import ManifestStore
    from shardyfusion.reader._foreign_shards import AsyncShards, SyncShards
    from shardyfusion.reader._sync_shards import SyncShard

DEFAULT_OPEN_CONCURRENCY = 64


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """The arguments of every reader that say what it reads, as given."""

    s3_prefix: str
    local_root: str
    current_pointer_key: str
    slate_env_file: str | None
    credential_provider: CredentialProvider | None
    s3_connection_options: S3ConnectionOptions | None
    max_fallback_attempts: int
    relocate: bool
    confine: bool | None
    log: Logger
    manifest_store: AsyncManifestStore | ManifestStore | None
    reader_factory: AsyncShardReaderFactory | ShardReaderFactory | None

    def __post_init__(self) -> None:
        if self.manifest_store is None:  # of a store of the caller's it is only a name
            object.__setattr__(self, "s3_prefix", location(self.s3_prefix))
        check_connection_options(self.s3_connection_options)


@dataclass(frozen=True, kw_only=True)
class SourceOptions(CommonOptions):
    """Those of the async reader."""

    reader_factory: AsyncShardReaderFactory | None
    open_concurrency: int
    lazy_open: bool


@dataclass(frozen=True, kw_only=True)
class SyncOptions(CommonOptions):
    """Those of the blocking readers."""

    manifest_store: ManifestStore | None
    reader_factory: ShardReaderFactory | None


def source_for(options: SourceOptions) -> Source:
    """ValueError for a prefix that is no location, unless a store is given: then it is only a name."""
    if options.manifest_store is None:
        check_prefix(options.s3_prefix)
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
        return _native_source(options, factory, ask, _opening(options))
    from shardyfusion.reader._foreign_shards import AsyncShards

    shards = AsyncShards(factory, local_root=options.local_root, log=options.log)
    store = options.manifest_store
    if store is not None:
        shards.manifests = ask_async(as_async_store(store), shards.keep_manifest)
    return _native_source(options, None, shards.manifests, _opening(options), shards)


def check_prefix(prefix: str) -> None:
    if prefix.startswith(("file://", "mem://")):
        return
    parse_s3_url(prefix)


def check_max_workers(max_workers: int | None) -> None:
    if max_workers is not None and max_workers < 1:
        raise ValueError("max_workers must be a positive integer (>= 1)")


def sync_source_for(
    options: SyncOptions, *, share: Callable[[Callable[[], ShardReader]], SyncShard], open_together: bool
) -> NativeSource:
    """The same for blocking readers. `share` and `open_together` are for the shards of a caller's own factory."""
    if options.manifest_store is None:
        check_prefix(options.s3_prefix)
    factory = options.reader_factory
    if factory is None:
        factory = SlateDbReaderFactory(
            env_file=options.slate_env_file,
            credential_provider=options.credential_provider,
            s3_connection_options=options.s3_connection_options,
        )
    store = options.manifest_store
    if type(factory) is SlateDbReaderFactory:
        return _native_source(options, factory, None if store is None else ask_sync(store))
    from shardyfusion.reader._foreign_shards import SyncShards

    shards = SyncShards(
        factory, share=share, open_together=open_together, local_root=options.local_root, log=options.log)
    if store is not None:
        shards.manifests = ask_sync(store, shards.keep_manifest)
    # one after the other, on this thread, or all at once by a factory that can
    opening: ReaderOptions = {"open_concurrency": 1 if shards.open_many is None else 2**32 - 1}
    return _native_source(options, None, shards.manifests, opening, shards)


def _native_source(
    options: CommonOptions,
    factory: AsyncSlateDbReaderFactory | SlateDbReaderFactory | None,
    ask: Ask | None,
    opening: ReaderOptions | None = None,
    foreign: AsyncShards | SyncShards | None = None,
) -> NativeSource:
    store_options = with_events(engine_options(options.s3_connection_options, options.credential_provider))
    shards = None if factory is None else shard_options(factory)
    if shards is None and options.reader_factory is not None:
        shards = {}  # one of the caller's that says nothing: the environment counts, whatever the reader was told
    engine: ReaderOptions = {
        "s3": store_options,
        "shard_s3": None if shards is None else with_events(shards),  # None: as "s3", which reports, too
        "current_name": options.current_pointer_key,
        "max_fallbacks": options.max_fallback_attempts,
        "relocate": options.relocate,
        "confine": options.confine,
        **(opening or {}),
    }
    if foreign is not None:
        engine["shard_opener"] = foreign.opener
        engine["own_manifests"] = ask is None
    if options.reader_factory is None:  # the snapshot says which backend it is of
        engine["sqlite_folder"] = os.path.join(options.local_root, "sqlite")
    return NativeSource(options.s3_prefix, engine, options.log, ask=ask, store=options.manifest_store, shards=foreign)


def _opening(options: SourceOptions) -> ReaderOptions:
    """How shards are opened. Where the caller has not chosen, as many at a time as the engine sees fit."""
    opening: ReaderOptions = {"lazy_shards": options.lazy_open}
    if options.open_concurrency != DEFAULT_OPEN_CONCURRENCY:
        opening["open_concurrency"] = options.open_concurrency
    return opening
