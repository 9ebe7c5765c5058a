"""How keys are spread over shards, and how they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from shardyfusion._missing import without
from shardyfusion._storage_errors import InvalidArgumentError

__all__ = [
    "DB_ID_COL",
    "CelShardingSpec",
    "HashShardingSpec",
    "KeyEncoding",
    "RoutingValue",
    "ShardHashAlgorithm",
    "ShardingSpec",
    "ShardingStrategy",
    "validate_routing_values",
]

DB_ID_COL = "_shard_id"

RoutingValue: TypeAlias = int | str | bytes
"""A token of categorical routing; its place in the list is the shard's number."""


class _TextEnum(str, Enum):
    """Members equal their text and encode to JSON as it."""

    @classmethod
    def _from_value(cls, value: str, what: str) -> Self:
        try:
            return cls(value)
        except ValueError:
            allowed = ", ".join(member.value for member in cls)
            raise ValueError(f"Unsupported {what}: {value!r}. Allowed: {allowed}") from None


class KeyEncoding(_TextEnum):
    """How keys are stored in a shard: integers as 8 or 4 bytes big-endian, text as UTF-8, or bytes as they are."""

    U64BE = "u64be"
    U32BE = "u32be"
    UTF8 = "utf8"
    RAW = "raw"

    @classmethod
    def from_value(cls, value: KeyEncoding | str) -> Self:
        """A member, or its text; else ValueError."""
        return cls._from_value(value, "key encoding")


class ShardingStrategy(_TextEnum):
    """HASH spreads keys by their hash; CEL by an expression."""

    HASH = "hash"
    CEL = "cel"

    @classmethod
    def from_value(cls, value: ShardingStrategy | str) -> Self:
        """A member, or its text; else ValueError."""
        return cls._from_value(value, "sharding strategy")


class ShardHashAlgorithm(_TextEnum):
    """The hash of HASH sharding."""

    XXH3_64 = "xxh3_64"

    @classmethod
    def from_value(cls, value: ShardHashAlgorithm | str) -> Self:
        """A member, or its text; else ValueError."""
        return cls._from_value(value, "shard hash algorithm")


@dataclass(slots=True)
class ShardingSpec:
    """Base of the two kinds of sharding."""

    def to_manifest_dict(self) -> dict[str, object]:
        """The members of the manifest's `sharding` object."""
        raise NotImplementedError


@dataclass(slots=True)
class HashShardingSpec(ShardingSpec):
    """Sharding by the hash of the key. `max_keys_per_shard` lets a writer choose the number of shards."""

    hash_algorithm: ShardHashAlgorithm = ShardHashAlgorithm.XXH3_64
    max_keys_per_shard: int | None = None

    def __post_init__(self) -> None:
        self.hash_algorithm = ShardHashAlgorithm.from_value(self.hash_algorithm)
        if self.max_keys_per_shard is not None and not is_positive_integer(self.max_keys_per_shard):
            raise InvalidArgumentError("max_keys_per_shard must be > 0")

    def to_manifest_dict(self) -> dict[str, object]:
        return {"strategy": ShardingStrategy.HASH.value, "hash_algorithm": self.hash_algorithm.value}


@dataclass(slots=True)
class CelShardingSpec(ShardingSpec):
    """Sharding by a CEL expression over the columns `cel_columns` (name to type)."""

    cel_expr: str = ""
    cel_columns: dict[str, str] = field(default_factory=dict)
    routing_values: list[RoutingValue] | None = None
    infer_routing_values_from_data: bool = False

    def __post_init__(self) -> None:
        check_cel(self)

    def to_manifest_dict(self) -> dict[str, object]:
        members: dict[str, object] = {
            "strategy": ShardingStrategy.CEL.value,
            "cel_expr": self.cel_expr,
            "cel_columns": dict(self.cel_columns),
            "hash_algorithm": ShardHashAlgorithm.XXH3_64.value,
        }
        if self.routing_values is not None:
            members["routing_values"] = list(self.routing_values)
        return members


class _Cel(Protocol):
    cel_expr: str
    cel_columns: dict[str, str]
    routing_values: list[RoutingValue] | None
    infer_routing_values_from_data: bool


def check_cel(sharding: _Cel) -> None:
    """ConfigValidationError, which is also a ValueError, unless it can be a CEL sharding."""
    if not sharding.cel_expr:
        raise InvalidArgumentError("CEL strategy requires cel_expr")
    if not sharding.cel_columns:
        raise InvalidArgumentError("CEL strategy requires cel_columns")
    if sharding.routing_values is not None:
        if sharding.infer_routing_values_from_data:
            raise InvalidArgumentError("infer_routing_values_from_data cannot be combined with routing_values")
        validate_routing_values(sharding.routing_values)


def is_positive_integer(value: object) -> bool:
    """A count, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def validate_routing_values(routing_values: Sequence[RoutingValue], *, require_unique: bool = True) -> None:
    """ConfigValidationError, which is also a ValueError, unless the values are all integers, all texts or all bytes, and (by
    default) distinct. True and False are no integers here."""
    kinds = {_routing_kind(value) for value in routing_values}
    if len(kinds) > 1:
        raise InvalidArgumentError("routing_values must all be of one type")
    if require_unique and len(set(routing_values)) != len(routing_values):
        raise InvalidArgumentError("routing_values must not contain duplicates")


def _routing_kind(value: object) -> type:
    for kind in (int, str, bytes):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind
    raise InvalidArgumentError(f"routing_values must be int, str or bytes, got {type(value).__name__!r}")


if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = without(__name__, "vector search", {"VECTOR_DB_ID_COL"})
