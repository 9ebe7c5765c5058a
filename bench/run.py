"""`make bench`: everything that is measured, in one run over the same data; results below bench/results, then the pages that show them.

    .venv/bin/python bench/run.py BUILD [--large] [--small] [--only PART ...] [--results FOLDER]

BUILD: a release build with -Dpython=true. --large: look-ups in C over 10,000,000 rows, too. --small: everything with little data, to see whether it runs; it must be given a
folder for the results, which are worth nothing. What fails ends the run with its message, and nothing is written for its part. Each
command has a bound; all of them together end by themselves.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ROOT, tell

WHEEL = ROOT / ".cache" / "slatedb-0.17.0"
PROGRAMS = ["lookups", "file_scan", "plain_gets", "disk_hit", "build_shard", "sqlite_write", f"floor{sysconfig.get_config_var('EXT_SUFFIX')}"]
BOUND_S = 900
HZ = os.sysconf("SC_CLK_TCK")

Command = list[str | Path]


def commands(build: Path, data: Path, results: Path, small: bool, large: bool) -> dict[str, list[Command]]:
    """By part, in the order in which they run: later ones stand on what earlier ones have made or measured."""
    python, bench = sys.executable, ROOT / "bench"
    million, thousands = ("20000", "5000") if small else ("1000000", "200000")
    rounds = "2" if small else "7"
    few = ["--rounds", "1"] if small else []
    look_ups = build / "bench" / "lookups"
    parts: dict[str, list[Command]] = {
        "lookups": [
            [look_ups, data / "100B", million, "100", "100B", rounds],
            [look_ups, data / "1KiB", thousands, "1024", "1KiB", rounds],
            *([build / "bench" / "file_scan", data / name, name, rounds] for name in ("100B", "1KiB")),
        ],
        "python": [
            [python, bench / "python_reads.py", data / "100B", "100B", *few],
            [python, bench / "python_reads.py", data / "1KiB", "1KiB", "--rounds", "1" if small else "3"],
        ],
        "s3": [[
            python, bench / "s3_reads.py", "--plain", build / "bench" / "plain_gets", "--rows", million,
            *(["--gets", "200", "--slow-gets", "20", "--hedged-gets", "300", "--waves", "2", "--rounds", "1", "--shards", "8", "128"] if small else []),
        ]],
        "disk": [[build / "bench" / "disk_hit", data]],
        "sqlite": [
            [python, bench / "sqlite_read.py", data / "sqlite", "--rows", "20000" if small else "300000", *few],
            [python, bench / "sqlite_scan.py", *(["--mb", "2"] if small else []), *few],
            [python, bench / "sqlite_write.py", build / "bench" / "sqlite_write", "--rows", "20000" if small else "300000", *few],
        ],
        "memory": [[python, bench / "open_many.py", *few]],
        "writing": [
            [python, bench / "write_snapshot.py", "100B", "--folder", data, "--plain", build / "bench" / "build_shard", "--rows", million,
             "--wheel-rows", "5000" if small else "50000", *few],
            [python, bench / "write_snapshot.py", "1KiB", "--folder", data, "--value-bytes", "1016", "--rows", thousands, "--kinds", "arrow", "wheel",
             "--wheel-rows", "2000" if small else "20000", *few],
            [python, bench / "write_snapshot.py", "100B, 10 million rows", "--folder", data, "--only", "arrow", "--rows", "50000" if small else "10000000"],
            [python, bench / "codecs.py", *(["--rows", "5000", "--rounds", "1"] if small else [])],
        ],
        "fleet": [[python, bench / "fleet.py", "--results", results, *(["--small"] if small else [])]],
    }  # fmt: skip
    if large:
        parts["lookups"].append([look_ups, data / "large", "100000" if small else "10000000", "100", "100B, 10 million rows", "3"])
    return parts


def environment(build: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not re.fullmatch(r"(?i)(AWS_.*|S3_.*|(http|https|all|no)_proxy)", k)}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, (WHEEL, build / "python", build / "bench")))}


def run(command: Command, env: dict[str, str]) -> list[dict[str, Any]]:
    """Its lines, samples of one name put together."""
    tell("  " + " ".join(os.path.relpath(c, ROOT) if isinstance(c, Path) else c for c in command))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, timeout=BOUND_S, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{done.stderr[-4000:]}\nfailed with {done.returncode}: {' '.join(map(str, command))}")
    together: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        result = json.loads(line)
        kept = together.setdefault(result["name"], {"name": result["name"], "unit": result["unit"], "samples": []})
        if kept["unit"] != result["unit"]:
            raise SystemExit(f"{result['name']} has two units")
        kept["samples"] += result["samples"]
    if not together:
        raise SystemExit(f"said nothing: {' '.join(map(str, command))}")
    return list(together.values())


def busy_s() -> float:
    """Processor time of the whole machine, all processors together."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / HZ


