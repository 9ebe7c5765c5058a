"""From records to rows: shard, key as given, stored key, value. Errors carry a note with the number of their row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from shardyfusion._engine import native
from shardyfusion.config import PythonRecordInput
from shardyfusion.serde import make_key_encoder
from shardyfusion.sharding_types import KeyEncoding
from shardyfusion.type_defs import KeyInput

MIXED_KEYS = "Shard key type changed within partition: mixed int/str keys"


class Row(NamedTuple):
    """One row on its way to its shard."""

    db_id: int
    given_key: KeyInput
    key: bytes
    value: bytes


_MAX_KEY_TEXT = 80


def note_row(error: BaseException, number: int, key: object = None) -> None:
    """Says which row it was, and its key where that is known, without touching the error's own text."""
    error.add_note(f"at row {number} of the records{_key_text(key)}")


def _key_text(key: object) -> str:
    if not isinstance(key, int | str | bytes):
        return ""
    try:
        text = repr(key)
    except Exception:  # a class of the caller's, or thousands of digits
        return ""
    return f": key {text if len(text) <= _MAX_KEY_TEXT else text[:_MAX_KEY_TEXT] + '...'}"


def hash_rows(
    records: Iterable[Any], input: PythonRecordInput[Any], num_dbs: int, encoding: KeyEncoding
) -> Iterator[Row]:
    """The rows of HASH sharding."""
    encode = make_key_encoder(encoding)
    key_fn, value_fn = input.key_fn, input.value_fn
    number = 0
    iterator = iter(records)
    while True:
        number += 1
        try:
            record = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            note_row(error, number)
            raise
        key: Any = None
        try:
            key = key_fn(record)
            row = Row(native.hash_db_id(key, num_dbs), key, encode(key), value_bytes(value_fn(record)))
        except Exception as error:
            note_row(error, number, key)
            raise
        yield row


def value_bytes(value: object) -> bytes:
    """A value as bytes; TypeError when it is nothing of the kind."""
    if type(value) is bytes:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"value_fn must return bytes, got {type(value)!r}")


def explain_row(encoding: KeyEncoding) -> Callable[[object, object], BaseException]:
    """For the engine: why a key or a value cannot be published, as the rest of the package says it."""
    encode = make_key_encoder(encoding)

    def explain(key: object, value: object) -> BaseException:
        try:
            native.canonical_bytes(key)  # type: ignore[arg-type]
            encode(key)
            value_bytes(value)
        except Exception as error:
            return error
        return TypeError(f"row with a key of type {type(key)!r} and a value of type {type(value)!r}")

    return explain


class KeyRange:
    """The smallest and the largest key of a shard, ordered as their type orders them."""

    __slots__ = ("largest", "smallest")

    def __init__(self) -> None:
        self.smallest: KeyInput | None = None
        self.largest: KeyInput | None = None

    def widen(self, key: KeyInput) -> None:
        """ValueError when the keys of the shard are of kinds that do not compare."""
        if self.smallest is None:
            self.smallest = self.largest = key
            return
        try:
            if key < self.smallest:  # type: ignore[operator]
                self.smallest = key
            elif key > self.largest:  # type: ignore[operator]
                self.largest = key
        except TypeError:
            raise ValueError(MIXED_KEYS) from None
