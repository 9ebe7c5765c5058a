"""CEL sharding: the types, and the expressions that are generated from columns. Evaluation is not available yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from shardyfusion._storage_errors import InvalidArgumentError
from shardyfusion.errors import ConfigValidationError
from shardyfusion.sharding_types import CelShardingSpec, RoutingValue

__all__ = [
    "CelColumn",
    "CelType",
    "UnknownRoutingTokenError",
    "build_categorical_routing_lookup",
    "cel_sharding",
    "cel_sharding_by_columns",
    "compile_cel",
    "compile_cel_cached",
    "resolve_cel_routing_key",
    "route_cel",
]


class UnknownRoutingTokenError(ValueError):
    """The token that a categorical expression gave is none of the snapshot's."""


class CelType(str, Enum):
    """Types of routing columns."""

    INT = "int"
    STRING = "string"
    BYTES = "bytes"
    DOUBLE = "double"
    BOOL = "bool"
    UINT = "uint"


@dataclass(slots=True, frozen=True)
class CelColumn:
    """A routing column and its type."""

    name: str
    type: CelType = CelType.STRING


def cel_sharding(
    expr: str,
    columns: dict[str, str | CelType],
    *,
    routing_values: Sequence[RoutingValue] | None = None,
) -> CelShardingSpec:
    """Sharding by an expression of one's own."""
    return CelShardingSpec(
        cel_expr=expr,
        cel_columns={name: _column_type(name, kind).value for name, kind in columns.items()},
        routing_values=None if routing_values is None else list(routing_values),
    )


def cel_sharding_by_columns(
    *columns: str | CelColumn, num_shards: int | None = None, separator: str = ":"
) -> CelShardingSpec:
    """Sharding by the values of columns: hashed over `num_shards`, else one shard for every value found."""
    if not columns:
        raise InvalidArgumentError("cel_sharding_by_columns requires at least one column")
    if num_shards is not None and num_shards <= 0:
        raise InvalidArgumentError(f"num_shards must be > 0, got {num_shards}")
    named = [column if isinstance(column, CelColumn) else CelColumn(column) for column in columns]
    types = {column.name: _column_type(column.name, column.type) for column in named}
    if len(named) == 1:
        name, kind = next(iter(types.items()))
        hashed_as_text = num_shards is not None and kind in (CelType.DOUBLE, CelType.BOOL)
        joined = f"string({name})" if hashed_as_text else name
    else:
        between = f" + {json.dumps(separator, ensure_ascii=False)} + "
        joined = between.join(n if kind is CelType.STRING else f"string({n})" for n, kind in types.items())
    return CelShardingSpec(
        cel_expr=joined if num_shards is None else f"shard_hash({joined}) % {num_shards}u",
        cel_columns={name: kind.value for name, kind in types.items()},
        infer_routing_values_from_data=num_shards is None,
    )


def _column_type(name: str, kind: str | CelType) -> CelType:
    try:
        return CelType(kind)
    except ValueError:
        allowed = sorted(member.value for member in CelType)
        raise InvalidArgumentError(
            f"Unsupported CEL column type: {kind!r} for column {name!r}. Allowed: {allowed}"
        ) from None


def build_categorical_routing_lookup(routing_values: Sequence[RoutingValue]) -> dict[RoutingValue, int]:
    """From token to shard."""
    return {value: db_id for db_id, value in enumerate(routing_values)}


def resolve_cel_routing_key(
    routing_key: int | str | bytes,
    *,
    routing_values: Sequence[RoutingValue] | None = None,
    lookup: dict[RoutingValue, int] | None = None,
) -> int:
    """The shard that an expression's result names: a token of `routing_values`, else the number itself."""
    if lookup is None and routing_values is None:
        return int(routing_key)
    table = build_categorical_routing_lookup(routing_values or ()) if lookup is None else lookup
    if routing_key not in table:
        raise UnknownRoutingTokenError(
            f"Categorical CEL routing token {routing_key!r} is not present in this snapshot."
        )
    return table[routing_key]


def compile_cel(expr: str, columns: dict[str, str]) -> Any:
    """Not available yet."""
    _not_yet(expr)


def compile_cel_cached(expr: str, columns_key: tuple[tuple[str, str], ...]) -> Any:
    """Not available yet."""
    _not_yet(expr)


def route_cel(
    compiled: Any,
    context: dict[str, Any],
    routing_values: Sequence[RoutingValue] | None = None,
    lookup: dict[RoutingValue, int] | None = None,
) -> int:
    """Not available yet."""
    _not_yet(str(compiled))


def _not_yet(expr: str) -> NoReturn:
    raise ConfigValidationError(f"Failed to compile CEL expression {expr!r}: CEL evaluation is not supported yet")


def __getattr__(name: str) -> Any:
    if name == "CompiledCel":
        raise AttributeError("shardyfusion.cel.CompiledCel: CEL evaluation is not available in this version")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
