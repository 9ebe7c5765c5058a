"""The sync reader for many threads: not available in this version."""

from shardyfusion._missing import unavailable

raise unavailable(__name__, "the sync reader")
