"""Publishing from a real Spark: two tasks at a time, each tried up to twice, in one session for the whole file; and from two executors."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_cases import EngineCases, config, die, reading, workers_find_what_tests_import
from test_engine_tasks import nothing_is_left, table

from shardyfusion import ConfigValidationError, ShardWriteError, ValueSpec
from shardyfusion.config import ColumnWriteInput, SparkWriteOptions
from shardyfusion.testing import file_backed_adapter_factory

pytest.importorskip("pyspark")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # what Spark says of pandas is not ours
]


def session_of(master: str, folder: Path, **more: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyspark.sql import SparkSession
    workers_find_what_tests_import()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
        **more,
    }
    builder = SparkSession.builder.master(master).appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    return session


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    session = session_of("local[2,2]", tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()


def frame(spark: Any, data: Any) -> Any:
    """In three partitions."""
    return spark.createDataFrame(data).coalesce(1).repartition(3) if data.num_rows > 3 else spark.createDataFrame(data).coalesce(1)


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


class TestSpark(EngineCases):
    name = "spark"
    package = "pyspark"
    described = staticmethod(lambda row: f"{row.id} {row['country']} {sorted(row.asDict())}".encode())

    @pytest.fixture(autouse=True)
    def _session(self, spark: Any) -> None:
        self.spark = spark

    @property
    def missing_key(self) -> type[Exception]:
        from pyspark.errors import AnalysisException

        return AnalysisException

    def rows(self, data: Any) -> Any:
        return frame(self.spark, data)

    def options(self, **more: Any) -> Any:
        return SparkWriteOptions(**more)

    def test_each_shard_has_a_task_to_itself(self, tmp_path: Path) -> None:
        from shardyfusion.writer.spark._job import own_partitions

        count = 50
        numbers = self.spark.createDataFrame([(place,) for place in own_partitions(count)], "place int")
        placed = numbers.selectExpr(f"pmod(hash(place), {count}) shard").collect()
        assert [row.shard for row in placed] == list(range(count))
        result = self.write(table(), tmp_path / "s")
        assert len({winner.writer_info.task_attempt_id for winner in result.winners}) == 3
        assert {winner.writer_info.stage_id is None for winner in result.winners} == {False}

    def test_a_task_that_fails_is_tried_again(self, tmp_path: Path) -> None:
        """Under a number of its own."""
        marks = tmp_path / "marks"
        marks.mkdir()
        result = self.write(table(), tmp_path / "s", adapter_factory=FailsOnce(marks))
        assert [winner.attempt for winner in result.winners] == [0, 1, 0]
        assert [re.findall(r"attempt=(\d+)", winner.db_url) for winner in result.winners] == [["00"], ["01"], ["00"]]

    def test_names_with_dots_and_in_another_case(self, tmp_path: Path) -> None:
        """Which Spark takes for the same unless it is told not to."""
        rows = self.spark.sql("select 1 `user.id`, 'x' `a.b.c`, null v")
        values = [
            ("user.id", ValueSpec.binary_col("a.b.c"), b"x"),
            ("User.ID", ValueSpec.callable_encoder(lambda row: row["a.b.c"].encode()), b"x"),
            ("user.id", ValueSpec.binary_col("V"), b""),
            ("USER.id", ValueSpec.json_cols(["A.b.c"]), b'{"A.b.c":"x"}'),
        ]
        for number, (key, value, wanted) in enumerate(values):
            place = tmp_path / str(number)
            self.engine.write_hash_sharded(rows, config(place, num_dbs=1), ColumnWriteInput(key, value), self.options(progress=False))
            with reading(place, tmp_path) as reader:
                assert reader.get(1) == wanted

    def test_executors_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="$SPARK_ONLY" exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        import pyspark

        monkeypatch.setattr(self.spark.sparkContext, "pythonExec", str(python))
        monkeypatch.setitem(self.spark.sparkContext.environment, "SPARK_ONLY", str(Path(pyspark.__file__).parents[1]))
        with pytest.raises(ConfigValidationError, match="no shardyfusion or no pyarrow: install the wheel there"):
            self.write(table(3), tmp_path / "s")
        nothing_is_left(tmp_path / "s")

    def test_settings_and_caches_are_put_back(self) -> None:
        from shardyfusion.writer.spark import DataFrameCacheContext, SparkConfOverrideContext

        spark = self.spark
        known, unknown = "spark.sql.shuffle.partitions", "spark.shardyfusion.test"
        with pytest.raises(ZeroDivisionError), SparkConfOverrideContext(spark, {known: "7", unknown: "x"}):
            assert (spark.conf.get(known), spark.conf.get(unknown)) == ("7", "x")
            raise ZeroDivisionError
        assert (spark.conf.get(known), spark.conf.get(unknown, None)) == ("2", None)
        rows = spark.range(3)
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

    def test_a_process_that_always_dies(self, tmp_path: Path) -> None:
        with pytest.raises(ShardWriteError, match=r"Spark gave up on a task: (.|\n)*failed 2 times"):
            self.write(table(3), tmp_path / "s", ColumnWriteInput("id", ValueSpec.callable_encoder(die)))
        nothing_is_left(tmp_path / "s")
