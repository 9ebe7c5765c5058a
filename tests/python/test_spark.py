"""Publishing from a real Spark: two tasks at a time, each tried up to twice, in one session for the whole file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT
from test_engine_tasks import CEL, files, nothing_is_left, shout, table

sys.path.insert(0, str(ROOT / "tests" / "support"))

from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    CelShardedWriteConfig,
    ConfigValidationError,
    HashShardedWriteConfig,
    ShardedReader,
    ShardWriteError,
    SingleDbWriteConfig,
    ValueSpec,
    WriterOutputConfig,
)
from shardyfusion.config import (  # noqa: E402
    ArrowRecordInput,
    ColumnWriteInput,
    PythonWriteOptions,
    SingleDbWriteOptions,
    SparkWriteOptions,
)
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.errors import RowError  # noqa: E402
from shardyfusion.maintenance import cleanup  # noqa: E402
from shardyfusion.sqlite_adapter import SqliteFactory  # noqa: E402
from shardyfusion.testing import file_backed_adapter_factory, file_backed_load_db  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded as write_plain  # noqa: E402

pytest.importorskip("pyspark")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # what Spark says of pandas is not ours
]

BINARY = ColumnWriteInput("id", ValueSpec.binary_col("v"))
ROWS = 3000


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyspark.sql import SparkSession
    paths = [str(ROOT / "tests" / "python"), *(path for path in sys.path if path)]  # tasks import what this file imports
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    os.environ["PYSPARK_PYTHON"] = sys.executable
    folder = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
    }
    builder = SparkSession.builder.master("local[2,2]").appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def frame(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows of test_engine_tasks, in three files."""
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("rows")
    for number in range(3):
        parquet.write_table(table().slice(number * 1000, 1000), folder / f"{number}.parquet")
    return spark.read.parquet(str(folder))


def config(place: Path, kind: Any = HashShardedWriteConfig, **more: Any) -> Any:
    if kind is HashShardedWriteConfig:
        more.setdefault("num_dbs", 3)
    more.setdefault("output", WriterOutputConfig(local_root=str(place.parent / "work")))
    return kind(s3_prefix=place.as_uri(), **more)


def write(df: Any, place: Path, input: ColumnWriteInput = BINARY, **more: Any) -> Any:
    from shardyfusion.writer.spark import write_hash_sharded

    return write_hash_sharded(df, config(place, **more), input, SparkWriteOptions(progress=False))


@contextmanager
def reading(place: str | Path, folder: Path, **access: Any) -> Iterator[ShardedReader]:
    prefix = place.as_uri() if isinstance(place, Path) else place
    with ShardedReader(s3_prefix=prefix, local_root=str(folder / "r"), **access) as reader:
        yield reader


@pytest.mark.parametrize("factory", [None, SqliteFactory()], ids=["slatedb", "sqlite"])
def test_the_same_shards_as_from_plain_arrow(frame: Any, tmp_path: Path, factory: Any) -> None:
    result = write(frame, tmp_path / "spark", adapter_factory=factory)
    assert (result.stats.rows_written, result.stats.num_winners) == (ROWS, 3)
    assert {winner.writer_info.stage_id is None for winner in result.winners} == {False}
    assert len({winner.writer_info.task_attempt_id for winner in result.winners}) == 3, "a task for each shard"
    write_plain(table(), config(tmp_path / "plain", adapter_factory=factory), ArrowRecordInput("id", "v"), PythonWriteOptions(progress=False))
    for suffix in (".sst", "shard.db"):
        mine, theirs = (
            sorted(data for name, data in files(tmp_path / way / "shards").items() if name.endswith(suffix)) for way in ("spark", "plain")
        )
        assert mine == theirs
    with reading(tmp_path / "spark", tmp_path) as reader:
        assert reader.multi_get(list(range(0, ROWS, 9))) == {n: b"value %d" % n for n in range(0, ROWS, 9)}
    assert not any(path.is_file() for path in (tmp_path / "work").rglob("*"))


def test_a_real_s3_server(frame: Any, tmp_path: Path) -> None:
    from shardyfusion.writer.spark import write_hash_sharded

    with s3_server(None) as server:
        access: dict[str, Any] = {
            "credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
            "s3_connection_options": {"endpoint_url": server.endpoint, "region_name": REGION},
        }
        for name, factory in (("slatedb", None), ("sqlite", SqliteFactory())):
            prefix = f"s3://scratch/spark/{name}"
            write_hash_sharded(frame, HashShardedWriteConfig(s3_prefix=prefix, num_dbs=2, adapter_factory=factory, **access), BINARY)
            with reading(prefix, tmp_path, **access) as reader:
                assert reader.get(2999) == b"value 2999" and reader.get(3000) is None


