"""`shardy` over manifests in PostgreSQL, and with it the library's own client, over libpq."""

from __future__ import annotations

import itertools
import json
import re
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
        self.prefix = (folder / "p").as_uri()
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

    def write_config(self, dsn: str | None = None, *, prefix: str | None = None, more: str = "") -> None:
        names = "".join(f'{name} = "{value}"\n' for name, value in self.tables.items())
        dsn_line = f'dsn = "{dsn}"\n' if dsn else ""
        reader = f'[reader]\ns3_prefix = "{prefix}"\n' if prefix else ""
        (self.folder / "reader.toml").write_text(f'{reader}[manifest_store]\nbackend = "postgres"\n{dsn_line}{names}{more}')

    def sql(self, text: str) -> None:
        self.rows(text)

    def rows(self, text: str) -> list[Any]:
        connection = psycopg2.connect(self.server.url())
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(text.format(t=self.tables["table_name"], p=self.tables["pointer_table_name"]))
        found = cursor.fetchall() if cursor.description else []
        connection.close()
        return found

    def age_records(self) -> None:
        """All runs ended two hours ago, and were published then."""
        for record in (self.folder / "p" / "runs").glob("*/run.yaml"):
            record.write_text(re.sub(r"(updated_at|lease_expires_at): .*", "\\1: '2026-01-02T03:04:05Z'", record.read_text()))
        self.sql("UPDATE {t}_builds SET created_at = created_at - INTERVAL '2 hours'")

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


# ---------------------------------------------------------------- publishing and looking after it

ROWS = ("--key", "id", "--value", "value", "--num-dbs", "2")


def publish(run: Published, run_id: str, *more: str, rows: int = 10, dsn: str | None = None) -> subprocess.CompletedProcess[str]:
    """Key n and value "<run>:<n>", as those of `Published`."""
    (run.folder / "rows.csv").write_text("id,value\n" + "".join(f"{n},{run_id}:{n}\n" for n in range(rows)))
    env = {"SHARDY_MANIFEST_DSN": dsn} if dsn else {}
    return run("publish", "rows.csv", *ROWS, "--run-id", run_id, "--s3-prefix", run.prefix, *more, **env)


@pytest.mark.parametrize("command", [["cleanup"], ["du"], ["doctor"], ["doctor", "--policy", "read"], ["publish", "x.csv", *ROWS]])
def test_what_needs_a_prefix_says_so(run: Published, command: list[str]) -> None:
    done = run(*command)
    assert done.returncode == 1 and f"{command[0]} works on what lies below a prefix" in done.stderr
    done = run("--current-url", run.prefix, *command, "--s3-prefix", run.prefix)
    assert done.returncode == 1 and "--s3-prefix belongs to manifests in PostgreSQL" in done.stderr


def test_publishing(run: Published) -> None:
    done = answer(publish(run, "run-4", "--custom", 'why="\\u00e9"'))
    assert (done["manifest_ref"], done["row_count"]) == ("run-4", 10)
    current = run.store.load_current()
    assert current is not None and current.ref == "run-4"
    manifest = run.store.load_manifest("run-4")
    assert manifest.custom["why"] == "é" and manifest.custom["shard_rows"] == 2
    assert manifest.required_build.s3_prefix == run.prefix and [shard.row_count for shard in manifest.shards] == [
        shard.row_count for shard in run.store.load_manifest("run-3").shards
    ]
    assert run("get", "4", "--raw").stdout == "run-4:4"
    assert not (run.folder / "p" / "_CURRENT").exists() and not (run.folder / "p" / "manifests").exists()
    # the same run again, and shards that did not change
    assert answer(publish(run, "run-4", rows=12))["row_count"] == 12
    assert answer(run("publish", "rows.csv", *ROWS, "--s3-prefix", run.prefix, "--reuse-unchanged"))["reused_shards"] == 2


def test_tables_are_made(run: Published) -> None:
    run.tables = {"table_name": f"c{next(_numbers)}", "pointer_table_name": f"c{next(_numbers)}"}
    run.write_config(more="ensure_table = false\n")
    done = publish(run, "first")
    assert done.returncode == 1 and "does not exist" in done.stderr
    assert not (run.folder / "p" / "shards" / "run_id=first").exists()
    run.write_config()
    assert answer(publish(run, "first", "--expect", "absent"))["manifest_ref"] == "first"
    assert PostgresManifestStore(lambda: psycopg2.connect(run.server.url()), **run.tables).load_manifest("first").shards


def test_of_two_publishers_one_wins(run: Published) -> None:
    assert answer(publish(run, "run-4", "--expect", "run-3"))["run_id"] == "run-4"
    done = publish(run, "run-5", "--expect", "run-3")
    assert done.returncode == 1 and "the pointer names run-4, expected was run-3" in done.stderr
    assert not (run.folder / "p" / "shards" / "run_id=run-5").exists()
    assert answer(run("info"))["run_id"] == "run-4"


