"""What people see while something runs, and when they look at a result in a notebook."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tqdm import tqdm

from shardyfusion import (
    AsyncShardedReader,
    BuildResult,
    ConfigValidationError,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
    ShardedReader,
    maintenance,
)
from shardyfusion.maintenance import Damage
from shardyfusion.testing import fake_adapter_factory  # noqa: F401  # programs of these tests name it
from shardyfusion.writer.python import write_hash_sharded

ROWS = PythonRecordInput[int](key_fn=lambda n: n, value_fn=lambda n: b"%d" % n)


def publish(prefix: Path, **options: Any) -> BuildResult:
    return write_hash_sharded(range(1000), HashShardedWriteConfig(num_dbs=4, s3_prefix=prefix), ROWS, PythonWriteOptions(**options))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    publish(folder)
    return folder


def ready(prefix: Path, progress: Any) -> None:
    with ShardedReader(s3_prefix=prefix, local_root=str(prefix / "cache"), residency="memory") as reader:
        reader.ready(progress=progress)


def diff_rows(prefix: Path, progress: Any) -> None:
    newest = maintenance.history(prefix)[0]
    list(maintenance.diff_rows(prefix, newest, newest, progress=progress))


TOLD: dict[str, Callable[[Path, Any], object]] = {
    "publish": lambda prefix, progress: publish(prefix / "other", progress=progress),
    "verify": lambda prefix, progress: maintenance.verify(prefix, deep=True, progress=progress),
    "diff_rows": diff_rows,
    "ready": ready,
}


@pytest.mark.parametrize("what", TOLD)
def test_a_bar_of_tqdm(what: str, prefix: Path) -> None:
    seen = io.StringIO()
    with tqdm(file=seen, unit="B", unit_scale=True) as bar:
        TOLD[what](prefix, bar)
        assert bar.total and bar.n == bar.total
    assert "100%" in seen.getvalue() and ("rows" in seen.getvalue() or "MiB" in seen.getvalue())


async def test_a_bar_of_tqdm_on_the_event_loop(prefix: Path) -> None:
    with tqdm(file=io.StringIO()) as bar:
        async with AsyncShardedReader.open(s3_prefix=prefix, local_root=str(prefix / "cache"), residency="memory") as reader:
            await reader.ready(progress=bar)
        assert bar.total and bar.n == bar.total


@pytest.mark.parametrize("what", TOLD)
def test_nobody(what: str, prefix: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No terminal, no word; nor where nobody is to be told."""
    for progress in (None, False):
        TOLD[what](prefix, progress)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("what", TOLD)
@pytest.mark.parametrize("wrong", [5, "yes", True, tqdm], ids=str)
def test_what_cannot_be_told(what: str, wrong: Any, prefix: Path) -> None:
    with pytest.raises(ConfigValidationError, match=r"progress must be callable, a bar such as tqdm\(\), False or None"):
        TOLD[what](prefix, wrong)


def on_a_terminal(program: str) -> str:
    """What a program writes there."""
    ours, theirs = pty.openpty()
    try:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", f"import test_views, pathlib\n{program}"], stdout=theirs, stderr=theirs,
            env=os.environ | {"PYTHONPATH": path}, timeout=60,
        )  # fmt: skip
        os.close(theirs)
        said = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
    assert done.returncode == 0, said
    return said


def print_changes(prefix: Path) -> None:
    newest, before, *_ = maintenance.history(prefix)
    for change in maintenance.diff_rows(prefix, before, newest, decode_keys=True):
        print(change.key)


def print_bad_rows(prefix: Path, factory: Any) -> None:
    config = HashShardedWriteConfig(num_dbs=4, s3_prefix=prefix, adapter_factory=factory)
    told = PythonWriteOptions(progress_interval=1e-9, on_bad_row=lambda bad: print(bad.record))
    write_hash_sharded([*range(9000), "one", *range(9000, 18000), "two"], config, ROWS, told)  # after the line was shown


@pytest.mark.parametrize("factory", ["None", "test_views.fake_adapter_factory"], ids=["engine", "own"])
def test_the_line_is_not_in_bad_rows_that_a_program_prints(tmp_path: Path, factory: str) -> None:
    said = on_a_terminal(f"test_views.print_bad_rows(pathlib.Path({str(tmp_path)!r}), {factory})")
    lines = [line.split("\r\x1b[K")[-1] for line in said.removesuffix("\r\n").split("\r\n")]
    assert lines[:-1] == ["one", "two"] and ": 18,000 rows, " in lines[-1]


