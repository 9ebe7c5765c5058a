"""Snapshots in local files: what is left of writes, and who may have a hand in what is kept on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardyfusion import HashShardedWriteConfig, PythonRecordInput
from shardyfusion.config import PublishChecks, PythonWriteOptions
from shardyfusion.errors import ShardyfusionError
from shardyfusion.writer.python import write_hash_sharded

INPUT = PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1])


def folders_without_files(root: Path) -> list[str]:
    return [str(Path(folder).relative_to(root)) for folder, names, files in os.walk(root) if not names and not files]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([(1, b"a"), (2, b"b"), ("x", b"c")], PythonWriteOptions()),
        ([(n, b"v" * 100) for n in range(1000)], PythonWriteOptions(checks=PublishChecks(min_rows_share=2.0))),
    ],
)
def test_a_refused_write_leaves_no_folders(tmp_path: Path, rows: list[tuple[object, bytes]], options: PythonWriteOptions) -> None:
    prefix = tmp_path / "snapshots"
    config = HashShardedWriteConfig(num_dbs=2, s3_prefix=prefix.as_uri())
    write_hash_sharded([(n, b"v") for n in range(1000)], config, INPUT)
    before = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if "runs" not in path.parts}
    with pytest.raises((ShardyfusionError, ValueError)):
        write_hash_sharded(rows, config, INPUT, options=options)
    assert folders_without_files(tmp_path) == []
    assert {str(path.relative_to(prefix)) for path in prefix.rglob("*") if "runs" not in path.parts} == before
