"""Writing snapshots that are sharded by CEL: which shards there are, which rows they hold, and what is refused."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures import CEL, Case, typed, vectors

from shardyfusion import (
    BuildResult,
    CelShardedWriteConfig,
    ConfigValidationError,
    KeyEncoding,
    PythonRecordInput,
    PythonWriteOptions,
    RowError,
    S3ManifestStore,
    ShardAssignmentError,
    ShardedReader,
    SlateDbFactory,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.cel import cel_sharding_by_columns
from shardyfusion.config import ArrowRecordInput, PublishChecks
from shardyfusion.manifest import ParsedManifest
from shardyfusion.routing import xxh3_db_id
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.storage import BucketStore, ObstoreBackend
from shardyfusion.writer.python import write_cel_sharded

ROWS: PythonRecordInput[dict[str, Any]] = PythonRecordInput(
    key_fn=lambda row: row["id"], value_fn=lambda row: b"value %d" % row["id"], columns_fn=lambda row: row
)
REGIONS = ("us", "\u00e9u", "ap", "z")
SOME = [{"id": n, "region": REGIONS[n * 7 % 4], "tier": n * 5 % 3, "other": None} for n in range(500)]


class OwnFactory(SlateDbFactory):
    """Of a class that is not built in: rows go the general way."""


class Place:
    """A folder to publish to, and how to read from there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def prefix(self) -> str:
        return (self.folder / "snap").as_uri()

    def write(
        self, rows: Any, input: Any = ROWS, *, options: PythonWriteOptions | None = None, store: bool = False, **given: Any
    ) -> BuildResult:
        manifest = WriterManifestConfig(store=self.store() if store else None)
        config = CelShardedWriteConfig(
            s3_prefix=self.prefix, output=WriterOutputConfig(local_root=str(self.folder / "w")), manifest=manifest, **given
        )
        return write_cel_sharded(rows, config, input, options or PythonWriteOptions(progress=False))

    def store(self) -> S3ManifestStore:
        return S3ManifestStore(ObstoreBackend(BucketStore(self.prefix)), self.prefix)

    def manifest(self) -> ParsedManifest:
        current = self.store().load_current()
        assert current is not None
        return self.store().load_manifest(current.ref)

    def reader(self) -> ShardedReader:
        return ShardedReader(s3_prefix=self.prefix, local_root=str(self.folder / "r"))

    def sharding_text(self) -> str:
        (path,) = (self.folder / "snap" / "manifests").glob("*/manifest")
        return sharding_text(path.read_bytes())


def sharding_text(manifest: bytes) -> str:
    """The column as it is stored."""
    db = sqlite3.connect(":memory:")
    db.deserialize(manifest)
    text: str = db.execute("SELECT sharding FROM build_meta").fetchone()[0]
    db.close()
    return text


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ---------------------------------------------------------------- which shards there are

# An expression that gives whatever its context holds.
ANYTHING = "k == 's' ? dyn(s) : k == 'i' ? dyn(i) : k == 'y' ? dyn(y) : k == 'd' ? dyn(d) : k == 'b' ? dyn(b) : dyn(null)"
ANY_COLUMNS = {"k": "string", "s": "string", "i": "int", "y": "bytes", "d": "double", "b": "bool"}
KINDS = {"str": "s", "int": "i", "bytes": "y", "double": "d", "bool": "b"}


