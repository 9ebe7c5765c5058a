"""What `open` returns."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType, MethodType, TracebackType
from typing import Any, Generic, Protocol, TypeVar


class _Closable(Protocol):
    async def close(self) -> None: ...


R = TypeVar("R", bound=_Closable)
F = TypeVar("F", bound=Callable[..., Any])


def coroutine_function(function: F) -> F:
    """Marks a function that returns a coroutine of another type than `async def` makes, for those who ask: mocks do."""
    if sys.version_info >= (3, 12):
        inner = inspect.markcoroutinefunction(function)
        while (inner := getattr(inner, "__wrapped__", None)) is not None:  # Python 3.13's mocks ask the innermost
            inspect.markcoroutinefunction(inner)
        return function
    return functools.wraps(function)(_CoroutineFunction(function))  # type: ignore[return-value, unused-ignore]


class _CoroutineFunction:
    """For Python 3.11, which knows no mark: what looks like a function is asked for the flags of its code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__code__ = function.__code__.replace(co_flags=function.__code__.co_flags | inspect.CO_COROUTINE)
        self.__defaults__ = function.__defaults__
        self.__kwdefaults__ = function.__kwdefaults__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)


class Opening(Coroutine[Any, Any, R], Generic[R]):
    """A coroutine that opens a reader and is an async context manager as well: `await opening`, `create_task(opening)` and
    `async with opening as reader` all work. It starts when it is awaited or entered.
    """

    __slots__ = ("_coroutine", "_reader", "__weakref__")

    def __init__(self, coroutine: Coroutine[Any, Any, R], name: str) -> None:
        if isinstance(coroutine, CoroutineType):
            coroutine.__qualname__ = name  # what the warning calls it when it is never awaited
        self._coroutine = coroutine

    def __getattr__(self, name: str) -> Any:
        """What debuggers, and the `repr` and stack of a task, ask a coroutine for."""
        if name.startswith("cr_") or name in ("__name__", "__qualname__"):
            return getattr(self._coroutine, name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

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
