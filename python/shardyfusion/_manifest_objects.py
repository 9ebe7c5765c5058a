"""Manifests and pointers as objects below a prefix of a storage backend: `AsyncS3ManifestStore`, and what its blocking twin and
the others have in common with it."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import shardyfusion
from shardyfusion import _formats
from shardyfusion._engine import native
from shardyfusion._formats import parse_manifest_payload
from shardyfusion._immediate import target_of
from shardyfusion.config import ANY, ExpectedCurrent
from shardyfusion.errors import ConfigValidationError, PublishConflictError
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.manifest import SQLITE_MANIFEST_CONTENT_TYPE, ManifestRef, SqliteManifestBuilder
from shardyfusion.storage import AsyncStorageBackend, join_s3, location, parse_s3_url

_FOLDER = "manifests"
_POINTER_CONTENT_TYPE = "application/json"

_log = get_logger("shardyfusion.manifest_store")


def parse_current_pointer_to_ref(payload: bytes) -> ManifestRef:
    """The reference that a pointer object holds. ManifestParseError when it is malformed."""
    ref, run_id, updated_at_us, naive = native.parse_current(payload)
    return ManifestRef(ref, run_id, _formats.time_of(updated_at_us, naive=naive))


def manifests_of_listing(prefixes: list[str], s3_prefix: str | PathLike[str], manifest_name: str, limit: int) -> list[ManifestRef]:
    """The manifests among listed folders, newest first; those of one instant by ascending name."""
    names = [native.decode_location(prefix, prefix.rstrip("/").rsplit("/", 1)[-1]) for prefix in prefixes]
    return refs_of(names, s3_prefix, manifest_name, limit)


def refs_of(names: list[str], s3_prefix: str | PathLike[str], manifest_name: str, limit: int) -> list[ManifestRef]:
    found = native.manifest_refs(names, fspath(s3_prefix), manifest_name.strip("/"), limit)
    return [ManifestRef(ref, run_id, _formats.time_of(published_at_us)) for ref, run_id, published_at_us in found]


def run_id_of_ref(ref: str) -> str:
    """The run that a manifest's URL names: that of its folder, whatever segments the prefix has."""
    run_id = native.run_id_of_ref(ref)
    if run_id is None:
        raise ValueError(f"Cannot extract run_id from manifest ref: {native.safe_text(ref)}")
    return run_id


def check_manifest_ref(prefix: str, ref: str) -> None:
    """ValueError for what is no URL, and below a bucket for what is none of S3."""
    if prefix.startswith("s3://") or "://" not in ref:
        parse_s3_url(ref)


def conflict(expected: ExpectedCurrent, found: str | None, ref: str | None = None) -> PublishConflictError:
    assert expected is not ANY
    named = "no manifest" if found is None else repr(found)
    wanted = "none" if expected is None else repr(expected)
    return PublishConflictError(
        f"CURRENT names {named}, expected {wanted}", manifest_ref=ref, expected=expected, found=found
    )


def log_manifest_load_failed(ref: str, error: BaseException) -> None:
    log_failure(
        "manifest_s3_load_failed", severity=FailureSeverity.ERROR, error=error, logger=_log, manifest_ref=ref
    )


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
        self.s3_prefix: str = location(s3_prefix).rstrip("/")
        self.manifest_name = manifest_name
        self.current_pointer_key = current_pointer_key

    async def load_current(self) -> ManifestRef | None:
        """What the pointer names; None when there is no pointer."""
        payload = await self._backend.try_get(join_s3(self.s3_prefix, self.current_pointer_key))
        return None if payload is None else parse_current_pointer_to_ref(payload)

    async def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
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
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
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


AsyncS3ManifestStore.__module__ = "shardyfusion.async_manifest_store"  # where pickles look for it


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
