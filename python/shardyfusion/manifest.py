"""What a manifest says. The pydantic models are imported when one of them is first used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import shardyfusion
from shardyfusion._formats import format_manifest
from shardyfusion._html import Share, Size, facts, table
from shardyfusion._lazy import lazy_attributes
from shardyfusion.type_defs import JsonObject, JsonValue

if TYPE_CHECKING:
    from shardyfusion._manifest_models import (
        CurrentPointer,
        ManifestShardingSpec,
        ParsedManifest,
        RequiredBuildMeta,
        RequiredShardMeta,
        WriterInfo,
    )

__all__ = [
    "SQLITE_MANIFEST_CONTENT_TYPE",
    "BuildDurations",
    "BuildResult",
    "BuildStats",
    "CurrentPointer",
    "ManifestArtifact",
    "ManifestRef",
    "ManifestShardingSpec",
    "ParsedManifest",
    "RequiredBuildMeta",
    "RequiredShardMeta",
    "SqliteManifestBuilder",
    "WriterInfo",
]

SQLITE_MANIFEST_CONTENT_TYPE = "application/x-sqlite3"

_MODELS = (
    "CurrentPointer",
    "ManifestShardingSpec",
    "ParsedManifest",
    "RequiredBuildMeta",
    "RequiredShardMeta",
    "WriterInfo",
)
if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = lazy_attributes(globals(), dict.fromkeys(_MODELS, "shardyfusion._manifest_models"))


@dataclass(slots=True, frozen=True)
class ManifestRef:
    """A manifest in its store: the store's own reference, the run that made it, when it was published (UTC)."""

    ref: str
    run_id: str
    published_at: datetime


@dataclass(slots=True)
class ManifestArtifact:
    """A manifest as bytes, ready to be stored."""

    payload: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class BuildDurations:
    """How long a write took, in milliseconds.

    sharding_ms: until all rows were read and routed. write_ms: until all shards were stored. manifest_ms: publishing.
    total_ms: all of it.
    """

    sharding_ms: int
    write_ms: int
    manifest_ms: int
    total_ms: int


@dataclass(slots=True)
class BuildStats:
    """What a write did.

    durations: how long it took.
    num_attempt_results, num_winners: attempts at shards that ended well, and those of them that were published.
    rows_written: rows that are stored: of rows with one key one.
    duplicates: rows left out because a later one had their key. bad_rows: rows left out as `on_bad_row` wanted.
    shards_reused: shards stored before: unchanged, or finished by an earlier try of the run.
    """

    durations: BuildDurations
    num_attempt_results: int
    num_winners: int
    rows_written: int
    duplicates: int = field(default=0, kw_only=True)
    bad_rows: int = field(default=0, kw_only=True)
    shards_reused: int = field(default=0, kw_only=True)


@dataclass(slots=True)
class BuildResult:
    """What a write published.

    run_id: of this run. winners: the published attempt of every shard with rows, in `db_id` order.
    manifest_ref: where the manifest is; `rollback()` and `snapshot=` of readers take it.
    stats: rows and times. run_record_ref: where the run's own record is; None: there is none.
    """

    run_id: str
    winners: list[shardyfusion.RequiredShardMeta]
    manifest_ref: str
    stats: BuildStats
    run_record_ref: str | None = None

    def _repr_html_(self) -> str:
        """In a notebook: what was published, and its shards."""
        stats = self.stats
        told: list[tuple[str, object]] = [
            ("run_id", self.run_id),
            ("manifest_ref", self.manifest_ref),
            ("rows_written", stats.rows_written),
            ("bytes", Size(sum(shard.db_bytes for shard in self.winners))),
            ("seconds", f"{stats.durations.total_ms / 1000:,.1f}"),
        ]
        told += [(name, count) for name in ("duplicates", "bad_rows", "shards_reused") if (count := getattr(stats, name))]
        most = max((shard.row_count for shard in self.winners), default=0) or 1
        rows = [
            (shard.db_id, shard.row_count, Share(shard.row_count / most), Size(shard.db_bytes), _key(shard.min_key), _key(shard.max_key))
            for shard in self.winners
        ]
        return facts("Published", told) + table(("shard", "rows", "", "bytes", "min_key", "max_key"), rows)


def _key(key: int | str | bytes | None) -> str | None:
    return None if key is None else str(key)  # not as numbers are: it is copied


class SqliteManifestBuilder:
    """Builds the manifest object, an SQLite database, in memory."""

    def __init__(self) -> None:
        self._custom: JsonObject = {}

    def add_custom_field(self, key: str, value: JsonValue) -> None:
        """Adds a member to the manifest's `custom` object; those given to `build` win."""
        self._custom[key] = value

    def build(
        self,
        *,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom_fields: JsonObject,
    ) -> ManifestArtifact:
        """The manifest of one run."""
        custom = json.dumps({**self._custom, **custom_fields}, sort_keys=True)
        return ManifestArtifact(format_manifest(required_build, shards, custom), SQLITE_MANIFEST_CONTENT_TYPE)
