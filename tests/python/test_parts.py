"""Credentials, options, dotenv files, limiters, metrics, logging, errors, value objects."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import logging
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pytest
from fixtures import FIXTURES

import shardyfusion
from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    ConfigValidationError,
    EnvCredentialProvider,
    HashShardedWriteConfig,
    JsonFormatter,
    KeyEncoding,
    LogContext,
    MetricEvent,
    PythonRecordInput,
    ReaderHealth,
    RetryConfig,
    S3Credentials,
    ShardDetail,
    ShardedReader,
    SnapshotInfo,
    StaticCredentialProvider,
    ThreadSafeTokenBucket,
    TokenBucket,
    ValueSpec,
    configure_logging,
    errors,
    get_logger,
)
from shardyfusion._dotenv import parse_env, read_env_file
from shardyfusion._engine import native
from shardyfusion._s3_options import engine_options
from shardyfusion._storage_errors import from_engine, inside_shard
from shardyfusion._timeouts import seconds
from shardyfusion.credentials import (
    CredentialProvider,
    apply_env_file,
    materialize_env_file,
    remove_env_file,
    resolve_env_file,
)
from shardyfusion.logging import FailureSeverity, log_event, log_failure
from shardyfusion.reader import AsyncSlateDbReaderFactory, SlateDbReaderFactory
from shardyfusion.sharding_types import ShardingStrategy
from shardyfusion.storage import AsyncObstoreBackend, create_s3_store
from shardyfusion.testing import ListMetricsCollector
from shardyfusion.writer import aio

# ---------------------------------------------------------------- credentials and options


def test_environment_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.delenv(f"S3_{name}", raising=False)
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    provider = EnvCredentialProvider()
    assert isinstance(provider, CredentialProvider)
    assert provider.resolve() == S3Credentials()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "aws")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("S3_ACCESS_KEY_ID", "s3")
    assert provider.resolve() == S3Credentials("s3", "aws-secret", None)


def test_credentials_pickle_and_hide_their_secrets() -> None:
    for value in (S3Credentials("id", "geheim", "token"), StaticCredentialProvider("id", "geheim", "token")):
        assert pickle.loads(pickle.dumps(value)) == value
        assert "geheim" not in repr(value) and "token=***" in repr(value).replace("session_", "")
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.access_key_id = "x"  # type: ignore[misc]
    assert StaticCredentialProvider("id", "geheim").resolve() == S3Credentials("id", "geheim")
    assert repr(S3Credentials()) == "S3Credentials(access_key_id=None)"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, None),
        ({"signature_version": "s3"}, None),
        ({"endpoint_url": "http://h", "region_name": "r"}, {"endpoint_url": "http://h", "region": "r"}),
        ({"addressing_style": "virtual"}, {"addressing": "virtual"}),
        ({"verify_ssl": False}, {"insecure": True}),
        ({"verify_ssl": True}, None),
        ({"verify_ssl": "/ca.pem"}, {"ca_bundle": "/ca.pem"}),
        ({"connect_timeout": 2, "read_timeout": 0.5}, {"connect_timeout_ms": 2000, "read_timeout_ms": 500}),
        ({"max_attempts": 1}, {"max_retries": 0}),
        ({"max_attempts": 4}, {"max_retries": 3}),
    ],
)
def test_connection_options(given: dict[str, Any], made: Any) -> None:
    assert engine_options(given) == made


def test_options_that_are_wrong() -> None:
    with pytest.raises(ConfigValidationError, match="addressing_style"):
        engine_options({"addressing_style": "both"})


def test_the_file_wins_over_provider_and_options(tmp_path: Path) -> None:
    env = tmp_path / "a.env"
    env.write_text("AWS_ACCESS_KEY_ID=file\nAWS_SECRET_ACCESS_KEY=file-secret\nAWS_REGION=r2\n"
                   "AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true\nOTHER=1\n")
    before = dict(os.environ)
    assert engine_options({"region_name": "r1", "endpoint_url": "http://h"}, S3Credentials("id", "s", "t"), str(env)) == {
        "region": "r2", "endpoint_url": "http://h", "access_key_id": "file", "secret_access_key": "file-secret",
        "session_token": None, "addressing": "virtual",
    }
    assert dict(os.environ) == before


def test_dotenv() -> None:
    assert parse_env("""
