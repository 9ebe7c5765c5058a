"""tools/tidy.sh, a stage of the tests: it does not pass for want of files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from fixtures import ROOT


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        ([], {"GIT_DIR": "/nowhere"}, "not a git repository"),
        (["--changed", "no-such-commit"], {}, "no-such-commit"),
        (["src/no_such_file.c"], {}, "src/no_such_file.c"),
        ([], {"TIDY_BUILD": "/nowhere"}, "make check builds it"),
    ],
    ids=["no git", "no commit", "no file", "no build"],
)
def test_what_cannot_be_looked_at_fails(arguments: list[str], environment: dict[str, str], says: str, tmp_path: Path) -> None:
    tmp_path.joinpath("compile_commands.json").write_text("[]")
    command = [ROOT / "tools" / "tidy.sh", *arguments]
    done = subprocess.run(command, env=os.environ | {"TIDY_BUILD": str(tmp_path)} | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
