"""The part that the writers of all batch engines share: routing, building and publishing, with an engine in this process."""

from __future__ import annotations

import struct
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from local_job import LocalJob

from shardyfusion import (
    CelShardedWriteConfig,
    ConfigValidationError,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    PublishConflictError,
    PublishRefusedError,
    ShardAssignmentError,
    ShardCoverageError,
    ShardedReader,
    ShardWriteError,
    ValueSpec,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.config import (
    ArrowRecordInput,
    ColumnWriteInput,
    PublishChecks,
    PythonWriteOptions,
    SparkWriteOptions,
    WriteProgress,
)
from shardyfusion._storage_errors import ConditionFailedError
from shardyfusion.errors import RowError
from shardyfusion.maintenance import cleanup, verify
from shardyfusion.metrics import MetricEvent
from shardyfusion.routing import xxh3_db_id
from shardyfusion.run_registry import parse_run_record
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.testing import ListMetricsCollector, file_backed_adapter_factory, file_backed_load_db
from shardyfusion.type_defs import RetryConfig
from shardyfusion.writer import _engines
from shardyfusion.writer._engines import run_job
from shardyfusion.writer._tasks import Task
from shardyfusion.writer.python import write_cel_sharded, write_hash_sharded

pa = pytest.importorskip("pyarrow")

BINARY = ColumnWriteInput("id", ValueSpec.binary_col("v"))
ROWS = 3000


def table(rows: int = ROWS) -> Any:
    return pa.table({
        "id": pa.array(range(rows), pa.int64()),
        "v": pa.array([b"value %d" % n for n in range(rows)], pa.binary()),
        "country": ["de", "fr", "it"] * (rows // 3) + ["de"] * (rows % 3),
    })


def partitions(data: Any, count: int = 3) -> list[list[Any]]:
    """Of which the last has no rows."""
    size = -(-data.num_rows // count)
    return [*(data.slice(n * size, size).to_batches(max_chunksize=400) for n in range(count)), []]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def config(place: Path, kind: Any = HashShardedWriteConfig, **more: Any) -> Any:
    if kind is HashShardedWriteConfig:
        more.setdefault("num_dbs", 4)
    more.setdefault("output", WriterOutputConfig(local_root=str(place.parent / "work")))
    return kind(s3_prefix=place.as_uri(), **more)


def write(place: Path, data: Any, input: ColumnWriteInput = BINARY, options: Any = None, job: Any = None, **more: Any) -> Any:
    job = LocalJob(partitions(data)) if job is None else job
    return run_job(job, config(place, **more), input, options or SparkWriteOptions(progress=False))


def hashes(place: Path) -> Any:
    with ShardedReader(s3_prefix=place.as_uri(), local_root=str(place.parent / "r")) as reader:
        return [(shard.db_id, shard.row_count, shard.min_key, shard.max_key) for shard in reader.shard_details()]


# ---------------------------------------------------------------- what is published is what was given


@pytest.mark.parametrize("factory", [None, SqliteFactory()], ids=["slatedb", "sqlite"])
def test_the_same_shards_as_from_plain_arrow(tmp_path: Path, factory: Any) -> None:
    data = table()
    result = write(tmp_path / "engine", data, adapter_factory=factory)
    plain = write_hash_sharded(
        data, config(tmp_path / "plain", adapter_factory=factory), ArrowRecordInput("id", "v"), PythonWriteOptions(progress=False)
    )
    assert result.stats.rows_written == ROWS and result.stats.num_winners == result.stats.num_attempt_results == 4
    mine, theirs = files(tmp_path / "engine" / "shards"), files(tmp_path / "plain" / "shards")
    for suffix in (".sst", "shard.db"):
        contents = [sorted(data for name, data in some.items() if name.endswith(suffix)) for some in (mine, theirs)]
        assert contents[0] == contents[1]
    assert sum(name.endswith((".sst", "shard.db")) for name in mine) == 4
    assert [(w.db_id, w.row_count, w.min_key, w.max_key) for w in result.winners] == [
        (w.db_id, w.row_count, w.min_key, w.max_key) for w in plain.winners
    ]
    assert {(w.writer_info.stage_id, w.writer_info.task_attempt_id) for w in result.winners} == {(5, 100)}
    with ShardedReader(s3_prefix=(tmp_path / "engine").as_uri(), local_root=str(tmp_path / "r")) as reader:
        assert reader.multi_get(list(range(0, ROWS, 7))) == {n: b"value %d" % n for n in range(0, ROWS, 7)}
        assert reader.snapshot_info().row_count == ROWS
    assert verify((tmp_path / "engine").as_uri()).good
    assert not list((tmp_path / "work").rglob("*"))


# ---------------------------------------------------------------- rows that are left out


def upper(row: Any) -> bytes:
    return bytes(row["v"].decode().upper(), "ascii")


SKIP = SparkWriteOptions(progress=False, on_bad_row="skip")
FACTORIES = {"slatedb": lambda folder: None, "sqlite": lambda folder: SqliteFactory(), "own": lambda folder: file_backed_adapter_factory(str(folder / "own"))}


@pytest.mark.parametrize("factory", FACTORIES)
def test_bad_rows_are_left_out_and_counted_once(tmp_path: Path, factory: str, caplog: pytest.LogCaptureFixture) -> None:
    """Those that the engine refuses and those that an encoder does; whatever partition has them, and tasks that are tried again."""
    keys = [n for n in range(2000) if xxh3_db_id(n, 4) != 0]  # no rows for the shard whose task hears of what comes last
    bad = {3: (None, b"v"), 100: (-1, b"v"), 700: (2**64 - 1, b"v"), 900: (5, b"\xff"), 901: (6, None)}
    rows = [bad.get(n, (key, b"v%d" % key)) for n, key in enumerate(keys)]
    data = pa.table({"id": pa.array([key for key, _ in rows], pa.decimal128(20, 0)), "v": pa.array([value for _, value in rows], pa.binary())})
    only_bad = data.slice(100, 1).to_batches()
    job = LocalJob([*partitions(data), only_bad], attempts=lambda shard: [0, 1], kept=True)
    result = write(tmp_path / "s", data, ColumnWriteInput("id", ValueSpec.callable_encoder(upper)), SKIP, job, adapter_factory=FACTORIES[factory](tmp_path))
    assert (result.stats.rows_written, result.stats.bad_rows) == (len(keys) - len(bad), len(bad) + 1)
    assert [winner.db_id for winner in result.winners if winner.row_count] == [1, 2, 3]
    assert [r.shardyfusion["bad_rows"] for r in caplog.records if r.message == "write_bad_rows"] == [len(bad) + 1]  # type: ignore[attr-defined]
    if factory != "own":
        with ShardedReader(s3_prefix=(tmp_path / "s").as_uri(), local_root=str(tmp_path / "r")) as reader:
            found = reader.multi_get(keys)
        assert {key: value for key, value in found.items() if value} == {key: b"V%d" % key for n, key in enumerate(keys) if n not in bad}


@pytest.mark.parametrize("values", [None, ["de", "fr"]], ids=["inferred", "given"])
def test_rows_without_a_shard_are_left_out(tmp_path: Path, values: Any) -> None:
    data = pa.table({"id": [1, 2, 3, 4], "v": [b"v"] * 4, "country": ["fr", None, "de", "fr"]})
    flat: dict[str, Any] = {"cel_expr": "country", "cel_columns": {"country": "string"}, "routing_values": values, "infer_routing_values_from_data": not values}
    result = write(tmp_path / "s", data, BINARY, SKIP, kind=CelShardedWriteConfig, **flat)
    assert (result.stats.rows_written, result.stats.bad_rows, len(result.winners)) == (3, 1, 2)


def test_on_bad_row_is_no_function_of_the_drivers() -> None:
    with pytest.raises(ConfigValidationError, match="options.on_bad_row must be 'raise' or 'skip': the engine's tasks"):
        SparkWriteOptions(on_bad_row=print).validate()  # type: ignore[arg-type]
    with pytest.raises(ConfigValidationError, match="options.on_bad_row must be"):
        SparkWriteOptions(on_bad_row="drop").validate()  # type: ignore[arg-type]


KEYS: dict[str, tuple[str, Any]] = {
    "int8": ("u64be", pa.array([1, 2, 3], pa.int8())),
    "uint32": ("u32be", pa.array([1, 2, 2**32 - 1], pa.uint32())),
    "decimal": ("u64be", pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(10, 0))),
    "text": ("utf8", pa.array(["a", "ä€😀", "x" * 5000])),
    "dictionary": ("utf8", pa.array(["a", "b", "c"]).dictionary_encode()),
    "binary": ("raw", pa.array([b"\xff", b"\x00", b""], pa.binary())),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_of_all_types(tmp_path: Path, case: str) -> None:
    encoding, keys = KEYS[case]
    factory = SqliteFactory() if case == "binary" else None  # SlateDB has no empty keys
    data = pa.table({"id": keys, "v": [b"0", b"", b"2" * 100_000]})
    result = write(tmp_path / "s", data, key_encoding=encoding, adapter_factory=factory, num_dbs=2)
    assert result.stats.rows_written == 3
    plain = write_hash_sharded(
        data, config(tmp_path / "p", key_encoding=encoding, adapter_factory=factory, num_dbs=2), ArrowRecordInput("id", "v"),
        PythonWriteOptions(progress=False),
    )
    assert [(w.db_id, w.min_key, w.max_key) for w in result.winners] == [(w.db_id, w.min_key, w.max_key) for w in plain.winners]


def test_values_of_encoders(tmp_path: Path) -> None:
    data = table(30)
    for name, spec, wanted in [
        ("json", ValueSpec.json_cols(["id", "country", "none"]), b'{"country":"fr","id":4,"none":null}'),
        ("call", ValueSpec.callable_encoder(shout), b"VALUE 4"),
        ("text", ValueSpec.binary_col("country"), b"fr"),
    ]:
        write(tmp_path / name, data, ColumnWriteInput("id", spec))
        with ShardedReader(s3_prefix=(tmp_path / name).as_uri(), local_root=str(tmp_path / "r")) as reader:
            assert reader.get(4) == wanted


def shout(row: Any) -> bytes:
    return bytes(row["v"].upper())


NULLS = {
    "binary": pa.array([None, b"x"], pa.binary()),
    "text": pa.array([None, "x"]),
    "view": pa.array([None, "x"], pa.string_view()),
    "fixed": pa.array([None, b"x"], pa.binary(1)),
    "dictionary": pa.array([None, "x"]).dictionary_encode(),
    "all of them": pa.array([None, None]),
}


@pytest.mark.parametrize("case", NULLS)
def test_a_null_value_of_a_binary_column_is_empty(tmp_path: Path, case: str) -> None:
    write(tmp_path / "s", pa.table({"id": [1, 2], "v": NULLS[case]}))
    with ShardedReader(s3_prefix=(tmp_path / "s").as_uri(), local_root=str(tmp_path / "r")) as reader:
        assert reader.multi_get([1, 2]) == {1: b"", 2: b"" if case == "all of them" else b"x"}


def test_many_small_blocks_and_long_rows(tmp_path: Path) -> None:
    data = pa.table({"id": range(50), "v": [bytes([n]) * (200_000 if n % 10 == 0 else 100) for n in range(50)]})
    job = LocalJob(partitions(data), blocks_at_once=1 << 20)
    result = write(tmp_path / "s", data, job=job)
    assert result.stats.rows_written == 50 and job.blocks > 20
    assert max(map(len, job.results)) < 1000, "a result is a few hundred bytes"


def test_rows_spill(tmp_path: Path) -> None:
    data = pa.table({"id": range(4000), "v": [b"x" * 1000] * 4000})
    options = SparkWriteOptions(progress=False, memory_bytes=1 << 20)
    assert write(tmp_path / "s", data, options=options, num_dbs=1).stats.rows_written == 4000
    assert hashes(tmp_path / "s") == [(0, 4000, 0, 3999)]


def test_duplicates_are_counted(tmp_path: Path) -> None:
    data = pa.concat_tables([table(100), table(100)])
    stats = write(tmp_path / "s", data).stats
    assert (stats.rows_written, stats.duplicates) == (100, 100)


def test_max_keys_per_shard(tmp_path: Path) -> None:
    result = write(tmp_path / "s", table(1001), num_dbs=None, max_keys_per_shard=100)
    assert len(hashes(tmp_path / "s")) == 11 == result.stats.num_winners


def test_no_rows(tmp_path: Path) -> None:
    result = write(tmp_path / "s", table(0))
    assert (result.winners, result.stats.rows_written) == ([], 0)


# ---------------------------------------------------------------- CEL

CEL: dict[str, tuple[dict[str, Any], int]] = {
    "direct": ({"cel_expr": "id % 3", "cel_columns": {"id": "int"}}, 3),
    "by the key": ({"cel_expr": "key % 3", "cel_columns": {"key": "int"}}, 3),
    "given": ({"cel_expr": "country", "cel_columns": {"country": "string"}, "routing_values": ["it", "fr", "de", "es"]}, 4),
    "inferred": (
        {"cel_expr": "country", "cel_columns": {"country": "string"}, "infer_routing_values_from_data": True}, 3,
    ),
    "inferred integers": (
        {"cel_expr": "id % 3 * 10", "cel_columns": {"id": "int"}, "infer_routing_values_from_data": True}, 3,
    ),
}


@pytest.mark.parametrize("case", CEL)
def test_cel(tmp_path: Path, case: str) -> None:
    flat, shards = CEL[case]
    data = table(90)
    result = write(tmp_path / "s", data, kind=CelShardedWriteConfig, **flat)
    plain = write_cel_sharded(
        data, config(tmp_path / "p", CelShardedWriteConfig, **flat), ArrowRecordInput("id", "v"), PythonWriteOptions(progress=False)
    )
    assert [(w.db_id, w.row_count, w.min_key, w.max_key) for w in result.winners] == [
        (w.db_id, w.row_count, w.min_key, w.max_key) for w in plain.winners
    ]
    with ShardedReader(s3_prefix=(tmp_path / "s").as_uri(), local_root=str(tmp_path / "r")) as mine:
        with ShardedReader(s3_prefix=(tmp_path / "p").as_uri(), local_root=str(tmp_path / "r")) as theirs:
            assert mine.snapshot_info().num_dbs == theirs.snapshot_info().num_dbs == shards
            assert mine.get(7, routing_context={"id": 7, "key": 7, "country": "fr"} if case != "by the key" else None) == b"value 7"


@pytest.mark.parametrize(
    ("flat", "text"),
    [
        ({"cel_expr": "id * 2", "cel_columns": {"id": "int"}}, "non-consecutive"),
        (
            {"cel_expr": "country", "cel_columns": {"country": "string"}, "routing_values": ["de", "fr"]},
            r"partition 0: row 3: .*it",
        ),
        ({"cel_expr": "id / (15 - id)", "cel_columns": {"id": "int"}}, "partition 0: row 16: .*divide by zero"),
        (
            {"cel_expr": "country", "cel_columns": {"country": "int"}, "infer_routing_values_from_data": True},
            "partition 0: row 1: .*cannot take the string",
        ),
    ],
)
def test_cel_without_a_shard(tmp_path: Path, flat: Any, text: str) -> None:
    with pytest.raises(ShardAssignmentError, match=text):
        write(tmp_path / "s", table(90), kind=CelShardedWriteConfig, **flat)
    nothing_is_left(tmp_path / "s")


# ---------------------------------------------------------------- adapters and stores of the caller's


@pytest.mark.parametrize("sort_rows", [False, True])
def test_an_adapter_of_the_callers(tmp_path: Path, sort_rows: bool) -> None:
    data = table(200).take(pa.array([*range(100, 200), *range(100)]))
    factory = file_backed_adapter_factory(str(tmp_path / "files"))
    job = LocalJob(partitions(data), sort_rows=sort_rows)
    result = write(tmp_path / "s", data, job=job, adapter_factory=factory)
    stored: dict[bytes, bytes] = {}
    for winner in result.winners:
        stored |= file_backed_load_db(str(tmp_path / "files"), winner.db_url)
    assert stored == {n.to_bytes(8, "big"): b"value %d" % n for n in range(200)}
    assert min(winner.min_key for winner in result.winners) == 0
    assert all(winner.writer_info.task_attempt_id == 100 for winner in result.winners)


class Failing:
    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        raise OSError("no room")


def test_an_adapter_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ShardWriteError, match=r"Shard write failed for db_id=3, attempt=0: no room"):
        write(tmp_path / "s", table(100), adapter_factory=Failing())
    nothing_is_left(tmp_path / "s")


class FailsOnce:
    """A factory whose first adapter for shard 1 fails."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "failed"
        self.factory = file_backed_adapter_factory(str(folder))

    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        if "db=00001" in db_url and not self.mark.exists():
            self.mark.touch()
            raise OSError("the first one fails")
        return self.factory(db_url=db_url, local_dir=local_dir)


@pytest.mark.parametrize("retries", [0, 1])
def test_an_adapter_that_fails_once(tmp_path: Path, retries: int) -> None:
    """Is tried again inside of its task, where the engine has kept the blocks."""
    collector = ListMetricsCollector()
    more: dict[str, Any] = {
        "adapter_factory": FailsOnce(tmp_path), "metrics_collector": collector,
        "shard_retry": RetryConfig(max_retries=retries, initial_backoff=timedelta(0)),
    }  # fmt: skip
    job = LocalJob(partitions(table()), kept=True)
    if retries == 0:
        with pytest.raises(ShardWriteError, match=r"db_id=1, attempt=0: the first one fails"):
            write(tmp_path / "s", table(), job=job, **more)
        return
    result = write(tmp_path / "s", table(), job=job, **more)
    assert [winner.attempt for winner in result.winners] == [0, 1, 0, 0] and "attempt=01" in result.winners[1].db_url
    retried = [payload for event, payload in collector.events if event is MetricEvent.SHARD_WRITE_RETRIED]
    assert [(one["db_id"], one["attempt"], one["backoff_s"]) for one in retried] == [(1, 1, 0)]


def test_tasks_repeat_without_being_told_to(tmp_path: Path) -> None:
    """The driver has no `shard_retry` to say how long they waited."""

    class Repeated(LocalJob):
        def build(self, *given: Any) -> Any:
            yield from ({**attempt, "retries": 2} for attempt in super().build(*given))

    collector = ListMetricsCollector()
    write(tmp_path / "s", table(), job=Repeated(partitions(table())), metrics_collector=collector, num_dbs=1)
    retried = [payload for event, payload in collector.events if event is MetricEvent.SHARD_WRITE_RETRIED]
    assert [(one["attempt"], one["backoff_s"]) for one in retried] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("plugged", [False, True])
def test_what_fails_on_the_way_to_a_shard_is_told_once(tmp_path: Path, plugged: bool) -> None:
    """As when the driver builds while rows come to it."""

    class Streaming(LocalJob):
        what = "Single-db write"

        def build(self, route: Any, build: Any, columns: Any) -> Any:
            def blocks() -> Any:
                for number, partition in enumerate(self._partitions):
                    for some in route(self._selected(partition, columns), Task(number)):
                        yield some.column(1).to_pylist()

            yield from build(blocks(), Task(0))

    more = {"adapter_factory": file_backed_adapter_factory(str(tmp_path / "files"))} if plugged else {}
    bad = pa.table({"id": pa.array([1, 2, None]), "v": [b"x"] * 3})
    for data, input, error, text in [
        (bad, BINARY, RowError, r"^partition 2: row 1: the key is null"),
        (table(), ColumnWriteInput("id", ValueSpec.callable_encoder(broken)), ShardWriteError, r"^Single-db write failed for db_id=0, attempt=0: 'broken'"),
    ]:
        with pytest.raises(error, match=text):
            write(tmp_path / "s", data, input, job=Streaming(partitions(data)), num_dbs=1, **more)


def test_losers_go_with_a_manifest_store_of_the_callers_too(tmp_path: Path) -> None:
    job = LocalJob(partitions(table()), attempts=lambda shard: [0, 1])
    write(tmp_path / "s", table(), job=job, manifest=WriterManifestConfig(store=InMemoryManifestStore()))
    assert sum(any(folder.rglob("*.sst")) for folder in (tmp_path / "s").rglob("attempt=*")) == 4


def test_a_store_of_the_callers(tmp_path: Path) -> None:
    store = InMemoryManifestStore()
    flat = CEL["inferred"][0]
    for kind, more in ((HashShardedWriteConfig, {}), (CelShardedWriteConfig, flat)):
        result = write(tmp_path / "s", table(90), kind=kind, manifest=WriterManifestConfig(store=store), **more)
        manifest = store.load_manifest(result.manifest_ref)
        assert manifest.required_build.sharding.strategy.value == ("cel" if more else "hash")
        assert manifest.required_build.num_dbs == len(result.winners) and manifest.custom["content_hash"]


# ---------------------------------------------------------------- attempts


@pytest.mark.parametrize("run_id", [None, "given"])
def test_tasks_that_run_again(tmp_path: Path, run_id: str | None) -> None:
    """As many attempts as there are: the engine tells which counts. Of a run id that was given, others may be anybody's: clean-up
    tells."""
    job = LocalJob(partitions(table()), attempts=lambda shard: [0, 0, 1])
    output = WriterOutputConfig(run_id=run_id, local_root=str(tmp_path / "work"))
    result = write(tmp_path / "s", table(), job=job, output=output)
    assert [winner.attempt for winner in result.winners] == [2] * 4, "a number that was taken is left to its owner"
    before = hashes(tmp_path / "s")
    report = cleanup((tmp_path / "s").as_uri(), min_age=timedelta(0))
    assert [leftover.kind for leftover in report.leftovers] == ([] if run_id is None else ["attempt"] * 8)
    assert hashes(tmp_path / "s") == before
    assert sum(any(folder.rglob("*.sst")) for folder in (tmp_path / "s").rglob("attempt=*")) == 4


def test_a_shard_that_came_in_two_parts(tmp_path: Path) -> None:
    class Torn(LocalJob):
        def build(self, *given: Any) -> Any:
            attempts = list(super().build(*given))
            yield from [*attempts, attempts[0]]

    with pytest.raises(ShardCoverageError, match="was built twice"):
        write(tmp_path / "s", table(), job=Torn(partitions(table())))
    nothing_is_left(tmp_path / "s")


def test_the_same_run_id_again(tmp_path: Path) -> None:
    output = WriterOutputConfig(run_id="again", local_root=str(tmp_path / "work"))
    write(tmp_path / "s", table(), output=output)
    result = write(tmp_path / "s", table(), output=output)
    assert {winner.attempt for winner in result.winners} == {1}


def test_two_drivers_with_one_run_id(tmp_path: Path) -> None:
    """The second is refused while the first is at work, and disturbs nothing."""
    output = WriterOutputConfig(run_id="one", local_root=str(tmp_path / "work"))

    class Meanwhile(LocalJob):
        def build(self, *given: Any) -> Any:
            with pytest.raises(ConditionFailedError, match="one"):
                write(tmp_path / "s", table(300), output=output)
            yield from super().build(*given)

    result = write(tmp_path / "s", table(), job=Meanwhile(partitions(table())), output=output)
    assert sum(shard[1] for shard in hashes(tmp_path / "s")) == result.stats.rows_written == ROWS
    assert not cleanup((tmp_path / "s").as_uri(), min_age=timedelta(0)).leftovers


def nothing_is_left(place: Path) -> None:
    """Of a write that failed, but a record that says so."""
    records = [parse_run_record(path.read_bytes()) for path in place.glob("runs/*/run.yaml")]
    assert [record.status.value for record in records] == ["failed"] and records[0].error_message
    assert not (place / "_CURRENT").exists() and not list(place.glob("manifests/*"))
    assert not [name for name in files(place) if not name.startswith("runs/")], "what was stored is taken back"


# ---------------------------------------------------------------- bad input

BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "null key": ({"id": pa.array([1, None, 3])}, RowError, "partition 1: row 1: the key is null"),
    "negative key": ({"id": [1, 2, -3]}, RowError, "partition 2: row 1: u64be .* got -3"),
    "type of the key": ({"id": [1.5, 2.5, 3.5]}, ConfigValidationError, "key column 'id' has type double"),
    "type of the value": ({"v": [1, 2, 3]}, ConfigValidationError, "value column 'v' has type int64"),
    "no value column": ({"v": None}, ConfigValidationError, "no value column 'v'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path: Path, case: str) -> None:
    change, error, text = BAD[case]
    columns = {"id": [1, 2, 3], "v": [b"1", b"2", b"3"], **change}
    data = pa.table({name: values for name, values in columns.items() if values is not None})
    with pytest.raises(error, match=text):
        write(tmp_path / "s", data)
    nothing_is_left(tmp_path / "s")


def broken(row: Any) -> bytes:
    if row["id"] == 1500:
        raise KeyError("broken")
    return b""


def untyped(row: Any) -> Any:
    return "text"


def leaving(row: Any) -> bytes:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("encoder", "text"),
    [
        (broken, r"db_id=\d, attempt=0: 'broken' .*partition 1, row 501"),
        (untyped, "must return bytes"),
        (leaving, r"attempt=0: 3 \(SystemExit of .*row 1"),
    ],
)
def test_an_encoder_that_fails(tmp_path: Path, encoder: Any, text: str) -> None:
    with pytest.raises(ShardWriteError, match=f"Shard write failed for .*{text}"):
        write(tmp_path / "s", table(), ColumnWriteInput("id", ValueSpec.callable_encoder(encoder)))
    nothing_is_left(tmp_path / "s")


def test_damaged_blocks(tmp_path: Path) -> None:
    job = LocalJob(partitions(table()), change=lambda block: block[:-1] + b"?")
    with pytest.raises(ShardWriteError, match=r"Shard write failed for db_id=3, attempt=0: .*checksum"):
        write(tmp_path / "s", table(), job=job)
    nothing_is_left(tmp_path / "s")


def test_rows_in_the_wrong_shard(tmp_path: Path) -> None:
    """Executors with another version of the package, say: every row is checked where it arrives."""
    from shardyfusion._engine import native

    def moved(block: bytes) -> bytes:
        (shard,) = struct.unpack_from("<I", block, 12)
        rest = block[8:12] + struct.pack("<I", shard ^ 1) + block[16:]
        return struct.pack("<Q", native.xxh3_64(rest)) + rest

    job = LocalJob(partitions(table()), change=moved)
    with pytest.raises(ShardAssignmentError, match=r"row 1: the key belongs to shard \d and came to shard \d"):
        write(tmp_path / "s", table(), job=job)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"shard_id_col": "country"}, "shard_id_col 'country' conflicts"),
        ({"options": SparkWriteOptions(checks=PublishChecks(sample_keys=3))}, "sample_keys"),
        ({"options": SparkWriteOptions(memory_bytes=5)}, "memory_bytes"),
        ({"input": ColumnWriteInput("id", "v")}, "value_spec must be ValueSpec"),
        ({"input": ColumnWriteInput("id", ValueSpec.binary_col("v"), vector=1)}, "vector"),
    ],
)
def test_what_is_refused_before_the_first_row(tmp_path: Path, more: Any, text: str) -> None:
    options, input = more.pop("options", SparkWriteOptions()), more.pop("input", BINARY)
    chosen = config(tmp_path / "s", **more)
    with pytest.raises(ConfigValidationError, match=text):
        _engines.check_arguments(HashShardedWriteConfig, chosen, input, options, SparkWriteOptions)
        run_job(LocalJob(partitions(table())), chosen, input, options)
    assert not (tmp_path / "s").exists()


def test_checks_refuse(tmp_path: Path) -> None:
    write(tmp_path / "s", table())
    before = files(tmp_path / "s")
    options = SparkWriteOptions(progress=False, checks=PublishChecks(min_rows_share=0.5))
    with pytest.raises(PublishRefusedError, match="100 rows are less"):
        write(tmp_path / "s", table(100), options=options)
    after = {name: data for name, data in files(tmp_path / "s").items() if not name.startswith("runs/")}
    assert after == {name: data for name, data in before.items() if not name.startswith("runs/")}


# ---------------------------------------------------------------- what is there already


def test_unchanged_shards_are_not_built_again(tmp_path: Path) -> None:
    first = write(tmp_path / "s", table())
    before = files(tmp_path / "s" / "shards")
    options = SparkWriteOptions(progress=False, reuse_unchanged=True)
    second = write(tmp_path / "s", table(), options=options)
    assert files(tmp_path / "s" / "shards") == before and (second.stats.shards_reused, first.stats.shards_reused) == (4, 0)
    assert [winner.db_url for winner in second.winners] == [winner.db_url for winner in first.winners]

    def publish_another(preview: Any) -> None:
        write(tmp_path / "s", table(300))

    options = SparkWriteOptions(progress=False, reuse_unchanged=True, checks=PublishChecks(check=publish_another))
    with pytest.raises(PublishConflictError):
        write(tmp_path / "s", table(), options=options)
    assert before.items() <= files(tmp_path / "s" / "shards").items(), "what was taken over was not taken back"


def test_a_run_is_resumed(tmp_path: Path) -> None:
    output = WriterOutputConfig(run_id="r", local_root=str(tmp_path / "work"))
    options = SparkWriteOptions(progress=False, resume=True)
    obstacle = tmp_path / "s" / "shards" / "run_id=r" / "db=00001"  # where a folder should be; shards are built from the last one down
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    with pytest.raises(ShardWriteError, match="db_id=1"):
        write(tmp_path / "s", table(), options=options, output=output)
    finished = files(tmp_path / "s" / "shards")
    assert sum(name.endswith("finished.json") for name in finished) == 2
    obstacle.unlink()
    result = write(tmp_path / "s", table(), options=options, output=output)
    assert result.stats.shards_reused == 2 and result.stats.rows_written == ROWS
    there = files(tmp_path / "s" / "shards")
    assert finished.items() - {("run_id=r/db=00001", b"")} <= there.items()
    assert sum(name.endswith("finished.json") for name in there) == 4
    assert [shard[1] for shard in hashes(tmp_path / "s")] == [winner.row_count for winner in result.winners]


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigValidationError, match=r"options\.resume needs output\.run_id"):
        write(tmp_path / "s", table(3), options=SparkWriteOptions(progress=False, resume=True))
    own = file_backed_adapter_factory(str(tmp_path / "files"))
    with pytest.raises(ConfigValidationError, match=r"options\.reuse_unchanged needs a built-in adapter factory"):
        write(tmp_path / "s", table(3), options=SparkWriteOptions(progress=False, reuse_unchanged=True), adapter_factory=own)


# ---------------------------------------------------------------- what is told


def test_events_and_progress(tmp_path: Path) -> None:
    collector, told = ListMetricsCollector(), list[WriteProgress]()
    options = SparkWriteOptions(progress=told.append, progress_interval=0.000001)
    write(tmp_path / "s", table(), options=options, metrics_collector=collector)
    names = [event for event, _ in collector.events if not event.value.startswith("s3")]
    assert names == [
        MetricEvent.WRITE_STARTED, MetricEvent.SHARD_WRITES_COMPLETED, MetricEvent.MANIFEST_PUBLISHED,
        MetricEvent.CURRENT_PUBLISHED, MetricEvent.WRITE_COMPLETED,
    ]
    assert [one.phase for one in told][0] == "building" and {one.shards_done for one in told} >= {1, 2, 3, 4}
    (record,) = (parse_run_record(path.read_bytes()) for path in (tmp_path / "s").glob("runs/*/run.yaml"))
    assert (record.writer_type, record.status.value) == ("spark", "succeeded")


def test_a_skewed_snapshot_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flat = {"cel_expr": "id < 2900 ? 0 : id % 2 + 1", "cel_columns": {"id": "int"}}
    with caplog.at_level("WARNING", "shardyfusion"):
        write(tmp_path / "s", table(), kind=CelShardedWriteConfig, **flat)
    (warning,) = (record for record in caplog.records if record.message == "write_warning")
    assert "fullest of 3 shards" in warning.shardyfusion["warning"] and warning.shardyfusion["suggested_num_dbs"] == 1


def test_the_page_size_by_the_values(tmp_path: Path) -> None:
    kv = {"adapter_factory": SqliteFactory()}
    chosen = config(tmp_path / "s", **kv)
    chosen.kv.profile_value_sizes_for_page_size = True
    data = pa.table({"id": range(100), "v": [b"x" * 6000] * 100})
    run_job(LocalJob(partitions(data)), chosen, BINARY, SparkWriteOptions(progress=False))
    (first, *_) = sorted((tmp_path / "s").rglob("shard.db"))
    assert struct.unpack_from(">H", first.read_bytes(), 16)[0] > 4096
    chosen.kv.adapter_factory = SqliteFactory(page_size=8192)
    with pytest.raises(ConfigValidationError, match="conflicts with"):
        run_job(LocalJob(partitions(data)), chosen, BINARY, SparkWriteOptions(progress=False))
