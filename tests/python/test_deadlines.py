"""What a call says whose deadline has passed: operation, object, how long, how often, and what went wrong meanwhile; and what
`health()` says of refreshes that ended so."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fixtures import FIXTURES, case

sys.path.insert(0, str(FIXTURES.parent / "support"))

from certificates import certificates  # noqa: E402
from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import AsyncShardedReader, StaticCredentialProvider  # noqa: E402
from shardyfusion.errors import OperationTimeoutError, ReaderStateError  # noqa: E402
from shardyfusion.manifest_store import InMemoryManifestStore  # noqa: E402
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory  # noqa: E402
from shardyfusion.reader.concurrent_reader import ConcurrentShardedReader  # noqa: E402
from shardyfusion.reader.reader import ShardedReader, SlateDbReaderFactory  # noqa: E402

CASE = case("slatedb-multi-l0")
PREFIX = CASE.expected["s3_prefix"]
ROWS = {key: value for key, _, value in CASE.lookups if value is not None}
CREDENTIALS = StaticCredentialProvider(ACCESS_KEY, SECRET_KEY)
SHORT = 0.7
"""For calls that are to time out: beyond a first attempt and its back-off."""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    made = certificates(tmp_path_factory.mktemp("certificates"))
    with s3_server(FIXTURES) as server, fault_server(server.endpoint, made) as f:
        yield f


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    """A server that speaks HTTP where TLS is expected, as they do: it answers that it does not understand."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def closed() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as bound:  # so that it is nobody else's either
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def connection(endpoint: str) -> dict[str, Any]:
    return {"endpoint_url": endpoint, "region_name": REGION, "max_attempts": 100, "verify_ssl": False}


class OwnFactory(AsyncSlateDbReaderFactory):
    """A subclass may do anything, so the reader puts the snapshot together in Python."""


class OwnSyncFactory(SlateDbReaderFactory):
    """The same, blocking."""


def arguments(endpoint: str, **more: Any) -> dict[str, Any]:
    return {
        "s3_prefix": PREFIX, "local_root": "unused", "credential_provider": CREDENTIALS,
        "s3_connection_options": connection(endpoint), **more,
    }


def own(kind: type, endpoint: str) -> Any:
    return kind(credential_provider=CREDENTIALS, s3_connection_options=connection(endpoint))


async def _async(endpoint: str, timeout: float) -> None:
    await AsyncShardedReader.open(timeout=timeout, **arguments(endpoint))


async def _plugged(endpoint: str, timeout: float) -> None:
    await AsyncShardedReader.open(timeout=timeout, **arguments(endpoint, reader_factory=own(OwnFactory, endpoint)))


async def _sync(endpoint: str, timeout: float) -> None:
    await asyncio.to_thread(lambda: ShardedReader(open_timeout=timeout, **arguments(endpoint)))


async def _sync_plugged(endpoint: str, timeout: float) -> None:
    factory = own(OwnSyncFactory, endpoint)
    await asyncio.to_thread(
        lambda: ConcurrentShardedReader(open_timeout=timeout, **arguments(endpoint, reader_factory=factory)))


async def told(work: Callable[[float], Any], text: str) -> OperationTimeoutError:
    """How a call ends that has no time: with more of it where this machine was too busy for a first attempt."""
    for timeout in (SHORT, 5 * SHORT, 25 * SHORT):
        with pytest.raises(OperationTimeoutError) as caught:
            await work(timeout)
        if re.search(text, str(caught.value)):
            break
    assert re.search(text, str(caught.value))
    return caught.value


OPENINGS: dict[str, Callable[[str, float], Any]] = {
    "async": _async, "async, plugged": _plugged, "sync": _sync, "concurrent, plugged": _sync_plugged,
}

AFTER = r"the deadline (passed|leaves no time for another attempt) after \d+ attempts? in (\d+ ms|\d+\.\d s)"

CAUSES = {
    "503": (rf"{AFTER}.*; the last one( that ended)?: GET answered 503 SlowDown", 503),
    "refused": (rf"{AFTER}.*; the last one( that ended)?: GET: .*[Cc]onnect", None),
    "silent": (rf"{AFTER}, while it waited for an answer$", None),
    "a silent port, TLS": (rf"{AFTER}, while it waited for the TLS handshake", None),
    "a plain port, TLS": (rf"{AFTER}.*; the last one( that ended)?: GET: .*([Ww]rong version|packet length|SSL|TLS)", None),
    "no proxy there": (rf"{AFTER}.*; the last one( that ended)?: GET: .*[Cc]onnect", None),
}


