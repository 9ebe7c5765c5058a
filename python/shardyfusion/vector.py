"""Vector search: not available in this version."""

from shardyfusion._missing import unavailable

raise unavailable(__name__, "vector search")
