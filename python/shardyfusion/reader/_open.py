"""What `open` returns."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType, TracebackType
from typing import Any, Generic, Protocol, TypeVar


class _Closable(Protocol):
    async def close(self) -> None: ...


R = TypeVar("R", bound=_Closable)
F = TypeVar("F", bound=Callable[..., Any])


def coroutine_function(function: F) -> F:
    """Marks a function that returns a coroutine of another type than `async def` makes, for those who ask: mocks do."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined, unused-ignore]
    return function


class Opening(Coroutine[Any, Any, R], Generic[R]):
    """A coroutine that opens a reader and is an async context manager as well: `await opening`, `create_task(opening)` and
    `async with opening as reader` all work. It starts when it is awaited or entered.
    """

    __slots__ = ("_coroutine", "_reader", "__weakref__")

    def __init__(self, coroutine: Coroutine[Any, Any, R], name: str) -> None:
        if isinstance(coroutine, CoroutineType):
            coroutine.__qualname__ = name  # what the warning calls it when it is never awaited
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        return self._coroutine.throw(*args)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, R]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> R:
        self._reader = await self._coroutine
        return self._reader

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._reader.close()
