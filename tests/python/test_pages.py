"""Every block of code in the documentation for users, and of the notebook, runs, in the order of its page, against a real S3 server and a real
PostgreSQL where it asks for them. What is in C compiles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from run_page import blocks
from s3_server import S3Server, s3_server

import shardyfusion

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "notebook.ipynb", *sorted(p for folder in ("start", "guides") for p in (ROOT / "docs" / folder).glob("*.md"))]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_page(page: Path, s3: S3Server, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bucket = s3.folder / "bucket"  # empty for each page
    if bucket.exists():
        subprocess.run(["rm", "-r", bucket], check=True)
    bucket.mkdir()
    (tmp_path / "bin").mkdir()
    shardy = tmp_path / "bin" / "shardy"
    shardy.write_text(f'#!/bin/sh\nexec {sys.executable} -m shardyfusion "$@"\n')
    shardy.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    package = Path(shardyfusion.__file__).parent.parent
    database: dict[str, str] = {}
    if page.stem == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = {"SHARDY_MANIFEST_DSN": server.url()}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/support/run_page.py", page, tmp_path],
        env=os.environ
        | s3.environment
        | database
        | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(package), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("page", ["README.md", "docs/reference/c.md"])
def test_code_in_c(page: str) -> None:
    """One function of all blocks, as a reader would paste them one below the other."""
    code = "".join(block.code for block in blocks(ROOT / page) if block.language == "c")
    assert code
    above = [line for line in code.splitlines() if line.startswith("#include")]
    body = [line for line in code.splitlines() if not line.startswith("#include")]
    program = "\n".join(["#include <stdio.h>", *above, "void page(void);", "void page(void)", "{", *body, "}", ""])
    done = subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", ROOT / "include", "-x", "c", "-"],
        input=program, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_reference_has_every_name() -> None:
    """What may be imported from the package itself is on a page for users, not only in the contract."""
    text = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    named = set(re.findall(r"\w+", text))
    assert sorted(set(shardyfusion.__all__) - named) == []
