"""What the engine's stores warn of reaches Python's logging."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path

import pytest

from shardyfusion import ShardedReader
from shardyfusion.errors import ShardyfusionError


def test_a_store_without_credentials_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with socket.socket() as nobody:  # bound, and never listening
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with caplog.at_level(logging.WARNING, "shardyfusion.storage"), pytest.raises(ShardyfusionError):
            ShardedReader(
                s3_prefix="s3://bucket/prefix",
                local_root=str(tmp_path / "local"),
                s3_connection_options={"endpoint_url": endpoint, "region_name": "us-east-1"},
                open_timeout=1,
            )
        for _ in range(1000):  # the main thread tells it when it comes by
            if caplog.records:
                break
            time.sleep(0.01)
    warnings = [record for record in caplog.records if record.name == "shardyfusion.storage"]
    assert [record.getMessage() for record in warnings] == ["storage_warning"]
    assert "no credentials were found" in str(vars(warnings[0]))
