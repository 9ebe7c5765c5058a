"""The `shardy` command over a bundled snapshot."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARDY = Path(os.environ.get("SF_SHARDY", ROOT / "build-python" / "cli" / "shardy"))
CASE = ROOT / "tests" / "fixtures" / "snapshots" / "slatedb-hash-u64be"
POINTER = CASE / "bucket" / "golden" / "slatedb-hash-u64be" / "_CURRENT"
EXPECTED = json.loads((CASE / "expected.json").read_text())


def shardy(*arguments: str, pointer: str | Path = POINTER) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SHARDY), "--current-url", str(pointer), *arguments], capture_output=True, text=True,
                          timeout=60)


def test_info_and_shards() -> None:
    info = json.loads(shardy("info").stdout)
    assert info["run_id"] == EXPECTED["snapshot_info"]["run_id"]
    assert info["row_count"] == EXPECTED["snapshot_info"]["row_count"]
    shards = json.loads(shardy("--output-format", "json", "shards").stdout)["shards"]
    assert [s["row_count"] for s in shards] == [s["row_count"] for s in EXPECTED["shards"]]


def test_get_multiget_and_route() -> None:
    rows = [x for x in EXPECTED["lookups"] if x.get("value")][:20]
    for x in rows:
        key = x["key"]["int"]
        answer = json.loads(shardy("get", key).stdout)
        assert answer["found"] and base64.b64decode(answer["value"]) == bytes.fromhex(x["value"])
        assert json.loads(shardy("route", key).stdout)["db_id"] == x["db_id"]
    keys = [x["key"]["int"] for x in rows]
    answers = json.loads(shardy("multiget", *keys).stdout)["results"]
    assert [base64.b64decode(a["value"]).hex() for a in answers] == [x["value"] for x in rows]


def test_scan_is_in_key_order() -> None:
    done = shardy("scan", "--limit", "25")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 25


def test_health_exits_0() -> None:
    assert shardy("health").returncode == 0


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (("frobnicate",), 2, "No such command"),
    ((), 2, "Missing command"),
    (("get", "not-a-number"), 1, "not a valid integer"),
    (("--output-format", "xml", "info"), 2, "unknown output format"),
])
def test_mistakes_are_named(arguments: tuple[str, ...], code: int, text: str) -> None:
    done = shardy(*arguments)
    assert done.returncode == code
    assert text in done.stderr


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    done = shardy("info", pointer=tmp_path / "_CURRENT")
    assert done.returncode == 1
    assert str(tmp_path / "_CURRENT") in done.stderr
