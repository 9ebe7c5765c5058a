"""Publishing from a real Dask: two processes, one cluster for the whole file; and without one, in threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("dask.dataframe")
pytest.importorskip("distributed")

from engine_cases import BINARY, ROWS, EngineCases, config, die, reading, workers_find_what_tests_import  # noqa: E402
from test_engine_tasks import nothing_is_left, table  # noqa: E402

from shardyfusion import ConfigValidationError, DbAdapterError, ShardWriteError, SingleDbWriteConfig, ValueSpec  # noqa: E402
from shardyfusion.config import ColumnWriteInput, DaskWriteOptions  # noqa: E402
from shardyfusion.testing import file_backed_adapter_factory, file_backed_load_db  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # what Dask says of pandas is not ours


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    workers_find_what_tests_import()
    settings = {"distributed.scheduler.allowed-failures": 1, "dataframe.convert-string": False, "temporary-directory": str(tmp_path_factory.mktemp("dask"))}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        yield client


def frame(data: Any) -> Any:
    from dask.dataframe import from_pandas

    return from_pandas(data.to_pandas(), npartitions=3, sort=False)


class TestDask(EngineCases):
    name = "dask"
    missing_key = KeyError

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Any) -> None:
        pass

    def rows(self, data: Any) -> Any:
        return frame(data)

    def options(self, **more: Any) -> Any:
        return DaskWriteOptions(**more)

    def test_shards_without_their_key_column(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigValidationError, match=r"^Key column `id` not found in DataFrame columns: \['v'\]$"):
            self.write(table(3).select(["v"]), tmp_path / "s")

    def test_one_shard_without_its_key_column(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigValidationError, match=r"Key column `id` not found in DataFrame columns: \['v'\]"):
            self.engine.write_single_db(frame(table(3).select(["v"])), config(tmp_path / "s", SingleDbWriteConfig), BINARY)

    def test_a_process_that_always_dies(self, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last one, and it dies but once: nothing has to wait until there are new processes."""
        monkeypatch.setattr(cluster.cluster.scheduler, "allowed_failures", 0)
        with pytest.raises(ShardWriteError, match="Dask gave up on a task: "):
            self.write(table(3), tmp_path / "s", ColumnWriteInput("id", ValueSpec.callable_encoder(die)))
        nothing_is_left(tmp_path / "s")


# ---------------------------------------------------------------- in threads


@pytest.fixture
def threads() -> Iterator[None]:
    import dask

    with dask.config.set({"scheduler": "threads", "dataframe.convert-string": False}):
        yield


@pytest.mark.usefixtures("threads")
def test_a_cache_is_put_away() -> None:
    from shardyfusion.writer.dask import DaskCacheContext

    rows = frame(table(9))
    with DaskCacheContext(rows) as kept:
        assert kept is not rows and len(kept) == 9
    with DaskCacheContext(rows, enabled=False) as kept:
        assert kept is rows


def objects(*values: Any) -> Any:
    import pandas as pd

    return pd.Series(values, dtype=object)


COLUMNS: dict[str, tuple[Any, str]] = {
    "too large": (lambda: objects(1, 2**70), "partition 0: .*too large"),
    "a mixture": (lambda: objects(1, "a"), "partition 0: .*Could not convert 'a'"),
    "half a character": (lambda: objects("a", "\ud800"), "partition 0: .*surrogates"),
}


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_arrow_cannot_take(tmp_path: Path, case: str) -> None:
    import pandas as pd
    from dask.dataframe import from_pandas

    from shardyfusion.writer.dask import write_hash_sharded

    keys, text = COLUMNS[case]
    rows = from_pandas(pd.DataFrame({"id": keys(), "v": [b"x", b"y"]}), npartitions=1)
    with pytest.raises(ConfigValidationError, match=text):
        write_hash_sharded(rows, config(tmp_path / "s"), BINARY, DaskWriteOptions(progress=False))
    nothing_is_left(tmp_path / "s")


@pytest.mark.usefixtures("threads")
def test_one_shard_with_keys_of_bytes_by_an_adapter_of_the_callers(tmp_path: Path) -> None:
    """Which Dask cannot sort."""
    from shardyfusion.writer.dask import write_single_db

    factory = file_backed_adapter_factory(str(tmp_path / "files"))
    rows = pa.table({"id": [b"c", b"a", b"b"], "v": [b"3", None, b"2"]})
    there = config(tmp_path / "s", SingleDbWriteConfig, adapter_factory=factory, key_encoding="raw")
    result = write_single_db(frame(rows), there, BINARY)
    stored = file_backed_load_db(str(tmp_path / "files"), result.winners[0].db_url)
    assert list(stored.items()) == [(b"a", b""), (b"b", b"2"), (b"c", b"3")]


@pytest.mark.usefixtures("threads")
def test_without_a_cluster(tmp_path: Path) -> None:
    from shardyfusion.writer.dask import write_hash_sharded

    result = write_hash_sharded(frame(table()), config(tmp_path / "s"), BINARY, DaskWriteOptions(progress=False))
    assert (result.stats.rows_written, [winner.db_id for winner in result.winners]) == (ROWS, [0, 1, 2])
    with reading(tmp_path / "s", tmp_path) as reader:
        assert reader.get(7) == b"value 7"


@pytest.mark.usefixtures("threads")
def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    from shardyfusion.writer.dask import write_hash_sharded

    (tmp_path / "work").write_bytes(b"in the way")
    with pytest.raises(DbAdapterError, match=r"can make nothing in \S+/work .*name another folder \(output\.local_root\)"):
        write_hash_sharded(frame(table()), config(tmp_path / "s"), BINARY, DaskWriteOptions(progress=False))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("columns", [None, ["1"], []], ids=str)
def test_names_of_columns_that_are_numbers(tmp_path: Path, columns: list[str] | None) -> None:
    """They are texts in what is published, whatever of them is read."""
    import pandas as pd
    from dask.dataframe import from_pandas

    from shardyfusion.writer.dask import write_hash_sharded

    rows, spec = from_pandas(pd.DataFrame({0: [1, 2], 1: ["a", "b"]}), npartitions=2), ValueSpec.json_cols(columns)
    write_hash_sharded(rows, config(tmp_path / "s"), ColumnWriteInput("0", spec), DaskWriteOptions(progress=False))
    with reading(tmp_path / "s", tmp_path) as reader:
        assert reader.get_many([1, 2]) == [spec.encode({"0": n, "1": text}) for n, text in ((1, "a"), (2, "b"))]
