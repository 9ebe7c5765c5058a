"""ValueSpec.json_cols of columns: the engine makes the very bytes that Python makes of the rows."""

from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import ConfigValidationError, HashShardedWriteConfig, PythonWriteOptions, ShardedReader
from shardyfusion._engine import native
from shardyfusion.config import ArrowRecordInput, BadRow
from shardyfusion.errors import RowError
from shardyfusion.serde import ValueSpec, engine_value
from shardyfusion.testing import fake_adapter_factory
from shardyfusion.writer._tasks import RouteRows, Task
from shardyfusion.writer.python import write_hash_sharded

pa = pytest.importorskip("pyarrow")
pc = pytest.importorskip("pyarrow.compute")

TEXTS = ["", "plain", 'q"uo\\te', "\x00\x1f\x7f \b\t\n\f\r", "Grüße ‰ \u2028", "\ud7ff\ue000\uffff", "\U0001f600\U0010ffff", "/<&>", "x" * 5000]
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 1e15, 1e16, 123456789012345678.0, 1e22, 1e23, 9.999999999999999e15, 0.0001, 0.00001, 1e-7, 5e-324, 1.7976931348623157e308,
          2.2250738585072014e-308, 2.0**-44, 2.0**63, 1 / 3, 100.0, 1e300, math.pi, math.nan, math.inf, -math.inf]
SIGNED = {pa.int8(): 7, pa.int16(): 15, pa.int32(): 31, pa.int64(): 63}
UNSIGNED = {pa.uint8(): 8, pa.uint16(): 16, pa.uint32(): 32, pa.uint64(): 64}


def numbers(rnd: random.Random, n: int) -> list[float]:
    bits = [struct.unpack("d", rnd.randbytes(8))[0] for _ in range(n)]
    decimals = [round(rnd.uniform(-1e6, 1e6), rnd.randrange(9)) for _ in range(n)]
    powers = [math.ldexp(1 + 2.0**-52 * rnd.randrange(2), rnd.randrange(-1074, 1024)) for _ in range(n)]
    return [*FLOATS, *bits, *decimals, *powers]


def text(rnd: random.Random) -> str:
    length = rnd.choice([0, 1, 5, 13, 40])
    return "".join(rnd.choice(["a", '"', "\\", "é", "\U0001f600", chr(rnd.randrange(0xD800)), chr(rnd.randrange(128))]) for _ in range(length))


def columns(rnd: random.Random, rows: int) -> dict[str, Any]:
    """A column of each type that the engine takes, with nulls."""
    of: dict[str, Any] = {}

    def put(values: Any, type: Any) -> None:
        picked = [None if rnd.random() < 0.2 else rnd.choice(values) for _ in range(rows)]
        of[f"{rnd.choice(['Zoé', 'a', 'A', chr(34), 'ﬁ', '😀'])}{len(of)}"] = pa.array(picked, type)

    for type, bits in SIGNED.items():
        put([0, -1, 1, -(2**bits), 2**bits - 1, rnd.randrange(-(2**bits), 2**bits)], type)
    for type, bits in UNSIGNED.items():
        put([0, 1, 2**bits - 1, rnd.randrange(2**bits)], type)
    put([True, False], pa.bool_())
    put(numbers(rnd, 30), pa.float64())
    put([struct.unpack("f", rnd.randbytes(4))[0] for _ in range(30)] + [0.1, 16777216.0, math.nan], pa.float32())
    texts = [*TEXTS, *(text(rnd) for _ in range(20))]
    for type in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.uint32(), pa.large_string())):
        put(texts, type)
    put([1, -7, 2**40], pa.dictionary(pa.int16(), pa.int64()))
    of["runs"] = pc.run_end_encode(pa.array([None if i % 3 else f"run {i // 5}" for i in range(rows)]))
    of["nothing"] = pa.nulls(rows)
    return of


def by_python(table: Any, spec: ValueSpec) -> list[bytes]:
    return [spec.encode(row) for row in table.to_pylist()]


