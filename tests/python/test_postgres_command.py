"""`shardy` over manifests in PostgreSQL, and with it the library's own client, over libpq."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from postgres_server import PASSWORD, PostgresServer
from shardyfusion import (
    HashShardedWriteConfig,
    PythonRecordInput,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion.db_manifest_store import PostgresManifestStore
from shardyfusion.writer.python import write_hash_sharded
from test_cli import shardy

_numbers = itertools.count()
Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Published:
    """Runs run-1 to run-3 in tables of a test's own, with key n and value "<run>:<n>"; what is there to start from."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.tables = {"table_name": f"c{next(_numbers)}", "pointer_table_name": f"c{next(_numbers)}"}
        self.store = PostgresManifestStore(lambda: psycopg2.connect(server.url()), **self.tables)
        for run_id in ("run-1", "run-2", "run-3"):
            config = HashShardedWriteConfig(
                num_dbs=2, s3_prefix=(folder / "p").as_uri(), manifest=WriterManifestConfig(store=self.store),
                output=WriterOutputConfig(run_id=run_id, local_root=str(folder / "local")),
            )  # fmt: skip
            rows = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n, run=run_id: f"{run}:{n}".encode())
            write_hash_sharded(range(10), config, rows)
        self.write_config()

    def write_config(self, dsn: str | None = None) -> None:
        names = "".join(f'{name} = "{value}"\n' for name, value in self.tables.items())
        dsn_line = f'dsn = "{dsn}"\n' if dsn else ""
        (self.folder / "reader.toml").write_text(f'[manifest_store]\nbackend = "postgres"\n{dsn_line}{names}')

    def sql(self, text: str) -> None:
        connection = psycopg2.connect(self.server.url())
        connection.autocommit = True
        connection.cursor().execute(text.format(t=self.tables["table_name"], p=self.tables["pointer_table_name"]))
        connection.close()

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        settings = {"SHARDY_MANIFEST_DSN": self.server.url(), "SHARDY_CONFIG": str(self.folder / "reader.toml"), **env}
        done = shardy(*arguments, env=settings, cwd=self.folder)
        assert PASSWORD not in done.stdout + done.stderr
        return done


@pytest.fixture
def run(postgres: PostgresServer, tmp_path: Path) -> Published:
    return Published(postgres, tmp_path)


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_looking(run: Published) -> None:
    info = answer(run("info"))
    assert (info["run_id"], info["manifest_ref"], info["row_count"]) == ("run-3", "run-3", 10)
    assert run("get", "4", "--raw").stdout == "run-3:4"
    assert run("get", "4", "--raw", "--ref", "run-1").stdout == "run-1:4"
    assert run("get", "4", "--raw", "--offset", "1").stdout == "run-2:4"
    assert len(answer(run("shards"))["shards"]) == 2 and answer(run("health"))["status"] == "healthy"
    history = answer(run("history"))["manifests"]
    assert [(m["run_id"], m["ref"], m.get("current")) for m in history] == [
        ("run-3", "run-3", True), ("run-2", "run-2", None), ("run-1", "run-1", None)
    ]  # fmt: skip
    listed = [ref.published_at.isoformat() for ref in run.store.list_manifests()]
    assert [m["published_at"].replace("Z", "+00:00") for m in history] == listed
    assert len(answer(run("history", "--limit", "1"))["manifests"]) == 1
    assert run("diff", "run-1", "run-2").returncode == 0


def test_the_pointer_as_a_url(run: Published) -> None:
    run.sql("CREATE TABLE IF NOT EXISTS shardyfusion_pointer (LIKE {p}); CREATE TABLE IF NOT EXISTS shardyfusion_manifests_builds (LIKE {t}_builds)")
    url = run.server.url()
    assert "the server" not in run("--current-url", url, "history", SHARDY_CONFIG="").stderr
    assert run("history", SHARDY_CURRENT=url.replace("postgresql://", "postgres://"), SHARDY_CONFIG="").returncode == 0
    # one that is named outside of the file counts more than the file
    prefix = (run.folder / "p").as_uri()
    assert "no manifests" in run("-o", "text", "--current-url", prefix, "history").stdout


