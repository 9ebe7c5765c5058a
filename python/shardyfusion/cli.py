"""The command in Python: not available in this version."""

from shardyfusion._missing import unavailable

raise unavailable(__name__, "shardyfusion.cli (use the shardy command)")
