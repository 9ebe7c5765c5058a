"""Writing snapshots from Ray: rows are routed and built by its tasks, in columns (docs/engines.md)."""

from typing import TYPE_CHECKING

from shardyfusion._missing import without
from shardyfusion.writer._engines import require_engine

require_engine(__name__, "ray", "writer-ray")

from shardyfusion.writer.ray.single_db_writer import RayCacheContext, write_single_db  # noqa: E402
from shardyfusion.writer.ray.writer import write_cel_sharded, write_hash_sharded  # noqa: E402

__all__ = ["RayCacheContext", "write_cel_sharded", "write_hash_sharded", "write_single_db"]

if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = without(__name__, "vector search", {"write_sharded", "write_vector_sharded"})
