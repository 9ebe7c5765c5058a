"""S3Config: the same settings as `s3_connection_options`, wherever those are taken."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import (
    ConfigValidationError,
    HashShardedWriteConfig,
    PythonRecordInput,
    S3Config,
    S3Credentials,
    ShardedReader,
    StaticCredentialProvider,
)
from shardyfusion._s3_options import engine_options
from shardyfusion.maintenance import history
from shardyfusion.slatedb_adapter import SlateDbFactory
from shardyfusion.writer.python import write_hash_sharded

KEYS = {"access_key_id": "A", "secret_access_key": "B", "session_token": None}


@pytest.mark.parametrize(("fields", "engine"), [
    ({}, None),
    ({"endpoint": "http://here:9000", "region": "eu-1"}, {"endpoint_url": "http://here:9000", "region": "eu-1"}),
    ({"addressing": "virtual"}, {"addressing": "virtual"}),
    ({"timeouts": 2}, {"connect_timeout_ms": 2000, "read_timeout_ms": 2000}),
    ({"timeouts": timedelta(seconds=1)}, {"connect_timeout_ms": 1000, "read_timeout_ms": 1000}),
    ({"timeouts": (0.5, None)}, {"connect_timeout_ms": 500}),
    ({"timeouts": (None, timedelta(minutes=1))}, {"read_timeout_ms": 60_000}),
    ({"retries": 0}, {"max_retries": 0}),
    ({"retries": 3}, {"max_retries": 3}),
    ({"ca_bundle": Path("/ca.pem")}, {"ca_bundle": "/ca.pem"}),
    ({"requester_pays": True}, {"requester_pays": True}),
    ({"credentials": S3Credentials("A", "B")}, KEYS),
    ({"credentials": StaticCredentialProvider("A", "B")}, KEYS),
])
def test_what_the_engine_gets(fields: dict[str, Any], engine: dict[str, Any] | None) -> None:
    config = S3Config(**fields)
    assert engine_options(config) == engine
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_provider_of_its_own_wins() -> None:
    options = engine_options(S3Config(credentials=S3Credentials("A", "B")), S3Credentials("C", "D"))
    assert options is not None and options["access_key_id"] == "C"


@pytest.mark.parametrize(("fields", "text"), [
    ({"addressing": "sideways"}, "addressing_style"), ({"endpoint": 5}, "endpoint_url"), ({"timeouts": -1}, "connect_timeout"),
    ({"retries": -2}, "max_attempts"), ({"timeouts": "soon"}, "connect_timeout"),
])
def test_what_cannot_be(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigValidationError, match=text):
        HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://b/p", s3_connection_options=S3Config(**fields)).validate()


def test_where_options_are_taken(tmp_path: Path) -> None:
    config = S3Config(endpoint="http://here:9000")
    records = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"%d" % n)
    written = HashShardedWriteConfig(num_dbs=1, s3_prefix=tmp_path / "snapshot", s3_connection_options=config)
    write_hash_sharded(range(3), written, records)
    assert len(history(tmp_path / "snapshot", s3_connection_options=config)) == 1
    with ShardedReader(s3_prefix=tmp_path / "snapshot", local_root=str(tmp_path), s3_connection_options=config) as reader:
        assert reader.get(2) == b"2"
    HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://b/p", s3_connection_options=config).validate()
    assert SlateDbFactory(s3_connection_options=config).s3_connection_options is config


def test_from_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "SLATEDB_S3_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_PROFILE",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "config").write_text("[default]\nca_bundle = /ca.pem\n")
    for name, value in {
        "S3_REGION": "eu-1", "AWS_ENDPOINT_URL": "http://there:9000", "AWS_REQUEST_PAYER": "requester",
        "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B",
    }.items():
        monkeypatch.setenv(name, value)
    config = S3Config.from_env()
    assert config == S3Config(
        endpoint="http://there:9000", region="eu-1", addressing="path", ca_bundle="/ca.pem", requester_pays=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nowhere")
    with pytest.raises(ConfigValidationError, match="endpoint"):
        S3Config.from_env()
