"""The directive {c-header}`NAME`: a public header as reference. Its comments become text, what they stand above becomes code: the header stays the only place
where a function is described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

INCLUDE = Path(__file__).resolve().parents[1] / "include" / "shardyfusion"
SECTION = re.compile(r"^/\* -{5,} (.+?) -+ \*/$")
SKIPPED = re.compile(r"^\s*(#(ifndef|ifdef|if|else|elif|endif|include|undef)\b.*|#define SHARDYFUSION_\w+|extern \"C\" \{)\s*$")


def text_of(comment: list[str]) -> list[str]:
    """The paragraphs of a comment."""
    body = "\n".join(comment).strip()
    body = body.removeprefix("/*").removesuffix("*/")
    lines = [re.sub(r"^\s*\*\s?", "", line).rstrip() for line in body.splitlines()]
    return [p for p in "\n".join(lines).strip().split("\n\n") if p.strip()]


def pieces(source: str) -> list[tuple[str, list[str]]]:
    """("section", [name]), ("text", lines of a comment) and ("code", lines), in their order."""
    out: list[tuple[str, list[str]]] = []
    lines = iter(source.splitlines())
    depth = 0
    for line in lines:
        section = SECTION.match(line)
        if section:
            out.append(("section", [section[1]]))
        elif depth == 0 and line.startswith("/*"):
            comment = [line]
            while "*/" not in comment[-1]:
                comment.append(next(lines))
            out.append(("text", comment))
        elif line.strip() == "}" and depth == 0 or SKIPPED.match(line):
            continue
        else:
            depth += line.count("{") - line.count("}")
            if not line.strip() and (not out or out[-1][0] != "code" or depth == 0):
                out.append(("code", []))
            elif out and out[-1][0] == "code":
                out[-1][1].append(line)
            else:
                out.append(("code", [line]))
    return [(kind, found) for kind, found in out if kind != "code" or any(line.strip() for line in found)]


def paragraph_of(text: str) -> nodes.paragraph:
    out = nodes.paragraph()
    for n, piece in enumerate(re.split(r"`([^`]+)`", text)):
        out += nodes.literal(piece, piece) if n % 2 else nodes.Text(piece)
    return out


class CHeader(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = INCLUDE / self.arguments[0]
        self.state.document.settings.record_dependencies.add(str(path))
        out: list[nodes.Node] = []
        into: nodes.Element | None = None

        def add(node: nodes.Node) -> None:
            out.append(node) if into is None else into.append(node)

        for kind, lines in pieces(path.read_text()):
            if kind == "section":
                name = lines[0]
                into = nodes.section(ids=[nodes.make_id(f"{path.stem}-{name}")])
                into += nodes.title(name, name[0].upper() + name[1:])
                out.append(into)
            elif kind == "text":
                for paragraph in text_of(lines):
                    if paragraph.startswith("    "):
                        add(nodes.literal_block(paragraph, paragraph, language="text"))
                    else:
                        add(paragraph_of(paragraph))
            else:
                code = "\n".join(lines).strip("\n")
                add(nodes.literal_block(code, code, language="c"))
        return out


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("c-header", CHeader)
    return {"parallel_read_safe": True}
