"""Coroutines that never wait let their event loop run all the same. The engine's operations do so by themselves."""

from __future__ import annotations

import asyncio

from shardyfusion._engine import native


async def give_way() -> None:
    """Lets the event loop run when it has not for some milliseconds. For loops whose steps may all end at once."""
    if native.turn_is_over():
        await asyncio.sleep(0)
