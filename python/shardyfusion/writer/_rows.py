"""From records to rows: shard, key as given, stored key, value. Errors carry a note with the number of their row."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from shardyfusion._engine import native
from shardyfusion._storage_errors import InvalidArgumentError, UnknownRoutingTokenError
from shardyfusion.config import PythonRecordInput
from shardyfusion.errors import ConfigValidationError, RowError, ShardAssignmentError
from shardyfusion.serde import make_key_encoder
from shardyfusion.sharding_types import KeyEncoding
from shardyfusion.type_defs import PlainKey

if TYPE_CHECKING:
    from shardyfusion._native import CelSharding

MIXED_KEYS = "Shard key type changed within partition: mixed int/str keys"


class Row(NamedTuple):
    """One row on its way to its shard."""

    db_id: int
    given_key: PlainKey
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


LeaveOut: TypeAlias = Callable[[int, Exception, Any], None]
"""What hears of a row that is left out: its number, what is wrong with it, the record. It ends the write by raising."""


def placed_rows(
    records: Iterable[Any],
    input: PythonRecordInput[Any],
    place: Callable[[Any, Any], int],
    encoding: KeyEncoding,
    leave_out: LeaveOut | None = None,
) -> Iterator[Row]:
    """The rows, where place(key, record) puts them. `leave_out`: of bad rows; None: they end it."""
    encode = make_key_encoder(encoding)
    key_fn, value_fn = input.key_fn, input.value_fn
    kinds: dict[int, type] = {}  # of the keys of each shard
    for number, record in _numbered(records):
        key: Any = None
        try:
            key = native.plain_key(key_fn(record))
            native.canonical_bytes(key)
            stored = encode(key)
            value = value_bytes(value_fn(record))
            row = Row(place(key, record), key, stored, value)  # the last thing: a value that is inferred stays
            kind = int if isinstance(key, int) else type(key)
            if kinds.setdefault(row.db_id, kind) is not kind:
                raise ValueError(MIXED_KEYS)
        except Exception as error:
            note_row(error, number, key)
            if leave_out is None or isinstance(error, MemoryError):
                raise
            leave_out(number, error, record)
            continue
        yield row


def _numbered(records: Iterable[Any]) -> Iterator[tuple[int, Any]]:
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
        yield number, record


def hash_rows(
    records: Iterable[Any],
    input: PythonRecordInput[Any],
    num_dbs: int,
    encoding: KeyEncoding,
    leave_out: LeaveOut | None = None,
) -> Iterator[Row]:
    """The rows of HASH sharding."""
    return placed_rows(records, input, lambda key, record: native.hash_db_id(key, num_dbs), encoding, leave_out)


def cel_rows(
    records: Iterable[Any],
    input: PythonRecordInput[Any],
    sharding: CelSharding,
    settle: Callable[[int, str], None],
    encoding: KeyEncoding,
    leave_out: LeaveOut | None = None,
) -> Iterator[Row]:
    """The rows of CEL sharding. settle(number of shards, the manifest's text) is called when all rows are there. Values are
    inferred in a pass of their own: ConfigValidationError unless the records can be read twice."""
    shards = native.cel_shards(sharding)
    columns_fn = input.columns_fn
    seen: set[int] = set()

    def place(key: Any, record: Any) -> int:
        try:
            number = shards.place(key, None if columns_fn is None else columns_fn(record))
        except UnknownRoutingTokenError as error:
            raise ShardAssignmentError(str(error)) from None
        seen.add(number)
        return number

    def seal() -> None:
        try:
            settle(*shards.seal(seen, max(seen, default=-1) + 1))
        except UnknownRoutingTokenError as error:
            raise ShardAssignmentError(str(error)) from None

    inferred = sharding["mode"] == "inferred"
    if inferred:
        require_second_pass(records)
        first = input if leave_out else replace(input, value_fn=_no_value)  # bad rows bring no shards
        for _ in placed_rows(records, first, place, encoding, leave_out and _silently):
            pass
        seal()
    yield from placed_rows(records, input, place, encoding, leave_out)
    if not inferred:
        seal()


def _no_value(record: object) -> bytes:
    return b""


def _silently(number: int, error: Exception, record: Any) -> None:
    """The second pass tells."""


def require_second_pass(records: object) -> None:
    """ConfigValidationError for records that can be read once only."""
    if isinstance(records, Iterator | AsyncIterator):
        raise ConfigValidationError(
            "Inferred categorical CEL routing requires a reiterable input. "
            f"Pass a list or another collection instead of {type(records).__name__}, or give routing_values."
        )


_ENGINE_ROW = re.compile(r"row (\d+): (.*)\Z", re.DOTALL)


def row_failure(error: Exception) -> Exception:
    """What the engine says about a row, or about all of them, as the package says it: the row in a note. Other errors as they are."""
    found = _ENGINE_ROW.match(str(error))
    if isinstance(error, UnknownRoutingTokenError):
        failure: Exception = ShardAssignmentError(found[2] if found else str(error))
    elif found and isinstance(error, RowError) and found[2] == MIXED_KEYS:
        failure = ValueError(MIXED_KEYS)
    elif found and isinstance(error, InvalidArgumentError):
        failure = InvalidArgumentError(found[2])
    else:
        return error
    if found:
        note_row(failure, int(found[1]), getattr(error, "row_key", None))
    return failure


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
        self.smallest: PlainKey | None = None
        self.largest: PlainKey | None = None

    def widen(self, key: PlainKey) -> None:
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
