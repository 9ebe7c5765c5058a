"""Rows as Arrow data: what the engine makes of its rows, without an object per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion.errors import ConfigValidationError
from shardyfusion.reader._alone import alone

if TYPE_CHECKING:
    from shardyfusion._native import ArrowBatch

BATCH_ROWS = 8192


class ArrowData:
    """A batch of the engine's, for whoever takes Arrow data."""

    def __init__(self, batch: ArrowBatch) -> None:
        self._batch = batch

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._batch[:2]


class ArrowRows:
    """Rows that are there as Arrow data, too, blocking: columns "key" and "value"."""

    def _next_batch(self) -> ArrowBatch | None:
        """The next rows; None at the end."""
        raise NotImplementedError

    def _arrow_keys(self) -> str:
        """The encoding in which keys are told."""
        raise NotImplementedError

    def arrow_batches(self) -> Iterator[Any]:
        """The rows as `pyarrow.RecordBatch`es."""
        return alone(self._arrow_batches(pyarrow()))

    def _arrow_batches(self, pa: Any) -> Iterator[Any]:
        while (batch := self._next_batch()) is not None:
            yield pa.record_batch(ArrowData(batch))

    def to_arrow(self) -> Any:
        """All rows as one `pyarrow.Table`; `.to_pandas()` makes a frame of it."""
        return table(list(self.arrow_batches()), self._arrow_keys())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """For polars, DuckDB and everybody else who reads Arrow streams; takes no pyarrow."""
        return native.arrow_stream(self._next_batch, self._arrow_keys())


def pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ConfigValidationError("Arrow tables need pyarrow: install it, or iterate over the rows") from None
    return pyarrow


def table(batches: list[Any], keys: str) -> Any:
    """All of them in one; without any an empty one."""
    pa = pyarrow()
    key = {"u64be": pa.uint64(), "u32be": pa.uint32(), "utf8": pa.string()}.get(keys, pa.binary())
    schema = pa.schema([pa.field("key", key, nullable=False), pa.field("value", pa.binary(), nullable=False)])
    return pa.Table.from_batches(batches, schema)


def batch_of(rows: list[tuple[Any, bytes]], keys: str) -> Any:
    """A `pyarrow.RecordBatch` of rows that are objects already: of scans that users supply."""
    schema = table([], keys).schema
    columns = ([row[n] for row in rows] for n in (0, 1))
    return pyarrow().record_batch([pyarrow().array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
