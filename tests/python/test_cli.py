"""The `shardy` command: what it prints, byte by byte, and how it ends."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSCTTY, TIOCSWINSZ

import pytest
from fixtures import FIXTURES, ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server  # noqa: E402

import shardyfusion  # noqa: E402
from shardyfusion import HashShardedWriteConfig, PythonRecordInput  # noqa: E402
from shardyfusion.config import WriterOutputConfig  # noqa: E402
from shardyfusion.sqlite_adapter import SqliteFactory  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

SHARDY = Path(os.environ.get("SF_SHARDY", ROOT / "build-python" / "cli" / "shardy"))
CASES = {
    "slatedb": "history-three-runs",
    "sqlite": "sqlite-sidecar-utf8",
    "raw": "slatedb-bytes-raw",
    "empty": "sqlite-empty-shard",
    "fallback": "fallback-newest-malformed",
    "cel": "slatedb-cel-direct",
}
COMMANDS = (
    "get",
    "multiget",
    "info",
    "shards",
    "health",
    "route",
    "history",
    "scan",
    "verify",
    "diff",
    "du",
    "stats",
    "watch",
    "exec",
    "rollback",
    "cleanup",
    "publish",
    "explain",
    "doctor",
)
LOOKING = COMMANDS[:8]
GOLDEN = (*LOOKING, "verify", "diff", "du", "stats", "explain", "publish")
HOME = {"HOME": "/nonexistent", "PATH": f"{SHARDY.parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def folder_of(case: str) -> Path:
    return FIXTURES / "snapshots" / case / "bucket" / "golden" / case


def shardy(
    *arguments: str, pointer: str | Path | None = None, cwd: str | Path = "/", **more: object
) -> subprocess.CompletedProcess[str]:
    environment = HOME | dict(more.pop("env", {}))  # type: ignore[call-overload]
    if pointer:
        environment["SHARDY_CURRENT"] = str(pointer)
    return subprocess.run(
        [str(SHARDY), *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, env=environment, **more
    )  # type: ignore[call-overload]


POINTER = folder_of("history-three-runs") / "_CURRENT"


@pytest.fixture(scope="module")
def front(server: S3Server) -> Iterator[Front]:
    with fault_server(server.endpoint) as f:
        yield f


# ---------------------------------------------------------------------------------------------------------------------
# golden outputs


def without_chance(command: str, out: str) -> str:
    """What differs from run to run, in braces."""
    words = shlex.split(command)
    out = re.sub(
        r'(?<=manifest_age_seconds": )[0-9.]+|(?<=manifest_age=).*(?=  shards=)|(?<=[,\t])\d+\.\d(?=[,\t])', "{age}", out
    )
    if "explain" in words:
        out = re.sub(r'(?<="us": )\d+|(?<=us=)\d+|(?<=[\t,])\d+$', "{us}", out, flags=re.M)
        if "table" in words:
            out = re.sub(r"\d+ *$", "{us}", out, flags=re.M)
    if "table" in words and ("explain" in words or "diff" in words):  # columns are as wide as what is in them
        out = re.sub("-{3,}", "--", re.sub(" {3,}", "  ", out))
    if "publish" in words:
        out = re.sub(r"(?<=/manifests/)[^_]+(?=_run_id=)", "{time}", out)
        out = re.sub(r'(?<="seconds": )[0-9.]+|(?<=seconds=).*|(?<=[\t,])\d+\.\d$', "{seconds}", out, flags=re.M)
    return out


def transcript(commands: list[str], prefix: str, published: str, env: dict[str, str], **more: object) -> str:
    parts = []
    for command in commands:
        done = shardy(*shlex.split(command), pointer=f"{prefix}/_CURRENT", env=env, **more)
        out = done.stdout + "".join(f"2> {line}\n" for line in done.stderr.splitlines())
        out = without_chance(command, out.replace(prefix, published))
        parts.append(f"$ shardy {command}\n{out}=> {done.returncode}\n")
    return "\n".join(parts)


def compare_transcript(name: str, over: str, prefix: str, published: str, env: dict[str, str], **more: object) -> None:
    golden = FIXTURES / "cli" / f"{name}.txt"
    wanted = golden.read_text(encoding="utf-8")
    got = transcript(re.findall(r"^\$ shardy (.*)$", wanted, re.M), prefix, published, env, **more)
    if os.environ.get("SF_WRITE_GOLDEN") and over == "files":
        golden.write_text(got, encoding="utf-8")
    else:
        assert got == wanted


@pytest.mark.parametrize("over", ["files", "s3"])
@pytest.mark.parametrize("name", CASES)
def test_outputs(name: str, over: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path)}
    prefix, published = folder_of(CASES[name]).as_uri(), f"s3://bucket/golden/{CASES[name]}"
    if over == "s3":
        server: S3Server = request.getfixturevalue("server")
        env |= server.environment
        prefix = published
    compare_transcript(name, over, prefix, published, env)


@pytest.mark.parametrize("over", ["files", "s3"])
def test_outputs_of_publish(over: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path)}
    prefix, published = (tmp_path / "snapshot").as_uri(), "s3://bucket/golden-publish"
    if over == "s3":
        server: S3Server = request.getfixturevalue("server")
        env |= server.environment
        prefix = published
    compare_transcript("publish", over, prefix, published, env, cwd=FIXTURES / "cli")


def test_every_command_has_golden_outputs() -> None:
    lines = {
        name: [
            shlex.split(line)
            for line in re.findall(
                r"^\$ shardy (.*)$", (FIXTURES / "cli" / f"{name}.txt").read_text(encoding="utf-8"), re.M
            )
        ]
        for name in ("slatedb", "sqlite", "publish")
    }
    for command in GOLDEN:
        for format in ("json", "jsonl", "table", "text", "csv", "tsv"):
            for backend in ("slatedb", "sqlite"):
                name = "publish" if command == "publish" else backend
                assert any(
                    command in line and format in line and (name != "publish" or backend in line)
                    for line in lines[name]
                ), f"{command} as {format} of {backend}"


# ---------------------------------------------------------------------------------------------------------------------
# help, the page, completions


def test_the_page_is_what_the_command_says() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert shardy("--generate", "markdown").stdout == page
    assert set(re.findall(r"^### (\w+)$", page, re.M)) >= set(COMMANDS)


def examples() -> list[tuple[str, str]]:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.M | re.S)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
        if " watch" not in command
    ]


@pytest.mark.parametrize(("command", "output"), examples())
def test_examples_of_the_page(command: str, output: str, tmp_path: Path) -> None:
    case = tmp_path / "snapshot"
    shutil.copytree(folder_of("history-three-runs"), case)
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env=HOME | {"SHARDY_CURRENT": f"{case.as_uri()}/_CURRENT"},
    )
    assert not done.stderr
    if output:
        assert done.stdout.replace(case.as_uri(), "s3://bucket/golden/history-three-runs") == output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_storage(command: str) -> None:
    for line in ((command, "--help"), ("-h", command), (command, "--ref", "x", "--help")):
        done = shardy(*line)
        assert done.returncode == 0 and not done.stderr
        assert done.stdout.startswith(f"Usage: shardy {command} [OPTIONS]")
        assert "Exit status:" in done.stdout and "Examples:" in done.stdout


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("man", ["man", "--warnings", "-l"]),
        ("complete-bash", ["bash", "-n"]),
        ("complete-zsh", ["zsh", "-n"]),
        ("complete-fish", ["fish", "-n"]),
    ],
)
def test_generated_files(kind: str, check: list[str], tmp_path: Path) -> None:
    text = shardy("--generate", kind).stdout
    for command in COMMANDS:
        assert command in text
    file = tmp_path / "shardy.1"
    file.write_text(text)
    done = subprocess.run([*check, str(file)], capture_output=True, text=True, env=HOME | {"MANWIDTH": "500"})
    assert done.returncode == 0 and not done.stderr


def test_bash_completes(tmp_path: Path) -> None:
    file = tmp_path / "shardy.bash"
    file.write_text(shardy("--generate", "complete-bash").stdout)

    def complete(*words: str) -> set[str]:
        script = f'. {file}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shardy; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert complete("shardy", "h") == {"health", "history"}
    assert complete("shardy", "scan", "--lim") == {"--limit"}
    assert complete("shardy", "--output-format", "js") == {"json", "jsonl"}
    assert complete("shardy", "info", "--lim") == set()


def test_fish_completes(tmp_path: Path) -> None:
    file = tmp_path / "shardy.fish"
    file.write_text(shardy("--generate", "complete-fish").stdout)

    def complete(line: str) -> set[str]:
        script = f'source {file}; complete -C "{line}"'
        done = subprocess.run(
            ["fish", "--private", "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=HOME | {"HOME": str(tmp_path)},
        )
        return {word.split("\t")[0] for word in done.stdout.splitlines()}

    assert complete("shardy h") == {"health", "history"}
    assert complete("shardy scan --lim") == {"--limit"}
    assert complete("shardy -o js") == {"json", "jsonl"}
    assert complete("shardy --config sh") == {"shardy.fish"}


def test_the_contract_s_options_are_there() -> None:
    contract = json.loads((FIXTURES / "api-names.json").read_text())["cli"]
    for name, command in contract["commands"].items():
        if command["tier"] != "core":
            continue
        told = shardy(name, "--help").stdout
        for flag in (f for p in command["params"] if p["kind"] == "option" for f in p["flags"]):
            shared = flag in ("--ref", "--offset")  # of every command
            assert re.search(rf"^ +(-\w, )?{flag}\b", shardy("--help").stdout if shared else told, re.M), (name, flag)
    for flag in (f for p in contract["global"] for f in p["flags"]):
        assert re.search(rf"^ +(-\w, )?{flag}\b", shardy("--help").stdout, re.M), flag


def test_version() -> None:
    assert re.fullmatch(r"shardy, version \d+\.\d+\.\d+\n", shardy("--version").stdout)


# ---------------------------------------------------------------------------------------------------------------------
# the command line


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("frobnicate", "No such command 'frobnicate'."),
        ("shrads", "Did you mean 'shards'?"),
        ("get", "Missing argument 'KEY'."),
        ("get 1 2", "Got unexpected extra argument (2)"),
        ("multiget", "Missing argument 'KEYS...|-'."),
        ("info x", "Got unexpected extra argument (x)"),
        ("info --limit 3", "No such option: --limit"),
        ("get -5", "stands behind --"),
        ("get --nope 1", "No such option: --nope"),
        ("--output-fromat json info", "Did you mean --output-format?"),
        ("-x info", "No such option: -x"),
        ("--output-format xml info", "'xml' is not one of json|jsonl|table|text|csv|tsv"),
        ("info --output-format", "Option '--output-format' requires an argument."),
        ("info -o", "Option '-o' requires an argument."),
        ("get 1 --strict=yes", "Option '--strict' does not take a value."),
        ("scan --prefix a --from 1", "--prefix and --from, --to are mutually exclusive"),
        ("scan --shard -1", "is not a whole number"),
        ("diff 1", "Missing argument 'FROM TO'."),
        ("verify --jobs 0", "'0' is not a whole number from 1 to 256"),
        ("watch --interval -1", "is not a number of seconds from 0.1."),
        ("watch --interval 0", "'0' is not a number of seconds from 0.1."),
        ("scan --limit abc", "'abc' is not a whole number"),
        ("scan --limit -1", "'-1' is not a whole number"),
        ("scan --limit 0", "'0' is not a whole number from 1"),
        ("scan --limit 1x", "'1x' is not a whole number"),
        ("scan --limit ' 1'", "' 1' is not a whole number"),
        ("scan --limit 18446744073709551616", "is not a whole number"),
        ("history --limit ''", "'' is not a whole number"),
        ("--timeout abc info", "'abc' is not a number of seconds"),
        ("--timeout -1 info", "'-1' is not a number of seconds"),
        ("--timeout nan info", "'nan' is not a number of seconds"),
        ("--timeout 1e999 info", "is not a number of seconds"),
        ("health --staleness-threshold x", "'x' is not a number of seconds"),
        ("--offset -1 info", "--offset must be >= 0"),
        ("--offset 1 --ref x info", "--ref and --offset are mutually exclusive"),
        ("--confine --no-confine info", "mutually exclusive"),
        ("--s3-option x info", "'x' is not KEY=VALUE"),
        ("get 1 --routing-context x", "'x' is not KEY=VALUE"),
        ("--sqlite-auto-total-bytes 1.5 info", "is not a whole number"),
    ],
)
def test_wrong_lines(line: str, text: str) -> None:
    done = shardy(*shlex.split(line), pointer=POINTER)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("Usage: shardy ") and "\nTry 'shardy " in done.stderr
    assert text in done.stderr.split("Error: ", 1)[1]


def test_options_stand_anywhere() -> None:
    wanted = shardy("--output-format", "text", "scan", "--limit", "2", pointer=POINTER)
    assert wanted.returncode == 0 and len(wanted.stdout.splitlines()) == 2
    for line in (
        "scan --limit 2 --output-format text",
        "--limit=2 -o text scan",
        "-otext --limit 2 scan",
        "scan -o TEXT --limit=2 --",
    ):
        assert shardy(*line.split(), pointer=POINTER).stdout == wanted.stdout
    assert shardy("get", "--", "-5", pointer=POINTER).returncode == 1  # looked up, and refused by the encoding


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("get not-a-number", "Key 'not-a-number' is not a valid integer (required by u64be encoding)"),
        ("multiget 1 2x", "Key '2x' is not a valid integer (required by u64be encoding)"),
        ("route 1.5", "Key '1.5' is not a valid integer (required by u64be encoding)"),
        ("get 18446744073709551616", "is not a valid integer"),
        ("scan --from x", "Key 'x' is not a valid integer (required by u64be encoding)"),
        ("scan --shard 4", "there is no shard 4: the snapshot has 4"),
        ("diff 0 9", "there is no manifest '9': neither a run nor a number of the history"),
        ("get 1 --routing-context a=b", "route_with_context requires CEL sharding strategy"),
    ],
)
def test_failures_are_results_on_standard_error(line: str, text: str) -> None:
    done = shardy(*line.split(), pointer=POINTER)
    assert done.returncode == 1 and not done.stdout
    failure = json.loads(done.stderr)
    assert failure["op"] == line.split()[0] and text in failure["error"]
    plain = shardy("-o", "text", *line.split(), pointer=POINTER)
    assert plain.returncode == 1 and plain.stderr == f"error: {failure['error']}\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--offset 3 info", "Error: Offset 3 out of range (only 3 manifests available)\n"),
        (
            "--ref s3://bucket/golden/history-three-runs/manifests/none/manifest info",
            "Error: Failed to initialise reader: ",
        ),
        (
            "--config /nonexistent/reader.toml info",
            "Error: Configuration file /nonexistent/reader.toml cannot be read: ",
        ),
        ("--credentials /nonexistent/x.toml info", "Error: Credentials file /nonexistent/x.toml cannot be read: "),
        (
            "--s3-option endpoint=x info",
            "Error: --s3-option: there is no setting 'endpoint'; did you mean endpoint_url?\n",
        ),
        (
            "--s3-option verify_ssl=maybe info",
            "Error: --s3-option: verify_ssl must be true, false, or the path of a PEM file\n",
        ),
        ("--s3-option max_attempts=0 info", "Error: --s3-option: max_attempts must be a whole number from 1 to 1000\n"),
    ],
)
def test_start_up_failures(line: str, text: str) -> None:
    done = shardy(*line.split(), pointer=POINTER)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(text)


def test_without_a_pointer() -> None:
    done = shardy("info")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: CURRENT URL is required. Provide it via --current-url, set SHARDY_CURRENT env var, or set "
        "current_url in reader.toml.\n"
    )


def test_multiget_reads_standard_input() -> None:
    done = shardy("-o", "csv", "multiget", "-", pointer=POINTER, input="1\n\n  2 \r\n3")
    assert [line.split(",")[:2] for line in done.stdout.splitlines()] == [
        ["key", "found"],
        ["1", "true"],
        ["2", "true"],
        ["3", "false"],
    ]
    many = shardy("-o", "csv", "multiget", "-", pointer=POINTER, input="\n".join(map(str, range(25000))))
    assert [line.split(",")[0] for line in many.stdout.splitlines()[1:]] == [str(i) for i in range(25000)]
    assert json.loads(shardy("multiget", "-", pointer=POINTER, input="\n").stdout) == {"op": "multiget", "results": []}


# ---------------------------------------------------------------------------------------------------------------------
# what is read, and from where


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    to = tmp_path / "snapshot"
    shutil.copytree(folder_of("history-three-runs"), to)
    return to


def test_metadata_needs_no_shards(copy: Path) -> None:
    shutil.rmtree(copy / "shards")
    for line in ("info", "shards", "route 1", "history"):
        done = shardy(*line.split(), pointer=copy / "_CURRENT")
        assert done.returncode == 0, done.stderr
        assert (
            done.stdout.replace(copy.as_uri(), folder_of("history-three-runs").as_uri())
            == shardy(*line.split(), pointer=POINTER).stdout
        )
    assert shardy("get", "1", pointer=copy / "_CURRENT").returncode == 1
    done = shardy("health", pointer=copy / "_CURRENT")
    assert (
        done.returncode == 2
        and json.loads(done.stdout)["status"] == "unhealthy"
        and "shard" in json.loads(done.stderr)["error"]
    )


def test_only_the_shards_of_the_keys_are_read(copy: Path) -> None:
    for shard in copy.glob("shards/run_id=run-002/db=*"):
        if shard.name != "db=00002":
            shutil.rmtree(shard)
    assert json.loads(shardy("get", "1", pointer=copy / "_CURRENT").stdout)["found"]
    failed = shardy("get", "4", pointer=copy / "_CURRENT")
    assert failed.returncode == 1 and "db=00000" in json.loads(failed.stderr)["error"]


def test_a_prefix_is_tried_with_the_usual_pointer(copy: Path) -> None:
    wanted = shardy("info", pointer=copy / "_CURRENT").stdout
    assert wanted
    for url in (str(copy), f"{copy}/", copy.as_uri()):
        assert shardy("info", pointer=url).stdout == wanted
    (copy / "_CURRENT").rename(copy / "latest")
    assert shardy("info", pointer=copy / "latest").stdout == wanted
    missing = shardy("info", pointer=copy)
    assert missing.returncode == 1 and f"{copy}/_CURRENT" in missing.stderr


def test_a_pinned_manifest(copy: Path) -> None:
    entries = json.loads(shardy("history", pointer=copy / "_CURRENT").stdout)["manifests"]
    assert [e.get("current") for e in entries] == [True, None, None]
    (copy / "_CURRENT").unlink()
    for i, entry in enumerate(entries):
        for options in (("--offset", str(i)), ("--ref", entry["ref"])):
            info = json.loads(shardy("info", *options, pointer=copy / "_CURRENT").stdout)
            assert info["run_id"] == entry["run_id"]


def test_an_old_manifest_is_said() -> None:
    pointer = folder_of("fallback-newest-malformed") / "_CURRENT"
    done = shardy("info", pointer=pointer)
    assert done.stderr.startswith(
        "Warning: the manifest that the pointer names is malformed, and an older one is served: "
    )
    assert "run-002" in json.loads(done.stdout)["rejected_ref"]
    assert not shardy("info", "--no-warn", pointer=pointer).stderr
    assert shardy("health", pointer=pointer).returncode == 1


def test_health_beside_the_pointer() -> None:
    pointer = folder_of("history-three-runs") / "_CURRENT"
    now = json.loads(shardy("info", pointer=pointer).stdout)["manifest_ref"]
    done = shardy("health", "--remote", pointer=pointer)
    assert (done.returncode, json.loads(done.stdout)["current_ref"]) == (0, now)
    done = shardy("--offset", "1", "health", "--remote", pointer=pointer)
    found = json.loads(done.stdout)
    assert (done.returncode, found["status"], found["current_ref"]) == (1, "degraded", now) and "run-001" in found["manifest_ref"]
    assert shardy("--offset", "1", "health", pointer=pointer).returncode == 0
    done = shardy("-o", "jsonl", pointer=pointer, input="use --offset 1\nhealth --remote\nrefresh\nhealth --remote\n")
    assert [json.loads(line)["status"] for line in done.stdout.splitlines() if '"health"' in line] == ["degraded", "healthy"]
    # what the pointer names is malformed: it names that all the same, not what would be served instead
    done = shardy("--offset", "1", "health", "--remote", pointer=folder_of("fallback-newest-malformed") / "_CURRENT")
    found = json.loads(done.stdout)
    assert (done.returncode, found["status"]) == (1, "degraded") and "run-002" in found["current_ref"]


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    done = shardy("info", pointer=tmp_path / "_CURRENT")
    assert done.returncode == 1
    assert str(tmp_path / "_CURRENT") in done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# reader.toml and credentials.toml


def test_reader_toml(copy: Path, tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    (home / ".config" / "shardy").mkdir(parents=True)
    here.mkdir()
    (home / ".config" / "shardy" / "reader.toml").write_text(
        f'[reader]\ncurrent_url = "{copy}/_CURRENT"\nnew_key = 1\n'
    )

    def run(*line: str, **env: str) -> subprocess.CompletedProcess[str]:
        return shardy(*line, cwd=here, env={"HOME": str(home)} | env)

    assert json.loads(run("info").stdout)["run_id"] == "run-002"
    (here / "reader.toml").write_text(
        f'[reader]\ncurrent_url = ""\ns3_prefix = "{copy}"\n[output]\nformat = "text"\nvalue_encoding = "hex"\nnull_repr = "-"\n'
    )
    assert run("get", "3").stdout == "3=-\n"
    assert run("get", "4").stdout.startswith("4=72756e32")
    assert json.loads(run("-o", "json", "get", "3").stdout)["value"] == "-"
    other = tmp_path / "other.toml"
    other.write_text('[output]\nformat = "csv"\n')
    assert "CURRENT URL is required" in run("info", SHARDY_CONFIG=str(other)).stderr
    assert run("get", "3", "--current-url", str(copy), SHARDY_CONFIG=str(other)).stdout == "key,found,value\n3,false,\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[reader", "is no TOML: line 1, column"),
        ("[reader]\ncurrent_url = 5", "[reader] current_url must be a text"),
        ("[reader]\nmax_workers = 0", "[reader] max_workers must be a whole number from 1"),
        ("[reader]\nmax_workers = 1.5", "[reader] max_workers must be a whole number from 1"),
        ('[reader]\nreader_backend = "x"', "[reader] reader_backend is 'x', which is not one of slatedb|sqlite"),
        ('[output]\nformat = "xml"', "[output] format is 'xml', which is not one of"),
        ("[output]\nnull_repr = 5", "[output] null_repr must be a text"),
        ('[manifest_store]\nbackend = "mysql"', "[manifest_store] backend is 'mysql', which is not one of s3|postgres"),
        ("[manifest_store]\ndsn = 5", "[manifest_store] dsn must be a text"),
    ],
)
def test_wrong_settings(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "reader.toml"
    file.write_text(text)
    done = shardy("info", cwd=tmp_path, pointer=POINTER)
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and message in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[reader]\ncurent_url = "x"', "[reader] has no key 'curent_url', which is ignored; did you mean 'current_url'?"),
        ("[reader]\nCURRENT = 1", "[reader] has no key 'CURRENT', which is ignored"),
        ('[output]\n"\\u001b" = 1', r"[output] has no key '\x1b', which is ignored"),
        ('current_url = "x"', "'current_url' is ignored: it belongs below [reader]"),
        ('[raeder]\ncurrent_url = "x"', "'raeder' is ignored: there are [reader], [manifest_store] and [output]"),
    ],
)
def test_unknown_settings_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "reader.toml").write_text(text)
    (tmp_path / "credentials.toml").write_text('[default]\nendpont_url = "http://127.0.0.1:1"\n')
    (tmp_path / "credentials.toml").chmod(0o600)
    done = shardy("info", cwd=tmp_path, pointer=POINTER)
    wrong = "Warning: ./credentials.toml: [default] has no key 'endpont_url', which is ignored; did you mean 'endpoint_url'?"
    assert done.returncode == 0 and done.stderr == f"Warning: ./reader.toml: {message}\n{wrong}\n"
    assert shardy("--no-warn", "info", cwd=tmp_path, pointer=POINTER).stderr == ""


def test_credentials_toml(server: S3Server, tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    keys = {name: server.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")}
    file.write_text(f"""[default]
