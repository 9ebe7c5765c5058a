"""The blocking reader for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from os import PathLike
from typing import TYPE_CHECKING, Literal

from shardyfusion._storage_errors import NO_CURRENT_AT_REFRESH
from shardyfusion._timeouts import Timeout, seconds
from shardyfusion.logging import get_logger
from shardyfusion.metrics import MetricsCollector
from shardyfusion.reader._base_reader import _BaseShardedReader
from shardyfusion.reader._sources import SyncOptions, check_max_workers, sync_source_for
from shardyfusion.reader._sync_handle import ShardReaderHandle
from shardyfusion.reader._sync_shards import LockedShard, PooledShard, SyncShard
from shardyfusion.storage import given_text
from shardyfusion.type_defs import KeyInput, S3ConnectionOptions, ShardReader, ShardReaderFactory

if TYPE_CHECKING:
    from shardyfusion._rate_limiter import RateLimiter
    from shardyfusion.credentials import CredentialProvider
    from shardyfusion.manifest_store import ManifestStore
    from shardyfusion.reader._native_source import NativeState

__all__ = ["ConcurrentShardedReader"]

_DEFAULT_POOL_SIZE = 4


class ConcurrentShardedReader(_BaseShardedReader):
    """Looks keys up in the snapshot that a batch job published below `s3_prefix`. Any number of threads.

    The constructor opens; `with` closes. The built-in shard readers need no help to be shared. Those of a factory of one's
    own are used by one thread at a time ("lock"), or opened `max_workers` times (4 by default) a shard ("pool").
    """

    _log = get_logger(__name__)
    _no_current_at_refresh = NO_CURRENT_AT_REFRESH
    _what_does_not_close = "shard handle(s)"
    _limits_first = True
    _release_raises = False

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
        thread_safety: Literal["lock", "pool"] = "lock",
        pool_checkout_timeout: timedelta = timedelta(seconds=30),
        max_workers: int | None = None,
        max_fallback_attempts: int = 3,
        metrics_collector: MetricsCollector | None = None,
        rate_limiter: RateLimiter | None = None,
        relocate: bool = False,
        confine: bool | None = None,
        open_timeout: Timeout = None,
        strict_keys: bool = False,
    ) -> None:
        """The arguments are those of ShardedReader and of the class's own two ways of sharing shard readers.

        PoolExhaustedError from reads when no shard reader of a pool becomes free within `pool_checkout_timeout`.
        """
        if thread_safety not in ("lock", "pool"):
            raise ValueError("thread_safety must be 'lock' or 'pool'")
        timeout_s = seconds(pool_checkout_timeout)
        if timeout_s is not None and timeout_s <= 0:
            raise ValueError(f"pool_checkout_timeout must be > 0, got {timeout_s}")
        check_max_workers(max_workers)
        self.thread_safety = thread_safety
        size = max_workers or _DEFAULT_POOL_SIZE

        def share(opener: Callable[[], ShardReader]) -> SyncShard:
            if thread_safety == "lock":
                return LockedShard(opener())
            return PooledShard(_open_all(opener, size), timeout_s)

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
            lambda: sync_source_for(options, share=share, open_together=False),
            s3_prefix=prefix,
            local_root=local_root,
            max_workers=max_workers,
            metrics_collector=metrics_collector,
            rate_limiter=rate_limiter,
            open_timeout=open_timeout,
            strict_keys=strict_keys,
        )

    def readers_for_keys(self, keys: Sequence[KeyInput]) -> dict[KeyInput, ShardReaderHandle]:
        """One handle for each distinct key."""
        return super().readers_for_keys(keys) if keys else {}

    def _facts(self) -> NativeState:
        return self._opened()


def _open_all(opener: Callable[[], ShardReader], count: int) -> list[ShardReader]:
    """All or none."""
    opened: list[ShardReader] = []
    try:
        for _ in range(count):
            opened.append(opener())
    except BaseException:
        for reader in opened:
            reader.close()
        raise
    return opened
