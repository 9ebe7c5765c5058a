"""What an engine's tasks raised, below what the engine makes of it."""

from __future__ import annotations

from shardyfusion.errors import ShardWriteError, ShardyfusionError


def raised_in_task(error: BaseException) -> BaseException | None:
    """The package's exception among the causes of an engine's, if there is one."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in seen):
            continue
        if isinstance(one, ShardyfusionError):
            return one
        seen.append(one)
        waiting += [one.__context__, one.__cause__, getattr(one, "cause", None)]
    return None


def gave_up(engine: str, error: BaseException) -> ShardWriteError:
    """The engine's own last word about a task."""
    text = " ".join(str(error).split())
    return ShardWriteError(f"{engine} gave up on a task: {text[:500] or type(error).__name__}")
