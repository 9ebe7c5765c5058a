"""Text of strangers (pointers, manifests, URLs, answers) in messages, logs and on terminals."""

from __future__ import annotations

import contextlib
import asyncio
import io
import json
import logging
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from fixtures import FIXTURES
from test_cli import SHARDY

from shardyfusion import ShardedReader
from shardyfusion._engine import native
from shardyfusion.async_manifest_store import AsyncS3ManifestStore
from shardyfusion.errors import ManifestParseError, ShardyfusionError
from shardyfusion.logging import LOGGER, configure_logging, log_event
from shardyfusion._manifest_objects import run_id_of_ref
from shardyfusion.storage import parse_s3_url

CASE = FIXTURES / "snapshots" / "slatedb-hash-u64be"
EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\u2028\u202egnp.exe\u2066\u200b"
SAFE = r"\x1b]0;owned\x07\x1b[31m\u009b2J\x7f\u2028\u202egnp.exe\u2066\u200b"


def is_safe(text: str) -> bool:
    return native.safe_text(text) == text


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(CASE / "bucket" / "golden" / "slatedb-hash-u64be", tmp_path / "p")
    return tmp_path / "p"


def everything_said(error: BaseException | None) -> str:
    said = ""
    while error is not None:
        said += f"{error}{getattr(error, 'object_url', '')}"
        error = error.__cause__ or error.__context__
    return said


@pytest.mark.parametrize("ref", [f"/nowhere/{EVIL}/manifest", f"file:///nowhere/manifests/{EVIL}/manifest", EVIL])
def test_a_hostile_pointer(copied: Path, ref: str) -> None:
    pointer = json.loads((copied / "_CURRENT").read_text())
    pointer["manifest_ref"] = ref
    (copied / "_CURRENT").write_text(json.dumps(pointer))
    with pytest.raises(ShardyfusionError) as caught:
        ShardedReader(s3_prefix=copied.as_uri(), local_root=str(copied.parent / "root"))
    said = everything_said(caught.value)
    # a location that is no URL is cut where that begins
    shown = SAFE if ref == EVIL else SAFE[: SAFE.index("]")]
    assert is_safe(said) and shown in said and "\\\\" not in said, said
    done = subprocess.run([SHARDY, "--current-url", copied / "_CURRENT", "info"], capture_output=True, text=True)
    assert done.returncode == 1 and is_safe(done.stderr.replace("\n", "")) and shown in done.stderr, done.stderr


def test_hostile_metadata_on_a_terminal(copied: Path) -> None:
    manifest = next(copied.glob("manifests/*/manifest"))
    with contextlib.closing(sqlite3.connect(manifest)) as con, con:
        table, column = "build_meta", "run_id"
        names = {row[0] for row in con.execute("SELECT name FROM sqlite_master")}
        table = next(name for name in sorted(names) if "build" in name)
        columns = {row[1] for row in con.execute(f"PRAGMA table_info({table})")}
        if column in columns:
            con.execute(f"UPDATE {table} SET {column} = ?", (EVIL,))
        else:
            con.execute(f"UPDATE {table} SET value = ? WHERE key = ?", (json.dumps(EVIL), column))
        shards = next(name for name in sorted(names) if "shard" in name)
        con.execute(f"UPDATE {shards} SET min_key = ?", (json.dumps(EVIL, ensure_ascii=False),))
    con.close()
    for arguments in (["info"], ["shards"], ["--output-format", "text", "shards"], ["--output-format", "json", "shards"]):
        done = subprocess.run([SHARDY, "--current-url", copied / "_CURRENT", *arguments], capture_output=True)
        assert is_safe(done.stdout.decode().replace("\n", "")), done.stdout
        assert done.returncode == 0, done.stderr
        if "text" not in arguments:
            json.loads(done.stdout)
    assert r"\u001b" in done.stdout.decode() and r"\u202e" in done.stdout.decode()


def test_exceptions_and_logs() -> None:
    assert str(ManifestParseError(EVIL)) == SAFE == str(ManifestParseError(SAFE))
    assert native.safe_text("C:\\x") == "C:\\x" and native.safe_text("a\0\udc80") == r"a\x00\xed\xb2\x80"
    for call in (lambda: parse_s3_url(f"http://{EVIL}"), lambda: run_id_of_ref(EVIL)):
        with pytest.raises(ValueError) as caught:
            call()
        assert is_safe(str(caught.value))
    before = list(LOGGER.handlers)
    level = LOGGER.level
    try:
        for as_json in (False, True):
            stream = io.StringIO()
            configure_logging(json_format=as_json, stream=stream)
            log_event("manifest_read", level=logging.ERROR, ref=EVIL)
            lines = stream.getvalue().splitlines()
            assert len(lines) == 1 and is_safe(lines[0]), lines
            if as_json:
                assert json.loads(lines[0])["ref"] == EVIL
    finally:
        LOGGER.handlers[:] = before
        LOGGER.setLevel(level)


def test_a_hostile_pointer_of_a_plugged_store() -> None:
    class Backend:
        async def try_get(self, url: str) -> bytes | None:
            return json.dumps({"manifest_ref": EVIL, "updated_at": EVIL, "format_version": EVIL, EVIL: 1}).encode()

    with pytest.raises(ManifestParseError) as caught:
        asyncio.run(AsyncS3ManifestStore(Backend(), "s3://b/p").load_current())  # type: ignore[arg-type]
    assert is_safe(str(caught.value))
