"""Snapshots that name what lies outside of the prefix that their reader was given."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_cli import SHARDY

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader, SlateDbReaderFactory
from shardyfusion._engine import native
from shardyfusion.errors import ShardyfusionError
from shardyfusion.writer.python import write_hash_sharded

INPUT = PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1])


class Factory(SlateDbReaderFactory):
    """One of the caller's: the shards are not the engine's to open."""


@pytest.fixture(params=[None, Factory()], ids=["the engine", "a factory of the caller's"])
def arguments(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"local_root": str(tmp_path / "root"), "reader_factory": request.param}


def publish(folder: Path, value: bytes) -> str:
    write_hash_sharded([(1, value)], HashShardedWriteConfig(num_dbs=1, s3_prefix=folder.as_uri()), INPUT)
    return folder.as_uri()


def opened(prefix: str, arguments: dict[str, Any], **more: Any) -> bytes | None:
    with ShardedReader(s3_prefix=prefix, **arguments, **more) as reader:
        return reader.get(1)


def test_a_copy_does_not_read_where_it_came_from(tmp_path: Path, arguments: dict[str, Any]) -> None:
    original = publish(tmp_path / "original", b"theirs")
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copy = (tmp_path / "copy").as_uri()
    with pytest.raises(ShardyfusionError) as caught:
        opened(copy, arguments)
    said = str(caught.value)
    assert f"'{original}/" in said and "confine" in said and "relocate" in said and copy in said, said
    assert opened(copy, arguments, relocate=True) == b"theirs"
    assert opened(copy, arguments, confine=False) == b"theirs"
    assert opened(original, arguments, confine=True) == b"theirs"
    done = subprocess.run([SHARDY, "--current-url", f"{copy}/_CURRENT", "info"], capture_output=True, text=True)
    assert done.returncode == 1 and "is confined to that prefix" in done.stderr, done.stderr
    done = subprocess.run([SHARDY, "--no-confine", "--current-url", f"{copy}/_CURRENT", "info"], capture_output=True)
    assert done.returncode == 0


def test_a_pointer_that_leaves_by_dots(tmp_path: Path, arguments: dict[str, Any]) -> None:
    publish(tmp_path / "other", b"other")
    prefix = publish(tmp_path / "p", b"mine")
    other = json.loads((tmp_path / "other" / "_CURRENT").read_text())["manifest_ref"]
    pointer = json.loads((tmp_path / "p" / "_CURRENT").read_text())
    pointer["manifest_ref"] = other.replace(f"{tmp_path}/other/", f"{tmp_path}/p/../other/")
    (tmp_path / "p" / "_CURRENT").write_text(json.dumps(pointer))
    with pytest.raises(ShardyfusionError, match="confined"):
        opened(prefix, arguments)


@pytest.mark.parametrize(
    ("url", "prefix", "relocate", "confine", "refused"),
    [
        ("s3://b/p/shards/0", "s3://b/p", False, True, False),
        ("s3://b/other/0", "s3://b/p", False, None, False),
        ("s3://b/other/0", "s3://b/p", False, True, True),
        ("s3://c/p/shards/0", "s3://b/p", False, None, False),
        ("s3://c/p/shards/0", "s3://b/p", False, True, True),
        ("s3://c/p/shards/0", "s3://b/q", True, None, True),
        ("s3://c/p/shards/0", "s3://b/q", True, False, False),
        ("s3://b/p/shards/0", "s3://b/q", True, None, False),
        ("s3://b/pp/shards/0", "s3://b/p", False, True, True),
        ("s3://b/p/../x", "s3://b/p", False, True, True),
        ("s3://c/x", "mem://m", False, None, True),
        ("s3://c/x", "file:///d", False, None, True),
        ("file:///e/x", "file:///d", False, None, True),
        ("/d/x", "file:///d/", False, None, False),
    ],
)
def test_where_a_shard_may_lie(url: str, prefix: str, relocate: bool, confine: bool | None, refused: bool) -> None:
    published = prefix if prefix.startswith("file:") and not url.startswith("s3:") else "s3://b/p"
    if refused:
        with pytest.raises(ShardyfusionError, match="confined"):
            native.shard_location(url, published, prefix, relocate, confine)
    else:
        native.shard_location(url, published, prefix, relocate, confine)
