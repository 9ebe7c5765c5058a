"""What every batch engine must do with the same rows, as tests of a class: the file of an engine says how it is asked."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fixtures import ROOT
from test_engine_tasks import CEL, files, nothing_is_left, shout, table

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, fault_server  # noqa: E402
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
from shardyfusion.config import ArrowRecordInput, ColumnWriteInput, PythonWriteOptions, SingleDbWriteOptions  # noqa: E402
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.errors import RowError, WriteCancelledError  # noqa: E402
from shardyfusion.maintenance import cleanup  # noqa: E402
from shardyfusion.routing import xxh3_db_id  # noqa: E402
from shardyfusion.sqlite_adapter import SqliteFactory  # noqa: E402
from shardyfusion.testing import file_backed_adapter_factory, file_backed_load_db  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded as write_plain  # noqa: E402

BINARY = ColumnWriteInput("id", ValueSpec.binary_col("v"))
ROWS = 3000


def workers_find_what_tests_import() -> None:
    paths = [str(ROOT / "tests" / "python"), *(path for path in sys.path if path)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def config(place: Path, kind: Any = HashShardedWriteConfig, **more: Any) -> Any:
    if kind is HashShardedWriteConfig:
        more.setdefault("num_dbs", 3)
    more.setdefault("output", WriterOutputConfig(local_root=str(place.parent / "work")))
    return kind(s3_prefix=place.as_uri(), **more)


@contextmanager
def reading(place: str | Path, folder: Path, **access: Any) -> Iterator[ShardedReader]:
    prefix = place.as_uri() if isinstance(place, Path) else place
    with ShardedReader(s3_prefix=prefix, local_root=str(folder / "r"), **access) as reader:
        yield reader


def dies_once(marks: Path, row: Any) -> bytes:
    mark = marks / "died"
    if row["id"] == 1500 and not mark.exists():
        mark.touch()
        os._exit(3)
    return bytes(row["v"])


class DiesOnce:
    """An encoder, which pickles."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def __call__(self, row: Any) -> bytes:
        return dies_once(self.marks, row)


class KilledOnce:
    """A factory of adapters, which pickles. Where the first adapter for shard 1 has some rows, the process is killed."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks
        self.factory = file_backed_adapter_factory(str(marks))

    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        mark = self.marks / "killed"
        adapter = self.factory(db_url=db_url, local_dir=local_dir)
        if "db=00001" in db_url and not mark.exists():
            mark.touch()
            adapter.flush = lambda: os.kill(os.getpid(), signal.SIGKILL)
        return adapter


class Slow:
    """The same, whose adapters take 10 ms for a row."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks
        self.factory = file_backed_adapter_factory(str(marks))

    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        adapter = self.factory(db_url=db_url, local_dir=local_dir)

        def write_batch(pairs: Any) -> None:
            (self.marks / "began").touch()
            time.sleep(0.01)

        adapter.write_batch = write_batch
        return adapter


def the_real_slatedb_reads(result: Any, rows: dict[int, bytes], folder: Path) -> None:
    """Its own wheel, every row of every shard."""
    cases = []
    for winner in result.winners:
        mine = [(n.to_bytes(8, "big"), value) for n, value in rows.items() if xxh3_db_id(n, len(result.winners)) == winner.db_id]
        file = folder / f"{winner.db_id}.rows"
        file.write_bytes(b"".join(struct.pack("<II", len(key), len(value)) + key + value for key, value in sorted(mine)))
        case = {"name": str(winner.db_id), "path": winner.db_url.removeprefix("file://"), "absent": [], "rows": str(file)}
        cases.append({**case, "checkpoint": str(uuid.UUID(winner.checkpoint_id))})
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/interop/read_shards.py"), "checkpoint"],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".cache" / "slatedb-0.13.1")},
        input=json.dumps(cases), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def set_when_there(mark: Path, event: threading.Event) -> None:
    while not mark.exists() and not event.wait(0.02):
        pass
    event.set()


