"""Shards of blocking readers: how the caller's own shard readers are shared between threads."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, Protocol, TypeVar

from shardyfusion._fork import add_locks
from shardyfusion._not_copied import NotCopied
from shardyfusion.errors import PoolExhaustedError
from shardyfusion.type_defs import ShardReader


T = TypeVar("T")


class SyncShard(Protocol):
    """One shard of a snapshot."""

    @property
    def reader(self) -> ShardReader:
        """For handles."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def close(self) -> None: ...


class EmptyShard:
    """A shard without rows, and the reader of one."""

    @property
    def reader(self) -> ShardReader:
        return self

    def get(self, key: bytes) -> bytes | None:
        return None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def scan(self, **options: object) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

    def close(self) -> None:
        pass


class PlainShard:
    """For one thread at a time."""

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader

    @property
    def reader(self) -> ShardReader:
        return self._reader

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._reader.get(key) for key in keys]

    def close(self) -> None:
        self._reader.close()


class LockedShard(PlainShard):
    """One reader, used by one thread at a time."""

    def __init__(self, reader: ShardReader) -> None:
        super().__init__(reader)
        self._lock: Any
        add_locks(self, _lock=Lock)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._lock:
            return super().get_many(keys)


class PooledShard:
    """Several readers of one shard; each call uses a free one."""

    def __init__(self, members: Sequence[ShardReader], checkout_timeout_s: float | None) -> None:
        self._members = members
        self._timeout_s = checkout_timeout_s
        self._free: queue.LifoQueue[ShardReader] = queue.LifoQueue()
        for member in members:
            self._free.put(member)

    @property
    def reader(self) -> ShardReader:
        return PoolProxy(self)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.use(lambda member: [member.get(key) for key in keys])

    def use(self, work: Callable[[ShardReader], T]) -> T:
        try:
            member = self._free.get(timeout=self._timeout_s)
        except queue.Empty:
            raise PoolExhaustedError(f"Shard reader pool checkout timed out after {self._timeout_s}s") from None
        try:
            return work(member)
        finally:
            self._free.put(member)

    def close(self) -> None:
        errors = []
        for member in self._members:
            try:
                member.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


class PoolProxy(NotCopied):
    """Stands for a pool's members: every method call uses a free one."""

    def __init__(self, pool: PooledShard) -> None:
        self._pool = pool

    def get(self, key: bytes) -> bytes | None:
        return self._pool.use(lambda member: member.get(key))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):  # what copy and others ask every object for
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._pool.use(lambda member: getattr(member, name)(*args, **kwargs))

        return call

    def close(self) -> None:
        """The pool's owner closes its members."""
