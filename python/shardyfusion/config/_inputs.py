"""How records become rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from shardyfusion.config._checks import require
from shardyfusion.type_defs import KeyInput

T = TypeVar("T")


@dataclass(slots=True)
class PythonRecordInput(Generic[T]):
    """How records of any kind become rows.

    key_fn: the key of a record, as the key encoding wants it: an int, a str or bytes.
    value_fn: its value, as bytes.
    columns_fn: the columns of a CEL expression, by name; None: the expression sees only `key`.
    vector_fn: of vector search, which is not there yet.
    """

    key_fn: Callable[[T], KeyInput]
    value_fn: Callable[[T], bytes]
    columns_fn: Callable[[T], dict[str, Any]] | None = None
    vector_fn: Callable[[T], Any] | None = None

    def validate(self) -> None:
        for name in ("key_fn", "value_fn"):
            require(callable(getattr(self, name)), f"{name} must be callable")
        for name in ("columns_fn", "vector_fn"):
            given = getattr(self, name)
            require(given is None or callable(given), f"{name} must be callable")


@dataclass(slots=True)
class ArrowRecordInput:
    """The columns of Arrow data (anything with `__arrow_c_stream__`) that hold keys and values.

    key_col: the column of keys.
    value_col: a column of bytes or text, which costs no Python object a row.
    value_spec: in its place a `ValueSpec`, which makes a value of several columns.
    """

    key_col: str
    value_col: str | None = None
    value_spec: Any = field(default=None, kw_only=True)

    def validate(self) -> None:
        require(isinstance(self.key_col, str) and bool(self.key_col), "key_col must be a non-empty string")
        require(
            (self.value_col is None) != (self.value_spec is None), "exactly one of value_col and value_spec must be given"
        )
        require(self.value_col is None or isinstance(self.value_col, str), "value_col must be a string")


@dataclass(slots=True)
class ColumnWriteInput:
    """The columns of a table of Spark, Dask or Ray that hold keys and values.

    key_col: the column of keys. value_spec: a `ValueSpec`, which makes the value.
    vector, vector_fn: of vector search, which is not there yet.
    """

    key_col: str
    value_spec: Any
    vector: Any = None
    vector_fn: Callable[[Any], Any] | None = None

    def validate(self) -> None:
        require(isinstance(self.key_col, str) and bool(self.key_col), "key_col must be a non-empty string")
