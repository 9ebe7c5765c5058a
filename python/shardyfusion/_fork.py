"""Locks that a forked child must not find taken: the threads that hold them are not there to let go."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

_owners: dict[int, tuple[weakref.ref[Any], dict[str, Callable[[], Any]]]] = {}  # by id: an owner may be one without a hash


def add_locks(owner: object, **kinds: Callable[[], Any]) -> None:
    """Makes locks, attributes of `owner`, which a child gets anew. What they cover is as the parent left it, but for what is
    given here beside them."""
    key = id(owner)
    _owners[key] = weakref.ref(owner, lambda _: _owners.pop(key, None)), kinds
    _make_locks(owner, kinds)


def _make_locks(owner: object, kinds: dict[str, Callable[[], Any]]) -> None:
    for name, kind in kinds.items():
        setattr(owner, name, kind())


def _in_child() -> None:
    for ref, kinds in list(_owners.values()):
        owner = ref()
        if owner is not None:
            _make_locks(owner, kinds)


os.register_at_fork(after_in_child=_in_child)
