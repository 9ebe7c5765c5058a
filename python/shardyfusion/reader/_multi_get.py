"""One batch look-up over the shards of a pinned snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from shardyfusion._storage_errors import multi_get_error
from shardyfusion._turn import give_way
from shardyfusion.cel import UnknownRoutingTokenError
from shardyfusion.type_defs import KeyInput

if TYPE_CHECKING:
    from shardyfusion.reader._state import RoutingContext, SnapshotState

OnError: TypeAlias = Literal["raise", "return"]


async def multi_get(
    state: SnapshotState,
    keys: Iterable[KeyInput],
    routing_context: RoutingContext | None,
    max_concurrency: int | None,
    on_error: OnError,
) -> dict[KeyInput, Any]:
    """All keys are routed before any is read. One task a shard; a failed one cancels the others, unless failures are to
    be returned in place of values."""
    result: dict[KeyInput, Any] = {}
    groups: dict[int, list[KeyInput]] = {}
    for key in tuple(keys):
        await give_way()
        if key in result:
            continue
        result[key] = None
        try:
            groups.setdefault(state.locate(key, routing_context), []).append(key)
        except UnknownRoutingTokenError:
            pass  # its token is none of this snapshot's, so it has no value
    gate = nullcontext() if max_concurrency is None else asyncio.Semaphore(max_concurrency)
    read = _read_or_raise if on_error == "raise" else _read_or_keep_errors

    async def read_shard(db_id: int, group: list[KeyInput]) -> None:
        async with gate:
            await read(state, db_id, group, result)

    try:
        async with asyncio.TaskGroup() as tasks:
            for db_id, group in groups.items():
                tasks.create_task(read_shard(db_id, group))
    except ExceptionGroup as group_error:
        raise multi_get_error(list(group_error.exceptions)) from None
    return result


async def _read_or_raise(
    state: SnapshotState, db_id: int, keys: list[KeyInput], result: dict[KeyInput, Any]
) -> None:
    stored = []
    for key in keys:
        stored.append(state.encode(key))
        await give_way()
    for key, value in zip(keys, await state.get_many(db_id, stored), strict=True):
        result[key] = value
        await give_way()


async def _read_or_keep_errors(
    state: SnapshotState, db_id: int, keys: list[KeyInput], result: dict[KeyInput, Any]
) -> None:
    for key in keys:
        try:
            result[key] = await state.get(db_id, state.encode(key))
        except Exception as error:
            result[key] = error
        await give_way()
