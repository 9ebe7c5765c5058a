"""Every golden snapshot over local files, through each way that a reader can be put together."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures import CASES, OPENING, SQLITE, Case, case, typed
from plugged import Limiter

from shardyfusion import AsyncShardedReader, ConfigValidationError, DbAdapterError, ReaderStateError, ShardedReader
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory
from shardyfusion.testing import ListMetricsCollector


class OwnFactory(AsyncSlateDbReaderFactory):
    """A subclass may do anything, so the reader puts the snapshot together in Python."""


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "engine": dict,
    "engine, with a collector": lambda: {"metrics_collector": ListMetricsCollector()},
    "engine, with a limiter": lambda: {"rate_limiter": Limiter()},
    "factory": lambda: {"reader_factory": OwnFactory(), "max_concurrency": 2},
    "lazy": lambda: {"lazy_open": True},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAYS[request.param]()


def place(ref: str) -> str:
    """What a reference says below its prefix: found by listing, it names the copy, else the place of publishing."""
    return ref[ref.rindex("/manifests/") :]


def opening(c: Case, tmp_path: Path, **options: Any) -> Any:
    return AsyncShardedReader.open(s3_prefix=c.prefix, local_root=str(tmp_path), **options)


@pytest.mark.parametrize("c", OPENING, ids=lambda c: c.name)
async def test_every_look_up(c: Case, way: dict[str, Any], tmp_path: Path) -> None:
    async with opening(c, tmp_path, **way) as reader:
        found = await reader.multi_get([key for key, _, _ in c.lookups])
        assert found == {key: value for key, _, value in c.lookups}
        assert {type(value) for value in found.values()} <= {bytes, type(None)}
        for key, db_id, value in random.Random(1).sample(c.lookups, min(200, len(c.lookups))):
            assert await reader.get(key) == value, key
            assert reader.route_key(key) == db_id
            assert reader.shard_for_key(key).db_id == db_id
            async with reader.reader_for_key(key) as handle:
                assert await handle.get(reader.encode_key(key)) == value
                assert await handle.reader.get(reader.encode_key(key)) == value


@pytest.mark.parametrize("c", OPENING, ids=lambda c: c.name)
async def test_info_and_shards(c: Case, way: dict[str, Any], tmp_path: Path) -> None:
    expected = c.expected["snapshot_info"]
    async with opening(c, tmp_path, **way) as reader:
        info = reader.snapshot_info()
        if not c.expected["open"]["fallback"]:
            assert info.manifest_ref == expected["manifest_ref"]
        assert {
            **expected,
            "created_at": datetime.fromisoformat(expected["created_at"]),
            "manifest_ref": place(expected["manifest_ref"]),
        } == {
            "run_id": info.run_id,
            "num_dbs": info.num_dbs,
            "sharding": info.sharding,
            "created_at": info.created_at,
            "manifest_ref": place(info.manifest_ref),
            "row_count": info.row_count,
            "key_encoding": info.key_encoding,
            "hash_algorithm": info.hash_algorithm,
        }
        assert info.created_at.tzinfo is not None
        assert reader.key_encoding == expected["key_encoding"]
        details = reader.shard_details()
        assert [d.db_id for d in details] == list(range(info.num_dbs))
        rows = {row["db_id"]: row for row in c.expected["shards"]}
        for detail in details:
            row = rows.get(detail.db_id)
            if row is None:
                assert (detail.row_count, detail.min_key, detail.max_key, detail.db_url) == (0, None, None, None)
                continue
            assert (detail.row_count, detail.db_url) == (row["row_count"], row["db_url"])
            assert detail.min_key == (row["min_key"] and typed(row["min_key"]))
            assert detail.max_key == (row["max_key"] and typed(row["max_key"]))
        metas = reader.shards_for_keys([key for key, _, _ in c.lookups])
        for meta in metas.values():
            row = rows.get(meta.db_id, {"db_url": None, "attempt": 0, "row_count": 0, "checkpoint_id": None})
            assert (meta.db_url, meta.attempt, meta.row_count, meta.checkpoint_id) == (
                row["db_url"], row["attempt"], row["row_count"], row["checkpoint_id"])
        health = reader.health()
        assert (health.status, health.num_shards, health.manifest_ref) == ("healthy", info.num_dbs, info.manifest_ref)
        assert health.fallback == c.expected["open"]["fallback"]


@pytest.mark.parametrize("c", OPENING, ids=lambda c: c.name)
async def test_scan_agrees_with_the_look_ups(c: Case, way: dict[str, Any], tmp_path: Path) -> None:
    async with opening(c, tmp_path, **way) as reader:
        expected = sorted((reader.encode_key(k), v) for k, _, v in c.lookups if v is not None)
        assert [row async for row in reader.scan()] == expected
        assert [row async for row in reader.scan(reverse=True)] == expected[::-1]
        assert sorted([row async for row in reader.scan(order="shard")]) == expected
        assert [row async for row in reader.scan(limit=7)] == expected[:7]
        assert [b async for b in reader.scan(limit=100).batches(30)] == [
            expected[i : min(i + 30, 100)] for i in range(0, min(100, len(expected)), 30)]
        if len(expected) > 10:
            start, end = expected[3][0], expected[9][0]
            assert [row async for row in reader.scan(start, end)] == expected[3:9]
            assert [row async for row in reader.scan(prefix=start)] == [r for r in expected if r[0].startswith(start)]
            keys = {reader.encode_key(k): k for k, _, v in c.lookups if v is not None}
            decoded = [key async for key, _ in reader.scan(decode_keys=True)]
            assert decoded == [keys[stored] for stored, _ in expected]


@pytest.mark.parametrize("c", [c for c in OPENING if c.expected["open"]["fallback"]], ids=lambda c: c.name)
async def test_fallback_off_is_the_parse_error(c: Case, way: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:
        await opening(c, tmp_path, max_fallback_attempts=0, **way)
    assert type(caught.value).__name__ == "ManifestParseError"
    with pytest.raises(ReaderStateError, match="^No valid manifest found after fallback$"):
        await opening(c, tmp_path, max_fallback_attempts=-1, **way)


FAILING = [c for c in CASES if c.expected["open"]["outcome"] == "error" and "contract" not in c.expected]


@pytest.mark.parametrize("c", FAILING, ids=lambda c: c.name)
async def test_openings_that_fail(c: Case, way: dict[str, Any], tmp_path: Path) -> None:
    wanted = {c.expected["open"]["error"]["class"], c.expected.get("contract_error")} - {None}
    with pytest.raises(Exception) as caught:
        await opening(c, tmp_path, **way)
    assert wanted <= {cls.__name__ for cls in type(caught.value).__mro__}


async def test_budget_of_the_fallback(way: dict[str, Any], tmp_path: Path) -> None:
    c = case("fallback-exhausted")
    async with opening(c, tmp_path, max_fallback_attempts=4, **way) as reader:
        wanted = c.expected["open_with_max_fallback_attempts_4"]["manifest_ref"]
        assert place(reader.snapshot_info().manifest_ref) == place(wanted)


async def test_impossible_date_among_the_names(way: dict[str, Any], tmp_path: Path) -> None:
    c = case("stray-impossible-date")
    async with opening(c, tmp_path, **way) as reader:
        assert place(reader.snapshot_info().manifest_ref) == place(c.expected["contract"]["manifest_ref"])
        assert await reader.multi_get([k for k, _, _ in c.lookups]) == {k: v for k, _, v in c.lookups}


@pytest.mark.parametrize("c", SQLITE, ids=lambda c: c.name)
async def test_sqlite_snapshots_without_a_factory(c: Case, tmp_path: Path) -> None:
    """The snapshot says what its shards are; the second reader finds the copies of the first."""
    expected = {key: value for key, _, value in c.lookups}
    for _ in range(2):
        async with opening(c, tmp_path) as reader:
            assert await reader.multi_get(list(expected)) == expected
            key = next(iter(expected))
            assert await reader.get(key) == expected[key]
    copies = sorted((tmp_path / "sqlite").iterdir())
    assert len(copies) == len(c.expected["shards"])
    with ShardedReader(s3_prefix=c.prefix, local_root=str(tmp_path)) as sync:
        assert sync.multi_get(list(expected)) == expected
        rows = sorted((sync.encode_key(key), value) for key, value in expected.items() if value is not None)
        assert list(sync.scan()) == rows
    assert sorted((tmp_path / "sqlite").iterdir()) == copies


OTHER_BACKEND = [c for c in CASES if c.expected["backend"] == "sqlite" and c.expected["open"]["outcome"] == "ok"]


@pytest.mark.parametrize("c", OTHER_BACKEND, ids=lambda c: c.name)
async def test_snapshots_of_another_backend_than_the_factory(c: Case, tmp_path: Path) -> None:
    with pytest.raises((ConfigValidationError, DbAdapterError)) as caught:
        await opening(c, tmp_path, reader_factory=AsyncSlateDbReaderFactory())
    # nothing in an SQLite snapshot without sidecar says what its shards are, so the opening of one must
    assert "not supported" in str(caught.value) or "shards/" in str(caught.value)


async def test_history_is_followed_by_refresh(way: dict[str, Any], tmp_path: Path) -> None:
    c = case("history-three-runs")
    prefix = tmp_path / "copy"
    shutil.copytree(c.folder, prefix)
    pointer = (prefix / "_CURRENT").read_text()
    runs = c.expected["runs"]
    newest = next(run for run in runs if run["run_id"] == c.expected["current"]["run_id"])
    reader = await AsyncShardedReader.open(s3_prefix=str(prefix), local_root=str(tmp_path / "local"), **way)
    async with reader:
        assert await reader.refresh() is False
        for run in runs:
            changed = run["manifest_ref"] != reader.snapshot_info().manifest_ref
            text = pointer.replace(newest["manifest_ref"], run["manifest_ref"]).replace(newest["run_id"], run["run_id"])
            (prefix / "_CURRENT").write_text(text)
            assert await reader.refresh() is changed
            assert reader.snapshot_info().run_id == run["run_id"]
            rows = {typed(x["key"]): x["value"] and bytes.fromhex(x["value"]) for x in run["lookups"]}
            assert await reader.multi_get(list(rows)) == rows
