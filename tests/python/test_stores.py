"""Storage backends and manifest stores: over memory, files and a real S3 server alike."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from fixtures import FIXTURES, case
from plugged import make_manifest

sys.path.insert(0, str(FIXTURES.parent / "support"))

from s3_server import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncS3ManifestStore,
    AsyncShardedReader,
    ConfigValidationError,
    InMemoryManifestStore,
    ManifestParseError,
    S3Credentials,
    S3ManifestStore,
    SnapshotRouter,
    SqliteShardLookup,
    load_sqlite_build_meta,
)
from shardyfusion.storage import (  # noqa: E402
    AsyncMemoryBackend,
    AsyncObstoreBackend,
    BucketStore,
    MemoryBackend,
    ObstoreBackend,
    create_s3_store,
    join_s3,
    parse_s3_url,
)


@pytest.fixture(params=["memory", "files", "engine's memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, str]:
    """(blocking backend, asynchronous backend over the same objects or None, prefix)"""
    if request.param == "memory":
        return MemoryBackend(), None, "s3://bucket/some/prefix"
    if request.param == "s3":
        server = request.getfixturevalue("server")
        store = create_s3_store(
            "scratch", S3Credentials(ACCESS_KEY, SECRET_KEY),
            {"endpoint_url": server.endpoint, "region_name": REGION})
        prefix = f"s3://scratch/{request.node.name.replace('[', '-').strip(']')}"
    else:
        prefix = tmp_path.as_uri() + "/p" if request.param == "files" else f"mem://{tmp_path.name}/p"
        store = BucketStore(prefix)
    return ObstoreBackend(store), AsyncObstoreBackend(store), prefix


def test_backend(place: tuple[Any, Any, str]) -> None:
    backend, _, prefix = place
    url = f"{prefix}/run_id=1/ä b/object"
    assert backend.try_get(url) is None
    with pytest.raises(FileNotFoundError):
        backend.get(url)
    backend.put(url, b"one", "text/plain")
    assert backend.get(url) == backend.try_get(url) == b"one"
    backend.put(url, b"two", "text/plain", {})
    assert backend.get(url) == b"two"
    backend.put(f"{prefix}/run_id=10/object", b"", "text/plain")
    backend.put(f"{prefix}/object", b"x", "text/plain")
    assert backend.get(f"{prefix}/run_id=10/object") == b""
    assert backend.list_prefixes(prefix) == [f"{prefix}/run_id=1/", f"{prefix}/run_id=10/"]
    assert backend.list_prefixes(prefix + "/") == backend.list_prefixes(prefix)
    assert backend.list_prefixes(f"{prefix}/nothing") == []
    assert backend.delete_prefix(f"{prefix}/run_id=1") == 1
    assert backend.try_get(url) is None
    assert backend.try_get(f"{prefix}/run_id=10/object") == b""  # another segment
    assert backend.delete_prefix(f"{prefix}/run_id=1") == 0


async def test_async_backend(place: tuple[Any, Any, str]) -> None:
    backend, other, prefix = place
    other = other or AsyncMemoryBackend()
    url = f"{prefix}/run_id=1/object"
    assert await other.try_get(url) is None
    with pytest.raises(FileNotFoundError):
        await other.get(url)
    await other.put(url, b"one", "text/plain")
    assert await other.get(url) == b"one"
    assert await other.list_prefixes(prefix) == [f"{prefix}/run_id=1/"]
    if isinstance(other, AsyncObstoreBackend):
        assert backend.get(url) == b"one"
        assert await other.head(url) == backend.head(url) is not None
        assert await other.head(f"{prefix}/none") is None is backend.head(f"{prefix}/none")
        with pytest.raises(ConfigValidationError, match="headers"):
            await other.put(url, b"", "text/plain", {"a": "b"})
    assert await other.delete_prefix(prefix) == 1


async def test_many_objects_are_deleted(tmp_path: Path) -> None:
    backend = ObstoreBackend(BucketStore(f"mem://{tmp_path.name}/p"))
    for n in range(1100):
        backend.put(f"mem://{tmp_path.name}/p/many/{n}", b"", "text/plain")
    assert backend.delete_prefix(f"mem://{tmp_path.name}/p/many") == 1100
    assert backend.list_prefixes(f"mem://{tmp_path.name}/p") == []


def test_objects_of_another_bucket_are_not_mistaken_for_ones_own() -> None:
    backend = ObstoreBackend(create_s3_store("bucket"))
    for url in ("s3://other/key", "mem://bucket/key", "file:///bucket/key"):
        with pytest.raises(ValueError, match="does not lie in s3://bucket"):
            backend.get(url)


def test_urls() -> None:
    assert parse_s3_url("s3://bucket/a/b") == ("bucket", "a/b")
    assert parse_s3_url("s3://bucket/a/") == ("bucket", "a")
    for bad in ("http://bucket/a", "bucket/a", "s3:///a", ""):
        with pytest.raises(ValueError, match="^Invalid S3 URL: "):
            parse_s3_url(bad)
    with pytest.raises(ValueError, match="^S3 URL must include key path: s3://bucket$"):
        parse_s3_url("s3://bucket")
    assert join_s3("s3://b/p/", "/a/", "", "b") == "s3://b/p/a/b"


# ---------------------------------------------------------------- manifests


def publish(store: Any, run_id: str, **custom: Any) -> str:
    manifest = make_manifest(run_id, **custom)
    return store.publish(
        run_id=run_id, required_build=manifest.required_build, shards=manifest.shards, custom=manifest.custom)


@pytest.fixture(params=["in memory", "memory backend", "s3"])
def manifests(request: pytest.FixtureRequest) -> Any:
    if request.param == "in memory":
        return InMemoryManifestStore()
    if request.param == "memory backend":
        return S3ManifestStore(MemoryBackend(), "s3://bucket/p/")
    server = request.getfixturevalue("server")
    store = create_s3_store(
        "scratch", S3Credentials(ACCESS_KEY, SECRET_KEY), {"endpoint_url": server.endpoint, "region_name": REGION})
    return S3ManifestStore(ObstoreBackend(store), "s3://scratch/manifests of this test")


def test_manifest_store(manifests: Any) -> None:
    assert manifests.load_current() is None
    assert manifests.list_manifests() == []
    before = datetime.now(timezone.utc)
    first = publish(manifests, "run-1", note="ä")
    second = publish(manifests, "run-2")
    current = manifests.load_current()
    assert (current.ref, current.run_id) == (second, "run-2")
    assert before <= current.published_at <= datetime.now(timezone.utc)
    assert manifests.load_manifest(first).custom == {"note": "ä"}
    assert manifests.load_manifest(first).shards == make_manifest("run-1").shards
    assert [ref.ref for ref in manifests.list_manifests()] == [second, first]
    assert [ref.run_id for ref in manifests.list_manifests(limit=1)] == ["run-2"]
    manifests.set_current(first)
    assert manifests.load_current().ref == first
    assert [ref.ref for ref in manifests.list_manifests()] == [second, first]


def test_references_of_the_memory_store() -> None:
    store = InMemoryManifestStore()
    assert publish(store, "r") == "mem://manifests/run_id=r/manifest"
    with pytest.raises(KeyError):
        store.load_manifest("x")
    with pytest.raises(KeyError, match="Manifest not found: x"):
        store.set_current("x")


def test_objects_of_the_s3_store() -> None:
    backend = MemoryBackend()
    store = S3ManifestStore(backend, "s3://bucket/p/", current_pointer_key="_OTHER", manifest_name="m")
    assert (store.s3_prefix, store.manifest_name, store.current_pointer_key) == ("s3://bucket/p", "m", "_OTHER")
    ref = publish(store, "r1")
    assert ref.startswith("s3://bucket/p/manifests/") and ref.endswith("_run_id=r1/m")
    assert set(backend._objects) == {ref, "s3://bucket/p/_OTHER"}
    pointer = backend.get("s3://bucket/p/_OTHER").decode()
    assert pointer.startswith(
        '{"format_version":1,"manifest_content_type":"application/x-sqlite3","manifest_ref":"' + ref)
    with pytest.raises(ValueError, match="^Cannot extract run_id from manifest ref: s3://bucket/x$"):
        store.set_current("s3://bucket/x")
    with pytest.raises(ValueError, match="^Invalid S3 URL: nowhere$"):
        store.load_manifest("nowhere")
    backend.put("s3://bucket/p/_OTHER", b"{", "application/json")
    with pytest.raises(ManifestParseError):
        store.load_current()


async def test_what_is_published_is_read(tmp_path: Path) -> None:
    """The manifest that Python builds, read by the engine: all shards are empty, so there is nothing else to it."""
    prefix = f"mem://{tmp_path.name}/p"
    manifest = make_manifest("r1", 4, empty=(0, 1, 2, 3), note=[1])
    store = S3ManifestStore(ObstoreBackend(BucketStore(prefix)), prefix)
    ref = store.publish(
        run_id="r1", required_build=manifest.required_build, shards=[], custom=manifest.custom)
    async with AsyncShardedReader.open(s3_prefix=prefix, local_root="unused") as reader:
        info = reader.snapshot_info()
        assert (info.run_id, info.num_dbs, info.manifest_ref, info.row_count) == ("r1", 4, ref, 0)
        assert info.created_at == manifest.required_build.created_at
        assert await reader.get(1) is None
        assert await reader.multi_get([1, 2]) == {1: None, 2: None}
        assert [row async for row in reader.scan()] == []


async def test_async_store_and_reader_of_ones_own_backend() -> None:
    backend = AsyncMemoryBackend()
    store = AsyncS3ManifestStore(backend, "s3://bucket/p/")
    assert store.s3_prefix == "s3://bucket/p"
    assert await store.load_current() is None
    ref = publish(S3ManifestStore(backend._sync, "s3://bucket/p"), "r1")
    assert (await store.load_current()).ref == ref
    assert [m.ref for m in await store.list_manifests(limit=5)] == [ref]
    assert (await store.load_manifest(ref)).required_build.run_id == "r1"
    with pytest.raises(ValueError, match="^Invalid S3 URL: nowhere$"):
        await store.load_manifest("nowhere")


async def test_a_failed_load_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FileNotFoundError):
        await AsyncS3ManifestStore(AsyncMemoryBackend(), "s3://bucket/p").load_manifest("s3://bucket/p/x")
    with pytest.raises(FileNotFoundError):
        S3ManifestStore(MemoryBackend(), "s3://bucket/p").load_manifest("s3://bucket/p/x")
    logged = [r for r in caplog.records if r.message == "manifest_s3_load_failed"]
    assert [r.shardyfusion["manifest_ref"] for r in logged] == ["s3://bucket/p/x"] * 2


# ---------------------------------------------------------------- shards on demand


def test_lookup_in_an_opened_manifest() -> None:
    import sqlite3

    c = case("slatedb-empty-shard")
    con = sqlite3.connect(":memory:")
    con.deserialize(next(c.folder.glob("manifests/*/manifest")).read_bytes())
    meta, custom = load_sqlite_build_meta(con)
    assert (meta.num_dbs, custom) == (8, c.expected["custom"])
    lookup = SqliteShardLookup(con, meta.num_dbs, cache_size=2)
    for _ in range(2):
        for db_id in range(8):
            row = next((s for s in c.expected["shards"] if s["db_id"] == db_id), None)
            assert lookup.get_shard(db_id).db_url == (row and row["db_url"])
    for bad in (-1, 8):
        with pytest.raises(KeyError):
            lookup.get_shard(bad)
    router = SnapshotRouter.from_build_meta(meta, shard_lookup=lookup)
    assert router.is_lazy and router.shards == []
    for key, db_id, _ in c.lookups[:50]:
        assert router.route(key) == db_id
        assert router.get_shard(db_id).db_id == db_id
    con.close()


def test_router() -> None:
    manifest = make_manifest("r", 4, empty=(2,))
    router = SnapshotRouter(manifest.required_build, manifest.shards)
    assert [s.db_id for s in router.shards] == [0, 1, 2, 3]
    assert router.get_shard(2).db_url is None and router.get_shard(1) is manifest.shards[1]
    assert not router.is_lazy
    groups = router.group_keys(list(range(20)))
    assert sorted(key for keys in groups.values() for key in keys) == list(range(20))
    assert all(router.route(key) == db_id for db_id, keys in groups.items() for key in keys)
    assert router.group_keys_allow_missing([1]) == ({router.route_one(1): [1]}, [])
    assert router.encode_lookup_key(5) == (5).to_bytes(8, "big")
    for call in (lambda: router.route(1, routing_context={}), lambda: router.route_with_context({})):
        with pytest.raises(ValueError, match="^route_with_context requires CEL sharding strategy$"):
            call()
    for bad in (-1, 4):
        with pytest.raises(KeyError):
            router.get_shard(bad)
