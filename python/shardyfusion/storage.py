"""Objects by URL: the interface that stores of manifests and run records stand on, over S3, local files and memory.

URLs are absolute ("s3://bucket/key", and "file:///path" or "mem://name/key" where the store is one of those). Prefixes
count by segment: ".../run_id=1" is no prefix of ".../run_id=10". Backends may be used by any thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from shardyfusion._engine import native
from shardyfusion._fork import add_locks
from shardyfusion._immediate import Immediate, run_now
from shardyfusion._native import safe_text
from shardyfusion._not_copied import NotCopied
from shardyfusion._s3_options import engine_options
from shardyfusion._storage_errors import ConditionFailedError, InvalidArgumentError
from shardyfusion._store_events import with_events
from shardyfusion._timeouts import engine_timeout
from shardyfusion.credentials import CredentialProvider, S3Credentials
from shardyfusion.errors import ConfigValidationError
from shardyfusion.type_defs import S3Config, S3ConnectionOptions

if TYPE_CHECKING:
    from shardyfusion._native import Operation, S3Options, Store

__all__ = [
    "AsyncMemoryBackend",
    "AsyncObstoreBackend",
    "AsyncStorageBackend",
    "MemoryBackend",
    "ObstoreBackend",
    "StorageBackend",
    "create_s3_store",
    "join_s3",
    "parse_s3_url",
]

T = TypeVar("T")

_DELETE_BATCH = 1000  # the most that one request of S3 takes


@runtime_checkable
class StorageBackend(Protocol):
    """Whole objects by URL, blocking."""

    def put(self, url: str, payload: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Stores an object, in place of one that is there."""
        ...

    def get(self, url: str) -> bytes:
        """The object. FileNotFoundError when there is none."""
        ...

    def try_get(self, url: str) -> bytes | None:
        """The object; None when there is none."""
        ...

    def list_prefixes(self, prefix_url: str) -> list[str]:
        """The URLs of the folders right below."""
        ...

    def delete_prefix(self, prefix_url: str) -> int:
        """Deletes all objects below; returns how many."""
        ...