def token_rows(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, token in enumerate(tokens):
        kind = KINDS.get(next(iter(token)), "n")
        rows.append({"id": number, "k": kind, kind: typed(token)})
    return rows


WAYS: dict[str, dict[str, Any]] = {
    "engine": {},
    "engine, store": {"store": True},
    "own factory": {"adapter_factory": OwnFactory()},
    "sqlite": {"adapter_factory": SqliteFactory()},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("one", vectors("cel")["inferred_routing_values"], ids=lambda one: json.dumps(one)[:60])
def test_inferred_values(place: Place, one: dict[str, Any], way: str) -> None:
    rows = token_rows(one["tokens"])
    given = dict(cel_expr=ANYTHING, cel_columns=ANY_COLUMNS, infer_routing_values_from_data=True, **WAYS[way])
    values = [typed(value) for value in one.get("routing_values", [])]
    if "error" in one or any(isinstance(value, bytes) for value in values):  # a manifest cannot hold bytes
        with pytest.raises(ConfigValidationError):
            place.write(rows, **given)
        return
    result = place.write(rows, **given)
    built = place.manifest().required_build
    assert (built.num_dbs, built.sharding.routing_values) == (max(1, len(values)), values)
    assert [winner.db_id for winner in result.winners] == list(range(len(values)))
    with place.reader() as reader:
        for row, token in zip(rows, one["tokens"], strict=True):
            assert reader.get(row["id"], routing_context=row) == b"value %d" % row["id"]
            assert reader.route_key(row["id"], routing_context=row) == values.index(typed(token))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("one", vectors("cel")["discovered_num_dbs"], ids=str)
def test_discovered_numbers(place: Place, one: dict[str, Any], way: str) -> None:
    rows = [{"id": n, "shard": db_id} for n, db_id in enumerate(one["db_ids"])]
    given = dict(cel_expr="shard", cel_columns={"shard": "int"}, **WAYS[way])
    if "error" in one:
        with pytest.raises(ShardAssignmentError) as caught:
            place.write(rows, **given)
        if min(one["db_ids"]) >= 0:
            distinct, highest = len(set(one["db_ids"])), max(one["db_ids"])
            text = f"CEL expression produced non-consecutive shard IDs: distinct count={distinct}, max+1={highest + 1}. "
            assert str(caught.value).startswith(text)
        assert place.store().load_current() is None
        return
    place.write(rows, **given)
    built = place.manifest().required_build
    assert (built.num_dbs, built.sharding.routing_values) == (one["num_dbs"], None)


def test_without_rows(place: Place) -> None:
    place.write([], cel_expr="region", cel_columns={"region": "string"}, routing_values=["b", "a"])
    assert place.manifest().required_build.num_dbs == 2
    assert place.manifest().shards == []


# ---------------------------------------------------------------- which rows they hold

SHARDINGS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], int]]] = {
    "given": (
        {"cel_expr": "region", "cel_columns": {"region": "string"}, "routing_values": ["z", "nowhere", *REGIONS[:3]]},
        lambda row: ["z", "nowhere", *REGIONS[:3]].index(row["region"]),
    ),
    "inferred texts": (
        {"cel_expr": "region", "cel_columns": {"region": "string"}, "infer_routing_values_from_data": True},
        lambda row: sorted(REGIONS).index(row["region"]),
    ),
    "inferred integers": (
        {"cel_expr": "-1 * tier", "cel_columns": {"tier": "int"}, "infer_routing_values_from_data": True},
        lambda row: 2 - row["tier"],
    ),
    "direct": ({"cel_expr": "tier", "cel_columns": {"tier": "int"}}, lambda row: row["tier"]),
    "direct, as text": ({"cel_expr": "string(tier)", "cel_columns": {"tier": "int"}}, lambda row: row["tier"]),
    "hashed": (
        {"cel_expr": "shard_hash(region) % 3u", "cel_columns": {"region": "string"}, "routing_values": [0, 1, 2]},
        lambda row: xxh3_db_id(row["region"], 3),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_every_row_lies_in_its_shard(place: Place, sharding: str, way: str) -> None:
    given, shard_of = SHARDINGS[sharding]
    result = place.write(SOME, **given, **WAYS[way])
    expected: dict[int, list[dict[str, Any]]] = {}
    for row in SOME:
        expected.setdefault(shard_of(row), []).append(row)
    assert {winner.db_id: winner.row_count for winner in result.winners} == {n: len(rows) for n, rows in expected.items()}
    for winner in result.winners:
        keys = [row["id"] for row in expected[winner.db_id]]
        assert (winner.min_key, winner.max_key) == (min(keys), max(keys))
        if way == "sqlite":  # read by somebody else
            url = str(winner.db_url).removeprefix("file://").replace("%3D", "=")
            with contextlib.closing(sqlite3.connect(f"{url}/shard.db")) as db, db:
                stored = {int.from_bytes(key, "big"): value for key, value in db.execute("SELECT k, v FROM kv")}
            assert stored == {key: b"value %d" % key for key in keys}
    with place.reader() as reader:
        for row in SOME[::7]:
            assert reader.get(row["id"], routing_context=row) == b"value %d" % row["id"]
            assert reader.route_key(row["id"], routing_context=row) == shard_of(row)


def test_the_key_is_the_context_without_columns_fn(place: Place) -> None:
    plain: PythonRecordInput[int] = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"%d" % n)
    place.write(range(100), plain, cel_expr="key % 4", cel_columns={"key": "int"})
    with place.reader() as reader:
        assert reader.multi_get(range(100)) == {n: b"%d" % n for n in range(100)}
    with pytest.raises(ShardAssignmentError, match="^CEL evaluation failed: there is no value for column 'region'"):
        place.write(range(100), plain, cel_expr="region", cel_columns={"region": "string"}, routing_values=["a"])
    place.write(range(9), plain, cel_expr="key % 3", cel_columns={"key": "int", "region": "string"})  # which nobody asks for
    assert place.manifest().required_build.num_dbs == 3


def test_columns_by_name(place: Place) -> None:
    spec = cel_sharding_by_columns("region", "other", num_shards=3)
    rows = [{**row, "other": f"{row['tier']}"} for row in SOME]
    place.write(rows, cel_expr=spec.cel_expr, cel_columns=spec.cel_columns)
    with place.reader() as reader:
        for row in rows[::11]:
            assert reader.route_key(row["id"], routing_context=row) == xxh3_db_id(f"{row['region']}:{row['other']}", 3)


def test_rows_that_spill_while_values_are_found(place: Place) -> None:
    rows = [{"id": n, "region": f"region {n * 37 % 300:03}", "pad": "x" * 200} for n in range(30_000)]
    input: PythonRecordInput[dict[str, Any]] = PythonRecordInput(
        key_fn=lambda row: row["id"] % 29_000, value_fn=lambda row: row["pad"].encode(), columns_fn=lambda row: row
    )
    options = PythonWriteOptions(progress=False, memory_bytes=1 << 20, verify=True, checks=PublishChecks(sample_keys=200))
    result = place.write(
        rows, input, options=options, cel_expr="region", cel_columns={"region": "string"}, infer_routing_values_from_data=True
    )
    values = place.manifest().required_build.sharding.routing_values
    assert values == sorted({row["region"] for row in rows})
    stored = {(row["region"], row["id"] % 29_000) for row in rows}
    assert (result.stats.rows_written, result.stats.duplicates) == (len(stored), len(rows) - len(stored))
    for winner in result.winners:
        keys = [key for region, key in stored if region == values[winner.db_id]]
        assert (winner.row_count, winner.min_key, winner.max_key) == (len(keys), min(keys), max(keys))


def test_keys_of_bytes_are_told_as_bytes(place: Place) -> None:
    keys: PythonRecordInput[Any] = PythonRecordInput(
        key_fn=lambda row: row[0], value_fn=lambda row: b"", columns_fn=lambda row: {"shard": row[1]}
    )
    rows = [("a", 0), (b"b", 1), ("c", 0), (b"d", 1)]
    sharding = {"cel_expr": "shard", "cel_columns": {"shard": "int"}, "key_encoding": KeyEncoding.UTF8}
    result = place.write(rows, keys, **sharding)
    assert [(one.min_key, one.max_key) for one in result.winners] == [("a", "c"), (b"b", b"d")]
    with pytest.raises(ValueError) as caught:
        place.write([*rows, (b"e", 0)], keys, **sharding)
    assert str(caught.value) == "Shard key type changed within partition: mixed int/str keys"
    assert caught.value.__notes__ == ["at row 5 of the records: key b'e'"]


# ---------------------------------------------------------------- what the manifest says


@pytest.mark.parametrize("store", [False, True], ids=["engine", "store"])
@pytest.mark.parametrize("c", [c for c in CEL if c.name != "cel-error-token"], ids=lambda c: c.name)
def test_the_golden_text_of_the_sharding(place: Place, c: Case, store: bool) -> None:
    ref: str = c.expected["manifests"][0]["ref"]
    golden = sharding_text((c.folder / "manifests" / ref.split("/manifests/")[1]).read_bytes())
    sharding = json.loads(golden)
    inferred = "inferred" in c.name
    contexts = [
        {name: typed(value) for name, value in (one.get("context") or {"key": one["key"]}).items()}
        for one in c.expected["lookups"]
        if one.get("value") is not None
    ]
    rows = [{"id": number, **context} for number, context in enumerate(contexts)]
    place.write(
        rows,
        store=store,
        cel_expr=sharding["cel_expr"],
        cel_columns=dict(reversed(sharding["cel_columns"].items())),
        routing_values=None if inferred else sharding["routing_values"],
        infer_routing_values_from_data=inferred,
    )
    assert place.sharding_text() == golden


# ---------------------------------------------------------------- what is refused

REGION = {"cel_expr": "region", "cel_columns": {"region": "string"}}
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str, list[str]]] = {
    "unknown token": (
        {**REGION, "routing_values": ["us", "z", "ap"]},
        ShardAssignmentError,
        "Categorical CEL routing token '\u00e9u' is not present in this snapshot.",
        ["at row 4 of the records: key 3"],
    ),
    "unknown number": (
        {"cel_expr": "tier", "cel_columns": {"tier": "int"}, "routing_values": [0, 1]},
        ShardAssignmentError,
        "Categorical CEL routing token 2 is not present in this snapshot.",
        ["at row 2 of the records: key 1"],
    ),
    "wrong type": (
        {"cel_expr": "region", "cel_columns": {"region": "int"}},
        ShardAssignmentError,
        "CEL evaluation failed: column 'region' is of type int and cannot take the string given",
        ["at row 1 of the records: key 0"],
    ),
    "evaluation, inferred": (
        {"cel_expr": "region + string(1 / tier)", "cel_columns": {"region": "string", "tier": "int"},
         "infer_routing_values_from_data": True},
        ShardAssignmentError,
        "CEL evaluation failed: divide by zero",
        ["at row 1 of the records: key 0"],
    ),
    "no token": (
        {"cel_expr": "tier > 1", "cel_columns": {"tier": "int"}},
        ConfigValidationError,
        "CEL expression must return int, str, or bytes; got bool",
        ["at row 1 of the records: key 0"],
    ),
    "bytes": (
        {"cel_expr": "bytes(region)", "cel_columns": {"region": "string"}, "infer_routing_values_from_data": True},
        ConfigValidationError,
        "routing_values cannot be bytes, which a manifest does not hold: let the expression give text or integers",
        ["at row 1 of the records: key 0"],
    ),
}


