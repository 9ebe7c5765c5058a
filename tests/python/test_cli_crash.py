"""`shardy rollback` and `shardy cleanup`, killed at each of their requests: nothing is lost, and the next run finishes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures import FIXTURES
from test_cli import HOME, SHARDY, files_of, folder_of, place_pointer, shardy

from certificates import certificates  # isort: skip
from fault_server import Fault, Front, fault_server  # isort: skip
from s3_server import S3Server, s3_server  # isort: skip

CASE = "history-three-runs"
PREFIX = f"s3://bucket/golden/{CASE}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Front]]:
    made = certificates(tmp_path_factory.mktemp("certificates"))
    with s3_server(FIXTURES) as server, fault_server(server.endpoint, made) as front:
        yield server, front


def lay_out(server: S3Server) -> Path:
    """The snapshot as it was, with an attempt that lost."""
    folder = server.folder / "bucket" / "golden" / CASE
    shutil.rmtree(folder)
    shutil.copytree(folder_of(CASE), folder)
    stale = folder / "shards" / "run_id=run-002" / "db=00001" / "attempt=05"
    stale.mkdir(parents=True)
    for name in "abc":
        (stale / name).write_text(name)
    place_pointer(server)
    return folder


def killed_at(line: tuple[str, ...], nth: int, fault: dict[str, float], server: S3Server, front: Front) -> bool:
    """Runs it until its nth request has come to where the fault holds it, and kills it there. False: it ended before."""
    front.plan(Fault(skip=nth, **fault))  # type: ignore[arg-type]
    environment = (
        HOME | server.environment | {"AWS_ENDPOINT_URL": front.endpoint, "SHARDY_CURRENT": f"{PREFIX}/_CURRENT"}
    )
    process = subprocess.Popen(
        [str(SHARDY), *line], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with process:
        while process.poll() is None:
            if any(request["fault"] is not None for request in front.log()["requests"]):  # type: ignore[attr-defined]
                if fault == AFTER:
                    time.sleep(0.05)  # the store does it meanwhile, or has done it
                process.kill()
                return True
            time.sleep(0.002)
        assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    return False


BEFORE = {"latency": 3600.0}  # the request never reaches the store
AFTER = {"stall": -1}  # the store has it, its answer never comes


@pytest.mark.parametrize("fault", [BEFORE, AFTER], ids=["before", "after"])
@pytest.mark.parametrize(
    ("line", "runs"),
    [
        (("rollback", "--run-id", "run-000", "--yes"), ("run-002", "run-000")),
        (("cleanup", "--keep-last", "1", "--yes"), ("run-002",)),
    ],
    ids=["rollback", "cleanup"],
)
def test_killed_at_each_request(
    line: tuple[str, ...], runs: tuple[str, ...], fault: dict[str, float], servers: tuple[S3Server, Front]
) -> None:
    server, front = servers
    folder = lay_out(server)
    assert shardy(*line, pointer=PREFIX, env=server.environment).returncode == 0
    done = files_of(folder)
    nth = 0
    while True:
        folder = lay_out(server)
        killed = killed_at(line, nth, fault, server, front)
        front.plan()
        health = json.loads(shardy("health", pointer=PREFIX, env=server.environment).stdout)
        assert health["status"] == "healthy", (nth, health)
        assert any(run in health["manifest_ref"] for run in runs), (nth, health)
        if not killed:
            break
        again = shardy(*line, pointer=PREFIX, env=server.environment)
        assert again.returncode == 0, (nth, again.stderr)
        assert files_of(folder) == done, nth
        nth += 1
    assert files_of(folder) == done
    assert nth > 5  # it was killed at that many