@pytest.mark.parametrize("when", ["commit", "insert"])
def test_killed_in_the_middle_of_publishing(run: Published, when: str) -> None:
    """The server's process ends in the transaction, the first time: sequences are not rolled back."""
    deferred = "CONSTRAINT TRIGGER once AFTER INSERT ON {p} DEFERRABLE INITIALLY DEFERRED" if when == "commit" else "TRIGGER once AFTER INSERT ON {t}_shards"
    run.sql(
        "CREATE SEQUENCE {t}_times; CREATE FUNCTION {t}_die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('{t}_times') = 1 THEN "
        "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); END IF; RETURN NULL; END $$; "
        f"CREATE {deferred} FOR EACH ROW EXECUTE FUNCTION {{t}}_die()"
    )
    assert answer(publish(run, "run-4"))["manifest_ref"] == "run-4"
    assert answer(run("info"))["run_id"] == "run-4" and len(run.store.list_manifests()) == 4
    assert run.rows("SELECT last_value > 1 FROM {t}_times") == [(True,)]


def test_a_commit_that_goes_on_without_its_client(run: Published) -> None:
    """It is still under way when the next attempt begins, which must not take its own pointer for somebody else's: the shards in use
    would go with what failed."""
    run.sql(
        "CREATE FUNCTION {t}_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {p} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {t}_wait()"
    )
    with run.server.losing_a_commit() as port:
        done = publish(run, "run-4", "--expect", "run-3", dsn=run.server.url(port=port))
    assert answer(done)["manifest_ref"] == "run-4"
    assert run("get", "4", "--raw").stdout == "run-4:4"
    assert run.rows("SELECT count(*) FROM {p}") == [(4,)]


def test_a_server_that_hangs_or_is_gone_while_publishing(run: Published) -> None:
    paused = run.server.pause()
    try:
        done = publish(run, "run-4", "--timeout", "0.5")
        assert done.returncode == 1 and "answered in time" in done.stderr
    finally:
        run.server.go_on(paused)
    run.server.kill()
    try:
        done = publish(run, "run-4", "--timeout", "0.5")
        assert done.returncode == 1 and "refused" in done.stderr
    finally:
        run.server.start()
    assert answer(run("info"))["run_id"] == "run-3"
    assert not (run.folder / "p" / "shards" / "run_id=run-4").exists()
    assert answer(publish(run, "run-4"))["run_id"] == "run-4"


def test_clean_up(run: Published) -> None:
    assert publish(run, "run-4").returncode == 0
    assert run("rollback", "--run-id", "run-2").returncode == 0
    run.age_records()
    done = answer(run("cleanup", "--keep-last", "1", "--dry-run", "--s3-prefix", run.prefix))
    assert [one["run_id"] for one in done["old_runs"]] == ["run-1", "run-3"]
    assert [(one["kind"], one["run_id"]) for one in done["others"] if one["kind"] == "manifest"] == [("manifest", "run-1"), ("manifest", "run-3")]
    assert run("cleanup", "--keep-last", "1", "--s3-prefix", run.prefix).returncode == 0
    assert {ref.ref for ref in run.store.list_manifests()} == {"run-2", "run-4"}
    assert sorted(folder.name for folder in (run.folder / "p" / "shards").iterdir()) == ["run_id=run-2", "run_id=run-4"]
    assert run("get", "4", "--raw").stdout == "run-2:4" and run("get", "4", "--raw", "--ref", "run-4").stdout == "run-4:4"
    # by what lies below the prefix these runs were published elsewhere
    assert run("--current-url", run.prefix, "cleanup", "--include-old-runs").returncode == 0
    assert run("get", "4", "--raw").stdout == "run-2:4"


def test_clean_up_by_the_wrong_tables(run: Published) -> None:
    run.age_records()
    mine, run.tables = run.tables, {"table_name": f"c{next(_numbers)}", "pointer_table_name": f"c{next(_numbers)}"}
    other = (run.folder / "q").as_uri()
    run.write_config()
    (run.folder / "rows.csv").write_text("id,value\n1,2\n")
    assert run("publish", "rows.csv", *ROWS, "--run-id", "other", "--s3-prefix", other).returncode == 0
    done = run("cleanup", "--keep-last", "1", "--s3-prefix", run.prefix)
    assert done.returncode == 1 and f"names a snapshot of {other}: nothing of {run.prefix} is deleted" in done.stderr
    run.sql("DELETE FROM {p}; DELETE FROM {t}_shards; DELETE FROM {t}_builds")
    done = run("cleanup", "--keep-last", "1", "--s3-prefix", run.prefix)
    assert done.returncode == 1 and "names no snapshot, and run run-1 was published from" in done.stderr
    run.tables = mine
    run.write_config()
    assert run("get", "4", "--raw").stdout == "run-3:4"


def test_du_and_doctor(run: Published) -> None:
    run.write_config(prefix=run.prefix)
    usage = {one["run_id"]: one["state"] for one in answer(run("du"))["runs"]}
    assert usage == {"run-1": "published", "run-2": "published", "run-3": "current"}
    for more, extra in (((), []), (("--write",), ["ranges", "latency", "write", "create-only", "replace-only", "delete"])):
        done = run("doctor", *more)
        checks = {one["check"]: one["status"] for one in answer(done)["checks"]}
        assert list(checks) == ["settings", "database", "pointer", "list", "snapshot", "shard", *extra]
        assert set(checks.values()) <= {"ok", "warning"}, done.stdout
    run.sql("DROP TABLE {p}")
    done = run("doctor")
    database = next(one for one in json.loads(done.stdout)["checks"] if one["check"] == "database")
    assert done.returncode == 1 and database["status"] == "failed" and "does not exist" in database["detail"]
    assert PASSWORD not in done.stdout


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
