#!/usr/bin/env python3
"""Make FOLDER an importable copy of the package: its Python files and the extension. sync_package.py SOURCE FOLDER EXTENSION"""

import shutil
import sys
from pathlib import Path

source, folder, extension = map(Path, sys.argv[1:4])
wanted = {p.relative_to(source) for p in source.rglob("*") if p.suffix in (".py", ".pyi") or p.name == "py.typed"}
for path in wanted:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != (source / path).read_bytes():
        shutil.copyfile(source / path, target)
shutil.copy2(extension, folder / extension.name)
for path in folder.rglob("*.py*"):
    if path.suffix in (".py", ".pyi") and path.relative_to(folder) not in wanted:
        path.unlink()
folder.parent.joinpath("package.stamp").touch()
