"""Tables for notebooks. They take the notebook's colours; what comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from html import escape

from shardyfusion._native import safe_text

ROWS_SHOWN = 50
_NUMBERS = "text-align:right;font-variant-numeric:tabular-nums"
_WORDS = "text-align:left"
_BAR = "display:inline-block;height:.7em;background:currentColor;opacity:.4"


class Size(int):
    """A number of bytes."""


class Share(float):
    """Of a whole, from 0 to 1, as a bar."""


def facts(title: str, of: Iterable[tuple[str, object]]) -> str:
    """Names with what they are, one below the other."""
    rows = "".join(f'<tr><th style="{_WORDS}">{_text(name)}</th><td style="{_WORDS}">{_cell(fact)}</td></tr>' for name, fact in of)
    return f'<table><caption style="{_WORDS}">{_text(title)}</caption><tbody>{rows}</tbody></table>'


def table(names: Sequence[str], of: Sequence[Sequence[object]]) -> str:
    """Rows below their names; of many the first."""
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f'<td style="{_style(cell)}">{_cell(cell)}</td>' for cell in row) + "</tr>" for row in of[:ROWS_SHOWN]
    )
    more = f'<tr><td colspan="{len(names)}">{len(of) - ROWS_SHOWN:,} more</td></tr>' if len(of) > ROWS_SHOWN else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}{more}</tbody></table>"


def _style(cell: object) -> str:
    return _NUMBERS if isinstance(cell, (int, float)) and not isinstance(cell, (bool, Share)) else _WORDS


def _cell(cell: object) -> str:
    match cell:
        case None:
            return ""
        case Share():
            return f'<span style="{_BAR};width:{8 * min(max(cell, 0.0), 1.0):.2f}em"></span>'
        case Size():
            return _size(cell)
        case bool():
            return "yes" if cell else "no"
        case Enum():
            return _text(str(cell.value))
        case int():
            return f"{cell:,}"
        case timedelta():
            return _text(str(timedelta(seconds=round(cell.total_seconds()))))
        case datetime():
            return _text(cell.isoformat(sep=" ", timespec="seconds"))
        case _:
            return _text(str(cell))


def _text(text: str) -> str:
    return escape(safe_text(text))


def _size(count: int) -> str:
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        del units[0]
    return f"{count:,} B" if count < 1024 else f"{amount:,.1f} {units[0]}"
