"""Servers that are nearly S3, each with one fault for good: what is published there is read again, by every way there is."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    ConfigValidationError,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
    S3ManifestStore,
    ShardedReader,
    ShardyfusionError,
    SlateDbFactory,
    StaticCredentialProvider,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion._s3_options import engine_options  # noqa: E402
from shardyfusion.reader import AsyncAutoReaderFactory  # noqa: E402
from shardyfusion.sqlite_adapter import SqliteFactory  # noqa: E402
from shardyfusion.storage import BucketStore, ObstoreBackend, create_s3_store  # noqa: E402
from shardyfusion.writer.aio import write_hash_sharded as write_async  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

KEYS = 50
LARGE = 3 << 20  # bytes of a value: with a few of them a shard goes in parts
PROVIDER = StaticCredentialProvider(ACCESS_KEY, SECRET_KEY)


def always(**fault: Any) -> Fault:
    return Fault(times=-1, **fault)


SERVERS: dict[str, list[Fault]] = {
    "nothing": [],
    "no conditions": [always(having="if-none-match", status=501, code="NotImplemented"),
                      always(having="if-match", status=501, code="NotImplemented")],
    "no conditions, says a proxy": [always(having="if-none-match", status=501), always(having="if-match", status=501)],
    "no conditions, a bad request": [always(having="if-none-match", status=400, code="InvalidArgument")],
    "sizes are not told": [always(match="HEAD", drop="content-length"), always(match="GET", no_total=True)],
    "no HEAD": [always(match="HEAD", status=405)],
    "no tags": [always(match="HEAD", drop="etag"), always(match="GET", drop="etag")],
    "weak tags": [always(match="HEAD", weak=True), always(match="GET", weak=True)],
    "object lock": [always(match="PUT", lacking="content-md5", status=400, code="InvalidRequest")],
    "no deleting of many": [always(match="POST /scratch/?delete", status=501, code="NotImplemented")],
    "deleting of many is not allowed": [always(match="POST /scratch/?delete", status=405)],
    "deleting of many is a bad request": [always(match="POST /scratch/?delete", status=400, code="NotImplemented")],
    "the first listing only": [always(match="list-type=2", status=501, code="NotImplemented")],
    "listings in another order": [always(match="list-type=2", unsorted=True)],
    "requester pays": [always(lacking="x-amz-request-payer", status=403, code="AccessDenied")],
}


class OwnFactory:
    """An adapter factory that the engine does not know."""

    def __init__(self, factory: Callable[..., Any]) -> None:
        self.factory = factory

    def __call__(self, **arguments: Any) -> Any:
        return self.factory(**arguments)


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with s3_server() as server, fault_server(server.endpoint) as f:
        yield f


def options_of(front: Front, name: str) -> dict[str, Any]:
    paying = {"request_payer": "requester"} if name == "requester pays" else {}
    return {"endpoint_url": front.endpoint, "region_name": REGION, "max_attempts": 2, **paying}


def config_of(way: str, prefix: str, s3: dict[str, Any], local: Path, **manifest: Any) -> HashShardedWriteConfig:
    factory = (SqliteFactory if "sqlite" in way else SlateDbFactory)(credential_provider=PROVIDER, s3_connection_options=s3)
    if "own store" in way:
        backend = ObstoreBackend(create_s3_store("scratch", PROVIDER, s3))
        manifest["store"] = S3ManifestStore(backend, prefix)
    return HashShardedWriteConfig(
        num_dbs=2,
        s3_prefix=prefix,
        credential_provider=PROVIDER,
        s3_connection_options=s3,
        adapter_factory=OwnFactory(factory) if "own factory" in way else factory,
        output=WriterOutputConfig(local_root=str(local)),
        manifest=WriterManifestConfig(**manifest),
    )


def rows_of(version: int) -> PythonRecordInput:
    return PythonRecordInput(key_fn=int, value_fn=lambda n: b"%d of %d" % (n, version) + b"x" * (LARGE if n < 4 else 0))


def publish(way: str, config: HashShardedWriteConfig, version: int) -> None:
    options = PythonWriteOptions(progress=False)
    if "async" in way:
        asyncio.run(write_async(range(KEYS), config, rows_of(version), options))
    else:
        write_hash_sharded(range(KEYS), config, rows_of(version), options)


def version_there(way: str, prefix: str, s3: dict[str, Any], local: Path) -> int:
    wanted: dict[str, Any] = {"s3_prefix": prefix, "local_root": str(local), "credential_provider": PROVIDER, "s3_connection_options": s3}

    async def ask() -> dict[Any, bytes | None]:
        # opened lazily, Python opens the shards instead of the engine
        if "range" in way:
            wanted["reader_factory"] = AsyncAutoReaderFactory(
                sqlite_mode="range", credential_provider=PROVIDER, s3_connection_options=s3
            )
        async with AsyncShardedReader.open(**wanted, lazy_open="own" in way and "sqlite" not in way) as reader:
            return await reader.multi_get(list(range(KEYS)))

    if "async" in way or "own" in way:
        values = asyncio.run(ask())
    else:
        with ShardedReader(**wanted) as reader:
            values = reader.multi_get(list(range(KEYS)))
    versions = {int(value[:20].split(b"x")[0].split()[-1]) for value in values.values() if value is not None}
    assert None not in values.values() and len(versions) == 1
    return versions.pop()


WAYS = ["slatedb", "sqlite", "slatedb async", "slatedb, own factory", "sqlite, own factory", "slatedb, own store"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SERVERS)
def test_published_and_read(name: str, way: str, front: Front, tmp_path: Path) -> None:
    prefix, s3 = f"s3://scratch/{tmp_path.name}/snap", options_of(front, name)
    front.plan(*SERVERS[name])
    for version in (1, 2):
        publish(way, config_of(way, prefix, s3, tmp_path), version)
        assert version_there(way, prefix, s3, tmp_path / str(version)) == version
    backend = ObstoreBackend(create_s3_store("scratch", PROVIDER, s3))
    assert backend.delete_prefix(prefix) > 4
    assert backend.delete_prefix(prefix) == 0


@pytest.mark.parametrize("name", ["no conditions", "no conditions, a bad request", "sizes are not told", "weak tags"])
def test_read_by_ranges(name: str, front: Front, tmp_path: Path) -> None:
    prefix, s3 = f"s3://scratch/{tmp_path.name}/snap", options_of(front, name)
    front.plan()
    publish("sqlite", config_of("sqlite", prefix, s3, tmp_path), 1)
    front.plan(*SERVERS[name], always(having="if-match", status=400, code="InvalidArgument"))
    assert version_there("sqlite, async by range", prefix, s3, tmp_path) == 1


@pytest.mark.parametrize("name", ["no conditions", "no conditions, says a proxy"])
@pytest.mark.parametrize("way", ["slatedb", "sqlite", "slatedb, own store"])
def test_what_relies_on_a_condition_fails(name: str, way: str, front: Front, tmp_path: Path) -> None:
    prefix, s3 = f"s3://scratch/{tmp_path.name}/snap", options_of(front, name)
    front.plan(*SERVERS[name])
    with pytest.raises(ShardyfusionError, match="cannot compare") as caught:
        publish(way, config_of(way, prefix, s3, tmp_path, expected_current=None), 1)
    assert not isinstance(caught.value, ConfigValidationError)
    backend = ObstoreBackend(create_s3_store("scratch", PROVIDER, s3))
    assert backend.try_get(f"{prefix}/_CURRENT") is None


def test_it_is_said_once(front: Front, tmp_path: Path) -> None:
    """To those who listen to the engine; the second publish asks one store more, and no more than it has to."""
    prefix, s3 = f"s3://scratch/{tmp_path.name}/snap", options_of(front, "no conditions")
    front.plan(*SERVERS["no conditions"])
    publish("slatedb", config_of("slatedb", prefix, s3, tmp_path), 1)
    requests = front.log()["requests"]
    assert isinstance(requests, list)
    assert 0 < sum(request["fault"] is not None for request in requests) <= 4  # two stores, puts and uploads


@pytest.mark.parametrize("name", ["no deleting of many", "deleting of many is not allowed"])
def test_a_failure_of_storage_is_none_of_the_configuration(name: str, front: Front) -> None:
    """Deleting one by one is refused as well."""
    s3 = options_of(front, name)
    backend = ObstoreBackend(create_s3_store("scratch", PROVIDER, s3))
    front.plan()
    backend.put("s3://scratch/stays/a", b"1", "text/plain")
    front.plan(*SERVERS[name], always(match="DELETE", status=405, code="MethodNotAllowed"))
    with pytest.raises(ShardyfusionError, match="MethodNotAllowed") as caught:
        backend.delete_prefix("s3://scratch/stays")
    assert not isinstance(caught.value, ConfigValidationError | ValueError)


def test_every_request_says_who_pays(front: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    prefix = f"s3://scratch/{tmp_path.name}/snap"
    for s3 in (options_of(front, "requester pays"), {**options_of(front, ""), "request_payer": True}):
        front.plan()
        publish("slatedb", config_of("slatedb", prefix, s3, tmp_path), 1)
        assert version_there("slatedb", prefix, s3, tmp_path) == 1
        requests = front.log()["requests"]
        assert isinstance(requests, list) and requests
        assert {request["payer"] for request in requests} == {"requester"}


def test_the_environment_says_who_pays(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    front.plan(*SERVERS["requester pays"])
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    backend = ObstoreBackend(create_s3_store("scratch", PROVIDER, options_of(front, "")))
    backend.put("s3://scratch/payer/a", b"1", "text/plain")
    assert backend.get("s3://scratch/payer/a") == b"1"


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("options, text", [
    ({"endpoint": "http://x"}, "has no 'endpoint'; did you mean 'endpoint_url'?"),
    ({"verify": False}, "has no 'verify'; did you mean 'verify_ssl'?"),
    ({"EndpointURL": "http://x"}, "has no 'EndpointURL'; did you mean 'endpoint_url'?"),
    ({"regoin_name": "x"}, "has no 'regoin_name'; did you mean 'region_name'?"),
    ({"Endpoint_URL": "http://x"}, "has no 'Endpoint_URL'; did you mean 'endpoint_url'?"),
    ({"requester_pays": True}, "has no 'requester_pays'; did you mean 'request_payer'?"),
    ({"aws_access_key_id": "x"}, "has no 'aws_access_key_id': keys come from a credential_provider"),
    ({"zzz": 1}, "has no 'zzz'; there are "),
    ({1: 1}, "has no 1"),
    ({"endpoint_url": 5}, "['endpoint_url'] must be str, got 5"),
    ({"endpoint_url": b"http://x"}, "['endpoint_url'] must be str"),
    ({"verify_ssl": 0}, "['verify_ssl'] must be bool or str or a path, got 0"),
    ({"max_attempts": "3"}, "['max_attempts'] must be int, got '3'"),
    ({"max_attempts": True}, "['max_attempts'] must be int, got True"),
    ({"read_timeout": -1}, "['read_timeout'] must not be negative"),
    ({"read_timeout": float("nan")}, "['read_timeout'] must not be negative"),
    ({"request_payer": "me"}, "request_payer must be True, False or 'requester', got 'me'"),
    ({"region": "a", "region_name": "b"}, "both 'region_name' and 'region', which differ"),
    ([("endpoint_url", "x")], "must be a mapping or an S3Config, got list"),
])
def test_options_that_are_none(options: Any, text: str, tmp_path: Path) -> None:
    from shardyfusion.credentials import S3Credentials, materialize_env_file

    openings: list[Callable[[], Any]] = [
        lambda: create_s3_store("b", None, options),
        lambda: ShardedReader(s3_prefix="s3://b/p", local_root="unused", s3_connection_options=options),
        lambda: AsyncShardedReader(s3_prefix="s3://b/p", local_root="unused", s3_connection_options=options),
        lambda: HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://b/p", s3_connection_options=options),
        lambda: HashShardedWriteConfig(
            num_dbs=1, s3_prefix="s3://b/p", manifest=WriterManifestConfig(s3_connection_options=options)),
        lambda: materialize_env_file(S3Credentials(), connection_options=options),
    ]
    for opening in openings:
        with pytest.raises(ConfigValidationError) as caught:
            opening()
        assert text in str(caught.value)


def test_a_region_by_its_short_name(front: Front) -> None:
    front.plan()
    backend = ObstoreBackend(create_s3_store("scratch", PROVIDER, {"endpoint_url": front.endpoint, "region": REGION}))
    assert backend.try_get("s3://scratch/none") is None


# ---------------------------------------------------------------- places


def test_one_folder_by_all_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "größe 50% %41 #1?a+b=c"
    escaped = folder.as_uri()
    names: list[Any] = [
        escaped, folder, str(folder), escaped.replace("file://", "file://localhost"), escaped.replace("file://", "FILE:"),
        f"{escaped}/", f"{tmp_path}/./x/../{folder.name}",
    ]
    rows = PythonRecordInput(key_fn=int, value_fn=lambda n: b"%d" % n)
    for version, name in enumerate(names):
        config = HashShardedWriteConfig(num_dbs=2, s3_prefix=name, output=WriterOutputConfig(local_root=str(tmp_path / "tmp")))
        result = write_hash_sharded(range(version + 2), config, rows, PythonWriteOptions(progress=False))
        inside = f"file://{tmp_path}/gr%C3%B6%C3%9Fe%2050%25%20%2541%20%231%3Fa+b=c"
        assert result.manifest_ref.startswith(f"{inside}/manifests/")
        assert all(shard.db_url is not None and shard.db_url.startswith(f"{inside}/shards/") for shard in result.winners)
        for other in names:
            with ShardedReader(s3_prefix=other, local_root=str(tmp_path / "copies")) as reader:
                assert reader.get(version + 1) == b"%d" % (version + 1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("gr")) == [folder.name]


@pytest.mark.parametrize("own", ["", "own factory", "own store"])
@pytest.mark.parametrize("place", ["s3", "file", "mem"])
@pytest.mark.parametrize("name", ["a%41", "%", "100%", "a b?c#d", "a%2Fb", "größe+€"])
def test_names_that_are_no_urls(name: str, place: str, own: str, front: Front, tmp_path: Path) -> None:
    """Run ids, templates and prefixes stand in file URLs as in any URL, elsewhere as they are. Another run finds the earlier one's
    attempts, the history and the pointer name the run as it was given."""
    s3 = options_of(front, "nothing") if place == "s3" else {}
    front.plan()
    prefix = {"s3": f"s3://scratch/{tmp_path.name}/{name}", "mem": f"mem://{tmp_path.name}/{name}", "file": str(tmp_path / name)}[place]
    if own == "own store":
        store = BucketStore(prefix, engine_options(s3, PROVIDER) if s3 else None)
        manifests = S3ManifestStore(ObstoreBackend(store), prefix)
    for version in (1, 2):
        config = config_of("slatedb, own factory" if own == "own factory" else "slatedb", prefix, s3, tmp_path / "tmp")
        config = dataclasses.replace(
            config,
            output=WriterOutputConfig(run_id=name, db_path_template=f"{name}-{{db_id}}", local_root=str(tmp_path / "tmp")),
            manifest=WriterManifestConfig(store=manifests) if own == "own store" else config.manifest,
        )
        rows = PythonRecordInput(key_fn=int, value_fn=lambda n, version=version: b"%d" % version)
        result = write_hash_sharded(range(20), config, rows, PythonWriteOptions(progress=False))
        with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path / "r"), credential_provider=PROVIDER, s3_connection_options=s3) as r:
            assert r.get(7) == b"%d" % version
            assert r.snapshot_info().run_id == name
        for shard in result.winners:
            at = f"run_id={name}/{name}-{shard.db_id}/attempt=0{version - 1}"
            assert shard.db_url.endswith(quote(at, safe="/=+") if place == "file" else at)
    if own == "own store":
        refs = manifests.list_manifests()
        assert [ref.run_id for ref in refs] == [name, name]
        manifests.set_current(refs[1].ref)
        assert manifests.load_current().run_id == name
        with ShardedReader(s3_prefix=prefix, local_root=str(tmp_path / "r"), credential_provider=PROVIDER, s3_connection_options=s3) as r:
            assert r.get(7) == b"1"
    if place == "file":
        assert {path.name for path in (tmp_path / name / "shards").iterdir()} == {f"run_id={name}"}


@pytest.mark.parametrize("prefix", ["s3://bucket/x\n", "s3://bucket/x ", "\ufeffs3://bucket/x", "file:///tmp/x\r", "file:///tmp/%00x", "s3:/b/x",
                                    Path("s3://bucket/x"), "file://host/x"])
def test_places_that_are_none(prefix: Any) -> None:
    with pytest.raises(ValueError):
        ShardedReader(s3_prefix=prefix, local_root="unused")
    with pytest.raises(ConfigValidationError):
        HashShardedWriteConfig(num_dbs=1, s3_prefix=prefix)


def test_a_copied_snapshot_below_another_name(tmp_path: Path) -> None:
    """Locations inside of it are those of the place it was published to; encoded dots stay dots."""
    from shardyfusion import _native

    there = (tmp_path / "a b").as_uri()
    assert _native.shard_location("s3://b/p/x y%20z/0", "s3://b/p", there, False) == f"{there}/x%20y%2520z/0"
    assert _native.shard_location(f"{there}/x%20y/0", there, "s3://b/p", False) == "s3://b/p/x y/0"
    for hidden in ("%2e%2e/x", "x/%2E%2e", "x%2f..%2f..", "%00"):
        with pytest.raises(ShardyfusionError):
            _native.shard_location(f"file:///p/{hidden}", "file:///p", "/q", True)
    with pytest.raises(ShardyfusionError):
        _native.shard_location("FILE:///etc", "s3://b/p", "s3://b/p", False)


@pytest.mark.parametrize(("url", "prefix", "inside"), [
    ("file:///a%20b/x", "/a b", True), ("file:///a b/x", "file:///a%20b", True), ("file:///%61/x", "file:///a", True),
    ("/a%20b/x", "file:///a%20b", False), ("file:///a/%2e%2e/b", "file:///a", False), ("file:///a%2F..%2Fb", "/a", False),
    ("file:///a%2fb/x", "/a", True), ("s3://b/%61/x", "s3://b/a", False), ("s3://b/%61/x", "s3://b/%61", True),
])
def test_confined_after_decoding(url: str, prefix: str, inside: bool) -> None:
    from shardyfusion import _native

    if inside:
        assert _native.shard_location(url, prefix, prefix, False, True) == url
    else:
        with pytest.raises(PermissionError, match="is not below"):
            _native.shard_location(url, prefix, prefix, False, True)