def test_max_keys_per_shard_and_encoders(frame: Any, tmp_path: Path) -> None:
    """An encoder gets a row of Spark's own."""
    spec = ValueSpec.callable_encoder(lambda row: f"{row.id} {row['country']} {sorted(row.asDict())}".encode())
    result = write(frame, tmp_path / "s", ColumnWriteInput("id", spec), num_dbs=None, max_keys_per_shard=1600)
    assert [winner.db_id for winner in result.winners] == [0, 1]
    with reading(tmp_path / "s", tmp_path) as reader:
        assert reader.get(4) == b"4 fr ['country', 'id', 'v']"


@pytest.mark.parametrize("case", ["direct", "given", "inferred"])
def test_cel(frame: Any, tmp_path: Path, case: str) -> None:
    from shardyfusion.writer.spark import write_cel_sharded

    flat, shards = CEL[case]
    result = write_cel_sharded(frame, config(tmp_path / "s", CelShardedWriteConfig, **flat), BINARY, SparkWriteOptions(cache_input=True))
    assert result.stats.rows_written == ROWS
    with reading(tmp_path / "s", tmp_path) as reader:
        assert reader.snapshot_info().num_dbs == shards
        assert reader.get(7, routing_context={"id": 7, "country": "fr"}) == b"value 7"
    assert not frame.is_cached


def test_one_shard(frame: Any, tmp_path: Path) -> None:
    from shardyfusion.writer.spark import write_single_db

    result = write_single_db(frame, config(tmp_path / "s", SingleDbWriteConfig), BINARY)
    assert [(winner.db_id, winner.row_count, winner.min_key, winner.max_key) for winner in result.winners] == [(0, ROWS, 0, ROWS - 1)]
    with reading(tmp_path / "s", tmp_path) as reader:
        assert reader.get(77) == b"value 77"


def test_adapters_of_the_callers(frame: Any, tmp_path: Path) -> None:
    from shardyfusion.writer.spark import write_single_db

    factory = file_backed_adapter_factory(str(tmp_path / "files"))
    wanted = {n.to_bytes(8, "big"): b"value %d" % n for n in range(ROWS)}
    many = write(frame, tmp_path / "many", adapter_factory=factory)
    one = write_single_db(
        frame, config(tmp_path / "one", SingleDbWriteConfig, adapter_factory=factory), BINARY, SingleDbWriteOptions(num_partitions=2)
    )
    for result in (many, one):
        stored: dict[bytes, bytes] = {}
        for winner in result.winners:
            stored |= file_backed_load_db(str(tmp_path / "files"), winner.db_url)
        assert stored == wanted
    assert list(file_backed_load_db(str(tmp_path / "files"), one.winners[0].db_url)) == sorted(wanted), "in the order of keys"


# ---------------------------------------------------------------- failures


def dies_once(marks: Path, row: Any) -> bytes:
    mark = marks / "died"
    if row.id == 1500 and not mark.exists():
        mark.touch()
        os._exit(3)
    return bytes(row.v)


