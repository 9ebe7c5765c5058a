"""What is published equals the golden snapshots in structure, field by field: pointer, manifest, run record, SQLite shards.

The rows of a golden snapshot are published again, once by the engine and once through a manifest store; then both object
trees are compared with the golden one, with run ids, times and identities replaced by their kind.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures import Case, case

from shardyfusion import (
    AsyncShardedReader,
    HashShardedWriteConfig,
    KeyEncoding,
    PythonRecordInput,
    PythonWriteOptions,
    S3ManifestStore,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.storage import BucketStore, ObstoreBackend
from shardyfusion.writer.python import write_hash_sharded

SLATEDB = ("slatedb-hash-u64be", "slatedb-hash-u32be", "slatedb-str-utf8", "slatedb-bytes-raw")
SQLITE = ("sqlite-hash", "sqlite-sidecar")
OURS = {"kv_backend", "content_hash"}  # members that only we add
KINDS = (
    (re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z"), "TIME"),
    (re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z"), "TIME"),
    (re.compile(r"[0-9a-f]{32}"), "HEX32"),
)


def kinds(text: str, prefix: str, run_id: str) -> str:
    text = re.sub(rf"(?<![A-Za-z0-9-]){re.escape(run_id)}(?![A-Za-z0-9-])", "RUN", text.replace(prefix, "PREFIX"))
    for pattern, kind in KINDS:
        text = pattern.sub(kind, text)
    return text


class Tree:
    """The objects of one published snapshot."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.pointer = (folder / "_CURRENT").read_text()
        self.run_id: str = json.loads(self.pointer)["run_id"]
        ref: str = json.loads(self.pointer)["manifest_ref"]
        self.manifest = (folder / ref.removeprefix(f"{prefix}/")).read_bytes()

    def kinds(self, text: str) -> str:
        return kinds(text, self.prefix, self.run_id)

    def tables(self) -> tuple[list[str], dict[str, Any], list[dict[str, Any]]]:
        con = sqlite3.connect(":memory:")
        con.deserialize(self.manifest)
        con.row_factory = sqlite3.Row
        schema = [" ".join(sql.split()) for (sql,) in con.execute("SELECT sql FROM sqlite_master ORDER BY name")]
        build = dict(con.execute("SELECT * FROM build_meta").fetchone())
        shards = [dict(row) for row in con.execute("SELECT * FROM shards ORDER BY db_id")]
        con.close()
        for row in [build, *shards]:
            for name, value in row.items():
                if isinstance(value, str):
                    row[name] = self.kinds(value)
        return schema, build, shards

    def run_record(self) -> str:
        (path,) = self.folder.glob(f"runs/*_run_id={self.run_id}_*/run.yaml")
        assert re.fullmatch(r"TIME_run_id=RUN_HEX32", self.kinds(path.parent.name))
        return self.kinds(path.read_text())


def rows_of(golden: Case) -> Iterator[tuple[Any, bytes]]:
    """All rows, with keys as the caller gives them."""
    encoding = golden.expected.get("key_encoding") or "u64be"

    def given(key: bytes) -> Any:
        return int.from_bytes(key, "big") if encoding.endswith("be") else key.decode() if encoding == "utf8" else key

    if golden.expected["backend"] == "sqlite":
        for path in sorted(golden.folder.glob("shards/*/db=*/attempt=00/shard.db")):
            con = sqlite3.connect(path)
            yield from ((given(key), value) for key, value in con.execute("SELECT k, v FROM kv"))
            con.close()
        return

    async def scan() -> list[tuple[bytes, bytes]]:
        async with await AsyncShardedReader.open(s3_prefix=golden.prefix, local_root="unused") as reader:
            return [row async for row in reader.scan()]

    yield from ((given(key), value) for key, value in asyncio.run(scan()))


