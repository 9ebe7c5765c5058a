"""SlateDB shards: the readers of one, and the factories that open them."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion._native import Snapshot
from shardyfusion._not_copied import NotCopied
from shardyfusion._s3_options import engine_options
from shardyfusion._storage_errors import READER_CLOSED, inside_shard
from shardyfusion._store_events import with_events
from shardyfusion._timeouts import Timeout, engine_timeout, seconds
from shardyfusion.credentials import CredentialProvider
from shardyfusion.errors import ConfigValidationError, ReaderStateError, ShardyfusionError
from shardyfusion.reader._scan import AsyncScan, EngineRows, SyncScan
from shardyfusion.type_defs import Manifest, S3Config, S3ConnectionOptions

if TYPE_CHECKING:
    from shardyfusion._native import S3Options, Scan

_OPEN_TOGETHER = 64

ENGINE_READING: dict[str, Any] = {"sqlite_mode": "refuse"}  # how the engine opens what these factories are for


class EngineShard(NotCopied):
    """One shard of a pinned snapshot. Closing it gives the pin back when the shard has one of its own."""

    __slots__ = ("_db_id", "_owns_pin", "_snapshot", "__weakref__")

    def __init__(self, snapshot: Snapshot, db_id: int = 0, *, owns_pin: bool = True) -> None:
        self._snapshot: Snapshot | None = snapshot
        self._db_id = db_id
        self._owns_pin = owns_pin

    def _opened(self) -> Snapshot:
        if self._snapshot is None:
            raise ReaderStateError(READER_CLOSED)
        return self._snapshot

    def try_get(self, key: bytes) -> bytes | None:
        """The value of a key out of memory, at once. LookupError when memory does not have the answer."""
        return self._opened().try_get(self._db_id, key)

    def _scan(
        self, start: bytes | None, end: bytes | None, prefix: bytes | None, limit: int | None, reverse: bool, prefetch_bytes: int
    ) -> Scan:
        return self._opened().scan(
            db_id=self._db_id, start=start, end=end, prefix=prefix, limit=limit, reverse=reverse, prefetch_bytes=prefetch_bytes
        )

    def _close(self) -> None:
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None and self._owns_pin:
            snapshot.close()


class AsyncShard(EngineShard):
    """A shard that the engine reads. Keys are stored bytes. Any number of tasks may read at once."""

    __slots__ = ()

    async def get(self, key: bytes, *, timeout: Timeout = None) -> bytes | None:
        """The value of a key; None when there is none."""
        return await self._opened().get(self._db_id, key, engine_timeout(timeout))

    async def multi_get(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> dict[bytes, bytes | None]:
        """The values of keys: one request to storage for all that must be fetched."""
        return await self._opened().multi_get(self._db_id, keys, engine_timeout(timeout))

    async def get_many(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> list[bytes | None]:
        """The same as a list aligned with the keys."""
        return await self._opened().get_many(self._db_id, keys, engine_timeout(timeout))

    async def contains(self, key: bytes, *, timeout: Timeout = None) -> bool:
        """Whether there is a value."""
        return await self._opened().contains(self._db_id, key, engine_timeout(timeout))

    async def contains_many(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> list[bool]:
        """The same for many keys: a list aligned with them."""
        return await self._opened().contains_many(self._db_id, keys, engine_timeout(timeout))

    def scan(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
        timeout: Timeout = None,
        prefetch_bytes: int = native.SCAN_PREFETCH_BYTES,
    ) -> AsyncScan[bytes]:
        """The rows in [start, end), or those with a prefix, in key order. `timeout` bounds each fetch of rows; `prefetch_bytes`
        what is read ahead of them."""
        return AsyncScan(EngineRows(self._scan(start, end, prefix, limit, reverse, prefetch_bytes)), timeout=timeout)

    async def close(self) -> None:
        """No reads from now on. Any number of times."""
        self._close()


class AsyncSlateDbShardReader(AsyncShard):
    """A SlateDB shard."""

    __slots__ = ()


class BlockingShard(EngineShard):
    """A shard that the engine reads, blocking. Keys are stored bytes. Any thread."""

    __slots__ = ("_step_rows",)

    def __init__(
        self, snapshot: Snapshot, db_id: int = 0, *, owns_pin: bool = True, step_rows: int = 1024
    ) -> None:
        super().__init__(snapshot, db_id, owns_pin=owns_pin)
        self._step_rows = step_rows

    def get(self, key: bytes, *, timeout: Timeout = None) -> bytes | None:
        """The value of a key; None when there is none."""
        return self._opened().get(self._db_id, key, engine_timeout(timeout)).wait()

    def multi_get(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> dict[bytes, bytes | None]:
        """The values of keys: one request to storage for all that must be fetched."""
        return self._opened().multi_get(self._db_id, keys, engine_timeout(timeout)).wait()

    def get_many(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> list[bytes | None]:
        """The same as a list aligned with the keys."""
        return self._opened().get_many(self._db_id, keys, engine_timeout(timeout)).wait()

    def contains(self, key: bytes, *, timeout: Timeout = None) -> bool:
        """Whether there is a value."""
        return self._opened().contains(self._db_id, key, engine_timeout(timeout)).wait()

    def contains_many(self, keys: Sequence[bytes], *, timeout: Timeout = None) -> list[bool]:
        """The same for many keys: a list aligned with them."""
        return self._opened().contains_many(self._db_id, keys, engine_timeout(timeout)).wait()

    def scan_iter(self, start: bytes | None = None, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The rows in [start, end), in key order."""
        return self.scan(start, end)

    def scan(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
        timeout: Timeout = None,
        prefetch_bytes: int = native.SCAN_PREFETCH_BYTES,
    ) -> SyncScan:
        """The rows in [start, end), or those with a prefix, in key order. `timeout` bounds each fetch of rows; `prefetch_bytes`
        what is read ahead of them."""
        return SyncScan(self._scan(start, end, prefix, limit, reverse, prefetch_bytes), seconds(timeout), step=self._step_rows)

    def close(self) -> None:
        """No reads from now on. Any number of times."""
        self._close()


