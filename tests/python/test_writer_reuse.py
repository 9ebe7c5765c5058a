"""Shards that are stored already are not stored again: unchanged ones, and those that an earlier try of the run finished. What is
sent is counted at a real S3 server."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    BuildResult,
    ConfigValidationError,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    ManifestStoreError,
    PublishConflictError,
    PythonRecordInput,
    PythonWriteOptions,
    ShardedReader,
    ShardyfusionError,
    StaticCredentialProvider,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.config import PublishChecks, PublishPreview  # noqa: E402
from shardyfusion.maintenance import Leftover, cleanup, history, rollback  # noqa: E402
from shardyfusion.run_registry import RunRecordLifecycle  # noqa: E402
from shardyfusion.sqlite_adapter import SqliteFactory  # noqa: E402
from shardyfusion.testing import file_backed_adapter_factory  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

KEYS, SHARDS = 200, 4
FACTORIES = {"slatedb": None, "sqlite": SqliteFactory}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as s:
        yield s


@pytest.fixture(scope="module")
def front(server: S3Server) -> Iterator[Front]:
    with fault_server(server.endpoint) as f:
        yield f


class Place:
    """Below a bucket, through a server that counts."""

    def __init__(self, front: Front, local: Path, backend: str = "slatedb") -> None:
        self.front, self.local = front, local
        self.prefix = f"s3://scratch/{local.name}/{backend}"
        self.factory = FACTORIES[backend] and FACTORIES[backend]()
        self.access: dict[str, Any] = {
            "credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
            "s3_connection_options": {"endpoint_url": front.endpoint, "region_name": REGION, "max_attempts": 1},
        }

    def publish(self, changed: int | None = None, run_id: str | None = None, **options: Any) -> BuildResult:
        config = HashShardedWriteConfig(
            num_dbs=SHARDS,
            s3_prefix=self.prefix,
            adapter_factory=self.factory,
            output=WriterOutputConfig(local_root=str(self.local), run_id=run_id),
            **self.access,
        )
        rows = PythonRecordInput(key_fn=int, value_fn=lambda n: b"changed" if n == changed else b"%d" % n)
        options = {"progress": False, "workers": 1, **options}
        return write_hash_sharded(range(KEYS), config, rows, PythonWriteOptions(**options))

    def sent(self) -> list[str]:
        """What was stored since the plan was made, by the first folder below the prefix."""
        requests = self.front.log()["requests"]
        assert isinstance(requests, list)
        below = "/" + self.prefix.removeprefix("s3://") + "/"
        return sorted(
            request["target"].partition("?")[0].removeprefix(below).split("/")[0]
            for request in requests
            if request["method"] in ("PUT", "POST") and not request["target"].endswith("?delete")
        )

    def read(self) -> set[bytes]:
        async def read() -> set[bytes]:
            async with await AsyncShardedReader.open(
                s3_prefix=self.prefix, local_root=str(self.local / "read"), **self.access
            ) as reader:
                values = await reader.multi_get(list(range(KEYS)))
            assert None not in values.values()
            return {value for value in values.values() if value is not None}

        return asyncio.run(read())


WHOLE = {b"%d" % n for n in range(KEYS)}


@pytest.mark.parametrize("backend", FACTORIES)
def test_unchanged_shards_are_not_sent_again(backend: str, front: Front, tmp_path: Path) -> None:
    place = Place(front, tmp_path, backend)
    first = place.publish()
    front.plan()
    second = place.publish(reuse_unchanged=True, verify=backend == "slatedb")
    assert place.sent() == ["_CURRENT", "manifests", "runs", "runs"]
    assert [w.db_url for w in second.winners] == [w.db_url for w in first.winners]
    assert (second.stats.shards_reused, first.stats.shards_reused) == (SHARDS, 0)
    assert second.stats.rows_written == KEYS and second.run_id != first.run_id and place.read() == WHOLE
    third = place.publish(changed=7, reuse_unchanged=True)
    assert third.stats.shards_reused == SHARDS - 1
    assert place.read() == WHOLE - {b"7"} | {b"changed"}
    rollback(place.prefix, first.manifest_ref, **place.access)
    assert place.read() == WHOLE
    rollback(place.prefix, third.manifest_ref, **place.access)
    report = cleanup(place.prefix, keep_last=1, min_age=timedelta(0), **place.access)
    assert {one.kind for one in report.leftovers} >= {"manifest", "attempt"}  # of the first, the shard that was replaced
    assert place.read() == WHOLE - {b"7"} | {b"changed"}


def test_a_snapshot_published_meanwhile_is_a_conflict(front: Front, tmp_path: Path) -> None:
    place = Place(front, tmp_path)
    first = place.publish()

    def publish_another(preview: PublishPreview) -> None:
        place.publish(changed=1)

    with pytest.raises(PublishConflictError) as told:
        place.publish(reuse_unchanged=True, checks=PublishChecks(check=publish_another))
    assert told.value.expected == first.manifest_ref and told.value.found != first.manifest_ref
    assert place.read() == WHOLE - {b"1"} | {b"changed"}
    rollback(place.prefix, first.manifest_ref, **place.access)
    assert place.read() == WHOLE  # what was taken over was not taken back


@pytest.mark.parametrize("backend", FACTORIES)
def test_a_run_is_resumed(backend: str, front: Front, tmp_path: Path) -> None:
    place = Place(front, tmp_path, backend)
    front.plan()
    place.publish(run_id="whole", resume=True)
    each = place.sent().count("shards") // SHARDS
    front.plan(Fault(match=f"{tmp_path.name}/{backend}/shards/run_id%3Dr/db%3D00002", status=403, code="AccessDenied", times=-1))
    with pytest.raises(ShardyfusionError):
        place.publish(run_id="r", resume=True)
    finished = sum("finished.json" in r["target"] for r in front.log()["requests"])  # type: ignore[attr-defined]
    assert 1 <= finished < SHARDS
    front.plan()
    result = place.publish(run_id="r", resume=True)
    sent = place.sent()
    front.plan()
    assert result.stats.shards_reused == finished
    assert sent == ["_CURRENT", "manifests", "runs", "runs"] + ["shards"] * each * (SHARDS - finished)
    assert place.read() == WHOLE
    again = place.publish(run_id="r", resume=True)  # although it ended well
    assert place.sent() == ["_CURRENT", "manifests", "runs", "runs"] and again.stats.shards_reused == SHARDS
    other = place.publish(changed=7, run_id="r", resume=True)
    assert other.stats.shards_reused == SHARDS - 1 and place.read() == WHOLE - {b"7"} | {b"changed"}
    cleanup(place.prefix, keep_last=1, min_age=timedelta(0), **place.access)
    assert not cleanup(place.prefix, keep_last=1, min_age=timedelta(0), **place.access).leftovers
    assert place.read() == WHOLE - {b"7"} | {b"changed"}


def test_without_resume_a_failure_leaves_nothing(front: Front, tmp_path: Path) -> None:
    place = Place(front, tmp_path)
    place.publish()
    front.plan(Fault(match="/manifests/", status=403, code="AccessDenied", times=-1))
    with pytest.raises(ShardyfusionError):
        place.publish(run_id="r")
    front.plan()
    assert place.publish(run_id="r", resume=True).stats.shards_reused == 0


def test_a_living_writer_is_not_resumed(front: Front, tmp_path: Path) -> None:
    place = Place(front, tmp_path)

    def again(preview: PublishPreview) -> None:
        with pytest.raises(ManifestStoreError, match="another writer works on run 'r'"):
            place.publish(run_id="r", resume=True)

    front.plan()
    place.publish(run_id="r", resume=True, checks=PublishChecks(check=again))
    assert place.read() == WHOLE


def test_cleanup_leaves_runs_that_begin_again_meanwhile(tmp_path: Path) -> None:
    """What it has gathered of them says that they are over."""
    snapshot = tmp_path / "snap"

    def config(run_id: str) -> HashShardedWriteConfig:
        return HashShardedWriteConfig(
            num_dbs=SHARDS, s3_prefix=str(snapshot), output=WriterOutputConfig(local_root=str(tmp_path), run_id=run_id)
        )

    def fail(preview: PublishPreview) -> None:
        raise LookupError

    def publish(run_id: str, check: Any = None) -> None:
        options = PythonWriteOptions(progress=False, resume=True, checks=PublishChecks(check=check))
        write_hash_sharded(range(KEYS), config(run_id), PythonRecordInput(int, lambda n: b"%d" % n), options)

    publish("c")
    for run_id in "ab":
        with pytest.raises(LookupError):
            publish(run_id, fail)
    stale = snapshot / "shards" / "run_id=c" / "db=00000" / "attempt=01"
    shutil.copytree(stale.with_name("attempt=00"), stale)
    begun: list[RunRecordLifecycle] = []

    def begin(leftover: Leftover) -> None:
        assert leftover.run_id == "a"
        for run_id in () if begun else ("b", "c"):
            begun.append(RunRecordLifecycle.start(config=config(run_id), run_id=run_id, writer_type="python"))

    def clean(**more: Any) -> set[tuple[str, str]]:
        return {(one.run_id, one.kind) for one in cleanup(snapshot, old_runs=True, min_age=timedelta(0), **more).leftovers}

    whole = {("a", "run"), ("a", "run_record"), ("b", "run"), ("b", "run_record"), ("c", "attempt")}
    assert clean(dry_run=True) == whole
    assert clean(progress=begin) == {("a", "run"), ("a", "run_record")}
    for life in begun:
        life.mark_failed(LookupError())
        life.close()
    assert clean() == {(run, kind) for run, kind in whole if run != "a"}


@pytest.mark.parametrize("options", [{"keep_last": 2}, {"keep_last": 2, "stale_attempts": True}, {}])
def test_cleanup_of_a_copy_keeps_what_readers_find_there(options: dict[str, Any], tmp_path: Path) -> None:
    """Snapshots of a copy name places of the original; run records are not always copied along, or kept elsewhere."""

    def publish(folder: Path, changed: int, **more: Any) -> None:
        config = HashShardedWriteConfig(
            num_dbs=SHARDS, s3_prefix=str(folder), output=WriterOutputConfig(local_root=str(tmp_path / "w"))
        )
        rows = PythonRecordInput(key_fn=int, value_fn=lambda n: b"changed" if n == changed else b"%d" % n)
        write_hash_sharded(range(KEYS), config, rows, PythonWriteOptions(progress=False, **more))

    publish(tmp_path / "original", 1)
    publish(tmp_path / "original", 2, reuse_unchanged=True)
    shutil.copytree(tmp_path / "original", tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    publish(tmp_path / "copy", 3)
    second = history(str(tmp_path / "copy"))[1]
    cleanup(str(tmp_path / "copy"), min_age=timedelta(0), **options)
    shutil.rmtree(tmp_path / "original")
    with ShardedReader(
        s3_prefix=str(tmp_path / "copy"), local_root=str(tmp_path / "r"), snapshot=second.ref, relocate=True
    ) as reader:
        values = reader.multi_get(list(range(KEYS)))
    assert set(values.values()) == WHOLE - {b"2"} | {b"changed"}


@pytest.mark.parametrize(
    ("options", "more", "text"),
    [
        ({"resume": True}, {}, "options.resume needs output.run_id"),
        ({"resume": True, "dry_run": True}, {}, "options.dry_run leaves nothing"),
        ({"resume": True}, {"adapter_factory": "own"}, "options.resume needs a built-in adapter factory"),
        ({"reuse_unchanged": True}, {"adapter_factory": "own"}, "options.reuse_unchanged needs a built-in adapter factory"),
        ({"reuse_unchanged": True}, {"store": True}, "options.reuse_unchanged needs the default manifest store"),
        ({"reuse_unchanged": 1}, {}, "options.reuse_unchanged must be True or False"),
        ({"resume": "no"}, {}, "options.resume must be True or False"),
    ],
)
def test_what_cannot_be_had(options: dict[str, Any], more: dict[str, Any], text: str, tmp_path: Path) -> None:
    config = HashShardedWriteConfig(
        num_dbs=2,
        s3_prefix=(tmp_path / "snap").as_uri(),
        adapter_factory=file_backed_adapter_factory(str(tmp_path)) if "adapter_factory" in more else None,
        manifest=WriterManifestConfig(store=InMemoryManifestStore() if "store" in more else None),
        output=WriterOutputConfig(local_root=str(tmp_path)),
    )
    rows = PythonRecordInput(key_fn=int, value_fn=lambda n: b"")
    with pytest.raises(ConfigValidationError, match=text):
        write_hash_sharded(range(3), config, rows, PythonWriteOptions(progress=False, **options))


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("k,v\n" + "".join(f"{n},{n}\n" for n in range(KEYS)))
    line = ["publish", str(tmp_path / "a.csv"), "--key", "k", "--value", "v", "--num-dbs", str(SHARDS)]

    def shardy(*more: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "shardyfusion", "--current-url", str(tmp_path / "snap"), *line, *more], capture_output=True, text=True
        )
        if done.returncode == 2:
            return {"usage": done.stderr}
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    assert shardy("--run-id", "r", "--resume")["reused_shards"] == 0
    assert shardy("--run-id", "r", "--resume")["reused_shards"] == SHARDS
    assert shardy("--reuse-unchanged")["reused_shards"] == SHARDS
    for manifest in (tmp_path / "snap" / "manifests").glob("*_run_id=r"):  # as a clean-up does it some day
        shutil.rmtree(manifest)
    done = subprocess.run(
        [sys.executable, "-m", "shardyfusion", "--current-url", str(tmp_path / "snap"), "du"], capture_output=True, text=True
    )
    assert [run["state"] for run in json.loads(done.stdout)["runs"] if run["run_id"] == "r"] == ["in use"]
    assert shardy()["reused_shards"] == 0
    assert "--resume needs --run-id" in shardy("--resume")["usage"]
