"""Snapshots in local files: what is left of writes, and who may have a hand in what is kept on disk."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import stat
import time
from pathlib import Path

import pytest

from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, HashShardedWriteConfig, PythonRecordInput, ShardedReader
from shardyfusion.config import PublishChecks, PythonWriteOptions
from shardyfusion.errors import DbAdapterError, ShardyfusionError
from shardyfusion.sqlite_adapter import SqliteFactory
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


def test_a_writer_names_the_folder_in_its_way(tmp_path: Path) -> None:
    config = HashShardedWriteConfig(num_dbs=1, s3_prefix=(tmp_path / "p").as_uri())
    (tmp_path / "file").write_text("")
    config.output.local_root = str(tmp_path / "file" / "below")
    for factory in (None, SqliteFactory()):
        config.kv.adapter_factory = factory
        with pytest.raises(DbAdapterError, match="output.local_root") as caught:
            write_hash_sharded([(1, b"v")], config, INPUT)
        assert f"can make nothing in {tmp_path / 'file'} (owner {os.geteuid()}, " in str(caught.value)


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


def sqlite_snapshot(folder: Path) -> str:
    """A shard whose one value is easily found in its file."""
    prefix = folder.as_uri()
    write_hash_sharded(
        [(1, b"good of 5")], HashShardedWriteConfig(num_dbs=1, s3_prefix=prefix, adapter_factory=SqliteFactory()), INPUT
    )
    return prefix


def plant(copy: Path) -> None:
    data = copy.read_bytes()
    assert data.count(b"good of 5") == 1
    copy.write_bytes(data.replace(b"good of 5", b"EVIL of 5"))


@pytest.mark.parametrize("planted", ["another value", "cut short", "a link", "empty"])
def test_a_planted_copy_is_not_served(tmp_path: Path, planted: str, caplog: pytest.LogCaptureFixture) -> None:
    prefix, root = sqlite_snapshot(tmp_path / "p"), tmp_path / "root"

    def answer() -> bytes | None:
        with ShardedReader(s3_prefix=prefix, local_root=str(root)) as reader:
            return reader.get(1)

    assert answer() == b"good of 5"
    (copy,) = (root / "sqlite").iterdir()
    if planted == "another value":
        plant(copy)
    elif planted == "a link":
        copy.rename(tmp_path / "elsewhere")
        plant(tmp_path / "elsewhere")
        copy.symlink_to(tmp_path / "elsewhere")
    else:
        os.truncate(copy, 4096 if planted == "cut short" else 0)
    with caplog.at_level(logging.WARNING, "shardyfusion.storage"):
        assert answer() == b"good of 5"
        for _ in range(1000):  # the main thread tells it when it comes by
            if caplog.records:
                break
            time.sleep(0.01)
    (warning,) = [record for record in caplog.records if record.name == "shardyfusion.storage"]
    assert copy.name in str(vars(warning)), vars(warning)
    caplog.clear()
    assert answer() == b"good of 5"
    assert b"good of 5" in copy.read_bytes()
    assert not copy.is_symlink()
    assert not caplog.records


def test_a_copy_that_cannot_be_written_names_its_shard(tmp_path: Path) -> None:
    prefix = sqlite_snapshot(tmp_path / "p")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(DbAdapterError) as caught:
            ShardedReader(s3_prefix=prefix, local_root=str(tmp_path / "local")).close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    text = str(caught.value)
    assert text.startswith(f"open {prefix}/shards/") and "/shard.db: copy of shard.db: write " in text
    assert str(tmp_path / "local" / "sqlite") in text


def test_a_folder_that_others_may_replace_is_refused(tmp_path: Path) -> None:
    prefix, shared = sqlite_snapshot(tmp_path / "p"), tmp_path / "shared"
    shared.mkdir()
    for root in (shared, shared / "mine"):
        shared.chmod(0o777)
        with pytest.raises(DbAdapterError, match="others may replace what lies in the folder") as caught:
            ShardedReader(s3_prefix=prefix, local_root=str(root)).close()
        assert isinstance(caught.value, PermissionError)
        assert str(shared) in str(caught.value)
        assert "mode 0777" in str(caught.value)
        shared.chmod(0o1777)
        with ShardedReader(s3_prefix=prefix, local_root=str(root)) as reader:
            assert reader.get(1) == b"good of 5"
