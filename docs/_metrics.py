"""The directive {metrics}: what collectors count, as a table made from what they count with."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx


def rows() -> list[tuple[str, str, str]]:
    from shardyfusion.metrics._instruments import GAUGES, INSTRUMENTS, SHARES

    counted = [(i.counter, f"counter, by {', '.join(i.labels)}" if i.labels else "counter", i.about) for i in INSTRUMENTS.values()]
    timed = [(i.histogram, "histogram, seconds", i.about) for i in INSTRUMENTS.values() if i.histogram is not None]
    shares = [(share.counter, "counter", share.about) for share in SHARES]
    return [*counted, *shares, *timed, *((name, "gauge", about) for name, about in GAUGES.items())]


class Metrics(Directive):
    def run(self) -> list[nodes.Node]:
        table, group, body = nodes.table(), nodes.tgroup(cols=3), nodes.tbody()
        group += [nodes.colspec(colwidth=width) for width in (36, 20, 44)]
        head = nodes.thead()
        head += row_of("name", "kind", "what")
        group += [head, body]
        table += group
        body += [row_of(nodes.literal(name, name), kind, about) for name, kind, about in rows()]
        return [table]


def row_of(*cells: str | nodes.Node) -> nodes.row:
    out = nodes.row()
    for cell in cells:
        entry, paragraph = nodes.entry(), nodes.paragraph()
        paragraph += nodes.Text(cell) if isinstance(cell, str) else cell
        entry += paragraph
        out += entry
    return out


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("metrics", Metrics)
    return {"parallel_read_safe": True}
