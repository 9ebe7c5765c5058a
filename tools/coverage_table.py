"""Tables of line and branch coverage of src/, from what a build with -Db_coverage=true left behind.

    tools/coverage_table.py BUILD [--uncovered FILE ...]

A line counts as covered when any object that holds it ran it, so headers' functions count once. With --uncovered, the
lines of these files that nothing reached.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class File:
    lines: dict[int, int] = field(default_factory=lambda: collections.defaultdict(int))
    branches: dict[tuple[int, int], int] = field(default_factory=lambda: collections.defaultdict(int))


def read(build: Path) -> dict[str, File]:
    """By path below src/. Objects that never ran have a .gcno only; their lines count as not covered."""
    files: dict[str, File] = collections.defaultdict(File)
    notes = sorted((build / "src").rglob("*.gcno"))
    if not notes:
        sys.exit(f"{build} was not built with -Db_coverage=true")
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(["gcov", "--json-format", "--branch-probabilities", "--hash-filenames",
                               *[note.resolve() for note in notes]], cwd=out, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        for result in Path(out).glob("*.gcov.json.gz"):
            report = json.loads(gzip.decompress(result.read_bytes()))
            for source in report["files"]:
                path = (Path(report["current_working_directory"]) / source["file"]).resolve()
                if not path.is_relative_to(ROOT / "src") or path.name.endswith("_fuzz.c"):
                    continue
                add(files[str(path.relative_to(ROOT / "src"))], source["lines"])
    return files


def add(file: File, lines: list[dict]) -> None:
    for line in lines:
        file.lines[line["line_number"]] += line["count"]
        for n, branch in enumerate(line["branches"]):
            file.branches[line["line_number"], n] += branch["count"]


def share(counts: list[int]) -> str:
    return f"{100 * sum(n > 0 for n in counts) / len(counts):.1f} %" if counts else "-"


def row(name: str, files: list[File]) -> str:
    lines = [n for file in files for n in file.lines.values()]
    branches = [n for file in files for n in file.branches.values()]
    return f"| {name} | {len(lines):,} | {share(lines)} | {len(branches):,} | {share(branches)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--uncovered", nargs="*", default=[], metavar="FILE", help="below src/")
    options = parser.parse_args()
    files = read(options.build)
    for name in options.uncovered:
        text = (ROOT / "src" / name).read_text().splitlines()
        for number in sorted(n for n, count in files[name].lines.items() if count == 0):
            print(f"{name}:{number}: {text[number - 1].strip()}")
    if options.uncovered:
        return 0
    folders: dict[str, list[File]] = collections.defaultdict(list)
    for name, file in files.items():
        folders[str(Path(name).parent)].append(file)
    head = "lines | covered | branches | covered |\n| --- | ---: | ---: | ---: | ---: |"
    print(f"| folder of src/ | {head}")
    for name in sorted(folders):
        print(row(f"`{name}`", folders[name]))
    print(row("all", list(files.values())))
    print(f"\n| file, the ten least covered | {head}")
    for name in sorted(files, key=lambda n: sum(c > 0 for c in files[n].lines.values()) / len(files[n].lines))[:10]:
        print(row(f"`{name}`", [files[name]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
