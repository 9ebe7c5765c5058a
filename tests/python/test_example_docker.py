"""The Dockerfile of examples/docker as far as it can be looked at without a daemon, and the job that its image runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures import ROOT

import shardyfusion
from shardyfusion import ShardedReader

EXAMPLE = ROOT / "examples" / "docker"
KNOWN = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, without comments and with lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (EXAMPLE / "Dockerfile").read_text(), flags=re.M))
    found: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(None, 1)
        assert word in KNOWN, line
        if word == "FROM":
            image, by, name = rest.split()
            assert by == "AS" and (image in found or re.fullmatch(r"[\w.-]+:[\w.-]+", image)), line
            found[name] = list(found.get(image, []))
        found[name].append((word, rest))
    return found


STAGES = stages()


def ignored(path: Path) -> bool:
    patterns = (EXAMPLE / "Dockerfile.dockerignore").read_text().split()
    parts = path.relative_to(ROOT).parts
    return any(fnmatch("/".join(parts[: n + 1]), pattern) for n in range(len(parts)) for pattern in patterns)


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_names_is_there(name: str) -> None:
    for word, rest in STAGES[name]:
        if word == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() and not ignored(ROOT / source) for source in sources if source != "."), rest
        if word == "RUN":
            assert set(re.findall(r"from=(\w+)", rest)) <= set(STAGES), rest
            for program in re.findall(r"(?:^|&& )(tools/\S+)", rest):
                assert os.access(ROOT / program, os.X_OK) and not ignored(ROOT / program), rest
        if word in ("CMD", "HEALTHCHECK"):
            assert all(isinstance(part, str) for part in json.loads(rest[rest.index("[") :])), rest


@pytest.mark.parametrize("name", ["service", "job"])
def test_an_image_runs_without_rights(name: str) -> None:
    words = [word for word, _ in STAGES[name]]
    assert ("USER", "10001") in STAGES[name] and words.index("USER") < words.index("CMD")
    copied = [source for word, rest in STAGES[name] if word == "COPY" for source in rest.split()[:-1]]
    wanted = next(source for source in copied if "requirements" in source)
    command = json.loads(next(rest for word, rest in STAGES[name] if word == "CMD"))
    programs = {Path(source).name for source in copied}
    if name == "service":
        assert re.search(rf"^{command[0]}==", (ROOT / wanted).read_text(), re.M) and {"app.py", command[2]} <= programs
        ports = next(rest for word, rest in STAGES[name] if word == "EXPOSE").split()
        settings = (ROOT / "examples/fastapi/gunicorn.conf.py").read_text()
        assert f":{ports[0]}" in settings and ports[1] in settings and "/ready" in str(STAGES[name])
    else:
        assert command == ["python", "job.py"] and "job.py" in programs


def test_requirements_agree() -> None:
    """What images install is what the tests run with."""
    tested = dict(line.split("==") for line in (ROOT / "tools/requirements-test.txt").read_text().split() if "==" in line)
    for file in (ROOT / "examples/fastapi/requirements.txt", EXAMPLE / "requirements-job.txt"):
        for line in file.read_text().split():
            name, _, version = line.partition("==")
            assert (name == "shardyfusion" and not version) or tested[name] == version, line


def job(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(shardyfusion.__file__).parent.parent),
        "SOURCE": str(folder / "*.parquet"),
        "PROFILES": (folder / "profiles").as_uri(),
        "SPILL": str(folder / "spill"),
    }
    command = shlex.join([sys.executable, str(EXAMPLE / "job.py")])
    return subprocess.run(command, shell=True, env=environment | variables, capture_output=True, text=True, timeout=60)


def test_the_job(tmp_path: Path) -> None:
    def source(rows: int) -> None:
        pq.write_table(pa.table({"id": range(rows), "name": [f"user {n}" for n in range(rows)]}), tmp_path / "a.parquet")

    source(1000)
    done = job(tmp_path)
    assert done.returncode == 0 and "1000 rows, 0 shards kept" in done.stderr, done.stderr
    done = job(tmp_path, RUN_ID="again")
    assert done.returncode == 0 and "1000 rows, 8 shards kept" in done.stderr, done.stderr
    source(100)
    done = job(tmp_path)
    assert done.returncode == 1 and "100 rows" in done.stderr and "Traceback" not in done.stderr, done.stderr
    done = job(tmp_path, PROFILES="s3://bucket/profiles", AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_ACCESS_KEY_ID="a",
               AWS_SECRET_ACCESS_KEY="b", AWS_ALLOW_HTTP="true", RETRIES="0")  # fmt: skip
    assert done.returncode == 75 and "Traceback" not in done.stderr, done.stderr
    with ShardedReader(s3_prefix=tmp_path / "profiles", local_root=str(tmp_path / "cache")) as reader:
        assert json.loads(reader.get(999) or b"") == {"id": 999, "name": "user 999"}
