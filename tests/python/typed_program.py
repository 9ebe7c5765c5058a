"""What type checkers must accept, and, on the lines that they are told to ignore, what they must refuse: `tools/check_types.py`
complains about an ignored line that is right. Nobody runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from os import PathLike
from typing import assert_type

from shardyfusion import (
    AsyncShardedReader,
    CelShardedWriteConfig,
    ConcurrentShardedReader,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
    ShardedReader,
    SnapshotInfo,
    maintenance,
)
from shardyfusion.config import ArrowRecordInput
from shardyfusion.maintenance import aio as upkeep
from shardyfusion.manifest import BuildResult
from shardyfusion.type_defs import KeyInput
from shardyfusion.writer import aio
from shardyfusion.writer.python import write_cel_sharded, write_hash_sharded


@dataclass
class User:
    id: int
    name: str


config = HashShardedWriteConfig(num_dbs=8, s3_prefix="s3://bucket/users")
by_cel = CelShardedWriteConfig(s3_prefix="s3://bucket/users", cel_expr="key % 4", cel_columns={"key": "int"})
users = PythonRecordInput[User](key_fn=lambda user: user.id, value_fn=lambda user: user.name.encode())
columns = ArrowRecordInput("id", "name")

assert_type(write_hash_sharded([User(1, "Ada")], config, users), BuildResult)
write_cel_sharded([User(1, "Ada")], by_cel, users)
write_hash_sharded("users/*.parquet", config, columns)
write_cel_sharded(["a.parquet", "b.parquet"], by_cel, columns)

HashShardedWriteConfig(num_dbs=8, s3_prefixx="s3://bucket/users")  # type: ignore[call-arg]
HashShardedWriteConfig(num_dbs="8", s3_prefix="s3://bucket/users")  # type: ignore[arg-type]
CelShardedWriteConfig(s3_prefix="s3://bucket/users", cel_exprr="key % 4")  # type: ignore[call-arg]
write_hash_sharded([User(1, "Ada")], by_cel, users)  # type: ignore[call-overload]
write_hash_sharded([1], config, users)  # type: ignore[misc]


async def coroutines(stream: AsyncIterator[User]) -> None:
    assert_type(await aio.write_hash_sharded(stream, config, users), BuildResult)
    await aio.write_cel_sharded("users.parquet", by_cel, columns)
    report = await upkeep.verify("s3://bucket/users", deep=True)
    assert_type(report, maintenance.VerifyReport)
    await upkeep.verify("s3://bucket/users", deeep=True)  # type: ignore[call-arg]
    async for change in upkeep.diff_rows("s3://bucket/users", "run_id=a"):
        assert_type(change, maintenance.RowChange)


for row in maintenance.diff_rows("s3://bucket/users", "run_id=a"):
    assert_type(row, maintenance.RowChange)

reader = ShardedReader(s3_prefix="s3://bucket/users", local_root="cache")
assert_type(reader.get(1), bytes | None)
assert_type(reader.get_many([1, "a"]), list[bytes | None])
assert_type(reader.multi_get([1, 2]), dict[KeyInput, bytes | None])
for key, value in reader.scan(prefix=b"a"):
    assert_type(key, bytes)
    assert_type(value, bytes)
for decoded, value in reader.scan(decode_keys=True):
    assert_type(decoded, int | str | bytes)
assert_type(reader.reopen(), ShardedReader)
for rows in reader.scan(scan_tokens=True).batches(100):
    assert_type(rows, list[tuple[bytes, bytes]])
assert_type(reader, ShardedReader[KeyInput])
with ConcurrentShardedReader[int](s3_prefix="s3://bucket/users", local_root="cache") as numbers, numbers.pin() as pinned:
    assert_type(numbers.multi_get([1, 2]), dict[int, bytes | None])
    assert_type(pinned.contains_many([1]), list[bool])
    numbers.get("1")  # type: ignore[arg-type]
    numbers.get_many(["1"])  # type: ignore[list-item]
    pinned.try_get("1", None)  # type: ignore[call-overload]
    numbers.route_key("1")  # type: ignore[arg-type]
    numbers.scan(1, b"\0")
    assert_type(numbers.reopen(), ConcurrentShardedReader[int])


def by_name(reader: ShardedReader[str]) -> None:
    reader.reader_for_key("Ada").close()
    reader.reader_for_key(1)  # type: ignore[arg-type]


assert_type(reader.as_async(), AsyncShardedReader)
assert_type(numbers.as_async(), AsyncShardedReader[int])
assert_type(AsyncShardedReader[int].from_sync(numbers), AsyncShardedReader[int])
by_name(reader)  # who takes all keys takes text
by_name(numbers)  # type: ignore[arg-type]
ShardedReader[float]  # type: ignore[type-var]
ShardedReader(s3_prefixx="s3://bucket/users", local_root="cache")  # type: ignore[call-arg]
reader.scan(prefixx=b"a")  # type: ignore[call-overload]
assert_type(config.s3_prefix, str | PathLike[str])
assert_type(config.num_dbs, int | None)
config.batch_size = 10
config.batch_size = "many"  # type: ignore[assignment]
config.num_dbs = 4  # type: ignore[misc]
PythonWriteOptions(on_bad_row=lambda bad: print(bad.number, bad.error))
PythonWriteOptions(on_bad_row="ignore")  # type: ignore[arg-type]


async def reading() -> None:
    async with AsyncShardedReader.open(s3_prefix="s3://bucket/users", local_root="cache") as reader:
        assert_type(reader, AsyncShardedReader)
        assert_type(await reader.get(1), bytes | None)
        async for key, value in reader.scan(limit=10):
            assert_type(key, bytes)
        async for info in reader.watch():
            assert_type(info, SnapshotInfo)
        await reader.get(1, routing_contextt={})  # type: ignore[call-arg]
    await AsyncShardedReader.open(s3_prefixx="s3://bucket/users", local_root="cache")  # type: ignore[call-arg]
    async with AsyncShardedReader[int].open(s3_prefix="s3://bucket/users", local_root="cache") as numbers:
        assert_type(numbers, AsyncShardedReader[int])
        assert_type(await numbers.get(1), bytes | None)
        assert_type(await numbers.multi_get([1]), dict[int, bytes | None])
        await numbers.get("1")  # type: ignore[arg-type]
        await numbers.pin().contains("1")  # type: ignore[arg-type]


async def by_names(reader: AsyncShardedReader[str]) -> None:
    await reader.get_many(["Ada"])
    await reader.get_many([1])  # type: ignore[list-item]
