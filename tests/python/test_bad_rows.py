"""Rows that cannot be stored: they end a write, are left out, or are told to whoever wants them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import (
    CelShardedWriteConfig,
    ConfigValidationError,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
    ShardAssignmentError,
    ShardedReader,
)
from shardyfusion._engine import native
from shardyfusion.config import ArrowRecordInput, BadRow, PublishChecks
from shardyfusion.errors import ReaderStateError, RowError
from shardyfusion.serde import ValueSpec
from shardyfusion.slatedb_adapter import SlateDbFactory
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.writer import aio
from shardyfusion.writer.python import write_cel_sharded, write_hash_sharded

INPUT = PythonRecordInput[Any](key_fn=lambda row: row["key"], value_fn=lambda row: row["value"])
GOOD = [{"key": n, "value": b"%d" % n} for n in range(5000)]
# by the number of the row at which it stands; what is wrong, and with which class
BAD: dict[int, tuple[Any, type[Exception], str]] = {
    1: ({"value": b"v"}, KeyError, "'key'"),
    2: ({"key": "text", "value": b"v"}, ConfigValidationError, "u64be encoding expects int key"),
    1000: ({"key": 1, "value": "text"}, TypeError, "value_fn must return bytes"),
    2049: ({"key": -1, "value": b"v"}, ConfigValidationError, "u64be encoding requires value in"),
    4100: ({"key": 2**64, "value": b"v"}, ValueError, "out of range"),
    5005: (None, TypeError, "not subscriptable"),
}


def mixed() -> list[Any]:
    rows: list[Any] = list(GOOD)
    for number, (row, _, _) in sorted(BAD.items()):
        rows.insert(number - 1, row)
    return rows


def config(folder: Path, **more: Any) -> HashShardedWriteConfig:
    return HashShardedWriteConfig(num_dbs=3, s3_prefix=str(folder / "published"), **more)


def options(on_bad_row: Any, **more: Any) -> PythonWriteOptions:
    return PythonWriteOptions(progress=False, on_bad_row=on_bad_row, **more)


def stored(folder: Path) -> dict[bytes, bytes]:
    with ShardedReader(s3_prefix=str(folder / "published"), local_root=str(folder)) as reader:
        return dict(reader.scan())


EXPECTED = {row["key"].to_bytes(8, "big"): row["value"] for row in GOOD}


@pytest.mark.parametrize("factory", [None, SqliteFactory()], ids=["SlateDB", "SQLite"])
def test_left_out(tmp_path: Path, factory: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = write_hash_sharded(mixed(), config(tmp_path, adapter_factory=factory), INPUT, options("skip"))
    assert (result.stats.bad_rows, result.stats.rows_written) == (len(BAD), len(GOOD))
    assert stored(tmp_path) == EXPECTED
    assert [r.shardyfusion["bad_rows"] for r in caplog.records if r.message == "write_bad_rows"] == [len(BAD)]  # type: ignore[attr-defined]


def check_told(told: list[BadRow]) -> None:
    assert [bad.number for bad in told] == list(BAD)
    for bad in told:
        record, kind, text = BAD[bad.number]
        assert bad.record is record and (bad.key, bad.value) == (None, None)
        assert isinstance(bad.error, kind) and text in str(bad.error)
        assert f"at row {bad.number} of the records" in bad.error.__notes__[0]


def test_told(tmp_path: Path) -> None:
    told: list[BadRow] = []
    result = write_hash_sharded(mixed(), config(tmp_path), INPUT, options(told.append))
    assert result.stats.bad_rows == len(BAD)
    check_told(told)
    assert stored(tmp_path) == EXPECTED


async def test_asyncio(tmp_path: Path) -> None:
    told: list[BadRow] = []
    assert (await aio.write_hash_sharded(mixed(), config(tmp_path), INPUT, options(told.append))).stats.bad_rows == len(BAD)
    check_told(told)


def test_what_only_the_engine_finds(tmp_path: Path) -> None:
    told: list[BadRow] = []
    keys = ["a", "", "b", "x" * 70_000, "c"]
    input = PythonRecordInput[str](key_fn=lambda key: key, value_fn=lambda key: b"v")
    result = write_hash_sharded(keys, config(tmp_path, key_encoding="utf8"), input, options(told.append))
    assert [(bad.number, bad.record, type(bad.error)) for bad in told] == [(n, keys[n - 1], RowError) for n in (2, 4)]
    assert result.stats.bad_rows == 2 and len(stored(tmp_path)) == 3


def test_the_caller_ends_it(tmp_path: Path) -> None:
    def enough(bad: BadRow) -> None:
        raise RuntimeError(f"row {bad.number}") from bad.error

    for rows, number in (([GOOD[0], BAD[2][0]], 2), ([GOOD[0], {"key": 2**64 - 1, "value": b""}], 2)):
        with pytest.raises(RuntimeError, match=f"^row {number}$"):
            write_hash_sharded(rows, config(tmp_path), INPUT, options(enough))
    assert not (tmp_path / "published" / "_CURRENT").exists()


@pytest.mark.parametrize("on_bad_row", ["skip", lambda bad: None])
def test_what_is_no_bad_row(tmp_path: Path, on_bad_row: Any) -> None:
    def failing() -> Iterator[Any]:
        yield GOOD[0]
        raise OSError("the source is gone")

    def interrupted(row: Any) -> int:
        raise KeyboardInterrupt

    with pytest.raises(OSError, match="the source is gone"):
        write_hash_sharded(failing(), config(tmp_path), INPUT, options(on_bad_row))
    with pytest.raises(KeyboardInterrupt):
        write_hash_sharded(GOOD, config(tmp_path), PythonRecordInput(interrupted, lambda row: b""), options(on_bad_row))
    with pytest.raises(RowError, match="row 3: duplicate key 0 .* row 1 has it already"):
        write_hash_sharded([GOOD[0], None, GOOD[0]], config(tmp_path), INPUT, options(on_bad_row, on_duplicate="error"))
    assert write_hash_sharded([None] * 3000, config(tmp_path), INPUT, options(on_bad_row)).stats.bad_rows == 3000


def test_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    told: list[BadRow] = []
    table = pa.table({"id": pa.array([1, None, 3, -4, 5, -6], pa.int64()), "v": pa.array([b"1", b"2", None, b"4", b"5", b""])})
    result = write_hash_sharded(table, config(tmp_path), ArrowRecordInput("id", "v"), options(told.append))
    assert [(bad.number, bad.key, bad.value, bad.record) for bad in told] == [
        (2, None, None, None), (3, 3, None, None), (4, -4, b"4", None), (6, -6, b"", None)]
    assert result.stats.bad_rows == 4
    told.clear()
    write_hash_sharded(pa.table({"id": [-1], "v": [b""]}), config(tmp_path), ArrowRecordInput("id", "v"), options(told.append))
    assert [(bad.key, bad.value) for bad in told] == [(-1, b"")], "where no value has a byte there is no buffer either"
    write_hash_sharded(table, config(tmp_path), ArrowRecordInput("id", "v"), options("skip"))
    assert stored(tmp_path) == {n.to_bytes(8, "big"): b"%d" % n for n in (1, 5)}


def test_cel(tmp_path: Path) -> None:
    told: list[BadRow] = []
    sharding = {"cel_expr": "region", "cel_columns": {"region": "string"}}
    given = CelShardedWriteConfig(s3_prefix=str(tmp_path / "published"), routing_values=["eu", "us"], **sharding)
    input = PythonRecordInput[Any](lambda row: row[0], lambda row: b"v", lambda row: {"region": row[1]})
    rows = [(1, "eu"), (2, "mars"), (3, "us"), (4, 5), (-5, "eu")]
    assert write_cel_sharded(rows, given, input, options(told.append)).stats.bad_rows == 3
    assert [(bad.number, bad.record) for bad in told] == [(n, rows[n - 1]) for n in (2, 4, 5)]
    assert isinstance(told[0].error, ShardAssignmentError)
    inferred = CelShardedWriteConfig(s3_prefix=str(tmp_path / "inferred"), infer_routing_values_from_data=True, **sharding)
    result = write_cel_sharded([*rows, (-6, "venus")], inferred, input, options("skip"))
    with ShardedReader(s3_prefix=str(tmp_path / "inferred"), local_root=str(tmp_path)) as reader:
        assert reader.snapshot_info().num_dbs == len(result.winners) == 3, "no shard for values of bad rows only"


def test_where_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigValidationError, match="options.on_bad_row must be 'raise', 'skip' or callable"):
        write_hash_sharded(GOOD, config(tmp_path), INPUT, options("ignore"))


@pytest.mark.parametrize("parallel", [False, True])
def test_adapters_of_the_callers_own(tmp_path: Path, parallel: bool) -> None:
    own = config(tmp_path, adapter_factory=OwnFactory())
    told: list[BadRow] = []
    result = write_hash_sharded(mixed(), own, INPUT, options(told.append, parallel=parallel))
    assert (result.stats.bad_rows, result.stats.rows_written) == (len(BAD), len(GOOD))
    check_told(told)
    assert stored(tmp_path) == EXPECTED
    assert write_hash_sharded(mixed(), own, INPUT, options("skip", parallel=parallel)).stats.bad_rows == len(BAD)
    with pytest.raises(KeyError, match="'key'"):
        write_hash_sharded(mixed(), own, INPUT, options("raise", parallel=parallel))

    def enough(bad: BadRow) -> None:
        raise RuntimeError(f"row {bad.number}") from bad.error

    with pytest.raises(RuntimeError, match="^row 1$"):
        write_hash_sharded(mixed(), own, INPUT, options(enough, parallel=parallel))


def test_adapters_of_the_callers_own_by_cel(tmp_path: Path) -> None:
    sharding = {"cel_expr": "region", "cel_columns": {"region": "string"}, "infer_routing_values_from_data": True}
    own = CelShardedWriteConfig(s3_prefix=str(tmp_path / "published"), adapter_factory=OwnFactory(), key_encoding="utf8", **sharding)
    values: list[Any] = []
    input = PythonRecordInput[Any](lambda row: row[0], lambda row: values.append(row) or row[2], lambda row: {"region": row[1]})
    rows = [("a", "eu", b"1"), (b"b", "eu", b"2"), ("c", "us", b"3"), ("d", "venus", None), (None, "mars", b"4"), ("e", 5, b"5")]
    told: list[BadRow] = []
    result = write_cel_sharded(rows, own, input, options(told.append))
    assert [(bad.number, bad.record) for bad in told] == [(n, rows[n - 1]) for n in (2, 4, 5, 6)]
    assert "mixed int/str keys" in str(told[0].error)
    assert (result.stats.bad_rows, len(result.winners)) == (4, 2), "no shard for values of bad rows only"
    values.clear()
    write_cel_sharded([rows[0], rows[2]], own, input, options("raise"))
    assert values == [rows[0], rows[2]], "values are made once"


def test_numbers_of_columns_that_are_read_twice(tmp_path: Path) -> None:
    """Values of CEL are found in a pass of their own."""
    pa = pytest.importorskip("pyarrow")
    sharding = {"cel_expr": "region", "cel_columns": {"region": "string"}, "infer_routing_values_from_data": True}
    own = CelShardedWriteConfig(s3_prefix=str(tmp_path / "published"), adapter_factory=OwnFactory(), **sharding)
    rows = pa.table({"key": [1, None, 3], "region": ["eu", "eu", "us"]})
    told: list[BadRow] = []
    write_cel_sharded(rows, own, ArrowRecordInput("key", value_spec=ValueSpec.json_cols()), options(told.append))
    assert [(bad.number, str(bad.error)) for bad in told] == [(2, "row 2: the key is null")]


async def tell_later(of: Any) -> None:
    raise AssertionError("nobody awaits it")


class TellsLater:
    async def __call__(self, of: Any) -> None:
        raise AssertionError("nobody awaits it")


@pytest.mark.parametrize("told", [tell_later, partial(tell_later), TellsLater()], ids=["function", "partial", "object"])
def test_async_functions_are_refused(tmp_path: Path, told: Any) -> None:
    for wrong, name in (
        (options(told), "on_bad_row"),
        (PythonWriteOptions(progress=told), "progress"),
        (options("raise", checks=PublishChecks(check=told)), "checks.check"),
    ):
        with pytest.raises(ConfigValidationError, match=f"options.{name} must not be an async function: .* nobody would await it"):
            write_hash_sharded(GOOD, config(tmp_path), INPUT, wrong)


class OwnFactory(SlateDbFactory):
    """A derived class may do anything, so the engine does not take it for its own."""


def engine_writer(told: Any, name: str) -> Any:
    return native.Writer(f"mem://bad-rows/{name}", {"num_dbs": 2, "key_encoding": "u32be"}, lambda e, *_: e, bad_row=told)


def add(writer: Any, rows: list[Any]) -> Any:
    return writer.add_rows(iter(rows), lambda row: row["k"], lambda row: b"v", len(rows))


@pytest.mark.parametrize("told", [True, lambda *_: None])
def test_no_row_is_left_out_of_what_takes_none(told: Any) -> None:
    writer = engine_writer(told, f"published-{told is True}")
    add(writer, [{"k": 1}])
    writer.build()
    writer.publish()
    with pytest.raises(ReaderStateError):  # whoever is not in the state for it
        add(writer, [{}])
    assert writer.report()["bad_rows"] == 0


def test_numbers_go_on_behind_columns() -> None:
    pa = pytest.importorskip("pyarrow")
    told: list[Any] = []
    writer = engine_writer(lambda *of: told.append(of), "columns")
    writer.add_arrow(pa.table({"k": list(range(5000)), "v": [b"v"] * 5000}), "k", "v")
    rows = [{"k": 1}, {"k": 2**40}, {}]
    add(writer, rows)
    assert [(number, record) for number, _, record, _, _ in told] == [(5002, rows[1]), (5003, rows[2])]
    writer.close()
