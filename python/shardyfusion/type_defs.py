"""Types and protocols that callers meet or implement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ForwardRef, Literal, Protocol, SupportsIndex, TypeAlias, TypedDict, TypeVar, Union, runtime_checkable

import shardyfusion

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "AsyncShardReader",
    "AsyncShardReaderFactory",
    "BuildMeta",
    "CacheOptions",
    "JsonObject",
    "JsonScalar",
    "JsonValue",
    "KeyInput",
    "Manifest",
    "RetryConfig",
    "S3Config",
    "S3ConnectionOptions",
    "ShardReader",
    "ShardReaderFactory",
    "ShardSizeMeta",
]

if TYPE_CHECKING:
    KeyInput: TypeAlias = int | str | bytes | bytearray | memoryview | UUID | SupportsIndex
else:
    KeyInput = int | str | bytes
"""A key as callers have it. The type matters: 5, "5" and b"5" are three keys. What is like one of them (integers of NumPy,
bytearrays, memoryviews, UUIDs as their 16 bytes) is that key."""

PlainKey: TypeAlias = int | str | bytes
"""A key as `native.plain_key()` makes it, and manifests have it."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    K = TypeVarWithDefault("K", bound=KeyInput, default=KeyInput, contravariant=True)
else:
    K = TypeVar("K")
"""The keys of a reader: `AsyncShardedReader[int]` takes no text, for type checkers. A reader of more kinds of keys may stand where one of
fewer is wanted."""

JsonScalar: TypeAlias = None | bool | int | float | str
if TYPE_CHECKING:
    JsonValue: TypeAlias = Union[None, bool, int, float, str, list["JsonValue"], dict[str, "JsonValue"]]
else:
    _JSON_VALUE = ForwardRef("JsonValue", module=__name__)  # looked up here, whoever's annotation it is in
    JsonValue = Union[None, bool, int, float, str, list[_JSON_VALUE], dict[str, _JSON_VALUE]]
JsonObject: TypeAlias = dict[str, JsonValue]


@runtime_checkable
class BuildMeta(Protocol):
    """What a shard reader factory may read of a manifest's build section."""

    @property
    def run_id(self) -> str:
        """The run that published the snapshot."""
        ...


@runtime_checkable
class ShardSizeMeta(Protocol):
    """What a shard reader factory may read of a manifest's shard rows."""

    @property
    def db_url(self) -> str | None:
        """Where the shard's objects are; None without rows."""
        ...

    @property
    def db_bytes(self) -> int:
        """What they take; 0: unknown."""
        ...


@runtime_checkable
class Manifest(Protocol):
    """What a shard reader factory may read of the manifest of the snapshot being opened."""

    @property
    def required_build(self) -> BuildMeta:
        """Of the run."""
        ...

    @property
    def shards(self) -> Sequence[ShardSizeMeta]:
        """In the order of their numbers."""
        ...


@runtime_checkable
class ShardReader(Protocol):
    """One opened shard. `key` is the stored form of a key; None answers a missing one."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a stored key; None when the shard does not have it."""
        ...

    def close(self) -> None:
        """Called once, when nobody reads the shard any more."""
        ...


@runtime_checkable
class ShardReaderFactory(Protocol):
    """Opens shards. Called with keywords only.

    db_url: where the shard's objects are. local_dir: a folder for it that exists.
    checkpoint_id, manifest: what the snapshot's manifest says of it.
    """

    def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> ShardReader: ...


@runtime_checkable
class AsyncShardReader(Protocol):
    """One opened shard. `get` may be called by several tasks at once."""

    async def get(self, key: bytes) -> bytes | None:
        """The value of a stored key; None when the shard does not have it."""
        ...

    async def close(self) -> None:
        """Called once, when nobody reads the shard any more."""
        ...


@runtime_checkable
class AsyncShardReaderFactory(Protocol):
    """Opens shards. Called with keywords only.

    db_url: where the shard's objects are. local_dir: a folder for it that exists.
    checkpoint_id, manifest: what the snapshot's manifest says of it.
    """

    async def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> AsyncShardReader: ...


