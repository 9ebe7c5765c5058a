#!/usr/bin/env python3
"""The look-ups that must stay cheap: fail when one of them takes over 5 % more instructions a key than was recorded.

    tools/check_instructions.py BUILD             BUILD: a build folder with -Dpython=true, of the recorded build type
    tools/check_instructions.py BUILD --record    makes what is counted now the record, tests/fixtures/instructions.json

valgrind counts, so that a busy machine counts the same as one at rest. Another compiler, C library, Python or kind of processor counts otherwise:
then the figures are told, and nothing fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "fixtures" / "instructions.json"
ALLOWED = 1.05


def surroundings(build: Path) -> dict[str, str]:
    """What the figures hold for."""
    options = {o["name"]: o["value"] for o in json.loads((build / "meson-info" / "intro-buildoptions.json").read_text())}
    compiler = json.loads((build / "meson-info" / "intro-compilers.json").read_text())["host"]["c"]
    flags = Path("/proc/cpuinfo").read_text()
    vectors = next((name for name in ("avx512f", "avx2", "sse4_2") if re.search(rf"\b{name}\b", flags)), "")
    return {
        "build type": options["buildtype"],
        "compiler": f"{compiler['id']} {compiler['version']}",
        "C library": " ".join(platform.libc_ver()),
        "Python": platform.python_version(),
        "processor": f"{platform.machine()} {vectors}".strip(),
    }


def quietly(command: list[str | Path], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def counted(folder: Path, function: str, command: list[str | Path], **environment: str) -> float:
    """Instructions a key inside of the function, which is called once. (valgrind follows one function a run.)"""
    folder.mkdir(exist_ok=True)
    out = folder / f"callgrind.{function}"
    options = [f"--callgrind-out-file={out}", f"--toggle-collect={function}", f"--dump-after={function}"]
    keys = int(quietly(["valgrind", "--quiet", "--tool=callgrind", *options, *command], **environment))
    total = re.search(r"^totals: (\d+)", (folder / f"{out.name}.1").read_text(), re.M)
    if total is None or int(total[1]) < keys:
        raise SystemExit(f"valgrind did not count {function}: was it inlined?")
    return round(int(total[1]) / keys, 1)


def count(build: Path) -> dict[str, float]:
    floor = f"bench/floor{sysconfig.get_config_var('EXT_SUFFIX')}"
    quietly(["ninja", "-C", build, "bench/hot_paths", floor])
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        program = build / "bench" / "hot_paths"
        quietly([program, folder / "published"])
        paths = {"PYTHONPATH": f"{build}/python:{build}/bench", "PYTHONHASHSEED": "0"}
        script: list[str | Path] = [sys.executable, ROOT / "bench" / "hot_reads.py", folder / "published"]

        def python(path: str) -> Future[float]:
            return pool.submit(counted, folder / path, "floor_drive", [*script, path], **paths)

        runs = {
            "await get": python("await_get"),
            "get in Python": python("get"),
            "multi_get(1000) in Python": python("multi_get"),
            "C try_get": pool.submit(counted, folder, "counted_try_get", [program, folder / "1"]),
            "C multi_get(1000)": pool.submit(counted, folder, "counted_multi_get", [program, folder / "2"]),
        }
        return {what: run.result() for what, run in runs.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    build = options.build.resolve()
    here, now = surroundings(build), count(build)
    if options.record:
        RECORD.write_text(json.dumps({"counted with": here, "instructions a key": now}, indent=2) + "\n")
    record = json.loads(RECORD.read_text())
    before, same = record["instructions a key"], record["counted with"] == here
    worse = []
    for what, instructions in now.items():
        change = instructions / before[what] - 1
        print(f"{what}: {instructions:,.0f} instructions a key, recorded {before[what]:,.0f} ({change:+.1%})")
        if instructions > ALLOWED * before[what]:
            worse.append(what)
    if not same:
        other = "; ".join(f"{k} {record['counted with'].get(k)}, here {v}" for k, v in here.items() if record["counted with"].get(k) != v)
        print(f"recorded elsewhere ({other}), so nothing is judged")
        return 0
    cheaper = [what for what, instructions in now.items() if instructions < before[what] / ALLOWED]
    if cheaper and not worse:
        print(f"{', '.join(cheaper)}: over 5 % less. Record it, so that it stays so: tools/check_instructions.py {options.build} --record")
    if worse:
        print(f"{', '.join(worse)}: over 5 % more than {RECORD.relative_to(ROOT)} says. Make it as cheap as it was, or, if what it does now is worth "
              f"that, record it: tools/check_instructions.py {options.build} --record", file=sys.stderr)  # fmt: skip
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
