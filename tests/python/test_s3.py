"""What a reader asks of a real S3 server: how many requests, how deep, and that nothing is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from http_proxy import Log, Proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server  # noqa: E402

from shardyfusion import AsyncShardedReader  # noqa: E402
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CASES = {"slatedb-multi-l0": 2, "slatedb-hash-u64be": 8}
TRIES = 10


async def open_case(case: str, endpoint: str, local_root: Path, **options: object) -> AsyncShardedReader:
    return await AsyncShardedReader.open(
        s3_prefix=f"s3://bucket/golden/{case}", local_root=str(local_root),
        credential_provider=StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
        s3_connection_options={"endpoint_url": endpoint, "region_name": REGION}, **options)


def lookups(case: str) -> list[tuple[int, bytes | None]]:
    expected = json.loads((FIXTURES / "snapshots" / case / "expected.json").read_text())
    return [(int(x["key"]["int"]), None if x["value"] is None else bytes.fromhex(x["value"]))
            for x in expected["lookups"] if "value" in x]


def faults_of(log: Log, waves: int) -> str:
    """A machine that is busy makes what goes out together look as if it went out in turn, and never the other way about: what
    holds once, holds. So whoever asks tries again, from the start."""
    if log.waves > waves:
        return f"{log.waves} round trips: {[(r.depth, r.method, r.target) for r in log.requests]}"
    if log.connections > log.max_in_flight:
        return f"{log.connections} connections for {log.max_in_flight} requests at a time"
    return ""


@pytest.mark.parametrize("case", CASES)
async def test_opening_is_a_constant_number_of_round_trips(case: str, counted: Proxy, tmp_path: Path) -> None:
    for _ in range(TRIES):
        counted.log.reset()
        async with await open_case(case, counted.endpoint, tmp_path):
            faults = faults_of(counted.log, 6)
            assert {r.method for r in counted.log.requests} <= {"GET", "HEAD"}, "reading must not write"
        if not faults:
            return
    pytest.fail(faults)


@pytest.mark.parametrize("case", CASES)
async def test_every_row_over_s3_with_at_most_one_request_a_cold_get(case: str, counted: Proxy, tmp_path: Path) -> None:
    async with await open_case(case, counted.endpoint, tmp_path) as reader:
        counted.delay, delay = 0.0, counted.delay
        try:
            for key, value in lookups(case):
                counted.log.reset()
                assert await reader.get(key) == value
                assert len(counted.log.requests) <= 1
                counted.log.reset()
                assert await reader.get(key) == value
                assert counted.log.requests == [], "a warm look-up asked storage"
        finally:
            counted.delay = delay


async def test_keys_outside_the_range_ask_nothing(counted: Proxy, tmp_path: Path) -> None:
    case = "slatedb-hash-u64be"
    async with await open_case(case, counted.endpoint, tmp_path) as reader:
        largest = {shard.db_id: shard.max_key for shard in reader.shard_details()}
        beyond = [key for key in range(2**63 - 100, 2**63) if key > largest[reader.route_key(key)]]
        assert beyond
        counted.log.reset()
        assert await reader.multi_get(beyond) == dict.fromkeys(beyond)
        for key in beyond:
            assert await reader.get(key) is None
        assert counted.log.requests == []


async def test_multi_get_is_one_round_trip(counted: Proxy, tmp_path: Path) -> None:
    case = "slatedb-hash-u64be"
    rows = [(k, v) for k, v in lookups(case) if v is not None][:500]
    for _ in range(TRIES):
        async with await open_case(case, counted.endpoint, tmp_path) as reader:
            counted.log.reset()
            assert await reader.multi_get([k for k, _ in rows]) == dict(rows)
            faults = faults_of(counted.log, 1)
        if not faults:
            return
    pytest.fail(faults)


async def test_wrong_secret_is_denied_without_telling_it(server: S3Server, tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:
        await AsyncShardedReader.open(
            s3_prefix="s3://bucket/golden/slatedb-hash-u64be", local_root=str(tmp_path),
            credential_provider=StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key="not-the-secret"),
            s3_connection_options={"endpoint_url": server.endpoint, "region_name": REGION})
    text = f"{caught.value!r} {caught.value}"
    assert "not-the-secret" not in text
    assert "403" in text and "_CURRENT" in text


async def test_a_pointer_that_names_no_s3_url(server: S3Server, tmp_path: Path) -> None:
    prefix = server.folder / "bucket" / "golden" / "pointer-to-nowhere"
    prefix.mkdir(parents=True)
    for reference in ["run-1", "http://elsewhere/manifest", "/etc/passwd"]:
        (prefix / "_CURRENT").write_text(
            '{"manifest_content_type":"application/x-sqlite3","manifest_ref":"%s","run_id":"r",'
            '"updated_at":"2026-01-02T03:04:05Z"}' % reference)
        with pytest.raises(ValueError, match=f"Invalid S3 URL: {reference}"):
            await open_case("pointer-to-nowhere", server.endpoint, tmp_path)
