"""Where manifests and the pointer to the current one are kept, and how they are parsed."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import OrderedDict
from datetime import datetime, timezone
from os import PathLike
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import shardyfusion
from shardyfusion import _formats
from shardyfusion._engine import native
from shardyfusion._fork import add_locks
from shardyfusion._formats import parse_manifest_payload
from shardyfusion.config import ANY, ExpectedCurrent
from shardyfusion._immediate import Immediate, run_now
from shardyfusion._manifest_objects import (
    AsyncS3ManifestStore,
    conflict,
    parse_current_pointer_to_ref,
    refs_of,
)
from shardyfusion.errors import ManifestParseError
from shardyfusion.logging import get_logger
from shardyfusion.manifest import SQLITE_MANIFEST_CONTENT_TYPE, ManifestRef
from shardyfusion.storage import StorageBackend

__all__ = [
    "MANIFEST_PREFIX_RE",
    "MANIFEST_TIMESTAMP_FMT",
    "InMemoryManifestStore",
    "ManifestStore",
    "S3ManifestStore",
    "SqliteShardLookup",
    "load_sqlite_build_meta",
    "parse_current_pointer_to_ref",
    "parse_manifest_dir_entry",
    "parse_manifest_payload",
    "parse_sqlite_manifest",
]

MANIFEST_TIMESTAMP_FMT = "%Y-%m-%dT%H:%M:%S.%fZ"
MANIFEST_PREFIX_RE = re.compile(
    r"^(?P<timestamp>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z)_run_id=(?P<run_id>[^/]+)/?$"
)

_log = get_logger(__name__)


@runtime_checkable
class ManifestStore(Protocol):
    """Keeps manifests. Any class with these methods will do. Readers call the three that load and list."""

    def publish(
        self,
        *,
        run_id: str,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom: dict[str, Any],
    ) -> str:
        """Stores a manifest, makes it the current one, and returns its reference."""
        ...

    def load_current(self) -> ManifestRef | None:
        """The current manifest's reference; None when nothing was published."""
        ...

    def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        """A manifest. ManifestParseError when it is malformed."""
        ...

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """References, newest first."""
        ...

    def set_current(self, ref: str) -> None:
        """Makes an earlier manifest the current one."""
        ...


# ---------------------------------------------------------------- parsing


def parse_sqlite_manifest(payload: bytes) -> shardyfusion.ParsedManifest:
    """A manifest from the bytes of an SQLite database: there is no other kind."""
    return parse_manifest_payload(payload)


def load_sqlite_build_meta(con: sqlite3.Connection) -> tuple[shardyfusion.RequiredBuildMeta, dict[str, Any]]:
    """The build section and the custom fields of an opened manifest, whatever its shards are."""
    details = native.Manifest(_payload_of(con), head_only=True).details()
    return _formats.build_meta(details), json.loads(details["custom"])


def _payload_of(con: sqlite3.Connection) -> bytes:
    try:
        return con.serialize()
    except sqlite3.Error as error:
        raise ManifestParseError(f"Failed to read SQLite manifest tables: {error}") from error


def parse_manifest_dir_entry(dir_name: str, s3_prefix: str | PathLike[str], manifest_name: str) -> ManifestRef | None:
    """The manifest in a folder of that name; None when the name is not that of a manifest's folder."""
    if "/" in dir_name[:-1]:
        return None
    found = refs_of([dir_name], s3_prefix, manifest_name, 1)
    return found[0] if found else None


# ---------------------------------------------------------------- shards on demand


class SqliteShardLookup:
    """Shards of an opened manifest, read when they are asked for; the last `cache_size` are kept. Any thread."""

    _lock: Lock

    def __init__(self, con: sqlite3.Connection, num_dbs: int, *, cache_size: int = 4096) -> None:
        self._con = con
        self._num_dbs = num_dbs
        self._cache_size = cache_size
        self._cache: OrderedDict[int, shardyfusion.RequiredShardMeta] = OrderedDict()
        add_locks(self, _lock=Lock)
        self._manifest: native.Manifest | None = None

    def get_shard(self, db_id: int) -> shardyfusion.RequiredShardMeta:
        """The entry of a shard; one without a row is empty. KeyError when there is no such shard."""
        if not 0 <= db_id < self._num_dbs:
            raise KeyError(db_id)
        with self._lock:
            shard = self._cache.get(db_id)
            if shard is None:
                shard = self._cache[db_id] = self._load(db_id)
                if len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(db_id)
            return shard

    def _load(self, db_id: int) -> shardyfusion.RequiredShardMeta:
        if self._manifest is None:
            self._manifest = native.Manifest(_payload_of(self._con))
        row = self._manifest.row(db_id)
        return _formats.empty_shard_meta(db_id) if row is None else _formats.shard_meta(row)


