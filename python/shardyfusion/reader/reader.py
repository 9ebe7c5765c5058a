"""The blocking reader for one thread at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._storage_errors import NO_CURRENT
from shardyfusion.logging import get_logger
from shardyfusion.reader._base_reader import _BaseShardedReader
from shardyfusion.reader._options import SyncReaderOptions, takes
from shardyfusion.reader._slatedb_shard import SlateDbReaderFactory
from shardyfusion.reader._sync_handle import ShardReaderHandle
from shardyfusion.reader._sync_shards import PlainShard
from shardyfusion.type_defs import K

if TYPE_CHECKING:
    from shardyfusion.reader._state import SnapshotState

__all__ = ["ShardReaderHandle", "ShardedReader", "SlateDbReaderFactory"]


class ShardedReader(_BaseShardedReader[K]):
    """Looks keys up in the snapshot that a batch job published below `s3_prefix`. One thread at a time.

    The constructor opens; `with` closes. Facts of the last snapshot can be asked for after `close()`, too.
    """

    _log = get_logger(__name__)
    _no_current_at_refresh = NO_CURRENT
    _what_does_not_close = "shard reader(s)"
    _limits_first = False
    _release_raises = True

    @takes(SyncReaderOptions)
    def __init__(self, options: SyncReaderOptions) -> None:
        """Opens the current snapshot."""
        super().__init__(options, share=lambda opener: PlainShard(opener()), open_together=True)

    def _facts(self) -> SnapshotState:
        return self._follow()
