"""Blocking parts behind asynchronous interfaces, so that one implementation serves both."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Immediate:
    """The methods of a blocking object as coroutine functions that never wait; with `finish`, those of one whose methods return
    what that waits for."""

    def __init__(self, target: object, caller: str = "the reader", finish: Callable[[Any], Any] | None = None) -> None:
        self._target = target
        self._caller = caller
        self._finish = finish

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name in ("_target", "_caller", "_finish") or name.startswith("__"):  # of one that is being copied
            raise AttributeError(name)
        method = getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if self._finish is not None:
                return self._finish(result)
            if iscoroutine(result):
                result.close()
                raise TypeError(f"{type(self._target).__qualname__}.{name} is asynchronous, {self._caller} is not")
            return result

        return call


def target_of(part: object) -> object:
    """What was given, itself."""
    return part._target if isinstance(part, Immediate) else part


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise TypeError("something that blocks was given something that has to be awaited")