def test_rollback(run: Published) -> None:
    done = run("rollback", "--run-id", "run-1")
    assert (done.returncode, done.stdout) == (0, "Rolled back _CURRENT to: run-1\n")
    assert answer(run("info"))["run_id"] == "run-1" and run.store.load_current().ref == "run-1"  # type: ignore[union-attr]
    assert run("rollback", "--offset", "0").stdout == "Rolled back _CURRENT to: run-3\n"
    assert "run_id nobody: CURRENT stays as it is" in run("rollback", "--ref", "nobody", "--force").stderr
    for folder in (run.folder / "p" / "shards" / "run_id=run-2").glob("db=*"):
        folder.rename(folder.with_name("gone"))
        break
    done = run("rollback", "--run-id", "run-2")
    assert done.returncode == 1 and "--force moves the pointer all the same" in done.stderr
    assert answer(run("info"))["run_id"] == "run-3"
    assert run("rollback", "--run-id", "run-2", "--force").returncode == 0 and answer(run("info"))["run_id"] == "run-2"


@pytest.mark.parametrize("command", [["cleanup"], ["du"], ["doctor"], ["publish", "x.csv", "--key", "a", "--value", "b", "--num-dbs", "1"]])
def test_what_needs_a_prefix_says_so(run: Published, command: list[str]) -> None:
    done = run(*command)
    assert done.returncode == 1 and f"{command[0]} works on what lies below a prefix" in done.stderr


def test_rows_that_are_lost(run: Published) -> None:
    run.sql("DELETE FROM {t}_shards WHERE run_id = 'run-3' AND db_id = 0")
    done = run("get", "4", "--raw")
    assert done.stdout == "run-2:4" and "1 rows of shards are there, and shard_rows is 2" in done.stderr
    run.sql("DELETE FROM {t}_shards WHERE run_id = 'run-3'; DELETE FROM {t}_builds WHERE run_id = 'run-3'")
    done = run("get", "4", "--raw")  # as of a manifest in storage that is gone: no fallback
    assert (done.returncode, done.stdout) == (1, "") and "run_id run-3: there is no such row" in done.stderr
    run.sql("DELETE FROM {p}")
    assert answer(run("info"))["run_id"] == "run-2"  # the newest build
    run.sql("DELETE FROM {t}_shards; DELETE FROM {t}_builds")
    assert "CURRENT pointer not found" in run("info").stderr
    run.sql("DROP TABLE {p}")
    done = run("info")
    assert done.returncode == 1 and f'relation "{run.tables["pointer_table_name"]}" does not exist' in done.stderr


def test_a_server_that_hangs_or_is_gone(run: Published) -> None:
    paused = run.server.pause()
    try:
        for command in (["info"], ["history"], ["rollback", "--run-id", "run-1"]):
            done = run("--timeout", "0.3", *command)
            assert done.returncode == 1 and ("answered in time" in done.stderr or "deadline passed" in done.stderr)
    finally:
        run.server.go_on(paused)
    run.server.kill()
    try:
        done = run("--timeout", "0.5", "info")
        assert done.returncode == 1 and "refused" in done.stderr and run.server.url().split("@")[1].split("?")[0] in done.stderr
    finally:
        run.server.start()
    assert answer(run("info"))["run_id"] == "run-3"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://shardy:{password}x@127.0.0.1:{port}/postgres",
        "postgresql://shardy:a@{password}@127.0.0.1:{port}/postgres",
        "postgresql://shardy:a/{password}@127.0.0.1:{port}/postgres",
        "postgresql://shardy:x@127.0.0.1:{port}/postgres?{password}=1",
        "host=127.0.0.1 port={port} user=shardy password=a {password}",
    ],
)
def test_no_password_is_told(run: Published, dsn: str) -> None:
    url = dsn.format(password=PASSWORD, port=run.server.port)
    for command in (["info"], ["history"]):
        assert run("--timeout", "1", *command, SHARDY_MANIFEST_DSN=url).returncode == 1
    if "://" in url:
        assert run("--timeout", "1", "info", SHARDY_CURRENT=url, SHARDY_CONFIG="").returncode == 1
    run.write_config(url)
    assert run("--timeout", "1", "info", SHARDY_MANIFEST_DSN="").returncode == 1


def test_settings(run: Published) -> None:
    run.write_config(run.server.url())
    assert answer(run("info", SHARDY_MANIFEST_DSN=""))["run_id"] == "run-3"
    run.write_config()
    assert "neither dsn nor SHARDY_MANIFEST_DSN" in run("info", SHARDY_MANIFEST_DSN="").stderr
    run.tables["table_name"] = "a;b"
    run.write_config()
    assert "table_name must be a word" in run("info").stderr
