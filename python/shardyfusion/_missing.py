"""What this version does not have yet says so by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def unavailable(module: str, feature: str) -> ImportError:
    """For the module that would hold the feature: raise it there."""
    return ImportError(f"{module}: {feature} is not available in this version", name=module)


def without(module: str, feature: str, names: set[str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module that has all but these names of a feature."""

    def __getattr__(name: str) -> Any:
        if name in names:
            raise unavailable(f"{module}.{name}", feature)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
