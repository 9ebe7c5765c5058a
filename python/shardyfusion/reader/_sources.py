"""Which source a reader needs for the parts it was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion._s3_options import check_connection_options, engine_options
from shardyfusion._store_events import with_events
from shardyfusion.async_manifest_store import AsyncManifestStore, as_async_store
from shardyfusion.reader._manifest_questions import Ask, ask_async, ask_sync
from shardyfusion.reader._native_source import NativeSource
from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory, SlateDbReaderFactory, shard_options
from shardyfusion.reader._source import Source
from shardyfusion.storage import AsyncObstoreBackend, BucketStore, given_text, location, parse_s3_url
from shardyfusion.type_defs import AsyncShardReaderFactory, S3ConnectionOptions, ShardReader, ShardReaderFactory

if TYPE_CHECKING:
    from shardyfusion._native import ReaderOptions
    from shardyfusion.credentials import CredentialProvider
    from shardyfusion.manifest import ParsedManifest
    from shardyfusion.manifest_store import ManifestStore
    from shardyfusion.reader._sync_shards import SyncShard
    from shardyfusion.reader._sync_source import SyncPluggedSource

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
        # of a store of the caller's it is only a name
        read = location if self.manifest_store is None else given_text
        object.__setattr__(self, "s3_prefix", read(self.s3_prefix))
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
    return _plugged_source(options, factory)


def check_prefix(prefix: str) -> None:
    if prefix.startswith(("file://", "mem://")):
        return
    parse_s3_url(prefix)


def check_max_workers(max_workers: int | None) -> None:
    if max_workers is not None and max_workers < 1:
        raise ValueError("max_workers must be a positive integer (>= 1)")


def sync_source_for(
    options: SyncOptions, *, share: Callable[[Callable[[], ShardReader]], SyncShard], open_together: bool
) -> NativeSource | SyncPluggedSource:
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

    from shardyfusion._immediate import Immediate
    from shardyfusion.reader._sync_source import SyncPluggedSource
    from shardyfusion.storage import ObstoreBackend

    return SyncPluggedSource(
        _default_store(options, lambda s: Immediate(ObstoreBackend(s))) if store is None else Immediate(store),
        None,
        sync_factory=factory,
        share=share,
        open_together=open_together,
        local_root=options.local_root,
        max_fallbacks=options.max_fallback_attempts,
        open_concurrency=1,
        lazy_open=False,
        location=_location(options),
        log=options.log,
    )


def _native_source(
    options: CommonOptions,
    factory: AsyncSlateDbReaderFactory | SlateDbReaderFactory,
    ask: Ask | None,
    opening: ReaderOptions | None = None,
) -> NativeSource:
    store_options = with_events(engine_options(options.s3_connection_options, options.credential_provider))
    shards = shard_options(factory)
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
    if options.reader_factory is None:  # the snapshot says which backend it is of
        engine["sqlite_folder"] = os.path.join(options.local_root, "sqlite")
    return NativeSource(options.s3_prefix, engine, options.log, ask=ask, store=options.manifest_store)


def _opening(options: SourceOptions) -> ReaderOptions:
    """How shards are opened. Where the caller has not chosen, as many at a time as the engine sees fit."""
    opening: ReaderOptions = {"lazy_shards": options.lazy_open}
    if options.open_concurrency != DEFAULT_OPEN_CONCURRENCY:
        opening["open_concurrency"] = options.open_concurrency
    return opening


def _plugged_source(options: SourceOptions, factory: AsyncShardReaderFactory) -> Source:
    from shardyfusion.reader._plugged_source import PluggedSource

    store = options.manifest_store
    return PluggedSource(
        _default_store(options, AsyncObstoreBackend) if store is None else as_async_store(store),
        factory,
        local_root=options.local_root,
        max_fallbacks=options.max_fallback_attempts,
        open_concurrency=options.open_concurrency,
        lazy_open=options.lazy_open,
        location=_location(options),
        log=options.log,
    )


def _default_store(options: CommonOptions, backend: Callable[[Any], Any]) -> AsyncManifestStore:
    from shardyfusion.reader._plugged_source import PrefixManifestStore

    store = BucketStore(
        options.s3_prefix, engine_options(options.s3_connection_options, options.credential_provider)
    )
    return PrefixManifestStore(
        backend(store),
        options.s3_prefix,
        current_pointer_key=options.current_pointer_key,
        relocate=options.relocate,
        confine=options.confine,
    )


def _location(options: CommonOptions) -> Callable[[str, ParsedManifest], str]:
    if options.manifest_store is not None and not options.confine:
        return _published
    relocate = options.relocate and options.manifest_store is None
    return _Relocation(options.s3_prefix, relocate, options.confine)


def _published(db_url: str, manifest: ParsedManifest) -> str:
    return db_url


@dataclass(frozen=True)
class _Relocation:
    """Shards of a moved snapshot, below the prefix that the reader was given."""

    prefix: str
    relocate: bool
    confine: bool | None

    def __call__(self, db_url: str, manifest: ParsedManifest) -> str:
        return native.shard_location(db_url, manifest.required_build.s3_prefix, self.prefix, self.relocate, self.confine)