endpoint_url = "{server.endpoint}"
region = "{keys["AWS_REGION"]}"
access_key_id = "{keys["AWS_ACCESS_KEY_ID"]}"
secret_access_key = "{keys["AWS_SECRET_ACCESS_KEY"]}"
session_token = ""
addressing_style = "path"
max_attempts = 1
[wrong]
endpoint_url = "{server.endpoint}"
access_key_id = "nobody"
secret_access_key = "knows"
[half]
access_key_id = "alone"
""")
    file.chmod(0o600)
    pointer = "s3://bucket/golden/history-three-runs/_CURRENT"
    done = shardy("info", pointer=pointer, env={"SHARDY_CREDENTIALS": str(file)})
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (
        shardy(
            "info", "--credentials", str(file), "--s3-option", "endpoint_url=http://127.0.0.1:1", pointer=pointer
        ).returncode
        == 1
    )
    (tmp_path / "reader.toml").write_text('[reader]\ncredentials_profile = "wrong"\n')
    done = shardy("info", pointer=pointer, cwd=tmp_path)
    assert done.returncode == 1 and "knows" not in done.stderr
    (tmp_path / "reader.toml").write_text('[reader]\ncredentials_profile = "half"\n')
    assert (
        "[half] has one of access_key_id and secret_access_key" in shardy("info", pointer=pointer, cwd=tmp_path).stderr
    )
    (tmp_path / "reader.toml").write_text('[reader]\ncredentials_profile = "none"\n')
    assert (
        shardy("info", pointer=pointer, cwd=tmp_path).stderr
        == "Error: Credentials profile 'none' not found in ./credentials.toml\n"
    )
    file.chmod(0o644)
    done = shardy("info", "--credentials", str(file), pointer=pointer)
    assert done.stderr == f"Warning: credentials file {file} has permissions 0644 — consider restricting to 0600.\n"


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={secret}\n", True),
        (
            "# keys\n\n  export AWS_ACCESS_KEY_ID = '{key}' # mine\nnothing\n=x\r\nAWS_SECRET_ACCESS_KEY=\"{secret}\"",
            True,
        ),
        ("OTHER='a\nAWS_ACCESS_KEY_ID=x\n'\nAWS_ACCESS_KEY_ID={key} #x\nAWS_SECRET_ACCESS_KEY={secret}\t", True),
        ("AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY='{secret}\n", False),  # never closed
        ("aws_secret_access_key={secret}\n#AWS_SECRET_ACCESS_KEY={secret}\n", False),
        ("", False),
    ],
)
def test_slate_env_file(text: str, counts: bool, server: S3Server, tmp_path: Path) -> None:
    """Of shards only, and over what the profile says."""
    file, credentials = tmp_path / "shards.env", tmp_path / "credentials.toml"
    (tmp_path / "reader.toml").write_text(f'[reader]\nslate_env_file = "{file}"\n')
    profile = {"endpoint_url": server.endpoint, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    credentials.write_text("[default]\n" + "".join(f'{name} = "{value}"\n' for name, value in profile.items()))
    credentials.chmod(0o600)
    pointer = "s3://bucket/golden/history-three-runs/_CURRENT"
    for secret in (SECRET_KEY, "wrong"):
        file.write_text(text.format(key=ACCESS_KEY, secret=secret))
        assert shardy("info", pointer=pointer, cwd=tmp_path).returncode == 0
        done = shardy("get", "1", pointer=pointer, cwd=tmp_path)
        assert done.returncode == (1 if counts and secret == "wrong" else 0), done.stderr
    file.unlink()
    done = shardy("get", "1", pointer=pointer, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == f"Warning: slate_env_file {file} cannot be read: No such file or directory\n"
    file.write_bytes(b"A=\xff")
    done = shardy("get", "1", pointer=pointer, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == f"Error: slate_env_file {file} is no UTF-8\n"


# ---------------------------------------------------------------------------------------------------------------------
# output that goes wrong, terminals


@pytest.mark.parametrize("line", ["scan", "info", "--help", "get --help", "-o table shards", "--generate man"])
def test_a_full_disk_is_a_failure(line: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [str(SHARDY), *line.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=HOME | {"SHARDY_CURRENT": str(POINTER)},
        )
    assert done.returncode == 1
    assert done.stderr == "Error: Standard output could not be written: No space left on device\n"


@pytest.mark.parametrize("ignored", [False, True])
def test_a_reader_that_goes_away_is_no_matter(ignored: bool) -> None:
    trap = "trap '' PIPE; " if ignored else ""
    command = f"{trap}{SHARDY} --current-url {folder_of('slatedb-hash-u64be')}/_CURRENT scan | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=HOME)
    assert len(done.stdout.splitlines()) == 1 and not done.stderr


def on_a_terminal(*line: str, columns: int = 80, env: dict[str, str] | None = None) -> str:
    """What a terminal gets, both outputs together."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [str(SHARDY), *line],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
        env=HOME | {"TERM": "xterm", "SHARDY_CURRENT": str(POINTER)} | (env or {}),
    )
    os.close(theirs)
    out = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        out += piece
    os.close(ours)
    process.wait(60)
    return out.decode().replace("\r\n", "\n")


