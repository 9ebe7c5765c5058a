"""Arrow data as Python rows, for what the engine does not take as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from shardyfusion.config import ArrowRecordInput, PythonRecordInput
from shardyfusion.errors import ConfigValidationError
from shardyfusion.serde import ValueSpec, binary_column


def column_of(input: ArrowRecordInput) -> str | None:
    """The column that is the value as it stands; None when an encoder makes the value."""
    return input.value_col if input.value_spec is None else binary_column(input.value_spec)


def as_python_rows(
    records: Any, input: ArrowRecordInput
) -> tuple[Iterable[dict[str, Any]], PythonRecordInput[dict[str, Any]]]:
    """One dict a row, by pyarrow."""
    try:
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ConfigValidationError(
            "Arrow records with a value_spec, or with an adapter factory of one's own, need pyarrow"
        ) from None
    if not hasattr(records, "__arrow_c_stream__"):
        raise ConfigValidationError(f"records of type {type(records).__name__} have no __arrow_c_stream__")
    reader = pyarrow.RecordBatchReader.from_stream(records)
    key_col = input.key_col
    spec = input.value_spec if input.value_col is None else ValueSpec.binary_col(input.value_col)
    return _rows(reader), PythonRecordInput(key_fn=lambda row: row[key_col], value_fn=spec.encode)


def _rows(reader: Any) -> Iterator[dict[str, Any]]:
    for batch in reader:
        yield from batch.to_pylist()
