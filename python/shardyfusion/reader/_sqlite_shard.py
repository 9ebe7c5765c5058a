"""SQLite shards: the readers of one, and the factories that open them. The engine reads them; a reader that is given one of these
factories hands it on to the engine (`reader/_sources.py`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import quote

from shardyfusion._engine import native
from shardyfusion._native import Snapshot
from shardyfusion._s3_options import engine_options
from shardyfusion._sqlite_access import (
    DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES,
    DEFAULT_AUTO_TOTAL_BUDGET_BYTES,
    Decision,
    DeniedSqliteShardError,
    MissingSqliteShardError,
    SqliteAccessMode,
    SqliteAccessPolicy,
    SqliteAdapterError,
    ThresholdPolicy,
    make_threshold_policy,
)
from shardyfusion._storage_errors import (
    DeniedObjectError,
    DeniedShardObjectError,
    MissingObjectError,
    MissingShardObjectError,
    reworded,
)
from shardyfusion._store_events import with_events
from shardyfusion._timeouts import engine_timeout
from shardyfusion.credentials import CredentialProvider
from shardyfusion.errors import (
    ConfigValidationError,
    OperationTimeoutError,
    ReaderStateError,
    S3TransientError,
    ShardyfusionError,
)
from shardyfusion.reader._slatedb_shard import (
    AsyncShard,
    AsyncSlateDbShardReader,
    BlockingShard,
    SlateDbShardReader,
)
from shardyfusion.type_defs import Manifest, S3Config, S3ConnectionOptions

if TYPE_CHECKING:
    import sqlite3
    from shardyfusion._native import Operation

DEFAULT_MMAP_SIZE = 256 << 20
DEFAULT_PAGES = 1024

_KEPT_DECISIONS = 8  # of a factory that opens snapshots one after the other


class _SqliteShard(BlockingShard):
    """What both readers have."""

    __slots__ = ("_connection", "_opening")

    _mode: ClassVar[Decision]
    _closed_text: ClassVar[str]

    def _begin(self, snapshot: Snapshot, db_id: int, owns_pin: bool, opening: _Opening | None) -> None:
        super().__init__(snapshot, db_id, owns_pin=owns_pin)
        self._connection: sqlite3.Connection | None = None
        self._opening = opening

    @classmethod
    def of(cls, snapshot: Snapshot, db_id: int = 0, *, owns_pin: bool = True, opening: _Opening | None = None) -> Self:
        """Of a shard that is open already."""
        shard = cls.__new__(cls)
        shard._begin(snapshot, db_id, owns_pin, opening)
        return shard

    def _opened(self) -> Snapshot:
        if self._snapshot is None:
            raise SqliteAdapterError(self._closed_text)
        return self._snapshot

    @property
    def connection(self) -> sqlite3.Connection:
        """SQLite's own view of the shard, read-only; closed with the reader."""
        if self._connection is None:
            self._connection = self._connect(self._opened())
        return self._connection

    def _connect(self, snapshot: Snapshot) -> sqlite3.Connection:
        raise NotImplementedError

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        super()._close()

    def __del__(self) -> None:  # a borrowed shard is let go of, not closed
        connection: sqlite3.Connection | None = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()


