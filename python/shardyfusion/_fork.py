"""Locks that a forked child must not find taken: the threads that hold them are not there to let go."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_owners: WeakKeyDictionary[Any, dict[str, Callable[[], Any]]] = WeakKeyDictionary()


def add_locks(owner: object, **kinds: Callable[[], Any]) -> None:
    """Makes locks, attributes of `owner`, which a child gets anew. What they cover is as the parent left it."""
    _owners[owner] = kinds
    _make_locks(owner, kinds)


def _make_locks(owner: object, kinds: dict[str, Callable[[], Any]]) -> None:
    for name, kind in kinds.items():
        setattr(owner, name, kind())


def _in_child() -> None:
    for owner, kinds in list(_owners.items()):
        _make_locks(owner, kinds)


os.register_at_fork(after_in_child=_in_child)
