"""The service of examples/fastapi over a real S3 server that becomes slow, goes away, or holds a manifest that is broken: it serves on, and
tells. Once under gunicorn with two workers."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fault_server import Fault, Front, fault_server
from fixtures import ROOT
from ports import free_port
from s3_server import S3Server, s3_server
from under_gunicorn import gunicorn

from shardyfusion import HashShardedWriteConfig, PythonRecordInput
from shardyfusion.writer.python import write_hash_sharded

EXAMPLE = ROOT / "examples" / "fastapi"
ROWS = PythonRecordInput[int](key_fn=lambda n: n, value_fn=lambda n: json.dumps({"id": n}).encode())
PATIENCE = 60.0  # only a fault takes so long


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def front(s3: S3Server) -> Iterator[Front]:
    with fault_server(s3.endpoint) as running:
        yield running


@pytest.fixture
def prefix(s3: S3Server, front: Front, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    front.plan()
    url = f"s3://scratch/{request.node.name.partition('[')[0]}"
    service = {"PROFILES": url, "PROFILES_CACHE": str(tmp_path / "cache"), "PROFILES_REFRESH_S": "0.05", "PROFILES_STORAGE_S": "0.3"}
    for name, value in (s3.environment | {"AWS_ENDPOINT_URL": front.endpoint} | service).items():
        monkeypatch.setenv(name, value)
    publish(s3, url, range(100))
    return url


def publish(s3: S3Server, prefix: str, numbers: range) -> str:
    """Beside the front: its faults are the service's."""
    options: Any = {"endpoint_url": s3.endpoint}
    config = HashShardedWriteConfig(num_dbs=2, s3_prefix=prefix, s3_connection_options=options)
    return write_hash_sharded(numbers, config, ROWS).run_id


