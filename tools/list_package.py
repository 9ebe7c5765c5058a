#!/usr/bin/env python3
"""The files of the Python package, relative to python/, one a line."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "python"

for path in sorted((ROOT / "shardyfusion").rglob("*")):
    if path.suffix in (".py", ".pyi") or path.name == "py.typed":
        print(path.relative_to(ROOT).as_posix())
