"""Where manifests and the pointer to the current one are kept, and how they are parsed."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from os import PathLike
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from shardyfusion._engine import native
from shardyfusion._native import safe_text
from shardyfusion.config import ANY, ExpectedCurrent
from shardyfusion.errors import ConfigValidationError, ManifestParseError, PublishConflictError
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.manifest import SQLITE_MANIFEST_CONTENT_TYPE, ManifestRef, SqliteManifestBuilder
from shardyfusion.storage import StorageBackend, join_s3, location, parse_s3_url

if TYPE_CHECKING:
    from shardyfusion.manifest import ParsedManifest, RequiredBuildMeta, RequiredShardMeta

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
MANIFEST_FOLDER = "manifests"
POINTER_CONTENT_TYPE = "application/json"
_RUN_ID_RE = re.compile(r"run_id=([^/]+)")
_SQLITE_MAGIC = b"SQLite format 3\0"
_SUPPORTED_VERSIONS = (4,)

_log = get_logger(__name__)


class ManifestStore(Protocol):
    """Keeps manifests. Any class with these methods will do. Readers call the three that load and list."""

    def publish(
        self,
        *,
        run_id: str,
        required_build: RequiredBuildMeta,
        shards: list[RequiredShardMeta],
        custom: dict[str, Any],
    ) -> str:
        """Stores a manifest, makes it the current one, and returns its reference."""
        ...

    def load_current(self) -> ManifestRef | None:
        """The current manifest's reference; None when nothing was published."""
        ...

    def load_manifest(self, ref: str) -> ParsedManifest:
        """A manifest. ManifestParseError when it is malformed."""
        ...

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """References, newest first."""
        ...

    def set_current(self, ref: str) -> None:
        """Makes an earlier manifest the current one."""
        ...


# ---------------------------------------------------------------- parsing


def _in_one_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines())


def parse_manifest_payload(payload: bytes) -> ParsedManifest:
    """A manifest from the bytes of its object. ManifestParseError when they are not one."""
    if payload[: len(_SQLITE_MAGIC)] != _SQLITE_MAGIC:
        raise ManifestParseError("Unsupported manifest format: expected SQLite (magic header not found)")
    return parse_sqlite_manifest(payload)


def parse_sqlite_manifest(payload: bytes) -> ParsedManifest:
    """A manifest from the bytes of an SQLite database."""
    from pydantic import ValidationError

    from shardyfusion.manifest import ParsedManifest

    with _opened(payload) as con:
        required, custom = load_sqlite_build_meta(con)
        rows = _shard_rows(con, len(payload))
    try:
        manifest = ParsedManifest(required=required, shards=[_parse_shard(row) for row in rows], custom=custom)
    except (ValidationError, ValueError, RecursionError) as error:
        raise ManifestParseError(f"Manifest validation failed: {_in_one_line(error)}") from error
    _check(manifest)
    return manifest


def load_sqlite_build_meta(con: sqlite3.Connection) -> tuple[RequiredBuildMeta, dict[str, Any]]:
    """The build section and the custom fields of an opened manifest."""
    from pydantic import ValidationError

    from shardyfusion.manifest import RequiredBuildMeta

    with _reading():
        row = con.execute(_SELECT_BUILD).fetchone()
    if row is None:
        raise ManifestParseError("SQLite manifest has no build_meta row")
    fields = dict(zip(_BUILD_COLUMNS, row, strict=True))
    try:
        custom = _json(fields.pop("custom") or "{}")
        if not isinstance(custom, dict):
            raise ValueError("custom is not a JSON object")
        fields["sharding"] = _json(fields["sharding"])
        meta = RequiredBuildMeta.model_validate(fields)
    except (ValidationError, ValueError, RecursionError) as error:
        raise ManifestParseError(f"Manifest validation failed: {_in_one_line(error)}") from error
    if meta.format_version not in _SUPPORTED_VERSIONS:
        raise ManifestParseError(
            f"Unsupported manifest format_version: {meta.format_version}. Supported: {list(_SUPPORTED_VERSIONS)}"
        )
    return meta, custom


_BUILD_COLUMNS = (
    "run_id",
    "created_at",
    "num_dbs",
    "s3_prefix",
    "key_col",
    "sharding",
    "db_path_template",
    "shard_prefix",
    "format_version",
    "key_encoding",
    "custom",
)
_SHARD_COLUMNS = (
    "db_id",
    "db_url",
    "attempt",
    "row_count",
    "db_bytes",
    "min_key",
    "max_key",
    "checkpoint_id",
    "writer_info",
)
# The engine's bounds (src/base/limits.h).
_MAX_BYTES = 64 << 20
_MAX_SHARDS = 1 << 20
_STEPS_PER_CHECK = 1000