# ---------------------------------------------------------------- stores


class S3ManifestStore:
    """Manifests below a prefix of a storage backend. Blocking; as safe for threads as its backend."""

    def __init__(
        self,
        backend: StorageBackend,
        s3_prefix: str | PathLike[str],
        *,
        manifest_name: str = "manifest",
        current_pointer_key: str = "_CURRENT",
    ) -> None:
        self._store = AsyncS3ManifestStore(
            Immediate(backend, "S3ManifestStore"),
            s3_prefix,
            manifest_name=manifest_name,
            current_pointer_key=current_pointer_key,
        )
        self.backend = backend
        self.s3_prefix: str = self._store.s3_prefix
        self.manifest_name = manifest_name
        self.current_pointer_key = current_pointer_key

    def publish(
        self,
        *,
        run_id: str,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom: dict[str, Any],
        expected_current: ExpectedCurrent = ANY,
    ) -> str:
        """Stores the manifest, then moves the pointer to it; returns the manifest's URL.

        PublishConflictError when the pointer does not name `expected_current` (None: when there is one).
        """
        fields = {"run_id": run_id, "required_build": required_build, "shards": shards, "custom": custom}
        return run_now(self._store.publish(**fields, expected_current=expected_current))  # type: ignore[arg-type]

    def load_current(self) -> ManifestRef | None:
        """What the pointer names; None when there is no pointer."""
        return run_now(self._store.load_current())

    def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        """The manifest at a URL."""
        return run_now(self._store.load_manifest(ref))

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """The manifests below the prefix, newest first."""
        return run_now(self._store.list_manifests(limit=limit))

    def set_current(self, ref: str, *, content_type: str = SQLITE_MANIFEST_CONTENT_TYPE) -> None:
        """Moves the pointer to a manifest. Whether that exists is not looked at."""
        run_now(self._store.set_current(ref, content_type=content_type))


class InMemoryManifestStore:
    """Manifests in this object, for tests. Any thread."""

    _lock: Lock

    def __init__(self) -> None:
        self._manifests: dict[str, tuple[ManifestRef, shardyfusion.ParsedManifest]] = {}
        self._current: ManifestRef | None = None
        add_locks(self, _lock=Lock)

    def publish(
        self,
        *,
        run_id: str,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom: dict[str, Any],
        expected_current: ExpectedCurrent = ANY,
    ) -> str:
        """Keeps the manifest and makes it the current one; returns its reference. PublishConflictError when the current
        one is not `expected_current`."""
        from shardyfusion.manifest import ParsedManifest

        ref = f"mem://manifests/run_id={run_id}/manifest"
        manifest = ParsedManifest(required=required_build, shards=list(shards), custom=dict(custom))
        with self._lock:
            found = None if self._current is None else self._current.ref
            if expected_current is not ANY and found != expected_current:
                raise conflict(expected_current, found)
            self._current = ManifestRef(ref, run_id, datetime.now(timezone.utc))
            self._manifests.pop(ref, None)  # published again: the newest once more
            self._manifests[ref] = (self._current, manifest)
        return ref

    def load_current(self) -> ManifestRef | None:
        """What was published, or set, last."""
        return self._current

    def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        """A manifest; KeyError when it was not published here."""
        return self._manifests[ref][1]

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """The manifests, newest first."""
        with self._lock:
            return [ref for ref, _ in reversed(self._manifests.values())][: max(0, limit)]

    def set_current(self, ref: str) -> None:
        """Makes an earlier manifest the current one; KeyError when it was not published here."""
        with self._lock:
            if ref not in self._manifests:
                raise KeyError(f"Manifest not found: {ref}")
            run_id = self._manifests[ref][0].run_id
            self._current = ManifestRef(ref, run_id, datetime.now(timezone.utc))
