"""Iterators of threads that have no GIL to keep them apart."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from threading import RLock
from typing import Any, TypeVar

T = TypeVar("T")
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


class Alone(Iterator[T]):
    """An iterator that one thread after the other is in. Without the GIL, CPython 3.13 crashes when two are in a generator at once."""

    def __init__(self, of: Iterator[T]) -> None:
        self._of: Any = of
        self._lock = RLock()  # a generator says itself that its own thread is in it already

    def __next__(self) -> T:
        with self._lock:
            return next(self._of)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Of a generator."""
        with self._lock:
            self._of.close()


def alone(of: Iterator[T]) -> Iterator[T]:
    return of if HAS_GIL else Alone(of)
