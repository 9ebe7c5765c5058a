"""The blocking reader for one thread at a time."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from shardyfusion._storage_errors import NO_CURRENT
from shardyfusion._timeouts import Timeout
from shardyfusion.logging import get_logger
from shardyfusion.metrics import MetricsCollector
from shardyfusion.reader._base_reader import _BaseShardedReader
from shardyfusion.reader._slatedb_shard import SlateDbReaderFactory
from shardyfusion.reader._sources import SyncOptions, check_max_workers, sync_source_for
from shardyfusion.reader._sync_handle import ShardReaderHandle
from shardyfusion.reader._sync_shards import PlainShard
from shardyfusion.storage import given_text
from shardyfusion.type_defs import S3ConnectionOptions, ShardReaderFactory

if TYPE_CHECKING:
    from shardyfusion._rate_limiter import RateLimiter
    from shardyfusion.credentials import CredentialProvider
    from shardyfusion.manifest_store import ManifestStore
    from shardyfusion.reader._native_source import NativeState

__all__ = ["ShardReaderHandle", "ShardedReader", "SlateDbReaderFactory"]


class ShardedReader(_BaseShardedReader):
    """Looks keys up in the snapshot that a batch job published below `s3_prefix`. One thread at a time.

    The constructor opens; `with` closes. Facts of the last snapshot can be asked for after `close()`, too.
    """

    _log = get_logger(__name__)
    _no_current_at_refresh = NO_CURRENT
    _what_does_not_close = "shard reader(s)"
    _limits_first = False
    _release_raises = True

    def __init__(
        self,
        *,
        s3_prefix: str | PathLike[str],
        local_root: str,
        manifest_store: ManifestStore | None = None,
        current_pointer_key: str = "_CURRENT",
        reader_factory: ShardReaderFactory | None = None,
        slate_env_file: str | None = None,
        credential_provider: CredentialProvider | None = None,
        s3_connection_options: S3ConnectionOptions | None = None,
        max_workers: int | None = None,
        max_fallback_attempts: int = 3,
        metrics_collector: MetricsCollector | None = None,
        rate_limiter: RateLimiter | None = None,
        relocate: bool = False,
        confine: bool | None = None,
        open_timeout: Timeout = None,
        strict_keys: bool = False,
    ) -> None:
        """The arguments are those of AsyncShardedReader, with blocking parts.

        `max_workers` above 1: `multi_get` reads that many shards of a factory's own at a time. `open_timeout` bounds the
        opening by the built-in store and factory.
        """
        check_max_workers(max_workers)
        prefix = given_text(s3_prefix)
        options = SyncOptions(
            s3_prefix=prefix,
            local_root=local_root,
            manifest_store=manifest_store,
            current_pointer_key=current_pointer_key,
            reader_factory=reader_factory,
            slate_env_file=slate_env_file,
            credential_provider=credential_provider,
            s3_connection_options=s3_connection_options,
            max_fallback_attempts=max_fallback_attempts,
            relocate=relocate,
            confine=confine,
            log=self._log,
        )
        super().__init__(
            lambda: sync_source_for(options, share=lambda opener: PlainShard(opener()), open_together=True),
            s3_prefix=prefix,
            local_root=local_root,
            max_workers=max_workers,
            metrics_collector=metrics_collector,
            rate_limiter=rate_limiter,
            open_timeout=open_timeout,
            strict_keys=strict_keys,
        )

    def _facts(self) -> NativeState:
        return self._follow()