@pytest.mark.parametrize("way", OPENINGS)
@pytest.mark.parametrize("cause", CAUSES)
async def test_openings_say_why(
    cause: str, way: str, front: Front, silent: int, plain: str, closed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = {
        "refused": f"http://127.0.0.1:{closed}",
        "silent": f"http://127.0.0.1:{silent}",
        "a silent port, TLS": f"https://127.0.0.1:{silent}",
        "a plain port, TLS": plain,
        "no proxy there": "http://bucket.invalid",
    }.get(cause, front.endpoint)
    await asyncio.to_thread(front.plan, *([Fault(status=503, code="SlowDown", times=-1)] if cause == "503" else []))
    if cause == "no proxy there":
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed}")
    text, http_status = CAUSES[cause]
    error = await told(lambda timeout: OPENINGS[way](endpoint, timeout), text)
    assert str(error).startswith(f"get {PREFIX}/_CURRENT: ")
    assert (error.operation, error.object_url) == ("get", f"{PREFIX}/_CURRENT")
    assert error.http_status == http_status
    assert error.attempts and error.retryable
    assert SECRET_KEY not in str(error)


async def test_other_calls_say_why(front: Front) -> None:
    await asyncio.to_thread(front.plan)
    async with AsyncShardedReader.open(**arguments(front.endpoint)) as reader:
        await asyncio.to_thread(front.plan, Fault(status=503, code="SlowDown", times=-1))

        async def first_row(timeout: float) -> None:
            async for _ in reader.scan(timeout=timeout):
                pass

        async def limited(timeout: float) -> None:
            with pytest.raises(OperationTimeoutError):  # a batch says it of each shard
                await reader.multi_get(list(ROWS), timeout=timeout)
            await reader.get_many(list(ROWS), timeout=timeout)

        for work in (lambda timeout: reader.refresh(timeout=timeout), first_row, limited):
            error = await told(work, AFTER + ".*GET answered 503 SlowDown")
            assert str(error.object_url).startswith(PREFIX)
            assert error.http_status == 503
    await asyncio.to_thread(front.plan)


class Tired:
    """A limiter that has no tokens."""

    def acquire(self, tokens: int = 1) -> None:
        raise AssertionError

    async def acquire_async(self, tokens: int = 1) -> None:
        await asyncio.sleep(60)


async def test_what_is_not_the_engine_s(front: Front) -> None:
    await asyncio.to_thread(front.plan)
    async with AsyncShardedReader.open(**arguments(front.endpoint, rate_limiter=Tired())) as reader:
        with pytest.raises(OperationTimeoutError, match=f"^get of {PREFIX} took longer than its timeout of 0.05 s$") as caught:
            await reader.get(next(iter(ROWS)), timeout=0.05)
        assert caught.value.object_url == PREFIX


# ---------------------------------------------------------------- health


@pytest.mark.parametrize("plugged", [False, True])
async def test_refreshes_leave_a_trace(front: Front, plugged: bool) -> None:
    """Timed out, cancelled, failed: each until the next good one."""
    await asyncio.to_thread(front.plan)
    more = {"reader_factory": own(OwnFactory, front.endpoint)} if plugged else {}
    async with AsyncShardedReader.open(**arguments(front.endpoint, **more)) as reader:
        for end in ("late", "cancelled", "failed"):
            assert await reader.refresh() is False
            assert reader.health().last_refresh_error is None
            faults = Fault(status=404, code="NoSuchKey", times=-1) if end == "failed" else Fault(stall=-1, times=-1)
            await asyncio.to_thread(front.plan, faults)
            if end == "late":
                with pytest.raises(OperationTimeoutError):
                    await reader.refresh(timeout=0.1)
                assert "the deadline passed" in (reader.health().last_refresh_error or "")
            elif end == "cancelled":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.refresh(), 0.1)
                assert reader.health().last_refresh_error == "the refresh was cancelled"
            else:
                with pytest.raises(ReaderStateError, match=f"^CURRENT pointer not found during refresh: {PREFIX}/_CURRENT$"):
                    await reader.refresh()
                assert "CURRENT pointer not found" in (reader.health().last_refresh_error or "")
            await asyncio.to_thread(front.plan)
        assert await reader.refresh() is False
        assert reader.health().last_refresh_error is None


@pytest.mark.parametrize("kind", [ShardedReader, ConcurrentShardedReader])
@pytest.mark.parametrize("plugged", [False, True])
def test_blocking_refreshes_leave_a_trace(front: Front, kind: type, plugged: bool) -> None:
    front.plan()
    more = {"reader_factory": own(OwnSyncFactory, front.endpoint)} if plugged else {}
    with kind(**arguments(front.endpoint, **more)) as reader:
        front.plan(Fault(stall=-1, times=-1))
        with pytest.raises(OperationTimeoutError, match="the deadline passed"):
            reader.refresh(timeout=0.1)
        assert "the deadline passed" in reader.health().last_refresh_error
        front.plan()
        assert reader.refresh() is False
        assert reader.health().last_refresh_error is None


