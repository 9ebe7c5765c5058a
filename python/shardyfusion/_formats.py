"""Pointers and manifests: the package's models of what the engine has parsed, and the engine's bytes of them. What may stand
in one, and what refuses it, the engine decides."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import shardyfusion
from shardyfusion._engine import native
from shardyfusion.errors import ManifestParseError

if TYPE_CHECKING:
    from shardyfusion._native import ManifestDetails, ManifestHead, ShardRow

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def time_of(us: int, *, naive: bool = False) -> datetime:
    """The engine's time. `naive`: it was written without a zone, and is read without one."""
    at = _EPOCH + timedelta(microseconds=us)
    return at.replace(tzinfo=None) if naive else at


def microseconds(at: datetime) -> int:
    """The engine's form of a time; one without a zone is UTC."""
    return ((at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at) - _EPOCH) // _MICROSECOND


def now() -> int:
    """This moment."""
    return microseconds(datetime.now(timezone.utc))


# ---------------------------------------------------------------- parsed


def parse_manifest_payload(payload: bytes) -> shardyfusion.ParsedManifest:
    """A manifest from the bytes of its object. ManifestParseError when they are not one."""
    from shardyfusion._manifest_models import ParsedManifest

    parsed = native.Manifest(payload)
    details = parsed.details()
    return ParsedManifest(
        required=build_meta(details), shards=[shard_meta(row) for row in parsed.rows()], custom=json.loads(details["custom"])
    )


def build_meta(details: ManifestDetails) -> shardyfusion.RequiredBuildMeta:
    """The model of a manifest's head."""
    from shardyfusion._manifest_models import RequiredBuildMeta

    return RequiredBuildMeta.model_validate(
        {
            **details,
            "created_at": time_of(details["created_at_us"], naive=details["created_at_naive"]),
            "sharding": json.loads(details["sharding"]),
        }
    )


def shard_meta(row: ShardRow) -> shardyfusion.RequiredShardMeta:
    """The model of a shard's row."""
    from shardyfusion._manifest_models import RequiredShardMeta

    return RequiredShardMeta.model_validate(
        {
            **row,
            "min_key": key_of(row["min_key"]),
            "max_key": key_of(row["max_key"]),
            "writer_info": json.loads(row["writer_info"]),
        }
    )


def empty_shard_meta(db_id: int) -> shardyfusion.RequiredShardMeta:
    """The model of a shard that has no row."""
    from shardyfusion._manifest_models import RequiredShardMeta

    return RequiredShardMeta(db_id=db_id, attempt=0, row_count=0, db_bytes=0)


def key_of(text: str | None) -> int | str | None:
    """A bound of a shard's keys."""
    return None if text is None else json.loads(text)


# ---------------------------------------------------------------- written


def format_manifest(
    required_build: shardyfusion.RequiredBuildMeta, shards: Iterable[shardyfusion.RequiredShardMeta], custom: str, *, check: bool = True
) -> bytes:
    """The bytes of a manifest's object; `custom` is JSON. ConfigValidationError, or another ValueError, for what readers would
    refuse, unless they are left to find it out themselves (`check`)."""
    head: ManifestHead = {
        "run_id": required_build.run_id,
        "created_at_us": microseconds(required_build.created_at),
        "created_at_naive": required_build.created_at.tzinfo is None,
        "num_dbs": required_build.num_dbs,
        "s3_prefix": required_build.s3_prefix,
        "key_col": required_build.key_col,
        "sharding": json.dumps(required_build.sharding.model_dump(mode="json"), sort_keys=True),
        "db_path_template": required_build.db_path_template,
        "shard_prefix": required_build.shard_prefix,
        "format_version": required_build.format_version,
        "key_encoding": required_build.key_encoding.value,
        "custom": custom,
    }
    return native.format_manifest(head, [shard_row(shard) for shard in shards], check)


def manifest_bytes(manifest: shardyfusion.ParsedManifest) -> bytes:
    """The object of a manifest that a store of the caller's has parsed, for the engine to read: which says what is wrong with
    it. ManifestParseError when it has no such form at all. Of custom fields only what JSON can hold is kept."""
    custom = json.dumps(manifest.custom, skipkeys=True, default=str)
    try:
        return format_manifest(manifest.required_build, manifest.shards, custom, check=False)
    except (ValueError, OverflowError) as error:
        raise ManifestParseError(f"Manifest validation failed: {error}") from error


def shard_row(shard: shardyfusion.RequiredShardMeta) -> ShardRow:
    """A shard's row of a manifest."""
    # a key that JSON cannot hold costs both bounds: they are only for people
    try:
        min_key, max_key = _key_json(shard.min_key), _key_json(shard.max_key)
    except UnicodeDecodeError:
        min_key = max_key = None
    info = shard.writer_info
    opening = {} if info.opening is None else {"opening": info.opening}
    ids: dict[str, Any] = {"stage_id": info.stage_id, "task_attempt_id": info.task_attempt_id}
    return {
        "db_id": shard.db_id,
        "db_url": shard.db_url,
        "attempt": shard.attempt,
        "row_count": shard.row_count,
        "db_bytes": shard.db_bytes,
        "min_key": min_key,
        "max_key": max_key,
        "checkpoint_id": shard.checkpoint_id,
        "writer_info": json.dumps({"attempt": info.attempt, "duration_ms": info.duration_ms, **opening, **ids}),
    }


def _key_json(key: int | str | bytes | None) -> str | None:
    if key is None:
        return None
    return json.dumps(key.decode() if isinstance(key, bytes) else key)
