"""The sidecar of an SQLite shard (docs/formats/snapshot.md 14): what is around its frame. The engine makes the frame."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from shardyfusion._engine import native
from shardyfusion._sqlite_access import SidecarUnavailableError
from shardyfusion.errors import ShardyfusionError
from shardyfusion.storage import ObstoreBackend, join_s3

_HEAD = struct.Struct("<4sBQIB")  # magic, version, bytes of the body, bytes of a page, bytes of the tag
_MAGIC, _VERSION, _TAG_MAX = b"SQPC", 8, 255


@dataclass(frozen=True, slots=True)
class BuiltSidecar:
    """A sidecar that is not bound to a database yet."""

    frame: bytes
    body_size: int
    page_size: int


def build_sidecar_frame(db_path: Path, *, db_bytes: bytes | None = None) -> BuiltSidecar:
    """Of a `shard.db`. SidecarUnavailableError: this file cannot have one."""
    try:
        sidecar = native.sqlite_sidecar(Path(db_path).read_bytes() if db_bytes is None else db_bytes, None)
    except ShardyfusionError as error:
        raise SidecarUnavailableError(f"{db_path}: no sidecar: {error}") from error
    _, _, body_size, page_size, _ = _HEAD.unpack_from(sidecar)
    return BuiltSidecar(sidecar[_HEAD.size :], body_size, page_size)


def frame_to_sidecar(
    frame: bytes, db_tag: str | None = None, body_size: int | None = None, page_size: int | None = None
) -> bytes:
    """The object, bound to the ETag of its `shard.db`. Both sizes are those that `build_sidecar_frame` told."""
    if body_size is None or page_size is None:
        raise SidecarUnavailableError("a sidecar needs body_size and page_size, as build_sidecar_frame tells them")
    tag = (db_tag or "").encode()
    if len(tag) > _TAG_MAX:
        tag = b""  # bound to nothing, as the engine writes it: readers do without
    return _HEAD.pack(_MAGIC, _VERSION, body_size, page_size, len(tag)) + tag + frame


def extract_sidecar(db_path: Path, *, db_bytes: bytes | None = None, db_tag: str | None = None) -> bytes:
    """The sidecar of a `shard.db`, bound to its ETag."""
    built = build_sidecar_frame(db_path, db_bytes=db_bytes)
    return frame_to_sidecar(built.frame, db_tag, built.body_size, built.page_size)


def maybe_upload_sidecar(
    *,
    backend: ObstoreBackend,
    db_url: str,
    db_path: Path,
    db_bytes: bytes,
    db_tag: str | None = None,
    built: BuiltSidecar | None = None,
) -> None:
    """Stores it beside the `shard.db` below `db_url`; nothing when this file cannot have one. `db_tag`: by default the ETag that
    storage tells."""
    if built is None:
        try:
            built = build_sidecar_frame(db_path, db_bytes=db_bytes)
        except SidecarUnavailableError:
            return
    if db_tag is None:
        db_tag = backend.head(join_s3(db_url, "shard.db"))
    payload = frame_to_sidecar(built.frame, db_tag, built.body_size, built.page_size)
    backend.put(join_s3(db_url, "shard.sidecar"), payload, "application/octet-stream")
