"""What kind of value an option takes, and what is said of one of another kind: its name, what it must be, and what it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """`is_one` decides; `text` ends the sentence "<name> must be ..."."""

    text: str
    is_one: Callable[[Any], bool]


def _with(*methods: str) -> Callable[[Any], bool]:
    return lambda value: any(callable(getattr(value, name, None)) for name in methods)


YES_OR_NO = Kind("True or False", lambda value: isinstance(value, bool))
INTEGER = Kind("an integer", lambda value: hasattr(type(value), "__index__") and not isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
PATH = Kind("a text or a path", lambda value: isinstance(value, (str, os.PathLike)))
CALLABLE = Kind("callable", callable)
COLLECTOR = Kind("an object with emit()", _with("emit"))
LIMITER = Kind("an object with acquire(), try_acquire() and acquire_async()", _with("acquire", "try_acquire", "acquire_async"))
PROVIDER = Kind("an object with resolve(), or S3Credentials", lambda value: hasattr(value, "resolve") or hasattr(value, "access_key_id"))
MANIFEST_STORE = Kind("an object with load_current() and load_manifest()", _with("load_current", "load_manifest"))
PUBLISHING_STORE = Kind("an object with publish()", _with("publish"))
RUN_REGISTRY = Kind("an object with create(), update() and load()", _with("create"))


def wrong_kind(name: str, value: object, kind: Kind) -> str | None:
    """What is wrong with the value of the option, if anything is. A text must be one in UTF-8, too, as whoever gets it wants it."""
    if not kind.is_one(value):
        return f"{name} must be {kind.text}, not {type(value).__name__}"
    if kind is TEXT or kind is PATH:
        try:
            os.fspath(value).encode()  # type: ignore[call-overload]
        except UnicodeEncodeError as error:
            return f"{name} has a character that UTF-8 cannot hold, at {error.start}"
        except AttributeError:
            return f"{name} must be {kind.text}, not one of bytes"
    return None


def check_kind(name: str, value: object, kind: Kind) -> None:
    """TypeError for a value of another kind, ValueError for a text that is none in UTF-8."""
    wrong = wrong_kind(name, value, kind)
    if wrong is not None:
        raise ValueError(wrong) if kind.is_one(value) else TypeError(wrong)
