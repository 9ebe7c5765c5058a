#!/usr/bin/env python3
"""Make FOLDER an importable copy of the package: its Python files, and what was built. sync_package.py SOURCE FOLDER BUILT ..."""

import shutil
import sys
from pathlib import Path

source, folder, *built = map(Path, sys.argv[1:])
wanted = {p.relative_to(source) for p in source.rglob("*") if p.suffix in (".py", ".pyi") or p.name == "py.typed"}
for path in wanted:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != (source / path).read_bytes():
        shutil.copyfile(source / path, target)
for path in built:
    target = folder / path.name
    if not target.exists() or target.stat().st_mtime_ns != path.stat().st_mtime_ns:
        target.unlink(missing_ok=True)  # it may be running
        shutil.copy2(path, target)
for path in folder.rglob("*.py*"):
    if path.suffix in (".py", ".pyi") and path.relative_to(folder) not in wanted:
        path.unlink()
folder.parent.joinpath("package.stamp").touch()
