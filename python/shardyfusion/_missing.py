"""What this version does not have yet says so by name."""

from __future__ import annotations


def unavailable(module: str, feature: str) -> ImportError:
    """For the module that would hold the feature: raise it there."""
    return ImportError(f"{module}: {feature} is not available in this version", name=module)
