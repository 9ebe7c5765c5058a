"""Manifest stores for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Coroutine
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from shardyfusion import _formats
from shardyfusion._engine import native
from shardyfusion._immediate import target_of
from shardyfusion.config import ANY, ExpectedCurrent
from shardyfusion.errors import ConfigValidationError, PublishConflictError
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.manifest import SQLITE_MANIFEST_CONTENT_TYPE, ManifestRef, SqliteManifestBuilder
from shardyfusion.manifest_store import (
    ManifestStore,
    check_manifest_ref,
    conflict,
    log_manifest_load_failed,
    manifests_of_listing,
    parse_current_pointer_to_ref,
    parse_manifest_payload,
    run_id_of_ref,
)
from shardyfusion.storage import AsyncStorageBackend, join_s3, location

if TYPE_CHECKING:
    from shardyfusion.manifest import ParsedManifest, RequiredBuildMeta, RequiredShardMeta

__all__ = ["AsyncManifestStore", "AsyncPublishingManifestStore", "AsyncS3ManifestStore", "as_async_store", "as_sync_store"]

_FOLDER = "manifests"
_POINTER_CONTENT_TYPE = "application/json"

_log = get_logger("shardyfusion.manifest_store")


class AsyncManifestStore(Protocol):
    """Where an async reader finds manifests. Any class with these methods will do."""

    async def load_current(self) -> ManifestRef | None:
        """The current manifest's reference; None when nothing was published."""
        ...

    async def load_manifest(self, ref: str) -> ParsedManifest:
        """A manifest. ManifestParseError when it is malformed."""
        ...

    async def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """References, newest first."""
        ...


class AsyncPublishingManifestStore(AsyncManifestStore, Protocol):
    """Where `shardyfusion.writer.aio` publishes, beside the blocking stores."""

    async def publish(
        self,
        *,
        run_id: str,
        required_build: RequiredBuildMeta,
        shards: list[RequiredShardMeta],
        custom: dict[str, Any],
    ) -> str:
        """Stores a manifest, makes it the current one, and returns its reference."""
        ...

    async def set_current(self, ref: str) -> None:
        """Makes an earlier manifest the current one."""
        ...