def publish(golden: Case, folder: Path, how: str) -> Tree:
    _, build, _ = Tree(golden.folder, f"s3://bucket/golden/{golden.name}").tables()
    prefix = (folder / "snap").as_uri()
    store = S3ManifestStore(ObstoreBackend(BucketStore(prefix)), prefix) if how == "store" else None
    custom = json.loads(build["custom"])
    sidecar = custom.pop("sqlite_sidecar", None)
    config = HashShardedWriteConfig(
        num_dbs=build["num_dbs"],
        s3_prefix=prefix,
        key_encoding=KeyEncoding(build["key_encoding"]),
        adapter_factory=SqliteFactory(emit_sidecar=sidecar is not None) if golden.expected["backend"] == "sqlite" else None,
        manifest=WriterManifestConfig(store=store, custom_manifest_fields=custom),
        output=WriterOutputConfig(run_id="a2c75e6b62a547b288c4836033973c45", local_root=str(folder / "local")),
    )
    rows = PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1])
    write_hash_sharded(rows_of(golden), config, rows, PythonWriteOptions(progress=False))
    return Tree(folder / "snap", prefix)


@pytest.mark.parametrize("how", ["engine", "store"])
@pytest.mark.parametrize("name", [*SLATEDB, *SQLITE])
def test_published_as_the_golden_ones(name: str, how: str, tmp_path: Path) -> None:
    golden = case(name)
    theirs = Tree(golden.folder, f"s3://bucket/golden/{name}")
    ours = publish(golden, tmp_path, how)
    assert ours.kinds(ours.pointer) == theirs.kinds(theirs.pointer)
    assert ours.run_record() == theirs.run_record()

    schema, build, shards = ours.tables()
    their_schema, their_build, their_shards = theirs.tables()
    assert schema == their_schema
    custom, their_custom = json.loads(build.pop("custom")), json.loads(their_build.pop("custom"))
    assert {key: value for key, value in custom.items() if key not in OURS} == their_custom
    assert build == their_build
    assert len(shards) == len(their_shards)
    for shard, their_shard in zip(shards, their_shards, strict=True):
        info, their_info = json.loads(shard["writer_info"]), json.loads(their_shard["writer_info"])
        assert shard.pop("writer_info") == json.dumps(info, sort_keys=True), "as they write it"
        assert info.pop("opening"), "a member that only we add"
        assert {**info, "duration_ms": 0} == {**their_info, "duration_ms": 0}
        del their_shard["writer_info"]
        if golden.expected["backend"] == "slatedb":
            assert shard.pop("db_bytes") > their_shard.pop("db_bytes") == 0, "we know the size"
        else:
            shard.pop("db_bytes"), their_shard.pop("db_bytes")  # the same rows, laid out otherwise
        assert shard == their_shard


@pytest.mark.parametrize("name", SQLITE)
def test_sqlite_shards_as_the_golden_ones(name: str, tmp_path: Path) -> None:
    golden = case(name)
    ours = publish(golden, tmp_path, "engine")

    def look(folder: Path) -> dict[str, tuple[Any, ...]]:
        found = {}
        for path in sorted(folder.glob("shards/*/db=*/attempt=00/shard.db")):
            con = sqlite3.connect(path)
            found[path.parent.parent.name] = (
                " ".join(con.execute("SELECT sql FROM sqlite_master WHERE name = 'kv'").fetchone()[0].split()),
                *(con.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_size", "encoding", "auto_vacuum")),
                path.read_bytes()[18:21],
                con.execute("SELECT k, v, typeof(k), typeof(v) FROM kv").fetchall(),
                con.execute("PRAGMA integrity_check").fetchone()[0],
                (path.parent / "shard.sidecar").exists(),
            )
            con.close()
        return found

    mine, theirs = look(ours.folder), look(golden.folder)
    assert mine.keys() == theirs.keys()
    for shard in mine:
        for part, (one, other) in enumerate(zip(mine[shard], theirs[shard], strict=True)):
            assert one == other, f"{shard}, part {part}"