def test_tables_fit_the_terminal() -> None:
    for columns in (45, 60, 100):
        lines = on_a_terminal("--color", "never", "-o", "table", "shards", columns=columns).splitlines()
        assert len(lines) == 6 and all(len(line) <= columns for line in lines)
        assert any("…" in line for line in lines)
    assert "…" not in shardy("-o", "table", "shards", pointer=POINTER).stdout
    for command in ("verify", "verify --deep", "du", "history", "doctor"):  # what is shown of progress is taken back
        shown = on_a_terminal("--color", "never", "-o", "table", *command.split(), columns=40)
        lines = re.split(r"\n|\r\033\[K", shown)
        assert len(lines) > 4 and all(len(line) <= 40 for line in lines), shown


def test_colours_only_on_terminals() -> None:
    line = ("-o", "table", "shards")
    assert "\033[1m" in on_a_terminal(*line)
    assert "\033" not in on_a_terminal(*line, env={"NO_COLOR": "1"})
    assert "\033" not in on_a_terminal(*line, env={"TERM": "dumb"})
    assert "\033" not in on_a_terminal("verify", env={"TERM": "dumb"})  # no progress, which is taken back
    assert "\033" not in on_a_terminal("verify", env={"TERM": ""})
    assert "\033" not in on_a_terminal("--color", "never", *line)
    assert "\033" not in shardy(*line, pointer=POINTER).stdout
    assert "\033[1m" in shardy("--color", "always", *line, pointer=POINTER).stdout
    assert "\033[1;31merror:" in on_a_terminal("-o", "text", "get", "x")


def test_help_fits_the_terminal() -> None:
    for columns in (42, 60):
        for line in ("--help", "publish --help", "cleanup --help"):
            lines = on_a_terminal(*line.split(), columns=columns).splitlines()
            # usage and examples are to be copied
            assert max(len(line) for line in lines if not re.match(r"Usage:|  (shardy|printf) ", line)) <= columns


def test_a_window_that_changes(tmp_path: Path) -> None:
    def narrower(terminal: int) -> str:
        ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 24, 45, 0, 0))
        return "shards -o table\n"

    steps = [("shardy> ", "shards -o table\n"), ("shardy> ", narrower), ("shardy> ", "quit\n")]
    code, shown = conversation(steps, env={"HOME": str(tmp_path)})
    rules = [len(line) for line in shown.splitlines() if line.startswith("----")]
    assert code == 0 and rules == [100, 45], shown


# ---------------------------------------------------------------------------------------------------------------------
# from Python


@pytest.mark.parametrize(
    "start",
    [
        ("-m", "shardyfusion"),
        ("-c", "from shardyfusion.cli import main; main()"),
        ("-c", "print('before'); from shardyfusion.cli.app import main; main()"),
    ],
)
def test_started_from_python(start: tuple[str, ...]) -> None:
    environment = HOME | {"PYTHONPATH": os.environ["PYTHONPATH"], "SHARDY_CURRENT": str(POINTER)}
    done = subprocess.run(
        [sys.executable, *start, "-o", "text", "route", "1"], capture_output=True, text=True, env=environment, cwd="/"
    )
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == ("before\n" if "before" in start[1] else "") + "1 -> shard 2\n"
    wrong = subprocess.run([sys.executable, *start, "frob"], capture_output=True, text=True, env=environment, cwd="/")
    assert wrong.returncode == 2 and "No such command 'frob'." in wrong.stderr


# ---------------------------------------------------------------------------------------------------------------------
# scripts


def exec_script(text: str, *options: str, pointer: str | Path = POINTER) -> subprocess.CompletedProcess[str]:
    return shardy(*options, "exec", "--script", "-", pointer=pointer, input=text)


ALL_OPS = """
on_error: continue
commands:
  - {op: get, key: 1}
  - {op: get, key: "3"}
  - {op: multiget, keys: [1, 3]}
  - op: info
  - op: shards
  - {op: route, key: 5}
  - {op: health, staleness_threshold: 1.0e+15}
  - {op: history, limit: 1}
  - op: refresh
"""


@pytest.mark.parametrize("format", ["json", "jsonl", "text", "table", "csv"])
def test_a_script_prints_what_the_commands_print(format: str) -> None:
    lines = ("get 1", "get 3", "multiget 1 3", "info", "shards", "route 5", "health", "history --limit 1")
    wanted = "".join(
        shardy("-o", "jsonl" if format == "json" else format, *line.split(), pointer=POINTER).stdout for line in lines
    )
    refreshed = {"json": '{"op": "refresh", "changed": false}\n', "text": "changed=False\n", "csv": "changed\nfalse\n"}
    wanted += refreshed.get({"jsonl": "json", "table": "text"}.get(format, format), "")
    done = exec_script(ALL_OPS, "-o", format)
    assert done.returncode == 0 and not done.stderr

    def without_age(text: str) -> str:
        return re.sub(r"\d+\.\d", "AGE", text)

    assert without_age(done.stdout) == without_age(wanted)


