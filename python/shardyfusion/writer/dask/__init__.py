"""Writing snapshots from Dask: rows are routed and built by its tasks, in columns (docs/engines.md)."""

from typing import TYPE_CHECKING

from shardyfusion._missing import without
from shardyfusion.writer._engines import require_engine

require_engine(__name__, "dask", "writer-dask")
require_engine(__name__, "pandas", "writer-dask")

from shardyfusion.writer.dask.single_db_writer import DaskCacheContext, write_single_db  # noqa: E402
from shardyfusion.writer.dask.writer import write_cel_sharded, write_hash_sharded  # noqa: E402

__all__ = ["DaskCacheContext", "write_cel_sharded", "write_hash_sharded", "write_single_db"]

if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = without(__name__, "vector search", {"write_sharded", "write_vector_sharded"})