def own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def surroundings(build: Path) -> dict[str, Any]:
    """What the figures hold for."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.M)
    compiler = json.loads((build / "meson-info" / "intro-compilers.json").read_text())["host"]["c"]
    changed = said_by("git", "status", "--porcelain", "--", "src", "include", "python", "bench", "meson.build")
    return {
        "commit": said_by("git", "rev-parse", "--short=10", "HEAD") + (", changed" if changed else ""),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": cpu[1] if cpu else platform.processor(),
        "processors": os.cpu_count(),
        "memory GiB": round(int(memory[1]) / 2**20, 1) if memory else None,
        "system": f"Linux {platform.release()}, {' '.join(platform.libc_ver())}",
        "compiler": f"{compiler['id']} {compiler['version']}, release",
        "Python": platform.python_version(),
        "beside": f"slatedb {WHEEL.name.removeprefix('slatedb-')}, LMDB {said_by('pkg-config', '--modversion', 'lmdb')}, "
                  f"RocksDB {said_by('pkg-config', '--modversion', 'rocksdb')}, SQLite {sqlite3.sqlite_version}",
    }  # fmt: skip


def measured(what: Callable[[], list[dict[str, Any]]], meta: dict[str, Any]) -> dict[str, Any]:
    start, busy, own = time.monotonic(), busy_s(), own_s()
    results = what()
    took = time.monotonic() - start
    used = own_s() - own
    others = max(0.0, (busy_s() - busy) - used) / took
    return {"meta": meta | {"seconds": round(took, 1), "processor seconds": round(used, 1), "processors that others used": round(others, 2)}, "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="PART")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    if args.small and not args.results:
        parser.error("--small needs --results")
    build, results = args.build.resolve(), (args.results or ROOT / "bench" / "results").resolve()
    if not WHEEL.is_dir():
        raise SystemExit(f"{WHEEL} is missing: run tools/install.sh bench")
    begin = time.monotonic()
    subprocess.run(["ninja", "-C", build, *(f"bench/{name}" for name in PROGRAMS)], check=True, stdout=subprocess.DEVNULL)
    results.mkdir(parents=True, exist_ok=True)
    meta, env = surroundings(build), environment(build)
    with tempfile.TemporaryDirectory(dir=build, prefix="data-") as name:
        data = Path(name)
        for folder in ("100B", "1KiB", "large", "sqlite"):
            (data / folder).mkdir()
        parts = commands(build, data, results, args.small, args.large)
        unknown = set(args.only or ()) - set(parts)
        if unknown:
            parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        for part, each in parts.items():
            needed = part == "lookups" and args.only and "python" in args.only and part not in args.only  # its data
            if args.only and part not in args.only and not needed:
                continue
            tell(f"{part} ({time.monotonic() - begin:.0f} s so far)")
            done = measured(lambda each=each: [r for command in each for r in run(command, env)], meta)
            if not needed:
                text = json.dumps(done["meta"], indent=1)[:-2] + "\n}"
                rows = ",\n".join(json.dumps(r) for r in done["results"])
                (results / f"{part}.json").write_text(f'{{"meta": {text},\n"results": [\n{rows}\n]}}\n')
    if not args.small:
        subprocess.run([sys.executable, ROOT / "bench" / "page.py"], check=True)
    tell(f"done after {time.monotonic() - begin:.0f} s")


main()
