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
    """How records of any kind become rows. `columns_fn` gives the columns of a CEL expression."""

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

    Give `value_col`, a column of bytes or text, which costs no Python object a row; or a `value_spec`, whose encoder sees
    every row as a dict.
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
    """The columns of a table that hold keys and values."""

    key_col: str
    value_spec: Any
    vector: Any = None
    vector_fn: Callable[[Any], Any] | None = None

    def validate(self) -> None:
        require(isinstance(self.key_col, str) and bool(self.key_col), "key_col must be a non-empty string")
