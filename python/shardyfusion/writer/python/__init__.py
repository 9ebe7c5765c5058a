"""Writing snapshots from one Python process."""

from shardyfusion.writer.python.writer import write_cel_sharded, write_hash_sharded

__all__ = ["write_cel_sharded", "write_hash_sharded"]
