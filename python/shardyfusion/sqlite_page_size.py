"""Which page size suits the rows of an SQLite shard: the smallest whose pages hold a typical row without overflow."""

from __future__ import annotations

from typing import NamedTuple

from shardyfusion._storage_errors import InvalidArgumentError

__all__ = [
    "SUPPORTED_PAGE_SIZES",
    "VEC_INDEX_ROWID_MAX_BYTES",
    "CellShape",
    "inline_payload_threshold",
    "recommend_page_size",
    "recommend_page_size_for_cells",
]

SUPPORTED_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
VEC_INDEX_ROWID_MAX_BYTES = 9
_CELL_OVERHEAD = 12  # bytes of record header and lengths beside key and value


class CellShape(NamedTuple):
    """A kind of row: bytes of a typical value, and of the longest key."""

    payload_bytes: int
    max_key_bytes: int


def inline_payload_threshold(page_size: int) -> int:
    """Bytes of a row that stay in a page of that size; what is longer overflows to other pages."""
    if page_size not in SUPPORTED_PAGE_SIZES:
        raise InvalidArgumentError(f"page_size {page_size!r} not in supported sizes {SUPPORTED_PAGE_SIZES}")
    return (page_size - 12) * 64 // 255 - 23


def recommend_page_size(*, p95_value_bytes: int, max_key_bytes: int = 64) -> int:
    """The page size for values of which 95 % are at most that long."""
    _check_size("p95_value_bytes", p95_value_bytes)
    return recommend_page_size_for_cells([CellShape(p95_value_bytes, max_key_bytes)])


def recommend_page_size_for_cells(cells: list[CellShape]) -> int:
    """The page size that suits all the kinds of rows; the largest when none does."""
    if not cells:
        raise InvalidArgumentError("cells must not be empty")
    for cell in cells:
        _check_size("payload_bytes", cell.payload_bytes)
        _check_size("max_key_bytes", cell.max_key_bytes)
    need = max(cell.payload_bytes + cell.max_key_bytes + _CELL_OVERHEAD for cell in cells)
    fitting = (size for size in SUPPORTED_PAGE_SIZES if inline_payload_threshold(size) >= need)
    return next(fitting, SUPPORTED_PAGE_SIZES[-1])


def _check_size(name: str, size: int) -> None:
    if size < 0:
        raise InvalidArgumentError(f"{name} must be >= 0, got {size}")
