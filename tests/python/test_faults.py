"""The reader through a network and a server that misbehave: it answers rightly, or says what is wrong, within its time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fixtures import FIXTURES, case

sys.path.insert(0, str(FIXTURES.parent / "support"))

from certificates import Certificates, certificates  # noqa: E402
from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    S3TransientError,
    ShardyfusionError,
    StaticCredentialProvider,
)
from shardyfusion.errors import OperationTimeoutError  # noqa: E402

CASE = case("slatedb-multi-l0")
SECONDS = 60.0  # beyond any of them, but not for ever


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def front(made: Certificates) -> Iterator[Front]:
    with s3_server(FIXTURES) as server, fault_server(server.endpoint, made) as f:
        yield f


def opening(endpoint: str, **options: Any) -> Any:
    return AsyncShardedReader.open(
        s3_prefix=CASE.expected["s3_prefix"],
        local_root="unused",
        credential_provider=StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
        s3_connection_options={
            "endpoint_url": endpoint, "region_name": REGION, "max_attempts": 4, "read_timeout": 1.0,
            **options.pop("s3", {})},
        **options,
    )


SURVIVED = {
    "latency": Fault(latency=0.05, times=-1),
    "silence": Fault(stall=-1, times=2),
    "silence inside a body": Fault(match="manifest", stall=10, times=2),
    "reset": Fault(reset=-1, times=2),
    "reset inside a body": Fault(match=".sst", reset=7, times=2),
    "short body": Fault(match="manifest", short=20, times=2),
    "short listing": Fault(match="list-type", short=60, times=2),
    "damaged listing": Fault(match="list-type", corrupt=0, times=2),
    "more announced than comes": Fault(match="_CURRENT", length=9, times=2),
    "less announced than comes": Fault(match=".sst", length=-3, times=2),
    "not HTTP": Fault(garbage=True, times=2),
    "closed": Fault(close=True, times=2),
    "500": Fault(status=500, code="InternalError", times=3),
    "503": Fault(status=503, times=3),
    "slow down": Fault(status=503, code="SlowDown", times=3),
    "429": Fault(status=429, retry_after=0, times=3),
    "a reply sent twice": Fault(match="_CURRENT", twice=True, times=2),
    "replies out of order": Fault(match=".sst", hold=True, times=1),
}


@pytest.mark.parametrize("name", SURVIVED)
async def test_survived(name: str, front: Front) -> None:
    await asyncio.to_thread(front.plan, SURVIVED[name])
    async with asyncio.timeout(SECONDS), opening(front.endpoint) as reader:
        for key, _, value in CASE.lookups:
            assert await reader.get(key) == value, key
    log = await asyncio.to_thread(front.log)
    assert any(r["fault"] == 0 for r in log["requests"]), "the fault did not happen"


REPORTED: dict[str, tuple[Fault, type[Exception], str]] = {
    "silence for ever": (Fault(stall=-1, times=-1), S3TransientError, "stalled"),
    "reset for ever": (Fault(reset=0, times=-1), S3TransientError, "_CURRENT"),
    "slow down for ever": (Fault(status=503, code="SlowDown", times=-1), S3TransientError, "SlowDown"),
    "denied": (Fault(status=403, code="AccessDenied", times=-1), PermissionError, "AccessDenied"),
    "denied, one SST": (Fault(match=".sst", status=403, code="AccessDenied", times=-1), PermissionError, ".sst"),
    "redirected": (Fault(status=301, code="PermanentRedirect", times=-1), ShardyfusionError, "region"),
}


@pytest.mark.parametrize("name", REPORTED)
async def test_reported(name: str, front: Front) -> None:
    fault, error, text = REPORTED[name]
    await asyncio.to_thread(front.plan, fault)
    with pytest.raises(error) as caught:
        async with asyncio.timeout(SECONDS):
            await opening(front.endpoint)
    assert isinstance(caught.value, ShardyfusionError)
    assert text in str(caught.value)
    assert SECRET_KEY not in repr(caught.value)


@pytest.mark.parametrize("fault", [Fault(stall=-1, times=-1), Fault(latency=30, times=-1), Fault(drip=0.5, times=-1),
                                   Fault(status=503, retry_after=1, times=-1)])
async def test_within_its_deadline(fault: Fault, front: Front) -> None:
    await asyncio.to_thread(front.plan, fault)
    with pytest.raises((OperationTimeoutError, S3TransientError)):
        async with asyncio.timeout(SECONDS):
            await opening(front.endpoint, timeout=0.3, s3={"read_timeout": 30.0})


async def test_certificates(front: Front, made: Certificates) -> None:
    await asyncio.to_thread(front.plan)
    trusted = {"verify_ssl": str(made.authority)}
    async with opening(front.tls_endpoints["good"], s3=trusted) as reader:
        key, _, value = CASE.lookups[0]
        assert await reader.get(key) == value
    for shown, options, text in (
        ("good", {}, "certificate"),
        ("good", {"verify_ssl": str(made.other_authority)}, "certificate"),
        ("expired", trusted, "expired"),
        ("elsewhere", trusted, "certificate"),
    ):
        with pytest.raises(ShardyfusionError) as caught:
            await opening(front.tls_endpoints[shown], s3=options)
        assert text in str(caught.value)
        assert not caught.value.retryable
    async with opening(front.tls_endpoints["expired"], s3={"verify_ssl": False}) as reader:
        assert reader.snapshot_info().num_dbs == 2


async def test_a_truncated_tls_connection_is_no_end_of_a_body(front: Front, made: Certificates) -> None:
    await asyncio.to_thread(front.plan, Fault(match="manifest", short=30, times=2))
    async with opening(front.tls_endpoints["good"], s3={"verify_ssl": str(made.authority)}) as reader:
        for key, _, value in CASE.lookups:
            assert await reader.get(key) == value, key