@runtime_checkable
class AsyncStorageBackend(Protocol):
    """Whole objects by URL, for asyncio."""

    async def put(
        self, url: str, payload: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Stores an object, in place of one that is there."""
        ...

    async def get(self, url: str) -> bytes:
        """The object. FileNotFoundError when there is none."""
        ...

    async def try_get(self, url: str) -> bytes | None:
        """The object; None when there is none."""
        ...

    async def list_prefixes(self, prefix_url: str) -> list[str]:
        """The URLs of the folders right below."""
        ...

    async def delete_prefix(self, prefix_url: str) -> int:
        """Deletes all objects below; returns how many."""
        ...


# ---------------------------------------------------------------- URLs

_LOCAL = ("/", "./", "../", "file:")


def location(given: object, what: str = "s3_prefix") -> str:
    """A URL, a local path or a `Path` as the URL that manifests have: files as absolute `file://` URLs. What is none of these
    comes back as it is. ConfigValidationError for control characters, outer blanks and other things than texts."""
    text = given_text(given, what)
    scheme, _, rest = text.partition("://")
    known = scheme.lower() in ("s3", "mem")
    if text.lower().startswith(_LOCAL):
        return native.location(text)
    if text != text.strip() or (known and rest.partition("/")[0]):
        native.split_url(text)  # says what is wrong
    return f"{scheme.lower()}://{rest}" if known else text


def given_ref(snapshot: Any) -> str:
    """Of a manifest that is named by its reference, a text or a ManifestRef."""
    ref = snapshot if isinstance(snapshot, str) else getattr(snapshot, "ref", None)
    if not isinstance(ref, str):
        raise TypeError(f"a snapshot must be named by a str or a ManifestRef, not {type(snapshot).__name__}")
    return ref


def given_text(given: object, what: str = "s3_prefix") -> str:
    """A text as it is, a path as an absolute one."""
    if isinstance(given, str):
        return given
    if not isinstance(given, os.PathLike):
        raise InvalidArgumentError(f"{what} must be a URL or a path, got {type(given).__name__}")
    if "://" in str(given):  # a path of some library for object stores, which would be downloaded
        return str(given)
    text = os.fsdecode(given)
    if re.match(r"(s3|mem|file):", text, re.IGNORECASE):  # Path("s3://bucket/x") has lost a slash
        if not text.lower().startswith("file:"):
            raise InvalidArgumentError(f"{what} must be the text of the URL: a Path cannot hold {text!r}")
        return text
    return os.path.abspath(text)


def parse_s3_url(url: str) -> tuple[str, str]:
    """(bucket, key) of s3://bucket/key. ValueError for anything else."""
    scheme, separator, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3" or not separator or not bucket:
        raise ValueError(f"Invalid S3 URL: {safe_text(url)}")
    key = key.strip("/")
    if not key:
        raise ValueError(f"S3 URL must include key path: {safe_text(url)}")
    return bucket, key


def join_s3(base: str, *parts: str) -> str:
    """The parts below the base, one slash between any two; empty ones are left out. Below a file URL they are percent-encoded."""
    name = "/".join(part.strip("/") for part in parts if part.strip("/"))
    if base[:7].lower() == "file://":
        return native.join_location(base, name)
    return base.rstrip("/") + ("/" + name if name else "")


def _folder(key: str) -> str:
    return key.rstrip("/") + "/"


def _refuse_headers(headers: Mapping[str, str] | None) -> None:
    if headers:
        raise ConfigValidationError(f"headers of stored objects are not supported: {sorted(headers)}")


# ---------------------------------------------------------------- stores of the engine


class BucketStore(NotCopied):
    """The objects of one bucket (or folder tree, or space in memory). Nothing is sent before the first request."""

    def __init__(self, url: str, options: S3Options | None = None) -> None:
        """`url`: the root, or anything below it."""
        url = location(url, "url")
        self.options = options
        self.objects: Store = native.Store(url, with_events(options))
        self._root = native.split_url(url)[0]

    def key_of(self, url: str) -> str:
        """The key of an object here. ValueError for a URL that is elsewhere: its key would name another object."""
        if not (isinstance(url, str) and url.startswith("s3://")):
            url = location(url, "url")
        if url.startswith("s3://") or "://" not in url:
            bucket, key = parse_s3_url(url)
            root = f"s3://{bucket}"
        else:
            root, key = native.split_url(url)
        if root != self._root:
            raise ValueError(f"{safe_text(url)} does not lie in {self._root}")
        return key


def options_of(backend: object) -> S3Options | None:
    """How a backend of ours reaches its store. ConfigValidationError for another one: nobody knows how it does."""
    if not isinstance(backend, ObstoreBackend):
        raise ConfigValidationError(f"the store must be over ObstoreBackend, not {type(backend).__name__}: give its prefix instead")
    return backend._store.options


def create_s3_store(
    bucket: str,
    credentials: CredentialProvider | S3Credentials | None = None,
    connection_options: S3ConnectionOptions | S3Config | None = None,
) -> Any:
    """A store for the `*ObstoreBackend` classes. A provider is asked once now, and again when what it said is over or refused.
    Nothing is sent yet."""
    return BucketStore(f"s3://{bucket}/", engine_options(connection_options, credentials))


class AsyncObstoreBackend(NotCopied):
    """Objects of one store, for asyncio. The name is historical: the store is the package's own."""

    def __init__(self, store: Any) -> None:
        self._store: BucketStore = store
        self._objects: Any = self._store.objects

    async def put(
        self, url: str, payload: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Stores an object, in place of an earlier one."""
        _refuse_headers(headers)
        key = self._store.key_of(url)
        await self._objects.put(key, payload, content_type=content_type, timeout=engine_timeout())

    async def put_if(self, url: str, payload: bytes, content_type: str, *, if_match: str | None) -> bool:
        """Stores an object if the one before has that ETag (None: if there is none); whether it did."""
        how = {"content_type": content_type, "if_match": if_match, "create_only": if_match is None}
        try:
            await self._objects.put(self._store.key_of(url), payload, **how, timeout=engine_timeout())
        except ConditionFailedError:
            return False
        return True

    async def get(self, url: str) -> bytes:
        """An object's bytes. FileNotFoundError when there is none."""
        return await self._objects.get(self._store.key_of(url), engine_timeout())  # type: ignore[no-any-return]

    async def try_get(self, url: str) -> bytes | None:
        """An object's bytes, or None."""
        try:
            return await self.get(url)
        except FileNotFoundError:
            return None

    async def head(self, url: str) -> str | None:
        """An object's ETag as the store gave it; None when there is no object."""
        try:
            return (await self._objects.head(self._store.key_of(url), engine_timeout()))[1]  # type: ignore[no-any-return]
        except FileNotFoundError:
            return None

    async def list_prefixes(self, prefix_url: str) -> list[str]:
        """URLs of the folders directly below the prefix, with a slash at the end, sorted."""
        folder = _folder(self._store.key_of(prefix_url))
        entries = await self._objects.list(folder, delimiter="/", timeout=engine_timeout())
        return _prefix_urls(prefix_url, folder, entries)

    async def delete_prefix(self, prefix_url: str) -> int:
        """Deletes everything below the prefix; the number of objects."""
        folder = _folder(self._store.key_of(prefix_url))
        keys = [key for key, _, _ in await self._objects.list(folder, timeout=engine_timeout())]
        for start in range(0, len(keys), _DELETE_BATCH):
            await self._objects.delete_many(keys[start : start + _DELETE_BATCH], engine_timeout())
        return len(keys)


class ObstoreBackend(NotCopied):
    """Objects of one store, blocking. The name is historical: the store is the package's own."""

    def __init__(self, store: Any) -> None:
        self._store: BucketStore = store
        self._backend = AsyncObstoreBackend(store)
        self._backend._objects = Immediate(store.objects, finish=_waited)

    def put(self, url: str, payload: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Stores an object, in place of an earlier one."""
        run_now(self._backend.put(url, payload, content_type, headers))

    def put_if(self, url: str, payload: bytes, content_type: str, *, if_match: str | None) -> bool:
        """Stores an object if the one before has that ETag (None: if there is none); whether it did."""
        return run_now(self._backend.put_if(url, payload, content_type, if_match=if_match))

    def get(self, url: str) -> bytes:
        """An object's bytes. FileNotFoundError when there is none."""
        return run_now(self._backend.get(url))

    def try_get(self, url: str) -> bytes | None:
        """An object's bytes, or None."""
        return run_now(self._backend.try_get(url))

    def head(self, url: str) -> str | None:
        """An object's ETag as the store gave it; None when there is no object."""
        return run_now(self._backend.head(url))

    def list_prefixes(self, prefix_url: str) -> list[str]:
        """URLs of the folders directly below the prefix, with a slash at the end, sorted."""
        return run_now(self._backend.list_prefixes(prefix_url))

    def delete_prefix(self, prefix_url: str) -> int:
        """Deletes everything below the prefix; the number of objects."""
        return run_now(self._backend.delete_prefix(prefix_url))


def _waited(operation: Operation[T]) -> T:
    return operation.wait()


def _prefix_urls(prefix_url: str, folder: str, entries: list[tuple[str, int, bool]]) -> list[str]:
    names = (key.removeprefix(folder).strip("/") for key, _, is_prefix in entries if is_prefix)
    prefix_url = location(prefix_url, "url")
    return sorted(f"{join_s3(prefix_url, name)}/" for name in names)


# ---------------------------------------------------------------- memory


class MemoryBackend:
    """Objects in a dictionary of this object, for tests."""

    _lock: Lock

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        add_locks(self, _lock=Lock)

    def put(self, url: str, payload: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Stores an object, in place of an earlier one."""
        with self._lock:
            self._objects[url] = bytes(payload)

    def get(self, url: str) -> bytes:
        """An object's bytes. FileNotFoundError when there is none."""
        payload = self.try_get(url)
        if payload is None:
            raise FileNotFoundError(url)
        return payload

    def try_get(self, url: str) -> bytes | None:
        """An object's bytes, or None."""
        with self._lock:
            return self._objects.get(url)

    def list_prefixes(self, prefix_url: str) -> list[str]:
        """URLs of the folders directly below the prefix, with a slash at the end, sorted."""
        folder = _folder(prefix_url)
        return sorted({f"{folder}{name}/" for name in self._children(folder)})

    def delete_prefix(self, prefix_url: str) -> int:
        """Deletes everything below the prefix; the number of objects."""
        folder = _folder(prefix_url)
        with self._lock:
            doomed = [url for url in self._objects if url.startswith(folder)]
            for url in doomed:
                del self._objects[url]
        return len(doomed)

    def _children(self, folder: str) -> list[str]:
        with self._lock:
            below = [url.removeprefix(folder) for url in self._objects if url.startswith(folder)]
        return [rest.split("/", 1)[0] for rest in below if "/" in rest]


class AsyncMemoryBackend:
    """Objects in a dictionary of this object, for tests with asyncio."""

    def __init__(self) -> None:
        self._sync = MemoryBackend()

    async def put(
        self, url: str, payload: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Stores an object, in place of an earlier one."""
        self._sync.put(url, payload, content_type, headers)

    async def get(self, url: str) -> bytes:
        """An object's bytes. FileNotFoundError when there is none."""
        return self._sync.get(url)

    async def try_get(self, url: str) -> bytes | None:
        """An object's bytes, or None."""
        return self._sync.try_get(url)

    async def list_prefixes(self, prefix_url: str) -> list[str]:
        """URLs of the folders directly below the prefix, with a slash at the end, sorted."""
        return self._sync.list_prefixes(prefix_url)

    async def delete_prefix(self, prefix_url: str) -> int:
        """Deletes everything below the prefix; the number of objects."""
        return self._sync.delete_prefix(prefix_url)