class AsyncS3ManifestStore:
    """Manifests below a prefix of a storage backend."""

    def __init__(
        self,
        backend: AsyncStorageBackend,
        s3_prefix: str | PathLike[str],
        *,
        manifest_name: str = "manifest",
        current_pointer_key: str = "_CURRENT",
    ) -> None:
        self._backend = backend
        self.s3_prefix = location(s3_prefix).rstrip("/")
        self.manifest_name = manifest_name
        self.current_pointer_key = current_pointer_key

    async def load_current(self) -> ManifestRef | None:
        """What the pointer names; None when there is no pointer."""
        payload = await self._backend.try_get(join_s3(self.s3_prefix, self.current_pointer_key))
        return None if payload is None else parse_current_pointer_to_ref(payload)

    async def load_manifest(self, ref: str) -> ParsedManifest:
        """The manifest that a reference names."""
        url = self._manifest_url(ref)
        try:
            payload = await self._backend.get(url)
        except Exception as error:
            log_manifest_load_failed(ref, error)
            raise
        return parse_manifest_payload(payload)

    async def publish(
        self,
        *,
        run_id: str,
        required_build: RequiredBuildMeta,
        shards: list[RequiredShardMeta],
        custom: dict[str, Any],
        expected_current: ExpectedCurrent = ANY,
    ) -> str:
        """Stores the manifest, then moves the pointer to it; returns the manifest's URL.

        PublishConflictError when the pointer does not name `expected_current` (None: when there is one).
        """
        pointer = join_s3(self.s3_prefix, self.current_pointer_key)
        put_if = _conditional_put(self._backend, expected_current)
        etag = None
        if put_if is not None:
            etag = await self._backend.head(pointer)  # type: ignore[attr-defined]  # as every backend with put_if has
            _refuse_other_pointer(await self._backend.try_get(pointer), expected_current)
        folder = native.manifest_folder(_formats.now(), run_id)
        ref = join_s3(self.s3_prefix, _FOLDER, folder, self.manifest_name)
        artifact = SqliteManifestBuilder().build(
            required_build=required_build, shards=shards, custom_fields=custom
        )
        await self._backend.put(ref, artifact.payload, artifact.content_type, artifact.headers)
        payload = native.format_current(ref, artifact.content_type, run_id, _formats.now())
        if put_if is None:
            await self._backend.put(pointer, payload, _POINTER_CONTENT_TYPE)
        elif not await put_if(pointer, payload, _POINTER_CONTENT_TYPE, if_match=etag):
            lost = _lost_pointer(await self._backend.try_get(pointer), expected_current, ref)
            if lost is not None:
                await self._take_back(ref, lost)
                raise lost
        return ref

    async def _take_back(self, ref: str, lost: PublishConflictError) -> None:
        """A reader that falls back takes the newest manifest, whether it was ever announced or not."""
        try:
            await self._backend.delete_prefix(ref.rpartition("/")[0])
        except Exception as error:
            _note_manifest_that_stays(ref, error, lost)

    async def set_current(self, ref: str, *, content_type: str = SQLITE_MANIFEST_CONTENT_TYPE) -> None:
        """Moves the pointer to a manifest. Whether that exists is not looked at."""
        payload = native.format_current(ref, content_type, run_id_of_ref(ref), _formats.now())
        await self._backend.put(join_s3(self.s3_prefix, self.current_pointer_key), payload, _POINTER_CONTENT_TYPE)

    def _manifest_url(self, ref: str) -> str:
        """Where the manifest of a reference lies."""
        check_manifest_ref(self.s3_prefix, ref)
        return ref

    async def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """The manifests below the prefix, newest first."""
        prefixes = await self._backend.list_prefixes(join_s3(self.s3_prefix, _FOLDER))
        return manifests_of_listing(prefixes, self.s3_prefix, self.manifest_name, limit)


# ---------------------------------------------------------------- compare and swap


def _conditional_put(backend: object, expected: ExpectedCurrent) -> Any:
    """The backend's conditional put when one is needed, else None."""
    if expected is ANY:
        return None
    put_if = getattr(backend, "put_if", None)
    if put_if is None:
        kind = type(target_of(backend)).__name__
        raise ConfigValidationError(f"expected_current needs a storage backend with put_if, not {kind}")
    return put_if


def _refuse_other_pointer(payload: bytes | None, expected: ExpectedCurrent) -> None:
    """PublishConflictError unless the pointer is as expected."""
    found = None if payload is None else parse_current_pointer_to_ref(payload).ref
    if found != expected:
        raise conflict(expected, found)


def _lost_pointer(payload: bytes | None, expected: ExpectedCurrent, ref: str) -> PublishConflictError | None:
    """After a conditional put that lost: the error, or None when it lost against itself, by an answer that got lost."""
    found = None if payload is None else parse_current_pointer_to_ref(payload).ref
    return None if found == ref else conflict(expected, found)


def _note_manifest_that_stays(ref: str, error: Exception, lost: PublishConflictError) -> None:
    """What the manifest names must stay, too."""
    lost.manifest_ref = ref
    log_failure(
        "manifest_take_back_failed", severity=FailureSeverity.ERROR, error=error, logger=_log, manifest_ref=ref
    )


# ---------------------------------------------------------------- one kind as the other


class _ThreadedStore:
    """A blocking store whose calls run in a worker thread, one at a time each."""

    def __init__(self, store: ManifestStore) -> None:
        self._store = store

    async def load_current(self) -> ManifestRef | None:
        return await _result(await asyncio.to_thread(self._store.load_current))  # type: ignore[no-any-return]

    async def load_manifest(self, ref: str) -> ParsedManifest:
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

    def load_manifest(self, ref: str) -> ParsedManifest:
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
