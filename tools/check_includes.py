#!/usr/bin/env python3
"""Includes point downwards only: fail when a layer includes one above or beside it, when files of src/ (a .c and its .h
count as one) include each other in a circle, when modules of the Python package import each other in one, be it inside of
functions, or for a third-party header that has its home elsewhere (docs/architecture.md, "Layers"); and when files of
the extension call one another in a circle."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Lowest first. A file may include its own layer and those before it.
LAYERS = ["base", "net", "auth", "store", "cache", "runtime", "site", "backend", "backend/slatedb/format", "backend/slatedb",
          "backend/sqlite", "backend/foreign", "snapshot/cel", "snapshot", "postgres", "reader", "writer"]
# Pairs that must not meet although one comes later in the list.
FORBIDDEN = {("backend/slatedb/format", layer) for layer in ("net", "auth", "store", "cache", "runtime", "site", "backend")}
FORBIDDEN |= {("writer", "reader")}
FORBIDDEN |= {(layer, "postgres") for layer in ("reader", "writer")}  # it is one of many sources
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
    "xxhash.h": ["src/base/checksum.c", "src/snapshot/int_key.h"],
    "zstd.h": ["src/backend/slatedb/format/compress", "src/backend/sqlite/sidecar"],
    "lz4.h": ["src/backend/slatedb/format/compress"],
    "snappy-c.h": ["src/backend/slatedb/format/compress"],
    "toml++/toml.h": ["cli/toml.cpp"],
    "dlfcn.h": ["src/postgres/libpq.c"],
    "Python.h": ["python/_core/"],
}
FUNCTION = re.compile(r"^(?!typedef)(static )?[A-Za-z][\w *]*?\b(\w+)\([^;{]*\)\n\{", re.M)
TYPE = re.compile(r"^\s*(?:typedef |static |const )*(?:struct|union|enum) (\w+)\s*\{", re.M)
TYPEDEF = re.compile(r"^\} (\w+);", re.M)
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)


def layer_of(path: str) -> str | None:
    folder = path.rsplit("/", 1)[0] if "/" in path else ""
    return folder if folder in LAYERS else None


def circles_of(graph: dict[str, set[str]], where: str) -> list[str]:
    """Each node that reaches itself by way of others, with the way."""
    errors, settled = [], set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            errors.append(f"{where}: a circle: " + " -> ".join([*way[way.index(name) :], name]))
        elif name not in settled:
            for other in sorted(graph.get(name, ())):
                visit(other, [*way, name])
            settled.add(name)

    for name in sorted(graph):
        visit(name, [])
    return errors


def circles() -> list[str]:
    """Among the files of src/."""
    includes: dict[str, set[str]] = {}
    for file in sorted((ROOT / "src").rglob("*.[ch]")):
        name = file.relative_to(ROOT / "src").with_suffix("").as_posix()
        found = {i.removesuffix(".h") for i in INCLUDE.findall(file.read_text()) if (ROOT / "src" / i).exists()}
        includes.setdefault(name, set()).update(found - {name})
    return circles_of(includes, "src")


def imports_of(node: ast.AST) -> list[str]:
    """What runs an import, whatever it needs to run it; what is only for type checkers does not."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return []
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [name for child in ast.iter_child_nodes(node) for name in imports_of(child)]


def python_circles() -> list[str]:
    """Among the modules of the package."""
    files = {}
    for file in sorted((ROOT / "python/shardyfusion").rglob("*.py")):
        parts = file.relative_to(ROOT / "python").with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {name: {i for i in imports_of(ast.parse(file.read_text())) if i in files} for name, file in files.items()}
    return circles_of({name: others - {name, "shardyfusion"} for name, others in graph.items()}, "python")


def core_circles() -> list[str]:
    """Among the files of the extension, by what they call of one another; the module's table names all."""
    text = {file.stem: file.read_text() for file in sorted((ROOT / "python/_core").glob("*.c")) if file.stem != "module"}
    functions = {name: FUNCTION.findall(source) for name, source in text.items()}
    home = {function: name for name, found in functions.items() for static, function in found if not static}
    graph = {}
    for name, source in text.items():
        words = set(re.findall(r"\w+", re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"', " ", source, flags=re.S)))
        own = {function for _, function in functions[name]}
        graph[name] = {home[word] for word in words - own if word in home}
    return circles_of(graph, "python/_core")


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
    errors = circles() + python_circles() + core_circles() + same_names()
    for top in ("src", "cli", "python", "examples"):
        for file in sorted(f for f in (ROOT / top).rglob("*.[ch]*") if f.suffix in (".c", ".h", ".cpp", ".hpp")):  # no .cpython-311.pyc
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