@pytest.mark.parametrize(
    ("command", "op", "text"),
    [
        ("{op: get}", "get", "'get' command requires a 'key' field"),
        ("{op: get, key: null}", "get", "'get' command requires a 'key' field"),
        ("{op: route}", "route", "'route' command requires a 'key' field"),
        ("{op: multiget}", "multiget", "'multiget' command requires a non-empty 'keys' list"),
        ("{op: multiget, keys: []}", "multiget", "'multiget' command requires a non-empty 'keys' list"),
        ("{op: multiget, keys: [[1]]}", "multiget", "'keys' must be texts or numbers"),
        ("{op: get, key: x}", "get", "Key 'x' is not a valid integer (required by u64be encoding)"),
        ("{op: get, key: 1, routing_context: {a: b}}", "get", "route_with_context requires CEL sharding strategy"),
        ("{op: get, key: 1, routing_context: [a]}", "get", "'routing_context' must be a mapping"),
        ("{op: history, limit: 0}", "history", "'limit' must be a whole number from 1"),
        ("{op: health, staleness_threshold: soon}", "health", "'staleness_threshold' must be a number of seconds"),
        ("[op, get]", "unknown", "Command #2 is not a mapping"),
        (
            "{op: drop}",
            "drop",
            "Unknown op: 'drop'. Supported: get, multiget, refresh, info, shards, route, health, history",
        ),
        (
            "{key: 1}",
            "unknown",
            "Unknown op: None. Supported: get, multiget, refresh, info, shards, route, health, history",
        ),
    ],
)
def test_failures_of_a_script(command: str, op: str, text: str, tmp_path: Path) -> None:
    for on_error, count in (("stop", 2), ("continue", 3)):
        script = f"on_error: {on_error}\ncommands: [{{op: route, key: 1}}, {command}, {{op: route, key: 2}}]"
        done = exec_script(script)
        assert done.returncode == 1 and not done.stderr
        results = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(results) == count
        assert results[1]["op"] == op and results[1]["error"] == text
        file = tmp_path / "out"
        to_file = exec_script(script + "\n", "--output", str(file))
        assert to_file.returncode == 1 and not to_file.stdout and file.read_text() == done.stdout


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("[1]", "Script file must be a YAML mapping, got: <class 'list'>"),
        ("hello", "Script file must be a YAML mapping, got: <class 'str'>"),
        ("5", "Script file must be a YAML mapping, got: <class 'int'>"),
        ("", "Script file must be a YAML mapping, got: <class 'NoneType'>"),
        ("{on_error: stop}", "Script file must have a 'commands' key with a list of operations"),
        ("{commands: 5}", "Script file must have a 'commands' key with a list of operations"),
        ("{commands: [], on_error: never}", "on_error of the script must be stop or continue"),
        ("{commands: [", "Script file - is no YAML: line 2, column 1: did not find"),
        ("commands: [\x01]", "Script file - is no YAML: "),
    ],
)
def test_wrong_scripts(script: str, text: str) -> None:
    done = exec_script(script)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"Error: {text}")


def test_a_script_needs_a_file(tmp_path: Path) -> None:
    assert shardy("exec", pointer=POINTER).returncode == 2
    done = shardy("exec", "--script", str(tmp_path / "none.yaml"), pointer=POINTER)
    assert done.returncode == 1 and "cannot be read: No such file or directory" in done.stderr
    done = exec_script("commands: [{op: info}]", "--output", "/dev/full")
    assert done.returncode == 1 and done.stderr == "Error: /dev/full could not be written: No space left on device\n"


# ---------------------------------------------------------------------------------------------------------------------
# rollback and cleanup


def current_of(pointer: str | Path, env: dict[str, str] | None = None) -> str:
    return json.loads(shardy("info", pointer=pointer, env=env or {}).stdout)["run_id"]


def place_pointer(server: S3Server) -> None:
    """Files that were laid below the server have no ETag; what was put has one."""
    subprocess.run(
        [
            "curl",
            "-sSf",
            "--noproxy",
            "*",
            "--aws-sigv4",
            f"aws:amz:{REGION}:s3",
            "--user",
            f"{ACCESS_KEY}:{SECRET_KEY}",
            "-H",
            f"x-amz-content-sha256: {hashlib.sha256(POINTER.read_bytes()).hexdigest()}",
            "-T",
            str(POINTER),
            f"{server.endpoint}/bucket/golden/history-three-runs/_CURRENT",
        ],
        check=True,
    )


def lay_out(server: S3Server) -> Path:
    to = server.folder / "bucket" / "golden" / "history-three-runs"
    shutil.rmtree(to)
    shutil.copytree(folder_of("history-three-runs"), to)
    place_pointer(server)
    return to


@pytest.fixture(params=["files", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, dict[str, str]]:
    """A snapshot with three runs that may be changed: its prefix, where its objects lie as files, the environment."""
    if request.param == "files":
        to = tmp_path / "snapshot"
        shutil.copytree(folder_of("history-three-runs"), to)
        return to.as_uri(), to, {}
    server: S3Server = request.getfixturevalue("server")
    to = lay_out(server)
    return "s3://bucket/golden/history-three-runs", to, server.environment


@pytest.mark.parametrize("target", [("--offset", "2"), ("--run-id", "run-000"), ("--ref",)])
def test_rollback(target: tuple[str, ...], place: tuple[str, Path, dict[str, str]]) -> None:
    prefix, _, env = place
    ref = json.loads(shardy("history", pointer=prefix, env=env).stdout)["manifests"][2]["ref"]
    if target == ("--ref",):
        target = ("--ref", ref)
    done = shardy("rollback", *target, pointer=prefix, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Rolled back _CURRENT to: {ref}\n", "")
    assert current_of(prefix, env) == "run-000"
    assert shardy(
        *target, "rollback", "--offset=0" if "--run-id" in target else "--yes", pointer=prefix, env=env
    ).returncode == (2 if "--run-id" in target else 0)


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("", 2, "Exactly one of --ref, --run-id, or --offset is required"),
        ("--offset 1 --ref x", 2, "Exactly one of --ref, --run-id, or --offset is required"),
        ("--offset 3", 1, "Offset 3 out of range (only 3 manifests available)"),
        ("--run-id run-00", 1, "No manifest found with run_id=run-00"),
        ("--ref nothing", 1, "Cannot extract run_id from manifest ref: nothing"),
    ],
)
def test_rollback_to_nothing(line: str, code: int, text: str, copy: Path) -> None:
    done = shardy("-o", "text", "rollback", *line.split(), pointer=copy)
    assert done.returncode == code and text in done.stderr
    assert current_of(copy) == "run-002"


def test_rollback_refuses_what_is_gone(place: tuple[str, Path, dict[str, str]]) -> None:
    prefix, folder, env = place
    shutil.rmtree(next(folder.glob("shards/run_id=run-001/db=00000")))
    done = shardy("-o", "text", "rollback", "--run-id", "run-001", pointer=prefix, env=env)
    assert done.returncode == 1 and "shard 0 of run run-001 is gone" in done.stderr and "--force" in done.stderr
    assert current_of(prefix, env) == "run-002"
    assert shardy("rollback", "--run-id", "run-001", "--force", pointer=prefix, env=env).returncode == 0
    assert current_of(prefix, env) == "run-001"


@pytest.mark.parametrize(
    "faults", [[Fault(match="_CURRENT", times=-1, drop="etag")], [Fault(having="if-match", times=-1, status=501, code="NotImplemented")]]
)
def test_rollback_without_conditions_asks_for_force(faults: list[Fault], server: S3Server, front: Front) -> None:
    prefix = "s3://bucket/golden/history-three-runs"
    env = server.environment | {"AWS_ENDPOINT_URL": front.endpoint}
    lay_out(server)
    front.plan(*faults)
    done = shardy("rollback", "--offset", "1", pointer=prefix, env=env)
    assert done.returncode == 1 and "--force moves the pointer all the same" in done.stderr
    assert shardy("rollback", "--offset", "0", "--force", pointer=prefix, env=env).returncode == 0


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_cleanup(place: tuple[str, Path, dict[str, str]]) -> None:
    prefix, folder, env = place
    stale = folder / "shards" / "run_id=run-002" / "db=00003" / "attempt=07"
    stale.mkdir(parents=True)
    (stale / "a").write_text("x")
    (stale / "b").write_text("x")
    before = files_of(folder)
    attempt = {"db_id": 3, "prefix_url": f"{prefix}/shards/run_id=run-002/db=00003/attempt=07/", "objects_deleted": 2}
    wanted = {
        "op": "cleanup",
        "dry_run": True,
        "run_id": "run-002",
        "stale_attempts": [attempt],
        "total_objects_deleted": 2,
        "total_prefixes_removed": 1,
        "others": [],
    }
    done = shardy("cleanup", "--dry-run", pointer=prefix, env=env)
    assert done.returncode == 0 and not done.stderr
    assert json.loads(done.stdout) == wanted and files_of(folder) == before
    assert json.loads(shardy("cleanup", pointer=prefix, env=env).stdout) == wanted | {"dry_run": False}
    kept = before - {str((stale / name).relative_to(folder)) for name in "ab"}
    assert files_of(folder) == kept
    old = json.loads(shardy("cleanup", "--keep-last", "2", pointer=prefix, env=env).stdout)
    assert [run["run_id"] for run in old["old_runs"]] == ["run-000"]
    assert {(x["kind"], x["run_id"]) for x in old["others"]} == {("manifest", "run-000"), ("run_record", "run-000")}
    assert files_of(folder) == {name for name in kept if "run-000" not in name}
    for options in (["--older-than", "36500d"], ["--keep-last", "1", "--older-than", "36500d"]):
        assert json.loads(shardy("cleanup", *options, pointer=prefix, env=env).stdout)["total_objects_deleted"] == 0
    for line in ("--include-old-runs", "--keep-last 1"):
        if line == "--include-old-runs":  # what was published stays
            shutil.rmtree(next(folder.glob("manifests/*run_id=run-001")))
        text = shardy("-o", "text", "cleanup", *line.split(), pointer=prefix, env=env).stdout.splitlines()
        assert text[0] == f"Deleted below {prefix}:", text
        assert text[1:] == (
            ["  nothing", "  in all: prefixes=0  objects=0"] if line == "--keep-last 1" else text[1:-1] + ["  in all: prefixes=2  objects=34"]
        )
        assert files_of(folder) == {name for name in kept if "run-002" in name or name == "_CURRENT"}


def test_cleanup_keeps_what_the_pointer_names(copy: Path) -> None:
    assert shardy("rollback", "--run-id", "run-000", pointer=copy).returncode == 0
    rows = shardy("-o", "csv", "cleanup", "--keep-last", "1", pointer=copy).stdout.splitlines()
    assert rows[0] == "kind,run_id,prefix_url,objects,deleted"
    assert {tuple(row.split(",")[:2]) for row in rows[1:]} == {
        (kind, "run-001") for kind in ("manifest", "run", "run_record")
    }
    assert current_of(copy) == "run-000" and shardy("health", pointer=copy).returncode == 0


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--older-than 5", "'5' has no unit"),
        ("--older-than 5x", "Unknown duration unit 'x' in '5x' (use 'd' or 'h')"),
        ("--older-than d", "'d' is not a number of days or hours"),
        ("--older-than -1d", "'-1d' is not a number of days or hours"),
        ("--older-than 1.5d", "'1.5d' is not a number of days or hours"),
        ("--keep-last 0", "--keep-last must be >= 1"),
        ("--max-retries -1", "is not a whole number"),
        ("--offset 1", "it takes no --ref and no --offset"),
    ],
)
def test_wrong_cleanups(line: str, text: str, copy: Path) -> None:
    before = files_of(copy)
    done = shardy("cleanup", *line.split(), pointer=copy)
    assert done.returncode == 2 and text in done.stderr and files_of(copy) == before


def test_cleanup_says_what_fails(copy: Path) -> None:
    (copy / "_CURRENT").write_text("no pointer")
    done = shardy("cleanup", "--include-old-runs", pointer=f"{copy}/_CURRENT")
    assert done.returncode == 1 and json.loads(done.stderr)["op"] == "cleanup"