# a comment
A=1
export B = two words   # comment
C="quo#ted"
D='single'
E=
F="unclosed
G=a=b
not a line
=x
""") == {"A": "1", "B": "two words", "C": "quo#ted", "D": "single", "E": "", "G": "a=b"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        # as python-dotenv 1.2 reads them, without interpolation
        ("\ufeffa=b", {"a": "b"}),
        ("a=b\t# note", {"a": "b"}),
        ("a=b#c", {"a": "b#c"}),
        ("a=#c", {"a": "#c"}),
        ("a= # c", {"a": ""}),
        ("export\ta=b", {"a": "b"}),
        ("  export   a=b", {"a": "b"}),
        ("exporta=b", {"exporta": "b"}),
        ("export=x", {"export": "x"}),
        (" a\t=\tb ", {"a": "b"}),
        ("a=b\r\nc=d\r\n", {"a": "b", "c": "d"}),
        ("a=x\rb=y", {"a": "x", "b": "y"}),
        ('a="x\ny" # c\nb=1', {"a": "x\ny", "b": "1"}),
        (r'a="b\nc\t\"\\\q"', {"a": 'b\nc\t"\\\\q'}),
        (r"a='b\nc\'\\'", {"a": "b\\nc'\\"}),
        ("a='x'#c\nb=\"\"", {"a": "x", "b": ""}),
        ('a="b"c\nd=1', {"d": "1"}),
        ('a="open\nb=1', {"b": "1"}),
        ("a=x'y'", {"a": "x'y'"}),
        ("'a b'=c", {"a b": "c"}),
        ("a\nb=2", {"b": "2"}),
        ("a:b=c", {"a:b": "c"}),
        ("a=1\na=2", {"a": "2"}),
        ('a="${b}"\nc=$d', {"a": "${b}", "c": "$d"}),
        ("", {}),
    ],
)
def test_dotenv_as_people_write_it(text: str, values: dict[str, str]) -> None:
    assert parse_env(text) == values


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_dotenv_file_in_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "keys.env"
    path.write_bytes("AWS_ACCESS_KEY_ID=\u00e9\n".encode(encoding))
    with pytest.raises(ConfigValidationError, match="keys.env: no text in UTF-8"):
        read_env_file(str(path))
    path.write_text("AWS_ACCESS_KEY_ID=a\n", "utf-8-sig")
    assert read_env_file(str(path)) == {"AWS_ACCESS_KEY_ID": "a"}


def test_a_file_that_cannot_be_read_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_env_file(str(tmp_path / "none")) == {}
    assert [(r.levelno, r.message) for r in caplog.records] == [(logging.WARNING, "env_file_unreadable")]


def test_env_files_for_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    path = materialize_env_file(
        S3Credentials("id", "secret", "token"),
        connection_options={"endpoint_url": "http://h:1", "region_name": "r", "addressing_style": "path"})
    assert Path(path).name.startswith("shardyfusion_creds_") and path.endswith(".env")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert Path(path).read_text().splitlines() == [
        "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret", "AWS_SESSION_TOKEN=token",
        "AWS_ENDPOINT_URL=http://h:1", "AWS_ALLOW_HTTP=true", "AWS_REGION=r", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST=false",
    ]
    monkeypatch.setenv("AWS_REGION", "before")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with apply_env_file(path):
        assert (os.environ["AWS_REGION"], os.environ["AWS_ENDPOINT_URL"]) == ("r", "http://h:1")
    assert os.environ["AWS_REGION"] == "before" and "AWS_ENDPOINT_URL" not in os.environ
    with resolve_env_file(path, None) as same:
        assert same == path
    remove_env_file(path)
    remove_env_file(path)
    with resolve_env_file(None, StaticCredentialProvider("id", "secret")) as made:
        assert made is not None and "AWS_ACCESS_KEY_ID=id" in Path(made).read_text()
    assert not Path(made).exists()
    with resolve_env_file(None, None) as nothing, apply_env_file(None):
        assert nothing is None


def test_factories() -> None:
    for factory in (AsyncSlateDbReaderFactory("f"), SlateDbReaderFactory("f", iterator_chunk_size=5)):
        assert pickle.loads(pickle.dumps(factory)) == factory
    with pytest.raises(ConfigValidationError, match="^iterator_chunk_size must be positive, got 0$"):
        SlateDbReaderFactory(iterator_chunk_size=0)
    with pytest.raises(TypeError):
        AsyncSlateDbReaderFactory(iterator_chunk_size=1)  # type: ignore[call-arg]


# ---------------------------------------------------------------- locations


@pytest.mark.parametrize(
    ("ref", "prefix", "relocate", "found"),
    [
        ("s3://b/p/manifests/x/manifest", "s3://b/q", False, "s3://b/p/manifests/x/manifest"),
        ("s3://b/p/manifests/x/manifest", "s3://b/q/", True, "s3://b/q/manifests/x/manifest"),
        ("s3://b/p/manifests/x/manifest", "file:///q", False, "file:///q/manifests/x/manifest"),
        ("s3://b/manifests/p/manifests/x/manifest", "/q", False, "/q/manifests/x/manifest"),
        ("s3://b/p/manifests/manifest", "/q", False, errors.ManifestParseError),
        ("run-1", "s3://b/q", False, errors.ConfigValidationError),
        ("s3://b/p/manifests/../../manifest", "/q", False, errors.ManifestParseError),
    ],
)
def test_where_a_manifest_lies(ref: str, prefix: str, relocate: bool, found: str | type[Exception]) -> None:
    if not isinstance(found, str):
        with pytest.raises(found):
            native.manifest_location(ref, prefix, relocate)
    else:
        assert native.manifest_location(ref, prefix, relocate) == found


@pytest.mark.parametrize(
    ("url", "prefix", "relocate", "found"),
    [
        ("s3://b/p/shards/0", "s3://b/q", False, "s3://b/p/shards/0"),
        ("s3://b/p/shards/0", "s3://b/q", True, "s3://b/q/shards/0"),
        ("s3://b/p/shards/0", "file:///q/", False, "file:///q/shards/0"),
        ("file:///etc", "s3://b/q", False, None),
        ("s3://b/p/../../etc", "/q", False, None),
    ],
)
def test_where_a_shard_lies(url: str, prefix: str, relocate: bool, found: str | None) -> None:
    if found is None:
        with pytest.raises(errors.ManifestParseError):
            native.shard_location(url, "s3://b/p/", prefix, relocate)
    else:
        assert native.shard_location(url, "s3://b/p/", prefix, relocate) == found


# ---------------------------------------------------------------- limiters


class Clock:
    """Stands in for time and sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(asyncio, "sleep", self.sleep_async)

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("cls", [TokenBucket, ThreadSafeTokenBucket])
def test_bucket(cls: type[TokenBucket], clock: Clock) -> None:
    metrics = ListMetricsCollector()
    bucket = cls(10, metrics, "keys")
    bucket.acquire(10)
    assert clock.slept == []
    result = bucket.try_acquire(5)
    assert not result and result.deficit == pytest.approx(0.5)
    assert metrics.events == [
        (MetricEvent.RATE_LIMITER_DENIED, {"deficit_seconds": pytest.approx(0.5), "limiter_type": "keys"})]
    metrics.events.clear()
    bucket.acquire(5)
    assert clock.slept == [0.5]
    throttled = (MetricEvent.RATE_LIMITER_THROTTLED, {"wait_seconds": pytest.approx(0.5), "limiter_type": "keys"})
    assert metrics.events[-1] == throttled
    denied = [e for e, _ in metrics.events].count(MetricEvent.RATE_LIMITER_DENIED)
    assert denied == (1 if cls is ThreadSafeTokenBucket else 0)
    clock.now += 1000
    assert bucket.try_acquire(10) and bucket.try_acquire(0)
    assert not bucket.try_acquire(1)


