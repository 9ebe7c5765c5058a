"""Where snapshots are published, and how to reach them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from shardyfusion._engine import native
from shardyfusion._s3_options import engine_options
from shardyfusion._timeouts import Timeout, seconds
from shardyfusion.async_manifest_store import AsyncManifestStore, as_sync_store
from shardyfusion.credentials import CredentialProvider, S3Credentials
from shardyfusion.errors import ConfigValidationError
from shardyfusion.manifest import ManifestRef
from shardyfusion.manifest_store import ManifestStore, S3ManifestStore
from shardyfusion.reader._manifest_questions import Ask, ask_sync
from shardyfusion.storage import ObstoreBackend, given_ref, location, options_of
from shardyfusion.type_defs import S3Config

if TYPE_CHECKING:
    from shardyfusion._native import SiteOptions
    from shardyfusion._native import Snapshot as Pinned

Place: TypeAlias = str | os.PathLike[str] | S3ManifestStore
"""Where snapshots are published: a prefix, or a store of manifests."""

AnyPlace: TypeAlias = Place | ManifestStore | AsyncManifestStore
"""The same for what only reads: any store of manifests will do."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A published manifest."""

    ref: str
    run_id: str
    published_at: datetime
    is_current: bool
    """Whether the pointer names it."""


Snapshot: TypeAlias = str | ManifestRef | HistoryEntry | None
"""One of the snapshots that were published: its manifest's reference, `run_id=...` for the newest manifest of a run, what
`history()` and stores have listed, or None for the one that the pointer names."""

_RUNS_LOOKED_AT = 10_000


def site_of(
    place: Place,
    current_pointer_key: str | None,
    s3_connection_options: Mapping[str, Any] | S3Config | None,
    credential_provider: CredentialProvider | S3Credentials | None,
    timeout: Timeout,
) -> tuple[str, SiteOptions]:
    """Prefix, and how to reach it."""
    if not isinstance(place, S3ManifestStore):
        options = engine_options(s3_connection_options, credential_provider)
        site: SiteOptions = {"s3": options, "current_name": current_pointer_key or "_CURRENT"}
        prefix = location(place, "prefix")
    else:
        if s3_connection_options is not None or credential_provider is not None or current_pointer_key is not None:
            raise ConfigValidationError(
                "a store of manifests knows its pointer, credentials and connection: give them to it"
            )
        site = {"s3": options_of(place.backend), "current_name": place.current_pointer_key}
        prefix = place.s3_prefix
    if timeout is not None:
        site["timeout"] = timeout
    return prefix, site


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How the snapshots of a place are opened: the arguments that `verify()` and its like share, as given."""

    place: AnyPlace
    local_root: str | None
    relocate: bool
    confine: bool | None
    current_pointer_key: str | None
    s3_connection_options: Mapping[str, Any] | S3Config | None
    credential_provider: CredentialProvider | S3Credentials | None
    timeout: Timeout

    @contextmanager
    def opened(self, *snapshots: Snapshot) -> Iterator[list[Pinned]]:
        """Pins them. No shard is opened yet; copies of SQLite shards lie in `local_root`, or nowhere for long."""
        with _folder(self.local_root) as folder:
            prefix, options, ask, runs = self._source(folder)
            pinned: list[Pinned] = []
            try:
                for snapshot in snapshots:
                    ref = _ref_of(snapshot, runs)
                    chosen = options if ref is None else {**options, "manifest_ref": ref}
                    reader = native.open_reader(prefix, chosen, seconds(self.timeout), ask=ask).wait()
                    pinned.append(reader.snapshot())
                    reader.close()
                yield pinned
            finally:
                for one in pinned:
                    one.close()

    def _source(self, folder: str) -> tuple[str, dict[str, Any], Ask | None, Callable[[], list[tuple[str, str]]]]:
        """Prefix, options, who answers for the manifests, and how to list them: (reference, run), newest first."""
        place = self.place
        options: dict[str, Any] = {
            "max_fallback_attempts": 0,
            "relocate": self.relocate,
            "confine": self.confine,
            "lazy_open": True,
            "sqlite_folder": os.path.join(folder, "sqlite"),
        }
        if isinstance(place, (str, os.PathLike)) or (
            isinstance(place, S3ManifestStore) and isinstance(place.backend, ObstoreBackend)
        ):
            prefix, site = site_of(
                place, self.current_pointer_key, self.s3_connection_options, self.credential_provider, self.timeout
            )
            options["s3"] = site["s3"]
            options["current_pointer_key"] = site["current_name"]
            return prefix, options, None, lambda: [
                (ref, run_id) for ref, run_id, _, _ in native.history(prefix, site, _RUNS_LOOKED_AT)
            ]
        if self.current_pointer_key is not None:
            raise ConfigValidationError("a store of manifests knows its pointer: leave out current_pointer_key")
        store = as_sync_store(place)
        options["s3"] = engine_options(self.s3_connection_options, self.credential_provider)
        return type(place).__qualname__, options, ask_sync(store), lambda: [
            (listed.ref, listed.run_id) for listed in store.list_manifests(limit=_RUNS_LOOKED_AT)
        ]


@contextmanager
def _folder(local_root: str | None) -> Iterator[str]:
    if local_root is not None:
        yield local_root
        return
    with tempfile.TemporaryDirectory(prefix="shardyfusion-") as folder:
        yield folder


def _ref_of(snapshot: Snapshot, runs: Callable[[], list[tuple[str, str]]]) -> str | None:
    if snapshot is None or isinstance(snapshot, str):
        if snapshot is None or "/" in snapshot or not snapshot.startswith("run_id="):
            return snapshot
        wanted = snapshot.removeprefix("run_id=")
        for ref, run_id in runs():
            if run_id == wanted:
                return ref
        raise ConfigValidationError(f"there is no manifest of the run {wanted!r}")
    return given_ref(snapshot)
