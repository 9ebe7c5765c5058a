"""Snapshots in local files: what is left of writes, and who may have a hand in what is kept on disk."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, HashShardedWriteConfig, PythonRecordInput, ShardedReader
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


def test_opening_makes_the_local_root(tmp_path: Path) -> None:
    prefix = (tmp_path / "p").as_uri()
    write_hash_sharded([(1, b"v")], HashShardedWriteConfig(num_dbs=1, s3_prefix=prefix), INPUT)

    async def opened(root: str) -> None:
        reader = AsyncShardedReader(s3_prefix=prefix, local_root=f"{root}-not-yet")
        assert not os.path.exists(f"{root}-not-yet")
        await reader.close()
        async with await AsyncShardedReader.open(s3_prefix=prefix, local_root=root):
            pass

    asyncio.run(opened(str(tmp_path / "a" / "root")))
    for name, cls in (("b", ShardedReader), ("c", ConcurrentShardedReader)):
        cls(s3_prefix=prefix, local_root=str(tmp_path / name / "root")).close()
    for name in ("a", "b", "c"):
        assert stat.S_IMODE((tmp_path / name / "root").stat().st_mode) == 0o700
