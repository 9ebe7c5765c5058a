"""The rows of a Parquet file as JSON lines on standard output, for `shardy publish`.

    python -m shardyfusion.cli.parquet FILE [COLUMN...]

The first line tells which columns are binary: their values stand in base64. What fails is a line that begins with `!`.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
from typing import Any

ROWS_AT_A_TIME = 10_000


def _text(value: Any) -> str:
    """Of what JSON has no form for."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _write(path: str, columns: list[str]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"Parquet is read by pyarrow, which this Python does not have: {error}") from error
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    schema = file.schema_arrow
    for name in columns:
        if (count := len(schema.get_all_field_indices(name))) != 1:
            raise ValueError(f"there are {count} columns '{name}'" if count else f"there is no column '{name}' among {', '.join(map(repr, schema.names))}")
    types = pyarrow.types
    binary = {
        field.name: True
        for field in schema
        if types.is_binary(field.type) or types.is_large_binary(field.type) or types.is_fixed_size_binary(field.type)
    }
    print(json.dumps({"binary": binary}))
    encode = json.JSONEncoder(default=_text, ensure_ascii=False, allow_nan=False).encode
    number = 0
    # each column once
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=list(dict.fromkeys(columns)) or None):
        for row in batch.to_pylist():
            number += 1
            try:
                line = encode(row)
            except ValueError as error:
                raise ValueError(f"row {number}: a number is infinite or none, which JSON has no form for") from error
            sys.stdout.write(line + "\n")


def main() -> None:
    for number in (signal.SIGINT, signal.SIGPIPE):  # whoever reads the lines says why they end
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        _write(sys.argv[1], sys.argv[2:])
    except Exception as error:
        print("!" + " ".join(str(error).split()))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
