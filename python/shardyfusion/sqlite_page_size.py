"""Page sizes of SQLite shards: not available in this version."""

from shardyfusion._missing import unavailable

raise unavailable(__name__, "the SQLite backend")
