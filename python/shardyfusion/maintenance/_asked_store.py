"""A manifest store of the caller's, which clean-up asks what is in use."""

from __future__ import annotations

from typing import Any

from shardyfusion._formats import manifest_bytes, microseconds
from shardyfusion.async_manifest_store import AsyncManifestStore, as_sync_store
from shardyfusion.errors import ManifestParseError, PublishConflictError
from shardyfusion.manifest_store import ManifestStore

_ALL = 2**31 - 1


class AskedStore:
    """Called by the engine, on the thread that cleans up: `_native.cleanup`."""

    def __init__(self, store: ManifestStore | AsyncManifestStore) -> None:
        self.name = type(store).__qualname__
        self.deletes = hasattr(store, "delete_manifest")
        self._given = store
        self._store: Any = as_sync_store(store)

    def __call__(self, what: str, ref: str | None) -> tuple[str, object]:
        try:
            return "OK", self._answer(what, ref)
        except ManifestParseError as error:
            return "BAD_MANIFEST", str(error)
        except FileNotFoundError as error:
            return "NOT_FOUND", str(error)
        except KeyError as error:  # the one in memory
            return ("NOT_FOUND", str(error)) if what == "load_manifest" else ("IO", repr(error))
        except PublishConflictError as error:
            return "CONFLICT", str(error)

    def _answer(self, what: str, ref: str | None) -> object:
        if what == "load_current":
            current = self._store.load_current()
            return None if current is None else current.ref
        if what == "load_manifest":
            return manifest_bytes(self._store.load_manifest(ref))
        if what == "list_manifests":
            return [(one.ref, one.run_id, microseconds(one.published_at)) for one in self._store.list_manifests(limit=_ALL)]
        self._store.delete_manifest(ref)
        return None
