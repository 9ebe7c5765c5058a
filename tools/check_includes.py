#!/usr/bin/env python3
"""Includes point downwards only: fail when a layer includes one above or beside it, when files of src/ (a .c and its .h
count as one) include each other in a circle, or for a third-party header that has its home elsewhere
(docs/architecture.md, "Layers")."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Lowest first. A file may include its own layer and those before it.
LAYERS = ["base", "net", "auth", "store", "cache", "runtime", "site", "backend", "backend/slatedb/format", "backend/slatedb",
          "backend/sqlite", "backend/foreign", "snapshot/cel", "snapshot", "reader", "writer"]
# Pairs that must not meet although one comes later in the list.
FORBIDDEN = {("backend/slatedb/format", layer) for layer in ("net", "auth", "store", "cache", "runtime", "site", "backend")}
FORBIDDEN |= {("writer", "reader")}
FORBIDDEN |= {("snapshot/cel", layer) for layer in LAYERS[1:LAYERS.index("snapshot/cel")]}
FORBIDDEN |= {("snapshot", layer) for layer in ("backend/slatedb/format", "backend/slatedb", "backend/sqlite")}
FORBIDDEN |= {("backend/foreign", layer) for layer in ("store", "backend/slatedb/format", "backend/slatedb",
                                                       "backend/sqlite")}
FORBIDDEN |= {("backend/sqlite", layer) for layer in ("backend/slatedb/format", "backend/slatedb")}
# Third-party header -> the only places that may include it.
HOMES = {
    "curl/curl.h": ["src/net/", "src/runtime/runtime.c"],
    "uv.h": ["src/net/"],
    "sqlite3.h": ["src/snapshot/", "src/backend/sqlite/", "src/base/sqlite_harden.c"],
    "cjson/cJSON.h": ["tests/"],
    "editline/readline.h": ["cli/shell.c"],
    "yaml.h": ["src/snapshot/run_record.c", "cli/cmd_exec.c"],
    "pcre2.h": ["src/snapshot/cel/regex.c"],
    "expat.h": ["src/base/xml.c"],
    "libdeflate.h": ["src/base/checksum.c", "src/backend/slatedb/format/compress"],
    "xxhash.h": ["src/base/checksum.c", "src/snapshot/router.c"],
    "zstd.h": ["src/backend/slatedb/format/compress", "src/backend/sqlite/sidecar"],
    "lz4.h": ["src/backend/slatedb/format/compress"],
    "snappy-c.h": ["src/backend/slatedb/format/compress"],
    "toml++/toml.h": ["cli/toml.cpp"],
    "Python.h": ["python/_core/"],
}
TYPE = re.compile(r"^\s*(?:typedef |static |const )*(?:struct|union|enum) (\w+)\s*\{", re.M)
TYPEDEF = re.compile(r"^\} (\w+);", re.M)
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)


def layer_of(path: str) -> str | None:
    folder = path.rsplit("/", 1)[0] if "/" in path else ""
    return folder if folder in LAYERS else None


def circles() -> list[str]:
    """Each file that includes itself by way of others, with the way."""
    includes: dict[str, set[str]] = {}
    for file in sorted((ROOT / "src").rglob("*.[ch]")):
        name = file.relative_to(ROOT / "src").with_suffix("").as_posix()
        found = {i.removesuffix(".h") for i in INCLUDE.findall(file.read_text()) if (ROOT / "src" / i).exists()}
        includes.setdefault(name, set()).update(found - {name})
    errors, settled = [], set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            errors.append("src: files in a circle: " + " -> ".join([*way[way.index(name) :], name]))
        elif name not in settled:
            for other in sorted(includes.get(name, ())):
                visit(other, [*way, name])
            settled.add(name)

    for name in sorted(includes):
        visit(name, [])
    return errors


def same_names() -> list[str]:
    """Each name that two files give to a struct, union or enum, or to a type of one."""
    homes: dict[str, set[str]] = {}
    for top in ("include", "src", "cli", "python/_core"):
        for file in sorted((ROOT / top).rglob("*.[ch]")):
            text = file.read_text()
            for name in TYPE.findall(text) + TYPEDEF.findall(text):
                homes.setdefault(name, set()).add(file.relative_to(ROOT).as_posix())
    return [f"{', '.join(sorted(files))}: one name for two things: {name}"
            for name, files in sorted(homes.items()) if len(files) > 1]


def main() -> int:
    errors = circles() + same_names()
    for top in ("src", "cli", "python", "examples"):
        for file in sorted((ROOT / top).rglob("*.[ch]*")):
            name = file.relative_to(ROOT).as_posix()
            mine = layer_of(name.removeprefix("src/")) if top == "src" else None
            for include in INCLUDE.findall(file.read_text()):
                homes = HOMES.get(include)
                if homes and not any(name.startswith(home) for home in homes):
                    errors.append(f"{name}: <{include}> belongs in {', '.join(homes)} only")
                theirs = layer_of(include)
                if top in ("cli", "examples") and not include.startswith("shardyfusion/") and "/" in include:
                    if (ROOT / "src" / include).exists():
                        errors.append(f"{name}: includes {include}; only public headers are allowed here")
                if mine and theirs and mine != theirs:
                    if LAYERS.index(theirs) > LAYERS.index(mine) or (mine, theirs) in FORBIDDEN:
                        errors.append(f"{name}: {mine} must not include {include}")
    print("\n".join(errors) if errors else "includes: downwards only; no name of a struct is taken twice")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
