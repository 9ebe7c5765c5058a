"""Manifest stores for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, Protocol, runtime_checkable

import shardyfusion
from shardyfusion._manifest_objects import AsyncS3ManifestStore
from shardyfusion.manifest import ManifestRef
from shardyfusion.manifest_store import ManifestStore

__all__ = ["AsyncManifestStore", "AsyncPublishingManifestStore", "AsyncS3ManifestStore", "as_async_store", "as_sync_store"]


@runtime_checkable
class AsyncManifestStore(Protocol):
    """Where an async reader finds manifests. Any class with these methods will do."""

    async def load_current(self) -> ManifestRef | None:
        """The current manifest's reference; None when nothing was published."""
        ...

    async def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        """A manifest. ManifestParseError when it is malformed."""
        ...

    async def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """References, newest first."""
        ...


@runtime_checkable
class AsyncPublishingManifestStore(AsyncManifestStore, Protocol):
    """Where `shardyfusion.writer.aio` publishes, beside the blocking stores."""

    async def publish(
        self,
        *,
        run_id: str,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom: dict[str, Any],
    ) -> str:
        """Stores a manifest, makes it the current one, and returns its reference."""
        ...

    async def set_current(self, ref: str) -> None:
        """Makes an earlier manifest the current one."""
        ...


# ---------------------------------------------------------------- one kind as the other


class _ThreadedStore:
    """A blocking store whose calls run in a worker thread, one at a time each."""

    def __init__(self, store: ManifestStore) -> None:
        self._store = store

    async def load_current(self) -> ManifestRef | None:
        return await _result(await asyncio.to_thread(self._store.load_current))  # type: ignore[no-any-return]

    async def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        return await _result(await asyncio.to_thread(self._store.load_manifest, ref))  # type: ignore[no-any-return]

    async def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        return await _result(await asyncio.to_thread(self._store.list_manifests, limit=limit))  # type: ignore[no-any-return]


    async def publish(self, **fields: Any) -> str:
        return await _result(await asyncio.to_thread(self._store.publish, **fields))  # type: ignore[no-any-return]

    async def set_current(self, ref: str) -> None:
        await _result(await asyncio.to_thread(self._store.set_current, ref))


class _DrivenStore:
    """An async store whose calls run on an event loop of its own, in a thread that ends with the program. Any thread."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_drive, args=(self._loop,), name="shardyfusion-manifests", daemon=True)
        thread.start()
        weakref.finalize(self, _stop, self._loop, thread)

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def load_current(self) -> ManifestRef | None:
        return self._run(self._store.load_current())  # type: ignore[no-any-return]

    def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        return self._run(self._store.load_manifest(ref))  # type: ignore[no-any-return]

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        return self._run(self._store.list_manifests(limit=limit))  # type: ignore[no-any-return]

    def publish(self, **fields: Any) -> str:
        return self._run(self._store.publish(**fields))  # type: ignore[no-any-return]

    def set_current(self, ref: str) -> None:
        self._run(self._store.set_current(ref))


def _drive(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join()


async def _result(value: Any) -> Any:
    """A plain function may still return something to await."""
    return await value if inspect.isawaitable(value) else value


def as_async_store(store: AsyncManifestStore | ManifestStore) -> AsyncManifestStore:
    """The store itself when its `load_current` is a coroutine function, else one that runs it in worker threads."""
    if inspect.iscoroutinefunction(store.load_current):
        return store  # type: ignore[return-value]
    if hasattr(store, "_for_asyncio"):  # one of ours that has threads of its own
        return store._for_asyncio()  # type: ignore[no-any-return]
    return _ThreadedStore(store)  # type: ignore[arg-type]


def as_sync_store(store: AsyncManifestStore | ManifestStore) -> ManifestStore:
    """The store itself when its `load_current` is a plain function, else one that runs it on an event loop of its own."""
    if not inspect.iscoroutinefunction(store.load_current):
        return store  # type: ignore[return-value]
    return _DrivenStore(store)
