"""Looking after what was published: what there is, whether it is whole, how two snapshots differ, going back to one, and
removing what nobody needs.

Every function takes the prefix that writers publish below, or an `S3ManifestStore` over the package's own storage, which has
a prefix and credentials already. Those that only read take any other store of manifests as well. Those here block;
`shardyfusion.maintenance.aio` has the same as coroutines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shardyfusion._engine import native
from shardyfusion._formats import time_of
from shardyfusion._s3_options import engine_options
from shardyfusion._storage_errors import ConditionFailedError
from shardyfusion._timeouts import Timeout
from shardyfusion.async_manifest_store import AsyncManifestStore
from shardyfusion.config import ANY
from shardyfusion.credentials import CredentialProvider, S3Credentials
from shardyfusion.errors import ConfigValidationError, PublishConflictError
from shardyfusion.maintenance._checks import (
    Damage,
    Difference,
    DiffProgress,
    RowChange,
    RowChanges,
    ShardVerdict,
    VerifyProgress,
    VerifyReport,
    diff,
    diff_rows,
    verify,
)
from shardyfusion.maintenance._places import (
    AnyPlace,
    HistoryEntry,
    Place,
    Snapshot,
    site_of,
)
from shardyfusion.maintenance._asked_store import AskedStore
from shardyfusion.manifest_store import ManifestStore, S3ManifestStore
from shardyfusion.storage import BucketStore, ObstoreBackend, location
from shardyfusion.type_defs import S3Config

__all__ = [
    "AnyPlace",
    "CleanupReport",
    "Damage",
    "DiffProgress",
    "Difference",
    "HistoryEntry",
    "Leftover",
    "Place",
    "RowChange",
    "RowChanges",
    "ShardVerdict",
    "Snapshot",
    "VerifyProgress",
    "VerifyReport",
    "cleanup",
    "diff",
    "diff_rows",
    "history",
    "manifest_store",
    "rollback",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What clean-up deletes: a folder, or unfinished uploads below it."""

    kind: str
    """`attempt`, `manifest`, `run`, `run_record` or `upload`."""
    run_id: str
    url: str
    objects: int
    deleted: bool
    """False in a dry run, and of uploads that the store keeps."""


@dataclass(frozen=True, slots=True)
class CleanupReport:
    """What a clean-up did, or would do."""

    leftovers: tuple[Leftover, ...]
    dry_run: bool
    warning: str | None
    """What may be left although it succeeded."""

    @property
    def objects(self) -> int:
        """Of all leftovers."""
        return sum(leftover.objects for leftover in self.leftovers)


def manifest_store(
    prefix: str | os.PathLike[str],
    *,
    current_pointer_key: str = "_CURRENT",
    s3_connection_options: Mapping[str, Any] | S3Config | None = None,
    credential_provider: CredentialProvider | S3Credentials | None = None,
) -> S3ManifestStore:
    """The store of manifests of any prefix: on S3, local files or in memory."""
    url = location(prefix, "prefix")
    store = BucketStore(url, engine_options(s3_connection_options, credential_provider))
    return S3ManifestStore(ObstoreBackend(store), url, current_pointer_key=current_pointer_key)


def history(
    place: Place,
    *,
    limit: int = 10,
    current_pointer_key: str | None = None,
    s3_connection_options: Mapping[str, Any] | S3Config | None = None,
    credential_provider: CredentialProvider | S3Credentials | None = None,
    timeout: Timeout = None,
) -> list[HistoryEntry]:
    """The newest `limit` manifests, newest first. `timeout` is of each request with its retries, as everywhere here."""
    if limit < 1:
        raise ConfigValidationError(f"limit must be at least 1, got {limit}")
    prefix, site = site_of(place, current_pointer_key, s3_connection_options, credential_provider, timeout)
    return [
        HistoryEntry(ref, run_id, time_of(at), is_current)
        for ref, run_id, at, is_current in native.history(prefix, site, limit)
    ]


def rollback(
    place: Place,
    ref: str,
    *,
    force: bool = False,
    expected_current: Any = ANY,
    current_pointer_key: str | None = None,
    s3_connection_options: Mapping[str, Any] | S3Config | None = None,
    credential_provider: CredentialProvider | S3Credentials | None = None,
    timeout: Timeout = None,
) -> None:
    """Makes the pointer name `ref`, as `history()` has it: an older manifest, or a newer one.

    Unless forced, the manifest and all of its shards must be there. `PublishConflictError` when the pointer moves meanwhile, or
    does not name `expected_current` (None: when there is one).
    """
    prefix, site = site_of(place, current_pointer_key, s3_connection_options, credential_provider, timeout)
    any_current = expected_current is ANY
    expected = None if any_current else expected_current
    try:
        native.rollback(prefix, ref, site, force, any_current, expected)
    except ConditionFailedError as e:
        raise PublishConflictError(str(e), manifest_ref=ref, expected=expected) from e


def cleanup(
    place: Place,
    *,
    older_than: timedelta | None = None,
    keep_last: int | None = None,
    stale_attempts: bool = True,
    old_runs: bool | None = None,
    min_age: timedelta = timedelta(hours=1),
    dry_run: bool = False,
    respect_leases: bool = True,
    progress: Callable[[Leftover], object] | None = None,
    manifest_store: ManifestStore | AsyncManifestStore | None = None,
    current_pointer_key: str | None = None,
    s3_connection_options: Mapping[str, Any] | S3Config | None = None,
    credential_provider: CredentialProvider | S3Credentials | None = None,
    timeout: Timeout = None,
) -> CleanupReport:
    """Removes what writers left behind: attempts at shards that lost, runs without a manifest, unfinished uploads.

    With `older_than` or `keep_last` also manifests, and with them their runs, that neither of the two keeps. Never what the
    pointer names, nor a run whose last sign of life is younger than `min_age`, nor, unless told, one whose writer lives.
    `progress` hears of each leftover before it is deleted, and again when it is. What it raises is raised when all is done.

    `manifest_store`: where this prefix's snapshots are published, all of them, when that is not below the prefix. What its manifests name
    stays; manifests are given up only where the store has `delete_manifest(ref)`. `ConfigValidationError`, and nothing is deleted, when it names
    a snapshot of another prefix, or none although some were published.
    """
    prefix, site = site_of(place, current_pointer_key, s3_connection_options, credential_provider, timeout)
    if keep_last is not None and keep_last < 1:
        raise ConfigValidationError(f"keep_last must be at least 1, got {keep_last}")
    for name, age in (("older_than", older_than), ("min_age", min_age)):
        if age is not None and age < timedelta(0):
            raise ConfigValidationError(f"{name} must not be negative, got {age}")
    given_up = older_than is not None or keep_last is not None
    asked = None if manifest_store is None else AskedStore(manifest_store)
    leftovers, warning = native.cleanup(
        prefix,
        site,
        stale_attempts,
        given_up if old_runs is None else old_runs,
        keep_last or 0,
        -1 if older_than is None else older_than // timedelta(milliseconds=1),
        min_age // timedelta(milliseconds=1),
        not respect_leases,
        dry_run,
        None if progress is None else lambda *leftover: progress(Leftover(*leftover)),
        None if asked is None else (asked.name, asked.deletes, asked),
    )
    return CleanupReport(tuple(Leftover(*leftover) for leftover in leftovers), dry_run, warning)