class S3ConnectionOptions(TypedDict, total=False):
    """How to reach object storage; any mapping with these keys will do, unknown keys are refused by name.

    `addressing_style` is "path" (default), "virtual" or "auto"; `verify_ssl` a bool or the path of a CA bundle; timeouts
    are seconds; `max_attempts` counts the first attempt. `signature_version` is accepted: it is always version 4. `region`
    is another name of `region_name`; `request_payer` (True or "requester") says with every request that who asks pays.
    """

    endpoint_url: str
    region_name: str
    addressing_style: str
    signature_version: str
    verify_ssl: bool | str | PathLike[str]
    connect_timeout: int
    read_timeout: int
    max_attempts: int
    region: str
    request_payer: bool | str


@dataclass(slots=True, frozen=True, kw_only=True)
class S3Config:
    """How to reach object storage, wherever `s3_connection_options` is taken. What is None is found in the environment, in the
    files of profiles, or is the default.

    `credentials` count where no `credential_provider` is given. `timeouts` are those of connecting and reading, in seconds
    or as `timedelta`; one value is both. `retries` do not count the first attempt. Proxies are the environment's.
    """

    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] | None = None
    credentials: shardyfusion.CredentialProvider | shardyfusion.S3Credentials | None = None
    timeouts: float | timedelta | tuple[float | timedelta | None, float | timedelta | None] | None = None
    retries: int | None = None
    ca_bundle: str | PathLike[str] | None = None
    requester_pays: bool = False

    @classmethod
    def from_env(cls) -> S3Config:
        """What environment and profile say now: for other processes and for later. Credentials stay where they are, so that
        they are renewed. ConfigValidationError when what they say cannot be."""
        from shardyfusion._engine import native

        return cls(**native.s3_environment())

    def connection_options(self) -> S3ConnectionOptions:
        """The same without credentials, as `s3_connection_options` have it."""
        connect, read = self.timeouts if isinstance(self.timeouts, tuple) else (self.timeouts, self.timeouts)
        options = {
            "endpoint_url": self.endpoint,
            "region_name": self.region,
            "addressing_style": self.addressing,
            "verify_ssl": self.ca_bundle,
            "connect_timeout": _seconds(connect),
            "read_timeout": _seconds(read),
            "max_attempts": None if self.retries is None else self.retries + 1,
            "request_payer": self.requester_pays or None,
        }
        return {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]


def _seconds(timeout: float | timedelta | None) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


@dataclass(slots=True, frozen=True, kw_only=True)
class CacheOptions:
    """What a reader may keep, and how it reads shards of SlateDB.

    `memory_bytes`: a cache in memory of the reader's own, for blocks of its shards (pages, of SQLite shards) with their indexes and
    filters; 0: it keeps none. None: the cache of 256 MiB that all such readers of the process share.
    `disk_bytes`: so much of what it reads from S3 is kept in the folder `extents` of its `local_root`, checked when it
    is read again, for the next process as well; any number of processes may share it. From 1 MiB on; None: nothing. With
    `residency="memory"` up to half of it is for files that all these processes map, so that they have the snapshot in memory once.
    `read_gap_bytes`: for a batch of keys, blocks with at most so many bytes between them are asked for with one request. What S3 sends
    meanwhile takes about 1 % of the time of a request. A batch that would have more requests than may be under way at once (256) takes
    gaps of up to eight times as much, where fewer of them then wait for others.
    `warm_bytes`: before a refresh moves the reader it reads, in shards of SlateDB that have changed, blocks that hold what the cache
    has of the snapshot in use, of about so many bytes at most; 0: none.
    `hedge_share`: hedged reads of shards on S3. What is late is asked for once more, and the first answer counts: of at most this share of the requests
    (0.05: one of twenty; at most 0.5), and not while the store is sick. 0: none. `hedge_after`: late is what takes longer (seconds, or a timedelta);
    None: longer than all recent answers but for that share of them.
    """

    memory_bytes: int | None = None
    disk_bytes: int | None = None
    read_gap_bytes: int = 32 << 10
    warm_bytes: int = 0
    hedge_share: float = 0.0
    hedge_after: float | timedelta | None = None


@dataclass(slots=True, frozen=True)
class RetryConfig:
    """How often to repeat something that may help.

    max_retries: repetitions. initial_backoff: the wait before the first. backoff_multiplier: how many times as long each next one waits.
    """

    max_retries: int = 3
    initial_backoff: timedelta = timedelta(seconds=1)
    backoff_multiplier: float = 2.0
