"""Keys that are neither int, str nor bytes but say which of them they are: in look-ups, routing and writers."""

from __future__ import annotations

import array
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import AsyncShardedReader, CacheOptions, ShardedReader
from shardyfusion._engine import native
from shardyfusion.config import HashShardedWriteConfig, PythonRecordInput, PythonWriteOptions
from shardyfusion.errors import ConfigValidationError, DbAdapterError, ReaderStateError
from shardyfusion.routing import canonical_bytes, make_lookup_encoder, xxh3_db_id
from shardyfusion.serde import make_key_encoder
from shardyfusion.sharding_types import KeyEncoding
from shardyfusion.writer.python import write_hash_sharded

np = pytest.importorskip("numpy")

ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


class Index:
    """What runs when a key is made plain."""

    def __init__(self, run: Callable[[], int]) -> None:
        self._run = run

    def __index__(self) -> int:
        return self._run()


def writable(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


# (encoding, key, the plain key that it is)
KEYS: list[tuple[str, Any, int | str | bytes]] = [
    ("u64be", np.int64(5), 5),
    ("u64be", np.uint8(5), 5),
    ("u64be", np.uint64(2**63 - 1), 2**63 - 1),
    ("u64be", np.array(5), 5),
    ("u64be", Index(lambda: 5), 5),
    ("u64be", True, 1),
    ("u32be", np.int16(7), 7),
    ("utf8", np.str_("text"), "text"),
    ("utf8", bytearray("täxt".encode()), "täxt".encode()),
    ("raw", bytearray(b"raw"), b"raw"),
    ("raw", memoryview(b"raw"), b"raw"),
    ("raw", writable(b"raw"), b"raw"),
    ("raw", memoryview(b"r.a.w.")[::2], b"raw"),
    ("raw", np.bytes_(b"raw"), b"raw"),
    ("raw", ID, ID.bytes),
]
NAMES = [f"{encoding}-{type(key).__name__}-{number}" for number, (encoding, key, _) in enumerate(KEYS)]


def write(tmp_path: Path, encoding: str, keys: list[Any]) -> str:
    prefix = (tmp_path / encoding).as_uri()
    write_hash_sharded(
        list(keys), HashShardedWriteConfig(num_dbs=3, s3_prefix=prefix, key_encoding=KeyEncoding(encoding)),
        PythonRecordInput(key_fn=lambda key: key, value_fn=lambda key: bytes(canonical_bytes(key))),
        PythonWriteOptions(progress=False))
    return prefix


@pytest.mark.parametrize(("encoding", "key", "plain"), KEYS, ids=NAMES)
def test_routing_and_encoders(encoding: str, key: Any, plain: Any) -> None:
    assert native.plain_key(key) == plain and isinstance(native.plain_key(key), int | str | bytes)
    assert canonical_bytes(key) == canonical_bytes(plain)
    assert xxh3_db_id(key, 1000) == xxh3_db_id(plain, 1000)
    assert make_lookup_encoder(KeyEncoding(encoding))(key) == make_lookup_encoder(KeyEncoding(encoding))(plain)
    assert make_key_encoder(KeyEncoding(encoding))(key) == make_key_encoder(KeyEncoding(encoding))(plain)


@pytest.mark.parametrize(("encoding", "key", "plain"), KEYS, ids=NAMES)
async def test_writers_and_readers(tmp_path: Path, encoding: str, key: Any, plain: Any) -> None:
    value = canonical_bytes(plain)
    prefix = write(tmp_path, encoding, [key])
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path)) as reader:
        for asked in (plain, key):
            assert reader.get(asked) == value and reader.contains(asked) and reader.try_get(asked) == value
            assert reader.get_many([asked, asked]) == [value, value] and reader.contains_many((asked,)) == [True]
            assert reader.get_many(iter([asked])) == [value]  # type: ignore[arg-type]
            assert reader.route_key(asked) == reader.route_key(plain)
            assert reader.encode_key(asked) == reader.encode_key(plain)
        wanted = key if isinstance(key, uuid.UUID) else plain
        assert reader.multi_get((key,)) == {wanted: value}
        with reader.pin() as pinned:
            assert pinned.get(key) == value and pinned.multi_get([key]) == {wanted: value}
    async with await AsyncShardedReader.open(s3_prefix=prefix, local_root=str(tmp_path)) as other:
        assert await other.get(key) == value and await other.contains(key) and other.try_get(key) == value
        assert await other.get_many([key]) == [value] and await other.multi_get([key]) == {wanted: value}


ARRAYS = [
    *(np.array([1, 3, 1, 2], dtype=name) for name in ("i1", "u1", "<i2", ">i2", "u4", "i8", "u8", ">u8")),
    np.array([1, 0, 3, 0, 1, 0, 2, 0])[::2],
    np.array([2, 1, 3, 1])[::-1],
    np.array([1, 3, 1, 2], dtype=object),
    np.ma.array([1, 3, 1, 2]),
    array.array("q", [1, 3, 1, 2]),
    array.array("H", [1, 3, 1, 2]),
    b"\1\3\1\2",
    memoryview(b"\1\3\1\2"),
    np.frombuffer(b"\0" + np.array([1, 3, 1, 2], dtype="i8").tobytes(), dtype="i8", offset=1),  # not aligned
]


