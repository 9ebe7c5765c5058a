#!/usr/bin/env python3
"""Clang has no warning in what gcc builds: tools/check_clang.py BUILD ...

The fuzz targets are built by clang, and the library with them; of all else in the folders' compile_commands.json (tests, command,
examples, programs that measure, the extension) clang only looks at the source, which takes a tenth of the time.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WRITES = {"-c", "-MD", "-o", "-MQ", "-MF"}  # the last three name a file
FLAGS = ["-fsyntax-only", "-Werror", "-Wno-unknown-warning-option", "-Wno-unknown-attributes"]  # what only gcc knows


def commands(build: Path) -> dict[str, tuple[Path, list[str]]]:
    """By source, of one of its objects: where clang runs, and how."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = os.path.relpath(Path(entry["directory"], entry["file"]))
        words = shlex.split(entry["command"])
        compiler = next(i for i, word in enumerate(words) if re.search(r"(^|/)(gcc|cc|clang)(-\d+)?$", word)) if source.endswith(".c") else None
        if compiler is None or source.startswith(("src/", "build")):
            continue
        given = words[compiler + 1 :]
        kept = [word for i, word in enumerate(given) if word not in WRITES and (i == 0 or given[i - 1] not in ("-o", "-MQ", "-MF"))]
        found[source] = (Path(entry["directory"]), ["clang", *kept, *FLAGS])
    return found


def look(command: tuple[Path, list[str]]) -> str:
    done = subprocess.run(command[1], cwd=command[0], capture_output=True, text=True)
    return done.stderr or (f"{command[1]}: {done.returncode}\n" if done.returncode else "")


def main() -> int:
    found = {source: command for build in map(Path, sys.argv[1:]) for source, command in commands(build).items()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = [text for text in pool.map(look, found.values()) if text]
    print("".join(said) or f"clang: no warning in {len(found)} files beside the library", end="" if said else "\n")
    return 1 if said or not found else 0


if __name__ == "__main__":
    sys.exit(main())
