"""Blocking parts behind asynchronous interfaces, so that one implementation serves both kinds of reader."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Immediate:
    """The methods of a blocking object as coroutine functions that never wait."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if iscoroutine(result):
                result.close()
                raise TypeError(f"{type(self._target).__qualname__}.{name} is asynchronous, the reader is not")
            return result

        return call


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise TypeError("a blocking reader was given something that has to be awaited")