class SlateDbShardReader(BlockingShard):
    """A SlateDB shard, blocking."""

    __slots__ = ()


@dataclass(slots=True)
class AsyncSlateDbReaderFactory:
    """Opens SlateDB shards for async readers, at their newest state; nothing is written to storage.

    `env_file` is a dotenv file whose AWS_ values win over provider and options. The provider is asked for each shard.
    """

    env_file: str | None = None
    credential_provider: CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | S3Config | None = None

    def engine_reading(self, local_root: str) -> dict[str, Any]:
        """How the engine opens the shards of a whole reader."""
        return ENGINE_READING

    async def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> AsyncSlateDbShardReader:
        """Opens the shard at `db_url`; the other arguments are not needed."""
        try:
            return AsyncSlateDbShardReader(await native.open_shard(db_url, _reading(self), timeout=engine_timeout()))
        except ShardyfusionError as error:
            raise _not_opened(db_url, error) from error


@dataclass(slots=True)
class SlateDbReaderFactory:
    """Opens SlateDB shards for sync readers, at their newest state; nothing is written to storage.

    `iterator_chunk_size`: rows that one step of an iteration fetches.
    """

    env_file: str | None = None
    credential_provider: CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
    iterator_chunk_size: int = 1024

    def __post_init__(self) -> None:
        if self.iterator_chunk_size <= 0:
            raise ConfigValidationError(f"iterator_chunk_size must be positive, got {self.iterator_chunk_size}")

    def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> SlateDbShardReader:
        """Opens the shard at `db_url`; the other arguments are not needed."""
        return self._open(db_url)

    def engine_reading(self, local_root: str) -> dict[str, Any]:
        """How the engine opens the shards of a whole reader."""
        return ENGINE_READING

    def open_many(self, specs: list[tuple[str, Manifest]]) -> list[SlateDbShardReader]:
        """Opens the shards of several URLs together; readers in the same order. All or none."""
        with concurrent.futures.ThreadPoolExecutor(max(1, min(len(specs), _OPEN_TOGETHER))) as pool:
            opening = [pool.submit(copy_context().run, self._open, db_url) for db_url, _ in specs]
        try:
            return [future.result() for future in opening]
        except BaseException:
            for future in opening:
                if future.exception() is None:
                    future.result().close()
            raise

    def _open(self, db_url: str) -> SlateDbShardReader:
        try:
            snapshot = native.open_shard(db_url, _reading(self), timeout=engine_timeout()).wait()
        except ShardyfusionError as error:
            raise _not_opened(db_url, error) from error
        return SlateDbShardReader(snapshot, step_rows=self.iterator_chunk_size)


def shard_options(factory: Any) -> S3Options | None:
    """What the engine needs to reach the shards of a factory of ours; None: the environment says it all."""
    return engine_options(factory.s3_connection_options, factory.credential_provider, getattr(factory, "env_file", None))


def _reading(factory: AsyncSlateDbReaderFactory | SlateDbReaderFactory) -> dict[str, object]:
    return {"s3": with_events(shard_options(factory)), **ENGINE_READING}


def _not_opened(db_url: str, error: ShardyfusionError) -> ShardyfusionError:
    return inside_shard(error, f"Failed to open SlateDB at {db_url!r}: {error}")
