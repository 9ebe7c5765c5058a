"""One snapshot that a reader serves, and who uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from logging import Logger
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeAlias

from shardyfusion._not_copied import NotCopied
from shardyfusion.cel import UnknownRoutingTokenError
from shardyfusion.errors import DbAdapterError
from shardyfusion.logging import FailureSeverity, log_failure
from shardyfusion.reader._multi_get import OnError, multi_get
from shardyfusion.reader._scan import RowSource
from shardyfusion.reader._types import ShardDetail, SnapshotInfo
from shardyfusion.type_defs import AsyncShardReader, KeyInput

if TYPE_CHECKING:
    from shardyfusion.manifest import RequiredShardMeta

RoutingContext: TypeAlias = Mapping[str, object]


class SnapshotState(NotCopied, ABC):
    """An opened snapshot. Immutable but for the count of its borrowers; it closes when it is retired and nobody has
    borrowed it any more. Borrowing and giving back: any thread.
    """

    manifest_ref: str
    num_dbs: int
    encoding: str
    fallback: bool = False

    def __init__(self) -> None:
        self._borrowers = 0
        self._retired = False
        self._lock = RLock()  # a handle may be collected, and so give back, while its own thread is in here

    # ---- life

    @property
    def borrowers(self) -> int:
        return self._borrowers

    def borrow(self) -> None:
        with self._lock:
            self._borrowers += 1

    def give_back(self) -> bool:
        """Whether the state must be disposed of now, by the caller."""
        with self._lock:
            self._borrowers -= 1
            return self._retired and self._borrowers == 0

    def retire(self) -> bool:
        """No new borrowers from now on. Whether the state must be disposed of now, by the caller."""
        with self._lock:
            self._retired = True
            return self._borrowers == 0

    async def give_back_and_dispose(self) -> None:
        if self.give_back():
            await self.dispose()

    def give_back_soon(self) -> None:
        """For callers that cannot wait: shards close in the background."""
        if self.give_back():
            self.dispose_soon()

    @abstractmethod
    async def dispose(self) -> list[tuple[int, Exception]]:
        """Closes all shards, whatever fails; the failures, logged."""

    @abstractmethod
    def dispose_soon(self) -> None:
        """The same, for callers that cannot wait."""

    # ---- reads

    @abstractmethod
    def locate(self, key: KeyInput, routing_context: RoutingContext | None) -> int:
        """The shard of a key. ValueError when the key cannot be routed."""

    @abstractmethod
    def encode(self, key: KeyInput) -> bytes:
        """The stored bytes of a key."""

    def look_up(self, key: KeyInput, routing_context: RoutingContext | None) -> Awaitable[bytes | None]:
        """The value of a key, wherever it lies."""
        return self._look_up(key, routing_context)

    async def _look_up(self, key: KeyInput, routing_context: RoutingContext | None) -> bytes | None:
        try:
            db_id = self.locate(key, routing_context)
        except UnknownRoutingTokenError:
            return None  # its token is none of this snapshot's, so it has no value
        return await self.get(db_id, self.encode(key))

    def try_look_up(self, key: KeyInput, routing_context: RoutingContext | None) -> bytes | None:
        """The same out of memory only. LookupError when that does not have it."""
        try:
            db_id = self.locate(key, routing_context)
        except UnknownRoutingTokenError:
            return None
        return self.try_get(db_id, self.encode(key))

    def look_up_many(
        self,
        keys: Sequence[KeyInput],
        routing_context: RoutingContext | None,
        max_concurrency: int | None,
        on_error: OnError,
    ) -> Awaitable[dict[KeyInput, Any]]:
        """The same for many keys."""
        return multi_get(self, keys, routing_context, max_concurrency, on_error)

    @abstractmethod
    async def get(self, db_id: int, key: bytes) -> bytes | None: ...

    @abstractmethod
    def try_get(self, db_id: int, key: bytes) -> bytes | None:
        """The same out of memory only. LookupError when that does not have it."""

    @abstractmethod
    async def get_many(self, db_id: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of one shard's keys, in order."""

    @abstractmethod
    def shard(self, db_id: int) -> AsyncShardReader:
        """The shard's reader, for handles."""

    @abstractmethod
    def scan(
        self,
        *,
        db_id: int | None,
        start: bytes | None,
        end: bytes | None,
        prefix: bytes | None,
        limit: int | None,
        reverse: bool,
    ) -> RowSource:
        """The rows of a shard, or (None) of all shards, in key order."""

    # ---- facts

    @abstractmethod
    def info(self) -> SnapshotInfo: ...

    @abstractmethod
    def shard_details(self) -> list[ShardDetail]: ...

    @abstractmethod
    def shard_meta(self, db_id: int) -> RequiredShardMeta: ...


def log_close_failed(error: Exception, db_id: int, manifest_ref: str, log: Logger) -> None:
    log_failure(
        "reader_handle_close_failed",
        severity=FailureSeverity.ERROR,
        error=error,
        logger=log,
        db_id=db_id,
        manifest_ref=manifest_ref,
    )


def close_error(failures: Sequence[tuple[int, Exception]], what: str = "shard reader(s)") -> DbAdapterError:
    """What `close()` raises after having tried every shard."""
    ids = [db_id for db_id, _ in failures]
    error = DbAdapterError(f"Failed to close {len(ids)} {what}: db_ids={ids}")
    error.__cause__ = failures[0][1]
    return error
