"""How SQLite shards are read, by their sizes; and how they fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from shardyfusion.errors import ShardyfusionError

SqliteAccessMode: TypeAlias = Literal["download", "range", "auto"]
Decision: TypeAlias = Literal["download", "range"]

DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES = 16 << 20
DEFAULT_AUTO_TOTAL_BUDGET_BYTES = 2 << 30


class SqliteAdapterError(ShardyfusionError):
    """An SQLite shard cannot be written or read."""


class SidecarUnavailableError(SqliteAdapterError):
    """The shard has no sidecar, or one that does not belong to it."""


class MissingSqliteShardError(SqliteAdapterError, FileNotFoundError):
    """There is no `shard.db`."""


class DeniedSqliteShardError(SqliteAdapterError, PermissionError):
    """Storage refused access to a shard, or the folder of copies is open to others."""


@runtime_checkable
class SqliteAccessPolicy(Protocol):
    """Decides once per snapshot how its shards are read."""

    def decide(self, db_bytes_per_shard: Sequence[int]) -> Decision:
        """How, from the sizes of all shards."""
        ...


def decide_access_mode(
    *,
    db_bytes_per_shard: Sequence[int],
    per_shard_threshold: int = DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES,
    total_budget: int = DEFAULT_AUTO_TOTAL_BUDGET_BYTES,
) -> Decision:
    """ "range" when a shard has as many bytes as the threshold, or all together as many as the budget, or more."""
    if not db_bytes_per_shard:
        return "download"
    large = max(db_bytes_per_shard) >= per_shard_threshold or sum(db_bytes_per_shard) >= total_budget
    return "range" if large else "download"


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """The policy of `make_threshold_policy`, which the engine has, too."""

    per_shard_threshold: int
    total_budget: int

    def decide(self, db_bytes_per_shard: Sequence[int]) -> Decision:
        return decide_access_mode(
            db_bytes_per_shard=db_bytes_per_shard,
            per_shard_threshold=self.per_shard_threshold,
            total_budget=self.total_budget,
        )


def make_threshold_policy(
    *,
    per_shard_threshold: int = DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES,
    total_budget: int = DEFAULT_AUTO_TOTAL_BUDGET_BYTES,
) -> SqliteAccessPolicy:
    """`decide_access_mode` with these bounds."""
    return ThresholdPolicy(per_shard_threshold, total_budget)
