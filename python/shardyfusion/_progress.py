"""How far something is, told to a function, to a bar as tqdm makes them, in a line on a terminal, or to nobody."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Literal, NamedTuple, Protocol, TextIO, TypeAlias, TypeVar, cast

from shardyfusion.errors import ConfigValidationError

T = TypeVar("T")


class ProgressBar(Protocol):
    """A bar as `tqdm.tqdm()` and `tqdm.notebook.tqdm()` make them: it has an attribute `total`, too, which is set when it is known."""

    def update(self, n: int, /) -> object: ...

    def refresh(self) -> object: ...


To: TypeAlias = Callable[[T], object] | ProgressBar | Literal[False] | None
"""None: a line where standard error is a terminal. False: nobody."""


class Measure(NamedTuple):
    """How far, for bars and lines; `total` is 0 as long as it is not known."""

    done: int
    total: int
    text: str


def is_bar(to: object) -> bool:
    """What can be called is called: an object that has every attribute there is, too, as stand-ins of tests are."""
    return not callable(to) and callable(getattr(to, "update", None)) and callable(getattr(to, "refresh", None)) and hasattr(to, "total")


def is_told(to: object) -> bool:
    """Whether it is anything that `progress=` takes."""
    return to is None or to is False or is_bar(to) or (callable(to) and not isinstance(to, type))


class Teller(Generic[T]):
    """Tells whoever `to` is; with `spread` a function gets the members of a tuple. One thread at a time."""

    def __init__(self, to: To[T] | Callable[..., object], measure: Callable[[T], Measure], *, spread: bool = False) -> None:
        if not is_told(to):
            raise ConfigValidationError("progress must be callable, a bar such as tqdm(), False or None")
        self._line = _terminal_line() if to is None else None
        self._tell: Callable[[T], object] | None = None
        if self._line is not None:
            line = self._line
            self._tell = lambda progress: line.show(measure(progress).text)
        elif is_bar(to):
            bar = _Bar(to)
            self._tell = lambda progress: bar.show(measure(progress))
        elif to:
            function = cast("Callable[..., object]", to)
            self._tell = (lambda progress: function(*progress)) if spread else function  # type: ignore[misc]

    @property
    def anybody(self) -> bool:
        return self._tell is not None

    def __call__(self, progress: T) -> None:
        if self._tell is not None:
            self._tell(progress)

    def hide(self) -> None:
        """Takes the terminal's line away until there is more to tell: somebody else may write there."""
        if self._line is not None:
            self._line.hide()

    def end(self) -> None:
        """Leaves the terminal's line. A bar is its maker's to close."""
        if self._line is not None:
            self._line.end()


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._told = 0

    def show(self, measure: Measure) -> None:
        bar = self._bar
        if measure.total and bar.total != measure.total:
            if callable(getattr(bar, "reset", None)):  # which those of notebooks need
                bar.reset(measure.total)
                self._told = 0
            bar.total = measure.total
        if callable(getattr(bar, "set_postfix_str", None)):
            bar.set_postfix_str(measure.text, refresh=False)
        bar.update(measure.done - self._told)
        self._told = measure.done
        bar.refresh()


class _TerminalLine:
    """One line that is written over, until the terminal is gone or takes no more: what is told about goes on without."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = False

    def show(self, text: str) -> None:
        self._shown = self._write(f"\r\x1b[K{text[: self._columns() - 1]}")  # in the last column some terminals begin a new line

    def hide(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def end(self) -> None:
        if self._shown:
            self._write("\n")

    def _write(self, text: str) -> bool:
        with suppress(OSError, ValueError):  # what a stream raises that was closed
            self._stream.write(text)
            self._stream.flush()
            return True
        return False

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


def _terminal_line() -> _TerminalLine | None:
    isatty: Callable[[], bool] | None = getattr(sys.stderr, "isatty", None)
    try:
        return _TerminalLine(sys.stderr) if isatty is not None and isatty() else None
    except ValueError:  # it was closed
        return None