def die(row: Any) -> bytes:
    os._exit(3)


def described(row: Any) -> bytes:
    return f"{row['id']} {row['country']} {sorted(row)}".encode()


def refuses_sevens(row: Any) -> bytes:
    if row["id"] % 7 == 0:
        raise ValueError("no sevens")
    return b"%d" % row["id"]


class EngineCases:
    """`self.engine`: a module of shardyfusion.writer; `self.rows(table)`: as the engine has them."""

    name: str  # "dask"
    package: str | None = None  # which is called like the engine unless told
    missing_key: type[Exception]
    described: Any = staticmethod(described)

    def rows(self, data: Any) -> Any:
        raise NotImplementedError

    def options(self, **more: Any) -> Any:
        raise NotImplementedError

    @property
    def engine(self) -> Any:
        import importlib

        return importlib.import_module(f"shardyfusion.writer.{self.name}")

    def write(self, data: Any, place: Path, input: ColumnWriteInput = BINARY, **more: Any) -> Any:
        return self.engine.write_hash_sharded(self.rows(data), config(place, **more), input, self.options(progress=False))

    def test_the_same_shards_as_from_plain_arrow(self, tmp_path: Path) -> None:
        result = self.write(table(), tmp_path / "engine")
        assert (result.stats.rows_written, result.stats.num_winners) == (ROWS, 3)
        write_plain(table(), config(tmp_path / "plain"), ArrowRecordInput("id", "v"), PythonWriteOptions(progress=False))
        mine, theirs = (
            sorted(data for name, data in files(tmp_path / way / "shards").items() if name.endswith(".sst")) for way in ("engine", "plain")
        )
        assert mine == theirs
        the_real_slatedb_reads(result, {n: b"value %d" % n for n in range(ROWS)}, tmp_path)
        with reading(tmp_path / "engine", tmp_path) as reader:
            assert reader.multi_get(list(range(0, ROWS, 9))) == {n: b"value %d" % n for n in range(0, ROWS, 9)}
        assert not any(path.is_file() for path in (tmp_path / "work").rglob("*"))

    def test_a_real_s3_server(self, tmp_path: Path) -> None:
        """Which first refuses some uploads, then all of one shard's."""
        with s3_server(None) as server, fault_server(server.endpoint) as front:
            access: dict[str, Any] = {
                "credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
                "s3_connection_options": {"endpoint_url": front.endpoint, "region_name": REGION},
            }

            def write(backend: str, factory: Any) -> str:
                prefix = f"s3://scratch/{self.name}/{backend}"
                there = HashShardedWriteConfig(s3_prefix=prefix, num_dbs=2, adapter_factory=factory, **access)
                self.engine.write_hash_sharded(self.rows(table()), there, BINARY)
                return prefix

            for backend, factory in (("slatedb", None), ("sqlite", SqliteFactory())):
                front.plan(Fault(match=f"PUT /scratch/{self.name}/{backend}/shards/", status=503, times=3))
                prefix = write(backend, factory)
                assert sum(one["fault"] == 0 for one in front.log()["requests"]) == 3
                with reading(prefix, tmp_path, **access) as reader:
                    assert reader.get(2999) == b"value 2999" and reader.get(3000) is None
            front.plan(Fault(match="db%3D00001/", status=403, code="AccessDenied", times=-1))
            with pytest.raises(ShardWriteError, match=r"Shard write failed for db_id=1, attempt=\d+: .*(403|AccessDenied)"):
                write("refused", None)
            nothing_is_left(server.folder / "scratch" / self.name / "refused")

    def test_max_keys_per_shard_and_encoders(self, tmp_path: Path) -> None:
        input = ColumnWriteInput("id", ValueSpec.callable_encoder(self.described))
        result = self.write(table(), tmp_path / "s", input, num_dbs=None, max_keys_per_shard=1600)
        assert [winner.db_id for winner in result.winners] == [0, 1]
        with reading(tmp_path / "s", tmp_path) as reader:
            assert reader.get(4) == b"4 fr ['country', 'id', 'v']"

    def test_cel(self, tmp_path: Path) -> None:
        flat, shards = CEL["inferred"]  # which takes all that an engine must do; the others are those of test_engine_tasks.py
        there = config(tmp_path / "s", CelShardedWriteConfig, **flat)
        result = self.engine.write_cel_sharded(self.rows(table()), there, BINARY, self.options(progress=False))
        assert result.stats.rows_written == ROWS
        with reading(tmp_path / "s", tmp_path) as reader:
            assert reader.snapshot_info().num_dbs == shards
            assert reader.get(7, routing_context={"id": 7, "country": "fr"}) == b"value 7"

    def test_one_shard(self, tmp_path: Path) -> None:
        result = self.engine.write_single_db(self.rows(table()), config(tmp_path / "s", SingleDbWriteConfig), BINARY)
        assert [(w.db_id, w.row_count, w.min_key, w.max_key) for w in result.winners] == [(0, ROWS, 0, ROWS - 1)]
        with reading(tmp_path / "s", tmp_path) as reader:
            assert reader.get(77) == b"value 77"

    def test_adapters_of_the_callers(self, tmp_path: Path) -> None:
        factory = file_backed_adapter_factory(str(tmp_path / "files"))
        wanted = {n.to_bytes(8, "big"): b"value %d" % n for n in range(ROWS)}
        backwards = table().take(pa.array(range(ROWS - 1, -1, -1)))
        many = self.write(backwards, tmp_path / "many", adapter_factory=factory)
        single = config(tmp_path / "one", SingleDbWriteConfig, adapter_factory=factory)
        one = self.engine.write_single_db(self.rows(backwards), single, BINARY, SingleDbWriteOptions(num_partitions=2))
        for result in (many, one):
            stored: dict[bytes, bytes] = {}
            for winner in result.winners:
                stored |= file_backed_load_db(str(tmp_path / "files"), winner.db_url)
            assert stored == wanted
        assert list(file_backed_load_db(str(tmp_path / "files"), one.winners[0].db_url)) == sorted(wanted), "in the order of keys"

    def test_a_process_that_dies_is_tried_again(self, tmp_path: Path) -> None:
        (tmp_path / "marks").mkdir()
        encoder = ValueSpec.callable_encoder(DiesOnce(tmp_path / "marks"))
        result = self.write(table(), tmp_path / "s", ColumnWriteInput("id", encoder))
        assert (tmp_path / "marks" / "died").exists() and result.stats.rows_written == ROWS
        with reading(tmp_path / "s", tmp_path) as reader:
            assert reader.get(1500) == b"value 1500"
        assert not cleanup((tmp_path / "s").as_uri(), min_age=timedelta(0)).leftovers

    def test_a_process_that_is_killed_while_it_builds(self, tmp_path: Path) -> None:
        """By its number. What it routed is routed again, what it began to store is deleted."""
        (tmp_path / "marks").mkdir()
        result = self.write(table(), tmp_path / "s", adapter_factory=KilledOnce(tmp_path / "marks"), batch_size=100)
        assert (tmp_path / "marks" / "killed").exists() and result.stats.rows_written == ROWS
        stored: dict[bytes, bytes] = {}
        for winner in result.winners:
            stored |= file_backed_load_db(str(tmp_path / "marks"), winner.db_url)
        assert stored == {n.to_bytes(8, "big"): b"value %d" % n for n in range(ROWS)}

    def test_a_cancelled_write(self, tmp_path: Path) -> None:
        """Its tasks end, too: each row would take a while."""
        (tmp_path / "marks").mkdir()
        cancel = threading.Event()
        watch = threading.Thread(target=set_when_there, args=(tmp_path / "marks" / "began", cancel))
        watch.start()
        try:
            with pytest.raises(WriteCancelledError):
                self.engine.write_hash_sharded(
                    self.rows(table()), config(tmp_path / "s", adapter_factory=Slow(tmp_path / "marks"), batch_size=1), BINARY,
                    self.options(progress=False, cancel=cancel),
                )  # fmt: skip
        finally:
            cancel.set()
            watch.join()
        assert (tmp_path / "marks" / "began").exists()
        nothing_is_left(tmp_path / "s")

    @pytest.mark.parametrize(
        ("columns", "input", "error", "text"),
        [
            ({"id": pa.array([None], pa.int64()), "v": [b"x"]}, BINARY, (RowError, ConfigValidationError), "the key is null|column 'id' has type"),
            (
                {"id": [5]}, ColumnWriteInput("id", ValueSpec.callable_encoder(shout)), ShardWriteError,
                r"Shard write failed for db_id=\d, attempt=\d: .*partition \d, row 1\)",
            ),
        ],
    )  # fmt: skip
    def test_bad_input(self, tmp_path: Path, columns: Any, input: Any, error: Any, text: str) -> None:
        with pytest.raises(error, match=text):
            self.write(pa.table(columns), tmp_path / "s", input)
        nothing_is_left(tmp_path / "s")

    def test_bad_rows_are_left_out(self, tmp_path: Path) -> None:
        data = pa.table({"id": pa.array([*range(300), -5, *range(300, 310)], pa.int64()), "v": [b"v"] * 311})
        input, skip = ColumnWriteInput("id", ValueSpec.callable_encoder(refuses_sevens)), self.options(progress=False, on_bad_row="skip")
        single = SingleDbWriteOptions(progress=False, on_bad_row="skip")
        for result in (
            self.engine.write_hash_sharded(self.rows(data), config(tmp_path / "many"), input, skip),
            self.engine.write_single_db(self.rows(data), config(tmp_path / "one", SingleDbWriteConfig), input, single),
        ):
            assert (result.stats.rows_written, result.stats.bad_rows) == (310 - 45, 46)
        for name in ("many", "one"):
            with reading(tmp_path / name, tmp_path / name) as reader:
                assert set(reader.multi_get(list(range(310))).items()) == {(n, b"%d" % n if n % 7 else None) for n in range(310)}

    def test_a_missing_key_column_is_the_engines_own_error(self, tmp_path: Path) -> None:
        with pytest.raises(self.missing_key, match="id"):
            self.write(pa.table({"v": [b"x"]}), tmp_path / "s")
        nothing_is_left(tmp_path / "s")

    def test_the_program_of_the_page(self, tmp_path: Path) -> None:
        """docs/engines.md, as it stands there, but for the places."""
        from pyarrow import parquet

        text = (ROOT / "docs" / "engines.md").read_text()
        (program,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"writer.{self.name}" in code)
        (tmp_path / "users").mkdir()
        parquet.write_table(table().rename_columns(["user_id", "profile", "country"]), tmp_path / "users" / "0.parquet")
        program = program.replace("s3://lake/users/", str(tmp_path / "users")).replace("s3://bucket/users", (tmp_path / "s").as_uri())
        exec(compile(program, "docs/engines.md", "exec"), {"__name__": "__main__"})
        with reading(tmp_path / "s", tmp_path) as reader:
            assert reader.get(4) == b"value 4"

    def test_without_the_engine_the_extra_is_named(self) -> None:
        package = self.package or self.name
        code = (
            f"import sys\nimport importlib.util as u\nfind = u.find_spec\n"
            f"u.find_spec = lambda name, *a: None if name == '{package}' else find(name, *a)\nimport shardyfusion.writer.{self.name}"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        wanted = f"shardyfusion.writer.{self.name} needs {package}: pip install 'shardyfusion[writer-{self.name}]'"
        assert wanted in done.stderr