@pytest.mark.parametrize("cls", [TokenBucket, ThreadSafeTokenBucket])
async def test_more_than_the_bucket_holds(cls: type[TokenBucket], clock: Clock) -> None:
    metrics = ListMetricsCollector()
    bucket = cls(5, metrics)
    bucket.acquire(6)
    assert clock.slept == [0.2]
    await bucket.acquire_async(50)
    assert clock.slept == [0.2, 10.0]
    waits = [e for e, _ in metrics.events if e is MetricEvent.RATE_LIMITER_THROTTLED]
    assert len(waits) == 2


async def test_waiting_in_a_task(clock: Clock) -> None:
    metrics = ListMetricsCollector()
    bucket = TokenBucket(2, metrics)
    await bucket.acquire_async(2)
    await bucket.acquire_async()
    assert clock.slept == [0.5]
    assert [e for e, _ in metrics.events] == [MetricEvent.RATE_LIMITER_DENIED, MetricEvent.RATE_LIMITER_THROTTLED]


@pytest.mark.parametrize("cls", [TokenBucket, ThreadSafeTokenBucket])
async def test_waits_have_deadlines(cls: type[TokenBucket], clock: Clock) -> None:
    bucket = cls(1)
    bucket.acquire(1)
    with pytest.raises(errors.OperationTimeoutError):
        bucket.acquire(1, timeout=0.5)
    with pytest.raises(errors.OperationTimeoutError):
        await bucket.acquire_async(1, timeout=timedelta(milliseconds=500))
    assert clock.slept == []
    bucket.acquire(1, timeout=2)