def test_arrays_of_keys(tmp_path: Path) -> None:
    prefix = write(tmp_path, "u64be", [1, 2])
    one, two = canonical_bytes(1), canonical_bytes(2)
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path)) as reader:
        for keys in ARRAYS:
            found = reader.multi_get(keys)
            assert found == {1: one, 3: None, 2: two} and {type(key) for key in found} == {int}
            assert reader.get_many(keys) == [one, None, one, two]
            assert reader.contains_many(keys) == [True, False, True, True]
        for empty in (np.array([], dtype="i8"), np.array([1])[:0]):
            assert reader.get_many(empty) == [] and reader.multi_get(empty) == {}
        for wrong, error in [
            (np.array([1.5]), ValueError), (np.array([[1], [2]]), TypeError), (np.array(1), TypeError),
            (np.array([-1]), ConfigValidationError), (np.array([2**63], dtype="u8"), ValueError),
            (np.array(["2020-01-01"], dtype="M8[D]"), ValueError), (np.array([True]), ValueError),
            (np.ma.array([1, 2], mask=[False, True]), TypeError),  # not what the mask hides
        ]:
            with pytest.raises(error):
                reader.multi_get(wrong)
        many = np.arange(60_000) % 4
        assert reader.get_many(many) == [None, one, two, None] * 15_000


def test_keys_that_are_given_stay_as_they_were(tmp_path: Path) -> None:
    prefix = write(tmp_path, "raw", [b"raw", ID])
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path)) as reader:
        for given in ((bytearray(b"raw"), ID, b"none"), [bytearray(b"raw"), ID, b"none"]):
            before = list(given)
            assert reader.multi_get(given) == {b"raw": b"raw", ID: ID.bytes, b"none": None}
            assert all(one is other for one, other in zip(given, before, strict=True))
        assert reader.get_many([ID, ID.bytes]) == [ID.bytes] * 2


def test_what_is_no_key(tmp_path: Path) -> None:
    released = memoryview(b"a")
    released.release()

    def fails() -> int:
        raise ZeroDivisionError

    prefix = write(tmp_path, "u64be", [1])
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path)) as reader:
        for key, cls, text in [
            (np.float64(1), ValueError, "^Unsupported key type for hashing: <class 'numpy.float64'>$"),
            (np.arange(2), ValueError, "^Unsupported key type for hashing: <class 'numpy.ndarray'>$"),
            (np.uint64(2**63), ValueError, "^Integer key 9223372036854775808 out of range"),
            (ID, ValueError, "^u64be key bytes must have length 8$"),
            (released, ValueError, "released"),
            (Index(fails), ZeroDivisionError, None),
        ]:
            for ask in (reader.get, reader.contains, reader.try_get, lambda key: reader.get_many([key])):
                if isinstance(key, np.ndarray) and ask not in (reader.get, reader.contains, reader.try_get):
                    continue  # it has no hash
                with pytest.raises(cls, match=text):
                    ask(key)
    with pytest.raises(ConfigValidationError, match="^u64be encoding expects int key, got <class 'bytes'>; keys of bytes"):
        write(tmp_path / "wrong", "u64be", [ID])


@pytest.mark.parametrize("method", ["get", "contains", "try_get", "route_key", "encode_key", "get_many"])
def test_a_key_that_closes_the_reader(tmp_path: Path, method: str) -> None:
    reader = ShardedReader(s3_prefix=write(tmp_path, "u64be", [5]), local_root=str(tmp_path))

    def close() -> int:
        reader.close()
        return 5

    key = Index(close)
    try:
        answer = getattr(reader, method)([5, key, 5] if method == "get_many" else key)
    except ReaderStateError as error:
        assert "closed" in str(error)
    else:
        assert answer in (canonical_bytes(5), True, [canonical_bytes(5)] * 3, reader_of_five(method))


def reader_of_five(method: str) -> Any:
    return xxh3_db_id(5, 3) if method == "route_key" else (5).to_bytes(8, "big")


def test_each_of_many_keys_that_fail_is_told_with_its_place(tmp_path: Path) -> None:
    prefix = write(tmp_path, "u64be", [1, 2])
    keys = [key for n in range(1, 300) for key in (-n, 1, -n, 2**40 + n, -n - 1)]
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path)) as reader:
        found = reader.multi_get(keys, on_error="return")
    notes = {key: error.__notes__ for key, error in found.items() if isinstance(error, ConfigValidationError)}
    assert notes == {key: [f"at key {keys.index(key) + 1} of {len(keys)} of the batch: {key}"] for key in keys if key < 0}


def test_a_key_that_cannot_be_is_no_excuse_for_others_of_its_shard(tmp_path: Path) -> None:
    prefix = write(tmp_path, "u64be", list(range(100)))
    with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path), cache=CacheOptions(memory_bytes=0)) as reader:
        for path in (tmp_path / "u64be" / "shards").rglob("*.sst"):
            os.truncate(path, 100)
        found = reader.multi_get([*range(100), *range(-20, 0)], on_error="return")
    assert {type(error) for key, error in found.items() if key < 0} == {ConfigValidationError}
    assert {type(error) for key, error in found.items() if key >= 0} == {DbAdapterError}