def test_a_process_that_dies_is_tried_again(frame: Any, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    result = write(frame, tmp_path / "s", ColumnWriteInput("id", ValueSpec.callable_encoder(lambda row: dies_once(marks, row))))
    assert (marks / "died").exists() and result.stats.rows_written == ROWS
    with reading(tmp_path / "s", tmp_path) as reader:
        assert reader.get(1500) == b"value 1500"
    assert not cleanup((tmp_path / "s").as_uri(), min_age=timedelta(0)).leftovers


def test_a_process_that_always_dies(frame: Any, tmp_path: Path) -> None:
    with pytest.raises(ShardWriteError, match=r"Spark gave up on a task: (.|\n)*failed 2 times"):
        write(frame, tmp_path / "s", ColumnWriteInput("id", ValueSpec.callable_encoder(lambda row: os._exit(3))))
    nothing_is_left(tmp_path / "s")


class FailsOnce:
    """A factory whose first adapter for shard 1 stores a file and fails."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks
        self.factory = file_backed_adapter_factory(str(marks))

    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        mark = self.marks / "failed"
        if "db=00001" in db_url and not mark.exists():
            mark.touch()
            raise OSError("the first one fails")
        return self.factory(db_url=db_url, local_dir=local_dir)


def test_a_task_that_fails_is_tried_again(frame: Any, tmp_path: Path) -> None:
    """Under a number of its own."""
    marks = tmp_path / "marks"
    marks.mkdir()
    result = write(frame, tmp_path / "s", adapter_factory=FailsOnce(marks))
    assert [winner.attempt for winner in result.winners] == [0, 1, 0]
    assert [re.findall(r"attempt=(\d+)", winner.db_url) for winner in result.winners] == [["00"], ["01"], ["00"]]


@pytest.mark.parametrize(
    ("query", "error", "text"),
    [
        ("select cast(null as bigint) id, cast('x' as binary) v", RowError, "partition 0: row 1: the key is null"),
        ("select 1 id, 2 v", ConfigValidationError, "value column 'v' has type int32, which is neither text nor binary"),
    ],
)
def test_bad_input(spark: Any, tmp_path: Path, query: str, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        write(spark.sql(query), tmp_path / "s")
    nothing_is_left(tmp_path / "s")


def test_a_missing_key_column_is_sparks_own_error(spark: Any, tmp_path: Path) -> None:
    from pyspark.errors import AnalysisException

    with pytest.raises(AnalysisException, match="id"):
        write(spark.sql("select 'x' v"), tmp_path / "s")
    nothing_is_left(tmp_path / "s")


def test_names_with_dots(spark: Any, tmp_path: Path) -> None:
    rows = spark.sql("select 1 `user.id`, 'x' `a.b.c`, null v")
    for number, value in enumerate([ValueSpec.binary_col("a.b.c"), ValueSpec.callable_encoder(lambda row: row["a.b.c"].encode()), ValueSpec.binary_col("v")]):
        place = tmp_path / str(number)
        write(rows, place, ColumnWriteInput("user.id", value), num_dbs=1)
        with reading(place, tmp_path) as reader:
            assert reader.get(1) == (b"" if number == 2 else b"x")


def test_an_encoder_that_fails_names_shard_attempt_and_row(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(ShardWriteError, match=r"Shard write failed for db_id=\d, attempt=1: .*partition 0, row 1\)"):
        write(spark.sql("select 5 id"), tmp_path / "s", ColumnWriteInput("id", ValueSpec.callable_encoder(shout)))


# ---------------------------------------------------------------- the session


def test_settings_and_caches_are_put_back(spark: Any, frame: Any) -> None:
    from shardyfusion.writer.spark import DataFrameCacheContext, SparkConfOverrideContext

    known, unknown = "spark.sql.shuffle.partitions", "spark.shardyfusion.test"
    with pytest.raises(ZeroDivisionError), SparkConfOverrideContext(spark, {known: "7", unknown: "x"}):
        assert (spark.conf.get(known), spark.conf.get(unknown)) == ("7", "x")
        raise ZeroDivisionError
    assert (spark.conf.get(known), spark.conf.get(unknown, None)) == ("2", None)
    rows = frame.select("id")
    with DataFrameCacheContext(rows) as kept:
        assert kept.is_cached
    assert not rows.is_cached
    with DataFrameCacheContext(rows, enabled=False) as kept:
        assert kept is rows and not kept.is_cached
    rows.cache()
    with DataFrameCacheContext(rows) as kept:
        assert kept is rows
    assert rows.storageLevel.useMemory, "it was the caller's"
    rows.unpersist()


def test_each_shard_has_a_task_to_itself(spark: Any) -> None:
    from shardyfusion.writer.spark._job import own_partitions

    count = 50
    numbers = spark.createDataFrame([(place,) for place in own_partitions(count)], "place int")
    placed = numbers.selectExpr(f"pmod(hash(place), {count}) shard").collect()
    assert [row.shard for row in placed] == list(range(count))


def test_the_program_of_the_page(spark: Any, frame: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/engines.md, as it stands there, but for the places."""
    text = (ROOT / "docs" / "engines.md").read_text()
    (program,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "writer.spark" in code)
    frame.withColumnRenamed("id", "user_id").withColumnRenamed("v", "profile").write.parquet(str(tmp_path / "users"))
    program = program.replace("s3://lake/users/", str(tmp_path / "users")).replace("s3://bucket/users", (tmp_path / "s").as_uri())
    exec(compile(program, "docs/engines.md", "exec"), {"__name__": "__main__"})
    with reading(tmp_path / "s", tmp_path) as reader:
        assert reader.get(4) == b"value 4"


def test_without_spark_the_extra_is_named() -> None:
    code = (
        "import sys\nsys.modules['pyspark'] = None\nimport importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pyspark' else find(name, *a)\nimport shardyfusion.writer.spark"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "shardyfusion.writer.spark needs pyspark: pip install 'shardyfusion[writer-spark]'" in done.stderr
