"""Arrow data: what the caller has as a stream of it, and as Python rows for what the engine does not take as columns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from shardyfusion.config import ArrowRecordInput, PythonRecordInput
from shardyfusion.errors import ConfigValidationError, RowError
from shardyfusion.serde import ValueSpec

if TYPE_CHECKING:
    from shardyfusion._native import CelSharding

# What to call on data that is not Arrow yet: the first of these that it has. Connections of DuckDB, Dask and Spark frames, Ray
# datasets, tables of Ibis.
_CALLS = {
    "fetch_record_batch": ".fetch_record_batch()",
    "to_arrow_reader": ".to_arrow_reader()",
    "toArrow": ".toArrow()",
    "to_arrow_refs": ".to_pandas()",
    "compute": ".compute()",
    "to_pyarrow": ".to_pyarrow()",
    "to_arrow": ".to_arrow()",
}


def spec_of(input: ArrowRecordInput) -> ValueSpec:
    """How its rows become values."""
    spec: ValueSpec | None = input.value_spec
    if spec is None:
        assert input.value_col is not None
        spec = ValueSpec.binary_col(input.value_col)
    return spec


class ArrowStream:
    """Anything with `__arrow_c_stream__`, and what was raised when it was made of batches: C only hears a text of it. Whoever asks for
    the stream is given the same one, so its schema may be looked at before its rows are read."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.failure: BaseException | None = None
        self._capsule: object = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        if self._capsule is None:
            self._capsule = self.stream.__arrow_c_stream__(requested_schema)
        return self._capsule

    def noting(self, batches: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from batches
        except BaseException as error:
            self.failure = error
            raise

    @contextmanager
    def failures(self) -> Iterator[None]:
        """What was raised when it was made of batches comes out as it is."""
        try:
            yield
        except Exception:
            if self.failure is None:
                raise
            raise self.failure from None


def arrow_stream(records: Any, input: ArrowRecordInput, cel: CelSharding | None = None) -> ArrowStream:
    """What the caller has, as one stream of Arrow data; of files and datasets only the columns that are needed.

    ConfigValidationError that says what to call for what is none of it.
    """
    if hasattr(records, "__arrow_c_stream__"):
        if input.key_col in getattr(getattr(records, "index", None), "names", ()) and input.key_col not in records.columns:
            raise ConfigValidationError(f"the key '{input.key_col}' is the index of the frame, not a column: pass records.reset_index()")
        return ArrowStream(records)
    if _is_path(records) or (isinstance(records, list | tuple) and records and all(map(_is_path, records))):
        records = _parquet(records)
    if hasattr(records, "scanner"):  # a dataset
        return ArrowStream(records.scanner(columns=_wanted(records.schema.names, input, cel)).to_reader())
    if hasattr(records, "to_reader"):  # its scanner
        return ArrowStream(records.to_reader())
    if hasattr(records, "collect_schema"):  # a lazy frame
        collect = getattr(records, "collect_batches", None)
        return ArrowStream(records.collect()) if collect is None else _of_batches(collect())
    call = next((call for name, call in _CALLS.items() if hasattr(records, name)), None)
    if call is not None:
        raise _no_stream(records, f"pass records{call}")
    if isinstance(records, dict):
        raise _no_stream(records, "pass pyarrow.table(records)")
    if hasattr(records, "__aiter__"):
        raise _no_stream(records, "asynchronous ones are taken by the functions of shardyfusion.writer.aio")
    if not isinstance(records, Iterable):
        raise _no_stream(records, "pass a table, record batches, or the paths of Parquet files")
    return _of_batches(records)


def _no_stream(records: Any, advice: str) -> ConfigValidationError:
    return ConfigValidationError(f"records of type {type(records).__name__} have no __arrow_c_stream__: {advice}")


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ConfigValidationError(f"{what} need pyarrow") from None
    return pyarrow


def _is_path(records: Any) -> bool:
    return isinstance(records, str) or hasattr(records, "__fspath__")


def _parquet(paths: Any) -> Any:
    """A dataset of Parquet files: a path, a folder, a pattern, or a list of them. What the names of folders below a folder say
    (`region=eu`) is a column."""
    _pyarrow("Parquet files")
    from pyarrow import dataset  # type: ignore[import-not-found, import-untyped, unused-ignore]

    files: list[str] = []
    for path in [paths] if _is_path(paths) else paths:
        files += _matching(os.fspath(path))
    of_folders = "hive" if len(files) == 1 and os.path.isdir(_local(files[0])) else None
    try:
        return dataset.dataset(files[0] if len(files) == 1 else files, format="parquet", partitioning=of_folders)
    except (OSError, ValueError) as error:
        raise ConfigValidationError(f"Parquet files cannot be read: {type(error).__name__}: {error}") from error


def _local(name: str) -> str:
    return unquote(urlsplit(name).path) if name.startswith("file://") else name


def _matching(name: str) -> list[str]:
    pattern = _local(name)
    if not glob.has_magic(pattern) or os.path.exists(pattern):
        return [name]
    if "://" in pattern:
        raise ConfigValidationError(f"patterns are of local files: pass the paths that {name!r} means, or a dataset of pyarrow")
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise ConfigValidationError(f"no file is named like {name!r}")
    return found


def _wanted(names: list[str], input: ArrowRecordInput, cel: CelSharding | None) -> list[str] | None:
    """The columns that are read; None: all, where not each is known by its name."""
    referenced = spec_of(input).referenced_columns()
    if referenced is None or len(set(names)) < len(names):
        return None
    wanted = {input.key_col, *referenced, *(cel["columns"] if cel is not None else ())}
    return [name for name in names if name in wanted]


def _of_batches(records: Iterable[Any]) -> ArrowStream:
    """Record batches, tables or data frames, one after the other."""
    batches = iter(records)
    first = next(batches, None)
    if first is None:
        raise ConfigValidationError("there are no record batches, so no columns: pass a table without rows to publish no rows")
    if not hasattr(first, "__arrow_c_stream__") and not hasattr(first, "__arrow_c_array__"):
        raise _no_stream(
            records,
            "pass record batches, pyarrow.Table.from_pylist(list(records)) when they are dicts, or use PythonRecordInput for rows of "
            "any kind",
        )
    pyarrow = _pyarrow("Batches of Arrow data")

    def each() -> Iterator[Any]:
        for number, one in enumerate(chain([first], batches), 1):
            if hasattr(one, "__arrow_c_array__") and not hasattr(one, "__arrow_c_stream__"):
                yield from _fitted(pyarrow.record_batch(one), schema, number)
            elif hasattr(one, "__arrow_c_stream__"):
                for batch in pyarrow.RecordBatchReader.from_stream(one):
                    yield from _fitted(batch, schema, number)
            else:
                raise _no_stream(one, "it stands among record batches")

    schema = pyarrow.schema(first if hasattr(first, "__arrow_c_schema__") else pyarrow.table(first).schema)
    stream = ArrowStream(None)
    stream.stream = pyarrow.RecordBatchReader.from_batches(schema, stream.noting(each()))
    return stream


def _fitted(batch: Any, schema: Any, number: int) -> list[Any]:
    """With the columns of the first one: whoever reads the stream believes its schema. Frames that were read in pieces have columns
    of nulls here and of text there, or of integers and of floating-point numbers."""
    if batch.schema.equals(schema):
        return [batch]
    try:
        fitted: list[Any] = _pyarrow("Batches").Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()
        return fitted
    except (KeyError, ValueError, NotImplementedError) as error:  # pyarrow's own are among them
        raise ConfigValidationError(f"the columns of batch {number} are not those of the first one: {error}") from error


def as_python_rows(
    stream: ArrowStream, input: ArrowRecordInput, cel: CelSharding | None = None, *, twice: bool = False
) -> tuple[Iterable[dict[str, Any]], PythonRecordInput[dict[str, Any]]]:
    """One dict a row, by pyarrow; `twice`: they can be read again."""
    pyarrow = _pyarrow("Arrow records with such a value_spec, or with an adapter factory of one's own,")
    reader = pyarrow.RecordBatchReader.from_stream(stream)
    spec = spec_of(input)
    _check_columns(reader.schema.names, input.key_col, spec)
    columns_fn = None if cel is None else _Columns(cel["columns"], reader.schema.names, input.key_col)
    key = _Key(input.key_col)
    rows = PythonRecordInput(key_fn=key, value_fn=spec.encode, columns_fn=columns_fn)
    return (_KeptRows(_rows(stream, reader), key) if twice else _rows(stream, reader)), rows


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
            raise ConfigValidationError(f"the rows have no key column '{name}' among {len(names)}: {', '.join(map(repr, names))[:300]}")


class _Key:
    """The key of a row. Decimals without places behind the point are integers, as columns of DuckDB have them; so for routing."""

    def __init__(self, column: str) -> None:
        self._column = column
        self.number = 0  # of the row that was asked about last

    def __call__(self, row: dict[str, Any]) -> Any:
        key = row[self._column]
        self.number += 1
        if key is None:
            raise RowError(f"row {self.number}: the key is null")
        return _integer(key)


class _KeptRows:
    """Rows that can be read again, which are counted anew."""

    def __init__(self, rows: Iterable[dict[str, Any]], key: _Key) -> None:
        self._rows = list(rows)
        self._key = key

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._key.number = 0
        return iter(self._rows)


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) and value.as_tuple().exponent == 0 else value


def _rows(stream: ArrowStream, reader: Any) -> Iterator[dict[str, Any]]:
    with stream.failures():
        for batch in reader:
            yield from batch.to_pylist()