@pytest.mark.parametrize("way", ["engine", "own factory"])
@pytest.mark.parametrize("case", REFUSED)
def test_rows_that_have_no_shard(place: Place, case: str, way: str) -> None:
    given, kind, text, notes = REFUSED[case]
    with pytest.raises(kind) as caught:
        place.write(SOME, **given, **WAYS[way])
    assert (str(caught.value), caught.value.__notes__) == (text, notes)
    assert place.store().load_current() is None


def once() -> Iterator[dict[str, Any]]:
    yield from SOME


BEFORE: dict[str, tuple[dict[str, Any], str]] = {
    "does not compile": ({"cel_expr": "nope", "cel_columns": {"region": "string"}}, "Failed to compile CEL expression 'nope': "),
    "column type": (
        {"cel_expr": "region", "cel_columns": {"region": "text"}},
        "Unsupported CEL column type: 'text' for column 'region'. Allowed: ",
    ),
    "bytes": ({**REGION, "routing_values": [b"us"]}, "routing_values cannot be bytes"),
    "mixed": ({**REGION, "routing_values": ["us", 1]}, "routing_values must all be of one type"),
    "twice": ({**REGION, "routing_values": ["us", "us"]}, "routing_values must not contain duplicates"),
    "inferred from an iterator": (
        {**REGION, "infer_routing_values_from_data": True, "rows": once},
        "Inferred categorical CEL routing requires a reiterable input. ",
    ),
    "parallel, inferred": (
        {**REGION, "infer_routing_values_from_data": True, "options": PythonWriteOptions(parallel=True)},
        "Parallel mode cannot infer routing values",
    ),
    "parallel, direct": (
        {**REGION, "options": PythonWriteOptions(parallel=True)},
        "Parallel mode requires num_dbs > 0 to spawn workers. ",
    ),
}


