"""`shardy doctor`: what it finds, against the real S3 server and against servers that are at fault."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from fixtures import FIXTURES, ROOT
from test_cli import HOME, SHARDY, folder_of, shardy

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import SECRET_KEY, S3Server, s3_server  # noqa: E402

GOLDEN = FIXTURES / "cli" / "doctor.txt"
PREFIX = "s3://bucket/golden/history-three-runs"


def always(**fault: object) -> Fault:
    return Fault(times=-1, **fault)  # type: ignore[arg-type]


@dataclass
class Case:
    line: str = "-o text doctor --write"
    faults: list[Fault] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    way: str = "front"


CASES = {
    "all is well": Case("-o text doctor"),
    "all is well, with --write": Case("-o table doctor --write"),
    "as JSON": Case("-o json doctor --write"),
    "as rows": Case("-o csv doctor"),
    "nothing is published": Case(env={"SHARDY_CURRENT": "s3://scratch/nothing"}),
    "by TLS": Case("-o text doctor", way="tls"),
    "by TLS, of nobody who is known": Case("-o text doctor", way="tls", env={"AWS_CA_BUNDLE": ""}),
    "by TLS, whoever it is": Case("-o text doctor --s3-option verify_ssl=false", way="tls"),
    "a wrong key": Case("-o text doctor", env={"AWS_ACCESS_KEY_ID": "nobody"}),
    "a wrong secret": Case("-o text doctor", env={"AWS_SECRET_ACCESS_KEY": "wrong-secret"}),
    "half of a pair": Case("-o text doctor", env={"AWS_SECRET_ACCESS_KEY": ""}),
    "no keys": Case("-o text doctor", env={"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}),
    "a clock that is late": Case("-o text doctor", [always(clock=90)]),
    "a clock that is too late": Case("-o text doctor", [always(clock=3630)]),
    "a clock that is early": Case("-o text doctor", [always(clock=-3630)]),
    "a clock that is early, for a program": Case("doctor", [always(clock=-3630)]),
    "no clock": Case("-o text doctor", [always(drop="date")]),
    "nobody there": Case(env={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}),
    "no answer": Case("-o text --timeout 0.5 doctor --write", [always(stall=-1)]),
    "not HTTP": Case("-o text doctor", [always(garbage=True)]),
    "nothing is allowed": Case(faults=[always(status=403, code="AccessDenied")]),
    "no listing": Case(faults=[always(match="list-type=2", status=403, code="AccessDenied")]),
    "no writing": Case(faults=[always(match="PUT", status=403, code="AccessDenied")]),
    "no deleting": Case(faults=[always(match="DELETE", status=403, code="AccessDenied")]),
    "no shards": Case("-o text doctor", [always(match="/shards/", status=403, code="AccessDenied")]),
    "now and then": Case("-o text doctor", [Fault(match="/_CURRENT", skip=6, times=3, status=503, code="SlowDown")]),
    "no conditions": Case(faults=[always(having="if-none-match", status=501, code="NotImplemented"),
                                  always(having="if-match", status=501, code="NotImplemented")]),
    "no tags": Case(faults=[always(drop="etag")]),
    "it listens to nothing": Case(way="careless"),
}


class Careless(BaseHTTPRequestHandler):
    """Nearly S3: it knows neither ranges nor conditions, checks no signature, and keeps what it is given in memory."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0123"')
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix("/bucket/")
        if "list-type" in url.query:
            prefix = parse_qs(url.query)["prefix"][0]
            keys = "".join(f"<Contents><Key>{k}</Key><Size>{len(v)}</Size></Contents>"
                           for k, v in sorted(self.objects.items()) if k.startswith(prefix))
            self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>".encode())
        elif key in self.objects:
            self.answer(200, self.objects[key])
        else:
            self.answer(404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.objects[unquote(self.path).removeprefix("/bucket/")] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_DELETE(self) -> None:
        self.objects.pop(unquote(self.path).removeprefix("/bucket/"), None)
        self.answer(204)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server(FIXTURES, tls=True) as s:
        yield s


@pytest.fixture(scope="module")
def front(server: S3Server) -> Iterator[Front]:
    with fault_server(server.endpoint) as f:
        yield f


@pytest.fixture(scope="module")
def careless() -> Iterator[str]:
    case = folder_of("history-three-runs")
    Careless.objects = {f"golden/history-three-runs/{path.relative_to(case)}": path.read_bytes()
                        for path in case.rglob("*") if path.is_file()}
    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as s:
        thread = threading.Thread(target=s.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{s.server_address[1]}"
        s.shutdown()
        thread.join()


def environment(server: S3Server, endpoint: str, **more: str) -> dict[str, str]:
    return server.environment | {"AWS_ENDPOINT_URL": endpoint, "SHARDY_CURRENT": f"{PREFIX}/_CURRENT"} | more


def steady(text: str, server: S3Server) -> str:
    assert server.certificates
    for pattern, replacement in (
        (re.escape(str(server.certificates.authority)), "{authority}"),
        (r"127\.0\.0\.1:\d{2,}", "{endpoint}"),
        (r"after \d+ ms", "after {ms} ms"),
        (r"in \d+ ms", "in {ms} ms"),
        (r"machine is \d+m \d+s", "machine is {duration}"),
        (r"\d+\.\d ms", "{ms} ms"),
        (r"\d+\.\d s\b", "{s} s"),
        (r"request id \w+", "request id {id}"),
        (r"_doctor-[0-9a-f]{16}", "_doctor-{digits}"),
        (r"(?<=_us\": )\d+", "{us}"),
        (r"(?<=ahead_seconds\": )36[23]\d\.0", "{an hour}"),
        (r",\d+,\d+$", ",{us},{us}"),
    ):
        text = re.sub(pattern, replacement, text, flags=re.M)
    return text


def golden() -> dict[str, str]:
    if not GOLDEN.exists():
        return {}
    parts = re.split(r"^# (.*)\n", GOLDEN.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {name: text.strip("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_transcripts(name: str, server: S3Server, front: Front, careless: str) -> None:
    case = CASES[name]
    assert server.certificates
    endpoint = {"front": front.endpoint, "tls": server.tls_endpoint, "careless": careless}[case.way]
    env = environment(server, endpoint, AWS_CA_BUNDLE=str(server.certificates.authority)) | case.env
    front.plan(*case.faults)
    done = shardy(*case.line.split(), env=env)
    out = done.stdout + "".join(f"2> {line}\n" for line in done.stderr.splitlines())
    assert SECRET_KEY not in out and env["AWS_SECRET_ACCESS_KEY"] not in (" ", *out.split())
    got = steady(f"$ shardy {case.line}\n{out}=> {done.returncode}", server)
    wanted = golden()
    if os.environ.get("SF_WRITE_GOLDEN"):
        wanted[name] = got
        GOLDEN.write_text("\n\n".join(f"# {n}\n{wanted[n]}" for n in CASES if n in wanted) + "\n", encoding="utf-8")
    else:
        assert got == wanted[name]
    left = [path.name for path in server.folder.rglob("_doctor-*")]
    assert left == ([] if name != "no deleting" else left[:1])
    for path in server.folder.rglob("_doctor-*"):
        path.unlink()
    assert not any("_doctor-" in key for key in Careless.objects)


def test_every_case_has_a_transcript() -> None:
    assert list(golden()) == list(CASES)


def test_what_a_killed_doctor_left_is_told(server: S3Server) -> None:
    probe = server.folder / "bucket" / "golden" / "history-three-runs" / "_doctor-0000000000000000"
    probe.write_text("x")
    checks = json.loads(shardy("doctor", env=environment(server, server.endpoint)).stdout)["checks"]
    probe.unlink()
    (found,) = [check for check in checks if check["check"] == "list"]
    assert found["status"] == "warning" and f"{PREFIX}/_doctor-0000000000000000" in found["detail"]


def test_an_interrupt_leaves_nothing(server: S3Server, front: Front) -> None:
    front.plan(Fault(match="PUT", times=1, latency=0.3))
    process = subprocess.Popen([SHARDY, "doctor", "--write"], env=HOME | environment(server, front.endpoint),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(r["method"] == "PUT" for r in front.log()["requests"]):  # type: ignore[attr-defined]
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    assert not list(server.folder.rglob("_doctor-*"))


@pytest.mark.parametrize("case", ["history-three-runs", "sqlite-sidecar-utf8", "sqlite-empty-shard", "fallback-newest-malformed"])
def test_files(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    subprocess.run(["cp", "-r", folder_of(case), folder], check=True)
    done = shardy("doctor", "--write", pointer=folder, env={"TMPDIR": str(tmp_path)})
    checks = {check["check"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    assert list(checks) == ["settings", "pointer", "list", "snapshot", "shard", "ranges", "latency", "write", "create-only",
                            "replace-only", "delete"]
    assert {name for name, status in checks.items() if status != "ok"} == ({"snapshot"} if "fallback" in case else set())
    assert not list(folder.rglob("_doctor-*"))


def test_folders_that_were_made_go_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in ("there", "there/new/deeper", "new"):
        done = shardy("doctor", "--write", pointer=tmp_path / folder)
        assert "failed" not in {one["status"] for one in json.loads(done.stdout)["checks"]}, done.stdout
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]



@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("doctor --policy all", "'all' is not one of read|publish|cleanup"),
        ("doctor --ref x", "it takes no --ref and no --offset"),
        ("doctor x", "Got unexpected extra argument (x)"),
    ],
)
def test_wrong_lines(line: str, text: str) -> None:
    done = shardy(*line.split(), pointer="s3://bucket/prefix")
    assert done.returncode == 2 and text in done.stderr


def test_files_have_no_policy(tmp_path: Path) -> None:
    done = shardy("doctor", "--policy", "read", pointer=tmp_path)
    assert done.returncode == 1 and "policies are for s3://" in done.stderr


@pytest.mark.parametrize(
    ("url", "region", "objects", "listed"),
    [
        ("s3://b/p/q/_CURRENT", "us-east-1", "arn:aws:s3:::b/p/q/*", "p/q/*"),
        ("s3://b/p/q/", "cn-north-1", "arn:aws-cn:s3:::b/p/q/*", "p/q/*"),
        ("s3://b/_CURRENT", "us-gov-west-1", "arn:aws-us-gov:s3:::b/*", "*"),
        ("s3://b/a*b/$c?", "eu-west-1", "arn:aws:s3:::b/a${*}b/${$}c${?}/*", "a${*}b/${$}c${?}/*"),
    ],
)
def test_policies_name_the_prefix(url: str, region: str, objects: str, listed: str) -> None:
    policy = json.loads(shardy("doctor", "--policy", "read", pointer=url, env={"AWS_REGION": region}).stdout)
    assert policy["Version"] == "2012-10-17"
    first, second = policy["Statement"]
    assert first["Resource"] == objects and second["Resource"] == objects[: objects.index(":b") + 2]
    assert second["Condition"] == {"StringLikeIfExists": {"s3:prefix": listed}}


def action_of(request: dict[str, str]) -> str:
    """What IAM has to allow for a request, as S3's reference says."""
    query = urlsplit(request["target"]).query
    match request["method"]:
        case "GET" if "uploads" in query:
            return "s3:ListBucketMultipartUploads"
        case "GET" if "list-type" in query:
            return "s3:ListBucket"
        case "GET" | "HEAD":
            return "s3:GetObject"
        case "DELETE" if "uploadId" in query:
            return "s3:AbortMultipartUpload"
        case "POST" if "delete" in query:
            return "s3:DeleteObject"
        case "DELETE":
            return "s3:DeleteObject"
    return "s3:PutObject"


@pytest.mark.parametrize(
    ("purpose", "lines", "not_every_time"),
    [
        ("read", ["get 1", "scan", "health", "history", "verify --deep", "du", "stats"], set()),
        ("publish", ["publish - --key k --value v --num-dbs 2 --input-format csv", "rollback --offset 1"], {"s3:AbortMultipartUpload"}),
        ("cleanup", ["cleanup --keep-last 2"], {"s3:AbortMultipartUpload"}),
    ],
)
def test_policies_allow_what_is_asked_and_no_more(purpose: str, lines: list[str], not_every_time: set[str], server: S3Server,
                                                  front: Front) -> None:
    # what is young is not cleaned up
    prefix = PREFIX if purpose == "cleanup" else f"s3://scratch/policy/{purpose}"
    env = environment(server, front.endpoint, SHARDY_CURRENT=f"{prefix}/_CURRENT")
    publish = ["publish", "-", "--key", "k", "--value", "v", "--num-dbs", "2", "--input-format", "csv"]
    for _ in range(0 if purpose == "cleanup" else 2):
        assert shardy(*publish, env=env, input="k,v\n1,a\n2,b\n").returncode == 0
    front.plan()
    for line in lines:
        done = shardy(*line.split(), env=env, input="k,v\n1,a\n2,b\n")
        assert done.returncode == 0, done.stderr
    asked = {action_of(r) for r in front.log()["requests"]}  # type: ignore[attr-defined]
    policy = json.loads(shardy("doctor", "--policy", purpose, env=env).stdout)
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert asked == allowed - not_every_time


def test_a_pointer_that_was_deleted(server: S3Server) -> None:
    shutil.copytree(folder_of("history-three-runs"), server.folder / "scratch" / "gone", ignore=shutil.ignore_patterns("_CURRENT"))
    done = shardy("-o", "text", "doctor", env=server.environment | {"SHARDY_CURRENT": "s3://scratch/gone/_CURRENT"})
    assert done.returncode == 1
    assert "there is no s3://scratch/gone/_CURRENT, but snapshots: shardy rollback --offset 0 makes it\n" in done.stdout
