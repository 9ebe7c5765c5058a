"""Manifests made to do harm: an exception of the contract, in time and memory that fit their size."""

from __future__ import annotations

import glob
import json
import shutil
import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from shardyfusion import AsyncShardedReader
from shardyfusion.errors import ManifestParseError
from shardyfusion.manifest_store import parse_manifest_payload

SNAPSHOT = Path(__file__).resolve().parents[2] / "examples" / "snapshot"

_COLUMNS = "db_id, db_url, attempt, row_count, db_bytes, min_key, max_key, checkpoint_id, writer_info"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"

HOSTILE = {
    "more shards than memory": ["UPDATE build_meta SET num_dbs = 2147483648"],
    "more shards than numbers": ["UPDATE build_meta SET num_dbs = 9223372036854775807"],
    "shards without end": [
        "ALTER TABLE shards RENAME TO s2",
        f"CREATE VIEW shards AS {ENDLESS} SELECT x AS db_id, NULL AS db_url, 0 AS attempt, 0 AS row_count, "
        "0 AS db_bytes, NULL AS min_key, NULL AS max_key, NULL AS checkpoint_id, NULL AS writer_info FROM c",
    ],
    "a head that never comes": [
        "ALTER TABLE build_meta RENAME TO b2",
        f"CREATE VIEW build_meta AS {ENDLESS} SELECT b2.* FROM b2, c WHERE c.x < 0",
    ],
    "shards times shards": [
        "ALTER TABLE shards RENAME TO s2",
        f"CREATE VIEW shards AS SELECT a.* FROM {', '.join(f's2 {name}' for name in 'abcdefghijkl')}",
    ],
    "texts from nothing": [
        "ALTER TABLE shards RENAME TO s2",
        f"CREATE VIEW shards AS SELECT {_COLUMNS.replace('db_url', 'printf(char(37, 46, 42, 99), 900000000, 1) db_url')} "
        "FROM s2",
    ],
    "JSON without bottom": ["UPDATE build_meta SET custom = '" + '{"a":' * 100_000 + "'"],
    "keys without bottom": ["UPDATE shards SET min_key = '" + "[" * 100_000 + "'"],
}


def damaged(folder: Path, statements: list[str]) -> Path:
    copy = folder / "snapshot"
    shutil.copytree(SNAPSHOT, copy)
    con = sqlite3.connect(_manifest(copy))
    for statement in statements:
        con.execute(statement)
    con.commit()
    con.close()
    return copy


def _manifest(copy: Path) -> str:
    return glob.glob(f"{copy}/manifests/*/manifest")[0]


@pytest.mark.parametrize("name", HOSTILE)
async def test_refused(name, tmp_path):
    copy = damaged(tmp_path, HOSTILE[name])
    payload = Path(_manifest(copy)).read_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(ManifestParseError):
            parse_manifest_payload(payload)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    for options in ({}, {"lazy_open": True}):
        with pytest.raises(ManifestParseError):
            await AsyncShardedReader.open(
                s3_prefix=str(copy), local_root=str(tmp_path), max_fallback_attempts=0, **options
            )


def test_duplicates_are_found_in_one_pass(tmp_path):
    copy = damaged(
        tmp_path,
        [
            "UPDATE build_meta SET num_dbs = 1000000",
            "CREATE TABLE s2 AS SELECT * FROM shards",
            "DROP TABLE shards",
            "CREATE TABLE shards AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 40000) "
            "SELECT c.x / 2 AS db_id, attempt, NULL AS db_url, 0 AS row_count, db_bytes, NULL AS min_key, "
            "NULL AS max_key, NULL AS checkpoint_id, writer_info FROM c, (SELECT * FROM s2 LIMIT 1)",
        ],
    )
    with pytest.raises(ManifestParseError, match="duplicate shard db_ids"):
        parse_manifest_payload(Path(_manifest(copy)).read_bytes())


@pytest.mark.parametrize("lazy", [False, True])
async def test_empty_shards_cost_next_to_nothing(lazy, tmp_path):
    copy = damaged(tmp_path, ["UPDATE build_meta SET num_dbs = 100000"])
    tracemalloc.start()
    try:
        async with AsyncShardedReader.open(s3_prefix=str(copy), local_root=str(tmp_path), lazy_open=lazy) as reader:
            assert reader.snapshot_info().num_dbs == 100_000
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
async def test_a_time_outside_the_calendar(when, tmp_path):
    copy = damaged(tmp_path, [f"UPDATE build_meta SET created_at = '{when}'"])
    with pytest.raises(ManifestParseError, match="created_at"):
        await AsyncShardedReader.open(s3_prefix=str(copy), local_root=str(tmp_path), max_fallback_attempts=0)


@pytest.mark.parametrize(
    "url", ["http://host/x", "ftp://x", "s3://", "", "s3:///x", "s3://a b/c", "s3://evil.example#/x", "file://host/x"]
)
async def test_shard_locations_that_are_none(url, tmp_path):
    copy = damaged(tmp_path, [f"UPDATE shards SET db_url = '{url}' WHERE db_url IS NOT NULL"])
    with pytest.raises(ManifestParseError):
        await AsyncShardedReader.open(s3_prefix=str(copy), local_root=str(tmp_path), max_fallback_attempts=0)


async def test_a_pointer_of_megabytes(tmp_path):
    copy = damaged(tmp_path, [])
    pointer = json.loads((copy / "_CURRENT").read_text())
    (copy / "_CURRENT").write_text(json.dumps(pointer | {"run_id": "x" * 10_000_000}))
    with pytest.raises(ManifestParseError, match="_CURRENT"):
        await AsyncShardedReader.open(s3_prefix=str(copy), local_root=str(tmp_path))