def client() -> TestClient:
    spec = importlib.util.spec_from_file_location("profiles_service", EXAMPLE / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return TestClient(module.app)


def told(service: TestClient, **facts: Any) -> dict[str, Any]:
    """What /ready says once it says so."""
    give_up = time.monotonic() + PATIENCE
    while True:
        answer = service.get("/ready").json()
        if all(answer[name] == value for name, value in facts.items()):
            return answer
        assert time.monotonic() < give_up, answer
        time.sleep(0.02)


def metric(service: TestClient, name: str) -> float:
    """The sum over its labels."""
    lines = service.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def counted(service: TestClient, name: str) -> None:
    """Once it is: a refresh that fails is in the reader's health before its task counts it."""
    give_up = time.monotonic() + PATIENCE
    while metric(service, name) == 0:
        assert time.monotonic() < give_up, name


def test_serves_and_follows(prefix: str, s3: S3Server) -> None:
    with client() as service:
        assert service.get("/profiles/7").json() == {"id": 7}
        assert service.get("/profiles/700").status_code == 404
        assert service.get("/profiles", params={"id": [1, 2, 700]}).json() == {"1": {"id": 1}, "2": {"id": 2}, "700": None}
        for wrong in ("/profiles/-1", "/profiles/9223372036854775808", "/profiles/x", "/profiles"):
            assert service.get(wrong).status_code == 422, wrong
        assert service.get("/health").json() == {"status": "alive"}
        new = publish(s3, prefix, range(1000))
        told(service, snapshot=new, status="healthy")
        assert service.get("/profiles/700").json() == {"id": 700}
        assert metric(service, "shardyfusion_reader_gets_total") == 3
        assert metric(service, "shardyfusion_reader_refreshes_total") > 0


GONE = {
    "gone": Fault(close=True, times=-1),
    "refuses": Fault(status=503, code="SlowDown", times=-1),
    "silent": Fault(stall=-1, times=-1),
}


@pytest.mark.parametrize("how", GONE)
def test_storage_is_away(how: str, prefix: str, front: Front) -> None:
    """What is in memory is served on; readiness and metrics tell; all is well when storage is back."""
    with client() as service:
        before = told(service, status="healthy")["snapshot"]
        front.plan(GONE[how])
        answer = told(service, status="degraded")
        assert answer["last_refresh_error"] and answer["snapshot"] == before and answer["refresh_failures"] > 0
        assert [service.get(f"/profiles/{n}").json() for n in range(100)] == [{"id": n} for n in range(100)]
        assert service.get("/profiles/700").status_code == 404
        counted(service, "shardyfusion_reader_refresh_failures_total")
        front.plan()
        told(service, status="healthy", last_refresh_error=None)


def test_slow_storage_costs_a_look_up_its_deadline(
    prefix: str, s3: S3Server, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept in memory ahead of time: what needs storage is 503 in time, and says when to come again."""
    monkeypatch.setenv("PROFILES_RESIDENCY", "none")
    publish(s3, prefix, range(20_000))
    with client() as service:
        assert service.get("/profiles/7").status_code == 200
        front.plan(Fault(latency=30, times=-1))
        for key in (8_000, 16_000):
            answer = service.get(f"/profiles/{key}")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert "scratch" not in answer.text  # where it lies is nobody's business
        assert service.get("/profiles/7").status_code == 200
        assert service.get("/health").status_code == 200
        assert metric(service, "shardyfusion_reader_get_failures_total") == 2
        front.plan()
        give_up = time.monotonic() + PATIENCE
        while service.get("/profiles/8000").status_code != 200:
            assert time.monotonic() < give_up


def test_a_broken_manifest_is_not_followed(prefix: str, s3: S3Server, front: Front) -> None:
    with client() as service:
        before = told(service, status="healthy")["snapshot"]
        front.plan(Fault(close=True, times=-1))  # it does not look meanwhile
        publish(s3, prefix, range(1000))
        newest = max((s3.folder / prefix.removeprefix("s3://") / "manifests").glob("*/manifest"))
        newest.write_bytes(b"no database")
        front.plan()
        answer = told(service, status="degraded", fallback=False)
        assert answer["snapshot"] == before
        assert service.get("/profiles/7").json() == {"id": 7}
        assert service.get("/profiles/700").status_code == 404
        assert "manifest" in answer["last_refresh_error"]
        counted(service, "shardyfusion_reader_refresh_failures_total")
        assert 'shardyfusion_reader_refresh_failures_total{error="ManifestParseError"}' in service.get("/metrics").text


def test_it_does_not_begin_without_storage(prefix: str, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor sees a process that ends, and why."""
    monkeypatch.setenv("PROFILES_OPEN_S", "0.3")
    front.plan(Fault(stall=-1, times=-1))
    with pytest.raises(TimeoutError, match="_CURRENT: the deadline passed"), client():
        raise AssertionError("it serves")


def test_under_gunicorn(prefix: str, s3: S3Server, tmp_path: Path) -> None:
    """Two workers answer and follow the pointer, each tells its metrics at a port of its own, and both end in peace."""
    port, first = free_port(), free_port()
    log = tmp_path / "log"
    environment = os.environ | {"BIND": f"127.0.0.1:{port}", "METRICS_FIRST_PORT": str(first), "WEB_CONCURRENCY": "2"}

    def ask(path: str, at: int = port) -> str:
        """When it answers: a worker may still be opening."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{at}{path}", timeout=30) as response:
                    return response.read().decode()
            except OSError:
                assert time.monotonic() < give_up and server.poll() is None, log.read_text()
                time.sleep(0.05)

    with gunicorn("-c", EXAMPLE / "gunicorn.conf.py", "app:app", cwd=EXAMPLE, env=environment, log=log) as server:
        assert json.loads(ask("/profiles/7")) == {"id": 7}
        new = publish(s3, prefix, range(1000))
        for at in (first, first + 1):
            while "shardyfusion_reader_refreshes_total" not in (text := ask("/metrics", at)):
                time.sleep(0.02)
            assert "shardyfusion_open_shards 2.0" in text
        while {json.loads(ask("/ready"))["snapshot"] for _ in range(8)} != {new}:
            time.sleep(0.02)
        assert json.loads(ask("/profiles/700")) == {"id": 700}
    text = log.read_text()
    assert text.count("Booting worker") == 2 and "Traceback" not in text, text