def test_rates() -> None:
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="rate must be > 0"):
            TokenBucket(rate)
    bucket = TokenBucket(5)
    bucket.rate = 2
    assert bucket.rate == 2 and not bucket.try_acquire(3)
    with pytest.raises(ValueError):
        bucket.rate = 0
    assert pickle.loads(pickle.dumps(bucket)).rate == 2
    again = pickle.loads(pickle.dumps(TokenBucket(2, burst=7)))
    assert (again.rate, again.burst) == (2, 7) and again.try_acquire(7) and not again.try_acquire(1)
    again.rate = 3
    assert (again.rate, again.burst, TokenBucket(4).burst) == (3, 7, 4)
    for bad in (0, -1, "x"):
        with pytest.raises((ValueError, TypeError), match="burst must be > 0|not supported"):
            TokenBucket(1, burst=bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pickle.dumps(ThreadSafeTokenBucket(1))


def test_threads_share_a_bucket() -> None:
    bucket = ThreadSafeTokenBucket(1_000_000)
    taken = [0] * 4

    def take(index: int) -> None:
        for _ in range(2000):
            taken[index] += bool(bucket.try_acquire(400))

    before = time.monotonic()
    threads = [threading.Thread(target=take, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    allowed = 1_000_000 * (1 + time.monotonic() - before)
    assert sum(taken) * 400 <= allowed


# ---------------------------------------------------------------- metrics

EVENTS = [
    (MetricEvent.READER_GET, {"duration_ms": 20, "found": True}),
    (MetricEvent.READER_GET, {"duration_ms": 30, "found": False}),
    (MetricEvent.RATE_LIMITER_THROTTLED, {"wait_seconds": 0.5, "limiter_type": "ops"}),
    (MetricEvent.WRITE_COMPLETED, {"elapsed_ms": 1500, "rows_written": 3}),
    (MetricEvent.READER_INITIALIZED, {}),
    (MetricEvent.VECTOR_SEARCH, {}),
    (MetricEvent.S3_RETRY, {"operation": "get", "attempt": 1, "delay_s": 0.1}),
    (MetricEvent.S3_RETRY, {"operation": "get", "attempt": 4, "delay_s": 0.1, "count": 30}),
]


def test_prometheus() -> None:
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    collector = shardyfusion.metrics.PrometheusCollector(registry)
    for event, payload in EVENTS:
        collector.emit(event, payload)
    value = registry.get_sample_value
    assert value("shardyfusion_reader_gets_total") == 2
    assert value("shardyfusion_reader_get_duration_seconds_sum") == pytest.approx(0.05)
    assert value("shardyfusion_rate_limiter_wait_seconds_sum") == 0.5
    assert value("shardyfusion_write_duration_seconds_sum") == 1.5
    assert value("shardyfusion_s3_retries_total") == 31
    for name in ("writes_started", "shard_writes_completed", "batches_written", "reader_multi_gets",
                 "s3_retries_exhausted", "rate_limiter_denied"):
        assert value(f"shardyfusion_{name}_total") == 0
    with pytest.raises(ValueError):
        shardyfusion.metrics.PrometheusCollector(registry)
    assert shardyfusion.metrics.PrometheusCollector(registry, "other_")


def test_otel() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    for prefix, options in (("shardyfusion.", {}), ("mine.", {"prefix": "mine."})):
        reader = InMemoryMetricReader()
        collector = shardyfusion.metrics.OtelCollector(MeterProvider([reader]), **options)
        for event, payload in EVENTS:
            collector.emit(event, payload)
        found = {
            metric.name: metric
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        assert found[f"{prefix}reader_gets"].data.data_points[0].value == 2
        assert found[f"{prefix}reader_get_duration"].unit == "s"
        assert found[f"{prefix}reader_get_duration"].data.data_points[0].sum == pytest.approx(0.05)
        assert found[f"{prefix}s3_retries"].data.data_points[0].value == 31


def test_collectors_need_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError):
        shardyfusion.metrics.PrometheusCollector()
    with pytest.raises(ImportError):
        shardyfusion.metrics.OtelCollector()


# ---------------------------------------------------------------- logging


@pytest.fixture
def stream() -> Any:
    logger = logging.getLogger("shardyfusion")
    handlers, level = list(logger.handlers), logger.level
    yield io.StringIO()
    logger.handlers[:], _ = handlers, logger.setLevel(level)
    logger.propagate = True


def test_json_lines(stream: io.StringIO) -> None:
    configure_logging(logging.INFO, json_format=True, stream=stream)
    configure_logging(logging.INFO, json_format=True, stream=stream)  # replaces, does not add
    logger = get_logger("shardyfusion.some.module")
    with LogContext(run_id="r1"), LogContext(step=2):
        log_event("first", logger=logger, rows=3, where=Path("/x"))
    log_event("hidden", level=logging.DEBUG, logger=logger)
    log_failure("second", severity=FailureSeverity.CRITICAL, error=ValueError("bad"), include_traceback=True, db_id=1)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert datetime.fromisoformat(first.pop("timestamp")).tzinfo is not None
    assert first == {"level": "INFO", "logger": "shardyfusion.some.module", "event": "first", "run_id": "r1", "step": 2,
                     "rows": 3, "where": "/x"}
    assert (second["level"], second["severity"], second["error"], second["db_id"]) == (
        "CRITICAL", "critical", "ValueError('bad')", 1)
    assert second["traceback"] == ["ValueError: bad\n"]
    assert "run_id" not in second


def test_plain_lines(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    log_failure("it_failed", severity=FailureSeverity.TRANSIENT, db_id=1)
    log_event("it_worked")
    try:
        raise KeyError("bad")
    except KeyError as error:
        log_failure("it_raised", severity=FailureSeverity.ERROR, error=error, include_traceback=True, db_id=2)
    failed, worked, raised, *traceback = stream.getvalue().splitlines()
    assert raised.endswith("ERROR shardyfusion it_raised db_id=2 severity=error error=KeyError('bad')")
    assert (traceback[0], traceback[-1]) == ("Traceback (most recent call last):", "KeyError: 'bad'")
    assert failed.endswith("WARNING shardyfusion it_failed db_id=1 severity=transient")
    assert worked.endswith("INFO shardyfusion it_worked")


@pytest.mark.parametrize(("severity", "level"), [
    ("transient", "WARNING"), ("error", "ERROR"), ("critical", "CRITICAL"), (FailureSeverity.CRITICAL, "CRITICAL"),
])
def test_severities(stream: io.StringIO, severity: FailureSeverity | str, level: str) -> None:
    configure_logging(json_format=True, stream=stream)
    log_failure("failed", severity=severity)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["severity"]) == (level, FailureSeverity(severity).value)


def test_a_severity_that_is_none() -> None:
    with pytest.raises(ValueError, match="'fatal' is not a valid FailureSeverity"):
        log_failure("failed", severity="fatal")


def test_loggers_lie_below_the_package() -> None:
    assert get_logger("mine").name == "shardyfusion.mine"
    assert get_logger("shardyfusion").name == "shardyfusion"
    assert get_logger("shardyfusion.x").name == "shardyfusion.x"
    assert [type(h) for h in logging.getLogger("shardyfusion").handlers] == [logging.NullHandler]
    record = logging.LogRecord("n", logging.INFO, "p", 1, "message", None, None)
    assert json.loads(JsonFormatter().format(record))["event"] == "message"
    record.created = 0.5
    assert json.loads(JsonFormatter().format(record))["timestamp"] == "1970-01-01T00:00:00.500000+00:00"
    assert json.loads(JsonFormatter(datefmt="at %%").format(record))["timestamp"] == "at %"


@pytest.mark.parametrize(("configure", "expected"), [
    ("pass", []),
    ("logging.basicConfig(format='root %(message)s', level='INFO')", ["root told", "root failed"]),
    ("configure_logging(json_format=True)", ["told", "failed"]),
    ("configure_logging(json_format=True); configure_logging(json_format=True)", ["told", "failed"]),
    ("logging.basicConfig(format='root %(message)s', level='INFO'); configure_logging(json_format=True)", ["told", "failed"]),
    ("configure_logging(json_format=True); logging.basicConfig(format='root %(message)s')", ["told", "failed"]),
    ("configure_logging(json_format=True, stream=sys.stdout)", []),
])
def test_every_event_is_printed_once_or_not_at_all(configure: str, expected: list[str]) -> None:
    program = f"""
import logging, sys
from shardyfusion.logging import FailureSeverity, configure_logging, get_logger, log_event, log_failure
{configure}
log_event("told", logger=get_logger("a.b"))
log_failure("failed", severity=FailureSeverity.ERROR)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert [json.loads(line)["event"] if line.startswith("{") else line for line in lines] == expected


# ---------------------------------------------------------------- timeouts


TIMES: dict[str, tuple[Any, Any]] = {
    "none": (None, None),
    "seconds": (1, 1.0),
    "fraction": (0.0004, 0.0004),
    "timedelta": (timedelta(milliseconds=250), 0.25),
    "numpy": (numpy.float32(0.5), 0.5),
    "decimal": (Decimal("1.5"), 1.5),
    "past": (-1, 0.0),
    "past timedelta": (timedelta(days=-1), 0.0),
    "past for ever": (float("-inf"), 0.0),
    "infinite": (float("inf"), None),
    "age of the universe": (1e18, None),
    "beyond floats": (10**400, None),
    "nan": (float("nan"), ValueError("timeout is not a number")),
    "text": ("1", TypeError("timeout must be seconds, a timedelta or None, not str")),
    "bytes": (b"1", TypeError("timeout must be seconds, a timedelta or None, not bytes")),
    "bool": (True, TypeError("timeout must be seconds, a timedelta or None, not bool")),
    "complex": (1j, TypeError("timeout must be seconds, a timedelta or None, not complex")),
    "list": ([1], TypeError("timeout must be seconds, a timedelta or None, not list")),
}


@pytest.mark.parametrize(("given", "expected"), TIMES.values(), ids=TIMES)
def test_what_a_timeout_may_be(given: Any, expected: Any, tmp_path: Path) -> None:
    if not isinstance(expected, Exception):
        assert seconds(given) == expected
        return
    place = {"s3_prefix": str(FIXTURES.parents[1] / "examples" / "snapshot"), "local_root": str(tmp_path)}
    calls: list[Any] = [lambda: seconds(given), lambda: TokenBucket(1).acquire(timeout=given)]
    for cls in (ShardedReader, ConcurrentShardedReader):
        with pytest.raises(type(expected), match=f"^open_{expected}$"):
            cls(**place, open_timeout=given)
        for options in ({}, {"rate_limiter": TokenBucket(1000)}):
            reader = cls(**place, **options)
            calls += [
                lambda r=reader: r.get("x", timeout=given), lambda r=reader: r.multi_get(["x"], timeout=given),
                lambda r=reader: r.refresh(timeout=given), lambda r=reader: r.scan(timeout=given),
                lambda r=reader: r.reader_for_key("x").reader.get(b"x", timeout=given),
            ]
    for call in calls:
        with pytest.raises(type(expected), match=f"^{expected}$"):
            call()

    async def asynchronous() -> None:
        with pytest.raises(type(expected), match=f"^{expected}$"):
            await AsyncShardedReader.open(**place, timeout=given)
        for options in ({}, {"rate_limiter": TokenBucket(1000)}):
            async with AsyncShardedReader.open(**place, **options) as reader:
                with reader_for(reader) as handle:
                    for work in (
                        lambda: reader.get("x", timeout=given), lambda: reader.multi_get(["x"], timeout=given),
                        lambda: reader.get_many(["x"], timeout=given), lambda: reader.refresh(timeout=given),
                        lambda: anext(reader.scan(timeout=given)), lambda: handle.get(b"x", timeout=given),
                        lambda: handle.multi_get([b"x"], timeout=given), lambda: handle.reader.get(b"x", timeout=given),
                        lambda: TokenBucket(1).acquire_async(timeout=given),
                    ):
                        with pytest.raises(type(expected), match=f"^{expected}$"):
                            await work()

    asyncio.run(asynchronous())


@contextlib.contextmanager
def reader_for(reader: Any) -> Any:
    handle = reader.reader_for_key("x")
    try:
        yield handle
    finally:
        handle.close()


def test_coroutines_say_that_they_need_asyncio(tmp_path: Path) -> None:
    place = {"s3_prefix": str(FIXTURES.parents[1] / "examples" / "snapshot"), "local_root": str(tmp_path)}
    reader = asyncio.run(opened(place))

    async def dictionary(**arguments: Any) -> Any:
        raise AssertionError

    def write() -> Any:
        return aio.write_hash_sharded([], HashShardedWriteConfig(num_dbs=1, s3_prefix=tmp_path.as_uri()),
                                      PythonRecordInput(key_fn=len, value_fn=len))

    for work in (
        lambda: AsyncShardedReader.open(**place), lambda: AsyncShardedReader.open(**place, timeout=5),
        lambda: AsyncShardedReader.open(**place, reader_factory=dictionary), lambda: reader.refresh(),
        lambda: reader.refresh(timeout=5), lambda: AsyncObstoreBackend(create_s3_store("bucket")).get("s3://bucket/x"), write,
    ):
        coroutine = work()
        with pytest.raises(RuntimeError, match="no running event loop of asyncio, .* under trio"):
            coroutine.send(None)
        coroutine.close()
    asyncio.run(reader.close())


async def opened(place: dict[str, str]) -> AsyncShardedReader:
    return await AsyncShardedReader.open(**place)


# ---------------------------------------------------------------- errors


def all_errors() -> list[type[errors.ShardyfusionError]]:
    return [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_errors(cls: type[errors.ShardyfusionError]) -> None:
    error = cls("text")
    assert str(error) == "text" and isinstance(error, errors.ShardyfusionError)
    assert (error.db_id, error.object_url, error.operation, error.attempts) == (None,) * 4
    error.db_id, error.retryable = 3, not cls.retryable
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.db_id, again.retryable) == (cls, "text", 3, not cls.retryable)


def test_the_reference_of_a_pointer_that_did_not_move() -> None:
    error = errors.PublishCurrentError("text", manifest_ref="ref")
    assert pickle.loads(pickle.dumps(error)).manifest_ref == error.manifest_ref == "ref"


@pytest.mark.parametrize(
    ("status", "db_id", "cls", "also"),
    [
        ("INVALID", None, "ConfigValidationError", ValueError),
        ("STATE", None, "ReaderStateError", Exception),
        ("NO_CURRENT", None, "ReaderStateError", FileNotFoundError),
        ("NO_SNAPSHOT", None, "ReaderStateError", Exception),
        ("BAD_MANIFEST", None, "ManifestParseError", Exception),
        ("NOT_FOUND", None, "ManifestStoreError", FileNotFoundError),
        ("NOT_FOUND", 2, "DbAdapterError", FileNotFoundError),
        ("CORRUPT", None, "ManifestParseError", Exception),
        ("CORRUPT", 2, "DbAdapterError", Exception),
        ("UNSUPPORTED", None, "ConfigValidationError", Exception),
        ("UNSUPPORTED", 2, "DbAdapterError", Exception),
        ("MERGE_OPERATOR", 2, "DbAdapterError", Exception),
        ("DENIED", None, "ManifestStoreError", PermissionError),
        ("DENIED", 2, "DbAdapterError", PermissionError),
        ("CONFLICT", None, "ManifestStoreError", Exception),
        ("IO", None, "ManifestStoreError", Exception),
        ("IO", 2, "DbAdapterError", Exception),
        ("UNAVAILABLE", None, "S3TransientError", Exception),
        ("UNAVAILABLE", 2, "S3TransientError", Exception),
        ("TIMEOUT", 2, "OperationTimeoutError", TimeoutError),
        ("FORKED", None, "ReaderStateError", Exception),
        ("SOMETHING_NEW", None, "ShardyfusionError", Exception),
    ],
)
def test_errors_of_the_engine(status: str, db_id: int | None, cls: str, also: type) -> None:
    retryable = status in ("UNAVAILABLE", "TIMEOUT")
    error = from_engine(
        status, "s3://b/k: what happened", http_status=0, db_id=db_id, object_url="s3://b/k", operation="get",
        attempts=3, retryable=retryable)
    assert isinstance(error, getattr(errors, cls)) and isinstance(error, also)
    assert (error.db_id, error.object_url, error.operation, error.attempts, error.retryable) == (
        db_id, "s3://b/k", "get", 3, retryable)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.object_url) == (type(error), str(error), "s3://b/k")
    inside = inside_shard(error, "Failed to open SlateDB at 's3://b/k': what happened")
    assert str(inside).startswith("Failed to open") and inside.object_url == "s3://b/k"
    if status in ("NOT_FOUND", "DENIED", "CORRUPT", "IO", "UNSUPPORTED", "BAD_MANIFEST"):
        assert isinstance(inside, errors.DbAdapterError)


@pytest.mark.parametrize("status", ["INVALID", "INVALID_KEY", "UNSUPPORTED", "IO"])
def test_what_storage_answers_is_no_fault_of_the_configuration(status: str) -> None:
    outside, inside = from_engine(status, "405", http_status=405), from_engine(status, "405", http_status=405, db_id=1)
    assert isinstance(outside, errors.ManifestStoreError) and isinstance(inside, errors.DbAdapterError)
    assert not isinstance(outside, errors.ConfigValidationError | ValueError)


def test_not_everything_that_cannot_be_done_now_is_closed() -> None:
    error = from_engine("STATE", "a step of this scan is in flight already")
    assert type(error) is errors.ReaderStateError and str(error) == "a step of this scan is in flight already"


def test_memory_errors_are_memory_errors() -> None:
    assert type(from_engine("NOMEM", "no memory", retryable=True)) is MemoryError


# ---------------------------------------------------------------- value objects


def test_value_objects() -> None:
    now = datetime.now(timezone.utc)
    info = SnapshotInfo("r", 2, ShardingStrategy.HASH, now, "ref")
    detail = ShardDetail(0, 1, 2, 3, "url")
    health = ReaderHealth("healthy", "ref", timedelta(0), 2, False)
    for value in (info, detail, health):
        assert pickle.loads(pickle.dumps(value)) == value
        assert dataclasses.replace(value) == value
        assert dataclasses.asdict(value)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, "x")
    match health:
        case ReaderHealth("healthy", ref, _, shards, closed):
            assert (ref, shards, closed) == ("ref", 2, False)
    assert (info.row_count, info.key_encoding) == (0, KeyEncoding.U64BE)
    assert str(KeyEncoding.U64BE) == "KeyEncoding.U64BE" and json.dumps(KeyEncoding.U64BE) == '"u64be"'
    assert RetryConfig() == RetryConfig(3, timedelta(seconds=1), 2.0)


def test_models() -> None:
    from pydantic import ValidationError

    from shardyfusion.manifest import ManifestShardingSpec, ParsedManifest, RequiredShardMeta

    shard = RequiredShardMeta(db_id=1, attempt=0, row_count=0, db_bytes=0)
    shard.row_count = 5
    assert pickle.loads(pickle.dumps(shard)) == shard == shard.model_copy()
    assert RequiredShardMeta.model_validate({**shard.model_dump(), "future": 1}) == shard
    assert RequiredShardMeta.model_validate_json(shard.model_dump_json()) == shard
    assert RequiredShardMeta.__module__ == "shardyfusion.manifest"
    for bad in ({"db_id": -1}, {"attempt": -1}, {"row_count": -1}, {"db_bytes": -1}):
        with pytest.raises(ValidationError):
            RequiredShardMeta(**{**shard.model_dump(), **bad})
    for bad in ({}, {"hash_algorithm": "md5"}, {"hash_algorithm": "xxh3_64", "future": None}):
        with pytest.raises(ValueError):
            ManifestShardingSpec(**bad)
    from plugged import make_manifest

    manifest = make_manifest("r")
    for by_alias, name in ((False, "required_build"), (None, "required_build"), (True, "required")):
        assert list(manifest.model_dump(by_alias=by_alias)) == [name, "shards", "custom"]
        assert list(json.loads(manifest.model_dump_json(by_alias=by_alias))) == [name, "shards", "custom"]
        assert ParsedManifest.model_validate(manifest.model_dump(mode="json", by_alias=by_alias)) == manifest
    assert ParsedManifest(
        required_build=manifest.required_build, shards=manifest.shards) == ParsedManifest(
        required=manifest.required_build, shards=manifest.shards)


def test_values_of_rows() -> None:
    row = {"a": 1, "b": b"x", "c": None, "t": "ä"}
    assert ValueSpec.binary_col("b").encode(row) == b"x"
    assert ValueSpec.binary_col("c").encode(row) == b""
    assert ValueSpec.binary_col("t").encode(row) == "ä".encode()
    with pytest.raises(ConfigValidationError, match="^binary_col expects bytes/bytearray/str, got <class 'int'>$"):
        ValueSpec.binary_col("a").encode(row)
    assert ValueSpec.callable_encoder(lambda r: b"%d" % r["a"]).encode(row) == b"1"
    assert ValueSpec.binary_col("b").referenced_columns() == ["b"]
    assert ValueSpec.json_cols(["a", "t"]).referenced_columns() == ["a", "t"]
    assert ValueSpec.json_cols().referenced_columns() is None
    for spec in (ValueSpec.binary_col("b"), ValueSpec.json_cols(["a"])):
        assert pickle.loads(pickle.dumps(spec)).encode(row) == spec.encode(row)
