"""Writing snapshots from Spark: not available in this version."""

from shardyfusion._missing import unavailable

raise unavailable(__name__, "writing snapshots from Spark")