class SqliteShardReader(_SqliteShard):
    """An SQLite shard, read from a copy below `local_dir`. Keys are stored bytes. Any thread. `mmap_size` is accepted: pages are
    kept in the engine's cache, not mapped."""

    __slots__ = ()

    _mode = "download"
    _closed_text = "Reader already closed"

    def __init__(
        self,
        *,
        db_url: str,
        local_dir: Path,
        checkpoint_id: str | None,
        mmap_size: int = DEFAULT_MMAP_SIZE,
        s3_connection_options: S3ConnectionOptions | S3Config | None = None,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        opening = _Opening(db_url, local_dir, s3_connection_options, credential_provider)
        self._begin(opening.wait(self._mode), 0, True, opening)

    def _connect(self, snapshot: Snapshot) -> sqlite3.Connection:
        return _connect(snapshot, self._db_id)


class SqliteRangeShardReader(_SqliteShard):
    """An SQLite shard, read page by page as look-ups need it. Keys are stored bytes. Any thread. `page_cache_pages`: 0 keeps
    no pages; other numbers leave their bound to the engine's cache."""

    __slots__ = ()

    _mode = "range"
    _closed_text = "Reader is closed"

    def __init__(
        self,
        *,
        db_url: str,
        local_dir: Path,
        checkpoint_id: str | None,
        page_cache_pages: int = DEFAULT_PAGES,
        s3_connection_options: S3ConnectionOptions | S3Config | None = None,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        opening = _Opening(db_url, local_dir, s3_connection_options, credential_provider, page_cache_pages)
        self._begin(opening.wait(self._mode), 0, True, opening)

    def _connect(self, snapshot: Snapshot) -> sqlite3.Connection:
        """Of a copy that is downloaded for it: statements may read all of the shard."""
        if self._opening is None:
            raise SqliteAdapterError(
                "this shard is read by ranges and has no file to connect to: open it by SqliteReaderFactory, or the reader with it"
            )
        copy = self._opening.wait("download")
        try:
            return _connect(copy, 0)  # the file stays open with it, whoever tidies up
        finally:
            copy.close()


class AsyncSqliteShardReader(AsyncShard):
    """An SQLite shard for asyncio, read from a copy. Any number of tasks may read at once."""

    __slots__ = ("_inner",)

    def __init__(self, inner: SqliteShardReader) -> None:
        super().__init__(inner._opened(), inner._db_id, owns_pin=False)
        self._inner: _SqliteShard = inner

    def _opened(self) -> Snapshot:
        return self._inner._opened()

    def _close(self) -> None:
        self._inner.close()


class AsyncSqliteRangeShardReader(AsyncShard):
    """An SQLite shard for asyncio, read page by page. Any number of tasks may read at once."""

    __slots__ = ("_inner",)

    def __init__(self, inner: SqliteRangeShardReader) -> None:
        super().__init__(inner._opened(), inner._db_id, owns_pin=False)
        self._inner: _SqliteShard = inner

    _opened = AsyncSqliteShardReader._opened
    _close = AsyncSqliteShardReader._close


@dataclass(slots=True)
class _Opening:
    """One shard, as a factory opens it."""

    db_url: str
    local_dir: Path
    s3_connection_options: S3ConnectionOptions | S3Config | None
    credential_provider: CredentialProvider | None
    page_cache_pages: int = DEFAULT_PAGES

    def start(self, mode: Decision) -> Operation[Snapshot]:
        options = {
            "s3": with_events(engine_options(self.s3_connection_options, self.credential_provider)),
            "sqlite_only": True,
            "sqlite_mode": mode,
            "sqlite_folder": _folder(self.local_dir),
            "sqlite_uncached": self.page_cache_pages == 0,
        }
        return native.open_shard(self.db_url, options, timeout=engine_timeout())

    def wait(self, mode: Decision) -> Snapshot:
        try:
            return self.start(mode).wait()
        except ShardyfusionError as error:
            raise self.failed(error) from error

    async def open(self, mode: Decision) -> Snapshot:
        try:
            return await self.start(mode)
        except ShardyfusionError as error:
            raise self.failed(error) from error

    def failed(self, error: ShardyfusionError) -> ShardyfusionError:
        text = f"Failed to open SQLite shard at {self.db_url!r}: {error}"
        if isinstance(error, (OperationTimeoutError, S3TransientError, ReaderStateError, ConfigValidationError)):
            return reworded(error, text)
        cls = SqliteAdapterError
        if isinstance(error, (MissingObjectError, MissingShardObjectError)):
            cls = MissingSqliteShardError
        elif isinstance(error, (DeniedObjectError, DeniedShardObjectError)):
            cls = DeniedSqliteShardError
        other = cls(text)
        other.__dict__.update(error.__dict__)
        return other


def _folder(local_dir: str | os.PathLike[str]) -> str:
    return os.path.join(local_dir, "sqlite")


def _connect(snapshot: Snapshot, db_id: int) -> sqlite3.Connection:
    import sqlite3

    file = quote(snapshot.sqlite_file(db_id) or "")
    return sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True, check_same_thread=False)


def _check_pages(page_cache_pages: int) -> None:
    if page_cache_pages < 0:
        raise ConfigValidationError(f"page_cache_pages must not be negative, got {page_cache_pages}")


# ---------------------------------------------------------------- factories
#
# `engine_reading` of each: how the engine opens the shards of a whole reader, instead of being called for each of them.


class _Download:
    __slots__ = ()

    def engine_reading(self, local_root: str) -> dict[str, Any]:
        return {"sqlite_only": True, "sqlite_mode": "download", "sqlite_folder": _folder(local_root)}


class _Range:
    __slots__ = ()

    def engine_reading(self, local_root: str) -> dict[str, Any]:
        pages: int = self.page_cache_pages  # type: ignore[attr-defined]
        return {"sqlite_only": True, "sqlite_mode": "range", "sqlite_uncached": pages == 0}


@dataclass(slots=True)
class SqliteReaderFactory(_Download):
    """Opens SQLite shards as copies on local disk."""

    mmap_size: int = DEFAULT_MMAP_SIZE
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
    credential_provider: CredentialProvider | None = None

    def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> SqliteShardReader:
        """Downloads the shard, or takes its copy again."""
        return SqliteShardReader(
            db_url=db_url,
            local_dir=local_dir,
            checkpoint_id=checkpoint_id,
            mmap_size=self.mmap_size,
            s3_connection_options=self.s3_connection_options,
            credential_provider=self.credential_provider,
        )


@dataclass(slots=True)
class AsyncSqliteReaderFactory(_Download):
    """The same for async readers."""

    mmap_size: int = DEFAULT_MMAP_SIZE
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
    credential_provider: CredentialProvider | None = None

    async def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> AsyncSqliteShardReader:
        """Downloads the shard, or takes its copy again."""
        opening = _Opening(db_url, local_dir, self.s3_connection_options, self.credential_provider)
        return AsyncSqliteShardReader(SqliteShardReader.of(await opening.open("download"), opening=opening))


@dataclass(slots=True)
class SqliteRangeReaderFactory(_Range):
    """Opens SQLite shards to be read page by page."""

    page_cache_pages: int = DEFAULT_PAGES
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
    credential_provider: CredentialProvider | None = None

    def __post_init__(self) -> None:
        _check_pages(self.page_cache_pages)

    def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> SqliteRangeShardReader:
        """Opens the shard; nothing is downloaded but the pages that tell what it is."""
        return SqliteRangeShardReader(
            db_url=db_url,
            local_dir=local_dir,
            checkpoint_id=checkpoint_id,
            page_cache_pages=self.page_cache_pages,
            s3_connection_options=self.s3_connection_options,
            credential_provider=self.credential_provider,
        )


@dataclass(slots=True)
class AsyncSqliteRangeReaderFactory(_Range):
    """The same for async readers."""

    page_cache_pages: int = DEFAULT_PAGES
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
    credential_provider: CredentialProvider | None = None

    def __post_init__(self) -> None:
        _check_pages(self.page_cache_pages)

    async def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> AsyncSqliteRangeShardReader:
        """Opens the shard; nothing is downloaded but the pages that tell what it is."""
        opening = _Opening(
            db_url, local_dir, self.s3_connection_options, self.credential_provider, self.page_cache_pages
        )
        return AsyncSqliteRangeShardReader(SqliteRangeShardReader.of(await opening.open("range"), opening=opening))


class _Adaptive:
    """Decides by the sizes of the shards, once per snapshot."""

    def __init__(
        self,
        *,
        policy: SqliteAccessPolicy | None = None,
        per_shard_threshold: int = DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES,
        total_budget: int = DEFAULT_AUTO_TOTAL_BUDGET_BYTES,
        mmap_size: int = DEFAULT_MMAP_SIZE,
        page_cache_pages: int = DEFAULT_PAGES,
        s3_connection_options: S3ConnectionOptions | S3Config | None = None,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        _check_pages(page_cache_pages)
        self._policy = policy or make_threshold_policy(
            per_shard_threshold=per_shard_threshold, total_budget=total_budget
        )
        self.page_cache_pages = page_cache_pages
        self.mmap_size = mmap_size
        self.s3_connection_options = s3_connection_options
        self.credential_provider = credential_provider
        self._decided: dict[str, Decision] = {}

    def engine_reading(self, local_root: str) -> dict[str, Any] | None:
        """None: only the policy knows, so that the factory is called for each shard."""
        policy = self._policy
        if type(policy) is not ThresholdPolicy:
            return None
        return {"sqlite_only": True, **auto_reading(local_root, policy, self.page_cache_pages)}

    def _decide(self, manifest: Manifest) -> Decision:
        run_id = manifest.required_build.run_id
        decided = self._decided.get(run_id)
        if decided is None:
            sizes = [int(getattr(shard, "db_bytes", 0) or 0) for shard in manifest.shards]
            decided = self._policy.decide(sizes)
            if decided not in ("download", "range"):
                raise SqliteAdapterError(f"{type(self._policy).__name__}.decide: {decided!r} is neither 'download' nor 'range'")
            while len(self._decided) >= _KEPT_DECISIONS:
                self._decided.pop(next(iter(self._decided)), None)
            self._decided[run_id] = decided
        return decided

    def _opening(self, db_url: str, local_dir: Path) -> _Opening:
        return _Opening(db_url, local_dir, self.s3_connection_options, self.credential_provider, self.page_cache_pages)


def auto_reading(local_root: str, policy: ThresholdPolicy, page_cache_pages: int) -> dict[str, Any]:
    return {
        "sqlite_mode": "auto",
        "sqlite_folder": _folder(local_root),
        "sqlite_shard_bytes": max(0, policy.per_shard_threshold),
        "sqlite_total_bytes": max(0, policy.total_budget),
        "sqlite_uncached": page_cache_pages == 0,
    }


class AdaptiveSqliteReaderFactory(_Adaptive):
    """Opens SQLite shards as copies or by ranges, as a policy decides for each snapshot by the sizes of its shards."""

    def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> SqliteShardReader | SqliteRangeShardReader:
        """Opens the shard."""
        mode = self._decide(manifest)
        opening = self._opening(db_url, local_dir)
        cls = SqliteShardReader if mode == "download" else SqliteRangeShardReader
        return cls.of(opening.wait(mode), opening=opening)


class AsyncAdaptiveSqliteReaderFactory(_Adaptive):
    """The same for async readers."""

    async def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> AsyncSqliteShardReader | AsyncSqliteRangeShardReader:
        """Opens the shard."""
        mode = self._decide(manifest)
        opening = self._opening(db_url, local_dir)
        snapshot = await opening.open(mode)
        if mode == "download":
            return AsyncSqliteShardReader(SqliteShardReader.of(snapshot, opening=opening))
        return AsyncSqliteRangeShardReader(SqliteRangeShardReader.of(snapshot, opening=opening))


def _unsupported(function: str, mode: object) -> SqliteAdapterError:
    return SqliteAdapterError(
        f"{function}: unsupported mode {mode!r}; expected 'download' or 'range' (resolve 'auto' before calling)"
    )


def make_sqlite_reader_factory(
    *,
    mode: Literal["download", "range"],
    mmap_size: int = DEFAULT_MMAP_SIZE,
    page_cache_pages: int = DEFAULT_PAGES,
    s3_connection_options: S3ConnectionOptions | S3Config | None = None,
    credential_provider: CredentialProvider | None = None,
) -> SqliteReaderFactory | SqliteRangeReaderFactory:
    """The factory of one mode."""
    if mode == "download":
        return SqliteReaderFactory(mmap_size, s3_connection_options, credential_provider)
    if mode == "range":
        return SqliteRangeReaderFactory(page_cache_pages, s3_connection_options, credential_provider)
    raise _unsupported("make_sqlite_reader_factory", mode)


def make_async_sqlite_reader_factory(
    *,
    mode: Literal["download", "range"],
    mmap_size: int = DEFAULT_MMAP_SIZE,
    page_cache_pages: int = DEFAULT_PAGES,
    s3_connection_options: S3ConnectionOptions | S3Config | None = None,
    credential_provider: CredentialProvider | None = None,
) -> AsyncSqliteReaderFactory | AsyncSqliteRangeReaderFactory:
    """The same for async readers."""
    if mode == "download":
        return AsyncSqliteReaderFactory(mmap_size, s3_connection_options, credential_provider)
    if mode == "range":
        return AsyncSqliteRangeReaderFactory(page_cache_pages, s3_connection_options, credential_provider)
    raise _unsupported("make_async_sqlite_reader_factory", mode)


# ---------------------------------------------------------------- either backend


def shard_of(snapshot: Snapshot, db_id: int = 0, *, owns_pin: bool = False) -> BlockingShard:
    """The reader of a shard that the engine has opened, of whichever backend. One that is not open yet is not told from SlateDB's."""
    file = snapshot.sqlite_file(db_id)
    if file is None:
        return SlateDbShardReader(snapshot, db_id, owns_pin=owns_pin)
    return (SqliteShardReader if file else SqliteRangeShardReader).of(snapshot, db_id, owns_pin=owns_pin)


def async_shard_of(snapshot: Snapshot, db_id: int = 0, *, owns_pin: bool = False) -> AsyncShard:
    """The same for asyncio."""
    shard = shard_of(snapshot, db_id, owns_pin=owns_pin)
    if isinstance(shard, SqliteShardReader):
        return AsyncSqliteShardReader(shard)
    if isinstance(shard, SqliteRangeShardReader):
        return AsyncSqliteRangeShardReader(shard)
    return AsyncSlateDbShardReader(snapshot, db_id, owns_pin=owns_pin)


@dataclass(slots=True, kw_only=True)
class _Auto:
    sqlite_mode: SqliteAccessMode = "auto"
    per_shard_threshold: int = DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES
    total_budget: int = DEFAULT_AUTO_TOTAL_BUDGET_BYTES
    page_cache_pages: int = DEFAULT_PAGES
    env_file: str | None = None
    credential_provider: CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | S3Config | None = None

    def __post_init__(self) -> None:
        if self.sqlite_mode not in ("auto", "download", "range"):
            raise ConfigValidationError(f"sqlite_mode {self.sqlite_mode!r} is not 'auto', 'download' or 'range'")
        _check_pages(self.page_cache_pages)

    def engine_reading(self, local_root: str) -> dict[str, Any]:
        policy = ThresholdPolicy(self.per_shard_threshold, self.total_budget)
        return {**auto_reading(local_root, policy, self.page_cache_pages), "sqlite_mode": self.sqlite_mode}

    def _start(self, db_url: str, local_dir: Path) -> Operation[Snapshot]:
        s3 = engine_options(self.s3_connection_options, self.credential_provider, self.env_file)
        options = {"s3": with_events(s3), **self.engine_reading(os.fspath(local_dir))}
        return native.open_shard(db_url, options, timeout=engine_timeout())


class AutoReaderFactory(_Auto):
    """Opens shards as the snapshot says: SlateDB, or SQLite in this mode. What a reader does without a factory, made explicit."""

    __slots__ = ()

    def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> BlockingShard:
        """Opens the shard at `db_url`, of whichever backend."""
        return shard_of(self._start(db_url, local_dir).wait(), owns_pin=True)


class AsyncAutoReaderFactory(_Auto):
    """The same for async readers."""

    __slots__ = ()

    async def __call__(
        self, *, db_url: str, local_dir: Path, checkpoint_id: str | None, manifest: Manifest
    ) -> AsyncShard:
        """Opens the shard at `db_url`, of whichever backend."""
        return async_shard_of(await self._start(db_url, local_dir), owns_pin=True)
