"""Comparing keys whose types may not compare."""

from __future__ import annotations

from typing import Any

__all__ = ["compare_ordered"]


def compare_ordered(left: Any, right: Any, *, mismatch_message: str) -> int:
    """-1, 0 or 1 as `left` is below, equal to or above `right`. ValueError with the message when they do not compare."""
    try:
        return int(left > right) - int(left < right)
    except TypeError:
        raise ValueError(mismatch_message) from None
