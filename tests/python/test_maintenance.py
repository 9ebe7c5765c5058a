"""History, rollback and clean-up from Python."""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from fixtures import FIXTURES, case

sys.path.insert(0, str(FIXTURES.parent / "support"))

from s3_server import ACCESS_KEY, SECRET_KEY, S3Server  # noqa: E402

from shardyfusion import ShardedReader, StaticCredentialProvider, maintenance  # noqa: E402
from shardyfusion.config import ANY  # noqa: E402
from shardyfusion.errors import ConfigValidationError, PublishConflictError, ShardyfusionError  # noqa: E402
from shardyfusion.maintenance import CleanupReport, Leftover, aio  # noqa: E402
from shardyfusion.manifest_store import S3ManifestStore  # noqa: E402
from shardyfusion.storage import MemoryBackend  # noqa: E402

CASE = case("history-three-runs")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(CASE.folder, tmp_path / "snapshot")
    return tmp_path / "snapshot"


def run_ids(place: maintenance.Place) -> list[tuple[str, bool]]:
    return [(entry.run_id, entry.is_current) for entry in maintenance.history(place)]


def served(folder: Path) -> str:
    with ShardedReader(s3_prefix=folder.as_uri(), local_root=str(folder.parent / "root")) as reader:
        return reader.snapshot_info().run_id


def test_history(copy: Path) -> None:
    assert run_ids(copy) == [("run-002", True), ("run-001", False), ("run-000", False)]
    newest, second = maintenance.history(copy, limit=2)
    assert newest.published_at > second.published_at and newest.published_at.utcoffset() == timedelta(0)
    assert newest.ref.startswith(copy.as_uri()) and newest.ref.endswith("_run_id=run-002/manifest")
    store = maintenance.manifest_store(copy)
    assert run_ids(store) == run_ids(str(copy)) == run_ids(copy.as_uri())
    assert [ref.ref for ref in store.list_manifests()] == [entry.ref for entry in maintenance.history(store)]
    (copy / "_CURRENT").rename(copy / "latest")
    assert [entry.is_current for entry in maintenance.history(copy, current_pointer_key="latest")] == [
        True,
        False,
        False,
    ]
    assert not any(current for _, current in run_ids(copy))


def test_rollback(copy: Path) -> None:
    newest, second, oldest = maintenance.history(copy)
    maintenance.rollback(copy, oldest.ref)
    assert served(copy) == "run-000"
    maintenance.rollback(maintenance.manifest_store(copy), second.ref, expected_current=oldest.ref)
    assert served(copy) == "run-001"
    for expected in (oldest.ref, None):
        with pytest.raises(PublishConflictError, match="run-001") as caught:
            maintenance.rollback(copy, newest.ref, expected_current=expected)
        assert caught.value.expected == expected and caught.value.manifest_ref == newest.ref
    shutil.rmtree(next(copy.glob("shards/run_id=run-002/db=00001")))
    with pytest.raises(FileNotFoundError, match="shard 1 of run run-002 is gone"):
        maintenance.rollback(copy, newest.ref, expected_current=ANY)
    assert served(copy) == "run-001"
    maintenance.rollback(copy, newest.ref, force=True)
    assert run_ids(copy)[0] == ("run-002", True)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_cleanup(copy: Path) -> None:
    before = files_of(copy)
    assert maintenance.cleanup(copy) == CleanupReport((), False, None)
    dry = maintenance.cleanup(copy, keep_last=1, dry_run=True)
    assert files_of(copy) == before and dry.dry_run and not any(leftover.deleted for leftover in dry.leftovers)
    assert {(leftover.kind, leftover.run_id) for leftover in dry.leftovers} == {
        (kind, run) for kind in ("manifest", "run", "run_record") for run in ("run-000", "run-001")
    }
    assert (
        not maintenance.cleanup(copy, keep_last=1, min_age=timedelta(days=36500)).leftovers and files_of(copy) == before
    )
    heard: list[Leftover] = []
    report = maintenance.cleanup(copy, older_than=timedelta(days=1), progress=heard.append)
    assert [leftover for leftover in heard if leftover.deleted] == list(report.leftovers)
    assert [leftover for leftover in heard if not leftover.deleted] == list(dry.leftovers)
    assert report.objects == dry.objects == len(before) - len(files_of(copy))
    assert (
        files_of(copy) == {name for name in before if "run-002" in name or name == "_CURRENT"}
        and served(copy) == "run-002"
    )


def test_what_progress_raises_is_raised_at_the_end(copy: Path) -> None:
    def refuse(leftover: Leftover) -> None:
        raise LookupError(leftover.kind)

    with pytest.raises(LookupError, match="manifest"):
        maintenance.cleanup(copy, keep_last=1, progress=refuse)
    assert not any("run-000" in name for name in files_of(copy))


def test_over_s3(server: S3Server) -> None:
    prefix = "s3://bucket/golden/history-three-runs"
    connection = {"endpoint_url": server.endpoint, "region_name": "us-east-1"}
    credentials = StaticCredentialProvider(ACCESS_KEY, SECRET_KEY)
    entries = maintenance.history(prefix, s3_connection_options=connection, credential_provider=credentials)
    assert [entry.run_id for entry in entries] == ["run-002", "run-001", "run-000"]
    store = maintenance.manifest_store(prefix, s3_connection_options=connection, credential_provider=credentials)
    assert maintenance.history(store) == entries
    store.set_current(entries[0].ref)  # what was put has an ETag
    maintenance.rollback(store, entries[1].ref)
    current = store.load_current()
    assert current is not None and current.ref == entries[1].ref
    assert maintenance.cleanup(store, keep_last=1).objects > 0
    assert [entry.run_id for entry in maintenance.history(store)] == ["run-002", "run-001"]


async def test_coroutines(copy: Path) -> None:
    entries = await aio.history(copy, limit=3)
    assert entries == maintenance.history(copy)
    await aio.rollback(copy, entries[1].ref)
    report = await aio.cleanup(copy, keep_last=1)
    assert {leftover.run_id for leftover in report.leftovers} == {"run-000"}
    assert asyncio.iscoroutinefunction(aio.cleanup) and aio.cleanup.__doc__ == maintenance.cleanup.__doc__


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: maintenance.history(p, limit=0), ConfigValidationError, "limit must be at least 1"),
        (lambda p: maintenance.cleanup(p, keep_last=0), ConfigValidationError, "keep_last must be at least 1"),
        (
            lambda p: maintenance.cleanup(p, older_than=timedelta(-1)),
            ConfigValidationError,
            "older_than must not be negative",
        ),
        (lambda p: maintenance.rollback(p, "nothing"), (ShardyfusionError, ValueError), "Cannot extract run_id"),
        (
            lambda p: maintenance.history(p, s3_connection_options={"endpoint": "x"}),
            ConfigValidationError,
            "endpoint_url",
        ),
        (lambda p: maintenance.history("ftp://x"), ConfigValidationError, "ftp"),
        (
            lambda p: maintenance.history(maintenance.manifest_store(p), current_pointer_key="x"),
            ConfigValidationError,
            "give them to it",
        ),
        (
            lambda p: maintenance.history(S3ManifestStore(MemoryBackend(), "s3://b/p")),
            ConfigValidationError,
            "not MemoryBackend",
        ),
        (lambda p: maintenance.history(p, timeout="x"), TypeError, "timeout"),
    ],
)
def test_wrong_arguments(call: object, error: type[Exception], text: str, copy: Path) -> None:
    with pytest.raises(error, match=text):
        call(copy)  # type: ignore[operator]