def test_the_line_is_not_in_what_a_program_prints(tmp_path: Path) -> None:
    publish(tmp_path)
    write_hash_sharded(range(3, 1000), HashShardedWriteConfig(num_dbs=4, s3_prefix=tmp_path), ROWS, PythonWriteOptions())
    said = on_a_terminal(f"test_views.print_changes(pathlib.Path({str(tmp_path)!r}))")
    lines = [line.split("\r\x1b[K")[-1] for line in said.removesuffix("\r\n").split("\r\n")]  # as they stay there
    assert "diff: " in said and sorted(line for line in lines if not line.startswith("diff: ")) == ["0", "1", "2"]


def test_a_line_on_a_terminal(prefix: Path) -> None:
    """Each has one, which is written over until it ends."""
    said = on_a_terminal(f"for tell in test_views.TOLD.values(): tell(pathlib.Path({str(prefix)!r}), None)")
    lines = said.removesuffix("\r\n").split("\r\n")
    assert [line.split("\r\x1b[K")[-1].partition(":")[0] for line in lines] == ["done", "verify", "diff", "ready"]
    assert all(line.startswith("\r\x1b[K") and len(part) < 80 for line in lines for part in line.split("\r\x1b[K"))


class Terminal(io.StringIO):
    """One that is gone: whoever writes there is told so."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("what", TOLD)
@pytest.mark.parametrize("closed", [False, True], ids=["gone", "closed"])
def test_a_terminal_that_takes_no_more(what: str, closed: bool, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work goes on, which nobody watches."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    if closed:
        sys.stderr.close()
    TOLD[what](prefix, None)


@pytest.mark.parametrize("what", TOLD)
def test_what_can_be_called_is_called(what: str, prefix: Path) -> None:
    stand_in = Mock()  # which has the methods of a bar, too
    TOLD[what](prefix, stand_in)
    assert stand_in.call_count > 0 and stand_in.update.call_count == 0


# ------------------------------------------------------------------ notebooks


class Tables(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[list[str]] = []
        self.elements: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data

    @property
    def facts(self) -> dict[str, str]:
        return {row[0]: row[1] for row in self.cells if len(row) == 2}


def test_results_are_tables(prefix: Path) -> None:
    result = publish(prefix / "shown")
    shown = Tables(result._repr_html_())
    assert shown.facts["run_id"] == result.run_id and shown.facts["rows_written"] == "1,000"
    assert [row[0] for row in shown.cells if len(row) == 6] == ["shard", "0", "1", "2", "3"]
    assert sum(int(row[1]) for row in shown.cells if len(row) == 6 and row[0] != "shard") == 1000
    with ShardedReader(s3_prefix=prefix / "shown", local_root=str(prefix / "cache")) as reader:
        info, health = Tables(reader.snapshot_info()._repr_html_()), Tables(reader.health()._repr_html_())
    assert info.facts["num_dbs"] == "4" and info.facts["key_encoding"] == "u64be" and info.facts["sharding"] == "hash"
    assert health.facts["status"] == "healthy" and health.facts["is_closed"] == "no" and health.facts["last_refresh_error"] == ""
    report = maintenance.verify(prefix / "shown")
    assert Tables(report._repr_html_()).facts["bad"] == "0"
    broken = dataclasses.replace(report.shards[0], damages=2, first=Damage("<b>no</b> such block", None, None))
    damaged = Tables(dataclasses.replace(report, shards=(broken, *report.shards[1:]))._repr_html_())
    assert damaged.facts["bad"] == "1" and ["0", "2", "<b>no</b> such block"] in damaged.cells


def test_names_are_escaped(tmp_path: Path) -> None:
    result = dataclasses.replace(publish(tmp_path / "<script>"), run_id='<img src="x" onerror="y">&\u202e')
    with ShardedReader(s3_prefix=tmp_path / "<script>", local_root=str(tmp_path)) as reader:
        for shown in (result._repr_html_(), reader.snapshot_info()._repr_html_(), reader.health()._repr_html_()):
            tables = Tables(shown)
            assert not {"script", "img"} & tables.elements and "\u202e" not in shown
    assert Tables(result._repr_html_()).facts["run_id"].startswith('<img src="x" onerror="y">&')


def test_of_many_shards_the_first_are_shown(tmp_path: Path) -> None:
    result = publish(tmp_path)
    many = Tables(dataclasses.replace(result, winners=result.winners * 20)._repr_html_())
    assert len([row for row in many.cells if len(row) == 6]) == 51 and ["30 more"] in many.cells
