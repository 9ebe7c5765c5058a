"""The documentation as a site: `make docs`. Sphinx, since it reads docstrings itself and is kept up; MyST, since the pages are Markdown that is read on its
own, too."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

project = "shardyfusion"
author = copyright = "the authors of shardyfusion"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "_headers", "_metrics"]
source_suffix = {".md": "markdown"}
root_doc = "index"
html_theme = "furo"
html_title = "shardyfusion"
html_static_path = ["_static"]
html_css_files = ["theme.css"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
smartquotes_action = "qe"  # no dashes: the pages name options, as --strict, in plain text, too
# the short form of a signature reads better than 20 types in a line
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
maximum_signature_line_length = 100
python_display_short_literal_types = True
python_use_unqualified_type_names = True
# no type of another project is linked, so that a build asks nobody
nitpicky = False
suppress_warnings = ["misc.highlighting_failure", "myst.role_unknown"]  # the contract writes … where Python has none, and backticks in code
linkcheck_timeout = 5


def docstring_to_rst(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Our docstrings are plain text: code in single backticks or fences, options as `name: text` with what follows indented."""
    out: list[str] = []
    fenced = item = False
    for line in lines:
        bare = line.strip()
        if bare.startswith("```"):
            fenced = not fenced
            out += ["", ".. code-block:: python", ""] if fenced else [""]
            continue
        if fenced:
            out.append("   " + line)
            continue
        pieces = re.split(r"(`+[^`]+`+)", bare)
        pieces[0::2] = [re.sub(r"([*_|\\])", r"\\\1", text) for text in pieces[0::2]]
        pieces[1::2] = [f"``{text.strip('`')}``" for text in pieces[1::2]]
        text = "".join(pieces)
        start = re.match(r"^((?:\w|\\_)+(?:, (?:\w|\\_)+)*): (?=\S)", text)
        indented = line.startswith("    ")
        if start and not indented:
            out += ["" if not item else None, f"* **{start[1]}**: {text[start.end():]}"]  # type: ignore[list-item]
            item = True
        elif item and bare and indented:
            out.append("  " + text)
        else:
            if item and bare:
                out.append("")
            item = False
            out.append(text)
    lines[:] = [line for line in out if line is not None]


def signature_of(
    _app: Any, what: str, _name: str, documented: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """A protocol is followed, not called. Defaults that are no Python, as `<factory>`, would leave Sphinx with a text that it cannot take apart."""
    if what == "class" and getattr(documented, "_is_protocol", False):
        return ("", None)
    return (re.sub(r"<(factory|object object[^>]*)>", "...", signature), returns) if signature else None


def titles_to_captions(_app: Any, _docname: str, source: list[str]) -> None:
    """The name of the file that a block of code is to be saved as (```csv title="users.csv") stands above the block."""
    source[0] = re.sub(r'^```(\w+) title="([^"]+)"$', r"```{code-block} \1\n:caption: \2", source[0], flags=re.M)


def skip_member(_app: Any, _what: str, name: str, _object: Any, _skip: bool, _options: Any) -> bool | None:
    """How pydantic is set up is nobody's interface."""
    return True if name == "model_config" else None


def setup(app: Any) -> None:
    app.connect("source-read", titles_to_captions)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-signature", signature_of)
    app.connect("autodoc-process-docstring", docstring_to_rst)
