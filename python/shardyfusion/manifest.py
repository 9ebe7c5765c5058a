"""What a manifest says. The pydantic models are imported when one of them is first used."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from shardyfusion._lazy import lazy_attributes
from shardyfusion.type_defs import JsonObject, JsonValue

if TYPE_CHECKING:
    from shardyfusion._manifest_models import (
        CurrentPointer,
        ManifestShardingSpec,
        ParsedManifest,
        RequiredBuildMeta,
        RequiredShardMeta,
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
)
__getattr__ = lazy_attributes(globals(), dict.fromkeys(_MODELS, "shardyfusion._manifest_models"))


@dataclass(slots=True, frozen=True)
class ManifestRef:
    """A manifest in its store: the store's own reference, the run that made it, when it was published (UTC)."""

    ref: str
    run_id: str
    published_at: datetime


@dataclass(slots=True, frozen=True)
class WriterInfo:
    """Which task of a batch engine wrote a shard, and how long it took."""

    stage_id: int | None = None
    task_attempt_id: int | None = None
    attempt: int = 0
    duration_ms: int = 0


@dataclass(slots=True)
class ManifestArtifact:
    """A manifest as bytes, ready to be stored."""

    payload: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class BuildDurations:
    """How long the phases of a write took, in milliseconds."""

    sharding_ms: int
    write_ms: int
    manifest_ms: int
    total_ms: int


@dataclass(slots=True)
class BuildStats:
    """What a write did."""

    durations: BuildDurations
    num_attempt_results: int
    num_winners: int
    rows_written: int  # stored: of rows with one key one
    duplicates: int = field(default=0, kw_only=True)  # rows left out because a later one had their key


@dataclass(slots=True)
class BuildResult:
    """What a write published: the winning attempt of every shard with rows, in `db_id` order."""

    run_id: str
    winners: list[RequiredShardMeta]
    manifest_ref: str
    stats: BuildStats
    run_record_ref: str | None = None


_SCHEMA = """
CREATE TABLE build_meta (
    run_id           TEXT    NOT NULL,
    created_at       TEXT    NOT NULL,
    num_dbs          INTEGER NOT NULL,
    s3_prefix        TEXT    NOT NULL,
    key_col          TEXT    NOT NULL,
    sharding         TEXT    NOT NULL,
    db_path_template TEXT    NOT NULL,
    shard_prefix     TEXT    NOT NULL,
    format_version   INTEGER NOT NULL,
    key_encoding     TEXT    NOT NULL,
    custom           TEXT    NOT NULL DEFAULT '{}'
);
CREATE TABLE shards (
    db_id         INTEGER NOT NULL PRIMARY KEY,
    db_url        TEXT,
    attempt       INTEGER NOT NULL,
    row_count     INTEGER NOT NULL,
    db_bytes      INTEGER NOT NULL,
    min_key       TEXT,
    max_key       TEXT,
    checkpoint_id TEXT,
    writer_info   TEXT    NOT NULL DEFAULT '{}'
);
"""


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
        required_build: RequiredBuildMeta,
        shards: list[RequiredShardMeta],
        custom_fields: JsonObject,
    ) -> ManifestArtifact:
        """The manifest of one run."""
        meta = required_build.model_dump(mode="json")
        meta["sharding"] = json.dumps(meta["sharding"], sort_keys=True)
        meta["custom"] = json.dumps({**self._custom, **custom_fields}, sort_keys=True)
        with sqlite3.connect(":memory:") as con:
            con.executescript(_SCHEMA)
            _insert(con, "build_meta", meta)
            for shard in shards:
                _insert(con, "shards", _shard_row(shard))
            con.commit()
            payload = con.serialize()
        con.close()
        return ManifestArtifact(payload, SQLITE_MANIFEST_CONTENT_TYPE)


def _insert(con: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    con.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def _shard_row(shard: RequiredShardMeta) -> dict[str, Any]:
    row = shard.model_dump(exclude={"min_key", "max_key", "writer_info"})
    # a key that JSON cannot hold costs both bounds: they are only for people
    try:
        row["min_key"], row["max_key"] = _key_json(shard.min_key), _key_json(shard.max_key)
    except UnicodeDecodeError:
        row["min_key"] = row["max_key"] = None
    info = shard.writer_info
    row["writer_info"] = json.dumps(
        {
            "attempt": info.attempt,
            "duration_ms": info.duration_ms,
            "stage_id": info.stage_id,
            "task_attempt_id": info.task_attempt_id,
        },
        sort_keys=True,
    )
    return row


def _key_json(key: int | str | bytes | None) -> str | None:
    if key is None:
        return None
    return json.dumps(key.decode() if isinstance(key, bytes) else key)