def test_a_refresh_behind_another_keeps_its_deadline(front: Front) -> None:
    front.plan()
    with ConcurrentShardedReader(**arguments(front.endpoint)) as reader:
        front.plan(Fault(stall=-1, times=-1))
        with pytest.raises(OperationTimeoutError):
            reader.refresh(timeout=0.1)
        first = threading.Thread(target=lambda: pytest.raises(OperationTimeoutError, reader.refresh, timeout=3))
        first.start()
        while reader._refreshing.acquire(blocking=False):  # until it has begun
            reader._refreshing.release()
        with pytest.raises(OperationTimeoutError, match="while another refresh ran"):
            reader.refresh(timeout=0.1)
        first.join()
        front.plan()
        assert reader.refresh() is False


def _copy(tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(CASE.folder, copy)
    return copy


async def test_a_pointer_that_moves_back_ends_the_fallback(tmp_path: Path) -> None:
    copy = _copy(tmp_path)
    pointer = json.loads((copy / "_CURRENT").read_text())
    bad = copy / "manifests" / "2999-01-01T00:00:00.000000Z_run_id=bad"
    bad.mkdir()
    (bad / "manifest").write_bytes(b"no manifest")
    moved = json.dumps(pointer | {"manifest_ref": f"{copy.as_uri()}/manifests/{bad.name}/manifest"})
    options = {"s3_prefix": str(copy), "local_root": str(tmp_path / "root")}
    for more in ({}, {"reader_factory": OwnFactory()}):
        (copy / "_CURRENT").write_text(moved)
        async with AsyncShardedReader.open(**options, **more) as reader:
            assert reader.health().fallback is True
            assert await reader.refresh() is False  # malformed still
            assert reader.health().fallback is True
            good = json.dumps(pointer | {"manifest_ref": reader.snapshot_info().manifest_ref})
            (copy / "_CURRENT").write_text(good)
            assert await reader.refresh() is False  # it names what is served
            assert reader.health().fallback is False
            assert reader.health().last_refresh_error is None
    for kind in (ShardedReader, ConcurrentShardedReader):
        (copy / "_CURRENT").write_text(moved)
        with kind(**options) as reader:
            assert reader.health().fallback is True
            good = json.dumps(pointer | {"manifest_ref": reader.snapshot_info().manifest_ref})
            (copy / "_CURRENT").write_text(good)
            assert reader.refresh() is False
            assert reader.health().fallback is False


STALE = [  # the snapshot is some months old, reader and refresh some milliseconds
    ("reader", None, "healthy"),
    ("reader", timedelta(hours=1), "healthy"),
    ("reader", timedelta(days=-1), "degraded"),
    ("snapshot", None, "healthy"),
    ("snapshot", timedelta(hours=1), "degraded"),
    ("snapshot", timedelta.max, "healthy"),
    ("refresh", timedelta(hours=1), "healthy"),
    ("refresh", timedelta(0), "degraded"),
]


async def test_what_staleness_is_compared_with(tmp_path: Path) -> None:
    options = {"s3_prefix": str(CASE.folder), "local_root": str(tmp_path)}
    more = {"reader_factory": OwnFactory()}
    readers: list[Any] = [ShardedReader(**options), ConcurrentShardedReader(**options)]
    readers += [await AsyncShardedReader.open(**options), await AsyncShardedReader.open(**options, **more)]
    for reader in readers:
        await asyncio.sleep(0.002)
        assert [reader.health(by=by, staleness_threshold=age).status for by, age, _ in STALE] == [s for _, _, s in STALE]
        health = reader.health()
        age = datetime.now(timezone.utc) - reader.snapshot_info().created_at
        assert timedelta(0) <= age - health.snapshot_age < timedelta(minutes=1)
        assert timedelta(0) < health.since_refresh < timedelta(minutes=1)
        assert timedelta(0) <= health.manifest_age < timedelta(minutes=1)
        assert health.manifest_age % timedelta(milliseconds=10) == timedelta(0)
        with pytest.raises(ValueError, match=r"^by must be 'reader', 'snapshot' or 'refresh', got 'age'$"):
            reader.health(by="age")
        closing = reader.close()
        if closing is not None:
            await closing
        assert reader.health(staleness_threshold=timedelta(0)).status == "unhealthy"


async def test_no_pointer_says_where(tmp_path: Path) -> None:
    for more in ({}, {"reader_factory": OwnFactory()}):
        with pytest.raises(ReaderStateError, match=f"^CURRENT pointer not found: file://{tmp_path}/_CURRENT$"):
            await AsyncShardedReader.open(s3_prefix=str(tmp_path), local_root="unused", **more)
    for kind in (ShardedReader, ConcurrentShardedReader):
        with pytest.raises(FileNotFoundError, match=f"^CURRENT pointer not found: file://{tmp_path}/_CURRENT$"):
            kind(s3_prefix=str(tmp_path), local_root="unused")
    with pytest.raises(ReaderStateError, match="^CURRENT pointer not found$"):  # a store of the caller's does not tell
        ShardedReader(s3_prefix=str(tmp_path), local_root="unused", manifest_store=InMemoryManifestStore())