def by_engine(table: Any, spec: ValueSpec, key: str = "key") -> dict[bytes, bytes]:
    """By the stored key."""
    assert engine_value(spec, table) is not None
    shuffle = native.Shuffle({"num_dbs": 1, "key_encoding": "u64be"})
    value = engine_value(spec, table)
    assert value is not None
    count, _, offsets, data = shuffle.add_arrow(table, key, value)
    blocks = [(offsets, data, count)]
    count, _, offsets, data = shuffle.finish()
    blocks.append((offsets, data, count))
    found = {}
    for offsets, data, count in blocks:
        at = struct.unpack(f"{count + 1}i", offsets)
        for begin, end in zip(at, at[1:], strict=False):
            found.update({stored: value for _, _, stored, value in native.shuffled_rows(data[begin:end])[1]})
    return found


@pytest.mark.parametrize("seed", range(12))
def test_same_bytes(seed: int) -> None:
    rnd = random.Random(seed)
    rows = rnd.choice([1, 7, 64, 300])
    table = pa.table({"key": pa.array(range(rows), pa.int64()), **columns(rnd, rows)})
    names = table.schema.names
    some = rnd.sample(names, 5)
    if seed % 2:  # slices, and several batches
        table = pa.concat_tables([table.slice(0, rows // 2), table.slice(rows // 2)])
    for wanted in (None, [], some, [*some, "not there", "á \x7f", *some], [*reversed(names)]):
        spec = ValueSpec.json_cols(wanted)
        made = by_engine(table, spec)
        assert [made[n.to_bytes(8, "big")] for n in range(rows)] == by_python(table, spec)


def test_all_float_exponents() -> None:
    values = [math.ldexp(f, e) for e in range(-1074, 1024) for f in (1.0, 1 + 2.0**-52, 2 - 2.0**-52)]
    table = pa.table({"key": pa.array(range(len(values))), "v": values})
    made = by_engine(table, ValueSpec.json_cols(["v"]))
    assert [made[n.to_bytes(8, "big")] for n in range(len(values))] == [b'{"v":%s}' % json.dumps(v).encode() for v in values]


PYTHONS_OWN = {
    "decimal": pa.array(["1.20", None]).cast(pa.decimal128(10, 2)), "integral decimal": pa.array(["120", None]).cast(pa.decimal128(10, 0)),
    "timestamp": pa.array([0, None], pa.timestamp("us", "UTC")), "date": pa.array([1, None], pa.date32()), "binary": pa.array([b"\xff", None]),
    "fixed": pa.array([b"ab", None], pa.binary(2)), "list": pa.array([[1], None]), "struct": pa.array([{"a": 1}, None]), "half": pa.array([1.5, None], pa.float16()),
    "duration": pa.array([1, None], pa.duration("s")), "dictionary": pa.array([b"x", None]).dictionary_encode(), "bool8": pa.array([1, None], pa.int8()).cast(pa.bool8()),
}  # fmt: skip


@pytest.mark.parametrize("name", PYTHONS_OWN)
def test_what_python_has_a_form_of_its_own_for(tmp_path: Path, name: str) -> None:
    table = pa.table({"key": [1, 2], "v": PYTHONS_OWN[name], "w": ["x", "y"]})
    assert engine_value(ValueSpec.json_cols(), table) is None
    assert engine_value(ValueSpec.json_cols(["w"]), table) == ("w",)
    assert write(tmp_path, table, ValueSpec.json_cols()) == by_python(table, ValueSpec.json_cols())


def write(folder: Path, records: Any, spec: ValueSpec, on_bad_row: Any = "raise", **more: Any) -> list[bytes]:
    """The values, by key."""
    config = HashShardedWriteConfig(num_dbs=2, s3_prefix=str(folder / "published"), **more)
    options = PythonWriteOptions(progress=False, on_bad_row=on_bad_row)
    write_hash_sharded(records, config, ArrowRecordInput("key", value_spec=spec), options)
    with ShardedReader(s3_prefix=str(folder / "published"), local_root=str(folder)) as reader:
        return [value for _, value in sorted(reader.scan())]


class Opaque:
    """A stream that can be had once, of nobody that the package knows."""

    def __init__(self, table: Any) -> None:
        self.reader = table.to_reader()
        self.asked = 0

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        self.asked += 1
        return self.reader.__arrow_c_stream__()


@pytest.mark.parametrize("values", [["é", None], [b"x", None]], ids=["engine", "Python"])
@pytest.mark.parametrize("records", [lambda t: t, lambda t: t.to_reader(), Opaque, lambda t: iter(t.to_batches())])
def test_whoever_has_the_rows(tmp_path: Path, records: Any, values: Any) -> None:
    table = pa.table({"key": [1, 2], "v": values})
    assert write(tmp_path, records(table), ValueSpec.json_cols()) == by_python(table, ValueSpec.json_cols())


@pytest.mark.parametrize("spec", [ValueSpec.binary_col("v"), ValueSpec.json_cols()], ids=["column", "JSON"])
def test_a_stream_that_was_read_before(tmp_path: Path, spec: ValueSpec) -> None:
    class Capsule:
        capsule = pa.table({"key": [1], "v": ["x"]}).__arrow_c_stream__()

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return self.capsule

    assert len(write(tmp_path, Capsule(), spec)) == 1
    with pytest.raises(ValueError, match="the Arrow stream was read before"):
        write(tmp_path, Capsule(), spec)


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    damaged = pa.StringArray.from_buffers(3, pa.array([0, 1, 3, 4], pa.int32()).buffers()[1], pa.py_buffer(b"a\xc3(b"))
    table = pa.table({"key": [1, 2, 3], "v": damaged})
    with pytest.raises(RowError, match="row 2: the value column 'v' is not valid UTF-8"):
        write(tmp_path, table, ValueSpec.json_cols(["v"]))
    told: list[BadRow] = []
    assert write(tmp_path, table, ValueSpec.json_cols(["v"]), told.append) == [b'{"v":"a"}', b'{"v":"b"}']
    assert [(bad.number, bad.key, bad.value) for bad in told] == [(2, 2, None)]


def test_two_columns_of_a_name(tmp_path: Path) -> None:
    table = pa.table([[1], [2], [3]], ["key", "v", "v"])
    for spec in (ValueSpec.json_cols(), ValueSpec.json_cols(["v"])):
        with pytest.raises(ConfigValidationError, match="the rows have 2 columns 'v': which is the value"):
            write(tmp_path, table, spec)


def test_names_that_arrow_in_c_cannot_have() -> None:
    table = pa.table({"key": [1], "v": [1]})
    for names in (["a\0b"], ["\ud800"]):
        assert engine_value(ValueSpec.json_cols(names), table) is None


def test_adapters_of_the_callers_own(tmp_path: Path) -> None:
    table = pa.table({"key": [1], "v": [1.5]})
    config = HashShardedWriteConfig(num_dbs=1, s3_prefix=str(tmp_path / "published"), adapter_factory=fake_adapter_factory)
    result = write_hash_sharded(table, config, ArrowRecordInput("key", value_spec=ValueSpec.json_cols()), PythonWriteOptions(progress=False))
    assert result.stats.rows_written == 1


def test_tasks_of_batch_engines() -> None:
    flat = pa.record_batch({"key": [1, 2], "v": ["é", None]})
    nested = pa.record_batch({"key": [1, 2], "v": [["é"], None]})
    route = RouteRows("key", ValueSpec.json_cols(), {"num_dbs": 1, "key_encoding": "u64be"})
    for batch in (flat, nested):
        (blocks,) = route([batch], Task(0))
        _, rows = native.shuffled_rows(blocks.column(1)[0].as_py())
        assert [value for *_, value in rows] == by_python(batch, ValueSpec.json_cols())
