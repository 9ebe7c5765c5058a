"""A manifest store, shards and hooks that are plain Python objects, and write down how they are used."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from shardyfusion.errors import ManifestParseError
from shardyfusion.manifest import (
    ManifestRef,
    ManifestShardingSpec,
    ParsedManifest,
    RequiredBuildMeta,
    RequiredShardMeta,
)
from shardyfusion.routing import xxh3_db_id
from shardyfusion.sharding_types import KeyEncoding, ShardHashAlgorithm

BASE = datetime(2026, 1, 1, tzinfo=timezone.utc)


def make_manifest(run_id: str, num_dbs: int = 3, *, empty: tuple[int, ...] = (), **custom: Any) -> ParsedManifest:
    return ParsedManifest(
        required=RequiredBuildMeta(
            run_id=run_id,
            created_at=BASE,
            num_dbs=num_dbs,
            s3_prefix="s3://bucket/p",
            key_col="_key",
            sharding=ManifestShardingSpec(hash_algorithm=ShardHashAlgorithm.XXH3_64),
            db_path_template="db={db_id:05d}",
            shard_prefix="shards",
            key_encoding=KeyEncoding.U64BE,
        ),
        shards=[
            RequiredShardMeta(
                db_id=db_id, db_url=f"s3://bucket/p/{run_id}/{db_id}", attempt=0, row_count=10, db_bytes=0,
                min_key=0, max_key=99, checkpoint_id=f"check-{db_id}",
            )
            for db_id in range(num_dbs)
            if db_id not in empty
        ],
        custom=custom,
    )


@dataclass
class Store:
    """An async manifest store. A manifest that is an exception is raised when it is loaded."""

    manifests: dict[str, ParsedManifest | Exception] = field(default_factory=dict)
    current: str | None = None
    calls: list[Any] = field(default_factory=list)
    pointer_error: Exception | None = None
    gate: asyncio.Event | None = None

    def publish(self, run_id: str, manifest: ParsedManifest | Exception | None = None, *, current: bool = True) -> str:
        self.manifests[run_id] = make_manifest(run_id) if manifest is None else manifest
        if current:
            self.current = run_id
        return run_id

    def malformed(self, run_id: str, *, current: bool = True) -> str:
        return self.publish(run_id, ManifestParseError(f"{run_id} is malformed"), current=current)

    async def load_current(self) -> ManifestRef | None:
        self.calls.append("load_current")
        if self.pointer_error is not None:
            raise self.pointer_error
        return None if self.current is None else self.ref(self.current)

    async def load_manifest(self, ref: str) -> ParsedManifest:
        self.calls.append(("load_manifest", ref))
        if self.gate is not None:
            await self.gate.wait()
        found = self.manifests[ref]
        if isinstance(found, Exception):
            raise found
        return found

    async def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        self.calls.append(("list_manifests", limit))
        return [self.ref(run_id) for run_id in reversed(self.manifests)][:limit]

    def ref(self, run_id: str) -> ManifestRef:
        return ManifestRef(run_id, run_id, BASE + timedelta(days=list(self.manifests).index(run_id)))


class SyncStore:
    """The same, blocking."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _run(self, work: Any) -> Any:
        return asyncio.run(work)

    def load_current(self) -> Any:
        return self._run(self._store.load_current())

    def load_manifest(self, ref: str) -> Any:
        return self._run(self._store.load_manifest(ref))

    def list_manifests(self, *, limit: int = 10) -> Any:
        return self._run(self._store.list_manifests(limit=limit))


@dataclass(eq=False)
class Shard:
    db_url: str
    factory: Factory
    closed: int = 0
    reading: int = 0

    async def get(self, key: bytes) -> bytes | None:
        assert not self.closed, "a read of a closed shard"
        self.factory.gets.append((self.db_url, key))
        self.reading += 1
        self.factory.reading += 1
        self.factory.most_reading = max(self.factory.most_reading, self.factory.reading)
        try:
            assert self.reading == 1 or self.factory.concurrent_tasks, "keys of one shard go one after the other"
            if self.factory.gate is not None:
                await self.factory.gate.wait()
            else:
                await asyncio.sleep(0)
            error = self.factory.get_errors.get(key)
            if error is not None:
                raise error
        except asyncio.CancelledError:
            self.factory.cancelled.append(key)
            raise
        finally:
            self.reading -= 1
            self.factory.reading -= 1
        number = int.from_bytes(key, "big")
        return f"{self.db_url.rsplit('/', 2)[1]}:{number}".encode() if number < 100 else None

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1
        if self.db_url in self.factory.close_errors:
            raise RuntimeError(f"cannot close {self.db_url}")


@dataclass(eq=False)
class Factory:
    """Counts what readers open, read and close. Keys below 100 exist: "<run>:<key>"."""

    opened: list[Shard] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    gets: list[tuple[str, bytes]] = field(default_factory=list)
    cancelled: list[bytes] = field(default_factory=list)
    get_errors: dict[bytes, Exception] = field(default_factory=dict)
    open_errors: dict[str, Exception] = field(default_factory=dict)
    close_errors: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None
    open_gate: asyncio.Event | None = None
    concurrent_tasks: bool = False
    reading: int = 0
    most_reading: int = 0
    opening: int = 0
    most_opening: int = 0

    async def __call__(self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Any) -> Shard:
        self.calls.append({
            "db_url": db_url, "local_dir": local_dir, "exists": local_dir.is_dir(), "checkpoint_id": checkpoint_id,
            "run_id": manifest.required_build.run_id,
        })
        self.opening += 1
        self.most_opening = max(self.most_opening, self.opening)
        try:
            if self.open_gate is not None:
                await self.open_gate.wait()
            await asyncio.sleep(0)
            if db_url in self.open_errors:
                raise self.open_errors[db_url]
        finally:
            self.opening -= 1
        shard = Shard(db_url, self)
        self.opened.append(shard)
        return shard

    @property
    def still_open(self) -> list[str]:
        return [shard.db_url for shard in self.opened if not shard.closed]


@dataclass
class Limiter:
    """Lets everything through, and writes it down."""

    calls: list[tuple[str, int]] = field(default_factory=list)
    error: Exception | None = None
    on_acquire: Any = None

    def acquire(self, tokens: int = 1) -> None:
        self.calls.append(("acquire", tokens))

    def try_acquire(self, tokens: int = 1) -> Any:
        self.calls.append(("try_acquire", tokens))

    async def acquire_async(self, tokens: int = 1) -> None:
        self.calls.append(("acquire_async", tokens))
        if self.error is not None:
            raise self.error
        if self.on_acquire is not None:
            await self.on_acquire()


def stored(key: int) -> bytes:
    return key.to_bytes(8, "big")


def key_in(db_id: int, num_dbs: int = 3, start: int = 0) -> int:
    """A key of that shard."""
    return next(key for key in range(start, start + 1000) if xxh3_db_id(key, num_dbs) == db_id)
