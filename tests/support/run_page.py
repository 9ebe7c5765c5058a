"""Runs the code of a page of the documentation, or of a notebook, from its top to its end, as a reader would who pastes it.

    python tests/support/run_page.py PAGE FOLDER

In one process and one folder: ```python blocks share their names and one event loop, and may await at the top; ```sh blocks run in
bash and stop at the first command that fails; a block with a title (```toml title="reader.toml") becomes that file. Blocks of other kinds, and
Python blocks marked `no-run`, are for reading. Cells of code are blocks of Python, and what the last line of one is, is shown as a notebook shows it. The first failure
ends it, and names the line in the page, or the line of the file that the cell's code begins at.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int  # in the page, of the code's first one
    title: str | None
    runs: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    if page.suffix == ".ipynb":
        return list(cells(text))
    out = []
    for m in FENCE.finditer(text):
        title = TITLE.search(m["rest"])
        out.append(
            Block(
                language=m["language"],
                code=m["code"],
                line=text.count("\n", 0, m.start("code")) + 1,
                title=title[1] if title else None,
                runs="no-run" not in m["rest"],
            )
        )
    return out


def cells(text: str) -> Iterator[Block]:
    """Those of code. A result that people would see is made as for them, so that it cannot be one that fails."""
    end = 0
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            end = text.index('"cell_type": "code"', end) + 1
            tree = ast.parse("".join(cell["source"]))
            if isinstance(last := tree.body[-1], ast.Expr):
                shown = ast.Call(ast.Name("__show__", ast.Load()), [last.value], [])
                tree.body[-1] = ast.copy_location(ast.Expr(shown), last)
            yield Block("python", ast.unparse(tree), text.count("\n", 0, end) + 1, None, True)


def show(result: object) -> None:
    as_html = getattr(result, "_repr_html_", None)
    print(as_html() if as_html is not None else repr(result))


async def run(page: Path, found: list[Block]) -> None:
    names: dict[str, Any] = {"__name__": "__page__", "__show__": show}
    for block in found:
        if not block.runs:
            continue
        if block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
        elif block.language == "python":
            # the lines of the page, so that a traceback names them
            code = compile("\n" * (block.line - 1) + block.code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)  # our own pages
            if inspect.iscoroutine(result):
                await result
        elif block.language == "sh":
            # what one block exports the next ones have
            script = "set -euo pipefail\n" + block.code + "\nenv -0 >.exported\n"
            # beside the loop, which may serve what the commands ask for
            done = await asyncio.to_thread(subprocess.run, ["bash", "-c", script], stdin=subprocess.DEVNULL, timeout=120)
            if done.returncode:
                raise SystemExit(f"{page}:{block.line}: the commands ended with status {done.returncode}")
            exported = dict(line.split("=", 1) for line in Path(".exported").read_text().split("\0") if "=" in line)
            os.environ |= {name: value for name, value in exported.items() if name not in ("_", "SHLVL")}


def main() -> None:
    page, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    os.chdir(folder)
    sys.path.insert(0, "")
    asyncio.run(run(page, blocks(page)))


if __name__ == "__main__":
    main()
