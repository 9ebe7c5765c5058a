"""How settings are checked."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, runtime_checkable

from shardyfusion._kinds import Kind, wrong_kind
from shardyfusion.errors import ConfigValidationError


@runtime_checkable
class ValidatableConfig(Protocol):
    """Anything that can check itself."""

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        ...


def validate_configs(*configs: ValidatableConfig) -> None:
    """Checks one after the other."""
    for config in configs:
        config.validate()


class _HasShardIdCol(Protocol):
    @property
    def shard_id_col(self) -> str: ...


def validate_shard_id_col_no_collision(config: _HasShardIdCol, user_columns: set[str]) -> None:
    """ConfigValidationError when the column for shard numbers would hide one of the user's."""
    if config.shard_id_col in user_columns:
        raise ConfigValidationError(
            f"shard_id_col {config.shard_id_col!r} conflicts with user data column. "
            "Choose a different shard_id_col or rename the user column."
        )


def require(sound: bool, text: str) -> None:
    if not sound:
        raise ConfigValidationError(text)


def require_not_async(name: str, function: object) -> None:
    """Of what is called where no event loop waits: a coroutine would pass for an answer."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise ConfigValidationError(f"{name} must not be an async function: it is called on the writing thread, and nobody would await it")


def require_kind(name: str, value: object, kind: Kind, *, optional: bool = True) -> None:
    if value is None and optional:
        return
    wrong = wrong_kind(name, value, kind)
    if wrong is not None:
        raise ConfigValidationError(wrong)


def at_least(value: Any, bound: float) -> bool:
    """Whether it is a number (not NaN) of that size."""
    try:
        return bool(value >= bound)
    except TypeError:
        return False


def above(value: Any, bound: float) -> bool:
    return at_least(value, bound) and value != bound
