"""Arrow data: whether it is any, and as Python rows for what the engine does not take as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from shardyfusion.config import ArrowRecordInput, PythonRecordInput
from shardyfusion.errors import ConfigValidationError, RowError
from shardyfusion.serde import ValueSpec, binary_column

if TYPE_CHECKING:
    from shardyfusion._native import CelSharding

# What to call on data that is not Arrow yet: the first of these that it has. Lazy frames, scanners, datasets, connections
# of DuckDB, Dask and Spark frames, Ray datasets, tables of Ibis.
_CALLS = {
    "collect_schema": ".collect()",
    "to_reader": ".to_reader()",
    "scanner": ".scanner().to_reader()",
    "fetch_record_batch": ".fetch_record_batch()",
    "to_arrow_reader": ".to_arrow_reader()",
    "toArrow": ".toArrow()",
    "to_arrow_refs": ".to_pandas()",
    "compute": ".compute()",
    "to_pyarrow": ".to_pyarrow()",
    "to_arrow": ".to_arrow()",
}


def column_of(input: ArrowRecordInput) -> str | None:
    """The column that is the value as it stands; None when an encoder makes the value."""
    return input.value_col if input.value_spec is None else binary_column(input.value_spec)


def require_stream(records: Any) -> None:
    """ConfigValidationError that says what to call, unless the records are Arrow data."""
    if hasattr(records, "__arrow_c_stream__"):
        return
    call = next((call for name, call in _CALLS.items() if hasattr(records, name)), None)
    if call is not None:
        advice = f"pass records{call}"
    elif isinstance(records, dict):
        advice = "pass pyarrow.table(records)"
    elif isinstance(records, str | bytes) or hasattr(records, "__fspath__"):
        advice = "open the file first, as with pyarrow.parquet.read_table(records)"
    elif isinstance(records, Iterable):
        advice = (
            "pass pyarrow.RecordBatchReader.from_batches(schema, records) when they are record batches, "
            "pyarrow.Table.from_pylist(list(records)) when they are dicts, or use PythonRecordInput for rows of any kind"
        )
    else:
        advice = "pass a table or a reader of record batches"
    raise ConfigValidationError(f"records of type {type(records).__name__} have no __arrow_c_stream__: {advice}")


def as_python_rows(
    records: Any, input: ArrowRecordInput, cel: CelSharding | None = None, *, twice: bool = False
) -> tuple[Iterable[dict[str, Any]], PythonRecordInput[dict[str, Any]]]:
    """One dict a row, by pyarrow; `twice`: they can be read again."""
    try:
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ConfigValidationError(
            "Arrow records with a value_spec, or with an adapter factory of one's own, need pyarrow"
        ) from None
    require_stream(records)
    reader = pyarrow.RecordBatchReader.from_stream(records)
    spec = input.value_spec if input.value_col is None else ValueSpec.binary_col(input.value_col)
    _check_columns(reader.schema.names, input.key_col, spec)
    columns_fn = None if cel is None else _Columns(cel["columns"], reader.schema.names, input.key_col)
    rows = PythonRecordInput(key_fn=_Key(input.key_col), value_fn=spec.encode, columns_fn=columns_fn)
    return (list(_rows(reader)) if twice else _rows(reader)), rows


class _Columns:
    """The routing columns of a row: those that it has, and as `key` its key unless it has such a column."""

    def __init__(self, columns: Iterable[str], present: list[str], key_col: str) -> None:
        self._columns = {name: name for name in columns if name in present}
        if "key" in columns and "key" not in present:
            self._columns["key"] = key_col

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: _integer(row[column]) for name, column in self._columns.items()}


def _check_columns(names: list[str], key_col: str, spec: ValueSpec) -> None:
    referenced = spec.referenced_columns()
    for role, name in [("key", key_col), *(("value", name) for name in (names if referenced is None else referenced))]:
        count = names.count(name)
        if count > 1:
            raise ConfigValidationError(
                f"the rows have {count} columns '{name}': which is the {role}? Rename the others"
            )
        if count == 0 and role == "key":
            raise ConfigValidationError(f"the rows have no key column '{name}' among {len(names)}")


class _Key:
    """The key of a row. Decimals without places behind the point are integers, as columns of DuckDB have them; so for routing."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._number = 0

    def __call__(self, row: dict[str, Any]) -> Any:
        key = row[self._column]
        self._number += 1
        if key is None:
            raise RowError(f"row {self._number}: the key is null")
        return _integer(key)


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) and value.as_tuple().exponent == 0 else value


def _rows(reader: Any) -> Iterator[dict[str, Any]]:
    for batch in reader:
        yield from batch.to_pylist()