_SELECT_BUILD = f"SELECT {', '.join(_BUILD_COLUMNS)} FROM build_meta LIMIT 1"
_SELECT_SHARDS = f"SELECT {', '.join(_SHARD_COLUMNS)} FROM shards ORDER BY db_id"
_SELECT_SHARD = f"SELECT {', '.join(_SHARD_COLUMNS)} FROM shards WHERE db_id = ?"


@contextmanager
def _opened(payload: bytes) -> Iterator[sqlite3.Connection]:
    """The payload as a database of which nothing but stored columns can be read, in time and memory that fit its size."""
    if len(payload) > _MAX_BYTES:
        raise ManifestParseError(f"Unsupported manifest format: {len(payload)} bytes are more than {_MAX_BYTES}")
    if not payload:
        raise ManifestParseError("Failed to read SQLite manifest tables: there are none, the object is empty")
    con = sqlite3.connect(":memory:")
    try:
        with _reading():
            con.deserialize(payload)
            con.execute("PRAGMA trusted_schema = OFF")
            con.execute("PRAGMA query_only = ON")
            con.execute("PRAGMA cell_size_check = ON")
            con.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(len(payload), 64 << 10))
            con.set_authorizer(_stored_columns_only)
            con.set_progress_handler(_Work(len(payload)), _STEPS_PER_CHECK)
        yield con
    finally:
        con.close()


def _stored_columns_only(
    action: int, name: str | None, column: str | None, database: str | None, inner: str | None
) -> int:
    """Tables, and views of them; but functions and recursion can make endless work of a small file."""
    return sqlite3.SQLITE_OK if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ) else sqlite3.SQLITE_DENY


class _Work:
    """Ends a query that takes more steps than the file's size warrants."""

    def __init__(self, payload_bytes: int) -> None:
        self._left = (10_000_000 + 8 * payload_bytes) // _STEPS_PER_CHECK

    def __call__(self) -> int:
        self._left -= 1
        return self._left < 0


def _shard_rows(con: sqlite3.Connection, payload_bytes: int) -> list[tuple[Any, ...]]:
    """All shards, unless their texts come to more than the file can hold: damaged rows may claim one another's pages."""
    rows: list[tuple[Any, ...]] = []
    left = 2 * payload_bytes + (64 << 10)
    with _reading():
        for row in con.execute(_SELECT_SHARDS):
            left -= sum(len(field) for field in row if isinstance(field, str | bytes))
            if left < 0:
                raise sqlite3.DatabaseError("more text than the file holds")
            if len(rows) == _MAX_SHARDS:
                raise sqlite3.DatabaseError(f"more than {_MAX_SHARDS} shards")
            rows.append(row)
    return rows


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise ManifestParseError(f"Failed to read SQLite manifest tables: {error}") from error


def _parse_shard(row: tuple[Any, ...]) -> RequiredShardMeta:
    from shardyfusion.manifest import RequiredShardMeta

    fields = dict(zip(_SHARD_COLUMNS, row, strict=True))
    for name in ("min_key", "max_key"):
        if fields[name] is not None:
            fields[name] = _json(fields[name])
    fields["writer_info"] = _json(fields["writer_info"] or "{}")
    return RequiredShardMeta.model_validate(fields)


def _json(text: Any) -> Any:
    if not isinstance(text, str | bytes):
        text = str(text)
    return json.loads(text)


def _check(manifest: ParsedManifest) -> None:
    num_dbs = manifest.required_build.num_dbs
    if num_dbs > _MAX_SHARDS:
        raise ManifestParseError(f"Manifest validation failed: num_dbs {num_dbs} is more than {_MAX_SHARDS}")
    ids = [shard.db_id for shard in manifest.shards]
    if len(ids) > num_dbs:
        raise ManifestParseError(f"Manifest shard count exceeds num_dbs: {len(ids)} > {num_dbs}")
    if len(set(ids)) != len(ids):
        duplicates = sorted(db_id for db_id, count in Counter(ids).items() if count > 1)
        raise ManifestParseError(f"Manifest contains duplicate shard db_ids: {duplicates}")
    beyond = [db_id for db_id in ids if not 0 <= db_id < num_dbs]
    if beyond:
        raise ManifestParseError(f"Manifest shard db_ids out of range [0, {num_dbs}): {beyond}")
    values = manifest.required_build.sharding.routing_values
    if values is not None and num_dbs != max(1, len(values)):
        raise ManifestParseError(
            "Categorical CEL manifest num_dbs must match routing_values cardinality "
            f"(expected {max(1, len(values))}, got {num_dbs})"
        )


