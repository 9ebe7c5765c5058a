"""Where the objects of a snapshot really lie, for readers that the engine does not open itself.

The rule is the engine's (src/snapshot/location.h): what lies below the prefix that a snapshot was published under is read
below the prefix that the reader was given when the schemes differ, or when `relocate` says so.
NEEDSWORK: replace it by the engine's own functions when the extension offers them.
"""

from __future__ import annotations

from shardyfusion.errors import ManifestParseError

_MANIFESTS = "/manifests/"


def scheme_of(url: str) -> str:
    """ "file" for bare paths."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator else "file"


def manifest_location(ref: str, prefix: str, relocate: bool) -> str:
    """The URL of the manifest that a pointer names. ManifestParseError when it cannot be moved."""
    if not relocate and scheme_of(ref) == scheme_of(prefix):
        return ref
    _, mark, rest = ref.rpartition(_MANIFESTS)
    if not mark or "/" not in rest:
        raise ManifestParseError(f"manifest reference {ref!r} cannot be found below {prefix!r}")
    return _below(prefix, f"manifests/{rest}")


def shard_location(db_url: str, published_prefix: str, prefix: str, relocate: bool) -> str:
    """The URL of a shard's folder."""
    published = published_prefix.rstrip("/")
    if (relocate or scheme_of(db_url) != scheme_of(prefix)) and published and db_url.startswith(f"{published}/"):
        return _below(prefix, db_url.removeprefix(published).strip("/"))
    if scheme_of(db_url) == "file" != scheme_of(prefix):
        raise ManifestParseError(f"location {db_url!r} is local, the snapshot is not")
    return db_url


def _below(prefix: str, path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        raise ManifestParseError(f"location {path!r} below the prefix has a '.' or '..' segment")
    return f"{prefix.rstrip('/')}/{path}"
