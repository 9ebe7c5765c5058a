"""The blocking reader for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shardyfusion._storage_errors import NO_CURRENT_AT_REFRESH
from shardyfusion._timeouts import seconds
from shardyfusion.logging import get_logger
from shardyfusion.reader._base_reader import _BaseShardedReader
from shardyfusion.reader._options import ConcurrentReaderOptions, takes
from shardyfusion.reader._sync_handle import ShardReaderHandle
from shardyfusion.reader._sync_shards import LockedShard, PooledShard, SyncShard
from shardyfusion.type_defs import K, ShardReader

if TYPE_CHECKING:
    pass

__all__ = ["ConcurrentShardedReader"]

_DEFAULT_POOL_SIZE = 4


class ConcurrentShardedReader(_BaseShardedReader[K]):
    """Looks keys up in the snapshot that a batch job published below `s3_prefix`. Any number of threads.

    The constructor opens; `with` closes. The built-in shard readers need no help to be shared. Those of a factory of one's
    own are used by one thread at a time ("lock"), or opened `max_workers` times (4 by default) a shard ("pool").
    """

    _log = get_logger(__name__)
    _no_current_at_refresh = NO_CURRENT_AT_REFRESH
    _what_does_not_close = "shard handle(s)"
    _limits_first = True
    _release_raises = False

    @takes(ConcurrentReaderOptions)
    def __init__(self, options: ConcurrentReaderOptions) -> None:
        """Opens the current snapshot."""
        self.thread_safety = options.thread_safety
        size = options.max_workers or _DEFAULT_POOL_SIZE

        def share(opener: Callable[[], ShardReader]) -> SyncShard:
            if options.thread_safety == "lock":
                return LockedShard(opener())
            return PooledShard(_open_all(opener, size), seconds(options.pool_checkout_timeout))

        super().__init__(options, share=share, open_together=False)

    def readers_for_keys(self, keys: Sequence[K]) -> dict[K, ShardReaderHandle]:
        """One handle for each distinct key."""
        return super().readers_for_keys(keys) if keys else {}


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
