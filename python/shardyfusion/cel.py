"""CEL sharding: types, expressions that are generated from columns, and their evaluation, which is the engine's (docs/cel.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion._storage_errors import InvalidArgumentError, UnknownRoutingTokenError
from shardyfusion.sharding_types import CelShardingSpec, RoutingValue

if TYPE_CHECKING:
    from shardyfusion._native import CelRule

__all__ = [
    "CEL_TYPE_MAP",
    "CelColumn",
    "CelType",
    "CompiledCel",
    "UnknownRoutingTokenError",
    "build_categorical_routing_lookup",
    "cel_sharding",
    "cel_sharding_by_columns",
    "compile_cel",
    "compile_cel_cached",
    "evaluate_cel_arrow_batch",
    "pandas_rows_to_contexts",
    "resolve_cel_routing_key",
    "route_cel",
    "route_cel_batch",
    "validate_cel_columns",
]


class CelType(str, Enum):
    """Types of routing columns."""

    INT = "int"
    STRING = "string"
    BYTES = "bytes"
    DOUBLE = "double"
    BOOL = "bool"
    UINT = "uint"


CEL_TYPE_MAP: dict[str, str] = {kind.value: kind.name for kind in CelType}


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
    """Sharding by an expression of one's own.

    expr: the expression. columns: the columns that it uses, name to type.
    routing_values: the values that stand for shards, in the shards' order; None: the expression gives the shard's number.
    """
    return CelShardingSpec(
        cel_expr=expr,
        cel_columns={name: _column_type(name, kind).value for name, kind in columns.items()},
        routing_values=None if routing_values is None else list(routing_values),
    )


def cel_sharding_by_columns(
    *columns: str | CelColumn, num_shards: int | None = None, separator: str = ":"
) -> CelShardingSpec:
    """Sharding by the values of columns.

    columns: names, of text unless they are given as `CelColumn`.
    num_shards: the values are hashed over so many shards; None: one shard for every value that is found.
    separator: stands between the values of several columns.
    """
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


class CompiledCel:
    """An expression with its columns, compiled. Immutable; any thread. `compile_cel()` makes one.

    `env` is not looked at; `expr` is the text.
    """

    def __init__(self, env: Any, expr: Any, columns: dict[str, str]) -> None:
        self._columns = dict(columns)
        self._rule: CelRule = native.cel_rule(json.dumps({"cel_expr": expr, "cel_columns": self._columns}), 1)

    @property
    def columns(self) -> Mapping[str, str]:
        """The type of each column."""
        return MappingProxyType(self._columns)

    @property
    def columns_list(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._columns)

    def evaluate(self, context: dict[str, Any]) -> int | str | bytes:
        """What the expression gives for values of its columns. ValueError when it fails."""
        return self._rule.token(context)


def compile_cel(expr: str, columns: dict[str, str]) -> CompiledCel:
    """An expression over columns (name to type). ConfigValidationError when it does not compile."""
    if not columns:
        raise InvalidArgumentError(f"Failed to compile CEL expression {expr!r}: it has no columns")
    return CompiledCel(None, expr, {name: _column_type(name, kind).value for name, kind in columns.items()})


@lru_cache(maxsize=128)
def compile_cel_cached(expr: str, columns_key: tuple[tuple[str, str], ...]) -> CompiledCel:
    """The same, kept: once for each expression."""
    return compile_cel(expr, dict(columns_key))


def route_cel(
    compiled: CompiledCel,
    context: dict[str, Any],
    routing_values: Sequence[RoutingValue] | None = None,
    lookup: dict[RoutingValue, int] | None = None,
) -> int:
    """The shard of a row with these values of the columns."""
    return resolve_cel_routing_key(compiled.evaluate(context), routing_values=routing_values, lookup=lookup)


def route_cel_batch(
    compiled: CompiledCel, batch: Any, routing_values: Sequence[RoutingValue] | None = None
) -> list[int]:
    """The shard of each row of a pyarrow batch or table."""
    lookup = None if routing_values is None else build_categorical_routing_lookup(routing_values)
    return [resolve_cel_routing_key(token, lookup=lookup) for token in evaluate_cel_arrow_batch(compiled, batch)]


def evaluate_cel_arrow_batch(compiled: CompiledCel, batch: Any) -> list[int | str | bytes]:
    """What the expression gives for each row of a pyarrow batch or table."""
    present = [name for name in compiled.columns_list if name in batch.schema.names]
    columns = [batch.column(name).to_pylist() for name in present]
    if not columns:
        return [compiled.evaluate({}) for _ in range(batch.num_rows)]
    return [compiled.evaluate(dict(zip(present, row))) for row in zip(*columns)]


def validate_cel_columns(arrow_schema: Any, cel_columns: dict[str, str]) -> None:
    """ConfigValidationError unless an Arrow schema has every routing column."""
    missing = sorted(set(cel_columns) - set(arrow_schema.names))
    if missing:
        raise InvalidArgumentError(f"the data has no column {', '.join(map(repr, missing))}, which CEL routes by")


def pandas_rows_to_contexts(pdf: Any, cel_columns: dict[str, str]) -> list[dict[str, Any]]:
    """The context of each row of a pandas frame."""
    columns = [pdf[name].tolist() for name in cel_columns]
    return [dict(zip(cel_columns, row)) for row in zip(*columns)] if columns else [{} for _ in range(len(pdf))]
