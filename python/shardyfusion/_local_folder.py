"""Folders that writers and adapters work in."""

from __future__ import annotations

import os
from pathlib import Path

from shardyfusion._storage_errors import DeniedShardObjectError, UnusableFolderError


def make_local_folder(path: Path, setting: str = "output.local_root") -> None:
    """With those above it. Raises a DbAdapterError that is an OSError too, a PermissionError where access is denied, and names what is
    in the way, its owner, and what to do."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        at = next(above for above in (path, *path.parents) if os.path.lexists(above) or above == above.parent)
        st = os.lstat(at)
        text = (
            f"folder {path}: {error.strerror}: user {os.geteuid()} can make nothing in {at} "
            f"(owner {st.st_uid}, mode {st.st_mode & 0o7777:04o}): name another folder ({setting})"
        )
        raise (DeniedShardObjectError if isinstance(error, PermissionError) else UnusableFolderError)(text) from error
