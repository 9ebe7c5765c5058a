#!/usr/bin/env python3
"""Type checkers accept what users copy, and know all that they may import: mypy (strict) and pyright over README's Python, the
examples and tests/python/typed_program.py; and `pyright --verifytypes`, which must know the type of every public name.

basedpyright is pyright as wheels bring it, program and node included; it asks nobody for anything.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python"
PROGRAMS = [
    ROOT / "examples" / "demo.py",
    ROOT / "examples" / "docker" / "job.py",
    ROOT / "examples" / "fastapi" / "app.py",
    ROOT / "examples" / "fastapi" / "publish.py",
    ROOT / "tests" / "python" / "typed_program.py",
]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
# What README takes for granted.
GIVEN = """
class Record:
    id: int
    payload: bytes


records: list[Record] = []

"""


def readme() -> str:
    """Its blocks, each a coroutine: at the top of a file nothing can be awaited."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    if not blocks:
        raise SystemExit("README.md has no Python")
    return GIVEN + "".join(
        f"\nasync def block_{n}() -> None:\n" + "".join(f"    {line}\n" if line else "\n" for line in block.splitlines())
        for n, block in enumerate(blocks)
    )


def run(folder: Path, *arguments: str, **variables: str) -> tuple[bool, str]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=os.environ | variables, text=True, capture_output=True
    )
    return done.returncode == 0, done.stdout + done.stderr


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "readme.py").write_text(readme())
        programs = [str(folder / "readme.py"), *map(str, PROGRAMS)]
        (folder / "pyrightconfig.json").write_text(json.dumps({
            "include": programs,
            "extraPaths": [str(PACKAGE)],
            "typeCheckingMode": "standard",
            "reportUnnecessaryTypeIgnoreComment": "error",
            "pythonVersion": "3.11",
        }))
        settings = str(ROOT / "pyproject.toml")
        looks = {
            "mypy over the package": ("mypy", "--config-file", settings, str(PACKAGE / "shardyfusion")),
            "mypy over programs": ("mypy", "--config-file", settings, *programs),
            "pyright over programs": ("basedpyright", "--pythonpath", sys.executable),
            "pyright, types of the package": ("basedpyright", "--ignoreexternal", "--verifytypes", "shardyfusion"),
        }
        for look, arguments in looks.items():
            path = {"MYPYPATH" if arguments[0] == "mypy" else "PYTHONPATH": os.pathsep.join(
                [str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])}
            passed, said = run(ROOT if arguments[0] == "mypy" else folder, *arguments, **path)
            if not passed:
                print(said, file=sys.stderr)
                print(f"{look}: failed", file=sys.stderr)
                return 1
        print("types: known, and right in README, examples and typed_program.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
