"""Keys and values of writers: how keys are stored, and how a row becomes a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from shardyfusion._engine import native
from shardyfusion._storage_errors import InvalidArgumentError
from shardyfusion.errors import ConfigValidationError
from shardyfusion.sharding_types import KeyEncoding

if TYPE_CHECKING:
    from shardyfusion._native import ArrowValue

__all__ = ["KeyEncoder", "ValueSpec", "make_key_encoder"]

KeyEncoder: TypeAlias = Callable[[object], bytes]


def make_key_encoder(encoding: KeyEncoding) -> KeyEncoder:
    """The encoder that writers use: stricter than look-ups, which also take the stored bytes of an integer."""
    try:
        return _ENCODERS[KeyEncoding.from_value(encoding)]
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from None


def _encode_u64be(key: object) -> bytes:
    return _encode_integer(key, "u64be", 8)


def _encode_u32be(key: object) -> bytes:
    return _encode_integer(key, "u32be", 4)


def _encode_integer(key: object, name: str, size: int) -> bytes:
    if not isinstance(key, int):
        key = native.plain_key(key)
    if not isinstance(key, int):
        hint: dict[type, str] = {str: "; keys of text need key_encoding=\"utf8\"", bytes: "; keys of bytes need key_encoding=\"raw\""}
        raise ConfigValidationError(f"{name} encoding expects int key, got {type(key)!r}{hint.get(type(key), '')}")
    if not 0 <= key < 1 << 8 * size:
        raise ConfigValidationError(f"{name} encoding requires value in [0, 2^{8 * size}-1]")
    return int(key).to_bytes(size, "big")


def _encode_utf8(key: object) -> bytes:
    return _encode_text(key, "utf8 encoding expects str or bytes key")


def _encode_raw(key: object) -> bytes:
    return _encode_text(key, "raw encoding expects bytes or str key")


def _encode_text(key: object, expected: str) -> bytes:
    key = native.plain_key(key)
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):
        return key
    hint = "; integer keys need key_encoding=\"u64be\"" if isinstance(key, int) else ""
    raise ConfigValidationError(f"{expected}, got {type(key)!r}{hint}")


_ENCODERS: dict[KeyEncoding, KeyEncoder] = {
    KeyEncoding.U64BE: _encode_u64be,
    KeyEncoding.U32BE: _encode_u32be,
    KeyEncoding.UTF8: _encode_utf8,
    KeyEncoding.RAW: _encode_raw,
}


@dataclass(slots=True, frozen=True)
class _BinaryColumn:
    name: str

    def __call__(self, row: object) -> bytes:
        value = _columns(row)[self.name]
        if value is None:
            return b""
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, bytes | bytearray):
            return bytes(value)
        raise ConfigValidationError(f"binary_col expects bytes/bytearray/str, got {type(value)!r}")


@dataclass(slots=True, frozen=True)
class _JsonColumns:
    names: tuple[str, ...] | None

    def __call__(self, row: object) -> bytes:
        columns = _columns(row)
        chosen = columns if self.names is None else {name: columns.get(name) for name in self.names}
        return json.dumps(chosen, sort_keys=True, separators=(",", ":"), default=str).encode()


def _columns(row: object) -> Mapping[str, Any]:
    """Mappings as they are; Spark rows and named tuples by their own method."""
    if isinstance(row, Mapping):
        return row
    for method in ("asDict", "_asdict"):
        convert = getattr(row, method, None)
        if convert is not None:
            return convert()  # type: ignore[no-any-return]
    raise ConfigValidationError(f"cannot read columns of a row of type {type(row)!r}")


@dataclass(slots=True)
class ValueSpec:
    """How a row becomes the bytes of its value. The encoders built here can be pickled."""

    encoder: Callable[[object], bytes]
    description: str

    @classmethod
    def binary_col(cls, col_name: str) -> Self:
        """The value is that column: bytes, or text as UTF-8; None is an empty value."""
        return cls(_BinaryColumn(col_name), f"binary_col:{col_name}")

    @classmethod
    def json_cols(cls, cols: list[str] | None = None) -> Self:
        """The value is a JSON object of those columns (all by default): sorted, compact, in ASCII. A column that the row does not
        have is null."""
        names = None if cols is None else tuple(cols)
        return cls(_JsonColumns(names), f"json_cols:{'all' if cols is None else ','.join(cols)}")

    @classmethod
    def callable_encoder(cls, fn: Callable[[object], bytes]) -> Self:
        """The value is what `fn` makes of the row."""
        return cls(fn, f"callable_encoder:{getattr(fn, '__name__', repr(fn))}")

    def encode(self, row: object) -> bytes:
        """The value of one row."""
        return self.encoder(row)

    def referenced_columns(self) -> list[str] | None:
        """The columns that the encoder reads; None when it may read any."""
        if isinstance(self.encoder, _BinaryColumn):
            return [self.encoder.name]
        if isinstance(self.encoder, _JsonColumns) and self.encoder.names is not None:
            return list(self.encoder.names)
        return None


def engine_value(spec: ValueSpec, records: Any) -> ArrowValue | None:
    """What the engine makes values of, for the rows of an Arrow stream (of which none is read here); None: only the encoder does."""
    if isinstance(spec.encoder, _BinaryColumn):
        return spec.encoder.name
    if isinstance(spec.encoder, _JsonColumns):
        members: tuple[str, ...] | Literal[True] = True if spec.encoder.names is None else spec.encoder.names
        if native.takes_json_of(records, members):
            return members
    return None