@pytest.mark.parametrize("case", BEFORE)
def test_refused_before_the_first_row(place: Place, case: str) -> None:
    given = dict(BEFORE[case][0])
    rows = given.pop("rows", lambda: SOME)()
    with pytest.raises(ConfigValidationError) as caught:
        place.write(rows, **given)
    assert str(caught.value).startswith(BEFORE[case][1])
    assert not (place.folder / "snap").exists()


def test_columns_that_cannot_be_had(place: Place) -> None:
    def broken(row: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("region")

    for columns_fn, kind in ((broken, KeyError), (lambda row: 5, TypeError)):
        rows: Any = PythonRecordInput(key_fn=lambda row: row["id"], value_fn=lambda row: b"", columns_fn=columns_fn)
        with pytest.raises(kind) as caught:
            place.write(SOME, rows, **REGION, routing_values=list(REGIONS))
        assert caught.value.__notes__ == ["at row 1 of the records: key 0"]


def test_a_key_may_be_in_several_shards_but_once_in_each(place: Place) -> None:
    rows = [{"id": 1, "region": "us"}, {"id": 1, "region": "ap"}, {"id": 1, "region": "us"}]
    given = {**REGION, "infer_routing_values_from_data": True}
    result = place.write(rows, **given)
    assert (result.stats.rows_written, result.stats.duplicates) == (2, 1)
    with pytest.raises(RowError, match="^row 3: duplicate key 1 in one shard, row 1 has it already$"):
        place.write(rows, options=PythonWriteOptions(progress=False, on_duplicate="error"), **given)


def test_worker_processes(place: Place) -> None:
    options = PythonWriteOptions(progress=False, parallel=True)
    place.write(SOME, **REGION, routing_values=list(REGIONS), options=options, adapter_factory=OwnFactory())
    with place.reader() as reader:
        for row in SOME[::50]:
            assert reader.get(row["id"], routing_context=row) == b"value %d" % row["id"]


# ---------------------------------------------------------------- Arrow


def arrow_table() -> Any:
    pa = pytest.importorskip("pyarrow")
    n = 300
    regions = [REGIONS[i * 7 % 4] for i in range(n)]
    return pa.table(
        {
            "k": pa.array(range(n), pa.uint32()),
            "v": pa.array([b"value %d" % i for i in range(n)]),
            "region": pa.array(regions).dictionary_encode(),
            "large": pa.array(regions, pa.large_string()),
            "bytes": pa.array([region.encode() for region in regions]),
            "tier": pa.array([i * 5 % 3 for i in range(n)], pa.int8()),
            "wide": pa.array([2**63 + i % 2 for i in range(n)], pa.uint64()),
            "real": pa.array([i % 4 / 2 for i in range(n)], pa.float32()),
            "double": pa.array([i % 2 + 0.25 for i in range(n)]),
            "flag": pa.array([i % 3 == 0 for i in range(n)]),
            "money": pa.array([i % 2 for i in range(n)], pa.decimal128(5, 0)),
            "some": pa.array([None if i % 5 == 0 else i % 2 for i in range(n)]),
            "when": pa.array([0] * n, pa.timestamp("s")),
        }
    ).slice(3, 200)


ARROW: dict[str, tuple[str, dict[str, str]]] = {
    "text in a dictionary": ("region", {"region": "string"}),
    "large text": ("large", {"large": "string"}),
    "binary": ("string(bytes)", {"bytes": "bytes"}),
    "binary as text": ("bytes", {"bytes": "string"}),
    "int8": ("tier", {"tier": "int"}),
    "uint64": ("wide", {"wide": "uint"}),
    "float": ("string(real)", {"real": "double"}),
    "double": ("int(double)", {"double": "double"}),
    "integers as double": ("string(double)", {"double": "double", "tier": "int"}),
    "bool": ("flag ? 'yes' : 'no'", {"flag": "bool"}),
    "bool as int": ("flag", {"flag": "int"}),
    "decimal": ("money", {"money": "int"}),
    "the key": ("key % 7", {"key": "int"}),
    "nulls that are not asked for": ("tier > 5 ? some : tier", {"tier": "int", "some": "int"}),
    "several": ("region + ':' + string(tier)", {"tier": "int", "region": "string", "absent": "int"}),
}


@pytest.mark.parametrize("case", ARROW)
def test_arrow_columns(place: Place, tmp_path: Path, case: str) -> None:
    expr, columns = ARROW[case]
    table = arrow_table()
    given = {"cel_expr": expr, "cel_columns": columns, "infer_routing_values_from_data": True}
    place.write(table.to_reader(max_chunksize=64), ArrowRecordInput("k", "v"), **given)
    rows: PythonRecordInput[dict[str, Any]] = PythonRecordInput(
        key_fn=lambda row: row["k"],
        value_fn=lambda row: row["v"],
        columns_fn=lambda row: {"key": row["k"], **row, "money": int(row["money"])},
    )
    other = Place(tmp_path / "other")
    other.write(table.to_pylist(), rows, **given)
    general = Place(tmp_path / "general")
    general.write(table, ArrowRecordInput("k", "v"), adapter_factory=OwnFactory(), **given)
    assert place.sharding_text() == other.sharding_text() == general.sharding_text()
    ours, theirs = place.manifest(), other.manifest()
    assert ours.custom["content_hash"] == theirs.custom["content_hash"]
    assert len(ours.shards) > 1
    counts = [(shard.db_id, shard.row_count, shard.min_key) for shard in ours.shards]
    assert counts == [(shard.db_id, shard.row_count, shard.min_key) for shard in general.manifest().shards]


def test_arrow_columns_that_do_not_route(place: Place) -> None:
    table = arrow_table()
    cases: list[tuple[str, dict[str, str], type[Exception], str, list[str]]] = [
        ("when", {"when": "int"}, ConfigValidationError,
         "routing column 'when' has type timestamp[s], which is neither bool, number, text nor binary: cast it", []),
        ("some", {"some": "int"}, ShardAssignmentError,
         "CEL evaluation failed: column 'some' is of type int and cannot take the null given", ["at row 3 of the records"]),
        ("region", {"region": "int"}, ShardAssignmentError,
         "CEL evaluation failed: column 'region' is of type int and cannot take the string given", ["at row 1 of the records"]),
        ("nowhere", {"nowhere": "int"}, ShardAssignmentError,
         "CEL evaluation failed: there is no value for column 'nowhere'", ["at row 1 of the records"]),
    ]
    for expr, columns, kind, text, notes in cases:
        with pytest.raises(kind) as caught:
            place.write(table, ArrowRecordInput("k", "v"), cel_expr=expr, cel_columns=columns, infer_routing_values_from_data=True)
        assert (str(caught.value), getattr(caught.value, "__notes__", [])) == (text, notes)
    twice = table.rename_columns(["k", "v", *["region"] * 2, *table.column_names[4:]])
    with pytest.raises(ConfigValidationError, match="the rows have 2 columns 'region': which is the routing"):
        place.write(twice, ArrowRecordInput("k", "v"), **REGION, infer_routing_values_from_data=True)
    place.write(table.slice(0, 0), ArrowRecordInput("k", "v"), cel_expr="when", cel_columns={"when": "int"})
    assert place.manifest().shards == []