def conversation(steps: list[tuple[str, str | Callable[[int], str]]], *line: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """On a terminal: waits for a text, types another, and so on; then all that was shown."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [str(SHARDY), *line],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: ioctl(0, TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        env=HOME | {"TERM": "xterm", "NO_COLOR": "1", "SHARDY_CURRENT": str(POINTER)} | (env or {}),
    )
    os.close(theirs)
    shown, at = "", 0

    def more() -> bool:
        nonlocal shown
        assert select.select([ours], [], [], 60)[0], shown
        try:
            piece = os.read(ours, 65536).decode(errors="replace")
        except OSError:
            return False
        shown += piece.replace("\r\n", "\n")
        return bool(piece)

    for wait_for, text in steps:
        while wait_for not in shown[at:]:
            assert more(), shown
        at = shown.index(wait_for, at) + len(wait_for)
        os.write(ours, (text if isinstance(text, str) else text(ours)).encode())
    while more():
        pass
    os.close(ours)
    return process.wait(60), shown


def test_rollback_asks_on_a_terminal(copy: Path) -> None:
    line = ("rollback", "--offset", "1", "--current-url", str(copy))
    code, shown = conversation([("Move the pointer? [y/N] ", "n\n")], *line)
    assert code == 1 and current_of(copy) == "run-002"
    assert (
        "now:  run_id=run-002" in shown
        and "then: run_id=run-001" in shown
        and "Error: the pointer was left as it is" in shown
    )
    code, shown = conversation([("Move the pointer? [y/N] ", "y\n")], *line)
    assert code == 0 and "Rolled back _CURRENT to: " in shown and current_of(copy) == "run-001"
    code, shown = conversation([], *line, "--yes")
    assert code == 0 and "?" not in shown


def test_cleanup_asks_on_a_terminal(copy: Path) -> None:
    before = files_of(copy)
    line = ("cleanup", "-o", "text", "--keep-last", "1", "--current-url", str(copy))
    code, shown = conversation([("Delete that? [y/N] ", "\n")], *line)
    assert code == 1 and "Would be deleted below" in shown and "old run " in shown and files_of(copy) == before
    code, shown = conversation([("Delete that? [y/N] ", "yes\n")], *line)
    assert code == 0 and "\ndeleted" not in shown and "objects deleted" in shown and "in all: prefixes=6" in shown
    assert not any("run-001" in name for name in files_of(copy))


# ---------------------------------------------------------------------------------------------------------------------
# the interactive mode


def test_a_session(copy: Path) -> None:
    lines = [
        "info",
        "get 1",
        "get 'x y'",
        "get",
        "",
        "foo \x1b[31m",
        "use --offset 2",
        "get 7 -o text",
        "history 1",
        "refresh",
        "use --latest",
        "use",
        "get 1 --timeout 5",
        "info --ref x",
        "exec --script x",
        "get 'open",
        "help",
        "help get",
        "help nothing",
        'multiget 1 "3"',
        "quit",
        "info",
    ]
    done = shardy(pointer=copy, input="\n".join(lines) + "\n", env={"HOME": str(copy)})
    assert done.returncode == 0
    assert done.stdout.startswith(
        'Loaded manifest run_id=run-002  (4 shards, ShardingStrategy.HASH sharding)\n{\n  "op": "info",\n'
    )
    for text in (
        "*** Unknown syntax: foo \\x1b[31m\n",
        "Switched to manifest run_id=run-000 (2026-11-23T22:10:40.920476+00:00)\n7=0x",
        '"changed": true',
        "Switched to latest manifest run_id=run-002\n",
        "*** Unknown syntax: exec --script x\n",
        "*** Unknown syntax: get 'open\n",
        "  use        Look at another manifest\n",
        "Usage: shardy get [OPTIONS] KEY\n",
    ):
        assert text in done.stdout, text
    for text in (
        "Key 'x y' is not a valid integer",
        "Missing argument 'KEY'.",
        "Exactly one of --offset, --ref, or --latest is required",
        "--timeout holds for the whole session",
        "--ref holds for the whole session: give it when it begins, or with 'use'",
        "No such command 'nothing'.",
    ):
        assert text in done.stderr, text
    assert done.stdout.count('"op": "info"') == 1 and done.stdout.endswith('      "found": false\n    }\n  ]\n}\n')
    assert json.loads((copy / "_CURRENT").read_text())["run_id"] == "run-002"
    assert shardy(pointer=copy, input="").returncode == 0


def test_a_session_stays_when_a_switch_fails(copy: Path) -> None:
    done = shardy("-o", "text", pointer=copy, input="use --ref file:///none/manifest\nuse --offset 9\nroute 1\n")
    assert done.stdout.endswith("1 -> shard 2\n")
    assert "error: " in done.stderr and "Offset 9 out of range" in done.stderr


def test_line_editing_on_a_terminal(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    code, shown = conversation(
        [("shardy> ", "rou\t1\n"), ("shardy> ", "\x1b[A\n"), ("shardy> ", "get --st\t3\n"), ("shardy> ", "quit\n")],
        "-o",
        "text",
        env=env,
    )
    assert code == 0, shown
    assert shown.count("1 -> shard 2\n") == 2 and "3=null\n" in shown
    history = tmp_path / ".local" / "state" / "shardy" / "history"
    assert history.stat().st_mode & 0o777 == 0o600 and "strict" in history.read_text()
    code, shown = conversation([("shardy> ", "\x1b[A\x1b[A\n"), ("3=null", "quit\n")], "-o", "text", env=env)
    assert code == 0


def test_an_interrupt_ends_what_waits_for_nobody(copy: Path, tmp_path: Path) -> None:
    ctrl_c, prompt = "\x03", "shardy> "
    code, shown = conversation(
        [
            (prompt, "get 1" + ctrl_c),  # the line
            (prompt, "watch --interval 1000\n"),
            ('"op": "watch"', ctrl_c),
            ("Interrupted.", ""),
            (prompt, "rollback --offset 1\n"),
            ("[y/N] ", ctrl_c),
            ("Interrupted.", ""),
            (prompt, "route 1\n"),
            ('"db_id": 2', "quit\n"),
        ],
        env={"HOME": str(tmp_path), "SHARDY_CURRENT": str(copy)},
    )
    assert code == 0 and current_of(copy) == "run-002" and '"error"' not in shown, shown


@pytest.mark.parametrize("line", ["get 1", "scan", "verify", "stats", "health"])
def test_an_interrupt_ends_what_waits_for_the_store(line: str, front: Front, server: S3Server, tmp_path: Path) -> None:
    def when_it_waits(_: int) -> str:
        until = time.monotonic() + 60
        while not any(r["fault"] is not None for r in front.log()["requests"]):  # type: ignore[attr-defined]
            assert time.monotonic() < until
            time.sleep(0.005)
        return "\x03"

    front.plan(Fault(match="shards", times=-1, stall=-1))
    env = server.environment | {"AWS_ENDPOINT_URL": front.endpoint, "HOME": str(tmp_path)}
    env["SHARDY_CURRENT"] = "s3://bucket/golden/slatedb-hash-u64be/_CURRENT"
    steps = [("shardy> ", f"{line}\n"), (line, when_it_waits), ("Interrupted.", ""), ("shardy> ", "route 1\n")]
    code, shown = conversation([*steps, ('"op": "route"', "quit\n")], env=env)
    assert code == 0 and '"error"' not in shown, shown


# ---------------------------------------------------------------------------------------------------------------------
# scan, verify, diff, du, stats, watch


def rows_of(pointer: str | Path, *options: str, **more: object) -> list[tuple[str, str]]:
    done = shardy("-o", "csv", "--value-encoding", "hex", "scan", *options, pointer=pointer, **more)
    assert done.returncode == 0, done.stderr
    return [tuple(line) for line in csv.reader(done.stdout.splitlines()[1:])]  # type: ignore[misc]


def test_scans_of_ranges() -> None:
    everything = rows_of(POINTER)
    assert len(everything) == 120 and [int(key) for key, _ in everything] == sorted(int(key) for key, _ in everything)
    assert rows_of(POINTER, "--reverse") == everything[::-1]
    for first, last in (
        ("0", "1000"),
        ("50", "150"),
        ("150", "50"),
        ("7", "7"),
        ("1", "2"),
        ("18446744073709551615", "0"),
    ):
        wanted = [row for row in everything if int(first) <= int(row[0]) < int(last)]
        assert rows_of(POINTER, "--from", first, "--to", last) == wanted
        assert rows_of(POINTER, "--from", first, "--to", last, "--reverse", "--limit", "3") == wanted[::-1][:3]
    shards = [rows_of(POINTER, "--shard", str(i)) for i in range(4)]
    assert sorted(sum(shards, []), key=lambda row: int(row[0])) == everything
    text = folder_of("sqlite-sidecar-utf8") / "_CURRENT"
    assert rows_of(text, "--prefix", "a") == [row for row in rows_of(text) if row[0].startswith("a")] != []
    assert rows_of(text, "--from", "b", "--to", "c") == rows_of(text, "--prefix", "b")


SNAPSHOTS = sorted(path.parent.name for path in (FIXTURES / "snapshots").glob("*/expected.json"))


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_verify_tells_good_from_bad(case: str) -> None:
    expected = json.loads((FIXTURES / "snapshots" / case / "expected.json").read_text())
    good = expected["open"]["outcome"] == "ok" and not expected["open"].get("fallback")
    done = shardy("verify", "--deep", pointer=folder_of(case) / "_CURRENT")
    assert done.returncode == (0 if good else 1), (done.stdout, done.stderr)
    if good:
        shards = json.loads(done.stdout)["shards"]
        assert not done.stderr and all(shard["status"] == "good" for shard in shards)
        counts = {shard["db_id"]: shard["row_count"] for shard in expected["shards"]}
        assert [shard.get("manifest_rows", shard["rows"]) for shard in shards] == [
            counts.get(i, 0) for i in range(len(shards))
        ]
        assert (case == "slatedb-multi-l0") == any(
            "manifest_rows" in shard for shard in shards
        )  # of which rows were overwritten


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("where", [0, 0.1, 0.3, 0.5])
def test_verify_finds_damaged_blocks(where: float, copy: Path) -> None:
    (table,) = copy.glob("shards/run_id=run-002/db=00002/attempt=00/compacted/*.sst")
    flip(table, int(where * table.stat().st_size))
    done = shardy("verify", "--deep", pointer=copy)
    assert done.returncode == 1 and "1 of 4 shards are bad" in json.loads(done.stderr)["error"]
    shards = json.loads(done.stdout)["shards"]
    assert [shard["status"] for shard in shards] == ["good", "good", "bad", "good"]
    assert shards[2]["damages"] == 1 and shards[2]["offset"] == 0 and shards[2]["objects"] == 1  # it has one block
    assert shards[2]["object"].endswith(table.name) and table.name in shards[2]["error"]


def test_verify_finds_what_is_missing_or_misplaced(copy: Path) -> None:
    assert shardy("verify", pointer=copy).returncode == 0
    first, second = (copy / "shards" / "run_id=run-002" / f"db=0000{i}" for i in (0, 1))
    first.rename(copy / "aside")
    done = shardy("-o", "text", "verify", pointer=copy)
    assert (
        done.returncode == 1
        and done.stdout.startswith("db_id=0  status=bad  ")
        and "\ndb_id=1  status=good  objects=1  " in done.stdout
    )
    second.rename(first)
    (copy / "aside").rename(second)
    assert shardy("verify", pointer=copy).returncode == 0  # each is a database that opens
    shards = json.loads(shardy("verify", "--deep", "--jobs", "1", pointer=copy).stdout)["shards"]
    assert (
        shards[0]["error"] == "the key of row 1 belongs to shard 1"
        and shards[1]["error"] == "the key of row 1 belongs to shard 0"
    )


def test_verify_reads_every_byte(tmp_path: Path) -> None:
    published(tmp_path, {i: b"%d" % i for i in range(3000)}, 1, "run")
    (table,) = tmp_path.glob("shards/**/*.sst")
    whole = table.read_bytes()
    (good,) = json.loads(shardy("verify", "--deep", pointer=tmp_path).stdout)["shards"]
    assert (good["status"], good["rows"], good["bytes"]) == ("good", 3000, len(whole))
    quick = json.loads(shardy("verify", pointer=tmp_path).stdout)["shards"][0]["bytes"]
    assert 0 < quick < len(whole)
    for at in [*range(0, len(whole), len(whole) // 23), *range(len(whole) - 160, len(whole), 9)]:
        flip(table, at)
        for options in (["--deep"], []):
            done = shardy("verify", *options, pointer=tmp_path)
            if options or at >= len(whole) - quick:
                (bad,) = json.loads(done.stdout)["shards"]
                assert done.returncode == 1 and bad["object"].endswith(table.name) and bad.get("offset", at) <= at, (
                    at,
                    options,
                )
        table.write_bytes(whole)
    table.write_bytes(whole[:-1])
    assert shardy("verify", pointer=tmp_path).returncode == 1


def test_verify_compares_content_hashes(tmp_path: Path) -> None:
    published(tmp_path, {i: b"%d" % i for i in range(300)}, 2, "run", "sqlite")
    assert shardy("verify", "--deep", pointer=tmp_path).returncode == 0
    database = next(tmp_path.glob("shards/*/db=00001/*/shard.db"))
    with contextlib.closing(sqlite3.connect(database)) as con, con:
        con.execute("UPDATE kv SET v = x'00' WHERE k = (SELECT max(k) FROM kv)")
    (good, bad) = json.loads(shardy("verify", "--deep", pointer=tmp_path).stdout)["shards"]
    assert good["status"] == "good" and bad["status"] == "bad" and "content hash" in bad["error"]


def test_verify_counts_rows(copy: Path) -> None:
    manifest = next(copy.glob("manifests/*run-002/manifest"))
    with contextlib.closing(sqlite3.connect(manifest)) as con, con:
        con.execute("UPDATE shards SET row_count = row_count - 1 WHERE db_id = 3")
    shards = json.loads(shardy("verify", "--deep", pointer=copy).stdout)["shards"]
    assert shards[3]["error"] == "it has 33 rows, the manifest says 32" and shards[2]["status"] == "good"


@pytest.mark.parametrize(("column", "what"), [("min_key", "lowest"), ("max_key", "highest")])
@pytest.mark.parametrize("case", ["history-three-runs", "slatedb-str-utf8", "slatedb-bytes-raw", "sqlite-hash"])
def test_verify_compares_keys(case: str, column: str, what: str, tmp_path: Path) -> None:
    shutil.copytree(folder_of(case), tmp_path / "snapshot")
    (manifest,) = [p for p in (tmp_path / "snapshot").glob("manifests/*/manifest") if case != "history-three-runs" or "run-002" in str(p)]
    database = sqlite3.connect(manifest)
    db_id, key = database.execute(f"SELECT db_id, {column} FROM shards WHERE {column} IS NOT NULL LIMIT 1").fetchone()
    told = json.loads(key)
    database.execute(f"UPDATE shards SET {column} = ? WHERE db_id = ?", (json.dumps(told + 1 if isinstance(told, int) else told + "x"), db_id))
    database.commit()
    database.close()
    done = shardy("verify", "--deep", pointer=tmp_path / "snapshot", env={"TMPDIR": str(tmp_path)})
    (bad,) = (shard for shard in json.loads(done.stdout)["shards"] if shard["status"] == "bad")
    assert bad["db_id"] == db_id and f"its {what} key is another one than the manifest says" in bad["error"]


def test_verify_finds_damaged_sqlite_shards(tmp_path: Path) -> None:
    copy = tmp_path / "snapshot"
    shutil.copytree(folder_of("sqlite-hash"), copy)
    database = copy.glob("shards/*/db=00001/attempt=00/shard.db").__next__()
    flip(database, 4096)  # what kind of page it is
    done = shardy("verify", "--deep", pointer=copy, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 1 and [shard["status"] for shard in json.loads(done.stdout)["shards"]].count("bad") == 1


def published(prefix: Path, rows: dict[int, bytes], num_dbs: int, run_id: str, backend: str = "slatedb") -> None:
    options = {"adapter_factory": SqliteFactory()} if backend == "sqlite" else {}
    write_hash_sharded(
        rows.items(),
        HashShardedWriteConfig(
            num_dbs=num_dbs, s3_prefix=prefix.as_uri(), output=WriterOutputConfig(run_id=run_id), **options
        ),  # type: ignore[arg-type]
        PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1]),
    )


@pytest.mark.parametrize(("num_dbs", "backend"), [((4, 4), "slatedb"), ((4, 3), "slatedb"), ((2, 2), "sqlite")])
def test_diff_of_rows(num_dbs: tuple[int, int], backend: str, tmp_path: Path) -> None:
    before = {i: b"%d" % i for i in range(3000)}
    after = {i: b"%d" % (i if i % 7 else -i) for i in range(500, 3500)}
    published(tmp_path, before, num_dbs[0], "old", backend)
    published(tmp_path, after, num_dbs[1], "new", backend)
    done = shardy("--value-encoding", "utf8", "diff", "old", "new", "--keys", "--exit-code", pointer=tmp_path)
    assert done.returncode == 3 and not done.stderr
    got = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = []
    for key in before.keys() | after.keys():
        row = {"change": "added" if key not in before else "removed" if key not in after else "changed", "key": key}
        row |= {"from": before[key].decode()} if key in before else {}
        row |= {"to": after[key].decode()} if key in after else {}
        if before.get(key) != after.get(key):
            wanted.append(row)
    assert sorted(got, key=lambda row: row["key"]) == sorted(wanted, key=lambda row: row["key"])
    text = shardy(
        "-o", "text", "--value-encoding", "utf8", "diff", "old", "new", "--keys", pointer=tmp_path
    ).stdout.splitlines()
    assert {"- 0=0", "+ 3499=3499", "~ 504=504 -> -504"} <= set(text) and len(text) == len(wanted)


def test_diff_reads_no_shards_of_the_same_rows(tmp_path: Path) -> None:
    rows = {i: b"%d" % i for i in range(1000)}
    for run_id in ("a", "b"):
        published(tmp_path, rows, 3, run_id)
    assert shardy("diff", "a", "b", "--keys", "--exit-code", pointer=tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "shards")
    assert shardy("diff", "a", "b", "--keys", "--exit-code", pointer=tmp_path).returncode == 0
    facts = {fact["name"] for fact in json.loads(shardy("diff", "1", "0", pointer=tmp_path).stdout)["differences"]}
    assert facts == {"run_id", "manifest_ref", "created_at"}
    assert shardy("-o", "text", "diff", "0", "0", pointer=tmp_path).stdout == "(no differences)\n"


def test_du(place: tuple[str, Path, dict[str, str]]) -> None:
    prefix, folder, env = place
    runs = {run["run_id"]: run for run in json.loads(shardy("du", pointer=prefix, env=env).stdout)["runs"]}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {name: run["state"] for name, run in runs.items()} == {
        "run-000": "published",
        "run-001": "published",
        "run-002": "current",
        None: "other",
    }
    for name, run in runs.items():
        mine = [path for path in files if (name in str(path) if name else path.name == "_CURRENT")]
        assert run["objects"] == len(mine) and run["bytes"] == sum(path.stat().st_size for path in mine)
    shutil.rmtree(next(folder.glob("manifests/*run-000")))
    states = {run["run_id"]: run["state"] for run in json.loads(shardy("du", pointer=prefix, env=env).stdout)["runs"]}
    assert states["run-000"] == "no manifest"


def test_stats() -> None:
    rows = rows_of(POINTER)
    stats = json.loads(shardy("stats", pointer=POINTER).stdout)
    assert (stats["rows"], stats["num_dbs"], stats["least_rows"], stats["most_rows"]) == (120, 4, 22, 36)
    assert stats["key_bytes"] == 960 and stats["value_bytes"] == sum(len(value) // 2 for _, value in rows)
    assert stats["keys"] == [{"up_to": 15, "rows": 120}]
    for bucket in stats["values"]:
        assert bucket["rows"] == sum(
            (bucket["up_to"] + 1) // 2 <= len(value) // 2 <= bucket["up_to"] for _, value in rows
        )


def test_watch(copy: Path) -> None:
    environment = HOME | {"SHARDY_CURRENT": str(copy)}
    with subprocess.Popen(
        [str(SHARDY), "watch", "--interval", "0.1", "--changes", "2"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["run_id"] == "run-002"
        for run_id in ("run-000", "run-001"):
            assert shardy("rollback", "--run-id", run_id, pointer=copy).returncode == 0
            assert json.loads(process.stdout.readline())["run_id"] == run_id
        assert process.wait(60) == 0


EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\u2028\u202egnp.exe\r\n\t"


@pytest.mark.parametrize("format", ["json", "jsonl", "table", "text", "csv", "tsv"])
@pytest.mark.parametrize("encoding", ["auto", "utf8"])
def test_hostile_keys_and_values_change_no_terminal(format: str, encoding: str, tmp_path: Path) -> None:
    write_hash_sharded(
        [EVIL, "b" + EVIL],
        HashShardedWriteConfig(num_dbs=1, s3_prefix=tmp_path.as_uri(), key_encoding="utf8"),  # type: ignore[arg-type]
        PythonRecordInput(key_fn=str, value_fn=lambda key: key.encode() + b"\xff\x9b"),
    )
    env = {"SHARDY_CURRENT": str(tmp_path)}
    options = ("--color", "never", "-o", format, "--value-encoding", encoding)
    for line in (
        ("scan",),
        ("get", EVIL),
        ("multiget", EVIL, "x" + EVIL),
        ("route", EVIL),
        ("shards",),
        ("diff", "0", "0", "--keys"),
    ):
        shown = on_a_terminal(*options, *line, env=env)
        assert shown or line[0] == "diff"
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", shown), (line, shown)
    assert json.loads(shardy("-o", "json", "get", EVIL, pointer=tmp_path).stdout)["key"] == EVIL


# ---------------------------------------------------------------------------------------------------------------------
# publish


CSV = b'\xef\xbb\xbfid,"na""me",note\r\n1,one,\r\n\r\n2,"two, ""2""\nlines",x\n3,\xff,y\n1,again,'


@pytest.mark.parametrize(
    ("name", "text", "options", "rows"),
    [
        ("a.csv", CSV, ["--key", "id", "--value", 'na"me'], {"1": b"again", "2": b'two, "2"\nlines', "3": b"\xff"}),
        ("a.csv", CSV.replace(b"\xff", b"\xc3\xa9"), ["--key", "id", "--values", "json"],
         {"1": b'{"id": "1", "na\\"me": "again", "note": ""}', "2": b'{"id": "2", "na\\"me": "two, \\"2\\"\\u000alines", "note": "x"}',
          "3": b'{"id": "3", "na\\"me": "\xc3\xa9", "note": "y"}'}),
        ("a.CSV", b"k,v\nx,00ff\n", ["--key", "k", "--value", "v", "--key-encoding", "utf8", "--value-encoding", "hex"], {"x": b"\0\xff"}),
        ("a.jsonl", b'\n {"k": 18446744073709551615, "v": "a\\n\\u00e9\\u0000"} \r\n{"v": [1, 2.50], "k": "7"}', ["--key", "k", "--value", "v"],
         {"18446744073709551615": b"a\n\xc3\xa9\0", "7": b"[1, 2.50]"}),
        ("a.ndjson", b'{"k": "a", "n": null}\n', ["--key", "k", "--values", "json", "--key-encoding", "raw"], {"a": b'{"k": "a", "n": null}'}),
        ("a.jsonl", b'{"k": 1, "v": "AP8="}\n{"k": 2, "v": "AP8"}\n{"k": 3, "v": ""}', ["--key", "k", "--value", "v", "--value-encoding", "base64"],
         {"1": b"\0\xff", "2": b"\0\xff", "3": b""}),
        ("a.csv", b"k,v\n", ["--key", "k", "--value", "v"], {}),
        ("a.csv", b'\xef\xbb\xbf"k","v"\n1,a\n', ["--key", "k", "--value", "v"], {"1": b"a"}),
        ("a.csv", "\uff4b,v\n1,a\n".encode(), ["--key", "\uff4b", "--value", "v"], {"1": b"a"}),  # begins as the mark does
        ("a.csv", b"\xef,\xbb\xbf,k,v\n1,2,3,4\n", ["--key", "k", "--value", "v"], {"3": b"4"}),
        ("a.jsonl", b"", ["--key", "k", "--value", "v"], {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["slatedb", "sqlite"])
def test_publish(backend: str, name: str, text: bytes, options: list[str], rows: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text)
    prefix = tmp_path / "snapshot"
    done = shardy("publish", str(tmp_path / name), "--num-dbs", "3", "--backend", backend, "--run-id", "r", *options, pointer=prefix)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["op"] == "publish" and report["run_id"] == "r" and report["num_dbs"] == 3 and report["row_count"] == len(rows)
    got = dict(rows_of(prefix, env={"TMPDIR": str(tmp_path)}))
    assert got == {key.encode().hex() if "raw" in options else key: value.hex() for key, value in rows.items()}
    assert shardy("verify", "--deep", pointer=prefix, env={"TMPDIR": str(tmp_path)}).returncode == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "line 1: there is no line with the names of the columns"),
        ("a.csv", "k,w\n1,2\n", "line 1: there is no column 'v' among 'k', 'w'"),
        ("a.csv", "k,v\n1,2\n3\n", "line 3: 1 fields, there are 2 columns"),
        ("a.csv", 'k,v\n1,"a\nb\n', "line 2: a quoted field does not end"),
        ("a.csv", 'k,v\n1,"a"b\n', "line 2: something stands behind the quote of field 2"),
        ("a.csv", 'k,v\n1,a"b\n', "line 2: field 2 has a quote in the middle"),
        ("a.csv", "k,v\n1,a\rb\n", "line 2: a carriage return stands alone"),
        ("a.csv", 'k,v\n1,"a\n\n"\n-1,x\n', "line 5: the key '-1' is no whole number from 0 to 2^64-1"),
        ("a.csv", "k,v\n18446744073709551616,x\n", "line 2: the key '18446744073709551616' is no whole number from 0 to 2^64-1"),
        ("a.csv", "k,v\n,x\n", "line 2: the key '' is no whole number from 0"),
        ("a.jsonl", '{"k": 1, "v": 2}\n{"k": 1', "line 2: it is no JSON object"),
        ("a.jsonl", '{"k": 1, "v": 2}\0\n', "line 1: it is no JSON object"),
        ("a.jsonl", "[1]\n", "line 1: it is no JSON object"),
        ("a.jsonl", '\n{"v": 2}\n', "line 2: it has no 'k'"),
        ("a.jsonl", '{"k": 1, "v": null}\n', "line 1: it has no 'v'"),
        ("a.jsonl", '{"k": 1, "v": "\\ud800"}\n', "line 1: it has half a surrogate pair"),
        ("a.jsonl", '{"k": 1.5, "v": 1}\n', "line 1: the key '1.5' is no whole number from 0"),
    ],
)  # fmt: skip
def test_publish_refuses(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    done = shardy("publish", str(tmp_path / name), "--key", "k", "--value", "v", "--num-dbs", "2", pointer=tmp_path / "snapshot")
    assert done.returncode == 1 and not done.stdout
    assert message in json.loads(done.stderr)["error"]
    assert not list(tmp_path.glob("snapshot/_CURRENT")) and not list(tmp_path.glob("snapshot/manifests/*"))


def test_publish_over_the_server(tmp_path: Path, server: S3Server) -> None:
    prefix = "s3://bucket/published-by-shardy"
    rows = shardy("scan", pointer=POINTER).stdout
    line = ["publish", "-", "--input-format", "jsonl", "--key", "key", "--value", "value", "--value-encoding", "base64", "--num-dbs", "4"]
    done = shardy(*line, "--expect", "absent", pointer=prefix, env=server.environment, input=rows)
    assert done.returncode == 0, done.stderr
    assert shardy("scan", pointer=prefix, env=server.environment).stdout == rows
    conflict = shardy(*line, "--expect", "absent", pointer=prefix, env=server.environment, input=rows)
    assert conflict.returncode == 1 and json.loads(conflict.stderr)["op"] == "publish"
    few = shardy(*line, "--min-rows-percent", "90", pointer=prefix, env=server.environment, input=rows[: len(rows) // 2].rsplit("\n", 1)[0])
    assert few.returncode == 1 and shardy("scan", pointer=prefix, env=server.environment).stdout == rows


def test_publish_reports_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("k,v\n1,a\n1,b\n2,c\n")
    line = ["-o", "text", "publish", str(tmp_path / "a.csv"), "--key", "k", "--value", "v", "--num-dbs", "1", "--run-id", "r"]
    done = shardy(*line, "--on-duplicate", "error", pointer=tmp_path / "snapshot")
    assert done.returncode == 1 and "nothing" not in done.stdout
    done = shardy(*line[:-1], "r2", "--compression", "zstd", "--sample-keys", "2", pointer=tmp_path / "snapshot")
    facts = dict(fact.split("=", 1) for fact in done.stdout.splitlines())
    assert (facts["run_id"], facts["num_dbs"], facts["row_count"], facts["duplicates"], facts["empty_shards"]) == ("r2", "1", "2", "1", "0")
    assert shardy("get", "1", "--raw", pointer=tmp_path / "snapshot").stdout == "b"
    assert list(facts) == ["run_id", "manifest_ref", "num_dbs", "row_count", "duplicates", "bytes", "empty_shards", "reused_shards", "bad_rows", "seconds"]


REJECTS: list[tuple[str, str, list[str], str, list[tuple[int, str]]]] = [
    ("a.csv", "k,v,n\n1,a,0\nx,b,0\n2\n-1,c,1\n\n3,d,one\n,e,1\n4,f,1\n", ["--cel", "n", "--cel-column", "n=int"], "14", [
        (3, "'x' is no whole number"), (4, "1 fields, there are 3 columns"), (5, "'-1' is no whole number"), (7, "'one' is no int"), (8, "'' is no whole number"),
    ]),
    ("a.jsonl", '{"k": "a", "v": "1"}\n[1]\n{"k": "b"}\n{"k": "", "v": "3"}\n{"k": "c", "v": "4"}\n{"k"', ["--key-encoding", "utf8", "--num-dbs", "2"], "ac", [
        (2, "no JSON object"), (3, "it has no 'v'"), (4, "the key is empty"), (6, "no JSON object"),
    ]),
    ("b.csv", "k,v\n1,a\n2,b\n3,c\n", ["--cel", "key == 2 ? 'other' : 'some'", "--cel-value", "some", "--cel-value", "none"], "13", [
        (3, "routing token 'other' is not present"),
    ]),
]  # fmt: skip


def test_rejects_do_not_empty_what_the_rows_come_from(tmp_path: Path) -> None:
    text = "id,v\n1,a\nx,b\n"
    (tmp_path / "rows.csv").write_text(text)
    (tmp_path / "link.csv").symlink_to("rows.csv")
    done = shardy("publish", "rows.csv", "--key", "id", "--value", "v", "--num-dbs", "1", "--on-bad-row", "skip", "--rejects", "link.csv",
                  pointer=tmp_path / "snapshot", cwd=tmp_path)
    assert done.returncode == 1 and "link.csv holds the rows" in done.stderr
    assert (tmp_path / "rows.csv").read_text() == text and not (tmp_path / "snapshot" / "_CURRENT").exists()


@pytest.mark.parametrize(("name", "text", "how", "keys", "rejects"), REJECTS, ids=[case[0] for case in REJECTS])
def test_publish_leaves_out_bad_rows(
    tmp_path: Path, name: str, text: str, how: list[str], keys: str, rejects: list[tuple[int, str]]
) -> None:
    (tmp_path / name).write_text(text)
    told = tmp_path / "rejects.jsonl"
    line = ["publish", name, "--key", "k", "--value", "v", *how]
    done = shardy(*line, pointer=tmp_path / "snapshot", cwd=tmp_path)
    assert done.returncode == 1 and f"{name}, line {rejects[0][0]}: " in json.loads(done.stderr)["error"]
    done = shardy(*line, "--on-bad-row", "skip", "--rejects", "rejects.jsonl", pointer=tmp_path / "snapshot", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"rows are left out, the first of them at {name}, line {rejects[0][0]}: " in done.stderr
    report = json.loads(done.stdout)
    assert (report["bad_rows"], report["row_count"]) == (len(rejects), len(keys))
    found = [json.loads(one) for one in told.read_text().splitlines()]
    assert [one["line"] for one in found] == [number for number, _ in rejects]
    assert all(reason in one["reason"] for one, (_, reason) in zip(found, rejects, strict=True))
    assert "".join(sorted(stored_rows(tmp_path / "snapshot"))) == keys


@pytest.mark.parametrize("text", ['k,v\n1,a\n2,b"\n3,c\n', 'k,v\n1,"a\n2,b\n', 'k,v\n1,"a"b\n2,c\n', "k,v\n1,a\r2,b\n"])
def test_publish_leaves_out_nothing_that_has_no_end(tmp_path: Path, text: str) -> None:
    line = ["publish", "-", "--input-format", "csv", "--key", "k", "--value", "v", "--num-dbs", "1", "--on-bad-row", "skip"]
    done = shardy(*line, pointer=tmp_path / "snapshot", input=text)
    assert done.returncode == 1 and "standard input, line" in json.loads(done.stderr)["error"]
    assert not list(tmp_path.glob("snapshot/_CURRENT"))


def test_publish_writes_all_rejects_or_nothing(tmp_path: Path) -> None:
    line = ["publish", "-", "--input-format", "csv", "--key", "k", "--value", "v", "--num-dbs", "1", "--rejects"]
    for path, why in (("/dev/full", "No space left on device"), ("/no/such/folder", "No such file or directory")):
        done = shardy(*line, path, "--on-bad-row", "skip", pointer=tmp_path / "snapshot", input="k,v\n1,a\nx,b\n")
        assert done.returncode == 1 and f"{path}: {why}" in done.stderr
    done = shardy(*line, "rejects", pointer=tmp_path / "snapshot", input="k,v\n1,a\n")
    assert done.returncode == 2 and "--rejects needs --on-bad-row skip" in done.stderr
    assert not list(tmp_path.glob("snapshot/_CURRENT"))


def test_publish_is_stopped(tmp_path: Path) -> None:
    line = [str(SHARDY), "publish", "-", "--input-format", "csv", "--key", "k", "--value", "v", "--num-dbs", "2"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=HOME | {"SHARDY_CURRENT": str(tmp_path / "snapshot")}) as process:
        assert process.stdin and process.stderr
        process.stdin.write("k,v\n" + "".join(f"{i},x\n" for i in range(100000)))
        process.stdin.flush()
        while not list(tmp_path.glob("snapshot/runs/*")):
            assert process.poll() is None
        process.send_signal(2)
        assert process.wait(60) == 1
        assert "nothing was published" in process.stderr.read()
    assert not list(tmp_path.glob("snapshot/_CURRENT"))


PYTHON = {"SHARDY_PYTHON": sys.executable, "PYTHONPATH": str(Path(shardyfusion.__file__).parent.parent)}


def stored_rows(prefix: Path, encoding: str = "utf8") -> dict[str, str]:
    done = shardy("--value-encoding", encoding, "scan", pointer=prefix, env={"TMPDIR": str(prefix.parent)})
    assert done.returncode == 0, done.stderr
    return {str(row["key"]): row["value"] for row in map(json.loads, done.stdout.splitlines())}


def parquet_file(folder: Path) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "id": pyarrow.array([1, 2, 2**64 - 1], pyarrow.uint64()),
        "text": ["Ada", 'x"é', ""],
        "real": [1.5, -0.25, 1e300],
        "bytes": [b"\x00\xff", b"", b"x"],
        "when": [datetime(2020, 1, 2, 3, 4, 5)] * 3,
        "none": [None] * 3,
        "nan": [0.5, float("nan"), 1.0],
    }
    parquet.write_table(pyarrow.table(columns), folder / "a.parquet")
    return str(folder / "a.parquet")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--value real", ["1.5", "-0.25", "1e+300"]),
        ("--value bytes --value-encoding base64", ["AP8=", "", "eA=="]),
        ("--value text --value when --value none", [f'{{"text": "{text}", "when": "2020-01-02 03:04:05", "none": null}}' for text in ("Ada", r'x\"é', "")]),
    ],
)  # fmt: skip
def test_publish_parquet(options: str, expected: list[str], tmp_path: Path) -> None:
    encoding = "base64" if "bytes" in options else "utf8"
    line = ["publish", parquet_file(tmp_path), "--key", "id", "--num-dbs", "2"]
    done = shardy(*line, *options.split(), pointer=tmp_path / "snapshot", env=PYTHON)
    assert done.returncode == 0, done.stderr
    assert stored_rows(tmp_path / "snapshot", encoding) == dict(zip(["1", "2", str(2**64 - 1)], expected, strict=True))


def test_publish_refuses_parquet(tmp_path: Path) -> None:
    file = parquet_file(tmp_path)
    for name, options, python, message in [
        (file, "--value nobody", sys.executable, "a.parquet: there is no column 'nobody'"),
        (file, "--value none", sys.executable, "a.parquet, row 1: it has no 'none'"),
        (file, "--value nan", sys.executable, "a.parquet: row 2: a number is infinite or none"),
        (file, "--values json", sys.executable, "a.parquet: 'bytes' is binary, which JSON has no form for"),
        (file, "--values json --value bytes", sys.executable, "a.parquet, row 1: 'bytes' is binary, which JSON has no form for"),
        (file, "--value text --int64-keys", sys.executable, "a.parquet, row 3: key 18446744073709551615 is above 2^63-1"),
        (str(tmp_path / "b.parquet"), "--value text", sys.executable, "b.parquet: it cannot be read: "),
        (file, "--value text", "/nonexistent", "it takes a Python with shardyfusion and pyarrow, and /nonexistent cannot be started"),
        (file, "--value text", shutil.which("false"), "the reader of Parquet files ended before all was read"),
        ("-", "--value text", sys.executable, "Parquet is not read from standard input"),
    ]:  # fmt: skip
        line = ["publish", name, "--input-format", "parquet", "--key", "id", "--num-dbs", "1"]
        done = shardy(*line, *options.split(), pointer=tmp_path / "new", env=PYTHON | {"SHARDY_PYTHON": str(python)})
        assert done.returncode == 1 and message in json.loads(done.stderr)["error"], (options, done.stderr)
    assert not (tmp_path / "new" / "_CURRENT").exists()


@pytest.mark.parametrize(
    ("form", "options", "shards", "context"),
    [
        ("csv", "--cel key%3 --num-dbs 3", {0: [0, 3, 6, 9], 1: [1, 4, 7], 2: [2, 5, 8]}, ""),
        ("csv", "--cel n%2 --cel-column n=int", {0: [0, 1, 4, 5, 8, 9], 1: [2, 3, 6, 7]}, "n={n}"),
        ("jsonl", "--cel n%2 --cel-column n=int", {0: [0, 1, 4, 5, 8, 9], 1: [2, 3, 6, 7]}, "n={n}"),
        ("csv", "--cel c --cel-column c=string --cel-value b --cel-value a", {0: [1, 3, 5, 7, 9], 1: [0, 2, 4, 6, 8]}, "c={c}"),
        ("csv", "--cel n/2 --cel-column n=int --cel-mode inferred", {0: [0, 1, 2, 3], 1: [4, 5, 6, 7], 2: [8, 9]}, "n={n}"),
        ("csv", "--cel key+n==0?0:1 --cel-column n=int --cel-column key=int", {0: [0, 1], 1: [2, 3, 4, 5, 6, 7, 8, 9]}, None),
    ],
)  # fmt: skip
def test_publish_by_cel(form: str, options: str, shards: dict[int, list[int]], context: str | None, tmp_path: Path) -> None:
    rows = [{"k": i, "v": f"v{i}", "n": i // 2, "c": "ab"[i % 2]} for i in range(10)]
    if context is None:
        rows[1]["k"] = 0
        rows[1] = rows[1] | {"n": 0}
        rows[0] = rows[0] | {"v": "gone"}
    csv_text = "k,v,n,c\n" + "".join(f"{r['k']},{r['v']},{r['n']},{r['c']}\n" for r in rows)
    text = csv_text if form == "csv" else "".join(json.dumps(row) + "\n" for row in rows)
    line = ["publish", "-", "--input-format", form, "--key", "k", "--value", "v"]
    done = shardy(*line, *options.split(), pointer=tmp_path, input=text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_dbs"] == len(shards)
    for db_id, keys in shards.items():
        found = shardy("scan", "--shard", str(db_id), pointer=tmp_path).stdout.splitlines()
        assert {json.loads(row)["key"] for row in found} == {rows[key]["k"] for key in keys}
        for key in keys if context is not None else ():
            given = ["--routing-context", context.format(**rows[key])] if context else []
            assert shardy("get", str(key), "--raw", *given, pointer=tmp_path).stdout == f"v{key}"
    if "n=int" in options:
        bad = shardy(*line, *options.split(), pointer=tmp_path, input=text.replace("v4,2,", "v4,two,").replace('"n": 2', '"n": "two"'))
        assert bad.returncode == 1 and "'two' is no int, of which column 'n' is" in json.loads(bad.stderr)["error"]
        assert ("line 6" if form == "csv" else "line 5") in bad.stderr


@pytest.mark.parametrize(
    ("encoding", "key_format", "keys", "stored"),
    [
        ("u64be", "hex", ["ff", "0A"], ["10", "255"]),
        ("raw", "hex", ["00ff", "61"], ["00ff", "61"]),
        ("raw", "base64", ["AP8=", "YQ"], ["00ff", "61"]),
        ("utf8", "hex", ["c3a9", "61"], ["a", "é"]),
    ],
)
def test_publish_key_formats(encoding: str, key_format: str, keys: list[str], stored: list[str], tmp_path: Path) -> None:
    line = ["publish", "-", "--input-format", "csv", "--key", "k", "--value", "v", "--num-dbs", "2", "--key-encoding", encoding]
    done = shardy(*line, "--key-format", key_format, pointer=tmp_path, input="k,v\n" + "".join(f"{key},1\n" for key in keys))
    assert done.returncode == 0, done.stderr
    found = stored_rows(tmp_path, "hex")
    assert sorted(found) == sorted(stored)
    bad = shardy(*line, "--key-format", key_format, pointer=tmp_path, input="k,v\n!,1\n")
    assert bad.returncode == 1 and "line 2: the key " in json.loads(bad.stderr)["error"]


def test_publish_with_all_options_of_the_writer(tmp_path: Path) -> None:
    line = ["publish", "-", "--input-format", "csv", "--key", "k", "--value", "v", "--value", "w", "--num-dbs", "2", "--run-id", "r"]
    options = [
        "--custom", 'a={"b": [1, "c"]}', "--custom", "d=null", "--shard-prefix", "pieces", "--db-path-template", "no={db_id:03d}",
        "--retry-seconds", "0.5", "--retry-multiplier", "3", "--max-empty-shards", "1", "--keep-losers",
        "--lease-seconds", "30", "--heartbeat-seconds", "5", "--run-registry", "records",
    ]  # fmt: skip
    text = "k,v,w\n1,a,b\n2,c,d\n"
    for backend in (["--sst-bytes", "1000000", "--min-filter-keys", "5"], ["--backend", "sqlite", "--page-bytes", "8192", "--no-sidecar"]):
        prefix = tmp_path / backend[0]
        done = shardy(*line, *options, *backend, pointer=prefix, input=text)
        assert done.returncode == 0, done.stderr
        assert stored_rows(prefix) == {"1": '{"v": "a", "w": "b"}', "2": '{"v": "c", "w": "d"}'}
        with contextlib.closing(sqlite3.connect(next(prefix.glob("manifests/*/manifest")))) as manifest:
            custom = json.loads(manifest.execute("SELECT custom FROM build_meta").fetchone()[0])
        assert custom["a"] == {"b": [1, "c"]} and custom["d"] is None
        assert len(list(prefix.glob("records/*"))) == 1 and list(prefix.glob("pieces/run_id=r/no=001"))
    shards = list(prefix.glob("pieces/**/*.db"))
    assert shards and all(shard.read_bytes()[16:18] == b"\x20\x00" for shard in shards)
    assert not list(prefix.glob("pieces/**/*.sidecar"))
    done = shardy(*line[:-2], "--no-run-record", "--max-empty-shards", "0", pointer=tmp_path / "none", input="k,v,w\n1,a,b\n")
    assert done.returncode == 1 and "empty" in done.stderr and not (tmp_path / "none" / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--value v", "Missing option --key,"),
        ("--key k --num-dbs 1", "Missing option --value,"),
        ("--key k --value v", "Missing option --num-dbs,"),
        ("--key k --value v --num-dbs 1 --cel-column a=int", "--cel-column, --cel-mode and --cel-value belong to --cel"),
        ("--key k --value v --cel a --cel-column a=number", "'number' is not one of int, uint, double, bool, string, bytes."),
        ("--key k --value v --num-dbs 1 --key-format base64", "Integers do not stand in base64"),
        ("--key k --value v --num-dbs 1 --custom x", "'x' is not KEY=JSON"),
    ],
)
def test_wrong_options_of_publish(options: str, message: str) -> None:
    done = shardy("publish", "a.csv", *options.split(), pointer=POINTER)
    assert done.returncode == 2 and message in done.stderr, done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# explain


def explained(key: str, pointer: str | Path, **more: object) -> dict[str, dict[str, object]]:
    done = shardy("explain", key, pointer=pointer, **more)
    assert done.returncode == 0 and not done.stderr, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert [step["step"] for step in steps if "us" in step] == ["manifest", "route", "open", "get", "again"]
    return {step["step"]: step for step in steps}


def test_explain(tmp_path: Path) -> None:
    published(tmp_path, {2 * i: b"%d" % i * 50 for i in range(3000)}, 2, "run")
    steps = explained("4000", tmp_path)
    assert steps["route"]["result"] in ("shard 0", "shard 1") and steps["get"]["result"] == steps["again"]["result"] == "found"
    assert steps["get"]["requests"] == 1 and steps["get"]["bytes"] == steps["block"]["length"] and steps["again"]["requests"] == 0
    block = steps["block"]
    assert block["result"] == "found" and (tmp_path / str(block["object"]).removeprefix(f"{tmp_path.as_uri()}/")).exists()
    absent = [explained(str(key), tmp_path) for key in range(1001, 1041, 2)]
    assert all(steps["get"]["result"] == "the key is not there" for steps in absent)
    ruled_out = [steps for steps in absent if "filter" in steps]
    assert len(ruled_out) > 10 and all(s["filter"]["result"] == "ruled out by the filter" and s["get"]["requests"] == 0 for s in ruled_out)


def test_explain_of_sqlite(tmp_path: Path) -> None:
    steps = explained("1", folder_of("sqlite-hash") / "_CURRENT", env={"TMPDIR": str(tmp_path)})
    assert steps["get"]["result"] in ("found", "the key is not there")
    assert steps["block"]["object"].endswith("/shard.db") and steps["block"]["length"] == 4096
