"""Comparing keys whose types may not compare."""

from __future__ import annotations

__all__ = ["compare_ordered"]


def compare_ordered(left: object, right: object, *, mismatch_message: str) -> int:
    """-1, 0 or 1 as `left` is below, equal to or above `right`. ValueError with the message when they do not compare."""
    try:
        return (left > right) - (left < right)  # type: ignore[operator]
    except TypeError:
        raise ValueError(mismatch_message) from None