def parse_current_pointer_to_ref(payload: bytes) -> ManifestRef:
    """The reference that a pointer object holds. ManifestParseError when it is malformed."""
    from pydantic import ValidationError

    from shardyfusion.manifest import CurrentPointer

    try:
        pointer = CurrentPointer.model_validate_json(payload)
    except ValidationError as error:
        raise ManifestParseError(f"CURRENT pointer validation failed: {_in_one_line(error)}") from error
    return ManifestRef(pointer.manifest_ref, pointer.run_id, pointer.updated_at)


def format_current_pointer(ref: str, run_id: str, content_type: str, updated_at: datetime) -> bytes:
    """The pointer object's bytes, always the same for the same arguments."""
    from shardyfusion.manifest import CurrentPointer

    pointer = CurrentPointer(
        manifest_ref=ref, manifest_content_type=content_type, run_id=run_id, updated_at=updated_at
    )
    return json.dumps(pointer.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


def parse_manifest_dir_entry(dir_name: str, s3_prefix: str | PathLike[str], manifest_name: str) -> ManifestRef | None:
    """The manifest in a folder of that name; None when the name is not that of a manifest's folder."""
    match = MANIFEST_PREFIX_RE.match(dir_name)
    if match is None:
        return None
    try:
        published = datetime.strptime(match["timestamp"], MANIFEST_TIMESTAMP_FMT).replace(tzinfo=timezone.utc)
    except ValueError:  # the shape of a date, but none
        return None
    ref = join_s3(s3_prefix, MANIFEST_FOLDER, dir_name, manifest_name)
    return ManifestRef(ref, match["run_id"], published)


def manifests_of_listing(prefixes: list[str], s3_prefix: str | PathLike[str], manifest_name: str, limit: int) -> list[ManifestRef]:
    """The manifests among listed folders, newest first; those of one instant by ascending name."""
    names = sorted(native.decode_location(prefix, prefix.rstrip("/").rsplit("/", 1)[-1]) for prefix in prefixes)
    found = [parse_manifest_dir_entry(name, s3_prefix, manifest_name) for name in names]
    refs = sorted((ref for ref in found if ref is not None), key=lambda ref: ref.published_at, reverse=True)
    return refs[: max(0, limit)]


def run_id_of_ref(ref: str) -> str:
    """The run that a manifest's URL names: that of its folder, whatever segments the prefix has."""
    found = _RUN_ID_RE.findall(ref)
    if not found:
        raise ValueError(f"Cannot extract run_id from manifest ref: {safe_text(ref)}")
    return native.decode_location(ref, found[-1])


# ---------------------------------------------------------------- shards on demand


class SqliteShardLookup:
    """Shards of an opened manifest, read when they are asked for; the last `cache_size` are kept. Any thread."""

    def __init__(self, con: sqlite3.Connection, num_dbs: int, *, cache_size: int = 4096) -> None:
        self._con = con
        self._num_dbs = num_dbs
        self._cache_size = cache_size
        self._cache: OrderedDict[int, RequiredShardMeta] = OrderedDict()
        self._lock = Lock()

    def get_shard(self, db_id: int) -> RequiredShardMeta:
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

    def _load(self, db_id: int) -> RequiredShardMeta:
        from shardyfusion.manifest import RequiredShardMeta

        with _reading():
            row = self._con.execute(_SELECT_SHARD, (db_id,)).fetchone()
        if row is None:
            return RequiredShardMeta(db_id=db_id, attempt=0, row_count=0, db_bytes=0)
        try:
            return _parse_shard(row)
        except (ValueError, RecursionError) as error:
            raise ManifestParseError(f"Manifest validation failed: {_in_one_line(error)}") from error


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
        self._backend = backend
        self.s3_prefix = location(s3_prefix).rstrip("/")
        self.manifest_name = manifest_name
        self.current_pointer_key = current_pointer_key

    def publish(
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
        put_if = conditional_put(self._backend, expected_current)
        etag = None
        if put_if is not None:
            etag = self._backend.head(pointer)  # type: ignore[attr-defined]  # as every backend with put_if has
            refuse_other_pointer(self._backend.try_get(pointer), expected_current)
        ref = manifest_url(self.s3_prefix, self.manifest_name, run_id)
        artifact = SqliteManifestBuilder().build(
            required_build=required_build, shards=shards, custom_fields=custom
        )
        self._backend.put(ref, artifact.payload, artifact.content_type, artifact.headers)
        if put_if is None:
            self._put_current(ref, run_id, artifact.content_type)
            return ref
        payload = format_current_pointer(ref, run_id, artifact.content_type, datetime.now(timezone.utc))
        if not put_if(pointer, payload, POINTER_CONTENT_TYPE, if_match=etag):
            lost = lost_pointer(self._backend.try_get(pointer), expected_current, ref)
            if lost is not None:
                self._take_back(ref, lost)
                raise lost
        return ref

    def _take_back(self, ref: str, lost: PublishConflictError) -> None:
        """A reader that falls back takes the newest manifest, whether it was ever announced or not."""
        try:
            self._backend.delete_prefix(ref.rpartition("/")[0])
        except Exception as error:
            note_manifest_that_stays(ref, error, lost)

    def load_current(self) -> ManifestRef | None:
        """What the pointer names; None when there is no pointer."""
        payload = self._backend.try_get(join_s3(self.s3_prefix, self.current_pointer_key))
        return None if payload is None else parse_current_pointer_to_ref(payload)

    def load_manifest(self, ref: str) -> ParsedManifest:
        """The manifest at a URL."""
        if self.s3_prefix.startswith("s3://") or "://" not in ref:
            parse_s3_url(ref)
        try:
            payload = self._backend.get(ref)
        except Exception as error:
            log_manifest_load_failed(ref, error)
            raise
        return parse_manifest_payload(payload)

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """The manifests below the prefix, newest first."""
        prefixes = self._backend.list_prefixes(join_s3(self.s3_prefix, MANIFEST_FOLDER))
        return manifests_of_listing(prefixes, self.s3_prefix, self.manifest_name, limit)

    def set_current(self, ref: str, *, content_type: str = SQLITE_MANIFEST_CONTENT_TYPE) -> None:
        """Moves the pointer to a manifest. Whether that exists is not looked at."""
        self._put_current(ref, run_id_of_ref(ref), content_type)

    def _put_current(self, ref: str, run_id: str, content_type: str) -> None:
        payload = format_current_pointer(ref, run_id, content_type, datetime.now(timezone.utc))
        self._backend.put(join_s3(self.s3_prefix, self.current_pointer_key), payload, POINTER_CONTENT_TYPE)


# ---------------------------------------------------------------- compare and swap


def manifest_url(s3_prefix: str | PathLike[str], manifest_name: str, run_id: str) -> str:
    """Where a manifest of this moment is stored."""
    folder = f"{datetime.now(timezone.utc).strftime(MANIFEST_TIMESTAMP_FMT)}_run_id={run_id}"
    return join_s3(s3_prefix, MANIFEST_FOLDER, folder, manifest_name)


def conditional_put(backend: object, expected: ExpectedCurrent) -> Any:
    """The backend's conditional put when one is needed, else None."""
    if expected is ANY:
        return None
    put_if = getattr(backend, "put_if", None)
    if put_if is None:
        raise ConfigValidationError(f"expected_current needs a storage backend with put_if, not {type(backend).__name__}")
    return put_if


def refuse_other_pointer(payload: bytes | None, expected: ExpectedCurrent) -> None:
    """PublishConflictError unless the pointer is as expected."""
    found = None if payload is None else parse_current_pointer_to_ref(payload).ref
    if found != expected:
        raise conflict(expected, found)


def lost_pointer(payload: bytes | None, expected: ExpectedCurrent, ref: str) -> PublishConflictError | None:
    """After a conditional put that lost: the error, or None when it lost against itself, by an answer that got lost."""
    found = None if payload is None else parse_current_pointer_to_ref(payload).ref
    return None if found == ref else conflict(expected, found)


def note_manifest_that_stays(ref: str, error: Exception, lost: PublishConflictError) -> None:
    """What the manifest names must stay, too."""
    lost.manifest_ref = ref
    log_failure(
        "manifest_take_back_failed", severity=FailureSeverity.ERROR, error=error, logger=_log, manifest_ref=ref
    )


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


class InMemoryManifestStore:
    """Manifests in this object, for tests. Any thread."""

    def __init__(self) -> None:
        self._manifests: dict[str, tuple[ManifestRef, ParsedManifest]] = {}
        self._current: ManifestRef | None = None
        self._lock = Lock()

    def publish(
        self,
        *,
        run_id: str,
        required_build: RequiredBuildMeta,
        shards: list[RequiredShardMeta],
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

    def load_manifest(self, ref: str) -> ParsedManifest:
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
